"""Names, colours and labels of points."""

from __future__ import annotations

import pytest

from detzoo.sweep.report import names

# Table 2 of arXiv:1611.10012.
PAPER = {
    "vgg16": 71.0,
    "mobilenet_v1": 71.1,
    "inception_v2": 73.9,
    "resnet101": 76.4,
    "inception_v3": 78.0,
    "inception_resnet_v2": 80.4,
}


@pytest.mark.parametrize(
    ("spelling", "wanted"),
    [
        ("resnet_v1_101", "resnet101"),
        ("ResNet-101", "resnet101"),
        ("resnet101_v1", "resnet101"),
        ("resnet50_v1_keras", "resnet50"),
        ("mobilenet_v1", "mobilenetv1"),
        ("inception_resnet_v2", "inceptionresnetv2"),
        (None, ""),
    ],
)
def test_spellings_of_one_extractor_are_one(spelling, wanted):
    assert names.folded(spelling) == wanted


def test_the_papers_table_of_imagenet_accuracies():
    assert {name: names.imagenet_accuracy(name) for name in PAPER} == PAPER
    assert names.imagenet_accuracy("mobilenet_v2") is None


def test_the_papers_extractors_differ_in_colour_and_its_meta_architectures_in_shape():
    assert len({names.extractor_colour(name) for name in PAPER}) == 6
    assert len({names.meta_marker(name) for name in ("ssd", "faster_rcnn", "rfcn", "retinanet")}) == 4


def test_a_colour_belongs_to_the_name_alone():
    assert names.extractor_colour("my_net") == names.extractor_colour("My-Net")
    assert names.extractor_colour("my_net") in names.OTHER_COLOURS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\u2028b\nc", "a b c"),
        ("\x07bell\x1b[31m", "�bell�[31m"),
        ("\ud800", "�"),
        (None, ""),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_text_becomes_one_line_that_can_be_shown(text, wanted):
    assert names.printable(text) == wanted


def test_labels_say_what_differs(make_row):
    rows = [
        make_row("a", meta_architecture="ssd", extractor="vgg16", resolution=300),
        make_row("b", meta_architecture="rfcn", extractor="resnet101", resolution=600, output_stride=16, proposals=50),
        make_row("c", meta_architecture="rfcn", extractor="resnet101", resolution=600, output_stride=8, proposals=50),
    ]
    assert names.point_labels(rows) == [
        "SSD VGG-16, 300 px",
        "R-FCN ResNet-101, 600 px, stride 16",
        "R-FCN ResNet-101, 600 px, stride 8",
    ]


def test_a_single_point_has_all_details(make_row):
    row = make_row("b", meta_architecture="rfcn", extractor="resnet101", resolution=600, output_stride=16, proposals=50)
    assert names.point_labels([row]) == ["R-FCN ResNet-101, 600 px, stride 16, 50 prop."]


def test_points_that_look_alike_are_called_by_their_names(make_row):
    rows = [make_row(key, meta_architecture="ssd", extractor="vgg16", resolution=300) for key in ("one", "two")]
    assert names.point_labels(rows) == ["one", "two"]


def test_several_runtimes_have_the_colours_and_are_in_the_labels(make_row):
    same = {"meta_architecture": "ssd", "extractor": "mobilenet_v2", "resolution": 300}
    rows = [make_row(name, runtime=name, **same) for name in ("tensorflow", "litert")]
    assert names.has_runtimes(rows)
    assert not names.has_runtimes([make_row("old"), rows[0]])  # a row without a runtime is of TensorFlow
    assert names.point_labels(rows) == ["SSD MobileNet v2, TensorFlow", "SSD MobileNet v2, LiteRT"]
    assert [names.row_look(row, True)[0] for row in rows] == ["TensorFlow", "LiteRT"]
    assert len({colour for _, colour in names.RUNTIMES.values()}) == 4
    assert names.row_look(rows[0], False) == ("MobileNet v2", names.extractor_colour("mobilenet_v2"))
