"""Reads and writes checkpoints, completely or by part (floor 4)."""

from __future__ import annotations

from typing import Any

__all__ = ["restore_for_inference"]


def __getattr__(name: str) -> Any:
    """Imports ``restore_for_inference``, and TensorFlow with it, at its first use: ``zoo`` needs neither."""
    if name == "restore_for_inference":
        from detzoo.checkpoints.restore import restore_for_inference

        return restore_for_inference
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
