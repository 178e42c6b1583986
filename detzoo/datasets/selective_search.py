"""Proposals by OpenCV's contrib modules: selective search (Uijlings et al., IJCV 2013) and EdgeBoxes.

SPP-net (arXiv:1406.4729, section 4.1) and R-CNN classify about 2000 windows of selective search per picture ("fast"
mode). EdgeBoxes (Zitnick and Dollar, ECCV 2014) takes windows from edges. Those of its authors are made by
structured forests, whose model is a separate file (OpenCV's model.yml.gz); without it, edges are gradients.

OpenCV's ordinary build, which tf-models-official requires as ``opencv-python-headless``, lacks selective search. The
contrib build, of ``detzoo[spp]``, has both and writes the same folder ``cv2``: the package that was installed last is
the one that is imported. A contrib build in a separate folder is independent of that order. Only worker processes
import it, and they look in that folder first, so that no process holds two builds.

This module imports neither TensorFlow nor OpenCV, so that workers start fast.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import importlib.util
import logging
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from detzoo.errors import DataError, UsageError
from detzoo.extras import install_command
from detzoo.files.pixel_limit import as_flag, max_pixels

MODES = {  # mode -> method of OpenCV
    "fast": "switchToSelectiveSearchFast",
    "quality": "switchToSelectiveSearchQuality",
    "single": "switchToSingleStrategy",
}
EDGE_BOXES = "edge_boxes"
_SMOOTHING, _CANNY_THRESHOLDS = 1.0, (30, 90)  # pixels and grey levels, of edges without a model
PACKAGE = "opencv-contrib-python-headless"
FOLDER_VARIABLE = "DETZOO_OPENCV_CONTRIB"
DEFAULT_FOLDER = "~/.local/share/detzoo/opencv_contrib"
_MODULE = "cv2"
_QUEUED = 4  # images that wait for each worker

logger = logging.getLogger(__name__)


class SearchOptions(NamedTuple):
    """Options of a search."""

    # "fast", "quality" (about four times the windows, three times the time) or "single" (one strategy) of selective
    # search, or "edge_boxes".
    mode: str = "fast"
    max_proposals: int = 2000  # largest number of windows per image, in OpenCV's order
    # Width in pixels to resize images to before the search, as in R-CNN (arXiv:1311.2524); 0 keeps it.
    image_width: int = 500
    min_size: int = 20  # smallest side of a window, in pixels of the resized image
    turns_upright: bool = False  # turn images by their EXIF orientation, as for files; the boxes of records ignore it
    edge_model: str = ""  # file of structured forests for "edge_boxes"; "" for the gradients of the image


class Proposed(NamedTuple):
    """The windows found in one image, best first."""

    boxes_norm: np.ndarray  # float32 [R, 4], [ymin, xmin, ymax, xmax] in fractions of the image
    scores: np.ndarray  # float32 [R], from 1 down to above 0 by rank, because selective search gives an order alone


def find_opencv(folder: str = "") -> str:
    """Returns the folder to load the contrib build from; "" for the environment's ``cv2``.

    Args:
        folder: Folder that the user names; "" looks at ``FOLDER_VARIABLE``, then at ``DEFAULT_FOLDER``.

    Raises:
        UsageError: There is no build with selective search; the message has the command that installs one.
    """
    named = folder or os.environ.get(FOLDER_VARIABLE, "")
    for candidate in filter(None, (named, "" if named else DEFAULT_FOLDER)):
        path = pathlib.Path(candidate).expanduser()
        if (path / _MODULE).is_dir():
            return str(path)
    own = importlib.util.find_spec(_MODULE)
    if not named and own is not None and (pathlib.Path(own.origin or "").parent / "ximgproc").is_dir():
        return ""
    found = f"there is no {_MODULE} in {named}. " if named else ""
    raise UsageError(
        f"{found}Selective search needs OpenCV's contrib build. Install it\n\n"
        f"    {install_command('spp')}\n\n"
        "or, to keep an opencv-python-headless as it is, into a separate folder:\n\n"
        f"    {_own_folder_command(named or DEFAULT_FOLDER)}\n\n"
        f"It is found there by itself; in another folder by --opencv_folder or the variable {FOLDER_VARIABLE}. "
        "Proposals of another program can be read as well: a JSON list in COCO's results format as proposals_path"
    )


def _own_folder_command(folder: str) -> str:
    """Returns the command that installs the contrib build without a change of the environment."""
    return f"{sys.executable} -m pip install --no-deps --target {folder} {PACKAGE}"


def search_images(
    images: Iterable[tuple[str, bytes]], options: SearchOptions, opencv_folder: str, num_workers: int
) -> Iterator[tuple[str, Proposed]]:
    """Searches encoded images in worker processes; yields results in the order of the images.

    An image that cannot be decoded has no windows, and a warning names it.

    Args:
        images: Id and encoded file of each image.
        options: Options of the search.
        opencv_folder: Result of ``find_opencv``.
        num_workers: Number of processes.

    Raises:
        DataError: An image cannot be read; raised after the results of the images before it.
        UsageError: The OpenCV there cannot be loaded, or has no selective search.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_workers, context, _start_worker, (opencv_folder,)) as pool:
        waiting: list[tuple[str, concurrent.futures.Future[Any]]] = []
        try:
            failure: list[DataError] = []
            for image_id, encoded in _until_failure(images, failure):
                waiting.append((image_id, pool.submit(_search, encoded, options)))
                if len(waiting) >= _QUEUED * num_workers:
                    yield _result(*waiting.pop(0))
            while waiting:
                yield _result(*waiting.pop(0))
            if failure:
                raise failure[0]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def load_search(
    options: SearchOptions, opencv_folder: str
) -> Callable[[Iterable[tuple[str, bytes]]], Iterator[tuple[str, Proposed]]]:
    """Returns the function that searches images in this process. Arguments are as in ``search_images``."""
    _add_folder(opencv_folder)
    return lambda images: (
        (image_id, _or_none(image_id, functools.partial(_search, encoded, options))) for image_id, encoded in images
    )


def _until_failure(images: Iterable[tuple[str, bytes]], failure: list[DataError]) -> Iterator[tuple[str, bytes]]:
    """Yields the images up to one that cannot be read, so that running searches are not lost."""
    try:
        yield from images
    except DataError as problem:
        failure.append(problem)


def _result(image_id: str, future: concurrent.futures.Future[Any]) -> tuple[str, Proposed]:
    try:
        return image_id, _or_none(image_id, future.result)
    except concurrent.futures.process.BrokenProcessPool as problem:
        raise UsageError(f"the processes that search windows have ended: {problem}") from None


def _or_none(image_id: str, search: Callable[[], Proposed]) -> Proposed:
    """Returns the windows of an image; none, with a warning, if it cannot be decoded."""
    try:
        return search()
    except _Undecodable as problem:
        logger.warning("image %r cannot be decoded: it gets no windows (%s)", image_id, problem)
        return Proposed(np.zeros([0, 4], np.float32), np.zeros([0], np.float32))


class _Undecodable(Exception):
    """OpenCV cannot read an image. Can be pickled, unlike UnusableImage."""


def _start_worker(opencv_folder: str) -> None:
    """Puts the contrib build in front of any other, and leaves Ctrl-C to the parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _add_folder(opencv_folder)


def _add_folder(opencv_folder: str) -> None:
    if opencv_folder and opencv_folder not in sys.path:
        sys.path.insert(0, opencv_folder)


def _search(encoded: bytes, options: SearchOptions) -> Proposed:
    import cv2

    # An ordinary build that was installed over a contrib build leaves an empty cv2.ximgproc.
    if not hasattr(getattr(cv2, "ximgproc", None), "segmentation"):
        raise UsageError(
            f"OpenCV {cv2.__version__} in {pathlib.Path(cv2.__file__).parent} has no selective search: it is not the "
            f"contrib build, or opencv-python-headless was installed after it. Install with: "
            f"{_own_folder_command(DEFAULT_FOLDER)}"
        )
    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR | (0 if options.turns_upright else cv2.IMREAD_IGNORE_ORIENTATION)
    pixels = _decode(cv2, encoded, flags)
    height, width = pixels.shape[:2]
    if options.image_width and width != options.image_width:
        height, width = max(1, round(height * options.image_width / width)), options.image_width
        if height * width > max_pixels():
            raise _Undecodable(f"at a width of {width} it has {height} rows, more than {as_flag()}")
        pixels = cv2.resize(pixels, (width, height))
    windows = _edge_boxes(cv2, pixels, options) if options.mode == EDGE_BOXES else _windows(cv2, pixels, options.mode)
    return to_proposals(windows, (height, width), options)


def _decode(cv2: Any, encoded: bytes, flags: int) -> np.ndarray:
    """Decodes a file of any format of OpenCV to BGR, uint8 [H, W, 3]."""
    from detzoo.files.images import UnusableImage, open_header

    try:
        open_header(encoded)
    except UnusableImage as problem:  # too many pixels
        raise _Undecodable(str(problem)) from None
    except Exception as problem:
        logger.debug("Pillow: %s", problem)
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except Exception as problem:  # OpenCV's own kind of error, by its build
        raise _Undecodable(" ".join(str(problem).split())) from None
    if pixels is None:
        raise _Undecodable("OpenCV finds no image in it")
    return pixels


def _windows(cv2: Any, pixels: np.ndarray, mode: str) -> np.ndarray:
    """Returns windows int [R, 4], x, y, width and height, in OpenCV's order."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).srand(0)  # OpenCV orders by rand(): the same for an image wherever it comes
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(pixels)
    getattr(search, MODES[mode])()
    return search.process()


def _edge_boxes(cv2: Any, pixels: np.ndarray, options: SearchOptions) -> np.ndarray:
    """Returns windows int [R, 4], x, y, width and height, best first."""
    if options.edge_model:
        forests = cv2.ximgproc.createStructuredEdgeDetection(options.edge_model)
        edges = forests.detectEdges(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.float32) / 255.0)
        orientation = forests.computeOrientation(edges)
        edges = forests.edgesNms(edges, orientation)
    else:
        gray = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (0, 0), _SMOOTHING)
        dx, dy = (cv2.Sobel(gray, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
        strength = np.hypot(dx, dy) * (cv2.Canny(gray, *_CANNY_THRESHOLDS) > 0)  # thin lines
        edges = (strength / max(float(strength.max()), 1.0)).astype(np.float32)
        orientation = np.mod(np.arctan2(dy, dx), np.pi).astype(np.float32)  # of the edge's normal
    windows, _ = cv2.ximgproc.createEdgeBoxes(maxBoxes=options.max_proposals).getBoundingBoxes(edges, orientation)
    return np.asarray(windows, np.int64).reshape(-1, 4)


def to_proposals(windows: np.ndarray, shape: tuple[int, int], options: SearchOptions) -> Proposed:
    """Converts windows to fractions of the image, without small and repeated ones, best first.

    Args:
        windows: int [R, 4], x, y, width and height in pixels, best first.
        shape: (height, width) of the image that was searched.
        options: Limits of size and number.
    """
    windows = np.asarray(windows, np.int64).reshape(-1, 4)
    windows = windows[(windows[:, 2:] >= options.min_size).all(axis=1)]
    _, first = np.unique(windows, axis=0, return_index=True)
    windows = windows[np.sort(first)][: options.max_proposals]
    corner, size = windows[:, 1::-1], windows[:, 3:1:-1]
    boxes = np.concatenate([corner, corner + size], axis=1) / np.tile(np.array(shape, np.float64), 2)
    count = max(len(windows), 1)
    scores = 1.0 - np.arange(len(windows)) / count
    return Proposed(np.clip(boxes, 0.0, 1.0).astype(np.float32), scores.astype(np.float32))
