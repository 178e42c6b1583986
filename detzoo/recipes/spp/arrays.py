"""Named arrays in a file that is there as a whole or not at all."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from detzoo.errors import DataError


def save_arrays(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz; a crash leaves the old one or the new one."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    draft.replace(file)


def load_arrays(file: pathlib.Path) -> dict[str, np.ndarray] | None:
    """What ``save_arrays`` wrote, None where there is no such file.

    Raises:
        DataError: it is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"{file} is damaged ({problem}); delete it, and its step begins anew") from None
