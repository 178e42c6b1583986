"""Annotations as strangers' tools write them, through the command line: each is read, or refused in one sentence."""

from __future__ import annotations

import json
import os
import shlex
import shutil

import numpy as np
import pytest

from detzoo.cli.main import main

CAT = ("a.png", "cat", (6, 10, 14, 30))  # the red rectangle of ``images.scene``: ymin, xmin, ymax, xmax
IMAGES = ["a.png", "b.png"]
COMMANDS = {
    "coco": "dataset coco --images_dir images --annotations_file n.json --output_path out/train",
    "csv": "dataset csv --images_dir images --annotations_file n.csv --output_path out/train",
    "voc": "dataset voc --images_dir images --annotations_dir n --output_path out/train",
    "yolo": "dataset yolo --images_dir images --labels_dir n --class_names names.txt --output_path out/train",
}


@pytest.fixture
def run(tmp_path, images, monkeypatch, capsys):
    """A function: command, files (name -> text, bytes or JSON) -> exit code, objects of the records, output."""
    monkeypatch.chdir(tmp_path)

    def go(command, files, image_names=IMAGES):
        for name in image_names:
            files = {f"images/{name}": images.encode(images.scene()), **files}
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = content if isinstance(content, (str, bytes)) else json.dumps(content)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_back(shlex.split(command), images, tmp_path, capsys)

    return go


def read_back(words, images, folder, capsys):
    code = main(words)
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "Traceback" not in printed
    assert "--debug" not in printed
    objects = []
    for record in images.read_records(folder / "out" / "train") if code == 0 else []:
        height, width = record["image/height"][0], record["image/width"][0]
        for name, box in zip(record["class/text"], record["boxes"]):
            pixels = tuple(round(float(side), 2) for side in np.multiply(box, (height, width, height, width)))
            objects.append((record["image/filename"][0].decode(), name.decode(), pixels))
    return code, objects, printed


def coco(annotation=None, image=None, category=None, more=(), **lists):
    """A COCO file of one object, with changes; a value of ... removes the key."""
    default = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 6, 20, 8], "area": 160, "iscrowd": 0}
    content = {
        "images": [_changed({"id": 1, "file_name": "a.png", "height": 24, "width": 40}, image)],
        "annotations": [_changed(default, annotation), *more],
        "categories": [_changed({"id": 1, "name": "cat"}, category)],
    }
    return {"n.json": content | lists}


def _changed(entry, change):
    return {key: value for key, value in (entry | (change or {})).items() if value is not ...}


def voc(content="<name>cat</name>%s", head="", name="a.png", root="annotation", box=(10, 6, 30, 14)):
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    text = content % f"<bndbox>{sides}</bndbox>" if "%s" in content else content
    size = "<size><width>40</width><height>24</height></size>"
    return f"{head}<{root}><filename>{name}</filename>{size}<object>{text}</object></{root}>"


HEADING = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROW = "a.png,40,24,cat,10,6,30,14\n"
YOLO_CAT = f"0 0.5 {10 / 24} 0.5 {8 / 24}"
SQUARE = [10, 6, 30, 6, 30, 14, 10, 14]
# Column-major: 10 columns of 24 and 6 zeros, 8 ones: rows 6..13 of column 10.
RUNS = {"size": [24, 40], "counts": [246, 8, 706]}
NESTED: list = []
for _ in range(400):
    NESTED = [NESTED]

READ = {
    "ids as text": ("coco", coco({"image_id": "1.0", "category_id": "1"}, {"id": 1.0}, {"id": "1"}), [CAT]),
    "a box as text": ("coco", coco({"bbox": ["10", "6,0", "20", "8.0"]}), [CAT]),
    "a line end in a name": ("coco", {"n.json": json.dumps(coco()["n.json"]).replace('"cat"', '"cat\n"')}, [CAT]),
    "a name that is a number": ("coco", coco(category={"name": 0}), [("a.png", "0", CAT[2])]),
    "a category id beyond int32": ("coco", coco({"category_id": 2**40}, category={"id": 2**40}), [CAT]),
    "category ids that are words": ("coco", coco({"category_id": "c"}, category={"id": "c"}), [CAT]),
    "an outline, no box": ("coco", coco({"bbox": ..., "segmentation": [SQUARE]}), [CAT]),
    "a flat outline": ("coco", coco({"bbox": None, "segmentation": SQUARE}), [CAT]),
    "an outline of points": ("coco", coco({"bbox": [], "segmentation": [[[10, 6], [30, 6], [30, 14]]]}), [CAT]),
    "run lengths, no box": ("coco", coco({"bbox": ..., "segmentation": RUNS}), [("a.png", "cat", (6, 10, 14, 11))]),
    "fractions": ("coco", coco({"bbox": [0.25, 0.25, 0.5, 1 / 3]}), [CAT]),
    "an area of 400 digits": ("coco", coco({"area": 10**400}), [CAT]),
    "another machine's path": ("coco", coco(image={"file_name": "D:\\set\\images\\a.PNG"}), [CAT]),
    "a URL": ("coco", coco(image={"file_name": ..., "coco_url": "http://host/x/a.png?size=1"}), [CAT]),
    "semicolons and decimal commas": ("csv", {"n.csv": (HEADING + "a.png,40,24,cat,10;0,6;0,30,14\n")
                                              .translate(str.maketrans(",;", ";,"))}, [CAT]),
    "tabs": ("csv", {"n.csv": (HEADING + ROW).replace(",", "\t")}, [CAT]),
    "bars and quotes": ("csv", {"n.csv": '"image"|"x1"|"y1"|"x2"|"y2"|"label"\n"a.png"|10|6|30|14|"cat"\n'}, [CAT]),
    "Excel's separator line": ("csv", {"n.csv": "sep=;\n\n" + (HEADING + ROW).replace(",", ";")}, [CAT]),
    "UTF-16": ("csv", {"n.csv": (HEADING + ROW).encode("utf-16")}, [CAT]),
    "Open Images": ("csv", {"n.csv": "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"
                            f"a,cat,0.25,0.75,0.25,{14 / 24},0\n"}, [CAT]),
    "AutoML": ("csv", {"n.csv": f"TRAIN,gs://b/a.png,cat,.25,.25,.75,.25,.75,{14 / 24},.25,{14 / 24}\n"
                       "TEST,gs://b/b.png,,,,,,,,,\n"}, [CAT]),
    "keras-retinanet": ("csv", {"n.csv": "images/a.png,10,6,30,14,cat\nimages/b.png,,,,,\n"}, [CAT]),
    "no heading": ("csv", {"n.csv": ROW}, [CAT]),
    "pandas' empty cells": ("csv", {"n.csv": HEADING + ROW + "b.png,40,24,nan,NaN,nan,nan,nan\n"}, [CAT]),
    "a row of a huge cell": ("csv", {"n.csv": HEADING + ROW + "b.png,40,24," + "x" * 200_000 + ",1,1,9,9\n"}, [CAT]),
    "a row with a NUL": ("csv", {"n.csv": HEADING + ROW + "b.png,40,24,cat,\0,1,9,9\n"}, [CAT]),
    "a broken first row without a heading": ("csv", {"n.csv": ROW.replace("6", "?") + ROW}, [CAT]),
    "an open quote": ("csv", {"n.csv": HEADING + 'b.png,40,24,"cat,1,1,9,9\n' + ROW}, [CAT]),
    "Chinese without a declaration": ("voc", {"n/a.xml": voc("<name>汽车</name>%s").encode("gbk")},
                                      [("a.png", "汽车", CAT[2])]),
    "UTF-16 XML": ("voc", {"n/a.xml": voc(head='<?xml version="1.0" encoding="utf-16"?>').encode("utf-16")}, [CAT]),
    "a blank line before the XML": ("voc", {"n/a.xml": voc(head='\n<?xml version="1.0"?>')}, [CAT]),
    "upper-case tags": ("voc", {"n/a.xml": voc().replace("object", "Object").replace("name", "Name")}, [CAT]),
    "floats and commas": ("voc", {"n/a.xml": voc(box=("10.0", " 6 ", "30,0", "14"))}, [CAT]),
    "LabelMe's polygon": ("voc", {"n/a.xml": voc(
        "<name>cat</name><deleted>0</deleted><polygon><pt><x>10</x><y>6</y></pt><pt><x>30</x><y>6</y></pt>"
        "<pt><x>30</x><y>14</y></pt></polygon></object><object><deleted>1</deleted><name>dog</name>")}, [CAT]),
    # Turned by 90 degrees: 8 wide and 20 high become 20 wide and 8 high.
    "roLabelImg's box": ("voc", {"n/a.xml": voc(
        "<name>cat</name><robndbox><cx>20</cx><cy>10</cy><w>8</w><h>20</h><angle>1.5707963</angle></robndbox>")},
        [CAT]),
    "VOC in fractions": ("voc", {"n/a.xml": voc(box=(0.25, 0.25, 0.75, 14 / 24))}, [CAT]),
    "exchanged corners": ("voc", {"n/a.xml": voc(box=(30, 14, 10, 6)),
                                  "n/b.xml": voc(name="b.png", box=(20, 1, 39, 9))},
                          [CAT, ("b.png", "cat", (1, 20, 9, 39))]),
    "upper-case .TXT": ("yolo", {"n/a.TXT": YOLO_CAT}, [CAT]),
    "UTF-16 labels": ("yolo", {"n/a.txt": YOLO_CAT.encode("utf-16")}, [CAT]),
    "a trailing zero in the class": ("yolo", {"n/a.txt": YOLO_CAT.replace("0 ", "0.0 ", 1)}, [CAT]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_dialect_is_read(run, name):
    form, files, expected = READ[name]
    files = {"names.txt": "cat\ndog\n", **files}
    code, objects, printed = run(COMMANDS[form], files)
    assert code == 0, printed
    assert objects == expected


REFUSED = {
    "CVAT's XML": ("voc", {"n/a.xml": voc(root="annotations")}, "this is CVAT's own XML; export the task as"),
    "other XML": ("voc", {"n/a.xml": voc(root="svg")}, "XML of another kind, its root is <svg>"),
    "a width for a corner": ("voc", {"n/a.xml": voc(box=(18, 10, 12, 8))}, "exchanged corners, or a width and height?"),
    "VIA's CSV": ("csv", {"n.csv": "filename,region_shape_attributes\na.png,{}\n"}, "VGG Image Annotator"),
    "labelme's JSON": ("coco", {"n.json": {"shapes": [], "imagePath": "a.png"}}, "labelme's JSON of one image"),
    "no objects": ("coco", coco(annotations=[]), "no object could be imported: of 1 annotated images, 1"),
    "no categories": ("coco", coco(categories=[]), "annotation 1: class id without a name (category_id 1)"),
    "no rows": ("csv", {"n.csv": HEADING}, "no object could be imported: of 0 annotated images"),
    "empty labels": ("yolo", {"n/a.txt": "\n"}, "no object could be imported"),
    "pixels": ("yolo", {"n/a.txt": "0 20 10 20 8"}, "a.txt:1: annotation of an object cannot be read (20 is no"),
    "a path outside": ("csv", {"n.csv": ROW.replace("a.png", "../secret.png"), "secret.png": "x"}, "file is missing"),
    "two candidates": ("csv", {"n.csv": ROW.replace("a.png", "q/c.png"), "images/x/c.png": "", "images/y/c.png": ""},
                       "q/c.png: several files have the stated name (x/c.png and y/c.png; remove one"),
    "depth": ("coco", {"n.json": "[" * 100_000}, "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_an_error_of_one_sentence(run, name):
    form, files, message = REFUSED[name]
    code, _, printed = run(COMMANDS[form], {"names.txt": "cat\n", **files})
    assert code == 1
    assert message in printed
    assert not os.path.exists("out/label_map.pbtxt")


# Object 2 is broken, object 1 is the cat.
BROKEN = [
    {"bbox": ["x", 1, 2, 3]}, {"bbox": [10**400, 1, 2, 3]}, {"bbox": [float("nan"), 1, 2, 3]}, {"bbox": {}},
    {"bbox": NESTED}, {"bbox": "10"}, {"image_id": 10**400}, {"image_id": None}, {"image_id": {}},
    {"category_id": 2**40}, {"category_id": "\ud800"}, {"category_id": [1]}, {"category_id": True},
    {"bbox": None, "segmentation": [[1, 2]]}, {"bbox": None, "segmentation": "x"},
    {"bbox": None, "segmentation": {"size": [10**9, 10**9], "counts": [1]}},
    {"bbox": None, "segmentation": {"size": [24, 40], "counts": [-1, 961]}},
    {"bbox": None, "segmentation": {"size": [24, 40], "counts": "\xff\xfe"}},
]  # fmt: skip


@pytest.mark.parametrize("change", BROKEN, ids=range(len(BROKEN)))
def test_one_bad_annotation_costs_one_annotation(run, change):
    broken = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]} | change
    code, objects, printed = run(COMMANDS["coco"] + " --include_masks", coco(more=[broken]))
    assert (code, objects) == (0, [CAT]), printed
    assert "n.json: annotation 2" in printed
    assert "object skipped (1)" in printed
    code, _, printed = run(COMMANDS["coco"] + " --strict", coco(more=[broken]))
    assert code == 1
    assert len(max(printed.splitlines(), key=len)) < 600


@pytest.mark.parametrize("entry", [None, 3, [], "x", {"id": 2}, {"id": 1, "name": "dog"}, {"id": 2, "name": "\ud800"}])
def test_one_bad_category_costs_one_category(run, entry):
    categories = [{"id": 1, "name": "cat"}, entry]
    code, objects, printed = run(COMMANDS["coco"], coco(categories=categories))
    assert (code, objects) == (0, [CAT])
    assert "category cannot be read" in printed
    assert "n.json: categories[1]" in printed


def test_a_set_of_crowds_names_the_flag_that_imports_objects(run, images, tmp_path):
    files = coco({"iscrowd": "yes"})
    code, objects, printed = run(COMMANDS["coco"], files)
    assert (code, objects) == (0, [CAT])
    assert "Training and evaluation ignore crowds" in printed
    assert "--crowds_as_objects imports them as objects" in printed
    assert images.read_records(tmp_path / "out/train")[0]["is_crowd"] == [1]
    _, _, printed = run(COMMANDS["coco"] + " --crowds_as_objects", files)
    assert "crowds" not in printed
    assert images.read_records(tmp_path / "out/train")[0]["is_crowd"] == [0]


@pytest.mark.parametrize("flag", ["no", "false", "0", 0.0, False, None])
def test_truth_values_as_text(run, images, tmp_path, flag):
    run(COMMANDS["coco"], coco({"iscrowd": flag}))
    assert images.read_records(tmp_path / "out/train")[0]["is_crowd"] == [0]


@pytest.mark.parametrize(
    "part", [[1, 2], [], ["x"] * 6, [1, 2, 3, 4, 5], [0, 0, float("nan"), 5, 9, 9], [0, 0, 1e9, 0, 9, 9]]
)
def test_a_broken_part_of_an_outline_is_dropped_and_the_mask_stays(run, images, tmp_path, part):
    code, _, printed = run(COMMANDS["coco"] + " --include_masks", coco({"segmentation": [SQUARE, part]}))
    assert code == 0
    assert "1  part of an outline is not a polygon; dropped" in printed
    (mask,) = images.read_records(tmp_path / "out/train")[0]["mask"]
    np.testing.assert_array_equal(images.decode(mask), images.scene()[..., 0] > 100)


def test_outlines_in_fractions_are_drawn_on_the_image(run, images, tmp_path):
    outline = [value / side for value, side in zip(SQUARE, (40, 24) * 4)]
    run(COMMANDS["coco"] + " --include_masks", coco({"bbox": [0.25, 0.25, 0.5, 1 / 3], "segmentation": [outline]}))
    record = images.read_records(tmp_path / "out/train")[0]
    np.testing.assert_array_equal(images.decode(record["mask"][0]), images.scene()[..., 0] > 100)


@pytest.mark.parametrize(
    ("listed", "images_dir"),
    [("./images/a.png\n", "list.txt"), ("/home/me/set/images/a.png\r\n", "list.txt"), ("a.png", "images/list.txt")],
)
def test_yolo_images_of_a_list(run, listed, images_dir):
    files = {images_dir: listed, "n/a.txt": YOLO_CAT, "n/b.txt": YOLO_CAT, "names.txt": "cat"}
    code, objects, _ = run(COMMANDS["yolo"].replace("images_dir images", f"images_dir {images_dir}"), files)
    assert code == 0
    assert [(name.removeprefix("images/"), *rest) for name, *rest in objects] == [CAT]


@pytest.mark.parametrize(
    ("text", "names"),
    [("names: {'0': no, 1.0: dog}", ["no", "dog"]), ("names:\n- 0: no\n- 1: dog\ntrain: [a, b]", ["no", "dog"])],
)
def test_names_of_a_data_yaml(run, text, names):
    files = {"n/a.txt": YOLO_CAT + "\n" + YOLO_CAT.replace("0", "1", 1), "data.yaml": text}
    code, objects, _ = run(COMMANDS["yolo"].replace("names.txt", "data.yaml"), files)
    assert code == 0
    assert [name for _, name, _ in objects] == names


def test_voc_in_subfolders(run):
    files = {"n/x/a.xml": voc(name="a.png"), "n/y/a.xml": voc("<name>dog</name>%s", name="C:\\y\\a.png")}
    _, objects, _ = run(COMMANDS["voc"], files, ["x/a.png", "y/a.png"])
    assert objects == [("x/a.png", "cat", CAT[2]), ("y/a.png", "dog", CAT[2])]


# The cases next to the project: the objects of each, (file, class, (ymin, xmin, ymax, xmax)) in pixels of 64 x 48, or a
# part of the error.
BOX = (10, 10, 30, 30)
ONE = [("a.jpg", "cat", BOX)]
TWO = [*ONE, ("b.jpg", "cat", BOX)]
CENTRE = (12, 24, 36, 40)  # 0.5 0.5 0.25 0.5 of 64 x 48
OUTLINES = [*ONE, ("b.jpg", "cat", (16, 13, 36, 14))]  # 640 = 13 * 48 + 16 zeros, then 20 ones
CASES = {
    "bbox_normalized": [("a.jpg", "cat", (9.6, 9.6, 28.8, 28.8)), ("b.jpg", "cat", (4.8, 6.4, 28.8, 38.4))],
    "cat_name_int": [("a.jpg", "7", BOX)],
    "cat_name_zero": [("a.jpg", "0", BOX)],
    "csv_automl": [("a.jpg", "cat", (9.6, 9.6, 29.76, 29.44))],
    "csv_cp1252": [("a.jpg", "café", BOX)],
    "csv_nan_class": [("b.jpg", "cat", (1, 1, 20, 20))],
    "csv_vott": [("a.jpg", "cat", (10, 10.5, 30, 30))],
    "cvat_iscrowd_all": TWO,
    "iscrowd_string": TWO,
    "labelstudio_upload_path": TWO,
    "missing_bbox": OUTLINES,
    "missing_bbox_masks": OUTLINES,
    "upper_ext": TWO,
    "via_image_id_string": TWO,
    "voc_cvat_xml": "this is CVAT's own XML",
    "voc_gb2312": [("a.jpg", "猫", BOX)],
    # Half extents 10 cos 0.5 + 5 sin 0.5 = 11.17 and 10 sin 0.5 + 5 cos 0.5 = 9.18 around (20, 20).
    "voc_robndbox_rolabelimg": [("a.jpg", "cat", (10.82, 8.83, 29.18, 31.17))],
    "voc_subfolders": [("sub/a.jpg", "cat", BOX)],
    "voc_xywh_mistake": "exchanged corners, or a width and height?",
    "win_path": [("sub/a.jpg", "cat", BOX), ("b.jpg", "cat", BOX)],
    "yolo_6_conf": [("a.jpg", "cat", CENTRE)],
    "yolo_TXT_upper": [("a.jpg", "cat", CENTRE), ("b.jpg", "cat", CENTRE)],
    "yolo_list_file": [("images/a.jpg", "cat", CENTRE)],
    "yolo_obb": [("a.jpg", "cat", (14.4, 19.2, 28.8, 44.8))],
    "yolo_pose_2d_kp4": [("a.jpg", "cat", (40.8, 54.4, 45.6, 60.8))],
    "yolo_pose_kpt_shape_2d": [("a.jpg", "fish", (33.6, 44.8, 43.2, 57.6))],
    "yolo_pose_kpt_shape_yaml": [("a.jpg", "fish", CENTRE)],
    "yolo_yaml_dict_strkeys": [("a.jpg", "cat", CENTRE)],
}


@pytest.mark.shared
def test_the_cases_next_to_the_project(tmp_path, images, shared, monkeypatch, capsys):
    cases = sorted((shared / "cases" / "imports").iterdir()) if (shared / "cases").is_dir() else []
    if not cases:
        pytest.skip(f"{shared}/cases is not there")
    for case in cases:
        folder = tmp_path / case.name
        shutil.copytree(case, folder, copy_function=shutil.copyfile)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        monkeypatch.chdir(folder)
        words = shlex.split((folder / "command.txt").read_text())[1:]
        code, objects, printed = read_back(words, images, folder, capsys)
        expected = CASES.get(case.name, ONE)
        if isinstance(expected, str):
            assert (code, expected in printed) == (1, True), (case.name, printed)
        else:
            assert (code, objects) == (0, expected), (case.name, printed)
