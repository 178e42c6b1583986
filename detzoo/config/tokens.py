"""Protobuf text format -> tokens with their lines. Goes on after bad input, so that every problem is found at once."""

from __future__ import annotations

import re
from typing import NamedTuple

from detzoo.config.problems import Problem, error

NAME, NUMBER, STRING, SYMBOL, END = "name", "number", "string", "symbol", "end of file"

_PATTERN = re.compile(
    r"""
    (?P<space>[ \t\r\f\v\ufeff]+|\#[^\n]*)
  | (?P<newline>\n)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<number>\.?\d(?:[eE][+-]|[\w.])*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<open_string>["'][^\n]*)
  | (?P<symbol>[{}<>\[\]:;,\-./])
  | (?P<bad>.)
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A piece of the text: its kind, its characters as written, and its line (from 1)."""

    kind: str
    text: str
    line: int

    def describe(self) -> str:
        """How an error message calls it."""
        return "the end of the file" if self.kind == END else f"'{self.text}'"


def tokenize(text: str) -> tuple[list[Token], list[Problem]]:
    """Splits a text into tokens, the last one of kind END; what is no token is a problem and is left out."""
    tokens: list[Token] = []
    problems: list[Problem] = []
    line = 1
    for match in _PATTERN.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind == "newline":
            line += 1
        elif kind == "open_string":
            is_escaped = piece.rstrip().endswith("\\" + piece[0])
            hint = ": \\ before its end makes the quote a part of it; write / instead" if is_escaped else ""
            problems.append(error("", line, f"the string {piece.rstrip()[:80]} is not closed on its line{hint}"))
            closed = piece.rstrip()[:-2].replace("\\", "/") if is_escaped else piece.rstrip()
            tokens.append(Token(STRING, closed + piece[0], line))
        elif kind == "bad":
            problems.append(error("", line, f"unexpected character {piece!r}"))
        elif kind != "space":
            tokens.append(Token(str(kind), piece, line))
    tokens.append(Token(END, "", line))
    return tokens, problems
