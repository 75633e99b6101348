"""A picture of a terminal: what its output looks like to the person in front of it."""

from __future__ import annotations

import re
import threading

import pyte

from testing.programs.terminal import Terminal
from testing.waiting import eventually

# Longer than a program pauses while it draws.
_STILL_S = 0.15


class Picture(pyte.Screen):
    """A screen that lets pass what this release of pyte does not know: xterm's `CSI > 4 ; 2 m`."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        """Set colours."""
        if not private:
            super().select_graphic_rendition(*attributes)


class Screen:
    """What a person sees on a terminal, from what comes behind the text `after`."""

    def __init__(self, terminal: Terminal, columns: int, lines: int, after: bytes = b"") -> None:
        self._terminal = terminal
        self._after = after
        self._screen = Picture(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._at = 0

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal and its picture a new size."""
        self.text()
        self._screen.resize(lines, columns)
        self._terminal.resize(columns, lines)

    def text(self) -> str:
        """Return the screen's text, without blanks at its ends."""
        output = self._terminal.output
        begin = output.find(self._after) + len(self._after) if self._after in output else None
        if begin is not None:
            self._at = max(self._at, begin)
            self._stream.feed(output[self._at :])
            self._at = len(output)
        return "\n".join(line.rstrip() for line in self._screen.display).strip("\n")

    def wait_for(self, pattern: str) -> None:
        """Wait until the screen looks like this."""

        def looks_like_it() -> None:
            shown = self.text()
            assert re.search(pattern, shown), f"no {pattern} on this screen:\n{shown}"

        eventually(looks_like_it, 15.0)

    def wait_until_still(self) -> None:
        """Wait until what is drawn in pieces is drawn."""

        def nothing_comes() -> None:
            before = self.picture()
            threading.Event().wait(_STILL_S)
            assert self.picture() == before

        eventually(nothing_comes)

    def picture(self) -> tuple[list[str], tuple[int, int], bool, object]:
        """Return text, cursor and colours."""
        self.text()
        cursor = self._screen.cursor
        colours = {
            (y, x): (cell.fg, cell.bg, cell.bold, cell.reverse)
            for y, line in self._screen.buffer.items()
            for x, cell in line.items()
            if cell != self._screen.default_char
        }
        return self._screen.display, (cursor.x, cursor.y), cursor.hidden, colours
