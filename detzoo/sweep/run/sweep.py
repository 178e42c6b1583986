"""One call of a sweep: prepares, runs the remaining points as processes, and composes their rows."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from detzoo.config.load import save_pipeline
from detzoo.extras import require_extras
from detzoo.folders import CONFIG_FILE, make_folder
from detzoo.serving.runtimes import TENSORFLOW
from detzoo.sweep.columns import PUBLISHED_COLUMNS, PUBLISHED_CONDITIONS, PUBLISHED_SOURCE, published
from detzoo.sweep.plan.files import OUTPUT_DIR_TOKEN, embedded_folder, replace_output_dir
from detzoo.sweep.plan.points import Point
from detzoo.sweep.plan.sweep_plan import SweepPlan
from detzoo.sweep.results import HOW, RESULTS_FILE, Row, Value, set_cells
from detzoo.sweep.run.estimate import Remaining
from detzoo.sweep.run.point_files import AND, POINT_FILE, POINT_MODULE, POINTS, compose_row, write_json
from detzoo.sweep.run.prepare import check_checkpoints, devices_for, draw_embedded
from detzoo.sweep.run.progress import SweepProgress
from detzoo.sweep.run.runner import Runner, Unit, Work
from detzoo.sweep.run.todo import Todo
from detzoo.sweep.run.trainings import checkpoint_of, works_before
from detzoo.tasks.start import terminated_as
from detzoo.tasks.train import extras_of_training


def run_sweep(todo: Todo, train_flags: Sequence[str] = ()) -> tuple[int, int, int]:
    """Measures the remaining points of a sweep and appends their rows to results.csv.

    The embedded data set is drawn, and checkpoints are checked, before the first point runs.

    Returns:
        The numbers of measured, failed and skipped points.

    Raises:
        UsageError: A package, a GPU or the right to write is missing, or there are more jobs than GPUs.
        CheckpointError: Names every point with a checkpoint that does not fit.
    """
    plan, output_dir = todo.plan, todo.output_dir
    extras = {extra: None for point in todo.trainings.values() for extra in extras_of_training(point.training)}
    require_extras("training the points of this sweep", *extras)
    devices = devices_for(todo.points, todo.jobs)
    make_folder(output_dir, "--output_dir")
    results = output_dir / RESULTS_FILE
    set_cells(results, {point.key: _published_cells(point, plan) for point in todo.all_points})
    if not todo.points:
        return 0, 0, 0
    data = plan.message.data
    if data.HasField("embedded"):
        draw_embedded(data.embedded, output_dir / embedded_folder(data.embedded))
    check_checkpoints([point for point in todo.points if point.checkpoint], output_dir)
    points = {point.key: point for point in todo.points}

    def row_of(key: str, result: dict[str, Any] | None, reason: str | None) -> Row:
        return compose_row(facts_of(points[key], plan, output_dir), result, reason)

    progress = SweepProgress(len(points), Remaining(todo.expected, todo.jobs))
    try:
        with terminated_as(KeyboardInterrupt()):
            Runner(results, row_of, progress, todo.jobs, devices).run(_units(todo, train_flags))
    finally:
        progress.close()
    return progress.done, progress.failed, progress.skipped


def facts_of(point: Point, plan: SweepPlan, output_dir: pathlib.Path) -> dict[str, Value]:
    """Returns the cells of a row that are known before the measurement."""
    config = f"{POINTS}/{point.key}/{CONFIG_FILE}"
    return {
        "key": point.key,
        "name": point.name,
        "reason": None if point.measures_accuracy else point.checkpoint_note or None,
        **dataclasses.asdict(point.traits),
        "axes": json.dumps(point.other_axes) if point.other_axes else None,
        "config": config,
        "checkpoint": checkpoint_of(output_dir, point) or None,
        "command": command_of(point, checkpoint_of(output_dir, point), output_dir / config),
        **{name: getattr(point.how, name) for name in HOW},
        "eval_records": _eval_records(point) or None,
        **_published_cells(point, plan),
    }


def command_of(point: Point, checkpoint: str, config: pathlib.Path) -> str:
    """Returns the shell command for another measurement of a point with its checkpoint and pipeline.config."""
    how, commands = point.how, []
    if how.speed and point.shares_features is not False:
        words = ["detzoo", "benchmark", f"--pipeline_config_path={config}", f"--device={how.device.lower()}"]
        words += [f"--checkpoint_dir={checkpoint}"] if checkpoint else []
        words += [f"--runs={how.runs}", f"--warmup={how.warmup}", f"--batch_size={how.batch_size}"]
        words += [f"--image_size={how.image_height}x{how.image_width}"]
        words += [f"--precision={how.precision}"] if how.precision != "float32" else []
        words += ["--jit_compile"] if how.jit_compile else []
        words += [f"--runtime={how.runtime}"] if how.runtime != TENSORFLOW else []
        commands.append(words)
    if point.measures_accuracy:
        output_dir = config.with_name("evaluation")
        evaluate = ["detzoo", "evaluate", f"--pipeline_config_path={config}"]
        if point.shares_features is False:
            commands += _commands_of_two_networks(evaluate, point, checkpoint, output_dir)
        else:
            commands.append([*evaluate, f"--checkpoint_dir={checkpoint}", f"--output_dir={output_dir}"])
    return AND.join(map(shlex.join, commands))


def _commands_of_two_networks(
    words: list[str], point: Point, training: str, output_dir: pathlib.Path
) -> list[list[str]]:
    """Returns the commands for the first two steps of a training in four, as ``point.measure_two_networks``."""
    proposals = output_dir / "proposals"
    reader, region = "--set=eval_input_reader[0]", "--set=model.faster_rcnn"
    number = point.message.model.faster_rcnn.first_stage_max_proposals
    first = [f"--checkpoint_dir={training}/1_rpn", f"--output_dir={proposals}", f"{region}.number_of_stages=1"]
    second = [f"--checkpoint_dir={training}/2_fast_rcnn", f"--output_dir={output_dir}"]
    second += [f"{region}.proposals_from_reader=true", f"{reader}.proposals_path={proposals}/proposals.npz"]
    return [[*words, *first], [*words, *second, f"{reader}.max_number_of_proposals={number}"]]


def _units(todo: Todo, train_flags: Sequence[str]) -> list[Unit]:
    by_training: dict[str, list[Point]] = {}
    for point in todo.points:
        by_training.setdefault(point.training_key or point.key, []).append(point)
    train, output_dir = todo.plan.message.train, todo.output_dir
    return [
        Unit(
            tuple(works_before(points[0], train, output_dir, train_flags)),
            tuple(_work(point, todo.plan.message, output_dir) for point in points),
        )
        for points in by_training.values()
    ]


def _work(point: Point, sweep: Any, output_dir: pathlib.Path) -> Work:
    path = f"{POINTS}/{point.key}"
    folder = output_dir / path
    folder.mkdir(parents=True, exist_ok=True)
    save_pipeline(replace_output_dir(point.message, str(output_dir)), folder / CONFIG_FILE)
    spec = {
        "name": point.name,
        "checkpoint": checkpoint_of(output_dir, point),
        "how": vars(point.how),
        "two_networks": point.shares_features is False,
        "accuracy": point.measures_accuracy,
        "keep_detections": sweep.accuracy.keep_detections,
        "num_examples": sweep.accuracy.num_examples,
        "example_images": list(sweep.accuracy.example_image),
        "output_dir": str(output_dir),
        "path": path,
    }
    write_json(folder / POINT_FILE, spec)
    command = (sys.executable, "-m", POINT_MODULE, str(folder))
    return Work(point.name, point.key, folder, command, sweep.measure.time_out_seconds)


def _published_cells(point: Point, plan: SweepPlan) -> dict[str, Value]:
    values = plan.published.get(point.name, {})
    given = plan.message.published
    return {
        PUBLISHED_SOURCE: given.source if values else None,
        PUBLISHED_CONDITIONS: given.conditions or None if values else None,
        **{published(name): values.get(name) for name in PUBLISHED_COLUMNS},
    }


def _eval_records(point: Point) -> str:
    if not point.measures_accuracy:
        return ""
    paths = point.message.eval_input_reader[0].tf_record_input_reader.input_path
    return "; ".join(path.removeprefix(f"{OUTPUT_DIR_TOKEN}/") for path in paths)
