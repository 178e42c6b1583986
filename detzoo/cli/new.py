"""``detzoo new``."""

from __future__ import annotations

import shlex

from absl import flags

from detzoo.cli.dataset import report_of
from detzoo.cli.flags import Definer, values_of
from detzoo.config.project import WEIGHTS
from detzoo.tasks.new import DETECTOR, NewProject, new_project
from detzoo.tasks.start import EXIT_TERMINATED, terminated_as

SUMMARY = "Make a project from a folder of labels: records, label map, and a pipeline.config ready to train."
DESCRIPTION = f"""
Recognizes the labels in --data, keeps its splits or draws one, and writes PROJECT/records and PROJECT/pipeline.config,
whose batch size, learning rate and number of steps fit the images and this machine. Then train without an edit:

    detzoo new raccoons --data photos_with_labels
    detzoo train raccoons
    detzoo evaluate raccoons
    detzoo export raccoons
    detzoo detect raccoons --images more_photos

Without --model, the detector is {DETECTOR}, which learns from few images, on a CPU, from
random weights. `detzoo models` lists the others; most of them need the zoo's weights, which are downloaded when a
training starts. A folder with one folder of images for each class makes a classifier.

    detzoo new raccoons --data photos_with_labels --model ssd_mobilenet_v2_fpnlite_320 --weights zoo

Similar images, such as copies and frames of one video, are never divided between training and validation. The
folder can be moved, because its config names the records relative to itself. docs/own_data.md has more.
"""
POSITIONAL = ("PROJECT",)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the data, the model and the split."""
    define = Definer(flag_values)
    define.string("data", "Folder with the images and their labels.", required=True)
    define.string("model", f"Name of a config that `detzoo models` lists, or a path. Default: {DETECTOR}.")
    text = (
        "Weights to start from: zoo (trained on COCO), imagenet (the backbone alone) or none (random). Default: the "
        "first of these that --model has; none without --model."
    )
    define.choice("weights", text, WEIGHTS)
    text = "Share of the images to hold out for validation, above 0 and below 1, unless the data has a split for it."
    flags.DEFINE_float("val", 0.2, text, flag_values=flag_values)
    define.string("format", "Format of the labels, if the content of the folder leaves a choice.")
    define.integer("seed", "Seed of the split.", 0, minimum=0)


def run(flag_values: flags.FlagValues) -> None:
    """Makes the project, and prints what was found and the next commands."""
    [folder] = flag_values.positional
    with terminated_as(SystemExit(EXIT_TERMINATED)):
        project = new_project(
            folder,
            flag_values.data,
            data_format=flag_values.format,
            **values_of(flag_values, "model", "weights", "val", "seed"),
        )
    print(_report(folder, project))


def _report(folder: str, project: NewProject) -> str:
    """Returns the data, the training and the next commands as text."""
    training, name = project.training, shlex.quote(folder)
    starts = {"zoo": f"the zoo's weights ({training.fine_tune_checkpoint})", "imagenet": "ImageNet's weights"}
    lines = [report_of(project.recognized, project.results), ""]
    lines += [
        f"model:    {project.model}, from {starts.get(project.weights, 'random weights')}",
        f"training: {training.num_steps} steps of {training.batch_size} images, an evaluation every "
        f"{training.eval_every_n_steps} steps, early stopping",
        f"config:   {project.folder / 'pipeline.config'}",
        *(f"warning:  {warning}" for warning in project.warnings),
        "",
        "next:",
        *(f"  detzoo {verb} {name}" for verb in ("train", "evaluate", "export")),
    ]
    return "\n".join(lines)
