"""Detects on videos, cameras and streams: an annotated video, and one line per frame in ``detections.jsonl``.

decoder thread -> batches of frames -> detector (-> tracker) -> writer thread: drawing, encoder, list
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from detzoo.config.label_map import load_label_map
from detzoo.errors import DataError, UsageError
from detzoo.extras import require_extras
from detzoo.files.frame_buffer import FrameBuffer
from detzoo.files.video import RETRIES, TIMEOUT_SECONDS, Frame, VideoReader, VideoSource, are_videos, find_videos
from detzoo.files.video_writer import VideoWriter
from detzoo.folders import make_folder
from detzoo.progress import track
from detzoo.tasks.detect import choose_limits, load_named
from detzoo.tasks.models import tiled, tiling_of
from detzoo.tasks.start import EXIT_TERMINATED, terminated_as

if TYPE_CHECKING:
    from detzoo.datasets.fonts import LabelFonts
    from detzoo.serving.image_detector import ImageDetector
    from detzoo.tasks.detect_images import DetectionLimits
    from detzoo.tasks.result import Result

FRAMES_FILE = "detections.jsonl"
VIDEO_SUFFIX = ".mp4"
BATCH_SIZE = 4
_MOST_UNWRITTEN = 8  # results that wait for the writer

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class VideoSummary:
    """The result for one video."""

    source: str  # path, camera or address
    num_frames: int = 0  # frames that were detected on
    frames_per_second: float = 0.0  # speed of the whole, without the first batch, which prepares the model
    model_share: float = 0.0  # part of that time in the model, 0 to 1; near 1, the model sets the speed
    # Number of detections by class name.
    detections: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # Number of frames with the class, by name.
    frames: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    is_interrupted: bool = False  # Ctrl-C ended a camera or stream, which has no other end
    # Number of different objects by their most frequent class; empty without tracking.
    objects: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """Settings of reading and detecting.

    Raises:
        UsageError: A number is too small, or a package is missing.
    """

    # Frames per call of the model at most. Frames that are not decoded yet are not waited for.
    batch_size: int | None = None
    frame_stride: int = 1  # detect on every n-th frame, from the first one
    max_frames: int | None = None  # frames to detect on at most, per video; None for all
    track: bool = False  # number the objects, with ByteTrack
    stream_timeout: float = TIMEOUT_SECONDS  # seconds without a frame after which a camera or stream is opened again
    stream_retries: int = RETRIES  # attempts to open it before the results end

    def __post_init__(self) -> None:
        require_extras("tracking" if self.track else "reading videos", "track" if self.track else "video")
        for name in ("batch_size", "frame_stride", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} is {value}; accepted: 1 or more")

    def open(self, source: VideoSource) -> VideoReader:
        """Opens a video."""
        return VideoReader(source, self.frame_stride, self.max_frames, self.stream_timeout, self.stream_retries)


class FrameResults:
    """Iterable of the results of an open video; the next frames are decoded while the model runs.

    Args:
        detector: The model.
        reader: The video.
        names: Name by class id.
        limits: The detections to keep.
        options: Settings.

    Attributes:
        num_frames: Frames that were detected on.
        num_timed: Frames behind the first batch, which prepares the model.
        model_seconds: Time in the model for these.
        whole_seconds: Time of the whole for these.

    Raises:
        UsageError: The model classifies given regions, which a video does not have.
    """

    def __init__(
        self,
        detector: ImageDetector,
        reader: VideoReader,
        names: Mapping[int, str],
        limits: DetectionLimits,
        options: VideoOptions,
    ) -> None:
        from detzoo.tasks.track_objects import LOW_SCORE, ObjectTracker

        if detector.wants_proposals:
            raise UsageError("this model classifies given regions, which a video does not have; use a detector")
        self._detector, self._names, self._limits = detector, names, limits
        self.reader, self._batch_size = reader, options.batch_size or BATCH_SIZE
        self._follow: Callable[[Result], Result] | None = None
        if options.track:
            self._follow = ObjectTracker(reader.rate / options.frame_stride, limits.score_threshold)
            self._limits = dataclasses.replace(limits, score_threshold=min(limits.score_threshold, LOW_SCORE))
        self._buffer = FrameBuffer(reader, 2 * self._batch_size)
        self.num_frames = self.num_timed = 0
        self.model_seconds = self.whole_seconds = 0.0

    def __iter__(self) -> Generator[Result]:
        """Yields the results.

        Raises:
            DataError: The video has no frame, or a stream failed for good; at the end.
        """
        begun = 0.0
        with self._buffer as buffer:
            while frames := buffer.take(self._batch_size):
                started = time.perf_counter()
                results = self._detect(frames)
                ended = time.perf_counter()
                self.num_frames += len(frames)
                yield from results
                if begun:
                    self.num_timed += len(frames)
                    self.model_seconds += ended - started
                    self.whole_seconds = time.perf_counter() - begun
                else:
                    begun = time.perf_counter()
        self._report()

    def _detect(self, frames: Sequence[Frame]) -> Iterator[Result]:
        """Detects on a batch at once, and returns an iterator that follows the objects."""
        from detzoo.tasks.detect_images import GivenImage, detect_each

        source = self.reader.source
        images = [GivenImage(frame.number, pixels=frame.pixels) for frame in frames]
        try:
            found = list(detect_each(self._detector, images, self._names, self._limits, len(images)))
        except DataError as problem:
            raise DataError(f"{source.text}: {problem}") from None
        results = [
            dataclasses.replace(result, path=source.path, seconds=frame.seconds) for frame, result in zip(frames, found)
        ]
        return iter(results) if self._follow is None else map(self._follow, results)

    def report_dropped(self) -> None:
        """Warns of frames of a stream that the model was too slow for."""
        if self._buffer.num_dropped:
            logger.warning(
                "%s: %d frames were dropped, because the model is slower than the stream; --frame_stride takes fewer",
                *(self.reader.source.text, self._buffer.num_dropped),
            )

    def _report(self) -> None:
        """Warns of what is missing in the results; raises DataError if all is missing, or a stream failed."""
        name, flaws = self.reader.source.text, "; ".join(self.reader.flaws)
        if not self.num_frames:
            raise DataError(f"{name} has no frame that can be decoded{': ' * bool(flaws)}{flaws}")
        self.report_dropped()
        if self.reader.has_given_up and self.reader.problem:
            raise DataError(f"{name} did not return: {self.reader.problem}")
        if self.reader.has_given_up:
            logger.warning("%s: the stream ended, and did not return", name)
        elif flaws:
            logger.warning("%s: %s", name, flaws)


def videos_among(images: Sequence[str], video: Sequence[str], proposals: str | None = None) -> Sequence[str]:
    """Returns the names of videos in the flags of a command; none if ``images`` are images.

    Raises:
        UsageError: There are images and videos, or neither, or proposals for videos.
    """
    videos = video or (images if are_videos(images) else [])
    if bool(images) == bool(video):
        raise UsageError("`detzoo detect` needs either --images or --video")
    if videos and proposals:
        raise UsageError("--proposals goes with --images; a video has none")
    return videos


def frames_of(
    detector: ImageDetector,
    video: str,
    names: Mapping[int, str],
    options: VideoOptions,
    *,
    tile: int | None = None,
    tile_overlap: float | None = None,
    **limits: Any,
) -> Iterator[Result]:
    """Opens a single video and returns the results of its frames; ``limits`` are those of ``choose_limits``."""
    tiling = tiling_of(tile, tile_overlap)
    detector = tiled(detector, tiling, options.batch_size or BATCH_SIZE)
    chosen = choose_limits(detector, names, tiling, **limits)
    sources = find_videos([video])
    if len(sources) > 1:
        raise UsageError(f"--video {video} is {len(sources)} videos; give one")
    return iter(FrameResults(detector, options.open(sources[0]), names, chosen, options))


def detect_video(
    videos: Sequence[str],
    output_dir: str | pathlib.Path,
    *,
    saved_model: str | None = None,
    ensemble: str | None = None,
    label_map: str | None = None,
    score_threshold: float | str = 0.5,
    max_boxes: int | None = None,
    max_drawn_overlap: float | None = None,
    font: str | None = None,
    metrics: str | pathlib.Path | None = None,
    tile: int | None = None,
    tile_overlap: float | None = None,
    no_pictures: bool = False,
    options: VideoOptions | None = None,
) -> list[VideoSummary]:
    """Draws and lists the detections of the frames of videos, one video after the other.

    Args:
        videos: Files, folders, globs, numbers of cameras, and addresses of streams.
        output_dir: Folder for an MP4 file per video, and for detections.jsonl with the frames of all.
        saved_model: An exported model; or give ``ensemble``.
        ensemble: The ensemble.json of `detzoo ensemble`.
        label_map: Path of a label map; None for the one next to the model.
        score_threshold: See ``detzoo.tasks.detect.detect``.
        max_boxes: Detections per frame at most; None for 100, and 1000 with tiles.
        max_drawn_overlap: See ``detzoo.tasks.detect.detect``.
        font: Path of a font for class names that DejaVu Sans cannot draw.
        metrics: See ``detzoo.tasks.detect.detect``.
        tile: See ``detzoo.tasks.detect.detect``.
        tile_overlap: See ``detzoo.tasks.detect.detect``.
        no_pictures: Write no annotated videos.
        options: Settings of reading and detecting.

    Raises:
        DataError: A video cannot be opened or has no frame (of several: none is usable), or a stream broke off for
            good. What was detected before is written.
        UsageError: An argument is wrong.
    """
    from detzoo.datasets.fonts import LabelFonts

    if bool(saved_model) == bool(ensemble):
        raise UsageError("`detzoo detect` needs --saved_model, or --ensemble instead of it")
    options, tiling = options or VideoOptions(), tiling_of(tile, tile_overlap)
    sources, named, fonts = find_videos(videos), load_label_map(label_map) if label_map else None, LabelFonts(font)
    folder = make_folder(output_dir, "--output_dir")
    files = dict(zip(sources, _output_files(sources, folder)))
    single = options.open(sources[0]) if len(sources) == 1 else None  # a video that is not there needs no model
    detector, names, threshold = load_named(saved_model, ensemble, named, score_threshold, metrics)
    detector = tiled(detector, tiling, options.batch_size or BATCH_SIZE)
    limits = choose_limits(detector, names, tiling, threshold, max_boxes, max_drawn_overlap)
    summaries, problem = [], None
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminated_as(SystemExit(EXIT_TERMINATED)))
        lines = _Lines(folder / FRAMES_FILE, stack)
        for source, file in files.items():
            try:
                results = FrameResults(detector, single or options.open(source), names, limits, options)
                writer = VideoWriter(file, results.reader.rate / options.frame_stride) if not no_pictures else None
                summaries.append(_record(results, writer, fonts, lines))
                if summaries[-1].is_interrupted:
                    break
            except DataError as error:
                if single is not None:
                    raise
                problem = error
                logger.warning("skipped: %s", problem)
    if not summaries and problem is not None:
        raise problem
    return summaries


def _output_files(sources: Sequence[VideoSource], folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the file of the annotated video of each source.

    Raises:
        UsageError: One of them is a source.
    """
    from detzoo.tasks.detect_files import picture_names

    files = [folder / name for name in picture_names([pathlib.Path(f"{s.stem}.x") for s in sources], VIDEO_SUFFIX)]
    given = {source.path.resolve() for source in sources if source.path is not None}
    for file in files:
        if file.resolve() in given:
            raise UsageError(
                f"--output_dir {folder}: {file} would be replaced by its annotated video; name another folder"
            )
    return files


class _Lines:
    """The growing list of frames; it replaces the one of an earlier run when the first frame is done."""

    def __init__(self, path: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self._path, self._stack = path, stack
        self._file: TextIO | None = None

    def add(self, source: VideoSource, result: Result) -> None:
        """Adds the line of a frame, which is on the disk at once."""
        if self._file is None:
            self._file = self._stack.enter_context(self._path.open("w", encoding="utf-8"))
        dropped = ("image_id", "file_name")
        line = {
            "video": source.text,
            "frame": result.image_id,
            "seconds": round(result.seconds or 0.0, 3),
            "height": result.shape[0],
            "width": result.shape[1],
            "counts": collections.Counter(result.class_names),
            "detections": [{k: v for k, v in entry.items() if k not in dropped} for entry in result.to_coco()],
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _record(results: FrameResults, writer: VideoWriter | None, fonts: LabelFonts, lines: _Lines) -> VideoSummary:
    """Writes the results of a video while they come.

    A thread writes. Ctrl-C interrupts the main thread only, so that the last line and the video are whole.
    """
    source = results.reader.source
    summary = VideoSummary(source.text)
    names_of: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)  # by track id

    def write(result: Result) -> None:
        if writer is not None:
            writer.write(result.draw(fonts), result.seconds or 0.0)
        lines.add(source, result)
        summary.num_frames += 1
        summary.detections.update(result.class_names)
        summary.frames.update(set(result.class_names))
        for name, track_id in zip(result.class_names, () if result.track_ids is None else result.track_ids):
            if track_id:
                names_of[int(track_id)][name] += 1

    unwritten: collections.deque[concurrent.futures.Future[None]] = collections.deque()
    try:
        with (
            contextlib.closing(writer) if writer else contextlib.nullcontext(),
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            contextlib.closing(iter(results)) as frames,
        ):
            for result in track(frames, results.reader.num_expected, "detect", "frames"):
                unwritten.append(pool.submit(write, result))
                if len(unwritten) > _MOST_UNWRITTEN:
                    unwritten.popleft().result()
            for future in unwritten:
                future.result()
    except BaseException as reason:
        if summary.num_frames:
            summary.is_interrupted = isinstance(reason, KeyboardInterrupt) and results.reader.is_live
            logger.warning("ended early: %d frames of %s are written", summary.num_frames, source.text)
        if not summary.is_interrupted:
            raise
        results.report_dropped()
    summary.objects.update(names.most_common(1)[0][0] for names in names_of.values())
    if results.num_timed:
        summary.frames_per_second = results.num_timed / results.whole_seconds
        summary.model_share = results.model_seconds / results.whole_seconds
    return summary
