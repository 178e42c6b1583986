"""``detzoo analyze focal``."""

from __future__ import annotations

from typing import Any

from absl import flags

from detzoo.cli.flags import CHECKPOINT_HELP, Definer, define_pipeline_flags, values_of
from detzoo.errors import UsageError
from detzoo.tasks.analyze import analyze_focal

SUMMARY = "Draw the curves of the focal loss, and the distribution of a trained detector's loss."
DESCRIPTION = """
Analyses of the papers, as pictures and as CSV files.

    detzoo analyze focal --output_dir=focal
    detzoo analyze focal --output_dir=focal --pipeline_config_path=model/pipeline.config --checkpoint_dir=model
"""


class Focal:
    """``detzoo analyze focal``."""

    SUMMARY = "Figures 1, 4, 5 and 6 of the focal loss paper."
    DESCRIPTION = """
    Writes, each as PNG, SVG and CSV:

        figure_1_focal_loss       the focal loss over the probability of the true class, for several gammas
        figure_5_loss_variants    cross entropy (CE), focal loss (FL) and its other form (FL*) over the logit
        figure_6_derivatives      their derivatives
        figure_4_cumulative_loss  with a config and a checkpoint: the cumulative share of the loss over the positive and
                                  the negative anchors of its eval_input_reader, easiest first, for several gammas

        detzoo analyze focal --output_dir=focal --focal_star=2:1 --focal_star=4:0
        detzoo analyze focal --output_dir=focal --pipeline_config_path=model/pipeline.config --checkpoint_dir=model

    In figure 4, a curve on the diagonal means that all examples have the same loss. The lower the curve, the more of
    the loss comes from few hard examples. The detector is the same for all gammas, independent of its training loss.
    An example is one anchor and one class; the model needs a sigmoid for each class (model.ssd).
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines the flags for the figures and, for figure 4, the detector and the examples."""
        define = Definer(flag_values)
        define.string("output_dir", "Folder for the figures.", required=True)
        define.strings("focal_star", "GAMMA:BETA of an FL* in figures 5 and 6 (default 2:1, 2:0.1 and 4:0).")
        define_pipeline_flags(flag_values, required=False)
        define.string("checkpoint_dir", f"For figure 4: {CHECKPOINT_HELP}")
        text = "Gammas of the focal loss in figure 4, separated by commas; 0 is cross entropy."
        define.string("gammas", text, "0,0.5,1,2")
        define.integer("num_images", "First images of the eval_input_reader for figure 4; 0 for all.", 0, minimum=0)
        define.integer("num_positives", "Positive examples for figure 4 at most, chosen at random.", 100_000, minimum=1)
        text = "Negative examples for figure 4 at most; ten million take about 1 GB of memory."
        define.integer("num_negatives", text, 10_000_000, minimum=1)
        define.integer("seed", "Seed of the random choice.", 0)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Draws, and prints the files."""
        if flag_values.set and not flag_values.pipeline_config_path:
            raise UsageError("--set changes a config; give --pipeline_config_path, too")
        from detzoo.analyze.loss_curves import parse_gammas, parse_stars

        found = analyze_focal(
            flag_values.output_dir,
            stars=parse_stars(flag_values.focal_star),
            pipeline=flag_values.pipeline_config_path,
            checkpoint_dir=flag_values.checkpoint_dir,
            overrides=flag_values.set,
            gammas=parse_gammas(flag_values.gammas.split(",")),
            **values_of(flag_values, "num_images", "num_positives", "num_negatives", "seed"),
        )
        print("\n".join(map(str, found.curves)))
        if found.table:
            print(found.table)
            print("\n".join(map(str, found.distribution)))


SUBCOMMANDS: dict[str, Any] = {"focal": Focal}
