"""`gateway migrate`: takes a gateway on SQLite over to PostgreSQL, and its files to another place.

All rows are copied in one transaction, in which they are counted and summed up again before it
counts: broken off, nothing of it is there, and the next attempt begins anew. Files are copied
before, each is compared by its SHA-256, and one that is there already is not copied again.

The source is read, and stays as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, NoReturn

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Engine,
    Select,
    Table,
    create_engine,
    func,
    select,
)
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError

from config import ConfigError
from gateway.assembly import open_files
from gateway.settings import Settings, load_settings, parse_files_url
from gateway.storage import postgresql, schema
from gateway.storage.agreement import alone_on_file
from gateway.storage.file_store import FilesAwayError, FileStore
from gateway.storage.postgresql import Lock

# Of the database that was made new, or of what is known at the moment alone.
_NOT_MOVED = (schema.versions, schema.shared, schema.waiting)
_MARK = "moved from"
_ROWS_AT_ONCE = 50
_PIECE_BYTES = 1024 * 1024
# What a process that was killed a moment ago holds is free soon.
_PATIENCE_S = 20.0
_INTERVAL_S = 0.2
_SUMS = 1 << 256
_DIALECT: Dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class MoveError(Exception):
    """It cannot be moved; the message is one plain sentence."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise MoveError(f"{message}; see {self.prog} --help")


def move(
    argv: Sequence[str], before: Callable[[str, str], None], tell: Callable[[str], None]
) -> None:
    """Do what the command line says. Raises: MoveError, SettingsError, DatabaseError.

    `before` is called with the addresses of the database and of the files.
    """
    options = _parse(argv)
    folder = Path(options.source)
    if not (folder / "gateway" / "gateway.db").is_file():
        raise MoveError(
            f"there is no gateway's database in {folder / 'gateway'}; name a data folder"
        )
    if not options.to.startswith("postgres"):
        raise MoveError("--to is the address of a PostgreSQL, such as postgresql://user@host/name")
    settings = load_settings(os.environ, options.source, options.env_file)
    target = settings
    if options.files:
        try:
            target = replace(settings, files_url=parse_files_url(options.files, "--files"))
        except ConfigError as error:
            raise MoveError(str(error)) from error
    before(options.to, target.files_url)
    try:
        _Move(settings, target, options.to, tell).run()
    except FilesAwayError as error:
        raise MoveError(f"the place of the files does not answer ({error}); try again") from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise MoveError(f"a database failed ({reason}); nothing was moved, try again") from error
    tell(
        "everything is there; start the new gateways with the same HMAC_SECRET, "
        "CLAUDE_RUNNER_GATEWAY_DATABASE_URL and CLAUDE_RUNNER_GATEWAY_FILES_URL="
        f"{target.files_url or (settings.data_dir / 'artifacts').as_uri()}"
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="./wrapper/claude-runner gateway migrate",
        description="Take a gateway on SQLite over to PostgreSQL. The old data stays as it is.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--from", dest="source", metavar="DIR", required=True, help="data folder of the gateway"
    )
    parser.add_argument("--to", metavar="URL", required=True, help="postgresql://user@host/name")
    parser.add_argument(
        "--files", metavar="URL", help="where files go: s3://bucket/prefix or file:///folder"
    )
    parser.add_argument("--env-file", metavar="FILE", help="file of the settings (.env)")
    return parser.parse_args(argv)


class _Move:
    """One attempt."""

    def __init__(
        self, settings: Settings, target: Settings, url: str, tell: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._target = target
        self._url = url
        self._tell = tell

    def run(self) -> None:
        """Do it."""
        file = self._settings.data_dir / "gateway.db"
        with ExitStack() as stack:
            # Read only: not even what SQLite tidies up at its end is written.
            source = create_engine(f"sqlite:///file:{_quoted(file)}?mode=ro&uri=true")
            stack.callback(source.dispose)
            stack.enter_context(alone_on_file(create_engine(f"sqlite:///{file}")))
            _check_version(source)
            with source.connect() as connection:
                mark = _mark_of(connection)
            target = schema.open_database(self._url)
            stack.callback(target.dispose)
            stack.enter_context(_alone_on(target))
            is_moved = _is_moved(target, mark)
            # After the move: of the runs that are still there.
            self._copy_files(target if is_moved else source)
            if is_moved:
                self._tell("the rows were moved before")
            else:
                self._copy_rows(source, target, mark)

    # --- files ---

    def _copy_files(self, noted: Engine) -> None:
        """Copy the files that a database has noted. Raises: MoveError."""
        old, new = open_files(self._settings), open_files(self._target)
        columns = schema.artifacts.c
        query = select(columns.run_id, columns.id).order_by(columns.number)
        copied, there, missing = 0, 0, 0
        with noted.connect() as connection:
            for run_id, file_id in connection.execute(query.execution_options(yield_per=500)):
                known, found = (_sum_of(each, run_id, file_id) for each in (old, new))
                if known is None and found is None:
                    missing += 1
                elif known is None or found == known:
                    there += 1
                else:
                    _copy_file(old, new, run_id, file_id)
                    if _sum_of(new, run_id, file_id) != known:
                        raise MoveError(f"the file {run_id}/{file_id} was not copied as it is")
                    copied += 1
        if missing and not (copied or there):
            place = self._settings.files_url or self._settings.data_dir / "artifacts"
            raise MoveError(
                f"none of the {missing} files is in {place}; set CLAUDE_RUNNER_GATEWAY_FILES_URL "
                "to where the old gateway had them, and name the new place with --files"
            )
        self._tell(f"files: {copied} copied, {there} there already, all sums are right")
        if missing:
            self._tell(f"files: {missing} are missing, in the old place too")

    # --- rows ---

    def _copy_rows(self, source: Engine, target: Engine, mark: str) -> None:
        with source.connect() as old, target.begin() as new:
            for table in schema.metadata.sorted_tables:
                if table in _NOT_MOVED:
                    continue
                columns = _columns_of(table)
                query = _rows_of(table, columns)
                copied = _copied(old, new, query, table, columns)
                if _summed(new, query) != copied:
                    raise MoveError(f"the table {table.name} was not copied as it is")
                if "number" in columns and table.c["number"].autoincrement is not False:
                    _go_on_counting(new, table)
                self._tell(f"{table.name}: {copied[0]} rows, the sum is right")
            row = {"name": _MARK, "value": mark}
            new.execute(schema.shared.insert(), row)


def _quoted(file: Path) -> str:
    return file.absolute().as_uri()[len("file://") :]


def _check_version(source: Engine) -> None:
    with source.connect() as connection:
        found = connection.execute(select(func.max(schema.versions.c.version))).scalar()
    if found != schema.VERSION:
        raise MoveError(
            f"the tables of the old gateway have version {found}, and this one knows "
            f"{schema.VERSION}; start this version of the gateway once on it, and end it"
        )


def _mark_of(connection: Connection) -> str:
    """Return what tells this source from others: when its tables were made, and its first run."""
    made = connection.execute(select(func.min(schema.versions.c.created_at))).scalar()
    first = connection.execute(select(schema.runs.c.id).order_by(schema.runs.c.number)).first()
    return hashlib.sha256(repr((made, first and first[0])).encode()).hexdigest()


def _is_moved(target: Engine, mark: str) -> bool:
    """Whether an earlier attempt has come to its end. Raises: MoveError, if others wrote there."""
    known = select(schema.shared.c.value).where(schema.shared.c.name == _MARK)
    with target.connect() as connection:
        if connection.execute(known).scalar() == mark:
            return True
        used = [
            table.name
            for table in (schema.runs, schema.audit, schema.waiters)
            if connection.execute(select(table).limit(1)).first() is not None
        ]
    if used:
        raise MoveError("the new database has runs of other gateways; use an empty one")
    return False


@contextmanager
def _alone_on(target: Engine) -> Iterator[None]:
    """Let no gateway be there. Raises: MoveError, if one is."""
    with postgresql.connect(target.url) as connection:
        for key, who in ((Lock.START, "starts"), (Lock.ALIVE, "runs")):
            query = f"SELECT pg_try_advisory_lock({int(key)})".encode()
            deadline = time.monotonic() + _PATIENCE_S * (key is Lock.START)
            while not (connection.execute(query).fetchone() or (False,))[0]:
                if time.monotonic() >= deadline:
                    raise MoveError(f"a gateway {who} on the new database; end it first")
                time.sleep(_INTERVAL_S)
        yield


def _columns_of(table: Table) -> list[str]:
    # Where several write, a nonce is its own key.
    return [each.name for each in table.columns if (table, each.name) != (schema.nonces, "number")]


def _rows_of(table: Table, columns: list[str]) -> Select[Any]:
    query = select(*(table.c[name] for name in columns))
    if table is schema.nonces:
        used = func.min(table.c.used_at).label("used_at")
        query = select(table.c.digest, used).group_by(table.c.digest)
    return query.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE)


def _copied(
    old: Connection, new: Connection, query: Select[Any], table: Table, columns: list[str]
) -> tuple[int, int]:
    """Copy rows; return how many there were, and their sum."""
    count, total = 0, 0
    names = ", ".join(f'"{name}"' for name in columns)
    statement = f"COPY {table.name} ({names}) FROM STDIN"
    writers = [_writer_of(table.c[name]) for name in columns]
    cursor: Any = new.connection.cursor()
    with contextlib.closing(cursor), cursor.copy(statement) as copy:
        for row in old.execute(query):
            count, total = count + 1, (total + _sum_of_row(row)) % _SUMS
            copy.write_row([write(value) for write, value in zip(writers, row)])
    return count, total


def _writer_of(column: Column[Any]) -> Callable[[Any], Any]:
    """Return what makes of a value what PostgreSQL stores."""
    kind = column.type.dialect_impl(_DIALECT)
    return kind.bind_processor(_DIALECT) or (lambda value: value)


def _summed(new: Connection, query: Select[Any]) -> tuple[int, int]:
    count, total = 0, 0
    for row in new.execute(query):
        count, total = count + 1, (total + _sum_of_row(row)) % _SUMS
    return count, total


def _sum_of_row(row: Any) -> int:
    """Return a number for a row. The sum of a table's rows does not depend on their order."""
    values = [bytes(each) if isinstance(each, memoryview) else each for each in row]
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest(), "big")


def _go_on_counting(new: Connection, table: Table) -> None:
    highest = new.execute(select(func.max(table.c.number))).scalar()
    if highest is not None:
        sequence = func.pg_get_serial_sequence(table.name, "number")
        new.execute(select(func.setval(sequence, highest)))


# --- files ----------------------------------------------------------------------------------------


def _sum_of(store: FileStore, run_id: str, file_id: str) -> bytes | None:
    """Return the digest of a file, None if it is not there."""
    digest = hashlib.sha256()
    try:
        with contextlib.closing(store.open(run_id, file_id)) as content:
            while piece := content.read(_PIECE_BYTES):
                digest.update(piece)
    except FileNotFoundError:
        return None
    return digest.digest()


def _copy_file(old: FileStore, new: FileStore, run_id: str, file_id: str) -> None:
    with (
        contextlib.closing(old.open(run_id, file_id)) as content,
        new.writing(run_id, file_id) as sink,
    ):
        while piece := content.read(_PIECE_BYTES):
            sink.write(piece)
