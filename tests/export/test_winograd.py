"""Winograd's convolutions: the matrices by hand, the sums against TensorFlow's, and what is replaced in a graph."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.benchmark.multiply_adds import count_in_graph_def
from detzoo.export import winograd
from detzoo.serving.frozen import to_constants


def test_small_tiles_have_the_matrices_of_the_paper():
    # Lavin and Gray, section 4.1, for F(2, 3) with the points 0, 1, -1; theirs has rows of B^T and G multiplied by -1.
    matrices = winograd.transforms(2)
    np.testing.assert_array_equal(np.abs(matrices.outputs), [[1, 1, 1, 0], [0, 1, 1, 1]])
    np.testing.assert_array_equal(np.abs(matrices.filter), [[1, 0, 0], [0.5] * 3, [0.5] * 3, [0, 0, 1]])
    np.testing.assert_array_equal(np.abs(matrices.inputs), [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]])


@pytest.mark.parametrize("tile", [2, 4])
def test_one_direction_is_a_correlation(tile):
    # Inputs 1, 2, 4, 8, ... and filter (1, 10, 100): output i is 2**i (1 + 20 + 400) = 421 * 2**i.
    matrices = winograd.transforms(tile)
    inputs = 2.0 ** np.arange(tile + 2)
    outputs = matrices.outputs @ ((matrices.filter @ [1.0, 10.0, 100.0]) * (matrices.inputs @ inputs))
    np.testing.assert_allclose(outputs, 421.0 * 2.0 ** np.arange(tile), rtol=1e-12)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("shape", [(1, 9, 14, 5), (3, 4, 4, 5), (2, 1, 1, 5), (2, 3, 2, 5), (2, 8, 5, 5)])
@pytest.mark.parametrize("is_static", [True, False])
def test_equals_a_direct_convolution(tile, shape, is_static):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=shape).astype(np.float32)
    kernel = generator.normal(size=(3, 3, 5, 7)).astype(np.float32)
    spec = tf.TensorSpec([None, *shape[1:3], 5] if is_static else [None, None, None, 5])
    transformed = winograd.transform_filter(kernel, tile)
    convolve = tf.function(lambda x: winograd.convolve(x, tf.constant(transformed), tile), input_signature=[spec])
    expected = tf.nn.conv2d(inputs, kernel, 1, "SAME")
    np.testing.assert_allclose(convolve(inputs), expected, atol=2e-5)


class Network(tf.Module):
    """3 x 3 convolutions of which two gain: the others are strided, dilated, narrow, 1 x 1, or on a map too small."""

    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(0)

        def kernel(size: int, channels: int, filters: int) -> tf.Variable:
            return tf.Variable(generator.normal(0, 0.03, (size, size, channels, filters)).astype(np.float32))

        self.first, self.wide = kernel(3, 3, 128), kernel(3, 128, 128)
        self.strided, self.dilated, self.narrow = kernel(3, 128, 128), kernel(3, 128, 128), kernel(3, 128, 8)
        self.pointwise, self.coarse = kernel(1, 128, 128), kernel(3, 128, 128)
        self.tiny = kernel(3, 128, 128)

    @tf.function(input_signature=[tf.TensorSpec([None, 40, 32, 3])])
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.nn.relu(tf.nn.conv2d(images, self.first, 1, "SAME"))
        x = tf.nn.relu(tf.nn.conv2d(x, self.wide, 1, "SAME"))
        narrow = tf.nn.conv2d(x, self.narrow, 1, "SAME")
        x = tf.nn.conv2d(tf.nn.conv2d(x, self.dilated, 1, "SAME", dilations=2), self.pointwise, 1, "SAME")
        x = tf.nn.conv2d(tf.nn.conv2d(x, self.strided, 2, "SAME"), self.coarse, 1, "SAME")  # 10 x 8 small tiles
        tiny = tf.nn.conv2d(x[:, ::2, ::2], self.tiny, 1, "SAME")  # 10 x 8: 5 x 4 small tiles
        return {"coarse": x, "narrow": narrow, "tiny": tiny}


def frozen_network():
    network = Network()  # its methods hold it weakly
    return to_constants(network.__call__.get_concrete_function())


def test_only_what_gains_is_replaced():
    frozen = frozen_network()
    images = tf.constant(np.random.default_rng(1).uniform(0, 1, (1, 40, 32, 3)).astype(np.float32))
    rewritten, count = winograd.use_winograd(frozen, images)
    assert count == 2
    assert _points(rewritten) == [16, 36]  # `coarse` with small tiles, `wide` with 10 x 8 large ones
    before, after = (_run(graph, images) for graph in (frozen, rewritten))
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-4)
        assert np.abs(value).max() > 0.05
    assert _num_convolutions(rewritten) == _num_convolutions(frozen) - 2
    # The count is that of the plain convolution, not of its Winograd form.
    counts = [count_in_graph_def(graph.graph_def, graph.input_name, images.numpy()) for graph in (frozen, rewritten)]
    assert sum(counts[0].values()) == sum(counts[1].values())


def test_small_tiles_where_regions_are_chosen():
    frozen = frozen_network()
    images = tf.ones([1, 40, 32, 3])
    rewritten, _ = winograd.use_winograd(frozen, images, chooses_regions=True)
    assert _points(rewritten) == [16, 16]


def test_a_batch_of_small_images_is_left_alone():
    frozen = frozen_network()
    graph, count = winograd.use_winograd(frozen, tf.ones([0, 40, 32, 3]))
    assert (graph, count) == (frozen, 0)


def _run(frozen, images):
    names = list(frozen.output_names)

    def compute(given):
        wanted = list(frozen.output_names.values())
        return tf.graph_util.import_graph_def(
            frozen.graph_def, input_map={frozen.input_name: given}, return_elements=wanted, name=""
        )

    found = tf.function(compute)(images)
    return {name: value.numpy() for name, value in zip(names, found, strict=True)}


def _points(frozen):
    """Returns the number of points per tile of each transformed filter, sorted."""
    filters = [node for node in frozen.graph_def.node if "winograd_filter" in node.name and node.op == "Const"]
    return sorted(node.attr["value"].tensor.tensor_shape.dim[0].size for node in filters)


def _num_convolutions(frozen):
    return sum(node.op == "Conv2D" for node in frozen.graph_def.node)
