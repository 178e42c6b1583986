"""The image classifier of SPP-net, with and without the spatial pyramid.

He et al., arXiv:1406.4729, section 3. In training an image is a crop. In testing the scores of several views are
averaged:

    image -> views (crops, or windows of the map) -> convolutions -> pyramid -> fc6, fc7, fc8 -> softmax -> mean

| section of the paper | here |
|---|---|
| 2.2 spatial pyramid pooling, 2.3 its windows | ``detzoo.ops.spatial_pyramid`` |
| 2.3 single-size and multi-size training | ``detzoo.data.class_images`` |
| 3.1.1 networks, table 1 | ``detzoo.features.spp_networks`` |
| 3.1.2 ten views | ``TestView.TEN_CROPS`` |
| 3.1.4 one crop, the full image | ``TestView.ONE_CROP``, ``FULL_IMAGE`` |
| 3.1.5 multi-view testing on feature maps | ``TestView.MAP_VIEWS`` |
| 3.2, 3.3 features of a layer for other data sets | ``SppClassifier.feature_model`` |

The class of an image is stored as that of one object, so the trainer of detectors trains classifiers, too.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from detzoo.config.spp_table import offset_px, stride_px
from detzoo.contracts import Groundtruth, LossTerm, Proposals, Tensor
from detzoo.data.class_images import NO_LIMIT_PX
from detzoo.data.resize import KeepAspectRatioResizer
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.parts import part
from detzoo.features.spp_networks import FullyConnected, SpatialPyramid, build_conv_layers, build_fully_connected
from detzoo.ops.region_pyramid import pool_windows, window_cells
from detzoo.ops.views import CENTER_AND_CORNERS, WITH_SIDES, num_distinct, window_origins

HALF_PIXEL = 0.5  # pixel i covers [i, i + 1)
POOLED_LAYER = "pool5"


class TestView(enum.Enum):
    """Views of an image in testing."""

    __test__ = False  # no test class for pytest

    TEN_CROPS = "ten_crops"
    ONE_CROP = "one_crop"
    FULL_IMAGE = "full_image"
    MAP_VIEWS = "map_views"


class ClassPredictions(NamedTuple):
    """Predictions of a classifier."""

    scores: Tensor  # float32 [B, K], softmax; the mean over the views in testing
    logits: Any = ()  # float32 [B, K] in training, else ()


@dataclasses.dataclass(frozen=True)
class Views:
    """Options of testing."""

    view: TestView  # kind of views
    crop_size: int  # side of crops and windows in pixels
    # Shorter sides of the images of ``MAP_VIEWS``; empty for the unscaled image with ten windows.
    map_scales: tuple[int, ...] = ()


class SppNetworkParts(NamedTuple):
    """Network of a classifier and two parts of it with shared layers."""

    whole: keras.Model  # images [B, H, W, 3] -> logits [B, K]
    convolutions: keras.Model  # images [B, H, W, 3] -> map [B, h, w, C]
    classify: keras.Model  # pooled [B, bins * C] -> logits [B, K]


class SppClassifier(Detector):
    """Classifier with the verbs of a detector; predictions are ``ClassPredictions``.

    Args:
        parts: Network.
        normalize: Function from RGB 0..255 to the values that the network expects.
        network: Key of ``SPP_NETWORKS``.
        bins: Bins per side for each level of the pyramid.
        views: Options of testing.
        num_classes: Number of classes K.
    """

    classifies_images = True
    backbone = part("backbone")
    box_backbone = part("box_backbone")
    head = part("head")

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

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> ClassPredictions:
        """Returns logits of crops in training and for a loss, and mean scores of the views in testing.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``. Crops in training and with ground truth; otherwise
                images with a shorter side of the configured length, padded at the bottom and at the right.
            training: Dropout is active.
            true_shapes: int32 [B, 2], the part of each input that is the image; None for the whole input.
            groundtruth: Ground truth of crops, for a loss.
            proposals: Not needed.
        """
        del proposals
        inputs = tf.convert_to_tensor(inputs)
        if training or groundtruth is not None:
            logits = tf.cast(self.network(inputs, training=training), tf.float32)
            return ClassPredictions(tf.nn.softmax(logits), logits)
        if true_shapes is None:
            return ClassPredictions(self._test(inputs))

        @tf.autograph.experimental.do_not_convert
        def test_one(element: tuple[Tensor, Tensor]) -> Tensor:
            image, shape = element
            return self._test(image[tf.newaxis, : shape[0], : shape[1]])[0]

        spec = tf.TensorSpec([self.num_classes], tf.float32)
        return ClassPredictions(tf.map_fn(test_one, (inputs, true_shapes), fn_output_signature=spec))

    def loss_terms(self, predictions: ClassPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """Returns softmax cross-entropy with the class of each image; images without a class do not count."""
        classes, weights = groundtruth.classes[:, 0], groundtruth.weights[:, 0]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(classes, 0), predictions.logits)
        counted = tf.where(classes >= 0, weights, 0.0)
        return {"classification": LossTerm(tf.reduce_sum(losses * counted), tf.reduce_sum(counted))}

    def postprocess(self, predictions: ClassPredictions, true_shapes: Tensor, padded_shape: Any) -> Tensor:  # type: ignore[override]
        """Returns the scores, float32 [B, K]."""
        del true_shapes, padded_shape
        return predictions.scores

    def feature_layers(self) -> list[str]:
        """Returns the names of the layers that ``feature_model`` accepts, from input to output."""
        names = [layer.name for layer in self._parts.convolutions.layers[1:]]
        convolutions = [name for name in names if not name.endswith("_pad")]
        return [*convolutions, POOLED_LAYER, *FullyConnected._fields]

    def feature_model(self, name: str, bins: Sequence[int] = ()) -> keras.Model:
        """Returns a model from normalised images [B, H, W, 3] to the features of a layer, [B, F].

        Args:
            name: One of ``feature_layers``; "pool5" is the last map in the network's own pyramid.
            bins: Bins per side of each level of a pyramid that pools the map of ``name``; without it a map becomes one
                vector, whose length depends on the image's size. Fully connected layers have no map.
        """
        convolutions, classify = self._parts.convolutions, self._parts.classify
        x = convolutions.output
        if name in FullyConnected._fields:
            x = keras.Model(classify.input, classify.get_layer(name).output)(SpatialPyramid(self._bins)(x))
        elif name == POOLED_LAYER:
            x = SpatialPyramid(bins or self._bins)(x)
        else:
            x = convolutions.get_layer(name).output
            x = SpatialPyramid(bins)(x) if bins else keras.layers.Flatten()(x)
        return keras.Model(convolutions.input, x)

    def _test(self, images: Tensor) -> Tensor:
        """Returns mean scores [B, K] of the views of images [B, H, W, 3] without padding."""
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
        """Returns crops of the centre and the corners, each [B, S, S, 3]."""
        side = self.views.crop_size
        origins = window_origins(tf.shape(images)[1:3], side, CENTER_AND_CORNERS)
        cuts = []
        for origin in tf.unstack(origins):
            row, column = tf.unstack(origin)
            cut = images[:, row : row + side, column : column + side]
            cuts.append(tf.ensure_shape(cut, [None, side, side, 3]))
        return cuts

    def _map_views(self, images: Tensor) -> Tensor:
        """Returns the mean over windows of the maps of images and mirror images at all scales.

        All distinct windows of a scale have equal weight: 96 windows with the paper's six scales.
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
        """Returns mean scores [B, K] of windows of the maps of images [B, H, W, 3] and of mirror images."""
        batch, shape = tf.shape(images)[0], tf.shape(images)[1:3]
        maps = self._parts.convolutions(tf.concat([images, tf.reverse(images, axis=[2])], axis=0))
        origins = tf.cast(window_origins(shape, self.views.crop_size, places), tf.float32)
        windows_px = tf.concat([origins, origins + self.views.crop_size], axis=1)
        cells = window_cells(windows_px, tf.shape(maps)[1:3], self._stride_px, self._offset_px)
        count = len(places)
        # Window by window, each of all maps, which is the order of crops.
        indices = tf.tile(tf.range(2 * batch), [count])
        pooled = pool_windows(maps, tf.repeat(cells, 2 * batch, axis=0), indices, self._bins)
        pooled = tf.reshape(pooled, [-1, self._parts.classify.input_shape[-1]])
        return self._mean_of_views(self._scores(self._parts.classify(pooled)), images)

    def _mean_of_views(self, scores: Tensor, images: Tensor) -> Tensor:
        """Averages scores [V * B, K], ordered by view, to [B, K]."""
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
        image_shape_px: (height, width), None for any size.
        network: Key of ``SPP_NETWORKS``.
        bins: Bins per side for each level; (6,) for the network without a pyramid.
        num_classes: Number of classes K.
        fc_depth: Units of fc6 and fc7.
        dropout_rate: Dropout rate of fc6 and fc7.
        depth_multiplier: Factor of the convolutions' channels.
        weight_decay: Weight w of w * sum(x**2) / 2 over all kernels.
    """
    images = keras.Input((*image_shape_px, 3), name="image", dtype="float32")
    features = build_conv_layers(images, network, depth_multiplier, weight_decay)
    pooled = SpatialPyramid(bins, name=POOLED_LAYER)(features)
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
