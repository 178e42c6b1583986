"""``detzoo ensemble select|evaluate``."""

from __future__ import annotations

import dataclasses
import glob
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.cli.flags import Definer, define_pipeline_flags
from detzoo.config.paths import split_at_commas
from detzoo.ensemble.description import (
    SCORE_RULES,
    Ensemble,
    EnsembleModel,
    MergeOptions,
    check_distinct,
    check_merging,
    read_ensemble,
    scaled_weights,
)
from detzoo.ensemble.selection import (
    DEFAULT_NUM_MODELS,
    OVERALL,
    MeasuredModel,
    format_selection,
    read_measured,
    select,
    short_names,
)
from detzoo.ensemble.views import MOST_OVERLAP, ViewPlan, check_views, parse_crops
from detzoo.errors import UsageError
from detzoo.folders import METRICS_FILE, make_folder
from detzoo.sweep.results import RESULTS_FILE, read_results
from detzoo.tasks.ensemble import Gain, evaluate_ensemble, write_selection

SUMMARY = "Ensembles of models, with test-time crops and flips: choose complementary models, merge their detections."
DESCRIPTION = """
From finished evaluations to an ensemble, and from it to numbers and pictures:

    detzoo ensemble select --evaluations='runs/*/evaluation' --output=ensemble.json
    detzoo ensemble evaluate --ensemble=ensemble.json --output_dir=evaluation
    detzoo detect --ensemble=ensemble.json --images=photos --output_dir=pictures

A single model gains from test-time flips and crops, too:

    detzoo ensemble evaluate --pipeline_config_path=pipeline.config --saved_models=exported --flip --crops=2x2 \\
        --output_dir=evaluation_of_views
"""

logger = logging.getLogger(__name__)


class Select:
    """``detzoo ensemble select``."""

    SUMMARY = "Choose models greedily by average precision, without those that are too similar to a chosen one."
    DESCRIPTION = """
    The average precision of a model by class is a vector that shows where the model is good. The best model is chosen
    first, then the next best whose vector has a cosine of at most --max_similarity with every chosen one, and so on.
    Prints the decision about each model, writes ensemble.json, and measures the ensemble against the best model and
    against as many of the best.

        detzoo ensemble select --evaluations='runs/*/evaluation' --num_models=5 --output=ensemble.json
        detzoo ensemble select --evaluations=sweep_results --max_similarity=0.995
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines the flags for the candidates, the choice and the merging."""
        define = Definer(flag_values)
        text = "Folders that `detzoo evaluate` wrote, or that of a `detzoo sweep`; globs, or separated by commas."
        define.strings("evaluations", text, required=True)
        define.integer("num_models", "Models to choose at most.", DEFAULT_NUM_MODELS, minimum=2)
        text = "Greatest cosine of two chosen models' vectors; by default the median of all pairs of candidates."
        define.number("max_similarity", text, maximum=1.0)
        define.choice("metric", "Average precision by class that models are chosen by.", list(OVERALL), "AP")
        define.string("output", "The file to write.", "ensemble.json")
        define.boolean("measure", "Merge the stored detections and measure the gain; no model runs.", True)
        _define_merging_flags(define)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Chooses, prints and writes."""
        metric, output = flag_values.metric, pathlib.Path(flag_values.output)
        merging = _merging_from_flags(flag_values, MergeOptions())
        make_folder(output.parent, "--output")
        models = _read_models(split_paths(flag_values.evaluations), metric)
        selection = select(models, flag_values.num_models, flag_values.max_similarity)
        rule = "the median of all pairs" if flag_values.max_similarity is None else "given"
        print(format_selection(selection, OVERALL[metric]))
        print(
            f"\nsimilarity at most {selection.max_similarity:.5f} ({rule}): {len(selection.chosen)} of {len(models)} "
            "chosen"
        )
        gains = write_selection(selection, metric, merging, output, flag_values.measure)
        if gains:
            print("\n" + "\n".join(_gain_lines(gains, OVERALL[metric])))
        print(f"\nwrote {output}")


class Evaluate:
    """``detzoo ensemble evaluate``."""

    SUMMARY = "Measure an ensemble, or one model on several views, as `detzoo evaluate` measures a model."
    DESCRIPTION = """
    Prints the table and writes metrics.json, detections.json, groundtruth.json, report.html and ensemble.json. From
    finished evaluations, without running a model, in seconds (COCO's metrics):

        detzoo ensemble evaluate --ensemble=ensemble.json --output_dir=evaluation
        detzoo ensemble evaluate --evaluations=a/evaluation,b/evaluation --output_dir=evaluation

    By running exported models on the eval_input_reader of a config, all of eval_config.metrics_set:

        detzoo ensemble evaluate --pipeline_config_path=a/pipeline.config --saved_models=a/export,b/export \\
            --box_voting --scores=mean --output_dir=evaluation
        detzoo ensemble evaluate --pipeline_config_path=a/pipeline.config --saved_models=a/export --flip --crops=2x2 \\
            --output_dir=evaluation

    A flag replaces the setting of ensemble.json.
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines the flags for the models, the merging, the views and the output."""
        define = Definer(flag_values)
        define.string("ensemble", "The ensemble.json of `detzoo ensemble`: the models, how to merge, which views.")
        define.strings("saved_models", "SavedModels, .tflite or .onnx files, separated by commas.")
        text = "Folders that `detzoo evaluate` wrote, to be merged; globs, or separated by commas."
        define.strings("evaluations", text)
        define_pipeline_flags(flag_values, required=False)
        define.string("output_dir", "Folder for the results.", required=True)
        text = "Factor of each model's scores, in their order, e.g. 1,1,0.5; they are scaled so that the greatest is 1."
        flags.DEFINE_list("weights", None, text, flag_values=flag_values)
        _define_merging_flags(define)
        define.boolean("flip", "Add the mirror image of every view, left to right.", None)
        text = "Grids of crops, ROWSxCOLUMNS, e.g. 2x2 or 2x2,3x3; the whole image is always one of the views."
        define.string("crops", text)
        text = "Overlap of neighbouring crops as a share of a crop's side (0.25)."
        define.number("crop_overlap", text, maximum=MOST_OVERLAP)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Merges stored detections, or runs the models, and prints the table."""
        from detzoo.evaluate.report import format_table

        ensemble = _ensemble_from_flags(flag_values)
        runs_models = bool(flag_values.saved_models or flag_values.pipeline_config_path)
        if flag_values.evaluations and runs_models:
            raise UsageError("--evaluations merges finished evaluations; to run models give --saved_models instead")
        _check_size(ensemble, runs_models)
        if runs_models and not flag_values.pipeline_config_path:
            raise UsageError("running models needs --pipeline_config_path, whose eval_input_reader has the images")
        path = flag_values.pipeline_config_path
        result = evaluate_ensemble(ensemble, flag_values.output_dir, pipeline=path, overrides=flag_values.set)
        names = " + ".join(model.name for model in ensemble.models)
        print(f"{names}: {len(result.images)} images in {result.seconds:.1f} s")
        print(format_table(result), flush=True)


SUBCOMMANDS: dict[str, Any] = {"select": Select, "evaluate": Evaluate}


def split_paths(words: Sequence[str]) -> list[str]:
    """Returns paths from words with commas and globs; a path that exists is never split.

    Raises:
        UsageError: A glob matches nothing, or a path is given twice.
    """
    paths: list[str] = []
    for part in split_at_commas(words):
        if glob.has_magic(part) and not pathlib.Path(part).exists():
            matches = sorted(glob.glob(part, recursive=True))
            if not matches:
                raise UsageError(f"{part} matches nothing")
            paths += matches
        else:
            paths.append(part)
    check_distinct(paths)
    return paths


def _read_models(paths: Sequence[str], metric: str) -> list[MeasuredModel]:
    found = [each for path in paths for each in _evaluations_in(pathlib.Path(path))]
    unnamed = iter(short_names([str(file.parent) for name, file, _ in found if name is None]))
    names = [name or next(unnamed) for name, _, _ in found]
    if len(set(names)) < len(names):
        names = [str(file.parent) for _, file, _ in found]
    models = []
    for name, (_, file, checkpoint) in zip(names, found):
        model = read_measured(file, name, metric)
        models.append(model._replace(checkpoint=model.checkpoint or checkpoint))
    return models


def _evaluations_in(path: pathlib.Path) -> list[tuple[str | None, pathlib.Path, str | None]]:
    """Returns name, metrics.json and checkpoint of the evaluation in a folder, or of those of a sweep's points."""
    results = path if path.name == RESULTS_FILE else path / RESULTS_FILE
    if not results.is_file() or (path / METRICS_FILE).is_file():
        return [(None, path if path.name == METRICS_FILE else path / METRICS_FILE, None)]
    rows = read_results(results)
    measured = [row for row in rows if row["metrics"]]
    if not measured:
        raise UsageError(f"{results}: accuracy was measured for none of its {len(rows)} points")
    if len(measured) < len(rows):
        logger.info("%s: %d of %d points have no accuracy", results, len(rows) - len(measured), len(rows))
    return [
        (str(row["name"]), results.parent / str(row["metrics"]), str(row["checkpoint"] or "") or None)
        for row in measured
    ]


def _gain_lines(gains: Sequence[Gain], overall: str) -> list[str]:
    width = max(len(gain.label) for gain in gains)
    column = max(len(overall), 6)
    lines = [f"{'merged':<{width}}  {overall:>{column}}"]
    lines += [f"{gain.label:<{width}}  {gain.overall:>{column}.3f}  {' + '.join(gain.models)}" for gain in gains]
    if gains[-1].overall <= gains[0].overall:
        lines.append(
            "the merged models are not better than the best one alone: try --box_voting and --scores=mean, or another "
            "choice by --max_similarity or --num_models"
        )
    return lines


def _define_merging_flags(define: Definer) -> None:
    text = "A merged box that overlaps a better one of its class by more than this IoU is dropped (0.6)."
    define.number("iou_threshold", text, maximum=1.0)
    define.integer("max_detections", "Detections per image at most (100).", minimum=1)
    define.number("score_threshold", "Merge only detections with a greater score (0).", maximum=1.0)
    text = "Move each kept box to the mean of the boxes around it, weighted by their scores."
    define.boolean("box_voting", text, None)
    define.number("vote_iou_threshold", "Least IoU of the boxes around a kept one (0.5).", maximum=1.0)
    text = (
        "Score of a kept box: the best around it, or the mean over the models and views that detect it of the best of "
        "each (best)."
    )
    define.choice("scores", text, SCORE_RULES)


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
        paths = split_paths(flag_values[given[0]].value)
        kind = given[0].removesuffix("s")
        fields: list[dict[str, Any]] = [{"name": name, kind: path} for name, path in zip(short_names(paths), paths)]
        ensemble = Ensemble(tuple(EnsembleModel(**each) for each in fields))
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
