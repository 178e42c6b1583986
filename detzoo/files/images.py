"""Reads image files from any source: returns upright 8-bit RGB, or raises UnusableImage with the reason.

Every image file that is read outside of a TensorFlow graph passes ``decode_image``. Well-formed JPEG and PNG images
pass ``repair_image`` byte for byte; other formats, deep pixels, palettes and rotated pixels are encoded again.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from detzoo.errors import DetzooError
from detzoo.files.issues import DataIssue
from detzoo.files.pixel_limit import as_flag, max_pixels
from detzoo.files.remote import RemotePath
from detzoo.folders import IrregularFileError, check_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
EXIF_ORIENTATION = 0x0112
MAX_BYTES_PER_PIXEL = 8  # of a file: four channels of 16 bits, not compressed
# Formats of pixels; JPEG has MPO. Pillow has others that run programs (EPS) or draw what a file describes.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
JPEG_QUALITY = 95  # of images that have to be encoded again
JPEG_FORMATS = ("JPEG", "MPO")  # MPO is a JPEG with more pictures behind it; decoders read the first
SUFFIX_FORMATS = {".jpg": JPEG_FORMATS, ".jpeg": JPEG_FORMATS, ".bmp": ("BMP", "DIB"), ".tif": ("TIFF",)}
SUFFIX_FORMATS |= {suffix: (suffix[1:].upper(),) for suffix in (".png", ".gif", ".tiff", ".webp")}

MODE_ISSUES = {
    **dict.fromkeys(("L", "1", "LA"), DataIssue.GRAY),
    **dict.fromkeys(("P", "PA"), DataIssue.PALETTE),
    "CMYK": DataIssue.CMYK,
}
# The transposition that turns stored pixels upright, by EXIF orientation.
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
    """An image that cannot be repaired; ``issue`` and ``detail`` are the reason."""

    def __init__(self, issue: DataIssue, detail: str = "") -> None:
        super().__init__(detail or issue.text)
        self.issue = issue
        self.detail = detail


class RepairedImage(NamedTuple):
    """An upright 8-bit RGB image, encoded, with the flaws that were repaired."""

    encoded: bytes
    image_format: str  # "jpeg" or "png"
    size: tuple[int, int]  # (height, width), upright
    orientation: int  # EXIF orientation of the source, 1..8
    flaws: tuple[tuple[DataIssue, str], ...]  # what was repaired, with details


def repair_image(content: bytes, filename: str) -> RepairedImage:
    """Checks an encoded image by decoding it, and encodes it again only if it is not plain upright RGB.

    Of the file's name only the suffix matters.

    Raises:
        UnusableImage: The image is empty, unknown, too large, corrupt, or of a pixel type that has no RGB.
    """
    image, flaws = decode_image(content, filename)
    lossy = image.format in (*JPEG_FORMATS, "WEBP")
    if image.format not in (*JPEG_FORMATS, "PNG"):
        flaws.append((DataIssue.OTHER_FORMAT, image.format or ""))
    orientation = next((int(text.split()[-1]) for issue, text in flaws if issue is DataIssue.EXIF_ROTATED), 1)
    size = (image.height, image.width)
    if any(issue is not DataIssue.WRONG_EXTENSION for issue, _ in flaws):
        with _problems_as_unusable():
            pixels = upright_rgb(image)
        size = (pixels.height, pixels.width)
        content = encode_image(pixels, lossy=lossy)
    return RepairedImage(content, "jpeg" if lossy else "png", size, orientation, tuple(flaws))


def read_upright(path: pathlib.Path) -> np.ndarray:
    """Returns the pixels of a file, RGB, uint8 [H, W, 3], turned upright by the EXIF orientation.

    Raises:
        UnusableImage: The file cannot be read, or holds no image, one of too many pixels, or a broken one.
    """
    return pixels_of(decode_image(read_content(path), path.name)[0])


def pixels_of(image: Image.Image) -> np.ndarray:
    """Returns the pixels of a PIL image of any mode, RGB, uint8 [H, W, 3], turned upright by its EXIF orientation.

    Raises:
        UnusableImage: The pixels cannot be decoded.
    """
    with _problems_as_unusable():
        return np.asarray(upright_rgb(image))


def small_gray(content: bytes, side: int) -> np.ndarray:
    """Returns the upright image as float32 [side, side] of gray, 0..255; JPEG files are decoded at a low resolution.

    Raises:
        UnusableImage: The image has too many pixels or cannot be decoded.
    """
    with _problems_as_unusable():
        image = open_header(content)
        image.draft("RGB", (8 * side, 8 * side))
        gray = upright_rgb(image).convert("L")
        return np.asarray(gray.resize((side, side), Image.Resampling.BOX), np.float32)


def read_content(path: pathlib.Path) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        UnusableImage: The file is missing, not a regular one (a device, a pipe), too large, or cannot be read.
    """
    try:
        if isinstance(path, RemotePath):
            return path.read_bytes()
        size = check_regular(path).st_size
        if size > MAX_BYTES_PER_PIXEL * max_pixels():
            raise UnusableImage(DataIssue.IMAGE_HUGE, f"{size / 1e6:.0f} MB, more than any image of {as_flag()} needs")
        return path.read_bytes()
    except IrregularFileError as error:
        raise UnusableImage(DataIssue.IMAGE_UNKNOWN, error.strerror or "") from None
    except FileNotFoundError:
        raise UnusableImage(DataIssue.IMAGE_MISSING) from None
    except OSError as error:
        raise UnusableImage(DataIssue.IMAGE_CORRUPT, error.strerror or str(error)) from None
    except ValueError as error:  # a NUL in the name
        raise UnusableImage(DataIssue.IMAGE_MISSING, str(error)) from None


def decode_image(content: bytes, filename: str) -> tuple[Image.Image, list[tuple[DataIssue, str]]]:
    """Decodes the first frame and lists the flaws of the image, without changing it; raises as ``repair_image``."""
    if not content:
        raise UnusableImage(DataIssue.IMAGE_EMPTY)
    with _problems_as_unusable():
        image = open_header(content)
        flaws = _flaws(image, content, filename)
        image.load()
        if image.format == "PNG":
            # Pillow overlooks wrong checksums and a missing end while it loads; other decoders refuse such files.
            open_header(content).verify()
    if image.mode in ("F", "LAB", "HSV") or (image.mode == "I" and image.format != "PNG"):
        raise UnusableImage(DataIssue.IMAGE_PIXEL_TYPE, f"{image.format} of mode {image.mode}")
    return image, flaws


def open_header(content: bytes) -> Image.Image:
    """Opens an image without decoding its pixels.

    Raises:
        UnusableImage: The image has more pixels than the limit.
        Exception: Pillow raises any kind.
    """
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # Pillow's own limit, 89 million, warns below ours
    Image.init()
    image = Image.open(io.BytesIO(content), formats=[name for name in Image.ID if name in FORMATS])
    count = image.width * image.height
    if count > limit:
        raise UnusableImage(
            DataIssue.IMAGE_HUGE, f"{image.width} x {image.height} = {count} pixels, more than {as_flag()}"
        )
    return image


@contextlib.contextmanager
def _problems_as_unusable() -> Iterator[None]:
    """Converts any exception of Pillow within the block to UnusableImage."""
    try:
        yield
    except (UnusableImage, DetzooError):
        raise
    except UnidentifiedImageError:
        raise UnusableImage(DataIssue.IMAGE_UNKNOWN) from None
    except Image.DecompressionBombError as error:
        seen = str(error).partition(" exceeds")[0]
        raise UnusableImage(DataIssue.IMAGE_HUGE, f"{seen}, more than {as_flag()}") from None
    except Exception as error:  # Pillow's plugins raise all kinds on broken files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnusableImage(DataIssue.IMAGE_CORRUPT, reason) from None


def encode_image(image: Image.Image, *, lossy: bool) -> bytes:
    """Encodes an RGB image as JPEG of high quality without chroma subsampling, or as PNG; without metadata."""
    buffer = io.BytesIO()
    options = {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0} if lossy else {"format": "PNG"}
    Image.fromarray(np.asarray(image)).save(buffer, **options)
    return buffer.getvalue()


def _flaws(image: Image.Image, content: bytes, filename: str) -> list[tuple[DataIssue, str]]:
    """Lists the flaws of an opened image whose pixels are not decoded yet."""
    flaws = []
    suffix = pathlib.PurePath(filename).suffix.lower()
    if suffix in SUFFIX_FORMATS and image.format not in SUFFIX_FORMATS[suffix]:
        flaws.append((DataIssue.WRONG_EXTENSION, f"content is {image.format}"))
    orientation = _orientation(image)
    if orientation != 1:
        flaws.append((DataIssue.EXIF_ROTATED, f"orientation {orientation}"))
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        flaws.append((DataIssue.ANIMATED, f"{image.n_frames} frames"))  # type: ignore[attr-defined]
    # Bit depth of a PNG is byte 24; Pillow shows a 16-bit colour PNG as 8-bit RGB.
    if image.mode.startswith("I") or (image.format == "PNG" and len(content) > 24 and content[24] == 16):
        flaws.append((DataIssue.DEEP_PIXELS, ""))
    elif image.mode in MODE_ISSUES:
        flaws.append((MODE_ISSUES[image.mode], ""))
    elif image.mode != "RGB" and "A" not in image.mode:
        flaws.append((DataIssue.OTHER_FORMAT, f"mode {image.mode}"))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La", "RGBX") or "transparency" in image.info:
        flaws.append((DataIssue.ALPHA, ""))
    return flaws


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 if there is none or an unknown one."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to lose the image
        return 1
    return orientation if orientation in TRANSPOSES else 1


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turns a decoded image upright by its EXIF orientation, and converts it by ``to_rgb``."""
    # Not by ImageOps.exif_transpose, which writes the EXIF block again and fails on broken ones. Pillow has turned a
    # TIFF while loading it, and removed its tag.
    orientation = _orientation(image)
    rgb = to_rgb(image)
    return rgb if orientation == 1 else rgb.transpose(TRANSPOSES[orientation])


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts to 8-bit RGB: gray is copied to three channels, 16 bits are cut to the upper 8, alpha is dropped."""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        return Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # not a copy: a large image takes 400 MB
