"""The outer loop: steps, progress, checkpoints, evaluation, the best checkpoint and early stopping."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.config.batch_norm import HOW_TO_RECOMPUTE, arrival_warning
from detzoo.config.names import listed
from detzoo.detectors.batch_norm_statistics import layers_with_moving_statistics
from detzoo.detectors.training_losses import all_reduce_sum
from detzoo.errors import ConfigError, DetzooError, TrainingError, UsageError
from detzoo.folders import full_disk
from detzoo.optim.schedules import PlateauRate
from detzoo.progress import duration
from detzoo.train.progress import Progress
from detzoo.train.run_record import remove_finished, write_finished
from detzoo.train.saving import RunCheckpoints
from detzoo.train.selection import Selection, metric_name, metric_value
from detzoo.train.stop import StopNow, StopRequest
from detzoo.train.strategy import is_chief, num_workers
from detzoo.train.summaries import EVAL, Summaries
from detzoo.train.trainer import GRADIENT_NORM, LEARNING_RATE, TOTAL, LoopResult, Trainer

# Duration of the steps of one call: short enough for a live progress line and a quick response to SIGTERM.
LOOP_SECONDS = 1.0
MAX_REASON_LENGTH = 1000  # characters of an error in a message

STEPS_WITHOUT_OBJECTS = 200  # or one epoch, after which training stops if no batch had an object

MAX_NAMED_RECORDS = 64  # of a batch with a loss that is not finite

REASONS_NOT_COUNTED = {
    "crowd": "crowds (image/object/is_crowd or group_of is 1)",
    "weight 0": "of weight 0 (image/object/weight)",
    "no mask": "without a mask, which the loss of this detector needs",
}

Evaluate = Callable[[Any], Mapping[str, float]]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run: ``finished`` is False after a request to stop; ``reason`` is text."""

    step: int
    finished: bool
    reason: str


class TrainingLoop:
    """Loop that runs a trainer to the last step, with all results in ``model_dir``.

    ``evaluate`` maps a detector to metrics by name, {} on workers other than the chief; None for no evaluation.
    """

    def __init__(
        self,
        trainer: Trainer,
        model_dir: str | pathlib.Path,
        evaluate: Evaluate | None,
        stop: StopRequest,
        progress: Progress | None = None,
        summaries: Summaries | None = None,
    ) -> None:
        self._trainer, self._settings, self._model_dir = trainer, trainer.settings, pathlib.Path(model_dir)
        self._is_chief = is_chief(trainer.strategy)
        self._num_workers = num_workers(trainer.strategy)
        self._evaluate = evaluate if self._settings.eval_every_n_steps > 0 else None
        self._stop = stop
        settings = self._settings
        self._progress = progress or Progress(
            settings.num_steps, settings.batch_size, settings.log_every_n_steps, silent=not self._is_chief
        )
        self.checkpoints = RunCheckpoints(model_dir, trainer, self._is_chief)
        self._selection = Selection(
            model_dir, settings.best_checkpoint_metric, settings.early_stopping, writable=self._is_chief
        )
        schedule = trainer.optimizer._learning_rate  # learning_rate is its value at the current step
        self._plateau_rate = schedule if isinstance(schedule, PlateauRate) else None
        if self._plateau_rate is not None and self._evaluate is None:
            raise ConfigError(
                "train_config.optimizer: plateau_learning_rate needs evaluations while training, and there are none; "
                "set train_config.eval_every_n_steps, or choose another schedule for trainings in several steps"
            )
        self._summaries = summaries or Summaries(model_dir, self._is_chief)
        self._step_seconds: float | None = None  # unknown before the second loop
        self._step = int(trainer.step)
        self._evaluated_step: int | None = None  # also if it failed
        self._num_failed = 0
        self._evaluation_problem: str | None = None  # of the last evaluation
        self._first_step = self._step
        self._has_objects = False  # in any batch of this session
        self._sum_over_workers = tf.function(self._reduce, autograph=False)
        self._momenta = [layer.momentum for layer in layers_with_moving_statistics(trainer.detector)]
        self._recomputed_step: int | None = None

    def run(self) -> Outcome:
        """Trains until the last step, an early stop, a signal, or the end of the data; saves in each of these cases.

        After a failed evaluation the weights are saved and training continues. If the last evaluation fails, the run
        is not marked as finished, so the same command evaluates again.

        Raises:
            TrainingError: No batch had an object, the loss was not finite, memory was exhausted, or the last evaluation
                failed.
            DiskFullError: A checkpoint could not be written; earlier checkpoints are kept.
        """
        self._step = self._first_step = int(self._trainer.step)
        self._starts_with_data = int(self._trainer.next_record) == 0
        self._selection.resume(self._step)
        self._count_drops()
        self._stop.listen_again()
        try:
            outcome = self._train()
        except tf.errors.ResourceExhaustedError as problem:
            raise full_disk(problem) or TrainingError(
                f"out of memory after step {self._step}: {str(problem).splitlines()[0][:200]}. Lower "
                f"train_config.batch_size (now {self._settings.batch_size}) or the size in image_resizer"
            ) from None
        finally:
            self._progress.close()
            self._summaries.close()
        self._report_failures(outcome)
        if outcome.finished and self._is_chief:
            write_finished(self._model_dir, outcome.step, self._settings.num_steps, outcome.reason)
        return outcome

    def _train(self) -> Outcome:
        settings = self._settings
        if self._is_chief and self._step < settings.num_steps:
            remove_finished(self._model_dir)
        reason = self._evaluate_if_due()
        if reason:
            return self._end(True, f"stopped early: {reason}")
        if self._step < settings.num_steps:
            self._progress.message("building the input and tracing the first step ...")
        while self._step < settings.num_steps:
            stop, num_steps = self._agree(self._stop.requested, self._next_num_steps())
            if stop:
                return self._end(False, f"stopped by {self._stop.signal.name if self._stop.signal else 'a worker'}")
            try:
                self._run_steps(num_steps)
            except tf.errors.OutOfRangeError:
                self._step = int(self._trainer.step)
                return self._end(True, "the training data ended (train_input_reader.num_epochs)")
            if self._at(settings.checkpoint_every_n_steps):
                self._recompute_statistics()
                self.checkpoints.save()
            reason = self._evaluate_if_due()
            if reason:
                return self._end(True, f"stopped early: {reason}")
        return self._end(True, "reached num_train_steps")

    def _end(self, finished: bool, reason: str) -> Outcome:
        if self._step > 0:
            if finished:  # not after a signal: the checkpoint must not wait
                self._recompute_statistics()
            self.checkpoints.save()
        if finished:
            self._check_objects(last=True)
            self._evaluate_if_due(last=True)
        return Outcome(self._step, finished, reason)

    def _run_steps(self, num_steps: int) -> None:
        """Runs some steps and reports their values."""
        started = time.monotonic()
        result = self._trainer.run_steps(num_steps)
        seconds = time.monotonic() - started
        self._step = result.step
        if result.failed_step is not None:
            raise TrainingError(self._describe_failure(result))
        self._check_objects()
        is_first = self._step_seconds is None
        self._step_seconds = 0.0 if is_first else seconds / num_steps
        self._progress.update(result, None if is_first else self._step_seconds)
        if self._at(self._settings.log_every_n_steps):
            self._summaries.training(result, self._progress.images_per_second)

    def _check_objects(self, last: bool = False) -> None:
        """Raises a TrainingError on all workers if the first epoch, or first 200 steps, had no object that counts."""
        num_steps = self._step - self._first_step
        if self._has_objects or num_steps == 0:
            return
        objects, end = self._trainer.objects(), self._trainer.issue.first_epoch_end
        self._has_objects = objects["counted"] > 0
        if self._has_objects:
            return
        epoch_ended = self._starts_with_data and end is not None and int(self._trainer.next_record) >= end
        # All workers have the same position, but do not read the end of the epoch at the same step.
        if self._agree(last or epoch_ended or num_steps >= STEPS_WITHOUT_OBJECTS, 0)[0]:
            raise TrainingError(_describe_no_objects(num_steps, objects, self._trainer.issue.counts()))

    def _next_num_steps(self) -> int:
        """Returns the number of steps until the next action is due, at most those of about LOOP_SECONDS."""
        settings = self._settings
        intervals = [settings.log_every_n_steps, settings.checkpoint_every_n_steps, settings.eval_every_n_steps]
        until_due = [interval - self._step % interval for interval in intervals if interval > 0]
        if not self._has_objects:
            until_due.append(max(1, self._first_step + STEPS_WITHOUT_OBJECTS - self._step))
        most = min([settings.num_steps - self._step, *until_due])
        if not self._step_seconds:
            return 1  # the first step traces, the second one gives the speed
        return max(1, min(most, round(LOOP_SECONDS / self._step_seconds)))

    def _at(self, interval: int) -> bool:
        return interval > 0 and self._step % interval == 0

    def _evaluate_if_due(self, last: bool = False) -> str | None:
        """Evaluates if an evaluation is due and not done yet. Returns a reason for an early stop, or None."""
        due = last or self._at(self._settings.eval_every_n_steps)
        done = self._selection.has(self._step) or self._evaluated_step == self._step
        if self._evaluate is None or self._step == 0 or not due or done:
            return None
        self._recompute_statistics()
        self._evaluated_step = self._step
        self._trainer.synchronize_statistics()
        reason = self._run_evaluation(self._evaluate)
        self._count_drops()
        stop, _ = self._agree(reason is not None, 0)
        return (reason or "see the chief's log") if stop and not last else None

    def _run_evaluation(self, evaluate: Evaluate) -> str | None:
        """Evaluates, unless a signal comes. Returns a reason for an early stop, or None."""
        self._progress.message(f"evaluating at step {self._step} ...")
        started = time.monotonic()
        try:
            # A shared evaluation exchanges detections, and chooses itself where a signal may end it.
            guard = self._stop.interruptible() if self._num_workers == 1 else contextlib.nullcontext()
            with self._trainer.weights_for_evaluation() as detector, guard:
                metrics = evaluate(detector)
            if not self._is_chief:
                self._selection.add(self._step, {})
                return None
            self._note_evaluation(metrics, time.monotonic() - started)
            self._evaluation_problem = None
            return self._selection.should_stop()
        except StopNow:
            return None
        except (ConfigError, UsageError):
            self.checkpoints.save()
            raise
        except Exception as problem:
            self._note_failed_evaluation(problem)
            return None

    def _note_failed_evaluation(self, problem: Exception) -> None:
        """Saves the weights of the failed evaluation and reports the failure."""
        logger.debug("the failed evaluation:", exc_info=problem)
        self._num_failed += 1
        shown = full_disk(problem) or problem
        text = str(shown) if isinstance(shown, DetzooError) else f"{type(shown).__name__}: {shown}"
        self._evaluation_problem = text[:MAX_REASON_LENGTH]
        self.checkpoints.save()
        logger.error(
            "the evaluation at step %d failed, training continues (%s has the weights; --debug shows where): %s",
            self._step,
            self.checkpoints.latest(),
            self._evaluation_problem,
        )

    def _report_failures(self, outcome: Outcome) -> None:
        """Reports the numbers of failed evaluations and events; raises a TrainingError if the last one failed."""
        if self._summaries.num_failures:
            logger.error("TensorBoard's events could not be written %d times", self._summaries.num_failures)
        if self._num_failed:
            logger.error("%d evaluations of this session failed", self._num_failed)
        if outcome.finished and self._evaluation_problem is not None:
            raise TrainingError(
                f"step {outcome.step}: {outcome.reason}; {self.checkpoints.latest()} is saved, but its evaluation "
                f"failed: {self._evaluation_problem}. The same command evaluates again; `detzoo evaluate` does so too"
            )

    def _note_evaluation(self, metrics: Mapping[str, float], seconds: float) -> None:
        metric = metric_name(metrics, self._settings.best_checkpoint_metric, "best_checkpoint_metric")
        is_best = self._selection.is_best(metrics)
        if is_best:
            self.checkpoints.save_best(metric, abs(metric_value(metrics, metric)))
        self._selection.add(self._step, metrics)
        self._summaries.metrics(EVAL, self._step, metrics)
        shown = [name for name in ("mAP", "mAP@.50IOU", metric) if name in metrics] or list(metrics)[:3]
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in dict.fromkeys(shown))
        best = self._selection.best()
        against = "  (best so far)" if is_best else f"  (best {best[1]:.4f} at step {best[0]})" if best else ""
        self._progress.message(f"evaluation at step {self._step}: {values}{against}  in {duration(seconds)}")
        warning = arrival_warning(self._momenta, self._step)
        if warning and self._recomputed_step != self._step:
            self._progress.warning(f"{warning}. {HOW_TO_RECOMPUTE}")

    def _count_drops(self) -> None:
        """Lowers the learning rate after each plateau in the history of evaluations."""
        if self._plateau_rate is None or self._settings.plateau is None:
            return
        found = self._selection.num_plateaus(self._settings.plateau) if self._is_chief else 0
        num_drops = self._agree(False, found)[1]
        if num_drops > self._plateau_rate.num_drops:
            self._plateau_rate.num_drops.assign(float(num_drops))
            rate = float(self._plateau_rate(self._step))
            self._progress.message(f"learning rate {rate:g} from step {self._step} on, after {num_drops} plateau(s)")

    def _recompute_statistics(self) -> None:
        """Recomputes statistics once per step if the settings request it. Training continues if that fails."""
        num_batches = self._settings.recompute_batch_norm_batches
        if not num_batches or not self._momenta or self._recomputed_step == self._step:
            return
        self._progress.message(f"recomputing batch normalization from {num_batches} training batches ...")
        try:
            self._trainer.recompute_statistics()
        except DetzooError as problem:
            logger.warning("batch normalization keeps its moving averages: %s", problem)
        self._recomputed_step = self._step

    def _describe_failure(self, result: LoopResult) -> str:
        values = dict(result.failed_values)
        rate, norm = values.pop(LEARNING_RATE), values.pop(GRADIENT_NORM)
        values.pop(TOTAL)
        parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
        is_loss = not all(map(math.isfinite, values.values()))
        what = "the loss is" if is_loss else "the loss is finite, its gradients are"
        part = "" if self._num_workers == 1 else " (this worker's part)"
        kept = self.checkpoints.latest()
        advice = (
            f"The last good checkpoint is kept: {kept}; training again continues from it."
            if kept
            else "There is no checkpoint yet; training again starts from the beginning."
        )
        return (
            f"{what} not finite at step {result.failed_step}: {parts}; learning rate {rate:g}, gradient norm {norm:g}. "
            f"Its batch{part} has the images {_listed(result.failed_records)}: look at these records first. Else "
            f"lower the learning rate, lengthen its warm-up, or set train_config.gradient_clipping_by_norm. {advice}"
        )

    def _agree(self, stop: bool, num_steps: int) -> tuple[bool, int]:
        """Returns whether any worker must stop, and the chief's number of steps, so that all workers do the same."""
        if self._num_workers == 1:
            return stop, num_steps
        own = tf.constant([float(stop), float(num_steps if self._is_chief else 0)], tf.float32)
        requests, steps = np.asarray(self._sum_over_workers(own))
        return bool(requests > 0), round(float(steps))

    def _reduce(self, own: tf.Tensor) -> tf.Tensor:
        """Returns the sum over workers of a vector; each worker counts once for any number of replicas."""
        strategy = self._trainer.strategy
        share = own * (self._num_workers / strategy.num_replicas_in_sync)
        # The replica makes a copy, because the argument has no device and a reduction needs one.
        results = strategy.run(lambda: all_reduce_sum(tf.identity(share)))
        return strategy.experimental_local_results(results)[0]


def _listed(records: Sequence[tuple[str, int]]) -> str:
    return listed([f"'{image_id}' (record {position})" for image_id, position in records], MAX_NAMED_RECORDS)


def _describe_no_objects(num_steps: int, objects: Mapping[str, int], issues: Mapping[str, int]) -> str:
    """Returns the reason why no object of ``num_steps`` steps counts, and advice."""
    ignored = {kind: count for kind, count in objects.items() if count}
    dropped = {kind: issues[kind] for kind in ("unknown_class", "nan_box", "empty_box") if issues.get(kind)}
    found = [f"{count} objects are {REASONS_NOT_COUNTED[kind]}" for kind, count in ignored.items()]
    found += [f"{count} objects were dropped as {kind}" for kind, count in dropped.items()]
    if not found:
        found = ["the records have no boxes (image/object/bbox/ymin, xmin, ymax, xmax), or augmentation removes all"]
    advice = "`detzoo dataset inspect --input_path ... --label_map ...` lists the content of the records"
    if "unknown_class" in dropped:
        advice = "train_input_reader.label_map_path has other names or ids than the records; " + advice
    if "crowd" in ignored:
        advice = "import them with is_crowd 0 if they are single objects; " + advice
    return f"no object to learn from in {num_steps} steps: {'; '.join(found)}. To fix it: {advice}"
