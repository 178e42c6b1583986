"""Lines of a running sweep: one per point that ends; only failures if progress is hidden."""

from __future__ import annotations

import types

import pytest

from detzoo import progress
from detzoo.sweep.columns import Status
from detzoo.sweep.run.progress import SweepProgress


@pytest.mark.parametrize("quiet", [False, True])
def test_hidden_progress_leaves_failures(monkeypatch, quiet, capsys):
    monkeypatch.setattr(progress, "_is_quiet", quiet)
    remaining = types.SimpleNamespace(ended=lambda key, seconds: None, seconds=lambda running: 0)
    shown = SweepProgress(2, remaining)
    costs = {"latency.median_ms": 3.0, "memory.peak_mib": 5.0, "mAP": None, "AR@1000": None, "mask AR@1000": None}
    for name, row in (
        ("a", {"status": Status.OK.value}),
        ("b", {"status": Status.FAILED.value, "reason": "no memory"}),
    ):
        shown.started(types.SimpleNamespace(key=name, name=name, done="measured"))
        shown.ended(types.SimpleNamespace(key=name, name=name, done="measured"), {**costs, **row}, 4.0)
    shown.close()
    ended = [] if quiet else ["[1/2] a: 3.0 ms, 5 MiB (in 4 s); nothing left"]
    assert capsys.readouterr().err.splitlines() == [*ended, "[2/2] b: failed: no memory; nothing left"]
    assert (shown.done, shown.failed) == (1, 1)
