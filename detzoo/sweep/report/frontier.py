"""The optimality frontier of a speed/accuracy study: the points that no other point beats (arXiv:1611.10012, figure 2).

One point dominates another if it costs no more and is no worse, and is better in one of the two. The frontier consists
of the points that no point dominates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def optimality_frontier(costs: Sequence[float | None], values: Sequence[float | None]) -> list[int]:
    """Returns the points that no other point dominates, in O(n log n).

    Args:
        costs: Costs of N points, less is better; None or not finite if not measured.
        values: Values of the same points, more is better; None or not finite if not measured.

    Returns:
        Indices of the frontier by rising cost, and so by rising value. A point that lacks a number is on no frontier;
        points that are equal in both are on it together, in the given order.

    Raises:
        ValueError: The lengths differ.
    """
    if len(costs) != len(values):
        raise ValueError(f"{len(costs)} costs and {len(values)} values; each point needs one of each")
    cost, value = (np.array([np.nan if x is None else x for x in items], np.float64) for items in (costs, values))
    known = np.flatnonzero(np.isfinite(cost) & np.isfinite(value))
    if not known.size:
        return []
    # The last key of lexsort counts most: by cost, at equal cost the best value first, then in the given order.
    order = known[np.lexsort((known, -value[known], cost[known]))]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(value[order])[:-1]])
    rises = value[order] > best_before
    # A twin has the cost and the value of the frontier's latest point, so no point beats it either.
    latest = order[np.maximum.accumulate(np.where(rises, np.arange(order.size), 0))]
    twin = (cost[order] == cost[latest]) & (value[order] == value[latest])
    return [int(index) for index in order[rises | twin]]
