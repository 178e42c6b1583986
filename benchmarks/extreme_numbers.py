"""Sets every number of configs to extreme values, and counts which pass `detzoo config check` and can be built.

    python benchmarks/extreme_numbers.py [--output extreme_numbers.csv] [--only augment] [--nobuild]

Reading the table: every number of a config is set, one at a time, to NaN, infinity, 1e39, -1, 0, 2147483647 and so
on, and to both ends of its range. "tried" counts the resulting configs, and "passed" those without an error. "not
finite" counts those of them with NaN, infinity, or a negative number outside of its range (target: 0). "not built"
counts those that pass, but that the builders refuse or cannot run (target: 0). A row is a config of model_configs/,
or all augmentations, all optimizers and schedules, or the branches of the SSD's other oneofs.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.augment import build_augmentations
from detzoo.builders.detector import build_detector
from detzoo.builders.losses import build_dense_loss
from detzoo.builders.optimizer import build_optimizer, moving_average_decay
from detzoo.builders.postprocess import build_dense_detections
from detzoo.builders.resize import build_model_resizer
from detzoo.builders.targets import build_anchor_targets
from detzoo.config import values
from detzoo.config.check import limits
from detzoo.config.check.effects import supported_branches
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import LoadedPipeline, load_pipeline
from detzoo.config.problems import Findings, has_errors
from detzoo.data.augment.apply import augment
from detzoo.data.sample import Sample
from detzoo.features.network import symbolic
from detzoo.train.settings import settings_from_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXTREMES = (math.nan, math.inf, -math.inf, 1e39, -1e39, 1e-40, -1, 0, 1, 2**31 - 1, -(2**31), 2**32 - 1)
BASE = "shapes_ssd_mobilenet_v1"
CONFIGS = (
    BASE,
    "shapes_faster_rcnn_mobilenet_v1",
    "shapes_faster_rcnn_mobilenet_v1_fpn",
    "shapes_mask_rcnn_mobilenet_v1_fpn",
    "shapes_rfcn_mobilenet_v1",
    "shapes_segmentation_proposals",
    "shapes_spp_classifier_zf5",
    "shapes_spp_net_zf5",
)
# Fields that a branch requires, in addition to the numbers that its ranges require.
COMPLETE = {
    "grid_anchor_generator": "scales: 1 aspect_ratios: 1",
    "flexible_grid_anchor_generator": (
        "anchor_grid { base_sizes: 8 aspect_ratios: 1 "  # pixels
        "height_stride: 8 width_stride: 8 }"
    ),
    "manual_step_learning_rate": "schedule { step: 5 }",
    "ssd_anchor_generator": "num_layers: 3 aspect_ratios: 1 reduce_boxes_in_lowest_layer: false",
    "autoaugment_image": "policy_name: 'v0'",
    "normalize_image": "original_maxval: 255",
    "subtract_channel_mean": "means: [1, 2, 3]",
    "ssd_random_crop": "operations { min_area: 0.1 max_area: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }",
    "random_pad_image": "min_image_height: 90 min_image_width: 90 max_image_height: 99 max_image_width: 99",
    "remap_labels": "original_labels: 1 new_label: 2",
}
_APPLIED_UP_TO = 4096  # pixels of an augmentation's output; larger ones are built only

OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")
ONLY = flags.DEFINE_string("only", "", "Only rows whose name contains this.")
BUILD = flags.DEFINE_boolean("build", True, "Build what passes.")


class Number(NamedTuple):
    """A number of a config: the message that holds it, its field and its path."""

    owner: Any
    field: Any
    path: str

    def set(self, value: float) -> bool:
        """Sets the number; returns whether the field's type accepts the value."""
        try:
            if values.is_repeated(self.field):
                items = getattr(self.owner, self.field.name)
                items[:] = [value, *items[1:]]
            else:
                setattr(self.owner, self.field.name, value)
        except (TypeError, ValueError, OverflowError):
            return False
        return True


def numbers_of(message: Any, path: str = "") -> Iterator[Number]:
    """Yields every number of a message and of its submessages, including unset ones."""
    for field in message.DESCRIPTOR.fields:
        here = f"{path}.{field.name}" if path else field.name
        is_number = field.cpp_type in (*values.INTEGER_RANGES, *values.FLOATS)
        if is_number and (not values.is_repeated(field) or len(getattr(message, field.name))):
            yield Number(message, field, here)
    for field, value in message.ListFields():
        for block, block_path in values.blocks_in(field, value, f"{path}.{field.name}" if path else field.name):
            yield from numbers_of(block, block_path)


def extremes_of(field: Any) -> list[float]:
    """Returns the extreme values of a field, including both ends of its range."""
    limit = limits.limit_of(field)
    ends = [end for end in (limit.low, limit.high) if end < math.inf]
    is_float = field.cpp_type in values.FLOATS
    return list(dict.fromkeys([*EXTREMES, *ends] if is_float else [int(x) for x in [*EXTREMES[6:], *ends]]))


def branches(message: Any, path: tuple[str, ...], oneof: str) -> Iterator[Any]:
    """Yields a copy of a config for every supported branch of the oneof in its block at ``path``."""
    block = _descend(message, path)
    for name in supported_branches(block, oneof):
        copy = type(message)()
        copy.CopyFrom(message)
        chosen = _descend(copy, path)
        getattr(chosen, name).SetInParent()
        if name in COMPLETE:
            from google.protobuf import text_format

            text_format.Merge(COMPLETE[name], getattr(chosen, name))
        # Numbers that must be set get a valid value.
        yield limits.check_limits(copy, Findings(lambda path: 0))


def _descend(message: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        message = getattr(message, name)
        message = message[0] if name == "data_augmentation_options" else message
    return message


def groups() -> Iterator[tuple[str, list[tuple[Any, str]], Callable[[Any, str], None]]]:
    """Yields the name of each row, its configs with the prefix of the paths to try, and the function to build one."""
    base = _load(BASE)
    oneofs = (("box_coder", "box_coder_oneof"), ("matcher", "matcher_oneof"))
    oneofs += (("similarity_calculator", "region_similarity"), ("anchor_generator", "anchor_generator_oneof"))
    ssd = [
        (copy, f"model.ssd.{name}") for name, oneof in oneofs for copy in branches(base, ("model", "ssd", name), oneof)
    ]
    ssd += [
        (copy, f"model.ssd.loss.{name}")
        for name in ("classification_loss", "localization_loss")
        for copy in branches(base, ("model", "ssd", "loss", name), name)
    ]
    resizers = branches(base, ("model", "ssd", "image_resizer"), "image_resizer_oneof")
    ssd += [(copy, "model.ssd.image_resizer") for copy in resizers]
    yield "choices of an SSD", ssd, build_parts
    steps = branches(base, ("train_config", "data_augmentation_options"), "preprocessing_step")
    yield "augmentations", [(copy, "train_config.data_augmentation_options") for copy in steps], run_augmentations
    optimizers = [
        (copy, "train_config.optimizer")
        for start in branches(base, ("train_config", "optimizer"), "optimizer")
        for copy in branches(
            start,
            ("train_config", "optimizer", start.train_config.optimizer.WhichOneof("optimizer"), "learning_rate"),
            "learning_rate",
        )
    ]
    yield "optimizers and schedules", optimizers, run_optimizer
    for name in CONFIGS:
        yield name, [(_load(name), "")], build_all


def _load(name: str) -> Any:
    return load_pipeline(str(ROOT / "model_configs" / f"{name}.config")).message


def build_model(config: Any, path: str) -> None:
    """Builds the resizer and, without values in its weights, the detector."""
    build_model_resizer(config.model)
    symbolic(lambda: build_detector(config.model))


def build_parts(config: Any, path: str) -> None:
    """Builds all parts of an SSD except its network, which takes milliseconds."""
    ssd = config.model.ssd
    build_model_resizer(config.model)
    build_anchor_generator(ssd.anchor_generator)
    build_anchor_targets(ssd)
    build_dense_loss(ssd)
    build_dense_detections(ssd)


def run_augmentations(config: Any, path: str) -> None:
    """Builds the augmentations and applies them if the result is not huge."""
    options = config.train_config.data_augmentation_options
    augmentations = build_augmentations(options)
    sizes = [number for number in numbers_of(config.train_config) if "options" in number.path]
    if any(np.max(getattr(n.owner, n.field.name), initial=0) >= _APPLIED_UP_TO for n in sizes):
        return
    boxes = tf.constant([[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.9, 0.7]])
    image = tf.cast(tf.reshape(tf.range(48 * 64 * 3) % 256, [48, 64, 3]), tf.uint8)
    ones = tf.ones([2])
    flags_ = tf.zeros([2], tf.bool)
    sample = Sample(image, boxes, tf.constant([0, 1]), ones, flags_, flags_, 0.0 * ones, None)
    for record in range(3):
        result = augment(sample, augmentations, 0, tf.constant(record))
        _require_finite(result.image, result.boxes_norm)


def run_optimizer(config: Any, path: str) -> None:
    """Builds the optimizer, runs one step, and evaluates its schedule from the first step to the last."""
    optimizer = build_optimizer(config.train_config.optimizer)
    moving_average_decay(config.train_config.optimizer)
    variable = tf.Variable([1.0, -1.0])
    optimizer.apply([tf.constant([0.5, 0.0])], [variable])
    rates = [optimizer.learning_rate] if not callable(optimizer.learning_rate) else []
    schedule = optimizer._learning_rate
    rates += [schedule(step) for step in (0, 1, 1000, 2**31 - 1)] if callable(schedule) else []
    _require_finite(variable, *rates)


def build_all(config: Any, path: str) -> None:
    """Builds the part to which the field at ``path`` belongs."""
    if path.startswith("model"):
        build_model(config, path)
    elif "data_augmentation" in path:
        run_augmentations(config, path)
    elif path.startswith("train_config"):
        if config.train_config.HasField("optimizer"):
            run_optimizer(config, path)
        settings_from_config(config.train_config, None)


def _require_finite(*tensors: Any) -> None:
    for tensor in tensors:
        if not np.all(np.isfinite(np.asarray(tensor, np.float64))):
            raise ValueError("the result is not finite")


def passes(config: Any) -> bool:
    """Returns whether `detzoo config check` finds no error; files need not exist."""
    return not has_errors(check_pipeline(LoadedPipeline(config, "", "", {}), files=False))


def measure(
    configs: list[tuple[Any, str]], build: Callable[[Any, str], None] | None, tell: Callable[[str], None] = print
) -> dict[str, int]:
    """Returns the counts of configs tried, passed, not finite and not built."""
    counts = dict.fromkeys(("tried", "passed", "not finite", "not built"), 0)
    seen: set[bytes] = set()
    for config, start in configs:
        if not passes(config):
            continue  # invalid from the start: a branch that does not match the other parts
        for index, number in enumerate(numbers_of(config)):
            for value in extremes_of(number.field) if number.path.startswith(start) else ():
                changed = type(config)()
                changed.CopyFrom(config)
                taken = next(itertools.islice(numbers_of(changed), index, None)).set(value)
                text = changed.SerializeToString(deterministic=True)
                if taken and text not in seen:
                    seen.add(text)
                    counts["tried"] += 1
                    if passes(changed):
                        counts["passed"] += 1
                        _judge(changed, number.path, value, build, counts, tell)
    return counts


def _judge(
    config: Any,
    path: str,
    value: float,
    build: Callable[[Any, str], None] | None,
    counts: dict[str, int],
    tell: Callable[[str], None],
) -> None:
    number = next(number for number in numbers_of(config) if number.path == path)
    is_meant = value >= 0 or limits.limit_of(number.field).low <= value
    if not math.isfinite(value) or not is_meant:
        counts["not finite"] += 1
        tell(f"  passed: {path} = {value}")
    if build is None:
        return
    try:
        build(config, path)
    except Exception as problem:
        counts["not built"] += 1
        reason = f"{type(problem).__name__}: {problem}"
        tell(f"  not built: {path} = {value} ({reason[:220]})")


def main(arguments: list[str]) -> None:
    """Prints one row per group, and writes the rows."""
    del arguments
    rows = []
    for name, configs, build in groups():
        if ONLY.value in name:
            counts = measure(configs, build if BUILD.value else None)
            rows.append({"what": name, **counts})
            print(f"{name:40}", "  ".join(f"{key} {count}" for key, count in counts.items()), flush=True)
    totals = {key: sum(row[key] for row in rows) for key in ("tried", "passed", "not finite", "not built")}
    print(f"{'all':40}", "  ".join(f"{key} {count}" for key, count in totals.items()))
    if OUTPUT.value:
        with open(OUTPUT.value, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    app.run(main)
