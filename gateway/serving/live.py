"""The one thread that holds all open streams and all polls that wait.

Two kinds of connections live here, parked by the server: *viewers*, browsers that follow a run (or
the list of runs) as server-sent events, and *polls* of runners that wait for a command. None of
them holds a thread of its own.

A viewer has a cursor, the id of the last event that it was sent. What comes next is taken from the
run's *tail*, the newest events in memory, which all viewers share; a viewer that is further behind
reads a page from the store. Nothing is queued for a viewer beyond what is being sent, so a slow one
costs neither memory nor the others' time, and one that comes back with `Last-Event-ID` is a viewer
with another cursor.

Why a tail has no gap: the writer says of every batch which event of that run came before it, so the
tail knows from which cursor on it is complete.
"""

from __future__ import annotations

import json
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol, Union

from gateway.serving.server import Connection
from gateway.storage.records import Event

logger = logging.getLogger(__name__)

# The list of runs is followed under this name, which no run can have.
ALL_RUNS = ""

_HEARTBEAT_S = 15.0
# Between two rounds, so that a fast run wakes 200 browsers 40 times a second and not 1,000 times.
# A viewer that is behind gets pages for as long; then others have their turn.
ROUND_S = 0.025
# What is kept in memory of each run that is watched; a page from the store has this size too.
_TAIL_BYTES = 262_144
MAX_PAGE_EVENTS = 500
# News that are not events (a run's state, a command's result) waiting for one viewer.
_MAX_NEWS = 200
_MAX_PARKED = 2_000
# Of the last notices, for a page whose stream was away for a moment.
_MAX_NOTICES = 50

# Of a run that news are about: whom it belongs to, and where it works.
About = tuple[Union[str, None], Union[str, None]]

_NOTHING = memoryview(b"")
# What was read for one viewer, for all with its cursor: the bytes, and the cursor after them.
_Pages = dict[tuple[str, int], tuple[memoryview, int]]

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n"
    b"X-Accel-Buffering: no\r\n\r\nretry: 1000\n\n"
)


class Source(Protocol):
    """Where a viewer that is behind reads from, and what a poll is answered with."""

    def events_after(self, run_id: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """Return a page of events after one, ascending; at least one if there is any."""

    def last_event_id(self, run_id: str) -> int:
        """Return the id of a run's last event, 0 if it has none."""


# The last that a browser gets of a gateway that ends, so that it goes to another one at once.
_MOVE_ON = b"retry: 250\nevent: reconnect\ndata: {}\n\n"


@dataclass(eq=False)
class Viewer:
    """A browser that follows a run, or the list of runs."""

    topic: str
    cursor: int
    # Asked again every _HEARTBEAT_S, when somebody has lost something, and at its end.
    is_allowed: Callable[[], bool]
    ends_at: float = math.inf  # as `time.monotonic()`
    # Whether its person sees a run; None: each of them.
    sees: Callable[[str | None, str | None], bool] | None = None
    asked_at: float = 0.0
    noticed: int | None = None  # the number of the last notice that its page had
    out: memoryview = _NOTHING
    news: deque[bytes] = field(default_factory=deque)
    quiet_since: float = 0.0
    waits_for_room: bool = False


@dataclass(eq=False)
class Poll:
    """A runner that waits for a command. `answer` makes the whole reply."""

    topic: str
    deadline: float
    answer: Callable[[bool], bytes]  # gets whether its time is over; empty: nothing to say yet
    release: Callable[[Connection], None]
    out: memoryview = _NOTHING


@dataclass
class _Tail:
    """The newest events of a run, complete from the cursor `floor` on."""

    floor: int
    frames: deque[tuple[int, bytes]] = field(default_factory=deque)
    size_bytes: int = 0

    @property
    def last_id(self) -> int:
        return self.frames[-1][0] if self.frames else self.floor

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            frame = encode_event(event)
            self.frames.append((event.id, frame))
            self.size_bytes += len(frame)
        while self.size_bytes > _TAIL_BYTES and len(self.frames) > 1:
            self.floor, frame = self.frames.popleft()
            self.size_bytes -= len(frame)

    def after(self, cursor: int) -> bytes:
        newer: list[bytes] = []
        for event_id, frame in reversed(self.frames):
            if event_id <= cursor:
                break
            newer.append(frame)
        return b"".join(reversed(newer))


def encode_event(event: Event) -> bytes:
    """Return an event as one server-sent event, with its id."""
    return _encode_frame("event", event.to_json(), event.id)


def _encode_frame(name: str, content: dict[str, Any], event_id: int | None = None) -> bytes:
    """Return one server-sent event. JSON has no line breaks, so its data is one line."""
    head = f"event: {name}\n" if event_id is None else f"id: {event_id}\nevent: {name}\n"
    return f"{head}data: {json.dumps(content)}\n\n".encode()


class Others(Protocol):
    """The other gateways on the same database. What is told here is told there too."""

    def tell(self, kind: str, **fields: Any) -> None:
        """Tell them; `fields` are JSON. Does not block."""


class Live:
    """The thread. What is public may be called by any thread, and does not block."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.others: Others | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.settimeout(0)
        self._wake_out.settimeout(0)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._inbox: deque[Callable[[], None]] = deque()
        self._connections: dict[Viewer | Poll, Connection] = {}
        self._viewers: dict[str, set[Viewer]] = {}
        self._polls: dict[str, set[Poll]] = {}
        self._tails: dict[str, _Tail] = {}
        self._behind: dict[str, int] = {}
        self._notices: deque[tuple[int, str, bytes, About]] = deque(maxlen=_MAX_NOTICES)
        self._is_woken = False
        self._has_more = False  # perhaps, for a viewer that has taken all it was sent
        self._is_ending = False
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="gateway-live", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End all streams and answer all polls. Blocks until then."""
        self._is_ending = True
        self._wake()
        self._thread.join(3)

    @property
    def is_full(self) -> bool:
        """Whether no more connections are taken."""
        return self._is_ending or len(self._connections) >= _MAX_PARKED

    # --- news, from any thread ---

    def events_stored(self, run_id: str, previous_id: int, stored: list[Event]) -> None:
        """Take new events of a run; `previous_id` is the one before them."""
        if run_id in self._viewers:
            self._post(lambda: self._add_events(run_id, previous_id, stored))
        self._tell_others("events", run=run_id, last=stored[-1].id)

    def events_elsewhere(self, run_id: str, last_id: int) -> None:
        """Read what another gateway has stored of a run, up to an event."""
        if run_id in self._viewers:
            self._post(lambda: self._behind.update({run_id: last_id}))

    def tell(
        self, topic: str, name: str, content: dict[str, Any], about: About | None = None
    ) -> None:
        """Send something to all who follow a run, or the list, here and elsewhere.

        What the list is told names the run that it is `about`; a run itself says it.
        """
        self.tell_here(topic, name, content, about)
        # What may be large is read there.
        is_read = name in ("run", "command")
        fields = {"id": content["id"]} if is_read else {"content": content, "about": about}
        self._tell_others("news", topic=topic, name=name, **fields)

    def tell_here(
        self, topic: str, name: str, content: dict[str, Any], about: About | None = None
    ) -> None:
        """Send something to all who follow a run, or the list, at this gateway."""
        if topic in self._viewers:
            frame = _encode_frame(name, content)
            of_run = (content["owner"], content["working_dir"]) if name == "run" else about
            self._post(lambda: self._add_news(topic, frame, of_run))

    def tell_everybody(self, name: str, content: dict[str, Any], *, is_here: bool = False) -> None:
        """Send something that is about no run to all who follow anything; `is_here`: at this
        gateway alone.
        """
        frame = _encode_frame(name, content)
        self._post(lambda: self._add_news_everywhere(frame))
        if not is_here:
            self._tell_others("everybody", name=name, content=content)

    def tell_notice(
        self, number: int, content: dict[str, Any], about: About, *, is_here: bool = False
    ) -> None:
        """Send a notice to all pages whose person sees the run; one that comes back gets those
        after its last number. `is_here`: at this gateway alone.
        """
        frame = _encode_frame("notice", content)

        def work() -> None:
            self._notices.append((number, content["run_id"], frame, about))
            self._add_news_everywhere(frame, about)

        self._post(work)
        if not is_here:
            self._tell_others("notice", number=number, content=content, about=about)

    def parked(self) -> tuple[int, int]:
        """Return how many streams are open, and how many polls wait."""
        kinds = [isinstance(each, Viewer) for each in list(self._connections)]
        return sum(kinds), len(kinds) - sum(kinds)

    def forget(self, run_ids: list[str]) -> None:
        """Forget what was told of runs that are removed, and their newest events."""

        def work() -> None:
            kept = [each for each in self._notices if each[1] not in run_ids]
            self._notices = deque(kept, _MAX_NOTICES)
            for run_id in run_ids:
                self._tails.pop(run_id, None)

        self._post(work)

    def has_viewers(self, topic: str) -> bool:
        """Whether anybody would see what is told."""
        return topic in self._viewers

    def command_queued(self, run_id: str) -> None:
        """Wake the polls of a run, here and elsewhere."""
        self.wake_polls(run_id)
        self._tell_others("queued", topic=run_id)

    def wake_polls(self, run_id: str) -> None:
        """Wake the polls of a run that wait at this gateway."""
        self._post(lambda: self._wake_polls(run_id))

    def watched(self) -> tuple[dict[str, int], list[str]]:
        """Return the last event that is known of each run that is followed, and whose polls wait
        here.
        """
        known = {run_id: tail.last_id for run_id, tail in list(self._tails.items())}
        return known, list(self._polls)

    def drop_viewers(self) -> None:
        """End all streams: their browsers come back, and read what they have missed."""
        self._post(self._drop_viewers)

    def ask_again(self) -> None:
        """Ask of each stream whether it is still allowed: a session or a token was lost."""
        self._post(self._ask_again)

    def _tell_others(self, kind: str, **fields: Any) -> None:
        if self.others is not None:
            self.others.tell(kind, **fields)

    def add_viewer(self, connection: Connection, viewer: Viewer) -> None:
        """Take over a connection whose request asked for a stream."""
        self._take_over(connection, lambda: self._add_viewer(connection, viewer))

    def add_poll(self, connection: Connection, poll: Poll) -> None:
        """Take over a connection whose request waits for a command."""
        self._take_over(connection, lambda: self._add_poll(connection, poll))

    def _take_over(self, connection: Connection, work: Callable[[], None]) -> None:
        if self._has_ended:
            connection.parked = None
            connection.close()
        else:
            self._post(work)

    def _post(self, work: Callable[[], None]) -> None:
        self._inbox.append(work)
        if not self._is_woken:
            self._is_woken = True
            self._wake()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            pass  # it has been woken often enough, or has ended

    # --- the thread ---

    def _run(self) -> None:
        while not self._is_ending:
            began = time.monotonic()
            try:
                self._round()
            except Exception:
                logger.exception("the live streams stumbled")
            time.sleep(max(0.0, ROUND_S - (time.monotonic() - began)))
        self._has_ended = True
        self._read_inbox()  # who came in the last moment
        for poll in [each for polls in self._polls.values() for each in polls]:
            self._answer(poll, is_over=True)
        for parked, connection in list(self._connections.items()):
            if isinstance(parked, Viewer):
                self._send_on(parked, connection)
            self._drop(parked, connection)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _round(self) -> None:
        for key, mask in self._selector.select(self._next_deadline_s()):
            if key.fileobj is self._wake_out:
                self._wake_out.recv(4096)
            elif mask & selectors.EVENT_READ:
                self._look_for_the_end(key.data)
        self._read_inbox()
        now = time.monotonic()
        self._read_behind()
        self._serve_viewers(now)
        for polls in list(self._polls.values()):
            for poll in list(polls):
                if now >= poll.deadline or poll.out:
                    self._answer(poll, is_over=True)

    def _read_inbox(self) -> None:
        self._is_woken = False  # before it is emptied: who posts later wakes again
        while self._inbox:
            self._inbox.popleft()()

    def _next_deadline_s(self) -> float:
        if self._inbox or self._has_more or self._behind:
            return 0.0
        now = time.monotonic()
        deadlines = [poll.deadline for polls in self._polls.values() for poll in polls]
        return max(0.0, min([1.0, *(deadline - now for deadline in deadlines)]))

    def _look_for_the_end(self, parked: Viewer | Poll) -> None:
        """Nobody has anything to say on a parked connection; if it is readable, it has ended."""
        connection = self._connections.get(parked)
        if connection is None:
            return
        try:
            if connection.socket.recv(4096) and isinstance(parked, Viewer):
                return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            pass  # it ended with an error
        self._drop(parked, connection)

    # --- viewers ---

    def _add_viewer(self, connection: Connection, viewer: Viewer) -> None:
        if not self._adopt(connection, viewer):
            return
        self._viewers.setdefault(viewer.topic, set()).add(viewer)
        if viewer.noticed is not None:
            viewer.news.extend(
                frame
                for number, _, frame, about in self._notices
                if number > viewer.noticed and (viewer.sees is None or viewer.sees(*about))
            )
        viewer.out = memoryview(connection.dressed(STREAM_HEAD))
        viewer.quiet_since = viewer.asked_at = time.monotonic()

    def _adopt(self, connection: Connection, parked: Viewer | Poll) -> bool:
        try:
            connection.socket.settimeout(0)
            self._selector.register(connection.socket, selectors.EVENT_READ, parked)
        except (OSError, ValueError):
            connection.parked = None
            connection.close()
            return False
        self._connections[parked] = connection
        return True

    def _add_events(self, run_id: str, previous_id: int, stored: list[Event]) -> None:
        if run_id not in self._viewers:
            return
        tail = self._tails.get(run_id)
        if tail is None or tail.last_id < previous_id:
            tail = self._tails[run_id] = _Tail(previous_id)
        known = tail.last_id  # some of them may have been read already
        tail.add([event for event in stored if event.id > known])

    def _read_behind(self) -> None:
        """Read a page of each run that another gateway has written to."""
        for run_id, last_id in list(self._behind.items()):
            tail = self._tails.get(run_id)
            # One that is made later begins with what is stored.
            if tail is not None and tail.last_id < last_id:
                tail.add(
                    self._source.events_after(run_id, tail.last_id, MAX_PAGE_EVENTS, _TAIL_BYTES)
                )
            if tail is None or tail.last_id >= last_id:
                del self._behind[run_id]

    def _drop_viewers(self) -> None:
        for viewer in [each for viewers in self._viewers.values() for each in viewers]:
            self._drop(viewer, self._connections[viewer])

    def _ask_again(self) -> None:
        for viewer in [each for viewers in self._viewers.values() for each in viewers]:
            viewer.asked_at = -math.inf

    def _add_news(self, topic: str, frame: bytes, about: About | None) -> None:
        for viewer in self._viewers.get(topic, ()):
            is_hidden = viewer.sees is not None and (
                topic == ALL_RUNS if about is None else not viewer.sees(*about)
            )
            if is_hidden:
                viewer.asked_at = -math.inf  # a run may have moved out of sight
            elif len(viewer.news) < _MAX_NEWS:
                viewer.news.append(frame)

    def _add_news_everywhere(self, frame: bytes, about: About | None = None) -> None:
        for viewer in [each for viewers in self._viewers.values() for each in viewers]:
            is_seen = about is None or viewer.sees is None or viewer.sees(*about)
            if is_seen and len(viewer.news) < _MAX_NEWS:
                viewer.news.append(frame)

    def _serve_viewers(self, now: float) -> None:
        """Send a page to each in turn, until all have what there is or the time is over."""
        waiting = [viewer for viewers in self._viewers.values() for viewer in viewers]
        while waiting:
            pages: _Pages = {}
            waiting = [viewer for viewer in waiting if self._serve(viewer, pages, now)]
            if time.monotonic() - now >= ROUND_S:
                break
        self._has_more = bool(waiting)

    def _serve(self, viewer: Viewer, pages: _Pages, now: float) -> bool:
        """Send what is under way, and the next page; return whether all has gone, and there may be
        more.
        """
        connection = self._connections[viewer]
        try:
            if now - viewer.asked_at >= _HEARTBEAT_S or now >= viewer.ends_at:
                viewer.asked_at = now
                if not viewer.is_allowed():
                    self._drop(viewer, connection)
                    return False
            if self._send(viewer, connection):
                viewer.out = self._next_for(viewer, pages) or _NOTHING
                if viewer.out:
                    return self._send(viewer, connection)
            if not viewer.out and now - viewer.quiet_since >= _HEARTBEAT_S:
                viewer.out = memoryview(b": still here\n\n")
                self._send(viewer, connection)
        except Exception as error:  # noqa: BLE001 - one viewer, who comes back; not all of them
            if not isinstance(error, OSError):
                logger.warning("a stream ended: %s", error)
            self._drop(viewer, connection)
        return False

    def _send(self, viewer: Viewer, connection: Connection) -> bool:
        """Send what is under way; return whether all of it has gone."""
        while viewer.out:
            try:
                sent = connection.socket.send(viewer.out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._watch_for_room(viewer, connection, wanted=True)
                return False
            viewer.out = viewer.out[sent:]
            viewer.quiet_since = time.monotonic()
        self._watch_for_room(viewer, connection, wanted=False)
        return True

    def _send_on(self, viewer: Viewer, connection: Connection) -> None:
        """Tell a browser to come back, unless it has not taken what it was sent before."""
        try:
            if self._send(viewer, connection):
                connection.socket.send(_MOVE_ON)
        except (OSError, ValueError):
            pass  # it will notice by itself

    def _watch_for_room(self, viewer: Viewer, connection: Connection, *, wanted: bool) -> None:
        if viewer.waits_for_room != wanted:
            viewer.waits_for_room = wanted
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
            self._selector.modify(connection.socket, mask, viewer)

    def _next_for(self, viewer: Viewer, pages: _Pages) -> memoryview | None:
        """Return what the viewer gets next, and move its cursor; viewers share the bytes."""
        if viewer.news:
            news = memoryview(b"".join(viewer.news))
            viewer.news.clear()
            return news
        if viewer.topic == ALL_RUNS:
            return None
        key = (viewer.topic, viewer.cursor)
        if key not in pages:
            pages[key] = self._page_after(*key)
        page, viewer.cursor = pages[key]
        return page

    def _page_after(self, run_id: str, cursor: int) -> tuple[memoryview, int]:
        tail = self._tails.get(run_id)
        if tail is None:
            tail = self._tails[run_id] = _Tail(self._source.last_event_id(run_id))
        if cursor >= tail.floor:
            return memoryview(tail.after(cursor)), max(cursor, tail.last_id)
        events = self._source.events_after(run_id, cursor, MAX_PAGE_EVENTS, _TAIL_BYTES)
        if not events:
            return _NOTHING, tail.floor
        return memoryview(b"".join(map(encode_event, events))), events[-1].id

    # --- polls ---

    def _add_poll(self, connection: Connection, poll: Poll) -> None:
        if self._adopt(connection, poll):
            self._polls.setdefault(poll.topic, set()).add(poll)
            self._answer(poll, is_over=False)  # what was queued while it was on its way here

    def _wake_polls(self, run_id: str) -> None:
        for poll in list(self._polls.get(run_id, ())):
            self._answer(poll, is_over=False)

    def _answer(self, poll: Poll, *, is_over: bool) -> None:
        connection = self._connections[poll]
        try:
            if not poll.out:
                reply = poll.answer(is_over)
                poll.out = memoryview(connection.dressed(reply) if reply else reply)
            if not poll.out:
                return
            while poll.out:
                poll.out = poll.out[connection.socket.send(poll.out) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return  # the rest goes in one of the next rounds
        except Exception as error:  # noqa: BLE001 - the runner asks again
            logger.info("a waiting poll was not answered: %s", error)
            self._drop(poll, connection)
            return
        self._forget(poll, connection)
        poll.release(connection)

    # --- the end of a connection ---

    def _drop(self, parked: Viewer | Poll, connection: Connection) -> None:
        self._forget(parked, connection)
        connection.parked = None
        connection.close()

    def _forget(self, parked: Viewer | Poll, connection: Connection) -> None:
        self._connections.pop(parked, None)
        try:
            self._selector.unregister(connection.socket)
        except (KeyError, ValueError):
            pass  # it has been closed under us
        topic = parked.topic
        if isinstance(parked, Poll):
            polls = self._polls.get(topic, set())
            polls.discard(parked)
            if not polls:
                self._polls.pop(topic, None)
            return
        viewers = self._viewers.get(topic, set())
        viewers.discard(parked)
        if not viewers:
            self._viewers.pop(topic, None)
            self._tails.pop(topic, None)
