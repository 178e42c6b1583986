"""Tests of published results next to measured ones: order, table, figure and page."""

from __future__ import annotations

import pytest

from detzoo.sweep.measured import clean_rows, main_accuracy
from detzoo.sweep.report.figures import figure_tasks
from detzoo.sweep.report.page import write_report
from detzoo.sweep.report.published import order_agreement, published_table

TABLE = {"published.source": "a paper, table 9", "published.conditions": "its data"}


@pytest.fixture
def three_rows(make_row):
    """Measured: a < c < b. Published: a < b < c."""
    values = {"a": (0.2, 0.31), "b": (0.4, 0.32), "c": (0.3, 0.33)}
    return clean_rows(
        make_row(key, mAP=here, eval_records="data/heldout", **{"published.mAP": there, **TABLE})
        for key, (here, there) in values.items()
    )


@pytest.mark.parametrize(
    ("measured", "published", "expected"),
    [
        ([0.1, 0.2, 0.3], [5.0, 6.0, 7.0], 1.0),
        ([0.1, 0.2, 0.3], [7.0, 6.0, 5.0], -1.0),
        ([0.2, 0.4, 0.3], [31.0, 32.0, 33.0], 0.5),  # differences of ranks 0, 1, 1: 1 - 6 x 2 / (3 x 8)
        # Ranks 0, 1, 2 and 0.5, 0.5, 2: covariance 1.5, variances 2 and 1.5; 1.5 / sqrt(3) = 0.8660.
        ([1.0, 2.0, 3.0], [4.0, 4.0, 9.0], 0.8660254),
        ([1.0, 2.0], [1.0, 2.0], None),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], None),
    ],
)
def test_agreement_of_two_orders(measured, published, expected):
    found = order_agreement(measured, published)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_table_has_both_numbers_of_each_point_in_per_cent(three_rows):
    text = published_table(three_rows)
    rows = [line for line in text.splitlines() if line.startswith("<tr><th")]
    assert [row.count('<td class="number">') for row in rows] == [2, 2, 2]
    assert '>a</th><td class="number">20.0</td><td class="number">31.0</td>' in rows[0]
    assert '>b</th><td class="number"><strong>40.0</strong></td><td class="number">32.0</td>' in rows[1]
    assert '>c</th><td class="number">30.0</td><td class="number"><strong>33.0</strong></td>' in rows[2]
    assert "Published: a paper, table 9 (its data)." in text
    assert "Accuracy here: data/heldout." in text
    assert "(1: the same order): mAP 0.50." in text


def test_less_time_is_better_and_what_is_missing_is_blank(make_row):
    times = {"a": (None, 64.0), "b": (5.0, 72.0)}
    rows = clean_rows(
        make_row(key, **{"latency.median_ms": here, "published.latency.median_ms": there, **TABLE})
        for key, (here, there) in times.items()
    )
    text = published_table(rows)
    assert '>a</th><td class="number"></td><td class="number"><strong>64.0</strong></td>' in text
    assert '>b</th><td class="number"><strong>5.0</strong></td><td class="number">72.0</td>' in text


def test_names_from_data_do_not_become_markup(make_row):
    row = make_row("<b>x</b>", mAP=0.5, **{"published.mAP": 0.5, "published.source": "<script>"})
    text = published_table(clean_rows([row]))
    assert "<b>" not in text
    assert "<script>" not in text


def test_without_published_numbers_there_is_neither_table_nor_figure(make_row):
    rows = clean_rows([make_row("a", mAP=0.5)])
    assert published_table(rows) == ""
    assert "published" not in [task.name for task in figure_tasks(rows, "mAP")]


def test_the_figure_shows_each_point_on_both_sides(three_rows):
    [task] = [task for task in figure_tasks(three_rows, "mAP") if task.name == "published"]
    here, there = task.draw().figure.axes
    for axes, expected in ((here, [20.0, 40.0, 30.0]), (there, [31.0, 32.0, 33.0])):
        [points] = [line for line in axes.lines if line.get_gid() == "points"]
        assert list(points.get_xdata()) == pytest.approx(expected)
        assert list(points.get_ydata()) == [0, 1, 2]
    assert [label.get_text() for label in here.get_yticklabels()] == ["a", "b", "c"]


def test_the_figure_takes_the_accuracy_that_was_published(make_row):
    rows = clean_rows(
        make_row(key, **{"AR@100": here, "published.AR@100": there, **TABLE})
        for key, here, there in (("a", 0.5, 0.36), ("b", 0.6, 0.44))
    )
    [task] = [task for task in figure_tasks(rows, "mAP") if task.name == "published"]
    assert task.draw().figure.axes[0].get_xlabel() == "AR@100, %"


def test_a_page_of_accuracies_alone_has_no_frontier_and_no_warning_of_times(three_rows, tmp_path):
    text = write_report(three_rows, tmp_path / "results.csv", tmp_path).page.read_text(encoding="utf-8")
    assert '<section id="published">' in text
    assert "figure_published" in text
    assert 'id="frontier"' not in text
    assert "have no time" not in text
    assert "against time" not in text
    assert "Bold: on the optimality frontier" not in text


def test_detectors_of_proposals_are_compared_by_their_recall(make_row):
    assert main_accuracy(clean_rows([make_row("a", **{"AR@1000": 0.5})])) == "AR@1000"
    assert main_accuracy(clean_rows([make_row("a", **{"AR@1000": 0.5}), make_row("b", mAP=0.1)])) == "mAP"
    assert main_accuracy(clean_rows([make_row("a")])) == "mAP"
