"""Values: where the value of a name ends, and whether it is a secret.

A `Pair` is a name that promises a secret. `redaction/names.py` finds where its value begins, and
asks here.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re
from typing import NamedTuple

from redaction.evidence import (
    CLOSING_QUOTE,
    LINE_STOP,
    LOOK_AHEAD,
    MIXED_CASE,
    SECRET,
    SUSPECT,
    Both,
    Endless,
    Span,
    Verdict,
    Wait,
    find_line_lead,
    is_ordinary,
    looks_like_password,
    looks_secret,
    may_be_number,
    read_quoted,
    read_value,
    repeats_name,
    weigh_name,
)
from redaction.regex import regex

# A quote: plain, escaped up to three times, or as HTML, an address or JSON spell it.
ESCAPE = rb"(?:\\{7}|\\{3}|\\)?"
QUOTE = rb"""(?:ESCAPE["'`]|&quot;|&\#(?:34|39|x27);|%(?:25)?2[27]|\\{1,3}u002[27])""".replace(
    b"ESCAPE", ESCAPE
)
# A call that only wraps the value: `token: Some("…")`, and the type that PHP prints
_WRAPPER = regex(
    rb"""
    (?:Some|Just|Ok|String::from|sensitive|PASSWORD|\[\]byte|Buffer\.from|new[ ]SecureString
      |(?:[A-Z][A-Za-z]{0,16})?(?:Secret|Password)(?:Str|String)?)
        \( \s{0,32}
    | \s{0,32}string\([0-9]{1,6}\)[ ] | \[\]string\{
    | \(?[Cc]onvert[Tt]o-[Ss]ecure[Ss]tring[ ](?:-[Ss]tring[ ])?
    """,
    re.VERBOSE,
)
_ANNOTATION = regex(rb"(?:&(?!mut )\w{1,24}|!!\w{1,12})[ ]")  # of a value, in YAML
# The value is on the next line, in YAML and in HCL
_BLOCK = regex(rb"[|>][+-]?\r?\n[ ]{1,32}|<<[-~]?\w{1,16}(?:\r?\n[ \t]{0,32}|\r?\Z)")
_OPEN_QUOTE = regex(
    rb"""(?:[rbfuLN@$]{1,2}(?=["']))?(?P<quote>QUOTE)(?:(?P=quote){2})?""".replace(b"QUOTE", QUOTE)
)
# In backticks, a shell's command or a template of JavaScript
_SHELL_COMMAND = regex(rb"[a-z][\w.-]* |[^`]*\$\{")
WIDE_STOP = regex(rb"[\s\"'`,;&<>)\]}|\\]")
# Ends a value within a line. Outside an address, `&` does so only before a name or another end.
_INLINE_STOP = regex(
    rb"[\s,;<>)\]}|\\]|" + CLOSING_QUOTE + rb"|&(?:[\s\"'`,;&<>)\]}|\\]|[\w.%\[\]-]{1,32}=)"
)
# Ends the value of a variable or a flag within a line. Punctuation before a space may belong to the
# sentence around it.
_SHELL_STOP = regex(rb"[,;)\]}]{0,3}(?:[ \t]|" + CLOSING_QUOTE + rb")|[\r\n]|\\[nrt\"']")
# What may stand before the name on its line: a number, a file, a service, the side of a box.
_LINE_START = regex(
    rb"(?:^|[\r\n])(?:[\w./@-]{1,40}:(?:[0-9]{1,6}:)?|[\w./@-]{0,40}/|[\w.-]{1,24} +\|)?"
    rb"(?:[\s+>#$*|-]|[0-9]{1,6}(?:[:\t)-]|\xe2\x86\x92)|\xe2[\x94\x8e].|export |set |SET |ENV "
    rb"|env |declare -x |\x1b)*$"
)
_VARIABLE = regex(rb"(?:^|[^A-Za-z])[A-Z][A-Z0-9_]{2,}$")
_IDENTIFIER = regex(rb"[a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+|[a-z]+(?:[A-Z][a-z]+)+")
_FLAG_BEFORE = regex(rb"(?:^|[\s\"'\[(=])-{1,2}[A-Za-z0-9_.-]*$")
# Words, as in a list of names. Four groups of four letters are none, but a password for an app.
_WORDS = regex(
    rb"(?!(?:[a-z]{4}[ -]){3}[a-z]{4}\Z)@{0,2}[A-Za-z_]+(?:[ ./-][A-Za-z_]+)*"
    rb"(?:[.,;:)]*|[!?]|<[A-Za-z]\S*>)"
)
_SHUFFLED = regex(rb"(?=[A-Za-z]{12})[A-Za-z]*?(?:" + MIXED_CASE + rb")")
_OPTION = regex(rb"-{1,2}[A-Za-z][A-Za-z0-9-]*(?:=.*)?")
# The number of a public key at GnuPG
FINGERPRINT = regex(rb"(?:0x)?(?:(?:[0-9A-F]{8}){1,2}|[0-9A-F]{40})")
_KEY_NUMBER = regex(rb"(?i)(?:signingkey|(?:install|sign|recv)-key|(?:gpg|pgp)[_ ]?key)s?$")
# Code that goes on behind a text: "token=" + token
_CONTINUED = regex(rb"[ ]?(?:[+.&~%,;)]|\|\||<<)")


class Pair(NamedTuple):
    """A name that promises a secret, and where it is in the text."""

    text: bytes
    name_start: int
    name_end: int
    weight: int
    in_query: bool

    @property
    def name(self) -> bytes:
        """The name itself."""
        return self.text[self.name_start : self.name_end]

    def closes(self, quote: bytes) -> bool:
        """Say whether a quote behind the operator closes a text that began before the name:
        `"password:"`.
        """
        text, begin, end = self.text, self.name_start, self.name_end
        begin -= text[begin - 1 : begin] == b"<"
        return text[begin - len(quote) : begin] == quote and text[end : end + 1] != quote[:1]

    def is_inside(self, quote: bytes) -> bool:
        """Say whether the name stands within a text that began on its line: `"?token="`."""
        lead = find_line_lead(self.text, self.name_start)
        opened = re.sub(rb"[a-z]'(?=[a-z])|\\.", b"", lead).count(quote)
        return opened % 2 == 1 and not lead.endswith(quote)

    def is_quoted(self) -> bool:
        """Say whether a quote closes the name, so that the next one opens the value."""
        return self.text[self.name_end : self.name_end + 1] in (b'"', b"'", b"\\")

    def is_flag(self) -> bool:
        """Say whether the name is an option of a command."""
        before = self.text[max(0, self.name_start - 4) : self.name_end]
        return _FLAG_BEFORE.search(before) is not None

    def begins_line(self) -> bool:
        """Say whether nothing but decoration, such as a number, stands before the name."""
        return (
            _LINE_START.search(self.text, max(0, self.name_start - 64), self.name_start) is not None
        )

    def find_stop(self) -> re.Pattern[bytes]:
        """Return the pattern that ends a value without quotes."""
        if self.in_query:
            return WIDE_STOP
        if self.begins_line():
            return LINE_STOP
        name = self.text[max(0, self.name_start - 2) : self.name_end]
        assigned = self.text[self.name_end : self.name_end + 1] == b"="
        if assigned and (_VARIABLE.search(name) or self.is_flag()):
            return _SHELL_STOP
        return _INLINE_STOP


def judge_value(
    pair: Pair, at: int, final: bool, *, loose: bool, stop: re.Pattern[bytes] | None
) -> Verdict:
    """Judge the value that begins at `at`."""
    text = pair.text
    block = _BLOCK.match(text, at) or _ANNOTATION.match(text, at)
    if block:
        at = block.end()
    wrapper = _WRAPPER.match(text, at)
    if not final and len(text) in (at if block else -1, wrapper.end() if wrapper else -1):
        return Wait(at, wrapper is not None)
    quote = _OPEN_QUOTE.match(text, wrapper.end() if wrapper else at)
    if quote and pair.closes(quote["quote"]):
        at = quote.end()
        behind = text[at : at + 1]
        if not behind.isalnum():
            return None if behind or final else Wait(at, False)
        quote = None  # a shell joins "TOKEN="value
    if quote and _CONTINUED.match(text, quote.end()) and pair.is_inside(quote["quote"]):
        return None
    if quote:
        at = quote.end()
        value = read_quoted(text, at, quote["quote"], final)
    else:
        stop = stop or pair.find_stop()
        value = read_value(text, at, stop, final)
    if isinstance(value, Endless):
        return value._replace(stop=WIDE_STOP) if stop is _INLINE_STOP else value
    if isinstance(value, Wait):
        return value
    harmless = (
        is_ordinary(
            value.lstrip() if pair.is_quoted() else value,
            quoted=quote is not None,
            loose=loose,
            number=may_be_number(pair.name),
        )
        or repeats_name(pair.name, value)
        or (quote is None and _is_variable(value, text[at + len(value) : at + len(value) + 1]))
        or (quote and quote["quote"] == b"`" and _SHELL_COMMAND.match(value))
        or (_KEY_NUMBER.search(pair.name) and FINGERPRINT.fullmatch(value))
        or (pair.weight == SUSPECT and not _is_suspect_secret(pair, value, loose and not quote))
    )
    return None if harmless else Span(at, at + len(value))


def judge_no_word(pair: Pair, at: int, final: bool) -> Verdict:
    """Judge a value where a word would be none, for a list of names looks the same."""
    verdict = judge_value(pair, at, final, loose=False, stop=None)
    if not isinstance(verdict, Span):
        return verdict
    value = pair.text[slice(*verdict)]
    is_word = _WORDS.fullmatch(value) is not None and not _SHUFFLED.search(value)
    return None if is_word or (pair.is_flag() and is_option(value)) else verdict


def is_option(value: bytes) -> bool:
    """Say whether a value is the next option of a command."""
    return _OPTION.fullmatch(value) is not None and not is_made_up(value)


def _is_variable(value: bytes, after: bytes) -> bool:
    """Say whether a value is a variable in a list of arguments, named like a secret:
    `token=auth_token,`.
    """
    bare = value.rstrip(b",)")
    return (
        (len(bare) < len(value) or after in (b",", b")"))
        and _IDENTIFIER.fullmatch(bare) is not None
        and weigh_name(bare) == SECRET
    )


def _is_suspect_secret(pair: Pair, value: bytes, loose: bool) -> bool:
    """Say whether the value of a suspect name is a secret. That of `pass` and `creds` does not have
    to be generated.
    """
    login = _LOGIN.fullmatch(value) if LOGIN_NAME.search(pair.name) else None
    if login and (is_mixed(login[1]) or is_made_up(login[1])):
        return True
    if not pair.name.lower().endswith(_MADE_UP):
        return looks_secret(value)
    return is_made_up(value) or (not loose and is_mixed(value))


LOGIN_NAME = regex(rb"(?i)(?:auth|cred(?:ential)?s?)$")
_LOGIN = regex(rb"[\w.@+-]{1,40}:([^\s:/]{6,})")
_MADE_UP = (b"pass", b"creds", b"credentials", b"cred", b"credential", b"passwords", b"secrets")


def is_made_up(value: bytes) -> bool:
    """Say whether a value is generated or a password, no word, identifier or version."""
    return looks_secret(value) or looks_like_password(value)


_MIXED = regex(rb"(?=.*[0-9])(?=.*[A-Za-z])[!-.0-~]{6,}")
_VERSION = regex(rb"v?[0-9]+(?:\.[0-9]+)+.*|.*\.[a-z]{1,4}|[0-9a-f-]+|[0-9]{4}-.*|(?:[0-9]+[a-z])+")
_ALL_KINDS = regex(rb"(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])(?=.*[^A-Za-z0-9]|.*[0-9]\Z).{8,}")


def is_mixed(value: bytes) -> bool:
    """Say whether a word has letters and digits, and is no version, file, date or hash."""
    return _MIXED.fullmatch(value) is not None and not _VERSION.fullmatch(value)


def is_strong(value: bytes) -> bool:
    """Say whether a word meets the usual rules for passwords: both cases, digits, and a sign or a
    digit at the end, which the name of a type has not.
    """
    return _ALL_KINDS.fullmatch(value) is not None and is_mixed(value)


def may_become(
    verdict: Verdict, more: re.Pattern[bytes], text: bytes, at: int, final: bool
) -> Verdict:
    """Return the verdict, and a Wait with it if the text ends within something that may still lead
    to another value.
    """
    leads_on = not final and len(text) - at < LOOK_AHEAD and more.fullmatch(text, at)
    return Both(verdict, Wait(len(text), False)) if leads_on else verdict


def require_end(
    text: bytes, value: Span, end: re.Pattern[bytes], begun: re.Pattern[bytes], final: bool
) -> Verdict:
    """Accept a value only if it is the last thing in its cell or on its line."""
    if end.match(text, value.end):
        return value
    may_end = begun.fullmatch(text, value.end)
    if may_end and final:
        return value
    return Wait(value.start, True) if may_end else None
