"""The nouns that travel between the parts (floor 0).

Shape legend
    B images in a batch, H and W pixels of the padded input, A anchors, N padded ground-truth boxes, M detections,
    R regions, K classes (never counting the background), C class columns of a head (K or K + 1), L pyramid levels.

Conventions
    Boxes are [ymin, xmin, ymax, xmax]. ``_norm`` are fractions of the padded input, ``_px`` its pixels. Sizes are
    (height, width). Class 0 is the first real class; a padding label is -1. Feature maps travel as a dict from the
    pyramid level (an int; level l has stride 2**l) to a tensor [B, H_l, W_l, channels].

This module imports no TensorFlow: the tensors in these tuples are whatever the caller computes with.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

Tensor = Any  # tf.Tensor, a Keras tensor or a numpy array; the shape is in each field's comment.

PADDING_CLASS = -1


class AnchorState(enum.IntEnum):
    """What an anchor (or a proposal) is to the losses."""

    IGNORE = -1
    NEGATIVE = 0
    POSITIVE = 1


class FeatureSpec(NamedTuple):
    """One feature map of an extractor or neck, known before anything is computed."""

    level: int  # stride is 2**level
    channels: int


class Groundtruth(NamedTuple):
    """What is known about a batch of images. Rows past an image's last object are padding (class -1, box zeros)."""

    boxes_norm: Tensor  # float32 [B, N, 4], fractions of the padded input
    classes: Tensor  # int32 [B, N], 0-based, -1 = padding
    weights: Tensor  # float32 [B, N], 1 for an ordinary object, 0 for padding
    is_crowd: Tensor  # bool [B, N]; crowd boxes are neither targets nor negatives
    is_difficult: Tensor  # bool [B, N]; Pascal VOC's flag, used by evaluation only
    area_px: Tensor  # float32 [B, N], in pixels of the original image; 0 where the record has none
    masks: Tensor  # uint8 [B, N, H, W] of the padded input, or [B, N, 0, 0] when masks are not read
    label_sets: Any = ()  # bool [B, N, K'], K' <= K: all labels of a merged box; () where a box has the one in classes


class Batch(NamedTuple):
    """What the input pipeline delivers: resized and padded images with raw values, and their ground truth."""

    images: Tensor  # float32 [B, H, W, 3], RGB, 0..255, zero (or the resizer's pad value) outside the true image
    true_shapes: Tensor  # int32 [B, 2], pixels of the padded input that the image covers, from the top left corner
    original_shapes: Tensor  # int32 [B, 2], size of the decoded image before resizing
    image_ids: Tensor  # string [B], image/source_id or, where that is empty, the record's number
    record_index: Tensor  # int64 [B], position in the endless stream of records; gaps are dropped records
    groundtruth: Groundtruth
    proposals: Any = ()  # Proposals from a file, R = max_number_of_proposals; () where none are read
    labeled_classes: Any = ()  # bool [B, K], classes that image/class says are there or not; () where it is not read


class Proposals(NamedTuple):
    """Class-agnostic boxes of an image, best first, padded with zeros to a fixed number R."""

    boxes_norm: Tensor  # float32 [B, R, 4], fractions of the padded input
    scores: Tensor  # float32 [B, R], in [0, 1]; 0 for true boxes that were added
    num_valid: Tensor  # int32 [B], rows that are no padding


class Predictions(NamedTuple):
    """The raw output of a dense head over all levels, in the order of the anchors."""

    box_deltas: Tensor  # float32 [B, A, 4], encoded boxes
    class_logits: Tensor  # float32 [B, A, C]; with C = K + 1 column 0 is the background
    anchors_norm: Tensor  # float32 [A, 4]


class Assignment(NamedTuple):
    """The answer of a matcher for each anchor."""

    state: Tensor  # int32 [..., A] of AnchorState
    gt_index: Tensor  # int32 [..., A], row of the matched ground truth; 0 where the anchor is not positive


class Targets(NamedTuple):
    """What a dense head should have predicted."""

    box_deltas: Tensor  # float32 [B, A, 4], zeros where the anchor is not positive
    classes: Tensor  # int32 [B, A], 0-based class of the matched object, -1 where the anchor is not positive
    state: Tensor  # int32 [B, A] of AnchorState
    class_weights: Tensor  # float32 [B, A], 0 for ignored anchors
    box_weights: Tensor  # float32 [B, A], 0 for all but positive anchors
    gt_index: Any = ()  # int32 [B, A], row of the matched ground truth, 0 where the anchor is not positive
    label_sets: Any = ()  # of the Groundtruth


class LossTerm(NamedTuple):
    """One part of a loss as sum and normalizer, so that replicas can add both before they divide.

    The value over the global batch is ``sum over replicas of total / max(sum over replicas of normalizer, 1)``.
    """

    total: Tensor  # float32 scalar, already multiplied by the part's configured weight
    normalizer: Tensor  # float32 scalar, e.g. the number of matched anchors


class RegionTargets(NamedTuple):
    """What the second stage should have predicted for each of its R regions."""

    box_deltas: Tensor  # float32 [B, R, 4], zeros where the region is not positive
    classes: Tensor  # int32 [B, R], 0-based class of the matched object, -1 where the region is not positive
    class_weights: Tensor  # float32 [B, R], 0 for ignored regions and for padding
    box_weights: Tensor  # float32 [B, R], 0 for all but positive regions
    gt_index: Tensor  # int32 [B, R], row of the matched ground truth, 0 where the region is not positive
    label_sets: Any = ()  # of the Groundtruth


class RegionPredictions(NamedTuple):
    """The raw output of a two-stage detector."""

    first_stage: Any  # Predictions of the proposal head, C = 2; () where proposals were given
    proposals: Proposals  # what the second stage looked at; in training a sample of it
    box_deltas: Any  # float32 [B, R, Q, 4], Q = 1 or K; () for a first stage alone
    class_logits: Any  # float32 [B, R, K + 1], column 0 is the background; () for a first stage alone
    windows: Tensor  # float32 [B, 4], the part of the padded input that each image covers, in fractions of it
    targets: Any = ()  # RegionTargets in training, else ()
    mask_logits: Any = ()  # float32 [B, R, h, w, 1 or K] in training with a mask head, else ()
    maps: Any = ()  # level -> the map that regions are cropped from, where masks are predicted from detections
    canvas_shape: Any = ()  # int32 [2], (height, width) in pixels that the maps cover; () for detectors without


class MaskTargets(NamedTuple):
    """What the locations of a mask proposal network should have predicted; all but a sample is IGNORE."""

    state: Tensor  # int32 [B, A] of AnchorState
    gt_index: Tensor  # int32 [B, A], row of the object whose mask it should predict, 0 where not positive
    weights: Tensor  # float32 [B, A], 0 for ignored locations


class MaskProposalPredictions(NamedTuple):
    """The raw output of a mask proposal network: scores at A locations, masks at R of them."""

    score_logits: Tensor  # float32 [B, A]
    windows_norm: Tensor  # float32 [A, 4], what a location's mask covers, fractions of the padded input
    chosen: Tensor  # int32 [B, R], the locations whose masks are predicted: the best, in training sampled positives
    scores: Tensor  # float32 [B, R], theirs, in [0, 1]; -1 in rows of padding
    mask_logits: Tensor  # float32 [B, R, h, w]
    targets: Any = ()  # MaskTargets in training, else ()


class Detections(NamedTuple):
    """Final detections, best first, padded with zeros. Boxes are fractions of the *true image*, clipped to [0, 1]."""

    boxes_norm: Tensor  # float32 [B, M, 4]
    scores: Tensor  # float32 [B, M]
    classes: Tensor  # int32 [B, M], 0-based
    num_valid: Tensor  # int32 [B]
    multiclass_scores: Tensor  # float32 [B, M, C], converted scores of the anchor that each detection came from
    anchor_indices: Tensor  # int32 [B, M]
    raw_boxes_norm: Tensor  # float32 [B, A, 4], every decoded box, before non-maximum suppression
    raw_scores: Tensor  # float32 [B, A, C], every converted score
    masks: Any = ()  # float32 [B, M, h, w] in [0, 1], stretched over each box; () where none are predicted


@dataclasses.dataclass(frozen=True)
class BatchNormHyperparams:
    """Batch normalisation of a part, as its ``conv_hyperparams`` say.

    ``train=False`` means the statistics are frozen (inference mode always); ``momentum`` is the config's ``decay``.
    """

    momentum: float = 0.999
    epsilon: float = 0.001
    center: bool = True
    scale: bool = False
    train: bool = True
    synchronized: bool = False


@dataclasses.dataclass(frozen=True)
class ConvHyperparams:
    """How the convolutions of a part are initialised, regularised, normalised and activated.

    ``kernel_initializer`` is called once a layer for a fresh Keras initializer, so that no two layers share a seed.
    ``l2_weight`` is the factor of sum(w**2) as Keras counts it (half of the config's ``l2_regularizer.weight``).
    """

    kernel_initializer: Callable[[], Any]
    l1_weight: float = 0.0
    l2_weight: float = 0.0
    regularize_depthwise: bool = False
    activation: str | Callable[[Tensor], Tensor] | None = "relu"  # "relu", "relu6", layers.activation.swish
    batch_norm: BatchNormHyperparams | None = None
    force_use_bias: bool = False


class FeatureExtractor(NamedTuple):
    """A backbone, ready to be wired: a functional Keras model from the normalised image to its maps."""

    model: Any  # keras.Model: [B, H, W, 3] normalised image -> dict level -> [B, H_l, W_l, channels]
    specs: tuple[FeatureSpec, ...]  # in ascending order of level
    normalize: Callable[[Tensor], Tensor]  # RGB 0..255 float32 [..., 3] -> what the model expects
