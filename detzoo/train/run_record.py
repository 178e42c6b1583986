"""What a run leaves beside its checkpoints: run.json (versions, commit, seed, sessions) and the marker "finished".

Reading the marker needs no TensorFlow, so that a finished run says so at once.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import platform
import sys
from typing import Any

from detzoo.folders import write_atomically
from detzoo.provenance import commit, versions

RUN_FILE = "run.json"
FINISHED_FILE = "finished"


def read_finished(model_dir: str | pathlib.Path) -> dict[str, Any] | None:
    """``{"step", "num_train_steps", "reason"}`` of a run that ended by itself and has a checkpoint, else None."""
    folder = pathlib.Path(model_dir)
    try:
        record = json.loads((folder / FINISHED_FILE).read_text(encoding="utf-8"))
        return record if (folder / "checkpoint").is_file() and "num_train_steps" in record else None
    except (OSError, ValueError, TypeError):
        return None


def write_finished(model_dir: str | pathlib.Path, step: int, num_train_steps: int, reason: str) -> None:
    """Marks a run as ended by itself."""
    record = {"step": step, "num_train_steps": num_train_steps, "reason": reason}
    write_atomically(pathlib.Path(model_dir) / FINISHED_FILE, json.dumps(record) + "\n")


def remove_finished(model_dir: str | pathlib.Path) -> None:
    """Unmarks a run that goes on."""
    (pathlib.Path(model_dir) / FINISHED_FILE).unlink(missing_ok=True)


class RunRecord:
    """run.json: what ran, one entry of ``sessions`` each time that the run was started.

    Args:
        model_dir: Of the run.
        facts: What the caller knows: seed, strategy, devices, sizes.
    """

    def __init__(self, model_dir: str | pathlib.Path, **facts: Any) -> None:
        self._file = pathlib.Path(model_dir) / RUN_FILE
        earlier: list[Any] = []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            earlier = list(json.loads(self._file.read_text(encoding="utf-8"))["sessions"])
        self._session: dict[str, Any] = {
            "started": _now(),
            "command": sys.argv,
            "versions": versions(),
            "commit": commit(),
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            **facts,
        }
        self._sessions = [*earlier, self._session]
        self.update()

    def update(self, **facts: Any) -> None:
        """Adds facts about this session and writes the file."""
        self._session.update(facts)
        write_atomically(self._file, json.dumps({"sessions": self._sessions}, indent=2) + "\n")

    def close(self, **facts: Any) -> None:
        """Notes the end of this session."""
        self.update(ended=_now(), **facts)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
