"""Detects on image files with an exported model or an ensemble.

from detzoo.tasks.detect import detect

summary = detect(["photos"], "pictures", saved_model="exported")
summary.entries[0]["category_name"]
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.config.load import load_pipeline
from detzoo.config.names import suggestion
from detzoo.ensemble.description import read_ensemble
from detzoo.errors import ConfigError, DataError, UsageError
from detzoo.evaluate.best_threshold import BEST, best_threshold
from detzoo.folders import CONFIG_FILE, METRICS_FILE, make_folder
from detzoo.tasks.export import PROPOSAL_NAME
from detzoo.tasks.models import (
    export_record,
    load_exported,
    tiled,
    tiling_of,
    usual_batch_size,
)

if TYPE_CHECKING:
    import numpy as np

    from detzoo.serving.image_detector import ImageDetector
    from detzoo.tasks.detect_files import DetectionSummary
    from detzoo.tasks.detect_images import DetectionLimits, GivenImage
    from detzoo.tasks.models import Tiling

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
    max_boxes: int | None = None,
    max_drawn_overlap: float | None = None,
    font: str | None = None,
    metrics: str | pathlib.Path | None = None,
    tile: int | None = None,
    tile_overlap: float | None = None,
    batch_size: int | None = None,
    formats: Sequence[str] = (),
    save_crops: bool = False,
    no_pictures: bool = False,
    beam_options: Any = None,
) -> DetectionSummary:
    """Draws and lists the detections of every image; an interrupted call is resumed by the next one.

    Args:
        images: Files, folders and globs.
        output_dir: Folder for the pictures and detections.json.
        saved_model: A SavedModel, .tflite or .onnx file, also of the Object Detection API; or give ``ensemble``.
        ensemble: The ensemble.json of `detzoo ensemble`.
        label_map: Path of a label map; None for the one next to the model.
        proposals: Path of a proposals.npz, for a model that classifies given regions.
        score_threshold: Least score of a detection, 0 to 1; or "best" for the one with the best F1 in ``metrics``.
        max_boxes: Detections per image at most; None for 100, and 1000 with tiles.
        max_drawn_overlap: Greatest IoU of two drawn detections of a class; None for 0.5 if the detections are
            class-agnostic masks, else 1.
        font: Path of a font for class names that DejaVu Sans cannot draw.
        metrics: The metrics.json of an evaluation of this model, or its folder; None for the one next to the model.
        tile: Side in pixels of the tiles in which the model gets large images; None for whole images.
        tile_overlap: Least overlap of neighbouring tiles, as a share of their side; None for 0.2.
        batch_size: Images or tiles that run together, if the model takes several; None for 8 with a one-stage
            detector, and 1 with others.
        formats: Formats of label files to write, besides detections.json: "yolo", "voc", "csv", "labelme".
        save_crops: Write the part of the image in each box, as crops/<class>/<image>_<number>.jpg.
        no_pictures: Write no pictures.
        beam_options: ``PipelineOptions`` of Apache Beam, to detect by a pipeline; None to detect in this process.

    Raises:
        DataError: No image could be used.
    """
    from detzoo.datasets.fonts import LabelFonts
    from detzoo.files.image_files import common_folder, find_images

    tiling, formats = tiling_of(tile, tile_overlap), check_formats(formats)
    if bool(saved_model) == bool(ensemble):
        raise UsageError("`detzoo detect` needs --saved_model, or --ensemble instead of it")
    files = find_images(images)
    named = load_label_map(label_map) if label_map else None
    fonts = LabelFonts(font)
    folder = make_folder(output_dir, "--output_dir")
    from detzoo.tasks.detect_files import DetectionOutputs, ImageWork, detect_files

    detector, names, threshold = load_named(saved_model, ensemble, named, score_threshold, metrics)
    regions = proposals_table(detector, proposals)
    if regions is not None:
        regions.check_images(files)
    limits = choose_limits(detector, names, tiling, threshold, max_boxes, max_drawn_overlap)
    made_with = _made_with(font, saved_model=saved_model, ensemble=ensemble, proposals=proposals)
    batch_size = batch_size or usual_batch_size(model_beside(detector))
    outputs = DetectionOutputs(not no_pictures, save_crops, formats, common_folder(images))
    run = None
    if beam_options is not None:
        from detzoo.tasks.beam_pipelines import apply_by_beam

        work = ImageWork(names, limits, folder.absolute(), outputs, fonts, 1 if tiling else batch_size, regions)
        load = functools.partial(_load_on_worker, work, saved_model, ensemble, tiling, batch_size)
        run = functools.partial(apply_by_beam, beam_options, folder.absolute(), load)
    summary = detect_files(
        tiled(detector, tiling, batch_size),
        files,
        names,
        folder,
        limits,
        regions,
        made_with={**made_with, "tiles": tiling},
        fonts=fonts,
        batch_size=1 if tiling else batch_size,
        outputs=outputs,
        run=run,
    )
    if not summary.num_images:
        reason = f": {next(iter(summary.skipped.values()))}"
        raise DataError(f"none of the {len(files)} files could be read as an image and detected on{reason}")
    return summary


def _load_on_worker(work: Any, saved_model: str | None, ensemble: str | None, tiling: Any, batch_size: int) -> Any:
    """Returns the function that detects on images in a worker of a pipeline."""
    detector = load_ensemble_file(ensemble)[0] if ensemble else load_exported(saved_model or "")
    return functools.partial(work.run, tiled(detector, tiling, batch_size))


def choose_threshold(
    score_threshold: float | str,
    model: pathlib.Path,
    metrics: str | pathlib.Path | None = None,
    label_map: LabelMap | None = None,
) -> float:
    """Returns a score threshold, for "best" the one that an evaluation of the model found.

    Args:
        score_threshold: A number, or "best".
        model: SavedModel, exported file or ensemble.json.
        metrics: See ``detect``.
        label_map: That of the model; None if it is unknown.

    Raises:
        UsageError: There is no metrics.json, or it is of another model.
    """
    if not isinstance(score_threshold, str):
        return score_threshold
    if score_threshold != BEST:
        raise UsageError(f"--score_threshold is {score_threshold!r}; accepted: 0 to 1, or {BEST}")
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


def check_formats(names: Sequence[str]) -> list[str]:
    """Returns the names of formats of label files, which may be joined by commas.

    Raises:
        UsageError: A name is unknown.
    """
    from detzoo.datasets.label_writer import FORMATS

    given = [part.strip() for name in names for part in name.split(",") if part.strip()]
    for name in given:
        if name not in FORMATS:
            raise UsageError(f"--formats has {name!r}{suggestion(name, FORMATS)}; accepted: {', '.join(FORMATS)}")
    return given


def model_beside(detector: ImageDetector) -> Any:
    """Returns the ``model`` block of the pipeline.config next to an exported model; None if there is none to read."""
    folder = getattr(detector, "folder", None)
    with contextlib.suppress(ConfigError):  # a config that is not needed here may be one of another tool
        if folder is not None and (folder.parent / CONFIG_FILE).is_file():
            return load_pipeline(str(folder.parent / CONFIG_FILE)).message.model
    return None


def load_ensemble_file(path: str) -> tuple[Any, LabelMap | None]:
    """Loads the models of an ensemble.json as one detector, and their label map."""
    from detzoo.tasks.ensemble import load_ensemble
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    return load_ensemble(read_ensemble(path))


def load_with_label_map(saved_model: str | pathlib.Path) -> tuple[Any, LabelMap | None]:
    """Loads an exported model and the label map in it or next to it."""
    from detzoo.serving.onnx_detector import OnnxDetector
    from detzoo.serving.tflite_detector import TfliteDetector

    detector = load_exported(saved_model)
    if isinstance(detector, OnnxDetector | TfliteDetector):
        return detector, detector.label_map
    from detzoo.serving.saved_detector import label_map_beside

    return detector, label_map_beside(detector.folder)


def load_named(
    saved_model: str | None,
    ensemble: str | None,
    label_map: LabelMap | None,
    score_threshold: float | str,
    metrics: str | pathlib.Path | None,
) -> tuple[Any, Mapping[int, str], float]:
    """Loads a model or an ensemble; the arguments are those of ``detect``, but for the loaded label map.

    Returns:
        The detector; the names of its classes, those of the label map or of the one next to the model; and the score
        threshold.
    """
    detector, found = load_ensemble_file(ensemble) if ensemble else load_with_label_map(saved_model or "")
    named = label_map or found
    if named is None:
        logger.warning(
            "no label map next to %s, so classes are named by their ids; --label_map names one",
            saved_model or "the models of the ensemble",
        )
    model = pathlib.Path(ensemble) if ensemble else detector.folder
    threshold = choose_threshold(score_threshold, model, metrics, found)
    return detector, named.display_names if named else {}, threshold


def choose_limits(
    detector: Any,
    names: Mapping[int, str],
    tiling: Tiling | None = None,
    score_threshold: float = 0.5,
    max_boxes: int | None = None,
    max_drawn_overlap: float | None = None,
) -> DetectionLimits:
    """Returns the limits of detections; the arguments are those of ``detect``.

    Raises:
        UsageError: A number is out of range.
    """
    from detzoo.tasks.detect_images import DetectionLimits

    if not 0.0 <= score_threshold <= 1.0:
        raise UsageError(f"--score_threshold is {score_threshold}; accepted: 0 to 1")
    if max_boxes is None:
        max_boxes = 1000 if tiling else 100
    if max_boxes < 1:
        raise UsageError(f"--max_boxes is {max_boxes}; accepted: 1 or more")
    if max_drawn_overlap is None:
        proposes = dict(names) == {1: PROPOSAL_NAME} and detector.has_masks
        max_drawn_overlap = PROPOSALS_OVERLAP if proposes else 1.0
    return DetectionLimits(score_threshold, max_boxes, max_drawn_overlap, detector.keypoint_edges)


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
    """Regions to classify, by the file names of images; called with an image and its (height, width).

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

    def __call__(self, image: GivenImage, shape: tuple[int, int]) -> np.ndarray:
        """Returns the regions of an image file, float32 [R, 4] in fractions of the image."""
        if image.path is None:
            raise UsageError(f"{image.name} has no file name to find its proposals by: give arrays as proposals")
        self.check_images([image.path])
        boxes = self._table.lookup(image.path.name.encode())[0]
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
