"""Checkpoints of the Object Detection API: walking their graph of objects, matching, and what cannot be taken."""

from __future__ import annotations

import csv
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.files import latest_prefix
from detzoo.checkpoints.layout import variables_by_path
from detzoo.checkpoints.object_detection_api import describe, match_detector
from detzoo.checkpoints.object_graph import GRAPH_KEY, ObjectGraph
from detzoo.checkpoints.restore import warm_start
from detzoo.config.load import load_pipeline
from detzoo.errors import CheckpointError
from detzoo.features.network import symbolic

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
GOLDEN = {
    "efficientdet_d0": "a one-stage detector",
    "faster_rcnn_inception_resnet_v2_640": "a Faster R-CNN",
    "faster_rcnn_resnet101_v1_640": "a Faster R-CNN",
    "faster_rcnn_resnet50_v1_640": "a Faster R-CNN",
    "faster_rcnn_resnet50_v1_fpn_640": "a Faster R-CNN",
    "mask_rcnn_inception_resnet_v2": "a Mask R-CNN",
    "rfcn_resnet101_v1_640": "an R-FCN",
    "ssd_mobilenet_v1_fpn_640": "a one-stage detector",
    "ssd_mobilenet_v2_320": "a one-stage detector",
    "ssd_mobilenet_v2_fpnlite_320": "a one-stage detector",
    "ssd_resnet101_v1_fpn_640": "a one-stage detector",
    "ssd_resnet50_v1_fpn_640": "a one-stage detector",
}


@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN)
def test_every_published_variable_has_its_place(shared, name):
    folder = shared / "golden" / name
    message = load_pipeline(folder / "pipeline.config").message.model
    detector = symbolic(lambda: build_detector(message))
    ours = {path: tuple(variable.shape) for path, variable in variables_by_path(detector.variables).items()}
    graph = ObjectGraph((folder / "object_graph.pb").read_bytes())
    assert describe(graph) == GOLDEN[name]
    match = match_detector(graph, ours)
    with (folder / "variables.csv").open() as file:
        published = {row["name"]: tuple(map(int, row["shape"].split("x"))) for row in csv.DictReader(file)}
    assert {path: published[key] for path, key in match.keys.items()} == ours
    assert len(set(match.keys.values())) == len(ours)
    assert match.unused == []
    # Only EfficientDet's layout keeps the top of its classifier: a convolution, its normalisation and the classes.
    assert len(match.leftovers) == (7 if name == "efficientdet_d0" else 0)
    assert sorted([*match.keys.values(), *match.leftovers]) == sorted(published)


def make_model(num_classes=3, channels=4, fill=0.0):
    """A detector's paths: two layers of a backbone, one extra level, the heads of two levels."""
    image = keras.Input((8, 12, 3))
    with keras.name_scope("backbone"):
        x = keras.layers.Conv2D(channels, 1, use_bias=False, name="stem")(image)
        x = keras.layers.BatchNormalization(name="norm")(x)
        x = fine = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    with keras.name_scope("neck"):
        x = keras.layers.Conv2D(6, 1, use_bias=False, name="extra_5_reduce_conv")(x)
        coarse = keras.layers.Conv2D(7, 1, use_bias=False, name="extra_5_conv")(x)
    with keras.name_scope("head"):
        outputs = []
        for level, features in ((4, fine), (5, coarse)):
            outputs.append(keras.layers.Conv2D(4, 1, name=f"box_predictor_{level}")(features))
            outputs.append(keras.layers.Conv2D(num_classes, 1, name=f"class_predictor_{level}")(features))
    model = keras.Model(image, outputs)
    for variable in model.variables:
        variable.assign(tf.fill(variable.shape, float(fill)))
    return model


class Tree(tf.train.Checkpoint):
    """An object with children of any name."""

    def __init__(self, **children):
        super().__init__(**children)


def variable(*shape, value):
    return tf.Variable(tf.fill(shape, float(value)))


def convolution(*shape, value, kernel="kernel", bias=False):
    children = {kernel: variable(*shape, value=value)}
    if bias:
        children["bias"] = variable(shape[-1], value=value)
    return Tree(**children)


def published_backbone(channels=4, **more):
    """Layers of a Keras model as tf.keras tracks them: those with weights have a name more."""
    stem = convolution(1, 1, 3, channels, value=1)
    norm = Tree(**{n: variable(channels, value=2) for n in ("gamma", "beta", "moving_mean", "moving_variance")})
    depthwise = convolution(3, 3, channels, 1, value=3, kernel="depthwise_kernel")
    names = {"layer-1": stem, "layer_with_weights-0": stem, "layer-2": norm, "layer_with_weights-1": norm}
    return Tree(**{"layer-0": Tree(), **names, "layer-3": depthwise, "layer_with_weights-2": depthwise}, **more)


def published(num_classes=3, channels=4, box_levels=(4, 5), **more):
    """Returns the checkpoint of the API for ``make_model``, with a different value for each layer."""
    inner = {4: channels, 5: 7}
    boxes = [
        Tree(_box_encoder_layers=[convolution(1, 1, inner[level], 4, value=10 + level, bias=True)])
        for level in box_levels
    ]
    classes = [
        Tree(_class_predictor_layers=[convolution(1, 1, inner[level], num_classes, value=20 + level, bias=True)])
        for level in (4, 5)
    ]
    extra = [convolution(1, 1, channels, 6, value=4), Tree(), convolution(1, 1, 6, 7, value=5), Tree()]
    heads = Tree(box_encodings=boxes, class_predictions_with_background=classes)
    extractor = Tree(
        classification_backbone=published_backbone(channels), feature_map_generator=Tree(convolutions=[[], extra])
    )
    return Tree(_feature_extractor=extractor, _box_predictor=Tree(_prediction_heads=heads), **more)


EXPECTED = {
    "backbone/stem": 1,
    "backbone/norm": 2,
    "backbone/depthwise": 3,
    "neck/extra_5_reduce_conv": 4,
    "neck/extra_5_conv": 5,
    "head/box_predictor_4": 14,
    "head/box_predictor_5": 15,
    "head/class_predictor_4": 24,
    "head/class_predictor_5": 25,
}


def values_of(model):
    """Path of a layer -> the one value that all its variables have."""
    values = {}
    for weight in model.variables:
        found = np.unique(weight.numpy())
        assert found.size == 1
        owner = weight.path.rsplit("/", 1)[0]
        assert values.setdefault(owner, found[0]) == found[0]
    return values


def save(folder, model, **root):
    return Tree(model=model, **root).save(str(folder / "ckpt"))


def test_a_walk_through_the_graph(tmp_path):
    prefix = save(tmp_path, Tree(inner=[tf.Variable(1.0), Tree(w=tf.Variable(2.0))]), step=tf.Variable(7))
    reader = tf.train.load_checkpoint(prefix)
    graph = ObjectGraph(reader.get_tensor(GRAPH_KEY))
    assert graph.find("model/nowhere/deeper") is None
    assert graph.variables(graph.find("")) == {"step": f"step{SUFFIX}", "save_counter": f"save_counter{SUFFIX}"}
    assert graph.layers(graph.find("model/inner")) == [{"0": f"model/inner/0{SUFFIX}"}]
    below = list(graph.keys_below(graph.find("model")))
    assert [float(reader.get_tensor(key)) for key in below] == [1.0, 2.0]
    with pytest.raises(ValueError, match="graph of objects cannot be read"):
        ObjectGraph(b"\xff")


def test_every_layer_finds_its_twin(tmp_path):
    model = make_model()
    assert restore_for_inference(model, save(tmp_path, published())) == 0
    assert values_of(model) == EXPECTED


def test_the_keys_in_the_file_do_not_matter(tmp_path):
    # A shorter way to the model from the root gives every tensor another key.
    model = published()
    prefix = Tree(a=model._feature_extractor, model=model, step=tf.Variable(4000, dtype=tf.int64)).save(
        str(tmp_path / "ckpt")
    )
    assert not any("model/_feature_extractor" in name for name, _ in tf.train.list_variables(prefix))
    detector = make_model()
    assert restore_for_inference(detector, prefix) == 4000
    assert values_of(detector) == EXPECTED


def test_another_number_of_classes_is_refused_for_inference(tmp_path):
    prefix = save(tmp_path, published(num_classes=90))
    model = make_model()
    message = (
        r"of another model: 4 variables of another shape \(head/class_predictor_4/kernel \(model/_box_predictor/.*"
        r"\(1, 1, 4, 90\) in the checkpoint, \(1, 1, 4, 3\) in the model.*set num_classes to that number"
    )
    with pytest.raises(CheckpointError, match=message):
        restore_for_inference(model, prefix)
    assert set(values_of(model).values()) == {0}


def test_another_number_of_classes_is_skipped_in_fine_tuning(tmp_path):
    prefix = save(tmp_path, published(num_classes=90, _mask=convolution(1, 1, 2, 2, value=9)))
    model = make_model()
    report = warm_start(model, prefix, "full")
    assert values_of(model) == {**EXPECTED, "head/class_predictor_4": 0, "head/class_predictor_5": 0}
    text = report.describe()
    assert "(a one-stage detector of the Object Detection API)" in text
    assert "new: head/class_predictor_5/bias: (90,) in the checkpoint, (3,) here" in text
    assert "unused: model/_mask: kernel" in text
    assert len(report.new) == 4
    assert report.unused == ["model/_mask/kernel"]


@pytest.mark.parametrize(("kind", "parts"), [("classification", ("backbone",)), ("detection", ("backbone", "neck"))])
def test_parts_of_a_detector(tmp_path, kind, parts):
    model = make_model()
    warm_start(model, save(tmp_path, published()), kind)
    assert values_of(model) == {layer: value if layer.startswith(parts) else 0 for layer, value in EXPECTED.items()}


def test_the_backbone_of_a_classifier(tmp_path):
    network = published_backbone(**{"layer_with_weights-3": convolution(4, 1000, value=8, bias=True)})
    prefix = Tree(feature_extractor=network).save(str(tmp_path / "ckpt"))
    model = make_model()
    report = warm_start(model, prefix, "classification")
    assert values_of(model) == {
        layer: value if layer.startswith("backbone") else 0 for layer, value in EXPECTED.items()
    }
    top = {
        f"feature_extractor/layer_with_weights-3/{name}": "a classifier's last layers" for name in ("kernel", "bias")
    }
    assert report.leftovers == top
    assert "2, a classifier's last layers: feature_extractor/layer_with_weights-3/" in report.describe()
    with pytest.raises(CheckpointError, match=r"holds a classification network.*type: 'classification' \(found: 'full"):
        warm_start(make_model(), prefix, "full")
    with pytest.raises(CheckpointError, match="holds a classification network, no detector"):
        restore_for_inference(make_model(), prefix)


def test_another_backbone_is_an_error(tmp_path):
    prefix = save(tmp_path, published(channels=5))
    model = make_model()
    with pytest.raises(CheckpointError, match=r"another network than this model's: .*first backbone/stem/kernel \(mod"):
        warm_start(model, prefix, "detection")
    assert set(values_of(model).values()) == {0}


def test_a_whole_part_that_the_model_lacks_is_left_out_and_counted(tmp_path, caplog):
    model = make_model()
    with caplog.at_level(logging.WARNING):
        restore_for_inference(model, save(tmp_path, published(_mask=convolution(1, 1, 2, 2, value=9))))
    assert values_of(model) == EXPECTED
    assert "1 variables are not used, because the model has no such part: model/_mask 1" in caplog.text


def test_all_that_differs_is_told_for_inference(tmp_path):
    tree = published(box_levels=[4], _mask=convolution(1, 1, 2, 2, value=9))
    with pytest.raises(CheckpointError, match=r"2 variables of the model are not in it \(head/box_predictor_5/kernel"):
        restore_for_inference(make_model(), save(tmp_path, tree))
    with pytest.raises(CheckpointError, match=r"1 of its variables are not in the model \(model/_mask/kernel\)"):
        restore_for_inference(make_model(), tmp_path)


@pytest.mark.parametrize("form", ["folder", "archive", "prefix", "index", "data"])
def test_what_may_be_named(tmp_path, form):
    prefix = save(tmp_path / "checkpoint", published())
    path = {
        "folder": tmp_path / "checkpoint",
        "archive": tmp_path,
        "prefix": prefix,
        "index": prefix + ".index",
        "data": prefix + ".data-00000-of-00001",
    }
    model = make_model()
    restore_for_inference(model, path[form])
    assert values_of(model) == EXPECTED


def test_half_a_checkpoint(tmp_path):
    prefix = save(tmp_path, published())
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    content = data.read_bytes()
    data.unlink()
    with pytest.raises(CheckpointError, match=r"has an index but no data: .*ckpt-1.data-00000-of-00001 is missing"):
        warm_start(make_model(), prefix)
    data.write_bytes(content[: len(content) // 2])
    model = make_model()
    with pytest.raises(CheckpointError, match="ckpt-1 is damaged or incomplete"):
        warm_start(model, prefix)
    assert set(values_of(model).values()) == {0}
    (tmp_path / "ckpt-1.index").unlink()
    with pytest.raises(CheckpointError, match=r"has data but no index: .*ckpt-1.index is missing"):
        warm_start(make_model(), prefix)


def test_a_saved_model_is_no_checkpoint(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved_model"))
    for path in ("saved_model", "saved_model/variables", "saved_model/variables/variables"):
        with pytest.raises(CheckpointError, match=f"{path} is a SavedModel, not a checkpoint; accepted"):
            latest_prefix(tmp_path / path)
    save(tmp_path / "checkpoint", published())
    with pytest.raises(CheckpointError, match=rf"not a checkpoint; its checkpoint is {tmp_path}/checkpoint;"):
        latest_prefix(tmp_path / "saved_model")


def test_a_file_of_keras_is_no_checkpoint(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.h5 is a file of Keras, not a checkpoint"):
        latest_prefix(tmp_path / "model.h5")
