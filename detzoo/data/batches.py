"""The input pipeline: stream of records -> decoded, augmented, resized, padded, batched ``Batch``es.

    RecordSource.stream -> RecordDecoder -> augmentations -> Resizer -> padding to N objects -> batch -> prefetch
                           (+ proposals of a file)                      (and R proposals)

Determinism: the augmentation of a record depends on (seed, its position in the stream) only. So a pipeline that starts
at position k yields what a fresh one yields from there on, and n pipelines that share a stream (one for each worker)
together yield the records that one pipeline yields. A dropped record leaves a gap in ``Batch.record_index``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from detzoo.contracts import PADDING_CLASS, Batch, Groundtruth, Proposals, Tensor
from detzoo.data.augment.apply import Augmentation, augment, record_seed, uniforms
from detzoo.data.decode import Decoded, RecordDecoder
from detzoo.data.issue_counter import IssueCounter, count_vector
from detzoo.data.merge_labels import merge_labels
from detzoo.data.proposals import ProposalTable, attach_proposals
from detzoo.data.records import RecordStream, as_written, dataset_options
from detzoo.data.resize import Resizer
from detzoo.data.sample import Sample


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """How samples become batches. ``shard`` of ``num_shards`` pipelines takes every num_shards-th record."""

    batch_size: int
    max_number_of_boxes: int = 100
    max_number_of_proposals: int = 2000
    drop_remainder: bool = True
    start: int = 0  # position in the stream of records
    num_epochs: int | None = None  # None: endless
    seed: int = 0
    num_shards: int = 1
    shard: int = 0
    num_prefetch_batches: int = 2
    draw_sizes: bool = False  # each image's size is drawn, where the resizer has several: in training
    merged_classes: int = 0  # K' of Groundtruth.label_sets: boxes with several labels become one; 0 leaves them


class _Example(NamedTuple):
    """One padded example before batching; boxes are fractions of the true image."""

    image: Tensor
    true_shape: Tensor
    original_shape: Tensor
    image_id: Tensor
    record_index: Tensor
    objects: Groundtruth
    proposals: Proposals | tuple[()]
    labeled_classes: Tensor | tuple[()]


def make_batches(
    source: RecordStream,
    decoder: RecordDecoder,
    augmentations: Sequence[Augmentation],
    resizer: Resizer,
    options: BatchOptions,
    issue: IssueCounter | None = None,
    proposals: ProposalTable | None = None,
) -> tf.data.Dataset:
    """The whole pipeline.

    Args:
        source: where records come from.
        decoder: record -> ``Decoded``.
        augmentations: applied in this order; empty for evaluation.
        resizer: the model's image resizer.
        options: batch size, position, seed.
        issue: gets the counts of what was repaired and dropped.
        proposals: what ``Batch.proposals`` is filled from; None leaves it empty.

    Returns:
        A dataset of ``Batch`` with static shapes wherever resizer and ``drop_remainder`` allow.
    """
    issue = issue if issue is not None else IssueCounter()
    records = source.stream(options.start, options.num_epochs, options.num_shards, options.shard)

    def decode(index: Tensor, serialized: Tensor) -> tuple[Tensor, Decoded]:
        record = decoder(serialized)
        return index, record if proposals is None else attach_proposals(record, proposals)

    decoded = records.map(as_written(decode), tf.data.AUTOTUNE, deterministic=True)
    decoded = _usable_records(decoded.ignore_errors(), options, issue)

    def finish(index: Tensor, record: Decoded) -> _Example:
        sample = augment(record.sample, augmentations, options.seed, index)
        chosen = resizer
        if options.draw_sizes:
            chosen = resizer.drawn(uniforms(record_seed(options.seed, "size", index), 1)[0])
        return _to_example(record, sample, index, chosen, options)

    examples = decoded.map(as_written(finish), tf.data.AUTOTUNE, deterministic=True)
    if None in resizer.static_shape:
        batches = examples.padded_batch(options.batch_size, drop_remainder=options.drop_remainder).map(
            as_written(lambda example: _fill_padding(example, resizer)), tf.data.AUTOTUNE, deterministic=True
        )
    else:
        batches = examples.batch(options.batch_size, drop_remainder=options.drop_remainder)
    batches = batches.map(as_written(_to_batch), tf.data.AUTOTUNE, deterministic=True).prefetch(
        options.num_prefetch_batches
    )
    return batches.with_options(dataset_options())


def _usable_records(decoded: tf.data.Dataset, options: BatchOptions, issue: IssueCounter) -> tf.data.Dataset:
    """Drops unusable records and epoch marks; counts data issues, and as "unreadable" the gaps that errors left.

    An epoch in which not one record was usable stops the pipeline, because an endless one would search forever.
    """
    first = options.start + (options.shard - options.start) % options.num_shards
    state = (tf.constant(first, tf.int64), tf.constant(0, tf.int64), tf.constant(0, tf.int64))

    def account(state: tuple[Tensor, ...], element: tuple[Tensor, Decoded]) -> tuple[tuple[Tensor, ...], tuple]:
        expected, num_usable, num_seen = state
        index, record = element
        is_mark = index < 0
        position = tf.where(is_mark, -1 - index, index)
        missed = tf.maximum(position - expected + options.num_shards - 1, 0) // options.num_shards
        found = tf.where(is_mark, tf.zeros_like(record.issue), record.issue)
        found += missed * tf.constant(count_vector(unreadable=1))
        reported = _report(found, position, is_mark, issue)
        usable = ~is_mark & record.usable
        num_usable += tf.cast(usable, tf.int64)
        num_seen += missed + tf.cast(~is_mark, tf.int64)
        with tf.control_dependencies([reported, _check_epoch(is_mark, num_usable, num_seen)]):
            expected = expected + (missed + tf.cast(~is_mark, tf.int64)) * options.num_shards
        zero = tf.zeros_like(num_usable)
        state = (expected, tf.where(is_mark, zero, num_usable), tf.where(is_mark, zero, num_seen))
        return state, (index, record._replace(usable=usable))

    return decoded.scan(state, as_written(account)).filter(lambda _, record: record.usable)


def _report(found: Tensor, position: Tensor, is_mark: Tensor, issue: IssueCounter) -> Tensor:
    """Adds the vector to the counter, calling Python only if there is something to add or an epoch ends."""

    def add(vector, position, is_mark):  # type: ignore[no-untyped-def]
        issue.add(vector, where=f"at or before record {position} of the stream")
        if is_mark:
            issue.end_epoch(position)
        return True

    return tf.cond(
        is_mark | tf.reduce_any(found > 0),
        lambda: tf.numpy_function(add, [found, position, is_mark], tf.bool),
        lambda: tf.constant(True),
    )


def _check_epoch(is_mark: Tensor, num_usable: Tensor, num_seen: Tensor) -> tf.Operation:
    message = (
        "none of the records of a whole epoch is usable: check that the files hold tf.Examples with image/encoded, and "
        "the log for what was found"
    )
    return tf.debugging.Assert(~is_mark | (num_usable > 0) | (num_seen == 0), [message, num_seen])


def _to_example(record: Decoded, sample: Sample, index: Tensor, resizer: Resizer, options: BatchOptions) -> _Example:
    """Resizes the image and masks, and pads the objects to ``max_number_of_boxes`` rows."""
    max_boxes = options.max_number_of_boxes
    label_sets: Tensor | tuple[()] = ()
    if options.merged_classes:
        sample, label_sets = merge_labels(sample, options.merged_classes)
    image, true_shape = resizer(sample.image)
    masks = None if sample.masks is None else resizer.masks(sample.masks)
    count = tf.minimum(tf.shape(sample.boxes_norm)[0], max_boxes)

    def pad(field: Tensor, value: float | int | bool = 0) -> Tensor:
        rows = [[0, max_boxes - count]] + [[0, 0]] * (field.shape.rank - 1)
        padded = tf.pad(field[:count], rows, constant_values=tf.cast(value, field.dtype))
        return tf.ensure_shape(padded, [max_boxes, *field.shape[1:]])

    objects = Groundtruth(
        boxes_norm=pad(sample.boxes_norm),
        classes=pad(sample.classes, PADDING_CLASS),
        weights=pad(sample.weights),
        is_crowd=pad(sample.is_crowd, False),
        is_difficult=pad(sample.is_difficult, False),
        area_px=pad(sample.area_px),
        masks=tf.zeros([max_boxes, 0, 0], tf.uint8) if masks is None else pad(masks),
        label_sets=label_sets if isinstance(label_sets, tuple) else pad(label_sets, False),
    )
    image_id = tf.where(record.image_id == "", tf.strings.as_string(index), record.image_id)
    original_shape = tf.ensure_shape(tf.shape(record.sample.image)[:2], [2])
    proposals: Proposals | tuple[()] = ()
    if sample.proposals_norm is not None:
        limit = options.max_number_of_proposals
        proposals = _best_proposals(sample.proposals_norm, sample.proposal_scores, limit)
    return _Example(image, true_shape, original_shape, image_id, index, objects, proposals, record.labeled_classes)


def _best_proposals(boxes: Tensor, scores: Tensor, max_proposals: int) -> Proposals:
    """The best proposals that still have an area, padded to ``max_proposals`` rows; fractions of the true image."""
    kept = tf.where(tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1))[:, 0]
    # Sorted again, because an image that is put beside itself has every proposal twice.
    order = tf.argsort(tf.gather(scores, kept), direction="DESCENDING", stable=True)
    kept = tf.gather(kept, order[:max_proposals])
    count = tf.size(kept)

    def pad(field: Tensor) -> Tensor:
        padded = tf.pad(tf.gather(field, kept), [[0, max_proposals - count]] + [[0, 0]] * (field.shape.rank - 1))
        return tf.ensure_shape(padded, [max_proposals, *field.shape[1:]])

    return Proposals(pad(boxes), pad(scores), count)


def _fill_padding(example: _Example, resizer: Resizer) -> _Example:
    """Images of several sizes, padded to the largest, with the resizer's colour around them."""
    return example._replace(image=resizer.fill_padding(example.image, example.true_shape))


def _to_batch(example: _Example) -> Batch:
    """Turns fractions of the true image into fractions of the padded input, whose size is known only now."""
    padded_shape = tf.cast(tf.shape(example.image)[1:3], tf.float32)
    scale = tf.tile(tf.cast(example.true_shape, tf.float32) / padded_shape, [1, 2])
    scale = scale[:, tf.newaxis]
    objects = example.objects._replace(boxes_norm=example.objects.boxes_norm * scale)
    proposals = example.proposals
    if isinstance(proposals, Proposals):
        proposals = proposals._replace(boxes_norm=proposals.boxes_norm * scale)
    return Batch(
        images=example.image,
        true_shapes=example.true_shape,
        original_shapes=example.original_shape,
        image_ids=example.image_id,
        record_index=example.record_index,
        groundtruth=objects,
        proposals=proposals,
        labeled_classes=example.labeled_classes,
    )
