"""Checks, builds and steps each config of the Object Detection API, and reads its checkpoint.

    python benchmarks/published_configs.py [--folder ../shared/configs/published] [--only ssd] [--output table.csv]
        [--golden ../shared/golden] [--layouts FOLDER] [--parity]

With --output, each row is written when it is done. A second run does the missing ones only.

Reading the table: each row is a published config. "check" is ok, or the first error of `detzoo config check`.
"parameters" are those of the unchanged config. "step_s" and "loss" are of one training step on images of the embedded
data set; it keeps its detector, losses, augmentations and optimizer, but has small images, few proposals, one image per
batch, the data set's classes and random weights. "step_s" is the time to build the detector, read the first batch and
run the first step, without a traced graph; "loss" is the sum of its losses.

"checkpoint" has the number of the detector's variables that its published checkpoint holds, and of variables there that
nothing uses, for configs with a golden folder of the same model, or with a file NAME.csv (columns name and shape) of a
TensorFlow 1 layout in --layouts. With --parity the golden folder's checkpoint is exported: "export_s" is the time for
that, "parity" the largest differences of served scores, boxes and masks to the golden outputs. "-" has no reference.
The program exits with 1 if a config has a problem.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import math
import os
import pathlib
import sys
import tempfile
import time
import warnings
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from detzoo.builders.detector import build_detector, without_pretrained
from detzoo.checkpoints import tensorflow1
from detzoo.checkpoints.layout import variables_by_path
from detzoo.checkpoints.object_detection_api import match_detector
from detzoo.checkpoints.object_graph import ObjectGraph
from detzoo.cli.main import main as detzoo
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.label_map import load_label_map
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.data.record_keys import CONTEXT_FEATURES, CONTEXT_LENGTH
from detzoo.features.network import symbolic
from detzoo.train.session import build_trainer
from detzoo.train.strategy import create_strategy

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 64, 96  # pixels
MEMORY_LENGTH = 2057  # values per feature, of the published configs of Context R-CNN
_SIDES = (("min_dimension", HEIGHT), ("max_dimension", WIDTH))
FEW_PROPOSALS = (
    "first_stage_max_proposals=8",
    "first_stage_max_proposals_in_training=0",
    "second_stage_batch_size=8",
)

FOLDER = flags.DEFINE_string("folder", str(ROOT.parent / "shared/configs/published"), "Folder of the configs.")
ONLY = flags.DEFINE_string("only", "", "Only configs whose name contains this.")
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to; configs that it has are skipped.")
GOLDEN = flags.DEFINE_string("golden", str(ROOT.parent / "shared/golden"), "Folder of golden folders.")
LAYOUTS = flags.DEFINE_string("layouts", "", "Folder of NAME.csv with the variables of TensorFlow 1 checkpoints.")
PARITY = flags.DEFINE_boolean("parity", False, "Export golden checkpoints and compare what they detect.")


class Row(NamedTuple):
    """A row of the table."""

    config: str
    check: str = "ok"
    parameters: int = 0
    step_s: float = math.nan
    loss: float = math.nan
    checkpoint: str = "-"
    export_s: float = math.nan
    parity: str = "-"
    problem: str = ""  # "" if all that was tried succeeded


def main(argv: list[str]) -> int:
    """Runs the steps and prints the rows."""
    del argv
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", "Even though the")  # tf.data still traces its functions, as intended
    tf.config.run_functions_eagerly(True)
    rows = [Row(*row) for row in read_rows(OUTPUT.value)]
    known = {row.config for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            detzoo(["dataset", "shapes", f"--output_path={folder}/shapes", "--num_images=4", "--image_size=96"])
        add_memory(pathlib.Path(folder))
        for path in sorted(pathlib.Path(FOLDER.value).glob("*/*.config")):
            if ONLY.value not in path.stem or path.stem in known:
                continue
            rows.append(row_of(path, pathlib.Path(folder)))
            print("  ".join(f"{name} {value}" for name, value in rows[-1]._asdict().items()), flush=True)
            if OUTPUT.value:
                write_rows(OUTPUT.value, rows)
    failed = [row.config for row in rows if row.problem or row.check != "ok"]
    print(f"{len(rows) - len(failed)} of {len(rows)} have no problem")
    return 1 if failed or not rows else 0


def add_memory(folder: pathlib.Path) -> None:
    """Adds a memory of random features to each record, for Context R-CNN."""
    random = np.random.default_rng(0)
    for file in sorted(folder.glob("*.tfrecord")):
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records:
                feature = (example := tf.train.Example.FromString(record)).features.feature
                feature[CONTEXT_FEATURES].float_list.value[:] = random.normal(size=3 * MEMORY_LENGTH)
                feature[CONTEXT_LENGTH].int64_list.value[:] = [MEMORY_LENGTH]
                writer.write(example.SerializeToString())


def read_rows(file: str | None) -> list[list[str]]:
    """Returns the rows of an earlier run."""
    if not file or not pathlib.Path(file).is_file():
        return []
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))[1:]


def write_rows(file: str, rows: list[Row]) -> None:
    """Writes the table."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row._fields)
        writer.writerows(rows)


def row_of(path: pathlib.Path, data: pathlib.Path) -> Row:
    """Checks, builds, steps and reads one config. Any error becomes the problem of its row."""
    errors = [
        problem
        for problem in check_pipeline(load_pipeline(str(path)), files=False)
        if problem.severity is Severity.ERROR
    ]
    if errors:
        return Row(path.stem, check=errors[0].message)
    row, problems = Row(path.stem), []
    golden = golden_folder(path)
    tasks = [lambda: build(path, golden), lambda: step(path, data)]
    if golden is not None and PARITY.value:
        tasks.append(lambda: parity(golden))
    for task in tasks:
        keras.utils.clear_session()
        try:
            row = row._replace(**task())
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}"[:300])
    return row._replace(problem="; ".join(problems))


def golden_folder(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the golden folder of the same model: all but the size of images and the paths of label maps."""
    wanted = model_of(path)
    folders = sorted(pathlib.Path(GOLDEN.value).glob("*/pipeline.config"))
    return next((folder.parent for folder in folders if model_of(folder) == wanted), None)


@functools.cache
def model_of(path: pathlib.Path) -> Any:
    """Returns the model block of a config without the size of its images and its paths."""
    model = load_pipeline(str(path)).message.model
    block = getattr(model, model.WhichOneof("model"))
    for name in ("image_resizer", "keypoint_label_map_path"):
        if name in block.DESCRIPTOR.fields_by_name:
            block.ClearField(name)
    return model


def build(path: pathlib.Path, golden: pathlib.Path | None) -> dict[str, Any]:
    """Builds the unchanged config without values, and looks for its variables in the layout of its checkpoint."""
    pipeline = load_pipeline(str(path), keypoint_settings(load_pipeline(str(path)).message.model)).message
    detector = symbolic(lambda: build_detector(without_pretrained(pipeline.model)))
    shapes = {name: tuple(variable.shape) for name, variable in variables_by_path(detector.variables).items()}
    found: dict[str, Any] = {"parameters": sum(map(math.prod, shapes.values()))}
    listed = golden / "variables.csv" if golden else pathlib.Path(LAYOUTS.value) / f"{path.stem}.csv"
    if not listed.is_file() or not (golden or LAYOUTS.value):
        return found
    with listed.open(encoding="utf-8") as stream:
        stored = {row["name"]: tuple(map(int, filter(None, row["shape"].split("x")))) for row in csv.DictReader(stream)}
    if golden and (golden / "object_graph.pb").is_file():
        match: Any = match_detector(ObjectGraph((golden / "object_graph.pb").read_bytes()), list(shapes))
    else:
        match = tensorflow1.match_detector(list(stored), list(shapes))
    read = sum(stored.get(key) == shapes[name] for name, key in match.keys.items())
    found["checkpoint"] = f"{read} of {len(shapes)}, {len(match.unused)} unused"
    if read < len(shapes):
        missing = [name for name in shapes if stored.get(match.keys.get(name, "")) != shapes[name]]
        raise ValueError(f"not in the checkpoint: {', '.join(missing[:3])}")
    return found


def parity(golden: pathlib.Path) -> dict[str, Any]:
    """Exports the checkpoint of a golden folder, and compares what the export detects with the golden outputs."""
    sys.path.insert(0, str(ROOT / "tests" / "detectors"))
    import golden_weights

    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        found = golden_weights.exported_outputs(golden, scratch)
        seconds = time.perf_counter() - started
    if not (golden / "outputs.npz").is_file():
        return {"export_s": seconds}
    differences = golden_weights.served_differences(dict(np.load(golden / "outputs.npz")), found)
    text = ", ".join(f"{name} {value:.1e}" for name, value in zip(("scores", "boxes", "masks"), differences))
    return {"export_s": seconds, "parity": text}


def step(path: pathlib.Path, data: pathlib.Path) -> dict[str, float]:
    """Runs one step of a config on the records in ``data``."""
    started = time.perf_counter()
    pipeline = load_pipeline(str(path), overrides(load_pipeline(str(path)).message, data)).message
    result = build_trainer(pipeline, create_strategy("one_device")).run_steps(1)
    if result.failed_step:
        raise ValueError(f"not finite: {result.failed_values}")
    return {"step_s": time.perf_counter() - started, "loss": result.losses["total"]}


def keypoint_settings(model: Any) -> list[str]:
    """Returns the override of the path of the label map of keypoints: that of a golden folder."""
    if not model.HasField("center_net") or not model.center_net.keypoint_estimation_task:
        return []
    maps = sorted(pathlib.Path(GOLDEN.value).glob("*/keypoint_label_map.pbtxt"))
    return [f"model.center_net.keypoint_label_map_path={file}" for file in maps[:1]]


def overrides(pipeline: Any, data: pathlib.Path) -> list[str]:
    """Returns the overrides that make a published config small and read the records in ``data``."""
    kind = pipeline.model.WhichOneof("model")
    detector = getattr(pipeline.model, kind)
    num_classes = load_label_map(data / "label_map.pbtxt").num_classes
    chosen = [
        f"model.{kind}.num_classes={num_classes}",
        *(f"model.{kind}.image_resizer.{setting}" for setting in _small(detector.image_resizer)),
        *keypoint_settings(pipeline.model),
        "train_config.batch_size=1",
        "train_config.fine_tune_checkpoint=",
        "train_config.num_steps=10",
        f"train_input_reader.label_map_path={data}/label_map.pbtxt",
        f"train_input_reader.tf_record_input_reader.input_path=['{data}/shapes-*']",
        "train_input_reader.sample_1_of_n_examples=1",
        "train_input_reader.input_type=TF_EXAMPLE",  # Context R-CNN reads sequences of examples
    ]
    chosen += [f"model.{kind}.{setting}" for setting in FEW_PROPOSALS] if kind == "faster_rcnn" else []
    if detector.feature_extractor.type == "ssd_inception_v3":  # without padding, smaller images have no cell left
        chosen.append("model.ssd.image_resizer.fixed_shape_resizer.height=80")
    if pipeline.train_input_reader.load_instance_masks:
        chosen.append("train_input_reader.mask_type=PNG_MASKS")
    return chosen


def _small(resizer: Any) -> list[str]:
    """Returns the settings of the two numbers of an image_resizer of the same kind."""
    if resizer.WhichOneof("image_resizer_oneof") == "keep_aspect_ratio_resizer":
        return [f"keep_aspect_ratio_resizer.{name}={size}" for name, size in _SIDES]
    return [f"fixed_shape_resizer.height={HEIGHT}", f"fixed_shape_resizer.width={WIDTH}"]


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
