"""Which folders wait: in memory, or in the database where several gateways are on it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Protocol, TypeVar

from sqlalchemy import Connection, Engine, delete, insert, select

from gateway.storage import schema
from gateway.storage.writer import Writer

T = TypeVar("T")

# A folder asks at least every 20 s; one that has been silent for so long has gone.
GONE_AFTER_S = 30.0


@dataclass(frozen=True)
class Said:
    """What a waiting folder says with each request. `ended` is what became of its last run.

    `session` is one process that waits; `begins` is true until it has got an answer. `code` is the
    one that it was told last: it learns at once that it was let in. `resumes`: it can go on with
    sessions; older ones would begin a new one.
    """

    session: str
    begins: bool
    leaves: bool
    name: str
    machine: str
    modes: tuple[str, ...]
    asks: bool
    running: str
    code: str | None
    ended: Mapping[str, Any] | None
    resumes: bool = False


@dataclass
class Folder:
    """A folder that waits. `code` is None once the operator has let it in."""

    said: Said
    since: float
    seen_at: float
    code: str | None = None
    running: str = ""


Folders = dict[str, Folder]


class Register(Protocol):
    """The folders by their ids. Thread: any."""

    def now(self) -> float:
        """Return the time by which it is told who is here."""

    def change(self, work: Callable[[Folders], T]) -> T:
        """Let `work` change the folders that are here, while nobody else does; it may be repeated.

        Raises: what it raises, with nothing changed in the database.
        """

    def find(self, waiter_id: str) -> Folder | None:
        """Return a folder that is here, to look at."""

    def here(self) -> Folders:
        """Return all that are here, to look at."""


class OwnRegister:
    """In memory, of a gateway that is alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: Folders = {}

    def now(self) -> float:
        """Return the time by which it is told who is here."""
        return time.monotonic()

    def change(self, work: Callable[[Folders], T]) -> T:
        """Let `work` change the folders that are here."""
        with self._lock:
            self._folders = self._those_here()
            return work(self._folders)

    def find(self, waiter_id: str) -> Folder | None:
        """Return a folder that is here."""
        return self.here().get(waiter_id)

    def here(self) -> Folders:
        """Return all that are here."""
        with self._lock:
            return self._those_here()

    def _those_here(self) -> Folders:
        since = self.now() - GONE_AFTER_S
        return {key: each for key, each in self._folders.items() if each.seen_at > since}


class SharedRegister:
    """In the database, for all gateways on it."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    def now(self) -> float:
        """Return the time by which it is told who is here."""
        return time.time()

    def change(self, work: Callable[[Folders], T]) -> T:
        """Let `work` change the folders that are here."""

        def attempt(connection: Connection) -> T:
            folders = self._load(connection)
            before = {key: replace(each) for key, each in folders.items()}
            value = work(folders)
            changed = [key for key in {*before, *folders} if before.get(key) != folders.get(key)]
            table = schema.waiting
            connection.execute(delete(table).where(table.c.waiter_id.in_(changed)))
            rows = [_row(key, folders[key]) for key in changed if key in folders]
            if rows:
                connection.execute(insert(table), rows)
            return value

        return self._writer.call(attempt)

    def find(self, waiter_id: str) -> Folder | None:
        """Return a folder that is here."""
        return self.here().get(waiter_id)

    def here(self) -> Folders:
        """Return all that are here."""
        with self._engine.connect() as connection:
            return self._load(connection)

    def _load(self, connection: Connection) -> Folders:
        columns = schema.waiting.c
        query = select(schema.waiting).where(columns.seen_at > self.now() - GONE_AFTER_S)
        return {row.waiter_id: _folder(row) for row in connection.execute(query)}


def _row(waiter_id: str, folder: Folder) -> dict[str, Any]:
    return {
        "waiter_id": waiter_id,
        "said": json.dumps(asdict(folder.said)),
        "since": folder.since,
        "seen_at": folder.seen_at,
        "code": folder.code,
        "running": folder.running,
    }


def _folder(row: Any) -> Folder:
    said = json.loads(row.said)
    known = Said(**{**said, "modes": tuple(said["modes"])})
    return Folder(known, row.since, row.seen_at, row.code, row.running)
