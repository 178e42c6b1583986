"""detzoo: a zoo of object detectors on TensorFlow and Keras 3.

import detzoo

detector = detzoo.load("runs/my")
result = detector.detect("street.jpg")

Importing the package is cheap: TensorFlow is loaded by the modules that compute with it, never here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from detzoo import keras_files

if TYPE_CHECKING:
    from detzoo.api.detector import LoadedDetector
    from detzoo.api.loading import load
    from detzoo.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DetzooError,
        DiskFullError,
        TrainingError,
        UsageError,
    )
    from detzoo.tasks.result import Detection, Result

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Detection",
    "DetzooError",
    "DiskFullError",
    "LoadedDetector",
    "Result",
    "TrainingError",
    "UsageError",
    "__version__",
    "load",
]

_MODULES = {
    "load": "api.loading",
    "LoadedDetector": "api.detector",
    "Result": "tasks.result",
    "Detection": "tasks.result",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'detzoo' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"detzoo.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


keras_files.register()
