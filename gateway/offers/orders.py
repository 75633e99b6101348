"""Runs that are sent to folders that wait, and which folders the operator has let in: the tables.

An order goes one way: it is queued until its folder takes it, or somebody withdraws it. What was
taken and did not begin can only be queued again by a person, as another hand-out with another
token. Thread: any.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from sqlalchemy import Connection, Engine, Row, Select, delete, insert, select, update

from gateway.admission import Admitted, hash_token
from gateway.storage import schema
from gateway.storage.records import PENDING
from gateway.storage.unbegun import IS_STOP, take_stops_back
from gateway.storage.writer import Writer, spend_nonce

QUEUED, TAKEN, FAILED, REFUSED, WITHDRAWN = "queued", "taken", "failed", "refused", "withdrawn"
# What was forgotten is not started by surprise when the folder waits again.
MAX_QUEUED_S = 24 * 3_600.0
_MAX_REASON = 300

_ORDERS, _WAITERS, _RUNS = schema.orders.c, schema.waiters.c, schema.runs.c
_COMMANDS = schema.commands.c
# What is being removed is there for nobody.
_ORDER = (
    select(schema.orders, _RUNS.status, _RUNS.token_hash, _RUNS.command, _RUNS.details)
    .join(schema.runs, _RUNS.id == _ORDERS.run_id)
    .join(schema.summaries, schema.summaries.c.number == _RUNS.number)
    .where(schema.summaries.c.removed_at.is_(None))
    .order_by(_ORDERS.queued_at)
)


@dataclass(frozen=True)
class Wish:
    """What the page asks of a folder. `mode` and `ask` are None where its owner has chosen.

    `known` are details of the run before it begins; with a session in them it goes on with that.
    """

    prompt: str
    mode: str | None
    ask: bool | None
    title: str | None = None
    known: Mapping[str, Any] = field(default_factory=dict)


class Orders:
    """The tables."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    # --- folders ---

    def names_of(self, waiter_id: str) -> tuple[str, str] | None:
        """Return name and machine of a folder that was let in; None for any other."""
        row = self._one(select(_WAITERS.name, _WAITERS.machine).where(_WAITERS.id == waiter_id))
        return None if row is None else (row.name, row.machine)

    def let_in(self, waiter_id: str, name: str, machine: str) -> None:
        """Let a folder in, from now on."""
        row = {"id": waiter_id, "name": name, "machine": machine, "paired_at": time.time()}

        def work(connection: Connection) -> None:
            connection.execute(delete(schema.waiters).where(_WAITERS.id == waiter_id))
            connection.execute(insert(schema.waiters), row)

        self._writer.call(work)

    def shut_out(self, waiter_id: str) -> bool:
        """Let a folder in no longer, and withdraw what is queued for it; False if it was not in."""
        queued = (_ORDERS.waiter_id == waiter_id, _ORDERS.state == QUEUED)

        def work(connection: Connection) -> bool:
            connection.execute(update(schema.orders).where(*queued).values(state=WITHDRAWN))
            query = delete(schema.waiters).where(_WAITERS.id == waiter_id)
            return bool(connection.execute(query).rowcount)

        return self._writer.call(work)

    # --- orders ---

    def find(self, run_id: str) -> Row[Any] | None:
        """Return an order, with its run's status, token hash and command."""
        return self._one(_ORDER.where(_ORDERS.run_id == run_id))

    def find_by_key(self, key: str) -> str | None:
        """Return the run of the order that a page has sent with this key."""
        row = self._one(select(_ORDERS.run_id).where(_ORDERS.key == key))
        return None if row is None else str(row.run_id)

    @staticmethod
    def adding(waiter_id: str, key: str, wish: Wish) -> Callable[[Connection, str], None]:
        """Return what queues a run, in the transaction that makes it: without one it would stay."""
        row = {
            "waiter_id": waiter_id,
            "key": key,
            "mode": wish.mode,
            "ask": wish.ask,
            "state": QUEUED,
            "handout": 1,
            "queued_at": time.time(),
            "began": False,
        }

        def work(connection: Connection, run_id: str) -> None:
            connection.execute(insert(schema.orders), {**row, "run_id": run_id})

        return work

    def queued(self, waiter_id: str) -> list[Row[Any]]:
        """Return what a folder may take, in the order in which it was queued."""
        query = _ORDER.where(
            _ORDERS.waiter_id == waiter_id,
            _ORDERS.state == QUEUED,
            _ORDERS.queued_at > time.time() - MAX_QUEUED_S,
            _RUNS.status == PENDING,
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query).all())

    def take(
        self, admitted: Admitted, session: str, run_id: str, handout: int, token: str
    ) -> str | None:
        """Hand a run out, once; the same hand-out with the same token may be asked for again.

        The run has this token from now on. Returns None, or why the folder must not start it.
        """
        token_hash = hash_token(token)
        this = update(schema.orders).where(_ORDERS.run_id == run_id)
        stops = select(_COMMANDS.id).where(_COMMANDS.run_id == run_id, IS_STOP)
        waiter = select(_WAITERS.id).where(_WAITERS.id == admitted.run_id)

        def work(connection: Connection) -> str | None:
            spend_nonce(connection, admitted.nonce_digest, admitted.at)
            row = connection.execute(_ORDER.where(_ORDERS.run_id == run_id)).one_or_none()
            if connection.execute(waiter).first() is None:
                return "this folder is not let in any more"
            if row is None or row.waiter_id != admitted.run_id or row.handout != handout:
                return "it is not for this folder any more"
            if row.state == TAKEN and row.session == session and row.token_hash == token_hash:
                return None
            is_free = row.state in (QUEUED, WITHDRAWN)
            if is_free and connection.execute(stops).first() is not None:
                connection.execute(this.values(state=WITHDRAWN))
                return "it was stopped before it began"
            if row.state != QUEUED:
                return f"it is {row.state} already"
            if row.status != PENDING:
                return "it was started elsewhere"
            values = {"state": TAKEN, "session": session, "taken_at": time.time()}
            connection.execute(this.values(values))
            runs = update(schema.runs).where(_RUNS.id == run_id)
            connection.execute(runs.values(token_hash=token_hash))
            return None

        return self._writer.call(work)

    def note_end(self, waiter_id: str, ended: Mapping[str, Any]) -> None:
        """Note what a folder says of a run that it took, if nothing of it has come here."""
        run_id, handout, refused = (ended.get(name) for name in ("run", "handout", "refused"))
        order = self.find(run_id) if isinstance(run_id, str) else None
        is_known = order is not None and (order.waiter_id, order.handout) == (waiter_id, handout)
        states = (QUEUED, TAKEN) if isinstance(refused, str) else (TAKEN,)
        if order is None or not is_known or order.state not in states or order.status != PENDING:
            return
        values: dict[str, Any] = {"state": REFUSED, "reason": f"{refused}"[:_MAX_REASON]}
        if not isinstance(refused, str):
            code = ended.get("exitCode")
            values = {"state": FAILED, "began": ended.get("began") is True}
            values["exit_code"] = code if type(code) is int and abs(code) < 1_000 else None
        this = (_ORDERS.run_id == run_id, _ORDERS.handout == handout, _ORDERS.state.in_(states))
        self._writer.execute(update(schema.orders).where(*this).values(values))

    def queue_again(self, order: Row[Any]) -> bool:
        """Make another hand-out of an order, whose old token is dead; False if it has changed."""
        this = (
            _ORDERS.run_id == order.run_id,
            _ORDERS.handout == order.handout,
            _ORDERS.state == order.state,
        )
        values = {"state": QUEUED, "handout": order.handout + 1, "queued_at": time.time()}
        values.update(session=None, reason=None, exit_code=None, taken_at=None)
        run = update(schema.runs).where(_RUNS.id == order.run_id, _RUNS.status == PENDING)

        def work(connection: Connection) -> bool:
            # First: of one that was taken meanwhile, the token must stay.
            if connection.execute(select(_ORDERS.run_id).where(*this)).first() is None:
                return False
            if not connection.execute(run.values(token_hash=secrets.token_bytes(32))).rowcount:
                return False
            take_stops_back(connection, order.run_id, "The run was sent again.")
            connection.execute(update(schema.orders).where(*this).values(values))
            return True

        return self._writer.call(work)

    def withdraw(self, run_id: str) -> bool:
        """Take an order back; False if it is not queued any more."""
        this = (_ORDERS.run_id == run_id, _ORDERS.state == QUEUED)

        def work(connection: Connection) -> bool:
            query = update(schema.orders).where(*this).values(state=WITHDRAWN)
            return bool(connection.execute(query).rowcount)

        return self._writer.call(work)

    def _one(self, query: Select[Any]) -> Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(query).one_or_none()
