"""What is PostgreSQL's own: its address, its locks, and what is different for several processes.

One process is alone on SQLite. On PostgreSQL there may be others, which have the same tables and
the same locks; see docs/decisions/0026-several-gateways-on-postgresql.md.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Dialect,
    Engine,
    Float,
    Text,
    bindparam,
    create_engine,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.types import TypeDecorator

NAME = "postgresql"
if TYPE_CHECKING:
    import psycopg

_DRIVER = "postgresql+psycopg"
_NAMES = ("postgres", NAME)
# PostgreSQL names them by numbers, which all programs in a database share.
_FIRST_LOCK = 0x636C7275_00000000
# A process that was stopped in the middle of a transaction holds up the others for so long.
_IDLE_IN_TRANSACTION_S = 30
# Of a transaction whose backend has not noticed yet that its connection has ended.
_LOOK_AGAIN_S = 0.05
# Another transaction came between, or two waited for each other: nothing was done.
_REPEATABLE = ("40001", "40P01")


class Lock(enum.IntEnum):
    """Advisory locks of the gateways."""

    START = _FIRST_LOCK
    # Every gateway has it, shared with the others.
    ALIVE = _FIRST_LOCK + 1
    # The one that has it does what is done once: see `relay`.
    CHORES = _FIRST_LOCK + 2


def is_shared(engine: Engine) -> bool:
    """Whether other processes may be at work on this database."""
    return engine.dialect.name == NAME


def with_driver(url: URL) -> URL:
    """Return an address with the driver that the gateway uses."""
    return url.set(drivername=_DRIVER) if url.drivername in _NAMES else url


def options() -> dict[str, Any]:
    """Return what the engine is made with."""
    return {
        # A connection may have ended with a restart of the database.
        "pool_pre_ping": True,
        "connect_args": {
            "application_name": "claude-runner gateway",
            "connect_timeout": 10,
            "options": f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_S}s",
        },
    }


def probe_options() -> dict[str, Any]:
    """Return what a connection is made with that only looks whether the database is there.

    A network that swallows everything ends it, after two seconds.
    """
    limits = {"connect_timeout": 2, "tcp_user_timeout": 2_000}
    return {**options()["connect_args"], **limits}


def connect(address: URL) -> psycopg.Connection[Any]:
    """Return a connection of its own, where each statement is a transaction."""
    import psycopg  # an extra, which a gateway on SQLite does not have

    text = address.set(drivername=NAME).render_as_string(hide_password=False)
    return psycopg.connect(text, autocommit=True, **options()["connect_args"])


def connection_error() -> type[Exception]:
    """Return what such a connection raises."""
    import psycopg

    return psycopg.Error


@contextmanager
def start_alone(engine: Engine) -> Iterator[None]:
    """Keep other processes from changing the tables meanwhile."""
    if not is_shared(engine):
        yield
        return
    # Outside of the pool, and closed in any case: the lock ends with the connection.
    own = create_engine(engine.url, connect_args=options()["connect_args"], pool_size=1)
    try:
        with own.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": int(Lock.START)})
            connection.commit()
            yield
    finally:
        own.dispose()


def is_repeatable(error: Exception) -> bool:
    """Whether a transaction failed only because of another one."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _REPEATABLE


def is_away(error: Exception) -> bool:
    """Whether the database could not be reached, or has ended the connection."""
    if not isinstance(error, DBAPIError):
        return False
    is_operational = isinstance(error, OperationalError)
    return error.connection_invalidated or (
        is_operational and (getattr(error.orig, "sqlstate", None) or "57P").startswith("57P")
    )


def is_committed(connection: Connection, transaction: str) -> bool:
    """Whether a transaction, whose connection has ended, was committed."""
    query = text("SELECT pg_xact_status(CAST(CAST(:id AS text) AS xid8))")
    while True:
        with connection.begin():
            status = connection.execute(query, {"id": transaction}).scalar()
        if status != "in progress":
            return status == "committed"
        time.sleep(_LOOK_AGAIN_S)


_SPEND = text(
    "INSERT INTO nonces (digest, used_at) SELECT * FROM unnest(:digests, :moments)"
    " ORDER BY 1 ON CONFLICT (digest) DO NOTHING RETURNING digest, pg_current_xact_id()::text"
).bindparams(
    bindparam("digests", type_=ARRAY(BigInteger)), bindparam("moments", type_=ARRAY(Float))
)


def spend(connection: Connection, nonces: dict[int, float]) -> tuple[set[int], str]:
    """Insert nonces; return those that nobody had used, and the transaction's id if there are any.

    In order, so that no two processes wait for each other.
    """
    values = {"digests": list(nonces), "moments": list(nonces.values())}
    rows = connection.execute(_SPEND, values).all()
    return {row[0] for row in rows}, rows[0][1] if rows else ""


# A character that nobody uses, of a plane for private use.
_ESCAPE = "\U0010fffd"
_ESCAPED = {"\0": f"{_ESCAPE}0", _ESCAPE: f"{_ESCAPE}1"}


class NulText(TypeDecorator[str]):
    """Text that may have NUL characters, which PostgreSQL does not store."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what is stored."""
        del dialect
        return None if value is None else escape(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        """Return what was to be stored."""
        del dialect
        if value is None or _ESCAPE not in value:
            return value
        return str(value).replace(_ESCAPED["\0"], "\0").replace(_ESCAPED[_ESCAPE], _ESCAPE)


def escape(value: str) -> str:
    """Return text without NUL characters, from which the same text can be read."""
    if "\0" not in value and _ESCAPE not in value:
        return value
    return value.replace(_ESCAPE, _ESCAPED[_ESCAPE]).replace("\0", _ESCAPED["\0"])
