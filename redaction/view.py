"""The view: the visible text in a terminal's bytes, and where each part of it stands in the bytes.

Secrets are searched for in the text that a person reads, and cut out of the bytes that the terminal
gets. No screen is modelled: a sequence that moves the cursor just separates words.

References: ECMA-48 and XTerm's "Control Sequences".
"""

from __future__ import annotations

import bisect
import re

from redaction.regex import regex

# An unfinished escape sequence of up to so many bytes is held. XTerm allows longer ones, which only
# pictures have. Together with what a judge waits for, this is less than the 4 KB that may be held.
_ESCAPE_BYTES = 3840

# Control characters that show nothing, or that type over (BS). A terminal obeys them within a
# sequence too, which then goes on; CAN and SUB end it.
_UNSEEN = bytes((*range(9), *range(14, 24), 0x19, *range(28, 32), 0x7F))
_UNSEEN_ALONE = _UNSEEN + b"\x18\x1a"
_IN_CSI = b"[ -?" + re.escape(_UNSEEN) + b"]*"
# A sequence begins with ESC and a sign, or with a C1 control in UTF-8. It ends as it should, or by
# CAN or SUB; a second ESC or C1 control begins another one. Both kinds of strings (OSC; DCS, SOS,
# PM, APC and a title for screen) are bounded, so that one that never ends is shown. No string may
# read over the beginning of another: of many beginnings, each would read all others.
_CSI, _OSC, _DCS = (
    rb"(?:\x1b\[|\xc2\x9b)",
    rb"(?:\x1b\]|\xc2\x9d)",
    rb"(?:\x1b[PX^_k]|\xc2[\x90\x98\x9e\x9f])",
)
_IN_OSC, _IN_DCS = (
    rb"(?:[^" + ends + rb"\x18\x1a\x1b\r\n\xc2]|\xc2(?![\x80-\x9f])){0,3800}"
    for ends in (rb"\x07", b"")
)
_C1_NEXT = rb"(?=\xc2[\x80-\x9b\x9d-\x9f])"
_END = rb"(?:\x1b\\|\xc2\x9c|[\x18\x1a])"


def _list_controls(restart: bytes) -> bytes:
    """Return the pattern of all sequences. `restart` may stand for the ESC of the next one."""
    ends = rb"|(?=\x1b[^\\]" + restart + b")|" + _C1_NEXT + b")"
    return (
        _CSI + _IN_CSI + rb"(?:[@-~\x18\x1a]|(?=\x1b" + restart + b"))"
        rb"|"
        + _OSC
        + _IN_OSC
        + rb"(?:\x07|"
        + _END
        + ends
        + rb"|"
        + _DCS
        + _IN_DCS
        + rb"(?:"
        + _END
        + ends
        +
        # character sets, all other sequences of ESC and one sign; a lone ESC; the other C1 controls
        rb"|\x1b(?:[ -/]+(?:[0-~\x18\x1a]|(?=\x1b"
        + restart
        + rb"))|[0-OQ-WYZ\\`-jl-~\x18\x1a]|)|\xc2[\x80-\x9f]"
    )


def _compile(restart: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    controls = _list_controls(restart)
    unseen = b"|[" + re.escape(_UNSEEN_ALONE) + rb"]| \r(?![\r\n])"
    return regex(controls), regex(controls + unseen)


# The sequences, and with them all else that shows nothing: in a whole text, and in one behind which
# another sequence begins.
_WHOLE, _BEFORE_ANOTHER = _compile(b""), _compile(rb"|\Z")
_C1 = regex(rb"\xc2[\x80-\x9f]")
_UNFINISHED = regex(
    rb"(?:\x1b|" + _CSI + _IN_CSI + rb"|" + _OSC + _IN_OSC + rb"\x1b?|" + _DCS + _IN_DCS + rb"\x1b?"
    rb"|\x1b[ -/]+|\xc2)\Z"
)
_WRAP = regex(rb"\r(?<= \r)(?![\r\n])")
_STRING_END = _END + rb"|(?=\x1b[^\\])|" + _C1_NEXT
# A sequence with a text for the terminal, or for `tmux` or `screen` on the way: kind, text, end,
# which is empty if another sequence begins there.
STRING = regex(
    rb"(" + _OSC + rb"[0-9]{0,4};?)(" + _IN_OSC + rb")(\x07|" + _STRING_END + rb")"
    rb"|(" + _DCS + rb")(" + _IN_DCS + rb")(" + _STRING_END + rb")"
)
CLIPBOARD = regex(rb"[a-z0-9]*;")
# A sequence that moves the cursor separates words: forwards like a space, anywhere else like a new
# line.
_SEPARATORS = {**dict.fromkeys(b"ABDEFGHdf`", b"\n"), **dict.fromkeys(b"Ca", b" ")}
_NEW_LINES = (b"\x1bD", b"\x1bE", b"\xc2\x84", b"\xc2\x85")  # IND, NEL
# The most frequent sequences: styles and erasing, and, with a group, moves of the cursor
_COMMON = regex(rb"\x1b\[[0-9;?]*(?:[mKJhl]|[ABDEFGHdf`]())")


def _show(escape: re.Match[bytes]) -> bytes:
    """Return what the visible text has in the place of an escape sequence."""
    sequence = escape[0]
    if sequence[:2] in (b"\x1b[", b"\xc2\x9b"):
        return _SEPARATORS.get(sequence[-1], b"")
    return b"\n" if sequence in _NEW_LINES else b""


def _show_common(raw: bytes) -> bytes:
    """Return the text without the most frequent sequences, by calls into C. If an escape byte is
    left, there are others, and the result is not the visible text.
    """
    parts = _COMMON.split(raw)
    if parts.count(None) == len(parts) // 2:
        return b"".join(parts[::2])
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
        begun = -1 if final or not (0x1B in raw or 0xC2 in raw) else _find_open(raw)
        # What an open sequence is left out of ends where that begins.
        self._escape, self._invisible = _WHOLE if begun < 0 else _BEFORE_ANOTHER
        self.size = len(raw) if begun < 0 else begun
        if not (final or silent):
            self.size = _leave_wrap(raw, self.size, after_space=after_space)
        self.erased = 0
        self._starts: list[int] | None = None  # where each piece begins in the visible text
        self._raws: list[int] = []  # and in the raw bytes
        self._escapes: list[tuple[int, int]] = []
        self.may_have_strings = False
        c1 = 0xC2 in raw and _C1.search(raw) is not None
        if c1 or _has_unseen(raw) or (0x0D in raw and _may_wrap(raw, after_space=after_space)):
            self.may_have_strings = 0x1B in raw or c1
            self.text = self._index(self._invisible)
        elif 0x1B in raw:
            self.text = _show_common(raw[: self.size])
            self.may_have_strings = b"\x1b" in self.text
            if self.may_have_strings:
                self.text = self._escape.sub(_show, raw[: self.size])
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
            found = self._count_back(len(self.text) - place)
            if found is not None:
                return found
            self._index(self._escape)
        if not self._starts:
            return place
        index = bisect.bisect_right(self._starts, place) - 1
        return self._raws[index] + place - self._starts[index]

    def _count_back(self, left: int) -> int | None:
        """Return where the last `left` visible bytes begin, if few sequences are among them.

        Only a sequence of the most frequent kind is sure to begin where its escape byte stands.
        """
        end = self.size
        for _ in range(1 if self.may_have_strings else _COUNTED_BACK):
            begin = self._raw.rfind(b"\x1b", 0, end)
            last = self._escape.match(self._raw, begin, self.size) if begin >= 0 else None
            if last is None:
                return None
            left -= end - last.end()
            if left <= 0:
                return last.end() - left
            left -= len(_show(last))
            if left == 0:
                return begin
            end = begin
        return None

    def find_raw_after(self, place: int) -> int:
        """Return where the raw bytes go on behind the visible byte before `place`."""
        if place == 0:
            return 0
        at = self.find_raw(place - 1)
        return at if self._raw[at] == 0x1B else at + 1

    def keep_escapes(self, begin: int, end: int) -> bytes:
        """Return the escape sequences that begin within these raw bytes."""
        if self._starts is None:
            self._index(self._escape)
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


def _has_unseen(raw: bytes) -> bool:
    """Say whether there is a control character that shows nothing; each way is the fastest."""
    if len(raw) < _SHORT_BYTES:
        return len(raw.translate(None, _UNSEEN_ALONE)) < len(raw)
    return any(map(raw.__contains__, _UNSEEN_ALONE))


_SHORT_BYTES = 1024
# Counting over more sequences than these would take as long as to index all of them.
_COUNTED_BACK = 16


def _may_wrap(raw: bytes, *, after_space: bool) -> bool:
    wraps = b" \r" in raw and _WRAP.search(raw) is not None
    return wraps or (after_space and raw[:1] == b"\r")


def _find_open(raw: bytes) -> int:
    """Return where the sequence begins that the bytes end within; -1 if they end within none."""
    oldest = max(0, len(raw) - _ESCAPE_BYTES)
    ends_with_escape = raw.endswith(b"\x1b")
    # It may end the one before; any other has ended all that began earlier.
    escape = raw.rfind(b"\x1b", oldest, len(raw) - ends_with_escape)
    if escape >= 0 and _UNFINISHED.match(raw, escape):
        return escape
    if raw.find(b"\xc2", max(escape, oldest)) >= 0:
        found = _UNFINISHED.search(raw, max(escape, oldest))
        return found.start() if found else -1
    return len(raw) - 1 if ends_with_escape else -1


def is_whole(raw: bytes) -> bool:
    """Say whether a view leaves nothing out: no sequence is open at the end, and no line wrap."""
    if raw.endswith((b" ", b" \r")):
        return False
    return not (0x1B in raw or 0xC2 in raw) or _find_open(raw) < 0


def _leave_wrap(raw: bytes, size: int, *, after_space: bool) -> int:
    """Return the size without half of a line wrap at the end."""
    if raw.endswith((b" ", b" \r"), 0, size):
        return size - 1 - raw.endswith(b"\r", 0, size)
    return size - 1 if after_space and raw[:size] == b"\r" else size
