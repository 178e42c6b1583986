"""The records of a run: run.json (versions, commit, seed, sessions) and the marker "finished".

Reading the marker needs no TensorFlow, so a finished run is reported immediately.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
import sys
from typing import Any

from detzoo.folders import FINISHED_FILE, read_record, write_atomically
from detzoo.provenance import commit, versions

RUN_FILE = "run.json"


def read_finished(model_dir: str | pathlib.Path) -> dict[str, Any] | None:
    """Returns ``{"step", "num_train_steps", "reason"}`` of a finished run with a checkpoint, else None."""
    folder = pathlib.Path(model_dir)
    record = read_record(folder / FINISHED_FILE)
    return record if (folder / "checkpoint").is_file() and "num_train_steps" in record else None


def write_finished(model_dir: str | pathlib.Path, step: int, num_train_steps: int, reason: str) -> None:
    """Writes the mark of a finished run."""
    record = {"step": step, "num_train_steps": num_train_steps, "reason": reason}
    write_atomically(pathlib.Path(model_dir) / FINISHED_FILE, json.dumps(record) + "\n")


def remove_finished(model_dir: str | pathlib.Path) -> None:
    """Removes the mark of a run that continues."""
    (pathlib.Path(model_dir) / FINISHED_FILE).unlink(missing_ok=True)


class RunRecord:
    """The file run.json with an entry of ``sessions`` for each start of the run.

    Args:
        model_dir: Folder of the run.
        facts: Facts about the session, such as seed, strategy, devices, sizes.
    """

    def __init__(self, model_dir: str | pathlib.Path, **facts: Any) -> None:
        self._file = pathlib.Path(model_dir) / RUN_FILE
        earlier = read_record(self._file).get("sessions")
        self._session: dict[str, Any] = {
            "started": _now(),
            "command": sys.argv,
            "versions": versions(),
            "commit": commit(),
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            **facts,
        }
        self._sessions = [*(earlier if isinstance(earlier, list) else []), self._session]
        self.update()

    def update(self, **facts: Any) -> None:
        """Adds facts about this session and writes the file."""
        self._session.update(facts)
        write_atomically(self._file, json.dumps({"sessions": self._sessions}, indent=2) + "\n")

    def close(self, **facts: Any) -> None:
        """Adds the end of this session."""
        self.update(ended=_now(), **facts)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
