"""``config check`` supports exactly the branches that the builders build."""

from __future__ import annotations

import pytest

from detzoo.builders import augment, losses, targets
from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.detector import build_detector
from detzoo.builders.optimizer import build_schedule
from detzoo.config import pb
from detzoo.config.check.effects import reasons, supported_branches
from detzoo.config.check.pipeline import check_pipeline, require
from detzoo.config.check.training import AUTOAUGMENT_POLICIES
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.data.augment.policy import POLICIES
from detzoo.errors import ConfigError
from detzoo.features.network import symbolic

# oneof, its message's builder
BUILDERS = [
    (pb.ClassificationLoss, "classification_loss", losses.build_classification_loss),
    (
        pb.LocalizationLoss,
        "localization_loss",
        lambda message: losses.build_localization_loss(
            message, targets.build_box_coder(pb.BoxCoder(faster_rcnn_box_coder=pb.FasterRcnnBoxCoder()))
        ),
    ),
    (pb.BoxCoder, "box_coder_oneof", targets.build_box_coder),
    (pb.Matcher, "matcher_oneof", targets.build_matcher),
    (pb.RegionSimilarityCalculator, "region_similarity", targets.build_similarity),
    (
        pb.AnchorGenerator,
        "anchor_generator_oneof",
        build_anchor_generator,
    ),
    (pb.LearningRate, "learning_rate", build_schedule),
    (pb.PreprocessingStep, "preprocessing_step", lambda message: augment.build_augmentations([message])),
]
# Branches that need a value before they can be built at all.
INCOMPLETE = {
    "bootstrapped_sigmoid",
    "manual_step_learning_rate",
    "normalize_image",
    "subtract_channel_mean",
    "drop_label_probabilistically",
    "remap_labels",
    "resize_image",
    "random_resize_method",
    "grid_anchor_generator",
    "multiscale_anchor_generator",
    "flexible_grid_anchor_generator",
}
# Built as a coder, but the heads of this version have no room for its codes.
REFUSED_ELSEWHERE = {"square_box_coder"}


def branches():
    for message_class, oneof, build in BUILDERS:
        for field in message_class.DESCRIPTOR.oneofs_by_name[oneof].fields:
            yield pytest.param(message_class, oneof, build, field.name, id=field.name)


@pytest.mark.parametrize(("message_class", "oneof", "build", "branch"), branches())
def test_a_branch_is_built_or_refused_by_both(message_class, oneof, build, branch):
    message = message_class()
    getattr(message, branch).SetInParent()
    if branch in supported_branches(message, oneof):
        if branch not in INCOMPLETE:
            build(message)
        return
    assert branch in reasons(message_class.DESCRIPTOR, "unsupported")
    with pytest.raises(ConfigError, match=rf"^block\.{branch}: "):
        require(message, "block")
    if branch not in REFUSED_ELSEWHERE:
        with pytest.raises((ConfigError, KeyError), match=branch):
            build(message)


def test_the_learned_policies_are_named_alike():
    assert tuple(POLICIES) == AUTOAUGMENT_POLICIES


@pytest.fixture(scope="session")
def regions(load_module):
    """The module tests/config/check/test_check_regions.py, for its lists of overrides."""
    return load_module("config/check/test_check_regions.py")


MODEL = "model.faster_rcnn"
EXTRACTOR, LOSS = f"{MODEL}.feature_extractor", f"{MODEL}.second_stage_classification_loss"
MASK_HEAD = f"{MODEL}.second_stage_box_predictor.mask_rcnn_box_predictor"
TINY = [
    f"{EXTRACTOR}.type=faster_rcnn_mobilenet_v1",
    f"{EXTRACTOR}.depth_multiplier=0.25",
]
TINY_PYRAMID = [f"{EXTRACTOR}.type=faster_rcnn_mobilenet_v1_fpn", f"{EXTRACTOR}.fpn.additional_layer_depth=16"]
NO_POOLING = [f"{MODEL}.maxpool_kernel_size=", f"{MODEL}.maxpool_stride="]
SIGMOID = f"{MODEL}.second_stage_post_processing.score_converter=SIGMOID"


def values_of(enum):
    return [value.name for value in enum.DESCRIPTOR.values]


# Names of lists in the tests of the checks, overrides of our own, and whether both accept.
TWO_STAGE = {
    "plain": ([], [], True),
    "pyramid": (["PYRAMID"], [], True),
    "rfcn": (["POSITION_SENSITIVE"], [], True),
    "masks": (["MASKS"], [], True),
    "pyramid with masks": (["PYRAMID", "MASKS"], [], True),
    "first stage": (["FIRST_STAGE"], [], True),
    "first stage of a pyramid": (["PYRAMID", "FIRST_STAGE"], [], True),
    "from a reader": (["FROM_READER"], [], True),
    "softmax": ([], [f"{LOSS}.weighted_softmax{{}}"], True),
    "sigmoid": ([], [f"{LOSS}.weighted_sigmoid{{}}", SIGMOID], True),
    "focal": ([], [f"{LOSS}.weighted_sigmoid_focal{{}}", SIGMOID], True),
    "empty loss": ([], [f"{LOSS}{{}}"], True),
    **{f"roi {name}": ([], [f"{MODEL}.roi_operation={name}"], True) for name in values_of(pb.FasterRcnn.RoiOperation)},
    "align without pooling": ([], [f"{MODEL}.roi_operation=ROI_ALIGN", *NO_POOLING], True),
    "no pooling": ([], NO_POOLING, True),
    **{
        f"sharing {name}": (["PYRAMID"], [f"{MODEL}.first_stage_head_sharing={name}"], True)
        for name in values_of(pb.FasterRcnn.HeadSharing)
    },
    **{
        f"features {name}": ([], [f"{MODEL}.box_features={name}"], True)
        for name in values_of(pb.FasterRcnn.BoxFeatures)
    },
    **{
        f"pyramid features {name}": (["PYRAMID"], [f"{MODEL}.box_features={name}"], name != "BACKBONE")
        for name in values_of(pb.FasterRcnn.BoxFeatures)
    },
    **{
        f"stride {name}": ([], [f"{EXTRACTOR}.crop_stride={name}"], True)
        for name in values_of(pb.FasterRcnnFeatureExtractor.CropStride)
    },
    **{
        f"coarse {name}": (["PYRAMID"], [f"{EXTRACTOR}.fpn.coarse_source={name}"], True)
        for name in values_of(pb.FeaturePyramidNetworks.CoarseSource)
    },
    "last map": ([], [f"{EXTRACTOR}.use_last_map=true"], True),
    "last map and backbone": ([], [f"{EXTRACTOR}.use_last_map=true", f"{MODEL}.box_features=BACKBONE"], False),
    "stride 32": ([], [f"{EXTRACTOR}.first_stage_features_stride=32"], False),
    "stride 12": ([], [f"{EXTRACTOR}.first_stage_features_stride=12"], False),
    "pooling by another stride": ([], [f"{MODEL}.maxpool_stride=1"], False),
    "pooling of more than there is": ([], [f"{MODEL}.maxpool_kernel_size=16", f"{MODEL}.maxpool_stride=16"], False),
    "no crop": ([], [f"{MODEL}.initial_crop_size=0"], False),
    "no class": ([], [f"{MODEL}.num_classes=0"], False),
    "no head": ([], [f"{MODEL}.second_stage_box_predictor="], False),
    "no stage": (["FROM_READER"], [f"{MODEL}.number_of_stages=1"], False),
    "code of five numbers": ([], [f"{MASK_HEAD}.box_code_size=5"], False),
    "anchors of other maps": (["PYRAMID"], [f"{EXTRACTOR}.fpn.max_level=5"], False),
    "bins that do not fit": (
        ["POSITION_SENSITIVE"],
        [f"{MODEL}.second_stage_box_predictor.rfcn_box_predictor.crop_width=7"],
        False,
    ),
    "codes of five numbers of parts": (
        ["POSITION_SENSITIVE"],
        [f"{MODEL}.second_stage_box_predictor.rfcn_box_predictor.box_code_size=5"],
        False,
    ),
    "parts on a pyramid": (["PYRAMID", "POSITION_SENSITIVE"], [], False),
    "masks that do not fit": (["MASKS"], [f"{MASK_HEAD}.convolve_then_upsample_masks=true"], False),
}


@pytest.mark.parametrize("name", TWO_STAGE)
def test_a_two_stage_config_is_built_or_refused_by_both(region_path, regions, name):
    lists, own, is_accepted = TWO_STAGE[name]
    overrides = [*TINY, *(override for chosen in lists for override in getattr(regions, chosen)), *own]
    if "PYRAMID" in lists:
        overrides += TINY_PYRAMID
    pipeline = load_pipeline(str(region_path), overrides)
    errors = [p for p in check_pipeline(pipeline, files=False) if p.severity is Severity.ERROR]
    assert (errors == []) == is_accepted, errors
    if is_accepted:
        assert symbolic(lambda: build_detector(pipeline.message.model)).network.output["maps"]
    else:
        with pytest.raises(ConfigError, match=r"^model\.faster_rcnn"):
            symbolic(lambda: build_detector(pipeline.message.model))
