"""``feature_extractor`` of a two-stage detector -> its backbone, its neck, and the layers after the crop (floor 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras

from detzoo.builders.features import build_network, frozen, normalization, overridden
from detzoo.builders.hyperparams import L2_HALF, build_hyperparams
from detzoo.config import pb
from detzoo.config.stages import keeps_backbone
from detzoo.config.support import RegionExtractor, lookup_region_extractor
from detzoo.contracts import ConvHyperparams, FeatureExtractor, FeatureSpec, Tensor
from detzoo.features import vgg
from detzoo.features.network import Network
from detzoo.features.pretrained import load_pretrained
from detzoo.features.rewrite import (
    REGION_MODEL_NAME,
    RegionStride,
    build_extractor_model,
    build_region_model,
    entry_stride,
)
from detzoo.heads.box_head import fully_connected_features
from detzoo.necks.feature_pyramid import CoarseLevels, PyramidParts, feature_pyramid

CROPPED_LEVEL, LAST_LEVEL = 4, 5
PYRAMID_STRIDE = 32
VGG_FC_DEPTH, FC_DEPTH = 4096, 1024
# Backbones that the Object Detection API's two-stage detectors regularize.
_KEEPS_WEIGHT_DECAY = ("nasnet", "pnasnet")

_STRIDES = {
    pb.FasterRcnnFeatureExtractor.STRIDED: RegionStride.STRIDED,
    pb.FasterRcnnFeatureExtractor.DENSE: RegionStride.DENSE,
    pb.FasterRcnnFeatureExtractor.DILATED: RegionStride.DILATED,
}
_COARSE = {
    pb.FeaturePyramidNetworks.PYRAMID: CoarseLevels.CONVOLVE_PYRAMID,
    pb.FeaturePyramidNetworks.BACKBONE: CoarseLevels.CONVOLVE_BACKBONE,
    pb.FeaturePyramidNetworks.SUBSAMPLE: CoarseLevels.SUBSAMPLE,
}

Neck = Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]]


@dataclasses.dataclass(frozen=True)
class RegionFeatures:
    """A two-stage detector's ``feature_extractor`` block, read."""

    message: pb.FasterRcnnFeatureExtractor
    row: RegionExtractor  # its entry in the table of types
    network: Network  # the classification network that it is cut from
    hyperparams: ConvHyperparams  # hyperparameters of the network's layers
    added_hyperparams: ConvHyperparams  # hyperparameters of the added layers: the pyramid, the fully connected layers

    def backbone(self, image_shape: tuple[int | None, int | None]) -> FeatureExtractor:
        """Builds the layers before the crop, with pretrained weights if the config names any."""
        message = self.message
        if self.row.is_fpn:
            levels: tuple[int, ...] = tuple(range(message.fpn.min_level, min(message.fpn.max_level, LAST_LEVEL) + 1))
            stride = PYRAMID_STRIDE
        else:
            levels = (LAST_LEVEL if message.use_last_map else CROPPED_LEVEL,)
            stride = message.first_stage_features_stride
        model = build_extractor_model(self.network, levels, image_shape, self.hyperparams, stride)
        self._prepare(model)
        specs = tuple(FeatureSpec(level, feature_map.shape[-1]) for level, feature_map in model.output.items())
        return FeatureExtractor(model, specs, normalization(self.row))

    def neck(self) -> Neck:
        """Builds the feature pyramid; a copy of the maps for an extractor with one map."""
        if not self.row.is_fpn:
            return dict
        block = self.message.fpn
        parts = PyramidParts(
            top_down=block.top_down_pathway,
            lateral=block.lateral_connections,
            finest_only=block.finest_level_only,
            coarse_levels=_COARSE[block.coarse_source],
            is_normalized=block.top_down_normalization,
        )
        depth, coarsest = block.additional_layer_depth, block.max_level
        return lambda maps: feature_pyramid(maps, depth, coarsest, self.added_hyperparams, parts)

    def is_fully_connected(self, model: pb.FasterRcnn) -> bool:
        """Returns True for two fully connected layers after the crop, False for the rest of the backbone."""
        return not keeps_backbone(model, self.row)

    def region_stride(self) -> RegionStride:
        """Returns the stride of the layers after the crop."""
        chosen = self.message.crop_stride
        if chosen != pb.FasterRcnnFeatureExtractor.TYPE:
            return _STRIDES[chosen]
        return RegionStride.DENSE if self.row.is_dense_after_crop else RegionStride.STRIDED

    def crop_stride(self) -> int:
        """Returns n if the layers after the crop read every n-th cell, so that the others need no crop."""
        if self.region_stride() is not RegionStride.STRIDED:
            return 1
        return entry_stride(self.network, CROPPED_LEVEL)

    def after_crop(self, input_shape: tuple[int | None, int | None, int], stride: RegionStride) -> keras.Model:
        """Builds the rest of the backbone, [N, h, w, C] -> [N, h', w', C']."""
        levels = (CROPPED_LEVEL, LAST_LEVEL)
        # The Object Detection API's TensorFlow 1 graph does not pad Mixed_7a, its Keras model does.
        keeps_padding = self.row.family == "inception_resnet_v2" and self.row.is_first_generation
        keeps_padding = keeps_padding and stride is RegionStride.STRIDED
        model = build_region_model(self.network, levels, input_shape, self.hyperparams, stride, keeps_padding)
        self._prepare(model)
        return model

    def fully_connected(self, input_shape: tuple[int, int, int], depth: int) -> keras.Model:
        """Builds two fully connected layers instead of the rest of the backbone, [N, h, w, C] -> [N, 1, 1, depth].

        VGG's have dropout, and ImageNet's weights if their shape is the classifier's.
        """
        is_vgg = self.row.family == "vgg16" and not self.row.is_fpn
        region = keras.Input(input_shape, name="region")
        with keras.name_scope(REGION_MODEL_NAME):
            features = fully_connected_features(
                region,
                depth or (VGG_FC_DEPTH if is_vgg else FC_DEPTH),
                self.added_hyperparams.batch_norm,
                dropout_rate=vgg.FC_DROPOUT_RATE if is_vgg else 0.0,
                l2_weight=L2_HALF * self.message.weight_decay,
            )
        model = keras.Model(region, features, name=REGION_MODEL_NAME)
        if is_vgg and self.message.pretrained_weights:
            load_pretrained(model, self.message.pretrained_weights, vgg.CLASSIFIER)
        return model

    def _prepare(self, model: keras.Model) -> None:
        if self.message.pretrained_weights:
            load_pretrained(model, self.message.pretrained_weights, self.network.application)
        if self.message.freeze_backbone:
            model.trainable = False


def read_region_features(message: pb.FasterRcnnFeatureExtractor) -> RegionFeatures:
    """Reads a checked ``pb.FasterRcnnFeatureExtractor``."""
    row = lookup_region_extractor(message.type)
    is_frozen = not message.batch_norm_trainable
    network = build_network(row, message.depth_multiplier, message.min_depth, for_pyramid=True)
    added = build_hyperparams(message.conv_hyperparams, is_frozen)
    if message.override_base_feature_extractor_hyperparams:
        own = overridden(network, row, added)
    else:
        own = network.two_stage_hyperparams or network.hyperparams
        if message.HasField("weight_decay") or row.family not in _KEEPS_WEIGHT_DECAY:
            own = dataclasses.replace(own, l1_weight=0.0, l2_weight=L2_HALF * message.weight_decay)
    return RegionFeatures(message, row, network, frozen(own, is_frozen), added)
