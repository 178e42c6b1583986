"""The plan of SPP-net's chain: steps, their dependence on the config, and checks of a run's folder (no TensorFlow).

He et al., arXiv:1406.4729, section 4.1:

    1_maps             the convolutions' maps of every training image, kept on disk
    2_fine_tuning      fc6, fc7 and a new fc8 on pooled windows
    3_svm              a linear SVM per class, with hard negatives
    4_box_regression   from pooled windows to better boxes

Each step has a folder in the folder of the run; the result is one checkpoint of the detector.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.errors import ConfigError, UsageError
from detzoo.folders import FINISHED_FILE
from detzoo.recipes.recipe import Recipe

RECIPE = Recipe(
    name="SPP-net's chain",
    article="",
    source="SPP-net's chain, arXiv:1406.4729, section 4.1",
    file="spp_net.json",
)
MAPS, FINE_TUNING, SVM, BOX_REGRESSION = "1_maps", "2_fine_tuning", "3_svm", "4_box_regression"
STEPS = (MAPS, FINE_TUNING, SVM, BOX_REGRESSION)

_MODEL = "model.spp_net"
# Path in the config -> steps whose results depend on it; the longest matching path counts.
_LATER: Mapping[str, tuple[str, ...]] = {
    "model": (FINE_TUNING, SVM, BOX_REGRESSION),  # the cache distinguishes maps by network and scales
    f"{_MODEL}.post_processing": (),
    f"{_MODEL}.cache": (),
    f"{_MODEL}.features": (SVM,),
    f"{_MODEL}.fine_tuning": (FINE_TUNING, SVM),
    f"{_MODEL}.svm": (SVM,),
    f"{_MODEL}.box_regression": (BOX_REGRESSION,),
    f"{_MODEL}.network.dropout": (FINE_TUNING, SVM),
    f"{_MODEL}.network.weight_decay": (FINE_TUNING, SVM),
    "train_config": (),
    "train_config.num_steps": (SVM,),  # fine-tuning continues where it ended
    "train_input_reader": (),  # check_origin compares the images
    "train_input_reader.proposals_path": (FINE_TUNING, SVM, BOX_REGRESSION),
}
_SHOWN = 5  # number of differences in a message


@dataclasses.dataclass(frozen=True)
class Plan:
    """Steps that a config contains."""

    fine_tunes: bool  # step 2 is run
    has_svm: bool  # step 3 is run; otherwise fc8 scores the windows
    regresses: bool  # step 4 is run

    @property
    def steps(self) -> tuple[str, ...]:
        """Folders of the steps, in order."""
        done = {MAPS: True, FINE_TUNING: self.fine_tunes, SVM: self.has_svm, BOX_REGRESSION: self.regresses}
        return tuple(step for step in STEPS if done[step])


def make_plan(pipeline: Any, path: str) -> Plan:
    """Returns the plan of a config with ``model.spp_net``; ``path`` is its file, for messages.

    Raises:
        ConfigError: The chain cannot run with this config.
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


def check_folder(folder: pathlib.Path, pipeline: Any) -> list[str]:
    """Checks that a run of this config may start or continue in a folder.

    Returns the differences of the config that do not affect finished steps, as text; raises a UsageError if the folder
    has another run, or results of another config.
    """
    harmless, wrong = [], {}
    for difference in RECIPE.differences(folder, pipeline):
        old = [step for step in _steps_of(difference.path) if (folder / step).exists()]
        if old:
            wrong[str(difference)] = old
        else:
            harmless.append(str(difference))
    if wrong:
        _refuse(folder, wrong)
    return harmless


def check_origin(folder: pathlib.Path, origin: Mapping[str, str]) -> None:
    """Checks that the results of a run are from these weights and images (name -> digest), and stores their digests.

    Raises:
        UsageError: The results are from other weights or images.
    """
    earlier = RECIPE.read(folder).get("origin", {})
    old = [str(folder / step) for step in (FINE_TUNING, SVM, BOX_REGRESSION) if (folder / step).exists()]
    for what, text in origin.items():
        if old and earlier.get(what, text) != text:
            raise UsageError(
                f"--model_dir {folder} has results with another {what}. To repeat them, delete {', '.join(old)}; or "
                "name another folder"
            )
    RECIPE.write(folder, {"origin": dict(origin)})


def _steps_of(path: str) -> tuple[str, ...]:
    """Returns the steps whose results depend on a field."""
    fitting = [prefix for prefix in _LATER if path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))]
    return _LATER[max(fitting, key=len)] if fitting else ()


def _refuse(folder: pathlib.Path, wrong: Mapping[str, Sequence[str]]) -> None:
    steps = [step for step in STEPS if any(step in old for old in wrong.values())]
    listed = "; ".join(list(wrong)[:_SHOWN])
    done = [str(folder / step) for step in steps]
    finished = [str(folder / FINISHED_FILE)] if (folder / FINISHED_FILE).is_file() else []
    raise UsageError(
        f"--model_dir {folder} has results of another config: {listed}. To repeat these steps only, delete "
        f"{', '.join([*done, *finished])}; or name another folder"
    )
