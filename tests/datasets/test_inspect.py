"""Tests of ``inspect`` on hand-made records: counts, histograms, data issues, files and drawn samples."""

from __future__ import annotations

import csv
import hashlib
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.config.label_map import LabelMap
from detzoo.datasets import record_writer
from detzoo.datasets.annotations import AnnotatedObject
from detzoo.datasets.drawing import class_colour
from detzoo.datasets.inspect import inspect_records
from detzoo.datasets.record_check import check_record, parse_features
from detzoo.datasets.repair import RepairedObject
from detzoo.errors import DataError, UsageError
from detzoo.files.images import RepairedImage
from tests.page_elements import Page

LABEL_MAP = LabelMap({1: "cat", 2: "dog", 5: "unicorn"})
RED_NORM = (6 / 24, 10 / 40, 14 / 24, 30 / 40)


@pytest.fixture
def make(images):
    """A serialized record of the red rectangle; every call draws other pixels unless ``number`` is given."""
    numbers = iter(range(1000))

    def run(*objects, number=None, name="a b.png", size=(24, 40), with_masks=False):
        pixels = images.scene(*size)
        pixels[0, 0] = next(numbers) if number is None else number
        image = RepairedImage(images.encode(pixels), "png", size, 1, ())
        return record_writer.encode_example(image, name, name, objects, with_masks=with_masks)

    return run


def item(box=RED_NORM, name="cat", label=None, mask=None, **flags):
    class_id = LABEL_MAP.id_by_name.get(name, 1) if label is None else label
    repaired = RepairedObject(box, 0.0, mask, AnnotatedObject(box, name, "", **flags))
    return record_writer.LabelledObject(class_id, name, repaired)


def write(path: pathlib.Path, *records: bytes) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def rows(path: pathlib.Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def look(tmp_path):
    folder = tmp_path / "look"
    folder.mkdir()
    return folder


def test_counts_and_histograms_worked_by_hand(tmp_path, look, make):
    # In 40 x 24: the red box is 20 x 8, sqrt(160) = 12.6 pixels, sqrt(0.5 / 3) = 0.41 of the image, aspect 2.5. A box
    # of half of each side: 20 x 12, sqrt(240) = 15.5 pixels, 0.5 of the image, aspect 1.67. In 80 x 160 (height x
    # width) a whole image: sqrt(12800) = 113 pixels, 1.0, aspect 2.
    half = (0.0, 0.0, 0.5, 0.5)
    path = write(
        tmp_path / "train",
        make(item(), item(half, "dog", is_crowd=True)),
        make(item((0, 0, 1, 1), is_difficult=True), size=(80, 160)),
        make(),
    )
    report = inspect_records(path, LABEL_MAP, look, num_samples=2)
    lines = report.splitlines()
    assert lines[0].startswith("files:   1, 0.0 MiB: ")
    assert lines[1] == "images:  3 usable of 3 records"
    assert lines[2].strip() == "width 40 to 160 (median 40), height 24 to 80 (median 24) pixels"
    assert lines[3].strip() == "1 without objects; objects per image: 0 to 2 (median 1)"
    assert lines[4] == "objects: 3, of them crowd 1, difficult 1; masks 0"
    assert rows(look / "classes.csv") == [
        ["id", "name", "objects", "images"],
        ["1", "cat", "2", "2"],
        ["2", "dog", "1", "1"],
        ["5", "unicorn", "0", "0"],
    ]
    assert "without a single object: 1 classes of the label map (unicorn)" in report
    counts = {(title.split(",")[-1].split(":")[0], name): count for title, name, count in rows(look / "histograms.csv")}
    assert {key: count for key, count in counts.items() if count not in ("0", "objects")} == {
        (" pixels", "8 .. 16"): "2",
        (" pixels", "96 .. 128"): "1",
        (" fraction of the image", "0.4 .. 0.5"): "1",
        (" fraction of the image", "0.5 .. 0.6"): "1",
        (" fraction of the image", "0.9 .. 1"): "1",
        ("box aspect ratio", "1.5 .. 2"): "1",
        ("box aspect ratio", "2 .. 3"): "2",
    }
    assert (look / "report.txt").read_text() == report + "\n"


def test_the_images_of_a_sequence(tmp_path, look, make):
    frames = [tf.train.Example.FromString(make(item(), item(name="zebra"))), tf.train.Example.FromString(make())]
    sequence = tf.train.SequenceExample()
    names = {"image/encoded": "image/encoded", "region/label/string": "image/object/class/text"}
    names |= {f"region/bbox/{side}": f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")}
    for name, key in names.items():
        for frame in frames:
            sequence.feature_lists.feature_list[name].feature.add().CopyFrom(frame.features.feature[key])
    path = write(tmp_path / "train", sequence.SerializeToString(), make(item()))
    report = inspect_records(path, LABEL_MAP, look).splitlines()
    assert report[1] == "images:  3 usable of 3 records"
    assert report[4].startswith("objects: 2,")
    assert ["train: record 0, image 0", "zebra"] in [row[2:] for row in rows(look / "dirt.csv")]


def test_all_issues_are_found_with_their_place(tmp_path, look, images, make):
    first = write(
        tmp_path / "train-00000-of-00002",
        make(item(), number=200),
        b"",
        b"rubbish",
        make(item((float("nan"), 0, 1, 1)), item((0.5, 0.5, 0.2, 0.9)), item((0, 0, 0, 1)), item((0, 1, 1, 2))),
        make(item(name="zebra"), item(name="", label=3), item()),
        make(item(), number=200),
    )
    message = tf.train.Example.FromString(make(item()))
    del message.features.feature["image/object/bbox/xmin"]
    no_image = tf.train.Example.FromString(make(item()))
    del no_image.features.feature["image/encoded"]
    corrupt = tf.train.Example.FromString(make(item()))
    encoded = corrupt.features.feature["image/encoded"].bytes_list.value
    encoded[0] = encoded[0][:-40]
    second = tmp_path / "train-00001-of-00002"
    write(second, *(one.SerializeToString() for one in (message, no_image, corrupt)), make(item()))
    second.write_bytes(second.read_bytes()[:-10])
    report = inspect_records(str(tmp_path / "train-*"), LABEL_MAP, look)
    found = [
        (text, where.removeprefix(f"{tmp_path}/"), detail) for text, _, where, detail in rows(look / "dirt.csv")[1:]
    ]
    a, b = "train-00000-of-00002: record", "train-00001-of-00002: record"
    assert pathlib.Path(first).name == "train-00000-of-00002"
    assert found == [
        ("image is corrupt or truncated", f"{b} 2", "image file is truncated"),
        ("box with NaN or infinity", f"{a} 3", "ymin nan, xmin 0, ymax 1, xmax 1"),
        ("box without area", f"{a} 3", "ymin 0, xmin 0, ymax 0, xmax 1"),
        ("box entirely outside the image", f"{a} 3", "ymin 0, xmin 1, ymax 1, xmax 2"),
        ("box with minimum above maximum; swapped", f"{a} 3", "ymin 0.5, xmin 0.5, ymax 0.2, xmax 0.9"),
        ("class id without a name", f"{a} 4", "label 3"),
        ("class is not in the label map", f"{a} 4", "zebra"),
        ("TFRecord file ends within a record", "train-00001-of-00002", "3 whole records before it"),
        ("empty record", f"{a} 1", ""),
        ("record is not a tf.Example", f"{a} 2", found[9][2]),
        ("record without a required key", f"{b} 0", "image/object/bbox: ymin 1, xmin 0, ymax 1, xmax 1"),
        ("record without a required key", f"{b} 1", "image/encoded"),
        ("image that another record also has", f"{a} 5", f"as {a} 0"),
    ]
    assert "images:  4 usable of 9 records" in report
    assert "  rest of the file skipped (1)" in report
    assert f"             {a} 4: zebra" in report


def test_a_damaged_record_costs_that_record(tmp_path, look, make):
    path = pathlib.Path(write(tmp_path / "train", make(item()), make(item(), name="second"), make(item())))
    content = bytearray(path.read_bytes())
    content[content.index(b"second")] ^= 1
    path.write_bytes(bytes(content))
    report = inspect_records(str(path), LABEL_MAP, look)
    assert "2 usable of 2 records" in report
    assert rows(look / "dirt.csv")[1:] == [
        ["record's checksum does not match its data", "image skipped", f"{path}: record 1", ""]
    ]


def test_samples_are_drawn_with_the_boxes_on_their_objects(tmp_path, look, make):
    (look / "samples").mkdir()
    (look / "samples" / "007_old.png").touch()
    (look / "samples" / "mine.png").touch()
    mask = np.zeros((24, 40), np.uint8)
    mask[6:10, 10:30] = 1
    path = write(
        tmp_path / "train",
        make(name="empty.png"),
        make(item(mask=mask), name="dir/cats & dogs.png", with_masks=True),
    )
    inspect_records(path, LABEL_MAP, look, num_samples=5)
    names = sorted(sample.name for sample in (look / "samples").iterdir())
    assert names == ["000_cats_dogs.png", "001_empty.png", "mine.png"], "those with objects first, old ones removed"
    drawn = np.asarray(Image.open(look / "samples" / "000_cats_dogs.png")).astype(int)
    assert drawn.shape == (288, 480, 3)  # 12 times as large
    colour = np.array(class_colour("cat"))
    # The left and right border at half the height of the box: row 10 of 24, columns 10 and 30 of 40.
    for column in (10 * 12, 30 * 12):
        near = drawn[120, column - 4 : column + 4]
        assert (np.abs(near - colour).max(-1) <= 2).any()
    unmasked, masked = drawn[12 * 12, 20 * 12], drawn[8 * 12, 20 * 12]
    np.testing.assert_allclose(unmasked, (220, 30, 20), atol=3)
    assert np.abs(masked - colour).sum() < np.abs(unmasked - colour).sum()


def test_the_sample_is_the_same_each_time_and_not_the_beginning(tmp_path, look, make):
    path = write(tmp_path / "train", *(make(item(), name=f"{number:02d}") for number in range(40)))
    inspect_records(path, LABEL_MAP, look, num_samples=4)
    names = sorted(sample.name for sample in (look / "samples").iterdir())
    assert len(names) == 4
    assert names != [f"00{number}_{number:02d}.png" for number in range(4)]
    inspect_records(path, LABEL_MAP, look, num_samples=4)
    assert sorted(sample.name for sample in (look / "samples").iterdir()) == names
    inspect_records(path, LABEL_MAP, look, num_samples=0)
    assert list((look / "samples").iterdir()) == []


def test_every_named_file_is_written_and_the_picture_shows_something(tmp_path, look, make):
    inspect_records(write(tmp_path / "train", make(item())), None, look)
    assert sorted(path.name for path in look.iterdir()) == [
        "classes.csv",
        "dirt.csv",
        "histograms.csv",
        "histograms.png",
        "report.html",
        "report.txt",
        "samples",
    ]
    picture = np.asarray(Image.open(look / "histograms.png").convert("RGB"))
    assert min(picture.shape[:2]) >= 600
    assert 0.02 < (picture < 200).any(-1).mean() < 0.6
    assert rows(look / "dirt.csv") == [["dirt", "action", "where", "detail"]]


def test_the_page_shows_classes_issues_and_samples_and_names_stay_text(tmp_path, look, make):
    hostile = "<script>alert(1)</script>"
    inspect_records(write(tmp_path / "train", make(item(), item(name=hostile)), b""), None, look, num_samples=3)
    text = (look / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.problems == []
    assert [each["id"] for tag, each in page.elements if tag == "section"] == ["issues", "classes", "sizes", "samples"]
    assert "empty record" in page.texts["th"]
    assert hostile in page.texts["th"]
    assert len(page.attributes("img")) == 1
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in page.attributes("img"))
    assert len([each for each in page.attributes("script") if not each]) == 1  # the page's own


def test_records_without_objects_only(tmp_path, look, make):
    report = inspect_records(write(tmp_path / "train", make(), make()), None, look)
    assert "objects: 0, of them crowd 0" in report
    assert "2 without objects" in report


def test_only_unusable_records(tmp_path, look):
    report = inspect_records(write(tmp_path / "train", b"", b""), LABEL_MAP, look)
    assert "images:  0 usable of 2 records" in report
    assert "2  empty record" in report


def test_more_objects_than_training_takes_are_pointed_out(tmp_path, look, make):
    report = inspect_records(write(tmp_path / "train", make(*[item()] * 101)), LABEL_MAP, look)
    assert "1 images have more than 100 objects" in report
    assert "max_number_of_boxes in the input reader is raised to 101" in report


def test_files_without_a_record_are_an_error(tmp_path, look):
    with pytest.raises(UsageError, match=r"--input_path: no TFRecord file matches .*nothing-\*"):
        inspect_records(str(tmp_path / "nothing-*"), None, look)
    (tmp_path / "text").write_text("this is not a record, but long enough to have a header")
    with pytest.raises(DataError, match=r"no whole record in .*text \(54 bytes\); TFRecord files without compression"):
        inspect_records(str(tmp_path / "text"), None, look)


@pytest.mark.shared
def test_pets_of_the_object_detection_api_are_read_with_every_field(look, shared):
    path = shared / "data" / "odapi_test" / "pets_examples.record"
    report = inspect_records(str(path), None, look)
    assert "images:  10 usable of 10 records" in report
    assert "objects: 10, of them crowd 0, difficult 0; masks 0" in report
    assert rows(look / "dirt.csv")[1:] == []
    counted = [(row[1], row[2]) for row in rows(look / "classes.csv")[1:]]
    serialized = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    for number, record in enumerate(serialized):
        feature = tf.train.Example.FromString(record).features.feature
        parsed = parse_features(record)
        assert set(parsed) == set(feature)
        assert all(len(values) == 1 for values in parsed.values()), "one object an image"
        checked = check_record(record, str(number), None)
        assert (*checked.size,) == (parsed["image/height"][0], parsed["image/width"][0])
        assert (checked.class_names[0], "1") in counted
        assert parsed["image/key/sha256"] == [hashlib.sha256(parsed["image/encoded"][0]).hexdigest().encode()]
        sides = ("ymin", "xmin", "ymax", "xmax")
        box = [feature[f"image/object/bbox/{side}"].float_list.value[0] for side in sides]
        np.testing.assert_allclose(checked.boxes_norm, [box], atol=1e-7)
    assert len(counted) == len(serialized) == 10
    assert len(list((look / "samples").glob("*.png"))) == 10
