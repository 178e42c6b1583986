"""The table of model_configs/: input size, parameters and multiply-adds, kept in models.csv in that folder.

Building all models takes minutes, so ``detzoo models --refresh`` writes the numbers once. Each row has a digest of the
model block; a row whose config has changed since is marked.
"""

from __future__ import annotations

import csv
import hashlib
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

TABLE_FILE = "models.csv"
IMAGE_SHAPE = (480, 640)  # (height, width) in pixels, for configs with an input size that depends on the image
NUM_GIVEN_PROPOSALS = 1000  # for models that classify given regions; arXiv:1612.03144, section 5.2


class ModelRow(NamedTuple):
    """A row of the table."""

    config: str  # file name without .config
    input_size: str  # HEIGHTxWIDTH of the padded input, of a 480 x 640 image if it depends on the image
    parameters: int
    multiply_adds: int
    digest: str  # of the model block


class Paper(NamedTuple):
    """A paper with result tables whose rows have configs here."""

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
    """A row of a paper's result table, e.g. ``# Row: RetinaNet table 1e, R-50 at 600 pixels``."""

    paper: str  # key of ``PAPERS``
    table: int
    letter: str  # of the row or of the table's part; "" for none
    name: str  # distinguishes rows with the same table and letter; "" for none

    @property
    def label(self) -> str:
        """Table and letter, e.g. 3c."""
        return f"{self.table}{self.letter}"

    def order(self) -> tuple[object, ...]:
        """Returns a key that sorts the rows of a paper."""
        return (self.table, self.letter, natural(self.name))


def natural(name: str) -> list[str | int]:
    """Returns a key that sorts names by the numbers in them: resnet50 before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class ConfigHeader(NamedTuple):
    """The comments on top of a config."""

    title: str
    result: str
    rows: tuple[PublishedRow, ...] = ()


def read_header(text: str) -> ConfigHeader:
    """Reads the title and the Result and Row paragraphs of a config; missing ones are empty.

    Rows of one paragraph are separated by semicolons. Texts that do not have the form of a row are skipped.
    """
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("#").rstrip())
    title = comments[0].strip() if comments else ""
    found = [_ROW.fullmatch(part.strip()) for part in _paragraph(comments, "Row").split(";")]
    rows = tuple(PublishedRow(_KEYS[match[1]], int(match[2]), match[3], match[4] or "") for match in found if match)
    return ConfigHeader(title, _paragraph(comments, "Result"), rows)


def _paragraph(comments: Iterable[str], name: str) -> str:
    """Joins the lines after ``NAME:``, up to an empty comment or the next ``WORD:``."""
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
    """Removes the note that the result was not measured again, which nearly all headers have."""
    return result.replace("; not re-measured here", "").rstrip(".")


def digest_of(text: str) -> str:
    """Returns a short digest of a model block's text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def read_table(folder: pathlib.Path) -> dict[str, ModelRow]:
    """Reads the rows by config; {} if there is no table."""
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
