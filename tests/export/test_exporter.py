"""Tests of an exported folder: its files, loading with TensorFlow alone, replacing, and the check that must fail."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints import restore_for_inference
from detzoo.errors import DetzooError, UsageError
from detzoo.export import exporter, parity
from detzoo.export.exporter import Export, export_detector
from detzoo.serving.served import INPUT_SPECS, ServingModule

BESIDE = Export("model {}\n", 'item { id: 1 name: "cat" }\n', "run/ckpt-7", 7)

OTHER_PROCESS = """
import sys
import numpy as np
import tensorflow as tf
assert not any(name.split(".")[0] == "detzoo" for name in sys.modules)
loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
by_call = loaded(tf.constant(images))
by_signature = loaded.signatures["serving_default"](input_tensor=tf.constant(images))
for name, value in by_call.items():
    np.testing.assert_array_equal(value, by_signature[name])
np.savez(sys.argv[3], **{name: value.numpy() for name, value in by_call.items()})
"""


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "new" / "folder"
    detector = toy.toy_detector()
    report = export_detector(detector, toy.ToyResizer(), folder, "image_tensor", BESIDE)
    return detector, folder, report


def test_the_folder_has_the_original_layout(exported):
    _, folder, report = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint",
        "export.json",
        "label_map.pbtxt",
        "pipeline.config",
        "saved_model",
    ]
    assert (folder / "saved_model" / "saved_model.pb").is_file()
    assert (folder / "pipeline.config").read_text() == "model {}\n"
    record = json.loads((folder / "export.json").read_text())
    assert (record["step"], record["input_type"], record["checkpoint"]) == (7, "image_tensor", "run/ckpt-7")
    assert record["num_folded_batch_norms"] == 3
    assert record["versions"]["tensorflow"] == tf.__version__
    assert 0 < report.max_box_difference + report.max_score_difference < 1e-4


def test_the_checkpoint_restores_the_same_weights(exported, toy):
    detector, folder, _ = exported
    other = toy.toy_detector(seed=9)
    assert restore_for_inference(other, folder / "checkpoint") == 7
    for one, another in zip(detector.weights, other.weights):
        np.testing.assert_array_equal(one, another)


def test_a_process_that_imports_tensorflow_alone_gives_the_same(exported, toy, tmp_path):
    detector, folder, _ = exported
    images = np.random.default_rng(3).integers(0, 256, (2, 41, 67, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", OTHER_PROCESS, folder / "saved_model", tmp_path / "images.npy"]
    subprocess.run([*command, tmp_path / "out.npz"], check=True, cwd=tmp_path, timeout=600)
    expected = ServingModule(detector, toy.ToyResizer()).detect(tf.constant(images))
    found = np.load(tmp_path / "out.npz")
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_signature_is_the_original_one(exported):
    _, folder, _ = exported
    signature = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    [(name, spec)] = signature.structured_input_signature[1].items()
    assert (name, spec.dtype, spec.shape.as_list()) == ("input_tensor", tf.uint8, [None, None, None, 3])
    assert {output.dtype for output in signature.structured_outputs.values()} == {tf.float32}
    shapes = {name: output.shape.as_list() for name, output in signature.structured_outputs.items()}
    assert shapes["detection_boxes"] == [None, 5, 4]
    assert shapes["raw_detection_scores"] == [None, 24, 4]


@pytest.mark.parametrize("input_type", [name for name in INPUT_SPECS if name != "image_tensor"])
def test_every_input_type_is_exported_and_checked(toy, tmp_path, input_type):
    report = export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path, input_type, BESIDE)
    assert report.max_score_difference < 1e-4
    signature = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    assert signature.structured_input_signature[1]["input_tensor"].dtype == INPUT_SPECS[input_type].dtype


def test_large_filters_are_variables_and_compute_the_same(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("detzoo.serving.frozen.MIN_VARIABLE_BYTES", 0)
    report = export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)
    assert report.max_score_difference < 1e-4
    loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
    assert sorted(tuple(variable.shape) for variable in loaded.filters if variable.shape.rank == 4) == [
        (1, 1, 8, 16),
        (1, 1, 16, 4),
        (1, 1, 16, 4),
        (3, 3, 3, 8),
        (3, 3, 8, 1),
    ]


def test_without_a_comparison_the_same_is_written(toy, exported, tmp_path):
    _, folder, _ = exported
    report = export_detector(
        toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", dataclasses.replace(BESIDE, compares=False)
    )
    assert report is None
    assert json.loads((tmp_path / "export.json").read_text())["parity"] is None
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8))
    expected = tf.saved_model.load(str(folder / "saved_model"))(image)
    for name, value in tf.saved_model.load(str(tmp_path / "saved_model"))(image).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)


def test_a_failed_check_keeps_the_earlier_export(toy, tmp_path, monkeypatch):
    export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)
    before = (tmp_path / "saved_model" / "saved_model.pb").read_bytes()
    monkeypatch.setattr(exporter, "check_parity", lambda *_: parity.compare_outputs({"a": np.ones(1)}, {}, "images"))
    with pytest.raises(DetzooError, match="outputs differ on images"):
        export_detector(toy.toy_detector(seed=5), toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)
    assert (tmp_path / "saved_model" / "saved_model.pb").read_bytes() == before
    assert not list(tmp_path.glob(".export*"))


def test_a_failure_at_the_end_leaves_nothing_half_written(toy, tmp_path, monkeypatch):
    export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    monkeypatch.setattr(exporter, "versions", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_detector(toy.toy_detector(seed=5), toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_weights_that_are_not_finite_are_refused(toy, tmp_path):
    detector = toy.toy_detector()
    detector.network.weights[0].assign(np.full(detector.network.weights[0].shape, np.nan))
    with pytest.raises(DetzooError, match=r"the weights .*kernel are not finite: they diverged"):
        export_detector(detector, toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)


def test_a_file_in_the_place_of_the_folder(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--output_directory .*file cannot be made"):
        export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path / "file", "image_tensor", BESIDE)


def test_a_detector_that_takes_long_is_compared_on_one_image(toy, monkeypatch):
    serving = ServingModule(toy.toy_detector(), toy.ToyResizer(), "image_tensor")
    monkeypatch.setattr(parity, "LONG_SECONDS", 1e6)  # for any load of the machine
    assert [len(reference.given) for reference in parity.reference_outputs(serving, "image_tensor")] == [1, 2]
    monkeypatch.setattr(parity, "LONG_SECONDS", 0.0)
    [reference] = parity.reference_outputs(serving, "image_tensor")
    assert reference.what == "1 images of 240 x 320"


def outputs(scores=(0.9, 0.8), raw=0.5):
    return {
        "detection_scores": np.array([scores]),
        "raw_detection_boxes": np.full((1, 3, 4), raw),
        "raw_detection_scores": np.full((1, 3, 2), raw),
    }


def test_differences_are_measured_and_too_large_ones_refused():
    assert parity.compare_outputs(outputs(), outputs(raw=0.5005), "images") == pytest.approx((5e-4, 5e-4))
    with pytest.raises(DetzooError, match=r"raw_detection_boxes differ .* by 0.1 on images"):
        parity.compare_outputs(outputs(), outputs(raw=0.6), "images")
    with pytest.raises(DetzooError, match="50% of the SavedModel's detections differ"):
        parity.compare_outputs(outputs(), outputs(scores=(0.9, 0.1)), "images")


def test_rows_of_two_stages_are_compared_with_the_closest_ones():
    rows = np.linspace(0.0, 0.9, 20).reshape(1, 20, 1)
    expected = {**outputs(), "raw_detection_boxes": np.tile(rows, 4), "raw_detection_scores": np.tile(rows, 2)}
    # A proposal more at the second place, and none of the last two: all rows but the first are one place farther.
    order = [0, 0, *range(1, 19)]
    found = {**expected, **{name: expected[name][:, order] for name in parity.RAW_OUTPUTS}}
    with pytest.raises(DetzooError, match="differ from the detector's"):
        parity.compare_outputs(expected, found, "images")
    assert parity.compare_outputs(expected, found, "images", chooses_regions=True) == (0.0, 0.0)
    found = {**expected, **{name: expected[name] + 0.02 * (rows > 0.7) for name in parity.RAW_OUTPUTS}}
    with pytest.raises(DetzooError, match=r"raw_detection_boxes differ from the detector's by 0\.02"):
        parity.compare_outputs(expected, found, "images", chooses_regions=True)


def test_convolutions_that_lose_precision_are_left_out(toy, tmp_path, monkeypatch, caplog):
    real, calls = exporter.check_parity, []

    def check(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise DetzooError("the SavedModel's boxes differ")
        return real(*arguments)

    monkeypatch.setattr(exporter, "check_parity", check)
    monkeypatch.setattr(exporter, "use_winograd", lambda frozen, example, chooses_regions: (frozen, 3))
    export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", BESIDE)
    assert "boxes differ with faster convolutions, so these are not used" in caplog.text
    record = json.loads((tmp_path / "export.json").read_text())
    assert (record["optimized_for"], record["num_winograd_convolutions"]) == ("cpu", 0)


def test_for_a_gpu_convolutions_are_left_alone(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "use_winograd", None)  # calling it would fail
    export_detector(
        toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", dataclasses.replace(BESIDE, optimize_for="gpu")
    )
    assert json.loads((tmp_path / "export.json").read_text())["optimized_for"] == "gpu"
