"""Frames of a video that a thread decodes while the detector runs."""

from __future__ import annotations

import collections
import threading
import time
from types import TracebackType

from detzoo.files.video import Frame, VideoReader

LIVE_DELAY_SECONDS = 5.0  # a frame of a camera or stream that waits longer is dropped
LIVE_BUFFER_BYTES = 256e6
_WAKE_SECONDS = 0.5  # Ctrl-C ends no longer wait on Windows


class FrameBuffer:
    """Context in which a thread reads ahead.

    The thread waits while the buffer is full, so that every frame of a file is used. Cameras and streams do not wait:
    their oldest frames are dropped, so that a slow detector stays close to the present.

    Args:
        reader: The video.
        size: Frames of a file that are read ahead.

    Attributes:
        num_dropped: Frames that were dropped.
    """

    def __init__(self, reader: VideoReader, size: int) -> None:
        self._reader, self._size = reader, size
        self._frames: collections.deque[tuple[float, Frame]] = collections.deque()
        self._changed = threading.Condition()
        self._has_ended = False
        self._problem: BaseException | None = None
        self.num_dropped = 0

    def __enter__(self) -> FrameBuffer:
        # A daemon: a stream that stalls does not delay the end of the process.
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.stop()
        with self._changed:
            self._size = 0
            self._frames.clear()
            self._changed.notify_all()

    def take(self, most: int) -> list[Frame]:
        """Waits for frames and returns up to ``most`` of them, the oldest first; [] at the end of the video."""
        with self._changed:
            while not self._frames and not self._has_ended:
                self._changed.wait(_WAKE_SECONDS)
            if not self._frames and self._problem is not None:
                raise self._problem
            frames = [self._frames.popleft()[1] for _ in range(min(most, len(self._frames)))]
            self._changed.notify_all()
            return frames

    def _read(self) -> None:
        try:
            for frame in self._reader:
                with self._changed:
                    if self._reader.is_live:
                        self._drop_old(frame.pixels.nbytes)
                    while not self._reader.is_live and len(self._frames) >= self._size > 0:
                        self._changed.wait()
                    self._frames.append((time.monotonic(), frame))
                    self._changed.notify_all()
        except BaseException as problem:
            self._problem = problem
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _drop_old(self, frame_bytes: int) -> None:
        now = time.monotonic()
        while self._frames and (
            now - self._frames[0][0] > LIVE_DELAY_SECONDS or len(self._frames) * frame_bytes > LIVE_BUFFER_BYTES
        ):
            self._frames.popleft()
            self.num_dropped += 1
