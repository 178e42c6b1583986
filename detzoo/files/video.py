"""Reads video files, cameras and streams: upright RGB frames with their times.

PyAV has FFmpeg inside its wheels, for all platforms: it reads what players play, and its H.264 encoder writes what
browsers show. OpenCV's wheels have no such encoder, drop the times of the frames, and write to the terminal.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import pathlib
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detzoo.config.paths import split_at_commas
from detzoo.errors import DataError, UsageError
from detzoo.files.image_files import find_files
from detzoo.files.pixel_limit import as_flag, max_pixels

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"),
    *(".ts", ".vob", ".webm", ".wmv"),
)
TIMEOUT_SECONDS, RETRIES = 10.0, 5  # defaults for cameras and streams
USUAL_RATE = 25.0  # frames per second of a source that does not state a possible one
_POSSIBLE_RATES = (0.01, 1000.0)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0  # before a connection is tried again; doubled each time
_GREATEST_RATIO = 4  # of the sides of a pixel; a greater one is a broken header
_LONG_SECONDS = 1.0  # the sound of a whole video may last as much longer than its picture
_LEAST_STEP_SECONDS = 1e-3  # between frames whose times are equal or go back
_WITHOUT_CLOCK = ("mpjpeg", "mjpeg")  # formats whose frames have no time: their arrival is it
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CAMERA = re.compile(r"(/dev/video)?(\d+)")
_PASSWORD = re.compile(r"(?<=://)[^/\s]*@")

logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """A frame of a video."""

    number: int  # from 1; frames that a stride skips count
    seconds: float  # since the first frame
    pixels: np.ndarray  # uint8 [H, W, 3], RGB, as players show it: upright, with square pixels


class VideoSource(NamedTuple):
    """A video file, a camera, or the address of a stream."""

    text: str  # source for messages and records, without a password
    stem: str  # name for files that are made from the source
    location: str  # path, device or address for FFmpeg
    format: str | None = None  # FFmpeg's name of the device type; None to recognize the container
    options: tuple[tuple[str, str], ...] = ()  # options of FFmpeg

    @property
    def path(self) -> pathlib.Path | None:
        """The file; None for a camera or an address."""
        return pathlib.Path(self.text) if self.location.startswith("file:") else None


def _parts(names: Sequence[str]) -> list[str]:
    return split_at_commas(names, lambda name: _ADDRESS.match(name) or os.path.lexists(name))


def are_videos(names: Sequence[str]) -> bool:
    """Returns True if all of some names are those of videos by ``is_video``."""
    return all(map(is_video, _parts(names)))


def is_video(name: str) -> bool:
    """Returns True for the address of a stream, and for a path with the suffix of a video."""
    return bool(_ADDRESS.match(name)) or name.lower().endswith(VIDEO_SUFFIXES)


def find_videos(names: Sequence[str]) -> list[VideoSource]:
    """Returns the sources of some names: files, folders, globs, numbers of cameras, and addresses.

    Raises:
        UsageError: A name matches nothing, or there is no video.
    """
    sources: list[VideoSource] = []
    for name in _parts(names):
        if _ADDRESS.match(name):
            sources.append(_address(name))
        elif (camera := _CAMERA.fullmatch(name)) and (camera[1] or not os.path.lexists(name)):
            sources.append(_camera(int(camera[2])))
        else:
            files = find_files([name], VIDEO_SUFFIXES, "--video")
            sources += [VideoSource(str(file), file.stem, f"file:{file}") for file in files]
    if not sources:
        raise UsageError("--video is empty; give a file, folder or pattern, the number of a camera, or an address")
    return list(dict.fromkeys(sources))


def _address(name: str) -> VideoSource:
    # FFmpeg continues a download that breaks off. RTSP over UDP loses packets, so frames are damaged.
    options = {"http": {"reconnect": "1"}, "rtsp": {"rtsp_transport": "tcp"}}
    text = _PASSWORD.sub("", name)
    stem = re.sub(r"\W+", "_", text.partition("://")[2].partition("?")[0]).strip("_") or "stream"
    return VideoSource(text, stem[:100], name, None, tuple(options.get(name[:4].lower(), {}).items()))


def _camera(number: int, platform: str = sys.platform) -> VideoSource:
    text, stem = f"camera {number}", f"camera_{number}"
    if platform == "darwin":
        return VideoSource(text, stem, f"{number}:none", "avfoundation", (("framerate", "30"),))
    if platform == "win32":
        names = dict(enumerate(_cameras("dshow")))
        return VideoSource(text, stem, f"video={names.get(number, number)}", "dshow")
    return VideoSource(text, stem, f"/dev/video{number}", "v4l2")


def _cameras(device_type: str) -> list[str]:
    """Returns the names of the cameras of this machine."""
    import av.device

    try:
        devices = av.device.enumerate_input_devices(device_type)
    except (av.FFmpegError, ValueError):
        return []
    return [device.description for device in devices if "video" in device.media_types]


class VideoReader:
    """Iterable of the frames of a source; a stream that breaks or stalls is opened again.

    One thread iterates; ``stop`` may be called by another one.

    Args:
        source: The video.
        stride: Yield every stride-th frame, from the first one.
        max_frames: Frames to yield at most; None for all.
        timeout_seconds: Longest wait for a camera or a stream.
        retries: Attempts to open a stream again before the reader gives up.

    Attributes:
        is_live: The source has no known end.
        rate: Frames per second of the source.
        duration_seconds: Length of a file by its header; 0 if it is unknown.
        num_expected: Frames to be yielded by that header; None if they are unknown.
        num_frames: Frames decoded so far.
        num_broken: Packets and frames that could not be decoded, or only in part.
        problem: Error that ended the video or the connection; "" if it ended without one.
        has_given_up: A stream ended, and all attempts to open it again failed.

    Raises:
        DataError: The source cannot be opened, or has no video.
    """

    def __init__(
        self,
        source: VideoSource,
        stride: int = 1,
        max_frames: int | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
    ) -> None:
        self.source = source
        self._stride, self._max_frames = stride, max_frames
        self._timeout_seconds, self._retries = timeout_seconds, retries
        self._stopped = threading.Event()
        self.num_frames = self.num_broken = 0
        self.problem = ""
        self.has_given_up = self._is_finished = False
        self._last_seconds = self._last_arrival = 0.0
        self._zero: float | None = None  # time of the source's clock at second 0
        self._open()
        self.duration_seconds = (self._container.duration or 0) / 1e6
        self.is_live = source.path is None and not self.duration_seconds
        rate = float(self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE)
        self.rate = rate if _POSSIBLE_RATES[0] <= rate <= _POSSIBLE_RATES[1] else USUAL_RATE
        frames = 0 if self.is_live else self._stream.frames or round(self.duration_seconds * self.rate)
        limits: list[int] = [] if max_frames is None else [max_frames]
        self.num_expected = min([-(-frames // stride), *limits] if frames else limits, default=None)

    @property
    def flaws(self) -> list[str]:
        """Flaws that the iteration found: frames that could not be decoded, a missing end, and the problem."""
        found = [f"{self.num_broken} frames are damaged or lost"] * bool(self.num_broken)
        missing_seconds = self.duration_seconds - self._last_seconds
        if self._is_finished and missing_seconds > _LONG_SECONDS + 2.0 / self.rate:
            found.append(f"its last frame is at {self._last_seconds:.1f} of {self.duration_seconds:.1f} s")
        return found + [self.problem] * bool(self.problem)

    def __iter__(self) -> Iterator[Frame]:
        num_yielded = attempts = 0
        try:
            while attempts <= self._retries:
                before = self.num_frames
                for frame in self._decoded():
                    if (self.num_frames - 1) % self._stride == 0:
                        yield Frame(self.num_frames, self._last_seconds, _pixels(frame, self._stream))
                        num_yielded += 1
                    if num_yielded == self._max_frames:
                        self.stop()
                    if self._stopped.is_set():
                        return
                if not self.is_live:
                    self._is_finished = not self._stopped.is_set()
                    return
                attempts = self._open_again(0 if self.num_frames > before else attempts)
                if self._stopped.is_set():
                    return
            self.has_given_up = True
        finally:
            self._container.close()

    def stop(self) -> None:
        """Ends the iteration, at the latest after the timeout."""
        self._stopped.set()

    def _open(self) -> None:
        import av

        source, timeout = self.source, self._timeout_seconds
        wait = None if source.path else (timeout, timeout)
        options: Any = dict(source.options)
        try:
            container = av.open(source.location, format=source.format, options=options, timeout=wait)
        except (av.FFmpegError, OSError, ValueError) as problem:
            reason = self._reason(problem)
            if source.format:
                reason += f" ({source.location}); cameras found: {', '.join(_cameras(source.format)) or 'none'}"
            raise DataError(f"{source.text} cannot be opened: {reason}") from None
        cover = av.stream.Disposition.attached_pic  # the picture of a song
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = " and ".join(sorted({stream.type for stream in container.streams} - {"video"})) or "a picture"
            container.close()
            raise DataError(f"{source.text} has no video in it, only {kinds}")
        self._container: Any = container
        self._stream: Any = streams[0]
        self._stream.thread_type = "AUTO"
        size = self._stream.codec_context
        if size.width * size.height > max_pixels():
            container.close()
            raise DataError(f"{source.text} has frames of {size.width} x {size.height} pixels, more than {as_flag()}")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Yields the frames until the source ends or fails, and sets their time."""
        import av

        self._zero = None
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError:
                frames = []
                self.num_broken += 1
            for frame in frames:
                self.num_frames += 1
                self.num_broken += frame.is_corrupt
                self._set_time(frame)
                yield frame

    def _packets(self) -> Iterator[av.Packet | None]:
        """Yields the packets; after a failure, sets its reason and yields None for the frames in the decoder."""
        import av

        self.problem = ""
        try:
            yield from itertools.takewhile(lambda _: not self._stopped.is_set(), self._container.demux(self._stream))
        except (av.FFmpegError, OSError) as problem:
            # The reader of JPEG streams reports the end of the connection as this error.
            is_end = self.is_live and problem.errno == errno.EIO
            self.problem = "" if is_end else self._reason(problem)
            yield None

    def _set_time(self, frame: av.VideoFrame) -> None:
        now = time.monotonic()
        seconds = None if frame.pts is None else float(frame.pts * self._stream.time_base)
        if self.is_live and (seconds is None or self._container.format.name in _WITHOUT_CLOCK):
            seconds = now
        elif seconds is None:
            seconds = (self.num_frames - 1) / self.rate
        if self._zero is None:  # the clock of a stream that was opened again starts again
            gap = now - self._last_arrival if self._last_arrival else 0.0
            self._zero = seconds - self._last_seconds - gap
        is_first, since = self.num_frames == 1, seconds - self._zero
        self._last_seconds = since if is_first else max(since, self._last_seconds + _LEAST_STEP_SECONDS)
        self._last_arrival = now

    def _open_again(self, attempts: int) -> int:
        """Opens a stream again after pauses; returns the number of attempts, more than allowed if none succeeded."""
        reason = self.problem or "the stream ended"
        self._container.close()
        while attempts < self._retries:
            attempts += 1
            logger.warning("%s: %s; it is opened again (%d of %d)", self.source.text, reason, attempts, self._retries)
            if self._stopped.wait(min(_FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), _LONGEST_PAUSE_SECONDS)):
                return attempts
            try:
                self._open()
                return attempts
            except DataError as problem:
                reason = str(problem).removeprefix(f"{self.source.text} ")
        return attempts + 1

    def _reason(self, problem: Exception) -> str:
        """Returns the reason of an error in words."""
        import av

        if isinstance(problem, av.error.ExitError):
            return f"nothing came for {self._timeout_seconds:g} s"
        if self.source.path is not None and isinstance(problem, av.error.InvalidDataError):
            size = self.source.path.stat().st_size
            return "it is no video, or its recording was not finished" if size else "the file is empty"
        if self.source.path is None and getattr(problem, "errno", None) == errno.EIO:
            return "it cannot be reached, or sends no video"
        return str(getattr(problem, "strerror", None) or problem)


def _pixels(frame: av.VideoFrame, stream: Any) -> np.ndarray:
    """Converts a frame to RGB as players show it: with square pixels, turned by its display matrix."""
    ratio = stream.sample_aspect_ratio or 1  # width of a pixel over its height
    ratio = ratio if 1 / _GREATEST_RATIO <= ratio <= _GREATEST_RATIO else 1
    pixels = frame.to_ndarray(format="rgb24", width=max(1, round(frame.width * ratio)), height=frame.height)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # Rows of the matrix are the directions in the picture of the stored x and y: (a, b) and (c, d).
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)
    if abs(b) > abs(a):
        pixels, right, down = pixels.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
