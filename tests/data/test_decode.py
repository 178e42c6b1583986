"""Records become samples: image formats, missing keys, labels, broken boxes, masks."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.data.decode import ClassNames, DecodeOptions, RecordDecoder, decode_image
from detzoo.data.issue_counter import REASONS
from detzoo.errors import ConfigError
from detzoo.files.pixel_limit import limited_to

HEIGHT, WIDTH = 6, 9


def pixels() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 40, columns * 25, np.full_like(rows, 99)], axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PNG = encode(Image.fromarray(pixels()))


def example(encoded: bytes = PNG, **features: list) -> bytes:
    """A serialized record; keyword ``class__text`` is the key ``image/object/class/text``."""
    message = tf.train.Example()
    message.features.feature["image/encoded"].bytes_list.value.append(encoded)
    for key, values in features.items():
        feature = message.features.feature["image/object/" + key.replace("__", "/")]
        if values and isinstance(values[0], str | bytes):
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in values)
        elif values and isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return message.SerializeToString()


def boxes(*rows: tuple[float, float, float, float]) -> dict[str, list]:
    sides = ("ymin", "xmin", "ymax", "xmax")
    return {f"bbox__{side}": [float(row[column]) for row in rows] for column, side in enumerate(sides)}


@functools.cache
def decoder(names: ClassNames | None, options: DecodeOptions):
    return tf.function(RecordDecoder(options, names), autograph=False)


def decode(serialized: bytes, names: ClassNames | None = None, **options):
    return decoder(names, DecodeOptions(**options))(tf.constant(serialized))


def issue_of(decoded) -> dict[str, int]:
    return {reason: int(count) for reason, count in zip(REASONS, decoded.issues) if count}


def test_every_field_arrives():
    decoded = decode(
        example(
            **boxes((0.1, 0.2, 0.5, 0.6), (0.0, 0.0, 1.0, 1.0)),
            class__label=[3, 1],
            weight=[0.5, 1.0],
            area=[12.5, 30.0],
            is_crowd=[0, 0],
            group_of=[0, 1],
            difficult=[1, 0],
        )
    )
    sample = decoded.sample
    np.testing.assert_array_equal(sample.image, pixels())
    np.testing.assert_allclose(sample.boxes_norm, [[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]])
    np.testing.assert_array_equal(sample.classes, [2, 0])  # ids start at 1, classes at 0
    np.testing.assert_array_equal(sample.weights, [0.5, 1.0])
    np.testing.assert_array_equal(sample.area_px, [12.5, 30.0])
    np.testing.assert_array_equal(sample.is_crowd, [False, True])  # a group counts as a crowd
    np.testing.assert_array_equal(sample.is_difficult, [True, False])
    assert sample.masks is None
    assert bool(decoded.usable)
    assert issue_of(decoded) == {}


def test_missing_optional_keys_have_defaults():
    sample = decode(example(**boxes((0.1, 0.2, 0.5, 0.6)), class__label=[1])).sample
    assert [field.numpy().tolist() for field in sample[3:7]] == [[1.0], [False], [False], [0.0]]


def test_an_image_without_boxes_is_usable():
    decoded = decode(example())
    assert bool(decoded.usable)
    assert decoded.sample.boxes_norm.shape == (0, 4)


@pytest.mark.parametrize("serialized", [b"", example(b"")])
def test_an_empty_record_or_image_is_dropped_and_counted(serialized):
    decoded = decode(serialized)
    assert not bool(decoded.usable)
    assert issue_of(decoded) == {"missing_image": 1}


def test_lists_of_different_lengths_are_dropped_and_counted():
    ragged = boxes((0.1, 0.2, 0.5, 0.6)) | {"bbox__ymin": [0.1, 0.2]}
    for record in (example(**ragged, class__label=[1]), example(**boxes((0.1, 0.2, 0.5, 0.6)), class__label=[1, 2])):
        decoded = decode(record)
        assert not bool(decoded.usable)
        assert issue_of(decoded) == {"inconsistent_record": 1}


@pytest.mark.parametrize("encoded", [b"not an image", PNG[:40], b"\xff\xd8\xff broken"])
def test_a_corrupt_image_raises_inside_the_graph(encoded):
    with pytest.raises(tf.errors.OpError, match=r".+"):
        decode(example(encoded))


def test_labels_come_from_text_then_from_the_label():
    names = ClassNames({"cat": 1, "dog": 7}, [1, 7])
    four = boxes(*[(0.1, 0.1, 0.5, 0.5)] * 4)
    decoded = decode(example(**four, class__text=["dog", "", "cow", "cat"], class__label=[1, 7, 1, 99]), names)
    np.testing.assert_array_equal(decoded.sample.classes, [6, 6, 0])  # an unknown name is not replaced by its label
    assert issue_of(decoded) == {"unknown_class": 1}


def test_a_label_without_a_name_is_dropped_with_a_label_map_only():
    record = example(**boxes(*[(0.1, 0.1, 0.5, 0.5)] * 3), class__label=[1, 5, 0])
    named = decode(record, ClassNames({"cat": 1, "dog": 7}, [1, 7]))
    np.testing.assert_array_equal(named.sample.classes, [0])
    assert issue_of(named) == {"unknown_class": 2}
    unnamed = decode(record)
    np.testing.assert_array_equal(unnamed.sample.classes, [0, 4])
    assert issue_of(unnamed) == {"unknown_class": 1}  # 0 is the background


def test_broken_boxes_are_repaired_or_dropped():
    rows = [
        (float("nan"), 0.0, 1.0, 1.0),
        (0.5, 0.6, 0.1, 0.2),  # inverted: exchanged
        (0.3, 0.2, 0.3, 0.6),  # no height
        (-0.2, 0.5, 0.5, 1.5),  # reaches beyond: clipped
        (1.1, 0.0, 1.4, 0.5),  # outside entirely: nothing is left
        (0.0, 0.0, float("inf"), 1.0),
        (0.0, 0.0, 1.00001, 1.0),  # rounding, no data issue
    ]
    decoded = decode(example(**boxes(*rows), class__label=[1, 2, 3, 4, 5, 6, 7]))
    np.testing.assert_allclose(
        decoded.sample.boxes_norm, [[0.1, 0.2, 0.5, 0.6], [0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]]
    )
    np.testing.assert_array_equal(decoded.sample.classes, [1, 3, 6])
    expected = {"nan_box": 2, "empty_box": 2, "inverted_box": 1, "box_outside_image": 1}
    assert issue_of(decoded) == expected


def test_other_numbers_that_are_not_finite_are_replaced():
    record = example(**boxes((0, 0, 1, 1)), class__label=[1], weight=[float("nan")], area=[float("inf")])
    sample = decode(record).sample
    assert (float(sample.weights[0]), float(sample.area_px[0])) == (1.0, 0.0)


def test_boxes_beyond_the_maximum_are_dropped_and_counted():
    record = example(**boxes(*[(0.1, 0.1, 0.5, 0.5)] * 5), class__label=[1, 2, 3, 4, 5])
    decoded = decode(record, max_number_of_boxes=3)
    np.testing.assert_array_equal(decoded.sample.classes, [0, 1, 2])
    assert issue_of(decoded) == {"too_many_boxes": 2}


MASKS = np.zeros((2, HEIGHT, WIDTH), np.uint8)
MASKS[0, 1:3, 2:5] = 1
MASKS[1, 4:, :3] = 1


@pytest.mark.parametrize("png", [True, False])
def test_masks_of_both_kinds(png):
    mask = [encode(Image.fromarray(plane)) for plane in MASKS] if png else MASKS.ravel().astype(float).tolist()
    record = example(**boxes((0.1, 0.2, 0.5, 0.6), (0.6, 0.0, 1.0, 0.4)), class__label=[1, 2], mask=mask)
    decoded = decode(record, load_instance_masks=True, png_masks=png)
    np.testing.assert_array_equal(decoded.sample.masks, MASKS)


def test_masks_of_dropped_objects_are_dropped():
    mask = [encode(Image.fromarray(plane)) for plane in MASKS]
    record = example(**boxes((0.1, 0.2, 0.1, 0.6), (0.6, 0.0, 1.0, 0.4)), class__label=[1, 2], mask=mask)
    decoded = decode(record, load_instance_masks=True, png_masks=True)
    np.testing.assert_array_equal(decoded.sample.masks, MASKS[1:])


def test_objects_without_the_masks_asked_for_are_counted():
    record = example(**boxes((0.1, 0.2, 0.5, 0.6)), class__label=[1])
    for png in (True, False):
        decoded = decode(record, load_instance_masks=True, png_masks=png)
        assert not bool(decoded.usable)
        assert issue_of(decoded) == {"missing_masks": 1}
        empty = decode(example(), load_instance_masks=True, png_masks=png)
        assert bool(empty.usable)
        assert empty.sample.masks.shape == (0, HEIGHT, WIDTH)


def test_a_mask_of_another_size_raises_inside_the_graph():
    record = example(**boxes((0, 0, 1, 1)), class__label=[1], mask=[encode(Image.fromarray(MASKS[0, 1:]))])
    with pytest.raises(tf.errors.OpError, match="reshape"):
        decode(record, load_instance_masks=True, png_masks=True)


SMOOTH = np.repeat(np.repeat(pixels()[::2, ::3], 16, axis=0), 16, axis=1)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[("RGB", kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")],
        *[("L", "JPEG"), ("L", "PNG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")],
    ],
)
def test_formats_and_modes(mode, kind):
    image = Image.fromarray(SMOOTH).convert(mode)
    decoded = decode_image(tf.constant(encode(image, kind)))
    assert decoded.dtype == tf.uint8
    expected = np.asarray(image.convert("RGB"), np.float32)
    assert decoded.shape == expected.shape
    assert np.abs(np.asarray(decoded, np.float32) - expected).mean() < (8 if kind in ("GIF", "JPEG", "WEBP") else 1)


def test_sixteen_bits_keep_the_high_byte():
    values = (np.arange(54).reshape(6, 9) * 1200).astype(np.uint16)
    decoded = decode_image(tf.constant(encode(Image.fromarray(values))))
    assert np.abs(np.asarray(decoded[..., 0], np.float32) - values / 257).max() <= 1


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (9, 6), color) for color in ((250, 0, 0), (0, 0, 250))]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(tf.constant(encoded)), np.full((6, 9, 3), (250, 0, 0)))


def test_the_orientation_tag_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    assert decode_image(tf.constant(encoded)).shape == SMOOTH.shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_an_image_of_too_many_pixels_is_counted_and_not_decoded(kind):
    encoded = encode(Image.fromarray(SMOOTH), kind)  # 48 x 48 = 2304 pixels
    record = example(encoded, **boxes((0, 0, 1, 1)), class__label=[1])
    with limited_to(0.002303):
        decoded = RecordDecoder(DecodeOptions())(tf.constant(record))
    assert not bool(decoded.usable)
    assert decoded.sample.image.shape == (1, 1, 3)
    assert issue_of(decoded) == {"too_many_pixels": 1}
    with limited_to(0.002304):
        decoded = RecordDecoder(DecodeOptions())(tf.constant(record))
    assert bool(decoded.usable)
    assert decoded.sample.image.shape == SMOOTH.shape


def test_a_header_of_a_gigabyte_costs_no_memory(monkeypatch):
    # Width and height are bytes 16 to 23 of a PNG; what follows is never read.
    huge = PNG[:16] + (30000).to_bytes(4, "big") * 2 + PNG[24:]
    monkeypatch.setattr(tf.io, "decode_png", lambda *_, **__: tf.debugging.Assert(False, ["decoded"]))
    decoded = RecordDecoder(DecodeOptions())(tf.constant(example(huge)))
    assert issue_of(decoded) == {"too_many_pixels": 1}


def test_real_records_with_every_field(shared):
    path = str(shared / "data" / "odapi_test" / "pets_examples.record")
    names = ClassNames({"chihuahua": 11}, range(1, 38))
    decoded = [decoder(names, DecodeOptions())(record) for record in tf.data.TFRecordDataset(path)]
    assert len(decoded) == 10
    first = decoded[0]
    assert first.image_id == b"chihuahua_153.jpg"
    assert first.sample.image.shape == (225, 300, 3)
    np.testing.assert_allclose(first.sample.boxes_norm, [[0.24, 0.39666668, 0.5688889, 0.76]], rtol=1e-6)
    np.testing.assert_array_equal(first.sample.classes, [10])


def test_labels_of_whole_images_are_looked_up_as_those_of_objects():
    names = ClassNames({"cat": 1, "dog": 2, "emu": 5}, [1, 2, 5])

    def labeled(texts=(), labels=()):
        message = tf.train.Example.FromString(example())
        message.features.feature["image/class/text"].bytes_list.value.extend(text.encode() for text in texts)
        message.features.feature["image/class/label"].int64_list.value.extend(labels)
        found = decode(message.SerializeToString(), names, load_image_labels=True).labeled_classes
        assert found.shape == (5,)
        return [int(row) + 1 for row in np.flatnonzero(found)]

    assert labeled(["emu", "cat"]) == [1, 5]
    assert labeled(labels=[2, 2, 5]) == [2, 5]
    assert labeled(["yak", "dog"], [1, 1]) == [2]  # a name that is not in the map is not helped by its number
    assert labeled(labels=[3, 9]) == []
    assert labeled() == []
    assert decode(example(), names).labeled_classes == ()


def test_labels_of_whole_images_need_a_label_map():
    with pytest.raises(ConfigError, match="need a label map: set label_map_path"):
        RecordDecoder(DecodeOptions(load_image_labels=True))


def three_objects(**features: list) -> bytes:
    return example(**boxes(*[(0.1, 0.2, 0.5, 0.6)] * 3), **{"class__label": [1, 2, 3], **features})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 10_000.1, 3e38])
def test_weights_that_break_a_loss_become_1_and_are_counted(value):
    decoded = decode(three_objects(weight=[value, 10_000.0, 0.0]))
    assert decoded.sample.weights.numpy().tolist() == [1.0, 10_000.0, 0.0]
    assert issue_of(decoded) == {"wrong_weight": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_areas_that_are_none_become_unknown_and_are_counted(value):
    decoded = decode(three_objects(area=[value, 10.0, 0.0]))
    assert decoded.sample.area_px.numpy().tolist() == [0.0, 10.0, 0.0]
    assert issue_of(decoded) == {"wrong_area": 1}


@pytest.mark.parametrize("label", [-(2**63), -1, 0, 2**31, 2**32 + 1, 2**63 - 1])
def test_class_ids_beyond_int32_are_unknown(label):
    # 2**32 + 1 in 32 bits would be class 1.
    decoded = decode(three_objects(class__label=[label, 2, 3]))
    assert decoded.sample.classes.numpy().tolist() == [1, 2]
    assert issue_of(decoded) == {"unknown_class": 1}
