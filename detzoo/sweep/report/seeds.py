"""Points that differ in their seed alone: means, deviations, and ranks in which close points are ties.

Two points are a tie if their means differ by at most the larger of their standard deviations.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from typing import Any

from detzoo.pages.text import escaped
from detzoo.sweep.columns import ACCURACIES
from detzoo.sweep.measured import Row, measured_rows, with_values
from detzoo.sweep.report.table import PERCENT, accuracy_heading

SEED = "seed"  # the axis
DEVIATIONS, NUM_SEEDS = "deviations", "num_seeds"  # keys of a mean row, besides the columns
# Columns in which the points of a group may differ, besides accuracies, times and sizes.
_SAME = ("meta_architecture", "extractor", "resolution", "output_stride", "proposals", "runtime", "device", "precision")
_NAME_PART = re.compile(r"_?seed\d+(?=_|$)")  # of ``Axis.name_part``


def has_seeds(rows: Sequence[Row]) -> bool:
    """Returns True if the sweep has seeds as an axis."""
    return any(SEED in axes_of(row) for row in rows)


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Returns one row per group of points that differ in their seed alone, in the order of the rows.

    Accuracies are means over the measured seeds. ``deviations`` has the standard deviation (n - 1) of each accuracy,
    None for one seed, and ``num_seeds`` their number. Without the axis, the rows are returned as they are.
    """
    if not has_seeds(rows):
        return list(rows)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in measured_rows(rows):
        others = {name: value for name, value in axes_of(row).items() if name != SEED}
        name = _NAME_PART.sub("", row["name"] or "", count=1)
        groups.setdefault((name, json.dumps(others), *(row[column] for column in _SAME)), []).append(row)
    return [_mean_row(key[0], group) for key, group in groups.items()]


def ranks(rows: Sequence[Row], metric: str) -> list[int | None]:
    """Returns the rank of each mean row, from 1; None without the metric. Ties with better points do not lower it."""
    known = with_values(rows, metric)
    return [None if row[metric] is None else 1 + sum(_is_better(other, row, metric) for other in known) for row in rows]


def has_tie(row: Row, rows: Sequence[Row], metric: str) -> bool:
    """Returns True if another of the mean rows is neither better nor worse."""
    others = [other for other in with_values(rows, metric) if other is not row]
    return any(not _is_better(other, row, metric) and not _is_better(row, other, metric) for other in others)


def seeds_table(rows: Sequence[Row], metric: str) -> str:
    """Returns HTML of the means with deviations and ranks; "" without the axis."""
    if not has_seeds(rows):
        return ""
    means = mean_rows(rows)
    names = [name for name in ACCURACIES if with_values(means, name)]
    places = ranks(means, metric)
    heads = "".join(f'<th scope="col" class="number">{escaped(accuracy_heading(name))}</th>' for name in names)
    lines = []
    for row, rank in zip(means, places, strict=True):
        text = "" if rank is None else f"{rank}{'=' * has_tie(row, means, metric)}"
        cells = "".join(f'<td class="number">{mean_text(row, name)}</td>' for name in names)
        label = escaped(row["name"])
        lines.append(f'<tr><th scope="row">{label}</th><td class="number">{text}</td>{cells}</tr>')
    counts = sorted({row[NUM_SEEDS] for row in means})
    note = (
        f"Mean and standard deviation over {' to '.join(map(str, {counts[0]: 0, counts[-1]: 0}))} seeds. Rank by "
        f"{metric}: points whose means differ by at most the larger deviation are ties (=)."
    )
    return (
        f'<p class="note">{escaped(note, 900)}</p><div class="box" tabindex="0" role="region" aria-label="means">'
        '<table class="published"><thead><tr><th scope="col">point</th><th scope="col" class="number">rank</th>'
        f"{heads}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def mean_text(row: Row, name: str) -> str:
    """Returns an accuracy in per cent, with its deviation if the row has one; "" for a missing value."""
    if row[name] is None:
        return ""
    deviation = row.get(DEVIATIONS, {}).get(name)
    spread = "" if deviation is None else f" ± {PERCENT * deviation:.1f}"
    return f"{PERCENT * row[name]:.1f}{spread}"


def _is_better(other: Row, row: Row, metric: str) -> bool:
    spread = max(each.get(DEVIATIONS, {}).get(metric) or 0.0 for each in (other, row))
    return bool(other[metric] - row[metric] > spread)


def _mean_row(name: str, group: Sequence[Row]) -> Row:
    values = {column: [row[column] for row in with_values(group, column)] for column in ACCURACIES}
    means = {column: statistics.fmean(known) if known else None for column, known in values.items()}
    deviations = {column: statistics.stdev(known) if len(known) > 1 else None for column, known in values.items()}
    return {**group[0], **means, "name": name, DEVIATIONS: deviations, NUM_SEEDS: len(group)}


def axes_of(row: Row) -> dict[str, Any]:
    """Returns the values of the axes without a separate column, by the names of the axes."""
    return json.loads(row["axes"]) if row["axes"] else {}
