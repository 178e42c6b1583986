"""From a sweep's bases and axes to its points: every combination that is not excluded, resolved, with name and key."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detzoo.config.load import LoadedPipeline, to_text
from detzoo.sweep.plan.axes import (
    EXTRACTOR,
    FLAG_TEXTS,
    META,
    NAMED,
    PROPOSALS,
    RESOLUTION,
    SHARED_FEATURES,
    STRIDE,
    Axis,
    Value,
    name_part,
)
from detzoo.sweep.plan.traits import Traits, traits_of

KEY_LENGTH = 12  # hexadecimal digits: two of 10,000 points collide once in six million sweeps


@dataclasses.dataclass(frozen=True)
class Base:
    """A config to start from, its own changes and those of the sweep applied."""

    name: str
    place: str  # in the sweep file, e.g. base[0]
    loaded: LoadedPipeline
    traits: Traits


@dataclasses.dataclass(frozen=True)
class How:
    """How a point is measured; see ``pb.SweepMeasure``."""

    device: str  # CPU or GPU
    precision: str  # float32, bfloat16 or float16
    jit_compile: bool
    batch_size: int
    runs: int
    warmup: int
    image_height: int  # pixels
    image_width: int
    speed: bool = True  # whether time and memory are measured


@dataclasses.dataclass(frozen=True)
class Point:
    """One thing to measure.

    Attributes:
        name: unique in its sweep.
        key: fingerprint of what is measured and how; "" before ``with_key``.
        axes: value of each axis that applies.
        base: what it starts from.
        message: the resolved ``pb.TrainEvalPipelineConfig``, in which ``{output_dir}`` is not replaced yet.
        traits: of it.
        how: it is measured.
        training: the same config without what a training does not see.
        checkpoint: folder or prefix that exists; "" for none.
        checkpoint_note: why there is none, "" where there is one.
        training_key: fingerprint of ``training`` where the sweep trains the point; else "".
        starts_after: the point whose training comes before that of this one, None where there is none.
        proposals: that it is trained and measured on, None where its detector makes its own.
        measures_accuracy: whether a data set and a checkpoint are or will be there.
    """

    name: str
    axes: Mapping[str, Value]
    base: Base
    message: Any
    traits: Traits
    how: How
    training: Any
    key: str = ""
    checkpoint: str = ""
    checkpoint_note: str = ""
    training_key: str = ""
    starts_after: Point | None = None
    proposals: Proposals | None = None
    measures_accuracy: bool = False

    @property
    def other_axes(self) -> dict[str, Value]:
        """Values of the axes that have no column of their own."""
        return {name: value for name, value in self.axes.items() if name not in NAMED}

    @property
    def shares_features(self) -> bool | None:
        """Value of the axis shared_features, None where the point has no such axis."""
        value = self.axes.get(SHARED_FEATURES)
        return None if value is None else value == FLAG_TEXTS[True]

    def with_key(self) -> Point:
        """The point with its fingerprint."""
        how = dataclasses.asdict(self.how)
        if how.pop("speed") is False:
            how = {"speed": False}  # nothing else of how it is measured counts
        told = [to_text(self.message), how, self.measures_accuracy]
        if self.shares_features is not None:
            told.append(self.shares_features)
        return dataclasses.replace(self, key=fingerprint([*told, self.training_key or self.checkpoint]))


@dataclasses.dataclass(frozen=True)
class Proposals:
    """Regions of all images, made by a point that is a first stage alone.

    Attributes:
        key: fingerprint; names their folder.
        of: the point that proposes.
        num_train: of a training image, at most.
        num_eval: of a test image, at most.
    """

    key: str
    of: Point
    num_train: int
    num_eval: int


def training_fingerprint(point: Point, sets: Sequence[Sequence[str]] = ()) -> str:
    """The key of a point's training.

    Args:
        point: whose ``training`` counts, and whether it is one in four steps.
        sets: of such a training, what is changed for each stage.
    """
    text = to_text(point.training)
    if point.shares_features is None:
        return fingerprint(text)
    return fingerprint([text, "four steps", *map(list, sets)])


def stage_sets(train: Any) -> tuple[Sequence[str], Sequence[str]]:
    """What a ``pb.SweepTraining`` changes for the first and for the second stage of a training in four steps."""
    return tuple(train.first_stage_set), tuple(train.second_stage_set)


def fingerprint(told: Any) -> str:
    """Some digits that differ where what is told, a JSON value, differs."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()[:KEY_LENGTH]


@dataclasses.dataclass(frozen=True)
class Group:
    """Bases that a point can start from, and the axes that its points have."""

    label: Mapping[str, Value]  # meta_architecture and extractor where these are axes
    bases: tuple[Base, ...]  # [] where no base is of this kind
    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """How many combinations it has."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def title(self) -> str:
        """Its name in messages and the start of its points' names."""
        return "_".join(map(str, self.label.values())) if self.label else self.bases[0].name

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Values of its axes, the label first."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield {**self.label, **{axis.name: value for axis, value in zip(self.axes, values)}}

    def base_for(self, combination: Mapping[str, Value]) -> list[Base]:
        """The bases a combination can start from: of several, those that have most of its values already."""
        found = list(self.bases)
        for name in (RESOLUTION, STRIDE, PROPOSALS):
            wanted = combination.get(name)
            exact = [base for base in found if getattr(base.traits, name) == wanted]
            if len(found) > 1 and exact:
                found = exact
        return found


def groups_of(bases: Sequence[Base], axes: Sequence[Axis]) -> list[Group]:
    """The groups of a sweep: a pair of meta-architecture and extractor each where one of these is an axis."""
    by_kind = {axis.kind: axis for axis in axes}
    others = [axis for axis in axes if axis.kind not in (META, EXTRACTOR)]

    def applying(meta_architecture: str) -> tuple[Axis, ...]:
        return tuple(axis for axis in others if axis.applies_to(meta_architecture))

    if META not in by_kind and EXTRACTOR not in by_kind:
        return [Group({}, (base,), applying(base.traits.meta_architecture)) for base in bases]
    present = list(dict.fromkeys((base.traits.meta_architecture, base.traits.extractor) for base in bases))
    metas = by_kind[META].values if META in by_kind else tuple(dict.fromkeys(meta for meta, _ in present))
    extractors = by_kind[EXTRACTOR].values if EXTRACTOR in by_kind else tuple(dict.fromkeys(e for _, e in present))
    groups = []
    for meta, extractor in itertools.product(metas, extractors):
        is_asked = META in by_kind and EXTRACTOR in by_kind
        if not is_asked and (meta, extractor) not in present:
            continue
        label = {META: meta, EXTRACTOR: extractor}
        fitting = tuple(b for b in bases if (b.traits.meta_architecture, b.traits.extractor) == (meta, extractor))
        groups.append(Group(label, fitting, applying(str(meta))))
    return groups


def copied(message: Any) -> Any:
    """Returns a copy of a message."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def apply_axes(base: Base, axes: Sequence[Axis], combination: Mapping[str, Value]) -> tuple[Any, Any, list[str]]:
    """The resolved message, the message of the training, and what is wrong."""
    message = type(base.loaded.message)()
    message.CopyFrom(base.loaded.message)
    training = message
    if any(axis.only_at_test_time for axis in axes):
        training = type(message)()
        training.CopyFrom(message)
    problems: list[str] = []
    for axis in axes:
        value = combination[axis.name]
        problems += axis.apply(message, value)
        if training is not message and not axis.only_at_test_time:
            axis.apply(training, value)
    return message, training, problems


def point_name(group: Group, combination: Mapping[str, Value], suffix: str) -> str:
    """E.g. ``rfcn_resnet101_600_stride16_proposals50``."""
    parts = [group.title, *(name_part(axis, combination[axis.name]) for axis in group.axes)]
    return "_".join(parts) + suffix


def how_variants(measure: Any) -> list[tuple[str, How]]:
    """Every way of measuring a point, each with what it adds to names: "" where there is one only."""
    devices = [measure.Device.Name(value) for value in measure.device] or ["CPU"]
    precisions = [measure.Precision.Name(value).lower() for value in measure.precision] or ["float32"]
    batch_sizes = list(measure.batch_size) or [1]
    found = []
    for device, precision, batch_size in itertools.product(devices, precisions, batch_sizes):
        suffix = f"_{device.lower()}" if len(devices) > 1 else ""
        suffix += f"_{precision}" if len(precisions) > 1 else ""
        suffix += f"_batch{batch_size}" if len(batch_sizes) > 1 else ""
        how = How(
            device,
            precision,
            measure.jit_compile,
            batch_size,
            measure.runs,
            measure.warmup,
            measure.image_height,
            measure.image_width,
            measure.speed,
        )
        found.append((suffix, how))
    return found


def of_resolution(how: How, traits: Traits) -> How:
    """With the point's own resolution where no image size is given."""
    side = traits.resolution or 0
    return dataclasses.replace(how, image_height=how.image_height or side, image_width=how.image_width or side)


def point_traits(message: Any) -> Traits:
    """The traits of a resolved config."""
    return traits_of(message.model)
