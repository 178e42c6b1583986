"""Parts of a sweep: shards of its points for several machines, and one folder from the folders of all parts."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from detzoo.errors import DataError, UsageError
from detzoo.sweep.columns import HARDWARE, Status
from detzoo.sweep.results import RESULTS_FILE, Row, read_with_problems, write_results
from detzoo.sweep.run.point_files import AND, EXAMPLES, POINTS

_PASSED_OVER = ("export", ".lock")

Item = TypeVar("Item")
_Source: TypeAlias = tuple[pathlib.Path, Row]  # folder of a part, and one of its rows


@dataclasses.dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` parts, from 1."""

    index: int
    count: int


class Merged(NamedTuple):
    """Counts of a merge."""

    num_rows: int
    num_failed: int
    taken: dict[str, int]  # folder -> rows from there


def parse_shard(text: str) -> Shard:
    """Reads ``I/N``; "" is the whole. Raises a UsageError for another text."""
    if not text:
        return Shard(1, 1)
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard is '{text}'; accepted: I/N with I from 1 to N, such as 1/4")
    return Shard(int(match[1]), int(match[2]))


def part_of(items: Iterable[Item], shard: Shard, group_of: Callable[[Item], str]) -> list[Item]:
    """Returns the items of one part, in their order; the items of a group stay together.

    Groups are dealt out in the order of their names. So the numbers of groups differ by one at most, and the parts
    depend neither on the order of the items nor on the machine.
    """
    kept = list(items)
    mine = set(sorted({group_of(item) for item in kept})[shard.index - 1 :: shard.count])
    return [item for item in kept if group_of(item) in mine]


def merge(output_dir: pathlib.Path, parts: Sequence[pathlib.Path], allow_mixed_hardware: bool = False) -> Merged:
    """Writes results.csv, points/ and examples/ of all parts into ``output_dir``, whose existing rows are a part too.

    A measured row is preferred to a failed one of the same key; two measured rows that differ are a conflict.

    Raises:
        UsageError: A part is missing, rows of different hardware, or measured rows of one key that differ.
        DataError: Rows that cannot be read, all of them.
    """
    sources = [folder for folder in [output_dir, *parts] if folder != output_dir or (folder / RESULTS_FILE).is_file()]
    rows: list[_Source] = []
    problems: list[str] = []
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
    ignore = shutil.ignore_patterns(*_PASSED_OVER)
    for folder, row in chosen:
        point = pathlib.Path(POINTS, str(row["key"]))
        if folder != output_dir and (folder / point).is_dir():
            shutil.copytree(folder / point, output_dir / point, ignore=ignore, dirs_exist_ok=True)
    for folder in sources:
        _copy_examples(folder / EXAMPLES, output_dir / EXAMPLES)
    write_results(output_dir / RESULTS_FILE, [_moved(row, output_dir) for _, row in chosen])
    taken = {str(folder): sum(source == folder for source, _ in chosen) for folder in sources}
    return Merged(len(chosen), sum(row["status"] == Status.FAILED.value for _, row in chosen), taken)


def _check_hardware(rows: Sequence[_Source]) -> None:
    """Compares hardware; rows that failed before any measurement have none and fit to all."""
    seen: dict[tuple[object, ...], dict[str, None]] = {}
    for folder, row in rows:
        hardware = tuple(row[name] for name in HARDWARE)
        if any(value is not None for value in hardware):
            seen.setdefault(hardware, {})[str(folder)] = None
    if len(seen) > 1:
        lines = [f"  {', '.join(seen[each])}: {each[0]}, {each[2]} cores, GPU: {each[1] or 'none'}" for each in seen]
        raise UsageError(
            "the parts were measured on different hardware, so their times cannot be compared:\n"
            + "\n".join(lines)
            + "\n--allow_mixed_hardware joins them all the same"
        )


def _choose(rows: Sequence[_Source]) -> list[_Source]:
    """Returns one row per key."""
    chosen: dict[str, _Source] = {}
    conflicts = []
    for folder, row in rows:
        key = str(row["key"])
        other_folder, other = chosen.setdefault(key, (folder, row))
        if other["status"] == Status.FAILED.value:
            chosen[key] = (folder, row)
        elif row["status"] == Status.OK.value and _measurement(row) != _measurement(other):
            conflicts.append(f"  {row['name']} (key {key}) in {other_folder} and {folder}")
    if conflicts:
        raise UsageError(
            "these points were measured twice, with different results; remove one row of each:\n" + "\n".join(conflicts)
        )
    return list(chosen.values())


def _measurement(row: Row) -> str:
    return json.dumps({**row, "command": None})  # a merge changes commands


def _moved(row: Row, output_dir: pathlib.Path) -> Row:
    """Returns the row with a command that finds the point's files in the new folder."""
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
        return row  # a person has edited it: its quotes do not match
    return {**row, "command": AND.join(shlex.join(map(move, words)) for words in commands) or None}


def _copy_examples(source: pathlib.Path, target: pathlib.Path) -> None:
    for image in sorted(source.glob("*.jpg")) if source != target else []:
        target.mkdir(exist_ok=True)
        if not (target / image.name).exists():
            shutil.copy2(image, target / image.name)
