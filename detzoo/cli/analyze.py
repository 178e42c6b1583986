"""``detzoo analyze focal``."""

from __future__ import annotations

import logging
import pathlib
import sys
from typing import Any

from absl import flags

from detzoo.cli.flags import define_pipeline_flags
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import make_folder
from detzoo.tasks.models import load_checked

SUMMARY = "Draw what the focal loss does: its curves, and how a trained detector's loss is shared out."
DESCRIPTION = """
Analyses of the papers, as pictures and as CSV files.

    detzoo analyze focal --output_dir=focal
    detzoo analyze focal --output_dir=focal --pipeline_config_path=model/pipeline.config --checkpoint_dir=model
"""

logger = logging.getLogger(__name__)


class Focal:
    """``detzoo analyze focal``."""

    SUMMARY = "Figures 1, 4, 5 and 6 of the focal loss paper."
    DESCRIPTION = """
    Writes, each as PNG, SVG and CSV:

        figure_1_focal_loss       the focal loss over the probability of the true class, for several gammas
        figure_5_loss_variants    cross entropy (CE), focal loss (FL) and its other form (FL*) over the logit
        figure_6_derivatives      their derivatives
        figure_4_cumulative_loss  with a config and a checkpoint: the share of the loss that the easiest positive and
                                  the easiest negative anchors of its eval_input_reader bear, for several gammas

        detzoo analyze focal --output_dir=focal --focal_star=2:1 --focal_star=4:0
        detzoo analyze focal --output_dir=focal --pipeline_config_path=model/pipeline.config --checkpoint_dir=model

    How to read figure 4: a curve on the diagonal means that all examples bear the same loss; the lower it is, the more
    of the loss is borne by few hard examples. The detector is the same for all gammas, whatever it was trained with. An
    example is one anchor and one class; it takes a model with a sigmoid for each class (model.ssd).
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--output_dir, what to draw, and for figure 4 the detector and how many examples."""
        text = "Where to write."
        flags.DEFINE_string("output_dir", None, text, flag_values=flag_values, required=True)
        text = "GAMMA:BETA of an FL* in figures 5 and 6; repeatable. Without it 2:1, 2:0.1 and 4:0."
        flags.DEFINE_multi_string("focal_star", [], text, flag_values=flag_values)
        define_pipeline_flags(flag_values, required=False)
        text = "For figure 4: folder with checkpoints (the newest is used), or the prefix of one."
        flags.DEFINE_string("checkpoint_dir", None, text, flag_values=flag_values)
        text = "Of the focal loss in figure 4, with commas between; 0 is cross entropy."
        flags.DEFINE_string("gammas", "0,0.5,1,2", text, flag_values=flag_values)
        text = "Images of the eval_input_reader for figure 4, the first ones; 0 for all."
        flags.DEFINE_integer("num_images", 0, text, lower_bound=0, flag_values=flag_values)
        text = "Positive examples for figure 4, chosen at random where there are more."
        flags.DEFINE_integer("num_positives", 100_000, text, lower_bound=1, flag_values=flag_values)
        text = "Negative examples for figure 4, likewise; ten million take about 1 GB of memory."
        flags.DEFINE_integer("num_negatives", 10_000_000, text, lower_bound=1, flag_values=flag_values)
        flags.DEFINE_integer("seed", 0, "Of that choice.", flag_values=flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Writes the curves, then figure 4 where a detector is given."""
        if bool(flag_values.pipeline_config_path) != bool(flag_values.checkpoint_dir):
            raise UsageError("give both --pipeline_config_path and --checkpoint_dir for figure 4, or neither")
        message = None
        path = flag_values.pipeline_config_path
        if path:
            message = load_checked(path, flag_values.set, reads="eval_input_reader[0]").message
            _check_message(message, path)
        elif flag_values.set:
            raise UsageError("--set changes a config; give --pipeline_config_path, too")
        from detzoo.tasks.models import start_tensorflow

        start_tensorflow()
        from detzoo.analyze.focal_report import write_curves
        from detzoo.analyze.loss_curves import FIGURE_5_STARS, parse_gammas, parse_stars

        stars = parse_stars(flag_values.focal_star) or FIGURE_5_STARS
        gammas = parse_gammas(flag_values.gammas.split(","))
        if message is not None:
            from detzoo.checkpoints.files import latest_prefix

            latest_prefix(flag_values.checkpoint_dir)  # a wrong path is told before the work starts
        folder = make_folder(flag_values.output_dir, "--output_dir")
        _list(write_curves(folder, stars))
        if message is not None:
            _list(_analyze_detector(message, flag_values, gammas, folder))


def _check_message(message: Any, path: str) -> None:
    """What the config lacks for figure 4, before TensorFlow starts."""
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


def _analyze_detector(
    message: Any, flag_values: flags.FlagValues, gammas: list[float], folder: pathlib.Path
) -> list[pathlib.Path]:
    from detzoo.analyze.focal_report import format_distribution, write_distribution
    from detzoo.analyze.loss_distribution import collect_examples, distributions
    from detzoo.builders.inputs import build_dataset
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints import restore_for_inference
    from detzoo.tasks.models import build_untrained

    detector = build_untrained(message.model)
    restore_for_inference(detector, flag_values.checkpoint_dir)
    dataset = build_dataset(
        message.eval_input_reader[0],
        build_model_resizer(message.model),
        None,
        training=False,
        batch_size=max(1, message.eval_config.batch_size),
        seed=0,
    )
    logger.info("tracing the detector and reading the first images")
    examples = collect_examples(
        detector,
        dataset,
        max_images=flag_values.num_images,
        max_positives=flag_values.num_positives,
        max_negatives=flag_values.num_negatives,
        seed=flag_values.seed,
        show_progress=sys.stderr.isatty(),
    )
    losses = distributions(examples, gammas)
    files = write_distribution(folder, losses)
    print(format_distribution(losses), flush=True)
    return files


def _list(files: list[pathlib.Path]) -> None:
    print("\n".join(str(file) for file in files), flush=True)


SUBCOMMANDS: dict[str, Any] = {"focal": Focal}
