"""A detector with the interface of the Object Detection API: raw images in, a dict of float32 arrays out.

The last step of the flow before export. The signature, input and output names are those of
``object_detection/exporter_lib_v2.py``, so code for its SavedModels runs unchanged. In addition, a batch may have any
number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from detzoo.contracts import (
    CenterPredictions,
    Context,
    Detections,
    MaskProposalPredictions,
    Proposals,
    RegionPredictions,
    Tensor,
)
from detzoo.errors import UsageError
from detzoo.layers.resample import spatial_shape
from detzoo.postprocess.dense_detections import image_windows
from detzoo.serving import given_regions
from detzoo.serving.image_detector import FIRST_CLASS_ID

INPUT_NAME = "input_tensor"

# Nodes between the stages of an exported graph, for benchmarks of stages. For the end of the extractor see
# ``detzoo.layers.stage_end``.
NETWORK_INPUT = "stage_network_input"
NETWORK_OUTPUTS = ("stage_box_deltas", "stage_class_logits", "stage_mask_logits")
PROPOSALS = ("stage_proposal_boxes", "stage_proposal_scores", "stage_num_proposals")  # of a first stage
FEATURES_OUTPUT = "detection_features"  # with output_final_box_features
CLASS_SCORES = "class_scores"  # the only output of a classifier of images
REGION_MAP = "stage_region_map_"  # followed by a level or a head; further maps that are read after the network

INPUT_SPECS = {
    "image_tensor": tf.TensorSpec([None, None, None, 3], tf.uint8, name=INPUT_NAME),
    "float_image_tensor": tf.TensorSpec([None, None, None, 3], tf.float32, name=INPUT_NAME),
    "encoded_image_string_tensor": tf.TensorSpec([None], tf.string, name=INPUT_NAME),
    "tf_example": tf.TensorSpec([None], tf.string, name=INPUT_NAME),
}


class ServingModule(tf.Module):
    """Module from raw images of any size to the output dict of an exported detector.

    Outputs are float32, with B images, M detections, A anchors and C class columns (a background is first):
    ``detection_boxes`` [B, M, 4] in fractions of the image, ``detection_scores`` [B, M], ``detection_classes``
    [B, M] (ids from 1; 1 also in padding rows, as in the original), ``num_detections`` [B],
    ``detection_multiclass_scores`` [B, M, C], ``detection_anchor_indices`` [B, M], ``raw_detection_boxes`` [B, A, 4]
    and ``raw_detection_scores`` [B, A, C]; a detector of masks adds ``detection_masks`` [B, M, h, w] in
    [0, 1], each stretched over its box. CenterNet has no anchors and none of the last three; with keypoints it adds
    ``detection_keypoints`` [B, M, T, 2], (y, x) in fractions of the image, and ``detection_keypoint_scores`` [B, M, T].

    A classifier of images has the output ``class_scores`` [B, K] only; column k belongs to the class with id k + 1.

    Detectors of given regions have a second input ``proposals`` float32 [B, R, 4], fractions of the image; rows
    without area are padding. A Context R-CNN has the further inputs ``context_features`` float32 [B, N, F] and
    ``valid_context_size`` int32 [B]. With ``output_final_box_features``, ``detection_features`` [B, M, h, w, C] are
    the features of the final boxes.

    Args:
        detector: Detector.
        resizer: Function from one image [H, W, 3], or B images of one size, to (padded float32 images, true shape
            int32 [2]). The attribute ``static_shape`` is (h, w) of the padded image, None for any size.
        input_type: ``image_tensor`` (uint8 [B, H, W, 3]), ``float_image_tensor`` (float32, 0..255),
            ``encoded_image_string_tensor`` (B encoded JPEG, PNG, GIF or BMP files, of different sizes if the resizer
            makes them equal), or ``tf_example`` (B serialized examples with ``image/encoded``).

    Raises:
        UsageError: The input type is none of these.
    """

    def __init__(
        self, detector: Any, resizer: Callable[[Tensor], tuple[Tensor, Tensor]], input_type: str = "image_tensor"
    ) -> None:
        super().__init__(name="serving")
        if input_type not in INPUT_SPECS:
            raise UsageError(f"--input_type is {input_type!r}; accepted: {', '.join(INPUT_SPECS)}")
        self.detector = detector
        sides: tuple[tf.TensorSpec, ...] = (given_regions.INPUT_SPEC,) if detector.wants_proposals else ()
        if detector.context_length:
            sides = given_regions.context_specs(detector.context_length)
        self.input_specs = (INPUT_SPECS[input_type], *sides)
        self._input_type = input_type
        self._resizer = resizer
        self._traced = tf.function(self.detect, input_signature=list(self.input_specs), autograph=False)

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Detects by one traced function for images of any size."""
        return self._traced(*inputs)

    def concrete_function(self) -> Any:
        """Returns the traced function for writing or freezing."""
        return self._traced.get_concrete_function()

    def detect(self, input_tensor: Tensor, *sides: Tensor) -> dict[str, Tensor]:
        """Returns the output dict for raw input (and regions, or context), untraced."""
        return self.detect_resized(*self.resize(input_tensor), *sides)

    def detect_resized(self, images: Tensor, true_shapes: Tensor, *sides: Tensor) -> dict[str, Tensor]:
        """Returns the output dict for images float32 [B, H, W, 3] and true shapes int32 [B, 2] of the resizer."""
        padded_shape = spatial_shape(images)
        inputs = tf.identity(self.detector.preprocess(images), name=NETWORK_INPUT)
        if self.detector.classifies_images:  # images of one call have one size: no padding
            return {CLASS_SCORES: tf.identity(self.detector.forward(inputs).scores)}
        given: dict[str, Any] = {}
        if sides and self.detector.context_length:
            given = {"context": Context(*sides)}
        elif sides:
            (regions,) = sides
            windows = image_windows(true_shapes, padded_shape)
            given = {"proposals": given_regions.as_proposals(regions, windows)}
        predictions = self.detector.forward(inputs, training=False, true_shapes=true_shapes, **given)
        predictions = name_outputs(predictions)
        return output_dict(self.detector.postprocess(predictions, true_shapes, padded_shape))

    def resize(self, input_tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Converts raw input to float32 [B, H, W, 3] of the input size, and int32 [B, 2] of the covered parts."""
        if self._input_type in ("image_tensor", "float_image_tensor"):
            return resize_batch(self._resizer, input_tensor)
        read = decode_image if self._input_type == "encoded_image_string_tensor" else decode_example
        return map_to_images(lambda element: self._resizer(read(element)), input_tensor, self._resizer)


def name_outputs(predictions: Any) -> Any:
    """Returns the predictions with node names on the tensors that ``postprocess`` reads."""
    if isinstance(predictions, RegionPredictions):
        boxes, scores, num_valid = predictions.proposals
        if predictions.first_stage:
            boxes, scores, num_valid = map(tf.identity, predictions.proposals, PROPOSALS)
        maps = {level: tf.identity(x, name=f"{REGION_MAP}{level}") for level, x in dict(predictions.maps).items()}
        predictions = predictions._replace(proposals=Proposals(boxes, scores, num_valid), maps=maps)
        if isinstance(predictions.class_logits, tuple):  # a first stage alone
            return predictions
    if isinstance(predictions, CenterPredictions):
        names = {"box/scale": NETWORK_OUTPUTS[0], "object_center": NETWORK_OUTPUTS[1]}
        maps = {
            head: [*stacks[:-1], tf.identity(stacks[-1], name=names.get(head, REGION_MAP + head.replace("/", "_")))]
            for head, stacks in predictions.maps.items()
        }
        return predictions._replace(maps=maps)
    if isinstance(predictions, MaskProposalPredictions):
        return predictions._replace(
            score_logits=tf.identity(predictions.score_logits, name=NETWORK_OUTPUTS[1]),
            mask_logits=tf.identity(predictions.mask_logits, name=NETWORK_OUTPUTS[2]),
        )
    return predictions._replace(
        box_deltas=tf.identity(predictions.box_deltas, name=NETWORK_OUTPUTS[0]),
        class_logits=tf.identity(predictions.class_logits, name=NETWORK_OUTPUTS[1]),
    )


def resize_batch(resizer: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Resizes images [B, H, W, 3] of one size to (float32 [B, h, w, 3], true shapes int32 [B, 2])."""
    padded, true_shape = resizer(images)
    return padded, tf.tile(true_shape[tf.newaxis], [tf.shape(images)[0], 1])


def map_to_images(function: Callable[[Tensor], Any], elements: Tensor, resizer: Any) -> tuple[Tensor, Tensor]:
    """Maps each element to (padded image, true shape), with the resizer's static shape."""
    height, width = resizer.static_shape
    image_spec = tf.TensorSpec([height, width, 3], tf.float32)
    shape_spec = tf.TensorSpec([2], tf.int32)
    return tf.map_fn(function, elements, fn_output_signature=(image_spec, shape_spec))


def decode_image(encoded: Tensor) -> Tensor:
    """Decodes the only or first frame of an encoded image to uint8 [H, W, 3]."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def decode_example(serialized: Tensor) -> Tensor:
    """Decodes ``image/encoded`` of a serialized tf.Example to uint8 [H, W, 3]."""
    features = tf.io.parse_single_example(serialized, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
    return decode_image(features["image/encoded"])


def output_dict(detections: Detections) -> dict[str, Tensor]:
    """Returns detections with names and type of the Object Detection API."""
    outputs = {
        "detection_boxes": detections.boxes_norm,
        "detection_scores": detections.scores,
        "detection_classes": detections.classes + FIRST_CLASS_ID,
        "num_detections": detections.num_valid,
        "detection_multiclass_scores": detections.multiclass_scores,
        "detection_anchor_indices": detections.anchor_indices,
        "raw_detection_boxes": detections.raw_boxes_norm,
        "raw_detection_scores": detections.raw_scores,
    }
    outputs["detection_masks"] = detections.masks
    outputs["detection_keypoints"] = detections.keypoints_norm
    outputs["detection_keypoint_scores"] = detections.keypoint_scores
    outputs[FEATURES_OUTPUT] = detections.features
    return {name: tf.cast(value, tf.float32) for name, value in outputs.items() if not isinstance(value, tuple)}
