"""Restores a detector from a checkpoint: completely for inference, or by part for a warm start.

Accepts checkpoints of detzoo and of the Object Detection API, see ``stored_weights``.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from detzoo.checkpoints.frozen_graph import GRAPH_ENDING, INSTEAD
from detzoo.checkpoints.layout import variables_by_path
from detzoo.checkpoints.stored_weights import CLASSIFICATION, StoredWeights, find_weights
from detzoo.errors import CheckpointError, OtherModelError

logger = logging.getLogger(__name__)

BACKBONE, BOX_BACKBONE = "backbone", "box_backbone"  # before and after the crop
# fine_tune_checkpoint_type -> restored parts of the model (first component of a variable's path); None for all.
PARTS_BY_TYPE: dict[str, tuple[str, ...] | None] = {
    CLASSIFICATION: (BACKBONE, BOX_BACKBONE),
    "detection": (BACKBONE, "neck", BOX_BACKBONE),
    "fine_tune": None,
    "full": None,
}
_NOT_STORED = "not in the checkpoint"
_SHOWN = 2  # examples of variables named in a message
# Layers whose shape follows from the number of classes.
CLASS_LAYER = re.compile(
    r"class_(predictor|maps)|box_head/box_(predictor|maps)|mask_predictor|head/(object_center|.*heatmap)\.\d+\.predictor"
)


def restore_for_inference(
    detector: Any, path: str | pathlib.Path, prefer_ema: bool = True, tf1_averages: bool = False
) -> int:
    """Sets every variable of a detector from a checkpoint.

    The checkpoint may have complete parts that the detector does not have: the first stage of a Faster R-CNN can be
    restored from both stages. A log message counts the variables of these parts.

    Args:
        detector: A built detector.
        path: Path of a model_dir, a folder with a checkpoint, or a prefix such as ``model_dir/ckpt-1000``.
        prefer_ema: Uses the moving averages of the weights in a checkpoint of detzoo, if stored.
        tf1_averages: Uses those in a checkpoint of TensorFlow 1.

    Returns:
        The training step of the checkpoint, 0 if it is not stored.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another kind, or of another model.
    """
    variables = variables_by_path(detector.variables)
    stored = find_weights(path, list(variables), prefer_ema, tf1_averages=tf1_averages)
    unused = _of_other_parts(stored)
    check_same_model(stored, variables, unused)
    if unused:
        parts = collections.Counter(_part_in_file(stored, name) for name in unused)
        counts = ", ".join(f"{part} {count}" for part, count in sorted(parts.items()))
        logger.warning(
            "%s: %d variables are not used, because the model has no such part: %s", stored.prefix, len(unused), counts
        )
    if stored.leftovers:
        logger.info("%s has variables that no detector needs:\n%s", stored.prefix, _by_reason(stored.leftovers))
    _assign(stored, variables, list(variables))
    if not stored.is_own:
        logger.info("%s: all %d variables of %s", stored.prefix, len(variables), stored.kind)
    return stored.step


def copy_weights(source: Any, detector: Any) -> None:
    """Sets every variable of a detector to that of another detector.

    Raises:
        CheckpointError: The detectors have other variables.
    """
    values, variables = variables_by_path(source.variables), variables_by_path(detector.variables)
    other = [name for name in {**values, **variables} if not _same_shape(values.get(name), variables.get(name))]
    if other:
        raise CheckpointError(
            f"the config describes another model than the detector in memory: {len(other)} variables differ "
            f"({_examples(other)})"
        )
    for name, variable in variables.items():
        variable.assign(values[name])


def _same_shape(one: Any, other: Any) -> bool:
    return one is not None and other is not None and tuple(one.shape) == tuple(other.shape)


def _of_other_parts(stored: StoredWeights) -> set[str]:
    """Returns the unused variables of a checkpoint in parts of which the detector has no variable."""
    used = {_part_in_file(stored, stored.names.get(path, path)) for path in stored.shapes}
    return {name for name in stored.unused if _part_in_file(stored, name) not in used}


def _part_in_file(stored: StoredWeights, name: str) -> str:
    """Returns the part of the model of a name in the file."""
    return "/".join(name.split("/")[: stored.part_depth])


def _assign(stored: StoredWeights, variables: Mapping[str, Any], names: Iterable[str]) -> None:
    """Sets variables, after all values are read."""
    values = {name: stored.read(name) for name in names}
    for name, value in values.items():
        variables[name].assign(value)


def check_same_model(stored: StoredWeights, variables: Mapping[str, Any], spare: Collection[str] = ()) -> None:
    """Checks that a checkpoint has exactly the variables of a detector.

    Args:
        stored: The weights of the checkpoint.
        variables: The variables of the detector, by path.
        spare: Names in the file that the detector need not have.

    Raises:
        OtherModelError: The variables differ; the message has the first differences.
    """
    shapes = stored.shapes
    missing = [name for name in variables if name not in shapes]
    other = [name for name in shapes if shapes[name] != tuple(variables[name].shape)]
    if not (missing or other or set(stored.unused) - set(spare)):
        return
    findings = []
    if other:
        compared = [f"{stored.describe(name)}: {_shapes(stored, name, variables)}" for name in other]
        findings.append(f"{len(other)} variables of another shape ({_examples(compared)})")
    if missing:
        findings.append(f"{len(missing)} variables of the model are not in it ({_examples(missing)})")
    if stored.unused:
        findings.append(f"{len(stored.unused)} of its variables are not in the model ({_examples(stored.unused)})")
    has_other_classes = not missing and not stored.unused and all(CLASS_LAYER.search(name) for name in other)
    if has_other_classes:
        advice = "It was trained for another number of classes: set num_classes to that number"
    else:
        advice = "Use the pipeline.config of the checkpoint's folder, or another checkpoint"
    if missing and stored.prefix.endswith(GRAPH_ENDING):
        advice += f"; if batch normalization is folded into its weights, {INSTEAD}"
    raise OtherModelError(
        f"the checkpoint {stored.prefix} ({stored.kind}) is of another model: {'; '.join(findings)}. {advice}",
        "; to reuse its weights, name it in train_config.fine_tune_checkpoint",
        has_other_classes,
    )


def _shapes(stored: StoredWeights, name: str, variables: Mapping[str, Any], here: str = "in the model") -> str:
    return f"{stored.shapes[name]} in the checkpoint, {tuple(variables[name].shape)} {here}"


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The result of a warm start."""

    prefix: str  # prefix of the checkpoint
    kind: str  # description of the stored model
    restored: list[str]  # variables with values of the checkpoint
    new: dict[str, str]  # variables of the restored parts that keep their initial values -> reason
    skipped: list[str]  # variables of parts that were not requested
    unused: list[str]  # names of the checkpoint's variables that the model does not have
    # Names of its variables that no detector needs -> reason.
    leftovers: dict[str, str] = dataclasses.field(default_factory=dict)

    def describe(self) -> str:
        """Returns the counts by part, and the names of all variables that were not restored or not used."""
        lines = [f"warm start from {self.prefix} ({self.kind}):"]
        for title, names in (("restored", self.restored), ("new", list(self.new)), ("skipped", self.skipped)):
            lines.append(f"  {title:8} {len(names)} variables{_by_part(names)}")
        lines += [f"    new: {name}: {reason}" for name, reason in self.new.items()]
        if any(reason != _NOT_STORED for reason in self.new.values()):
            lines.append(
                "  Another shape means another number of classes or anchors: these variables keep their initial values."
            )
        if self.unused:
            lines += [f"  unused   {len(self.unused)} variables of the checkpoint", _listed(self.unused)]
        if self.leftovers:
            lines += ["  variables of the checkpoint that no detector needs:", _by_reason(self.leftovers)]
        return "\n".join(lines)


def warm_start(detector: Any, path: str | pathlib.Path, checkpoint_type: str = "fine_tune") -> WarmStart:
    """Restores parts of a detector from the checkpoint of another run.

    Moving averages are preferred. A variable of another shape (another number of classes) keeps its initial value.

    Args:
        detector: A built detector.
        path: Path as for ``restore_for_inference``.
        checkpoint_type: ``classification`` (the backbone), ``detection`` (backbone and neck), ``fine_tune`` or
            ``full`` (every variable of equal shape).

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another kind or of another backbone, the type is
            unknown, or no variable fits.
    """
    if checkpoint_type not in PARTS_BY_TYPE:
        raise CheckpointError(
            f"fine_tune_checkpoint_type '{checkpoint_type}' is not known; accepted: {', '.join(PARTS_BY_TYPE)}"
        )
    variables = variables_by_path(detector.variables)
    stored = find_weights(path, list(variables), checkpoint_type=checkpoint_type)
    parts = PARTS_BY_TYPE[checkpoint_type]
    restored: list[str] = []
    new: dict[str, str] = {}
    skipped: list[str] = []
    for name, variable in variables.items():
        if parts is not None and part_of(name) not in parts:
            skipped.append(name)
        elif name not in stored.shapes:
            new[name] = _NOT_STORED
        elif stored.shapes[name] != tuple(variable.shape):
            new[name] = _shapes(stored, name, variables, "here")
        else:
            restored.append(name)
    _check_backbone(
        stored, new, is_other=bool(restored) and not any(part_of(name) == BACKBONE for name in stored.shapes)
    )
    if not restored:
        raise CheckpointError(
            f"no variable of {stored.prefix} ({stored.kind}) fits this model: it has "
            f"{_examples([*stored.shapes, *stored.unused])}, the model needs {_examples([*new, *skipped])}"
        )
    _assign(stored, variables, restored)
    return WarmStart(stored.prefix, stored.kind, restored, new, skipped, stored.unused, stored.leftovers)


def _check_backbone(stored: StoredWeights, new: Mapping[str, str], is_other: bool) -> None:
    """Raises if the backbone is another network: it ``is_other``, or a shape differs; a graph must have all of it."""
    missing = [name for name, reason in new.items() if part_of(name) == BACKBONE and reason == _NOT_STORED]
    if missing and is_other:
        raise CheckpointError(
            f"the backbone in {stored.prefix} ({stored.kind}) is another network than this model's: it has none of the "
            f"{len(missing)} variables of the backbone ({_examples(missing)}) but {_examples(stored.unused)}. Choose "
            "the checkpoint of this feature extractor, or leave fine_tune_checkpoint empty"
        )
    if missing and stored.prefix.endswith(GRAPH_ENDING):
        raise CheckpointError(
            f"the graph {stored.prefix} ({stored.kind}) lacks {len(missing)} variables of the backbone "
            f"({_examples(missing)}): if batch normalization is folded into its weights, {INSTEAD}"
        )
    other = [name for name, reason in new.items() if part_of(name) == BACKBONE and reason != _NOT_STORED]
    if other:
        raise CheckpointError(
            f"the backbone in {stored.prefix} ({stored.kind}) is another network than this model's: {len(other)} "
            f"variables have another shape, first {stored.describe(other[0])}: {new[other[0]]}. Choose the checkpoint "
            "of this feature extractor (type and depth_multiplier), or leave fine_tune_checkpoint empty"
        )


def part_of(path: str) -> str:
    """Returns the part of the model of a variable, the first component of its path."""
    return path.split("/", 1)[0]


def _by_part(names: Iterable[str]) -> str:
    counts = collections.Counter(map(part_of, names))
    return f" ({', '.join(f'{part} {count}' for part, count in counts.items())})" if counts else ""


def _examples(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _by_reason(reasons: Mapping[str, str]) -> str:
    """Formats the names of unneeded variables, one line per reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "\n".join(f"    {len(found)}, {reason}: {_examples(found)}" for reason, found in names.items())


def _listed(names: Iterable[str]) -> str:
    """Formats all names, one line per layer."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, variable = name.rpartition("/")
        layers.setdefault(layer, []).append(variable)
    return "\n".join(f"    unused: {layer}: {', '.join(variables)}" for layer, variables in layers.items())
