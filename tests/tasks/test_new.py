"""``detzoo new``: from a folder of labels to a project that is complete, or to none."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from detzoo.cli import main as cli
from detzoo.config.check.pipeline import check_file
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.errors import DataError, DetzooError, DiskFullError, UsageError
from detzoo.tasks import new
from detzoo.tasks.new import device_memory, new_project

HEIGHT, WIDTH = 48, 64


def write_yolo(folder, counts, names=("cat", "dog")):
    """Writes images of noise, one object each, as YOLO with ``counts`` images in each folder ("" for none)."""
    random = np.random.default_rng(3)
    (folder / "data.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(f"names: [{', '.join(names)}]\n")
    for split, count in counts.items():
        images, labels = folder / split / "images", folder / split / "labels"
        images.mkdir(parents=True)
        labels.mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(images / f"{split}photo-{'abcdefghijklmnop'[number]}.png")
            (labels / f"{split}photo-{'abcdefghijklmnop'[number]}.txt").write_text(
                f"{number % len(names)} 0.5 0.5 0.4 0.6\n"
            )
    return folder


@pytest.fixture
def data(tmp_path):
    return write_yolo(tmp_path / "data", {"": 10})


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def images_of(project, split):
    return project.results[split].num_images


def test_a_folder_of_labels_becomes_a_project(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = new_project("projects/pets", "data")
    folder = tmp_path / "projects/pets"
    assert files_of(folder) == [
        "pipeline.config",
        "records/label_map.pbtxt",
        "records/train-00000-of-00001.tfrecord",
        "records/val-00000-of-00001.tfrecord",
    ]
    assert os.listdir(tmp_path / "projects") == ["pets"]
    assert (images_of(project, "train"), images_of(project, "val")) == (8, 2)
    assert str(project.results["train"].shards[0]) == "projects/pets/records/train-00000-of-00001.tfrecord"
    assert (project.model, project.weights) == (new.DETECTOR, "none")
    # 8 images: a batch of 8, 300 epochs
    assert (project.training.batch_size, project.training.num_steps) == (8, 300)
    assert load_pipeline("projects/pets").message.train_config == project.training
    assert load_pipeline("projects/pets").message.model.ssd.num_classes == 2


def test_a_project_can_be_moved(tmp_path, data, monkeypatch):
    new_project(tmp_path / "pets", data)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pets").rename(tmp_path / "elsewhere/my pets [2]")
    monkeypatch.chdir("/")
    problems = check_file(str(tmp_path / "elsewhere/my pets [2]/pipeline.config"))
    assert [problem for problem in problems if problem.severity >= Severity.TO_SET] == []


def test_an_empty_folder_becomes_a_project(tmp_path, data):
    (tmp_path / "pets").mkdir()
    new_project(tmp_path / "pets", data)
    assert (tmp_path / "pets/pipeline.config").is_file()


def test_splits_of_the_data_are_kept(tmp_path):
    data = write_yolo(tmp_path / "data", {"train": 6, "valid": 3, "test": 2})
    project = new_project(tmp_path / "pets", data, val=0.5)
    assert {split: images_of(project, split) for split in project.results} == {"train": 6, "val": 3, "test": 2}
    assert "# the test records: records/test-?????-of-00001.tfrecord" in (tmp_path / "pets/pipeline.config").read_text()


def test_a_split_for_tests_alone_leaves_validation_to_be_drawn(tmp_path):
    data = write_yolo(tmp_path / "data", {"train": 8, "test": 2})
    project = new_project(tmp_path / "pets", data, val=0.25)
    assert {split: images_of(project, split) for split in project.results} == {"train": 6, "val": 2, "test": 2}
    assert "drawn from train by seed 0: train 6 images, val 2 images" in project.recognized.description


def test_class_folders_make_a_classifier(tmp_path):
    random = np.random.default_rng(5)
    for number in range(10):
        file = tmp_path / "data" / ("cats" if number % 2 else "dogs") / f"{'abcdefghij'[number]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(file)
    project = new_project(tmp_path / "pets", tmp_path / "data")
    assert (project.model, images_of(project, "train"), images_of(project, "val")) == (new.CLASSIFIER, 8, 2)
    problems = check_file(str(tmp_path / "pets/pipeline.config"))
    assert [problem for problem in problems if problem.severity > Severity.NOTE] == []
    with pytest.raises(UsageError, match="learns from boxes, but --data has classes of whole images"):
        new_project(tmp_path / "other", tmp_path / "data", model="ssd_mobilenet_v2_300")


def test_records_and_their_label_map_are_taken_as_they_are(tmp_path, data):
    new_project(tmp_path / "first", data)
    project = new_project(tmp_path / "second", tmp_path / "first/records")
    assert project.recognized.format == "records"
    for name in ("label_map.pbtxt", "train-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord"):
        assert (tmp_path / "first/records" / name).read_bytes() == (tmp_path / "second/records" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "starts_from"),
    [
        ({"model": "ssd_mobilenet_v2_fpnlite_320"}, ("zoo", "zoo://ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8", "")),
        ({"model": "efficientdet_d0.config"}, ("zoo", "zoo://efficientdet_d0_coco17_tpu-32", "")),
        ({"model": "retinanet_resnet50_400"}, ("imagenet", "", "imagenet")),
        ({"model": "ssd_mobilenet_v2_fpnlite_320", "weights": "none"}, ("none", "", "")),
        ({"model": "shapes_ssd_mobilenet_v1"}, ("none", "", "")),
        ({}, ("none", "", "")),
    ],
)
def test_the_best_weights_that_a_named_model_has_are_the_default(tmp_path, data, options, starts_from):
    project = new_project(tmp_path / "pets", data, **options)
    message = load_pipeline(tmp_path / "pets").message
    found = (
        project.weights,
        message.train_config.fine_tune_checkpoint,
        message.model.ssd.feature_extractor.pretrained_weights,
    )
    assert found == starts_from


def test_statistics_that_would_not_arrive_are_recomputed(tmp_path, data):
    """300 steps leave 0.997 ** 300 = 41 % of the initial statistics."""
    project = new_project(tmp_path / "pets", data, model="ssd_mobilenet_v2_fpnlite_320", weights="none")
    assert project.training.recompute_batch_norm.num_batches == 50
    assert not any("statistics" in warning for warning in project.warnings)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"val": 0.0}, UsageError, "--val is 0; accepted: a share of the images, above 0 and below 1"),
        ({"val": 1.5}, UsageError, "--val is 1.5; accepted: a share of the images, above 0 and below 1"),
        ({"val": float("nan")}, UsageError, "--val is nan; accepted"),
        ({"data": "nowhere"}, UsageError, "--data .*nowhere is not a folder"),
        ({"data": "data/data.yaml"}, UsageError, "--data .*data.yaml is not a folder"),
        ({"data": "empty"}, DataError, "empty has no labels of a known format"),
        ({"data": "one"}, DataError, "1 image cannot be divided"),
        ({"data": "labels only"}, DataError, "labels only has YOLO text files .* but no image; put both into it"),
        ({"data": "images only"}, DataError, "images only has 2 images, but no label file"),
        ({"data": "two"}, UsageError, "labels in 2 formats: .* choose one by --format csv or --format yolo"),
        ({"data_format": "vco"}, UsageError, "--format vco is unknown; did you mean 'voc'"),
        ({"model": "ssd_mobilnet_v2_300"}, UsageError, "did you mean ssd_mobilenet_v2_300"),
        ({"model": "rpn_resnet50_fpn_800"}, UsageError, "rpn_resnet50_fpn_800 does not classify"),
        ({"model": "fast_rcnn_resnet50_fpn_800"}, UsageError, "reads regions from a file"),
        ({"model": "shapes_spp_classifier_zf5"}, UsageError, "learns from whole images, but --data has boxes"),
        ({"model": "mask_rcnn_resnet50_fpn_800"}, UsageError, "learns from masks, but the labels have boxes only"),
        ({"model": "shapes_ssd_mobilenet_v1", "weights": "zoo"}, UsageError, "it has some for efficientdet_d0, "),
        ({"weights": "imagenet"}, UsageError, "takes no weights of ImageNet; accepted: --weights none"),
        ({"weights": "best"}, UsageError, "--weights is 'best'; accepted: zoo, imagenet, none"),
        ({"project": "data"}, UsageError, "data exists already; give another name"),
        ({"project": "data/data.yaml"}, UsageError, "data.yaml exists already; give another name"),
        ({"project": "data/data.yaml/pets"}, UsageError, "pets cannot be written: Not a directory"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, data, options, error, says):
    (tmp_path / "empty").mkdir()
    write_yolo(tmp_path / "one", {"": 1})
    shutil.rmtree(write_yolo(tmp_path / "labels only", {"": 2}) / "images")
    shutil.rmtree(write_yolo(tmp_path / "images only", {"": 2}) / "labels")
    (write_yolo(tmp_path / "two", {"": 2}) / "boxes.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\nphoto-a.png,64,48,cat,1,1,20,20\n"
    )
    before = files_of(tmp_path)
    project, source = options.pop("project", "pets"), options.pop("data", "data")
    with pytest.raises(error, match=says) as raised:
        new_project(tmp_path / project, tmp_path / source, **options)
    assert isinstance(raised.value, DetzooError)
    assert files_of(tmp_path) == before
    assert not list(tmp_path.glob(".pets*"))


def test_a_class_with_one_object_is_a_warning(tmp_path, data):
    (data / "data.yaml").write_text("names: [cat, dog, cow]\n")
    (data / "labels/photo-a.txt").write_text("2 0.5 0.5 0.4 0.6\n")
    warnings = new_project(tmp_path / "pets", data).warnings
    assert [warning for warning in warnings if "cow" in warning] != []
    assert not any("cat" in warning or "dog" in warning for warning in warnings)


@pytest.mark.parametrize("where", ["write_records", "_write_config"])
def test_a_full_disk_leaves_nothing(tmp_path, data, monkeypatch, where):
    def fail(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(new, where, fail)
    with pytest.raises(DiskFullError, match="the disk is full"):
        new_project(tmp_path / "deep/pets", data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_interrupted_command_leaves_nothing(tmp_path, data, monkeypatch):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(new, "_write_config", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        new_project(tmp_path / "pets", data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_memory_is_that_of_all_gpus_or_of_the_machine(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '1000\\n2000\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert device_memory() == (3000 * 2**20, True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert device_memory()[1] is False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    tool.write_text("#!/bin/sh\nexit 9\n")  # no driver
    assert device_memory()[1] is False


def test_the_command_prints_data_training_and_next_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_yolo(tmp_path / "data", {"": 10}, names=("cat", "dog", "cow"))
    (tmp_path / "data/labels/photo-c.txt").write_text("2 0.5 0.5 0.4 0.6\n0 0.5 0.5 1.4 0.6\n")
    assert cli.main(["new", "my pets", "--data=data", "--model=shapes_ssd_mobilenet_v1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("YOLO text files (")
    for line in (
        "train: 8 of 8 images with ",
        "records:   my pets/records/train-00000-of-00001.tfrecord\n",
        "model:    shapes_ssd_mobilenet_v1, from random weights\n",
        "training: 300 steps of 8 images, an evaluation every 30 steps, early stopping\n",
        "config:   my pets/pipeline.config\n",
    ):
        assert line in printed
    assert printed.endswith("next:\n  detzoo train 'my pets'\n  detzoo evaluate 'my pets'\n  detzoo export 'my pets'\n")
    assert cli.main(["config", "check", "my pets/pipeline.config"]) == 0
    assert cli.main(["new", "my pets", "--data=data"]) == 2
    assert "my pets exists already" in capsys.readouterr().err
