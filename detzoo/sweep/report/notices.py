"""What a reader of a report must know before the numbers: machines that differ, noise, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detzoo.sweep.measured import LATENCY, Row, failed_rows, measured_rows
from detzoo.sweep.report.names import printable

MOST_REPEAT_DIFFERENCE = 0.05  # between two halves of the runs, as a share of the median
MOST_YARDSTICK_RANGE = 1.25  # fastest to slowest; more is another machine, or a busy one
MACHINE = ("environment.cpu", "environment.gpus", "environment.cores")
VERSIONS = ("environment.versions.tensorflow", "environment.versions.detzoo", "environment.commit")
ENVIRONMENT = {
    "environment.cpu": "processor",
    "environment.cores": "cores",
    "environment.gpus": "graphics processors",
    "device": "device",
    "precision": "precision",
    "jit_compile": "compiled by XLA",
    "batch_size": "images a call",
    "latency.num_runs": "calls timed",
    "num_eval_images": "images for accuracy",
    "yardstick_gflops": "yardstick, GFLOP/s",
    "environment.versions.tensorflow": "TensorFlow",
    "environment.versions.detzoo": "detzoo",
    "environment.commit": "commit",
    "started": "measured",
}


def environment_lines(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(what, its values) of all measured rows; what no row names is left out."""
    lines = []
    for name, words in ENVIRONMENT.items():
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            lines.append((words, _summary(name, values)))
    return lines


def notices(rows: Sequence[Row], metric: str) -> list[str]:
    """Sentences of warning, the gravest first; [] where the numbers may be taken as they are."""
    measured, found = measured_rows(rows), []
    machines = {tuple(row[name] for name in MACHINE) for row in measured}
    if len(machines) > 1:
        names = "; ".join(sorted(_machine(machine) for machine in machines))
        found.append(f"The points come from {len(machines)} machines, so their times do not compare: {names}.")
    noisy = [row for row in measured if row["load.is_quiet"] is False]
    if noisy:
        found.append(
            f"{_points(noisy)} measured while other programs used the machine: times may be too long ({_some(noisy)})."
        )
    unsteady = [row for row in measured if (row["latency.repeat_difference"] or 0.0) > MOST_REPEAT_DIFFERENCE]
    if unsteady:
        worst = max(row["latency.repeat_difference"] for row in unsteady)
        found.append(
            f"In {len(unsteady)} of {len(measured)} points the two halves of the runs differ by more than 5 %, at most "
            f"by {100 * worst:.0f} % ({_some(unsteady)})."
        )
    yardsticks = [row["yardstick_gflops"] for row in measured if row["yardstick_gflops"] is not None]
    if yardsticks and len(machines) == 1 and max(yardsticks) > MOST_YARDSTICK_RANGE * min(yardsticks):
        found.append(
            f"The machine's speed changed meanwhile: the yardstick lies between {min(yardsticks):.0f} and "
            f"{max(yardsticks):.0f} GFLOP/s."
        )
    for name, words in (("precision", "numeric precisions"), ("jit_compile", "ways of compiling"), *_VERSION_WORDS):
        values = {row[name] for row in measured if row[name] is not None}
        if len(values) > 1:
            found.append(
                f"The points have different {words}: {', '.join(sorted(printable(value) for value in values))}."
            )
    failed = failed_rows(rows)
    if failed:
        found.append(f"{len(failed)} of {len(rows)} points failed; the reasons are below.")
    without = [row for row in measured if row[metric] is None]
    if without:
        which = "No point has" if len(without) == len(measured) else f"{len(without)} of {len(measured)} points have no"
        found.append(f"{which} {metric}{': the reasons are below' if any(row['reason'] for row in without) else ''}.")
    untimed = [row for row in measured if row[LATENCY] is None]
    if untimed and len(untimed) < len(measured):  # a sweep of accuracies alone has none
        found.append(f"{len(untimed)} of {len(measured)} points have no time.")
    return found


_VERSION_WORDS = tuple(zip(VERSIONS, ("versions of TensorFlow", "versions of detzoo", "commits of detzoo")))


def _machine(machine: tuple[Any, ...]) -> str:
    cpu, gpus, cores = machine
    parts = [printable(cpu) or "unknown processor", f"{cores} cores" if cores else "", printable(gpus)]
    return ", ".join(part for part in parts if part)


def _points(rows: Sequence[Row]) -> str:
    return f"{len(rows)} points were" if len(rows) > 1 else "1 point was"


def _some(rows: Sequence[Row]) -> str:
    names = [printable(row["name"]) for row in rows[:4]]
    return ", ".join(names) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")


def _summary(name: str, values: Sequence[Any]) -> str:
    if name == "started":
        return (
            printable(min(values))
            if min(values) == max(values)
            else f"{printable(min(values))} to {printable(max(values))}"
        )
    if name == "yardstick_gflops":
        low, high = f"{min(values):.0f}", f"{max(values):.0f}"
        return low if low == high else f"{low} to {high}"
    if name == "jit_compile":
        values = ["yes" if value else "no" for value in values]
    distinct = list(dict.fromkeys(str(value) for value in values))
    shown = ", ".join(printable(value) for value in distinct[:6])
    return shown + (f" and {len(distinct) - 6} more" if len(distinct) > 6 else "")
