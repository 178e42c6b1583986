"""Names in messages: the nearest known names to a mistyped one, a few of many, and counts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST_NAME = 100  # characters; longer ones are no mistyped names, and comparing them takes minutes
_MOST_QUOTED = 300  # characters, room for a path
MOST_LISTED = 12  # A longer list of accepted names hides the answer; then only the nearest are shown.


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to ``count`` candidates that look like ``name``, best first; letter case does not count."""
    if len(name) > LONGEST_NAME:
        return []
    by_folded = {candidate.lower(): candidate for candidate in candidates}
    folded = name.lower()
    close = difflib.get_close_matches(folded, by_folded, n=count, cutoff=0.65)
    if len(folded) > 3:
        close += sorted(
            (known for known in by_folded if known not in close and (folded in known or known in folded)), key=len
        )
    return [by_folded[known] for known in close[:count]]


def clip(text: str) -> str:
    """Returns a text as messages quote it: only the beginning if it is very long."""
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}... ({len(text)} characters)"


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """Returns a question for the nearest names, else the list of accepted names, else ""."""
    known = sorted(candidates)
    close = nearest(name, known)
    if close:
        return f"; did you mean {' or '.join(repr(item) for item in close)}?"
    if not known:
        return ""
    if len(known) <= MOST_LISTED:
        return f"; accepted: {', '.join(known)}"
    return f"; accepted: {', '.join(known[:MOST_LISTED])}, ... ({len(known)} names)"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Returns a few names and the number of the others: "a, b, c and 2 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """Returns "1 point" or "2 points"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
