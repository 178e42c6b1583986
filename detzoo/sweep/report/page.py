"""A sweep's report: figures as files, and report.html, a page that needs no other file.

All text from data passes ``escaped`` (HTML) or ``script_data`` (JSON within a script element). A content security
policy names the page's own script by its digest: no other script can run and nothing can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detzoo.config.names import counted
from detzoo.folders import write_atomically
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import Row, clean_rows, column, failed_rows, groups_by_device, measured_rows, with_values
from detzoo.sweep.report.examples import ExampleImage, draw_examples
from detzoo.sweep.report.figures import DrawnFigure, MissingFigure, draw_figures, figure_tasks
from detzoo.sweep.report.frontier import optimality_frontier
from detzoo.sweep.report.names import escaped, extractor_colour, point_labels, printable_line, script_data
from detzoo.sweep.report.notices import environment_lines, notices
from detzoo.sweep.report.published import published_rows, published_table
from detzoo.sweep.report.table import points_table, scatter_data

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_CONFIG = 60_000  # characters of a config on the page
PAGE_FILE, FIGURES_FOLDER = "report.html", "figures"


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
    data, frontiers = scatter_data(clean), frontier_rows(clean, metric)
    sections = [
        ("published", "Published values", published_table(clean)),
        ("explore", "Explore", _explore(data, metric)),
        ("frontier", "Optimality frontier", _frontier(clean, metric, source, frontiers)),
        ("figures", "Figures", _figures(figures)),
        ("examples", "Detections side by side", _examples(examples, missing_examples)),
        ("all", "All points", points_table(clean, {id(row) for group in frontiers.values() for row in group})),
        ("failed", "Failed and incomplete points", _failures(clean)),
    ]
    page = folder / PAGE_FILE
    write_atomically(page, _filled_template(clean, metric, source, sections, data))
    drawn = tuple(figure for figure in figures if isinstance(figure, DrawnFigure))
    missing = tuple(figure for figure in figures if isinstance(figure, MissingFigure))
    return Report(page, drawn, missing, len(clean), len(examples), missing_examples)


def _filled_template(
    rows: Sequence[Row], metric: str, source: pathlib.Path, sections: Sequence[tuple[str, str, str]], data: Any
) -> str:
    """Returns the HTML; a section is (id, title, body), and one without a body is omitted."""
    template, style, script = (
        (HERE / f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    kept = [(name, title, body) for name, title, body in sections if body]
    bodies = "\n".join(
        f'<section id="{name}"{" class=all" if name == "all" else ""}><h2>{title}</h2>\n{body}\n</section>'
        for name, title, body in kept
    )
    warnings = "".join(f"<li>{escaped(text, 800)}</li>" for text in notices(rows, metric))
    return string.Template(template).substitute(
        policy=html.escape(policy, quote=False),
        title=escaped(source.resolve().parent.name or "sweep"),
        style=style,
        summary=_summary(rows, metric),
        notices=f'<ul class="notices">{warnings}</ul>' if warnings else "",
        environment=_environment(rows),
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in kept),
        sections=bodies,
        source=escaped(source, 300),
        data=script_data(data),
        script=script,
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
    return escaped(words, 600)


def _environment(rows: Sequence[Row]) -> str:
    lines = environment_lines(measured_rows(rows))
    if not lines:
        return ""
    items = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value, 400)}</dd></div>" for name, value in lines)
    return f'<details class="environment" open><summary>Where it was measured</summary><dl>{items}</dl></details>'


def _explore(data: dict[str, Any], metric: str) -> str:
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
<label>up<select id="y">{options(data["ys"], metric)}</select></label>
<label>measured on<select id="device">{devices}</select></label>
<label class="check"><input type="checkbox" id="log" checked> logarithmic costs</label>
</div>
<div class="explore">
<div class="plot"><div id="plot"></div><div class="legend" id="legend"></div></div>
<div class="row" id="row" aria-live="polite"></div>
</div>
<noscript><p class="hint">The scatter needs JavaScript; the figures below do not.</p></noscript>"""


def _frontier(rows: Sequence[Row], metric: str, source: pathlib.Path, frontiers: dict[str, list[Row]]) -> str:
    if published_rows(rows) and not with_values(rows, LATENCY):
        return ""  # accuracies alone, like a table of a paper
    if not frontiers:
        return f'<p class="note">No point has both a time and {escaped(metric)}: there is no frontier.</p>'
    blocks = [
        f'<p class="note">No other point is both as fast and as accurate ({escaped(metric)}). Paths are relative '
        f"to the folder of {escaped(source.name)}.</p>"
    ]
    for device, best in frontiers.items():
        if len(frontiers) > 1:
            blocks.append(f"<h3>{escaped(device)}</h3>")
        labelled = zip(best, point_labels(best))
        cards = "\n".join(_frontier_card(row, label, metric, source.parent) for row, label in labelled)
        blocks.append(f'<div class="cards">\n{cards}\n</div>')
    return "\n".join(blocks)


def _frontier_card(row: Row, label: str, metric: str, folder: pathlib.Path) -> str:
    numbers = (
        (metric, f"{metric} {{:.1f}} %", 100),
        (LATENCY, "{:,.1f} ms", 1),
        ("memory.peak_mib", "{:,.0f} MiB peak", 1),
        ("parameters", "{:,.1f} M parameters", 1e-6),
        ("multiply_adds", "{:,.2f} G multiply-adds", 1e-9),
    )
    facts = [words.format(row[name] * factor) for name, words, factor in numbers if row[name] is not None]
    lines = [
        f'<div class="card"><h3><span class="swatch" style="background:{extractor_colour(row["extractor"])}"></span>'
        f"{escaped(label)}</h3>",
        f"<p>{escaped(' · '.join(facts), 400)}</p>",
    ]
    if row["command"]:
        lines.append(f"<pre>{escaped(row['command'], 2000)}</pre>")
    if row["config"]:
        lines.append(f'<p class="note">config: <code>{escaped(row["config"], 400)}</code></p>')
        lines.append(_config_text(row["config"], folder))
    return "\n".join(lines) + "</div>"


def _config_text(name: str, folder: pathlib.Path) -> str:
    """Returns the config, folded, if it is in the folder of results.csv; else ""."""
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


def _figures(figures: Sequence[DrawnFigure | MissingFigure]) -> str:
    blocks, missing = [], []
    for figure in figures:
        title = escaped(figure.title) + (f" [{figure.number}]" if figure.number else "")
        if isinstance(figure, MissingFigure):
            missing.append(f"<li>{title}: {escaped(figure.reason, 400)}</li>")
            continue
        encoded = base64.b64encode(figure.svg.read_bytes()).decode("ascii")
        wide = ' class="wide"' if figure.number == "2" else ""
        caption, alternative = escaped(figure.caption, 900), f"{figure.title}. {figure.caption}"
        blocks.append(
            f'<figure{wide} id="figure_{figure.name}"><div class="scroll"><img alt="{escaped(alternative, 900)}" '
            f'src="data:image/svg+xml;base64,{encoded}"></div>'
            f"<figcaption><strong>{title}.</strong> {caption}</figcaption></figure>"
        )
    text = '<p class="note">Numbers in brackets are those of the figures in arXiv:1611.10012.</p>'
    text += f'<div class="figures">{"".join(blocks)}</div>' if blocks else ""
    return text + (f'<h3>Left out</h3><ul class="missing note">{"".join(missing)}</ul>' if missing else "")


def _examples(images: Sequence[ExampleImage], missing: str) -> str:
    blocks = []
    for image in images:
        pictures = "".join(
            f'<figure><img alt="{escaped(image.name)} with the boxes of {escaped(picture.label)}" '
            f'width="{picture.size[1]}" height="{picture.size[0]}" src="{picture.data_uri()}">'
            f"<figcaption>{escaped(picture.label)}: {picture.num_drawn} "
            f"box{'es' if picture.num_drawn != 1 else ''} above {picture.threshold:g}</figcaption></figure>"
            for picture in image.pictures
        )
        blocks.append(f'<h3>{escaped(image.name)}</h3><div class="examples">{pictures}</div>')
    if missing:
        blocks.append(f'<p class="note">Left out: {escaped(missing, 800)}.</p>')
    return "\n".join(blocks)


def _failures(rows: Sequence[Row]) -> str:
    failed = {id(row) for row in failed_rows(rows)}
    lines = "".join(
        f"<tr><th scope=row>{escaped(row['name'])}</th><td>{'failed' if id(row) in failed else 'measured'}</td>"
        f'<td class="wrap">{escaped(row["reason"] or "no reason was recorded", 1000)}</td></tr>'
        for row in rows
        if id(row) in failed or row["reason"]
    )
    heads = "<th scope=col>point</th><th scope=col>status</th><th scope=col>reason</th>"
    table = f'<div class="box"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
    return table if lines else ""
