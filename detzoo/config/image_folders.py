"""Folders of image files, ``path/CLASS NAME/any/file.jpg``: their classes and files (no TensorFlow here)."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

from detzoo.config.label_map import LabelMap

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def class_folders(path: str | pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders inside, sorted by name, without hidden ones; empty if ``path`` is no folder."""
    folder = pathlib.Path(path)
    if not os.path.isdir(folder):
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def images_by_class(path: str | pathlib.Path) -> dict[str, list[str]]:
    """Returns class name -> its image files, sorted, with those of folders inside; classes in the order of names."""
    return {folder.name: sorted(str(file) for file in _images_in(folder)) for folder in class_folders(path)}


def classes_without_images(path: str | pathlib.Path) -> list[str]:
    """Returns the classes whose folder has no image file. The search in a folder ends at its first image."""
    return [folder.name for folder in class_folders(path) if next(_images_in(folder), None) is None]


def _images_in(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def label_map_of_folders(path: str | pathlib.Path) -> LabelMap:
    """Returns ids from 1 in the order of the folders' names."""
    return LabelMap({number: folder.name for number, folder in enumerate(class_folders(path), start=1)})
