"""``detzoo benchmark``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.cli.flags import (
    CHECKPOINT_HELP,
    SAVED_MODEL_HELP,
    Definer,
    define_json_flag,
    define_pipeline_flags,
    load_pipeline_from_flags,
    print_json,
    values_of,
)
from detzoo.errors import UsageError
from detzoo.serving.runtimes import RUNTIMES
from detzoo.tasks.benchmark import benchmark, usual_proposals

if TYPE_CHECKING:
    from detzoo.config.load import LoadedPipeline

SUMMARY = "Measure latency, memory, parameters and multiply-adds of an exported model or of a config."
DESCRIPTION = """
A config is exported first, with random weights unless --trained_checkpoint_dir gives trained ones. Apart from the
suppression of boxes, latency hardly depends on the weights.

    detzoo benchmark --saved_model=exported/saved_model
    detzoo benchmark --pipeline_config_path=ssd_mobilenet_v2_300 --output=results.csv
    detzoo benchmark --saved_model=exported/saved_model --images=photos --image_size=600x600 --runs=500
    detzoo benchmark --saved_model=exported/saved_model --batch_size=1,2,4,8 --output=batches.json
    detzoo benchmark --saved_model=exported/model.onnx
    detzoo benchmark --pipeline_config_path=ssd_mobilenet_v2_300 --runtime=litert

Runtimes. A SavedModel runs in TensorFlow, a .tflite file in LiteRT, an .onnx file in ONNX Runtime, or in OpenVINO with
--runtime=openvino. A config is exported for --runtime first. Runtimes other than TensorFlow are measured on CPUs, as
whole calls: their stages, multiply-adds and tensors are unknown.

Measurements. Latency is that of the whole call, from uint8 images in memory to final boxes in memory. A warm-up
lasts until the times have settled; no two consecutive calls get the same image. The first run, which prepares kernels
or compiles, is reported on a separate line. The parts of the exported graph are also timed one by one, and the
latency is divided among the stages accordingly. "Total memory" is the sum of all tensors that a call allocates, "held
at one time" the largest sum at any moment, weights included. The peak of the process is that of a fresh process that
only loads and runs the model. The yardstick is the speed of a matrix product in the same minute; it shows how far
results of several machines and hours are comparable.

Reliability. The table reports it if the two halves of the runs differ by more than 5 %, if other programs were
busy meanwhile, or if an earlier result in --output for the same model, options and machine differs by more than 5 %.

--output may be repeated: a row for each batch size is appended to a .csv file, a .json file is overwritten.
"""

DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("float32", "bfloat16", "float16")

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the model and the measurement."""
    define = Definer(flag_values)
    define.string("saved_model", SAVED_MODEL_HELP)
    define.choice("runtime", "Runtime to measure in; by default that of the model's format.", ("", *RUNTIMES), "")
    define_pipeline_flags(flag_values, required=False)
    define.string("trained_checkpoint_dir", f"With a config: {CHECKPOINT_HELP} Without it: random weights.")
    flags.DEFINE_alias("checkpoint_dir", "trained_checkpoint_dir", flag_values=flag_values)
    text = "Number of timed calls; more if they take less than --min_seconds. 500 in the trade-offs paper."
    define.integer("runs", text, 50, minimum=1)
    text = "Time calls for at least so many seconds, because the speed of a machine varies from second to second."
    define.number("min_seconds", text, 3.0)
    define.integer("warmup", "Least number of calls before that; they go on until their times settle.", 5, minimum=1)
    text = "Images per call; several as 1,2,4 or by repeating the flag, each with a separate result."
    define.strings("batch_size", text, ["1"])
    text = "Image files, folders or quoted patterns such as 'photos/*.jpg'. Without it: random images."
    define.string("images", text, "")
    text = (
        "HEIGHTxWIDTH in pixels. Random images have this size (480x640 by default). Those of --images are scaled until "
        "they just cover it and are cropped to it, as in the paper; by default they keep their own sizes."
    )
    define.string("image_size", text, "")
    text = "Random regions per image, for a model that classifies given regions. 0: 2000 for SPP-net, else 1000."
    define.integer("num_proposals", text, 0, minimum=0)
    define.choice("device", "Device to run on; auto takes a GPU if there is one.", DEVICES, "auto")
    text = (
        "bfloat16 (CPU) and float16 (GPU) are mixed precision: convolutions and matrix products in it, other "
        "operations in float32. Refused if no operation of the graph ran in this precision."
    )
    define.choice("precision", text, PRECISIONS, "float32")
    text = (
        "Compile the network by XLA. Resizing and the suppression of boxes, which XLA cannot compile, run as without "
        "it; the result names the compiled parts."
    )
    define.boolean("jit_compile", text)
    text = "Threads that share one operation; 0 for the runtime's default, in TensorFlow one per core."
    define.integer("intra_op_threads", text, 0, minimum=0)
    define.integer("inter_op_threads", "Operations that run concurrently; 0 for TensorFlow's default.", 0, minimum=0)
    define.strings("output", "File for the result: a .json file is written, a row is appended to a .csv file.")
    define_json_flag(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Measures, prints, writes."""
    _check_model_flags(flag_values)
    from detzoo.benchmark.report import check_output, compare, format_table, read_results, write_result

    batch_sizes = parse_batch_sizes(flag_values.batch_size)
    outputs = [path for path in flag_values.output if path]
    for path in outputs:
        check_output(path)
    earlier = {path: read_results(path) for path in outputs}
    loaded = load_pipeline_from_flags(flag_values) if flag_values.pipeline_config_path else None
    results: list[dict[str, Any]] = []
    for result in benchmark(
        loaded,
        saved_model=flag_values.saved_model or None,
        options=_options(flag_values, loaded),
        batch_sizes=batch_sizes,
        trained_checkpoint_dir=flag_values.trained_checkpoint_dir,
    ):
        if not flag_values.json:
            print(("\n" if results else "") + format_table(result), flush=True)
        results.append(result)
        for path in outputs:
            note = compare(result, earlier[path])
            if note:
                logger.warning("%s: %s", path, note)
            # After each batch size, so that its result is kept if a later one fails.
            write_result([result] if path.endswith(".csv") else results, path)
    if flag_values.json:
        print_json(results)
    for path in outputs:
        logger.info("written to %s", path)


def _check_model_flags(flag_values: flags.FlagValues) -> None:
    if bool(flag_values.saved_model) == bool(flag_values.pipeline_config_path):
        raise UsageError("give either --saved_model or --pipeline_config_path")
    if flag_values.saved_model and flag_values.trained_checkpoint_dir:
        raise UsageError(
            "--trained_checkpoint_dir goes with --pipeline_config_path; a SavedModel has its weights already"
        )
    if flag_values.saved_model and flag_values.set:
        raise UsageError("--set changes a config, so it goes with --pipeline_config_path")


def _options(flag_values: flags.FlagValues, loaded: LoadedPipeline | None) -> BenchmarkOptions:
    same = ["runs", "warmup", "device", "images", "precision", "jit_compile", "runtime"]
    same += ["intra_op_threads", "inter_op_threads", "min_seconds"]
    usual = BenchmarkOptions.num_proposals if loaded is None else usual_proposals(loaded.message)
    return BenchmarkOptions(
        **values_of(flag_values, *same),
        image_shape=image_shape(flag_values.image_size) if flag_values.image_size else None,
        num_proposals=flag_values.num_proposals or usual,
    )


def parse_batch_sizes(texts: list[str]) -> list[int]:
    """Returns the numbers in ``["1,2", "4"]``.

    Raises:
        UsageError: One is not a whole number above 0, or is given twice.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"--batch_size is '{','.join(texts)}'; give whole numbers from 1 on, such as 1,2,4")
    sizes = [int(word) for word in words]
    if len(set(sizes)) != len(sizes):
        raise UsageError(f"--batch_size {','.join(words)} names a size twice")
    return sizes


def image_shape(text: str) -> tuple[int, int]:
    """Returns (height, width) of ``HEIGHTxWIDTH``.

    Raises:
        UsageError: The text has another form.
    """
    sizes = text.lower().split("x")
    if len(sizes) != 2 or not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise UsageError(f"--image_size is '{text}'; give HEIGHTxWIDTH in pixels, such as 480x640")
    return int(sizes[0]), int(sizes[1])
