"""Repair of one image and its boxes: pixels, orientation, stated sizes, boxes, masks, areas."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from detzoo.datasets import repair
from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject
from detzoo.errors import UsageError
from detzoo.files import images as image_files
from detzoo.files.issues import Action, DataIssue
from detzoo.files.pixel_limit import VARIABLE, limited_to

NAN = float("nan")


def kinds(flaws) -> list[DataIssue]:
    return [flaw[0] for flaw in flaws]


def annotated(*boxes, size=None, normalized=False, **fields) -> AnnotatedImage:
    objects = tuple(AnnotatedObject(box, "red", f"file:{number}", **fields) for number, box in enumerate(boxes))
    path = pathlib.Path("a.png")
    return AnnotatedImage(path, "a.png", "a", objects, declared_size=size, boxes_are_normalized=normalized)


def upright(size=(100, 200), orientation=1) -> image_files.RepairedImage:
    return image_files.RepairedImage(b"", "png", size, orientation, ())


@pytest.mark.parametrize(("kind", "image_format"), [("PNG", "png"), ("JPEG", "jpeg"), ("MPO", "jpeg")])
def test_a_plain_image_keeps_its_bytes(images, kind, image_format):
    content = images.encode(images.scene(), kind)
    repaired = image_files.repair_image(content, f"a.{image_format}")
    assert repaired.encoded is content
    assert repaired[1:] == (image_format, (24, 40), 1, ())


def test_gray_and_palette_and_alpha_become_rgb_with_the_same_colours(images):
    scene = images.scene()
    gray = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40)
    transparent = np.dstack([scene, np.full((24, 40), 7, np.uint8)])
    cases = [
        (images.encode(gray), [DataIssue.GRAY], np.repeat(gray[..., None], 3, 2)),
        (images.encode(gray > 99, mode="1"), [DataIssue.GRAY], np.repeat((gray > 99)[..., None] * np.uint8(255), 3, 2)),
        (images.encode(Image.fromarray(scene).quantize(4)), [DataIssue.PALETTE], scene),
        (images.encode(transparent), [DataIssue.ALPHA], scene),
        (images.encode(np.dstack([gray, gray])), [DataIssue.GRAY, DataIssue.ALPHA], np.repeat(gray[..., None], 3, 2)),
    ]
    for content, expected_kinds, expected in cases:
        repaired = image_files.repair_image(content, "a.png")
        assert kinds(repaired.flaws) == expected_kinds
        np.testing.assert_array_equal(images.decode(repaired.encoded), expected)
        assert repaired.image_format == "png"


def test_cmyk_becomes_rgb(images):
    # Without ink profiles R = 255 - C - K (clipped), and so on: white, red, and black by K alone.
    pixels = np.zeros((16, 48, 4), np.uint8)
    pixels[:, 16:32] = (0, 255, 255, 0)
    pixels[:, 32:] = (0, 0, 0, 255)
    content = images.encode(Image.fromarray(pixels, "CMYK"), "JPEG", quality=100, subsampling=0)
    repaired = image_files.repair_image(content, "a.jpg")
    assert kinds(repaired.flaws) == [DataIssue.CMYK]
    assert repaired.image_format == "jpeg"
    shown = images.decode(repaired.encoded)
    assert shown.shape == (16, 48, 3)
    np.testing.assert_allclose(shown[8, [8, 24, 40]], [[255, 255, 255], [255, 0, 0], [0, 0, 0]], atol=4)


def test_sixteen_bits_are_cut_to_the_upper_eight(images):
    # 0x1234 -> 0x12 = 18, 0xFFFF -> 255, 0x00FF -> 0, whichever tool wrote the file.
    gray = np.array([[0x1234, 0xFFFF], [0x00FF, 0x8000]], np.uint16)
    colour = np.dstack([gray, gray.T, np.full_like(gray, 0x0500)])
    cut = np.array([[18, 255], [0, 128]], np.uint8)
    cases = [
        (images.deep_png(gray), "a.png", np.dstack([cut, cut, cut])),
        (images.deep_png(colour), "a.png", np.dstack([cut, cut.T, np.full_like(cut, 5)])),
        (images.encode(gray, "TIFF"), "a.tif", np.dstack([cut, cut, cut])),
    ]
    for content, name, expected in cases:
        repaired = image_files.repair_image(content, name)
        assert DataIssue.DEEP_PIXELS in kinds(repaired.flaws)
        np.testing.assert_array_equal(images.decode(repaired.encoded), expected)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(images, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    first, second = Image.fromarray(images.scene()), Image.fromarray(255 - images.scene())
    content = images.encode(first, kind, save_all=True, append_images=[second], **options)
    repaired = image_files.repair_image(content, f"a.{kind.lower()}")
    assert (DataIssue.ANIMATED, "2 frames") in repaired.flaws
    assert repaired.size == (24, 40)
    np.testing.assert_allclose(images.decode(repaired.encoded).astype(int), images.scene(), atol=25)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF", "WEBP"])
def test_other_formats_are_encoded_anew(images, kind):
    repaired = image_files.repair_image(images.encode(images.scene(), kind), f"a.{kind.lower()}")
    assert (DataIssue.OTHER_FORMAT, kind) in repaired.flaws
    assert repaired.image_format == ("jpeg" if kind == "WEBP" else "png")
    assert Image.open(io.BytesIO(repaired.encoded)).format == repaired.image_format.upper()


def test_a_wrong_extension_is_noted_and_the_bytes_are_kept(images):
    content = images.encode(images.scene(), "PNG")
    repaired = image_files.repair_image(content, "a.jpg")
    assert repaired.flaws == ((DataIssue.WRONG_EXTENSION, "content is PNG"),)
    assert DataIssue.WRONG_EXTENSION.action is Action.NOTED
    assert repaired.encoded is content
    assert repaired.image_format == "png"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda images: b"", DataIssue.IMAGE_EMPTY),
        (lambda images: b"<html>404</html>", DataIssue.IMAGE_UNKNOWN),
        (lambda images: images.encode(images.scene(), "JPEG")[:-200], DataIssue.IMAGE_CORRUPT),
        (lambda images: images.encode(images.scene(), "PNG")[:-40], DataIssue.IMAGE_CORRUPT),
        (lambda images: images.encode(images.scene(), "PNG")[:20], DataIssue.IMAGE_CORRUPT),
        # Pillow shows these, TensorFlow does not: without the closing chunk, and with altered pixel data.
        (lambda images: images.encode(images.scene(), "PNG")[:-12], DataIssue.IMAGE_CORRUPT),
        (lambda images: images.encode(images.scene(), "PNG")[:50] + b"\xff" * 40, DataIssue.IMAGE_CORRUPT),
        (lambda images: images.encode(np.ones((4, 4), np.float32), "TIFF"), DataIssue.IMAGE_PIXEL_TYPE),
    ],
)
def test_what_has_no_right_answer_is_refused_with_its_reason(images, make, expected):
    with pytest.raises(image_files.UnusableImage, match=r".+") as refused:
        image_files.repair_image(make(images), "a.jpg")
    assert refused.value.issue is expected
    assert expected.action is Action.IMAGE_SKIPPED


def test_an_image_of_too_many_pixels_is_refused(images):
    content = images.encode(images.scene())  # 24 x 40 = 960 pixels
    with limited_to(0.00096):
        assert image_files.repair_image(content, "a.png").size == (24, 40)
    with (
        limited_to(0.000959),
        pytest.raises(image_files.UnusableImage, match=r"40 x 24 = 960 pixels.*megapixels=0") as refused,
    ):
        image_files.repair_image(content, "a.png")
    assert refused.value.issue is DataIssue.IMAGE_HUGE


def bomb(width, height):
    """A PNG whose header states a size, and that has no pixels: decoding it is an error, after its memory was made."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(("size", "issue"), [((10000, 10000), "IMAGE_CORRUPT"), ((10001, 10000), "IMAGE_HUGE")])
def test_the_limit_is_a_hundred_megapixels_and_read_from_the_header(monkeypatch, size, issue):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(Image.Image, "load", lambda image: (_ for _ in ()).throw(OSError("decoded")))
    with pytest.raises(image_files.UnusableImage, match=r"decoded|100010000 pixels") as refused:
        image_files.repair_image(bomb(*size), "a.png")
    assert refused.value.issue.name == issue


def test_a_size_beyond_pillows_own_limit_is_refused_by_the_flags_name():
    with pytest.raises(image_files.UnusableImage, match=r"4611686014132420609 pixels.*--max_image_megapixels=100"):
        image_files.repair_image(bomb(2**31 - 1, 2**31 - 1), "a.png")


def test_a_limit_that_is_no_number_is_an_error_of_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(UsageError, match=f"{VARIABLE} is 'many'"):
        image_files.repair_image(bomb(1, 1), "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about the tags of TIFF
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "MPO"])
def test_a_mutated_file_is_read_or_refused_and_nothing_else(images, kind):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010E] = 6, 72.0, "a scene"
    scene = Image.fromarray(images.scene())
    several = {"save_all": True, "append_images": [scene.rotate(180)]} if kind not in ("JPEG", "BMP") else {}
    content = images.encode(scene, kind, exif=exif, **several)
    generator = np.random.default_rng(0)
    for _ in range(60):
        mutated = np.frombuffer(content, np.uint8).copy()
        places = generator.integers(0, min(len(mutated), 400), generator.integers(1, 6))
        mutated[places] = generator.choice([0, 1, 127, 255], len(places))
        cut = mutated[: generator.integers(1, len(mutated))] if generator.random() < 0.3 else mutated
        with contextlib.suppress(image_files.UnusableImage):
            assert image_files.repair_image(cut.tobytes(), "a").encoded


def test_a_broken_exif_block_costs_neither_the_image_nor_its_orientation(images):
    # A text (tag 0x010E, of type 2) that is a double (type 12): Pillow reads it, and fails to write it again.
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "12345678"
    stored = np.ascontiguousarray(images.stored_for(images.scene(), 6))
    content = images.encode(stored, "JPEG", quality=95, subsampling=0, exif=exif)
    for order in (">", "<"):
        text_entry = struct.pack(order + "HHI", 0x010E, 2, 9)
        content = content.replace(text_entry, struct.pack(order + "HHI", 0x010E, 12, 1))
    repaired = image_files.repair_image(content, "a.jpg")
    assert (repaired.size, repaired.orientation) == ((24, 40), 6)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_what_is_no_regular_file_is_not_read(tmp_path, make):
    make(tmp_path / "a.jpg")
    with pytest.raises(image_files.UnusableImage, match=r"not a regular file|Is a directory") as refused:
        image_files.read_upright(tmp_path / "a.jpg")
    assert refused.value.issue is DataIssue.IMAGE_UNKNOWN


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(801_000_000)  # 100 million pixels of 8 bytes are 800 MB
    with pytest.raises(image_files.UnusableImage, match="801 MB, more than"):
        image_files.read_upright(tmp_path / "a.jpg")


def test_a_missing_file_has_its_own_reason(tmp_path):
    (tmp_path / "link.jpg").symlink_to("nowhere")
    for name in ("gone.jpg", "link.jpg", "nul\0.jpg"):
        with pytest.raises(image_files.UnusableImage, match=r".+") as refused:
            image_files.read_upright(tmp_path / name)
        assert refused.value.issue is DataIssue.IMAGE_MISSING


def test_programs_are_not_run_to_draw_an_image(images):
    with pytest.raises(image_files.UnusableImage, match="not an image of a known format"):
        image_files.repair_image(images.encode(images.scene(), "EPS"), "a.eps")


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_stored_pixels_are_turned_upright(images, orientation, kind):
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    repaired = image_files.repair_image(
        images.with_exif(images.scene(), orientation, kind, **options), "a." + kind.lower()
    )
    assert (DataIssue.EXIF_ROTATED, f"orientation {orientation}") in repaired.flaws
    assert (repaired.size, repaired.orientation) == ((24, 40), orientation)
    picture = Image.open(io.BytesIO(repaired.encoded))
    assert not picture.getexif(), "a reader that heeds the tag would turn the image once more"
    np.testing.assert_allclose(np.asarray(picture).astype(int), images.scene(), atol=25)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_on_stored_pixels_are_turned_with_them(images, orientation):
    # The rectangle is looked for in the stored pixels, its box turned, and looked for again in the upright ones.
    stored = images.red_extent(images.encode(np.ascontiguousarray(images.stored_for(images.scene(), orientation))))
    turned = repair.turn_box(stored, orientation)
    np.testing.assert_allclose(turned, (6 / 24, 10 / 40, 14 / 24, 30 / 40), atol=1e-12)
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    np.testing.assert_allclose(repair.turn_box(turned, inverse), stored, atol=1e-12)


def test_the_stated_size_decides_which_pixels_were_annotated():
    # Upright 100 x 200 (height x width) out of stored 200 x 100, orientation 6. Stated as stored: the box is turned;
    # a stored row r is seen in column 200 - r, a stored column c in row c.
    turned_image = upright((100, 200), 6)
    box = (40.0, 10.0, 80.0, 30.0)
    (item,), findings = repair.repair_objects(annotated(box, size=(200, 100)), turned_image)
    assert findings == []
    np.testing.assert_allclose(item.box_norm, (10 / 100, 120 / 200, 30 / 100, 160 / 200), atol=1e-7)
    # The box is unchanged if the stated size is that of the shown image, or if no size is stated.
    for size in ((100, 200), None):
        (item,), findings = repair.repair_objects(annotated(box, size=size), turned_image)
        assert findings == []
        np.testing.assert_allclose(item.box_norm, (40 / 100, 10 / 200, 80 / 100, 30 / 200), atol=1e-7)


def test_a_stated_size_of_the_same_shape_scales_the_boxes():
    (item,), findings = repair.repair_objects(annotated((100.0, 100.0, 300.0, 400.0), size=(400, 800)), upright())
    np.testing.assert_allclose(item.box_norm, (0.25, 0.125, 0.75, 0.5), atol=1e-7)
    assert [(finding.issue, finding.where, finding.detail) for finding in findings] == [
        (DataIssue.SIZE_SCALED, "a.png", "stated 800 x 400, is 200 x 100")
    ]
    assert item.area_px == pytest.approx(0.5 * 0.375 * 100 * 200)


@pytest.mark.parametrize("size", [(300, 301), (0, 200), (-100, -200)])
def test_a_wrong_stated_size_leaves_the_boxes_where_they_are(size):
    (item,), findings = repair.repair_objects(annotated((10.0, 20.0, 50.0, 100.0), size=size), upright())
    np.testing.assert_allclose(item.box_norm, (0.1, 0.1, 0.5, 0.5), atol=1e-7)
    assert kinds(findings) == [DataIssue.SIZE_WRONG]


@pytest.mark.parametrize(
    ("box", "expected", "found"),
    [
        ((10, 20, 50, 100), (0.1, 0.1, 0.5, 0.5), []),
        ((50, 20, 10, 100), (0.1, 0.1, 0.5, 0.5), [DataIssue.BOX_INVERTED]),
        ((10, 100, 50, 20), (0.1, 0.1, 0.5, 0.5), [DataIssue.BOX_INVERTED]),
        ((-30, 20, 50, 260), (0.0, 0.1, 0.5, 1.0), [DataIssue.BOX_CLIPPED]),
        ((-0.4, 20, 50, 200.4), (0.0, 0.1, 0.5, 1.0), []),  # less than half a pixel is rounding
        ((0, 0, 100, 200), (0.0, 0.0, 1.0, 1.0), []),
        ((110, 20, 150, 100), None, [DataIssue.BOX_OUTSIDE]),
        ((10, -50, 50, 0), None, [DataIssue.BOX_OUTSIDE]),
        ((10, 20, 10, 100), None, [DataIssue.BOX_WITHOUT_AREA]),
        ((10, 20, 50, 20), None, [DataIssue.BOX_WITHOUT_AREA]),
        ((NAN, 20, 50, 100), None, [DataIssue.BOX_NOT_FINITE]),
        ((10, 20, float("inf"), 100), None, [DataIssue.BOX_NOT_FINITE]),
        ((150, 20, 110, 100), None, [DataIssue.BOX_INVERTED, DataIssue.BOX_OUTSIDE]),
        # Nothing is left of a width below the resolution of float32.
        ((10, 20, 50, 20 + 1e-9), None, [DataIssue.BOX_WITHOUT_AREA]),
    ],
)
def test_boxes_in_pixels(box, expected, found):
    objects, findings = repair.repair_objects(annotated(box), upright())
    assert kinds(findings) == found
    assert all(finding.where == "file:0" for finding in findings)
    if expected is None:
        assert objects == []
    else:
        np.testing.assert_allclose(objects[0].box_norm, expected, atol=1e-7)


def test_the_others_of_an_image_survive_a_broken_box():
    objects, findings = repair.repair_objects(annotated((10, 20, 50, 100), (NAN, 0, 1, 1), (0, 0, 100, 200)), upright())
    assert [item.source.where for item in objects] == ["file:0", "file:2"]
    assert [finding.where for finding in findings] == ["file:1"]


def test_boxes_in_fractions_are_clipped_with_the_same_tolerance():
    # Half a pixel is 0.0025 of 200 columns.
    objects, findings = repair.repair_objects(
        annotated((0.1, -0.002, 0.5, 0.5), (0.1, -0.1, 0.5, 0.5), normalized=True), upright()
    )
    assert [item.box_norm[1] for item in objects] == [0.0, 0.0]
    assert [(finding.issue, finding.where, finding.detail) for finding in findings] == [
        (DataIssue.BOX_CLIPPED, "file:1", "by 20 pixels")
    ]


def test_the_area_is_as_annotated_else_of_the_mask_else_of_the_box():
    def half(height, width):
        mask = np.zeros((height, width), np.uint8)
        mask[:10, :7] = 1
        return mask

    box = (10.0, 20.0, 50.0, 100.0)
    cases = [({"area_px": 123.0}, 123.0), ({"area_px": NAN}, 3200.0), ({"area_px": 0.0}, 3200.0), ({}, 3200.0)]
    for fields, expected in [*cases, ({"mask": half}, 70.0)]:
        (item,), findings = repair.repair_objects(annotated(box, **fields), upright())
        assert item.area_px == pytest.approx(expected)
        assert findings == []
    # Annotated on twice the height and width: a quarter of the area.
    (item,), _ = repair.repair_objects(annotated(box, size=(200, 400), area_px=123.0), upright())
    assert item.area_px == pytest.approx(123.0 / 4)


def test_masks_are_turned_and_scaled_with_the_image(images):
    scene = images.scene()
    stored = images.stored_for(scene, 6)
    on_stored = (stored[..., 0] > 100).astype(np.uint8)
    image = image_files.repair_image(images.with_exif(scene, 6), "a.png")
    extent = images.red_extent(images.encode(np.ascontiguousarray(stored)))
    box = tuple(np.multiply(extent, (40, 24, 40, 24)))
    (item,), findings = repair.repair_objects(annotated(box, size=(40, 24), mask=lambda *_: on_stored), image)
    assert findings == []
    np.testing.assert_array_equal(item.mask, scene[..., 0] > 100)
    np.testing.assert_allclose(item.box_norm, images.red_extent(image.encoded), atol=1e-7)
    # Annotated on half the height and width: each pixel of the mask becomes 2 x 2.
    small = np.zeros((12, 20), np.uint8)
    small[3:7, 5:15] = 1
    plain = image_files.repair_image(images.encode(scene), "a.png")
    (item,), _ = repair.repair_objects(annotated((3, 5, 7, 15), size=(12, 20), mask=lambda *_: small), plain)
    np.testing.assert_array_equal(item.mask, scene[..., 0] > 100)


def test_a_mask_that_cannot_be_drawn_is_left_empty():
    def broken(height, width):
        raise ValueError("odd number of coordinates")

    box = (10.0, 20.0, 50.0, 100.0)
    for draw, detail in ((broken, "odd number"), (lambda *_: np.zeros((3, 4)), r"shape \(3, 4\) for 100 x 200")):
        (item,), findings = repair.repair_objects(annotated(box, mask=draw), upright())
        assert kinds(findings) == [DataIssue.MASK_UNREADABLE]
        assert re.search(detail, findings[0].detail)
        assert item.mask.shape == (100, 200)
        assert not item.mask.any()
        assert item.area_px == pytest.approx(3200.0)


def test_masks_are_left_alone_where_they_are_not_wanted():
    def never(height, width):
        raise AssertionError("drawn")

    (item,), findings = repair.repair_objects(annotated((1, 2, 3, 4), mask=never), upright(), with_masks=False)
    assert item.mask is None
    assert findings == []
