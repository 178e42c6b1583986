"""What the drawing of a figure gives back, or why it gives nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from detzoo.errors import DetzooError
from detzoo.sweep.measured import Row, with_values


class Drawing(NamedTuple):
    """A figure and the sentences below it."""

    figure: Figure
    caption: str


class MissingDataError(DetzooError):
    """The rows lack what a figure shows; the message is shown in its place."""


def rows_with(rows: Sequence[Row], *names: str) -> list[Row]:
    """The rows that have all these columns.

    Raises:
        MissingDataError: none has.
    """
    found = with_values(rows, *names)
    if not found:
        if not rows:
            raise MissingDataError("no point was measured")
        absent = [name for name in names if not with_values(rows, name)]
        if absent:
            raise MissingDataError(f"no point has {' or '.join(absent)}")
        raise MissingDataError(f"no point has {' and '.join(names)} at once")
    return found


def left_out(rows: Sequence[Row], shown: Sequence[Row]) -> str:
    """A sentence on points without the values, or nothing."""
    missing = len(rows) - len(shown)
    return f" {missing} of {len(rows)} points lack a value and are left out." if missing else ""
