"""What a test may ask a gateway for, and what the strict one remembers to judge by."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, TypeVar

from testing.gateways.http_server import Connection, Head
from testing.gateways.wire import STOP_COMMAND, count_refused, parse_json

T = TypeVar("T")

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


class AnyGateway(ABC):
    """What tests do with a gateway, whichever it is: its operator's side, and its record.

    `secret` is its HMAC_SECRET. Thread: any.
    """

    secret: str

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client's GATEWAY_URL is set to."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The port of loopback; the same from the first start to the end."""

    @abstractmethod
    def pause(self) -> None:
        """Go away: connections end at once, new ones are refused. All state is kept."""

    @abstractmethod
    def resume(self) -> None:
        """Come back on the same port."""

    # --- the operator's side ---

    @abstractmethod
    def create_run(self, command: str | None = None) -> Run:
        """Create a run."""

    @abstractmethod
    def queue_command(self, run_id: str, text: str) -> str:
        """Queue a command for the run, and return its id."""

    def stop(self, run_id: str) -> str:
        """Queue what the web page's stop button queues, and return the command's id."""
        return self.queue_command(run_id, STOP_COMMAND)

    # --- the record ---

    @abstractmethod
    def events(self, run_id: str, type: str | None = None) -> list[Event]:
        """Return the stored events in the order of their arrival."""

    @abstractmethod
    def acks(self, run_id: str) -> dict[str, list[Ack]]:
        """Return the acknowledgements by command id; commands without one are left out."""

    @abstractmethod
    def artifacts(self, run_id: str) -> list[Artifact]:
        """Return the stored files in the order of their arrival."""

    @abstractmethod
    def status(self, run_id: str) -> str:
        """Return `pending`, `running`, `done` or `failed`."""

    @abstractmethod
    def exit_code(self, run_id: str) -> int | None:
        """Return the exit code that the last `finished` marker told."""

    @abstractmethod
    def wait_for(self, predicate: Callable[[], T], within_s: float = 30.0) -> T:
        """Wait until `predicate` is true, and return its value.

        It should look at nothing but this gateway. Raises: AssertionError.
        """

    def text(self, run_id: str, type: str = "stdout") -> str:
        """Return the data of one type of events, joined."""
        return "".join(event.data for event in self.events(run_id, type))

    def markers(self, run_id: str, event: str | None = None) -> list[dict[str, Any]]:
        """Return the markers that are JSON objects; with `event`, those of one kind."""
        found = []
        for each in self.events(run_id, "marker"):
            try:
                marker = parse_json(each.data)
            except ValueError:
                continue  # the strict gateway noted it as a violation when it came
            if isinstance(marker, dict) and event in (None, marker.get("event")):
                found.append(marker)
        return found

    def verify_finished(self, run_id: str) -> list[str]:
        """Compare the last `finished` marker with what was received; return the differences.

        A run with a notice of missing output must not call itself whole.

        `refused` is compared with the notices (`error` events "N event(s) of M bytes … refused by
        the gateway") that stand in the place of the events set aside.
        """
        events = self.events(run_id)
        finished = self.markers(run_id, "finished")
        if not finished:
            return ["there is no finished marker"]
        last = max(i for i, each in enumerate(events) if is_finished(each))
        covered = [event for event in events[:last] if event.sequence >= 1]
        data = "".join(event.data for event in covered).encode()
        notices = [event.data for event in covered if event.type == "error"]
        received: dict[str, Any] = {
            "events": len(covered),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "refused": sum(count_refused(notice) for notice in notices),
        }
        is_told = any("missing here: the disk was full" in notice for notice in notices)
        if is_told:
            received["whole"] = False
        return [
            f"{name}: the marker says {finished[-1].get(name)!r}, received were {value!r}"
            for name, value in received.items()
            if finished[-1].get(name) != value
        ]


# --- what the strict gateway works with ------------------------------------------------------


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
