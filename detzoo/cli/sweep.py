"""``detzoo sweep``, ``detzoo sweep merge|report|choose``."""

from __future__ import annotations

import logging
import pathlib
import sys
from typing import Any

from absl import flags

from detzoo.cli.flags import Definer, define_random_weights_flag
from detzoo.config.library import sweep_names
from detzoo.config.names import counted
from detzoo.errors import ConfigError, DetzooError, UsageError
from detzoo.folders import make_folder
from detzoo.progress import progress_bar
from detzoo.sweep.columns import ACCURACIES, LATENCY
from detzoo.sweep.measured import MEMORIES, clean_rows, main_accuracy
from detzoo.sweep.results import RESULTS_FILE, read_results, read_with_problems

SUMMARY = "Measure many configs in the same way, each in its own process; then figures, a report and a choice."
DESCRIPTION = """
A sweep file names base configs and what varies. Each combination is a point: its time, memory and size are measured.
Its accuracy is measured if it has a checkpoint and records, or if the sweep trains it. docs/sweep.md describes the
file; some files come with detzoo, and are given by their names:

    detzoo sweep --sweep_config quick --output_dir sweeps/quick
    detzoo sweep --sweep_config tradeoffs --output_dir sweeps/tradeoffs --dry_run

The axis runtime measures each detector in TensorFlow, ONNX Runtime, LiteRT and OpenVINO. A point whose runtime is not
installed, or does not support the detector, is skipped with its reason.

The others are the ablations of the RetinaNet and FPN papers, which show the papers' numbers next to the measured ones.
With --small they run on drawn images within an hour on two cores, without it on COCO, which --set data.... names:

    detzoo sweep --sweep_config retinanet_table1b --output_dir sweeps/1b --small

The same command continues a sweep: measured points are kept, failed ones are tried again, and a point whose config has
changed is measured again. A crash, a lack of memory or a time-out costs one point; results.csv has the reason. Ctrl-C
ends running points and keeps the rest. With several machines, each does a part, and merge joins the parts:

    detzoo sweep --sweep_config my.sweep --output_dir part1 --shard 1/2
    detzoo sweep merge --output_dir all part1 part2

Writes results.csv, points/KEY/ (pipeline.config, metrics.json, log.txt), report.html and figures/.
"""

DEVICES = ("cpu", "gpu")

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """The sweep file, the output folder, and how much to run."""
    define = Definer(flag_values)
    text = f"The sweep file: its path, or the name of one that comes with detzoo: {', '.join(sweep_names())}."
    define.string("sweep_config", text, required=True)
    text = "Folder of results.csv; a sweep in an existing folder is continued. Only --dry_run goes without it."
    define.string("output_dir", text, "")
    define.boolean("dry_run", "List the points and their times; run none.")
    text = "The small version that the file has: small detectors, drawn data, minutes instead of days."
    define.boolean("small", text)
    text = "PATH=VALUE changes the sweep file, e.g. --set measure.runs=500 or --set 'accuracy.checkpoint=runs/{name}'."
    define.strings("set", text)
    define.choice("device", "Instead of measure.device.", DEVICES)
    text = "Points at a time: one for each GPU. On one CPU they would disturb each other's times."
    define.integer("jobs", text, 1, minimum=1)
    text = "I/N: the I-th of N parts, I from 1. Every machine finds the same parts; `merge` joins them."
    define.string("shard", text, "")
    define_random_weights_flag(flag_values)
    define.boolean("retry_failed", "Try points again that failed before.", True)
    define.boolean("report", "Write the report at the end.", True)


def run(flag_values: flags.FlagValues) -> None:
    """Checks everything, prints what it will do, does it."""
    from detzoo.sweep.run.parts import parse_shard
    from detzoo.sweep.run.sweep import run_sweep
    from detzoo.sweep.run.todo import Todo

    shard = parse_shard(flag_values.shard)
    if not (flag_values.output_dir or flag_values.dry_run):
        raise UsageError("`detzoo sweep` needs --output_dir\n`detzoo sweep --help` shows the flags")
    output_dir = pathlib.Path(flag_values.output_dir or f"sweeps/{pathlib.Path(flag_values.sweep_config).stem}")
    results = output_dir / RESULTS_FILE
    plan, rows = _load(flag_values, results)
    todo = Todo(plan, rows, output_dir, shard, flag_values.retry_failed, flag_values.jobs)
    print(todo.summary(), flush=True)
    if flag_values.dry_run:
        print(todo.listing())
        return
    try:
        done, failed, skipped = run_sweep(todo, ["--allow_random_weights"] if flag_values.allow_random_weights else [])
    except KeyboardInterrupt:
        logger.info("stopped; measured points are in %s, and the same command continues from there", results)
        raise
    if todo.points:
        print(f"{done} measured, {failed} failed{f', {skipped} skipped' if skipped else ''}: {results}")
    if flag_values.report:
        try:
            _write_report(results, output_dir)
        except Exception as problem:  # the sweep itself is good
            logger.warning("the report could not be written (`detzoo sweep report` tries again): %s", problem)
    if failed:
        raise DetzooError(
            f"{counted(failed, 'point')} failed; the column `reason` of "
            f"{results} has the reasons, and the same command tries again"
        )


def _load(flag_values: flags.FlagValues, results: pathlib.Path) -> tuple[Any, list[Any]]:
    """Returns the plan and the existing rows.

    Raises:
        ConfigError: Lists every problem of both.
    """
    from detzoo.sweep.plan.sweep_plan import load_plan

    overrides = [*flag_values.set]
    if flag_values.device:
        overrides.append(f"measure.device=[{flag_values.device.upper()}]")
    plan: Any = None
    rows: list[Any] = []
    problems: list[str] = []
    try:
        plan = load_plan(flag_values.sweep_config, overrides, flag_values.small)
    except ConfigError as problem:
        problems.append(str(problem))
    if results.is_file():
        rows, wrong = read_with_problems(results)
        problems += wrong
        if wrong:
            problems.append(f"{results}: correct or remove these rows, or give another --output_dir")
    if problems:
        raise ConfigError("\n".join(problems))
    return plan, rows


def _define_results_flags(define: Definer) -> None:
    define.string("output_dir", "Folder of the sweep, with results.csv in it.", "")
    define.string("results", "A results.csv by its name, instead of --output_dir.", "")


def _results_path(flag_values: flags.FlagValues) -> pathlib.Path:
    output_dir, results = flag_values.output_dir, flag_values.results
    if bool(output_dir) == bool(results):
        raise UsageError("give either --output_dir (the folder of the sweep) or --results (a results.csv)")
    return pathlib.Path(results) if results else pathlib.Path(output_dir) / RESULTS_FILE


class Report:
    """``detzoo sweep report``."""

    SUMMARY = "Figures and one self-contained page from a sweep's results.csv."
    DESCRIPTION = """
    detzoo sweep report --output_dir=my_sweep
    detzoo sweep report --results=merged.csv --report_dir=report --metric=mAP@.50IOU

Writes report.html (figures, a table that sorts, the optimality frontier with the command of each point, a scatter to
explore; it needs no network) and figures/ with each figure as PNG and SVG. All numbers come from results.csv; of the
sweep's folder only configs and example images are added, if they exist. Points that failed or lack a value leave gaps,
and the page has the reasons. The command also works while the sweep is running.
"""

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--output_dir or --results, --report_dir, --metric, --example_images."""
        define = Definer(flag_values)
        _define_results_flags(define)
        define.string("report_dir", "Folder for the report; by default the folder of results.csv.", "")
        text = "Accuracy of the figures and of the frontier; by default mAP, or AR@1000 if there are proposals only."
        define.choice("metric", text, ACCURACIES)
        text = "Images of the sweep's examples/ to show detections on, separated by commas; by default the first few."
        flags.DEFINE_list("example_images", [], text, flag_values=flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Writes the report, prints its files."""
        source = _results_path(flag_values)
        folder = flag_values.report_dir or source.parent
        _write_report(source, folder, flag_values.metric, flag_values.example_images)


def _write_report(source: pathlib.Path, folder: Any, metric: str | None = None, example_images: Any = ()) -> None:
    rows = read_results(source)
    if not rows:
        raise UsageError(f"{source} has no row yet; `detzoo sweep` writes one for each point that is done")
    folder = make_folder(folder, "--report_dir")
    from detzoo.sweep.report.page import write_report

    with progress_bar(None, "report", "figures", shown=sys.stderr.isatty(), leave=False) as bar:
        report = write_report(rows, source, folder, metric or main_accuracy(rows), example_images, bar.update)
    print(f"points   {report.num_points}")
    print(f"figures  {len(report.figures)} in {folder / 'figures'}, each as PNG and SVG")
    for figure in report.missing:
        number = f" [{figure.number}]" if figure.number else ""
        print(f"         left out: {figure.title}{number}: {figure.reason}")
    if report.num_examples:
        print(f"examples {report.num_examples} images with detections side by side, in the page")
    if report.examples_missing and (report.num_examples or example_images):
        print(f"         left out: {report.examples_missing}")
    print(f"page     {report.page}")


_LIMITS = {
    "max_latency_ms": "Milliseconds per call at most (median).",
    "max_memory_mib": "MiB of memory at most, of the kind that --memory names.",
    "max_parameters": "Number of weights at most, such as 5e6.",
    "max_multiply_adds": "Multiply-adds per image at most, such as 2e9.",
    "min_map": "The least mAP, 0 to 1; with --metric, the least of that.",
}


class Choose:
    """``detzoo sweep choose``."""

    SUMMARY = "The best points of a sweep within limits of time, memory, size and accuracy."
    DESCRIPTION = """
    detzoo sweep choose --output_dir=my_sweep --max_latency_ms=50 --max_memory_mib=800
    detzoo sweep choose --results=merged.csv --device=GPU --min_map=0.3 --num_best=5

Prints the points that keep all limits, the most accurate first (at equal accuracy the faster), each with its config
and the command that measures it again; * marks points of the optimality frontier, which no other point of the sweep
beats. If no point fits, it names the nearest point and the limit that it breaks, and ends with code 1.
"""

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--output_dir or --results, the limits, and what is best."""
        define = Definer(flag_values)
        _define_results_flags(define)
        for name, text in _LIMITS.items():
            define.number(name, text)
        text = "Limited memory: peak or total of the tensors of a call, or peak of the process with its framework."
        define.choice("memory", text, tuple(MEMORIES), "peak")
        define.choice("metric", "Accuracy to choose by.", ACCURACIES, "mAP")
        define.integer("num_best", "The most points to show.", 3, minimum=1)
        define.string("device", "Only points measured on this device; needed if the sweep has several.", "")

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints the best points."""
        from detzoo.sweep.report.choose import Limit, choose, describe, rows_of_device

        rows = clean_rows(read_results(_results_path(flag_values)))
        metric, memory = flag_values.metric, MEMORIES[flag_values.memory]
        if flag_values.min_map is not None and flag_values.min_map > 1:
            raise UsageError(f"--min_map is {flag_values.min_map:g}; accuracies are shares of 1, such as 0.3 for 30 %")
        columns = dict(zip(_LIMITS, (LATENCY, memory, "parameters", "multiply_adds", metric)))
        bounds = {name: flag_values[name].value for name in columns}
        limits = [
            Limit(name, columns[name], bound, name.startswith("min_"))
            for name, bound in bounds.items()
            if bound is not None
        ]
        choice = choose(rows_of_device(rows, flag_values.device), limits, metric, flag_values.num_best)
        text = describe(choice, limits, metric, memory)
        if not choice.best:
            raise DetzooError(text)
        print(text)


class Merge:
    """``detzoo sweep merge``."""

    SUMMARY = "Join the folders of a sweep that ran in parts."
    DESCRIPTION = """
Joins results.csv, points/ and examples/ of folders that `detzoo sweep --shard` wrote. If a point failed in one part and
was measured in another, the measurement counts. Parts of different processors, GPUs or numbers of cores are refused,
because their times cannot be compared.

    detzoo sweep merge --output_dir all part1 part2 part3
    detzoo sweep report --output_dir all
"""
    POSITIONAL = ("PART...",)

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--output_dir, --allow_mixed_hardware."""
        define = Definer(flag_values)
        text = "Folder to write to; its own results.csv, if any, is one of the parts."
        define.string("output_dir", text, required=True)
        define.boolean("allow_mixed_hardware", "Join parts of different hardware.")

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Joins the parts, prints the number of points per part."""
        from detzoo.sweep.run.parts import merge

        parts = [pathlib.Path(part) for part in flag_values.positional]
        output_dir = pathlib.Path(flag_values.output_dir)
        repeated = sorted({str(p) for p in parts if parts.count(p) > 1 or p.resolve() == output_dir.resolve()})
        if repeated:
            raise UsageError(f"{', '.join(repeated)} is given twice, or is --output_dir itself; give each part once")
        merged = merge(output_dir, parts, flag_values.allow_mixed_hardware)
        width = max(len(folder) for folder in merged.taken)
        for folder, count in merged.taken.items():
            print(f"{folder:<{width}}  {count:>5} {'point' if count == 1 else 'points'}")
        failed = f", {merged.num_failed} of them failed" if merged.num_failed else ""
        print(f"{output_dir}/{RESULTS_FILE}: {merged.num_rows} points{failed}")


SUBCOMMANDS: dict[str, Any] = {"report": Report, "choose": Choose, "merge": Merge}
