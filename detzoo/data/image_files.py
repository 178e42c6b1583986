"""From what a user names (files, folders, globs) to image files."""

from __future__ import annotations

import glob
import pathlib
from collections.abc import Sequence

from detzoo.config.names import nearest
from detzoo.data.annotations import IMAGE_SUFFIXES
from detzoo.errors import UsageError

# Suffixes looked for in folders; a file that is named itself may have any.
SUFFIXES = tuple(sorted((*IMAGE_SUFFIXES, ".mpo")))


def find_images(names: Sequence[str]) -> list[pathlib.Path]:
    """The image files that names mean, each once, in the order of the names and sorted within a folder or glob.

    Args:
        names: files, folders (searched with their subfolders), globs, or several of these with commas between.

    Raises:
        UsageError: a name means nothing, or no image was found.
    """
    found: dict[pathlib.Path, None] = {}
    for name in _split_at_commas(names):
        for path in _meant_by(name):
            found.setdefault(path)
    if not found:
        raise UsageError(f"--images {', '.join(names) or '(empty)'}: no image there; looked for {', '.join(SUFFIXES)}")
    return list(found)


def _split_at_commas(names: Sequence[str]) -> list[str]:
    """Each name, or its parts where it has commas and no file of that very name exists."""
    parts: list[str] = []
    for name in names:
        whole = [name] if pathlib.Path(name).exists() else name.split(",")
        parts += [part.strip() for part in whole if part.strip()]
    return parts


def _meant_by(name: str) -> list[pathlib.Path]:
    path = pathlib.Path(name)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if path.is_file():
        return [path]
    if glob.has_magic(name):
        matches = [pathlib.Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not matches:
            raise UsageError(f"--images {name} matches nothing")
        inside = [file for match in matches if match.is_dir() for file in _meant_by(str(match))]
        return sorted({*inside, *(match for match in matches if match.is_file())})
    raise UsageError(f"--images {name}: there is no such file or folder{_hint(path)}")


def _hint(path: pathlib.Path) -> str:
    if not path.parent.is_dir():
        return f" (nor the folder {path.parent})"
    close = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    return f"; did you mean {' or '.join(close)}?" if close else ""
