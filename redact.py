"""Streaming secret redaction: bytes of a live terminal in, the same bytes without secrets out.

Pure: no I/O, no threads, no clock. One `Rules` is compiled for a run and shared; each stream has a
`Redactor` of its own.

Theory of operation
-------------------
Two views. A terminal shows `ghp_AbCd<ESC>[31mEfGh` as one word, so secrets are looked for in the
*visible* text: the stream without escape sequences, with typed-over characters gone (`View`). What
is cut is the raw bytes: escapes inside a removed span stay.

Judges. A place that may begin a secret (the word `token`, `://`, the prefix of a token, `BEGIN`) is
found by searching for literals, which is all that Python does fast. A *judge* then reads the text
around the place and returns a verdict: `Span`, remove this; `Endless`, remove from here to a stop
character, however far; `KeyBegins`, a private key; `Wait`, the text in hand ends too early to tell;
None, harmless. A judge reads at most LOOK_BACK bytes before the place and LOOK_AHEAD after it, and
never knows where a read ended. That is why any split of the input gives the same output: every
verdict is a function of the text alone, and overlapping spans merge.

Holding back. Text is published as soon as no judge waits for it. A judge that waits names the first
byte that must stay: of `password=hun` that is the `h`. `idle()` publishes what is held only because
it *could* become a secret (`s` of `sk-`, `https://acme`): words of any length, and of what looks
generated up to 11 bytes.

State between reads: the raw bytes held; the end of the visible text already published, which judges
look back into; the `Endless` spans still open; the private key being swallowed.

Where things are
----------------
This module puts the rules together and is the stream. In `redaction/`:

    view          the visible text of a terminal's bytes
    evidence      the verdicts, what a name promises, what a value looks like
    tokens        secrets with a shape of their own; `tokens.txt` lists the shapes
    known         the values of the user's environment, in every encoding
    names         where the value of a name is, in every spelling and layout
    values        where a value ends, and whether it is a secret
    syntax        flags of commands, phrases, headers, cookies, addresses
    private_keys  keys that are dropped line by line
    json_values   the strings of a JSON value

References: the rules of gitleaks, trufflehog, noseyparker, kingfisher and detect-secrets for what
secrets look like; Buildkite's and GitLab's log maskers for streaming; ECMA-48 and XTerm's "Control
Sequences" for escapes; RFC 7468 and RFC 1421 for PEM.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import json
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NewType, TypeVar, cast

from redaction.evidence import (
    LOOK_BACK,
    MIXED_CASE,
    Both,
    Endless,
    Judge,
    KeyBegins,
    Span,
    Verdict,
    Wait,
    looks_random,
)
from redaction.json_values import JsonCleaner
from redaction.known import KnownValues, Needles, collect_known_values
from redaction.names import (
    FILE_OF_LOGINS,
    MAY_HAVE_LOGIN,
    MAY_HAVE_SPACED_VALUE,
    MAY_HAVE_VALUE,
    NO_ORDINARY_TOKEN,
    judge_name,
)
from redaction.private_keys import KEY_HEADER_BEGINS, PrivateKey, judge_key_header
from redaction.regex import regex
from redaction.syntax import (
    PLAIN_ADDRESS,
    WEBHOOK_OF_ANY_HOST,
    judge_address,
    judge_cookie,
    judge_flag,
    judge_phrase,
    judge_scheme,
)
from redaction.tokens import PatternError, Tokens, TokenShape, parse_token_shapes
from redaction.view import CLIPBOARD, STRING, View, is_whole

__all__ = [
    "MARK",
    "KnownValues",
    "PatternError",
    "Redacted",
    "RedactedDecoder",
    "RedactedExcerpt",
    "RedactedText",
    "Redactor",
    "Rules",
    "TokenShape",
    "collect_known_values",
    "join",
    "parse_token_shapes",
]

Redacted = NewType("Redacted", bytes)
RedactedText = NewType("RedactedText", str)

_Shown = TypeVar("_Shown", bound=str)
# How much of a foreign text a message shows.
_MAX_SHOWN_CHARS = 300

MARK = b"[REDACTED]"

# So far back in what is already published a place may wait: a name, and what stands between it and
# its value. More would cost time at every read.
_MAX_UNJUDGED_BYTES = 512
# A long read is cut into slices. Behind each private key the rest of a slice is judged again, so
# without slices a file with many keys would cost the square of its size; what may hold keys is cut
# into shorter ones.
SLICE_BYTES = 16_384
_SLICE_OF_KEYS_BYTES = 8_192
_MAY_BEGIN_KEY = (b"BEGIN", b"Private-Key", b"PuTTY-User-Key-File")


# --- the rules ------------------------------------------------------------------------------------


class _Search(NamedTuple):
    """A search for literals that share their first byte, and what each calls."""

    first: int
    pattern: re.Pattern[bytes]
    literals: dict[bytes, tuple[int, Judge]]


def _search(pattern: bytes, literals: dict[bytes, tuple[int, Judge]]) -> _Search:
    return _Search(pattern[0], regex(pattern, re.VERBOSE), literals)


def _list_searches(may_have_spaced_value: bytes, may_be_secret: bytes) -> tuple[_Search, ...]:
    """Return which literal in the lowered text calls which judge, and how far before it the place
    begins.

    Literals that share a byte are one search: each pattern begins with one byte, as rare as
    possible, and `re` goes from one to the next by memchr. Finding the literals one by one takes
    twice as long.
    """
    return (
        _search(
            rb"k(?:(?:ey|en(?<=token)"
            + NO_ORDINARY_TOKEN
            + rb")"
            + may_have_spaced_value
            + rb"|ie(?<=cookie)|::(?<=::add-mask::)|en\$(?<=access_token\$))",
            {
                b"key": (0, judge_name),
                b"ken": (2, judge_name),
                b"kie": (3, judge_cookie),
                **dict.fromkeys((b"k::", b"ken$"), (0, judge_phrase)),
            },
        ),
        _search(
            rb"p(?:(?:ass|w|sk)"
            + may_have_spaced_value
            + rb"|at(?<=[ _-]pat)"
            + MAY_HAVE_VALUE
            + rb"|hrase(?=[\\\"' ]{0,3}[:=])|g_(?<=npg_))",
            {
                b"pat": (0, judge_name),
                b"pass": (0, judge_name),
                b"pw": (0, judge_name),
                b"psk": (0, judge_name),
                b"phrase": (0, judge_phrase),
                b"pg_": (0, judge_phrase),
            },
        ),
        _search(
            rb"b(?:earer|asic|egin[ +%](?<=----[ -]begin[ +%])"
            rb"|y[ ](?:(?<=identified[ ]by[ ])|(?=[\"'])))",
            {
                b"bearer": (0, judge_scheme),
                b"basic": (0, judge_scheme),
                b"by ": (0, judge_phrase),
                **dict.fromkeys((b"begin ", b"begin+", b"begin%"), (5, judge_key_header)),
            },
        ),
        # In `secret` and in `credential`, in `SecureString`, and at the end of `mnemonic`.
        _search(
            rb"c(?:ret(?:(?<=setsecret)\]|=true(?<=issecret=true))|e_salt(?=[\"'])|re(?=[dt])"
            + may_have_spaced_value
            + rb"|urestring[ ]|[\\\"':= ](?<=mnemonic.))",
            {
                b"cre": (0, judge_name),
                b"ce_salt": (0, judge_name),
                **dict.fromkeys((b"curestring ", b"cret]", b"cret=true"), (0, judge_phrase)),
                **dict.fromkeys((b"c\\", b'c"', b"c'", b"c:", b"c=", b"c "), (0, judge_phrase)),
            },
        ),
        _search(
            rb"u(?<=au)th(?:[ ](?<=>[ ]auth[ ])|(?<=masterauth)(?=[ ])|" + MAY_HAVE_VALUE + rb")",
            {b"uth": (1, judge_name), b"uth ": (1, judge_phrase)},
        ),
        # A cookie without its header, and the signature of an address; most others are public.
        _search(
            rb"=(?:(?<=sonar\.login=)|(?<=sid=)|(?<=sig=)|(?<=session=)|(?<=sessionid=)|(?<=signature=))",
            {b"=": (3, judge_name)},
        ),
        _search(rb"/(?<=://)" + may_be_secret, {b"/": (2, judge_address)}),
        _search(rb"!(?:(?<=00[a-z0-9]{13}!)|(?<=00[a-z0-9]{16}!))", {b"!": (0, judge_phrase)}),
        _search(
            rb"-(?<=[ \"']-)(?:[abw](?=[ \"'])|[up]|-(?:proxy-)?user(?=[ =\"']))",
            dict.fromkeys(
                (b"-a", b"-b", b"-w", b"-u", b"-p", b"--user", b"--proxy-user"), (0, judge_flag)
            ),
        ),
    )


# The patterns dismiss, in C, most of what the judges would, which takes a judge twenty times as
# long. In a text with one of two things they dismiss less, see `_is_special`.
_LITERALS = _list_searches(MAY_HAVE_SPACED_VALUE, b"(?!" + PLAIN_ADDRESS + b")")
_SPECIAL_LITERALS = _list_searches(MAY_HAVE_LOGIN, b"")


def _is_special(lower: bytes) -> bool:
    """Say whether there is a file of logins, or a webhook that is told by the end of its host."""
    logins = b"machine" in lower and FILE_OF_LOGINS.search(lower) is not None
    return logins or WEBHOOK_OF_ANY_HOST in lower


class Rules:
    """What is secret: the built-in rules, the known values and the user's token shapes.

    Thread: any; immutable once made. Making one takes milliseconds; share it between the redactors
    of a run.
    """

    def __init__(
        self, known_values: Iterable[bytes] = (), patterns: Iterable[TokenShape] = ()
    ) -> None:
        self._known = Needles(known_values)
        self._patterns = tuple(patterns)

    @functools.cached_property
    def _tokens(self) -> Tokens:
        """Every token shape: some milliseconds that the start of a run does not wait for."""
        return Tokens(self._patterns)

    def redact(self, text: str) -> RedactedText:
        """Return a whole text without its secrets."""
        raw = text.encode("utf-8", "surrogatepass")
        return RedactedText(self.redact_bytes(raw).decode("utf-8", "surrogatepass"))

    def redact_bytes(self, raw: bytes) -> Redacted:
        """Return whole bytes without their secrets."""
        redactor = Redactor(rules=self)
        if len(raw) <= SLICE_BYTES and b"\b" not in raw and is_whole(raw):
            return redactor.flush(raw)
        return Redacted(redactor.feed(raw) + redactor.flush())

    def redact_json(self, value: Any) -> RedactedText:
        """Return a JSON value as compact JSON without its secrets.

        Shape: every string is redacted where it stands, so the result is always valid JSON with the
        structure of the value (`redaction/json_values.py`). Raises what `json.dumps` raises for one
        that is not JSON.
        """
        cleaned = JsonCleaner(self.redact, MARK.decode()).clean(value)
        text = json.dumps(cleaned, separators=(",", ":"))
        return RedactedText(CUT_BY_GATEWAY.sub(_escape_last, text))

    def judge_all(self, text: bytes, start: int, *, final: bool) -> Iterator[tuple[int, Verdict]]:
        """Yield, in order, every place from `start` on that is not harmless, with its verdict."""
        places: list[tuple[int, int, Judge]] = []
        lower = text.lower()
        for first, pattern, literals in _SPECIAL_LITERALS if _is_special(lower) else _LITERALS:
            # `re` takes longer to find nothing.
            for found in pattern.finditer(lower, start) if first in lower else ():
                back, judge = literals[found[0]]
                at = found.start() - back
                if at >= start:
                    places.append((at, 0, judge))
        places += [(at, 1, self._tokens.judge) for at in self._tokens.places(text, start)]
        places += [(at, 2, self._known.judge) for at in self._known.places(text, start)]
        places += self._tail_places(text, start)
        places.sort(key=_by_place)
        for at, _, judge in places:
            verdict = judge(text, at, final)
            if verdict is not None:
                yield at, verdict

    def _tail_places(self, text: bytes, start: int) -> Iterator[tuple[int, int, Judge]]:
        """Yield the places at the end of the text where a literal may begin."""
        yield from ((at, 3, self._known.judge) for at in self._known.tail_places(text))
        yield from ((at, 4, self._tokens.judge) for at in self._tokens.tail_places(text, start))
        header = KEY_HEADER_BEGINS.search(text, max(start, len(text) - 12))
        if header:
            yield header.start(), 5, judge_key_header


# A gateway in the field redacts a marker once more: it takes what follows such a word and a blank,
# with the quote behind it, and all from the header of a private key to the next footer; what is
# left is no JSON. Written as an escape, the same character is none of these to it. In compact JSON
# they only stand inside strings.
CUT_BY_GATEWAY = regex(
    r"(?:token|secret|password|auth|api[_-]?key|bearer|credential)[\s=:]|-----(?=BEGIN)",
    re.IGNORECASE,
)


def _escape_last(match: re.Match[str]) -> str:
    return f"{match[0][:-1]}\\u{ord(match[0][-1]):04x}"


_by_place = operator.itemgetter(0, 1)


# --- the redactor ---------------------------------------------------------------------------------


class Redactor:
    """One stream without its secrets.

    Shape: any split of the same input gives the same concatenated output. Thread: one caller at a
    time; give each stream its own. Raises nothing: an error inside is counted in `failures`, and
    the rest of the line (of the private key) is dropped.
    """

    def __init__(self, known_values: Iterable[bytes] = (), *, rules: Rules | None = None) -> None:
        self._rules = Rules(known_values) if rules is None else rules
        self._raw = b""
        self._context = b""
        # Where in the context the last removed span ends; -1 for nowhere in sight.
        self._redacted_to = -1
        # How many bytes at the end of the context belong to a place that was not decided.
        self._unjudged = 0
        self._after_space = False  # the last raw byte published is a space
        self._stops: set[re.Pattern[bytes]] = set()  # of the endless spans that are open
        # How many of the bytes held belong to a span whose verdict is known, although its place may
        # be further back than where judging resumes.
        self._decided = 0
        self._key: PrivateKey | None = None
        self.failures = 0

    @property
    def held(self) -> int:
        """How many bytes are held back now."""
        return len(self._raw)

    def feed(self, chunk: bytes) -> Redacted:
        """Return what is now safe to publish; may be empty. Holds back at most 4 KB."""
        size = SLICE_BYTES
        if len(chunk) > _SLICE_OF_KEYS_BYTES and any(each in chunk for each in _MAY_BEGIN_KEY):
            size = _SLICE_OF_KEYS_BYTES
        if len(chunk) <= size:
            return self._feed_slice(chunk)
        slices = (chunk[at : at + size] for at in range(0, len(chunk), size))
        return Redacted(b"".join(map(self._feed_slice, slices)))

    def _feed_slice(self, chunk: bytes) -> Redacted:
        if b"\b" not in chunk:
            return self._guard(chunk)
        # Typing over changes earlier text, so that is judged first.
        parts = re.findall(rb"\x08|[^\x08]+", chunk)
        return Redacted(b"".join(map(self._guard, parts)))

    def idle(self) -> Redacted:
        """Return what may be shown although more may follow: the source has been silent for a
        moment.

        What surely belongs to a secret stays held. What only may belong to one stays too if its
        last 12 bytes or more look generated.
        """
        return self._guard(b"", silent=True)

    def flush(self, last: bytes = b"") -> Redacted:
        """Return the rest: the stream has ended, with these bytes, of which a view must leave none
        out. The redactor is then as new but for `failures`.
        """
        rest = self._guard(last, final=True)
        self._raw, self._context, self._redacted_to, self._unjudged = b"", b"", -1, 0
        self._stops.clear()
        self._decided = 0
        self._key, self._after_space = None, False
        return rest

    def _guard(self, chunk: bytes, *, final: bool = False, silent: bool = False) -> Redacted:
        try:
            return Redacted(self._advance(chunk, final=final, silent=silent))
        except Exception:  # noqa: BLE001 - whatever it was, the raw bytes must not get out
            self.failures += 1
            self._raw, self._context, self._redacted_to, self._unjudged = b"", b"", 0, 0
            self._stops = set() if self._key else {_END_OF_LINE}
            self._decided = 0
            return Redacted(MARK)

    def _advance(self, chunk: bytes, *, final: bool, silent: bool) -> bytes:
        before = len(self._raw)
        self._raw = self._raw + chunk if before else chunk
        view = self._view(final=final, silent=silent)
        # A backspace ends no string, unless it stands where an escape sequence goes on.
        may_end = chunk != b"\b" or self._raw[before - 1 : before] in (b"\x1b", b"\xc2")
        if view.may_have_strings and may_end and self._redact_strings(before):
            view = self._view(final=final, silent=silent)
        out: list[bytes] = []
        while True:
            if view.erased:
                self._erase(view.erased)
            going_on = (
                self._swallow_key(view, out, final=final)
                if self._key
                else self._publish(view, out, final=final, silent=silent)
            )
            if not going_on:
                return b"".join(out)
            view = self._view(final=final, silent=silent)

    def _view(self, *, final: bool, silent: bool) -> View:
        return View(self._raw, after_space=self._after_space, final=final, silent=silent)

    def _redact_strings(self, before: int) -> bool:
        """Redact titles, links, the clipboard and texts for a multiplexer that end after `before`;
        return whether that changed anything.
        """
        raw = self._raw

        def redact_new(match: re.Match[bytes]) -> bytes:
            ended = match.end() + (0 if match[3] or match[6] else len(_RESTARTED))
            return match[0] if ended <= before else self._redact_string(match)

        self._raw = STRING.sub(redact_new, raw)
        return self._raw != raw

    def _redact_string(self, match: re.Match[bytes]) -> bytes:
        """Redact the payload of one sequence: a text of its own."""
        kind, payload, end = match.groups()[:3] if match[1] else match.groups()[3:]
        if len(payload) < _SECRET_BYTES:
            return match[0]
        if kind.endswith(b"52;"):
            target = CLIPBOARD.match(payload)
            kind += target[0] if target else b""
            try:
                copied = base64.b64decode(payload[target.end() if target else 0 :], validate=True)
            except (binascii.Error, ValueError):
                copied = b""
            cleaned = self._rules.redact_bytes(copied)
            return match[0] if cleaned == copied else kind + base64.b64encode(cleaned) + end
        return kind + self._rules.redact_bytes(payload) + end

    def _erase(self, count: int) -> None:
        self._context = self._context[:-count]
        self._redacted_to = min(self._redacted_to, len(self._context))
        self._unjudged = max(0, self._unjudged - count)

    def _swallow_key(self, view: View, out: list[bytes], *, final: bool) -> bool:
        """Drop what belongs to the private key; return whether there is more to do after it."""
        assert self._key is not None  # noqa: S101 - the caller has looked
        size, goes_on = self._key.swallow(view.text, final)
        out.append(view.keep_escapes(0, view.find_raw_after(size)))
        self._raw = self._raw[view.find_raw_after(size) :]
        if goes_on:
            return False
        self._key, self._after_space = None, False
        self._context, self._redacted_to, self._unjudged, self._decided = b"", -1, 0, 0
        return bool(self._raw)

    def _publish(self, view: View, out: list[bytes], *, final: bool, silent: bool) -> bool:
        """Publish what is decided; return True if a private key begins there."""
        base = len(self._context)
        text = self._context + view.text
        spans = _Spans(base, len(text), final=final, silent=silent)
        spans.continue_open(text, base, self._stops, self._decided)
        start = max(0, min(base, base - self._unjudged) - LOOK_BACK)
        for place, verdict in self._rules.judge_all(text, start, final=final):
            if spans.take(text, place, verdict):
                break
        ready = spans.ready
        self._write(view, out, spans.merge(base, ready), base, ready)
        self._stops = spans.open_stops(ready)
        self._decided = spans.decided_after(ready)
        self._remember(text, ready, spans)
        if spans.key is None or ready != spans.key.start:
            return False
        return self._begin_key(view, out, spans.key, base)

    def _write(
        self, view: View, out: list[bytes], merged: list[Span], base: int, ready: int
    ) -> None:
        at = 0
        raw = self._raw
        for span in merged:
            end = min(span.end, ready)
            # If a span goes on beyond these bytes, what is typed over at its edge belongs to it.
            goes_on = self._redacted_to >= max(0, span.start)
            first = 0 if goes_on and span.start < base else view.find_raw(max(0, span.start - base))
            last = (
                view.find_raw(ready - base) if span.end > ready else view.find_raw_after(end - base)
            )
            out.append(raw[at:first])
            if not goes_on:
                out.append(MARK)
            self._redacted_to = max(self._redacted_to, end)
            out.append(view.keep_escapes(first, last))
            at = last
        rest = max(at, view.find_raw(ready - base))
        out.append(raw[at:rest])
        self._raw = raw[rest:]
        if rest:
            self._after_space = raw[rest - 1] == 0x20

    def _remember(self, text: bytes, ready: int, spans: _Spans) -> None:
        self._unjudged = min(ready - spans.find_undecided(ready), _MAX_UNJUDGED_BYTES)
        keep = max(0, ready - self._unjudged - 2 * LOOK_BACK)
        self._context = text[keep:ready]
        self._redacted_to = self._redacted_to - keep if self._redacted_to >= keep else -1

    def _begin_key(self, view: View, out: list[bytes], key: KeyBegins, base: int) -> bool:
        """Replace the header of a private key and swallow what follows."""
        first, last = view.find_raw(key.start - base), view.find_raw_after(key.end - base)
        out.append(MARK + view.keep_escapes(first, last))
        self._raw = self._raw[last - first :] if key.end > key.start else self._raw
        self._key = PrivateKey(key.lead)
        return True


# Shorter texts are no secret with its name. Thousands of empty ones are cheap to send.
_SECRET_BYTES = 4
# The bytes that show that another sequence begins within one.
_RESTARTED = b"\x1b]"
_END_OF_LINE = regex(rb"[\r\n]")
# The beginning of a stop of several bytes: an escaped quote, a quote in HTML or in an address, the
# end of CDATA, what ends a sentence, the end of a line in a list.
_STOP_BYTES = 12
_STOP_BEGINS = regex(
    rb"(?:\\{1,8}(?:u(?:0(?:02?)?)?)?|&[\w#]{0,5}|%[0-9]{0,4}|[.,;:)\]}]{1,3}|\r|\r?\n\r?)\Z"
)


# The run at the end of a text that is longer than what may be shown of a secret, also with a host
# behind it, as in an address; not the end of a UUID.
_LAST_RUN = regex(rb"(?<![0-9a-f]-)([A-Za-z0-9_-]{12,})(?:@[A-Za-z0-9.-]*)?\Z")
_MIXED_CASE = regex(MIXED_CASE)


class _Spans:
    """The verdicts on one text, put together: what to remove, and up to where the text may be
    published.
    """

    def __init__(self, base: int, size: int, *, final: bool, silent: bool) -> None:
        self._base = base
        self._found: list[Span] = []
        self._reach: list[tuple[int, int]] = []  # a place, and up to where its verdict goes
        self._endless: list[tuple[int, int, re.Pattern[bytes]]] = []
        self._stops: dict[re.Pattern[bytes], tuple[int, int]] = {}  # searched from, found at
        self._final = final
        self._silent = silent
        self.ready = size
        self.key: KeyBegins | None = None
        self._size = size

    def continue_open(
        self, text: bytes, base: int, stops: set[re.Pattern[bytes]], decided: int
    ) -> None:
        """Take what goes on from the text before: endless spans, and the end of a decided one."""
        self._found.append(Span(base - 1, base + decided))
        for stop in stops:
            self._take_endless(text, Endless(base - 1, base, stop))

    def take(self, text: bytes, place: int, verdict: Verdict) -> bool:
        """Note a verdict; return True if those that follow do not matter."""
        if isinstance(verdict, KeyBegins):
            if self._base < verdict.end and verdict.start <= self.ready:
                self.key = verdict._replace(start=max(self._base, verdict.start))
                self.ready = self.key.start
            return True
        if isinstance(verdict, Both):
            return any(self.take(text, place, part) for part in verdict)
        if isinstance(verdict, Wait):
            if verdict.firm or not self._silent or self._shows_generated(text, verdict.hold):
                self.ready = max(self._base, min(self.ready, verdict.hold))
            self._reach.append((place, self._size + 1))
        elif isinstance(verdict, Span):
            self._found.append(verdict)
            self._reach.append((place, verdict.end))
        elif isinstance(verdict, Endless):
            self._take_endless(text, verdict)
            self._reach.append((place, self._found[-1].end))
        return False

    def _shows_generated(self, text: bytes, hold: int) -> bool:
        """Say whether the text that silence would show ends with a run that looks generated."""
        run = _LAST_RUN.search(text, max(hold, self._size - LOOK_BACK))
        return run is not None and (looks_random(run[1]) or bool(_MIXED_CASE.search(run[1])))

    def find_undecided(self, ready: int) -> int:
        """Return the first place whose verdict reaches beyond `ready`: judging resumes there."""
        return min((place for place, end in self._reach if end > ready), default=ready)

    def _take_endless(self, text: bytes, verdict: Endless) -> None:
        end = self._find_stop(text, verdict)
        if end > self._size and not self._final:
            # What stops it may be beginning here.
            begun = _STOP_BEGINS.search(text, max(verdict.seen, self._size - _STOP_BYTES))
            if begun:
                self.ready = max(self._base, min(self.ready, begun.start()))
        self._found.append(Span(verdict.start, end))
        self._endless.append((verdict.start, end, verdict.stop))

    def _find_stop(self, text: bytes, verdict: Endless) -> int:
        """Return where the span ends, one beyond the text if it goes on.

        The last answer for a stop is reused for every place before it. Otherwise a line that is one
        long value would be searched to its end from each of its places.
        """
        begin, end = self._stops.get(verdict.stop, (0, -1))
        if not begin <= verdict.seen <= end:
            found = verdict.stop.search(text, verdict.seen)
            end = found.start() if found else self._size + 1
            self._stops[verdict.stop] = (verdict.seen, end)
        return end

    def merge(self, base: int, ready: int) -> list[Span]:
        """Return the spans in order, without overlaps, that have something to remove between `base`
        and `ready`.
        """
        merged: list[Span] = []
        for span in sorted(self._found):
            start, end = span
            if end <= base or start >= ready or start >= end:
                continue
            if merged and start < merged[-1].end:
                merged[-1] = Span(merged[-1].start, max(end, merged[-1].end))
            else:
                merged.append(Span(start, end))
        return merged

    def decided_after(self, ready: int) -> int:
        """Return how far beyond `ready` the text is sure to be removed."""
        ends = [end for start, end in self._found if start < ready < end <= self._size]
        return max(ends, default=ready) - ready

    def open_stops(self, ready: int) -> set[re.Pattern[bytes]]:
        """Return the stops of the endless spans that go on after `ready`."""
        return {stop for start, end, stop in self._endless if start < ready < end}


# --- text -----------------------------------------------------------------------------------------


class RedactedDecoder:
    """Redacted bytes to redacted text, in pieces: a character that was split is held, an invalid
    byte becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, redacted: Redacted) -> RedactedText:
        """Return the characters that are complete."""
        return RedactedText(self._decoder.decode(redacted))

    def flush(self) -> RedactedText:
        """Return what is left: U+FFFD for a character that never became complete."""
        return RedactedText(self._decoder.decode(b"", final=True))


class RedactedExcerpt:
    """The beginning and the end of a redacted stream, of so many bytes each."""

    def __init__(self, head_bytes: int, tail_bytes: int) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def add(self, redacted: Redacted) -> None:
        """Take more of the stream."""
        self._size += len(redacted)
        room = self._head_bytes - len(self._head)
        self._head += redacted[:room]
        self._tail += redacted[room:]
        del self._tail[: -self._tail_bytes]

    def text(self) -> RedactedText:
        """Return both, with a notice in between if something was left out."""
        cut = self._size - len(self._head) - len(self._tail)
        notice = f"\n[… {cut} bytes are left out here …]\n".encode() if cut > 0 else b""
        return RedactedText((self._head + notice + self._tail).decode("utf-8", "replace"))


def join(separator: str, *texts: RedactedText) -> RedactedText:
    """Join texts that are redacted already. `separator` is a literal."""
    return RedactedText(separator.join(texts))


def printable(text: _Shown, max_chars: int = _MAX_SHOWN_CHARS) -> _Shown:
    """Return a foreign text with control characters shown instead of obeyed, and bounded.

    What leaves this machine is redacted before: a secret that is cut in two is not recognised.
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: max_chars + 1]
    )
    return cast("_Shown", shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…")
