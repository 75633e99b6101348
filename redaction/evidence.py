"""What every judge works with: verdicts, what a name promises, what a value looks like.

A judge is given the visible text, a place in it and whether the stream ends there, and returns a
verdict on whether a secret begins there. It reads at most LOOK_BACK bytes before the place and
LOOK_AHEAD after it, keeps nothing, and never knows where a read ended. The judges are in modules of
their own; `redact.py` tells how it all works together.
"""

# ruff: noqa: FBT001, FBT003 - what every judge works with has the signature of a judge
from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, Union

from redaction.shapes import (
    KEY_ORDINARY_WORDS,
    KEY_SECRET_WORDS,
    NEUTRAL_ENDINGS,
    NO_SECRETS,
    ORDINARY_VALUES,
    PASSWORD_TRANSLATIONS,
    SECRET_ENDINGS,
    SECRET_NAMES,
    SUSPECT_ENDINGS,
    TOKEN_ORDINARY_WORDS,
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


class Both(NamedTuple):
    """Verdict: two values of one name, what it was and what it becomes."""

    first: Verdict
    second: Verdict


class KeyBegins(NamedTuple):
    """Verdict: a private key's header from `start` to `end`; its body follows. `lead` is what
    stands before the header on its line.
    """

    start: int
    end: int
    lead: bytes


Verdict = Union[Span, Endless, Wait, "Both", KeyBegins, None]
# (visible text, place, is this the end of the stream) -> verdict
Judge = Callable[[bytes, int, bool], Verdict]


def find_all(text: bytes, needle: bytes, start: int) -> Iterator[int]:
    """Return every place of a literal from `start` on, overlapping ones too."""
    at = text.find(needle, start)
    while at >= 0:
        yield at
        at = text.find(needle, at + 1)


def read_value(
    text: bytes, at: int, stop: re.Pattern[bytes], final: bool
) -> bytes | Endless | Wait:
    """Return the value that begins at a place and ends before `stop`.

    Where the text in hand ends first, the verdict on it: it may be harmless up to there, and is
    waited for; and what is longer than any judge reads is no harmless value.
    """
    ending = stop.search(text, at, at + LOOK_AHEAD)
    if ending:
        return text[at : ending.start()]
    if len(text) >= at + LOOK_AHEAD:
        return Endless(at, at + LOOK_AHEAD, stop)
    return text[at:] if final else Wait(at, True)


def find_line_lead(text: bytes, at: int) -> bytes:
    """Return what stands before a place on its line; nothing if that is more than a judge sees."""
    lead = re.split(rb"[\r\n]", text[max(0, at - LOOK_BACK) : at])[-1]
    return lead if len(lead) < LOOK_BACK else b""


# --- names and values -----------------------------------------------------------------------------

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
HARMLESS, SUSPECT, SECRET, HEADER = range(4)


def split_name(name: bytes) -> list[str]:
    """Return the words of a name in lower case, without those at its end that change nothing."""
    words = [word.lower() for word in _WORDS.findall(name.decode("latin-1"))]
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in NEUTRAL_ENDINGS):
        words.pop()
    return words


@functools.lru_cache(maxsize=4096)
def weigh_name(name: bytes) -> int:
    """Say what a name promises about its value.

    HARMLESS; SUSPECT, only a random looking value is secret; SECRET; or that it is no name but the
    beginning of a HEADER with credentials.
    """
    if name.lower().endswith(b"authorization"):
        return HEADER
    if name.lower() in SECRET_NAMES:
        return SECRET
    if name.lower().endswith(NO_SECRETS):
        return HARMLESS
    words = split_name(name)
    if not words:
        return HARMLESS
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in ("key", "keys"):
        return _weigh_key(before)
    if (last == "id" and before.endswith("secret")) or (last == "sid" and before in _SID_BEFORE):
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
        SUSPECT
        if last.endswith("key") and len(last) > 5 and not last.endswith(_NO_KEYS)
        else HARMLESS
    )


# `sid` by itself and Express's `connect.sid` are cookies; an account's is an id that anybody knows.
_SID_BEFORE = ("", "connect")
_NO_KEYS = (
    *("monkey", "turkey", "donkey", "hockey", "jockey", "whiskey", "hotkey"),
    *("pubkey", "publickey"),
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
# Letters in an order of cases that no word or identifier has; a part of other patterns.
MIXED_CASE = rb"[A-Z][a-z][A-Z]|[a-z][A-Z]{2}"


def looks_random(value: bytes) -> bool:
    """Tell a generated value from a word, a path or a version: a long part of letters and digits,
    or both cases and digits.
    """
    if not _RANDOM_ALPHABET.fullmatch(value) or (b"/" in value[:1] and len(value) < 40):
        return False
    if (
        _UUID.fullmatch(value)
        or _LONG_PART.search(value)
        or (len(value) >= 20 and (_mixes_case(value) or value.isdigit()))
    ):
        return True
    return any(len(_CHANGES.findall(part)) >= 2 for part in _RANDOM_PART.findall(value))


def looks_like_password(value: bytes) -> bool:
    """Tell a password from an identifier, a version or a date: digits and letters that alternate
    often, or a sign among them that an identifier does not have.
    """
    changes = len(_CHANGES.findall(value))
    if changes == 0 or _OTHER_SCRIPT.search(value) or _NO_PASSWORD.fullmatch(value):
        return False
    signs = _PASSWORD_SIGN.search(value) is not None and not value.islower()
    return len(value) >= 6 and (changes >= 4 or signs)


_OTHER_SCRIPT = re.compile(rb"[\xca-\xf4][\x80-\xbf]")  # a character behind U+027F, in UTF-8
_PASSWORD_SIGN = re.compile(rb".[!@#$%&*?^+~]")
# Hex, durations, dates, a file, an address, code, and what is at a version: x@1.2
_NO_PASSWORD = re.compile(
    rb"[0-9a-fA-F-]+|(?:[0-9]+[a-z]{1,2})+|[0-9]{4}-[0-9]{2}.*|.*[/(){}\[\]<>=;,|\\\"'`].*"
    rb"|.*\w@[\w-]+\..*|[\w-]+\.[a-z]{1,4}",
    re.DOTALL,
)


def _mixes_case(value: bytes) -> bool:
    digits = sum(value.count(digit) for digit in b"0123456789")
    return digits >= 2 and value.lower() != value and value.upper() != value


HARMLESS_VALUE = re.compile(
    rb"""
    # ***, ..., ----, bullets
      [*\xe2\x80\xa2.\-_?\#]+ | \xc2[\xbb\xb7]
    # <your key>, [REDACTED], {{ value }}, (hidden)
    | <.*>? | &(?:lt|\#x3c|\#60)(?:;.*)? | \[.* | \{.* | \(.*
    # $VAR, ${VAR}, $(pass), %VAR%, %(token)s, #{x}
    | \$[A-Za-z_{(\[@*\#0-9].*? | %[A-Za-z_(][A-Za-z_()]*%?s? | @?\w*\#?\{.*
    # a call, an index: getpass(), os.environ["X"]
    | [&*!:@]*[A-Za-z_][\w:.\->?!]*[(\[{].*
    # a reference to a type; a tag of YAML; the name of a resource at AWS; validation rules of PHP
    | [&*]{1,2}(?:'[a-z]+\ )?(?:mut\ )?(?:\[\])?\[?(?:str|string|u8|byte|[A-Z][A-Za-z]+)\]?
    | ![A-Za-z]\w*(?:[:!].*)? | arn:aws[a-z-]*:.* | [a-z_]+(?:\|[a-z_]+(?::[\w,]+)?)+
    # an attribute of something that holds settings, or any other in letters alone
    | [&*!@:]{0,2}(?:self|this|cls|exports|os|env|process|config|cfg|settings|options|opts|args
        |req|request|res|response|ctx|data|params|props|state|event|user|secrets|vars|var|inputs|github|steps
        |values?|credentials?|local|module|each)(?:->|::|\??\.)[\w.?\->:]+!?
    | [&*!@:]{0,2}[A-Za-z_]+(?:(?:->|::|\??\.)[A-Za-z_]+)+
    | \w{1,32}\.\w{0,32}(?:key|token|secret|password|credentials?)
    # a stand-in for a value
    | (?:your|my|the|some|example|sample|dummy|fake|insert|replace|enter|add|put|change)
        [-_.\ ][\w\-.\ ]*
    # what `printf` fills in, a parameter of a query
    | (?:%(?:\{\w+\})?[-0-9.]*[a-z@][:/\ ]?)+ | %\(\w+\)s | \?[0-9]{0,2}
    | (?-i:[:@][a-z_]*(?:password|passwd|pwd|token|secret|key)[0-9]{0,2})
    # what a prompt of a shell or Perl says went wrong
    | \$[!@?](?:\\?[\w;"]{0,3})
    # a type with a number in its name, an algorithm, a public key
    | [*&]?(?:[iu](?:8|16|32|64|128)|u?int(?:8|16|32|64)|uint8array|bytes(?:16|32|64)|sha[0-9]{1,3}
        |utf-?8|base64(?:-\w+)?|uuidv[0-9]|jwt[0-9]?) | (?:x|ed)25519\w* | oauth2\w+
    | (?:sk-)?(?:ssh|ecdsa)-[\w@.-]+
    # a place where secrets are kept
    | projects/\S+/secrets/\S+
    # masked, or left out
    | (?:[a-z]{1,5}[-_]){0,3}\w{0,4}(?:\.{3}|x{5,}|\*{3,})(?:\w{0,4}|\w{1,8}\*{3,})
    # numbers, amounts, versions, colours
    | [~^][0-9]+(?:\.[0-9x*]+){1,2}(?:-[a-z0-9.]+)?
    | [0-9]{1,4}(?:\+|/[0-9]{1,4}) | 1\*[<(]?[a-z]* | \.\*(?:[$/)].*)?
    | -?(?:[0-9]{1,3} | [0-9.]{1,12}) | \d{1,9}(?:ms|s|m|h|d|k|kb|mb|%)
    | -?0x[0-9a-f]{1,8} | 0x(?:00|7f|5[56]|60|10)[0-9a-f]{1,14}
    | \#(?:[0-9a-f]{3}|[0-9a-f]{6})
    # fields of a line; a regular expression
    | [a-z_]*(?:uid|gid|port|dn)(?::[a-z_]+){1,9} | (?:qr|m)?/[\^\[(\\].*
    # a path; an address, in which its own judge looks for a password
    | (?:~|\.{1,2})?(?:/[\w.@+-]*[a-z._-][\w.@+-]*)+/? | [A-Za-z]:\\.*
    | [a-z][a-z0-9+.-]{1,20}://.*
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
# What a generator of passwords makes of all characters, and looks like code: letters of both cases,
# digits and signs, without a word in it, and no call.
_SCRAMBLED = re.compile(
    rb"(?=[!-~]{8})(?!.*[A-Za-z]{5}|[\w.:&*-]+[(\[].*[)\]]\Z)"
    rb"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9]*[0-9])(?=(?:[\w.:>/-]*[^\w.:>/-]){2})[!-~]+"
)
_PLAIN_WORD = re.compile(rb"@{0,2}[A-Za-z_]+(?:[.!?:]|<[A-Za-z]\S*>)?")
_LABEL = re.compile(
    rb"(?i)[\w' ]*\b(?:enter|your|please|required|invalid|must|forgot|reset|confirm|wrong"
    rb"|incorrect|missing|expired|provide|is|not|the|a|an|for|of|to)\b.*"
)
# After the end of a text such as "Token: ", which looks like an operator and an opening quote.
_CODE_AFTER_TEXT = re.compile(
    rb"\s|;(?:\s|\Z)|[+%.]\s|(?:<<|&&|\|\|)\s|\\?[\"'] ?[.+] |[,)]\s*(?:[\w)\"']|\Z)"
)
_PLACEHOLDER = re.compile(rb"[A-Z]{2,}(?:[_-][A-Z]+)*|[x]{4,}-.*|.{0,3}\xe2\x80\xa6")


def is_ordinary(value: bytes, *, quoted: bool, loose: bool) -> bool:
    """Say whether a value after a secret name is harmless after all: code, a placeholder, a word
    about the secret.

    `loose` says that a single word would be no surprise here: `auth = username`, `token: expired`.
    """
    bare = value.rstrip(b",;:)")
    if (
        len(bare) < 2  # what a minifier leaves of a name
        or bare.lower().decode("latin-1") in ORDINARY_VALUES
        or is_path_or_code(bare, quoted=quoted)
    ):
        return True
    if quoted:
        if _CODE_AFTER_TEXT.match(bare) or _is_translation(bare) or _is_path_of_name(bare):
            return True
        return b" " in bare and _LABEL.fullmatch(bare) is not None and not _CHANGES.search(bare)
    if _PLACEHOLDER.fullmatch(bare) and loose:
        return True
    return loose and _PLAIN_WORD.fullmatch(bare) is not None and not is_shouted_mix(bare)


_PATH_OF_NAME = re.compile(rb"[A-Za-z]+(?:[./][A-Za-z_]+)+")


def _is_path_of_name(value: bytes) -> bool:
    """Say whether a value is where a name is kept: `auth.password`, `auth/SET_PASSWORD`."""
    return _PATH_OF_NAME.fullmatch(value) is not None and weigh_name(value) != HARMLESS


def _is_translation(value: bytes) -> bool:
    """Say whether a text without digits is the word for a password in another language."""
    text = value.decode("utf-8", "replace").lower()
    return not any(map(str.isdigit, text)) and (
        not PASSWORD_TRANSLATIONS.isdisjoint(re.findall(r"\w+", text))
        or any(word in text for word in PASSWORD_TRANSLATIONS if not word.isascii())
    )


def is_shouted_mix(word: bytes) -> bool:
    """Say whether letters alone look generated: long, and not in the case of a word or an
    identifier.
    """
    return len(word) >= 24 and (
        word.isupper() or len(re.findall(rb"[a-z][A-Z]", word)) > len(word) // 5
    )


def is_path_or_code(value: bytes, *, quoted: bool) -> bool:
    """Say whether a value is a path, a placeholder, or an expression that yields the value."""
    if HARMLESS_VALUE.fullmatch(value) is None or _SCRAMBLED.fullmatch(value):
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


def repeats_name(name: bytes, value: bytes) -> bool:
    """Say whether a value is its name again, as where a variable is handed on:
    `api_token=apiToken`.
    """
    return name.translate(None, b"_- ").lower() == value.translate(None, b"_-,;)").lower()


def is_secret(name: bytes, value: bytes, *, quoted: bool, loose: bool) -> bool:
    """Judge a finished pair."""
    weight = weigh_name(name)
    ordinary = repeats_name(name, value) or is_ordinary(value, quoted=quoted, loose=loose)
    if weight == HARMLESS or ordinary:
        return False
    return weight == SECRET or looks_secret(value)


_USER_AND_PASSWORD = re.compile(rb"[!-~]+:[!-~]+")


def looks_secret(value: bytes) -> bool:
    """Tell what a suspect name promises: a generated value, or a user and a password in base64."""
    bare = value.rstrip(b",;)")
    return looks_random(bare) or _USER_AND_PASSWORD.fullmatch(decode_base64(bare)) is not None


def decode_base64(body: bytes) -> bytes:
    """Return what is encoded there, nothing if it is too short or no base64."""
    try:
        padded = body + b"=" * (-len(body) % 4)
        return base64.b64decode(padded, validate=True) if len(body) >= 8 else b""
    except (binascii.Error, ValueError):
        return b""


# --- where a value ends ---------------------------------------------------------------------------

# Stops of a value. On a line of its own (`DB_PASSWORD=…`) only white space ends a value: passwords
# hold any character.
LINE_STOP = re.compile(rb"[\s\"'`]|\\[nrt\"']")


@functools.lru_cache(maxsize=64)
def quote_stop(quote: bytes) -> re.Pattern[bytes]:
    """Return what ends a value after this opening quote.

    One that is escaped is closed by one that is escaped as often, or less: what is escaped more
    often is in the value.
    """
    sign = quote.lstrip(b"\\")
    if sign in (b'"', b"'"):
        return re.compile(rb"(?<!\\)\\{0,%d}%b|[\r\n]" % (len(quote) - 1, sign))
    return re.compile(re.escape(quote) + rb"|[\r\n]")


_SIGN = re.compile(rb"[=:> \t]")


def first_sign(text: bytes, start: int) -> int:
    """Return the place after the first byte that is surely part of an operator."""
    found = _SIGN.search(text, start)
    return found.end() if found else len(text)
