"""Text from data, made safe for a page: every name, path and message goes through here."""

from __future__ import annotations

import html
import json
from typing import Any

from detzoo.sweep.report.names import printable, visible

LONGEST_LINE = 2000


def escaped(text: object, longest: int = 200) -> str:
    """Text from data for HTML: on one line, without control characters, no longer than that."""
    return html.escape(printable(text, longest))


def script_data(value: Any) -> str:
    """JSON that may stand in a script element: no tag, comment or line separator can be seen in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def printable_line(line: str) -> str:
    """A line of a file with its spaces, without control characters."""
    return "".join(visible(character) for character in line.expandtabs(2)[:LONGEST_LINE])
