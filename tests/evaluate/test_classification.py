"""Top-1 and top-5 error, counted by hand; the files and the table."""

from __future__ import annotations

import json
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Batch
from detzoo.errors import DataError
from detzoo.evaluate.classification import ClassifierEvaluator
from detzoo.evaluate.report import format_table, write_results

NAMES = {number: f"class {number}" for number in range(1, 8)}
# Seven classes. The true class is first, third and sixth of the row; in the last row two are tied for the first place.
SCORES = np.array(
    [
        [0.5, 0.2, 0.1, 0.08, 0.06, 0.04, 0.02],
        [0.4, 0.3, 0.1, 0.08, 0.06, 0.04, 0.02],
        [0.3, 0.2, 0.15, 0.13, 0.12, 0.1, 0.0],
        [0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.0],
    ],
    np.float32,
)
CLASSES = [0, 2, 5, 1]


class Classes(NamedTuple):
    """Ground truth of which the classes alone are read."""

    classes: Any


class Classifier:
    """Says the scores that the images carry in their first pixels."""

    num_classes = 7

    def preprocess(self, images):
        return images

    def forward(self, inputs, true_shapes):
        del true_shapes
        return types.SimpleNamespace(scores=inputs[:, 0, :, 0])


def dataset(scores, classes):
    count = len(classes)
    rows = tf.constant(scores)[:, tf.newaxis, :, tf.newaxis]
    batch = Batch(
        images=tf.tile(rows, [1, 2, 1, 3]),
        true_shapes=tf.fill([count, 2], 2),
        original_shapes=tf.fill([count, 2], 2),
        image_ids=tf.constant([f"image {number}" for number in range(count)]),
        record_index=tf.range(count, dtype=tf.int64),
        groundtruth=Classes(tf.constant(classes)[:, tf.newaxis]),
    )
    return tf.data.Dataset.from_tensor_slices(batch).batch(3)


def test_errors():
    result = ClassifierEvaluator(dataset(SCORES, CLASSES), NAMES, show_progress=False).evaluate(Classifier())
    # Right: the first image. Of equal scores the lower class is first, so the tie is wrong. Outside of five: the third.
    assert result.metrics == {"top-1 error": 0.75, "top-5 error": 0.25}
    assert result.per_class == {
        "class 1": {"top-1 error": 0.0, "images": 1},
        "class 2": {"top-1 error": 1.0, "images": 1},
        "class 3": {"top-1 error": 1.0, "images": 1},
        "class 6": {"top-1 error": 1.0, "images": 1},
    }
    assert [image.image_id for image in result.images] == [f"image {number}" for number in range(4)]


def test_five_classes_have_no_top_5_error():
    classifier = Classifier()
    classifier.num_classes = 5
    evaluator = ClassifierEvaluator(dataset(SCORES[:, :5], [0, 0, 4, 4]), NAMES, show_progress=False)
    assert evaluator(classifier) == {"top-1 error": 0.5}


def test_files_and_table(tmp_path):
    result = ClassifierEvaluator(dataset(SCORES, CLASSES), NAMES, show_progress=False).evaluate(Classifier())
    write_results(result, tmp_path, {"step": 40})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["top-1 error"], metrics["top-5 error"], metrics["step"], metrics["num_images"]) == (
        0.75,
        0.25,
        40,
        4,
    )
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert predictions[1]["image_id"] == "image 1"
    assert predictions[1]["class"] == "class 3"
    assert predictions[1]["best"][2] == {"class": "class 3", "score": 0.1}
    lines = format_table(result).splitlines()
    assert lines[0].split()[:3] == ["top-1", "error", "75.00%"]
    assert lines[1].split()[:3] == ["top-5", "error", "25.00%"]
    assert lines[-1].split() == ["class", "1", "0.00%", "1"]  # the class with the fewest errors comes last


def test_no_images():
    empty = dataset(SCORES, CLASSES).take(0)
    with pytest.raises(DataError, match="no image of a class of the label map"):
        ClassifierEvaluator(empty, NAMES, show_progress=False).evaluate(Classifier())
