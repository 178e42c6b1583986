"""Importers read annotations on other file systems."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from detzoo.cli.main import main

XML = """<annotation><filename>a.png</filename><object><name>cat</name><bndbox>
<xmin>4</xmin><ymin>6</ymin><xmax>30</xmax><ymax>18</ymax></bndbox></object></annotation>"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 24}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 6, 26, 12], "area": 312, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "cat"}],
}
FILES = {
    "boxes.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,24,cat,4,6,30,18\n",
    "xml/a.xml": XML,
    "val.txt": "a\n",
    "labels/a.txt": "0 0.425 0.5 0.65 0.5\n",
    "names.txt": "cat\n",
    "coco.json": json.dumps(COCO),
}
COMMANDS = {
    "csv": ("--annotations_file=ram://annotated/boxes.csv",),
    "coco": ("--annotations_file=ram://annotated/coco.json",),
    "voc": ("--annotations_dir=ram://annotated/xml", "--image_set=ram://annotated/val.txt"),
    "yolo": ("--labels_dir=ram://annotated/labels", "--class_names=ram://annotated/names.txt"),
}


@pytest.fixture(scope="module", autouse=True)
def _annotated(images):
    for name, text in FILES.items():
        with tf.io.gfile.GFile(f"ram://annotated/{name}", "wb") as file:
            file.write(text.encode())
    with tf.io.gfile.GFile("ram://annotated/images/a.png", "wb") as file:
        file.write(images.encode(images.scene()))


@pytest.mark.parametrize("command", COMMANDS)
def test_annotations_on_another_file_system(tmp_path, command):
    paths = ["--images_dir=ram://annotated/images", f"--output_path={tmp_path}/train", *COMMANDS[command]]
    assert main(["dataset", command, *paths]) == 0
    [record] = tf.data.TFRecordDataset(str(tmp_path / "train-00000-of-00001.tfrecord")).as_numpy_iterator()
    features = tf.train.Example.FromString(record).features.feature
    corners = [features[f"image/object/bbox/{side}"].float_list.value[0] for side in ("ymin", "xmin", "ymax", "xmax")]
    assert corners == pytest.approx([6 / 24, 4 / 40, 18 / 24, 30 / 40])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["csv", "--images_dir=ram://annotated/images", "--annotations_file=ram://annotated/gone.csv"],
            "--annotations_file ram://annotated/gone.csv cannot be read: NotFoundError",
        ),
        (["import", "ram://annotated"], "DIR ram://annotated is on another file system"),
    ],
)
def test_what_cannot_be_read_remotely(tmp_path, capsys, words, message):
    assert main(["dataset", *words, f"--output_path={tmp_path}/train"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
