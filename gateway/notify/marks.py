"""What of each run has been told in notifications, on disk: a restart repeats nothing."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, delete, insert, select, update

from gateway.storage import schema
from gateway.storage.records import RUNNING
from gateway.storage.writer import Writer

# Of runs that are looked at when the gateway starts.
_MAX_RUNS = 1_000


class Marks:
    """The table `notified`."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    def load(self) -> dict[str, tuple[int, int]]:
        """Return, by run, up to which event it was told, and at which one it was silent."""
        columns = schema.notified.c
        query = select(columns.run_id, columns.told_event_id, columns.silent_event_id)
        with self._engine.connect() as connection:
            found = connection.execute(query).all()
        return {row.run_id: (row.told_event_id, row.silent_event_id) for row in found}

    def running(self) -> list[str]:
        """Return the ids of the runs that have begun and not ended, the newest ones."""
        columns = schema.runs.c
        query = select(columns.id).where(columns.status == RUNNING).order_by(columns.number.desc())
        with self._engine.connect() as connection:
            return list(connection.execute(query.limit(_MAX_RUNS)).scalars())

    def save(self, run_id: str, told_event_id: int, silent_event_id: int) -> None:
        """Keep what has been told of a run. Blocks until it is on disk."""
        table = schema.notified
        values = {"told_event_id": told_event_id, "silent_event_id": silent_event_id}

        def work(connection: Connection) -> None:
            same = table.c.run_id == run_id
            if not connection.execute(update(table).where(same).values(values)).rowcount:
                connection.execute(insert(table), {"run_id": run_id, **values})

        self._writer.call(work)

    def drop(self, run_id: str) -> None:
        """Forget a run. Blocks until it is on disk."""
        self._writer.execute(delete(schema.notified).where(schema.notified.c.run_id == run_id))
