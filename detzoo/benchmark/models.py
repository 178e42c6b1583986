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


class Paper(NamedTuple):
    """A paper whose result tables have configs here."""

    name: str  # in ``# Row:``
    title: str
    page: str  # from the project's root


PAPERS = {
    "fpn": Paper("FPN", "Lin et al., Feature pyramid networks, arXiv:1612.03144", "docs/papers/fpn.md"),
    "retinanet": Paper("RetinaNet", "Lin et al., Focal loss, arXiv:1708.02002", "docs/papers/focal_loss.md"),
    "tradeoffs": Paper(
        "trade-offs", "Huang et al., Speed/accuracy trade-offs, arXiv:1611.10012", "docs/papers/tradeoffs.md"
    ),
    "spp": Paper("SPP", "He et al., Spatial pyramid pooling, arXiv:1406.4729", "docs/papers/spp.md"),
}
_ROW = re.compile(rf"({'|'.join(paper.name for paper in PAPERS.values())}) table (\d+)([a-z*]?)(?:, (.+))?")
_KEYS = {paper.name: key for key, paper in PAPERS.items()}


class PublishedRow(NamedTuple):
    """A row of a paper's result table: ``# Row: FPN table 3c`` or ``# Row: RetinaNet table 1e, R-50 at 600 pixels``."""

    paper: str  # key of ``PAPERS``
    table: int
    letter: str  # of the row, or of the table's part; "" for none
    name: str  # what else tells it from its neighbours, "" for nothing

    @property
    def label(self) -> str:
        """E.g. 3c."""
        return f"{self.table}{self.letter}"

    def order(self) -> tuple[object, ...]:
        """A key that sorts the rows of a paper."""
        return (self.table, self.letter, natural(self.name))


def natural(name: str) -> list[str | int]:
    """A key that sorts names by the numbers in them: resnet50 before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class ConfigHeader(NamedTuple):
    """What the comments on top of a config say."""

    title: str
    result: str
    rows: tuple[PublishedRow, ...] = ()


def read_header(text: str) -> ConfigHeader:
    """The first comment line, and the paragraphs that start with ``# Result:`` and ``# Row:``; "" where there is none.

    Several rows stand in one paragraph, separated by semicolons. What is not of the form of a row is left out.
    """
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("#").rstrip())
    title = comments[0].strip() if comments else ""
    found = [_ROW.fullmatch(part.strip()) for part in _paragraph(comments, "Row").split(";")]
    rows = tuple(
        PublishedRow(_KEYS[match[1]], int(match[2]), match[3], match[4] or "") for match in found if match is not None
    )
    return ConfigHeader(title, _paragraph(comments, "Result"), rows)


def _paragraph(comments: Iterable[str], name: str) -> str:
    """What follows ``NAME:`` up to an empty comment or the next ``WORD:``, in one line; "" where there is none."""
    text: list[str] = []
    for comment in comments:
        if text and (not comment.strip() or re.match(r"\s?\w+:", comment)):
            break
        if comment.strip().startswith(f"{name}:"):
            text.append(comment.strip().removeprefix(f"{name}:").strip())
        elif text:
            text.append(comment.strip())
    return " ".join(text)


def short_result(result: str) -> str:
    """A header's result without what holds for nearly all: that it was not measured again."""
    return result.replace("; not re-measured here", "").rstrip(".")


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
