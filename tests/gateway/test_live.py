"""Following a run from a browser: nothing missing, nothing twice, and nobody in anybody's way."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.serving.live import STREAM_HEAD, Live, Viewer
from gateway.storage.records import Event
from testing.gateways.embedded_gateway import EmbeddedGateway, Stream, open_socket
from testing.gateways.gateway_records import Run
from testing.waiting import eventually


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def send_numbers(gw: EmbeddedGateway, run: Run, first: int, last: int) -> None:
    """Send events that are numbered in their data."""
    gw.send_events(run, map(str, range(first, last + 1)), first)


def numbers(stream: Stream, count: int) -> list[int]:
    """Return the numbers in the next events."""
    return [int(frame.data["data"]) for frame in stream.take(count)]


def test_a_stream_has_what_was_and_what_comes(gw: EmbeddedGateway) -> None:
    """From the beginning, without a gap between the stored and the live part, ids ascending."""
    run = gw.create_run()
    send_numbers(gw, run, 1, 700)  # more than one page

    with gw.follow(f"/api/runs/{run.id}/stream") as stream:
        sender = threading.Thread(target=send_numbers, args=(gw, run, 701, 900))
        sender.start()
        frames = stream.take(900)
        sender.join()

    assert [int(frame.data["data"]) for frame in frames] == list(range(1, 901))
    ids = [frame.id for frame in frames]
    assert ids == [frame.data["id"] for frame in frames]
    assert ids == sorted(ids)  # type: ignore[type-var]


def test_a_reconnect_misses_nothing(tmp_path: Path) -> None:
    """With Last-Event-ID, which wins over `after`, also when the gateway was restarted between."""
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run()
        path = f"/api/runs/{run.id}/stream"
        send_numbers(own, run, 1, 10)
        with own.follow(path) as stream:
            last = stream.take(4)[-1].id
        send_numbers(own, run, 11, 20)
        own.stop()
        own.start()
        send_numbers(own, run, 21, 30)

        with own.follow(f"{path}?after=1", {"Last-Event-ID": str(last)}) as stream:
            assert numbers(stream, 26) == list(range(5, 31))


def test_a_stream_tells_of_the_run_its_commands_and_its_files(gw: EmbeddedGateway) -> None:
    """State, commands with their outcome, and artifacts, as they happen."""
    run = gw.create_run()
    base = f"/api/runs/{run.id}"
    with gw.follow(f"{base}/stream") as stream, gw.follow("/api/stream") as runs:
        gw.send_marker(run, {"event": "started"}, 1)
        assert stream.take(1, "run")[0].data["status"] == "running"
        command = gw.api("POST", f"{base}/stop", {}).json()["id"]
        gw.send("POST", f"{base}/commands/{command}/ack", {"result": "ok"}, run)
        told = [frame.data for frame in stream.take(2, "command")]
        gw.send_artifact(run, "a.log", b"x")
        artifact = stream.take(1, "artifact")[0].data
        listed = [frame.data for frame in runs.take(1, "run")]

    assert [each["status"] for each in told] == ["pending", "done"]
    assert artifact == gw.api("GET", f"{base}/artifacts").json()["artifacts"][0]
    assert (listed[0]["id"], listed[0]["status"]) == (run.id, "running")


def test_a_stream_ends_with_its_session(gw: EmbeddedGateway) -> None:
    """After the logout it goes on for a quarter of a minute at most."""
    session = gw.log_in()
    connection = gw.connect(timeout_s=30)
    connection.request("GET", "/api/stream", headers=session)
    with Stream(connection) as stream:
        ours = {**session, "Origin": f"http://127.0.0.1:{gw.port}"}
        assert gw.request("POST", "/logout", b"", ours).status == 303

        assert stream.next() is None


def test_a_quiet_stream_stays_open(gw: EmbeddedGateway) -> None:
    """A comment now and then tells proxies that somebody is there; what comes later is not lost."""
    run = gw.create_run()
    with gw.follow(f"/api/runs/{run.id}/stream") as stream:
        line = b""
        while not line.startswith(b":"):
            line = stream.response.readline()
            assert line, "the stream ended"
        send_numbers(gw, run, 1, 3)

        assert numbers(stream, 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/stream", {}, 401),
        ("/api/stream", {"Cookie": "a=1; =; session[]=?"}, 401),
        ("/api/stream", {"Authorization": "Bearer of bad news"}, 401),
        ("/api/runs/run_AAAAAAAAAAAA/stream", None, 404),
    ],
    ids=["no-login", "odd-cookie", "wrong-token", "no-such-run"],
)
def test_a_stream_that_is_refused(
    gw: EmbeddedGateway, path: str, headers: dict[str, str] | None, status: int
) -> None:
    """The answer is one sentence as JSON, and the connection is not parked."""
    token = {"Authorization": f"Bearer {gw.admin_token}"}

    answer = gw.request("GET", path, headers=token if headers is None else headers)

    assert answer.status == status
    assert answer.error.endswith(".")


def test_who_guesses_gets_no_stream(tmp_path: Path) -> None:
    """After ten wrong tokens a stream is refused like every other way in."""
    wrong = {"Authorization": "Bearer of bad news"}
    with EmbeddedGateway(tmp_path) as own:
        answers = [own.request("GET", "/api/stream", headers=wrong).status for _ in range(11)]

    assert answers == [401] * 10 + [429]


def test_two_hundred_viewers_see_the_same(gw: EmbeddedGateway) -> None:
    """Two hundred streams and fifty waiting polls at once, and events still get in and out."""
    run = gw.create_run()
    other = gw.create_run()
    poll = f"/api/runs/{other.id}/commands"
    with contextlib.ExitStack() as stack:
        polls: list[http.client.HTTPConnection] = []
        for _ in range(50):
            polls.append(gw.connect())
            stack.callback(polls[-1].close)
            headers = gw.sign("GET", poll, run=other)
            polls[-1].request("GET", f"{poll}?wait=60", headers=headers)
        streams = [stack.enter_context(gw.follow(f"/api/runs/{run.id}/stream")) for _ in range(200)]
        send_numbers(gw, run, 1, 20)
        for stream in streams:
            assert numbers(stream, 20) == list(range(1, 21))
        gw.api("POST", f"/api/runs/{other.id}/stop", {})
        for connection in polls:
            (command,) = json.loads(connection.getresponse().read())
            assert command["command"] == "__STOP__"


def test_a_viewer_who_does_not_read_stops_nobody(gw: EmbeddedGateway) -> None:
    """Its events wait in the store, and it gets all of them when it reads again."""
    run = gw.create_run()
    data = "x" * 500_000
    with gw.follow(f"/api/runs/{run.id}/stream") as lazy:
        for number in range(1, 41):
            assert gw.send_event(run, "stdout", data, number).status == 200
        with gw.follow(f"/api/runs/{run.id}/stream?after=0") as eager:
            assert len(eager.take(40)) == 40
        frames = lazy.take(40)

    assert [frame.data["sequence"] for frame in frames] == list(range(1, 41))


class Backlog:
    """What a viewer reads who is behind: it has no end, and is read as fast as it is sent."""

    def __init__(self, reader: socket.socket) -> None:
        self.is_asked = threading.Event()
        self.has_ended = False
        self._reader = reader

    def events_after(self, run_id: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """Return one more event, unless the test is over."""
        assert (run_id, limit > 0, max_bytes > 0) == ("behind", True, True)
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(1_000_000)
        self.is_asked.set()
        return [] if self.has_ended else [Event(after + 1, "stdout", "x", after + 1, 0.0)]

    def last_event_id(self, run_id: str) -> int:
        """Return the end, which is far away for who is behind."""
        return 2**40 if run_id == "behind" else 0


@dataclass
class Parking:
    """As much of a connection as waits for news."""

    socket: socket.socket
    parked: Any = None

    def dressed(self, reply: bytes) -> bytes:
        """Return what is sent."""
        return reply

    def close(self) -> None:
        """End it."""
        self.socket.close()


def test_who_catches_up_leaves_room_for_others() -> None:
    """A long backlog goes out page by page, and others get theirs between two pages."""
    (behind, its_reader), (other, other_reader) = socket.socketpair(), socket.socketpair()
    its_reader.setblocking(False)
    other_reader.settimeout(10)
    backlog = Backlog(its_reader)
    live = Live(backlog)
    live.start()
    with its_reader, other_reader:
        try:
            live.add_viewer(Parking(behind), Viewer("behind", 0, lambda: True))  # type: ignore[arg-type]
            assert backlog.is_asked.wait(10)
            live.add_viewer(Parking(other), Viewer("other", 0, lambda: True))  # type: ignore[arg-type]

            assert other_reader.recv(len(STREAM_HEAD)) == STREAM_HEAD
        finally:
            backlog.has_ended = True
            live.close()


def test_viewers_who_leave_are_forgotten(gw: EmbeddedGateway) -> None:
    """A closed stream leaves no descriptor behind in the gateway."""
    run = gw.create_run()
    folder = Path(f"/proc/{gw.pid}/fd")
    if not folder.is_dir():
        pytest.skip("there is no /proc to count descriptors in")
    before = len(list(folder.iterdir()))
    for _ in range(30):
        gw.follow(f"/api/runs/{run.id}/stream").close()
    gw.send_event(run, "stdout", "x", 1)

    def they_are_closed() -> None:
        gw.send_event(run, "stdout", "y", 0)  # who is sent something is noticed to be gone
        assert len(list(folder.iterdir())) <= before + 5

    eventually(they_are_closed)


# --- slow clients --------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_slow_clients_do_not_starve_the_others(tmp_path: Path, tls: bool) -> None:
    """More connections than threads that say nothing, or a word now and then (slow loris)."""
    with EmbeddedGateway(tmp_path, tls=tls) as own, contextlib.ExitStack() as stack:
        run = own.create_run()
        silent = [stack.enter_context(open_socket(own.port)) for _ in range(100)]
        if not tls:
            for number, sock in enumerate(silent):
                start = b"GET / HTTP/1.1\r\nX-A: " if number % 2 else b"POST /api/ingest/event HT"
                sock.sendall(start)

        began = time.monotonic()
        answer = own.send_event(run, "stdout", "x", 1)

        assert answer.status == 200
        assert time.monotonic() - began < 10


def test_a_slow_body_ends(gw: EmbeddedGateway) -> None:
    """A body that comes too slowly is not waited for, however often something comes."""
    run = gw.create_run()
    headers = gw.sign("POST", "/api/ingest/event", b"x", run)
    with open_socket(gw.port) as sock:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = ["POST /api/ingest/event HTTP/1.1", "Host: localhost", "Content-Length: 500000"]
        sock.sendall("\r\n".join([*head, *lines, "", ""]).encode())
        deadline = time.monotonic() + 25
        ended: Any = None
        sock.settimeout(0.2)
        while ended is None and time.monotonic() < deadline:
            try:
                sock.sendall(b"x")
                ended = sock.recv(4096)
            except socket.timeout:
                continue
            except OSError as error:
                ended = error

    assert ended is not None
