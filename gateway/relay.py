"""News between gateways on one PostgreSQL: what one has done, the others tell their viewers.

A notification names what there is; the gateway that takes it reads the database. It is sent
after the commit, by a connection of its own: a NOTIFY inside of a transaction would make all
commits wait for each other. A notification may be lost, with the gateway that was to send it or
with the connection that was to take it, so every second each gateway compares with the database
what is watched and what waits here. It also looks who can tell: where one has gone without a word,
what it last did may have been told to nobody, and viewers read anew.

One gateway at a time has the chores: to tidy up, to fill the search, to send messages. It is the
one that has the lock of that name.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Final, Protocol

from sqlalchemy import URL

from gateway.storage.postgresql import Lock, connect, connection_error

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

# How often it is looked whether a notification was lost.
ROUND_S: Final = 1.0
_CHANNEL: Final = "claude_runner"
# PostgreSQL takes 8,000 bytes.
MAX_BYTES: Final = 7_000
_RECONNECT_S: Final = 0.5
# After each sending: many runs at once would cost a statement, and a look at the others, each time.
_GATHER_S: Final = 0.025
# Of news that cannot be sent; a gateway that hears nothing compares with the database.
_MAX_PENDING: Final = 10_000

# Others that have gone are judged so much later: the word that they leave may be on its way.
_WORD_S: Final = 0.1

_SEND: Final = b"SELECT pg_notify(%s, news) FROM unnest(%s::text[]) AS news"
_HOLD: Final = f"SELECT pg_advisory_lock_shared({int(Lock.ALIVE)})".encode()
_TRY_CHORES: Final = f"SELECT pg_try_advisory_lock({int(Lock.CHORES)})".encode()
_BE_HEARD: Final = f"SELECT pg_advisory_lock_shared({int(Lock.TELLS)})".encode()
_WHO_TELLS: Final = b"""
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
AND (classid::bigint << 32) + objid::bigint = %s
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Taker(Protocol):
    """Who takes the news of the others. Called by the relay's thread."""

    def take(self, news: dict[str, Any]) -> None:
        """Take one piece of news."""

    def compare(self) -> None:
        """See in the database whether there is news that was not told."""

    def lost(self) -> None:
        """Take note that news may have been lost."""

    def lead(self, *, leads: bool) -> None:
        """Begin with the chores, or leave them to another gateway."""


class Relay:
    """Two threads, each with a connection: one sends, one takes. `tell` may be called by any."""

    def __init__(self, address: URL, taker: Taker) -> None:
        self._address = address
        self._taker = taker
        self._gate = threading.Lock()
        self._pending: dict[str, str] = {}
        self._woken = threading.Event()
        self._ended = threading.Event()
        self.leads = False
        # The backends through which others tell, and those that have said that they leave.
        self._telling: set[int] = set()
        self._left: set[int] = set()
        self._missed: set[int] = set()  # gone since the last look
        self._me = f"{id(self):x}-{time.time_ns():x}"
        self._sender = threading.Thread(target=self._send_on, name="gateway-tell", daemon=True)
        self._listener = threading.Thread(target=self._hear_on, name="gateway-hear", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._sender.start()
        self._listener.start()

    def close(self) -> None:
        """Send what is left, and end. Blocks until then."""
        self._ended.set()
        self._woken.set()
        self._sender.join(3)
        self._listener.join(ROUND_S + 2)

    def tell(self, kind: str, **fields: Any) -> None:
        """Tell the other gateways; the same news twice are told once. Does not block."""
        text = self._encode(kind, **fields)
        if len(text.encode()) > MAX_BYTES:
            text = self._encode("lost")
        # Of the events of a run only the last one matters.
        key = f"events {fields['run']}" if kind == "events" else text
        with self._gate:
            self._pending[key] = text
            if len(self._pending) > _MAX_PENDING:
                lost = self._encode("lost")
                self._pending = {lost: lost}
        self._woken.set()

    def _encode(self, kind: str, **fields: Any) -> str:
        return json.dumps({"kind": kind, "from": self._me, **fields}, ensure_ascii=False)

    # --- sending ---

    def _send_on(self) -> None:
        self._with_connection(self._send_all)

    def _send_all(self, connection: psycopg.Connection[Any]) -> None:
        # A notification is worth no wait for the disk.
        connection.execute(b"SET synchronous_commit = off")
        connection.execute(_BE_HEARD)
        while True:
            self._woken.wait()
            self._woken.clear()
            with self._gate:
                news, self._pending = self._pending, {}
            if news:
                try:
                    connection.execute(_SEND, (_CHANNEL, list(news.values())))
                except connection_error():
                    with self._gate:
                        self._pending = {**news, **self._pending}
                    self._woken.set()
                    raise
                self._ended.wait(_GATHER_S)
            elif self._ended.is_set():
                left = self._encode("left", who=connection.info.backend_pid)
                connection.execute(_SEND, (_CHANNEL, [left]))
                return

    # --- taking ---

    def _hear_on(self) -> None:
        self._with_connection(self._hear_all)

    def _hear_all(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(_HOLD)
        connection.execute(f"LISTEN {_CHANNEL}".encode())
        # What came meanwhile was told to nobody here.
        self._attempt(self._taker.lost)
        self._telling, self._missed, due = set(), set(), 0.0
        try:
            while not self._ended.is_set():
                if time.monotonic() >= due:
                    is_any_gone = self._look_who_tells(connection)
                    due = time.monotonic() + (_WORD_S if is_any_gone else ROUND_S)
                    self._look_for_chores(connection)
                    self._attempt(self._taker.compare)
                for each in connection.notifies(timeout=max(0.0, due - time.monotonic())):
                    self._take(each.payload)
                    if self._ended.is_set():
                        break
        finally:
            if self.leads:
                self.leads = False
                self._attempt(lambda: self._taker.lead(leads=False))

    def _look_for_chores(self, connection: psycopg.Connection[Any]) -> None:
        if self.leads:
            return
        row = connection.execute(_TRY_CHORES).fetchone()
        if row is not None and row[0]:
            self.leads = True
            self._attempt(lambda: self._taker.lead(leads=True))

    def _look_who_tells(self, connection: psycopg.Connection[Any]) -> bool:
        """Note who can tell; return whether somebody has gone whose word has not come yet.

        Who is still without a word at the next look has left something untold.
        """
        telling = {row[0] for row in connection.execute(_WHO_TELLS, (int(Lock.TELLS),))}
        gone = self._telling - telling - self._left
        if gone & self._missed:
            self._attempt(self._taker.lost)
            gone -= self._missed
        self._left &= self._telling
        self._telling, self._missed = telling | gone, gone
        return bool(gone)

    def _take(self, payload: str) -> None:
        news = json.loads(payload)
        if news.pop("from", None) == self._me:
            return
        kind = news["kind"]
        if kind == "left":
            self._left.add(news["who"])
        elif kind == "lost":
            self._attempt(self._taker.lost)
        else:
            self._attempt(lambda: self._taker.take(news))

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - of one piece of news; it is looked for again
            logger.info("news of another gateway were not taken: %s", error)

    # --- both ---

    def _with_connection(self, work: Callable[[psycopg.Connection[Any]], None]) -> None:
        """Work with a connection, and with another one when that has ended."""
        while True:
            try:
                with connect(self._address) as connection:
                    work(connection)
                    return
            except connection_error() as error:
                logger.warning("the database does not answer: %s", " ".join(str(error).split()))
            if self._ended.wait(_RECONNECT_S):
                return
