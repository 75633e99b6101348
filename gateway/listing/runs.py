"""The list of runs: its groups, its filters, its search, and what an operator does to a line of it.

Everything is read from the small rows of `schema.summaries`. Thread: any.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    case,
    func,
    or_,
    select,
    update,
)

from gateway.admission import hash_token
from gateway.listing.text_index import TextIndex, contains
from gateway.offers.orders import QUEUED, WITHDRAWN
from gateway.roles import ADMIN, Person
from gateway.storage import schema
from gateway.storage.people import narrowed
from gateway.storage.records import (
    FAILED,
    NEEDS,
    OVER,
    PENDING,
    RUNNING,
    WAITS_FOR_START,
    WORKING,
    name_of,
)
from gateway.storage.unbegun import take_stops_back
from gateway.storage.writer import Writer

STAGES: Final = (NEEDS, WORKING, WAITS_FOR_START, OVER)
MAX_TITLE_CHARACTERS: Final = 200
MAX_SEARCH_CHARACTERS: Final = 200
_MAX_WORDS: Final = 10
# Folders and runners that are offered as filters.
_MAX_OFFERED: Final = 200

_RUNS: Final = schema.runs.c
_LINE: Final = schema.summaries.c
# What a line of the list has, under the names of the API.
_OF_RUN: Final = (
    *("id", "status", "owner", "created_at", "started_at", "finished_at"),
    *("last_event_at", "last_event_id", "exit_code"),
)
_OF_SUMMARY: Final = (
    *("stage", "stage_at", "seen_at", "title", "working_dir", "branch", "runner", "mode"),
    *("reason", "open_questions", "refused", "cost", "incomplete"),
)
_UNSEEN: Final = and_(_LINE.stage == OVER, _LINE.seen_at.is_(None))
_VISIBLE: Final = _LINE.removed_at.is_(None)
_LINES: Final = (
    select(
        _LINE.number,
        *(_RUNS[name] for name in _OF_RUN),
        *(_LINE[name] for name in _OF_SUMMARY),
        func.coalesce(_LINE.asked, _LINE.prompt).label("prompt"),
        schema.keeping.c.kept_at.is_not(None).label("kept"),
    )
    .join_from(schema.summaries, schema.runs, _RUNS.number == _LINE.number)
    .outerjoin(schema.keeping, schema.keeping.c.run_id == _RUNS.id)
    .where(_VISIBLE)
)
# States by which the list can be filtered, apart from its groups.
_STATES: Final[dict[str, ColumnElement[bool]]] = {
    **{stage: _LINE.stage == stage for stage in STAGES},
    "unseen": _UNSEEN,
    "failed": _RUNS.status == FAILED,
    "refused": _LINE.refused > 0,
    "incomplete": _LINE.incomplete.is_(True),
}
STATES: Final = tuple(_STATES)
_CURSOR: Final = re.compile(r"([0-9]{1,12}\.[0-9]{1,9}):([0-9]{1,18})", re.ASCII)


class Filter(NamedTuple):
    """Which runs the list shows; what is empty does not matter."""

    state: str = ""
    folder: str = ""
    runner: str = ""
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, state: str, folder: str, runner: str, text: str) -> Filter:
        """Return it for what was asked; `text` is what was typed."""
        # To SQLite's index of words, a text ends at a zero.
        words = text.replace("\0", " ").split()
        return cls(state, folder, runner, tuple(words[:_MAX_WORDS]))


class Place(NamedTuple):
    """Where a page of a group ends: the next one begins behind this run."""

    stage_at: float
    number: int

    @classmethod
    def read(cls, text: str) -> Place:
        """Read it as it was given out. Raises: ValueError."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return cls(float(match[1]), int(match[2]))

    @classmethod
    def of(cls, row: Row[Any]) -> Place:
        """Return where this run is."""
        return cls(row.stage_at, row.number)

    def __str__(self) -> str:
        return f"{self.stage_at!r}:{self.number}"


class Listing:
    """The list of runs, as one person sees it."""

    def __init__(
        self, engine: Engine, writer: Writer, index: TextIndex, person: Person = ADMIN
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._index = index
        self._person = person

    def of(self, person: Person) -> Listing:
        """Return the list as another person sees it."""
        return Listing(self._engine, self._writer, self._index, person)

    # --- reading ---

    def counts(self) -> dict[str, int]:
        """Return how many runs are in each group, and how many that ended nobody has looked at."""
        query = select(
            *(func.coalesce(func.sum(case((_LINE.stage == each, 1), else_=0)), 0).label(each)
              for each in STAGES),
            func.coalesce(func.sum(case((_UNSEEN, 1), else_=0)), 0).label("unseen"),
        ).where(_VISIBLE)  # fmt: skip
        query = self._narrowed(query)
        with self._engine.connect() as connection:
            return dict(connection.execute(query).one()._mapping)

    def offered(self) -> dict[str, list[str]]:
        """Return the folders and the runners that there are."""
        with self._engine.connect() as connection:
            return {
                name: list(
                    connection.execute(
                        self._narrowed(select(column).where(_VISIBLE, column.is_not(None)))
                        .group_by(column)
                        .order_by(func.max(_LINE.number).desc())
                        .limit(_MAX_OFFERED)
                    ).scalars()
                )
                for name, column in (("folders", _LINE.working_dir), ("runners", _LINE.runner))
            }

    def _narrowed(self, query: Select[Any]) -> Select[Any]:
        """Return a query for summaries without the runs that are not seen."""
        if not self._person.is_bounded:
            return query
        joined = query.join_from(schema.summaries, schema.runs, _RUNS.number == _LINE.number)
        return narrowed(joined, self._person)

    def groups(
        self, stages: Sequence[str], wanted: Filter, after: Place | None, limit: int
    ) -> list[dict[str, Any]]:
        """Return a page of each of these groups, newest first."""
        query = self._filtered(wanted)
        with self._engine.connect() as connection:
            found = [
                (stage, *_page(connection, query.where(_LINE.stage == stage), after, limit))
                for stage in stages
            ]
        return [
            {
                "stage": stage,
                "count": count,
                "runs": self._shown(rows[:limit], wanted),
                "next": str(Place.of(rows[limit - 1])) if len(rows) > limit else None,
            }
            for stage, count, rows in found
        ]

    def _filtered(self, wanted: Filter) -> Select[Any]:
        query = narrowed(_LINES, self._person)
        if wanted.state:
            query = query.where(_STATES[wanted.state])
        if wanted.folder:
            query = query.where(_LINE.working_dir == wanted.folder)
        if wanted.runner:
            query = query.where(_LINE.runner == wanted.runner)
        if wanted.words:
            # Once, and not for each group and count.
            printed = self._index.runs_with(list(wanted.words))
            query = query.where(or_(_named(wanted), _RUNS.id.in_(printed)))
        return query

    def _shown(self, rows: Sequence[Row[Any]], wanted: Filter) -> list[dict[str, Any]]:
        ids = [row.id for row in rows]
        words = list(wanted.words)
        found = self._index.excerpts(ids, words) if ids and words else {}
        sent = self._sent_to([row.id for row in rows if row.status == PENDING])
        return [
            {**_line(row), "found": found.get(row.id), "sent_to": sent.get(row.id)} for row in rows
        ]

    def _sent_to(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the folders that are to start these runs."""
        if not ids:
            return {}
        query = select(_RUNS.id, _RUNS.details).where(_RUNS.id.in_(ids))
        with self._engine.connect() as connection:
            return {
                row.id: json.loads(row.details).get("sent_to") for row in connection.execute(query)
            }

    # --- what an operator does ---

    def set_title(self, run_id: str, title: str | None) -> None:
        """Give a run a name, or take it away."""
        self._change(run_id, {"title": title})

    def mark_seen(self, run_id: str) -> bool:
        """Note that somebody has looked at the end of a run; return whether that was news."""
        return self._change(run_id, {"seen_at": time.time()}, _UNSEEN)

    def _change(self, run_id: str, values: dict[str, Any], *only: ColumnElement[bool]) -> bool:
        number = select(_RUNS.number).where(_RUNS.id == run_id).scalar_subquery()
        statement = update(schema.summaries).where(_LINE.number == number, *only).values(values)
        return bool(self._writer.call(lambda c: bool(c.execute(statement).rowcount)))

    def renew_token(self, run_id: str) -> str | None:
        """Give a run that was not started another token; None if it has begun meanwhile.

        No folder takes it any more, if it was queued for one. One that was stopped may begin.
        """
        token = secrets.token_hex(32)
        pending = update(schema.runs).where(_RUNS.id == run_id, _RUNS.status == PENDING)
        orders = schema.orders.c
        queued = update(schema.orders).where(orders.run_id == run_id, orders.state == QUEUED)

        def work(connection: Connection) -> bool:
            renewed = connection.execute(pending.values(token_hash=hash_token(token)))
            if renewed.rowcount:
                connection.execute(queued.values(state=WITHDRAWN))
                told = "The run was given a new line."
                take_stops_back(connection, run_id, told, sent_to=None)
            return bool(renewed.rowcount)

        return token if self._writer.call(work) else None

    def remove(self, run_id: str, *, also_running: bool) -> bool:
        """Let nobody see a run any more, and take nothing for it; what it has is removed later.

        Returns False, with nothing done, if the run goes on, or is not there.
        """

        def work(connection: Connection) -> bool:
            ended = [_RUNS.id == run_id]
            if not also_running:
                ended.append(_RUNS.status != RUNNING)
            # No token has this hash.
            values = {"token_hash": secrets.token_bytes(32)}
            if not connection.execute(update(schema.runs).where(*ended).values(values)).rowcount:
                return False
            number = select(_RUNS.number).where(_RUNS.id == run_id).scalar_subquery()
            here = update(schema.summaries).where(_LINE.number == number, _VISIBLE)
            return bool(connection.execute(here.values(removed_at=time.time())).rowcount)

        return self._writer.call(work)

    def removed(self, limit: int) -> list[str]:
        """Return the ids of some runs that are to be removed."""
        query = (
            select(_RUNS.id)
            .join_from(schema.summaries, schema.runs, _RUNS.number == _LINE.number)
            .where(_LINE.removed_at.is_not(None))
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())


def _page(
    connection: Connection, query: Select[Any], after: Place | None, limit: int
) -> tuple[int, Sequence[Row[Any]]]:
    """Return how many there are, and a page of them with one more, if there is one."""
    count = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    if after is not None:
        same = and_(_LINE.stage_at == after.stage_at, _LINE.number < after.number)
        query = query.where(or_(_LINE.stage_at < after.stage_at, same))
    ordered = query.order_by(_LINE.stage_at.desc(), _LINE.number.desc())
    return count, connection.execute(ordered.limit(limit + 1)).all()


def _named(wanted: Filter) -> ColumnElement[bool]:
    """Return the condition that what is known of a run itself has all the words."""
    places = (_LINE.title, _RUNS.command, _LINE.prompt, _LINE.working_dir, _LINE.branch)
    return and_(
        *(
            or_(_RUNS.id == word, *(contains(place, word) for place in places))
            for word in wanted.words
        )
    )


def _line(row: Row[Any]) -> dict[str, Any]:
    line = {name: getattr(row, name) for name in (*_OF_RUN, *_OF_SUMMARY, "prompt")}
    return {**line, "name": name_of(line), "kept": bool(row.kept)}
