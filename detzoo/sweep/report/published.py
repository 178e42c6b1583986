"""Published and measured values of the points: the page's table, and the figure of one accuracy of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from detzoo.figures import add_axes, new_figure
from detzoo.pages.text import escaped, printable
from detzoo.sweep.columns import LATENCY, PUBLISHED_COLUMNS, PUBLISHED_CONDITIONS, PUBLISHED_SOURCE, published
from detzoo.sweep.measured import Row, column, measured_rows, with_values
from detzoo.sweep.report.seeds import mean_text
from detzoo.sweep.report.style import POINTS, Drawing, rows_with
from detzoo.sweep.report.table import PERCENT, accuracy_heading

_LEAST_FOR_ORDER = 3  # rows; an order of two has no degrees
_HERE_COLOUR, _PUBLISHED_COLOUR = "#0072B2", "#D55E00"  # of Okabe and Ito's palette
_ROW_INCHES, _NAME_INCHES, _PANEL_INCHES = 0.24, 2.1, 2.4


def published_rows(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows that have a published number."""
    return [row for row in rows if any(row[published(name)] is not None for name in PUBLISHED_COLUMNS)]


def published_metric(rows: Sequence[Row], metric: str) -> str:
    """Returns the accuracy to draw: the wanted one if it was published, else the first that was."""
    names = [name for name in PUBLISHED_COLUMNS if name != LATENCY and with_values(rows, published(name))]
    return metric if metric in names or not names else names[0]


def order_agreement(measured: Sequence[float], given: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, 1 for the same order, -1 for the opposite; None without an order."""
    if len(measured) < _LEAST_FOR_ORDER:
        return None
    first, second = (_ranks(np.asarray(values, float)) for values in (measured, given))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def published_table(rows: Sequence[Row]) -> str:
    """Returns HTML of the table with an explanation; "" without published values."""
    shown = published_rows(rows)
    if not shown:
        return ""
    names = [name for name in PUBLISHED_COLUMNS if with_values(shown, published(name))]
    headings = ["median ms" if name == LATENCY else accuracy_heading(name) for name in names]
    groups = "".join(f'<th scope="colgroup" colspan="2">{escaped(heading)}</th>' for heading in headings)
    heads = '<th scope="col" class="number">here</th><th scope="col" class="number">published</th>' * len(names)
    lines = "\n".join(_line(row, shown, names) for row in shown)
    return (
        f"{_how_to_read(shown, names)}\n"
        '<div class="box" tabindex="0" role="region" aria-label="measured and published"><table class="published">'
        f'<thead><tr><th scope="col" rowspan="2">point</th>{groups}</tr><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def measured_and_published(rows: Sequence[Row], metric: str) -> Drawing:
    """Figure: one accuracy of each point as measured and as published, each on a separate axis."""
    name = published_metric(rows, metric)
    shown = rows_with(published_rows(rows), name, published(name))
    height = 0.95 + _ROW_INCHES * len(shown)
    figure = new_figure(_NAME_INCHES + 2 * _PANEL_INCHES + 0.7, height)
    bottom, top = 0.55, height - 0.3
    panels = (("measured here", name, _HERE_COLOUR), ("published", published(name), _PUBLISHED_COLOUR))
    for place, (title, column_name, colour) in enumerate(panels):
        left = _NAME_INCHES + place * (_PANEL_INCHES + 0.35)
        axes = add_axes(figure, bottom, left, top, left + _PANEL_INCHES)
        _draw_panel(axes, [PERCENT * row[column_name] for row in shown], colour)
        axes.set_title(title)
        axes.set_xlabel(f"{name}, %")
        axes.set_yticks(range(len(shown)), [printable(row["name"], 34) for row in shown] if place == 0 else [])
    agreement = order_agreement(column(shown, name), column(shown, published(name)))
    words = f"Published: {_distinct(shown, PUBLISHED_SOURCE)}. The two sides have different scales."
    if agreement is not None:
        words += f" Rank correlation of the two orders: {agreement:.2f}."
    return Drawing(figure, words.replace("-0.", "−0."))


def _draw_panel(axes: Axes, values: Sequence[float], colour: str) -> None:
    places = range(len(values))
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 1.0
    axes.hlines(places, low - margin, values, color=colour, linewidth=1.0, alpha=0.35)
    axes.plot(values, places, "o", color=colour, markersize=5.5, gid=POINTS)
    best = values.index(high)
    axes.plot([high], [best], "o", markersize=9, markerfacecolor="none", markeredgecolor=colour)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _how_to_read(shown: Sequence[Row], names: Sequence[str]) -> str:
    conditions = _distinct(shown, PUBLISHED_CONDITIONS)
    records = _distinct(shown, "eval_records")
    source = _distinct(shown, PUBLISHED_SOURCE)
    words = [f"Published: {source}{f' ({conditions})' if conditions else ''}."]
    if records:
        words.append(f"Accuracy here: {records}.")
    words.append(
        "Unless data, network and length of training are the same, compare the order of the rows and the distances "
        "between them, not the levels. Bold: the best of a column."
    )
    agreements = []
    for name in names:
        both = with_values(measured_rows(shown), name, published(name)) if name != LATENCY else []
        agreement = order_agreement(column(both, name), column(both, published(name)))
        if agreement is not None:
            agreements.append(f"{name} {agreement:.2f}".replace("-", "−"))
    if agreements:
        words.append(f"Rank correlation with the published values (1: the same order): {', '.join(agreements)}.")
    return "".join(f'<p class="note">{escaped(text, 900)}</p>' for text in words)


def _line(row: Row, shown: Sequence[Row], names: Sequence[str]) -> str:
    cells = []
    for name in names:
        for column_name in (name, published(name)):
            value = row[column_name]
            factor = 1.0 if name == LATENCY else PERCENT
            text = "" if value is None else f"{value * factor:,.1f}" if name == LATENCY else mean_text(row, column_name)
            known = column(with_values(shown, column_name), column_name)
            is_best = value is not None and value == (min(known) if name == LATENCY else max(known))
            cells.append(f'<td class="number">{f"<strong>{text}</strong>" if is_best else text}</td>')
    return f'<tr><th scope="row" title="{escaped(row["name"])}">{escaped(row["name"])}</th>{"".join(cells)}</tr>'


def _distinct(rows: Sequence[Row], name: str) -> str:
    return "; ".join(dict.fromkeys(printable(row[name], 200) for row in rows if row[name]))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 0; equal values share the mean of their ranks."""
    less = (values[:, None] > values[None, :]).sum(axis=1)
    equal = (values[:, None] == values[None, :]).sum(axis=1)
    return less + (equal - 1) / 2
