"""Images of every kind that data sets really hold, encoded; and records read back. For the tests of this folder."""

from __future__ import annotations

import glob
import io
import struct
import zlib

import numpy as np
import tensorflow as tf
from PIL import Image

HEIGHT, WIDTH = 24, 40
RED, BLUE = (220, 30, 20), (20, 40, 200)
RED_BOX = (6, 10, 14, 30)  # ymin, xmin, ymax, xmax in pixels: rows 6..13, columns 10..29


def scene(height: int = HEIGHT, width: int = WIDTH, box=RED_BOX) -> np.ndarray:
    """A red rectangle on blue, uint8 [height, width, 3]."""
    pixels = np.full((height, width, 3), BLUE, np.uint8)
    pixels[box[0] : box[2], box[1] : box[3]] = RED
    return pixels


def encode(pixels, kind: str = "PNG", mode: str | None = None, **options) -> bytes:
    """An array or Pillow image as the bytes of a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def decode(encoded: bytes) -> np.ndarray:
    """The pixels of a file as they are stored."""
    return np.asarray(Image.open(io.BytesIO(encoded)))


def stored_for(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a viewer turns into ``upright``, from the definition of the EXIF tag:

    it says where the first stored row and the first stored column are seen, 1 top left, 2 top right, 3 bottom right,
    4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    rows_turned, columns_turned = upright[::-1], upright[:, ::-1]
    return {
        1: upright,
        2: columns_turned,
        3: rows_turned[:, ::-1],
        4: rows_turned,
        5: upright.swapaxes(0, 1),
        6: columns_turned.swapaxes(0, 1),
        7: rows_turned[:, ::-1].swapaxes(0, 1),
        8: rows_turned.swapaxes(0, 1),
    }[orientation]


def with_exif(upright: np.ndarray, orientation: int, kind: str = "PNG", **options) -> bytes:
    """A file that viewers show as ``upright`` and that stores other pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(np.ascontiguousarray(stored_for(upright, orientation)), kind, exif=exif, **options)


def animated(kind: str, *frames: np.ndarray) -> bytes:
    first, *others = (Image.fromarray(frame) for frame in frames)
    return encode(first, kind, save_all=True, append_images=others)


def deep_png(pixels16: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, [height, width, 3] or [height, width]; Pillow cannot write the former."""
    height, width = pixels16.shape[:2]
    colour_type = 2 if pixels16.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels16)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def red_extent(encoded: bytes) -> tuple[float, float, float, float]:
    """Returns the red rectangle of ``scene`` in a file: ymin, xmin, ymax, xmax in fractions of the image."""
    pixels = decode(encoded)[..., :3].astype(int)
    red = (pixels[..., 0] > 120) & (pixels[..., 2] < 110)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    height, width = red.shape
    return rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width


def read_records(prefix) -> list[dict[str, list]]:
    """Key -> values of every record of a prefix, "image/object/" left out of the keys; boxes as tuples in "boxes"."""
    return read_record_files(sorted(glob.glob(f"{prefix}-?????-of-?????.tfrecord")))


def read_record_files(paths) -> list[dict[str, list]]:
    """The records of TFRecord files."""
    records = []
    for serialized in tf.data.TFRecordDataset([str(path) for path in paths]).as_numpy_iterator():
        record = {}
        for key, feature in tf.train.Example.FromString(serialized).features.feature.items():
            kind = feature.WhichOneof("kind")
            record[key.removeprefix("image/object/")] = list(getattr(feature, kind).value) if kind else []
        sides = [record[f"bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")]
        record["boxes"] = list(zip(*sides, strict=True))
        records.append(record)
    return records
