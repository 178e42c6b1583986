"""Comments of a config, by the path of their field, so that they outlive changes of its message."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import text_format

from detzoo.config import values
from detzoo.config.load import LoadedPipeline
from detzoo.config.text import join

_WIDTH, _WIDTH_OF_BLOCK = 120, 90
_COMMENT = re.compile(r"""^(?:[^'"#]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")*?#\s*(?P<comment>.*)$""")


def comments_of(loaded: LoadedPipeline) -> dict[str, str]:
    """Returns the comment at the end of a line by the path of the line's first field; other comments are left out."""
    fields = _first_fields(loaded.lines)
    found = ((number, _COMMENT.match(line)) for number, line in enumerate(loaded.text.splitlines(), start=1))
    return {fields[number]: match["comment"] for number, match in found if match and number in fields}


def commented_text(message: Any, comments: Mapping[str, str]) -> str:
    """Returns a config as text with a comment at each field that has one, short blocks on one line each.

    Args:
        message: ``pb.TrainEvalPipelineConfig``.
        comments: Comment by field path, e.g. "model.ssd.num_classes"; paths that the message lacks are ignored.
    """
    blocks = ["\n".join(_lines(single, comments, "", "")) for single in _fields_of(message)]
    return "\n\n".join(blocks) + "\n"


def _fields_of(message: Any) -> Iterator[Any]:
    """Yields copies of a message with one of its fields each, in the order of their numbers."""
    for field, value in message.ListFields():
        single = type(message)()
        if values.is_repeated(field):
            getattr(single, field.name).MergeFrom(value)
        elif values.is_message(field):
            getattr(single, field.name).CopyFrom(value)
        else:
            setattr(single, field.name, value)
        yield single


def _lines(single: Any, comments: Mapping[str, str], path: str, indent: str) -> Iterator[str]:
    """Yields the lines of a message with one field."""
    [(field, value)] = single.ListFields()
    here = join(path, field.name)
    if not values.is_message(field) or values.is_map(field):
        yield from _commented(indent + _one_line(single), comments.get(here, ""), indent)
        return
    for index, (block, place) in enumerate(values.blocks_in(field, value, here)):
        text = f"{indent}{field.name} {{ {_one_line(block)} }}".replace("{  }", "{}")
        comment = comments.get(place, "") or (comments.get(here, "") if index == 0 else "")
        inside = any(known.startswith(f"{place}.") for known in comments)
        if len(text) <= _WIDTH_OF_BLOCK and not inside and indent:
            yield from _commented(text, comment, indent)
            continue
        yield from _commented(f"{indent}{field.name} {{", comment, indent)
        for inner in _fields_of(block):
            yield from _lines(inner, comments, place, indent + "  ")
        yield f"{indent}}}"


def _one_line(message: Any) -> str:
    text = text_format.MessageToString(message, as_one_line=True, as_utf8=True, use_short_repeated_primitives=True)
    return text.strip().replace("{ }", "{}")


def _commented(line: str, comment: str, indent: str) -> list[str]:
    """Returns a line with its comment at the end, or on lines before if it does not fit."""
    if len(line) + len(comment) + len("  # ") > _WIDTH:
        return [*textwrap.wrap(comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "), line]
    return [f"{line}  # {comment}" if comment else line]


def _first_fields(lines: Mapping[str, int]) -> dict[int, str]:
    """Returns the path of the first field on each line."""
    fields: dict[int, str] = {}
    for path, number in lines.items():
        fields.setdefault(number, path)
    return fields
