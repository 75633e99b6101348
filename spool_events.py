"""What a journal's output becomes: chunks, and the events that they are cut into.

Theory of operation. Output arrives as *chunks*: redacted text of one stream, never changed. An
*event* is a cut: a run of chunks of one stream, merged, given the next sequence number and frozen,
body bytes and nonce included, before it is sent. At most one event is in flight. It ends as
accepted, itself or a notice in its place (see `set_aside`). Each stream has a cursor, the last
chunk that was cut; streams are cut independently of each other, so that order holds within a
stream, and a marker or message is a barrier that no later output passes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# One event's `data` may have 1,048,576 UTF-16 code units; staying below leaves the gateway room.
MAX_EVENT_UNITS: Final = 1_000_000
# No character has more than two units, so a text of this many characters fits into one event.
_MAX_MESSAGE_CHARS: Final = MAX_EVENT_UNITS // 2
# Small enough that a chunk which a gateway refuses by itself costs little, large enough for speed.
MAX_CHUNK_CHARS: Final = 16_384
# Output may be merged and may pass the other output stream; everything else is a barrier.
OUTPUT_STREAMS: Final = ("stdout", "stderr")
STREAMS: Final = (*OUTPUT_STREAMS, "marker", "info", "error")


@dataclass(frozen=True)
class FrozenEvent:
    """One event as it is sent, byte for byte, until it is answered.

    `body` is the request's JSON in UTF-8. `chunk_count` says whether it can be cut smaller,
    `data_bytes` how large its chunks are in UTF-8; both also while a notice takes its place.
    `timestamp` is whole Unix seconds.
    """

    sequence: int
    type: str
    body: bytes
    timestamp: int
    nonce: str
    chunk_count: int
    data_bytes: int
    is_notice: bool


@dataclass(frozen=True)
class Totals:
    """What the gateway has accepted so far, in order: for the `finished` marker."""

    events: int
    bytes: int
    sha256: str
    refused: int


def encode_event(event_type: str, data: str, sequence: int | None = None) -> bytes:
    """Return the request body of one event: compact JSON in UTF-8."""
    number = {} if sequence is None else {"sequence": sequence}
    return json.dumps(
        {"type": event_type, "data": data, **number}, ensure_ascii=False, separators=(",", ":")
    ).encode("utf-8")


def utf16_units(text: str) -> int:
    """Return the length of `text` as the gateway counts it, in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _storable(text: str) -> str:
    """Return `text` as UTF-8 can hold it: half a character becomes U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return str(text)


def _split(text: str, stream: str) -> Iterator[str]:
    """Yield the chunks of a text, whole lines if there are any."""
    limit = MAX_CHUNK_CHARS if stream in OUTPUT_STREAMS else _MAX_MESSAGE_CHARS
    if stream == "marker":
        limit = len(text)
    start = 0
    while len(text) - start > limit:
        end = _split_point(text, start, start + limit)
        yield text[start:end]
        start = end
    yield text[start:]


def _split_point(text: str, start: int, limit: int) -> int:
    """Return where to end a chunk: not inside an escape sequence, which an event may end with."""
    newline = text.rfind("\n", start, limit)
    if newline >= 0:
        return newline + 1
    escape = text.rfind("\x1b", start + 1, limit)
    return escape if escape >= 0 else limit


class _RunningTotals:
    def __init__(self) -> None:
        self.next_sequence = 1
        self._bytes = 0
        self._refused = 0
        self._sha256 = hashlib.sha256()

    def copy(self) -> _RunningTotals:
        same = _RunningTotals()
        same.__dict__.update(self.__dict__, _sha256=self._sha256.copy())
        return same

    def add(self, texts: Iterable[str], *, is_notice: bool) -> None:
        for text in texts:
            encoded = text.encode("utf-8")
            self._sha256.update(encoded)
            self._bytes += len(encoded)
        self.next_sequence += 1
        self._refused += is_notice

    def snapshot(self) -> Totals:
        return Totals(self.next_sequence - 1, self._bytes, self._sha256.hexdigest(), self._refused)


@dataclass
class _State:
    """What is known of the file without asking it: by stream, the last chunk and the last cut."""

    last_ids: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    cursors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    in_flight: FrozenEvent | None = None
    totals: _RunningTotals = field(default_factory=_RunningTotals)
    newest_id: int = 0
    is_ended: bool = False

    def copy(self) -> _State:
        return replace(
            self,
            last_ids=dict(self.last_ids),
            cursors=dict(self.cursors),
            totals=self.totals.copy(),
        )

    @property
    def waiting(self) -> list[str]:
        """The streams of which something is not cut yet."""
        return [each for each in STREAMS if self.last_ids[each] > self.cursors[each]]

    @property
    def has_pending(self) -> bool:
        return self.in_flight is not None or bool(self.waiting)
