"""Each line of a run's text says what it is, whatever text it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.text_layout import (
    DIFF,
    END,
    RESULT,
    SIGNS,
    SUBAGENT,
    TOOL,
    WORDS,
    Line,
    read_line,
    write_line,
)

HOSTILE = st.text(st.sampled_from(["\\", " ", "a", SUBAGENT, *SIGNS.values()]), max_size=6)
TEXTS = st.one_of(HOSTILE, st.text(st.characters(exclude_characters="\n"), max_size=20))
LINES = st.builds(Line, st.sampled_from([WORDS, *SIGNS]), TEXTS, st.booleans())


@given(LINES)
def test_what_is_written_is_read_back(line: Line) -> None:
    """No text of a line makes it another kind of line."""
    assert read_line(write_line(line)) == line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (Line(WORDS, "* a list, as it is"), "* a list, as it is"),
        (Line(WORDS, "  > indented"), "  > indented"),
        (Line(WORDS, ""), ""),
        (Line(WORDS, "● no tool"), "\\● no tool"),
        (Line(WORDS, "\\● with a backslash"), "\\\\● with a backslash"),
        (Line(WORDS, "\\n"), "\\n"),
        (Line(TOOL, "Bash: ls"), "● Bash: ls"),
        (Line(RESULT, ""), "⎿"),
        (Line(DIFF, "-old"), "▏ -old"),
        (Line(END, "Done in 2 s", is_subagent=True), "┊ ■ Done in 2 s"),
        (Line(WORDS, "", is_subagent=True), "┊"),
    ],
)  # fmt: skip
def test_how_it_is_shown(line: Line, shown: str) -> None:
    """The signs that the documents name."""
    assert write_line(line) == shown
    assert read_line(shown) == line
