"""Warnings before the numbers of a report: machines that differ, noise, missing values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detzoo.config.names import counted, listed
from detzoo.pages.text import printable
from detzoo.sweep.columns import HARDWARE, LATENCY
from detzoo.sweep.measured import Row, column, failed_rows, measured_rows, skipped_rows, with_values

MOST_REPEAT_DIFFERENCE = 0.05  # between two halves of the runs, as a share of the median
MOST_YARDSTICK_RANGE = 1.25  # fastest to slowest; more is another machine, or a busy one
# Column -> words for several different values in it.
DIFFERENCES = {
    "precision": "numeric precisions",
    "jit_compile": "ways of compiling",
    "environment.versions.tensorflow": "versions of TensorFlow",
    "environment.versions.detzoo": "versions of detzoo",
    "environment.commit": "commits of detzoo",
}
ENVIRONMENT = {
    "environment.cpu": "processor",
    "environment.cores": "cores",
    "environment.gpus": "graphics processors",
    "runtime": "runtime",
    "device": "device",
    "precision": "precision",
    "jit_compile": "compiled by XLA",
    "batch_size": "images per call",
    "latency.num_runs": "calls timed",
    "num_eval_images": "images for accuracy",
    "yardstick_gflops": "yardstick, GFLOP/s",
    "environment.versions.tensorflow": "TensorFlow",
    "environment.versions.detzoo": "detzoo",
    "environment.commit": "commit",
    "started": "measured",
}


def environment_lines(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns (heading, values) of the environment of measured rows, without headings that no row has."""
    values = {name: column(with_values(rows, name), name) for name in ENVIRONMENT}
    return [(words, _summary(name, values[name])) for name, words in ENVIRONMENT.items() if values[name]]


def notices(rows: Sequence[Row], metric: str) -> list[str]:
    """Returns warnings, the gravest first; [] for numbers that can be compared as they are."""
    measured, found = measured_rows(rows), []
    machines = {tuple(row[name] for name in HARDWARE) for row in measured}
    if len(machines) > 1:
        names = "; ".join(sorted(_machine(machine) for machine in machines))
        found.append(f"The points come from {len(machines)} machines, so their times do not compare: {names}.")
    noisy = [row for row in measured if row["load.is_quiet"] is False]
    if noisy:
        found.append(
            f"{counted(len(noisy), 'point')} {'was' if len(noisy) == 1 else 'were'} measured while other programs used "
            f"the machine: times may be too long ({_some(noisy)})."
        )
    unsteady = [row for row in measured if (row["latency.repeat_difference"] or 0.0) > MOST_REPEAT_DIFFERENCE]
    if unsteady:
        worst = max(row["latency.repeat_difference"] for row in unsteady)
        found.append(
            f"In {len(unsteady)} of {len(measured)} points the two halves of the runs differ by more than 5 %, at most "
            f"by {100 * worst:.0f} % ({_some(unsteady)})."
        )
    yardsticks = column(with_values(measured, "yardstick_gflops"), "yardstick_gflops")
    if yardsticks and len(machines) == 1 and max(yardsticks) > MOST_YARDSTICK_RANGE * min(yardsticks):
        found.append(
            f"The machine's speed changed meanwhile: the yardstick lies between {min(yardsticks):.0f} and "
            f"{max(yardsticks):.0f} GFLOP/s."
        )
    for name, words in DIFFERENCES.items():
        values = sorted(map(printable, {*column(with_values(measured, name), name)}))
        if len(values) > 1:
            found.append(f"The points have different {words}: {', '.join(values)}.")
    failed = failed_rows(rows)
    if failed:
        found.append(f"{len(failed)} of {len(rows)} points failed; the reasons are below.")
    skipped = skipped_rows(rows)
    if skipped:
        why = "their runtimes are not installed or do not support the detector"
        found.append(f"{len(skipped)} of {len(rows)} points were skipped, because {why}; the reasons are below.")
    without = [row for row in measured if row[metric] is None]
    if without:
        which = "No point has" if len(without) == len(measured) else f"{len(without)} of {len(measured)} points have no"
        found.append(f"{which} {metric}{': the reasons are below' if any(row['reason'] for row in without) else ''}.")
    untimed = [row for row in measured if row[LATENCY] is None]
    if untimed and len(untimed) < len(measured):  # a sweep of accuracies alone has none
        found.append(f"{len(untimed)} of {len(measured)} points have no time.")
    return found


def _machine(machine: tuple[Any, ...]) -> str:
    cpu, gpus, cores = machine
    parts = [printable(cpu) or "unknown processor", f"{cores} cores" if cores else "", printable(gpus)]
    return ", ".join(part for part in parts if part)


def _some(rows: Sequence[Row]) -> str:
    return listed([printable(row["name"]) for row in rows], 4)


def _summary(name: str, values: Sequence[Any]) -> str:
    if name == "started":
        return _range(printable(min(values)), printable(max(values)))
    if name == "yardstick_gflops":
        return _range(f"{min(values):.0f}", f"{max(values):.0f}")
    if name == "jit_compile":
        values = ["yes" if value else "no" for value in values]
    return listed([printable(value) for value in dict.fromkeys(map(str, values))], 6)


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
