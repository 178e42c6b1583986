"""One scalar of the schema from its text: types, ranges and enum names, with messages that name the accepted values.

The reader of files (``text.py``) and ``--set`` (``override.py``) share it, so that both accept the same values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_encoding
from google.protobuf.descriptor import FieldDescriptor

from detzoo.config.names import clip, nearest, suggestion

TRUE_WORDS = ("true", "True", "t", "1")
FALSE_WORDS = ("false", "False", "f", "0")
INTEGER_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
PATTERN_ERRORS = (re.error, RecursionError, OverflowError)  # of invalid regular expressions

_ESCAPE = re.compile(r"\\(.)")
_KNOWN_ESCAPES = "abfnrtvxXuU01234567?'\"\\"
_CONTROL_ESCAPES = "abfnrtv"
_FILE_NAME = re.compile(r"\.(record|tfrecord|pbtxt|config|index|ckpt|h5|keras)\b|[\w.]-?\?\?")
FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def is_message(field: FieldDescriptor) -> bool:
    """Returns True if the field holds a message (a block in braces) rather than a scalar."""
    return field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE


def is_repeated(field: FieldDescriptor) -> bool:
    """Returns True if the field may occur several times, without the deprecation warning of newer protobuf runtimes."""
    repeated = getattr(field, "is_repeated", None)
    return bool(repeated) if repeated is not None else field.label == FieldDescriptor.LABEL_REPEATED


def is_map(field: FieldDescriptor) -> bool:
    """Returns True if the field is a map, written as repeated blocks of key and value."""
    return is_message(field) and field.message_type.GetOptions().map_entry


def blocks_in(field: FieldDescriptor, value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yields the messages that a field at ``path`` holds, with their paths; without entries of maps."""
    if not is_message(field) or is_map(field):
        return
    if is_repeated(field):
        yield from ((item, f"{path}[{index}]") for index, item in enumerate(value))
    else:
        yield value, path


def set_scalars(message: Any, path: str) -> dict[str, bool | int | float | str]:
    """Returns the set fields of the message at ``path`` and of the blocks in it, by their paths as ``--set`` has them.

    Enums have their names. A block without a set field is True. Lists of scalars are one text.
    """
    found: dict[str, bool | int | float | str] = {}
    for field, value in message.ListFields():
        here = f"{path}.{field.name}"
        if not is_message(field):
            items = [_plain(field, item) for item in (value if is_repeated(field) else [value])]
            found[here] = f"[{', '.join(map(str, items))}]" if is_repeated(field) else items[0]
        for block, its_path in blocks_in(field, value, here):
            found |= set_scalars(block, its_path) or {its_path: True}
    return found


def _plain(field: FieldDescriptor, value: Any) -> bool | int | float | str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return float(f"{value:.7g}") if isinstance(value, float) else value  # 0.1 rather than the digits of its float32


def accepted(field: FieldDescriptor) -> str:
    """Returns the accepted values in words: ``an integer``, ``true or false``, ``one of A, B``, ``a block {...}``."""
    kind = field.cpp_type
    if is_message(field):
        return f"a block of type {field.message_type.name}"
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return "one of " + ", ".join(field.enum_type.values_by_name)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return "a string in quotes"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    if kind in FLOATS:
        return "a number"
    return "an integer of at least 0" if INTEGER_RANGES[kind][0] == 0 else "an integer"


def parse_scalar(field: FieldDescriptor, text: str) -> Any:
    """Returns the value of ``text`` (one token, strings in their quotes, numbers with their sign) for the field.

    Raises:
        ValueError: The text is no value of the field; the message has the text and the accepted values.
    """
    kind = field.cpp_type
    quoted = text[:1] in ("'", '"')
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if not quoted:
            raise ValueError(f'expected a string in quotes, found {clip(text)}; write "{clip(text)}"')
        return no_nul(unquote(text))
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _parse_enum(field, text)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if text in TRUE_WORDS or text in FALSE_WORDS:
            return text in TRUE_WORDS
    elif kind in FLOATS:
        number = _parse_float(text)
        if number is not None:
            return number
    else:
        integer = _parse_integer(text)
        if integer is not None:
            lowest, highest = INTEGER_RANGES[kind]
            if not lowest <= integer <= highest:
                raise ValueError(f"{clip(text)} is out of range; accepted: {lowest} to {highest}")
            return integer
    raise ValueError(f"expected {accepted(field)}, found {clip(text)}{' (a string)' if quoted else ''}")


def no_nul(text: str) -> str:
    """Returns a string as it is, or raises a ValueError for a NUL, which no path and no name may have."""
    if "\0" in text:
        raise ValueError(f"{clip(text)!r} has a NUL character, which no path and no name may have")
    return text


def unquote(text: str) -> str:
    """Returns the characters of a quoted string, its escapes resolved as protobuf does.

    A path of Windows with single backslashes is refused, because its folders would be read as escapes: ``\\new`` as a
    line break and "ew".

    Raises:
        ValueError: The string is not valid; the message has the spelling to use.
    """
    inner = text[1:-1]
    if not _has_bare_backslashes(inner):
        try:
            return text_encoding.CUnescape(inner).decode("utf-8")
        except (ValueError, UnicodeDecodeError) as problem:
            if "\\" not in inner:
                raise ValueError(f"{clip(text)} is not a valid string: {problem}") from problem
    share = "/" if inner.startswith("\\\\") else ""  # \\server\share
    forward = share + inner.replace("\\\\", "/").replace("\\", "/")
    raise ValueError(
        f'{clip(text)}: a single backslash begins an escape, such as \\n; in a path write "{clip(forward)}", elsewhere '
        "double it"
    )


def _has_bare_backslashes(inner: str) -> bool:
    """Returns True if backslashes are not meant as escapes: in a path of Windows, or before other letters."""
    escapes = _ESCAPE.findall(inner)
    if any(escape not in _KNOWN_ESCAPES for escape in escapes) or re.match(r"[A-Za-z]:\\[^\\]", inner):
        return True
    return any(escape in _CONTROL_ESCAPES for escape in escapes) and bool(_FILE_NAME.search(inner))


def _parse_enum(field: FieldDescriptor, text: str) -> int:
    enum = field.enum_type
    name = text.strip("'\"")
    integer = _parse_integer(text)
    if integer is not None and integer in enum.values_by_number:
        return integer
    if text == name and name in enum.values_by_name:
        return enum.values_by_name[name].number
    if name in enum.values_by_name:
        raise ValueError(f"{clip(text)} is written without quotes: {name}")
    hint = suggestion(name, enum.values_by_name)
    names = f" (accepted: {accepted(field)})" if nearest(name, enum.values_by_name) else ""
    raise ValueError(f"{clip(text)} is not a value of {enum.name}{hint}{names}")


def _parse_integer(text: str) -> int | None:
    digits = text.removeprefix("-")
    try:
        if digits.startswith(("0x", "0X")):
            value = int(digits, 16)
        elif len(digits) > 1 and digits.startswith("0") and digits.isdigit():
            value = int(digits, 8)
        elif digits.isascii() and digits.isdigit():
            value = int(digits)
        else:
            return None
    except ValueError:
        return None
    return -value if text.startswith("-") else value


def _parse_float(text: str) -> float | None:
    body = text.removeprefix("-")
    if body.lower() in ("inf", "infinity", "inff", "infinityf"):
        value = math.inf
    elif body.lower() in ("nan", "nanf"):
        value = math.nan
    elif "_" in body or not body[:1].isascii() or body[:1] not in "0123456789.":
        return None
    else:
        try:
            value = float(body.rstrip("fF")) if not body.startswith(("0x", "0X")) else float(int(body, 16))
        except OverflowError:
            value = math.inf
        except ValueError:
            return None
    return -value if text.startswith("-") else value
