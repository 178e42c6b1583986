"""The files of a sweep's points: records and label map that their configs name, and the checkpoint of each."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detzoo.config.check.inputs import records_problem
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import LoadedPipeline, to_text
from detzoo.config.paths import is_remote
from detzoo.config.problems import Severity, is_placeholder
from detzoo.sweep.plan.excluded import OUTPUT_DIR, fill
from detzoo.sweep.plan.points import Point, fingerprint, stage_sets, training_fingerprint

TRAIN_SHARDS, EVAL_SHARDS = 4, 1  # of the embedded data set
OUTPUT_DIR_TOKEN = f"{{{OUTPUT_DIR}}}"  # in configs of a plan, which do not know yet where they will run
TRAINING, MODEL_FOLDER = "training", "model"  # below the output folder; in it, of a training


def data_patterns(sweep: Any) -> Iterator[tuple[str, str]]:
    """(place, pattern) of every pattern of a ``pb.Sweep``."""
    yield "accuracy.checkpoint", sweep.accuracy.checkpoint
    for name in ("train_input_path", "eval_input_path", "label_map_path"):
        yield f"data.{name}", getattr(sweep.data, name)


def embedded_folder(shapes: Any) -> str:
    """Where a ``pb.SweepShapes`` is drawn, below the output folder; another data set has another folder."""
    told = [shapes.num_train_images, shapes.num_eval_images, shapes.image_size, shapes.seed]
    return f"data/shapes_{fingerprint(told)[:6]}"


def trained_model(training_key: str) -> str:
    """Where a training leaves its checkpoints, below the output folder."""
    return f"{TRAINING}/{training_key}/{MODEL_FOLDER}"


def apply_data(config: Any, data: Any) -> None:
    """Sets the readers of a ``pb.TrainEvalPipelineConfig`` as a ``pb.SweepData`` says, patterns as they are."""
    train, held_out, labels = data.train_input_path, data.eval_input_path, data.label_map_path
    if data.HasField("embedded"):
        folder = f"{OUTPUT_DIR_TOKEN}/{embedded_folder(data.embedded)}"
        train = train or f"{folder}/train-?????-of-{TRAIN_SHARDS:05d}.tfrecord"
        held_out = held_out or f"{folder}/heldout-?????-of-{EVAL_SHARDS:05d}.tfrecord"
        labels = labels or f"{folder}/label_map.pbtxt"
    if held_out and not config.eval_input_reader:
        config.eval_input_reader.add(shuffle=False, num_epochs=1)
    readers = [(config.train_input_reader, train), *((reader, held_out) for reader in config.eval_input_reader[:1])]
    for reader, path in readers:
        if path:
            reader.tf_record_input_reader.ClearField("input_path")
            reader.tf_record_input_reader.input_path.append(path)
        if labels:
            reader.label_map_path = labels


def replace_output_dir(config: Any, output_dir: str) -> Any:
    """A copy of a point's config that can be run, ``{output_dir}`` replaced."""
    copy = type(config)()
    copy.CopyFrom(config)
    if OUTPUT_DIR_TOKEN in (start := copy.train_config.fine_tune_checkpoint):
        copy.train_config.fine_tune_checkpoint = start.replace(OUTPUT_DIR_TOKEN, output_dir)
    for reader in (copy.train_input_reader, *copy.eval_input_reader):
        reader.label_map_path = reader.label_map_path.replace(OUTPUT_DIR_TOKEN, output_dir)
        if OUTPUT_DIR_TOKEN in reader.proposals_path:
            reader.proposals_path = reader.proposals_path.replace(OUTPUT_DIR_TOKEN, output_dir)
        paths = [path.replace(OUTPUT_DIR_TOKEN, output_dir) for path in reader.tf_record_input_reader.input_path]
        reader.tf_record_input_reader.ClearField("input_path")
        reader.tf_record_input_reader.input_path.extend(paths)
    return copy


def values_of(point: Point) -> dict[str, Any]:
    """What a pattern can name of a point."""
    traits = dataclasses.asdict(point.traits)
    named = {name: value for name, value in traits.items() if value is not None}
    return {**named, **point.axes, "base": point.base.name, "name": point.name}


def locate(points: Sequence[Point], sweep: Any, tell: Callable[[str, str], None]) -> list[Point]:
    """The points with checkpoint or training, whether accuracy can be measured, and key.

    Args:
        points: resolved.
        sweep: the ``pb.Sweep``.
        tell: takes (place in the sweep file, message) of what is wrong.
    """
    located = []
    checked: dict[str, list[str]] = {}
    for point in points:
        for message in {id(point.message): point.message, id(point.training): point.training}.values():
            _fill_readers(message, values_of(point))
        checkpoint, note = _find_checkpoint(point, sweep.accuracy.checkpoint)
        training_key = ""
        if not checkpoint and sweep.HasField("train"):
            training_key, note = training_fingerprint(point, stage_sets(sweep.train)), ""
        no_data = _no_data(point, training_key != "") or _no_proposals(point, sweep.train)
        if training_key and no_data and sweep.train.where_data_is_given and not _names_data(point):
            training_key, note = "", f"{no_data}; give it by --set data.train_input_path=..."
        if training_key and no_data:
            tell("train", f"{point.name}: cannot be trained: {no_data}")
        wanted = sweep.accuracy.measure and bool(checkpoint or training_key)
        if (wanted or training_key) and not no_data:
            for problem in _reader_problems(point, training_key != "", checked):
                tell("data", f"{point.name}: {problem}")
        if wanted and no_data:
            note = note or no_data
        located.append(
            dataclasses.replace(
                point,
                checkpoint=checkpoint,
                checkpoint_note=note,
                training_key=training_key,
                measures_accuracy=wanted and not no_data,
            ).with_key()
        )
    return located


def _fill_readers(config: Any, values: dict[str, Any]) -> None:
    for reader in (config.train_input_reader, *config.eval_input_reader):
        if "{" in reader.label_map_path:
            reader.label_map_path = fill(reader.label_map_path, values)
        paths = reader.tf_record_input_reader.input_path
        for index, path in enumerate(paths):
            if "{" in path:
                paths[index] = fill(path, values)


def _find_checkpoint(point: Point, pattern: str) -> tuple[str, str]:
    """The newest prefix that a pattern finds, or why there is none."""
    if not pattern:
        return "", "no checkpoint is given"
    path = fill(pattern, values_of(point))
    return (newest, "") if (newest := newest_checkpoint(path)) else ("", f"there is no checkpoint at {path}")


def newest_checkpoint(path: str) -> str:
    """The prefix of the newest checkpoint in a folder, or the prefix itself; "" where there is none."""
    if os.path.isfile(f"{path}.index"):
        return path
    for folder in (pathlib.Path(path), pathlib.Path(path) / "checkpoint"):
        indices = [*folder.glob("*.index")] if os.path.isdir(folder) else []
        if indices:
            return str(max(indices, key=lambda file: (file.stat().st_mtime, file.name)).with_suffix(""))
    return ""


def _no_data(point: Point, is_trained: bool) -> str:
    """Why a point has no data set, "" where it has one or where the sweep makes it."""
    readers = [*point.message.eval_input_reader[:1], *([point.message.train_input_reader] if is_trained else [])]
    if not point.message.eval_input_reader:
        return "the config has no eval_input_reader"
    for reader in readers:
        paths = [reader.label_map_path, *reader.tf_record_input_reader.input_path]
        if any(path.startswith(OUTPUT_DIR_TOKEN) for path in paths):
            continue
        for path in paths:
            if not path or is_placeholder(path):
                return "the config names no data set yet (PATH_TO_BE_CONFIGURED)"
        if not is_remote(paths[0]) and not os.path.isfile(paths[0]):
            return f"there is no label map at {paths[0]}"
        for path in paths[1:]:
            problem = records_problem(path)
            if problem:
                return problem
    return ""


def _names_data(point: Point) -> bool:
    """Whether any of a point's readers names records."""
    readers = (point.message.train_input_reader, *point.message.eval_input_reader[:1])
    return any(not is_placeholder(path) for reader in readers for path in reader.tf_record_input_reader.input_path)


def _no_proposals(point: Point, train: Any) -> str:
    """Why a detector that reads proposals has none, "" where it has some or needs none."""
    config = point.message
    if point.traits.meta_architecture != "fast_rcnn" or train.proposals_from:
        return ""
    readers = (config.train_input_reader, *config.eval_input_reader[:1])
    missing = [reader for reader in readers if is_placeholder(reader.proposals_path)]
    return "the config names no proposals yet, and the sweep no train.proposals_from" if missing else ""


def _reader_problems(point: Point, is_trained: bool, checked: dict[str, list[str]]) -> list[str]:
    """What `detzoo config check` says of the readers that a point uses and of their files; once where points share."""
    config = point.message
    readers = [config.train_input_reader, *config.eval_input_reader]
    if any(OUTPUT_DIR_TOKEN in reader.label_map_path for reader in readers):
        return []  # drawn by the sweep
    kind = config.model.WhichOneof("model")
    told = "".join(map(to_text, readers)) + str(getattr(getattr(config.model, kind), "num_classes", ""))
    told += str(is_trained)
    used = ("eval_input_reader[0]", "train_input_reader") if is_trained else "eval_input_reader[0]"
    if told in checked:
        return []
    loaded = LoadedPipeline(config, point.base.loaded.path, "", {})
    problems = check_pipeline(loaded)
    checked[told] = [
        f"{problem.path}: {problem.message}"
        for problem in problems
        if problem.severity is Severity.ERROR
        and problem.path.startswith(used)
        # Proposals are written by the sweep.
        and not (problem.path.endswith(".proposals_path") and OUTPUT_DIR_TOKEN in problem.message)
    ]
    return checked[told]
