"""People with a token of their own, and all sessions: what is asked of the database. Thread: any.

Of tokens and cookies it has hashes alone. A session belongs to a row of `people`, and not to a
name: who is removed and comes back under the same name has no session.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from gateway.roles import ADMIN, ROLES, Person, whole_pattern
from gateway.storage import schema
from gateway.storage.writer import Writer

_PEOPLE, _SESSIONS = schema.people.c, schema.sessions.c
_PERSON = select(schema.people)
# In `shared`: changes whenever somebody has lost a session or a token.
_MARK = "people"


class People:
    """The tables."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    def add(self, person: Person, token_hash: bytes) -> bool:
        """Add a person; False if the name is taken."""
        row = {
            "id": f"person_{secrets.token_hex(8)}",
            "name": person.name,
            "role": person.role.word,
            "token_hash": token_hash,
            "own": person.own,
            "folders": json.dumps(person.folders),
            "created_at": time.time(),
            "ends_at": None if math.isinf(person.until) else person.until,
        }

        def work(connection: Connection) -> bool:
            same = select(_PEOPLE.id).where(_PEOPLE.name == person.name)
            if connection.execute(same).first() is not None:
                return False
            connection.execute(insert(schema.people), row)
            return True

        return self._writer.call(work)

    def remove(self, name: str) -> bool:
        """Remove a person, and end their sessions; False if there is no such name."""

        def work(connection: Connection) -> bool:
            found = connection.execute(select(_PEOPLE.id).where(_PEOPLE.name == name)).scalar()
            if found is None:
                return False
            for table, column in (
                (schema.people, _PEOPLE.id),
                (schema.sessions, _SESSIONS.person),
                (schema.codes, schema.codes.c.person),
            ):
                connection.execute(delete(table).where(column == found))
            self._change_mark(connection)
            return True

        return self._writer.call(work)

    def listed(self) -> list[dict[str, Any]]:
        """Return them as the API shows them, with how many sessions each has."""
        count = (
            select(func.count())
            .where(_SESSIONS.person == _PEOPLE.id, _SESSIONS.expires_at > time.time())
            .scalar_subquery()
        )
        query = select(schema.people, count.label("sessions")).order_by(_PEOPLE.name)
        return [
            {
                **{name: getattr(row, name) for name in ("name", "role", "own", "sessions")},
                "folders": json.loads(row.folders),
                "created_at": row.created_at,
                "until": row.ends_at,
            }
            for row in self._rows(query)
        ]

    def by_token(self, token_hash: bytes) -> Person | None:
        """Return whose token this is."""
        return next(iter(self._found(_PEOPLE.token_hash == token_hash)), None)

    def by_id(self, person_id: str | None) -> Person | None:
        """Return the person of a session or a code; None is the admin token's holder."""
        if person_id is None:
            return ADMIN
        return next(iter(self._found(_PEOPLE.id == person_id)), None)

    def by_name(self, name: str) -> Person | None:
        """Return a person who was added."""
        return next(iter(self._found(_PEOPLE.name == name)), None)

    def _found(self, which: ColumnElement[bool]) -> list[Person]:
        return [_person(row) for row in self._rows(_PERSON.where(which))]

    # --- sessions ---

    def add_session(self, token_hash: bytes, lifetime_s: float, person_id: str | None) -> None:
        """Remember a session."""
        now = time.time()
        row = {
            "token_hash": token_hash,
            "created_at": now,
            "expires_at": now + lifetime_s,
            "person": person_id,
        }
        self._writer.execute(insert(schema.sessions), row)

    def of_session(self, token_hash: bytes) -> Person | None:
        """Return whose session this is, until it ends; None if it is none any more."""
        query = (
            select(_SESSIONS.person, _SESSIONS.expires_at, schema.people)
            .outerjoin_from(schema.sessions, schema.people, _PEOPLE.id == _SESSIONS.person)
            .where(_SESSIONS.token_hash == token_hash, _SESSIONS.expires_at > time.time())
        )
        for row in self._rows(query):
            if row.person is None:
                return replace(ADMIN, until=row.expires_at)
            if row.id is not None:
                person = _person(row)
                return replace(person, until=min(person.until, row.expires_at))
        return None

    def end_session(self, token_hash: bytes) -> int:
        """Forget a session; return whether there was one, as a number."""
        return self._end(_SESSIONS.token_hash == token_hash)

    def end_sessions_of(self, person_id: str | None) -> int:
        """Forget all sessions of a person; return how many there were."""
        is_admin = _SESSIONS.person.is_(None)
        return self._end(is_admin if person_id is None else _SESSIONS.person == person_id)

    def _end(self, which: ColumnElement[bool]) -> int:
        def work(connection: Connection) -> int:
            ended = connection.execute(delete(schema.sessions).where(which)).rowcount
            if ended:
                self._change_mark(connection)
            return ended

        return self._writer.call(work)

    # --- other gateways ---

    def mark(self) -> str:
        """Return a mark that changes when a session or a token is lost, at any gateway."""
        query = select(schema.shared.c.value).where(schema.shared.c.name == _MARK)
        return next((str(row.value) for row in self._rows(query)), "")

    def _change_mark(self, connection: Connection) -> None:
        if self._writer.is_shared:
            connection.execute(delete(schema.shared).where(schema.shared.c.name == _MARK))
            row = {"name": _MARK, "value": secrets.token_hex(16)}
            connection.execute(insert(schema.shared), row)

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._engine.connect() as connection:
            return list(connection.execute(query).all())


def _person(row: Row[Any]) -> Person:
    return Person(
        row.name,
        ROLES[row.role],
        own=bool(row.own),
        folders=tuple(json.loads(row.folders)),
        until=math.inf if row.ends_at is None else row.ends_at,
        id=row.id,
    )


# --- which runs are seen --------------------------------------------------------------------------


def seen_by(person: Person) -> ColumnElement[bool] | None:
    """Return the condition that a run, joined with its summary, is seen; None: each of them is.

    It says what `Person.sees` says.
    """
    if not person.is_bounded:
        return None
    mine = schema.runs.c.owner == person.name
    if person.own:
        return mine
    place = func.coalesce(schema.summaries.c.working_dir, "")
    return or_(mine, *(_Matches(place, *_bound(each)) for each in person.folders))


def narrowed(query: Select[Any], person: Person) -> Select[Any]:
    """Return a query for runs, joined with their summaries, without those that are not seen."""
    condition = seen_by(person)
    return query if condition is None else query.where(condition)


class _Matches(FunctionElement[bool]):
    """A text, and one pattern as GLOB and as LIKE have it: LIKE of SQLite passes over the case of
    letters, and PostgreSQL has no GLOB.
    """

    type = Boolean()
    inherit_cache = True


def _bound(pattern: str) -> tuple[str, str]:
    whole = whole_pattern(pattern)
    like = "".join(f"\\{each}" if each in "\\%_" else _WILD.get(each, each) for each in whole)
    return whole.replace("[", "[[]"), like


_WILD = {"*": "%", "?": "_"}


@compiles(_Matches, "sqlite")
def _as_glob(element: _Matches, compiler: Any, **how: Any) -> str:
    text, glob, _ = element.clauses
    return f"({compiler.process(text, **how)} GLOB {compiler.process(glob, **how)})"


@compiles(_Matches)
def _as_like(element: _Matches, compiler: Any, **how: Any) -> str:
    text, _, like = element.clauses
    return f"({compiler.process(text, **how)} LIKE {compiler.process(like, **how)})"
