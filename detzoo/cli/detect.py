"""``detzoo detect``."""

from __future__ import annotations

import logging
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.cli.flags import define_font_flag
from detzoo.errors import DataError, UsageError
from detzoo.folders import make_folder
from detzoo.tasks.export import PROPOSAL_NAME

if TYPE_CHECKING:
    from detzoo.config.label_map import LabelMap

SUMMARY = "Detect on images with a SavedModel: pictures with boxes, masks, names and scores, and detections.json."
DESCRIPTION = """
Works with what `detzoo export` writes, .tflite files too, and with SavedModels of the Object Detection API.

    detzoo detect --saved_model=exported/saved_model --images=photos --output_dir=pictures
    detzoo detect --saved_model=exported --images='2024/*.jpg,cat.png' --output_dir=pictures --score_threshold=0.3

An ensemble, or a model that looks at crops and mirror images, is named by its ensemble.json:

    detzoo detect --ensemble=ensemble.json --images=photos --output_dir=pictures

The masks of class-agnostic proposals overlap, because nothing suppresses them. Of those that cover a better one by
more than half, none is drawn; --max_drawn_overlap=1 draws them all. All are in detections.json.

A model that classifies given regions (SPP-net, Fast R-CNN) takes them from a file, by the names of the images:

    detzoo proposals --images=photos --output=photos.npz
    detzoo detect --saved_model=exported --images=photos --proposals=photos.npz --output_dir=pictures

--images takes files, folders (with their subfolders) and quoted globs, repeated or with commas between. Images are
turned upright as their EXIF orientation says. A file that cannot be read, or has more pixels than
--max_image_megapixels, is named, skipped and counted; the exit code is 0 unless no image could be used (1). Links that
lead out of a folder are skipped: name the files or a pattern to read them.

detections.json is written as images are done. Stopped at any moment, the same command continues there; with
another model, label map, threshold or font it starts over.

Names are drawn with DejaVu Sans, which has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters;
--font=NotoSansCJK-Regular.ttc names a font for others.
"""
POSITIONAL = ()

PROPOSALS_OVERLAP = 0.5  # of the pictures of masks that nothing suppresses

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Which model, which images, where to, and what is drawn."""
    text = "Folder with saved_model.pb, the output_directory of `detzoo export`, or a .tflite file that it wrote."
    flags.DEFINE_string("saved_model", None, text, flag_values=flag_values)
    text = "Instead of --saved_model: what `detzoo ensemble` wrote."
    flags.DEFINE_string("ensemble", None, text, flag_values=flag_values)
    text = "Files, folders and globs; repeatable, or with commas between."
    flags.DEFINE_multi_string("images", None, text, flag_values=flag_values, required=True)
    flags.DEFINE_string("output_dir", None, "Where to write.", flag_values=flag_values, required=True)
    text = "Names of the classes; found beside the SavedModel where `detzoo export` made it."
    flags.DEFINE_string("label_map", None, text, flag_values=flag_values)
    text = "For a model that classifies given regions: what `detzoo proposals` wrote for these images."
    flags.DEFINE_string("proposals", None, text, flag_values=flag_values)
    text = "Draw and list detections of at least this score."
    flags.DEFINE_float("score_threshold", 0.5, text, 0.0, 1.0, flag_values=flag_values)
    text = "Draw and list at most so many detections an image."
    flags.DEFINE_integer("max_boxes", 100, text, lower_bound=1, flag_values=flag_values)
    text = (
        "Leave out of the pictures what covers a better detection of its class by more than this IoU (of the masks, "
        f"where there are any). Default: {PROPOSALS_OVERLAP:g} for proposals with masks, else 1, which draws all."
    )
    flags.DEFINE_float("max_drawn_overlap", None, text, 0.0, 1.0, flag_values=flag_values)
    define_font_flag(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Finds the images, loads the model, detects."""
    from detzoo.config.label_map import load_label_map
    from detzoo.datasets.fonts import LabelFonts
    from detzoo.files.image_files import find_images

    if bool(flag_values.saved_model) == bool(flag_values.ensemble):
        raise UsageError("`detzoo detect` needs --saved_model, or --ensemble instead of it")
    images = find_images(flag_values.images)
    label_map = load_label_map(flag_values.label_map) if flag_values.label_map else None
    fonts = LabelFonts(flag_values.font)
    output_dir = make_folder(flag_values.output_dir, "--output_dir")
    from detzoo.tasks.detect_files import DETECTIONS_FILE, DetectionLimits, detect_files
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    detector, label_map_of_model = _load(flag_values)
    regions = _regions(detector, flag_values.proposals, images)
    label_map = label_map or label_map_of_model
    if label_map is None:
        logger.warning(
            "no label map beside %s, classes are called by their ids; name one with --label_map",
            flag_values.saved_model or "the models of the ensemble",
        )
    names = label_map.display_names if label_map else {}
    overlap = flag_values.max_drawn_overlap
    if overlap is None:
        proposes = dict(names) == {1: PROPOSAL_NAME} and detector.has_masks
        overlap = PROPOSALS_OVERLAP if proposes else 1.0
    limits = DetectionLimits(flag_values.score_threshold, flag_values.max_boxes, overlap)
    made_with = _made_with(flag_values)
    summary = detect_files(detector, images, names, output_dir, limits, regions, made_with=made_with, fonts=fonts)
    if not summary.num_images:
        reason = f": {next(iter(summary.skipped.values()))}"
        raise DataError(f"none of the {len(images)} files could be read as an image and detected on{reason}")
    skipped = f", {len(summary.skipped)} unreadable files skipped" if summary.skipped else ""
    print(f"{len(summary.entries)} detections on {summary.num_images} images{skipped}")
    print(f"pictures and {DETECTIONS_FILE} are in {output_dir}")


def _made_with(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The files and flags that detections depend on: a stopped run is continued only with the same ones."""
    from detzoo.tasks.detect_journal import fingerprint

    made_with: dict[str, Any] = {"font": flag_values.font}
    for name in ("saved_model", "ensemble", "proposals"):
        path = getattr(flag_values, name)
        made_with[name] = fingerprint(path) if path else None
    if flag_values.ensemble:
        from detzoo.ensemble.description import read_ensemble

        models = read_ensemble(flag_values.ensemble).models
        made_with["models"] = [fingerprint(model.saved_model) for model in models if model.saved_model]
    return made_with


def _regions(detector: Any, file: str | None, images: list[pathlib.Path]) -> Any:
    """What gives a detector that wants proposals those of an image; None for another detector.

    Raises:
        UsageError: the flag is missing, has no meaning for the model, or the file lacks an image.
        DataError: the file cannot be read.
    """
    if not detector.wants_proposals:
        if file:
            raise UsageError("--proposals has no meaning for this model: it finds its regions itself; leave it out")
        return None
    if not file:
        raise UsageError(
            "this model classifies given regions: name them with --proposals=FILE. `detzoo proposals --images=... "
            "--output=FILE` searches them"
        )
    from detzoo.data.proposals import read_proposals

    table = read_proposals(file)
    missing = [path.name for path in images if path.name.encode() not in table]
    if missing:
        raise UsageError(
            f"--proposals {file} has no entry for {len(missing)} of the {len(images)} images, such as {missing[0]!r}; "
            f"it has {', '.join(map(repr, table.image_ids[:2]))}, ...: images are found by their file names"
        )

    def of_image(path: pathlib.Path, shape: tuple[int, int]) -> Any:
        boxes = table.lookup(path.name.encode())[0]
        return boxes / [*shape, *shape] if table.in_pixels else boxes

    return of_image


def _load(flag_values: flags.FlagValues) -> tuple[Any, LabelMap | None]:
    """The detector of --saved_model or --ensemble, and the label map beside it."""
    if flag_values.ensemble:
        from detzoo.cli.ensemble_models import load_ensemble
        from detzoo.ensemble.description import read_ensemble

        return load_ensemble(read_ensemble(flag_values.ensemble))
    from detzoo.serving.saved_detector import label_map_beside
    from detzoo.tasks.models import load_exported

    detector = load_exported(flag_values.saved_model)
    return detector, label_map_beside(detector.folder)
