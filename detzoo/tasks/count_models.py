"""Counts parameters and multiply-adds of configs and keeps them in the table of their folder."""

from __future__ import annotations

import contextlib
import copy
import logging
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from detzoo.benchmark.models import IMAGE_SHAPE, NUM_GIVEN_PROPOSALS, ModelRow, digest_of
from detzoo.config.load import load_pipeline, read_pipeline, to_text
from detzoo.errors import DetzooError
from detzoo.tasks.models import build_untrained, start_tensorflow

# Fields of a model that change neither its size nor its multiply-adds.
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
    # Of classifiers:
    "map_scale",
    "random_train_size",
    "shorter_side",
    "test_view",
    "train_size",
)

logger = logging.getLogger(__name__)


def refresh(file: pathlib.Path) -> None:
    """Counts a config if it has changed, and writes the table at once, because counting all configs takes minutes."""
    from detzoo.benchmark import models

    rows, digest = models.read_table(file.parent), model_digest(file)
    if file.stem in rows and rows[file.stem].digest == digest:
        return
    equal = next((row for row in rows.values() if row.digest == digest), None)
    if equal is not None:
        fresh = equal._replace(config=file.stem)
    else:
        logger.info("building %s", file.stem)
        try:
            fresh = count_model(file, digest)
        except DetzooError as problem:
            logger.warning("%s cannot be built: %s", file.stem, problem)
            fresh = None
    rows = models.read_table(file.parent)  # read it again: another process may have counted meanwhile
    rows.pop(file.stem, None)
    known = {other.stem for other in file.parent.glob("*.config")}
    kept = [row for row in rows.values() if row.config in known]
    models.write_table(file.parent, [*kept, fresh] if fresh else kept)


def model_digest(file: pathlib.Path) -> str:
    """Returns a digest of the fields that the numbers of a config depend on."""
    model = read_pipeline(str(file))[0].message.model
    kind = model.WhichOneof("model")
    if kind is None:
        return digest_of("")
    counted = copy.deepcopy(getattr(model, kind))
    for name in UNCOUNTED_FIELDS:
        if name in counted.DESCRIPTOR.fields_by_name:
            counted.ClearField(name)
    return digest_of(to_text(counted))


def count_model(file: pathlib.Path, digest: str) -> Any:
    """Builds the detector of a config and returns its ``ModelRow``."""
    from detzoo.benchmark.multiply_adds import count_in_function
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints.layout import variables_by_path

    start_tensorflow()
    import keras
    import tensorflow as tf

    model = load_pipeline(str(file)).message.model
    keras.backend.clear_session()
    if model.HasField("spp_classifier"):  # counted on one crop, independent of its views
        model.spp_classifier.test_view = model.spp_classifier.ONE_CROP
        image = tf.zeros([model.spp_classifier.crop_size] * 2 + [3])
    else:
        image, _ = build_model_resizer(model)(tf.zeros([*IMAGE_SHAPE, 3]))
    with stand_in_keypoints(model):
        detector = build_untrained(model)
    spec = tf.TensorSpec([1, *image.shape], tf.float32)
    runs = model.HasField("spp_net")  # the sizes of its maps are those of its scales, known only when the graph runs
    options = {"proposals": _some_proposals(model)} if detector.wants_proposals else {}

    def outputs(inputs: Any) -> dict[str, Any]:
        found = detector.forward(inputs, **options)._asdict()
        return {name: found[name] for name in ("box_deltas", "class_logits")} if runs else dict(found)

    predict = tf.function(outputs, input_signature=[spec], autograph=False).get_concrete_function()
    counts = _count_running(predict, image) if runs else count_in_function(predict)
    parameters = sum(int(variable.shape.num_elements()) for variable in variables_by_path(detector.variables).values())
    size = detector.whole_cells(image[tf.newaxis], None).shape[1:3]
    return ModelRow(file.stem, "x".join(map(str, size)), parameters, sum(counts.values()), digest)


@contextlib.contextmanager
def stand_in_keypoints(model: Any) -> Iterator[None]:
    """Sets a label map of the keypoints that a CenterNet's ``keypoint_label_to_std`` names.

    The file exists until the block ends. In it, a config with a placeholder for its label map can be built. Other
    detectors do not change.
    """
    items = [
        f"item {{ id: {number} name: '{task.keypoint_class_name}' "
        + " ".join(f"keypoints {{ id: {index} label: '{name}' }}" for index, name in enumerate(sorted(names)))
        + " }"
        for number, task in enumerate(model.center_net.keypoint_estimation_task, start=1)
        for names in [task.keypoint_label_to_std]
    ]
    with tempfile.TemporaryDirectory() as folder:
        if items:
            file = pathlib.Path(folder) / "label_map.pbtxt"
            file.write_text("\n".join(items), encoding="utf-8")
            model.center_net.keypoint_label_map_path = str(file)
        yield


def _count_running(function: Any, image: Any) -> dict[str, int]:
    """Returns multiply-adds by kind of a concrete function, which is called with one image."""
    from detzoo.benchmark.multiply_adds import count_in_graph_def
    from detzoo.export.freeze import freeze

    frozen, _ = freeze(function)  # drops what the outputs do not need
    return count_in_graph_def(frozen.graph_def, frozen.input_name, image.numpy()[None])


def _some_proposals(model: Any) -> Any:
    """Returns as many regions as the papers test with, for a detector without a first stage."""
    import tensorflow as tf

    from detzoo.contracts import Proposals

    rows = model.spp_net.max_proposals if model.HasField("spp_net") else NUM_GIVEN_PROPOSALS
    boxes = tf.tile(tf.constant([[[0.0, 0.0, 0.5, 0.5]]]), [1, rows, 1])
    return Proposals(boxes, tf.zeros([1, rows]), tf.constant([rows]))
