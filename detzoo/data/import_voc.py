"""Pascal VOC annotation folders (one XML file an image) -> Annotations.

Coordinates go into the records as they are, divided by the image size, as the Object Detection API's own script does.
VOC counts pixels from 1, so its boxes lie up to one pixel low and right; records of both tools agree.
"""

from __future__ import annotations

import pathlib
import xml.etree.ElementTree as ElementTree
from xml.parsers import expat

from detzoo.data.annotations import IMAGE_SUFFIXES, AnnotatedImage, AnnotatedObject, Annotations, numbered
from detzoo.data.dirt import Dirt, DirtLog
from detzoo.errors import DataError, UsageError

LINE = "line"  # attribute that keeps the line of an element


def read_voc(images_dir: str, annotations_dir: str, log: DirtLog, *, image_set: str | None = None) -> Annotations:
    """Reads the XML files of a folder in the order of their names, or those that an image set lists, in its order.

    Args:
        images_dir: folder of the images.
        annotations_dir: folder of the XML files.
        log: takes files and objects that cannot be read.
        image_set: a file with one image name a line, extension optional; VOC's second column (1, 0, -1) is ignored.

    Raises:
        UsageError: a folder or the image set is not there.
        DataError: the folder has no XML file.
    """
    images, annotations = pathlib.Path(images_dir), pathlib.Path(annotations_dir)
    for flag, folder in (("--images_dir", images), ("--annotations_dir", annotations)):
        if not folder.is_dir():
            raise UsageError(f"{flag} {folder} is not a folder")
    by_stem = images_by_stem(images)
    read = []
    for path, listed_at in _annotation_files(annotations, image_set):
        if not path.is_file():
            log.add(Dirt.ANNOTATION_MISSING, listed_at, str(path.name))
            continue
        try:
            root = parse_with_lines(path)
        except (expat.ExpatError, OSError, ValueError, LookupError) as error:
            line = getattr(error, "lineno", None)
            log.add(Dirt.ANNOTATION_FILE_UNREADABLE, f"{path.name}:{line}" if line else path.name, str(error))
            continue
        read.append(_image(root, path, images, by_stem, log))
    names = {item.class_name for image in read for item in image.objects}
    return Annotations(read, numbered(names))


def images_by_stem(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Image files of a folder by their name without extension; the first in order of name where several share it."""
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(path.stem, path)
    return found


def parse_with_lines(path: pathlib.Path) -> ElementTree.Element:
    """Parses an XML file; every element gets an attribute ``line``.

    Raises:
        expat.ExpatError: the file is not well-formed; has ``lineno``.
        ValueError, LookupError: its declared encoding is not known.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(path.read_bytes(), True)
    return builder.close()


def _annotation_files(folder: pathlib.Path, image_set: str | None) -> list[tuple[pathlib.Path, str]]:
    """(XML file, where it is asked for)."""
    if image_set is None:
        paths = sorted(folder.glob("*.xml"))
        if not paths:
            raise DataError(f"--annotations_dir {folder} has no .xml file")
        return [(path, path.name) for path in paths]
    try:
        lines = pathlib.Path(image_set).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--image_set {image_set} cannot be read: {error}") from None
    files = []
    for number, line in enumerate(lines, start=1):
        name, _, flag = line.strip().rpartition(" ")
        name = name.strip() if name and flag in ("1", "0", "-1") else line.strip()
        if not name:
            continue
        if pathlib.PurePath(name).suffix.lower() in (*IMAGE_SUFFIXES, ".xml"):
            name = str(pathlib.PurePath(name).with_suffix(""))
        files.append((folder / f"{name}.xml", f"{image_set}:{number}"))
    return files


def _image(
    root: ElementTree.Element,
    path: pathlib.Path,
    images: pathlib.Path,
    by_stem: dict[str, pathlib.Path],
    log: DirtLog,
) -> AnnotatedImage:
    stated = (root.findtext("filename") or "").strip() or path.stem
    name = pathlib.PurePosixPath(stated.replace("\\", "/")).name
    image_path = images / name
    if not image_path.is_file():
        # Extensions are often missing or wrong in the element, and files renamed together with their annotation.
        by_name = by_stem.get(name) or by_stem.get(pathlib.PurePath(name).stem)
        by_annotation = by_stem.get(path.stem)
        if by_name is None and by_annotation is not None:
            log.add(Dirt.WRONG_FILENAME, path.name, f"filename is {name}")
        image_path = by_name or by_annotation or image_path
    objects = []
    for element in root.findall("object"):
        item = _object(element, path, log)
        if item is not None:
            objects.append(item)
    return AnnotatedImage(
        path=image_path,
        filename=image_path.name,
        source_id=image_path.name,
        objects=tuple(objects),
        declared_size=_size(root),
    )


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Stated (height, width); None where it is absent or, as some tools write it, 0 x 0."""
    try:
        height, width = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(element: ElementTree.Element, path: pathlib.Path, log: DirtLog) -> AnnotatedObject | None:
    where = f"{path.name}:{element.get(LINE)}"
    name = (element.findtext("name") or "").strip()
    if not name:
        log.add(Dirt.CLASS_WITHOUT_NAME, where, "object without a name")
        return None
    values = [element.findtext(f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")]
    try:
        ymin, xmin, ymax, xmax = (float(value or "") for value in values)
    except ValueError:
        log.add(Dirt.ANNOTATION_UNREADABLE, where, f"bndbox (ymin, xmin, ymax, xmax) is {values}")
        return None
    return AnnotatedObject(
        box=(ymin, xmin, ymax, xmax),
        class_name=name,
        where=where,
        is_difficult=_flag(element, "difficult"),
        is_truncated=_flag(element, "truncated"),
        view=(element.findtext("pose") or "").strip(),
    )


def _flag(element: ElementTree.Element, name: str) -> bool:
    return (element.findtext(name) or "").strip().lower() in ("1", "true", "yes")
