"""labelme, CVAT, Label Studio and Open Images: boxes worked by hand, their dialects, and what is refused or counted."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest

from detzoo.datasets.recognize import recognize
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue

# images.scene() is 24 high and 40 wide; its red rectangle has rows 6..13 and columns 10..29.
RED = (6, 10, 14, 30)
SQUARE = [[10, 6], [30, 6], [30, 14], [10, 14]]


@pytest.fixture
def read(tmp_path, images):
    """A function: files (name -> text or JSON) next to a.png and b.png -> what was recognized."""

    def go(files, format=None, image_names=("a.png", "b.png"), **options):
        for name in image_names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(images.encode(images.scene()))
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return recognize(tmp_path, format, **options)

    return go


def objects(recognized):
    """(file, class, rounded box in pixels of the 24 x 40 image) of all objects."""
    found = []
    for image in recognized.splits["all"].images:
        scale = (24, 40, 24, 40) if image.boxes_are_normalized else (1, 1, 1, 1)
        for item in image.objects:
            box = tuple(round(float(side), 3) for side in np.multiply(item.box, scale))
            found.append((image.path.name, item.class_name, box))
    return found


def issues(recognized):
    return {issue: count for issue, count in recognized.log.counts().items() if issue is not DataIssue.UNLABELLED}


def labelme(*shapes, image="a.png", **more):
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image, "imageData": None}
    return {"labels/a.json": content | {"imageHeight": 24, "imageWidth": 40} | more}


def shape(kind="rectangle", points=((10, 6), (30, 14)), label="cat", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


# A mask of 2 rows and 3 columns at column 10, row 6.
MASK = np.array([[1, 1, 0], [0, 1, 1]], np.uint8)


@pytest.mark.parametrize(
    ("shapes", "expected", "found"),
    [
        ([shape()], [("cat", RED)], {}),
        ([shape(points=[[30, 14], [10, 6]])], [("cat", RED)], {}),  # drawn from the lower right corner
        ([shape("polygon", SQUARE[:3])], [("cat", RED)], {}),
        ([shape("circle", [[20, 10], [23, 14]])], [("cat", (5, 15, 15, 25))], {}),  # radius 5, of a 3-4-5 triangle
        ([shape("rotation", [[10, 8], [12, 6], [30, 12], [28, 14]])], [("cat", RED)], {DataIssue.ORIENTED_BOX: 1}),
        ([shape("point", [[3, 4]]), shape("line", [[3, 4], [5, 6]]), shape("linestrip", SQUARE), shape()],
         [("cat", RED)], {DataIssue.SHAPE_UNUSABLE: 3}),
        ([shape(label=""), shape(points=[]), shape(points=[["x", 1]]), 5, shape(label=7)], [("7", RED)],
         {DataIssue.CLASS_WITHOUT_NAME: 2, DataIssue.ANNOTATION_UNREADABLE: 2}),
    ],
)  # fmt: skip
def test_labelme(read, shapes, expected, found):
    recognized = read(labelme(*shapes))
    assert recognized.format == "labelme"
    assert objects(recognized) == [("a.png", name, box) for name, box in expected]
    assert issues(recognized) == found


def test_labelme_masks(read, images):
    encoded = base64.b64encode(images.encode(MASK * 255)).decode()
    recognized = read(labelme(shape("mask", [[10, 6], [12, 7]], mask=encoded), shape("polygon", SQUARE), shape()))
    drawn, polygon, rectangle = (item.mask for item in recognized.splits["all"].images[0].objects)
    mask = drawn(24, 40)
    assert np.argwhere(mask).tolist() == [[6, 10], [6, 11], [7, 11], [7, 12]]
    assert polygon(24, 40).sum() == 8 * 20
    assert rectangle is None


@pytest.mark.parametrize("image", ["..\\a.png", "C:\\set\\A.JPG", "gone.png"])
def test_labelme_finds_images_of_other_machines_or_by_the_name_of_the_json(read, image):
    assert objects(read(labelme(shape(), image=image))) == [("a.png", "cat", RED)]


def test_labelme_reads_an_image_inside_of_the_json(read, images, tmp_path):
    data = base64.b64encode(images.encode(images.scene())).decode()
    recognized = read(labelme(shape(), imageData=data), image_names=())
    [image] = recognized.splits["all"].images
    assert image.unusable is None
    assert image.read() == images.encode(images.scene())


def cvat(shapes, head="<version>1.1</version><meta/>", size='width="40" height="24"'):
    return {
        "annotations.xml": f'<annotations>{head}<image id="0" name="set/a.png" {size}>{shapes}</image></annotations>'
    }


def box(xtl=10, ytl=6, xbr=30, ybr=14, more=""):
    return f'<box label="cat" occluded="0" xtl="{xtl}" ytl="{ytl}" xbr="{xbr}" ybr="{ybr}" z_order="0" {more}></box>'


@pytest.mark.parametrize(
    ("shapes", "expected", "found"),
    [
        (box(), [RED], {}),
        (box(more='rotation="0.0"'), [RED], {}),
        # 20 wide and 8 high about (20, 10), by a quarter turn: 8 wide and 20 high.
        (box(more='rotation="90.0"'), [(0, 16, 20, 24)], {DataIssue.ORIENTED_BOX: 1}),
        # By 30 degrees: half width (20 cos + 8 sin) / 2 = 8.660 + 2 = 10.660, half height (20 sin + 8 cos) / 2 = 8.464.
        (box(more='rotation="30"'), [(1.536, 9.34, 18.464, 30.66)], {DataIssue.ORIENTED_BOX: 1}),
        ('<polygon label="cat" points="10.0,6.0;30,6;30,14" />', [RED], {}),
        ('<ellipse label="cat" cx="20" cy="10" rx="10" ry="4" />', [RED], {}),
        # By a quarter turn the radii change places.
        ('<ellipse label="cat" cx="20" cy="10" rx="4" ry="10" rotation="90" />', [(6, 10, 14, 30)], {}),
        ('<mask label="cat" left="10" top="6" width="3" height="2" rle="0, 2, 2, 2" />', [(6, 10, 8, 13)], {}),
        ('<cuboid label="cat" xtl1="10" ytl1="8" xbl1="10" ybl1="14" xtr1="20" ytr1="8" xbr1="20" ybr1="14" xtl2="15"'
         ' ytl2="6" xbl2="15" ybl2="12" xtr2="30" ytr2="6" xbr2="30" ybr2="12"/>', [RED], {DataIssue.ORIENTED_BOX: 1}),
        ('<points label="cat" points="1,2"/><polyline label="cat" points="1,2;3,4"/><tag label="x"/>' + box(), [RED],
         {DataIssue.SHAPE_UNUSABLE: 3}),
        ('<mask label="cat" left="inf" top="6" width="3" height="2" rle="6"/>' + box(), [RED],
         {DataIssue.ANNOTATION_UNREADABLE: 1}),
        (box(xtl="x") + '<polygon label="cat" points=""/><polygon label="cat" points="1,2"/><box/>' + box(), [RED],
         {DataIssue.ANNOTATION_UNREADABLE: 3, DataIssue.CLASS_WITHOUT_NAME: 1}),
    ],
)  # fmt: skip
def test_cvat(read, shapes, expected, found):
    recognized = read(cvat(shapes))
    assert recognized.format == "cvat"
    assert objects(recognized) == [("a.png", "cat", tuple(side)) for side in expected]
    assert issues(recognized) == found


def test_cvat_masks(read):
    runs = '<mask label="cat" left="10" top="6" width="3" height="2" rle="0, 2, 2, 2"/>'
    recognized = read(cvat(runs + '<polygon label="cat" points="10,6;30,6;30,14;10,14"/>'))
    drawn, polygon = (item.mask for item in recognized.splits["all"].images[0].objects)
    assert np.argwhere(drawn(24, 40)).tolist() == [[6, 10], [6, 11], [7, 11], [7, 12]]
    assert polygon(24, 40).sum() == 8 * 20


def region(kind="rectanglelabels", name="cat", **value):
    value = {"x": 25, "y": 25, "width": 50, "height": 100 / 3, "rotation": 0} | value
    value = {key: each for key, each in value.items() if each is not ...}
    return {"id": f"{kind}{name}{value}", "type": kind, "to_name": "image", "original_width": 40,
            "original_height": 24, "value": value | ({kind: [name]} if name else {})}  # fmt: skip


def tasks(*regions, image="/data/upload/1/1a2b3c4d-a.png", **annotation):
    return {
        "export.json": [{"id": 1, "data": {"image": image}, "annotations": [{"result": list(regions)} | annotation]}]
    }


NO_BOX = {"x": ..., "y": ..., "width": ..., "height": ..., "rotation": ...}


@pytest.mark.parametrize(
    ("regions", "expected", "found"),
    [
        ([region()], [RED], {}),
        # A quarter turn about the upper left corner (20, 6) puts 8 wide, 6 high to the left: x 14..20, y 6..14.
        ([region(x=50, width=20, height=25, rotation=90)], [(6, 14, 14, 20)], {DataIssue.ORIENTED_BOX: 1}),
        # 10 wide and 0.24 high by 45 degrees: 10 / sqrt(2) = 7.071 and 0.24 / sqrt(2) = 0.170 in each direction.
        ([region(x=50, width=25, height=1, rotation=45)], [(6, 19.83, 13.241, 27.071)], {DataIssue.ORIENTED_BOX: 1}),
        ([region("polygonlabels", **NO_BOX, points=[[25, 25], [75, 25], [75, 700 / 12]])], [RED], {}),
        ([region("ellipselabels", x=50, y=1000 / 24, width=..., height=..., radiusX=25, radiusY=400 / 24)], [RED], {}),
        ([region("keypointlabels", height=...), region("brushlabels", **NO_BOX, rle=[1, 2], format="rle"), region()],
         [RED], {DataIssue.SHAPE_UNUSABLE: 2}),
        ([region("choices", **NO_BOX), region()], [RED], {}),
        ([region(name=""), region(x="?"), {"value": 3}, region()], [RED],
         {DataIssue.CLASS_WITHOUT_NAME: 1, DataIssue.ANNOTATION_UNREADABLE: 2}),
    ],
)  # fmt: skip
def test_label_studio(read, regions, expected, found):
    recognized = read(tasks(*regions))
    assert recognized.format == "label_studio"
    assert objects(recognized) == [("a.png", "cat", tuple(side)) for side in expected]
    assert issues(recognized) == found


def test_label_studio_dialects(read):
    # A box and its label as two results of one id; the label of JSON-MIN; an annotation that was cancelled.
    shared = {"id": "r", "to_name": "image", "original_width": 40, "original_height": 24}
    value = {"x": 25, "y": 25, "width": 50, "height": 100 / 3}
    two = [{**shared, "type": "rectangle", "value": value}, {**shared, "type": "labels", "value": {"labels": ["cat"]}}]
    assert objects(read(tasks(*two))) == [("a.png", "cat", RED)]
    content = tasks(region())
    content["export.json"][0]["annotations"].insert(0, {"was_cancelled": True, "result": [region(name="dog")]})
    assert objects(read(content)) == [("a.png", "cat", RED)]
    content["export.json"][0]["annotations"].append({"ground_truth": True, "result": [region(name="cow")]})
    assert objects(read(content)) == [("a.png", "cow", RED)]
    small = [{"image": "/data/local-files/?d=set/a.png", "id": 1, "annotation_id": 3,
              "label": [value | {"rotation": 0, "rectanglelabels": ["cat"], "original_width": 40,
                                 "original_height": 24}]}]  # fmt: skip
    assert objects(read({"export.json": small})) == [("a.png", "cat", RED)]


def test_label_studio_tasks_without_a_result_are_images_without_objects(read):
    content = tasks(region())["export.json"]
    content += [{"id": 2, "data": {"image": "b.png"}, "annotations": []}, {"id": 3, "data": {"text": "?"}}]
    recognized = read({"export.json": content})
    assert [len(image.objects) for image in recognized.splits["all"].images] == [1, 0]
    assert issues(recognized) == {DataIssue.ANNOTATION_FILE_UNREADABLE: 1}


def test_open_images_takes_names_and_groups(read):
    rows = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"
    rows += f"a,xclick,/m/01yrx,1,0.25,0.75,0.25,{14 / 24},0,1,1,0\nb,xclick,/m/9,1,0.25,0.75,0.25,{14 / 24},0,0,0,0\n"
    names = "LabelName,DisplayName\n/m/01yrx,Cat\n/m/07j7r,Tree\n"
    recognized = read({"train-annotations-bbox.csv": rows, "oidv7-class-descriptions-boxable.csv": names})
    assert recognized.format == "open_images"
    assert objects(recognized) == [("a.png", "Cat", RED), ("b.png", "/m/9", RED)]
    cat = recognized.splits["all"].images[0].objects[0]
    assert (cat.is_group_of, cat.is_truncated) == (True, True)


BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
OPEN_IMAGES = {
    "annotations-bbox.csv": f"{BOXES}a,xclick,/m/cat,1,0.25,0.75,0.25,{14 / 24},0,0,0\n",
    "class-descriptions-boxable.csv": "/m/animal,Animal\n/m/cat,Cat\n/m/dog,Dog\n/m/tail,Tail\n/m/tree,Tree\n",
    "annotations-human-imagelabels.csv": "ImageID,Source,LabelName,Confidence\na,verification,/m/cat,1\n"
    "a,verification,/m/tree,0\nb,verification,/m/animal,0\nb,machine-generated,/m/tree,1\nb,verification,/m/tail,0.5\n",
    "bbox_labels_hierarchy.json": {
        "LabelName": "/m/entity",
        "Subcategory": [
            {
                "LabelName": "/m/animal",
                "Subcategory": [{"LabelName": "/m/cat", "Part": [{"LabelName": "/m/tail"}]}, {"LabelName": "/m/dog"}],
            },
            {"LabelName": "/m/tree"},
        ],
    },
}


@pytest.mark.parametrize(
    ("expand", "classes", "verified"),
    [
        (False, ["Cat"], {"a.png": ("Cat", "Tree"), "b.png": ("Animal",)}),
        # A cat is an animal, and without an animal there is neither cat nor dog. A tail is a part of a cat and no cat.
        (True, ["Cat", "Animal"], {"a.png": ("Cat", "Animal", "Tree"), "b.png": ("Animal", "Cat", "Dog")}),
    ],
)
def test_open_images_has_verified_classes_and_a_hierarchy(read, tmp_path, images, expand, classes, verified):
    from detzoo.datasets.recognize import write_records

    recognized = read(OPEN_IMAGES, expand_hierarchy=expand)
    assert objects(recognized) == [("a.png", name, RED) for name in classes]
    found = {image.path.name: image.verified_classes for image in recognized.splits["all"].images}
    assert found == verified
    write_records(recognized, str(tmp_path / "out" / "all"))
    first, second = images.read_records(tmp_path / "out" / "all")
    # The label map has the classes with boxes, by name: Animal 1 and Cat 2 with the hierarchy, else Cat 1.
    assert first["image/class/text"] == [name.encode() for name in classes]
    assert first["image/class/label"] == ([2, 1] if expand else [1])
    assert second["image/class/text"] == ([b"Animal", b"Cat"] if expand else [])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bbox_labels_hierarchy.json": None}, UsageError, r"--expand_hierarchy: .* has no file \*hierarchy"),
        ({"bbox_labels_hierarchy.json": {"a": 1}}, DataError, "no hierarchy of classes; every class needs LabelName"),
        (
            {"annotations-human-imagelabels.csv": "ImageID,LabelName\n"},
            DataError,
            ":1: no column Confidence in ImageID",
        ),
    ],
)
def test_what_open_images_lacks_is_named(read, change, error, message):
    files = {name: content for name, content in (OPEN_IMAGES | change).items() if content is not None}
    with pytest.raises(error, match=message):
        read(files, "open_images", expand_hierarchy=True)


DEEP = "[" * 100_000

REFUSED = {
    "video XML": (cvat("")["annotations.xml"].replace("<image", "<track id='0'></track><image"),
                  "annotations.xml is CVAT's XML for video .* export the task as 'CVAT for images 1.1'"),
    "another version": (cvat("", "<version>2.0</version>")["annotations.xml"],
                        "2.0 .* export the task again in version 1.1$"),
    "broken XML": ("<annotations>\n<image>", "annotations.xml:2: not well-formed XML"),
    "imglab": ("<dataset><images/></dataset>", r"annotations.xml is imglab's XML \(dlib\)"),
    "broken COCO": ('{"images": [],\n "annotations": [}', r"labels.json:2: not JSON"),
    "COCO without images": ({"annotations": [], "categories": []}, "labels.json has no list 'images'"),
    "COCO results": ([{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}], "a list in COCO's results format"),
    "broken labelme": ('{"shapes": [', "no object could be imported.*labels.json: annotation of an image cannot be"),
    "broken Label Studio": ('[{"data": {"image": "a.png"}}, ', r"labels.json:1: not JSON"),
    "a list of numbers": ("[1, 2]", "labels.json has no list 'images'"),
    "deep JSON": (f'{{"images": {DEEP}, "annotations": ', "nested too deeply"),
    "deep Label Studio": (f'[{{"result": {DEEP}', "nested too deeply"),
    "VGG": ("filename,file_size,region_shape_attributes\n", "an export of the VGG Image Annotator"),
    "no file": (None, r"it has 2 images and 0 other files; known are COCO JSON, Pascal VOC XML, YOLO"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named(read, case, tmp_path):
    from detzoo.datasets.recognize import write_records

    content, message = REFUSED[case]
    suffix = "xml" if str(content)[:1] == "<" else "csv" if str(content).startswith("file") else "json"
    name = {"xml": "annotations.xml", "csv": "labels.csv", "json": "labels.json"}[suffix]
    with pytest.raises(DataError, match=f"(?s){message}"):
        write_records(read({name: content} if content is not None else {}), str(tmp_path / "out" / "x"))
    assert not list(tmp_path.glob("out/*"))


def test_two_formats_are_an_error_that_names_both(read, tmp_path):
    files = tasks(region()) | cvat(box())
    both = r"2 formats: CVAT .*annotations.xml.* and Label Studio .*export.json"
    with pytest.raises(UsageError, match=f"{both}.*choose one by --format cvat or --format label_studio$"):
        read(files)
    assert recognize(tmp_path, "cvat").format == "cvat"
    assert recognize(tmp_path, "Label-Studio").format == "label_studio"
    with pytest.raises(DataError, match="has no CSV; it has 2 images and 2 other files"):
        recognize(tmp_path, "csv")
    with pytest.raises(UsageError, match="--format cvta is unknown; did you mean 'cvat'"):
        recognize(tmp_path, "cvta")
    with pytest.raises(UsageError, match=r"DIR .*nowhere is not a folder"):
        recognize(tmp_path / "nowhere")


def test_by_products_are_no_second_format(read):
    others = {
        "classes.txt": "cat\n",
        "data.yaml": "names: [cat]\n",
        "notes.json": {"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}},
        "README.roboflow.txt": "1 2 3 images\n",
        "results.csv": "epoch,loss\n1,2\n",
        "old.tfrecord": "",
        ".cache/labels.json": {"images": [], "annotations": []},
        "__MACOSX/._a.xml": "<annotation/>",
    }
    recognized = read(labelme(shape()) | others)
    assert recognized.format == "labelme"
    assert recognized.description == (
        "labelme JSON (labels/a.json; not the records, such as old.tfrecord); 1 images, no splits"
    )


def test_rotation_by_the_corner_agrees_with_turned_corners():
    """The closed form for a box turned about its corner, against corners turned one by one."""
    from detzoo.datasets.import_label_studio import _corners

    value = {"x": 30, "y": 20, "width": 30, "height": 40, "rotation": 37}
    corners = np.fromiter(_corners(value, (24, 40)), float).reshape(-1, 2) * (40, 24)
    turn = complex(math.cos(math.radians(37)), math.sin(math.radians(37)))
    for corner, offset in zip(corners, (0, 12, 12 + 9.6j, 9.6j)):
        turned = 12 + 4.8j + turn * offset
        assert complex(*corner) == pytest.approx(turned)
