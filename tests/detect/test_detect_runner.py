"""Detection on files: thresholds, skipped files, the list, and exported models of every input type."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from detzoo.detect.runner import DetectionLimits, apply_limits, detect_files, picture_names, read_upright
from detzoo.detectors.saved_detector import ImageDetections, SavedDetector, find_saved_model, label_map_beside
from detzoo.detectors.serving import INPUT_SPECS
from detzoo.errors import UsageError
from detzoo.export.exporter import Export, export_detector


def fixed_detector(image):
    """A sure cat on the upper half, an unsure thing of class 9, and one below any threshold; the best one last."""
    del image
    boxes = np.array([[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]], np.float32)
    return ImageDetections(boxes, np.array([0.01, 0.6, 0.9], np.float32), np.array([1, 9, 1], np.int32))


def save(path, height=60, width=80, **kwargs):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **kwargs)
    return path


def test_pictures_list_and_skipped_files(tmp_path):
    good, broken, gone = save(tmp_path / "a.png"), tmp_path / "b.jpg", tmp_path / "c.jpg"
    broken.write_bytes(b"no image")
    last = save(tmp_path / "d.png", 30, 20)
    out = tmp_path / "out"
    summary = detect_files(fixed_detector, [good, broken, gone, last], {1: "cat"}, out, DetectionLimits())
    assert summary.num_images == 2
    assert sorted(summary.skipped) == [str(broken), str(gone)]
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "d.png", "detections.json"]
    entries = json.loads((out / "detections.json").read_text())
    assert entries == summary.entries
    assert entries[0] == {
        "image_id": 1,
        "file_name": str(good),
        "category_id": 1,
        "category_name": "cat",
        "bbox": [0.0, 0.0, 80.0, 30.0],
        "score": 0.9,
    }
    assert entries[1]["category_name"] == "class 9"
    assert [entry["image_id"] for entry in entries] == [1, 1, 4, 4]
    drawn = np.asarray(Image.open(out / "a.png"))
    assert drawn.shape[0] / drawn.shape[1] == 60 / 80
    assert drawn.max() > 0


def test_masks_are_drawn_and_listed(tmp_path):
    def with_masks(image):
        # A ramp from 1 on the left to 0 on the right: the left half of each box is the object.
        return fixed_detector(image)._replace(masks=np.tile(np.float32([1, 0.5, 0]), [3, 4, 1]))

    out = tmp_path / "out"
    Image.new("RGB", (640, 480)).save(tmp_path / "black.png")
    detect_files(with_masks, [tmp_path / "black.png"], {1: "cat"}, out, DetectionLimits(0.7))
    [entry] = json.loads((out / "detections.json").read_text())
    expected = np.zeros((480, 640), np.uint8)
    expected[:240, :320] = 1  # the box is the upper half of the image
    np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), expected)
    drawn = np.asarray(Image.open(out / "black.png"))
    assert drawn[150, 200].any()
    assert not drawn[150, 400].any()


def overlapping_proposals(image):
    """Two masks that share 30 of their 40 columns, and a third beside them."""
    del image
    boxes = np.array([[0.0, 0.0, 1.0, 0.4], [0.0, 0.1, 1.0, 0.5], [0.0, 0.6, 1.0, 1.0]], np.float32)
    return ImageDetections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.ones(3, np.int32), np.ones((3, 4, 4)))


@pytest.mark.parametrize(("overlap", "drawn"), [(1.0, 3), (0.59, 2), (0.61, 3)])
def test_what_covers_a_better_one_is_listed_but_not_drawn(tmp_path, monkeypatch, overlap, drawn):
    pictures = []

    def remember(pixels, boxes_norm, labels, *rest, colours):
        pictures.append((boxes_norm, labels, colours))
        return Image.fromarray(pixels)

    monkeypatch.setattr("detzoo.detect.runner.draw_detections", remember)
    # 40 columns each, 30 in common: 30 / 50 = 0.6.
    limits = DetectionLimits(max_drawn_overlap=overlap)
    path = save(tmp_path / "a.png", 60, 100)
    summary = detect_files(overlapping_proposals, [path], {1: "object"}, tmp_path / "out", limits)
    assert len(summary.entries) == 3
    [(boxes_norm, labels, colours)] = pictures
    assert boxes_norm[-1, 1] == pytest.approx(0.6)
    assert len(boxes_norm) == len(labels) == len(set(colours)) == drawn
    # Of detectors without masks boxes count, of those with several classes each by itself; names say the colours.
    detect_files(
        lambda image: overlapping_proposals(image)._replace(masks=None, class_ids=np.array([1, 1, 2])),
        [path],
        {1: "cat", 2: "dog"},
        tmp_path / "boxes",
        limits,
    )
    assert len(pictures[1][0]) == drawn
    assert pictures[1][2] is None
    detect_files(
        lambda image: overlapping_proposals(image)._replace(class_ids=np.array([1, 2, 1])),
        [path],
        {1: "cat", 2: "dog"},
        tmp_path / "classes",
        limits,
    )
    assert len(pictures[2][0]) == 3


def test_threshold_and_number_of_boxes():
    found = fixed_detector(None)
    np.testing.assert_array_equal(apply_limits(found, DetectionLimits(0.0, 9)).class_ids, [1, 9, 1])
    np.testing.assert_allclose(apply_limits(found, DetectionLimits(0.7, 9)).scores, [0.9])
    np.testing.assert_allclose(apply_limits(found, DetectionLimits(0.0, 1)).boxes_norm, [[0, 0, 0.5, 1]])


def test_images_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert read_upright(save(tmp_path / "turned.jpg", exif=exif)).shape == (80, 60, 3)


@pytest.fixture(scope="module", params=list(INPUT_SPECS))
def exported(request, toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    label_map = 'item { id: 1 name: "cat" }\n'
    export_detector(toy.toy_detector(), toy.ToyResizer(), folder, request.param, Export("", label_map))
    return folder


def test_exports_of_every_input_type_detect(exported, toy):
    detector = SavedDetector(exported)
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    found = detector(image)
    assert found.masks is None
    expected = SavedDetector(exported / "saved_model" / "saved_model.pb").outputs(detector.as_input(image, 2))
    for row in range(2):
        np.testing.assert_allclose(found.boxes_norm, expected["detection_boxes"][row], atol=1e-5)
    assert found.class_ids.min() >= 1
    names = label_map_beside(detector.folder)
    assert names is not None
    assert names.names == {1: "cat"}


def test_a_saved_model_with_masks(toy, tmp_path):
    export_detector(toy.toy_detector(kind=toy.ToyMaskDetector), toy.ToyResizer(), tmp_path, "image_tensor", Export())
    found = SavedDetector(tmp_path)(np.zeros((50, 90, 3), np.uint8))
    np.testing.assert_array_equal(found.masks, np.tile(np.float32([1, 0.5, 0]), [5, 3, 1]))
    kept = apply_limits(found, DetectionLimits(0.0, 2))
    assert kept.masks.shape == (2, 3, 3)


def test_what_is_no_detector_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        find_saved_model(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no saved_model.pb \(it is empty\)"):
        find_saved_model(tmp_path)
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=module.double)
    with pytest.raises(UsageError, match=r"not a detector: .* it has y"):
        SavedDetector(tmp_path / "other")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="cannot be loaded"):
        SavedDetector(tmp_path / "broken")


def test_pictures_of_images_of_the_same_name_are_kept_apart():
    images = [pathlib.Path(name) for name in ("one/a.jpg", "two/a.jpg", "two/a.png", "A.jpg", "b.jpg")]
    assert picture_names(images) == ["a.png", "a_2.png", "a_3.png", "A_4.png", "b.png"]
