"""Strangers who are slow, many or large: the page is quick all the same, and runners are served."""

from __future__ import annotations

import contextlib
import itertools
import random
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.embedded_gateway import Answer, EmbeddedGateway, multipart, open_socket
from testing.gateways.gateway_records import Run
from testing.waiting import eventually

EVENT = "/api/ingest/event"
ARTIFACT = "/api/ingest/artifact"
JSON = "Content-Type: application/json"
# The page answers in milliseconds. A thread that a stranger holds is free again after 10 s.
QUICK_S = 9.0


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def head(method: str, path: str, *lines: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def lines_of(headers: dict[str, str]) -> list[str]:
    """Return headers as they are sent."""
    return [f"{name}: {value}" for name, value in headers.items()]


def forged(gw: EmbeddedGateway, path: str, kind: str = "application/json") -> list[str]:
    """Return what a stranger can say: everything but the secrets is right."""
    stranger = Run(f"run_{'a' * 12}", "0" * 64)
    return lines_of(gw.sign("POST", path, run=stranger, content_type=kind, secret="wrong"))


class Siege:
    """Connections that keep sending a little, or take nothing, until the block is left.

    They begin with one of `firsts` in turn. Each is opened again when it was closed, as somebody
    with bad intentions would.
    """

    def __init__(
        self, gw: EmbeddedGateway, firsts: Sequence[bytes], rate: int, *, count: int = 150
    ) -> None:
        self._port = gw.port
        self._firsts = itertools.cycle(firsts)
        self._piece = b"x" * (rate // 10)
        self._count = count
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._besiege)
        self.opened = 0

    def __enter__(self) -> Siege:
        self._thread.start()
        eventually(lambda: _at_least(self.opened, self._count), 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)

    def _besiege(self) -> None:
        sockets: list[socket.socket] = []
        while not self._is_over.wait(0.1):
            sockets = [each for each in sockets if self._feed(each)]
            while len(sockets) < self._count:
                with contextlib.suppress(OSError):
                    sockets.append(self._open())
        for each in sockets:
            each.close()

    def _open(self) -> socket.socket:
        # Many addresses, where the machine has them: a limit for each does not help against that.
        source = f"127.0.0.{random.randint(2, 250)}"
        try:
            raw = socket.create_connection(("127.0.0.1", self._port), 20, (source, 0))
        except OSError:
            raw = open_socket(self._port)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.sendall(next(self._firsts))
        raw.setblocking(False)
        self.opened += 1
        return raw

    def _feed(self, raw: socket.socket) -> bool:
        try:
            if self._piece:
                raw.send(self._piece)
        except BlockingIOError:
            pass  # it is not read, which is an answer too
        except OSError:
            raw.close()
            return False
        return True


def _at_least(number: int, wanted: int) -> None:
    assert number >= wanted


def assert_quick(gw: EmbeddedGateway, run: Run) -> None:
    """The login page, the list of runs and an event: each is answered soon, several times."""
    actions: list[Callable[[], Answer]] = [
        lambda: gw.request("GET", "/login"),
        lambda: gw.api("GET", "/api/runs"),
        lambda: gw.send_event(run, "stdout", "x"),
    ]
    for _ in range(3):
        for action in actions:
            # Held threads would be slow each time, as the siege takes them again.
            assert any(took_s(action) < QUICK_S for _ in range(3))
        time.sleep(0.7)  # the siege goes on; what it holds grows


def took_s(action: Callable[[], Answer]) -> float:
    """Return how long an answer took."""
    began = time.monotonic()
    assert action().status == 200
    return time.monotonic() - began


# More connections of each kind than the gateway has threads, and together no more than it keeps.
EACH = 70


@pytest.mark.parametrize(
    ("rate", "targets"),
    [
        (40, ("head", "small event", "chunked")),
        (40_000, ("head", "event", "artifact")),
        (40_000, ("login", "api", "static")),
    ],
    ids=["slowly", "to the wire", "to the page"],
)
def test_a_siege_leaves_the_page_quick(
    gw: EmbeddedGateway, rate: int, targets: Sequence[str]
) -> None:
    """Heads and bodies that come slowly, or as fast as they may, to whatever reads one."""
    form = "Content-Type: application/x-www-form-urlencoded"
    long = "Content-Length: 10000000"
    kind = "multipart/form-data; boundary=x"
    firsts = {
        "head": b"GET / HTTP/1.1\r\nX-A: ",
        "event": head("POST", EVENT, *forged(gw, EVENT), long),
        "small event": head("POST", EVENT, *forged(gw, EVENT), "Content-Length: 60000"),
        "artifact": head("POST", ARTIFACT, *forged(gw, ARTIFACT, kind), long),
        "login": head("POST", "/login", form, long),
        "chunked": head("POST", EVENT, *forged(gw, EVENT), "Transfer-Encoding: chunked")
        + b"1000000\r\n",
        "api": head("POST", "/api/runs", JSON, long),
        "static": head("POST", "/static/style.css", JSON, long),
    }
    run = gw.create_run()
    chosen = [firsts[target] for target in targets]
    with Siege(gw, chosen, rate, count=EACH * len(chosen)):
        assert_quick(gw, run)


def test_who_takes_no_answer_holds_no_thread(tmp_path: Path) -> None:
    """Many answers of many kilobytes that stay unread: the others get theirs."""
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run()
        firsts = [head("GET", "/login") * 40, head("GET", "/static/style.css") * 10]
        with Siege(own, firsts, 0, count=2 * EACH):
            assert_quick(own, run)


def test_slow_handshakes_leave_the_page_quick(tmp_path: Path) -> None:
    """TLS that never comes to a request, from more connections than there are threads."""
    silent, hello = b"", b"\x16\x03\x01\x02\x00\x01\x00"
    with EmbeddedGateway(tmp_path, tls=True) as own:
        run = own.create_run()
        with Siege(own, [silent, hello], 0, count=2 * EACH):
            assert_quick(own, run)


def test_a_slow_runner_is_served_in_a_siege(gw: EmbeddedGateway) -> None:
    """Its upload takes seconds, and arrives whole, while strangers hold all that they can."""
    run = gw.create_run()
    kind, body = multipart("a.bin", random.Random(1).randbytes(700_000))
    signed = gw.sign("POST", ARTIFACT, run=run, content_type=kind)
    first = head("POST", EVENT, *forged(gw, EVENT), "Content-Length: 60000")
    with Siege(gw, [first], 40), contextlib.closing(open_socket(gw.port)) as raw:
        raw.sendall(head("POST", ARTIFACT, *lines_of(signed), f"Content-Length: {len(body)}"))
        for start in range(0, len(body), 20_000):
            raw.sendall(body[start : start + 20_000])
            time.sleep(0.2)
        answer = raw.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 200 "), answer
    (artifact,) = gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
    assert artifact["size"] == 700_000


# --- judged by the head --------------------------------------------------------------------------


def answer_to_head(gw: EmbeddedGateway, first: bytes) -> bytes:
    """Send a head without its body; return what is answered."""
    with contextlib.closing(open_socket(gw.port)) as raw:
        raw.sendall(first)
        raw.settimeout(QUICK_S)
        return raw.recv(65_536)


@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [EVENT, "/api/runs/{run}/commands/c1/ack"])
def test_a_large_body_is_judged_by_its_head(gw: EmbeddedGateway, path: str, framing: str) -> None:
    """What is wrong with a head is answered before anything of the body is there."""
    run = gw.create_run()
    path = path.replace("{run}", run.id)
    good = gw.sign("POST", path, b"", run)
    for wrong, status in (
        ({"X-Signature": ""}, 401),
        ({"X-Nonce": ""}, 401),
        ({"X-Timestamp": str(int(time.time()) - 1_000)}, 401),
        ({"X-Timestamp": "x"}, 401),
        ({"X-Capability-Token": "0" * 64}, 403),
        ({"X-Run-Id": "run_000000000000"}, 403),
        ({"X-Run-Id": ""}, 400),
        ({"Content-Type": "text/plain"}, 415),
    ):
        answer = answer_to_head(gw, head("POST", path, *lines_of({**good, **wrong}), framing))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (wrong, answer)


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    [
        (EVENT, (JSON, "Content-Length: 10485761"), 413),
        (ARTIFACT, ("Content-Type: multipart/form-data; boundary=x", "Content-Length: 65537"), 401),
        ("/login", ("Content-Length: 65537",), 413),
        ("/login", ("Transfer-Encoding: chunked",), 413),
        ("/login", ("Content-Length: 100000000000000",), 413),
        ("/login", ("Content-Length: +9",), 413),
        ("/login", ("Content-Length: 1_0",), 413),
        ("/logout", ("Content-Length: 65537",), 303),
        ("/api/runs", (JSON, "Content-Length: 65537"), 401),
        ("/api/login-codes", (JSON, "Transfer-Encoding: chunked"), 401),
    ],
)
def test_a_stranger_may_not_send_much(
    gw: EmbeddedGateway, path: str, lines: Sequence[str], status: int
) -> None:
    """The answer comes at once, and not when the body does."""
    answer = answer_to_head(gw, head("POST", path, *lines))

    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer


def test_a_login_of_64_kilobytes_is_read(gw: EmbeddedGateway) -> None:
    """That is the limit: a body of that size is looked at, and one byte more is not."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"token={gw.admin_token}&x=".encode()

    assert gw.request("POST", "/login", body.ljust(65_536, b"a"), form).status == 200
    assert gw.request("POST", "/login", body.ljust(65_537, b"a"), form).status == 413


def test_a_refused_client_that_sends_first_sees_why(gw: EmbeddedGateway) -> None:
    """It sends all of its body before it looks: the answer is still there."""
    body = b" " * 3_000_000
    for path, status in ((EVENT, 403), ("/login", 413), ("/api/runs", 401)):
        lines = forged(gw, path) if path == EVENT else [JSON]
        with contextlib.closing(open_socket(gw.port)) as raw:
            raw.sendall(head("POST", path, *lines, f"Content-Length: {len(body)}"))
            raw.sendall(body)
            assert raw.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())


# --- many connections, long cookies --------------------------------------------------------------


def test_connections_without_end_leave_room(gw: EmbeddedGateway) -> None:
    """Beyond a number the oldest that wait are closed; who asks something is answered."""
    folder = Path(f"/proc/{gw.pid}/fd")
    run = gw.create_run()
    with contextlib.ExitStack() as stack:
        for number in range(900):
            raw = stack.enter_context(contextlib.closing(open_socket(gw.port)))
            if number % 3 == 0:
                raw.sendall(b"GET /login HT")
            if number % 3 == 1:  # an idle connection, which was answered
                raw.sendall(head("GET", "/api/health"))
        assert_quick(gw, run)

        def only_some_are_kept() -> None:
            assert len(list(folder.iterdir())) < 256 + 100

        if folder.is_dir():
            eventually(only_some_are_kept)


def test_a_cookie_takes_no_time(gw: EmbeddedGateway) -> None:
    """The longest head of the worst cookies is read as quickly as any other."""
    name = f"gateway-{gw.port}"
    for cookie in ('a="' + "\\" * 30_000, "=;" * 15_000, f"{name}=;" * 2_000, '\\"' * 15_000):
        began = time.monotonic()
        for path in ("/", "/api/runs", "/api/stream"):
            assert gw.request("GET", path, headers={"Cookie": cookie}).status in (303, 401)
        assert time.monotonic() - began < QUICK_S


# --- who leaves in mid-answer --------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_who_leaves_in_mid_answer_is_no_news(tmp_path: Path, tls: bool) -> None:
    """A browser that is closed resets its connections: nothing is written into the terminal."""
    with EmbeddedGateway(tmp_path, tls=tls) as own:
        run = own.create_run()
        uploaded = own.send_artifact(run, "a.bin", bytes(1_000_000)).json()["artifactId"]
        for number in range(1, 5):
            own.send_event(run, "stdout", "x" * 250_000, number)
        token = f"Authorization: Bearer {own.admin_token}"
        base = f"/api/runs/{run.id}"
        targets = (f"/api/artifacts/{uploaded}", f"{base}/events?after=0", f"{base}/stream?after=0")
        for path in (*targets, "/static/style.css"):
            for read in (0, 1, 4_000):
                leave(own, head("GET", path, token), read, tls=tls)
        leave(own, head("POST", "/api/runs", token, JSON, "Content-Length: 900000"), 0, tls=tls)
        upload = own.sign("POST", ARTIFACT, run=run, content_type="multipart/form-data; boundary=x")
        leave(own, head("POST", ARTIFACT, *lines_of(upload), "Content-Length: 900000"), 0, tls=tls)

        assert own.api("GET", "/api/runs").status == 200
        assert own.stop() == 0

    assert "Traceback" not in own.log
    assert "Error" not in own.log


def leave(own: EmbeddedGateway, sent: bytes, read: int, *, tls: bool) -> None:
    """Ask for something, read so much of the answer, and reset the connection."""
    raw: Any = open_socket(own.port)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = context.wrap_socket(raw)
    raw.sendall(sent)
    while read > 0:
        piece = raw.recv(min(read, 65_536))
        if not piece:
            break
        read -= len(piece)
    if not read:
        wait_for_an_answer(raw)
    raw.close()


def wait_for_an_answer(raw: socket.socket) -> None:
    """Wait a moment for something to read, so that the answer is under way."""
    with selectors.DefaultSelector() as selector:
        selector.register(raw, selectors.EVENT_READ)
        selector.select(0.3)
