"""Protobuf text format -> tokens with their lines. Continues after bad input, to find every problem at once."""

from __future__ import annotations

import re
from typing import NamedTuple

from detzoo.config.names import clip
from detzoo.config.problems import MOST_PROBLEMS, Problem, error

NAME, NUMBER, STRING, SYMBOL, END = "name", "number", "string", "symbol", "end of file"

_MOST_OMITTED = 10_000  # problems before the rest of a text is given up
_PATTERN = re.compile(
    r"""
    (?P<space>[ \t\r\f\v\ufeff]+|\#[^\n]*)
  | (?P<newline>\n)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<number>\.?\d[\w.]*(?:(?<=[eE])[+-][\w.]*)*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<open_string>["'][^\n]*)
  | (?P<symbol>[{}<>\[\]:;,\-./])
  | (?P<bad>.)
    """,
    re.VERBOSE,
)


class Complaints:
    """The first problems of a text, and the number of further ones: a file of garbage has one per character.

    Attributes:
        problems: The first problems.
        omitted: Number of the further ones.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.omitted = 0

    @property
    def is_full(self) -> bool:
        """True if the next problem is only counted."""
        return len(self.problems) >= MOST_PROBLEMS // 2  # The other half is for the rules of fields.

    def add(self, path: str, line: int, message: str, code: str = "syntax") -> None:
        """Adds an error, or counts it if the list is full."""
        if self.is_full:
            self.omitted += 1
        else:
            self.problems.append(error(path, line, message, code))


class Token(NamedTuple):
    """A piece of the text: its kind, its characters as written, and its line (from 1)."""

    kind: str
    text: str
    line: int

    def describe(self) -> str:
        """Returns the token as an error message quotes it."""
        return "the end of the file" if self.kind == END else f"'{clip(self.text)}'"


def tokenize(text: str, complaints: Complaints) -> list[Token]:
    """Splits a text into tokens, the last one of kind END. Other characters are added to ``complaints``."""
    tokens: list[Token] = []
    line = 1
    for match in _PATTERN.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind == "newline":
            line += 1
        elif kind == "open_string":
            is_escaped = piece.rstrip().endswith("\\" + piece[0])
            hint = ": \\ before its end makes the quote a part of it; write / instead" if is_escaped else ""
            complaints.add("", line, f"the string {clip(piece.rstrip())} is not closed on its line{hint}")
            closed = piece.rstrip()[:-2].replace("\\", "/") if is_escaped else piece.rstrip()
            tokens.append(Token(STRING, closed + piece[0], line))
        elif kind == "bad":
            complaints.add("", line, f"unexpected character {piece!r}")
            if complaints.omitted > _MOST_OMITTED:
                break
        elif kind != "space":
            tokens.append(Token(str(kind), piece, line))
    tokens.append(Token(END, "", line))
    return tokens
