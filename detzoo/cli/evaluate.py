"""``detzoo evaluate``."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from absl import flags

from detzoo.cli.api_flags import EVAL_ON_TRAIN_SAMPLE, check_evaluation_flags, define_evaluation_flags
from detzoo.cli.flags import (
    CHECKPOINT_HELP,
    Definer,
    define_json_flag,
    define_pipeline_flags,
    define_recompute_flag,
    define_tile_flags,
    print_json,
    values_of,
)
from detzoo.errors import UsageError
from detzoo.folders import METRICS_FILE
from detzoo.tasks.evaluate import Evaluation, evaluate, evaluate_new_checkpoints, report_stored
from detzoo.tasks.models import EVAL_READER, TRAIN_READER

SUMMARY = "Measure a checkpoint on the eval_input_reader: COCO's twelve numbers, by masks too, or Pascal VOC's."
DESCRIPTION = """
Prints the table and writes metrics.json, detections.json (COCO's results format), groundtruth.json, report.html and
TensorBoard's events: the metrics, precision-recall curves, and the first images with detections on the left and ground
truth on the right. eval_config has the options of these images (num_visualizations, min_score_threshold,
max_num_boxes_to_visualize, visualization_export_dir for PNG files); --norecord_summaries leaves the events out.

    detzoo evaluate --pipeline_config_path=model/pipeline.config --checkpoint_dir=model --output_dir=evaluation

report.html explains the numbers on one page without other files: precision-recall and F1 curves, the score threshold
with the best F1, confusions, errors by kind with the average precision that each costs, sizes of objects, and the
twenty worst images drawn. docs/evaluation.md describes how to read it. --compare_with adds the difference to another
evaluation on the same images; --detections makes the report of a finished evaluation again without running a model.

    detzoo evaluate --pipeline_config_path=model/pipeline.config --checkpoint_dir=model --output_dir=evaluation \\
        --compare_with=evaluation_before
    detzoo evaluate --detections=evaluation --compare_with=evaluation_before

An exported model, a SavedModel or a .tflite or .onnx file, is measured as it serves: with its own resizing, one image
at a time. So are those of the Object Detection API; the config names the data and the classes.

    detzoo evaluate --pipeline_config_path=model/pipeline.config --saved_model=exported/model_int8.tflite \\
        --output_dir=evaluation_int8

While a training runs, measure every new checkpoint; `tensorboard --logdir evaluation` shows the history. The command
ends when the training is finished, or after --timeout_secs without a new checkpoint.

    detzoo evaluate --pipeline_config_path=model/pipeline.config --checkpoint_dir=model --output_dir=evaluation \\
        --continuous

On large images with small objects, --tile gives the model tiles of the images at their original size:

    detzoo evaluate --pipeline_config_path=model/pipeline.config --checkpoint_dir=model --output_dir=large --tile=640

eval_config.metrics_set chooses the metrics:

    coco_detection_metrics              the default: COCO's twelve numbers
    coco_mask_metrics                   the same by masks, besides those by boxes
    pascal_voc_detection_metrics        area under the curve
    pascal_voc_2007_detection_metrics   eleven points
    oid_V2_detection_metrics            Open Images: groups of objects
    oid_challenge_detection_metrics     Open Images: also classes that nobody verified in an image

    --set 'eval_config.metrics_set[0]=pascal_voc_2007_detection_metrics'

A classifier (model.spp_classifier) is measured by its top-1 and top-5 error, with the views that its test_view names;
predictions.json has the five best classes of each image.

    --set model.spp_classifier.test_view=FULL_IMAGE

Two SPP-nets (model.spp_net) are measured as one: the scored windows of both are joined before suppression.

    detzoo evaluate --pipeline_config_path=a/pipeline.config --checkpoint_dir=a --combine_with=b --output_dir=a_and_b

For COCO's server, --submission=NAME --submission_images=image_info_test-dev2017.json writes the zip of the test set.

A first stage alone (number_of_stages: 1) is measured by the recall of its proposals, AR@10, AR@100 and AR@1000. The
checkpoint may be that of the whole detector, with --set model.faster_rcnn.number_of_stages=1. The proposals
are written to proposals.npz, which another model's input readers can name as their proposals_path. Segmentation
proposals are measured by the recall of their masks, mask AR@10, AR@100 and AR@1000, and need load_instance_masks: true.
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the model, the data and the output."""
    define_pipeline_flags(flag_values, required=False)
    define = Definer(flag_values)
    define.string("checkpoint_dir", CHECKPOINT_HELP)
    define.string("saved_model", "Instead of --checkpoint_dir: a SavedModel, .tflite or .onnx file, or zoo://NAME.")
    text = (
        "Instead of a model: a finished evaluation, of whose detections.json and groundtruth.json the report is made."
    )
    define.string("detections", f"{text} The config, if it is given, names the records of the images to draw.")
    define.string("output_dir", "Folder for the results.")
    define.string("compare_with", "Folder of another evaluation on the same images; the report shows the difference.")
    text = "Also write COCO's test-dev submission, detections_test-dev2017_NAME_results.zip, under this NAME."
    define.string("submission", text)
    define.string("submission_images", "With --submission: COCO's image_info_test-dev2017.json.")
    define.boolean("continuous", "Measure every new checkpoint of a running training.")
    define.number("timeout_secs", "With --continuous: seconds without a new checkpoint after which to end.", 3600.0)
    define_recompute_flag(flag_values)
    define_tile_flags(flag_values)
    text = "SPP-net: the --model_dir of another one, whose scored windows are joined to these before suppression."
    define.strings("combine_with", text)
    define_json_flag(flag_values)
    define_evaluation_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Measures one checkpoint, each new one, or an exported model, and prints the table of each."""
    if flag_values.submission and flag_values.continuous:
        raise UsageError("--submission is of one evaluation; leave it out with --continuous")
    if flag_values.detections:
        _report(flag_values)
        return
    if not flag_values.pipeline_config_path:
        raise UsageError("`detzoo evaluate` needs --pipeline_config_path, or --detections without a model")
    check_evaluation_flags(flag_values)
    output_dir = flag_values.output_dir
    if not output_dir:
        if not flag_values.model_dir:
            raise UsageError("`detzoo evaluate` needs --output_dir, where to write the results")
        output_dir = f"{flag_values.model_dir}/eval"
    if bool(flag_values.checkpoint_dir) == bool(flag_values.saved_model):
        raise UsageError("give either --checkpoint_dir or --saved_model")
    if flag_values.saved_model and flag_values.continuous:
        raise UsageError("--continuous watches --checkpoint_dir; leave it out with --saved_model")
    if flag_values.compare_with and flag_values.continuous:
        raise UsageError("--compare_with compares one evaluation; leave it out with --continuous")
    if flag_values.combine_with and (flag_values.saved_model or flag_values.continuous):
        raise UsageError("--combine_with goes with --checkpoint_dir alone, without --saved_model and --continuous")
    reader, sample = EVAL_READER, flag_values.sample_1_of_n_eval_examples
    if flag_values.eval_on_train_data:
        reader, sample = TRAIN_READER, flag_values.sample_1_of_n_eval_on_train_examples or EVAL_ON_TRAIN_SAMPLE
    options: dict[str, Any] = {
        "output_dir": output_dir,
        "overrides": [*flag_values.set, *([f"{reader}.sample_1_of_n_examples={sample}"] if sample else [])],
        "recompute_batch_norm": flag_values.recompute_batch_norm,
        "on_train_data": bool(flag_values.eval_on_train_data),
        **values_of(flag_values, "tile", "tile_overlap"),
        "record_summaries": flag_values.record_summaries,
    }
    path = flag_values.pipeline_config_path
    if flag_values.continuous:
        timeout = flag_values.timeout_secs if flag_values.eval_timeout is None else flag_values.eval_timeout
        for evaluation in evaluate_new_checkpoints(
            path, flag_values.checkpoint_dir, timeout_seconds=timeout, **options
        ):
            _print(evaluation, output_dir, flag_values.json, indent=None)
        return
    options |= values_of(flag_values, "checkpoint_dir", "saved_model", "combine_with", "compare_with")
    submission = _submission(flag_values)
    evaluation = evaluate(path, **options)
    _print(evaluation, output_dir, flag_values.json)
    _submit(submission, evaluation, output_dir, flag_values.json)


def _report(flag_values: flags.FlagValues) -> None:
    """Makes the report of a finished evaluation."""
    given = [
        name for name in ("checkpoint_dir", "saved_model", "continuous", "combine_with") if flag_values[name].value
    ]
    if given:
        raise UsageError(f"--detections is a finished evaluation, so no model is run; leave out --{given[0]}")
    submission = _submission(flag_values)
    evaluation = report_stored(
        flag_values.detections,
        flag_values.output_dir,
        pipeline=flag_values.pipeline_config_path,
        overrides=flag_values.set,
        compare_with=flag_values.compare_with,
    )
    output_dir = flag_values.output_dir or flag_values.detections
    _print(evaluation, output_dir, flag_values.json)
    _submit(submission, evaluation, output_dir, flag_values.json)


def _submission(flag_values: flags.FlagValues) -> Any:
    """Reads the list of the test set before any model runs; None without --submission."""
    if not flag_values.submission:
        return None
    from detzoo.evaluate.submission import read_submission

    return read_submission(flag_values.submission, flag_values.submission_images)


def _submit(submission: Any, evaluation: Any, output_dir: str, as_json: bool) -> None:
    if submission is None:
        return
    from detzoo.evaluate.submission import write_submission

    files = write_submission(submission, evaluation.result.images, output_dir)
    if not as_json:
        print(f"\nfor COCO's server: {', '.join(map(str, files))}")


def _print(evaluation: Evaluation, output_dir: str, as_json: bool, indent: int | None = 2) -> None:
    if as_json:
        print_json(json.loads((pathlib.Path(output_dir) / METRICS_FILE).read_text(encoding="utf-8")), indent=indent)
        return
    from detzoo.evaluate.report import format_table

    name = evaluation.model if evaluation.step is None else f"step {evaluation.step}"
    print(f"{name}: {len(evaluation.result.images)} images in {evaluation.result.seconds:.1f} s")
    print(format_table(evaluation.result), flush=True)
    if evaluation.report is not None:
        print(f"\n{evaluation.report} explains the numbers", flush=True)
