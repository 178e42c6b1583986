"""Detections side by side: which models, which boxes, which images."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from detzoo.sweep.measured import clean_rows
from detzoo.sweep.report.examples import draw_examples, key_models, score_threshold


@pytest.fixture
def sweep(tmp_path, make_row):
    """A function that leaves detections of a point as a sweep does; the folder has one grey image of 40 x 60."""
    (tmp_path / "examples").mkdir()
    Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(tmp_path / "examples" / "kite.jpg")

    def leave(key, scores, image="kite.jpg", meta="faster_rcnn", **values):
        (tmp_path / "points" / key).mkdir(parents=True, exist_ok=True)
        boxes = [[10.0, 15.0, 20.0, 45.0]] * len(scores)
        entry = {"image": image, "width": 60, "height": 40, "boxes_px": boxes, "scores": scores}
        entries = [{**entry, "classes": ["kite"] * len(scores)}]
        (tmp_path / "points" / key / "examples.json").write_text(json.dumps(entries), encoding="utf-8")
        return make_row(key, meta_architecture=meta, extractor="vgg16", **values)

    leave.folder = tmp_path
    return leave


def test_boxes_above_the_papers_thresholds_are_drawn(sweep):
    scores = [0.9, 0.6, 0.4, 0.35, 0.2]
    rows = clean_rows([sweep("two", scores, mAP=0.3), sweep("one", scores, meta="ssd", mAP=0.2)])
    [image], missing = draw_examples(rows, "mAP", sweep.folder)
    # Without times there is no frontier: both are shown. Faster R-CNN .5, SSD .3.
    counts = {picture.label: (picture.num_drawn, picture.threshold) for picture in image.pictures}
    assert counts == {"Faster R-CNN VGG-16": (2, 0.5), "SSD VGG-16": (4, 0.3)}
    assert missing == ""


def test_no_more_than_the_twenty_best(sweep):
    rows = clean_rows([sweep("many", [0.5 + 0.01 * step for step in range(30)], mAP=0.3)])
    [image], _ = draw_examples(rows, "mAP", sweep.folder)
    assert image.pictures[0].num_drawn == 20


def test_a_box_is_where_it_was_detected(sweep):
    """Rows 10 to 20 and columns 15 to 45 of 40 x 60 are outlined, the middle stays grey."""
    rows = clean_rows([sweep("a", [0.9], mAP=0.3)])
    [image], _ = draw_examples(rows, "mAP", sweep.folder)
    pixels = np.asarray(Image.open(io.BytesIO(image.pictures[0].jpeg)).convert("RGB"), np.int64)
    assert pixels.shape == (*image.pictures[0].size, 3) == (320, 480, 3)  # enlarged by 8
    changed = np.abs(pixels - 128).max(axis=2) > 60
    scale = pixels.shape[0] / 40
    assert changed[int(18 * scale) : int(21 * scale), int(30 * scale)].any()  # the lower edge
    assert not changed[int(30 * scale) :].any()


def test_images_can_be_chosen_with_or_without_suffix(sweep):
    rows = clean_rows([sweep("a", [0.9], mAP=0.3)])
    images, missing = draw_examples(rows, "mAP", sweep.folder, ["kite", "boat.jpg"])
    assert [image.name for image in images] == ["kite.jpg"]
    assert missing == "no detections or no image of boat.jpg"


def test_a_sweep_without_examples_says_so(make_row, tmp_path):
    images, missing = draw_examples(clean_rows([make_row("a", mAP=0.3)]), "mAP", tmp_path)
    assert images == []
    assert missing == "the sweep left no detections on example images"


@pytest.mark.parametrize("name", ["../secret.jpg", "a/b.jpg", "", 3])
def test_an_image_is_never_taken_from_elsewhere(sweep, name):
    Image.new("RGB", (60, 40)).save(sweep.folder / "secret.jpg")
    rows = clean_rows([sweep("a", [0.9], image=name, mAP=0.3)])
    assert draw_examples(rows, "mAP", sweep.folder)[0] == []


@pytest.mark.parametrize("key", ["../points/a", ".."])
def test_a_key_names_no_other_folder(sweep, make_row, key):
    sweep("a", [0.9], mAP=0.3)
    assert draw_examples(clean_rows([make_row(key, mAP=0.3)]), "mAP", sweep.folder)[0] == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"image": "kite.jpg"}]', "\ud800".encode("utf-8", "replace").decode()]
)
def test_a_file_that_cannot_be_read_counts_as_none(sweep, text):
    row = sweep("a", [0.9], mAP=0.3)
    (sweep.folder / "points" / "a" / "examples.json").write_text(text, encoding="utf-8")
    assert draw_examples(clean_rows([row]), "mAP", sweep.folder)[0] == []


def test_a_broken_image_is_left_out(sweep):
    (sweep.folder / "examples" / "kite.jpg").write_bytes(b"no picture")
    images, missing = draw_examples(clean_rows([sweep("a", [0.9], mAP=0.3)]), "mAP", sweep.folder)
    assert images == []
    assert "kite.jpg" in missing


def test_key_models_are_spread_along_the_frontier(make_row):
    # Times and accuracies rise together: all nine are on the frontier; the last is beaten.
    rows = [make_row(str(step), mAP=0.1 * step, **{"latency.median_ms": 10.0 * step}) for step in range(1, 10)]
    rows.append(make_row("beaten", mAP=0.1, **{"latency.median_ms": 95.0}))
    assert [row["key"] for row in key_models(clean_rows(rows), "mAP")] == ["1", "3", "5", "7", "9"]


def test_thresholds_of_other_one_stage_detectors(make_row):
    assert score_threshold(make_row("a", meta_architecture="retinanet")) == 0.3
    assert score_threshold(make_row("a", meta_architecture="rfcn")) == 0.5
