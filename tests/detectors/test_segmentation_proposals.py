"""Segmentation proposals: that they learn, on two replicas as on one, without objects, in bfloat16, and once saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.contracts import AnchorState, Groundtruth
from detzoo.evaluate.masks import paste_mask


@pytest.fixture(scope="module")
def small_masks(load_module):
    """The module tests/small_mask_proposals.py."""
    return load_module("small_mask_proposals.py")


@pytest.fixture(scope="module")
def trained(small_masks):
    """A detector after 40 steps on two images, the sum of its losses in each, and its largest gradients."""
    keras.utils.set_random_seed(3)
    detector = small_masks.build()
    images, groundtruth = small_masks.images_and_groundtruth()
    optimizer = keras.optimizers.Adam(0.005)
    optimizer.build(detector.trainable_weights)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            predictions = detector.forward(detector.preprocess(images), training=True, groundtruth=groundtruth)
            values = small_masks.values_of(detector.loss_terms(predictions, groundtruth))
            total = tf.add_n(list(values.values()))
        gradients = tape.gradient(total, detector.trainable_weights)
        optimizer.apply_gradients(zip(gradients, detector.trainable_weights, strict=True))
        return total, [tf.reduce_max(tf.abs(gradient)) for gradient in gradients]

    totals, largest = zip(*(step() for _ in range(40)), strict=True)
    return detector, [float(total) for total in totals], np.max(largest, axis=0)


def detect(detector, images, **options):
    predictions = detector.forward(detector.preprocess(images), **options)
    true_shapes = options.get("true_shapes", tf.constant([[64, 96]] * len(images)))
    return detector.postprocess(predictions, true_shapes, (64, 96))


def test_loss_falls_on_two_images_and_every_weight_of_the_used_heads_learns(trained):
    detector, totals, largest = trained
    assert np.mean(totals[-5:]) < 0.25 * totals[0]
    # Both objects are 36 pixels long, nearest to 32 (of 16, 22.6, 32, 45.3, 64, 90.5): level 4 of the first head. So
    # no mask of the second head is trained.
    still = [weight.path for weight, x in zip(detector.trainable_weights, largest, strict=True) if x == 0.0]
    assert still == ["mask_head/mask_7/kernel", "mask_head/mask_7/bias"]


def test_what_was_learned_are_the_masks(trained, small_masks):
    images, groundtruth = small_masks.images_and_groundtruth()
    detections = detect(trained[0], images, training=True)  # forty steps do not fill the moving statistics
    for number, true_mask in enumerate(groundtruth.masks.numpy()[:, 0]):
        # All windows around the object are positives of the targets, and their scores tie; some cut a part of it off.
        boxes = detections.boxes_norm.numpy()[number, :5] * [64, 96, 64, 96]
        found = [paste_mask(mask, box, (64, 96)) for mask, box in zip(detections.masks.numpy()[number], boxes)]
        ious = [(mask & (true_mask > 0)).sum() / (mask | (true_mask > 0)).sum() for mask in found]
        assert max(ious) > 0.75
        true_box = groundtruth.boxes_norm.numpy()[number, 0] * [64, 96, 64, 96]
        np.testing.assert_allclose(boxes[np.argmax(ious)], true_box, atol=5.0)


def test_terms_and_the_sample(small_masks):
    detector = small_masks.build()
    images, groundtruth = small_masks.images_and_groundtruth()
    predictions = detector.forward(detector.preprocess(images), training=True, groundtruth=groundtruth)
    assert set(detector.loss_terms(predictions, groundtruth)) == {"mask", "score"}
    state = predictions.targets.state.numpy()
    assert state.shape == (2, small_masks.NUM_LOCATIONS)
    assert ((state != AnchorState.IGNORE).sum(axis=1) == 32).all()
    # Centres (24, 30) and (40, 66): of the cells of 16 pixels (centres 8, 24, 40, 56 and 8, .., 88), rows 8, 24, 40 are
    # within one cell of 24, columns 24, 40 of 30; rows 24, 40, 56 of 40, columns 56, 72 of 66. Six each.
    assert (state == AnchorState.POSITIVE).sum(axis=1).tolist() == [6, 6]
    # Masks are predicted at those only: 32 * 0.25 = 8 rows.
    assert predictions.mask_logits.shape == (2, 8, 7, 7)
    assert (predictions.scores.numpy() >= 0).sum(axis=1).tolist() == [6, 6]


def test_images_without_objects(small_masks):
    detector = small_masks.build()
    images, groundtruth = small_masks.images_and_groundtruth(num_objects=0)
    with tf.GradientTape() as tape:
        predictions = detector.forward(detector.preprocess(images), training=True, groundtruth=groundtruth)
        values = small_masks.values_of(detector.loss_terms(predictions, groundtruth))
        total = tf.add_n(list(values.values()))
    assert float(values["mask"]) == 0.0
    assert float(values["score"]) > 0.0
    gradients = tape.gradient(total, detector.trainable_weights)
    assert all(np.isfinite(x).all() for x in gradients if x is not None)


def test_two_images_together_have_the_sum_of_their_losses(small_masks):
    # So that replicas may divide a batch: totals and normalizers add up. Without batch normalisation in training, and
    # with a sample of all 252 locations, of which a quarter of 1008 may be positive.
    detector = small_masks.build(
        "segmentation_proposals { examples_per_image: 1008 feature_extractor { batch_norm_trainable: false } }"
    )
    images, groundtruth = small_masks.images_and_groundtruth()

    def terms_of(rows):
        truth = Groundtruth(*(field[rows] for field in groundtruth[:7]))
        predictions = detector.forward(detector.preprocess(images[rows]), training=True, groundtruth=truth)
        return detector.loss_terms(predictions, truth)

    both, first, second = terms_of(slice(0, 2)), terms_of(slice(0, 1)), terms_of(slice(1, 2))
    for name, term in both.items():
        assert float(term.total) == pytest.approx(float(first[name].total + second[name].total), rel=1e-4)
        assert float(term.normalizer) == float(first[name].normalizer + second[name].normalizer) == 2.0


def test_the_best_twenty_of_the_image_not_of_its_padding(small_masks):
    detector = small_masks.build()
    images, _ = small_masks.images_and_groundtruth()
    detections = detect(detector, images, true_shapes=tf.constant([[64, 96], [64, 16]]))
    assert detections.masks.shape == (2, 20, 7, 7)
    assert detections.num_valid.numpy().tolist() == [20, 20]
    # Locations in the first 16 columns of the padded input: on level 3 the first two of 12 cells of a row, on level 4
    # the first of 6; on level 5 none, whose first centre is at 16.
    columns = np.concatenate([np.arange(96) % 12 < 2, np.arange(24) % 6 < 1, np.zeros(6, bool)])
    assert np.tile(columns, 2)[detections.anchor_indices.numpy()[1]].all()
    assert ((detections.boxes_norm.numpy() >= 0) & (detections.boxes_norm.numpy() <= 1)).all()
    scores = detections.scores.numpy()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_masks_are_those_of_the_head_that_the_location_belongs_to(small_masks):
    everywhere = small_masks.NUM_LOCATIONS
    detector = small_masks.build(f"segmentation_proposals {{ max_proposals: {everywhere} }}")
    for layer, value in (("mask_5", 5.0), ("mask_7", -5.0)):
        kernel, bias = detector.mask_network.get_layer(layer).get_weights()
        detector.mask_network.get_layer(layer).set_weights([0 * kernel, 0 * bias + value])
    images, _ = small_masks.images_and_groundtruth()
    predictions = detector.forward(detector.preprocess(images))
    is_first_head = predictions.chosen.numpy() < everywhere // 2
    assert is_first_head.sum(axis=1).tolist() == [everywhere // 2] * 2
    expected = np.where(is_first_head, 5.0, -5.0)[..., np.newaxis, np.newaxis]
    np.testing.assert_allclose(predictions.mask_logits, np.broadcast_to(expected, [2, everywhere, 7, 7]), atol=1e-5)


def test_the_graph_and_an_input_of_unknown_size_give_the_same(trained, small_masks, tmp_path):
    detector = trained[0]
    images, _ = small_masks.images_and_groundtruth()
    eager = detect(detector, images)
    any_size = small_masks.build(
        "segmentation_proposals { image_resizer { keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 96 } } }"
    )
    assert any_size.input_shape_px == (None, None)
    checkpoint = make_checkpoint(tf.Variable(7, dtype=tf.int64), model=variables_by_path(detector.variables))
    tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=1).save(7)
    assert restore_for_inference(any_size, tmp_path) == 7
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def in_graph(images):
        predictions = any_size.forward(any_size.preprocess(images))
        shape = tf.shape(images)
        return any_size.postprocess(predictions, tf.constant([[64, 96]] * 2), (shape[1], shape[2]))

    for name, expected in eager._asdict().items():
        np.testing.assert_allclose(getattr(in_graph(images), name), expected, atol=2e-4, err_msg=name)


def test_bfloat16_computes_in_bfloat16_and_predicts_in_float32(small_masks):
    detector = small_masks.build(dtype_policy="mixed_bfloat16")
    images, groundtruth = small_masks.images_and_groundtruth()
    assert {x.dtype for x in detector.network.output["features"]} == {"bfloat16"}
    predictions = detector.forward(detector.preprocess(images), training=True, groundtruth=groundtruth)
    assert predictions.score_logits.dtype == predictions.mask_logits.dtype == tf.float32
    assert all(np.isfinite(term.total) for term in detector.loss_terms(predictions, groundtruth).values())


def test_one_head_alone(small_masks):
    detector = small_masks.build("segmentation_proposals { head_kernel_size: 7 }")
    assert {path.split("/")[1] for path in variables_by_path(detector.variables) if path.startswith("head/")} == {
        "conv_7",
        "score_7",
    }
    images, _ = small_masks.images_and_groundtruth()
    windows = detector.forward(detector.preprocess(images)).windows_norm.numpy() * [64, 96, 64, 96]
    # Level 3 has objects of 16 * sqrt(2) pixels, and windows a quarter larger.
    assert windows[0, 2] - windows[0, 0] == pytest.approx(1.25 * 16 * np.sqrt(2), rel=1e-5)
