"""``DetectionModel`` messages -> a detector (floor 5)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import keras
from google.protobuf import text_format

from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.center_net import build_center_net
from detzoo.builders.features import build_feature_extractor
from detzoo.builders.heads import build_dense_head
from detzoo.builders.hyperparams import build_hyperparams
from detzoo.builders.losses import build_dense_loss
from detzoo.builders.necks import build_neck, num_maps
from detzoo.builders.postprocess import build_dense_detections
from detzoo.builders.resize import build_model_resizer, build_resizer
from detzoo.builders.segmentation_proposals import build_segmentation_proposals
from detzoo.builders.spp import build_spp_classifier, build_spp_net
from detzoo.builders.targets import build_anchor_targets
from detzoo.builders.two_stage import build_two_stage
from detzoo.checkpoints.layout import variables_by_path
from detzoo.checkpoints.restore import CLASS_LAYER
from detzoo.config import pb
from detzoo.config.check.model import check_model
from detzoo.config.check.pipeline import require
from detzoo.contracts import FeatureExtractor, Tensor
from detzoo.detectors.base import Detector
from detzoo.detectors.keras_training import Origin, state_of
from detzoo.detectors.one_stage import OneStageDetector, one_stage_network
from detzoo.errors import ConfigError

PRETRAINED_FIELD = "pretrained_weights"
DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def build_detector(message: pb.DetectionModel, dtype_policy: str | None = None) -> Detector:
    """Builds the detector that a ``model`` block describes, with random or pretrained weights.

    This is the door for callers from Python: it checks the message once, and the builders of the parts trust it.

    Args:
        message: pb.DetectionModel.
        dtype_policy: Types that the layers compute with: float32, mixed_bfloat16 or mixed_float16. Variables and
            predictions are always float32. None takes the policy of ``keras.mixed_precision.set_global_policy``.

    Returns:
        A built detector: every variable exists, and its path does not depend on what was built before.

    Raises:
        ConfigError: A value breaks a rule of ``detzoo config check``; the message names its field.
    """
    if dtype_policy is None:
        dtype_policy = keras.config.dtype_policy().name
    if dtype_policy not in DTYPE_POLICIES:
        raise ConfigError(f"dtype_policy is {dtype_policy!r}; accepted: {', '.join(DTYPE_POLICIES)}")
    require(message, "model", check_model)
    kind = str(message.WhichOneof("model"))
    with _global_dtype_policy(dtype_policy):
        detector = _DETECTORS[kind](getattr(message, kind))
    text = text_format.MessageToString(without_pretrained(message), as_utf8=True)
    detector.origin = Origin(text, dtype_policy, build_model_resizer(message), state_of(detector))
    return detector


def detector_from_config(config: dict[str, Any]) -> Detector:
    """Builds the detector of a .keras file, with random weights: the inverse of ``Detector.get_config``."""
    detector = build_detector(text_format.Parse(config["model"], pb.DetectionModel()), config["dtype_policy"])
    frozen = set(config["frozen"])
    for layer in detector._flatten_layers(include_self=False):
        if layer.path in frozen:
            layer.trainable = False
    return detector


def with_num_classes(detector: Detector, num_classes: int) -> Detector:
    """Builds the same detector for other classes, for a training that starts from its weights.

    Args:
        detector: Detector that ``build_detector`` built.
        num_classes: Number of the new classes; the old number resets the layers of the classes.

    Returns:
        A new detector. Layers whose shape follows from the number of classes have initial weights, all others those of
        ``detector``.

    Raises:
        ConfigError: The detector was not built from a config, or detects without classes.
    """
    if detector.origin is None or detector.proposes_only:
        raise ConfigError(f"{detector.name} has no config or no classes, so their number cannot be changed")
    message = text_format.Parse(detector.origin.model, pb.DetectionModel())
    getattr(message, str(message.WhichOneof("model"))).num_classes = num_classes
    changed = build_detector(message, detector.origin.dtype_policy)
    weights = variables_by_path(detector.variables)
    for path, variable in variables_by_path(changed.variables).items():
        if not CLASS_LAYER.search(path) and weights[path].shape == variable.shape:
            variable.assign(weights[path])
    return changed


def without_pretrained(message: pb.DetectionModel) -> pb.DetectionModel:
    """Returns a copy of a ``model`` block without pretrained weights for the feature extractor."""
    bare = copy.deepcopy(message)
    extractor = getattr(getattr(bare, bare.WhichOneof("model") or "", None), "feature_extractor", None)
    if extractor is not None and PRETRAINED_FIELD in extractor.DESCRIPTOR.fields_by_name:
        extractor.ClearField(PRETRAINED_FIELD)
    return bare


def _one_stage(ssd: pb.Ssd) -> Detector:
    """Builds SSD, or if the feature extractor has a pyramid RetinaNet or EfficientDet."""
    anchors = build_anchor_generator(ssd.anchor_generator)
    targets, loss = build_anchor_targets(ssd), build_dense_loss(ssd)
    detections = build_dense_detections(ssd)
    network, normalize = _network(ssd, anchors.num_anchors_per_location)
    return OneStageDetector(network, normalize, anchors, targets, loss, detections, ssd.num_classes, name="ssd")


def _network(ssd: pb.Ssd, num_anchors_per_location: tuple[int, ...]) -> tuple[keras.Model, Callable[[Tensor], Tensor]]:
    """Builds backbone, neck and head, and returns the normalization of the pixels that they expect."""
    message = ssd.feature_extractor
    neck = build_neck(message, ssd.freeze_batchnorm)
    num_columns = ssd.num_classes + int(ssd.add_background_class)
    head = build_dense_head(ssd.box_predictor, num_anchors_per_location, num_columns, ssd.freeze_batchnorm)
    image_shape = build_resizer(ssd.image_resizer).static_shape
    extractor = _feature_extractor(ssd, image_shape)
    maps = num_maps(message, len(extractor.specs))
    if maps != len(num_anchors_per_location):
        raise ConfigError(
            f"model.ssd.anchor_generator: has boxes for {len(num_anchors_per_location)} feature maps, but with "
            f"output_stride {message.output_stride} {message.type} makes {maps}; accepted: {maps} num_layers"
        )
    network = one_stage_network(image_shape, extractor, neck, head, pad_to_multiple=message.pad_to_multiple)
    return network, extractor.normalize


def _feature_extractor(ssd: pb.Ssd, image_shape: tuple[int | None, int | None]) -> FeatureExtractor:
    message = ssd.feature_extractor
    own = build_hyperparams(message.conv_hyperparams) if message.override_base_feature_extractor_hyperparams else None
    return build_feature_extractor(message, image_shape, own, freeze_batchnorm=ssd.freeze_batchnorm)


@contextlib.contextmanager
def _global_dtype_policy(name: str) -> Iterator[None]:
    """Sets the policy of the layers that are built inside, then restores the policy of the process."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


_DETECTORS: dict[str, Callable[[Any], Detector]] = {
    "ssd": _one_stage,
    "faster_rcnn": build_two_stage,
    "center_net": build_center_net,
    "segmentation_proposals": build_segmentation_proposals,
    "spp_classifier": build_spp_classifier,
    "spp_net": build_spp_net,
}
