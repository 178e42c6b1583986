"""Tests that the findings of ``inspect`` about a record agree with the decoder of training."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.config.label_map import LabelMap
from detzoo.data.decode import ClassNames, DecodeOptions, RecordDecoder
from detzoo.data.issue_counter import REASONS
from detzoo.datasets.record_check import check_record, image_of, masks_of, parse_features
from detzoo.files.issues import Action, DataIssue

NAN = float("nan")
LABEL_MAP = LabelMap({1: "cat", 4: "dog"}, {4: "Dog"})
GOOD = {
    "bbox/ymin": [0.25, 0.0],
    "bbox/xmin": [0.25, 0.0],
    "bbox/ymax": [0.5, 1.0],
    "bbox/xmax": [0.75, 1.0],
    "class/text": [b"cat", b"dog"],
    "class/label": [1, 4],
}


def record(encoded: bytes | None, top: dict | None = None, **changes) -> bytes:
    """Returns ``GOOD`` with changes; ``bbox__ymin=None`` omits the key. ``top`` has keys that are not of objects."""
    features = {f"image/object/{key}": values for key, values in GOOD.items()}
    features |= {"image/source_id": [b"7"], "image/height": [24], "image/width": [40], "image/filename": [b"a.png"]}
    if encoded is not None:
        features["image/encoded"] = [encoded]
    features |= {f"image/object/{key.replace('__', '/')}": values for key, values in changes.items()}
    features |= top or {}
    message = tf.train.Example()
    for key, values in features.items():
        if values is None:
            continue
        feature = message.features.feature[key]
        kind = values[0] if values else 0.0
        chosen = (
            feature.bytes_list if isinstance(kind, bytes)
            else feature.float_list if isinstance(kind, float) else feature.int64_list
        )  # fmt: skip
        chosen.value.extend(values)
    return message.SerializeToString()


@pytest.fixture(scope="module")
def decoder():
    ids = {"cat": 1, "dog": 4, "Dog": 4}
    decode = RecordDecoder(DecodeOptions(), ClassNames(ids, [1, 4]))
    return tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


def kinds(checked):
    return [finding.issue for finding in checked.findings]


def one_box(ymin, xmin, ymax, xmax):
    sides = {"bbox__ymin": ymin, "bbox__xmin": xmin, "bbox__ymax": ymax, "bbox__xmax": xmax}
    return {key: [float(value), GOOD[key.replace("__", "/")][1]] for key, value in sides.items()}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        (one_box(NAN, 0.1, 0.5, 0.5), [DataIssue.BOX_NOT_FINITE]),
        (one_box(0.1, 0.1, 0.5, float("inf")), [DataIssue.BOX_NOT_FINITE]),
        (one_box(0.5, 0.1, 0.2, 0.5), [DataIssue.BOX_INVERTED]),
        (one_box(0.5, 0.1, 0.5, 0.5), [DataIssue.BOX_WITHOUT_AREA]),
        (one_box(0.1, 1.0, 0.5, 1.5), [DataIssue.BOX_OUTSIDE]),
        (one_box(-0.5, 0.1, 0.0, 0.5), [DataIssue.BOX_OUTSIDE]),
        (one_box(-0.5, 0.1, 0.5, 1.5), [DataIssue.BOX_CLIPPED]),
        (one_box(-0.00005, 0.1, 0.5, 0.5), []),
        ({"class__text": [b"unicorn", b"dog"]}, [DataIssue.CLASS_NOT_IN_LABEL_MAP]),
        ({"class__text": [b"", b"dog"], "class__label": [2, 4]}, [DataIssue.CLASS_WITHOUT_NAME]),
        ({"class__text": None, "class__label": [2, 4]}, [DataIssue.CLASS_WITHOUT_NAME]),
        ({"class__text": None}, []),
        ({"class__label": None}, []),
        ({"class__text": [b"cat", b"Dog"]}, []),
        ({"class__label": [4, 4]}, [DataIssue.LABEL_CONTRADICTS]),
        ({"weight": [1e4, 3e38]}, [DataIssue.WEIGHT_WRONG]),
        ({"weight": [NAN, -1.0]}, [DataIssue.WEIGHT_WRONG] * 2),
        ({"area": [float("inf"), NAN]}, [DataIssue.AREA_WRONG] * 2),
        ({"area": [0.0, -3.0]}, [DataIssue.AREA_WRONG]),
        ({f"bbox__{side}": None for side in ("ymin", "xmin", "ymax", "xmax")}
         | {"class__text": None, "class__label": None}, [DataIssue.NO_BOXES]),
    ],
)  # fmt: skip
def test_objects_are_kept_exactly_where_training_keeps_them(images, decoder, changes, found):
    serialized = record(images.encode(images.scene()), **changes)
    checked = check_record(serialized, "file: record 3", LABEL_MAP)
    assert kinds(checked) == found
    assert all(finding.where == "file: record 3" for finding in checked.findings)
    decoded = decoder(serialized)
    assert checked.usable
    assert decoded.usable
    np.testing.assert_allclose(checked.boxes_norm, decoded.sample.boxes_norm, atol=1e-6)
    trained = [LABEL_MAP.names[class_index + 1] for class_index in decoded.sample.classes.numpy()]
    assert list(checked.class_names) == trained
    counted = dict(zip(REASONS, decoded.issues.numpy()))
    assert (counted["wrong_weight"], counted["wrong_area"]) == tuple(
        map(found.count, (DataIssue.WEIGHT_WRONG, DataIssue.AREA_WRONG))
    )
    num_skipped = sum(issue.action is Action.OBJECT_SKIPPED for issue in found)
    assert len(trained) == (0 if DataIssue.NO_BOXES in found else 2 - num_skipped)


@pytest.mark.parametrize(
    ("changes", "issue", "detail"),
    [
        ({"bbox__ymax": None}, DataIssue.KEY_MISSING, "image/object/bbox: ymin 2, xmin 2, ymax 0, xmax 2"),
        ({"bbox__ymax": [0.5]}, DataIssue.LENGTHS_DIFFER, "image/object/bbox: ymin 2, xmin 2, ymax 1, xmax 2"),
        ({"class__text": None, "class__label": None}, DataIssue.KEY_MISSING, "2 boxes, class/text 0, class/label 0"),
        (
            {"class__text": [b"cat"], "class__label": [1]},
            DataIssue.LENGTHS_DIFFER,
            "2 boxes, class/text 1, class/label 1",
        ),
    ],
)
def test_lists_that_do_not_fit_drop_the_record_as_in_training(images, decoder, changes, issue, detail):
    serialized = record(images.encode(images.scene()), **changes)
    checked = check_record(serialized, "file: record 3", LABEL_MAP)
    assert [tuple(finding) for finding in checked.findings] == [(issue, "file: record 3", detail)]
    assert not checked.usable
    assert issue.action is Action.IMAGE_SKIPPED
    assert not decoder(serialized).usable


@pytest.mark.parametrize(
    ("serialized", "issue"),
    [
        (lambda images: b"", DataIssue.RECORD_EMPTY),
        (lambda images: tf.train.Example().SerializeToString(), DataIssue.RECORD_EMPTY),
        (lambda images: b"rubbish", DataIssue.RECORD_UNREADABLE),
        (lambda images: record(None), DataIssue.KEY_MISSING),
        (lambda images: record(b""), DataIssue.KEY_MISSING),
        (lambda images: record(b"no image"), DataIssue.IMAGE_UNKNOWN),
        (lambda images: record(images.encode(images.scene(), "JPEG")[:-150]), DataIssue.IMAGE_CORRUPT),
        (lambda images: record(images.encode(images.scene())[:-30]), DataIssue.IMAGE_CORRUPT),
        (lambda images: record(images.encode(images.scene()), bbox__ymin=[b"a", b"b"]), DataIssue.KEY_TYPE),
        (lambda images: record(images.encode(images.scene()), class__label=[1.0, 4.0]), DataIssue.KEY_TYPE),
        (lambda images: record(images.encode(images.scene()), weight=[1, 1]), DataIssue.KEY_TYPE),
        (lambda images: record(None, {"image/encoded": [1]}), DataIssue.KEY_TYPE),
        (lambda images: record(images.encode(images.scene()), {"image/height": [24, 24]}), DataIssue.KEY_TYPE),
        (lambda images: record(None, {"image/encoded": [b"one", b"two"]}), DataIssue.KEY_TYPE),
    ],
)
def test_unusable_records_are_refused_as_in_training(images, decoder, serialized, issue):
    content = serialized(images)
    checked = check_record(content, "file: record 0", LABEL_MAP)
    assert not checked.usable
    assert kinds(checked) == [issue]
    try:
        usable = bool(decoder(content).usable)
    except tf.errors.OpError:  # the pipeline drops what raises
        usable = False
    assert not usable


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda images: images.encode(images.scene()[..., 0]), "gray"),
        (lambda images: images.encode(images.scene(), "JPEG", mode="CMYK"), "CMYK"),
        (lambda images: images.deep_png(images.scene().astype(np.uint16) * 256), "16-bit"),
        (lambda images: images.with_exif(images.scene(), 6), "EXIF-rotated: orientation 6"),
        (lambda images: images.animated("GIF", images.scene(), 255 - images.scene()), "animated: 2 frames"),
    ],
)
def test_unusual_images_are_noted_and_decoded_as_training_does(images, decoder, make, detail):
    serialized = record(make(images), {"image/height": None, "image/width": None})
    checked = check_record(serialized, "here", None)
    assert checked.usable
    assert (DataIssue.IMAGE_UNUSUAL, "here", detail) in [tuple(finding) for finding in checked.findings]
    shown = image_of(parse_features(serialized))
    np.testing.assert_allclose(shown.astype(int), decoder(serialized).sample.image.numpy(), atol=3)
    assert checked.size == shown.shape[:2]


def test_keys_beside_the_objects(images):
    encoded = images.encode(images.scene())
    checked = check_record(record(encoded, {"image/source_id": None, "image/filename": None}), "w", LABEL_MAP)
    assert [tuple(finding) for finding in checked.findings] == [(DataIssue.KEY_ABSENT, "w", "image/source_id")]
    assert checked.name == "w"
    checked = check_record(record(encoded, {"image/height": [40], "image/width": [24]}), "w", LABEL_MAP)
    assert [tuple(finding) for finding in checked.findings] == [
        (DataIssue.SIZE_WRONG, "w", "stated 24 x 40, is 40 x 24")
    ]
    assert (checked.name, checked.size) == ("a.png", (24, 40))


def test_crowds_and_difficult_ones_are_counted_among_the_kept(images, decoder):
    encoded = images.encode(images.scene())
    changes = one_box(NAN, 0, 1, 1) | {"is_crowd": [1, 0], "difficult": [1, 1]}
    checked = check_record(record(encoded, **changes), "w", LABEL_MAP)
    assert (checked.num_crowd, checked.num_difficult) == (0, 1)
    # A group counts as a crowd, lists of another length count for nothing.
    serialized = record(encoded, is_crowd=[1, 0], group_of=[0, 1], difficult=[1])
    checked = check_record(serialized, "w", LABEL_MAP)
    assert (checked.num_crowd, checked.num_difficult) == (2, 0)
    assert decoder(serialized).sample.is_crowd.numpy().tolist() == [True, True]


def test_without_a_label_map_names_come_from_the_record(images):
    encoded = images.encode(images.scene())
    checked = check_record(record(encoded, class__text=[b"unicorn", b""], class__label=[9, 8]), "w", None)
    assert checked.class_names == ("unicorn", "id 8")
    checked = check_record(record(encoded, class__text=None, class__label=[0, 8]), "w", None)
    assert (checked.class_names, kinds(checked)) == (("id 8",), [DataIssue.CLASS_WITHOUT_NAME])


def test_masks(images):
    encoded = images.encode(images.scene())
    mask = images.encode((images.scene()[..., 0] > 100).astype(np.uint8))
    serialized = record(encoded, mask=[mask, mask])
    checked = check_record(serialized, "w", LABEL_MAP)
    assert (checked.num_masks, checked.findings) == (2, [])
    np.testing.assert_array_equal(masks_of(parse_features(serialized))[1], images.scene()[..., 0] > 100)
    dense = record(encoded, mask=[0.0] * (2 * 24 * 40))
    assert check_record(dense, "w", LABEL_MAP).num_masks == 2
    assert masks_of(parse_features(dense)) is None
    small = images.encode(np.zeros((4, 5), np.uint8))
    for masks, detail in (
        ([mask], "1 masks for 2 objects"),
        ([mask, small], "mask of 5 x 4 for an image of 40 x 24"),
        ([mask, b"rubbish"], "cannot identify image"),
        ([0.0] * 10, "10 numbers for 2 masks of 40 x 24"),
    ):
        checked = check_record(record(encoded, mask=masks), "w", LABEL_MAP)
        assert kinds(checked) == [DataIssue.MASK_UNUSABLE]
        assert detail in checked.findings[0].detail
        assert checked.usable, "training drops it only if masks are loaded"
    assert masks_of(parse_features(record(encoded, mask=[mask, b"rubbish"]))) is None


@pytest.mark.parametrize("label", [2**31, 2**32 + 1, 2**63 - 1])
def test_class_ids_beyond_int32_are_found_without_a_label_map(images, label):
    serialized = record(images.encode(images.scene()), class__text=None, class__label=[1, label])
    checked = check_record(serialized, "file: record 3", None)
    assert kinds(checked) == [DataIssue.CLASS_WITHOUT_NAME]
    assert RecordDecoder(DecodeOptions())(serialized).sample.classes.numpy().tolist() == [0]
