"""``detzoo dataset coco|voc|yolo|csv|import|shapes|context|inspect``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.cli.flags import (
    RECORDS_HELP,
    Definer,
    beam_options_of,
    define_font_flag,
    define_runner_flags,
    values_of,
)
from detzoo.config.label_map import load_label_map
from detzoo.datasets.context_memory import HORIZONS, MemoryOptions
from detzoo.datasets.formats import FORMATS
from detzoo.datasets.import_coco import read_coco
from detzoo.datasets.import_csv import read_csv
from detzoo.datasets.import_voc import read_voc
from detzoo.datasets.import_yolo import has_masks, read_yolo
from detzoo.files.issues import IssueLog
from detzoo.folders import make_folder
from detzoo.tasks.start import EXIT_TERMINATED, terminated_as

if TYPE_CHECKING:
    from detzoo.datasets.annotations import Annotations
    from detzoo.datasets.conversion import ConversionResult
    from detzoo.datasets.recognize import Recognized

SUMMARY = "Make TFRecords from a folder of labels in any known format, or inspect records."
DESCRIPTION = """
Each importer writes PREFIX-00000-of-000NN.tfrecord and, next to it, label_map.pbtxt: the files that input_path and
label_map_path of a pipeline.config name. Images become upright 8-bit RGB. Data issues with one right answer are
repaired, the others are skipped, and a table at the end lists what, where and why. --strict makes each of them an
error, and so is an import without any object. No file appears under its final name before all are written.

Images are found by name, even if the annotations state the path of another machine; no file outside of the given
folders is read. docs/datasets.md lists the dialects of each format.

    detzoo dataset import my_data --output_path=records/my --val=0.2
    detzoo dataset coco --images_dir=val2017 --annotations_file=instances_val2017.json --output_path=records/val
    detzoo dataset inspect --input_path='records/val-*' --label_map=records/label_map.pbtxt --output_dir=look
"""
logger = logging.getLogger(__name__)

MAX_CLASSES_SHOWN = 20
MAX_NAME_SHOWN = 60  # characters of a class name
_FOLLOW_LINKS_HELP = "Read images and annotations that are symbolic links to files outside of the given folder."


@dataclasses.dataclass(frozen=True)
class Importer:
    """``detzoo dataset FORMAT``: annotations of one format become records."""

    read: Callable[..., Annotations]  # reads annotations from the paths, with a log and the options
    SUMMARY: str  # line for the list of subcommands
    DESCRIPTION: str  # text of --help
    paths: dict[str, str]  # help of each required path, by the name of the flag
    # Help of each boolean option, and of each optional path, by the name of the flag.
    switches: dict[str, str] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    def define_flags(self, flag_values: flags.FlagValues) -> None:
        """Defines the flags of the format and those of every importer."""
        define = Definer(flag_values)
        for name, text in self.paths.items():
            define.string(name, text, required=True)
        define.string("output_path", "Prefix of the files to write, e.g. records/train.", required=True)
        _define_writing(define)
        define_runner_flags(flag_values)
        for name, text in self.switches.items():
            define.boolean(name, text)
        define.boolean("follow_links", _FOLLOW_LINKS_HELP)
        for name, text in self.files.items():
            define.string(name, text)

    def run(self, flag_values: flags.FlagValues) -> None:
        """Reads, converts, and prints what was written, skipped and repaired."""
        log, options = IssueLog(), writer_of(flag_values)
        paths = values_of(flag_values, *self.paths).values()
        read = self.read(*paths, log, **values_of(flag_values, *self.switches, "follow_links", *self.files))
        with_masks = flag_values.include_masks if "include_masks" in self.switches else has_masks(read)
        options |= {"label_map_path": flag_values.label_map, "strict": flag_values.strict}
        _convert(read, flag_values, log, with_masks, **options)


_IMAGES_DIR = "Folder of the images, searched with its subfolders."

COCO = Importer(
    read_coco,
    "From a COCO instances file; category ids are kept.",
    """
    Reads a COCO instances JSON: polygons and run-length encodings become masks with --include_masks. An object without
    a box gets the box of its outline. If iscrowd is set on every object, --crowds_as_objects imports them as objects.
    Keypoints of a person_keypoints file are written, too, and the label map gets their names.

        detzoo dataset coco --images_dir=train2017 --annotations_file=instances_train2017.json \\
            --output_path=records/train --num_shards=32 --include_masks
    """,
    {"images_dir": _IMAGES_DIR, "annotations_file": "The JSON file: images, annotations, categories."},
    switches={
        "include_masks": "Write instance masks, too.",
        "crowds_as_objects": "Read annotations with iscrowd as single objects; training ignores crowds.",
    },
)
VOC = Importer(
    read_voc,
    "From Pascal VOC XML files, one per image.",
    """
    Reads every XML file below a folder, or those that an image set lists. Polygons of LabelMe and oriented boxes of
    roLabelImg become the upright box around them.

        detzoo dataset voc --images_dir=JPEGImages --annotations_dir=Annotations \\
            --image_set=ImageSets/Main/train.txt --output_path=records/train

    Coordinates are divided by the size of the image without a shift, as in the Object Detection API's script.

    The 200 classes of ILSVRC DET are WordNet ids in the XML files; its map_det.txt has their ids and names:

        detzoo dataset voc --images_dir=ILSVRC/Data/DET/val --annotations_dir=ILSVRC/Annotations/DET/val \\
            --image_set=ILSVRC/ImageSets/DET/val.txt --synsets=map_det.txt --output_path=records/val
    """,
    {"images_dir": _IMAGES_DIR, "annotations_dir": "Folder of the XML files, read with its subfolders."},
    files={
        "image_set": "File with one image name per line, extension optional; by default every XML file is read.",
        "synsets": "ILSVRC's list of classes, with lines such as `n02672831 1 accordion`.",
    },
)
YOLO = Importer(
    read_yolo,
    "From YOLO text files, one per image: boxes, or outlines that become boxes and masks.",
    """
    Reads every image below a folder, and the text file at the same place below the labels folder: lines of `class
    centre_x centre_y width height` or `class x y x y x y ...`, in fractions of the image. Class 0 gets id 1, and so on.
    Keypoints after a box, a confidence and the corners of an oriented box are recognized by the kpt_shape of a
    data.yaml, or by the lines themselves; their upright box is imported.

        detzoo dataset yolo --images_dir=images/train --labels_dir=labels/train --class_names=data.yaml \\
            --output_path=records/train
    """,
    {
        "images_dir": "Folder of the images, searched with its subfolders, or a text file of paths.",
        "labels_dir": "Folder of the text files.",
        "class_names": "Text file with one name per line, or an Ultralytics data.yaml.",
    },
)
CSV = Importer(
    read_csv,
    "From a CSV file, one row per object: filename,width,height,class,xmin,ymin,xmax,ymax.",
    """
    Reads a CSV file with a heading, coordinates in pixels. A row with only a filename stands for an image without
    objects. Other separators, the column names of other tools, and the rows of AutoML and keras-retinanet without a
    heading are accepted.

        detzoo dataset csv --images_dir=images --annotations_file=train_labels.csv --output_path=records/train
    """,
    {"images_dir": _IMAGES_DIR, "annotations_file": "The CSV file."},
)


class Import:
    """``detzoo dataset import DIR``."""

    SUMMARY = "From a folder in any known format, which is recognized by its content; keeps its splits."
    DESCRIPTION = """
    Recognizes COCO JSON, Pascal VOC XML, YOLO text files, CSV, Open Images, labelme, CVAT, Label Studio, records, and
    class folders of images. Writes one record set per split: that of folders or files named train, valid and test, of
    a data.yaml or of lists of images, or one drawn with --val. Copies of an image and frames of one clip stay together.

        detzoo dataset import my_data --output_path=records/my --val=0.2
        detzoo dataset import export_of_roboflow --output_path=records/
    """
    POSITIONAL = ("DIR",)

    @classmethod
    def define_flags(cls, flag_values: flags.FlagValues) -> None:
        """Defines the flags of the folder and those of every importer."""
        define = Definer(flag_values)
        text = "Prefix of the files to write: records/my becomes records/my-train-00000-of-00001.tfrecord and so on."
        define.string("output_path", text, required=True)
        text = f"Format of the labels: {', '.join(FORMATS)}. By default the content of the files decides."
        define.string("format", text)
        text = "Fraction of the images to hold out as the split val, if DIR has no splits."
        define.number("val", text, 0.0, maximum=0.9)
        define.integer("seed", "Seed of the drawn split.", 0, minimum=0)
        _define_writing(define)
        define_runner_flags(flag_values)
        define.boolean("include_masks", "Write instance masks, too, where labels have outlines.")
        text = "Open Images: an object of a class is also one of each class above it in *hierarchy*.json."
        define.boolean("expand_hierarchy", text)
        define.boolean("follow_links", _FOLLOW_LINKS_HELP)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Recognizes, converts, and prints what was written, skipped and repaired."""
        from detzoo.datasets import recognize, splits

        [folder] = flag_values.positional
        writer = writer_of(flag_values)
        options = values_of(flag_values, "format", "follow_links", "include_masks", "expand_hierarchy")
        read = recognize.recognize(folder, **options)
        with terminated_as(SystemExit(EXIT_TERMINATED)):
            read = splits.draw(read, flag_values.val, flag_values.seed)
            results = recognize.write_records(
                read,
                flag_values.output_path,
                label_map_path=flag_values.label_map,
                with_masks=flag_values.include_masks and any(map(has_masks, read.splits.values())),
                **values_of(flag_values, "num_shards", "strict"),
                **writer,
            )
        print(report_of(read, results))
        for sentence in recognize.remarks(read):
            logger.warning("%s", sentence)


class Shapes:
    """``detzoo dataset shapes``."""

    SUMMARY = "Draw the embedded data set: shapes on textured backgrounds, with boxes and masks."
    DESCRIPTION = """
    Needs no files: small detectors learn it within minutes. The same flags give the same bytes; another seed gives
    another data set.

        detzoo dataset shapes --output_path=shapes/train --num_images=1500 --seed=1 --num_shards=4
        detzoo dataset shapes --output_path=shapes/heldout --num_images=200 --seed=2 --images_dir=shapes/images

    With one object per image the records also train a classifier:

        detzoo dataset shapes --output_path=classes/train --num_images=6000 --image_size=112 --max_objects=1 \\
            --min_object_side=0.4 --seed=1

    Feature pyramids need objects of many sizes, 12 to 400 pixels in images of 256 to 640, few or many per image:

        detzoo dataset shapes --output_path=wide/train --num_images=1500 --scales=dense --seed=1
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines the flags for the images, their number and the output."""
        define = Definer(flag_values)
        define.string("output_path", "Prefix of the files to write, e.g. shapes/train.", required=True)
        define.integer("num_images", "Number of images.", 200, minimum=1)
        define.integer("image_size", "Side of the square images in pixels.", 160, minimum=32)
        define.integer("max_objects", "Objects per image at most.", 6, minimum=1)
        text = "Side of the smallest objects, as a fraction of the image's side, at most 0.6."
        flags.DEFINE_float("min_object_side", 0.12, text, flag_values=flag_values)
        text = "Sizes of objects; sparse and dense have five octaves, 1 to 6 and 12 to 40 objects per image."
        define.choice("scales", text, ["narrow", "sparse", "dense"], "narrow")
        define.integer("seed", "Another seed draws other images.", 0, minimum=0)
        _define_num_shards(define)
        define.string("images_dir", "Also write the images as files into this folder.")

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Draws, converts, and prints what was written."""
        from detzoo.datasets import shapes

        drawn = shapes.draw_annotations(
            flag_values.num_images,
            flag_values.image_size,
            flag_values.seed,
            flag_values.max_objects,
            flag_values.min_object_side,
            flag_values.scales,
        )
        _convert(drawn, flag_values, IssueLog(), with_masks=True)
        if flag_values.images_dir:
            folder = make_folder(flag_values.images_dir, "--images_dir")
            for image in drawn.images:
                (folder / image.filename).write_bytes(image.read())
            print(f"images:    {folder}")


class Context:
    """``detzoo dataset context``."""

    SUMMARY = "Add the memory of Context R-CNN to records: features of boxes in the images of the same camera."
    DESCRIPTION = """
    Runs an exported Faster R-CNN on every record and writes the records again, each with the features of the best boxes
    in the images of its group: equal image/location (or --group_by), and with --time_horizon the same period. A feature
    has the mean of the box's features, its place and size, and with image/date_captured (2020-06-30 23:59:00) the time.
    docs/context_rcnn.md shows the way from records to a trained Context R-CNN.

        detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
            --output_directory=exported --set model.faster_rcnn.output_final_box_features=true
        detzoo dataset context --saved_model=exported --input_path='records/train-*' --output_path=context/train \\
            --time_horizon=month
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines the flags for the model, the records, the groups and the output."""
        define = Definer(flag_values)
        define.string("saved_model", "Exported Faster R-CNN with output_final_box_features.", required=True)
        define.string("input_path", RECORDS_HELP, required=True)
        define.string("output_path", "Prefix of the files to write, e.g. context/train.", required=True)
        define.string("group_by", "Key of a record whose equal values make a group, or image/seq_id.", "image/location")
        define.choice("time_horizon", "Period that the images of a group share.", ("", *HORIZONS), "")
        text = "One of this many images of a group, in the order of time, gives features."
        define.integer("subsample", text, 1, minimum=1)
        define.integer("top_k", "Boxes per image that give features, the best ones.", 1, minimum=1)
        define.number("min_score", "Boxes with lower scores give no features.", 0.0, maximum=1.0)
        text = "Features of a memory at most; larger groups are split in the order of time."
        define.integer("max_features", text, 2000, minimum=1)
        text = (
            "Write sequences (tf.SequenceExample) of up to this many images of a group; 0 writes one record per image."
        )
        define.integer("images_per_sequence", text, 0, minimum=0)
        _define_num_shards(define)
        define_runner_flags(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Detects, writes, and prints what the config needs."""
        from detzoo.tasks.context import add_context

        names = [field.name for field in dataclasses.fields(MemoryOptions)]
        beam_options = beam_options_of(flag_values)
        with terminated_as(SystemExit(EXIT_TERMINATED)):
            done = add_context(
                options=MemoryOptions(**values_of(flag_values, *names)),
                beam_options=beam_options,
                **values_of(
                    flag_values, "saved_model", "input_path", "output_path", "top_k", "min_score", "num_shards"
                ),
            )
        print(
            f"{done.num_images} images in {done.num_groups} groups with {done.num_features} features, at most "
            f"{done.largest} in a group\n"
            f"records: {done.paths[0]}{f' ... {done.paths[-1].name}' if len(done.paths) > 1 else ''}\n\n"
            f"context_config {{\n  max_num_context_features: {max(done.largest, 1)}\n"
            f"  context_feature_length: {done.feature_length}\n}}"
        )


class Inspect:
    """``detzoo dataset inspect``."""

    SUMMARY = "Print counts, box sizes and shapes, and data issues of records, and draw some of them."
    DESCRIPTION = """
    Reads every record as training will, decodes every image, and reports what training will skip or repair. Prints a
    report; writes it to output_dir as report.html, one page without other files, and as report.txt with classes.csv,
    histograms.csv, histograms.png, dirt.csv and samples/*.png.

        detzoo dataset inspect --input_path='records/train-*' --label_map=records/label_map.pbtxt --output_dir=look
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines --input_path, --output_dir, --label_map, --num_samples and --font."""
        define = Definer(flag_values)
        define.string("input_path", RECORDS_HELP, required=True)
        define.string("output_dir", "Folder for the report.", required=True)
        define.string("label_map", "Label map of the training; by default names are taken from the records.")
        define.integer("num_samples", "Number of records to draw.", 16, minimum=0)
        define_font_flag(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads, prints, writes."""
        from detzoo.datasets.fonts import LabelFonts
        from detzoo.datasets.inspect import inspect_records

        label_map = load_label_map(flag_values.label_map) if flag_values.label_map else None
        output_dir = make_folder(flag_values.output_dir, "--output_dir")
        fonts = LabelFonts(flag_values.font)
        report = inspect_records(flag_values.input_path, label_map, output_dir, flag_values.num_samples, fonts)
        print(report)
        print(f"\nreport.html, tables, histograms.png and samples are in {output_dir}")


SUBCOMMANDS: dict[str, Any] = {
    "coco": COCO,
    "voc": VOC,
    "yolo": YOLO,
    "csv": CSV,
    "import": Import,
    "shapes": Shapes,
    "context": Context,
    "inspect": Inspect,
}


def _define_writing(define: Definer) -> None:
    _define_num_shards(define)
    text = "Use the ids of this label map, e.g. that of the training set; by default the data set's own."
    define.string("label_map", text)
    define.boolean("strict", "Fail, and write nothing, if a data issue was skipped or repaired.")


def _define_num_shards(define: Definer) -> None:
    define.integer("num_shards", "Number of files to write; about one per 100-1000 MB.", 1, minimum=1)


def writer_of(flag_values: flags.FlagValues) -> dict[str, Any]:
    """Returns the argument of the conversion that ``--runner`` asks for."""
    options = beam_options_of(flag_values)
    if options is None:
        return {}
    from detzoo.tasks.beam_pipelines import BeamRecords

    return {"write": BeamRecords(options)}


def _convert(read: Annotations, flag_values: flags.FlagValues, log: IssueLog, with_masks: bool, **options: Any) -> None:
    """Writes the records and prints what was written, skipped and repaired."""
    from detzoo.datasets.conversion import convert

    with terminated_as(SystemExit(EXIT_TERMINATED)):
        result = convert(
            read,
            flag_values.output_path,
            num_shards=flag_values.num_shards,
            with_masks=with_masks,
            log=log,
            **options,
        )
    print(f"{_counts(result, len(read.images))}\n")
    print(_found_and_files([result]))


def report_of(read: Recognized, results: dict[str, ConversionResult]) -> str:
    """Returns the recognized format, the counts of each split, the table of data issues, and the files."""
    parts = [f"{name}: {_counts(result, len(read.splits[name].images))}" for name, result in results.items()]
    return "\n\n".join([read.description, *parts, _found_and_files(list(results.values()))])


def _counts(result: ConversionResult, num_annotated: int) -> str:
    """Returns the number of images and the objects per class."""
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
    return "\n".join(lines)


def _found_and_files(results: list[ConversionResult]) -> str:
    """Returns the table of data issues, and the files."""
    table = results[0].log.table().splitlines()
    lines = ["what was found in the data:", *(f"  {line}" for line in table), ""]
    for result in results:
        more = f" ... {result.shards[-1].name}" if len(result.shards) > 1 else ""
        lines.append(f"records:   {result.shards[0]}{more}")
    return "\n".join([*lines, f"label map: {results[0].label_map_path}"])
