"""CenterNet's masks: drawn by DeepMAC's network or cut from maps of classes, and what is learned of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.config import pb
from detzoo.config.check.model import check_model
from detzoo.config.check.pipeline import require
from detzoo.config.problems import Findings, Severity
from detzoo.contracts import CenterPredictions, Groundtruth
from detzoo.detectors.center_masks import CLASS_MAPS, INSTANCE, PIXEL, ClassMasks, DeepMasks
from detzoo.errors import ConfigError
from detzoo.features.network import symbolic
from detzoo.losses.classification import sigmoid_cross_entropy
from detzoo.serving.served import ServingModule
from detzoo.targets.center_targets import class_mask_targets, mask_weights

SMALL = """
center_net {{
  num_classes: 3
  image_resizer {{ fixed_shape_resizer {{ height: 32 width: 48 }} }}
  feature_extractor {{ type: 'hourglass_10' }}
  object_detection_task {{
    localization_loss {{ l1_localization_loss {{}} }}
    scale_head_params {{ num_filters: 8 kernel_sizes: 3 }}
    offset_head_params {{ num_filters: 8 kernel_sizes: 3 }}
  }}
  object_center_params {{
    max_box_predictions: 4
    classification_loss {{ penalty_reduced_logistic_focal_loss {{ alpha: 2 beta: 4 }} }}
    center_head_params {{ num_filters: 8 kernel_sizes: 3 }}
  }}
  {masks}
}}
"""
DEEP = """deepmac_mask_estimation {
  dim: 4 pixel_embedding_dim: 2 mask_size: 8 network_type: 'hourglass10' num_init_channels: 4
  allowed_masked_classes_ids: [1, 3]
  classification_loss { weighted_sigmoid {} }
}"""
BY_CLASS = """mask_estimation_task {
  mask_height: 6 mask_width: 5
  classification_loss { weighted_sigmoid {} }
  mask_head_params { num_filters: 8 kernel_sizes: 3 }
}"""


def message(masks):
    return text_format.Parse(SMALL.format(masks=masks), pb.DetectionModel())


def truth(height=32, width=48):
    """Two objects of the classes 0 and 1 in one image, whose masks are the left half of their boxes, and padding."""
    masks = np.zeros([1, 3, height, width], np.uint8)
    masks[0, 0, : height // 2, : width // 4] = 1
    masks[0, 1, height // 2 :, width // 2 : width * 3 // 4] = 1
    return Groundtruth(
        boxes_norm=tf.constant([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0] * 4]]),
        classes=tf.constant([[0, 1, -1]]),
        weights=tf.constant([[1.0, 1.0, 0.0]]),
        is_crowd=tf.zeros([1, 3], tf.bool),
        is_difficult=tf.zeros([1, 3], tf.bool),
        area_px=tf.zeros([1, 3]),
        masks=tf.constant(masks),
    )


def test_masks_of_other_classes_crowds_and_absent_ones_are_not_learned():
    given = truth()
    np.testing.assert_array_equal(mask_weights(given), [[1, 1, 0]])
    np.testing.assert_array_equal(mask_weights(given, (1, 2)), [[0, 1, 0]])
    crowd = given._replace(is_crowd=tf.constant([[True, False, False]]))
    np.testing.assert_array_equal(mask_weights(crowd), [[0, 1, 0]])
    np.testing.assert_array_equal(mask_weights(given._replace(masks=0 * given.masks)), [[0, 0, 0]])


def test_the_masks_of_a_class_are_joined():
    # 8 x 16 pixels are 2 x 4 cells of 4 pixels. A cell is the mean of its 4 middle pixels: bilinear, half of a cell.
    masks = np.zeros([1, 3, 8, 16], np.uint8)
    masks[0, 0, :4, :2] = 1  # the left half of cell (0, 0): 2 of 4 middle pixels
    masks[0, 1, 4:, 12:] = 1  # cell (1, 3)
    given = truth(8, 16)._replace(masks=tf.constant(masks), classes=tf.constant([[2, 2, -1]]))
    targets, weights = class_mask_targets(given, 3, (2, 4), tf.constant([[8, 12]]), (8, 16))
    np.testing.assert_allclose(targets[0, :, :, 2], [[0.5, 0, 0, 0], [0, 0, 0, 1]])
    assert not np.any(targets[..., :2])
    np.testing.assert_array_equal(weights[0], [[1, 1, 1, 0], [1, 1, 1, 0]])  # the image ends at column 12
    # Without its mask the second object covers cells (1, 2) and (1, 3), which then are unknown.
    absent = given._replace(masks=given.masks * tf.constant([1, 0, 0], tf.uint8)[:, tf.newaxis, tf.newaxis])
    _, weights = class_mask_targets(absent, 3, (2, 4), tf.constant([[8, 16]]), (8, 16))
    np.testing.assert_array_equal(weights[0], [[1, 1, 1, 1], [1, 1, 0, 0]])
    # Maps of an input that was padded to a multiple cover more than the masks.
    targets, _ = class_mask_targets(given, 3, (3, 5), tf.constant([[8, 16]]), (8, 16))
    np.testing.assert_allclose(targets[0, :, :, 2], [[0.5, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0] * 5])


def test_masks_are_cut_from_the_map_of_the_class():
    # Class 1: scores 0.769 in the left column, 0.269 in the right one, so 0.519 in the middle between them.
    maps = np.full([1, 2, 2, 2], -9.0, np.float32)
    maps[..., 1] = [[1.2, -1.0], [1.2, -1.0]]
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]] * 2])
    for threshold, middle in ((0.5, 1), (0.53, 0)):
        masks = ClassMasks((1, 3), threshold, sigmoid_cross_entropy, 1.0)
        found = masks.predict({CLASS_MAPS: [tf.constant(maps)]}, whole, tf.constant([[1, 0]]))
        np.testing.assert_array_equal(found[0], [[[1, middle, 0]], [[0, 0, 0]]])


def deep_masks(channel, **changes):
    """DeepMAC whose network returns one of its input channels: y, x, the pixels' two, the instance's one."""
    inputs = keras.Input((3, 3, 5))
    network = keras.Model(inputs, inputs[..., channel : channel + 1])
    options = {"mask_size": 3, "use_xy": True, "use_instance_embedding": True, "only_last_stack": True}
    return DeepMasks(network, **{**options, **changes}, allowed_classes=(0,), loss=sigmoid_cross_entropy, weight=2.0)


def embeddings():
    pixel = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), axis=-1)  # row and column
    instance = np.arange(25.0).reshape(5, 5, 1)
    return {
        PIXEL: [tf.constant(x[np.newaxis], tf.float32) for x in (pixel + 100, pixel)],
        INSTANCE: [tf.constant(x[np.newaxis], tf.float32) for x in (instance + 100, instance)],
        "object_center": [tf.zeros([1, 5, 5, 1])] * 2,
    }


def test_a_mask_network_reads_coordinates_pixels_and_the_centre():
    region = tf.constant([[[0.0, 0.5, 0.5, 1.0]]])  # corners in the cells' centres 0..4: rows 0 to 2, columns 2 to 4
    expected = {
        0: [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
        1: [[-1, 0, 1]] * 3,
        2: [[0, 0, 0], [1, 1, 1], [2, 2, 2]],
        3: [[2, 3, 4]] * 3,
        4: [[8] * 3] * 3,  # the centre (0.25, 0.75) of 5 x 5 cells lies in cell (1, 3): 1 * 5 + 3
    }
    for channel, values in expected.items():
        found = deep_masks(channel).predict(embeddings(), region, tf.constant([[0]]))
        np.testing.assert_allclose(found[0, 0], tf.sigmoid(tf.constant(values, tf.float32)), rtol=1e-6)


def test_only_the_learned_masks_are_drawn_for_the_loss():
    masks = deep_masks(1, only_last_stack=False)
    logits = masks.logits_of(embeddings(), truth(20, 20), (20, 20), training=True)
    assert [x.shape for x in logits] == [(1, 3, 3, 3)] * 2
    np.testing.assert_allclose(logits[1][0, 0], [[-1, 0, 1]] * 3)
    assert not np.any(logits[1][0, 1:])
    # The box's samples are at columns 0, 4.75 and 9.5 of pixels; the mask ends at 5, so 0.25 of the second lies in it.
    masks_of_first = tf.cast(tf.range(20) < 5, tf.uint8) * tf.ones([1, 3, 20, 1], tf.uint8)
    given = truth(20, 20)._replace(masks=masks_of_first)
    predictions = CenterPredictions(embeddings(), tf.constant([[20, 20]]), (20, 20), logits)
    [term] = masks.loss_terms(predictions, given).values()
    # Binary cross entropy: log(1 + e^-x) + (1 - t) x, for (x, t) = (-1, 1), (0, 0.25), (1, 0).
    expected = np.mean([np.log1p(np.e), np.log(2.0), np.log1p(np.e**-1) + 1])
    assert float(term.total / term.normalizer) == pytest.approx(2.0 * expected, rel=1e-6)
    nothing = given._replace(classes=tf.constant([[1, 1, -1]]))
    [term] = masks.loss_terms(
        predictions._replace(mask_logits=masks.logits_of(embeddings(), nothing, (20, 20), True)), nothing
    ).values()
    assert (float(term.total), float(term.normalizer)) == (0.0, 0.0)


@pytest.mark.parametrize(("text", "shape"), [(DEEP, (8, 8)), (BY_CLASS, (6, 5))])
def test_masks_train_and_are_exported(text, shape):
    model = message(text)
    detector = build_detector(model)
    assert detector.learns_masks
    images = detector.preprocess(tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 32, 48, 3)), tf.float32))
    weights = detector.trainable_variables

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            predictions = detector.forward(images, training=True, groundtruth=truth())
            terms = detector.loss_terms(predictions, truth())
            loss = tf.add_n([term.total / tf.maximum(term.normalizer, 1.0) for term in terms.values()])
        return tape.gradient(loss, [weight.value for weight in weights])

    assert all(gradient is not None for gradient in gradients())
    serving = ServingModule(detector, build_model_resizer(model))
    masks = serving(tf.zeros([2, 20, 30, 3], tf.uint8))["detection_masks"]
    assert masks.shape == (2, 4, *shape)
    assert np.all((masks >= 0.0) & (masks <= 1.0))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            DEEP.replace("hourglass10", "cond_inst3"),
            "network_type: is 'cond_inst3'; accepted: hourglass10, hourglass20",
        ),
        (DEEP.replace("hourglass10", "hourglass52"), "mask_size: is 8, but hourglass52 halves its map 5 times"),
        (DEEP.replace("weighted_sigmoid", "weighted_softmax"), "weighted_softmax: is no loss of a mask"),
        (DEEP.replace("dim: 4", "dim: 4 box_consistency_loss_weight: 1"), "box consistency is not supported"),
        (DEEP.replace("dim: 4", "dim: 4 predict_full_resolution_masks: true"), "masks of the whole image"),
        (DEEP + BY_CLASS, "mask_estimation_task: comes with deepmac_mask_estimation"),
        (BY_CLASS.replace("kernel_sizes: 3", ""), "kernel_sizes: has 0 values, num_filters 1"),
    ],
)
def test_problems_of_masks_are_reported(text, problem):
    with pytest.raises(ConfigError, match=problem):
        require(message(text), "model", check_model)


def test_classes_that_do_not_exist_are_reported():
    for ids, rest in (("[1, 4]", "they have no effect"), ("[4, 5]", "no mask is learned")):
        findings = Findings()
        check_model(message(DEEP.replace("[1, 3]", ids)), findings)
        [found] = [problem for problem in findings.problems if problem.code == "class-count"]
        assert found.severity is Severity.WARNING
        assert found.message.endswith(f"above num_classes (3): {rest}")


@pytest.mark.parametrize("name", ["hourglass20", "hourglass32", "resnet4", "resnet20"])
def test_mask_networks_keep_the_size(name):
    built = symbolic(lambda: build_detector(message(DEEP.replace("hourglass10", name))))
    assert built.mask_network.output_shape == (None, 8, 8, 1)
    assert built.mask_network.input_shape == (None, 8, 8, 2 + 2 + 4)  # coordinates, pixels, instance


NAME = "center_net_deepmac_512x512_voc_only_tpu-32"


@pytest.mark.full_sweep  # 216 million variables; the other CenterNets' outputs are compared by default
@pytest.mark.slow
@pytest.mark.shared
def test_published_masks(shared, golden_weights, quick_initializers):
    folder = shared / "golden" / NAME
    model, detector = golden_weights.seeded_detector(folder)
    golden = dict(np.load(folder / "outputs.npz"))
    padded, shapes = golden_weights.image_and_shape(folder, model)
    given = golden_weights.golden_groundtruth()
    given = given._replace(masks=ellipses(given.boxes_norm[0].numpy(), 512))
    inputs = detector.preprocess(padded)
    predictions = golden_weights.predictions_of(detector, inputs, true_shapes=shapes, groundtruth=given)
    [logits] = predictions.mask_logits
    np.testing.assert_allclose(logits, golden["withgt_MASK_LOGITS_GT_BOXES_0"], atol=1e-3)
    for name, term in detector.loss_terms(predictions, given).items():
        expected = float(golden[f"loss_Loss_{name.replace('/', '_')}"])
        assert float(term.total / term.normalizer) == pytest.approx(expected, rel=1e-4), name
    found = detector.postprocess(predictions, shapes, (512, 512))
    strided, last_row = golden["post_detection_boxes_strided"][0], float(shapes[0, 0]) / 4
    kept = np.flatnonzero((strided[:, 0] + strided[:, 2]) / 2 < last_row)  # the original also detects in the padding
    clear = golden_weights.clear_rows(golden["post_detection_scores"][0][kept])
    whole = strided[kept, 2] <= last_row  # the original's other masks reach into the padding
    compared = [(row, rank) for row, rank in enumerate(kept) if clear[row] and whole[row] and rank % 2 == 0]
    assert len(compared) >= 5
    for row, rank in compared:
        expected = golden["post_detection_masks__sub"][0, rank // 2]
        np.testing.assert_allclose(found.masks[0, row, ::2], expected, atol=1e-3)


def ellipses(boxes, side):
    """The ellipse in each box, uint8 [1, N, side, side]."""
    centers = (np.arange(side) + 0.5) / side
    masks = [
        sum(
            np.expand_dims(((2 * centers - low - high) / (high - low)) ** 2, axis)
            for axis, low, high in ((1, ymin, ymax), (0, xmin, xmax))
        )
        <= 1.0
        for ymin, xmin, ymax, xmax in boxes
    ]
    return tf.constant(np.stack(masks)[np.newaxis], tf.uint8)
