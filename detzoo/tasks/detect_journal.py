"""The images that a run has done: kept until it has finished, so that the next run can continue behind them.

One line of JSON that says how the detections are made, then one per image. A line that a crash cut off is ignored.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from detzoo.folders import write_atomically

JOURNAL_FILE = ".detections.partial.jsonl"

logger = logging.getLogger(__name__)

Entries = list[dict[str, Any]]


class Journal:
    """The images that an earlier run with the same settings has done, and those that this one does.

    Args:
        folder: Folder of the pictures.
        made_with: What the detections depend on besides the images; JSON values.
    """

    def __init__(self, folder: pathlib.Path, made_with: Mapping[str, Any]) -> None:
        self._folder, self._file = folder, folder / JOURNAL_FILE
        made_with = json.loads(json.dumps(made_with))
        head, *done = _read_lines(self._file) or [{}]
        if done and head != made_with:
            changed = sorted(key for key in {*head, *made_with} if head.get(key) != made_with.get(key))
            logger.warning("%s: %s changed since the run that was stopped: starting over", folder, ", ".join(changed))
            done = []
        self._done = {line["picture"]: line for line in done if "picture" in line}
        write_atomically(self._file, "".join(json.dumps(line) + "\n" for line in (made_with, *self._done.values())))

    def __len__(self) -> int:
        return len(self._done)

    def entries(self, image: pathlib.Path, picture: str) -> Entries | None:
        """Returns the detections of an image; None if it is not done, or has changed, or its picture is gone."""
        line = self._done.get(picture)
        if line is None or line["image"] != _state(image) or not (self._folder / picture).is_file():
            return None
        return line["entries"]

    def add(self, image: pathlib.Path, picture: str, entries: Entries) -> None:
        """Notes that an image is done and its picture written."""
        line = {"image": _state(image), "picture": picture, "entries": entries}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Removes the file: the next run begins with the first image."""
        self._file.unlink(missing_ok=True)


def _state(image: pathlib.Path) -> list[Any]:
    """Path, size in bytes and time of the last change of a file."""
    found = image.stat()
    return [str(image), found.st_size, found.st_mtime_ns]


def _read_lines(file: pathlib.Path) -> list[dict[str, Any]]:
    lines = []
    if file.is_file():
        for text in file.read_bytes().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                lines.append(line)
    return lines


def fingerprint(path: str | pathlib.Path) -> list[Any]:
    """Returns the name, size and time of the last change of each file of a model: a file, or a folder."""
    model = pathlib.Path(path)
    files = sorted(file for file in model.rglob("*") if file.is_file()) if model.is_dir() else [model]
    return [_state(file) for file in files]
