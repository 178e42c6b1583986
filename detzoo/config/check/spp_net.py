"""Checks of SPP-net's detector (``model.spp_net``): its network against its scales, its steps, what feeds it."""

from __future__ import annotations

import itertools
from typing import Any

from detzoo.config import pb
from detzoo.config.check.parts import check_post_processing
from detzoo.config.problems import Findings
from detzoo.config.spp_networks import problem_of_network
from detzoo.config.spp_table import SPP_NETWORKS, Padding, map_size
from detzoo.config.stages import trains_by_steps

_PATH = "model.spp_net"


def check_spp_net(model: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with a ``pb.SppNet``. ``files`` counts for nothing: it names none."""
    del files
    for field, text in problem_of_network(model.network):
        findings.error(f"{_PATH}.network.{field}", text)
    if not model.network.pyramid_bins:
        text = "is missing: windows of any size are pooled in a pyramid; accepted: bins a side, e.g. [6, 3, 2, 1]"
        findings.error(f"{_PATH}.network.pyramid_bins", text)
    _check_scales(model, findings)
    _check_scoring(model, findings)
    if model.HasField("fine_tuning"):
        _check_fine_tuning(model.fine_tuning, f"{_PATH}.fine_tuning", findings)
    check_post_processing(model.post_processing, f"{_PATH}.post_processing", None, findings)
    for field in ("score_converter", "logit_scale"):
        if model.post_processing.HasField(field):
            text = "scores are the sigmoid of SVMs' margins, or without svm the softmax of fc8"
            findings.no_effect(f"{_PATH}.post_processing.{field}", text)


def check_spp_net_run(config: Any, findings: Findings) -> None:
    """Adds what in a ``pb.TrainEvalPipelineConfig`` does not go with SPP-net: its images come one at a time."""
    if config.model.WhichOneof("model") != "spp_net":
        return
    if config.eval_config.batch_size > 1:
        text = f"is {config.eval_config.batch_size}, but SPP-net resizes images itself, one at a time; accepted: 1"
        findings.error("eval_config.batch_size", text)
    if not config.HasField("train_config"):
        return
    training = config.train_config
    if training.data_augmentation_options:
        text = "do not go with SPP-net, whose maps are computed once for each image; accepted: none"
        findings.error("train_config.data_augmentation_options", text)
    if trains_by_steps(config.model):
        return
    for name in ("num_steps", "optimizer"):
        if training.HasField(name):
            findings.no_effect(f"train_config.{name}", "without model.spp_net.fine_tuning, nothing is trained by steps")


def _check_scales(model: Any, findings: Findings) -> None:
    """Whether the map of the smallest image of each scale holds the pyramid."""
    bins, network = max(model.network.pyramid_bins, default=0), model.network.type
    for index, side in enumerate(model.scale):
        path = f"{_PATH}.scale[{index}]"
        if side in model.scale[:index]:
            findings.error(path, f"is {side}, a second time; accepted: each once")
        if network not in SPP_NETWORKS:
            continue
        cells = map_size(network, side, Padding.CENTERED)
        if cells < bins:
            least = next(px for px in itertools.count(side) if map_size(network, px, Padding.CENTERED) >= bins)
            text = (
                f"is {side}: the map of {network} then has {cells} cells along the shorter side, fewer than the {bins} "
                f"bins a side of network.pyramid_bins; accepted: {least} or more"
            )
            findings.error(path, text)


def _check_scoring(model: Any, findings: Findings) -> None:
    """Whether something scores the windows, and reads what it is told to read."""
    if model.HasField("svm"):
        return
    if not model.HasField("fine_tuning"):
        text = "nothing scores the windows: add svm { } (one linear classifier a class), fine_tuning { }, or both"
        findings.error(_PATH, text)
    elif model.features != pb.SppNet.FC7:
        name = pb.SppNet.Features.Name(model.features)
        text = f"is {name}, but without svm the scores are those of fc8, which reads FC7; accepted: FC7"
        findings.error(f"{_PATH}.features", text)


def _check_fine_tuning(tuning: Any, path: str, findings: Findings) -> None:
    if tuning.negative_iou >= tuning.positive_iou:
        text = f"is {tuning.negative_iou:g}; accepted: 0 to below positive_iou ({tuning.positive_iou:g})"
        findings.error(f"{path}.negative_iou", text)
