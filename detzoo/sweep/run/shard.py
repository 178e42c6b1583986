"""Which part of a sweep a machine does: the same answer everywhere, without coordination."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from detzoo.errors import UsageError

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` parts, from 1."""

    index: int
    count: int


def parse_shard(text: str) -> Shard:
    """Reads ``I/N``; "" is the whole.

    Raises:
        UsageError: it is something else.
    """
    if not text:
        return Shard(1, 1)
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard is '{text}'; accepted: I/N with I from 1 to N, such as 1/4")
    return Shard(int(match[1]), int(match[2]))


def part_of(items: Iterable[Item], shard: Shard, group_of: Callable[[Item], str]) -> list[Item]:
    """The items of one part, in their order; what has one group stays together.

    Groups are dealt out in the order of their names, so the parts differ by one group at most, and neither the order
    of the items nor the machine matters.
    """
    kept = list(items)
    groups = sorted({group_of(item) for item in kept})
    mine = set(groups[shard.index - 1 :: shard.count])
    return [item for item in kept if group_of(item) in mine]
