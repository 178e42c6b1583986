"""``detzoo proposals``."""

from __future__ import annotations

import os
import pathlib

from absl import flags

from detzoo.datasets.selective_search import DEFAULT_FOLDER, FOLDER_VARIABLE, MODES, PACKAGE, SearchOptions, find_opencv
from detzoo.errors import UsageError
from detzoo.folders import make_folder

SUMMARY = "Search windows of records or images that may hold an object, for SPP-net and Fast R-CNN."
DESCRIPTION = f"""
Selective search of each image, as in the papers of SPP-net and R-CNN: the "fast" mode, 2000 windows at most, on the
image at 500 pixels of width. A second or two an image and core.

    detzoo proposals --input_path='records/train-*' --output=train.npz
    detzoo train --pipeline_config_path=my.config --model_dir=runs/spp \\
        --set train_input_reader.proposals_path=train.npz

    detzoo proposals --images=photos --output=photos.npz
    detzoo detect --saved_model=exported --images=photos --proposals=photos.npz --output_dir=pictures

Records are known by their image/source_id, files by their names. An image that cannot be decoded gets no windows, and a
warning. Stopped at any moment, the same command goes on behind what was searched.

It needs OpenCV's contrib build ({PACKAGE}). Do not install that package beside
opencv-python-headless, which tf-models-official brings: they overwrite each other. Give it a folder of its own, which
only this command looks into:

    python -m pip install --no-deps --target {DEFAULT_FOLDER} {PACKAGE}

Other sources of proposals: `detzoo evaluate` of a first stage alone (number_of_stages: 1) writes such a file, and any
program can write a JSON list in COCO's results format.
"""
POSITIONAL = ()


def define_flags(flag_values: flags.FlagValues) -> None:
    """What is searched, how, and where the windows go."""
    text = "TFRecord files: a path, a quoted glob, stem@10, or several with commas between."
    flags.DEFINE_string("input_path", None, text, flag_values=flag_values)
    text = "Instead of records: image files, folders and globs; repeatable, or with commas between."
    flags.DEFINE_multi_string("images", [], text, flag_values=flag_values)
    text = "The proposals.npz to write."
    flags.DEFINE_string("output", None, text, flag_values=flag_values, required=True)
    defaults = SearchOptions()
    text = 'Strategies that are tried: "quality" takes three times as long for four times the windows, "single" is one.'
    flags.DEFINE_enum("mode", defaults.mode, MODES, text, flag_values=flag_values)
    integer = flags.DEFINE_integer
    text = "Windows of an image at most."
    integer("max_proposals", defaults.max_proposals, text, lower_bound=1, flag_values=flag_values)
    text = "Images are searched at this width, pixels; 0 leaves them as they are (large photos take minutes)."
    integer("image_width", defaults.image_width, text, lower_bound=0, flag_values=flag_values)
    text = "Windows with a shorter side of less are left out; pixels at that width."
    integer("min_size", defaults.min_size, text, lower_bound=1, flag_values=flag_values)
    text = "Processes; 0 for one a core."
    integer("num_workers", 0, text, lower_bound=0, flag_values=flag_values)
    text = f"Where OpenCV's contrib build lies; without it {FOLDER_VARIABLE}, then {DEFAULT_FOLDER}."
    flags.DEFINE_string("opencv_folder", "", text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Finds OpenCV and the images, searches, writes."""
    if bool(flag_values.input_path) == bool(flag_values.images):
        raise UsageError("`detzoo proposals` needs --input_path (records), or --images instead of it")
    output = pathlib.Path(flag_values.output)
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; give the file to write, such as {output}/proposals.npz")
    opencv_folder = find_opencv(flag_values.opencv_folder)
    make_folder(output.parent, "--output")
    from detzoo.datasets.proposal_search import images_of_files, images_of_records, write_searched
    from detzoo.files.image_files import find_images
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    if flag_values.images:
        files = find_images(flag_values.images)
        num_images, images = len(files), images_of_files(files)
    else:
        num_images, images = images_of_records(flag_values.input_path)
    limits = (flag_values.max_proposals, flag_values.image_width, flag_values.min_size)
    options = SearchOptions(flag_values.mode, *limits, turns_upright=bool(flag_values.images))
    num_workers = min(flag_values.num_workers or os.cpu_count() or 1, max(num_images, 1))
    found = write_searched(images, num_images, output, options, opencv_folder, num_workers)
    kept = f", {found.num_kept} of them searched by an earlier run" if found.num_kept else ""
    print(f"{output}: {found.num_windows} windows of {found.num_images} images{kept}")
