"""Tables: every row is tried, and each that fails is told."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from testing.tables import each_row


def test_all_rows_that_fail_are_told() -> None:
    """By their names, or their values, with what failed; the others are tried nevertheless."""
    tried = []

    @each_row(("text", "length"), [("a", 2), pytest.param("b", 1, id="right"), ("ccc", 4)])
    def check(text: str, length: int) -> None:
        tried.append(text)
        assert len(text) == length, "another length"

    with pytest.raises(AssertionError) as caught:
        check()

    told = str(caught.value)
    assert tried == ["a", "b", "ccc"]
    assert told.startswith("2 of 3 rows failed\n[('a', 2)] Traceback")
    assert "[('ccc', 4)]" in told
    assert "AssertionError: another length" in told
    assert "right" not in told


def test_rows_that_are_right_are_no_failure_and_share_fixtures() -> None:
    """Of tables one upon another each combination is tried; pytest sees the fixtures alone."""
    tried: list[str] = []

    @each_row("first", ["a", "b"])
    @each_row("second", [1, 2])
    def check(second: int, box: list[str], first: str) -> None:
        """Say what."""
        box.append(f"{first}{second}")

    check(box=tried)

    assert tried == ["a1", "a2", "b1", "b2"]
    assert list(inspect.signature(check).parameters) == ["box"]
    assert (check.__name__, check.__doc__) == ("check", "Say what.")


@pytest.mark.parametrize("rows", [[], [1, 2]])
def test_a_row_that_pytest_fails_is_the_last(rows: list[Any]) -> None:
    """It may be the test's time limit. An empty table fails too."""
    tried = []

    @each_row("row", rows)
    def check(row: int) -> None:
        tried.append(row)
        pytest.fail("no time is left")

    with pytest.raises(AssertionError, match="no time is left" if rows else "the table is empty"):
        check()

    assert tried == rows[:1]
