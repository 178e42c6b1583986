"""What was published of a sweep's grid: a paper's table, its rows joined with the points that they are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detzoo.config.names import suggestion
from detzoo.sweep.columns import LATENCY, PUBLISHED_COLUMNS
from detzoo.sweep.plan.axes import NAMED, Axis
from detzoo.sweep.plan.files import values_of
from detzoo.sweep.plan.points import Base, Point

_PER_CENT = 100.0
_DIGITS = 6  # of a share: a table's tenth of a per cent is 0.001
_BASE = "base"

Tell = Callable[[str, str], None]  # (place in the sweep file, message) of what is wrong


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """One row of the table.

    Attributes:
        place: its path in the sweep file.
        conditions: name of an axis, or "base" -> value as text; all must hold.
        values: column -> value, accuracies as shares of 1, times in milliseconds.
    """

    place: str
    conditions: Mapping[str, str]
    values: Mapping[str, float]

    def matches(self, point: Point) -> bool:
        """Whether it is of this point."""
        values = values_of(point)
        return all(str(values.get(name, "")) == value for name, value in self.conditions.items())


def read_published(published: Any, axes: Sequence[Axis], bases: Sequence[Base], tell: Tell) -> list[PublishedRow]:
    """The rows of a ``pb.SweepPublished`` that can be read."""
    columns = list(published.columns)
    if not published.source:
        tell("published", "has no source; say in `source` where the numbers stand")
    if not (columns and published.row):
        tell("published", "has no numbers; give `columns`, and a `row` for each point")
    for index, name in enumerate(columns):
        if name not in PUBLISHED_COLUMNS:
            hint = suggestion(name, PUBLISHED_COLUMNS) or f"; accepted: {', '.join(PUBLISHED_COLUMNS)}"
            tell(f"published.columns[{index}]", f"there is no column '{name}'{hint}")
    rows = []
    for index, row in enumerate(published.row):
        place = f"published.row[{index}]"
        if len(row.values) != len(columns):
            tell(f"{place}.values", f"has {len(row.values)} numbers; accepted: {len(columns)}, one for each column")
        conditions = {}
        for number, text in enumerate(row.of):
            name, value, problem = _condition(text, axes, bases)
            if problem:
                tell(f"{place}.of[{number}]", problem)
            conditions[name] = value
        if not conditions:
            tell(place, "is of no point; give `of: 'AXIS=VALUE'`")
        values = {name: _share(name, value) for name, value in zip(columns, row.values) if value >= 0}
        rows.append(PublishedRow(place, conditions, values))
    return rows


def values_by_point(
    rows: Sequence[PublishedRow], points: Sequence[Point], is_whole: bool, tell: Tell
) -> dict[str, Mapping[str, float]]:
    """Name of a point -> its published values.

    Args:
        rows: of the table.
        points: of the sweep.
        is_whole: whether each row must be of some point.
        tell: takes what is wrong.
    """
    found: dict[str, Mapping[str, float]] = {}
    place_of: dict[str, str] = {}
    for row in rows:
        of_row = [point.name for point in points if row.matches(point)]
        if is_whole and not of_row:
            told = ", ".join(f"{name}={value}" for name, value in row.conditions.items())
            tell(row.place, f"no point has {told}")
        for name in of_row:
            if name in found:
                tell(row.place, f"is of {name}, as {place_of[name]} is; tell them apart in `of`")
            found[name], place_of[name] = row.values, row.place
    if rows and points and not found:
        tell("published", "no row is of any point")
    return found


def _condition(text: str, axes: Sequence[Axis], bases: Sequence[Base]) -> tuple[str, str, str]:
    """Name, value and problem ("" for none) of one ``AXIS=VALUE``; an axis' path becomes its name."""
    name, separator, value = (part.strip() for part in text.partition("="))
    if not separator:
        return name, value, f"'{text}' is no AXIS=VALUE"
    by_name = {known: axis for axis in axes for known in (axis.name, axis.path) if known}
    if name == _BASE:
        names = [base.name for base in bases]
        return name, value, "" if value in names else f"there is no base '{value}'{suggestion(value, names)}"
    if name not in by_name:
        known = [*by_name, _BASE, *NAMED]
        return name, value, "" if name in NAMED else f"there is no axis '{name}'{suggestion(name, known)}"
    return by_name[name].name, value, ""


def _share(column: str, value: float) -> float:
    return value if column == LATENCY else round(value / _PER_CENT, _DIGITS)
