"""Secrets that a fixed syntax gives away, without a name: flags of commands, phrases, HTTP headers,
cookies, and addresses.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re
from typing import NamedTuple

from redaction.evidence import (
    HARMLESS_VALUE,
    LINE_STOP,
    LOOK_AHEAD,
    LOOK_BACK,
    Endless,
    Span,
    Verdict,
    Wait,
    decode_base64,
    first_sign,
    is_gibberish,
    is_ordinary,
    is_path_or_code,
    list_words,
    looks_random,
    quote_stop,
    read_quoted,
    read_value,
)
from redaction.regex import regex
from redaction.values import is_mixed

# --- the judge of flags ---------------------------------------------------------------------------


class FlagCommand(NamedTuple):
    """Commands to which some flags mean a password.

    `before` matches such a command up to the flag. A flag ends with what separates it from its
    value, if anything does. `separator` matches up to where the password begins in the value.
    """

    before: re.Pattern[bytes]
    flags: frozenset[bytes]
    separator: re.Pattern[bytes]


def _accept_flags(commands: bytes, flags: tuple[bytes, ...], separator: bytes = b"") -> FlagCommand:
    before = rb"(?:^|[^\w.-])(?:" + commands + rb")(?:[\"']?,?[ ][^\r\n|;&]*)?$"
    return FlagCommand(regex(before), frozenset(flags), regex(separator))


# Each row has its row in tests/redaction/test_syntax.py.
FLAG_COMMANDS = (
    _accept_flags(rb"curl|wget", (b"-u", b"-u ", b"--user ", b"--user="), rb":|$"),
    _accept_flags(rb"curl", (b"-U", b"-U ", b"--proxy-user ", b"--proxy-user="), rb":|$"),
    _accept_flags(rb"curl", (b"-b ",), rb"=|$"),
    _accept_flags(rb"smb[a-z]+|rpcclient|net", (b"-U ",), rb"%|$"),
    _accept_flags(rb"https?|xhs?", (b"-a ",), rb":|$"),
    _accept_flags(rb"mysql\w*|mariadb\w*|sshpass|7z[a-z]?", (b"-p",)),
    _accept_flags(
        rb"sshpass|mongo\w*|evil-winrm|nxc|netexec|cqlsh|cypher-shell|twine|mycli|rdesktop"
        rb"|unlock-keychain|[a-z]+(?:[\"']?,?[ ][^\r\n|;&]*)?[ \"']login",
        (b"-p ",),
    ),
    _accept_flags(rb"sqlcmd|bcp|tsql|zip|unzip", (b"-P ",)),
    _accept_flags(rb"redis-[a-z]+", (b"-a ",)),
    _accept_flags(rb"ldap[a-z]+", (b"-w ",)),
)
_FLAG = regex(rb"(--(?:proxy-)?user|-[A-Za-z])([ =]|(?:[\"'],[ ]?)(?=[\"']))?(\\?[\"'])?")


def judge_flag(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `curl -u user:…`, `mysql -p…`, `docker login -p …`."""
    flag = _FLAG.match(text, at)
    if flag is None:
        return None
    before = text[max(0, at - LOOK_BACK) : at]
    sign = flag[2] or b""
    spelling = flag[1] + (b" " if b"," in sign else sign)
    for row in FLAG_COMMANDS:
        if spelling in row.flags and row.before.search(before):
            return _judge_flag_value(text, flag, row.separator, final)
    return None


def _judge_flag_value(
    text: bytes, flag: re.Match[bytes], separator: re.Pattern[bytes], final: bool
) -> Verdict:
    """Judge a password, or what follows the separator behind a user's name."""
    value = flag.end()
    stop = quote_stop(flag[3]) if flag[3] else LINE_STOP
    ending = stop.search(text, value, value + LOOK_AHEAD)
    if ending is None and not final and len(text) < value + LOOK_AHEAD:
        return Wait(value, True)
    end = ending.start() if ending else min(len(text), value + LOOK_AHEAD)
    user = separator.search(text[value:end])
    value += user.end() if user else 0
    if ending is None and end == flag.end() + LOOK_AHEAD:
        return Endless(value, end, stop)
    ordinary = is_ordinary(text[value:end], quoted=flag[3] is not None, loose=False, number=True)
    return None if ordinary else Span(value, end)


# --- the judge of phrases -------------------------------------------------------------------------


class Phrase(NamedTuple):
    """A secret that a phrase introduces, not a name.

    `before` and `here` match what stands before and behind the place where the phrase was found.
    `stop` ends a secret that no quote opens. `value` is what the secret has to look like.
    """

    before: re.Pattern[bytes]
    here: re.Pattern[bytes]
    stop: re.Pattern[bytes]
    value: re.Pattern[bytes] = regex(rb".+", re.DOTALL)


# Each row has its row in tests/redaction/test_syntax.py.
PHRASES = (
    Phrase(  # SQL
        regex(
            rb"(?i)\b(?:user|to)\s(?:if not exists )?\S{1,48}\s{1,16}identified "
            rb"(?:with \S{1,32} )?$"
        ),
        regex(rb"(?i)by (?:password |values )?"),
        regex(rb"[\s;,)]"),
    ),
    Phrase(  # SMTP, as curl shows it
        regex(rb"> $"),
        regex(rb"(?i)auth (?:plain|login|xoauth2) "),
        regex(rb"[\r\n]"),
        regex(rb"(?=.*[A-Z0-9])[A-Za-z0-9+/=]{8,}"),
    ),
    Phrase(  # the prompt of Redis
        regex(rb"(?:redis|:[0-9]{1,5}(?:\[[0-9]+\])?(?:\(TX\))?)> $"),
        regex(rb"(?i)auth (?:[\w-]{1,24} (?=\S))?"),
        regex(rb"[\r\n\"'`]"),
    ),
    Phrase(  # the seed words of a wallet
        regex(rb"(?i)(?:mnemoni|(?:seed|recovery|backup|secret)[ _-]?)$"),
        regex(rb"(?i)(?:c|phrase)\\?[\"']?[ ]?[:=]{1,2}[ ]?"),
        regex(rb"[\r\n\"'`,]"),
        regex(rb"(?:[a-z]{3,8} ){11,23}[a-z]{3,8}"),
    ),
    Phrase(  # PowerShell
        regex(rb"(?i)convertto-se$"),
        regex(rb"(?i)curestring (?:-string )?(?=[\"'])"),
        regex(rb"[\r\n]"),
    ),
    Phrase(  # a workflow command of GitHub Actions
        regex(rb"::add-mas$"), regex(rb"k::"), regex(rb"[\r\n\"'`]")
    ),
    Phrase(  # a logging command of Azure Pipelines
        regex(rb"(?i)##vso\[task\.set(?:variable [^\]\r\n]{1,72};is)?se$"),
        regex(rb"(?i)cret(?:=true[^\]\r\n]{0,40})?\]"),
        regex(rb"[\r\n\"'`]"),
    ),
    Phrase(  # the list of keys of an account at Azure, in JSON, in a table or in columns
        regex(rb"(?:^|[\s\"|])$"),
        regex(
            rb"(?i)key[12]\"?[\s,|]{1,40}(?:\"permissions\": \")?full\"?[\s,|]{1,40}"
            rb"(?:\"value\": \")?(?=[A-Za-z0-9+/])"
        ),
        regex(rb"[^A-Za-z0-9+/=]"),
        regex(rb"[A-Za-z0-9+/=]{40,}"),
    ),
    Phrase(  # docker login --password-stdin <<<
        regex(rb" --$"),
        regex(rb"password-stdin[ ][^\r\n|;&]{0,64}<<< ?"),
        regex(rb"[\s;&|]"),
    ),
    Phrase(  # Braintree
        regex(rb"access_to$"),
        regex(rb"ken\$(?:production|sandbox)\$"),
        regex(rb"[^a-z0-9$]"),
        regex(rb"[a-z0-9]{16}\$[a-f0-9]{32}"),
    ),
    Phrase(  # a password of Neon
        regex(rb"(?:^|[^A-Za-z0-9])n$"),
        regex(rb"pg_"),
        regex(rb"[^A-Za-z0-9]"),
        regex(rb"(?=.*[0-9A-Z])[A-Za-z0-9]{10,}"),
    ),
    Phrase(  # a session of Salesforce, behind the number of the organization
        regex(rb"(?:^|[^A-Za-z0-9])00[A-Za-z0-9]{13}(?:[A-Za-z0-9]{3})?$"),
        regex(rb"!"),
        regex(rb"[^A-Za-z0-9_.]"),
        regex(rb"[A-Za-z0-9_.]{60,}"),
    ),
)
_PHRASE_QUOTE = regex(rb"\\?[\"']")


def judge_phrase(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `IDENTIFIED BY …`, `> AUTH …`, `::add-mask::…` and the other phrases."""
    for phrase in PHRASES:
        here = phrase.here.match(text, at)
        if here and phrase.before.search(text, max(0, at - LOOK_BACK), at):
            break
    else:
        return None
    quote = _PHRASE_QUOTE.match(text, here.end())
    value = quote.end() if quote else here.end()
    body = (
        read_quoted(text, value, quote[0], final)
        if quote
        else read_value(text, value, phrase.stop, final)
    )
    if not isinstance(body, bytes):
        return body
    secret = phrase.value.fullmatch(body) and not is_ordinary(
        body, quoted=quote is not None, loose=False, number=True
    )
    return Span(value, value + len(body)) if secret else None


# --- the judges of headers ------------------------------------------------------------------------

_HEADER = regex(
    rb"""(?i)(?:proxy-)?authorization\\?["']?\]?[ ]?"""
    rb"""(?::|={1,3}|,(?=[ ]?\\?["']))[ \t]{0,40}(?:[fbr]?\\?["'`])?"""
    rb"""(?P<scheme>(?:bearer|basic|token|apikey|api-key|key|digest|negotiate|ntlm|hawk|sharedkey|sharedkeylite|bot|jwt|oauth|splunk"""
    rb"""|genie?key|ssws|discogs|mac|signature|pat|aws4-hmac-sha256|goog4-rsa-sha256)[ ]+)?"""
)
# A variable in an object: { Authorization: authHeader }
_VARIABLE = regex(rb"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*[ ]*[,;})]")
_HEADER_STOP = regex(rb"[\"'`\r\n<>\\]")
_CREDENTIAL_STOP = regex(rb"[\s\"'`,;<>)\]}\\]")
_SCHEME = regex(rb"(?i)(?:bearer|basic)(?:%20|\+|[ ]+)")
# What a server asks for: WWW-Authenticate: Bearer error="…"
_PARAMETER = regex(rb"[a-z_]{4,24}=\\?[\"']")
_BEARER_WORDS = list_words(
    """
    token tokens auth authentication authorization scheme format realm header headers is of and or
    error in to with for access api credentials
    """
)
_COOKIE = regex(
    rb"(?i)(?P<set>set-)?(?:cookie\\?[\"']?(?:[ ]?:|,\s{0,24}\\?[\"']value\\?[\"'][ ]?:)"
    rb"|(?P<flag>(?<= --)cookie[ =]))[ ]{0,4}"
    rb"(?P<quote>\\?[\"'`])?[^=\s;\"']{1,64}="
)
_COOKIE_STOP = regex(rb"[\"'`\r\n\\]")
_SET_COOKIE_STOP = regex(rb"[;\"'`\s\\]")


def judge_header(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `Authorization: <scheme> <credentials>`. All that follows the scheme is secret."""
    header = _HEADER.match(text, at)
    if header is None:
        short = len(text) - at < 40 and b"\n" not in text[at:] and not final
        return Wait(min(len(text), first_sign(text, at)), False) if short else None
    value = header.end()
    body = read_value(text, value, _HEADER_STOP, final)
    if isinstance(body, Wait):  # the text so far may be the scheme
        hold = min(value, first_sign(text, at)) if len(text) < value + 24 else value
        return Wait(hold, value < len(text))
    if isinstance(body, Endless):
        return body
    variable = _VARIABLE.match(text, header.start("scheme") if header["scheme"] else value)
    if variable and not any(map(is_gibberish, re.findall(rb"[A-Za-z0-9]+", variable[0]))):
        return None
    body = body.rstrip(b" \t,;)")
    prose = body.replace(b" ", b"").isalpha() and not any(map(is_gibberish, body.split()))
    # A blank at the beginning means that the quote closed a text: the "Authorization:" header
    if prose or not body.strip(b" }") or body[:1] == b" " or is_path_or_code(body, quoted=False):
        return None
    return Span(value, value + len(body))


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
    body = read_value(text, value, _CREDENTIAL_STOP, final)
    if not isinstance(body, bytes):
        return body
    if _PARAMETER.match(text, value):
        return None
    basic = text[at : at + 2].lower() == b"ba"
    secret = (
        b":" in decode_base64(body)
        if basic
        else _is_bearer_credential(body, text[at : at + 1].isupper())
    )
    return Span(value, value + len(body)) if secret else None


def _is_bearer_credential(body: bytes, capital: bool) -> bool:
    word = body.rstrip(b".:,")
    if (
        not word.strip(b"=")
        or word.lower().decode("latin-1") in _BEARER_WORDS
        or word.lower().startswith(b"realm=")
    ):
        return False
    if is_path_or_code(word, quoted=False) and not looks_random(word):
        return False
    if not capital:
        mixed = len(word) >= 8 and is_mixed(word) and b"=" not in word.rstrip(b"=")
        return mixed or looks_random(word)
    return not word.isalpha() or len(word) < 5 or is_gibberish(word)


def judge_cookie(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `Cookie: …`, secret from the first value on; `Set-Cookie: …`, of which the attributes
    are no secret; and `curl --cookie …`.
    """
    if text[max(0, at - 4) : at].lower() == b"set-":
        at -= 4
    header = _COOKIE.match(text, at)
    if header is None:
        short = len(text) - at < 90 and not re.search(rb"[\r\n=;]", text[at:]) and not final
        return Wait(len(text), False) if short else None
    value = header.end()
    bare = header["set"] or (header["flag"] and not header["quote"])
    stop = _SET_COOKIE_STOP if bare else _COOKIE_STOP
    body = read_value(text, value, stop, final)
    if not isinstance(body, bytes):
        return body
    return (
        None
        if len(body) < 8 or is_path_or_code(body, quoted=False)
        else Span(value, value + len(body))
    )


# --- the judge of addresses -----------------------------------------------------------------------

# Addresses whose path is the credential: anybody who knows the URL may post.
WEBHOOK_OF_ANY_HOST = b".webhook.office.com/webhookb2/"
WEBHOOKS = (
    b"hooks.slack.com/services/",
    b"hooks.slack.com/workflows/",
    b"hooks.slack.com/triggers/",
    b"discord.com/api/webhooks/",
    b"discordapp.com/api/webhooks/",
    b"canary.discord.com/api/webhooks/",
    b"ptb.discord.com/api/webhooks/",
    b"outlook.office.com/webhook/",
    b"outlook.office365.com/webhook/",
    WEBHOOK_OF_ANY_HOST,
    b"hooks.zapier.com/hooks/catch/",
    b"api.telegram.org/bot",
    b"api.telegram.org/file/bot",
    b"open.feishu.cn/open-apis/bot/v2/hook/",
    b"open.larksuite.com/open-apis/bot/v2/hook/",
    b"hook.eu1.make.com/",
    b"hook.us1.make.com/",
)
_AUTHORITY_STOP = regex(rb"[\s/\"'<>`\\]")
_PASSWORD_STOP = regex(rb"[\s@\"'<>`\\]")
_PATH_STOP = regex(rb"[\s\"'<>`\\)|]")
_PORT = regex(rb"[0-9]{0,5}[\])},.;]*")
_HOST = regex(rb"(?:\[[0-9A-Fa-f:.%\w]*\]?)?[^:]*")  # up to a port; in brackets, IPv6
_WEBHOOK_REACH = 48
# What most addresses are, behind `://` in lowered text: a host without a password, and no webhook.
# What follows must be so long that no judge waits for more of it.
PLAIN_ADDRESS = rb"(?!%b)[a-z0-9._-]{1,100}(?::[0-9]{1,5})?[\s/\"'<>`\\](?s:.{%d})" % (
    b"|".join(map(re.escape, WEBHOOKS)),
    _WEBHOOK_REACH,
)


def judge_address(text: bytes, at: int, final: bool) -> Verdict:
    """Judge `://` and what follows: a password before `@`, or a path that is the credential."""
    start = at + 3
    ending = _AUTHORITY_STOP.search(text, start, start + LOOK_AHEAD)
    whole = len(text) >= start + LOOK_AHEAD or final
    if ending is None and not whole:
        colon = _find_colon(text, start, len(text))
        return Wait(start, colon >= 0 and not _PORT.fullmatch(text, colon + 1))
    end = ending.start() if ending else min(len(text), start + LOOK_AHEAD)
    userinfo, sign, _ = text[start:end].rpartition(b"@")
    if sign:
        return _judge_userinfo(userinfo, start)
    colon = _find_colon(text, start, end)
    if colon >= 0 and not _PORT.fullmatch(text, colon + 1, end):
        if ending is None:
            return Endless(colon + 1, end, _PASSWORD_STOP)
        if ending[0] == b"/":
            return _judge_raw_password(text, colon + 1, end, final)
    return _judge_webhook(text, start, final)


def _find_colon(text: bytes, start: int, end: int) -> int:
    """Return where a port or a password may begin in an address; -1 for nowhere."""
    host = _HOST.match(text, start, end)
    return host.end() if host and host.end() < end else -1


def _judge_raw_password(text: bytes, start: int, slash: int, final: bool) -> Verdict:
    """Judge a password with an unencoded slash: what stands before it is no port."""
    ending = _PASSWORD_STOP.search(text, slash, start + LOOK_AHEAD)
    if ending is None:
        return Wait(start, True) if not final and len(text) < start + LOOK_AHEAD else None
    password = text[start : ending.start()]
    ordinary = ending[0] != b"@" or HARMLESS_VALUE.fullmatch(password)
    return None if ordinary else Span(start, ending.start())


def _judge_userinfo(userinfo: bytes, start: int) -> Verdict:
    user, colon, password = userinfo.partition(b":")
    if userinfo[:1] == b"[":  # an optional part, in a description of addresses
        return None
    if colon:
        ordinary = (
            not password.strip(b"x")
            or (  # Go masks with them
                HARMLESS_VALUE.fullmatch(password) and not password[:1].isalnum()
            )
        )
        both = user and not ordinary and _is_hex_word(user) and _is_hex_word(password)
        return (
            None
            if ordinary
            else Span(start if both else start + len(user) + 1, start + len(userinfo))
        )
    return Span(start, start + len(user)) if len(user) >= 16 and looks_random(user) else None


def _is_hex_word(word: bytes) -> bool:
    """Say whether a user name looks generated: package servers hand out such pairs, and both parts
    are secret.
    """
    return len(word) >= 8 and not word.strip(b"0123456789abcdef")


def _judge_webhook(text: bytes, start: int, final: bool) -> Verdict:
    for literal in WEBHOOKS if _has_webhook(text, start) else ():
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


def _has_webhook(text: bytes, start: int) -> bool:
    """Dismiss, in two calls into C, what most addresses are."""
    reach = start + _WEBHOOK_REACH + len(WEBHOOK_OF_ANY_HOST)
    return text.startswith(WEBHOOKS, start) or text.find(WEBHOOK_OF_ANY_HOST, start, reach) >= 0


def _may_be_webhook(reach: bytes) -> bool:
    return any(literal.startswith(reach) or literal[:1] == b"." for literal in WEBHOOKS)
