"""Checkpoint -> detector: the whole of it for inference, or by part for a warm start."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterable
from typing import Any

from detzoo.checkpoints.files import StoredCheckpoint, open_checkpoint
from detzoo.checkpoints.layout import MODEL, variables_by_path
from detzoo.errors import CheckpointError

logger = logging.getLogger(__name__)

BACKBONE = "backbone"
# fine_tune_checkpoint_type -> parts of the model (first component of a variable's path) that are restored; None = all.
PARTS_BY_TYPE: dict[str, tuple[str, ...] | None] = {
    "classification": (BACKBONE,),
    "detection": (BACKBONE, "neck"),
    "fine_tune": None,
    "full": None,
}
_NOT_STORED = "not in the checkpoint"
_SHOWN = 5  # examples of variables named in a message


def restore_for_inference(detector: Any, path: str | pathlib.Path, prefer_ema: bool = True) -> int:
    """Sets every variable of a detector from a checkpoint.

    Args:
        detector: A built detector.
        path: A model_dir, a folder with a checkpoint, or a prefix such as ``model_dir/ckpt-1000``.
        prefer_ema: Use the moving averages of the weights where the checkpoint has them.

    Returns:
        The training step of the checkpoint.

    Raises:
        CheckpointError: missing, damaged, of another kind, or of another model.
    """
    stored = open_checkpoint(path)
    variables = variables_by_path(detector.variables)
    check_same_model(stored, variables)
    for name, variable in variables.items():
        variable.assign(stored.read_weights(name, prefer_ema))
    return stored.step


def check_same_model(stored: StoredCheckpoint, variables: dict[str, Any]) -> None:
    """Whether a checkpoint has exactly the variables of a detector.

    Raises:
        CheckpointError: it has not, with the first differences.
    """
    shapes = stored.paths(MODEL)
    missing = [name for name in variables if name not in shapes]
    unknown = [name for name in shapes if name not in variables]
    other = [
        f"{name}: {shapes[name]} in the checkpoint, {tuple(variable.shape)} in the model"
        for name, variable in variables.items()
        if name in shapes and shapes[name] != tuple(variable.shape)
    ]
    if not (missing or unknown or other):
        return
    findings = []
    if other:
        findings.append(f"{len(other)} variables of another shape ({_examples(other)})")
    if missing:
        findings.append(f"{len(missing)} variables of the model are not in it ({_examples(missing)})")
    if unknown:
        findings.append(f"{len(unknown)} of its variables are not in the model ({_examples(unknown)})")
    raise CheckpointError(
        f"the checkpoint {stored.prefix} is of another model: {'; '.join(findings)}. Use the pipeline.config beside "
        "the checkpoint, or another model_dir; to reuse its weights, name it in train_config.fine_tune_checkpoint"
    )


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a warm start did.

    Attributes:
        prefix: The checkpoint.
        restored: Variables that got its values.
        new: Variables of the restored parts that keep their initial values, with the reason.
        skipped: Variables of parts that were not asked for.
    """

    prefix: str
    restored: list[str]
    new: dict[str, str]
    skipped: list[str]

    def describe(self) -> str:
        """Counts by part, and every variable that could not be restored."""
        lines = [f"warm start from {self.prefix}:"]
        for title, names in (("restored", self.restored), ("new", list(self.new)), ("skipped", self.skipped)):
            lines.append(f"  {title:8} {len(names)} variables{_by_part(names)}")
        lines += [f"    new: {name}: {reason}" for name, reason in self.new.items()]
        if any(reason != _NOT_STORED for reason in self.new.values()):
            lines.append(
                "  Another shape means another number of classes or anchors: these start anew, all else is kept."
            )
        return "\n".join(lines)


def warm_start(detector: Any, path: str | pathlib.Path, checkpoint_type: str = "fine_tune") -> WarmStart:
    """Sets the variables of a detector that a checkpoint of another run has, by part.

    Moving averages are preferred. A variable of another shape (another number of classes) keeps its initial value.

    Args:
        detector: A built detector.
        path: As for ``restore_for_inference``.
        checkpoint_type: ``classification`` (the backbone), ``detection`` (backbone and neck), ``fine_tune`` or
            ``full`` (all that fits).

    Raises:
        CheckpointError: missing, damaged or of another kind; an unknown type; or nothing fits.
    """
    if checkpoint_type not in PARTS_BY_TYPE:
        raise CheckpointError(
            f"fine_tune_checkpoint_type '{checkpoint_type}' is not known; accepted: {', '.join(PARTS_BY_TYPE)}"
        )
    stored = open_checkpoint(path)
    shapes, parts = stored.paths(MODEL), PARTS_BY_TYPE[checkpoint_type]
    restored: list[str] = []
    new: dict[str, str] = {}
    skipped: list[str] = []
    for name, variable in variables_by_path(detector.variables).items():
        if parts is not None and part_of(name) not in parts:
            skipped.append(name)
        elif name not in shapes:
            new[name] = _NOT_STORED
        elif shapes[name] != tuple(variable.shape):
            new[name] = f"{shapes[name]} in the checkpoint, {tuple(variable.shape)} here"
        else:
            variable.assign(stored.read_weights(name, prefer_average=True))
            restored.append(name)
    if not restored:
        raise CheckpointError(
            f"no variable of {stored.prefix} fits this model: it has {_examples(list(shapes))}, the model wants "
            f"{_examples([*new, *skipped])}"
        )
    return WarmStart(stored.prefix, restored, new, skipped)


def part_of(path: str) -> str:
    """The part of the model that a variable belongs to: the first component of its path."""
    return path.split("/", 1)[0]


def _by_part(names: Iterable[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        counts[part_of(name)] = counts.get(part_of(name), 0) + 1
    return f" ({', '.join(f'{part} {count}' for part, count in counts.items())})" if counts else ""


def _examples(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
