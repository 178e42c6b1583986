"""``detzoo detect``."""

from __future__ import annotations

import logging

from absl import flags

from detzoo.errors import DataError
from detzoo.folders import make_folder

SUMMARY = "Detect on images with a SavedModel: pictures with boxes, masks, names and scores, and detections.json."
DESCRIPTION = """
Works with what `detzoo export` writes, .tflite files too, and with SavedModels of the Object Detection API.

    detzoo detect --saved_model=exported/saved_model --images=photos --output_dir=pictures
    detzoo detect --saved_model=exported --images='2024/*.jpg,cat.png' --output_dir=pictures --score_threshold=0.3

--images takes files, folders (with their subfolders) and quoted globs, repeated or with commas between. A file that
cannot be read is skipped and counted. Images are turned upright as their EXIF orientation says.
"""
POSITIONAL = ()

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """--saved_model, --images, --output_dir, --label_map, --score_threshold, --max_boxes."""
    text = "Folder with saved_model.pb, the output_directory of `detzoo export`, or a .tflite file that it wrote."
    flags.DEFINE_string("saved_model", None, text, flag_values=flag_values, required=True)
    text = "Files, folders and globs; repeatable, or with commas between."
    flags.DEFINE_multi_string("images", None, text, flag_values=flag_values, required=True)
    flags.DEFINE_string("output_dir", None, "Where to write.", flag_values=flag_values, required=True)
    text = "Names of the classes; found beside the SavedModel where `detzoo export` made it."
    flags.DEFINE_string("label_map", None, text, flag_values=flag_values)
    text = "Draw and list detections of at least this score."
    flags.DEFINE_float("score_threshold", 0.5, text, 0.0, 1.0, flag_values=flag_values)
    text = "Draw and list at most so many detections an image."
    flags.DEFINE_integer("max_boxes", 100, text, lower_bound=1, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Finds the images, loads the model, detects."""
    from detzoo.config.label_map import load_label_map
    from detzoo.detect.image_files import find_images

    images = find_images(flag_values.images)
    label_map = load_label_map(flag_values.label_map) if flag_values.label_map else None
    output_dir = make_folder(flag_values.output_dir, "--output_dir")
    from detzoo.cli.inference import load_exported, start_tensorflow
    from detzoo.detect.runner import DETECTIONS_FILE, DetectionLimits, detect_files
    from detzoo.detectors.saved_detector import label_map_beside

    start_tensorflow()
    detector = load_exported(flag_values.saved_model)
    label_map = label_map or label_map_beside(detector.folder)
    if label_map is None:
        logger.warning(
            "no label map beside %s, classes are called by their ids; name one with --label_map", detector.folder
        )
    names = label_map.display_names if label_map else {}
    limits = DetectionLimits(flag_values.score_threshold, flag_values.max_boxes)
    summary = detect_files(detector, images, names, output_dir, limits)
    if not summary.num_images:
        raise DataError(f"none of the {len(images)} files could be read as an image")
    skipped = f", {len(summary.skipped)} unreadable files skipped" if summary.skipped else ""
    print(f"{len(summary.entries)} detections on {summary.num_images} images{skipped}")
    print(f"pictures and {DETECTIONS_FILE} are in {output_dir}")
