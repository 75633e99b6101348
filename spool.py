"""The durable journal of one run: output, events, executed commands and the recorded end.

Passive: it does no networking and owns no thread; whoever calls it is serialised by one lock. Its
tables, on the disk or in memory, are `spool_store`'s business.

Theory of operation. Output arrives as *chunks*: redacted text of one stream, never changed. An
*event* is a cut: a run of chunks of one stream, merged, given the next sequence number and frozen,
body bytes and nonce included, before it is sent. At most one event is in flight. It ends as
accepted, itself or a notice in its place (see `set_aside`). Each stream has a cursor, the last
chunk that was cut; streams are cut independently of each other, so that order holds within a
stream, and a marker or message is a barrier that no later output passes.

What survives. Every call that returns has committed to the write-ahead log: a kill of the process
loses nothing of it. A power cut may lose what `sync_to_disk` had not yet seen.
Source: https://www.sqlite.org/wal.html, "synchronous".

When the disk takes nothing any more, the journal goes on in memory, which is bounded: output that
does not fit is counted, and `take_gap` says how much. It goes back as soon as there is room, for
what is in memory dies with the process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable, Final, TypeVar

from spool_store import SpoolError as SpoolError  # whoever calls a journal catches it from here
from spool_store import Store, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from redact import RedactedText

# One event's `data` may have 1,048,576 UTF-16 code units; staying below leaves the gateway room.
MAX_EVENT_UNITS: Final = 1_000_000
# No character has more than two units, so a text of this many characters fits into one event.
_MAX_MESSAGE_CHARS: Final = MAX_EVENT_UNITS // 2
# Small enough that a chunk which a gateway refuses by itself costs little, large enough for speed.
MAX_CHUNK_CHARS: Final = 16_384
# A power cut loses no more than this.
SYNC_AFTER_CHARS: Final = 1_048_576
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
class Command:
    """An operator's command in the ledger.

    Neither `result` nor `error` means that it was started and has not ended.
    """

    id: str
    command: str
    result: RedactedText | None
    error: RedactedText | None
    acknowledged: bool

    @property
    def has_ended(self) -> bool:
        """Whether there is something to acknowledge."""
        return self.result is not None or self.error is not None


@dataclass(frozen=True)
class FilePart:
    """A file, or a part of one, that the gateway is to get under `name`.

    `path` is inside the run's folder; `start` and `size` are bytes.
    """

    path: str
    name: str
    start: int
    size: int


@dataclass(frozen=True)
class Upload:
    """A recorded part. `timestamp` and `nonce` are None until its first attempt is frozen."""

    id: int
    part: FilePart
    timestamp: int | None
    nonce: str | None


@dataclass(frozen=True)
class Totals:
    """What the gateway has accepted so far, in order: for the `finished` marker.

    `sha256` is None if another process accepted some of it when it had no disk: then nobody has
    all of the text any more.
    """

    events: int
    bytes: int
    sha256: str | None
    refused: int


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _survives_the_disk(method: _Method) -> _Method:
    """Let a method be tried again in memory when the disk takes nothing any more."""

    @functools.wraps(method)
    def tried(self: Spool, *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return method(self, *args, **kwargs)
            except SpoolError as error:
                if not (error.is_disk_failure and self.go_on_in_memory(str(error))):
                    raise

    return tried  # type: ignore[return-value]


class Spool:
    """The journal of one run. Thread: any; each call holds the lock for one short transaction.

    Raises SpoolError from every method; what is kept in memory then still equals the file.
    `disk_failure` says, if it is set, why the journal has left the disk; `lost_bytes` is the output
    that fitted neither there nor into memory. With `stays_on_disk` it never leaves: whoever has no
    new output to save loses nothing by an error, and sends nothing that it cannot note.
    """

    def __init__(self, path: Path, *, stays_on_disk: bool = False) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._syncing = threading.Lock()
        self._closed = False
        self._woken = False
        self._is_unsynced = False
        self._unsynced_chars = 0
        # Set when so much was written that `sync_to_disk` should not wait any longer.
        self.sync_due = threading.Event()
        self.lost_bytes = 0
        self._gap_bytes = 0
        self._store = Store(path, stays_on_disk=stays_on_disk)
        try:
            with plain_errors(path):
                self._state = self._load_state()
        except BaseException:
            self._store.close()
            raise

    @property
    def disk_failure(self) -> str | None:
        """Why the journal has left the disk last, if it ever has."""
        return self._store.failure

    def close(self) -> None:
        """Close the file; every other call from now on raises SpoolError."""
        with self._syncing, self._changed:
            if not self._closed:
                self._closed = True
                self._store.close()
                self._changed.notify_all()

    # --- output ------------------------------------------------------------------------------

    @_survives_the_disk
    def append(self, stream: str, text: RedactedText) -> None:
        """Commit redacted text to the end of a stream. Raises SpoolError (disk full, closed).

        A long text becomes several chunks, but for a marker, which is JSON and stays whole.
        """
        if not text:
            return
        with self._transaction() as state:
            if state.is_ended:
                raise SpoolError("the run has ended; nothing can follow its `finished` marker")
            self._insert_text(stream, text)

    @_survives_the_disk
    def append_last(self, compose: Callable[[Totals], RedactedText]) -> bool:
        """Commit the `finished` marker, once for the life of the journal and as its last event.

        Returns False, and does nothing, while anything else waits: the totals would be wrong.
        """
        with self._transaction() as state:
            if not state.is_ended:
                if state.has_pending:
                    return False
                self._insert_chunk("marker", _storable(compose(state.totals.snapshot())))
                self._store.execute("INSERT INTO facts VALUES ('finished', 'true')")
                state.is_ended = True
                self._changed.notify_all()
            return True

    def take_gap(self, room_chars: int = 0) -> int:
        """Return how many bytes were lost since the last call: their place is here.

        0 while so many characters do not fit either, so that one notice tells of one gap.
        """
        with self._changed:
            if not self._store.has_room(room_chars):
                return 0
            gap_bytes, self._gap_bytes = self._gap_bytes, 0
            self.lost_bytes += gap_bytes
            return gap_bytes

    def wait_pending(self, timeout_s: float) -> bool:
        """Block until something waits to be sent, or until `wake`, also one of before this call."""
        with self._reading():
            self._changed.wait_for(
                lambda: self._woken or self._closed or self._state.has_pending, timeout_s
            )
            self._woken = False
            return not self._closed and self._state.has_pending

    def wake(self) -> None:
        """Let `wait_pending` return now."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def pending(self) -> bool:
        """Whether anything is in flight or waits to be cut."""
        with self._changed:
            return self._state.has_pending

    @property
    def is_ended(self) -> bool:
        """Whether the `finished` marker is in the journal, sent or not."""
        with self._changed:
            return self._state.is_ended

    def pending_bytes(self) -> int:
        """Return how many bytes of text wait, what is in flight included."""
        with self._reading() as state:
            waiting = 0 if state.in_flight is None else state.in_flight.data_bytes
            for stream in state.waiting:
                first_id = state.cursors[stream] + 1
                _, size_bytes = self._store.measure(stream, first_id, state.newest_id)
                waiting += size_bytes
            return waiting

    # --- events ------------------------------------------------------------------------------

    @_survives_the_disk
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
        with self._transaction() as state:
            stream = self._next_stream() if state.in_flight is None else None
            if stream is not None:
                self._freeze(stream, timestamp, nonce, max_body_bytes, max_chunks)
            return state.in_flight

    @_survives_the_disk
    def cut_smaller(
        self, timestamp: int, nonce: str, *, max_body_bytes: int | None = None
    ) -> FrozenEvent:
        """Replace the refused event in flight by one with the first half of its chunks."""
        with self._transaction() as state:
            half = max(1, _in_flight(state).chunk_count // 2)
            return self._freeze(self._thaw(), timestamp, nonce, max_body_bytes, half)

    @_survives_the_disk
    def refreeze(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Give the event in flight a fresh nonce: the old attempt can no longer be accepted."""
        with self._transaction() as state:
            event = _in_flight(state)
            self._store.execute(
                "UPDATE events SET timestamp = ?, nonce = ? WHERE sequence = ?",
                (timestamp, nonce, event.sequence),
            )
            state.in_flight = replace(event, timestamp=timestamp, nonce=nonce)
            return state.in_flight

    @_survives_the_disk
    def set_aside(self, notice: RedactedText, timestamp: int, nonce: str) -> FrozenEvent:
        """Let `notice` take the place of the event in flight, with its sequence number.

        It counts as refused only once the gateway has accepted the notice.
        """
        with self._transaction() as state:
            event = _in_flight(state)
            notice_text = _storable(notice)
            body = encode_event("error", notice_text, event.sequence)
            self._store.execute(
                "UPDATE events SET notice = ?, body = ?, timestamp = ?, nonce = ? "
                "WHERE sequence = ?",
                (notice_text, body, timestamp, nonce, event.sequence),
            )
            state.in_flight = self._load_event(event.sequence)
            return state.in_flight

    @_survives_the_disk
    def restore(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Undo `set_aside`: the notice was refused too, so the gateway is ill, not the event."""
        with self._transaction() as state:
            chunk_count = _in_flight(state).chunk_count
            return self._freeze(self._thaw(), timestamp, nonce, None, chunk_count)

    @_survives_the_disk
    def accept(self) -> None:
        """Record that the gateway has the event in flight."""
        with self._transaction() as state:
            event = _in_flight(state)
            self._store.execute(
                "UPDATE events SET state = 'accepted', body = NULL WHERE sequence = ?",
                (event.sequence,),
            )
            self._count(state.totals, event.sequence)
            if self._store.is_in_memory:
                self._forget_accepted(event.sequence)
            state.in_flight = None
            self._changed.notify_all()

    def totals(self) -> Totals:
        """Return what the gateway has accepted until now."""
        with self._changed:
            return self._state.totals.snapshot()

    # --- facts -------------------------------------------------------------------------------

    @_survives_the_disk
    def put_fact(self, name: str, value: Any) -> None:
        """Record one fact of the run (its gateway, its token, its end) as JSON."""
        with self._transaction():
            self._store.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
                (name, json.dumps(value)),
            )
            self._changed.notify_all()

    def fact(self, name: str) -> Any:
        """Return a recorded fact, or None."""
        with self._reading():
            row = self._store.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    def wipe(self, name: str) -> None:
        """Remove a fact so that no byte of it stays in the folder."""
        with self._reading():
            self._store.wipe_fact(name)

    # --- the end and its files ---------------------------------------------------------------

    @_survives_the_disk
    def record_end(self, end: Mapping[str, Any], parts: Iterable[FilePart]) -> None:
        """Record how the run ended and what is to be uploaded, both or neither."""
        with self._transaction():
            self._store.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES ('end', ?)", (json.dumps(end),)
            )
            self._insert_uploads(parts)

    def _insert_uploads(self, parts: Iterable[FilePart]) -> None:
        self._store.executemany(
            "INSERT INTO uploads (path, name, start, size) VALUES (?, ?, ?, ?)",
            [(part.path, part.name, part.start, part.size) for part in parts],
        )

    def next_upload(self) -> Upload | None:
        """Return the first file that the gateway does not have."""
        with self._reading():
            row = self._store.execute(
                "SELECT id, path, name, start, size, timestamp, nonce FROM uploads "
                "WHERE NOT is_done ORDER BY id LIMIT 1"
            ).fetchone()
            return None if row is None else Upload(row[0], FilePart(*row[1:5]), *row[5:])

    def done_parts(self, path: str) -> list[FilePart]:
        """Return the parts of a file that the gateway has, or will never take, in their order."""
        with self._reading():
            rows = self._store.execute(
                "SELECT path, name, start, size FROM uploads WHERE path = ? AND is_done "
                "ORDER BY id",
                (path,),
            ).fetchall()
            return [FilePart(*row) for row in rows]

    @_survives_the_disk
    def recut_uploads(self, path: str, parts: Iterable[FilePart]) -> None:
        """Let these parts take the place of all that is not done yet of a file."""
        with self._transaction():
            self._store.execute("DELETE FROM uploads WHERE path = ? AND NOT is_done", (path,))
            self._insert_uploads(parts)

    @_survives_the_disk
    def freeze_upload(self, upload_id: int, timestamp: int, nonce: str) -> None:
        """Record the attempt before it is made."""
        with self._transaction():
            self._store.execute(
                "UPDATE uploads SET timestamp = ?, nonce = ? WHERE id = ?",
                (timestamp, nonce, upload_id),
            )

    @_survives_the_disk
    def end_upload(self, upload_id: int) -> None:
        """Record that the gateway has the file, or will never take it."""
        with self._transaction():
            self._store.execute("UPDATE uploads SET is_done = 1 WHERE id = ?", (upload_id,))

    # --- commands ----------------------------------------------------------------------------

    @_survives_the_disk
    def record_command(self, command_id: str, command: RedactedText) -> Command | None:
        """Record a command before it runs.

        Returns None if it is new, else what the ledger knows of it: it must not run again.
        """
        with self._transaction():
            known = self._command(command_id)
            if known is None:
                self._store.execute(
                    "INSERT INTO commands (id, command) VALUES (?, ?)",
                    (command_id, _storable(command)),
                )
            return known

    @_survives_the_disk
    def end_command(
        self,
        command_id: str,
        *,
        result: RedactedText | None = None,
        error: RedactedText | None = None,
        notice: RedactedText | None = None,
    ) -> Command:
        """Record how a command ended; what is returned is to be acknowledged.

        `notice` goes to the stream of errors with it, both or neither, unless the run has ended.
        """
        with self._transaction() as state:
            if notice and not state.is_ended:
                self._insert_text("error", notice)
            self._store.execute(
                "UPDATE commands SET result = ?, error = ? WHERE id = ?",
                (result and _storable(result), error and _storable(error), command_id),
            )
            ended = self._command(command_id)
            if ended is None:
                raise SpoolError(f"command {command_id} was never recorded")
            return ended

    @_survives_the_disk
    def acknowledge(self, command_id: str) -> None:
        """Record that the gateway has the command's end."""
        with self._transaction():
            self._store.execute("UPDATE commands SET acknowledged = 1 WHERE id = ?", (command_id,))

    def unacknowledged(self) -> list[Command]:
        """Return the commands that the gateway may still list."""
        with self._reading():
            rows = self._store.execute(
                "SELECT id, command, result, error, acknowledged FROM commands "
                "WHERE NOT acknowledged"
            ).fetchall()
            return [_command_of(row) for row in rows]

    # --- durability --------------------------------------------------------------------------

    def sync_to_disk(self) -> None:
        """Make what was committed survive a power cut. Blocks for the disk, not for the journal.

        Raises OSError; it is tried again the next time.
        """
        with self._syncing:
            with self._changed:
                is_needed = self._is_unsynced and not self._closed
                self._is_unsynced = False
                self._unsynced_chars = 0
                self.sync_due.clear()
            if not is_needed:
                return
            try:
                self._store.sync_to_disk()
            except OSError:
                self._is_unsynced = True
                raise

    def go_on_in_memory(self, reason: str) -> bool:
        """Leave the disk, which takes nothing any more. False if it may not.

        Several threads may have failed on the disk before the first of them comes here.
        """
        with self._changed:
            if self._closed:
                return False
            if self._store.is_in_memory:
                return True
            if not self._store.leave_disk(reason):
                return False
            self._changed.notify_all()
            return True

    def return_to_disk(self, *, when_there_is_room: bool = False) -> bool:
        """Go back to the disk, if it was left. False if it does not take what is in memory.

        `when_there_is_room`: do not even try unless there is some to spare.
        """
        with self._changed:
            if self._closed or (when_there_is_room and not self._store.has_disk_room()):
                return False
            has_returned = self._store.return_to_disk()
            self._is_unsynced = self._is_unsynced or has_returned
            return has_returned

    # --- inside ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[_State]:
        with self._changed:
            if self._closed:
                raise SpoolError("the journal is closed")
            with plain_errors(self._path, is_on_disk=not self._store.is_in_memory):
                yield self._state

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[_State]:
        """Change the file, and what is kept of it in memory: both or neither."""
        with self._reading() as state:
            before = state.copy()
            try:
                with self._store.transaction():
                    yield state
            except BaseException:
                self._state = before
                raise
            self._is_unsynced = True

    def _insert_text(self, stream: str, text: RedactedText) -> None:
        if self._store.is_in_memory and not self._take_room(stream, len(text)):
            self._gap_bytes += len(_storable(text).encode("utf-8"))
            return
        for piece in _split(_storable(text), stream):
            self._insert_chunk(stream, piece)
        self._unsynced_chars += len(text)
        if self._unsynced_chars >= SYNC_AFTER_CHARS:
            self.sync_due.set()
        self._changed.notify_all()

    def _insert_chunk(self, stream: str, text: str) -> None:
        self._state.newest_id += 1
        self._state.last_ids[stream] = self._state.newest_id
        self._store.insert_chunk(self._state.newest_id, stream, text)

    def _take_room(self, stream: str, chars: int) -> bool:
        """Whether memory has room for a text; for a message there always is."""
        if stream in OUTPUT_STREAMS and not self._store.has_room(chars):
            return False
        self._store.take_room(chars)
        return True

    def _forget_accepted(self, sequence: int) -> None:
        """Make room: what the gateway has need not be kept in memory, but for its totals."""
        stream, last_id = self._store.execute(
            "SELECT stream, last_id FROM events WHERE sequence = ?", (sequence,)
        ).fetchone()
        if self._store.forget(stream, last_id):
            totals = self._state.totals.snapshot()
            self._store.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES ('accepted', ?)",
                (json.dumps([totals.events, totals.bytes, totals.refused]),),
            )

    def _next_stream(self) -> str | None:
        """Return the stream whose oldest waiting chunk is the oldest of all."""
        waiting = [(self._first_waiting(stream), stream) for stream in self._state.waiting]
        return min(waiting)[1] if waiting else None

    def _first_waiting(self, stream: str) -> int:
        waiting = self._store.chunks(stream, self._state.cursors[stream] + 1, self._state.newest_id)
        with contextlib.closing(waiting):  # type: ignore[type-var]
            return next(waiting)[0]

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
        texts: list[str] = []
        units = body_bytes = 0
        waiting = self._store.chunks(stream, self._state.cursors[stream] + 1, self._state.newest_id)
        with contextlib.closing(waiting):  # type: ignore[type-var]
            for chunk_id, text in waiting:
                units += utf16_units(text)
                is_full = units > MAX_EVENT_UNITS
                if max_body_bytes is not None:
                    body_bytes += len(encode_event(stream, text, 0))
                    is_full = is_full or body_bytes > max_body_bytes
                if ids and (is_full or chunk_id > barrier or len(ids) == max_chunks):
                    break
                ids.append(chunk_id)
                texts.append(text)
        sequence = self._state.totals.next_sequence
        body = encode_event(stream, "".join(texts), sequence)
        self._store.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, 'frozen', NULL, ?, ?, ?)",
            (sequence, stream, ids[0], ids[-1], body, timestamp, nonce),
        )
        self._state.cursors[stream] = ids[-1]
        event = self._load_event(sequence)
        self._state.in_flight = event
        return event

    def _thaw(self) -> str:
        """Let the chunks of the event in flight wait again. Returns their stream."""
        event = _in_flight(self._state)
        stream, first_id = self._store.execute(
            "SELECT stream, first_id FROM events WHERE sequence = ?", (event.sequence,)
        ).fetchone()
        self._store.execute("DELETE FROM events WHERE sequence = ?", (event.sequence,))
        self._state.cursors[stream] = first_id - 1
        self._state.in_flight = None
        return str(stream)

    def _load_event(self, sequence: int) -> FrozenEvent:
        stream, first_id, last_id, notice, body, timestamp, nonce = self._store.execute(
            "SELECT stream, first_id, last_id, notice, body, timestamp, nonce FROM events "
            "WHERE sequence = ?",
            (sequence,),
        ).fetchone()
        chunk_count, data_bytes = self._store.measure(stream, first_id, last_id)
        return FrozenEvent(
            sequence=sequence,
            type=stream if notice is None else "error",
            body=bytes(body),
            timestamp=timestamp,
            nonce=nonce,
            chunk_count=chunk_count,
            data_bytes=data_bytes,
            is_notice=notice is not None,
        )

    def _load_state(self) -> _State:
        """Read from the file what is kept in memory for speed."""
        state = _State()
        state.last_ids.update(
            self._store.execute("SELECT stream, max(id) FROM chunks GROUP BY stream")
        )
        state.cursors.update(
            self._store.execute("SELECT stream, max(last_id) FROM events GROUP BY stream")
        )
        # What was cut may have been forgotten, and no later chunk may pass for it.
        state.newest_id = max(*state.last_ids.values(), *state.cursors.values())
        row = self._store.execute("SELECT 1 FROM facts WHERE name = 'finished'").fetchone()
        state.is_ended = row is not None
        row = self._store.execute("SELECT value FROM facts WHERE name = 'accepted'").fetchone()
        if row is not None:
            state.totals.resume(*json.loads(row[0]))
        rows = self._store.execute(
            "SELECT sequence, state FROM events WHERE sequence >= ? ORDER BY sequence",
            (state.totals.next_sequence,),
        )
        for sequence, event_state in rows.fetchall():
            if event_state == "accepted":
                self._count(state.totals, sequence)
            else:
                state.in_flight = self._load_event(sequence)
        return state

    def _count(self, totals: _RunningTotals, sequence: int) -> None:
        """Add what the gateway accepted under this sequence number."""
        stream, first_id, last_id, notice = self._store.execute(
            "SELECT stream, first_id, last_id, notice FROM events WHERE sequence = ?", (sequence,)
        ).fetchone()
        if notice is not None:
            totals.add([notice], is_notice=True)
        else:
            texts = (text for _, text in self._store.chunks(stream, first_id, last_id))
            totals.add(texts, is_notice=False)

    def _command(self, command_id: str) -> Command | None:
        row = self._store.execute(
            "SELECT id, command, result, error, acknowledged FROM commands WHERE id = ?",
            (command_id,),
        ).fetchone()
        return None if row is None else _command_of(row)


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
        self._sha256: Any = hashlib.sha256()

    def copy(self) -> _RunningTotals:
        same = _RunningTotals()
        same.__dict__.update(self.__dict__, _sha256=self._sha256 and self._sha256.copy())
        return same

    def resume(self, events: int, size_bytes: int, refused: int) -> None:
        """Begin with what was accepted before, whose text is gone."""
        self.next_sequence, self._bytes, self._refused = events + 1, size_bytes, refused
        self._sha256 = None

    def add(self, texts: Iterable[str], *, is_notice: bool) -> None:
        for text in texts:
            encoded = text.encode("utf-8")
            if self._sha256 is not None:
                self._sha256.update(encoded)
            self._bytes += len(encoded)
        self.next_sequence += 1
        self._refused += is_notice

    def snapshot(self) -> Totals:
        digest = self._sha256 and self._sha256.hexdigest()
        return Totals(self.next_sequence - 1, self._bytes, digest, self._refused)


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


def _in_flight(state: _State) -> FrozenEvent:
    if state.in_flight is None:
        raise SpoolError("no event is in flight")
    return state.in_flight


def _command_of(row: tuple[Any, ...]) -> Command:
    command_id, command, result, error, acknowledged = row
    return Command(command_id, command, result, error, bool(acknowledged))
