"""Lets ``keras.saving.load_model`` open a detector's .keras file after ``import detzoo`` (floor 0).

Keras looks the class of a saved model up in a table. A detector's classes are in it once they are imported, but
``import detzoo`` imports neither them nor Keras. So a stand-in is added to the table as soon as Keras is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

REGISTERED_NAME = "detzoo>Detector"
_TABLE = "keras.saving"  # has get_custom_objects


class SavedDetector:
    """Stand-in for the classes of detectors, none of which is imported before it is needed."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Builds the detector of ``Detector.get_config``, with random weights."""
        return importlib.import_module("detzoo.builders.detector").detector_from_config(config)


class _AfterKeras:
    """Finder on ``sys.meta_path`` that finds nothing itself, and registers when ``keras.saving`` has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Returns the specification of ``keras.saving`` with the registration after its import; else None."""
        if name != _TABLE:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                run(module)
                _register(module)

            spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def _register(saving: ModuleType) -> None:
    saving.get_custom_objects().setdefault(REGISTERED_NAME, SavedDetector)


def register() -> None:
    """Registers the stand-in, now or when Keras is imported."""
    if _TABLE in sys.modules:
        _register(sys.modules[_TABLE])
    else:
        sys.meta_path.insert(0, _AfterKeras())  # type: ignore[arg-type]
