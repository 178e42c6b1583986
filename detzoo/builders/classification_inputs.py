"""``train_input_reader`` or ``eval_input_reader`` of a classifier's config -> a dataset of ``Batch``es (floor 5).

Records are tf.Examples with the class of the whole image, or files in one folder per class. The image itself is the one
"object" in both cases.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from detzoo.config import pb
from detzoo.config.image_folders import label_map_of_folders
from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.data.augment.apply import Augmentation
from detzoo.data.batches import BatchOptions, make_batches
from detzoo.data.class_images import ClassifierResizer, EpochSizes
from detzoo.data.class_records import (
    CLASS_KEYS,
    ClassRecordDecoder,
    ImageFolderSource,
    check_classes,
    decode_folder_record,
)
from detzoo.data.decode import ClassNames, DecodeOptions, RecordDecoder, parse_rules
from detzoo.data.issue_counter import IssueCounter
from detzoo.data.records import ReadOptions, RecordSource, scan_files
from detzoo.data.resize import Resizer
from detzoo.errors import ConfigError


def build_class_dataset(
    reader: pb.InputReader,
    resizer: ClassifierResizer,
    augmentations: Sequence[Augmentation],
    options: BatchOptions,
    training: bool,
    issue: IssueCounter,
) -> tf.data.Dataset:
    """Builds the input pipeline of a classifier.

    In training it gives augmented crops of the epoch's size, else whole images, the shorter side as configured.

    Returns:
        A dataset of ``Batch`` with one object per image: its class, and the whole image as its box.

    Raises:
        ConfigError: No label map names the classes.
        DataError: There is nothing to read.
    """
    source, decoder = _source(reader, options.seed, issue)
    options = dataclasses.replace(options, max_number_of_boxes=1)
    crops = resizer.for_training() if training else resizer
    dataset = make_batches(source, decoder, augmentations, crops, options, issue)
    if not training or resizer.train_sizes in ((), (resizer.crop_size,)):
        return dataset
    sizes = EpochSizes(resizer.train_sizes, resizer.random_train_size, source.num_records, options.seed)
    resized = tf.autograph.experimental.do_not_convert(sizes.resized)
    return dataset.map(resized, tf.data.AUTOTUNE, deterministic=True).prefetch(options.num_prefetch_batches)


def build_labeled_images(reader: pb.InputReader, resizer: Resizer, issue: IssueCounter) -> tuple[tf.data.Dataset, int]:
    """Builds a dataset of ``Batch`` with one image each, in the order of the files, and returns the number of records.

    The objects of a batch are the labels of its image: its class, or in a detector's records the class of each object.
    """
    reader = copy.deepcopy(reader)
    reader.shuffle = False
    options = BatchOptions(1, reader.max_number_of_boxes, drop_remainder=False, num_epochs=1)
    source: RecordSource
    if reader.HasField("image_folder_reader") or _has_image_class(reader):
        source, decoder = _source(reader, 0, issue)
    else:
        files = scan_files(list(reader.tf_record_input_reader.input_path), issue)
        source = RecordSource(files, read_options(reader), 0)
        decoder = RecordDecoder(DecodeOptions(reader.max_number_of_boxes), names_of(class_label_map(reader)))
    return make_batches(source, decoder, (), resizer, options, issue), source.num_records


def _has_image_class(reader: pb.InputReader) -> bool:
    """Returns True if the first record has the class of its image as a whole."""
    source = RecordSource(scan_files(list(reader.tf_record_input_reader.input_path)), read_options(reader), 0)
    rules = parse_rules(CLASS_KEYS)
    fields = [tf.io.parse_single_example(record, rules) for record in source.first_records(1)]
    return any(tf.size(values) > 0 for values in fields[0].values())


def class_label_map(reader: pb.InputReader) -> LabelMap:
    """Returns the classes of a reader: its label map, or the names of the folders, sorted.

    Raises:
        ConfigError: There is neither, or the label map has problems.
        UsageError: The label map cannot be read.
    """
    if reader.label_map_path:
        return load_label_map(reader.label_map_path)
    if reader.HasField("image_folder_reader"):
        return label_map_of_folders(reader.image_folder_reader.path)
    raise ConfigError("label_map_path is missing: it names the classes of the records")


def names_of(label_map: LabelMap, is_remote: bool = False) -> ClassNames:
    """Returns the classes of a label map for the decoder of records."""
    return ClassNames(label_map.id_by_any_name, list(label_map.names), is_remote)


def read_options(reader: pb.InputReader) -> ReadOptions:
    """Returns how the record files of a reader are read."""
    return ReadOptions(
        shuffle=reader.shuffle,
        shuffle_buffer_size=reader.shuffle_buffer_size,
        sample_1_of_n=max(1, reader.sample_1_of_n_examples),
        num_readers=reader.num_readers,
        read_block_length=reader.read_block_length,
    )


def _source(reader: pb.InputReader, seed: int, issue: IssueCounter) -> tuple[RecordSource, Any]:
    """Returns the source of the records, and their decoder."""
    label_map, options = class_label_map(reader), read_options(reader)
    if reader.HasField("image_folder_reader"):
        folder = reader.image_folder_reader.path
        ids = label_map.id_by_any_name
        return ImageFolderSource(folder, ids, reader.shuffle, seed, options.sample_1_of_n), decode_folder_record
    files = scan_files(list(reader.tf_record_input_reader.input_path), issue)
    source, decoder = RecordSource(files, options, seed), ClassRecordDecoder(names_of(label_map))
    check_classes(source, decoder)
    return source, decoder
