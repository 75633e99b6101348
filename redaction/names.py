"""The judge of names: finds the value of `password` or `API_KEY` in every spelling and layout.

The value may stand behind an operator, in the next argument, after a flag, in a sentence, and, in
the second half of this module, in an element, a form or a table. What a name promises is weighed in
`redaction/evidence.py`; `redaction/values.py` says where a value ends and whether it is a secret.

For some patterns there is one more, `…_SO_FAR` or `_MAY_BE_…`: it matches a text that ends in the
middle of what the first one matches. The two have to be kept in step.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re
import string

from redaction.evidence import (
    HARMLESS,
    HEADER,
    LOOK_AHEAD,
    LOOK_BACK,
    ORDINARY_VALUES,
    SECRET,
    SUSPECT,
    TOKEN_ORDINARY_WORDS,
    Both,
    Endless,
    KeyBegins,
    Span,
    Verdict,
    Wait,
    find_line_lead,
    first_sign,
    list_words,
    looks_like_password,
    looks_random,
    looks_secret,
    may_be_gibberish,
    weigh_name,
)
from redaction.regex import regex
from redaction.syntax import judge_header, judge_phrase
from redaction.values import (
    ESCAPE,
    FINGERPRINT,
    LOGIN_NAME,
    QUOTE,
    WIDE_STOP,
    Pair,
    is_made_up,
    is_mixed,
    is_option,
    is_strong,
    judge_no_word,
    judge_value,
    may_become,
    require_end,
)

_NAME_BYTES = (string.ascii_letters + string.digits + "_.-$").encode()
# The bytes that may follow a name that has a value.
_FOLLOWING = frozenset(bytes((code,)) for code in b" \t\r\n\"'`\\])=:+?.|&%^->,*<(") | {b""}
_REST_OF_NAME = regex(rb"[A-Za-z0-9_.-]{0,64}")
# Signs that point to a value in a prompt or in prose: arrows, guillemets, dashes, a middle dot.
_POINTER = rb"(?:\xc2[\xbb\xb7]|\xe2(?:\x80[\x93\x94\xba]|[\x86\x87]\x92|\x9d\xaf|\x9e[\x94-\xbe]))"
# What may stand between a name and its value: the end of a quoted name, then `=` or `:` in every
# language's spelling.
_OPERATOR = regex(
    rb"""
    (?:QUOTE|\\)? (?::(?:"?[\w\\]{1,32}"?:)?pr(?:otected|ivate))?   # ["token":protected] in PHP
    (?:[\])]{0,2}|%(?:25)?5[Dd]) (?:\*\*)? [ \t]{0,20}
    (?:
        :[ ]?[A-Za-z&\[\]<>.|?]{1,20}[ ]=         # token: str =
      | [ ][A-Za-z.\[\]*]{1,16}[ ]:?=             # var token string =
      | [ ](?:is|was|issued|created|generated):   # your password is:
        # Password for x@h:, SET PASSWORD FOR x =, Secret Access Key [None]:
      | [ ](?:is[ ]generated[ ])?for[ ](?:[^\s:'"]{1,32}|'[^\s']{1,64}'):(?=[ ])
      | [ ]FOR[ ][^\s=]{1,64}[ ]=(?=[ ])
      | [ ][(\[][^()\[\]\r\n]{1,24}[)\]]:(?=[ ])
      | (?<=[Kk]ey)[ ][0-9]{1,2}:                 # Unseal Key 1:
      | %(?:25)?3[aAdD]                           # in an address
      | [:+?.|&%^]{0,3}={1,3}>? | :{1,2} | -> | <{1,2}-     # = := ::= ?= .= == => : -> <-
    ) [ \t]{0,20} (?:(?:\*\*|POINTER)[ ])?         # **Password:** in Markdown, or a prompt
    """.replace(b"QUOTE", QUOTE).replace(b"POINTER", _POINTER),
    re.VERBOSE,
)
_SIGN_BEHIND = regex(rb"[:=]|->|<-|%")
# The value may be the next argument: setProperty("TOKEN", "value").
_ARGUMENT = regex(rb"""ESCAPE["'][ ]?,[ ]{0,24}(?=b?ESCAPE["'`])""".replace(b"ESCAPE", ESCAPE))
_WORD_NEXT = regex(rb"""["'][a-z_]{1,16}["']""")  # the most frequent case, dismissed early
_IN_LIST = regex(rb"""["'],\s*["']$""")
# The default where nothing is set, in several languages: process.env.TOKEN || "value"
_OTHERWISE = rb"""
    (?: \s{0,24}(?:\|\||\?\?|\?:)\s{0,24} | \s{1,24}(?P<word>or|else)\s{1,24}
      | \.unwrap_or(?:_else\(\|_?\|[ ]?|\() | ,[ ]?default[ ]?=[ ]? | [ ]\{[ ] )
    (?=ESCAPE["'`])
""".replace(b"ESCAPE", ESCAPE)
_FALLBACK = regex(
    rb"""(?:ESCAPE["'])?[)\]]{0,2}""".replace(b"ESCAPE", ESCAPE) + _OTHERWISE, re.VERBOSE
)
_FALLBACK_OF_EXPRESSION = regex(
    rb"""[A-Za-z_$][\w.$?]{0,63}(?:[(\[](?:["'][\w.-]{1,64}["'])?[)\]]{1,2})?""" + _OTHERWISE,
    re.VERBOSE,
)
# Code that may still lead to a default, also on its next line
_CODE_SO_FAR = regex(rb"""[\w.$?:()\[\]"'\\|{,=> -]{0,120}\s{0,24}[|?:]{0,2}\s{0,24}""")
# The next item in a list of arguments, on the next line: the value of a flag
_NEXT_ARGUMENT = regex(rb"""["'],\r?\n[ \t]{0,32}(?=["'])""")
# X-Api-Key=[value], as Java and Go print headers
_BRACKETS = regex(rb"\[(?=[^\s\[\]\"',;]{6,128}\])")
# The user before the password: auth=("jane", …), NetworkCredential("jane", …)
_USER_BEFORE = regex(rb"""\(\s{0,24}["'][^"'\s]{1,40}["'],\s{0,24}(?=["'])""")
_USER_SO_FAR = regex(rb"""\(\s{0,24}(?:["'][^"'\s]{0,40}(?:["'](?:,\s{0,24})?)?)?""")
_NEXT_LINE = regex(rb"""\r?\n[ \t]{1,32}(?=\\?["'])""")
# --token value, `TOKEN` is `value`; not the line of a table
_SPACE = regex(rb"(?P<closed>`|\*\*)?(?P<blank>[ \t]{1,40})(?=[^\s=:|\xe2]|\xe2(?![\x94\x95]))")
# The password was changed to …, TOKEN → …, `TOKEN` (`…`), the key for production is **…**
_VERB = regex(
    rb"(?:(?:-|"
    + _POINTER
    + rb") |\((?:currently )?(?=`)"
    + rb"|(?:for (?:the )?[^\s:]{1,32} )?(?:(?:is|was|has been) )?"
    + rb"(?:(?:now|currently|set|changed|reset|updated) )?(?:to |from )?)(?:\*\*)?"
)
_MAY_BE_OPERATOR = regex(
    rb"""[\\"'`\])\s:+?.|&%^=>,<*-]{0,60}(?:[A-Za-z\[\]<>.|?*&]{1,20} ?:?)?(?:["'])?"""
)
# What must follow the beginning of a name, in lowered text, for `judge_name` to be called at all:
# this dismisses, in C, most words that begin like the name of a secret. The end of the text always
# matches, for it may become anything; where the end is further than the last row reaches, that row
# is not tried, as it takes longer than all others.
_MAY_HAVE_VALUE = rb"""
    [a-z0-9_.-]{0,64}(?![a-z0-9_.-])(?:
        (?:[\\"'`\])*]{1,12}(?:u002[27])?)?[ \t]{0,20}
            (?:[:=+?.|&%^>{-]|,(?:\s{0,24}b?\\{0,7}["'`]|[ ]?default)|(?:or|else)\s{1,24}["'`])
      | [ ][a-z.\[\]*]{1,16}[ ]:?=
      | \\?["']?[ \t]*(?:,\s{0,24}|\s{1,24})(?:[-+~][ ]{1,3})?\\?["']?(?:parameter)?value
      | ["'](?:\s{1,2}[a-z-]{2,12}=|\r?\n(?:\r?\n|[ ]{0,8}[0-9]{1,3}\)))
      | [`*]{0,2}[ ]{1,40}(?:\||\xe2\x94\x82)
      | \(\s{0,24}["']
      | [ ]?</(?:key|name|t[dh])>
      | [\s\S]?\Z
      | (?!(?s:.{84})) [\\"'`\])\s:+?.|&%^=>,<*-]{0,60}(?:[a-z\[\]<>.|?*&]{1,20}[ ]?:?)?["']?\Z
"""
MAY_HAVE_VALUE = b"(?=" + _MAY_HAVE_VALUE + b"))"
# Prose behind such a name and a space, in lowered text, which `judge_name` takes for no value:
# words of letters alone, the last of which is where `_VERB` ends at the latest. The first has at
# most seven letters, for a flag's value of eight may be gibberish. So much must follow, or another
# line, that no judge waits for more.
_PROSE = rb"""
    [a-z0-9_.-]{0,64}(?:`|\*\*)?[ \t]{1,40}(?:
        (?:(?:for[ ](?:the[ ])?(?!the[ ])[a-z]{1,32}[,.;]?|is|was|has|been|now|set|changed|reset
            |updated|to|from)[ ]){1,5} NO_VERB [a-z]{1,32}
      | NO_VERB [a-z]{1,7}
    ) [,.;)]? (?:[ ](?![ :=])|[\r\n]) (?: (?s:.{240}) | [^\n]{0,99}\n[ ]*[^\s|?:] )
""".replace(
    b"NO_VERB",
    rb"""(?!(?:for|is|was|has|been|now|currently|set|changed|reset|updated|to|from|or|else|null
        |new)(?![a-z]))""",
)
_SPACED_VALUE = rb"| (?<!tokens)(?:`|\*\*)?[ \t]{1,40}[^\s=:]))"
# In a file of logins any word is a password: `machine x.org login jane password swordfish`.
FILE_OF_LOGINS = regex(rb"machine\s+\S+\s+login\s")
MAY_HAVE_LOGIN = b"(?=" + _MAY_HAVE_VALUE + _SPACED_VALUE
# The name of a secret may have nothing but a space before its value; `tokens` is no such name.
MAY_HAVE_SPACED_VALUE = b"(?!" + _PROSE + b")" + MAY_HAVE_LOGIN


def _exclude_ordinary(words: frozenset[str], ending: str) -> bytes:
    """Return a pattern that fails behind any of the words and the ending.

    A look-behind needs one length, so there is one for each length of the words.
    """
    groups: dict[int, list[str]] = {}
    for word in sorted(words):
        groups.setdefault(len(word), []).append(word)
    ordinary = "|".join(
        f"(?<=[^a-z](?:{'|'.join(group)})[_-]{ending})" for _, group in sorted(groups.items())
    )
    return f"(?!(?<=[_-]{ending})(?:{ordinary}))".encode()


# `max_tokens` and its like, of which the statistics of language models are full.
NO_ORDINARY_TOKEN = _exclude_ordinary(TOKEN_ORDINARY_WORDS, "token")
# Ends a word in a sentence, or one on a line of its own.
_WORD_STOP = regex(rb"[.,;:)\]}]{0,3}[\s\"'`<>|\\]")
_BOLD_STOP = regex(rb"\*\*|[\r\n]")
# ENV API_KEY …, #define WIFI_PASSWORD …, set -x DB_PASSWORD …
_SETTING_BEFORE = regex(
    rb"(?i)(?:(?:^|[\r\n>$#;&|+])[ \t]*set|(?:^|[\s>])(?:setx|setenv|\#[ ]?define|env|arg"
    rb"|fastcgi_param|(?:config(?:ure)?|secrets?|settings|redis-cli|RUN)[ ]set))"
    rb"(?:[ ]-[a-z]+)*[ \t]+$"
)
_COMMANDS = (b"requirepass", b"masterauth", b"PASS")
# gh secret set TOKEN --body …, TOKEN <<< …
_SETTING_FLAG = regex(rb"(?:--body|--value)(?:[ =]|(?=[\"']))|-b[ =]?(?=[^\s=])|<<<[ ]?")
# How a private key goes on behind `Private-Key` of openssl, `: (2048 bit, 2 primes)`, and behind
# the first name in a file of PuTTY, with the kind of the key
_KEY_BEHIND_NAME = regex(rb":(?: \([0-9]{2,5} bit| (?:ssh|ecdsa)-|\r?\npriv:)")
_MAY_BE_KEY = regex(rb":(?: (?:\([0-9]{0,5}(?: b?i?)?|s?s?h?|e?c?d?s?a?)|\r?\n?p?r?i?v?)?")
_ARN_BEFORE = regex(rb"[0-9]{12}:$")  # the type of a resource, in its name at AWS
_LOGIN_BEFORE = regex(rb"(?:login|user|account)[ \t]+\S+\s+$")
_NETRC_BEFORE = regex(rb"machine\s+\S+\s+login\s+\S+\s+$")
_SQL_BEFORE = regex(rb"(?i)(?:with|encrypted|login|using|identified[ ]by)[ ]$")
_KEY_NAME = regex(rb"(?i)api[_-]?key$")
_PASSWORD_NAME = regex(rb"(?i)pass(?:word|wd|phrase)$|pwd?$")
_LOGIN_CALL = regex(rb"(?i)(?:basic_?auth|credentials?)$")
# user.setPassword("…"), .password("…")
_SETTER = regex(rb"(?i)(?:\.|(?:set|with)_?)\w{0,16}(?:password|passphrase|secret|token|api_?key)$")
# PASS and the name of a test, which has no signs as passwords have them
_TEST_PASSED = regex(rb": [\w./-]{0,80}(?![^\s:,;(])")
# Before a `pass` alone that has a secret value: -passin pass:… of openssl, and FTP or POP3 in curl
_PASS_BEFORE = regex(rb"[ ]-pass(?:in|out|word)?[ ][\"']?$|[\r\n]> $")
# A word that ends the line, in lower case, for another could be a type
# What is said about a password on a line of its own, and is none.
_NO_PASSWORDS = list_words(
    """
    accepted answer args ask auto automatic bcrypt blank clear cleared content data encrypted
    external forgotten generate good hash hashed hidden ident inherit input interactive keychain
    later line login mandatory match matched matches mismatch none okay optional peer plain
    plaintext prompted protected random rejected response result scram short strong trust
    unchanged unencrypted unlocked unused used vault weak
    """
)
_WORD_ENTRY = regex(rb"[A-Za-z]{4,64}(?![^\r\n])")
_COMPOUND_NAME = regex(rb"[_.-]|[a-z][A-Z]")
_LINE_END = regex(rb"[ \t]{0,40}[\r\n]")
_MAY_BE_LINE_END = regex(rb"[ \t]{0,40}")
# The old value before the new one, in a diff or a plan: password = "old" -> "new", "old" → "new",
# from `old` to `new`
_OLD = rb"""(?:"[^"\r\n]{0,120}"|'[^'\r\n]{0,120}'|`[^`\r\n]{0,120}`|null|\([a-z ]{1,24}\))"""
_WAS = regex(_OLD + rb"""(?: (?:[-=]>|\xe2\x86\x92|to)|,? now) (?=["'`])""")
_MAY_BE_WAS = regex(_OLD + rb"[ ,=>tonw\xe2\x86\x92-]{0,5}")
# ["token":"User":private] in PHP: the class stands where JSON has the value
_MAY_BE_CLASS = regex(rb"""\["[\w.-]{1,64}":"[\w\\]{0,32}(?:":?[a-z]{0,9}\]?=?)?""")
_PLURAL = regex(rb"s(?:_?(?:b64|base64|hex))?$", re.IGNORECASE)
_LIST = regex(rb"""\[\s{0,32}(?=\\?["'])""")
# The end of a list, or a line that is no item of it
_LIST_STOP = regex(rb"[\]}]|\r?\n(?:\r?\n|[^\s\"'\]}])")


def judge_name(text: bytes, at: int, final: bool) -> Verdict:
    """Judge a name and its value: `API_KEY=…`, `"apiKey": "…"`, `--token …`, `<password>…`."""
    rest = _REST_OF_NAME.match(text, at)
    name_end = rest.end() if rest else at
    if name_end >= len(text) - 1 and not final:
        return Wait(len(text), False)
    if text[name_end - 1 : name_end] in (b".", b"-"):
        name_end -= 1
    name_start = _find_name_start(text, at)
    name = text[name_start:name_end]
    weight = weigh_name(name)
    if weight == HARMLESS and not name.startswith(_WEIGHED_IN_PLACE):
        return None
    if _is_part_of_address(text, name_start, name_end):
        return None
    special = _judge_special_name(text, at, name_start, name_end, final)
    if special:
        return special
    in_query = text[name_start - 1 : name_start] in (b"?", b"&")
    if weight == HEADER:
        return judge_header(text, name_end - len(b"authorization"), final)
    if weight != SECRET:
        weight = _weigh_in_place(text, at, name_start, name, in_query)
    return _judge_operator(Pair(text, name_start, name_end, weight, in_query), final)


# Names that promise nothing by themselves, but may do so where they stand.
_WEIGHED_IN_PLACE = (b"--password-stdin", b"key", b"Key", b"KEY", b"PuTTY-User-Key-File")
_KAGGLE_BEFORE = regex(rb"""\{\s{0,8}"username":\s?"[^"\s]{1,40}",\s{0,8}"$""")


def _weigh_in_place(text: bytes, at: int, start: int, name: bytes, in_query: bool) -> int:
    """Weigh a name that is no secret by itself, by what stands before it: `key` in an address or
    behind a user, as in kaggle.json, and `pass` as a flag or behind a prompt.
    """
    lower = name.lower()
    if lower == b"key":
        known = in_query or _KAGGLE_BEFORE.search(text, max(0, start - LOOK_BACK), start)
        return SUSPECT if known else HARMLESS
    opened = name in (b"--pass", b"-pass") or (
        lower == b"pass" and _PASS_BEFORE.search(text, max(0, at - 16), at)
    )
    return SECRET if opened else weigh_name(name)


def _judge_special_name(text: bytes, at: int, start: int, end: int, final: bool) -> Verdict:
    """Judge the keys of an account at Azure, the input of a login, and a private key without a PEM
    header.
    """
    name = text[start:end]
    if name in (b"key1", b"key2", b"--password-stdin"):
        return judge_phrase(text, at, final)
    if name == b"Private-Key" or name.startswith(b"PuTTY-User-Key-File"):
        return _judge_key_name(text, start, end, final)
    return None


def _judge_key_name(text: bytes, start: int, end: int, final: bool) -> Verdict:
    """Judge the beginning of a private key without a PEM header."""
    if _KEY_BEHIND_NAME.match(text, end):
        return KeyBegins(end + 1, end + 2, find_line_lead(text, start))
    may_begin = not final and _MAY_BE_KEY.fullmatch(text, end)
    return Wait(end + 1, False) if may_begin else None


def _is_part_of_address(text: bytes, start: int, end: int) -> bool:
    """Say whether a name is the kind of a resource in its name at AWS, or the user in an address,
    whose password the judge of addresses removes.
    """
    user = text.endswith(b"://", 0, start) and text.startswith(b":", end)
    return user or _ARN_BEFORE.search(text, max(0, start - 13), start) is not None


def _find_name_start(text: bytes, at: int) -> int:
    """Return where the name around `at` begins; `API key` is one name."""
    before = text[at - 48 : at] if at > 48 else text[:at]
    begin = at - len(before) + len(before.rstrip(_NAME_BYTES))
    if begin == at and text[at : at + 3].lower() == b"key" and before[-1:] == b" ":
        word = before[len(before[:-1].rstrip(_NAME_BYTES)) : -1]
        is_name = word.translate(None, b"_-").isalpha()
        return at - 1 - len(word) if is_name else begin
    return begin


def _judge_operator(pair: Pair, final: bool) -> Verdict:
    """Find the operator after the name, then judge the value."""
    text, end = pair.text, pair.name_end
    passed = _TEST_PASSED.match(text, end) if pair.name == b"PASS" else None
    if passed:
        return None if final or passed.end() < len(text) else Wait(end + 2, False)
    if pair.weight == HARMLESS or text[end : end + 1] not in _FOLLOWING:
        return None
    if not final and len(text) - end < LOOK_BACK:
        possible = _MAY_BE_OPERATOR.match(text, end)
        if possible and possible.end() == len(text):
            begun = _find_begun_value(pair)
            hold = min(len(text), first_sign(text, end))
            return Wait(hold if begun is None else min(hold, begun), begun is not None)
    operator = _OPERATOR.match(text, end) if _SIGN_BEHIND.search(text, end, end + 64) else None
    return _judge_assigned(pair, operator, final) if operator else _judge_unassigned(pair, final)


def _judge_unassigned(pair: Pair, final: bool) -> Verdict:
    """Judge a name without an operator behind it."""
    text, end = pair.text, pair.name_end
    if text[end : end + 1] == b"(":
        return _judge_call(pair, final)
    laid_out = _judge_layout(pair, final)
    if laid_out is not None:
        return laid_out
    argument = _NEXT_ARGUMENT.match(text, end)
    if argument and pair.is_flag():
        return judge_no_word(pair, argument.end(), final)
    field = _find_field(pair)
    if field is not None:
        return judge_value(pair, field, final, loose=False, stop=None)
    argument = _ARGUMENT.match(text, end)
    if argument:
        return _judge_argument(pair, argument.end(), final)
    fallback = _FALLBACK.match(text, end)
    if fallback:
        return _judge_fallback(pair, fallback, final)
    more = _MAY_BE_BLOCK if text.startswith(b'" {', end) else _CODE_SO_FAR
    return may_become(_judge_spaced(pair, final), more, text, end, final)


def _judge_call(pair: Pair, final: bool) -> Verdict:
    """Judge the argument of a setter, and the second argument of a call that takes a login."""
    text, end = pair.text, pair.name_end
    if _LOGIN_CALL.search(pair.name):
        return _judge_login(pair, end, final)
    if not _SETTER.search(pair.name):
        return None
    verdict = judge_no_word(pair, end + 1, final)
    if not isinstance(verdict, Span):
        return verdict
    value = text[slice(*verdict)]
    return verdict if verdict.start > end + 1 and (is_mixed(value) or value.isdigit()) else None


def _judge_argument(pair: Pair, at: int, final: bool) -> Verdict:
    """Judge the next argument of a call. In a list of texts it is seldom a value, and `/etc/passwd`
    is a file.
    """
    before = pair.text[max(0, pair.name_start - 8) : pair.name_start]
    if before.endswith(b"/") or _WORD_NEXT.match(pair.text, at):
        return None
    verdict = judge_no_word(pair, at, final)
    doubtful = pair.weight == SUSPECT or (_IN_LIST.search(before) and not pair.is_flag())
    if not (isinstance(verdict, Span) and doubtful):
        return verdict
    value = pair.text[slice(*verdict)]
    named = b"-" in value or b"." in value
    return verdict if is_made_up(value) or (is_mixed(value) and not named) else None


def _judge_fallback(pair: Pair, fallback: re.Match[bytes], final: bool) -> Verdict:
    """Judge a default. Behind `or` and `else` often stands something else."""
    verdict = judge_no_word(pair, fallback.end(), final)
    if not (fallback["word"] and isinstance(verdict, Span)):
        return verdict
    return verdict if is_made_up(pair.text[slice(*verdict)]) else None


def _judge_assigned(pair: Pair, operator: re.Match[bytes], final: bool) -> Verdict:
    """Judge the text behind an operator: a value, on the same line or on the next, or an object, a
    list or brackets with the value in them.
    """
    text, at = pair.text, operator.end()
    if operator[0] == b":" and text[pair.name_start - 2 : pair.name_start] == b"${":
        return _judge_default(pair, at, final)
    nested = _NESTED.match(text, at)
    if nested:
        return judge_value(pair, nested.end(), final, loose=False, stop=None)
    class_begins = None if final else _MAY_BE_CLASS.match(text, pair.name_start - 2)
    if class_begins and class_begins.end() == len(text):
        return Wait(at, True)
    login = _judge_login(pair, at, final)
    if login is not None:
        return login
    brackets = _BRACKETS.match(text, at)
    if brackets:
        verdict = judge_value(pair, brackets.end(), final, loose=True, stop=WIDE_STOP)
        generated = isinstance(verdict, Span) and is_made_up(text[slice(*verdict)])
        return verdict if generated or not isinstance(verdict, Span) else None
    values = _LIST.match(text, at)
    if values and _PLURAL.search(pair.name):
        return _judge_list(pair, values.end(), final)
    begun = None if final else _MAY_BE_NESTED.match(text, at)
    if begun and begun.end() == len(text) and len(text) - at < LOOK_AHEAD:
        # A brace alone may begin a value.
        return Wait(at if begun.end() == at + 1 else len(text), False)
    return _judge_bare(pair, operator, final)


def _judge_default(pair: Pair, at: int, final: bool) -> Verdict:
    """Judge the default of a shell's variable: the value in `${TOKEN:-value}`."""
    sign = pair.text[at : at + 1]
    begins = at + (sign in (b"-", b"="))
    verdict = judge_value(pair, begins, final, loose=False, stop=_DEFAULT_STOP)
    if sign not in (b"?", b"+") or not isinstance(verdict, Span):
        return verdict
    # `:?` introduces a message and `:+` an alternative, unless a value begins with the sign.
    return verdict if looks_random(pair.text[at + 1 : verdict.end]) else None


_DEFAULT_STOP = regex(rb"[}\r\n]")


def _judge_bare(pair: Pair, operator: re.Match[bytes], final: bool) -> Verdict:
    """Judge a value that nothing wraps, and the new value behind it in a plan."""
    text, at = pair.text, operator.end()
    spaced = text[at - 1 : at] in (b" ", b"\t")
    next_line = _NEXT_LINE.match(text, at)
    if next_line and (b"=" in operator[0] or operator[0][:1] in (b'"', b"'")):
        at = next_line.end()
    if _takes_no_word(pair, operator[0].strip()):
        return judge_no_word(pair, at, final)
    verdict = judge_value(pair, at, final, loose=spaced, stop=None)
    if isinstance(verdict, Span) and operator[0].startswith(b"):"):  # (hash_password): …
        value = text[slice(*verdict)]
        return verdict if is_made_up(value) or (len(value) >= 8 and is_mixed(value)) else None
    was = _WAS.match(text, at)
    if was:
        return Both(verdict, judge_value(pair, was.end(), final, loose=False, stop=None))
    if verdict is not None:
        return may_become(verdict, _MAY_BE_WAS, text, at, final)
    fallback = _FALLBACK_OF_EXPRESSION.match(text, at)
    if fallback:
        return _judge_fallback(pair, fallback, final)
    return may_become(_judge_entry(pair, at), _CODE_SO_FAR, text, at, final)


def _takes_no_word(pair: Pair, sign: bytes) -> bool:
    """Say whether a word behind the operator is no value, but a member (`token->kind`) or the kind
    of token that a parser compares with (`token == word`).
    """
    compared = sign.startswith(b"==") and pair.name.lower().endswith(b"token")
    return compared or sign in (b"->", b"::")


def _judge_login(pair: Pair, at: int, final: bool) -> Verdict:
    """Judge the password in `("user", "password")`, the value of names such as `auth`."""
    if not LOGIN_NAME.search(pair.name):
        return None
    user = _USER_BEFORE.match(pair.text, at)
    if user:
        named = pair._replace(weight=SECRET)
        return judge_value(named, user.end(), final, loose=False, stop=None)
    return may_become(None, _USER_SO_FAR, pair.text, at, final)


def _judge_entry(pair: Pair, at: int) -> Verdict:
    """Judge a word of letters that ends the line behind `db_password: ` or `apiKey: `. A password
    or a key may be such a word, unlike a token; an answer or the name of a variable is none.
    """
    word = _WORD_ENTRY.match(pair.text, at)
    name = pair.name
    is_key = _KEY_NAME.search(name) is not None
    if (
        word is None
        or pair.weight != SECRET
        or not (is_key or (_PASSWORD_NAME.search(name) and word[0].islower()))
        or not (word[0].islower() or may_be_gibberish(word[0]))
        or word[0].lower().decode() in ORDINARY_VALUES | _NO_PASSWORDS
        or weigh_name(word[0]) != HARMLESS
        or not (_COMPOUND_NAME.search(name) or pair.begins_line())
    ):
        return None
    return Span(*word.span())


def _judge_list(pair: Pair, at: int, final: bool) -> Verdict:
    """Judge a list by its first value: it is secret as a whole or not at all."""
    verdict = judge_value(pair, at, final, loose=False, stop=None)
    return Endless(*verdict, _LIST_STOP) if isinstance(verdict, Span) else verdict


def _judge_spaced(pair: Pair, final: bool) -> Verdict:
    """Judge a value behind a space alone: of a flag, in netrc, in SQL, in a list of names and
    values, or in prose, if it looks like a secret.
    """
    text = pair.text
    space = _SPACE.match(text, pair.name_end)
    name = pair.name.lower()
    named = pair.weight == SECRET or name.endswith((b"key", b"secret_id"))
    if space is None or not named:
        return None
    flag = _SETTING_FLAG.match(text, space.end())
    surely, is_flag = (False, False) if space["closed"] else _takes_spaced_value(pair)
    verb = None if is_flag or flag else _VERB.match(text, space.end())
    at = flag.end() if flag else verb.end() if verb else space.end()
    surely = flag is not None or (surely and at == space.end())
    stop = None if is_flag else _BOLD_STOP if text[at - 2 : at] == b"**" else _WORD_STOP
    before = text[max(0, pair.name_start - LOOK_BACK) : pair.name_start]
    loose = _NETRC_BEFORE.search(before) is None
    verdict = _judge_word(pair, space, at, final, surely=surely, loose=loose, stop=stop)
    was = _WAS.match(text, at) if verb else None
    if was:
        return Both(verdict, judge_no_word(pair, was.end(), final))
    return may_become(verdict, _MAY_BE_WAS, text, at, final) if verb else verdict


def _judge_word(
    pair: Pair,
    space: re.Match[bytes],
    at: int,
    final: bool,
    *,
    surely: bool,
    loose: bool,
    stop: re.Pattern[bytes] | None,
) -> Verdict:
    """Judge the word at a place behind a name and a space. If `surely`, any word is its value; if
    not, it has to look like a secret.
    """
    verdict = judge_value(pair, at, final, loose=loose, stop=stop)
    if not isinstance(verdict, Span):
        return verdict if surely or isinstance(verdict, Wait) else None
    value = pair.text[slice(*verdict)]
    if surely:
        return None if loose and verdict.start == at and is_option(value) else verdict
    if FINGERPRINT.fullmatch(value) and pair.name.endswith((b"key", b"Key")):
        return None
    if (len(value) >= 14 and b"/" not in value and looks_random(value)) or (
        pair.weight == SECRET and looks_like_password(value)
    ):
        return verdict
    told = at > space.end()
    if verdict.start > at:
        return verdict if _takes_quoted_value(pair, value, told) else None
    begins = pair.begins_line()
    if (told or begins) and _PASSWORD_NAME.search(pair.name) and is_strong(value):
        return verdict
    wide = (len(space["blank"]) > 1 or space["blank"] == b"\t") and not told
    if not (pair.weight == SECRET and wide and begins and is_mixed(value)):
        return None
    return require_end(pair.text, verdict, _LINE_END, _MAY_BE_LINE_END, final)


def _takes_spaced_value(pair: Pair) -> tuple[bool, bool]:
    """Say whether any word behind the name is its value, and whether the name is a flag."""
    before = pair.text[max(0, pair.name_start - LOOK_BACK) : pair.name_start]
    is_flag = pair.is_flag()
    setting = _LOGIN_BEFORE.search(before) or _SETTING_BEFORE.search(before)
    return is_flag or setting is not None or pair.name in _COMMANDS, is_flag


def _takes_quoted_value(pair: Pair, value: bytes, told: bool) -> bool:
    """Say whether a quoted text behind the name is its value, as in SQL or in a sentence, rather
    than the name of something.
    """
    before = pair.text[max(0, pair.name_start - 16) : pair.name_start]
    named = _PASSWORD_NAME.search(pair.name) or (
        pair.weight == SECRET and (told or is_strong(value))
    )
    if not named or b" " in value:
        return False
    return _SQL_BEFORE.search(before) is not None or (len(value) >= 6 and is_mixed(value))


def _find_begun_value(pair: Pair) -> int | None:
    """Return where the value that the text ends in begins; None if none has surely begun."""
    text, end = pair.text, pair.name_end
    spellings = [_OPERATOR, _ARGUMENT, _ATTRIBUTE]
    if pair.weight == SECRET and _takes_spaced_value(pair)[0]:
        spellings.append(_SPACE)
    for spelling in spellings:
        found = spelling.match(text, end)
        if found and found.end() < len(text):
            return found.end()
    return None


# --- layouts: elements, forms, tables, blocks -----------------------------------------------------

# name: TOKEN, value: …, with up to two other fields between them
_FIELD = (
    rb"""(?:\\?"(?!(?:parameter)?value\\?")\w{1,24}\\?"[ ]?:[ ]?"""
    rb"""(?:\\?"[^"\\\r\n]{0,24}\\?"|true|false|null)[ ]?,\s{0,16})"""
)
_PAIR = regex(
    rb"""
    \\?["']?[ \t]*(?:,\s{0,24}|\s{1,24})(?:[-+~][ ]{1,3})? FIELD{0,2}
    \\?["']?(?:parametervalue=|value(?:\\?["']?[ ]?:|[ ]{1,12}=)[ \t]{0,4})
    """.replace(b"FIELD", _FIELD),
    re.VERBOSE | re.IGNORECASE,
)
# 1) "requirepass", then 2) "…"
_ITEM = regex(rb"""["']\r?\n[ ]{0,8}[0-9]{1,3}\)[ ](?=["'])""")
# "db_password": {"sensitive": true, "value": …
_NESTED = regex(
    rb"""\{\s{0,24}FIELD{0,3}\\?"(?:value|default|defaultvalue)\\?"[ ]?:[ ]?(?=\\?")""".replace(
        b"FIELD", _FIELD
    ),
    re.VERBOSE | re.IGNORECASE,
)
# variable "db_password" { default = "…"
_BLOCK = regex(
    rb"""
    "[ ]\{\s{1,24}
    (?:\w{1,24}[ ]{1,16}=[ ](?:"[^"\r\n]{0,80}"|[\w.()]{1,24})\s{1,24}){0,3}
    (?:value|default)[ ]{1,16}=[ ](?=")
    """,
    re.VERBOSE,
)
_MAY_BE_BLOCK = regex(rb"""" \{[^{}]{0,200}""")
_MAY_BE_NESTED = regex(rb"""\{(?:[\s"\\][\s\w"\\:,]{0,240})?""")
# <input name="csrf_token" type="hidden" value="…">, and a form sent in parts
_NAME_ATTRIBUTE = regex(rb"""(?:name|id|property)=["']$""", re.IGNORECASE)
_KEY_ATTRIBUTE = regex(rb"""(?:name|id|property|key)=["']$""", re.IGNORECASE)
_ATTRIBUTE = regex(
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
_CELL = regex(rb"[`*]{0,2}[ ]{1,40}(?:\||\xe2\x94\x82)[ ]{1,40}[`*]{0,2}(?=[^\s|\xe2`*])")
_CELL_BEFORE = regex(rb"(?:(?:\||\xe2\x94\x82)[ ]{1,40}|(?:^|[\r\n])[ ]{0,40})[`*]{0,2}$")
_CELL_END = regex(rb"[`*]{0,2}(?:&\#?\w{2,4};)?[ ]{0,40}(?:\||\xe2\x94\x82|[\r\n]|<)")
_MAY_BE_CELL_END = regex(rb"[`*]{0,2}(?:&\#?\w{0,4};?)?[ ]{0,40}(?:\xe2\x94?)?")
_ELEMENT_BEGINS = regex(rb"(?:^|[\s>\"'`])<(?:[\w.-]{1,16}:)?$")
# <token>value, <wsse:Password Type="…">value
_ELEMENT = regex(
    rb"""(?:[ ][\w:.-]{1,32}="[^"<>\r\n]{0,120}"){0,3}"""
    rb"""> \s{0,40} (?:<[Vv]alue>)? (?P<raw><!\[CDATA\[)?""",
    re.VERBOSE,
)
# <key>token</key><string>value
_NEXT_ELEMENT = regex(rb"</(?:key|name)>\s{0,32}<(?:string|value)>", re.IGNORECASE)
# <td>token</td><td>value
_NEXT_CELL = regex(
    rb"[ ]?</t[dh]>\s{0,32}<td[^<>]{0,32}>\s{0,8}(?:<(?:pre|code)>)?(?:&\#(?:x27|39|34);|&quot;)?"
)
_HTML_STOP = regex(rb"[\s<]|&(?:#(?:x27|39|34)|quot);")
_CLOSING = regex(rb"\s{0,40}</")
_MAY_BE_CLOSING = regex(rb"\s{0,40}<?")
_ELEMENT_STOP = regex(rb"[\s<]")
_RAW_STOP = regex(rb"\]\]>|[\r\n]")
_CELL_STOP = regex(rb"[\s|]|[`*]{1,3}[\s|]")


def _judge_layout(pair: Pair, final: bool) -> Verdict:
    """Judge a value next to its name in an element, in a form or in a table."""
    text, name, end = pair.text, pair.name_start, pair.name_end
    element = _ELEMENT.match(text, end)
    if element and _ELEMENT_BEGINS.search(text, max(0, name - 20), name):
        stop = _RAW_STOP if element["raw"] else _ELEMENT_STOP
        verdict = judge_value(pair, element.end(), final, loose=False, stop=stop)
        if isinstance(verdict, Span) and element.end() > end + 1 and not element["raw"]:
            return _require_closing(text, verdict, final)
        return verdict
    table_cell = _NEXT_CELL.match(text, end)
    if table_cell:
        return _judge_cell(pair, table_cell.end(), _HTML_STOP, final)
    next_element = _NEXT_ELEMENT.match(text, end)
    if next_element:
        return judge_value(pair, next_element.end(), final, loose=False, stop=_ELEMENT_STOP)
    attribute = _ATTRIBUTE.match(text, end)
    if attribute and _NAME_ATTRIBUTE.search(text, max(0, name - 12), name):
        return judge_value(pair, attribute.end(), final, loose=False, stop=None)
    element = _ELEMENT.match(text, end + 1)
    if element and _KEY_ATTRIBUTE.search(text, max(0, name - 12), name):
        verdict = judge_value(pair, element.end(), final, loose=False, stop=_ELEMENT_STOP)
        return _require_closing(text, verdict, final) if isinstance(verdict, Span) else verdict
    cell = _CELL.match(text, end)
    if cell and _CELL_BEFORE.search(text, max(0, name - 48), name):
        return _judge_cell(pair, cell.end(), _CELL_STOP, final)
    return None


def _find_field(pair: Pair) -> int | None:
    """Return where the value begins if it stands in a field of its own; None if it does not."""
    for spelling in (_PAIR, _ITEM, _BLOCK):
        field = spelling.match(pair.text, pair.name_end)
        if field:
            return field.end()
    return None


def _judge_cell(pair: Pair, at: int, stop: re.Pattern[bytes], final: bool) -> Verdict:
    """Judge the cell behind a name. It may as well have a type or a description."""
    verdict = judge_value(pair, at, final, loose=True, stop=stop)
    if not isinstance(verdict, Span) or looks_secret(pair.text[slice(*verdict)]):
        return verdict
    value = pair.text[slice(*verdict)]
    in_code = pair.text[at - 1 : at] == b"`"
    if pair.weight != SECRET or not (
        is_made_up(value) or value.isdigit() or (in_code and is_strong(value))
    ):
        return None
    return require_end(pair.text, verdict, _CELL_END, _MAY_BE_CELL_END, final)


def _require_closing(text: bytes, value: Span, final: bool) -> Verdict:
    """Accept the value of an element only if the element is closed behind it: in a line of help,
    `<token>` stands for a token, and any text may follow.
    """
    if _CLOSING.match(text, value.end):
        return value
    rest = text[value.end : value.end + 48]
    may_close = not final and len(rest) < 48 and _MAY_BE_CLOSING.fullmatch(rest)
    return Wait(value.start, True) if may_close else None
