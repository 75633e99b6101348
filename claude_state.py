"""Whether Claude Code is working or waits for somebody, from what it tells the terminal.

Its full-screen program puts a sign before the window's title: a star while it waits for the user,
a turning circle (braille dots in older releases) while it works; and it rings the bell when it
wants something. Nothing of that is documented, so it is a hint for a viewer and no more. Pure.

Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html. A BEL also ends an operating system
command (a hyperlink, a progress bar, the clipboard), which rings nothing.
"""

from __future__ import annotations

import re
from typing import Final

from child_events import WAITING, WORKING

# A bell, or the beginning of a control string: `]` is an operating system command.
_BEGIN: Final = re.compile(rb"\x07|\x1b(?:[\]PX^_]|\Z)")
# What ends a string: its terminator, a cancelling character, or any other escape sequence.
_END: Final = re.compile(rb"[\x07\x18\x1a]|\x1b(?:\\|\Z)?")
_END_WITHOUT_BELL: Final = re.compile(rb"[\x18\x1a]|\x1b(?:\\|\Z)?")
# Enough of a string for the number of a title and the sign behind it.
_KEPT_BYTES: Final = 16
_TITLE: Final = re.compile(rb"\][02];")
_WAITING_SIGN: Final = "\N{EIGHT SPOKED ASTERISK}"


class StateWatcher:
    """The state of one session. Thread: one caller. How the output is cut makes no difference."""

    def __init__(self) -> None:
        self.state: str | None = None
        self._ends_in_escape = False
        self._string: bytes | None = None  # the beginning of the control string that is under way

    def feed(self, raw: bytes) -> None:
        """Look at a piece of the program's output; `state` is what it says by now."""
        if not raw:
            return
        if self._ends_in_escape:
            self._ends_in_escape = False
            raw = b"\x1b" + raw
        at = 0
        while at < len(raw):
            at = self._look(raw, at) if self._string is None else self._go_on(self._string, raw, at)

    def _look(self, raw: bytes, at: int) -> int:
        """Find the next bell or string; return where to go on."""
        begin = _BEGIN.search(raw, at)
        if begin is None:
            return len(raw)
        if begin[0] == b"\x07":
            self.state = WAITING
        elif begin[0] == b"\x1b":
            self._ends_in_escape = True
        else:
            self._string = begin[0][1:]
        return begin.end()

    def _go_on(self, string: bytes, raw: bytes, at: int) -> int:
        """Find the end of the string; return where to go on."""
        end = (_END if string[:1] == b"]" else _END_WITHOUT_BELL).search(raw, at)
        stop = len(raw) if end is None else end.start()
        self._string = string + raw[at : min(stop, at + _KEPT_BYTES - len(string))]
        if end is None:
            return len(raw)
        if end[0] == b"\x1b" and end.end() == len(raw):
            self._ends_in_escape = True
            return len(raw)
        if end[0] in (b"\x07", b"\x1b\\"):
            self.state = _read_title(self._string) or self.state
        self._string = None
        return stop if end[0] == b"\x1b" else end.end()


def _read_title(string: bytes) -> str | None:
    """Return what a control string says, None if it says nothing or is no title."""
    number = _TITLE.match(string)
    sign = string[number.end() :].decode("utf-8", "replace")[:1] if number else ""
    if sign == _WAITING_SIGN:
        return WAITING
    is_circle = "\N{CIRCLE WITH LEFT HALF BLACK}" <= sign <= "\N{CIRCLE WITH UPPER HALF BLACK}"
    is_braille = "\N{BRAILLE PATTERN BLANK}" <= sign <= "\N{BRAILLE PATTERN DOTS-12345678}"
    return WORKING if is_circle or is_braille else None
