"""report.html: one page that needs nothing but itself.

All text from data passes ``escaped`` (HTML) or ``script_data`` (JSON within a script element). A content security
policy names the page's own script by its digest, so that nothing else can run and nothing can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import pathlib
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from detzoo.sweep.frontier import optimality_frontier
from detzoo.sweep.measured import ACCURACIES, LATENCY, Row, column, failed_rows, groups_by_device, measured_rows
from detzoo.sweep.report.cells import ACCURACY_HEADINGS, PRINTED, shown_cells
from detzoo.sweep.report.examples import ExampleImage
from detzoo.sweep.report.figures import DrawnFigure, MissingFigure
from detzoo.sweep.report.names import (
    extractor_colour,
    extractor_name,
    folded,
    meta_marker,
    meta_name,
    point_labels,
    printable,
)
from detzoo.sweep.report.notices import environment_lines, notices
from detzoo.sweep.report.style import resolution_tints

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_CONFIG = 60_000  # characters of a config that the page takes in
# Axes of the scatter: (column, words, factor, whether more is better).
X_AXES = (
    (LATENCY, "time per call, ms", 1.0),
    ("memory.peak_mib", "peak memory of the tensors, MiB", 1.0),
    ("memory.total_mib", "memory of all tensors, MiB", 1.0),
    ("memory.process_peak_mib", "peak memory of the process, MiB", 1.0),
    ("multiply_adds", "multiply-adds, billions", 1e-9),
    ("parameters", "parameters, millions", 1e-6),
)
Y_AXES = (
    *((name, ACCURACY_HEADINGS[name].replace(" %", ", %"), 100.0) for name in ACCURACIES),
    ("images_per_second", "images per second", 1.0),
)
# What can be looked at where no accuracy was measured.
COST_AXES = X_AXES


class PageParts(NamedTuple):
    """All that a page is made of."""

    title: str
    source: str  # results.csv as the user named it
    rows: Sequence[Row]  # clean, failed ones too
    metric: str
    figures: Sequence[DrawnFigure | MissingFigure]
    examples: Sequence[ExampleImage]
    examples_missing: str
    folder: pathlib.Path  # that config paths are relative to


def make_page(parts: PageParts) -> str:
    """The HTML."""
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = [
        ("explore", "Explore", _explore(parts)),
        ("frontier", "Optimality frontier", _frontier(parts)),
        ("figures", "Figures", _figures(parts)),
        ("examples", "Detections side by side", _examples(parts)),
        ("all", "All points", _table(parts)),
        ("failed", "Failed and incomplete points", _failures(parts)),
    ]
    kept = [(name, title, body) for name, title, body in sections if body]
    bodies = "\n".join(
        f'<section id="{name}"{" class=all" if name == "all" else ""}><h2>{title}</h2>\n{body}\n</section>'
        for name, title, body in kept
    )
    return string.Template(_file("page.html")).substitute(
        policy=html.escape(policy, quote=False),
        title=escaped(parts.title),
        style=style,
        summary=_summary(parts),
        notices=_notices(parts),
        environment="".join(
            f"<div><dt>{escaped(name)}</dt><dd>{escaped(value, 400)}</dd></div>"
            for name, value in environment_lines(measured_rows(parts.rows))
        ),
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in kept),
        sections=bodies,
        source=escaped(parts.source, 300),
        data=script_data(_scatter_data(parts)),
        script=script,
    )


def escaped(text: object, longest: int = 200) -> str:
    """Text from data for HTML: on one line, without control characters, no longer than that."""
    return html.escape(printable(text, longest))


def script_data(value: Any) -> str:
    """JSON that may stand in a script element: no tag, comment or line separator can be seen in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def frontier_rows(rows: Sequence[Row], metric: str) -> dict[str, list[Row]]:
    """Device -> the points of its optimality frontier by rising time; devices without one are left out."""
    found = {}
    for device, group in groups_by_device(measured_rows(rows)).items():
        indices = optimality_frontier(column(group, LATENCY), column(group, metric))
        if indices:
            found[device] = [group[index] for index in indices]
    return found


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _summary(parts: PageParts) -> str:
    rows, measured = parts.rows, measured_rows(parts.rows)
    words = f"{len(rows)} point{'s' if len(rows) != 1 else ''}"
    if len(measured) < len(rows):
        words += f", {len(measured)} of them measured"
    kinds = {
        "meta-architecture": {row["meta_architecture"] for row in rows},
        "extractor": {row["extractor"] for row in rows},
    }
    words += ": " + ", ".join(f"{len(found)} {kind}{'s' if len(found) != 1 else ''}" for kind, found in kinds.items())
    devices = ", ".join(groups_by_device(measured))
    if devices:
        words += f", on {devices}"
    known = [row for row in measured if row[parts.metric] is not None]
    words += "."
    if known:
        best = max(known, key=lambda row: row[parts.metric])
        label = point_labels(known)[[id(row) for row in known].index(id(best))]
        words += f" Most accurate: {label}, with {parts.metric} {100 * best[parts.metric]:.1f} %"
        words += f" in {best[LATENCY]:,.1f} ms." if best[LATENCY] is not None else "."
    return escaped(words, 600)


def _notices(parts: PageParts) -> str:
    found = notices(parts.rows, parts.metric)
    if not found:
        return ""
    return '<ul class="notices">' + "".join(f"<li>{escaped(text, 800)}</li>" for text in found) + "</ul>"


def _explore(parts: PageParts) -> str:
    data = _scatter_data(parts)
    if not data["points"] or not data["xs"]:
        return ""

    def options(items: Sequence[dict[str, Any]], chosen: str) -> str:
        return "".join(
            f"<option{' selected' if item['name'] == chosen else ''}>{escaped(item['label'])}</option>"
            for item in items
        )

    devices = "".join(f"<option>{escaped(name)}</option>" for name in data["devices"])
    return f"""<div class="controls">
<label>across<select id="x">{options(data["xs"], LATENCY)}</select></label>
<label>up<select id="y">{options(data["ys"], parts.metric)}</select></label>
<label>measured on<select id="device">{devices}</select></label>
<label class="check"><input type="checkbox" id="log" checked> logarithmic costs</label>
</div>
<div class="explore">
<div class="plot"><div id="plot"></div><div class="legend" id="legend"></div></div>
<div class="row" id="row" aria-live="polite"></div>
</div>
<noscript><p class="hint">The scatter needs JavaScript; the figures below do not.</p></noscript>"""


def _scatter_data(parts: PageParts) -> dict[str, Any]:
    rows = measured_rows(parts.rows)
    groups = groups_by_device(rows)
    device_of = {id(row): device for device, group in groups.items() for row in group}
    cells = [cell for cell in shown_cells(list(rows)) if cell.name != "status"] if rows else []

    def axes(candidates: Sequence[tuple[str, str, float]], better: str) -> list[dict[str, Any]]:
        return [
            {"name": name, "label": label, "factor": factor, "log": better == "less", "better": better}
            for name, label, factor in candidates
            if any(row[name] is not None for row in rows)
        ]

    xs, ys = axes(X_AXES, "less"), axes(Y_AXES, "more")
    if not any(axis["name"] in ACCURACIES for axis in ys):
        ys = axes(COST_AXES, "less")[::-1]
    tints = resolution_tints(rows)
    wanted = {axis["name"] for axis in (*xs, *ys)}
    points = [
        {
            "label": label,
            "device": printable(device_of[id(row)], 200),
            "colour": extractor_colour(row["extractor"]),
            "marker": meta_marker(row["meta_architecture"]),
            "tint": tints[row["resolution"]],
            "values": {name: row[name] for name in sorted(wanted)},
            "cells": [cell.text(row) for cell in cells],
            "command": printable(row["command"], 1000),
        }
        for row, label in zip(rows, point_labels(rows))
    ]
    extractors = {extractor_name(row["extractor"]): extractor_colour(row["extractor"]) for row in rows}
    metas = {meta_name(row["meta_architecture"]): meta_marker(row["meta_architecture"]) for row in rows}
    legend = [[name, extractors[name], "o"] for name in sorted(extractors, key=folded)]
    legend += [[name, "#808080", metas[name]] for name in sorted(metas, key=folded)]
    return {
        "xs": xs,
        "ys": ys,
        "devices": [printable(name, 200) for name in groups],
        "columns": [cell.heading for cell in cells],
        "legend": legend,
        "points": points,
    }


def _frontier(parts: PageParts) -> str:
    found = frontier_rows(parts.rows, parts.metric)
    if not found:
        return f'<p class="note">No point has both a time and {escaped(parts.metric)}: there is no frontier.</p>'
    blocks = [
        f'<p class="note">No other point is both as fast and as accurate ({escaped(parts.metric)}). Paths are relative '
        f"to the folder of {escaped(pathlib.PurePath(parts.source).name)}.</p>"
    ]
    for device, rows in found.items():
        if len(found) > 1:
            blocks.append(f"<h3>{escaped(device)}</h3>")
        blocks += [_frontier_card(row, label, parts) for row, label in zip(rows, point_labels(rows))]
    return "\n".join(blocks)


def _frontier_card(row: Row, label: str, parts: PageParts) -> str:
    facts = [
        f"{parts.metric} {100 * row[parts.metric]:.1f} %",
        f"{row[LATENCY]:,.1f} ms",
        f"{row['memory.peak_mib']:,.0f} MiB peak" if row["memory.peak_mib"] is not None else "",
        f"{row['parameters'] / 1e6:,.1f} M parameters" if row["parameters"] is not None else "",
        f"{row['multiply_adds'] / 1e9:,.2f} G multiply-adds" if row["multiply_adds"] is not None else "",
    ]
    lines = [
        f'<div class="card"><h3><span class="swatch" style="background:{extractor_colour(row["extractor"])}"></span>'
        f"{escaped(label)}</h3>",
        f"<p>{escaped(' · '.join(fact for fact in facts if fact), 400)}</p>",
    ]
    if row["command"]:
        lines.append(f"<pre>{escaped(row['command'], 2000)}</pre>")
    if row["config"]:
        lines.append(f'<p class="note">config: <code>{escaped(row["config"], 400)}</code></p>')
        lines.append(_config_text(row["config"], parts.folder))
    return "\n".join(lines) + "</div>"


def _config_text(name: str, folder: pathlib.Path) -> str:
    """The config itself, folded away, where it is in the folder of results.csv; else nothing."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return ""
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    shown = "\n".join(printable_line(line) for line in text[:LONGEST_CONFIG].splitlines())
    more = "\n# …" if len(text) > LONGEST_CONFIG else ""
    return f'<details class="config screen"><summary>show</summary><pre>{html.escape(shown)}{more}</pre></details>'


def printable_line(line: str) -> str:
    """A line with its indentation, without control characters."""
    body = line.expandtabs(2)
    indent = len(body) - len(body.lstrip(" "))
    return " " * indent + printable(body, 2000)


def _figures(parts: PageParts) -> str:
    blocks = []
    for figure in parts.figures:
        if isinstance(figure, DrawnFigure):
            encoded = base64.b64encode(figure.svg.read_bytes()).decode("ascii")
            wide = ' class="wide"' if figure.number == "2" else ""
            caption = escaped(figure.caption, 900)
            blocks.append(
                f'<figure{wide} id="figure_{figure.name}"><img alt="{escaped(figure.title)}. {caption}" '
                f'src="data:image/svg+xml;base64,{encoded}"><figcaption><strong>{_numbered(figure)}.</strong> {caption}'
                "</figcaption></figure>"
            )
    missing = [figure for figure in parts.figures if isinstance(figure, MissingFigure)]
    text = '<p class="note">Numbers in brackets are those of the figures in arXiv:1611.10012.</p>'
    text += f'<div class="figures">{"".join(blocks)}</div>' if blocks else ""
    if missing:
        items = "".join(f"<li>{_numbered(figure)}: {escaped(figure.reason, 400)}</li>" for figure in missing)
        text += f'<h3>Left out</h3><ul class="missing note">{items}</ul>'
    return text


def _numbered(figure: DrawnFigure | MissingFigure) -> str:
    return escaped(figure.title) + (f" [{figure.number}]" if figure.number else "")


def _examples(parts: PageParts) -> str:
    blocks = []
    for image in parts.examples:
        pictures = "".join(
            f'<figure><img alt="{escaped(image.name)} with the boxes of {escaped(picture.label)}" '
            f'width="{picture.size[1]}" height="{picture.size[0]}" src="{picture.data_uri()}">'
            f"<figcaption>{escaped(picture.label)}: {picture.num_drawn} "
            f"box{'es' if picture.num_drawn != 1 else ''} above {picture.threshold:g}</figcaption></figure>"
            for picture in image.pictures
        )
        blocks.append(f'<h3>{escaped(image.name)}</h3><div class="examples">{pictures}</div>')
    if parts.examples_missing:
        blocks.append(f'<p class="note">Left out: {escaped(parts.examples_missing, 800)}.</p>')
    return "\n".join(blocks)


def _table(parts: PageParts) -> str:
    rows = list(parts.rows)
    if not rows:
        return '<p class="note">There are no points.</p>'
    cells = shown_cells(rows)
    best = {id(row) for group in frontier_rows(rows, parts.metric).values() for row in group}
    heads = "".join(
        f'<th scope="col" class="{_classes(cell)}" title="{escaped(cell.meaning())}"'
        f'{_better(cell.name)}><button type="button">{escaped(cell.heading)}</button></th>'
        for cell in cells
    )
    body = "\n".join(_table_row(row, cells, id(row) in best) for row in rows)
    return f"""<div class="controls screen"><label>only points with these words
<input type="search" id="filter" autocomplete="off"></label>
<span class="hint" id="count" role="status"></span></div>
<p class="note">Bold: on the optimality frontier. Per cent for accuracy; a click on a heading sorts.</p>
<div class="box" tabindex="0" role="region" aria-label="all points"><table id="points"><thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _table_row(row: Row, cells: Sequence[Any], is_best: bool) -> str:
    kinds = [*(["on-frontier"] if is_best else []), *(["failed"] if row["status"] == "failed" else [])]
    texts = []
    for cell in cells:
        text = cell.text(row)
        value = "" if row[cell.name] is None else f' data-value="{escaped(row[cell.name] if cell.is_number else text)}"'
        if cell.name == "name":
            title = f' title="{escaped(row["name"])}"'
            texts.append(f'<th scope="row"{value}{title}>{escaped(text)}</th>')
        else:
            texts.append(f'<td class="{_classes(cell)}"{value}>{escaped(text)}</td>')
    attribute = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<tr{attribute}>{''.join(texts)}</tr>"


def _classes(cell: Any) -> str:
    return " ".join([*(["number"] if cell.is_number else []), *([] if cell.name in PRINTED else ["extra"])])


def _better(name: str) -> str:
    return ' data-better="more"' if name in ACCURACIES or name == "images_per_second" else ""


def _failures(parts: PageParts) -> str:
    failed = {id(row) for row in failed_rows(parts.rows)}
    rows = [row for row in parts.rows if id(row) in failed or row["reason"]]
    if not rows:
        return ""
    lines = "".join(
        f"<tr><th scope=row>{escaped(row['name'])}</th><td>{'failed' if id(row) in failed else 'measured'}</td>"
        f'<td class="wrap">{escaped(row["reason"] or "no reason was recorded", 1000)}</td></tr>'
        for row in rows
    )
    return (
        '<div class="box"><table><thead><tr><th scope=col>point</th><th scope=col>status</th>'
        f"<th scope=col>reason</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )
