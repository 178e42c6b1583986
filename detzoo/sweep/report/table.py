"""The page's table of all points."""

from __future__ import annotations

from collections.abc import Sequence

from detzoo.sweep.measured import ACCURACIES, Row
from detzoo.sweep.report.cells import PRINTED, Cell, shown_cells
from detzoo.sweep.report.escape import escaped


def points_table(rows: Sequence[Row], best: set[int]) -> str:
    """HTML of the table with its filter; a column that no row has a value in is left out.

    Args:
        rows: all points.
        best: ids (of the objects) of rows on the optimality frontier.
    """
    if not rows:
        return '<p class="note">There are no points.</p>'
    cells = shown_cells(list(rows))
    # A browser repeats the head of a table on each printed page only where it has no buttons.
    heads = "".join(
        f'<th scope="col" class="{_classes(cell)}" title="{escaped(cell.meaning())}"'
        f'{_better(cell.name)}><button type="button">{escaped(cell.heading)}</button>'
        f'<span class="paper">{escaped(cell.heading)}</span></th>'
        for cell in cells
    )
    body = "\n".join(_table_row(row, cells, id(row) in best) for row in rows)
    bold = "Bold: on the optimality frontier. " if best else ""
    return f"""<div class="controls screen"><label>only points with these words
<input type="search" id="filter" autocomplete="off"></label>
<span class="hint" id="count" role="status"></span></div>
<p class="note">{bold}Per cent for accuracy; a click on a heading sorts.</p>
<div class="box" tabindex="0" role="region" aria-label="all points"><table id="points"><thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _table_row(row: Row, cells: Sequence[Cell], is_best: bool) -> str:
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


def _classes(cell: Cell) -> str:
    return " ".join([*(["number"] if cell.is_number else []), *([] if cell.name in PRINTED else ["extra"])])


def _better(name: str) -> str:
    return ' data-better="more"' if name in ACCURACIES or name == "images_per_second" else ""
