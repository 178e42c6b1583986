"""SavedModels of --nms=portable have TensorFlow.js' operators only, and OpenVINO runs them with the same results."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from detzoo.benchmark.random_weights import randomize
from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.export.exporter import SAVED_MODEL_FOLDER, Export, export_detector
from detzoo.export.freeze import freeze
from detzoo.export.parity import textured_images
from detzoo.ops.graph_form import GraphForm, tracing_for
from detzoo.serving.served import ServingModule

OPERATORS = pathlib.Path(__file__).with_name("tensorflowjs_operators.txt")


def make(load_module, kind):
    """A small detector of a kind and its resizer."""
    one, two = load_module("small_one_stage.py"), load_module("small_two_stage.py")
    if kind == "ssd":
        return one.detector_and_resizer()
    if kind == "ssd_free_size":
        size = "ssd { image_resizer { keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 96 } } }"
        return one.detector_and_resizer(one.FPN_LITE, size)
    message = two.message_of(kind)
    detector = build_detector(message)
    randomize(detector)
    return detector, build_model_resizer(message)


@pytest.mark.parametrize(
    "kind",
    [
        "ssd_free_size",
        pytest.param("masks", marks=pytest.mark.full_sweep),
        pytest.param("pyramid", marks=pytest.mark.full_sweep),
        pytest.param("rfcn", marks=pytest.mark.full_sweep),
    ],
)
def test_all_operators_are_those_of_tensorflow_js(load_module, kind):
    known = set(OPERATORS.read_text().splitlines())
    with tracing_for(GraphForm.PORTABLE):
        frozen, _ = freeze(ServingModule(*make(load_module, kind)).concrete_function())
    used = {node.op for node in frozen.graph_def.node}
    assert used - known == set()
    assert {"ResizeBilinear", "NonMaxSuppressionV3"} <= used
    assert not used & {"If", "StatelessIf", "While", "StatelessWhile", "CombinedNonMaxSuppression"}


@pytest.mark.parametrize("kind", ["ssd", pytest.param("masks", marks=pytest.mark.full_sweep)])
def test_openvino_converts_and_runs_it(load_module, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # it sends messages from a subprocess
    openvino = pytest.importorskip("openvino")
    detector, resizer = make(load_module, kind)
    export_detector(detector, resizer, tmp_path, "image_tensor", Export(form=GraphForm.PORTABLE))
    saved_model = str(tmp_path / SAVED_MODEL_FOLDER)
    model = openvino.convert_model(saved_model)
    # On some CPUs its default is bfloat16.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    loaded = tf.saved_model.load(saved_model)
    live = ServingModule(detector, resizer)
    for shape in ((1, 90, 130), (3, 120, 70)):
        images = textured_images(shape)
        found = {name: value for output, value in compiled(images).items() for name in output.get_names()}
        for expected in (loaded(tf.constant(images)), live(tf.constant(images))):
            assert int(expected["num_detections"][0]) > 2
            for name in ("detection_boxes", "detection_scores", "detection_classes", "num_detections"):
                np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-4, err_msg=name)
