"""``detzoo models``."""

from __future__ import annotations

import copy
import logging
import pathlib
from typing import Any

from absl import flags

from detzoo.errors import DetzooError, UsageError

SUMMARY = "List the configs in model_configs/: input size, parameters, multiply-adds, published result."
DESCRIPTION = """
    detzoo models
    detzoo models --match=retinanet

Start from one of them: copy it, edit what says PATH_TO_BE_CONFIGURED, and train. Parameters count the moving statistics
of batch normalisation; multiply-adds are of one image of 480 x 640 pixels, without post-processing, to which the masks
of a Mask R-CNN belong.

After a change of a config, --refresh builds what has changed and writes model_configs/models.csv anew.
"""
POSITIONAL = ()

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """--model_configs, --match, --refresh."""
    default = str(pathlib.Path(__file__).resolve().parents[2] / "model_configs")
    text = "Folder with .config files."
    flags.DEFINE_string("model_configs", default, text, flag_values=flag_values)
    flags.DEFINE_string("match", "", "Only configs whose name contains this.", flag_values=flag_values)
    flags.DEFINE_bool("refresh", False, "Build what has changed and update the table.", flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Prints one block for each config."""
    from detzoo.benchmark import models

    folder = pathlib.Path(flag_values.model_configs)
    files = sorted(file for file in folder.glob("*.config") if flag_values.match in file.stem)
    if not files:
        among = f" whose name contains '{flag_values.match}'" if flag_values.match else ""
        raise UsageError(f"--model_configs {folder} has no .config file{among}")
    rows = models.read_table(folder)
    if flag_values.refresh:
        for file in files:
            _refresh(file, rows)
        known = {file.stem for file in folder.glob("*.config")}
        models.write_table(folder, [row for name, row in rows.items() if name in known])
    width = max(len(file.stem) for file in files)
    print(f"{'config':<{width}} {'input':>9} {'parameters':>12} {'multiply-adds':>14}  published result")
    for file in files:
        print(_line(file, rows.get(file.stem), width))


def _line(file: pathlib.Path, row: Any, width: int) -> str:
    from detzoo.benchmark.models import read_header

    result = read_header(file.read_text(encoding="utf-8")).result or "-"
    if row is None or row.digest != model_digest(file):
        return f"{file.stem:<{width}} {'not counted yet: --refresh':>37}  {result}"
    millions, billions = f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.2f} B"
    return f"{file.stem:<{width}} {row.input_size:>9} {millions:>12} {billions:>14}  {result}"


# Blocks of a model that change neither its size nor its multiply-adds.
UNCOUNTED_FIELDS = (
    "box_coder",
    "loss",
    "matcher",
    "post_processing",
    "similarity_calculator",
    # Of two-stage detectors:
    "hard_example_miner",
    "second_stage_classification_loss",
    "second_stage_post_processing",
)


def model_digest(file: pathlib.Path) -> str:
    """A digest of what the numbers of a config depend on."""
    from detzoo.benchmark.models import digest_of
    from detzoo.config.load import read_pipeline, to_text

    model = read_pipeline(str(file))[0].message.model
    kind = model.WhichOneof("model")
    if kind is None:
        return digest_of("")
    counted = copy.deepcopy(getattr(model, kind))
    for name in UNCOUNTED_FIELDS:
        if name in counted.DESCRIPTOR.fields_by_name:
            counted.ClearField(name)
    return digest_of(to_text(counted))


def _refresh(file: pathlib.Path, rows: dict[str, Any]) -> None:
    digest = model_digest(file)
    if file.stem in rows and rows[file.stem].digest == digest:
        return
    logger.info("building %s", file.stem)
    try:
        rows[file.stem] = count_model(file, digest)
    except DetzooError as problem:
        rows.pop(file.stem, None)
        logger.warning("%s cannot be built: %s", file.stem, problem)


def count_model(file: pathlib.Path, digest: str) -> Any:
    """Builds a config's detector and counts it."""
    from detzoo.benchmark.models import ModelRow
    from detzoo.benchmark.multiply_adds import count_in_function
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints.layout import variables_by_path
    from detzoo.cli.inference import build_untrained, start_tensorflow
    from detzoo.config.load import load_pipeline

    start_tensorflow()
    import keras
    import tensorflow as tf

    from detzoo.benchmark.models import IMAGE_SHAPE

    model = load_pipeline(str(file)).message.model
    keras.backend.clear_session()
    detector = build_untrained(model)
    image, _ = build_model_resizer(model)(tf.zeros([*IMAGE_SHAPE, 3]))
    spec = tf.TensorSpec([1, *image.shape], tf.float32)
    options = {"proposals": _some_proposals()} if getattr(detector, "wants_proposals", False) else {}

    def outputs(inputs: Any) -> dict[str, Any]:
        return dict(detector.predict(inputs, **options)._asdict())

    predict = tf.function(outputs, input_signature=[spec], autograph=False)
    adds = sum(count_in_function(predict.get_concrete_function()).values())
    parameters = sum(int(variable.shape.num_elements()) for variable in variables_by_path(detector.variables).values())
    return ModelRow(file.stem, "x".join(map(str, image.shape[:2])), parameters, adds, digest)


def _some_proposals() -> Any:
    """As many regions as the pyramid's paper has in testing, for a detector without a first stage."""
    import tensorflow as tf

    from detzoo.benchmark.models import NUM_GIVEN_PROPOSALS
    from detzoo.contracts import Proposals

    rows = NUM_GIVEN_PROPOSALS
    boxes = tf.tile(tf.constant([[[0.0, 0.0, 0.5, 0.5]]]), [1, rows, 1])
    return Proposals(boxes, tf.zeros([1, rows]), tf.constant([rows]))
