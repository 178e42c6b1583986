"""Preparations before the first point: GPUs, the embedded data set, and checkpoints that must fit their detectors.

Drawing and checking need TensorFlow, so each is a separate process: that of the sweep stays small and does not disturb
the times.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from detzoo.config.load import save_pipeline, to_text
from detzoo.errors import CheckpointError, DetzooError, UsageError
from detzoo.sweep.plan.files import EVAL_SHARDS, TRAIN_SHARDS
from detzoo.sweep.plan.points import Point, fingerprint
from detzoo.sweep.run.point_files import POINT_MODULE

_GPU_DEVICE = re.compile(r"nvidia\d+|dxg|kfd")  # in /dev: of NVIDIA, of Linux on Windows, of AMD
_SIDE_FOR_CHECKS = 320  # pixels: small, and large enough for every level

logger = logging.getLogger(__name__)


def devices_for(points: Sequence[Point], jobs: int) -> list[str]:
    """Returns CUDA_VISIBLE_DEVICES per job; [] to leave the variable.

    Raises:
        UsageError: Points need a GPU and there is none, or there are more jobs than GPUs.
    """
    if not any(point.how.device == "GPU" for point in points):
        if jobs > 1 and points:
            logger.warning("--jobs %d on one CPU: points that run together slow each other down", jobs)
        return []
    gpus = gpu_names()
    if not gpus:
        raise UsageError("points are to be measured on a GPU, and this machine shows none; --device cpu measures here")
    if jobs > max(1, len(gpus)):
        raise UsageError(f"--jobs {jobs}: this machine has {len(gpus)} GPUs; give one job for each at most")
    return gpus[:jobs] if jobs > 1 else []


def gpu_names() -> list[str]:
    """Returns the names of this machine's GPUs for CUDA_VISIBLE_DEVICES."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() and not name.strip().startswith("-")]
    devices = pathlib.Path("/dev")
    found = [entry for entry in devices.iterdir() if _GPU_DEVICE.fullmatch(entry.name)] if devices.is_dir() else []
    return [str(index) for index in range(len(found))]


def draw_embedded(shapes: Any, folder: pathlib.Path) -> None:
    """Draws the data set of a ``pb.SweepShapes`` unless the folder has it, or raises a DetzooError."""
    done = folder / "drawn"
    if done.is_file():
        return
    logger.info("drawing %d + %d images into %s", shapes.num_train_images, shapes.num_eval_images, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed, shards in (
        ("train", shapes.num_train_images, shapes.seed, TRAIN_SHARDS),
        ("heldout", shapes.num_eval_images, shapes.seed + 1, EVAL_SHARDS),
    ):
        words = [f"--output_path={folder / name}", f"--num_images={count}"]
        size = f"--image_size={shapes.image_size}"
        words.append(f"--scales={shapes.Scales.Name(shapes.scales).lower()}" if shapes.scales else size)
        words += [f"--seed={seed}", f"--num_shards={shards}"]
        command = [sys.executable, "-m", "detzoo", "dataset", "shapes", *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise DetzooError(f"the embedded data set could not be drawn: {ended.stderr.strip() or ended.stdout}")
    done.touch()


def check_checkpoints(points: Sequence[Point], output_dir: pathlib.Path) -> None:
    """Builds each distinct detector once and compares its variables with those of its checkpoint.

    Raises:
        CheckpointError: Names every point with a checkpoint that does not fit.
    """
    cases: dict[str, dict[str, Any]] = {}
    for point in points:
        config = _without_sizes(point)
        key = fingerprint([to_text(config), point.checkpoint])
        case = cases.setdefault(key, {"config": config, "checkpoint": point.checkpoint, "points": []})
        case["points"].append(point.name)
    if not cases:
        return
    logger.info("checking that %d checkpoints fit %d points", len(cases), len(points))
    with tempfile.TemporaryDirectory(dir=output_dir) as folder:
        file = pathlib.Path(folder) / "cases.json"
        for key, case in cases.items():
            save_pipeline(case["config"], file.with_name(f"{key}.config"))
            case["config"] = str(file.with_name(f"{key}.config"))
        file.write_text(json.dumps(list(cases.values())), encoding="utf-8")
        subprocess.run([sys.executable, "-m", POINT_MODULE, "check", str(file)], check=False)
        answer = file.with_suffix(".answer")
        if not answer.is_file():
            raise DetzooError("the checkpoints could not be checked; the output above has the reason")
        problems = json.loads(answer.read_text(encoding="utf-8"))
    if problems:
        raise CheckpointError("\n".join(problems))


def _without_sizes(point: Point) -> Any:
    """Returns a config with the point's model that points with the same variables share."""
    config = type(point.message)()
    config.model.CopyFrom(point.message.model)
    block = getattr(config.model, config.model.WhichOneof("model"))
    block.image_resizer.Clear()
    fixed = block.image_resizer.fixed_shape_resizer
    fixed.height = fixed.width = _SIDE_FOR_CHECKS
    if config.model.HasField("faster_rcnn"):
        block.first_stage_max_proposals = 8
        block.ClearField("first_stage_max_proposals_in_training")
    return config
