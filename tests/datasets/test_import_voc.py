"""Pascal VOC folders: boxes, flags, image sets, file names that lie, broken XML."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from detzoo.config.label_map import load_label_map
from detzoo.datasets.conversion import convert
from detzoo.datasets.import_voc import read_voc
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue, IssueLog

SIZE = "<size><width>40</width><height>24</height><depth>3</depth></size>"


def box(xmin=10, ymin=6, xmax=30, ymax=14) -> str:
    sides = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
    return "<bndbox>" + "".join(f"<{side}>{value}</{side}>" for side, value in sides.items()) + "</bndbox>"


def thing(name="cat", bndbox=None, more="") -> str:
    return f"<object><name>{name}</name>{more}{box() if bndbox is None else bndbox}</object>\n"


@pytest.fixture
def folder(tmp_path, images):
    """``xml(stem, content)`` writes an annotation, ``read(...)`` reads the folder."""
    (tmp_path / "images").mkdir()
    (tmp_path / "xml").mkdir()
    for name in ("a.png", "b.png", "c d.png"):
        (tmp_path / "images" / name).write_bytes(images.encode(images.scene()))

    class Folder:
        def xml(self, stem, content, filename=None, size=SIZE):
            named = f"<filename>{f'{stem}.png' if filename is None else filename}</filename>"
            text = f"<annotation>\n{named}\n{size}\n{content}</annotation>\n"
            (tmp_path / "xml" / f"{stem}.xml").write_text(text, encoding="utf-8")

        def read(self, **options):
            log = IssueLog()
            return read_voc(str(tmp_path / "images"), str(tmp_path / "xml"), log, **options), log

    return Folder()


def found(log):
    return [tuple(finding) for finding in log.findings()]


def test_records_worked_by_hand(tmp_path, images, folder):
    flags = "<pose>Left</pose><truncated>1</truncated><difficult>1</difficult>"
    part = "<part><name>head</name>" + box(1, 2, 3, 4) + "</part>"
    folder.xml("b", thing("zebra", box(20.5, 12, 30, 24)))
    # The box of a part does not count, even where it stands before that of the object.
    folder.xml("a", thing("cat", box() + part, flags) + thing("ant", part + box(0, 0, 40, 24)))
    read, log = folder.read()
    convert(read, str(tmp_path / "out/train"), num_shards=1, log=log)
    first, second = images.read_records(tmp_path / "out/train")
    assert (first["image/filename"], first["image/source_id"]) == ([b"a.png"], [b"a.png"])
    np.testing.assert_allclose(first["boxes"], [(6 / 24, 10 / 40, 14 / 24, 30 / 40), (0, 0, 1, 1)], atol=1e-7)
    assert (first["class/text"], first["class/label"]) == ([b"cat", b"ant"], [2, 1])
    assert (first["difficult"], first["truncated"], first["view"]) == ([1, 0], [1, 0], [b"Left", b""])
    np.testing.assert_allclose(second["boxes"], [(12 / 24, 20.5 / 40, 1.0, 30 / 40)], atol=1e-7)
    assert load_label_map(tmp_path / "out/label_map.pbtxt").names == {1: "ant", 2: "cat", 3: "zebra"}
    assert log.counts() == {}


def test_an_image_set_chooses_and_orders(tmp_path, folder):
    for stem in ("a", "b", "c d"):
        folder.xml(stem, thing())
    image_set = tmp_path / "train.txt"
    image_set.write_text("c d.png\n\nb  1\n gone -1\na.jpg -1\n")
    read, log = folder.read(image_set=str(image_set))
    assert [image.filename for image in read.images] == ["c d.png", "b.png", "a.png"]
    assert found(log) == [(DataIssue.ANNOTATION_MISSING, f"{image_set}:4", "gone: no such .xml")]


@pytest.mark.parametrize(
    ("stated", "expected", "is_issue"),
    [
        ("a.png", "a.png", False),
        ("a", "a.png", False),  # without extension
        ("a.jpg", "a.png", False),  # with another
        ("C:\\data\\a.png", "a.png", False),
        ("/data/a.png", "a.png", False),
        ("b.png", "b.png", False),  # named after its image only
        ("IMG_0001.jpg", "a.png", True),  # renamed together with its annotation
        ("", "a.png", False),
    ],
)
def test_the_image_is_found_by_its_stated_name_or_by_the_annotation(folder, stated, expected, is_issue):
    folder.xml("a", thing(), filename=stated)
    read, log = folder.read()
    assert read.images[0].path.name == expected
    assert found(log) == ([(DataIssue.WRONG_FILENAME, "a.xml", f"filename is {stated}")] if is_issue else [])


def test_an_image_that_is_not_there_is_left_to_the_conversion(tmp_path, folder):
    folder.xml("gone", thing())
    folder.xml("a", thing())
    read, log = folder.read()
    result = convert(read, str(tmp_path / "out/train"), num_shards=1, log=log)
    assert result.num_images == 1
    assert found(log) == [(DataIssue.IMAGE_MISSING, "gone.png", "")]


@pytest.mark.parametrize(
    ("content", "issue", "detail"),
    [
        (thing(""), DataIssue.CLASS_WITHOUT_NAME, "object without a name"),
        (f"<object>{box()}</object>", DataIssue.CLASS_WITHOUT_NAME, "object without a name"),
        (thing(bndbox=""), DataIssue.ANNOTATION_UNREADABLE, "[None, None, None, None]"),
        (thing(bndbox=box("", 1, 2, 3)), DataIssue.ANNOTATION_UNREADABLE, "['1', '', '3', '2']"),
        (thing(bndbox=box("ten", 1, 2, 3)), DataIssue.ANNOTATION_UNREADABLE, "'ten'"),
    ],
)
def test_an_object_that_cannot_be_read_is_skipped_with_its_line(folder, content, issue, detail):
    folder.xml("a", thing("dog") + content)
    read, log = folder.read()
    assert [item.class_name for item in read.images[0].objects] == ["dog"]
    ((seen, where, shown),) = found(log)
    # annotation, filename, size and the dog fill lines 1 to 4.
    assert (seen, where) == (issue, "a.xml:5")
    assert detail in shown


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("<annotation>\n<object>\n</annotation>", "a.xml:3"),
        ("", "a.xml:1"),
        ("<annotation>\n", "a.xml:2"),
        ("<a>" * 200 + "</a>" * 200, "a.xml"),
        ('<!DOCTYPE a [<!ENTITY e "lol">]><annotation>&e;</annotation>', "a.xml"),
    ],
)
def test_broken_xml_skips_its_image(tmp_path, folder, content, where):
    folder.xml("b", thing())
    (tmp_path / "xml" / "a.xml").write_text(content)
    read, log = folder.read()
    assert [image.filename for image in read.images] == ["b.png"]
    ((issue, seen, _),) = found(log)
    assert (issue, seen) == (DataIssue.ANNOTATION_FILE_UNREADABLE, where)


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>",
             "<size><width>inf</width><height>24</height></size>"]
)  # fmt: skip
def test_a_senseless_size_is_taken_for_none(folder, size):
    folder.xml("a", thing(), size=size)
    read, log = folder.read()
    assert read.images[0].declared_size is None
    assert log.counts() == {}


def test_images_without_objects_stay(folder):
    folder.xml("a", "")
    folder.xml("b", thing())
    read, log = folder.read()
    assert [len(image.objects) for image in read.images] == [0, 1]
    assert log.counts() == {}


def test_missing_folders_and_files(tmp_path, folder):
    with pytest.raises(DataError, match=r"--annotations_dir .*xml has no \.xml file"):
        folder.read()
    folder.xml("a", thing())
    with pytest.raises(UsageError, match=r"--image_set none\.txt is not there"):
        folder.read(image_set="none.txt")
    with pytest.raises(UsageError, match=r"--images_dir .*none is not a folder"):
        read_voc(str(tmp_path / "none"), str(tmp_path / "xml"), IssueLog())
    with pytest.raises(UsageError, match=r"--annotations_dir .*none is not a folder"):
        read_voc(str(tmp_path / "images"), str(tmp_path / "none"), IssueLog())


@pytest.mark.shared
def test_raccoons_have_the_boxes_of_their_csv_file(tmp_path, images, shared):
    data = shared / "data" / "raccoon"
    log = IssueLog()
    read = read_voc(str(data / "images"), str(data / "annotations"), log)
    from_xml = {image.filename: sorted((item.class_name, *item.box) for item in image.objects) for image in read.images}
    rows: dict[str, list] = {}
    for name in ("train_labels.csv", "test_labels.csv"):
        with (data / name).open() as file:
            for row in csv.DictReader(file):
                item = (row["class"], *(float(row[side]) for side in ("ymin", "xmin", "ymax", "xmax")))
                rows.setdefault(row["filename"], []).append(item)
    assert from_xml == {name: sorted(boxes) for name, boxes in rows.items()}
    assert (len(from_xml), sum(map(len, from_xml.values()))) == (200, 217)
    assert read.class_names == {1: "raccoon"}


def test_wordnet_ids_of_ilsvrc_become_the_names_of_its_list(tmp_path, folder):
    folder.xml("a", thing("n02691156") + thing("n02672831") + thing("n00000001"))
    folder.xml("b", thing("n02672831"))
    folder.xml("c d", thing("n02691156"))
    synsets, image_set = tmp_path / "map_det.txt", tmp_path / "val.txt"
    synsets.write_text("n02672831 1 accordion\nn02691156 2 airplane\nn02219486 3 ant farm\n")
    image_set.write_text("a 1\nb 17\n")  # the second column counts the lines
    read, log = folder.read(image_set=str(image_set), synsets=str(synsets))
    assert read.class_names == {1: "accordion", 2: "airplane", 3: "ant farm"}
    names = [[item.class_name for item in image.objects] for image in read.images]
    assert names == [["airplane", "accordion", "n00000001"], ["accordion"]]
    assert found(log) == []
    convert(read, str(tmp_path / "out/val"), num_shards=1, log=log)
    assert load_label_map(tmp_path / "out/label_map.pbtxt").names == read.class_names
    synsets.write_text("n02672831 1 accordion\naccordion\n")
    with pytest.raises(DataError, match=r"map_det.txt:2 is 'accordion'; accepted: WordNet id, id from 1 and name"):
        folder.read(synsets=str(synsets))
