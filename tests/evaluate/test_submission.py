"""COCO's test-dev submission: names, keys, types and rounding of the server's format, and what it would refuse."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from pycocotools.coco import COCO

from detzoo.errors import DataError, UsageError
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.masks import encode_mask
from detzoo.evaluate.submission import COCO_IDS, read_submission, write_submission


def image(image_id, *found, **fields):
    boxes, scores, classes = zip(*found) if found else ([], [], [])
    return EvaluatedImage(
        image_id,
        (100, 200),
        np.zeros([0, 4], np.float32),
        np.zeros(0, np.int32),
        *(np.zeros(0, bool) for _ in range(2)),
        np.zeros(0, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
        **fields,
    )


@pytest.fixture
def listed(tmp_path):
    file = tmp_path / "image_info_test-dev2017.json"
    file.write_text(json.dumps({"images": [{"id": 1}, {"id": 581929}], "categories": []}))
    return str(file)


# [ymin, xmin, ymax, xmax] -> x 20.123, y 10, 79.987 wide, 40.46 high.
DOG = ([10.0, 20.1234, 50.4567, 100.11], 0.1234567, 17)


def test_the_file_is_what_the_server_reads(tmp_path, listed):
    submission = read_submission("fpn-r50", listed)
    many = [([0.0, 0.0, 10.0, 10.0], score / 200, 0) for score in range(150)]
    (file,) = write_submission(submission, [image("000000581929", DOG), image("1", *many)], tmp_path / "out")
    assert file == tmp_path / "out" / "detections_test-dev2017_fpn-r50_results.zip"
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["detections_test-dev2017_fpn-r50_results.json"]
        entries = json.loads(archive.read(archive.namelist()[0]))
    assert entries[0] == {"image_id": 581929, "category_id": 18, "bbox": [20.12, 10.0, 79.99, 40.46], "score": 0.12346}
    assert len(entries) == 101, "the best 100 of an image"
    assert min(entry["score"] for entry in entries[1:]) == 0.25
    # As on the server: COCO's own reader takes the list for the test set's images.
    truth = COCO()
    truth.dataset = {"images": [{"id": 1}, {"id": 581929}], "categories": [{"id": key} for key in COCO_IDS]}
    truth.createIndex()
    (tmp_path / "results.json").write_text(json.dumps(entries))
    assert len(truth.loadRes(str(tmp_path / "results.json")).anns) == 101


def test_masks_have_a_file_of_their_own(tmp_path, listed):
    mask = encode_mask(np.eye(100, 200, dtype=np.uint8))
    images = [image("1", masks=[]), image("581929", DOG, masks=[mask])]
    _, file = write_submission(read_submission("mask", listed), images, tmp_path)
    assert file == tmp_path / "segm" / "detections_test-dev2017_mask_results.zip"
    with zipfile.ZipFile(file) as archive:
        (entry,) = json.loads(archive.read(archive.namelist()[0]))
    assert entry == {"image_id": 581929, "category_id": 18, "segmentation": mask, "score": 0.12346}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image("a.jpg"), image("1")], "no COCO image ids"),
        ([image("1"), image("01")], "no COCO image ids"),
        ([image("1")], r"1 \(such as 581929\) of the list not evaluated, 0 evaluated and not"),
        ([image("1"), image("581929"), image("7")], r"0 of the list not evaluated, 1 \(such as 7\) evaluated"),
        ([image("1"), image("581929", ([0, 0, 1, 1], 0.5, 11))], "the category ids 12 are none of COCO's"),
    ],
)
def test_what_the_server_would_refuse_is_not_written(tmp_path, listed, images, message):
    with pytest.raises(DataError, match=message):
        write_submission(read_submission("x", listed), images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_and_lists(tmp_path, listed):
    assert len(COCO_IDS) == 80
    with pytest.raises(UsageError, match="becomes a part of a file name"):
        read_submission("my model", listed)
    with pytest.raises(UsageError, match=r"needs --submission_images: COCO's image_info_test-dev2017\.json"):
        read_submission("x", None)
    (tmp_path / "no.json").write_text('{"images": [{"id": "1"}]}')
    with pytest.raises(DataError, match="no list 'images' of objects"):
        read_submission("x", str(tmp_path / "no.json"))
