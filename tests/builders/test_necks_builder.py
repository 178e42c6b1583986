"""From feature_extractor blocks to necks: levels, and each field that shapes them."""

from __future__ import annotations

import keras
import pytest
from google.protobuf import text_format

from detzoo.builders.necks import build_neck, neck_levels
from detzoo.config import pb
from detzoo.config.support import SSD_EXTRACTORS
from detzoo.features.network import producer_of

CHANNELS = {2: 4, 3: 8, 4: 16, 5: 32}


def message(text):
    return text_format.Parse(text, pb.SsdFeatureExtractor())


def backbone_levels(config):
    """Levels of the maps that the extractor delivers."""
    return tuple(level for level in neck_levels(config) if level in SSD_EXTRACTORS[config.type].backbone_levels)


def neck_model(text, **kwargs):
    config = message(text)
    maps = {level: keras.Input((256 >> level, 384 >> level, CHANNELS[level])) for level in backbone_levels(config)}
    return keras.Model(list(maps.values()), list(build_neck(config, **kwargs)(maps).values()))


def shapes(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights}


@pytest.mark.parametrize(
    ("text", "backbone", "neck"),
    [
        ("type: 'ssd_mobilenet_v2_keras'", (4, 5), (4, 5, 6, 7, 8, 9)),
        ("type: 'ssd_mobilenet_v2' num_layers: 3", (4, 5), (4, 5, 6)),
        ("type: 'ssd_vgg16' num_layers: 7", (3, 4), (3, 4, 5, 6, 7, 8, 9)),
        ("type: 'ssd_inception_v3'", (3, 4, 5), (3, 4, 5, 6, 7, 8)),
        ("type: 'ssd_resnet50_v1' num_layers: 1", (4,), (4,)),
        ("type: 'embedded_ssd_mobilenet_v1'", (4, 5), (4, 5, 6, 7, 8)),
        ("type: 'embedded_ssd_mobilenet_v1' num_layers: 2", (4, 5), (4, 5, 6, 7, 8)),
        ("type: 'ssd_mobilenet_v1_ppn'", (4,), (4, 5, 6, 7, 8, 9)),
        ("type: 'ssd_resnet50_v1_fpn_keras'", (3, 4, 5), (3, 4, 5, 6, 7)),
        (
            """
            type: 'ssd_resnet50_v1_fpn'
            fpn { min_level: 2 max_level: 4 }
            """,
            (2, 3, 4),
            (2, 3, 4),
        ),
    ],
)
def test_levels(text, backbone, neck):
    assert backbone_levels(message(text)) == backbone
    assert neck_levels(message(text)) == neck
    assert len(neck_model(text).outputs) == len(neck)


def test_extra_levels_have_the_papers_depths_times_the_multiplier():
    model = neck_model("""
        type: 'ssd_mobilenet_v2' depth_multiplier: 0.5
        min_depth: 80
        """)
    assert [x.shape[-1] for x in model.outputs] == [16, 32, 256, 128, 128, 80]


def test_the_embedded_ssd_ends_with_a_kernel_of_two():
    # 256 x 384 pixels: 16 x 24 and 8 x 12 of the backbone. 512, 256 and 256 channels times 0.125.
    text = """
        type: 'embedded_ssd_mobilenet_v1' depth_multiplier: 0.125
        conv_hyperparams { batch_norm { scale: true } }
        """
    model = neck_model(text)
    assert [x.shape[1:] for x in model.outputs] == [(16, 24, 16), (8, 12, 32), (4, 6, 64), (2, 3, 32), (1, 2, 32)]
    kernels = {path: shape for path, shape in shapes(model).items() if path.endswith("kernel")}
    assert kernels == {
        "extra_6_reduce_conv/kernel": (1, 1, 32, 32),
        "extra_6_conv/kernel": (3, 3, 32, 64),
        "extra_7_reduce_conv/kernel": (1, 1, 64, 16),
        "extra_7_conv/kernel": (3, 3, 16, 32),
        "extra_8_reduce_conv/kernel": (1, 1, 32, 16),
        "extra_8_conv/kernel": (2, 2, 16, 32),
    }


def test_a_pooling_pyramid_has_no_weights():
    model = neck_model("type: 'ssd_mobilenet_v1_ppn'")
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert [x.shape[1:] for x in model.outputs] == [(*size, 16) for size in sizes]
    assert model.count_params() == 0


def test_vgg_normalises_conv4_3():
    assert shapes(neck_model("type: 'ssd_vgg16'"))["l2_norm_3/scale"] == (8,)


@pytest.mark.parametrize(
    ("field", "path", "shape"),
    [
        ("use_depthwise: true", "extra_6_depthwise_depthwise/kernel", (3, 3, 256, 1)),
        ("conv_hyperparams { batch_norm { scale: true } }", "extra_6_batch_norm/gamma", (512,)),
    ],
)
def test_fields_of_extra_levels(field, path, shape):
    assert shapes(neck_model(f"type: 'ssd_mobilenet_v2' {field}"))[path] == shape


@pytest.mark.parametrize("text", ["type: 'ssd_mobilenet_v2'", "type: 'ssd_mobilenet_v2_fpn'"])
def test_explicit_padding_adds_padding_layers(text):
    padded = [layer.name for layer in neck_model(f"{text} use_explicit_padding: true").layers if "pad" in layer.name]
    assert len(padded) == 4  # four extra levels; two smoothed maps and two coarse ones


@pytest.mark.parametrize(
    ("field", "path", "shape"),
    [
        ("", "fpn_coarse_6_conv/kernel", (3, 3, 256, 256)),
        ("fpn { additional_layer_depth: 128 }", "fpn_lateral_3/kernel", (1, 1, 8, 128)),
        ("fpn { additional_layer_depth: 128 } depth_multiplier: 0.5", "fpn_lateral_3/kernel", (1, 1, 8, 64)),
        ("fpn { coarse_source: BACKBONE }", "fpn_coarse_6_conv/kernel", (3, 3, 32, 256)),
        ("fpn { top_down_normalization: false }", "fpn_smooth_5_conv/kernel", (3, 3, 256, 256)),
        ("use_depthwise: true", "fpn_smooth_3_separable/depthwise_kernel", (3, 3, 256, 1)),
    ],
)
def test_fields_of_pyramids(field, path, shape):
    assert shapes(neck_model(f"type: 'ssd_resnet50_v1_fpn' {field}"))[path] == shape


def test_frozen_batch_norm_arrives():
    text = "type: 'ssd_mobilenet_v2' conv_hyperparams { batch_norm {} }"
    assert neck_model(text, freeze_batchnorm=True).get_layer("extra_6_batch_norm").train_statistics is False


@pytest.mark.parametrize(("suffix", "passed"), [("", "fpn_merge_4"), ("_keras", "fpn_smooth_4_activation")])
def test_a_type_of_the_first_generation_sends_the_sum_down(suffix, passed):
    model = neck_model(f"type: 'ssd_resnet50_v1_fpn{suffix}'")
    coarser, _ = model.get_layer("fpn_upsample_3").input
    assert producer_of(model, coarser).name == passed
