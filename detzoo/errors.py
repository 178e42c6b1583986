"""The errors that a user can fix, each with the exit code of the command (floor 0).

A message names the problem, the received value, the accepted values and the fix. The command line prints the message
only; ``--debug`` adds the traceback.
"""

from __future__ import annotations


class DetzooError(Exception):
    """An error that the user can fix. ``exit_code`` is the exit code of the command line."""

    exit_code = 1


class UsageError(DetzooError):
    """A wrong flag, path or combination of flags."""

    exit_code = 2


class ConfigError(DetzooError):
    """A pipeline.config or label map with an error."""

    exit_code = 2


class NotReadyError(ConfigError):
    """A pipeline.config without errors whose placeholders are still to be set."""

    exit_code = 3


class DataError(DetzooError):
    """Unreadable records, images or annotations."""


class CheckpointError(DetzooError):
    """A checkpoint that is missing, incomplete or does not fit the model."""


class OtherModelError(CheckpointError):
    """A checkpoint of another model than the one to restore.

    Args:
        finding: The differences, and the way to restore the checkpoint as a whole.
        remedy: The end of the message: the way to reuse the weights in a training.
        has_other_classes: The models differ in the number of classes alone.
    """

    def __init__(self, finding: str, remedy: str = "", has_other_classes: bool = False) -> None:
        super().__init__(finding + remedy)
        self.finding, self.has_other_classes = finding, has_other_classes


class DiskFullError(DetzooError):
    """A write that failed because the disk, or the user's quota on it, is full."""


class TrainingError(DetzooError):
    """Training had to stop: a loss that is not finite, or no usable input."""
