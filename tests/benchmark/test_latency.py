"""Times of calls: statistics, halves, warm-up until the times settle, another input for each run."""

from __future__ import annotations

import time

import pytest
import tensorflow as tf

from detzoo.benchmark import latency


class Clock:
    """A clock that a call moves on by the next of some durations, and by the last one from then on."""

    def __init__(self, durations):
        self.now, self.calls = 0.0, 0
        self._durations = durations

    def __call__(self):
        return self.now

    def call(self):
        self.now += self._durations[min(self.calls, len(self._durations) - 1)]
        self.calls += 1


@pytest.fixture
def clock(monkeypatch):
    def use(durations):
        made = Clock(durations)
        monkeypatch.setattr(latency.time, "perf_counter", made)
        return made

    return use


def test_percentiles_of_known_durations():
    found = latency.summarize([0.001 * ms for ms in range(1, 12)])  # 1 to 11 ms
    # Halves of five: 1 to 5 and 7 to 11, medians 3 and 9, a whole median apart.
    assert found == latency.Latency(*map(pytest.approx, (6.0, 2.0, 10.0, 6.0, 11, 1.0)))


def test_a_machine_that_becomes_slower_is_noticed():
    assert latency.repeat_difference([10.0] * 10 + [12.0] * 10) == pytest.approx(2.0 / 11.0)
    assert latency.repeat_difference([10.0, 12.0] * 10) == 0.0  # noise, not drift
    assert latency.repeat_difference([10.0]) is None


def test_calls_are_timed_in_turn():
    order = []
    calls = [lambda: order.append("a"), lambda: (order.append("b"), time.sleep(0.002))]
    first, second = latency.time_alternately(calls, warmup=1, runs=3)
    assert order == ["a", "b"] + ["a", "b"] * 3
    assert first.median_ms < second.median_ms
    assert second.median_ms >= 2.0


def test_warm_up_goes_on_until_the_times_settle(clock):
    # Calls are slow until the sixth. Two windows of five calls, medians 0.1 and 0.1: the calls 4 to 8 and 9 to 13.
    made = clock([0.5, 0.5, 0.5, 0.2, 0.2, 0.1])
    assert latency.warm_up(made.call, 5) == 13
    assert latency.warm_up(made.call, 1) == 10  # two windows


def test_warm_up_ends_even_if_the_times_never_settle(clock):
    made = clock([2.0**number for number in range(40)])
    assert latency.warm_up(made.call, 3) == 4  # the fourth takes 8 seconds


def test_short_calls_are_timed_for_a_while(clock):
    made = clock([0.25])
    assert latency.time_call(made.call, warmup=1, runs=4, min_seconds=2.0).num_runs == 8
    assert latency.time_call(made.call, warmup=1, runs=20, min_seconds=2.0).num_runs == 20


def test_every_output_is_fetched():
    fetched = []

    def numpy(tensor):
        fetched.append(tensor.shape)

    tensors = {"a": tf.zeros([2]), "b": [tf.zeros([3, 4])]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tensors["a"]), "numpy", numpy)
        latency.fetch(tensors)
    assert fetched == [(2,), (3, 4)]
