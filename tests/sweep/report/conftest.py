"""The paper's grid with made-up numbers, as the benchmark of the report makes it, and rows worked by hand."""

from __future__ import annotations

import copy

import pytest

from detzoo.sweep.columns import NAMES


@pytest.fixture(scope="session")
def synthetic(load_module):
    """The module benchmarks/sweep_report.py: ``synthetic_rows``, ``write_rows``, ``grid``."""
    return load_module("../benchmarks/sweep_report.py")


@pytest.fixture(scope="session")
def _grid(synthetic):
    return synthetic.synthetic_rows()


@pytest.fixture
def grid(_grid):
    """147 rows that a test may change."""
    return copy.deepcopy(_grid)


@pytest.fixture(scope="session")
def browser_module(load_module):
    """The module tests/sweep/report/browser.py."""
    return load_module("sweep/report/browser.py")


@pytest.fixture
def make_row():
    """A function: key and values by column -> a full row of a measured point."""

    def make(key, **values):
        usual = {"key": key, "name": key, "status": "ok", "device": "CPU", "batch_size": 1}
        return {**dict.fromkeys(NAMES), **usual, **values}

    return make
