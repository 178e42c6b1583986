"""COCO's test-dev submission: the zip file that its evaluation server takes (from evaluated images).

The format is that of cocodataset.org, "results format" and "upload": one JSON list in a zip of the same name, image ids
of the published list of the test set, COCO's category ids.
"""

from __future__ import annotations

import json
import logging
import pathlib
import re
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from detzoo.errors import DataError, UsageError
from detzoo.evaluate.classification import ClassifiedImage
from detzoo.evaluate.coco import coco_detections
from detzoo.evaluate.images import EvaluatedImage
from detzoo.files.issues import IssueLog
from detzoo.files.text_files import load_json
from detzoo.folders import draft_of

TEST_SET = "test-dev2017"
MOST_DETECTIONS = 100  # per image, those that the server counts
MASKS_FOLDER = "segm"
BOX_DECIMALS, SCORE_DECIMALS = 2, 5
# COCO numbers its 80 classes from 1 to 90, with gaps.
_ABSENT_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = frozenset(range(1, 91)) - set(_ABSENT_IDS)
_ALGORITHM = re.compile(r"[A-Za-z0-9][\w.-]*")

logger = logging.getLogger(__name__)


class Submission(NamedTuple):
    """Name of the algorithm, and the image ids of the test set."""

    algorithm: str
    image_ids: frozenset[int]

    @property
    def name(self) -> str:
        """Name of the files, without extension."""
        return f"detections_{TEST_SET}_{self.algorithm}_results"


def read_submission(algorithm: str, image_list: str | None) -> Submission:
    """Reads the list of the test set.

    Args:
        algorithm: Name of the algorithm on the leader board.
        image_list: COCO's image_info_test-dev2017.json.

    Raises:
        UsageError: The name cannot be a part of a file name, or the list is missing.
        DataError: The file is no list of images.
    """
    if not _ALGORITHM.fullmatch(algorithm):
        raise UsageError(f"--submission {algorithm!r} becomes a part of a file name: letters, digits, '-', '_' and '.'")
    if not image_list:
        raise UsageError(f"--submission needs --submission_images: COCO's image_info_{TEST_SET}.json")
    content = load_json(pathlib.Path(image_list), "--submission_images", IssueLog())
    images = content.get("images") if isinstance(content, dict) else None
    ids = [image.get("id") for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    whole = [number for number in ids if isinstance(number, int) and not isinstance(number, bool)]
    if not whole or len(whole) < len(ids):
        raise DataError(f"{image_list}: no list 'images' of objects with a whole number as 'id'")
    return Submission(algorithm, frozenset(whole))


def write_submission(
    submission: Submission, evaluated: Sequence[EvaluatedImage] | Sequence[ClassifiedImage], folder: str | pathlib.Path
) -> list[pathlib.Path]:
    """Writes the zip of boxes, and in the folder ``segm`` that of masks if there are any.

    Of an image, the best 100 detections are written, with boxes in hundredths of a pixel.

    Raises:
        DataError: The server would refuse the file; the message has the reason.
    """
    images = [image for image in evaluated if isinstance(image, EvaluatedImage)]
    if len(images) < len(evaluated):
        raise DataError("--submission needs a detector; the model classifies whole images")
    numbers = [int(image.image_id) for image in images if image.image_id.isascii() and image.image_id.isdigit()]
    if len(set(numbers)) < len(images):
        raise DataError(
            "--submission: the records have no COCO image ids (image/source_id, a distinct number for each image); "
            "`detzoo dataset coco` writes them"
        )
    missing, unknown = submission.image_ids - set(numbers), set(numbers) - submission.image_ids
    if missing or unknown:
        raise DataError(
            f"--submission: the evaluated images are not those of the list: {_some(missing)} of the list not "
            f"evaluated, {_some(unknown)} evaluated and not in the list"
        )
    best = [_best(image) for image in images]
    classes = {int(index) + 1 for image in best for index in image.classes} - COCO_IDS
    if classes:
        raise DataError(
            f"--submission: the category ids {', '.join(map(str, sorted(classes)[:5]))} are none of COCO's; the label "
            "map must have COCO's ids, 1 to 90 with gaps, as `detzoo dataset coco` keeps them"
        )
    folder = pathlib.Path(folder)
    entries = list(coco_detections(best))
    written = [_write(folder / f"{submission.name}.zip", [_rounded(entry, "bbox") for entry in entries])]
    if any(image.masks is not None for image in images):
        masks = [_rounded(entry, "segmentation") for entry in entries]
        written.append(_write(folder / MASKS_FOLDER / f"{submission.name}.zip", masks))
    return written


def _best(image: EvaluatedImage) -> EvaluatedImage:
    rows = (-image.scores).argsort(kind="stable")[:MOST_DETECTIONS]
    masks = None if image.masks is None else [image.masks[row] for row in rows]
    return image._replace(
        boxes_px=image.boxes_px[rows], scores=image.scores[rows], classes=image.classes[rows], masks=masks
    )


def _rounded(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    region = [round(side, BOX_DECIMALS) for side in entry["bbox"]] if kind == "bbox" else entry["segmentation"]
    score = round(entry["score"], SCORE_DECIMALS)
    return {"image_id": entry["image_id"], "category_id": entry["category_id"], kind: region, "score": score}


def _write(file: pathlib.Path, entries: list[dict[str, Any]]) -> pathlib.Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(file) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{file.stem}.json", json.dumps(entries))
    return file


def _some(ids: set[int] | frozenset[int]) -> str:
    return f"{len(ids)}" + (f" (such as {min(ids)})" if ids else "")
