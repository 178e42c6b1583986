"""Fields of the Object Detection API that detzoo reads without using, and those whose meaning it does not support.

Both tables map message -> field -> reason. A field of ``NO_EFFECT`` may have any value. A field of ``UNSUPPORTED`` may
be absent or have its default, because only another value asks for an unsupported feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from detzoo.config import values
from detzoo.config.problems import MISSING, Findings

_TPU = "made for TPUs; results here do not depend on it"
_QUEUES = "input queues of TensorFlow 1; tf.data tunes itself here"
_ALWAYS_SYNCHRONOUS = "replicas always train synchronously here"
_DRAWING = "evaluation draws no images; `detzoo detect` does"
_TWO_PROCESSES = "evaluation runs once, or while training every train_config.eval_every_n_steps"
_OUTPUT_DIR = "`detzoo evaluate --output_dir` sets the folder of the results"
_IN_PLACE = "batch normalization always updates in place in TensorFlow 2"
_RAW_DETECTIONS = "raw detections are always part of the exported model's outputs"
_STATIC_SHAPES = "shapes are always static here"
_OWN_SUPPRESSION = "detzoo's own non-maximum suppression gives the same detections"
_FLIPPED = "only meant for keypoints"
_SUMMED_LATER = "losses stay anchor by anchor until they are weighted and summed"

NO_EFFECT: dict[str, dict[str, str]] = {
    "TrainEvalPipelineConfig": {
        "graph_rewriter": "trains in float; `detzoo export --format tflite --quantize int8` quantizes afterwards"
    },
    "WeightedL2LocalizationLoss": {"anchorwise_output": _SUMMED_LATER},
    "WeightedSmoothL1LocalizationLoss": {"anchorwise_output": _SUMMED_LATER},
    "WeightedSigmoidClassificationLoss": {"anchorwise_output": _SUMMED_LATER},
    "WeightedSoftmaxClassificationLoss": {"anchorwise_output": _SUMMED_LATER},
    "WeightedSoftmaxClassificationAgainstLogitsLoss": {"anchorwise_output": _SUMMED_LATER},
    "BootstrappedSigmoidClassificationLoss": {"anchorwise_output": _SUMMED_LATER},
    "SigmoidFocalClassificationLoss": {"anchorwise_output": _SUMMED_LATER},
    "Ssd": {
        "inplace_batchnorm_update": _IN_PLACE,
        "return_raw_detections_during_predict": _RAW_DETECTIONS,
        "implicit_example_weight": "only meant for use_confidences_as_targets",
    },
    "FasterRcnn": {
        "inplace_batchnorm_update": _IN_PLACE,
        "use_matmul_crop_and_resize": _TPU,
        "use_matmul_gather_in_matcher": _TPU,
        "use_static_balanced_label_sampler": _TPU,
        "use_static_shapes": _STATIC_SHAPES,
        "use_static_shapes_for_eval": _STATIC_SHAPES,
        "use_partitioned_nms_in_first_stage": _TPU,
        "use_combined_nms_in_first_stage": _OWN_SUPPRESSION,
        "resize_masks": "true masks are always cropped to the size that the mask head predicts",
        "return_raw_detections_during_predict": _RAW_DETECTIONS,
    },
    "FasterRcnnFeatureExtractor": {"pad_to_multiple": "the maps of a two-stage detector may have any size"},
    "BidirectionalFeaturePyramidNetworks": {"use_native_resize_op": "both ways to enlarge a map give the same numbers"},
    "RandomHorizontalFlip": {"keypoint_flip_permutation": _FLIPPED},
    "RandomVerticalFlip": {"keypoint_flip_permutation": _FLIPPED},
    "RandomRotation90": {"keypoint_rot_permutation": _FLIPPED},
    "ArgMaxMatcher": {"use_matmul_gather": _TPU},
    "BipartiteMatcher": {"use_matmul_gather": _TPU},
    "BatchNonMaxSuppression": {
        "use_static_shapes": _STATIC_SHAPES,
        "use_partitioned_nms": _TPU,
        "use_combined_nms": _OWN_SUPPRESSION,
        "use_cpu_nms": "non-maximum suppression runs where the model runs",
    },
    "Hyperparams": {"op": "the layer decides whether it is a convolution"},
    "TrainConfig": {
        "sync_replicas": _ALWAYS_SYNCHRONOUS,
        "replicas_to_aggregate": _ALWAYS_SYNCHRONOUS,
        "startup_delay_steps": _ALWAYS_SYNCHRONOUS,
        "batch_queue_capacity": _QUEUES,
        "num_batch_queue_threads": _QUEUES,
        "prefetch_queue_capacity": _QUEUES,
        "fine_tune_checkpoint_version": "the format of a checkpoint is detected",
        "run_fine_tune_checkpoint_dummy_computation": "variables exist before a checkpoint is loaded",
        "unpad_groundtruth_tensors": "padding carries weight 0, so that the losses do not see it",
        "retain_original_images": "training keeps no originals",
        "summarize_gradients": "the norm of the gradients is always written to TensorBoard",
    },
    "EvalConfig": {
        "num_visualizations": _DRAWING,
        "visualization_export_dir": _DRAWING,
        "min_score_threshold": _DRAWING,
        "max_num_boxes_to_visualize": _DRAWING,
        "skip_scores": _DRAWING,
        "skip_labels": _DRAWING,
        "visualize_groundtruth_boxes": _DRAWING,
        "groundtruth_box_visualization_color": _DRAWING,
        "keep_image_id_for_visualization_export": _DRAWING,
        "retain_original_images": _DRAWING,
        "retain_original_image_additional_channels": _DRAWING,
        "keypoint_edge": _DRAWING,
        "num_examples": "all records that eval_input_reader names are evaluated",
        "eval_interval_secs": _TWO_PROCESSES,
        "max_evals": _TWO_PROCESSES,
        "eval_master": _TWO_PROCESSES,
        "save_graph": "there are no graph files in TensorFlow 2; `detzoo export` writes a SavedModel",
        "export_path": _OUTPUT_DIR,
        "include_metrics_per_category": "the precision of each class is always written",
        "all_metrics_per_category": "the precision of each class is always written",
        "super_categories": "classes are reported one by one",
        "use_moving_averages": "averaged weights are evaluated if the optimizer averages them",
        "use_dummy_loss_in_eval": "evaluation computes no loss",
    },
    "InputReader": {
        "queue_capacity": _QUEUES,
        "min_after_dequeue": _QUEUES,
        "num_parallel_batches": _QUEUES,
        "prefetch_size": _QUEUES,
        "num_parallel_map_calls": _QUEUES,
        "filenames_shuffle_buffer_size": "all file names are shuffled",
        "name": "readers are identified by their position in the config",
        "include_source_id": "image/source_id is always read",
        "load_context_image_ids": "only meant for Context R-CNN",
        "use_display_name": "names and display names of the label map both count",
    },
}

_NO_KEYPOINTS = "keypoints are not supported"
_NO_CONTEXT = "Context R-CNN is not supported"
_NO_REGION_FEATURES = "features of the detections as outputs are not supported"

UNSUPPORTED: dict[str, dict[str, str]] = {
    "Ssd": {
        "mask_head_config": "masks on top of an SSD are not supported; masks need faster_rcnn",
        "use_confidences_as_targets": "soft targets from image/object/confidence are not supported",
        "explicit_background_class": "a background class in the label map is not supported; leave it out of the map",
    },
    "FasterRcnn": {
        "context_config": _NO_CONTEXT,
        "output_final_box_features": f"{_NO_REGION_FEATURES}; accepted: false",
        "output_final_box_rpn_features": f"{_NO_REGION_FEATURES}; accepted: false",
    },
    "MaskRCNNBoxPredictor": {"predict_keypoints": f"{_NO_KEYPOINTS}; accepted: false"},
    "SsdFeatureExtractor": {
        "replace_preprocessor_with_placeholder": "each extractor has its own normalization, which cannot be skipped",
        "spaghettinet_arch_name": "SpaghettiNet backbones are not supported yet",
        "use_hardswish": "hard swish belongs to SpaghettiNet, which is not supported yet",
    },
    "Hyperparams": {"group_norm": "group normalization is not supported; accepted: batch_norm, sync_batch_norm"},
    "BoxCoder": {
        "square_box_coder": "the heads predict boxes of 4 numbers, this coder has 3; accepted: faster_rcnn_box_coder",
    },
    "KeypointBoxCoder": {"num_keypoints": f"{_NO_KEYPOINTS}; accepted: 0"},
    "BatchNonMaxSuppression": {
        "max_classes_per_detection": "several classes for one box are not supported; accepted: 1",
        "change_coordinate_frame": "boxes are not supported in another frame than the true image; accepted: true",
    },
    "PostProcessing": {"calibration_config": "calibration of scores is not supported"},
    "Loss": {
        "equalization_loss": "the equalization loss is not supported",
        "expected_loss_weights": "expected loss weights are not supported; accepted: hard_example_miner",
    },
    "PreprocessingStep": {
        "scale_boxes_to_pixel_coordinates": "not supported: boxes are fractions of the image throughout",
        "convert_class_logits_to_softmax": "distillation from multiclass scores is not supported",
    },
    "ClassificationLoss": {
        "weighted_logits_softmax": "distillation from another model's logits is not supported",
        "penalty_reduced_logistic_focal_loss": "this loss belongs to center_net, which is not supported yet",
        "weighted_dice_classification_loss": "this loss belongs to center_net, which is not supported yet",
    },
    "TrainConfig": {
        "use_multiclass_scores": "distillation from multiclass scores is not supported",
    },
    "EvalConfig": {
        "parameterized_metric": _NO_KEYPOINTS,
        "ignore_groundtruth": "evaluation without ground truth is not supported; `detzoo detect` needs none",
        "recall_lower_bound": "metrics of a part of the recall range are not supported",
        "recall_upper_bound": "metrics of a part of the recall range are not supported",
        "force_no_resize": "images always pass the model's image_resizer",
        "skip_predictions_for_unlabeled_class": "predictions of classes that an image does not label always count",
    },
    "InputReader": {
        "external_input_reader": "the only reader is tf_record_input_reader { input_path: '...' }",
        "num_additional_channels": "images have 3 channels",
        "num_keypoints": _NO_KEYPOINTS,
        "keypoint_type_weight": _NO_KEYPOINTS,
        "use_keypoint_label_map": _NO_KEYPOINTS,
        "load_keypoint_depth_features": _NO_KEYPOINTS,
        "load_multiclass_scores": "distillation from multiclass scores is not supported",
        "load_context_features": _NO_CONTEXT,
        "load_dense_pose": "DensePose is not supported",
        "load_track_id": "tracking is not supported",
        "expand_labels_hierarchy": "expanding labels along a hierarchy is not supported; expand them in the records",
    },
}


def supported_branches(message: Any, oneof: str) -> list[str]:
    """Returns the branches of a ``oneof`` that this version supports."""
    refused = UNSUPPORTED.get(message.DESCRIPTOR.name, {})
    return [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields if field.name not in refused]


def check_effects(message: Any, findings: Findings) -> None:
    """Walks all fields that are set in a message and the messages in it; adds errors and "no effect" notes."""
    kind = message.DESCRIPTOR.name
    no_effect, unsupported = NO_EFFECT.get(kind, {}), UNSUPPORTED.get(kind, {})
    for field, value in message.ListFields():
        if field.name in no_effect:
            findings.no_effect(field.name, no_effect[field.name])
        elif field.name in unsupported and _asks_for_something(field, value):
            findings.error(field.name, "not-supported", unsupported[field.name])
        else:
            for block, path in values.blocks_in(field, value, field.name):
                check_effects(block, findings.at(path))


def _asks_for_something(field: FieldDescriptor, value: Any) -> bool:
    """Returns True if a set field differs from an absent one: any block or list, or a scalar off its default."""
    return values.is_message(field) or values.is_repeated(field) or value != field.default_value


def check_choice(part: Any, oneof: str, path: str, findings: Findings, accepted: Sequence[str] = ()) -> str:
    """Adds an error if a block chooses no branch of a ``oneof``.

    Args:
        part: The block.
        oneof: Name of the oneof.
        path: Path of the block below that of the findings.
        findings: Receives the error.
        accepted: Branches to name; by default all that this version supports.

    Returns:
        The name of the chosen branch, "" for none.
    """
    if kind := part.WhichOneof(oneof):
        return kind
    names = ", ".join(accepted or supported_branches(part, oneof))
    findings.error(path, MISSING, f"is missing or empty; choose one of {names}")
    return ""
