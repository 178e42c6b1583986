"""The optimality frontier, on points whose frontier can be seen."""

from __future__ import annotations

import math
import random

import pytest

from detzoo.sweep.report.frontier import optimality_frontier


def dominates(first, second):
    """The definition, word by word: no more costly, no worse, and better in one."""
    (cost, value), (other_cost, other_value) = first, second
    return cost <= other_cost and value >= other_value and (cost < other_cost or value > other_value)


def test_a_point_that_costs_more_and_is_worse_is_left_out():
    # (20, .25) is beaten by (15, .30); (40, .30) by it as well, being as good for more.
    costs, values = [40.0, 10.0, 20.0, 15.0, 100.0], [0.30, 0.20, 0.25, 0.30, 0.35]
    assert optimality_frontier(costs, values) == [1, 3, 4]


def test_equal_points_are_on_the_frontier_together_and_their_ties_are_not():
    costs = [10.0, 10.0, 10.0, 20.0, 20.0]
    values = [0.2, 0.3, 0.3, 0.3, 0.4]
    # At cost 10 the .2 loses to .3, of which there are two; at cost 20 the .3 is no better than they are.
    assert optimality_frontier(costs, values) == [1, 2, 4]


def test_points_with_missing_numbers_are_on_no_frontier():
    costs = [None, 10.0, 5.0, math.nan, 7.0, math.inf]
    values = [0.9, None, 0.1, 0.8, math.nan, 0.99]
    assert optimality_frontier(costs, values) == [2]


@pytest.mark.parametrize(("costs", "values"), [([], []), ([None], [0.5]), ([1.0], [None])])
def test_without_numbers_the_frontier_is_empty(costs, values):
    assert optimality_frontier(costs, values) == []


def test_a_single_point_is_its_own_frontier():
    assert optimality_frontier([3.0], [0.0]) == [0]


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="2 costs and 1 values"):
        optimality_frontier([1.0, 2.0], [0.5])


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_nothing_dominates(seed):
    generator = random.Random(seed)
    # Few distinct numbers, so that ties of all kinds occur.
    points = [(float(generator.randint(1, 12)), float(generator.randint(1, 12))) for _ in range(60)]
    wanted = {i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    found = optimality_frontier(*zip(*points))
    assert set(found) == wanted
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)
    assert [points[i][1] for i in found] == sorted(points[i][1] for i in found)
