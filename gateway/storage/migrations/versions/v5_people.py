"""Version 5: people with roles, and whom a run belongs to.

The new table is there: `schema` makes what is missing before the first step.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v5"
down_revision = "v4"

_NEW = {
    "runs": (("owner", 100),),
    "commands": (("person", 100), ("about", 50)),
    "sessions": (("person", 50),),
    "codes": (("person", 50),),
    "audit": (("person", 100),),
}


def upgrade() -> None:
    """Add the columns. Each step may be repeated."""
    inspector = sa.inspect(op.get_bind())
    for table, columns in _NEW.items():
        known = {column["name"] for column in inspector.get_columns(table)}
        for name, length in columns:
            if name not in known:
                op.add_column(table, sa.Column(name, sa.String(length)))
