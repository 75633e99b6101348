"""Version 3: several processes on one PostgreSQL, and the search goes by run.

The new tables are there: `schema` makes what is missing before the first step.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import inspect

revision = "v3"
down_revision = "v2"

# Numbers of events were over all runs, and stay. What the search had taken of a run is what has a
# number up to there.
_TAKE_OVER = """
INSERT INTO indexed (run_id, event_id)
SELECT id, CASE WHEN last_event_id < done THEN last_event_id ELSE done END
FROM runs, (SELECT coalesce(max(event_id), 0) AS done FROM progress WHERE name = 'texts') AS texts
WHERE done > 0 AND last_event_id > 0 AND NOT EXISTS (
    SELECT 1 FROM indexed AS other WHERE other.run_id = runs.id)
"""
# Copies, which a second process may have made before the database refused them.
_POSTGRESQL = (
    """
    DELETE FROM events AS later USING events AS first
    WHERE later.run_id = first.run_id AND later.sequence = first.sequence
    AND later.body_hash = first.body_hash AND first.sequence > 0 AND later.id > first.id
    """,
    "ALTER TABLE events DROP CONSTRAINT events_pkey, ADD PRIMARY KEY (run_id, id)",
    "DROP INDEX events_by_run",
    "DROP INDEX events_by_sequence",
    "CREATE UNIQUE INDEX events_once ON events (run_id, sequence, body_hash) WHERE sequence > 0",
    """
    DELETE FROM nonces AS later USING nonces AS first
    WHERE later.digest = first.digest AND later.number > first.number
    """,
    "ALTER TABLE nonces DROP COLUMN number, ADD PRIMARY KEY (digest)",
    "CREATE INDEX commands_pending ON commands (run_id) WHERE status = 'pending'",
)


def upgrade() -> None:
    """Change what is there."""
    connection = op.get_bind()
    if inspect(connection).has_table("progress"):
        op.execute(_TAKE_OVER)
        op.drop_table("progress")
    if connection.dialect.name == "postgresql":
        for statement in _POSTGRESQL:
            op.execute(statement)
