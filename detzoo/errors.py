"""The errors that a user can mend, and the exit code each one ends a command with (floor 0).

A message says what is wrong, what was received, what is accepted and how to mend it. The command line prints the
message alone; the traceback is shown by ``--debug``.
"""

from __future__ import annotations


class DetzooError(Exception):
    """Something the user can mend. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(DetzooError):
    """A wrong flag, path or combination of flags."""

    exit_code = 2


class ConfigError(DetzooError):
    """A pipeline.config or label map that cannot be used as it stands."""

    exit_code = 2


class DataError(DetzooError):
    """Records, images or annotations that cannot be read."""


class CheckpointError(DetzooError):
    """A checkpoint that is missing, incomplete or does not fit the model."""


class DiskFullError(DetzooError):
    """A write that failed because the disk, or the user's quota on it, is full."""


class TrainingError(DetzooError):
    """Training had to stop: a loss that is not finite, or no usable input."""
