"""Measures a checkpoint or an exported model on the evaluation data of a config.

from detzoo.tasks.evaluate import evaluate

evaluation = evaluate("model/pipeline.config", checkpoint_dir="model", output_dir="evaluation")
evaluation.metrics["mAP"]
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from detzoo.config.label_map import load_keypoints, load_label_map
from detzoo.config.stages import has_second_stage, knows_classes
from detzoo.errors import CheckpointError, ConfigError, UsageError
from detzoo.folders import make_folder
from detzoo.progress import is_live
from detzoo.provenance import commit, versions
from detzoo.tasks import batch_norm
from detzoo.tasks.combination import check_combination, combined
from detzoo.tasks.evaluation_report import (
    Finished,
    analyze_result,
    pixels_of_reader,
    read_finished,
    write_evaluation,
    write_report_of,
)
from detzoo.tasks.models import (
    EVAL_READER,
    TRAIN_READER,
    Checkpoint,
    Pipeline,
    Tiling,
    build_test_dataset,
    build_untrained,
    export_record,
    load_checked,
    load_exported,
    restored,
    start_tensorflow,
    tiled,
    tiling_of,
    usual_batch_size,
)

if TYPE_CHECKING:
    from detzoo.evaluate.classification import ClassificationResult
    from detzoo.evaluate.runner import EvaluationResult
    from detzoo.serving.image_detector import ImageDetector

NUM_COCO_KEYPOINTS = 17  # pycocotools has the tolerances of COCO's persons

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of measuring one model."""

    model: str  # checkpoint or exported model, as the caller named it
    step: int | None  # training step of a checkpoint, 0 if it is unknown; None for an exported model
    result: EvaluationResult | ClassificationResult  # metrics, also by class, and the detections of every image
    # Path of report.html; None if no files were written, or for proposals and classifiers.
    report: pathlib.Path | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Value of each metric by its name, -1 if there was nothing to measure."""
        return self.result.metrics

    @functools.cached_property
    def best_score_threshold(self) -> float | None:
        """Score threshold with the best F1 at IoU .5; None if no detection is right, or there are no classes."""
        from detzoo.evaluate.classification import ClassificationResult

        if isinstance(self.result, ClassificationResult) or self.result.proposes_only:
            return None
        return analyze_result(self.result).curves.best_threshold


def evaluate(
    pipeline: Pipeline,
    *,
    checkpoint_dir: Checkpoint | None = None,
    saved_model: str | pathlib.Path | ImageDetector | None = None,
    output_dir: str | pathlib.Path | None = None,
    overrides: Sequence[str] = (),
    recompute_batch_norm: int | None = None,
    combine_with: Sequence[str] = (),
    on_train_data: bool = False,
    compare_with: str | pathlib.Path | None = None,
    tile: int | None = None,
    tile_overlap: float | None = None,
    record_summaries: bool = True,
) -> Evaluation:
    """Measures a checkpoint or an exported model.

    Args:
        pipeline: See ``detzoo.tasks``.
        checkpoint_dir: See ``detzoo.tasks``; or a detector in memory.
        saved_model: Instead of a checkpoint: a SavedModel or a .tflite file that was exported, or a loaded one.
        output_dir: Folder of metrics.json, detections.json, groundtruth.json, report.html and TensorBoard's events;
            None to write nothing.
        overrides: See ``detzoo.tasks``.
        recompute_batch_norm: Number of training batches from which the moving statistics of batch normalization are
            computed; None for the statistics of the checkpoint.
        combine_with: Folders of further SPP-nets, whose scored windows are joined to those of this one.
        on_train_data: Measure on the train_input_reader instead of the first eval_input_reader.
        compare_with: Folder of another evaluation on the same images; the report shows the difference.
        tile: Side in pixels of the tiles in which the model gets large images, at their original size; None for whole
            images.
        tile_overlap: Least overlap of neighbouring tiles, as a share of their side; None for 0.2.
        record_summaries: Write TensorBoard's events: metrics, pictures, precision-recall curves.

    Raises:
        DataError: The other evaluation has other images. All files have been written.
    """
    if (not checkpoint_dir) == (not saved_model):
        raise UsageError("give either --checkpoint_dir or --saved_model")
    if saved_model and recompute_batch_norm:
        raise UsageError(
            f"--{batch_norm.FLAG} needs a checkpoint: statistics of an exported model are part of its weights"
        )
    tiling = tiling_of(tile, tile_overlap)
    if tiling and combine_with:
        raise UsageError("--tile does not go with --combine_with, whose models classify given regions")
    message = _load(pipeline, overrides, on_train_data, recompute_batch_norm)
    if saved_model or tiling:
        _check_exported(message, "--saved_model" if saved_model else "--tile")
    check_combination(message.model, combine_with)
    if compare_with and output_dir is None:
        raise UsageError("--compare_with needs --output_dir, where to write the report")
    if output_dir is not None:
        make_folder(output_dir, "--output_dir")
    start_tensorflow()
    other = read_finished(compare_with) if compare_with else None
    draws = record_summaries and output_dir is not None
    if saved_model:
        exported = load_exported(saved_model, message.model)
        result = measure_exported(message, exported, tiling, draws)
        path = pathlib.Path(getattr(exported, "folder", ""))
        name = str(saved_model) if isinstance(saved_model, str | pathlib.Path) else str(path)
        facts = {"saved_model": name, **_tiles(tiling)}
        if weights := export_record(path).get("weights"):
            facts["weights"] = weights
        return _write(Evaluation(name, None, result), output_dir, facts, message, other, draws)
    averages = message.eval_config.use_moving_averages
    detector, step = restored(message.model, checkpoint_dir or "", "--checkpoint_dir", averages)
    more: dict[str, Any] = {"combine_with": combine_with, "compare_with": other, "tiling": tiling, "draws": draws}
    return _measure(detector, step, str(checkpoint_dir), message, output_dir, recompute_batch_norm, **more)


def report_stored(
    folder: str | pathlib.Path,
    output_dir: str | pathlib.Path | None = None,
    *,
    pipeline: Pipeline | None = None,
    overrides: Sequence[str] = (),
    compare_with: str | pathlib.Path | None = None,
) -> Evaluation:
    """Writes the report of a finished evaluation without running a model.

    Args:
        folder: Folder with detections.json and groundtruth.json.
        output_dir: Folder of report.html and metrics.json; None for the same folder.
        pipeline: Config whose first eval_input_reader has the images, so that the worst are drawn; None draws none.
        overrides: See ``detzoo.tasks``.
        compare_with: Folder of another evaluation on the same images; the report shows the difference.

    Raises:
        UsageError: A file is missing, or the evaluation is one of proposals.
        DataError: A file is not in the format of ``detzoo evaluate``, or the other evaluation has other images.
    """
    reader = None if pipeline is None else _load(pipeline, overrides, False, None).eval_input_reader[0]
    start_tensorflow()
    finished, other = read_finished(folder), read_finished(compare_with) if compare_with else None
    target = make_folder(output_dir or folder, "--output_dir")
    pixels = None if reader is None else pixels_of_reader(reader)
    page = write_report_of(finished, target, pixels=pixels, compare_with=other)
    return Evaluation(str(folder), finished.facts.get("step"), finished.result, page)


def evaluate_new_checkpoints(
    pipeline: Pipeline,
    checkpoint_dir: str | pathlib.Path,
    output_dir: str | pathlib.Path,
    *,
    overrides: Sequence[str] = (),
    recompute_batch_norm: int | None = None,
    on_train_data: bool = False,
    tile: int | None = None,
    tile_overlap: float | None = None,
    timeout_seconds: float = 3600.0,
    record_summaries: bool = True,
) -> Iterator[Evaluation]:
    """Measures each checkpoint that a running training writes, until the training is finished.

    Each result replaces the files of the one before, and adds to TensorBoard's events. A checkpoint that cannot be
    restored, because the training has removed it meanwhile, is skipped with a warning. Ends after ``timeout_seconds``
    without a new checkpoint; the other arguments are those of ``evaluate``.

    Raises:
        CheckpointError: No checkpoint could be evaluated.
    """
    from detzoo.checkpoints import restore_for_inference
    from detzoo.checkpoints.files import latest_prefix
    from detzoo.evaluate.watch import new_checkpoints

    tiling = tiling_of(tile, tile_overlap)
    message = _load(pipeline, overrides, on_train_data, recompute_batch_norm)
    if tiling:
        _check_exported(message, "--tile")
    folder = make_folder(output_dir, "--output_dir")
    start_tensorflow()
    detector, evaluator = build_untrained(message.model), make_evaluator(message, record_summaries)
    num_measured = 0
    for prefix in new_checkpoints(
        lambda: latest_prefix(checkpoint_dir),
        timeout_seconds,
        is_finished=lambda: (pathlib.Path(checkpoint_dir) / "finished").is_file(),
    ):
        try:
            step = restore_for_inference(detector, prefix, tf1_averages=message.eval_config.use_moving_averages)
            more = {"evaluator": evaluator, "tiling": tiling, "draws": record_summaries}
            evaluation = _measure(detector, step, prefix, message, folder, recompute_batch_norm, **more)
        except CheckpointError as problem:
            logger.warning("%s", problem)
            continue
        num_measured += 1
        yield evaluation
    if not num_measured:
        raise CheckpointError(f"no checkpoint came to {checkpoint_dir} that could be evaluated")


def measure_checkpoint(message: Any, checkpoint: str | pathlib.Path) -> EvaluationResult | ClassificationResult:
    """Measures a checkpoint with a checked ``TrainEvalPipelineConfig``; TensorFlow is started."""
    detector, _ = restored(message.model, checkpoint, tf1_averages=message.eval_config.use_moving_averages)
    return make_evaluator(message).evaluate(detector)


def measure_exported(
    message: Any, detect: ImageDetector, tiling: Tiling | None = None, draws: bool = False
) -> EvaluationResult:
    """Measures a detector that takes images of any size on the first eval_input_reader of a config.

    Args:
        message: The ``TrainEvalPipelineConfig``; its image resizer is ignored.
        detect: An ``ImageDetector``.
        tiling: Tiles in which it gets large images; None for whole images.
        draws: Make pictures of the first images.
    """
    from detzoo.serving.one_by_one import OneByOne

    raw = copy.deepcopy(message)
    chosen = getattr(raw.model, raw.model.WhichOneof("model"))
    if "image_resizer" in chosen.DESCRIPTOR.fields_by_name:  # other models take images as they are
        chosen.image_resizer.identity_resizer.SetInParent()
    raw.eval_config.batch_size = 1
    detect = tiled(detect, tiling, usual_batch_size(message.model))
    return make_evaluator(raw, draws).evaluate(OneByOne(detect, not knows_classes(message.model)))


def make_evaluator(message: Any, draws: bool = False, share: Any = None) -> Any:
    """Returns the Evaluator of a config's first eval_input_reader and its eval_config.

    ``draws`` makes pictures; ``share`` is the ``tf.distribute.InputContext`` of a part of the records, None for all.
    """
    from detzoo.builders.classification_inputs import class_label_map
    from detzoo.builders.pictures import PairDrawer
    from detzoo.evaluate.classification import ClassifierEvaluator
    from detzoo.evaluate.runner import Evaluator, asked_metrics, reads_image_labels

    reader, metrics = message.eval_input_reader[0], asked_metrics(message.eval_config)
    if len(message.eval_input_reader) > 1:
        logger.warning("the config has %d eval_input_readers; the first is used", len(message.eval_input_reader))
    image_labels, all_proposals = reads_image_labels(metrics), message.model.HasField("spp_net")
    dataset = build_test_dataset(
        message, reader, image_labels=image_labels, all_proposals=all_proposals, input_context=share
    )
    if message.model.HasField("spp_classifier"):
        return ClassifierEvaluator(dataset, class_label_map(reader), show_progress=is_live(sys.stderr))
    label_map = load_label_map(reader.label_map_path)
    return Evaluator(
        dataset,
        label_map,
        metrics,
        show_progress=is_live(sys.stderr),
        unlabeled_are_complete=message.eval_config.image_classes_field_map_empty_to_ones,
        drawer=PairDrawer(message.eval_config, label_map.names) if draws else None,
        keypoint_metrics=_keypoint_metrics(message),
    )


def _keypoint_metrics(message: Any) -> list[Any]:
    """Returns the ``KeypointMetric`` of each class that a config measures."""
    from detzoo.evaluate.coco import KeypointMetric

    metrics = []
    for block in message.eval_config.parameterized_metric:
        asked, path = block.coco_keypoint_metrics, message.model.center_net.keypoint_label_map_path
        known = load_keypoints(path) if path else {}
        names = next((each for name, each in known.items() if asked.class_label in (name, each.display_name)), None)
        if names is None:
            raise ConfigError(
                f"eval_config.parameterized_metric: there are no keypoints of '{asked.class_label}' in "
                f"model.center_net.keypoint_label_map_path ({path or 'not set'}); it has those of "
                f"{', '.join(each.display_name for each in known.values()) or 'no class'}"
            )
        given = dict(asked.keypoint_label_to_sigmas)
        missing = [label for label in names.labels.values() if label not in given] if given else []
        if missing or (not given and len(names.labels) != NUM_COCO_KEYPOINTS):
            raise ConfigError(
                "eval_config.parameterized_metric.coco_keypoint_metrics.keypoint_label_to_sigmas: has no value for "
                f"{', '.join(missing or names.labels.values())}"
            )
        sigmas = tuple(given[label] for label in names.labels.values()) if given else ()
        metrics.append(KeypointMetric(asked.class_label, names.class_id, tuple(names.labels), sigmas))
    return metrics


def _load(pipeline: Pipeline, overrides: Sequence[str], on_train_data: bool, recompute_batch_norm: int | None) -> Any:
    """Loads a config whose first eval_input_reader is the one to measure on, and returns its message."""
    loaded = load_checked(pipeline, overrides, TRAIN_READER if on_train_data else EVAL_READER)
    message = loaded.message
    if on_train_data:
        reader = copy.deepcopy(message.train_input_reader)
        reader.shuffle = False
        del message.eval_input_reader[:]
        message.eval_input_reader.append(reader)
    if not message.eval_input_reader:
        raise ConfigError(f"{loaded.path} has no eval_input_reader: there is nothing to evaluate on")
    if recompute_batch_norm:
        batch_norm.check_recompute(loaded)
    return message


def _check_exported(message: Any, flag: str) -> None:
    """Raises ConfigError for a model that cannot be measured as a detector of images of any size."""
    if message.model.HasField("spp_classifier"):
        raise ConfigError(f"a classifier is measured by its checkpoint: give --checkpoint_dir, not {flag}")
    if message.model.HasField("faster_rcnn") and not has_second_stage(message.model.faster_rcnn):
        raise ConfigError(f"a first stage alone is measured by its proposals: give its --checkpoint_dir, not {flag}")


def _measure(
    detector: Any,
    step: int,
    checkpoint: str,
    message: Any,
    output_dir: str | pathlib.Path | None,
    recompute_batch_norm: int | None,
    combine_with: Sequence[str] = (),
    evaluator: Any = None,
    compare_with: Finished | None = None,
    tiling: Tiling | None = None,
    draws: bool = False,
) -> Evaluation:
    """Measures a restored detector, or the combination that it is part of."""
    from detzoo.checkpoints.layout import weights_digest

    measured = combined(detector, message, combine_with) if combine_with else detector
    recomputed = batch_norm.prepare_statistics(detector, message, recompute_batch_norm, step)
    logger.info("tracing the detector and reading the first images")
    if tiling:
        from detzoo.builders.resize import build_model_resizer
        from detzoo.serving.live_detector import LiveDetector

        live = LiveDetector(detector, build_model_resizer(message.model))
        result = measure_exported(message, live, tiling, draws)
    else:
        result = (evaluator or make_evaluator(message, draws)).evaluate(measured)
    facts = {"checkpoint": checkpoint, "step": step, **recomputed, **_tiles(tiling)}
    if output_dir is not None and not combine_with:
        facts["weights"] = weights_digest(detector.variables)
    return _write(Evaluation(checkpoint, step, result), output_dir, facts, message, compare_with, draws)


def _write(
    evaluation: Evaluation,
    output_dir: str | pathlib.Path | None,
    facts: dict[str, Any],
    message: Any,
    compare_with: Finished | None,
    events: bool,
) -> Evaluation:
    """Writes the files of an evaluation and the ``events`` for TensorBoard, where an exported model has step 0.

    Returns:
        The evaluation with the path of its page.
    """
    from detzoo.evaluate.events import Events

    if output_dir is None:
        return evaluation
    writer = Events(output_dir, events)
    writer.metrics("", evaluation.step or 0, evaluation.metrics)
    writer.details("", evaluation.step or 0, evaluation.result)
    writer.close()
    facts = {**facts, "versions": versions(), "commit": commit()}
    pixels = pixels_of_reader(message.eval_input_reader[0])
    page = write_evaluation(evaluation.result, output_dir, facts, pixels=pixels, compare_with=compare_with)
    return dataclasses.replace(evaluation, report=page)


def _tiles(tiling: Tiling | None) -> dict[str, Any]:
    return tiling._asdict() if tiling else {}
