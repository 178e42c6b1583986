"""Proposals from a file: what is written is read, what a user brings, and what is wrong with it."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data.proposals import check_images, read_proposals, write_proposals
from detzoo.data.records import ReadOptions, RecordSource, scan_files
from detzoo.errors import DataError

ENTRY = {"image_id": 139, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.5}


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def save_arrays(path, **changed):
    arrays = {
        "image_ids": np.array(["a", "b"]),
        "offsets": np.array([0, 1, 3]),
        "boxes": np.array([[0.1, 0.2, 0.3, 0.4]] * 3, np.float32),
        "scores": np.array([0.1, 0.2, 0.3], np.float32),
        **changed,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_what_is_written_is_read_best_first(tmp_path):
    path = tmp_path / "proposals.npz"
    first = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.5], [0.5, 0.5, 0.6, 0.6]], np.float32)
    write_proposals(path, ["7", "zwölf", "leer"], [first, first[:1], first[:0]], [[0.2, 0.9, 0.2], [0.3], []])
    assert [file.name for file in tmp_path.iterdir()] == ["proposals.npz"]  # no draft is left
    table = read_proposals(str(path))
    assert not table.in_pixels
    boxes, scores, found = table.lookup(b"7")
    assert found
    np.testing.assert_array_equal(boxes, first[[1, 0, 2]])  # equal scores keep their order
    np.testing.assert_allclose(scores, [0.9, 0.2, 0.2])
    np.testing.assert_array_equal(table.lookup("zwölf".encode())[0], first[:1])
    boxes, scores, found = table.lookup(b"leer")
    assert (boxes.shape, scores.shape, bool(found)) == ((0, 4), (0,), True)
    boxes, scores, found = table.lookup(b"8")
    assert (boxes.shape, scores.shape, bool(found)) == ((0, 4), (0,), False)
    assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)


def test_a_list_in_cocos_format_is_in_pixels(tmp_path):
    # x 10, y 20, width 30, height 40: rows 20 to 60, columns 10 to 40. Entries of an image need not be together.
    other = {"image_id": "cat.jpg", "bbox": [0, 0, 1, 2], "score": 1, "category_id": 1}
    better = {**ENTRY, "bbox": [1, 1, 2, 2], "score": 0.75}
    table = read_proposals(save(tmp_path / "list.json", [ENTRY, other, better]))
    assert table.in_pixels
    np.testing.assert_array_equal(table.lookup(b"139")[0], [[1, 1, 3, 3], [20, 10, 60, 40]])
    np.testing.assert_array_equal(table.lookup(b"139")[1], [0.75, 0.5])
    np.testing.assert_array_equal(table.lookup(b"cat.jpg")[0], [[0, 0, 2, 1]])


def test_boxes_without_area_or_not_finite_are_dropped_and_told(tmp_path, caplog):
    flat, nan = {**ENTRY, "bbox": [1, 1, 0, 5]}, {**ENTRY, "score": float("nan")}
    table = read_proposals(save(tmp_path / "list.json", [{**ENTRY, "image_id": 1}, flat, ENTRY, nan]))
    np.testing.assert_array_equal(table.lookup(b"139")[0], [[20, 10, 60, 40]])
    assert "2 of 4 boxes are not finite or have no area and are dropped, the first is number 1" in caplog.text
    boxes = np.array([[0.1, 0.2, np.inf, 0.4], [0.1, 0.2, 0.3, 0.4], [0.3, 0.2, 0.1, 0.4]], np.float32)
    table = read_proposals(save_arrays(tmp_path / "p.npz", boxes=boxes))
    assert [len(table.lookup(name)[0]) for name in (b"a", b"b")] == [0, 1]


def test_the_first_of_two_images_of_one_id_counts(tmp_path, caplog):
    table = read_proposals(save_arrays(tmp_path / "p.npz", image_ids=np.array(["a", "a"])))
    assert len(table.lookup(b"a")[0]) == 1
    assert "1 images more than one time" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is neither npz nor JSON .*accepted: the proposals.npz"),
        ({"annotations": []}, "is a JSON dict; accepted: a list in COCO's results format"),
        ([], "holds no proposal: it is empty"),
        ([{**ENTRY, "bbox": [0, 0, 0, 0]}], "holds no proposal: none has finite numbers and an area"),
        ([ENTRY, 3], "entry 1: it is 3; accepted: an object with image_id, bbox, score"),
        ([ENTRY, {"image_id": 1, "score": 2}], r"entry 1: it has no bbox \(it has: image_id, score\)"),
        ([{**ENTRY, "bbox": [1, 2, 3]}], r"entry 0: bbox is \[1, 2, 3\]; accepted: 4 numbers \[x, y, width, height\]"),
        ([{**ENTRY, "bbox": [1, 2, 3, "four"]}], "entry 0: bbox is .*accepted: 4 numbers"),
        ([{**ENTRY, "score": None}], "entry 0: score is None; accepted: a number"),
        ([{**ENTRY, "image_id": [1]}], r"entry 0: image_id is \[1\]; accepted: a number or a text"),
    ],
)
def test_mistakes_in_a_list_are_named(tmp_path, content, message):
    path = save(tmp_path / "list.json", content)
    with pytest.raises(DataError, match=f"proposals_path {path}.*{message}"):
        read_proposals(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": None}, r"has no scores \(it has: image_ids, offsets, boxes\); accepted: an npz with the arrays"),
        ({"boxes": np.zeros([3, 5], np.float32)}, r"boxes float32 \[3, 5\].*accepted: .*boxes float32 \[T, 4\]"),
        ({"offsets": np.array([0, 3])}, r"offsets int64 \[2\].*accepted: .*offsets int64 \[I \+ 1\]"),
        ({"offsets": np.array([0, 2, 2])}, "offsets must rise from 0 to 3"),
        ({"image_ids": np.array([1, 2])}, r"image_ids int64 \[2\].*accepted: image_ids text"),
        ({"offsets": np.array([0, 3, 2], np.uint64)}, "offsets must rise from 0 to 3"),
        ({"image_ids": np.array("a")}, r"image_ids <U1 \[\]"),
        ({"boxes": np.array(3.0)}, r"boxes float64 \[\]"),
        ({"boxes": np.zeros([3, 4], "M8[Y]")}, r"boxes datetime64\[Y\] \[3, 4\]"),
        ({"scores": np.array(["x", "y", "z"])}, r"scores <U1 \[3\]"),
        ({"scores": np.array([1j, 2j, 3j])}, r"scores complex128 \[3\]"),
        ({"image_ids": np.array(["a", "b"], object)}, "cannot be read: .*allow_pickle"),
        (
            {"boxes": np.array([[0, 0, 1, 1]] * 2 + [[9, 8, 70, 60]], np.float32)},
            r"box 2 is \[9.0, .*\(image 'b'\), outside .*fractions",
        ),
        (
            {"image_ids": np.array([], np.str_), "offsets": np.array([0]), "boxes": np.zeros([0, 4]), "scores": []},
            "holds no proposal: it is empty",
        ),
    ],
)
def test_mistakes_in_arrays_are_named(tmp_path, changed, message):
    path = save_arrays(tmp_path / "p.npz", **changed)
    with pytest.raises(DataError, match=f"proposals_path {path}.*{message}"):
        read_proposals(path)


def test_what_no_program_should_write_is_refused_or_dropped(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe cannot be read: not a regular file"):
        read_proposals(str(tmp_path / "pipe"))
    with pytest.raises(DataError, match=r"neither npz nor JSON.*nested too deeply"):
        read_proposals(save(tmp_path / "deep.json", "[" * 100_000))
    with pytest.raises(DataError, match=r"entry 0: image_id is '.*'; accepted: a number or a text"):
        read_proposals(save(tmp_path / "half.json", [{**ENTRY, "image_id": "\ud800"}]))
    table = read_proposals(save(tmp_path / "huge.json", [{**ENTRY, "bbox": [10**400, 1, 2, 3]}, ENTRY]))
    assert len(table.lookup(b"139")[0]) == 1
    table = read_proposals(save_arrays(tmp_path / "p.npz", image_ids=np.array(["\ud800", "b"])))
    assert len(table.lookup(b"b")[0]) == 2


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_broken_bytes_is_read_or_refused(tmp_path, seed):
    random = np.random.default_rng(seed)
    content = bytearray(pathlib.Path(save_arrays(tmp_path / "p.npz")).read_bytes())
    for place in random.integers(2, len(content), 8):
        content[place] = random.integers(256)
    (tmp_path / "broken.npz").write_bytes(content)
    try:
        assert read_proposals(str(tmp_path / "broken.npz")).image_ids
    except DataError as error:
        assert "proposals_path" in str(error)  # noqa: PT017


def test_no_file_and_half_a_file(tmp_path):
    with pytest.raises(DataError, match=r"none.npz cannot be read: No such file or directory"):
        read_proposals(str(tmp_path / "none.npz"))
    whole = save_arrays(tmp_path / "p.npz")
    half = tmp_path / "half.npz"
    half.write_bytes(pathlib.Path(whole).read_bytes()[:300])
    with pytest.raises(DataError, match=r"half.npz cannot be read: .*accepted: an npz"):
        read_proposals(str(half))


def _source(tmp_path, *images):
    """Records of images: id, height and width."""
    path = str(tmp_path / "records")
    with tf.io.TFRecordWriter(path) as writer:
        for image_id, height, width in images:
            feature = {
                "image/source_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image_id])),
                "image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[height])),
                "image/width": tf.train.Feature(int64_list=tf.train.Int64List(value=[width])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    return RecordSource(scan_files([path]), ReadOptions(shuffle=False), seed=0)


def test_a_box_outside_of_its_image_is_told_with_the_image(tmp_path):
    slightly = np.array([[-0.04, 0.0, 1.04, 1.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1.2, 0.9]], np.float32)
    with pytest.raises(DataError, match=r"box 2 is .*1.2.*\(image 'b'\), outside of the image"):
        read_proposals(save_arrays(tmp_path / "p.npz", boxes=slightly))


def test_a_box_in_pixels_is_compared_with_its_image(tmp_path):
    # x 10, y 20, width 30, height 40 ends at (60, 40): inside of 60 x 40, and of 58 x 39 but for the rounding.
    table = read_proposals(save(tmp_path / "list.json", [ENTRY]))
    for height, width in ((60, 40), (58, 39), (0, 0)):  # records that do not say their size are not compared
        check_images(table, _source(tmp_path, (b"139", height, width)), all_records=True)
    source = _source(tmp_path, (b"139", 50, 40))
    with pytest.raises(DataError, match=r"image '139' is \[10.0, 20.0, 30.0, 40.0\], outside of .* 40 x 50 pixels"):
        check_images(table, source, all_records=True)
    assert check_images(table, source, all_records=False) is None


def test_every_record_needs_an_entry_where_all_are_looked_at(tmp_path):
    table = read_proposals(save_arrays(tmp_path / "p.npz"))
    source = _source(tmp_path, (b"a", 90, 90), (b"b", 90, 90), (b"c", 90, 90))
    with pytest.raises(DataError, match=r"1 of the 3 records have no entry in the file, such as 'c'"):
        check_images(table, source, all_records=True)
    assert check_images(table, source, all_records=False) is None
    listed = read_proposals(save(tmp_path / "list.json", [{**ENTRY, "image_id": name} for name in ("a", "b")]))
    assert check_images(listed, source, all_records=True) is None  # a list cannot say that an image has none
