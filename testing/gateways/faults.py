"""What a gateway, and all that lies between it and its client, can do wrong; as a script of faults.

    gw.faults.add(Fault("event", DropAfter(), every=4))             # every fourth answer is lost
    gw.faults.add(Fault("commands", Html(502), times=3))            # three polls meet a bad proxy
    gw.faults.add(Fault(lambda request: b"poison" in request.body, JsonError(500), every=1))

A fault is chosen after the rate limit was checked and the body was read. The first one in the
script that is due plays; a fault that is not due leaves the request to the next one.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, Literal, Protocol

from testing.gateways.http_server import PeerGoneError, Reply

# What the gateway did with a request before the fault struck:
# "nothing"; took its "nonce" and failed then; or "stored" it as if all were well.
Progress = Literal["nothing", "nonce", "stored"]

# Far more than any client should read, and little enough that a broken one cannot fill the machine.
HUGE_BYTES = 1 << 30

_DRIP_EVERY_S = 0.02


class Request(Protocol):
    """What a predicate may look at: a request whose body has been read."""

    @property
    def endpoint(self) -> str:
        """`health`, `event`, `commands`, `ack`, `artifact`, or `unknown`."""

    @property
    def method(self) -> str:
        """As it came over the wire."""

    @property
    def path(self) -> str:
        """Without the query string."""

    @property
    def body(self) -> bytes:
        """The raw bytes."""

    def json(self) -> Any:
        """The body as JSON, or None."""


class Exchange(Protocol):
    """What an action may do with a request. Thread: the connection's own."""

    @property
    def request(self) -> Request:
        """The request."""

    def handle(self) -> Reply:
        """Let the gateway do its work and return the answer that it would give."""

    def authenticate(self) -> Reply | None:
        """Check the request and spend its nonce; return a refusal, or None."""

    def answer(self, reply: Reply) -> None:
        """Send `reply` as the gateway's own words."""

    def send(self, reply: Reply) -> None:
        """Send `reply` as the words of something between gateway and client."""

    def send_raw(self, status: int | None, data: bytes) -> None:
        """Send bytes as they are."""

    def close(self, *, reset: bool = False) -> None:
        """Close the connection."""

    def wait(self, timeout_s: float | None, until: Callable[[], bool]) -> None:
        """Wait until the condition, the time limit, or the end of the connection."""


class Action(ABC):
    """What happens to one request in place of the ordinary answer."""

    @abstractmethod
    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""


def _refusal_so_far(exchange: Exchange, after: Progress) -> Reply | None:
    """Take the request as far as `after` says; return what stopped it before."""
    if after == "nonce":
        return exchange.authenticate()
    if after == "stored":
        reply = exchange.handle()
        return reply if reply.status >= 400 else None
    return None


@dataclass(frozen=True)
class Status(Action):
    """Something in front of the gateway answers with this status and body."""

    code: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    after: Progress = "nothing"

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        _refusal_so_far(exchange, self.after)
        exchange.send(Reply(self.code, self.body, self.content_type, self.headers))


@dataclass(frozen=True)
class Html(Action):
    """A proxy's error page."""

    code: int = 502
    after: Progress = "nothing"

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        _refusal_so_far(exchange, self.after)
        page = f"<html><head><title>{self.code}</title></head><body>nginx</body></html>\n"
        exchange.send(Reply(self.code, page.encode(), "text/html"))


@dataclass(frozen=True)
class JsonError(Action):
    """The gateway itself refuses: `{"error": …}`, or with a message the longer shape of its 5xx."""

    code: int
    error: str = "Internal Server Error"
    message: str | None = None
    after: Progress = "nothing"

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        refused = _refusal_so_far(exchange, self.after)
        exchange.answer(refused or error_reply(self.code, self.error, self.message))


@dataclass(frozen=True)
class RateLimited(Action):
    """The gateway refuses by its rate limit, whatever the client has sent so far."""

    retry_after_s: int | None = 1
    with_rate_headers: bool = True

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        reply = rate_limited_reply(self.retry_after_s)
        (exchange.answer if self.with_rate_headers else exchange.send)(reply)


@dataclass(frozen=True)
class DropBefore(Action):
    """The connection ends before the gateway has seen the request."""

    reset: bool = False

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        exchange.close(reset=self.reset)


@dataclass(frozen=True)
class DropAfter(Action):
    """The gateway accepts the request and the answer is lost."""

    reset: bool = False

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        exchange.handle()
        exchange.close(reset=self.reset)


@dataclass(frozen=True)
class HalfAnswer(Action):
    """The gateway accepts the request and the answer is cut in the middle of its body."""

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        reply = exchange.handle()
        half = reply.body[: len(reply.body) // 2]
        exchange.send_raw(reply.status, reply.head(len(reply.body)) + half)
        exchange.close()


@dataclass(eq=False)
class Hang(Action):
    """Nothing comes back until `release`, or for `seconds`; then the connection ends."""

    seconds: float | None = None
    after: Progress = "nothing"
    released: threading.Event = field(default_factory=threading.Event, repr=False)

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        _refusal_so_far(exchange, self.after)
        exchange.wait(self.seconds, self.released.is_set)
        exchange.close()


@dataclass(eq=False)
class Delay(Action):
    """The ordinary answer, but `seconds` late, or earlier if released."""

    seconds: float
    after: Progress = "nothing"
    released: threading.Event = field(default_factory=threading.Event, repr=False)

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        reply = exchange.handle() if self.after == "stored" else None
        exchange.wait(self.seconds, self.released.is_set)
        exchange.answer(reply or exchange.handle())


@dataclass(frozen=True)
class Drip(Action):
    """An answer of which one byte comes at a time, for ever, in its head or its body."""

    part: Literal["head", "body"] = "body"
    after: Progress = "nothing"

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        _refusal_so_far(exchange, self.after)
        start = b"HTTP/1.1 200 OK\r\nX-Slow: "
        if self.part == "body":
            start = Reply(200).head(HUGE_BYTES)
        exchange.send_raw(200, start)
        try:
            for _ in range(HUGE_BYTES):
                exchange.send_raw(200, b" ")
                exchange.wait(_DRIP_EVERY_S, lambda: False)
        except PeerGoneError:
            pass  # the client had enough: the right thing to do
        exchange.close()


@dataclass(frozen=True)
class Huge(Action):
    """An answer whose body does not end, as fast as the client reads."""

    with_length: bool = False
    after: Progress = "nothing"

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        _refusal_so_far(exchange, self.after)
        exchange.send_raw(200, Reply(200).head(HUGE_BYTES if self.with_length else None))
        piece = b" " * (1 << 16)
        try:
            for _ in range(HUGE_BYTES // len(piece)):
                exchange.send_raw(200, piece)
        except PeerGoneError:
            pass  # the client had enough: the right thing to do
        exchange.close()


@dataclass(frozen=True)
class Redirect(Action):
    """A redirection, to somewhere a client must not go."""

    location: str = "/redirected"
    code: int = 307

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        exchange.send(Reply(self.code, b"", "text/plain", {"Location": self.location}))


@dataclass(eq=False)
class Fault:
    """When an action plays.

    `where` is an endpoint's name, "*" for every one, or a predicate. `every=n` means each n-th
    request that matches, for ever; `times=n` ends it after n. With neither it plays once, and with
    `every=1` until it is removed.
    """

    where: str | Callable[[Request], bool]
    do: Action
    times: int | None = None
    every: int | None = None
    seen: int = field(default=0, init=False)
    applied: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.times is None and self.every is None:
            self.times = 1

    def is_due(self, request: Request) -> bool:
        """Count the request if it matches, and say whether the action plays."""
        if self.times is not None and self.applied >= self.times:
            return False
        matches = (
            self.where in ("*", request.endpoint)
            if isinstance(self.where, str)
            else self.where(request)
        )
        if not matches:
            return False
        self.seen += 1
        if self.seen % (self.every or 1) != 0:
            return False
        self.applied += 1
        return True


class FaultScript:
    """The faults of one gateway. Thread: any."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Append a fault, and return it."""
        with self._changed:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take a fault out again; what it holds up goes on."""
        with self._changed:
            self._faults.remove(fault)
            self._release(fault)

    def clear(self) -> None:
        """Make the gateway well; what its faults hold up goes on."""
        with self._changed:
            for fault in self._faults:
                self._release(fault)
            self._faults.clear()

    def release(self, fault: Fault) -> None:
        """Let go of the requests that a Hang or Delay holds, now and later."""
        with self._changed:
            self._release(fault)

    def _release(self, fault: Fault) -> None:
        if isinstance(fault.do, (Hang, Delay)):
            fault.do.released.set()
            self._changed.notify_all()

    def due(self, request: Request) -> Fault | None:
        """Return the fault that plays for this request, if any."""
        with self._changed:
            return next((fault for fault in self._faults if fault.is_due(request)), None)


def error_reply(code: int, error: str, message: str | None = None) -> Reply:
    """Return a refusal as the gateway words it."""
    content: dict[str, Any] = {"error": error}
    if message is not None:
        content = {"statusCode": code, "error": error, "message": message}
    return Reply(code, json.dumps(content).encode())


def rate_limited_reply(retry_after_s: int | None) -> Reply:
    """Return the gateway's 429."""
    wait = "some" if retry_after_s is None else str(retry_after_s)
    message = f"Rate limit exceeded, retry in {wait} seconds"
    reply = error_reply(429, "Too Many Requests", message)
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return Reply(429, reply.body, reply.content_type, headers)
