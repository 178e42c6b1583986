"""``detzoo benchmark``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.cli.flags import define_pipeline_flags, load_pipeline_from_flags
from detzoo.errors import UsageError
from detzoo.tasks.benchmark import benchmark, usual_proposals

if TYPE_CHECKING:
    from detzoo.config.load import LoadedPipeline

SUMMARY = "Measure latency, memory, parameters and multiply-adds of a SavedModel or of a config."
DESCRIPTION = """
A config is exported first, with random weights unless --trained_checkpoint_dir gives trained ones. Latency hardly
depends on them, but for the suppression of boxes.

    detzoo benchmark --saved_model=exported/saved_model
    detzoo benchmark --pipeline_config_path=model_configs/ssd_mobilenet_v2_300.config --output=results.csv
    detzoo benchmark --saved_model=exported/saved_model --images=photos --image_size=600x600 --runs=500
    detzoo benchmark --saved_model=exported/saved_model --batch_size=1,2,4,8 --output=batches.json

What is measured. Latency is of the whole call, from uint8 images in memory to final boxes in memory, after a warm-up
that lasts until the times have settled; no call gets the image of the call before it. The first run, which prepares
kernels or compiles, has a line of its own. Stages divide the latency as the parts of the exported graph take when they
are called one by one. "Total memory" is the sum of all tensors that a call allocates, "held at one time" the most of
them at once, with the weights. The peak of the process is of a fresh one that loads the model and nothing else. The
yardstick is the speed of a matrix product in the same minute; it says how far machines and hours are comparable.

Can it be trusted? The table says so where the two halves of the runs differ by more than 5 %, where other programs were
busy meanwhile, and where --output holds an earlier result of the same model, options and machine that differs by more
than 5 %.

--output may be repeated: to a .csv file a row is added for each batch size, a .json file is written anew.
"""
POSITIONAL = ()

DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("float32", "bfloat16", "float16")

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """--saved_model or --pipeline_config_path, and how to measure."""
    text = "Folder with saved_model.pb, or the output_directory of `detzoo export`."
    flags.DEFINE_string("saved_model", None, text, flag_values=flag_values)
    define_pipeline_flags(flag_values, required=False)
    text = "With a config: folder with checkpoints (the newest is used), or the prefix of one; random weights without."
    flags.DEFINE_string("trained_checkpoint_dir", None, text, flag_values=flag_values)
    flags.DEFINE_alias("checkpoint_dir", "trained_checkpoint_dir", flag_values=flag_values)
    text = "Calls that are timed; more where they take less than --min_seconds. 500 in the trade-offs paper."
    flags.DEFINE_integer("runs", 50, text, lower_bound=1, flag_values=flag_values)
    text = "Calls are timed for at least so long: a machine changes its speed from second to second."
    flags.DEFINE_float("min_seconds", 3.0, text, lower_bound=0.0, flag_values=flag_values)
    text = "Calls before that, at least; they go on until their times have settled."
    flags.DEFINE_integer("warmup", 5, text, lower_bound=1, flag_values=flag_values)
    text = "Images a call; several as 1,2,4 or by repeating the flag, each a result of its own."
    flags.DEFINE_multi_string("batch_size", ["1"], text, flag_values=flag_values)
    text = "Image files, folders or quoted patterns such as 'photos/*.jpg'. Without it: random ones."
    flags.DEFINE_string("images", "", text, flag_values=flag_values)
    text = (
        "HEIGHTxWIDTH in pixels: random images have it (480x640 without it); those of --images are scaled until they "
        "just cover it, and cropped to it, as in the paper. Without it they keep their own sizes."
    )
    flags.DEFINE_string("image_size", "", text, flag_values=flag_values)
    text = "Of a model that classifies given regions: so many of an image, random ones. 0: SPP-net's 2000, else 1000."
    flags.DEFINE_integer("num_proposals", 0, text, lower_bound=0, flag_values=flag_values)
    text = "Where to run; auto takes a GPU if there is one."
    flags.DEFINE_enum("device", "auto", DEVICES, text, flag_values=flag_values)
    text = (
        "bfloat16 (CPU) and float16 (GPU) are mixed precision: convolutions and matrix products in it, the rest in "
        "float32. Refused where the graph that ran shows that none of them was."
    )
    flags.DEFINE_enum("precision", "float32", PRECISIONS, text, flag_values=flag_values)
    text = (
        "Compile the network by XLA. Resizing, and the suppression of boxes that XLA cannot compile, run as without "
        "it; the result names what was compiled."
    )
    flags.DEFINE_boolean("jit_compile", False, text, flag_values=flag_values)
    text = "Threads that share one operation; 0 leaves it to TensorFlow: one a core."
    flags.DEFINE_integer("intra_op_threads", 0, text, lower_bound=0, flag_values=flag_values)
    text = "Operations that run beside each other; 0 leaves it to TensorFlow."
    flags.DEFINE_integer("inter_op_threads", 0, text, lower_bound=0, flag_values=flag_values)
    text = "File for the result: .json is written, to .csv a row is added. May be repeated."
    flags.DEFINE_multi_string("output", [], text, flag_values=flag_values)


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
        print(("\n" if results else "") + format_table(result), flush=True)
        results.append(result)
        for path in outputs:
            note = compare(result, earlier[path])
            if note:
                logger.warning("%s: %s", path, note)
            # After each batch size: what was measured is kept if a later one fails.
            write_result([result] if path.endswith(".csv") else results, path)
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
    same = ("runs", "warmup", "device", "images", "precision", "jit_compile")
    same += ("intra_op_threads", "inter_op_threads", "min_seconds")
    usual = BenchmarkOptions.num_proposals if loaded is None else usual_proposals(loaded.message)
    return BenchmarkOptions(
        **{name: flag_values[name].value for name in same},
        image_shape=image_shape(flag_values.image_size) if flag_values.image_size else None,
        num_proposals=flag_values.num_proposals or usual,
    )


def parse_batch_sizes(texts: list[str]) -> list[int]:
    """The numbers in ``["1,2", "4"]``.

    Raises:
        UsageError: one is no whole number from 1 on, or comes twice.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"--batch_size is '{','.join(texts)}'; give whole numbers from 1 on, such as 1,2,4")
    sizes = [int(word) for word in words]
    if len(set(sizes)) != len(sizes):
        raise UsageError(f"--batch_size {','.join(words)} names a size twice")
    return sizes


def image_shape(text: str) -> tuple[int, int]:
    """(height, width) of ``HEIGHTxWIDTH``.

    Raises:
        UsageError: it is something else.
    """
    sizes = text.lower().split("x")
    if len(sizes) != 2 or not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise UsageError(f"--image_size is '{text}'; give HEIGHTxWIDTH in pixels, such as 480x640")
    return int(sizes[0]), int(sizes[1])
