"""Fixtures of the tests of the data sets."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def images(load_module):
    """The module tests/data/dirty_images.py."""
    return load_module("data/dirty_images.py")
