"""Measures the latency, memory, parameters and multiply-adds of a SavedModel or of a config.

from detzoo.tasks.benchmark import benchmark

[result] = benchmark(saved_model="exported")
result["latency"]["median_ms"]
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.errors import DetzooError, UsageError
from detzoo.serving.runtimes import TENSORFLOW, require_runtime, runtime_of
from detzoo.tasks.export import export_to_measure
from detzoo.tasks.models import Checkpoint, Pipeline, load_checked, load_exported, start_tensorflow

if TYPE_CHECKING:
    from detzoo.benchmark.images import Pool

DEFAULT_OPTIONS = BenchmarkOptions(device="auto")


def benchmark(
    pipeline: Pipeline | None = None,
    *,
    saved_model: str | pathlib.Path | None = None,
    options: BenchmarkOptions = DEFAULT_OPTIONS,
    batch_sizes: Sequence[int] = (),
    overrides: Sequence[str] = (),
    trained_checkpoint_dir: Checkpoint | None = None,
    export_folder: str | pathlib.Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the result of each batch size once it is measured; see ``detzoo.benchmark.runner``.

    Device and threads are chosen once per process, so call it before anything else starts TensorFlow.

    Args:
        pipeline: A config, which is exported first; or give ``saved_model``.
        saved_model: Folder with saved_model.pb, or the output_directory of an export; or a .tflite or .onnx file.
        options: How to measure; ``device`` may be "auto", which takes a GPU if there is one. A config is exported for
            ``options.runtime``.
        batch_sizes: Images per call; empty for ``options.batch_size`` alone.
        overrides: See ``detzoo.tasks``.
        trained_checkpoint_dir: See ``detzoo.tasks``, or a detector in memory; None for random weights.
        export_folder: Folder of the export of a config; None for a temporary one.

    Raises:
        UsageError: The arguments contradict each other, or there is no such device, precision, image, model or
            runtime.
        ConfigError: The runtime does not support the model.
    """
    if (pipeline is None) == (saved_model is None):
        raise UsageError("give either --saved_model or --pipeline_config_path")
    sizes = list(batch_sizes) or [options.batch_size]
    options = dataclasses.replace(options, batch_size=sizes[0])
    runtime = runtime_of(saved_model, options.runtime) if saved_model is not None else options.runtime or TENSORFLOW
    require_runtime(runtime)
    options, model, name = dataclasses.replace(options, runtime=runtime), pathlib.Path(saved_model or ""), ""
    if pipeline is not None:
        loaded = load_checked(pipeline, overrides)
    elif runtime == TENSORFLOW:
        from detzoo.serving.saved_detector import find_saved_model

        model = find_saved_model(model)  # a wrong path is reported first
    elif not model.is_file():
        raise UsageError(f"--saved_model {model}: there is no such file; `detzoo export` makes one")
    options, pool = _start_measuring(options, max(sizes))
    with tempfile.TemporaryDirectory() as temporary:
        if model.suffix == ".pb":  # the measuring process and the measure of memory load SavedModels
            from detzoo.export.tensorflow1 import save_graph
            from detzoo.serving.saved_detector import read_detector_graph

            frozen, model = read_detector_graph(model), pathlib.Path(temporary) / "saved_model"
            save_graph(frozen, model)
        if pipeline is not None:
            folder, name = pathlib.Path(export_folder or temporary), pathlib.Path(loaded.path).stem
            device = options.device.lower()
            model = export_to_measure(loaded.message, folder, trained_checkpoint_dir, device, runtime)
        name = name or str(saved_model)
        if runtime == TENSORFLOW:
            from detzoo.benchmark.runner import benchmark_batch_sizes

            yield from benchmark_batch_sizes(model, options, sizes, name, pool)
            return
        from detzoo.benchmark.runtimes import benchmark_detector

        block = loaded.message.model if pipeline is not None else None
        threads, precision = options.intra_op_threads or None, options.precision
        try:
            detector = load_exported(model, block, runtime=runtime, num_threads=threads, precision=precision)
        except UsageError as problem:
            if pipeline is None:
                raise
            raise DetzooError(f"the export for {runtime} does not run there: {problem}") from problem
        yield from benchmark_detector(detector, model, options, sizes, name, pool)


def _start_measuring(options: BenchmarkOptions, largest_batch: int) -> tuple[BenchmarkOptions, Pool]:
    """Starts TensorFlow, checks the options, and returns them with the chosen device, and the images."""
    from detzoo.benchmark.machine import choose_threads
    from detzoo.benchmark.precision import check_precision
    from detzoo.benchmark.runner import images_for
    from detzoo.benchmark.runtimes import check_options

    if options.runtime == TENSORFLOW:
        choose_threads(options.intra_op_threads, options.inter_op_threads)
        device = _choose_device(options.device.lower())
        check_precision(options.precision, device, options.jit_compile)
    else:
        check_options(options)
        device = _choose_device("cpu")
    pool = images_for(options, largest_batch)
    start_tensorflow()
    return dataclasses.replace(options, device=device), pool


def usual_proposals(message: Any) -> int:
    """Returns the number of given regions per image that a benchmark of a config uses by default."""
    model = message.model
    return model.spp_net.max_proposals if model.HasField("spp_net") else BenchmarkOptions.num_proposals


def _choose_device(wanted: str) -> str:
    """Hides the GPUs for "cpu", and returns "CPU" or "GPU"."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        raise UsageError("--device gpu: TensorFlow sees no GPU here; use --device cpu")
    if wanted == "cpu":
        tf.config.set_visible_devices([], "GPU")
    return "GPU" if gpus and wanted != "cpu" else "CPU"
