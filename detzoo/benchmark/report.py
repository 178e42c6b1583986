"""A benchmark as a table, a JSON object and a CSV row."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from detzoo.errors import UsageError
from detzoo.folders import make_folder

SUFFIXES = (".json", ".csv")


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects become columns with dots, lists become text."""
    row: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            row.update(flatten(value, f"{prefix}{name}."))
        else:
            row[prefix + name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return row


def check_output(path: str) -> None:
    """Whether a result can be written there, before the time is spent to measure it.

    Raises:
        UsageError: another suffix than .json and .csv, or no folder.
    """
    if path and pathlib.Path(path).suffix not in SUFFIXES:
        raise UsageError(f"--output {path}: accepted are names that end in {' or '.join(SUFFIXES)}")
    if path and pathlib.Path(path).is_dir():
        raise UsageError(f"--output {path} is a folder; name a file in it")
    if path:
        make_folder(pathlib.Path(path).parent, "--output: the folder")


def write_result(result: Mapping[str, Any], path: str | pathlib.Path) -> None:
    """Writes the JSON object, or adds a row to a CSV file.

    Raises:
        UsageError: the CSV file has other columns.
    """
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        return
    row = flatten(result)
    is_new = not file.exists() or not file.stat().st_size
    if not is_new:
        with file.open(encoding="utf-8", newline="") as stream:
            columns = next(csv.reader(stream))
        if columns != list(row):
            raise UsageError(f"{file} has other columns than this version writes; name another --output")
    with file.open("a", encoding="utf-8", newline="") as stream:
        stream.write(csv_row(row, with_header=is_new))


def csv_row(row: Mapping[str, Any], with_header: bool) -> str:
    """One line of CSV, with the names of the columns above it if asked for."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(row), lineterminator="\n")
    if with_header:
        writer.writeheader()
    writer.writerow(row)
    return stream.getvalue()


def format_table(result: Mapping[str, Any]) -> str:
    """What a person wants to know, one line each."""
    latency, stages, process = result["latency"], result["stages"], result["process"]
    lines = [
        ("model", result["model"]),
        ("input", f"{result['batch_size']} x {result['image_height']} x {result['image_width']}, {result['device']}"),
        (
            "latency",
            f"{latency['median_ms']:.1f} ms median, p10 {latency['p10_ms']:.1f}, p90 {latency['p90_ms']:.1f}, "
            f"{latency['num_runs']} runs",
        ),
    ]
    if stages["network_ms"] is not None:
        parts = {"first stage": "first_stage_ms", "second stage": "second_stage_ms", "masks": "masks_ms"}
        known = [f"{part} {stages[name]:.1f} ms" for part, name in parts.items() if stages.get(name) is not None]
        network = f"network {stages['network_ms']:.1f} ms" + (f" ({', '.join(known)})" if known else "")
        ends = f"preprocess {stages['preprocess_ms']:.1f} ms", f"postprocess {stages['postprocess_ms']:.1f} ms"
        lines.append(("stages", f"{ends[0]}, {network}, {ends[1]}"))
    lines += [
        ("parameters", f"{result['parameters']:,}"),
        ("multiply-adds", f"{result['multiply_adds'] / 1e9:.3f} billion an image"),
        (
            "memory",
            f"{process['peak_mib']:.0f} MiB peak of a process that serves with TensorFlow alone, "
            f"{process['import_peak_mib']:.0f} of it the import",
        ),
        ("load", f"{process['load_seconds']:.2f} s, first call {process['first_call_seconds']:.2f} s"),
        ("yardstick", f"{result['yardstick_gflops']:.0f} GFLOP/s in a float32 matrix product"),
        (
            "machine",
            f"{result['environment']['cpu']}, {result['environment']['cores']} cores, load "
            f"{result['environment']['load_average']}",
        ),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)
