"""The input pipeline: stream of records -> decoded, augmented, resized, padded, batched ``Batch``es.

    RecordStream.stream -> RecordDecoder -> augmentations -> Resizer -> padding to N objects -> batch -> prefetch
                           (+ proposals of a file)                      (and R proposals)

Determinism: the augmentation of a record depends on (seed, its position in the stream) only. So a pipeline that starts
at position k yields what a fresh one yields from there on, and n pipelines that share a stream (one for each worker)
together yield the records that one pipeline yields. A dropped record leaves a gap in ``Batch.record_index``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import cast

import tensorflow as tf

from detzoo.contracts import PADDING_CLASS, Batch, Context, Groundtruth, Proposals, Tensor
from detzoo.data.augment.apply import Augmentation, augment, record_seed, uniforms
from detzoo.data.augment.color import RECOLORINGS
from detzoo.data.decode import Decoded, RecordDecoder
from detzoo.data.issue_counter import REASONS, IssueCounter, count_vector
from detzoo.data.proposals import ProposalTable, attach_proposals
from detzoo.data.records import RecordSource, RecordStream, as_written, dataset_options
from detzoo.data.resize import Resizer
from detzoo.data.sample import Sample, merge_labels
from detzoo.data.sequences import images_of


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """Options of batching. ``shard`` of ``num_shards`` pipelines takes every num_shards-th record."""

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
    draw_sizes: bool = False  # in training: a size is drawn for each image if the resizer has several
    max_context_features: int = 0  # N of Batch.context; 0 leaves it empty
    is_sequence: bool = False  # a record is a sequence of images, see ``DecodeOptions``
    frame_index: int = -1  # image of a sequence that training reads; -1 draws one
    data_service: str = ""  # address of a tf.data service, whose workers run all stages before batching; "" for none
    merged_classes: int = 0  # K' of Groundtruth.label_sets: boxes with several labels become one; 0 leaves them


def make_batches(
    source: RecordStream,
    decoder: RecordDecoder,
    augmentations: Sequence[Augmentation],
    resizer: Resizer,
    options: BatchOptions,
    issues: IssueCounter | None = None,
    proposals: ProposalTable | None = None,
) -> tf.data.Dataset:
    """Builds the whole pipeline; see the module for its parts.

    Args:
        source, decoder, resizer, options: Parts of the pipeline.
        augmentations: Applied in this order; empty for evaluation.
        issues: Takes the counts of repaired and dropped objects and records.
        proposals: Source of ``Batch.proposals``; None leaves them empty.

    Returns:
        A dataset of ``Batch`` with static shapes wherever resizer and ``drop_remainder`` allow.
    """
    issues = issues if issues is not None else IssueCounter()
    # The check of the config refuses other sources for a service.
    read = cast(RecordSource, source).divisible_stream if options.data_service else source.stream
    records = read(options.start, options.num_epochs, options.num_shards, options.shard)
    if options.is_sequence:
        records = images_of(records, options.seed, options.draw_sizes, options.frame_index)

    def decode(index: Tensor, *serialized: Tensor) -> tuple[Tensor, Decoded]:
        record = decoder(*serialized)
        return index, record if proposals is None else attach_proposals(record, proposals)

    decoded = records.map(as_written(decode), tf.data.AUTOTUNE, deterministic=True)
    decoded = decoded.ignore_errors()
    if options.data_service:
        decoded = decoded.map(as_written(_print_found)).filter(lambda _, record: record.usable)
    else:
        decoded = _usable_records(decoded, options, issues)

    functions = [getattr(step, "func", step) for step in augmentations]
    num_first = len(functions) - len(list(itertools.takewhile(RECOLORINGS.__contains__, reversed(functions))))

    def finish(index: Tensor, record: Decoded) -> Batch:
        chosen = resizer
        if options.draw_sizes:
            chosen = resizer.drawn(uniforms(record_seed(options.seed, "size", index), 1)[0])
        sample = augment(record.sample, augmentations[:num_first], options.seed, index)
        if num_first < len(augmentations):
            # Differs from the Object Detection API: colors change after an image has shrunk, which has fewer pixels.
            sample = sample._replace(image=chosen.shrunk(sample.image))
            sample = augment(sample, augmentations[num_first:], options.seed, index, num_first)
        return _to_example(record, sample, index, chosen, options)

    def finish_batch(batch: Batch) -> Batch:
        if None in resizer.static_shape:  # padded to the largest image, by zeros
            batch = batch._replace(images=resizer.fill_padding(batch.images, batch.true_shapes))
        return to_padded_fractions(batch)

    examples = decoded.map(as_written(finish), tf.data.AUTOTUNE, deterministic=True)
    if options.data_service:
        mode = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        examples = examples.apply(tf.data.experimental.service.distribute(mode, options.data_service))
    join = examples.padded_batch if None in resizer.static_shape else examples.batch
    batches = join(options.batch_size, drop_remainder=options.drop_remainder)
    batches = batches.map(as_written(finish_batch), tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(options.num_prefetch_batches).with_options(dataset_options())


def _usable_records(decoded: tf.data.Dataset, options: BatchOptions, issues: IssueCounter) -> tf.data.Dataset:
    """Drops unusable records and epoch marks; counts data issues, and as "unreadable" the gaps that errors left.

    An epoch without a single usable record stops the pipeline, because an endless one would search forever.
    """
    first = options.start + (options.shard - options.start) % options.num_shards
    state = (tf.cast(first, tf.int64), tf.constant(0, tf.int64), tf.constant(0, tf.int64))

    def account(state: tuple[Tensor, ...], element: tuple[Tensor, Decoded]) -> tuple[tuple[Tensor, ...], tuple]:
        expected, num_usable, num_seen = state
        index, record = element
        is_mark = index < 0
        position = tf.where(is_mark, -1 - index, index)
        missed = tf.maximum(position - expected + options.num_shards - 1, 0) // options.num_shards
        found = tf.where(is_mark, tf.zeros_like(record.issues), record.issues)
        found += missed * tf.constant(count_vector(unreadable=1))
        reported = _report(found, position, is_mark, issues)
        usable = ~is_mark & record.usable
        num_usable += tf.cast(usable, tf.int64)
        # Further images of a sequence have its position again.
        num_new = missed + tf.cast(~is_mark & (position >= expected), tf.int64)
        num_seen += num_new
        with tf.control_dependencies([reported, _check_epoch(is_mark, num_usable, num_seen)]):
            expected = expected + num_new * options.num_shards
        zero = tf.zeros_like(num_usable)
        state = (expected, tf.where(is_mark, zero, num_usable), tf.where(is_mark, zero, num_seen))
        return state, (index, record._replace(usable=usable))

    return decoded.scan(state, as_written(account)).filter(lambda _, record: record.usable)


def _print_issues(found: Tensor, position: Tensor) -> Tensor:
    names = tf.boolean_mask(tf.constant(REASONS), found > 0)
    with tf.control_dependencies([tf.print("data issues at or before record", position, "of the stream:", names)]):
        return tf.constant(True)


def _print_if_any(found: Tensor, position: Tensor) -> Tensor:
    return tf.cond(tf.reduce_any(found > 0), lambda: _print_issues(found, position), lambda: tf.constant(True))


def _print_found(position: Tensor, record: Decoded) -> tuple[Tensor, Decoded]:
    with tf.control_dependencies([_print_if_any(record.issues, position)]):
        return tf.identity(position), record


def _report(found: Tensor, position: Tensor, is_mark: Tensor, issues: IssueCounter) -> Tensor:
    """Adds the vector to the counter, calling Python only if there is something to add or an epoch ends."""

    def add(vector, position, is_mark):  # type: ignore[no-untyped-def]
        issues.add(vector, where=f"at or before record {position} of the stream")
        if is_mark:
            issues.end_epoch(position)
        return True

    if issues.is_remote:
        return _print_if_any(found, position)
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


def _padded(rows: Tensor, count: int, value: float | int | bool = 0) -> Tensor:
    """Returns the first ``count`` rows, with rows of ``value`` behind them if there are fewer."""
    rows = rows[:count]
    paddings = [[0, count - tf.shape(rows)[0]]] + [[0, 0]] * (rows.shape.rank - 1)
    padded = tf.pad(rows, paddings, constant_values=tf.cast(value, rows.dtype))
    return tf.ensure_shape(padded, [count, *rows.shape[1:]])


def _to_example(record: Decoded, sample: Sample, index: Tensor, resizer: Resizer, options: BatchOptions) -> Batch:
    """Resizes image and masks, and pads the objects; returns a Batch without the dimension B."""
    limit = options.max_number_of_boxes
    label_sets: Tensor | tuple[()] = ()
    if options.merged_classes:
        sample, label_sets = merge_labels(sample, options.merged_classes)
        label_sets = _padded(label_sets, limit, False)
    image, true_shape = resizer(sample.image)
    masks = tf.zeros([limit, 0, 0], tf.uint8) if sample.masks is None else _padded(resizer.masks(sample.masks), limit)
    objects = Groundtruth(
        boxes_norm=_padded(sample.boxes_norm, limit),
        classes=_padded(sample.classes, limit, PADDING_CLASS),
        weights=_padded(sample.weights, limit),
        is_crowd=_padded(sample.is_crowd, limit, False),
        is_difficult=_padded(sample.is_difficult, limit, False),
        area_px=_padded(sample.area_px, limit),
        masks=masks,
        label_sets=label_sets,
    )
    if sample.keypoints_norm is not None:
        objects = objects._replace(
            keypoints_norm=_padded(sample.keypoints_norm, limit),
            keypoint_visibility=_padded(sample.keypoint_visibility, limit),
        )
    proposals: Proposals | tuple[()] = ()
    if sample.proposals_norm is not None:
        proposals = _best_proposals(sample.proposals_norm, sample.proposal_scores, options.max_number_of_proposals)
    context: Context | tuple[()] = ()
    if options.max_context_features:
        context = Context(_padded(record.context, options.max_context_features), tf.shape(record.context)[0])
    return Batch(
        images=image,
        true_shapes=true_shape,
        original_shapes=tf.ensure_shape(tf.shape(record.sample.image)[:2], [2]),
        image_ids=tf.where(record.image_id == "", tf.strings.as_string(index), record.image_id),
        record_index=index,
        groundtruth=objects,
        proposals=proposals,
        labeled_classes=record.labeled_classes,
        context=context,
    )


def _best_proposals(boxes: Tensor, scores: Tensor, max_proposals: int) -> Proposals:
    """Returns the best proposals that still have an area, padded to ``max_proposals`` rows."""
    kept = tf.where(tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1))[:, 0]
    # Sorted again: after a join with itself, the picture has every proposal twice.
    order = tf.argsort(tf.gather(scores, kept), direction="DESCENDING", stable=True)
    kept = tf.gather(kept, order[:max_proposals])
    boxes, scores = (_padded(tf.gather(field, kept), max_proposals) for field in (boxes, scores))
    return Proposals(boxes, scores, tf.size(kept))


def to_padded_fractions(batch: Batch) -> Batch:
    """Turns fractions of the true image into fractions of the padded input, whose size is known only now."""
    padded_shape = tf.cast(tf.shape(batch.images)[1:3], tf.float32)
    scale = tf.tile(tf.cast(batch.true_shapes, tf.float32) / padded_shape, [1, 2])[:, tf.newaxis]
    objects = batch.groundtruth
    proposals = batch.proposals
    if isinstance(proposals, Proposals):
        proposals = proposals._replace(boxes_norm=proposals.boxes_norm * scale)
    objects = objects._replace(boxes_norm=objects.boxes_norm * scale)
    if not isinstance(objects.keypoints_norm, tuple):
        objects = objects._replace(keypoints_norm=objects.keypoints_norm * scale[:, :, tf.newaxis, :2])
    return batch._replace(
        groundtruth=objects,
        proposals=proposals,
    )
