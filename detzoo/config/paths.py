"""Paths in a config: remote ones, those relative to the config's folder, and hints for missing ones."""

from __future__ import annotations

import glob
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from detzoo.config.names import nearest

_SHARD_COUNT = re.compile(r"@\d+(\.[\w.]+)?$")  # stem@10: files that start with stem-
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


def resolve_beside(pipeline: Any, folder: str | pathlib.Path) -> None:
    """Makes paths absolute that exist only relative to the folder of their config, so that both can be moved together.

    A path that exists relative to the current folder stays as it is, and so does one that exists nowhere.

    Args:
        pipeline: ``pb.TrainEvalPipelineConfig``, which is changed.
        folder: Folder of the config.
    """
    base = os.path.abspath(folder)
    readers = [pipeline.train_input_reader] if pipeline.HasField("train_input_reader") else []
    readers += pipeline.eval_input_reader
    fields = [(reader, name) for reader in readers for name in ("label_map_path", "proposals_path")]
    fields += [(reader.image_folder_reader, "path") for reader in readers if reader.HasField("image_folder_reader")]
    if pipeline.model.HasField("center_net"):
        fields.append((pipeline.model.center_net, "keypoint_label_map_path"))
    if pipeline.HasField("train_config"):
        fields.append((pipeline.train_config, "fine_tune_checkpoint"))
    for message, name in fields:
        if path := getattr(message, name):
            setattr(message, name, _beside(path, base, base))
    for reader in readers:
        if reader.HasField("tf_record_input_reader"):
            patterns = reader.tf_record_input_reader.input_path
            for index, pattern in enumerate(patterns):
                patterns[index] = ",".join(_beside(part, base, glob.escape(base)) for part in pattern.split(","))


def _beside(path: str, base: str, prefix: str) -> str:
    """Returns ``prefix/path`` if a relative path exists in ``base`` only, else the path as it is."""
    name = path.strip()
    if not name or os.path.isabs(name) or is_remote(name) or _exists(name):
        return path
    return f"{prefix}/{name}" if _exists(f"{glob.escape(base)}/{name}") else path


def _exists(pattern: str) -> bool:
    """Returns True if a file, a folder, a glob or the prefix of a checkpoint or of shards matches a file."""
    try:
        return next(glob.iglob(_SHARD_COUNT.sub("-", pattern) + "*"), None) is not None
    except (OSError, ValueError):  # too long, or a NUL
        return False


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


def split_at_commas(names: Sequence[str], is_whole: Callable[[str], Any] = os.path.lexists) -> list[str]:
    """Splits names at their commas, except those that ``is_whole`` is true for: by default those of a file."""
    words = [part for name in names for part in ([name] if is_whole(name) else name.split(","))]
    return [word.strip() for word in words if word.strip()]
