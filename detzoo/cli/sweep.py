"""``detzoo sweep``, ``detzoo sweep merge|report|choose``."""

from __future__ import annotations

import logging
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.cli import sweep_choose, sweep_merge, sweep_report
from detzoo.cli.flags import define_random_weights_flag
from detzoo.errors import ConfigError, DetzooError
from detzoo.folders import make_folder

if TYPE_CHECKING:
    from detzoo.sweep.plan.sweep_plan import SweepPlan

SUMMARY = "Measure many configs alike, each in its own process; then figures, a report and a choice."
DESCRIPTION = """
A sweep file names base configs and what varies. Each combination is a point: its time, memory and size are measured,
and its accuracy where it has a checkpoint and records, or where the sweep trains it. docs/sweep.md says how to write
one; some come with detzoo:

    detzoo sweep --sweep_config model_configs/sweeps/quick.sweep --output_dir sweeps/quick
    detzoo sweep --sweep_config model_configs/sweeps/tradeoffs.sweep --output_dir sweeps/tradeoffs --dry_run

The others are the ablations of the RetinaNet and FPN papers, with the papers' numbers beside the measured ones: with
--small on drawn images within an hour on two cores, without it on COCO, which --set data.... names:

    detzoo sweep --sweep_config model_configs/sweeps/retinanet_table1b.sweep --output_dir sweeps/1b --small

Started again, it goes on: points that are measured are kept, failed ones are tried again, and one whose config has
changed is measured anew. A crash, a lack of memory or a time-out costs one point; results.csv says why. Ctrl-C ends
what runs and keeps the rest. Several machines: each does a part, then one joins them:

    detzoo sweep --sweep_config my.sweep --output_dir part1 --shard 1/2
    detzoo sweep merge --output_dir all part1 part2

Writes results.csv, points/KEY/ (pipeline.config, metrics.json, log.txt), report.html and figures/.
"""
POSITIONAL = ()

DEVICES = ("cpu", "gpu")

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """What to sweep, where to write, and how much of it."""
    flags.DEFINE_string("sweep_config", None, "The sweep file.", flag_values=flag_values, required=True)
    text = "Folder of results.csv; one that exists is gone on with."
    flags.DEFINE_string("output_dir", None, text, flag_values=flag_values, required=True)
    flags.DEFINE_bool("dry_run", False, "List the points and how long they take; run none.", flag_values=flag_values)
    text = "The small version that the file has: small detectors, drawn data, minutes instead of days."
    flags.DEFINE_bool("small", False, text, flag_values=flag_values)
    text = "PATH=VALUE changes the sweep file, e.g. --set measure.runs=500 or --set 'accuracy.checkpoint=runs/{name}'."
    flags.DEFINE_multi_string("set", [], text, flag_values=flag_values)
    flags.DEFINE_enum("device", None, DEVICES, "Instead of measure.device.", flag_values=flag_values)
    text = "Points at a time: one for each GPU. On one CPU they would disturb each other's times."
    flags.DEFINE_integer("jobs", 1, text, lower_bound=1, flag_values=flag_values)
    text = "I/N: the I-th of N parts, I from 1. Every machine finds the same parts; `merge` joins them."
    flags.DEFINE_string("shard", "", text, flag_values=flag_values)
    define_random_weights_flag(flag_values)
    flags.DEFINE_bool("retry_failed", True, "Try points again that failed before.", flag_values=flag_values)
    flags.DEFINE_bool("report", True, "Write the report at the end.", flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Checks everything, says what is to do, does it."""
    from detzoo.sweep.run.shard import parse_shard

    shard = parse_shard(flag_values.shard)
    output_dir = pathlib.Path(flag_values.output_dir)
    plan, rows = _load(flag_values, output_dir)
    from detzoo.cli.sweep_work import SweepWork

    train_flags = ["--allow_random_weights"] if flag_values.allow_random_weights else []
    work = SweepWork(plan, rows, output_dir, shard, flag_values.retry_failed, flag_values.jobs, train_flags)
    print(work.summary(), flush=True)
    if flag_values.dry_run:
        print(work.listing())
        return
    work.check_packages()
    devices = work.devices()
    make_folder(output_dir, "--output_dir")
    work.prepare()
    try:
        failed = work.run(devices)
    except KeyboardInterrupt:
        logger.info("stopped; what was measured is in %s, and the same command goes on from there", work.results)
        raise
    if flag_values.report:
        _report(output_dir)
    if failed:
        raise DetzooError(
            f"{failed} {'point' if failed == 1 else 'points'} failed; the column `reason` of "
            f"{work.results} says why, and the same command tries again"
        )


def _load(flag_values: flags.FlagValues, output_dir: pathlib.Path) -> tuple[SweepPlan, list[Any]]:
    """The plan and the rows that are there already.

    Raises:
        ConfigError: every problem of both.
    """
    from detzoo.sweep.plan.sweep_plan import load_plan
    from detzoo.sweep.results import RESULTS_FILE, read_with_problems

    overrides = [*flag_values.set]
    if flag_values.device:
        overrides.append(f"measure.device=[{flag_values.device.upper()}]")
    rows: list[Any] = []
    problems: list[str] = []
    plan = None
    try:
        plan = load_plan(flag_values.sweep_config, overrides, flag_values.small)
    except ConfigError as problem:
        problems.append(str(problem))
    if (output_dir / RESULTS_FILE).is_file():
        rows, wrong = read_with_problems(output_dir / RESULTS_FILE)
        problems += wrong
        if wrong:
            problems.append(f"{output_dir / RESULTS_FILE}: mend or remove these rows, or give another --output_dir")
    if plan is None or problems:
        raise ConfigError("\n".join(problems))
    return plan, rows


def _report(output_dir: pathlib.Path) -> None:
    """Runs `detzoo sweep report` on the folder; what goes wrong there does not undo the sweep."""
    from detzoo.cli.main import parse_flags

    try:
        sweep_report.run(parse_flags("sweep report", sweep_report, [f"--output_dir={output_dir}"]))
    except Exception as problem:
        logger.warning("the report could not be written (`detzoo sweep report` tries again): %s", problem)


SUBCOMMANDS: dict[str, Any] = {"report": sweep_report, "choose": sweep_choose, "merge": sweep_merge}
