"""Version 4: files may lie elsewhere, and are removed after their run.

The new tables are there: `schema` makes what is missing before the first step. An older gateway
must not remove runs without them.
"""

from __future__ import annotations

revision = "v4"
down_revision = "v3"


def upgrade() -> None:
    """Do nothing."""
