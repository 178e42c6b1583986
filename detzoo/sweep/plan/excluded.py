"""Which combinations a sweep leaves out, and patterns with a point's values in braces."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from detzoo.config.names import suggestion
from detzoo.sweep.plan.axes import EXTRACTOR, META, NAMED, Axis, Value

OUTPUT_DIR = "output_dir"  # stays in braces until the folder is known: keys must not depend on it
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@dataclasses.dataclass
class Exclusion:
    """One ``exclude`` block.

    Attributes:
        place: its path in the file.
        reason: why.
        conditions: name of an axis -> values as text; all must hold.
        matched: names of the combinations that it left out.
    """

    place: str
    reason: str
    conditions: dict[str, frozenset[str]]
    matched: list[str] = dataclasses.field(default_factory=list)

    def matches(self, combination: Mapping[str, Value]) -> bool:
        """Whether a combination meets every condition; one on an axis that it has not is not met."""
        return bool(self.conditions) and all(
            str(combination.get(name, "")) in accepted for name, accepted in self.conditions.items()
        )


def read_exclusions(sweep: Any, axes: Iterable[Axis]) -> tuple[list[Exclusion], list[tuple[str, str]]]:
    """The exclusions of a ``pb.Sweep``, and what is wrong with them as (place, message)."""
    known: dict[str, list[Axis]] = {}  # several axes of one name are for different meta-architectures
    for axis in axes:
        for name in {axis.name, axis.path} - {""}:
            known.setdefault(name, []).append(axis)
    found, problems = [], []
    for index, block in enumerate(sweep.exclude):
        place = f"exclude[{index}]"
        asked = [(f"{place}.{name}", name, list(getattr(block, name))) for name in NAMED if getattr(block, name)]
        asked += [(f"{place}.where[{i}]", where.axis, list(where.values)) for i, where in enumerate(block.where)]
        conditions: dict[str, frozenset[str]] = {}
        for here, name, values in asked:
            named = known.get(name, [])
            if not named and name in (META, EXTRACTOR):
                conditions[name] = frozenset(map(str, values))  # of bases, without such an axis
                continue
            if not named:
                problems.append((here, f"there is no axis '{name}'{suggestion(name, known)}"))
                continue
            accepted = [str(value) for axis in named for value in axis.values]
            for value in values:
                if str(value) not in accepted:
                    problems.append(
                        (here, f"'{value}' is no value of the axis '{name}'{suggestion(str(value), accepted)}")
                    )
            conditions[named[0].name] = frozenset(map(str, values))
        if not block.reason:
            problems.append((place, "has no reason; say in `reason` why these are left out"))
        if not asked:
            problems.append((place, f"has no condition; accepted: {', '.join(NAMED)}, where"))
        found.append(Exclusion(place, block.reason, conditions))
    return found, problems


def placeholders_of(pattern: str) -> list[str]:
    """The names in braces of a pattern."""
    return _PLACEHOLDER.findall(pattern)


def fill(pattern: str, values: Mapping[str, Any]) -> str:
    """A pattern with its names replaced; a name without a value, and output_dir, stay as they are."""
    return _PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), pattern)
