"""Checks of a classifier (``model.spp_classifier``) and of its readers."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb
from detzoo.config.check.inputs import named_readers
from detzoo.config.problems import Findings
from detzoo.config.spp_networks import problem_of_network
from detzoo.config.spp_table import BASELINE_BINS, SPP_NETWORKS, map_size, min_size_px

_PATH = "model.spp_classifier"
# Fields of a reader that ask for what the class of an image does not need.
_UNREAD = ("load_instance_masks", "proposals_path", "sample_from_datasets_weights")


def check_spp_classifier(model: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with a ``pb.SppClassifier``."""
    del files
    for field, text in problem_of_network(model.network):
        findings.error(f"{_PATH}.network.{field}", text)
    if model.crop_size > model.shorter_side:
        text = f"is {model.crop_size}, above shorter_side ({model.shorter_side}): no crop fits into the resized image"
        findings.error(f"{_PATH}.crop_size", text)
    if model.random_train_size and len(set(model.train_size)) < 2:
        text = "is true, but train_size does not have two sizes to draw between; the paper's are [180, 224]"
        findings.error(f"{_PATH}.random_train_size", text)
    if model.network.type in SPP_NETWORKS:
        _check_sizes(model, findings)
    if model.network.pyramid_bins:
        _check_map_scales(model, findings)
    else:
        _check_without_pyramid(model, findings)


def _check_sizes(model: Any, findings: Findings) -> None:
    """Every image that the network sees must leave a map with as many cells as the pyramid has bins a side."""
    network, bins = (
        model.network,
        max([1, *model.network.pyramid_bins] if model.network.pyramid_bins else BASELINE_BINS),
    )
    least = min_size_px(network.type, cells=bins)
    sizes = [(f"{_PATH}.train_size[{index}]", size) for index, size in enumerate(model.train_size)]
    for path, size in [(f"{_PATH}.crop_size", model.crop_size), *sizes]:
        cells = map_size(network.type, size)
        if cells < bins:
            text = (
                f"is {size}: the last map of {network.type} then has {cells} x {cells} cells, fewer than the {bins} x "
                f"{bins} bins of its pyramid; accepted: {least} pixels or more, or coarser pyramid_bins"
            )
            findings.error(path, text)


def _check_map_scales(model: Any, findings: Findings) -> None:
    is_used = model.test_view == pb.SppClassifier.MAP_VIEWS
    for index, scale in enumerate(model.map_scale):
        if is_used and scale < model.crop_size:
            text = f"is {scale}, below crop_size ({model.crop_size}): no window fits into the resized image"
            findings.error(f"{_PATH}.map_scale[{index}]", text)
    if model.map_scale and not is_used:
        findings.no_effect(f"{_PATH}.map_scale", "test_view is not MAP_VIEWS")


def _check_without_pyramid(model: Any, findings: Findings) -> None:
    """Such a network takes one size of image."""
    for index, size in enumerate(model.train_size):
        if size != model.crop_size:
            text = (
                f"is {size}, but without network.pyramid_bins the network takes crop_size ({model.crop_size}) alone; "
                "give it a pyramid, such as pyramid_bins: [6, 3, 2, 1]"
            )
            findings.error(f"{_PATH}.train_size[{index}]", text)
    if model.test_view in (pb.SppClassifier.FULL_IMAGE, pb.SppClassifier.MAP_VIEWS):
        name = pb.SppClassifier.TestView.Name(model.test_view)
        text = (
            f"is {name}, whose maps have any size, but without network.pyramid_bins the network takes crops alone; "
            "accepted: TEN_CROPS, ONE_CROP"
        )
        findings.error(f"{_PATH}.test_view", text)


def check_classifier_inputs(config: Any, findings: Findings) -> None:
    """Adds what the readers and ``eval_config`` of a classifier's ``pb.TrainEvalPipelineConfig`` ask for in vain."""
    if config.model.WhichOneof("model") != "spp_classifier":
        return
    for path, reader in named_readers(config):
        for name in _UNREAD:
            if getattr(reader, name):
                findings.no_effect(f"{path}.{name}", "a classifier reads images and their classes alone")
    if config.eval_config.metrics_set:
        findings.no_effect("eval_config.metrics_set", "a classifier is measured by its top-1 and top-5 error")
