"""A run that was stopped before it began: it is not begun, until a person wants it after all.

Its `reason` says so, as that of a run that was stopped later does. Each is called in a transaction.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, select, update

from gateway.storage import schema
from gateway.storage.records import DONE, HALT, PENDING, STOP

_RUNS, _COMMANDS = schema.runs.c, schema.commands.c
# What would end a run before it has begun.
IS_STOP = _COMMANDS.command.in_((STOP, HALT)) & (_COMMANDS.status == PENDING)


def note_stop(connection: Connection, run_id: str, reason: str | None, **known: Any) -> bool:
    """Note why a run will not be started, or that it may be; False if it has begun. `known` are
    further details of it.
    """
    this = (_RUNS.id == run_id, _RUNS.status == PENDING)
    query = select(_RUNS.number, _RUNS.details).where(*this).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        return False
    details = json.dumps({**json.loads(row.details), "reason": reason, **known})
    connection.execute(update(schema.runs).where(*this).values(details=details))
    line = update(schema.summaries).where(schema.summaries.c.number == row.number)
    connection.execute(line.values(reason=reason))
    return True


def take_stops_back(connection: Connection, run_id: str, because: str, **known: Any) -> None:
    """Let a run be started after all. `known` are further details of it."""
    stops = update(schema.commands).where(_COMMANDS.run_id == run_id, IS_STOP)
    connection.execute(stops.values(status=DONE, result=because))
    note_stop(connection, run_id, None, **known)
