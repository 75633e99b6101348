"""Each line of a run's text says what it is, whatever text it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.text_layout import SIGNS, SUBAGENT, WORDS, Line, read_line, write_line

CASES = json.loads(Path(__file__).with_name("text_layout.json").read_text("utf-8"))
HOSTILE = st.text(st.sampled_from(["\\", " ", "a", SUBAGENT, *SIGNS.values()]), max_size=6)
TEXTS = st.one_of(HOSTILE, st.text(st.characters(exclude_characters="\n"), max_size=20))
LINES = st.builds(Line, st.sampled_from([WORDS, *SIGNS]), TEXTS, st.booleans())


@given(LINES)
def test_what_is_written_is_read_back(line: Line) -> None:
    """No text of a line makes it another kind of line."""
    assert read_line(write_line(line)) == line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["shown"])
def test_how_it_is_shown(case: dict[str, Any]) -> None:
    """The signs that the documents name. The page's own reader has the same cases."""
    line = Line(case["kind"], case["text"], case.get("isSubagent", False))

    assert write_line(line) == case["shown"]
    assert read_line(case["shown"]) == line
