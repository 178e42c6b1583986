"""All figures of the report, in the paper's order: what is drawn, and what is left out and why."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from detzoo.figures import figure_settings, save_figure
from detzoo.sweep.measured import LATENCY, Row, groups_by_device, measured_rows, with_values
from detzoo.sweep.report import accuracy_figures, cost_figures, stage_figure
from detzoo.sweep.report.drawing import Drawing, MissingDataError
from detzoo.sweep.report.published import measured_beside_published, published_rows


class Task(NamedTuple):
    """A figure that may be drawn."""

    name: str  # of its files
    number: str  # in the paper, "" for the report's own
    title: str
    draw: Callable[[], Drawing]


class DrawnFigure(NamedTuple):
    """A figure and where its files are."""

    name: str
    number: str
    title: str
    caption: str
    png: pathlib.Path
    svg: pathlib.Path


class MissingFigure(NamedTuple):
    """A figure that the rows do not suffice for."""

    name: str
    number: str
    title: str
    reason: str


def figure_tasks(rows: Sequence[Row], metric: str) -> list[Task]:
    """The figures of arXiv:1611.10012 that charts are, the breakdown by stages, and what was published of the points.

    Args:
        rows: clean ones (``clean_rows``); failed points are left out here.
        metric: accuracy column of figures 2, 3 and 6.
    """
    usable = measured_rows(rows)
    devices = groups_by_device(usable)

    def each_device(name: str, number: str, title: str, draw: Callable[[Sequence[Row], str], Drawing]) -> list[Task]:
        if not devices:
            return [Task(name, number, title, lambda: draw([], ""))]
        return [
            Task(f"{name}_{slug(device)}", number, f"{title}, {device}", _bound(draw, group, device))
            for device, group in devices.items()
        ]

    accuracy, cost = accuracy_figures, cost_figures
    beside = Task("published", "", "Measured beside published", lambda: measured_beside_published(usable, metric))
    if published_rows(usable) and not with_values(usable, LATENCY):
        return [beside]  # accuracies alone, as a paper's table
    return [
        *([beside] if published_rows(usable) else []),
        *each_device("02_accuracy_time", "2", f"{metric} against time", _with_metric(accuracy.accuracy_time, metric)),
        Task(
            "03_accuracy_imagenet",
            "3",
            f"{metric} against the extractor's accuracy on ImageNet",
            lambda: accuracy.accuracy_imagenet(usable, metric),
        ),
        Task("04_object_size", "4", "mAP by size of the objects", lambda: accuracy.object_size(usable)),
        Task("05_small_large", "5", "Large objects against small ones", lambda: accuracy.small_against_large(usable)),
        *each_device(
            "06a_proposals_faster_rcnn",
            "6a",
            "Number of proposals, Faster R-CNN",
            _with_metric(cost.proposals_faster_rcnn, metric),
        ),
        *each_device(
            "06b_proposals_rfcn", "6b", "Number of proposals, R-FCN", _with_metric(cost.proposals_rfcn, metric)
        ),
        *each_device("07_time", "7", "Time of each combination", cost.time_by_combination),
        *each_device("08_multiply_adds_time", "8", "Multiply-adds against time", cost.multiply_adds_time),
        *each_device("09_memory", "9", "Memory of each combination", cost.memory_by_combination),
        *each_device("10_memory_time", "10", "Memory against time", cost.memory_time),
        Task("11_overlap_thresholds", "11", "mAP at IoU .50 and .75", lambda: accuracy.overlap_thresholds(usable)),
        *each_device("stages", "", "Where the time goes", stage_figure.stage_breakdown),
    ]


def draw_figures(
    rows: Sequence[Row], metric: str, folder: pathlib.Path, tasks: Sequence[Task] | None = None
) -> Iterator[DrawnFigure | MissingFigure]:
    """Draws and writes one figure after the other as PNG and SVG; yields each when it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in figure_tasks(rows, metric) if tasks is None else tasks:
        with figure_settings():
            try:
                drawing = task.draw()
            except MissingDataError as problem:
                yield MissingFigure(task.name, task.number, task.title, str(problem))
                continue
            png, svg = save_figure(drawing.figure, folder, f"figure_{task.name}")
        yield DrawnFigure(task.name, task.number, task.title, drawing.caption, png, svg)


def draw_one(task: Task) -> Figure:
    """A figure that is not written.

    Raises:
        MissingDataError: the rows do not suffice for it.
    """
    with figure_settings():
        return task.draw().figure


def slug(text: str) -> str:
    """A part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "device"


def _bound(draw: Callable[[Sequence[Row], str], Drawing], rows: Sequence[Row], device: str) -> Callable[[], Drawing]:
    return lambda: draw(rows, device)


def _with_metric(draw: Callable[[Sequence[Row], str, str], Drawing], metric: str) -> Callable[..., Drawing]:
    return lambda rows, device: draw(rows, device, metric)
