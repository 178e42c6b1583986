"""Remaining points and trainings of a sweep with their expected times, and the texts that describe them."""

from __future__ import annotations

import collections
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from detzoo.benchmark.models import read_table
from detzoo.config.names import counted
from detzoo.progress import duration
from detzoo.sweep.columns import Status
from detzoo.sweep.plan.points import Point
from detzoo.sweep.plan.sweep_plan import SweepPlan
from detzoo.sweep.results import Row
from detzoo.sweep.run import estimate
from detzoo.sweep.run.parts import Shard, part_of
from detzoo.sweep.run.trainings import is_trained, num_steps, trainings_of

_UNKNOWN_EVAL_IMAGES = 5000  # as in COCO's validation set


class Todo:
    """The points of one part of a sweep that are not measured yet, and the trainings that they need.

    Attributes:
        all_points: Every point of the part.
        points: Those to measure.
        trainings: Key -> point of each training that has not ended.
        expected: Key of a point or training -> expected seconds.
    """

    def __init__(
        self,
        plan: SweepPlan,
        rows: Sequence[Row],
        output_dir: pathlib.Path,
        shard: Shard,
        retry_failed: bool = True,
        jobs: int = 1,
    ) -> None:
        self.plan, self.output_dir, self.jobs, self._shard = plan, output_dir, jobs, shard
        self.all_points = part_of(plan.points, shard, lambda point: point.training_key or point.key)
        self._status = {row["key"]: row["status"] for row in rows}
        kept = {Status.OK.value} if retry_failed else {status.value for status in Status}
        self.points = [point for point in self.all_points if self._status.get(point.key) not in kept]
        self.trainings = {
            training.training_key: training
            for point in reversed(self.points)
            for training in trainings_of(point)
            if not is_trained(output_dir, training.training_key)
        }
        self.expected = self._expected_seconds(rows)

    def summary(self) -> str:
        """Returns the number of points, the excluded combinations with their reasons, and the expected time."""
        plan, num_points = self.plan, len(self.all_points)
        lines = [plan.message.description] if plan.message.description else []
        part = f"; this is part {self._shard.index} of {self._shard.count}" if self._shard.count > 1 else ""
        points = f"{num_points} of {len(plan.points)} points" if part else counted(num_points, "point")
        lines.append(f"{points}{self._composition()}{part}")
        left_out = sum(len(exclusion.matched) for exclusion in plan.exclusions)
        if left_out:
            lines.append(f"{left_out} combinations left out:")
            lines += [f"  {len(each.matched):>4}  {each.reason} E.g. {each.matched[0]}" for each in plan.exclusions]
        lines += self._accuracy_lines()
        kept = num_points - len(self.points)
        statuses = collections.Counter(self._status.get(point.key) for point in self.all_points)
        failed, skipped = statuses[Status.FAILED.value], statuses[Status.SKIPPED.value]
        if kept or failed or skipped:
            counts = [*([f"{failed} that failed"] if failed else [])]
            counts += [f"{skipped} that {'was' if skipped == 1 else 'were'} skipped"] if skipped else []
            verb = "is" if failed + skipped == 1 else "are"
            again = f", {' and '.join(counts)} {verb} tried again" if self.points and counts else ""
            lines.append(f"{kept} measured already{again}; {len(self.points)} to do")
        if self.points:
            trained = f" ({counted(len(self.trainings), 'training')} first)" if self.trainings else ""
            on_gpu = any(point.how.device == "GPU" for point in self.points)
            speed = "this machine's speed" + (" without its GPU, which is many times faster," if on_gpu else ",")
            total = duration(sum(self.expected.values()) / self.jobs)
            lines.append(f"about {total}{trained}: a guess from multiply-adds and {speed} corrected as points end")
        return "\n".join(lines)

    def listing(self) -> str:
        """Returns one line per point to measure."""
        width = max((len(point.name) for point in self.points), default=0)
        lines = []
        for point in self.points:
            trained = ", trained by the sweep" if point.training_key else ""
            seconds = duration(self.expected[point.key])
            lines.append(f"  {point.name:<{width}}  {point.key}  {_measures(point)}{trained}, about {seconds}")
        return "\n".join(lines)

    def _composition(self) -> str:
        counts = collections.Counter(point.traits.meta_architecture for point in self.all_points)
        parts = [", ".join(f"{count} {name}" for name, count in counts.items())] if len(counts) > 1 else []
        trainings = {training.training_key: training for p in self.all_points for training in trainings_of(p)}
        if trainings:
            steps = sum(num_steps(training, self.plan.message.train) for training in trainings.values())
            parts.append(f"{counted(len(trainings), 'training')} of {steps} steps in all")
        return f" ({'; '.join(parts)})" if parts else ""

    def _accuracy_lines(self) -> list[str]:
        without = [point for point in self.all_points if not point.measures_accuracy]
        if not without:
            return []
        if not self.plan.message.accuracy.measure:
            return ["time and memory only: accuracy.measure is false"]
        [(reason, _), *others] = collections.Counter(point.checkpoint_note for point in without).most_common()
        more = f", and {len(others)} more reasons of this kind" if others else ""
        return [f"{counted(len(without), 'point')} without accuracy, weights at random: {reason}{more}"]

    def _expected_seconds(self, rows: Sequence[Row]) -> dict[str, float]:
        """Guesses from multiply-adds, or from an earlier measurement of a point with the same name."""
        gflops = estimate.machine_gflops() if self.points else 1.0
        before = {row["name"]: row["seconds"] for row in rows if row["status"] == Status.OK.value and row["seconds"]}
        tables: dict[pathlib.Path, Any] = {}
        expected = {}
        for point in self.points:
            guess = estimate.point_seconds(self._cost(point, tables), gflops)
            expected[point.key] = float(before.get(point.name, guess) or guess)
        for key, point in self.trainings.items():
            steps, batch_size = num_steps(point, self.plan.message.train), point.training.train_config.batch_size
            expected[key] = estimate.training_seconds(self._cost(point, tables), steps, batch_size, gflops)
        return expected

    def _cost(self, point: Point, tables: dict[pathlib.Path, Any]) -> estimate.Cost:
        file = pathlib.Path(point.base.loaded.path)
        if file.parent not in tables:
            tables[file.parent] = read_table(file.parent)
        row = tables[file.parent].get(file.stem)
        how, base = point.how, point.base.traits
        side = point.traits.resolution or how.image_height
        longer = max(how.image_height, how.image_width) / max(1, min(how.image_height, how.image_width))
        area = side * side * (1.0 if point.message.model.HasField("ssd") else longer)
        base_area = math.prod(map(int, row.input_size.split("x"))) if row else area
        data = self.plan.message.data
        images = data.embedded.num_eval_images if data.HasField("embedded") else _UNKNOWN_EVAL_IMAGES
        return estimate.Cost(
            float(row.multiply_adds) if row else 0.0,
            point.traits.meta_architecture,
            area / base_area,
            point.traits.proposals,
            base.proposals,
            (how.runs + how.warmup) * how.batch_size if how.speed else 0,
            images if point.measures_accuracy else 0,
        )


def _measures(point: Point) -> str:
    is_timed = point.how.speed and point.shares_features is not False
    if point.measures_accuracy:
        return "with accuracy" if is_timed else "accuracy alone"
    return "time and memory" if point.shares_features is not False else "nothing without data"
