"""What ``detzoo ensemble evaluate`` does: measure merged detections, of models that run or of finished evaluations."""

from __future__ import annotations

import logging
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.ensemble.description import ENSEMBLE_FILE, Ensemble, write_ensemble
from detzoo.ensemble.options import MergeOptions
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import make_folder
from detzoo.tasks.models import load_checked

if TYPE_CHECKING:
    from detzoo.evaluate.runner import EvaluationResult
    from detzoo.evaluate.stored import StoredEvaluation

logger = logging.getLogger(__name__)


def evaluate_models(ensemble: Ensemble, flag_values: flags.FlagValues) -> None:
    """Runs the models on the images of a config's eval_input_reader and measures."""
    if not flag_values.pipeline_config_path:
        raise UsageError("running models needs --pipeline_config_path, whose eval_input_reader has the images")
    loaded = load_checked(flag_values.pipeline_config_path, flag_values.set, reads="eval_input_reader[0]")
    message = loaded.message
    if not message.eval_input_reader:
        raise ConfigError(f"{loaded.path} has no eval_input_reader: there is nothing to evaluate on")
    output_dir = make_folder(flag_values.output_dir, "--output_dir")
    from detzoo.cli.ensemble_models import check_classes, load_ensemble
    from detzoo.config.label_map import load_label_map
    from detzoo.tasks.evaluate import measure_exported
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    detector, label_map = load_ensemble(ensemble)
    label_map_path = message.eval_input_reader[0].label_map_path
    check_classes(label_map, load_label_map(label_map_path), label_map_path)
    _report(measure_exported(message, detector), ensemble, output_dir)


def evaluate_stored(ensemble: Ensemble, flag_values: flags.FlagValues) -> None:
    """Merges the detections of finished evaluations and measures."""
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
    output_dir = make_folder(flag_values.output_dir, "--output_dir")
    from detzoo.evaluate.stored import read_evaluation, with_same_truth

    started = time.monotonic()
    stored = with_same_truth([read_evaluation(model.evaluation or "") for model in ensemble.models])
    result = measure_merged(stored, [model.weight for model in ensemble.models], ensemble.merging, started)
    _report(result, ensemble, output_dir)


def measure_merged(
    evaluations: Sequence[StoredEvaluation],
    weights: Sequence[float],
    merging: MergeOptions,
    started: float | None = None,
) -> EvaluationResult:
    """COCO's numbers of the merged detections, by masks too where all evaluations have them.

    Args:
        evaluations: with the same images in the same order.
        weights: factor of each one's scores.
        merging: thresholds and rules.
        started: of the monotonic clock; None for now.
    """
    from detzoo.ensemble.offline import merge_images
    from detzoo.evaluate.runner import COCO_METRICS, MASK_METRICS, EvaluationResult, measure
    from detzoo.progress import track

    started = time.monotonic() if started is None else started
    have_masks = [each.has_masks for each in evaluations]
    if any(have_masks) and not all(have_masks):
        without = ", ".join(str(each.folder) for each in evaluations if not each.has_masks)
        logger.warning("masks are left out: %s has none", without)
    same_images = zip(*(each.images for each in evaluations), strict=True)
    tracked = track(same_images, len(evaluations[0].images), "merge")
    images = [merge_images(same_image, weights, merging) for same_image in tracked]
    names = evaluations[0].class_names
    metrics, per_class = measure(images, names, [COCO_METRICS, *([MASK_METRICS] if all(have_masks) else [])])
    return EvaluationResult(metrics, per_class, images, names, time.monotonic() - started)


def _report(result: EvaluationResult, ensemble: Ensemble, output_dir: pathlib.Path) -> None:
    from detzoo.evaluate.report import format_table, write_results
    from detzoo.provenance import commit, versions

    facts: dict[str, Any] = {"ensemble": ensemble.to_json(output_dir), "versions": versions(), "commit": commit()}
    write_results(result, output_dir, facts)
    write_ensemble(output_dir / ENSEMBLE_FILE, ensemble)
    names = " + ".join(model.name for model in ensemble.models)
    print(f"{names}: {len(result.images)} images in {result.seconds:.1f} s")
    print(format_table(result), flush=True)
