"""Joins the folders of a sweep that ran in parts, on several machines or one after the other."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from detzoo.errors import DataError, UsageError
from detzoo.sweep.columns import Status
from detzoo.sweep.results import RESULTS_FILE, Row, read_with_problems, write_results
from detzoo.sweep.run.point_files import AND, EXAMPLES, POINTS

HARDWARE = ("environment.cpu", "environment.gpus", "environment.cores")
_PASSED_OVER = ("export", ".lock")


class Merged(NamedTuple):
    """What a merge did."""

    num_rows: int
    num_failed: int
    taken: dict[str, int]  # folder -> rows that came from it


def merge(output_dir: pathlib.Path, parts: Sequence[pathlib.Path], allow_mixed_hardware: bool = False) -> Merged:
    """Writes results.csv, points/ and examples/ of all parts into ``output_dir``, whose own rows count, too.

    A measured row is preferred to a failed one of the same key; two that differ are a conflict.

    Raises:
        UsageError: a part is missing; rows of different hardware; measured rows of one key that differ.
        DataError: rows that cannot be read, all of them.
    """
    sources = [folder for folder in [output_dir, *parts] if folder != output_dir or (folder / RESULTS_FILE).is_file()]
    rows, problems = [], []
    for folder in sources:
        found, wrong = read_with_problems(folder / RESULTS_FILE)
        rows += [(folder, row) for row in found]
        problems += wrong
    if problems:
        raise DataError("\n".join(problems))
    if not allow_mixed_hardware:
        _check_hardware(rows)
    chosen = _choose(rows)
    output_dir.mkdir(parents=True, exist_ok=True)
    for folder, row in chosen.values():
        if folder != output_dir:
            _copy_point(folder, output_dir, str(row["key"]))
    for folder in sources:
        _copy_examples(folder, output_dir)
    write_results(output_dir / RESULTS_FILE, [_moved(row, output_dir) for _, row in chosen.values()])
    taken = {str(folder): sum(source == folder for source, _ in chosen.values()) for folder in sources}
    failed = sum(row["status"] == Status.FAILED.value for _, row in chosen.values())
    return Merged(len(chosen), failed, taken)


def _check_hardware(rows: Sequence[tuple[pathlib.Path, Row]]) -> None:
    """Rows that failed before anything was measured have no hardware and fit to all."""
    seen: dict[tuple[object, ...], list[pathlib.Path]] = {}
    for folder, row in rows:
        hardware = tuple(row[name] for name in HARDWARE)
        if any(value is not None for value in hardware):
            folders = seen.setdefault(hardware, [])
            if folder not in folders:
                folders.append(folder)
    if len(seen) > 1:
        lines = [
            f"  {', '.join(map(str, folders))}: {hardware[0]}, {hardware[2]} cores, GPU: {hardware[1] or 'none'}"
            for hardware, folders in seen.items()
        ]
        raise UsageError(
            "the parts were measured on different hardware, so their times cannot be compared:\n"
            + "\n".join(lines)
            + "\n--allow_mixed_hardware joins them all the same"
        )


def _choose(rows: Sequence[tuple[pathlib.Path, Row]]) -> dict[str, tuple[pathlib.Path, Row]]:
    chosen: dict[str, tuple[pathlib.Path, Row]] = {}
    conflicts = []
    for folder, row in rows:
        key = str(row["key"])
        if key not in chosen:
            chosen[key] = (folder, row)
            continue
        other_folder, other = chosen[key]
        if other["status"] == Status.FAILED.value:
            chosen[key] = (folder, row)
        elif row["status"] == Status.OK.value and _what_was_measured(row) != _what_was_measured(other):
            conflicts.append(f"  {row['name']} (key {key}) in {other_folder} and {folder}")
    if conflicts:
        raise UsageError(
            "these points were measured twice, with different results; remove one row of each:\n" + "\n".join(conflicts)
        )
    return chosen


def _what_was_measured(row: Row) -> str:
    """The row without its command, which a merge changes."""
    return json.dumps({**row, "command": None})


def _moved(row: Row, output_dir: pathlib.Path) -> Row:
    """The row with a command that finds the point's files where they are now."""
    inside = f"/{POINTS}/{row['key']}/"

    def move(word: str) -> str:
        flag, separator, path = word.partition("=")
        if flag == "--set":
            field, _, path = path.partition("=")
            flag = f"{flag}={field}"
        return f"{flag}={output_dir}{inside}{path.split(inside)[1]}" if separator and inside in path else word

    try:
        commands = [shlex.split(command) for command in str(row["command"] or "").split(AND)]
    except ValueError:
        return row  # edited by hand, quotes that do not match
    moved = AND.join(shlex.join(map(move, words)) for words in commands)
    return {**row, "command": moved or None}


def _copy_point(source: pathlib.Path, output_dir: pathlib.Path, key: str) -> None:
    folder = source / POINTS / key
    if folder.is_dir():
        ignore = shutil.ignore_patterns(*_PASSED_OVER)
        shutil.copytree(folder, output_dir / POINTS / key, ignore=ignore, dirs_exist_ok=True)


def _copy_examples(source: pathlib.Path, output_dir: pathlib.Path) -> None:
    target = output_dir / EXAMPLES
    for image in sorted((source / EXAMPLES).glob("*.jpg")) if source != output_dir else []:
        target.mkdir(exist_ok=True)
        if not (target / image.name).exists():
            shutil.copy2(image, target / image.name)
