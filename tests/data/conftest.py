"""Fixtures of the tests of the data sets."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def images():
    """The module tests/data/dirty_images.py."""
    path = pathlib.Path(__file__).resolve().parent / "dirty_images.py"
    spec = importlib.util.spec_from_file_location("dirty_images", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
