"""Conversion and detection as Apache Beam pipelines give the files of the ordinary commands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detzoo.cli.main import main
from detzoo.datasets.selective_search import find_opencv
from detzoo.errors import UsageError
from detzoo.files.image_files import find_images

pytest.importorskip("apache_beam", reason="the extra beam is not installed")

# The first records of 20 with two that cannot be used: places of all later ones move.
HEADING = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def folder(tmp_path, images):
    rows = [HEADING]
    for number in range(20):
        name = f"{number:02d}.png"
        (tmp_path / name).write_bytes(images.encode(images.scene()) if number not in (3, 11) else b"no image")
        rows.append(f"{name},40,24,{'ant' if number % 3 else 'zebra'},{number},6,30,{14 + 2 * number}\n")
    (tmp_path / "boxes.csv").write_text("".join(rows))
    return tmp_path


def converted(capsys, folder, name, *flags):
    paths = [f"--images_dir={folder}", f"--annotations_file={folder}/boxes.csv", f"--output_path={folder}/{name}/train"]
    assert main(["dataset", "csv", *paths, "--num_shards=3", *flags]) == 0
    files = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
    return files, capsys.readouterr().out.replace(f"/{name}/", "/")


@pytest.mark.parametrize("mode", ["in_memory", pytest.param("multi_processing", marks=pytest.mark.slow)])
def test_records_and_table_are_those_of_the_ordinary_command(capsys, folder, monkeypatch, mode):
    monkeypatch.setattr("detzoo.tasks.beam_pipelines.ITEMS_PER_FILE", 4)
    expected, report = converted(capsys, folder, "here")
    options = f"--direct_running_mode={mode} --direct_num_workers=2"
    found, text = converted(capsys, folder, "beam", "--runner=DirectRunner", f"--beam_options={options}")
    assert found == expected
    assert len(found) == 4
    assert text == report
    assert "not an image of a known format" in text


IN_MEMORY = ("--runner=DirectRunner", "--beam_options=--direct_running_mode=in_memory")


def test_images_and_records_on_other_file_systems(capsys, folder):
    tf = pytest.importorskip("tensorflow")
    for path in folder.glob("*.png"):
        with tf.io.gfile.GFile(f"ram://photos/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    expected, _ = converted(capsys, folder, "here")
    tf.io.gfile.copy(f"{folder}/boxes.csv", "ram://photos/boxes.csv")
    flags = ["--annotations_file=ram://photos/boxes.csv", "--output_path=ram://records/train", "--num_shards=3"]
    assert main(["dataset", "csv", "--images_dir=ram://photos", *flags, *IN_MEMORY]) == 0
    for name, content in expected.items():
        with tf.io.gfile.GFile(f"ram://records/{name}", "rb") as file:
            assert file.read() == content
    assert len(tf.io.gfile.listdir("ram://records")) == len(expected), "work files are removed"
    capsys.readouterr()
    assert main(["dataset", "csv", "--images_dir=ram://photos", *flags]) == 2
    assert (
        "--output_path ram://records/train is on another file system, which --runner writes to"
        in capsys.readouterr().err
    )
    assert [str(path) for path in find_images(["ram://photos"])][:2] == ["ram://photos/00.png", "ram://photos/01.png"]
    assert str(find_images(["ram://photos/1*.png"])[0]) == "ram://photos/10.png"


def test_detections_and_pictures_are_those_of_the_ordinary_command(tmp_path, images, exported, monkeypatch, capsys):
    monkeypatch.setattr("detzoo.tasks.beam_pipelines.ITEMS_PER_FILE", 2)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (50 + 20 * number, 90, 3), np.uint8)
        (tmp_path / "photos" / f"{number}.png").write_bytes(images.encode(pixels))
    (tmp_path / "photos" / "2.png").write_bytes(b"nothing")
    shown = {}
    for name, flags in (("here", ()), ("beam", IN_MEMORY)):
        paths = [f"--saved_model={exported}", f"--images={tmp_path}/photos", f"--output_dir={tmp_path}/{name}"]
        assert main(["detect", *paths, "--score_threshold=0", "--formats=voc", *flags]) == 0
        shown[name] = capsys.readouterr().out.replace(f"/{name}", "/")
    files = [path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file()]
    assert len(files) > 6
    for file in files:
        assert (tmp_path / "beam" / file).read_bytes() == (tmp_path / "here" / file).read_bytes(), file
    assert len(list((tmp_path / "beam").iterdir())) == len(list((tmp_path / "here").iterdir()))
    assert json.loads((tmp_path / "beam" / "detections.json").read_text())
    assert shown["beam"] == shown["here"]
    assert "1 unreadable files skipped" in shown["here"]


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    from detzoo.config.label_map import LabelMap
    from detzoo.export.exporter import Export, export_detector

    out = tmp_path_factory.mktemp("exported")
    export_detector(
        toy.toy_detector(), toy.ToyResizer(), out, "image_tensor", Export("", LabelMap({1: "cat"}).to_text())
    )
    return out


def test_windows_are_those_of_the_ordinary_command(folder, capsys):
    try:
        find_opencv()
    except UsageError:
        pytest.skip("OpenCV's contrib build is not installed")
    found = {}
    for name, flags in (("here.npz", ()), ("beam.npz", IN_MEMORY)):
        assert main(["proposals", f"--images={folder}/0*.png", f"--output={folder}/{name}", *flags]) == 0
        found[name] = dict(np.load(folder / name))
        assert "windows of 10 images" in capsys.readouterr().out
    assert len(found["here.npz"]["scores"]) > 8  # of eight images, two cannot be decoded
    for key, values in found["here.npz"].items():
        np.testing.assert_array_equal(found["beam.npz"][key], values, err_msg=key)


def test_what_a_pipeline_raises_is_one_sentence(capsys, folder, monkeypatch):
    def fail(*_):
        raise RuntimeError("no more space")

    monkeypatch.setattr("detzoo.tasks.beam_pipelines._write_shard", fail)
    flags = [f"--images_dir={folder}", f"--annotations_file={folder}/boxes.csv", f"--output_path={folder}/out/train"]
    assert main(["dataset", "csv", *flags, *IN_MEMORY]) == 1
    assert "the Beam pipeline failed: " in capsys.readouterr().err
    assert not list((folder / "out").iterdir())
    assert main(["dataset", "csv", *flags, "--runner=DirectRunner", "--beam_options=--a='"]) == 2
    assert "--beam_options" in capsys.readouterr().err
