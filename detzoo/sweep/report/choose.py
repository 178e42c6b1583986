"""The best points of a sweep within limits, or the nearest point and the limits that it breaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from detzoo.config.names import counted, suggestion
from detzoo.errors import UsageError
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import MEMORIES, Row, measured_rows
from detzoo.sweep.report.frontier import optimality_frontier


class Limit(NamedTuple):
    """A bound that a point must keep."""

    flag: str  # its name for the user, such as "max_latency_ms"
    column: str
    bound: float
    is_least: bool  # a lower bound, as of accuracy; else an upper one

    def excess(self, row: Row) -> float | None:
        """Returns how far a row is beyond the bound, as a share of the bound: 0 within, None if not measured."""
        value = row[self.column]
        if value is None:
            return None
        beyond = self.bound - value if self.is_least else value - self.bound
        return max(0.0, beyond / self.bound) if self.bound else max(0.0, beyond)

    def __str__(self) -> str:
        return f"{self.column} {'>=' if self.is_least else '<='} {_number(self.bound)}"


class Miss(NamedTuple):
    """The point that comes nearest to keeping all limits."""

    row: Row
    broken: tuple[Limit, ...]  # the limits it does not keep, the worst first


class Choice(NamedTuple):
    """The answer."""

    best: list[Row]  # within all limits; by the metric, or by time if no row has the metric
    num_rows: int  # all rows, failed ones too
    num_within: int  # rows within all limits
    by_metric: bool  # True if there was accuracy to choose by
    num_without_metric: int  # rows within all limits that lack accuracy and could not be compared
    num_unknown: int  # rows that lack a number which a limit asks for
    nearest: Miss | None  # if no row is within all limits
    on_frontier: set[int]  # positions in ``best`` that no row of the sweep beats in both time and metric


def choose(rows: Sequence[Row], limits: Sequence[Limit], metric: str, num_best: int) -> Choice:
    """Finds the best points within limits; if none of them has accuracy, the fastest come first.

    Args:
        rows: Rows from ``clean_rows``, of one device.
        limits: Bounds; a row that lacks the number of a bound does not keep it.
        metric: Column to choose by, more is better; at equal metric the faster point is better.
        num_best: The most rows in the answer.
    """
    candidates = measured_rows(rows)
    excesses = [[limit.excess(row) for limit in limits] for row in candidates]
    complete = [index for index, found in enumerate(excesses) if None not in found]
    within = [candidates[index] for index in complete if not any(excesses[index])]
    ranked = [row for row in within if row[metric] is not None]
    best = sorted(ranked or within, key=lambda row: (-(row[metric] or 0.0), row[LATENCY] or math.inf))[:num_best]
    frontier = optimality_frontier([row[LATENCY] for row in candidates], [row[metric] for row in candidates])
    unbeaten = {id(candidates[index]) for index in frontier}

    def distance(index: int) -> tuple[float, float, float]:
        """The worst excess; at equal excess the more accurate point is nearer."""
        known, value = [excess or 0.0 for excess in excesses[index]], candidates[index][metric]
        return max(known), sum(known), 1.0 if value is None else -value

    nearest = None
    if not within and complete and limits:
        place = min(complete, key=distance)
        by_excess = sorted(zip(limits, excesses[place]), key=lambda pair: -(pair[1] or 0.0))
        nearest = Miss(candidates[place], tuple(limit for limit, excess in by_excess if excess))
    return Choice(
        best,
        len(rows),
        len(within),
        bool(ranked),
        len(within) - len(ranked) if ranked else 0,
        len(candidates) - len(complete),
        nearest,
        {position for position, row in enumerate(best) if id(row) in unbeaten},
    )


def rows_of_device(rows: Sequence[Row], wanted: str) -> list[Row]:
    """Returns the rows of one device, or all rows if ``wanted`` is "" and the device is the same everywhere.

    Raises:
        UsageError: No row has this device, or there are several and none is given.
    """
    devices = sorted({row["device"] for row in rows if row["device"]})
    found = [row for row in rows if not wanted or (row["device"] or "").lower() == wanted.lower()]
    if wanted and not found:
        raise UsageError(f"no point was measured on --device {wanted}{suggestion(wanted, devices)}")
    if not wanted and len(devices) > 1:
        raise UsageError(
            f"the points were measured on {' and '.join(devices)}, whose times do not compare; give --device"
        )
    return found


def describe(choice: Choice, limits: Sequence[Limit], metric: str, memory: str) -> str:
    """Returns the answer of ``choose`` as text, with this column of memory; without an answer why no point fits."""
    if not choice.best:
        return _describe_miss(choice, limits)
    within = f"within {', '.join(map(str, limits))}" if limits else "without limits"
    points = f"{counted(choice.num_within, 'point')} {within}"
    if choice.by_metric:
        lines = [f"{points}; the best by {metric}:"]
    else:
        lines = [
            f"{points}, but none of them has {metric}: nothing was measured to choose by, so the fastest come first.",
            "Accuracy is measured if the sweep has a checkpoint and a data set for a point.",
        ]
    if choice.num_without_metric:
        lines.append(f"{choice.num_without_metric} of them have no {metric} and could not be compared.")
    if choice.num_unknown:
        lines.append(f"{choice.num_unknown} points lack a number that a limit asks for.")
    lines += ["", _table(choice, metric, memory)]
    for place, row in enumerate(choice.best, start=1):
        lines += ["", f"{place}  config   {row['config'] or '(not recorded)'}"]
        lines.append(f"   command  {row['command'] or '(not recorded)'}")
    return "\n".join(lines)


def _describe_miss(choice: Choice, limits: Sequence[Limit]) -> str:
    if choice.nearest is None:
        if choice.num_unknown:
            names = ", ".join(sorted({limit.column for limit in limits}))
            return f"no point can be compared with the limits: none of {choice.num_rows} has all of {names}"
        return f"no point to choose from: results.csv has {choice.num_rows}, and none was measured"
    row = choice.nearest.row
    lines = [f"no point keeps all limits ({', '.join(map(str, limits))})", f"nearest: {row['name']}"]
    for limit in choice.nearest.broken:
        share = 100 * (limit.excess(row) or 0.0)
        beyond = f"{share:.3g} % {'below' if limit.is_least else 'above'} --{limit.flag} {_number(limit.bound)}"
        lines.append(f"  {limit.column} is {_number(row[limit.column])}, {beyond}")
    if choice.num_unknown:
        lines.append(f"{choice.num_unknown} points lack a number that a limit asks for")
    return "\n".join(lines)


def _table(choice: Choice, metric: str, memory: str) -> str:
    kind = next(kind for kind, name in MEMORIES.items() if name == memory)
    columns = (
        (metric, metric, ".3f", 1.0),
        (LATENCY, "median ms", ",.1f", 1.0),
        (memory, f"{kind} MiB", ",.0f", 1.0),
        ("parameters", "parameters M", ",.2f", 1e-6),
        ("multiply_adds", "multiply-adds G", ",.2f", 1e-9),
    )
    lines = [["", "point", *(heading for _, heading, _, _ in columns)]]
    for place, row in enumerate(choice.best):
        mark = "*" if place in choice.on_frontier else ""
        cells = ["-" if row[name] is None else format(row[name] * factor, form) for name, _, form, factor in columns]
        lines.append([f"{place + 1}{mark}", str(row["name"]), *cells])
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    texts = []
    for line in lines:
        padded = [
            text.ljust(width) if index < 2 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths))
        ]
        texts.append("  ".join(padded).rstrip())
    return "\n".join(texts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
