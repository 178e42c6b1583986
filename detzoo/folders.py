"""Folders that a user names for results, made and tried before the work starts, and files that are there as a whole.

So nothing computed is lost, and nobody reads half of it.
"""

from __future__ import annotations

import os
import pathlib

from detzoo.errors import UsageError


def make_folder(path: str | pathlib.Path, flag: str) -> pathlib.Path:
    """Makes a folder, with those above it, where it does not exist.

    Args:
        path: the folder.
        flag: what the user gave it with, such as "--output_dir".

    Raises:
        UsageError: it cannot be made, or not be written to.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"{flag} {path} cannot be made: {problem.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{flag} {path} cannot be written to")
    return folder


def write_atomically(file: str | pathlib.Path, text: str) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never a part."""
    file = pathlib.Path(file)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
