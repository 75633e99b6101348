"""The services that messages go to: their queues, their attempts, and what became of them.

The sending itself is done by another process (`sender`), which is started when there is
something to send, and ends when there has been nothing for a while. Thread: the notifier's, but for
what says otherwise.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Final

logger = logging.getLogger(__name__)

_SENDER: Final = Path(__file__).with_name("sender.py")
_DEADLINE_S: Final = 10.0
# After each failure; the message is given up after the last one.
_PAUSES_S: Final = (5.0, 30.0, 120.0)
# Of one service. The page has what is left out.
_MAX_QUEUED: Final = 50
_IDLE_S: Final = 30.0
# Importing apprise takes a second, and on a busy machine a few.
_START_S: Final = 60.0
_NO_ANSWER: Final = "no answer"
_GIVEN_UP: Final = "; a message was given up"
_WHERE: Final = "https://appriseit.com/services/ lists what can be written"


@dataclass(eq=False)
class Message:
    """One message. `settle` is called once, when a service has it or all have given it up; what is
    not `is_wanted` any more is not sent.
    """

    title: str
    body: str
    link: str
    settle: Callable[[], None]
    is_wanted: Callable[[], bool]
    open_at: int = 0

    def delivered(self) -> None:
        """Take note that a service has it."""
        if self.open_at > 0:
            self.open_at = 0
            self.settle()

    def given_up(self) -> None:
        """Take note that a service will not get it."""
        self.open_at -= 1
        if self.open_at == 0:
            self.settle()


@dataclass(eq=False)
class _Service:
    """One address, without the address."""

    number: int
    name: str
    queue: deque[Message] = field(default_factory=deque)
    attempts: int = 0
    not_before: float = 0.0
    is_sending: bool = False
    problem: str | None = None
    sent_at: float | None = None
    test: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the page shows."""
        return {
            "name": self.name,
            "problem": self.problem,
            "sent_at": self.sent_at,
            "waiting": len(self.queue),
            "test": self.test,
        }


class ServicesError(Exception):
    """Nothing can be sent to what was given; the message is one plain sentence."""


class Services:
    """All of them. `post` gets what the sender says, in a thread of this class.

    Raises: ServicesError, for an address that is none; it says nothing of the address.
    """

    def __init__(
        self, addresses: Sequence[str], post: Callable[[Callable[[], None]], None]
    ) -> None:
        self._addresses = addresses
        self._post = post
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._idle_since = time.monotonic()
        self._is_ready = False
        self._last_id = 0
        # By the id of an order: which service, with which message (None: a test), and until when.
        self._orders: dict[int, tuple[_Service, Message | None, float]] = {}
        self._checked: list[str | None] | None = None
        self._has_answered = threading.Event()
        self._services = [_Service(number, name) for number, name in enumerate(self._check())]

    def _check(self) -> list[str]:
        """Return what each service is called. Blocks while apprise is imported."""
        if not self._addresses:
            return []
        self._start()
        self._has_answered.wait(_START_S)
        names = self._checked
        if names is None:
            self.close()
            raise ServicesError(
                "it needs the package apprise, which does not start; "
                "install it with pip, or remove the setting"
            )
        for number, name in enumerate(names, 1):
            if name is None:
                self.close()
                which = f"address {number} of {len(names)}" if len(names) > 1 else "its address"
                raise ServicesError(
                    f"{which} is none that apprise can send to; write one such as "
                    f"ntfys://ntfy.example.org/topic ({_WHERE})"
                )
        known = [name or "" for name in names]
        return [
            name if known.count(name) == 1 else f"{name} {known[: number + 1].count(name)}"
            for number, name in enumerate(known)
        ]

    def __bool__(self) -> bool:
        return bool(self._services)

    @property
    def is_busy(self) -> bool:
        """Whether a service has something that it has not answered yet."""
        return bool(self._orders)

    def to_json(self) -> list[dict[str, Any]]:
        """Return what the page shows of each."""
        return [each.to_json() for each in self._services]

    # --- messages ---

    def put(self, message: Message) -> None:
        """Queue a message for all of them."""
        message.open_at = len(self._services)
        for service in self._services:
            if len(service.queue) >= _MAX_QUEUED:
                service.queue.popleft().given_up()
                service.attempts = 0
            service.queue.append(message)

    def test(self, title: str, body: str, link: str, now: float) -> None:
        """Send a message to each, now and once; what becomes of it is told in `to_json`."""
        for service in self._services:
            if service.test is None or service.test["state"] != "sending":
                service.test = {"state": "sending", "problem": None, "at": time.time()}
                self._send(service, None, (title, body, link), now)

    def step(self, now: float) -> bool:
        """Send what is due, and give up waiting where it took too long; return whether anything
        that the page shows has changed.
        """
        changed = False
        for its_id, (service, message, deadline) in list(self._orders.items()):
            if now >= deadline:
                del self._orders[its_id]
                self._settle(service, message, _NO_ANSWER)
                changed = True
        if changed and not self._orders:
            self.close()  # with what still waits in it
        for service in self._services:
            if service.queue and not service.is_sending and now >= service.not_before:
                self._send_next(service, now)
        if self._orders:
            self._idle_since = now
        elif now - self._idle_since >= _IDLE_S:
            self.close()
        return changed

    def _send_next(self, service: _Service, now: float) -> None:
        message = service.queue[0]
        if message.is_wanted():
            service.is_sending = True
            self._send(service, message, (message.title, message.body, message.link), now)
        else:  # it was answered while the service was away
            service.queue.popleft()
            service.attempts = 0
            message.given_up()

    def next_step_s(self, now: float) -> float:
        """Return in how many seconds there may be something to do."""
        moments = [deadline for _, _, deadline in self._orders.values()]
        moments += [
            each.not_before for each in self._services if each.queue and not each.is_sending
        ]
        if self._process is not None and not self._orders:
            moments.append(self._idle_since + _IDLE_S)
        return max(0.0, min(moments, default=now + 3600) - now)

    def _settle(self, service: _Service, message: Message | None, problem: str) -> None:
        """Take note of how an attempt ended."""
        if not problem:
            service.problem = None
            service.sent_at = time.time()
            service.not_before = 0.0  # also for what waits, after a test that went well
        if message is None:
            state = "failed" if problem else "sent"
            service.test = {"state": state, "problem": problem or None, "at": time.time()}
            return
        service.is_sending = False
        if not service.queue or service.queue[0] is not message:
            return  # it was left out meanwhile, for newer ones
        if not problem:
            service.queue.popleft()
            service.attempts = 0
            message.delivered()
        elif service.attempts < len(_PAUSES_S):
            service.problem = problem
            service.not_before = time.monotonic() + _PAUSES_S[service.attempts]
            service.attempts += 1
        else:
            service.problem = f"{problem}{_GIVEN_UP}"
            service.queue.popleft()
            service.attempts = 0
            message.given_up()

    # --- the sender ---

    def _send(
        self, service: _Service, message: Message | None, text: tuple[str, str, str], now: float
    ) -> None:
        self._last_id += 1
        # The time for imports does not count against the service.
        deadline_s = _DEADLINE_S if self._process and self._is_ready else _START_S
        self._orders[self._last_id] = (service, message, now + deadline_s)
        title, body, link = text
        order = {"id": self._last_id, "number": service.number}
        try:
            process = self._process or self._start()
            _write(process, {**order, "title": title, "body": body, "link": link})
        except OSError as error:
            logger.warning("cannot start what sends notifications: %s", error.strerror)

    def _start(self) -> subprocess.Popen[str]:
        options = ["-I"]
        if sys.pycache_prefix:
            options += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
        self._is_ready = False
        self._process = process = subprocess.Popen(
            [sys.executable, *options, str(_SENDER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where plugins may name addresses
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the gateway, which ends it
        )
        _write(process, {"path": sys.path, "addresses": self._addresses})
        self._reader = threading.Thread(
            target=self._read, args=(process,), name="gateway-notify-answers", daemon=True
        )
        self._reader.start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Hand on what the sender says. Thread: of its own."""
        with suppress(ValueError):
            for line in process.stdout or ():
                said = json.loads(line)
                if "names" in said:
                    self._checked = said["names"]
                    self._has_answered.set()
                self._post(partial(self._take, process, said))
        self._has_answered.set()
        self._post(partial(self._take_end, process))

    def _take(self, process: subprocess.Popen[str], said: dict[str, Any]) -> None:
        if "names" in said:
            self._is_ready = process is self._process
            until = time.monotonic() + _DEADLINE_S
            self._orders = {key: (*order[:2], until) for key, order in self._orders.items()}
            return
        found = self._orders.pop(said["id"], None)
        if found is not None:  # else it came after the deadline
            self._settle(found[0], found[1], said["problem"])

    def _take_end(self, process: subprocess.Popen[str]) -> None:
        """The sender has ended by itself: what was under way is tried again by a new one."""
        if self._process is process:
            self.close()
            orders, self._orders = self._orders, {}
            for service, message, _ in orders.values():
                self._settle(service, message, _NO_ANSWER)

    def close(self) -> None:
        """End the sender. Does not wait for a service."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(2)
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _write(process: subprocess.Popen[str], content: dict[str, Any]) -> None:
    # A pipe holds far more than all messages that are under way at once.
    if process.stdin is not None:
        process.stdin.write(f"{json.dumps(content)}\n")
        process.stdin.flush()
