"""The columns of the page's table: which, how they are headed, and how a value reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from detzoo.sweep.columns import COLUMNS
from detzoo.sweep.measured import ACCURACIES, LATENCY, Row
from detzoo.sweep.report.names import extractor_name, meta_name, printable

_MEANINGS = {column.name: column.meaning for column in COLUMNS}


class Cell(NamedTuple):
    """A column of the table."""

    name: str  # in results.csv
    heading: str
    show: Callable[[Any], str]
    is_number: bool

    def text(self, row: Row) -> str:
        """What is shown; "" where the value is missing."""
        value = row[self.name]
        return "" if value is None else self.show(value)

    def meaning(self) -> str:
        """What the column is, with its unit."""
        return _MEANINGS[self.name]


def _number(digits: int, factor: float = 1.0) -> Callable[[Any], str]:
    return lambda value: f"{value * factor:,.{digits}f}"


def _time(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def _plain(value: Any) -> str:
    return f"{value}"


def _text(value: Any) -> str:
    return printable(value, 120)


def _flag(value: bool) -> str:
    return "yes" if value else "no"


PERCENT, MILLIONTH, BILLIONTH = 100.0, 1e-6, 1e-9
ACCURACY_HEADINGS = {
    "mAP": "mAP %",
    "mAP@.50IOU": "mAP@.5 %",
    "mAP@.75IOU": "mAP@.75 %",
    "mAP (small)": "small %",
    "mAP (medium)": "medium %",
    "mAP (large)": "large %",
    "AR@1": "AR@1 %",
    "AR@10": "AR@10 %",
    "AR@100": "AR@100 %",
    "AR@1000": "AR@1000 %",
    "AR@1000 (small)": "AR small %",
    "AR@1000 (medium)": "AR medium %",
    "AR@1000 (large)": "AR large %",
    "mask AR@10": "mask AR@10 %",
    "mask AR@100": "mask AR@100 %",
    "mask AR@1000": "mask AR@1000 %",
    "mask AR@1000 (small)": "mask AR small %",
    "mask AR@1000 (medium)": "mask AR medium %",
    "mask AR@1000 (large)": "mask AR large %",
}
CELLS: tuple[Cell, ...] = (
    Cell("name", "point", _text, False),
    Cell("meta_architecture", "meta-architecture", meta_name, False),
    Cell("extractor", "extractor", extractor_name, False),
    Cell("resolution", "px", _plain, True),
    Cell("output_stride", "stride", _plain, True),
    Cell("proposals", "proposals", _plain, True),
    Cell("device", "device", _text, False),
    Cell(LATENCY, "median ms", _time, True),
    Cell("latency.p10_ms", "p10 ms", _time, True),
    Cell("latency.p90_ms", "p90 ms", _time, True),
    Cell("latency.mean_ms", "mean ms", _time, True),
    Cell("images_per_second", "images/s", _time, True),
    Cell("first_run_seconds", "first call s", _time, True),
    *(Cell(name, ACCURACY_HEADINGS[name], _number(1, PERCENT), True) for name in ACCURACIES),
    Cell("parameters", "parameters M", _number(2, MILLIONTH), True),
    Cell("multiply_adds", "multiply-adds G", _number(2, BILLIONTH), True),
    Cell("memory.total_mib", "total MiB", _number(0), True),
    Cell("memory.peak_mib", "peak MiB", _number(0), True),
    Cell("memory.process_peak_mib", "process MiB", _number(0), True),
    Cell("precision", "precision", _text, False),
    Cell("batch_size", "batch", _plain, True),
    Cell("jit_compile", "XLA", _flag, False),
    Cell("latency.repeat_difference", "repeat %", _number(1, PERCENT), True),
    Cell("load.is_quiet", "quiet", _flag, False),
    Cell("status", "status", _text, False),
)
# Shown on paper, where a table cannot be scrolled.
PRINTED = {
    "name",
    LATENCY,
    "latency.p90_ms",
    *(name for name in ACCURACIES if name.startswith("mAP")),
    "parameters",
    "multiply_adds",
    "memory.total_mib",
    "memory.peak_mib",
    "device",
    "status",
}


def shown_cells(rows: list[Row]) -> list[Cell]:
    """The columns that some row has a value in; the name always."""
    return [cell for cell in CELLS if cell.name == "name" or any(row[cell.name] is not None for row in rows)]
