"""Reads and writes checkpoints, completely or by part (floor 4)."""

from detzoo.checkpoints.restore import restore_for_inference

__all__ = ["restore_for_inference"]
