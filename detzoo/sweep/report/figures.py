"""All figures of the report, in the paper's order: drawn, or left out with a reason."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from detzoo.figures import figure_settings, save_figure
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import Row, groups_by_device, measured_rows, with_values
from detzoo.sweep.report import accuracy_figures as accuracy
from detzoo.sweep.report import cost_figures as cost
from detzoo.sweep.report.focal_star_figure import focal_star, varies_focal_star
from detzoo.sweep.report.published import measured_and_published, published_rows
from detzoo.sweep.report.seeds import mean_rows
from detzoo.sweep.report.style import Drawing, MissingDataError


class Task(NamedTuple):
    """A figure that may be drawn."""

    name: str  # of its files
    number: str  # in the paper, "" for the report's own
    title: str
    draw: Callable[[], Drawing]


class DrawnFigure(NamedTuple):
    """A figure and its files."""

    name: str
    number: str
    title: str
    caption: str
    png: pathlib.Path
    svg: pathlib.Path


class MissingFigure(NamedTuple):
    """A figure that lacks data."""

    name: str
    number: str
    title: str
    reason: str


# Name of the files, number in the paper, title, function, and what it takes besides the rows.
_FIGURES: tuple[tuple[str, str, str, Callable[..., Drawing], tuple[str, ...]], ...] = (
    ("02_accuracy_time", "2", "{metric} against time", accuracy.accuracy_time, ("device", "metric")),
    (
        "03_accuracy_imagenet",
        "3",
        "{metric} against the extractor's accuracy on ImageNet",
        accuracy.accuracy_imagenet,
        ("metric",),
    ),
    ("04_object_size", "4", "mAP by size of the objects", accuracy.object_size, ()),
    ("05_small_large", "5", "Large objects against small ones", accuracy.small_against_large, ()),
    (
        "06a_proposals_faster_rcnn",
        "6a",
        "Number of proposals, Faster R-CNN",
        cost.proposals_faster_rcnn,
        ("device", "metric"),
    ),
    ("06b_proposals_rfcn", "6b", "Number of proposals, R-FCN", cost.proposals_rfcn, ("device", "metric")),
    ("07_time", "7", "Time of each combination", cost.time_by_combination, ("device",)),
    ("08_multiply_adds_time", "8", "Multiply-adds against time", cost.multiply_adds_time, ("device",)),
    ("09_memory", "9", "Memory of each combination", cost.memory_by_combination, ("device",)),
    ("10_memory_time", "10", "Memory against time", cost.memory_time, ("device",)),
    ("11_overlap_thresholds", "11", "mAP at IoU .50 and .75", accuracy.overlap_thresholds, ()),
    ("stages", "", "Time by stages", cost.stage_breakdown, ("device",)),
)


def figure_tasks(rows: Sequence[Row], metric: str) -> list[Task]:
    """Returns the charts of arXiv:1611.10012, the breakdown by stages, and the published values of the points.

    Args:
        rows: Rows from ``clean_rows``; failed points are not drawn.
        metric: Accuracy column of figures 2, 3 and 6.
    """
    usable = measured_rows(rows)
    tasks = []
    if varies_focal_star(usable):
        draw_curves = functools.partial(focal_star, usable, metric)
        tasks.append(Task("focal_star", "", "FL* by steepness and shift (figure 7 of arXiv:1708.02002)", draw_curves))
    if published_rows(usable):
        draw_published = functools.partial(measured_and_published, mean_rows(usable), metric)
        tasks.append(Task("published", "", "Measured and published", draw_published))
        if not with_values(usable, LATENCY):
            return tasks  # accuracies alone, like a table of a paper
    for name, number, title, draw, takes in _FIGURES:
        title = title.format(metric=metric)
        options = {"metric": metric} if "metric" in takes else {}
        if "device" not in takes:
            tasks.append(Task(name, number, title, functools.partial(draw, usable, **options)))
            continue
        devices = groups_by_device(usable) or {"": []}
        for device, group in devices.items():
            own_name, own_title = (f"{name}_{slug(device)}", f"{title}, {device}") if device else (name, title)
            tasks.append(Task(own_name, number, own_title, functools.partial(draw, group, device, **options)))
    return tasks


def draw_figures(tasks: Sequence[Task], folder: pathlib.Path) -> Iterator[DrawnFigure | MissingFigure]:
    """Draws one figure after the other and writes it as PNG and SVG; yields each once it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        with figure_settings():
            try:
                drawing = task.draw()
            except MissingDataError as problem:
                yield MissingFigure(task.name, task.number, task.title, str(problem))
                continue
            png, svg = save_figure(drawing.figure, folder, f"figure_{task.name}")
        yield DrawnFigure(task.name, task.number, task.title, drawing.caption, png, svg)


def slug(text: str) -> str:
    """Returns a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "device"
