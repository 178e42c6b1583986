"""Writes a benchmark's result as a table, a JSON object and a CSV row, and compares it with earlier ones."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.benchmark.measures import COUNTED_STAGES, KINDS, MAX_DIFFERENCE, Latency, Stages
from detzoo.benchmark.process import ProcessCosts
from detzoo.errors import UsageError
from detzoo.folders import make_folder
from detzoo.provenance import PACKAGES
from detzoo.serving.runtimes import LITERT, ONNX_RUNTIME, OPENVINO, TENSORFLOW

SUFFIXES = (".json", ".csv")
_RUNTIME_NAMES = {TENSORFLOW: "TensorFlow", ONNX_RUNTIME: "ONNX Runtime", LITERT: "LiteRT", OPENVINO: "OpenVINO"}

# Columns of a CSV file. They do not depend on the versions of packages, so that later rows fit into the same file.
COLUMNS = (
    *("model", "started", "runtime", "device", "precision", "jit_compile", "batch_size", "image_height", "image_width"),
    *("images", "num_images"),
    *(f"latency.{name}" for name in Latency._fields),
    *("images_per_second", "first_run_seconds"),
    *(f"stages.{name}" for name in Stages._fields),
    *("parameters", "multiply_adds"),
    *(f"multiply_adds_by_stage.{name}" for name in COUNTED_STAGES),
    *(f"multiply_adds_by_kind.{name}" for name in sorted(set(KINDS.values()))),
    *(f"memory.{name}" for name in ("total_mib", "peak_mib", "weights_mib", "process_peak_mib")),
    *(f"process.{name}" for name in ProcessCosts._fields),
    *("kernels.total", "kernels.in_precision", "kernels.compiled"),
    *("yardstick_gflops", "load.before", "load.during", "load.is_quiet"),
    *(f"environment.{name}" for name in ("cpu", "cores", "intra_op_threads", "inter_op_threads", "memory_gib")),
    *(f"environment.{name}" for name in ("load_average", "gpus", "platform", "commit")),
    *(f"environment.versions.{name}" for name in ("python", *PACKAGES)),
)
# Columns that agree if two results measure the same model in the same way on the same machine.
SAME = (
    *("model", "runtime", "device", "precision", "jit_compile", "batch_size", "image_height", "image_width"),
    *("images", "parameters", "environment.cpu", "environment.cores", "environment.intra_op_threads"),
    "environment.gpus",
)


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turns nested objects into columns with dots in their names, and lists into text."""
    row: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            row.update(flatten(value, f"{prefix}{name}."))
        else:
            row[prefix + name] = "; ".join(map(str, value)) if isinstance(value, list) else value
    return row


def check_output(path: str) -> None:
    """Checks, before anything is measured, that a result can be written to a path; "" is accepted.

    Raises:
        UsageError: The suffix is not .json or .csv, the path is a folder, or a CSV file has other columns.
    """
    if not path:
        return
    file = pathlib.Path(path)
    if file.suffix not in SUFFIXES:
        raise UsageError(f"--output {path}: accepted are names that end in {' or '.join(SUFFIXES)}")
    if file.is_dir():
        raise UsageError(f"--output {path} is a folder; name a file in it")
    make_folder(file.parent, "--output: the folder")
    if file.suffix == ".csv":
        _check_columns(file)


def _check_columns(file: pathlib.Path) -> None:
    if not file.exists() or not file.stat().st_size:
        return
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            found = next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UsageError(f"--output {file} cannot be read: {problem}") from problem
    if tuple(found) != COLUMNS:
        lacks = [f"lacks {name}" for name in COLUMNS if name not in found]
        has = [f"has {name}" for name in found if name not in COLUMNS]
        what = ", ".join([*lacks[:2], *has[:2]] or ["another order"])
        raise UsageError(f"--output {file} has other columns than this version writes ({what}); name another file")


def write_result(results: Sequence[Mapping[str, Any]], path: str | pathlib.Path) -> None:
    """Writes a JSON file (one result as an object, several as a list of objects), or appends rows to a CSV file.

    Raises:
        UsageError: The CSV file has other columns.
    """
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        content = results[0] if len(results) == 1 else list(results)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return
    _check_columns(file)
    is_new = not file.exists() or not file.stat().st_size
    with file.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(map(_cells, results))


def _cells(result: Mapping[str, Any]) -> dict[str, str]:
    flat = flatten(result)
    return {name: "" if flat.get(name) is None else str(flat[name]) for name in COLUMNS}


def read_results(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows of an earlier --output, cells as text; [] if there is none or the file has other content."""
    file = pathlib.Path(path)
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as stream:
                return list(csv.DictReader(stream))
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error):
        return []
    results = content if isinstance(content, list) else [content]
    return [_cells(result) for result in results if isinstance(result, dict)]


def compare(result: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> str:
    """Describes the difference to the newest earlier result of the same kind; "" if there is none or both agree."""
    row = _cells(result)
    same = [other for other in earlier if all(other.get(name) == row[name] for name in SAME)]
    try:
        before = float(same[-1]["latency.median_ms"])
    except (IndexError, KeyError, ValueError):
        return ""
    now = float(result["latency"]["median_ms"])
    change = now / before - 1.0 if before > 0 else 0.0
    if abs(change) <= MAX_DIFFERENCE:
        return ""
    then, yardstick = same[-1].get("yardstick_gflops"), row["yardstick_gflops"]
    return (
        f"the median is {now:.1f} ms, {abs(change):.0%} {'slower' if change > 0 else 'faster'} than the "
        f"{before:.1f} ms of the earlier result of this model with these options on this machine "
        f"(yardstick then {then}, now {yardstick} GFLOP/s)"
    )


def format_table(result: Mapping[str, Any]) -> str:
    """Formats the main numbers, one per line."""
    shape = "images of different sizes"
    if result["image_height"]:
        shape = f"{result['image_height']} x {result['image_width']}"
    how = [] if result["runtime"] == TENSORFLOW else [_RUNTIME_NAMES[result["runtime"]]]
    how += [result["device"], result["precision"]]
    how += ["XLA"] if result["jit_compile"] else []
    sent = f"{result['num_images']} images: {result['images']}"
    environment, load = result["environment"], result["load"]
    quiet = "" if load["is_quiet"] else ": NOT QUIET, the times are too long"
    lines = {
        "model": result["model"],
        "input": f"{result['batch_size']} x {shape}, {', '.join(how)}, {sent}",
        **_time_lines(result),
        **({} if result["parameters"] is None else {"parameters": f"{result['parameters']:,}"}),
        **({} if result["multiply_adds"] is None else {"multiply-adds": _multiply_adds_line(result)}),
        **_memory_lines(result["memory"], result["process"], result["runtime"]),
        "yardstick": f"{result['yardstick_gflops']:.0f} GFLOP/s in a float32 matrix product",
        "machine": "; ".join([environment["cpu"], f"{environment['cores']} cores", *environment["gpus"]]),
        "load": f"others used {load['before']:.2f} cores before and {load['during']:.2f} during the runs{quiet}",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _time_lines(result: Mapping[str, Any]) -> dict[str, str]:
    latency, stages = result["latency"], result["stages"]
    spread = ", ".join(f"{name} {latency[f'{name}_ms']:.1f}" for name in ("p10", "p90", "mean"))
    lines = {
        "latency": f"{latency['median_ms']:.1f} ms median, {spread}, {latency['num_runs']} runs",
        "throughput": f"{result['images_per_second']:.1f} images per second",
        "first run": f"{result['first_run_seconds']:.2f} s",
    }
    difference = latency["repeat_difference"]
    if difference is not None:
        verdict = "" if difference <= MAX_DIFFERENCE else f": UNSTABLE, above {MAX_DIFFERENCE:.0%}, measure again"
        lines["repeats"] = f"the two halves of the runs differ by {difference:.1%} in their median{verdict}"
    if stages["network_ms"] is not None:
        names = ("extractor", "first_stage", "second_stage", "masks")
        known = [(name.replace("_", " "), stages.get(f"{name}_ms")) for name in names]
        parts = ", ".join(f"{name} {ms:.1f} ms" for name, ms in known if ms is not None)
        network = f"network {stages['network_ms']:.1f} ms" + (f" ({parts})" if parts else "")
        before, after = f"preprocess {stages['preprocess_ms']:.1f} ms", f"postprocess {stages['postprocess_ms']:.1f} ms"
        lines["stages"] = f"{before}, {network}, {after}"
    return lines


def _multiply_adds_line(result: Mapping[str, Any]) -> str:
    by_stage = result["multiply_adds_by_stage"]
    known = [f"{name.replace('_', ' ')} {count / 1e9:.3f}" for name, count in by_stage.items() if count is not None]
    return f"{result['multiply_adds'] / 1e9:.3f} billion per image" + (f" ({', '.join(known)})" if known else "")


def _memory_lines(memory: Mapping[str, Any], process: Mapping[str, Any], runtime: str) -> dict[str, str]:
    lines = {}
    if memory["total_mib"] is not None:
        lines["memory"] = (
            f"{memory['total_mib']:.0f} MiB in all tensors of a call, {memory['peak_mib']:.0f} held at one time, "
            f"{memory['weights_mib']:.0f} of it weights"
        )
    if process["peak_mib"] is not None:
        lines["process"] = (
            f"{process['peak_mib']:.0f} MiB peak of a serving process with {_RUNTIME_NAMES[runtime]} alone, "
            f"{process['import_peak_mib']:.0f} of it the import"
        )
        lines["loading"] = f"{process['load_seconds']:.2f} s, first call {process['first_call_seconds']:.2f} s"
    return lines
