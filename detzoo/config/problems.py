"""Problems of a config: one Problem per finding, so that all of them are shown at once."""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Severity(enum.IntEnum):
    """Severity of a finding, in ascending order."""

    NOTE = 0  # accepted, no effect
    WARNING = 1  # works, but probably not as meant
    TO_SET = 2  # a placeholder of a published config: the user must give the path before a command starts
    ERROR = 3  # cannot be used


MOST_PROBLEMS = 100  # that are listed; more of them have one cause, or the file is no config
_MOST_SHOWN = 2000  # characters of a message
NO_EFFECT, MISSING = "no-effect", "missing"  # codes that programs decide by
_COUNTED: dict[Severity | str, tuple[str, str]] = {
    Severity.ERROR: ("error", "errors"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.TO_SET: ("path to set", "paths to set"),
    Severity.NOTE: ("note", "notes"),
    NO_EFFECT: ("accepted field has no effect", "accepted fields have no effect"),
}
_PLACEHOLDER = "PATH_TO_BE"  # PATH_TO_BE_CONFIGURED; one published config misspells the rest


class Problem(NamedTuple):
    """One finding."""

    severity: Severity  # how much it matters
    path: str  # path of the field
    line: int  # line of the text, 0 if no line has the field
    message: str  # the text for the user. Its wording may change; programs read ``code``.
    code: str  # the rule that the config breaks, such as "out-of-range". Codes are stable.

    def format(self, file: str) -> str:
        """Returns ``file:line: error: path: message``; an override's problem names the override in its message."""
        where = f"{file}:{self.line}" if self.line else file
        path = f"{self.path}: " if self.path else ""
        text = f"{where}: {self.severity.name.lower().replace('_', ' ')}: {path}{self.message[:_MOST_SHOWN]}"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a terminal refuses lone surrogates

    @property
    def is_without_effect(self) -> bool:
        """True for a field that is accepted and has no effect here."""
        return self.severity is Severity.NOTE and self.code == NO_EFFECT


def error(path: str, line: int, message: str, code: str = "syntax") -> Problem:
    """Returns a finding that makes the config unusable."""
    return Problem(Severity.ERROR, path, line, message, code)


class Findings:
    """Collects the findings of the rules, seen from one block: rules give paths below it.

    A finding is dropped if it follows from another one: if its own field, or a number that it ``reads``, is already
    reported as out of range (see ``drop_consequences``).

    Attributes:
        path: Path of the block, "" for the whole config.
        problems: The findings of all blocks, in the order of finding.
        files: True if the files that the config names must exist and agree with it.
    """

    def __init__(self, line_of: Callable[[str], int] = lambda path: 0, *, files: bool = False) -> None:
        self.path = ""
        self.problems: list[Problem] = []
        self.files = files
        self._line_of = line_of
        self._refused: set[str] = set()  # paths and names

    def at(self, path: str) -> Findings:
        """Returns a view from the block at ``path`` below this one. Both share their findings."""
        view = Findings.__new__(Findings)
        view.__dict__.update(self.__dict__, path=self._below(path))  # half the time of copy.copy
        return view

    def error(self, path: str, code: str, message: str, reads: Iterable[str] = ()) -> None:
        """Adds a finding that makes the config unusable. ``reads``: names of the other numbers that it depends on."""
        self._add(Severity.ERROR, path, code, message, reads)

    def warning(self, path: str, code: str, message: str, reads: Iterable[str] = ()) -> None:
        """Adds a finding for a config that works, but probably not as meant."""
        self._add(Severity.WARNING, path, code, message, reads)

    def note(self, path: str, code: str, message: str, reads: Iterable[str] = ()) -> None:
        """Adds a remark on a config that works."""
        self._add(Severity.NOTE, path, code, message, reads)

    def missing(self, path: str, give: str) -> None:
        """Adds an error for a value or block that is missing. ``give`` continues the sentence."""
        self.error(path, MISSING, f"is missing; {give}")

    def no_effect(self, path: str, why: str) -> None:
        """Adds a field that is accepted and has no effect."""
        self.note(path, NO_EFFECT, f"accepted, no effect: {why}")

    def to_set(self, path: str, give: str) -> None:
        """Adds a path that is still a placeholder. ``give``: the file or folder that belongs there."""
        assignment = f"{self._below(path)}=PATH"
        quoted = f"'{assignment}'" if "[" in assignment else assignment
        self._add(Severity.TO_SET, path, "placeholder", f"give {give}: --set {quoted}")

    def check_file(self, path: str, file: str, give: str, problem_of: Callable[[str], str]) -> None:
        """Adds a placeholder that must be set, or the problem that ``problem_of`` returns ("" for none)."""
        if is_placeholder(file):
            self.to_set(path, give)
        elif problem := problem_of(file):
            self.error(path, "no-file", problem)

    def drop_consequences(self) -> None:
        """Drops further findings on the fields that are reported so far, and findings that read them."""
        for problem in self.problems:
            self._refused |= {problem.path, problem.path.split(".")[-1]}

    def _below(self, path: str) -> str:
        return f"{self.path}.{path}" if self.path and path and path[0] != "[" else self.path + path

    def _add(self, severity: Severity, path: str, code: str, message: str, reads: Iterable[str] = ()) -> None:
        path = self._below(path)
        if self._refused.isdisjoint([path, *reads]):
            self.problems.append(Problem(severity, path, self._line_of(path), message, code))


def is_placeholder(path: str) -> bool:
    """Returns True for the placeholder of published configs: ``PATH_TO_BE_CONFIGURED/...``."""
    return _PLACEHOLDER in path


def has_errors(problems: Iterable[Problem]) -> bool:
    """Returns True if any finding is an error."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def cannot_start(problems: Iterable[Problem]) -> bool:
    """Returns True if any finding stops a command that reads records: an error, or a path that is still to be set."""
    return any(problem.severity >= Severity.TO_SET for problem in problems)


def summarize(problems: Iterable[Problem]) -> str:
    """Returns the number of findings of each kind, the most severe first; "" without any."""
    counts = collections.Counter(NO_EFFECT if problem.is_without_effect else problem.severity for problem in problems)
    return ", ".join(
        f"{counts[kind]} {one if counts[kind] == 1 else several}"
        for kind, (one, several) in _COUNTED.items()
        if counts[kind]
    )


def format_problems(problems: Iterable[Problem], file: str) -> str:
    """Returns one line per finding in the order of the text. Of many it lists the most severe and counts the rest."""
    ordered = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    worst = sorted(range(len(ordered)), key=lambda index: -ordered[index].severity)
    lines = [ordered[index].format(file) for index in sorted(worst[:MOST_PROBLEMS])]
    if rest := summarize(ordered[index] for index in worst[MOST_PROBLEMS:]):
        lines.append(f"{file}: not listed: {rest}")
    return "\n".join(lines)
