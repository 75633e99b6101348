"""How the text of a run is laid out: what each line is, by its first character.

Claude's own words stand at the margin as they are. Every other line begins with a sign and a blank,
so that a program can tell them apart as a person does: the terminal colours them, the gateway's
page folds them. A line of a subagent has `┊ ` before all that. A line of words that would read as
another kind of line has a backslash before it. So any text can be written, and each line is read
by itself:

    ● Bash: npm test                       a tool, and the first line of its input
    ◦ --reporter dot                       the lines of its input that follow
    ⎿ 12 passed                            its result
    ▏ -    return 1                        a change that it makes, as a unified diff
    ⋯ 12 more lines                        how much was left out
    ○ Bash: npm test                       several tools at once: whose result follows
    ∴ The tests pass, so …                 a thought
    » Use pnpm instead                     a person's message or answer
    ◆ the conversation was compacted       a notice
    ▲ API: overloaded; retry 1 of 10       something that went wrong
    ■ Done in 12 s, 3 turns, $0.04         the end of a turn

Pure: no I/O, no threads, no clock.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# What `started` calls this layout; a later one would have another number.
LAYOUT: Final = 1

WORDS: Final = "words"
TOOL: Final = "tool"
INPUT: Final = "input"
RESULT: Final = "result"
DIFF: Final = "diff"
LEFT_OUT: Final = "left out"
WHOSE: Final = "whose"
THOUGHT: Final = "thought"
PERSON: Final = "person"
NOTICE: Final = "notice"
FAILURE: Final = "failure"
END: Final = "end"

SIGNS: Final = {
    TOOL: "●",
    INPUT: "◦",
    RESULT: "⎿",
    DIFF: "▏",
    LEFT_OUT: "⋯",
    WHOSE: "○",
    THOUGHT: "∴",
    PERSON: "»",
    NOTICE: "◆",
    FAILURE: "▲",
    END: "■",
}
SUBAGENT: Final = "┊"

_KINDS: Final = {sign: kind for kind, sign in SIGNS.items()}
_NEEDS_ESCAPE: Final = re.compile(rf"\\*[{''.join(SIGNS.values())}{SUBAGENT}]")
_ESCAPED: Final = re.compile(rf"\\+[{''.join(SIGNS.values())}{SUBAGENT}]")


class Line(NamedTuple):
    """One line: its kind, and its text without a line end."""

    kind: str
    text: str
    is_subagent: bool = False


def write_line(line: Line) -> str:
    """Return a line as it is shown, without its end; `read_line` reads it back."""
    if line.kind == WORDS:
        shown = f"\\{line.text}" if _NEEDS_ESCAPE.match(line.text) else line.text
    else:
        shown = _behind(SIGNS[line.kind], line.text)
    return _behind(SUBAGENT, shown) if line.is_subagent else shown


def read_line(shown: str) -> Line:
    """Return what a line is. Any text is a line."""
    is_subagent = _begins(shown, SUBAGENT)
    if is_subagent:
        shown = shown[2:]
    if shown and shown[0] in _KINDS and _begins(shown, shown[0]):
        return Line(_KINDS[shown[0]], shown[2:], is_subagent)
    return Line(WORDS, shown[1:] if _ESCAPED.match(shown) else shown, is_subagent)


class WordsWriter:
    """Writes lines of words while they come, as `write_line` does whole ones."""

    def __init__(self) -> None:
        self._slashes = ""
        self._is_in_line = False

    def feed(self, text: str) -> str:
        """Return what can be shown. Backslashes wait for what follows: they may be one more."""
        first, *others = text.split("\n")
        shown = self._go_on(first)
        for line in others:
            shown += self.end_line() + self._go_on(line)
        return shown

    def end_line(self) -> str:
        """Return the end of the line, with its held part."""
        slashes, self._slashes = self._slashes, ""
        self._is_in_line = False
        return f"{slashes}\n"

    def _go_on(self, part: str) -> str:
        if self._is_in_line or not part:
            return part
        part, self._slashes = self._slashes + part, ""
        if not part.strip("\\"):
            self._slashes = part
            return ""
        self._is_in_line = True
        return write_line(Line(WORDS, part))


def _behind(sign: str, text: str) -> str:
    return f"{sign} {text}" if text else sign


def _begins(shown: str, sign: str) -> bool:
    return shown == sign or shown.startswith(f"{sign} ")
