"""What is wrong with a config: one Problem a finding, so that all of them can be shown at once."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple


class Severity(enum.IntEnum):
    """How much a finding matters."""

    NOTE = 0  # accepted, no effect
    WARNING = 1  # works, but probably not as meant
    ERROR = 2  # cannot be used


class Problem(NamedTuple):
    """One finding: where (field path and line of the text; 0 where no line says it) and what."""

    severity: Severity
    path: str
    line: int
    message: str

    def format(self, file: str) -> str:
        """``file:line: error: path: message``; an override's problem names the override in its message."""
        where = f"{file}:{self.line}" if self.line else file
        path = f"{self.path}: " if self.path else ""
        return f"{where}: {self.severity.name.lower()}: {path}{self.message}"


def error(path: str, line: int, message: str) -> Problem:
    """A finding that makes the config unusable."""
    return Problem(Severity.ERROR, path, line, message)


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether any finding is an error."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def format_problems(problems: Iterable[Problem], file: str) -> str:
    """Every finding on a line of its own, in the order of the text."""
    ordered = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    return "\n".join(problem.format(file) for problem in ordered)
