"""Published values of a sweep's grid: the rows of a table, joined with the points that they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.config.names import suggestion
from detzoo.sweep.columns import LATENCY, PUBLISHED_COLUMNS
from detzoo.sweep.plan.axes import NAMED, Axis
from detzoo.sweep.plan.excluded import Report
from detzoo.sweep.plan.files import values_of
from detzoo.sweep.plan.points import Base, Point

_PER_CENT = 100.0
_DIGITS = 6  # of a share: a tenth of a per cent in a table is 0.001
_BASE = "base"


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """One row of the table."""

    place: str  # its path in the sweep file
    conditions: Mapping[str, str]  # name of an axis, or "base" -> value as text; all must hold
    values: Mapping[str, float]  # column -> value, accuracies as shares of 1, times in milliseconds

    def matches(self, point: Point) -> bool:
        """Returns True for a point that the row belongs to."""
        values = values_of(point)
        return all(str(values.get(name, "")) == value for name, value in self.conditions.items())


def read_published(published: Any, axes: Sequence[Axis], bases: Sequence[Base], report: Report) -> list[PublishedRow]:
    """Reads the rows of a ``pb.SweepPublished``."""
    columns = list(published.columns)
    if not published.source:
        report("published", "has no source; say in `source` where the numbers stand")
    if not (columns and published.row):
        report("published", "has no numbers; give `columns`, and a `row` for each point")
    for index, name in enumerate(columns):
        if name not in PUBLISHED_COLUMNS:
            hint = suggestion(name, PUBLISHED_COLUMNS) or f"; accepted: {', '.join(PUBLISHED_COLUMNS)}"
            report(f"published.columns[{index}]", f"there is no column '{name}'{hint}")
    rows = []
    for index, row in enumerate(published.row):
        place = f"published.row[{index}]"
        if len(row.values) != len(columns):
            report(f"{place}.values", f"has {len(row.values)} numbers; accepted: {len(columns)}, one for each column")
        conditions = {}
        for number, text in enumerate(row.of):
            name, value, problem = _condition(text, axes, bases)
            if problem:
                report(f"{place}.of[{number}]", problem)
            conditions[name] = value
        if not conditions:
            report(place, "is of no point; give `of: 'AXIS=VALUE'`")
        values = {
            name: value if name == LATENCY else round(value / _PER_CENT, _DIGITS)
            for name, value in zip(columns, row.values)
            if value >= 0
        }
        rows.append(PublishedRow(place, conditions, values))
    return rows


def values_by_point(
    rows: Sequence[PublishedRow], points: Sequence[Point], is_whole: bool, report: Report
) -> dict[str, Mapping[str, float]]:
    """Returns name of a point -> its published values; with ``is_whole`` each row must belong to a point."""
    found: dict[str, PublishedRow] = {}
    for row in rows:
        names = [point.name for point in points if row.matches(point)]
        if is_whole and not names:
            conditions = ", ".join(f"{name}={value}" for name, value in row.conditions.items())
            report(row.place, f"no point has {conditions}")
        for name in names:
            if name in found:
                report(row.place, f"is of {name}, as {found[name].place} is; give different `of`")
            found[name] = row
    if rows and points and not found:
        report("published", "no row is of any point")
    return {name: row.values for name, row in found.items()}


def _condition(text: str, axes: Sequence[Axis], bases: Sequence[Base]) -> tuple[str, str, str]:
    """Returns name, value and problem ("" for none) of one ``AXIS=VALUE``; the path of an axis becomes its name."""
    name, separator, value = (part.strip() for part in text.partition("="))
    by_name = {known: axis for axis in axes for known in (axis.name, axis.path) if known}
    if not separator:
        return name, value, f"'{text}' is no AXIS=VALUE"
    if name in by_name:
        return by_name[name].name, value, ""
    if name == _BASE:
        names = [base.name for base in bases]
        return name, value, "" if value in names else f"there is no base '{value}'{suggestion(value, names)}"
    problem = f"there is no axis '{name}'{suggestion(name, [*by_name, _BASE, *NAMED])}"
    return name, value, "" if name in NAMED else problem
