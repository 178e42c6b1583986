"""The formats of labels: how the files of each are recognized by their content, and how a folder of them is read.

Flow: ``recognize`` -> ``formats_in`` -> a reader of ``FORMATS`` -> Annotations per file or folder.
"""

from __future__ import annotations

import collections
import pathlib
import posixpath
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from detzoo.datasets.annotations import Annotations
from detzoo.datasets.import_coco import read_coco
from detzoo.datasets.import_csv import read_csv, table_of
from detzoo.datasets.import_voc import read_voc
from detzoo.datasets.import_yolo import read_yolo
from detzoo.datasets.source_folder import SourceFolder
from detzoo.datasets.split_names import YAML_SUFFIXES, split_of_folders, split_of_path
from detzoo.errors import DataError
from detzoo.files.issues import IssueLog

SNIFFED_BYTES = 65_536  # from both ends of a file
CLASS_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt", "labels.txt", "predefined_classes.txt")
_RECORD_FILE = re.compile(r"\.(tfrecords?|records?)(-\d+-of-\d+)?$", re.IGNORECASE)
_YOLO_LINE = re.compile(r"\s*\d+(\.0+)?(\s+[-+]?[\d.]+(e[-+]?\d+)?){4,}\s*", re.IGNORECASE)
_NAMES_KEY = re.compile(r"^names\s*:", re.MULTILINE)
_ROOT_TAG = re.compile(r"<([a-z_][\w.-]*)", re.IGNORECASE)
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
    # Captions, keypoints and stuff of the same images have files of their own.
    instances = [file for file in files if posixpath.basename(file).startswith("instances")]
    options: dict[str, Any] = {"include_masks": folder.include_masks, "follow_links": folder.follow_links}
    return [
        Part(read_coco(folder.images_dir(file), str(folder.path / file), folder.log, **options), split_of_path(file))
        for file in instances or files
    ]


def _read_csv(folder: Folder, files: list[str]) -> list[Part]:
    return [
        Part(
            read_csv(folder.images_dir(file), str(folder.path / file), folder.log, follow_links=folder.follow_links),
            split_of_path(file),
        )
        for file in files
    ]


def _read_voc(folder: Folder, _files: list[str]) -> list[Part]:
    path = str(folder.path)
    return [Part(read_voc(path, path, folder.log, follow_links=folder.follow_links))]


def _read_yolo(folder: Folder, _files: list[str]) -> list[Part]:
    names = class_name_file(folder.source)
    if names is None:
        raise DataError(
            f"{folder.path} has YOLO labels but no class names; put a data.yaml with `names:` or a classes.txt with"
            " one name per line into the folder"
        )
    path = str(folder.path)
    return [
        Part(
            read_yolo(path, path, str(folder.path / names), folder.log, follow_links=folder.follow_links, is_mixed=True)
        )
    ]


class Format(NamedTuple):
    """A format of labels: its title in messages, the extensions of its files, and its reader."""

    title: str
    suffixes: tuple[str, ...]
    read: Callable[[Folder, list[str]], list[Part]]


FORMATS = {
    "coco": Format("COCO JSON", (".json",), _read_coco),
    "voc": Format("Pascal VOC XML", (".xml",), _read_voc),
    "yolo": Format("YOLO text files", (".txt",), _read_yolo),
    "csv": Format("CSV", (".csv",), _read_csv),
}


def formats_in(folder: Folder) -> dict[str, list[str]]:
    """Returns the label files of each format, by-products left out."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for file in folder.source.others:
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in file.relative.split("/"))
        if file.problem or is_hidden:
            continue
        kind = _SNIFFERS.get(posixpath.splitext(file.relative)[1].lower(), lambda _text: "")
        name = kind(_ends_of(folder.path / file.relative))
        if name:
            found[name].append(file.relative)
    if not found and class_name_file(folder.source):
        found["yolo"].append(class_name_file(folder.source) or "")
    return dict(found)


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
    if text.startswith("{") and sum(bool(re.search(key, text)) for key in _COCO_KEYS) >= 2:
        return "coco"
    return ""


def _kind_of_xml(text: str) -> str:
    root = _ROOT_TAG.search(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return {"annotation": "voc"}.get(root[1].lower() if root else "", "")


def _kind_of_csv(text: str) -> str:
    try:
        table_of(text, "")
    except DataError:
        return ""
    return "csv"


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
