"""Label files of detections: each format by its own rules, and read back by the importers."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from detzoo.datasets.import_csv import read_csv
from detzoo.datasets.import_labelme import read_labelme
from detzoo.datasets.import_voc import read_voc
from detzoo.datasets.import_yolo import has_masks, read_yolo
from detzoo.datasets.label_writer import FORMATS, LabeledImage, write_labels
from detzoo.evaluate.masks import encode_mask
from detzoo.files.issues import IssueLog

SHAPE = (80, 120)  # height, width
NAMES = {1: "cat", 4: 'R&D <"dog">, big', 7: "\N{CJK UNIFIED IDEOGRAPH-732B}"}
# x, y, width, height in pixels: on three sides of the image, in fractions of pixels, and a speck.
BOXES = {
    "one/a.jpg": [(1, [0.0, 0.0, 120.0, 48.4]), (4, [10.4, 20.6, 30.2, 40.3])],
    "two/a.jpg": [(7, [60.0, 30.0, 0.4, 0.3])],
    "two/b.jpg": [],
    "c.jpg": [(4, [99.5, 60.0, 20.5, 20.0])],
}


def detection(class_id, box, **more):
    name = NAMES.get(class_id, f"class {class_id}")
    return {"image_id": 1, "category_id": class_id, "category_name": name, "bbox": box, "score": 0.75, **more}


@pytest.fixture
def labeled(tmp_path):
    """Images in two folders, two of them of one name, with their detections."""
    images = []
    for relative, boxes in BOXES.items():
        path = tmp_path / "photos" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SHAPE[::-1]).save(path)
        images.append(LabeledImage(path, relative, SHAPE, [detection(*each) for each in boxes]))
    return images


def read_back(name, photos, out):
    """Reads label files with the importer of their format; returns the images by their names."""
    log = IssueLog()
    read = {
        "yolo": lambda: read_yolo(photos, out / "yolo/labels", str(out / "yolo/data.yaml"), log),
        "voc": lambda: read_voc(photos, out / "voc", log),
        "csv": lambda: read_csv(photos, str(out / "detections.csv"), log),
        "labelme": lambda: read_labelme(photos, out / "labelme", log),
    }[name]()
    assert log.table() == "no data issues found"
    return {image.filename: image for image in read.images}


@pytest.mark.parametrize("name", FORMATS)
def test_the_importer_reads_the_same_boxes_of_the_same_images(labeled, tmp_path, name):
    write_labels(iter(labeled), [name, name], tmp_path, NAMES)
    read = read_back(name, tmp_path / "photos", tmp_path)
    assert set(read) == set(BOXES)
    for relative, boxes in BOXES.items():
        objects = read[relative].objects
        assert [item.class_name for item in objects] == [NAMES[class_id] for class_id, _ in boxes]
        scale = np.tile(SHAPE, 2) if name == "yolo" else 1
        for item, (_, (x, y, width, height)) in zip(objects, boxes):
            # VOC has whole pixels from 1, and no box without area.
            tolerance = {"voc": 1.0, "yolo": 1e-4}.get(name, 1e-6)
            np.testing.assert_allclose(np.array(item.box) * scale, [y, x, y + height, x + width], atol=tolerance)


def test_yolo_lines_are_centres_and_sizes_of_classes_from_0(labeled, tmp_path):
    labeled.append(labeled[-1]._replace(relative="d.jpg", detections=[detection(9, [30, 20, 60, 40])]))
    write_labels(labeled, ["yolo"], tmp_path, NAMES)
    labels = tmp_path / "yolo" / "labels"
    # Centre (60, 24.2) and size 120 x 48.4 of 120 x 80; the second of three classes has index 1.
    assert (labels / "one/a.txt").read_text().splitlines() == [
        "0 0.500000 0.302500 1.000000 0.605000",
        "1 0.212500 0.509375 0.251667 0.503750",
    ]
    assert (labels / "two/b.txt").read_text() == ""
    assert (labels / "d.txt").read_text() == "3 0.500000 0.500000 0.500000 0.500000\n", "an id without a name"
    names = (tmp_path / "yolo/classes.txt").read_text(encoding="utf-8").splitlines()
    assert names == [*NAMES.values(), "class 9"]


def test_voc_has_the_tags_of_its_annotations_and_pixels_from_1(labeled, tmp_path):
    write_labels(labeled, ["voc"], tmp_path, NAMES)
    root = ElementTree.parse(tmp_path / "voc/one/a.xml").getroot()
    tags = ["folder", "filename", "path", "source", "size", "segmented", "object", "object"]
    assert [child.tag for child in root] == tags
    assert (root.findtext("folder"), root.findtext("filename")) == ("one", "a.jpg")
    assert [child.text for child in root.find("size")] == ["120", "80", "3"]
    first = root.find("object")
    assert [child.tag for child in first] == ["name", "pose", "truncated", "difficult", "bndbox"]
    corners = {child.tag: int(child.text) for child in first.find("bndbox")}
    assert corners == {"xmin": 1, "ymin": 1, "xmax": 120, "ymax": 48}


def test_csv_has_a_row_for_each_detection_and_for_an_image_without_any(labeled, tmp_path):
    write_labels(labeled, ["csv"], tmp_path, NAMES)
    with (tmp_path / "detections.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == ["one/a.jpg", "one/a.jpg", "two/a.jpg", "two/b.jpg", "c.jpg"]
    assert list(rows[1].values()) == ["one/a.jpg", "120", "80", NAMES[4], "10.4", "20.6", "40.6", "60.9", "0.75"]
    assert set(list(rows[3].values())[3:]) == {""}


def test_labelme_names_the_image_by_its_way_from_the_file(labeled, tmp_path):
    write_labels(labeled, ["labelme"], tmp_path, NAMES)
    file = tmp_path / "labelme/two/a.json"
    content = json.loads(file.read_text())
    assert set(content) == {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert (file.parent / content["imagePath"]).samefile(tmp_path / "photos/two/a.jpg")
    [shape] = content["shapes"]
    assert shape["points"] == [[60.0, 30.0], [60.4, 30.3]]
    assert (shape["shape_type"], shape["label"]) == ("rectangle", NAMES[7])


@pytest.mark.parametrize("name", ["yolo", "labelme"])
def test_masks_become_outlines(labeled, tmp_path, name):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = (rows - 40) ** 2 + (columns - 60) ** 2 <= 30**2
    disc[5:7, 5:7] = True  # a smaller part of the mask, which the outline leaves out
    empty = np.zeros(SHAPE, bool)
    masks = [detection(1, [5, 5, 86, 66], segmentation=encode_mask(disc))]
    masks.append(detection(4, [10, 10, 20, 20], segmentation=encode_mask(empty)))
    write_labels([labeled[0]._replace(detections=masks)], [name], tmp_path, NAMES)
    log = IssueLog()
    if name == "yolo":
        annotations = read_yolo(tmp_path / "photos", tmp_path / "yolo/labels", str(tmp_path / "yolo/data.yaml"), log)
        assert has_masks(annotations)
    else:
        annotations = read_labelme(tmp_path / "photos", tmp_path / "labelme", log)
    image = next(image for image in annotations.images if image.filename == "one/a.jpg")
    outlined, boxed = image.objects
    drawn = outlined.mask(*SHAPE) > 0
    assert (drawn & disc).sum() / (drawn | disc).sum() > 0.95
    assert boxed.mask is None, "an empty mask leaves the box"


def test_two_images_of_one_stem_in_a_folder_are_kept_apart(labeled, tmp_path, caplog):
    twin = labeled[0].path.with_suffix(".png")
    Image.new("RGB", SHAPE[::-1]).save(twin)
    images = [labeled[0], LabeledImage(twin, "one/a.png", SHAPE, labeled[3].detections)]
    write_labels(images, FORMATS, tmp_path, NAMES)
    for name in ("voc", "csv", "labelme"):
        read = read_back(name, tmp_path / "photos", tmp_path)
        assert [len(read[image.relative].objects) for image in images] == [2, 1], name
    # YOLO finds the file of an image by its name without extension.
    assert caplog.messages == [f"{twin} has no YOLO labels: another image in its folder has this name"]
    assert len((tmp_path / "yolo/labels/one/a.txt").read_text().splitlines()) == 2


def test_nothing_is_half_written(labeled, tmp_path):
    def stopping():
        yield labeled[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_labels(stopping(), FORMATS, tmp_path, NAMES)
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert {name for name in files if not name.startswith("photos")} == {
        "yolo/labels/one/a.txt",
        "voc/one/a.xml",
        "labelme/one/a.json",
    }
