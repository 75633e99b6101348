"""What the runs have printed, as words that can be looked for: the tables, a thread, the question.

Text is indexed behind the writer's back, a little later than it is stored, and takes a quarter of
one core at most, so that what runners send does not wait. How far it has come in each run stands
in the database, in the same transaction as the text; which runs have more is told by `note`, and
looked up once at the start.

What is a database's own is in this module alone: the index of words. SQLite's is FTS5, which
triggers keep like the table `texts`, so that what is removed there is removed from it. PostgreSQL
has the words of a piece in a column (its own parser would take ten times as long to find them).
Without FTS5, and for words that are not told apart by it, the table itself is read.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage import postgresql, schema
from gateway.storage.writer import StoreClosedError, Writer

logger = logging.getLogger(__name__)

_PRINTED: Final = ("stdout", "stderr")
# Read, and written, at once.
_MAX_EVENTS: Final = 2_000
_MAX_CHARACTERS: Final = 1_000_000
# What is looked for stands in one piece; a longer one would be read for every excerpt.
_MAX_PIECE: Final = 32_000
# Of a shorter word only the whole is looked for: SQLite gathers all words that begin like it, which
# takes a minute for one letter in a gigabyte.
_MIN_BEGINNING: Final = 3
# Of more runs than these nobody reads the list.
_MAX_RUNS: Final = 10_000
# Of a flood: so many times as long as the work has taken nothing is done.
_REST: Final = 3
# How often it is looked whether there is more.
ROUND_S: Final = 1.0
# Steps of a clean-up, each as short as a write of events.
_MERGED_PAGES: Final = 500
_MAX_MERGES: Final = 1_000
_EXCERPT_BEFORE: Final = 40
_EXCERPT: Final = 160

# Colours stand inside words; every other sequence moves the cursor, and so ends a word.
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")
_SEQUENCES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
    r"|[\x00-\x08\x0b-\x1f\x7f]+"
)

_DONE: Final = func.coalesce(
    select(schema.indexed.c.event_id)
    .where(schema.indexed.c.run_id == bindparam("run_key"))
    .scalar_subquery(),
    0,
)
_NEXT: Final = (
    select(schema.events.c.id, schema.events.c.type, schema.events.c.data)
    .where(schema.events.c.run_id == bindparam("run_key"), schema.events.c.id > _DONE)
    .order_by(schema.events.c.id)
    .limit(bindparam("most"))
    .execution_options(stream_results=True, max_row_buffer=100)
)
# The runs of which not all is indexed.
_BEHIND: Final = (
    select(schema.runs.c.id)
    .join(schema.indexed, schema.indexed.c.run_id == schema.runs.c.id, isouter=True)
    .where(schema.runs.c.last_event_id > func.coalesce(schema.indexed.c.event_id, 0))
    .order_by(schema.runs.c.number)
)
_INDEX: Final = table("texts_index", column("rowid"))
_TRIGGER: Final = "SELECT count(*) FROM sqlite_master WHERE name = 'texts_removed'"
_DDL: Final = (
    """
    CREATE VIRTUAL TABLE IF NOT EXISTS texts_index
    USING fts5(text, content='texts', content_rowid='number')
    """,
    "INSERT INTO texts_index (texts_index) VALUES ('rebuild')",
    """
    CREATE TRIGGER IF NOT EXISTS texts_added AFTER INSERT ON texts BEGIN
        INSERT INTO texts_index (rowid, text) VALUES (new.number, new.text);
    END
    """,
    # Made last: if it is there, all of them are.
    """
    CREATE TRIGGER IF NOT EXISTS texts_removed AFTER DELETE ON texts BEGIN
        INSERT INTO texts_index (texts_index, rowid, text)
        VALUES ('delete', old.number, old.text);
    END
    """,
)
_SHARED_DDL: Final = (
    "ALTER TABLE texts ADD COLUMN IF NOT EXISTS words tsvector",
    "CREATE INDEX IF NOT EXISTS texts_by_word ON texts USING gin (words)",
    # Made last: if it is there, all of them are.
    "CREATE INDEX texts_without_words ON texts (run_id) WHERE words IS NULL",
)
_INSERT_SHARED: Final = text(
    "INSERT INTO texts (run_id, text, words)"
    " VALUES (:run_id, :text, array_to_tsvector(CAST(:words AS text[])))"
).bindparams(bindparam("text", type_=postgresql.NulText()))
_WITHOUT_WORDS: Final = (
    select(schema.texts.c.number, schema.texts.c.text)
    .where(literal_column("words").is_(None))
    .limit(50)
)
_SET_WORDS: Final = text(
    "UPDATE texts SET words = array_to_tsvector(CAST(:words AS text[])) WHERE number = :number"
)
# As FTS5 has them, but for accents.
_WORD: Final = re.compile(r"[^\W_]+")
_MAX_WORD: Final = 500
_DROP: Final = (
    "DROP TRIGGER IF EXISTS texts_added",
    "DROP TRIGGER IF EXISTS texts_removed",
)


def plain(printed: str) -> str:
    """Return what a terminal would show of it, more or less: without sequences and controls."""
    return _SEQUENCES.sub(" ", _COLOURS.sub("", printed))


def contains(where: Any, word: str) -> Any:
    """Return the condition that a column contains a word, whatever stands around it."""
    return where.ilike(f"%{escaped(word)}%", escape="\\")


def escaped(word: str) -> str:
    """Return a word for LIKE."""
    return re.sub(r"([\\%_])", r"\\\1", word)


class TextIndex:
    """The thread and the question. Make it, then `start`."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._has_words = engine.dialect.name == "sqlite" and _prepare(engine)
        self._has_column = postgresql.is_shared(engine)
        if self._has_column:
            _prepare_shared(engine)
        self._gate = threading.Lock()
        # Runs that may have more, and whether all have to be looked at.
        self._waiting: dict[str, None] = {}
        self._begins = self._leads = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-index", daemon=True)

    def start(self) -> None:
        """Begin to index."""
        self._thread.start()

    def close(self) -> None:
        """End; the rest is indexed after the next start. Blocks until then."""
        self._ended.set()
        self._thread.join(5)

    def note(self, run_id: str) -> None:
        """Index what a run has printed, soon. Thread: any; does not block."""
        with self._gate:
            if self._leads:
                self._waiting[run_id] = None

    def lead(self, *, leads: bool) -> None:
        """Begin to index, or leave it to another gateway on the same database."""
        with self._gate:
            self._leads = self._begins = leads
            self._waiting.clear()

    # --- the question ---

    def pieces_with(self, words: list[str]) -> Select[Any]:
        """Return the query for the pieces that have all these words: `run_id` and `number`."""
        columns = schema.texts.c
        found = select(columns.run_id, columns.number)
        known = [word for word in words if re.search(r"\w", word)]
        # Words of other scripts are not told apart by blanks.
        if not known or not all(map(str.isascii, words)):
            known = []
        if self._has_column and known:
            return found.where(_column_has(known))
        if self._has_words and known:
            quoted = " ".join(map(_quoted, known))
            matches = literal_column("texts_index").op("MATCH")(bindparam(None, quoted, Text))
            ids = select(_INDEX.c.rowid).where(matches)
            return found.where(columns.number.in_(ids))
        return found.where(and_(*(contains(columns.text, word) for word in words)))

    def runs_with(self, words: list[str]) -> list[str]:
        """Return the ids of the runs that have printed all these words close to each other."""
        pieces = self.pieces_with(words).subquery()
        query = select(pieces.c.run_id).group_by(pieces.c.run_id)
        newest = query.order_by(func.max(pieces.c.number).desc()).limit(_MAX_RUNS)
        with self._connect() as connection:
            return list(connection.execute(newest).scalars())

    def excerpts(self, run_ids: list[str], words: list[str]) -> dict[str, str]:
        """Return for each of these runs what stands around a word, where it printed them last."""
        columns = schema.texts.c
        pieces = self.pieces_with(words).where(columns.run_id.in_(run_ids)).subquery()
        last = select(func.max(pieces.c.number)).group_by(pieces.c.run_id)
        query = select(columns.run_id, columns.text).where(columns.number.in_(last))
        with self._connect() as connection:
            return {row.run_id: excerpt(row.text, words) for row in connection.execute(query)}

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            if self._has_column:
                # It knows the table's size, and not that of the texts, which lie beside it.
                connection.execute(text("SET LOCAL enable_seqscan = off"))
            yield connection

    # --- keeping it ---

    def forget_removed(self) -> None:
        """Let nothing of removed text lie in the index. In short steps; blocks until then."""
        if not self._has_words:
            return
        # Deleted words are only marked until their part of the index is written anew.
        for count in range(_MAX_MERGES):
            step = partial(_merge, pages=_MERGED_PAGES if count else -_MERGED_PAGES)
            if self._ended.is_set() or not self._writer.call(step):
                return

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                is_more = self._index_some()
            except StoreClosedError:
                return
            except Exception as error:  # noqa: BLE001 - it is tried again in the next round
                logger.warning("could not index what runs print: %s", error)
                is_more = False
            took_s = time.monotonic() - began
            self._ended.wait(_REST * took_s if is_more else ROUND_S)

    def _index_some(self) -> bool:
        """Index what has been stored since the last time; return whether that was only a part."""
        with self._gate:
            waiting, self._waiting = self._waiting, {}
            begins, self._begins = self._begins, False
        try:
            with self._engine.connect() as connection:
                if begins and self._has_column:
                    self._gather_words(connection)
                if begins:
                    waiting.update(dict.fromkeys(connection.execute(_BEHIND).scalars()))
                taken = _read(connection, waiting)
            if taken.reached:
                statement = _INSERT_SHARED if self._has_column else insert(schema.texts)
                self._writer.call(lambda connection: _add(connection, taken, statement))
        except Exception:
            with self._gate:
                self._begins = self._leads  # nothing of it counts
            raise
        with self._gate:
            self._waiting = {**waiting, **self._waiting}
        return bool(waiting)

    def _gather_words(self, connection: Connection) -> None:
        """Gather the words of pieces that were stored before there was a column for them, or that
        were taken over from SQLite.
        """
        while not self._ended.is_set():
            rows = connection.execute(_WITHOUT_WORDS).all()
            connection.rollback()
            if not rows:
                return
            words = [{"number": row.number, "words": _words_of(row.text)} for row in rows]
            self._writer.call(lambda c, words=words: c.execute(_SET_WORDS, words))  # type: ignore[misc]


def _quoted(word: str) -> str:
    """Return a word for MATCH: no operator of its language is one in there."""
    quoted = word.replace('"', '""')
    return f'"{quoted}"*' if len(word) >= _MIN_BEGINNING else f'"{quoted}"'


def _prepare(engine: Engine) -> bool:
    """Make the index of words, unless it is there; return whether this SQLite has such a thing."""
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE VIRTUAL TABLE temp.probe USING fts5(text)"))
            connection.execute(text("DROP TABLE temp.probe"))
    except SQLAlchemyError:
        # With them nothing could be written; the next SQLite that has it makes it anew.
        with engine.begin() as connection:
            for statement in _DROP:
                connection.execute(text(statement))
        return False
    with engine.begin() as connection:
        if not connection.execute(text(_TRIGGER)).scalar():
            for statement in _DDL:
                connection.execute(text(statement))
    return True


def _prepare_shared(engine: Engine) -> None:
    """Make the column and the index of PostgreSQL, unless they are there."""
    with postgresql.start_alone(engine), engine.begin() as connection:
        if not connection.execute(text("SELECT to_regclass('texts_without_words')")).scalar():
            for statement in _SHARED_DDL:
                connection.execute(text(statement))


def _words_of(printed: str) -> list[str]:
    return list({word[:_MAX_WORD] for word in _WORD.findall(printed.lower())})


def _column_has(words: list[str]) -> ColumnElement[bool]:
    """Return the condition that a piece on PostgreSQL has all these words, or what begins so."""
    column = schema.texts.c.text
    # Of older pieces nobody has gathered the words.
    is_read = and_(literal_column("words").is_(None), *(contains(column, each) for each in words))
    parts: list[str] = []
    joined: list[ColumnElement[bool]] = []
    for word in words:
        found = [each[:_MAX_WORD] for each in _WORD.findall(word.lower())]
        parts += found
        if len(word) >= _MIN_BEGINNING:
            parts[-1] += ":*"
        if len(found) > 1:  # one behind the other
            joined.append(column.op("~*")("[^[:alnum:]]+".join(found)))
    query = cast(bindparam(None, " & ".join(parts), Text), TSQUERY)
    return or_(and_(literal_column("words").op("@@")(query), *joined), is_read)


class _Taken(NamedTuple):
    """What was read of some runs, and up to which event."""

    printed: dict[str, list[str]]
    reached: dict[str, int]


def _read(connection: Connection, waiting: dict[str, None]) -> _Taken:
    """Read what runs have printed, and leave in `waiting` those that have more."""
    taken = _Taken({}, {})
    count, size = 0, 0
    for run_id in list(waiting):
        if count >= _MAX_EVENTS or size > _MAX_CHARACTERS:
            break
        wanted = {"run_key": run_id, "most": _MAX_EVENTS - count}
        is_part = False
        with connection.execute(_NEXT, wanted) as rows:
            for row in rows:
                taken.reached[run_id] = row.id
                count, size = count + 1, size + len(row.data)
                if row.type in _PRINTED:
                    taken.printed.setdefault(run_id, []).append(row.data)
                is_part = count >= _MAX_EVENTS or size > _MAX_CHARACTERS
                if is_part:
                    break
        if not is_part:
            del waiting[run_id]
    return taken


def _add(connection: Connection, taken: _Taken, statement: Executable) -> None:
    # A run may have been removed since its events were read.
    runs = schema.runs.c
    query = select(runs.id).where(runs.id.in_(taken.reached))
    known = set(connection.execute(query).scalars())
    pieces: list[dict[str, Any]] = [
        {"run_id": run_id, "text": piece}
        for run_id, texts in taken.printed.items()
        if run_id in known
        for piece in cut(plain("".join(texts)))
    ]
    if statement is _INSERT_SHARED:
        pieces = [{**each, "words": _words_of(each["text"])} for each in pieces]
    if pieces:
        connection.execute(statement, pieces)
    columns = schema.indexed.c
    reached = [
        {"run_id": run_id, "event_id": event_id}
        for run_id, event_id in taken.reached.items()
        if run_id in known
    ]
    connection.execute(delete(schema.indexed).where(columns.run_id.in_(taken.reached)))
    if reached:
        connection.execute(insert(schema.indexed), reached)


def _merge(connection: Connection, pages: int) -> bool:
    """Write a part of the index anew; return whether there was anything to write."""
    before = connection.execute(text("SELECT total_changes()")).scalar_one()
    connection.execute(
        text("INSERT INTO texts_index (texts_index, rank) VALUES ('merge', :pages)"),
        {"pages": pages},
    )
    after = connection.execute(text("SELECT total_changes()")).scalar_one()
    # As SQLite's documentation has it: what is done, and the row of this statement itself.
    return bool(after - before >= 2)


def cut(printed: str) -> list[str]:
    """Return the text in pieces, cut between words, without those that are empty."""
    pieces: list[str] = []
    start = 0
    while start < len(printed):
        end = start + _MAX_PIECE
        if end < len(printed):
            blank = max(printed.rfind(each, start, end) for each in (" ", "\n"))
            end = blank + 1 if blank > start else end
        piece = printed[start:end]
        if not piece.isspace():
            pieces.append(piece)
        start = end
    return pieces


def excerpt(printed: str, words: list[str]) -> str:
    """Return the text around the first of these words, in one line."""
    folded = printed.casefold()
    places = [place for place in (folded.find(word.casefold()) for word in words) if place >= 0]
    start = max(0, min(places, default=0) - _EXCERPT_BEFORE)
    shown = " ".join(printed[start : start + _EXCERPT].split())
    return f"{'…' if start else ''}{shown}{'…' if start + _EXCERPT < len(printed) else ''}"
