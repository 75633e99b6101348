"""The one thread that writes to the database, many requests in one transaction.

Group commit: what has come in while the disk was busy is written together, and only when that
transaction is on disk does any of its requests get its answer. So the number of requests a second
does not depend on how long one commit takes.

It also keeps, for each run that is being written, what the next event needs to know (`Tally`), so
that an event costs no query. On PostgreSQL, where other processes write too, it locks the rows of
its runs and reads them anew in each transaction.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable, Generic, Protocol, TypeVar, Union

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Executable,
    Insert,
    Row,
    Update,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from gateway.admission import RefusedError, replayed
from gateway.storage import postgresql, schema
from gateway.storage.questions import ANSWER
from gateway.storage.records import (
    DONE,
    FAILED,
    INPUT,
    Event,
    NewEvent,
    apply_marker,
    compare_finished,
    summarize,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

# More in one transaction would not be faster, and would make the first of them wait.
_MAX_BATCH = 256
# Of a transaction that others were in the way of, and the longest pause between two.
_ATTEMPTS = 20
_PAUSE_S = 0.05
# So long a transaction is repeated while the database is away; who sent it waits.
_AWAY_S = 5.0
# Of a run that has ended: more of it is not read again while others wait to be stored.
_MAX_READ_BYTES = 4_000_000
# Runs whose tally is kept in memory; another one is read from the database when it is needed.
_MAX_TALLIES = 1_000


class StoreClosedError(Exception):
    """The gateway is ending, and takes nothing any more."""


class UnknownOutcomeError(Exception):
    """The database went away when something was about to be committed; nobody knows whether."""


class Listener(Protocol):
    """Who wants to know what has been stored. Called in the writer's thread, after the commit."""

    def events_stored(self, run_id: str, previous_id: int, stored: list[Event]) -> None:
        """Take new events of a run; `previous_id` is the event of that run before them, or 0."""

    def run_changed(self, run_id: str) -> None:
        """Take note that a run's status, state or details have changed."""


class Job(Generic[T]):
    """Something to be written, and its outcome."""

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()
        self._value: T | None = None
        self._error: Exception | None = None

    def settle(self, value: T | None, error: Exception | None = None) -> None:
        """Let the one who waits go on."""
        self._value, self._error = value, error
        self._done.release()

    def wait(self) -> T:
        """Return what it came to. Raises: what went wrong. Blocks until it is on disk."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


# Gets an event's id, or why it was not stored.
Told = Callable[["int | None", "Exception | None"], None]


class EventJob(Job[int]):
    """One event to be stored; its outcome is the event's id. `tell` is called with it, in the
    writer's thread.
    """

    def __init__(self, event: NewEvent, tell: Told | None = None) -> None:
        super().__init__()
        self.event = event
        self.nonce = event.nonce_digest, event.created_at
        self._tell = tell

    def settle(self, value: int | None, error: Exception | None = None) -> None:
        """Wake the thread that waits, or answer the request."""
        super().settle(value, error)
        if self._tell is not None:
            try:
                self._tell(value, error)
            except Exception:
                logger.exception("could not answer")


class NonceJob(Job[None]):
    """A nonce that was used by something else than an event. On SQLite nobody waits: the process
    has looked for it in its memory.
    """

    def __init__(self, digest: int, used_at: float) -> None:
        super().__init__()
        self.nonce = digest, used_at


class CallJob(Job[T]):
    """A function that gets a transaction of its own; its outcome is what it returns."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        super().__init__()
        self.work = work


AnyJob = Union[EventJob, NonceJob, CallJob[Any]]


@dataclass
class Tally:
    """What the next event of a run needs to know, by the names of the run's columns.

    `digest` is a SHA-256 that goes on, and not kept on disk; None if it cannot go on from here.
    """

    last_event_id: int
    last_event_at: float | None
    event_count: int
    numbered_count: int
    numbered_bytes: int
    highest_sequence: int
    altered_count: int
    digest: Any

    def copy(self) -> Tally:
        """Return one that can be advanced and thrown away."""
        return replace(self, digest=None if self.digest is None else self.digest.copy())

    def add(self, event: NewEvent, event_id: int) -> None:
        """Count one event."""
        self.last_event_id = event_id
        self.last_event_at = event.created_at
        self.event_count += 1
        if event.sequence < 1:
            return
        sent = event.sent.encode()
        self.numbered_count += 1
        self.numbered_bytes += len(sent)
        self.highest_sequence = max(self.highest_sequence, event.sequence)
        self.altered_count += event.data != event.sent
        if self.digest is not None:
            self.digest.update(sent)


@dataclass
class _Batch:
    """What one transaction of events came to; it counts only once it is on disk."""

    next_id: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    nonces: list[dict[str, Any]] = field(default_factory=list)
    stored: dict[str, list[Event]] = field(default_factory=dict)
    previous_ids: dict[str, int] = field(default_factory=dict)
    outcomes: list[tuple[EventJob | NonceJob, Any]] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    refused: list[EventJob | NonceJob] = field(default_factory=list)
    seen: dict[tuple[str, int], list[tuple[bytes, int]]] = field(default_factory=dict)
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    summaries: dict[int, dict[str, Any]] = field(default_factory=dict)


_INSERT_EVENTS = insert(schema.events)
_INSERT_NONCES = insert(schema.nonces)
# What of a tally is on disk, as columns of its run.
_TALLIED = tuple(each.name for each in fields(Tally) if each.name != "digest")
_SELECT_TALLY = select(*(schema.runs.c[name] for name in _TALLIED)).where(
    schema.runs.c.id == bindparam("run_key")
)
# In one order, so that no two processes wait for each other.
_LOCK_TALLIES = (
    select(schema.runs.c.id, *(schema.runs.c[name] for name in _TALLIED))
    .where(schema.runs.c.id.in_(bindparam("run_keys", expanding=True)))
    .order_by(schema.runs.c.id)
    .with_for_update()
)
_UPDATE_TALLIES = (
    update(schema.runs)
    .where(schema.runs.c.id == bindparam("run_key"))
    .values({name: bindparam(f"new_{name}") for name in _TALLIED})
)
_SHARED_INSERT = postgresql.Unnested(
    "INSERT INTO events ({1}) SELECT * FROM {0}",
    {
        "id": "bigint",
        "run_id": "text",
        "type": "text",
        "data": "text",
        "sequence": "bigint",
        "created_at": "float8",
        "body_hash": "bytea",
    },
)
_SHARED_UPDATE = postgresql.Unnested(
    f"UPDATE runs SET {', '.join(f'{name} = new_{name}' for name in _TALLIED)}"  # noqa: S608
    " FROM {0} AS tallied ({1}) WHERE runs.id = run_key",
    {
        "run_key": "text",
        **{f"new_{name}": "float8" if name == "last_event_at" else "bigint" for name in _TALLIED},
    },
)
# What a marker changes.
_SELECT_KNOWN = (
    select(
        *(schema.runs.c[name] for name in ("number", "status", "details", "verdict")),
        schema.summaries.c.stage,
    )
    .join(schema.summaries, schema.summaries.c.number == schema.runs.c.number)
    .where(schema.runs.c.id == bindparam("run_key"))
)
_SAME_SEQUENCE = select(schema.events.c.id, schema.events.c.body_hash).where(
    schema.events.c.run_id == bindparam("run_key"),
    schema.events.c.sequence == bindparam("sequence_key"),
    schema.events.c.sequence > 0,  # PostgreSQL's index has no others
)
_NUMBERED_DATA = (
    select(schema.events.c.data)
    .where(schema.events.c.run_id == bindparam("run_key"), schema.events.c.sequence >= 1)
    .order_by(schema.events.c.id)
    .execution_options(stream_results=True, max_row_buffer=20)
)


def forget_typed(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Keep of these commands that something was typed, and no longer what: it may be a password."""
    command = schema.commands.c.command
    for name in (INPUT, ANSWER):
        is_typed = command.startswith(name, autoescape=True)
        connection.execute(update(schema.commands).where(is_typed, *which).values(command=name))


class _Prepared:
    """A statement that was compiled once: its rows go to the driver as they are. SQLAlchemy would
    take as long for each of them as SQLite does.
    """

    def __init__(self, dialect: Dialect, statement: Insert | Update, *names: str) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=names or None)
        self._text = str(compiled)
        self._order = getattr(compiled, "positiontup", None)

    def run(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        """Execute it for all rows; their keys are the statement's parameters."""
        if self._order is None:
            connection.exec_driver_sql(self._text, rows)
        else:
            order = self._order
            tuples = [tuple([row[name] for name in order]) for row in rows]
            connection.exec_driver_sql(self._text, tuples)


class Writer:
    """The thread, its connection and its queue. Start it before anything is submitted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_shared = postgresql.is_shared(engine)
        # Called with a run that has ended, and whose output somebody else has to compare.
        self.when_unjudged: Callable[[str], None] | None = None
        # Called with nonces that are on disk, on PostgreSQL.
        self.when_spent: Callable[[Iterable[tuple[int, float]]], None] | None = None
        # Called with how long it took to put on disk what had come.
        self.when_written: Callable[[float], None] | None = None
        self._listener: Listener | None = None
        self._queue: queue.SimpleQueue[AnyJob | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="gateway-writer", daemon=True)
        self._tallies: OrderedDict[str, Tally] = OrderedDict()
        self._gate = threading.Lock()  # nothing is queued behind the end
        self._is_closed = False
        self._insert_events: _Prepared | postgresql.Unnested
        self._update_tallies: _Prepared | postgresql.Unnested
        if self.is_shared:
            self._insert_events, self._update_tallies = _SHARED_INSERT, _SHARED_UPDATE
        else:
            self._insert_events = _Prepared(engine.dialect, _INSERT_EVENTS)
            self._update_tallies = _Prepared(engine.dialect, _UPDATE_TALLIES)
        self._insert_nonces = _Prepared(engine.dialect, _INSERT_NONCES, "digest", "used_at")
        self._away_since = 0.0
        self._serializable = engine
        if self.is_shared:
            self._serializable = engine.execution_options(isolation_level="SERIALIZABLE")
        self._next_id = 0 if self.is_shared else _last_id(engine) + 1

    def start(self, listener: Listener) -> None:
        """Begin to write, and to tell `listener` what has been written."""
        self._listener = listener
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, and end. Blocks until then."""
        with self._gate:
            self._is_closed = True
            self._queue.put(None)
        self._thread.join()

    @property
    def queue_length(self) -> int:
        """How many jobs wait to be written."""
        return self._queue.qsize()

    def submit(self, job: AnyJob) -> None:
        """Queue a job. Thread: any; does not block. Raises: StoreClosedError."""
        with self._gate:
            if self._is_closed:
                raise StoreClosedError
            self._queue.put(job)

    def call(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction of its own. Raises: what it raises. Blocks until on disk."""
        job = CallJob(work)
        self.submit(job)
        return job.wait()

    def execute(self, statement: Executable, row: dict[str, Any] | None = None) -> None:
        """Run one statement in a transaction of its own. Blocks until it is on disk."""

        def work(connection: Connection) -> None:
            connection.execute(statement, row)

        self.call(work)

    def forget(self, run_id: str) -> None:
        """Forget a run that is being removed. Thread: the writer's, inside a `call`."""
        self._tallies.pop(run_id, None)

    # --- the thread ---

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while True:
                jobs = self._take()
                ending = jobs[-1] is None
                began = time.perf_counter()
                self._write(connection, [job for job in jobs if job is not None])
                if self.when_written is not None:
                    self.when_written(time.perf_counter() - began)
                if ending:
                    return

    def _take(self) -> list[AnyJob | None]:
        """Wait for a job; return all that are there."""
        jobs = [self._queue.get()]
        try:
            while len(jobs) < _MAX_BATCH and jobs[-1] is not None:
                jobs.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return jobs

    def _write(self, connection: Connection, jobs: list[AnyJob]) -> None:
        group: list[AnyJob] = []
        for job in jobs:
            if isinstance(job, CallJob):
                self._write_group(connection, group)
                group = []
                self._call(connection, job)
            else:
                group.append(job)
        self._write_group(connection, group)

    def _call(self, connection: Connection, job: CallJob[Any]) -> None:
        try:
            if self.is_shared:
                value = self._call_among_others(job.work)
            else:
                with connection.begin():
                    value = job.work(connection)
        except Exception as error:  # noqa: BLE001 - it belongs to the one who waits
            job.settle(None, error)
        else:
            job.settle(value)

    def _call_among_others(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as if nobody else wrote."""

        def attempt() -> T:
            is_over = False
            try:
                with self._serializable.begin() as connection:
                    value = work(connection)
                    is_over = True
            except DBAPIError as error:
                if is_over and postgresql.is_away(error):
                    raise UnknownOutcomeError from error
                raise
            return value

        return self._repeated(attempt)

    def _repeated(self, attempt: Callable[[], T]) -> T:
        """Do a transaction: again if others came between, or the database was away."""
        left = _ATTEMPTS
        while True:
            try:
                value = attempt()
            except DBAPIError as error:
                if postgresql.is_away(error):
                    self._away_since = self._away_since or time.monotonic()
                    is_given_up = time.monotonic() - self._away_since > _AWAY_S
                else:
                    left -= 1
                    is_given_up = not (left and postgresql.is_repeatable(error))
                if is_given_up:
                    raise
            else:
                self._away_since = 0.0
                return value
            # Those who were in each other's way do not come back at the same moment.
            time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311 - nothing is secret here

    def _write_group(self, connection: Connection, jobs: list[AnyJob]) -> None:
        if not jobs:
            return
        tried: _Batch | None = None

        def attempt() -> _Batch:
            nonlocal tried
            batch = _Batch(self._next_id)
            with connection.begin():
                admitted = self._lock(connection, batch, jobs) if self.is_shared else jobs
                # The answer to a commit may be lost.
                if tried is not None and self._is_written(connection, batch):
                    return tried
                tried = batch
                self._write_batch(connection, batch, admitted)
            return batch

        try:
            batch = self._repeated(attempt) if self.is_shared else attempt()
        except Exception as error:  # noqa: BLE001 - one bad event must not take the others along
            if len(jobs) > 1 and not (self.is_shared and postgresql.is_away(error)):
                for job in jobs:
                    self._write_group(connection, [job])
            else:
                logger.error("could not store: %s", error)  # noqa: TRY400 - no news in the trace
                for job in jobs:
                    job.settle(None, error)
            return
        self._keep(batch)

    def _write_batch(self, connection: Connection, batch: _Batch, jobs: list[AnyJob]) -> None:
        for job in jobs:
            if isinstance(job, EventJob):
                self._add_event(connection, batch, job)
            elif isinstance(job, NonceJob):
                batch.nonces.append({"digest": job.nonce[0], "used_at": job.nonce[1]})
                batch.outcomes.append((job, None))
        if batch.rows:
            self._insert_events.run(connection, batch.rows)
            tallies = [_tally_row(*each) for each in batch.tallies.items()]
            self._update_tallies.run(connection, tallies)
        if batch.nonces and not self.is_shared:
            self._insert_nonces.run(connection, batch.nonces)
        for run_id, values in batch.changed.items():
            connection.execute(update(schema.runs).where(schema.runs.c.id == run_id).values(values))
        for number, values in batch.summaries.items():
            connection.execute(
                update(schema.summaries).where(schema.summaries.c.number == number).values(values)
            )

    def _lock(self, connection: Connection, batch: _Batch, jobs: list[AnyJob]) -> list[AnyJob]:
        """Spend all nonces, and lock all runs; return the jobs whose nonces nobody had used."""
        # Of copies that have come in together, the first one.
        first: dict[int, EventJob | NonceJob] = {}
        for job in jobs:
            if not isinstance(job, CallJob) and first.setdefault(job.nonce[0], job) is not job:
                batch.refused.append(job)
        fresh = postgresql.spend(connection, dict(job.nonce for job in first.values()))
        admitted: list[AnyJob] = []
        for digest, job in first.items():
            (admitted if digest in fresh else batch.refused).append(job)
        run_ids = sorted({job.event.run_id for job in admitted if isinstance(job, EventJob)})
        locked = connection.execute(_LOCK_TALLIES, {"run_keys": run_ids}) if run_ids else ()
        rows = {row.id: row for row in locked}
        for run_id in run_ids:
            known, row = self._tallies.get(run_id), rows.get(run_id)
            if row is None:
                self._tallies.pop(run_id, None)  # another process has removed it
            elif known is None or known.last_event_id != row.last_event_id:
                self._tallies[run_id] = _tally_of(row)  # another process has written
        return admitted

    def _is_written(self, connection: Connection, batch: _Batch) -> bool:
        """Whether the nonces that are not fresh were spent by an attempt before this one."""
        refused = dict(job.nonce for job in batch.refused)
        return bool(refused) and postgresql.is_spent_here(connection, refused)

    def _keep(self, batch: _Batch) -> None:
        """Make the batch count, and answer: it is on disk."""
        self._next_id = batch.next_id
        for run_id, tally in batch.tallies.items():
            self._tallies[run_id] = tally
            self._tallies.move_to_end(run_id)
        while len(self._tallies) > _MAX_TALLIES:
            self._tallies.popitem(last=False)
        if self.when_spent is not None:
            self.when_spent(job.nonce for job, _ in batch.outcomes)
        for job, value in batch.outcomes:
            job.settle(value)
        for job in batch.refused:
            job.settle(None, replayed())
        try:
            self._tell(batch)
        except Exception:
            logger.exception("could not tell what was stored")

    def _tell(self, batch: _Batch) -> None:
        for run_id in batch.unjudged:
            if self.when_unjudged is not None:
                self.when_unjudged(run_id)
        if self._listener is None:
            return
        for run_id, stored in batch.stored.items():
            self._listener.events_stored(run_id, batch.previous_ids[run_id], stored)
        for run_id in batch.changed:
            self._listener.run_changed(run_id)

    def _add_event(self, connection: Connection, batch: _Batch, job: EventJob) -> None:
        event = job.event
        batch.nonces.append({"digest": event.nonce_digest, "used_at": event.created_at})
        tally = batch.tallies.get(event.run_id)
        if tally is None:
            tally = self._load_tally(connection, event.run_id).copy()
            batch.previous_ids[event.run_id] = tally.last_event_id
        known_id = self._find_same(connection, batch, tally, event)
        if known_id is not None:
            batch.outcomes.append((job, known_id))
            return
        if self.is_shared:
            event_id = tally.last_event_id + 1
        else:
            event_id, batch.next_id = batch.next_id, batch.next_id + 1
        if event.marker is not None:
            self._apply_marker(connection, batch, tally, event, event_id)
        batch.tallies[event.run_id] = tally
        tally.add(event, event_id)
        batch.seen.setdefault((event.run_id, event.sequence), []).append(
            (event.body_hash, event_id)
        )
        stored = Event(event_id, event.type, event.data, event.sequence, event.created_at)
        row = {**stored.to_json(), "run_id": event.run_id, "body_hash": event.body_hash}
        if self.is_shared:
            row["data"] = postgresql.escape(event.data)  # the statement is prepared, see there
        batch.rows.append(row)
        batch.stored.setdefault(event.run_id, []).append(stored)
        batch.outcomes.append((job, event_id))

    def _find_same(
        self, connection: Connection, batch: _Batch, tally: Tally, event: NewEvent
    ) -> int | None:
        """Return the id of the stored event that this one repeats."""
        if event.sequence < 1 or event.sequence > tally.highest_sequence:
            return None
        known = list(batch.seen.get((event.run_id, event.sequence), ()))
        found = connection.execute(
            _SAME_SEQUENCE, {"run_key": event.run_id, "sequence_key": event.sequence}
        )
        known += [(bytes(row.body_hash), row.id) for row in found]
        return next((known_id for body, known_id in known if body == event.body_hash), None)

    def _load_tally(self, connection: Connection, run_id: str) -> Tally:
        tally = self._tallies.get(run_id)
        if tally is not None:
            return tally
        row = connection.execute(_SELECT_TALLY, {"run_key": run_id}).one_or_none()
        if row is None:  # it was removed a moment ago
            raise RefusedError(403, "Invalid capability token for run")
        return _tally_of(row)

    def _apply_marker(
        self, connection: Connection, batch: _Batch, tally: Tally, event: NewEvent, event_id: int
    ) -> None:
        """Note what a marker, or the assist address, changes about its run."""
        row = connection.execute(_SELECT_KNOWN, {"run_key": event.run_id}).one()
        summary = batch.summaries.get(row.number, {})
        known = {**row._mapping, **batch.changed.get(event.run_id, {}), **summary}
        changes = apply_marker(known["details"], event, event_id)
        if not changes:
            return
        if changes.get("status") in (DONE, FAILED):
            # Nobody will ask for what has not been delivered by now.
            forget_typed(connection, schema.commands.c.run_id == event.run_id)
            changes["verdict"] = self._compare(connection, batch, tally, event)
        batch.changed.setdefault(event.run_id, {}).update(changes)
        now = {**known, **changes}
        summary = {**summary, **summarize(now["status"], now["details"], now["verdict"])}
        if summary["stage"] != known["stage"]:
            summary.update(stage_at=event.created_at, seen_at=None)
        batch.summaries[row.number] = summary

    def _compare(
        self, connection: Connection, batch: _Batch, tally: Tally, event: NewEvent
    ) -> str | None:
        """Return the verdict; None if it takes long, and is left to another thread."""
        if tally.digest is None and tally.altered_count == 0:
            if tally.numbered_bytes > _MAX_READ_BYTES and self.when_unjudged is not None:
                batch.unjudged.append(event.run_id)
                return None
            tally.digest = self._digest_stored(connection, batch, event.run_id)
        digest = None if tally.digest is None else tally.digest.hexdigest()
        return compare_finished(event.marker, tally.numbered_count, tally.numbered_bytes, digest)

    def _digest_stored(self, connection: Connection, batch: _Batch, run_id: str) -> Any:
        """Return the digest of all numbered events: of those on disk, and those of this batch."""
        digest = hashlib.sha256()
        for stored in connection.execute(_NUMBERED_DATA, {"run_key": run_id}):
            digest.update(stored.data.encode())
        for event in batch.stored.get(run_id, ()):
            if event.sequence >= 1:
                digest.update(event.data.encode())
        return digest


def _last_id(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.max(schema.events.c.id))).scalar() or 0


def _tally_of(row: Row[Any]) -> Tally:
    digest = hashlib.sha256() if row.numbered_count == 0 else None
    return Tally(**{name: getattr(row, name) for name in _TALLIED}, digest=digest)


def spend_nonce(connection: Connection, digest: int, used_at: float) -> None:
    """Keep the nonce of what is done in the same transaction. Raises: RefusedError."""
    if not postgresql.is_shared(connection.engine):
        connection.execute(_INSERT_NONCES, {"digest": digest, "used_at": used_at})
    elif not postgresql.spend(connection, {digest: used_at}):
        raise replayed()


def _tally_row(run_id: str, tally: Tally) -> dict[str, Any]:
    return {"run_key": run_id, **{f"new_{name}": getattr(tally, name) for name in _TALLIED}}
