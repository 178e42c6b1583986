"""The plan of SPP-net's chain: its steps, what each depends on, and whether a run may begin or go on (no TensorFlow).

He et al., arXiv:1406.4729, section 4.1:

    1_maps             the convolutions' maps of every training image, kept on disk
    2_fine_tuning      fc6, fc7 and a new fc8 on pooled windows
    3_svm              a linear SVM a class, with hard negatives
    4_box_regression   from pooled windows to better boxes

Each has a folder of its own in the run's; the result is one checkpoint of the detector in the run's folder.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.config.diff import diff_configs
from detzoo.config.load import load_pipeline
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import write_atomically
from detzoo.train.run_record import FINISHED_FILE

CONFIG_FILE = "pipeline.config"
RECIPE_FILE = "spp_net.json"
MAPS, FINE_TUNING, SVM, BOX_REGRESSION = "1_maps", "2_fine_tuning", "3_svm", "4_box_regression"
STEPS = (MAPS, FINE_TUNING, SVM, BOX_REGRESSION)

_RUN_MARKS = ("ckpt-*.index", "checkpoint", "run.json")
_MODEL = "model.spp_net"
# Path in the config -> the steps whose results a change of it makes wrong; the longest path that fits counts.
_LATER: Mapping[str, tuple[str, ...]] = {
    "model": (FINE_TUNING, SVM, BOX_REGRESSION),  # maps are told apart by the network and the scales that made them
    f"{_MODEL}.post_processing": (),
    f"{_MODEL}.cache": (),
    f"{_MODEL}.features": (SVM,),
    f"{_MODEL}.fine_tuning": (FINE_TUNING, SVM),
    f"{_MODEL}.svm": (SVM,),
    f"{_MODEL}.box_regression": (BOX_REGRESSION,),
    f"{_MODEL}.network.dropout": (FINE_TUNING, SVM),
    f"{_MODEL}.network.weight_decay": (FINE_TUNING, SVM),
    "train_config": (),
    "train_config.num_steps": (SVM,),  # fine-tuning itself goes on where it ended
    "train_input_reader": (),  # what it names is compared itself, see check_origin
    "train_input_reader.proposals_path": (FINE_TUNING, SVM, BOX_REGRESSION),
}
_SHOWN = 5  # differences named in a message


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a config asks for.

    Attributes:
        fine_tunes: whether step 2 is done.
        has_svm: whether step 3 is; else fc8 scores the windows.
        regresses: whether step 4 is.
    """

    fine_tunes: bool
    has_svm: bool
    regresses: bool

    @property
    def steps(self) -> tuple[str, ...]:
        """The folders of the steps that are done, in their order."""
        done = {MAPS: True, FINE_TUNING: self.fine_tunes, SVM: self.has_svm, BOX_REGRESSION: self.regresses}
        return tuple(step for step in STEPS if done[step])

    def label(self, step: str) -> str:
        """How the log names a step."""
        return f"[{self.steps.index(step) + 1}/{len(self.steps)}] {step}"


def make_plan(pipeline: Any, path: str) -> Plan:
    """The plan of a config with ``model.spp_net``.

    Args:
        pipeline: a ``TrainEvalPipelineConfig``.
        path: its file, for the messages.

    Raises:
        ConfigError: the chain cannot be run as the config says.
    """
    model, train, reader = pipeline.model.spp_net, pipeline.train_config, pipeline.train_input_reader
    if not train.fine_tune_checkpoint:
        raise ConfigError(
            f"{path}: train_config.fine_tune_checkpoint is empty. SPP-net's convolutions are those of a trained "
            "classifier, which this training does not change: name the --model_dir of a model.spp_classifier run"
        )
    if not reader.proposals_path:
        raise ConfigError(
            f"{path}: train_input_reader.proposals_path is empty. SPP-net classifies windows of a file: `detzoo "
            "proposals` makes them, and so does `detzoo evaluate` of a first stage alone (number_of_stages: 1)"
        )
    if not reader.label_map_path:
        raise ConfigError(f"{path}: train_input_reader.label_map_path is empty; the SVMs are trained class by class")
    if train.data_augmentation_options:
        raise ConfigError(
            f"{path}: train_config.data_augmentation_options do not go with model.spp_net, whose maps are computed "
            "once for each image; remove them"
        )
    if len(reader.sample_from_datasets_weights):
        raise ConfigError(
            f"{path}: train_input_reader.sample_from_datasets_weights does not go with model.spp_net, which looks at "
            "each image as often as at any other; remove it"
        )
    fine_tunes = model.HasField("fine_tuning")
    if fine_tunes and train.num_steps < 1:
        raise UsageError("how many steps of fine-tuning? Set train_config.num_steps or --num_train_steps")
    if fine_tunes and model.fine_tuning.images_per_step > model.fine_tuning.batch_size:
        raise ConfigError(
            f"{path}: model.spp_net.fine_tuning.images_per_step {model.fine_tuning.images_per_step} is above its "
            f"batch_size {model.fine_tuning.batch_size}; lower it, so that every image has a window"
        )
    return Plan(fine_tunes, model.HasField("svm"), model.HasField("box_regression"))


def is_finished(folder: pathlib.Path) -> bool:
    """Whether a run of the chain has ended with its checkpoint."""
    return all((folder / name).is_file() for name in (RECIPE_FILE, FINISHED_FILE, "checkpoint"))


def check_folder(folder: pathlib.Path, pipeline: Any) -> list[str]:
    """Whether a run of this config may begin or go on in a folder.

    Returns:
        What in the config differs from that of the run so far without making its results wrong, as text.

    Raises:
        UsageError: the folder has another run, or results that do not go with the config.
    """
    if not (folder / RECIPE_FILE).is_file():
        found = [entry.name for mark in _RUN_MARKS for entry in sorted(folder.glob(mark))]
        if found:
            raise UsageError(
                f"--model_dir {folder} has another run in it ({', '.join(found[:3])}), not one of SPP-net's chain; "
                "name another folder"
            )
    if not (folder / CONFIG_FILE).is_file():
        return []
    earlier = load_pipeline(str(folder / CONFIG_FILE)).message
    harmless, wrong = [], {}
    for difference in diff_configs(earlier, pipeline):
        old = [step for step in _steps_of(difference.path) if (folder / step).exists()]
        if old:
            wrong[str(difference)] = old
        else:
            harmless.append(str(difference))
    if wrong:
        _refuse(folder, wrong)
    return harmless


def check_origin(folder: pathlib.Path, origin: Mapping[str, str]) -> None:
    """Whether the results of a run so far are of these weights and images; notes them for a run that begins.

    Args:
        folder: of the run.
        origin: what -> a text that changes with it.

    Raises:
        UsageError: they are of others.
    """
    try:
        earlier = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8")).get("origin", {})
    except (OSError, ValueError, AttributeError):
        earlier = {}
    old = [str(folder / step) for step in (FINE_TUNING, SVM, BOX_REGRESSION) if (folder / step).exists()]
    for what, text in origin.items():
        if old and earlier.get(what, text) != text:
            raise UsageError(
                f"--model_dir {folder} has results with another {what}. To make these anew, delete {', '.join(old)}; "
                "or name another folder"
            )
    write_recipe(folder, {"origin": dict(origin)})


def write_recipe(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Marks a folder as a run of the chain; ``facts`` say what it made."""
    recipe = "SPP-net's chain, arXiv:1406.4729, section 4.1"
    write_atomically(folder / RECIPE_FILE, json.dumps({"recipe": recipe, **facts}, indent=2) + "\n")


def _steps_of(path: str) -> tuple[str, ...]:
    """The steps that a change of a field concerns."""
    fitting = [prefix for prefix in _LATER if path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))]
    return _LATER[max(fitting, key=len)] if fitting else ()


def _refuse(folder: pathlib.Path, wrong: Mapping[str, Sequence[str]]) -> None:
    steps = [step for step in STEPS if any(step in old for old in wrong.values())]
    listed = "; ".join(list(wrong)[:_SHOWN])
    done = [str(folder / step) for step in steps]
    finished = [str(folder / FINISHED_FILE)] if (folder / FINISHED_FILE).is_file() else []
    raise UsageError(
        f"--model_dir {folder} has results of another config: {listed}. To make these anew and keep the others, delete "
        f"{', '.join([*done, *finished])}; or name another folder"
    )
