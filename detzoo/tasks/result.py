"""The result of a detector for one image: boxes, names and masks, as arrays, pictures, and other libraries' formats."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from detzoo.errors import DataError, UsageError
from detzoo.evaluate.masks import PastedMasks, Rle, encode_mask
from detzoo.extras import require_package
from detzoo.serving.image_detector import ImageDetections

if TYPE_CHECKING:
    import pandas
    import supervision
    from PIL import Image

    from detzoo.datasets.fonts import LabelFonts

_CORNERS = ("ymin", "xmin", "ymax", "xmax")


class Detection(NamedTuple):
    """One detection of a ``Result``."""

    box_px: np.ndarray  # float32 [4], ymin, xmin, ymax, xmax in pixels of the image
    score: float  # 0 to 1
    class_id: int  # id in the label map, from 1
    class_name: str
    mask: np.ndarray | None  # bool [H, W] of the image; None without a mask head
    track_id: int | None = None  # number of the object in its video, from 1


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The detections of one image, best first, D of them.

    ``len(result)`` is D. ``result[0]`` and a loop give a ``Detection``; a slice, a list of rows or a bool array gives a
    ``Result`` with some of them, such as ``result[result.scores > 0.7]``.

    Attributes:
        detections: The arrays of the model.
        shape: (height, width) of the image in pixels.
        names: Class name by id; an id without one is called "class <id>".
        path: File of the image; None for an image from memory.
        image_id: Number of the image in its call, from 1.
        max_drawn_overlap: See ``DetectionLimits``.
        seconds: Time of a frame since the first frame of its video, whose number is ``image_id``; None for an image.
        track_ids: int32 [D], numbers of the objects in a video that is tracked, from 1; 0 for an object that is not
            followed yet. None without tracking.
        keypoint_edges: Pairs of numbers of keypoints that ``draw`` connects by lines.
    """

    detections: ImageDetections
    shape: tuple[int, int]
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    path: pathlib.Path | None = None
    image_id: int = 1
    max_drawn_overlap: float = 1.0
    _pixels: np.ndarray | None = None
    seconds: float | None = None
    track_ids: np.ndarray | None = None
    keypoint_edges: tuple[tuple[int, int], ...] = ()

    @property
    def boxes_norm(self) -> np.ndarray:
        """Boxes float32 [D, 4] of ymin, xmin, ymax, xmax in fractions of the image, 0 to 1."""
        return self.detections.boxes_norm

    @functools.cached_property
    def boxes_px(self) -> np.ndarray:
        """Boxes float32 [D, 4] of ymin, xmin, ymax, xmax in pixels of the image."""
        return (self.boxes_norm * np.tile(self.shape, 2)).astype(np.float32)

    @property
    def scores(self) -> np.ndarray:
        """Scores float32 [D], 0 to 1, in descending order."""
        return self.detections.scores

    @property
    def class_ids(self) -> np.ndarray:
        """Ids int32 [D] of the classes in the label map, from 1."""
        return self.detections.class_ids

    @functools.cached_property
    def class_names(self) -> list[str]:
        """Names of the classes, D of them."""
        return [self.names.get(int(class_id), f"class {class_id}") for class_id in self.class_ids]

    @functools.cached_property
    def masks(self) -> np.ndarray | None:
        """Masks bool [D, H, W] of the image, made when they are asked for; None if the model has no mask head.

        They take one byte per pixel and detection. A loop over the result makes one at a time.
        """
        pasted = self._pasted
        return None if pasted is None else np.array(list(pasted), bool).reshape(-1, *self.shape)

    @property
    def image(self) -> np.ndarray:
        """The image uint8 [H, W, 3], RGB, upright. If the call had several files, the file is read again.

        Raises:
            DataError: The file has been removed or changed.
        """
        if self._pixels is not None:
            return self._pixels
        from detzoo.files.images import UnusableImage, read_upright

        if self.path is None or self.seconds is not None:
            raise UsageError("this result has no image: it was made without one, or is one of the list of a video")
        try:
            pixels = read_upright(self.path)
        except UnusableImage as problem:
            raise DataError(f"{self.path} cannot be read again: {problem}") from None
        if pixels.shape[:2] != self.shape:
            raise DataError(f"{self.path} has changed: it had {self._size()} pixels when it was detected on")
        return pixels

    def without_image(self) -> Result:
        """Returns the result without the pixels of its image, which can be read from its file again."""
        return self if self.path is None else dataclasses.replace(self, _pixels=None)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self._detection(row) for row in range(len(self)))

    @overload
    def __getitem__(self, rows: int) -> Detection: ...

    @overload
    def __getitem__(self, rows: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Result: ...

    def __getitem__(self, rows: int | slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Detection | Result:
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"there is no row {rows}: the result has {len(self)} detections")
            return self._detection(range(len(self))[rows])
        if not isinstance(rows, slice):
            rows = np.asarray(rows, None if len(rows) else int)  # numpy takes an empty list for floats
        chosen = np.arange(len(self))[rows]
        track_ids = None if self.track_ids is None else self.track_ids[chosen]
        return dataclasses.replace(self, detections=self.detections.rows(chosen), track_ids=track_ids)

    @property
    def keypoints(self) -> np.ndarray | None:
        """Keypoints [N, T, 3]: y and x in pixels, and score; None if the model predicts none."""
        points, scores = self.detections.keypoints_norm, self.detections.keypoint_scores
        if points is None or scores is None:
            return None
        return np.concatenate([points * np.array(self.shape), scores[..., np.newaxis]], axis=-1)

    def filter(self, class_names: str | Sequence[str] = (), score_threshold: float = 0.0) -> Result:
        """Returns the detections of some classes, with scores of at least a threshold.

        Args:
            class_names: A name or several; empty for all classes.
            score_threshold: Least score, 0 to 1.
        """
        wanted = {class_names} if isinstance(class_names, str) else set(class_names)
        named = [not wanted or name in wanted for name in self.class_names]
        return self[np.array(named, bool) & (self.scores >= score_threshold)]

    def __repr__(self) -> str:
        where = f"{str(self.path)!r}, " if self.path else ""
        counts = ", ".join(f"{count} {name}" for name, count in collections.Counter(self.class_names).items())
        masks = ", masks" if self.detections.masks is not None else ""
        return f"Result({where}{self._size()} pixels{masks}, {len(self)} detections{f': {counts}' if counts else ''})"

    def draw(self, font: str | pathlib.Path | LabelFonts | None = None) -> Image.Image:
        """Draws boxes, masks, names and scores on the image, as `detzoo detect` does.

        Args:
            font: Path of a font for class names that DejaVu Sans cannot draw.

        Returns:
            A PIL image in RGB, of the size of the image or, for a small one, a whole multiple of it.
        """
        from detzoo.datasets.drawing import draw_detections, object_colours
        from detzoo.datasets.fonts import LabelFonts

        drawn, masks = self._drawn(), self._pasted
        by_object = masks is not None and len(self.names) == 1 and self.track_ids is None
        return draw_detections(
            self.image,
            self.boxes_norm[drawn],
            [self._label(row) for row in drawn],
            self.scores[drawn],
            None if masks is None else [masks[row] for row in drawn],
            # Colours distinguish the masks if they all have one class.
            colours=object_colours(len(drawn)) if by_object else None,
            fonts=LabelFonts(font) if isinstance(font, str | pathlib.Path) else font,
            keypoints=None if self.keypoints is None else self.keypoints[drawn] / [*self.shape, 1.0],
            keypoint_edges=self.keypoint_edges,
        )

    def to_coco(self) -> list[dict[str, Any]]:
        """Returns the detections in COCO's results format, as in the detections.json of `detzoo detect`.

        Returns:
            One dict per detection: ``image_id``, ``file_name`` (of an image file), ``category_id``, ``category_name``,
            ``bbox`` [x, y, width, height] in pixels, ``score``, with a mask head ``segmentation``, run-length encoded,
            with keypoints ``keypoints``, x and y in pixels and score of each, and with tracking ``track_id``, None for
            an object that is not followed yet.
        """
        entries: list[dict[str, Any]] = []
        for (ymin, xmin, ymax, xmax), score, class_id, name in zip(
            self._boxes_float64().tolist(), self.scores, self.class_ids, self.class_names
        ):
            entry: dict[str, Any] = {"image_id": self.image_id}
            if self.path is not None:
                entry["file_name"] = str(self.path)
            entry["category_id"], entry["category_name"] = int(class_id), name
            entry["bbox"] = [round(value, 2) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]
            entry["score"] = round(float(score), 5)
            entries.append(entry)
        for entry, mask in zip(entries, self._encoded or ()):
            entry["segmentation"] = mask
        for row, entry in enumerate(entries if self.track_ids is not None else ()):
            entry["track_id"] = self._track_id(row)
        for entry, points in zip(entries, self.keypoints if self.keypoints is not None else ()):
            entry["keypoints"] = np.round(points[:, [1, 0, 2]].astype(np.float64), 2).ravel().tolist()
        return entries

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with one row per detection.

        Returns:
            A DataFrame with the columns image_id, path, class_id, class_name, score, and ymin, xmin, ymax, xmax in
            pixels.

        Raises:
            UsageError: pandas is not installed.
        """
        pandas = require_package("pandas", "Result.to_pandas")
        columns = {
            "image_id": np.full(len(self), self.image_id),
            "path": np.full(len(self), None if self.path is None else str(self.path), object),
            "class_id": self.class_ids,
            "class_name": np.array(self.class_names, object),
            "score": self.scores,
        }
        return pandas.DataFrame(columns | dict(zip(_CORNERS, self.boxes_px.T)))

    def to_supervision(self) -> supervision.Detections:
        """Returns the detections for the library supervision.

        Returns:
            A ``supervision.Detections``: ``xyxy`` in pixels, ``confidence``, ``mask`` bool [D, H, W] with a mask head,
            ``class_id`` from 0 (the id of the label map less 1), ``tracker_id`` (-1 for an object that is not followed
            yet) with tracking, and the names in ``data["class_name"]``.

        Raises:
            UsageError: supervision is not installed.
        """
        supervision = require_package("supervision", "Result.to_supervision")
        return supervision.Detections(
            xyxy=self.boxes_px[:, [1, 0, 3, 2]],
            mask=self.masks,
            confidence=np.asarray(self.scores, np.float32),
            class_id=np.asarray(self.class_ids, int) - 1,
            tracker_id=None if self.track_ids is None else np.where(self.track_ids > 0, self.track_ids, -1),
            data={"class_name": np.array(self.class_names, str)},
        )

    def _detection(self, row: int) -> Detection:
        mask = None if self._pasted is None else self._pasted[row]
        score, class_id = float(self.scores[row]), int(self.class_ids[row])
        return Detection(self.boxes_px[row], score, class_id, self.class_names[row], mask, self._track_id(row))

    def _track_id(self, row: int) -> int | None:
        return None if self.track_ids is None else int(self.track_ids[row]) or None

    def _label(self, row: int) -> str:
        """Returns the name to draw; with the number of a tracked object, which then has its own colour."""
        track_id = self._track_id(row)
        return f"{self.class_names[row]} #{track_id}" if track_id else self.class_names[row]

    def _boxes_float64(self) -> np.ndarray:
        return self.boxes_norm.astype(np.float64) * np.tile(self.shape, 2)

    def _size(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]}"

    @functools.cached_property
    def _pasted(self) -> PastedMasks | None:
        masks = self.detections.masks
        return None if masks is None else PastedMasks(masks, self._boxes_float64(), self.shape)

    @functools.cached_property
    def _encoded(self) -> list[Rle] | None:
        return None if self._pasted is None else [encode_mask(mask) for mask in self._pasted]

    def _drawn(self) -> list[int]:
        """Returns the rows of the detections that are drawn, best first."""
        rows = list(range(len(self)))
        if self.max_drawn_overlap >= 1.0 or not rows:
            return rows
        from pycocotools.mask import iou

        corners = self.boxes_norm
        boxes_xywh = np.concatenate([corners[:, 1::-1], corners[:, :1:-1] - corners[:, 1::-1]], 1)
        shapes = boxes_xywh.astype(np.float64) if self._encoded is None else self._encoded
        overlaps = np.asarray(iou(shapes, shapes, [0] * len(rows)))
        overlaps[self.class_ids[:, np.newaxis] != self.class_ids] = 0.0
        chosen: list[int] = []
        for row in rows:
            if not chosen or overlaps[row, chosen].max() <= self.max_drawn_overlap:
                chosen.append(row)
        return chosen
