"""The durable journal of one run: output, events, executed commands and the recorded end.

It does no networking; one lock serialises all callers. Here are the facts of the run, its uploads
and the ledger of commands, with their SQL. How output becomes events is
`journal.events`' business; the connection, and what happens without a disk, is `journal.store`'s.

What survives. Every call that returns has committed to the write-ahead log: a kill of the process
loses nothing of it. A power cut may lose what `Syncer` had not yet made durable.
Source: https://www.sqlite.org/wal.html, "synchronous".

When the disk takes nothing any more, the journal goes on in memory, which is bounded. It goes back
as soon as there is room, for what is in memory dies with the process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Final, TypeVar

from journal.events import Outbox, storable
from journal.store import SpoolError as SpoolError  # for the callers of the journal
from journal.store import Store, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Concatenate, ParamSpec

    from journal.events import Totals
    from redact import RedactedText

    _P = ParamSpec("_P")
_T = TypeVar("_T")

# A power cut loses no more than this.
_SYNC_AFTER_CHARS: Final = 1_048_576


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


def _locked(
    method: Callable[Concatenate[Outbox, _P], _T],
) -> Callable[Concatenate[Spool, _P], _T]:
    """Make a method of the outbox one of the journal, under its lock."""

    @functools.wraps(method)
    def locked(self: Spool, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._reading():
            return method(self._outbox, *args, **kwargs)

    return locked


def _commits(
    method: Callable[Concatenate[Spool, _P], _T],
) -> Callable[Concatenate[Spool, _P], _T]:
    """Make a method one transaction, tried again in memory when the disk takes nothing any more."""

    @functools.wraps(method)
    def committed(self: Spool, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        while True:
            try:
                with self._transaction():
                    return method(self, *args, **kwargs)
            except SpoolError as error:
                if not (error.is_disk_failure and self.go_on_in_memory(str(error))):
                    raise

    return committed


class Spool:
    """The journal of one run. Thread: any; each call holds the lock for one short transaction.

    Raises SpoolError from every method; what is kept in memory then still equals the file.
    With `redact`, for a caller with new output, the journal continues in memory when the disk
    fails, and redacts its own notices about lost output. Without it the journal stays on the disk:
    a caller without new output loses nothing by an error, and sends nothing that it cannot note.
    """

    def __init__(self, path: Path, *, redact: Callable[[str], RedactedText] | None = None) -> None:
        self._path = path
        # The one lock: of the connection, and of all that is known without asking the tables.
        self._changed = threading.Condition()
        self._syncing = threading.Lock()
        self._closed = False
        self._woken = False
        self._is_unsynced = False
        self._unsynced_chars = 0
        # Set when so much was written that `sync_to_disk` should not wait any longer.
        self.sync_due = threading.Event()
        self._store = Store(path, stays_on_disk=redact is None)
        try:
            with plain_errors(path):
                self._outbox = Outbox(self._store, self.fact("accepted"), redact)
        except BaseException:
            self._store.close()
            raise

    @property
    def disk_failure(self) -> str | None:
        """Why the journal has left the disk last, if it ever has."""
        return self._store.failure

    @property
    def lost_bytes(self) -> int:
        """How much output fitted neither on the disk nor into memory."""
        with self._changed:
            return self._outbox.lost_bytes

    def close(self) -> None:
        """Close the file; every other call from now on raises SpoolError."""
        with self._syncing, self._changed:
            if not self._closed:
                self._closed = True
                self._store.close()
                self._changed.notify_all()

    # --- output ------------------------------------------------------------------------------

    @_commits
    def append(self, stream: str, text: RedactedText) -> None:
        """Commit redacted text to the end of a stream. Raises SpoolError (disk full, closed)."""
        if not text:
            return
        if self.is_ended:
            raise SpoolError("the run has ended; nothing can follow its `finished` marker")
        self._outbox.add(stream, text)
        self._unsynced_chars += len(text)
        if self._unsynced_chars >= _SYNC_AFTER_CHARS:
            self.sync_due.set()

    @_commits
    def append_last(self, compose: Callable[[Totals], RedactedText]) -> bool:
        """Commit the `finished` marker, once for the life of the journal and as its last event.

        Returns False, and does nothing, while anything else waits: the totals would be wrong.
        """
        if not self.is_ended:
            if self._outbox.has_pending:
                return False
            self._outbox.add("marker", compose(self._outbox.totals()))
            self._put_fact("finished", True)  # noqa: FBT003 - a fact's value
        return True

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
        """Whether the `finished` marker is in the journal, sent or not: nothing may follow it."""
        return self.fact("finished") is not None

    pending_bytes = _locked(Outbox.pending_bytes)
    totals = _locked(Outbox.totals)

    # --- events ------------------------------------------------------------------------------

    cut = _commits(_locked(Outbox.cut))
    cut_smaller = _commits(_locked(Outbox.cut_smaller))
    refreeze = _commits(_locked(Outbox.refreeze))
    set_aside = _commits(_locked(Outbox.set_aside))
    restore = _commits(_locked(Outbox.restore))

    @_commits
    def accept(self) -> None:
        """Record that the gateway has the event in flight."""
        if self._outbox.accept():
            # They cannot be computed later.
            totals = self._outbox.totals()
            self._put_fact("accepted", [totals.events, totals.bytes, totals.refused])

    # --- facts -------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """Return a recorded fact, or None."""
        with self._reading():
            row = self._store.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    def _put_fact(self, name: str, value: Any) -> None:
        """Record one fact of the run (its gateway, its token, its end) as JSON."""
        self._store.execute(
            "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, json.dumps(value))
        )

    put_fact = _commits(_put_fact)

    def wipe(self, name: str) -> None:
        """Remove a fact so that no byte of it stays in the folder."""
        with self._reading():
            self._store.wipe("DELETE FROM facts WHERE name = ?", (name,))

    # --- the end and its files ---------------------------------------------------------------

    @_commits
    def record_end(self, end: Mapping[str, Any], parts: Iterable[FilePart]) -> None:
        """Record how the run ended and what is to be uploaded, both or neither."""
        self._outbox.tell_gap()
        self._put_fact("end", end)
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

    def waiting_parts(self) -> list[FilePart]:
        """Return all that the gateway does not have, in its order."""
        with self._reading():
            rows = self._store.execute(
                "SELECT path, name, start, size FROM uploads WHERE NOT is_done ORDER BY id"
            ).fetchall()
            return [FilePart(*row) for row in rows]

    @_commits
    def recut_uploads(self, path: str, parts: Iterable[FilePart]) -> None:
        """Let these parts take the place of all that is not done yet of a file."""
        self._store.execute("DELETE FROM uploads WHERE path = ? AND NOT is_done", (path,))
        self._insert_uploads(parts)

    @_commits
    def freeze_upload(self, upload_id: int, timestamp: int, nonce: str) -> None:
        """Record the attempt before it is made."""
        self._store.execute(
            "UPDATE uploads SET timestamp = ?, nonce = ? WHERE id = ?",
            (timestamp, nonce, upload_id),
        )

    @_commits
    def end_upload(self, upload_id: int) -> None:
        """Record that the gateway has the file, or will never take it."""
        self._store.execute("UPDATE uploads SET is_done = 1 WHERE id = ?", (upload_id,))

    # --- commands ----------------------------------------------------------------------------

    @_commits
    def record_command(self, command_id: str, command: RedactedText) -> Command | None:
        """Record a command before it runs.

        Returns None if it is new, else what the ledger knows of it: it must not run again.
        """
        known = self._command(command_id)
        if known is None:
            self._store.execute(
                "INSERT INTO commands (id, command) VALUES (?, ?)",
                (command_id, storable(command)),
            )
        return known

    @_commits
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
        if notice and not self.is_ended:
            self._outbox.add("error", notice)
        self._store.execute(
            "UPDATE commands SET result = ?, error = ? WHERE id = ?",
            (result and storable(result), error and storable(error), command_id),
        )
        ended = self._command(command_id)
        if ended is None:
            raise SpoolError(f"command {command_id} was never recorded")
        return ended

    @_commits
    def acknowledge(self, command_id: str) -> None:
        """Record that the gateway has the command's end."""
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
    def _reading(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise SpoolError("the journal is closed")
            with plain_errors(self._path, is_on_disk=not self._store.is_in_memory):
                yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Change the file, and what is kept of it in memory: both or neither."""
        with self._reading():
            with self._outbox.all_or_nothing(), self._store.transaction():
                yield
            self._is_unsynced = True
            self._changed.notify_all()

    def _command(self, command_id: str) -> Command | None:
        row = self._store.execute(
            "SELECT id, command, result, error, acknowledged FROM commands WHERE id = ?",
            (command_id,),
        ).fetchone()
        return None if row is None else _command_of(row)


def _command_of(row: tuple[Any, ...]) -> Command:
    command_id, command, result, error, acknowledged = row
    return Command(command_id, command, result, error, bool(acknowledged))
