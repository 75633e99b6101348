"""The judge of names: `password` or `API_KEY`, what stands after it, and where its value is.

A value is found in every spelling in which programs print pairs: with an operator, in an element,
in a form, in a table, as an argument, after a flag. What a name promises and what a value looks
like is told in `redact_judges.py`.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re
import string
from typing import NamedTuple

from redact_headers import judge_header
from redact_judges import (
    HARMLESS,
    HEADER,
    LINE_STOP,
    LOOK_AHEAD,
    LOOK_BACK,
    PLAIN_WORD,
    PUTTY,
    QUOTE_STOPS,
    SECRET,
    SUSPECT,
    Endless,
    KeyBegins,
    Span,
    Verdict,
    Wait,
    find_line_lead,
    first_sign,
    is_ordinary,
    looks_random,
    looks_secret,
    weigh_name,
)
from redact_shapes import TOKEN_ORDINARY_WORDS

_NAME_BYTES = (string.ascii_letters + string.digits + "_.-$").encode()
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
_SHELL_COMMAND = re.compile(rb"[a-z][\w.-]* ")
_WIDE_STOP = re.compile(rb"[\s\"'`,;&<>)\]}|\\]")
_ELEMENT_STOP = re.compile(rb"[\s<]")
_CELL_STOP = re.compile(rb"[\s`*|]")
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
            lead = find_line_lead(text, name_start)
            return KeyBegins(name_end + 1, name_end + 2, lead) if begins else None
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
            hold = min(len(text), first_sign(text, end))
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
            words = isinstance(verdict, Span) and PLAIN_WORD.fullmatch(text, *verdict)
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
    spellings = [_OPERATOR, _ARGUMENT, _ATTRIBUTE]
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
        at, stop = quote.end(), QUOTE_STOPS[quote[1]]
    elif stop is None:
        stop = LINE_STOP if pair.begins_line() and not pair.in_query else _WIDE_STOP
    ending = stop.search(text, at, at + LOOK_AHEAD)
    if ending is None and len(text) < at + LOOK_AHEAD and not final:
        return Wait(at, True)
    value = text[at : ending.start() if ending else at + LOOK_AHEAD]
    if ending is None and len(value) == LOOK_AHEAD:
        return Endless(at, at + LOOK_AHEAD, stop)
    if is_ordinary(value, quoted=quote is not None, loose=loose) or (
        quote and quote[1] == b"`" and _SHELL_COMMAND.match(value)
    ):
        return None
    if pair.weight == SUSPECT and not looks_secret(value):
        return None
    return Span(at, at + len(value))
