"""Detection on files: thresholds, skipped files, the list, and exported models of every input type."""

from __future__ import annotations

import json
import os
import pathlib
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from detzoo.errors import UsageError
from detzoo.export.exporter import Export, export_detector
from detzoo.files.images import read_upright
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.saved_detector import SavedDetector, find_saved_model, label_map_beside
from detzoo.serving.served import INPUT_SPECS
from detzoo.tasks import detect_files as module
from detzoo.tasks.detect_files import DetectionOutputs, picture_names
from detzoo.tasks.detect_images import DetectionLimits, apply_limits
from detzoo.tasks.detect_journal import JOURNAL_FILE


def fixed_detector(image):
    """A sure cat on the upper half, an unsure thing of class 9, and one below any threshold; the best one last."""
    del image
    boxes = np.array([[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]], np.float32)
    return ImageDetections(boxes, np.array([0.01, 0.6, 0.9], np.float32), np.array([1, 9, 1], np.int32))


class Calling(ImageDetector):
    """Detector that calls a function."""

    def __init__(self, function):
        self._function = function

    def __call__(self, image):
        return self._function(image)


def detect_files(function, *arguments, **options):
    return module.detect_files(Calling(function), *arguments, **options)


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


class Stopping:
    """A detector that a signal stops at its n-th image."""

    def __init__(self, at, error=None):
        self.at, self.error, self.seen = at, error or KeyboardInterrupt("stopped"), []

    def __call__(self, image):
        self.seen.append(image.shape)
        if len(self.seen) == self.at:
            raise self.error
        return fixed_detector(image)


@pytest.fixture
def four(tmp_path):
    """Images of different sizes, the second of them broken."""
    files = [save(tmp_path / f"{number}.png", 30 + number, 40) for number in range(4)]
    files[1].write_bytes(b"no image")
    return files


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_a_run_that_was_stopped_loses_nothing_and_goes_on(four, tmp_path, error, caplog):
    out, stopping = tmp_path / "out", Stopping(3, error("stopped"))
    with pytest.raises(error, match="stopped"):
        detect_files(stopping, four, {1: "cat"}, out, DetectionLimits())
    assert [entry["image_id"] for entry in json.loads((out / "detections.json").read_text())] == [1, 1, 3, 3]
    assert "2 of 4 images are done; the same command resumes there" in caplog.text
    going_on = Stopping(99)
    summary = detect_files(going_on, four, {1: "cat"}, out, DetectionLimits())
    assert going_on.seen == [(33, 40, 3)], "the last image alone; the broken one is tried again and skipped"
    assert (summary.num_images, list(summary.skipped)) == (3, [str(four[1])])
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "2.png", "3.png", "detections.json"]
    together = (out / "detections.json").read_text()
    detect_files(fixed_detector, four, {1: "cat"}, tmp_path / "at_once", DetectionLimits())
    assert together == (tmp_path / "at_once" / "detections.json").read_text()


def test_a_process_that_was_killed_goes_on_behind_its_last_whole_line(four, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        detect_files(Stopping(3), four, {1: "cat"}, out, DetectionLimits())
    with (out / JOURNAL_FILE).open("ab") as file:
        file.write(b'{"image": ["x", 1, \xff')  # a line that was cut off
    (out / "detections.json").unlink()  # it is written every few seconds only
    (out / ".3.png.part").write_bytes(b"half of a picture")
    going_on = Stopping(99)
    detect_files(going_on, four, {1: "cat"}, out, DetectionLimits())
    assert going_on.seen == [(33, 40, 3)]
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "2.png", "3.png", "detections.json"]
    assert len(json.loads((out / "detections.json").read_text())) == 6


@pytest.mark.parametrize("change", ["names", "threshold", "model", "image", "picture"])
def test_what_changed_is_detected_on_again(four, tmp_path, change):
    out, names, limits, made_with = tmp_path / "out", {1: "cat"}, DetectionLimits(), {"model": 1}
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        detect_files(Stopping(3), four, names, out, limits, made_with=made_with)
    if change == "names":
        names = {1: "dog"}
    elif change == "threshold":
        limits = DetectionLimits(0.7)
    elif change == "model":
        made_with = {"model": 2}
    elif change == "image":
        save(four[0], 50, 40)
    else:
        (out / "0.png").unlink()
    going_on = Stopping(99)
    detect_files(going_on, four, names, out, limits, made_with=made_with)
    again = {"image": [(50, 40, 3)], "picture": [(30, 40, 3)]}.get(change, [(30, 40, 3), (32, 40, 3)])
    assert going_on.seen == [*again, (33, 40, 3)]


def test_the_list_is_written_as_it_grows(four, tmp_path, monkeypatch):
    def write(summary, *arguments):
        write_list(summary, *arguments)
        seen.append(len(summary.entries))
        assert seen[-1] == summary.num_detections == 2 * summary.num_images

    seen, write_list = [], module._write_list
    monkeypatch.setattr("detzoo.tasks.detect_files.LIST_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr("detzoo.tasks.detect_files._LIST_TIME_SHARE", 1e9)
    monkeypatch.setattr("detzoo.tasks.detect_files._write_list", write)
    detect_files(fixed_detector, four, {}, tmp_path / "out", DetectionLimits())
    assert len(seen) == 5, "once behind each image and at the end"
    assert seen == sorted(seen)
    assert seen[-1] == 6


def test_an_image_that_the_model_fails_on_costs_itself_alone(four, tmp_path):
    failing = Stopping(1, tf.errors.InvalidArgumentError(None, None, "output dimensions must be positive\nmore"))
    summary = detect_files(failing, four, {}, tmp_path / "out", DetectionLimits())
    assert summary.num_images == 2
    assert summary.skipped[str(four[0])] == "the model fails on 40 x 30 pixels: output dimensions must be positive"


def test_names_of_pictures_fit_and_thousands_of_equal_ones_take_no_time():
    started = time.process_time()
    names = picture_names([pathlib.Path(f"{number}/a.jpg") for number in range(20_000)])
    assert time.process_time() - started < 2.0  # by trying each number from 2 on: a minute
    assert (names[0], names[1], names[-1], len(set(names))) == ("a.png", "a_2.png", "a_20000.png", 20_000)
    long = picture_names([pathlib.Path("\N{CJK UNIFIED IDEOGRAPH-732B}" * 85)] * 2)
    assert len(set(long)) == 2
    assert max(len(os.fsencode(name)) for name in long) <= 255


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
    """Returns two masks that share 30 of their 40 columns, and a third mask next to them."""
    del image
    boxes = np.array([[0.0, 0.0, 1.0, 0.4], [0.0, 0.1, 1.0, 0.5], [0.0, 0.6, 1.0, 1.0]], np.float32)
    return ImageDetections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.ones(3, np.int32), np.ones((3, 4, 4)))


@pytest.mark.parametrize(("overlap", "drawn"), [(1.0, 3), (0.59, 2), (0.61, 3)])
def test_what_covers_a_better_one_is_listed_but_not_drawn(tmp_path, monkeypatch, overlap, drawn):
    pictures = []

    def remember(pixels, boxes_norm, labels, *rest, colours, fonts, keypoints, keypoint_edges):
        assert keypoints is None
        assert keypoint_edges == ()
        pictures.append((boxes_norm, labels, colours))
        return Image.fromarray(pixels)

    monkeypatch.setattr("detzoo.datasets.drawing.draw_detections", remember)
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
    with pytest.raises(UsageError, match=r"no saved_model.pb \(an empty folder\)"):
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


def test_crops_are_the_parts_of_the_image_in_the_boxes(tmp_path):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:30, :, 0] = 200  # the cat's half
    images = []
    for folder in ("one", "two"):  # two images of one name
        images.append(tmp_path / folder / "a.png")
        images[-1].parent.mkdir()
        Image.fromarray(pixels).save(images[-1])
    outputs = DetectionOutputs(pictures=False, crops=True)
    out = tmp_path / "out"
    detect_files(fixed_detector, images, {1: "cat", 9: "a/b: c"}, out, DetectionLimits(), outputs=outputs)
    crops = {str(file.relative_to(out / "crops")): np.asarray(Image.open(file)) for file in out.rglob("*.jpg")}
    assert sorted(crops) == ["a_b_ c/a_2.jpg", "a_b_ c/a_2_2.jpg", "cat/a_1.jpg", "cat/a_2_1.jpg"]
    assert crops["cat/a_1.jpg"].shape == (30, 80, 3)
    np.testing.assert_allclose(crops["cat/a_1.jpg"].mean(axis=(0, 1)), [200, 0, 0], atol=2)
    assert sorted(file.name for file in out.iterdir()) == ["crops", "detections.json"], "no pictures"


def test_a_box_outside_of_the_image_has_a_crop_of_a_pixel(tmp_path):
    boxes = np.array([[0.5, 0.5, 0.5, 0.5], [-0.2, 0.9, 1.3, 1.4]], np.float32)
    found = ImageDetections(boxes, np.array([0.9, 0.8], np.float32), np.array([1, 1], np.int32))
    outputs = DetectionOutputs(crops=True)
    image = save(tmp_path / "a.png", 60, 80)
    detect_files(lambda _: found, [image], {1: "cat"}, tmp_path / "out", DetectionLimits(), outputs=outputs)
    sizes = [Image.open(tmp_path / "out" / "crops" / "cat" / f"a_{number}.jpg").size for number in (1, 2)]
    assert sizes == [(1, 1), (8, 60)]


def test_label_files_are_written_at_the_end_of_a_resumed_run(four, tmp_path):
    out, outputs = tmp_path / "out", DetectionOutputs(formats=["yolo", "csv"], root=tmp_path)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        detect_files(Stopping(3), four, {1: "cat"}, out, DetectionLimits(), outputs=outputs)
    assert not (out / "yolo").exists()
    # Label files are made of what was found, so other formats detect nothing again.
    going_on, outputs = Stopping(99), DetectionOutputs(formats=["yolo", "voc"], root=tmp_path)
    detect_files(going_on, four, {1: "cat"}, out, DetectionLimits(), outputs=outputs)
    assert going_on.seen == [(33, 40, 3)]
    assert sorted(file.name for file in (out / "yolo/labels").iterdir()) == ["0.txt", "2.txt", "3.txt"]
    assert sorted(file.name for file in (out / "voc").iterdir()) == ["0.xml", "2.xml", "3.xml"]
    assert not (out / JOURNAL_FILE).exists()


def test_a_full_disk_loses_nothing(four, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("detzoo.tasks.detect_files.write_labels", full)
        with pytest.raises(OSError, match="No space left"):
            detect_files(Stopping(99), four, {}, out, DetectionLimits(), outputs=DetectionOutputs(formats=["csv"]))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        (out / "0.png").unlink()
        with pytest.raises(OSError, match="No space left"):
            detect_files(Stopping(99), four, {}, out, DetectionLimits())
        assert not (out / "0.png").exists()
    going_on = Stopping(99)
    detect_files(going_on, four, {}, out, DetectionLimits())
    assert going_on.seen == [(30, 40, 3)], "the picture that could not be written, nothing else"
    assert len(json.loads((out / "detections.json").read_text())) == 6


def test_batches_give_what_single_images_give(four, tmp_path):
    sizes = []

    class Batches(Calling):
        def detect_all(self, images, proposals_norm=()):
            sizes.append(len(images))
            return super().detect_all(images, proposals_norm)

    four.append(save(tmp_path / "4.png", 90, 40))
    single = detect_files(fixed_detector, four, {1: "cat"}, tmp_path / "single", DetectionLimits())
    detector, limits = Batches(fixed_detector), DetectionLimits()
    together = module.detect_files(detector, four, {1: "cat"}, tmp_path / "out", limits, batch_size=3)
    assert together.entries == single.entries
    # The broken image takes a place of the first batch of three.
    assert sizes == [2, 2]
    assert together.skipped == single.skipped


def test_memory_holds_what_few_images_found(tmp_path):
    alive, references = [], []

    def remembered(image):
        found = fixed_detector(image)
        references.append(weakref.ref(found.boxes_norm))
        alive.append(sum(reference() is not None for reference in references))
        return found

    files = [save(tmp_path / f"{number}.png", 8, 8) for number in range(100)]
    detect_files(remembered, files, {}, tmp_path / "out", DetectionLimits(), outputs=DetectionOutputs(pictures=False))
    # In flight are four images per thread that saves, one that was saved, and the one that is detected on.
    assert max(alive) <= 4 * os.cpu_count() + 2


def test_an_old_journal_costs_its_own_images_alone(four, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        detect_files(Stopping(3), four, {1: "cat"}, out, DetectionLimits())
    save(four[0], 50, 40)
    four[2].unlink()
    going_on = Stopping(99)
    summary = detect_files(going_on, four, {1: "cat"}, out, DetectionLimits())
    assert going_on.seen == [(50, 40, 3), (33, 40, 3)]
    assert set(summary.skipped) == {str(four[1]), str(four[2])}
    assert [entry["image_id"] for entry in summary.entries] == [1, 1, 4, 4], "nothing of an image that is gone"
