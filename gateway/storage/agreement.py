"""What all gateways on one database have in common, and that no other gateway is on it.

On SQLite that is one gateway at a time, by a lock beside the file. On PostgreSQL it is any number
with the same HMAC_SECRET: the database has a salt and a salted digest of the secret, and what the
gateways need besides is made of both, so that it is the same for all and stands nowhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Engine

from gateway.storage import postgresql
from gateway.storage.postgresql import Lock
from gateway.storage.schema import DatabaseError

# One that was killed a moment ago may still be ending.
_PATIENCE_S = 0.5
_INTERVAL_S = 0.1
# A secret that a person has made up is not to be guessed from a copy of the database.
_ROUNDS = 200_000


@dataclass(frozen=True)
class Agreed:
    """What is made of the secret and the salt, for all gateways alike."""

    cookie: str
    link_key: bytes
    admin_token: str


@contextlib.contextmanager
def alone_on_file(engine: Engine) -> Iterator[None]:
    """Have an SQLite file for this gateway alone. Raises: DatabaseError."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:":
        yield
        return
    with open(f"{name}.lock", "a", encoding="utf-8") as file:
        _lock(file, name)
        yield


def _lock(file: IO[str], name: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                raise DatabaseError(
                    f"another gateway uses the database {name}; end it, or use PostgreSQL for "
                    "several gateways"
                ) from None
        time.sleep(_INTERVAL_S)


@contextlib.contextmanager
def agreed_with_others(engine: Engine, secret: str) -> Iterator[Agreed]:
    """Be one of the gateways on a PostgreSQL. Raises: DatabaseError, with another secret."""
    with postgresql.connect(engine.url) as connection:

        def lock(function: str, key: Lock) -> Any:
            row = connection.execute(f"SELECT {function}({int(key)})".encode()).fetchone()
            return row and row[0]

        lock("pg_advisory_lock", Lock.START)
        salt = _find_or_keep(connection, "salt", secrets.token_hex(32))
        digest = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt.encode(), _ROUNDS).hex()
        if _find_or_keep(connection, "secret", digest) != digest:
            # With nobody there, it is a new secret.
            if not lock("pg_try_advisory_lock", Lock.ALIVE):
                raise DatabaseError(
                    "another gateway runs on this database with another HMAC_SECRET; give all "
                    "gateways the same one, or end the others first"
                )
            connection.execute("UPDATE shared SET value = %s WHERE name = 'secret'", (digest,))
            lock("pg_advisory_unlock", Lock.ALIVE)
        lock("pg_advisory_lock_shared", Lock.ALIVE)
        lock("pg_advisory_unlock", Lock.START)
        yield Agreed(
            hashlib.sha256(salt.encode()).hexdigest()[:8],
            _made(secret, salt, "links"),
            _made(secret, salt, "admin token").hex(),
        )


def _find_or_keep(connection: Any, name: str, value: str) -> str:
    connection.execute(
        "INSERT INTO shared (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value)
    )
    query = "SELECT value FROM shared WHERE name = %s"
    return str(connection.execute(query, (name,)).fetchone()[0])


def _made(secret: str, salt: str, what: str) -> bytes:
    return hmac.digest(secret.encode(), f"{salt}\n{what}".encode(), "sha256")
