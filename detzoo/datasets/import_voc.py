"""Pascal VOC annotation folders (one XML file per image) -> Annotations.

Coordinates are divided by the image size and otherwise unchanged, as in the Object Detection API's script. VOC counts
pixels from 1, so its boxes lie up to one pixel low and right; records of both tools agree. Objects with a polygon
(LabelMe) or an oriented box (roLabelImg) instead of a ``bndbox`` get the upright box around it. The detection data of
ILSVRC are VOC files whose classes are WordNet ids, with a list of their ids and names.
"""

from __future__ import annotations

import dataclasses
import posixpath
import xml.etree.ElementTree as ElementTree

from detzoo.data.record_keys import SIDES
from detzoo.datasets.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    box_of_polygons,
    box_of_rotated,
    numbered,
    polygons_of,
)
from detzoo.datasets.box_units import settle_box_units
from detzoo.datasets.source_folder import SourceFile, SourceFolder
from detzoo.errors import DataError
from detzoo.files.fields import as_flag, as_name, as_number, as_size
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.remote import local_file
from detzoo.files.text_files import LINE, MalformedXml, parse_xml, read_lines

# Other files that end in .xml, by their root element.
OTHER_XML = {
    "annotations": "CVAT's own XML; export the task as Pascal VOC, or use `detzoo dataset import`",
    "dataset": "imglab's XML (dlib); convert it to Pascal VOC",
    "tagset": "the XML of the ICDAR 2003 text data sets",
}

Box = tuple[float, float, float, float]


def read_voc(
    images_dir: str,
    annotations_dir: str,
    log: IssueLog,
    *,
    image_set: str | None = None,
    synsets: str | None = None,
    follow_links: bool = False,
) -> Annotations:
    """Reads the XML files below a folder in the order of their names, or the files of an image set in its order.

    An image set is a file with one image name per line, extension optional; VOC's second column (1, 0, -1) is ignored,
    and with ``synsets`` any number there. ``synsets`` is ILSVRC's list of classes (map_det.txt), with lines such as
    "n02672831 1 accordion": WordNet id of the XML files, id, name. Other arguments are as in ``read_coco``.

    Raises:
        UsageError: A folder or a list is not there.
        DataError: The folder has no XML file, or a line of ``synsets`` cannot be read.
    """
    classes = _read_synsets(synsets, log) if synsets else {}
    images = SourceFolder(images_dir, "--images_dir", IMAGE_SUFFIXES, log, follow_links=follow_links)
    annotations = SourceFolder(annotations_dir, "--annotations_dir", (".xml",), log, follow_links=follow_links)
    read = []
    for file in _annotation_files(annotations, image_set, log, numbered_lines=bool(synsets)):
        try:
            root = parse_xml(annotations.read_text(file))
            if root.tag != "annotation":
                other = OTHER_XML.get(root.tag, f"XML of another kind, its root is <{root.tag[:40]}>")
                raise ValueError(f"a VOC file has the root <annotation>; this is {other}")
        except (OSError, ValueError) as error:
            where = f"{file.relative}:{error.lineno}" if isinstance(error, MalformedXml) else file.relative
            log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, where, str(error))
            continue
        read.append(_image(root, file.relative, images, log))
    read = settle_box_units(read, log)
    if classes:
        named = {wordnet_id: name for wordnet_id, (_, name) in classes.items()}
        return Annotations([_renamed(image, named) for image in read], dict(classes.values()))
    names = {item.class_name for image in read for item in image.objects}
    return Annotations(read, numbered(names))


def _read_synsets(path: str, log: IssueLog) -> dict[str, tuple[int, str]]:
    """Returns WordNet id -> id and name of each class."""
    classes = {}
    for number, line in read_lines(local_file(path, "--synsets"), "--synsets", log):
        words = line.split(maxsplit=2)
        if len(words) != 3 or not words[1].isdecimal() or int(words[1]) < 1:
            raise DataError(
                f"{path}:{number} is '{line[:60]}'; accepted: WordNet id, id from 1 and name, such as "
                "'n02672831 1 accordion'"
            )
        classes[words[0]] = (int(words[1]), words[2])
    return classes


def _renamed(image: AnnotatedImage, names: dict[str, str]) -> AnnotatedImage:
    objects = tuple(
        dataclasses.replace(item, class_name=names.get(item.class_name, item.class_name)) for item in image.objects
    )
    return dataclasses.replace(image, objects=objects)


def _annotation_files(
    folder: SourceFolder, image_set: str | None, log: IssueLog, numbered_lines: bool = False
) -> list[SourceFile]:
    if image_set is None:
        if not folder.files:
            raise DataError(f"--annotations_dir {folder.path} has no .xml file")
        return folder.files
    files = []
    for number, line in read_lines(local_file(image_set, "--image_set"), "--image_set", log):
        name, _, flag = line.rpartition(" ")
        is_flag = flag in ("1", "0", "-1") or (numbered_lines and flag.isdecimal())
        name = name.strip() if name and is_flag else line
        found = folder.find(name)
        if len(found) == 1:
            files.append(found[0])
        else:
            several = " and ".join(file.relative for file in found)
            log.add(DataIssue.ANNOTATION_MISSING, f"{image_set}:{number}", several or f"{name}: no such .xml")
    return files


def _image(root: ElementTree.Element, relative: str, images: SourceFolder, log: IssueLog) -> AnnotatedImage:
    stated = as_name(root.findtext("filename")) or as_name(root.findtext("path"))
    placed = images.place_by(relative, stated, *([f"{as_name(root.findtext('folder'))}/{stated}"] if stated else []))
    size = as_size(root.findtext("size/height"), root.findtext("size/width"))
    objects = [_object(element, f"{relative}:{element.get(LINE)}", log) for element in root.findall("object")]
    return AnnotatedImage(
        source_id=placed["filename"],
        objects=tuple(filter(None, objects)),
        subset=posixpath.basename(posixpath.dirname(relative)),
        declared_size=size or as_size(root.findtext("imagesize/nrows"), root.findtext("imagesize/ncols")),
        **placed,
    )


def _object(element: ElementTree.Element, where: str, log: IssueLog) -> AnnotatedObject | None:
    if as_flag(element.findtext("deleted"), where, log):  # LabelMe keeps what was removed
        return None
    name = as_name(element.findtext("name"))
    if not name:
        log.add(DataIssue.CLASS_WITHOUT_NAME, where, "object without a name")
        return None
    try:
        box = _box(element, where, log)
    except ValueError as error:
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, str(error))
        return None
    return AnnotatedObject(
        box=box,
        class_name=name,
        where=where,
        is_difficult=as_flag(element.findtext("difficult"), where, log),
        is_truncated=as_flag(element.findtext("truncated"), where, log),
        view=as_name(element.findtext("pose")),
    )


def _box(element: ElementTree.Element, where: str, log: IssueLog) -> Box:
    """Returns the box of an object, or the box around its polygon or oriented box; raises ValueError without one."""
    polygon = element.find("polygon")
    if element.find("bndbox") is None and polygon is not None:
        # LabelMe has <pt><x/><y/></pt>, Roboflow <x1/><y1/><x2/><y2/>.
        values = [item.text or "" for item in polygon.iter() if item.tag.rstrip("0123456789") in ("x", "y")]
        polygons, reasons = polygons_of(values)
        if not polygons:
            raise ValueError(f"no bndbox, and its polygon cannot be read: {'; '.join(reasons) or 'no points'}")
        log.add(DataIssue.BOX_OF_OUTLINE, where)
        return box_of_polygons(polygons)
    if element.find("bndbox") is None and element.find("robndbox") is not None:
        x, y, width, height, angle = _numbers(element, "robndbox", ("cx", "cy", "w", "h", "angle"))
        log.add(DataIssue.ORIENTED_BOX, where, f"angle {angle:g}")
        return box_of_rotated(x, y, width, height, angle)
    ymin, xmin, ymax, xmax = _numbers(element, "bndbox", SIDES)
    return ymin, xmin, ymax, xmax


def _numbers(element: ElementTree.Element, tag: str, names: tuple[str, ...]) -> list[float]:
    values = [element.findtext(f"{tag}/{name}") for name in names]
    try:
        return [as_number(value) for value in values]
    except ValueError:
        raise ValueError(f"{tag} ({', '.join(names)}) is {[value and value[:20] for value in values]}") from None
