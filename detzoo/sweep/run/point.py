"""The process of one point of a sweep: export, benchmark, evaluate. Started by the sweep, not by users.

    python -m detzoo.sweep.run.point FOLDER           measure the point of FOLDER/point.json
    python -m detzoo.sweep.run.point propose FOLDER   write the proposals that FOLDER/point.json asks for
    python -m detzoo.sweep.run.point check FILE       check that checkpoints fit their configs
    python -m detzoo.sweep.run.point VERB FLAGS       `detzoo VERB FLAGS`, which ends with the sweep

Results are written to FOLDER/result.json step by step, so that a failure keeps earlier results.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from detzoo.config.label_map import load_label_map
from detzoo.config.load import LoadedPipeline, load_pipeline
from detzoo.config.names import listed
from detzoo.config.stages import has_second_stage
from detzoo.errors import ConfigError, DetzooError, UsageError
from detzoo.folders import CONFIG_FILE, METRICS_FILE, PROPOSALS_FILE
from detzoo.provenance import commit, versions
from detzoo.serving.runtimes import EXPORTED_FILES, TENSORFLOW, require_runtime
from detzoo.sweep.plan.trainings import EVAL_FILE, TRAIN_FILE
from detzoo.sweep.run.point_files import POINT_FILE, RESULT_FILE, write_json
from detzoo.tasks.models import EVAL_READER, TRAIN_READER
from detzoo.tasks.start import configure_logging, quiet_tensorflow, start_without_unused_packages

_EXPORT_FOLDER = "export"
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl

logger = logging.getLogger(__name__)


def main(words: list[str]) -> int:
    """Runs one process of a sweep; returns its exit code."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # asks Linux to end this process with its parent
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
    if words[0] in ("train", "train_four_step"):
        command = [sys.executable, "-m", "detzoo", *words]
        if os.name == "nt":  # where execv does not replace the process
            return subprocess.call(command)
        os.execv(sys.executable, command)
    quiet_tensorflow()
    configure_logging()
    if words[0] == "check":
        return check_checkpoints(pathlib.Path(words[1]))
    if words[0] == "propose":
        return write_proposals(pathlib.Path(words[1]))
    return measure(pathlib.Path(words[0]))


def measure(folder: pathlib.Path) -> int:
    """Measures the point of a folder; returns the exit code."""
    spec = json.loads((folder / POINT_FILE).read_text(encoding="utf-8"))
    result: dict[str, Any] = {"columns": {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, "timing": {}}
    export = folder / _EXPORT_FOLDER
    try:
        require_runtime(spec["how"]["runtime"])
        if spec["how"]["speed"] and not spec["two_networks"]:
            with _step(result, folder, "benchmark"):
                result["benchmark"] = _benchmark(spec, folder, export)
        else:
            result["where"] = _machine()
        if spec["accuracy"]:
            with _step(result, folder, "evaluate"):
                _evaluate(spec, folder, export, result)
    except (ConfigError, UsageError) as problem:
        # The plan has checked the config, so another runtime does not support it, or is not installed.
        if spec["how"]["runtime"] == TENSORFLOW:
            logger.exception("the point failed")
            result["reason"] = _reason(problem)
            return 1
        logger.info("the point is skipped: %s", problem)
        result["skipped"] = _reason(problem)
    except Exception as problem:
        logger.exception("the point failed")
        result["reason"] = _reason(problem)
        return 1
    finally:
        shutil.rmtree(export, ignore_errors=True)
        write_json(folder / RESULT_FILE, result)
    return 0


@contextlib.contextmanager
def _step(result: dict[str, Any], folder: pathlib.Path, name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    result["timing"][name] = round(time.monotonic() - started, 2)
    write_json(folder / RESULT_FILE, result)


def _benchmark(spec: dict[str, Any], folder: pathlib.Path, export: pathlib.Path) -> dict[str, Any]:
    from detzoo.benchmark.measures import BenchmarkOptions
    from detzoo.tasks.benchmark import benchmark

    how = {name: value for name, value in spec["how"].items() if name != "speed"}
    shape = (how.pop("image_height"), how.pop("image_width"))
    options = BenchmarkOptions(image_shape=shape, **how)
    loaded, checkpoint = load_pipeline(str(folder / CONFIG_FILE)), spec["checkpoint"] or None
    [result] = benchmark(loaded, options=options, export_folder=export, trained_checkpoint_dir=checkpoint)
    return result


def _machine() -> dict[str, Any]:
    """Returns the environment part of a benchmark, after starting TensorFlow."""
    from detzoo.benchmark.machine import describe_environment
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    return {"environment": describe_environment()}


def _evaluate(spec: dict[str, Any], folder: pathlib.Path, export: pathlib.Path, result: dict[str, Any]) -> None:
    """Measures the accuracy of the export and its detections on the example images; or of the checkpoint alone."""
    from detzoo.evaluate.report import DETECTIONS_FILE, GROUNDTRUTH_FILE, write_results
    from detzoo.sweep.run.examples import write_examples
    from detzoo.tasks.evaluate import measure_checkpoint, measure_exported
    from detzoo.tasks.models import load_exported, start_tensorflow

    loaded = load_pipeline(str(folder / CONFIG_FILE))
    message, exported = loaded.message, None
    if "benchmark" in result and (is_measured_as_exported(message) or spec["how"]["runtime"] != TENSORFLOW):
        runtime, precision = spec["how"]["runtime"], spec["how"]["precision"]
        path = export / EXPORTED_FILES[runtime]
        exported = load_exported(str(path), message.model, runtime=runtime, precision=precision)
        measured: Any = measure_exported(message, exported)
    else:
        start_tensorflow()
        if spec["two_networks"]:
            measured = measure_two_networks(loaded, spec["checkpoint"], folder)
        else:
            measured = measure_checkpoint(message, spec["checkpoint"])
    facts = {"checkpoint": spec["checkpoint"], "versions": versions(), "commit": commit()}
    write_results(measured, folder, facts)
    if not spec["keep_detections"]:
        for name in (DETECTIONS_FILE, GROUNDTRUTH_FILE):
            (folder / name).unlink(missing_ok=True)
    result["metrics"] = measured.metrics
    result["columns"] |= {"num_eval_images": len(measured.images), "metrics": f"{spec['path']}/{METRICS_FILE}"}
    if exported is not None:
        reader = message.eval_input_reader[0]
        write_examples(spec, folder, exported, load_label_map(reader.label_map_path).names, reader)


def is_measured_as_exported(message: Any) -> bool:
    """Returns True if an export takes images alone and gives classes; else the checkpoint itself is measured."""
    region = message.model.faster_rcnn
    return message.model.HasField("ssd") or (
        message.model.HasField("faster_rcnn") and has_second_stage(region) and not region.proposals_from_reader
    )


def measure_two_networks(loaded: LoadedPipeline, training: str, folder: pathlib.Path) -> Any:
    """Measures the first two steps of a training in four, which share no features; writes proposals to ``folder``."""
    from detzoo.recipes.four_step_plan import STEPS
    from detzoo.tasks.evaluate import measure_checkpoint
    from detzoo.tasks.propose import propose

    proposing, classifying = (str(pathlib.Path(training) / step.folder) for step in STEPS[:2])
    number = loaded.message.model.faster_rcnn.first_stage_max_proposals
    file = folder / PROPOSALS_FILE
    propose(loaded, proposing, file, reads=EVAL_READER, max_proposals=number)
    changed = copy.deepcopy(loaded.message)
    changed.model.faster_rcnn.proposals_from_reader = True
    changed.eval_input_reader[0].proposals_path = str(file)
    changed.eval_input_reader[0].max_number_of_proposals = number
    return measure_checkpoint(changed, classifying)


def write_proposals(folder: pathlib.Path) -> int:
    """Writes the proposals that the point.json of a folder asks for; returns the exit code."""
    from detzoo.tasks.propose import propose

    spec = json.loads((folder / POINT_FILE).read_text(encoding="utf-8"))
    for name, reads in ((TRAIN_FILE, TRAIN_READER), (EVAL_FILE, EVAL_READER)):
        if name in spec["files"] and not (folder / name).is_file():
            config, number = str(folder / CONFIG_FILE), spec["files"][name]
            propose(config, spec["checkpoint"], folder / name, reads=reads, max_proposals=number)
    return 0


def check_checkpoints(file: pathlib.Path) -> int:
    """Restores each {"config", "checkpoint", "points"} of a JSON file; writes problems with the suffix .answer."""
    import keras

    from detzoo.tasks.models import restored, start_tensorflow

    start_tensorflow()
    problems = []
    cases = json.loads(file.read_text(encoding="utf-8"))
    for index, case in enumerate(cases, start=1):
        shown = listed(case["points"])
        logger.info("checkpoint %d of %d: %s for %s", index, len(cases), case["checkpoint"], shown)
        keras.backend.clear_session()
        try:
            restored(load_pipeline(case["config"]).message.model, case["checkpoint"])
        except DetzooError as problem:
            problems.append(f"{shown}: {problem}")
    file.with_suffix(".answer").write_text(json.dumps(problems), encoding="utf-8")
    return 0


def _reason(problem: Exception) -> str:
    """Returns a failure in one line, the essential part of what TensorFlow reports."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [""]
    text = lines[-1] if lines[0] == "in user code:" else lines[0]  # the rest are the lines of a traced function
    if isinstance(problem, MemoryError) or type(problem).__name__ == "ResourceExhaustedError" or "OOM when" in text:
        return f"out of memory: {text[:200] or 'an array could not be allocated'}"
    kind = type(problem).__name__
    return text if isinstance(problem, DetzooError) else f"{kind}: {text.removeprefix(f'{kind}: ')[:300]}"


if __name__ == "__main__":
    start_without_unused_packages()
    sys.exit(main(sys.argv[1:]))
