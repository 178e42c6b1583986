"""Rules of segmentation proposals (``model.segmentation_proposals``)."""

from __future__ import annotations

from detzoo.config import pb, support
from detzoo.config.check.parts import check_pyramid, check_region_extractor, check_resizer
from detzoo.config.problems import Findings
from detzoo.config.stages import HEAD_FACTORS


def check_segmentation_proposals(model: pb.SegmentationProposals, findings: Findings) -> None:
    """Checks a ``segmentation_proposals`` block."""
    check_resizer(model.image_resizer, findings.at("image_resizer"))
    message, here = model.feature_extractor, findings.at("feature_extractor")
    extractor = check_region_extractor(message, here)
    if extractor is not None and not extractor.is_fpn:
        text = f"is '{message.type}', which has no pyramid; accepted: the types that end in {support.FPN_SUFFIX}"
        here.error("type", "no-pyramid", text)
    elif extractor is not None:
        if message.fpn.finest_level_only:
            text = "is true, but masks of other sizes are predicted on other levels than the finest; accepted: false"
            here.error("fpn.finest_level_only", "not-supported", text)
        check_pyramid(message, here)
    sizes = list(model.head_kernel_size)
    if unknown := [size for size in sizes if size not in HEAD_FACTORS]:
        text = f"has {unknown[0]}; accepted: {', '.join(map(str, HEAD_FACTORS))}, or both"
        findings.error("head_kernel_size", "head-kernels", text)
    elif len(set(sizes)) != len(sizes):
        findings.error("head_kernel_size", "head-kernels", f"names {sizes[0]} twice; accepted: each once")
    if int(model.examples_per_image * model.positive_fraction) < 1:
        text = (
            f"is {model.positive_fraction:g}, less than one of examples_per_image ({model.examples_per_image}), so "
            "that no mask is trained"
        )
        findings.error("positive_fraction", "no-positive-example", text, ["examples_per_image"])
