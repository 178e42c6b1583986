"""``train_input_reader`` or ``eval_input_reader`` of a configuration -> a dataset of ``Batch``es."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from detzoo.builders.augment import build_augmentations
from detzoo.builders.classification_inputs import build_class_dataset
from detzoo.builders.resize import build_resizer
from detzoo.config import pb
from detzoo.config.label_map import load_label_map
from detzoo.data.batches import BatchOptions, make_batches
from detzoo.data.class_images import ClassifierResizer
from detzoo.data.decode import ClassNames, DecodeOptions, RecordDecoder
from detzoo.data.issue_counter import IssueCounter
from detzoo.data.proposals import ProposalTable, check_images, read_proposals
from detzoo.data.records import ReadOptions, RecordSource, RecordStream, WeightedSources, check_masks, scan_files
from detzoo.data.resize import Resizer
from detzoo.errors import ConfigError


def build_dataset(
    reader: pb.InputReader,
    resizer: Any,
    train_config: pb.TrainConfig | None,
    *,
    training: bool,
    batch_size: int,
    seed: int,
    start_record: int = 0,
    input_context: tf.distribute.InputContext | None = None,
    issue: IssueCounter | None = None,
    image_labels: bool = False,
    all_proposals: bool = False,
) -> tf.data.Dataset:
    """The input pipeline of a configuration.

    Args:
        reader: a ``pb.InputReader``.
        resizer: of the model, from ``build_model_resizer``, or the ``pb.ImageResizer`` of one that pads with black.
        train_config: the ``pb.TrainConfig`` with augmentations and ``max_number_of_boxes``; None for evaluation.
        training: True: augmented, endless unless ``num_epochs`` is set, full batches only (``drop_remainder``).
            False: as the records are, a single epoch, the last batch may be smaller.
        batch_size: images in a global batch. With an ``input_context`` it is divided by its replicas.
        seed: of order and augmentation; the same seed gives the same batches.
        start_record: position in the stream of records at which to start; to go on after a batch, one more than the
            highest ``Batch.record_index`` of all workers.
        input_context: of ``tf.distribute``; its pipeline i of n reads the records i, i + n, ... of the same order.
        issue: gets the counts of what was repaired and dropped; counts are logged in any case.
        image_labels: fill ``Batch.labeled_classes`` from the labels of whole images.
        all_proposals: look for the proposals of every record before the first is decoded, not of the first ones only;
            one without them is an error then, and counted as a data issue else.

    Returns:
        A dataset of ``Batch``; heights and widths are static with resizers of fixed output.

    Raises:
        ConfigError: the reader asks for what is not supported, or ``batch_size`` does not divide.
        DataError: an ``input_path`` matches no file, the files hold no records, or ``proposals_path`` cannot be read
            or is of other images.
    """
    if isinstance(resizer, ClassifierResizer):
        options = _batch_options(reader, training, batch_size, seed, start_record, input_context)
        return build_class_dataset(reader, resizer, train_config, options, training, issue)
    _check_reader(reader)
    issue = issue if issue is not None else IssueCounter()
    names = _class_names(reader)
    decode_options = DecodeOptions(
        max_number_of_boxes=_max_boxes(reader, train_config, training),
        load_instance_masks=reader.load_instance_masks,
        png_masks=reader.mask_type == pb.PNG_MASKS,
        load_image_labels=image_labels,
    )
    steps = train_config.data_augmentation_options if training and train_config is not None else ()
    options = dataclasses.replace(
        _batch_options(reader, training, batch_size, seed, start_record, input_context),
        max_number_of_boxes=decode_options.max_number_of_boxes,
        max_number_of_proposals=reader.max_number_of_proposals,
        draw_sizes=training,
        merged_classes=_merged_classes(names, train_config, training),
    )
    source = _build_source(reader, seed, issue)
    if reader.load_instance_masks:
        check_masks(source, decode_options.png_masks)
    return make_batches(
        source,
        RecordDecoder(decode_options, names),
        build_augmentations(steps),
        resizer if isinstance(resizer, Resizer) else build_resizer(resizer),
        options,
        issue,
        _proposals(reader, source, all_proposals),
    )


def _batch_options(
    reader: pb.InputReader,
    training: bool,
    batch_size: int,
    seed: int,
    start_record: int,
    input_context: tf.distribute.InputContext | None,
) -> BatchOptions:
    """What detectors and classifiers have in common."""
    return BatchOptions(
        batch_size=_per_replica(batch_size, input_context),
        drop_remainder=training and reader.drop_remainder,
        start=start_record,
        num_epochs=1 if not training else reader.num_epochs or None,
        seed=seed,
        num_shards=input_context.num_input_pipelines if input_context else 1,
        shard=input_context.input_pipeline_id if input_context else 0,
        num_prefetch_batches=reader.num_prefetch_batches if reader.num_prefetch_batches > 0 else tf.data.AUTOTUNE,
    )


def _check_reader(reader: pb.InputReader) -> None:
    if reader.WhichOneof("input_reader") != "tf_record_input_reader":
        raise ConfigError(
            "the input reader needs tf_record_input_reader { input_path: '...' }, the only kind supported"
        )
    if reader.input_type == pb.TF_SEQUENCE_EXAMPLE:
        raise ConfigError("input_type TF_SEQUENCE_EXAMPLE is not supported; use TF_EXAMPLE, one record an image")
    if reader.num_additional_channels:
        raise ConfigError(
            f"num_additional_channels {reader.num_additional_channels} is not supported; images have 3 channels, use 0"
        )
    if reader.proposals_path and reader.max_number_of_proposals < 1:
        raise ConfigError(
            f"max_number_of_proposals is {reader.max_number_of_proposals}; with proposals_path at least 1"
        )


def _proposals(reader: pb.InputReader, source: RecordStream, all_records: bool) -> ProposalTable | None:
    """The table that ``proposals_path`` names, once it is known to be of these records."""
    if not reader.proposals_path:
        return None
    table = read_proposals(reader.proposals_path)
    check_images(table, source, all_records=all_records)
    return table


def _max_boxes(reader: pb.InputReader, train_config: pb.TrainConfig | None, training: bool) -> int:
    """Training pads to the trainer's number, evaluation to the reader's, as in the Object Detection API."""
    return train_config.max_number_of_boxes if training and train_config is not None else reader.max_number_of_boxes


def _merged_classes(names: ClassNames | None, train_config: pb.TrainConfig | None, training: bool) -> int:
    """Classes of the label sets where training merges boxes with several labels; 0 where it does not."""
    if not training or train_config is None or not train_config.merge_multiple_label_boxes:
        return 0
    if names is None:
        raise ConfigError("merge_multiple_label_boxes needs the label map: set label_map_path of the input reader")
    return names.num_classes


def _per_replica(batch_size: int, input_context: tf.distribute.InputContext | None) -> int:
    num_replicas = input_context.num_replicas_in_sync if input_context else 1
    if batch_size <= 0 or batch_size % num_replicas:
        raise ConfigError(f"batch_size {batch_size} must be above 0 and a multiple of {num_replicas}, the replicas")
    return batch_size // num_replicas


def _class_names(reader: pb.InputReader) -> ClassNames | None:
    """Names and display names both count, as in the Object Detection API; a name wins where they contradict."""
    if not reader.label_map_path:
        return None
    label_map = load_label_map(reader.label_map_path)
    return ClassNames(label_map.id_by_any_name, list(label_map.names))


def _build_source(reader: pb.InputReader, seed: int, issue: IssueCounter) -> RecordStream:
    """One source of all files, or with ``sample_from_datasets_weights`` one for each ``input_path``."""
    options = ReadOptions(
        shuffle=reader.shuffle,
        shuffle_buffer_size=reader.shuffle_buffer_size,
        sample_1_of_n=max(1, reader.sample_1_of_n_examples),
        num_readers=reader.num_readers,
        read_block_length=reader.read_block_length,
    )
    patterns = list(reader.tf_record_input_reader.input_path)
    weights = list(reader.sample_from_datasets_weights)
    if not weights:
        return RecordSource(scan_files(patterns, issue), options, seed)
    sources = [
        RecordSource(scan_files([pattern], issue), options, seed + number) for number, pattern in enumerate(patterns)
    ]
    return WeightedSources(sources, weights, seed)
