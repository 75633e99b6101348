"""The lines of a run's text in colour, as a person at a terminal likes to read them.

    painter = Painter(lambda: 80)
    screen.write(painter.feed(text) + painter.flush())     # the text of one message

The text is laid out as `kinds.text_layout` says; what comes out looks like Claude Code at the
keyboard. `flush` shows what was held back for what may follow, at the end of each message. How the
text is cut makes no difference. Control characters are left out, so no escape sequence of the
text's own gets through. Pure: no I/O, no clock.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Callable, Final

from kinds.text_layout import (
    DIFF,
    END,
    FAILURE,
    INPUT,
    LEFT_OUT,
    NOTICE,
    PERSON,
    RESULT,
    SIGNS,
    SUBAGENT,
    THOUGHT,
    TOOL,
    WHOSE,
    WORDS,
    Line,
    read_line,
)
from runner.prose import BOLD, CODE, DIM, ITALIC, Prose

if TYPE_CHECKING:
    from collections.abc import Mapping

_RED: Final = "31"
_GREEN: Final = "32"

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# A line that may yet be of another kind than words, or whose words begin behind a backslash.
_UNDECIDED: Final = re.compile(rf"\\*\Z|[{''.join(SIGNS.values())}](?: |\Z)|{SUBAGENT}")
_HUNK: Final = re.compile(r"@@ -([0-9]{1,9}),[0-9]+ \+([0-9]{1,9}),[0-9]+ @@")
# The kinds that stand below a tool, and those that begin a block of their own: the sign of its
# first line, the margin of the others, and the style.
_BLOCKS: Final[Mapping[str, tuple[str, str, str]]] = {
    THOUGHT: ("∴ ", "  ", f"{DIM};{ITALIC}"),
    PERSON: ("> ", "  ", CODE),
    NOTICE: ("✻ ", "✻ ", DIM),
    FAILURE: ("▲ ", "▲ ", _RED),
    END: ("✻ ", "✻ ", DIM),
}
_BELOW_TOOL: Final = frozenset({TOOL, WHOSE, INPUT, RESULT, DIFF, LEFT_OUT})


def wants_color() -> bool:
    """Whether the user's terminal is to be given colours. Source: https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Painter:
    """The text of one run. `columns` is the terminal's width, 0 for any. Thread: one caller."""

    def __init__(self, columns: Callable[[], int]) -> None:
        self._prose = Prose(columns)
        self._held = ""  # the beginning of a line, as long as it is not decided what it is
        self._is_in_words = False  # inside a line of words
        self._last = Line("", "")  # the last line that was not empty
        self._is_apart = True  # an empty line came after it
        self._tool = ""  # the last line of a tool and its input, as long as more may follow
        self._has_result = False  # below that tool
        self._numbers = (0, 0)  # of a diff's next line, before and after it; 0 is unknown

    def feed(self, text: str) -> str:
        """Return what can be shown by now."""
        *lines, rest = _CONTROLS.sub("", text).split("\n")
        shown = "".join(self._feed_part(line) + self._end_line() for line in lines)
        return shown + self._feed_part(rest)

    def flush(self) -> str:
        """Return what was held back, at the end of a message."""
        shown = self._end_line() if self._held or self._is_in_words else ""
        return shown + self._end_block()

    def _feed_part(self, part: str) -> str:
        if self._is_in_words:
            return self._prose.feed(part)
        self._held += part
        if not part or _UNDECIDED.match(self._held):
            return ""
        text, self._held = read_line(self._held).text, ""
        self._is_in_words = True
        return self._begin_words(Line(WORDS, text)) + self._prose.feed(text)

    def _end_line(self) -> str:
        if self._is_in_words:
            self._is_in_words = False
            return self._prose.end_line()
        line, self._held = read_line(self._held), ""
        if line.kind == WORDS and not line.text.strip():
            self._is_apart = True
            # One between words may belong to them, to their code for one.
            return self._prose.end_line() if self._last.kind == WORDS else self._end_block() + "\n"
        if line.kind == WORDS:
            begun = self._begin_words(line)
            return begun + self._prose.feed(line.text) + self._prose.end_line()
        ended = "" if line.kind == INPUT and self._tool else self._end_block()
        painted = self._paint(line)
        self._last, self._is_apart = line, False
        return ended + painted

    def _begin_words(self, line: Line) -> str:
        ended = ""
        if (self._last.kind, self._last.is_subagent) != (WORDS, line.is_subagent):
            ended = self._end_block()
            self._prose.begin(f"{_bar(line)}● ", f"{_bar(line)}  ")
        self._last, self._is_apart = line, False
        return ended

    def _end_block(self) -> str:
        """Return what was held back of the words, or of a tool."""
        tool, self._tool = self._tool, ""
        return (f"{tool})\n" if tool else "") + (
            self._prose.end() if self._last.kind == WORDS else ""
        )

    def _paint(self, line: Line) -> str:
        """Return a line of another kind than words."""
        bar, is_below = _bar(line), line.kind in _BELOW_TOOL
        if line.kind in (TOOL, WHOSE):
            return self._paint_tool(line)
        if line.kind == INPUT:
            before = f"{self._tool}\n" if self._tool else ""
            self._tool = f"{bar}      {line.text}"
            return before
        if line.kind == FAILURE and self._last.kind in _BELOW_TOOL and not self._is_apart:
            is_below = True
        if not is_below:
            first, margin, style = _BLOCKS[line.kind]
            is_more = self._last.kind == line.kind and not self._is_apart
            return f"{bar}{_styled(style, (margin if is_more else first) + line.text)}\n"
        if line.kind == DIFF:
            return self._paint_change(bar, line.text)
        sign = "     " if self._has_result else "  ⎿  "
        self._has_result = True
        style = _RED if line.kind == FAILURE else DIM
        text = f"… +{line.text}" if line.kind == LEFT_OUT else line.text
        return f"{bar}{_styled(style, sign)}{_styled(style, text)}\n"

    def _paint_tool(self, line: Line) -> str:
        self._has_result = False
        self._numbers = (0, 0)
        name, colon, given = line.text.partition(": ")
        bar = _bar(line)
        if line.kind == WHOSE:
            return f"{bar}{_styled(DIM, f'● {name}({given})' if colon else f'● {name}')}\n"
        if not colon:
            return f"{bar}● {_styled(BOLD, name)}\n"
        self._tool = f"{bar}● {_styled(BOLD, name)}({given}"
        return ""

    def _paint_change(self, bar: str, text: str) -> str:
        hunk = _HUNK.match(text)
        if text.startswith("@@"):
            is_first = self._last.kind != DIFF
            self._numbers = (int(hunk[1]), int(hunk[2])) if hunk else (0, 0)
            return "" if is_first else f"{bar}{_styled(DIM, '     ⋯')}\n"
        before, after = self._numbers
        sign = text[:1] if text[:1] in ("-", "+") else " "
        number = before if sign == "-" else after
        if number:
            self._numbers = (before + (sign != "+"), after + (sign != "-"))
        style = {"-": _RED, "+": _GREEN}.get(sign, "")
        shown = f"{number or '':>4} "
        return f"{bar}     {_styled(DIM, shown)}{_styled(style, sign + ' ' + text[1:])}\n"


def _bar(line: Line) -> str:
    return _styled(DIM, f"{SUBAGENT} ") if line.is_subagent else ""


def _styled(style: str, text: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and text.strip() else text
