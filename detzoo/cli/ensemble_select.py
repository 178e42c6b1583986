"""What ``detzoo ensemble select`` does: find the evaluations, choose, say what the choice brings, write it down."""

from __future__ import annotations

import logging
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from detzoo.ensemble.description import Ensemble, EnsembleModel, write_ensemble
from detzoo.ensemble.measured import METRICS_FILE, OVERALL, read_measured, short_names
from detzoo.ensemble.options import MergeOptions
from detzoo.ensemble.selection import MeasuredModel, Selection, format_selection, select
from detzoo.errors import DataError, UsageError

# What can be measured again from stored detections: not Pascal VOC's and Open Images' numbers.
_MEASURED_AGAIN = ("AP", "AP@.50IOU", "mask AP", "mask AP@.50IOU")
_RESULTS_FILE = "results.csv"

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """An evaluation to choose from."""

    name: str | None  # of a point of a sweep; None to call it by its folder
    metrics_file: pathlib.Path
    checkpoint: str | None = None


class Gain(NamedTuple):
    """What models reach together."""

    label: str
    models: list[str]
    overall: float


def choose(paths: Sequence[str], flag_values: flags.FlagValues, merging: MergeOptions, output: pathlib.Path) -> None:
    """Chooses among the evaluations in ``paths``, prints, writes ``output``."""
    metric = flag_values.metric
    models = _read_models(paths, metric)
    selection = select(models, flag_values.num_models, flag_values.max_similarity)
    rule = "given" if flag_values.max_similarity is not None else "the median of all pairs"
    print(format_selection(selection, OVERALL[metric]))
    print(f"\nat most {selection.max_similarity:.5f} alike ({rule}): {len(selection.chosen)} of {len(models)} chosen")
    if len(selection.chosen) < 2:
        raise DataError(_too_few(selection))
    gains = _measure_gains(selection, metric, merging) if flag_values.measure else []
    if gains:
        print("\n" + "\n".join(_gain_lines(gains, OVERALL[metric])))
    write_ensemble(output, _ensemble(selection, merging), _record(selection, metric, gains))
    print(f"\nwrote {output}")


def _read_models(paths: Sequence[str], metric: str) -> list[MeasuredModel]:
    found = [each for path in paths for each in _evaluations_in(pathlib.Path(path))]
    unnamed = iter(short_names([str(each.metrics_file.parent) for each in found if each.name is None]))
    names = [each.name or next(unnamed) for each in found]
    if len(set(names)) < len(names):
        names = [str(each.metrics_file.parent) for each in found]
    models = []
    for each, name in zip(found, names):
        model = read_measured(each.metrics_file, name, metric)
        models.append(model._replace(checkpoint=model.checkpoint or each.checkpoint))
    return models


def _evaluations_in(path: pathlib.Path) -> list[_Found]:
    """The evaluation in a folder, or those of a sweep's points."""
    results = path if path.name == _RESULTS_FILE else path / _RESULTS_FILE
    if not results.is_file() or (path / METRICS_FILE).is_file():
        return [_Found(None, path if path.name == METRICS_FILE else path / METRICS_FILE)]
    from detzoo.sweep.results import read_results

    rows = read_results(results)
    measured = [row for row in rows if row["metrics"]]
    if not measured:
        raise UsageError(f"{results}: accuracy was measured for none of its {len(rows)} points")
    if len(measured) < len(rows):
        logger.info("%s: %d of %d points have no accuracy", results, len(rows) - len(measured), len(rows))
    return [
        _Found(str(row["name"]), results.parent / str(row["metrics"]), str(row["checkpoint"] or "") or None)
        for row in measured
    ]


def _too_few(selection: Selection) -> str:
    others = [candidate.similarity for candidate in selection.candidates if not math.isnan(candidate.similarity)]
    hint = f"; --max_similarity={min(others) + 5e-6:.5f} takes the least alike" if others else ""
    return f"only {len(selection.chosen)} model was chosen, an ensemble needs 2{hint}"


def _measure_gains(selection: Selection, metric: str, merging: MergeOptions) -> list[Gain]:
    """Numbers of the best model, of as many of the best as were chosen, and of the chosen ones."""
    if metric not in _MEASURED_AGAIN:
        logger.info("%s cannot be measured again from detections.json; the gain is not shown", metric)
        return []
    from detzoo.cli.ensemble_evaluate import measure_merged
    from detzoo.evaluate.report import DETECTIONS_FILE, GROUNDTRUTH_FILE
    from detzoo.evaluate.stored import read_evaluation, with_same_truth

    chosen = selection.chosen
    best = [candidate.model for candidate in selection.candidates][: len(chosen)]
    needed = list(dict.fromkeys(model.folder for model in [*chosen, *best]))
    for folder in needed:
        for file in (DETECTIONS_FILE, GROUNDTRUTH_FILE):
            if not (pathlib.Path(folder) / file).is_file():
                logger.info("the gain is not shown: there is no %s in %s", file, folder)
                return []
    stored = dict(zip(needed, with_same_truth([read_evaluation(folder) for folder in needed])))

    def gain(label: str, models: list[MeasuredModel]) -> Gain:
        result = measure_merged([stored[model.folder] for model in models], [1.0] * len(models), merging)
        return Gain(label, [model.name for model in models], result.metrics[OVERALL[metric]])

    gains = [Gain("the best model", [best[0].name], best[0].overall)]
    if [model.folder for model in best] != [model.folder for model in chosen]:
        gains.append(gain(f"the {len(best)} best", best))
    return [*gains, gain("the ensemble", chosen)]


def _gain_lines(gains: Sequence[Gain], overall: str) -> list[str]:
    width = max(len(gain.label) for gain in gains)
    column = max(len(overall), 6)
    heading = f"{'merged':<{width}}  {overall:>{column}}"
    lines = [f"{gain.label:<{width}}  {gain.overall:>{column}.3f}  {' + '.join(gain.models)}" for gain in gains]
    if gains[-1].overall <= gains[0].overall:
        lines.append(
            "merged like this they are not better than the best alone: try --box_voting and --scores=mean, or another "
            "choice by --max_similarity or --num_models"
        )
    return [heading, *lines]


def _ensemble(selection: Selection, merging: MergeOptions) -> Ensemble:
    models = [EnsembleModel(m.name, m.saved_model, m.folder, m.checkpoint) for m in selection.chosen]
    return Ensemble(tuple(models), merging)


def _record(selection: Selection, metric: str, gains: Sequence[Gain]) -> dict[str, Any]:
    """How the models were chosen, for whoever reads the file later."""
    considered = [
        {
            "name": candidate.model.name,
            OVERALL[metric]: candidate.model.overall,
            "nearest_chosen": candidate.nearest,
            "similarity": None if math.isnan(candidate.similarity) else candidate.similarity,
            "decision": candidate.reason,
        }
        for candidate in selection.candidates
    ]
    measured = [gain._asdict() for gain in gains]
    return {
        "metric": metric,
        "max_similarity": selection.max_similarity,
        "considered": considered,
        "measured": measured,
    }
