"""The one table of feature extractors: type string -> what to build, or why this version does not build it.

``config check`` and the builders read the same table, so that what is checked is what is built. A type of the Object
Detection API's first generation (``ssd_mobilenet_v2``) and its second (``ssd_mobilenet_v2_keras``) are the same entry.

References:
    Liu et al., arXiv:1512.02325, section 2.1; Huang et al., arXiv:1611.10012, section 3.3 (maps and extra depths of
    each extractor); Lin et al., arXiv:1708.02002, section 4 (pyramids). "FPN-lite" is ``_fpn`` with use_depthwise.
"""

from __future__ import annotations

import dataclasses
import enum
import os

from detzoo.config.names import nearest
from detzoo.errors import ConfigError

IMAGENET_WEIGHTS = "imagenet"
WEIGHT_FILE_SUFFIXES = (".weights.h5", ".keras", ".h5")
KERAS_SUFFIX = "_keras"
FPN_SUFFIX = "_fpn"


class Normalization(enum.Enum):
    """What an extractor's ImageNet weights expect of RGB values of 0 to 255."""

    MINUS_ONE_TO_ONE = "minus_one_to_one"  # 2 / 255 * x - 1
    IMAGENET_MEAN = "imagenet_mean"  # x - (123.68, 116.779, 103.939), channels in RGB order
    IMAGENET_STANDARD = "imagenet_standard"  # (x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class SsdExtractor:
    """What a ``type`` of ``model.ssd.feature_extractor`` stands for.

    Attributes:
        family: the module that builds it: mobilenet_v1, mobilenet_v2, vgg16, inception_v2, inception_v3,
            inception_resnet_v2, resnet, resnext or efficientnet.
        variant: which member of the family, e.g. "101" or "101_32x8d"; "" where there is one only.
        is_fpn: a feature pyramid on the maps (``_fpn``), else SSD's extra levels.
        backbone_levels: levels of the backbone's own maps that are read, in ascending order; with ``is_fpn`` those that
            it has, of which ``fpn.min_level`` to ``fpn.max_level`` are read.
        extra_depths: channels of the levels that SSD adds after the last map, before the depth multiplier; () with
            ``is_fpn``.
        normalization: of the input.
        l2_normalized_levels: levels whose channels are L2-normalised with a learned scale (VGG's conv4_3).
        has_depth_multiplier: whether ``depth_multiplier`` scales the backbone.
        has_imagenet_weights: whether keras.applications publishes weights of it.
        extra_kernel_sizes: side of the strided kernel that makes each extra level; () for 3 everywhere.
        num_pooled_levels: levels made of the last map by max pooling, rather than extra levels (PPN).
        has_fixed_maps: whether ``num_layers`` has no effect, because all maps are always made.
        is_bifpn: a bidirectional feature pyramid on the maps (``_bifpn``), of the levels that ``bifpn`` says.
    """

    family: str
    variant: str
    is_fpn: bool
    backbone_levels: tuple[int, ...]
    extra_depths: tuple[int, ...]
    normalization: Normalization
    l2_normalized_levels: tuple[int, ...] = ()
    has_depth_multiplier: bool = False
    has_imagenet_weights: bool = True
    is_bifpn: bool = False
    extra_kernel_sizes: tuple[int, ...] = ()
    num_pooled_levels: int = 0
    has_fixed_maps: bool = False

    @property
    def is_pyramid(self) -> bool:
        """Whether the maps are those of a feature pyramid of either kind."""
        return self.is_fpn or self.is_bifpn

    @property
    def max_num_layers(self) -> int:
        """The most maps that ``num_layers`` can ask for; without meaning for a feature pyramid."""
        return len(self.backbone_levels) + len(self.extra_depths) + self.num_pooled_levels

    def num_maps(self, num_layers: int) -> int:
        """The maps that an SSD makes where the configuration has this ``num_layers``."""
        return self.max_num_layers if self.has_fixed_maps else min(num_layers, self.max_num_layers)

    def ssd_levels(self, num_layers: int) -> tuple[int, ...]:
        """Levels of the first ``num_layers`` maps of an SSD: the backbone's, then the added, each half the size."""
        first = self.backbone_levels[0]
        return tuple(range(first, first + self.num_maps(num_layers)))


@dataclasses.dataclass(frozen=True)
class RegionExtractor:
    """What a ``type`` of ``model.faster_rcnn.feature_extractor`` stands for.

    Attributes:
        family: as for ``SsdExtractor``.
        variant: as for ``SsdExtractor``.
        is_fpn: a feature pyramid on the maps (``_fpn``), else one map of stride 16 and the rest of the network after
            the crop.
        normalization: of the input.
        is_dense_after_crop: whether what follows the crop has stride 1 where the configuration does not say; the Object
            Detection API's first generation of ResNets.
        has_depth_multiplier: whether ``depth_multiplier`` scales the backbone.
        has_imagenet_weights: whether keras.applications publishes weights of it.
        strides: values of ``first_stage_features_stride`` that it takes.
    """

    family: str
    variant: str
    is_fpn: bool
    normalization: Normalization
    is_dense_after_crop: bool = False
    has_depth_multiplier: bool = False
    has_imagenet_weights: bool = True
    strides: tuple[int, ...] = (8, 16, 32)


PYRAMID_LEVELS = (2, 3, 4, 5)  # Every backbone here has maps of these strides: 4, 8, 16, 32.
_RESNET_EXTRAS = (512, 512, 256, 256, 128)
_SMALL_EXTRAS = (512, 256, 256, 128)
_UNIT, _MEAN = Normalization.MINUS_ONE_TO_ONE, Normalization.IMAGENET_MEAN

_PLAIN: dict[str, SsdExtractor] = {
    "ssd_vgg16": SsdExtractor("vgg16", "", False, (3, 4), (512, 256, 256, 256, 256), _MEAN, l2_normalized_levels=(3,)),
    "ssd_mobilenet_v1": SsdExtractor(
        "mobilenet_v1", "", False, (4, 5), _SMALL_EXTRAS, _UNIT, has_depth_multiplier=True
    ),
    "ssd_mobilenet_v2": SsdExtractor(
        "mobilenet_v2", "", False, (4, 5), _SMALL_EXTRAS, _UNIT, has_depth_multiplier=True
    ),
    "ssd_inception_v2": SsdExtractor(
        "inception_v2", "", False, (4, 5), _SMALL_EXTRAS, _UNIT, has_depth_multiplier=True, has_imagenet_weights=False
    ),
    # arXiv:1611.10012 gives no SSD of Inception v3: maps and depths are the Object Detection API's.
    "ssd_inception_v3": SsdExtractor("inception_v3", "", False, (3, 4, 5), (512, 256, 128), _UNIT),
    "ssd_inception_resnet_v2": SsdExtractor("inception_resnet_v2", "", False, (4, 5), (512, 256, 128), _UNIT),
    "ssd_resnet50_v1": SsdExtractor("resnet", "50", False, (4,), _RESNET_EXTRAS, _MEAN),
    "ssd_resnet101_v1": SsdExtractor("resnet", "101", False, (4,), _RESNET_EXTRAS, _MEAN),
    "ssd_resnet152_v1": SsdExtractor("resnet", "152", False, (4,), _RESNET_EXTRAS, _MEAN),
    "ssd_resnext101_32x8d": SsdExtractor(
        "resnext", "101_32x8d", False, (4,), _RESNET_EXTRAS, _MEAN, has_imagenet_weights=False
    ),
}


def _with_variants(plain: dict[str, SsdExtractor]) -> dict[str, SsdExtractor]:
    """Each row, and the same backbone with a pyramid (``_fpn``), each with and without ``_keras``."""
    table: dict[str, SsdExtractor] = {}
    for name, row in plain.items():
        pyramid = dataclasses.replace(
            row, is_fpn=True, backbone_levels=PYRAMID_LEVELS, extra_depths=(), l2_normalized_levels=()
        )
        table[name] = table[name + KERAS_SUFFIX] = row
        table[name + FPN_SUFFIX] = table[name + FPN_SUFFIX + KERAS_SUFFIX] = pyramid
    return table


# Types of the Object Detection API that stand for themselves, neither with a pyramid nor in its second generation.
_ALONE = {
    "embedded_ssd_mobilenet_v1": SsdExtractor(
        "mobilenet_v1",
        "",
        False,
        (4, 5),
        (512, 256, 256),
        _UNIT,
        has_depth_multiplier=True,
        extra_kernel_sizes=(3, 3, 2),
        has_fixed_maps=True,
    ),
    "ssd_mobilenet_v1_ppn": SsdExtractor(
        "mobilenet_v1", "", False, (4,), (), _UNIT, has_depth_multiplier=True, num_pooled_levels=5, has_fixed_maps=True
    ),
}

EFFICIENTNETS = tuple(f"b{size}" for size in range(8))
_BIFPN = {
    f"ssd_efficientnet-{variant}_bifpn": SsdExtractor(
        "efficientnet",
        variant,
        False,
        PYRAMID_LEVELS,
        (),
        Normalization.IMAGENET_STANDARD,
        is_bifpn=True,
    )
    for variant in EFFICIENTNETS
}

SSD_EXTRACTORS: dict[str, SsdExtractor] = {
    **_with_variants(_PLAIN),
    **_ALONE,
    **_BIFPN,
    **{name + KERAS_SUFFIX: row for name, row in _BIFPN.items()},
}

_REGION_PLAIN: dict[str, RegionExtractor] = {
    "faster_rcnn_vgg16": RegionExtractor("vgg16", "", False, _MEAN, strides=(16,)),
    "faster_rcnn_mobilenet_v1": RegionExtractor("mobilenet_v1", "", False, _UNIT, has_depth_multiplier=True),
    "faster_rcnn_mobilenet_v2": RegionExtractor("mobilenet_v2", "", False, _UNIT, has_depth_multiplier=True),
    "faster_rcnn_inception_v2": RegionExtractor(
        "inception_v2", "", False, _UNIT, has_depth_multiplier=True, has_imagenet_weights=False
    ),
    "faster_rcnn_inception_v3": RegionExtractor("inception_v3", "", False, _UNIT),
    "faster_rcnn_inception_resnet_v2": RegionExtractor("inception_resnet_v2", "", False, _UNIT),
    "faster_rcnn_resnet50": RegionExtractor("resnet", "50", False, _MEAN, is_dense_after_crop=True),
    "faster_rcnn_resnet101": RegionExtractor("resnet", "101", False, _MEAN, is_dense_after_crop=True),
    "faster_rcnn_resnet152": RegionExtractor("resnet", "152", False, _MEAN, is_dense_after_crop=True),
    "faster_rcnn_resnext101_32x8d": RegionExtractor(
        "resnext", "101_32x8d", False, _MEAN, is_dense_after_crop=True, has_imagenet_weights=False
    ),
}


def _region_variants(plain: dict[str, RegionExtractor]) -> dict[str, RegionExtractor]:
    """As ``_with_variants``; a type that ends in ``_keras`` keeps the network's stride after the crop."""
    table: dict[str, RegionExtractor] = {}
    for name, row in plain.items():
        strided = dataclasses.replace(row, is_dense_after_crop=False)
        pyramid = dataclasses.replace(strided, is_fpn=True)
        table[name], table[name + KERAS_SUFFIX] = row, strided
        table[name + FPN_SUFFIX] = table[name + FPN_SUFFIX + KERAS_SUFFIX] = pyramid
    return table


REGION_EXTRACTORS: dict[str, RegionExtractor] = _region_variants(_REGION_PLAIN)

# First match wins. Prefixes and fragments of types that the Object Detection API has and this version does not build.
_NOT_YET: tuple[tuple[str, str], ...] = (
    ("mobiledet", "MobileDet backbones"),
    ("mobilenet_edgetpu", "the MobileNet EdgeTPU backbone"),
    ("mobilenet_v3", "MobileNet v3 backbones"),
    ("mnasfpn", "MnasFPN, a searched feature pyramid"),
    ("_ppn", "pooling pyramids (PPN) on anything but MobileNet v1"),
    ("spaghettinet", "SpaghettiNet backbones"),
    ("pnasnet", "the PNASNet backbone"),
    ("subpixel", "subpixel MobileNet"),
)
_REGION_NOT_YET: tuple[tuple[str, str], ...] = (
    ("pnas", "the PNASNet backbone"),
    ("nas", "the NASNet backbone"),
)
_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    ("faster_rcnn_", "faster_rcnn"),
    ("hourglass", "center_net"),
    ("resnet_v1_", "center_net"),
    ("resnet_v2_", "center_net"),
    ("mobilenet_v2_fpn", "center_net"),
)


def lookup_ssd_extractor(type_name: str) -> SsdExtractor:
    """The entry of an SSD extractor's ``type``.

    Raises:
        ConfigError: not in the table: not supported yet, of another kind of model, or unknown (with the nearest names).
    """
    if type_name not in SSD_EXTRACTORS:
        raise ConfigError(refusal(type_name))
    return SSD_EXTRACTORS[type_name]


def lookup_region_extractor(type_name: str) -> RegionExtractor:
    """The entry of a two-stage detector's extractor ``type``.

    Raises:
        ConfigError: not in the table: not supported yet, of another kind of model, or unknown (with the nearest names).
    """
    if type_name not in REGION_EXTRACTORS:
        raise ConfigError(region_refusal(type_name))
    return REGION_EXTRACTORS[type_name]


def region_refusal(type_name: str) -> str:
    """Why ``type_name`` is not in the table of two-stage extractors, and what is."""
    accepted = f"{', '.join(_REGION_PLAIN)}, each also with {FPN_SUFFIX}, and each with {KERAS_SUFFIX}"
    if not type_name:
        return f"no feature extractor is named; accepted: {accepted}"
    reason = next((text for fragment, text in _REGION_NOT_YET if fragment in type_name), None)
    if reason:
        return f"'{type_name}' is not supported yet ({reason}); accepted: {accepted}"
    if type_name.startswith("ssd_"):
        return f"'{type_name}' is a feature extractor of ssd, not of faster_rcnn; accepted: {accepted}"
    close = nearest(type_name, REGION_EXTRACTORS)
    hint = f"did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    return f"there is no feature extractor '{type_name}'; {hint}accepted: {accepted}"


def refusal(type_name: str) -> str:
    """Why ``type_name`` is not in the table of SSD extractors, and what is."""
    if not type_name:
        return f"no feature extractor is named; accepted: {accepted_types()}"
    reason = next((text for fragment, text in _NOT_YET if fragment in type_name), None)
    if reason:
        return f"'{type_name}' is not supported yet ({reason}); accepted: {accepted_types()}"
    owner = next((model for prefix, model in _OTHER_MODELS if type_name.startswith(prefix)), None)
    if owner:
        return f"'{type_name}' is a feature extractor of {owner}, not of ssd; accepted: {accepted_types()}"
    close = nearest(type_name, SSD_EXTRACTORS)
    hint = f"did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    return f"there is no feature extractor '{type_name}'; {hint}accepted: {accepted_types()}"


def accepted_types() -> str:
    """The types in one line: the ten backbones and the suffixes that each takes, EfficientDet's, and the others."""
    plain, (smallest, *_, largest) = ", ".join(_PLAIN), _BIFPN
    keras = f"{plain}, each also with {FPN_SUFFIX}; {smallest} to {largest.split('-')[1]}; each with {KERAS_SUFFIX}"
    return f"{keras}; {', '.join(_ALONE)}"


def weights_problem(pretrained_weights: str, extractor: SsdExtractor | RegionExtractor) -> str:
    """What is wrong with ``pretrained_weights`` of an extractor, "" where nothing is; does not open the file."""
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
