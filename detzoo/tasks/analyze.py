"""Draws the figures of the focal loss paper."""

from __future__ import annotations

import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from detzoo.errors import ConfigError, UsageError
from detzoo.folders import make_folder
from detzoo.tasks.models import EVAL_READER, Pipeline, build_test_dataset, load_checked, restored, start_tensorflow

GAMMAS = (0.0, 0.5, 1.0, 2.0)

logger = logging.getLogger(__name__)


class FocalAnalysis(NamedTuple):
    """The written files."""

    curves: list[pathlib.Path]  # figures 1, 5 and 6
    distribution: list[pathlib.Path]  # figure 4, [] without a detector
    table: str  # of how the loss is distributed, "" without a detector


def analyze_focal(
    output_dir: str | pathlib.Path,
    *,
    stars: Sequence[tuple[float, float]] = (),
    pipeline: Pipeline | None = None,
    checkpoint_dir: str | None = None,
    overrides: Sequence[str] = (),
    gammas: Sequence[float] = GAMMAS,
    num_images: int = 0,
    num_positives: int = 100_000,
    num_negatives: int = 10_000_000,
    seed: int = 0,
) -> FocalAnalysis:
    """Draws the curves of the focal loss and, for a trained detector, how its loss is distributed over the examples.

    Args:
        output_dir: Folder for the figures, PNG, SVG and CSV each.
        stars: (gamma, beta) of each FL* in figures 5 and 6; empty for those of the paper.
        pipeline: Config of a one-stage detector, for figure 4; then ``checkpoint_dir`` is required.
        checkpoint_dir: See ``detzoo.tasks``.
        overrides: See ``detzoo.tasks``.
        gammas: Gammas of the focal loss in figure 4; 0 is cross entropy.
        num_images: Images of the first eval_input_reader that are used; 0 for all.
        num_positives: Positive examples at most, chosen at random.
        num_negatives: Negative examples at most; ten million take about 1 GB of memory.
        seed: Seed of that choice.
    """
    if bool(pipeline) != bool(checkpoint_dir):
        raise UsageError("give both --pipeline_config_path and --checkpoint_dir for figure 4, or neither")
    loaded = None
    if pipeline:
        loaded = load_checked(pipeline, overrides, reads=EVAL_READER)
        _check_message(loaded.message, loaded.path)
    start_tensorflow()
    from detzoo.analyze.focal_report import format_distribution, write_curves, write_distribution
    from detzoo.analyze.loss_curves import FIGURE_5_STARS

    detector = None
    if loaded is not None:
        detector, _ = restored(loaded.message.model, checkpoint_dir or "")
    folder = make_folder(output_dir, "--output_dir")
    curves = write_curves(folder, list(stars) or FIGURE_5_STARS)
    if loaded is None:
        return FocalAnalysis(curves, [], "")
    from detzoo.analyze.loss_distribution import collect_examples, distributions

    logger.info("tracing the detector and reading the first images")
    examples = collect_examples(
        detector,
        build_test_dataset(loaded.message, loaded.message.eval_input_reader[0]),
        max_images=num_images,
        max_positives=num_positives,
        max_negatives=num_negatives,
        seed=seed,
        show_progress=sys.stderr.isatty(),
    )
    losses = distributions(examples, gammas)
    return FocalAnalysis(curves, write_distribution(folder, losses), format_distribution(losses))


def _check_message(message: Any, path: str) -> None:
    """Reports what the config lacks for figure 4, before TensorFlow starts."""
    kind = message.model.WhichOneof("model")
    if kind != "ssd":
        raise ConfigError(
            f"{path}: figure 4 is of a detector that classifies every anchor, model.ssd (SSD, RetinaNet, "
            f"EfficientDet); this one has model.{kind}"
        )
    if message.model.ssd.loss.classification_loss.HasField("weighted_softmax"):
        raise ConfigError(
            f"{path}: model.ssd.loss.classification_loss.weighted_softmax makes one decision for all classes of an "
            "anchor, but the focal loss is one for each; accepted: a model that is trained by a sigmoid loss, such as "
            "weighted_sigmoid_focal"
        )
    if not message.eval_input_reader:
        raise ConfigError(f"{path} has no eval_input_reader, whose images figure 4 is made from")
