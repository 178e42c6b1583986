"""Features of a classifier's layers: values against the network, labels of records, refusals."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from detzoo.builders.detector import build_detector
from detzoo.config.load import load_pipeline
from detzoo.datasets.annotations import Annotations
from detzoo.datasets.conversion import convert
from detzoo.datasets.shapes import draw_annotations
from detzoo.errors import ConfigError, DataError, UsageError
from detzoo.ops.spatial_pyramid import spatial_pyramid
from detzoo.tasks.features import classify_features, extract_features
from detzoo.tasks.models import InMemory

CONFIG = pathlib.Path(__file__).parents[2] / "model_configs" / "shapes_spp_classifier_zf5_single_size.config"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder, function of the options of ``extract_features`` -> arrays of its file, and the classifier."""
    folder = tmp_path_factory.mktemp("features")
    drawn = draw_annotations(12, 96, seed=3, max_objects=3, min_object_side=0.3)
    first = drawn.images[0]
    difficult = tuple(dataclasses.replace(item, is_difficult=True) for item in first.objects)
    images = [dataclasses.replace(first, objects=difficult), *drawn.images[1:]]
    convert(Annotations(images, drawn.class_names), str(folder / "data"), num_shards=1)
    overrides = [
        f"eval_input_reader[0].label_map_path={folder}/label_map.pbtxt",
        f"eval_input_reader[0].tf_record_input_reader.input_path[0]={folder}/data-00000-of-00001.tfrecord",
        "model.spp_classifier.network.fc_depth=8",
    ]
    model = load_pipeline(str(CONFIG), overrides).message.model
    classifier = build_detector(model)

    def features(name="features", **options):
        file = folder / f"{name}.npz"
        memory = InMemory(classifier, model)
        found = extract_features(str(CONFIG), memory, file, shorter_side=160, overrides=overrides, **options)
        with np.load(file) as stored:
            arrays = {key: stored[key] for key in stored.files}
        assert found == (len(arrays["ids"]), arrays["features"].shape[1], arrays["labels"].shape[1])
        return arrays

    return folder, features, classifier, images


def test_labels_are_the_classes_of_the_objects_and_difficult_ones_are_uncertain(run):
    _, features, _, images = run
    arrays = features(layer="fc7")
    names = list(arrays["class_names"])
    assert names == ["circle", "square", "triangle", "star", "ring"]
    assert list(arrays["ids"]) == [image.source_id for image in images]
    expected = np.full([12, 5], -1)
    for row, image in enumerate(images):
        for item in image.objects:
            expected[row, names.index(item.class_name)] = 0 if item.is_difficult else 1
    np.testing.assert_array_equal(arrays["labels"], expected)
    assert arrays["features"].shape == (12, 8)


def test_maps_are_pooled_by_the_pyramid_and_crops_have_one_length(run):
    _, features, classifier, _ = run
    conv5 = features(layer="conv5", crop_size=160)["features"]
    pooled = features(layer="conv5", bins=(3, 1))["features"]
    # Images are squares, so that the crop is the image, and the flat map can be pooled by hand.
    channels = classifier._parts.convolutions.output_shape[-1]
    side = int(np.sqrt(conv5.shape[1] / channels))
    maps = conv5.reshape(12, side, side, channels)
    np.testing.assert_allclose(pooled, spatial_pyramid(maps, (3, 1)), rtol=1e-4, atol=1e-5)
    own = features(layer="pool5")["features"]
    np.testing.assert_allclose(own, spatial_pyramid(maps, (3, 2, 1)), rtol=1e-4, atol=1e-5)


def test_svms_of_the_features_are_trained_and_measured(run):
    folder, features, _, _ = run
    features("train", layer="pool5")
    [result] = classify_features(folder / "train.npz", folder / "train.npz", c=1000.0)
    assert result.mean_average_precision == 1.0  # 12 images in 896 dimensions
    assert result.accuracy is None
    with pytest.raises(DataError, match="needs images with one label each"):
        classify_features(folder / "train.npz")
    features("fc7", layer="fc7")
    with pytest.raises(DataError, match="differ in their classes or in the number of values"):
        classify_features(folder / "train.npz", folder / "fc7.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "fc9"}, r"--layer: the network has no 'fc9'; did you mean 'fc7' or 'fc6'\?"),
        ({"layer": "zzz"}, "--layer: the network has no 'zzz'; accepted: conv1, .*, conv5, fc6, fc7"),
        ({"layer": "fc6", "bins": (2,)}, "--pyramid pools maps, and fc6 has none"),
        ({"crop_size": 200}, "--crop_size 200 is above the shorter side of the images, 160"),
    ],
)
def test_what_cannot_be_is_refused(run, options, message):
    with pytest.raises(UsageError, match=message):
        run[1](**options)


def test_a_detector_is_no_classifier(tmp_path):
    with pytest.raises(ConfigError, match=r"model.ssd is no classifier"):
        extract_features("shapes_ssd_mobilenet_v1", tmp_path, tmp_path / "x.npz")
