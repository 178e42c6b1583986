"""Checks of ``image_folder_reader``: whether the folder is there, has folders of classes, and these have images."""

from __future__ import annotations

import os
from typing import Any

from detzoo.config.image_folders import IMAGE_SUFFIXES, class_folders, classes_without_images
from detzoo.config.paths import path_hint
from detzoo.config.problems import Findings, is_placeholder

_KIND = "image_folder_reader"


def check_image_folder(reader: Any, path: str, model_kind: str | None, findings: Findings, files: bool) -> None:
    """Adds what is wrong with the folder of a ``pb.InputReader``.

    Args:
        reader: of the kind image_folder_reader.
        path: of the reader.
        model_kind: field of the model that is chosen.
        findings: where problems go.
        files: whether the folder must exist.
    """
    here, folder = f"{path}.{_KIND}.path", reader.image_folder_reader.path
    if model_kind != "spp_classifier":
        text = "gives images without boxes, which only model.spp_classifier learns from; use tf_record_input_reader"
        findings.error(f"{path}.{_KIND}", text)
    elif not folder:
        findings.error(here, "is missing; give the folder that has one folder of images for each class")
    elif files and is_placeholder(folder):
        findings.to_set(here, "the folder that has one folder of images for each class")
    elif files:
        problem = folder_problem(folder)
        if problem:
            findings.error(here, problem)
        elif empty := classes_without_images(folder):
            shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
            findings.warning(here, f"{len(empty)} classes have no image: {shown}")


def folder_problem(folder: str) -> str:
    """Why a folder gives no images with classes, "" where it does."""
    if not os.path.isdir(folder):
        return f"there is no folder '{folder}'{path_hint(folder)}"
    if not class_folders(folder):
        return f"'{folder}' has no folders in it; put the images of each class into one, as in {folder}/dog/1.jpg"
    if len(classes_without_images(folder)) == len(class_folders(folder)):
        return f"no folder in '{folder}' has an image ({', '.join(IMAGE_SUFFIXES)})"
    return ""


def names_of_folders(reader: Any) -> dict[int, str]:
    """Id -> name of the classes that a folder reader without a label map says; empty where there are none."""
    folders = class_folders(reader.image_folder_reader.path)
    return {number: folder.name for number, folder in enumerate(folders, start=1)}


def check_folders_are_classes(reader: Any, path: str, names: dict[int, str], findings: Findings) -> None:
    """Adds the folder that no class of the label map bears the name of."""
    folders = [folder.name for folder in class_folders(reader.image_folder_reader.path)]
    unknown = sorted(set(folders) - set(names.values()))
    if unknown:
        known = ", ".join(sorted(names.values())[:5])
        text = f"has {len(unknown)} folders that the label map does not name, such as '{unknown[0]}'; it names {known}"
        findings.error(f"{path}.{_KIND}.path", text)
