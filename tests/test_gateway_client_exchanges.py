"""One exchange with the gateway, whatever happens to it: how it ends, and when."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Callable

import pytest

from gateway_client import Credentials, GatewayClient, Outcome
from redact import Rules
from testing.gateways.client_bench import OWN, WITHIN_S, as_json, bench, in_thread
from testing.gateways.faults import (
    Action,
    Drip,
    DropBefore,
    Fault,
    HalfAnswer,
    Hang,
    Html,
    Huge,
    JsonError,
    RateLimited,
    Redirect,
    Status,
)
from testing.gateways.http_server import Connection, Head, LoopbackServer
from testing.gateways.strict_gateway import StrictGateway


def encoded(body: bytes, encoding: str = "gzip", status: int = 200) -> Status:
    """Return the answer of a proxy that encodes what it passes on, whatever was asked for."""
    headers = {"Content-Encoding": encoding}
    return Status(status, body, "application/json", headers, after="stored")


@pytest.mark.parametrize(
    ("action", "outcome", "words"),
    [
        (DropBefore(), Outcome.UNKNOWN, "closed without an answer"),
        (DropBefore(reset=True), Outcome.UNKNOWN, "reset"),
        (HalfAnswer(), Outcome.UNKNOWN, "cut off"),
        (Html(503), Outcome.UNKNOWN, "HTTP status 503, not the gateway's own answer"),
        (Status(200, b"x", "text/plain"), Outcome.UNKNOWN, "HTTP status 200"),
        (Huge(), Outcome.UNKNOWN, "longer than 1 MiB"),
        (Huge(with_length=True), Outcome.UNKNOWN, "longer than 1 MiB"),
        (encoded(gzip.compress(as_json(OWN))), Outcome.ACCEPTED, ""),
        (encoded(zlib.compress(as_json(OWN)), "deflate"), Outcome.ACCEPTED, ""),
        (encoded(gzip.compress(as_json({"error": "no"})), status=400), Outcome.REFUSED, "no"),
        (encoded(gzip.compress(as_json(OWN))[:-9]), Outcome.UNKNOWN, "cannot be decoded (gzip)"),
        (encoded(as_json(OWN)), Outcome.UNKNOWN, "cannot be decoded (gzip)"),
        (encoded(as_json(OWN), "br\x1b"), Outcome.UNKNOWN, "cannot be decoded (br\\x1b)"),
        (encoded(gzip.compress(bytes(1 << 21))), Outcome.UNKNOWN, "longer than 1 MiB"),
        (encoded(gzip.compress(b"") * 50_000), Outcome.UNKNOWN, "cannot be decoded (gzip)"),
        (encoded(b""), Outcome.UNKNOWN, "HTTP status 200"),
        (JsonError(500), Outcome.FAILED, "Internal Server Error"),
        (RateLimited(7), Outcome.LIMITED, "Too Many Requests: Rate limit exceeded"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Action) else None,
)
def test_a_fault_on_the_wire_is_an_outcome(action: Action, outcome: Outcome, words: str) -> None:
    """Whatever happens to an exchange, it ends with an outcome and a few plain words."""
    with bench() as b:
        client = b.client()
        b.gateway.faults.add(Fault("event", action))

        reply = b.post(client)

        assert reply.outcome is outcome
        assert words in reply.message
        assert b.post(client).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    "make_action",
    [lambda: Drip("head"), lambda: Drip("body"), Hang],
    ids=["drip-head", "drip-body", "hang"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_an_answer_that_never_ends_is_ended_by_the_deadline(
    make_action: Callable[[], Action], tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that drip do not stretch the time that an exchange may take."""
    with bench(tls=tls) as b:
        if tls:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        client = b.client()
        b.gateway.faults.add(Fault("event", make_action()))

        reply = b.post(client, timeout_s=0.3)

        assert reply.outcome is Outcome.UNKNOWN
        assert reply.message == "it did not answer in time"
        b.gateway.faults.clear()
        assert b.post(client).outcome is Outcome.ACCEPTED


@contextmanager
def peer(answer: Callable[[Connection, Head], None]) -> Iterator[GatewayClient]:
    """Give a client of a server that reads heads and answers by hand."""

    def serve(connection: Connection) -> None:
        while (head := connection.read_head()) is not None:
            answer(connection, head)

    server = LoopbackServer("by-hand", serve, lambda _: None, threading.Condition())
    server.start()
    client = GatewayClient(f"http://127.0.0.1:{server.port}", Credentials("s" * 32))
    try:
        yield client
    finally:
        client.close()
        server.stop()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
        (CHUNKED, b"1"),
        (CHUNKED + b"2;", b"x"),
        (CHUNKED + b"2\r\n[]\r\n0\r\n", b"X: y\r\n"),
        (CHUNKED + b"2\r\n[]\r\n0\r\nX: ", b"y"),
    ],
    ids=["continue", "chunk-size", "chunk-extension", "trailers", "trailer"],
)
def test_an_answer_that_never_ends_fills_no_memory(begins: bytes, goes_on: bytes) -> None:
    """It is broken off, long before its time is over, wherever the libraries look for its end."""
    sent: list[int] = []
    block = goes_on * (65_536 // len(goes_on))

    def answer(connection: Connection, _head: Head) -> None:
        connection.send(begins)
        while sum(sent) < 64 << 20:
            connection.send(block)
            sent.append(len(block))

    with peer(answer) as client:
        reply = client.send(client.commands())

    assert reply.outcome is Outcome.UNKNOWN
    assert sum(sent) < 32 << 20, "what was read, and what the kernel keeps"


def test_a_cookie_is_not_kept() -> None:
    """A gateway could make every request larger than the one before."""
    heads: list[Head] = []

    def answer(connection: Connection, head: Head) -> None:
        heads.append(head)
        cookies = b"".join(b"Set-Cookie: c%d%d=x; Path=/\r\n" % (len(heads), n) for n in range(50))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + cookies + b"\r\n[]")

    with peer(answer) as client:
        for _ in range(2):
            assert client.send(client.commands()).outcome is Outcome.ACCEPTED
        kept = len(client.open().cookies)

    assert (kept, ["cookie" in head.headers for head in heads]) == (0, [False, False])


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_abort_ends_a_hanging_exchange_and_every_later_one(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread ends a long poll at once, and nothing is sent after that."""
    with bench(tls=tls) as b:
        if tls:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        client = b.client()
        b.gateway.faults.add(Fault("commands", Hang()))
        pending = in_thread(lambda: client.send(client.commands(), 60.0), b.stack)
        b.gateway.wait_for(lambda: b.gateway.requests and b.gateway.requests[-1].fault)

        client.abort()
        reply = pending.result(WITHIN_S)

        assert (reply.outcome, reply.message) == (Outcome.UNKNOWN, "the exchange was broken off")
        assert client.send(client.commands()).message == "the exchange was broken off"
        assert len(b.gateway.requests) == 1


def test_abort_reaches_a_connection_that_is_still_being_made() -> None:
    """A host that does not even answer the connection does not hold up the end."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # The queue of a listener that never accepts is full after a few; the next one must wait.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        client = GatewayClient(f"http://127.0.0.1:{address[1]}", Credentials("s" * 32))
        stack.callback(client.close)
        reached = threading.Event()
        watch = client._limits.watch

        def note(sock: socket.socket) -> None:
            watch(sock)
            reached.set()

        client._limits.watch = note  # type: ignore[method-assign]
        pending = in_thread(lambda: client.send(client.commands()), stack)
        assert reached.wait(WITHIN_S)

        client.abort()

        assert pending.result(WITHIN_S).message == "the exchange was broken off"


def test_abort_reaches_a_tls_handshake() -> None:
    """A server that accepts and then says nothing does not hold up the end."""
    came = threading.Event()

    def say_nothing(connection: Connection) -> None:
        came.set()
        connection.socket.recv(10_000)
        connection.socket.recv(10_000)

    server = LoopbackServer("silent", say_nothing, lambda _: None, threading.Condition())
    server.start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        client = GatewayClient(f"https://127.0.0.1:{server.port}", Credentials("s" * 32))
        stack.callback(client.close)
        pending = in_thread(lambda: client.send(client.commands()), stack)
        assert came.wait(WITHIN_S)

        client.abort()

        assert pending.result(WITHIN_S).message == "the exchange was broken off"


def test_a_redirect_is_not_followed() -> None:
    """A signed request goes nowhere but to the gateway that was configured."""
    with bench() as b, StrictGateway() as elsewhere:
        client = b.client()
        for code in (301, 302, 303, 307, 308):
            b.gateway.faults.add(Fault("event", Redirect(f"{elsewhere.url}/api/health", code)))

        outcomes = [b.post(client).outcome for _ in range(5)]

        assert outcomes == [Outcome.UNKNOWN] * 5
        assert elsewhere.requests == []


def test_every_exchange_can_be_watched() -> None:
    """A line tells what was asked, how large it was, and what became of it."""
    with bench() as b:
        lines: list[str] = []
        client = b.client(watch=lines.append)
        command_id = b.gateway.queue_command(b.run.id, "pwd")
        assert client.ask_health().outcome is Outcome.ACCEPTED
        b.gateway.faults.add(Fault("event", Html(502)))
        b.post(client)
        client.send(client.acknowledge(command_id, error=Rules().redact("no")))

    assert re.fullmatch(r"GET /api/health \(0 bytes\): .*, after \d+ ms", lines[0])
    assert re.fullmatch(
        r"POST /api/ingest/event \(\d+ bytes\): HTTP status 502, .*, after \d+ ms", lines[1]
    )
    assert lines[2].startswith(f"POST /api/runs/{b.run.id}/commands/{command_id}/ack (15 bytes): ")
