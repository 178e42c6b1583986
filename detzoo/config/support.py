"""The one table of feature extractors: type string -> the network to build, or why this version does not build it.

``config check`` and the builders read the same table, so that they agree. A type of the Object Detection API's first
generation (``ssd_mobilenet_v2``) and of its second (``ssd_mobilenet_v2_keras``) are entries of the same backbone.

References:
    Liu et al., arXiv:1512.02325, section 2.1; Huang et al., arXiv:1611.10012, section 3.3 (maps and extra depths of
    each extractor); Lin et al., arXiv:1708.02002, section 4 (pyramids). "FPN-lite" is ``_fpn`` with use_depthwise.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from detzoo.config import pb
from detzoo.config.names import nearest
from detzoo.errors import ConfigError

IMAGENET_WEIGHTS = "imagenet"
WEIGHT_FILE_SUFFIXES = (".weights.h5", ".keras", ".h5")
KERAS_SUFFIX = "_keras"
FPN_SUFFIX = "_fpn"


class Normalization(enum.Enum):
    """The input that an extractor's ImageNet weights expect, from RGB values of 0 to 255."""

    MINUS_ONE_TO_ONE = "minus_one_to_one"  # 2 / 255 * x - 1
    IMAGENET_MEAN = "imagenet_mean"  # x - (123.68, 116.779, 103.939), channels in RGB order
    IMAGENET_STANDARD = "imagenet_standard"  # (x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    CAFFE_MEAN = "caffe_mean"  # IMAGENET_MEAN with the channels in BGR order
    NONE = "none"  # x


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A backbone, and the pyramid on it."""

    # Module that builds it: mobilenet_v1, mobilenet_v2, mobilenet_v2_mnasfpn, mobilenet_v3, mobiledet, vgg16,
    # inception_v2, inception_v3, inception_resnet_v2, resnet, resnext, efficientnet, nasnet, pnasnet, resnet_v2 or
    # hourglass.
    family: str
    variant: str  # member of the family, e.g. "101" or "101_32x8d"; "" if there is only one
    normalization: Normalization  # normalization of the input
    has_depth_multiplier: bool = False  # True if ``depth_multiplier`` scales the backbone
    has_imagenet_weights: bool = True  # True if keras.applications publishes weights of it
    is_fpn: bool = False  # True for a feature pyramid on the maps (``_fpn``)
    # True for a type without ``_keras``, whose checkpoints the Object Detection API's TensorFlow 1 graphs trained.
    is_first_generation: bool = False


@dataclasses.dataclass(frozen=True)
class SsdExtractor(Extractor):
    """The meaning of a ``type`` of ``model.ssd.feature_extractor``: without a pyramid SSD's extra levels."""

    # Levels of the backbone's own maps that are read, in ascending order; with ``is_fpn`` all of them, of which
    # ``fpn.min_level`` to ``fpn.max_level`` are read.
    backbone_levels: tuple[int, ...] = ()
    # Channels of the levels that SSD adds after the last map, before the depth multiplier; () with ``is_fpn``.
    extra_depths: tuple[int, ...] = ()
    # Levels whose channels are L2-normalized with a learned scale (VGG's conv4_3).
    l2_normalized_levels: tuple[int, ...] = ()
    extra_kernel_sizes: tuple[int, ...] = ()  # side of the strided kernel of each extra level; () for 3 everywhere
    num_pooled_levels: int = 0  # number of levels from max pooling of the last map, instead of extra levels (PPN)
    has_fixed_maps: bool = False  # True if ``num_layers`` has no effect, because all maps are always made
    # True for a bidirectional feature pyramid on the maps (``_bifpn``), with the levels of ``bifpn``.
    is_bifpn: bool = False
    is_mnasfpn: bool = False  # True if the pyramid of ``is_fpn`` is MnasFPN

    @property
    def is_pyramid(self) -> bool:
        """True if the maps are those of a feature pyramid of either kind."""
        return self.is_fpn or self.is_bifpn

    @property
    def max_num_layers(self) -> int:
        """The largest ``num_layers``; without meaning for a feature pyramid."""
        return len(self.backbone_levels) + len(self.extra_depths) + self.num_pooled_levels

    def num_maps(self, num_layers: int) -> int:
        """Returns the number of maps that an SSD makes with this ``num_layers``."""
        return self.max_num_layers if self.has_fixed_maps else min(num_layers, self.max_num_layers)

    def ssd_levels(self, num_layers: int) -> tuple[int, ...]:
        """Returns the levels of the first ``num_layers`` maps of an SSD: the backbone's, then the added ones."""
        first = self.backbone_levels[0]
        return tuple(range(first, first + self.num_maps(num_layers)))


@dataclasses.dataclass(frozen=True)
class RegionExtractor(Extractor):
    """The meaning of a ``type`` of ``model.faster_rcnn.feature_extractor``.

    Without a pyramid, it is one map of stride 16 and the rest of the network after the crop.
    """

    # True if the layers after the crop have stride 1 by default: the Object Detection API's first generation of
    # ResNets.
    is_dense_after_crop: bool = False
    strides: tuple[int, ...] = (8, 16, 32)  # accepted values of ``first_stage_features_stride``


@dataclasses.dataclass(frozen=True)
class CenterExtractor(Extractor):
    """The meaning of a ``type`` of ``model.center_net.feature_extractor``: one map of stride 4, or one per stack."""

    # Channels of the maps of stride 32, 16 and 8 on the way up to stride 4, which has those of the last; () for an
    # hourglass, which goes up by itself.
    depths: tuple[int, ...] = ()
    kernel_size: int = 3  # side of the convolution before each transposed one; without meaning for a pyramid
    stride: int = 32  # largest stride in the network, of which the sides of the input must be multiples


# Families whose hyperparameters, with those of the pyramid on them, are the Object Detection API's own.
FIXED_FAMILIES = ("mobiledet", "mobilenet_v2_mnasfpn")
MNASFPN_LEVELS = (3, 6)
PYRAMID_LEVELS = (2, 3, 4, 5)  # Every backbone here has maps of these strides: 4, 8, 16, 32.
_UNIT, _MEAN = Normalization.MINUS_ONE_TO_ONE, Normalization.IMAGENET_MEAN

_Row = TypeVar("_Row", bound=Extractor)

_BACKBONES = {
    "vgg16": Extractor("vgg16", "", _MEAN),
    "mobilenet_v1": Extractor("mobilenet_v1", "", _UNIT, has_depth_multiplier=True),
    "mobilenet_v2": Extractor("mobilenet_v2", "", _UNIT, has_depth_multiplier=True),
    "inception_v2": Extractor("inception_v2", "", _UNIT, has_depth_multiplier=True, has_imagenet_weights=False),
    "inception_v3": Extractor("inception_v3", "", _UNIT),
    "inception_resnet_v2": Extractor("inception_resnet_v2", "", _UNIT),
    "resnet50": Extractor("resnet", "50", _MEAN),
    "resnet101": Extractor("resnet", "101", _MEAN),
    "resnet152": Extractor("resnet", "152", _MEAN),
    "resnext101_32x8d": Extractor("resnext", "101_32x8d", _MEAN, has_imagenet_weights=False),
}


def _ssd(backbone: str, levels: tuple[int, ...], depths: tuple[int, ...], **more: Any) -> SsdExtractor:
    return SsdExtractor(**vars(_BACKBONES[backbone]), backbone_levels=levels, extra_depths=depths, **more)


_RESNET_EXTRAS = (512, 512, 256, 256, 128)
_SMALL_EXTRAS = (512, 256, 256, 128)
_PLAIN = {
    "ssd_vgg16": _ssd("vgg16", (3, 4), (512, 256, 256, 256, 256), l2_normalized_levels=(3,)),
    "ssd_mobilenet_v1": _ssd("mobilenet_v1", (4, 5), _SMALL_EXTRAS),
    "ssd_mobilenet_v2": _ssd("mobilenet_v2", (4, 5), _SMALL_EXTRAS),
    "ssd_inception_v2": _ssd("inception_v2", (4, 5), _SMALL_EXTRAS),
    # arXiv:1611.10012 gives no SSD of Inception v3: maps and depths are the Object Detection API's.
    "ssd_inception_v3": _ssd("inception_v3", (3, 4, 5), (512, 256, 128)),
    "ssd_inception_resnet_v2": _ssd("inception_resnet_v2", (4, 5), (512, 256, 128)),
    "ssd_resnet50_v1": _ssd("resnet50", (4,), _RESNET_EXTRAS),
    "ssd_resnet101_v1": _ssd("resnet101", (4,), _RESNET_EXTRAS),
    "ssd_resnet152_v1": _ssd("resnet152", (4,), _RESNET_EXTRAS),
    "ssd_resnext101_32x8d": _ssd("resnext101_32x8d", (4,), _RESNET_EXTRAS),
}


def _mobile(family: str, variant: str, has_imagenet_weights: bool = False) -> SsdExtractor:
    """Returns the row of a backbone that the Object Detection API has in SSD only, in its first generation."""
    return SsdExtractor(
        family,
        variant,
        _UNIT,
        has_depth_multiplier=True,
        has_imagenet_weights=has_imagenet_weights,
        is_first_generation=True,
        backbone_levels=(4, 5),
        extra_depths=_SMALL_EXTRAS,
        has_fixed_maps=True,
    )


# Types of the Object Detection API that have no variant with a pyramid or of the second generation.
_ALONE = {
    "embedded_ssd_mobilenet_v1": _ssd(
        "mobilenet_v1", (4, 5), (512, 256, 256), extra_kernel_sizes=(3, 3, 2), has_fixed_maps=True
    ),
    "ssd_mobilenet_v1_ppn": _ssd("mobilenet_v1", (4,), (), num_pooled_levels=5, has_fixed_maps=True),
    "ssd_mobilenet_v3_large": _mobile("mobilenet_v3", "large", has_imagenet_weights=True),
    "ssd_mobilenet_v3_small": _mobile("mobilenet_v3", "small", has_imagenet_weights=True),
    "ssd_mobilenet_edgetpu": _mobile("mobilenet_v3", "edgetpu"),
    "ssd_mobilenet_v2_mnasfpn": SsdExtractor(
        "mobilenet_v2_mnasfpn",
        "",
        _UNIT,
        has_depth_multiplier=True,
        has_imagenet_weights=False,
        is_fpn=True,
        is_first_generation=True,
        backbone_levels=PYRAMID_LEVELS,
        is_mnasfpn=True,
    ),
    **{f"ssd_mobiledet_{chip}": _mobile("mobiledet", chip) for chip in ("cpu", "dsp", "edgetpu", "gpu")},
}


class BifpnSize(NamedTuple):
    """Passes, channels and way of fusion of a bidirectional pyramid."""

    num_iterations: int
    num_filters: int
    fusion: str  # of FUSIONS


FUSIONS = ("fast_attention", "attention", "sum", "weighted_sum")
# The pyramids of EfficientDet, arXiv:1911.09070, table 1; the two largest fuse with plain sums.
EFFICIENTDET = {
    "b0": BifpnSize(3, 64, "fast_attention"),
    "b1": BifpnSize(4, 88, "fast_attention"),
    "b2": BifpnSize(5, 112, "fast_attention"),
    "b3": BifpnSize(6, 160, "fast_attention"),
    "b4": BifpnSize(7, 224, "fast_attention"),
    "b5": BifpnSize(7, 288, "fast_attention"),
    "b6": BifpnSize(8, 384, "sum"),
    "b7": BifpnSize(8, 384, "sum"),
}
_BIFPN = {
    f"ssd_efficientnet-{variant}_bifpn": SsdExtractor(
        "efficientnet",
        variant,
        Normalization.IMAGENET_STANDARD,
        backbone_levels=PYRAMID_LEVELS,
        is_bifpn=True,
    )
    for variant in EFFICIENTDET
}

_REGION_PLAIN = {
    f"faster_rcnn_{name}": RegionExtractor(
        **vars(row),
        is_dense_after_crop=row.family in ("resnet", "resnext"),
        strides=(16,) if row.family == "vgg16" else (8, 16, 32),
    )
    for name, row in _BACKBONES.items()
}


def _with_variants(plain: dict[str, _Row], in_pyramid: dict[str, Any], in_second: dict[str, Any]) -> dict[str, _Row]:
    """Returns each row and the same backbone with a pyramid (``_fpn``), each with and without ``_keras``.

    ``in_pyramid`` are the changes of a row with a pyramid, ``in_second`` those of a row of the second generation.
    """
    table: dict[str, _Row] = {}
    for name, row in plain.items():
        second = dataclasses.replace(row, **in_second)
        pyramid = dataclasses.replace(second, is_fpn=True, **in_pyramid)
        table[name] = dataclasses.replace(row, is_first_generation=True)
        table[name + FPN_SUFFIX] = dataclasses.replace(pyramid, is_first_generation=True)
        table[name + KERAS_SUFFIX], table[name + FPN_SUFFIX + KERAS_SUFFIX] = second, pyramid
    return table


_IN_PYRAMID = {"backbone_levels": PYRAMID_LEVELS, "extra_depths": (), "l2_normalized_levels": ()}
SSD_EXTRACTORS: dict[str, SsdExtractor] = {
    **_with_variants(_PLAIN, _IN_PYRAMID, {}),
    **_ALONE,
    **_BIFPN,
    **{name + KERAS_SUFFIX: row for name, row in _BIFPN.items()},
}
# Searched networks, which the Object Detection API has without a pyramid and in its first generation only.
_SEARCHED = {
    f"faster_rcnn_{name}": RegionExtractor(
        family, "", _UNIT, has_imagenet_weights=False, is_first_generation=True, strides=(16,)
    )
    for name, family in (("nas", "nasnet"), ("pnas", "pnasnet"))
}
REGION_EXTRACTORS = _with_variants(_REGION_PLAIN, {}, {"is_dense_after_crop": False}) | _SEARCHED

_HOURGLASS_STRIDES = {"10": 8, "20": 16, "32": 32, "52": 128, "104": 128}
_CENTER_DEPTHS = (256, 128, 64)
CENTER_EXTRACTORS: dict[str, CenterExtractor] = {
    **{
        f"hourglass_{depth}": CenterExtractor(
            "hourglass", depth, Normalization.NONE, has_imagenet_weights=False, stride=stride
        )
        for depth, stride in _HOURGLASS_STRIDES.items()
    },
    **{
        f"resnet_v1_{depth}_fpn": CenterExtractor(
            "resnet_v1_caffe",
            depth,
            Normalization.CAFFE_MEAN,
            is_fpn=True,
            depths=_CENTER_DEPTHS,
            has_imagenet_weights=depth not in ("18", "34"),
        )
        for depth in ("18", "34", "50", "101")
    },
    **{
        f"resnet_v2_{depth}": CenterExtractor("resnet_v2", depth, _UNIT, depths=_CENTER_DEPTHS)
        for depth in ("50", "101")
    },
    "mobilenet_v2": CenterExtractor(
        "mobilenet_v2", "", _UNIT, has_depth_multiplier=True, depths=_CENTER_DEPTHS, kernel_size=1
    ),
    **{
        name: CenterExtractor("mobilenet_v2", "", _UNIT, has_depth_multiplier=True, is_fpn=True, depths=(64, 32, 24))
        for name in ("mobilenet_v2_fpn", "mobilenet_v2_fpn_sep_conv")
    },
}

# First match wins. Prefixes and fragments of types that the Object Detection API has and this version does not build.
_NOT_YET: tuple[tuple[str, str], ...] = (
    ("_ppn", "pooling pyramids (PPN) on anything but MobileNet v1"),
    ("spaghettinet", "SpaghettiNet backbones"),
    ("pnasnet", "the PNASNet backbone"),
    ("subpixel", "subpixel MobileNet"),
)
_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    ("faster_rcnn_", "faster_rcnn"),
    ("hourglass", "center_net"),
    ("resnet_v1_", "center_net"),
    ("resnet_v2_", "center_net"),
    ("mobilenet_v2_fpn", "center_net"),
)


# Each of DeepMAC's mask networks -> divisor of mask_size: the hourglass halves its map so often.
MASK_NETWORKS = {
    **{f"hourglass{depth}": divisor for depth, divisor in (("10", 2), ("20", 4), ("32", 8), ("52", 32), ("100", 32))},
    **{f"resnet{depth}": 1 for depth in ("4", "8", "12", "16", "20")},
}


def split_mask_network(name: str) -> tuple[str, str]:
    """Returns family and depth of a key of ``MASK_NETWORKS``."""
    family = name.rstrip("0123456789")
    return family, name.removeprefix(family)


def lookup_ssd_extractor(type_name: str) -> SsdExtractor:
    """Returns the entry of a one-stage extractor's ``type``, or raises a ConfigError if the table lacks it."""
    return _lookup(type_name, SSD_EXTRACTORS, refusal)


def lookup_region_extractor(type_name: str) -> RegionExtractor:
    """Returns the entry of a two-stage extractor's ``type``, or raises a ConfigError if the table lacks it."""
    return _lookup(type_name, REGION_EXTRACTORS, region_refusal)


def lookup_center_extractor(type_name: str) -> CenterExtractor:
    """Returns the entry of a CenterNet extractor's ``type``, or raises a ConfigError if the table lacks it."""
    return _lookup(type_name, CENTER_EXTRACTORS, center_refusal)


def _lookup(type_name: str, table: dict[str, _Row], refusal_of: Callable[[str], str]) -> _Row:
    if type_name not in table:
        raise ConfigError(refusal_of(type_name))
    return table[type_name]


def region_refusal(type_name: str) -> str:
    """Returns why ``type_name`` is not in the table of two-stage extractors, and the accepted types."""
    plain = f"{', '.join(_REGION_PLAIN)}, each also with {FPN_SUFFIX}, and each with {KERAS_SUFFIX}"
    accepted = f"{plain}; {', '.join(_SEARCHED)}"
    owner = "ssd" if type_name.startswith("ssd_") else ""
    return _refusal(type_name, accepted, (), owner, "faster_rcnn", REGION_EXTRACTORS)


def center_refusal(type_name: str) -> str:
    """Returns why ``type_name`` is not in the table of CenterNet's extractors, and the accepted types."""
    owner = {"ssd": "ssd", "faster": "faster_rcnn"}.get(type_name.split("_")[0], "")
    accepted = ", ".join(CENTER_EXTRACTORS)
    return _refusal(type_name, accepted, (), owner, "center_net", CENTER_EXTRACTORS)


def refusal(type_name: str) -> str:
    """Returns why ``type_name`` is not in the table of one-stage extractors, and the accepted types."""
    owner = next((model for prefix, model in _OTHER_MODELS if type_name.startswith(prefix)), "")
    return _refusal(type_name, accepted_types(), _NOT_YET, owner, "ssd", SSD_EXTRACTORS)


def _refusal(
    name: str, accepted: str, not_yet: Iterable[tuple[str, str]], owner: str, model: str, known: Iterable[str]
) -> str:
    if not name:
        return f"no feature extractor is named; accepted: {accepted}"
    if reason := next((text for fragment, text in not_yet if fragment in name), ""):
        return f"'{name}' is not supported yet ({reason}); accepted: {accepted}"
    if owner:
        return f"'{name}' is a feature extractor of {owner}, not of {model}; accepted: {accepted}"
    close = nearest(name, known)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"there is no feature extractor '{name}'; {hint}accepted: {accepted}"


def accepted_types() -> str:
    """Returns the types in one line: the ten backbones with their suffixes, EfficientDet's, and the others."""
    plain, (smallest, *_, largest) = ", ".join(_PLAIN), _BIFPN
    keras = f"{plain}, each also with {FPN_SUFFIX}; {smallest} to {largest.split('-')[1]}; each with {KERAS_SUFFIX}"
    return f"{keras}; {', '.join(_ALONE)}"


def weights_problem(pretrained_weights: str, extractor: Extractor) -> str:
    """Returns the problem of an extractor's ``pretrained_weights``, "" for none; does not open the file."""
    if not pretrained_weights:
        return ""
    suffixes = ", ".join(WEIGHT_FILE_SUFFIXES)
    if pretrained_weights == IMAGENET_WEIGHTS:
        if extractor.has_imagenet_weights:
            return ""
        return f"there are no published Keras weights of {extractor.family}; accepted: '' or a file ({suffixes})"
    if not pretrained_weights.endswith(WEIGHT_FILE_SUFFIXES):
        return f"is '{pretrained_weights}'; accepted: '', '{IMAGENET_WEIGHTS}' or a file ({suffixes})"
    return "" if os.path.isfile(pretrained_weights) else f"there is no file {pretrained_weights}"


class Bifpn(NamedTuple):
    """A bidirectional pyramid as a config describes it."""

    min_level: int
    max_level: int
    num_iterations: int
    num_filters: int
    fusion: str

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of the pyramid, finest first."""
        return tuple(range(self.min_level, self.max_level + 1))


def bifpn_of(message: pb.SsdFeatureExtractor, extractor: SsdExtractor) -> Bifpn:
    """Returns the pyramid of a ``feature_extractor`` block; EfficientDet's own if the block ``bifpn`` is absent.

    ``num_filters`` is never below ``min_depth``, as in the Object Detection API.
    """
    block = message.bifpn
    iterations, filters, fusion = EFFICIENTDET[extractor.variant]
    if message.HasField("bifpn"):
        iterations, filters, fusion = block.num_iterations, block.num_filters, block.combine_method
    filters = max(filters, message.min_depth) if filters > 0 else filters
    return Bifpn(block.min_level, block.max_level, iterations, filters, fusion)
