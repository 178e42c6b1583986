"""``feature_extractor`` blocks to backbones: levels, sizes, widths, hyperparameters, output stride, freezing."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from google.protobuf import text_format

from detzoo.builders.features import build_feature_extractor
from detzoo.builders.hyperparams import build_hyperparams
from detzoo.config import pb
from detzoo.config.support import CENTER_EXTRACTORS, REGION_EXTRACTORS, SSD_EXTRACTORS
from detzoo.contracts import FeatureSpec
from detzoo.features.network import symbolic
from detzoo.layers.normalization import BatchNorm

HYPERPARAMS = """
    activation: RELU
    regularizer { l2_regularizer { weight: 0.01 } }
    initializer { random_normal_initializer { stddev: 0.5 } }
    batch_norm {
      decay: 0.9 epsilon: 0.25
      scale: false center: true
      train: true
    }
"""
# Not square, and no multiple of 32. At stride 8 ceil(70 / 8) = 9 and ceil(100 / 8) = 13, at 16 5 and 7, at 32 3 and 4.
IMAGE_SHAPE = (70, 100)


def message_of(text: str):
    return text_format.Parse(text, pb.SsdFeatureExtractor())


def build(text: str, **kwargs):
    """The extractor without values in its weights, which is fast; ``build_to_run`` gives them."""
    return symbolic(lambda: build_to_run(text, **kwargs))


def build_to_run(text: str, **kwargs):
    return build_feature_extractor(message_of(text), IMAGE_SHAPE, **kwargs)


def shapes(extractor):
    return {level: tuple(x.shape[1:]) for level, x in extractor.model.output.items()}


def layers_of(extractor, kind):
    return [layer for layer in extractor.model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("type_name", "expected"),
    [
        ("ssd_mobilenet_v1", {4: (5, 7, 512), 5: (3, 4, 1024)}),
        ("ssd_mobilenet_v2_keras", {4: (5, 7, 576), 5: (3, 4, 1280)}),
        ("ssd_mobilenet_v2_fpn_keras", {3: (9, 13, 32), 4: (5, 7, 96), 5: (3, 4, 1280)}),
        ("embedded_ssd_mobilenet_v1", {4: (5, 7, 512), 5: (3, 4, 1024)}),
        ("ssd_mobilenet_v1_ppn", {4: (5, 7, 512)}),
        ("ssd_vgg16", {3: (9, 13, 512), 4: (5, 7, 1024)}),
        ("ssd_vgg16_fpn", {3: (9, 13, 512), 4: (5, 7, 512), 5: (3, 4, 1024)}),
        ("ssd_inception_v2", {4: (5, 7, 576), 5: (3, 4, 1024)}),
        ("ssd_inception_v3_keras", {3: (9, 13, 288), 4: (5, 7, 768), 5: (3, 4, 2048)}),
        ("ssd_resnet50_v1", {4: (5, 7, 1024)}),
        ("ssd_resnet50_v1_fpn_keras", {3: (9, 13, 512), 4: (5, 7, 1024), 5: (3, 4, 2048)}),
    ],
)
def test_maps_are_the_ceil_of_the_image_over_the_stride(type_name, expected):
    extractor = build(f"type: '{type_name}'")
    assert shapes(extractor) == expected
    assert extractor.specs == tuple(FeatureSpec(level, shape[-1]) for level, shape in expected.items())


def test_inception_v3_of_tensorflow_1_is_not_padded():
    """At 299 x 299 its maps have 35, 17 and 8 cells (arXiv:1512.00567, table 1).

    331: 165 after the first convolution, 163, 81 after a pooling, 79, 39 after the second, then 19 and 9.
    """
    message = message_of("type: 'ssd_inception_v3'")
    extractor = symbolic(lambda: build_feature_extractor(message, (299, 331)))
    assert shapes(extractor) == {3: (35, 39, 288), 4: (17, 19, 768), 5: (8, 9, 2048)}


def test_parameters_of_the_embedded_ssd():
    # Depths of arXiv:1704.04861, table 1, times 0.125, and 16 at least. 4 numbers a normalised channel.
    depths = [16, 16, 16, 16, 32, 32, 64, 64, 64, 64, 64, 64, 128, 128]
    blocks = sum((9 + 4) * before + (before + 4) * after for before, after in itertools.pairwise(depths))
    extractor = build("""
        type: 'embedded_ssd_mobilenet_v1' depth_multiplier: 0.125
        min_depth: 16
        """)
    assert extractor.model.count_params() == (3 * 9 + 4) * 16 + blocks


def test_a_pooling_pyramid_ends_at_stride_sixteen():
    # The 3,228,864 of the whole network less the two blocks from 512 to 1024 and from 1024 to 1024 channels.
    last_blocks = 13 * 512 + (512 + 4) * 1024 + 13 * 1024 + (1024 + 4) * 1024
    assert build("type: 'ssd_mobilenet_v1_ppn'").model.count_params() == 3_228_864 - last_blocks


def test_running_gives_the_promised_shapes_for_any_size():
    extractor = build_feature_extractor(message_of("type: 'ssd_mobilenet_v2'"))
    for height, width in ((70, 100), (33, 65)):
        maps = extractor.model(np.zeros((2, height, width, 3), np.float32))
        assert {level: tuple(x.shape) for level, x in maps.items()} == {
            4: (2, -(-height // 16), -(-width // 16), 576),
            5: (2, -(-height // 32), -(-width // 32), 1280),
        }


def test_every_family_of_the_table_has_a_network():
    from detzoo.builders.features import _NETWORKS, _NORMALIZATIONS

    rows = [*SSD_EXTRACTORS.values(), *REGION_EXTRACTORS.values(), *CENTER_EXTRACTORS.values()]
    assert {row.family for row in rows} - {"hourglass"} == set(_NETWORKS)
    assert {row.normalization for row in rows} == set(_NORMALIZATIONS)


def test_nothing_is_built_behind_the_last_map():
    extractor = build("type: 'ssd_mobilenet_v2' num_layers: 1")
    assert [spec.level for spec in extractor.specs] == [4]
    assert extractor.model.layers[-1].name == "block_13_expand_relu"
    pyramid = build("""
        type: 'ssd_mobilenet_v1_fpn'
        fpn { min_level: 3 max_level: 4 }
        """)
    assert [spec.level for spec in pyramid.specs] == [3, 4]
    assert pyramid.model.layers[-1].name == "conv_pw_11_relu"


def test_levels_can_be_asked_for():
    assert [spec.level for spec in build("type: 'ssd_mobilenet_v1'", levels=(2, 5)).specs] == [2, 5]


def test_depth_multiplier_and_min_depth_of_mobilenet_v1():
    # 0.25 * (512, 1024) = 128, 256; the first layer's 0.25 * 32 = 8 is raised to 12.
    extractor = build("""
        type: 'ssd_mobilenet_v1' depth_multiplier: 0.25
        min_depth: 12
        """)
    assert [spec.channels for spec in extractor.specs] == [128, 256]
    assert extractor.model.get_layer("conv1").filters == 12


@pytest.mark.parametrize("suffix", ["", "_keras"])
def test_depth_multiplier_and_min_depth_of_mobilenet_v2(suffix):
    # 0.35 * 160 * 6 = 336 channels of block 13's expansion come of block 12's 0.35 * 96 = 33.6 -> 32, times 6 = 192;
    # the last convolution has 0.35 * 1280 = 448. Block 1's 0.35 * 24 = 8.4 -> 8 is raised to 16, and block 2's.
    extractor = build(f"type: 'ssd_mobilenet_v2{suffix}' depth_multiplier: 0.35 min_depth: 16")
    assert [spec.channels for spec in extractor.specs] == [192, 448]
    assert extractor.model.get_layer("block_1_project").filters == 16
    assert extractor.model.get_layer("block_2_expand").filters == 96
    names = [layer.name for layer in extractor.model.layers]
    # Widened by min_depth, to the 16 channels of the input: a shortcut in TensorFlow 1, none in Keras.
    assert ("expanded_conv_add" in names) is ("block_2_add" in names) is (suffix == "")
    assert "block_4_add" in names


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        # Block 12 widens 0.75 * 112 = 84 -> 88 by 6; the last 1 x 1 has 0.75 * 480 = 360.
        ("mobilenet_v3_large", [528, 360]),
        ("mobilenet_v3_small", [240, 216]),  # block 8: 0.75 * 48 = 36 -> 40, times 6; 0.75 * 288
        ("mobilenet_edgetpu", [288, 144]),  # block 16: 0.75 * 96 = 72, times 4; block 21: 0.75 * 192
        ("mobiledet_cpu", [56, 112]),  # 0.75 * 72 = 54, 0.75 * 144 = 108: 6.75 and 13.5 eighths, half up
        ("mobiledet_gpu", [96, 288]),
    ],
)
def test_depth_multiplier_of_mobile_backbones(name, channels):
    extractor = build(f"type: 'ssd_{name}' depth_multiplier: 0.75 min_depth: 16")
    assert [spec.channels for spec in extractor.specs] == channels


def test_channels_inside_a_block_are_not_raised_to_min_depth():
    # 0.25 * 16 = 4 channels are raised to 20, times 4 to 80 in block 1; its gates come of no fewer than 8.
    model = build("type: 'ssd_mobilenet_v3_large' depth_multiplier: 0.25 min_depth: 20").model
    assert model.get_layer("conv").filters == model.get_layer("expanded_conv_1_project").filters == 20
    assert model.get_layer("expanded_conv_1_expand").filters == 80
    assert model.get_layer("expanded_conv_3_squeeze_excite_conv").filters == 16  # 3 * 20 = 60 -> 64, a fourth


@pytest.mark.parametrize(("suffix", "channels"), [("", 192), ("_keras", 960)])
def test_mobilenet_v2_for_a_lite_pyramid(suffix, channels):
    # 0.75 * 256 in TensorFlow 1, where the API narrows the last convolution, and 0.75 * 1280 in Keras.
    extractor = build(f"type: 'ssd_mobilenet_v2_fpn{suffix}' depth_multiplier: 0.75 use_depthwise: true")
    assert extractor.specs[-1].channels == channels


def test_depth_multiplier_of_inception_v2():
    # At half width Mixed_4c has 96 + 64 + 64 + 64 channels, and Mixed_5c 176 + 160 + 112 + 64.
    extractor = build("type: 'ssd_inception_v2' depth_multiplier: 0.5")
    assert [spec.channels for spec in extractor.specs] == [288, 512]


def test_fpn_lite_narrows_the_last_blocks_of_mobilenet_v1():
    extractor = build("type: 'ssd_mobilenet_v1_fpn_keras' use_depthwise: true")
    assert [spec.channels for spec in extractor.specs] == [256, 512, 256]


def test_overriding_hyperparams_reach_every_layer():
    hyperparams = build_hyperparams(text_format.Parse(HYPERPARAMS, pb.Hyperparams()))
    extractor = build_to_run("type: 'ssd_mobilenet_v2_keras'", conv_hyperparams=hyperparams)
    norms = layers_of(extractor, keras.layers.BatchNormalization)
    assert len(norms) == 52
    for norm in norms:
        assert isinstance(norm, BatchNorm)
        assert (norm.momentum, norm.epsilon, norm.scale, norm.center) == (pytest.approx(0.9), 0.25, False, True)
    activations = layers_of(extractor, keras.layers.Activation)
    assert {layer.activation.__name__ for layer in activations} == {"relu"}
    for convolution in layers_of(extractor, keras.layers.Conv2D):
        assert convolution.kernel_regularizer.l2 == pytest.approx(0.005)
        assert not convolution.use_bias
    # 864 draws of the first kernel: the standard error of their deviation is 0.5 / sqrt(2 * 864) = 0.012.
    assert np.std(extractor.model.get_layer("Conv1").kernel) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("name", "activations"), [("mobilenet_v2", {"relu6"}), ("mobilenet_v3_small", {"relu", "hard_swish"})]
)
def test_an_override_of_a_mobilenet_of_the_first_generation(name, activations):
    """Its graphs name activations, gamma and beta per layer; momentum, epsilon and decay are the override's."""
    hyperparams = build_hyperparams(text_format.Parse(HYPERPARAMS, pb.Hyperparams()))
    extractor = build(f"type: 'ssd_{name}'", conv_hyperparams=hyperparams)
    norms = layers_of(extractor, BatchNorm)
    assert {(round(norm.momentum, 6), norm.epsilon, norm.scale, norm.center) for norm in norms} == {
        (0.9, 0.25, True, True)
    }
    assert {layer.activation.__name__ for layer in layers_of(extractor, keras.layers.Activation)} == activations
    depthwise = layers_of(extractor, keras.layers.DepthwiseConv2D)
    assert all(layer.depthwise_regularizer.l2 == pytest.approx(0.005) for layer in depthwise)


def test_a_mobiledet_has_hyperparams_that_nothing_overrides():
    hyperparams = build_hyperparams(text_format.Parse(HYPERPARAMS, pb.Hyperparams()))
    extractor = build_to_run("type: 'ssd_mobiledet_cpu'", conv_hyperparams=hyperparams)
    assert {(layer.momentum, layer.epsilon) for layer in layers_of(extractor, BatchNorm)} == {(0.99, 0.01)}
    # He's: 9 and 25 values per output, deviations sqrt(2 / 9) and sqrt(2 / 25). 9 * 832 draws estimate it within 1 %.
    for name, deviation in (("ibn_16_depthwise", 0.4714), ("ibn_13_depthwise", 0.2828)):
        assert np.std(extractor.model.get_layer(name).kernel) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(("suffix", "epsilon", "ends"), [("", 1e-5, {"relu"}), ("_keras", 0.25, {"relu6"})])
def test_an_override_of_a_resnet(suffix, epsilon, ends):
    """The first generation's graphs keep a ResNet's batch norm, and a ReLU at the end of each block."""
    text = HYPERPARAMS.replace("RELU", "RELU_6")
    hyperparams = build_hyperparams(text_format.Parse(text, pb.Hyperparams()))
    extractor = build(f"type: 'ssd_resnet50_v1_fpn{suffix}'", conv_hyperparams=hyperparams)
    assert {layer.epsilon for layer in layers_of(extractor, BatchNorm)} == {epsilon}
    activations = {True: set(), False: set()}
    for layer in layers_of(extractor, keras.layers.Activation):
        activations[layer.name.endswith("_out")].add(layer.activation.__name__)
    assert activations == {True: ends, False: {"relu6"}}


def test_without_override_the_family_has_its_own_hyperparams():
    mobilenet = layers_of(build("type: 'ssd_mobilenet_v1'"), BatchNorm)[0]
    assert (mobilenet.momentum, mobilenet.epsilon, mobilenet.scale) == (0.9997, 0.001, True)
    resnet = build("type: 'ssd_resnet50_v1' num_layers: 1", levels=(2,))
    assert (resnet.model.get_layer("conv1_bn").momentum, resnet.model.get_layer("conv1_bn").epsilon) == (0.997, 1e-5)
    assert resnet.model.get_layer("conv1_conv").kernel_regularizer.l2 == pytest.approx(1e-4)


def test_only_mobilenet_v2_regularizes_its_depthwise_kernels():
    first = layers_of(build("type: 'ssd_mobilenet_v1'"), keras.layers.DepthwiseConv2D)[0]
    second = layers_of(build("type: 'ssd_mobilenet_v2'"), keras.layers.DepthwiseConv2D)[0]
    assert first.depthwise_regularizer is None
    assert second.depthwise_regularizer.l2 == pytest.approx(2e-5)


@pytest.mark.parametrize("kind", ["ssd_mobilenet_v1", "ssd_mobilenet_v2_keras"])
def test_an_override_regularizes_the_depthwise_kernels_of_mobilenets(kind):
    hyperparams = build_hyperparams(
        text_format.Parse("regularizer { l2_regularizer { weight: 0.5 } }", pb.Hyperparams())
    )
    extractor = build(f"type: '{kind}'", conv_hyperparams=hyperparams)
    regularizers = [layer.depthwise_regularizer for layer in layers_of(extractor, keras.layers.DepthwiseConv2D)]
    assert {float(regularizer.l2) for regularizer in regularizers} == {0.25}


def test_vgg_is_normalized_only_where_the_configuration_says_so():
    assert not layers_of(build("type: 'ssd_vgg16'"), BatchNorm)
    hyperparams = build_hyperparams(text_format.Parse(HYPERPARAMS, pb.Hyperparams()))
    normalized = build("type: 'ssd_vgg16'", conv_hyperparams=hyperparams)
    assert len(layers_of(normalized, BatchNorm)) == 10 + 3 + 2  # to conv4_3, conv5, fc6 and fc7
    assert not normalized.model.get_layer("block1_conv1").use_bias


def test_freeze_batchnorm_freezes_statistics_and_freeze_backbone_everything():
    extractor = build("type: 'ssd_mobilenet_v1' num_layers: 1", freeze_batchnorm=True)
    assert not any(layer.train_statistics for layer in layers_of(extractor, BatchNorm))
    assert extractor.model.trainable_variables
    frozen = build("""
        type: 'ssd_mobilenet_v1' num_layers: 1
        freeze_backbone: true
        """)
    assert not frozen.model.trainable_variables


def test_training_moves_the_statistics_by_the_momentum():
    hyperparams = build_hyperparams(text_format.Parse(HYPERPARAMS, pb.Hyperparams()))
    model = build_to_run("type: 'ssd_mobilenet_v1'", conv_hyperparams=hyperparams, levels=(2,)).model
    images = np.random.default_rng(1).normal(size=(2, *IMAGE_SHAPE, 3)).astype(np.float32)
    batch_mean = np.mean(keras.Model(model.input, model.get_layer("conv1").output)(images), axis=(0, 1, 2))
    model(images, training=True)
    np.testing.assert_allclose(model.get_layer("conv1_bn").moving_mean, 0.1 * batch_mean, atol=1e-5)


def test_output_stride_turns_strides_into_dilation():
    extractor = build("type: 'ssd_resnet50_v1' output_stride: 8")
    assert shapes(extractor) == {3: (9, 13, 1024)}
    model = extractor.model
    assert model.get_layer("conv4_block1_1_conv").strides == (1, 1)
    assert model.get_layer("conv4_block1_2_conv").dilation_rate == (2, 2)
    assert model.get_layer("conv4_block6_2_conv").dilation_rate == (2, 2)
    assert model.get_layer("conv3_block4_2_conv").dilation_rate == (1, 1)


def test_where_two_maps_share_a_stride_the_deeper_is_read():
    extractor = build("type: 'ssd_mobilenet_v1_fpn' output_stride: 16")
    assert shapes(extractor) == {3: (9, 13, 256), 4: (5, 7, 1024)}
    assert extractor.model.get_layer("conv_dw_13").dilation_rate == (2, 2)


def test_vgg_has_ssd_s_dilated_fc6():
    ssd, pyramid = build("type: 'ssd_vgg16'").model, build("type: 'ssd_vgg16_fpn'").model
    assert ssd.get_layer("fc6").dilation_rate == (6, 6)
    assert (ssd.get_layer("block5_pool").pool_size, ssd.get_layer("block5_pool").strides) == ((3, 3), (1, 1))
    assert pyramid.get_layer("fc6").dilation_rate == (3, 3)


def test_explicit_padding_moves_what_the_first_convolution_sees():
    # Of an even size "same" pads only at the bottom right, explicit padding on all sides.
    image = np.zeros((1, 70, 100, 3), np.float32)
    image[0, 69, 99] = 1.0
    answers = []
    for explicit in ("false", "true"):
        model = build_to_run(f"type: 'ssd_mobilenet_v1' use_explicit_padding: {explicit}", levels=(2,)).model
        first = keras.Model(model.input, model.get_layer("conv1").output)
        kernel = np.zeros((3, 3, 3, 32), np.float32)
        kernel[1, 1] = 1.0
        model.get_layer("conv1").kernel.assign(kernel)
        output = first(image)
        assert output.shape == (1, 35, 50, 32)
        answers.append(float(output[0, 34, 49, 0]))
    # "same": the last window is rows 68..70, its centre row 69. Explicit: rows 67..69, its centre 68.
    assert answers == [3.0, 0.0]


def test_pad_to_multiple_is_the_size_that_the_backbone_sees():
    extractor = build("type: 'ssd_mobilenet_v1' pad_to_multiple: 32")
    assert extractor.model.input_shape == (None, 96, 128, 3)


def test_normalization_of_pixels():
    pixels = np.array([[[[0.0, 127.5, 255.0]]]], np.float32)
    mobilenet = build("type: 'ssd_mobilenet_v1' num_layers: 1", levels=(2,))
    np.testing.assert_allclose(mobilenet.normalize(pixels), [[[[-1.0, 0.0, 1.0]]]], atol=1e-6)
    vgg = build("type: 'ssd_vgg16' num_layers: 1")
    np.testing.assert_allclose(vgg.normalize(pixels), [[[[-123.68, 10.721, 151.061]]]], atol=1e-4)


def test_mixed_precision_follows_the_global_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_to_run("type: 'ssd_mobilenet_v1'", levels=(2,)).model
    finally:
        keras.config.set_dtype_policy(before)
    maps = model(np.zeros((1, *IMAGE_SHAPE, 3), np.float32))
    assert maps[2].dtype == "bfloat16"
    assert model.get_layer("conv1").kernel.dtype == "float32"
