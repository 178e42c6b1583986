"""Means over seeds in closed form, ties, and the figures and tables that read them."""

from __future__ import annotations

import json
import math

import pytest

from detzoo.figures import figure_settings
from detzoo.sweep.measured import clean_rows
from detzoo.sweep.report.figures import figure_tasks
from detzoo.sweep.report.seeds import DEVIATIONS, NUM_SEEDS, mean_rows, ranks, seeds_table


@pytest.fixture
def rows(make_row):
    """Two seeds of three bases: 30 and 34, 31 and 33, 20 and 24 per cent, and a failed third seed."""
    values = {"pyramid": (0.30, 0.34), "bottom_up": (0.31, 0.33), "c4": (0.20, 0.24)}
    made = [
        make_row(f"{name}{seed}", name=f"{name}_seed{seed}", axes=json.dumps({"seed": seed}), mAP=value)
        for name, pair in values.items()
        for seed, value in enumerate(pair, start=1)
    ]
    return [*made, make_row("x", name="c4_seed3", axes='{"seed": 3}', status="failed")]


def test_means_deviations_and_ties(rows):
    means = mean_rows(rows)
    assert [row["name"] for row in means] == ["pyramid", "bottom_up", "c4"]
    assert [row["mAP"] for row in means] == pytest.approx([0.32, 0.32, 0.22])
    # Two values at a distance of d have the deviation d / sqrt(2).
    deviations = [row[DEVIATIONS]["mAP"] for row in means]
    assert deviations == pytest.approx([0.04 / math.sqrt(2), 0.02 / math.sqrt(2), 0.04 / math.sqrt(2)])
    assert [row[NUM_SEEDS] for row in means] == [2, 2, 2]
    assert ranks(means, "mAP") == [1, 1, 3]  # 10 per cent apart, deviations of 2.8
    assert ranks([{"mAP": 0.5}, {"mAP": 0.4}, {"mAP": None}], "mAP") == [1, 2, None]
    page = seeds_table(clean_rows(rows), "mAP")
    assert "32.0 ± 2.8" in page
    assert '<th scope="row">pyramid</th><td class="number">1=</td>' in page
    assert '<th scope="row">c4</th><td class="number">3</td>' in page


def test_without_the_axis_rows_stay_as_they_are(make_row):
    plain = [make_row("a", mAP=0.5), make_row("b", axes='{"alpha": "1"}', mAP=0.6)]
    assert mean_rows(plain) == plain
    assert seeds_table(plain, "mAP") == ""


def test_other_axes_keep_points_apart(make_row):
    plain = [
        make_row(f"{gamma}{seed}", name=f"net_gamma{gamma}_seed{seed}", axes=json.dumps({"gamma": gamma, "seed": seed}))
        for gamma in "12"
        for seed in (1, 10)
    ]
    assert [row["name"] for row in mean_rows(plain)] == ["net_gamma1", "net_gamma2"]


def test_figure_7_draws_the_curve_of_each_loss(make_row):
    grid = {("1", "0"): 0.2, ("2", "1"): 0.4, ("4", "0.5"): 0.3}
    rows = [
        make_row(f"{gamma}/{beta}", axes=json.dumps({"focal_star_gamma": gamma, "focal_star_beta": beta}), mAP=value)
        for (gamma, beta), value in grid.items()
    ]
    with figure_settings():
        [task] = [task for task in figure_tasks(clean_rows(rows), "mAP") if task.name == "focal_star"]
        drawing = task.draw()
    curves = [line for line in drawing.figure.axes[0].lines if line.get_gid() == "curve"]
    # By rising accuracy; at x = -5 the losses are ln(1 + e^5), ln(1 + e^19.5) / 4 and ln(1 + e^9) / 2.
    expected = [math.log1p(math.exp(5)), math.log1p(math.exp(19.5)) / 4, math.log1p(math.exp(9)) / 2]
    assert [line.get_ydata()[0] for line in curves] == pytest.approx(expected)
    red, _, blue, _ = curves[-1].get_color()
    assert blue > red  # the best one
    assert "3 trainings; the best has γ = 2 and β = 1 with mAP 40.0 %." in drawing.caption
