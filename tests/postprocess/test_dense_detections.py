"""From raw predictions to detections."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Predictions
from detzoo.ops.box_coder import FasterRcnnBoxCoder, MeanStddevBoxCoder
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.dense_detections import DenseDetections
from detzoo.postprocess.scores import ScoreConverter, ScoreFunction

IDENTITY = ScoreConverter(ScoreFunction.IDENTITY)
ANCHORS = np.float32([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.9, 0.9, 1.0, 1.0]])
# Background first, then two classes.
SCORES = np.float32([[[0.9, 0.2, 0.6], [0.9, 0.7, 0.1], [0.9, 0.0, 0.8]]])


def _predictions(scores=SCORES, deltas=None):
    deltas = np.zeros((*scores.shape[:2], 4), np.float32) if deltas is None else deltas
    return Predictions(tf.constant(deltas), tf.constant(scores), tf.constant(ANCHORS))


def _part(converter=IDENTITY, limits=None, **options):
    limits = NmsLimits(0.15, 0.5, 10, 4) if limits is None else limits
    return DenseDetections(MeanStddevBoxCoder(1.0), converter, limits, **options)


@pytest.mark.parametrize("padded_shape", [(100, 200), (tf.constant(100), tf.constant(200))])
def test_true_image_smaller_than_the_input(padded_shape):
    # The image covers 80 of 100 rows and 120 of 200 columns: .8 and .6 of the input.
    detections = _part()(_predictions(), tf.constant([[80, 120]]), padded_shape)
    assert detections.num_valid.numpy().tolist() == [3]
    np.testing.assert_allclose(detections.scores, [[0.7, 0.6, 0.2, 0.0]], rtol=1e-6)
    assert detections.classes.numpy().tolist() == [[0, 1, 0, 0]]
    assert detections.anchor_indices.numpy().tolist() == [[1, 0, 0, 0]]
    first = [0.0, 0.0, 0.4 / 0.8, 0.4 / 0.6]
    expected = [[0.5 / 0.8, 0.5 / 0.6, 1.0, 1.0], first, first, [0.0] * 4]
    np.testing.assert_allclose(detections.boxes_norm[0], expected, rtol=1e-5)
    np.testing.assert_allclose(detections.multiclass_scores[0, 0], [0.9, 0.7, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(detections.multiclass_scores[0, 3], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(detections.raw_boxes_norm, ANCHORS[np.newaxis])
    np.testing.assert_array_equal(detections.raw_scores, SCORES)


def test_images_of_a_batch_have_windows_of_their_own():
    scores = np.concatenate([SCORES, SCORES[:, ::-1]])
    detections = _part()(_predictions(scores), tf.constant([[80, 120], [100, 200]]), (100, 200))
    single = _part()(_predictions(scores[1:]), tf.constant([[100, 200]]), (100, 200))
    assert detections.num_valid.numpy().tolist() == [3, 4]
    for batch, alone in zip(detections[:8], single[:8], strict=True):  # it has neither masks nor keypoints
        np.testing.assert_array_equal(batch[1], alone[0])


def test_without_a_background_column_the_first_class_is_column_0():
    detections = _part(has_background_column=False)(_predictions(), tf.constant([[100, 100]]), (100, 100))
    assert detections.classes.numpy()[0].tolist() == [0, 0, 0, 2]
    assert detections.multiclass_scores.shape == (1, 4, 3)


def test_class_agnostic_suppression():
    detections = _part(is_class_agnostic=True)(_predictions(), tf.constant([[100, 100]]), (100, 100))
    assert detections.anchor_indices.numpy().tolist() == [[2, 1, 0, 0]]
    assert detections.classes.numpy().tolist() == [[1, 0, 1, 0]]
    assert detections.num_valid.numpy().tolist() == [3]


def test_boxes_are_decoded():
    deltas = np.zeros((1, 3, 4), np.float32)
    deltas[0, 1] = [12.5, -5.0, 5 * np.log(0.5), 0.0]
    part = DenseDetections(FasterRcnnBoxCoder(), IDENTITY, NmsLimits(0.65, 0.5))
    detections = part(_predictions(deltas=deltas), tf.constant([[100, 100]]), (100, 100))
    # Anchor 1 has centre (.7, .7) and size .4. Moved by (.5, -.2) and half as high it is [1.1, .3, 1.3, .7], outside of
    # the image.
    np.testing.assert_allclose(detections.raw_boxes_norm[0, 1], [1.1, 0.3, 1.3, 0.7], rtol=1e-5)
    assert detections.anchor_indices.numpy()[0, 0] == 2
    assert detections.num_valid.numpy().tolist() == [1]


@pytest.mark.parametrize(
    ("converter", "expected"),
    [
        (ScoreConverter(ScoreFunction.IDENTITY), [0.0, np.log(3.0)]),
        (ScoreConverter(ScoreFunction.IDENTITY, 2.0), [0.0, np.log(3.0) / 2]),
        (ScoreConverter(ScoreFunction.SIGMOID), [0.5, 0.75]),
        (ScoreConverter(ScoreFunction.SIGMOID, 0.5), [0.5, 0.9]),
        (ScoreConverter(ScoreFunction.SOFTMAX), [0.25, 0.75]),
        (ScoreConverter(ScoreFunction.SOFTMAX, 0.5), [0.1, 0.9]),
    ],
)
def test_score_converters(converter, expected):
    np.testing.assert_allclose(converter(tf.constant([[0.0, np.log(3.0)]])), [expected], rtol=1e-5)


def test_graph_of_unknown_shapes_gives_the_same():
    part = _part(ScoreConverter())
    specs = Predictions(tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, 4]))

    @tf.function(
        input_signature=[specs, tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec([2], tf.int32)], autograph=False
    )
    def graph(predictions, true_shapes, padded_shape):
        return part(predictions, true_shapes, tuple(tf.unstack(padded_shape)))

    predictions = _predictions(np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32))
    true_shapes = tf.constant([[80, 120], [100, 200]])
    expected = part(predictions, true_shapes, (100, 200))
    for actual, eager in zip(graph(predictions, true_shapes, tf.constant([100, 200])), expected, strict=True):
        np.testing.assert_allclose(actual, eager, atol=1e-6)
