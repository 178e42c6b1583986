"""``detzoo dataset coco|voc|yolo|csv|shapes|inspect``."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.cli.flags import define_font_flag
from detzoo.folders import make_folder

if TYPE_CHECKING:
    from detzoo.datasets.annotations import Annotations
    from detzoo.datasets.conversion import ConversionResult
    from detzoo.files.issues import IssueLog

SUMMARY = "Make TFRecords from COCO, VOC, YOLO or CSV annotations, or look into records."
DESCRIPTION = """
Each importer writes PREFIX-00000-of-000NN.tfrecord and, beside it, label_map.pbtxt: what input_path and label_map_path
of a pipeline.config name. Images become upright 8-bit RGB. What has one right answer is repaired, the rest is skipped,
and a table at the end says what, where and why; --strict makes an error of it, and so does an import without any
object. Nothing appears under its final name before all of it is written.

Images are found by name, also where the annotations state another machine's path; nothing outside of the named folders
is read. docs/datasets.md lists the dialects of each format.

    detzoo dataset coco --images_dir=val2017 --annotations_file=instances_val2017.json --output_path=records/val
    detzoo dataset inspect --input_path='records/val-*' --label_map=records/label_map.pbtxt --output_dir=look
"""
MAX_CLASSES_SHOWN = 20
MAX_NAME_SHOWN = 60  # characters of a class name
EXIT_TERMINATED = 143  # 128 + SIGTERM, as a shell reports it


class Coco:
    """``detzoo dataset coco``."""

    SUMMARY = "From a COCO instances file; category ids are kept."
    DESCRIPTION = """
    Reads a COCO instances JSON: polygons and run lengths become masks with --include_masks. An object without a box
    gets that of its outline. Where iscrowd is set on every object, --crowds_as_objects imports them as objects.

        detzoo dataset coco --images_dir=train2017 --annotations_file=instances_train2017.json \\
            --output_path=records/train --num_shards=32 --include_masks
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--images_dir, --annotations_file, --include_masks and what all importers take."""
        _define_path("images_dir", "Folder of the images; folders inside it are searched, too.", flag_values)
        _define_path("annotations_file", "The JSON file: images, annotations, categories.", flag_values)
        _define_output(flag_values)
        flags.DEFINE_bool("include_masks", False, "Write instance masks, too.", flag_values=flag_values)
        text = "Read annotations with iscrowd as single objects; training ignores crowds."
        flags.DEFINE_bool("crowds_as_objects", False, text, flag_values=flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads, converts, reports."""
        from detzoo.datasets.import_coco import read_coco
        from detzoo.files.issues import IssueLog

        log, with_masks = IssueLog(), flag_values.include_masks
        read = read_coco(
            flag_values.images_dir,
            flag_values.annotations_file,
            log,
            include_masks=with_masks,
            crowds_as_objects=flag_values.crowds_as_objects,
            follow_links=flag_values.follow_links,
        )
        _convert(read, flag_values, log, with_masks=with_masks)


class Voc:
    """``detzoo dataset voc``."""

    SUMMARY = "From Pascal VOC XML files, one per image."
    DESCRIPTION = """
    Reads every XML file below a folder, or those that an image set lists. Polygons of LabelMe and oriented boxes of
    roLabelImg become the upright box around them.

        detzoo dataset voc --images_dir=JPEGImages --annotations_dir=Annotations \\
            --image_set=ImageSets/Main/train.txt --output_path=records/train

    Coordinates are taken as they are, divided by the image's size, as the Object Detection API's script does.
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--images_dir, --annotations_dir, --image_set and what all importers take."""
        _define_path("images_dir", "Folder of the images; folders inside it are searched, too.", flag_values)
        _define_path("annotations_dir", "Folder of the XML files; folders inside it are read, too.", flag_values)
        _define_output(flag_values)
        text = "File with one image name a line, extension optional; without it every XML file is read."
        flags.DEFINE_string("image_set", None, text, flag_values=flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads, converts, reports."""
        from detzoo.datasets.import_voc import read_voc
        from detzoo.files.issues import IssueLog

        log = IssueLog()
        folders = (flag_values.images_dir, flag_values.annotations_dir)
        options = {"image_set": flag_values.image_set, "follow_links": flag_values.follow_links}
        read = read_voc(*folders, log, **options)
        _convert(read, flag_values, log)


class Yolo:
    """``detzoo dataset yolo``."""

    SUMMARY = "From YOLO text files, one an image: boxes, or outlines that become boxes and masks."
    DESCRIPTION = """
    Reads every image below a folder, and the text file at the same place below the labels folder: lines of `class
    centre_x centre_y width height` or `class x y x y x y ...`, in fractions of the image. Class 0 gets id 1, and so on.
    Keypoints behind a box, a confidence and the corners of an oriented box are recognized by the kpt_shape of a
    data.yaml, or by the lines themselves; their upright box is taken.

        detzoo dataset yolo --images_dir=images/train --labels_dir=labels/train --class_names=data.yaml \\
            --output_path=records/train
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--images_dir, --labels_dir, --class_names and what all importers take."""
        _define_path(
            "images_dir", "Folder of the images, also inside other folders; or a text file of paths.", flag_values
        )
        _define_path("labels_dir", "Folder of the text files.", flag_values)
        _define_path("class_names", "Text file with one name a line, or an Ultralytics data.yaml.", flag_values)
        _define_output(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads, converts, reports."""
        from detzoo.datasets.import_yolo import has_masks, read_yolo
        from detzoo.files.issues import IssueLog

        log = IssueLog()
        sources = (flag_values.images_dir, flag_values.labels_dir, flag_values.class_names)
        read = read_yolo(*sources, log, follow_links=flag_values.follow_links)
        _convert(read, flag_values, log, with_masks=has_masks(read))


class Csv:
    """``detzoo dataset csv``."""

    SUMMARY = "From a CSV file, one row per object: filename,width,height,class,xmin,ymin,xmax,ymax."
    DESCRIPTION = """
    Reads a CSV file with a heading, coordinates in pixels. A row with a filename alone is an image without objects.
    Other separators, other tools' column names, and the rows of AutoML and keras-retinanet without a heading are read.

        detzoo dataset csv --images_dir=images --annotations_file=train_labels.csv --output_path=records/train
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--images_dir, --annotations_file and what all importers take."""
        _define_path("images_dir", "Folder of the images; folders inside it are searched, too.", flag_values)
        _define_path("annotations_file", "The CSV file.", flag_values)
        _define_output(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads, converts, reports."""
        from detzoo.datasets.import_csv import read_csv
        from detzoo.files.issues import IssueLog

        log = IssueLog()
        sources = (flag_values.images_dir, flag_values.annotations_file)
        read = read_csv(*sources, log, follow_links=flag_values.follow_links)
        _convert(read, flag_values, log)


class Shapes:
    """``detzoo dataset shapes``."""

    SUMMARY = "Draw the embedded data set: shapes on textured backgrounds, with boxes and masks."
    DESCRIPTION = """
    Needs no files: small detectors learn it within minutes. The same flags give the same bytes; another seed is
    another data set.

        detzoo dataset shapes --output_path=shapes/train --num_images=1500 --seed=1 --num_shards=4
        detzoo dataset shapes --output_path=shapes/heldout --num_images=200 --seed=2 --images_dir=shapes/images

    With one object an image the records are those of a classifier, too:

        detzoo dataset shapes --output_path=classes/train --num_images=6000 --image_size=112 --max_objects=1 \\
            --min_object_side=0.4 --seed=1
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """What to draw, how much of it, and where it goes."""
        _define_path("output_path", "Prefix of the files to write, e.g. shapes/train.", flag_values)
        integer = flags.DEFINE_integer
        integer("num_images", 200, "How many images to draw.", lower_bound=1, flag_values=flag_values)
        integer("image_size", 160, "Side of the square images in pixels.", lower_bound=32, flag_values=flag_values)
        integer("max_objects", 6, "Objects of an image at most.", lower_bound=1, flag_values=flag_values)
        text = "Side of the smallest objects, as a fraction of the image's side, at most 0.6."
        flags.DEFINE_float("min_object_side", 0.12, text, flag_values=flag_values)
        integer("seed", 0, "Another seed draws other images.", lower_bound=0, flag_values=flag_values)
        _define_num_shards(flag_values)
        text = "Write the images as files to this folder, too."
        flags.DEFINE_string("images_dir", None, text, flag_values=flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Draws, converts, reports."""
        from detzoo.datasets import shapes
        from detzoo.files.issues import IssueLog

        drawn = shapes.draw_annotations(
            flag_values.num_images,
            flag_values.image_size,
            flag_values.seed,
            flag_values.max_objects,
            flag_values.min_object_side,
        )
        _convert(drawn, flag_values, IssueLog(), with_masks=True)
        if flag_values.images_dir:
            _write_images(drawn, pathlib.Path(flag_values.images_dir))


class Inspect:
    """``detzoo dataset inspect``."""

    SUMMARY = "Print counts, box sizes and shapes, and data issues of records, and draw some of them."
    DESCRIPTION = """
    Reads every record as training will, decodes every image, and says what training will skip or repair. Prints a
    report; writes it to output_dir as report.txt with classes.csv, histograms.csv, histograms.png, issue.csv and
    samples/*.png.

        detzoo dataset inspect --input_path='records/train-*' --label_map=records/label_map.pbtxt --output_dir=look
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--input_path, --output_dir, --label_map, --num_samples."""
        text = "TFRecord files: a path, a quoted glob, stem@10, or several with commas between."
        _define_path("input_path", text, flag_values)
        _define_path("output_dir", "Where to write.", flag_values)
        text = "The label map that training will use; without it names are taken from the records."
        flags.DEFINE_string("label_map", None, text, flag_values=flag_values)
        text = "How many records to draw."
        flags.DEFINE_integer("num_samples", 16, text, lower_bound=0, flag_values=flag_values)
        define_font_flag(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads, prints, writes."""
        from detzoo.config.label_map import load_label_map
        from detzoo.datasets.fonts import LabelFonts
        from detzoo.datasets.inspect import inspect_records

        label_map = load_label_map(flag_values.label_map) if flag_values.label_map else None
        output_dir = make_folder(flag_values.output_dir, "--output_dir")
        fonts = LabelFonts(flag_values.font)
        report = inspect_records(flag_values.input_path, label_map, output_dir, flag_values.num_samples, fonts)
        print(report)
        print(f"\nreport, tables, histograms.png and samples are in {output_dir}")


SUBCOMMANDS: dict[str, Any] = {
    "coco": Coco,
    "voc": Voc,
    "yolo": Yolo,
    "csv": Csv,
    "shapes": Shapes,
    "inspect": Inspect,
}


def _define_path(name: str, text: str, flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string(name, None, text, flag_values=flag_values, required=True)


def _define_num_shards(flag_values: flags.FlagValues) -> None:
    text = "How many files to write; about one for each 100-1000 MB."
    flags.DEFINE_integer("num_shards", 1, text, lower_bound=1, flag_values=flag_values)


def _define_output(flag_values: flags.FlagValues) -> None:
    """The flags of every importer."""
    _define_path("output_path", "Prefix of the files to write, e.g. records/train.", flag_values)
    _define_num_shards(flag_values)
    text = "Use the ids of this label map, e.g. that of the training set; else the data set's own."
    flags.DEFINE_string("label_map", None, text, flag_values=flag_values)
    text = "Fail, and write nothing, where anything had to be skipped or repaired."
    flags.DEFINE_bool("strict", False, text, flag_values=flag_values)
    text = "Read images and annotations that are symbolic links to files outside of the folder that was named."
    flags.DEFINE_bool("follow_links", False, text, flag_values=flag_values)


def _convert(
    read: Annotations, flag_values: flags.FlagValues, log: IssueLog, *, with_masks: bool = False
) -> ConversionResult:
    """Writes the records and prints what was written, skipped and repaired."""
    from detzoo.datasets.conversion import convert

    with _terminated_as_exit():
        result = convert(
            read,
            flag_values.output_path,
            num_shards=flag_values.num_shards,
            label_map_path=getattr(flag_values, "label_map", None),
            strict=getattr(flag_values, "strict", False),
            with_masks=with_masks,
            log=log,
        )
    print(_summary(result, len(read.images)))
    return result


def _summary(result: ConversionResult, num_annotated: int) -> str:
    """What was written, objects a class, and the table of data issues."""
    counts = result.objects_per_class
    width = min(max(map(len, counts)), MAX_NAME_SHOWN)
    shown = sorted(counts.items(), key=lambda item: -item[1])
    lines = [
        f"{result.num_images} of {num_annotated} images with {sum(counts.values())} objects"
        + (" and masks" if result.with_masks else ""),
        "",
        *(f"  {name[:MAX_NAME_SHOWN]:<{width}}  {count:>7}" for name, count in shown[:MAX_CLASSES_SHOWN]),
    ]
    if len(shown) > MAX_CLASSES_SHOWN:
        rest = sum(count for _, count in shown[MAX_CLASSES_SHOWN:])
        lines.append(f"  {'... and ' + str(len(shown) - MAX_CLASSES_SHOWN) + ' more':<{width}}  {rest:>7}")
    lines += ["", "what was found in the data:", *(f"  {line}" for line in result.log.table().splitlines()), ""]
    files = f"{result.shards[0]}" + (f" ... {result.shards[-1].name}" if len(result.shards) > 1 else "")
    return "\n".join([*lines, f"records:   {files}", f"label map: {result.label_map_path}"])


def _write_images(drawn: Annotations, folder: pathlib.Path) -> None:
    make_folder(folder, "--images_dir")
    for image in drawn.images:
        (folder / image.filename).write_bytes(image.content or b"")
    print(f"images:    {folder}")


@contextlib.contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Makes SIGTERM leave the block by an exception, so that half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
