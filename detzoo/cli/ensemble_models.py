"""Loads the exported models of an ensemble as one detector, for ``detzoo ensemble evaluate`` and ``detzoo detect``."""

from __future__ import annotations

import logging
import pathlib
from typing import TYPE_CHECKING, Any

from detzoo.ensemble.description import Ensemble, EnsembleModel, check_distinct
from detzoo.errors import UsageError

if TYPE_CHECKING:
    from detzoo.config.label_map import LabelMap
    from detzoo.ensemble.detector import EnsembleDetector

logger = logging.getLogger(__name__)


def load_ensemble(ensemble: Ensemble) -> tuple[EnsembleDetector, LabelMap | None]:
    """The detector, and the label map that its models share; None where none of them has one.

    Everything that can be wrong with the paths and the label maps is told before the first model is loaded.

    Raises:
        UsageError: a model is not exported, not there, there twice, has other classes than the others, or classifies
            given regions.
    """
    paths = [_exported_path(model) for model in ensemble.models]
    check_distinct(paths)
    label_map = _common_label_map([_folder(path) for path in paths])
    from detzoo.ensemble.detector import EnsembleDetector, Member
    from detzoo.tasks.models import load_exported

    loaded = [load_exported(path) for path in paths]
    given = [path for path, model in zip(paths, loaded) if model.wants_proposals]
    if given:
        raise UsageError(
            f"{', '.join(given)} classifies given regions, which an ensemble's images do not bring. Two SPP-nets are "
            "combined by `detzoo evaluate --combine_with`"
        )
    have_masks = [bool(model.has_masks) for model in loaded]
    if any(have_masks) and not all(have_masks):
        without = ", ".join(path for path, has in zip(paths, have_masks) if not has)
        logger.warning("masks are left out: %s has none", without)
    members = [Member(model.name, each, model.weight) for model, each in zip(ensemble.models, loaded)]
    logger.info(
        "%d model%s x %d view%s of each image",
        *(len(members), "" if len(members) == 1 else "s"),
        *(ensemble.views.num_views, "" if ensemble.views.num_views == 1 else "s"),
    )
    return EnsembleDetector(members, ensemble.views, ensemble.merging, all(have_masks)), label_map


def check_classes(label_map: LabelMap | None, wanted: Any, origin: str) -> None:
    """Refuses models whose classes are not those of the data.

    Raises:
        UsageError: they are not.
    """
    if label_map is not None and label_map.names != wanted.names:
        raise UsageError(f"the models' classes are not those of {origin}: {_difference(label_map, wanted)}")


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
    """Where to look for a label map; raises UsageError where there is no model."""
    from detzoo.serving.saved_detector import find_saved_model
    from detzoo.serving.tflite_detector import is_tflite

    if not is_tflite(path):
        return find_saved_model(path)
    if not pathlib.Path(path).is_file():
        raise UsageError(f"there is no TFLite model {path}")
    return pathlib.Path(path)


def _common_label_map(folders: list[pathlib.Path]) -> LabelMap | None:
    from detzoo.serving.saved_detector import label_map_beside

    maps = [(folder, label_map_beside(folder)) for folder in folders]
    known = [(folder, label_map) for folder, label_map in maps if label_map is not None]
    for folder, label_map in maps:
        if label_map is None and len(folders) > 1:
            logger.warning("no label map beside %s: its class ids are taken to mean what the others' do", folder)
    for folder, label_map in known[1:]:
        if label_map.names != known[0][1].names:
            raise UsageError(
                f"{known[0][0]} and {folder} have different label maps and cannot be merged: "
                f"{_difference(known[0][1], label_map)}"
            )
    return known[0][1] if known else None


def _difference(one: LabelMap, other: Any) -> str:
    if len(one.names) != len(other.names):
        return f"{len(one.names)} and {len(other.names)} classes"
    class_id = next(id_ for id_ in sorted({*one.names, *other.names}) if one.names.get(id_) != other.names.get(id_))
    return f"id {class_id} is {one.names.get(class_id)!r} and {other.names.get(class_id)!r}"
