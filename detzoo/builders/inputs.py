"""``train_input_reader`` or ``eval_input_reader`` of a config -> a dataset of ``Batch``es (floor 5)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.builders.augment import build_augmentations
from detzoo.builders.classification_inputs import build_class_dataset, names_of, read_options
from detzoo.builders.resize import build_resizer
from detzoo.config import pb
from detzoo.config.check.pipeline import require
from detzoo.config.check.readers import check_reader
from detzoo.config.label_map import load_label_map
from detzoo.data.batches import BatchOptions, make_batches
from detzoo.data.class_images import ClassifierResizer
from detzoo.data.decode import ClassNames, DecodeOptions, RecordDecoder
from detzoo.data.issue_counter import IssueCounter
from detzoo.data.proposals import ProposalTable, check_images, read_proposals
from detzoo.data.records import (
    RecordSource,
    RecordStream,
    WeightedSources,
    check_context,
    check_kind,
    check_masks,
    scan_files,
)
from detzoo.data.resize import Resizer
from detzoo.errors import ConfigError


def build_dataset(
    reader: pb.InputReader,
    resizer: Resizer | pb.ImageResizer,
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
    context: pb.Context | None = None,
) -> tf.data.Dataset:
    """Builds the input pipeline of a config.

    Args:
        reader: ``pb.InputReader``.
        resizer: The model's, from ``build_model_resizer``, or the ``pb.ImageResizer`` of a model that pads with black.
        train_config: ``pb.TrainConfig`` with augmentations and ``max_number_of_boxes``; None for evaluation.
        training: True for augmented images, endless unless ``num_epochs`` is set, full batches only
            (``drop_remainder``). False for the records as they are, one epoch, the last batch maybe smaller.
        batch_size: Images per global batch. With an ``input_context`` it is divided by the number of replicas.
        seed: Seed of order and augmentation. The same seed gives the same batches.
        start_record: Position in the stream of records at which to start. To continue after a batch, give one more
            than the highest ``Batch.record_index`` of all workers.
        input_context: From ``tf.distribute``. Pipeline i of n reads the records i, i + n, ... of the same order.
        issue: Counts the data issues that are repaired or dropped. The counts are always logged, too.
        image_labels: Fill ``Batch.labeled_classes`` from the labels of whole images.
        all_proposals: Look for the proposals of every record before decoding starts. Then a record without them is an
            error. By default only the first records are looked at, and others without proposals count as data issues.
        context: The ``pb.Context`` of a model that attends to a memory, from ``stages.memory_of``; None for others.

    Returns:
        A dataset of ``Batch``; heights and widths are static with resizers of fixed output.

    Raises:
        ConfigError: The reader breaks a rule of ``detzoo config check``, or ``batch_size`` cannot be divided.
        DataError: An ``input_path`` matches no file, the files hold no records, or ``proposals_path`` cannot be read
            or is of other images.
    """
    kind = "spp_classifier" if isinstance(resizer, ClassifierResizer) else None
    require(reader, "input_reader", lambda block, findings: check_reader(block, findings, kind))
    issue = issue if issue is not None else IssueCounter()
    num_boxes = reader.max_number_of_boxes
    merges_labels = False
    if training and train_config is not None:
        num_boxes, merges_labels = train_config.max_number_of_boxes, train_config.merge_multiple_label_boxes
    options = BatchOptions(
        batch_size=_per_replica(batch_size, input_context),
        drop_remainder=training and reader.drop_remainder,
        start=start_record,
        num_epochs=1 if not training else reader.num_epochs or None,
        seed=seed,
        num_shards=input_context.num_input_pipelines if input_context else 1,
        shard=input_context.input_pipeline_id if input_context else 0,
        num_prefetch_batches=reader.num_prefetch_batches if reader.num_prefetch_batches > 0 else tf.data.AUTOTUNE,
        draw_sizes=training,
    )
    steps = build_augmentations(train_config.data_augmentation_options if training and train_config is not None else ())
    if isinstance(resizer, ClassifierResizer):
        return build_class_dataset(reader, resizer, steps, options, training, issue)
    data_service = reader.data_service if training else ""
    names = names_of(load_label_map(reader.label_map_path), bool(data_service)) if reader.label_map_path else None
    is_sequence = reader.input_type == pb.TF_SEQUENCE_EXAMPLE
    max_context_features = context.max_num_context_features if context and reader.load_context_features else 0
    decode_options = DecodeOptions(
        max_number_of_boxes=num_boxes,
        load_instance_masks=reader.load_instance_masks,
        png_masks=reader.mask_type == pb.PNG_MASKS,
        num_keypoints=reader.num_keypoints,
        load_image_labels=image_labels,
        is_sequence=is_sequence,
        max_context_features=max_context_features,
        context_length=context.context_feature_length if context else 0,
    )
    options = dataclasses.replace(
        options,
        max_number_of_boxes=num_boxes,
        max_number_of_proposals=reader.max_number_of_proposals,
        max_context_features=max_context_features,
        is_sequence=is_sequence,
        frame_index=reader.frame_index,
        data_service=data_service,
        merged_classes=_num_classes(names) if merges_labels else 0,
    )
    source = build_source(reader, seed, issue)
    if reader.load_instance_masks:
        check_masks(source, decode_options.png_masks)
    if is_sequence or max_context_features:
        check_kind(source, is_sequence)
    if max_context_features:
        check_context(source, decode_options.context_length, is_sequence)
    return make_batches(
        source,
        RecordDecoder(decode_options, names),
        steps,
        resizer if isinstance(resizer, Resizer) else build_resizer(resizer),
        options,
        issue,
        _proposals(reader, source, all_proposals),
    )


def _proposals(reader: pb.InputReader, source: RecordStream, all_records: bool) -> ProposalTable | None:
    """Returns the table of ``proposals_path`` after the check that it belongs to these records."""
    if not reader.proposals_path:
        return None
    table = read_proposals(reader.proposals_path)
    check_images(table, source, all_records=all_records)
    return table


def _num_classes(names: ClassNames | None) -> int:
    if names is None:
        raise ConfigError("merge_multiple_label_boxes needs the label map: set label_map_path of the input reader")
    return names.num_classes


def _per_replica(batch_size: int, input_context: tf.distribute.InputContext | None) -> int:
    num_replicas = input_context.num_replicas_in_sync if input_context else 1
    if batch_size <= 0 or batch_size % num_replicas:
        raise ConfigError(f"batch_size {batch_size} must be above 0 and a multiple of {num_replicas}, the replicas")
    return batch_size // num_replicas


def build_source(reader: pb.InputReader, seed: int = 0, issue: IssueCounter | None = None) -> RecordStream:
    """Builds one source of all files, or with ``sample_from_datasets_weights`` one per ``input_path``."""
    issue = issue if issue is not None else IssueCounter()
    options = read_options(reader)
    patterns = list(reader.tf_record_input_reader.input_path)
    weights = list(reader.sample_from_datasets_weights)
    if not weights:
        return RecordSource(scan_files(patterns, issue), options, seed)
    sources = [
        RecordSource(scan_files([pattern], issue), options, seed + number) for number, pattern in enumerate(patterns)
    ]
    return WeightedSources(sources, weights, seed)
