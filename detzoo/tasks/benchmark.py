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
from detzoo.errors import UsageError
from detzoo.tasks.export import export_to_measure
from detzoo.tasks.models import Checkpoint, Pipeline, load_checked, start_tensorflow

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
        saved_model: Folder with saved_model.pb, or the output_directory of an export.
        options: How to measure; ``device`` may be "auto", which takes a GPU if there is one.
        batch_sizes: Images per call; empty for ``options.batch_size`` alone.
        overrides: See ``detzoo.tasks``.
        trained_checkpoint_dir: See ``detzoo.tasks``, or a detector in memory; None for random weights.
        export_folder: Folder of the export of a config; None for a temporary one.

    Raises:
        UsageError: The arguments contradict each other, or there is no such device, precision, image or model.
    """
    if (pipeline is None) == (saved_model is None):
        raise UsageError("give either --saved_model or --pipeline_config_path")
    sizes = list(batch_sizes) or [options.batch_size]
    options = dataclasses.replace(options, batch_size=sizes[0])
    if pipeline is None:
        from detzoo.serving.saved_detector import find_saved_model

        folder, name = find_saved_model(saved_model or ""), str(saved_model)  # a wrong path is reported first
    else:
        loaded = load_checked(pipeline, overrides)
    options, pool = _start_measuring(options, max(sizes))
    from detzoo.benchmark.runner import benchmark_batch_sizes

    with tempfile.TemporaryDirectory() as temporary:
        if pipeline is not None:
            folder, name = pathlib.Path(export_folder or temporary), pathlib.Path(loaded.path).stem
            export_to_measure(loaded.message, folder, trained_checkpoint_dir, options.device.lower())
        yield from benchmark_batch_sizes(folder, options, sizes, name, pool)


def _start_measuring(options: BenchmarkOptions, largest_batch: int) -> tuple[BenchmarkOptions, Pool]:
    """Starts TensorFlow, checks the options, and returns them with the chosen device, and the images."""
    from detzoo.benchmark.machine import choose_threads
    from detzoo.benchmark.precision import check_precision
    from detzoo.benchmark.runner import images_for

    choose_threads(options.intra_op_threads, options.inter_op_threads)
    device = _choose_device(options.device.lower())
    check_precision(options.precision, device, options.jit_compile)
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
