"""The database below the journal: one SQLite file, or memory when the disk takes nothing any more.

It has the connection, the tables' schema and the transactions, and knows nothing of what an event
or a command is: that stands in `events` and `spool`, with its SQL. Not thread-safe.

On the disk: write-ahead log, `synchronous=NORMAL`, so that what is committed survives the process,
and what `sync_to_disk` has seen a power cut. In memory: when the disk is full, or went read-only, a
second database takes all that is written from then on, beside the journal so far, which is read
where it lies. Chunks are therefore written to `main.chunks` and read from `chunks`, which is a view
of both places then. Text in memory has a bound, which its writer has to ask for and to count.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Undelivered output that is kept without a disk.
MAX_MEMORY_CHARS: Final = 16 * 1_048_576
# SQLite's own, and what must be left for others before the journal goes back to the disk.
_PAGE_BYTES: Final = 4_096
_SPARE_BYTES: Final = 1_048_576

_SCHEMA_VERSION: Final = 1
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


# Everything but the output, which is too large to be copied and stays readable where it is.
_KEPT_TABLES: Final = ("facts", "events", "commands", "uploads")
# A temporary view is found before both tables of that name, unless a query names the schema.
_ALL_CHUNKS: Final = (
    "CREATE TEMP VIEW chunks AS SELECT * FROM disk.chunks UNION ALL SELECT * FROM main.chunks"
)


class SpoolError(Exception):
    """The journal cannot be written or read; the message is a plain sentence for the user.

    `is_disk_failure`: the disk is full, read-only or failing, and the journal was on it.
    """

    def __init__(self, message: str, *, is_disk_failure: bool = False) -> None:
        super().__init__(message)
        self.is_disk_failure = is_disk_failure


class Store:
    """The tables of one journal. Raises SpoolError from the constructor, else what SQLite raises.

    `failure` says, if it is set, why the disk was left last; with `stays_on_disk` it never is.
    """

    def __init__(self, path: Path, *, stays_on_disk: bool) -> None:
        self._path = path
        self._stays_on_disk = stays_on_disk
        self.failure: str | None = None
        self._memory_chars = 0
        self._disk_db: sqlite3.Connection | None = None
        with contextlib.ExitStack() as undo:
            with plain_errors(path):
                # SQLite gives its other files the permissions of this one.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
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
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;"
            )
        elif version != _SCHEMA_VERSION:
            raise SpoolError(f"{self._path} was written by another version of claude-runner")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._disk_db is not None:
            self._disk_db.close()
        os.close(self._wal_fd)

    def execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Execute one statement where the journal is now."""
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

    def wipe(self, sql: str, values: Iterable[Any]) -> None:
        """Execute a DELETE so that no byte of what it removes stays in the folder."""
        if self._disk_db is None:
            with self.transaction():
                self.execute(sql, values)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return
        # What is on the disk cannot be changed, but it can go.
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{os.fspath(self._path)}{suffix}")

    # --- without a disk ----------------------------------------------------------------------

    @property
    def is_in_memory(self) -> bool:
        """Whether the disk was left and not gone back to."""
        return self._disk_db is not None

    def leave_disk(self, reason: str) -> bool:
        """Go on in memory. False if it may not, or did before. Raises: SpoolError."""
        if self._stays_on_disk or self._disk_db is not None:
            return False
        with plain_errors(self._path):
            memory = _connect(":memory:")
            memory.executescript(_SCHEMA)
            # The journal so far stays where it is, and is read through a connection of its own:
            # the old one may be in any state.
            memory.execute("ATTACH ? AS disk", (f"{self._path.absolute().as_uri()}?mode=ro",))
            for table in _KEPT_TABLES:
                memory.execute(f"INSERT INTO main.{table} SELECT * FROM disk.{table}")  # noqa: S608
            memory.execute("PRAGMA temp_store = MEMORY")
            memory.execute(_ALL_CHUNKS)
        self._disk_db, self._db = self._db, memory
        self.failure = reason
        return True

    def has_disk_room(self) -> bool:
        """Whether the disk could take what is in memory: once in its log, once in its file."""
        if self._disk_db is None:
            return True
        pages: int = self._db.execute("PRAGMA main.page_count").fetchone()[0]
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        free_bytes: int = disk.f_bavail * disk.f_frsize
        return free_bytes >= 2 * pages * _PAGE_BYTES + _SPARE_BYTES

    def return_to_disk(self) -> bool:
        """Go back to the disk with all that is kept in memory. False if it does not take it."""
        disk = self._disk_db
        if disk is None:
            return True
        try:
            if disk.in_transaction:
                disk.execute("ROLLBACK")
            disk.execute("BEGIN IMMEDIATE")
            for table in _KEPT_TABLES:
                disk.execute(f"DELETE FROM {table}")  # noqa: S608 - one of four names
            for table in (*_KEPT_TABLES, "chunks"):
                rows = self._db.execute(f"SELECT * FROM main.{table}")  # noqa: S608
                places = ", ".join("?" * len(rows.description))
                disk.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608
            disk.execute("COMMIT")
        except (sqlite3.Error, OSError):
            with contextlib.suppress(sqlite3.Error):
                disk.execute("ROLLBACK")
            return False
        self._db.close()
        self._db, self._disk_db = disk, None
        self._memory_chars = 0
        return True

    def has_room(self, chars: int) -> bool:
        """Whether there is room for so many characters more; on the disk there is."""
        return not self.is_in_memory or self._memory_chars + chars <= MAX_MEMORY_CHARS

    def take_room(self, chars: int) -> None:
        """Count characters that memory has to keep from now on, or with a minus no longer."""
        if self.is_in_memory:
            self._memory_chars = max(0, self._memory_chars + chars)


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, uri=True)
    database.execute("PRAGMA busy_timeout = 5000")
    return database


@contextlib.contextmanager
def plain_errors(path: Path, *, is_on_disk: bool = True) -> Iterator[None]:
    """Turn what SQLite and the system raise into SpoolError, in words for the user."""
    try:
        yield
    except sqlite3.Error as error:
        words = str(error)
        reason = next((plain for part, plain in _SQLITE_ERRORS if part in words), words)
        raise SpoolError(
            f"the journal {path} cannot be used: {reason}",
            is_disk_failure=is_on_disk and isinstance(error, sqlite3.OperationalError),
        ) from error
    except OSError as error:
        raise SpoolError(
            f"the journal {path} cannot be used: {error.strerror}", is_disk_failure=is_on_disk
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
