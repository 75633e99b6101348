"""What is PostgreSQL's own: its address, its locks, and what is different for several processes.

One process is alone on SQLite. On PostgreSQL there may be others, which have the same tables and
the same locks; see docs/decisions/0026-several-gateways-on-postgresql.md.
"""

from __future__ import annotations

import enum
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
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.types import TypeDecorator

NAME = "postgresql"
if TYPE_CHECKING:
    import psycopg

_DRIVER = "postgresql+psycopg"
_NAMES = ("postgres", NAME)
# PostgreSQL names them by numbers, which all programs in a database share.
_FIRST_LOCK = 0x636C7275_00000000
# A process that was stopped in the middle of a transaction holds up the others for so long.
_SESSION = (
    "idle_in_transaction_session_timeout=30s",
    "tcp_keepalives_idle=5",
    "tcp_keepalives_interval=5",
    "tcp_keepalives_count=3",
    "tcp_user_timeout=20s",
)
# Another transaction came between, or two waited for each other: nothing was done.
_REPEATABLE = ("40001", "40P01")
# It ends or begins, the connection is broken, or it has no more of them.
_AWAY = ("57P", "08", "53300")
# It is the copy of another one, or was one until a moment ago.
_READ_ONLY = "25006"


class Lock(enum.IntEnum):
    """Advisory locks of the gateways."""

    START = _FIRST_LOCK
    # Every gateway has it, shared with the others.
    ALIVE = _FIRST_LOCK + 1
    # The one that has it does what is done once: see `relay`.
    CHORES = _FIRST_LOCK + 2
    # Every gateway has it, shared, on the connection by which it tells the others.
    TELLS = _FIRST_LOCK + 3


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
            # Either side may be a host that has lost its power: nobody closes its connections, and
            # the locks of a gateway go with them.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            # After a failover the address may be that of a copy for a while; a connection to it
            # would stay.
            "target_session_attrs": "read-write",
            "options": " ".join(f"-c {each}" for each in _SESSION),
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
    if isinstance(error, PoolTimeoutError):
        return True  # those who have the connections wait for it
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    is_operational = isinstance(error, OperationalError)
    return (
        error.connection_invalidated
        or state == _READ_ONLY
        or (is_operational and (state or "57P").startswith(_AWAY))
    )


def look(connection: Connection) -> None:
    """Raise OperationalError if nothing can be written."""
    if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
        raise OperationalError("SHOW transaction_read_only", None, Exception("it is read-only"))


_ARRAYS = (
    bindparam("digests", type_=ARRAY(BigInteger)),
    bindparam("moments", type_=ARRAY(Float)),
)
_SPEND = text(
    "INSERT INTO nonces (digest, used_at) SELECT * FROM unnest(:digests, :moments)"
    " ORDER BY 1 ON CONFLICT (digest) DO NOTHING RETURNING digest"
).bindparams(*_ARRAYS)
_SPENT_THEN = text(
    "SELECT count(*) FROM nonces JOIN unnest(:digests, :moments) AS mine (digest, used_at)"
    " USING (digest, used_at)"
).bindparams(*_ARRAYS)


def spend(connection: Connection, nonces: dict[int, float]) -> set[int]:
    """Insert nonces; return those that nobody had used.

    In order, so that no two processes wait for each other. It waits for a transaction that has
    inserted one of them, and has not ended.
    """
    values = {"digests": list(nonces), "moments": list(nonces.values())}
    return {row[0] for row in connection.execute(_SPEND, values)}


def is_spent_here(connection: Connection, nonces: dict[int, float]) -> bool:
    """Whether this very process has spent some of these: nobody else took one at its moment.

    The id of a transaction would not tell: after a crash of the database another one may have it.
    """
    values = {"digests": list(nonces), "moments": list(nonces.values())}
    return bool(connection.execute(_SPENT_THEN, values).scalar())


class Unnested:
    """A statement for many rows at once, each column one array: one message to the server, where
    the driver's own way takes one for each row.
    """

    def __init__(self, statement: str, types: dict[str, str]) -> None:
        self._names = tuple(types)
        arrays = ", ".join(f"%({name})s::{kind}[]" for name, kind in types.items())
        self._text = statement.format(f"unnest({arrays})", ", ".join(types))

    def run(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        """Execute it for all rows; their keys are the names of the columns."""
        columns = {name: [row[name] for row in rows] for name in self._names}
        connection.exec_driver_sql(self._text, columns)


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
