"""results.csv: typed rows, read with every problem at once and appended so that parallel sweeps do not mix lines.

A row is one line. Of several rows of one key the last counts, so that measuring a point again rewrites nothing.
"""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import filelock

from detzoo.config.names import listed, suggestion
from detzoo.config.paths import path_hint
from detzoo.errors import DataError, UsageError
from detzoo.folders import write_atomically
from detzoo.sweep.columns import ADDED, COLUMNS, EARLIER_NAMES, NAMES, Column, Kind, Status

RESULTS_FILE = "results.csv"
Value: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Value]  # every name of COLUMNS -> its value, None if it was not measured

HOW = ("runtime", "device", "precision", "jit_compile", "batch_size")  # columns of the way a point is measured

_FLAGS = {"true": True, "false": False}
_STATUSES = tuple(status.value for status in Status)
_NEVER_EMPTY = ("key", "name", "status")
_TYPES: dict[Kind, tuple[type, ...]] = {
    Kind.TEXT: (str,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.FLAG: (bool,),
}


def read_results(path: str | pathlib.Path) -> list[Row]:
    """Reads a results.csv.

    Returns:
        One row per key, in the order in which the keys first appear, with every name of COLUMNS.

    Raises:
        UsageError: The file does not exist or is not text.
        DataError: Other columns, or cells that cannot be read: all of them, each with file, line and column.
    """
    rows, problems = read_with_problems(path)
    if problems:
        raise DataError("\n".join(problems))
    return rows


def read_with_problems(path: str | pathlib.Path) -> tuple[list[Row], list[str]]:
    """Reads the good rows of a results.csv, and returns a message per problem with them.

    Raises:
        UsageError: The file does not exist or is not text.
    """
    lines = _read_lines(path)
    if not lines:
        return [], []  # a sweep that was stopped before its first row
    problems = _header_problems(path, lines[0])
    if problems:
        return [], problems
    names = _split(lines[0])
    rows: dict[Value, Row] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        row, found = _read_row(line, names)
        problems += [f"{path}:{number}: {problem}" for problem in found]
        if not found:
            rows[row["key"]] = row
    return list(rows.values()), problems


def append_row(path: str | pathlib.Path, row: Mapping[str, Value]) -> None:
    """Adds one row, in which missing names become empty cells; creates the file with its header if it does not exist.

    The line is one write under a lock. The rest of an interrupted earlier write is ended first, so that it spoils no
    row but its own.

    Raises:
        DataError: The file has other columns, or has those of an earlier version and a row that cannot be read.
        ValueError: A name that is no column or a value of another type: a mistake of the caller.
    """
    line = format_row(row)
    with _lock(path):
        if pathlib.Path(path).is_file() and (lines := _read_lines(path)) and lines[0] == ",".join(EARLIER_NAMES):
            write_results(path, read_results(path))  # with the columns that an earlier version lacked
    with _lock(path), open(path, "a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            line = _format_line(NAMES) + line
        else:
            file.seek(0)
            first, _, rest = file.read().partition(b"\n")
            problems = _header_problems(path, first.decode("utf-8-sig", "replace").removesuffix("\r"))
            if problems:
                raise DataError("\n".join(problems))
            if rest and not rest.endswith(b"\n"):
                line = "\n" + line
        content = line.encode("utf-8")
        written = file.write(content)
        if written != len(content):
            file.truncate(size)
            raise OSError(errno.ENOSPC, f"{written} of {len(content)} bytes could be written: the disk is full")
        os.fsync(file.fileno())


def retire_rows(path: str | pathlib.Path, row: Mapping[str, Value]) -> None:
    """Removes the rows that a new one replaces: of the same name, measured in the same way, with another key.

    Such a row belongs to a point that was edited since. A file with unreadable rows stays as it is.
    """
    same = ("name", *HOW)
    _rewrite(path, lambda old: old if old["key"] == row["key"] or any(old[n] != row.get(n) for n in same) else None)


def set_cells(path: str | pathlib.Path, cells: Mapping[str, Mapping[str, Value]]) -> int:
    """Sets cells of existing rows by their keys; returns the number of rows that change.

    A file with unreadable rows stays as it is.
    """
    if not pathlib.Path(path).is_file():
        return 0
    return _rewrite(path, lambda old: {**old, **cells.get(str(old["key"]), {})})


def write_results(path: str | pathlib.Path, rows: Iterable[Mapping[str, Value]]) -> None:
    """Replaces a results.csv as a whole."""
    write_atomically(path, _format_line(NAMES) + "".join(map(format_row, rows)))


def format_row(row: Mapping[str, Value]) -> str:
    """Returns the line of CSV of a row, with its end; line breaks in a text become spaces.

    Raises:
        ValueError: A name that is no column, or a value of another type.
    """
    unknown = [name for name in row if name not in NAMES]
    if unknown:
        raise ValueError(f"results.csv has no column {', '.join(map(repr, unknown))}")
    return _format_line([_format_cell(column, row.get(column.name)) for column in COLUMNS])


def _rewrite(path: str | pathlib.Path, change: Callable[[Row], Row | None]) -> int:
    """Replaces rows, or removes those that become None; returns the number of changes."""
    with _lock(path):
        rows, problems = read_with_problems(path)
        new = [change(row) for row in rows]
        num_changed = sum(before != after for before, after in zip(rows, new))
        if num_changed and not problems:
            write_results(path, [row for row in new if row is not None])
        return num_changed


def _lock(path: str | pathlib.Path) -> filelock.BaseFileLock:
    path = pathlib.Path(path)
    return filelock.FileLock(path.with_name(f".{path.name}.lock"))


def _read_lines(path: str | pathlib.Path) -> list[str]:
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")  # spreadsheets write a byte order mark
    except FileNotFoundError:
        raise UsageError(f"there is no {RESULTS_FILE} at {path}{path_hint(path)}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; give the {RESULTS_FILE} in it") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file; {RESULTS_FILE} is CSV in UTF-8") from None
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _header_problems(path: str | pathlib.Path, line: str) -> list[str]:
    try:
        names = _split(line)
    except ValueError as problem:
        return [f"{path}:1: {problem}"]
    if names in (list(NAMES), list(EARLIER_NAMES)):
        return []
    missing = [name for name in NAMES if name not in names]
    found = [f"{path}:1: unknown column '{name}'{suggestion(name, missing)}" for name in names if name not in NAMES]
    if missing:
        found.append(f"{path}:1: no column {listed([*map(repr, missing)], 5)}")
    if not found:
        return [f"{path}:1: the columns are in another order; accepted: {', '.join(NAMES)}"]
    return [*found, f"{path}:1: accepted: the columns that this version of `detzoo sweep` writes; give another file"]


def _read_row(line: str, names: Sequence[str]) -> tuple[Row, list[str]]:
    """Returns the row of a line in a file with these columns, and its problems."""
    try:
        cells = _split(line)
    except ValueError as problem:
        return {}, [str(problem)]
    if len(cells) != len(names):
        return {}, [f"{len(cells)} cells; accepted: {len(names)}, one for each column"]
    row: Row = {**ADDED}
    problems = []
    for column, cell in zip([column for column in COLUMNS if column.name in names], cells, strict=True):
        try:
            row[column.name] = _read_cell(column, cell.strip())
        except ValueError:
            problems.append(f"column '{column.name}': found '{cell}'; accepted: {_accepted(column)}")
    return row, problems


def _split(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as problem:
        raise ValueError(f"not a line of CSV ({problem}); accepted: one row per line, texts in double quotes") from None


def _read_cell(column: Column, cell: str) -> Value:
    if (not cell and column.name in _NEVER_EMPTY) or (column.name == "status" and cell not in _STATUSES):
        raise ValueError
    if not cell:
        return None
    if column.kind is Kind.INTEGER:
        return int(cell)
    if column.kind is Kind.NUMBER:
        if not math.isfinite(float(cell)):
            raise ValueError
        return float(cell)
    if column.kind is Kind.FLAG:
        if cell.lower() not in _FLAGS:
            raise ValueError
        return _FLAGS[cell.lower()]
    return cell


def _accepted(column: Column) -> str:
    if column.name == "status":
        return f"{', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}"
    if column.name in _NEVER_EMPTY:
        return "a text that is not empty"
    return f"{column.kind.value}, or nothing"


def _format_cell(column: Column, value: Value) -> str:
    if value is None or value == "":
        return ""
    fits = isinstance(value, _TYPES[column.kind]) and isinstance(value, bool) == (column.kind is Kind.FLAG)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"column '{column.name}' takes {_accepted(column)}; received {value!r}")
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value.split()) if isinstance(value, str) else repr(value)


def _format_line(cells: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
