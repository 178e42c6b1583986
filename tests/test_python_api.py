"""The public names of ``import detzoo``, used as a Python program uses them."""

from __future__ import annotations

import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

import detzoo

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "keras", "numpy", "PIL", "google.protobuf", "matplotlib", "pandas", "supervision")


@pytest.fixture(scope="module")
def small_run(load_module, tmp_path_factory):
    """``config`` and ``model_dir`` of a small detector of five classes whose scores differ."""
    one_stage, runs = load_module("small_one_stage.py"), load_module("small_run.py")
    folder = tmp_path_factory.mktemp("run")
    model = one_stage.message("ssd { num_classes: 5 }")
    config = runs.write_config(folder, model)
    drawn, _ = one_stage.detector_and_resizer("ssd { num_classes: 5 }")
    return types.SimpleNamespace(config=config, model_dir=runs.write_run(folder / "model", config, drawn))


@pytest.fixture(scope="module")
def detector(small_run):
    return detzoo.load(small_run.model_dir)


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    return detector.export(tmp_path_factory.mktemp("exported")).path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folder of five images of three shapes."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (height, width) in enumerate([(60, 80), (64, 96), (60, 80), (90, 50), (60, 80)]):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def pixels_of(path):
    return np.asarray(Image.open(path))


def assert_same(one, other):
    np.testing.assert_allclose(one.boxes_norm, other.boxes_norm, atol=1e-4)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_array_equal(one.class_ids, other.class_ids)


# The package


def test_import_is_cheap_and_loads_nothing():
    code = f"""
import sys
before = set(sys.modules)
import detzoo
assert set(detzoo.__all__) <= set(dir(detzoo))
detzoo.DetzooError
print(len(set(sys.modules) - before), [name for name in {HEAVY} if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    count, loaded = shown.split(" ", 1)
    assert loaded.strip() == "[]"
    assert int(count) < 60  # modules of the standard library and two of its own: some milliseconds


def test_public_names_are_found_and_documented():
    for name in detzoo.__all__:
        assert name == "__version__" or getattr(detzoo, name).__doc__, name
    for public in (detzoo.LoadedDetector, detzoo.Result):
        for name, member in vars(public).items():
            if not name.startswith("_") and callable(member):
                assert member.__doc__, f"{public.__name__}.{name}"
    assert issubclass(detzoo.ConfigError, detzoo.DetzooError)
    with pytest.raises(AttributeError, match=r"no attribute 'laod'; public names: .*load"):
        detzoo.laod  # noqa: B018


# Sources


def test_a_run_is_loaded(detector, small_run, capsys):
    assert detector.step == 7
    assert detector.class_names == {1: "circle", 2: "square", 3: "triangle", 4: "star", 5: "ring"}
    assert detector.config.model.ssd.num_classes == detector.keras_model.num_classes == 5
    expected = f"LoadedDetector('{small_run.model_dir}': ssd with ssd_mobilenet_v1, 5 classes, step 7)"
    assert repr(detector) == expected
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["prefix", "folder_of_best"])
def test_a_checkpoint_is_loaded_with_the_config_near_it(small_run, place, load_module, detector, tmp_path):
    path = small_run.model_dir / "ckpt-0"
    if place == "folder_of_best":
        (tmp_path / "pipeline.config").write_text(small_run.config.read_text())
        path = load_module("small_run.py").write_run(tmp_path / "best", small_run.config, detector.keras_model)
        (path / "pipeline.config").unlink()
    assert detzoo.load(str(path)).step == 7


@pytest.mark.parametrize("place", ["training", "training/best"])
def test_a_project_has_the_weights_of_its_training(small_run, place, detector, tmp_path):
    shutil.copy(small_run.config, tmp_path / "pipeline.config")
    shutil.copytree(small_run.model_dir, tmp_path / place, ignore=shutil.ignore_patterns("events*"))
    loaded = detzoo.load(tmp_path)
    assert (loaded.source, loaded.step) == (str(tmp_path), 7)
    for one, other in zip(loaded.keras_model.weights, detector.keras_model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_config_has_random_weights_with_a_warning(small_run, caplog):
    loaded = detzoo.load(small_run.config)
    assert "my.config has random weights, so its detections have no meaning before it is trained" in caplog.text
    assert loaded.step is None
    caplog.clear()
    again = detzoo.load(loaded.config, weights="random")
    assert not caplog.records
    assert again.config == loaded.config
    assert "random weights" in repr(again)


def test_an_export_detects_as_its_source(detector, exported, photos):
    for source in (exported, exported.parent, exported / "saved_model.pb"):
        loaded = detzoo.load(source)
        assert loaded.class_names == detector.class_names
        assert_same(loaded.detect(photos / "0.png"), detector.detect(photos / "0.png"))
    assert loaded.step is None
    assert repr(loaded).endswith("/saved_model.pb': ssd with ssd_mobilenet_v1, 5 classes, export)")
    assert loaded.config.model == detector.config.model
    with pytest.raises(detzoo.UsageError, match=r"is an export, a graph without layers.* load the model_dir"):
        loaded.keras_model  # noqa: B018
    with pytest.raises(detzoo.UsageError, match="num_classes goes with a config or a checkpoint"):
        detzoo.load(exported, num_classes=3)


def test_a_tflite_file_detects(detector, photos, tmp_path):
    path = detector.export(tmp_path, format="tflite").path
    for source in (path, tmp_path):
        loaded = detzoo.load(source)
        found = loaded.detect(photos / "1.png", score_threshold=0.2)
        assert found.class_names
        assert loaded.class_names == detector.class_names
    with pytest.raises(detzoo.UsageError, match="is a TFLite model; a benchmark takes a SavedModel"):
        loaded.benchmark()


def test_another_number_of_classes_keeps_what_fits(small_run, detector, caplog):
    loaded = detzoo.load(small_run.config, num_classes=7, weights=small_run.model_dir)
    model, source = loaded.keras_model, detector.keras_model
    assert model.num_classes == loaded.config.model.ssd.num_classes == 7
    assert loaded.class_names == {}
    assert "do not fit and stay random until they are trained: " in caplog.text
    named = caplog.text.rpartition("trained: ")[2].strip().split(", ")
    assert all("class_predictor" in layer for layer in named), named
    kernels = [next(v for v in m.variables if "backbone" in v.path).numpy() for m in (model, source)]
    np.testing.assert_array_equal(*kernels)
    with pytest.raises(
        detzoo.CheckpointError,
        match=r"another number of classes.*; to load the weights that fit, .* num_classes as well",
    ):
        detzoo.load(small_run.config, weights=small_run.model_dir, overrides=["model.ssd.num_classes=7"])


def test_published_weights_by_name(small_run, monkeypatch, tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "pipeline.config").write_text(small_run.config.read_text())
    asked = []
    zoo = types.SimpleNamespace(
        archive_of=lambda name: "my_coco" if name == "my" else None,
        fetch=lambda name: asked.append(name) or archive,
        local=lambda text: asked.append(text) or str(small_run.model_dir),
    )
    monkeypatch.setattr("detzoo.checkpoints.zoo", zoo, raising=False)
    monkeypatch.setitem(sys.modules, "detzoo.checkpoints.zoo", zoo)
    assert detzoo.load(small_run.config, weights="zoo").step == 7
    assert detzoo.load("zoo://my_coco").step == 7
    assert asked == ["zoo://my_coco", "my_coco", "zoo://my_coco"]
    other = tmp_path / "other.config"
    other.write_text(small_run.config.read_text())
    with pytest.raises(detzoo.UsageError, match=r"no published weights are known for the config other; .*zoo://NAME"):
        detzoo.load(other, weights="zoo")


def test_sources_that_are_none(tmp_path, small_run):
    with pytest.raises(detzoo.UsageError, match=r"the source is a int; accepted: the folder of a project, the model_"):
        detzoo.load(3)
    with pytest.raises(detzoo.UsageError, match=r"holds no model \(an empty folder\); accepted: "):
        detzoo.load(tmp_path)
    with pytest.raises(detzoo.UsageError, match=r"the message is a .*DetectionModel; a config is a TrainEvalPipeline"):
        detzoo.load(detzoo.load(small_run.config, weights="random").config.model)
    with pytest.raises(detzoo.UsageError, match=r"no pipeline config at .*modell"):
        detzoo.load("modell")
    (tmp_path / "ckpt-1.index").write_bytes(b"")
    with pytest.raises(detzoo.UsageError, match=r"no pipeline.config next to it: load its config, .* weights="):
        detzoo.load(tmp_path)
    with pytest.raises(detzoo.CheckpointError, match="there is no checkpoint at nowhere"):
        detzoo.load(small_run.config, weights="nowhere")
    with pytest.raises(detzoo.UsageError, match="there is no label map at nowhere"):
        detzoo.load(small_run.config, label_map="nowhere")


# Detection


def test_one_image_gives_one_result_and_several_a_list(detector, photos):
    path, options = photos / "0.png", {"score_threshold": 0.2}
    pixels = pixels_of(path)
    expected = detector.detect(path, **options)
    assert expected.path == path
    assert len(expected) > 1
    np.testing.assert_array_equal(expected.image, pixels)
    for image in (str(path), pixels, Image.open(path)):
        assert_same(detector.detect(image, **options), expected)
    for images in ([path, pixels], (Image.open(path), str(path))):
        results = detector.detect(images, **options)
        assert [result.image_id for result in results] == [1, 2]
        for result in results:
            assert_same(result, expected)
    for several in (photos, str(photos / "*.png"), [str(photos)]):
        results = detector.detect(several, **options)
        assert [result.path.name for result in results] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
        assert_same(results[0], expected)
        assert results[3].shape == results[3].image.shape[:2] == (90, 50)


@pytest.mark.parametrize("source", ["run", "export"])
def test_a_batch_detects_as_single_images(detector, exported, photos, source):
    chosen = detector if source == "run" else detzoo.load(exported)
    single = chosen.detect(photos, batch_size=1, score_threshold=0.2)
    for size in (2, 8):
        together = chosen.detect(photos, batch_size=size, score_threshold=0.2)
        assert len(together) == 5
        for one, other in zip(single, together, strict=True):
            assert_same(one, other)


def test_detection_equals_the_command(exported, photos, tmp_path):
    main = importlib.import_module("detzoo.cli.main").main
    arguments = [f"--saved_model={exported}", f"--images={photos}", f"--output_dir={tmp_path}", "--score_threshold=0.2"]
    assert main(["detect", *arguments]) == 0
    listed = json.loads((tmp_path / "detections.json").read_text())
    results = detzoo.load(exported).detect(photos, score_threshold=0.2, batch_size=1)
    assert [entry for result in results for entry in result.to_coco()] == listed
    np.testing.assert_array_equal(np.asarray(results[1].draw()), pixels_of(tmp_path / "1.png"))


def test_images_come_from_a_generator_without_end(detector, photos):
    taken = []

    def frames():
        while True:
            taken.append(pixels_of(photos / "0.png"))
            yield taken[-1]

    results = detector.detect_each(frames(), batch_size=2, score_threshold=0.2)
    assert [next(results).image_id for _ in range(3)] == [1, 2, 3]
    assert len(taken) <= 3 * 2 + 3, "two batches ahead at most"
    results.close()


def test_broken_files(detector, photos, tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(detzoo.DataError, match=r"a.jpg cannot be used: .*"):
        detector.detect(tmp_path / "a.jpg")
    with pytest.raises(detzoo.DataError, match="none of the 1 files could be read as an image and detected on"):
        detector.detect(tmp_path)
    Image.open(photos / "0.png").save(tmp_path / "b.png")
    caplog.clear()
    [result] = detector.detect(tmp_path)
    assert (result.path.name, result.image_id) == ("b.png", 2)
    assert "a.jpg is skipped: " in caplog.text
    found = detector.detect_each([tmp_path / "b.png", tmp_path / "a.jpg"])
    assert next(found).path.name == "b.png"
    with pytest.raises(detzoo.DataError, match=r"a.jpg cannot be used"):
        next(found)
    with pytest.raises(detzoo.UsageError, match=r"^images .*b.pmg: there is no such file .*; did you mean b.png"):
        detector.detect(tmp_path / "b.pmg")


BLACK = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (BLACK / np.float32(255), r"image 1 is float32 \[4, 6, 3\]; .* 0 to 1: give \(image \* 255\).round\(\)"),
        (BLACK.astype(int), r"Give image.astype\(np.uint8\)"),
        (BLACK.astype(int) - 1, "Its values are -1 to -1: scale them"),
        (BLACK[..., 0], "It is grayscale: give np.repeat"),
        (BLACK[..., :1], "It is grayscale: give np.repeat"),
        (np.zeros((4, 6, 4), np.uint8), r"alpha channel: give image\[:, :, :3\]"),
        (BLACK[np.newaxis], r"It is a batch: give list\(images\)"),
        (BLACK.transpose(2, 0, 1), r"Its channels come first: give image.transpose\(1, 2, 0\)"),
        (BLACK[:0], "It has no pixels"),
        ([], "images is empty; give at least one image"),
        ([3], "image 1 is a int; accepted: a path, a uint8 array"),
        (None, "images is a NoneType; accepted: a path, a uint8 array"),
    ],
)
def test_images_that_are_none(detector, image, message):
    with pytest.raises(detzoo.UsageError, match=message):
        detector.detect(image)


def test_options_out_of_range(detector):
    with pytest.raises(detzoo.UsageError, match=r"^score_threshold is 50; accepted: 0 to 1"):
        detector.detect(BLACK, score_threshold=50)
    with pytest.raises(detzoo.UsageError, match=r"^batch_size is 0; accepted: 1 or more"):
        detector.detect(BLACK, batch_size=0)
    with pytest.raises(detzoo.UsageError, match=r"^proposals has no meaning for this model"):
        detector.detect(BLACK, proposals="regions.npz")


def test_tiles_of_an_image(detector, exported, photos, tmp_path):
    path = photos / "1.png"
    tiled = detector.detect(path, score_threshold=0.0, max_boxes=1000, tile=48)
    assert len(tiled) > len(detector.detect(path, score_threshold=0.0, max_boxes=1000))
    assert_same(tiled, detzoo.load(exported).detect([path], score_threshold=0.0, max_boxes=1000, tile=48)[0])
    [again] = detector.detect_each([pixels_of(path)], score_threshold=0.0, max_boxes=1000, tile=48, tile_overlap=0.2)
    assert_same(tiled, again)
    assert len(detector.evaluate(tile=48).result.images) == 4
    with pytest.raises(detzoo.UsageError, match=r"^tile_overlap goes with tile: give the side"):
        detector.detect(path, tile_overlap=0.2)
    with pytest.raises(detzoo.UsageError, match=r"^tile is 8; accepted: pixels, 32 or more"):
        detector.detect(path, tile=8)


# Results


@pytest.fixture
def result(detector, photos):
    """A result of 60 x 80 pixels with hand-made detections: a cat with a mask, and a dog."""
    arrays = detector.detect(photos / "0.png").detections
    hand_made = arrays._replace(
        boxes_norm=np.array([[0.0, 0.25, 0.5, 0.75], [0.5, 0.5, 1.0, 1.0]], np.float32),
        scores=np.array([0.9, 0.625], np.float32),
        class_ids=np.array([1, 3], np.int32),
        # A ramp from 1 on the left to 0 on the right: the left half of each box is the object.
        masks=np.tile(np.float32([1, 0.5, 0]), [2, 4, 1]),
    )
    return detzoo.Result(hand_made, (60, 80), {1: "cat", 3: "dog"}, photos / "0.png", image_id=5)


def test_arrays_of_a_result(result):
    assert result.boxes_px.dtype == np.float32
    np.testing.assert_array_equal(result.boxes_px, [[0, 20, 30, 60], [30, 40, 60, 80]])
    assert result.class_names == ["cat", "dog"]
    expected = np.zeros((2, 60, 80), bool)
    expected[0, :30, 20:40] = expected[1, 30:, 40:60] = True
    np.testing.assert_array_equal(result.masks, expected)
    assert repr(result).endswith("0.png', 60 x 80 pixels, masks, 2 detections: 1 cat, 1 dog)")


def test_rows_of_a_result(result):
    assert len(result) == 2
    first, second = result
    assert (first.class_name, first.class_id, first.score) == ("cat", 1, pytest.approx(0.9))
    np.testing.assert_array_equal(second.box_px, [30, 40, 60, 80])
    np.testing.assert_array_equal(second.mask, result.masks[1])
    assert result[-1].class_name == "dog"
    with pytest.raises(IndexError, match="2 detections"):
        result[2]
    for rows in (slice(1, None), [1], [False, True], result.scores < 0.7):
        assert result[rows].class_names == ["dog"]
        np.testing.assert_array_equal(result[rows].masks, result.masks[1:])
    assert result.filter("cat").class_names == result.filter(score_threshold=0.7).class_names == ["cat"]
    nothing = result[[]]
    assert (len(nothing), nothing.masks.shape, nothing.to_coco()) == (0, (0, 60, 80), [])
    assert nothing.draw().size[0] % 80 == 0


def test_a_result_in_cocos_format(result):
    coco_mask = pytest.importorskip("pycocotools.mask")
    cat, dog = json.loads(json.dumps(result.to_coco()))
    np.testing.assert_array_equal(coco_mask.decode(cat.pop("segmentation")), result.masks[0])
    assert cat == {
        "image_id": 5,
        "file_name": str(result.path),
        "category_id": 1,
        "category_name": "cat",
        "bbox": [20.0, 0.0, 40.0, 30.0],
        "score": 0.9,
    }
    assert dog["bbox"] == [40.0, 30.0, 40.0, 30.0]


def test_a_result_for_pandas(result):
    pytest.importorskip("pandas")
    table = result.to_pandas()
    assert list(table.columns) == [
        "image_id",
        "path",
        "class_id",
        "class_name",
        "score",
        "ymin",
        "xmin",
        "ymax",
        "xmax",
    ]
    assert list(table.class_name) == ["cat", "dog"]
    np.testing.assert_array_equal(table[["ymin", "xmin", "ymax", "xmax"]], result.boxes_px)


def test_a_result_for_supervision(result):
    pytest.importorskip("supervision")
    detections = result.to_supervision()
    np.testing.assert_array_equal(detections.xyxy, [[20, 0, 60, 30], [40, 30, 80, 60]])
    np.testing.assert_array_equal(detections.class_id, [0, 2])
    np.testing.assert_array_equal(detections.mask, result.masks)
    assert list(detections["class_name"]) == ["cat", "dog"]
    assert len(result[[]].to_supervision()) == 0


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_missing_package_is_named(result, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        detzoo.UsageError, match=rf"to_{package} needs the package {package}.* -m pip install {package}"
    ):
        getattr(result, f"to_{package}")()


# Videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    write_video = pytest.importorskip("tests.video_files", reason="needs the extra detzoo[video]").write_video
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(str(path), count=6)
    return path


def test_a_video_yields_the_results_of_its_frames(detector, clip):
    results = list(detector.detect_video(clip, frame_stride=2, score_threshold=0.0))
    assert [(result.image_id, result.path, result.shape) for result in results] == [
        (n, clip, (64, 96)) for n in (1, 3, 5)
    ]
    assert [result.seconds for result in results] == pytest.approx([0.0, 0.2, 0.4], abs=1e-3)
    for result in results:
        assert_same(result, detector.detect(result.image, score_threshold=0.0))
        assert result.draw().size == (480, 320)
    for result, first in zip(detector.detect_each(str(clip), score_threshold=0.0), results[:1]):
        assert_same(result, first)


def test_a_whole_video_gives_a_list_without_images(detector, clip):
    results = detector.detect(clip)
    assert [result.image_id for result in results] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(detzoo.UsageError, match="this result has no image"):
        results[0].draw()
    with pytest.raises(detzoo.UsageError, match="which may have no end; detect_video yields its frames"):
        detector.detect("rtsp://10.0.0.1/stream")
    with pytest.raises(detzoo.UsageError, match="proposals go with images"):
        detector.detect(clip, proposals="p.npz")


def test_mistakes_with_a_video_are_named_as_arguments(detector, clip):
    with pytest.raises(detzoo.UsageError, match=r"^frame_stride is 0; accepted: 1 or more"):
        detector.detect_video(clip, frame_stride=0)
    with pytest.raises(detzoo.UsageError, match=r"^video .*gone.mp4: there is no such file"):
        detector.detect_video("gone.mp4")
    with pytest.raises(detzoo.DataError, match=r"^camera 77 cannot be opened"):
        detector.detect_video(77)


# Tasks


def test_evaluation_measures_the_weights_in_memory(small_run, tmp_path):
    changed = detzoo.load(small_run.model_dir)
    for variable in changed.keras_model.variables:
        if "class_predictor" in variable.path:
            variable.assign(0 * variable)
    # Logits of 0 are scores of one half.
    assert changed.detect(BLACK, score_threshold=0.2).scores.tolist() == [0.5] * 12
    suppression = "model.ssd.post_processing.batch_non_max_suppression"
    evaluation = changed.evaluate(overrides=[f"{suppression}.max_total_detections=3"], output_dir=tmp_path)
    assert evaluation.report == tmp_path / "report.html"
    assert "<h2>Errors by kind</h2>" in evaluation.report.read_text()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert evaluation.best_score_threshold == metrics["best_score_threshold"]
    assert (evaluation.step, evaluation.model) == (7, str(small_run.model_dir))
    assert [list(image.scores) for image in evaluation.result.images] == [[0.5] * 3] * 4
    assert len(changed.detect(BLACK, score_threshold=0.2)) == 12, "the overrides were for one call"
    changed.config.model.ssd.post_processing.batch_non_max_suppression.max_total_detections = 2
    assert changed.detect(BLACK, score_threshold=0.2).scores.tolist() == [0.5] * 2
    changed.config.model.ssd.num_classes = 4
    with pytest.raises(detzoo.CheckpointError, match="another model than the detector in memory"):
        changed.detect(BLACK)


def test_the_evaluation_of_an_export_names_its_folder_and_weights(exported, tmp_path):
    evaluation = detzoo.load(exported).evaluate(output_dir=tmp_path)
    assert evaluation.model == str(exported)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    record = json.loads((exported.parent / "export.json").read_text())
    assert (metrics["saved_model"], metrics["weights"]) == (str(exported), record["weights"])


def test_messages_name_arguments(detector, exported, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(detzoo.UsageError, match=r"^output_directory .*file"):
        detector.export(tmp_path / "file" / "below")
    with pytest.raises(detzoo.UsageError, match=r"^quantize=int8 needs representative_data, TFRecords"):
        detector.export(tmp_path, format="tflite", quantize="int8")
    placeholder = "train_input_reader.tf_record_input_reader.input_path=PATH_TO_BE_CONFIGURED"
    with pytest.raises(detzoo.ConfigError, match=r"to set: .*: overrides=\['train_input_reader.*=PATH'\]"):
        detzoo.load(exported).train(model_dir=tmp_path, overrides=placeholder)
    with pytest.raises(detzoo.UsageError, match="run is no setting of a benchmark; did you mean 'runs'"):
        detector.benchmark(run=3)
    with pytest.raises(detzoo.UsageError, match="how many steps"):
        detzoo.load(exported).train(model_dir=tmp_path, overrides=["train_config.num_steps=0"])


@pytest.fixture
def start_of_training(monkeypatch):
    """A function: detector, arguments of train -> fine_tune_checkpoint and type that the training would start with."""

    class Started(Exception):
        pass

    def start(detector, *arguments, **options):
        def stop(loaded, model_dir, **rest):
            raise Started(loaded.message.train_config.fine_tune_checkpoint)

        monkeypatch.setattr("detzoo.tasks.train.train", stop)
        with pytest.raises(Started) as started:  # noqa: PT012
            detector.train(*arguments, **options)
            raise AssertionError("it has not started")
        return str(started.value)

    return start


def test_a_training_starts_with_the_weights_of_the_detector(small_run, detector, start_of_training, tmp_path):
    loaded, folder = detzoo.load(small_run.model_dir), tmp_path / "new"
    own = str(small_run.model_dir)
    assert start_of_training(loaded, model_dir=folder) == own
    assert start_of_training(loaded, small_run.config, model_dir=folder) == own
    other = ["train_config.fine_tune_checkpoint='other'"]
    assert start_of_training(loaded, small_run.config, model_dir=folder, overrides=other) == "other"
    assert start_of_training(detzoo.load(small_run.config, weights="random"), model_dir=folder) == ""
    assert start_of_training(loaded, model_dir=small_run.model_dir) == "", "it is resumed"


def test_training_makes_the_trained_detector(small_run, load_module, monkeypatch, tmp_path, detector):
    def train(loaded, model_dir, **counts):
        assert (loaded.path, counts["num_train_steps"]) == (str(small_run.config), 1)
        starts.append(loaded.message.train_config.fine_tune_checkpoint)
        load_module("small_run.py").write_run(model_dir, small_run.config, detector.keras_model)
        return "the training"

    starts = []
    monkeypatch.setattr("detzoo.tasks.train.train", train)
    loaded = detzoo.load(small_run.config, weights="random")
    kernel = loaded.keras_model.variables[0]
    kernel.assign(0 * kernel)
    assert loaded.train(small_run.config, model_dir=tmp_path / "run", num_train_steps=1) == "the training"
    assert (loaded.step, loaded.source, loaded.class_names) == (7, str(tmp_path / "run"), detector.class_names)
    assert_same(loaded.detect(BLACK, score_threshold=0.2), detector.detect(BLACK, score_threshold=0.2))
    # It began with the weights that the program had changed.
    start = tmp_path / "run" / "start"
    assert starts == [f"{start}/ckpt-0"]
    started = detzoo.load(small_run.config, weights=start).keras_model
    assert not started.variables[0].numpy().any()
    assert started.variables[1].numpy().any()
