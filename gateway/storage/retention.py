"""How long runs are kept: which of them are old enough that something of them goes, and which stay.

What a run has printed and its files have periods of their own; the run itself goes with the longer
one. A run that somebody keeps loses nothing.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, or_, select, update
from sqlalchemy.sql.dml import Delete

from gateway.storage import schema
from gateway.storage.records import summarize
from gateway.storage.writer import Writer

_RUNS = schema.runs.c
_KEEPING = schema.keeping.c
_LAST = func.coalesce(_RUNS.last_event_at, _RUNS.created_at)
_WITH_KEEPING = schema.runs.outerjoin(schema.keeping, _KEEPING.run_id == _RUNS.id)
# Rows removed in one transaction, so that what runners send does not wait for long.
_IN_PARTS = ((schema.texts.c.number, 100), (schema.events.c.id, 2_000))
_REMOVED = "The output of this run was removed, because it was kept long enough.\n"


class Periods(NamedTuple):
    """How long something is kept after the last that happened in its run; 0 is for ever."""

    output_s: float = 0.0
    files_s: float = 0.0
    audit_s: float = 0.0

    @property
    def run_s(self) -> float:
        """Of the run itself: as long as there is something of it."""
        return max(self.output_s, self.files_s) if self.output_s and self.files_s else 0.0


def remove_in_parts(connection: Connection, run_id: str, but: int | None = None) -> bool:
    """Remove some of what a run has printed; return whether there was any. `but` is an event."""
    for key, limit in _IN_PARTS:
        run = key.table.c.run_id == run_id
        if but is not None and key.table is schema.events:
            run = and_(run, key != but)
        first = select(key).where(run).order_by(key).limit(limit)
        ids = connection.execute(first).scalars().all()
        if ids:
            some: Delete = delete(key.table).where(run, key >= ids[0], key <= ids[-1])
            connection.execute(some)
            return True
    return False


class Retention:
    """What is asked and changed for it. Thread: any."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    def keep(self, run_id: str, *, keeps: bool) -> None:
        """Keep a run for ever, or no longer."""
        at = time.time() if keeps else None
        self._writer.call(lambda connection: _note(connection, run_id, kept_at=at))

    # --- what is old ---

    def old_runs(self, before: float, limit: int) -> list[str]:
        """Return runs in which nothing has happened since then."""
        return self._old(before, limit)

    def runs_with_old_output(self, before: float, limit: int) -> list[str]:
        """Return those of them that still have what they printed."""
        cleared = _KEEPING.output_removed_at
        is_there = or_(cleared.is_(None), cleared < _LAST)
        return self._old(before, limit, _RUNS.event_count > 0, is_there)

    def runs_with_old_files(self, before: float, limit: int) -> list[str]:
        """Return those of them that still have files."""
        files = select(schema.artifacts.c.number).where(schema.artifacts.c.run_id == _RUNS.id)
        return self._old(before, limit, files.correlate(schema.runs).exists())

    def _old(self, before: float, limit: int, *those: ColumnElement[bool]) -> list[str]:
        query = (
            select(_RUNS.id)
            .select_from(_WITH_KEEPING)
            .where(before > _LAST, _KEEPING.kept_at.is_(None), *those)
            .order_by(_RUNS.number)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    # --- what goes ---

    def remove_some_output(self, run_id: str) -> bool:
        """Remove a part of what a run printed, asked and was told; return whether there is more.

        Its last event stays as a sentence, so that who reads the run comes to its end.
        """

        def work(connection: Connection) -> bool:
            run = connection.execute(select(schema.runs).where(_RUNS.id == run_id)).one_or_none()
            if run is None:
                return False
            if remove_in_parts(connection, run_id, but=run.last_event_id):
                return True
            self._clear(connection, run)
            return False

        return self._writer.call(work)

    def _clear(self, connection: Connection, run: Any) -> None:
        events = schema.events.c
        last = and_(events.run_id == run.id, events.id == run.last_event_id)
        connection.execute(update(schema.events).where(last).values(type="info", data=_REMOVED))
        connection.execute(delete(schema.commands).where(schema.commands.c.run_id == run.id))
        details = json.loads(run.details)
        details.pop("talk", None)  # it tells of events that are gone
        values = {"details": json.dumps(details), "altered_count": run.event_count}
        connection.execute(update(schema.runs).where(_RUNS.id == run.id).values(values))
        summary = summarize(run.status, values["details"], run.verdict)
        line = update(schema.summaries).where(schema.summaries.c.number == run.number)
        connection.execute(line.values(open_questions=summary["open_questions"]))
        _note(connection, run.id, output_removed_at=time.time())
        self._writer.forget(run.id)

    def forget_file(self, artifact_id: str) -> None:
        """Forget a file that is gone."""
        self._writer.execute(delete(schema.artifacts).where(schema.artifacts.c.id == artifact_id))


def _note(connection: Connection, run_id: str, **values: float | None) -> None:
    this = _KEEPING.run_id == run_id
    if not connection.execute(update(schema.keeping).where(this).values(values)).rowcount:
        connection.execute(schema.keeping.insert(), {"run_id": run_id, **values})
