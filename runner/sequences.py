"""Escape sequences of a child: what they have changed in a terminal, and text without them.

Pure; the pump feeds both with what the child prints.
"""

from __future__ import annotations

import functools
import re
from typing import Final


class ModeTracker:
    """What a program has changed in a terminal and not changed back.

    A program that is killed cannot undo it; `undo` is what it would have sent. Pure. A mode that is
    not known here is undone too: in an untouched terminal nearly all are off.
    Sources: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html,
    https://sw.kovidgoyal.net/kitty/keyboard-protocol/
    """

    # Normally on: VT100 codes, wrap, repeating keys, cursor, NumLock, the other screen; no echo.
    _ON: Final = frozenset({b"?2", b"?7", b"?8", b"?25", b"?1035", b"?1046", b"12"})
    # Left last, so that nothing of the other screen shows on the normal one.
    _SCREENS: Final = (b"?47", b"?1047", b"?1049")
    # Undone in another way than by its reverse. 6 takes the cursor to the top, over what is there;
    # 1048 saves the cursor, which is no mode.
    _UNDO: Final = {b"?2": b"\x1b<", b"?6": b"\x1b[?6l\x1b[999H", b"?1048": b""}
    # What a soft reset puts back.
    _SOFT: Final = (b"?1", b"?6", b"?25", b"?66", b"4", b"keypad", b"region", b"charset", b"shift")
    # Numbers have an end here: output is not to be trusted, and int() refuses one of 5,000 digits.
    _SEQUENCE: Final = re.compile(
        rb"\x1b(?:\[(?:(\??[\d;]{1,60}[hl])"
        rb"|([<=>][\d;]{0,60}[umfns]|[\d;]{0,20}(?:[rt]| q)|\?[\d;]{1,20}c|!p))"
        rb"|\](8;[^;\x07\x1b]{0,60};|9;4;|22;|1\d;|4;\d{1,3};|104|11\d)(?=(.))"
        rb"|([=><c]|\([0-9A-Za-z]|%[@G]| [FG]))",
        re.DOTALL,
    )
    _SHORT: Final = {
        b"=": (b"keypad", b"\x1b>"),
        b">": (b"keypad", b""),
        b"<": (b"?2", b""),
        b"%@": (b"utf-8", b"\x1b%G"),
        b"%G": (b"utf-8", b""),
        b" G": (b"c1", b"\x1b F"),
        b" F": (b"c1", b""),
        b"(B": (b"charset", b""),
    }
    _COLORS: Final = re.compile(rb"\x1b\[([\d;:]{0,60})m")
    _STRING_END: Final = re.compile(rb"[\x07\x18\x1a]")
    _LONGEST: Final = 80
    # No real program sets more; and the sequences that undo it must fit into the keeper's memory.
    _MOST: Final = 64

    def __init__(self) -> None:
        self._tail = b""
        self._reset()

    def _reset(self) -> None:
        # What undoes each change.
        self._changes: dict[bytes, bytes] = {}
        self._titles: list[bytes] = []
        # How often the keyboard's protocol was pushed: each screen has a stack of its own.
        self._pushed = {False: 0, True: 0}
        self._is_colored = False
        self._is_in_string = False

    @property
    def has_other_screen(self) -> bool:
        """Whether a full-screen program has the terminal's other screen."""
        return any(screen in self._changes for screen in self._SCREENS)

    @property
    def is_of_session(self) -> bool:
        """Whether a program has it that wants to be typed into: no other sets more than these."""
        modes = {what for what in self._changes if what.startswith(b"?")}
        return bool(modes - {b"?7", b"?12", b"?25"} or any(self._pushed.values()))

    @property
    def hides_cursor(self) -> bool:
        """Whether the cursor is not shown."""
        return b"?25" in self._changes

    def feed(self, raw: bytes) -> bool:
        """Look at a piece of the program's output. Returns whether `undo` may have changed."""
        seen = self._tail + raw
        at = seen.rfind(b"\x1b")
        has_any = b"\x0e" in seen or b"\x0f" in seen
        if at < 0 and not (self._is_in_string or has_any):
            return False
        before = (self._is_colored, self._is_in_string)
        for match in self._SEQUENCE.finditer(seen):
            has_any = True
            self._note(match)
        shift_out, shift_in = seen.rfind(b"\x0e"), seen.rfind(b"\x0f")
        # A reset behind it has undone it.
        if max(shift_out, shift_in) > max(seen.rfind(b"\x1bc"), seen.rfind(b"\x1b[!p")):
            self._change(b"shift", b"\x0f" if shift_out > shift_in else b"")
        if at >= 0:
            self._note_colors(seen)
            # Any escape ends a string, or begins one.
            self._is_in_string = seen[at + 1 : at + 2] in (b"]", b"P", b"_", b"^", b"X")
            # A complete sequence seen again would change the depth again, so it must not be kept.
            complete = self._SEQUENCE.match(seen, at)
            self._tail = b"" if complete or len(seen) - at > self._LONGEST else seen[at:]
        if self._STRING_END.search(seen, max(0, at)):
            self._is_in_string = False
        return has_any or before != (self._is_colored, self._is_in_string)

    def undo(self) -> bytes:
        """Return what puts the terminal back."""
        is_other = self.has_other_screen
        left = {**self._changes}
        parts = [b"\x1b\\" if self._is_in_string else b"", left.pop(b"?2", b"")]
        parts.append(self._pop_keyboard(is_other=is_other))
        screens = [left.pop(screen, b"") for screen in self._SCREENS]
        if b"region" in left and not is_other:  # this, too, takes the cursor to the top
            left[b"region"] = b"\x1b7\x1b[r\x1b8"
        parts += [left[key] for key in sorted(left, key=lambda key: (len(key), key))]
        parts += screens
        if is_other:
            parts.append(self._pop_keyboard(is_other=False))
        parts += [b"\x1b[23;%bt" % kind for kind in reversed(self._titles)]
        undo = b"".join(parts)
        return undo + (b"\x1b[0m" if undo or self._is_colored else b"")

    def _pop_keyboard(self, *, is_other: bool) -> bytes:
        depth = self._pushed[is_other]
        return b"\x1b[<%du" % depth if depth else b""

    def _change(self, what: bytes, undo: bytes) -> None:
        """Note what undoes a change; nothing, if it was undone."""
        if not undo:
            self._changes.pop(what, None)
        elif what in self._changes or len(self._changes) < self._MOST:
            self._changes[what] = undo

    def _note(self, match: re.Match[bytes]) -> None:
        modes, other, string, more, short = match.groups()
        if modes is not None:
            for mode, undo in self._read_modes(modes):
                self._change(mode, undo)
        elif other is not None:
            self._note_set(other)
        elif string is not None:
            self._note_string(string.partition(b";")[0], more)
        elif short == b"c":
            self._reset()
        else:
            self._change(*self._SHORT.get(short, (b"charset", b"\x1b(B")))

    @classmethod
    @functools.lru_cache(maxsize=256)  # a program draws with the same ones again and again
    def _read_modes(cls, text: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """Return each mode with what undoes its switching; nothing, if that is its usual state."""
        found = []
        for number in text[:-1].lstrip(b"?").split(b";"):
            mode = (b"?" if text[:1] == b"?" else b"") + number.lstrip(b"0")
            if mode in (b"", b"?") or len(mode) > 8:
                continue
            is_usually_on = mode in cls._ON
            undo = cls._UNDO.get(mode, b"\x1b[%b%b" % (mode, b"h" if is_usually_on else b"l"))
            found.append((mode, undo if (text[-1:] == b"h") != is_usually_on else b""))
        return tuple(found)

    def _note_set(self, text: bytes) -> None:
        kind, numbers, final = text[:1], text.lstrip(b"<=>?")[:-1], text[-1:]
        first, _, second = numbers.partition(b";")
        if final == b"u":
            self._note_keyboard(kind, first, second)
        elif text == b"!p":
            for what in self._SOFT:
                self._change(what, b"")
        elif final == b"r":
            self._change(b"region", b"\x1b[r" if numbers.strip(b"0;") else b"")
        elif final == b"q":
            self._change(b"cursor", b"\x1b[0 q" if numbers.strip(b"0 ") else b"")
        elif final == b"c":
            self._change(b"cursor, on Linux", b"\x1b[?0c" if numbers.strip(b"0") else b"")
        elif final == b"t":
            self._note_title(first, second.partition(b";")[0] or b"0")
        elif kind == b">":
            self._note_keys(first, second, final)

    def _note_keyboard(self, kind: bytes, first: bytes, second: bytes) -> None:
        """Note kitty's protocol: a stack of flags, of which the topmost can be set."""
        screen = self.has_other_screen
        if kind == b">":
            self._pushed[screen] = min(self._pushed[screen] + 1, 99)
        elif kind == b"<":
            self._pushed[screen] = max(0, self._pushed[screen] - int(first or b"1"))
        elif not self._pushed[screen] and second != b"3":  # which only takes flags away
            self._change(b"flags", b"\x1b[=0u" if first.strip(b"0") else b"")

    def _note_keys(self, resource: bytes, value: bytes, final: bytes) -> None:
        """Note what xterm sends for keys; 4 is how other keys than the usual ones are told."""
        if final == b"s":
            self._change(b"shift key", b"\x1b[>0s" if resource.strip(b"0") else b"")
        elif not resource:
            for what in [each for each in self._changes if each[:1] == b">"]:
                self._change(what, b"")
        else:
            ending = b"f" if final == b"f" else b"m"
            is_reset = not (value.strip(b"0") if resource == b"4" else value) and final != b"n"
            undo = b"\x1b[>%b%b" % (resource, ending)
            self._change(b">%b%b" % (resource, ending), b"" if is_reset else undo)

    def _note_title(self, what: bytes, kind: bytes) -> None:
        if what == b"22" and len(self._titles) < 10:
            self._titles.append(kind)
        elif what == b"23" and kind in self._titles:
            del self._titles[-1 - self._titles[::-1].index(kind)]

    def _note_string(self, number: bytes, more: bytes) -> None:
        """Note a link, a progress bar, the pointer's shape, or a colour of the terminal's own."""
        is_over = more in b"\x07\x1b"
        if number == b"8":
            self._change(number, b"" if is_over else b"\x1b]8;;\x1b\\")
        elif number == b"9":
            self._change(number, b"" if is_over or more == b"0" else b"\x1b]9;4;0\x1b\\")
        elif number == b"22":
            self._change(number, b"" if is_over or more == b"<" else b"\x1b]22;\x1b\\")
        elif len(number) == 3:
            self._change(number, b"")
        elif not is_over and more != b"?":  # that one asks
            reset = b"104" if number == b"4" else b"1" + number
            self._change(reset, b"\x1b]%b\x1b\\" % reset)

    def _note_colors(self, seen: bytes) -> None:
        """Look at the last of the sequences that set colours; most are beside one of the others."""
        at = len(seen)
        for _ in range(16):
            at = seen.rfind(b"\x1b[", 0, at)
            last = self._COLORS.match(seen, at) if at >= 0 else None
            if last is not None:
                numbers = last[1]
                is_zero = numbers.strip(b"0") == b"" or (
                    numbers.endswith(b";0") and b"8;" not in numbers  # a colour's own number
                )
                self._is_colored = not is_zero
            if last is not None or at < 0:
                return


class TextFilter:
    """Output without what only sets a terminal's state: its modes, title, cursor and character set.

    What has a look stays: colours, links, and what moves the cursor. Pure. Thread: one caller. How
    the output is cut makes no difference.
    """

    # An operating system command other than a link (8), and a private or a soft-reset sequence.
    # None is longer than what is held: else a read that holds all of it would lose the text.
    _STATE: Final = re.compile(
        rb"\x1b(?:\[(?:[<=>?][0-?]{0,500}[ -/]{0,500}[@-~]|[0-9;]{0,500}r|[0-9;]{0,500} q|!p)"
        rb"|\](?!8;)[^\x07\x1b]{0,1000}(?:\x07|\x1b\\)|[()*+][ -/]?[0-~]|[78=>c])|[\x0e\x0f]"
        rb"|\x1b\[([0-9;:]{0,500})m"  # a colour
    )
    _BEGINNING: Final = re.compile(
        rb"\x1b(?:\[[0-?]*[ -/]*|\](?:[^\x07\x1b]*\x1b?)|[()*+][ -/]?)?\Z"
    )
    _LONGEST: Final = 1_024

    def __init__(self) -> None:
        self._held = b""
        self._is_colored = False

    def feed(self, raw: bytes) -> bytes:
        """Return the text so far."""
        seen = self._held + raw
        if b"\x1b" not in seen and b"\x0e" not in seen and b"\x0f" not in seen:
            self._held = b""
            return seen
        begin = self._BEGINNING.search(seen, max(0, len(seen) - self._LONGEST))
        end = len(seen) if begin is None else begin.start()
        self._held = seen[end:]
        return self._STATE.sub(self._replace, seen[:end])

    def flush(self) -> bytes:
        """Return the held remainder, at the end."""
        held, self._held = self._held, b""
        return held

    def _replace(self, match: re.Match[bytes]) -> bytes:
        """Leave out what sets a state, and what ends a colour that has not begun."""
        if match[1] is None:
            return b""
        is_reset = not match[1].strip(b"0;")
        is_kept = self._is_colored or not is_reset
        self._is_colored = not is_reset
        return match[0] if is_kept else b""
