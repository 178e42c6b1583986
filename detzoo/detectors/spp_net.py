"""SPP-net's detector: the convolutions run once per image, and a pyramid of bins pools them in every window.

He et al., "Spatial pyramid pooling in deep convolutional networks", arXiv:1406.4729, section 4. Windows are inputs; the
paper finds them by selective search.

    image -> the image at 1 or 5 scales -> convolutions -> maps
    windows --scale of the size nearest to 224 x 224--> cells of that map -> 50 bins -> pooled -> fc6 -> fc7
    pooled, fc6 or fc7 -> one linear SVM per class -> score        pooled -> box regression -> box

| section of the paper | here |
|---|---|
| 4.1 maps once for each image | ``feature_maps`` |
| appendix A, windows on a map, their bins | ``pool``, with ``detzoo.ops.region_pyramid`` |
| 4.1 five scales, each window at one of them | ``choose_scales`` |
| 4.1 fc6 and fc7, and the 21-way fc8 of the fine-tuning | ``fully_connected``, ``fc8_logits`` |
| 4.1 one SVM per class | ``margins`` |
| 4.1 box regression from pooled features | ``box_deltas`` |
| 4.1 suppression at 0.3 | ``postprocess`` |

Training in steps (``detzoo.recipes.spp``) calls the parts: ``preprocess`` -> ``feature_maps`` (stored on disk) ->
``pool`` -> ``fully_connected`` -> ``classified_features`` -> ``margins``, ``box_deltas``.

The variables' paths: ``backbone/conv1/kernel`` ..., ``box_backbone/fc6/kernel``, ``box_backbone/fc7/kernel`` (as in
``detzoo.detectors.spp_classifier``, whose checkpoints are the initialisation), ``head/fc8/kernel`` [4096, K + 1] with
the background first, ``svm/kernel`` [F, K], ``box_regression/kernel`` [pooled, 4 K], and a bias for each.

Differs from the paper: a score is the sigmoid of an SVM's margin, because scores must lie in 0..1. The order is the
same.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from detzoo.config.spp_table import Padding, num_channels, offset_px, stride_px
from detzoo.contracts import (
    Detections,
    Groundtruth,
    LossTerm,
    Predictions,
    Proposals,
    RegionPredictions,
    Tensor,
)
from detzoo.detectors.base import Detector
from detzoo.features.spp_networks import BACKBONE, FullyConnected, build_conv_layers, build_fully_connected
from detzoo.layers.stage_end import FEATURES
from detzoo.ops import boxes
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.nms import NmsLimits
from detzoo.ops.region_pyramid import choose_scales, pool_windows, window_cells
from detzoo.ops.roi_crop import multilevel_crop
from detzoo.ops.spatial_pyramid import num_bins
from detzoo.postprocess.dense_detections import whole_image_windows
from detzoo.postprocess.region_detections import RegionDetections
from detzoo.postprocess.scores import ScoreConverter, ScoreFunction

FC8, SVM, BOX_REGRESSION = (
    "head/fc8",
    "svm",
    "box_regression",
)  # of the variables' paths, in addition to those of spp_networks
BOX_CODER = FasterRcnnBoxCoder((1.0, 1.0, 1.0, 1.0))  # R-CNN's four numbers, as ty, tx, th, tw (arXiv:1311.2524)
_PIXEL_CENTER = 0.5  # of pixel 0, where places are continuous
_FC8_STDDEV = 0.01  # section 4.1


class Features(enum.Enum):
    """Features that the SVMs read; fc8 always reads fc7."""

    POOL5 = "pool5"
    FC6 = "fc6"
    FC7 = "fc7"


@dataclasses.dataclass(frozen=True)
class WindowScales:
    """Sizes of an image, and the choice of a size per window."""

    shorter_sides: tuple[int, ...] = (688,)  # shorter side of the image in pixels for each scale
    window_size: int = 224  # a window is pooled at the scale at which its area is closest to a square of this side


@dataclasses.dataclass(frozen=True)
class SppParts:
    """Parts of an SPP-net."""

    network: str = "zf_5"  # key of ``detzoo.config.spp_table.SPP_NETWORKS``
    pyramid_bins: tuple[int, ...] = (6, 3, 2, 1)  # bins per side for each level
    fc_depth: int = 4096  # units of fc6 and fc7
    dropout: float = 0.5  # dropout rate of fc6 and fc7
    depth_multiplier: float = 1.0  # factor of the convolutions' channels
    weight_decay: float = 0.0  # weight w of w * sum(x**2) / 2 of each kernel
    features: Features = Features.FC7  # features that the SVMs read
    has_fine_tuning: bool = True  # the network has fc8; without SVMs its softmax is the score
    has_svm: bool = True  # the network has SVMs
    has_box_regression: bool = True  # boxes are refined; otherwise they are the windows

    @property
    def num_pooled(self) -> int:
        """Length of the pooled features of a window."""
        return num_bins(self.pyramid_bins) * num_channels(self.network, self.depth_multiplier)

    @property
    def num_features(self) -> int:
        """Length of the features that the SVMs read."""
        return self.num_pooled if self.features is Features.POOL5 else self.fc_depth

    @property
    def has_fully_connected(self) -> bool:
        """True if the network has fc6 and fc7."""
        return self.features is not Features.POOL5 or self.has_fine_tuning


class SppNet(Detector):
    """SPP-net's detector, which takes unscaled images of one size and resizes them.

    Args:
        parts: Parts of the network.
        scales: Sizes of the image.
        limits: Limits of the suppression.
        normalize: Function from RGB 0..255 to the values that the network expects.
        max_proposals: Number of windows per image; further windows are ignored.
        num_classes: Number of classes, the background not counted.
    """

    wants_proposals = True
    trained_in_steps = True

    def __init__(
        self,
        parts: SppParts,
        scales: WindowScales,
        limits: NmsLimits,
        normalize: Callable[[Tensor], Tensor],
        max_proposals: int,
        num_classes: int,
    ) -> None:
        super().__init__(num_classes, (None, None), normalize, name="spp_net")
        self.parts, self.scales, self.max_proposals = parts, scales, max_proposals
        self.stride_px = stride_px(parts.network)
        self.offset_px = offset_px(parts.network, Padding.CENTERED) + _PIXEL_CENTER
        self._detections = RegionDetections(
            BOX_CODER, ScoreConverter(ScoreFunction.SIGMOID if parts.has_svm else ScoreFunction.SOFTMAX), limits
        )
        images = keras.Input((None, None, 3), name="image", dtype="float32")
        features = build_conv_layers(
            images, parts.network, parts.depth_multiplier, parts.weight_decay, Padding.CENTERED
        )
        self.backbone = keras.Model(images, features, name=BACKBONE)
        self._build_heads(num_classes)
        self.built = True

    def _build_heads(self, num_classes: int) -> None:
        parts = self.parts
        pooled = keras.Input((parts.num_pooled,), name="pooled", dtype="float32")
        self.fc_layers: Any = None
        self.fc8: Any = None
        self.svm: Any = None
        self.box_regression: Any = None
        if parts.has_fully_connected:
            layers = build_fully_connected(pooled, parts.fc_depth, parts.dropout, parts.weight_decay)
            self.fc_layers = keras.Model(pooled, layers._asdict(), name="fully_connected")
        if parts.has_fine_tuning:
            scope, name = FC8.split("/")
            start = keras.initializers.RandomNormal(stddev=_FC8_STDDEV)
            self.fc8 = _linear(parts.fc_depth, num_classes + 1, name, start, scope)
        if parts.has_svm:
            self.svm = _linear(parts.num_features, num_classes, SVM)
        if parts.has_box_regression:
            self.box_regression = _linear(parts.num_pooled, 4 * num_classes, BOX_REGRESSION)

    def feature_maps(self, inputs: Tensor) -> dict[int, Tensor]:
        """Computes the feature maps of images at each scale.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``.

        Returns:
            Position in ``scales.shorter_sides`` to float32 [B, h, w, C].
        """
        sizes = tf.unstack(self.scaled_sizes(tf.shape(inputs)[1:3]))
        maps = [self.backbone(tf.image.resize(inputs, size)) for size in sizes]
        return {number: tf.identity(x, name=f"{FEATURES}{number}") for number, x in enumerate(maps)}

    def scaled_sizes(self, shape_px: Tensor) -> Tensor:
        """Returns (height, width) int32 [S, 2] at each scale for an image of ``shape_px`` (int32 [2])."""
        sides = tf.cast(shape_px, tf.float32)
        factors = tf.constant(self.scales.shorter_sides, tf.float32) / tf.reduce_min(sides)
        return tf.cast(tf.round(factors[:, tf.newaxis] * sides), tf.int32)

    def pool(self, maps: Mapping[int, Tensor], shape_px: Tensor, windows_norm: Tensor) -> Tensor:
        """Pools the features of windows, each from the map of its scale.

        Args:
            maps: Result of ``feature_maps``.
            shape_px: int32 [2], (height, width) of the images.
            windows_norm: float32 [B, R, 4], fractions of the image.

        Returns:
            float32 [B, R, ``parts.num_pooled``], in the order of ``detzoo.ops.spatial_pyramid``.
        """
        sizes = self.scaled_sizes(shape_px)
        map_shapes = tf.stack([tf.shape(maps[number])[1:3] for number in sorted(maps)])
        numbers = choose_scales(
            boxes.to_px(windows_norm, shape_px), shape_px, self.scales.shorter_sides, self.scales.window_size
        )
        cells = window_cells(
            boxes.to_px(windows_norm, tf.gather(sizes, numbers)),
            tf.gather(map_shapes, numbers),
            float(self.stride_px),
            self.offset_px,
        )
        crop = functools.partial(pool_windows, pyramid_bins=self.parts.pyramid_bins)
        pooled = multilevel_crop(maps, cells, numbers, crop)
        return tf.reshape(pooled, [*_leading(windows_norm), self.parts.num_pooled])

    def fully_connected(self, pooled: Tensor, training: bool = False) -> FullyConnected:
        """Returns fc6 and fc7, float32 [..., fc_depth], of pooled features [..., ``parts.num_pooled``]."""
        return FullyConnected(**_by_row(lambda rows: self.fc_layers(rows, training=training), pooled))

    def fc8_logits(self, fc7: Tensor) -> Tensor:
        """Returns logits float32 [..., K + 1] of fc8, the background first."""
        return _by_row(self.fc8, fc7)

    def classified_features(self, pooled: Tensor) -> Tensor:
        """Returns the features that the SVMs read, float32 [..., ``parts.num_features``]."""
        if self.parts.features is Features.POOL5:
            return pooled
        layers = self.fully_connected(pooled)
        return layers.fc6 if self.parts.features is Features.FC6 else layers.fc7

    def margins(self, features: Tensor) -> Tensor:
        """Returns the SVMs' margins float32 [..., K] of ``classified_features``."""
        return _by_row(self.svm, features)

    def box_deltas(self, pooled: Tensor) -> Tensor:
        """Returns boxes encoded by ``BOX_CODER``, float32 [..., K, 4], or zeros [..., 1, 4] without box regression."""
        leading = _leading(pooled)
        if self.box_regression is None:
            return tf.zeros([*leading, 1, 4])
        return tf.reshape(_by_row(self.box_regression, pooled), [*leading, self.num_classes, 4])

    def class_logits(self, pooled: Tensor) -> Tensor:
        """Returns logits float32 [..., K + 1] of fc8, or the negated best margin and the SVMs' margins."""
        if self.svm is None:
            return self.fc8_logits(self.fully_connected(pooled).fc7)
        margins = self.margins(self.classified_features(pooled))
        return tf.concat([-tf.reduce_max(margins, axis=-1, keepdims=True), margins], axis=-1)

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> RegionPredictions:
        """See ``Detector.forward``. The images fill ``inputs``, and ``proposals`` are required.

        Padding rows that no image needs are dropped, so the result may have fewer regions.
        """
        del training, groundtruth, true_shapes
        if proposals is None:
            raise ValueError("SPP-net has no first stage: predict needs proposals")
        proposals = _without_padding(proposals, self.max_proposals)
        pooled = self.pool(self.feature_maps(inputs), tf.shape(inputs)[1:3], proposals.boxes_norm)
        windows = whole_image_windows(tf.shape(inputs)[0])
        return RegionPredictions((), proposals, self.box_deltas(pooled), self.class_logits(pooled), windows)

    def loss_terms(self, predictions: Predictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """SPP-net is trained in steps, without a loss per image.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("SPP-net is trained in steps (detzoo.recipes.spp) and has no loss per image")

    def postprocess(
        self, predictions: RegionPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``."""
        return self._detections(predictions, true_shapes, padded_shape)


def _linear(
    num_inputs: int,
    num_outputs: int,
    name: str,
    start: keras.initializers.Initializer | None = None,
    scope: str = "",
) -> keras.Model:
    """Builds a linear layer with a bias as a model; zeros without an initializer."""
    given = keras.Input((num_inputs,), name=f"{name}_input", dtype="float32")
    layer = keras.layers.Dense(num_outputs, kernel_initializer=start or "zeros", dtype="float32", name=name)
    if not scope:
        return keras.Model(given, layer(given), name=f"{name}_model")
    with keras.name_scope(scope):
        return keras.Model(given, layer(given), name=f"{name}_model")


def _leading(x: Tensor) -> list[Any]:
    """Returns all sizes but the last, as ints if they are static and as scalar tensors if not."""
    dynamic = tf.shape(x)
    return [dynamic[axis] if x.shape[axis] is None else x.shape[axis] for axis in range(x.shape.rank - 1)]


def _by_row(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Applies a function of rows [N, F] -> [N, G] (or a dict of these) to ``x`` [..., F], giving [..., G]."""
    leading = _leading(x)
    found = function(tf.reshape(x, [-1, x.shape[-1]]))
    return tf.nest.map_structure(lambda rows: tf.reshape(rows, [*leading, rows.shape[-1]]), found)


def _without_padding(proposals: Proposals, max_proposals: int) -> Proposals:
    """Returns the first proposals without rows that are padding in every image, but at least one row."""
    num_valid = tf.minimum(proposals.num_valid, max_proposals)
    num_rows = tf.maximum(tf.reduce_max(num_valid), 1)
    boxes_norm = tf.pad(proposals.boxes_norm, [[0, 0], [0, 1], [0, 0]])[:, :num_rows]
    return Proposals(boxes_norm, tf.pad(proposals.scores, [[0, 0], [0, 1]])[:, :num_rows], num_valid)
