"""The view: the visible text in a terminal's bytes, and where each part of it stands in the bytes.

Secrets are searched for in the text that a person reads, and cut out of the bytes that the terminal
gets. No screen is modelled: a sequence that moves the cursor just separates words.

References: ECMA-48 and XTerm's "Control Sequences".
"""

from __future__ import annotations

import bisect
import re

# An unfinished escape sequence of up to so many bytes is held. XTerm allows longer ones, which only
# pictures have. Together with what a judge waits for, this is less than the 4 KB that may be held.
_ESCAPE_BYTES = 3840

# CSI; OSC; DCS, SOS, PM, APC; character sets; the two-byte sequences in use; and a lone ESC
_CONTROLS = (
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[PX^_][^\x1b\r\n]*\x1b\\"
    rb"|[ -/]+[0-~]|[78=>cDEHMNOZ\\]|)"
)
_ESCAPE = re.compile(_CONTROLS)
# Control characters that show nothing or type over. SI ends `sgr0` of a terminal in tmux.
_UNSEEN = b"\0\a\b\x0e\x0f\x7f"
_INVISIBLE = re.compile(_CONTROLS + b"|[" + _UNSEEN + rb"]| \r(?![\r\n])")
_UNFINISHED = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\r\n]*\x1b?|[PX^_][^\x1b\r\n]*\x1b?|[ -/]*)?\Z"
)
_WRAP = re.compile(rb"\r(?<= \r)(?![\r\n])")
# A sequence with a text for the terminal, or for `tmux` or `screen` on the way: kind, text, end
STRING = re.compile(
    rb"\x1b(?:(\][0-9]{0,4};?)([^\x07\x1b\r\n]*)(\x07|\x1b\\)|([PX^_])([^\x1b\r\n]*)(\x1b\\))"
)
CLIPBOARD = re.compile(rb"[a-z0-9]*;")
# A sequence that moves the cursor separates words: forwards like a space, anywhere else like a new
# line.
_SEPARATORS = {**dict.fromkeys(b"ABDEFGHdf`", b"\n"), **dict.fromkeys(b"Ca", b" ")}
# The most frequent sequences: styles and erasing, and, with a group, moves of the cursor
_COMMON = re.compile(rb"\x1b\[[0-9;?]*(?:[mKJhl]|[ABDEFGHdf`]())")


def _show(escape: re.Match[bytes]) -> bytes:
    """Return what the visible text has in the place of an escape sequence."""
    sequence = escape[0]
    return _SEPARATORS.get(sequence[-1], b"") if sequence[1:2] == b"[" else b""


def _show_common(raw: bytes) -> bytes:
    """Return the text without the most frequent sequences, by calls into C. If an escape byte is
    left, there are others, and the result is not the visible text.
    """
    parts = _COMMON.split(raw)
    parts[1::2] = [b"" if move is None else b"\n" for move in parts[1::2]]
    return b"".join(parts)


class View:
    """The visible text of some raw bytes, and the way from a place in it to the raw bytes.

    `erased` counts the visible characters *before* these bytes that they type over. `size` is the
    number of raw bytes that the view covers: what follows is an incomplete escape sequence, or a
    space that may be one half of a line wrap. `may_have_strings` is false if no sequence in the
    view has a text of its own (see `STRING`).
    """

    def __init__(self, raw: bytes, *, after_space: bool, final: bool, silent: bool) -> None:
        self._raw = raw
        self._after_space = after_space
        self.size = (
            len(raw) if final else _measure_whole(raw, after_space=after_space, silent=silent)
        )
        self.erased = 0
        self._starts: list[int] | None = None  # where each piece begins in the visible text
        self._raws: list[int] = []  # and in the raw bytes
        self._escapes: list[tuple[int, int]] = []
        self.may_have_strings = False
        if (
            any(map(raw.__contains__, _UNSEEN))
            or _WRAP.search(raw)
            or (after_space and raw[:1] == b"\r")
        ):
            self.may_have_strings = b"\x1b" in raw
            self.text = self._index(_INVISIBLE)
        elif b"\x1b" in raw:
            self.text = _show_common(raw[: self.size])
            self.may_have_strings = b"\x1b" in self.text
            if self.may_have_strings:
                self.text = _ESCAPE.sub(_show, raw[: self.size])
        else:
            self.text = raw[: self.size]
            self._starts = []

    def _index(self, invisible: re.Pattern[bytes]) -> bytes:
        """Build the visible text in pieces, noting where each stands in the raw bytes."""
        raw, pieces = self._raw, _Pieces()
        at = 0
        if self._after_space and raw[:1] == b"\r" and self.size > 1 and raw[1:2] not in b"\r\n":
            self.erased, at = 1, 1
        for match in invisible.finditer(raw, at, self.size):
            begin, end = match.span()
            if begin > at:
                pieces.add(raw[at:begin], at)
            at = end
            if raw[begin] == 0x08:
                self.erased += not pieces.erase()
                continue
            self._escapes.append((begin, end))
            separator = _show(match)
            if separator:
                pieces.add(separator, begin)
        if at < self.size:
            pieces.add(raw[at : self.size], at)
        self._raws = pieces.raws
        text, self._starts = pieces.join()
        return text

    def find_raw(self, place: int) -> int:
        """Return where the visible byte at `place` stands in the raw bytes. The end of the text is
        the end of the view.
        """
        if place >= len(self.text):
            return self.size
        if self._starts is None:
            # All bytes behind the last escape sequence are visible, so a place there is counted
            # from the end. A sequence may be of any length, so it is matched.
            last = _ESCAPE.match(self._raw, self._raw.rfind(b"\x1b", 0, self.size), self.size)
            from_end = self.size - (len(self.text) - place)
            if last and last.end() <= from_end:
                return from_end
            self._index(_ESCAPE)
        if not self._starts:
            return place
        index = bisect.bisect_right(self._starts, place) - 1
        return self._raws[index] + place - self._starts[index]

    def find_raw_after(self, place: int) -> int:
        """Return where the raw bytes go on behind the visible byte before `place`."""
        if place == 0:
            return 0
        at = self.find_raw(place - 1)
        return at if self._raw[at] == 0x1B else at + 1

    def keep_escapes(self, begin: int, end: int) -> bytes:
        """Return the escape sequences that begin within these raw bytes."""
        if self._starts is None:
            self._index(_ESCAPE)
        index = bisect.bisect_left(self._escapes, (begin, 0))
        kept = []
        while index < len(self._escapes) and self._escapes[index][0] < end:
            kept.append(self._raw[slice(*self._escapes[index])])
            index += 1
        return b"".join(kept)


class _Pieces:
    """The pieces of visible text while a view is built. Erasing takes the last byte away."""

    def __init__(self) -> None:
        self.raws: list[int] = []
        self._texts: list[bytes] = []

    def add(self, text: bytes, raw: int) -> None:
        self._texts.append(text)
        self.raws.append(raw)

    def erase(self) -> bool:
        if not self._texts:
            return False
        if len(self._texts[-1]) > 1:
            self._texts[-1] = self._texts[-1][:-1]
        else:  # no piece is empty
            self._texts.pop()
            self.raws.pop()
        return True

    def join(self) -> tuple[bytes, list[int]]:
        starts, total = [], 0
        for text in self._texts:
            starts.append(total)
            total += len(text)
        return b"".join(self._texts), starts


def _measure_whole(raw: bytes, *, after_space: bool, silent: bool) -> int:
    """Return how many bytes are complete: without an unfinished escape sequence or half of a line
    wrap at the end.
    """
    size = len(raw)
    escape = raw.rfind(b"\x1b", max(0, size - _ESCAPE_BYTES))
    if escape > 0 and raw[escape:] == b"\x1b":  # it may end a string that began earlier
        earlier = raw.rfind(b"\x1b", max(0, size - _ESCAPE_BYTES), escape)
        if earlier >= 0 and _UNFINISHED.match(raw, earlier):
            escape = earlier
    if escape >= 0 and _UNFINISHED.match(raw, escape):
        size = escape
    if silent:
        return size
    if raw.endswith(b" ", 0, size):
        return size - 1
    if raw.endswith(b" \r", 0, size):
        return size - 2
    return size - 1 if after_space and raw[:size] == b"\r" else size
