"""Packages that only an extra of ``pip install detzoo`` brings, and the message if one is missing (floor 0)."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from typing import Any

from detzoo.errors import UsageError

_PACKAGES = {  # extra -> module that is imported -> package that has it
    "train": {"orbit": "tf-models-official"},
    "spp": {"sklearn": "scikit-learn", "scipy": "scipy"},
    "video": {"av": "av"},
    "track": {"av": "av", "supervision": "supervision"},
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime", "tf2onnx": "tf2onnx"},
    "beam": {"apache_beam": "apache-beam"},
    "litert": {"ai_edge_litert": "ai-edge-litert"},
}


def require_extras(task: str, *extras: str) -> None:
    """Checks that the packages of extras are installed, without importing them.

    Args:
        task: What needs the packages, as the subject of the message: "training".
        extras: Names of extras in pyproject.toml.

    Raises:
        UsageError: A package is missing. The message has the command that installs it.
    """
    missing = [
        package
        for extra in extras
        for module, package in _PACKAGES[extra].items()
        # Not importlib.util.find_spec: the command line hides scikit-learn from Keras by an entry in sys.modules.
        if importlib.machinery.PathFinder.find_spec(module) is None
    ]
    if missing:
        names = ", ".join(missing)
        raise UsageError(f"{task} needs packages that are not installed: {names}. Install: {install_command(*extras)}")


def install_command(*extras: str) -> str:
    """Returns the command that installs extras into the environment of this process."""
    return f'{sys.executable} -m pip install "detzoo[{",".join(extras)}]"'


def require_package(name: str, caller: str) -> Any:
    """Imports a package that only one function uses, under the name that pip has for it.

    Raises:
        UsageError: The package is not installed. The message has the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        message = f"{caller} needs the package {name}, which is not installed. Install: {sys.executable} -m pip install"
        raise UsageError(f"{message} {name}") from None
