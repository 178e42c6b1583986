"""Work that comes before a point: its trainings, and the proposals that its detector reads."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from detzoo.config.load import save_pipeline
from detzoo.folders import CONFIG_FILE, FINISHED_FILE
from detzoo.sweep.plan.axes import change_config
from detzoo.sweep.plan.files import MODEL_FOLDER, TRAINING, replace_output_dir, trained_model
from detzoo.sweep.plan.points import Point, Proposals, copied, stage_sets
from detzoo.sweep.plan.trainings import EVAL_FILE, PROPOSALS, TRAIN_FILE
from detzoo.sweep.run.point_files import POINT_FILE, POINT_MODULE, write_json
from detzoo.sweep.run.runner import Work

_TRAININGS_OF_A_STAGE = 2  # in a training of four steps


def trainings_of(point: Point) -> tuple[Point, ...]:
    """Returns the points that must be trained for a point, in their order; the last is the point itself."""
    before: list[Point] = []
    if point.proposals and point.proposals.of.training_key:
        before += trainings_of(point.proposals.of)
    if point.training_key:
        before += [*((point.starts_after,) if point.starts_after else ()), point]
    return tuple({other.training_key: other for other in before}.values())


def num_steps(training: Point, train: Any) -> int:
    """Returns the steps of a point's training, of all four if it has four; ``train`` is a ``pb.SweepTraining``."""
    if training.shares_features is None:
        return training.training.train_config.num_steps
    steps = 0
    for assignments in stage_sets(train):
        stage = copied(training.training)
        for assignment in assignments:
            change_config(stage, assignment)
        steps += _TRAININGS_OF_A_STAGE * stage.train_config.num_steps
    return steps


def is_trained(output_dir: pathlib.Path, training_key: str) -> bool:
    """Returns True for a training that has ended."""
    return (output_dir / trained_model(training_key) / FINISHED_FILE).is_file()


def checkpoint_of(output_dir: pathlib.Path, point: Point) -> str:
    """Returns the place of a point's weights, before or after their training; "" for random weights."""
    return str(output_dir / trained_model(point.training_key)) if point.training_key else point.checkpoint


def works_before(point: Point, train: Any, output_dir: pathlib.Path, train_flags: Sequence[str] = ()) -> Iterator[Work]:
    """Yields the work before a point, in its order; ``train`` is the ``pb.SweepTraining``."""
    for training in trainings_of(point):
        if training is point and point.proposals:
            yield _proposing(point.proposals, train, output_dir)
        yield _training(training, train, output_dir, train_flags)
    if point.proposals and not point.training_key:
        yield _proposing(point.proposals, train, output_dir)


def _training(point: Point, train: Any, output_dir: pathlib.Path, train_flags: Sequence[str]) -> Work:
    key = point.training_key
    folder = output_dir / TRAINING / key
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / CONFIG_FILE
    save_pipeline(replace_output_dir(point.training, str(output_dir)), config)
    words = [f"--pipeline_config_path={config}", f"--model_dir={folder / MODEL_FOLDER}", *train_flags]
    verb = "train"
    if point.shares_features is not None:
        verb = "train_four_step"
        first, second = stage_sets(train)
        words += [*(f"--rpn_set={text}" for text in first), *(f"--box_set={text}" for text in second)]
    command = (sys.executable, "-m", POINT_MODULE, verb, *words)
    name = f"training for {point.name}"
    return Work(name, key, folder, command, train.time_out_seconds, lambda: is_trained(output_dir, key))


def _proposing(proposals: Proposals, train: Any, output_dir: pathlib.Path) -> Work:
    key = f"{PROPOSALS}/{proposals.key}"
    folder = output_dir / key
    folder.mkdir(parents=True, exist_ok=True)
    save_pipeline(replace_output_dir(proposals.of.message, str(output_dir)), folder / CONFIG_FILE)
    files = {TRAIN_FILE: proposals.num_train, EVAL_FILE: proposals.num_eval}
    write_json(folder / POINT_FILE, {"checkpoint": checkpoint_of(output_dir, proposals.of), "files": files})
    command = (sys.executable, "-m", POINT_MODULE, "propose", str(folder))

    def is_done() -> bool:
        return all((folder / file).is_file() for file in files)

    return Work(f"proposals of {proposals.of.name}", key, folder, command, train.time_out_seconds, is_done, "written")
