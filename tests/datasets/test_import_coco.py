"""COCO annotation files: boxes, ids, masks against pycocotools, and what cannot be read."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from detzoo.config.label_map import load_label_map
from detzoo.datasets.conversion import convert
from detzoo.datasets.import_coco import draw_segmentation, read_coco
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue, IssueLog

CONTENT = {
    "images": [
        {"id": 42, "file_name": "sub/a.png", "height": 24, "width": 40},
        {"id": 7, "file_name": "b.png", "height": 24, "width": 40},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "toothbrush"}, {"id": 17, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 42, "category_id": 17, "bbox": [10, 6, 20, 8], "area": 120.5, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 90, "bbox": [0, 0, 40, 24], "iscrowd": 1},
        {"id": 3, "image_id": 42, "category_id": 3, "bbox": [20, 12, 10, 12], "area": 99},
    ],
}
POLYGONS = [[10.0, 6.0, 30.5, 6.2, 29.0, 14.0], [2.0, 16.0, 8.0, 16.0, 8.0, 20.0, 2.0, 20.0]]


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


@pytest.fixture(params=["whole", "streamed"])
def importer(request, monkeypatch, tmp_path, images):
    """Writes the JSON and the images, reads them."""
    if request.param == "streamed":  # as large files are read: in pieces, objects in a temporary file
        monkeypatch.setattr("detzoo.files.text_files.STREAMED_BYTES", 0)
        monkeypatch.setattr("detzoo.files.text_files._CHUNK_BYTES", 7)
        monkeypatch.setattr("detzoo.files.stored_objects.SPILLED_BYTES", 1)
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("sub/a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(images.encode(images.scene()))

    def run(content, **options):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "notes.json").write_text(text, encoding="utf-8")
        log = IssueLog()
        return read_coco(str(tmp_path / "images"), str(tmp_path / "notes.json"), log, **options), log

    return run


def found(log):
    return [(finding.issue, finding.where, finding.detail) for finding in log.findings()]


def test_records_worked_by_hand(tmp_path, images, importer, content):
    read, log = importer(content)
    convert(read, str(tmp_path / "out" / "val"), num_shards=1, log=log)
    first, second = images.read_records(tmp_path / "out" / "val")
    assert (first["image/filename"], first["image/source_id"]) == ([b"sub/a.png"], [b"42"])
    # [x, y, width, height] = [10, 6, 20, 8] in 40 x 24: y 6..14 of 24, x 10..30 of 40.
    expected = [(6 / 24, 10 / 40, 14 / 24, 30 / 40), (12 / 24, 20 / 40, 1.0, 30 / 40)]
    np.testing.assert_allclose(first["boxes"], expected, atol=1e-7)
    assert first["class/text"] == [b"dog", b"cat"]
    assert first["class/label"] == [17, 3]
    assert first["area"] == [120.5, 99.0]
    assert first["is_crowd"] == [0, 0]
    assert (second["is_crowd"], second["class/label"], second["boxes"]) == ([1], [90], [(0, 0, 1, 1)])
    assert second["area"] == [960.0], "the area of the box if no area is annotated"
    assert log.counts() == {}
    # Ids stay, gaps and all.
    assert load_label_map(tmp_path / "out" / "label_map.pbtxt").names == {3: "cat", 17: "dog", 90: "toothbrush"}


def test_a_byte_order_mark_is_no_obstacle(importer, content):
    read, _ = importer("\ufeff" + json.dumps(content))
    assert len(read.images) == 2


def test_ids_from_zero_are_numbered_anew_in_their_order(importer, content):
    content["categories"] = [{"id": 2, "name": "c"}, {"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    for annotation, category_id in zip(content["annotations"], (0, 1, 2)):
        annotation["category_id"] = category_id
    read, _ = importer(content)
    assert read.class_names == {1: "a", 2: "b", 3: "c"}
    assert [item.class_name for item in read.images[0].objects] == ["a", "c"]


def test_an_unused_category_zero_is_left_out(importer, content):
    # Export tools write the name of the data set as category 0.
    content["categories"].insert(0, {"id": 0, "name": "animals"})
    assert importer(content)[0].class_names == {3: "cat", 17: "dog", 90: "toothbrush"}


def test_categories_of_one_name_share_the_lowest_id(importer, content):
    content["categories"].append({"id": 91, "name": "dog"})
    content["annotations"][0]["category_id"] = 91
    read, _ = importer(content)
    assert read.class_names == {3: "cat", 17: "dog", 90: "toothbrush"}
    assert read.images[0].objects[0].class_name == "dog"


def test_polygons_and_run_lengths_are_the_pixels_of_pycocotools(tmp_path, images, importer, content):
    square = np.zeros((24, 40), np.uint8)
    square[0:24, 3:40:2] = 1
    compressed = coco_mask.encode(np.asfortranarray(square))
    compressed["counts"] = compressed["counts"].decode()
    # Column-major: 10 * 24 + 6 zeros, then 8 ones in each of two columns: rows 6..13 of columns 10 and 11.
    uncompressed = {"size": [24, 40], "counts": [246, 8, 16, 8, 960 - 278]}
    segmentations = [POLYGONS, compressed, uncompressed]
    for annotation, segmentation in zip(content["annotations"], segmentations):
        annotation.update(segmentation=segmentation, area=annotation.get("area", 960))
    read, log = importer(content, include_masks=True)
    convert(read, str(tmp_path / "out" / "val"), num_shards=1, with_masks=True, log=log)
    first, second = images.read_records(tmp_path / "out" / "val")
    masks = [images.decode(first["mask"][0]), images.decode(second["mask"][0]), images.decode(first["mask"][1])]
    coco = COCO(str(tmp_path / "notes.json"))
    for mask, annotation in zip(masks, content["annotations"]):
        np.testing.assert_array_equal(mask, coco.annToMask(annotation))
    by_hand = np.zeros((24, 40), np.uint8)
    by_hand[6:14, 10:12] = 1
    np.testing.assert_array_equal(masks[2], by_hand)
    np.testing.assert_array_equal(masks[1], square)
    assert masks[0][17, 4] == 1, "the second polygon belongs to the object, too"
    assert log.counts() == {}


def test_masks_are_not_read_without_asking(importer, content):
    content["annotations"][0]["segmentation"] = POLYGONS
    read, _ = importer(content)
    assert read.images[0].objects[0].mask is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[0, 0, float("nan"), 5, 9, 9]], "6 or more finite ones"),
        ([[0, 0, 1e9, 0, 1e9, 5]], r"reaches to 1e\+09 in an image of 40 x 24"),
        ({"counts": [3, 4]}, "has counts and size"),
        ({"counts": [3, 4], "size": [40, 24]}, r"size \[40, 24\] for an image of 24 rows and 40 columns"),
        ({"counts": "4", "size": [10**9, 10**9]}, "for an image of 24 rows"),
        ({"counts": [3, 100000], "size": [24, 40]}, "Invalid RLE"),
        ("outline", "list of polygons"),
    ],
)
def test_a_broken_segmentation_is_refused_with_its_reason(segmentation, message):
    with pytest.raises(ValueError, match=message):
        draw_segmentation(segmentation, 24, 40)


def test_a_broken_segmentation_leaves_the_object_without_a_mask(tmp_path, images, importer, content):
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    content["annotations"][2]["segmentation"] = [[0, 0, 1e9, 0, 1e9, 5]]
    read, log = importer(content, include_masks=True)
    convert(read, str(tmp_path / "out" / "val"), num_shards=1, with_masks=True, log=log)
    first = images.read_records(tmp_path / "out" / "val")[0]
    assert len(first["boxes"]) == 2
    assert first["mask"] == [] or not any(images.decode(mask).any() for mask in first["mask"])
    assert [finding.where for finding in log.findings(DataIssue.OUTLINE_PART)] == [
        "notes.json: annotation 1",
        "notes.json: annotation 3",
    ]


@pytest.mark.parametrize(
    ("change", "issue", "detail"),
    [
        ({"bbox": [1, 2, 3]}, DataIssue.ANNOTATION_UNREADABLE, "bbox is [1, 2, 3]"),
        ({"bbox": None}, DataIssue.ANNOTATION_UNREADABLE, "bbox is None"),
        ({"bbox": ["a", 1, 2, 3]}, DataIssue.ANNOTATION_UNREADABLE, "bbox is ['a', 1, 2, 3]"),
        ({"bbox": [True, 1, 2, 3]}, DataIssue.ANNOTATION_UNREADABLE, "bbox is [True, 1, 2, 3]"),
        ({"category_id": 5}, DataIssue.CLASS_WITHOUT_NAME, "category_id 5"),
        ({"category_id": None}, DataIssue.CLASS_WITHOUT_NAME, "category_id None"),
        ({"image_id": 1000}, DataIssue.ANNOTATION_WITHOUT_IMAGE, ""),
        ({"image_id": [1]}, DataIssue.ANNOTATION_WITHOUT_IMAGE, ""),
    ],
)
def test_an_annotation_that_cannot_be_used_is_skipped_with_its_id(importer, content, change, issue, detail):
    content["annotations"][0].update(change)
    read, log = importer(content)
    assert [len(image.objects) for image in read.images] == [1, 1]
    ((seen, where, shown),) = found(log)
    assert (seen, where) == (issue, "notes.json: annotation 1")
    assert shown == detail


def test_rubbish_between_annotations_and_images_is_skipped(importer, content):
    content["annotations"] += [None, {"id": 9}]
    content["images"] += ["a.png", {"id": 3}, {"file_name": "c.png"}]
    read, log = importer(content)
    assert [image.filename for image in read.images] == ["sub/a.png", "b.png"]
    assert found(log) == [
        (DataIssue.ANNOTATION_FILE_UNREADABLE, "notes.json: images[2]", "no file_name or no id"),
        (DataIssue.ANNOTATION_FILE_UNREADABLE, "notes.json: images[3]", "no file_name or no id"),
        (DataIssue.ANNOTATION_FILE_UNREADABLE, "notes.json: images[4]", "no file_name or no id"),
        (DataIssue.ANNOTATION_WITHOUT_IMAGE, "notes.json: annotation number 3", ""),
        (DataIssue.ANNOTATION_WITHOUT_IMAGE, "notes.json: annotation 9", ""),
    ]


def test_images_without_annotations_and_without_a_size_are_read(importer, content):
    content["annotations"] = []
    del content["images"][0]["height"]
    read, log = importer(content)
    assert [(len(image.objects), image.declared_size) for image in read.images] == [(0, None), (0, (24, 40))]
    assert log.counts() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "annot', r"notes\.json:2: not JSON \(Unterminated string.* at column 2"),
        ("", r"notes\.json:1: not JSON \(Expecting value at column 1"),
        ("[1, 2]", r"no list 'images'; a COCO instances file has images, annotations and categories \(here: list\)"),
        ('{"images": [], "categories": []}', r"no list 'annotations'.*\(here: images, categories\)"),
        (json.dumps({"images": {}, "annotations": [], "categories": []}), "no list 'images'"),
        ('{"shapes": [], "imagePath": "a.jpg"}', "it looks like labelme's JSON of one image"),
        (
            json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]),
            "it looks like a list in COCO's results format",
        ),
        ('{"info": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
    ],
)
def test_what_is_not_coco_is_named_with_file_and_line(importer, text, message):
    with pytest.raises(DataError, match=message):
        importer(text)


def test_the_list_of_a_test_set_becomes_images_without_objects(tmp_path, images, importer, content):
    del content["annotations"]
    read, log = importer(content)
    convert(read, str(tmp_path / "out" / "test"), num_shards=1, log=log)
    first, second = images.read_records(tmp_path / "out" / "test")
    assert (first["image/source_id"], second["image/source_id"]) == ([b"42"], [b"7"])
    assert (first["boxes"], second["boxes"]) == ([], [])
    assert load_label_map(tmp_path / "out" / "label_map.pbtxt").names == {3: "cat", 17: "dog", 90: "toothbrush"}


def test_missing_files_and_folders_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match=r"--images_dir .*/none is not a folder"):
        read_coco(str(tmp_path / "none"), str(tmp_path / "notes.json"), IssueLog())
    with pytest.raises(UsageError, match=r"--annotations_file .*notes\.json is not there"):
        read_coco(str(tmp_path), str(tmp_path / "notes.json"), IssueLog())
    with pytest.raises(DataError, match=r"cannot be read: .*Is a directory"):
        read_coco(str(tmp_path), str(tmp_path), IssueLog())
    (tmp_path / "nul.json").write_bytes(b'{"images": "\0"}')
    with pytest.raises(DataError, match=r"nul\.json cannot be read: holds NUL bytes"):
        read_coco(str(tmp_path), str(tmp_path / "nul.json"), IssueLog())


def test_of_two_images_with_one_id_the_first_keeps_the_annotations(importer, content):
    content["images"].append({"id": 42, "file_name": "c.png", "height": 24, "width": 40})
    read, log = importer(content)
    assert [(image.filename, len(image.objects)) for image in read.images] == [("sub/a.png", 2), ("b.png", 1)]
    assert found(log) == [
        (DataIssue.ANNOTATION_FILE_UNREADABLE, "notes.json: images[2]", "id 42 is that of an earlier image")
    ]
