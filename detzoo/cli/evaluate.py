"""``detzoo evaluate``."""

from __future__ import annotations

import copy
import logging
import pathlib
import sys
from typing import Any

from absl import flags

from detzoo.cli.api_flags import (
    EVAL_ON_TRAIN_SAMPLE,
    check_evaluation_flags,
    define_evaluation_flags,
    define_training_flags_of_evaluation,
)
from detzoo.cli.flags import define_pipeline_flags, load_pipeline_from_flags
from detzoo.errors import CheckpointError, ConfigError, UsageError
from detzoo.folders import make_folder
from detzoo.tasks.batch_norm import check_recompute_flag, define_recompute_flag, prepare_statistics
from detzoo.tasks.combination import check_combination, combined, define_combination_flag

SUMMARY = "Measure a checkpoint on the eval_input_reader: COCO's twelve numbers, by masks too, or Pascal VOC's."
DESCRIPTION = """
Prints the table and writes metrics.json, detections.json (COCO's results format) and groundtruth.json.

    detzoo evaluate --pipeline_config_path=model/pipeline.config --checkpoint_dir=model --output_dir=evaluation

What was exported is measured as it serves, a SavedModel or a .tflite file, with its own resizing, one image at a time:

    detzoo evaluate --pipeline_config_path=model/pipeline.config --saved_model=exported/model_int8.tflite \\
        --output_dir=evaluation_int8

Beside a running training, measure every new checkpoint; the curves are for TensorBoard. It ends when the training is
finished, or after --timeout_secs without a new one:

    detzoo evaluate --pipeline_config_path=model/pipeline.config --checkpoint_dir=model --output_dir=evaluation \\
        --continuous

Which numbers: eval_config.metrics_set, any of coco_detection_metrics (default), coco_mask_metrics (the same by masks,
beside those by boxes), pascal_voc_detection_metrics (area under the curve), pascal_voc_2007_detection_metrics (eleven
points), oid_V2_detection_metrics (Open Images: groups of objects) and oid_challenge_detection_metrics (and classes that
nobody verified in an image), e.g.

    --set 'eval_config.metrics_set[0]=pascal_voc_2007_detection_metrics'

A classifier (model.spp_classifier) is measured by its top-1 and top-5 error, with the views that its test_view names;
predictions.json has the five best classes of each image.

    --set model.spp_classifier.test_view=FULL_IMAGE

Two SPP-nets (model.spp_net) are measured as one, the windows of both scored before suppression:

    detzoo evaluate --pipeline_config_path=a/pipeline.config --checkpoint_dir=a --combine_with=b --output_dir=a_and_b

A first stage alone (number_of_stages: 1) is measured by the recall of its proposals, AR@10, AR@100 and AR@1000. The
checkpoint may be that of the whole detector, with --set model.faster_rcnn.number_of_stages=1. The proposals
are written to proposals.npz, which another model's input readers can name as their proposals_path. Segmentation
proposals are measured by the recall of their masks, mask AR@10, AR@100 and AR@1000, and need load_instance_masks: true.
"""
POSITIONAL = ()

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """What to measure, on what, and where to write."""
    define_pipeline_flags(flag_values)
    flags.DEFINE_string(
        "checkpoint_dir",
        None,
        "Folder with checkpoints (the newest is used), or the prefix of one, e.g. model/ckpt-1000.",
        flag_values=flag_values,
    )
    text = "Instead of --checkpoint_dir: a SavedModel, or a .tflite file that `detzoo export` wrote."
    flags.DEFINE_string("saved_model", None, text, flag_values=flag_values)
    flags.DEFINE_string("output_dir", None, "Where to write.", flag_values=flag_values)
    flags.DEFINE_bool("continuous", False, "Go on with every new checkpoint.", flag_values=flag_values)
    flags.DEFINE_float(
        "timeout_secs",
        3600.0,
        "With --continuous: end after so long without a new checkpoint.",
        lower_bound=0.0,
        flag_values=flag_values,
    )
    define_recompute_flag(flag_values)
    define_combination_flag(flag_values)
    define_evaluation_flags(flag_values)
    define_training_flags_of_evaluation(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Builds detector and data set once, then measures one checkpoint or each new one."""
    check_evaluation_flags(flag_values)
    if not (flag_values.output_dir or flag_values.model_dir):
        raise UsageError("`detzoo evaluate` needs --output_dir, where to write the results")
    if bool(flag_values.checkpoint_dir) == bool(flag_values.saved_model):
        raise UsageError("give either --checkpoint_dir or --saved_model")
    if flag_values.saved_model and flag_values.continuous:
        raise UsageError("--continuous watches --checkpoint_dir; leave it out with --saved_model")
    reads = "train_input_reader" if flag_values.eval_on_train_data else "eval_input_reader[0]"
    loaded = load_pipeline_from_flags(flag_values, reads=reads)
    message = loaded.message
    if not (message.eval_input_reader or flag_values.eval_on_train_data):
        raise ConfigError(f"{loaded.path} has no eval_input_reader: there is nothing to evaluate on")
    check_combination(flag_values, message.model)
    check_recompute_flag(flag_values, loaded)
    if flag_values.saved_model:
        _check_exported(message)
    _choose_examples(message, flag_values)
    output_dir = _make_output_dir(flag_values)
    if flag_values.saved_model:
        _evaluate_exported(message, flag_values.saved_model, output_dir)
        return
    from detzoo.checkpoints.files import latest_prefix
    from detzoo.evaluate.watch import new_checkpoints
    from detzoo.tasks.models import build_untrained, start_tensorflow

    start_tensorflow()
    if not flag_values.continuous:
        latest_prefix(flag_values.checkpoint_dir)  # a wrong path is told before the model is built
    detector = build_untrained(message.model)
    evaluator = make_evaluator(message)

    def prepare(step: int) -> dict[str, Any]:
        return prepare_statistics(detector, message, flag_values.recompute_batch_norm, step)

    logger.info("tracing the detector and reading the first images")
    if not flag_values.continuous:
        others = flag_values.combine_with
        measured = combined(detector, message, others) if others else detector
        _evaluate_one(detector, evaluator, flag_values.checkpoint_dir, output_dir, prepare, measured, says_best=True)
        return
    checkpoints = new_checkpoints(
        lambda: latest_prefix(flag_values.checkpoint_dir),
        flag_values.timeout_secs if flag_values.eval_timeout is None else flag_values.eval_timeout,
        is_finished=lambda: (pathlib.Path(flag_values.checkpoint_dir) / "finished").is_file(),
    )
    measured = 0
    for prefix in checkpoints:
        try:
            step, metrics = _evaluate_one(detector, evaluator, prefix, output_dir, prepare)
        except CheckpointError as problem:
            logger.warning("%s", problem)  # removed by the training meanwhile, or of another model
            continue
        _write_summary(output_dir, step, metrics)
        measured += 1
    if not measured:
        raise CheckpointError(f"no checkpoint came to {flag_values.checkpoint_dir} that could be evaluated")


def _choose_examples(message: Any, flag_values: flags.FlagValues) -> None:
    """Puts the reader to measure on first, and how many of its images, as the API's flags say."""
    sample = flag_values.sample_1_of_n_eval_examples
    if flag_values.eval_on_train_data:
        reader = copy.deepcopy(message.train_input_reader)
        reader.shuffle = False
        del message.eval_input_reader[:]
        message.eval_input_reader.append(reader)
        sample = flag_values.sample_1_of_n_eval_on_train_examples or EVAL_ON_TRAIN_SAMPLE
    if sample:
        message.eval_input_reader[0].sample_1_of_n_examples = sample


def _make_output_dir(flag_values: flags.FlagValues) -> pathlib.Path:
    if flag_values.output_dir:
        return make_folder(flag_values.output_dir, "--output_dir")
    return make_folder(pathlib.Path(flag_values.model_dir) / "eval", "--model_dir")


def make_evaluator(message: Any) -> Any:
    """The Evaluator of a config's first eval_input_reader and its eval_config."""
    from detzoo.builders.classification_inputs import class_label_map
    from detzoo.builders.inputs import build_dataset
    from detzoo.builders.resize import build_model_resizer
    from detzoo.config.label_map import load_label_map
    from detzoo.evaluate.classification import ClassifierEvaluator
    from detzoo.evaluate.runner import Evaluator, asked_metrics, reads_image_labels

    reader, metrics = message.eval_input_reader[0], asked_metrics(message.eval_config)
    if len(message.eval_input_reader) > 1:
        logger.warning("the config has %d eval_input_readers; the first is used", len(message.eval_input_reader))
    dataset = build_dataset(
        reader,
        build_model_resizer(message.model),
        None,
        training=False,
        batch_size=max(1, message.eval_config.batch_size),
        seed=0,
        image_labels=reads_image_labels(metrics),
        all_proposals=message.model.HasField("spp_net"),
    )
    if message.model.HasField("spp_classifier"):
        return ClassifierEvaluator(dataset, class_label_map(reader), show_progress=sys.stderr.isatty())
    return Evaluator(
        dataset,
        load_label_map(reader.label_map_path),
        metrics,
        show_progress=sys.stderr.isatty(),
        unlabeled_are_complete=message.eval_config.image_classes_field_map_empty_to_ones,
    )


def _evaluate_one(
    detector: Any,
    evaluator: Any,
    checkpoint: str,
    output_dir: pathlib.Path,
    prepare: Any,
    measured: Any = None,
    says_best: bool = False,
) -> tuple[int, Any]:
    """Restores a detector, calls ``prepare`` with the step, and measures it, or ``measured``, which it is a part of."""
    from detzoo.checkpoints import restore_for_inference
    from detzoo.checkpoints.files import best_instead
    from detzoo.evaluate.report import format_table, write_results
    from detzoo.provenance import commit, versions

    step = restore_for_inference(detector, checkpoint)
    if says_best and (better := best_instead(checkpoint, step, "--checkpoint_dir")):
        logger.warning("this is step %d; %s", step, better)
    recomputed = prepare(step)
    result = evaluator.evaluate(measured or detector)
    facts = {"checkpoint": checkpoint, "step": step, **recomputed, "versions": versions(), "commit": commit()}
    write_results(result, output_dir, facts)
    print(f"step {step}: {len(result.images)} images in {result.seconds:.1f} s")
    print(format_table(result), flush=True)
    return step, result.metrics


def _check_exported(message: Any) -> None:
    from detzoo.config.stages import has_second_stage

    if message.model.HasField("spp_classifier"):
        raise ConfigError("a classifier is measured by its checkpoint: give --checkpoint_dir, not --saved_model")
    if message.model.HasField("faster_rcnn") and not has_second_stage(message.model.faster_rcnn):
        raise ConfigError("a first stage alone is measured by its proposals: give its --checkpoint_dir")


def _evaluate_exported(message: Any, saved_model: str, output_dir: pathlib.Path) -> None:
    """Measures an exported model on the images as they are: it resizes them itself."""
    from detzoo.evaluate.report import format_table, write_results
    from detzoo.provenance import commit, versions
    from detzoo.tasks.models import load_exported, start_tensorflow

    start_tensorflow()
    result = measure_exported(message, load_exported(saved_model, message.model))
    write_results(result, output_dir, {"saved_model": saved_model, "versions": versions(), "commit": commit()})
    print(f"{saved_model}: {len(result.images)} images in {result.seconds:.1f} s")
    print(format_table(result), flush=True)


def measure_exported(message: Any, detect: Any) -> Any:
    """The EvaluationResult of what detects on images of any size, on a config's first eval_input_reader.

    Args:
        message: the config; its own resizer counts for nothing.
        detect: an ImageDetector.
    """
    from detzoo.config.stages import knows_classes
    from detzoo.serving.one_by_one import OneByOne

    raw = copy.deepcopy(message)
    chosen = getattr(raw.model, raw.model.WhichOneof("model"))
    if "image_resizer" in chosen.DESCRIPTOR.fields_by_name:  # others take images as they are
        chosen.image_resizer.identity_resizer.SetInParent()
    raw.eval_config.batch_size = 1
    return make_evaluator(raw).evaluate(OneByOne(detect, not knows_classes(message.model)))


def _write_summary(output_dir: pathlib.Path, step: int, metrics: dict[str, float]) -> None:
    """One point of each curve for TensorBoard."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(output_dir))
    with writer.as_default():
        for name, value in metrics.items():
            tf.summary.scalar(f"evaluation/{name}", value, step=step)
    writer.close()
