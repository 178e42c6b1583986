"""The fields in which two configs differ, by path."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import text_format

from detzoo.config import values
from detzoo.config.text import join

ABSENT = "(absent)"


class Difference(NamedTuple):
    """One field: what the first and what the second config has, as text; ``(absent)`` for a block that is not there."""

    path: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.path}: {self.first} -> {self.second}"


def diff_configs(first: Any, second: Any) -> list[Difference]:
    """Compares two messages of one type by meaning: an unset scalar equals its default written out.

    Blocks are compared field by field; a block that only one side has is one difference with its text on one line.
    """
    return _diff(first, second, "")


def _diff(first: Any, second: Any, path: str) -> list[Difference]:
    found: list[Difference] = []
    for field in first.DESCRIPTOR.fields:
        here = join(path, field.name)
        one, two = getattr(first, field.name), getattr(second, field.name)
        if values.is_map(field):
            if dict(one) != dict(two):
                found.append(Difference(here, _brief(dict(one)), _brief(dict(two))))
        elif values.is_repeated(field):
            found += _diff_items(field, list(one), list(two), here)
        elif values.is_message(field):
            has_one, has_two = first.HasField(field.name), second.HasField(field.name)
            if has_one and has_two:
                found += _diff(one, two, here)
            elif has_one != has_two:
                found.append(Difference(here, _brief(one) if has_one else ABSENT, _brief(two) if has_two else ABSENT))
        elif one != two:
            found.append(Difference(here, _scalar(field, one), _scalar(field, two)))
    return found


def _diff_items(field: Any, first: list[Any], second: list[Any], path: str) -> list[Difference]:
    if not values.is_message(field):
        if first == second:
            return []
        return [
            Difference(path, *(f"[{', '.join(_scalar(field, item) for item in side)}]" for side in (first, second)))
        ]
    found: list[Difference] = []
    for index in range(max(len(first), len(second))):
        here = f"{path}[{index}]"
        if index < len(first) and index < len(second):
            found += _diff(first[index], second[index], here)
        elif index < len(first):
            found.append(Difference(here, _brief(first[index]), ABSENT))
        else:
            found.append(Difference(here, ABSENT, _brief(second[index])))
    return found


def _brief(value: Any) -> str:
    if hasattr(value, "DESCRIPTOR"):
        return f"{{ {text_format.MessageToString(value, as_one_line=True, as_utf8=True)} }}"
    return str(value)


def _scalar(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, float):
        return f"{value:.7g}"
    return repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
