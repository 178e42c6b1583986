"""The images that a run of ``detect`` has done, kept in a file until it has finished so that the next run can resume.

The first line of the file is a JSON object of what the detections depend on; each further line is one image. A line
that a crash cut off is ignored. Memory holds the place of each line, not its detections.
"""

from __future__ import annotations

import json
import logging
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from detzoo.checkpoints import zoo

JOURNAL_FILE = ".detections.partial.jsonl"

logger = logging.getLogger(__name__)


class Journal:
    """The images that this run and an earlier one with the same settings have done; images can be added by threads.

    Args:
        folder: Folder of the results.
        made_with: JSON values that the detections depend on, besides the images.
    """

    def __init__(self, folder: pathlib.Path, made_with: Mapping[str, Any]) -> None:
        self._path, self._lock = folder / JOURNAL_FILE, threading.Lock()
        self._places: dict[str, int] = {}  # offset of the line of an image, by its name
        self._file = self._path.open("a+b")
        made_with = json.loads(json.dumps(made_with))
        head: Mapping[str, Any] = {}
        for place, line in self._lines():
            if not place:
                head = line
            elif "name" in line:
                self._places[line["name"]] = place
        if self._places and head != made_with:
            changed = sorted(key for key in {*head, *made_with} if head.get(key) != made_with.get(key))
            logger.warning("%s: %s changed since the interrupted run: starting over", folder, ", ".join(changed))
            self._places.clear()
        if not self._places:
            self._file.truncate(0)
            self._write(made_with)
        elif not self._ends_with_a_line():
            self._file.write(b"\n")

    def __len__(self) -> int:
        return len(self._places)

    def is_done(self, name: str, image: pathlib.Path, *outputs: pathlib.Path) -> bool:
        """Returns True if an image was added, has not changed, and its outputs exist; forgets it otherwise."""
        is_done = name in self._places and self._line(name)["image"] == _state(image)
        is_done = is_done and all(file.is_file() for file in outputs)
        if not is_done:
            self._places.pop(name, None)
        return is_done

    def entry(self, name: str) -> dict[str, Any] | None:
        """Returns the values that were added under a name; None if none were."""
        return self._line(name)["entry"] if name in self._places else None

    def add(self, name: str, image: pathlib.Path, entry: Mapping[str, Any]) -> None:
        """Records that an image is done, with the JSON values ``entry``, once all its files are written."""
        with self._lock:
            self._places[name] = self._write({"name": name, "image": _state(image), "entry": entry})

    def finish(self) -> None:
        """Removes the file: the next run begins with the first image."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file for a later run."""
        self._file.close()

    def _line(self, name: str) -> dict[str, Any]:
        with self._lock:
            self._file.seek(self._places[name])
            return json.loads(self._file.readline())

    def _write(self, line: Mapping[str, Any]) -> int:
        self._file.seek(0, 2)
        place = self._file.tell()
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        return place

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the place and content of each line that is a JSON object."""
        self._file.seek(0)
        place = 0
        for text in self._file:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict):
                yield place, line
            place += len(text)

    def _ends_with_a_line(self) -> bool:
        self._file.seek(-1, 2)
        return self._file.read(1) == b"\n"


def fingerprint(path: str | pathlib.Path) -> list[Any]:
    """Returns the path, size and modification time of each file of a model, one file or a folder of files."""
    model = pathlib.Path(zoo.local(path, ""))
    files = sorted(file for file in model.rglob("*") if file.is_file()) if model.is_dir() else [model]
    return [_state(file) for file in files]


def _state(file: pathlib.Path) -> list[Any]:
    try:
        found = file.stat()
    except OSError:  # it was removed meanwhile
        return [str(file)]
    return [str(file), found.st_size, found.st_mtime_ns]
