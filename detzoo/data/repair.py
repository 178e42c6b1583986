"""Repairs what has one right answer in an image and its boxes, and says what it did; the rest is refused with a reason.

Images become upright 8-bit RGB JPEG or PNG; well-formed ones pass through byte for byte. Boxes become finite, ordered
fractions of the upright image with an area.

EXIF orientation. Stored pixels are turned upright, because people annotate what a viewer shows them (OpenCV,
Ultralytics and current annotation tools all show the upright image) and because decoders in a training input ignore
the tag. Boxes are taken to lie on the upright image, unless the annotation states the size of the *stored* pixels,
height and width exchanged: then its tool ignored the tag, and the boxes are turned with the pixels.

Stated size. The image's own size counts. Boxes in pixels stay where they are, unless the stated size has the same
shape as the image (to one pixel): then the image was resized after it was annotated, and the boxes are scaled.
"""

from __future__ import annotations

import io
import math
import pathlib
import stat
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from detzoo.data.annotations import AnnotatedImage, AnnotatedObject
from detzoo.data.dirt import Dirt, Finding
from detzoo.data.pixel_limit import as_flag, max_pixels
from detzoo.errors import DetzooError

Result = TypeVar("Result")

EXIF_ORIENTATION = 0x0112
MAX_BYTES_PER_PIXEL = 8  # of a file: four channels of 16 bits, not compressed
# Formats of pixels; JPEG has MPO. Pillow has others that run programs (EPS) or draw what a file describes.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
JPEG_QUALITY = 95  # of images that have to be encoded again
JPEG_FORMATS = ("JPEG", "MPO")  # MPO is a JPEG with more pictures behind it; decoders read the first
SUFFIX_FORMATS = {
    ".jpg": JPEG_FORMATS,
    ".jpeg": JPEG_FORMATS,
    ".png": ("PNG",),
    ".bmp": ("BMP", "DIB"),
    ".gif": ("GIF",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".webp": ("WEBP",),
}
CLIP_TOLERANCE_PX = 0.5  # a box that leaves the image by less is rounding, not dirt

# How to show stored pixels upright, by EXIF orientation.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(Exception):
    """An image that cannot be repaired; ``dirt`` says why."""

    def __init__(self, dirt: Dirt, detail: str = "") -> None:
        super().__init__(detail or dirt.text)
        self.dirt = dirt
        self.detail = detail


class RepairedImage(NamedTuple):
    """An upright 8-bit RGB image, encoded, and what had to be done to it."""

    encoded: bytes
    image_format: str  # "jpeg" or "png"
    size: tuple[int, int]  # (height, width), upright
    orientation: int  # EXIF orientation of the source, 1..8
    flaws: tuple[tuple[Dirt, str], ...]  # what was repaired, with details


class RepairedObject(NamedTuple):
    """An object whose box is (ymin, xmin, ymax, xmax) in fractions of the upright image, with an area."""

    box_norm: tuple[float, float, float, float]
    area_px: float
    mask: np.ndarray | None  # uint8 [height, width] of the upright image
    source: AnnotatedObject


def repair_image(content: bytes, filename: str) -> RepairedImage:
    """Checks an encoded image by decoding it, and encodes it again only where it is not plain upright RGB.

    Args:
        content: the bytes of the image file.
        filename: its name; only the suffix matters.

    Raises:
        UnusableImage: the image is empty, unknown, too large, corrupt, or has pixels without one way to 8-bit RGB.
    """
    image, flaws = decode_image(content, filename)
    lossy = image.format in (*JPEG_FORMATS, "WEBP")
    if image.format not in (*JPEG_FORMATS, "PNG"):
        flaws.append((Dirt.OTHER_FORMAT, image.format or ""))
    orientation = next((int(text.split()[-1]) for dirt, text in flaws if dirt is Dirt.EXIF_ROTATED), 1)
    size = (image.height, image.width)
    if any(dirt is not Dirt.WRONG_EXTENSION for dirt, _ in flaws):
        pixels = _of_one_image(upright_rgb, image)
        size = (pixels.height, pixels.width)
        content = encode_image(pixels, lossy=lossy)
    return RepairedImage(content, "jpeg" if lossy else "png", size, orientation, tuple(flaws))


def read_upright(path: pathlib.Path) -> np.ndarray:
    """Returns an image file as uint8 [H, W, 3], RGB, turned as its EXIF orientation says.

    Raises:
        UnusableImage: the file cannot be read, or holds no image, one of too many pixels, or a broken one.
    """
    image, _ = decode_image(read_content(path), path.name)
    return np.asarray(_of_one_image(upright_rgb, image))


def read_content(path: pathlib.Path) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        UnusableImage: the file is missing, not a regular one (a device, a pipe), too large, or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnusableImage(Dirt.IMAGE_UNKNOWN, "not a regular file")
        if found.st_size > MAX_BYTES_PER_PIXEL * max_pixels():
            raise UnusableImage(
                Dirt.IMAGE_HUGE, f"{found.st_size / 1e6:.0f} MB, more than any image of {as_flag()} needs"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UnusableImage(Dirt.IMAGE_MISSING) from None
    except OSError as error:
        raise UnusableImage(Dirt.IMAGE_CORRUPT, error.strerror or str(error)) from None
    except ValueError as error:  # a NUL in the name
        raise UnusableImage(Dirt.IMAGE_MISSING, str(error)) from None


def decode_image(content: bytes, filename: str) -> tuple[Image.Image, list[tuple[Dirt, str]]]:
    """Decodes the first frame and lists what is unusual about the image, without changing it.

    Every image file that detzoo reads outside of a TensorFlow graph passes here.

    Raises:
        UnusableImage: as ``repair_image``.
    """
    if not content:
        raise UnusableImage(Dirt.IMAGE_EMPTY)
    return _of_one_image(_decode, content, filename)


def open_header(content: bytes) -> Image.Image:
    """Opens an image whose pixels are not decoded yet.

    Raises:
        UnusableImage: it has more pixels than the limit.
        Exception: of any kind, by Pillow.
    """
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # Pillow's own limit, 89 million, warns below ours
    Image.init()
    image = Image.open(io.BytesIO(content), formats=[name for name in Image.ID if name in FORMATS])
    count = image.width * image.height
    if count > limit:
        raise UnusableImage(Dirt.IMAGE_HUGE, f"{image.width} x {image.height} = {count} pixels, more than {as_flag()}")
    return image


def _of_one_image(work: Callable[..., Result], *arguments: object) -> Result:
    """Returns ``work(*arguments)``; any exception of Pillow in it becomes that image's UnusableImage."""
    try:
        return work(*arguments)
    except (UnusableImage, DetzooError):
        raise
    except UnidentifiedImageError:
        raise UnusableImage(Dirt.IMAGE_UNKNOWN) from None
    except Image.DecompressionBombError as error:
        seen = str(error).partition(" exceeds")[0]
        raise UnusableImage(Dirt.IMAGE_HUGE, f"{seen}, more than {as_flag()}") from None
    except Exception as error:  # Pillow's plugins raise all kinds on broken files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnusableImage(Dirt.IMAGE_CORRUPT, reason) from None


def _decode(content: bytes, filename: str) -> tuple[Image.Image, list[tuple[Dirt, str]]]:
    image = open_header(content)
    flaws = _flaws(image, content, filename)
    image.load()
    if image.format == "PNG":
        # Pillow overlooks wrong checksums and a missing end while it loads; other decoders refuse such files.
        open_header(content).verify()
    if image.mode in ("F", "LAB", "HSV") or (image.mode == "I" and image.format != "PNG"):
        raise UnusableImage(Dirt.IMAGE_PIXEL_TYPE, f"{image.format} of mode {image.mode}")
    return image, flaws


def encode_image(image: Image.Image, *, lossy: bool) -> bytes:
    """An RGB image as JPEG of high quality without chroma subsampling, or as PNG; without metadata."""
    clean = Image.fromarray(np.asarray(image))
    buffer = io.BytesIO()
    if lossy:
        clean.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        clean.save(buffer, format="PNG")
    return buffer.getvalue()


def _flaws(image: Image.Image, content: bytes, filename: str) -> list[tuple[Dirt, str]]:
    """What is unusual about an opened, not yet loaded image."""
    flaws = []
    suffix = pathlib.PurePath(filename).suffix.lower()
    if suffix in SUFFIX_FORMATS and image.format not in SUFFIX_FORMATS[suffix]:
        flaws.append((Dirt.WRONG_EXTENSION, f"content is {image.format}"))
    orientation = _orientation(image)
    if orientation != 1:
        flaws.append((Dirt.EXIF_ROTATED, f"orientation {orientation}"))
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        flaws.append((Dirt.ANIMATED, f"{image.n_frames} frames"))  # type: ignore[attr-defined]
    # Bit depth of a PNG is byte 24; Pillow shows a 16-bit colour PNG as 8-bit RGB.
    if image.mode.startswith("I") or (image.format == "PNG" and len(content) > 24 and content[24] == 16):
        flaws.append((Dirt.DEEP_PIXELS, ""))
    elif image.mode in ("L", "1", "LA"):
        flaws.append((Dirt.GRAY, ""))
    elif image.mode == "CMYK":
        flaws.append((Dirt.CMYK, ""))
    elif image.mode in ("P", "PA"):
        flaws.append((Dirt.PALETTE, ""))
    elif image.mode != "RGB" and "A" not in image.mode:
        flaws.append((Dirt.OTHER_FORMAT, f"mode {image.mode}"))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La", "RGBX") or "transparency" in image.info:
        flaws.append((Dirt.ALPHA, ""))
    return flaws


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or it makes no sense."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to lose the image
        return 1
    return orientation if orientation in TRANSPOSES else 1


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turns a decoded image as its EXIF orientation says, and makes it RGB as ``to_rgb``."""
    # Not by ImageOps.exif_transpose, which writes the EXIF block again and fails on broken ones. Pillow has turned a
    # TIFF while loading it, and removed its tag.
    orientation = _orientation(image)
    rgb = to_rgb(image)
    return rgb if orientation == 1 else rgb.transpose(TRANSPOSES[orientation])


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: gray copied to three channels, 16 bits cut to the upper 8, alpha dropped."""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        return Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def turn_box(box: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """A box in fractions of the stored pixels -> the same box in fractions of the upright image.

    The inverse is ``turn_box`` with the inverse orientation: 6 and 8 are each other's, all others their own.
    """
    ymin, xmin, ymax, xmax = box
    if orientation in (5, 6, 7, 8):  # rows become columns first
        ymin, xmin, ymax, xmax = xmin, ymin, xmax, ymax
    if orientation in (2, 3, 6, 7):  # then left and right change places
        xmin, xmax = 1.0 - xmax, 1.0 - xmin
    if orientation in (3, 4, 7, 8):  # and top and bottom
        ymin, ymax = 1.0 - ymax, 1.0 - ymin
    return ymin, xmin, ymax, xmax


class _Frame(NamedTuple):
    """The image that the annotator saw, on which boxes and masks are measured."""

    size: tuple[int, int]  # (height, width)
    orientation: int  # EXIF orientation that turns it upright
    boxes_are_normalized: bool


def repair_objects(
    annotated: AnnotatedImage, image: RepairedImage, *, with_masks: bool = True
) -> tuple[list[RepairedObject], list[Finding]]:
    """The usable objects of one image as fractions of the upright image, and what was wrong with the others.

    Returns:
        Objects in the order of the annotation, and the findings, in that order too.
    """
    frame, findings = _frame(annotated, image)
    repaired = []
    for item in annotated.objects:
        box, flaws = _repair_box(item.box, frame)
        mask = None
        if box is not None and with_masks and item.mask is not None:
            mask, detail = _mask(item, frame, image.size)
            if detail:
                flaws.append((Dirt.MASK_UNREADABLE, detail))
        findings.extend(Finding(dirt, item.where, detail) for dirt, detail in flaws)
        if box is not None:
            repaired.append(RepairedObject(box, _area(item, box, mask, frame, image.size), mask, item))
    return repaired, findings


def _frame(annotated: AnnotatedImage, image: RepairedImage) -> tuple[_Frame, list[Finding]]:
    """Decides what the boxes of an image are measured on; see the module's docstring."""
    stated, normalized = annotated.declared_size, annotated.boxes_are_normalized
    upright = _Frame(image.size, 1, normalized)
    if stated is None or stated == image.size:
        return upright, []
    height, width = image.size
    if image.orientation in (5, 6, 7, 8) and stated == (width, height):
        return _Frame(stated, image.orientation, normalized), []
    seen = f"stated {stated[1]} x {stated[0]}, is {width} x {height}"
    if normalized or not _same_shape(stated, image.size):
        return upright, [Finding(Dirt.SIZE_WRONG, annotated.filename, seen)]
    return _Frame(stated, 1, normalized), [Finding(Dirt.SIZE_SCALED, annotated.filename, seen)]


def _same_shape(stated: tuple[int, int], actual: tuple[int, int]) -> bool:
    """Whether one size is the other one scaled, to within a pixel of the smaller one."""
    if min(*stated, *actual) <= 0:
        return False
    small, big = sorted((stated, actual))
    return abs(small[0] - big[0] * small[1] / big[1]) <= 1 or abs(small[1] - big[1] * small[0] / big[0]) <= 1


def _repair_box(
    box: tuple[float, float, float, float], frame: _Frame
) -> tuple[tuple[float, float, float, float] | None, list[tuple[Dirt, str]]]:
    """A box in units of the frame -> fractions of the upright image, or None where nothing is left of it."""
    shown = "ymin {:g}, xmin {:g}, ymax {:g}, xmax {:g}".format(*box)
    if not all(map(math.isfinite, box)):
        return None, [(Dirt.BOX_NOT_FINITE, shown)]
    flaws = []
    ymin, xmin, ymax, xmax = box
    if ymin > ymax or xmin > xmax:
        flaws.append((Dirt.BOX_INVERTED, shown))
        ymin, ymax, xmin, xmax = min(ymin, ymax), max(ymin, ymax), min(xmin, xmax), max(xmin, xmax)
    if ymin == ymax or xmin == xmax:
        return None, [*flaws, (Dirt.BOX_WITHOUT_AREA, shown)]
    height, width = (1, 1) if frame.boxes_are_normalized else frame.size
    fractions = (ymin / height, xmin / width, ymax / height, xmax / width)
    top, left, bottom, right = (
        float(np.float32(min(max(value, 0.0), 1.0))) for value in turn_box(fractions, frame.orientation)
    )
    if top >= bottom or left >= right:
        outside = min(fractions[2:]) <= 0.0 or max(fractions[:2]) >= 1.0
        return None, [*flaws, (Dirt.BOX_OUTSIDE if outside else Dirt.BOX_WITHOUT_AREA, shown)]
    overshoot_px = max(
        max(-fractions[0], fractions[2] - 1.0) * frame.size[0], max(-fractions[1], fractions[3] - 1.0) * frame.size[1]
    )
    if overshoot_px > CLIP_TOLERANCE_PX:
        flaws.append((Dirt.BOX_CLIPPED, f"by {overshoot_px:.3g} pixels"))
    return (top, left, bottom, right), flaws


def _mask(item: AnnotatedObject, frame: _Frame, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """The mask on the upright image, and what was wrong with it; empty where it cannot be drawn."""
    height, width = frame.size
    try:
        mask = item.mask(height, width) if item.mask is not None else None
    except Exception as error:  # pycocotools raises bare Exceptions and TypeErrors on malformed segmentations
        return np.zeros(size, np.uint8), str(error)
    if mask is None or mask.shape != (height, width):
        shape = None if mask is None else mask.shape
        return np.zeros(size, np.uint8), f"mask of shape {shape} for {height} x {width} pixels"
    if (height, width) == size and frame.orientation == 1:
        return np.ascontiguousarray(mask, np.uint8), ""
    picture = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    if frame.orientation in TRANSPOSES:
        picture = picture.transpose(TRANSPOSES[frame.orientation])
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.NEAREST)), ""


def _area(
    item: AnnotatedObject,
    box_norm: tuple[float, float, float, float],
    mask: np.ndarray | None,
    frame: _Frame,
    size: tuple[int, int],
) -> float:
    """Area in pixels of the upright image: as annotated, else of the mask, else of the box."""
    pixels = size[0] * size[1]
    if item.area_px is not None and math.isfinite(item.area_px) and item.area_px > 0:
        return item.area_px * pixels / (frame.size[0] * frame.size[1])
    if mask is not None and mask.any():
        return float(mask.sum())
    return (box_norm[2] - box_norm[0]) * (box_norm[3] - box_norm[1]) * pixels
