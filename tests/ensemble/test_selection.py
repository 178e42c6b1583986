"""The greedy choice with the cosine rule, and what it is worth, on numbers worked by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from detzoo.ensemble.description import MergeOptions
from detzoo.ensemble.merging import merge_images
from detzoo.ensemble.selection import (
    MeasuredModel,
    cosine_similarities,
    format_selection,
    precision_vectors,
    read_measured,
    select,
    short_names,
)
from detzoo.errors import DataError, UsageError
from detzoo.evaluate.coco import evaluate_coco
from detzoo.evaluate.stored import read_evaluation, with_same_truth


def model(name, *precisions, images=9, objects=()):
    values = dict(zip("pqrs", precisions))
    return MeasuredModel(name, f"runs/{name}", float(np.nanmean(precisions)), values, dict(objects), images)


def test_a_diverse_pair_beats_the_two_best_similar_ones(three_models):
    """The numbers are derived in the fixture."""
    models = [read_measured(folder, folder.parent.name) for folder in three_models]
    assert [m.overall for m in models] == pytest.approx([152 / 202, 127 / 202, 102 / 202])
    assert list(models[2].per_class.values()) == pytest.approx([26 / 101, 76 / 101])

    chosen = select(models, num_models=2)
    assert [(c.model.name, c.reason) for c in chosen.candidates] == [
        ("a", "chosen"),
        ("b", "too close to a"),
        ("c", "chosen"),
    ]
    assert chosen.max_similarity == pytest.approx(6502 / math.sqrt(12802 * 6452))  # the median of the three
    assert chosen.candidates[1].similarity == pytest.approx(11527 / math.sqrt(12802 * 10877))
    assert [m.name for m in select(models, num_models=2, max_similarity=1.0).chosen] == ["a", "b"]

    a, b, c = with_same_truth([read_evaluation(folder) for folder in three_models])

    def merged_map(*evaluations):
        same_images = zip(*(each.images for each in evaluations), strict=True)
        images = [merge_images(same_image, [1.0, 1.0], MergeOptions()) for same_image in same_images]
        return evaluate_coco(images, a.class_names).metrics["mAP"]

    # A and B together find what A finds, every object once: B's boxes are suppressed. A and C find everything.
    assert merged_map(a, b) == pytest.approx(152 / 202)
    assert merged_map(a, c) == pytest.approx(1.0)


def test_similarity_is_the_cosine_of_the_angle():
    # Along an axis, at 45 degrees to it, along the other, and nothing.
    similarities = cosine_similarities(np.array([[0.5, 0.0], [0.3, 0.3], [0.0, 0.9], [0.0, 0.0]]))
    half = math.sqrt(0.5)
    expected = [[1, half, 0, 0], [half, 1, half, 0], [0, half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(similarities, expected, atol=1e-12)


def test_the_wanted_number_is_a_limit_and_order_is_by_the_metric():
    models = [model("c", 0.1, 0.5), model("a", 0.9, 0.1), model("b", 0.5, 0.4), model("d", 0.0, 0.0)]
    two = select(models, 2, max_similarity=1.0)
    assert [m.name for m in two.chosen] == ["a", "b"]
    assert two.candidates[2].reason == "not needed, 2 are chosen"
    assert two.candidates[3].reason == "finds nothing"
    assert [m.name for m in select(models, 4, max_similarity=1.0).chosen] == ["a", "b", "c"]
    assert select([model("a", 0.5, 0.5), model("twin", 0.5, 0.5)], 2, 0.999).candidates[1].reason == "too close to a"


def test_the_table_names_similarity_and_reason():
    text = format_selection(select([model("first", 0.6, 0.3), model("b", 0.4, 0.2)], 2, 0.9), "mAP")
    assert [line.split() for line in text.splitlines()] == [
        ["model", "mAP", "similarity", "to", "the", "nearest", "chosen"],
        ["first", "0.450", "-", "chosen"],
        ["b", "0.300", "1.00000", "too", "close", "to", "first"],
    ]


def test_classes_without_an_object_are_left_out():
    nan = float("nan")
    vectors = precision_vectors([model("a", 0.5, nan, 0.2), model("b", 0.1, nan, 0.4)])
    np.testing.assert_allclose(vectors, [[0.5, 0.2], [0.1, 0.4]])


@pytest.mark.parametrize(
    ("models", "kind", "message"),
    [
        ([model("a", 0.5)], UsageError, "from at least 2 evaluations, received 1"),
        ([model("a", 0.5), model("b", 0.5, 0.1)], DataError, "runs/a and runs/b have different classes: q is in one"),
        ([model("a", 0.5), model("b", 0.4, images=7)], DataError, "runs/a was measured on 9 images, runs/b on 7"),
        (
            [model("a", 0.5, objects={"p": 3}), model("b", 0.4, objects={"p": 4})],
            DataError,
            "measured on different images: 3 and 4 objects of class 'p'",
        ),
        ([model("a", 0.5, 0.5), model("b", 0.4, float("nan"))], DataError, "runs/b: class 'q' was not measured, but"),
    ],
)
def test_evaluations_that_do_not_go_together_are_refused(models, kind, message):
    with pytest.raises(kind, match=message):
        select(models, 2)


def test_nothing_measured_is_refused():
    nothing = MeasuredModel("a", "runs/a", -1.0, {"p": float("nan")}, {}, 3)
    with pytest.raises(DataError, match="runs/a: no class was measured"):
        precision_vectors([nothing, nothing._replace(name="b")])


def test_paths_get_short_names():
    assert short_names(["runs/a/evaluation", "runs/b/evaluation"]) == ["a", "b"]
    assert short_names(["runs/a/x/evaluation", "other/b/evaluation"]) == ["runs/a/x", "other/b"]
    assert short_names(["a", "a/b"]) == ["a", "b"]
    assert short_names(["runs/a"]) == ["runs/a"]


@pytest.mark.parametrize(
    ("text", "metric", "kind", "message"),
    [
        (None, "AP", UsageError, "metrics.json: does not exist; give the --output_dir of `detzoo evaluate`"),
        ('{"mAP": 0.5', "AP", DataError, "metrics.json is not JSON"),
        ("[]", "AP", DataError, "is not what `detzoo evaluate` writes"),
        ('{"AR@100": 0.5, "per_class": {}}', "AP", UsageError, "has no per_class"),
        (
            json.dumps({"VOC mAP@.50IOU": 0.5, "per_class": {"cat": {"VOC mAP@.50IOU": 0.5}}}),
            "AP",
            UsageError,
            "has no AP of the classes; it has VOC mAP@.50IOU: choose with --metric",
        ),
        (
            json.dumps({"mAP": 0.5, "per_class": {"cat": 3}}),
            "AP",
            DataError,
            "is not as `detzoo evaluate` writes it",
        ),
        (
            json.dumps({"mAP": 0.5, "per_class": {"cat": {"AP": 1.2}}}),
            "AP",
            DataError,
            "cat: AP is 1.2; accepted: 0 to 1",
        ),
    ],
)
def test_unusable_metrics_files(tmp_path, text, metric, kind, message):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(kind, match=message):
        read_measured(tmp_path, "a", metric)


def test_another_metric_is_read(tmp_path):
    rows = {"cat": {"AP@.50IOU": 0.7, "objects": 3}, "dog": {"AP@.50IOU": -1, "objects": 0}}
    numbers = {"mAP@.50IOU": 0.7, "num_images": 4, "per_class": rows}
    (tmp_path / "metrics.json").write_text(json.dumps(numbers))
    read = read_measured(tmp_path / "metrics.json", "a", "AP@.50IOU")
    assert (read.overall, read.num_images, read.num_objects) == (0.7, 4, {"cat": 3, "dog": 0})
    assert read.per_class["cat"] == 0.7
    assert math.isnan(read.per_class["dog"])
