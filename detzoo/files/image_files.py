"""Files, folders and globs that a user names -> image files."""

from __future__ import annotations

import glob
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from detzoo.config.names import nearest
from detzoo.config.paths import split_at_commas
from detzoo.errors import UsageError
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.remote import RemotePath, path_of

# Suffixes looked for in folders; a file that is named itself may have any.
SUFFIXES = tuple(sorted((*IMAGE_SUFFIXES, ".mpo")))

logger = logging.getLogger(__name__)


def find_images(names: Sequence[str]) -> list[pathlib.Path]:
    """Returns the image files of some names, each once, in the order of the names and sorted within a folder or glob.

    Names are files, folders (searched with their subfolders), globs, or several of these with commas between.

    Raises:
        UsageError: A name matches nothing, or no image was found.
    """
    return find_files(names, SUFFIXES, "--images")


def find_files(names: Sequence[str], suffixes: Sequence[str], flag: str) -> list[pathlib.Path]:
    """Returns the files of some names as ``find_images`` does, with other suffixes in folders, for another flag."""
    found: dict[pathlib.Path, None] = {}
    for name in split_at_commas(names):
        for path in _meant_by(name, suffixes, flag):
            found.setdefault(path)
    if not found:
        noun = flag.strip("-").removesuffix("s")
        raise UsageError(f"{flag} {', '.join(names) or '(empty)'}: no {noun} there; looked for {', '.join(suffixes)}")
    return list(found)


def common_folder(names: Sequence[str]) -> pathlib.Path:
    """Returns the folder, as an absolute path, that all images of ``find_images`` are in or below."""
    folders = []
    for path in map(pathlib.Path, split_at_commas(names)):
        is_pattern = not os.path.lexists(path) and glob.has_magic(str(path))
        fixed = next(each for each in path.parents if not glob.has_magic(str(each))) if is_pattern else path
        folders.append(os.path.abspath(fixed if is_pattern or os.path.isdir(fixed) else fixed.parent))
    return pathlib.Path(os.path.commonpath(folders))


def _meant_by(name: str, suffixes: Sequence[str], flag: str) -> list[Any]:
    path = path_of(name)
    if isinstance(path, RemotePath):
        files = path.files_below() if path.is_dir() else path.matches()
        found = sorted(file for file in files if file.suffix.lower() in suffixes)
        if not found:
            raise UsageError(f"{flag} {name} matches nothing")
        return found
    if os.path.isdir(path):
        return images_inside(path, suffixes)
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(name):
        matches = [pathlib.Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not matches:
            raise UsageError(f"{flag} {name} matches nothing")
        inside = [file for match in matches if match.is_dir() for file in images_inside(match, suffixes)]
        return sorted({*inside, *(match for match in matches if not match.is_dir())})
    raise UsageError(f"{flag} {name}: there is no such file or folder{_hint(path)}")


def images_inside(folder: pathlib.Path, suffixes: Sequence[str] = SUFFIXES) -> list[pathlib.Path]:
    """Returns the files with the suffix of an image in a folder and its subfolders, sorted; they may be unreadable.

    A link to a file outside of the folder is skipped with a warning.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in suffixes and not os.path.isdir(file))
    whole = os.path.realpath(folder) + os.sep
    outside = {file for file in files if file.is_symlink() and not os.path.realpath(file).startswith(whole)}
    if outside:
        logger.warning(
            "%d links in %s are skipped, such as %s: they lead out of the folder; name the files or a pattern to read "
            "them, such as '%s/*'",
            *(len(outside), folder, min(outside), folder),
        )
    return [file for file in files if file not in outside]


def _hint(path: pathlib.Path) -> str:
    if not os.path.isdir(path.parent):
        return f" (nor the folder {path.parent})"
    close = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    return f"; did you mean {' or '.join(close)}?" if close else ""
