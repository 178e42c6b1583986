"""The images that a run of ``detect`` has done, kept until it has finished so that the next run can resume.

The first line of the file is a JSON object of what the detections depend on; each further line is one image. A line
that a crash cut off is ignored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from detzoo.checkpoints import zoo
from detzoo.folders import write_atomically

JOURNAL_FILE = ".detections.partial.jsonl"

logger = logging.getLogger(__name__)

Entries = list[dict[str, Any]]


class Journal:
    """The images that this run and an earlier one with the same settings have done.

    Args:
        folder: Folder of the pictures.
        made_with: JSON values that the detections depend on, besides the images.
    """

    def __init__(self, folder: pathlib.Path, made_with: Mapping[str, Any]) -> None:
        self._folder, self._file = folder, folder / JOURNAL_FILE
        made_with = json.loads(json.dumps(made_with))
        head, *done = _read_lines(self._file) or [{}]
        if done and head != made_with:
            changed = sorted(key for key in {*head, *made_with} if head.get(key) != made_with.get(key))
            logger.warning("%s: %s changed since the interrupted run: starting over", folder, ", ".join(changed))
            done = []
        self._done = {line["picture"]: line for line in done if "picture" in line}
        write_atomically(self._file, "".join(json.dumps(line) + "\n" for line in (made_with, *self._done.values())))

    def __len__(self) -> int:
        return len(self._done)

    def entries(self, image: pathlib.Path, picture: str) -> Entries | None:
        """Returns the detections of an image; None if it is not done, or has changed, or its picture is missing."""
        line = self._done.get(picture)
        if line is None or line["image"] != _state(image) or not (self._folder / picture).is_file():
            return None
        return line["entries"]

    def add(self, image: pathlib.Path, picture: str, entries: Entries) -> None:
        """Records that an image is done and its picture written."""
        line = {"image": _state(image), "picture": picture, "entries": entries}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Removes the file: the next run begins with the first image."""
        self._file.unlink(missing_ok=True)


def fingerprint(path: str | pathlib.Path) -> list[Any]:
    """Returns the path, size and modification time of each file of a model, one file or a folder of files."""
    model = pathlib.Path(zoo.local(path, ""))
    files = sorted(file for file in model.rglob("*") if file.is_file()) if model.is_dir() else [model]
    return [_state(file) for file in files]


def _state(file: pathlib.Path) -> list[Any]:
    found = file.stat()
    return [str(file), found.st_size, found.st_mtime_ns]


def _read_lines(file: pathlib.Path) -> list[dict[str, Any]]:
    lines = []
    for text in file.read_bytes().splitlines() if file.is_file() else []:
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]
