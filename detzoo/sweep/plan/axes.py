"""The axes of a sweep: which fields of a config each sets, and setting them.

A named axis sets all that belongs to its value: a stride of 8 moves the anchors and widens the proposal head, a
resolution of 300 halves the limit of the longer side, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from detzoo.config.override import apply_override
from detzoo.config.problems import Problem, error
from detzoo.sweep.plan.traits import OWN_STRIDE, TWO_STAGES, resolution_of, ssd_stride_of

META, EXTRACTOR, STRIDE, RESOLUTION, PROPOSALS = (
    "meta_architecture",
    "extractor",
    "output_stride",
    "resolution",
    "proposals",
)
SSD_STRIDES = (8, OWN_STRIDE)
SHARED_FEATURES = "shared_features"
FLAG_TEXTS = {False: "false", True: "true"}
NAMED = (META, EXTRACTOR, STRIDE, RESOLUTION, PROPOSALS)
_ONLY_FOR = {STRIDE: ("ssd", *TWO_STAGES), PROPOSALS: TWO_STAGES}
WITH_SECOND_STAGE = ("faster_rcnn", "rfcn", "mask_rcnn")  # and with a first one
Value: TypeAlias = str | int

_FIELDS = {
    META: ("meta_architecture",),
    EXTRACTOR: ("extractor",),
    RESOLUTION: (
        "model.ssd.image_resizer",
        "model.faster_rcnn.image_resizer",
    ),
    STRIDE: (
        "model.ssd.feature_extractor.output_stride",
        "model.faster_rcnn.feature_extractor.first_stage_features_stride",
        "model.faster_rcnn.first_stage_anchor_generator.grid_anchor_generator.height_stride",
        "model.faster_rcnn.first_stage_anchor_generator.grid_anchor_generator.width_stride",
        "model.faster_rcnn.first_stage_atrous_rate",
    ),
    PROPOSALS: (
        "model.faster_rcnn.first_stage_max_proposals",
        "model.faster_rcnn.first_stage_max_proposals_in_training",
    ),
}


class Axis:
    """One axis of a sweep file.

    Attributes:
        place: its path in the file, e.g. ``axis[0]``.
        kind: one of NAMED, "shared_features", "path" or "choice"; "" where the file does not say.
        name: what exclusions, patterns and results call it.
        values: of it, in the file's order.
        only_for: meta-architectures it applies to, () for all.
        only_at_test_time: whether a training does not see it.
    """

    def __init__(self, message: Any, place: str) -> None:
        self.place = place
        self.kind: str = message.WhichOneof("what") or ""
        self._block = getattr(message, self.kind) if self.kind else None
        self.only_for: tuple[str, ...] = tuple(message.only_for)
        self.only_at_test_time: bool = message.only_at_test_time or self.kind in (PROPOSALS, SHARED_FEATURES)
        self._choices: dict[str, Sequence[str]] = {}
        self.name, self.values = self._read()

    def _read(self) -> tuple[str, tuple[Value, ...]]:
        if self._block is None:
            return "", ()
        if self.kind == "choice":
            self._choices = {choice.name: tuple(choice.set) for choice in self._block.values}
            return self._block.name, tuple(choice.name for choice in self._block.values)
        if self.kind == SHARED_FEATURES:
            return self.kind, tuple(FLAG_TEXTS[value] for value in self._block.values)
        if self.kind == "path":
            leaf = re.sub(r"\W", "", self._block.path.split(".")[-1])
            return self._block.name or leaf, tuple(self._block.values)
        return self.kind, tuple(self._block.values)

    @property
    def path(self) -> str:
        """Of an axis of one field, that field; else ""."""
        return self._block.path if self._block is not None and self.kind == "path" else ""

    @property
    def is_complete(self) -> bool:
        """Whether it says what varies, under which name, and has values."""
        return bool(self.kind and self.name and self.values and (self.path or self.kind != "path"))

    def place_of(self, index: int) -> str:
        """The path in the sweep file of a value."""
        return f"{self.place}.{self.kind}.values[{index}]"

    def applies_to(self, meta_architecture: str) -> bool:
        """Whether points of a meta-architecture have this axis."""
        if self.only_for:
            return meta_architecture in self.only_for
        if self.kind == SHARED_FEATURES:
            return meta_architecture in WITH_SECOND_STAGE
        return meta_architecture in _ONLY_FOR.get(self.kind, (meta_architecture,))

    def fields(self) -> list[str]:
        """The paths that it sets, without indices of first items."""
        if self.kind in (*NAMED, SHARED_FEATURES):
            return list(_FIELDS.get(self.kind, ()))
        assignments = [self.path] if self.kind == "path" else [a for sets in self._choices.values() for a in sets]
        return sorted({_plain_path(assignment) for assignment in assignments})

    def apply(self, config: Any, value: Value) -> list[str]:
        """Sets a value in a ``pb.TrainEvalPipelineConfig``; gives what is wrong, [] where nothing is."""
        if self.kind in (META, EXTRACTOR, SHARED_FEATURES):
            return []  # chosen with the base, or by how it is trained
        if self.kind in _APPLY:
            problem = _APPLY[self.kind](config, int(value))
            return [problem] if problem else []
        if self.kind == "path":
            assignments: Sequence[str] = [f"{self.path}={value}"]
        else:
            assignments = self._choices[str(value)]
        return [problem.message for assignment in assignments for problem in change_config(config, assignment)]


def change_config(config: Any, assignment: str, lines: dict[str, int] | None = None) -> list[Problem]:
    """Changes a base as ``apply_override`` does, but leaves it a detector of the same kind.

    Naming a field of ``model.ssd`` would turn a ``model.faster_rcnn`` into an empty SSD.
    """
    kind = config.model.WhichOneof("model")
    parts = _plain_path(assignment).split(".")
    kinds = [field.name for field in config.model.DESCRIPTOR.oneofs_by_name["model"].fields]
    if kind and parts[0] == "model" and len(parts) > 1 and parts[1] in kinds and parts[1] != kind:
        advice = "give it to the bases that it is for, or say only_for in its axis"
        return [error("", 0, f"--set {assignment}: the base has model.{kind}; {advice}")]
    return apply_override(config, assignment, lines)


def same_field(first: Axis, second: Axis) -> str:
    """A field that both axes set for some meta-architecture; "" where there is none."""
    if first.only_for and second.only_for and not set(first.only_for) & set(second.only_for):
        return ""
    for one in first.fields():
        for other in second.fields():
            shorter, longer = sorted((one, other), key=len)
            if longer == shorter or longer.startswith((f"{shorter}.", f"{shorter}[")):
                return longer
    return ""


def name_part(axis: Axis, value: Value) -> str:
    """How a value shows in the name of a point."""
    text = re.sub(r"[^\w.+-]+", "-", str(value)).strip("-") or "empty"
    if axis.kind in (META, EXTRACTOR, RESOLUTION, "choice"):
        return text
    if axis.kind == SHARED_FEATURES:
        return "shared" if text == FLAG_TEXTS[True] else "not_shared"
    return f"{'stride' if axis.kind == STRIDE else axis.name}{text}"


def _plain_path(assignment: str) -> str:
    path = assignment.partition("=")[0].strip().removesuffix("{}")
    return re.sub(r"\[0\]", "", re.sub(r"\s", "", path))


def _set_resolution(config: Any, value: int) -> str:
    """The shorter side, in pixels."""
    kind = config.model.WhichOneof("model")
    resizer = getattr(config.model, kind).image_resizer if kind else None
    before = resolution_of(getattr(config.model, kind)) if kind else None
    if value < 1:
        return f"resolution is {value}; accepted: pixels, 1 or more"
    if resizer is None or not before:
        return "resolution needs a fixed_shape_resizer or a keep_aspect_ratio_resizer with a size in the base"
    if resizer.HasField("fixed_shape_resizer"):
        fixed = resizer.fixed_shape_resizer
        fixed.height, fixed.width = (round(side * value / before) for side in (fixed.height, fixed.width))
    else:
        keep = resizer.keep_aspect_ratio_resizer
        keep.max_dimension = round(keep.max_dimension * value / before)
        keep.training_min_dimensions[:] = [round(side * value / before) for side in keep.training_min_dimensions]
        keep.min_dimension = value
    return ""


def _set_stride(config: Any, value: int) -> str:
    """The stride, in pixels, with the anchors' and with a proposal head that sees as far as before."""
    if config.model.WhichOneof("model") == "ssd":
        return _set_ssd_stride(config.model.ssd.feature_extractor, value)
    if config.model.WhichOneof("model") != "faster_rcnn":
        return "output_stride is of SSD and of detectors of two stages; set only_for"
    model = config.model.faster_rcnn
    before = model.feature_extractor.first_stage_features_stride
    if value == before:
        return ""
    if value < 1:
        return f"output_stride is {value}; accepted: pixels, 8, 16 or 32"
    model.feature_extractor.first_stage_features_stride = value
    model.first_stage_atrous_rate = max(1, model.first_stage_atrous_rate * before // value)
    anchors = model.first_stage_anchor_generator
    if not anchors.HasField("grid_anchor_generator"):
        return "output_stride needs a grid_anchor_generator in the base: a pyramid's strides are those of its levels"
    grid = anchors.grid_anchor_generator
    for name in ("height_stride", "width_stride", "height_offset", "width_offset"):
        if grid.HasField(name) or name.endswith("stride"):
            setattr(grid, name, getattr(grid, name) * value // before)
    return ""


def _set_ssd_stride(extractor: Any, value: int) -> str:
    """The stride of the map of level 4; SSD's anchors follow the sizes of the maps by themselves."""
    if ssd_stride_of(extractor) is None:
        return "output_stride needs a feature extractor without a pyramid, whose strides are those of its levels"
    if value not in SSD_STRIDES:
        return f"output_stride is {value}; accepted for SSD: {' or '.join(map(str, SSD_STRIDES))} pixels"
    if value != ssd_stride_of(extractor):
        extractor.output_stride = 0 if value == OWN_STRIDE else value
    return ""


def _set_proposals(config: Any, value: int) -> str:
    """The number in testing; training keeps the base's, so that its batches stay full."""
    if config.model.WhichOneof("model") != "faster_rcnn":
        return "proposals are of detectors of two stages; set only_for"
    model = config.model.faster_rcnn
    if value < 1:
        return f"proposals is {value}; accepted: 1 or more"
    before = model.first_stage_max_proposals
    if value != before and not model.first_stage_max_proposals_in_training:
        model.first_stage_max_proposals_in_training = before
    model.first_stage_max_proposals = value
    return ""


_APPLY = {RESOLUTION: _set_resolution, STRIDE: _set_stride, PROPOSALS: _set_proposals}


def axes_of(sweep: Any) -> Iterator[Axis]:
    """The axes of a ``pb.Sweep``."""
    for index, message in enumerate(sweep.axis):
        yield Axis(message, f"axis[{index}]")
