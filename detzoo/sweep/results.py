"""results.csv: rows typed by COLUMNS, read with every problem at once, appended so that two sweeps cannot mix lines.

A row is one line. A later row of the same key replaces the earlier one when the file is read, so a point that is
measured again needs no rewriting.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from detzoo.config.names import suggestion
from detzoo.config.paths import path_hint
from detzoo.errors import DataError, UsageError
from detzoo.folders import write_atomically
from detzoo.sweep.columns import COLUMNS, NAMES, Column, Kind, Status

RESULTS_FILE = "results.csv"
Value: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Value]  # every name of COLUMNS -> its value, None where nothing was measured

HOW = ("device", "precision", "jit_compile", "batch_size")  # the columns of how a point is measured

_FLAGS = {"true": True, "false": False}
_STATUSES = tuple(status.value for status in Status)
_NEVER_EMPTY = ("key", "name", "status")


def read_results(path: str | pathlib.Path) -> list[Row]:
    """The rows of a results.csv in the order in which their keys first came; of one key, its last row.

    Args:
        path: of the file.

    Returns:
        One dict for each key, with every name of COLUMNS; None where a cell is empty.

    Raises:
        UsageError: there is no such file, or it is not text.
        DataError: other columns, or rows that cannot be read: all of them, each with file, line and column.
    """
    rows, problems = read_with_problems(path)
    if problems:
        raise DataError("\n".join(problems))
    return rows


def read_with_problems(path: str | pathlib.Path) -> tuple[list[Row], list[str]]:
    """What can be read of a results.csv, and a message for every cell that cannot.

    Raises:
        UsageError: there is no such file, or it is not text.
    """
    lines = _read_lines(path)
    if not lines:
        return [], []  # a sweep that was stopped before its first row
    problems = _header_problems(path, lines[0])
    if problems:
        return [], problems
    rows: dict[Value, Row] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        row, found = _read_row(line)
        problems += [f"{path}:{number}: {problem}" for problem in found]
        if not found:
            rows[row["key"]] = row
    return list(rows.values()), problems


def append_row(path: str | pathlib.Path, row: Mapping[str, Value]) -> None:
    """Adds one row; makes the file, with its header, where there is none.

    The whole line is one write under a lock of the file, so that programs that append at the same time do not mix. What
    a write that was cut short has left is ended first, so that it spoils no row but its own.

    Args:
        path: of the file; its folder exists.
        row: values by name; names that are left out become empty cells.

    Raises:
        DataError: the file has other columns.
        ValueError: a name that is no column, or a value of another kind: a mistake of the caller.
    """
    line = format_row(row)
    with _locked(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size == 0:
            line = _format_line(NAMES) + line
        else:
            _check_header(path, descriptor)
            if os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
        _write_whole(descriptor, line.encode("utf-8"), size)


def retire_rows(path: str | pathlib.Path, row: Mapping[str, Value]) -> None:
    """Drops the rows that a new one replaces: of the same name, measured in the same way, with another key.

    Such a row is of a point that was edited since. Nothing is dropped from a file with rows that cannot be read.
    """
    same = ("name", *HOW)
    with _locked(path):
        rows, problems = read_with_problems(path)
        kept = [r for r in rows if r["key"] == row["key"] or any(r[name] != row.get(name) for name in same)]
        if not problems and len(kept) < len(rows):
            write_results(path, kept)


def set_cells(path: str | pathlib.Path, cells: Mapping[str, Mapping[str, Value]]) -> int:
    """Sets cells of rows that are there already, by their keys; returns how many rows that changes.

    Nothing is changed in a file with rows that cannot be read.
    """
    if not pathlib.Path(path).is_file():
        return 0
    with _locked(path):
        rows, problems = read_with_problems(path)
        changed = 0
        for row in rows:
            new = cells.get(str(row["key"]), {})
            changed += any(row[name] != value for name, value in new.items())
            row.update(new)
        if changed and not problems:
            write_results(path, rows)
    return changed


@contextlib.contextmanager
def _locked(path: str | pathlib.Path) -> Iterator[int]:
    """A descriptor of the file, made if need be, that no other program holds; of the file that has the name now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_file_of(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)  # which also unlocks


def _is_file_of(path: str | pathlib.Path, descriptor: int) -> bool:
    """Whether the name still is this file's: another program may have written it anew meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_results(path: str | pathlib.Path, rows: Iterable[Mapping[str, Value]]) -> None:
    """Writes a results.csv anew; under its name it is there as a whole or not at all."""
    write_atomically(path, _format_line(NAMES) + "".join(map(format_row, rows)))


def format_row(row: Mapping[str, Value]) -> str:
    """A row as one line of CSV with its end; breaks of lines inside a text become spaces.

    Raises:
        ValueError: a name that is no column, or a value of another kind.
    """
    unknown = [name for name in row if name not in NAMES]
    if unknown:
        raise ValueError(f"results.csv has no column {', '.join(map(repr, unknown))}")
    return _format_line([_format_cell(column, row.get(column.name)) for column in COLUMNS])


def empty_row() -> Row:
    """A row in which nothing is measured yet."""
    return dict.fromkeys(NAMES)


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
    """What is wrong with the first line; [] for the columns of this version in their order."""
    try:
        names = _split(line)
    except ValueError as problem:
        return [f"{path}:1: {problem}"]
    if names == list(NAMES):
        return []
    missing = [name for name in NAMES if name not in names]
    found = [f"{path}:1: unknown column '{name}'{suggestion(name, missing)}" for name in names if name not in NAMES]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        found.append(f"{path}:1: no column {', '.join(map(repr, missing[:5]))}{more}")
    if not found:
        return [f"{path}:1: the columns are in another order; accepted: {', '.join(NAMES)}"]
    return [*found, f"{path}:1: accepted: the columns that this version of `detzoo sweep` writes; give another file"]


def _read_row(line: str) -> tuple[Row, list[str]]:
    """The row of a line, and what is wrong with it."""
    try:
        cells = _split(line)
    except ValueError as problem:
        return {}, [str(problem)]
    if len(cells) != len(COLUMNS):
        return {}, [f"{len(cells)} cells; accepted: {len(COLUMNS)}, one for each column"]
    row: Row = {}
    problems = []
    for column, cell in zip(COLUMNS, cells, strict=True):
        try:
            row[column.name] = _read_cell(column, cell)
        except ValueError:
            problems.append(f"column '{column.name}': found '{cell}'; accepted: {_accepted(column)}")
    return row, problems


def _split(line: str) -> list[str]:
    """The cells of one line. Raises ValueError where its quotes do not match."""
    try:
        rows = list(csv.reader([line], strict=True))
    except csv.Error as problem:
        raise ValueError(f"not a line of CSV ({problem}); accepted: one row a line, texts in double quotes") from None
    return rows[0] if rows else []


def _read_cell(column: Column, cell: str) -> Value:
    """Raises ValueError where the cell is of another kind."""
    cell = cell.strip()
    if not cell:
        if column.name in _NEVER_EMPTY:
            raise ValueError
        return None
    if column.name == "status" and cell not in _STATUSES:
        raise ValueError
    if column.kind is Kind.INTEGER:
        return int(cell)
    if column.kind is Kind.NUMBER:
        number = float(cell)
        if not math.isfinite(number):
            raise ValueError
        return number
    if column.kind is Kind.FLAG:
        if cell.lower() not in _FLAGS:
            raise ValueError
        return _FLAGS[cell.lower()]
    return cell


def _accepted(column: Column) -> str:
    if column.name == "status":
        return " or ".join(_STATUSES)
    if column.name in _NEVER_EMPTY:
        return "a text that is not empty"
    return f"{column.kind.value}, or nothing"


def _format_cell(column: Column, value: Value) -> str:
    """Raises ValueError for a value that is not of the column's kind."""
    if value is None or value == "":
        return ""
    kinds: dict[Kind, tuple[type, ...]] = {
        Kind.TEXT: (str,),
        Kind.INTEGER: (int,),
        Kind.NUMBER: (int, float),
        Kind.FLAG: (bool,),
    }
    is_kind = isinstance(value, kinds[column.kind]) and (isinstance(value, bool) == (column.kind is Kind.FLAG))
    if not is_kind or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"column '{column.name}' takes {_accepted(column)}; received {value!r}")
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value.split()) if isinstance(value, str) else repr(value)


def _format_line(cells: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _check_header(path: str | pathlib.Path, descriptor: int) -> None:
    wanted = _format_line(NAMES).strip()
    start = os.pread(descriptor, 2 * len(wanted), 0).decode("utf-8-sig", "replace")
    line = start.split("\n")[0].removesuffix("\r")
    problems = _header_problems(path, line)
    if problems:
        raise DataError("\n".join(problems))


def _write_whole(descriptor: int, content: bytes, size: int) -> None:
    """Writes all or, on a full disk, nothing."""
    written = os.write(descriptor, content)
    if written != len(content):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, f"{written} of {len(content)} bytes could be written: the disk is full")
    os.fsync(descriptor)
