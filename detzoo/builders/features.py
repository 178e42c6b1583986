"""``feature_extractor`` of a one-stage detector -> its backbone (floor 5)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from detzoo.config import pb
from detzoo.config.support import FIXED_FAMILIES, Extractor, Normalization, SsdExtractor, bifpn_of, lookup_ssd_extractor
from detzoo.contracts import ConvHyperparams, FeatureExtractor, FeatureSpec, Tensor
from detzoo.features import (
    efficientnet,
    inception,
    inception_v2,
    mobiledet,
    mobilenet,
    mobilenet_v3,
    nasnet,
    resnet,
    vgg,
)
from detzoo.features.network import NATIVE_OUTPUT_STRIDE, Network
from detzoo.features.normalization import (
    IMAGENET_MEAN,
    IMAGENET_STANDARD,
    MINUS_ONE_TO_ONE,
    RAW,
    PixelScale,
    standardize_imagenet,
    subtract_caffe_mean,
    subtract_imagenet_mean,
    to_minus_one_to_one,
)
from detzoo.features.pretrained import load_pretrained
from detzoo.features.rewrite import build_extractor_model

_DEPTHWISE_FAMILIES = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3")
COARSEST_BACKBONE_LEVEL = 5


def build_feature_extractor(
    message: pb.SsdFeatureExtractor,
    image_shape: tuple[int | None, int | None] = (None, None),
    conv_hyperparams: ConvHyperparams | None = None,
    levels: Sequence[int] | None = None,
    *,
    freeze_batchnorm: bool = False,
) -> FeatureExtractor:
    """Builds the backbone of a one-stage detector, with pretrained weights if the config names any.

    Args:
        message: Checked pb.SsdFeatureExtractor.
        image_shape: (height, width) of the input in pixels, before it is padded to ``pad_to_multiple``; None for a
            side of any length.
        conv_hyperparams: Hyperparameters that override those of the backbone's family, None for no override.
        levels: The backbone's maps to read, by their level at output stride 32; None for the maps of the type
            (``fpn.min_level`` to at most level 5, or the first of SSD's ``num_layers``).
        freeze_batchnorm: The detector's ``freeze_batchnorm``, which reaches the family's own hyperparameters too.

    Returns:
        The extractor. Its ``specs`` have the levels of its maps, which ``output_stride`` may make finer than the
        requested ones.

    Raises:
        CheckpointError: The file of ``pretrained_weights`` does not fit.
    """
    row = lookup_ssd_extractor(message.type)
    is_lite = row.is_fpn and message.use_depthwise and (row.family == "mobilenet_v1" or row.is_first_generation)
    network = build_network(row, message.depth_multiplier, message.min_depth, row.is_pyramid, is_lite)
    model = build_extractor_model(
        network,
        _levels(row, message) if levels is None else list(levels),
        padded(image_shape, message.pad_to_multiple),
        frozen(overridden(network, row, conv_hyperparams), freeze_batchnorm),
        _output_stride(row, message),
        explicit_padding=message.use_explicit_padding,
    )
    if message.pretrained_weights:
        load_pretrained(model, message.pretrained_weights, network.application)
    if message.freeze_backbone:
        model.trainable = False
    specs = tuple(FeatureSpec(level, feature_map.shape[-1]) for level, feature_map in model.output.items())
    return FeatureExtractor(model, specs, normalization(row))


def _levels(row: SsdExtractor, message: pb.SsdFeatureExtractor) -> list[int]:
    if not row.is_pyramid:
        return list(row.backbone_levels[: row.num_maps(message.num_layers)])
    pyramid = bifpn_of(message, row) if row.is_bifpn else message.fpn
    return list(range(pyramid.min_level, min(pyramid.max_level, COARSEST_BACKBONE_LEVEL) + 1))


def _output_stride(row: SsdExtractor, message: pb.SsdFeatureExtractor) -> int:
    own = vgg.SSD_OUTPUT_STRIDE if row.family == "vgg16" and not row.is_fpn else NATIVE_OUTPUT_STRIDE
    return message.output_stride or own


def padded(image_shape: tuple[int | None, int | None], multiple: int) -> tuple[int | None, int | None]:
    """Returns (height, width) of an image after padding to a multiple; None stays None."""
    height, width = (size if size is None or multiple <= 1 else -(-size // multiple) * multiple for size in image_shape)
    return height, width


def overridden(network: Network, row: Extractor, conv_hyperparams: ConvHyperparams | None) -> ConvHyperparams:
    """Returns the hyperparameters of a backbone's layers: its family's, or those that override them.

    As in the Object Detection API, an override regularizes the depthwise kernels of MobileNets, too, whatever
    ``regularize_depthwise`` says, and has no effect on MobileDet and MnasFPN. In its TensorFlow 1 graphs, MobileNets v2
    and v3 keep their activations, gamma and beta; ResNets keep their batch norm and end blocks in a ReLU.
    """
    if conv_hyperparams is None or row.family in FIXED_FAMILIES:
        return network.hyperparams
    batch_norm, own = conv_hyperparams.batch_norm, network.hyperparams.batch_norm
    if row.family in _DEPTHWISE_FAMILIES:
        conv_hyperparams = dataclasses.replace(conv_hyperparams, regularize_depthwise=True)
        kept = batch_norm or own
        if row.family == "mobilenet_v1" or not row.is_first_generation or kept is None:
            return conv_hyperparams
        kept = dataclasses.replace(kept, center=True, scale=True)
        return dataclasses.replace(conv_hyperparams, batch_norm=kept, activation=network.hyperparams.activation)
    if row.family == "resnet" and row.is_first_generation and batch_norm is not None and own is not None:
        kept = dataclasses.replace(own, train=batch_norm.train, synchronized=batch_norm.synchronized)
        return dataclasses.replace(conv_hyperparams, batch_norm=kept, sum_activation="relu")
    return conv_hyperparams


def frozen(hyperparams: ConvHyperparams, freeze_batchnorm: bool) -> ConvHyperparams:
    """Returns ``hyperparams`` whose batch normalization keeps its statistics if ``freeze_batchnorm`` is True."""
    if hyperparams.batch_norm is None or not freeze_batchnorm:
        return hyperparams
    return dataclasses.replace(hyperparams, batch_norm=dataclasses.replace(hyperparams.batch_norm, train=False))


@functools.lru_cache(maxsize=8)  # its graph has no values; building it takes a fifth of a detector's time
def build_network(
    row: Extractor,
    depth_multiplier: float = 1.0,
    min_depth: int = 1,
    for_pyramid: bool = False,
    is_lite: bool = False,
    for_center: bool = False,
) -> Network:
    """Builds the classification network of an extractor's entry in the table.

    For a pyramid it has endpoints at the end of each stage, rather than those that SSD reads. ``is_lite`` has the
    narrower end of MobileNets for FPN-lite. ``for_center`` selects CenterNet's endpoints and statistics.
    """
    network = _NETWORKS[row.family](row, depth_multiplier, min_depth, for_pyramid, is_lite)
    if for_center and row.family == "mobilenet_v2":
        return mobilenet.for_center_net(network)
    # The first generation of SSD does not pad the stem and the strided layers of Inception v3.
    is_unpadded = row.family == "inception_v3" and row.is_first_generation and isinstance(row, SsdExtractor)
    return dataclasses.replace(network, keeps_padding=True) if is_unpadded and not for_pyramid else network


def normalization(row: Extractor) -> Callable[[Tensor], Tensor]:
    """Returns the function that normalizes RGB values of 0 to 255 for an extractor."""
    return _NORMALIZATIONS[row.normalization][0]


def pixel_scale(row: Extractor) -> PixelScale:
    """Returns the colors of 0 and 1 in an extractor's input."""
    return _NORMALIZATIONS[row.normalization][1]


_NETWORKS: dict[str, Callable[[Extractor, float, int, bool, bool], Network]] = {
    "mobilenet_v1": lambda row, *options: mobilenet.mobilenet_v1(*options),
    "mobilenet_v2": lambda row, depth, least, pyramid, lite: mobilenet.mobilenet_v2(
        depth, least, pyramid, lite, row.is_first_generation
    ),
    "mobilenet_v2_mnasfpn": lambda row, depth, least, *options: mobilenet.for_mnasfpn(
        mobilenet.mobilenet_v2(depth, least, is_first_generation=True)
    ),
    "mobilenet_v3": lambda row, *options: mobilenet_v3.mobilenet_v3(row.variant, *options),
    "mobiledet": lambda row, depth, *options: mobiledet.mobiledet(row.variant, depth),
    "vgg16": lambda row, depth, least, pyramid, lite: vgg.vgg16(pyramid),
    "inception_v2": lambda row, depth, least, pyramid, lite: inception_v2.inception_v2(depth, least, pyramid),
    "inception_v3": lambda row, *options: inception.inception_v3(),
    "inception_resnet_v2": lambda row, *options: inception.inception_resnet_v2(),
    "resnet": lambda row, *options: resnet.resnet(row.variant),
    "resnext": lambda row, *options: resnet.resnext(row.variant),
    "efficientnet": lambda row, *options: efficientnet.efficientnet(row.variant),
    "nasnet": lambda row, *options: nasnet.nasnet(),
    "pnasnet": lambda row, *options: nasnet.pnasnet(),
    "resnet_v1_caffe": lambda row, *options: resnet.resnet_v1_caffe(row.variant),
    "resnet_v2": lambda row, *options: resnet.resnet_v2(row.variant),
}

_NORMALIZATIONS: dict[Normalization, tuple[Callable[[Tensor], Tensor], PixelScale]] = {
    Normalization.MINUS_ONE_TO_ONE: (to_minus_one_to_one, MINUS_ONE_TO_ONE),
    Normalization.IMAGENET_MEAN: (subtract_imagenet_mean, IMAGENET_MEAN),
    Normalization.IMAGENET_STANDARD: (standardize_imagenet, IMAGENET_STANDARD),
    Normalization.CAFFE_MEAN: (subtract_caffe_mean, IMAGENET_MEAN),
    Normalization.NONE: (lambda images: images, RAW),
}
