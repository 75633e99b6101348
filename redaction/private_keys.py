"""Private keys: finds where one begins, and drops it line by line without ever keeping it.

Programs seldom print the file as it is: lines are numbered, dated, quoted, commented out, in a
diff, in a record of JSON, or their ends are written as `\\n`. So a line of a key is recognised by
its content: base64 and nothing else between signs of layout; or base64 as long as a key's line,
with anything around it. The text around such a line, and before the header, is its `_Frame`. Lines
that are too short to be recognised, like the last one, have to stand in the same frame.

References: RFC 7468 and RFC 1421 for PEM; PuTTY's, OpenPGP's and SSH's (RFC 4716) own formats, and
what `openssl pkey -text` prints.
"""

# ruff: noqa: FBT001 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re

from redaction.evidence import KeyBegins, Verdict, Wait, find_line_lead
from redaction.regex import regex

# No private key has more lines. From there on, a line that is shorter than a key's ends it, so that
# a list of words does not vanish behind a key without an end.
_KEY_LINES = 2000
_KEY_WIDTH = 40
# A blank, also as URLs encode it
_BLANK = rb"(?:[ +]|%20)"
_KEY_HEADER = regex(
    rb"----[- ]BEGIN%b(?:[A-Z0-9]+%b){0,4}PRIVATE%bKEY(?:%bBLOCK)?[- ]----".replace(b"%b", _BLANK)
)
_KEY_HEADER_PART = regex(
    rb"-{1,4}[- ]?(?:B(?:E(?:G(?:I(?:N(?:[ +%][A-Z0-9 +%]{0,60}-{0,5})?)?)?)?)?)?"
)
KEY_HEADER_BEGINS = regex(rb"-{1,4}[- ]?(?:B|BE|BEG|BEGI|BEGIN)?\Z")
_KEY_FOOTER = regex(rb"-{4,5}[ +]?END%b[A-Z0-9 +%]{0,60}-{4,5}".replace(b"%b", _BLANK))
_KEY_FOOTER_PART = regex(rb"(?<=-)END.{0,60}")
_NEWLINE = regex(rb"\r?\n|\r")

# The end of a line, encoded once or twice
_WRITTEN_NEWLINE = (
    rb"(?:\\+(?:[nr]|u000[adAD]|x0[adAD]|0?1[25])|%(?:25)?0[aAdD]"
    rb"|&(?:amp;)?\#(?:1[03]|[xX]0?[aAdD]);|<br[ ]?/?>)"
)
_TAG = rb"</?[A-Za-z][\w-]{0,16}[ ]?/?>"
# Drawn lines, arrows and blocks, and the blanks that no keyboard has
_DRAWN = rb"\xe2[\x80-\x9f][\x80-\xbf]|\xc2\xa0"
_LAYOUT_BEFORE = regex(
    rb"(?:[\s>|#*\"'`.,;:!?^~$(\[{/+-]|" + _DRAWN + rb"|" + _TAG + rb"|[0-9]{1,6}(?=[\s:|)\xe2-]))*"
)
_LAYOUT_AFTER = regex(
    rb"(?:[\s\"'`.,;:!?~$+()\[\]{}|-]|\^M|"
    + _DRAWN
    + rb"|"
    + _TAG
    + rb"|"
    + _WRITTEN_NEWLINE
    + rb")*"
)
# Base64, also with its signs and line ends encoded, and lines that are joined by a blank
_BODY = regex(rb"(?:[A-Za-z0-9+/=\\]|%[0-9A-Fa-f]{2}|&\#?\w{1,6};|[ ]+(?=[A-Za-z0-9+/=\\%]{16}))*")
# The numbers of a key as openssl prints them
_HEX_PAIRS = regex(rb"(?:[0-9a-f]{2}:)+(?:[0-9a-f]{2})?\s*")
_SHORT_BODY = regex(rb"[A-Za-z0-9+/=]*")
# Base64 that is longer than any word or path
_LONG_BODY = regex(rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{%d,}={0,2}" % _KEY_WIDTH)
_FIELD = regex(
    rb"(?:modulus|publicExponent|privateExponent|prime[0-9]|exponent[0-9]|coefficient|priv|pub"
    rb"|ASN1 OID|NIST CURVE|Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID|Subject"
    rb"|Encryption|PuTTY-User-Key-File-[0-9]|Public-Lines|Private-Lines|Private-MAC|Key-Derivation"
    rb"|Argon2-[A-Za-z]+|X-[\w-]+):"
)
_AFTER_HEADER = regex(
    rb"(?:"
    + _WRITTEN_NEWLINE
    + rb"|\\|[ ]*[A-Za-z0-9+/=]{16}|(?:ssh|ecdsa)-[a-z0-9-]+\s*\Z|[\"'][ ]?,"
    + rb"|[ ]?\([0-9]{2,5} bit[^()]{0,32}\)\s*\Z)"
)
# So many first bytes of a line are judged. A footer that begins among them is waited for.
_KEY_LINE_BYTES = 384
_KEY_FOOTER_BYTES = 96
_KEY_REACH = _KEY_LINE_BYTES + _KEY_FOOTER_BYTES


def judge_key_header(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `-----BEGIN`, or dashes at the end of the text. Only private keys are secret, not
    certificates or public keys.
    """
    header = _KEY_HEADER.match(text, at)
    if header:
        return KeyBegins(at, header.end(), find_line_lead(text, at))
    part = _KEY_HEADER_PART.match(text, at)
    if part and part.end() == len(text) and not final and len(text) - at < 100:
        return Wait(at, len(text) - at > 10)
    return None


class _Frame:
    """The text around the body of a line. The next line has the same, except for numbers, blanks
    and signs.
    """

    def __init__(self, before: bytes, after: bytes = b"") -> None:
        self._before = before
        self._after = after

    def cut(self, line: bytes) -> tuple[int, int]:
        """Return where the line's body begins and ends: the whole line if its frame is another."""
        before = re.match(_generalise(self._before), line)
        begin = before.end() if before else 0
        end = _skip(_SHORT_BODY, line, begin)
        after = re.fullmatch(_generalise(self._after), line[end:].rstrip())
        return begin, end if after else len(line)


_VARYING = regex(
    rb"(?P<signs>[\s:+-]+)|(?P<number>[A-Za-z]*[0-9][A-Za-z0-9]*)|(?P<word>[A-Za-z]+|.)", re.DOTALL
)


def _generalise(text: bytes) -> bytes:
    """Return a pattern of texts that differ from this one in numbers and separating signs alone."""
    kinds = {"signs": rb"[\s:+-]+", "number": rb"[A-Za-z0-9]+"}
    parts = [kinds.get(str(part.lastgroup), re.escape(part[0])) for part in _VARYING.finditer(text)]
    return rb"[\s:+-]*" + b"".join(parts[1:] if parts[:1] == [kinds["signs"]] else parts)


class PrivateKey:
    """A private key that is being dropped, line by line.

    It ends with its footer, or before the first line that cannot belong to it. A line is judged by
    its first bytes, then dropped as it arrives. `lead` is the text before the header on its line.
    """

    def __init__(self, lead: bytes = b"") -> None:
        self._lines = 0
        self._inside_line = False  # the current line was judged, and belongs to the key
        self._frame = _Frame(lead)

    def swallow(self, text: bytes, final: bool) -> tuple[int, bool]:
        """Return how many bytes of the text belong to the key, and whether it may go on."""
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
                if not self._fits(text[at : min(end, at + _KEY_LINE_BYTES)]):
                    return at, False
                self._inside_line = True
                continue
            if newline is None:
                return (end, False) if final else (max(at, end - _KEY_FOOTER_BYTES), True)
            at, self._inside_line = newline.end(), False
            self._lines += 1

    def _find_footer(self, text: bytes, at: int, end: int) -> re.Match[bytes] | None:
        """Find the footer on a line. While the line is not judged, one that begins beyond the bytes
        by which it will be does not count.
        """
        if not self._inside_line:
            end = min(end, at + _KEY_REACH)
        footer = _KEY_FOOTER.search(text, at, end)
        if footer and not self._inside_line and footer.start() > at + _KEY_LINE_BYTES:
            return None
        return footer

    def _fits(self, line: bytes) -> bool:
        if self._lines > _KEY_LINES and len(line) < _KEY_WIDTH:
            return False
        if not self._lines:
            rest = _skip(_LAYOUT_AFTER, line, 0)
            return rest == len(line) or _AFTER_HEADER.match(line, 0) is not None
        for body in _LONG_BODY.finditer(line):
            if not body[0].islower() and not body[0].isupper():
                self._frame = _Frame(line[: body.start()], line[body.end() :])
                return True
        begin, end = self._frame.cut(line)
        begin = _skip(_LAYOUT_BEFORE, line, begin)
        return (
            _FIELD.match(line, begin) is not None
            or _HEX_PAIRS.fullmatch(line, begin) is not None
            or _skip(_LAYOUT_AFTER, line, _skip(_BODY, line, begin)) >= end
            or _KEY_FOOTER_PART.fullmatch(line, begin) is not None
        )


def _skip(pattern: re.Pattern[bytes], line: bytes, at: int) -> int:
    """Return where a match of a pattern that may be empty ends."""
    match = pattern.match(line, at)
    return match.end() if match else at
