"""ONNX models equal their detectors; their parts equal TensorFlow's operators; other files and models are refused."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

from detzoo.data import resize
from detzoo.errors import DetzooError, UsageError
from detzoo.export import onnx as export
from detzoo.export.exporter import Export
from detzoo.export.freeze import freeze
from detzoo.export.onnx_graph import convert, keep_outputs
from detzoo.export.parity import textured_images
from detzoo.export.winograd import use_winograd
from detzoo.ops.graph_form import GraphForm, tracing_for
from detzoo.serving.live_detector import LiveDetector
from detzoo.serving.onnx_detector import OnnxDetector, open_session
from detzoo.tasks.export import _check_other_runtime

FREE_SIZE = "ssd { image_resizer { keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 96 } } }"
LABELS = "item {\n  id: 1\n  name: 'cat'\n  display_name: 'Cat'\n}\n"


def run(function, *inputs, form=GraphForm.ONNX):
    """Outputs in ONNX Runtime of a function from images [B, H, W, 3] to a dict of tensors, for each of the inputs."""
    specs = [tf.TensorSpec([None, None, None, 3], inputs[0].dtype, name="images")]
    with tracing_for(form):
        frozen, _ = freeze(tf.function(function, input_signature=specs, autograph=False).get_concrete_function())
    session = open_session(convert(frozen).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, {"input_tensor": images}))) for images in inputs]


@pytest.fixture(scope="module")
def build(load_module):
    """Function from the name of a small detector to (detector, resizer)."""
    one, two = load_module("small_one_stage.py"), load_module("small_two_stage.py")

    def made(kind):
        if kind.startswith("ssd"):
            changes = {"ssd": (), "ssd_fpn": (one.FPN_LITE,), "ssd_free_size": (one.FPN_LITE, FREE_SIZE)}[kind]
            return one.detector_and_resizer(*changes)
        from detzoo.benchmark.random_weights import randomize
        from detzoo.builders.detector import build_detector
        from detzoo.builders.resize import build_model_resizer

        message = two.message_of(kind)
        detector = build_detector(message)
        randomize(detector)
        return detector, build_model_resizer(message)

    return made


@pytest.fixture(scope="module")
def ssd(build, tmp_path_factory):
    """A small SSD: its detector, resizer, the exported file and the report."""
    detector, resizer = build("ssd")
    beside = Export("model { }", LABELS, "run", 7)
    path, report = export.export_onnx(detector, resizer, tmp_path_factory.mktemp("ssd"), "image_tensor", beside)
    return detector, resizer, path, report


def assert_detects_as(detector, resizer, path):
    """Compares detections on a single image, and on a batch with another size."""
    live, found = LiveDetector(detector, resizer), OnnxDetector(path)
    images = [*textured_images((1, 90, 130)), *textured_images((2, 120, 70))]
    for ours, expected in zip(found.detect_all(images), live.detect_all(images), strict=True):
        assert len(expected.scores) > 2
        np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(ours.boxes_norm, expected.boxes_norm, atol=1e-4)
        assert ours.class_ids.tolist() == expected.class_ids.tolist()
        assert ours.class_ids.dtype == np.int32
        if live.has_masks:
            np.testing.assert_allclose(ours.masks, expected.masks, atol=1e-3)
    assert found.has_masks == live.has_masks


def test_a_file_detects_as_its_detector(ssd):
    detector, resizer, path, report = ssd
    assert_detects_as(detector, resizer, path)
    assert report.same == 1.0
    assert report.num_detections >= 12  # the limit of each image
    assert report.sentence().startswith("agrees with the detector in memory on ")


@pytest.mark.parametrize(
    "kind",
    [
        "ssd_free_size",
        "masks",
        pytest.param("ssd_fpn", marks=pytest.mark.full_sweep),
        pytest.param("plain", marks=pytest.mark.full_sweep),
        pytest.param("pyramid_masks", marks=pytest.mark.full_sweep),
        pytest.param("rfcn", marks=pytest.mark.full_sweep),
    ],
)
def test_detectors_of_every_kind(build, tmp_path, kind):
    detector, resizer = build(kind)
    path, report = export.export_onnx(detector, resizer, tmp_path, "image_tensor", Export())
    assert report.same >= 0.9
    assert_detects_as(detector, resizer, path)


def test_the_file_describes_itself(ssd):
    *_, path, _ = ssd
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.opset_import[0].version) == ("detzoo", 17)
    [images] = model.graph.input
    assert images.name == "input_tensor"
    assert images.type.tensor_type.elem_type == TensorProto.UINT8
    assert [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
        3,
    ]
    outputs = [value.name for value in model.graph.output]
    assert outputs == ["detection_boxes", "detection_scores", "detection_classes", "num_detections"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "label_map.pbtxt": LABELS,
        "pipeline.config": "model { }",
        "checkpoint": "run",
        "step": "7",
    }
    assert [node.op_type for node in model.graph.node].count("NonMaxSuppression") == 1
    used = {name for node in model.graph.node for name in (*node.input, *node.output)} | set(outputs)
    assert {constant.name for constant in model.graph.initializer} <= used
    found = OnnxDetector(path)
    assert found.label_map.display_names == {1: "Cat"}
    assert found.pipeline.message.HasField("model")
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["opset"], record["step"], record["checkpoint"]) == (17, 7, "run")
    assert (path.parent / "label_map.pbtxt").read_text() == LABELS


def test_loading_and_detecting_import_no_tensorflow(ssd, tmp_path):
    (tmp_path / "only.onnx").write_bytes(ssd[2].read_bytes())  # nothing is next to it
    program = (
        "import sys, detzoo, numpy as np; detector = detzoo.load('only.onnx'); "
        "result = detector.detect(np.zeros([40, 60, 3], np.uint8), score_threshold=0.0); "
        "print(detector.class_names, len(result) > 0, 'tensorflow' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{1: 'Cat'} True False"


def test_a_disagreement_leaves_the_earlier_files(ssd, build, tmp_path, monkeypatch):
    detector, resizer, path, _ = ssd
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    monkeypatch.setattr(export, "convert", lambda frozen: onnx.load(path))
    monkeypatch.setattr(export, "keep_outputs", lambda model, names: model)
    monkeypatch.setattr(export, "freeze", lambda function: (type("Frozen", (), {"output_names": {}})(), 0))
    outputs = OnnxDetector.outputs

    def shifted(self, images):
        found = outputs(self, images)
        return {**found, "detection_scores": found["detection_scores"] + 0.01}

    monkeypatch.setattr(export, "check_parity", lambda *arguments: (0.0, 0.0))
    monkeypatch.setattr(OnnxDetector, "outputs", shifted)
    with pytest.raises(DetzooError, match=r"100% of the ONNX model's \d+ detections differ from the detector's"):
        export.export_onnx(detector, resizer, tmp_path, "image_tensor", Export(optimize_for="gpu"))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"earlier"


RESIZERS = {
    "fixed": resize.FixedShapeResizer(height=33, width=50),
    "fixed_larger": resize.FixedShapeResizer(height=150, width=210),
    "nearest": resize.FixedShapeResizer("nearest", height=33, width=50),
    "nearest_larger": resize.FixedShapeResizer("nearest", height=150, width=210),
    "gray": resize.FixedShapeResizer(convert_to_grayscale=True, height=33, width=50),
    "keep": resize.KeepAspectRatioResizer(min_dimension=40, max_dimension=64, pad_value=(9.0, 8.0, 7.0)),
    "keep_padded": resize.KeepAspectRatioResizer(
        min_dimension=40, max_dimension=64, pad_to_max_dimension=True, pad_value=(9.0, 8.0, 7.0)
    ),
    "shrink": resize.ConditionalShapeResizer(size_threshold=30),
    "enlarge": resize.ConditionalShapeResizer(size_threshold=140, shrink=False),
    "multiple": resize.PadToMultipleResizer(multiple=32, pad_value=(1.0, 2.0, 3.0)),
    "identity": resize.IdentityResizer(),
}


def test_resizers_give_the_same_pixels():
    def resized(images):
        return {name: resizer(images)[0] for name, resizer in RESIZERS.items()}

    batches = [textured_images(shape) for shape in ((1, 61, 100), (2, 90, 70), (1, 37, 51))]
    for images, found in zip(batches, run(resized, *batches), strict=True):
        for name, resizer in RESIZERS.items():
            expected = resizer(tf.constant(images))[0].numpy()
            # Both round the place of a sample. Bilinear values are continuous in it; the nearest pixel is not.
            np.testing.assert_allclose(found[name], expected, atol=0.01, err_msg=f"{name} {images.shape}")


@pytest.mark.parametrize("size", [(5, 3), (1, 4), (2, 2), (1, 1)])
def test_crops_are_one_operator(size):
    boxes = tf.constant([[0.1, 0.2, 0.9, 0.7], [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [0.3, 0.0, 0.31, 1.0]])
    indices = tf.constant([1, 0, 1, 1])

    def crop(images):
        return {"crops": tf.image.crop_and_resize(images, boxes, indices, size)}

    images = np.random.default_rng(0).normal(size=(2, 7, 11, 3)).astype(np.float32)
    [found] = run(crop, images)
    np.testing.assert_allclose(found["crops"], crop(images)["crops"], atol=1e-5)


def test_winograd_convolutions_are_converted():
    generator = np.random.default_rng(0)
    spread = tf.constant(generator.normal(size=(1, 1, 3, 128)), tf.float32)
    kernel = tf.constant(generator.normal(0.0, 0.03, (3, 3, 128, 128)), tf.float32)

    def convolve(images):
        return {"maps": tf.nn.conv2d(tf.nn.conv2d(images, spread, 1, "SAME"), kernel, 1, "SAME")}

    spec = tf.TensorSpec([None, None, None, 3], name="images")
    frozen, _ = freeze(tf.function(convolve, input_signature=[spec], autograph=False).get_concrete_function())
    images = generator.normal(size=(2, 35, 43, 3)).astype(np.float32)  # 9 x 11 tiles per image
    rewritten, count = use_winograd(frozen, tf.constant(images))
    assert count == 1
    model = convert(rewritten)
    assert [node.op_type for node in model.graph.node].count("Conv") == 1
    [found] = open_session(model.SerializeToString()).run(None, {"input_tensor": images})
    np.testing.assert_allclose(found, convolve(images)["maps"], atol=1e-4)


def test_operators_without_a_counterpart_are_named():
    def other(images):
        return {"values": tf.math.digamma(images)}

    with pytest.raises(DetzooError, match="ONNX has no counterpart of Digamma, operators of this detector"):
        run(other, np.zeros([1, 2, 2, 3], np.float32))


def test_outputs_keep_what_the_bodies_of_branches_read():
    body = helper.make_graph(
        [helper.make_node("Add", ["outer", "outer"], ["y"])], "b", [], [helper.make_tensor_value_info("y", 1, [1])]
    )
    nodes = [
        helper.make_node("Identity", ["x"], ["outer"]),
        helper.make_node("Identity", ["x"], ["unused"]),
        helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body),
    ]
    inputs = [helper.make_tensor_value_info("x", 1, [1]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info(name, 1, [1]) for name in ("z", "unused")]
    kept = keep_outputs(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)), ["z"])
    assert [node.output[0] for node in kept.graph.node] == ["outer", "z"]
    assert [value.name for value in kept.graph.output] == ["z"]


def other_model(path, dtype, shape, outputs=("output0",)):
    nodes = [helper.make_node("Identity", ["images"], [name]) for name in outputs]
    values = [helper.make_tensor_value_info(name, dtype, shape) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("images", dtype, shape)], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_files_of_others_are_refused(tmp_path):
    needed = "detection_boxes, detection_scores, detection_classes, num_detections"
    path = other_model(tmp_path / "yolo.onnx", TensorProto.FLOAT, [1, 3, 640, 640])
    with pytest.raises(UsageError) as caught:
        OnnxDetector(path)
    assert str(caught.value) == (
        f"{path} is no model of `detzoo export --format onnx`: it has the input images float [1, 3, 640, 640] and the "
        f"outputs output0; needed are one input, uint8 or float [N, H, W, 3] of any size, and the outputs {needed}"
    )
    path = other_model(tmp_path / "fixed.onnx", TensorProto.UINT8, [1, 300, 300, 3], tuple(needed.split(", ")))
    with pytest.raises(UsageError, match=r"it has the input images uint8 \[1, 300, 300, 3\]"):
        OnnxDetector(path)
    with pytest.raises(UsageError, match=r"there is no ONNX model .*gone.onnx; `detzoo export --format onnx` makes"):
        OnnxDetector(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UsageError, match=r"text.onnx cannot be loaded as an ONNX model: "):
        OnnxDetector(tmp_path / "text.onnx")


def test_a_missing_runtime_is_named(ssd, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="an ONNX model needs the package onnxruntime, which is not installed"):
        OnnxDetector(ssd[2])


SOFT = "{ batch_non_max_suppression { soft_nms_sigma: 0.5 } }"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "from_reader",
            "",
            "this config has model.faster_rcnn with proposals_from_reader",
        ),
        ("plain", "faster_rcnn { roi_operation: MAX_ROI_POOL }", "MAX_ROI_POOL, which only TensorFlow runs"),
        (
            "plain",
            f"faster_rcnn {{ second_stage_post_processing {SOFT} }}",
            "--set model.faster_rcnn.second_stage_post_p",
        ),
    ],
)
def test_models_that_only_tensorflow_runs(small, kind, change, message):
    with pytest.raises(DetzooError, match=message):
        _check_other_runtime(small.message_of(kind, change), "image_tensor", "--format=onnx")


def test_other_families_and_inputs_that_only_tensorflow_runs(load_module):
    one, proposals = load_module("small_one_stage.py"), load_module("small_mask_proposals.py")
    with pytest.raises(DetzooError, match=r"model\.segmentation_proposals\. It serves as a SavedModel: leave"):
        _check_other_runtime(proposals.message_of(), "image_tensor", "--nms=portable")
    with pytest.raises(DetzooError, match=r"no soft suppression; add --set model\.ssd\.post_processing"):
        _check_other_runtime(one.message(f"ssd {{ post_processing {SOFT} }}"), "image_tensor", "--nms=portable")
    with pytest.raises(UsageError, match="--format=onnx takes image_tensor or float_image_tensor"):
        _check_other_runtime(one.message(), "tf_example", "--format=onnx")


def test_conversion_writes_no_messages(capfd, caplog):
    with caplog.at_level(logging.WARNING):
        run(lambda images: {"sum": tf.reduce_sum(images, axis=-1)}, np.zeros([1, 2, 2, 3], np.float32))
    assert capfd.readouterr().err == ""
    assert not caplog.records
