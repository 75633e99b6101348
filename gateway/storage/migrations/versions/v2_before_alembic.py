"""Version 2: where Alembic begins. Its tables are there already."""

from __future__ import annotations

revision = "v2"
down_revision = None


def upgrade() -> None:
    """Do nothing."""
