"""The nouns that travel between the parts (floor 0).

Shape legend
    B images in a batch, H and W pixels of the padded input, A anchors, N padded ground-truth boxes, M detections,
    R regions, K classes (without the background), C class columns of a head (K or K + 1), L pyramid levels.

Conventions
    Boxes are [ymin, xmin, ymax, xmax]. ``_norm`` are fractions of the padded input, ``_px`` its pixels. Sizes are
    (height, width). Class 0 is the first real class; a padding label is -1. Feature maps travel as a dict from the
    pyramid level (an int; level l has stride 2**l) to a tensor [B, H_l, W_l, channels].

This module does not import TensorFlow: the fields hold the tensors of any caller.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Tensor = Any  # tf.Tensor, a Keras tensor or a numpy array; the shape is in each field's comment.

PADDING_CLASS = -1
CENTER_STRIDE = 4  # pixels of the padded input per cell of CenterNet's maps


class AnchorState(enum.IntEnum):
    """The role of an anchor (or a proposal) in the losses."""

    IGNORE = -1
    NEGATIVE = 0
    POSITIVE = 1


class FeatureSpec(NamedTuple):
    """The static facts of one feature map of an extractor or neck."""

    level: int  # stride is 2**level
    channels: int


class Groundtruth(NamedTuple):
    """The ground truth of a batch of images. Rows past an image's last object are padding (class -1, box zeros)."""

    boxes_norm: Tensor  # float32 [B, N, 4], fractions of the padded input
    classes: Tensor  # int32 [B, N], 0-based, -1 = padding
    weights: Tensor  # float32 [B, N], 1 for an ordinary object, 0 for padding
    is_crowd: Tensor  # bool [B, N]; crowd boxes are neither targets nor negatives
    is_difficult: Tensor  # bool [B, N]; Pascal VOC's flag, used by evaluation only
    area_px: Tensor  # float32 [B, N], in pixels of the original image; 0 if the record has none
    masks: Tensor  # uint8 [B, N, H, W] of the padded input, or [B, N, 0, 0] when masks are not read
    label_sets: Any = ()  # bool [B, N, K'], K' <= K: all labels of merged boxes; () if each box has one
    # float32 [B, N, T, 2], (y, x) in fractions of the padded input; () if keypoints are not read.
    keypoints_norm: Any = ()
    keypoint_visibility: Any = ()  # int32 [B, N, T]: 0 not labelled, 1 labelled but hidden, 2 visible; or ()


class Context(NamedTuple):
    """The memory of Context R-CNN for each image: features of boxes in other images of the same camera."""

    features: Tensor  # float32 [B, N, F], padded with zeros
    num_valid: Tensor  # int32 [B], number of rows before the padding


class Batch(NamedTuple):
    """The input pipeline's output: resized and padded images with raw values, and their ground truth."""

    images: Tensor  # float32 [B, H, W, 3], RGB, 0..255, zero (or the resizer's pad value) outside the true image
    true_shapes: Tensor  # int32 [B, 2], pixels of the padded input that the image covers, from the top left corner
    original_shapes: Tensor  # int32 [B, 2], size of the decoded image before resizing
    image_ids: Tensor  # string [B], image/source_id or, if it is empty, the record's number
    record_index: Tensor  # int64 [B], position in the endless stream of records; gaps are dropped records
    groundtruth: Groundtruth
    proposals: Any = ()  # Proposals from a file, R = max_number_of_proposals; () if none are read
    labeled_classes: Any = ()  # bool [B, K], classes that image/class declares present or absent; () if not read
    context: Any = ()  # Context with N = max_num_context_features; () if it is not read

    def side_inputs(self) -> dict[str, Any]:
        """Returns the inputs of ``Detector.forward`` that the batch has in addition to its images."""
        found = {"proposals": self.proposals, "context": self.context}
        return {name: value for name, value in found.items() if value != ()}


class Proposals(NamedTuple):
    """Class-agnostic boxes of an image, best first, padded with zeros to a fixed number R."""

    boxes_norm: Tensor  # float32 [B, R, 4], fractions of the padded input
    scores: Tensor  # float32 [B, R], in [0, 1]; 0 for true boxes that were added
    num_valid: Tensor  # int32 [B], number of rows before the padding


class Predictions(NamedTuple):
    """The raw output of a dense head over all levels, in the order of the anchors.

    A detector without anchors predicts at A locations instead, level by level, row by row. Its ``anchors_norm`` is
    None, and only its own loss and post-processing interpret its ``box_deltas``. Parts that encode or decode with a box
    coder need anchors. Heads on a single map return ``CenterPredictions``.
    """

    box_deltas: Tensor  # float32 [B, A, 4], boxes encoded relative to the anchors, or offsets and sizes at locations
    class_logits: Tensor  # float32 [B, A, C]; with C = K + 1 column 0 is the background
    anchors_norm: Tensor | None = None  # float32 [A, 4], fractions of the padded input


class CenterPredictions(NamedTuple):
    """The raw output of CenterNet: maps of stride 4 by the name of their head, one map per stack of the backbone.

    The last stack gives the detections, the others serve the loss only. Heads and channels: ``object_center`` K logits;
    ``box/scale`` height and width, ``box/offset`` y and x from the corner of a cell to the centre in it, both in cells.
    For each task with P keypoints ``TASK/keypoint/heatmap`` P logits; ``TASK/keypoint/offset`` y and x from a cell to
    the keypoint in it, for all (2) or for each keypoint (2 P); ``TASK/keypoint/regression`` y and x from the cell of
    the object's centre to each keypoint (2 P), all in cells. For masks ``segmentation/heatmap`` K logits, or
    ``INSTANCE_EMBEDDING`` and ``PIXEL_EMBEDDING`` of any number of channels.
    """

    maps: Mapping[str, Sequence[Tensor]]  # float32 [B, h, w, channels] each
    true_shapes: Tensor  # int32 [B, 2], pixels of the padded input that each image covers
    padded_shape: tuple[Tensor | int, Tensor | int]  # (height, width) of the padded input in pixels
    mask_logits: Any = ()  # float32 [B, N, s, s] per stack: masks drawn from the true boxes in training, else ()
    features: Tensor | tuple[()] = ()  # [B, h, w, C], the map that the heads of the last stack read


class KeypointTask(NamedTuple):
    """The keypoints of one class. The heads of the task start with its name."""

    name: str
    class_index: int  # 0-based
    columns: tuple[int, ...]  # of the T keypoints of an object, those of this class
    deviations: tuple[float, ...]  # width of each keypoint's Gaussian, as a factor of that of the box

    def head(self, kind: str) -> str:
        """Returns the name of the head "heatmap", "offset" or "regression"."""
        return f"{self.name}/keypoint/{kind}"


class Assignment(NamedTuple):
    """The result of a matcher for each anchor."""

    state: Tensor  # int32 [..., A] of AnchorState
    gt_index: Tensor  # int32 [..., A], row of the matched ground truth; 0 for other than positive anchors


class Targets(NamedTuple):
    """The targets of a dense head. Only positive anchors have a box, a class and a row."""

    box_deltas: Tensor  # float32 [B, A, 4], else zeros
    classes: Tensor  # int32 [B, A], 0-based class of the matched object, else -1
    state: Tensor  # int32 [B, A] of AnchorState
    class_weights: Tensor  # float32 [B, A], 0 for ignored anchors
    box_weights: Tensor  # float32 [B, A], 0 for all but positive anchors
    gt_index: Any = ()  # int32 [B, A], row of the matched ground truth, else 0
    label_sets: Any = ()  # of the Groundtruth


class CenterTargets(NamedTuple):
    """The targets of CenterNet's maps [B, h, w, C]: a heatmap, and values at the cell of each object's centre."""

    heatmap: Tensor  # float32 [B, h, w, K], 1 at a centre, falling to 0 around it
    heatmap_weights: Tensor  # float32 [B, h, w, 1], 0 outside the image and in crowds
    cells: Tensor  # int32 [B, N], y * w + x
    sizes: Tensor  # float32 [B, N, 2], height and width in cells
    offsets: Tensor  # float32 [B, N, 2], y and x from the corner of the cell to the centre, in cells
    weights: Tensor  # float32 [B, N], 0 for padding and crowds


class Vectors(NamedTuple):
    """Vectors that start at S cells, each for one keypoint."""

    cells: Tensor  # int32 [B, S], y * w + x
    keypoints: Tensor  # int32 [B, S], number of the keypoint within its task
    values: Tensor  # float32 [B, S, 2], y and x in cells
    weights: Tensor  # float32 [B, S]


class KeypointTargets(NamedTuple):
    """The targets of a task with P keypoints."""

    heatmap: Tensor  # float32 [B, h, w, P]
    heatmap_weights: Tensor  # float32 [B, h, w, P], 0 outside the image and in boxes whose keypoint is not labelled
    num_keypoints: Tensor  # float32 scalar, number of the labelled keypoints
    offsets: Vectors
    regression: Vectors


class LossTerm(NamedTuple):
    """One part of a loss as sum and normalizer, so that replicas can add both before they divide.

    The value over the global batch is ``sum over replicas of total / max(sum over replicas of normalizer, 1)``.
    """

    total: Tensor  # float32 scalar, already multiplied by the part's configured weight
    normalizer: Tensor  # float32 scalar, e.g. the number of matched anchors


class RegionTargets(NamedTuple):
    """The targets of the R regions of a second stage. Only positive regions have a box, a class and a row."""

    box_deltas: Tensor  # float32 [B, R, 4], else zeros
    classes: Tensor  # int32 [B, R], 0-based class of the matched object, else -1
    class_weights: Tensor  # float32 [B, R], 0 for ignored regions and for padding
    box_weights: Tensor  # float32 [B, R], 0 for all but positive regions
    gt_index: Tensor  # int32 [B, R], row of the matched ground truth, else 0
    label_sets: Any = ()  # of the Groundtruth


class RegionPredictions(NamedTuple):
    """The raw output of a two-stage detector."""

    first_stage: Any  # Predictions of the proposal head, C = 2; () for given proposals
    proposals: Proposals  # regions of the second stage; in training a sample
    box_deltas: Any  # float32 [B, R, Q, 4], Q = 1 or K; () for a first stage alone
    class_logits: Any  # float32 [B, R, K + 1], column 0 is the background; () for a first stage alone
    windows: Tensor  # float32 [B, 4], the part of the padded input that each image covers, in fractions of it
    targets: Any = ()  # RegionTargets in training, else ()
    mask_logits: Any = ()  # float32 [B, R, h, w, 1 or K] in training with a mask head, else ()
    maps: Any = ()  # level -> map to crop regions from, for the masks or features of detections
    canvas_shape: Any = ()  # int32 [2], (height, width) in pixels that the maps cover; () without maps


class MaskTargets(NamedTuple):
    """The targets of the locations of a mask proposal network; all except a sample are IGNORE."""

    state: Tensor  # int32 [B, A] of AnchorState
    gt_index: Tensor  # int32 [B, A], row of the object with the location's mask, 0 if not positive
    weights: Tensor  # float32 [B, A], 0 for ignored locations


class MaskProposalPredictions(NamedTuple):
    """The raw output of a mask proposal network: scores at A locations, masks at R of them."""

    score_logits: Tensor  # float32 [B, A]
    windows_norm: Tensor  # float32 [A, 4], area of a location's mask, fractions of the padded input
    chosen: Tensor  # int32 [B, R], locations of the predicted masks: the best, in training sampled positives
    scores: Tensor  # float32 [B, R], scores of these locations in [0, 1]; -1 in rows of padding
    mask_logits: Tensor  # float32 [B, R, h, w]
    targets: Any = ()  # MaskTargets in training, else ()


class Detections(NamedTuple):
    """Final detections, best first, padded with zeros. Boxes are fractions of the *true image*, clipped to [0, 1]."""

    boxes_norm: Tensor  # float32 [B, M, 4]
    scores: Tensor  # float32 [B, M]
    classes: Tensor  # int32 [B, M], 0-based
    num_valid: Tensor  # int32 [B]
    multiclass_scores: Tensor  # float32 [B, M, C], converted scores of the detection's anchor
    anchor_indices: Any = ()  # int32 [B, M]; () without anchors, as the next two
    raw_boxes_norm: Any = ()  # float32 [B, A, 4], every decoded box, before non-maximum suppression
    raw_scores: Any = ()  # float32 [B, A, C], every converted score
    masks: Any = ()  # float32 [B, M, h, w] in [0, 1], stretched over each box; () if not predicted
    # float32 [B, M, T, 2], (y, x) in fractions of the true image, not clipped; zeros for classes without keypoints.
    keypoints_norm: Any = ()
    keypoint_scores: Any = ()  # float32 [B, M, T]; both () if not predicted
    features: Any = ()  # float32 [B, M, h, w, C], from which a box is classified; () if not asked for


@dataclasses.dataclass(frozen=True)
class BatchNormHyperparams:
    """The batch normalisation in a part's ``conv_hyperparams``.

    ``train=False`` freezes the statistics (inference mode always); ``momentum`` is the config's ``decay``.
    """

    momentum: float = 0.999
    epsilon: float = 0.001
    center: bool = True
    scale: bool = False
    train: bool = True
    synchronized: bool = False


@dataclasses.dataclass(frozen=True)
class ConvHyperparams:
    """The initialisation, regularisation, normalisation and activation of a part's convolutions.

    ``kernel_initializer`` is called once per layer for a new Keras initializer, so that no two layers share a seed.
    ``l2_weight`` is Keras's factor of sum(w**2) (half of the config's ``l2_regularizer.weight``).
    """

    kernel_initializer: Callable[[], Any]
    l1_weight: float = 0.0
    l2_weight: float = 0.0
    regularize_depthwise: bool = False
    activation: str | Callable[[Tensor], Tensor] | None = "relu"  # "relu", "relu6", layers.activation.swish
    sum_activation: str | None = None  # activation of a residual block's sum; None for ``activation``
    batch_norm: BatchNormHyperparams | None = None
    force_use_bias: bool = False
    depthwise_initializer: Callable[[], Any] | None = None  # of a backbone's depthwise kernels; None for the same


class FeatureExtractor(NamedTuple):
    """A built backbone: a functional Keras model from the normalised image to its maps."""

    model: Any  # keras.Model: [B, H, W, 3] normalised image -> dict level -> [B, H_l, W_l, channels]
    specs: tuple[FeatureSpec, ...]  # in ascending order of level
    normalize: Callable[[Tensor], Tensor]  # RGB 0..255 float32 [..., 3] -> input of the model
