"""What tests of whole detectors share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def golden_weights(load_module):
    """The module tests/detectors/golden_weights.py."""
    return load_module("detectors/golden_weights.py")
