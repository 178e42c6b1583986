"""Chooses the models of an ensemble, loads them as one detector, and measures what they find together."""

from __future__ import annotations

import logging
import math
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.config.load import LoadedPipeline
from detzoo.ensemble.description import (
    ENSEMBLE_FILE,
    Ensemble,
    EnsembleModel,
    MergeOptions,
    check_distinct,
    write_ensemble,
)
from detzoo.ensemble.selection import OVERALL, MeasuredModel, Selection
from detzoo.errors import ConfigError, DataError, UsageError
from detzoo.folders import make_folder
from detzoo.progress import track
from detzoo.provenance import commit, versions
from detzoo.tasks.models import EVAL_READER, Pipeline, load_checked, load_exported, start_tensorflow

if TYPE_CHECKING:
    from detzoo.ensemble.detector import EnsembleDetector
    from detzoo.evaluate.runner import EvaluationResult
    from detzoo.evaluate.stored import StoredEvaluation

# Metrics that can be measured again from stored detections; Pascal VOC's and Open Images' cannot.
_MEASURED_AGAIN = ("AP", "AP@.50IOU", "mask AP", "mask AP@.50IOU")

logger = logging.getLogger(__name__)


class Gain(NamedTuple):
    """Average precision of models that are merged."""

    label: str
    models: list[str]
    overall: float


def evaluate_ensemble(
    ensemble: Ensemble,
    output_dir: str | pathlib.Path,
    *,
    pipeline: Pipeline | None = None,
    overrides: Sequence[str] = (),
) -> EvaluationResult:
    """Measures an ensemble, or one model on several views, and writes the files of an evaluation and ensemble.json.

    Args:
        ensemble: The models, how they are merged, and the views.
        output_dir: Folder for the results.
        pipeline: Config whose first eval_input_reader the exported models run on; None to merge the detections of
            their finished evaluations.
        overrides: See ``detzoo.tasks``.
    """
    from detzoo.tasks.evaluation_report import pixels_of_reader, write_evaluation

    pixels = None
    if pipeline is None:
        result = _merge_stored(ensemble, output_dir)
    else:
        loaded = load_checked(pipeline, overrides, reads=EVAL_READER)
        result = _run_models(ensemble, output_dir, loaded)
        pixels = pixels_of_reader(loaded.message.eval_input_reader[0])
    folder = pathlib.Path(output_dir)
    facts = {"ensemble": ensemble.to_json(folder), "versions": versions(), "commit": commit()}
    write_evaluation(result, folder, facts, pixels=pixels)
    write_ensemble(folder / ENSEMBLE_FILE, ensemble)
    return result


def _run_models(ensemble: Ensemble, output_dir: str | pathlib.Path, loaded: LoadedPipeline) -> EvaluationResult:
    message = loaded.message
    if not message.eval_input_reader:
        raise ConfigError(f"{loaded.path} has no eval_input_reader: there is nothing to evaluate on")
    make_folder(output_dir, "--output_dir")
    from detzoo.tasks.evaluate import measure_exported

    start_tensorflow()
    detector, label_map = load_ensemble(ensemble)
    path = message.eval_input_reader[0].label_map_path
    expected = load_label_map(path)
    if label_map is not None and label_map.names != expected.names:
        raise UsageError(f"the models' classes are not those of {path}: {_difference(label_map, expected)}")
    return measure_exported(message, detector)


def _merge_stored(ensemble: Ensemble, output_dir: str | pathlib.Path) -> EvaluationResult:
    if ensemble.views.num_views > 1:
        raise UsageError(
            "crops and mirror images are looked at by running the models: give --saved_models, or an --ensemble with "
            "them, and --pipeline_config_path; or --noflip --crops= to go without"
        )
    missing = [model.name for model in ensemble.models if not model.evaluation]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: no finished evaluation to merge; give --pipeline_config_path to run the models"
        )
    make_folder(output_dir, "--output_dir")
    from detzoo.evaluate.stored import read_evaluation, with_same_truth

    started = time.monotonic()
    stored = with_same_truth([read_evaluation(model.evaluation or "") for model in ensemble.models])
    return _measure_merged(stored, [model.weight for model in ensemble.models], ensemble.merging, started)


def _measure_merged(
    evaluations: Sequence[StoredEvaluation], weights: Sequence[float], merging: MergeOptions, started: float
) -> EvaluationResult:
    """Returns COCO's metrics of merged detections, also by masks if all evaluations have them."""
    from detzoo.ensemble.merging import merge_images
    from detzoo.evaluate.runner import COCO_METRICS, MASK_METRICS, EvaluationResult, measure

    keeps_masks = _all_have_masks([str(each.folder) for each in evaluations], [each.has_masks for each in evaluations])
    same_images = zip(*(each.images for each in evaluations), strict=True)
    tracked = track(same_images, len(evaluations[0].images), "merge")
    images = [merge_images(same_image, weights, merging) for same_image in tracked]
    names = evaluations[0].class_names
    metrics, per_class = measure(images, names, [COCO_METRICS, *([MASK_METRICS] if keeps_masks else [])])
    return EvaluationResult(metrics, per_class, images, names, time.monotonic() - started)


def _all_have_masks(names: Sequence[str], have_masks: Sequence[bool]) -> bool:
    """Returns whether all have masks; warns if only some have them."""
    if any(have_masks) and not all(have_masks):
        without = ", ".join(name for name, has in zip(names, have_masks) if not has)
        logger.warning("masks are left out: %s has none", without)
    return all(have_masks)


def load_ensemble(ensemble: Ensemble) -> tuple[EnsembleDetector, LabelMap | None]:
    """Loads the exported models of an ensemble as one detector; paths and label maps are checked first.

    Returns:
        The detector, and the label map that its models share; None if no model has one.

    Raises:
        UsageError: A model is not exported, missing, given twice, has other classes than the others, or classifies
            given regions.
    """
    paths = [_exported_path(model) for model in ensemble.models]
    check_distinct(paths)
    label_map = _common_label_map([_folder(path) for path in paths])
    from detzoo.ensemble.detector import EnsembleDetector, Member

    loaded = [load_exported(path) for path in paths]
    given = [path for path, model in zip(paths, loaded) if model.wants_proposals]
    if given:
        raise UsageError(
            f"{', '.join(given)} classifies given regions, which an ensemble's images do not bring. Two SPP-nets are "
            "combined by `detzoo evaluate --combine_with`"
        )
    keeps_masks = _all_have_masks(paths, [bool(model.has_masks) for model in loaded])
    members = [Member(model.name, each, model.weight) for model, each in zip(ensemble.models, loaded)]
    logger.info(
        "%d model%s x %d view%s of each image",
        *(len(members), "" if len(members) == 1 else "s"),
        *(ensemble.views.num_views, "" if ensemble.views.num_views == 1 else "s"),
    )
    detector = EnsembleDetector(members, ensemble.views, ensemble.merging, keeps_masks)
    detector.keypoint_edges = loaded[0].keypoint_edges
    return detector, label_map


def _exported_path(model: EnsembleModel) -> str:
    if model.saved_model:
        return model.saved_model
    of_what = f" (its evaluation measured the checkpoint {model.checkpoint})" if model.checkpoint else ""
    raise UsageError(
        f"{model.name} has no SavedModel{of_what}: export it with `detzoo export` and write the path to "
        "models.saved_model of ensemble.json, or give --saved_models; finished evaluations are merged without "
        "--pipeline_config_path"
    )


def _folder(path: str) -> pathlib.Path:
    """Returns the folder or file that a label map may lie next to."""
    from detzoo.serving.onnx_detector import is_onnx
    from detzoo.serving.saved_detector import find_saved_model
    from detzoo.serving.tflite_detector import is_tflite

    if not is_tflite(path) and not is_onnx(path):
        return find_saved_model(path)
    if not pathlib.Path(path).is_file():
        raise UsageError(f"there is no model {path}")
    return pathlib.Path(path)


def _common_label_map(folders: list[pathlib.Path]) -> LabelMap | None:
    from detzoo.serving.saved_detector import label_map_beside

    maps = [(folder, label_map_beside(folder)) for folder in folders]
    known = [(folder, label_map) for folder, label_map in maps if label_map is not None]
    for folder, label_map in maps:
        if label_map is None and len(folders) > 1:
            logger.warning("no label map next to %s: its class ids are taken for those of the other models", folder)
    for folder, label_map in known[1:]:
        if label_map.names != known[0][1].names:
            raise UsageError(
                f"{known[0][0]} and {folder} have different label maps and cannot be merged: "
                f"{_difference(known[0][1], label_map)}"
            )
    return known[0][1] if known else None


def _difference(one: LabelMap, other: LabelMap) -> str:
    if len(one.names) != len(other.names):
        return f"{len(one.names)} and {len(other.names)} classes"
    class_id = next(id_ for id_ in sorted({*one.names, *other.names}) if one.names.get(id_) != other.names.get(id_))
    return f"id {class_id} is {one.names.get(class_id)!r} and {other.names.get(class_id)!r}"


def write_selection(
    selection: Selection, metric: str, merging: MergeOptions, output: str | pathlib.Path, measures: bool = True
) -> list[Gain]:
    """Measures chosen models and writes them as an ensemble.json.

    Args:
        selection: The choice, from ``detzoo.ensemble.selection.select``.
        metric: Average precision by class that models were chosen by, a key of ``OVERALL``.
        merging: How the models are merged.
        output: The file to write.
        measures: Merge the stored detections and measure what the ensemble gains; no model runs.

    Returns:
        Numbers of the best model, of as many of the best as were chosen, and of the chosen ones; [] if not measured.

    Raises:
        DataError: Fewer than two models were chosen, or an evaluation cannot be read.
    """
    if len(selection.chosen) < 2:
        others = [candidate.similarity for candidate in selection.candidates if not math.isnan(candidate.similarity)]
        hint = f"; --max_similarity={min(others) + 5e-6:.5f} takes the least similar" if others else ""
        raise DataError(f"only {len(selection.chosen)} model was chosen, an ensemble needs 2{hint}")
    gains = _measure_gains(selection, metric, merging) if measures else []
    models = [EnsembleModel(m.name, m.saved_model, m.folder, m.checkpoint) for m in selection.chosen]
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
    record: dict[str, Any] = {"metric": metric, "max_similarity": selection.max_similarity, "considered": considered}
    record["measured"] = [gain._asdict() for gain in gains]
    write_ensemble(output, Ensemble(tuple(models), merging), record)
    return gains


def _measure_gains(selection: Selection, metric: str, merging: MergeOptions) -> list[Gain]:
    if metric not in _MEASURED_AGAIN:
        logger.info("%s cannot be measured again from detections.json; the gain is not shown", metric)
        return []
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
        evaluations = [stored[model.folder] for model in models]
        result = _measure_merged(evaluations, [1.0] * len(models), merging, time.monotonic())
        return Gain(label, [model.name for model in models], result.metrics[OVERALL[metric]])

    gains = [Gain("the best model", [best[0].name], best[0].overall)]
    if [model.folder for model in best] != [model.folder for model in chosen]:
        gains.append(gain(f"the {len(best)} best", best))
    return [*gains, gain("the ensemble", chosen)]
