"""The checkpoints of a run: the newest ones in model_dir, the best in model_dir/best; saving and resuming."""

from __future__ import annotations

import json
import logging
import pathlib
import shutil
from typing import Any

import tensorflow as tf

from detzoo.checkpoints.files import BEST_FOLDER, BEST_RECORD, StoredCheckpoint, open_checkpoint
from detzoo.checkpoints.layout import AVERAGE, MODEL, OPTIMIZER, TRAINING, make_checkpoint, variables_by_path
from detzoo.checkpoints.restore import check_same_model
from detzoo.checkpoints.stored_weights import own_weights
from detzoo.errors import CheckpointError
from detzoo.train.trainer import Trainer

logger = logging.getLogger(__name__)


class RunCheckpoints:
    """Saves and restores a trainer.

    Killing the process at any moment is safe: TensorFlow writes new files first and renames the file ``checkpoint``,
    which names the newest one, last.

    Args:
        model_dir: Of the run.
        trainer: What is saved.
        writable: False on workers that are not the chief.
    """

    def __init__(self, model_dir: str | pathlib.Path, trainer: Trainer, writable: bool = True) -> None:
        self._folder = pathlib.Path(model_dir)
        self._trainer = trainer
        self._writable = writable
        self._average = trainer.average.averages if trainer.average else {}
        self._optimizer = variables_by_path(trainer.optimizer.variables)
        whole = make_checkpoint(
            trainer.step,
            model=trainer.model_variables,
            average=self._average,
            optimizer=self._optimizer,
            training=trainer.training_state(),
        )
        weights = make_checkpoint(trainer.step, model=trainer.model_variables, average=self._average)
        settings = trainer.settings
        self._newest = tf.train.CheckpointManager(
            whole,
            str(self._folder),
            max_to_keep=max(1, settings.keep_checkpoint_max),
            keep_checkpoint_every_n_hours=settings.keep_checkpoint_every_n_hours,
        )
        self._best = tf.train.CheckpointManager(weights, str(self._folder / BEST_FOLDER), max_to_keep=1)
        self._saved_step: int | None = None

    def latest(self) -> str | None:
        """The prefix of the newest checkpoint, None where there is none."""
        return self._newest.latest_checkpoint

    def save(self) -> None:
        """Writes ``ckpt-<step>``, unless this step is saved already; every worker must call it."""
        step = int(self._trainer.step)
        if self._saved_step == step:
            return
        self._trainer.synchronize_statistics()
        if self._writable:
            self._newest.save(checkpoint_number=step)
        self._saved_step = step

    def save_best(self, metric: str, value: float) -> None:
        """Replaces the best checkpoint by the present weights."""
        if not self._writable:
            return
        step = int(self._trainer.step)
        self._best.save(checkpoint_number=step)
        record = {"step": step, "metric": metric, "value": value}
        (self._folder / BEST_FOLDER / BEST_RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

    def restore_latest(self) -> int | None:
        """Goes on where the run was: weights, averages, optimizer, step and position in the data.

        A newest checkpoint that is damaged is passed over for the one before, with a warning.

        Returns:
            The step, None where there is no checkpoint.

        Raises:
            CheckpointError: every checkpoint is damaged, or they are of another model.
        """
        self._remove_leftovers()
        problems = []
        for prefix in self._newest_first():
            try:
                stored = open_checkpoint(prefix)
                variables = self._trainer.model_variables
                check_same_model(own_weights(stored, list(variables), prefer_average=False), variables)
                values = self._read_all(stored)
            except CheckpointError as problem:
                if "of another model" in str(problem):
                    raise
                logger.warning("%s", problem)
                problems.append(str(problem))
                continue
            for variable, value in values:
                variable.assign(value)
            self._saved_step = stored.step
            return stored.step
        if problems:
            raise CheckpointError(f"no checkpoint in {self._folder} can be read; the newest: {problems[0]}")
        return None

    def _newest_first(self) -> list[str]:
        """Complete checkpoints, also one that the process was killed right after writing: the index comes last."""
        numbered = [
            (int(file.stem.removeprefix("ckpt-")), str(file.with_suffix("")))
            for file in self._folder.glob("ckpt-*.index")
            if file.stem.removeprefix("ckpt-").isdecimal()
        ]
        return [prefix for _, prefix in sorted(numbered, reverse=True)]

    def _read_all(self, stored: StoredCheckpoint) -> list[tuple[tf.Variable, Any]]:
        """Every variable with its stored value; nothing is assigned before everything could be read."""
        model = self._trainer.model_variables
        values: list[tuple[tf.Variable, Any]] = [
            (variable, stored.read(MODEL, path)) for path, variable in model.items()
        ]
        for path, variable in self._average.items():
            section = AVERAGE if path in stored.paths(AVERAGE) else MODEL
            values.append((variable, stored.read(section, path)))
        state = self._trainer.training_state()
        values += [(state[name], stored.read(TRAINING, name)) for name in state if name in stored.paths(TRAINING)]
        slots = stored.paths(OPTIMIZER)
        if all(slots.get(path) == tuple(variable.shape) for path, variable in self._optimizer.items()):
            values += [(variable, stored.read(OPTIMIZER, path)) for path, variable in self._optimizer.items()]
        else:
            logger.warning(
                "%s has the state of another optimizer, or of other trainable variables: the optimizer starts anew",
                stored.prefix,
            )
            values.append((self._trainer.optimizer.iterations.value, stored.step))
        values.append((self._trainer.step, stored.step))
        return values

    def _remove_leftovers(self) -> None:
        """Deletes what a process that was killed while saving has left."""
        if self._writable:
            for leftover in self._folder.glob("ckpt-*_temp"):
                shutil.rmtree(leftover, ignore_errors=True)
