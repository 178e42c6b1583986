"""The text of a problem of a config, as the tests of checks expect it."""

from __future__ import annotations

import os


def problem_text(file: str | os.PathLike[str], line: int, field: str, message: str, severity: str = "error") -> str:
    """Returns the problem as the commands print it."""
    return f"{os.fspath(file)}:{line}: {severity}: {field}: {message}"
