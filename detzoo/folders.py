"""Folders that a user names for results: made and tried before the work starts, so that nothing computed is lost."""

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
