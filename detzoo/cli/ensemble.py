"""``detzoo ensemble select|evaluate``."""

from __future__ import annotations

import dataclasses
import glob
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.cli.flags import define_pipeline_flags
from detzoo.ensemble.description import Ensemble, EnsembleModel, check_distinct, read_ensemble, scaled_weights
from detzoo.ensemble.measured import OVERALL
from detzoo.ensemble.options import SCORE_RULES, MergeOptions, check_merging
from detzoo.ensemble.selection import DEFAULT_NUM_MODELS
from detzoo.ensemble.views import MOST_OVERLAP, ViewPlan, check_views, parse_crops
from detzoo.errors import UsageError
from detzoo.folders import make_folder

SUMMARY = "Choose models that complement each other, merge what they find, look at crops and mirror images."
DESCRIPTION = """
From finished evaluations to an ensemble, and from it to numbers and pictures:

    detzoo ensemble select --evaluations='runs/*/evaluation' --output=ensemble.json
    detzoo ensemble evaluate --ensemble=ensemble.json --output_dir=evaluation
    detzoo detect --ensemble=ensemble.json --images=photos --output_dir=pictures

A single model gains, too, where it sees an image mirrored and in crops:

    detzoo ensemble evaluate --pipeline_config_path=pipeline.config --saved_models=exported --flip --crops=2x2 \\
        --output_dir=evaluation_of_views
"""

logger = logging.getLogger(__name__)


class Select:
    """``detzoo ensemble select``."""

    SUMMARY = "Greedily by average precision, leaving out what is too close to a model already chosen."
    DESCRIPTION = """
    A model's average precision by class is a vector that says where it is good. The best model is chosen first; then
    the next best whose vector's cosine with every chosen one is at most --max_similarity, and so on. Prints what became
    of each, writes ensemble.json, and measures the ensemble against the best model and against as many of the best.

        detzoo ensemble select --evaluations='runs/*/evaluation' --num_models=5 --output=ensemble.json
        detzoo ensemble select --evaluations=sweep_results --max_similarity=0.995
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """--evaluations, --num_models, --max_similarity, --metric, --output, --measure and how to merge."""
        text = (
            "Folders that `detzoo evaluate` wrote, or that of a `detzoo sweep`; globs, repeatable, or with commas "
            "between."
        )
        flags.DEFINE_multi_string("evaluations", None, text, flag_values=flag_values, required=True)
        text = "How many models to choose at most."
        flags.DEFINE_integer("num_models", DEFAULT_NUM_MODELS, text, lower_bound=2, flag_values=flag_values)
        text = (
            "Greatest cosine of two chosen models' vectors, 0 to 1; without it the median of all pairs of candidates."
        )
        flags.DEFINE_float("max_similarity", None, text, 0.0, 1.0, flag_values=flag_values)
        text = "Which average precision by class."
        flags.DEFINE_enum("metric", "AP", list(OVERALL), text, flag_values=flag_values)
        flags.DEFINE_string("output", "ensemble.json", "The file to write.", flag_values=flag_values)
        text = "Merge the stored detections and measure what the choice brings; no model runs."
        flags.DEFINE_bool("measure", True, text, flag_values=flag_values)
        _define_merging_flags(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Reads metrics.json files, chooses, writes."""
        from detzoo.cli.ensemble_select import choose

        merging = _merging_from_flags(flag_values, MergeOptions())
        output = pathlib.Path(flag_values.output)
        make_folder(output.parent, "--output")
        choose(split_paths(flag_values.evaluations), flag_values, merging, output)


class Evaluate:
    """``detzoo ensemble evaluate``."""

    SUMMARY = "Measure an ensemble, or one model on several views, as `detzoo evaluate` measures a model."
    DESCRIPTION = """
    Prints the table and writes metrics.json, detections.json, groundtruth.json and ensemble.json. From finished
    evaluations, without running a model, in seconds (COCO's numbers):

        detzoo ensemble evaluate --ensemble=ensemble.json --output_dir=evaluation
        detzoo ensemble evaluate --evaluations=a/evaluation,b/evaluation --output_dir=evaluation

    By running exported models on the eval_input_reader of a config, all of eval_config.metrics_set:

        detzoo ensemble evaluate --pipeline_config_path=a/pipeline.config --saved_models=a/export,b/export \\
            --box_voting --scores=mean --output_dir=evaluation
        detzoo ensemble evaluate --pipeline_config_path=a/pipeline.config --saved_models=a/export --flip --crops=2x2 \\
            --output_dir=evaluation

    A flag replaces what ensemble.json says of its matter.
    """
    POSITIONAL = ()

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """What to measure, how to merge, which views, where to write."""
        text = "What `detzoo ensemble` wrote: the models, how to merge, which views."
        flags.DEFINE_string("ensemble", None, text, flag_values=flag_values)
        text = "SavedModels or .tflite files, with commas between."
        flags.DEFINE_multi_string("saved_models", [], text, flag_values=flag_values)
        text = "Folders that `detzoo evaluate` wrote, to be merged; globs, or with commas between."
        flags.DEFINE_multi_string("evaluations", [], text, flag_values=flag_values)
        define_pipeline_flags(flag_values, required=False)
        flags.DEFINE_string("output_dir", None, "Where to write.", flag_values=flag_values, required=True)
        text = "Factor of each model's scores, in their order, e.g. 1,1,0.5; the greatest is made 1."
        flags.DEFINE_list("weights", None, text, flag_values=flag_values)
        _define_merging_flags(flag_values)
        text = "Every view mirrored, too, left to right."
        flags.DEFINE_bool("flip", None, text, flag_values=flag_values)
        text = "Grids of crops, ROWSxCOLUMNS, e.g. 2x2 or 2x2,3x3; the whole image is always looked at."
        flags.DEFINE_string("crops", None, text, flag_values=flag_values)
        text = "Overlap of neighbouring crops as a share of a crop's side (0.25)."
        flags.DEFINE_float("crop_overlap", None, text, 0.0, MOST_OVERLAP, flag_values=flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Merges stored detections, or runs the models."""
        ensemble = _ensemble_from_flags(flag_values)
        runs_models = bool(flag_values.saved_models or flag_values.pipeline_config_path)
        if flag_values.evaluations and runs_models:
            raise UsageError("--evaluations merges finished evaluations; to run models give --saved_models instead")
        _check_size(ensemble, runs_models)
        if runs_models:
            from detzoo.cli.ensemble_evaluate import evaluate_models

            evaluate_models(ensemble, flag_values)
        else:
            from detzoo.cli.ensemble_evaluate import evaluate_stored

            evaluate_stored(ensemble, flag_values)


SUBCOMMANDS: dict[str, Any] = {"select": Select, "evaluate": Evaluate}


def split_paths(words: Sequence[str]) -> list[str]:
    """Paths from words with commas between them and globs; a path that exists is never split.

    Raises:
        UsageError: a glob matches nothing, or a path is given twice.
    """
    paths: list[str] = []
    for word in words:
        for part in [word] if pathlib.Path(word).exists() else word.split(","):
            part = part.strip()
            if part and glob.has_magic(part) and not pathlib.Path(part).exists():
                matches = sorted(glob.glob(part, recursive=True))
                if not matches:
                    raise UsageError(f"{part} matches nothing")
                paths += matches
            elif part:
                paths.append(part)
    check_distinct(paths)
    return paths


def _define_merging_flags(flag_values: flags.FlagValues) -> None:
    text = "Of the merged boxes of a class, one that overlaps a better one by more than this is dropped (0.6)."
    flags.DEFINE_float("iou_threshold", None, text, 0.0, 1.0, flag_values=flag_values)
    text = "Keep at most so many detections an image (100)."
    flags.DEFINE_integer("max_detections", None, text, lower_bound=1, flag_values=flag_values)
    text = "Only detections of more than this score take part (0)."
    flags.DEFINE_float("score_threshold", None, text, 0.0, 1.0, flag_values=flag_values)
    text = "Move each kept box to the mean of the boxes around it, weighted by their scores."
    flags.DEFINE_bool("box_voting", None, text, flag_values=flag_values)
    text = "Least overlap of the boxes around a kept one (0.5)."
    flags.DEFINE_float("vote_iou_threshold", None, text, 0.0, 1.0, flag_values=flag_values)
    text = (
        "Score of a kept box: the best around it, or the mean over the models and views that see it of the best of "
        "each (best)."
    )
    flags.DEFINE_enum("scores", None, list(SCORE_RULES), text, flag_values=flag_values)


def _merging_from_flags(flag_values: flags.FlagValues, before: MergeOptions) -> MergeOptions:
    names = [field.name for field in dataclasses.fields(MergeOptions)]
    given = {name: flag_values[name].value for name in names if flag_values[name].value is not None}
    return check_merging(dataclasses.replace(before, **given))


def _views_from_flags(flag_values: flags.FlagValues, before: ViewPlan) -> ViewPlan:
    given: dict[str, Any] = {}
    if flag_values.flip is not None:
        given["flip"] = flag_values.flip
    if flag_values.crops is not None:
        given["crops"] = parse_crops(flag_values.crops)
    if flag_values.crop_overlap is not None:
        given["overlap"] = flag_values.crop_overlap
        if not given.get("crops", before.crops):
            raise UsageError("--crop_overlap needs --crops, e.g. --crops=2x2")
    return check_views(dataclasses.replace(before, **given))


def _ensemble_from_flags(flag_values: flags.FlagValues) -> Ensemble:
    given = [name for name in ("ensemble", "saved_models", "evaluations") if flag_values[name].value]
    if len(given) != 1:
        received = " and ".join(f"--{name}" for name in given) or "none"
        raise UsageError(f"give one of --ensemble, --saved_models and --evaluations; received {received}")
    if flag_values.ensemble:
        ensemble = read_ensemble(flag_values.ensemble)
    else:
        from detzoo.ensemble.measured import short_names

        paths = split_paths(flag_values[given[0]].value)
        kind = given[0].removesuffix("s")
        fields: list[dict[str, Any]] = [{"name": name, kind: path} for name, path in zip(short_names(paths), paths)]
        models = [EnsembleModel(**each) for each in fields]
        ensemble = Ensemble(tuple(models))
    return dataclasses.replace(
        ensemble,
        models=_weighted(ensemble.models, flag_values.weights),
        merging=_merging_from_flags(flag_values, ensemble.merging),
        views=_views_from_flags(flag_values, ensemble.views),
    )


def _weighted(models: tuple[EnsembleModel, ...], texts: Sequence[str] | None) -> tuple[EnsembleModel, ...]:
    if texts is None:
        return models
    if len(texts) != len(models):
        raise UsageError(f"--weights has {len(texts)} numbers for {len(models)} models")
    try:
        weights = scaled_weights([float(text) for text in texts])
    except ValueError:
        raise UsageError(f"--weights={','.join(texts)}; accepted: a number above 0 for each model") from None
    return tuple(dataclasses.replace(model, weight=weight) for model, weight in zip(models, weights))


def _check_size(ensemble: Ensemble, runs_models: bool) -> None:
    if len(ensemble.models) > 1:
        return
    if not runs_models:
        raise UsageError("merging finished evaluations takes at least 2 of them; received 1")
    if ensemble.views.num_views == 1:
        raise UsageError(
            "one model alone is no ensemble: give a second one, or --flip or --crops, or `detzoo evaluate`"
        )
