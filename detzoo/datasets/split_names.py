"""Splits that a data set states: by its folders and file names, a data.yaml, or lists of images."""

from __future__ import annotations

import pathlib
import posixpath
import re

from detzoo.datasets.source_folder import SourceFolder
from detzoo.errors import DataError
from detzoo.files.issues import IssueLog
from detzoo.files.text_files import parse_yaml, read_lines, read_text

TRAIN, VAL, TEST, ALL = "train", "val", "test", "all"
# Words of folders, files and subsets that name a split.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validate", "validation", "eval", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
# Words that a folder or list of a split may have besides; a folder of these words alone is no class.
_IMAGES = ("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "frame", "frames")
_LABELS = ("label", "labels", "annotation", "annotations", "mask", "masks")
NEUTRAL_WORDS = {*_IMAGES, *_LABELS, "data", "dataset", "obj", "set", "split", "list", "files", "coco", "voc", "yolo"}
YAML_SUFFIXES = (".yaml", ".yml")
LISTED_PART = 0.5  # of the lines of a list of images that name an image of the folder
_WORD = re.compile(r"[a-z]+")


def listed_splits(folder: SourceFolder, class_names: str | None) -> dict[pathlib.Path, str]:
    """Returns the splits that a data.yaml or lists of images state, by the paths of the images.

    Args:
        folder: The folder, whose ``files`` are the images.
        class_names: File with the class names of YOLO labels, which counts if it is YAML, or None.
    """
    listed: dict[pathlib.Path, str] = {}
    if class_names and class_names.lower().endswith(YAML_SUFFIXES):
        listed.update(_listed_by_yaml(folder, class_names))
    stems = {posixpath.splitext(image.relative)[0] for image in folder.files}
    # A trainval.txt comes last: train.txt and val.txt are more precise. VOC's lists for detection are in Main.
    texts = [file.relative for file in folder.others if not file.problem]
    lists = [file for file in texts if file.lower().endswith(".txt")]
    for file in sorted(lists, key=lambda name: ("trainval" in name, "/Main/" not in name)):
        stem = posixpath.splitext(file)[0]
        split = split_of_words(posixpath.basename(stem))
        if split and stem not in stems:
            for image in _images_of_list(folder, file):
                listed.setdefault(image, split)
    return listed


def _images_of_list(folder: SourceFolder, file: str) -> list[pathlib.Path]:
    """Returns the images that the lines of a text file name; none if less than ``LISTED_PART`` of the lines do."""
    try:
        lines = [line for _, line in read_lines(folder.path / file, "", IssueLog())]
    except DataError:
        return []
    images, num_found = [], 0
    for line in lines:
        name, _, flag = line.rpartition(" ")
        found = folder.find(name.strip() if name and flag in ("1", "0", "-1") else line)
        images += [folder.path / image.relative for image in found]  # masks have the image's name, too
        num_found += bool(found)
    return images if num_found >= LISTED_PART * len(lines) else []


def _listed_by_yaml(folder: SourceFolder, names: str) -> dict[pathlib.Path, str]:
    try:
        content = parse_yaml(read_text(folder.path / names, names, IssueLog()))
    except (OSError, ValueError):
        return {}  # the reader of class names reports it
    content = content if isinstance(content, dict) else {}
    base = posixpath.dirname(names)
    root = content.get("path") if isinstance(content.get("path"), str) else ""
    listed: dict[pathlib.Path, str] = {}
    for split in (TRAIN, VAL, TEST):
        stated = content.get(split)
        for entry in [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []:
            for image in _images_of_entry(folder, base, root or "", str(entry)):
                listed.setdefault(image, split)
    return listed


def _images_of_entry(folder: SourceFolder, base: str, root: str, stated: str) -> list[pathlib.Path]:
    """Returns the images of a folder or list that a data.yaml names, maybe by a path of another machine."""
    tail = [part for part in f"{root}/{stated}".replace("\\", "/").split("/") if part not in ("", ".", "..")]
    others = {file.relative for file in folder.others if not file.problem}
    for first in range(len(tail)):
        for start in (f"{base}/" if base else "", ""):
            name = start + "/".join(tail[first:])
            if name in others:
                return _images_of_list(folder, name)
            inside = [image for image in folder.files if image.relative.startswith(f"{name}/")]
            if inside:
                return [folder.path / image.relative for image in inside]
    return []


def words_of(name: str) -> list[str]:
    """Returns the words of a name in lower case, without digits and marks."""
    return _WORD.findall(name.lower())


def split_of_words(name: str) -> str:
    """Returns the split of a name that has no other words than those of splits and neutral ones, else ""."""
    words = words_of(name)
    splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    return splits[0] if splits and all(word in SPLIT_WORDS or word in NEUTRAL_WORDS for word in words) else ""


def split_of_folders(folder: str) -> str:
    """Returns the split that the first such folder of a path names, else ""."""
    return next(filter(None, map(split_of_words, folder.split("/"))), "")


def split_of_path(file: str) -> str:
    """Returns the split of an annotation file: that of a folder, or a word of its name."""
    words = words_of(posixpath.basename(file))
    return split_of_folders(posixpath.dirname(file)) or next((SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS), "")
