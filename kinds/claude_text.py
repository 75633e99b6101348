"""A text out of Claude Code's messages as it may be shown, whole or while it is written. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

# What must not reach a terminal or a page out of a message: escape sequences whole, else control
# characters one by one.
_ESCAPES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\)")
_LINE_ENDS: Final = re.compile("\r\n?|[\u0085\u2028\u2029]")
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
# What an escape sequence, a line end or a character begins with that is not complete.
_BEGUN_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\n]{0,2000}\x1b?)?\Z")
_BEGUN_CHARACTER: Final = re.compile("(?:\r|[\ud800-\udbff])\\Z")


def clean(value: Any) -> str:
    """Return a text as it may be shown: its lines and tabs, and nothing that moves a cursor."""
    if not isinstance(value, str):
        return ""
    return _clean_characters(_ESCAPES.sub("", value))


def shown_text(text: str) -> str:
    """Return a clean text without empty lines around it and blanks at its end."""
    return text.strip("\n").rstrip()


def _clean_characters(text: str) -> str:
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _LINE_ENDS.sub("\n", text)))


class LiveText:
    """A text that comes in pieces. What `feed` returns, together, is `shown_text(clean(text))`."""

    def __init__(self) -> None:
        self._begun_escape = self._begun_character = ""
        self._blanks = ""  # that are shown if something follows
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """The text shown so far."""
        return "".join(self._parts)

    @property
    def has_shown(self) -> bool:
        """Whether anything was shown."""
        return bool(self._parts)

    def feed(self, piece: str) -> str:
        """Return what can be shown now."""
        settled, self._begun_escape = _split(_BEGUN_ESCAPE, self._begun_escape + piece)
        rest = self._begun_character + _ESCAPES.sub("", settled)
        settled, self._begun_character = _split(_BEGUN_CHARACTER, rest)
        if _SURROGATES.search(settled):  # the halves of one character
            settled = settled.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        part = _clean_characters(settled)
        if not self._parts:
            part = (self._blanks + part).lstrip("\n")
            self._blanks = ""
        kept = part.rstrip()
        if not kept:
            self._blanks += part
            return ""
        blanks, self._blanks = self._blanks, part[len(kept) :]
        self._parts.append(blanks + kept)
        return self._parts[-1]


def _split(begun: re.Pattern[str], text: str) -> tuple[str, str]:
    match = begun.search(text)
    at = len(text) if match is None else match.start()
    return text[:at], text[at:]
