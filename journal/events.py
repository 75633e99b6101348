"""What a journal's output becomes: chunks, and the events that they are cut into.

Theory of operation. Output arrives as *chunks*: redacted text of one stream, never changed. An
*event* is a cut: a run of chunks of one stream, merged, given the next sequence number and frozen,
nonce included, before it is sent. Its body is not stored, because it follows from the chunks and
the number (`encode_event`). At most one event is in flight. It ends as accepted, itself or a notice
in its place (see `set_aside`). Each stream has a cursor, the last
chunk that was cut; streams are cut independently of each other, so that order holds within a
stream, and a marker or message is a barrier that no later output passes.

Output that the disk did not take is a *gap*: it is counted, and its size is told in its place.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple

from journal.store import SpoolError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from journal.store import Store
    from redact import RedactedText

# One event's `data` may have 1,048,576 UTF-16 code units; staying below leaves the gateway room.
MAX_EVENT_UNITS: Final = 1_000_000
# No character has more than two units, so a text of this many characters fits into one event.
_MAX_MESSAGE_CHARS: Final = MAX_EVENT_UNITS // 2
# Small enough that a chunk which a gateway refuses by itself costs little, large enough for speed.
MAX_CHUNK_CHARS: Final = 16_384
# Output may be merged and may pass the other output stream; everything else is a barrier.
OUTPUT_STREAMS: Final = ("stdout", "stderr")
STREAMS: Final = (*OUTPUT_STREAMS, "marker", "info", "error")


def encode_event(event_type: str, data: str, sequence: int | None = None) -> bytes:
    """Return the request body of one event: compact JSON in UTF-8.

    The bytes never change, not even in another version: what one process has frozen, the next one
    sends again. They are those of `json.dumps`, which takes four times as long for many lines.
    """
    return _encode_pieces(event_type, [data.encode("utf-8")], sequence)


def _encode_pieces(event_type: str, data: list[bytes], sequence: int | None) -> bytes:
    """Return the body of one event whose text comes in pieces: a large one is then copied once."""
    number = b"" if sequence is None else b',"sequence":%d' % sequence
    begin = b'{"type":"%b","data":"' % event_type.encode("ascii")
    return b"".join((begin, *map(_quote, data), b'"', number, b"}"))


def _quote(text: bytes) -> bytes:
    for character, escaped in _JSON_ESCAPES:
        text = text.replace(character, escaped)
    return text


# The backslash first: the others bring some.
_JSON_ESCAPES: Final = tuple(
    (each.encode("ascii"), json.dumps(each)[1:-1].encode("ascii"))
    for each in ("\\", '"', *map(chr, range(0x20)))
)


class FrozenEvent(NamedTuple):
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


class Totals(NamedTuple):
    """What the gateway has accepted so far, in order: for the `finished` marker.

    `sha256` is None if a process of version 0.1 accepted some of it when it had no disk.
    """

    events: int
    bytes: int
    sha256: str | None
    refused: int


class Gap(NamedTuple):
    """What is missing in one place: bytes and lines of output, and messages of the runner."""

    bytes: int = 0
    lines: int = 0
    messages: int = 0

    def describe(self) -> str:
        """Return it in words; empty if nothing is missing."""
        output = [f"{self.bytes} bytes of output ({self.lines} lines)"] * bool(self.bytes)
        messages = [f"{self.messages} messages of the runner"] * bool(self.messages)
        return " and ".join(output + messages)


class Outbox:
    """A journal's output on its way: what waits, what is in flight, and what was accepted.

    What it knows without asking the tables equals what they hold. Raises SpoolError where an event
    must be in flight and none is, else what SQLite raises. Not thread-safe: its owner has the lock,
    and makes each change inside a transaction and `all_or_nothing`.

    `lost` says how many bytes of output are missing, None if nobody knows; it is None if nothing
    is. `forgotten` is what version 0.1 accepted without keeping its text: events, bytes, refusals.
    """

    def __init__(
        self,
        store: Store,
        lost: tuple[int | None] | None,
        forgotten: tuple[int, int, int] | None,
    ) -> None:
        self._store = store
        self._state = self._load_state(forgotten)
        if lost is not None:
            self._state.is_whole = False
            (self._state.lost_bytes,) = lost

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Forget all changes of a block that fails."""
        before = self._state.copy()
        try:
            yield
        except BaseException:
            self._state = before
            raise

    # --- what there is -----------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Whether anything is in flight or waits to be cut."""
        return self._state.has_pending

    @property
    def is_in_flight(self) -> bool:
        """Whether an event is frozen and not answered."""
        return self._state.in_flight is not None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self._state.is_whole

    @property
    def lost_bytes(self) -> int | None:
        """How much output is missing, told already or not; None if that is not known."""
        return self._state.lost_bytes

    def totals(self) -> Totals:
        """Return what the gateway has accepted until now."""
        return self._state.totals.snapshot()

    def pending_bytes(self) -> int:
        """Return how many bytes of text wait, what is in flight included."""
        state = self._state
        waiting = 0 if state.in_flight is None else state.in_flight.data_bytes
        for stream in state.waiting:
            first_id = state.cursors[stream] + 1
            waiting += self._size_bytes(stream, first_id, state.newest_id)
        return waiting

    # --- what comes --------------------------------------------------------------------------

    def add(self, stream: str, text: RedactedText) -> None:
        """Let a text wait at the end of its stream, as one chunk or several.

        A marker, which is JSON, stays whole.
        """
        for piece in _split(storable(text), stream):
            # Its number is counted here, because a journal that leaves the disk counts on.
            self._state.newest_id += 1
            self._state.last_ids[stream] = self._state.newest_id
            self._store.execute(
                "INSERT INTO chunks (id, stream, text) VALUES (?, ?, ?)",
                (self._state.newest_id, stream, piece),
            )

    def leave_out(self, stream: str, text: RedactedText) -> None:
        """Count text that the disk did not take. Markers, which are hints by then, do not count."""
        gap = self._state.gap
        if stream in OUTPUT_STREAMS:
            size_bytes = len(storable(text).encode("utf-8"))
            self.widen_gap(Gap(gap.bytes + size_bytes, gap.lines + text.count("\n"), gap.messages))
        elif stream != "marker":
            self.widen_gap(gap._replace(messages=gap.messages + 1))

    def widen_gap(self, gap: Gap) -> None:
        """Let this be what is missing at the end, and not told yet."""
        self._state.is_whole = False
        if self._state.lost_bytes is not None:
            self._state.lost_bytes += gap.bytes - self._state.gap.bytes
        self._state.gap = gap

    @property
    def gap(self) -> Gap:
        """What is missing at the end, and not told yet."""
        return self._state.gap

    def tell_gap(self, redact: Callable[[str], RedactedText]) -> None:
        """Let a notice wait that says what is missing here."""
        told, self._state.gap = self._state.gap.describe(), Gap()
        if told:
            self.add("error", redact(f"{told} are missing here: the disk was full"))
        elif self.lost_bytes is None:
            told = "output may be missing here: the disk was full when the runner died"
            self.add("error", redact(told))

    def lose_track(self) -> None:
        """Note that nobody knows how much output is missing."""
        self._state.is_whole = False
        self._state.lost_bytes = None

    def leave_disk(self) -> None:
        """Go on in memory with what is in flight; all that waits is left out."""
        state = self._state
        state.is_whole = False
        for stream in state.waiting:
            for _, text in self._chunks(stream, state.cursors[stream] + 1, state.newest_id):
                self.leave_out(stream, text)
        sequence = 0 if state.in_flight is None else state.in_flight.sequence
        state.last_ids = dict(state.cursors)
        of_event = "(SELECT {} FROM events WHERE sequence = ?)"
        in_event = (
            f"stream = {of_event.format('stream')} AND id BETWEEN {of_event.format('first_id')} "
            f"AND {of_event.format('last_id')}"
        )
        self._store.leave_disk(
            [("events", "sequence = ?", (sequence,)), ("chunks", in_event, (sequence,) * 3)]
        )

    # --- what goes ---------------------------------------------------------------------------

    def cut(
        self,
        timestamp: int,
        nonce: str,
        *,
        max_body_bytes: int | None = None,
        max_chunks: int | None = None,
    ) -> FrozenEvent | None:
        """Return the event in flight, or freeze the next one; None when nothing waits.

        Takes the stream of the oldest waiting chunk, and of that stream all that waits, up to the
        limits and up to the next barrier, but always one chunk.
        """
        stream = self._next_stream() if self._state.in_flight is None else None
        if stream is not None:
            self._freeze(stream, timestamp, nonce, max_body_bytes, max_chunks)
        return self._state.in_flight

    def cut_smaller(
        self, timestamp: int, nonce: str, *, max_body_bytes: int | None = None
    ) -> FrozenEvent:
        """Replace the refused event in flight by one with the first half of its chunks."""
        half = max(1, self._in_flight.chunk_count // 2)
        return self._freeze(self._thaw(), timestamp, nonce, max_body_bytes, half)

    def refreeze(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Give the event in flight a fresh nonce: the old attempt can no longer be accepted."""
        event = self._in_flight
        self._store.execute(
            "UPDATE events SET timestamp = ?, nonce = ? WHERE sequence = ?",
            (timestamp, nonce, event.sequence),
        )
        self._state.in_flight = event._replace(timestamp=timestamp, nonce=nonce)
        return self._state.in_flight

    def set_aside(self, notice: RedactedText, timestamp: int, nonce: str) -> FrozenEvent:
        """Let `notice` take the place of the event in flight, with its sequence number.

        It counts as refused only once the gateway has accepted the notice.
        """
        event = self._in_flight
        notice_text = storable(notice)
        self._store.execute(
            "UPDATE events SET notice = ?, timestamp = ?, nonce = ? WHERE sequence = ?",
            (notice_text, timestamp, nonce, event.sequence),
        )
        encoded = notice_text.encode("utf-8")
        self._state.totals_then = self._state.totals.plus([encoded], is_notice=True)
        self._state.in_flight = event._replace(
            type="error",
            body=encode_event("error", notice_text, event.sequence),
            timestamp=timestamp,
            nonce=nonce,
            is_notice=True,
        )
        return self._state.in_flight

    def restore(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Undo `set_aside`: the notice was refused too, so it is the gateway that fails."""
        chunk_count = self._in_flight.chunk_count
        return self._freeze(self._thaw(), timestamp, nonce, None, chunk_count)

    def accept(self) -> None:
        """Count the event in flight as the gateway's."""
        self._store.execute(
            "UPDATE events SET state = 'accepted' WHERE sequence = ?", (self._in_flight.sequence,)
        )
        self._state.accept()

    @property
    def _in_flight(self) -> FrozenEvent:
        if self._state.in_flight is None:
            raise SpoolError("no event is in flight")
        return self._state.in_flight

    def _next_stream(self) -> str | None:
        """Return the stream whose oldest waiting chunk is the oldest of all."""
        waiting = [(self._first_waiting(stream), stream) for stream in self._state.waiting]
        return min(waiting)[1] if waiting else None

    def _first_waiting(self, stream: str) -> int:
        row = self._store.execute(
            "SELECT id FROM chunks WHERE stream = ? AND id > ? ORDER BY id LIMIT 1",
            (stream, self._state.cursors[stream]),
        ).fetchone()
        return int(row[0])

    def _chunks(self, stream: str, first_id: int, last_id: int) -> sqlite3.Cursor:
        """Return the ids and texts of chunks, oldest first, each read when it is needed."""
        return self._store.execute(
            "SELECT id, text FROM chunks WHERE stream = ? AND id BETWEEN ? AND ? ORDER BY id",
            (stream, first_id, last_id),
        )

    def _size_bytes(self, stream: str, first_id: int, last_id: int) -> int:
        # length() of a text would stop at a NUL, which terminals do print.
        row = self._store.execute(
            "SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM chunks "
            "WHERE stream = ? AND id BETWEEN ? AND ?",
            (stream, first_id, last_id),
        ).fetchone()
        return int(row[0])

    def _barrier(self, stream: str) -> float:
        """Return the id that a merge of `stream` must not pass: the next chunk of no output."""
        if stream not in OUTPUT_STREAMS:
            return 0  # what is no output is never merged
        others = [each for each in self._state.waiting if each not in OUTPUT_STREAMS]
        return min((self._first_waiting(other) for other in others), default=float("inf"))

    def _freeze(
        self,
        stream: str,
        timestamp: int,
        nonce: str,
        max_body_bytes: int | None,
        max_chunks: int | None,
    ) -> FrozenEvent:
        barrier = self._barrier(stream)
        ids: list[int] = []
        texts: list[bytes] = []
        units = body_bytes = 0
        first_id = self._state.cursors[stream] + 1
        with contextlib.closing(self._chunks(stream, first_id, self._state.newest_id)) as waiting:
            for chunk_id, text in waiting:
                units += utf16_units(text)
                is_full = units > MAX_EVENT_UNITS
                if max_body_bytes is not None:
                    body_bytes += len(encode_event(stream, text, 0))
                    is_full = is_full or body_bytes > max_body_bytes
                if ids and (is_full or chunk_id > barrier or len(ids) == max_chunks):
                    break
                ids.append(chunk_id)
                texts.append(text.encode("utf-8"))
        sequence = self._state.totals.next_sequence
        self._store.execute(
            "INSERT INTO events (sequence, stream, first_id, last_id, state, timestamp, nonce) "
            "VALUES (?, ?, ?, ?, 'frozen', ?, ?)",
            (sequence, stream, ids[0], ids[-1], timestamp, nonce),
        )
        self._state.cursors[stream] = ids[-1]
        return self._state.hold(stream, texts, None, timestamp, nonce)

    def _thaw(self) -> str:
        """Let the chunks of the event in flight wait again. Returns their stream."""
        event = self._in_flight
        stream, first_id = self._store.execute(
            "SELECT stream, first_id FROM events WHERE sequence = ?", (event.sequence,)
        ).fetchone()
        self._store.execute("DELETE FROM events WHERE sequence = ?", (event.sequence,))
        self._state.cursors[stream] = first_id - 1
        self._state.in_flight = None
        return str(stream)

    def _load_state(self, forgotten: tuple[int, int, int] | None) -> _State:
        """Read from the file what is kept in memory for speed."""
        state = _State()
        state.last_ids.update(
            self._store.execute("SELECT stream, max(id) FROM chunks GROUP BY stream")
        )
        state.cursors.update(
            self._store.execute("SELECT stream, max(last_id) FROM events GROUP BY stream")
        )
        # Version 0.1 forgot text that was cut, and no later chunk may pass for it.
        state.newest_id = max(*state.last_ids.values(), *state.cursors.values())
        if forgotten is not None:
            state.totals = _RunningTotals.resumed(*forgotten)
        rows = self._store.execute(
            "SELECT stream, first_id, last_id, state, notice, timestamp, nonce FROM events "
            "WHERE sequence >= ? ORDER BY sequence",
            (state.totals.next_sequence,),
        )
        for stream, first_id, last_id, event_state, notice, timestamp, nonce in rows.fetchall():
            texts = [text.encode("utf-8") for _, text in self._chunks(stream, first_id, last_id)]
            state.hold(stream, texts, notice, timestamp, nonce)
            if event_state == "accepted":
                state.accept()
        return state


def utf16_units(text: str) -> int:
    """Return the length of `text` as the gateway counts it, in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def storable(text: str) -> str:
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


class _RunningTotals(NamedTuple):
    """The accepted events in sum. The digest is copied before it is extended."""

    next_sequence: int = 1
    size_bytes: int = 0
    refused: int = 0
    sha256: Any = hashlib.sha256()

    @classmethod
    def resumed(cls, events: int, size_bytes: int, refused: int) -> _RunningTotals:
        """Begin with what was accepted before, whose text is gone."""
        return cls(events + 1, size_bytes, refused, None)

    def plus(self, data: list[bytes], *, is_notice: bool) -> _RunningTotals:
        """Return the totals with one more event, whose text comes in pieces."""
        digest = self.sha256 and self.sha256.copy()
        for piece in data if digest is not None else ():
            digest.update(piece)
        size_bytes = self.size_bytes + sum(map(len, data))
        return _RunningTotals(self.next_sequence + 1, size_bytes, self.refused + is_notice, digest)

    def snapshot(self) -> Totals:
        digest = self.sha256 and self.sha256.hexdigest()
        return Totals(self.next_sequence - 1, self.size_bytes, digest, self.refused)


class _State:
    """What is known of the file without asking it: by stream, the last chunk and the last cut."""

    def __init__(self) -> None:
        self.last_ids = dict.fromkeys(STREAMS, 0)
        self.cursors = dict.fromkeys(STREAMS, 0)
        self.in_flight: FrozenEvent | None = None
        self.totals = _RunningTotals()
        # Once the event in flight is accepted.
        self.totals_then = _RunningTotals()
        self.newest_id = 0
        # What the disk did not take: what of it is not told yet, whether there was any, and all.
        self.gap = Gap()
        self.is_whole = True
        self.lost_bytes: int | None = 0

    def copy(self) -> _State:
        twin = copy.copy(self)
        twin.last_ids, twin.cursors = dict(self.last_ids), dict(self.cursors)
        return twin

    def hold(
        self, stream: str, chunks: list[bytes], notice: str | None, timestamp: int, nonce: str
    ) -> FrozenEvent:
        """Let these chunks be in flight as the next event, or the notice in their place."""
        event_type, sent = stream, chunks
        if notice is not None:
            event_type, sent = "error", [notice.encode("utf-8")]
        sequence = self.totals.next_sequence
        self.totals_then = self.totals.plus(sent, is_notice=notice is not None)
        self.in_flight = FrozenEvent(
            sequence=sequence,
            type=event_type,
            body=_encode_pieces(event_type, sent, sequence),
            timestamp=timestamp,
            nonce=nonce,
            chunk_count=len(chunks),
            data_bytes=sum(map(len, chunks)),
            is_notice=notice is not None,
        )
        return self.in_flight

    def accept(self) -> None:
        """Count the event in flight."""
        self.totals, self.in_flight = self.totals_then, None

    @property
    def waiting(self) -> list[str]:
        """The streams of which something is not cut yet."""
        return [each for each in STREAMS if self.last_ids[each] > self.cursors[each]]

    @property
    def has_pending(self) -> bool:
        return self.in_flight is not None or bool(self.waiting)
