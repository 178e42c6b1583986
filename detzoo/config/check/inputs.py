"""Checks of the input readers and ``eval_config``: label maps, class counts, record files, metrics."""

from __future__ import annotations

import glob
import os
import pathlib
import re
from typing import Any, NamedTuple

from detzoo.config import pb, stages
from detzoo.config.check.image_folders import check_folders_are_classes, check_image_folder, names_of_folders
from detzoo.config.label_map import read_label_map
from detzoo.config.names import suggestion
from detzoo.config.paths import is_remote, path_hint
from detzoo.config.problems import Findings, Severity, is_placeholder
from detzoo.errors import UsageError

METRICS_SETS = (
    "coco_detection_metrics",
    "coco_mask_metrics",
    "pascal_voc_detection_metrics",
    "pascal_voc_2007_detection_metrics",
    "oid_V2_detection_metrics",
    "open_images_V2_detection_metrics",
    "open_images_metrics",
    "oid_challenge_detection_metrics",
)
_OTHER_METRICS = ("oid_", "open_images", "segmentation", "keypoint", "lvis", "weighted", "panoptic")
MASK_METRICS = "coco_mask_metrics"
_BOX_METRICS = ", ".join(name for name in METRICS_SETS if name != MASK_METRICS)
_NEEDS_MASKS = "only faster_rcnn with number_of_stages: 3 and predict_instance_masks: true predicts"
_SHARDED_NAME = re.compile(r"^(?P<stem>.+)@(?P<shards>[0-9]{1,9})(?P<extension>\.[\w.]+)?$")
_MOST_PROBLEMS_OF_A_MAP = 5


class _Classes(NamedTuple):
    """What a label map that could be read says."""

    path: str
    names: dict[int, str]  # id -> name


def named_readers(config: Any) -> list[tuple[str, Any]]:
    """Path and message of every input reader of a ``pb.TrainEvalPipelineConfig``, training's first."""
    readers = []
    if config.HasField("train_input_reader"):
        readers.append(("train_input_reader", config.train_input_reader))
    return readers + [(f"eval_input_reader[{index}]", reader) for index, reader in enumerate(config.eval_input_reader)]


def check_inputs(config: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with the readers of a ``pb.TrainEvalPipelineConfig``.

    Args:
        config: the whole config.
        findings: where problems go.
        files: whether label maps and records must exist.
    """
    num_classes, num_classes_path = _num_classes(config.model)
    maps: list[tuple[str, _Classes]] = []
    for path, reader in named_readers(config):
        _check_reader(reader, path, config.model.WhichOneof("model"), findings, files)
        classes = _classes_of(reader, path, findings) if files else None
        if classes is not None:
            _check_class_count(classes, num_classes, num_classes_path, f"{path}.label_map_path", findings)
            maps.append((path, classes))
    for path, classes in maps[1:]:
        _check_same_classes(maps[0], path, classes, findings)


def check_metrics(config: Any, findings: Findings) -> None:
    """Adds what is wrong with ``eval_config`` of a ``pb.TrainEvalPipelineConfig``: metrics, and masks for them."""
    kind = config.model.WhichOneof("model")
    has_no_masks = kind == "ssd" or (kind == "faster_rcnn" and not stages.predicts_masks(config.model.faster_rcnn))
    for index, name in enumerate(config.eval_config.metrics_set):
        path = f"eval_config.metrics_set[{index}]"
        if name not in METRICS_SETS:
            if any(fragment in name for fragment in _OTHER_METRICS):
                findings.error(path, f"'{name}' is not supported; accepted: {', '.join(METRICS_SETS)}")
            else:
                findings.error(path, f"there is no metrics set '{name}'{suggestion(name, METRICS_SETS)}")
        elif name == MASK_METRICS and has_no_masks:
            findings.error(path, f"'{name}' needs masks, which {_NEEDS_MASKS}; accepted: {_BOX_METRICS}")
    if config.eval_config.eval_instance_masks and has_no_masks:
        findings.error("eval_config.eval_instance_masks", f"is true, but {_NEEDS_MASKS}; accepted: false")


def _num_classes(model: Any) -> tuple[int, str]:
    """``num_classes`` of whichever model is chosen, and its path; 0 where the model does not say or does not ask."""
    kind = model.WhichOneof("model")
    if kind is None or (kind == "faster_rcnn" and not stages.has_second_stage(model.faster_rcnn)):
        return 0, ""
    return getattr(getattr(model, kind), "num_classes", 0), f"model.{kind}.num_classes"


def _classes_of(reader: Any, path: str, findings: Findings) -> _Classes | None:
    """What a reader calls the classes: its label map, or the names of its folders; None where that has problems."""
    if reader.WhichOneof("input_reader") == "image_folder_reader":
        if not reader.label_map_path:
            names = names_of_folders(reader)
            return _Classes(reader.image_folder_reader.path, names) if names else None
        classes = _read_classes(reader.label_map_path, f"{path}.label_map_path", findings)
        if classes is not None:
            check_folders_are_classes(reader, path, classes.names, findings)
        return classes
    return _read_classes(reader.label_map_path, f"{path}.label_map_path", findings)


def _check_reader(reader: Any, path: str, model_kind: str | None, findings: Findings, files: bool) -> None:
    if reader.input_type == pb.TF_SEQUENCE_EXAMPLE:
        findings.error(f"{path}.input_type", "TF_SEQUENCE_EXAMPLE is not supported; accepted: TF_EXAMPLE")
    kind = reader.WhichOneof("input_reader")
    if kind is None:
        findings.error(path, "names no records; add tf_record_input_reader { input_path: '...' }")
    if kind == "image_folder_reader":
        check_image_folder(reader, path, model_kind, findings, files)
    if kind != "tf_record_input_reader":
        return
    patterns = list(reader.tf_record_input_reader.input_path)
    here = f"{path}.tf_record_input_reader.input_path"
    if not patterns:
        findings.error(here, "is missing; give a TFRecord file or a glob, such as data/train-?????-of-00010")
    weights = len(reader.sample_from_datasets_weights)
    if weights and weights != len(patterns):
        text = f"has {weights} values; accepted: none, or one for each of the {len(patterns)} input_path"
        findings.error(f"{path}.sample_from_datasets_weights", text)
    if files:
        for index, pattern in enumerate(patterns):
            if is_placeholder(pattern):
                findings.to_set(f"{here}[{index}]", "your TFRecord file or a glob, such as data/train-?????-of-00010")
                continue
            problem = records_problem(pattern)
            if problem:
                findings.error(f"{here}[{index}]", problem)


def records_problem(pattern: str) -> str:
    """Why one ``input_path`` gives no records, "" where it does or where it cannot be seen from here (gs://...)."""
    if not pattern.strip():
        return "is empty; give a TFRecord file or a glob, such as data/train-?????-of-00010"
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        if is_remote(part):
            continue
        sharded = _SHARDED_NAME.match(part)
        if sharded and not os.path.exists(part):
            part = f"{sharded['stem']}-?????-of-{int(sharded['shards']):05d}{sharded['extension'] or ''}"
        found = [name for name in glob.glob(part) if os.path.isfile(name)]
        if not found:
            return f"no file matches '{part}'{path_hint(part)}"
        if not any(pathlib.Path(name).stat().st_size for name in found):
            return f"the files that match '{part}' are empty"
    return ""


def _read_classes(label_map_path: str, path: str, findings: Findings) -> _Classes | None:
    """The classes of a label map; None where it has problems, which are added."""
    if not label_map_path:
        findings.error(path, "is missing; give the label map that names the classes of the records")
        return None
    if is_placeholder(label_map_path):
        findings.to_set(path, "your label map, which names the classes of the records")
        return None
    if is_remote(label_map_path):
        return None
    try:
        parsed, problems = read_label_map(label_map_path)
    except UsageError as unreadable:
        findings.error(path, str(unreadable))
        return None
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    for problem in errors[:_MOST_PROBLEMS_OF_A_MAP]:
        where = f"{label_map_path}:{problem.line}: " if problem.line else f"{label_map_path}: "
        findings.error(path, where + (f"{problem.path}: " if problem.path else "") + problem.message)
    if len(errors) > _MOST_PROBLEMS_OF_A_MAP:
        findings.error(path, f"{label_map_path} has {len(errors) - _MOST_PROBLEMS_OF_A_MAP} problems more")
    if errors:
        return None
    names = {item.id: item.name or item.display_name for item in parsed.message.item if item.id > 0}
    return _Classes(label_map_path, names)


def _check_class_count(
    classes: _Classes, num_classes: int, num_classes_path: str, path: str, findings: Findings
) -> None:
    if not num_classes:
        return
    highest = max(classes.names)
    if highest > num_classes:
        text = (
            f"{classes.path} goes up to id {highest} ('{classes.names[highest]}'), but num_classes is {num_classes}; "
            f"set {num_classes_path}: {highest}"
        )
        findings.error(path, text)
    elif highest < num_classes:
        text = (
            f"{classes.path} ends at id {highest}, but num_classes is {num_classes}: the classes from {highest + 1} on "
            f"have no name and no examples; set {num_classes_path}: {highest}, or add them to the map"
        )
        findings.warning(path, text)


def _check_same_classes(first: tuple[str, _Classes], path: str, classes: _Classes, findings: Findings) -> None:
    """Two readers of one config must mean the same class by an id."""
    other_path, other = first
    different = sorted(
        identifier for identifier in classes.names if other.names.get(identifier) != classes.names[identifier]
    )
    if different:
        identifier = different[0]
        text = (
            f"id {identifier} is '{classes.names[identifier]}', but '{other.names.get(identifier, 'nothing')}' in the "
            f"label map of {other_path}; use one map for both"
        )
        findings.error(f"{path}.label_map_path", text)
