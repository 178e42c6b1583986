"""The networks against published numbers: parameter counts, and the variables of the original's checkpoints."""

from __future__ import annotations

import collections
import csv
import re

import keras
import pytest

from detzoo.builders.detector import build_detector
from detzoo.config.load import load_pipeline
from detzoo.features.network import symbolic
from detzoo.features.rewrite import build_extractor_model
from detzoo.features.vgg import vgg16

# Huang et al., arXiv:1611.10012, table 2 (VGG-16 with biases, ResNet without, Inception's batch norm without gamma).
# ResNet-50 and -152: keras.applications' 23,587,712 and 58,370,944, less 26,560 and 75,712 conv biases.
# Inception v2: the paper's first layer has a bias. The Object Detection API's has beta, mean and variance instead.
# MobileNets: keras.applications'. ResNeXt-101: torchvision's 86,742,336 and the 2 * 101,440 moving statistics.
PARAMETERS = {
    "ssd_inception_v2_fpn": 10_173_112 + 2 * 64,
    "ssd_inception_v3_fpn": 21_802_784,
    "ssd_inception_resnet_v2_fpn": 54_336_736,
    "ssd_resnet101_v1_fpn": 42_605_504,
    "ssd_resnet50_v1_fpn": 23_561_152,
    "ssd_mobilenet_v1_fpn": 3_228_864,
    "ssd_mobilenet_v2_fpn": 2_257_984,
    "ssd_resnext101_32x8d_fpn": 86_945_216,
}

GOLDEN_BACKBONES = {
    "ssd_mobilenet_v1_fpn_640": "ssd_mobilenet_v1_fpn",
    "ssd_mobilenet_v2_320": "ssd_mobilenet_v2_fpn",
    "ssd_mobilenet_v2_fpnlite_320": "ssd_mobilenet_v2_fpn",
    "ssd_resnet50_v1_fpn_640": "ssd_resnet50_v1_fpn",
    "ssd_resnet101_v1_fpn_640": "ssd_resnet101_v1_fpn",
}
_BACKBONE_PREFIX = "model/_feature_extractor/classification_backbone/"


@pytest.mark.parametrize("type_name", PARAMETERS)
def test_parameter_counts_without_classifier(full_backbone, type_name):
    assert full_backbone(type_name).count_params() == PARAMETERS[type_name]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mobiledet_cpu", "mobiledet_dsp", "mobiledet_edgetpu", "mobiledet_gpu", "mnasfpn"])
def test_parameter_counts_of_published_detectors(shared, name):
    (path,) = (shared / "configs" / "published" / "tf1").glob(f"ssd*{name}_*.config")
    published = re.search(r"([\d.]+)M Parameters", path.read_text())[1]
    message = load_pipeline(path).message.model
    detector = symbolic(lambda: build_detector(message))
    assert f"{detector.count_params() / 1e6:.{len(published.partition('.')[2])}f}" == published


def test_parameter_count_of_vgg16_to_its_last_convolution():
    network = vgg16(for_pyramid=True)
    model = build_extractor_model(network, (4,), (None, None), network.hyperparams, output_stride=32)
    assert model.count_params() == 14_714_688


@pytest.mark.parametrize("golden", GOLDEN_BACKBONES)
def test_variables_are_those_of_the_originals_checkpoint(shared, full_backbone, golden):
    with (shared / "golden" / golden / "variables.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"].startswith(_BACKBONE_PREFIX)]
    # Keras 3 calls a depthwise kernel "kernel".
    names = [row["name"].split("/")[-3].removeprefix("depthwise_") for row in rows]
    expected = collections.Counter(zip(names, (row["shape"] for row in rows), strict=True))
    ours = collections.Counter(
        (weight.path.rsplit("/", 1)[-1], "x".join(map(str, weight.shape)))
        for weight in full_backbone(GOLDEN_BACKBONES[golden]).weights
    )
    assert expected
    assert ours == expected


def test_every_layer_has_a_stable_name(full_backbone):
    """Built after other models of the process, a layer's path is still the same."""
    keras.layers.Conv2D(2, 1)(keras.Input((4, 4, 3)))
    paths = [weight.path for weight in full_backbone("ssd_inception_v3_fpn").weights]
    assert paths[0] == "backbone/conv_0/kernel"
    assert "backbone/conv_93/kernel" in paths
    assert len(set(paths)) == len(paths)
