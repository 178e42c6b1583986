"""Checks of the input readers against a two-stage detector: masks for a mask head, regions for Fast R-CNN."""

from __future__ import annotations

import os
from typing import Any

from detzoo.config import stages
from detzoo.config.check.inputs import MASK_METRICS, named_readers
from detzoo.config.paths import is_remote, path_hint
from detzoo.config.problems import Findings, is_placeholder


def check_region_inputs(config: Any, findings: Findings, files: bool) -> None:
    """Adds what the readers of a ``pb.TrainEvalPipelineConfig`` lack. ``files``: whether regions must exist."""
    kind = config.model.WhichOneof("model")
    model = config.model.faster_rcnn if kind == "faster_rcnn" else None
    for path, reader in named_readers(config):
        if stages.reads_proposals(config.model):
            _check_proposals(reader, path, kind, findings, files)
        elif reader.proposals_path:
            text = "only spp_net, and faster_rcnn with proposals_from_reader: true, read regions from a file"
            findings.no_effect(f"{path}.proposals_path", text)
    if model is not None and stages.predicts_masks(model):
        _check_masks(config, findings)


def _check_proposals(reader: Any, path: str, kind: str, findings: Findings, files: bool) -> None:
    here = f"{path}.proposals_path"
    name = reader.proposals_path
    if not name:
        why = "proposals_from_reader is true" if kind == "faster_rcnn" else "spp_net classifies given windows"
        text = (
            f"is missing, but {why}; give the proposals.npz that `detzoo proposals` writes (or `detzoo evaluate` for "
            "number_of_stages: 1), or a JSON list in COCO's results format"
        )
        findings.error(here, text)
    elif is_placeholder(name):
        if files:
            findings.to_set(here, "the file of your regions")
    elif files and not is_remote(name) and not os.path.isfile(name):
        findings.error(here, f"there is no file '{name}'{path_hint(name)}")


def _check_masks(config: Any, findings: Findings) -> None:
    """A mask head is trained on the records' masks, and evaluated with them where the metrics are of masks."""
    evaluates = MASK_METRICS in config.eval_config.metrics_set or config.eval_config.eval_instance_masks
    for path, reader in named_readers(config):
        is_training = path == "train_input_reader"
        if not reader.load_instance_masks and (is_training or evaluates):
            why = "the mask head is trained on them" if is_training else f"eval_config asks for {MASK_METRICS}"
            text = f"is false, but the records' masks are needed: {why}; accepted: true"
            findings.error(f"{path}.load_instance_masks", text)
