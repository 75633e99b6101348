"""What a run has changed: a file that each later one replaces."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from gateway.storage import schema

# The runner sends it in parts where a proxy takes no larger ones.
_FIRST = "changes.diff"
_PARTS = "changes.%.diff"


def replaced_by(connection: Connection, row: dict[str, Any]) -> list[str]:
    """Remove the rows that a new artifact replaces; return their ids, for their files."""
    if row["name"] != _FIRST:
        return []
    columns = schema.artifacts.c
    is_older = (columns.run_id == row["run_id"]) & (
        (columns.name == _FIRST) | columns.name.like(_PARTS)
    )
    ids = list(connection.execute(select(columns.id).where(is_older)).scalars())
    connection.execute(delete(schema.artifacts).where(is_older))
    return ids
