"""Writes the files of an evaluation: metrics, detections, and report.html with the worst images drawn.

An evaluation of proposals or of a classifier has no report.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from detzoo.errors import DataError, UsageError
from detzoo.folders import METRICS_FILE, PAGE_FILE, write_atomically

if TYPE_CHECKING:
    import numpy as np

    from detzoo.evaluate.analysis.difference import Measured
    from detzoo.evaluate.analysis.page import DrawnImage
    from detzoo.evaluate.analysis.summary import Analysis, JudgedImage
    from detzoo.evaluate.classification import ClassificationResult
    from detzoo.evaluate.runner import EvaluationResult
    from detzoo.pages.render import Picture

    # Ids of images -> those that are available, uint8 [H, W, 3] each.
    Pixels = Callable[[Sequence[str]], dict[str, np.ndarray]]

LONGER_SIDE_PX = 560  # of a drawn image
MOST_DRAWN = 60  # detections of an image
NO_REPORT = "an evaluation of proposals or of a classifier has no report"

logger = logging.getLogger(__name__)


class Finished(NamedTuple):
    """A finished evaluation, read from its folder."""

    folder: pathlib.Path
    result: EvaluationResult
    facts: dict[str, Any]  # entries of metrics.json that are no metrics, such as the checkpoint


def read_finished(folder: str | pathlib.Path) -> Finished:
    """Reads a finished evaluation; without a metrics.json its detections are measured again.

    Raises:
        UsageError: A file is missing, or it is an evaluation of proposals.
        DataError: A file is not in the format of ``detzoo evaluate``.
    """
    from detzoo.evaluate.report import describe
    from detzoo.evaluate.runner import COCO_METRICS, MASK_METRICS, EvaluationResult, measure
    from detzoo.evaluate.stored import read_evaluation, read_json

    folder = pathlib.Path(folder)
    stored = read_evaluation(folder)
    if not (folder / METRICS_FILE).is_file():
        sets = [COCO_METRICS, *([MASK_METRICS] if stored.has_masks else [])]
        metrics, per_class = measure(stored.images, stored.class_names, sets)
        return Finished(folder, EvaluationResult(metrics, per_class, stored.images, stored.class_names, 0.0), {})
    entries = read_json(folder / METRICS_FILE)
    if not isinstance(entries, dict) or not isinstance(entries.get("per_class"), dict):
        raise DataError(f"{folder / METRICS_FILE} is not the metrics.json of `detzoo evaluate`: it has no per_class")
    per_class = entries.pop("per_class")
    if not per_class:
        raise UsageError(f"{folder}: {NO_REPORT}")
    metrics = {name: value for name, value in entries.items() if describe(name)}
    facts = {name: value for name, value in entries.items() if name not in metrics}
    result = EvaluationResult(metrics, per_class, stored.images, stored.class_names, facts.pop("seconds", 0.0))
    return Finished(folder, result, facts)


def write_evaluation(
    result: EvaluationResult | ClassificationResult,
    folder: str | pathlib.Path,
    facts: Mapping[str, Any],
    *,
    pixels: Pixels | None = None,
    compare_with: Finished | None = None,
) -> pathlib.Path | None:
    """Writes metrics.json, detections.json and groundtruth.json, then report.html.

    Args:
        result: The evaluation.
        folder: Folder for the files.
        facts: Further entries of metrics.json, such as the checkpoint and the versions.
        pixels: Source of the images to draw; None draws none.
        compare_with: Another evaluation on the same images.

    Returns:
        The path of report.html; None for an evaluation of proposals or of a classifier.

    Raises:
        DataError: The other evaluation has other images. All files have been written, the report without it.
        UsageError: There is another evaluation, but no report. All files have been written.
    """
    from detzoo.evaluate.classification import ClassificationResult
    from detzoo.evaluate.report import write_results

    folder = pathlib.Path(folder)
    (folder / PAGE_FILE).unlink(missing_ok=True)  # that of an earlier evaluation
    write_results(result, folder, facts)  # first, so that an interruption of what follows loses nothing
    if isinstance(result, ClassificationResult) or result.proposes_only:
        if compare_with is not None:
            raise UsageError(f"--compare_with: {NO_REPORT}")
        return None
    analysis = analyze_result(result)
    metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    write_atomically(folder / METRICS_FILE, json.dumps({**metrics, **analysis.best_thresholds}, indent=2) + "\n")
    return write_report(result, analysis, folder, facts, pixels=pixels, compare_with=compare_with)


def write_report_of(
    finished: Finished,
    output_dir: str | pathlib.Path,
    *,
    pixels: Pixels | None = None,
    compare_with: Finished | None = None,
) -> pathlib.Path:
    """Writes report.html of a finished evaluation, and its metrics.json with the best score thresholds.

    See ``write_evaluation`` for the arguments, and for an evaluation on other images.
    """
    result, folder = finished.result, pathlib.Path(output_dir)
    analysis = analyze_result(result)
    entries = {**result.metrics, "per_class": result.per_class, "num_images": len(result.images)}
    entries |= {"seconds": result.seconds, **finished.facts, **analysis.best_thresholds}
    write_atomically(folder / METRICS_FILE, json.dumps(entries, indent=2) + "\n")
    facts = {"evaluation": str(finished.folder), **finished.facts}
    return write_report(result, analysis, folder, facts, pixels=pixels, compare_with=compare_with)


def analyze_result(result: EvaluationResult) -> Analysis:
    """Explains detections: by masks if these are measured, without difficult objects for Pascal VOC's metrics alone."""
    from detzoo.evaluate.analysis.summary import analyze
    from detzoo.evaluate.coco import MASK_METRIC_NAMES, METRIC_NAMES

    logger.info("finding the errors on %d images", len(result.images))
    has_masks = all(image.masks is not None and image.gt_masks is not None for image in result.images)
    return analyze(
        result.images,
        result.class_names,
        by_masks=has_masks and MASK_METRIC_NAMES[0] in result.metrics,
        ignore_difficult=METRIC_NAMES[0] not in result.metrics
        and any(name.startswith("VOC") for name in result.metrics),
    )


def write_report(
    result: EvaluationResult,
    analysis: Analysis,
    folder: str | pathlib.Path,
    facts: Mapping[str, Any],
    *,
    pixels: Pixels | None = None,
    compare_with: Finished | None = None,
) -> pathlib.Path:
    """Writes report.html and returns its path; see ``write_evaluation``."""
    from detzoo.evaluate.analysis.difference import Measured, compare
    from detzoo.evaluate.analysis.page import write_page
    from detzoo.evaluate.report import describe
    from detzoo.evaluate.stored import StoredEvaluation, with_same_truth

    page = pathlib.Path(folder) / PAGE_FILE
    measured = Measured(_title(facts), result, analysis)
    compared, problem = None, None
    if compare_with is not None:
        other = compare_with.result
        both = [
            StoredEvaluation(page.parent, result.images, result.class_names, False),
            StoredEvaluation(compare_with.folder, other.images, other.class_names, False),
        ]
        try:
            with_same_truth(both)
        except DataError as error:
            problem = error
        else:
            before = Measured(str(compare_with.folder), other, analyze_result(other))
            compared = before, compare(before, measured)
    worst, missing_pictures = _draw_worst(measured, pixels)
    write_page(
        page,
        measured,
        descriptions={name: describe(name) for name in result.metrics},
        environment=_environment(facts, result, analysis),
        notices=[f"Not compared: {problem}"] if problem else [],
        worst=worst,
        missing_pictures=missing_pictures,
        compared=compared,
    )
    if problem is not None:
        raise problem
    return page


def _title(facts: Mapping[str, Any]) -> str:
    """Returns a short name of what was evaluated."""
    model = next((str(facts[name]) for name in ("saved_model", "checkpoint", "evaluation") if facts.get(name)), "")
    parts = [part for part in pathlib.PurePath(model).parts if part not in ("/", "..", ".")]
    name = "/".join(parts[-2:]) or "ensemble"
    return f"{name}, step {facts['step']}" if facts.get("step") else name


def _environment(facts: Mapping[str, Any], result: EvaluationResult, analysis: Analysis) -> list[tuple[str, Any]]:
    """Returns (name, value) of what was evaluated."""
    versions = facts.get("versions") or {}
    values = {
        "checkpoint": facts.get("checkpoint"),
        "exported model": facts.get("saved_model"),
        "evaluation": facts.get("evaluation"),
        "step": facts.get("step"),
        "images": f"{analysis.num_images:,}",
        "objects": f"{analysis.num_objects:,}",
        "detections": f"{analysis.num_detections:,}",
        "overlaps": "of masks" if analysis.by_masks else "of boxes",
        "seconds": f"{result.seconds:.1f}" if result.seconds else None,
        "detzoo": versions.get("detzoo"),
        "TensorFlow": versions.get("tensorflow"),
        "commit": str(facts.get("commit") or "")[:12],
    }
    return [(name, value) for name, value in values.items() if value]


def pixels_of_reader(reader: Any) -> Pixels:
    """Returns a source of the images of an ``InputReader``; it decodes those that are asked for, and no others."""

    def find(image_ids: Sequence[str]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        from detzoo.builders.inputs import build_source
        from detzoo.datasets.record_check import UnusableRecord, image_of, parse_features
        from detzoo.files.images import UnusableImage

        rule = {"image/source_id": tf.io.FixedLenFeature([], tf.string, "")}

        def named(index: Any, serialized: Any) -> tuple[Any, Any]:
            found = tf.io.parse_single_example(serialized, rule)["image/source_id"]
            return tf.where(found == "", tf.strings.as_string(index), found), serialized

        records = build_source(reader).stream(num_epochs=1).map(named).ignore_errors()
        wanted = tf.constant(list(image_ids))
        images: dict[str, np.ndarray] = {}
        for name, serialized in records.filter(lambda name, _: tf.reduce_any(name == wanted)).as_numpy_iterator():
            try:
                images.setdefault(name.decode("utf-8", "replace"), image_of(parse_features(serialized)))
            except (UnusableRecord, UnusableImage):
                continue
            if len(images) == len(set(image_ids)):
                break
        return images

    return find


def _draw_worst(measured: Measured, pixels: Pixels | None) -> tuple[list[DrawnImage], str]:
    """Draws the worst images; returns them, and the reason for missing pictures ("" if none is missing)."""
    from detzoo.evaluate.analysis.page import DrawnImage

    worst, names = measured.analysis.worst, measured.result.class_names
    logger.info("drawing the worst images")
    found = pixels([judged.image.image_id for judged in worst]) if pixels and worst else {}
    drawn = []
    for judged in worst:
        image = found.get(judged.image.image_id)
        if image is None or image.shape[:2] != judged.image.shape:
            drawn.append(DrawnImage(judged, None, None))
        else:
            drawn.append(DrawnImage(judged, *_draw(judged, image, names)))
    if pixels is None:
        return drawn, "The images are not drawn, because no config names their records."
    num_missing = sum(each.truth is None for each in drawn)
    return drawn, f"{num_missing} images are not drawn: the records have no such image_id." if num_missing else ""


def _draw(judged: JudgedImage, image: np.ndarray, names: Mapping[int, str]) -> tuple[Picture, Picture]:
    """Draws the truth and the detections of an image, coloured by verdict."""
    import numpy as np
    from PIL import Image

    from detzoo.datasets.drawing import draw_detections
    from detzoo.evaluate.analysis.errors import ErrorKind
    from detzoo.evaluate.analysis.page import colour_of
    from detzoo.pages.render import encode_picture

    evaluated = judged.image
    small = Image.fromarray(image)
    small.thumbnail((LONGER_SIDE_PX, LONGER_SIDE_PX))
    canvas = np.asarray(small)
    sides = np.tile(evaluated.shape, 2)

    def draw(boxes: np.ndarray, classes: np.ndarray, kinds: Sequence[int], masks: Any, scores: Any = None) -> Picture:
        labels = [names.get(int(each) + 1, str(int(each) + 1)) for each in classes]
        shown = None if masks is None else [_small_mask(mask, small.size) for mask in masks]
        colours = [colour_of(ErrorKind(kind)) for kind in kinds]
        return encode_picture(draw_detections(canvas, boxes / sides, labels, scores, shown, colours=colours))

    kinds = np.where(judged.gt_is_found, ErrorKind.RIGHT, ErrorKind.MISSED)
    kinds = np.where(evaluated.gt_is_crowd, ErrorKind.IGNORED, kinds)
    truth = draw(evaluated.gt_boxes_px, evaluated.gt_classes, kinds.tolist(), evaluated.gt_masks)
    rows = judged.rows[:MOST_DRAWN]
    masks = None if evaluated.masks is None else [evaluated.masks[row] for row in rows]
    scores = evaluated.scores[rows]
    found = draw(evaluated.boxes_px[rows], evaluated.classes[rows], judged.kinds.tolist()[:MOST_DRAWN], masks, scores)
    return truth, found


def _small_mask(rle: Any, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask at the size (width, height) of a drawn image, bool [H, W]."""
    import numpy as np
    from PIL import Image
    from pycocotools.mask import decode

    return np.asarray(Image.fromarray(decode(rle)).resize(size, Image.Resampling.NEAREST)) > 0
