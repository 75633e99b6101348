"""What all judges share: the verdicts, and the evidence of names and of values.

A judge gets the visible text, a place in it and whether the stream ends with it. Its verdict says
whether a secret begins at that place. It reads at most LOOK_BACK bytes before the place and
LOOK_AHEAD after it, keeps no state, and does not know where a read ended. The judges are in the
other modules; `redact.py` explains how they work together.
"""

# ruff: noqa: FBT001, FBT003 - what every judge works with has the signature of a judge
from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, Union

from redaction.regex import regex

# A judge decides within so many bytes. With fewer, real values would be cut in two; with more, more
# text would be held back.
LOOK_AHEAD = 240
# A judge looks back no further: enough for a long name and what introduces it.
LOOK_BACK = 96


class Span(NamedTuple):
    """Verdict: the visible bytes from `start` to `end` are secret."""

    start: int
    end: int


class Endless(NamedTuple):
    """Verdict: secret from `start` to the first match of `stop` at or after `seen`, however far."""

    start: int
    seen: int
    stop: re.Pattern[bytes]


class Wait(NamedTuple):
    """Verdict: the text ends too early to decide. Everything from `hold` on is held back; if
    `firm`, also when the stream is idle.
    """

    hold: int
    firm: bool


class Both(NamedTuple):
    """Verdict: two verdicts on one name, such as on its old and on its new value."""

    first: Verdict
    second: Verdict


class KeyBegins(NamedTuple):
    """Verdict: the header of a private key from `start` to `end`, and the key behind it. `lead` is
    the text before the header on its line.
    """

    start: int
    end: int
    lead: bytes


Verdict = Union[Span, Endless, Wait, "Both", KeyBegins, None]
# (visible text, place, is this the end of the stream) -> verdict
Judge = Callable[[bytes, int, bool], Verdict]


def find_all(text: bytes, needle: bytes, start: int) -> Iterator[int]:
    """Yield every place of a literal from `start` on, overlapping ones too."""
    at = text.find(needle, start)
    while at >= 0:
        yield at
        at = text.find(needle, at + 1)


def read_value(
    text: bytes, at: int, stop: re.Pattern[bytes], final: bool
) -> bytes | Endless | Wait:
    """Return the value between a place and the next `stop`.

    If no stop is in reach, return a verdict: Wait if the text ends there, for what follows may make
    the value harmless; Endless for a value that is longer than a judge reads, as none that is
    harmless is.
    """
    ending = stop.search(text, at, at + LOOK_AHEAD)
    if ending:
        return text[at : ending.start()]
    if len(text) >= at + LOOK_AHEAD:
        return Endless(at, at + LOOK_AHEAD, stop)
    if not final:
        return Wait(at, True)
    ending = stop.search(text[at:] + b"\n")  # the end of the stream is the end of a line
    return text[at : at + ending.start()] if ending else text[at:]


# What closes a quote and opens it again: a quote inside, as SQL, YAML, CSV and shells write it
_JOINT = regex(rb"""(['"])\1|'(?:\\''|"'"')""")
_MAY_BE_JOINT = regex(rb"""'(?:\\'?|"(?:'"?)?)?|\"""")


def read_quoted(text: bytes, at: int, quote: bytes, final: bool) -> bytes | Endless | Wait:
    """Return the value behind an opening quote, with the quotes inside it; see `read_value`."""
    stop, begin = quote_stop(quote), at
    while True:
        value = read_value(text, at, stop, final)
        if not isinstance(value, bytes):
            return value if begin == at else Wait(begin, True) if isinstance(value, Wait) else value
        end = at + len(value)
        if not final and end - begin < LOOK_AHEAD and _MAY_BE_JOINT.fullmatch(text, end):
            return Wait(begin, True)
        joint = _JOINT.match(text, end) if end > begin else None
        if joint is None or joint.end() - begin >= LOOK_AHEAD:
            return text[begin:end]
        at = joint.end()


def find_line_lead(text: bytes, at: int) -> bytes:
    """Return the text before a place on its line; nothing if a judge does not see the whole."""
    lead = re.split(rb"[\r\n]", text[max(0, at - LOOK_BACK) : at])[-1]
    return lead if len(lead) < LOOK_BACK else b""


def list_words(text: str) -> frozenset[str]:
    """Return the words of a text: they read better than a list of quoted ones."""
    return frozenset(text.split())


# --- what a name promises -------------------------------------------------------------------------

# A name that ends in one of these says that its value is a secret.
_SECRET_ENDINGS = tuple(
    list_words(
        """
        token secret password passwd passphrase passcode pwd apikey accesskey secretkey privatekey
        authkey licensekey accountkey sharedkey masterkey signingkey encryptionkey clientsecret
        userpass dbpass requirepass masterauth storepass keypass passwort psk
        """
    )
)

# Names of a secret that do not end like one.
_SECRET_NAMES = frozenset(
    (
        *(b"rediscli_auth", b"sshpass", b"bindpw", b"rootpw", b"olcrootpw", b"sonar.login"),
        # of WordPress
        *(b"auth_salt", b"secure_auth_salt", b"logged_in_salt", b"nonce_salt"),
        *(b"logged_in_key", b"nonce_key"),
    )
)

# A name that ends in one of these has no secret value: of sudo, of a Java package, of Kubernetes,
# of a library for .NET.
_NO_SECRETS = (b"nopasswd", b"jsonwebtoken", b"existingsecret", b"publickeytoken")

# A name that ends in one of these may have a secret value: only one that looks random counts.
_SUSPECT_ENDINGS = tuple(
    list_words(
        """
        tokens secrets passwords passwds apikeys auth credential credentials creds cred signature
        sig session sessionid sessid sess jwt bearer cookie dsn pat pass
        """
    )
)

# `<word> key`: words that make the key a secret, and words that make it an ordinary one. With any
# other word it is suspect.
_KEY_SECRET_WORDS = list_words(
    """
    api access secret private encryption encrypt decryption decrypt signing sign master auth
    authentication account shared license licence hmac webhook jwt aes rsa ssl tls wpa
    psk subscription admin root deploy stream consumer personal functions function host sas
    symmetric crypto cipher validation machine rails unseal recovery
    """
)

_KEY_ORDINARY_WORDS = list_words(
    """
    public primary foreign sort partition cache row index map dict lookup object group column
    unique composite natural surrogate arrow hot shortcut translation i18n l10n message route
    routing hash range registry config property attribute env environment variable field form
    json yaml data item list record entry table db database query param parameter header state
    store tree node path file name event metric label tag trace span log search sorting order
    filter s3 blob bucket redis dedup dedupe dedupli idempotency partial prefix suffix left
    right up down enter escape tab space delete home end page any press the a this that each
    every next previous last first restore websocket host_ rate limit user_id mac_ product feature
    flag setting settings option dispatch react component element menu from input
    """
)

# `<word>_token` that is no credential: of pages, counters, language models and parsers.
TOKEN_ORDINARY_WORDS = list_words(
    """
    next page pagination paging continuation sync cursor max min num total prompt completion
    input output count cancellation cancel pad eos bos unk mask sep cls special stop start end
    begin change cached reasoning first last previous prev per used remaining thinking text
    image audio budget estimated peek current_
    """
)

# Words at the end of a name that change nothing: `token_value`, `password2`, `SECRET_PROD`.
NEUTRAL_ENDINGS = list_words(
    """
    value string val b b64 base64 hex raw plain plaintext prod production dev staging live old new
    current previous main backup base data confirm confirmation again
    """
)

_WORDS = regex(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
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

    HARMLESS; SUSPECT, if only a value that looks random is secret; SECRET; or HEADER, if the name
    is that of an HTTP header with credentials.
    """
    if name.lower().endswith(b"authorization"):
        return HEADER
    if name.lower().removeprefix(b"-d") in _SECRET_NAMES:
        return SECRET
    if name.lower().endswith(_NO_SECRETS):
        return HARMLESS
    words = split_name(name)
    if not words:
        return HARMLESS
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in ("key", "keys"):
        return _weigh_key(before)
    if (last == "id" and before.endswith("secret")) or (last == "sid" and before in _SID_BEFORE):
        return SUSPECT
    if last == "pw" or last.endswith(_SECRET_ENDINGS):
        return HARMLESS if before in TOKEN_ORDINARY_WORDS and last == "token" else SECRET
    if (
        last == "pass"
        and before
        and before not in ("by", "com", "first", "second", "multi", "single")
    ):
        return SECRET
    if last.endswith(_SUSPECT_ENDINGS) and before not in TOKEN_ORDINARY_WORDS:
        return SUSPECT
    return (
        SUSPECT
        if last.endswith("key") and len(last) > 5 and not last.endswith(_NO_KEYS)
        else HARMLESS
    )


def may_be_number(name: bytes) -> bool:
    """Say whether the value of a name may be digits alone: those of a password may, while `tokens`
    are counted and keys numbered.
    """
    return weigh_name(name) == SECRET and not split_name(name)[-1].endswith(
        ("token", "key", "keys")
    )


# A `sid` alone and Express's `connect.sid` are cookies. Any other, such as `account_sid`, is an id.
_SID_BEFORE = ("", "connect")
_NO_KEYS = (
    *("monkey", "turkey", "donkey", "hockey", "jockey", "whiskey", "hotkey"),
    *("pubkey", "publickey"),
)


def _weigh_key(before: str) -> int:
    """Weigh `<before> key`: an API key is a secret, a primary key is not, nor is a `key` alone."""
    if before in _KEY_SECRET_WORDS:
        return SECRET
    return HARMLESS if not before or before in _KEY_ORDINARY_WORDS else SUSPECT


# --- what a value looks like ----------------------------------------------------------------------

# Words behind `password=` that are no password.
ORDINARY_VALUES = list_words(
    """
    null none nil true false undefined yes no on off nan void unset empty required optional
    string str text bytes byte int integer float number bool boolean object any unknown never
    array list dict map default enabled disabled present missing absent not set invalid valid
    expired incorrect wrong failed ok error denied granted revoked changed updated created
    deleted rotated generated masked hidden redacted removed read write type name value val data
    password passwd secret token key api_key apikey pass pwd username user auth basic bearer
    digest prompt stdin env file var const let new self this typeof await async return function
    lambda static public private protected readonly final export import from is has your my the
    an and or for with
    hashed n/a yes/no
    amd64 arm64 armhf aarch64 i386 x86_64 ppc64el riscv64 s390x
    """
)
# The word for a password in other languages, as files of translations have it. Those in ASCII count
# as whole words only.
_PASSWORD_TRANSLATIONS = list_words(
    """
    passwort kennwort passe senha wachtwoord adgangskode passord parola parole heslo lozinka
    salasana contraseña contrasenya lösenord hasło şifre jelszó
    парол 密码 密碼
    パスワード 비밀번호
    """
)

_RANDOM_ALPHABET = regex(rb"[A-Za-z0-9+/=_.~%:!@#^*-]{10,}")
_RANDOM_PART = regex(rb"[A-Za-z0-9]{10,}")
_LONG_PART = regex(  # asked at its first byte alone, else each letter looks for a digit
    rb"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}"
)
_UUID = regex(rb"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_CHANGES = regex(rb"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])")
# A mix of cases that no word and no identifier has; part of other patterns.
MIXED_CASE = rb"[A-Z][a-z][A-Z]|[a-z][A-Z]{2}"


def looks_random(value: bytes) -> bool:
    """Say whether a value is generated, rather than a word, a path or a version: it has a long part
    of letters and digits, or both cases and digits.
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
    """Say whether a value is a password, rather than an identifier, a version or a date: digits and
    letters alternate often, or there is a sign that no identifier has.
    """
    changes = len(_CHANGES.findall(value))
    if changes == 0 or _OTHER_SCRIPT.search(value) or _NO_PASSWORD.fullmatch(value):
        return False
    signs = _PASSWORD_SIGN.search(value) is not None and not value.islower()
    return len(value) >= 6 and (changes >= 4 or signs)


_OTHER_SCRIPT = regex(rb"[\xca-\xf4][\x80-\xbf]")  # a character behind U+027F, in UTF-8
_PASSWORD_SIGN = regex(rb".[!@#$%&*?^+~]")
# Hex, durations, dates, a file, an address, code, and a package at a version: x@1.2
_NO_PASSWORD = regex(
    rb"[0-9a-fA-F-]+|(?:[0-9]+[a-z]{1,2})+|[0-9]{4}-[0-9]{2}.*|.*[/(){}\[\]<>=;,|\\\"'`].*"
    rb"|.*\w@[\w-]+\..*|[\w-]+\.[a-z]{1,4}",
    re.DOTALL,
)


def _mixes_case(value: bytes) -> bool:
    digits = sum(value.count(digit) for digit in b"0123456789")
    return digits >= 2 and value.lower() != value and value.upper() != value


# Pairs of letters that words and identifiers hardly ever have: of random letters, every third pair
# is one.
_ODD_PAIR = regex(
    rb"(?i)(?=ao|b[hkqvwxz]|c[gjqwxz]|d[qwxz]|f[ghjkqvwxz]|g[bfjkqvwxz]|h[bcfgjkqvwxz]|i[hjwy]"
    rb"|j[bcdf-hj-np-rtv-z]|k[bcfjkmqrvxyz]|l[hjqwxz]|m[ghjqwxz]|n[qxz]|o[qz]|p[jqvwxz]"
    rb"|q[a-df-tv-z]|r[jqxz]|s[jxz]|t[jq]|u[hjkqu-z]|v[bdfghjklnp-ru-z]|w[bcfgjkmp-qtu-z]"
    rb"|x[bdghjknoqru-wz]|y[hjkqu-vxyz]|z[bcdfghjkmnp-z])"
)
_HUMP = regex(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def is_gibberish(word: bytes) -> bool:
    """Say whether a run of letters and digits is neither a word nor an identifier: it has pairs of
    letters that none has, or changes its case or its kind at every other place.
    """
    if len(word) < 8 or not word.isalnum():
        return False
    pairs, humps = _count_oddities(word)
    return pairs * 11 >= max(22, len(word)) or humps * 2.6 > len(word)


def may_be_gibberish(word: bytes) -> bool:
    """Say the same with less evidence, for a place where hardly anything else stands."""
    pairs, humps = _count_oddities(word)
    return pairs > 0 or humps * 3 > len(word)


def _count_oddities(word: bytes) -> tuple[int, int]:
    return len(_ODD_PAIR.findall(word)), len(_HUMP.findall(word))


# Values that are no secrets, whatever their name says. Each row is a pattern of a whole value and
# has an example in tests/redaction/test_evidence.py.
HARMLESS_VALUES = {
    "placeholders": (
        rb"[*\xe2\x80\xa2.\-_?\#]+",  # ***, ..., ----, bullets
        rb"\xc2[\xbb\xb7]",  # a guillemet, a middle dot
        rb"<.*>?",  # <your key>
        rb"&(?:lt|\#x3c|\#60)(?:;.*)?",  # &lt;your key&gt;
        rb"\[.*",  # [REDACTED]
        rb"\(.*",  # (hidden)
        # your-key, changeme, the_secret
        (
            rb"(?:your|my|the|some|example|sample|dummy|fake|insert|replace|enter|add|put|change)"
            rb"[-_.\ ][\w\-.\ ]*"
        ),
        # sk-...cdef, xxxxxxxx, token-****
        rb"(?:[a-z]{1,5}[-_]){0,3}\w{0,4}(?:\.{3}|x{5,}|\*{3,})(?:\w{0,4}|\w{1,8}\*{3,})",
    ),
    "variables": (
        rb"\$[A-Za-z_{(\[@*\#0-9].*?",  # $VAR, ${VAR}, $(pass)
        rb"%[A-Za-z_(][A-Za-z_()]*%?s?",  # %VAR%, %(token)s
        rb"@?\w*\#?\{.*",  # {{ value }}, #{x}
        rb"(?:%(?:\{\w+\})?[-0-9.]*[a-z@][:/\ ]?)+",  # placeholders of `printf`
        rb"%\(\w+\)s",
        rb"\?[0-9]{0,2}",  # a parameter of a query
        rb"(?-i:[:@][a-z_]*(?:password|passwd|pwd|token|secret|key)[0-9]{0,2})",
        rb"\$[!@?](?:\\?[\w;\"]{0,3})",  # the errors of a shell and of Perl
    ),
    "code": (
        rb"[&*!:@]*[A-Za-z_][\w:.\->?!]*[(\[{].*",  # getpass(), os.environ["X"]
        # an attribute of something that holds settings; any other of letters alone, or named like
        # a secret
        (
            rb"[&*!@:]{0,2}(?:self|this|cls|exports|os|env|process|config|cfg|settings|options|opts"
            rb"|args|req|request|res|response|ctx|data|params|props|state|event|user|secrets|vars|var"
            rb"|inputs|github|steps|values?|credentials?|local|module|each)(?:->|::|\??\.)"
            rb"[\w.?\->:]+!?"
        ),
        rb"[&*!@:]{0,2}[A-Za-z_]+(?:(?:->|::|\??\.)[A-Za-z_]+)+",
        rb"\w{1,32}\.\w{0,32}(?:key|token|secret|password|credentials?)",
        rb"[a-z_]*(?:uid|gid|port|dn)(?::[a-z_]+){1,9}",  # the fields of a record
        rb"(?:qr|m)?/[\^\[(\\].*",  # a regular expression
        rb"[?&][\w.-]{2,32}=",  # the beginning of a query
    ),
    "types": (
        rb"[&*]{1,2}(?:'[a-z]+\ )?(?:mut\ )?(?:\[\])?\[?(?:str|string|u8|byte|[A-Z][A-Za-z]+)\]?",
        rb"![A-Za-z]\w*(?:[:!].*)?",  # a tag of YAML
        rb"[a-z_]+(?:\|[a-z_]+(?::[\w,]+)?)+",  # validation rules of PHP
        # a type with a number in its name, an algorithm
        (
            rb"[*&]?(?:[iu](?:8|16|32|64|128)|u?int(?:8|16|32|64)|uint8array|bytes(?:16|32|64)"
            rb"|sha[0-9]{1,3}|utf-?8|base64(?:-\w+)?|uuidv[0-9]|jwt[0-9]?)"
        ),
        rb"(?:x|ed)25519\w*",
        rb"oauth2\w+",
        rb"(?:sk-)?(?:ssh|ecdsa)-[\w@.-]+",  # a public key
    ),
    "numbers": (
        rb"[~^][0-9]+(?:\.[0-9x*]+){1,2}(?:-[a-z0-9.]+)?",  # a version
        rb"[0-9]{1,4}(?:\+|/[0-9]{1,4})",  # an amount: 8+, 3/10
        rb"1\*[<(]?[a-z]*",  # one or more, in a grammar
        rb"\.\*(?:[$/)].*)?",  # anything, in a pattern
        rb"-?(?:[0-9]{1,3}|[0-9.]{1,12})",
        rb"\d{1,9}(?:ms|s|m|h|d|k|kb|mb|%)",
        rb"-?0x[0-9a-f]{1,8}",
        rb"0x(?:00|7f|5[56]|60|10)[0-9a-f]{1,14}",  # an address in memory
        rb"\#(?:[0-9a-f]{3}|[0-9a-f]{6})",  # a colour
    ),
    "places": (
        rb"arn:aws[a-z-]*:.*",
        rb"projects/\S+/secrets/\S+",
        # Of each name one thing is asked ahead, for one way to read it: with two the ways of all
        # names multiply, and "/a/long/path -x" takes for ever.
        rb"(?:~|\.{1,2})?(?:/(?=[\w.@+-]*[a-z._-])[\w.@+-]+)+/?",
        rb"[A-Za-z]:\\.*",
        rb"[a-z][a-z0-9+.-]{1,20}://.*",  # a URL, whose password has a judge of its own
    ),
}
HARMLESS_VALUE = regex(
    b"|".join(row for rows in HARMLESS_VALUES.values() for row in rows),
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
# A generated password that looks like code: letters of both cases, digits and signs, but neither a
# word nor a call.
_SCRAMBLED = regex(
    rb"(?=[!-~]{8})(?!.*[A-Za-z]{5}|[\w.:&*-]+[(\[].*[)\]]\Z)"
    rb"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9]*[0-9])(?=(?:[\w.:>/-]*[^\w.:>/-]){2})[!-~]+"
)
# A long text of all kinds of signs with one word at most, as the keys of WordPress are: no code is
# that dense.
_DENSE = regex(
    rb"(?=[ -~]{32})(?=(?:[^0-9]*[0-9]){2})(?=(?:[^A-Z]*[A-Z]){3})(?=(?:[\w ]*[^\w ]){4})"
    rb"(?!(?:(?![a-z]{5}).)*[a-z]{5,}[^a-z](?:(?![a-z]{5}).)*[a-z]{5})[ -~]+"
)
# A sign that opens a variable or a placeholder, and a run that no bracket closes.
_SIGN_AND_RUN = regex(rb"[$({\[<!/]([A-Za-z0-9]{6,})[\w!@#$%^&*+~?-]*")
_NUMBER = regex(rb"[0-9]{4,}")
_PLAIN_WORD = regex(rb"@{0,2}[A-Za-z_]+(?:[.!?:]|<[A-Za-z]\S*>)?")
_LABEL = regex(
    rb"(?i)[\w' ]*\b(?:enter|your|please|required|invalid|must|forgot|reset|confirm|wrong"
    rb"|incorrect|missing|expired|provide|is|not|the|a|an|for|of|to)\b.*"
)
# Code behind a text such as "Token: ", whose end looks like an operator and an opening quote.
_CODE_AFTER_TEXT = regex(
    rb"\s|;(?:\s|\Z)|[+%.]\s|(?:<<|&&|\|\|)\s|\\?[\"'] ?[.+] |[,)]\s*(?:[\w)\"']|\Z)"
)
_PLACEHOLDER = regex(rb"[A-Z]{2,}(?:[_-][A-Z]+)*|[x]{4,}-.*|.{0,3}\xe2\x80\xa6")


def is_ordinary(value: bytes, *, quoted: bool, loose: bool, number: bool = False) -> bool:
    """Say whether the value of a secret name is harmless: code, a placeholder, a word about the
    secret.

    `loose` says that here a single word is harmless too: `auth = username`, `token: expired`.
    `number` says that four digits or more are not.
    """
    bare = value.rstrip(b",;:)")
    if (number and _NUMBER.fullmatch(bare)) or (quoted and _DENSE.fullmatch(value)):
        return False
    if (
        len(bare) < 2  # a name that a minifier shortened
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
    return loose and _PLAIN_WORD.fullmatch(bare) is not None and not is_gibberish(bare)


_PATH_OF_NAME = regex(rb"[A-Za-z]+(?:[./][A-Za-z_]+)+")


def _is_path_of_name(value: bytes) -> bool:
    """Say whether a value is a path to a secret name: `auth.password`, `auth/SET_PASSWORD`."""
    return _PATH_OF_NAME.fullmatch(value) is not None and weigh_name(value) != HARMLESS


def _is_translation(value: bytes) -> bool:
    """Say whether a text without digits is the word for a password in another language."""
    text = value.decode("utf-8", "replace").lower()
    return not any(map(str.isdigit, text)) and (
        not _PASSWORD_TRANSLATIONS.isdisjoint(re.findall(r"\w+", text))
        or any(word in text for word in _PASSWORD_TRANSLATIONS if not word.isascii())
    )


def is_path_or_code(value: bytes, *, quoted: bool) -> bool:
    """Say whether a value is a path, a placeholder, or an expression that yields the value."""
    if HARMLESS_VALUE.fullmatch(value) is None or _SCRAMBLED.fullmatch(value):
        return False
    signed = _SIGN_AND_RUN.fullmatch(value)
    if signed and (is_gibberish(signed[1]) or (quoted and _has_digits(signed))):
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


def _has_digits(signed: re.Match[bytes]) -> bool:
    """Say whether a run behind a sign that begins no variable or path has digits as no word has."""
    return signed[0][:1] not in b"$/{" and _CHANGES.search(signed[1]) is not None


def repeats_name(name: bytes, value: bytes) -> bool:
    """Say whether a value repeats its name, as when a variable is passed on:
    `api_token=apiToken`.
    """
    return name.translate(None, b"_- ").lower() == value.translate(None, b"_-,;)").lower()


def is_secret(name: bytes, value: bytes, *, quoted: bool, loose: bool) -> bool:
    """Say whether a name and its whole value are a secret."""
    weight = weigh_name(name)
    ordinary = repeats_name(name, value) or is_ordinary(
        value, quoted=quoted, loose=loose, number=may_be_number(name)
    )
    if weight == HARMLESS or ordinary:
        return False
    return weight == SECRET or looks_secret(value)


_USER_AND_PASSWORD = regex(rb"[!-~]+:[!-~]+")


def looks_secret(value: bytes) -> bool:
    """Say whether the value of a suspect name is a secret: it is generated, or a user and a
    password in base64.
    """
    bare = value.rstrip(b",;)")
    return looks_random(bare) or _USER_AND_PASSWORD.fullmatch(decode_base64(bare)) is not None


def decode_base64(body: bytes) -> bytes:
    """Return the decoded bytes; nothing if the text is too short or no base64."""
    try:
        padded = body + b"=" * (-len(body) % 4)
        return base64.b64decode(padded, validate=True) if len(body) >= 8 else b""
    except (binascii.Error, ValueError):
        return b""


# --- where a value ends ---------------------------------------------------------------------------

# A quote that closes something around a value without quotes: what goes on behind one is a part of
# the value.
CLOSING_QUOTE = rb"[\"'`][^A-Za-z0-9]"
# Ends a value on a line of its own (`DB_PASSWORD=…`): white space and quotes alone, for a password
# may have any other character.
LINE_STOP = regex(rb"\s|" + CLOSING_QUOTE + rb"|\\[nrt\"']")


@functools.lru_cache(maxsize=64)
def quote_stop(quote: bytes) -> re.Pattern[bytes]:
    """Return the pattern that ends a value after this opening quote.

    A quote with n backslashes is closed by one with n or fewer; one with more is part of the value.
    """
    sign = quote.lstrip(b"\\")
    if sign in (b'"', b"'"):
        return re.compile(rb"(?<!\\)\\{0,%d}%b|[\r\n]" % (len(quote) - 1, sign))
    return re.compile(re.escape(quote) + rb"|[\r\n]")


_SIGN = regex(rb"[=:> \t]")


def first_sign(text: bytes, start: int) -> int:
    """Return the place behind the first byte that can only belong to an operator."""
    found = _SIGN.search(text, start)
    return found.end() if found else len(text)
