"""NASNet and PNASNet: their cells by hand, the published size, the half before and the half after the crop."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from detzoo.features import nasnet
from detzoo.features.network import symbolic
from detzoo.features.rewrite import RegionStride, build_extractor_model, build_region_model

STEM, FILTERS = 6, 8
SMALL = nasnet.Size(stem_filters=STEM, cells_per_stage=1, filters=FILTERS)


def conv(inputs, outputs):
    """Parameters of a 1 x 1 convolution without bias, and of its normalization."""
    return inputs * outputs + 4 * outputs


def separables(filters, *sizes):
    """Parameters of pairs of separable convolutions from ``filters`` to as many channels, all normalized."""
    return sum(2 * (size * size * filters + conv(filters, filters)) for size in sizes)


def nasnet_cells(name, inputs, previous, filters):
    """Parameters of a cell. Half as many channels of the previous cell's output are read by each of two paths."""
    sizes = (5, 7, 7, 5, 3) if name == "reduction" else (5, 3, 5, 3, 3)
    adjusted = conv(previous, filters) if previous else 0
    return conv(inputs, filters) + adjusted + separables(filters, *sizes)


@pytest.fixture(scope="module")
def networks():
    return {"nasnet": nasnet.nasnet(SMALL), "pnasnet": nasnet.pnasnet(SMALL._replace(cells_per_stage=2))}


def test_parameters_of_a_small_nasnet(networks):
    # Two stem cells of 2 and 4 channels per state; a reduction cell has 4 states, a normal cell 5 and the previous one.
    # The first stem cell reads the 6 channels of the first convolution twice: as they are, which the separable
    # convolutions of its state 1 (7 x 7, 7 x 7, 5 x 5) take from 6 to 2 channels.
    stem = 27 * STEM + 4 * STEM + conv(STEM, 2) + separables(2, 5, 3)
    stem += sum(k * k * STEM + conv(STEM, 2) + k * k * 2 + conv(2, 2) for k in (7, 7, 5))
    stem += nasnet_cells("reduction", 4 * 2, STEM, 4)
    # A halved map of p channels: p * f / 2 for each path, and one normalization of f, which is conv(p, f) again.
    # The first reduction cell takes its previous map of 4 * 4 = 16 channels as it is.
    cells = nasnet_cells("normal", 4 * 4, 4 * 2, 8)
    cells += nasnet_cells("reduction", 6 * 8, 0, 16) + nasnet_cells("normal", 4 * 16, 4 * 4, 16)
    cells += nasnet_cells("reduction", 6 * 16, 4 * 16, 32) + nasnet_cells("normal", 4 * 32, 4 * 16, 32)
    assert networks["nasnet"].graph.count_params() == stem + cells


def test_parameters_of_nasnet_large():
    # keras.applications' NASNetLarge without its classifier.
    assert nasnet.nasnet().graph.count_params() == 84_916_818


@pytest.mark.usefixtures("quick_initializers")
@pytest.mark.parametrize("name", ["nasnet", pytest.param("pnasnet", marks=pytest.mark.full_sweep)])
def test_both_halves_are_the_whole_network(networks, name):
    network = networks[name]
    whole = build_extractor_model(network, (4, 5), (None, None), network.hyperparams, output_stride=32)
    first = build_extractor_model(network, (4,), (None, None), network.hyperparams, output_stride=16)
    after = build_region_model(
        network, (4, 5), (None, None, first.output[4].shape[-1]), network.hyperparams, RegionStride.STRIDED
    )
    values = {variable.path.partition("/")[2]: variable for variable in whole.variables}
    for variable in [*first.variables, *after.variables]:
        variable.assign(values.pop(variable.path.partition("/")[2]))
    assert not values  # every variable belongs to one half
    image = np.random.default_rng(1).normal(size=(1, 67, 101, 3)).astype(np.float32)
    maps, cropped = whole(image), first(image)[4]
    # The first convolution is not padded: 33 x 50 cells, then ceil(n / 2) three times, and once more after the crop.
    assert (maps[4].shape[1:3], maps[5].shape[1:3]) == ((5, 7), (3, 4))
    np.testing.assert_allclose(cropped, maps[4], atol=1e-5)
    np.testing.assert_allclose(after(cropped), maps[5], atol=1e-5)


@pytest.mark.parametrize("stride", [RegionStride.DENSE, RegionStride.DILATED])
def test_without_stride_a_crop_keeps_its_size(networks, stride):
    network = networks["nasnet"]
    channels = network.graph.get_layer(network.endpoints[4]).output.shape[-1]
    build = lambda: build_region_model(network, (4, 5), (7, 7, channels), network.hyperparams, stride)  # noqa: E731
    assert symbolic(build).output_shape[1:3] == (7, 7)


def test_the_slice_of_channels_is_stored_with_its_range():
    layer = nasnet.ChannelSlice(1, 3)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).stop == 3
    np.testing.assert_array_equal(layer(np.arange(8.0).reshape(2, 4)), [[1.0, 2.0], [5.0, 6.0]])
