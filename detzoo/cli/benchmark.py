"""``detzoo benchmark``."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.cli.flags import define_pipeline_flags, load_pipeline_from_flags
from detzoo.errors import UsageError

if TYPE_CHECKING:
    from detzoo.benchmark.runner import BenchmarkOptions
    from detzoo.config.load import LoadedPipeline

SUMMARY = "Measure latency, memory, parameters and multiply-adds of a SavedModel or of a config."
DESCRIPTION = """
A config is exported with random weights first: latency does not depend on them, but for the suppression of boxes.

    detzoo benchmark --saved_model=exported/saved_model
    detzoo benchmark --pipeline_config_path=model_configs/ssd_mobilenet_v2_300.config --output=results.csv

Prints a table; --output writes a JSON object (.json) or adds a row to a CSV file (.csv). Latency is of the whole call,
from uint8 images to final boxes. Peak memory is of a fresh process that loads the model and nothing else. The yardstick
is the speed of a matrix product in the same minute; it says how far machines and hours are comparable.
"""
POSITIONAL = ()

DEVICES = ("auto", "cpu", "gpu")

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """--saved_model or --pipeline_config_path, and how to measure."""
    text = "Folder with saved_model.pb, or the output_directory of `detzoo export`."
    flags.DEFINE_string("saved_model", None, text, flag_values=flag_values)
    define_pipeline_flags(flag_values, required=False)
    flags.DEFINE_integer("runs", 50, "Calls that are timed.", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("warmup", 5, "Calls before that.", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("batch_size", 1, "Images a call.", lower_bound=1, flag_values=flag_values)
    text = "HEIGHTxWIDTH of the images in pixels."
    flags.DEFINE_string("image_size", "480x640", text, flag_values=flag_values)
    text = "Where to run; auto takes a GPU if there is one."
    flags.DEFINE_enum("device", "auto", DEVICES, text, flag_values=flag_values)
    text = "File for the result: .json is written, to .csv a row is added."
    flags.DEFINE_string("output", "", text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Measures, prints, writes."""
    if bool(flag_values.saved_model) == bool(flag_values.pipeline_config_path):
        raise UsageError("give either --saved_model or --pipeline_config_path")
    from detzoo.benchmark.report import check_output, format_table, write_result

    shape = image_shape(flag_values.image_size)
    check_output(flag_values.output)
    loaded = load_pipeline_from_flags(flag_values) if flag_values.pipeline_config_path else None
    from detzoo.benchmark.runner import BenchmarkOptions, benchmark_saved_model
    from detzoo.cli.inference import start_tensorflow

    device = _choose_device(flag_values.device)
    start_tensorflow()
    options = BenchmarkOptions(flag_values.runs, flag_values.warmup, flag_values.batch_size, shape, device)
    if loaded is None:
        result = benchmark_saved_model(flag_values.saved_model, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = measure_pipeline(loaded, options, folder)
    print(format_table(result))
    if flag_values.output:
        write_result(result, flag_values.output)
        logger.info("written to %s", flag_values.output)


def measure_pipeline(
    loaded: LoadedPipeline,
    options: BenchmarkOptions,
    export_folder: str | pathlib.Path,
    checkpoint_dir: str | None = None,
) -> dict[str, Any]:
    """Exports a config's detector and measures what was exported.

    Call it in a process of its own, before anything else starts TensorFlow: device and threads are chosen once.

    Args:
        loaded: the resolved config, checked.
        options: how to measure; ``device`` may be "auto".
        export_folder: the export stays there, as of `detzoo export`.
        checkpoint_dir: folder of checkpoints, or the prefix of one; None for random weights.

    Returns:
        A JSON object; see ``benchmark_saved_model``.

    Raises:
        UsageError: no such device.
        CheckpointError: there is no such checkpoint, or it is of another model.
        DetzooError: the work failed.
    """
    from detzoo.benchmark.runner import benchmark_saved_model
    from detzoo.cli.inference import start_tensorflow

    device = _choose_device(options.device.lower())
    start_tensorflow()
    if checkpoint_dir:
        export_trained(loaded.message, checkpoint_dir, export_folder)
    else:
        export_untrained(loaded.message.model, export_folder)
    return benchmark_saved_model(
        export_folder, dataclasses.replace(options, device=device), name=pathlib.Path(loaded.path).stem
    )


def export_trained(message: Any, checkpoint_dir: str, folder: str | pathlib.Path) -> None:
    """A config's detector as a SavedModel with the weights of a checkpoint."""
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints import restore_for_inference
    from detzoo.checkpoints.files import latest_prefix
    from detzoo.cli.inference import build_untrained
    from detzoo.config.load import to_text
    from detzoo.export.exporter import Export, export_detector

    latest_prefix(checkpoint_dir)  # a wrong path is told before the model is built
    logger.info("building and exporting the detector with the weights of %s", checkpoint_dir)
    detector = build_untrained(message.model)
    step = restore_for_inference(detector, checkpoint_dir)
    beside = Export(to_text(message), source=checkpoint_dir, step=step)
    export_detector(detector, build_model_resizer(message.model), folder, "image_tensor", beside)


def export_untrained(model: object, folder: str | pathlib.Path) -> None:
    """A ``model`` block as a SavedModel with random weights."""
    from detzoo.benchmark.random_weights import randomize
    from detzoo.builders.resize import build_model_resizer
    from detzoo.cli.inference import build_untrained
    from detzoo.export.exporter import Export, export_detector

    logger.info("building and exporting the detector with random weights")
    detector = build_untrained(model)
    randomize(detector)
    export_detector(detector, build_model_resizer(model), folder, "image_tensor", Export())


def image_shape(text: str) -> tuple[int, int]:
    """(height, width) of ``HEIGHTxWIDTH``.

    Raises:
        UsageError: it is something else.
    """
    sizes = text.lower().split("x")
    if len(sizes) != 2 or not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise UsageError(f"--image_size is '{text}'; give HEIGHTxWIDTH in pixels, such as 480x640")
    return int(sizes[0]), int(sizes[1])


def _choose_device(wanted: str) -> str:
    """Hides the GPUs for "cpu"; says what will run.

    Raises:
        UsageError: a GPU is wanted and TensorFlow sees none.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        raise UsageError("--device gpu: TensorFlow sees no GPU here; use --device cpu")
    if wanted == "cpu":
        tf.config.set_visible_devices([], "GPU")
    return "GPU" if gpus and wanted != "cpu" else "CPU"
