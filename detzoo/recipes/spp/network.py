"""An SPP-net with arrays as inputs and outputs, each part traced once."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from detzoo.checkpoints.layout import variables_by_path
from detzoo.detectors.spp_net import SppNet
from detzoo.features.spp_networks import BACKBONE
from detzoo.recipes.spp.map_cache import fingerprint


class DetectorFeatures:
    """Maps, pooled windows and features of an SPP-net; later changes of its weights take effect.

    Attributes:
        pooled_depth: Length D of a pooled window.
        classifier_depth: Length F of the features that the SVMs read.
    """

    def __init__(self, detector: SppNet) -> None:
        self._detector = detector
        self.pooled_depth, self.classifier_depth = detector.parts.num_pooled, detector.parts.num_features
        channels = detector.backbone.output_shape[-1]
        image_spec = tf.TensorSpec([None, None, 3], tf.float32)
        map_specs = tuple(tf.TensorSpec([None, None, channels], tf.float32) for _ in detector.scales.shorter_sides)
        window_spec, shape_spec = tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([2], tf.int32)
        pooled_spec = tf.TensorSpec([None, self.pooled_depth], tf.float32)
        self._maps = tf.function(self._traced_maps, [image_spec], autograph=False)
        self._pool = tf.function(self._traced_pool, [map_specs, window_spec, shape_spec], autograph=False)
        self._classify = tf.function(detector.classified_features, [pooled_spec], autograph=False)

    def maps(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the feature maps [h, w, C] per scale of an image [H, W, 3], RGB, 0..255."""
        return tuple(each.numpy() for each in self._maps(image.astype(np.float32)))

    def pool(self, maps: tuple[np.ndarray, ...], windows_norm: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
        """Pools windows [R, 4] of these maps to float32 [R, D]."""
        given = tuple(tf.constant(each) for each in maps)
        return self._pool(given, tf.constant(windows_norm, tf.float32), tf.constant(image_shape, tf.int32)).numpy()

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Returns the features float32 [R, F] that the SVMs read for pooled windows [R, D]."""
        return self._classify(tf.constant(pooled)).numpy()

    def fingerprint(self) -> str:
        """Returns a digest of the weights and scales that the maps depend on."""
        variables = variables_by_path(self._detector.backbone.variables)
        parts, scales = self._detector.parts, self._detector.scales
        facts = (BACKBONE, parts.network, scales.shorter_sides)
        return fingerprint({path: variable.numpy() for path, variable in variables.items()}, *facts)

    def _traced_maps(self, image: tf.Tensor) -> tuple[tf.Tensor, ...]:
        maps = self._detector.feature_maps(self._detector.preprocess(image[tf.newaxis]))
        return tuple(maps[number][0] for number in sorted(maps))

    def _traced_pool(self, maps: tuple[tf.Tensor, ...], windows_norm: tf.Tensor, shape_px: tf.Tensor) -> tf.Tensor:
        by_scale = {number: each[tf.newaxis] for number, each in enumerate(maps)}
        return self._detector.pool(by_scale, shape_px, windows_norm[tf.newaxis])[0]
