"""Names, colours and markers of points, extractors and meta-architectures.

A colour depends on the name alone: an extractor looks the same in every report.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from detzoo.pages.text import printable
from detzoo.serving.runtimes import LITERT, ONNX_RUNTIME, OPENVINO, TENSORFLOW
from detzoo.sweep.measured import Row
from detzoo.sweep.plan.traits import ONE_STAGE


class Extractor(NamedTuple):
    """Look of an extractor."""

    name: str  # as in papers
    colour: str
    top_1: float | None = None  # accuracy on ImageNet, per cent: table 2 of arXiv:1611.10012


# The six extractors of arXiv:1611.10012 have the colours of Okabe and Ito's palette (2008), which people with any kind
# of colour blindness can distinguish; without its yellow, which is too pale for points on white. The others are from
# Paul Tol's "muted" and "bright" schemes (technical note SRON/EPS/TN/09-002).
EXTRACTORS = {
    "vgg16": Extractor("VGG-16", "#000000", 71.0),
    "mobilenetv1": Extractor("MobileNet v1", "#E69F00", 71.1),
    "inceptionv2": Extractor("Inception v2", "#56B4E9", 73.9),
    "resnet101": Extractor("ResNet-101", "#009E73", 76.4),
    "inceptionv3": Extractor("Inception v3", "#0072B2", 78.0),
    "inceptionresnetv2": Extractor("Inception-ResNet v2", "#D55E00", 80.4),
    "mobilenetv2": Extractor("MobileNet v2", "#CC79A7"),
    "resnet50": Extractor("ResNet-50", "#332288"),
    "resnet152": Extractor("ResNet-152", "#117733"),
    "resnext50": Extractor("ResNeXt-50", "#AA4499"),
    "resnext101": Extractor("ResNeXt-101", "#882255"),
    "efficientnetb0": Extractor("efficientnet_b0", "#BBBBBB"),
}
OTHER_COLOURS = ("#999933", "#44AA99", "#661100", "#6699CC", "#AA3377", "#888888", "#4B7A1F", "#7A5C9E")
# Name in papers and matplotlib's marker, "" for any; the page draws the same shapes.
METAS = {
    "ssd": ("SSD", "o"),
    "retinanet": ("RetinaNet", "D"),
    "efficientdet": ("EfficientDet", "v"),
    "fasterrcnn": ("Faster R-CNN", "s"),
    "rfcn": ("R-FCN", "^"),
    "maskrcnn": ("Mask R-CNN", "P"),
    "sppnet": ("SPP-net", "X"),
    "rpn": ("RPN", ""),
    "fastrcnn": ("Fast R-CNN", ""),
    "segmentationproposals": ("Segmentation proposals", ""),
}
OTHER_MARKERS = ("<", ">", "*", "p")
# Name and colour of a runtime, which has the place of the extractor's colour if the points have several.
RUNTIMES = {
    TENSORFLOW: ("TensorFlow", "#E69F00"),
    ONNX_RUNTIME: ("ONNX Runtime", "#0072B2"),
    LITERT: ("LiteRT", "#009E73"),
    OPENVINO: ("OpenVINO", "#AA3377"),
}
NO_NAME = "(not named)"
LONGEST_NAME = 26  # of an extractor or a meta-architecture: the room in a legend
DETAILS = {"resolution": "{} px", "output_stride": "stride {}", "proposals": "{} prop."}
# "resnet_v1_101" and "resnet101_v1" are "resnet101" with all its spellings.
_RESNET_V1 = re.compile(r"^(resnet|resnext)v1(\d+)|^(resnet|resnext)(\d+)v1$")


def folded(name: str | None) -> str:
    """Returns a name without differences of spelling: "resnet_v1_101" and "ResNet-101" are "resnet101"."""
    plain = re.sub(r"[^a-z0-9]", "", (name or "").lower()).removesuffix("keras")
    found = _RESNET_V1.match(plain)
    return "".join(part for part in found.groups() if part) if found else plain


def extractor_colour(name: str | None) -> str:
    """Returns #RRGGBB; for an unknown extractor a colour that follows from its name."""
    known = EXTRACTORS.get(folded(name))
    return known.colour if known else _any_of(OTHER_COLOURS, name)


def extractor_name(name: str | None) -> str:
    """Returns the spelling of papers, or the name itself."""
    known = EXTRACTORS.get(folded(name))
    return known.name if known else printable(name, LONGEST_NAME) or NO_NAME


def runtime_name(name: str | None) -> str:
    """Returns the spelling of a runtime's makers, or the name itself."""
    return RUNTIMES.get(name or TENSORFLOW, (printable(name, LONGEST_NAME), ""))[0]


def has_runtimes(rows: Sequence[Row]) -> bool:
    """Returns True if the rows were measured in several runtimes, which then have the colours."""
    return len({row["runtime"] or TENSORFLOW for row in rows}) > 1


def row_look(row: Row, by_runtime: bool) -> tuple[str, str]:
    """Returns name and colour of a row's runtime, or else of its extractor."""
    if by_runtime:
        name = row["runtime"] or TENSORFLOW
        return RUNTIMES.get(name, (runtime_name(name), _any_of(OTHER_COLOURS, name)))
    return extractor_name(row["extractor"]), extractor_colour(row["extractor"])


def imagenet_accuracy(name: str | None) -> float | None:
    """Returns the top-1 accuracy on ImageNet in per cent, None if the paper lacks it."""
    known = EXTRACTORS.get(folded(name))
    return known.top_1 if known else None


def meta_marker(name: str | None) -> str:
    """Returns a marker of matplotlib."""
    return METAS.get(folded(name), ("", ""))[1] or _any_of(OTHER_MARKERS, name)


def meta_name(name: str | None) -> str:
    """Returns the spelling of papers, or the name itself."""
    return METAS.get(folded(name), ("", ""))[0] or printable(name, LONGEST_NAME) or NO_NAME


def is_one_stage(row: Row) -> bool:
    """Returns True for a detector without a second stage."""
    return folded(row["meta_architecture"]) in ONE_STAGE


def point_labels(rows: Sequence[Row]) -> list[str]:
    """Returns names such as "R-FCN ResNet-101, 600 px, stride 8, 50 prop."; the point's own if two would be equal.

    Values that all rows share (a single resolution, stride or number of proposals) are omitted, unless there is a
    single point.
    """
    found = {name: {row[name] for row in rows if row[name] is not None} for name in DETAILS}
    varied = [name for name, values in found.items() if len(values) > 1 or len(rows) == 1]
    by_runtime, labels = has_runtimes(rows), []
    for row in rows:
        parts = [f"{meta_name(row['meta_architecture'])} {extractor_name(row['extractor'])}"]
        own = [name for name in varied if row[name] is not None and (name == "resolution" or not is_one_stage(row))]
        details = [DETAILS[name].format(row[name]) for name in own]
        labels.append(", ".join([*parts, *details, *([row_look(row, True)[0]] if by_runtime else [])]))
    unclear = {label for label in labels if labels.count(label) > 1 or NO_NAME in label}
    return [printable(row["name"]) or label if label in unclear else label for row, label in zip(rows, labels)]


def _any_of(choices: Sequence[str], name: str | None) -> str:
    digest = hashlib.sha256(folded(name).encode("utf-8", "replace")).digest()
    return choices[int.from_bytes(digest[:4], "big") % len(choices)]
