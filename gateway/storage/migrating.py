"""An older database gets the tables of today: Alembic's steps, in `migrations`.

Only for a database that has an older version: a new one is made by `schema` at once, and Alembic
learns of its version when there is something to do.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine

# Version 2 is the oldest one that Alembic knows of; `schema` makes it of version 1.
_OLDEST = 2


def upgrade(engine: Engine, version: int) -> None:
    """Do the steps from this version on. Each may be repeated: after a crash all of them are."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if MigrationContext.configure(connection).get_current_revision() is None:
            command.stamp(config, f"v{max(version, _OLDEST)}")
        command.upgrade(config, "head")
