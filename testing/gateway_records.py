"""What the strict gateway keeps: what a test may ask for, and what it remembers to judge by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from testing.http_server import Connection, Head
from testing.wire import parse_json

# --- what a test sees ------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What the operator copies from the web page: the run's id and its capability token."""

    id: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Event:
    """One stored event. `received_at` is `time.monotonic()`, comparable between processes."""

    type: str
    data: str
    sequence: int
    received_at: float


@dataclass(frozen=True)
class Ack:
    """One acknowledgement of a command."""

    result: str | None
    error: str | None


@dataclass(frozen=True)
class Artifact:
    """One stored file."""

    name: str
    data: bytes = field(repr=False)
    content_type: str = ""


@dataclass(eq=False)
class RequestRecord:
    """One request that arrived, whatever became of it.

    `handled` is the status that the gateway decided on, None if it never saw the request; `status`
    is the one that was sent, None if no answer was. They differ only under a fault. `at` is
    `time.monotonic()`. Header names are in lower case.
    """

    endpoint: str
    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)
    at: float
    body_bytes: int = 0
    body_sha256: str = ""
    handled: int | None = None
    status: int | None = None
    fault: str | None = None

    @property
    def nonce(self) -> str:
        """The request's nonce, or an empty text."""
        return self.headers.get("x-nonce", "")


# --- what the gateway works with -------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request whose body has been read."""

    endpoint: str
    ids: tuple[str, ...]
    head: Head
    body: bytes
    content_type: str
    record: RequestRecord
    connection: Connection

    @property
    def method(self) -> str:
        """As it came over the wire."""
        return self.head.method

    @property
    def path(self) -> str:
        """Without the query string, as it came over the wire."""
        return self.head.path

    def json(self) -> Any:
        """The body as JSON, or None."""
        try:
            return parse_json(self.body)
        except ValueError:
            return None

    def header(self, name: str) -> str:
        """Return the header's value with its bytes kept, or an empty text."""
        value = self.head.headers.get(name, "")
        return value.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


@dataclass
class Command:
    """One queued command; it is handed out until it has an ack."""

    id: str
    text: str
    created_at: int
    acks: list[Ack] = field(default_factory=list)


@dataclass
class RunState:
    """One run and all that was sent for it. `bodies` is by sequence, for idempotent ingest."""

    run: Run
    command: str
    status: str = "pending"
    exit_code: int | None = None
    started: int = 0
    finished: int = 0
    highest_sequence: int = 0
    events: list[Event] = field(default_factory=list)
    bodies: dict[int, set[bytes]] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)


@dataclass
class NonceUse:
    """The request that spent a nonce. `answered` is None as long as no answer was sent whole."""

    at: float
    signature: str
    answered: int | None = None


def is_finished(event: Event) -> bool:
    """Whether the event is a `finished` marker."""
    if event.type != "marker":
        return False
    try:
        marker = parse_json(event.data)
    except ValueError:
        return False
    return isinstance(marker, dict) and marker.get("event") == "finished"
