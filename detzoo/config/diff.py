"""The fields in which two configs differ, by path."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from detzoo.config import values
from detzoo.config.text import join

ABSENT = "(absent)"


class Difference(NamedTuple):
    """One field with its text in the first and in the second config; ``(absent)`` for a block that is not there."""

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
        if values.is_message(field) and not values.is_map(field):
            if values.is_repeated(field):
                for index, (left, right) in enumerate(itertools.zip_longest(one, two)):
                    found += _diff_blocks(left, right, f"{here}[{index}]")
            else:
                left = one if first.HasField(field.name) else None
                right = two if second.HasField(field.name) else None
                found += _diff_blocks(left, right, here)
        else:
            left, right = (_text(field, side) for side in (one, two))
            if left != right:
                found.append(Difference(here, left, right))
    return found


def _diff_blocks(first: Any | None, second: Any | None, path: str) -> list[Difference]:
    if first is not None and second is not None:
        return _diff(first, second, path)
    return [] if first is second else [Difference(path, _brief(first), _brief(second))]


def _brief(block: Any | None) -> str:
    if block is None:
        return ABSENT
    return f"{{ {text_format.MessageToString(block, as_one_line=True, as_utf8=True)} }}"


def _text(field: FieldDescriptor, value: Any) -> str:
    if values.is_map(field):
        return str(dict(value))
    if values.is_repeated(field):
        return f"[{', '.join(_scalar(field, item) for item in value)}]"
    return _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, float):
        return f"{value:.7g}"
    return repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
