"""Detections of the frontier's key models side by side (figures 12 to 17 of arXiv:1611.10012).

Reads ``examples/NAME.jpg`` and ``points/KEY/examples.json`` in the folder of a sweep. Draws the best 20 boxes above the
paper's thresholds on pictures that are small enough for a page.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from detzoo.datasets.drawing import draw_detections
from detzoo.files.images import UnusableImage, read_upright
from detzoo.pages.render import encode_picture
from detzoo.pages.text import printable
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import Row, groups_by_device, measured_rows
from detzoo.sweep.report.frontier import optimality_frontier
from detzoo.sweep.report.names import is_one_stage, point_labels

MOST_DRAWN = 20  # arXiv:1611.10012, section 4.4
TWO_STAGE_THRESHOLD, ONE_STAGE_THRESHOLD = 0.5, 0.3  # the same
MOST_MODELS = 5  # the same
MOST_IMAGES = 8
LONGER_SIDE_PX = 560
# A key is the name of a folder, an image that of a file: neither may lead out of the sweep's folder.
_PLAIN_NAME = re.compile(r"^[^/\\\0]+$")


class ExamplePicture(NamedTuple):
    """One image with the detections of one model."""

    label: str  # of the model
    num_drawn: int
    threshold: float
    jpeg: bytes
    size: tuple[int, int]  # height, width in pixels


class ExampleImage(NamedTuple):
    """One image and the models' pictures of it."""

    name: str
    pictures: tuple[ExamplePicture, ...]


def draw_examples(
    rows: Sequence[Row], metric: str, folder: pathlib.Path, wanted: Sequence[str] = ()
) -> tuple[list[ExampleImage], str]:
    """Draws the key models' detections on the ``wanted`` images of ``folder/examples``, or on the first few.

    Returns:
        The images, and the reason for missing ones ("" if none is missing).
    """
    found = {id(row): _read_examples(row, folder) for row in measured_rows(rows)}
    models = key_models([row for row in measured_rows(rows) if found[id(row)]], metric)
    if not models:
        return [], "the sweep left no detections on example images"
    labels = point_labels(models)
    names = sorted({name for row in models for name in found[id(row)]})
    missing = [name for name in wanted if _matching(name, names) is None]
    chosen = [match for name in wanted if (match := _matching(name, names))] if wanted else names[:MOST_IMAGES]
    images = []
    for name in dict.fromkeys(chosen):
        image = _open_image(folder / "examples", name)
        if image is None:
            missing.append(name)
            continue
        pictures = [
            _picture(image, found[id(row)][name], row, label)
            for row, label in zip(models, labels)
            if name in found[id(row)]
        ]
        images.append(ExampleImage(name, tuple(pictures)))
    words = f"no detections or no image of {', '.join(printable(name) for name in missing)}" if missing else ""
    return images, words


def key_models(rows: Sequence[Row], metric: str) -> list[Row]:
    """Returns up to five points, evenly along the frontier with both its ends; by time alone without accuracy."""
    groups = groups_by_device(rows)
    if not groups:
        return []
    group = next(iter(groups.values()))
    times = [row[LATENCY] for row in group]
    order = optimality_frontier(times, [row[metric] for row in group])
    if not order:
        order = sorted(range(len(group)), key=lambda index: (times[index] is None, times[index]))
    places = sorted({round(place) for place in np.linspace(0, len(order) - 1, min(MOST_MODELS, len(order)))})
    return [group[order[place]] for place in places]


def score_threshold(row: Row) -> float:
    """Returns the paper's threshold: .3 for detectors of one stage, else .5."""
    return ONE_STAGE_THRESHOLD if is_one_stage(row) else TWO_STAGE_THRESHOLD


def _read_examples(row: Row, folder: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    """Returns file name of an image -> the model's detections on it; {} if they cannot be read."""
    key = row["key"]
    if not key or not _PLAIN_NAME.match(key) or key in (".", ".."):
        return {}
    try:
        entries = json.loads((folder / "points" / key / "examples.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {entry["image"]: entry for entry in entries if _is_entry(entry)} if isinstance(entries, list) else {}


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not _PLAIN_NAME.match(entry["image"]):
        return False
    parts: list[Any] = [entry.get(name) for name in ("boxes_px", "scores", "classes")]
    if not all(isinstance(part, list) for part in parts) or len(set(map(len, parts))) != 1:
        return False
    sizes = [entry.get("width"), entry.get("height")]
    return all(isinstance(size, int) and size > 0 for size in sizes) and all(
        isinstance(box, list) and len(box) == 4 for box in parts[0]
    )


def _matching(wanted: str, names: Sequence[str]) -> str | None:
    """Returns the name itself, or the name that differs in its suffix only."""
    stem = pathlib.PurePath(wanted).stem
    return next((name for name in [*({wanted} & {*names}), *names] if pathlib.PurePath(name).stem == stem), None)


def _open_image(folder: pathlib.Path, name: str) -> Image.Image | None:
    try:
        return Image.fromarray(read_upright(folder / name))
    except UnusableImage:
        return None


def _picture(image: Image.Image, entry: Mapping[str, Any], row: Row, label: str) -> ExamplePicture:
    threshold = score_threshold(row)
    scores = np.array(entry["scores"], np.float64)
    order = [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] >= threshold][:MOST_DRAWN]
    boxes = np.array([entry["boxes_px"][index] for index in order], np.float64).reshape(-1, 4)
    boxes /= [entry["height"], entry["width"], entry["height"], entry["width"]]
    small = image.copy()
    small.thumbnail((LONGER_SIDE_PX, LONGER_SIDE_PX))
    names = [printable(entry["classes"][index], 32) for index in order]
    drawn = draw_detections(np.asarray(small), boxes, names, scores[order])
    return ExamplePicture(label, len(order), threshold, *encode_picture(drawn))
