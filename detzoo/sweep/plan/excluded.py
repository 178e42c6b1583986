"""Exclusions of combinations, and patterns with a point's values in braces."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from detzoo.config.names import suggestion
from detzoo.sweep.plan.axes import EXTRACTOR, META, NAMED, Axis, Value

OUTPUT_DIR = "output_dir"  # stays in braces until the folder is known, because keys must not depend on it
_PLACEHOLDER = re.compile(r"\{(\w*)\}")

Report: TypeAlias = Callable[[str, str], None]  # takes (place in the sweep file, message) of a problem


@dataclasses.dataclass
class Exclusion:
    """One ``exclude`` block."""

    place: str  # its path in the file
    reason: str
    conditions: dict[str, frozenset[str]]  # name of an axis -> values as text; all must hold
    matched: list[str] = dataclasses.field(default_factory=list)  # names of the excluded combinations

    def matches(self, combination: Mapping[str, Value]) -> bool:
        """Returns True for a combination that meets every condition."""
        return bool(self.conditions) and all(
            str(combination.get(name, "")) in accepted for name, accepted in self.conditions.items()
        )


def read_exclusions(sweep: Any, axes: Iterable[Axis], report: Report) -> list[Exclusion]:
    """Reads the exclusions of a ``pb.Sweep``."""
    known: dict[str, list[Axis]] = {}  # several axes of one name apply to different meta-architectures
    for axis in axes:
        for name in {axis.name, axis.path} - {""}:
            known.setdefault(name, []).append(axis)
    found = []
    for index, block in enumerate(sweep.exclude):
        place = f"exclude[{index}]"
        asked = [(f"{place}.{name}", name, getattr(block, name)) for name in NAMED if getattr(block, name)]
        asked += [(f"{place}.where[{i}]", where.axis, where.values) for i, where in enumerate(block.where)]
        conditions: dict[str, frozenset[str]] = {}
        for here, name, values in asked:
            named = known.get(name, [])
            if not named and name not in (META, EXTRACTOR):  # these two are known of every base
                report(here, f"there is no axis '{name}'{suggestion(name, known)}")
                continue
            accepted = [str(value) for axis in named for value in axis.values]
            for value in map(str, values):
                if named and value not in accepted:
                    report(here, f"'{value}' is no value of the axis '{name}'{suggestion(value, accepted)}")
            conditions[named[0].name if named else name] = frozenset(map(str, values))
        if not block.reason:
            report(place, "has no reason; say in `reason` why these are left out")
        if not asked:
            report(place, f"has no condition; accepted: {', '.join(NAMED)}, where")
        found.append(Exclusion(place, block.reason, conditions))
    return found


def placeholders_of(pattern: str) -> list[str]:
    """Returns the names in braces of a pattern."""
    return _PLACEHOLDER.findall(pattern)


def fill(pattern: str, values: Mapping[str, Any]) -> str:
    """Replaces the names in braces of a pattern; a name without a value stays as it is."""
    return _PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), pattern)
