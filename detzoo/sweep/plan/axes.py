"""The axes of a sweep: which fields of a config each sets, and setting them.

A named axis sets everything that depends on its value: a stride of 8 moves the anchors and widens the proposal head, a
resolution of 300 also halves the limit of the longer side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from detzoo.config.names import suggestion
from detzoo.config.override import apply_override
from detzoo.config.problems import Problem, error
from detzoo.serving.runtimes import RUNTIMES
from detzoo.sweep.plan.traits import OWN_STRIDE, TWO_STAGES, resolution_of, ssd_stride_of

META, EXTRACTOR, STRIDE, RESOLUTION, PROPOSALS = (
    "meta_architecture",
    "extractor",
    "output_stride",
    "resolution",
    "proposals",
)
SSD_STRIDES = (8, OWN_STRIDE)
SHARED_FEATURES, RUNTIME, SEED = "shared_features", "runtime", "seed"
NAMED = (META, EXTRACTOR, STRIDE, RESOLUTION, PROPOSALS)
_ONLY_FOR = {
    STRIDE: ("ssd", *TWO_STAGES),
    PROPOSALS: TWO_STAGES,
    SHARED_FEATURES: ("faster_rcnn", "rfcn", "mask_rcnn"),  # a first and a second stage
}
Value: TypeAlias = str | int

_FIELDS = {
    META: ("meta_architecture",),
    EXTRACTOR: ("extractor",),
    RESOLUTION: ("model.ssd.image_resizer", "model.faster_rcnn.image_resizer"),
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
    SHARED_FEATURES: (),
    RUNTIME: (),
    SEED: ("train_config.seed",),
}


class Axis:
    """One axis of a sweep file.

    Attributes:
        place: Its path in the file, e.g. ``axis[0]``.
        kind: One of NAMED, "shared_features", "runtime", "seed", "path" or "choice"; "" if the file names none.
        name: Its name in exclusions, patterns and results.
        path: The field that an axis of kind "path" sets; else "".
        values: Its values in the file's order.
        only_for: Meta-architectures that it applies to, () for all.
        only_at_test_time: True if it does not change trainings.
    """

    def __init__(self, message: Any, place: str) -> None:
        self.place = place
        self.kind: str = message.WhichOneof("what") or ""
        self.only_for: tuple[str, ...] = tuple(message.only_for)
        self.only_at_test_time: bool = message.only_at_test_time or self.kind in (PROPOSALS, SHARED_FEATURES, RUNTIME)
        self.name, self.path = self.kind, ""
        self.values: tuple[Value, ...] = ()
        self._choices: dict[str, Sequence[str]] = {}
        block: Any = getattr(message, self.kind) if self.kind else None
        if self.kind == "choice":
            self.name = block.name
            self._choices = {choice.name: tuple(choice.set) for choice in block.values}
            self.values = tuple(choice.name for choice in block.values)
        elif self.kind == SHARED_FEATURES:
            self.values = tuple(str(value).lower() for value in block.values)
        elif block is not None:
            self.values = tuple(block.values)
        if self.kind == "path":
            self.path = block.path
            self.name = block.name or re.sub(r"\W", "", block.path.split(".")[-1])

    @property
    def is_complete(self) -> bool:
        """True if it names its kind and has a name, values and a field if it needs one."""
        return bool(self.kind and self.name and self.values and (self.path or self.kind != "path"))

    def place_of(self, index: int) -> str:
        """Returns the path in the sweep file of a value."""
        return f"{self.place}.{self.kind}.values[{index}]"

    def applies_to(self, meta_architecture: str) -> bool:
        """Returns True if points of a meta-architecture have this axis."""
        return meta_architecture in (self.only_for or _ONLY_FOR.get(self.kind, (meta_architecture,)))

    def fields(self) -> list[str]:
        """Returns the paths that it sets, without indices of first items."""
        if self.kind in _FIELDS:
            return list(_FIELDS[self.kind])
        assignments = [self.path] if self.kind == "path" else [a for sets in self._choices.values() for a in sets]
        return sorted({_plain_path(assignment) for assignment in assignments})

    def apply(self, config: Any, value: Value) -> list[str]:
        """Sets a value in a ``pb.TrainEvalPipelineConfig``; returns messages of problems."""
        if self.kind == RUNTIME and value not in RUNTIMES:
            return [f"there is no runtime '{value}'{suggestion(str(value), RUNTIMES)}"]
        if self.kind in (META, EXTRACTOR, SHARED_FEATURES, RUNTIME):
            return []  # chosen with the base, by the training, or by the way of measuring
        if self.kind in _APPLY:
            problem = _APPLY[self.kind](config, int(value))
            return [problem] if problem else []
        assignments = [f"{self.path}={value}"] if self.kind == "path" else self._choices[str(value)]
        return [problem.message for assignment in assignments for problem in change_config(config, assignment)]

    def name_part(self, value: Value) -> str:
        """Returns the part of a point's name that stands for a value."""
        text = re.sub(r"[^\w.+-]+", "-", str(value)).strip("-") or "empty"
        if self.kind in (META, EXTRACTOR, RESOLUTION, RUNTIME, "choice"):
            return text
        if self.kind == SHARED_FEATURES:
            return "shared" if text == "true" else "not_shared"
        return f"{'stride' if self.kind == STRIDE else self.name}{text}"


def change_config(config: Any, assignment: str, lines: dict[str, int] | None = None) -> list[Problem]:
    """Changes a config as ``apply_override`` does, but not into a detector of another kind.

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
    """Returns a field that both axes set for some meta-architecture; "" for none."""
    if first.only_for and second.only_for and not set(first.only_for) & set(second.only_for):
        return ""
    for one in first.fields():
        for other in second.fields():
            shorter, longer = sorted((one, other), key=len)
            if longer == shorter or longer.startswith((f"{shorter}.", f"{shorter}[")):
                return longer
    return ""


def _plain_path(assignment: str) -> str:
    path = assignment.partition("=")[0].strip().removesuffix("{}")
    return re.sub(r"\[0\]", "", re.sub(r"\s", "", path))


def _set_resolution(config: Any, value: int) -> str:
    """Sets the shorter side, in pixels."""
    kind = config.model.WhichOneof("model")
    before = resolution_of(getattr(config.model, kind)) if kind else None
    if value < 1:
        return f"resolution is {value}; accepted: pixels, 1 or more"
    if not before:
        return "resolution needs a fixed_shape_resizer or a keep_aspect_ratio_resizer with a size in the base"
    resizer = getattr(config.model, kind).image_resizer
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
    """Sets the stride, in pixels, that of the anchors, and a proposal head with the same receptive field."""
    kind = config.model.WhichOneof("model")
    if kind == "ssd":
        extractor = config.model.ssd.feature_extractor
        if ssd_stride_of(extractor) is None:
            return "output_stride needs a feature extractor without a pyramid, whose strides are those of its levels"
        if value not in SSD_STRIDES:
            return f"output_stride is {value}; accepted for SSD: {' or '.join(map(str, SSD_STRIDES))} pixels"
        if value != ssd_stride_of(extractor):
            extractor.output_stride = 0 if value == OWN_STRIDE else value
        return ""
    if kind != "faster_rcnn":
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


def _set_proposals(config: Any, value: int) -> str:
    """Sets the number in testing; training keeps that of the base, so that its batches stay full."""
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


def _set_seed(config: Any, value: int) -> str:
    """Sets the seed of initial weights, order and augmentation."""
    if value < 0:
        return f"seed is {value}; accepted: 0 or more"
    config.train_config.seed = value
    return ""


_APPLY = {RESOLUTION: _set_resolution, STRIDE: _set_stride, PROPOSALS: _set_proposals, SEED: _set_seed}
