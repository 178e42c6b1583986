"""``detzoo proposals``."""

from __future__ import annotations

from absl import flags

from detzoo.cli.flags import RECORDS_HELP, Definer, beam_options_of, define_runner_flags, values_of
from detzoo.datasets.selective_search import (
    DEFAULT_FOLDER,
    EDGE_BOXES,
    FOLDER_VARIABLE,
    MODES,
    PACKAGE,
    SearchOptions,
)
from detzoo.tasks.propose import search

SUMMARY = "Search windows of records or images that may contain an object, for SPP-net and Fast R-CNN."
DESCRIPTION = f"""
Runs selective search on each image, as in the papers of SPP-net and R-CNN: the "fast" mode, at most 2000 windows, on
the image at a width of 500 pixels. It takes one to two seconds per image and core.

    detzoo proposals --input_path='records/train-*' --output=train.npz
    detzoo train --pipeline_config_path=my.config --model_dir=runs/spp \\
        --set train_input_reader.proposals_path=train.npz

    detzoo proposals --images=photos --output=photos.npz
    detzoo detect --saved_model=exported --images=photos --proposals=photos.npz --output_dir=pictures

Records are identified by their image/source_id, files by their names. An image that cannot be decoded gets no windows
and a warning. If the command is interrupted, the same command resumes after the last searched images.

It needs OpenCV's contrib build ({PACKAGE}):

    python -m pip install "detzoo[spp]"

That package writes the same files as opencv-python-headless, which tf-models-official requires, and has all of it: both
work if the contrib build is installed last, as pip does by itself. A separate folder, which only this command reads,
works in any order:

    python -m pip install --no-deps --target {DEFAULT_FOLDER} {PACKAGE}

Other sources of proposals: `detzoo evaluate` of a first stage alone (number_of_stages: 1) writes such a file, and any
program can write a JSON list in COCO's results format.
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the images, the search and the output."""
    define, defaults = Definer(flag_values), SearchOptions()
    define.string("input_path", RECORDS_HELP)
    define.strings("images", "Instead of records: image files, folders and globs, separated by commas.")
    define.string("output", "The proposals.npz to write.", required=True)
    text = 'Strategies of the search: "quality" takes three times as long for four times the windows, "single" is one.'
    text += " edge_boxes: EdgeBoxes instead of selective search."
    define.choice("mode", text, (*MODES, EDGE_BOXES), defaults.mode)
    text = "For edge_boxes: file of OpenCV's structured forests (model.yml.gz of opencv_extra); gradients without it."
    define.string("edge_model", text, "")
    define.integer("max_proposals", "Windows per image at most.", defaults.max_proposals, minimum=1)
    text = "Width in pixels at which images are searched; 0 for their own (large photos take minutes)."
    define.integer("image_width", text, defaults.image_width, minimum=0)
    text = "Windows with a shorter side are dropped; pixels at that width."
    define.integer("min_size", text, defaults.min_size, minimum=1)
    define.integer("num_workers", "Processes; 0 for one per core.", 0, minimum=0)
    text = f"Folder of OpenCV's contrib build; by default {FOLDER_VARIABLE}, then {DEFAULT_FOLDER}."
    define.string("opencv_folder", text, "")
    define_runner_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Searches, and prints the number of windows."""
    sizes = values_of(flag_values, "mode", "max_proposals", "image_width", "min_size", "edge_model")
    found = search(
        flag_values.output,
        records=flag_values.input_path or "",
        options=SearchOptions(**sizes, turns_upright=bool(flag_values.images)),
        **values_of(flag_values, "images", "num_workers", "opencv_folder"),
        beam_options=beam_options_of(flag_values),
    )
    kept = f", {found.num_kept} of them searched by an earlier run" if found.num_kept else ""
    print(f"{flag_values.output}: {found.num_windows} windows of {found.num_images} images{kept}")
