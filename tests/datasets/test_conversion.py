"""Tests of annotations to records: data issues are repaired or skipped, and counted with their place."""

from __future__ import annotations

import logging
import os
import pathlib
import signal

import numpy as np
import pytest

from detzoo.config.label_map import load_label_map
from detzoo.datasets import conversion, record_writer
from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations
from detzoo.errors import ConfigError, DataError, UsageError
from detzoo.files.issues import Action, DataIssue, IssueLog

NAN = float("nan")
RED_PX = (6.0, 10.0, 14.0, 30.0)  # where dirty_images.scene has its rectangle
RED_NORM = (6 / 24, 10 / 40, 14 / 24, 30 / 40)


def annotated(path, *objects, **fields) -> AnnotatedImage:
    return AnnotatedImage(path, path.name, path.name, objects, **fields)


def red(box=RED_PX, where="notes:1", **fields) -> AnnotatedObject:
    return AnnotatedObject(box, fields.pop("class_name", "red"), where, **fields)


def annotations(*images) -> Annotations:
    return Annotations(list(images), {1: "red"})


@pytest.fixture
def clean(tmp_path, images):
    """An image with nothing wrong."""
    path = tmp_path / "clean.png"
    path.write_bytes(images.encode(images.scene()))
    return annotated(path, red(where="notes:99"))


def convert(tmp_path, *images, **options):
    options = {"num_shards": 1, **options}
    return conversion.convert(annotations(*images), str(tmp_path / "out" / "train"), **options)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_a_clean_image_becomes_a_record(tmp_path, images, clean):
    result = convert(tmp_path, clean)
    (record,) = images.read_records(tmp_path / "out" / "train")
    assert record["image/encoded"] == [clean.path.read_bytes()]
    assert (record["image/height"], record["image/width"], record["image/format"]) == ([24], [40], [b"png"])
    np.testing.assert_allclose(record["boxes"], [RED_NORM], atol=1e-7)
    assert (record["class/text"], record["class/label"]) == ([b"red"], [1])
    assert record["area"] == pytest.approx([8 * 20])
    assert "mask" not in record
    assert (result.num_images, result.objects_per_class, result.log.counts()) == (1, {"red": 1}, {})
    assert load_label_map(result.label_map_path).names == {1: "red"}
    assert result.label_map_path == tmp_path / "out" / "label_map.pbtxt"


UNUSABLE = {
    "empty file": (lambda images: b"", DataIssue.IMAGE_EMPTY),
    "no image": (lambda images: b"not an image", DataIssue.IMAGE_UNKNOWN),
    "corrupt": (lambda images: images.encode(images.scene())[:50] + b"\xff" * 40, DataIssue.IMAGE_CORRUPT),
    "truncated": (lambda images: images.encode(images.scene(), "JPEG")[:-150], DataIssue.IMAGE_CORRUPT),
    "missing": (lambda images: None, DataIssue.IMAGE_MISSING),
}
REPAIRED = {
    "gray": (lambda images: images.encode(images.scene()[..., 0]), DataIssue.GRAY),
    "cmyk": (lambda images: images.encode(images.scene(), "JPEG", mode="CMYK", quality=95), DataIssue.CMYK),
    "16-bit": (lambda images: images.deep_png(images.scene().astype(np.uint16) * 256), DataIssue.DEEP_PIXELS),
    "palette": (lambda images: images.encode(images.scene(), mode="P"), DataIssue.PALETTE),
    "transparent": (lambda images: images.encode(images.scene(), mode="RGBA"), DataIssue.ALPHA),
    "bmp": (lambda images: images.encode(images.scene(), "BMP"), DataIssue.OTHER_FORMAT),
    "exif": (lambda images: images.with_exif(images.scene(), 6), DataIssue.EXIF_ROTATED),
    "animated": (lambda images: images.animated("GIF", images.scene(), 255 - images.scene()), DataIssue.ANIMATED),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_image_is_skipped_and_counted(tmp_path, images, clean, kind):
    make, issue = UNUSABLE[kind]
    content = make(images)
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    result = convert(tmp_path, annotated(path, red()), clean)
    assert [record["image/filename"] for record in images.read_records(tmp_path / "out/train")] == [[b"clean.png"]]
    assert issue.action is Action.IMAGE_SKIPPED
    assert result.log.counts() == {issue: 1}
    assert result.log.findings()[0].where == "bad.jpg"
    assert result.log.table().splitlines()[:2] == ["image skipped (1)", f"        1  {issue.text}"]
    assert "bad.jpg" in result.log.table().splitlines()[2]


@pytest.mark.parametrize("kind", REPAIRED)
def test_a_repairable_image_is_written_as_rgb_with_the_box_on_its_object(tmp_path, images, clean, kind):
    make, issue = REPAIRED[kind]
    path = tmp_path / "odd"
    path.write_bytes(make(images))
    result = convert(tmp_path, clean, annotated(path, red()))
    record = images.read_records(tmp_path / "out" / "train")[1]
    assert images.decode(record["image/encoded"][0]).shape == (24, 40, 3)
    np.testing.assert_allclose(record["boxes"], [RED_NORM], atol=1e-7)
    if kind != "gray":
        np.testing.assert_allclose(images.red_extent(record["image/encoded"][0]), RED_NORM, atol=1e-7)
    assert issue.action is Action.REPAIRED
    assert result.log.counts()[issue] == 1
    assert result.log.findings(issue)[0].where == "odd"
    assert f"        1  {issue.text}\n             odd" in result.log.table()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_box_lies_on_its_object_whichever_way_the_image_was_stored(tmp_path, images, orientation):
    shown_by_viewers, as_stored = tmp_path / "shown.jpg", tmp_path / "stored.jpg"
    content = images.with_exif(images.scene(48, 80, (8, 16, 24, 56)), orientation, "JPEG", quality=95, subsampling=0)
    for path in (shown_by_viewers, as_stored):
        path.write_bytes(content)
    stored_extent = images.red_extent(content)  # Pillow decodes the stored pixels
    size = images.decode(content).shape[:2]
    box_on_stored = tuple(np.multiply(stored_extent, (*size, *size)))
    annotated_images = [annotated(shown_by_viewers, red((8, 16, 24, 56)), declared_size=(48, 80))]
    if orientation >= 5:  # a turn by a right angle shows in the stated size
        annotated_images.append(annotated(as_stored, red(box_on_stored), declared_size=size))
    result = convert(tmp_path, *annotated_images)
    for record in images.read_records(tmp_path / "out" / "train"):
        np.testing.assert_allclose(record["boxes"], [images.red_extent(record["image/encoded"][0])], atol=1e-6)
        np.testing.assert_allclose(record["boxes"], [(8 / 48, 16 / 80, 24 / 48, 56 / 80)], atol=1e-6)
        assert (record["image/height"], record["image/width"]) == ([48], [80])
    assert result.log.counts() == {DataIssue.EXIF_ROTATED: len(annotated_images)}


DIRTY_BOXES = {
    "NaN": ((NAN, 10, 14, 30), DataIssue.BOX_NOT_FINITE, None),
    "infinite": ((6, 10, 14, float("inf")), DataIssue.BOX_NOT_FINITE, None),
    "zero height": ((6, 10, 6, 30), DataIssue.BOX_WITHOUT_AREA, None),
    "zero width": ((6, 10, 14, 10), DataIssue.BOX_WITHOUT_AREA, None),
    "wholly outside": ((6, 40, 14, 60), DataIssue.BOX_OUTSIDE, None),
    "partly outside": ((6, 10, 14, 50), DataIssue.BOX_CLIPPED, (6 / 24, 10 / 40, 14 / 24, 1.0)),
    "inverted": ((14, 30, 6, 10), DataIssue.BOX_INVERTED, RED_NORM),
}


@pytest.mark.parametrize("kind", DIRTY_BOXES)
def test_a_dirty_box_is_skipped_or_repaired_and_the_other_object_stays(tmp_path, images, clean, kind):
    box, issue, expected = DIRTY_BOXES[kind]
    image = annotated(clean.path, red(box, "notes:7"), red((0, 0, 24, 40), "notes:8"))
    result = convert(tmp_path, image)
    (record,) = images.read_records(tmp_path / "out" / "train")
    kept = [expected] if expected else []
    np.testing.assert_allclose(record["boxes"], [*kept, (0, 0, 1, 1)], atol=1e-7)
    assert issue.action is (Action.REPAIRED if expected else Action.OBJECT_SKIPPED)
    assert result.log.counts() == {issue: 1}
    assert f"        1  {issue.text}\n             notes:7" in result.log.table()
    assert result.objects_per_class == {"red": 1 + len(kept)}


def test_images_without_boxes_stay_as_negatives(tmp_path, images, clean):
    # One never had a box, the other lost its only one.
    empty = annotated(clean.path)
    lost = annotated(clean.path, red((NAN, 0, 1, 1)))
    result = convert(tmp_path, clean, empty, lost)
    records = images.read_records(tmp_path / "out" / "train")
    assert [record["boxes"] for record in records[1:]] == [[], []]
    assert [record["class/label"] for record in records] == [[1], [], []]
    assert result.log.counts() == {DataIssue.NO_BOXES: 2, DataIssue.BOX_NOT_FINITE: 1}
    assert DataIssue.NO_BOXES.action is Action.NOTED


def test_a_class_that_is_not_in_the_label_map_is_reported(tmp_path, images, clean):
    (tmp_path / "map.pbtxt").write_text("""
        item {
          id: 5 name: 'n01'
          display_name: 'red'
        }
        item { id: 2 name: 'blue' }
        """)
    image = annotated(
        clean.path, red(), red(class_name="green", where="notes:2"), red(class_name="blue"), red(class_name="n01")
    )
    result = convert(tmp_path, image, label_map_path=str(tmp_path / "map.pbtxt"))
    (record,) = images.read_records(tmp_path / "out" / "train")
    assert record["class/label"] == [5, 2, 5], "names and display names are both known"
    assert record["class/text"] == [b"n01", b"blue", b"n01"]
    assert [(f.issue, f.where, f.detail) for f in result.log.findings()] == [
        (DataIssue.CLASS_NOT_IN_LABEL_MAP, "notes:2", "green")
    ]
    assert result.objects_per_class == {"blue": 1, "n01": 2}
    assert load_label_map(result.label_map_path).names == {2: "blue", 5: "n01"}


def test_masks_are_written_for_every_object_or_for_none(tmp_path, images, clean):
    mask = np.zeros((24, 40), np.uint8)
    mask[6:14, 10:30] = 1
    image = annotated(clean.path, red(mask=lambda *_: mask), red(where="notes:2"))
    result = convert(tmp_path, image, annotated(clean.path), with_masks=True)
    first, second = images.read_records(tmp_path / "out" / "train")
    np.testing.assert_array_equal(images.decode(first["mask"][0]), mask)
    assert not images.decode(first["mask"][1]).any()
    assert images.decode(first["mask"][1]).shape == (24, 40)
    assert second["mask"] == []
    assert result.log.findings(DataIssue.MASK_MISSING)[0].where == "notes:2"
    convert(tmp_path, image, with_masks=False)
    assert "mask" not in images.read_records(tmp_path / "out" / "train")[0]


def test_all_dirt_at_once_never_aborts(tmp_path, images, clean):
    dirty = []
    for number, (make, _) in enumerate([*UNUSABLE.values(), *REPAIRED.values()]):
        path = tmp_path / f"dirty{number}"
        content = make(images)
        if content is not None:
            path.write_bytes(content)
        dirty.append(annotated(path, *(red(box) for box, _, _ in DIRTY_BOXES.values())))
    (tmp_path / "folder").mkdir()
    dirty += [annotated(tmp_path / "folder"), annotated(pathlib.Path("nul\0name"))]
    result = convert(tmp_path, *dirty, clean)
    assert result.num_images == len(REPAIRED) + 1
    counts = result.log.counts()
    skipped = sum(count for issue, count in counts.items() if issue.action is Action.IMAGE_SKIPPED)
    assert skipped == len(UNUSABLE) + 2
    assert counts[DataIssue.BOX_CLIPPED] == len(REPAIRED)
    assert counts[DataIssue.BOX_NOT_FINITE] == 2 * len(REPAIRED)


def test_strict_names_every_finding_and_writes_nothing(tmp_path, clean):
    log = IssueLog()
    log.add(DataIssue.ANNOTATION_UNREADABLE, "notes:3", "bbox is None")
    image = annotated(clean.path, red((6, 10, 14, 50), "notes:7"), red())
    with pytest.raises(DataError, match=r"(?s)--strict: 2 findings, nothing written.*notes:3: .*notes:7: .*\[rep"):
        convert(tmp_path, image, strict=True, log=log)
    assert files(tmp_path / "out") == {}


def test_strict_accepts_what_is_kept_as_it_is(tmp_path, images, clean):
    wrong = tmp_path / "wrong_extension.jpg"
    wrong.write_bytes(clean.path.read_bytes())
    result = convert(tmp_path, clean, annotated(clean.path), annotated(wrong, red()), strict=True)
    assert result.num_images == 3
    assert result.log.counts() == {DataIssue.WRONG_EXTENSION: 1, DataIssue.NO_BOXES: 1}


def test_no_usable_image_is_an_error_with_the_table(tmp_path):
    with pytest.raises(DataError, match=r"(?s)not one of 2 images could be used.*2  image file is missing"):
        convert(tmp_path, annotated(tmp_path / "a.jpg", red()), annotated(tmp_path / "b.jpg", red()))
    assert files(tmp_path / "out") == {}


def test_a_data_set_without_any_object_is_an_error(tmp_path, clean):
    bare = Annotations([annotated(clean.path)], {})
    log = IssueLog()
    log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, "a.xml:3")
    with pytest.raises(DataError, match=r"no object could be imported: of 1 annotated images\na\.xml:3"):
        conversion.convert(bare, str(tmp_path / "out/train"), num_shards=1, log=log)
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'red' }")
    with pytest.raises(DataError, match=r"of 1 annotated images, 1 of them usable\n.*image without boxes"):
        conversion.convert(bare, str(tmp_path / "out/train"), num_shards=1, label_map_path=str(tmp_path / "map.pbtxt"))
    with pytest.raises(DataError, match=r"1 of them usable\n.*box with NaN or infinity"):
        convert(tmp_path, annotated(clean.path, red((NAN, 0, 1, 1))))
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("problem", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_the_files_of_the_run_before(tmp_path, clean, monkeypatch, problem):
    convert(tmp_path, clean, num_shards=2)
    before = files(tmp_path / "out")
    assert len(before) == 3
    written = []

    def stop_at_the_third(self, record):
        written.append(record)
        if len(written) == 3:
            raise problem("stop")

    monkeypatch.setattr(record_writer.ShardedWriter, "write", stop_at_the_third)
    with pytest.raises(problem, match="stop"):
        convert(tmp_path, *[clean] * 50, num_shards=2)
    assert files(tmp_path / "out") == before


def test_control_c_while_images_are_read(tmp_path, clean, monkeypatch):
    read = []

    def interrupt(path):
        read.append(path)
        if len(read) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return path.read_bytes()

    monkeypatch.setattr(conversion.images, "read_content", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        convert(tmp_path, *[clean] * 2000)
    assert files(tmp_path / "out") == {}
    assert len(read) < 2000


def test_a_failing_label_map_leaves_no_records_without_one(tmp_path, clean, monkeypatch):
    def fail(file, text):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(conversion, "write_atomically", fail)
    with pytest.raises(DataError, match=r"cannot write .*label_map\.pbtxt: Permission denied"):
        convert(tmp_path, clean)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path, clean):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"cannot write .*out/train-00000-of-00001\.tfrecord"):
        convert(tmp_path, clean)
    assert (tmp_path / "out").read_text() == "a file"


def test_more_shards_than_images_leaves_some_empty(tmp_path, images, clean):
    result = convert(tmp_path, clean, clean, num_shards=5)
    assert [path.name for path in result.shards] == [f"train-0000{index}-of-00005.tfrecord" for index in range(5)]
    assert [path.stat().st_size > 0 for path in result.shards] == [True, True, False, False, False]
    assert len(images.read_records(tmp_path / "out" / "train")) == 2


def test_the_order_and_the_bytes_are_those_of_the_annotations(tmp_path, images):
    several = []
    for number in range(40):  # more than are in flight at once
        path = tmp_path / f"{number:02d}.png"
        path.write_bytes(images.encode(images.scene(24 + number, 40)))
        several.append(annotated(path, red()))
    convert(tmp_path, *several, num_shards=3)
    first = files(tmp_path / "out")
    records = images.read_records(tmp_path / "out" / "train")
    # Records go round the shards: shard 0 holds images 0, 3, 6, ...
    assert [record["image/height"][0] - 24 for record in records] == [
        *range(0, 40, 3),
        *range(1, 40, 3),
        *range(2, 40, 3),
    ]
    convert(tmp_path, *several, num_shards=3)
    assert files(tmp_path / "out") == first


def test_a_label_map_of_other_classes_is_not_replaced(tmp_path, clean):
    (tmp_path / "out").mkdir()
    beside = tmp_path / "out" / "label_map.pbtxt"
    beside.write_text("item { id: 1 name: 'blue' }")
    with pytest.raises(UsageError, match=r"(?s)there already, with other classes.*--label_map .*red \(id 1\).*blue"):
        convert(tmp_path, clean)
    assert files(tmp_path / "out") == {"label_map.pbtxt": b"item { id: 1 name: 'blue' }"}
    beside.write_text("rubbish")
    with pytest.raises(ConfigError, match=r"label_map\.pbtxt"):
        convert(tmp_path, clean)


def test_shards_of_another_count_are_warned_about(tmp_path, clean, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("detzoo"), "propagate", True)
    convert(tmp_path, clean, num_shards=2)
    with caplog.at_level(logging.WARNING):
        convert(tmp_path, clean, num_shards=1)
    assert "2 shards of an earlier run with another --num_shards" in caplog.text
    assert "train-00000-of-00002.tfrecord" in caplog.text


def test_in_parallel_keeps_the_order_and_passes_errors_on():
    assert list(conversion.in_parallel(lambda value: value * value, range(100))) == [n * n for n in range(100)]
    with pytest.raises(ZeroDivisionError, match="division"):
        list(conversion.in_parallel(lambda value: 1 // (value - 30), range(100)))


def test_in_parallel_finishes_what_was_begun_before_an_error_of_the_items():
    def items():
        yield from range(5)
        raise KeyboardInterrupt("stopped")

    found = conversion.in_parallel(lambda value: 10 * value, items())
    assert [next(found) for _ in range(5)] == [0, 10, 20, 30, 40]
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        next(found)


def test_in_parallel_holds_few_large_results():
    begun, ahead = [], []
    for number, _ in enumerate(conversion.in_parallel(begun.append, range(50), lambda _: int(100e6))):
        ahead.append(len(begun) - number)
    # 256 MB are two results of 100 MB, which are in flight while the one before them is used.
    assert max(ahead[4:]) <= 3
