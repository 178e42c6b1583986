"""The rows that latency.py and train_step.py print: measured, scaled to the reference machine, wanted."""

from __future__ import annotations

import csv
from typing import NamedTuple

REFERENCE_GFLOPS = 150.0


class Row(NamedTuple):
    """One line of the table. ``wanted`` is for the value at 150, or for the value itself where it is no time."""

    what: str
    measured: float
    unit: str
    yardstick_gflops: float
    at_150: float
    wanted: float | None

    @property
    def verdict(self) -> str:
        """Whether the wanted value is reached, and by which factor it is missed."""
        if self.wanted is None:
            return ""
        return "ok" if self.at_150 <= self.wanted else f"{self.at_150 / self.wanted:.2f} x"


def timed_row(what: str, measured: float, unit: str, gflops: float, wanted: float | None) -> Row:
    """A row whose value scales with the speed of the machine."""
    return Row(what, measured, unit, gflops, measured * gflops / REFERENCE_GFLOPS, wanted)


def report(rows: list[Row], output: str | None) -> None:
    """Prints the table and, where ``output`` is given, writes it as CSV."""
    width = max(len(row.what) for row in rows)
    print(f"{'':{width}} {'measured':>10} {'':4} {'yardstick':>9} {'at 150':>9} {'wanted':>8}")
    for row in rows:
        wanted = "" if row.wanted is None else _number(row.wanted)
        numbers = f"{_number(row.measured):>10} {row.unit:<4} {row.yardstick_gflops:9.0f} {_number(row.at_150):>9}"
        print(f"{row.what:{width}} {numbers} {wanted:>8} {row.verdict}".rstrip())
    if output:
        with open(output, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*Row._fields, "verdict"])
            writer.writerows([*row, row.verdict] for row in rows)


def _number(value: float) -> str:
    """Three digits or more, never an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
