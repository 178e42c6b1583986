"""Writes labelled images in each format that ``recognize`` reads, as the formats' own tools lay them out."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import shutil
from typing import NamedTuple
from xml.sax.saxutils import quoteattr


class Labelled(NamedTuple):
    """An image file, its (height, width) and its objects: (class name, (ymin, xmin, ymax, xmax) in pixels)."""

    path: pathlib.Path
    size: tuple[int, int]
    objects: list[tuple[str, tuple[float, float, float, float]]]


def read_raccoon(shared) -> list[Labelled]:
    """The 200 images of ../shared/data/raccoon, by its own CSV."""
    found: dict[str, Labelled] = {}
    for row in csv.DictReader((shared / "data/raccoon/raccoon_labels.csv").open()):
        path = shared / "data/raccoon/images" / row["filename"]
        item = found.setdefault(row["filename"], Labelled(path, (int(row["height"]), int(row["width"])), []))
        item.objects.append((row["class"], tuple(float(row[side]) for side in ("ymin", "xmin", "ymax", "xmax"))))
    return list(found.values())


def read_coco128(shared) -> list[Labelled]:
    """The 128 images of ../shared/data/coco128, by its COCO JSON."""
    content = json.loads((shared / "data/coco128/instances_128.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {
        image["id"]: Labelled(
            shared / "data/coco128/images" / image["file_name"], (image["height"], image["width"]), []
        )
        for image in content["images"]
    }
    for note in content["annotations"]:
        x, y, width, height = note["bbox"]
        found[note["image_id"]].objects.append((names[note["category_id"]], (y, x, y + height, x + width)))
    return list(found.values())


def place(items, folder: pathlib.Path) -> None:
    """Links or copies the images into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        target = folder / item.path.name
        try:
            os.link(item.path, target)
        except OSError:  # another file system
            shutil.copy(item.path, target)


def names_of(items) -> list[str]:
    return sorted({name for item in items for name, _ in item.objects})


def write_coco(items, folder, file="annotations/instances.json", images="images"):
    place(items, folder / images)
    names, notes = names_of(items), []
    for number, item in enumerate(items, start=1):
        for name, (y0, x0, y1, x1) in item.objects:
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            notes.append({"id": len(notes) + 1, "image_id": number, "category_id": names.index(name) + 1, **box})
    content = {
        "images": [
            {"id": number, "file_name": item.path.name, "height": item.size[0], "width": item.size[1]}
            for number, item in enumerate(items, start=1)
        ],
        "annotations": notes,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }
    write_json(folder / file, content)


def write_voc(items, folder, annotations="Annotations", images="JPEGImages"):
    place(items, folder / images)
    (folder / annotations).mkdir(parents=True, exist_ok=True)
    for item in items:
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            "</bndbox></object>"
            for name, (y0, x0, y1, x1) in item.objects
        )
        size = f"<size><width>{item.size[1]}</width><height>{item.size[0]}</height></size>"
        text = f"<annotation><filename>{item.path.name}</filename>{size}{objects}</annotation>"
        (folder / annotations / f"{item.path.stem}.xml").write_text(text)


def write_yolo(items, folder, labels="labels", images="images", names=None):
    place(items, folder / images)
    (folder / labels).mkdir(parents=True, exist_ok=True)
    names = names or names_of(items)
    for item in items:
        height, width = item.size
        lines = [
            f"{names.index(name)} {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} {(x1 - x0) / width}"
            f" {(y1 - y0) / height}\n"
            for name, (y0, x0, y1, x1) in item.objects
        ]
        (folder / labels / f"{item.path.stem}.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnc: {len(names)}\nnames: {json.dumps(names)}\n")


def write_csv(items, folder, file="labels.csv", images="images"):
    place(items, folder / images)
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for item in items:
        rows += [f"{item.path.name},{item.size[1]},{item.size[0]},{name},{x0},{y0},{x1},{y1}"
                 for name, (y0, x0, y1, x1) in item.objects] or [f"{item.path.name},,,,,,,"]  # fmt: skip
    (folder / file).write_text("\n".join(rows))


def write_open_images(items, folder, file="train-annotations-bbox.csv", images="train"):
    place(items, folder / images)
    codes = {name: f"/m/0{number:03d}" for number, name in enumerate(names_of(items))}
    (folder / "class-descriptions-boxable.csv").write_text("".join(f"{c},{n}\n" for n, c in codes.items()))
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
    for item in items:
        height, width = item.size
        rows += [f"{item.path.stem},xclick,{codes[name]},1,{x0 / width},{x1 / width},{y0 / height},{y1 / height},0,0,0"
                 for name, (y0, x0, y1, x1) in item.objects] or [f"{item.path.stem},,,,,,,,,,"]  # fmt: skip
    (folder / file).write_text("\n".join(rows))


def write_labelme(items, folder, labels="labels", images="images"):
    place(items, folder / images)
    (folder / labels).mkdir(parents=True, exist_ok=True)
    for item in items:
        shapes = [
            {"label": name, "points": [[x0, y0], [x1, y1]], "group_id": None, "shape_type": "rectangle", "flags": {}}
            for name, (y0, x0, y1, x1) in item.objects
        ]
        content = {"version": "5.2.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\images\\{item.path.name}",
                   "imageData": None, "imageHeight": item.size[0], "imageWidth": item.size[1]}  # fmt: skip
        write_json(folder / labels / f"{item.path.stem}.json", content)


def write_cvat(items, folder, file="annotations.xml", images="images"):
    place(items, folder / images)
    lines = ["<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version><meta/>"]
    for number, item in enumerate(items):
        lines.append(f'<image id="{number}" name="{item.path.name}" width="{item.size[1]}" height="{item.size[0]}">')
        lines += [
            f'<box label={quoteattr(name)} occluded="0" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" z_order="0"/>'
            for name, (y0, x0, y1, x1) in item.objects
        ]
        lines.append("</image>")
    (folder / file).write_text("\n".join([*lines, "</annotations>"]))


def write_label_studio(items, folder, file="project-1.json", images="images"):
    place(items, folder / images)
    tasks = []
    for number, item in enumerate(items, start=1):
        height, width = item.size
        results = [
            {"original_width": width, "original_height": height, "image_rotation": 0, "id": f"r{index}",
             "from_name": "label", "to_name": "image", "type": "rectanglelabels",
             "value": {"x": x0 / width * 100, "y": y0 / height * 100, "width": (x1 - x0) / width * 100,
                       "height": (y1 - y0) / height * 100, "rotation": 0, "rectanglelabels": [name]}}
            for index, (name, (y0, x0, y1, x1)) in enumerate(item.objects)
        ]  # fmt: skip
        data = {"image": f"/data/upload/1/1a2b3c4d-{item.path.name}"}
        tasks.append({"id": number, "annotations": [{"id": number, "result": results}], "data": data})
    write_json(folder / file, tasks)


def write_json(path: pathlib.Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


WRITERS = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "csv": write_csv,
    "open_images": write_open_images,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "label_studio": write_label_studio,
}
