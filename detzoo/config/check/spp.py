"""Rules of SPP-net's classifier (``model.spp_classifier``) and detector (``model.spp_net``)."""

from __future__ import annotations

import itertools

from detzoo.config import pb
from detzoo.config.check.parts import check_post_processing
from detzoo.config.names import nearest
from detzoo.config.problems import MISSING, Findings
from detzoo.config.spp_table import BASELINE_BINS, SPP_NETWORKS, Padding, map_size, min_size_px


def check_spp_classifier(model: pb.SppClassifier, findings: Findings) -> None:
    """Checks an ``spp_classifier`` block."""
    _check_network(model.network, findings)
    if model.crop_size > model.shorter_side:
        text = f"is {model.crop_size}, above shorter_side ({model.shorter_side}): no crop fits into the resized image"
        findings.error("crop_size", "crop-size", text, ["shorter_side"])
    if model.random_train_size and len(set(model.train_size)) < 2:
        text = "is true, but train_size does not have two sizes to draw between; the paper's are [180, 224]"
        findings.error("random_train_size", "two-train-sizes", text)
    if model.network.type in SPP_NETWORKS:
        _check_sizes(model, findings)
    is_by_map = model.test_view == pb.SppClassifier.MAP_VIEWS
    if not model.network.pyramid_bins:
        _check_without_pyramid(model, findings)
    elif is_by_map:
        for index, scale in enumerate(model.map_scale):
            if scale < model.crop_size:
                text = f"is {scale}, below crop_size ({model.crop_size}): no window fits into the resized image"
                findings.error(f"map_scale[{index}]", "crop-size", text, ["crop_size"])
    elif model.map_scale:
        findings.no_effect("map_scale", "test_view is not MAP_VIEWS")


def check_spp_net(model: pb.SppNet, findings: Findings) -> None:
    """Checks an ``spp_net`` block."""
    network = model.network
    _check_network(network, findings)
    if not network.pyramid_bins:
        text = "windows of any size are pooled in a pyramid. Accepted: bins per side, such as [6, 3, 2, 1]"
        findings.missing("network.pyramid_bins", text)
    _check_scales(model, findings)
    has_tuning = model.HasField("fine_tuning")
    if not model.HasField("svm") and not has_tuning:
        text = "nothing scores the windows: add svm { } (one linear classifier per class), fine_tuning { }, or both"
        findings.error("", "no-scores", text)
    elif not model.HasField("svm") and model.features != pb.SppNet.FC7:
        name = pb.SppNet.Features.Name(model.features)
        text = f"is {name}, but without svm the scores are those of fc8, which reads FC7; accepted: FC7"
        findings.error("features", "features-of-scores", text)
    tuning = model.fine_tuning
    if has_tuning and tuning.negative_iou >= tuning.positive_iou:
        text = f"is {tuning.negative_iou:g}; accepted: 0 to below positive_iou ({tuning.positive_iou:g})"
        findings.error("fine_tuning.negative_iou", "overlapping-ious", text, ["positive_iou"])
    check_post_processing(model.post_processing, None, findings.at("post_processing"))
    for field in ("score_converter", "logit_scale"):
        if model.post_processing.HasField(field):
            text = "scores are the sigmoid of SVMs' margins, or without svm the softmax of fc8"
            findings.no_effect(f"post_processing.{field}", text)


def _check_network(network: pb.SppNetwork, findings: Findings) -> None:
    if network.type in SPP_NETWORKS:
        return
    close = nearest(network.type, SPP_NETWORKS)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    found = f"is '{network.type}'" if network.type else "is missing"
    text = f"{found}; {hint}accepted: {', '.join(SPP_NETWORKS)}"
    findings.error("network.type", "unknown-network" if network.type else MISSING, text)


def _check_sizes(model: pb.SppClassifier, findings: Findings) -> None:
    """Checks that every image leaves a map with as many cells per side as the pyramid has bins."""
    network = model.network
    bins = max([1, *network.pyramid_bins] if network.pyramid_bins else BASELINE_BINS)
    sizes = [(f"train_size[{index}]", size) for index, size in enumerate(model.train_size)]
    for path, size in [("crop_size", model.crop_size), *sizes]:
        cells = map_size(network.type, size)
        if cells < bins:
            text = (
                f"is {size}: the last map of {network.type} then has {cells} x {cells} cells, fewer than the {bins} x "
                f"{bins} bins of its pyramid; accepted: {min_size_px(network.type, cells=bins)} pixels or more, or "
                "coarser pyramid_bins"
            )
            findings.error(path, "map-smaller-than-pyramid", text, ["pyramid_bins"])


def _check_without_pyramid(model: pb.SppClassifier, findings: Findings) -> None:
    """Checks a network that takes one size of image."""
    for index, size in enumerate(model.train_size):
        if size != model.crop_size:
            text = (
                f"is {size}, but without network.pyramid_bins the network takes crop_size ({model.crop_size}) alone; "
                "give it a pyramid, such as pyramid_bins: [6, 3, 2, 1]"
            )
            findings.error(f"train_size[{index}]", "size-without-pyramid", text, ["pyramid_bins", "crop_size"])
    if model.test_view in (pb.SppClassifier.FULL_IMAGE, pb.SppClassifier.MAP_VIEWS):
        name = pb.SppClassifier.TestView.Name(model.test_view)
        text = (
            f"is {name}, whose maps have any size, but without network.pyramid_bins the network takes crops alone; "
            "accepted: TEN_CROPS, ONE_CROP"
        )
        findings.error("test_view", "size-without-pyramid", text, ["pyramid_bins"])


def _check_scales(model: pb.SppNet, findings: Findings) -> None:
    """Checks that the map of the smallest image of each scale holds the pyramid."""
    bins, network = max(model.network.pyramid_bins, default=0), model.network.type
    for index, side in enumerate(model.scale):
        if side in model.scale[:index]:
            findings.error(f"scale[{index}]", "repeated-scale", f"is {side}, a second time; accepted: each once")
        if network not in SPP_NETWORKS:
            continue
        cells = map_size(network, side, Padding.CENTERED)
        if cells < bins:
            least = next(px for px in itertools.count(side) if map_size(network, px, Padding.CENTERED) >= bins)
            text = (
                f"is {side}: the map of {network} then has {cells} cells along the shorter side, fewer than the {bins} "
                f"bins per side of network.pyramid_bins; accepted: {least} or more"
            )
            findings.error(f"scale[{index}]", "map-smaller-than-pyramid", text, ["pyramid_bins"])
