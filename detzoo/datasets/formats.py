"""The formats of labels: how the files of each are recognized by their content, and how a folder of them is read.

Flow: ``recognize`` -> ``formats_in`` -> a reader of ``FORMATS`` -> Annotations per file or folder.
"""

from __future__ import annotations

import collections
import functools
import pathlib
import posixpath
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from detzoo.config.label_map import load_label_map
from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations, numbered
from detzoo.datasets.import_coco import read_coco
from detzoo.datasets.import_csv import read_csv, table_of
from detzoo.datasets.import_cvat import read_cvat
from detzoo.datasets.import_label_studio import read_label_studio
from detzoo.datasets.import_labelme import read_labelme
from detzoo.datasets.import_open_images import (
    Names,
    expand_names,
    label_only_images,
    read_image_labels,
    read_names,
    read_open_images,
)
from detzoo.datasets.import_records import read_records
from detzoo.datasets.import_voc import OTHER_XML, read_voc
from detzoo.datasets.import_yolo import read_yolo
from detzoo.datasets.source_folder import SourceFile, SourceFolder
from detzoo.datasets.split_names import (
    NEUTRAL_WORDS,
    YAML_SUFFIXES,
    split_of_folders,
    split_of_path,
    split_of_words,
    words_of,
)
from detzoo.errors import DataError, UsageError
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import IssueLog

OTHER_COCO = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
SNIFFED_BYTES = 65_536  # from both ends of a file
CLASS_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt", "labels.txt", "predefined_classes.txt")
RECORD_FILE = re.compile(r"\.(tfrecords?|records?)(-\d+-of-\d+)?$", re.IGNORECASE)
_YOLO_LINE = re.compile(r"\s*\d+(\.0+)?(\s+[-+]?[\d.]+(e[-+]?\d+)?){4,}\s*", re.IGNORECASE)
_ROOT_TAG = re.compile(r"<([a-z_][\w.-]*)", re.IGNORECASE)
_LABEL_STUDIO = re.compile(
    r'"(result|completions|annotation_id|(rectangle|polygon|ellipse|brush|keypoint)labels|data"\s*:\s*\{)'
)
_IMAGE_LABELS = re.compile(r"imagelabels.*\.csv$|image-labels.*\.csv$")
_HIERARCHY = re.compile(r"hierarchy.*\.json$")
_CLASS_DESCRIPTIONS = re.compile(r"class-descriptions.*\.csv$|^classes\.csv$")
_ITEM = re.compile(r"\bitem\s*:?\s*\{")
_COCO_KEYS = tuple(rf'"{key}"\s*:' for key in ("images", "annotations", "categories", "category_id"))


class Part(NamedTuple):
    """Annotations of one file or folder, and the split that its path names ("" without one)."""

    annotations: Annotations
    split: str = ""


class Folder(NamedTuple):
    """A folder to recognize, with the options of the readers."""

    source: SourceFolder
    log: IssueLog
    follow_links: bool
    include_masks: bool
    expand_hierarchy: bool = False

    @property
    def path(self) -> pathlib.Path:
        """Path of the folder."""
        return self.source.path

    def images_dir(self, file: str) -> str:
        """Returns the folder of the images of an annotation file: its own, that of its split, or the whole folder."""
        own, split = posixpath.dirname(file), split_of_path(file)
        folders = {posixpath.dirname(image.relative) for image in self.source.files}
        if any(f"{folder}/".startswith(f"{own}/") for folder in folders if own):
            return str(self.path / own)
        of_split = sorted((folder for folder in folders if split and split_of_folders(folder) == split), key=len)
        if of_split and all(f"{folder}/".startswith(f"{of_split[0]}/") for folder in of_split):
            return str(self.path / of_split[0])
        return str(self.path)


def _read_coco(folder: Folder, files: list[str]) -> list[Part]:
    # Files of the same images and other labels lie next to COCO's instances.
    instances = [file for file in files if not posixpath.basename(file).startswith(OTHER_COCO)]
    return _read_files(read_coco, folder, instances or files, include_masks=folder.include_masks)


def _read_files(read: Callable[..., Annotations], folder: Folder, files: list[str], **options: Any) -> list[Part]:
    options["follow_links"] = folder.follow_links
    return [
        Part(read(folder.images_dir(file), str(folder.path / file), folder.log, **options), split_of_path(file))
        for file in files
    ]


def _read_open_images(folder: Folder, files: list[str]) -> list[Part]:
    def others(pattern: re.Pattern[str]) -> list[pathlib.Path]:
        readable = (file.relative for file in folder.source.others if not file.problem)
        return [folder.path / name for name in readable if pattern.search(posixpath.basename(name).lower())]

    names: Names = read_names(others(_CLASS_DESCRIPTIONS), folder.log)
    present = absent = names
    if folder.expand_hierarchy:
        hierarchies = others(_HIERARCHY)
        if not hierarchies:
            raise UsageError(f"--expand_hierarchy: {folder.path} has no file *hierarchy*.json")
        present, absent = expand_names(names, hierarchies[0], folder.log)
    verified = read_image_labels(others(_IMAGE_LABELS), present, absent, folder.log)
    parts = _read_files(read_open_images, folder, files, names=present, verified=verified)

    def place(image_id: str) -> dict[str, Any] | None:
        found = folder.source.find(image_id)
        return folder.source.taken(found[0], image_id) if len(found) == 1 else None

    without_boxes = label_only_images(verified, [part.annotations for part in parts], place)
    return [*parts, *([Part(without_boxes)] if without_boxes.images else [])]


def _read_whole(read: Callable[..., Annotations], folder: Folder, _files: list[str]) -> list[Part]:
    return [Part(read(str(folder.path), str(folder.path), folder.log, follow_links=folder.follow_links))]


def _read_yolo(folder: Folder, _files: list[str]) -> list[Part]:
    names = class_name_file(folder.source)
    if names is None:
        raise DataError(
            f"{folder.path} has YOLO labels but no class names; put a data.yaml with `names:` or a classes.txt with"
            " one name per line into the folder"
        )
    path, options = str(folder.path), {"follow_links": folder.follow_links, "is_mixed": True}
    return [Part(read_yolo(path, path, str(folder.path / names), folder.log, **options))]


def _read_classes(folder: Folder, _files: list[str]) -> list[Part]:
    """Reads one object per image, which is the whole image: a classifier's records."""
    read = []
    for class_name, file in classes_of(folder.source):
        box = AnnotatedObject((0.0, 0.0, 1.0, 1.0), class_name, file.relative)
        placed = folder.source.taken(file, file.relative)
        read.append(AnnotatedImage(source_id=file.relative, objects=(box,), boxes_are_normalized=True, **placed))
    if not read:
        raise DataError(f"{folder.path} has no folders of images named by their classes, at least two")
    return [Part(Annotations(read, numbered({item.class_name for image in read for item in image.objects})))]


def classes_of(folder: SourceFolder) -> list[tuple[str, SourceFile]]:
    """Returns (class name, image) for class folders, also below folders of splits; [] for other folders."""
    named = []
    paths = [(file, file.relative.split("/")[:-1]) for file in folder.files if not is_hidden(file.relative)]
    while paths and len({tuple(parts[:1]) for _, parts in paths}) == 1 and len(paths[0][1]) > 0:
        paths = [(file, parts[1:]) for file, parts in paths]  # a folder around the whole data set
    for file, parts in paths:
        parts = parts[1:] if parts and split_of_words(parts[0]) else parts
        if not parts or NEUTRAL_WORDS.issuperset(words_of(parts[0]) or [""]):
            return []
        named.append((parts[0], file))
    return named if len({name for name, _ in named}) > 1 else []


def _read_records(folder: Folder, files: list[str]) -> list[Part]:
    of_split: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for file in sorted(files):
        of_split[split_of_path(file)].append(folder.path / file)
    label_map = label_map_file(folder.source)
    names = load_label_map(label_map) if label_map else None
    return [Part(read_records(paths, names, folder.log), split) for split, paths in of_split.items()]


def label_map_file(folder: SourceFolder) -> pathlib.Path | None:
    """Returns the label map that lies next to records; None if there is none."""
    maps = [file for file in folder.others if file.relative.lower().endswith(".pbtxt") and not file.problem]
    of_labels = [file for file in maps if _ITEM.search(_ends_of(folder.path / file.relative))]
    by_depth = sorted(of_labels, key=lambda file: file.relative.count("/"))
    return folder.path / by_depth[0].relative if by_depth else None


class Format(NamedTuple):
    """A format of labels: its title in messages, the extensions of its files, and its reader."""

    title: str
    suffixes: tuple[str, ...]
    read: Callable[[Folder, list[str]], list[Part]]


FORMATS = {
    "coco": Format("COCO JSON", (".json",), _read_coco),
    "voc": Format("Pascal VOC XML", (".xml",), functools.partial(_read_whole, read_voc)),
    "yolo": Format("YOLO text files", (".txt",), _read_yolo),
    "csv": Format("CSV", (".csv",), functools.partial(_read_files, read_csv)),
    "open_images": Format("Open Images CSV", (".csv",), _read_open_images),
    "labelme": Format("labelme JSON", (".json",), functools.partial(_read_whole, read_labelme)),
    "cvat": Format("CVAT XML for images", (".xml",), functools.partial(_read_files, read_cvat)),
    "label_studio": Format("Label Studio JSON", (".json",), functools.partial(_read_files, read_label_studio)),
    "records": Format("TFRecords", (".tfrecord", ".tfrecords", ".record", ".records"), _read_records),
    "classes": Format("class folders of images (two or more)", IMAGE_SUFFIXES, _read_classes),
}


def formats_in(folder: Folder) -> dict[str, list[str]]:
    """Returns the label files of each format, by-products left out."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for file in folder.source.others:
        if file.problem or is_hidden(file.relative):
            continue
        kind = _SNIFFERS.get(posixpath.splitext(file.relative)[1].lower(), lambda _text: "")
        is_records = RECORD_FILE.search(file.relative)
        name = "records" if is_records else kind(_ends_of(folder.path / file.relative))
        if name:
            found[name].append(file.relative)
    if len(found) > 1:
        found.pop("records", None)  # made from the annotations
    if not found and classes_of(folder.source):
        found["classes"] = [file.relative for file in folder.source.files]
    names = class_name_file(folder.source)
    if not found and names:
        found["yolo"].append(names)
    return dict(found)


def problem_of_labels(folder: Folder) -> str:
    """Returns why the first file that could have labels has none; "" without such a file."""
    for file in (file for file in folder.source.others if not file.problem):
        suffix = posixpath.splitext(file.relative)[1].lower()
        root = _ROOT_TAG.search(_ends_of(folder.path / file.relative)) if suffix == ".xml" else None
        if root and root[1].lower() in OTHER_XML:
            return f"{file.relative} is {OTHER_XML[root[1].lower()]}"
        try:
            if suffix in (".json", ".csv"):
                read = read_coco if suffix == ".json" else read_csv
                read(str(folder.path), str(folder.path / file.relative), IssueLog())
        except DataError as error:
            return str(error)
    return ""


def is_hidden(relative: str) -> bool:
    """Returns True for files of a hidden folder, or of that which macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in relative.split("/"))


def _ends_of(path: pathlib.Path) -> str:
    """Returns the first and the last bytes of a file as text; NULs of UTF-16 are dropped."""
    try:
        with open(path, "rb") as file:
            head = file.read(SNIFFED_BYTES)
            size = file.seek(0, 2)
            file.seek(max(size - SNIFFED_BYTES, len(head)))
            content = head + file.read()
    except OSError:
        return ""
    return content.replace(b"\0", b"").decode("utf-8", "replace").lstrip("\ufeff\ufffd \t\r\n")


def _kind_of_json(text: str) -> str:
    if text.startswith("["):
        return "label_studio" if _LABEL_STUDIO.search(text) else ""
    if re.search(r'"shapes"\s*:', text):
        return "labelme"
    return "coco" if sum(bool(re.search(key, text)) for key in _COCO_KEYS) >= 2 else ""


def _kind_of_xml(text: str) -> str:
    root = _ROOT_TAG.search(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return {"annotation": "voc", "annotations": "cvat"}.get(root[1].lower() if root else "", "")


def _kind_of_csv(text: str) -> str:
    heading = text.partition("\n")[0].lower()
    if "maskpath" in heading:  # masks of Open Images, as files
        return ""
    try:
        table_of(text.split("\n"), "")
    except DataError:
        return ""
    return "open_images" if "imageid" in heading and "labelname" in heading else "csv"


def _kind_of_text(text: str) -> str:
    return "yolo" if _YOLO_LINE.fullmatch(text.partition("\n")[0]) else ""


_SNIFFERS = {".json": _kind_of_json, ".xml": _kind_of_xml, ".csv": _kind_of_csv, ".txt": _kind_of_text}


def class_name_file(folder: SourceFolder) -> str | None:
    """Returns the file with the class names of YOLO labels: a YAML file with ``names``, or a text file."""
    files = sorted((file.relative for file in folder.others if not file.problem), key=lambda name: name.count("/"))
    for file in files:
        if file.lower().endswith(YAML_SUFFIXES) and re.search(
            r"^names\s*:", _ends_of(folder.path / file), re.MULTILINE
        ):
            return file
    by_name = [file for name in CLASS_NAME_FILES for file in files if posixpath.basename(file).lower() == name]
    return next(iter(by_name or [file for file in files if file.lower().endswith(".names")]), None)
