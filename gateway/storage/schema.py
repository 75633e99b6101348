"""The tables, and the version that they have.

Portable: types and statements are those that SQLAlchemy Core writes for SQLite and PostgreSQL
alike. Times are Unix seconds. What is PostgreSQL's own stands in `postgresql`, in the `DDL` here,
and in `migrations`; what is SQLite's own in `open_database`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    and_,
    create_engine,
    delete,
    event,
    exists,
    insert,
    inspect,
    or_,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gateway.storage import postgresql
from gateway.storage.records import (
    DONE,
    FAILED,
    OVER,
    PENDING,
    WAITS_FOR_START,
    shown_of,
    summarize,
)

VERSION = 5
# Runs of an older version that are changed in one transaction.
_UPGRADED_AT_ONCE = 500

metadata = MetaData()
# What runs and operators wrote; JSON has no NUL characters.
_WRITTEN = Text().with_variant(postgresql.NulText(), postgresql.NAME)


def _number() -> Column[int]:
    """Rows in the order in which they came."""
    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _id() -> Column[str]:
    """What the wire and the API call a row."""
    return Column("id", String(50), nullable=False, unique=True)


def _of_run() -> Column[str]:
    return Column("run_id", String(50), nullable=False)


def _moment(name: str) -> Column[float]:
    return Column(name, Float, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, default=0)


versions = Table(
    "schema_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    _moment("created_at"),
)

runs = Table(
    "runs",
    metadata,
    # In the order of creation, and what the list of runs is paged by.
    _number(),
    _id(),
    Column("token_hash", LargeBinary(32), nullable=False),
    Column("status", String(10), nullable=False),
    # The name of the person who made it; null for the holder of the admin token.
    Column("owner", String(100)),
    Column("command", _WRITTEN),
    Column("metadata", Text),
    _moment("created_at"),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("exit_code", BigInteger),
    # JSON: what the markers told, by the names of `records.NO_DETAILS`.
    Column("details", Text, nullable=False),
    Column("verdict", Text),
    _count("last_event_id"),
    Column("last_event_at", Float),
    _count("event_count"),
    # Of the events numbered 1 and more, as they were sent: what `finished` is compared with.
    _count("numbered_count"),
    _count("numbered_bytes"),
    _count("highest_sequence"),
    # How many of those are stored otherwise than they were sent, because of the redaction here.
    _count("altered_count"),
)

# What the list of runs shows and is filtered by, one row for each run. A table of its own: a run's
# row may have a prompt of a megabyte in it, and the list reads all of these.
summaries = Table(
    "summaries",
    metadata,
    # The run's number.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    # One of the groups of `records`, and since when.
    Column("stage", String(10), nullable=False),
    _moment("stage_at"),
    # When somebody has looked at its end; null if nobody has.
    Column("seen_at", Float),
    # Given by the operator.
    Column("title", _WRITTEN),
    # The beginning of the prompt: as it was given here, and as the runner told it.
    Column("asked", _WRITTEN),
    Column("prompt", _WRITTEN),
    Column("working_dir", _WRITTEN),
    Column("branch", _WRITTEN),
    Column("runner", _WRITTEN),
    Column("mode", _WRITTEN),
    Column("reason", _WRITTEN),
    _count("open_questions"),
    _count("refused"),
    Column("cost", Float),
    Column("incomplete", Boolean, nullable=False),
    # Since then nobody sees it any more, and it is being removed.
    Column("removed_at", Float),
    Index("summaries_by_stage", "stage", "stage_at", "number"),
    Index("summaries_by_folder", "working_dir"),
)

# What runs printed, in pieces, without the sequences that only draw: what the search looks in.
texts = Table(
    "texts",
    metadata,
    _number(),
    _of_run(),
    Column("text", _WRITTEN, nullable=False),
    Index("texts_by_run", "run_id", "number"),
)

# Up to which event of each run its output is in `texts`.
indexed = Table(
    "indexed",
    metadata,
    Column("run_id", String(50), primary_key=True),
    _count("event_id"),
)

events = Table(
    "events",
    metadata,
    # Given by the writer, ascending within a run: on SQLite over all runs in the order of arrival,
    # on PostgreSQL from 1 in each run.
    Column(
        "id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    _of_run(),
    Column("type", String(10), nullable=False),
    Column("data", _WRITTEN, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    _moment("created_at"),
    # SHA-256 of the request's body: a second event with the same one is the same event.
    Column("body_hash", LargeBinary(32), nullable=False),
    Index("events_by_run", "run_id", "id"),
    Index("events_by_sequence", "run_id", "sequence"),
)

nonces = Table(
    "nonces",
    metadata,
    _number(),
    Column("digest", BigInteger, nullable=False),
    _moment("used_at"),
    Index("nonces_by_age", "used_at"),
)

commands = Table(
    "commands",
    metadata,
    _number(),
    _id(),
    _of_run(),
    Column("command", _WRITTEN, nullable=False),
    Column("status", String(10), nullable=False),
    Column("result", _WRITTEN),
    Column("error", _WRITTEN),
    _moment("created_at"),
    Column("acknowledged_at", Float),
    # The name of who sent it, as with runs; and the question that it answers.
    Column("person", String(100)),
    Column("about", String(50)),
    Index("commands_by_run", "run_id", "number"),
)

artifacts = Table(
    "artifacts",
    metadata,
    _number(),
    _id(),
    _of_run(),
    Column("name", _WRITTEN, nullable=False),
    Column("type", String(10), nullable=False),
    Column("size", BigInteger, nullable=False),
    _moment("created_at"),
    Index("artifacts_by_run", "run_id", "number"),
)

# Runs that somebody keeps, and those of which something was removed because it was old.
keeping = Table(
    "keeping",
    metadata,
    Column("run_id", String(50), primary_key=True),
    Column("kept_at", Float),
    Column("output_removed_at", Float),
)

# Removed runs whose files are still to be removed: at once, and again when no upload that began
# before can be on its way any more.
leftovers = Table(
    "leftovers",
    metadata,
    Column("run_id", String(50), primary_key=True),
    _moment("due_at"),
    Column("is_last", Boolean, nullable=False),
)

# Who has a token of their own.
people = Table(
    "people",
    metadata,
    _number(),
    _id(),
    Column("name", String(100), nullable=False, unique=True),
    Column("role", String(10), nullable=False),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    # Which runs are seen: own ones alone; those in folders of these patterns, as JSON.
    Column("own", Boolean, nullable=False),
    Column("folders", Text, nullable=False),
    _moment("created_at"),
    Column("ends_at", Float),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    _moment("created_at"),
    _moment("expires_at"),
    # The id of one of `people`; null for the holder of the admin token.
    Column("person", String(50)),
)

# Folders that wait for runs (`claude-runner wait`), and that the operator has let in. The id is the
# hash of the folder's key.
waiters = Table(
    "waiters",
    metadata,
    Column("id", String(50), primary_key=True),
    Column("name", _WRITTEN, nullable=False),
    Column("machine", _WRITTEN, nullable=False),
    _moment("paired_at"),
)

# Those that wait right now, where several gateways are on the database: what they said last, and
# the code that they show until they are let in.
waiting = Table(
    "waiting",
    metadata,
    Column("waiter_id", String(50), primary_key=True),
    Column("said", Text, nullable=False),
    _moment("since"),
    _moment("seen_at"),
    Column("code", String(10)),
    Column("running", String(64), nullable=False),
)

# Runs that were sent to such a folder.
orders = Table(
    "orders",
    metadata,
    _number(),
    Column("run_id", String(50), nullable=False, unique=True),
    Column("waiter_id", String(50), nullable=False),
    # The page's own, so that what it repeats is not another run.
    Column("key", String(64), nullable=False, unique=True),
    Column("mode", String(64)),
    Column("ask", Boolean),
    Column("state", String(10), nullable=False),
    # Counts how often it was queued.
    Column("handout", Integer, nullable=False),
    # The process that has taken it.
    Column("session", String(64)),
    _moment("queued_at"),
    Column("taken_at", Float),
    Column("exit_code", Integer),
    Column("reason", _WRITTEN),
    Column("began", Boolean, nullable=False),
    Index("orders_by_waiter", "waiter_id", "state"),
)

# Of each run that is watched for notifications: up to which event its waits were told, and at which
# one it fell silent. A row goes when the end of its run has been told.
notified = Table(
    "notified",
    metadata,
    Column("run_id", String(50), primary_key=True),
    _count("told_event_id"),
    _count("silent_event_id"),
)

# What all gateways on this database have in common, by its name.
shared = Table(
    "shared",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("value", Text, nullable=False),
)

# Codes that let one browser in; of a used one, who came with it.
codes = Table(
    "codes",
    metadata,
    Column("code_hash", LargeBinary(32), primary_key=True),
    _moment("good_until"),
    Column("used_at", Float),
    Column("address", String(50)),
    Column("cookie_hash", LargeBinary(32)),
    Column("is_told", Boolean, nullable=False),
    # As with sessions.
    Column("person", String(50)),
)

# Wrong guesses of an address, since a moment.
failures = Table(
    "failures",
    metadata,
    Column("address", String(50), primary_key=True),
    _moment("since"),
    _count("guesses"),
)

# What people did, and who tried to become one.
audit = Table(
    "audit",
    metadata,
    _number(),
    _moment("at"),
    Column("address", String(50), nullable=False),
    # The name, as with runs; and how they were signed in.
    Column("person", String(100)),
    Column("actor", String(20), nullable=False),
    Column("action", String(30), nullable=False),
    Column("run_id", String(50)),
    Column("detail", _WRITTEN),
    Column("succeeded", Boolean, nullable=False),
)


# Where several processes write, the database sees to what the writer sees to on SQLite: each event
# of a run has a number of its own and is there once, and no nonce is used twice.
_SHARED_DDL = {
    events: (
        "ALTER TABLE events DROP CONSTRAINT events_pkey, ADD PRIMARY KEY (run_id, id)",
        "DROP INDEX events_by_run",
        "DROP INDEX events_by_sequence",
        """
        CREATE UNIQUE INDEX events_once ON events (run_id, sequence, body_hash) WHERE sequence > 0
        """,
    ),
    nonces: ("ALTER TABLE nonces DROP COLUMN number, ADD PRIMARY KEY (digest)",),
    commands: ("CREATE INDEX commands_pending ON commands (run_id) WHERE status = 'pending'",),
}


def _prepare_shared(table: Table, connection: Connection, **_: Any) -> None:
    if connection.dialect.name == postgresql.NAME:
        for statement in _SHARED_DDL[table]:
            connection.exec_driver_sql(statement)


for _table in _SHARED_DDL:
    event.listen(_table, "after_create", _prepare_shared)


class DatabaseError(Exception):
    """The database cannot be used; the message is one plain sentence."""


def _parsed(url: str) -> URL:
    """Read an address. Raises: DatabaseError, which says nothing of it again: a password that is
    written as it is becomes part of the host or the port.
    """
    try:
        address = make_url(url)
    except ValueError:
        address = None
    if address is None or "@" in (address.host or ""):
        raise DatabaseError(
            "CLAUDE_RUNNER_GATEWAY_DATABASE_URL cannot be read; in a password write %40 for @, %3A "
            "for : and %2F for /, and several hosts as ?host=a,b&port=5432,5432"
        ) from None
    return address


def open_database(url: str) -> Engine:
    """Connect to the database, and make the tables if there are none.

    Raises: DatabaseError, also if a newer gateway made the tables.
    """
    try:
        address = postgresql.with_driver(_parsed(url))
        engine = create_engine(address, **_engine_options(address))
    except (ArgumentError, ImportError) as error:
        raise DatabaseError(
            f"CLAUDE_RUNNER_GATEWAY_DATABASE_URL cannot be used ({error}); write an address such "
            "as sqlite:////srv/gateway.db"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        with postgresql.start_alone(engine):
            _make_tables(engine)
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        engine.dispose()
        raise DatabaseError(f"the gateway's database cannot be used: {reason}") from error
    except DatabaseError:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def looking_at(engine: Engine) -> Iterator[Callable[[], None]]:
    """Yield what raises if the database cannot be used. It waits for no connection of others."""
    own = engine
    if postgresql.is_shared(engine):
        own = create_engine(engine.url, pool_size=1, connect_args=postgresql.probe_options())

    def look() -> None:
        with own.connect() as connection:
            connection.execute(select(versions.c.version).limit(1)).all()
            if own is not engine:
                postgresql.look(connection)

    try:
        yield look
    finally:
        if own is not engine:
            own.dispose()


def _engine_options(url: URL) -> dict[str, Any]:
    # An error is logged with its statement, whose values are output, and what operators type.
    options: dict[str, Any] = {"pool_size": 8, "max_overflow": 8, "hide_parameters": True}
    if url.get_backend_name() == postgresql.NAME:
        options.update(postgresql.options())
    if url.get_backend_name() == "sqlite":
        # A connection goes from thread to thread, but is never used by two at once.
        options["connect_args"] = {"check_same_thread": False, "timeout": 30}
    return options


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # An answer promises that the event is kept: the commit waits for the disk.
    cursor.execute("PRAGMA synchronous=FULL")
    # What is removed, such as typed text, is not left behind in the file.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.execute("PRAGMA cache_size=-4000")
    cursor.close()


def _make_tables(engine: Engine) -> None:
    newest = 0
    if inspect(engine).has_table("schema_versions"):
        with engine.connect() as connection:
            found = connection.execute(select(versions.c.version)).scalars().all()
        newest = max(found, default=0)
        if newest > VERSION:
            raise DatabaseError(
                f"the gateway's database was made by a newer version (its tables have version "
                f"{newest}, this one knows {VERSION}); update claude-runner, or use another "
                "data folder"
            )
    # Those that are there stay as they are.
    metadata.create_all(engine)
    if 0 < newest < VERSION:
        # Imported here, because most starts have nothing to change.
        from gateway.storage.migrating import upgrade

        upgrade(engine, newest)
    # Each step may be repeated: after a crash all of them are. And at each start: a gateway of
    # version 1 may have been running when the tables were changed, and has written on.
    _forget_stale(engine)
    while _summarize_some(engine):
        pass
    if newest == VERSION:
        return
    with engine.begin() as connection:
        connection.execute(insert(versions), {"version": VERSION, "created_at": time.time()})


def _forget_stale(engine: Engine) -> None:
    """Remove summaries of runs that have begun or ended since, without a word to the summary."""
    line = summaries.c
    is_over = runs.c.status.in_((DONE, FAILED))
    has_moved = or_(
        and_(is_over, line.stage != OVER),
        and_(runs.c.status != PENDING, line.stage == WAITS_FOR_START),
    )
    moved = select(runs.c.number).where(runs.c.number == line.number, has_moved)
    with engine.begin() as connection:
        connection.execute(
            delete(summaries).where(line.removed_at.is_(None), moved.correlate(summaries).exists())
        )


def _summarize_some(engine: Engine) -> bool:
    """Make summaries of runs that have none, which version 1 has made; return whether it did."""
    is_new = ~exists().where(summaries.c.number == runs.c.number)
    query = select(runs).where(is_new).order_by(runs.c.number).limit(_UPGRADED_AT_ONCE)
    with engine.begin() as connection:
        rows = [_summary_of(each) for each in connection.execute(query)]
        if rows:
            connection.execute(insert(summaries), rows)
    return bool(rows)


def _summary_of(run: Row[Any]) -> dict[str, Any]:
    since = run.finished_at or run.started_at or run.created_at
    return {
        **summarize(run.status, run.details, run.verdict),
        "number": run.number,
        "asked": shown_of(run.command),
        "stage_at": since,
        # What ended before there was a mark for it is no news.
        "seen_at": run.finished_at,
    }
