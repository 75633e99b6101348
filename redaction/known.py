"""Known values: secrets of the user's environment, found whatever they look like.

Collects them from environments that the caller passes in (nothing is read here), encodes each in
every way in which programs print it, and finds all of these needles in a text.
"""

# ruff: noqa: FBT001 - all judges have one signature, so that they fit one table
from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from redaction.evidence import (
    HARMLESS,
    LOOK_AHEAD,
    NEUTRAL_ENDINGS,
    SECRET,
    Span,
    Verdict,
    Wait,
    find_all,
    list_words,
    looks_like_password,
    looks_random,
    split_name,
    weigh_name,
)
from redaction.regex import regex

# The shortest value that is searched for: a shorter one would be found in ordinary words. GitLab
# has 8, Buildkite 6.
KNOWN_BYTES = 8
# A longer value is searched for in pieces of so many bytes, so that no more than one is held back.
PIECE_BYTES = 1024


# --- known values from the environment ------------------------------------------------------------

_SECRET_VARIABLE = regex(
    r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PWD|PW|PASS|PASSPHRASE|CREDENTIAL"
    r"|CONNECTION_STRING|DSN|AUTH|APIKEY)S?$"
    r"|PASSWORD$",
    re.IGNORECASE,
)
# `API_KEY_1`, `GITHUB_TOKEN2`, `DB_PASSWORD_PROD`.
_NEUTRAL_ENDING = regex(rf"(?:_?[0-9]+|_(?:{'|'.join(NEUTRAL_ENDINGS)}))$", re.IGNORECASE)
# Folders of the shell, not passwords. Their values are not always recognised as paths: a path may
# have any character.
_DIRECTORIES = ("PWD", "OLDPWD")
_PATH = regex(r"(?:[~.]{0,2}|[A-Za-z]:)?[/\\][\w./\\@+ -]*")
_WORD_OR_NUMBER = regex(r"[A-Za-z]{1,15}|[0-9.,:\s+-]*")
# The value of a variable that only says whether there is a secret.
_SWITCH = regex(r"(?i)[01yntf]|true|false|yes|no|on|off|none|null|nil|undefined|enabled|disabled")


class KnownValues(NamedTuple):
    """The values to search for, and the names of variables whose secret is not searched for: it is
    too short, a word or a number, and would be removed from harmless output everywhere.
    """

    values: tuple[bytes, ...]
    unprotected: tuple[str, ...]


def collect_known_values(
    *environments: Mapping[str, str], always: Collection[str] = ()
) -> KnownValues:
    """Return the values of secret-named variables, or the secret parts of such values.

    Words, paths, numbers and booleans are left out, except those of the variables in `always`,
    which surely hold a secret.
    """
    values: dict[bytes, None] = {}
    unprotected: set[str] = set()
    for variable, text in (item for each in environments for item in each.items()):
        value, surely = text.strip(), variable in always
        if not value or not (surely or _is_secret_name(variable)):
            continue
        parts = [(variable, value)] if surely else _list_secret_parts(variable, value)
        for name, part in _add_unquoted(parts):
            raw = _encode(part)
            if len(raw) >= KNOWN_BYTES and (surely or not _is_easy(part)):
                values[raw] = None
            elif surely or _is_weak(name, part):
                unprotected.add(variable)
    return KnownValues(tuple(values), tuple(sorted(unprotected)))


def _add_unquoted(parts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the parts, and those in quotes also without them: `docker --env-file` keeps them."""
    for name, part in parts:
        yield name, part
        if len(part) > 2 and part[0] in "\"'`" and part[-1] == part[0]:
            yield name, part[1:-1].strip()


def _encode(text: str) -> bytes:
    """Return the bytes of a text from the environment or from JSON, where half of a surrogate pair
    may stand alone.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _is_secret_name(name: str) -> bool:
    if name in _DIRECTORIES:
        return False
    if weigh_name(_encode(name)) == SECRET:
        return True
    while not _SECRET_VARIABLE.search(name):
        shorter = _NEUTRAL_ENDING.sub("", name)
        if shorter == name:
            return False
        name = shorter
    return True


def _is_easy(value: str) -> bool:
    """Say whether a value is a word, a path, a number or a boolean rather than a secret."""
    return _WORD_OR_NUMBER.fullmatch(value) is not None or _is_path(value)


def _is_path(value: str) -> bool:
    return _PATH.fullmatch(value) is not None and not (
        value[:1] == "/" and looks_random(value.replace("/", "").encode("utf-8", "replace"))
    )


def _is_weak(name: str, value: str) -> bool:
    """Say whether a value that is not searched for is a secret nevertheless. For a word or a
    number, the name must leave no doubt: `MAX_TOKENS` has a number too.
    """
    if not name or _is_path(value) or _SWITCH.fullmatch(value):
        return False
    return not _is_easy(value) or weigh_name(_encode(name)) == SECRET


def _list_secret_parts(name: str, value: str) -> Iterator[tuple[str, str]]:
    """Yield the secret strings of a record in JSON; of any other value, the value itself and the
    passwords in it.
    """
    leaves = _read_leaves(name, value)
    if leaves is None:
        yield name, value
        yield from (("", password) for password in _list_passwords(value))
        return
    for leaf_name, leaf in leaves:
        text = leaf.strip()
        if _is_public(leaf_name, text):
            yield from (("", password) for password in _list_passwords(text))
        elif text:
            yield from _list_secret_parts(leaf_name, text)


def _list_passwords(value: str) -> Iterator[str]:
    """Yield the password in an address, also decoded, and the secrets of a connection string."""
    if "://" in value:
        try:
            password = urllib.parse.urlsplit(value).password
        except ValueError:
            password = None
        if password:
            yield password
            yield urllib.parse.unquote(password)
    for field in value.split(";") if ";" in value else ():
        name, sign, part = field.partition("=")
        if sign and weigh_name(name.strip().encode("utf-8", "replace")) != HARMLESS:
            yield part.strip()


# --- records of credentials -----------------------------------------------------------------------

# The last words of names in a record of credentials whose values are public, even if they look
# generated.
_IDENTIFIERS = list_words(
    """
    id ids identifier arn arns bucket buckets fingerprint thumbprint kid sha1
    clientid projectid tenantid userid appid keyid accountid teamid subscriptionid
    """
)
# The same, unless the value looks generated.
_PUBLIC_NAMES = list_words(
    """
    type kind version format algorithm alg kty crv use engine driver protocol scheme sslmode
    scope scopes
    name names username hostname dbname database schema db dbinstance catalog warehouse role roles
    user users login account accounts email emails mail issuer iss audience aud subject sub realm
    host hosts server servers node nodes domain domains endpoint endpoints url urls uri uris
    origin origins address port path file folder location region zone cluster namespace context
    project tenant subscription organization organisation org team group groups company
    environment stage profile provider service description comment label labels title status
    at on date time expires expiry expiration created updated
    """
)

_JSON_BEGINS = ("{", "[")


def _read_leaves(name: str, value: str) -> list[tuple[str, str]] | None:
    """Return the strings of a value in JSON, each with its name, which in a list is that of the
    list; None if the value is no JSON.
    """
    if value[:1] not in _JSON_BEGINS:
        return None
    try:
        return list(_list_leaves(name, json.loads(value)))
    except (ValueError, RecursionError):
        return None


def _list_leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _list_leaves(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _list_leaves(name, item)


# A certificate, a public key
_PUBLIC_KEY = regex(r"-----BEGIN (?:[A-Z0-9]+ )*(?:CERTIFICATE|PUBLIC KEY)-|(?:ssh|ecdsa)-\S+ ")
# A host, also with a port or with a user
_PLACE = regex(r"(?:[\w.+-]+@)?[\w-]+(?:\.[\w-]+)+(?::[0-9]{1,5})?")
_HOST = regex(rb"(?:(?<=://)|(?<=@))[\w.:-]+(?=[/?#]|$)")
_SIGN_IN_ADDRESS = regex(rb"[/?&=#:@.]+")


def _is_public(name: str, value: str) -> bool:
    """Say whether a string in a record is public: an id, a host, a user, an address. If its name
    does not say so, it counts as secret.
    """
    raw_name, raw = _encode(name), _encode(value)
    if "PRIVATE KEY" in value or value[:1] in _JSON_BEGINS:
        return False
    if _PUBLIC_KEY.match(value):
        return True
    if weigh_name(raw_name) != HARMLESS:
        return False
    if "://" in value:
        return not any(map(looks_random, _SIGN_IN_ADDRESS.split(_HOST.sub(b"", raw))))
    words = split_name(raw_name)
    if "public" in words:
        return True
    if not words or (words[-1] in ("id", "ids") and _is_secret_word(words[-2:-1])):
        return False
    if words[-1] in _IDENTIFIERS:
        return True
    generated = (looks_random(raw) or looks_like_password(raw)) and not _PLACE.fullmatch(value)
    return words[-1] in _PUBLIC_NAMES and not generated


def _is_secret_word(words: list[str]) -> bool:
    """Say whether a word promises a secret. Its id is then one too: `session id`."""
    return any(weigh_name(word.encode()) != HARMLESS for word in words)


# --- finding them ---------------------------------------------------------------------------------


# So many first bytes of a needle are its head, by which it is looked up.
_HEAD_BYTES = 8
# The longest stride of a sieve, in pieces.
_LONGEST_STRIDE = 4
# A longer needle can be found by pieces of eight bytes. At the end of the text, the beginning of a
# needle is searched for up to this length.
_TAIL_BYTES = 14
# So many single searches cost as much as one pass over pieces of four bytes.
_SEARCHED_MOST = 12


class _Sieve:
    """Finds which of many words may be in a text, at a cost that does not depend on their number.

    The text is cut, in C, into aligned pieces of `size` bytes, and one piece in each stride is
    looked up. A word at least as long as a stride and a piece contains such a piece wherever it
    stands, so the stride is as long as the shortest word allows. The last piece is always looked
    up: it finds a word of which `2 * size - 1` bytes or more have arrived.
    """

    def __init__(self, size: int, code: Any, words: Collection[bytes]) -> None:
        self._size = size
        self._code = code
        shortest = min(map(len, words), default=0)
        self._stride = max(1, min((shortest + 1) // size - 1, _LONGEST_STRIDE))
        self._heads: dict[int, set[bytes]] = {}
        for word in words:
            for at in range(self._stride * size):
                piece = int.from_bytes(word[at : at + size], _ORDER)
                self._heads.setdefault(piece, set()).add(word[:_HEAD_BYTES])

    def find(self, text: bytes, start: int) -> set[bytes]:
        """Return the heads of words that may be in the text from `start` on."""
        if not self._heads:
            return set()
        start -= start % self._size
        end = len(text) - (len(text) - start) % self._size
        pieces = memoryview(text)[start:end].cast(self._code)
        heads, passes = self._heads, (pieces[:: self._stride], pieces[-1:])
        if all(map(heads.keys().isdisjoint, passes)):
            return set()
        return set().union(*(heads[piece] for some in passes for piece in heads.keys() & some))


class Needles:
    """Known values in all their encodings.

    A needle is found by its head, the first 8 bytes. Sieves say which heads are worth a search: one
    of long pieces for long needles, which is half the work, and one of short pieces for the others.
    A few short needles are searched for directly.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        needles = {needle for value in values for needle in _spell_variants(value)}
        self._by_head: dict[bytes, list[tuple[bytes, ...]]] = {}
        for needle in needles:
            words = tuple(needle.split()) if re.search(rb"[\r\n]", needle) else (needle,)
            self._by_head.setdefault(words[0][:_HEAD_BYTES], []).append(words)
        first_words = {words[0] for group in self._by_head.values() for words in group}
        self._beginnings = {
            word[:size]
            for word in first_words
            for size in range(1, min(len(word), _TAIL_BYTES) + 1)
        }
        self._short = {word for word in first_words if len(word) < _HEAD_BYTES}
        long = {word for word in first_words if len(word) > _TAIL_BYTES}
        middling = first_words - long
        heads = {word[:_HEAD_BYTES] for word in middling}
        self._searched = heads if len(heads) <= _SEARCHED_MOST else self._short
        self._long = _Sieve(8, "Q", long)
        self._middling = _Sieve(
            4, "I", [word for word in middling if word[:_HEAD_BYTES] not in self._searched]
        )

    def places(self, text: bytes, start: int) -> Iterator[int]:
        """Return where a known value may begin, at or after `start`, not in order."""
        if not self._by_head:
            return
        heads = self._searched.union(self._long.find(text, start), self._middling.find(text, start))
        for head in heads:
            yield from find_all(text, head, start)

    def tail_places(self, text: bytes) -> Iterator[int]:
        """Yield the places at the end of the text where a needle may begin."""
        if self._beginnings:
            for size in range(1, min(_TAIL_BYTES, len(text)) + 1):
                if text[-size:] in self._beginnings:
                    yield len(text) - size

    def judge(self, text: bytes, at: int, final: bool) -> Verdict:
        """Judge a place where a known value may stand. The longest wins."""
        best: Verdict = None
        waiting = False
        for words in self._find_needles(text, at):
            end = _match_words(text, at, words)
            if end is None:
                waiting = True
            elif end > at and (not isinstance(best, Span) or end > best.end):
                best = Span(at, end)
        if waiting and not final:
            return Wait(at, len(text) - at > 3)
        if (
            best is None
            and not final
            and len(text) - at < _HEAD_BYTES
            and text[at:] in self._beginnings
        ):
            return Wait(at, len(text) - at > 3)
        return best

    def _find_needles(self, text: bytes, at: int) -> Iterator[tuple[bytes, ...]]:
        yield from self._by_head.get(text[at : at + _HEAD_BYTES], ())
        for head in self._short:
            if text.startswith(head, at):
                yield from self._by_head[head]


_ORDER: Any = "little" if memoryview(b"\x01\0\0\0").cast("I")[0] == 1 else "big"
_BLANK = regex(rb"\s*")


def _match_words(text: bytes, at: int, words: tuple[bytes, ...]) -> int | None:
    """Return where the words end, with any white space between them; `at` if they do not match;
    None if the text ends too early to say.
    """
    place = at
    for index, word in enumerate(words):
        if index:
            blank = _BLANK.match(text, place, place + LOOK_AHEAD)
            begin = blank.end() if blank else place
            if begin == place and begin < len(text):
                return at
            place = begin
        if not text.startswith(word, place):
            return None if word.startswith(text[place:]) else at
        place += len(word)
    return place


def _spell_variants(value: bytes) -> Iterator[bytes]:
    """Yield a known value in every encoding in which it is printed, in pieces if it is long."""
    for piece in (*_split_value(value), *_split_value(_expand(value))):
        yield piece
        yield from (line.strip() for line in piece.splitlines() if len(line.strip()) >= KNOWN_BYTES)
        yield piece.hex().encode()
        yield piece.hex().upper().encode()
        yield from _spell_base64(piece)
        for safe in _LEFT_IN_URLS:
            quoted = urllib.parse.quote(piece, safe=safe)
            yield quoted.encode()
            yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted).encode()
        yield urllib.parse.quote_plus(piece).encode()
        yield urllib.parse.quote_plus(piece, safe="*").replace("~", "%7E").encode()  # Java
        yield re.sub(rb"(['\"])", rb"\1\1", piece)  # SQL, YAML, CSV, PowerShell
        yield piece.replace(b"'", b"''")
        yield piece.replace(b'"', b'""')
        yield from _spell_json(piece)
        yield from _spell_shell(piece)
        yield from _spell_html(piece)


# The characters that URL encoders do not encode: Python's `quote` of any text, of a path and of an
# address, JavaScript's `encodeURIComponent` and `encodeURI`.
_LEFT_IN_URLS = ("", "/", "/:@", "!'()*", ";/?:@&=+$,#!'()*")
_HTML_QUOTES = (
    (b"&quot;", b"&#x27;"),
    (b"&quot;", b"&#39;"),
    (b"&#34;", b"&#39;"),
    (b"&quot;", b"'"),
    (b"&quot;", b"&apos;"),
)
_SHELL_SPECIAL = regex(rb"""[\s!"#$&'()*;<>?\[\\\]^`{|}~]""")


def _spell_json(piece: bytes) -> Iterator[bytes]:
    """Yield a value as a text in JSON, as the writers of all languages spell it, and each of these
    once more inside JSON.
    """
    text = piece.decode("utf-8", "replace")
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        for spelling in _escape_signs(plain):
            yield spelling.encode("utf-8", "replace")
            again = json.dumps(spelling, ensure_ascii=ascii_only)[1:-1]
            yield from (
                each.encode("utf-8", "replace") for each in {again, again.replace("/", "\\/")}
            )


# The signs that writers of JSON escape for the sake of HTML: Go and Rails, with quotes Newtonsoft
# and PHP, Gson, and .NET. Some write hexadecimal numbers in lower case and some in upper case, PHP
# escapes slashes besides, and .NET writes quotes as numbers.
_ESCAPED_SIGNS = ("", "<>&", "<>&'", "<>&='", "<>&'\"", "<>&'\"+`")
_JSON_NUMBER = regex(r"(?<!\\)((?:\\\\)*)\\u([0-9a-f]{4})")


def _escape_signs(plain: str) -> set[str]:
    spellings = set()
    for signs in _ESCAPED_SIGNS:
        text = plain.replace('\\"', '"') if '"' in signs else plain
        for sign in signs:
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        upper = _JSON_NUMBER.sub(lambda match: f"{match[1]}\\u{match[2].upper()}", text)
        spellings |= {text, upper, text.replace("/", "\\/"), upper.replace("/", "\\/")}
    return spellings


def _expand(value: bytes) -> bytes:
    """Return a value with the line ends and tabs that it spells as `\\n` and `\\t`; nothing if it
    spells none.
    """
    expanded = _SPELLED.sub(lambda match: _BLANKS[match[1]], value)
    return expanded if expanded != value else b""


_SPELLED = regex(rb"\\([nrt])")
_BLANKS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _spell_shell(piece: bytes) -> Iterator[bytes]:
    """Yield a value in single quotes (two ways), in double quotes, behind `$'`, and unquoted."""
    yield piece.replace(b"'", b"'\\''")
    yield piece.replace(b"'", b"'\"'\"'")
    yield re.sub(rb'([\\"$`])', rb"\\\1", piece)
    yield re.sub(rb"([\\'])", rb"\\\1", piece).replace(b"\n", b"\\n").replace(b"\t", b"\\t")
    yield _SHELL_SPECIAL.sub(rb"\\\g<0>", piece)


def _spell_html(piece: bytes) -> Iterator[bytes]:
    """Yield a value in the text and in the attributes of a page, for each spelling of a quote."""
    text = piece.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    yield text
    for double, single in _HTML_QUOTES:
        yield text.replace(b'"', double).replace(b"'", single)


def _split_value(value: bytes) -> Iterator[bytes]:
    if len(value) < KNOWN_BYTES:
        return
    for start in range(0, len(value), PIECE_BYTES):
        # A last piece that would be too short begins earlier.
        yield value[min(start, len(value) - KNOWN_BYTES) : start + PIECE_BYTES]


def _spell_base64(value: bytes) -> Iterator[bytes]:
    """Yield what every base64 of a text with `value` in it has in common: one form for each offset
    in a group of three bytes.

    The characters at both ends are left out, because they also carry bits of the bytes around the
    value (GitHub's ADR 0297 tells how that went wrong).
    """
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + value)
        first = (8 * offset + 5) // 6
        last = (8 * (offset + len(value))) // 6
        middle = encoded[first:last]
        yield middle
        yield middle.translate(bytes.maketrans(b"+/", b"-_"))
