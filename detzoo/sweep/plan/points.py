"""From a sweep's bases and axes to its points: every combination, resolved, with name and key."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detzoo.config.load import LoadedPipeline, to_text
from detzoo.serving.runtimes import TENSORFLOW
from detzoo.sweep.plan.axes import (
    EXTRACTOR,
    META,
    NAMED,
    PROPOSALS,
    RESOLUTION,
    RUNTIME,
    SHARED_FEATURES,
    STRIDE,
    Axis,
    Value,
)
from detzoo.sweep.plan.traits import Traits

KEY_LENGTH = 12  # hexadecimal digits: two of 10,000 points collide once in six million sweeps


@dataclasses.dataclass(frozen=True)
class Base:
    """A config to start from, with the changes of its block and of the sweep."""

    name: str
    place: str  # in the sweep file, e.g. base[0]
    loaded: LoadedPipeline
    traits: Traits


@dataclasses.dataclass(frozen=True)
class How:
    """A way of measuring; see ``pb.SweepMeasure``."""

    device: str  # CPU or GPU
    precision: str  # float32, bfloat16 or float16
    jit_compile: bool
    batch_size: int
    runs: int
    warmup: int
    image_height: int  # pixels
    image_width: int
    speed: bool = True  # False to measure accuracy alone
    runtime: str = TENSORFLOW  # one of ``serving.runtimes.RUNTIMES``


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination to measure."""

    name: str  # unique in its sweep
    axes: Mapping[str, Value]  # value of each axis that applies
    base: Base
    message: Any  # resolved pb.TrainEvalPipelineConfig, in which ``{output_dir}`` is not replaced yet
    traits: Traits  # of the message
    how: How
    training: Any  # the message without changes for testing alone
    key: str = ""  # fingerprint of the message and of how it is measured
    checkpoint: str = ""  # existing folder or prefix; "" for none
    checkpoint_note: str = ""  # reason for a missing checkpoint
    training_key: str = ""  # fingerprint of ``training`` if the sweep trains the point; else ""
    starts_after: Point | None = None  # point whose training comes before that of this point
    proposals: Proposals | None = None  # regions to train and measure on; None for own proposals
    measures_accuracy: bool = False  # True if data set and checkpoint exist, or will exist

    @property
    def other_axes(self) -> dict[str, Value]:
        """Values of the axes without a separate column."""
        return {name: value for name, value in self.axes.items() if name not in (*NAMED, RUNTIME)}

    @property
    def shares_features(self) -> bool | None:
        """Value of the axis shared_features, None if the point has no such axis."""
        value = self.axes.get(SHARED_FEATURES)
        return None if value is None else value == "true"

    def with_key(self) -> Point:
        """Returns the point with its fingerprint."""
        how = dataclasses.asdict(self.how)
        runtime = how.pop("runtime")
        if how.pop("speed") is False:
            how = {"speed": False}  # other settings have no effect
        if runtime != TENSORFLOW:  # keys without it are those of earlier versions
            how["runtime"] = runtime
        facts = [to_text(self.message), how, self.measures_accuracy]
        if self.shares_features is not None:
            facts.append(self.shares_features)
        return dataclasses.replace(self, key=fingerprint([*facts, self.training_key or self.checkpoint]))


@dataclasses.dataclass(frozen=True)
class Proposals:
    """Regions of all images, made by a point that is a first stage alone."""

    key: str  # fingerprint; names their folder
    of: Point  # the point that proposes
    num_train: int  # per training image, at most
    num_eval: int  # per test image, at most


def training_fingerprint(point: Point, train: Any) -> str:
    """Returns the key of a point's training; ``train`` is the ``pb.SweepTraining``."""
    text = to_text(point.training)
    if point.shares_features is None:
        return fingerprint(text)
    return fingerprint([text, "four steps", *map(list, stage_sets(train))])


def stage_sets(train: Any) -> tuple[Sequence[str], Sequence[str]]:
    """Returns the changes of a ``pb.SweepTraining`` for the first and the second stage of a training in four steps."""
    return tuple(train.first_stage_set), tuple(train.second_stage_set)


def fingerprint(facts: Any) -> str:
    """Returns a hash of a JSON value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()[:KEY_LENGTH]


@dataclasses.dataclass(frozen=True)
class Group:
    """Bases that a point can start from, and the axes of its points."""

    label: Mapping[str, Value]  # meta_architecture and extractor if these are axes
    bases: tuple[Base, ...]  # () if no base is of this kind
    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """Number of combinations."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def title(self) -> str:
        """Its name in messages and the start of its points' names."""
        return "_".join(map(str, self.label.values())) if self.label else self.bases[0].name

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Yields the values of its axes, the label first."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield {**self.label, **{axis.name: value for axis, value in zip(self.axes, values)}}

    def bases_for(self, combination: Mapping[str, Value]) -> list[Base]:
        """Returns the bases that a combination can start from: of several, those that have most of its values."""
        found = list(self.bases)
        for name in (RESOLUTION, STRIDE, PROPOSALS):
            exact = [base for base in found if getattr(base.traits, name) == combination.get(name)]
            if len(found) > 1 and exact:
                found = exact
        return found

    def point_name(self, combination: Mapping[str, Value]) -> str:
        """Returns e.g. ``rfcn_resnet101_600_stride16_proposals50``."""
        return "_".join([self.title, *(axis.name_part(combination[axis.name]) for axis in self.axes)])


def groups_of(bases: Sequence[Base], axes: Sequence[Axis]) -> list[Group]:
    """Returns one group per base, or per meta-architecture and extractor if one of these is an axis."""
    by_kind = {axis.kind: axis for axis in axes}
    others = [axis for axis in axes if axis.kind not in (META, EXTRACTOR)]

    def applying(meta_architecture: str) -> tuple[Axis, ...]:
        return tuple(axis for axis in others if axis.applies_to(meta_architecture))

    if META not in by_kind and EXTRACTOR not in by_kind:
        return [Group({}, (base,), applying(base.traits.meta_architecture)) for base in bases]
    present = list(dict.fromkeys((base.traits.meta_architecture, base.traits.extractor) for base in bases))
    metas = by_kind[META].values if META in by_kind else tuple(dict.fromkeys(meta for meta, _ in present))
    extractors = by_kind[EXTRACTOR].values if EXTRACTOR in by_kind else tuple(dict.fromkeys(e for _, e in present))
    both = META in by_kind and EXTRACTOR in by_kind
    return [
        Group(
            {META: meta, EXTRACTOR: extractor},
            tuple(b for b in bases if (b.traits.meta_architecture, b.traits.extractor) == (meta, extractor)),
            applying(str(meta)),
        )
        for meta, extractor in itertools.product(metas, extractors)
        if both or (meta, extractor) in present
    ]


def copied(message: Any) -> Any:
    """Returns a copy of a message."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def apply_axes(base: Base, axes: Sequence[Axis], combination: Mapping[str, Value]) -> tuple[Any, Any, list[str]]:
    """Returns the resolved message, that of the training, and messages of problems."""
    message = training = copied(base.loaded.message)
    if any(axis.only_at_test_time for axis in axes):
        training = copied(message)
    problems: list[str] = []
    for axis in axes:
        value = combination[axis.name]
        problems += axis.apply(message, value)
        if training is not message and not axis.only_at_test_time:
            axis.apply(training, value)
    return message, training, problems


def how_variants(measure: Any) -> list[tuple[str, How]]:
    """Returns every way of measuring with its part of the points' names; a single way has "" there."""
    devices = [measure.Device.Name(value) for value in measure.device] or ["CPU"]
    precisions = [measure.Precision.Name(value).lower() for value in measure.precision] or ["float32"]
    batch_sizes = list(measure.batch_size) or [1]
    names = ("jit_compile", "runs", "warmup", "image_height", "image_width", "speed")
    shared = {name: getattr(measure, name) for name in names}
    found = []
    for device, precision, batch_size in itertools.product(devices, precisions, batch_sizes):
        suffix = f"_{device.lower()}" if len(devices) > 1 else ""
        suffix += f"_{precision}" if len(precisions) > 1 else ""
        suffix += f"_batch{batch_size}" if len(batch_sizes) > 1 else ""
        found.append((suffix, How(device=device, precision=precision, batch_size=batch_size, **shared)))
    return found
