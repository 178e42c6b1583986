"""A sweep's report: figures as files, and report.html, a page that needs no other file."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from detzoo.config.names import counted
from detzoo.folders import PAGE_FILE, write_atomically
from detzoo.pages.render import render
from detzoo.pages.text import printable_line
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import (
    Row,
    clean_rows,
    column,
    groups_by_device,
    measured_rows,
    with_values,
)
from detzoo.sweep.report.examples import ExampleImage, draw_examples
from detzoo.sweep.report.figures import DrawnFigure, MissingFigure, draw_figures, figure_tasks
from detzoo.sweep.report.frontier import optimality_frontier
from detzoo.sweep.report.names import extractor_colour, point_labels
from detzoo.sweep.report.notices import environment_lines, notices
from detzoo.sweep.report.published import published_rows, published_table
from detzoo.sweep.report.seeds import mean_rows, seeds_table
from detzoo.sweep.report.table import scatter_data, shown_cells

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_CONFIG = 60_000  # characters of a config on the page
FIGURES_FOLDER = "figures"


class Report(NamedTuple):
    """The files of a report."""

    page: pathlib.Path
    figures: tuple[DrawnFigure, ...]
    missing: tuple[MissingFigure, ...]
    num_points: int
    num_examples: int
    examples_missing: str  # reason for missing examples, or ""


def write_report(
    rows: Sequence[Row],
    source: pathlib.Path,
    folder: pathlib.Path,
    metric: str = "mAP",
    example_images: Sequence[str] = (),
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Draws the figures and writes the page.

    Args:
        rows: Rows from ``read_results``.
        source: Path of results.csv; configs and examples are in its folder.
        folder: Folder for report.html and figures/; created if it does not exist.
        metric: Accuracy column of the frontier.
        example_images: Names of images in ``examples/`` to show; empty for the first few.
        progress: Called after each figure.
    """
    clean = clean_rows(rows)
    figures = []
    for figure in draw_figures(figure_tasks(clean, metric), folder / FIGURES_FOLDER):
        figures.append(figure)
        progress()
    examples, missing_examples = draw_examples(clean, metric, source.parent, example_images)
    drawn = tuple(figure for figure in figures if isinstance(figure, DrawnFigure))
    missing = tuple(figure for figure in figures if isinstance(figure, MissingFigure))
    report = Report(folder / PAGE_FILE, drawn, missing, len(clean), len(examples), missing_examples)
    write_atomically(report.page, _rendered(clean, metric, source, report, examples))
    return report


def _rendered(
    rows: Sequence[Row], metric: str, source: pathlib.Path, report: Report, examples: Sequence[ExampleImage]
) -> str:
    """Returns the HTML of page.html."""
    data, frontiers = scatter_data(rows), frontier_rows(rows, metric)
    best = {id(row) for group in frontiers.values() for row in group}
    cells = shown_cells(rows)
    return render(
        HERE / "page.html",
        styles=[HERE / "page.css"],
        scripts=[HERE / "page.js"],
        data=data,
        title=source.resolve().parent.name or "sweep",
        source=source,
        metric=metric,
        latency=LATENCY,
        summary=_summary(rows, metric),
        notices=notices(rows, metric),
        environment=environment_lines(measured_rows(rows)),
        published=Markup(published_table(mean_rows(rows))),
        seeds=Markup(seeds_table(rows, metric)),
        # Accuracies alone, like a table of a paper, have no frontier.
        has_frontier=not published_rows(rows) or bool(with_values(rows, LATENCY)),
        cards={
            device: [_card(row, label, metric, source.parent) for row, label in zip(group, point_labels(group))]
            for device, group in frontiers.items()
        },
        figures=report.figures,
        missing=report.missing,
        examples=examples,
        missing_examples=report.examples_missing,
        rows=rows,
        cells=cells,
        columns=[cell.as_column() for cell in cells],
        is_best=lambda row: id(row) in best,
        unfinished=[row for row in rows if row["status"] != "ok" or row["reason"]],
    )


def frontier_rows(rows: Sequence[Row], metric: str) -> dict[str, list[Row]]:
    """Returns device -> the points of its optimality frontier by rising time, without devices that have none."""
    found = {}
    for device, group in groups_by_device(measured_rows(rows)).items():
        indices = optimality_frontier(column(group, LATENCY), column(group, metric))
        if indices:
            found[device] = [group[index] for index in indices]
    return found


def _summary(rows: Sequence[Row], metric: str) -> str:
    measured = measured_rows(rows)
    words = counted(len(rows), "point")
    if len(measured) < len(rows):
        words += f", {len(measured)} of them measured"
    metas, extractors = ({row[name] for row in rows} for name in ("meta_architecture", "extractor"))
    words += f": {counted(len(metas), 'meta-architecture')}, {counted(len(extractors), 'extractor')}"
    if devices := ", ".join(groups_by_device(measured)):
        words += f", on {devices}"
    words += "."
    known = with_values(measured, metric)
    if known:
        place = max(range(len(known)), key=lambda index: known[index][metric])
        best = known[place]
        words += f" Most accurate: {point_labels(known)[place]}, with {metric} {100 * best[metric]:.1f} %"
        words += f" in {best[LATENCY]:,.1f} ms." if best[LATENCY] is not None else "."
    return words


def _card(row: Row, label: str, metric: str, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the values of a point of the frontier."""
    numbers = (
        (metric, f"{metric} {{:.1f}} %", 100),
        (LATENCY, "{:,.1f} ms", 1),
        ("memory.peak_mib", "{:,.0f} MiB peak", 1),
        ("parameters", "{:,.1f} M parameters", 1e-6),
        ("multiply_adds", "{:,.2f} G multiply-adds", 1e-9),
    )
    facts = [words.format(row[name] * factor) for name, words, factor in numbers if row[name] is not None]
    config = _config_text(row["config"], folder) if row["config"] else ""
    colour = extractor_colour(row["extractor"])
    return {"row": row, "label": label, "facts": " · ".join(facts), "colour": colour, "config": config}


def _config_text(name: str, folder: pathlib.Path) -> Markup | str:
    """Returns the config if it is in the folder of results.csv; else ""."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return ""
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    shown = "\n".join(printable_line(line) for line in text[:LONGEST_CONFIG].splitlines())
    more = "\n# …" if len(text) > LONGEST_CONFIG else ""
    return Markup(html.escape(shown) + more)
