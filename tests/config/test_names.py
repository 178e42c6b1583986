"""Names and counts in messages."""

from __future__ import annotations

import pytest

from detzoo.config.names import counted, listed


@pytest.mark.parametrize(
    ("names", "text"),
    [("", ""), ("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more"), ("abcdef", "a, b, c and 3 more")],
)
def test_a_few_of_many_names_are_listed(names: str, text: str) -> None:
    assert listed(list(names)) == text


def test_the_number_of_listed_names_can_be_chosen() -> None:
    assert listed(list("abc"), most=1) == "a and 2 more"


@pytest.mark.parametrize(("number", "text"), [(0, "0 points"), (1, "1 point"), (2, "2 points")])
def test_counts_have_singular_and_plural(number: int, text: str) -> None:
    assert counted(number, "point") == text
