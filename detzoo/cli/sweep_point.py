"""The process of one point of a sweep: export, benchmark, evaluate. Not a command of its own.

    python -m detzoo.cli.sweep_point FOLDER           measure the point that FOLDER/point.json describes
    python -m detzoo.cli.sweep_point train FLAGS      `detzoo train`, which ends with the sweep; train_four_step alike
    python -m detzoo.cli.sweep_point propose FOLDER   the proposals that FOLDER/point.json asks for
    python -m detzoo.cli.sweep_point check FILE       whether checkpoints fit their configs

What is measured is written to FOLDER/result.json step by step, so that a failure keeps what came before it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import pathlib
import shutil
import signal
import sys
import time
from typing import Any

from detzoo.cli.main import EXIT_FAILURE, main
from detzoo.sweep.run.point_files import EXAMPLES, EXAMPLES_FILE, PIPELINE_FILE, POINT_FILE, write_json
from detzoo.sweep.run.runner import RESULT_FILE
from detzoo.tasks.start import configure_logging, quiet_tensorflow, start_without_unused_packages

_EXPORT_FOLDER = "export"
_MOST_EXAMPLE_BOXES = 50
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl

logger = logging.getLogger(__name__)


def process(arguments: list[str]) -> int:
    """Runs one process of a sweep and returns its exit code."""
    end_with_parent()
    if arguments[0] in ("train", "train_four_step"):
        return main(arguments)
    quiet_tensorflow()
    configure_logging()
    if arguments[0] == "check":
        from detzoo.cli.sweep_check import check_checkpoints

        return check_checkpoints(pathlib.Path(arguments[1]))
    if arguments[0] == "propose":
        from detzoo.cli.sweep_evaluate import write_all_proposals

        return write_all_proposals(pathlib.Path(arguments[1]))
    return measure(pathlib.Path(arguments[0]))


def measure(folder: pathlib.Path) -> int:
    """Measures the point of a folder."""
    spec = json.loads((folder / POINT_FILE).read_text(encoding="utf-8"))
    result: dict[str, Any] = {"columns": {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, "timing": {}}
    export = folder / _EXPORT_FOLDER
    try:
        if spec["how"]["speed"] and not spec["two_networks"]:
            with _noted(result, folder, "benchmark"):
                result["benchmark"] = _benchmark(spec, folder, export)
        else:
            result["where"] = _where()
        if spec["accuracy"]:
            with _noted(result, folder, "evaluate"):
                _evaluate(spec, folder, export, result)
    except Exception as problem:
        logger.exception("the point failed")
        result["reason"] = _reason(problem)
        return EXIT_FAILURE
    finally:
        shutil.rmtree(export, ignore_errors=True)
        write_json(folder / RESULT_FILE, result)
    return 0


@contextlib.contextmanager
def _noted(result: dict[str, Any], folder: pathlib.Path, name: str) -> Any:
    """Notes how long a step takes, and writes what there is after it."""
    started = time.monotonic()
    yield
    result["timing"][name] = round(time.monotonic() - started, 2)
    write_json(folder / RESULT_FILE, result)


def _benchmark(spec: dict[str, Any], folder: pathlib.Path, export: pathlib.Path) -> dict[str, Any]:
    from detzoo.config.load import load_pipeline

    loaded = load_pipeline(str(folder / PIPELINE_FILE))
    from detzoo.benchmark.runner import BenchmarkOptions
    from detzoo.tasks.benchmark import benchmark

    how = spec["how"]
    options = BenchmarkOptions(
        runs=how["runs"],
        warmup=how["warmup"],
        batch_size=how["batch_size"],
        image_shape=(how["image_height"], how["image_width"]),
        device=how["device"],
        precision=how["precision"],
        jit_compile=how["jit_compile"],
    )
    checkpoint = spec["checkpoint"] or None
    [result] = benchmark(loaded, options=options, export_folder=export, trained_checkpoint_dir=checkpoint)
    return result


def _where() -> dict[str, Any]:
    """The machine and the versions, as a benchmark tells them; TensorFlow is started."""
    from detzoo.benchmark.environment import describe_environment
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    return {"environment": describe_environment()}


def _evaluate(spec: dict[str, Any], folder: pathlib.Path, export: pathlib.Path, result: dict[str, Any]) -> None:
    """Accuracy of what was exported, and its detections on the example images; or of the checkpoint alone."""
    from detzoo.cli.sweep_evaluate import is_measured_as_exported, measure_checkpoint, measure_two_networks
    from detzoo.config.label_map import load_label_map
    from detzoo.config.load import load_pipeline
    from detzoo.evaluate.report import DETECTIONS_FILE, GROUNDTRUTH_FILE, METRICS_FILE, write_results
    from detzoo.provenance import commit, versions
    from detzoo.tasks.evaluate import measure_exported
    from detzoo.tasks.models import load_exported, start_tensorflow

    message = load_pipeline(str(folder / PIPELINE_FILE)).message
    exported = None
    if "benchmark" in result and is_measured_as_exported(message):
        exported = load_exported(str(export), message.model)
        measured = measure_exported(message, exported)
    else:
        start_tensorflow()
        if spec["two_networks"]:
            measured = measure_two_networks(message, spec["checkpoint"], folder)
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
        names = load_label_map(message.eval_input_reader[0].label_map_path).names
        _write_examples(spec, folder, exported, names, message.eval_input_reader[0])


def _write_examples(
    spec: dict[str, Any], folder: pathlib.Path, exported: Any, names: dict[int, str], reader: Any
) -> None:
    """examples.json of the point, and the images beside results.csv where they are not there yet."""
    from detzoo.cli.sweep_examples import images_of_files, images_of_records, keep_image

    images = images_of_files(spec["example_images"]) or images_of_records(reader, spec["num_examples"])
    kept = pathlib.Path(spec["output_dir"]) / EXAMPLES
    examples = []
    for name, pixels in images:
        found = exported(pixels)
        height, width = pixels.shape[:2]
        count = min(len(found.scores), _MOST_EXAMPLE_BOXES)
        examples.append(
            {
                "image": keep_image(kept, name, pixels),
                "width": width,
                "height": height,
                "boxes_px": [
                    [round(float(edge) * side, 1) for edge, side in zip(box, (height, width, height, width))]
                    for box in found.boxes_norm[:count]
                ],
                "scores": [round(float(score), 4) for score in found.scores[:count]],
                "classes": [names.get(int(class_id), str(int(class_id))) for class_id in found.class_ids[:count]],
            }
        )
    write_json(folder / EXAMPLES_FILE, examples)


def _reason(problem: Exception) -> str:
    """A failure in one line; what TensorFlow says of memory is cut to what matters."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [""]
    text = lines[-1] if lines[0] == "in user code:" else lines[0]  # what follows are the lines of a traced function
    if isinstance(problem, MemoryError) or type(problem).__name__ == "ResourceExhaustedError" or "OOM when" in text:
        return f"out of memory: {text[:200] or 'an array could not be allocated'}"
    from detzoo.errors import DetzooError

    kind = type(problem).__name__
    return text if isinstance(problem, DetzooError) else f"{kind}: {text.removeprefix(f'{kind}: ')[:300]}"


def end_with_parent() -> None:
    """Asks the system to end this process when the sweep's own is gone; without effect where it cannot."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


if __name__ == "__main__":
    start_without_unused_packages()
    sys.exit(process(sys.argv[1:]))
