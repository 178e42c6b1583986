"""Tests of segmentation proposals as a SavedModel: masks equal to those in memory, and stages for benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.benchmark.random_weights import randomize
from detzoo.benchmark.stages import find_outputs, split
from detzoo.builders.resize import build_resizer
from detzoo.export.exporter import Export, export_detector
from detzoo.serving.frozen import to_constants
from detzoo.serving.saved_detector import SavedDetector
from detzoo.serving.served import ServingModule


@pytest.fixture(scope="module")
def exported(load_module, tmp_path_factory):
    """The detector as a serving module, and its SavedModel."""
    small_masks = load_module("small_mask_proposals.py")
    detector, message = small_masks.build(), small_masks.message_of()
    randomize(detector)
    resizer = build_resizer(message.segmentation_proposals.image_resizer)
    folder = tmp_path_factory.mktemp("masks")
    report = export_detector(detector, resizer, folder, "image_tensor", Export())
    assert report.max_score_difference < 1e-4
    return ServingModule(detector, resizer, "image_tensor"), SavedDetector(folder)


def test_a_saved_model_gives_the_masks_of_the_detector(exported):
    serving, loaded = exported
    images = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), np.uint8)
    expected = serving(tf.constant(images))
    assert loaded.has_masks
    found = loaded(images[0])
    assert found.masks.shape == (20, 7, 7)
    assert found.class_ids.tolist() == [1] * 20
    # Scores closer than the rounding may change places: each mask is compared with that of the same location.
    outputs = loaded.outputs(loaded.as_input(images[0]))
    rows, expected_rows = (each["detection_anchor_indices"].numpy()[0] for each in (outputs, expected))
    shared, order, expected_order = np.intersect1d(rows, expected_rows, return_indices=True)
    assert len(shared) >= 18
    for name in ("detection_masks", "detection_boxes"):
        given = expected[name].numpy()[0, expected_order]
        np.testing.assert_allclose(outputs[name].numpy()[0, order], given, atol=0.01, err_msg=name)
    np.testing.assert_array_equal(found.masks, outputs["detection_masks"][0])


def test_batches_and_other_sizes(exported):
    _, loaded = exported
    images = np.random.default_rng(1).integers(0, 256, (2, 31, 97, 3), np.uint8)
    outputs = loaded.outputs(loaded.as_batch(list(images)))
    assert outputs["detection_masks"].shape == (2, 20, 7, 7)
    assert outputs["num_detections"].numpy().tolist() == [20, 20]
    assert outputs["raw_detection_scores"].shape == (2, 252, 2)


def test_masks_belong_to_the_network_and_boxes_around_them_to_the_post_processing(exported):
    _, loaded = exported
    frozen = to_constants(loaded.function)
    outputs = find_outputs(frozen)
    assert [name.rsplit("/", 1)[-1] for name in outputs.network] == ["stage_class_logits:0", "stage_mask_logits:0"]
    parts = {part.name: part for part in split(frozen)}
    assert list(parts) == ["preprocess", "extractor", "network", "boxes", "masks"][: len(parts)]
    convolutions = {
        name: sum(node.op in ("Conv2D", "DepthwiseConv2dNative") for node in part.nodes) for name, part in parts.items()
    }
    # The network: 5 x 5 and 7 x 7 on three levels, each with a score, and the masks of either head.
    assert convolutions["network"] == 2 * 3 + 2 * 3 + 2
    assert convolutions["boxes"] == 0
