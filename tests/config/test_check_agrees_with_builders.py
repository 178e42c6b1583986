"""What ``config check`` supports is what the builders build, branch by branch."""

from __future__ import annotations

import pytest

from detzoo.builders import augment, losses, targets
from detzoo.builders.optimizer import build_schedule
from detzoo.config import pb
from detzoo.config.check_training import AUTOAUGMENT_POLICIES
from detzoo.config.effects import UNSUPPORTED, supported_branches
from detzoo.data.augment_policy import POLICIES
from detzoo.errors import ConfigError

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
    assert branch in UNSUPPORTED[message_class.DESCRIPTOR.name]
    if branch not in REFUSED_ELSEWHERE:
        with pytest.raises(ConfigError, match=r"not supported|accepts one of"):
            build(message)


def test_the_learned_policies_are_named_alike():
    assert tuple(POLICIES) == AUTOAUGMENT_POLICIES
