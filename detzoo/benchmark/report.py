"""A benchmark as a table, a JSON object and a CSV row."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.benchmark.measures import COUNTED_STAGES, KINDS, MAX_DIFFERENCE, Latency, Stages
from detzoo.benchmark.process import ProcessCosts
from detzoo.errors import UsageError
from detzoo.folders import make_folder
from detzoo.provenance import PACKAGES

SUFFIXES = (".json", ".csv")

# Of a CSV file. The same for every version of the packages, so that rows of different days go into one file.
COLUMNS = (
    *("model", "started", "device", "precision", "jit_compile", "batch_size", "image_height", "image_width"),
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
# What has to agree for two results to be of the same thing on the same machine.
SAME = (
    *("model", "device", "precision", "jit_compile", "batch_size", "image_height", "image_width", "images"),
    *("parameters", "environment.cpu", "environment.cores", "environment.intra_op_threads", "environment.gpus"),
)


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects become columns with dots, lists become text."""
    row: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            row.update(flatten(value, f"{prefix}{name}."))
        else:
            row[prefix + name] = "; ".join(map(str, value)) if isinstance(value, list) else value
    return row


def check_output(path: str) -> None:
    """Whether a result can be written there, before the time is spent to measure it.

    Raises:
        UsageError: another suffix than .json and .csv, no folder, or a CSV file with other columns.
    """
    if path and pathlib.Path(path).suffix not in SUFFIXES:
        raise UsageError(f"--output {path}: accepted are names that end in {' or '.join(SUFFIXES)}")
    if path and pathlib.Path(path).is_dir():
        raise UsageError(f"--output {path} is a folder; name a file in it")
    if path:
        make_folder(pathlib.Path(path).parent, "--output: the folder")
        if pathlib.Path(path).suffix == ".csv":
            _check_columns(pathlib.Path(path))


def _check_columns(file: pathlib.Path) -> None:
    if not file.exists() or not file.stat().st_size:
        return
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            found = next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UsageError(f"--output {file} cannot be read: {problem}") from problem
    if tuple(found) != COLUMNS:
        missing = [name for name in COLUMNS if name not in found]
        extra = [name for name in found if name not in COLUMNS]
        what = ", ".join(
            [f"lacks {name}" for name in missing[:2]] + [f"has {name}" for name in extra[:2]] or ["another order"]
        )
        raise UsageError(f"--output {file} has other columns than this version writes ({what}); name another file")


def write_result(results: Sequence[Mapping[str, Any]], path: str | pathlib.Path) -> None:
    """Writes one result as a JSON object, several as a list of them; or adds a row for each to a CSV file.

    Raises:
        UsageError: the CSV file has other columns.
    """
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        content = results[0] if len(results) == 1 else list(results)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return
    _check_columns(file)
    for result in results:
        is_new = not file.exists() or not file.stat().st_size
        with file.open("a", encoding="utf-8", newline="") as stream:
            stream.write(csv_row(row_of(result), with_header=is_new))


def row_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a result by column; what was not measured is empty."""
    flat = flatten(result)
    return {name: flat.get(name) for name in COLUMNS}


def csv_row(row: Mapping[str, Any], with_header: bool) -> str:
    """One line of CSV, with the names of the columns above it if asked for."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(row), lineterminator="\n")
    if with_header:
        writer.writeheader()
    writer.writerow(row)
    return stream.getvalue()


def read_results(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """The flat rows of an earlier --output, cells as text; [] where there is none or it is something else."""
    file = pathlib.Path(path)
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as stream:
                return list(csv.DictReader(stream))
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error):
        return []
    results = content if isinstance(content, list) else [content]
    return [_as_text(row_of(result)) for result in results if isinstance(result, dict)]


def compare(result: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> str:
    """What to say of the newest earlier result of the same model, options and machine; "" if it agrees or lacks."""
    row = _as_text(row_of(result))
    same = [other for other in earlier if all(other.get(name) == row[name] for name in SAME)]
    try:
        before = float(same[-1]["latency.median_ms"])
    except (IndexError, KeyError, ValueError):
        return ""
    now = float(result["latency"]["median_ms"])
    change = now / before - 1.0 if before > 0 else 0.0
    if abs(change) <= MAX_DIFFERENCE:
        return ""
    direction = "slower" if change > 0 else "faster"
    return (
        f"the median is {now:.1f} ms, {abs(change):.0%} {direction} than the {before:.1f} ms of the earlier result of "
        f"this model with these options on this machine (yardstick then "
        f"{same[-1].get('yardstick_gflops')}, now {row['yardstick_gflops']} GFLOP/s)"
    )


def _as_text(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in row.items()}


def format_table(result: Mapping[str, Any]) -> str:
    """What a person wants to know, one line each."""
    shape = "images of different sizes"
    if result["image_height"]:
        shape = f"{result['image_height']} x {result['image_width']}"
    how = [result["device"], result["precision"], *(["XLA"] if result["jit_compile"] else [])]
    environment, load = result["environment"], result["load"]
    lines = [
        ("model", result["model"]),
        (
            "input",
            f"{result['batch_size']} x {shape}, {', '.join(how)}, {result['num_images']} images: {result['images']}",
        ),
        *_time_lines(result),
        ("parameters", f"{result['parameters']:,}"),
        ("multiply-adds", _multiply_adds_line(result)),
        *_memory_lines(result),
        ("yardstick", f"{result['yardstick_gflops']:.0f} GFLOP/s in a float32 matrix product"),
        ("machine", "; ".join([environment["cpu"], f"{environment['cores']} cores", *environment["gpus"]])),
        (
            "load",
            f"others used {load['before']:.2f} cores before and {load['during']:.2f} during the runs"
            + ("" if load["is_quiet"] else ": NOT QUIET, the times are too long"),
        ),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _time_lines(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    latency, stages = result["latency"], result["stages"]
    lines = [
        (
            "latency",
            f"{latency['median_ms']:.1f} ms median, p10 {latency['p10_ms']:.1f}, p90 {latency['p90_ms']:.1f}, "
            f"mean {latency['mean_ms']:.1f}, {latency['num_runs']} runs",
        ),
        ("throughput", f"{result['images_per_second']:.1f} images a second"),
        ("first run", f"{result['first_run_seconds']:.2f} s"),
    ]
    difference = latency["repeat_difference"]
    if difference is not None:
        verdict = "" if difference <= MAX_DIFFERENCE else f": UNSTABLE, above {MAX_DIFFERENCE:.0%}; measure again"
        lines.append(("repeats", f"the two halves of the runs differ by {difference:.1%} in their median{verdict}"))
    if stages["network_ms"] is not None:
        names = ("extractor", "first_stage", "second_stage", "masks")
        known = [(name.replace("_", " "), stages.get(f"{name}_ms")) for name in names]
        parts = ", ".join(f"{name} {ms:.1f} ms" for name, ms in known if ms is not None)
        network = f"network {stages['network_ms']:.1f} ms" + (f" ({parts})" if parts else "")
        ends = f"preprocess {stages['preprocess_ms']:.1f} ms", f"postprocess {stages['postprocess_ms']:.1f} ms"
        lines.append(("stages", f"{ends[0]}, {network}, {ends[1]}"))
    return lines


def _multiply_adds_line(result: Mapping[str, Any]) -> str:
    by_stage = result["multiply_adds_by_stage"]
    known = [f"{name.replace('_', ' ')} {count / 1e9:.3f}" for name, count in by_stage.items() if count is not None]
    return f"{result['multiply_adds'] / 1e9:.3f} billion an image" + (f" ({', '.join(known)})" if known else "")


def _memory_lines(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory, process = result["memory"], result["process"]
    lines = []
    if memory["total_mib"] is not None:
        lines.append(
            (
                "memory",
                f"{memory['total_mib']:.0f} MiB in all tensors of a call, {memory['peak_mib']:.0f} held at one time, "
                f"{memory['weights_mib']:.0f} of it weights",
            )
        )
    if process["peak_mib"] is not None:
        lines += [
            (
                "process",
                f"{process['peak_mib']:.0f} MiB peak of a process that serves with TensorFlow alone, "
                f"{process['import_peak_mib']:.0f} of it the import",
            ),
            ("loading", f"{process['load_seconds']:.2f} s, first call {process['first_call_seconds']:.2f} s"),
        ]
    return lines
