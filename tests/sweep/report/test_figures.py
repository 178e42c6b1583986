"""Tests of the figures: every point with both values is drawn, no point without, and nothing overlaps."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex

from detzoo import figures
from detzoo.sweep.measured import clean_rows
from detzoo.sweep.report import accuracy_figures, cost_figures, style
from detzoo.sweep.report.figures import DrawnFigure, MissingFigure, draw_figures, figure_tasks
from detzoo.sweep.report.names import extractor_colour


def draw(rows, name, metric="mAP"):
    """The figure of this name."""
    [task] = [task for task in figure_tasks(clean_rows(rows), metric) if task.name == name]
    with figures.figure_settings():
        return task.draw().figure


def shown_points(axes):
    """(x, y) of every marker, rounded so that per cent of shares compare."""
    lines = [line for line in axes.lines if line.get_gid() == style.POINTS]
    points = [point for line in lines for point in zip(line.get_xdata(), line.get_ydata())]
    return sorted((round(float(x), 6), round(float(y), 6)) for x, y in points)


def has_gid(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


@pytest.fixture
def three_rows(make_row):
    """Fast and bad, slow and good, slow and bad: the first two are the frontier."""
    times, accuracies = (10.0, 50.0, 60.0), (0.2, 0.4, 0.3)
    return [
        make_row(
            key,
            meta_architecture="ssd",
            extractor=extractor,
            resolution=300,
            mAP=accuracy,
            **{"latency.median_ms": time},
        )
        for key, extractor, time, accuracy in zip("abc", ("mobilenet_v1", "vgg16", "resnet101"), times, accuracies)
    ]


def test_accuracy_against_time_shows_each_point_in_per_cent(three_rows):
    [axes] = draw(three_rows, "02_accuracy_time_cpu").axes
    assert shown_points(axes) == [(10.0, 20.0), (50.0, 40.0), (60.0, 30.0)]
    colours = {to_hex(line.get_markerfacecolor()).upper() for line in has_gid(axes, style.POINTS)}
    assert colours == {extractor_colour(name).upper() for name in ("mobilenet_v1", "vgg16", "resnet101")}


def test_the_frontier_is_drawn_through_its_points_and_labelled(three_rows):
    [axes] = draw(three_rows, "02_accuracy_time_cpu").axes
    [frontier] = has_gid(axes, "frontier")
    assert list(frontier.get_xdata()) == pytest.approx([10.0, 50.0])
    assert list(frontier.get_ydata()) == pytest.approx([20.0, 40.0])
    assert [text.get_text() for text in axes.texts] == ["SSD MobileNet v1", "SSD VGG-16"]


def test_points_without_a_value_leave_a_gap(three_rows):
    three_rows[0]["mAP"] = None
    three_rows[1]["status"] = "failed"
    [axes] = draw(three_rows, "02_accuracy_time_cpu").axes
    assert shown_points(axes) == [(60.0, 30.0)]


def test_every_scatter_shows_as_many_points_as_have_both_values(grid):
    for row in grid[::10]:
        row["mAP"] = None
    for row in grid[::7]:
        row["multiply_adds"] = None
    for row in grid[::5]:
        row["memory.total_mib"] = None
    for row in grid[::20]:
        row["mAP (small)"] = -1.0
    counts = {
        "02_accuracy_time_gpu": 147 - 15,  # 0, 10, ... 140
        "03_accuracy_imagenet": 147 - 15,
        "05_small_large": 147 - 8,  # 0, 20, ... 140
        "07_time_gpu": 147,
        "08_multiply_adds_time_gpu": 147 - 21,  # 0, 7, ... 140
        "09_memory_gpu": 147 - 30,  # 0, 5, ... 145
        "10_memory_time_gpu": 147 - 30,
    }
    for name, count in counts.items():
        [axes] = draw(grid, name).axes
        points = shown_points(axes)
        assert len(points) == count, name
        assert all(np.isfinite(point).all() for point in points)
    assert [len(shown_points(axes)) for axes in draw(grid, "11_overlap_thresholds").axes] == [132, 132]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_of_the_frontier_cover_neither_points_nor_each_other(synthetic, seed):
    figure = draw(synthetic.synthetic_rows(seed), "02_accuracy_time_gpu")
    [axes] = figure.axes
    with figures.figure_settings():
        figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 10
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)
    frame = axes.get_window_extent()
    for box in boxes:
        assert frame.x0 <= box.x0
        assert box.y1 <= frame.y1 + 1
        for place in axes.transData.transform(shown_points(axes)):
            assert not box.contains(*place)


def test_imagenet_figure_names_extractors_that_it_has_no_number_for(three_rows):
    three_rows[0]["extractor"] = "mobilenet_v2"
    drawing = accuracy_figures.accuracy_imagenet(clean_rows(three_rows), "mAP")
    assert "It has none for MobileNet v2." in drawing.caption
    assert sorted(x for x, _ in shown_points(drawing.figure.axes[0])) == pytest.approx([71.0, 76.4])


def test_bars_by_size_of_the_objects(make_row):
    sizes = {"mAP (small)": 0.1, "mAP (medium)": 0.2, "mAP (large)": 0.4}
    rows = [
        make_row("best", meta_architecture="ssd", extractor="vgg16", resolution=300, mAP=0.3, **sizes),
        make_row("worse", meta_architecture="ssd", extractor="vgg16", resolution=300, mAP=0.2, **sizes),
        make_row("gap", meta_architecture="rfcn", extractor="vgg16", resolution=300, mAP=0.2),
    ]
    [axes] = draw(rows, "04_object_size").axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([10.0, 20.0, 40.0])


def test_what_a_higher_resolution_changes(make_row):
    def pair(key, resolution, accuracy, time):
        values = {"mAP (small)": 0.1, "mAP (large)": 0.3, "mAP": accuracy, "latency.median_ms": time}
        return make_row(key, meta_architecture="ssd", extractor="vgg16", resolution=resolution, **values)

    # mAP .3 -> .24 is -20 %, time 100 -> 60 ms is -40 %.
    rows = clean_rows([pair("low", 300, 0.24, 60.0), pair("high", 600, 0.30, 100.0)])
    caption = accuracy_figures.small_against_large(rows).caption
    assert "From 600 to 300 px mAP changes by −20.0 % and time changes by −40.0 % on average of 1 pair." in caption


def test_a_line_through_points_on_a_line_explains_all():
    xs = np.array([1.0, 2.0, 4.0])
    assert accuracy_figures.line_fit(xs, 3.0 * xs - 1.0) == pytest.approx((3.0, -1.0, 1.0))


def test_share_of_variance_of_a_worked_fit():
    # y = (0, 0, 3) over x = (0, 1, 2): slope 1.5, intercept -.5; residuals .5, -1, .5 with squares 1.5 of 6.
    assert accuracy_figures.line_fit(np.array([0.0, 1, 2]), np.array([0.0, 0, 3])) == pytest.approx((1.5, -0.5, 0.75))


@pytest.mark.parametrize("xs", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_few_points_for_a_line(xs):
    assert accuracy_figures.line_fit(np.array(xs), np.arange(len(xs), dtype=float)) is None


def test_proposals_have_a_line_for_each_extractor_and_stride_with_gaps(make_row):
    def point(stride, proposals, accuracy):
        return make_row(
            f"{stride}_{proposals}",
            meta_architecture="faster_rcnn",
            extractor="resnet101",
            resolution=600,
            output_stride=stride,
            proposals=proposals,
            mAP=accuracy,
            **{"latency.median_ms": 10.0 + proposals},
        )

    rows = [point(16, 10, 0.2), point(16, 100, None), point(16, 300, 0.3), point(8, 10, 0.25)]
    accuracy, time = draw(rows, "06a_proposals_faster_rcnn_cpu").axes
    [line] = has_gid(accuracy, "series")  # stride 8 has a single number of proposals
    assert list(line.get_xdata()) == [10, 100, 300]
    assert np.array_equal(line.get_ydata(), [20.0, np.nan, 30.0], equal_nan=True)
    [line] = has_gid(time, "series")
    assert list(line.get_ydata()) == [20.0, 110.0, 310.0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("06b_proposals_rfcn_cpu", "no point is an R-FCN"),
        ("06a_proposals_faster_rcnn_cpu", "no point is a Faster R-CNN"),
        ("11_overlap_thresholds", "no point has mAP@.50IOU or mAP@.75IOU"),
        ("09_memory_cpu", "no point's memory was measured"),
        ("08_multiply_adds_time_cpu", "no point has multiply_adds"),
        ("stages_cpu", "no point has times of its stages"),
    ],
)
def test_a_figure_without_data_says_why(three_rows, name, reason):
    with pytest.raises(style.MissingDataError, match=reason):
        draw(three_rows, name)


def test_memory_is_the_papers_total_or_else_what_there_is(make_row):
    row = make_row("a", **{"memory.peak_mib": 5.0, "memory.process_peak_mib": 9.0})
    assert cost_figures.memory_kind([row]) == "peak"
    total = {**row, "memory.total_mib": 7.0}
    assert cost_figures.memory_kind([total]) == "total"
    assert cost_figures.memory_kind([total, {**row, "runtime": "litert"}]) == "process"  # LiteRT has no other


def stages(**milliseconds):
    every = ("preprocess", "network", "extractor", "first_stage", "second_stage", "masks", "postprocess")
    return {f"stages.{name}_ms": milliseconds.get(name) for name in every}


def test_stages_of_two_stages_add_up_once(make_row):
    # The first stage of 30 includes the extractor's 20.
    values = stages(preprocess=1, network=45, extractor=20, first_stage=30, second_stage=12, masks=3, postprocess=4)
    assert cost_figures.stage_parts(make_row("a", **values)) == {
        "preprocessing": 1,
        "extractor": 20,
        "first stage after the extractor": 10,
        "second stage": 12,
        "masks": 3,
        "post-processing": 4,
    }


def test_stages_of_one_stage_and_of_what_was_not_split(make_row):
    parts = cost_figures.stage_parts(make_row("a", **stages(preprocess=1, network=45, extractor=20, postprocess=4)))
    assert parts == {"preprocessing": 1, "extractor": 20, "heads": 25, "post-processing": 4}
    parts = cost_figures.stage_parts(make_row("a", **stages(network=45, first_stage=30, second_stage=15)))
    assert parts == {"first stage with its extractor": 30, "second stage": 15}
    parts = cost_figures.stage_parts(make_row("a", **stages(preprocess=1, network=45)))
    assert parts == {"preprocessing": 1, "network, not split": 45}
    assert cost_figures.stage_parts(make_row("a", **stages(preprocess=1))) == {}


def test_too_many_bars_become_one_a_combination(grid):
    shown = cost_figures.representative_rows(clean_rows(grid))
    combinations = {(row["meta_architecture"], row["extractor"], row["resolution"]) for row in grid}
    assert len(shown) == len(combinations) == 27
    assert {row["proposals"] for row in shown} == {None, 300}


def test_two_devices_have_their_own_figures_of_time(grid):
    for row in grid[::2]:
        row["device"] = "CPU"
    numbers = [task.number for task in figure_tasks(clean_rows(grid), "mAP")]
    assert {number: numbers.count(number) for number in ("2", "3", "7", "8", "10")} == {
        "2": 2,
        "3": 1,
        "7": 2,
        "8": 2,
        "10": 2,
    }


@pytest.fixture(scope="module")
def drawn(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return list(draw_figures(figure_tasks(clean_rows(synthetic.synthetic_rows()), "mAP"), folder))


def test_every_figure_of_the_paper_is_written_as_png_and_svg(drawn):
    assert all(isinstance(figure, DrawnFigure) for figure in drawn)
    assert [figure.number for figure in drawn] == ["2", "3", "4", "5", "6a", "6b", "7", "8", "9", "10", "11", ""]
    for figure in drawn:
        assert figure.png.read_bytes().startswith(b"\x89PNG")
        assert xml.etree.ElementTree.parse(figure.svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_files_are_the_same_when_drawn_again(drawn, synthetic, tmp_path):
    rows = clean_rows(synthetic.synthetic_rows())
    tasks = [task for task in figure_tasks(rows, "mAP") if task.number in ("2", "")]
    for again in draw_figures(tasks, tmp_path):
        [first] = [figure for figure in drawn if figure.name == again.name]
        assert again.png.read_bytes() == first.png.read_bytes()
        assert again.svg.read_bytes() == first.svg.read_bytes()
        assert "dc:date" not in again.svg.read_text(encoding="utf-8")


def test_nothing_is_cut_off(grid):
    """All that a figure shows lies within it."""
    for task in figure_tasks(clean_rows(grid), "mAP"):
        with figures.figure_settings():
            figure = task.draw().figure
            figure.canvas.draw()
            used = figure.get_tightbbox()  # inches
        assert used.x0 >= -0.01, task.name
        assert used.y0 >= -0.01, task.name
        assert used.x1 <= figure.get_figwidth() + 0.01, task.name
        assert used.y1 <= figure.get_figheight() + 0.01, task.name


HOSTILE = (
    "</script><script>alert(1)</script>",
    "$\\frac{1$ `$x$`",
    "a--b <!-- ]]>",
    "\x07\x1b[31m",
    "日本語",
    "x" * 300,
)


def test_hostile_names_make_well_formed_svg(grid, tmp_path):
    rows = grid[::8]
    for row, text in zip(rows, itertools.cycle(HOSTILE)):
        row["extractor"] = row["name"] = text
    rows[0]["meta_architecture"] = HOSTILE[1]
    figures = list(draw_figures(figure_tasks(clean_rows(rows), "mAP"), tmp_path))
    svgs = [figure.svg for figure in figures if isinstance(figure, DrawnFigure)]
    assert len(svgs) >= 8
    for svg in svgs:
        tags = {element.tag.split("}")[-1] for element in xml.etree.ElementTree.parse(svg).iter()}
        assert "script" not in tags


def test_only_failed_points_draw_nothing(grid, tmp_path):
    rows = [{**row, "status": "failed", "reason": "out of memory"} for row in grid[:3]]
    figures = list(draw_figures(figure_tasks(clean_rows(rows), "mAP"), tmp_path))
    assert all(isinstance(figure, MissingFigure) for figure in figures)
    assert {figure.reason for figure in figures} == {"no point was measured"}


@pytest.mark.parametrize(
    ("values", "is_log"), [([10.0, 39.0], False), ([10.0, 41.0], True), ([5.0], False), ([0.0, 9.0], False)]
)
def test_axes_of_costs_are_logarithmic_where_values_are_far_apart(values, is_log):
    axes = figures.new_axes(figures.new_figure())
    assert style.scale_axis(axes, "x", values) is is_log
    low, high = axes.get_xlim()
    assert 0 <= low < min(values) or min(values) == 0 == low
    assert high > max(values)


def test_close_values_have_different_numbers_at_their_ticks():
    figure = figures.new_figure()
    axes = figures.new_axes(figure)
    style.scale_axis(axes, "y", [6.375, 6.49])
    figure.canvas.draw()
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(texts)) == len(texts) >= 3
