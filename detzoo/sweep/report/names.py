"""How points, extractors and meta-architectures are named and coloured in figures and on the page.

Colours belong to names, not to what else is in the sweep: an extractor looks the same in every report.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence

from detzoo.sweep.measured import Row

# Okabe and Ito's palette (2008), made to be told apart with every kind of colour blindness; its yellow, too pale for
# points on white, is left out. The six extractors of arXiv:1611.10012 have its colours.
# The others are from Paul Tol's "muted" and "bright" schemes (technical note SRON/EPS/TN/09-002).
EXTRACTOR_COLOURS = {
    "vgg16": "#000000",
    "mobilenetv1": "#E69F00",
    "inceptionv2": "#56B4E9",
    "resnet101": "#009E73",
    "inceptionv3": "#0072B2",
    "inceptionresnetv2": "#D55E00",
    "mobilenetv2": "#CC79A7",
    "resnet50": "#332288",
    "resnet152": "#117733",
    "resnext50": "#AA4499",
    "resnext101": "#882255",
    "efficientnetb0": "#BBBBBB",
}
OTHER_COLOURS = ("#999933", "#44AA99", "#661100", "#6699CC", "#AA3377", "#888888", "#4B7A1F", "#7A5C9E")
EXTRACTOR_NAMES = {
    "vgg16": "VGG-16",
    "mobilenetv1": "MobileNet v1",
    "mobilenetv2": "MobileNet v2",
    "inceptionv2": "Inception v2",
    "inceptionv3": "Inception v3",
    "inceptionresnetv2": "Inception-ResNet v2",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "resnext50": "ResNeXt-50",
    "resnext101": "ResNeXt-101",
}
# Top-1 accuracy on ImageNet, per cent: table 2 of arXiv:1611.10012. Extractors that it does not have leave a gap.
IMAGENET_TOP_1 = {
    "vgg16": 71.0,
    "mobilenetv1": 71.1,
    "inceptionv2": 73.9,
    "resnet101": 76.4,
    "inceptionv3": 78.0,
    "inceptionresnetv2": 80.4,
}
META_NAMES = {
    "ssd": "SSD",
    "retinanet": "RetinaNet",
    "efficientdet": "EfficientDet",
    "fasterrcnn": "Faster R-CNN",
    "rfcn": "R-FCN",
    "maskrcnn": "Mask R-CNN",
    "sppnet": "SPP-net",
    "rpn": "RPN",
    "fastrcnn": "Fast R-CNN",
    "segmentationproposals": "Segmentation proposals",
}
# Matplotlib's letters; the page draws the same shapes.
META_MARKERS = {
    "ssd": "o",
    "fasterrcnn": "s",
    "rfcn": "^",
    "retinanet": "D",
    "maskrcnn": "P",
    "efficientdet": "v",
    "sppnet": "X",
}
OTHER_MARKERS = ("<", ">", "*", "p")
ONE_STAGE = ("ssd", "retinanet", "efficientdet")
NO_NAME = "(not named)"
LONGEST_LABEL = 60
LONGEST_NAME = 26  # of an extractor or a meta-architecture; a legend has no more room
DETAILS = {"resolution": "{} px", "output_stride": "stride {}", "proposals": "{} prop."}
# "resnet_v1_101" and "resnet101_v1" are "resnet101" with all its spellings.
_RESNET_V1 = re.compile(r"^(resnet|resnext)v1(\d+)|^(resnet|resnext)(\d+)v1$")


def folded(name: str | None) -> str:
    """A name without what spellings differ in: "resnet_v1_101" and "ResNet-101" are "resnet101"."""
    plain = re.sub(r"[^a-z0-9]", "", (name or "").lower()).removesuffix("keras")
    found = _RESNET_V1.match(plain)
    return "".join(part for part in found.groups() if part) if found else plain


def extractor_colour(name: str | None) -> str:
    """#RRGGBB; of an extractor that has no colour of its own, one that follows from its name."""
    known = EXTRACTOR_COLOURS.get(folded(name))
    return known or OTHER_COLOURS[_digest(folded(name)) % len(OTHER_COLOURS)]


def meta_marker(name: str | None) -> str:
    """A marker of matplotlib."""
    known = META_MARKERS.get(folded(name))
    return known or OTHER_MARKERS[_digest(folded(name)) % len(OTHER_MARKERS)]


def extractor_name(name: str | None) -> str:
    """As papers write it, or as it is."""
    return EXTRACTOR_NAMES.get(folded(name)) or printable(name, LONGEST_NAME) or NO_NAME


def meta_name(name: str | None) -> str:
    """As papers write it, or as it is."""
    return META_NAMES.get(folded(name)) or printable(name, LONGEST_NAME) or NO_NAME


def is_one_stage(row: Row) -> bool:
    """Whether the point's detector has no second stage."""
    return folded(row["meta_architecture"]) in ONE_STAGE


def printable(text: object, longest: int = LONGEST_LABEL) -> str:
    """Text on one line without control characters (an SVG must not have them), cut with three dots."""
    words = "".join(visible(character) for character in str(text if text is not None else ""))
    line = " ".join(words.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def visible(character: str) -> str:
    """The character, a space for what separates, or the sign of a replaced one for what cannot be shown."""
    if character.isspace():
        return " "
    return "�" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def point_labels(rows: Sequence[Row]) -> list[str]:
    """Short names such as "R-FCN ResNet-101, 600 px, stride 8, 50 prop."; the point's own where two would be alike.

    What all rows have in common (a single resolution, stride or number of proposals) is left out,
    unless there is a single point.
    """
    found = {name: {row[name] for row in rows if row[name] is not None} for name in DETAILS}
    varied = {name for name, values in found.items() if len(values) > 1 or len(rows) == 1}
    labels = [_described(row, varied) for row in rows]
    unclear = {label for label in labels if labels.count(label) > 1 or NO_NAME in label}
    return [printable(row["name"]) or label if label in unclear else label for row, label in zip(rows, labels)]


def _described(row: Row, details: Collection[str]) -> str:
    parts = [f"{meta_name(row['meta_architecture'])} {extractor_name(row['extractor'])}"]
    for name, words in DETAILS.items():
        for_this = name == "resolution" or not is_one_stage(row)
        if name in details and row[name] is not None and for_this:
            parts.append(words.format(row[name]))
    return ", ".join(parts)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big")
