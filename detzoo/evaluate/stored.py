"""Reads the files of ``write_results``: ground truth and detections of every image (from files to metrics).

Finished evaluations can be merged, measured again or explained without running a model. The files do not contain
verified classes, so the metrics of the Open Images Challenge cannot be computed from them.
"""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.config.names import listed
from detzoo.errors import DataError, UsageError
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.report import DETECTIONS_FILE, GROUNDTRUTH_FILE


class StoredEvaluation(NamedTuple):
    """Evaluation read from files."""

    folder: pathlib.Path
    images: list[EvaluatedImage]
    class_names: dict[int, str]
    has_masks: bool  # of both ground truth and detections


def read_evaluation(folder: str | pathlib.Path) -> StoredEvaluation:
    """Reads groundtruth.json and detections.json of a folder.

    Raises:
        UsageError: A file is missing.
        DataError: A file is not in the format of ``detzoo evaluate``.
    """
    folder = pathlib.Path(folder)
    truth, entries = read_json(folder / GROUNDTRUTH_FILE), read_json(folder / DETECTIONS_FILE)
    try:
        annotations, detections = _by_image(truth["annotations"]), _by_image(entries)
        class_names = {int(category["id"]): str(category["name"]) for category in truth["categories"]}
        has_masks = all("segmentation" in entry for entry in (*truth["annotations"], *entries))
        has_masks = has_masks and bool(truth["annotations"])
        images = [
            _image(entry, annotations.pop(entry["id"], []), detections.pop(entry["id"], []), has_masks)
            for entry in truth["images"]
        ]
    except (KeyError, TypeError, ValueError) as problem:
        raise DataError(
            f"{folder}: {GROUNDTRUTH_FILE} and {DETECTIONS_FILE} are not in the formats that `detzoo evaluate` writes "
            f"(COCO's annotations and COCO's results): {type(problem).__name__} {problem}"
        ) from None
    unknown = [*annotations, *detections]
    if unknown:
        raise DataError(
            f"{folder / (GROUNDTRUTH_FILE if annotations else DETECTIONS_FILE)}: image_id {_listed(unknown)} is no "
            f"image of {GROUNDTRUTH_FILE}; the two files are not of one evaluation"
        )
    return StoredEvaluation(folder, images, class_names, has_masks)


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file of an evaluation; raises a UsageError if it is missing, a DataError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}; `detzoo evaluate` writes it into its --output_dir") from None
    except ValueError as problem:
        raise DataError(f"{path} is not JSON, or was cut short: {problem}") from None


def with_same_truth(evaluations: Sequence[StoredEvaluation]) -> list[StoredEvaluation]:
    """Returns the evaluations with the images in the order of the first.

    Raises:
        DataError: The evaluations differ in classes, images or objects.
    """
    first = evaluations[0]
    aligned = [first]
    for other in evaluations[1:]:
        _check_classes(first, other)
        by_key = dict(zip(_keys(other), other.images))
        keys = _keys(first)
        _check_images(first.folder, other.folder, keys, list(by_key))
        images = [by_key[key] for key in keys]
        for one, same in zip(first.images, images):
            _check_objects(first.folder, other.folder, one, same)
        aligned.append(other._replace(images=images))
    return aligned


def _by_image(entries: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    grouped: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        grouped[entry["image_id"]].append(entry)
    return grouped


def _image(entry: Any, annotations: Sequence[Any], detections: Sequence[Any], has_masks: bool) -> EvaluatedImage:
    return EvaluatedImage(
        image_id=entry["file_name"],
        shape=(int(entry["height"]), int(entry["width"])),
        gt_boxes_px=_boxes(annotations),
        gt_classes=_classes(annotations),
        gt_is_crowd=np.array([bool(each["iscrowd"]) for each in annotations], bool),
        gt_is_difficult=np.array([bool(each.get("difficult")) for each in annotations], bool),
        gt_area_px=np.array([each["area"] for each in annotations], np.float32),
        boxes_px=_boxes(detections),
        scores=np.array([each["score"] for each in detections], np.float32),
        classes=_classes(detections),
        gt_masks=[each["segmentation"] for each in annotations] if has_masks else None,
        masks=[each["segmentation"] for each in detections] if has_masks else None,
    )


def _boxes(entries: Sequence[Any]) -> np.ndarray:
    """Converts COCO's [x, y, width, height] to [ymin, xmin, ymax, xmax], [N, 4]."""
    x, y, width, height = np.array([each["bbox"] for each in entries], np.float64).reshape(-1, 4).T
    return np.stack([y, x, y + height, x + width], axis=1).astype(np.float32)


def _classes(entries: Sequence[Any]) -> np.ndarray:
    return np.array([each["category_id"] for each in entries], np.int32) - 1


def _keys(evaluation: StoredEvaluation) -> list[Any]:
    """Returns distinct keys of the images: ids, or positions if ids are not distinct."""
    ids = [image.image_id for image in evaluation.images]
    return ids if len(set(ids)) == len(ids) else list(range(len(ids)))


def _check_classes(first: StoredEvaluation, other: StoredEvaluation) -> None:
    if first.class_names == other.class_names:
        return
    differing = sorted(set(first.class_names.items()) ^ set(other.class_names.items()))
    shown = _listed([f"{class_id} '{name}'" for class_id, name in differing])
    raise DataError(
        f"{first.folder} and {other.folder} were measured with different label maps: {shown} is in one of them only"
    )


def _check_images(first: pathlib.Path, other: pathlib.Path, keys: list[Any], other_keys: list[Any]) -> None:
    missing = [key for key in keys if key not in set(other_keys)]
    extra = [key for key in other_keys if key not in set(keys)]
    if missing:
        raise DataError(
            f"{other / GROUNDTRUTH_FILE}: {len(missing)} of the {len(keys)} images of {first} are missing: "
            f"{_listed(missing)}; measure both on the same images"
        )
    if extra:
        raise DataError(
            f"{first / GROUNDTRUTH_FILE}: {len(extra)} of the {len(other_keys)} images of {other} are missing: "
            f"{_listed(extra)}; measure both on the same images"
        )


def _check_objects(first: pathlib.Path, other: pathlib.Path, one: EvaluatedImage, same: EvaluatedImage) -> None:
    is_same = (
        one.shape == same.shape
        and np.array_equal(one.gt_classes, same.gt_classes)
        and np.array_equal(one.gt_is_crowd, same.gt_is_crowd)
        # Boxes of models with different input sizes are rounded differently.
        and np.allclose(one.gt_boxes_px, same.gt_boxes_px, rtol=0.0, atol=0.01 * max(one.shape))
    )
    if not is_same:
        raise DataError(
            f"{first} and {other} differ in the size or the objects of image '{one.image_id}'; measure both on the "
            "same records"
        )


def _listed(items: Sequence[Any]) -> str:
    return listed([str(item) for item in items], 5)
