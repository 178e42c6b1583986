"""Writes videos that browsers play, as MP4 files of H.264 with 4:2:0 colours."""

from __future__ import annotations

import fractions
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

_TICKS_PER_SECOND = 90_000
_QUALITY = {"preset": "superfast", "crf": "23", "bf": "0"}  # without B-frames, the first frame is at second 0
# The file is a playable one after every second, also if the process is killed, and an ordinary MP4 at its end.
_CONTAINER = {"movflags": "hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}


class VideoWriter:
    """An MP4 file in the size of its first frame; it is playable once ``close`` returns.

    Args:
        path: Path of the file.
        rate: Usual frames per second. Frames may have any times.
    """

    def __init__(self, path: pathlib.Path, rate: float) -> None:
        self._path, self._rate = path, fractions.Fraction(rate).limit_denominator(1001)
        self._container: Any = None
        self._size, self._last_tick = (0, 0), -1

    def write(self, picture: Image.Image, seconds: float) -> None:
        """Adds a frame.

        Args:
            picture: RGB. One of another size than the first is scaled to fit into that, on black.
            seconds: Time of the frame, later than that of the frame before.
        """
        import av

        if self._container is None:
            self._open(picture)
        if picture.size != self._size:
            picture = ImageOps.pad(picture, self._size)
        pixels = np.asarray(picture)
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, [(0, height % 2), (0, width % 2), (0, 0)], "edge")  # 4:2:0 needs even sides
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
        self._last_tick = frame.pts = max(round(seconds * _TICKS_PER_SECOND), self._last_tick + 1)
        frame.time_base = fractions.Fraction(1, _TICKS_PER_SECOND)
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes the remaining frames and the end of the file."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None

    def _open(self, picture: Image.Image) -> None:
        import av

        self._size = width, height = picture.size
        self._container = av.open(f"file:{self._path}", "w", format="mp4", options=_CONTAINER)
        self._stream = stream = self._container.add_stream("h264", rate=self._rate, options=_QUALITY)
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = fractions.Fraction(1, _TICKS_PER_SECOND)
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 1, 1, 1  # BT.709
