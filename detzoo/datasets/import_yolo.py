"""YOLO label folders (one text file per image) -> Annotations.

``yolo_lines`` reads the numbers of a line. Class ids count from 0 and keep their order: label map id = class id + 1.
"""

from __future__ import annotations

import os
import pathlib
import posixpath
from typing import Any, NamedTuple

from detzoo.datasets.annotations import AnnotatedImage, Annotations, numbered
from detzoo.datasets.source_folder import SourceFile, SourceFolder
from detzoo.datasets.yolo_lines import YoloLine, layouts_of, object_of
from detzoo.errors import DataError
from detzoo.files.fields import as_id, as_name, as_number, shown
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.remote import local_file
from detzoo.files.text_files import parse_yaml, read_lines, read_named_text


class YoloClasses(NamedTuple):
    """Class names in the order of their ids; ``kpt_shape`` of a data.yaml is (keypoints, numbers per keypoint)."""

    names: list[str]
    keypoints: tuple[int, int] | None = None
    from_yaml: bool = False


def read_yolo(
    images_dir: str,
    labels_dir: str,
    class_names: str,
    log: IssueLog,
    *,
    follow_links: bool = False,
    is_mixed: bool = False,
) -> Annotations:
    """Reads all images below a folder and, for each, the text file at the same place below the labels folder.

    An image without a text file has no objects.

    Args:
        images_dir: Folder of the images, or a text file in that folder or above it with one image path per line.
        labels_dir: Folder of the text files.
        class_names: A text file with one name per line, or an Ultralytics data.yaml.
        log, follow_links: As in ``read_coco``.
        is_mixed: Both folders are the folder of a whole data set. Text files lie next to their images, or in a folder
            "labels" in place of "images". Images of folders without any text file are not read.

    Raises:
        UsageError: A folder or file is not there.
        DataError: The folder has no image, no image has a text file, or the class names cannot be read.
    """
    listed = pathlib.Path(images_dir) if os.path.isfile(images_dir) else None
    folder = listed.parent if listed else images_dir
    images = SourceFolder(folder, "--images_dir", IMAGE_SUFFIXES, log, follow_links=follow_links)
    labels = SourceFolder(labels_dir, "--labels_dir", (".txt",), log, follow_links=follow_links)
    classes = read_class_names(class_names, log)
    if listed:
        lines = read_lines(listed, "--images_dir", log)
        placed = [images.place(line, f"{listed.name}:{number}") for number, line in lines]
    else:
        placed = [images.taken(file, file.relative) for file in images.files]
    if not placed:
        raise DataError(
            f"--images_dir {images_dir} has no image; known extensions are {' '.join(IMAGE_SUFFIXES)}. Links to folders"
            " outside are read with --follow_links"
        )
    found: list[tuple[dict[str, Any], list[YoloLine]]] = []
    names = [place["filename"] for place in placed]
    files = (
        _mixed_labels(names, labels) if is_mixed else [_labels_of(name, labels, listed is not None) for name in names]
    )
    used = set(files)
    with_labels = {posixpath.dirname(place["filename"]) for place, file in zip(placed, files) if file}
    for place, file in zip(placed, files):
        if is_mixed and posixpath.dirname(place["filename"]) not in with_labels:
            continue
        lines_of_image = _lines(file, labels, classes.names, log)
        if lines_of_image is not None:
            found.append((place, lines_of_image))
    label_folders = {posixpath.dirname(file.relative) for file in used if file}
    unused = [file for file in labels.files if file not in used and not f"/{file.relative}".endswith("/classes.txt")]
    if not any(used):
        if is_mixed:
            raise DataError(
                f"{images_dir} has {len(placed)} images, but no label file with the name of any of them; label files"
                " lie next to the images, or in a folder 'labels' in place of 'images'"
            )
        raise DataError(
            f"--labels_dir {labels_dir} has no text file for any of {len(placed)} images in {images_dir};"
            f" {pathlib.Path(labels_dir, placed[0]['filename']).with_suffix('.txt')}, for one, is not there"
        )
    for file in unused:
        if not is_mixed or posixpath.dirname(file.relative) in label_folders:
            log.add(DataIssue.ANNOTATION_WITHOUT_IMAGE, file.relative)
    layouts = layouts_of([line for _, of_image in found for line in of_image], classes.keypoints, classes.from_yaml)
    read = [
        AnnotatedImage(
            source_id=place["filename"],
            objects=tuple(filter(None, (object_of(line, layouts, log) for line in of_image))),
            boxes_are_normalized=True,
            **place,
        )
        for place, of_image in found
    ]
    return Annotations(read, numbered(classes.names))


def _labels_of(name: str, labels: SourceFolder, by_tail: bool) -> SourceFile | None:
    """Returns the text file of an image; for a listed image its path may begin with further folders."""
    parts = name.split("/")
    tails = ("/".join(parts[first:]) for first in range(len(parts) if by_tail else 1))
    return next(filter(None, map(labels.at, tails)), None)


def _mixed_labels(names: list[str], labels: SourceFolder) -> list[SourceFile | None]:
    """Returns the text file of each image in a folder of both.

    It lies next to the image or in "labels" in place of the last "images" of its path. A file that is no image's by
    this rule may lie in a folder "labels" in place of the image's folder, in it, or around it.
    """
    exact: list[SourceFile | None] = []
    others: list[list[str]] = []
    for name in names:
        *folders, last = name.split("/")
        lowered = [folder.lower() for folder in folders]
        if "images" in lowered:
            at = len(folders) - 1 - lowered[::-1].index("images")
            swapped = "/".join([*folders[:at], "labels", *folders[at + 1 :], last])
        else:
            swapped = name
        exact.append(labels.at(name) or labels.at(swapped))
        others.append(["/".join(parts) for parts in ([*folders[:-1], "labels", last], [*folders, "labels", last])])
        others[-1].append(f"labels/{name}")
    used = set(exact)
    loose = [next((file for file in map(labels.at, each) if file and file not in used), None) for each in others]
    return [file or other for file, other in zip(exact, loose)]


def has_masks(annotations: Annotations) -> bool:
    """Returns True if any object has an outline."""
    return any(item.mask is not None for image in annotations.images for item in image.objects)


def read_class_names(path: str, log: IssueLog) -> YoloClasses:
    """Reads class names in the order of their ids from a text file or an Ultralytics data.yaml.

    Raises:
        UsageError: The file is not there.
        DataError: It has no names, ids have gaps, or a name occurs twice.
    """
    file = local_file(path, "--class_names")
    text = read_named_text(file, "--class_names", log)
    classes = YoloClasses([as_name(line) for line in text.rstrip().split("\n")])
    if file.suffix.lower() in (".yaml", ".yml"):
        classes = _classes_of_yaml(text, path)
    first_ids: dict[str, int] = {}
    for index, name in enumerate(classes.names):
        if not name and len(classes.names) > 1:
            raise DataError(f"{path}: class {index} has an empty name")
        if first_ids.setdefault(name, index) != index:
            raise DataError(f"{path}: {shown(name)} is the name of class {first_ids[name]} and of class {index}")
    if not any(classes.names):
        raise DataError(f"{path} has no class names; one per line, or `names:` in a data.yaml, is needed")
    return classes


def _classes_of_yaml(text: str, path: str) -> YoloClasses:
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    content = content if isinstance(content, dict) else {}
    names: Any = content.get("names")
    if isinstance(names, list) and names and all(isinstance(item, dict) for item in names):  # - 0: cat
        names = {key: name for item in names for key, name in item.items()}
    if isinstance(names, dict):
        by_id = {as_id(key): name for key, name in names.items()}
        if set(by_id) != set(range(len(names))):
            ids = shown([as_id(key) for key in names])
            raise DataError(f"{path} has the ids {ids} in `names:`; 0 to {len(names) - 1} without gaps are needed")
        names = [by_id[index] for index in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} has no `names:` with a list or with ids and names")
    return YoloClasses([as_name(name) for name in names], _keypoints(content.get("kpt_shape"), path), True)


def _keypoints(value: Any, path: str) -> tuple[int, int] | None:
    if value is None:
        return None
    shape = [as_id(item) for item in value] if isinstance(value, list) else []
    count, numbers = (*shape, None, None)[:2]
    if len(shape) == 2 and isinstance(count, int) and count > 0 and isinstance(numbers, int) and numbers in (2, 3):
        return count, numbers
    raise DataError(f"{path}: kpt_shape is {shown(value)}; [keypoints, 2] or [keypoints, 3] is needed")


def _lines(file: SourceFile | None, labels: SourceFolder, names: list[str], log: IssueLog) -> list[YoloLine] | None:
    """Returns the lines of one text file, [] without a file, None if it cannot be read."""
    if file is None:
        return []
    try:
        text = labels.read_text(file)
    except (OSError, ValueError) as error:
        log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, file.relative, str(error))
        return None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return [read for number, line in lines if (read := _line(line, f"{file.relative}:{number}", names, log))]


def _line(line: str, where: str, names: list[str], log: IssueLog) -> YoloLine | None:
    try:
        first, *values = (as_number(word) for word in line.split())
    except ValueError:
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"not numbers: {line.strip()[:40]}")
        return None
    if not first.is_integer():
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"class {first:g} is not a whole number")
        return None
    if not 0 <= first < len(names):
        log.add(DataIssue.CLASS_WITHOUT_NAME, where, f"class {first:g} of {len(names)}")
        return None
    return YoloLine(where, names[int(first)], values)
