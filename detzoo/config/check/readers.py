"""Rules of the input readers and ``eval_config``: label maps, records, masks, proposals, metrics, and their fit."""

from __future__ import annotations

import glob
import os
import pathlib
import re
from typing import NamedTuple

from detzoo.config import pb, stages
from detzoo.config.image_folders import IMAGE_SUFFIXES, class_folders, classes_without_images
from detzoo.config.label_map import read_label_map
from detzoo.config.names import suggestion
from detzoo.config.paths import is_remote, path_hint
from detzoo.config.problems import Findings, Severity, is_placeholder
from detzoo.errors import UsageError

MASK_METRICS = "coco_mask_metrics"
METRICS_SETS = (
    "coco_detection_metrics",
    MASK_METRICS,
    "pascal_voc_detection_metrics",
    "pascal_voc_2007_detection_metrics",
    "oid_V2_detection_metrics",
    "open_images_V2_detection_metrics",
    "open_images_metrics",
    "oid_challenge_detection_metrics",
)
_OTHER_METRICS = ("oid_", "open_images", "segmentation", "keypoint", "lvis", "weighted", "panoptic")
_NEEDS_MASKS = (
    "only faster_rcnn with number_of_stages: 3 and predict_instance_masks: true predicts, and center_net with "
    "mask_estimation_task or deepmac_mask_estimation"
)
_SHARDED_NAME = re.compile(r"^(?P<stem>.+)@(?P<shards>[0-9]{1,9})(?P<extension>\.[\w.]+)?$")
_MOST_PROBLEMS_OF_A_MAP = 5
# Augmentation -> its order of the keypoints afterwards.
PERMUTATIONS = {
    "random_horizontal_flip": "keypoint_flip_permutation",
    "random_vertical_flip": "keypoint_flip_permutation",
    "random_rotation90": "keypoint_rot_permutation",
}
# Fields of a reader that a classifier, which needs the class of an image only, does not read.
_NOT_FOR_CLASSIFIERS = ("load_instance_masks", "proposals_path", "sample_from_datasets_weights")


class _Classes(NamedTuple):
    """The classes of a reader."""

    source: str  # the label map, or the folder of folders
    names: dict[int, str]  # id -> name


def check_readers(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks the readers of a config, against its model and against each other."""
    model, kind = config.model, config.model.WhichOneof("model")
    has_classes = kind is not None and (kind != "faster_rcnn" or stages.has_second_stage(model.faster_rcnn))
    num_classes = getattr(getattr(model, kind), "num_classes", 0) if has_classes and kind else 0
    readers = [("train_input_reader", config.train_input_reader)] if config.HasField("train_input_reader") else []
    readers += [(f"eval_input_reader[{index}]", reader) for index, reader in enumerate(config.eval_input_reader)]
    first: tuple[str, _Classes] | None = None
    for path, reader in readers:
        here, is_training = findings.at(path), path == "train_input_reader"
        check_reader(reader, here, model_kind=kind)
        classes = _classes_of(reader, here) if findings.files else None
        if classes is not None:
            _check_class_count(classes, num_classes, f"model.{kind}.num_classes", here)
            if first is not None:
                _check_same_classes(first, classes, here)
            first = first or (path, classes)
        _check_proposals(reader, model, here)
        _check_masks(reader, config, is_training, here)
        _check_keypoints(reader, config, here)
        _check_context(reader, model, is_training, here)
        if is_training and reader.num_keypoints and config.model.center_net.keypoint_estimation_task:
            _check_permutations(config, findings)
        for name in _NOT_FOR_CLASSIFIERS if kind == "spp_classifier" else ():
            if getattr(reader, name):
                here.no_effect(name, "a classifier reads images and their classes alone")


def check_evaluation(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks ``eval_config``: metrics, their masks, and the batch size."""
    evaluation, findings = config.eval_config, findings.at("eval_config")
    kind = config.model.WhichOneof("model")
    has_no_masks = kind in ("ssd", "faster_rcnn", "center_net") and not stages.has_mask_head(config.model)
    box_metrics = ", ".join(name for name in METRICS_SETS if name != MASK_METRICS)
    for index, name in enumerate(evaluation.metrics_set):
        path = f"metrics_set[{index}]"
        if name not in METRICS_SETS:
            if any(fragment in name for fragment in _OTHER_METRICS):
                findings.error(path, "not-supported", f"'{name}' is not supported; accepted: {', '.join(METRICS_SETS)}")
            else:
                text = f"there is no metrics set '{name}'{suggestion(name, METRICS_SETS)}"
                findings.error(path, "unknown-metrics", text)
        elif name == MASK_METRICS and has_no_masks:
            text = f"'{name}' needs masks, which {_NEEDS_MASKS}; accepted: {box_metrics}"
            findings.error(path, "metrics-of-masks", text)
        if kind == "segmentation_proposals":
            findings.no_effect(path, "class-agnostic proposals are always measured by the recall of their masks")
    if evaluation.keypoint_edge and not config.model.center_net.keypoint_estimation_task:
        findings.no_effect("keypoint_edge", "the model predicts no keypoints")
    if evaluation.HasField("groundtruth_box_visualization_color"):
        _check_colour(evaluation.groundtruth_box_visualization_color, findings)
    if evaluation.eval_instance_masks and has_no_masks:
        findings.error("eval_instance_masks", "metrics-of-masks", f"is true, but {_NEEDS_MASKS}; accepted: false")
    if kind == "spp_classifier" and evaluation.metrics_set:
        findings.no_effect("metrics_set", "a classifier is measured by its top-1 and top-5 error")
    if kind == "spp_net" and evaluation.batch_size > 1:
        text = f"is {evaluation.batch_size}, but SPP-net resizes images itself, one at a time; accepted: 1"
        findings.error("batch_size", "one-image-per-batch", text)


def _check_colour(colour: str, findings: Findings) -> None:
    from PIL import ImageColor  # imported here because hardly any config names a colour

    try:
        ImageColor.getrgb(colour)
    except ValueError:
        hint = suggestion(colour, ImageColor.colormap)
        text = f"'{colour}' is neither the name of a colour in HTML nor #rrggbb{hint}"
        findings.error("groundtruth_box_visualization_color", "unknown-colour", text)


def check_reader(reader: pb.InputReader, findings: Findings, model_kind: str | None = None) -> None:
    """Checks one input reader by itself. ``model_kind``: the branch of ``model`` that it feeds, None if unknown."""
    is_sequence = reader.input_type == pb.TF_SEQUENCE_EXAMPLE
    for name in ("load_instance_masks", "num_keypoints", "proposals_path") if is_sequence else ():
        if getattr(reader, name):
            text = "is set, but images of sequences (input_type: TF_SEQUENCE_EXAMPLE) have boxes and classes only"
            findings.error(name, "not-in-sequences", f"{text}; write one tf.Example per image, or leave {name} out")
    if reader.HasField("frame_index") and not is_sequence:
        findings.no_effect("frame_index", "only sequences (input_type: TF_SEQUENCE_EXAMPLE) have several images")
    kind = reader.WhichOneof("input_reader")
    if reader.data_service:
        if not reader.data_service.startswith("grpc://"):
            text = f"is '{reader.data_service}', which is no address of a dispatcher such as grpc://host:5000"
            findings.error("data_service", "bad-address", text)
        refused = {
            "proposals_path": reader.proposals_path,
            "sample_from_datasets_weights": reader.sample_from_datasets_weights,
            "image_folder_reader": kind == "image_folder_reader",
            "input_type": is_sequence,
        }
        for name in filter(refused.get, refused):
            text = "is set, but a tf.data service reads tf.Examples of one source without regions; unset one of both"
            findings.error(name, "not-in-data-service", text)
    if kind is None:
        findings.error("", "no-records", "names no records; add tf_record_input_reader { input_path: '...' }")
    elif kind == "image_folder_reader":
        _check_image_folder(reader, model_kind, findings)
    elif kind == "tf_record_input_reader":
        patterns = list(reader.tf_record_input_reader.input_path)
        path, example = f"{kind}.input_path", "TFRecord file or a glob, such as data/train-?????-of-00010"
        if not patterns:
            findings.missing(path, f"give a {example}")
        weights = len(reader.sample_from_datasets_weights)
        if weights and weights != len(patterns):
            text = f"has {weights} values; accepted: none, or one for each of the {len(patterns)} input_path"
            findings.error("sample_from_datasets_weights", "list-length", text)
        for index, pattern in enumerate(patterns if findings.files else ()):
            findings.check_file(f"{path}[{index}]", pattern, f"your {example}", records_problem)


def _check_keypoints(reader: pb.InputReader, config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks that a detector of keypoints reads them."""
    learns = bool(config.model.center_net.keypoint_estimation_task)
    if reader.num_keypoints and not learns:
        findings.no_effect("num_keypoints", "only center_net with keypoint_estimation_task learns keypoints")
    elif learns and not reader.num_keypoints:
        text = (
            "is 0, but model.center_net learns keypoints; accepted: the number of keypoints of an object in the records"
        )
        findings.error("num_keypoints", "no-keypoints", text)


def _check_context(reader: pb.InputReader, model: pb.DetectionModel, is_training: bool, findings: Findings) -> None:
    """Checks that a model with a memory reads it."""
    context = stages.memory_of(model)
    if reader.load_context_features and context is None:
        text = "only faster_rcnn with context_config and use_long_term_attention reads a memory"
        findings.no_effect("load_context_features", text)
    elif context is not None and not reader.load_context_features:
        text = (
            "is false, but model.faster_rcnn.context_config attends to the memory of each record, which "
            "`detzoo dataset context` writes; accepted: true"
        )
        findings.error("load_context_features", "no-context", text)
    if reader.HasField("frame_index") and not is_training:
        findings.no_effect("frame_index", "evaluation reads all images of a sequence")


def _check_permutations(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks that mirrored and turned objects get the right numbers of their keypoints."""
    number = config.train_input_reader.num_keypoints
    for index, step in enumerate(config.train_config.data_augmentation_options):
        kind = step.WhichOneof("preprocessing_step")
        if kind not in PERMUTATIONS:
            continue
        permutation = list(getattr(getattr(step, kind), PERMUTATIONS[kind]))
        if sorted(permutation) != list(range(number)):
            received = f"has {len(permutation)} values" if permutation else "is missing"
            text = (
                f"{received}; accepted with num_keypoints {number}: each number of 0 to {number - 1} once, so that the "
                "left keypoints of a mirrored object are its right ones"
            )
            place = f"train_config.data_augmentation_options[{index}].{kind}.{PERMUTATIONS[kind]}"
            findings.error(place, "keypoint-permutation", text)


def _check_image_folder(reader: pb.InputReader, model_kind: str | None, findings: Findings) -> None:
    findings = findings.at("image_folder_reader")
    folder, give = reader.image_folder_reader.path, "the folder that has one folder of images for each class"
    if model_kind != "spp_classifier":
        text = "reads images without boxes, which only model.spp_classifier learns from; use tf_record_input_reader"
        findings.error("", "images-without-boxes", text)
    elif not folder:
        findings.missing("path", f"give {give}")
    elif findings.files:
        findings.check_file("path", folder, give, _folder_problem)
        empty = [] if is_placeholder(folder) or _folder_problem(folder) else classes_without_images(folder)
        if empty:
            names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
            findings.warning("path", "class-without-images", f"{len(empty)} classes have no image: {names}")


def _folder_problem(folder: str) -> str:
    """Returns why a folder has no images with classes, "" if it has some."""
    if not os.path.isdir(folder):
        return f"there is no folder '{folder}'{path_hint(folder)}"
    if not class_folders(folder):
        return f"'{folder}' has no folders in it; put the images of each class into one, as in {folder}/dog/1.jpg"
    if len(classes_without_images(folder)) == len(class_folders(folder)):
        return f"no folder in '{folder}' has images ({', '.join(IMAGE_SUFFIXES)})"
    return ""


def records_problem(pattern: str) -> str:
    """Returns why one ``input_path`` has no records, "" if it has some or is on another file system (gs://...)."""
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


def _check_proposals(reader: pb.InputReader, model: pb.DetectionModel, findings: Findings) -> None:
    name = reader.proposals_path
    if not stages.reads_proposals(model):
        if name:
            text = "only spp_net, and faster_rcnn with proposals_from_reader: true, read regions from a file"
            findings.no_effect("proposals_path", text)
    elif not name:
        why = "spp_net classifies given windows" if model.HasField("spp_net") else "proposals_from_reader is true"
        text = (
            f"but {why}; give the proposals.npz that `detzoo proposals` writes (or `detzoo evaluate` for "
            "number_of_stages: 1), or a JSON list in COCO's results format"
        )
        findings.error("proposals_path", "missing", f"is missing, {text}")
    elif findings.files:
        findings.check_file("proposals_path", name, "the file of your regions", _file_problem)


def _file_problem(name: str) -> str:
    return "" if is_remote(name) or os.path.isfile(name) else f"there is no file '{name}'{path_hint(name)}"


def _check_masks(
    reader: pb.InputReader, config: pb.TrainEvalPipelineConfig, is_training: bool, findings: Findings
) -> None:
    """Checks that a model of masks reads masks: for training, and for evaluation if the metrics are of masks."""
    if reader.load_instance_masks:
        return
    if config.model.HasField("segmentation_proposals"):
        use = "trained on" if is_training else "measured by"
        text = f"is false, but segmentation proposals are {use} the records' masks; accepted: true"
        findings.error("load_instance_masks", "masks-not-read", text)
    elif stages.has_mask_head(config.model):
        has_metrics = MASK_METRICS in config.eval_config.metrics_set or config.eval_config.eval_instance_masks
        why = "the mask head is trained on them" if is_training else f"eval_config asks for {MASK_METRICS}"
        if is_training or has_metrics:
            text = f"is false, but the records' masks are needed ({why}); accepted: true"
            findings.error("load_instance_masks", "masks-not-read", text)


def _classes_of(reader: pb.InputReader, findings: Findings) -> _Classes | None:
    """Returns the classes of the label map or of the folders; None if they have problems, which are added."""
    if not reader.HasField("image_folder_reader"):
        return _read_classes(reader.label_map_path, findings)
    folder = reader.image_folder_reader.path
    folders = [entry.name for entry in class_folders(folder)]
    if not reader.label_map_path:
        return _Classes(folder, dict(enumerate(folders, start=1))) if folders else None
    classes = _read_classes(reader.label_map_path, findings)
    if classes is not None and (unknown := sorted(set(folders) - set(classes.names.values()))):
        known = ", ".join(sorted(classes.names.values())[:5])
        text = f"has {len(unknown)} folders that the label map does not name, such as '{unknown[0]}'; it names {known}"
        findings.error("image_folder_reader.path", "folder-without-class", text)
    return classes


def _read_classes(label_map_path: str, findings: Findings) -> _Classes | None:
    """Returns the classes of a label map; None if it has problems, which are added."""
    path = "label_map_path"
    if not label_map_path:
        findings.missing(path, "give the label map that names the classes of the records")
        return None
    if is_placeholder(label_map_path):
        findings.to_set(path, "your label map, which names the classes of the records")
        return None
    if is_remote(label_map_path):
        return None
    try:
        parsed, problems = read_label_map(label_map_path)
    except UsageError as unreadable:
        findings.error(path, "no-file", str(unreadable))
        return None
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    for problem in errors[:_MOST_PROBLEMS_OF_A_MAP]:
        where = f"{label_map_path}:{problem.line}: " if problem.line else f"{label_map_path}: "
        text = where + (f"{problem.path}: " if problem.path else "") + problem.message
        findings.error(path, "label-map", text)
    if len(errors) > _MOST_PROBLEMS_OF_A_MAP:
        text = f"{label_map_path} has {len(errors) - _MOST_PROBLEMS_OF_A_MAP} more problems"
        findings.error(path, "label-map", text)
    if errors:
        return None
    names = {item.id: item.name or item.display_name for item in parsed.message.item if item.id > 0}
    return _Classes(label_map_path, names)


def _check_class_count(classes: _Classes, num_classes: int, field: str, findings: Findings) -> None:
    highest = max(classes.names)
    if num_classes and highest > num_classes:
        text = (
            f"{classes.source} goes up to id {highest} ('{classes.names[highest]}'), but num_classes is {num_classes}; "
            f"set {field}: {highest}"
        )
        findings.error("label_map_path", "class-count", text, ["num_classes"])
    elif highest < num_classes:
        text = (
            f"{classes.source} ends at id {highest}, but num_classes is {num_classes}: the classes from {highest + 1} "
            f"on have no name and no examples; set {field}: {highest}, or add them to the map"
        )
        findings.warning("label_map_path", "class-count", text, ["num_classes"])


def _check_same_classes(first: tuple[str, _Classes], classes: _Classes, findings: Findings) -> None:
    """Checks that an id means the same class in two readers."""
    other_path, other = first
    for identifier, name in sorted(classes.names.items()):
        if other.names.get(identifier) != name:
            text = (
                f"id {identifier} is '{name}', but '{other.names.get(identifier, 'nothing')}' in the label map of "
                f"{other_path}; use one map for both"
            )
            findings.error("label_map_path", "other-classes", text)
            return
