"""Everything that the gateway keeps: what is asked of the database and of the artifacts' folder.

Questions are answered on a connection of the thread that asks; whatever changes something goes
through the writer. Thread: any.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Engine,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from gateway.admission import NONCE_MEMORY_S, Admitted, hash_token
from gateway.roles import ADMIN, Person
from gateway.storage import postgresql, questions, schema
from gateway.storage.changes import replaced_by
from gateway.storage.people import People, narrowed
from gateway.storage.questions import Talk
from gateway.storage.records import (
    DONE,
    FAILED,
    HALT,
    NO_DETAILS,
    PENDING,
    RUNNING,
    STOP,
    Event,
    NewEvent,
    name_of,
    shown_of,
    summarize,
)
from gateway.storage.retention import remove_in_parts
from gateway.storage.unbegun import note_stop
from gateway.storage.writer import (
    EventJob,
    NonceJob,
    Told,
    UnknownOutcomeError,
    Writer,
    forget_typed,
    spend_nonce,
)

# What the API shows of a summary besides what is in the run's details.
_SUMMARY_FIELDS = ("title", "stage", "stage_at", "seen_at", "refused", "cost", "incomplete")
_RUN = (
    select(
        schema.runs,
        *(schema.summaries.c[name] for name in _SUMMARY_FIELDS),
        schema.keeping.c.kept_at.is_not(None).label("kept"),
    )
    .join(schema.summaries, schema.summaries.c.number == schema.runs.c.number)
    .outerjoin(schema.keeping, schema.keeping.c.run_id == schema.runs.c.id)
    .where(schema.summaries.c.removed_at.is_(None))
)
_SEEN = (
    select(schema.runs.c.id)
    .join(schema.summaries, schema.summaries.c.number == schema.runs.c.number)
    .where(schema.summaries.c.removed_at.is_(None))
)
_TOKEN_HASH = select(schema.runs.c.token_hash).where(schema.runs.c.id == bindparam("run_key"))
_EVENT_COLUMNS = (
    schema.events.c.id,
    schema.events.c.type,
    schema.events.c.data,
    schema.events.c.sequence,
    schema.events.c.created_at,
)
_PENDING_COMMANDS = (
    select(schema.commands.c.id, schema.commands.c.command, schema.commands.c.created_at)
    .where(
        schema.commands.c.run_id == bindparam("run_key"),
        schema.commands.c.status == PENDING,
    )
    .order_by(schema.commands.c.number)
    .limit(100)
)
# A runner reads 1 MiB of an answer, and escapes may make six bytes of a character.
_MAX_LISTED_BYTES = 700_000
# Running runs that are looked at for one that waits for a person.
_MAX_RUNNING = 1_000
# Of markers that are read at once to show what a run asks.
_MAX_TOLD_CHARACTERS = 8_000_000
# Read from PostgreSQL at once; each may have a megabyte.
_ROWS_AHEAD = 20
# Tokens of runs that have been seen.
_MAX_KNOWN_TOKENS = 10_000
# Where other gateways may change them.
_TOKENS_KNOWN_S = 60.0
# Of these a removed run leaves no row.
_OF_RUN = (
    *(schema.commands, schema.artifacts, schema.orders, schema.indexed),
    *(schema.notified, schema.keeping),
)


_FORGET_LEFTOVER = delete(schema.leftovers).where(schema.leftovers.c.run_id == bindparam("run_key"))

# Until then nobody may read what was there before.
_SETTLED_WITHIN_MS = 1_000

# A used code is known again when somebody else comes with it; no window of counts is longer.
_CODES_KNOWN_S = 86_400
_FAILURES_KNOWN_S = 3_600
# What a run says of an answer that came from the page.
_OPERATOR = "operator"
# The state of an order that its folder has not taken: `offers` stands above this.
_QUEUED = "queued"

# What one run may upload: eighty parts of a log that is larger than any session's, and a diff every
# minute of a long day. More would be the disk of everybody else.
MAX_RUN_FILES = 1_000
MAX_RUN_FILE_BYTES = 4 * 1024**3


# When who asked while the database was away may come again.
AWAY_RETRY_S = 2
_AWAY = "The database does not answer; try again in a moment."
_UNKNOWN_OUTCOME = (
    "The database went away while this was done; look whether it was, before you repeat it."
)

# Of a command's result: more than our runner ever sends, and what a browser shows at once.
_MAX_RESULT_CHARACTERS = 200_000


class RunFullError(Exception):
    """A run may upload no more; the message is one plain sentence."""


@dataclass(frozen=True)
class UsedCode:
    """A code that has let somebody in. `is_told`: that somebody else came with it. `person` is an
    id of `People`, None for the holder of the admin token.
    """

    address: str
    at: float
    cookie_hash: bytes = b""
    is_told: bool = False
    person: str | None = None


class Store:
    """The database. Make it, then `start` its writer."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self.people = People(engine, writer)
        # Whether other gateways use the same database.
        self.is_shared = writer.is_shared
        self._token_hashes: dict[str, bytes] = {}
        self._token_gate = threading.Lock()
        self._token_changes = 0
        self._tokens_until = 0.0
        # Called with a run whose token was changed here.
        self.when_token_changed: Callable[[str], None] = lambda _run_id: None

    def close(self) -> None:
        """Write what is queued, and let go of the database. Blocks until then."""
        self._writer.close()
        self._engine.dispose()

    def has_raised(self, error: Exception) -> bool:
        """Whether it is an error of the database."""
        return isinstance(error, (SQLAlchemyError, UnknownOutcomeError))

    def why_away(self, error: Exception) -> str | None:
        """Return a sentence if something failed because the database does not answer."""
        if isinstance(error, UnknownOutcomeError):
            return _UNKNOWN_OUTCOME
        return _AWAY if self.is_shared and postgresql.is_away(error) else None

    # --- runs ---

    def create_run(
        self,
        command: str | None,
        metadata: Any,
        known: Mapping[str, Any] | None = None,
        title: str | None = None,
        also: Callable[[Connection, str], None] | None = None,
        owner: str | None = None,
    ) -> tuple[str, str]:
        """Make a run; return its id and its token, which is kept nowhere.

        `owner` is the name of who makes it. `known` is what is known of its details before it
        begins. `also` is done in the same transaction, with the run's id.
        """
        run_id = f"run_{secrets.token_hex(8)}"
        token = secrets.token_hex(32)
        now = time.time()
        details = json.dumps({**NO_DETAILS, **(known or {})})
        row = {
            "id": run_id,
            "token_hash": hash_token(token),
            "status": PENDING,
            "owner": owner,
            "command": command,
            "metadata": None if metadata is None else json.dumps(metadata),
            "created_at": now,
            "details": details,
        }
        summary = {
            **summarize(PENDING, details, None),
            "asked": shown_of(command),
            "title": title,
            "stage_at": now,
        }

        def work(connection: Connection) -> None:
            made: Any = connection.execute(insert(schema.runs), row).inserted_primary_key
            connection.execute(insert(schema.summaries), {**summary, "number": made.number})
            if also is not None:
                also(connection, run_id)

        self._writer.call(work)
        return run_id, token

    def find_token_hash(self, run_id: str) -> bytes | None:
        """Return what is kept of a run's token; None if there is no such run."""
        known = self._token_hashes.get(run_id)
        if self.is_shared and self._tokens_until < time.monotonic():
            # Another gateway tells when it has changed one; this is for changes made by hand.
            self._tokens_until = time.monotonic() + _TOKENS_KNOWN_S
            self._token_hashes, known = {}, None
        if known is None:
            changes = self._token_changes
            with self._engine.connect() as connection:
                found = connection.execute(_TOKEN_HASH, {"run_key": run_id}).scalar()
            if found is None:
                return None
            known = bytes(found)
            with self._token_gate:
                if len(self._token_hashes) >= _MAX_KNOWN_TOKENS:
                    self._token_hashes.clear()
                # What was read before a change must not be kept after it.
                if changes == self._token_changes:
                    self._token_hashes[run_id] = known
        return known

    def forget_token(self, run_id: str) -> None:
        """Look for a run's token in the database again: it has another one, or none any more."""
        self.forget_token_here(run_id)
        self.when_token_changed(run_id)

    def forget_token_here(self, run_id: str) -> None:
        """The same for one that another gateway has changed."""
        with self._token_gate:
            self._token_changes += 1
            self._token_hashes.pop(run_id, None)

    def forget_tokens(self) -> None:
        """Look for all tokens again: it is not known which of them others have changed."""
        with self._token_gate:
            self._token_changes += 1
            self._token_hashes.clear()

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run as the API shows it."""
        found = self._rows(_RUN.where(schema.runs.c.id == run_id))
        return _run_json(found[0]) if found else None

    def sees(self, person: Person, run_id: str) -> bool:
        """Whether there is such a run, and the person may see it."""
        query = narrowed(_SEEN.where(schema.runs.c.id == run_id), person)
        return bool(self._rows(query))

    def runs(
        self, before: int | None, limit: int, person: Person = ADMIN
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return a page of the runs that a person may see, newest first, and the `before` of the
        next one, if any.
        """
        number = schema.runs.c.number
        query = narrowed(_RUN, person).order_by(number.desc())
        if before is not None:
            query = query.where(number < before)
        found = self._rows(query.limit(limit + 1))
        page = found[:limit]
        return [_run_json(row) for row in page], page[-1].number if len(found) > limit else None

    def waiting_runs(self, person: Person) -> list[dict[str, Any]]:
        """Return the runs that wait for a person, and that this one sees, newest first."""
        columns = schema.runs.c
        query = narrowed(_RUN, person).where(columns.status == RUNNING)
        query = query.order_by(columns.number.desc())
        running = map(_run_json, self._rows(query.limit(_MAX_RUNNING)))
        return [run for run in running if run["open_questions"] or run["state"] == "waiting"]

    # --- what a run asks ---

    def conversation(self, run_id: str) -> dict[str, Any]:
        """Return what is open in a run, as the API shows it."""
        talk = self._talk(run_id)
        shown = questions.show(talk, self._told(run_id, talk.event_ids))
        if shown["closed"]:
            answered = self._answered(run_id, [each["id"] for each in shown["closed"]])
            for each in shown["closed"]:
                each["person"] = answered.get(each["id"]) if each["by"] == _OPERATOR else None
        return shown

    def _answered(self, run_id: str, question_ids: list[str]) -> dict[str, str | None]:
        """Return who has answered each of these questions from the page: who was first, and was
        not refused by the runner, which may say so a little later.
        """
        columns = schema.commands.c
        query = (
            select(columns.about, columns.person)
            .where(
                columns.run_id == run_id,
                columns.about.in_(question_ids),
                columns.status != FAILED,
            )
            .order_by(columns.number.desc())
        )
        return {row.about: row.person for row in self._rows(query)}

    def find_card(self, run_id: str, question_id: str) -> dict[str, Any] | None:
        """Return the card of an open question. Raises: questions.AnswerError."""
        talk = self._talk(run_id).only(question_id)
        return questions.find_card(talk, question_id, self._told(run_id, talk.event_ids))

    def _talk(self, run_id: str) -> Talk:
        query = select(schema.runs.c.details).where(schema.runs.c.id == run_id)
        with self._engine.connect() as connection:
            return Talk.of(json.loads(connection.execute(query).scalar_one()).get("talk"))

    def _told(self, run_id: str, event_ids: set[int]) -> questions.Told:
        """Return the data and the times of these events, the first of them if they are large."""
        columns = schema.events.c
        query = select(columns.id, columns.data, columns.created_at).where(
            columns.run_id == run_id, columns.id.in_(event_ids)
        )
        told: questions.Told = {}
        size = 0
        with self._engine.connect() as connection:
            for row in connection.execute(query.order_by(columns.id)) if event_ids else ():
                size += len(row.data)
                if told and size > _MAX_TOLD_CHARACTERS:
                    break
                told[row.id] = row.data, row.created_at
        return told

    # --- events ---

    def add_event(self, event: NewEvent) -> int:
        """Store an event, unless it is there already; return its id. Blocks until on disk."""
        job = EventJob(event)
        self._writer.submit(job)
        return job.wait()

    def add_event_later(self, event: NewEvent, tell: Told) -> None:
        """The same without a wait: `tell` gets the id, or why not, in the writer's thread."""
        self._writer.submit(EventJob(event, tell))

    def last_event_id(self, run_id: str) -> int:
        """Return the id of a run's last event, 0 if it has none."""
        query = select(schema.runs.c.last_event_id).where(schema.runs.c.id == run_id)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar() or 0

    def last_event_ids(self, run_ids: Collection[str]) -> Sequence[tuple[str, int]]:
        """Return the last event's id of each of these runs that is there."""
        columns = schema.runs.c
        query = select(columns.id, columns.last_event_id).where(columns.id.in_(run_ids))
        return [(row.id, row.last_event_id) for row in self._rows(query)] if run_ids else []

    def events_after(self, run_id: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """Return the events after one, ascending: `limit`, or as many as fit, at least one."""
        columns = schema.events.c
        query = select(*_EVENT_COLUMNS).where(columns.run_id == run_id, columns.id > after)
        return self._page(query.order_by(columns.id).limit(limit), max_bytes)

    def events_before(
        self, run_id: str, before: int | None, limit: int, max_bytes: int
    ) -> list[Event]:
        """Return the events that precede one, or the run's last ones, ascending."""
        columns = schema.events.c
        query = select(*_EVENT_COLUMNS).where(columns.run_id == run_id)
        if before is not None:
            query = query.where(columns.id < before)
        return self._page(query.order_by(columns.id.desc()).limit(limit), max_bytes)[::-1]

    def events_with(
        self, run_id: str, part: str, after: int, until: int, limit: int, max_bytes: int
    ) -> list[Event] | None:
        """Return the events after one, up to another, that have a text, maybe with escape sequences
        within it, or end within a line.

        None if they are more than the limits. The case of ASCII letters is passed over.
        """
        columns = schema.events.c
        query = select(*_EVENT_COLUMNS).where(
            columns.run_id == run_id,
            columns.id > after,
            columns.id <= until,
            or_(
                columns.data.icontains(part, autoescape=True),
                columns.data.contains("\x1b"),
                ~columns.data.endswith("\n"),
            ),
        )
        found = self._page(query.order_by(columns.id).limit(limit + 1), 4 * max_bytes)
        is_whole = len(found) <= limit and sum(len(event.data) for event in found) <= max_bytes
        return found if is_whole else None

    def next_event(self, run_id: str, after: int, kind: str) -> Event | None:
        """Return the next event of a type."""
        columns = schema.events.c
        query = select(*_EVENT_COLUMNS).where(
            columns.run_id == run_id, columns.id > after, columns.type == kind
        )
        return next(iter(self._page(query.order_by(columns.id).limit(1), 0)), None)

    def _page(self, query: Select[Any], max_bytes: int) -> list[Event]:
        """Read row by row, and stop when the page is full: events may have a megabyte each."""
        found: list[Event] = []
        size_bytes = 0
        # So that PostgreSQL does not send all of it at once.
        streamed = query.execution_options(stream_results=True, max_row_buffer=_ROWS_AHEAD)
        with self._engine.connect() as connection, connection.execute(streamed) as rows:
            for row in rows:
                event = Event(*row)
                size_bytes += len(event.data)
                if found and size_bytes > max_bytes:
                    break
                found.append(event)
        return found

    # --- nonces ---

    def recent_nonces(self) -> list[tuple[int, float]]:
        """Return the nonces that must not be used again, and when they were."""
        columns = schema.nonces.c
        query = select(columns.digest, columns.used_at).where(
            columns.used_at > time.time() - NONCE_MEMORY_S
        )
        return [(row.digest, row.used_at) for row in self._rows(query)]

    def keep_nonce(self, admitted: Admitted) -> None:
        """Keep the nonce of a request that stores nothing. Blocks where other processes may have
        used it. Raises: RefusedError.

        One that stores something keeps its nonce in the same transaction: after a crash its copy is
        taken if what it brought is not there, and is a copy if it is.
        """
        job = NonceJob(admitted.nonce_digest, admitted.at)
        self._writer.submit(job)
        if self._writer.is_shared:
            job.wait()

    # --- commands ---

    def add_command(
        self, run_id: str, text: str, person: str | None = None, about: str | None = None
    ) -> dict[str, Any]:
        """Queue a command for a run; return its entry in the history.

        `person` is the name of who sends it, and `about` the question that it answers.
        """
        row: dict[str, Any] = {
            "id": f"cmd_{secrets.token_hex(8)}",
            "run_id": run_id,
            "command": text,
            "status": PENDING,
            "created_at": time.time(),
            "person": person,
            "about": about,
        }
        self._writer.execute(insert(schema.commands), row)
        del row["run_id"], row["about"]
        return {**row, "result": None, "error": None, "acknowledged_at": None}

    def note_stop(self, run_id: str, reason: str) -> bool:
        """Note that a run that has not begun will not be started; False if it has begun."""
        return self._writer.call(lambda connection: note_stop(connection, run_id, reason))

    def pending_commands(self, run_id: str) -> list[dict[str, Any]]:
        """Return the first commands that are not acknowledged, as the wire shows them.

        As many as a runner reads of one answer, at least one; what ends the run is always there.
        """
        with self._engine.connect() as connection:
            rows = connection.execute(_PENDING_COMMANDS, {"run_key": run_id}).all()
        listed: list[dict[str, Any]] = []
        size_bytes = 0
        for row in rows:
            size_bytes += len(json.dumps(row.command, ensure_ascii=False).encode())
            if listed and size_bytes > _MAX_LISTED_BYTES and row.command not in (STOP, HALT):
                continue
            listed.append({"id": row.id, "command": row.command, "created_at": int(row.created_at)})
        return listed

    def acknowledge(
        self, admitted: Admitted, command_id: str, result: str | None, error: str | None
    ) -> dict[str, Any] | None:
        """Note a command's outcome, the last one if there are several, and forget typed text.

        Returns its entry in the history, None if the run has no such command.
        """
        columns = schema.commands.c
        this = (columns.run_id == admitted.run_id, columns.id == command_id)
        values = {
            "status": DONE if error is None else FAILED,
            "result": result,
            "error": error,
            "acknowledged_at": time.time(),
        }

        def work(connection: Connection) -> Row[Any] | None:
            spend_nonce(connection, admitted.nonce_digest, admitted.at)
            connection.execute(update(schema.commands).where(*this).values(values))
            forget_typed(connection, *this)
            return connection.execute(select(schema.commands).where(*this)).one_or_none()

        row = self._writer.call(work)
        return None if row is None else _command_json(row)

    def command(self, command_id: str) -> dict[str, Any] | None:
        """Return a command as the history has it."""
        found = self._rows(select(schema.commands).where(schema.commands.c.id == command_id))
        return _command_json(found[0]) if found else None

    def topics_with_work(self, topics: Collection[str]) -> Sequence[str]:
        """Return those of these runs and folders that something is queued for."""
        if not topics:
            return ()
        commands, orders = schema.commands.c, schema.orders.c
        pending = select(commands.run_id).where(
            commands.status == PENDING, commands.run_id.in_(topics)
        )
        queued = select(orders.waiter_id).where(
            orders.state == _QUEUED, orders.waiter_id.in_(topics)
        )
        return [row[0] for row in self._rows(union(pending, queued))]

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """Return all commands of a run, oldest first."""
        columns = schema.commands.c
        query = select(schema.commands).where(columns.run_id == run_id).order_by(columns.number)
        return [_command_json(row) for row in self._rows(query)]

    # --- artifacts ---

    def add_artifact(self, admitted: Admitted, row: dict[str, Any]) -> list[str]:
        """Note an artifact whose file is in its place. Returns the ids of those that it replaces.

        Raises: RunFullError, with nothing noted.
        """

        def work(connection: Connection) -> list[str]:
            spend_nonce(connection, admitted.nonce_digest, admitted.at)
            # A file that is noted after its run was deleted would never be removed.
            if connection.execute(_RUN.where(schema.runs.c.id == row["run_id"])).first() is None:
                raise RunFullError("This run was deleted")
            replaced = replaced_by(connection, row)
            _check_room(connection, row["run_id"], row["size"])
            connection.execute(insert(schema.artifacts), row)
            return replaced

        return self._writer.call(work)

    def artifacts(self, run_id: str) -> list[dict[str, Any]]:
        """Return the artifacts of a run, oldest first."""
        columns = schema.artifacts.c
        query = select(schema.artifacts).where(columns.run_id == run_id).order_by(columns.number)
        return [_picked(row, _ARTIFACT_FIELDS) for row in self._rows(query)]

    def artifact(self, artifact_id: str) -> dict[str, Any] | None:
        """Return one artifact."""
        found = self._rows(select(schema.artifacts).where(schema.artifacts.c.id == artifact_id))
        return _picked(found[0], _ARTIFACT_FIELDS) if found else None

    def artifact_ids(self, run_id: str) -> set[str] | None:
        """Return the ids of a run's artifacts, None if there is no such run."""
        if self.find_token_hash(run_id) is None:
            return None
        query = select(schema.artifacts.c.id).where(schema.artifacts.c.run_id == run_id)
        return {row.id for row in self._rows(query)}

    # --- codes, and what people did ---

    def add_code(self, code_hash: bytes, good_until: float, person_id: str | None) -> None:
        """Remember a code that lets somebody in."""
        row = {
            "code_hash": code_hash,
            "good_until": good_until,
            "is_told": False,
            "person": person_id,
        }
        self._writer.execute(insert(schema.codes), row)

    def use_code(self, code_hash: bytes, address: str) -> bool:
        """Use a code, once; return whether it was good."""
        columns, now = schema.codes.c, time.time()
        good = (columns.code_hash == code_hash, columns.used_at.is_(None), columns.good_until > now)
        query = update(schema.codes).where(*good).values(used_at=now, address=address[:50])
        return self._writer.call(lambda connection: bool(connection.execute(query).rowcount))

    def find_used_code(self, code_hash: bytes) -> UsedCode | None:
        """Return who was let in by a code."""
        columns = schema.codes.c
        query = select(schema.codes).where(
            columns.code_hash == code_hash, columns.used_at.is_not(None)
        )
        for row in self._rows(query):
            cookie_hash = bytes(row.cookie_hash or b"")
            return UsedCode(row.address, row.used_at, cookie_hash, row.is_told, row.person)
        return None

    def change_code(self, code_hash: bytes, **values: Any) -> None:
        """Note something about a used code."""
        query = update(schema.codes).where(schema.codes.c.code_hash == code_hash)
        self._writer.execute(query.values(values))

    def count_failure(self, key: str, length_s: float) -> tuple[int, float]:
        """Count one more in a window of time that begins with its first count; return the count,
        and in how many seconds it begins anew.
        """
        columns, now = schema.failures.c, time.time()
        this = columns.address == key[:50]

        def work(connection: Connection) -> tuple[int, float]:
            row = connection.execute(select(schema.failures).where(this)).one_or_none()
            count, since = (1, now) if row is None else (row.guesses + 1, row.since)
            if now - since >= length_s:
                count, since = 1, now
            values = {"guesses": count, "since": since}
            if row is None:
                connection.execute(insert(schema.failures), {"address": key[:50], **values})
            else:
                connection.execute(update(schema.failures).where(this).values(values))
            return count, since + length_s - now

        return self._writer.call(work)

    def note(
        self,
        address: str,
        actor: str,
        action: str,
        run_id: str | None = None,
        detail: str | None = None,
        *,
        person: str | None = None,
        succeeded: bool = True,
    ) -> None:
        """Note in the audit table who did what; `actor` is how they were signed in."""
        row = {
            "at": time.time(),
            "address": address[:50],
            "person": person,
            "actor": actor,
            "action": action,
            "run_id": run_id,
            "detail": detail,
            "succeeded": succeeded,
        }
        self._writer.execute(insert(schema.audit), row)

    def notes(
        self, before: int | None, limit: int, run_id: str | None, person: str | None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return a page of the audit, newest first, and the `before` of the next one, if any."""
        columns = schema.audit.c
        query = select(schema.audit).order_by(columns.number.desc())
        if before is not None:
            query = query.where(columns.number < before)
        if run_id is not None:
            query = query.where(columns.run_id == run_id)
        if person is not None:
            query = query.where(columns.person == person)
        found = self._rows(query.limit(limit + 1))
        page = found[:limit]
        entries = [_picked(row, _NOTE_FIELDS) for row in page]
        return entries, page[-1].number if len(found) > limit else None

    # --- what is over ---

    def forget_expired(self) -> None:
        """Remove nonces, sessions, codes and counts whose time is over."""
        now = time.time()
        old_nonces = delete(schema.nonces).where(schema.nonces.c.used_at < now - NONCE_MEMORY_S)
        old_sessions = delete(schema.sessions).where(schema.sessions.c.expires_at < now)
        old_codes = delete(schema.codes).where(schema.codes.c.good_until < now - _CODES_KNOWN_S)
        old_failures = delete(schema.failures).where(
            schema.failures.c.since < now - _FAILURES_KNOWN_S
        )
        gone = delete(schema.waiting).where(schema.waiting.c.seen_at < now - _FAILURES_KNOWN_S)
        self._writer.execute(old_nonces)
        self._writer.execute(old_sessions)
        if self.is_shared:
            self._writer.execute(old_codes)
            self._writer.execute(old_failures)
            self._writer.execute(gone)

    def forget_notes_before(self, moment: float) -> None:
        """Remove what was noted in the audit table before then."""
        self._writer.execute(delete(schema.audit).where(schema.audit.c.at < moment))

    def remove_some_of(self, run_id: str) -> bool:
        """Remove a part of a run, and in the end the run; return whether there is more of it."""

        def work(connection: Connection) -> bool:
            if remove_in_parts(connection, run_id):
                return True
            for table in _OF_RUN:
                connection.execute(delete(table).where(table.c.run_id == run_id))
            # Who did what stays, without the words of it.
            of_run = schema.audit.c.run_id == run_id
            connection.execute(update(schema.audit).where(of_run).values(detail=None))
            number = select(schema.runs.c.number).where(schema.runs.c.id == run_id)
            connection.execute(
                delete(schema.summaries).where(
                    schema.summaries.c.number == number.scalar_subquery()
                )
            )
            connection.execute(delete(schema.runs).where(schema.runs.c.id == run_id))
            connection.execute(_FORGET_LEFTOVER, {"run_key": run_id})
            row = {"run_id": run_id, "due_at": time.time(), "is_last": False}
            connection.execute(insert(schema.leftovers), row)
            self._writer.forget(run_id)
            return False

        is_more = self._writer.call(work)
        self.forget_token(run_id)
        return is_more

    def settle(self) -> None:
        """Let nothing of removed rows lie in SQLite's log beside the file, in which they are blank.

        PostgreSQL sees to that in its own time.
        """
        if self.is_shared or not self._engine.url.database:
            return
        with self._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_SETTLED_WITHIN_MS}")
            try:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
            finally:
                connection.invalidate()  # with its time-out

    def leftovers(self) -> list[str]:
        """Return the removed runs whose files are to be removed now."""
        columns = schema.leftovers.c
        query = select(columns.run_id).where(columns.due_at <= time.time())
        return [row.run_id for row in self._rows(query.order_by(columns.due_at))]

    def note_files_removed(self, run_id: str, again_after_s: float) -> None:
        """Note that a removed run's files are removed: for the first time, or for good."""
        this = {"run_key": run_id}
        query = select(schema.leftovers.c.is_last).where(
            schema.leftovers.c.run_id == bindparam("run_key")
        )

        def work(connection: Connection) -> None:
            is_last = connection.execute(query, this).scalar()
            connection.execute(_FORGET_LEFTOVER, this)
            if not is_last:
                due_at = time.time() + again_after_s
                row = {"run_id": run_id, "due_at": due_at, "is_last": True}
                connection.execute(insert(schema.leftovers), row)

        self._writer.call(work)

    def _rows(self, query: Select[Any] | CompoundSelect[Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()


def _check_room(connection: Connection, run_id: str, size_bytes: int) -> None:
    columns = schema.artifacts.c
    query = select(func.count(), func.coalesce(func.sum(columns.size), 0)).where(
        columns.run_id == run_id
    )
    files, total_bytes = connection.execute(query).one()
    if files >= MAX_RUN_FILES:
        raise RunFullError(f"This run has {files} files already, which is all that it may have")
    if total_bytes + size_bytes > MAX_RUN_FILE_BYTES:
        raise RunFullError(
            f"With this file the run would have more than {MAX_RUN_FILE_BYTES} bytes of files"
        )


# What the API shows of a row as it is.
_RUN_FIELDS = (
    *("id", "status", "owner", "command", "created_at", "started_at", "finished_at"),
    *("last_event_at", "last_event_id", "event_count", "exit_code"),
)
_COMMAND_FIELDS = (
    *("id", "command", "status", "result", "error"),
    *("created_at", "acknowledged_at", "person"),
)
_NOTE_FIELDS = ("at", "address", "person", "actor", "action", "run_id", "detail", "succeeded")
_ARTIFACT_FIELDS = ("id", "run_id", "name", "type", "size", "created_at")


def _picked(row: Row[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _command_json(row: Row[Any]) -> dict[str, Any]:
    entry = _picked(row, _COMMAND_FIELDS)
    result = entry["result"]
    if result is not None and len(result) > _MAX_RESULT_CHARACTERS:
        cut = len(result) - _MAX_RESULT_CHARACTERS
        entry["result"] = f"{result[:_MAX_RESULT_CHARACTERS]}\n… ({cut} more characters)\n"
    return entry


def _run_json(row: Row[Any]) -> dict[str, Any]:
    details = {**NO_DETAILS, **json.loads(row.details)}
    talk = Talk.of(details.pop("talk"))
    named = {**details, "command": row.command, "title": row.title}
    return {
        **_picked(row, _RUN_FIELDS),
        "name": name_of(named),
        "metadata": None if row.metadata is None else json.loads(row.metadata),
        **details,
        **questions.summary_of(talk),
        **_picked(row, _SUMMARY_FIELDS),
        "verdict": None if row.verdict is None else json.loads(row.verdict),
        "kept": bool(row.kept),
    }
