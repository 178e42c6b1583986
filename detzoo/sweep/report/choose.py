"""The best points of a sweep within limits, or what stands in the way (from rows of results.csv to an answer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detzoo.sweep.measured import LATENCY, Row, measured_rows
from detzoo.sweep.report.frontier import optimality_frontier


class Limit(NamedTuple):
    """What a point must keep to."""

    flag: str  # the user's name of it, such as "max_latency_ms"
    column: str
    bound: float
    is_least: bool  # a lower bound, as of accuracy; else an upper one

    def excess(self, row: Row) -> float | None:
        """By how much a row is beyond the bound, as a share of the bound: 0 within, None where not measured."""
        value = row[self.column]
        if value is None:
            return None
        beyond = self.bound - value if self.is_least else value - self.bound
        return max(0.0, beyond / self.bound) if self.bound else max(0.0, beyond)


class Miss(NamedTuple):
    """The point that comes nearest to keeping all limits."""

    row: Row
    broken: tuple[Limit, ...]  # the limits it does not keep, the worst first


class Choice(NamedTuple):
    """The answer."""

    best: list[Row]  # within all limits; by the metric, or by time where no row has the metric
    num_within: int  # rows within all limits
    by_metric: bool  # whether there was accuracy to choose by
    num_without_metric: int  # rows within all limits that could not be compared, for they have no accuracy
    num_unknown: int  # rows that lack a number which a limit asks for
    nearest: Miss | None  # where no row is within all limits
    on_frontier: set[int]  # positions in ``best`` that no row of the sweep beats in both time and metric


def choose(rows: Sequence[Row], limits: Sequence[Limit], metric: str, num_best: int) -> Choice:
    """The best points within limits.

    Args:
        rows: clean ones (``clean_rows``), of one device.
        limits: each must be kept; a row that lacks the number does not keep it.
        metric: column to choose by, more is better; at equal metric the faster point is better.
        num_best: the most rows in the answer.

    Returns:
        The answer. Without accuracy in any row within the limits, the fastest come first.
    """
    candidates = measured_rows(rows)
    excesses = [[limit.excess(row) for limit in limits] for row in candidates]
    complete = [index for index, found in enumerate(excesses) if None not in found]
    within = [candidates[index] for index in complete if not any(excesses[index])]
    ranked = [row for row in within if row[metric] is not None]
    by_metric = bool(ranked)
    if by_metric:
        best = sorted(ranked, key=lambda row: (-row[metric], _or_last(row[LATENCY])))[:num_best]
    else:
        best = sorted(within, key=lambda row: _or_last(row[LATENCY]))[:num_best]
    frontier = optimality_frontier([row[LATENCY] for row in candidates], [row[metric] for row in candidates])
    unbeaten = {id(candidates[index]) for index in frontier}
    return Choice(
        best,
        len(within),
        by_metric,
        len(within) - len(ranked) if by_metric else 0,
        len(candidates) - len(complete),
        None if within else _nearest(candidates, limits, excesses, complete, metric),
        {position for position, row in enumerate(best) if id(row) in unbeaten},
    )


def _nearest(
    candidates: Sequence[Row],
    limits: Sequence[Limit],
    excesses: Sequence[Sequence[float | None]],
    complete: Sequence[int],
    metric: str,
) -> Miss | None:
    """The row whose worst excess is the least; at equal excess the more accurate one."""
    if not complete or not limits:
        return None

    def distance(index: int) -> tuple[float, float, float]:
        found = [excess for excess in excesses[index] if excess is not None]
        value = candidates[index][metric]
        return max(found), sum(found), -(value if value is not None else -1.0)

    nearest = min(complete, key=distance)
    beyond = sorted(zip(excesses[nearest], range(len(limits))), key=lambda item: (-(item[0] or 0.0), item[1]))
    return Miss(candidates[nearest], tuple(limits[index] for excess, index in beyond if excess))


def _or_last(number: float | None) -> float:
    return float("inf") if number is None else number
