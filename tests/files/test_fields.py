"""Values of annotation files in the spellings of tools: ids, names, numbers, truth values, sizes."""

from __future__ import annotations

import math

import pytest

from detzoo.files.fields import as_flag, as_id, as_name, as_number, as_size
from detzoo.files.issues import DataIssue, IssueLog


@pytest.mark.parametrize(
    ("value", "key"),
    [(1, 1), ("1", 1), (1.0, 1), ("1.0", 1), (" 1 ", 1), ("007", 7), (-3, -3), ("0", 0), ("a7", "a7"), (1.5, "1.5"),
     ("", None), (None, None), (True, None), ([1], None), (math.nan, None), (math.inf, None), ("\ud800", None)],
)  # fmt: skip
def test_an_id_has_one_key_in_all_spellings(value, key):
    assert as_id(value) == key
    assert type(as_id(value)) is type(key)


@pytest.mark.parametrize(
    ("value", "name"),
    [(" cat ", "cat"), (7, "7"), (7.0, "7"), (0, "0"), ("big\n dog", "big  dog"), ("a\0b", "a b"), ("猫", "猫"),
     (None, ""), (False, ""), ({}, ""), ("x\udfff", "")],
)  # fmt: skip
def test_names(value, name):
    assert as_name(value) == name


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("10", 10.0),
        (" 1.5 ", 1.5),
        ("10,5", 10.5),
        (3, 3.0),
        ("1e3", 1000.0),
        (10**400, math.inf),
        ("9" * 400, math.inf),
    ],
)
def test_numbers(value, number):
    assert as_number(value) == number


@pytest.mark.parametrize("value", ["ten", "", None, True, [1], "1,2,3", "1.000,5"])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"could not convert|is not a number"):
        as_number(value)


def test_truth_values():
    log = IssueLog()
    for value in (1, "1", 1.0, "1.0", True, "true", "Yes", " TRUE ", "2"):
        assert as_flag(value, "here", log) is True
    for value in (0, "0", 0.0, "0.0", False, "false", "No", "", None, "Unspecified", math.nan):
        assert as_flag(value, "here", log) is False
    assert log.counts() == {}
    assert [as_flag(value, "here", log) for value in ("perhaps", [1])] == [False, False]
    assert [tuple(finding) for finding in log.findings()] == [
        (DataIssue.FLAG_UNKNOWN, "here", "'perhaps'"),
        (DataIssue.FLAG_UNKNOWN, "here", "[1]"),
    ]


@pytest.mark.parametrize("side", [0, -1, None, "x", math.nan, 10**9])
def test_a_size_is_two_sides(side):
    assert as_size("48", 64.0) == (48, 64)
    assert as_size(side, 64) is None
