"""report.html: one page that needs nothing but itself.

All text from data passes ``escaped`` (HTML) or ``script_data`` (JSON within a script element). A content security
policy names the page's own script by its digest, so that nothing else can run and nothing can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from detzoo.sweep.measured import LATENCY, Row, column, failed_rows, groups_by_device, measured_rows, with_values
from detzoo.sweep.report.escape import escaped, printable_line, script_data
from detzoo.sweep.report.examples import ExampleImage
from detzoo.sweep.report.figures import DrawnFigure, MissingFigure
from detzoo.sweep.report.frontier import optimality_frontier
from detzoo.sweep.report.names import extractor_colour, point_labels
from detzoo.sweep.report.notices import environment_lines, notices
from detzoo.sweep.report.published import published_rows, published_table
from detzoo.sweep.report.scatter import scatter_data
from detzoo.sweep.report.table import points_table

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_CONFIG = 60_000  # characters of a config that the page takes in


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
        ("published", "Beside what was published", published_table(parts.rows)),
        ("explore", "Explore", _explore(parts)),
        ("frontier", "Optimality frontier", _frontier(parts)),
        ("figures", "Figures", _figures(parts)),
        ("examples", "Detections side by side", _examples(parts)),
        ("all", "All points", _points(parts)),
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
        environment=_environment(parts.rows),
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in kept),
        sections=bodies,
        source=escaped(parts.source, 300),
        data=script_data(scatter_data(parts.rows)),
        script=script,
    )


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


def _environment(rows: Sequence[Row]) -> str:
    lines = environment_lines(measured_rows(rows))
    if not lines:
        return ""
    items = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value, 400)}</dd></div>" for name, value in lines)
    return f'<details class="environment" open><summary>Where it was measured</summary><dl>{items}</dl></details>'


def _explore(parts: PageParts) -> str:
    data = scatter_data(parts.rows)
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


def _frontier(parts: PageParts) -> str:
    found = frontier_rows(parts.rows, parts.metric)
    if published_rows(parts.rows) and not with_values(parts.rows, LATENCY):
        return ""  # accuracies alone, as a paper's table
    if not found:
        return f'<p class="note">No point has both a time and {escaped(parts.metric)}: there is no frontier.</p>'
    blocks = [
        f'<p class="note">No other point is both as fast and as accurate ({escaped(parts.metric)}). Paths are relative '
        f"to the folder of {escaped(pathlib.PurePath(parts.source).name)}.</p>"
    ]
    for device, rows in found.items():
        if len(found) > 1:
            blocks.append(f"<h3>{escaped(device)}</h3>")
        cards = "\n".join(_frontier_card(row, label, parts) for row, label in zip(rows, point_labels(rows)))
        blocks.append(f'<div class="cards">\n{cards}\n</div>')
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
    body = f"<summary>show the config</summary><pre>{html.escape(shown)}{more}</pre>"
    return f'<details class="config screen">{body}</details>'


def _figures(parts: PageParts) -> str:
    blocks = []
    for figure in parts.figures:
        if isinstance(figure, DrawnFigure):
            encoded = base64.b64encode(figure.svg.read_bytes()).decode("ascii")
            wide = ' class="wide"' if figure.number == "2" else ""
            caption, alternative = escaped(figure.caption, 900), f"{figure.title}. {figure.caption}"
            blocks.append(
                f'<figure{wide} id="figure_{figure.name}"><div class="scroll"><img alt="{escaped(alternative, 900)}" '
                f'src="data:image/svg+xml;base64,{encoded}"></div>'
                f"<figcaption><strong>{_numbered(figure)}.</strong> {caption}</figcaption></figure>"
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


def _points(parts: PageParts) -> str:
    best = {id(row) for group in frontier_rows(parts.rows, parts.metric).values() for row in group}
    return points_table(parts.rows, best)


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
