"""The optimality frontier of a speed/accuracy study: the points that no other point beats.

One point dominates another if it costs no more and is no worse, and is better in one of the two. The frontier is
what nothing dominates; who chooses elsewhere pays more for less. (Figure 2 of arXiv:1611.10012.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def optimality_frontier(costs: Sequence[float | None], values: Sequence[float | None]) -> list[int]:
    """The points that no other point dominates, in O(n log n).

    Args:
        costs: of N points, less is better; None or not finite where it was not measured.
        values: of the same points, more is better; None or not finite likewise.

    Returns:
        Indices of the frontier by rising cost, and so by rising value. A point that lacks a number is on no frontier;
        points that are equal in both are on it together, in the order given.

    Raises:
        ValueError: the lengths differ.
    """
    if len(costs) != len(values):
        raise ValueError(f"{len(costs)} costs and {len(values)} values; one of each a point is needed")
    cost, value = _numbers(costs), _numbers(values)
    known = np.flatnonzero(np.isfinite(cost) & np.isfinite(value))
    if not known.size:
        return []
    # The last key of lexsort counts most: by cost, at equal cost the best value first, then in the order given.
    order = known[np.lexsort((known, -value[known], cost[known]))]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(value[order])[:-1]])
    rises = value[order] > best_before
    # A twin of the frontier's latest point has its cost and its value: nothing beats it either.
    latest = order[np.maximum.accumulate(np.where(rises, np.arange(order.size), 0))]
    twin = (cost[order] == cost[latest]) & (value[order] == value[latest])
    return [int(index) for index in order[rises | twin]]


def _numbers(items: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if item is None else float(item) for item in items], np.float64)
