"""Writes proposals.npz files for the input readers of a second stage."""

from __future__ import annotations

import functools
import logging
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detzoo.datasets.selective_search import SearchOptions, find_opencv, load_search, search_images
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import make_folder
from detzoo.tasks.models import (
    EVAL_READER,
    TRAIN_READER,
    Pipeline,
    build_test_dataset,
    load_checked,
    restored,
    start_tensorflow,
)

if TYPE_CHECKING:
    from detzoo.datasets.proposal_search import SearchSummary

logger = logging.getLogger(__name__)


def propose(
    pipeline: Pipeline,
    checkpoint_dir: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    reads: str = TRAIN_READER,
    max_proposals: int | None = None,
    overrides: Sequence[str] = (),
) -> int:
    """Writes the proposals of a first stage for every image of an input reader, each image once and without changes.

    Args:
        pipeline: Config of the first stage, or of a two-stage detector that contains it.
        checkpoint_dir: Checkpoint of the first stage, see ``detzoo.tasks``.
        output: The proposals.npz to write.
        reads: The input reader, ``TRAIN_READER`` or ``EVAL_READER``.
        max_proposals: Proposals per image at most; None for as many as the config trains with.
        overrides: See ``detzoo.tasks``.

    Returns:
        The number of images.

    Raises:
        ConfigError: The config has errors, or is not of a two-stage detector.
    """
    from detzoo.recipes.four_step_plan import config_of_proposals

    loaded = load_checked(pipeline, overrides)
    asked = loaded.message
    if not asked.model.HasField("faster_rcnn"):
        kind = asked.model.WhichOneof("model")
        raise ConfigError(f"{loaded.path}: model.{kind} has no first stage that proposes; accepted: model.faster_rcnn")
    if reads == EVAL_READER:
        asked.train_input_reader.CopyFrom(asked.eval_input_reader[0])
    if max_proposals is not None:
        asked.model.faster_rcnn.first_stage_max_proposals = max_proposals
        asked.model.faster_rcnn.ClearField("first_stage_max_proposals_in_training")
    start_tensorflow()
    count = write_training_proposals(config_of_proposals(asked), pathlib.Path(checkpoint_dir), pathlib.Path(output))
    logger.info("proposals of %d images are in %s", count, output)
    return count


def write_training_proposals(message: Any, checkpoint_dir: pathlib.Path, file: pathlib.Path) -> int:
    """Writes the proposals for the ``train_input_reader`` of a message from ``config_of_proposals``.

    Returns:
        The number of images.
    """
    from detzoo.evaluate.report import write_proposals_of
    from detzoo.evaluate.runner import Evaluator

    detector, _ = restored(message.model, checkpoint_dir)
    dataset = build_test_dataset(message, message.train_input_reader)
    evaluator = Evaluator(dataset, {}, show_progress=sys.stderr.isatty(), title="propose")
    images = evaluator.detect(detector)
    write_proposals_of(images, file)
    return len(images)


def search(
    output: str | pathlib.Path,
    *,
    records: str = "",
    images: Sequence[str] = (),
    options: SearchOptions | None = None,
    num_workers: int = 0,
    opencv_folder: str = "",
    beam_options: Any = None,
) -> SearchSummary:
    """Writes the windows that selective search finds in records or image files; an interrupted search is resumed.

    Args:
        output: The proposals.npz to write.
        records: TFRecord files: a path, a glob, stem@10, or several, separated by commas; or give ``images``.
        images: Image files, folders and globs.
        options: Mode and sizes of the search.
        num_workers: Processes; 0 for one per core.
        opencv_folder: Folder of OpenCV's contrib build; "" for the usual places.
        beam_options: ``PipelineOptions`` of Apache Beam, to search by a pipeline; None for processes of this machine.
    """
    if bool(records) == bool(images):
        raise UsageError("`detzoo proposals` needs --input_path (records), or --images instead of it")
    file = pathlib.Path(output)
    if file.is_dir():
        raise UsageError(f"--output {file} is a folder; give the file to write, such as {file}/proposals.npz")
    options = options or SearchOptions(turns_upright=bool(images))
    if options.edge_model and not os.path.isfile(options.edge_model):
        raise UsageError(f"--edge_model: there is no file {options.edge_model}")
    found_opencv = find_opencv(opencv_folder)
    make_folder(file.parent, "--output")
    from detzoo.datasets.proposal_search import images_of_files, images_of_records, write_searched
    from detzoo.files.image_files import find_images

    start_tensorflow()
    if images:
        files = find_images(images)
        num_images, contents = len(files), images_of_files(files)
    else:
        num_images, contents = images_of_records(records)
    if beam_options is None:
        num_workers = min(num_workers or os.cpu_count() or 1, max(num_images, 1))
        run = functools.partial(search_images, options=options, opencv_folder=found_opencv, num_workers=num_workers)
    else:
        from detzoo.tasks.beam_pipelines import apply_by_beam

        load = functools.partial(load_search, options, found_opencv)
        run = functools.partial(apply_by_beam, beam_options, file.parent.absolute(), load)
    return write_searched(contents, num_images, file, options, run)
