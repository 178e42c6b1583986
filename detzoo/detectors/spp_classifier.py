"""The classifier of whole images behind SPP-net, with and without its spatial pyramid.

He et al., arXiv:1406.4729, section 3. In training an image is a crop; in testing it is looked at in several views,
whose scores are averaged:

    image -> views (crops, or windows of the map) -> convolutions -> pyramid -> fc6, fc7, fc8 -> softmax -> mean

| section of the paper | here |
|---|---|
| 2.2 spatial pyramid pooling, 2.3 its windows | ``detzoo.ops.spatial_pyramid`` |
| 2.3 single-size and multi-size training | ``detzoo.data.class_images`` |
| 3.1.1 networks, table 1 | ``detzoo.features.spp_networks`` |
| 3.1.2 ten views | ``TestView.TEN_CROPS`` |
| 3.1.4 one crop, the full image | ``TestView.ONE_CROP``, ``FULL_IMAGE`` |
| 3.1.5 multi-view testing on feature maps | ``TestView.MAP_VIEWS`` |

The class of an image travels as that of its one object. So the trainer of the detectors trains a classifier, too.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from detzoo.config.spp_table import offset_px, stride_px
from detzoo.contracts import Groundtruth, LossTerm, Proposals, Tensor
from detzoo.data.class_images import NO_LIMIT_PX
from detzoo.data.resize import KeepAspectRatioResizer
from detzoo.detectors.base import Detector, ImageShape
from detzoo.features.spp_networks import SpatialPyramid, build_conv_layers, build_fully_connected
from detzoo.ops.region_pyramid import pool_windows, window_cells
from detzoo.ops.views import CENTER_AND_CORNERS, WITH_SIDES, num_distinct, window_origins

HALF_PIXEL = 0.5  # pixel i covers [i, i + 1)


class TestView(enum.Enum):
    """What of an image is looked at."""

    __test__ = False  # no class of tests, whatever its name

    TEN_CROPS = "ten_crops"
    ONE_CROP = "one_crop"
    FULL_IMAGE = "full_image"
    MAP_VIEWS = "map_views"


class ClassPredictions(NamedTuple):
    """What a classifier says about images."""

    scores: Tensor  # float32 [B, K], softmax; the mean over the views in testing
    logits: Any = ()  # float32 [B, K] in training, else ()


@dataclasses.dataclass(frozen=True)
class Views:
    """How images are tested.

    Attributes:
        view: which views.
        crop_size: side of crops and windows, pixels.
        map_scales: shorter sides of the images of ``MAP_VIEWS``; none: the image as it comes, with ten windows.
    """

    view: TestView
    crop_size: int
    map_scales: tuple[int, ...] = ()


class SppNetworkParts(NamedTuple):
    """A classifier's network in three pieces that share their layers with ``whole``."""

    whole: keras.Model  # images [B, H, W, 3] -> logits [B, K]
    convolutions: keras.Model  # images [B, H, W, 3] -> map [B, h, w, C]
    classify: keras.Model  # pooled [B, bins * C] -> logits [B, K]


class SppClassifier(Detector):
    """A classifier that answers the four verbs of a detector; its predictions are ``ClassPredictions``.

    Args:
        parts: the network.
        normalize: RGB 0..255 to what the network expects.
        network: key of ``SPP_NETWORKS``.
        bins: bins a side of each level of the pyramid.
        views: how images are tested.
        num_classes: K.
    """

    classifies_images = True

    def __init__(
        self,
        parts: SppNetworkParts,
        normalize: Callable[[Tensor], Tensor],
        network: str,
        bins: tuple[int, ...],
        views: Views,
        num_classes: int,
    ) -> None:
        _, height, width, _ = parts.whole.input_shape
        super().__init__(num_classes, (height, width), normalize, name="sppclassifier")
        self.network = parts.whole
        self.views = views
        self._parts = parts  # a tuple: Keras tracks the layers of ``network`` once
        self._bins = bins
        self._stride_px, self._offset_px = stride_px(network), offset_px(network) + HALF_PIXEL
        self.built = True

    def predict(  # type: ignore[override]
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> ClassPredictions:
        """Logits of crops in training; in testing the mean scores of the views.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``: crops in training; else images whose shorter side has the
                configured length, padded at the bottom and at the right.
            training: Whether dropout drops, and images are crops.
            true_shapes: int32 [B, 2], the part of each input that is the image; None for all of it.
            groundtruth: Not needed.
            proposals: Not needed.
        """
        del groundtruth, proposals
        inputs = tf.convert_to_tensor(inputs)
        if training:
            logits = tf.cast(self.network(inputs, training=True), tf.float32)
            return ClassPredictions(tf.nn.softmax(logits), logits)
        if true_shapes is None:
            return ClassPredictions(self._test(inputs))

        def test_one(element: tuple[Tensor, Tensor]) -> Tensor:
            image, shape = element
            return self._test(image[tf.newaxis, : shape[0], : shape[1]])[0]

        spec = tf.TensorSpec([self.num_classes], tf.float32)
        return ClassPredictions(tf.map_fn(test_one, (inputs, true_shapes), fn_output_signature=spec))

    def loss_terms(self, predictions: ClassPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """Softmax cross-entropy with the class of each image's one object; images without one do not count."""
        classes, weights = groundtruth.classes[:, 0], groundtruth.weights[:, 0]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(classes, 0), predictions.logits)
        counted = tf.where(classes >= 0, weights, 0.0)
        return {"classification": LossTerm(tf.reduce_sum(losses * counted), tf.reduce_sum(counted))}

    def postprocess(self, predictions: ClassPredictions, true_shapes: Tensor, padded_shape: Any) -> Tensor:  # type: ignore[override]
        """The scores, float32 [B, K]: there is nothing to decode or to suppress."""
        del true_shapes, padded_shape
        return predictions.scores

    def _test(self, images: Tensor) -> Tensor:
        """Mean scores [B, K] of the views of images [B, H, W, 3] without padding."""
        view = self.views.view
        if view is TestView.FULL_IMAGE:
            return self._scores(self.network(images))
        if view is TestView.MAP_VIEWS:
            return self._map_views(images)
        if view is TestView.ONE_CROP:
            return self._scores(self.network(self._crops(images)[0]))
        crops = self._crops(images)
        crops = tf.concat([*crops, *(tf.reverse(crop, axis=[2]) for crop in crops)], axis=0)
        return self._mean_of_views(self._scores(self.network(crops)), images)

    def _crops(self, images: Tensor) -> list[Tensor]:
        """Centre and corners, each [B, S, S, 3]."""
        side = self.views.crop_size
        origins = window_origins(tf.shape(images)[1:3], side, CENTER_AND_CORNERS)
        cuts = []
        for origin in tf.unstack(origins):
            row, column = tf.unstack(origin)
            cut = images[:, row : row + side, column : column + side]
            cuts.append(tf.ensure_shape(cut, [None, side, side, 3]))
        return cuts

    def _map_views(self, images: Tensor) -> Tensor:
        """Mean over windows of the maps of images and their mirror images, of all scales.

        Every window that differs from the others of its scale counts the same: 96 windows with the paper's six scales.
        """
        if not self.views.map_scales:
            return self._windows(images, CENTER_AND_CORNERS)
        total, count = tf.zeros([tf.shape(images)[0], self.num_classes]), tf.constant(0.0)
        for scale in self.views.map_scales:
            resized, _ = KeepAspectRatioResizer(min_dimension=scale, max_dimension=NO_LIMIT_PX)(images)
            distinct = tf.cast(num_distinct(tf.shape(resized)[1:3], self.views.crop_size, WITH_SIDES), tf.float32)
            total, count = total + distinct * self._windows(resized, WITH_SIDES), count + distinct
        return total / count

    def _windows(self, images: Tensor, places: tuple[tuple[int, int], ...]) -> Tensor:
        """Mean scores [B, K] of windows of the maps of images [B, H, W, 3] and of their mirror images."""
        batch, shape = tf.shape(images)[0], tf.shape(images)[1:3]
        maps = self._parts.convolutions(tf.concat([images, tf.reverse(images, axis=[2])], axis=0))
        origins = tf.cast(window_origins(shape, self.views.crop_size, places), tf.float32)
        windows_px = tf.concat([origins, origins + self.views.crop_size], axis=1)
        cells = window_cells(windows_px, tf.shape(maps)[1:3], self._stride_px, self._offset_px)
        count = len(places)
        # Window by window, each of all maps, so that the views of an image stand as those of crops do.
        indices = tf.tile(tf.range(2 * batch), [count])
        pooled = pool_windows(maps, tf.repeat(cells, 2 * batch, axis=0), indices, self._bins)
        pooled = tf.reshape(pooled, [-1, self._parts.classify.input_shape[-1]])
        return self._mean_of_views(self._scores(self._parts.classify(pooled)), images)

    def _mean_of_views(self, scores: Tensor, images: Tensor) -> Tensor:
        """[V * B, K], view by view, to [B, K]."""
        return tf.reduce_mean(tf.reshape(scores, [-1, tf.shape(images)[0], self.num_classes]), axis=0)

    def _scores(self, logits: Tensor) -> Tensor:
        return tf.nn.softmax(tf.cast(logits, tf.float32))


def spp_classifier_network(
    image_shape_px: ImageShape,
    network: str,
    bins: tuple[int, ...],
    num_classes: int,
    *,
    fc_depth: int = 4096,
    dropout_rate: float = 0.5,
    depth_multiplier: float = 1.0,
    weight_decay: float = 0.0,
) -> SppNetworkParts:
    """Wires convolutions, pyramid and fully connected layers.

    The variables' paths start with ``backbone/``, ``box_backbone/`` (fc6, fc7) and ``head/`` (fc8).

    Args:
        image_shape_px: (height, width), None where any size is accepted.
        network: key of ``SPP_NETWORKS``.
        bins: bins a side of each level; (6,) for the network without a pyramid.
        num_classes: K.
        fc_depth: units of fc6 and fc7.
        dropout_rate: of both.
        depth_multiplier: factor of the convolutions' channels.
        weight_decay: weight w of w * sum(x**2) / 2 over all kernels.
    """
    images = keras.Input((*image_shape_px, 3), name="image", dtype="float32")
    features = build_conv_layers(images, network, depth_multiplier, weight_decay)
    pooled = SpatialPyramid(bins, name="pool5")(features)
    vectors = keras.Input(pooled.shape[1:], name="pooled")
    x = build_fully_connected(vectors, fc_depth, dropout_rate, weight_decay).fc7
    with keras.name_scope("head"):
        logits = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.HeNormal(),
            kernel_regularizer=keras.regularizers.L2(weight_decay / 2) if weight_decay else None,
            name="fc8",
        )(x)
    logits = keras.layers.Activation("linear", name="class_logits", dtype="float32")(logits)
    classify = keras.Model(vectors, logits, name="fully_connected")
    whole = keras.Model(images, classify(pooled), name="network")
    return SppNetworkParts(whole, keras.Model(images, features, name="convolutions"), classify)
