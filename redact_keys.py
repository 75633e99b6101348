"""Private keys: where one begins, and dropping it line by line without ever keeping it.

References: RFC 7468 and RFC 1421 for PEM; PuTTY's and OpenPGP's own formats.
"""

# ruff: noqa: FBT001 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re

from redact_judges import KeyBegins, Verdict, Wait

# No private key has more lines. After so many, a line shorter than any but the last of a key ends
# it, so that a list of words does not vanish behind a key without an end.
KEY_LINES = 2000
KEY_WIDTH = 40
_KEY_HEADER = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_HEADER_PART = re.compile(rb"-{1,5}(?:B(?:E(?:G(?:I(?:N(?: [A-Z0-9 ]{0,48}-{0,5})?)?)?)?)?)?")
KEY_HEADER_BEGINS = re.compile(rb"-{1,5}(?:B|BE|BEG|BEGI|BEGIN)?\Z")
_KEY_FOOTER = re.compile(rb"-{4,5} ?END [A-Z0-9 ]{0,48}-{4,5}")
_NEWLINE = re.compile(rb"\r?\n|\r")
_KEY_LEAD = rb"(?:[\s>|+#*\"'`.,-]|\xe2\x94\x82|[0-9]{1,5}[\s:|)])*"
_KEY_TRAIL = rb"(?:[\s\"'`,;+)}\]|]|\xe2\x94\x82)*"
_KEY_LINE = re.compile(
    _KEY_LEAD
    + rb"(?:[A-Za-z0-9+/\\=]*(?: +[A-Za-z0-9+/\\=]{16,})*|-{0,5}(?: ?E(?:N(?:D.{0,60})?)?)?)"
    + _KEY_TRAIL
    + rb"|"
    + _KEY_LEAD
    + rb"(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID|Subject|Encryption"
    rb"|PuTTY-User-Key-File-[0-9]|Public-Lines|Private-Lines|Private-MAC|Key-Derivation|Argon2-[A-Za-z]+"
    rb"|X-[\w-]+):.*"
)
_KEY_LINE_AFTER_HEADER = re.compile(
    _KEY_TRAIL + rb"(?:\\.*|[ ]*[A-Za-z0-9+/=]{16,}.*|(?:ssh|ecdsa)-[a-z0-9-]+)?" + _KEY_TRAIL
)
# A line of a key is judged by so many bytes. A footer that begins among them is waited for.
_KEY_LINE_BYTES = 256
_KEY_FOOTER_BYTES = 96
_KEY_REACH = _KEY_LINE_BYTES + _KEY_FOOTER_BYTES


def judge_key_header(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `BEGIN`, or dashes at the end: the header of a private key, of anything else, or just
    dashes.

    Certificates and public keys pass.
    """
    header = _KEY_HEADER.match(text, at)
    if header:
        return KeyBegins(at, header.end())
    part = _KEY_HEADER_PART.match(text, at)
    if part and part.end() == len(text) and not final and len(text) - at < 100:
        return Wait(at, len(text) - at > 10)
    return None


class PrivateKey:
    """A private key being swallowed line by line, never kept.

    What ends it is its footer, or the first line that cannot belong to it. A line is judged by its
    first bytes; one that belongs to the key is dropped as it comes.
    """

    def __init__(self) -> None:
        self._lines = 0
        self._inside_line = False  # the line that is coming was judged and belongs to the key

    def swallow(self, text: bytes, final: bool) -> tuple[int, bool]:
        """Return how much of the visible text belongs to the key, and whether the key goes on."""
        at = 0
        while True:
            newline = _NEWLINE.search(text, at)
            end = newline.start() if newline else len(text)
            footer = self._find_footer(text, at, end)
            if footer and (footer.end() < len(text) or final or footer[0].endswith(b"-----")):
                return footer.end(), False
            if not self._inside_line:
                if newline is None and not final and end - at < _KEY_REACH:
                    return at, True
                if not self._fits(text, at, min(end, at + _KEY_LINE_BYTES)):
                    return at, False
                self._inside_line = True
                continue
            if newline is None:
                return (end, False) if final else (max(at, end - _KEY_FOOTER_BYTES), True)
            at, self._inside_line = newline.end(), False
            self._lines += 1

    def _find_footer(self, text: bytes, at: int, end: int) -> re.Match[bytes] | None:
        """Find the footer on a line; on one that is not judged yet only where it can be judged."""
        if not self._inside_line:
            end = min(end, at + _KEY_REACH)
        footer = _KEY_FOOTER.search(text, at, end)
        if footer and not self._inside_line and footer.start() > at + _KEY_LINE_BYTES:
            return None
        return footer

    def _fits(self, text: bytes, at: int, end: int) -> bool:
        if self._lines > KEY_LINES and end - at < KEY_WIDTH:
            return False
        pattern = _KEY_LINE if self._lines else _KEY_LINE_AFTER_HEADER
        return pattern.fullmatch(text, at, end) is not None
