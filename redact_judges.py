"""Judges: what stands around a place in the text, and so whether a secret begins there.

A judge is given the visible text, a place in it and whether the stream ends there, and returns a
verdict. It reads at most LOOK_BACK bytes before the place and LOOK_AHEAD after it, keeps nothing,
and never knows where a read ended. The judges of tokens, of known values and of private keys are in
modules of their own; `redact.py` tells how it all works together.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import base64
import binascii
import functools
import re
import string
from collections.abc import Callable, Iterator
from typing import NamedTuple, Union

from redact_shapes import (
    KEY_ORDINARY_WORDS,
    KEY_SECRET_WORDS,
    NEUTRAL_ENDINGS,
    ORDINARY_VALUES,
    SECRET_ENDINGS,
    SUSPECT_ENDINGS,
    TOKEN_ORDINARY_WORDS,
    WEBHOOKS,
)

# A judge decides within this many bytes. Smaller would cut real values in two; larger would hold
# more back.
LOOK_AHEAD = 240
# A judge looks back no further than this: enough for a long variable name and what stands before
# it.
LOOK_BACK = 96


class Span(NamedTuple):
    """Verdict: the visible bytes from `start` to `end` are secret."""

    start: int
    end: int


class Endless(NamedTuple):
    """Verdict: secret from `start` to the first match of `stop` at or after `seen`, which may be
    far away.
    """

    start: int
    seen: int
    stop: re.Pattern[bytes]


class Wait(NamedTuple):
    """Verdict: the text ends too early to tell. What follows `hold` must stay; `firm` says that
    even silence must not release it.
    """

    hold: int
    firm: bool


class KeyBegins(NamedTuple):
    """Verdict: a private key's header from `start` to `end`; its body follows."""

    start: int
    end: int


Verdict = Union[Span, Endless, Wait, KeyBegins, None]
# (visible text, place, is this the end of the stream) -> verdict
Judge = Callable[[bytes, int, bool], Verdict]


def find_all(text: bytes, needle: bytes, start: int) -> Iterator[int]:
    """Return every place of a literal from `start` on, overlapping ones too."""
    at = text.find(needle, start)
    while at >= 0:
        yield at
        at = text.find(needle, at + 1)


# --- names and values -----------------------------------------------------------------------------

_NAME_BYTES = (string.ascii_letters + string.digits + "_.-$").encode()
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
HARMLESS, SUSPECT, SECRET, HEADER, PUTTY = range(5)


@functools.lru_cache(maxsize=4096)
def weigh_name(name: bytes) -> int:
    """Say what a name promises about its value.

    HARMLESS; SUSPECT, only a random looking value is secret; SECRET; or that it is no name but the
    beginning of a HEADER with credentials, or of a key in PUTTY's format.
    """
    if name.lower().endswith(b"authorization"):
        return HEADER
    if name.startswith(b"PuTTY-User-Key-File"):
        return PUTTY
    words = [word.lower() for word in _WORDS.findall(name.decode("latin-1"))]
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in NEUTRAL_ENDINGS):
        words.pop()
    if not words:
        return HARMLESS
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in ("key", "keys"):
        return _weigh_key(before)
    if last == "id" and before.endswith("secret"):
        return SUSPECT
    if last == "pw" or last.endswith(SECRET_ENDINGS):
        return HARMLESS if before in TOKEN_ORDINARY_WORDS and last == "token" else SECRET
    if (
        last == "pass"
        and before
        and before not in ("by", "com", "first", "second", "multi", "single")
    ):
        return SECRET
    if last.endswith(SUSPECT_ENDINGS) and before not in TOKEN_ORDINARY_WORDS:
        return SUSPECT
    return (
        SUSPECT if last.endswith("key") and len(last) > 5 and last not in _KEY_WORDS else HARMLESS
    )


_KEY_WORDS = frozenset(
    ["monkey", "turkey", "donkey", "hockey", "jockey", "whiskey", "hotkey", "pubkey"]
)


def _weigh_key(before: str) -> int:
    """Weigh `<before> key`: an API key is a secret, a primary key is not, and nobody knows what a
    `key` alone is.
    """
    if before in KEY_SECRET_WORDS:
        return SECRET
    return HARMLESS if not before or before in KEY_ORDINARY_WORDS else SUSPECT


_RANDOM_ALPHABET = re.compile(rb"[A-Za-z0-9+/=_.~%:!@#^*-]{10,}")
_RANDOM_PART = re.compile(rb"[A-Za-z0-9]{10,}")
_LONG_PART = re.compile(rb"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}")
_UUID = re.compile(rb"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_CHANGES = re.compile(rb"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])")


def looks_random(value: bytes) -> bool:
    """Tell a generated value from a word, a path or a version: a long part of letters and digits,
    or both cases and digits.
    """
    if not _RANDOM_ALPHABET.fullmatch(value) or b"/" in value[:1]:
        return False
    if (
        _UUID.fullmatch(value)
        or _LONG_PART.search(value)
        or (len(value) >= 20 and _mixes_case(value))
    ):
        return True
    return any(len(_CHANGES.findall(part)) >= 2 for part in _RANDOM_PART.findall(value))


def _mixes_case(value: bytes) -> bool:
    digits = sum(value.count(digit) for digit in b"0123456789")
    return digits >= 2 and not value.islower() and not value.isupper()


_HARMLESS_VALUE = re.compile(
    rb"""
    # ***, ..., ----, bullets
      [*\xe2\x80\xa2.\-_?\#]+
    # <your key>, [REDACTED], {{ value }}, (hidden)
    | <.*>? | \[.* | \{.* | \(.*
    # $VAR, ${VAR}, $(pass), %VAR%, %(token)s, #{x}
    | \$[A-Za-z_{(\[@*\#0-9].*? | %[A-Za-z_(][A-Za-z_()]*%?s? | @?\w*\#?\{.*
    # a call, an index: getpass(), os.environ["X"]
    | [&*!:@]*[A-Za-z_][\w:.\->?!]*[(\[{].*
    # a reference to a type; a tag of YAML; the name of a resource at AWS; validation rules of PHP
    | [&*]{1,2}(?:'[a-z]+\ )?(?:mut\ )?(?:\[\])?\[?(?:str|string|u8|byte|[A-Z][A-Za-z]+)\]?
    | ![A-Za-z]\w*(?:[:!].*)? | arn:aws[a-z-]*:.* | [a-z_]+(?:\|[a-z_]+(?::[\w,]+)?)+
    # an attribute of something that holds settings, or any other in letters alone
    | [&*!@:]{0,2}(?:self|this|cls|os|env|process|config|cfg|settings|options|opts|args|req|request
        |res|response|ctx|data|params|props|state|event|user|secrets|vars|var|inputs|github|steps
        |values?|credentials?|local|module|each)(?:->|::|\??\.)[\w.?\->:]+!?
    | [&*!@:]{0,2}[A-Za-z_]+(?:(?:->|::|\??\.)[A-Za-z_]+)+
    # a stand-in for a value
    | (?:your|my|the|some|example|sample|dummy|fake|insert|replace|enter|add|put|change)
        [-_.\ ][\w\-.\ ]*
    # numbers, amounts, versions
    | [0-9]{1,3} | 0x[0-9a-f]{1,8} | [0-9.]{1,12} | \d{1,9}(?:ms|s|m|h|d|k|kb|mb|%)
    # a path; an address, in which its own judge looks for a password
    | (?:~|\.{1,2})?(?:/[\w.@+-]*[a-z._-][\w.@+-]*)+/? | [A-Za-z]:\\.*
    | [a-z][a-z0-9+.-]{1,20}://.*
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_PLAIN_WORD = re.compile(rb"[A-Za-z_]+(?:[.!?:]|<[A-Za-z]\S*>)?")
_SHELL_COMMAND = re.compile(rb"[a-z][\w.-]* ")
_LABEL = re.compile(
    rb"(?i)[\w' ]*\b(?:enter|your|please|required|invalid|must|forgot|reset|confirm|wrong"
    rb"|incorrect|missing|expired|provide|is|not|the|a|an|for|of|to)\b.*"
)
# After the end of a text such as "Token: ", which looks like an operator and an opening quote.
_CODE_AFTER_TEXT = re.compile(rb"\s*[+%]\s|[,)]\s*[\w)\"']")
_PLACEHOLDER = re.compile(rb"[A-Z]{2,}(?:[_-][A-Z]+)*|[x]{4,}-.*|.{0,3}\xe2\x80\xa6")


def _is_ordinary(value: bytes, *, quoted: bool, loose: bool) -> bool:
    """Say whether a value after a secret name is harmless after all: code, a placeholder, a word
    about the secret.

    `loose` says that a single word would be no surprise here: `auth = username`, `token: expired`.
    """
    bare = value.rstrip(b",;)")
    if (
        len(bare) < 2  # what a minifier leaves of a name
        or bare.lower().decode("latin-1") in ORDINARY_VALUES
        or _is_path_or_code(bare, quoted=quoted)
    ):
        return True
    if quoted:
        if _CODE_AFTER_TEXT.match(bare):
            return True
        return b" " in bare and _LABEL.fullmatch(bare) is not None and not _CHANGES.search(bare)
    if _PLACEHOLDER.fullmatch(bare) and loose:
        return True
    return loose and _PLAIN_WORD.fullmatch(bare) is not None and not _is_shouted_mix(bare)


def _is_shouted_mix(word: bytes) -> bool:
    """Say whether letters alone look generated: long, and not in the case of a word or an
    identifier.
    """
    return len(word) >= 24 and (
        word.isupper() or len(re.findall(rb"[a-z][A-Z]", word)) > len(word) // 5
    )


def _is_path_or_code(value: bytes, *, quoted: bool) -> bool:
    match = _HARMLESS_VALUE.fullmatch(value)
    if match is None:
        return False
    if (
        quoted
        and re.match(rb"[&*!:@]*[A-Za-z_][\w:.\->?!]*[(\[{.]", value)
        and not value.startswith(b"$")
    ):
        return b"://" in value or b"{" in value or value[:5].lower() in (b"your.", b"your_")
    return not (
        value[:1] in b"/~." and looks_random(value.replace(b"/", b"")) and b"." not in value
    )


def is_secret(name: bytes, value: bytes, *, quoted: bool, loose: bool) -> bool:
    """Judge a finished pair."""
    weight = weigh_name(name)
    if weight == HARMLESS or _is_ordinary(value, quoted=quoted, loose=loose):
        return False
    return weight == SECRET or _looks_secret(value)


_USER_AND_PASSWORD = re.compile(rb"[!-~]+:[!-~]+")


def _looks_secret(value: bytes) -> bool:
    """Tell what a suspect name promises: a generated value, or a user and a password in base64."""
    bare = value.rstrip(b",;)")
    return looks_random(bare) or _USER_AND_PASSWORD.fullmatch(_decode_base64(bare)) is not None


# --- the judge of names ---------------------------------------------------------------------------

# What may stand right after a name that has a value.
_FOLLOWING = frozenset(bytes((code,)) for code in b" \t\r\n\"'`\\])=:+?.|&%^->,") | {b""}
_REST_OF_NAME = re.compile(rb"[A-Za-z0-9_.-]{0,64}")
# What may stand between a name and its value. `=` and `:` in every language's spelling, with the
# end of a quoted name before it.
_OPERATOR = re.compile(
    rb"""
    \\?["'`]?[\])]{0,2} [ \t]{0,20}
    (?:
        :[ ]?[A-Za-z&\[\]<>.|?]{1,20}[ ]=         # token: str =
      | [ ][A-Za-z.\[\]*]{1,16}[ ]:?=             # var token string =
      | [ ](?:is|was):                            # your password is:
      | [:+?.|&%^]{0,3}={1,3}>? | :{1,2} | ->     # = := ::= ?= .= == => : ->
    ) [ \t]{0,20} (?:\*\*[ ])?                     # **Password:** in Markdown
    """,
    re.VERBOSE,
)
_SIGN = re.compile(rb"[=:> \t]")
_NEAR_SIGN = re.compile(rb"[:=]|->")
_ARGUMENT = re.compile(rb"""\\?["'`][ ]?,[ ]{0,4}(?=\\?["'`])""")  # setProperty("TOKEN", "value")
_PAIR = re.compile(
    rb"""\\?["']?[ \t]*(?:,\s{0,24}|\s{1,24})(?:-[ ])?\\?["']?value\\?["']?[ ]?:[ \t]{0,4}""",
    re.IGNORECASE,
)  # name: TOKEN, value: …
# <input name="csrf_token" type="hidden" value="…">, and a form sent in parts
_NAME_ATTRIBUTE = re.compile(rb"""(?:name|id|property)=["']$""", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    rb"""
    ["'](?:
        (?:\s{1,2}(?!value|content)[a-z-]{2,12}=(?:"[^"<>]{0,16}"|'[^'<>]{0,16}')){0,2}
        \s{1,2}(?:value|content)=(?=["'])
      | \r?\n\r?\n
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# | SecretAccessKey | … |, in ASCII or drawn with lines
_CELL = re.compile(rb"[`*]{0,2}[ ]{1,40}(?:\||\xe2\x94\x82)[ ]{1,40}(?=[^\s|\xe2])")
_CELL_BEFORE = re.compile(rb"(?:\||\xe2\x94\x82)[ ]{1,40}[`*]{0,2}$")
# `token: Some("…")`: a call that only wraps a text
_WRAPPER = re.compile(rb"(?:Some|Just|Ok|Secret(?:Str|String)?|String::from)\(\s{0,32}")
_BLOCK = re.compile(rb"[|>][+-]?\r?\n[ ]{1,32}")  # a value on the next line, in YAML
_ELEMENT_BEGINS = re.compile(rb"(?:^|[\s>\"'`])<")
_ELEMENT = re.compile(rb">\s{0,40}")  # <token>value
_CLOSING = re.compile(rb"\s{0,40}</")
_MAY_BE_CLOSING = re.compile(rb"\s{0,40}<?")
_SPACE = re.compile(rb"[ \t]{1,24}(?=[^\s=:])")  # --token value
_MAY_BE_OPERATOR = re.compile(
    rb"""[\\"'`\])\s:+?.|&%^=>,<*-]{0,60}(?:[A-Za-z\[\]<>.|?*&]{1,20} ?:?)?(?:["'])?"""
)
# What must follow the beginning of a name, in lowered text, for `judge_name` to have anything to
# say: most words that begin like the name of a secret are told from one here, in C. The end of the
# text may become anything.
_MAY_HAVE_VALUE = rb"""
    (?=[a-z0-9_.-]{0,64}(?![a-z0-9_.-])(?:
        \\?["'`]?[\])]{0,2}[ \t]{0,20}(?:[:=+?.|&%^>-]|,[ ]{0,4}\\?["'`])
      | [ ][a-z.\[\]*]{1,16}[ ]:?=
      | \\?["']?[ \t]*,?\s{1,24}(?:-[ ])?\\?["']?value
      | ["'](?:\s{1,2}[a-z-]{2,12}=|\r?\n\r?\n) | [`*]{0,2}[ ]{1,40}(?:\||\xe2\x94\x82)
      | [\s\S]?\Z
      | [\\"'`\])\s:+?.|&%^=>,<*-]{0,60}(?:[a-z\[\]<>.|?*&]{1,20}[ ]?:?)?["']?\Z
"""
MAY_HAVE_VALUE = _MAY_HAVE_VALUE + rb"))"
# A name that is a secret's may also have nothing but a space before its value; `tokens` is none.
MAY_HAVE_SPACED_VALUE = _MAY_HAVE_VALUE + rb"| (?<!tokens)[ \t]{1,24}[^\s=:]))"


def _exclude_ordinary(words: frozenset[str], ending: str) -> bytes:
    """Return a pattern that fails where one of the words and the ending have just been read.

    What is looked back for must have one length, so there is one group for each.
    """
    groups: dict[int, list[str]] = {}
    for word in sorted(words):
        groups.setdefault(len(word), []).append(word)
    return "".join(
        f"(?<![^a-z](?:{'|'.join(group)})[_-]{ending})" for _, group in sorted(groups.items())
    ).encode()


# `max_tokens`, which what a language model prints about itself is full of.
NO_ORDINARY_TOKEN = _exclude_ordinary(TOKEN_ORDINARY_WORDS, "token")
_OPEN_QUOTE = re.compile(rb"""(?:[rbfuL@$]{1,2}(?=["']))?(\\?["'`])(?:\1{2})?""")

# Stops of a value. On a line of its own (`DB_PASSWORD=…`) only white space ends a value: passwords
# hold any character.
_LINE_STOP = re.compile(rb"[\s\"'`]|\\[nrt\"']")
_WIDE_STOP = re.compile(rb"[\s\"'`,;&<>)\]}|\\]")
_ELEMENT_STOP = re.compile(rb"[\s<]")
_CELL_STOP = re.compile(rb"[\s`*|]")
_QUOTE_STOPS = {
    b'"': re.compile(rb'(?<!\\)"|[\r\n]'),
    b"'": re.compile(rb"(?<!\\)'|[\r\n]"),
    b"`": re.compile(rb"[`\r\n]"),
    b'\\"': re.compile(rb'\\?"|[\r\n]'),
    b"\\'": re.compile(rb"\\?'|[\r\n]"),
}
_LINE_START = re.compile(
    rb"(?:^|[\r\n])(?:[\s+>#$*|-]|export |set |SET |ENV |env |declare -x |\x1b)*$"
)
_FLAG_BEFORE = re.compile(rb"(?:^|[\s\"'\[(=])-{1,2}[A-Za-z0-9_.-]*$")
# ENV API_KEY …, #define WIFI_PASSWORD …, set -x DB_PASSWORD …
_SETTING_BEFORE = re.compile(
    rb"(?i)(?:^|[\s>])(?:set|setx|\#[ ]?define|env|arg|(?:config|secret)[ ]set)(?:[ ]-[a-z]+)*"
    rb"[ \t]+$"
)
_ARN_BEFORE = re.compile(rb"[0-9]{12}:$")  # of a resource's type in its name at AWS
_LOGIN_BEFORE = re.compile(rb"(?:login|user|account)[ \t]+\S+[ \t]+$")


def judge_name(text: bytes, at: int, final: bool) -> Verdict:
    """Judge a name and its value, in every spelling: `API_KEY=…`, `"apiKey": "…"`, `--token …`,
    `<password>…`.
    """
    rest = _REST_OF_NAME.match(text, at)
    name_end = rest.end() if rest else at
    if name_end >= len(text) - 1 and not final:
        return Wait(len(text), False)
    if text[name_end - 1 : name_end] in (b".", b"-"):
        name_end -= 1
    name_start = _find_name_start(text, at)
    name = text[name_start:name_end]
    weight = weigh_name(name)
    if weight == SECRET and _ARN_BEFORE.search(text, max(0, name_start - 13), name_start):
        return None
    in_query = False
    if weight != SECRET:
        in_query = text[name_start - 1 : name_start] in (b"?", b"&")
        if weight == HARMLESS and not (in_query and name.lower() == b"key"):
            return None
        if weight == HEADER:
            return judge_header(text, name_end - len(b"authorization"), final)
        if weight == PUTTY:
            begins = text[name_end : name_end + 2] == b": "
            return KeyBegins(name_end + 1, name_end + 2) if begins else None
        weight = SUSPECT
    return _judge_operator(_Pair(text, name_start, name_end, weight, in_query), final)


class _Pair(NamedTuple):
    """A name that promises a secret, where it stands."""

    text: bytes
    name_start: int
    name_end: int
    weight: int
    in_query: bool

    def begins_line(self) -> bool:
        """Say whether nothing but decoration stands before the name on its line."""
        return (
            _LINE_START.search(self.text, max(0, self.name_start - 24), self.name_start) is not None
        )


def _find_name_start(text: bytes, at: int) -> int:
    """Return where the name around `at` begins; `API key` is one name."""
    before = text[at - 48 : at] if at > 48 else text[:at]
    begin = at - len(before) + len(before.rstrip(_NAME_BYTES))
    if begin == at and text[at : at + 3].lower() == b"key" and before[-1:] == b" ":
        word = before[:-1].rpartition(b" ")[2]
        return at - 1 - len(word) if word.isalpha() else begin
    return begin


def _judge_operator(pair: _Pair, final: bool) -> Verdict:
    """Find the operator after the name, then judge the value."""
    text, end = pair.text, pair.name_end
    if text[end : end + 1] not in _FOLLOWING:
        return None
    if not final and len(text) - end < LOOK_BACK:
        possible = _MAY_BE_OPERATOR.match(text, end)
        if possible and possible.end() == len(text):
            begun = _find_begun_value(pair)
            hold = min(len(text), _first_sign(text, end))
            return Wait(hold if begun is None else min(hold, begun), begun is not None)
    operator = _OPERATOR.match(text, end) if _NEAR_SIGN.search(text, end, end + 48) else None
    if operator:
        spaced = text[operator.end() - 1 : operator.end()] in (b" ", b"\t")
        return _judge_value(pair, operator.end(), final, loose=spaced, stop=None)
    laid_out = _judge_layout(pair, final)
    if laid_out is not None:
        return laid_out
    for spelling in (_PAIR, _ARGUMENT):
        other = spelling.match(text, end)
        if other:
            verdict = _judge_value(pair, other.end(), final, loose=False, stop=None)
            words = isinstance(verdict, Span) and _PLAIN_WORD.fullmatch(text, *verdict)
            return None if words and spelling is _ARGUMENT else verdict  # a list of names
    return _judge_spaced(pair, final)


def _judge_layout(pair: _Pair, final: bool) -> Verdict:
    """Judge a value that stands next to its name in an element, in a form or in a table."""
    text, name, end = pair.text, pair.name_start, pair.name_end
    element = _ELEMENT.match(text, end)
    if element and _ELEMENT_BEGINS.match(text, max(0, name - 2), name):
        verdict = _judge_value(pair, element.end(), final, loose=False, stop=_ELEMENT_STOP)
        if isinstance(verdict, Span) and element.end() > end + 1:
            return _require_closing(text, verdict, final)
        return verdict
    attribute = _ATTRIBUTE.match(text, end)
    if attribute and _NAME_ATTRIBUTE.search(text, max(0, name - 12), name):
        return _judge_value(pair, attribute.end(), final, loose=False, stop=None)
    cell = _CELL.match(text, end)
    if cell and _CELL_BEFORE.search(text, max(0, name - 48), name):
        # The column after a name is as often its type, or what it is for.
        named = pair._replace(weight=SUSPECT)
        return _judge_value(named, cell.end(), final, loose=True, stop=_CELL_STOP)
    return None


def _require_closing(text: bytes, value: Span, final: bool) -> Verdict:
    """Take a value for that of an element only if the element is closed after it: `<token>` also
    stands for a token in a line of help, and what follows there is any text.
    """
    if _CLOSING.match(text, value.end):
        return value
    rest = text[value.end : value.end + 48]
    may_close = not final and len(rest) < 48 and _MAY_BE_CLOSING.fullmatch(rest)
    return Wait(value.start, True) if may_close else None


def _first_sign(text: bytes, start: int) -> int:
    """Return the place after the first byte that is surely part of an operator."""
    found = _SIGN.search(text, start)
    return found.end() if found else len(text)


def _judge_spaced(pair: _Pair, final: bool) -> Verdict:
    """Judge a value after nothing but a space: a command line flag, netrc, or prose with a random
    looking word.
    """
    space = _SPACE.match(pair.text, pair.name_end)
    named = pair.weight == SECRET or pair.text[pair.name_end - 3 : pair.name_end].lower() == b"key"
    if space is None or not named:
        return None
    surely = _takes_spaced_value(pair)
    verdict = _judge_value(pair, space.end(), final, loose=True, stop=None)
    if surely or not isinstance(verdict, Span):
        return verdict if surely or isinstance(verdict, Wait) else None
    value = pair.text[verdict.start : verdict.end]
    return verdict if len(value) >= 14 and b"/" not in value and looks_random(value) else None


def _takes_spaced_value(pair: _Pair) -> bool:
    before = pair.text[max(0, pair.name_start - LOOK_BACK) : pair.name_start]
    flag = _FLAG_BEFORE.search(before + pair.text[pair.name_start : pair.name_end])
    return any((flag, _LOGIN_BEFORE.search(before), _SETTING_BEFORE.search(before)))


def _find_begun_value(pair: _Pair) -> int | None:
    """Return where a value surely begins in a text that ends within it, None if it may be none."""
    text, end = pair.text, pair.name_end
    spellings = [_OPERATOR, _ARGUMENT]
    if pair.weight == SECRET and _takes_spaced_value(pair):
        spellings.append(_SPACE)
    for spelling in spellings:
        found = spelling.match(text, end)
        if found and found.end() < len(text):
            return found.end()
    return None


def _judge_value(
    pair: _Pair, at: int, final: bool, *, loose: bool, stop: re.Pattern[bytes] | None
) -> Verdict:
    """Judge the value that begins at `at`."""
    text = pair.text
    block = _BLOCK.match(text, at)
    if block:
        at = block.end()
    wrapper = _WRAPPER.match(text, at)
    if wrapper and wrapper.end() == len(text) and not final:
        return Wait(len(text), False)
    quote = _OPEN_QUOTE.match(text, wrapper.end() if wrapper else at)
    if quote:
        at, stop = quote.end(), _QUOTE_STOPS[quote[1]]
    elif stop is None:
        stop = _LINE_STOP if pair.begins_line() and not pair.in_query else _WIDE_STOP
    ending = stop.search(text, at, at + LOOK_AHEAD)
    if ending is None and len(text) < at + LOOK_AHEAD and not final:
        return Wait(at, True)
    value = text[at : ending.start() if ending else at + LOOK_AHEAD]
    if ending is None and len(value) == LOOK_AHEAD:
        return Endless(at, at + LOOK_AHEAD, stop)
    if _is_ordinary(value, quoted=quote is not None, loose=loose) or (
        quote and quote[1] == b"`" and _SHELL_COMMAND.match(value)
    ):
        return None
    if pair.weight == SUSPECT and not _looks_secret(value):
        return None
    return Span(at, at + len(value))


# --- the judge of flags ---------------------------------------------------------------------------

# `curl -u user:…`, `mysql -p…`, `docker login -p …`: after which command a flag of one letter, with
# a space behind it or without, takes a password.
_FLAG = re.compile(rb"(--user|-[a-z])([ =]?)(\\?[\"'])?")
_FLAG_COMMANDS = {
    flag: re.compile(rb"(?:^|[^\w.-])(?:" + commands + rb")(?:[ ][^\r\n|;&]*)?$")
    for commands, flags in (
        (rb"curl|wget", (b"-u", b"-u ", b"--user ", b"--user=")),
        (rb"mysql\w*|mariadb\w*|sshpass", (b"-p",)),
        (rb"sshpass|[a-z]+(?:[ ][^\r\n|;&]*)? login", (b"-p ",)),
        (rb"redis-cli", (b"-a ",)),
        (rb"ldap[a-z]+", (b"-w ",)),
    )
    for flag in flags
}


def judge_flag(text: bytes, at: int, final: bool) -> Verdict:
    """Judge a flag that means a password to a few commands."""
    flag = _FLAG.match(text, at)
    command = _FLAG_COMMANDS.get(flag[1] + flag[2]) if flag else None
    if flag is None or command is None or not command.search(text, max(0, at - LOOK_BACK), at):
        return None
    value = flag.end()
    stop = _QUOTE_STOPS[flag[3]] if flag[3] else _LINE_STOP
    ending = stop.search(text, value, value + LOOK_AHEAD)
    if ending is None and not final and len(text) < value + LOOK_AHEAD:
        return Wait(value, True)
    end = ending.start() if ending else min(len(text), value + LOOK_AHEAD)
    if flag[1] in (b"-u", b"--user"):
        user, colon, _ = text[value:end].partition(b":")
        value = value + len(user + colon) if colon else end
    if ending is None and end == flag.end() + LOOK_AHEAD:
        return Endless(value, end, stop)
    ordinary = _is_ordinary(text[value:end], quoted=flag[3] is not None, loose=False)
    return None if ordinary else Span(value, end)


# --- the judges of headers ------------------------------------------------------------------------

_HEADER = re.compile(
    rb"""(?i)(?:proxy-)?authorization\\?["']?\]?[ ]?"""
    rb"""(?:[:=]|,(?=[ ]?\\?["']))[ ]{0,4}(?:[fbr]?\\?["'`])?"""
    rb"""(?:(?:bearer|basic|token|apikey|api-key|key|digest|negotiate|ntlm|hawk|sharedkey|sharedkeylite|bot|jwt|oauth|splunk"""
    rb"""|genie?key|ssws|discogs|mac|signature|pat|aws4-hmac-sha256|goog4-rsa-sha256)[ ]+)?"""
)
_HEADER_STOP = re.compile(rb"[\"'`\r\n<>\\]")
_CREDENTIAL_STOP = re.compile(rb"[\s\"'`,;<>)\]}\\]")
_SCHEME = re.compile(rb"(?i)(?:bearer|basic)(?:%20|\+|[ ]+)")
_BEARER_WORDS = frozenset(
    """
    token tokens auth authentication authorization scheme format realm header headers is of and or
    error in to with for access api credentials
    """.split()  # noqa: SIM905 - words read better than a list of quoted ones
)
_COOKIE = re.compile(
    rb"(?i)(?P<set>set-)?cookie\\?[\"']?[ ]?:[ ]{0,4}(?:\\?[\"'`])?[^=\s;\"']{1,64}="
)
_COOKIE_STOP = re.compile(rb"[\"'`\r\n\\]")
_SET_COOKIE_STOP = re.compile(rb"[;\"'`\s\\]")


def judge_header(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `Authorization: <scheme> <credentials>`: all that follows the scheme is secret."""
    header = _HEADER.match(text, at)
    if header is None:
        short = len(text) - at < 40 and b"\n" not in text[at:] and not final
        return Wait(min(len(text), _first_sign(text, at)), False) if short else None
    value = header.end()
    ending = _HEADER_STOP.search(text, value, value + LOOK_AHEAD)
    if ending is None and not final and len(text) < value + LOOK_AHEAD:
        return Wait(
            min(value, _first_sign(text, at)) if len(text) < value + 24 else value,
            value < len(text),
        )
    if ending is None and len(text) >= value + LOOK_AHEAD:
        return Endless(value, value + LOOK_AHEAD, _HEADER_STOP)
    body = text[value : ending.start() if ending else len(text)].rstrip()
    plain = body.isalpha() and not _is_shouted_mix(body)
    return (
        None
        if plain or not body or _is_path_or_code(body, quoted=False)
        else Span(value, value + len(body))
    )


def judge_scheme(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `Bearer <token>` and `Basic <base64>` wherever they stand."""
    if text[at - 1 : at].isalnum():
        return None
    scheme = _SCHEME.match(text, at)
    if scheme is None:
        return None
    value = scheme.end()
    if value >= len(text):
        return None if final else Wait(len(text), False)
    ending = _CREDENTIAL_STOP.search(text, value, value + LOOK_AHEAD)
    if ending is None and not final and len(text) < value + LOOK_AHEAD:
        return Wait(value, True)
    if ending is None and len(text) >= value + LOOK_AHEAD:
        return Endless(value, value + LOOK_AHEAD, _CREDENTIAL_STOP)
    body = text[value : ending.start() if ending else len(text)]
    basic = text[at : at + 2].lower() == b"ba"
    secret = (
        b":" in _decode_base64(body)
        if basic
        else _is_bearer_credential(body, text[at : at + 1].isupper())
    )
    return Span(value, value + len(body)) if secret else None


def _is_bearer_credential(body: bytes, capital: bool) -> bool:
    word = body.rstrip(b".:,")
    if (
        not word
        or word.lower().decode("latin-1") in _BEARER_WORDS
        or word.lower().startswith(b"realm=")
    ):
        return False
    if _is_path_or_code(word, quoted=False) and not looks_random(word):
        return False
    if not capital:
        return looks_random(word)
    return not word.isalpha() or len(word) < 5 or _is_shouted_mix(word)


def _decode_base64(body: bytes) -> bytes:
    """Return what is encoded there, nothing if it is too short or no base64."""
    try:
        padded = body + b"=" * (-len(body) % 4)
        return base64.b64decode(padded, validate=True) if len(body) >= 8 else b""
    except (binascii.Error, ValueError):
        return b""


def judge_cookie(text: bytes, at: int, final: bool) -> Verdict:
    """Judge a cookie header: `Cookie` from its first value on, `Set-Cookie` the value but not its
    attributes.
    """
    if text[max(0, at - 4) : at].lower() == b"set-":
        at -= 4
    header = _COOKIE.match(text, at)
    if header is None:
        short = len(text) - at < 90 and not re.search(rb"[\r\n=;]", text[at:]) and not final
        return Wait(len(text), False) if short else None
    value = header.end()
    stop = _SET_COOKIE_STOP if header["set"] else _COOKIE_STOP
    ending = stop.search(text, value, value + LOOK_AHEAD)
    if ending is None and not final and len(text) < value + LOOK_AHEAD:
        return Wait(value, True)
    if ending is None and len(text) >= value + LOOK_AHEAD:
        return Endless(value, value + LOOK_AHEAD, stop)
    body = text[value : ending.start() if ending else len(text)]
    return (
        None
        if len(body) < 8 or _is_path_or_code(body, quoted=False)
        else Span(value, value + len(body))
    )


# --- the judge of addresses -----------------------------------------------------------------------

_AUTHORITY_STOP = re.compile(rb"[\s/\"'<>`\\]")
_PASSWORD_STOP = re.compile(rb"[\s@\"'<>`\\]")
_PATH_STOP = re.compile(rb"[\s\"'<>`\\)|]")
_PORT = re.compile(rb"[0-9]{0,5}[\])},.;]*")
_WEBHOOK_REACH = 48


def judge_address(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `://` and what follows: a password before `@`, or a path that is the credential."""
    start = at + 3
    ending = _AUTHORITY_STOP.search(text, start, start + LOOK_AHEAD)
    whole = len(text) >= start + LOOK_AHEAD or final
    if ending is None and not whole:
        colon = text.find(b":", start)
        return Wait(start, colon >= 0 and not _PORT.fullmatch(text, colon + 1))
    end = ending.start() if ending else min(len(text), start + LOOK_AHEAD)
    userinfo, sign, _ = text[start:end].rpartition(b"@")
    if sign:
        return _judge_userinfo(userinfo, start)
    colon = text.find(b":", start, end)
    cut_short = ending is None
    if cut_short and colon >= 0 and not _PORT.fullmatch(text, colon + 1, end):
        return Endless(colon + 1, end, _PASSWORD_STOP)
    return _judge_webhook(text, start, final)


def _judge_userinfo(userinfo: bytes, start: int) -> Verdict:
    user, colon, password = userinfo.partition(b":")
    if colon:
        ordinary = not password or (
            _HARMLESS_VALUE.fullmatch(password) and not password[:1].isalnum()
        )
        both = user and not ordinary and _is_hex_word(user) and _is_hex_word(password)
        return (
            None
            if ordinary
            else Span(start if both else start + len(user) + 1, start + len(userinfo))
        )
    return Span(start, start + len(user)) if len(user) >= 16 and looks_random(user) else None


def _is_hex_word(word: bytes) -> bool:
    """Say whether a user name is part of the credential, as package servers hand them out."""
    return len(word) >= 8 and not word.strip(b"0123456789abcdef")


def _judge_webhook(text: bytes, start: int, final: bool) -> Verdict:
    for literal in WEBHOOKS:
        found = text.find(literal, start, start + _WEBHOOK_REACH + len(literal))
        if found == start or (found > start and literal[:1] == b"."):
            body = found + len(literal)
            ending = _PATH_STOP.search(text, body, body + LOOK_AHEAD)
            if ending is None and not final and len(text) < body + LOOK_AHEAD:
                return Wait(start, True)
            if ending is None:
                return Endless(start, min(len(text), body + LOOK_AHEAD), _PATH_STOP)
            return Span(start, ending.start()) if ending.start() - body >= 16 else None
    reach = text[start : start + _WEBHOOK_REACH * 2]
    if (
        not final
        and len(reach) < _WEBHOOK_REACH
        and not re.search(rb"\s", reach)
        and _may_be_webhook(reach)
    ):
        return Wait(start, False)
    return None


def _may_be_webhook(reach: bytes) -> bool:
    return any(literal.startswith(reach) or literal[:1] == b"." for literal in WEBHOOKS)
