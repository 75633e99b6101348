"""The durable journal of one run: output, events, executed commands and the recorded end.

Passive: it does no networking and owns no thread; whoever calls it is serialised by one lock. How
output becomes events is `journal.events`' business, and its tables, on the disk or in memory, are
`journal.store`'s.

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
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Final, TypeVar

from journal.events import OUTPUT_STREAMS, Outbox, storable
from journal.store import SpoolError as SpoolError  # whoever calls a journal catches it from here
from journal.store import Store, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from journal.events import FrozenEvent, Totals
    from redact import RedactedText

# A power cut loses no more than this.
SYNC_AFTER_CHARS: Final = 1_048_576


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
                self._outbox = Outbox(self._store)
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
        with self._transaction() as outbox:
            if outbox.is_ended:
                raise SpoolError("the run has ended; nothing can follow its `finished` marker")
            self._insert_text(stream, text)

    @_survives_the_disk
    def append_last(self, compose: Callable[[Totals], RedactedText]) -> bool:
        """Commit the `finished` marker, once for the life of the journal and as its last event.

        Returns False, and does nothing, while anything else waits: the totals would be wrong.
        """
        with self._transaction() as outbox:
            if not outbox.is_ended:
                if outbox.has_pending:
                    return False
                outbox.end(compose(outbox.totals))
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
                lambda: self._woken or self._closed or self._outbox.has_pending, timeout_s
            )
            self._woken = False
            return not self._closed and self._outbox.has_pending

    def wake(self) -> None:
        """Let `wait_pending` return now."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def has_pending(self) -> bool:
        """Whether anything is in flight or waits to be cut."""
        with self._changed:
            return self._outbox.has_pending

    @property
    def is_ended(self) -> bool:
        """Whether the `finished` marker is in the journal, sent or not."""
        with self._changed:
            return self._outbox.is_ended

    def pending_bytes(self) -> int:
        """Return how many bytes of text wait, what is in flight included."""
        with self._reading() as outbox:
            return outbox.pending_bytes()

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
        with self._transaction() as outbox:
            return outbox.cut(timestamp, nonce, max_body_bytes, max_chunks)

    @_survives_the_disk
    def cut_smaller(
        self, timestamp: int, nonce: str, *, max_body_bytes: int | None = None
    ) -> FrozenEvent:
        """Replace the refused event in flight by one with the first half of its chunks."""
        with self._transaction() as outbox:
            return outbox.cut_smaller(timestamp, nonce, max_body_bytes)

    @_survives_the_disk
    def refreeze(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Give the event in flight a fresh nonce: the old attempt can no longer be accepted."""
        with self._transaction() as outbox:
            return outbox.refreeze(timestamp, nonce)

    @_survives_the_disk
    def set_aside(self, notice: RedactedText, timestamp: int, nonce: str) -> FrozenEvent:
        """Let `notice` take the place of the event in flight, with its sequence number.

        It counts as refused only once the gateway has accepted the notice.
        """
        with self._transaction() as outbox:
            return outbox.set_aside(notice, timestamp, nonce)

    @_survives_the_disk
    def restore(self, timestamp: int, nonce: str) -> FrozenEvent:
        """Undo `set_aside`: the notice was refused too, so the gateway is ill, not the event."""
        with self._transaction() as outbox:
            return outbox.restore(timestamp, nonce)

    @_survives_the_disk
    def accept(self) -> None:
        """Record that the gateway has the event in flight."""
        with self._transaction() as outbox:
            outbox.accept()
            self._changed.notify_all()

    def totals(self) -> Totals:
        """Return what the gateway has accepted until now."""
        with self._changed:
            return self._outbox.totals

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
                    (command_id, storable(command)),
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
        with self._transaction() as outbox:
            if notice and not outbox.is_ended:
                self._insert_text("error", notice)
            self._store.execute(
                "UPDATE commands SET result = ?, error = ? WHERE id = ?",
                (result and storable(result), error and storable(error), command_id),
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
    def _reading(self) -> Iterator[Outbox]:
        with self._changed:
            if self._closed:
                raise SpoolError("the journal is closed")
            with plain_errors(self._path, is_on_disk=not self._store.is_in_memory):
                yield self._outbox

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Outbox]:
        """Change the file, and what is kept of it in memory: both or neither."""
        with self._reading() as outbox:
            with outbox.all_or_nothing(), self._store.transaction():
                yield outbox
            self._is_unsynced = True

    def _insert_text(self, stream: str, text: RedactedText) -> None:
        if self._store.is_in_memory and not self._take_room(stream, len(text)):
            self._gap_bytes += len(storable(text).encode("utf-8"))
            return
        self._outbox.add(stream, text)
        self._unsynced_chars += len(text)
        if self._unsynced_chars >= SYNC_AFTER_CHARS:
            self.sync_due.set()
        self._changed.notify_all()

    def _take_room(self, stream: str, chars: int) -> bool:
        """Whether memory has room for a text; for a message there always is."""
        if stream in OUTPUT_STREAMS and not self._store.has_room(chars):
            return False
        self._store.take_room(chars)
        return True

    def _command(self, command_id: str) -> Command | None:
        row = self._store.execute(
            "SELECT id, command, result, error, acknowledged FROM commands WHERE id = ?",
            (command_id,),
        ).fetchone()
        return None if row is None else _command_of(row)


def _command_of(row: tuple[Any, ...]) -> Command:
    command_id, command, result, error, acknowledged = row
    return Command(command_id, command, result, error, bool(acknowledged))
