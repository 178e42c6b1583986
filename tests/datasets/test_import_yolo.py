"""YOLO folders: boxes and outlines in fractions, class names, nested folders, bad lines."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from PIL import Image, ImageDraw

from detzoo.config.label_map import load_label_map
from detzoo.datasets.conversion import convert
from detzoo.datasets.import_yolo import has_masks, read_class_names, read_yolo
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue, IssueLog


@pytest.fixture
def folder(tmp_path, images):
    """``label(name, text)`` writes a text file, ``read()`` reads the folders."""
    for name in ("train/a.png", "train/deep/b.png", "val/a.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode(images.scene()))
    (tmp_path / "images" / "notes.md").write_text("not an image")
    (tmp_path / "names.txt").write_text("cat\nbig dog\nant\n\n")

    class Folder:
        def label(self, name, content):
            path = tmp_path / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

        def read(self):
            log = IssueLog()
            where = (str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "names.txt"))
            return read_yolo(*where, log), log

    return Folder()


def found(log):
    return [tuple(finding) for finding in log.findings()]


def test_records_worked_by_hand(tmp_path, images, folder):
    # Centre x 20 of 40, centre y 10 of 24, width 20 of 40, height 8 of 24: y 6..14, x 10..30.
    folder.label("train/a", f"1 0.5 {10 / 24} 0.5 {8 / 24}\n\n2 0.5 0.5 1 1")
    folder.label("train/deep/b", "0 0.25 0.25 0.5 0.5\r\n")
    read, log = folder.read()
    assert not has_masks(read)
    convert(read, str(tmp_path / "out/train"), num_shards=1, log=log)
    first, nested, without = images.read_records(tmp_path / "out/train")
    assert (first["image/filename"], nested["image/filename"]) == ([b"train/a.png"], [b"train/deep/b.png"])
    np.testing.assert_allclose(first["boxes"], [(6 / 24, 10 / 40, 14 / 24, 30 / 40), (0, 0, 1, 1)], atol=1e-7)
    assert (first["class/text"], first["class/label"]) == ([b"big dog", b"ant"], [2, 3])
    np.testing.assert_allclose(nested["boxes"], [(0, 0, 0.5, 0.5)], atol=1e-7)
    assert nested["class/label"] == [1], "class 0 has id 1"
    assert (without["image/filename"], without["boxes"]) == ([b"val/a.png"], [])
    assert load_label_map(tmp_path / "out/label_map.pbtxt").names == {1: "cat", 2: "big dog", 3: "ant"}
    assert log.counts() == {DataIssue.NO_BOXES: 1}


def test_outlines_become_boxes_and_masks(tmp_path, images, folder):
    folder.label("train/a", f"0 0.25 0.25 0.75 0.25 0.75 {14 / 24} 0.25 {14 / 24}\n")
    folder.label("val/a", "1 0.5 0.1 0.9 0.9 0.1 0.9")
    read, log = folder.read()
    assert has_masks(read)
    convert(read, str(tmp_path / "out/train"), num_shards=1, with_masks=True, log=log)
    square, _, triangle = images.read_records(tmp_path / "out/train")
    # x 10..30 of 40 and y 6..14 of 24 are whole pixels: the rectangle of the picture.
    np.testing.assert_array_equal(images.decode(square["mask"][0]), images.scene()[..., 0] > 100)
    np.testing.assert_allclose(square["boxes"], [(6 / 24, 10 / 40, 14 / 24, 30 / 40)], atol=1e-7)
    assert square["area"] == [160.0]
    np.testing.assert_allclose(triangle["boxes"], [(0.1, 0.1, 0.9, 0.9)], atol=1e-7)
    # Pillow draws the same triangle (20, 2.4), (36, 21.6), (4, 21.6) ten times as large; COCO's rounding of its 82
    # pixels of border may differ by up to a quarter of a pixel each.
    drawn = Image.new("L", (400, 240))
    ImageDraw.Draw(drawn).polygon([(200, 24), (360, 216), (40, 216)], fill=1)
    expected = np.asarray(drawn).reshape(24, 10, 40, 10).mean((1, 3))
    mask = images.decode(triangle["mask"][0])
    assert np.abs(mask - expected).max() <= 0.75
    assert abs(mask.sum() - 32 * 19.2 / 2) < 82 / 4
    assert log.counts() == {DataIssue.NO_BOXES: 1}


def test_an_outline_beyond_the_image_is_cut_off(tmp_path, images, folder):
    folder.label("train/a", "0 -0.5 -0.5 0.5 -0.5 0.5 0.5 -0.5 0.5 -0.5 0")
    read, log = folder.read()
    convert(read, str(tmp_path / "out/train"), num_shards=1, with_masks=True, log=log)
    record = images.read_records(tmp_path / "out/train")[0]
    expected = np.zeros((24, 40), np.uint8)
    expected[:12, :20] = 1
    np.testing.assert_array_equal(images.decode(record["mask"][0]), expected)
    np.testing.assert_allclose(record["boxes"], [(0, 0, 0.5, 0.5)], atol=1e-7)
    assert log.counts()[DataIssue.BOX_CLIPPED] == 1


@pytest.mark.parametrize(
    ("line", "issue", "detail"),
    [
        ("3 0.5 0.5 1 1", DataIssue.CLASS_WITHOUT_NAME, "class 3 of 3"),
        ("-1 0.5 0.5 1 1", DataIssue.CLASS_WITHOUT_NAME, "class -1 of 3"),
        ("1.5 0.5 0.5 1 1", DataIssue.ANNOTATION_UNREADABLE, "class 1.5 is not a whole number"),
        ("nan 0.5 0.5 1 1", DataIssue.ANNOTATION_UNREADABLE, "class nan is not a whole number"),
        ("cat 0.5 0.5 1 1", DataIssue.ANNOTATION_UNREADABLE, "not numbers: cat 0.5 0.5 1 1"),
        (
            "1 0.5 0.5 1",
            DataIssue.ANNOTATION_UNREADABLE,
            "3 numbers behind the class; accepted are 4, pairs of 6 or more",
        ),
        ("1 12 9 20 8", DataIssue.ANNOTATION_UNREADABLE, "20 is no fraction of the image"),
        ("1 0.5,0.5,1,1", DataIssue.ANNOTATION_UNREADABLE, "not numbers: 1 0.5,0.5,1,1"),
    ],
)
def test_a_bad_line_is_skipped_with_its_number(folder, line, issue, detail):
    folder.label("train/a", f"0 0.5 0.5 1 1\n{line}\n1 0.5 0.5 1 1\n")
    read, log = folder.read()
    assert [item.class_name for item in read.images[0].objects] == ["cat", "big dog"]
    ((seen, where, shown),) = found(log)
    assert (seen, where) == (issue, "train/a.txt:2")
    assert shown.startswith(detail)


@pytest.mark.parametrize("values", ["nan 0.5 1 1", "0.5 0.5 0 1", "nan 0.5 0.5 0.5 0.2 0.9"])
def test_a_box_or_outline_with_nan_or_without_area_is_skipped(tmp_path, images, folder, values):
    folder.label("train/a", f"0 {values}\n")
    folder.label("val/a", "0 0.5 0.5 1 1\n")
    read, log = folder.read()
    convert(read, str(tmp_path / "out/train"), num_shards=1, with_masks=True, log=log)
    assert images.read_records(tmp_path / "out/train")[0]["boxes"] == []
    expected = DataIssue.BOX_NOT_FINITE if "nan" in values else DataIssue.BOX_WITHOUT_AREA
    assert [finding.where for finding in log.findings(expected)] == ["train/a.txt:1"]


def test_a_text_file_that_is_no_text_skips_its_image(folder):
    # Its objects are unknown, so the image must not become one without objects.
    folder.label("train/a", b"\xff\xfe\x00")
    folder.label("val/a", "0 0.5 0.5 1 1")
    read, log = folder.read()
    assert [image.filename for image in read.images] == ["train/deep/b.png", "val/a.png"]
    assert [(finding.issue, finding.where) for finding in log.findings()] == [
        (DataIssue.ANNOTATION_FILE_UNREADABLE, "train/a.txt")
    ]


def test_a_text_file_without_an_image_is_reported(folder):
    folder.label("train/a", "0 0.5 0.5 1 1")
    folder.label("train/gone", "0 0.5 0.5 1 1")
    folder.label("classes", "cat\ndog")  # annotation tools write this file into the folder of labels
    _, log = folder.read()
    assert found(log) == [(DataIssue.ANNOTATION_WITHOUT_IMAGE, "train/gone.txt", "")]


@pytest.mark.parametrize(
    "text",
    [
        "names: [cat, big dog, 3]\nnc: 3\n",
        "names:\n  - cat\n  - big dog\n  - 3\n",
        """path: .
names:
  0: cat
  2: 3
  1: big dog
""",
        "\ufeffnames: {0: cat, 1: big dog, 2: 3}\n",
    ],
)
def test_names_of_a_data_yaml(tmp_path, text):
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_class_names(str(path), IssueLog()).names == ["cat", "big dog", "3"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("names.txt", "", "has no class names; one per line, or `names:`"),
        ("names.txt", "cat\n\ndog\n", "class 1 has an empty name"),
        ("names.txt", "cat\ndog\ncat\n", "'cat' is the name of class 0 and of class 2"),
        ("data.yaml", "nc: 3\n", "has no `names:` with a list or with ids and names"),
        ("data.yaml", "- cat\n", "has no `names:`"),
        ("data.yaml", "names: {1: cat, 2: dog}", r"has the ids \[1, 2\] in `names:`; 0 to 1 without gaps"),
        ("data.yml", "names: [cat\n", r"data\.yml: not YAML: (?s:.*)line 2"),
        ("data.yaml", "names: []", "has no class names"),
    ],
)
def test_names_that_cannot_be_used(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_names(str(tmp_path / name), IssueLog())


def test_missing_folders_and_files(tmp_path, folder):
    names = str(tmp_path / "names.txt")
    with pytest.raises(UsageError, match=r"--labels_dir .*labels is not a folder"):
        folder.read()
    folder.label("other/x", "0 0.5 0.5 1 1")
    with pytest.raises(DataError, match=r"no text file for any of 3 images in .*; .*labels/train/a\.txt, for one, is"):
        folder.read()
    with pytest.raises(UsageError, match=r"--images_dir .*none is not a folder"):
        read_yolo(str(tmp_path / "none"), str(tmp_path / "labels"), names, IssueLog())
    with pytest.raises(DataError, match=r"--images_dir .*labels has no image; known extensions are \.jpg"):
        read_yolo(str(tmp_path / "labels"), str(tmp_path / "labels"), names, IssueLog())
    with pytest.raises(UsageError, match=r"--class_names none\.txt is not there"):
        read_class_names("none.txt", IssueLog())


@pytest.mark.shared
def test_the_outlines_of_real_images_lie_in_their_boxes(tmp_path, shared):
    # The same objects of COCO, once as boxes and once as outlines, by the publisher of the sample.
    data = shared / "data" / "coco128"
    log = IssueLog()
    boxes = read_yolo(str(data / "images"), str(data / "labels"), str(data / "config.yaml"), log)
    assert len(boxes.images) == 128
    assert len(boxes.class_names) == 80
    assert boxes.class_names[1] == "person"
    assert sum(len(image.objects) for image in boxes.images) > 900
    assert [image.filename for image in boxes.images if not image.objects] == ["000000000250.jpg", "000000000508.jpg"]
    unknown = [(DataIssue.ANNOTATION_WITHOUT_IMAGE, f"000000000{number}.txt", "") for number in (656, 659)]
    assert found(log) == unknown, "the sample holds 128 images and 128 text files, but not the same ones"
    # The text files of outlines number the classes as COCO does, 1 to 90; one name an id keeps them all.
    (tmp_path / "ids.txt").write_text("\n".join(f"id {number}" for number in range(91)))
    outlines = read_yolo(str(data / "images"), str(data / "polygons"), str(tmp_path / "ids.txt"), IssueLog())
    assert has_masks(outlines)
    names_of_id: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    num_objects = 0
    for with_boxes, with_outlines in zip(boxes.images, outlines.images):
        assert with_boxes.filename == with_outlines.filename
        for item in with_outlines.objects:
            num_objects += 1
            for other in with_boxes.objects:
                if np.abs(np.subtract(other.box, item.box)).max() < 0.005:
                    names_of_id[item.class_name][other.class_name] += 1
    assert num_objects > 500
    num_found = sum(names.total() for names in names_of_id.values())
    num_agreeing = sum(names.most_common(1)[0][1] for names in names_of_id.values())
    # An object in several pieces has one line per piece, whose box is only a part of the object's box.
    assert num_found / num_objects > 0.9
    assert num_agreeing / num_found > 0.95
    assert names_of_id["id 51"].most_common(1)[0][0] == "bowl"
