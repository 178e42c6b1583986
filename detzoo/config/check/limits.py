"""Checks of every number of a message against the ``range`` that protos/ gives its field, in one walk.

A range is an interval with its unit or reason, such as ``(0, 1] of the image``. ``3 of [0, 255]`` also fixes the length
of a list that is not empty. A field without a range takes every finite number that is not negative, and its default.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from detzoo.config import pb, values
from detzoo.config.problems import MISSING, Findings

_RANGE = re.compile(
    r"((?P<num_values>\d+) of )?(?P<opening>[\[(])(?P<low>\S+), (?P<high>[^\])]+)(?P<closing>[\])])(?P<reason>.*)"
)
OUT_OF_RANGE = "out-of-range"  # a code
_NUMBERS = (*values.INTEGER_RANGES, *values.FLOATS)


class Limit(NamedTuple):
    """The numbers that a field takes."""

    low: float  # lower end of the interval
    high: float  # upper end of the interval; infinite for every finite number from ``low`` on
    excludes_low: bool = False  # True if ``low`` itself is outside
    excludes_high: bool = False  # True if ``high`` itself is outside
    num_values: int = 0  # length of a list that is not empty; 0 for any length
    reason: str = ""  # unit or reason, "" for none

    def holds(self, number: float) -> bool:
        """Returns True if ``number`` is inside; NaN and infinity never are."""
        is_above = self.low < number if self.excludes_low else self.low <= number
        return is_above and (number < self.high if self.excludes_high else number <= self.high) and number < math.inf

    def nearest(self, number: float) -> float:
        """Returns a number inside: for one above the interval its upper end, else one at its lower end."""
        if number > self.low and not self.excludes_high and self.high < math.inf:
            return self.high
        return min(1.0, self.high) if self.excludes_low else self.low

    def accepted(self) -> str:
        """Returns the interval in words, such as "above 0, at most 1 of the image"."""
        low, high = shown(self.low), shown(self.high)
        if self.low == self.high:
            interval = low
        elif self.high == math.inf:
            interval = f"{low} or more, finite"
        elif self.excludes_low:
            interval = f"above {low}, at most {high}"
        else:
            interval = f"{low} to {'below ' if self.excludes_high else ''}{high}"
        return interval + self.reason


def shown(number: float) -> str:
    """Returns a number as messages show it: an integer with all of its digits."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def check_limits(message: Any, findings: Findings) -> Any:
    """Adds every number outside of its range, every list of a wrong length and every minimum above its maximum.

    Returns:
        A copy of the message whose numbers are all in range, so that further checks can compute with them.
    """
    copy = type(message)()
    copy.CopyFrom(message)
    _check(copy, findings)
    return copy


def limit_of(field: FieldDescriptor) -> Limit:
    """Returns the range of a number's field; raises a ValueError if the schema has one that is not an interval."""
    text = pb.option_of(field, "range")
    if not text:
        return Limit(min(0, field.default_value) if not values.is_repeated(field) else 0, math.inf)
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{field.full_name}: the range '{text}' is not an interval such as (0, 1]")
    low, high = (_bound(match[end], field) for end in ("low", "high"))
    num_values = int(match["num_values"] or 0)
    return Limit(low, high, match["opening"] == "(", match["closing"] == ")", num_values, match["reason"])


def _bound(text: str, field: FieldDescriptor) -> float:
    """Returns an end of an interval, rounded as the field rounds its values."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    number = float(text)
    is_single = field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT
    return struct.unpack("f", struct.pack("f", number))[0] if is_single else number


@functools.cache
def _limits(descriptor: Descriptor) -> list[tuple[FieldDescriptor, Limit]]:
    return [(field, limit_of(field)) for field in descriptor.fields if field.cpp_type in _NUMBERS]


@functools.cache
def _ordered(descriptor: Descriptor) -> list[tuple[str, str]]:
    """Returns the pairs of fields that are a minimum and its maximum."""
    names = [field.name for field, _ in _limits(descriptor) if not values.is_repeated(field)]
    pairs = [(name, re.sub(r"(^|_)min", r"\1max", name)) for name in names]
    return [(low, high) for low, high in pairs if high != low and high in names]


def _check(message: Any, findings: Findings) -> None:
    already = len(findings.problems)
    for field, limit in _limits(message.DESCRIPTOR):
        if values.is_repeated(field):
            _check_list(getattr(message, field.name), findings.at(field.name), limit)
        elif not limit.holds(number := getattr(message, field.name)):
            found = f"is {shown(number)}" if message.HasField(field.name) else "is missing"
            code = OUT_OF_RANGE if message.HasField(field.name) else MISSING
            findings.error(field.name, code, f"{found}; accepted: {limit.accepted()}")
            inside = field.default_value if limit.holds(field.default_value) else limit.nearest(number)
            setattr(message, field.name, type(number)(inside))
    if len(findings.problems) == already:
        _check_order(message, findings)
    for field, value in message.ListFields():
        for block, path in values.blocks_in(field, value, field.name):
            _check(block, findings.at(path))


def _check_order(message: Any, findings: Findings) -> None:
    for low, high in _ordered(message.DESCRIPTOR):
        smallest, largest = getattr(message, low), getattr(message, high)
        if smallest > largest and (largest or message.HasField(high)):
            text = f"is {shown(smallest)}, above {high} ({shown(largest)})"
            findings.error(low, "minimum-above-maximum", text)
            setattr(message, low, largest)


def _check_list(numbers: Any, findings: Findings, limit: Limit) -> None:
    if limit.num_values and len(numbers) not in (0, limit.num_values):
        findings.error("", "list-length", f"has {len(numbers)} values; accepted: none, or {limit.num_values}")
    for index, number in enumerate(numbers):
        if not limit.holds(number):
            findings.error(f"[{index}]", OUT_OF_RANGE, f"is {shown(number)}; accepted: {limit.accepted()}")
            numbers[index] = type(number)(limit.nearest(number))
