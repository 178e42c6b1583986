"""Safe text for pages and figures: on one line, without control characters, escaped."""

from __future__ import annotations

import html
import json
import unicodedata
from typing import Any

LONGEST_LABEL, LONGEST_LINE = 60, 2000


def printable(text: object, longest: int = LONGEST_LABEL) -> str:
    """Returns text on one line without control characters, which an SVG must not have, cut with three dots."""
    line = " ".join(_visible(str(text if text is not None else "")).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def printable_line(line: str) -> str:
    """Returns one line of a file with its spaces, without control characters."""
    return _visible(line.expandtabs(2)[:LONGEST_LINE])


def escaped(text: object, longest: int = 200) -> str:
    """Returns text from data for HTML: on one line, without control characters, cut."""
    return html.escape(printable(text, longest))


def script_data(value: Any) -> str:
    """Returns JSON for a script element, in which no tag, comment or line separator can be seen."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(text: str) -> str:
    """Replaces separators by spaces and characters that cannot be shown by the replacement character."""
    return "".join(
        " " if char.isspace() else "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn") else char
        for char in text
    )
