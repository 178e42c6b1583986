"""A checked plan and a folder -> what is to do, its processes, and the rows that they give."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from detzoo.cli.sweep_before import (
    POINT_MODULE,
    checkpoint_of,
    evaluation_of_two_networks,
    is_trained,
    num_steps,
    trainings_of,
    works_before,
)
from detzoo.cli.sweep_prepare import check_checkpoints, draw_embedded, gpu_names
from detzoo.config.load import save_pipeline
from detzoo.errors import UsageError
from detzoo.extras import require_extras
from detzoo.sweep.columns import PUBLISHED_CONDITIONS, PUBLISHED_SOURCE, Status, published
from detzoo.sweep.plan.files import OUTPUT_DIR_TOKEN, embedded_folder, replace_output_dir
from detzoo.sweep.plan.points import Point
from detzoo.sweep.plan.published import PUBLISHED_COLUMNS
from detzoo.sweep.plan.sweep_plan import SweepPlan
from detzoo.sweep.results import RESULTS_FILE, Row, Value, retire_rows, set_cells
from detzoo.sweep.run import estimate
from detzoo.sweep.run.point_files import (
    AND,
    PIPELINE_FILE,
    POINT_FILE,
    POINTS,
    compose_row,
    point_folder,
    write_json,
)
from detzoo.sweep.run.progress import SweepProgress
from detzoo.sweep.run.runner import Runner, Unit, Work
from detzoo.sweep.run.shard import Shard, part_of
from detzoo.tasks.train import extras_of_training

_UNKNOWN_EVAL_IMAGES = 5000  # as COCO's validation set has, where nothing says how many there are

logger = logging.getLogger(__name__)


class SweepWork:
    """What one call of the command does.

    Args:
        plan: of the sweep file, without problems.
        rows: of results.csv as it is.
        output_dir: where to write.
        shard: the part to do.
        retry_failed: whether points that failed are tried again.
        jobs: processes at a time.
        train_flags: further flags of the trainings.
    """

    def __init__(
        self,
        plan: SweepPlan,
        rows: Sequence[Row],
        output_dir: pathlib.Path,
        shard: Shard,
        retry_failed: bool,
        jobs: int,
        train_flags: Sequence[str] = (),
    ) -> None:
        self._plan, self._output_dir, self._shard, self._jobs = plan, output_dir, shard, jobs
        self._train_flags = train_flags
        self.results = output_dir / RESULTS_FILE
        self._rows = {str(row["key"]): row for row in rows}
        self._points = part_of(plan.points, shard, lambda point: point.training_key or point.key)
        kept = {Status.OK.value} if retry_failed else {status.value for status in Status}
        self._to_do = [p for p in self._points if self._rows.get(p.key, {}).get("status") not in kept]
        self._trainings = {
            training.training_key: training
            for point in reversed(self._to_do)
            for training in trainings_of(point)
            if not is_trained(output_dir, training.training_key)
        }
        self._expected = self._guess([str(row["name"]) for row in rows], rows)

    # What is to do.

    def summary(self) -> str:
        """How many points there are, which are left out and why, and how long it will take."""
        plan, lines = self._plan, []
        if plan.message.description:
            lines.append(plan.message.description)
        whole = len(plan.points)
        part = f"; this is part {self._shard.index} of {self._shard.count}" if self._shard.count > 1 else ""
        points = f"{len(self._points)} of {whole} points" if self._shard.count > 1 else _counted(whole, "point")
        lines.append(f"{points}{self._composition()}{part}")
        left_out = sum(len(exclusion.matched) for exclusion in plan.exclusions)
        if left_out:
            lines.append(f"{left_out} combinations left out:")
            for exclusion in plan.exclusions:
                lines.append(f"  {len(exclusion.matched):>4}  {exclusion.reason} E.g. {exclusion.matched[0]}")
        lines += self._accuracy_lines()
        kept = len(self._points) - len(self._to_do)
        failed = sum(self._rows.get(p.key, {}).get("status") == Status.FAILED.value for p in self._points)
        if kept or failed:
            again = (
                f", {failed} that failed {'is' if failed == 1 else 'are'} tried again" if self._to_do and failed else ""
            )
            lines.append(f"{kept} measured already{again}; {len(self._to_do)} to do")
        if self._to_do:
            lines.append(self._time_line())
        return "\n".join(lines)

    def listing(self) -> str:
        """One line for each point that is to do."""
        width = max((len(point.name) for point in self._to_do), default=0)
        lines = []
        for point in self._to_do:
            trained = ", trained by the sweep" if point.training_key else ""
            accuracy = _measured_of(point)
            seconds = estimate.in_words(self._expected[point.key])
            lines.append(f"  {point.name:<{width}}  {point.key}  {accuracy}{trained}, about {seconds}")
        return "\n".join(lines)

    def _composition(self) -> str:
        counts = collections.Counter(point.traits.meta_architecture for point in self._points)
        text = ", ".join(f"{count} {name}" for name, count in counts.items()) if len(counts) > 1 else ""
        trainings = {t.training_key: t for point in self._points for t in trainings_of(point)}
        steps = sum(num_steps(training, self._plan.message.train) for training in trainings.values())
        trained = f"{_counted(len(trainings), 'training')} of {steps} steps in all" if trainings else ""
        inside = "; ".join(filter(None, (text, trained)))
        return f" ({inside})" if inside else ""

    def _accuracy_lines(self) -> list[str]:
        """How many points are measured without accuracy, and why."""
        without = [point for point in self._points if not point.measures_accuracy]
        if not without or not self._plan.message.accuracy.measure:
            return ["time and memory only: accuracy.measure is false"] if without else []
        reasons = collections.Counter(point.checkpoint_note for point in without)
        [(reason, _), *others] = reasons.most_common()
        more = f", and {len(others)} more reasons of this kind" if others else ""
        return [f"{_counted(len(without), 'point')} without accuracy, weights at random: {reason}{more}"]

    def _time_line(self) -> str:
        total = sum(self._expected[key] for key in self._keys_to_do()) / self._jobs
        trained = f" ({_counted(len(self._trainings), 'training')} first)" if self._trainings else ""
        on_gpu = any(point.how.device == "GPU" for point in self._to_do)
        speed = "this machine's speed" + (" without its GPU, which is many times faster," if on_gpu else ",")
        return (
            f"about {estimate.in_words(total)}{trained}: a guess from multiply-adds and {speed} corrected as points end"
        )

    def _keys_to_do(self) -> list[str]:
        return [*(point.key for point in self._to_do), *self._trainings]

    # How long it takes.

    def _guess(self, names: Sequence[str], rows: Sequence[Row]) -> dict[str, float]:
        """Seconds by key, of points and trainings; what was measured under the same name before is preferred."""
        gflops = estimate.machine_gflops() if self._to_do else 1.0
        before = {name: row["seconds"] for name, row in zip(names, rows) if row["status"] == Status.OK.value}
        tables: dict[pathlib.Path, Any] = {}
        expected: dict[str, float] = {}
        for point in self._to_do:
            cost = self._cost(point, tables)
            known = before.get(point.name)
            expected[point.key] = float(known) if known else estimate.point_seconds(cost, gflops)
        for key, point in self._trainings.items():
            train = point.training.train_config
            cost, steps = self._cost(point, tables), num_steps(point, self._plan.message.train)
            expected[key] = estimate.training_seconds(cost, steps, train.batch_size, gflops)
        return expected

    def _cost(self, point: Point, tables: dict[pathlib.Path, Any]) -> estimate.Cost:
        from detzoo.benchmark.models import read_table

        file = pathlib.Path(point.base.loaded.path)
        if file.parent not in tables:
            tables[file.parent] = read_table(file.parent)
        row = tables[file.parent].get(file.stem)
        how, base = point.how, point.base.traits
        side = point.traits.resolution or how.image_height
        longer = max(how.image_height, how.image_width) / max(1, min(how.image_height, how.image_width))
        area = side * side * (1.0 if point.message.model.HasField("ssd") else longer)
        base_area = float(area)
        if row is not None:
            height, width = map(int, row.input_size.split("x"))
            base_area = float(height * width)
        data = self._plan.message.data
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

    # Doing it.

    def devices(self) -> list[str]:
        """CUDA_VISIBLE_DEVICES of each job, [] on a CPU.

        Raises:
            UsageError: no GPU, or more jobs than GPUs.
        """
        wanted = {point.how.device for point in self._to_do}
        if "GPU" not in wanted:
            if self._jobs > 1:
                logger.warning("--jobs %d on one CPU: points that run together slow each other down", self._jobs)
            return []
        gpus = gpu_names()
        if not gpus:
            raise UsageError(
                "points are to be measured on a GPU, and this machine shows none; --device cpu measures here"
            )
        if self._jobs > 1 and self._jobs > len(gpus):
            raise UsageError(f"--jobs {self._jobs}: this machine has {len(gpus)} GPUs; give one job for each at most")
        return gpus[: self._jobs] if self._jobs > 1 else []

    def check_packages(self) -> None:
        """Checks that the packages for the trainings are installed.

        Raises:
            UsageError: They are not; the message has the command that installs them.
        """
        extras = {extra: None for point in self._trainings.values() for extra in extras_of_training(point.training)}
        require_extras("training the points of this sweep", *extras)

    def prepare(self) -> None:
        """Draws the embedded data set, and checks that checkpoints fit, before the first point runs."""
        set_cells(self.results, {point.key: self._published(point) for point in self._points})
        if not self._to_do:
            return
        data = self._plan.message.data
        if data.HasField("embedded"):
            draw_embedded(data.embedded, self._output_dir / embedded_folder(data.embedded))
        check_checkpoints([point for point in self._to_do if point.checkpoint], self._output_dir)

    def run(self, devices: Sequence[str]) -> int:
        """Measures what is to do; returns how many points failed."""
        if not self._to_do:
            return 0
        units = self._units()
        expected = {key: self._expected[key] for key in self._keys_to_do()}
        progress = SweepProgress(len(self._to_do), estimate.Remaining(expected, self._jobs))
        points = {point.key: point for point in self._to_do}

        def row_of(key: str, result: dict[str, Any] | None, reason: str | None) -> Row:
            return compose_row(self._facts(points[key]), result, reason)

        def retire(row: Row) -> None:
            retire_rows(self.results, row)

        try:
            with _ended_as_by_keyboard():
                Runner(self.results, row_of, progress, self._jobs, devices, retire).run(units)
        finally:
            progress.close()
        print(f"{progress.done} measured, {progress.failed} failed: {self.results}")
        return progress.failed

    def _units(self) -> list[Unit]:
        by_training: dict[str, list[Point]] = {}
        for point in self._to_do:
            by_training.setdefault(point.training_key or point.key, []).append(point)
        return [
            Unit(
                tuple(
                    works_before(
                        points[0], self._plan.message.train, self._output_dir, self._expected, self._train_flags
                    )
                ),
                tuple(self._work(point) for point in points),
            )
            for points in by_training.values()
        ]

    def _work(self, point: Point) -> Work:
        folder = point_folder(self._output_dir, point.key)
        folder.mkdir(parents=True, exist_ok=True)
        save_pipeline(replace_output_dir(point.message, str(self._output_dir)), folder / PIPELINE_FILE)
        accuracy = self._plan.message.accuracy
        spec = {
            "name": point.name,
            "checkpoint": checkpoint_of(self._output_dir, point),
            "how": vars(point.how),
            "two_networks": point.shares_features is False,
            "accuracy": point.measures_accuracy,
            "keep_detections": accuracy.keep_detections,
            "num_examples": accuracy.num_examples,
            "example_images": list(accuracy.example_image),
            "output_dir": str(self._output_dir),
            "path": f"{POINTS}/{point.key}",
        }
        write_json(folder / POINT_FILE, spec)
        limit = self._plan.message.measure.time_out_seconds
        command = (sys.executable, "-m", POINT_MODULE, str(folder))
        return Work(point.name, point.key, folder, command, limit, self._expected[point.key])

    def _facts(self, point: Point) -> dict[str, Value]:
        """The cells of a row that are known beforehand."""
        traits, how = point.traits, point.how
        config = f"{POINTS}/{point.key}/{PIPELINE_FILE}"
        return {
            "key": point.key,
            "name": point.name,
            "reason": None if point.measures_accuracy else point.checkpoint_note or None,
            "meta_architecture": traits.meta_architecture,
            "extractor": traits.extractor,
            "output_stride": traits.output_stride,
            "resolution": traits.resolution,
            "proposals": traits.proposals,
            "axes": json.dumps(point.other_axes) if point.other_axes else None,
            "config": config,
            "checkpoint": checkpoint_of(self._output_dir, point) or None,
            "command": self._command(point, str(self._output_dir / config)),
            "device": how.device,
            "precision": how.precision,
            "jit_compile": how.jit_compile,
            "batch_size": how.batch_size,
            "eval_records": _eval_records(point) or None,
            **self._published(point),
        }

    def _published(self, point: Point) -> dict[str, Value]:
        """The cells of what was published of a point; None in those that the sweep file has nothing for."""
        values = self._plan.published.get(point.name, {})
        told = self._plan.message.published
        return {
            PUBLISHED_SOURCE: told.source if values else None,
            PUBLISHED_CONDITIONS: told.conditions or None if values else None,
            **{published(name): values.get(name) for name in PUBLISHED_COLUMNS},
        }

    def _command(self, point: Point, config: str) -> str:
        """What measures a point again."""
        how, checkpoint = point.how, checkpoint_of(self._output_dir, point)
        commands = []
        if how.speed and point.shares_features is not False:
            words = ["detzoo", "benchmark", f"--pipeline_config_path={config}", f"--device={how.device.lower()}"]
            words += [f"--checkpoint_dir={checkpoint}"] if checkpoint else []
            words += [f"--runs={how.runs}", f"--warmup={how.warmup}", f"--batch_size={how.batch_size}"]
            words += [f"--image_size={how.image_height}x{how.image_width}"]
            words += [f"--precision={how.precision}"] if how.precision != "float32" else []
            words += ["--jit_compile"] if how.jit_compile else []
            commands.append(words)
        if point.measures_accuracy:
            again = pathlib.Path(config).with_name("evaluation")
            evaluate = ["detzoo", "evaluate", f"--pipeline_config_path={config}"]
            if point.shares_features is False:
                commands += evaluation_of_two_networks(evaluate, point, checkpoint, again)
            else:
                commands.append([*evaluate, f"--checkpoint_dir={checkpoint}", f"--output_dir={again}"])
        return AND.join(map(shlex.join, commands))


@contextlib.contextmanager
def _ended_as_by_keyboard() -> Iterator[None]:
    """Makes SIGTERM end a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measured_of(point: Point) -> str:
    if point.measures_accuracy:
        return "with accuracy" if point.how.speed and point.shares_features is not False else "accuracy alone"
    return "time and memory" if point.shares_features is not False else "nothing without data"


def _eval_records(point: Point) -> str:
    """The records that a point's accuracy is measured on, "" where it is not."""
    if not point.measures_accuracy:
        return ""
    paths = point.message.eval_input_reader[0].tf_record_input_reader.input_path
    return "; ".join(path.removeprefix(f"{OUTPUT_DIR_TOKEN}/") for path in paths)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
