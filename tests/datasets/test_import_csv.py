"""CSV files of boxes: rows of one image are joined, headings are checked, bad rows are skipped with their line."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.config.label_map import load_label_map
from detzoo.datasets.conversion import convert
from detzoo.datasets.import_csv import read_csv
from detzoo.datasets.import_voc import read_voc
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue, IssueLog

HEADING = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.fixture(params=["whole", "streamed"])
def importer(request, monkeypatch, tmp_path, images):
    if request.param == "streamed":  # as large files are read: in pieces, objects in a temporary file
        monkeypatch.setattr("detzoo.files.text_files.STREAMED_BYTES", 0)
        monkeypatch.setattr("detzoo.files.text_files._CHUNK_BYTES", 7)
        monkeypatch.setattr("detzoo.files.stored_objects.SPILLED_BYTES", 1)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(images.encode(images.scene()))

    def run(text, encoding="utf-8"):
        (tmp_path / "boxes.csv").write_bytes(text.encode(encoding))
        log = IssueLog()
        return read_csv(str(tmp_path), str(tmp_path / "boxes.csv"), log), log

    return run


def test_records_worked_by_hand(tmp_path, images, importer):
    read, log = importer(
        HEADING + "b.png,40,24,zebra,10,6,30,14\na.png,40,24,ant,0,0,40,24\nb.png,40,24,ant,20,12,30,24\n"
    )
    convert(read, str(tmp_path / "out/train"), num_shards=1, log=log)
    first, second = images.read_records(tmp_path / "out/train")
    assert (first["image/filename"], first["image/source_id"]) == ([b"b.png"], [b"b.png"])
    expected = [(6 / 24, 10 / 40, 14 / 24, 30 / 40), (0.5, 0.5, 1.0, 0.75)]
    np.testing.assert_allclose(first["boxes"], expected, atol=1e-7)
    assert (first["class/text"], first["class/label"]) == ([b"zebra", b"ant"], [2, 1])
    assert (second["image/filename"], second["boxes"]) == ([b"a.png"], [(0, 0, 1, 1)])
    assert load_label_map(tmp_path / "out" / "label_map.pbtxt").names == {1: "ant", 2: "zebra"}
    assert log.counts() == {}


def test_columns_in_any_order_with_blanks_and_a_byte_order_mark(importer):
    read, _ = importer("\ufeffclass, ymax,ymin,xmax,xmin,filename,score\r\n cat ,14,6,30,10,a.png,0.9\r\n")
    (image,) = read.images
    assert image.objects[0].box == (6, 10, 14, 30)
    assert (image.objects[0].class_name, image.declared_size) == ("cat", None)
    assert image.objects[0].where == "boxes.csv:2"


def test_a_row_with_a_filename_alone_is_an_image_without_objects(importer):
    read, log = importer(HEADING + "a.png,40,24,,,,,\nb.png,,,cat,1,2,3,4\n")
    assert [(image.filename, len(image.objects)) for image in read.images] == [("a.png", 0), ("b.png", 1)]
    assert [image.declared_size for image in read.images] == [(24, 40), None]
    assert log.counts() == {}


@pytest.mark.parametrize(
    ("row", "issue", "detail"),
    [
        ("a.png,40,24,cat,x,6,30,14", DataIssue.ANNOTATION_UNREADABLE, "ymin '6', xmin 'x', ymax '14', xmax '30'"),
        ("a.png,40,24,cat,10,6", DataIssue.ANNOTATION_UNREADABLE, "ymin '6', xmin '10', ymax '', xmax ''"),
        ("a.png,40,24,,10,6,30,14", DataIssue.CLASS_WITHOUT_NAME, "row without a class"),
        (",40,24,cat,10,6,30,14", DataIssue.ANNOTATION_UNREADABLE, "no filename"),
    ],
)
def test_a_bad_row_is_skipped_with_its_line(importer, row, issue, detail):
    read, log = importer(HEADING + "b.png,40,24,cat,10,6,30,14\n" + row + "\na.png,40,24,dog,10,6,30,14\n")
    assert [item.class_name for image in read.images for item in image.objects] == ["cat", "dog"]
    assert [tuple(finding) for finding in log.findings()] == [(issue, "boxes.csv:3", detail)]


@pytest.mark.parametrize("size", ["nan,24", "inf,24", "0,24", "-4,24", "wide,24"])
def test_a_senseless_size_is_taken_for_none(importer, size):
    read, log = importer(HEADING + f"a.png,{size},cat,10,6,30,14\n")
    assert read.images[0].declared_size is None
    assert log.counts() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,class,xxmin,ymin,xmax,ymax\n", r"boxes\.csv:1: no column 'xmin' in .*mean it by 'xxmin'\?"),
        ("filename;class;xmin\n", "no column 'ymin' .*The first line must be filename,width,height,class,xmin"),
        ("", r"no column 'filename' in an empty heading"),
        ("file,region_shape_attributes\n", "it looks like an export of the VGG Image Annotator; export COCO"),
        ("image_id,width,height,bbox,class\n", "it looks like a table with a box in one column; write its numbers"),
        ("filename,class,x,y,w,h\n", r"it looks like a table of x, y, w, h; write xmax = x \+ w"),
    ],
)
def test_what_is_not_such_a_file_is_named(importer, text, message):
    with pytest.raises(DataError, match=message):
        importer(text)


def test_files_that_are_not_there_or_not_text(tmp_path, importer):
    with pytest.raises(UsageError, match=r"--images_dir .*none is not a folder"):
        read_csv(str(tmp_path / "none"), str(tmp_path / "boxes.csv"), IssueLog())
    with pytest.raises(UsageError, match=r"--annotations_file .*boxes\.csv is not there"):
        read_csv(str(tmp_path), str(tmp_path / "boxes.csv"), IssueLog())
    with pytest.raises(DataError, match="cannot be read: holds NUL bytes"):
        importer(HEADING + "a.png,1,1,cat" + "\0" * 20)


@pytest.mark.shared
def test_raccoons_are_the_record_of_another_tool_and_those_of_the_voc_importer(tmp_path, images, shared):
    data = shared / "data" / "raccoon"
    log = IssueLog()
    read = read_csv(str(data / "images"), str(data / "test_labels.csv"), log)
    convert(read, str(tmp_path / "csv" / "test"), num_shards=3, log=log)
    ours = {record["image/filename"][0]: record for record in images.read_records(tmp_path / "csv" / "test")}
    assert len(ours) == 40
    # The record was made from the same CSV file by a script of an Object Detection API user.
    theirs = images.read_record_files([data / "test.record"])
    assert {record["image/filename"][0] for record in theirs} == set(ours)
    for record in theirs:
        mine = ours[record["image/filename"][0]]
        np.testing.assert_allclose(sorted(mine["boxes"]), sorted(record["boxes"]), atol=1e-6)
        assert mine["class/label"] == record["class/label"]
        assert mine["class/text"] == record["class/text"]
        assert (mine["image/height"], mine["image/width"]) == (record["image/height"], record["image/width"])
    (tmp_path / "test.txt").write_text("\n".join(sorted(name.decode() for name in ours)))
    voc_log = IssueLog()
    from_xml = read_voc(str(data / "images"), str(data / "annotations"), voc_log, image_set=str(tmp_path / "test.txt"))
    convert(from_xml, str(tmp_path / "voc" / "test"), num_shards=1, log=voc_log)
    for record in images.read_records(tmp_path / "voc" / "test"):
        mine = ours[record["image/filename"][0]]
        assert sorted(record["boxes"]) == sorted(mine["boxes"])
        assert record["image/encoded"] == mine["image/encoded"]
    assert voc_log.counts() == log.counts()
