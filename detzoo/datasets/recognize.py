"""Recognizes the labels in a folder by their content: format, splits, class names.

Flow: folder -> ``recognize`` -> ``Recognized`` -> ``splits.draw`` if the folder has no splits -> ``write_records``.

    recognized = recognize("my_data")                    # or recognize("my_data", "voc")
    print(recognized.description)
    recognized = splits.draw(recognized, 0.2, seed=0)    # unchanged if the folder has splits
    results = write_records(recognized, "records/my")    # records/my-train-00000-of-00001.tfrecord, ...

``recognized.splits`` has the annotations of each split, "train", "val" and "test", or of "all" if the folder has none.
Images are not read before ``splits.draw`` and ``write_records``. ``recognized.log`` has the data issues. Records
(format "records") can be written, too: they are copied byte for byte.
"""

from __future__ import annotations

import collections
import os
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from detzoo.config.names import suggestion
from detzoo.datasets.annotations import AnnotatedImage, Annotations, numbered
from detzoo.datasets.conversion import ConversionResult, SplitWriter, convert_splits, write_here
from detzoo.datasets.formats import (
    FORMATS,
    RECORD_FILE,
    Folder,
    Part,
    class_name_file,
    formats_in,
    is_hidden,
    problem_of_labels,
)
from detzoo.datasets.source_folder import SourceFolder
from detzoo.datasets.split_names import ALL, SPLIT_WORDS, TEST, TRAIN, VAL, listed_splits, split_of_folders
from detzoo.errors import DataError, UsageError
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog

RECORDS = "records"
WITH_IMAGES = (RECORDS, "labelme")  # formats whose files may have the images inside
MAX_LISTED = 8  # classes in a sentence


class Recognized(NamedTuple):
    """The labels of a folder."""

    format: str  # a name of ``FORMATS``
    description: str  # text that states the format, its files and its splits
    # Annotations by the name of the split, see the module's docstring. All have the same class names.
    splits: dict[str, Annotations]
    class_names: dict[int, str]  # class name by id from 1; gaps are allowed
    log: IssueLog  # data issues found while reading; the conversion adds more


def recognize(
    folder: str | pathlib.Path,
    format: str | None = None,
    *,
    flag: str = "DIR",
    follow_links: bool = False,
    include_masks: bool = False,
    expand_hierarchy: bool = False,
) -> Recognized:
    """Finds the labels of a folder and reads them.

    Args:
        folder: Path of the folder, which also has the images.
        format: A name of ``FORMATS``; by default the content decides.
        flag: Name of the folder's flag, for messages.
        follow_links: Read images and annotations that are links out of the folder.
        include_masks: Read polygons and run lengths of COCO files as well.
        expand_hierarchy: Give Open Images' objects the classes above theirs, too.

    Raises:
        UsageError: The folder is not there, the format is unknown, or several formats fit.
        DataError: No labels were found, or they cannot be read.
    """
    if "://" in os.fspath(folder):
        raise UsageError(
            f"{flag} {folder} is on another file system, from which `detzoo dataset coco|voc|yolo|csv` import; copy it"
        )
    path, log = pathlib.Path(folder), IssueLog()
    wanted = re.sub(r"[^a-z]", "", (format or "").lower())  # "Label-Studio", "labelstudio"
    format = next((name for name in FORMATS if name.replace("_", "") == wanted), format)
    if format is not None and format not in FORMATS:
        raise UsageError(
            f"--format {format} is unknown{suggestion(format, FORMATS)}; the formats are {', '.join(FORMATS)}"
        )
    index = SourceFolder(path, flag, IMAGE_SUFFIXES, IssueLog(), follow_links=follow_links)
    read_from = Folder(index, log, follow_links, include_masks, expand_hierarchy)
    found = formats_in(read_from)
    chosen = format or _only_format(found, read_from, flag)
    candidates = (file.relative for file in (*index.others, *index.files) if not file.problem)
    files = found.get(chosen) or [file for file in candidates if file.lower().endswith(FORMATS[chosen].suffixes)]
    if not files:
        raise DataError(f"{flag} {path} has no {FORMATS[chosen].title}; {_looked_for(index)}")
    if not index.files and chosen not in WITH_IMAGES:
        raise DataError(
            f"{flag} {path} has {FORMATS[chosen].title} (such as {files[0]}), but no image; put both into it"
        )
    parts = FORMATS[chosen].read(read_from, files)
    splits = _splits(parts, read_from)
    names = _common_names([part.annotations for part in parts])
    keypoint_names = {name: labels for part in parts for name, labels in part.annotations.keypoint_names.items()}
    if chosen != RECORDS:
        _log_unlabelled(parts, read_from)
    counts = ", ".join(f"{name} {len(images)} images" for name, images in splits.items())
    such_as = files[0] if len(files) == 1 else f"{len(files)} files, such as {files[0]}"
    records = [file.relative for file in index.others if chosen != RECORDS and RECORD_FILE.search(file.relative)]
    such_as += f"; not the records, such as {records[0]}" if records else ""
    return Recognized(
        chosen,
        f"{FORMATS[chosen].title} ({such_as}); {counts if list(splits) != [ALL] else counts[4:] + ', no splits'}",
        {name: Annotations(images, names, keypoint_names) for name, images in splits.items()},
        names,
        log,
    )


def write_records(
    recognized: Recognized,
    output_prefix: str,
    *,
    num_shards: int = 1,
    label_map_path: str | None = None,
    strict: bool = False,
    with_masks: bool = False,
    write: SplitWriter = write_here,
) -> dict[str, ConversionResult]:
    """Writes one record set per split, and ``label_map.pbtxt`` in the same folder; all or nothing.

    Args:
        recognized: Labels of a folder.
        output_prefix: Path of the shards up to the name of the split: "records/my" becomes
            "records/my-train-00000-of-00001.tfrecord", a folder such as "records/" becomes "records/train-...".
            Without splits the shards have the prefix itself.
        num_shards, label_map_path, strict, with_masks, write: As in ``convert_splits``.

    Returns:
        The result of each split.

    Raises:
        DataError, UsageError: As in ``convert_splits``.
    """
    results = convert_splits(
        {prefix_of_split(output_prefix, name): part for name, part in recognized.splits.items()},
        num_shards=num_shards,
        label_map_path=label_map_path,
        strict=strict,
        with_masks=with_masks,
        log=recognized.log,
        write=write,
    )
    return dict(zip(recognized.splits, results))


def prefix_of_split(output_prefix: str, split: str) -> str:
    """Returns the prefix of the shards of one split, see ``write_records``."""
    if output_prefix.endswith("/") or pathlib.Path(output_prefix).is_dir():
        return f"{output_prefix.rstrip('/')}/{split}"
    return output_prefix if split == ALL else f"{output_prefix}-{split}"


def _only_format(found: dict[str, list[str]], folder: Folder, flag: str) -> str:
    if len(found) == 1:
        return next(iter(found))
    if not found:
        reason = problem_of_labels(folder)
        raise DataError(f"{flag} {folder.path} has no labels of a known format; {reason or _looked_for(folder.source)}")
    listed = " and ".join(f"{FORMATS[name].title} (such as {files[0]})" for name, files in found.items())
    choice = " or ".join(f"--format {name}" for name in found)
    raise UsageError(f"{flag} {folder.path} has labels in {len(found)} formats: {listed}; choose one by {choice}")


def _looked_for(index: SourceFolder) -> str:
    known = ", ".join(form.title for form in FORMATS.values())
    return f"it has {len(index.files)} images and {len(index.others)} other files; known are {known}"


def _splits(parts: list[Part], folder: Folder) -> dict[str, list[AnnotatedImage]]:
    """Returns the images of each split, {"all": ...} without splits."""
    listed = listed_splits(folder.source, class_name_file(folder.source))
    of_split: dict[str, list[AnnotatedImage]] = {TRAIN: [], VAL: [], TEST: [], "": []}
    for part in parts:
        for image in part.annotations.images:
            relative = image.filename if image.unusable else image.path.relative_to(folder.path).as_posix()
            stated = SPLIT_WORDS.get(image.subset.strip().lower(), "")
            split = stated or listed.get(image.path, "") or part.split or split_of_folders(relative.rpartition("/")[0])
            of_split[split].append(image)
    none = of_split.pop("")
    splits = {name: images for name, images in of_split.items() if images}
    if TRAIN not in splits or len(splits) == 1:
        splits, none = {ALL: [image for part in parts for image in part.annotations.images]}, []
    seen: set[pathlib.Path] = set()
    for image in (image for images in splits.values() for image in images if not image.unusable):
        if image.path in seen:
            folder.log.add(DataIssue.SAME_IMAGE, image.filename, "in two splits or annotation files")
        seen.add(image.path)
    for image in none:
        if image.unusable:
            splits[TRAIN].append(image)  # the conversion reports it
        elif image.path not in seen:
            folder.log.add(DataIssue.IN_NO_SPLIT, image.filename)
    return splits


def remarks(recognized: Recognized) -> list[str]:
    """Returns a sentence for each class with too few objects to learn or to evaluate it, and for a single image."""
    counts = {
        split: collections.Counter(item.class_name for image in part.images for item in image.objects)
        for split, part in recognized.splits.items()
    }
    total = sum(counts.values(), collections.Counter())
    to_learn = counts.get(TRAIN, total)
    num_images = sum(len(part.images) for part in recognized.splits.values())
    sentences = ["the data set has one image only; a detector needs some dozens per class"] if num_images == 1 else []
    single = [name for name in recognized.class_names.values() if total[name] == 1]
    if single:
        sentences.append(f"with one object only, a class cannot be both learned and evaluated: {_listed(single)}")
    unlearned = [name for name in recognized.class_names.values() if total[name] > 1 and not to_learn[name]]
    if unlearned:
        sentences.append(f"without an object in the split train, a class cannot be learned: {_listed(unlearned)}")
    return sentences


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _common_names(parts: Iterable[Annotations]) -> dict[int, str]:
    """Returns the class names of all parts: with their ids if the parts agree, else numbered in alphabetical order."""
    items = {item for part in parts for item in part.class_names.items()}
    names = {name for _, name in items}
    return dict(sorted(items)) if len(dict(items)) == len(items) == len(names) else numbered(names)


def _log_unlabelled(parts: list[Part], folder: Folder) -> None:
    read = {image.path for part in parts for image in part.annotations.images}
    for image in folder.source.files:
        if not image.problem and not is_hidden(image.relative) and folder.path / image.relative not in read:
            folder.log.add(DataIssue.UNLABELLED, image.relative)
