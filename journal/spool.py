"""The durable journal of one run: output, events, executed commands and the recorded end.

It does no networking; one lock serialises all callers. Here are the facts of the run, its uploads
and the ledger of commands, with their SQL. How output becomes events is
`journal.events`' business; the connection is `journal.store`'s.

What survives. Every call that returns has committed to the write-ahead log: a kill of the process
loses nothing of it. A power cut may lose what `Syncer` had not yet made durable.
Source: https://www.sqlite.org/wal.html, "synchronous".

Three states. *Normal*: the reserve (`journal.reserve`) is whole. *Tight*: the disk was full, and
the reserve is in use. Output is counted and not recorded; messages, answers of the gateway,
commands and the end are. After each of them the log is folded into the file, so that it does not
grow. *Lost*: the reserve is used up, and nothing is recorded. What must not be forgotten is then
noted in files that need no room. `use_room` leads back from both to normal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple, TypeVar

from journal import reserve
from journal.events import OUTPUT_STREAMS, Gap, Outbox, storable
from journal.reserve import RESERVE_BYTES, SPENT, TAKEN, Reserve
from journal.store import SpoolError as SpoolError  # for the callers of the journal
from journal.store import Store, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Concatenate, ParamSpec

    from journal.events import FrozenEvent, Totals
    from redact import RedactedText

    _P = ParamSpec("_P")
_T = TypeVar("_T")

# A power cut loses no more than this.
_SYNC_AFTER_CHARS: Final = 1_048_576


class Command(NamedTuple):
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


class FilePart(NamedTuple):
    """A file, or a part of one, that the gateway is to get under `name`.

    `path` is inside the run's folder; `start` and `size` are bytes.
    """

    path: str
    name: str
    start: int
    size: int


class Upload(NamedTuple):
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
    """Make a method one transaction; on a full disk with as much of the reserve as it needs."""

    @functools.wraps(method)
    def committed(self: Spool, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        while True:
            try:
                with self._transaction():
                    return method(self, *args, **kwargs)
            except SpoolError as error:
                if not self._draw_on_reserve(error):
                    raise

    return committed


def _answers(
    mark: str, method: Callable[Concatenate[Spool, _P], _T]
) -> Callable[Concatenate[Spool, _P], _T]:
    """Let a file say what the gateway answered if the database does not take it."""

    @functools.wraps(method)
    def answered(self: Spool, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            result = method(self, *args, **kwargs)
        except SpoolError as error:
            if error.is_disk_failure:
                self._mark = mark
                reserve.put_mark(self._path.parent, mark)
            raise
        self._settle()
        return result

    return answered


class Spool:
    """The journal of one run. Thread: any; each call holds the lock for one short transaction.

    Raises SpoolError from every method; what is kept in memory then still equals the file.
    `redact` is for the journal's own notices. `keeps_reserve` is for the run itself, which goes on
    when the disk is full. Without it a full disk is an error: the caller loses nothing by that, and
    sends nothing that it cannot note.
    """

    def __init__(
        self, path: Path, *, redact: Callable[[str], RedactedText], keeps_reserve: bool = False
    ) -> None:
        self._path = path
        self._redact = redact
        # The one lock: of the connection, and of all that is known without asking the tables.
        self._changed = threading.Condition()
        self._syncing = threading.Lock()
        self._closed = False
        self._woken = False
        self._is_unsynced = False
        self._unsynced_chars = 0
        # Set when so much was written that `sync_to_disk` should not wait any longer.
        self.sync_due = threading.Event()
        # Set while there is something for `sync_to_disk` or for `use_room`.
        self.has_work = threading.Event()
        # Why the disk took nothing last, if that ever was so.
        self.disk_failure: str | None = None
        # Whether the journal had to leave the disk for good.
        self.is_off_disk = False
        self._reserve: Reserve | None = None
        self._store = Store(path)
        try:
            with plain_errors(path):
                self._outbox = Outbox(self._store, self.fact("lost"), self.fact("accepted"))
                # What the gateway said of the event in flight, if the database did not take it.
                self._mark = reserve.find_mark(path.parent)
                if not self._outbox.is_in_flight:
                    self._settle()
                # The end and its files, if the database did not take them yet.
                self._waiting_end: tuple[Mapping[str, Any], list[FilePart]] | None = None
                self._find_end()
                if keeps_reserve:
                    self._reserve = Reserve(path.parent)
                    self.put_fact("reserve", RESERVE_BYTES)
        except BaseException:
            self._store.close()
            if self._reserve is not None:
                self._reserve.close()
            raise

    def _find_end(self) -> None:
        """Take over an end that stands in a file, or see that nobody knows how large a gap is.

        A runner that died on a full disk was the only one that had counted it.
        """
        if self.fact("end") is not None:
            return
        found = reserve.read_end(self._path.parent)
        try:
            end, parts = dict(found["end"]), [FilePart(*part) for part in found["parts"]]
            self._outbox.widen_gap(Gap(*found["gap"]))
        except (KeyError, TypeError, ValueError):
            if reserve.bytes_left(self._path.parent) < (self.fact("reserve") or 0):
                self._outbox.lose_track()
        else:
            self._waiting_end = end, parts
            self._import_end()

    @property
    def is_tight(self) -> bool:
        """Whether the disk was full, and its room is not enough yet."""
        return self._reserve is not None and not self._reserve.is_whole

    @property
    def lost_bytes(self) -> int | None:
        """How much output is missing, because the disk did not take it; None if nobody knows."""
        with self._changed:
            return self._outbox.lost_bytes

    @property
    def is_whole(self) -> bool | None:
        """Whether nothing is missing; None for a journal of version 0.1, which does not say."""
        with self._reading():
            if self._reserve is None and self.fact("reserve") is None:
                return None
            return self._outbox.is_whole

    def close(self) -> None:
        """Close the file; every other call from now on raises SpoolError."""
        with self._syncing, self._changed:
            if not self._closed:
                with contextlib.suppress(SpoolError):
                    if self.fact("end") is not None:
                        reserve.remove(self._path.parent, "reserve", "end")
                if self._reserve is not None:
                    self._reserve.close()
                self._closed = True
                self._store.close()
                self._changed.notify_all()

    # --- output ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let no other thread add anything meanwhile."""
        with self._changed:
            yield

    def append(
        self,
        stream: str,
        text: RedactedText,
        fact: tuple[str, Any] | None = None,
        *,
        slot: str = "",
        is_urgent: bool = False,
    ) -> bool:
        """Commit redacted text to the end of a stream, and with a message a fact that it tells.

        For `slot` see `Outbox.add`. `is_urgent`: a person waits for it, so it does not wait for the
        pace of the output, and neither does what is before it.
        Returns False if a full disk does not take it: then it is counted, and its size is told in
        its place. Raises SpoolError (ended, closed).
        """
        if not text:
            return True
        is_output = stream in OUTPUT_STREAMS
        try:
            if not is_output:
                self._append_message(stream, text, fact, slot=slot, is_urgent=is_urgent)
                return True
            if not self.is_tight:
                with self._transaction():
                    self._add(stream, text)
                return True
        except SpoolError as error:
            if self._reserve is None or not error.is_disk_failure:
                raise
            if is_output:
                self._draw_on_reserve(error)
        with self._reading():
            self._outbox.leave_out(stream, text)
        return False

    def _add(
        self,
        stream: str,
        text: RedactedText,
        fact: tuple[str, Any] | None = None,
        *,
        slot: str = "",
        is_urgent: bool = False,
    ) -> None:
        if self.is_ended:
            raise SpoolError("the run has ended; nothing can follow its `finished` marker")
        self._outbox.add(stream, text, slot=slot, is_urgent=is_urgent)
        if fact is not None:
            self._put_fact(*fact)
        self._unsynced_chars += len(text)
        if self._unsynced_chars >= _SYNC_AFTER_CHARS:
            self.sync_due.set()

    _append_message = _commits(_add)

    def append_last(self, compose: Callable[[Totals], RedactedText]) -> bool:
        """Commit the `finished` marker, once for the life of the journal and as its last event.

        Returns False, and does nothing, while anything else waits: the totals would be wrong.
        """
        self._import_end()
        return self._append_last(compose)

    @_commits
    def _append_last(self, compose: Callable[[Totals], RedactedText]) -> bool:
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
    def is_urgent(self) -> bool:
        """Whether something in flight or waiting is what a person waits for."""
        with self._changed:
            return self._outbox.is_urgent

    @property
    def is_ended(self) -> bool:
        """Whether the `finished` marker is in the journal, sent or not: nothing may follow it."""
        return self.fact("finished") is not None

    pending_bytes = _locked(Outbox.pending_bytes)
    totals = _locked(Outbox.totals)

    # --- events ------------------------------------------------------------------------------

    # What the gateway's answer asks for. What the database does not take of it stands in a file,
    # and is done before anything else: another attempt must not be made before it is.

    def cut(
        self,
        timestamp: int,
        nonce: str,
        *,
        max_body_bytes: int | None = None,
        max_chunks: int | None = None,
    ) -> FrozenEvent | None:
        """Return the event in flight, or freeze the next one (see `Outbox.cut`)."""
        if self._mark == TAKEN:
            self.accept()
        elif self._mark == SPENT:
            self.refreeze(timestamp, nonce)
        return self._cut(timestamp, nonce, max_body_bytes=max_body_bytes, max_chunks=max_chunks)

    _cut = _commits(_locked(Outbox.cut))
    accept = _answers(TAKEN, _commits(_locked(Outbox.accept)))
    cut_smaller = _answers(SPENT, _commits(_locked(Outbox.cut_smaller)))
    refreeze = _answers(SPENT, _commits(_locked(Outbox.refreeze)))
    set_aside = _answers(SPENT, _commits(_locked(Outbox.set_aside)))
    restore = _answers(SPENT, _commits(_locked(Outbox.restore)))

    def _settle(self) -> None:
        """Forget what was noted of the gateway's answer: the database has it."""
        if self._mark is not None:
            reserve.remove(self._path.parent, TAKEN, SPENT)
            self._mark = None

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
        try:
            self._delete_fact(name)
            while True:
                try:
                    with self._reading():
                        return self._store.empty_log()
                except SpoolError as error:
                    if not self._draw_on_reserve(error):
                        raise
        except SpoolError as error:
            if self._reserve is None or not error.is_disk_failure:
                raise
            with self._reading():
                self._leave_disk()  # what cannot be changed can still go

    @_commits
    def _delete_fact(self, name: str) -> None:
        self._store.execute("DELETE FROM facts WHERE name = ?", (name,))

    # --- the end and its files ---------------------------------------------------------------

    def record_end(self, end: Mapping[str, Any], parts: Sequence[FilePart]) -> None:
        """Record how the run ended and what is to be uploaded, both or neither.

        If the database does not take it, it is written into a file that is there for it. If that
        does not take it either, what waits is given up, and the rest of the run leaves no trace on
        the disk: `is_off_disk`.
        """
        try:
            self._record_end(end, parts)
        except SpoolError as error:
            if self._reserve is None or not error.is_disk_failure:
                raise
            with self._reading():
                noted = {"end": end, "parts": list(parts)}
                try:
                    self._reserve.write_end({**noted, "gap": self._outbox.gap})
                except (OSError, ValueError):
                    self._leave_disk()
                    self._record_end(end, parts)
                else:
                    self._waiting_end = end, list(parts)

    @_commits
    def _record_end(self, end: Mapping[str, Any], parts: Sequence[FilePart]) -> None:
        self._tell_gap()
        self._put_fact("end", end)
        self._insert_uploads(parts)

    def _import_end(self) -> None:
        """Let the database have the end that stands in a file."""
        if self._waiting_end is not None:
            self._record_end(*self._waiting_end)
            self._waiting_end = None

    @property
    def has_end(self) -> bool:
        """Whether it is recorded how the run ended."""
        return self._waiting_end is not None or self.fact("end") is not None

    def _tell_gap(self) -> None:
        """Let a notice wait if output is missing here, and record how much is missing in all."""
        lost = None if self._outbox.is_whole else [self._outbox.lost_bytes]
        if lost != self.fact("lost") or self._outbox.gap != Gap():
            self._outbox.tell_gap(self._redact)
            self._put_fact("lost", lost)

    _record_gap = _commits(_tell_gap)

    def _insert_uploads(self, parts: Sequence[FilePart]) -> None:
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
    def recut_uploads(self, path: str, parts: Sequence[FilePart]) -> None:
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
                if self._reserve is None or self._reserve.is_whole:
                    self.has_work.clear()
            if not is_needed:
                return
            try:
                self._store.sync_to_disk()
            except OSError:
                self._is_unsynced = True
                self.has_work.set()
                raise

    # --- a full disk -------------------------------------------------------------------------

    def use_room(self) -> None:
        """Go back to recording output, if the disk was full and has room again."""
        with self._changed:
            if self._closed or self._reserve is None or self._reserve.is_whole:
                return
            if self._reserve.has_room():
                with contextlib.suppress(SpoolError):
                    self._import_end()
                    self._record_gap()
                    self._reserve.restore()

    def _draw_on_reserve(self, error: SpoolError) -> bool:
        """Give more of the reserve free. False if that is no help, or there is none."""
        with self._changed:
            if self._closed or self._reserve is None or not error.is_disk_failure:
                return False
            self.disk_failure = str(error)
            self.has_work.set()
            return self._reserve.release()

    def _leave_disk(self) -> None:
        """Delete the journal, which cannot follow any more, and go on without it to the end."""
        self._outbox.leave_disk()
        self.is_off_disk = True
        reserve.remove(self._path.parent, "reserve", "end", TAKEN, SPENT)

    # --- inside ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise SpoolError("the journal is closed")
            with plain_errors(self._path):
                yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Change the file, and what is kept of it in memory: both or neither."""
        with self._reading():
            with self._outbox.all_or_nothing(), self._store.transaction():
                yield
            if self.is_tight:
                self._store.fold_log()
            self._is_unsynced = True
            self.has_work.set()
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
