"""The durable journal of one run: output, events, executed commands and the recorded end.

A passive store in one SQLite file. It does no networking and owns no thread; whoever calls it is
serialised by one lock around one connection.

Theory of operation. Output arrives as *chunks*: redacted text of one stream, never changed. An
*event* is a cut: a run of chunks of one stream, merged, given the next sequence number and frozen,
body bytes and nonce included, before it is sent. At most one event is in flight. It ends as
accepted, itself or a notice in its place (see `set_aside`). Each stream has a cursor, the last
chunk that was cut; streams are cut independently of each other, so that order holds within a
stream, and a marker or message is a barrier that no later output passes.

What survives. Every call that returns has committed to the write-ahead log: a kill of the process
loses nothing of it. A power cut may lose what `sync_to_disk` had not yet seen.
Source: https://www.sqlite.org/wal.html, "synchronous".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redact import RedactedText

# One event's `data` may have 1,048,576 UTF-16 code units; staying below leaves the gateway room.
MAX_EVENT_UNITS: Final = 1_000_000
# Small enough that a chunk which a gateway refuses by itself costs little, large enough for speed.
MAX_CHUNK_CHARS: Final = 16_384
# A power cut loses no more than this.
SYNC_AFTER_CHARS: Final = 1_048_576
# Output may be merged and may pass the other output stream; everything else is a barrier.
OUTPUT_STREAMS: Final = ("stdout", "stderr")
STREAMS: Final = (*OUTPUT_STREAMS, "marker", "info", "error")

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX chunks_by_stream ON chunks (stream, id);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('frozen', 'accepted')),
    notice TEXT,
    body BLOB,
    timestamp INTEGER NOT NULL,
    nonce TEXT NOT NULL
);
CREATE TABLE commands (
    id TEXT PRIMARY KEY,
    command TEXT NOT NULL,
    result TEXT,
    error TEXT,
    acknowledged INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""


class SpoolError(Exception):
    """The journal cannot be written or read; the message is a plain sentence for the user."""


@dataclass(frozen=True)
class FrozenEvent:
    """One event as it is sent, byte for byte, until it is answered.

    `body` is the request's JSON in UTF-8. `chunk_count` says whether it can be cut smaller.
    `timestamp` is whole Unix seconds, `data_bytes` the size of the UTF-8 of `data`.
    """

    sequence: int
    type: str
    body: bytes
    timestamp: int
    nonce: str
    chunk_count: int
    last_id: int
    data_bytes: int


@dataclass(frozen=True)
class Command:
    """An operator's command in the ledger.

    Neither `result` nor `error` means that it was started and has not ended.
    """

    id: str
    command: str
    result: str | None
    error: str | None
    acknowledged: bool

    @property
    def has_ended(self) -> bool:
        """Whether there is something to acknowledge."""
        return self.result is not None or self.error is not None


@dataclass(frozen=True)
class Totals:
    """What the gateway has accepted so far, in order: for the `finished` marker."""

    events: int
    bytes: int
    sha256: str
    refused: int


class Spool:
    """The journal of one run. Thread: any; each call holds the lock for one short transaction."""

    def __init__(self, path: Path) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._unsynced_chars = 0
        # Set when so much was written that `sync_to_disk` should not wait any longer.
        self.sync_due = threading.Event()
        with _sqlite_errors(path):
            self._db = sqlite3.connect(
                os.fspath(path), isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.execute("PRAGMA secure_delete = ON")
            mode = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise SpoolError(
                    f"{path.parent} is on a file system that SQLite's write-ahead log cannot use; "
                    "set CLAUDE_RUNNER_DATA_DIR to a local folder"
                )
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(
                    f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;"
                )
            elif version != _SCHEMA_VERSION:
                raise SpoolError(f"{path} was written by another version of claude-runner")
        self._path = path
        # A descriptor of the log alone: closing one of the database file would drop SQLite's locks.
        self._wal_fd = os.open(f"{os.fspath(path)}-wal", os.O_RDWR)
        self._in_flight: FrozenEvent | None = None
        self._load_state()

    def close(self) -> None:
        """Close the file; an append by another thread from now on raises SpoolError."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._db.close()
                os.close(self._wal_fd)
                self._changed.notify_all()

    # --- output ------------------------------------------------------------------------------

    def append(self, stream: str, text: RedactedText) -> None:
        """Commit redacted text to the end of a stream. Raises SpoolError (disk full, closed)."""
        if not text:
            return
        pieces = [text[at : at + MAX_CHUNK_CHARS] for at in range(0, len(text), MAX_CHUNK_CHARS)]
        if stream not in OUTPUT_STREAMS:
            pieces = [text]
        with self._changed:
            last_id = self._last_ids[stream]
            with self._transaction():
                for piece in pieces:
                    row = self._db.execute(
                        "INSERT INTO chunks (stream, text) VALUES (?, ?)", (stream, piece)
                    )
                    last_id = int(row.lastrowid or 0)
            self._last_ids[stream] = last_id
            self._unsynced_chars += len(text)
            if self._unsynced_chars >= SYNC_AFTER_CHARS:
                self.sync_due.set()
            self._changed.notify_all()

    def append_last(self, text: RedactedText) -> None:
        """Commit the `finished` marker, once for the life of the journal."""
        with self._changed:
            with self._transaction():
                row = self._db.execute(
                    "INSERT INTO chunks (stream, text) VALUES ('marker', ?)", (text,)
                )
                self._db.execute("INSERT INTO facts VALUES ('finished', 'true')")
            self._last_ids["marker"] = int(row.lastrowid or 0)
            self._changed.notify_all()

    def wait_pending(self, timeout_s: float | None) -> bool:
        """Block until something waits to be sent or a state changed (see `wake`)."""
        with self._changed:
            if self._closed:
                return False
            if not self._has_pending():
                self._changed.wait(timeout_s)
            return self._has_pending()

    def wake(self) -> None:
        """Let `wait_pending` return now."""
        with self._changed:
            self._changed.notify_all()

    @property
    def pending(self) -> bool:
        """Whether anything is in flight or waits to be cut."""
        with self._changed:
            return self._has_pending()

    def pending_bytes(self) -> int:
        """Return how many bytes of text wait, what is in flight included."""
        with self._transaction():
            waiting = 0 if self._in_flight is None else self._in_flight.data_bytes
            for stream in STREAMS:
                (size,) = self._db.execute(
                    # length() of a text would stop at a NUL, which terminals do print.
                    "SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM chunks "
                    "WHERE stream = ? AND id > ?",
                    (stream, self._cursors[stream]),
                ).fetchone()
                waiting += size
            return int(waiting)

    # --- events ------------------------------------------------------------------------------

    def cut(
        self, timestamp: int, nonce: str, max_units: int = MAX_EVENT_UNITS
    ) -> FrozenEvent | None:
        """Return the event in flight, or freeze the next one; None when nothing waits.

        Takes the stream of the oldest waiting chunk, and of that stream all that waits, up to
        `max_units` UTF-16 code units and up to the next barrier, but always one chunk.
        """
        with self._event_transaction():
            if self._in_flight is None:
                stream = self._next_stream()
                if stream is not None:
                    self._freeze(stream, timestamp, nonce, max_units)
            return self._in_flight

    def cut_smaller(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Replace the refused event in flight by one with the first half of its chunks."""
        with self._event_transaction():
            event = self._require_in_flight()
            stream, first_id = self._db.execute(
                "SELECT stream, first_id FROM events WHERE sequence = ?", (event.sequence,)
            ).fetchone()
            self._db.execute("DELETE FROM events WHERE sequence = ?", (event.sequence,))
            self._cursors[stream] = first_id - 1
            return self._freeze(
                stream, timestamp, nonce, MAX_EVENT_UNITS, max_chunks=max(1, event.chunk_count // 2)
            )

    def refreeze(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Give the event in flight a fresh nonce: the old attempt can no longer be accepted."""
        with self._event_transaction():
            event = self._require_in_flight()
            self._db.execute(
                "UPDATE events SET timestamp = ?, nonce = ? WHERE sequence = ?",
                (timestamp, nonce, event.sequence),
            )
            return self._load_in_flight(event.sequence)

    def set_aside(self, notice: RedactedText, timestamp: int, nonce: str) -> FrozenEvent:
        """Let `notice` take the place of the event in flight, with its sequence number.

        It counts as refused only once the gateway has accepted the notice.
        """
        with self._event_transaction():
            event = self._require_in_flight()
            self._db.execute(
                "UPDATE events SET notice = ?, body = ?, timestamp = ?, nonce = ? "
                "WHERE sequence = ?",
                (
                    notice,
                    encode_event("error", notice, event.sequence),
                    timestamp,
                    nonce,
                    event.sequence,
                ),
            )
            return self._load_in_flight(event.sequence)

    def restore(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Undo `set_aside`: the notice was refused too, so the gateway is ill, not the event."""
        with self._event_transaction():
            event = self._require_in_flight()
            stream, first_id = self._db.execute(
                "SELECT stream, first_id FROM events WHERE sequence = ?", (event.sequence,)
            ).fetchone()
            self._db.execute("DELETE FROM events WHERE sequence = ?", (event.sequence,))
            self._cursors[stream] = first_id - 1
            return self._freeze(stream, timestamp, nonce, MAX_EVENT_UNITS, max_chunks=1)

    def accept(self) -> None:
        """Record that the gateway has the event in flight."""
        with self._event_transaction():
            event = self._require_in_flight()
            self._db.execute(
                "UPDATE events SET state = 'accepted', body = NULL WHERE sequence = ?",
                (event.sequence,),
            )
            stream, first_id, last_id, notice = self._db.execute(
                "SELECT stream, first_id, last_id, notice FROM events WHERE sequence = ?",
                (event.sequence,),
            ).fetchone()
            self._totals.add(self._event_data(stream, first_id, last_id, notice), notice)
            self._in_flight = None
            self._changed.notify_all()

    def totals(self) -> Totals:
        """Return what the gateway has accepted until now."""
        with self._changed:
            return self._totals.snapshot()

    # --- facts -------------------------------------------------------------------------------

    def put_fact(self, name: str, value: Any) -> None:
        """Record one fact of the run (its gateway, its token, its end) as JSON."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
                (name, json.dumps(value)),
            )
            self._changed.notify_all()

    def fact(self, name: str) -> Any:
        """Return a recorded fact, or None."""
        with self._transaction():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    # --- commands ----------------------------------------------------------------------------

    def record_command(self, command_id: str, command: RedactedText) -> Command | None:
        """Record a command before it runs.

        Returns None if it is new, else what the ledger knows of it: it must not run again.
        """
        with self._transaction():
            known = self._command(command_id)
            if known is None:
                self._db.execute(
                    "INSERT INTO commands (id, command) VALUES (?, ?)", (command_id, command)
                )
            return known

    def end_command(
        self,
        command_id: str,
        *,
        result: RedactedText | None = None,
        error: RedactedText | None = None,
    ) -> Command:
        """Record how a command ended; what is returned is to be acknowledged."""
        with self._transaction():
            self._db.execute(
                "UPDATE commands SET result = ?, error = ? WHERE id = ?",
                (result, error, command_id),
            )
            ended = self._command(command_id)
            if ended is None:
                raise SpoolError(f"command {command_id} was never recorded")
            return ended

    def acknowledge(self, command_id: str) -> None:
        """Record that the gateway has the command's end."""
        with self._transaction():
            self._db.execute("UPDATE commands SET acknowledged = 1 WHERE id = ?", (command_id,))

    def unacknowledged(self) -> list[Command]:
        """Return the commands that the gateway may still list."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT id, command, result, error, acknowledged FROM commands "
                "WHERE NOT acknowledged"
            ).fetchall()
            return [_command_of(row) for row in rows]

    # --- durability --------------------------------------------------------------------------

    def sync_to_disk(self) -> None:
        """Make what was committed survive a power cut. Blocks for the disk, holds no lock."""
        with self._changed:
            is_needed = self._unsynced_chars > 0 and not self._closed
            self._unsynced_chars = 0
            self.sync_due.clear()
        if is_needed:
            os.fsync(self._wal_fd)

    # --- inside ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise SpoolError("the journal is closed")
            with _sqlite_errors(self._path):
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    # A full disk rolls back by itself, and then there is no transaction to end.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise

    @contextlib.contextmanager
    def _event_transaction(self) -> Iterator[None]:
        """Run a transaction that also changes what is kept in memory; undo both if it fails."""
        with self._changed:
            try:
                with self._transaction():
                    yield
            except BaseException:
                if not self._closed:
                    self._load_state()
                raise

    def _has_pending(self) -> bool:
        return self._in_flight is not None or any(
            self._last_ids[stream] > self._cursors[stream] for stream in STREAMS
        )

    def _next_stream(self) -> str | None:
        """Return the stream whose oldest waiting chunk is the oldest of all."""
        oldest: tuple[int, str] | None = None
        for stream in STREAMS:
            if self._last_ids[stream] > self._cursors[stream]:
                first = self._first_waiting(stream)
                if oldest is None or first < oldest[0]:
                    oldest = (first, stream)
        return None if oldest is None else oldest[1]

    def _first_waiting(self, stream: str) -> int:
        row = self._db.execute(
            "SELECT min(id) FROM chunks WHERE stream = ? AND id > ?",
            (stream, self._cursors[stream]),
        ).fetchone()
        return int(row[0])

    def _barrier(self, stream: str) -> int:
        """Return the id that a cut of `stream` must not pass: the next waiting non-output chunk."""
        if stream not in OUTPUT_STREAMS:
            return self._cursors[stream] + 1
        waiting = [
            self._first_waiting(other)
            for other in STREAMS
            if other not in OUTPUT_STREAMS and self._last_ids[other] > self._cursors[other]
        ]
        return min(waiting, default=self._last_ids[stream] + 1)

    def _freeze(
        self,
        stream: str,
        timestamp: int,
        nonce: str,
        max_units: int,
        max_chunks: int | None = None,
    ) -> FrozenEvent:
        rows = self._db.execute(
            "SELECT id, text FROM chunks WHERE stream = ? AND id > ? ORDER BY id",
            (stream, self._cursors[stream]),
        )
        barrier = self._barrier(stream)
        ids: list[int] = []
        texts: list[str] = []
        units = 0
        for chunk_id, text in rows:
            units += utf16_units(text)
            if ids and (units > max_units or chunk_id >= barrier or len(ids) == max_chunks):
                break
            ids.append(chunk_id)
            texts.append(text)
        rows.close()
        sequence = self._totals.next_sequence
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, 'frozen', NULL, ?, ?, ?)",
            (
                sequence,
                stream,
                ids[0],
                ids[-1],
                encode_event(stream, "".join(texts), sequence),
                timestamp,
                nonce,
            ),
        )
        self._cursors[stream] = ids[-1]
        return self._load_in_flight(sequence)

    def _require_in_flight(self) -> FrozenEvent:
        if self._in_flight is None:
            raise SpoolError("no event is in flight")
        return self._in_flight

    def _load_in_flight(self, sequence: int) -> FrozenEvent:
        stream, first_id, last_id, notice, body, timestamp, nonce = self._db.execute(
            "SELECT stream, first_id, last_id, notice, body, timestamp, nonce FROM events "
            "WHERE sequence = ?",
            (sequence,),
        ).fetchone()
        chunk_count, data_bytes = self._db.execute(
            "SELECT count(*), sum(length(CAST(text AS BLOB))) FROM chunks "
            "WHERE stream = ? AND id BETWEEN ? AND ?",
            (stream, first_id, last_id),
        ).fetchone()
        self._in_flight = FrozenEvent(
            sequence=sequence,
            type=stream if notice is None else "error",
            body=bytes(body),
            timestamp=timestamp,
            nonce=nonce,
            chunk_count=chunk_count,
            last_id=last_id,
            data_bytes=data_bytes,
        )
        return self._in_flight

    def _load_state(self) -> None:
        """Read from the file what is kept in memory for speed."""
        self._cursors = dict.fromkeys(STREAMS, 0)
        self._cursors.update(
            self._db.execute("SELECT stream, max(last_id) FROM events GROUP BY stream")
        )
        self._last_ids = dict.fromkeys(STREAMS, 0)
        self._last_ids.update(
            self._db.execute("SELECT stream, max(id) FROM chunks GROUP BY stream")
        )
        self._totals = _RunningTotals()
        self._in_flight = None
        rows = self._db.execute(
            "SELECT sequence, stream, first_id, last_id, state, notice FROM events "
            "ORDER BY sequence"
        ).fetchall()
        for sequence, stream, first_id, last_id, state, notice in rows:
            if state == "accepted":
                self._totals.add(self._event_data(stream, first_id, last_id, notice), notice)
            else:
                self._load_in_flight(sequence)

    def _event_data(
        self, stream: str, first_id: int, last_id: int, notice: str | None
    ) -> Iterator[str]:
        if notice is not None:
            yield notice
            return
        for (text,) in self._db.execute(
            "SELECT text FROM chunks WHERE stream = ? AND id BETWEEN ? AND ? ORDER BY id",
            (stream, first_id, last_id),
        ):
            yield text

    def _command(self, command_id: str) -> Command | None:
        row = self._db.execute(
            "SELECT id, command, result, error, acknowledged FROM commands WHERE id = ?",
            (command_id,),
        ).fetchone()
        return None if row is None else _command_of(row)


def encode_event(event_type: str, data: str, sequence: int) -> bytes:
    """Return the request body of one event: compact JSON in UTF-8."""
    return json.dumps(
        {"type": event_type, "data": data, "sequence": sequence},
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8")


def utf16_units(text: str) -> int:
    """Return the length of `text` as the gateway counts it, in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


class _RunningTotals:
    def __init__(self) -> None:
        self.next_sequence = 1
        self._bytes = 0
        self._refused = 0
        self._sha256 = hashlib.sha256()

    def add(self, texts: Iterator[str], notice: str | None) -> None:
        for text in texts:
            encoded = text.encode("utf-8")
            self._sha256.update(encoded)
            self._bytes += len(encoded)
        self.next_sequence += 1
        self._refused += notice is not None

    def snapshot(self) -> Totals:
        return Totals(self.next_sequence - 1, self._bytes, self._sha256.hexdigest(), self._refused)


def _command_of(row: tuple[Any, ...]) -> Command:
    command_id, command, result, error, acknowledged = row
    return Command(command_id, command, result, error, bool(acknowledged))


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(f"the journal {path} cannot be used: {error}") from error
