"""``detzoo dataset``: every subcommand once, help, messages without tracebacks, exit codes, interruptions."""

from __future__ import annotations

import io
import json
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from detzoo.cli.main import main
from detzoo.config.label_map import load_label_map
from detzoo.datasets import conversion

SUBCOMMANDS = ("coco", "voc", "yolo", "csv", "import", "shapes", "inspect")


def png(height=24, width=40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path):
    """A folder with two images and their annotations in all four forms; the second object is dirty."""
    folder = tmp_path / "data"
    for name in ("images", "xml", "labels"):
        (folder / name).mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "images" / f"{name}.png").write_bytes(png())
    boxes = {"a": (10, 6, 30, 14), "b": (10, 6, 50, 14)}  # xmin, ymin, xmax, ymax; the latter leaves the image
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for number, (x0, y0, x1, y1) in enumerate(boxes.values(), start=1)
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (folder / "notes.json").write_text(json.dumps(coco))
    table = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, (x0, y0, x1, y1) in boxes.items():
        sides = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        (folder / "xml" / f"{name}.xml").write_text(
            f"<annotation><object><name>cat</name><bndbox>{sides}</bndbox></object></annotation>"
        )
        middle = f"{(x0 + x1) / 80} {(y0 + y1) / 48} {(x1 - x0) / 40} {(y1 - y0) / 24}"
        (folder / "labels" / f"{name}.txt").write_text(f"0 {middle}\n")
        table.append(f"{name}.png,40,24,cat,{x0},{y0},{x1},{y1}")
    (folder / "boxes.csv").write_text("\n".join(table))
    (folder / "names.txt").write_text("cat\n")
    return folder


def words(form: str, data: pathlib.Path, **changes) -> list[str]:
    """The command line of an importer; ``images_dir=...`` replaces a flag."""
    flags = {
        "coco": {"annotations_file": data / "notes.json"},
        "voc": {"annotations_dir": data / "xml"},
        "yolo": {"labels_dir": data / "labels", "class_names": data / "names.txt"},
        "csv": {"annotations_file": data / "boxes.csv"},
    }[form]
    flags = {"images_dir": data / "images", "output_path": data.parent / "out" / "train", **flags, **changes}
    return ["dataset", form, *(f"--{name}={value}" for name, value in flags.items())]


def listed(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def failure(capsys, command: list[str], code: int) -> str:
    """Runs a command line that has to fail; its message, which is no traceback."""
    assert main(command) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert err.startswith("detzoo: ")
    return err


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "csv"])
def test_each_importer_writes_records_and_says_what_was_repaired(capsys, data, form):
    assert main(words(form, data, num_shards=2)) == 0
    out = capsys.readouterr().out
    assert listed(data.parent / "out") == [
        "label_map.pbtxt",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    names = load_label_map(data.parent / "out" / "label_map.pbtxt").names
    assert names == ({7: "cat"} if form == "coco" else {1: "cat"})
    place = {
        "coco": "notes.json: annotation 2",
        "voc": "b.xml:1",
        "yolo": "b.txt:1",
        "csv": "boxes.csv:3",
    }[form]
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "2 of 2 images with 2 objects"
    assert lines[2] == "  cat        2"
    start = lines.index("what was found in the data:")
    assert lines[start + 1 : start + 4] == [
        "  repaired (1)",
        "          1  box extends beyond the image; clipped",
        f"               {place}: by 10 pixels",
    ]
    assert lines[-2] == f"records:   {data.parent}/out/train-00000-of-00002.tfrecord ... train-00001-of-00002.tfrecord"
    assert lines[-1] == f"label map: {data.parent}/out/label_map.pbtxt"


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "csv"])
def test_strict_fails_with_the_findings_and_writes_nothing(capsys, data, form):
    message = failure(capsys, [*words(form, data), "--strict"], 1)
    assert "--strict: 1 findings, nothing written" in message
    assert "box extends beyond the image; clipped (by 10 pixels) [repaired]" in message
    assert listed(data.parent / "out") == []


def test_a_label_map_can_be_used_again(capsys, data):
    (data / "map.pbtxt").write_text("""
        item { id: 3 name: 'dog' }
        item { id: 9 name: 'cat' }
        """)
    assert main(words("csv", data, label_map=data / "map.pbtxt")) == 0
    assert load_label_map(data.parent / "out" / "label_map.pbtxt").names == {3: "dog", 9: "cat"}
    (data / "map.pbtxt").write_text("item { id: 3 name: 'dog' }")
    assert main(words("csv", data, label_map=data / "map.pbtxt", output_path=data.parent / "other" / "x")) == 1
    error = capsys.readouterr().err
    assert "no object could be imported: of 2 annotated images, 2 of them usable" in error
    assert "2  class is not in the label map" in error
    assert "boxes.csv:2: cat" in error


def test_shapes_then_inspect(capsys, tmp_path):
    flags = [f"--output_path={tmp_path}/train", "--num_images=4", "--image_size=64", "--seed=3"]
    assert main(["dataset", "shapes", *flags, "--num_shards=2", f"--images_dir={tmp_path}/images"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 of 4 images with ")
    assert " objects and masks\n" in out
    assert listed(tmp_path / "images") == [f"shapes_3_00000{number}.jpg" for number in range(4)]
    assert f"images:    {tmp_path}/images" in out
    label_map = f"--label_map={tmp_path}/label_map.pbtxt"
    inspect = ["dataset", "inspect", f"--input_path={tmp_path}/train-*", f"--output_dir={tmp_path}/look"]
    assert main([*inspect, label_map, "--num_samples=3"]) == 0
    out = capsys.readouterr().out
    assert "images:  4 usable of 4 records" in out
    assert "no data issues found" in out
    assert f"samples are in {tmp_path}/look" in out
    written = ["classes.csv", "dirt.csv", "histograms.csv", "histograms.png", "report.html", "report.txt", "samples"]
    assert listed(tmp_path / "look") == written
    assert len(listed(tmp_path / "look" / "samples")) == 3


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_each_shows_its_flags_and_an_example(capsys, name):
    assert main(["dataset", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"detzoo dataset {name} " in out
    assert ("--input_path" if name == "inspect" else "--output_path") in out


def test_help_lists_all(capsys):
    assert main(["dataset", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in SUBCOMMANDS)
    assert "has no 'cocoa'; did you mean 'coco'?" in failure(capsys, ["dataset", "cocoa"], 2)
    assert main(["dataset"]) == 2


@pytest.mark.parametrize(
    ("form", "changes", "code", "message"),
    [
        ("coco", {"images_dir": "none"}, 2, "--images_dir none is not a folder"),
        ("coco", {"annotations_file": "none.json"}, 2, "--annotations_file none.json is not there"),
        ("voc", {"annotations_dir": "none"}, 2, "--annotations_dir none is not a folder"),
        ("voc", {"image_set": "none.txt"}, 2, "--image_set none.txt is not there"),
        ("yolo", {"labels_dir": "none"}, 2, "--labels_dir none is not a folder"),
        ("yolo", {"class_names": "none.txt"}, 2, "--class_names none.txt is not there"),
        ("csv", {"annotations_file": "none.csv"}, 2, "--annotations_file none.csv is not there"),
        ("csv", {"label_map": "none.pbtxt"}, 2, "there is no label map at none.pbtxt"),
        ("csv", {"output_path": "/dev/null/train"}, 1, "cannot write /dev/null/train-00000-of-00001.tfrecord"),
        ("csv", {"num_shards": 0}, 2, "num_shards"),
        ("csv", {"num_shards": 100000}, 2, "--num_shards is 100000; it must be from 1 to 99999"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(capsys, data, form, changes, code, message):
    assert message in failure(capsys, words(form, data, **changes), code)
    assert listed(data.parent / "out") == []


@pytest.mark.parametrize(
    ("form", "file", "content", "parts"),
    [
        ("coco", "notes.json", "[1, 2]", ("notes.json has no list 'images'", "(here: list)")),
        ("coco", "notes.json", '{"images": [],\n"anno', ("notes.json:2: not JSON",)),
        ("coco", "notes.json", '{"images": [], "categories": []}', ("no list 'annotations'", "images, categories")),
        ("csv", "boxes.csv", "filename,class,left\n", ("boxes.csv:1: no column 'ymin'", "filename, class, left",
                                                        "filename,width,height,class,xmin,ymin,xmax,ymax")),
        ("yolo", "names.txt", "", ("names.txt has no class names",)),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_named_with_line_found_and_accepted(capsys, data, form, file, content, parts):
    (data / file).write_text(content)
    message = failure(capsys, words(form, data), 1)
    for part in parts:
        assert part in message


def test_broken_xml_is_counted_and_the_rest_is_converted(capsys, data):
    (data / "xml" / "b.xml").write_text("<annotation>\n<object>\n</annotation>\n")
    assert main(words("voc", data)) == 0
    out = capsys.readouterr().out
    assert "1 of 1 images with 1 objects" in out
    assert "image skipped (1)" in out
    assert "1  annotation of an image cannot be read" in out
    assert "b.xml:3: mismatched tag: line 3" in out


def test_nothing_but_broken_xml_is_an_error_with_the_table(capsys, data):
    for name in ("a", "b"):
        (data / "xml" / f"{name}.xml").write_text("<annotation>")
    message = failure(capsys, words("voc", data), 1)
    assert "2  annotation of an image cannot be read" in message
    assert "a.xml:1" in message


def test_empty_folders(capsys, data):
    (data / "empty").mkdir()
    empty = data / "empty"
    assert "has no .xml file" in failure(capsys, words("voc", data, annotations_dir=empty), 1)
    assert "has no image; known extensions" in failure(capsys, words("yolo", data, images_dir=empty), 1)
    assert "has no text file for any of 2 images" in failure(capsys, words("yolo", data, labels_dir=empty), 1)
    for form in ("coco", "csv", "voc"):
        message = failure(capsys, words(form, data, images_dir=empty), 1)
        assert "not one of 2 images could be used" in message
        assert "2  image file is missing" in message
    assert listed(data.parent / "out") == []


def test_inspect_without_records_or_label_map(capsys, data):
    common = ["dataset", "inspect", f"--output_dir={data}/look"]
    message = failure(capsys, [*common, f"--input_path={data}/none-*"], 2)
    assert "no TFRecord file matches" in message
    assert message.count("\n") == 1
    assert main(words("csv", data)) == 0
    capsys.readouterr()
    records = f"--input_path={data.parent}/out/train-*"
    message = failure(capsys, [*common, records, f"--label_map={data}/none.pbtxt"], 2)
    assert f"there is no label map at {data}/none.pbtxt" in message
    assert message.count("\n") == 1
    message = failure(capsys, ["dataset", "inspect", records, f"--output_dir={data}/names.txt"], 2)
    assert "--output_dir" in message
    assert "cannot be made: File exists" in message


def test_import_recognizes_a_folder_and_writes_its_splits(capsys, data, tmp_path):
    for name in ("train", "valid"):
        shutil.copytree(data / "images", tmp_path / "set" / name)
        shutil.copy(data / "notes.json", tmp_path / "set" / name / "_annotations.coco.json")
    assert main(["dataset", "import", f"{tmp_path}/set", f"--output_path={tmp_path}/out/my", "--num_shards=2"]) == 0
    out = capsys.readouterr().out
    title, *rest = out.splitlines()
    assert title == ("COCO JSON (2 files, such as train/_annotations.coco.json); train 2 images, val 2 images")
    assert "train: 2 of 2 images with 2 objects" in rest
    assert "val: 2 of 2 images with 2 objects" in rest
    assert "          2  box extends beyond the image; clipped" in rest
    assert f"records:   {tmp_path}/out/my-val-00000-of-00002.tfrecord ... my-val-00001-of-00002.tfrecord" in rest
    assert rest[-1] == f"label map: {tmp_path}/out/label_map.pbtxt"
    shards = [f"my-{split}-0000{number}-of-00002.tfrecord" for split in ("train", "val") for number in (0, 1)]
    assert listed(tmp_path / "out") == ["label_map.pbtxt", *shards]


def test_import_names_two_formats_and_draws_a_split(capsys, data, tmp_path):
    command = ["dataset", "import", str(data), f"--output_path={tmp_path}/out/"]
    message = failure(capsys, command, 2)
    assert "has labels in 4 formats: CSV (such as boxes.csv) and YOLO text files (such as labels/a.txt)" in message
    assert message.count("\n") == 1
    message = failure(capsys, [*command, "--format=csv", "--val=0.5"], 1)
    assert "2 images, all copies of one, cannot be divided into training and validation" in message
    assert listed(tmp_path / "out") == []
    (data / "images" / "b.png").write_bytes(png(25, 40))
    assert main([*command, "--format=csv", "--val=0.5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("CSV (boxes.csv); drawn by seed 0: train 1 images, val 1 images\n")
    assert listed(tmp_path / "out") == [
        "label_map.pbtxt",
        "train-00000-of-00001.tfrecord",
        "val-00000-of-00001.tfrecord",
    ]
    message = failure(capsys, [*command, "--format=voc", "--strict", "--label_map=none.pbtxt"], 2)
    assert "there is no label map at none.pbtxt" in message


def test_import_writes_no_split_if_one_of_them_has_no_object(capsys, data, tmp_path):
    shutil.copytree(data / "images", tmp_path / "set" / "images")
    content = json.loads((data / "notes.json").read_text())
    for name, notes in (("train", content["annotations"]), ("val", [])):
        (tmp_path / "set" / f"{name}.json").write_text(json.dumps(content | {"annotations": notes}))
    message = failure(capsys, ["dataset", "import", f"{tmp_path}/set", f"--output_path={tmp_path}/out/my"], 1)
    assert f"no object could be imported: {tmp_path}/out/my-val, of 2 annotated images, 2 of them usable" in message
    assert listed(tmp_path / "out") == []


def test_missing_and_wrong_flags(capsys, data):
    message = failure(capsys, ["dataset", "coco", f"--images_dir={data}"], 2)
    assert "needs --annotations_file, --output_path" in message
    assert "did you mean 'strict'?" in failure(capsys, [*words("csv", data), "--strikt"], 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_conversion_keeps_the_files_of_the_run_before(capsys, data, monkeypatch, number, code):
    assert main(words("csv", data)) == 0
    before = {path.name: path.read_bytes() for path in (data.parent / "out").iterdir()}
    rows = (data / "boxes.csv").read_text().splitlines()
    more = [rows[0], *(f"image{count}.png,40,24,cat,1,2,3,4" for count in range(500))]
    for count in range(500):
        (data / "images" / f"image{count}.png").touch()
    (data / "boxes.csv").write_text("\n".join(more))
    read = []

    def interrupt(path):
        read.append(path)
        if len(read) == 20:
            os.kill(os.getpid(), number)
        return png()

    monkeypatch.setattr(conversion.images, "read_content", interrupt)
    capsys.readouterr()
    assert main(words("csv", data)) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert len(read) < 500
    assert {path.name: path.read_bytes() for path in (data.parent / "out").iterdir()} == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
