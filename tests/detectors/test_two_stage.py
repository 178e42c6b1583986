"""Two-stage detectors of every kind: that they learn, where gradients stop, borders, precision, masks, saving."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.checkpoints.merge import save_weights
from detzoo.contracts import Groundtruth
from detzoo.errors import CheckpointError

RPN_PREDICTORS = ("rpn/box_predictor", "rpn/objectness_predictor", "rpn/conv")
SECOND_STAGE_TERMS = ("localization", "classification", "mask")
TERMS = {
    "plain": {"rpn_localization", "rpn_objectness", "localization", "classification"},
    "pyramid": {"rpn_localization", "rpn_objectness", "localization", "classification"},
    "masks": {"rpn_localization", "rpn_objectness", "localization", "classification", "mask"},
    "pyramid_masks": {"rpn_localization", "rpn_objectness", "localization", "classification", "mask"},
    "rfcn": {"rpn_localization", "rpn_objectness", "localization", "classification"},
    "first_stage": {"rpn_localization", "rpn_objectness"},
    "from_reader": {"localization", "classification"},
}


def gradients_of(small, detector, images, groundtruth, names=None):
    """Loss terms, and path of each trainable weight to the gradient of (some of) their sum."""
    with tf.GradientTape() as tape:
        predictions = small.forward(detector, images, groundtruth)
        values = small.values_of(detector.loss_terms(predictions, groundtruth))
        total = tf.add_n([value for name, value in values.items() if names is None or name in names])
    gradients = tape.gradient(total, detector.trainable_weights)
    return values, {weight.path: x for weight, x in zip(detector.trainable_weights, gradients, strict=True)}


@pytest.mark.parametrize(
    "kind", ["plain", pytest.param("pyramid_masks", marks=pytest.mark.slow), "rfcn", "first_stage", "from_reader"]
)
def test_loss_falls_within_seven_steps_on_two_images(small, kind):
    # Seven eager steps take less time than tracing one. Shared, so that the coarse levels without objects learn, too.
    detector = small.build(kind, "faster_rcnn { first_stage_head_sharing: ALL }")
    images, groundtruth = small.images_and_groundtruth()
    optimizer = keras.optimizers.Adam(0.004)
    totals, largest = [], {weight.path: 0.0 for weight in detector.trainable_weights}
    for _ in range(7):
        values, gradients = gradients_of(small, detector, images, groundtruth)
        assert set(values) == TERMS[kind]
        optimizer.apply_gradients(zip(gradients.values(), detector.trainable_weights, strict=True))
        totals.append(sum(float(value) for value in values.values()))
        largest = {path: max(largest[path], float(tf.reduce_max(tf.abs(x)))) for path, x in gradients.items()}
    assert np.mean(totals[-2:]) < 0.65 * totals[0]  # samples are random, so the mean of two
    # Every weight has a gradient. A ReLU may be shut in one step, not in all.
    assert [path for path, x in largest.items() if x == 0.0] == []


@pytest.mark.parametrize("kind", ["masks", "pyramid"])
def test_no_gradient_flows_from_the_second_stage_through_the_proposals(small, kind):
    detector = small.build(kind)
    _, gradients = gradients_of(small, detector, *small.images_and_groundtruth(), SECOND_STAGE_TERMS)
    of_rpn = {path: x for path, x in gradients.items() if path.startswith(RPN_PREDICTORS)}
    assert len(of_rpn) >= 6
    assert all(x is None for x in of_rpn.values())
    assert float(tf.reduce_max(tf.abs(gradients["backbone/conv1/kernel"]))) > 0.0
    _, gradients = gradients_of(
        small, detector, *small.images_and_groundtruth(), ("rpn_localization", "rpn_objectness")
    )
    assert all(x is None for path, x in gradients.items() if path.startswith(("box_head", "box_backbone", "mask_head")))
    assert not any(x is None for path, x in gradients.items() if path.startswith(("rpn", "backbone")))


@pytest.mark.parametrize("kind", ["masks", "rfcn", "from_reader"])
def test_images_without_objects(small, kind):
    detector = small.build(kind)
    images, groundtruth = small.images_and_groundtruth(num_objects=0)
    predictions = small.forward(detector, images, groundtruth)
    assert (predictions.targets.classes.numpy() == -1).all()
    assert not predictions.targets.box_weights.numpy().any()
    np.testing.assert_array_equal(
        tf.reduce_sum(predictions.targets.class_weights, axis=1), tf.cast(predictions.proposals.num_valid, tf.float32)
    )
    values, gradients = gradients_of(small, detector, images, groundtruth)
    assert all(np.isfinite(value) for value in values.values())
    assert {float(value) for name, value in values.items() if name in ("rpn_localization", "localization", "mask")} == {
        0.0
    }
    assert float(values["classification"]) > 0.0
    assert all(np.isfinite(x).all() for x in gradients.values() if x is not None)


def test_crowds_train_neither_stage(small):
    detector = small.build()
    images, groundtruth = small.images_and_groundtruth()
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0], [0, 0, 0, 0]]] * 2)
    crowd = groundtruth._replace(boxes_norm=whole, is_crowd=tf.constant([[True, False]] * 2))
    predictions = small.forward(detector, images, crowd)
    assert predictions.proposals.num_valid.numpy().tolist() == [0, 0]
    values = small.values_of(detector.loss_terms(predictions, crowd))
    assert {float(value) for value in values.values()} == {0.0}


def anchors_as_proposals(small, *more, training):
    """Anchors and proposals in pixels of a first stage whose weights are zero: its proposals are its anchors."""
    detector = small.build("first_stage", "faster_rcnn { first_stage_max_proposals: 144 }", *more)
    for weight in detector.network.weights:
        if weight.path.startswith(RPN_PREDICTORS[:2]):
            weight.assign(tf.zeros(weight.shape))
    images, groundtruth = small.images_and_groundtruth()
    predictions = detector.forward(
        detector.preprocess(images),
        training=training,
        groundtruth=groundtruth if training else None,
        true_shapes=tf.constant([[64, 96], [64, 48]]),
    )
    scale = np.array([64, 96, 64, 96])
    proposals = [
        predictions.proposals.boxes_norm[image, :count].numpy() * scale
        for image, count in enumerate(predictions.proposals.num_valid.numpy())
    ]
    return predictions.first_stage.anchors_norm.numpy() * scale, proposals


def is_inside(boxes, height=64, width=96):
    return ((boxes >= -1e-3) & (boxes <= np.array([height, width] * 2) + 1e-3)).all(axis=-1)


def is_one_of(boxes, anchors):
    return (np.abs(boxes[:, np.newaxis] - anchors).max(axis=-1) < 1e-3).any(axis=1)


def test_anchors_that_cross_the_border_do_not_propose_in_training(small):
    anchors, (whole, left_half) = anchors_as_proposals(small, training=True)
    assert 0 < is_inside(anchors).sum() < len(anchors)
    for proposals, width in ((whole, 96), (left_half, 48)):
        assert len(proposals) > 0
        assert is_one_of(proposals, anchors[is_inside(anchors, width=width)]).all()


def test_anchors_that_cross_the_border_are_cut_at_inference(small):
    anchors, (whole, left_half) = anchors_as_proposals(small, training=False)
    assert is_inside(anchors).all()
    assert is_inside(whole).all()
    assert is_inside(left_half, width=48).all()
    uncut, _ = anchors_as_proposals(small, training=True)
    np.testing.assert_allclose(anchors, np.clip(uncut, 0, [64, 96, 64, 96]), atol=1e-3)
    assert not is_one_of(whole, uncut).all()  # some of the cut ones propose


def test_anchors_that_cross_the_border_may_be_kept_or_cut_in_training(small):
    anchors, (whole, _) = anchors_as_proposals(small, "faster_rcnn { keep_anchors_outside_image: true }", training=True)
    assert not is_inside(anchors).all()
    assert not is_one_of(whole, anchors[is_inside(anchors)]).all()
    assert is_inside(whole).all()  # proposals are cut, whatever their anchors
    anchors, _ = anchors_as_proposals(small, "faster_rcnn { clip_anchors_to_image: true }", training=True)
    assert is_inside(anchors).all()


@pytest.mark.parametrize("kind", ["first_stage", "pyramid", "rfcn"])
@pytest.mark.parametrize(
    "text", ["keep_anchors_outside_image: false", "keep_anchors_outside_image: true", "clip_anchors_to_image: true"]
)
def test_a_box_that_training_encodes_by_an_anchor_is_what_inference_decodes_by_it(small, kind, text):
    detector = small.build(kind, f"faster_rcnn {{ {text} }}")
    images, groundtruth = small.images_and_groundtruth()
    inputs = detector.preprocess(images)
    first = detector.forward(inputs, training=True, groundtruth=groundtruth).first_stage
    targets, coder = detector._first.targets, detector._first.select.box_coder
    trains = targets.usable(first.anchors_norm, tf.constant([[0.0, 0.0, 1.0, 1.0]])).numpy()[0]
    box = tf.constant([[0.0, 0.1, 0.3, 0.45]])
    deltas = coder.encode(tf.tile(box, [len(trains), 1]), first.anchors_norm)
    decoded = coder.decode(deltas, detector.forward(inputs).first_stage.anchors_norm).numpy()
    np.testing.assert_allclose(decoded[trains], np.tile(box, (trains.sum(), 1)), atol=1e-4)
    # Anchors that cross the border train whole with the one flag, cut with the other, and with neither not at all.
    crosses = ~is_inside(first.anchors_norm.numpy(), 1.0, 1.0)
    assert (crosses & trains).any() == (text == "keep_anchors_outside_image: true")
    assert crosses.any() == (text != "clip_anchors_to_image: true")


def test_the_loss_leaves_crossing_anchors_out(small):
    # Without objects every usable anchor is negative.
    counts = {}
    for name, more in (("left out", ""), ("kept", "keep_anchors_outside_image: true")):
        detector = small.build("first_stage", f"faster_rcnn {{ first_stage_minibatch_size: 1000 {more} }}")
        images, groundtruth = small.images_and_groundtruth(num_objects=0)
        predictions = small.forward(detector, images, groundtruth)
        anchors = predictions.first_stage.anchors_norm
        targets = detector._first.targets(anchors, groundtruth, predictions.windows)
        counts[name] = int(tf.reduce_sum(targets.class_weights[0]))
    # 4 x 6 cells every 16 pixels from 0 with anchors of 16, 32 and 64 pixels, square, and 11.3 x 22.6 and so on.
    # Centres y in 0, 16, 32, 48 and x in 0 .. 80. Half heights 8, 16, 32 (square) and 5.66, 11.31, 22.63 (wide); half
    # widths 8, 16, 32 and 11.31, 22.63, 45.25. Inside: centre - half >= 0 and centre + half <= 64 (96).
    # Squares of 16 and 32 have y in 16, 32, 48 and x in 16 .. 80, which is 15 each. Squares of 64 have y in 32 and x in
    # 32, 48, 64, which is 3.
    # Wide anchors of 16 have y in 16, 32, 48 and x in 16 .. 80, which is 15. Those of 32 have y in 16, 32, 48 and x in
    # 32, 48, 64, which is 9. Those of 64 have y in 32 and x in 48, which is 1.
    assert counts == {"left out": 15 + 15 + 3 + 15 + 9 + 1, "kept": 4 * 6 * 6}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["pyramid_masks", "rfcn"])
def test_a_step_under_every_policy(small, kind, policy):
    detector = small.build(kind, dtype_policy=policy)
    assert {weight.dtype for weight in detector.weights} == {"float32"}
    images, groundtruth = small.images_and_groundtruth()
    values, gradients = gradients_of(small, detector, images, groundtruth)
    assert {x.dtype for x in (*values.values(), *gradients.values())} == {tf.float32}
    assert all(np.isfinite(x).all() for x in (*values.values(), *gradients.values()))
    predictions = small.forward(detector, images)
    detections = detector.postprocess(predictions, tf.constant([[64, 96], [64, 48]]), (64, 96))
    floats = {x.dtype for x in tf.nest.flatten((predictions._replace(maps=()), detections)) if x.dtype.is_floating}
    assert floats == {tf.float32}
    assert all(np.isfinite(x).all() for x in (detections.boxes_norm, detections.scores))


@pytest.mark.parametrize("kind", ["pyramid_masks", "rfcn", "first_stage", "from_reader"])
def test_a_traced_detector_for_images_of_any_size_gives_what_an_eager_one_gives(small, kind):
    resizer = "image_resizer { keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 128 } }"
    detector = small.build(kind, f"faster_rcnn {{ {resizer} }}")
    assert detector.input_shape_px == (None, None)

    def detect(batch, shapes):
        height, width = tf.unstack(tf.shape(batch)[1:3])
        return detector.postprocess(small.forward(detector, batch, true_shapes=shapes), shapes, (height, width))

    traced = tf.function(
        detect,
        input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 2], tf.int32)],
        autograph=False,  # halves the time of tracing
    )
    for height, width in ((64, 96), (70, 65)):
        images = tf.random.stateless_uniform([2, height, width, 3], [1, 2], 0, 255)
        shapes = tf.constant([[height, width], [height, width // 2]])
        eager, graph = detect(images, shapes), traced(images, shapes)
        assert tuple(eager.boxes_norm.shape) == (2, 12 if kind == "first_stage" else 5, 4)
        assert eager.num_valid.numpy().min() > 0
        for name in ("num_valid", "classes"):
            np.testing.assert_array_equal(getattr(eager, name), getattr(graph, name))
        for name in ("scores", "boxes_norm", "raw_boxes_norm", "raw_scores"):
            np.testing.assert_allclose(getattr(eager, name), getattr(graph, name), atol=1e-4)
        if "masks" in kind:
            assert tuple(eager.masks.shape) == (2, 5, 7, 7)
            np.testing.assert_allclose(eager.masks, graph.masks, atol=1e-4)
        else:
            assert eager.masks == ()


@pytest.mark.parametrize("kind", ["masks", "rfcn"])
def test_saved_and_restored_detectors_give_the_same(small, kind, tmp_path):
    images, _ = small.images_and_groundtruth()
    first, second = small.build(kind), small.build(kind)
    for detector in (first, second):  # predictors start near zero
        for weight in detector.weights:
            if weight.path.startswith(("rpn", "box_head", "mask_head")):
                weight.assign(tf.random.normal(weight.shape))
    variables = variables_by_path(first.variables)
    checkpoint = make_checkpoint(tf.Variable(3, dtype=tf.int64), model=variables, average={})
    tf.train.CheckpointManager(checkpoint, str(tmp_path), 1).save(checkpoint_number=3)

    def outputs(detector):
        predictions = small.forward(detector, images)
        return predictions, detector.postprocess(predictions, tf.constant([[64, 96]] * 2), (64, 96))

    assert np.abs(outputs(first)[0].class_logits - outputs(second)[0].class_logits).max() > 0.01
    assert restore_for_inference(second, tmp_path) == 3
    for actual, expected in zip(*(tf.nest.flatten(outputs(x)) for x in (second, first)), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind", ["masks", "pyramid_masks"])
def test_masks_are_of_the_detected_class(small, kind):
    # The last layer ignores its input: logits -4, 0 and 4 for the three classes.
    detector = small.build(kind)
    predictor = detector.mask_network.get_layer("mask_predictor")
    predictor.set_weights([np.zeros(predictor.kernel.shape), np.float32([-4.0, 0.0, 4.0])])
    images, _ = small.images_and_groundtruth()
    predictions = small.forward(detector, images)
    logits = np.zeros(predictions.class_logits.shape, np.float32)
    logits[0, :3, 1:] = np.float32([[3, -9, -9], [-9, -9, 2], [-9, 1, -9]])  # classes 0, 2 and 1
    predictions = predictions._replace(class_logits=tf.constant(logits))
    shapes = tf.constant([[64, 96]] * 2)
    detections = detector.postprocess(predictions, shapes, (64, 96))
    known = 1 / (1 + np.exp([4.0, 0.0, -4.0]))
    assert int(detections.num_valid[0]) == 5
    assert set(detections.classes[0].numpy()) >= {0, 2}
    for image in range(2):
        expected = known[detections.classes[image].numpy()]
        expected[int(detections.num_valid[image]) :] = 0.0
        np.testing.assert_allclose(detections.masks[image], np.tile(expected[:, None, None], (1, 7, 7)), atol=1e-6)


def test_masks_are_cropped_where_the_detections_are(small, monkeypatch):
    # The image is the left half of the padded input; detections are fractions of the image, crops of the input.
    detector = small.build("pyramid_masks")
    images, _ = small.images_and_groundtruth()
    shapes = tf.constant([[64, 48], [64, 96]])
    predictions = small.forward(detector, images)
    seen = []

    def record(maps, regions_norm, image_shape):
        seen.append(regions_norm)
        return tf.zeros([2 * 5, 14, 14, 16])

    monkeypatch.setattr(detector, "_mask_crop", record)
    detections = detector.postprocess(predictions, shapes, (64, 96))
    scale = np.array([[[1, 0.5, 1, 0.5]], [[1, 1, 1, 1]]])
    np.testing.assert_allclose(seen[0], detections.boxes_norm * scale, atol=1e-6)
    assert float(tf.reduce_max(detections.boxes_norm[0, :, 3])) > 0.5


@pytest.mark.parametrize("kind", ["masks", "rfcn"])
def test_replicas_add_up_to_the_whole_batch(small, kind):
    # Minibatches larger than all candidates leave nothing to chance.
    everything = """
      first_stage_minibatch_size: 1000 first_stage_positive_balance_fraction: 1
      second_stage_batch_size: 40 second_stage_balance_fraction: 1"""
    frozen = "feature_extractor { batch_norm_trainable: false }"
    detector = small.build(kind, f"faster_rcnn {{ {everything} {frozen} }}")
    images, groundtruth = small.images_and_groundtruth()

    def terms(rows):
        part = Groundtruth(*(x[rows] for x in groundtruth))
        return detector.loss_terms(small.forward(detector, images[rows], part), part)

    whole, halves = terms(slice(0, 2)), [terms(slice(0, 1)), terms(slice(1, 2))]
    assert set(whole) == TERMS[kind]
    for name, term in whole.items():
        total = sum(float(half[name].total) for half in halves)
        normalizer = sum(float(half[name].normalizer) for half in halves)
        assert total / normalizer == pytest.approx(float(term.total / term.normalizer), rel=1e-4)
        assert total > 0.0


def test_a_detector_without_a_first_stage_needs_proposals(small):
    detector = small.build("from_reader")
    assert detector.wants_proposals
    assert not detector.proposes_only
    assert not any(weight.path.startswith("rpn") for weight in detector.weights)
    with pytest.raises(ValueError, match="no first stage: predict needs proposals"):
        detector.forward(tf.zeros([1, 64, 96, 3]))


def test_a_first_stage_alone_has_no_second(small):
    detector = small.build("first_stage")
    assert detector.proposes_only
    assert not detector.wants_proposals
    assert {weight.path.split("/")[0] for weight in detector.weights} == {"backbone", "rpn"}


def test_paths_of_variables_do_not_depend_on_what_was_built_before(small):
    first, second = (sorted(weight.path for weight in small.build("pyramid_masks").weights) for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)
    assert {path.split("/")[0] for path in first} == {
        "backbone",
        "neck",
        "rpn",
        "box_backbone",
        "box_head",
        "mask_head",
    }


@pytest.mark.parametrize(("whole", "part"), [("plain", "first_stage"), ("plain", "from_reader"), ("masks", "plain")])
def test_a_checkpoint_restores_a_detector_that_lacks_whole_parts(small, tmp_path, caplog, whole, part):
    trained = small.build(whole)
    values = {}
    for number, (path, variable) in enumerate(variables_by_path(trained.variables).items()):
        values[path] = np.full(variable.shape, number, np.float32)
    save_weights(tmp_path, 3, values)
    smaller = small.build(part)
    with caplog.at_level(logging.WARNING):
        assert restore_for_inference(smaller, tmp_path) == 3
    kept = variables_by_path(smaller.variables)
    for path, variable in kept.items():
        np.testing.assert_array_equal(variable, values[path])
    dropped = {"first_stage": ("box_backbone", "box_head"), "from_reader": ("rpn",), "plain": ("mask_head",)}[part]
    assert {path.split("/")[0] for path in values.keys() - kept.keys()} == set(dropped)
    [message] = [record.message for record in caplog.records if "not used" in record.message]
    assert (
        f"{len(values) - len(kept)} variables are not used, because the model has no such part: {dropped[0]} "
        in message
    )
    # The other way round, what the checkpoint lacks is an error.
    save_weights(tmp_path / "small", 3, {path: values[path] for path in kept})
    with pytest.raises(CheckpointError, match="variables of the model are not in it"):
        restore_for_inference(trained, tmp_path / "small")
