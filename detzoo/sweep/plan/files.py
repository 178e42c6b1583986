"""The files of a sweep's points: records and label map that their configs name, and the checkpoint of each."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from detzoo.config import zoo
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.check.readers import records_problem
from detzoo.config.load import LoadedPipeline, to_text
from detzoo.config.paths import is_remote
from detzoo.config.problems import Severity, is_placeholder
from detzoo.sweep.plan.excluded import OUTPUT_DIR, Report, fill
from detzoo.sweep.plan.points import Point, copied, fingerprint, training_fingerprint

TRAIN_SHARDS, EVAL_SHARDS = 4, 1  # of the embedded data set
OUTPUT_DIR_TOKEN = f"{{{OUTPUT_DIR}}}"  # in the configs of a plan, before their folder is known
TRAINING, MODEL_FOLDER = "training", "model"  # below the output folder; in it, of a training


def data_patterns(sweep: Any) -> Iterator[tuple[str, str]]:
    """Yields (place, pattern) of every pattern of a ``pb.Sweep``."""
    yield "accuracy.checkpoint", sweep.accuracy.checkpoint
    for name in ("train_input_path", "eval_input_path", "label_map_path"):
        yield f"data.{name}", getattr(sweep.data, name)


def embedded_folder(shapes: Any) -> str:
    """Returns the folder of a drawn ``pb.SweepShapes``, below the output folder; each data set has another one."""
    facts = [shapes.num_train_images, shapes.num_eval_images, shapes.image_size, shapes.seed]
    if shapes.scales:  # folders without it are those of earlier versions
        facts.append(shapes.scales)
    return f"data/shapes_{fingerprint(facts)[:6]}"


def trained_model(training_key: str) -> str:
    """Returns the folder of a training's checkpoints, below the output folder."""
    return f"{TRAINING}/{training_key}/{MODEL_FOLDER}"


def apply_data(config: Any, data: Any) -> None:
    """Sets the readers of a ``pb.TrainEvalPipelineConfig`` from a ``pb.SweepData``; patterns stay as they are."""
    train, held_out, labels = data.train_input_path, data.eval_input_path, data.label_map_path
    if data.HasField("embedded"):
        folder = f"{OUTPUT_DIR_TOKEN}/{embedded_folder(data.embedded)}"
        train = train or f"{folder}/train-?????-of-{TRAIN_SHARDS:05d}.tfrecord"
        held_out = held_out or f"{folder}/heldout-?????-of-{EVAL_SHARDS:05d}.tfrecord"
        labels = labels or f"{folder}/label_map.pbtxt"
    if held_out and not config.eval_input_reader:
        config.eval_input_reader.add(shuffle=False, num_epochs=1)
    for reader, path in ((config.train_input_reader, train), *((r, held_out) for r in config.eval_input_reader[:1])):
        if path:
            reader.tf_record_input_reader.input_path[:] = [path]
        if labels:
            reader.label_map_path = labels


def replace_output_dir(config: Any, output_dir: str) -> Any:
    """Returns a copy of a point's config without ``{output_dir}``, which can be run."""
    copy = copied(config)
    fields = [(copy.train_config, "fine_tune_checkpoint")]
    fields += [(reader, name) for reader in _readers(copy) for name in ("label_map_path", "proposals_path")]
    for message, name in fields:
        if OUTPUT_DIR_TOKEN in (text := getattr(message, name)):
            setattr(message, name, text.replace(OUTPUT_DIR_TOKEN, output_dir))
    for reader in _readers(copy):
        paths = reader.tf_record_input_reader.input_path
        for index, path in enumerate(paths):
            paths[index] = path.replace(OUTPUT_DIR_TOKEN, output_dir)
    return copy


def values_of(point: Point) -> dict[str, Any]:
    """Returns the values of a point that a pattern can name."""
    named = {name: value for name, value in dataclasses.asdict(point.traits).items() if value is not None}
    return {**named, **point.axes, "base": point.base.name, "name": point.name}


def locate(points: Sequence[Point], sweep: Any, report: Report) -> list[Point]:
    """Returns the points of a ``pb.Sweep`` with checkpoint or training, accuracy if it can be measured, and key."""
    located = []
    checked: set[str] = set()
    train = sweep.train
    for point in points:
        for message in {id(point.message): point.message, id(point.training): point.training}.values():
            _fill_readers(message, values_of(point))
        checkpoint, note = _find_checkpoint(point, sweep.accuracy.checkpoint)
        training_key = ""
        if not checkpoint and sweep.HasField("train"):
            training_key, note = training_fingerprint(point, train), ""
        no_data = _no_data(point, training_key != "") or _no_proposals(point, train)
        if training_key and no_data:
            if train.where_data_is_given and not _names_data(point):
                training_key, note = "", f"{no_data}; give it by --set data.train_input_path=..."
            else:
                report("train", f"{point.name}: cannot be trained: {no_data}")
        wanted = sweep.accuracy.measure and bool(checkpoint or training_key)
        if (wanted or training_key) and not no_data:
            for problem in _reader_problems(point, training_key != "", checked):
                report("data", f"{point.name}: {problem}")
        if wanted:
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


def _readers(config: Any) -> list[Any]:
    return [config.train_input_reader, *config.eval_input_reader]


def _fill_readers(config: Any, values: dict[str, Any]) -> None:
    for reader in _readers(config):
        if "{" in reader.label_map_path:
            reader.label_map_path = fill(reader.label_map_path, values)
        paths = reader.tf_record_input_reader.input_path
        for index, path in enumerate(paths):
            paths[index] = fill(path, values)


def _find_checkpoint(point: Point, pattern: str) -> tuple[str, str]:
    """Returns the newest prefix that a pattern finds, or the reason for none."""
    if not pattern:
        return "", "no checkpoint is given"
    path = fill(pattern, values_of(point))
    newest = newest_checkpoint(path)
    return newest, "" if newest else f"there is no checkpoint at {path}"


def newest_checkpoint(path: str) -> str:
    """Returns the prefix of the newest checkpoint in a folder, or the prefix itself or zoo://NAME; "" for none."""
    if (archive := zoo.name_in(path)) is not None:
        return "" if zoo.problem_of(archive) else path
    if os.path.isfile(f"{path}.index"):
        return path
    for folder in (pathlib.Path(path), pathlib.Path(path) / "checkpoint"):
        indices = [*folder.glob("*.index")] if os.path.isdir(folder) else []
        if indices:
            return str(max(indices, key=lambda file: (file.stat().st_mtime, file.name)).with_suffix(""))
    return ""


def _no_data(point: Point, is_trained: bool) -> str:
    """Returns the reason for a missing data set, "" if the point has one or the sweep draws it."""
    if not point.message.eval_input_reader:
        return "the config has no eval_input_reader"
    for reader in (point.message.eval_input_reader[0], *([point.message.train_input_reader] if is_trained else [])):
        labels, records = reader.label_map_path, reader.tf_record_input_reader.input_path
        if any(path.startswith(OUTPUT_DIR_TOKEN) for path in (labels, *records)):
            continue
        if any(not path or is_placeholder(path) for path in (labels, *records)):
            return "the config names no data set yet (PATH_TO_BE_CONFIGURED)"
        if not is_remote(labels) and not os.path.isfile(labels):
            return f"there is no label map at {labels}"
        if problem := next(filter(None, map(records_problem, records)), ""):
            return problem
    return ""


def _names_data(point: Point) -> bool:
    readers = _readers(point.message)[:2]
    return any(not is_placeholder(path) for reader in readers for path in reader.tf_record_input_reader.input_path)


def _no_proposals(point: Point, train: Any) -> str:
    """Returns the reason for missing proposals, "" if the detector has some or needs none."""
    if point.traits.meta_architecture != "fast_rcnn" or train.proposals_from:
        return ""
    missing = any(is_placeholder(reader.proposals_path) for reader in _readers(point.message)[:2])
    return "the config names no proposals yet, and the sweep no train.proposals_from" if missing else ""


def _reader_problems(point: Point, is_trained: bool, checked: set[str]) -> list[str]:
    """Returns the errors of `detzoo config check` in the readers of a point, unless they were checked before."""
    config = point.message
    readers = _readers(config)
    if any(OUTPUT_DIR_TOKEN in reader.label_map_path for reader in readers):
        return []  # drawn by the sweep
    model = getattr(config.model, config.model.WhichOneof("model"))
    facts = "".join([*map(to_text, readers), str(getattr(model, "num_classes", "")), str(is_trained)])
    if facts in checked:
        return []
    checked.add(facts)
    used = ("eval_input_reader[0]", *(["train_input_reader"] if is_trained else []))
    by_path = dict(zip(("train_input_reader", "eval_input_reader[0]"), readers))
    written = {f"{path}.proposals_path" for path, each in by_path.items() if OUTPUT_DIR_TOKEN in each.proposals_path}
    return [
        f"{problem.path}: {problem.message}"
        for problem in check_pipeline(LoadedPipeline(config, point.base.loaded.path, "", {}))
        if problem.severity is Severity.ERROR
        and problem.path.startswith(used)
        and problem.path not in written  # by the sweep itself
    ]
