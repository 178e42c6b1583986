"""Trainings of several steps: each step has a folder with a done-mark, the run has one record and one checkpoint.

``Recipe`` runs the steps of ``four_step`` and ``spp.chain``. If a signal ends the training, the same call continues
with the first step that is not finished.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from detzoo.config.diff import Difference, diff_configs
from detzoo.config.load import load_pipeline, save_pipeline
from detzoo.errors import UsageError
from detzoo.folders import CONFIG_FILE, read_record, write_atomically
from detzoo.train.run_record import RunRecord, read_finished
from detzoo.train.stop import StopRequest

_RUN_MARKS = ("ckpt-*.index", "checkpoint", "run.json")

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FinishedRecipe:
    """Result of a finished recipe."""

    checkpoint: str  # prefix of the checkpoint of the whole model
    made: tuple[tuple[str, str], ...]  # (path, content) of each result, the checkpoint last


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Kind of training with several steps."""

    name: str  # name in messages and run.json, such as "4-step training"
    article: str  # article of the name in sentences, "the " or ""
    source: str  # paper and section
    file: str  # name of the JSON file by which a folder is known to belong to this recipe
    end: str = "finished"  # entry of run.json for a run that finished

    def is_finished(self, folder: pathlib.Path) -> bool:
        """Returns whether a run in the folder ended with its checkpoint."""
        return (folder / self.file).is_file() and read_finished(folder) is not None

    def differences(self, folder: pathlib.Path, pipeline: Any) -> list[Difference]:
        """Returns the differences of a config from that of the run in the folder; none for a new run.

        Raises:
            UsageError: The folder has another kind of run.
        """
        found = [entry.name for mark in _RUN_MARKS for entry in sorted(folder.glob(mark))]
        if found and not (folder / self.file).is_file():
            raise UsageError(
                f"--model_dir {folder} has another run in it ({', '.join(found[:3])}), not one of {self.article}"
                f"{self.name}; name another folder"
            )
        if not (folder / CONFIG_FILE).is_file():
            return []
        return diff_configs(load_pipeline(str(folder / CONFIG_FILE)).message, pipeline)

    def write(self, folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
        """Stores facts in the JSON file that marks a folder of this recipe."""
        content = {"recipe": self.source, **facts}
        write_atomically(folder / self.file, json.dumps(content, indent=2) + "\n")

    def read(self, folder: pathlib.Path) -> dict[str, Any]:
        """Returns the stored facts, or {} if there are none."""
        return read_record(folder / self.file)

    def check_machine(self, strategy_name: str) -> None:
        """Raises a UsageError if the run uses several machines."""
        from detzoo.train.strategy import workers_of_environment

        if strategy_name == "multi_worker" or workers_of_environment() > 1:
            name = f"{self.article}{self.name}"
            raise UsageError(f"{name} runs on one machine: unset TF_CONFIG, use --strategy auto")

    def run(
        self,
        folder: pathlib.Path,
        pipeline: Any,
        steps: Sequence[tuple[str, Callable[[str], bool]]],
        finish: Callable[[], Result],
        stop: StopRequest,
        **facts: Any,
    ) -> Result | None:
        """Runs the remaining steps. Returns the result of ``finish``, or None if a signal came first.

        Args:
            folder: Folder of the run.
            pipeline: ``TrainEvalPipelineConfig`` of the run, which is stored.
            steps: Folder and function of each step. The function receives the step's label for the log, skips what is
                done already, and returns False if a signal came first.
            finish: Function that makes the checkpoint from the results of the steps.
            stop: Stop request, entered already.
            **facts: Facts for run.json.
        """
        save_pipeline(pipeline, folder / CONFIG_FILE)
        record = RunRecord(folder, recipe=self.name, **facts)
        for number, (name, step) in enumerate(steps, start=1):
            if stop.requested or not step(f"[{number}/{len(steps)}] {name}"):
                signal = stop.signal.name if stop.signal else "a signal"
                record.close(last_step=name, ended_by=f"stopped by {signal}")
                return None
        result = finish()
        record.close(last_step=steps[-1][0], ended_by=self.end)
        return result
