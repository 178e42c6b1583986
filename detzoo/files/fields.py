"""Values of annotation files in the forms of many tools -> ids, numbers, truth values and names.

The id 1 also comes as "1" and 1.0, a number as "10,5", a truth value as "no".
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

from detzoo.files.issues import DataIssue, IssueLog

MAX_SIDE_PX = 1_000_000  # a stated size beyond it is no size

_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_WORDS = {
    **dict.fromkeys(("true", "yes", "y", "t", "on"), True),
    **dict.fromkeys(("false", "no", "n", "f", "off", "", "none", "null", "nan", "unspecified"), False),
}


def as_id(value: Any) -> int | str | None:
    """Returns an int for an id such as 1, "1", 1.0 or "1.0", other texts unchanged, and None for no id."""
    name = as_name(value)
    return int(name.partition(".")[0]) if _WHOLE.fullmatch(name) else name or None


def as_name(value: Any) -> str:
    """Returns a text or number as a name on one line; "" for anything else and for text that UTF-8 cannot hold."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or value in (math.inf, -math.inf):
        return ""
    text = _CONTROL.sub(" ", str(value)).strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON's escapes left half of a surrogate pair
        return ""
    return text if value == value else ""


def as_number(value: Any) -> float:
    """Returns a number, also from text and with a decimal comma; infinity for one beyond the range of a float.

    Raises:
        ValueError: The value is no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{shown(value)} is not a number")
    if isinstance(value, str) and value.count(",") == 1 and "." not in value:
        value = value.replace(",", ".")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def as_flag(value: Any, where: str, log: IssueLog) -> bool:
    """Returns a truth value from a number or a word, False for None; logs a value that is neither yes nor no."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        number = as_number(value)
    except ValueError:
        log.add(DataIssue.FLAG_UNKNOWN, where, shown(value))
        return False
    return number == number and number != 0


def as_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Returns (height, width) in pixels; None if a side is no number, or is 0, which some tools write for unknown."""
    try:
        sides = (as_number(height), as_number(width))
    except ValueError:
        return None
    return (int(sides[0]), int(sides[1])) if all(1 <= side <= MAX_SIDE_PX for side in sides) else None


def shown(value: Any) -> str:
    """Returns a value for a message, cut to a few dozen characters however long or deep the value is."""
    return reprlib.repr(value)
