"""The thread that compares a large run with what its `finished` marker says was sent.

The writer has the digest of a run at hand if it has stored all of it. After a restart it has not,
and the output has to be read again: seconds for a large run, in which the writer would wait.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
from typing import Any, Callable, NamedTuple

from sqlalchemy import Connection, Engine, select, update

from gateway.storage import schema
from gateway.storage.records import DONE, FAILED, compare_finished, summarize
from gateway.storage.writer import StoreClosedError, Writer

logger = logging.getLogger(__name__)

_RUNS, _EVENTS, _LINES = schema.runs.c, schema.events.c, schema.summaries.c
# Markers that may come behind the one that ends a run.
_MAX_MARKERS = 100
# Read at once.
_PAGE = 50


class _Finished(NamedTuple):
    event_id: int
    marker: dict[str, Any]


class Verdicts:
    """The thread. `told` is called with the run when there is a verdict."""

    def __init__(self, engine: Engine, writer: Writer, told: Callable[[str], None]) -> None:
        self._engine = engine
        self._writer = writer
        self._told = told
        self._inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="gateway-verdicts", daemon=True)
        writer.when_unjudged = self._inbox.put

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; what is left is done after the next start. Blocks until then."""
        self._is_ending = True
        self._inbox.put(None)
        self._thread.join(2)

    def lead(self, *, leads: bool) -> None:
        """Look for runs whose gateway ended before it had compared them."""
        if leads:
            is_over = _RUNS.status.in_((DONE, FAILED))
            query = select(_RUNS.id).where(is_over, _RUNS.verdict.is_(None))
            with self._engine.connect() as connection:
                for run_id in connection.execute(query).scalars():
                    self._inbox.put(run_id)

    def _run(self) -> None:
        while (run_id := self._inbox.get()) is not None:
            try:
                if self._judge(run_id):
                    self._told(run_id)
            except StoreClosedError:
                return
            except Exception as error:  # noqa: BLE001 - of one run; after the next start once more
                logger.warning("could not compare what a run has sent: %s", error)

    def _judge(self, run_id: str) -> bool:
        altered = select(_RUNS.altered_count).where(_RUNS.id == run_id)
        with self._engine.connect() as connection:
            finished = _find_finished(connection, run_id)
            is_altered = bool(connection.execute(altered).scalar())
        if finished is None:
            return False
        count, size_bytes, digest = 0, 0, hashlib.sha256()
        for data in self._numbered_data(run_id, finished.event_id):
            count, size_bytes = count + 1, size_bytes + len(data)
            digest.update(data)
            if self._is_ending:
                return False
        known = None if is_altered else digest.hexdigest()
        verdict = compare_finished(finished.marker, count, size_bytes, known)

        def work(connection: Connection) -> bool:
            if _find_finished(connection, run_id) != finished:
                return False  # it has gone on, and ended again
            this = (_RUNS.id == run_id, _RUNS.verdict.is_(None))
            judged = update(schema.runs).where(*this).values(verdict=verdict)
            if not connection.execute(judged).rowcount:
                return False
            row = connection.execute(select(schema.runs).where(_RUNS.id == run_id)).one()
            incomplete = summarize(row.status, row.details, row.verdict)["incomplete"]
            line = update(schema.summaries).where(_LINES.number == row.number)
            connection.execute(line.values(incomplete=incomplete))
            return True

        return self._writer.call(work)

    def _numbered_data(self, run_id: str, before: int) -> Any:
        last = 0
        while True:
            query = (
                select(_EVENTS.id, _EVENTS.data, _EVENTS.sequence)
                .where(_EVENTS.run_id == run_id, _EVENTS.id > last, _EVENTS.id < before)
                .order_by(_EVENTS.id)
                .limit(_PAGE)
            )
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            last = rows[-1].id
            yield from (row.data.encode() for row in rows if row.sequence > 0)


def _find_finished(connection: Connection, run_id: str) -> _Finished | None:
    """Return the marker that ended a run, as it is stored."""
    query = (
        select(_EVENTS.id, _EVENTS.data)
        .where(_EVENTS.run_id == run_id, _EVENTS.type == "marker")
        .order_by(_EVENTS.id.desc())
        .limit(_MAX_MARKERS)
    )
    for row in connection.execute(query):
        marker = json.loads(row.data)
        if isinstance(marker, dict) and marker.get("event") == "finished":
            return _Finished(row.id, marker)
    return None
