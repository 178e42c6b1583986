"""Comments of a config, by the path of their field, so that they outlive changes of its message."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from detzoo.config.load import LoadedPipeline, to_text
from detzoo.config.text import parse_text

_WIDTH = 120
_COMMENT = re.compile(r"""^(?:[^'"#]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")*?#\s*(?P<comment>.*)$""")


def comments_of(loaded: LoadedPipeline) -> dict[str, str]:
    """Returns the comment at the end of a line by the path of the line's first field; other comments are left out."""
    fields = _first_fields(loaded.lines)
    found = ((number, _COMMENT.match(line)) for number, line in enumerate(loaded.text.splitlines(), start=1))
    return {fields[number]: match["comment"] for number, match in found if match and number in fields}


def commented_text(message: Any, comments: Mapping[str, str]) -> str:
    """Returns a config as text with a comment at each field that has one, and a blank line between its blocks.

    Args:
        message: ``pb.TrainEvalPipelineConfig``.
        comments: Comment by field path, e.g. "model.ssd.num_classes"; paths that the message lacks are ignored.
    """
    text = to_text(message)
    fields = _first_fields(parse_text(text, type(message)).lines)
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if lines and line[:1].isalpha():
            lines.append("")
        comment = comments.get(fields.get(number, ""), "")
        if comment and len(line) + len(comment) + len("  # ") > _WIDTH:
            start = f"{line[: len(line) - len(line.lstrip())]}# "
            lines += textwrap.wrap(comment, _WIDTH, initial_indent=start, subsequent_indent=start)
            comment = ""
        lines.append(f"{line}  # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def _first_fields(lines: Mapping[str, int]) -> dict[int, str]:
    """Returns the path of the first field on each line."""
    fields: dict[int, str] = {}
    for path, number in lines.items():
        fields.setdefault(number, path)
    return fields
