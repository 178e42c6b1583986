"""Named arrays in a file that is written atomically."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from detzoo.errors import DataError
from detzoo.folders import draft_of


def save_arrays(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz file atomically."""
    with draft_of(file) as draft, draft.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_arrays(file: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays that ``save_arrays`` wrote, None without the file; raises a DataError if it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"{file} is damaged ({problem}); delete it to repeat the step") from None
