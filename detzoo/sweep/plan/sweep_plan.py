"""Sweep file -> plan: every point resolved, checked and named, or every problem at once (no TensorFlow).

read      the file, its bases, axes and exclusions
count     the grid, before it is expanded
expand    combinations, the excluded ones with their reason
check     each distinct config as `detzoo config check` does
locate    checkpoints and data sets
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.config import pb
from detzoo.config.check.limits import check_limits
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.library import find_config, find_sweep
from detzoo.config.load import LoadedPipeline, read_pipeline, read_text
from detzoo.config.names import listed, suggestion
from detzoo.config.override import apply_override
from detzoo.config.problems import Findings, Problem, Severity, error
from detzoo.config.text import parse_text
from detzoo.errors import ConfigError, UsageError
from detzoo.sweep.plan.axes import EXTRACTOR, META, NAMED, RUNTIME, SHARED_FEATURES, Axis, change_config, same_field
from detzoo.sweep.plan.excluded import OUTPUT_DIR, Exclusion, placeholders_of, read_exclusions
from detzoo.sweep.plan.files import apply_data, data_patterns, locate
from detzoo.sweep.plan.points import Base, Group, How, Point, apply_axes, copied, groups_of, how_variants
from detzoo.sweep.plan.published import read_published, values_by_point
from detzoo.sweep.plan.trainings import (
    check_four_steps,
    name_proposals,
    read_proposals_of,
    reads_proposals,
    start_trainings,
)
from detzoo.sweep.plan.traits import META_ARCHITECTURES, SWEPT_MODELS, traits_of

MOST_POINTS = 10_000
_MANY = 500  # combinations: checking their configs takes more than a second or two

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """A sweep as it will run."""

    message: Any  # the pb.Sweep with overrides
    points: list[Point]  # in the order of the file, each with its key
    exclusions: list[Exclusion]  # with the combinations that each excludes
    published: Mapping[str, Mapping[str, float]]  # name of a point -> column -> value, accuracies as shares of 1


def load_plan(path: str, overrides: Sequence[str] = (), small: bool = False) -> SweepPlan:
    """Reads and checks a sweep.

    Args:
        path: Path of the sweep file, or name of one that comes with detzoo.
        overrides: ``path=value`` changes of the sweep file itself, e.g. ``measure.runs=500``.
        small: True for its small version, which overrides then change.

    Raises:
        UsageError: The file cannot be read at all.
        ConfigError: Lists every problem, one per line.
    """
    planner = _Planner(path, overrides, small)
    plan = planner.plan()
    if planner.problems:
        raise ConfigError("\n".join(dict.fromkeys(planner.problems)))
    return plan


_TAKEN_NAMES = (*NAMED, SHARED_FEATURES, RUNTIME, "base", "name", OUTPUT_DIR)


class _Planner:
    """The steps from text to points; each step adds its problems and continues with the rest."""

    def __init__(self, path: str, overrides: Sequence[str], small: bool) -> None:
        self.path, self._is_small = str(find_sweep(path)), small
        parsed = parse_text(read_text(self.path, "sweep file"), pb.Sweep)
        self.sweep, self._lines = parsed.message, parsed.lines
        self.problems = [problem.format(self.path) for problem in parsed.problems]
        self._is_readable = parsed.braces_match
        self._inherits_exclusions = False  # True for a small version that has axes, but no exclusions
        if small and self._is_readable:
            self._choose_small()
        for assignment in overrides:
            self._add(apply_override(self.sweep, assignment, self._lines))
        findings = Findings(lambda place: 0)
        self.sweep = check_limits(self.sweep, findings)
        for problem in findings.problems:
            self._error(problem.path, problem.message)

    def _choose_small(self) -> None:
        """Puts each field of the block ``small``, whose fields are some of the sweep's, in place of the sweep's own."""
        if not self.sweep.HasField("small"):
            self._error("", "--small: the file has no `small { }` block, which says what to run instead")
            self._is_readable = False
            return
        small = copied(self.sweep.small)
        names = ["small", *(field.name for field, _ in small.ListFields())]
        self._inherits_exclusions = bool(small.axis) and not small.exclude
        for name in names:
            self.sweep.ClearField(name)
        self.sweep.MergeFromString(small.SerializeToString())
        moved = {path[len("small.") :]: line for path, line in self._lines.items() if path.startswith("small.")}
        kept = {path: line for path, line in self._lines.items() if path.split(".")[0].split("[")[0] not in names}
        self._lines = kept | moved

    def _add(self, problems: Sequence[Problem], file: str = "") -> None:
        self.problems += [problem.format(file or self.path) for problem in problems]

    def _error(self, place: str, message: str) -> None:
        line, here = 0, place
        while here and not line:
            line = self._lines.get(here, 0)
            here = here.rpartition(".")[0]
        self._add([error(place, line, message)])

    def plan(self) -> SweepPlan:
        """Does all steps; problems that only follow from reported ones are not reported."""
        empty = SweepPlan(self.sweep, [], [], {})
        if not self._is_readable:
            return empty
        bases = self._read_bases()
        axes = self._read_axes()
        exclusions = self._read_exclusions(axes)
        for index, image in enumerate(self.sweep.accuracy.example_image):
            if not os.path.isfile(image):
                self._error(f"accuracy.example_image[{index}]", f"there is no file {image}")
        self._check_patterns(axes)
        if not bases or not all(axis.is_complete for axis in axes):
            return empty
        groups = groups_of(bases, axes)
        self._check_kinds(axes, bases)
        self._check_same_fields(axes, groups)
        self._check_values(axes, groups)
        check_four_steps(axes, bases, self.sweep, self._error)
        variants = how_variants(self.sweep.measure)
        if not self._is_small_enough(groups, len(variants)) or self.problems:
            return empty
        count = sum(group.size for group in groups)
        if count > _MANY:
            logger.info("checking %d combinations", count)
        points = self._expand(groups, exclusions, variants)
        for exclusion in exclusions:
            if not exclusion.matched and not self._inherits_exclusions:
                self._error(exclusion.place, "leaves nothing out: no combination meets its conditions")
        self._check_points(points)
        points = locate(points, self.sweep, self._error)
        points = start_trainings(points, self.sweep.train, self._error)
        points = read_proposals_of(points, self.sweep.train, self._error)
        self._check_located(points)
        if not points and not self.problems:
            self._error("exclude", "every combination is left out: there is no point")
        published: Mapping[str, Mapping[str, float]] = {}
        if self.sweep.HasField("published"):
            rows = read_published(self.sweep.published, axes, bases, self._error)
            if not self.problems:
                published = values_by_point(rows, points, not self._is_small, self._error)
        return SweepPlan(self.sweep, points, exclusions, published)

    def _read_exclusions(self, axes: Sequence[Axis]) -> list[Exclusion]:
        """Returns the exclusions, for the axes of a small version without those that do not fit them."""
        if not self._inherits_exclusions:
            return read_exclusions(self.sweep, axes, self._error)
        foreign: set[str] = set()
        found = read_exclusions(self.sweep, axes, lambda place, message: foreign.add(place.split(".")[0]))
        return [exclusion for exclusion in found if exclusion.place not in foreign]

    def _read_bases(self) -> list[Base]:
        bases: list[Base] = []
        if not self.sweep.base:
            self._error("base", "is missing; accepted: one `base { config: 'FILE' }` or more")
        for index, block in enumerate(self.sweep.base):
            base = self._read_base(block, f"base[{index}]")
            bases += [base] if base else []
        for index, base in enumerate(bases):
            if base.name in [other.name for other in bases[:index]]:
                self._error(base.place, f"two bases are called '{base.name}'; give one a name")
        return bases

    def _read_base(self, block: Any, place: str) -> Base | None:
        if not block.config:
            self._error(place, "has no config; give a pipeline.config, relative to this file's folder, or a name")
            return None
        try:
            file = find_config(block.config, pathlib.Path(self.path).parent)
            loaded, problems = read_pipeline(str(file))
        except UsageError as unreadable:
            self._error(f"{place}.config", str(unreadable))
            return None
        self._add(problems, str(file))
        kind = loaded.message.model.WhichOneof("model")
        if kind and kind not in SWEPT_MODELS:
            accepted = f"accepted: {', '.join(SWEPT_MODELS)}"
            self._error(f"{place}.config", f"{file.name} has model.{kind}, which sweeps do not measure; {accepted}")
            return None
        sets = [(f"{place}.set[{i}]", assignment) for i, assignment in enumerate(block.set)]
        sets += [(f"set[{i}]", assignment) for i, assignment in enumerate(self.sweep.set)]
        for where, assignment in sets:
            for problem in change_config(loaded.message, assignment, loaded.lines):
                self._error(where, f"{problem.message.removeprefix('--set ')} ({file.name})")
        apply_data(loaded.message, self.sweep.data)
        if self.sweep.train.proposals_from and reads_proposals(loaded.message):
            name_proposals(loaded.message, "later")  # known once all points are known
        return Base(block.name or file.stem, place, loaded, traits_of(loaded.message.model))

    def _read_axes(self) -> list[Axis]:
        axes = [Axis(message, f"axis[{index}]") for index, message in enumerate(self.sweep.axis)]
        for axis in axes:
            if not axis.kind:
                kinds = ", ".join((*NAMED, SHARED_FEATURES, RUNTIME, "path { }", "choice { }"))
                self._error(axis.place, f"names nothing that varies; accepted: {kinds}")
                continue
            if axis.kind == "path" and not axis.path:
                self._error(f"{axis.place}.path", "has no path; give a field such as model.ssd.num_classes")
            elif not axis.name:
                self._error(f"{axis.place}.choice", "has no name; patterns and results need one")
            elif axis.kind in ("path", "choice") and axis.name in _TAKEN_NAMES:
                self._error(axis.place, f"is called '{axis.name}', which means something else; give it another name")
            if not axis.values:
                self._error(f"{axis.place}.{axis.kind}", "has no values")
            for index, value in enumerate(axis.values):
                if value in axis.values[:index]:
                    self._error(axis.place_of(index), f"'{value}' is there twice; keep one")
            for meta in axis.only_for:
                if meta not in META_ARCHITECTURES:
                    hint = suggestion(meta, META_ARCHITECTURES)
                    self._error(f"{axis.place}.only_for", f"there is no meta-architecture '{meta}'{hint}")
        return axes

    def _check_patterns(self, axes: Sequence[Axis]) -> None:
        names = {*NAMED, "base", "name", *(axis.name for axis in axes if axis.name)}
        for place, pattern in data_patterns(self.sweep):
            known = sorted(names | {OUTPUT_DIR} if place.startswith("data.") else names)
            for name in placeholders_of(pattern):
                if name not in known:
                    self._error(place, f"'{{{name}}}' is no value of a point{suggestion(name, known)}")
            if place.startswith("data.") and "{name}" in pattern:
                self._error(place, "'{name}' is known after the data; use the axes' names")

    def _check_kinds(self, axes: Sequence[Axis], bases: Sequence[Base]) -> None:
        """Reports values of meta_architecture and extractor that no base has."""
        for axis in axes:
            if axis.kind in (META, EXTRACTOR):
                present = {getattr(base.traits, axis.kind) for base in bases}
                for index, value in enumerate(axis.values):
                    if value not in present:
                        hint = suggestion(str(value), present)
                        self._error(axis.place_of(index), f"no base has the {axis.kind} '{value}'{hint}")

    def _check_same_fields(self, axes: Sequence[Axis], groups: Sequence[Group]) -> None:
        for index, axis in enumerate(axes):
            for other in axes[:index]:
                field = same_field(other, axis)
                if field:
                    self._error(axis.place, f"sets {field}, as {other.place} ({other.name}) does; keep one of them")
                elif other.name == axis.name and any(axis in g.axes and other in g.axes for g in groups):
                    self._error(axis.place, f"two axes are called '{axis.name}'; give one another name")
            if axis.kind not in (META, EXTRACTOR) and not any(axis in group.axes for group in groups):
                self._error(axis.place, f"the axis '{axis.name}' applies to no base; see only_for")

    def _check_values(self, axes: Sequence[Axis], groups: Sequence[Group]) -> None:
        """Tries each value of each axis alone on each base that it applies to."""
        for axis in axes:
            bases = {base.place: base for group in groups if axis in group.axes for base in group.bases}
            for index, value in enumerate(axis.values):
                failing: dict[str, list[str]] = {}
                for base in bases.values():
                    for message in apply_axes(base, [axis], {axis.name: value})[2]:
                        failing.setdefault(message.removeprefix("--set "), []).append(base.name)
                for message, names in failing.items():
                    everywhere = len(names) == len(bases)
                    self._error(axis.place_of(index), message + ("" if everywhere else f" (of {listed(names)})"))

    def _is_small_enough(self, groups: Sequence[Group], num_variants: int) -> bool:
        count = sum(group.size for group in groups) * num_variants
        if count > MOST_POINTS:
            num_groups = collections.Counter(group.axes for group in groups)
            parts = " + ".join(
                f"{number} x {' x '.join(str(len(axis.values)) for axis in same) or '1'}"
                for same, number in num_groups.items()
            )
            times = f", {num_variants} ways of measuring each" if num_variants > 1 else ""
            self._error("axis", f"the grid has {count} points ({parts}{times}); accepted: {MOST_POINTS} at most")
        return count <= MOST_POINTS

    def _expand(
        self, groups: Sequence[Group], exclusions: Sequence[Exclusion], variants: Sequence[tuple[str, How]]
    ) -> list[Point]:
        points: dict[str, Point] = {}
        for group in groups:
            for combination in group.combinations():
                for point in self._points_of(group, combination, exclusions, variants):
                    if point.name in points:
                        self._error("axis", f"two points are called {point.name}; give a base or a choice another name")
                    points[point.name] = point
        return list(points.values())

    def _points_of(
        self,
        group: Group,
        combination: dict[str, Any],
        exclusions: Sequence[Exclusion],
        variants: Sequence[tuple[str, How]],
    ) -> list[Point]:
        kinds = combination
        if not group.label:
            traits = group.bases[0].traits
            kinds = {META: traits.meta_architecture, EXTRACTOR: traits.extractor, **combination}
        name = group.point_name(combination)
        excluded = next((exclusion for exclusion in exclusions if exclusion.matches(kinds)), None)
        if excluded:
            excluded.matched.append(name)
            return []
        bases = group.bases_for(combination)
        if len(bases) > 1:
            several = f"several bases ({listed([base.name for base in bases])}) for {group.title}"
            self._error("base", f"{several}: keep one, or add an axis in which they differ")
            return []
        if not bases:
            self._error("base", f"no base for {group.title.replace('_', ' ')}: add one, or exclude it")
            return []
        message, training, problems = apply_axes(bases[0], group.axes, combination)
        for problem in problems:
            self._error("axis", f"{name}: {problem}")
        traits = traits_of(message.model)
        side = traits.resolution or 0
        points = []
        for suffix, how in variants:
            height, width = how.image_height or side, how.image_width or side
            runtime = str(combination.get(RUNTIME, how.runtime))
            how = dataclasses.replace(how, image_height=height, image_width=width, runtime=runtime)
            points.append(Point(name + suffix, combination, bases[0], message, traits, how, training))
        return points

    def _check_located(self, points: Sequence[Point]) -> None:
        """Reports points that are equal, and points of which nothing is measured."""
        seen: dict[str, str] = {}
        for point in points:
            if point.key in seen:
                self._error("base", f"{seen[point.key]} and {point.name} are the same config; leave one out")
            seen.setdefault(point.key, point.name)
        for point in points:
            if not (point.how.speed or point.measures_accuracy):
                why = point.checkpoint_note or "accuracy.measure is false"
                self._error("measure.speed", f"is false, and {point.name} has no accuracy: {why}")

    def _check_points(self, points: Sequence[Point]) -> None:
        """Does the checks of `detzoo config check`, with one message for all points that share a problem."""
        found: dict[tuple[str, str], list[str]] = {}
        checked: dict[int, list[str]] = {}
        for point in points:
            if not point.how.image_height:
                found.setdefault((self.path, "give measure.image_height and image_width: the config has no size"), [])
            if id(point.message) not in checked:
                base = point.base.loaded
                loaded = LoadedPipeline(point.message, base.path, "", base.lines)
                checked[id(point.message)] = [
                    f"{problem.path}: {problem.message}"
                    for problem in check_pipeline(loaded, files=False)
                    if problem.severity is Severity.ERROR
                ]
            for text in checked[id(point.message)]:
                found.setdefault((point.base.loaded.path, text), []).append(point.name)
        self.problems += [
            f"{file}: error: {text}" + (f" (points: {listed(names)})" if names else "")
            for (file, text), names in found.items()
        ]
