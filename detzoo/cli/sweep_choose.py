"""``detzoo sweep choose``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.cli.sweep_report import results_path
from detzoo.config.names import suggestion
from detzoo.errors import DetzooError, UsageError
from detzoo.sweep.measured import ACCURACIES, LATENCY, MEMORIES

if TYPE_CHECKING:
    from detzoo.sweep.report.choose import Choice, Limit

SUMMARY = "The best points of a sweep within limits of time, memory, size and accuracy."
DESCRIPTION = """
    detzoo sweep choose --output_dir=my_sweep --max_latency_ms=50 --max_memory_mib=800
    detzoo sweep choose --results=merged.csv --device=GPU --min_map=0.3 --num_best=5

Prints the points that keep all limits, the most accurate first (of two alike, the faster), each with its config and
the command that measures it again; * marks points of the optimality frontier, which no other point of the sweep beats.
Where no point fits, it names the one that comes nearest and the limit that it breaks, and ends with code 1.
"""
POSITIONAL = ()


def define_flags(flag_values: flags.FlagValues) -> None:
    """--output_dir or --results, the limits, and what is best."""
    flags.DEFINE_string("output_dir", "", "Folder of the sweep, with results.csv in it.", flag_values=flag_values)
    text = "A results.csv by its name, instead of --output_dir."
    flags.DEFINE_string("results", "", text, flag_values=flag_values)
    numbers = {
        "max_latency_ms": "Milliseconds a call may take (median).",
        "max_memory_mib": "MiB of memory, of the kind that --memory names.",
        "max_parameters": "Numbers in the weights, such as 5e6.",
        "max_multiply_adds": "Multiply-adds an image, such as 2e9.",
        "min_map": "The least mAP, 0 to 1; with --metric, the least of that.",
    }
    for name, text in numbers.items():
        flags.DEFINE_float(name, None, text, lower_bound=0.0, flag_values=flag_values)
    text = "Memory that is limited: peak or total of the tensors of a call, or peak of the process with its framework."
    flags.DEFINE_enum("memory", "peak", tuple(MEMORIES), text, flag_values=flag_values)
    flags.DEFINE_enum("metric", "mAP", ACCURACIES, "What is best.", flag_values=flag_values)
    flags.DEFINE_integer("num_best", 3, "The most points to show.", lower_bound=1, flag_values=flag_values)
    text = "Only points measured on this device; needed where the sweep has several."
    flags.DEFINE_string("device", "", text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Answers."""
    from detzoo.sweep.measured import clean_rows
    from detzoo.sweep.report.choose import choose
    from detzoo.sweep.results import read_results

    source = results_path(flag_values.output_dir, flag_values.results)
    limits = _limits(flag_values)
    rows = _of_device(clean_rows(read_results(source)), flag_values.device)
    choice = choose(rows, limits, flag_values.metric, flag_values.num_best)
    if not choice.best:
        raise DetzooError(_nothing_fits(choice, limits, len(rows)))
    memory = MEMORIES[flag_values.memory]
    print(_headline(choice, limits, flag_values.metric))
    print()
    print(_table(choice, flag_values.metric, memory, flag_values.memory))
    for place, row in enumerate(choice.best, start=1):
        print(
            f"\n{place}  config   {row['config'] or '(not recorded)'}\n   command  {row['command'] or '(not recorded)'}"
        )


def _limits(flag_values: flags.FlagValues) -> list[Limit]:
    from detzoo.sweep.report.choose import Limit

    columns = {
        "max_latency_ms": LATENCY,
        "max_memory_mib": MEMORIES[flag_values.memory],
        "max_parameters": "parameters",
        "max_multiply_adds": "multiply_adds",
        "min_map": flag_values.metric,
    }
    given = {name: flag_values[name].value for name in columns}
    if given["min_map"] is not None and given["min_map"] > 1:
        raise UsageError(f"--min_map is {given['min_map']:g}; accuracies are shares of 1, such as 0.3 for 30 %")
    return [
        Limit(name, columns[name], bound, name.startswith("min_")) for name, bound in given.items() if bound is not None
    ]


def _of_device(rows: Sequence[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    devices = sorted({row["device"] for row in rows if row["device"]})
    if wanted:
        found = [row for row in rows if (row["device"] or "").lower() == wanted.lower()]
        if not found:
            raise UsageError(f"no point was measured on --device {wanted}{suggestion(wanted, devices)}")
        return found
    if len(devices) > 1:
        raise UsageError(
            f"the points were measured on {' and '.join(devices)}, whose times do not compare; give --device"
        )
    return list(rows)


def _headline(choice: Choice, limits: Sequence[Limit], metric: str) -> str:
    within = f"within {', '.join(_words(limit) for limit in limits)}" if limits else "without limits"
    points = f"{choice.num_within} point{'s' if choice.num_within != 1 else ''} {within}"
    if choice.by_metric:
        lines = [f"{points}; the best by {metric}:"]
    else:
        lines = [
            f"{points}, but none of them has {metric}: nothing was measured to choose by, so the fastest come first.",
            "Accuracy is measured where the sweep has a checkpoint and a data set for a point.",
        ]
    if choice.num_without_metric:
        lines.append(f"{choice.num_without_metric} of them have no {metric} and could not be compared.")
    if choice.num_unknown:
        lines.append(f"{choice.num_unknown} points lack a number that a limit asks for.")
    return "\n".join(lines)


def _nothing_fits(choice: Choice, limits: Sequence[Limit], num_rows: int) -> str:
    if not limits or choice.nearest is None:
        if choice.num_unknown:
            names = ", ".join(sorted({limit.column for limit in limits}))
            return f"no point can be compared with the limits: none of {num_rows} has all of {names}"
        return f"no point to choose from: results.csv has {num_rows}, and none was measured"
    row = choice.nearest.row
    lines = [f"no point keeps all limits ({', '.join(_words(limit) for limit in limits)})", f"nearest: {row['name']}"]
    for limit in choice.nearest.broken:
        value = row[limit.column]
        share = 100 * (limit.excess(row) or 0.0)
        side = "below" if limit.is_least else "above"
        lines.append(
            f"  {limit.column} is {_number(value)}, {share:.3g} % {side} --{limit.flag} {_number(limit.bound)}"
        )
    if choice.num_unknown:
        lines.append(f"{choice.num_unknown} points lack a number that a limit asks for")
    return "\n".join(lines)


def _words(limit: Limit) -> str:
    return f"{limit.column} {'>=' if limit.is_least else '<='} {_number(limit.bound)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _table(choice: Choice, metric: str, memory: str, kind: str) -> str:
    heads = ["", "point", metric, "median ms", f"{kind} MiB", "parameters M", "multiply-adds G"]
    lines = [heads]
    for place, row in enumerate(choice.best):
        mark = "*" if place in choice.on_frontier else ""
        lines.append(
            [
                f"{place + 1}{mark}",
                str(row["name"]),
                _cell(row[metric], ".3f"),
                _cell(row[LATENCY], ",.1f"),
                _cell(row[memory], ",.0f"),
                _cell(row["parameters"], ",.2f", 1e-6),
                _cell(row["multiply_adds"], ",.2f", 1e-9),
            ]
        )
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if index < 2 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def _cell(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(value * factor, form)
