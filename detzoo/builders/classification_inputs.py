"""``train_input_reader`` or ``eval_input_reader`` of a classifier's configuration -> a dataset of ``Batch``es.

Records are tf.Examples with the class of the whole image, or files in one folder for each class; either way an image
has one "object", which is the image.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from detzoo.builders.augment import build_augmentations
from detzoo.config import pb
from detzoo.config.image_folders import label_map_of_folders
from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.data.batches import BatchOptions, make_batches
from detzoo.data.class_images import ClassifierResizer, EpochSizes
from detzoo.data.class_records import ClassRecordDecoder, ImageFolderSource, check_classes, decode_folder_record
from detzoo.data.decode import ClassNames
from detzoo.data.issue_counter import IssueCounter
from detzoo.data.records import ReadOptions, RecordSource, scan_files
from detzoo.errors import ConfigError

FOLDERS, RECORDS = "image_folder_reader", "tf_record_input_reader"


def build_class_dataset(
    reader: pb.InputReader,
    resizer: ClassifierResizer,
    train_config: pb.TrainConfig | None,
    options: BatchOptions,
    training: bool,
    issue: IssueCounter | None = None,
) -> tf.data.Dataset:
    """The input pipeline of a classifier.

    Args:
        reader: a ``pb.InputReader``.
        resizer: of the model, from ``build_model_resizer``.
        train_config: the ``pb.TrainConfig`` with augmentations; None for evaluation.
        options: batch size, position, seed.
        training: True: augmented crops, of the epoch's size. False: whole images, the shorter side as configured.
        issue: gets the counts of what was dropped.

    Returns:
        A dataset of ``Batch`` with one object an image: its class, and the whole image as its box.

    Raises:
        ConfigError: the reader asks for what is not supported.
        DataError: there is nothing to read.
    """
    source, decoder = _source(reader, options.seed, issue)
    steps = train_config.data_augmentation_options if training and train_config is not None else ()
    options = dataclasses.replace(options, max_number_of_boxes=1, draw_sizes=training)
    crops = resizer.for_training() if training else resizer
    dataset = make_batches(source, decoder, build_augmentations(steps), crops, options, issue)
    if not training or resizer.train_sizes in ((), (resizer.crop_size,)):
        return dataset
    sizes = EpochSizes(resizer.train_sizes, resizer.random_train_size, source.num_records, options.seed)
    resized = tf.autograph.experimental.do_not_convert(sizes.resized)
    return dataset.map(resized, tf.data.AUTOTUNE, deterministic=True).prefetch(options.num_prefetch_batches)


def class_label_map(reader: pb.InputReader) -> LabelMap:
    """The classes of a reader: its label map, or the names of the folders, sorted.

    Raises:
        ConfigError: there is neither, or the label map has problems.
        UsageError: the label map cannot be read.
    """
    if reader.label_map_path:
        return load_label_map(reader.label_map_path)
    if reader.WhichOneof("input_reader") == FOLDERS:
        return label_map_of_folders(reader.image_folder_reader.path)
    raise ConfigError("label_map_path is missing: it names the classes of the records")


def _source(reader: pb.InputReader, seed: int, issue: IssueCounter | None) -> tuple[RecordSource, Any]:
    """Where records come from, and what decodes them."""
    kind = reader.WhichOneof("input_reader")
    label_map = class_label_map(reader)
    sample_1_of_n = max(1, reader.sample_1_of_n_examples)
    if kind == FOLDERS:
        folder = reader.image_folder_reader.path
        return ImageFolderSource(
            folder, label_map.id_by_any_name, reader.shuffle, seed, sample_1_of_n
        ), decode_folder_record
    if kind != RECORDS:
        raise ConfigError(f"the input reader needs {RECORDS} {{ input_path: '...' }} or {FOLDERS} {{ path: '...' }}")
    options = ReadOptions(
        shuffle=reader.shuffle,
        shuffle_buffer_size=reader.shuffle_buffer_size,
        sample_1_of_n=sample_1_of_n,
        num_readers=reader.num_readers,
        read_block_length=reader.read_block_length,
    )
    files = scan_files(list(reader.tf_record_input_reader.input_path), issue)
    source, decoder = (
        RecordSource(files, options, seed),
        ClassRecordDecoder(ClassNames(label_map.id_by_any_name, list(label_map.names))),
    )
    check_classes(source, decoder)
    return source, decoder
