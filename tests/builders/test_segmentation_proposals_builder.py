"""Every number of a ``segmentation_proposals`` block reaches its part."""

from __future__ import annotations

import math

import keras
import pytest

from detzoo.features.network import symbolic
from detzoo.losses.region_loss import MaskProposalLoss
from detzoo.ops.sliding_windows import SlidingWindows
from detzoo.targets.mask_proposal_targets import MaskProposalTargets


@pytest.fixture(scope="module")
def small_masks(load_module):
    """The module tests/small_mask_proposals.py."""
    return load_module("small_mask_proposals.py")


def test_numbers_arrive(small_masks):
    detector = symbolic(
        lambda: small_masks.build(
            """segmentation_proposals {
              feature_extractor { fpn { min_level: 2 max_level: 4 } }
              head_kernel_size: [7, 5] head_depth: 12
              mask_size: 9 min_object_size: 10
              window_scale: 1.5
              examples_per_image: 40 positive_fraction: 0.5
              mask_loss_weight: 3 score_loss_weight: 2
              max_proposals: 17
            }"""
        )
    )
    windows = SlidingWindows((2, 3, 4), (1.0, math.sqrt(2.0)), min_object_size_px=10.0, window_scale=1.5)
    assert detector._windows == windows
    assert detector._targets == MaskProposalTargets(windows.object_sides_px, 40, 0.5)
    assert detector._loss_terms == MaskProposalLoss(mask_weight=3.0, score_weight=2.0)
    assert detector._max_proposals == 17
    # Two heads on three levels of 16 x 24, 8 x 12 and 4 x 6 cells.
    assert [tuple(x.shape[1:]) for x in detector.network.output["features"]] == [
        (16, 24, 12),
        (8, 12, 12),
        (4, 6, 12),
    ] * 2
    assert detector.mask_network.output.shape == (None, None, 9, 9, 2)
    assert detector.num_classes == 1
    assert detector.proposes_only


def test_the_paper_is_the_default(small_masks):
    message = small_masks.message_of().segmentation_proposals
    for name in ("head_depth", "mask_size", "min_object_size", "examples_per_image", "max_proposals"):
        message.ClearField(name)
    # Appendix A of arXiv:1612.03144.
    assert (message.head_depth, message.mask_size, message.min_object_size) == (512, 14, 32.0)
    assert (message.window_scale, message.examples_per_image, message.positive_fraction) == (1.25, 128, 0.25)
    assert (message.mask_loss_weight, message.score_loss_weight, message.max_proposals) == (10.0, 1.0, 1000)


def test_the_heads_are_normalised_as_their_hyperparameters_say(small_masks):
    frozen = "segmentation_proposals { conv_hyperparams { batch_norm { } } feature_extractor { batch_norm_trainable: "
    for trainable in ("true", "false"):
        detector = small_masks.build(frozen + trainable + " } }")
        norm = detector.network.get_layer("conv_5_level_3_batch_norm")
        assert isinstance(norm, keras.layers.BatchNormalization)
        assert norm.train_statistics is (trainable == "true")
