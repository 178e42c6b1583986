"""What ``detzoo evaluate --combine_with`` does: several SPP-nets are measured as one detector."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.errors import ConfigError, UsageError
from detzoo.tasks.models import CONFIG_FILE

logger = logging.getLogger(__name__)


def define_combination_flag(flag_values: flags.FlagValues) -> None:
    """The flag --combine_with."""
    text = "SPP-net: the --model_dir of another one, whose scored windows are joined to these before suppression."
    flags.DEFINE_multi_string("combine_with", [], text, flag_values=flag_values)


def check_combination(flag_values: flags.FlagValues, model: Any) -> None:
    """Whether a ``pb.DetectionModel`` can be combined with others, and the flags say so.

    Raises:
        UsageError: they contradict each other, or a folder is no run.
        ConfigError: the model is not an SPP-net.
    """
    if not flag_values.combine_with:
        return
    if model.WhichOneof("model") != "spp_net":
        raise ConfigError(
            f"--combine_with joins the windows of SPP-nets (model.spp_net); this is model.{model.WhichOneof('model')}. "
            "`detzoo ensemble evaluate` merges the detections of other models"
        )
    if flag_values.saved_model or flag_values.continuous:
        raise UsageError("--combine_with goes with --checkpoint_dir alone, without --saved_model and --continuous")
    for folder in flag_values.combine_with:
        if not (pathlib.Path(folder) / CONFIG_FILE).is_file():
            raise UsageError(
                f"--combine_with {folder} has no {CONFIG_FILE}; name the --model_dir of a `detzoo train` run"
            )


def combined(detector: Any, message: Any, folders: Sequence[str]) -> Any:
    """A detector and the restored ones of other runs as one.

    Args:
        detector: An SPP-net; gets its weights later.
        message: Its ``TrainEvalPipelineConfig``.
        folders: Of the other runs.

    Raises:
        ConfigError: another kind of model, or other classes.
        CheckpointError: a folder without a checkpoint of its config.
    """
    from detzoo.checkpoints import restore_for_inference
    from detzoo.config.label_map import load_label_map
    from detzoo.config.load import load_pipeline
    from detzoo.detectors.spp_net_combination import CombinedSppNets
    from detzoo.tasks.models import build_untrained

    own_names = load_label_map(message.eval_input_reader[0].label_map_path).names
    members = [detector]
    for folder in folders:
        path = str(pathlib.Path(folder) / CONFIG_FILE)
        other = load_pipeline(path).message
        if other.model.WhichOneof("model") != "spp_net":
            raise ConfigError(
                f"--combine_with {folder}: {path} has model.{other.model.WhichOneof('model')}, no SPP-net"
            )
        names = load_label_map(other.train_input_reader.label_map_path).names
        if names != own_names:
            odd = sorted(set(names.items()) ^ set(own_names.items()))
            raise ConfigError(
                f"--combine_with {folder} was trained with other classes: id {odd[0][0]}, '{odd[0][1]}', is in one "
                "label map only"
            )
        members.append(build_untrained(other.model))
        step = restore_for_inference(members[-1], folder)
        logger.info("combined with %s, step %d", folder, step)
    return CombinedSppNets(members)
