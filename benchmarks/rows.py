"""The rows of the benchmarks' tables: measured value, value on the reference machine, target."""

from __future__ import annotations

import csv
from typing import NamedTuple

REFERENCE_GFLOPS = 150.0


class Row(NamedTuple):
    """One line of the table. ``wanted`` is the target of the value at 150, or of the value itself if it is no time."""

    what: str
    measured: float
    unit: str
    yardstick_gflops: float
    at_150: float
    wanted: float | None

    @property
    def verdict(self) -> str:
        """Returns "ok" if the target is reached, else the factor by which it is missed."""
        if self.wanted is None:
            return ""
        return "ok" if self.at_150 <= self.wanted else f"{self.at_150 / self.wanted:.2f} x"


def timed_row(what: str, measured: float, unit: str, gflops: float, wanted: float | None) -> Row:
    """Returns the row of a value that depends on the speed of the machine."""
    return Row(what, measured, unit, gflops, measured * gflops / REFERENCE_GFLOPS, wanted)


def report(rows: list[Row], output: str | None) -> None:
    """Prints the table. Writes it as CSV if ``output`` is given."""
    width = max(len(row.what) for row in rows)
    print(" " * width, f"{'measured':>10} {'':4}", f"{'yardstick':>9} {'at 150':>9}", f"{'wanted':>8}")
    for row in rows:
        wanted = "" if row.wanted is None else _number(row.wanted)
        measured = f"{_number(row.measured):>10} {row.unit:<4}"
        scaled = f"{row.yardstick_gflops:9.0f} {_number(row.at_150):>9}"
        print(f"{row.what.ljust(width)} {measured} {scaled} {wanted:>8} {row.verdict}".rstrip())
    if output:
        with open(output, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*Row._fields, "verdict"])
            writer.writerows([*row, row.verdict] for row in rows)


def _number(value: float) -> str:
    """Formats a number with three digits or more, without an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
