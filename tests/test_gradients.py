"""Gradients of our own: their values, and graphs that are freed when they are dropped."""

import gc
import weakref

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

from detzoo.gradients import with_gradient
from detzoo.layers.activation import swish


def _tripled(upstream, x, scale, exponent):
    return 3.0 * upstream * scale**exponent


def _value_and_gradients(x, scale):
    with tf.GradientTape() as tape:
        tape.watch([x, scale])
        y = with_gradient(x * scale, [x, scale], _tripled, 2)
        loss = tf.reduce_sum(y * y)
    return y, *tape.gradient(loss, [x, scale])


def _in_a_branch(x, scale):
    with tf.GradientTape() as tape:
        tape.watch([x, scale])
        y = tf.cond(scale > 0.0, lambda: with_gradient(x * scale, [x, scale], _tripled, 2), lambda: x)
        loss = tf.reduce_sum(y * y)
    gradients = tape.gradient(loss, [x, scale], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return y, gradients[0], None if gradients[1] == 0.0 else gradients[1]


@pytest.mark.parametrize(
    "wrap",
    [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)],
    ids=["eager", "graph", "compiled"],
)
def test_the_given_gradient_is_used_for_the_first_input_alone(wrap):
    # y = 5 x, dloss / dy = 2 y = 10 x, of which the given gradient makes 3 * 10 x * 5**2 = 750 x.
    y, gradient, nothing = wrap(_value_and_gradients)(tf.constant([1.0, -2.0]), tf.constant(5.0))
    np.testing.assert_array_equal(y, [5.0, -10.0])
    np.testing.assert_array_equal(gradient, [750.0, -1500.0])
    assert nothing is None


def test_a_branch_of_a_graph_uses_the_given_gradient():
    y, gradient, nothing = _in_a_branch(tf.constant([1.0, -2.0]), tf.constant(5.0))
    np.testing.assert_array_equal(y, [5.0, -10.0])
    np.testing.assert_array_equal(gradient, [750.0, -1500.0])
    assert nothing is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_swish_and_its_gradient(dtype):
    # s = sigmoid(x): y = x s and dy / dx = s + x s (1 - s). sigmoid(ln 3) = 3 / 4.
    # At x = ln 3, y = 3 ln 3 / 4 and dy = 3 / 4 + 3 ln 3 / 16.
    # At x = -ln 3, y = -ln 3 / 4 and dy = 1 / 4 - 3 ln 3 / 16.
    log = np.log(3.0)
    x = tf.cast(tf.constant([0.0, log, -log]), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = swish(x)
    gradient = tape.gradient(y, x)
    assert y.dtype == gradient.dtype == dtype
    tolerance = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(tf.cast(y, "float32"), [0.0, 0.75 * log, -0.25 * log], rtol=tolerance)
    expected = [0.5, 0.75 + 3 * log / 16, 0.25 - 3 * log / 16]
    np.testing.assert_allclose(tf.cast(gradient, "float32"), expected, rtol=tolerance, atol=tolerance)


def test_swish_survives_saving_of_a_model(tmp_path):
    image = keras.Input([3])
    keras.Model(image, keras.layers.Activation(swish)(image)).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[-1].activation is swish


def _graph(function):
    """A weak reference to the graph of a function that is traced and dropped."""
    return weakref.ref(tf.function(function, autograph=False).get_concrete_function().graph)


def _gradient_graph(detector, image, true_shapes):
    def differentiate():
        with tf.GradientTape() as tape:
            predictions = detector.forward(detector.preprocess(image), true_shapes=true_shapes)
            floats = [x for x in tf.nest.flatten(predictions) if tf.is_tensor(x) and x.dtype.is_floating]
            loss = tf.add_n([tf.reduce_sum(tf.cast(x, tf.float32)) for x in floats])
        return tape.gradient(loss, detector.trainable_variables)

    return _graph(differentiate)


@pytest.mark.full_sweep
def test_ten_graphs_of_two_stages_are_freed_and_memory_does_not_grow(small):
    process, graphs, memory = psutil.Process(), [], []
    image, true_shapes = tf.zeros([1, small.HEIGHT, small.WIDTH, 3]), tf.constant([[small.HEIGHT, small.WIDTH]])
    for _ in range(10):
        graphs.append(_gradient_graph(small.build(), image, true_shapes))
        gc.collect()
        memory.append(process.memory_info().rss)
    assert [graph() for graph in graphs] == [None] * 10
    # The first builds fill TensorFlow's own pools. Kept graphs cost more than 10 MB per build, 70 MB in seven.
    assert memory[-1] - memory[2] < 20e6


@pytest.mark.parametrize("kind", ["masks", "pyramid", "rfcn"])
def test_graphs_of_all_crops_are_freed(small, kind):
    images, groundtruth = small.images_and_groundtruth()
    detector = small.build(kind)

    def loss():
        predictions = small.forward(detector, images, groundtruth)
        return [term.total for term in detector.loss_terms(predictions, groundtruth).values()]

    true_shapes = tf.constant([[small.HEIGHT, small.WIDTH]] * 2)
    graphs = [_graph(loss), _gradient_graph(detector, images, true_shapes)]
    gc.collect()
    assert [graph() for graph in graphs] == [None, None]


def test_graphs_with_a_swish_are_freed():
    x = tf.ones([1, 4])
    graph = _graph(lambda: tf.gradients(swish(x), x))
    gc.collect()
    assert graph() is None
