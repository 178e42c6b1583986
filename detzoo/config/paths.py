"""Paths in a config: remote ones, and hints for missing ones."""

from __future__ import annotations

import itertools
import os
import pathlib
import re

from detzoo.config.names import nearest

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")  # Two letters at least: C://data is a drive of Windows.
_MOST_CHECKPOINTS_SHOWN = 3
_LONGEST_PATH = 4096  # PATH_MAX of Linux
_MOST_NAMES_COMPARED = 5000  # half a second of comparing
_GIVE_A_CHECKPOINT = (
    "give the path of its files up to .index, such as zoo/checkpoint/ckpt-0, or '' to start from scratch"
)


def is_remote(path: str) -> bool:
    """Returns True for a path on another file system, such as ``gs://bucket/train-*``, which is not checked."""
    return bool(_REMOTE.match(path))


def path_hint(path: str | pathlib.Path) -> str:
    """Returns a hint for a missing file: near names in its folder, or the last folder that exists."""
    file = pathlib.Path(path)
    hint = windows_hint(str(path)) or _length_hint(str(path))
    if hint:
        return hint
    if os.path.isdir(file.parent):
        close = near_files(file)
        return (
            f"; did you mean {' or '.join(close)}?"
            if close
            else f"; the folder {file.parent} exists, the file does not"
        )
    existing = next((str(folder) for folder in file.parents if os.path.isdir(folder)), "")
    return f"; the folder {file.parent} does not exist" + (f" (the path is good up to {existing})" if existing else "")


def near_files(file: pathlib.Path) -> list[str]:
    """Returns the nearest names of files in the folder of a missing file."""
    return nearest(file.name, [name for name in _first_names(file.parent) if os.path.isfile(file.parent / name)])


def _length_hint(path: str) -> str:
    return f"; a path of {len(path)} characters cannot exist" if len(path) > _LONGEST_PATH else ""


def _first_names(folder: pathlib.Path) -> list[str]:
    """Returns the first names in a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in itertools.islice(entries, _MOST_NAMES_COMPARED)]
    except OSError:
        return []


def windows_hint(path: str) -> str:
    """Returns how to write a Windows path on other systems, "" for other paths."""
    windows = pathlib.PureWindowsPath(path)
    if os.name == "nt" or not (windows.drive or "\\" in path):
        return ""
    forward = windows.as_posix()
    if not windows.drive:
        return f"; folders are separated by / here: give '{forward}'"
    if len(windows.drive) > 2:  # \\server\share
        return f"; this is a path of Windows, give it as this machine sees it: where {windows.drive} is mounted"
    letter, below = windows.drive[0].lower(), forward[2:].lstrip("/")
    return f"; this is a path of Windows, give it as this machine sees it (in WSL: '/mnt/{letter}/{below}')"


def checkpoint_hint(prefix: pathlib.Path) -> str:
    """Returns a hint for a missing prefix, or a folder without checkpoints: the checkpoints near it."""
    hint = windows_hint(str(prefix)) or _length_hint(str(prefix))
    if hint:
        return hint
    folder = prefix if os.path.isdir(prefix) else prefix.parent
    if not os.path.isdir(folder):
        return f"{path_hint(prefix)}; {_GIVE_A_CHECKPOINT}"
    found = sorted([*folder.glob("*.index"), *folder.glob("checkpoint/*.index")])
    names = [f"'{file.with_suffix('')}'" for file in found[:_MOST_CHECKPOINTS_SHOWN]]
    if names:
        return f"; did you mean {' or '.join(names)}?"
    return f"; the folder {folder} holds no *.index file: {_GIVE_A_CHECKPOINT}"
