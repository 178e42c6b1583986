"""The networks of SPP-net: table 1's map sizes, parameters, where a cell looks, the layers Keras lacks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.config.spp_table import (
    SPP_NETWORKS,
    Padding,
    map_size,
    map_sizes,
    min_size_px,
    num_channels,
    offset_px,
    stride_px,
)
from detzoo.features.network import symbolic
from detzoo.features.spp_networks import (
    LocalResponseNormalization,
    SpatialPyramid,
    build_conv_layers,
    build_fully_connected,
)

# Table 1, and what it implies between its columns: ZF-5's first convolution has stride 2, so 110 cells become 55.
TABLE_1 = {
    "zf_5": [110, 55, 27, 13, 13, 13, 13],
    "convnet_5": [55, 55, 27, 27, 13, 13, 13],
    "overfeat_5": [110, 36, 36, 18, 18, 18, 18],
    "overfeat_7": [110, 36, 36, 18, 18, 18, 18, 18, 18],
}


def wired(network, size=(None, None), **options):
    images = keras.Input((*size, 3))
    return keras.Model(images, build_conv_layers(images, network, **options))


@pytest.mark.parametrize("network", SPP_NETWORKS)
def test_maps_have_the_sizes_of_table_1(network):
    assert map_sizes(network, 224) == TABLE_1[network]
    model = symbolic(lambda: wired(network, (224, 224)))
    sliding = (keras.layers.Conv2D, keras.layers.MaxPooling2D)
    assert [layer.output.shape[1] for layer in model.layers if isinstance(layer, sliding)] == TABLE_1[network]
    assert model.output.shape[-1] == num_channels(network) == (512 if "overfeat" in network else 256)


@pytest.mark.parametrize("network", ["zf_5", "convnet_5"])
def test_map_of_180_pixels_has_10_cells(network):
    assert map_size(network, 180) == 10  # section 2.3, multi-size training


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        # Filters x (size^2 x inputs + 1) of each column of table 1.
        ("zf_5", 96 * 148 + 256 * 2401 + 384 * 2305 + 384 * 3457 + 256 * 3457),
        ("convnet_5", 96 * 364 + 256 * 2401 + 384 * 2305 + 384 * 3457 + 256 * 3457),
        ("overfeat_5", 96 * 148 + 256 * 2401 + 512 * 2305 + 2 * 512 * 4609),
        ("overfeat_7", 96 * 148 + 256 * 2401 + 512 * 2305 + 4 * 512 * 4609),
    ],
)
def test_parameters(network, parameters):
    assert symbolic(lambda: wired(network).count_params()) == parameters


def test_fully_connected_layers_of_the_50_and_30_bin_pyramids():
    def count(bins):
        model = keras.Input((13, 13, 256))
        outputs = build_fully_connected(SpatialPyramid(bins)(model))
        return keras.Model(model, outputs.fc7).count_params()

    fc7 = 4096 * 4097
    assert symbolic(lambda: count((6, 3, 2, 1))) == 4096 * (50 * 256 + 1) + fc7  # 12,800 numbers, section 4.1
    assert symbolic(lambda: count((4, 3, 2, 1))) == 4096 * (30 * 256 + 1) + fc7
    assert symbolic(lambda: count((6,))) == 4096 * (36 * 256 + 1) + fc7  # no SPP, section 3.1.2


@pytest.mark.parametrize("network", SPP_NETWORKS)
@pytest.mark.parametrize("padding", Padding)
def test_a_cell_looks_at_the_pixels_around_offset_plus_stride_times_its_place(network, padding):
    # The receptive field by another way: the interval of pixels that reach the cell, one layer at a time from its end.
    windows = [step.window for stage in SPP_NETWORKS[network] for step in stage if hasattr(step, "window")]
    centers = []
    for cell in (0, 3):
        first, last = cell, cell
        for window in reversed(windows):
            before = window.before if padding is Padding.TABLE_1 else window.size // 2
            first, last = first * window.stride - before, last * window.stride - before + window.size - 1
        centers.append((first + last) / 2)
    assert centers[0] == offset_px(network, padding)
    assert centers[1] - centers[0] == 3 * stride_px(network)


def test_strides_and_offsets_of_the_paper():
    # Appendix A: S = 16 for ZF-5, 12 for Overfeat; with padding floor(p / 2) the centre is S times the cell.
    assert [stride_px(network) for network in SPP_NETWORKS] == [16, 16, 12, 12]
    assert offset_px("zf_5", Padding.CENTERED) == offset_px("convnet_5", Padding.CENTERED) == 0.0
    # Overfeat's pooling of 2 cells has no middle cell: half a cell of stride 6 before it.
    assert offset_px("overfeat_7", Padding.CENTERED) == -3.0


@pytest.mark.parametrize("network", SPP_NETWORKS)
def test_smallest_image(network):
    size = min_size_px(network)
    assert map_size(network, size) >= 1
    assert map_size(network, size - 1) == 0
    model = wired(network, depth_multiplier=0.02)
    outputs = model(np.ones((1, size, size + 40, 3), np.float32))
    assert tuple(outputs.shape[1:3]) == (map_size(network, size), map_size(network, size + 40))


def test_centered_padding_keeps_the_weights():
    table, centered = (wired("zf_5", depth_multiplier=0.05, padding=padding) for padding in Padding)
    assert [weight.path for weight in table.weights] == [weight.path for weight in centered.weights]
    centered.set_weights(table.get_weights())
    images = np.random.default_rng(0).uniform(-120, 120, (1, 100, 140, 3)).astype(np.float32)
    # Rows: 100 -> 50 -> 25 -> 13 -> 7 (each ceil); with the table's padding 100 -> 48 -> 24 -> 11 -> 5.
    assert tuple(centered(images).shape[1:3]) == (7, 9)
    assert tuple(table(images).shape[1:3]) == (5, 7)


def test_paths_widths_and_weight_decay():
    images = keras.Input((None, None, 3))
    x = SpatialPyramid((2, 1))(build_conv_layers(images, "overfeat_5", depth_multiplier=0.1, weight_decay=0.5))
    outputs = build_fully_connected(x, depth=8, dropout_rate=0.25, weight_decay=0.5)
    model = keras.Model(images, outputs)
    kernels = {weight.path: weight for weight in model.weights if weight.path.endswith("kernel")}
    names = [*(f"backbone/conv{number}/kernel" for number in range(1, 6)), "box_backbone/fc6/kernel"]
    assert list(kernels) == [*names, "box_backbone/fc7/kernel"]
    widths = [kernel.shape[-1] for kernel in kernels.values()]
    assert widths == [10, 26, 51, 51, 51, 8, 8]  # 9.6, 25.6 and 51.2, rounded
    penalty = sum(0.5 * np.sum(np.square(kernel)) / 2 for kernel in kernels.values())
    np.testing.assert_allclose(sum(model.losses), penalty, rtol=1e-5)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25]


def test_gradients_reach_every_weight_and_a_saved_model_is_the_same(tmp_path):
    images = keras.Input((None, None, 3))
    x = SpatialPyramid((3, 1), name="pool5")(build_conv_layers(images, "zf_5", depth_multiplier=0.1))
    model = keras.Model(images, build_fully_connected(x, 16, dropout_rate=0.0).fc7)
    inputs = tf.constant(np.random.default_rng(0).uniform(-120, 120, (2, 63, 95, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(inputs, training=True) ** 2)
    gradients = tape.gradient(value, model.trainable_weights)
    assert all(gradient is not None and float(tf.norm(gradient)) > 0 for gradient in gradients)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs), rtol=1e-6)


def test_local_response_normalization():
    # Channels 10, 20, 30, 40 of one cell. AlexNet: divided by (2 + 1e-4 * sum of squares, two channels either side)
    # ** 0.75; the first sees 10, 20, 30 (1400), the second all (3000), the third all, the fourth 20, 30, 40 (2900).
    outputs = LocalResponseNormalization()(tf.constant([[[[10.0, 20.0, 30.0, 40.0]]]]))
    expected = [10 / 2.14**0.75, 20 / 2.3**0.75, 30 / 2.3**0.75, 40 / 2.29**0.75]
    np.testing.assert_allclose(outputs[0, 0, 0], expected, rtol=1e-5)
    assert LocalResponseNormalization(dtype="bfloat16")(tf.ones([1, 2, 2, 8], tf.bfloat16)).dtype == tf.bfloat16
