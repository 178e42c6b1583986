"""The checkpoints of a run: the newest ones in model_dir, the best in model_dir/best; saving and resuming."""

from __future__ import annotations

import json
import logging
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.checkpoints.files import (
    BEST_FOLDER,
    BEST_RECORD,
    StoredCheckpoint,
    indexed_prefixes,
    numbered_prefixes,
    open_checkpoint,
    why_incomplete,
)
from detzoo.checkpoints.layout import AVERAGE, MODEL, OPTIMIZER, TRAINING, make_checkpoint, variables_by_path
from detzoo.checkpoints.restore import check_same_model
from detzoo.checkpoints.stored_weights import own_weights
from detzoo.errors import CheckpointError
from detzoo.folders import full_disk, write_atomically
from detzoo.train.trainer import Trainer

MAX_REASON_LENGTH = 300  # characters of an error in a message

logger = logging.getLogger(__name__)


class RunCheckpoints:
    """Checkpoints of a trainer: saving and restoring; ``writable`` is False on workers other than the chief.

    The process may be killed at any moment: TensorFlow writes new files first and then renames the file ``checkpoint``,
    which names the newest one.
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
        max_to_keep, hours = max(1, settings.keep_checkpoint_max), settings.keep_checkpoint_every_n_hours
        if writable:
            for folder, kept in ((self._folder, max_to_keep), (self._folder / BEST_FOLDER, 1)):
                _renew_index(folder, kept)
            self._newest = tf.train.CheckpointManager(whole, str(self._folder), max_to_keep, hours)
            self._best = tf.train.CheckpointManager(weights, str(self._folder / BEST_FOLDER), max_to_keep=1)
        self._saved_step: int | None = None

    def latest(self) -> str | None:
        """Returns the prefix of the newest checkpoint, or None."""
        return next(iter(saved_prefixes(self._folder)), None)

    def save(self) -> None:
        """Writes ``ckpt-<step>``, unless this step is saved already; every worker must call it.

        Raises:
            DiskFullError: The disk is full. Earlier checkpoints are unchanged.
        """
        step = int(self._trainer.step)
        if self._saved_step == step:
            return
        self._trainer.synchronize_statistics()
        if self._writable:
            self._write(self._newest, self._folder, step)
        self._saved_step = step

    def save_best(self, metric: str, value: float) -> None:
        """Replaces the best checkpoint by the present weights."""
        if not self._writable:
            return
        step = int(self._trainer.step)
        self._write(self._best, self._folder / BEST_FOLDER, step)
        record = {"step": step, "metric": metric, "value": value}
        write_atomically(self._folder / BEST_FOLDER / BEST_RECORD, json.dumps(record) + "\n")

    def _write(self, manager: tf.train.CheckpointManager, folder: pathlib.Path, step: int) -> None:
        """Writes a checkpoint; removes its parts after a failure."""
        try:
            manager.save(checkpoint_number=step)
        except Exception as problem:
            self._remove_leftovers(folder)
            if why_incomplete(str(folder / f"ckpt-{step}")):
                for file in folder.glob(f"ckpt-{step}.*"):
                    file.unlink(missing_ok=True)
            parts = [self._trainer.model_variables, self._average, *([self._optimizer] * (manager is self._newest))]
            needed = sum(v.dtype.size * int(np.prod(v.shape)) for part in parts for v in part.values())
            reason = str(problem).splitlines()[0][:MAX_REASON_LENGTH]
            raise full_disk(problem, folder, needed) or CheckpointError(
                f"the checkpoint of step {step} cannot be written to {folder} ({type(problem).__name__}: {reason}); "
                "those before are kept"
            ) from problem

    def restore_latest(self) -> int | None:
        """Restores weights, averages, optimizer, step and position in the data. Returns the step, None for a new run.

        If the newest checkpoint is damaged, the one before is restored, with a warning.

        Raises:
            CheckpointError: All checkpoints are damaged, or belong to another model.
        """
        self._remove_leftovers(self._folder)
        problems = []
        for prefix in saved_prefixes(self._folder):
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

    def _read_all(self, stored: StoredCheckpoint) -> list[tuple[tf.Variable, Any]]:
        """Returns all variables with stored values. Nothing is assigned before all values are read."""
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
                "%s has the state of another optimizer, or of other trainable variables: the optimizer starts "
                "from its initial state",
                stored.prefix,
            )
            values.append((self._trainer.optimizer.iterations.value, stored.step))
        values.append((self._trainer.step, stored.step))
        return values

    def _remove_leftovers(self, folder: pathlib.Path) -> None:
        """Deletes parts of a checkpoint that a killed process or a full disk left."""
        if self._writable:
            for leftover in folder.glob("ckpt-*_temp"):
                shutil.rmtree(leftover, ignore_errors=True)
            for leftover in folder.glob("checkpoint.tmp*"):
                leftover.unlink(missing_ok=True)


def saved_prefixes(folder: pathlib.Path) -> list[str]:
    """Returns prefixes ``ckpt-<step>``, including one that the file ``checkpoint`` does not name yet."""
    return [prefix for prefix in numbered_prefixes(folder) if re.fullmatch(r"ckpt-\d+", pathlib.Path(prefix).name)]


def _renew_index(folder: pathlib.Path, max_to_keep: int) -> None:
    """Rewrites the file ``checkpoint`` if it is damaged or does not name the newest complete checkpoint.

    Checkpoints older than the ``max_to_keep`` newest stay on disk.
    """
    if not folder.is_dir():
        return
    indexed = [pathlib.Path(prefix).name for prefix in indexed_prefixes(folder)]
    present = {pathlib.Path(prefix).name: prefix for prefix in reversed(saved_prefixes(folder))}
    if present and indexed[-1:] == list(present)[-1:] and set(indexed) <= set(present):
        return
    if not present and not indexed:
        (folder / "checkpoint").unlink(missing_ok=True)  # names no checkpoint, and the manager may fail to read it
    whole = [name for name, prefix in present.items() if why_incomplete(prefix) is None][-max_to_keep:]
    if whole and whole != indexed:
        times = [(folder / f"{name}.index").stat().st_mtime for name in whole]
        paths = [str(folder / name) for name in whole]
        tf.compat.v1.train.update_checkpoint_state(
            str(folder), paths[-1], paths, all_model_checkpoint_timestamps=times, last_preserved_timestamp=times[0] - 1
        )
        logger.info("%s is written from the checkpoints that are there: %s", folder / "checkpoint", ", ".join(whole))
