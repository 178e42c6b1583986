"""What a sweep does before it measures a point: trainings, and proposals that the point's detector reads."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detzoo.config.load import save_pipeline
from detzoo.sweep.plan.axes import change_config
from detzoo.sweep.plan.files import MODEL_FOLDER, replace_output_dir, trained_model
from detzoo.sweep.plan.points import Point, Proposals, stage_sets
from detzoo.sweep.plan.proposals import EVAL_FILE, PROPOSALS, TRAIN_FILE
from detzoo.sweep.run.point_files import FINISHED_FILE, PIPELINE_FILE, POINT_FILE, training_folder, write_json
from detzoo.sweep.run.runner import Work

POINT_MODULE = "detzoo.cli.sweep_point"
_TRAININGS_OF_A_STAGE = 2  # in a training of four steps


def trainings_of(point: Point) -> tuple[Point, ...]:
    """The points whose trainings a point needs, in their order; the last is its own."""
    before: list[Point] = []
    if point.proposals and point.proposals.of.training_key:
        before += trainings_of(point.proposals.of)
    if point.training_key:
        before += [*((point.starts_after,) if point.starts_after else ()), point]
    return tuple({other.training_key: other for other in before}.values())


def num_steps(training: Point, train: Any) -> int:
    """Steps of a point's training, of all four where it is one in four steps; ``train`` is a ``pb.SweepTraining``."""
    if training.shares_features is None:
        return training.training.train_config.num_steps
    steps = 0
    for assignments in stage_sets(train):
        stage = type(training.training)()
        stage.CopyFrom(training.training)
        for assignment in assignments:
            change_config(stage, assignment)
        steps += _TRAININGS_OF_A_STAGE * stage.train_config.num_steps
    return steps


def is_trained(output_dir: pathlib.Path, training_key: str) -> bool:
    """Whether a training has ended."""
    return (output_dir / trained_model(training_key) / FINISHED_FILE).is_file()


def checkpoint_of(output_dir: pathlib.Path, point: Point) -> str:
    """Where a point's weights are or will be, "" where they are random."""
    return str(output_dir / trained_model(point.training_key)) if point.training_key else point.checkpoint


def evaluation_of_two_networks(
    words: list[str], point: Point, training: str, output_dir: pathlib.Path
) -> list[list[str]]:
    """The commands that measure the first two steps of a training in four, as ``sweep_evaluate`` does.

    Args:
        words: of `detzoo evaluate`, with the whole detector's config.
        point: of it.
        training: its folder.
        output_dir: of the evaluation.
    """
    proposals = output_dir / "proposals"
    reader, region = "--set=eval_input_reader[0]", "--set=model.faster_rcnn"
    number = point.message.model.faster_rcnn.first_stage_max_proposals
    first = [f"--checkpoint_dir={training}/1_rpn", f"--output_dir={proposals}", f"{region}.number_of_stages=1"]
    second = [f"--checkpoint_dir={training}/2_fast_rcnn", f"--output_dir={output_dir}"]
    second += [f"{region}.proposals_from_reader=true", f"{reader}.proposals_path={proposals}/proposals.npz"]
    return [[*words, *first], [*words, *second, f"{reader}.max_number_of_proposals={number}"]]


def works_before(
    point: Point, train: Any, output_dir: pathlib.Path, expected: Mapping[str, float], train_flags: Sequence[str] = ()
) -> Iterator[Work]:
    """What must be done before a point is measured, in its order.

    Args:
        point: to be measured.
        train: the ``pb.SweepTraining``.
        output_dir: of the sweep.
        expected: seconds by key of what is not done yet.
        train_flags: further flags of the trainings.
    """
    for training in trainings_of(point):
        if training is point and point.proposals:
            yield _proposing(point.proposals, train, output_dir)
        yield _training(training, train, output_dir, expected.get(training.training_key, 0.0), train_flags)
    if point.proposals and not point.training_key:
        yield _proposing(point.proposals, train, output_dir)


def _training(point: Point, train: Any, output_dir: pathlib.Path, seconds: float, train_flags: Sequence[str]) -> Work:
    key = point.training_key
    folder = training_folder(output_dir, key)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / PIPELINE_FILE
    save_pipeline(replace_output_dir(point.training, str(output_dir)), config)
    words = [f"--pipeline_config_path={config}", f"--model_dir={folder / MODEL_FOLDER}", *train_flags]
    verb = "train"
    if point.shares_features is not None:
        verb = "train_four_step"
        first, second = stage_sets(train)
        words += [*(f"--rpn_set={text}" for text in first), *(f"--box_set={text}" for text in second)]
    command = (sys.executable, "-m", POINT_MODULE, verb, *words)
    name = f"training for {point.name}"
    return Work(name, key, folder, command, train.time_out_seconds, seconds, lambda: is_trained(output_dir, key))


def _proposing(proposals: Proposals, train: Any, output_dir: pathlib.Path) -> Work:
    key = f"{PROPOSALS}/{proposals.key}"
    folder = output_dir / key
    folder.mkdir(parents=True, exist_ok=True)
    save_pipeline(replace_output_dir(proposals.of.message, str(output_dir)), folder / PIPELINE_FILE)
    files = {TRAIN_FILE: proposals.num_train, EVAL_FILE: proposals.num_eval}
    write_json(folder / POINT_FILE, {"checkpoint": checkpoint_of(output_dir, proposals.of), "files": files})
    command = (sys.executable, "-m", POINT_MODULE, "propose", str(folder))
    name = f"proposals of {proposals.of.name}"

    def is_done() -> bool:
        return all((folder / file).is_file() for file in files)

    return Work(name, key, folder, command, train.time_out_seconds, 0.0, is_done, "written")
