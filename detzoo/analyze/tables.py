"""Columns of numbers as CSV files: what a figure shows, for other programs to draw."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping

import numpy as np

from detzoo.folders import write_atomically

_DIGITS = 9  # enough to tell any two float32 apart


def write_columns(file: pathlib.Path, columns: Mapping[str, np.ndarray]) -> pathlib.Path:
    """Writes columns of one length under their names; returns the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{value:.{_DIGITS}g}" for value in row] for row in zip(*columns.values(), strict=True))
    write_atomically(file, text.getvalue())
    return file
