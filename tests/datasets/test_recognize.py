"""Real data sets in each format, as their tools lay them out: recognized, split, and read with the source's boxes."""

from __future__ import annotations

import json
import operator

import numpy as np
import pytest
import tensorflow as tf

from detzoo.cli.main import main
from detzoo.config.label_map import load_label_map
from detzoo.data.class_records import ClassRecordDecoder
from detzoo.data.decode import ClassNames
from detzoo.datasets import splits
from detzoo.datasets.recognize import recognize, write_records
from detzoo.errors import DataError
from detzoo.files.issues import DataIssue


@pytest.fixture(scope="session")
def forms(load_module):
    """The module label_formats.py."""
    return load_module("datasets/label_formats.py")


@pytest.fixture(scope="module", params=["raccoon", "coco128"])
def items(request, forms, shared):
    """The labelled images of a real data set."""
    return getattr(forms, f"read_{request.param}")(shared)


def boxes_px(recognized):
    """File name -> sorted (class, rounded box in pixels) of all splits."""
    found = {}
    for part in recognized.splits.values():
        for image in part.images:
            height, width = image.declared_size or (1, 1)
            scale = (height, width) * 2 if image.boxes_are_normalized else (1, 1, 1, 1)
            objects = [(item.class_name, np.multiply(item.box, scale)) for item in image.objects]
            found.setdefault(image.path.name, []).extend(objects)
    return found


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "csv", "open_images", "labelme", "cvat", "label_studio"])
def test_real_data_in_each_format_has_the_boxes_of_the_source(tmp_path, forms, items, form):
    forms.WRITERS[form](items, tmp_path)
    recognized = recognize(tmp_path)
    assert recognized.format == form
    assert list(recognized.splits) == ["all"]
    assert sorted(recognized.class_names.values()) == forms.names_of(items)
    assert recognized.log.num_strict == 0
    found = boxes_px(recognized)
    assert sorted(found) == sorted(item.path.name for item in items)
    for item in items:
        scale = 1.0 if form not in ("yolo", "open_images") else 1.0 / np.array(item.size * 2)
        assert [name for name, _ in found[item.path.name]] == [name for name, _ in item.objects]
        for (_, box), (_, expected) in zip(found[item.path.name], item.objects):
            np.testing.assert_allclose(box, np.multiply(expected, scale), atol=1e-3 * np.max(scale))


@pytest.fixture
def few(tmp_path, forms, images):
    """Six made images with one cat each, and a dog in every second one, in a folder next to tmp_path's "data"."""
    made = []
    for number in range(6):
        path = tmp_path / "made" / f"photo{number}.png"
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (24, 40, 3), np.uint8)
        path.write_bytes(images.encode(noise))
        objects = [("cat", (6.0, 10.0, 14.0, 30.0)), ("dog", (2.0, 3.0, 20.0, 9.0))][: 1 + number % 2]
        made.append(forms.Labelled(path, (24, 40), objects))
    return made


def stems(recognized):
    """Split -> names of its images without extension."""
    return {
        name: sorted(image.path.stem for image in part.images if not image.unusable)
        for name, part in recognized.splits.items()
    }


TWO = {"train": [f"photo{number}" for number in range(4)], "val": ["photo4", "photo5"]}
THREE = TWO | {"val": ["photo4"], "test": ["photo5"]}


def roboflow_coco(forms, few, data):
    for name, part in (("train", few[:4]), ("valid", few[4:5]), ("test", few[5:])):
        forms.write_coco(part, data, f"{name}/_annotations.coco.json", name)


def roboflow_voc(forms, few, data):
    for name, part in (("train", few[:4]), ("valid", few[4:])):
        forms.write_voc(part, data, name, name)


def roboflow_csv(forms, few, data):
    for name, part in (("train", few[:4]), ("valid", few[4:])):
        forms.write_csv(part, data, f"{name}/_annotations.csv", name)


def roboflow_yolo(forms, few, data):
    for name, part in (("train", few[:4]), ("valid", few[4:5]), ("test", few[5:])):
        forms.write_yolo(part, data, f"{name}/labels", f"{name}/images", ["cat", "dog"])
    (data / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n"
    )


def ultralytics(forms, few, data):
    for name, part in (("train2017", few[:4]), ("val2017", few[4:])):
        forms.write_yolo(part, data, f"labels/{name}", f"images/{name}", ["cat", "dog"])
    yaml = "path: ../datasets/mine\ntrain: images/train2017\nval: images/val2017\ntest:\nnames:\n  0: cat\n  1: dog\n"
    (data / "data.yaml").write_text(yaml)


def ultralytics_lists(forms, few, data):
    forms.write_yolo(few, data)
    (data / "data.yaml").write_text("path: .\ntrain: [a.txt, b.txt]\nval: lists/held_out.txt\nnames: [cat, dog]\n")
    (data / "lists").mkdir()
    for file, part in (("a.txt", few[:2]), ("b.txt", few[2:4]), ("lists/held_out.txt", few[4:])):
        (data / file).write_text("".join(f"./images/{item.path.name}\n" for item in part))


def darknet(forms, few, data):
    forms.write_yolo(few, data, "obj_train_data", "obj_train_data")
    (data / "data.yaml").unlink()
    (data / "obj.names").write_text("cat\ndog\n")
    (data / "train.txt").write_text("".join(f"data/obj_train_data/{item.path.name}\n" for item in few[:4]))
    (data / "valid.txt").write_text("".join(f"data/obj_train_data/{item.path.name}\n" for item in few[4:]))


def image_sets(forms, few, data):
    forms.write_voc(few, data)
    sets = data / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("".join(f"{item.path.stem}\n" for item in few[:4]))
    (sets / "val.txt").write_text("".join(f"{item.path.stem} 1\n" for item in few[4:]))
    (sets / "trainval.txt").write_text("".join(f"{item.path.stem}\n" for item in few))
    (sets / "cat_train.txt").write_text("".join(f"{item.path.stem} -1\n" for item in few))


def voc_2012(forms, few, data):
    image_sets(forms, few, data)
    forms.place(few, data / "SegmentationClass")  # masks have the names of the images
    (data / "ImageSets" / "Layout").mkdir()
    (data / "ImageSets" / "Layout" / "val.txt").write_text("photo0\n")


def annotations_in_folders(forms, few, data):
    for name, part in (("train", few[:4]), ("val", few[4:])):
        forms.write_voc(part, data, f"Annotations/{name}")


def tutorial(forms, few, data):
    for name, part in (("train", few[:4]), ("test", few[4:])):
        forms.write_csv(part, data, f"{name}_labels.csv", f"images/{name}")


def coco_with_image_folders(forms, few, data):
    forms.write_coco(few, data, "instances.json", "images/train")
    (data / "images" / "val").mkdir()
    for item in few[4:]:
        (data / "images" / "train" / item.path.name).rename(data / "images" / "val" / item.path.name)


def coco_2017(forms, few, data):
    for name, part in (("train2017", few[:4]), ("val2017", few[4:])):
        forms.write_coco(part, data, f"annotations/instances_{name}.json", name)
        captions = {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "x", "category_id": 1}]}
        forms.write_json(data / f"annotations/captions_{name}.json", captions)


def open_images(forms, few, data):
    for name, part in (("train", few[:4]), ("validation", few[4:])):
        forms.write_open_images(part, data, f"{name}-annotations-bbox.csv", name)
    (data / "class-descriptions-boxable.csv").write_text("/m/0000,cat\n/m/0001,dog\n")


def automl(forms, few, data):
    forms.place(few, data / "images")
    rows = [
        f"{'TRAIN' if number < 4 else 'VALIDATE'},gs://b/{item.path.name},{name},{x0 / 40},{y0 / 24},,,"
        f"{x1 / 40},{y1 / 24},,"
        for number, item in enumerate(few)
        for name, (y0, x0, y1, x1) in item.objects
    ]
    (data / "all.csv").write_text("\n".join(rows))


def cvat_subsets(forms, few, data):
    forms.write_cvat(few, data)
    text = (data / "annotations.xml").read_text()
    for number in range(6):
        text = text.replace(f'id="{number}"', f'id="{number}" subset="{"Train" if number < 4 else "Validation"}"')
    (data / "annotations.xml").write_text(text)


def labelme_folders(forms, few, data):
    for name, part in (("train", few[:4]), ("val", few[4:])):
        forms.write_labelme(part, data, name, name)


LAYOUTS = {
    "Roboflow's COCO": ("coco", roboflow_coco, THREE),
    "Roboflow's VOC": ("voc", roboflow_voc, TWO),
    "Roboflow's CSV": ("csv", roboflow_csv, TWO),
    "Roboflow's YOLO": ("yolo", roboflow_yolo, THREE),
    "Ultralytics": ("yolo", ultralytics, TWO),
    "Ultralytics with lists": ("yolo", ultralytics_lists, TWO),
    "Darknet": ("yolo", darknet, TWO),
    "VOC's image sets": ("voc", image_sets, TWO),
    "VOC 2012": ("voc", voc_2012, TWO),
    "VOC with annotations in folders": ("voc", annotations_in_folders, TWO),
    "the Object Detection API's tutorial": ("csv", tutorial, {"train": TWO["train"], "test": TWO["val"]}),
    "COCO with images in folders": ("coco", coco_with_image_folders, TWO),
    "COCO 2017": ("coco", coco_2017, TWO),
    "Open Images": ("open_images", open_images, TWO),
    "AutoML": ("csv", automl, TWO),
    "CVAT's subsets": ("cvat", cvat_subsets, TWO),
    "labelme in folders": ("labelme", labelme_folders, TWO),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_that_exist_are_kept(tmp_path, forms, few, layout):
    form, write, expected = LAYOUTS[layout]
    data = tmp_path / "data"
    data.mkdir()
    write(forms, few, data)
    recognized = recognize(data)
    assert recognized.format == form
    assert stems(recognized) == expected
    assert recognized.class_names == {1: "cat", 2: "dog"}
    objects = sum(len(image.objects) for part in recognized.splits.values() for image in part.images)
    assert objects == 9
    assert recognized.log.num_strict == 0, recognized.log.table()
    assert all(part.class_names == recognized.class_names for part in recognized.splits.values())
    assert f"train {len(expected['train'])} images" in recognized.description


def test_all_images_are_one_part_if_only_one_split_is_named_or_two_are_the_same(tmp_path, forms, few):
    forms.write_voc(few, tmp_path / "voc", "train", "train")
    assert list(recognize(tmp_path / "voc").splits) == ["all"]
    forms.write_yolo(few, tmp_path / "yolo")  # its data.yaml names one folder as train and val
    assert list(recognize(tmp_path / "yolo").splits) == ["all"]


@pytest.mark.parametrize(
    "folders", ["images labels", "photos labels", "photos photos/labels", ". .", "a/images/x a/labels/x"]
)
def test_yolo_labels_lie_next_to_the_images_or_in_labels(tmp_path, forms, few, folders):
    images_dir, labels_dir = folders.split()
    forms.write_yolo(few, tmp_path / "data", labels_dir, images_dir)
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\n")
    if images_dir == "images":
        forms.place(few, tmp_path / "data" / "masks")  # other files of the same names
    recognized = recognize(tmp_path / "data")
    assert stems(recognized) == {"all": TWO["train"] + TWO["val"]}
    assert [len(image.objects) for image in recognized.splits["all"].images] == [1, 2] * 3
    assert recognized.log.num_strict == 0


def test_images_without_a_split_or_a_label_are_counted(tmp_path, forms, few):
    forms.write_voc(few[:5], tmp_path / "data")
    forms.place(few[5:], tmp_path / "data" / "JPEGImages")
    for name, item in zip(("train", "val"), few):
        (tmp_path / "data" / f"{name}.txt").write_text(item.path.name)
    recognized = recognize(tmp_path / "data")
    assert stems(recognized) == {"train": ["photo0"], "val": ["photo1"]}
    assert recognized.log.counts() == {DataIssue.UNLABELLED: 1, DataIssue.IN_NO_SPLIT: 3}


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "csv", "open_images", "cvat", "label_studio"])
def test_labels_without_images_are_one_sentence(tmp_path, forms, few, form):
    forms.WRITERS[form](few, tmp_path / "data")
    for path in list((tmp_path / "data").rglob("*.png")):
        path.unlink()
    with pytest.raises(DataError, match=r"^DIR .*data has .* \(such as .*\), but no image; put both into it$"):
        recognize(tmp_path / "data")


def test_records_are_copied_byte_for_byte_and_can_be_divided(tmp_path, forms, few, images):
    forms.write_coco(few, tmp_path / "data")
    write_records(recognize(tmp_path / "data"), f"{tmp_path}/records/all", num_shards=2)
    recognized = recognize(tmp_path / "records")
    assert (recognized.format, recognized.class_names) == ("records", {1: "cat", 2: "dog"})
    assert [len(image.objects) for image in recognized.splits["all"].images] == [1, 1, 1, 2, 2, 2]  # by shard
    assert recognized.log.counts() == {}
    divided = splits.draw(recognized, 1 / 3)
    results = write_records(divided, f"{tmp_path}/divided/")
    assert [result.num_images for result in results.values()] == [4, 2]
    train, val = (images.read_records(tmp_path / "divided" / name) for name in ("train", "val"))
    key = operator.itemgetter("image/filename")
    assert sorted(train + val, key=key) == sorted(images.read_records(tmp_path / "records/all"), key=key)
    # The splits of record files are kept; without a label map the names are those of the records.
    (tmp_path / "divided" / "label_map.pbtxt").unlink()
    again = recognize(tmp_path / "divided")
    assert {name: len(part.images) for name, part in again.splits.items()} == {"train": 4, "val": 2}
    assert again.class_names == {1: "cat", 2: "dog"}


def test_records_with_keys_of_other_types_and_without_names(tmp_path, images):
    """A classifier's records: the names are image/class/text, or "class ID"; other types are no crash."""

    def feature(*values):
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    encoded = images.encode(images.scene())
    keys = [
        {"image/class/label": feature(2), "image/class/text": feature(b"dog")},
        {"image/class/label": feature(5)},
        {"image/class/label": feature(b"?"), "image/filename": feature(7), "image/class/text": feature(b"cow")},
        {"image/source_id": feature(3)},  # a kind that training cannot read
    ]
    (tmp_path / "data").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "data" / "train.tfrecord")) as writer:
        for more in keys:
            features = tf.train.Features(feature={"image/encoded": feature(encoded), **more})
            writer.write(tf.train.Example(features=features).SerializeToString())
    recognized = recognize(tmp_path / "data")
    assert recognized.class_names == {2: "dog", 5: "class 5", 6: "cow"}
    assert recognized.log.counts() == {DataIssue.KEY_TYPE: 1}
    names = [image.filename for image in recognized.splits["all"].images]
    assert names == ["train.tfrecord:0", "train.tfrecord:1", "7"]
    (tmp_path / "data" / "train.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match=r"train.tfrecord: no record can be read, the files are empty$"):
        recognize(tmp_path / "data")


def test_outlines_become_masks_if_asked(tmp_path, forms, few, images):
    forms.write_coco(few, tmp_path / "data")
    path = tmp_path / "data" / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    for note in content["annotations"]:
        x, y, width, height = note["bbox"]
        note["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
    path.write_text(json.dumps(content))
    assert main(["dataset", "import", f"{tmp_path}/data", f"--output_path={tmp_path}/out/x", "--include_masks"]) == 0
    for record in images.read_records(tmp_path / "out" / "x"):
        for mask, (y0, x0, y1, x1) in zip(record["mask"], record["boxes"], strict=True):
            area = (y1 - y0) * 24 * (x1 - x0) * 40
            assert images.decode(mask).sum() == pytest.approx(area / 2, rel=0.25)  # a triangle
    assert main(["dataset", "import", f"{tmp_path}/data", f"--output_path={tmp_path}/plain/x"]) == 0
    assert all("mask" not in record for record in images.read_records(tmp_path / "plain" / "x"))


def test_classes_can_be_read_from_folders_that_have_labels_too(tmp_path, forms, few):
    forms.write_voc(few[:3], tmp_path / "data", "tabby", "tabby")
    forms.write_voc(few[3:], tmp_path / "data", "siamese", "siamese")
    forms.place(few, tmp_path / "data" / ".cache")
    assert recognize(tmp_path / "data").format == "voc"
    recognized = recognize(tmp_path / "data", "classes")
    assert recognized.class_names == {1: "siamese", 2: "tabby"}
    assert len(recognized.splits["all"].images) == 6


@pytest.mark.parametrize("folders", [("", ""), ("train/", "valid/")])
def test_class_folders_become_one_whole_image_object_per_image(tmp_path, forms, few, folders):
    data = tmp_path / "data"
    for name, part in zip(folders, (few[:4], few[4:])):
        forms.place(part[::2], data / f"{name}7")
        forms.place(part[1::2], data / f"{name}tabby cat" / "more")
    recognized = recognize(data)
    assert recognized.format == "classes"
    assert recognized.class_names == {1: "7", 2: "tabby cat"}
    assert stems(recognized) == ({"all": TWO["train"] + TWO["val"]} if folders[0] == "" else TWO)
    results = write_records(recognized, f"{tmp_path}/out/x")
    ids = {"7": 1, "tabby cat": 2}
    assert load_label_map(tmp_path / "out" / "label_map.pbtxt").id_by_name == ids
    decoder = ClassRecordDecoder(ClassNames(ids, [1, 2]))
    files = [str(shard) for result in results.values() for shard in result.shards]
    assert sorted(int(decoder.class_id(record)) for record in tf.data.TFRecordDataset(files)) == [1, 1, 1, 2, 2, 2]
    boxes = {item.box for part in recognized.splits.values() for image in part.images for item in image.objects}
    assert boxes == {(0.0, 0.0, 1.0, 1.0)}
