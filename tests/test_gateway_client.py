"""One exchange with the gateway: what an answer means, when it ends, and whom it trusts."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import socket
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import certifi
import pytest
import requests.adapters  # noqa: F401 - before a test takes PySocks away, which is looked for once
from hypothesis import given
from hypothesis import strategies as st

import gateway_transport
from gateway_client import (
    Clock,
    Credentials,
    GatewayClient,
    MultipartFile,
    Outcome,
    RateLimit,
    Reply,
    is_confidential,
    is_loopback,
    lists_commands,
    parse_reply,
    says_healthy,
    says_ok,
)
from gateway_transport import GatewayError, PinStore
from journal.events import encode_event
from redact import Rules, printable
from testing.gateways.certificates import self_signed
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
from testing.gateways.http_server import Connection, Head, LoopbackServer, PeerGoneError
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.strict_gateway import Run, StrictGateway
from testing.tables import each_row

FAR_NAME = "gateway.test"
WITHIN_S = 20.0

# --- what an answer means --------------------------------------------------------------------

OWN = {"ok": True, "eventId": 7}
HTML = b"<html><head><title>oops</title></head></html>"


def as_json(content: Any) -> bytes:
    """Return what the gateway would send."""
    return json.dumps(content).encode()


@each_row(
    ("status", "raw", "outcome"),
    [
        pytest.param(200, as_json(OWN), Outcome.ACCEPTED, id="ok"),
        pytest.param(200, HTML, Outcome.UNKNOWN, id="200-html"),
        pytest.param(200, b"", Outcome.UNKNOWN, id="200-empty"),
        pytest.param(200, as_json(OWN)[:-3], Outcome.UNKNOWN, id="200-cut"),
        pytest.param(200, as_json({"ok": False}), Outcome.UNKNOWN, id="200-not-ok"),
        pytest.param(200, as_json({"ok": "true"}), Outcome.UNKNOWN, id="200-ok-is-text"),
        pytest.param(200, b"[]", Outcome.UNKNOWN, id="200-list-for-an-event"),
        pytest.param(200, b'{"status":"ok"}', Outcome.UNKNOWN, id="200-load-balancer"),
        pytest.param(200, b"[" * 100_000, Outcome.UNKNOWN, id="200-nested-too-deep"),
        pytest.param(200, b"9" * 100_000, Outcome.UNKNOWN, id="200-endless-number"),
        pytest.param(201, as_json(OWN), Outcome.UNKNOWN, id="201"),
        pytest.param(204, b"", Outcome.UNKNOWN, id="204"),
        pytest.param(301, b"", Outcome.UNKNOWN, id="301"),
        pytest.param(307, as_json(OWN), Outcome.UNKNOWN, id="307"),
        pytest.param(400, as_json({"error": "Run ID required"}), Outcome.REFUSED, id="400"),
        pytest.param(400, HTML, Outcome.UNKNOWN, id="400-html"),
        pytest.param(
            401,
            as_json({"error": "Nonce already used (replay attack detected)"}),
            Outcome.REPLAYED,
            id="401-nonce",
        ),
        pytest.param(
            401,
            as_json({"error": "Request timestamp out of allowed range"}),
            Outcome.SKEWED,
            id="401-timestamp",
        ),
        pytest.param(
            401, as_json({"error": "Invalid signature"}), Outcome.WRONG_SECRET, id="401-signature"
        ),
        pytest.param(
            401,
            as_json({"error": "Missing authentication headers"}),
            Outcome.WRONG_SECRET,
            id="401-missing",
        ),
        pytest.param(401, as_json({"error": "login required"}), Outcome.UNKNOWN, id="401-login"),
        pytest.param(401, HTML, Outcome.UNKNOWN, id="401-html"),
        pytest.param(
            403,
            as_json({"error": "Invalid capability token for run"}),
            Outcome.WRONG_TOKEN,
            id="403-token",
        ),
        pytest.param(
            403,
            as_json({"error": "Capability token mismatch"}),
            Outcome.WRONG_TOKEN,
            id="403-mismatch",
        ),
        pytest.param(403, as_json({"error": "blocked"}), Outcome.UNKNOWN, id="403-firewall"),
        pytest.param(403, HTML, Outcome.UNKNOWN, id="403-html"),
        pytest.param(404, as_json({"error": "Not Found"}), Outcome.UNKNOWN, id="404"),
        pytest.param(406, as_json({"error": "Not Acceptable"}), Outcome.REFUSED, id="406"),
        pytest.param(413, as_json({"error": "File too large"}), Outcome.REFUSED, id="413"),
        pytest.param(413, HTML, Outcome.REFUSED, id="413-html"),
        pytest.param(413, b"", Outcome.REFUSED, id="413-empty"),
        pytest.param(415, as_json({"error": "Unsupported"}), Outcome.REFUSED, id="415"),
        pytest.param(429, as_json({"error": "Too Many"}), Outcome.LIMITED, id="429"),
        pytest.param(429, HTML, Outcome.LIMITED, id="429-html"),
        pytest.param(429, b"", Outcome.LIMITED, id="429-empty"),
        pytest.param(
            500, as_json({"statusCode": 500, "error": "Internal"}), Outcome.FAILED, id="500"
        ),
        pytest.param(500, HTML, Outcome.UNKNOWN, id="500-html"),
        pytest.param(500, as_json({"error": {}}), Outcome.UNKNOWN, id="500-other-json"),
        pytest.param(500, as_json(["error"]), Outcome.UNKNOWN, id="500-list"),
        pytest.param(502, HTML, Outcome.UNKNOWN, id="502-html"),
        pytest.param(502, as_json({"error": "Bad Gateway"}), Outcome.UNKNOWN, id="502-json"),
        pytest.param(503, HTML, Outcome.UNKNOWN, id="503-html"),
        pytest.param(504, HTML, Outcome.UNKNOWN, id="504-html"),
        pytest.param(522, HTML, Outcome.UNKNOWN, id="522-html"),
    ],
)
def test_only_the_gateways_own_words_count(status: int, raw: bytes, outcome: Outcome) -> None:
    """An answer decides about an event only if it has the shape of the gateway's own."""
    assert parse_reply(status, {}, raw).outcome is outcome


@pytest.mark.parametrize(
    ("raw", "answers"),
    [
        (b'{"ok":true}', {says_ok}),
        (b'{"status":"ok","timestamp":1}', {says_healthy}),
        (b"[]", {lists_commands}),
        (b'[{"id":"c","command":"pwd"}]', {lists_commands}),
        (b"null", set()),
        (b"{}", set()),
        (b"true", set()),
    ],
)
def test_a_200_counts_for_the_endpoint_that_answers_so(
    raw: bytes, answers: set[Callable[[Any], bool]]
) -> None:
    """What one endpoint says in a 200 is no answer of another one."""
    for is_answer in (says_ok, says_healthy, lists_commands):
        expected = Outcome.ACCEPTED if is_answer in answers else Outcome.UNKNOWN
        assert parse_reply(200, {}, raw, is_answer=is_answer).outcome is expected


@each_row(
    ("headers", "expected"),
    [
        (("100", "42", "17"), RateLimit(100, 42, 17.0)),
        (("100", "42", "1.5"), RateLimit(100, 42, 1.5)),
        (("100", "42", "1000000"), RateLimit(100, 42, 3600.0)),
        (("100", "42", "1700000000"), None),  # somebody else's: a date, not a duration
        (("0", "0", "1"), None),
        (("-1", "1", "1"), None),
        (("100", "-1", "1"), None),
        (("100", "1", "-1"), None),
        (("nan", "1", "1"), None),
        (("100", "inf", "1"), None),
        (("100", "1", "soon"), None),
        (("100, 100", "1", "1"), None),
        (("1e400", "1", "1"), None),
        (("", "", ""), None),
        (("100", None, "1"), None),
    ],
)
def test_absurd_rate_headers_are_no_rate_headers(
    headers: tuple[str | None, ...], expected: RateLimit | None
) -> None:
    """Only three sane numbers steer the pace."""
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    given = {name: value for name, value in zip(names, headers) if value is not None}

    assert parse_reply(200, given, as_json(OWN)).rate_limit == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-1", None), ("1e99", None), ("nan", None), ("tomorrow", None)],
)
def test_retry_after_is_a_sane_number_or_nothing(text: str, seconds: float | None) -> None:
    """A wait that the gateway asks for is a number of seconds that can be waited."""
    assert parse_reply(429, {"retry-after": text}, b"").retry_after_s == seconds


def test_the_date_header_tells_the_clocks_difference() -> None:
    """The size of a skew is this machine's time less the gateway's."""
    headers = {"date": "Tue, 14 Nov 2023 22:13:20 GMT"}

    reply = parse_reply(401, headers, b"{}", now=1_700_000_400)

    assert reply.clock_ahead_s == 400.0


@given(st.text() | st.sampled_from(["", " ", "Tue", "Tue, 14 Nov 99999 22:13:20 GMT", "1 2 3 4 5"]))
def test_an_absurd_date_is_no_date(text: str) -> None:
    """No text in a Date header raises; what cannot be read says nothing."""
    ahead_s = parse_reply(200, {"date": text}, b"{}").clock_ahead_s

    assert ahead_s is None or isinstance(ahead_s, float)


@given(
    st.integers(100, 599), st.binary(), st.dictionaries(st.sampled_from(["date", "x"]), st.text())
)
def test_no_answer_raises(status: int, raw: bytes, headers: dict[str, str]) -> None:
    """Whatever comes back is turned into an outcome with a message that can be shown."""
    reply = parse_reply(status, headers, raw)

    assert reply.message.isprintable()
    assert 0 < len(reply.message) <= 300


def test_the_gateways_text_is_shown_and_not_obeyed() -> None:
    """Control characters of a hostile answer are visible, and a long one is bounded."""
    hostile = "\x1b]0;title\x07\r\n\u202e" + "x" * 1_000_000

    reply = parse_reply(400, {}, as_json({"error": hostile}))

    assert reply.message.startswith(r"\x1b]0;title\x07\r\n\u202e")
    assert reply.message.isprintable()
    assert len(reply.message) == 300
    assert printable("a\tb", 100) == r"a\tb"


def test_a_request_of_an_extension_is_json() -> None:
    """The body is UTF-8, and the query is not part of what is signed."""
    client = GatewayClient("http://127.0.0.1:9", Credentials("s" * 32))

    attempt = client.post("/api/offers", {"name": "é"}, "wait=20")

    client.close()
    assert (attempt.method, attempt.path, attempt.query) == ("POST", "/api/offers", "wait=20")
    assert attempt.body == '{"name": "é"}'.encode()


def test_an_attempts_age_is_told_by_the_clock_that_says_more() -> None:
    """Neither a machine that slept nor a clock that was set back makes an attempt younger."""
    times = {"wall": 1_000.0, "monotonic": 50.0}
    clock = Clock(lambda: times["wall"], lambda: times["monotonic"])
    client = GatewayClient("http://127.0.0.1:9", Credentials("s" * 32), clock=clock)
    attempt = client.event(b"{}")
    client.close()

    ages = []
    for wall, monotonic in ((1_000.0, 50.0), (1_290.0, 51.0), (400.0, 350.0)):
        times.update(wall=wall, monotonic=monotonic)
        ages.append(attempt.age_s(clock))

    assert ages == [0.0, 290.0, 300.0]


# --- a client against a real server ----------------------------------------------------------


@dataclass
class Bench:
    """A gateway with one run, and clients for it that are closed at the end."""

    gateway: StrictGateway
    stack: ExitStack
    announced: list[str] = field(default_factory=list)
    sequences: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.run: Run = self.gateway.create_run()

    def client(self, url: str = "", pins: Path | None = None, **options: Any) -> GatewayClient:
        """Return a client for the run; with a file for pins one that allows self-signed."""
        client = GatewayClient(
            url or self.gateway.url,
            Credentials(self.gateway.secret, self.run.id, self.run.token),
            pins=None if pins is None else PinStore(pins, self.announced.append),
            **options,
        )
        self.stack.callback(client.close)
        return client

    def post(self, client: GatewayClient, timeout_s: float = 10.0) -> Reply:
        """Send one event."""
        body = encode_event("stdout", "text\n", next(self.sequences))
        return client.send(client.event(body), timeout_s)


@contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    """Give a gateway and clients; all of it ends with the block."""
    with ExitStack() as stack:
        gateway = stack.enter_context(StrictGateway(rate_limit=None, **options))
        yield Bench(gateway, stack)


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


def in_thread(work: Callable[[], Reply], stack: ExitStack) -> Future[Reply]:
    """Do `work` in a thread that the stack joins."""
    pool = stack.enter_context(ThreadPoolExecutor(1))
    return pool.submit(work)


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


def test_a_server_that_refuses_a_large_body_by_its_head_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 413 that comes before the body is read is taken, though the rest is never taken."""
    monkeypatch.setattr(gateway_transport, "STALL_TIMEOUT_S", 0.2)

    def refuse(connection: Connection) -> None:
        if connection.read_head() is None:
            return
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        done.wait(WITHIN_S)
        raise PeerGoneError

    done = threading.Event()
    server = LoopbackServer("small", refuse, lambda _: None, threading.Condition())
    server.start()
    file = tmp_path / "large.txt"
    with file.open("wb") as sparse:
        sparse.truncate(40 << 20)
    client = GatewayClient(f"http://127.0.0.1:{server.port}", Credentials("s" * 32))
    try:
        reply = client.send(client.artifact(MultipartFile(file, "large.txt")))
        again = client.send(client.commands())
    finally:
        client.close()
        done.set()
        server.stop()

    assert (reply.outcome, reply.status) == (Outcome.REFUSED, 413)
    assert again.status == 413, "the second request went over a connection of its own"


def test_a_redirect_is_not_followed() -> None:
    """A signed request goes nowhere but to the gateway that was configured."""
    with bench() as b, StrictGateway() as elsewhere:
        client = b.client()
        for code in (301, 302, 303, 307, 308):
            b.gateway.faults.add(Fault("event", Redirect(f"{elsewhere.url}/api/health", code)))

        outcomes = [b.post(client).outcome for _ in range(5)]

        assert outcomes == [Outcome.UNKNOWN] * 5
        assert elsewhere.requests == []


# --- proxies and other things in the environment ---------------------------------------------


def test_a_netrc_file_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the user keeps for the host do not travel with a signed request."""
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    with bench() as b:
        assert b.post(b.client()).outcome is Outcome.ACCEPTED
        assert "authorization" not in b.gateway.requests[0].headers


def test_a_proxy_never_serves_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to this machine does not leave it, whatever the environment says."""
    with bench() as b, LoopbackProxy() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for host in ("127.0.0.1", "localhost"):
            assert b.post(b.client(b.gateway.url_for(host))).outcome is Outcome.ACCEPTED
        assert proxy.requests == []


def test_a_proxy_of_the_environment_leads_to_a_far_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host that only the proxy knows is reached through its tunnel, and verified through it."""
    with bench(tls=True) as b, LoopbackProxy(hosts={FAR_NAME: b.gateway.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        client = b.client(b.gateway.url_for(FAR_NAME))

        outcomes = [b.post(client).outcome for _ in range(2)]

        assert outcomes == [Outcome.ACCEPTED] * 2
        assert [each.method for each in proxy.requests] == ["CONNECT"]


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is told that the proxy is what stands in the way."""
    with LoopbackProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))

        reply = client.send(client.commands())
        client.close()

    assert reply.message == "the proxy does not let the request through"


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_a_socks_proxy_leads_to_a_far_gateway(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy looks the name up; the certificate is that of the gateway, verified or pinned."""
    pytest.importorskip("socks", reason="PySocks is not installed")
    with bench(tls=True) as b, LoopbackProxy(hosts={FAR_NAME: b.gateway.port}) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("http", scheme))
        pinning = b.client(b.gateway.url_for(FAR_NAME), pins=tmp_path / "pins.json")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        client = b.client(b.gateway.url_for(FAR_NAME))

        outcomes = [b.post(each).outcome for each in (client, client, pinning)]

        assert outcomes == [Outcome.ACCEPTED] * 3
        assert {each.target for each in proxy.requests} == {f"{FAR_NAME}:{b.gateway.port}"}
        refused = b.post(b.client("https://elsewhere.test")).message
        assert refused == "the proxy does not let the request through"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))
    assert client.send(client.commands()).message == "the proxy cannot be reached"
    client.close()


def test_abort_reaches_a_socks_proxy_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the proxy is waited for in is one of our sockets, with its deadlines."""
    pytest.importorskip("socks", reason="PySocks is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        silent.settimeout(WITHIN_S)
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{silent.getsockname()[1]}")
        client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))
        asking = pool.submit(client.send, client.commands())
        with silent.accept()[0] as accepted:
            assert accepted.recv(1) == b"\5"
            client.abort()

            assert asking.result(WITHIN_S).message == "the exchange was broken off"
    client.close()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ALL_PROXY", "socks5h://127.0.0.1:1", "ALL_PROXY names a SOCKS proxy, which needs "),
        ("https_proxy", "SOCKS5://127.0.0.1:1", "https_proxy names a SOCKS proxy, which needs "),
        ("HTTPS_PROXY", "ftp://proxy.test", "HTTPS_PROXY names a proxy that cannot be used; "),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY names a proxy that cannot be used; "),
        ("ALL_PROXY", "socks9://u:p@proxy.test", "ALL_PROXY names a proxy that cannot be used; "),
        ("ALL_PROXY", "http://proxy.test:port", "ALL_PROXY names a proxy that cannot be used; "),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its variable, what to install or to write, and without the proxy's password."""
    monkeypatch.setitem(sys.modules, "socks", None)  # as if PySocks were not installed
    monkeypatch.setenv(variable, value)

    with pytest.raises(GatewayError, match=f"^{told}") as caught:
        GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))

    assert "u:p" not in str(caught.value)


def test_a_proxy_that_is_not_there_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the user looks for the mistake in the gateway."""
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:1")
    client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))

    assert client.send(client.commands()).message == "the proxy cannot be reached"

    client.close()


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_excepted"),
    [
        (FAR_NAME, ".test", True),
        (FAR_NAME, "other, gateway.test", True),
        (FAR_NAME, "fd00::/8,test.", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "11.0.0.0/8,fd00::/8", False),
        ("[fd00::7]", "fd00::/8", True),
        ("[fd00::7]", "a.test, FD00:0::/16", True),
        ("[fd00::7]", "[fd00::]/8", True),
        ("[fd00::7]", "[fd00::/8]", True),
        ("[fd00::7]", "fd00:0:0::7", True),
        ("[fd00::7]", "[fd00::7]", True),
        ("[fd00::7]:3100", "[fd00::7]:3100", True),
        ("[fd00::7]:3100", "[fd00::7]:3101", False),
        ("[fd00::7]", "[fd00::7]:443", True),
        ("[fe80::7%25eth0]", "fe80::/10", True),
        ("[fe80::7]", "fd00::/8,fe80::8", False),
        ("[::ffff:10.1.2.3]", "10.0.0.0/8", True),
        ("[fd00::7]", "*", True),
    ],
)
def test_no_proxy_is_honoured(
    host: str, no_proxy: str, is_excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that the user excepts is not asked from the proxy, nor one in such a range."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    client = GatewayClient(f"https://{host}", Credentials("s" * 32))

    assert (client.open().proxies == {}) is is_excepted
    client.close()


@each_row(
    ("url", "loopback"),
    [
        ("http://localhost:1", True),
        ("http://LOCALHOST:1", True),
        ("http://gateway.localhost", True),
        ("http://127.0.0.1", True),
        ("http://127.8.9.10:80", True),
        ("http://[::1]:3100", True),
        ("http://127.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://notlocalhost", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://[::2]", False),
    ],
)
def test_loopback_is_an_address_and_not_a_beginning(url: str, loopback: bool) -> None:
    """No name that somebody can register passes for this machine."""
    assert is_loopback(url) is loopback
    assert is_confidential(url) is loopback


def test_plain_http_to_a_far_host_needs_consent() -> None:
    """Output in the clear over a network is the user's own decision."""
    with pytest.raises(GatewayError, match=r"not encrypted; use https.*ALLOW_HTTP=true"):
        GatewayClient(f"http://{FAR_NAME}", Credentials("s" * 32))

    GatewayClient(f"http://{FAR_NAME}", Credentials("s" * 32), allow_http=True).close()
    GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32)).close()


# --- whom it trusts --------------------------------------------------------------------------


def test_a_certificate_of_a_usual_authority_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting the authorities are those that come with the requests package."""
    with bench(tls=True) as b:
        monkeypatch.setattr(certifi, "where", lambda: str(b.gateway.ca_file))

        assert b.post(b.client()).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_self_signed_gateway_can_be_named_in_a_bundle(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who trusts a certificate by a bundle needs no ALLOW_SELF_SIGNED, and pins nothing."""
    certificate = self_signed()
    (tmp_path / "bundle.pem").write_bytes(certificate.pem)
    monkeypatch.setenv(variable, str(tmp_path / "bundle.pem"))

    with bench(tls=certificate) as b:
        assert b.post(b.client()).outcome is Outcome.ACCEPTED
        assert b.post(b.client(pins=tmp_path / "pins.json")).outcome is Outcome.ACCEPTED
        assert not (tmp_path / "pins.json").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.write_text("no certificate\n"), "holds no certificate in PEM format"),
        (Path.touch, "holds no certificate in PEM format"),
        (lambda path: path.write_bytes(self_signed().der), "holds no certificate in PEM format"),
        (Path.mkdir, "is a folder without hashed certificates"),
        (os.mkfifo, "is not a file"),
    ],
    ids=["missing", "text", "empty", "DER", "folder", "pipe"],
)
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_that_is_none_is_told(
    variable: str,
    make: Callable[[Path], object],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong file is the user's to correct, and not an outage to be waited out."""
    make(tmp_path / "ca.pem")
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))

    with pytest.raises(GatewayError) as caught:
        GatewayClient("https://localhost:1", Credentials("s" * 32))

    assert str(caught.value).startswith(f"{variable} names {tmp_path}/ca.pem, which {reason}")


def test_a_self_signed_certificate_is_refused_without_consent() -> None:
    """A certificate that nobody vouches for is no outage: the words say what it is."""
    with bench(tls=self_signed()) as b:
        reply = b.post(b.client())

        assert reply.outcome is Outcome.UNKNOWN
        assert reply.message == "its certificate does not verify"
        assert b.gateway.requests == []


def test_a_self_signed_certificate_is_pinned_on_first_use(tmp_path: Path) -> None:
    """The first certificate is told and remembered, in a private file; the same one is silent."""
    certificate = self_signed()
    pins = tmp_path / "data" / "pins.json"

    with bench(tls=certificate) as b:
        outcomes = [b.post(b.client(pins=pins)).outcome for _ in range(3)]

        assert outcomes == [Outcome.ACCEPTED] * 3
        host = f"127.0.0.1:{b.gateway.port}"
        assert json.loads(pins.read_text()) == {host: certificate.sha256}
        assert pins.stat().st_mode & 0o777 == 0o600
        told = f"trusting the self-signed certificate of {host} from now on (SHA-256 "
        assert b.announced == [f"{told}{certificate.sha256[:16]}…)"]


@pytest.mark.parametrize("in_one_connection", [True, False], ids=["same-client", "new-client"])
def test_a_changed_certificate_is_refused(tmp_path: Path, in_one_connection: bool) -> None:
    """Another self-signed certificate gets no request, and the user a sentence with the way out."""
    pins = tmp_path / "pins.json"
    with bench(tls=self_signed()) as b:
        client = b.client(pins=pins)
        b.post(client)
        b.gateway.use_certificate(self_signed())
        client = client if in_one_connection else b.client(pins=pins)

        with pytest.raises(GatewayError) as caught:
            b.post(client)

        sentence = str(caught.value)
        assert "is not the one that was trusted before" in sentence
        assert f"remove the line of 127.0.0.1:{b.gateway.port} from {pins}" in sentence
        assert len(b.gateway.requests) == 1


def test_a_renewed_certificate_that_verifies_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that gets a proper certificate in place of a pinned one is as good as before."""
    pins = tmp_path / "pins.json"
    with bench(tls=self_signed()) as b:
        b.post(b.client(pins=pins))
        b.gateway.use_certificate(b.gateway.authority.issue())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))

        assert b.post(b.client(pins=pins)).outcome is Outcome.ACCEPTED
        assert len(b.announced) == 1


def test_a_certificate_that_verifies_is_not_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALLOW_SELF_SIGNED changes nothing for a gateway that does not need it."""
    with bench(tls=True) as b:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))

        assert b.post(b.client(pins=tmp_path / "pins.json")).outcome is Outcome.ACCEPTED
        assert not (tmp_path / "pins.json").exists()
        assert b.announced == []


@pytest.mark.parametrize("is_pinned", [True, False], ids=["planted-pin", "no-pin"])
def test_a_gateway_that_verified_once_must_verify(
    is_pinned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An impostor gets nothing, not even with a pin in the project; the sentence heals it."""
    pins, verified = tmp_path / "pins.json", tmp_path / "state" / "claude-runner" / "v.json"
    impostor = self_signed()
    with bench(tls=True) as b:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        host = f"127.0.0.1:{b.gateway.port}"

        def client() -> GatewayClient:
            store = PinStore(pins, b.announced.append, verified)
            made = GatewayClient(
                b.gateway.url,
                Credentials(b.gateway.secret, b.run.id, b.run.token),
                pins=store,
            )
            b.stack.callback(made.close)
            return made

        b.post(client())
        assert json.loads(verified.read_text()) == {host: "verified"}
        modes = [each.stat().st_mode & 0o777 for each in (verified, verified.parent)]
        assert modes == [0o600, 0o700]
        b.gateway.use_certificate(impostor)
        if is_pinned:
            pins.write_text(json.dumps({host: impostor.sha256}))
        with pytest.raises(GatewayError) as caught:
            b.post(client())
        assert f"remove the line of {host} from {verified}" in str(caught.value)
        assert len(b.gateway.requests) == 1

        verified.write_text("{}")
        assert b.post(client()).outcome is Outcome.ACCEPTED


def test_a_folder_that_cannot_be_written_is_told_and_remembered_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place for it a run still begins, and an impostor in mid-run gets nothing."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "v.lock").mkdir()  # also in the way of root
    with bench(tls=True) as b:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        store = PinStore(tmp_path / "p.json", b.announced.append, tmp_path / "state" / "v.json")
        client = GatewayClient(
            b.gateway.url, Credentials(b.gateway.secret, b.run.id, b.run.token), pins=store
        )
        b.stack.callback(client.close)
        assert b.post(client).outcome is Outcome.ACCEPTED
        assert "cannot be remembered" in b.announced[0]
        b.gateway.use_certificate(self_signed())
        b.gateway.drop_connections()
        with pytest.raises(GatewayError, match="an earlier one did"):
            b.post(client)


def test_a_certificate_for_another_name_is_pinned_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of a known authority for somebody else does not verify."""
    with bench(tls=True) as b:
        b.gateway.use_certificate(b.gateway.authority.issue("other.test"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))

        assert b.post(b.client()).message == "its certificate does not verify"
        assert b.post(b.client(pins=tmp_path / "pins.json")).outcome is Outcome.ACCEPTED
        assert len(b.announced) == 1


def test_a_pin_holds_through_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy it is the gateway's certificate that is pinned, under the gateway's name."""
    pins = tmp_path / "pins.json"
    with bench(tls=self_signed()) as b, LoopbackProxy(hosts={FAR_NAME: b.gateway.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        url = b.gateway.url_for(FAR_NAME)

        outcomes = [b.post(b.client(url, pins=pins)).outcome for _ in range(2)]
        b.gateway.use_certificate(self_signed())
        with pytest.raises(GatewayError, match="not the one that was trusted before"):
            b.post(b.client(url, pins=pins))

        assert outcomes == [Outcome.ACCEPTED] * 2
        assert list(json.loads(pins.read_text())) == [f"{FAR_NAME}:{b.gateway.port}"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a:1": 5}', b"\xff"])
def test_a_damaged_pin_file_is_told_and_not_overwritten(content: bytes, tmp_path: Path) -> None:
    """Trust is not begun anew because a file cannot be read."""
    pins = tmp_path / "pins.json"
    pins.write_bytes(content)
    with bench(tls=self_signed()) as b:
        with pytest.raises(GatewayError, match="correct it, or remove it"):
            b.post(b.client(pins=pins))

        assert pins.read_bytes() == content
        assert b.gateway.requests == []


def test_a_pin_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """Without a place to remember it, nothing is trusted and nothing is sent."""
    (tmp_path / "file").write_text("in the way")
    with bench(tls=self_signed()) as b:
        with pytest.raises(GatewayError, match=r"cannot be (remembered|read)"):
            b.post(b.client(pins=tmp_path / "file" / "pins.json"))

        assert b.gateway.requests == []


def test_pins_of_two_runs_at_once_are_both_kept(tmp_path: Path) -> None:
    """Runs that pin different gateways in the same moment do not lose each other's pin."""
    pins = tmp_path / "pins.json"
    hosts = [f"host{number}:443" for number in range(40)]
    barrier = threading.Barrier(4)

    def pin(mine: list[str]) -> None:
        store = PinStore(pins, lambda _: None)
        barrier.wait(WITHIN_S)
        for host in mine:
            store.check(host, "f" * 64)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pin, [hosts[start::4] for start in range(4)]))

    assert sorted(json.loads(pins.read_text())) == sorted(hosts)


# --- uploads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
def test_an_upload_arrives_byte_for_byte(size: int, tmp_path: Path) -> None:
    """Every byte of the file is there, boundary look-alikes included, with a length before it."""
    content = (b"\r\n--boundary--\r\n\x00\xff" * (size // 17 + 1))[:size]
    file = tmp_path / "x.log"
    file.write_bytes(content)

    with bench() as b:
        client = b.client()
        body = MultipartFile(file, "x.log")
        reply = client.send(client.artifact(body))

        assert reply.outcome is Outcome.ACCEPTED
        assert [each.data for each in b.gateway.artifacts(b.run.id)] == [content]
        headers = b.gateway.requests[0].headers
        assert headers["content-length"] == str(len(body))
        assert "transfer-encoding" not in headers


def test_a_part_of_a_file_can_be_uploaded(tmp_path: Path) -> None:
    """A numbered part holds its own bytes and no others."""
    file = tmp_path / "x.log"
    file.write_bytes(b"0123456789")

    with bench() as b:
        client = b.client()
        client.send(client.artifact(MultipartFile(file, "x.log", 2, 5)))
        client.send(client.artifact(MultipartFile(file, "x.2.log", 7)))

        assert [each.data for each in b.gateway.artifacts(b.run.id)] == [b"23456", b"789"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("claude.log", "claude.log"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ('a"b\r\nX-Evil: 1', "a_b__X-Evil__1"),
        ("größe 1.txt", "gr__e_1.txt"),
        ("😀.md", "_.md"),
        ("..", "file"),
        ("", "file"),
    ],
)
def test_a_file_name_is_made_safe(name: str, sent: str, tmp_path: Path) -> None:
    """No name breaks out of its header or names another place."""
    file = tmp_path / "x"
    file.write_bytes(b"x")

    with bench() as b:
        client = b.client()
        client.send(client.artifact(MultipartFile(file, name)))

        assert [each.name for each in b.gateway.artifacts(b.run.id)] == [sent]


def test_an_upload_needs_no_memory_for_the_file(tmp_path: Path) -> None:
    """What is read is sent and forgotten, block by block, and each block is reported."""
    file = tmp_path / "x.log"
    with file.open("wb") as sparse:
        sparse.truncate(30 << 20)
    blocks: list[None] = []
    body = MultipartFile(file, "x.log", on_progress=lambda: blocks.append(None))

    def swallow(connection: Connection) -> None:
        head = connection.read_head()
        assert head is not None
        connection.drain(head)
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}')

    server = LoopbackServer("drain", swallow, lambda _: None, threading.Condition())
    server.start()
    client = GatewayClient(f"http://127.0.0.1:{server.port}", Credentials("s" * 32))
    try:
        tracemalloc.start()
        reply = client.send(client.artifact(body))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        client.close()
        server.stop()

    assert reply.outcome is Outcome.ACCEPTED
    assert peak_bytes < 4 << 20
    assert len(blocks) == 30 * 16


def test_progress_is_told_once_for_each_block(tmp_path: Path) -> None:
    """A copy of an upload is no progress as far as an earlier one had come."""
    file = tmp_path / "x.log"
    file.write_bytes(b"x" * 200_000)
    progress = []
    body = MultipartFile(file, "x.log", on_progress=lambda: progress.append(1))

    first, second = (b"".join(body) for _ in range(2))

    assert first == second
    assert len(first) == len(body)
    assert len(progress) == 4  # blocks of 64 KiB


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


def test_a_file_that_became_shorter_is_an_outcome(tmp_path: Path) -> None:
    """A body that cannot be sent as announced ends the exchange, and the next one works."""
    file = tmp_path / "x.log"
    file.write_bytes(b"x" * 100_000)

    with bench() as b:
        client = b.client()
        body = MultipartFile(file, "x.log")
        file.write_bytes(b"x")
        reply = client.send(client.artifact(body))

        assert reply.outcome is Outcome.UNKNOWN
        assert "became shorter while it was uploaded" in reply.message
        assert b.post(client).outcome is Outcome.ACCEPTED
