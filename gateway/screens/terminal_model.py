"""What a terminal shows of a session's output: a screen of styled cells.

pyte has the screen; the output is taken apart here, because pyte's own parser prints sequences that
it does not know. Added are the second screen, faint text, scrolling and repeating. Any text can be
fed: no number, name or mark in it makes the screen larger, and each step has a bounded cost.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyte
from pyte import modes
from pyte.screens import Char, Cursor
from wcwidth import wcwidth

# What is drawn at most: a larger terminal is cut at its right and lower edge.
MAX_COLUMNS: Final = 300
MAX_LINES: Final = 120

# Printed in one step: where each one moves the rest of its line, a few.
_PIECE_CHARS: Final = 4_096
_INSERTED_CHARS: Final = 128
_MAX_NUMBER: Final = 9_999
_MAX_NUMBERS: Final = 32
_MAX_UNFINISHED: Final = 4_096
# Of marks on one character.
_MAX_MARKS: Final = 4

_STEP: Final = re.compile(
    r"\x1b\[([<-?]?)([0-9:;]*)[<-?]*([ -/]*)([@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x1a\x1c-\x1f\x7f-\x9f]|[^\x00-\x1f\x7f-\x9f]+"
)
_UNFINISHED: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)\Z"
)
_ALTERNATE: Final = frozenset({47, 1047, 1049})
# Those that count: origin mode, wrapping and the cursor's sight; insertion and line feeds.
_PRIVATE_MODES: Final = frozenset({6, 7, 25})
_PUBLIC_MODES: Final = frozenset({4, 20})

# The names of methods. A count of 0, or none, is 1.
_CONTROLS: Final = {
    "\b": "backspace",
    "\t": "tab",
    "\n": "linefeed",
    "\v": "linefeed",
    "\f": "linefeed",
    "\r": "carriage_return",
    "\x0e": "shift_out",
    "\x0f": "shift_in",
}
_ESCAPES: Final = {
    "7": "save_cursor",
    "8": "restore_cursor",
    "D": "index",
    "E": "next_line",
    "M": "reverse_index",
    "H": "set_tab_stop",
    "c": "start_again",
}
_COUNTED: Final = {
    "@": "insert_characters",
    "A": "cursor_up",
    "B": "cursor_down",
    "C": "cursor_forward",
    "D": "cursor_back",
    "E": "cursor_down1",
    "F": "cursor_up1",
    "G": "cursor_to_column",
    "L": "insert_lines",
    "M": "delete_lines",
    "P": "delete_characters",
    "S": "scroll_up",
    "T": "scroll_down",
    "X": "erase_characters",
    "`": "cursor_to_column",
    "a": "cursor_forward",
    "b": "repeat",
    "d": "cursor_to_line",
    "e": "cursor_down",
}
# What is chosen by a number, and which there are.
_CHOSEN: Final = {
    "J": ("erase_in_display", (0, 1, 2, 3)),
    "K": ("erase_in_line", (0, 1, 2)),
    "g": ("clear_tab_stop", (0, 3)),
}
# `blink` stands for faint text.
_FLAGS: Final = {
    1: ("bold", True),
    2: ("blink", True),
    3: ("italics", True),
    4: ("underscore", True),
    7: ("reverse", True),
    9: ("strikethrough", True),
    23: ("italics", False),
    24: ("underscore", False),
    27: ("reverse", False),
    29: ("strikethrough", False),
}


class TerminalModel(pyte.Screen):
    """One terminal."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__(min(columns, MAX_COLUMNS), min(lines, MAX_LINES))
        self._unfinished = ""
        self._last = ""
        self._first_screen: tuple[Any, Cursor] | None = None

    def take(self, text: str) -> Iterator[None]:
        """Take a piece of output, a step each time that the iterator is asked."""
        whole, self._unfinished = self._unfinished + text, ""
        cut = _UNFINISHED.search(whole, max(0, len(whole) - _MAX_UNFINISHED))
        if cut is not None:
            whole, self._unfinished = whole[: cut.start()], cut[0]
        for step in _STEP.finditer(whole):
            if step[4] is not None:
                self._obey(step[1], _fields(step[2]), step[3], step[4])
            elif step[0][0] == "\x1b":
                self._escape(step[0][1:])
            elif step[0][0] < " " or "\x7f" <= step[0][0] <= "\x9f":
                self._call(_CONTROLS.get(step[0]))
            else:
                size = _INSERTED_CHARS if modes.IRM in self.mode else _PIECE_CHARS
                for at in range(0, len(step[0]), size):
                    self._print(step[0][at : at + size])
                    yield
            yield

    def set_size(self, columns: int, lines: int) -> None:
        """Take another size."""
        self.resize(min(lines, MAX_LINES), min(columns, MAX_COLUMNS))

    @property
    def is_alternate(self) -> bool:
        """Whether it shows its second screen."""
        return self._first_screen is not None

    def place_of_cursor(self) -> list[int] | None:
        """Return its column and line; None if it is hidden."""
        cursor = self.cursor
        return None if cursor.hidden else [min(cursor.x, self.columns - 1), cursor.y]

    def rows(self) -> list[list[list[Any]]]:
        """Return the lines, each as texts with their styles; blanks at their ends are left out."""
        return [_spans(self.buffer[y], self.columns) for y in range(self.lines)]

    # --- what is in the output ---------------------------------------------------------------

    def _call(self, name: str | None, *arguments: int | None) -> None:
        if name is not None:
            method: Callable[..., object] = getattr(self, name)
            method(*arguments)

    def _print(self, text: str) -> None:
        printable = text if text.isascii() else _printable(text)
        if printable:
            self.draw(printable)
            self._last = printable[-1]

    def _escape(self, rest: str) -> None:
        if len(rest) == 2 and rest[0] in "()" and rest[1] in "B0":
            self.define_charset(rest[1], rest[0])
        else:
            self._call(_ESCAPES.get(rest))

    def _obey(self, prefix: str, fields: list[str], between: str, final: str) -> None:
        if between or prefix not in ("", "?"):
            return
        numbers = [_number(each.partition(":")[0]) for each in fields]
        if final in "hl":
            self._switch(numbers, is_on=final == "h", is_private=prefix == "?")
        elif final in _CHOSEN:
            name, choices = _CHOSEN[final]
            self._call(name if numbers[0] in choices else None, numbers[0])
        elif not prefix:
            self._obey_public(fields, numbers, final)

    def _obey_public(self, fields: list[str], numbers: list[int], final: str) -> None:
        first, second = (*numbers, 0)[:2]
        if final == "m":
            self.cursor.attrs = _styled(self.cursor.attrs, fields)
        elif final in _COUNTED:
            self._call(_COUNTED[final], first or 1)
        elif final in "Hf":
            self.cursor_position(first or 1, second or 1)
        elif final == "r":
            self.set_margins(first or None, second or None)
        elif final in "su":
            self._call("save_cursor" if final == "s" else "restore_cursor")

    def _switch(self, modes: list[int], *, is_on: bool, is_private: bool) -> None:
        if is_private and _ALTERNATE.intersection(modes):
            self._change_screen(is_alternate=is_on)
        known = _PRIVATE_MODES if is_private else _PUBLIC_MODES
        for mode in known.intersection(modes):
            (self.set_mode if is_on else self.reset_mode)(mode, private=is_private)

    def _change_screen(self, *, is_alternate: bool) -> None:
        if is_alternate and self._first_screen is None:
            lines = dict(self.buffer)
            place, self.cursor = self.cursor, Cursor(self.cursor.x, self.cursor.y, Char(" "))
            self._first_screen = lines, place
            self.buffer.clear()
        elif not is_alternate and self._first_screen is not None:
            lines, self.cursor = self._first_screen
            self._first_screen = None
            self.buffer.clear()
            self.buffer.update(lines)
            self.cursor.x = min(self.cursor.x, self.columns - 1)
            self.cursor.y = min(self.cursor.y, self.lines - 1)

    # --- what pyte does not know, or does otherwise --------------------------------------------

    def next_line(self) -> None:
        """Go to the beginning of the next line."""
        self.carriage_return()
        self.index()

    def start_again(self) -> None:
        """Be as at the beginning."""
        self._first_screen = None
        self.reset()

    def scroll_up(self, count: int) -> None:
        """Move the lines up."""
        last = self.margins.bottom if self.margins else self.lines - 1
        self._scroll(count, last, self.index)

    def scroll_down(self, count: int) -> None:
        """Move the lines down."""
        self._scroll(count, self.margins.top if self.margins else 0, self.reverse_index)

    def _scroll(self, count: int, edge: int, move: Callable[[], None]) -> None:
        before, self.cursor.y = self.cursor.y, edge
        for _ in range(min(count, self.lines)):
            move()
        self.cursor.y = before

    def repeat(self, count: int) -> None:
        """Print the last character again, as far as the line goes."""
        self.draw(self._last * min(count, self.columns))

    def draw(self, data: str) -> None:
        """Print text of characters that have a width, and marks: what pyte does, much faster."""
        cells: dict[str, tuple[Char, int]] = {}
        style, cursor, columns = self.cursor.attrs, self.cursor, self.columns
        charset = self.g1_charset if self.charset else self.g0_charset
        line, is_inserting = self.buffer[cursor.y], modes.IRM in self.mode
        for character in data:
            known = cells.get(character)
            if known is None:
                shown = character.translate(charset)
                known = cells[character] = style._replace(data=shown), wcwidth(shown)
            cell, width = known
            if width == 1 and cursor.x < columns and not is_inserting:
                line[cursor.x] = cell
                cursor.x += 1
            else:
                self._put(cell, width)
                line = self.buffer[cursor.y]

    def _put(self, cell: Char, width: int) -> None:
        cursor = self.cursor
        if cursor.x + width > self.columns and width > 0:
            if modes.DECAWM in self.mode:
                self.carriage_return()
                self.linefeed()
            else:
                cursor.x = self.columns - width
        line = self.buffer[cursor.y]
        if width <= 0:
            self._mark(line, cell.data)
            return
        if modes.IRM in self.mode:
            self.insert_characters(width)
        line[cursor.x] = cell
        if width == 2:  # what stands in the other half has no text
            line[cursor.x + 1] = cell._replace(data="")
        cursor.x += width

    def _mark(self, line: Any, mark: str) -> None:
        """Add a mark to the character before it."""
        at = self.cursor.x - 1
        if at >= 0 and not line[at].data:
            at -= 1
        if at >= 0 and len(line[at].data) <= _MAX_MARKS:
            line[at] = line[at]._replace(data=line[at].data + mark)

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:  # noqa: FBT001, FBT002 - pyte's
        """Erase a part of a line; cell by cell only where it has to be painted."""
        if self.cursor.attrs.bg != "default":
            super().erase_in_line(how, private)
            return
        line, at = self.buffer[self.cursor.y], self.cursor.x
        for x in list(line):
            if how == 2 or (x >= at if how == 0 else x <= at):
                del line[x]

    def save_cursor(self) -> None:
        """Remember the cursor; pyte would remember every time."""
        super().save_cursor()
        del self.savepoints[:-1]

    def erase_in_display(self, how: int = 0, *args: Any, **kwargs: Any) -> None:
        """Erase a part of the screen; all of it at once where nothing has to be painted."""
        if how >= 2 and self.cursor.attrs.bg == "default":
            self.buffer.clear()
        else:
            super().erase_in_display(how, *args, **kwargs)


def _printable(text: str) -> str:
    """Leave out what has no width and is no mark."""
    return "".join(each for each in text if wcwidth(each) > 0 or unicodedata.combining(each))


def _fields(numbers: str) -> list[str]:
    return numbers.split(";", _MAX_NUMBERS)[:_MAX_NUMBERS]


def _number(digits: str) -> int:
    return int(digits[:6]) if digits else 0


def _styled(style: Char, fields: list[str]) -> Char:
    """Return the style after one SGR sequence; a colour is a number up to 255, or `rgb(…)`."""
    codes = [_number(each) for field in fields for each in field.split(":", _MAX_NUMBERS)]
    at = 0
    while at < len(codes):
        code = codes[at]
        at += 1
        if code in (38, 48):
            color, used = _color(codes[at : at + 4])
            at += used
            if color is not None:
                style = _with(style, "fg" if code == 38 else "bg", color)
        else:
            style = _flagged(style, code)
    return style


def _flagged(style: Char, code: int) -> Char:
    if code == 0:
        return Char(" ")
    if code in _FLAGS:
        return _with(style, *_FLAGS[code])
    if code == 22:
        return style._replace(bold=False, blink=False)
    ground, number = divmod(code % 60, 10)  # 30 and 90 are the letters', 40 and 100 the ground's
    name = {3: "fg", 4: "bg"}.get(ground, "")
    if name and number < 8 and code < 108:
        return _with(style, name, str(number + (8 if code >= 90 else 0)))
    return _with(style, name, "default") if code in (39, 49) else style


def _with(style: Char, name: str, value: Any) -> Char:
    changed: Char = style._replace(**{name: value})
    return changed


def _color(codes: list[int]) -> tuple[str | None, int]:
    """Return a colour of many, and how many numbers say it."""
    if codes[:1] == [5]:
        return (str(codes[1]) if len(codes) > 1 and codes[1] < 256 else None), 2
    if codes[:1] == [2]:
        parts = codes[1:4]
        is_whole = len(parts) == 3 and max(parts) < 256
        return ("rgb({} {} {})".format(*parts) if is_whole else None), 4
    return None, len(codes)


def _spans(line: Any, columns: int) -> list[list[Any]]:
    cells = [line[x] for x in range(columns)] if line else []
    while cells and cells[-1].data == " " and _is_plain(cells[-1]):
        cells.pop()
    spans: list[list[Any]] = []
    last: tuple[Any, ...] | None = None
    for cell in cells:
        if cell[1:] == last:
            spans[-1][0] += cell.data
        else:
            last = cell[1:]
            spans.append([cell.data, _style(cell)])
    return spans


def _is_plain(cell: Char) -> bool:
    return cell.bg == "default" and not (cell.reverse or cell.underscore or cell.strikethrough)


def _style(cell: Char) -> dict[str, Any]:
    colors = {"fg": cell.fg, "bg": cell.bg}
    style: dict[str, Any] = {
        name: int(color) if color.isdigit() else color
        for name, color in colors.items()
        if color != "default"
    }
    names = {"bold": cell.bold, "dim": cell.blink, "italic": cell.italics}
    names.update(underline=cell.underscore, strike=cell.strikethrough, inverse=cell.reverse)
    return {**style, **{name: True for name, is_set in names.items() if is_set}}
