"""The table of model_configs/: size, parameters and multiply-adds of each, kept in a CSV file beside them.

Building all of them takes minutes, so the numbers are written once by ``detzoo models --refresh``. Each row bears a
digest of what the numbers depend on; a row whose config has changed since is shown as such.
"""

from __future__ import annotations

import csv
import hashlib
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

TABLE_FILE = "models.csv"
IMAGE_SHAPE = (480, 640)  # (height, width) in pixels, for configs whose input size follows the image
NUM_GIVEN_PROPOSALS = 1000  # for those that classify given regions; arXiv:1612.03144, section 5.2


class ModelRow(NamedTuple):
    """One config."""

    config: str  # file name without .config
    input_size: str  # HEIGHTxWIDTH of the padded input, of a 480 x 640 image where it follows the image
    parameters: int
    multiply_adds: int
    digest: str  # of the model block


class ConfigHeader(NamedTuple):
    """What the comments on top of a config say."""

    title: str
    result: str


def read_header(text: str) -> ConfigHeader:
    """The first comment line, and the paragraph that starts with ``# Result:``; "" where there is none."""
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("#").rstrip())
    title = comments[0].strip() if comments else ""
    result: list[str] = []
    for comment in comments:
        if result and (not comment.strip() or re.match(r"\s?\w+:", comment)):
            break
        if comment.strip().startswith("Result:"):
            result.append(comment.strip().removeprefix("Result:").strip())
        elif result:
            result.append(comment.strip())
    return ConfigHeader(title, " ".join(result))


def digest_of(text: str) -> str:
    """A short digest of a model block's text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def read_table(folder: pathlib.Path) -> dict[str, ModelRow]:
    """The rows by config; empty where there is no table."""
    file = folder / TABLE_FILE
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [
            ModelRow(row["config"], row["input_size"], int(row["parameters"]), int(row["multiply_adds"]), row["digest"])
            for row in csv.DictReader(stream)
        ]
    return {row.config: row for row in rows}


def write_table(folder: pathlib.Path, rows: Iterable[ModelRow]) -> None:
    """Writes the table, sorted by config."""
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(ModelRow._fields)
        writer.writerows(sorted(rows))
