"""Tokens: secrets with a recognisable shape, such as `ghp_…`, wherever they stand.

The shapes are in `tokens.txt`, in the notation of the user's own file. What the notation cannot say
is in `_IRREGULAR`. How many shapes there are hardly matters for speed: the search is for a run of
the bytes that tokens consist of, and only in such a run are the prefixes looked up.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from redaction.evidence import LOOK_AHEAD, MIXED_CASE, Both, Endless, Span, Verdict, Wait, find_all
from redaction.regex import regex

# --- the notation ---------------------------------------------------------------------------------

_NOTATION = regex(
    r"(?P<prefix>(?:[^\[\]{}()*+?|^$\s\\]|\\[^A-Za-z0-9\s])+)"
    r"\[(?P<alphabet>(?:[^\[\]\\\s^]|\\[\]\[\\^-])+)\]"
    r"\{(?P<shortest>[0-9]{1,5})(?P<comma>,(?P<longest>[0-9]{1,5})?)?\}(?P<end>\\b)?"
)
# A user's prefix has at least so many bytes: a shorter one would be looked at in every other word.
_PREFIX_BYTES = 3


class TokenShape(NamedTuple):
    """A literal prefix followed by a run of one alphabet.

    Shape: `alphabet` is every byte that may follow, written out. The run has at least `shortest`
    bytes. `ends` says that a run longer than `longest` is no such token. `any_word` says that a run
    that could be a word or an identifier counts too.
    """

    prefix: bytes
    alphabet: bytes
    shortest: int
    longest: int | None = None
    ends: bool = False
    any_word: bool = False


class PatternError(ValueError):
    """A line is not a token shape. The user must act: `line_number` says where, `message` what is
    wrong.
    """

    def __init__(self, line_number: int, message: str) -> None:
        super().__init__(f"line {line_number}: {message}")
        self.line_number = line_number
        self.message = message


def parse_token_shapes(text: str) -> tuple[TokenShape, ...]:
    """Return the user's token shapes, one a line; empty lines and lines that begin with `#` are
    skipped.

    Raises: PatternError, for the user.
    """
    return tuple(_read_shapes(text, _parse_own_shape))


@functools.lru_cache(maxsize=1)
def built_in_shapes() -> tuple[TokenShape, ...]:
    """Return the shapes in `tokens.txt`."""
    return tuple(_read_shapes(_BUILT_IN, _parse_shape))


_BUILT_IN = Path(__file__).with_name("tokens.txt").read_text("ascii")


def _read_shapes(text: str, parse: Callable[[str], TokenShape]) -> Iterator[TokenShape]:
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            try:
                yield parse(pattern)
            except ValueError as error:
                raise PatternError(number, str(error)) from None


def _parse_own_shape(pattern: str) -> TokenShape:
    shape = _parse_shape(pattern)
    if len(shape.prefix) < _PREFIX_BYTES:
        raise ValueError(f"the prefix must have at least {_PREFIX_BYTES} characters")
    if not shape.alphabet:
        raise ValueError("the character class is empty")
    return shape._replace(any_word=True)


def _parse_shape(pattern: str) -> TokenShape:
    """Return the shape that a line describes.

    Raises: ValueError; its message says what is wrong, for the person who wrote the line.
    """
    match = _NOTATION.fullmatch(pattern)
    if match is None:
        raise ValueError(
            "expected a literal prefix, one character class and a count,"
            " like acme_[A-Za-z0-9]{20,64}"
        )
    if not pattern.isascii():
        raise ValueError("only ASCII characters can be matched")
    shortest = int(match["shortest"])
    longest = shortest if match["comma"] is None else int(match["longest"] or 0) or None
    if shortest < 1 or (longest is not None and longest < shortest):
        raise ValueError("the count must be at least 1 and its end not below its start")
    ends = match["end"] is not None
    if ends and not (longest and longest < LOOK_AHEAD):
        raise ValueError(f"a count before \\b must have an end below {LOOK_AHEAD}")
    return TokenShape(
        prefix=re.sub(r"\\(.)", r"\1", match["prefix"]).encode(),
        alphabet=_spell_out(match["alphabet"]),
        shortest=shortest,
        longest=longest,
        ends=ends,
        any_word=ends,
    )


@functools.cache
def _spell_out(alphabet: str) -> bytes:
    """Return every byte of a character class, by asking `re`, whose rules people know."""
    try:
        member = re.compile(f"[{alphabet}]".encode())
    except re.error as error:
        raise ValueError(f"the character class is not valid: {error}") from None
    return bytes(code for code in range(0x21, 0x7F) if member.fullmatch(bytes((code,))))


# --- finding them ---------------------------------------------------------------------------------

# A run of these may hold a token. `=` and `:` end a run: otherwise every assignment would be one.
_RUN_BYTES = (string.ascii_letters + string.digits + "_-.~/+").encode()
_RUN_BYTE = regex(b"[" + re.escape(_RUN_BYTES) + b"]")
_RUN_SHORTEST = 20
# Runs are looked for in a text in which all their bytes are the same, by `find`: no pattern is as
# fast. Most hold no token and are dismissed in C: words and paths, which lack both digits and
# capitals, and hashes. The body of a token has digits or both cases.
_RUN_TABLE = bytes(0x61 if code in _RUN_BYTES else 0x20 for code in range(256))
_SHORTEST_RUN = b"a" * _RUN_SHORTEST
_MIXED_BYTES = (string.ascii_uppercase + string.digits).encode()
_MIXED_TABLE = bytes(0x41 if code in _MIXED_BYTES else 0x20 for code in range(256))
_HASH = regex(rb"[0-9a-f]+|(?!fc-|[0-9a-f]{32}-)[0-9a-f-]+|[0-9A-F-]+")
# Every prefix is shorter.
_PREFIX_LIMIT = 64
_TAIL_BYTES = _RUN_BYTES + b"%$=:"
# Inside a run, a token begins only behind one of these, or behind what `_SHIFTED` finds.
_SEPARATOR = rb"[-_.~/+]"


# What a token's body has and a word has not: digits among letters, or a mix of cases that no
# identifier has. More text never takes such evidence away, so a verdict does not depend on where a
# read ended.
_EVIDENCE = regex(rb"[0-9][A-Za-z]|[A-Z][0-9]|[a-z][0-9][_-]?[a-z0-9]|[0-9]{5}|" + MIXED_CASE)


class _Irregular(NamedTuple):
    """A token that is more than a prefix and one run.

    `begins` has the bytes that a token may begin with. `full` is the whole token and `part` a
    beginning of one, which has to be kept in step with it. `telling` is a beginning that cannot be
    a word: it stays held even when the stream is idle.
    """

    begins: bytes
    full: re.Pattern[bytes]
    part: re.Pattern[bytes]
    telling: re.Pattern[bytes]


# 12 bytes that are never typed by hand.
_GENERATED = rb"(?=.{12}).*?(?:%b)" % _EVIDENCE.pattern
_IRREGULAR = tuple(
    _Irregular(begins, regex(full), regex(part), regex(telling))
    for begins, full, part, telling in (
        # Mailchimp, Mailgun
        (
            b"",
            rb"[a-f0-9]{32}-(?:us[0-9]|[a-f0-9]{8}-[a-f0-9]{8})",
            rb"[a-f0-9]{0,32}(?:-(?:us?|[a-f0-9]{1,8}(?:-[a-f0-9]{0,7})?)?)?",
            rb"(?<![a-f0-9]-)(?=[a-f0-9]{12})(?:[0-9]+[a-f]|[a-f]+[0-9])",  # not within a UUID
        ),
        # Discord bot
        (
            b"MNO",
            rb"[MNO][A-Za-z0-9_-]{23,28}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
            rb"[MNO][A-Za-z0-9_-]{0,28}(?:\.[A-Za-z0-9_-]{0,6}(?:\.[A-Za-z0-9_-]{0,26})?)?",
            _GENERATED,
        ),
        # Resend
        (
            b"r",
            rb"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{16,}",
            rb"re_[A-Za-z0-9]{0,8}(?:_[A-Za-z0-9]{0,15})?",
            _GENERATED,
        ),
        # Airtable
        (
            b"p",
            rb"pat[A-Za-z0-9]{14}\.[a-f0-9]{50,}",
            rb"pat[A-Za-z0-9]{0,14}(?:\.[a-f0-9]{0,49})?",
            _GENERATED,
        ),
        # Telegram bot: the part behind the bot's number and a colon
        (
            b"A",
            rb"(?<=[0-9]:)A[A-Za-z0-9_-]{32,}",
            rb"(?<=[0-9]:)A[A-Za-z0-9_-]{0,31}",
            rb"A(?=.{3})[a-z-]*[A-Z0-9_]",
        ),
        # Azure AD client secret: three characters and a digit before `Q~` are given up, because
        # waiting for them would hold every word
        (
            b"Q",
            rb"(?<=[0-9])Q~[A-Za-z0-9_~.-]{28,}",
            rb"(?<=[0-9])Q(?:~[A-Za-z0-9_~.-]{0,27})?",
            rb"Q~..",
        ),
        # JSON Web Tokens that are not in `tokens.txt`: two parts that are base64 of JSON. A first
        # part that is longer has a certificate in it, and a prefix in `tokens.txt`.
        (
            b"e",
            rb"eyJ[A-Za-z0-9_-]{10,240}\.[A-Za-z0-9_-]{4,}",
            rb"eyJ[A-Za-z0-9_-]{0,240}(?:\.[A-Za-z0-9_-]{0,3})?",
            rb"eyJ.",
        ),
    )
)
_HEX_AND_ENDING = _IRREGULAR[0]
_IRREGULAR_BY_BYTE = {bytes((code,)): kind for kind in _IRREGULAR[1:] for code in kind.begins}
_IRREGULAR_STOP = regex(rb"[^A-Za-z0-9_.~=-]")


class Tokens:
    """Every token shape: runs of token bytes are searched for, and the prefixes looked up there."""

    def __init__(self, patterns: Iterable[TokenShape]) -> None:
        own = tuple(map(_Shape, patterns))
        self._shapes: dict[bytes, list[_Shape]] = {}
        self._beginnings: set[bytes] = set()
        for shape in (*own, *_compile_built_in()):
            self._shapes.setdefault(shape.prefix[:2], []).append(shape)
            self._beginnings.update(shape.prefix[:size] for size in range(1, len(shape.prefix) + 1))
        for shapes in self._shapes.values():
            shapes.sort(key=lambda shape: -len(shape.prefix))
        self._own = tuple(shape.prefix for shape in own)
        self._first, self._inner = _compile_places()

    def places(self, text: bytes, start: int) -> list[int]:
        """Return where a token may begin, at or after `start`, not in order."""
        found: list[int] = []
        find_run = text.translate(_RUN_TABLE).find
        at = find_run(_SHORTEST_RUN, start)
        # Many short reads have no run, and need no second text.
        find_mixed = (text if at < 0 else text.translate(_MIXED_TABLE)).find
        is_hash = _HASH.fullmatch
        while at >= 0:
            end = find_run(b" ", at + _RUN_SHORTEST)
            end = len(text) if end < 0 else end
            if find_mixed(b"A", at, end) >= 0 and not is_hash(text, at, end):
                found += self._places_in_run(text, at, end)
            at = find_run(_SHORTEST_RUN, end)
        for literal in self._own:
            found += find_all(text, literal, start)
        return found

    def _places_in_run(self, text: bytes, at: int, end: int) -> list[int]:
        found = [inner.end() for inner in self._inner.finditer(text, at, end)]
        shifted = _SHIFTED.match(text, at - 1) if text[at - 1 : at] in _SHIFTS else None
        if shifted:
            found.append(shifted.end())
        if self._first.match(text, at) and not _RUN_BYTE.match(text[at - 1 : at]):
            found.append(at)
        if text.find(b"Q~", at, end) >= 0:
            found += [azure.start() for azure in _AZURE.finditer(text, at, end)]
        return found

    def tail_places(self, text: bytes, start: int) -> Iterator[int]:
        """Return the places, in the run that ends the text, where a token may begin."""
        run = max(start, len(text) - LOOK_AHEAD, len(text.rstrip(_TAIL_BYTES)))
        if run < len(text):
            for place in _TAIL_PLACE.finditer(text, run):
                if self._may_begin(text, place.start()):
                    yield place.start()
        for literal in self._own:
            for size in range(1, len(literal)):
                if text.endswith(literal[:size]):
                    yield len(text) - size

    def _may_begin(self, text: bytes, at: int) -> bool:
        """Say whether the bytes from `at` to the end of the text may begin a token."""
        head = text[at : at + 2]
        return (
            len(head) < 2
            or head in self._shapes
            or head[:1] in _IRREGULAR_BY_BYTE
            or _HEX_AND_ENDING.part.fullmatch(text, at) is not None
        )

    def judge(self, text: bytes, at: int, final: bool) -> Verdict:
        """Judge a place where a token may begin."""
        if text.startswith(_ALGORITHMS, at):
            return None
        for shape in self._shapes.get(text[at : at + 2], ()):
            if text.startswith(shape.prefix, at):
                verdict = shape.judge(text, at, final)
                if isinstance(verdict, Endless) and shape.prefix in _AWS_KEY_IDS:
                    return Both(verdict, _judge_aws_secret(text, verdict.seen, final))
                if verdict is not None:
                    return verdict
        waits = firm = False
        begun = b"" if final else text[at : at + _PREFIX_LIMIT]
        for kind in (_HEX_AND_ENDING, _IRREGULAR_BY_BYTE.get(text[at : at + 1])):
            match = kind.full.match(text, at) if kind else None
            if match:
                return Endless(at, match.end(), _IRREGULAR_STOP)
            part = kind.part.match(text, at) if kind and begun else None
            if kind and part and at < part.end() == len(text):
                waits = True
                firm = firm or kind.telling.match(text, at) is not None
        if begun in self._beginnings and len(begun) < _PREFIX_LIMIT:
            waits, firm = True, firm or _is_telling(begun)
        return Wait(at, firm) if waits else None


def _is_telling(begun: bytes) -> bool:
    """Say whether the beginning of a prefix is too long and too odd for a word."""
    return len(begun) >= 12 and not begun.islower()


# Names of algorithms in OpenSSH, which begin like a key of OpenAI.
_ALGORITHMS = (b"sk-ssh-ed25519", b"sk-ecdsa-sha2-")


# AWS's secret keys have no shape but their length. One is recognised right behind its key id: in a
# CSV, in a table or on the next line.
_AWS_KEY_IDS = (b"AKIA", b"ASIA")
_AWS_SECRET = regex(
    rb"[,:|\t \"'\r\n]{1,4}(?:[0-9]{4}-[0-9T:.Z+-]{12,28}[\t ])?(?P<run>[A-Za-z0-9+/]{0,41})"
)


# The session's token, in the next column, if it is longer than what is a word.
_AWS_SESSION = regex(rb"[,\t ]{1,4}(?P<run>[A-Za-z0-9+/]{0,60})")
_AWS_STOP = regex(rb"[^A-Za-z0-9+/=]")


def _judge_aws_secret(text: bytes, at: int, final: bool) -> Verdict:
    behind = _AWS_SECRET.match(text, at)
    if behind is None:
        return Wait(len(text), False) if at == len(text) and not final else None
    begin, end = behind.span("run")
    if end == len(text) and end - begin <= 40 and not final:
        return Wait(begin, end > begin)
    return Both(Span(begin, end), _judge_session(text, end, final)) if end - begin == 40 else None


def _judge_session(text: bytes, at: int, final: bool) -> Verdict:
    behind = _AWS_SESSION.match(text, at)
    if behind is None:
        return None
    begin, end = behind.span("run")
    if end - begin == 60:
        return Endless(begin, end, _AWS_STOP)
    return Wait(begin, end > begin) if end == len(text) and not final else None


_AZURE = regex(rb"Q~(?<=[0-9]Q~)")
# A token may begin behind a written `\n` or `%3D`, although those end in a letter or a digit.
_SHIFTS = (b"\\", b"%")
_SHIFTED = regex(rb"\\[nrt]|%[0-9A-Fa-f]{2}")
_TAIL_PLACE = regex(
    rb"(?<![A-Za-z0-9])(?=[A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2})|(?<=[0-9])(?=Q)"
)


@functools.lru_cache(maxsize=1)
def _compile_places() -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Compile every built-in prefix, and the beginnings of irregular tokens, into one pattern, for
    a run's first byte and for those behind a separator. Only where they match is a run looked at.
    """
    others = [
        b"[MNO][A-Za-z0-9_-]{23,28}[.]",
        b"re_",
        b"pat[A-Za-z0-9]{14}[.]",
        b"A(?<=[0-9]:A)",
        b"[a-f0-9]{32}-",
        b"eyJ",
    ]
    prefixes = {shape.prefix for shape in _compile_built_in()}
    first = regex(b"|".join([_spell_branches(prefixes), *others]))
    return first, regex(_SEPARATOR + b"(?=" + first.pattern + b")")


def _spell_branches(texts: set[bytes]) -> bytes:
    """Return a pattern of texts that branches at each byte: `re` tries the branches one by one."""
    if b"" in texts:
        return b""
    branches = []
    for first in sorted({text[:1] for text in texts}):
        rest = _spell_branches({text[1:] for text in texts if text[:1] == first})
        branches.append(re.escape(first) + rest)
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"


class _Shape:
    """A token shape, ready to match."""

    def __init__(self, shape: TokenShape) -> None:
        self.prefix = shape.prefix
        self._shape = shape
        self._shortest = min(shape.shortest, LOOK_AHEAD)  # no judge sees more of a run
        self._run = regex(b"[" + re.escape(shape.alphabet) + b"]*")
        self._stop = regex(b"[^" + re.escape(shape.alphabet) + b"]")

    def judge(self, text: bytes, at: int, final: bool) -> Verdict:
        """Judge the run after the prefix."""
        shape, body = self._shape, at + len(self.prefix)
        found = self._run.match(text, body, body + LOOK_AHEAD)
        end = found.end() if found else body
        size = end - body
        open_ended = end == len(text) and not final and size < LOOK_AHEAD
        if shape.ends and (open_ended or size >= LOOK_AHEAD):
            return Wait(at, size > 3) if open_ended and size <= (shape.longest or 0) else None
        if shape.ends and size > (shape.longest or 0):
            return None
        if size >= self._shortest and (shape.any_word or _is_generated(text[body:end])):
            return Endless(at, end, self._stop)
        return Wait(at, size > 0 or _is_telling(self.prefix)) if open_ended else None


@functools.lru_cache(maxsize=1)
def _compile_built_in() -> tuple[_Shape, ...]:
    """Compile the built-in table, once for the process."""
    return tuple(map(_Shape, built_in_shapes()))


def _is_generated(body: bytes) -> bool:
    """Say whether a token's body is none of words: `sk-circle-fade-dot`, `npm_config_registry`."""
    return _EVIDENCE.search(body) is not None
