"""A sweep's report: figures as files, and the page that holds all (from rows of results.csv)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from detzoo.folders import write_atomically
from detzoo.sweep.measured import Row, clean_rows
from detzoo.sweep.report.examples import draw_examples
from detzoo.sweep.report.figures import DrawnFigure, MissingFigure, draw_figures, figure_tasks
from detzoo.sweep.report.page import PageParts, make_page

PAGE_FILE, FIGURES_FOLDER = "report.html", "figures"


class Report(NamedTuple):
    """What was written."""

    page: pathlib.Path
    figures: tuple[DrawnFigure, ...]
    missing: tuple[MissingFigure, ...]
    num_points: int
    num_examples: int
    examples_missing: str  # why there are none, or fewer than wanted; or ""


def write_report(
    rows: Sequence[Row],
    source: pathlib.Path,
    folder: pathlib.Path,
    metric: str = "mAP",
    example_images: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> Report:
    """Draws the figures and writes the page.

    Args:
        rows: of ``read_results``.
        source: results.csv; configs and examples are looked for beside it.
        folder: for report.html and figures/; made where it does not exist.
        metric: accuracy column of the frontier.
        example_images: names of images in ``examples/`` to show; empty for the first few.
        progress: called with what comes next, and how many of how many steps are done.

    Returns:
        What was written.
    """
    clean = clean_rows(rows)
    tasks = figure_tasks(clean, metric)
    total = len(tasks) + 2
    figures: list[DrawnFigure | MissingFigure] = []
    for done, task in enumerate(tasks):
        progress(task.title, done, total)
        figures += draw_figures(clean, metric, folder / FIGURES_FOLDER, [task])
    progress("detections side by side", len(tasks), total)
    examples, missing_examples = draw_examples(clean, metric, source.parent, example_images)
    progress("page", len(tasks) + 1, total)
    title = source.resolve().parent.name or "sweep"
    parts = PageParts(title, str(source), clean, metric, figures, examples, missing_examples, source.parent)
    page = folder / PAGE_FILE
    write_atomically(page, make_page(parts))
    progress("", total, total)
    drawn = tuple(figure for figure in figures if isinstance(figure, DrawnFigure))
    missing = tuple(figure for figure in figures if isinstance(figure, MissingFigure))
    return Report(page, drawn, missing, len(clean), len(examples), missing_examples)
