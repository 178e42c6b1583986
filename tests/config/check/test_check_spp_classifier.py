"""Tests of config check for classifiers and folders of images."""

from __future__ import annotations

import pathlib
import re

import pytest

from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.image_folders import images_by_class, label_map_of_folders
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.config.spp_table import map_size, min_size_px

CONFIG = pathlib.Path(__file__).resolve().parents[3] / "model_configs" / "spp_zf5_multi_size_imagenet.config"
MODEL = "model.spp_classifier"


def problems(*overrides, files=False):
    """path -> message of every error and warning of the published config with overrides."""
    found = check_pipeline(load_pipeline(CONFIG, overrides), files=files)
    return {p.path: p.message for p in found if p.severity in (Severity.ERROR, Severity.WARNING)}


def notes(*overrides):
    found = check_pipeline(load_pipeline(CONFIG, overrides), files=False)
    return {p.path: p.message for p in found if p.is_without_effect}


def test_the_published_config_has_no_problem():
    assert problems() == {}


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("num_classes=1", "num_classes", "is 1; accepted: 2 to 65536 classes"),
        ("network.type=zf5", "network.type", "'zf5'; did you mean 'zf_5'"),
        ("network.pyramid_bins[0]=0", "network.pyramid_bins[0]", "is 0; accepted: 1 to 64 bins"),
        ("network.dropout=1.5", "network.dropout", "accepted: 0 to below 1"),
        ("crop_size=300", "crop_size", "is 300, above shorter_side (256)"),
        ("random_train_size=true", "random_train_size", None),
        # Twelve cells and less are fewer than 13 bins; 13 cells need 224 - 15 pixels or more, see table 1.
        ("network.pyramid_bins[0]=14", "crop_size", "then has 13 x 13 cells, fewer than the 14 x 14 bins"),
        ("network.pyramid_bins[0]=11", "train_size[1]", "then has 10 x 10 cells, fewer than the 11 x 11 bins"),
    ],
)
def test_errors_of_the_model(override, path, message):
    found = problems(f"{MODEL}.{override}")
    if message is None:
        assert found == {}  # 180 and 224 are two sizes to draw between
    else:
        assert message in found[f"{MODEL}.{path}"]


def test_sizes_to_draw_between():
    found = problems(f"{MODEL}.random_train_size=true", f"{MODEL}.train_size[1]=224")
    assert "does not have two sizes" in found[f"{MODEL}.random_train_size"]


def test_the_size_that_is_told_is_the_smallest_that_passes():
    least = min_size_px("zf_5", cells=6)
    assert (map_size("zf_5", least), map_size("zf_5", least - 1)) == (6, 5)
    assert f"accepted: {least} pixels or more" in problems(f"{MODEL}.train_size[1]=60")[f"{MODEL}.train_size[1]"]
    assert problems(f"{MODEL}.train_size[1]={least}") == {}


def test_without_a_pyramid_there_is_one_size(tmp_path):
    flat = tmp_path / "flat.config"
    flat.write_text(CONFIG.read_text().replace("pyramid_bins: [6, 3, 2, 1]", ""))

    def errors(*overrides):
        found = check_pipeline(load_pipeline(flat, overrides), files=False)
        return {p.path: p.message for p in found if p.severity is Severity.ERROR}

    assert "is 180, but without network.pyramid_bins" in errors()[f"{MODEL}.train_size[1]"]
    same = f"{MODEL}.train_size[1]=224"
    assert errors(same) == {}
    assert (
        "is FULL_IMAGE, whose maps have any size" in errors(same, f"{MODEL}.test_view=FULL_IMAGE")[f"{MODEL}.test_view"]
    )


def test_scales_of_map_views():
    scales = f"{MODEL}.map_scale[0]=200"
    assert notes(scales)[f"{MODEL}.map_scale"].endswith("test_view is not MAP_VIEWS")
    found = problems(f"{MODEL}.test_view=MAP_VIEWS", scales)
    assert "is 200, below crop_size (224)" in found[f"{MODEL}.map_scale[0]"]


def test_what_a_classifier_does_not_read():
    found = notes("train_input_reader.load_instance_masks=true", "eval_config.metrics_set[0]=coco_detection_metrics")
    assert set(found) == {"train_input_reader.load_instance_masks", "eval_config.metrics_set"}


@pytest.fixture
def folders(tmp_path):
    """Three classes; a config that reads them without a label map."""
    for name in ("cat", "dog", "owl"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.jpg").write_bytes(b"?")
    reader = f'image_folder_reader {{ path: "{tmp_path}/images" }}'
    text = CONFIG.read_text().replace('  label_map_path: "PATH_TO_BE_CONFIGURED/label_map.pbtxt"\n', "")
    for split in ("train-?????-of-01024", "validation-?????-of-00128"):
        text = text.replace(f'tf_record_input_reader {{ input_path: "PATH_TO_BE_CONFIGURED/{split}" }}', reader)
    config = tmp_path / "folders.config"
    config.write_text(text.replace("num_classes: 1000", "num_classes: 3"))
    return config


def errors_of(config, *overrides):
    found = check_pipeline(load_pipeline(config, overrides))
    return {p.path: p.message for p in found if p.severity is Severity.ERROR}


def test_folders_name_the_classes(folders):
    assert errors_of(folders) == {}
    images = folders.parent / "images"
    assert label_map_of_folders(images).names == {1: "cat", 2: "dog", 3: "owl"}
    assert images_by_class(images)["dog"] == [str(images / "dog" / "1.jpg")]


def test_more_folders_than_classes(folders):
    (folders.parent / "images" / "pig").mkdir()
    found = errors_of(folders)["train_input_reader.label_map_path"]
    assert "goes up to id 4 ('pig'), but num_classes is 3" in found


def test_readers_of_other_folders(folders, tmp_path):
    for name in ("cat", "cow", "owl"):
        (tmp_path / "others" / name).mkdir(parents=True)
        (tmp_path / "others" / name / "1.jpg").write_bytes(b"?")
    found = errors_of(folders, f"eval_input_reader[0].image_folder_reader.path={tmp_path}/others")
    assert "id 2 is 'cow', but 'dog'" in found["eval_input_reader[0].label_map_path"]


def test_folders_and_a_label_map(folders, tmp_path):
    (tmp_path / "map.pbtxt").write_text(
        """
        item { id: 1 name: 'cat' }
        item { id: 2 name: 'dog' }
        item { id: 3 name: 'fox' }
        """
    )
    found = errors_of(folders, f"train_input_reader.label_map_path={tmp_path}/map.pbtxt")
    assert "does not name, such as 'owl'" in found["train_input_reader.image_folder_reader.path"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (None, "there is no folder"),
        ((), "has no folders in it"),
        (("cat",), "no folder in .* has images"),
    ],
)
def test_folders_that_hold_nothing(folders, tmp_path, make, message):
    if make is not None:
        (tmp_path / "empty").mkdir()
        for name in make:
            (tmp_path / "empty" / name).mkdir()
    found = errors_of(folders, f"train_input_reader.image_folder_reader.path={tmp_path}/empty")
    assert re.search(message, found["train_input_reader.image_folder_reader.path"])


def test_a_class_without_images_is_a_warning(folders):
    (folders.parent / "images" / "dog" / "1.jpg").unlink()
    found = check_pipeline(load_pipeline(folders))
    warnings = {p.path: p.message for p in found if p.severity is Severity.WARNING}
    assert warnings["train_input_reader.image_folder_reader.path"] == "1 classes have no image: dog"


def test_a_detector_does_not_read_folders(tmp_path):
    config = tmp_path / "ssd.config"
    text = (CONFIG.parent / "ssd_mobilenet_v2_300.config").read_text()
    config.write_text(text.split("train_input_reader")[0] + 'train_input_reader { image_folder_reader { path: "x" } }')
    found = errors_of(config)["train_input_reader.image_folder_reader"]
    assert "which only model.spp_classifier learns from" in found
