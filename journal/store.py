"""The database below the journal: one SQLite file.

It has the connection, the tables' schema and the transactions, and knows nothing of what an event
or a command is: that stands in `events` and `spool`, with its SQL. Not thread-safe.

Write-ahead log, `synchronous=NORMAL`: what is committed survives the process, and what
`sync_to_disk` has seen a power cut. The log is folded into the file whenever it has grown to 1 MiB:
on a full disk, the reserve must be large enough for that.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Of 4 KiB each.
_MAX_LOG_PAGES: Final = 256

# Version 1 had the body of the event in flight in the column of that name.
_SCHEMA_VERSION: Final = 2
_KNOWN_VERSIONS: Final = (1, 2)
_SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX chunks_by_stream ON chunks (stream, id);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('frozen', 'accepted')),
    notice TEXT,
    body BLOB,
    timestamp INTEGER NOT NULL,
    nonce TEXT NOT NULL
);
CREATE TABLE commands (
    id TEXT PRIMARY KEY,
    command TEXT NOT NULL,
    result TEXT,
    error TEXT,
    acknowledged INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE uploads (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    timestamp INTEGER,
    nonce TEXT,
    is_done INTEGER NOT NULL DEFAULT 0
);
"""


class SpoolError(Exception):
    """The journal cannot be written or read; the message is a plain sentence for the user.

    `is_disk_failure`: the disk is full, read-only or failing.
    """

    def __init__(self, message: str, *, is_disk_failure: bool = False) -> None:
        super().__init__(message)
        self.is_disk_failure = is_disk_failure


class Store:
    """The tables of one journal.

    Raises SpoolError from the constructor, else what SQLite raises.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as undo:
            with plain_errors(path):
                # Not what a link leads to: it may be planted.
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                # SQLite gives its other files the permissions of this one.
                os.close(os.open(path, flags, 0o600))
                self._db = _connect(os.fspath(path))
                undo.callback(self._db.close)
                self._prepare()
                # A descriptor of the log alone: closing one of the database file would drop
                # SQLite's locks.
                self._wal_fd = os.open(f"{os.fspath(path)}-wal", os.O_RDWR | os.O_CLOEXEC)
            undo.pop_all()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA secure_delete = ON")
        mode = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise SpoolError(
                f"{self._path.parent} is on a file system that SQLite's write-ahead log cannot "
                "use; set CLAUDE_RUNNER_DATA_DIR to a local folder"
            )
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_MAX_LOG_PAGES}").fetchall()
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;"
            )
        elif version not in _KNOWN_VERSIONS:
            raise SpoolError(f"{self._path} was written by another version of claude-runner")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        os.close(self._wal_fd)

    def execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Execute one statement."""
        return self._db.execute(sql, tuple(values))

    def executemany(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute one statement for each row."""
        self._db.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all of a block or nothing of it."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk rolls back by itself, and then there is no transaction to end.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def sync_to_disk(self) -> None:
        """Make what was committed survive a power cut. Thread: any, also beside another call."""
        os.fsync(self._wal_fd)

    def empty_log(self) -> None:
        """Let no byte of what was deleted stay in the folder."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def fold_log(self) -> None:
        """Make room in the log: what it holds goes into the file, as far as that may grow."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def leave_disk(self, keep: Iterable[tuple[str, str, tuple[Any, ...]]]) -> None:
        """Delete the files and go on in memory, with those rows of a table that a condition names.

        On a read-only disk they stay.
        """
        found = [
            (table, self.execute(f"SELECT * FROM {table} WHERE {condition}", values).fetchall())  # noqa: S608
            for table, condition, values in keep
        ]
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{os.fspath(self._path)}{suffix}")
        self._db.close()
        self._db = _connect(":memory:")
        self._db.executescript(_SCHEMA)
        for table, rows in found:
            for row in rows:
                places = ", ".join("?" * len(row))
                self.execute(f"INSERT INTO {table} VALUES ({places})", row)  # noqa: S608


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA busy_timeout = 5000")
    return database


@contextlib.contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into SpoolError, in words for the user."""
    try:
        yield
    except sqlite3.Error as error:
        words = str(error)
        reason = next((plain for part, plain in _SQLITE_ERRORS if part in words), words)
        raise SpoolError(
            f"the journal {path} cannot be used: {reason}",
            is_disk_failure=isinstance(error, sqlite3.OperationalError),
        ) from error
    except OSError as error:
        raise SpoolError(
            f"the journal {path} cannot be used: {error.strerror}", is_disk_failure=True
        ) from error


# What SQLite says, and what a person does about it.
_SQLITE_ERRORS: Final = (
    ("disk is full", "the disk is full"),
    ("disk I/O error", "the disk does not take it; it may be full, or failing"),
    ("readonly", "it is read-only"),
    ("unable to open", "its folder is not there or cannot be written"),
    ("locked", "another process is writing it"),
    ("not a database", "it is damaged"),
    ("malformed", "it is damaged"),
)
