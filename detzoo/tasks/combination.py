"""Several SPP-nets as one detector: their scored windows are joined before suppression."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from detzoo.config.label_map import load_label_map
from detzoo.config.load import load_pipeline
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import CONFIG_FILE
from detzoo.tasks.models import restored

logger = logging.getLogger(__name__)


def check_combination(model: Any, folders: Sequence[str]) -> None:
    """Raises an error if a ``pb.DetectionModel`` is no SPP-net, or a folder is not the folder of a run."""
    if folders and model.WhichOneof("model") != "spp_net":
        raise ConfigError(
            f"--combine_with joins the windows of SPP-nets (model.spp_net); this is model.{model.WhichOneof('model')}. "
            "`detzoo ensemble evaluate` merges the detections of other models"
        )
    for folder in folders:
        if not (pathlib.Path(folder) / CONFIG_FILE).is_file():
            raise UsageError(
                f"--combine_with {folder} has no {CONFIG_FILE}; name the --model_dir of a `detzoo train` run"
            )


def combined(detector: Any, message: Any, folders: Sequence[str]) -> Any:
    """Combines a detector with the restored detectors of other runs.

    Args:
        detector: An SPP-net; its weights may be restored later.
        message: Its ``TrainEvalPipelineConfig``.
        folders: Folders of the other runs.
    """
    from detzoo.detectors.spp_net_combination import CombinedSppNets

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
        member, step = restored(other.model, folder)
        members.append(member)
        logger.info("combined with %s, step %d", folder, step)
    return CombinedSppNets(members)
