"""Detects on image files with an exported model or an ensemble.

from detzoo.tasks.detect import detect

summary = detect(["photos"], "pictures", saved_model="exported")
summary.entries[0]["category_name"]
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detzoo.errors import DataError, UsageError
from detzoo.folders import METRICS_FILE, make_folder
from detzoo.tasks.export import PROPOSAL_NAME
from detzoo.tasks.models import export_record, load_exported, start_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from detzoo.config.label_map import LabelMap
    from detzoo.tasks.detect_files import DetectionLimits, DetectionSummary

PROPOSALS_OVERLAP = 0.5  # of drawn masks of proposals, which nothing suppresses

logger = logging.getLogger(__name__)


def detect(
    images: Sequence[str],
    output_dir: str | pathlib.Path,
    *,
    saved_model: str | None = None,
    ensemble: str | None = None,
    label_map: str | None = None,
    proposals: str | None = None,
    score_threshold: float | str = 0.5,
    max_boxes: int = 100,
    max_drawn_overlap: float | None = None,
    font: str | None = None,
    metrics: str | pathlib.Path | None = None,
) -> DetectionSummary:
    """Draws and lists the detections of every image; an interrupted call is resumed by the next one.

    Args:
        images: Files, folders and globs.
        output_dir: Folder for the pictures and detections.json.
        saved_model: A SavedModel or a .tflite file; or give ``ensemble``.
        ensemble: The ensemble.json of `detzoo ensemble`.
        label_map: Path of a label map; None for the one next to the model.
        proposals: Path of a proposals.npz, for a model that classifies given regions.
        score_threshold: Least score of a detection, 0 to 1; or "best" for the one with the best F1 in ``metrics``.
        max_boxes: Detections per image at most.
        max_drawn_overlap: Greatest IoU of two drawn detections of a class; None for 0.5 if the detections are
            class-agnostic masks, else 1.
        font: Path of a font for class names that DejaVu Sans cannot draw.
        metrics: The metrics.json of an evaluation of this model, or its folder; None for the one next to the model.

    Raises:
        DataError: No image could be used.
    """
    from detzoo.config.label_map import load_label_map
    from detzoo.datasets.fonts import LabelFonts
    from detzoo.files.image_files import find_images

    if bool(saved_model) == bool(ensemble):
        raise UsageError("`detzoo detect` needs --saved_model, or --ensemble instead of it")
    files = find_images(images)
    named = load_label_map(label_map) if label_map else None
    fonts = LabelFonts(font)
    folder = make_folder(output_dir, "--output_dir")
    from detzoo.tasks.detect_files import detect_files

    start_tensorflow()
    detector, label_map_of_model = load_ensemble_file(ensemble) if ensemble else load_with_label_map(saved_model or "")
    regions = proposals_table(detector, proposals)
    if regions is not None:
        regions.check_images(files)
    named = named or label_map_of_model
    if named is None:
        logger.warning(
            "no label map next to %s, so classes are named by their ids; --label_map names one",
            saved_model or "the models of the ensemble",
        )
    names = named.display_names if named else {}
    if isinstance(score_threshold, str):
        model = pathlib.Path(ensemble) if ensemble else detector.folder
        score_threshold = measured_threshold(score_threshold, model, metrics, label_map_of_model)
    limits = choose_limits(detector, names, score_threshold, max_boxes, max_drawn_overlap)
    made_with = _made_with(font, saved_model=saved_model, ensemble=ensemble, proposals=proposals)
    summary = detect_files(detector, files, names, folder, limits, regions, made_with=made_with, fonts=fonts)
    if not summary.num_images:
        reason = f": {next(iter(summary.skipped.values()))}"
        raise DataError(f"none of the {len(files)} files could be read as an image and detected on{reason}")
    return summary


def measured_threshold(
    word: str, model: pathlib.Path, metrics: str | pathlib.Path | None, label_map: LabelMap | None
) -> float:
    """Returns the score threshold that an evaluation of a model found to be the best.

    Args:
        word: "best".
        model: SavedModel, exported file or ensemble.json.
        metrics: See ``detect``.
        label_map: That of the model; None if it is unknown.

    Raises:
        UsageError: There is no metrics.json, or it is of another model.
    """
    from detzoo.evaluate.best_threshold import BEST, best_threshold

    if word != BEST:
        raise UsageError(f"--score_threshold is {word!r}; accepted: 0 to 1, or {BEST}")
    if metrics is None:
        near = [folder / METRICS_FILE for folder in (model.parent, model, model.parent / "eval")]
        metrics = next((path for path in near if path.is_file()), None)
    if metrics is None:
        raise UsageError(
            f"--score_threshold={BEST} needs a {METRICS_FILE}, and there is none next to {model}: `detzoo evaluate` "
            "writes one, name it with --metrics"
        )
    names = label_map.names.values() if label_map else None
    threshold = best_threshold(metrics, names, export_record(model).get("weights"))
    logger.info("score threshold %g has the best F1 in %s", threshold, metrics)
    return threshold


def load_ensemble_file(path: str) -> tuple[Any, LabelMap | None]:
    """Loads the models of an ensemble.json as one detector, and their label map."""
    from detzoo.ensemble.description import read_ensemble
    from detzoo.tasks.ensemble import load_ensemble

    return load_ensemble(read_ensemble(path))


def load_with_label_map(saved_model: str | pathlib.Path) -> tuple[Any, LabelMap | None]:
    """Loads an exported model and the label map next to it."""
    from detzoo.serving.saved_detector import label_map_beside

    detector = load_exported(saved_model)
    return detector, label_map_beside(detector.folder)


def choose_limits(
    detector: Any,
    names: Mapping[int, str],
    score_threshold: float = 0.5,
    max_boxes: int = 100,
    max_drawn_overlap: float | None = None,
) -> DetectionLimits:
    """Returns the limits of detections; the arguments are those of ``detect``.

    Raises:
        UsageError: A number is out of range.
    """
    from detzoo.tasks.detect_files import DetectionLimits

    if not 0.0 <= score_threshold <= 1.0:
        raise UsageError(f"--score_threshold is {score_threshold}; accepted: 0 to 1")
    if max_boxes < 1:
        raise UsageError(f"--max_boxes is {max_boxes}; accepted: 1 or more")
    if max_drawn_overlap is None:
        proposes = dict(names) == {1: PROPOSAL_NAME} and detector.has_masks
        max_drawn_overlap = PROPOSALS_OVERLAP if proposes else 1.0
    return DetectionLimits(score_threshold, max_boxes, max_drawn_overlap)


def _made_with(font: str | None, **paths: str | None) -> dict[str, Any]:
    """Returns the files that detections depend on: an interrupted run is resumed only with the same ones."""
    from detzoo.tasks.detect_journal import fingerprint

    made_with: dict[str, Any] = {name: fingerprint(path) if path else None for name, path in paths.items()}
    if ensemble := paths["ensemble"]:
        from detzoo.ensemble.description import read_ensemble

        models = read_ensemble(ensemble).models
        made_with["models"] = [fingerprint(model.saved_model) for model in models if model.saved_model]
    return {"font": font, **made_with}


class ProposalsFile:
    """Regions to classify, by the file names of images; called with a file and (height, width) of its image.

    Args:
        path: The proposals.npz of `detzoo proposals`.
    """

    def __init__(self, path: str) -> None:
        from detzoo.data.proposals import read_proposals

        self._path, self._table = path, read_proposals(path)

    def check_images(self, images: Sequence[pathlib.Path]) -> None:
        """Raises UsageError for images without an entry."""
        missing = [path.name for path in images if path.name.encode() not in self._table]
        if missing:
            raise UsageError(
                f"--proposals {self._path} has no entry for {len(missing)} of the {len(images)} images, such as "
                f"{missing[0]!r}; it has {', '.join(map(repr, self._table.image_ids[:2]))}, ...: images are found by "
                "their file names"
            )

    def __call__(self, path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
        """Returns the regions of an image, float32 [R, 4] in fractions of the image."""
        boxes = self._table.lookup(path.name.encode())[0]
        return boxes / [*shape, *shape] if self._table.in_pixels else boxes


def proposals_table(detector: Any, file: str | None) -> ProposalsFile | None:
    """Reads the proposals for a detector that requires them; returns None for another one."""
    if not detector.wants_proposals:
        if file:
            raise UsageError("--proposals has no meaning for this model: it finds its regions itself; leave it out")
        return None
    if not file:
        raise UsageError(
            "this model classifies given regions: name them with --proposals=FILE. `detzoo proposals --images=... "
            "--output=FILE` searches them"
        )
    return ProposalsFile(file)
