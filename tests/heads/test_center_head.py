"""CenterNet's heads for single cells: the values of the whole map, also at its borders."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.heads.center_head import CenterHead, center_heads, head_at_cells, head_of_rows
from detzoo.ops.peaks import values_at

CELLS = tf.constant([[0, 4, 17, 34], [34, 30, 12, 12]])  # corners, inner cells, a repeated cell; of 7 x 5 cells


def network_of(head, use_depthwise=False, num_rows=7):
    inputs = [keras.Input((num_rows, 5, 3)) for _ in range(2)]
    network = keras.Model(inputs, center_heads(inputs, {"box/scale": head}, use_depthwise))
    random = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign(random.normal(size=weight.shape))
    features = [random.normal(size=(2, num_rows, 5, 3)).astype(np.float32) for _ in inputs]
    return network, features, network(features)["box/scale"][-1]


@pytest.mark.parametrize("use_depthwise", [False, True])
@pytest.mark.parametrize(("filters", "kernels"), [((4,), (3,)), ((4,), ((1, 3),)), ((4, 5), (5, 1)), ((4,), (2,))])
def test_cells_have_the_values_of_the_map(filters, kernels, use_depthwise):
    network, features, whole = network_of(CenterHead(2, filters, kernels), use_depthwise)
    at_cells = head_at_cells(network, "box/scale", tf.constant(features[-1]))
    np.testing.assert_allclose(at_cells(CELLS), values_at(whole, CELLS), rtol=1e-5, atol=1e-5)


def test_two_layers_that_read_neighbours_need_the_whole_map():
    network, features, _ = network_of(CenterHead(2, (4, 4), (3, 3)))
    assert head_at_cells(network, "box/scale", features[-1]) is None


@pytest.mark.parametrize(("num_rows", "num_computed"), [(4, 8), (6, 8), (7, 16), (14, 16), (15, 20), (20, 20)])
def test_rows_have_the_values_of_the_map(num_rows, num_computed):
    network, features, whole = network_of(CenterHead(2, (4, 4), (3, 3)), num_rows=20)
    found = head_of_rows(network, "box/scale", tf.constant(features[-1]), tf.constant(num_rows))
    assert found.shape == (2, num_computed, 5, 2)  # two rows further down are read
    np.testing.assert_allclose(found[:, :num_rows], whole[:, :num_rows], rtol=1e-5, atol=1e-5)
