"""The test equipment is proven here.

What the strict gateway has in common with every other one is in test_conformance.py.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest

from testing.gateways.faults import (
    Action,
    Delay,
    Drip,
    DropAfter,
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
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.refused_requests import REFUSALS
from testing.gateways.signing_client import ENDED, JSON, WITHOUT, Attempt, Client, own_client
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.children import floods, not_utf8
from testing.programs.terminal import Terminal
from testing.tables import each_row
from testing.waiting import eventually

CHILDREN = Path(floods.__file__).parent


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway that raises at the end if it saw what the test did not allow."""
    with StrictGateway() as gateway:
        yield gateway


@pytest.fixture
def client(gateway: StrictGateway) -> Iterator[Client]:
    """A client with a run."""
    with closing(own_client(gateway)) as client:
        yield client


# --- refusals, and what the client is told to have done wrong --------------------------------


@each_row("case", REFUSALS)
def test_what_is_refused_is_a_violation(case: str) -> None:
    """What the protocol forbids is noted once, in words."""
    build, status, _, violation = REFUSALS[case]
    with StrictGateway() as gateway, closing(own_client(gateway)) as client:
        assert client.send(build(client)).status == status

        [noted] = gateway.violations
        gateway.allow(violation)
        assert violation in noted


def test_a_wrong_clock_of_its_own_is_nobodys_fault(gateway: StrictGateway, client: Client) -> None:
    """With its clock wrong the gateway refuses, and does not blame the client."""
    gateway.clock_offset_s = -3600.0

    assert client.event("stdout", "x").status == 401
    assert gateway.violations == []


def test_a_marker_that_is_no_json_is_stored_and_then_refused(
    gateway: StrictGateway, client: Client
) -> None:
    """The gateway stores such a marker and answers 500, as it is documented."""
    gateway.allow("marker that is not JSON")

    answer = client.event("marker", "{broken")

    assert answer.status == 500
    assert [event.data for event in gateway.events(client.run.id)] == ["{broken"]


def test_a_gateway_that_lists_cards_takes_their_markers() -> None:
    """Its health says so; what it does not list it does not know."""
    with StrictGateway(extensions=("answers",)) as gateway, closing(own_client(gateway)) as client:
        assert client.event("marker", '{"event":"asked","id":"q1"}').status == 200
        assert gateway.violations == []


# --- nonces ----------------------------------------------------------------------------------


def test_a_repeat_after_a_lost_answer_is_no_violation(
    gateway: StrictGateway, client: Client
) -> None:
    """The frozen attempt is repeated byte for byte, told that it was accepted, and all is well."""
    fault = gateway.faults.add(Fault("event", DropAfter()))
    attempt = client.event_attempt("stdout", "once")

    with pytest.raises(ENDED):
        client.send(attempt)
    again = client.send(attempt)

    assert fault.applied == 1
    assert again.status == 401
    assert gateway.text(client.run.id) == "once"
    assert gateway.violations == []
    first, second = gateway.requests
    assert (first.handled, first.status, first.fault) == (200, None, "DropAfter")
    assert (second.handled, second.status, second.fault) == (401, 401, None)
    assert first.body_sha256 == second.body_sha256
    assert first.nonce == second.nonce


def test_a_lost_nonce_store_stores_twice(gateway: StrictGateway, client: Client) -> None:
    """A gateway that forgot its nonces accepts a copy again: events are not deduplicated."""
    gateway.allow("wrong sequence")
    attempt = client.event_attempt("stdout", "x")
    client.send(attempt)
    gateway.forget_nonces()

    assert client.send(attempt).status == 200
    assert gateway.text(client.run.id) == "xx"


# --- the rate limit --------------------------------------------------------------------------


def test_a_window_passes(gateway: StrictGateway, client: Client) -> None:
    """After the window a new one begins by itself."""
    gateway.rate_limit = (1, 0.05)

    def is_accepted() -> bool:
        return client.poll().status == 200

    assert any(is_accepted() for _ in range(100_000))
    assert any(is_accepted() for _ in range(100_000))


def test_no_limit_is_announced_as_a_very_high_one() -> None:
    """Without a limit the headers let a client go at full speed, or are left out."""
    with StrictGateway(rate_limit=None) as gateway, closing(own_client(gateway)) as client:
        assert int(client.poll().headers["x-ratelimit-remaining"]) > 900_000
        gateway.rate_headers = False
        assert "x-ratelimit-remaining" not in client.poll().headers


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "status", "content_type", "stored"),
    [
        (Status(503, b"busy"), 503, "text/plain", ""),
        (Status(200, b"[1]", JSON), 200, JSON, ""),
        (Html(502), 502, "text/html", ""),
        (Html(504, after="stored"), 504, "text/html", "x"),
        (JsonError(500, message="broken"), 500, "application/json; charset=utf-8", ""),
        (JsonError(400, "Run ID required"), 400, "application/json; charset=utf-8", ""),
        (RateLimited(7), 429, "application/json; charset=utf-8", ""),
        (Redirect(), 307, "text/plain", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Action) else "",
)
def test_a_fault_answers_in_place_of_the_gateway(
    gateway: StrictGateway,
    client: Client,
    action: Action,
    status: int,
    content_type: str,
    stored: str,
) -> None:
    """An answer that is not the gateway's comes once; the next request is answered as ever."""
    gateway.faults.add(Fault("event", action))

    answer = client.event("stdout", "x")
    in_between = gateway.text(client.run.id)
    after = client.event("stdout", "y")

    assert (answer.status, answer.headers["Content-Type"]) == (status, content_type)
    assert (in_between, after.status) == (stored, 200)
    assert [record.status for record in gateway.requests] == [status, 200]


def test_a_429_can_come_without_any_header(gateway: StrictGateway, client: Client) -> None:
    """Some gateways say no more than 429."""
    gateway.faults.add(Fault("*", RateLimited(None, with_rate_headers=False)))

    headers = client.poll().headers

    assert "retry-after" not in headers
    assert "x-ratelimit-limit" not in headers


@pytest.mark.parametrize(
    ("action", "stored"),
    [(DropBefore(), ""), (DropBefore(reset=True), ""), (DropAfter(), "x"), (HalfAnswer(), "x")],
    ids=["before", "reset", "after", "half"],
)
def test_a_cut_connection(
    gateway: StrictGateway, client: Client, action: Action, stored: str
) -> None:
    """A connection that ends without a whole answer leaves stored what it should."""
    gateway.faults.add(Fault("event", action))

    with pytest.raises(ENDED):
        client.event("stdout", "x")

    gateway.wait_for(lambda: gateway.text(client.run.id) == stored)
    assert client.poll().status == 200


def test_a_nonce_can_be_spent_by_a_handler_that_fails(
    gateway: StrictGateway, client: Client
) -> None:
    """After such a 500 a copy is refused although nothing was stored, and sending it is wrong."""
    gateway.faults.add(Fault("event", JsonError(500, after="nonce")))
    attempt = client.event_attempt("stdout", "x")

    assert [client.send(attempt).status for _ in range(2)] == [500, 401]
    assert gateway.text(client.run.id) == ""
    gateway.allow("a nonce reused after it was answered 500")


def test_a_hang_lasts_until_it_is_released(gateway: StrictGateway, client: Client) -> None:
    """A request that hangs is stored or not as the script says, and ends when it is let go."""
    fault = gateway.faults.add(Fault("event", Hang(after="stored")))
    attempt = client.event_attempt("stdout", "x")
    client.connection.request(attempt.method, attempt.path, attempt.body, attempt.headers)
    gateway.wait_for(lambda: gateway.text(client.run.id) == "x")
    assert gateway.requests[0].status is None

    gateway.faults.release(fault)

    with pytest.raises(ENDED):
        client.connection.getresponse()


def test_a_delay_ends_early_when_the_script_is_cleared(
    gateway: StrictGateway, client: Client
) -> None:
    """A late answer is still the right one."""
    gateway.faults.add(Fault("event", Delay(3600)))
    attempt = client.event_attempt("stdout", "x")
    client.connection.request(attempt.method, attempt.path, attempt.body, attempt.headers)
    gateway.wait_for(lambda: [record.fault for record in gateway.requests] == ["Delay"])
    assert gateway.text(client.run.id) == ""

    gateway.faults.clear()

    assert client.connection.getresponse().status == 200
    assert gateway.text(client.run.id) == "x"


@pytest.mark.parametrize("action", [Drip(), Drip("head"), Huge(), Huge(with_length=True)])
def test_an_answer_without_an_end_outlives_no_gateway(action: Action) -> None:
    """An endless answer begins, does not end by itself, and holds nothing up at the end."""
    with StrictGateway() as gateway:
        gateway.faults.add(Fault("health", action))
        with closing(socket.create_connection(("127.0.0.1", gateway.port), 20)) as raw:
            raw.sendall(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n")

            assert raw.recv(100).startswith(b"HTTP/1.1 200 OK")
            assert raw.recv(1)
            gateway.pause()


def test_every_nth_request_meets_a_fault(gateway: StrictGateway, client: Client) -> None:
    """`every` counts the matching requests alone, and `times` ends it."""
    fault = gateway.faults.add(Fault("event", Html(502), every=3, times=2))

    statuses = []
    for _ in range(10):
        statuses.append(client.event("stdout", "x").status)
        client.poll()

    assert statuses == [200, 200, 502, 200, 200, 502, 200, 200, 200, 200]
    assert (fault.seen, fault.applied) == (6, 2)


def test_a_predicate_picks_one_poisoned_event(gateway: StrictGateway, client: Client) -> None:
    """A fault may look into the body, and play for ever."""
    gateway.faults.add(Fault(lambda request: b"poison" in request.body, JsonError(500), every=1))

    assert client.event("stdout", "poison", 1).status == 500
    assert client.event("stdout", "food", 2).status == 200
    assert client.event("stdout", "poison", 3).status == 500


# --- coming and going ------------------------------------------------------------------------


def test_a_pause_refuses_connections_and_keeps_everything(
    gateway: StrictGateway, client: Client
) -> None:
    """While paused nobody can connect; afterwards it is the same gateway on the same port."""
    url = gateway.url
    client.event("stdout", "a")
    gateway.pause()

    with pytest.raises(ENDED):
        client.event("stdout", "lost")
    with pytest.raises(ConnectionRefusedError):
        client.poll()
    gateway.resume()

    assert gateway.url == url
    assert client.event("stdout", "b").status == 200
    assert gateway.text(client.run.id) == "ab"


def test_a_long_poll_does_not_hold_up_the_end() -> None:
    """A poll that waits is ended with the gateway."""
    with StrictGateway(long_poll=True) as gateway:
        run = gateway.create_run()
        with closing(Client(gateway, run)) as client:
            attempt = client.sign("GET", f"/api/runs/{run.id}/commands?wait=60")
            client.connection.request(attempt.method, attempt.path, headers=attempt.headers)
            gateway.wait_for(lambda: gateway.requests)
            gateway.pause()

            with pytest.raises(ENDED):
                client.connection.getresponse()


def test_half_a_request_does_not_hold_up_the_end() -> None:
    """A client that stops in the middle of its body is simply gone."""
    with StrictGateway() as gateway:
        with closing(socket.create_connection(("127.0.0.1", gateway.port), 20)) as raw:
            raw.sendall(b"POST /api/ingest/event HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
            gateway.wait_for(lambda: gateway.requests)
        [record] = gateway.requests

    assert record.status is None


def test_tls_verifies_against_its_authority_and_can_change() -> None:
    """A certificate verifies, a renewed one too; a self-signed one takes its place and does not."""
    from testing.gateways.certificates import self_signed

    with StrictGateway(tls=True) as gateway:
        context = ssl.create_default_context(cafile=str(gateway.ca_file))
        with closing(Client(gateway, gateway.create_run(), context=context)) as client:
            assert gateway.url.startswith("https://127.0.0.1:")
            assert client.poll().status == 200
            gateway.use_certificate(gateway.authority.issue())
            client.close()
            assert client.poll().status == 200

            other = self_signed()
            gateway.use_certificate(other)
            client.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                client.poll()
            shown = ssl.get_server_certificate(("127.0.0.1", gateway.port))
            assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest() == other.sha256

    assert not gateway_ca_is_left(gateway)


def gateway_ca_is_left(gateway: StrictGateway) -> bool:
    """Whether the folder with the authority's certificate is still there."""
    folder = gateway._ca_folder
    return folder is not None and os.path.exists(folder.name)


def test_a_self_signed_certificate_verifies_against_itself() -> None:
    """REQUESTS_CA_BUNDLE with the certificate of a self-signed gateway works as one expects."""
    from testing.gateways.certificates import self_signed

    certificate = self_signed()
    with StrictGateway(tls=certificate) as gateway:
        context = ssl.create_default_context(cadata=certificate.pem.decode())
        with closing(Client(gateway, gateway.create_run(), context=context)) as client:
            assert client.poll().status == 200


# --- violations ------------------------------------------------------------------------------


def _twice(event: dict[str, Any]) -> Callable[[Client], None]:
    def play(client: Client) -> None:
        client.event("marker", json.dumps(event))
        client.event("marker", json.dumps(event))

    return play


def _play(*events: tuple[Any, ...]) -> Callable[[Client], None]:
    def play(client: Client) -> None:
        for event in events:
            client.event(*event)

    return play


def _same_nonce(client: Client) -> None:
    attempt = client.event_attempt("stdout", "a")
    client.send(attempt)
    client.send(attempt)


def _nonce_of_another(client: Client) -> None:
    nonce = os.urandom(16).hex()
    client.event("stdout", "a", nonce=nonce)
    client.event("stdout", "b", nonce=nonce)


FINISHED = {"event": "finished", "exitCode": 0}
VIOLATIONS: dict[str, tuple[Callable[[Client], Any], str]] = {
    "a copy of what was answered": (_same_nonce, "a nonce reused after it was answered 200"),
    "a nonce of another request": (_nonce_of_another, "two different requests"),
    "an unknown path": (
        lambda client: client.send(client.sign("POST", "/api/ingest/events", b"{}")),
        "unknown path",
    ),
    "too much data": (
        _play(("stdout", "\U0001f600" * 524_289)),
        "data over the limit: 1048578",
    ),
    "a body over the limit": (_play(("stdout", "x" * (10 * 1024 * 1024))), "over the limit"),
    "a doubled event": (_play(("stdout", "a", 1), ("stdout", "a", 1)), "wrong sequence: 1 after 1"),
    "events out of order": (_play(("stdout", "b", 2), ("stdout", "a", 1)), "wrong sequence"),
    "started twice": (_twice({"event": "started"}), "started twice"),
    "finished twice": (_twice(FINISHED), "finished twice"),
    "output after the end": (
        _play(("marker", json.dumps(FINISHED)), ("stdout", "late")),
        "a stdout event after finished",
    ),
    "an unknown marker": (_play(("marker", '{"event":"ended"}')), "unknown marker"),
    "a card where there are none": (_play(("marker", '{"event":"asked"}')), "unknown marker"),
    "a marker to be broken": (
        _play(("marker", '{"event":"resized","why":"gh auth status"}')),
        "a gateway in the field breaks",
    ),
    "an unknown reason": (
        _play(("marker", json.dumps({**FINISHED, "reason": "bored"}))),
        "unknown reason",
    ),
    "an exit code in quotes": (
        _play(("marker", json.dumps({**FINISHED, "exitCode": "0"}))),
        "exitCode",
    ),
    "assist without JSON": (_play(("assist", "{", WITHOUT)), "assist data that is not JSON"),
    "assist with more": (
        _play(("assist", '{"type":"tmate","url":"ssh a@b","web":"c"}', WITHOUT)),
        "other fields than type and url",
    ),
    "assist with a number": (
        _play(("assist", '{"type":"tmate","url":"ssh a@b"}', 1)),
        "goes without a sequence",
    ),
    "output without a number": (_play(("stdout", "a", WITHOUT)), "goes without a sequence"),
    "half a character": (_play(("stdout", "\ud83d")), "half a character"),
    "an ack of nothing": (lambda client: client.ack("c0", {"result": "x"}), "never queued"),
    "an empty ack": (lambda client: client.ack("c0", {}), "an ack with the fields []"),
    "a path as file name": (lambda client: client.upload("../a.log", b"x"), "is a path"),
    "another part": (lambda client: client.upload("a.log", b"x", "upload"), "without a part"),
    "the token in a body": (lambda client: client.event("stdout", client.run.token), "the token"),
    "credentials from elsewhere": (
        lambda client: client.send(
            Attempt("GET", "/api/health", b"", {"Authorization": "Basic eDp5"})
        ),
        "a header Authorization",
    ),
    "the secret in a body": (lambda client: client.event("stdout", client.secret), "HMAC secret"),
}


@each_row("case", VIOLATIONS)
def test_a_violation_makes_the_end_raise(case: str) -> None:
    """What no correct client does ends the test, unless the test has allowed exactly that."""
    play, expected = VIOLATIONS[case]

    def run(*allowed: str) -> None:
        with StrictGateway() as gateway:
            gateway.allow(*allowed)
            with closing(own_client(gateway)) as client:
                play(client)

    with pytest.raises(AssertionError, match="the strict gateway objects") as caught:
        run("something else")
    assert expected in str(caught.value)
    run(expected, "never queued")


def test_a_handler_that_fails_makes_the_end_raise() -> None:
    """A mistake of the equipment itself is not swallowed by its threads."""

    def broken(_: Any) -> bool:
        raise ZeroDivisionError("of the test")

    def run() -> None:
        with StrictGateway() as gateway, closing(own_client(gateway)) as client:
            gateway.faults.add(Fault(broken, DropBefore()))
            with pytest.raises(ENDED):
                client.poll()

    with pytest.raises(AssertionError, match="of the test"):
        run()


def test_a_failure_of_the_test_comes_before_violations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When the block raises, its own exception goes through and the violations are printed."""

    def run() -> None:
        with StrictGateway() as gateway, closing(own_client(gateway)) as client:
            client.event("stdout", "x", token="0" * 64)
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert "token" in capsys.readouterr().err


def test_wait_for_tells_what_has_come(gateway: StrictGateway, client: Client) -> None:
    """A wait in vain says what arrived instead."""
    client.event("stdout", "something else")

    with pytest.raises(AssertionError, match="something else"):
        gateway.wait_for(lambda: gateway.artifacts(client.run.id), within_s=0.01)


# --- the proxy -------------------------------------------------------------------------------


def test_a_proxy_in_front_allows_less(gateway: StrictGateway) -> None:
    """Small bodies pass with the gateway's own answers, larger ones meet a 413 in HTML."""
    run = gateway.create_run()
    client = Client(gateway, run)
    with LoopbackProxy(gateway.url, body_limit_bytes=1000) as proxy, closing(client):
        client.connection = http.client.HTTPConnection(*proxy_address(proxy), timeout=20)
        passed = client.event("stdout", "x", 1)
        refused = client.event("stdout", "x" * 1000, 2)
        again = client.event("stdout", "y", 2)

    assert (passed.status, passed.headers["x-ratelimit-limit"]) == (200, "100")
    assert (refused.status, refused.headers["Content-Type"]) == (413, "text/html")
    assert again.status == 200
    assert gateway.text(run.id) == "xy"
    assert [record.status for record in proxy.requests] == [200, 413, 200]


def test_a_tunnel_reaches_a_name_that_exists_nowhere() -> None:
    """CONNECT leads to the gateway under a made-up name; whoever asks for elsewhere is refused."""
    with StrictGateway(tls=True) as gateway, closing(own_client(gateway)) as client:
        context = ssl.create_default_context(cafile=str(gateway.ca_file))
        with LoopbackProxy(hosts={"gateway.test": gateway.port}) as proxy:
            tunnel = http.client.HTTPSConnection(*proxy_address(proxy), context=context, timeout=20)
            tunnel.set_tunnel("gateway.test", 443)
            client.connection = tunnel
            answer = client.event("stdout", "through")
            client.close()
            with closing(http.client.HTTPConnection(*proxy_address(proxy), timeout=20)) as other:
                other.set_tunnel("outside.example", 443)
                with pytest.raises(OSError, match="403"):
                    other.connect()

    assert answer.status == 200
    assert gateway.text(client.run.id) == "through"
    assert [(record.method, record.status) for record in proxy.requests] == [
        ("CONNECT", 200),
        ("CONNECT", 403),
    ]
    assert proxy.requests[0].body_bytes > 0


def test_an_absolute_target_is_forwarded(gateway: StrictGateway) -> None:
    """A plain request through the proxy comes out at the gateway, and 502 if that is away."""
    with LoopbackProxy() as proxy, ExitStack() as stack:
        connection = http.client.HTTPConnection(*proxy_address(proxy), timeout=20)
        stack.callback(connection.close)
        connection.request("GET", f"{gateway.url}/api/health")
        healthy = connection.getresponse()
        assert json.loads(healthy.read())["status"] == "ok"
        gateway.pause()
        connection.request("GET", f"{gateway.url}/api/health")
        assert connection.getresponse().status == 502


def proxy_address(proxy: LoopbackProxy) -> tuple[str, int]:
    """Return what http.client wants to know."""
    parts = urlsplit(proxy.url)
    return str(parts.hostname), int(parts.port or 0)


# --- terminals, children and processes -------------------------------------------------------


def child(name: str, *arguments: str) -> list[str]:
    """Return the command line of one of the small programs."""
    return [sys.executable, str(CHILDREN / name), *arguments]


def test_a_terminal_controls_its_program() -> None:
    """The program leads the foreground group of a real terminal and learns of a new size."""
    env = {**os.environ, "TERM": "xterm-test"}
    with Terminal(child("tty_report.py"), env=env, columns=100, lines=30) as terminal:
        told = terminal.expect(b"READY ")
        assert b"TTY 1 1 1\r\nSIZE 100 30\r\nFOREGROUND yes\r\nTERM xterm-test\r\n" in told
        terminal.expect(f"{terminal.pid}\r\n".encode())
        assert terminal.foreground_group() == terminal.pid

        terminal.resize(60, 20)
        terminal.expect(b"SIZE 60 20\r\n")
        terminal.send(b"\x03")

        assert terminal.wait() == -signal.SIGINT
        assert terminal.output.endswith(b"^C")


def test_a_terminal_shows_its_settings() -> None:
    """The settings of the terminal can be read while and after a program uses it."""
    with Terminal(child("ready.py", "7")) as terminal:
        terminal.expect(b"READY")
        assert terminal.attributes()[3] & termios.ECHO
        terminal.send(b"hello\n")
        terminal.expect(b"GOT hello")
        assert terminal.wait() == 7
        assert terminal.attributes()[3] & termios.ECHO


def test_closing_a_terminal_hangs_up() -> None:
    """Whoever is in a terminal that is closed gets SIGHUP."""
    with Terminal(child("ready.py")) as terminal:
        terminal.expect(b"READY")
        terminal.hang_up()
        assert terminal.wait() == -signal.SIGHUP


def test_an_expectation_in_vain_shows_what_there_was() -> None:
    """A failing expectation tells whether time or output ran out, and shows the output."""
    with Terminal(child("exits.py", "3", "some", "words")) as terminal:
        with pytest.raises(AssertionError, match=r"the output ended without b'other'.*some words"):
            terminal.expect(b"other")
        assert terminal.wait() == 3


def test_a_terminal_takes_everything_with_it() -> None:
    """What ignores signals and left the session does not outlive the block."""
    with Terminal(child("leaves_grandchild.py", "--stay")) as terminal:
        terminal.expect(b"GRANDCHILD ")
        grandchild = int(terminal.expect(b"\n"))
        terminal.expect(b"READY")
        assert processes.descendants(terminal.pid) == [grandchild]
        assert os.getsid(grandchild) == grandchild
        os.kill(grandchild, signal.SIGTERM)
        assert processes.is_alive(grandchild)

    assert not processes.is_alive(grandchild)


def test_output_comes_to_its_end_although_a_grandchild_holds_the_terminal() -> None:
    """wait does not depend on the end of the output, which never comes here."""
    marker = f"mark-{os.urandom(8).hex()}"
    with Terminal(child("leaves_grandchild.py", marker)) as terminal:
        terminal.expect(b"GRANDCHILD ")
        grandchild = int(terminal.expect(b"\n"))

        assert terminal.wait() == 0
        assert processes.find_by_marker(marker) == [grandchild]
        os.kill(grandchild, signal.SIGKILL)
        processes.assert_gone([grandchild])


def test_a_marker_is_found_in_an_environment() -> None:
    """A process is found by what is in its environment, and not the one who looks."""
    marker = os.urandom(8).hex()
    env = {**os.environ, "SOME_MARKER": marker}
    with Terminal(child("ready.py"), env=env) as terminal:
        terminal.expect(b"READY")

        assert processes.find_by_marker(marker) == [terminal.pid]
        with pytest.raises(AssertionError, match=r"still alive.*ready\.py"):
            processes.assert_gone([terminal.pid], within_s=0.01)


def test_a_zombie_is_not_alive() -> None:
    """A process that has ended is gone, whether or not somebody has asked for its exit status."""
    ended = subprocess.Popen(child("exits.py", "0"))
    processes.assert_gone([ended.pid])

    assert ended.wait() == 0


def test_what_children_say_of_themselves() -> None:
    """Arguments, environment, exit codes and signals come out as they went in."""
    arguments = ["a b", 'c"\\', "é😀\n", "-x"]
    env = {**os.environ, "ECHO_ENV": "HOME,NOT_THERE"}
    echoed = subprocess.run(child("echo_args.py", *arguments), env=env, capture_output=True)

    told = json.loads(echoed.stdout)

    assert told == {"argv": arguments, "env": {"HOME": env["HOME"]}, "cwd": os.getcwd()}
    assert subprocess.run(child("exits.py", "5")).returncode == 5
    assert subprocess.run(child("exits.py", "SIGSEGV")).returncode == -signal.SIGSEGV
    launched = [str(CHILDREN / "launcher.sh"), *child("exits.py", "6")]
    assert subprocess.run(launched).returncode == 6


def test_what_children_write_is_known_to_the_byte() -> None:
    """The output of each writer is what its module or its arguments say."""

    def output(*arguments: str) -> bytes:
        return subprocess.run(child(*arguments), stdout=subprocess.PIPE).stdout

    lines = subprocess.run(child("lines.py", "4", "--alternate"), capture_output=True)

    flood = output("floods.py", "1")
    assert len(flood) == 1_000_000
    assert flood == b"".join(floods.line(number) for number in range(10_000))
    assert output("not_utf8.py") == not_utf8.OUTPUT
    assert output("prints_bytewise.py", "00ff0a") == b"\x00\xff\n"
    assert [line.split()[0] for line in lines.stdout.splitlines()] == [b"1", b"3", b"LAST"]
    assert [line.split()[0] for line in lines.stderr.splitlines()] == [b"2", b"4"]


def test_signals_are_reported_or_ignored() -> None:
    """The two children about signals say which came, and end when they are told."""
    with Terminal(child("reports_signals.py", "--exit-on", "SIGTERM", "9")) as terminal:
        terminal.expect(b"IGNORED \r\nBLOCKED \r\nREADY ")
        terminal.expect(b"\n")
        terminal.send(b"\x03")
        terminal.expect(b"SIGNAL SIGINT")
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.expect(b"SIGNAL SIGTERM")
        assert terminal.wait() == 9
    with Terminal(child("ignores_int.py")) as terminal:
        terminal.expect(b"READY ")
        terminal.expect(b"\n")
        terminal.send(b"\x03")
        terminal.expect(b"IGNORED SIGINT")
        terminal.send(b"quit\n")
        assert terminal.wait() == 0


# --- waiting, and the guards around every test -----------------------------------------------


def test_eventually_lets_the_last_failure_through() -> None:
    """The failure that is raised is the assertion's own, and a late success is a success."""
    tries = iter([1, 2, 3])

    def third_time() -> int:
        number = next(tries)
        assert number == 3, f"only {number}"
        return number

    def never() -> None:
        pytest.fail("still not")

    assert eventually(third_time) == 3
    with pytest.raises(AssertionError, match="only 1"):
        eventually(failing_once, within_s=0)
    with pytest.raises(pytest.fail.Exception, match="still not"):
        eventually(never, within_s=0)


def failing_once() -> None:
    """Fail, as an assertion does."""
    raise AssertionError("only 1")


LEAKS = """
import os, socket, subprocess, sys, threading
import pytest

KEPT = []

def test_thread():
    KEPT.append(threading.Event())
    threading.Thread(target=KEPT[-1].wait, name="left-thread", daemon=True).start()

def test_end_of_thread():
    KEPT[0].set()

def test_descriptor():
    KEPT.append(os.open(os.devnull, os.O_RDONLY))

def test_process():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_grandchild():
    script = "import os, signal; os.fork() or signal.pause()"
    subprocess.run([sys.executable, "-c", script], start_new_session=True)

def test_outside():
    with socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))

def test_environment():
    assert not {"HMAC_SECRET", "https_proxy", "CLAUDE_COMMAND"} & set(os.environ)
    assert set(os.listdir(os.environ["HOME"])) <= {".cache"}

@pytest.mark.skip(reason="not\\there")
def test_skipped():
    pass

@pytest.mark.xfail
def test_expected():
    assert False

def test_clean():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
"""


def test_the_guards_catch_what_a_test_leaves(tmp_path: Path) -> None:
    """Threads, descriptors, processes and outside sockets fail their test; skips are noted."""
    conftest = (Path(__file__).parents[1] / "conftest.py").read_text("utf-8")
    assert "GONE_WITHIN_S = 10.0" in conftest
    hasty = conftest.replace("GONE_WITHIN_S = 10.0", "GONE_WITHIN_S = 0.2")
    (tmp_path / "conftest.py").write_text(hasty, "utf-8")
    (tmp_path / "test_leaks.py").write_text(LEAKS, "utf-8")
    skips = tmp_path / "skips"
    skips.write_text("before\tkept\n", "utf-8")
    env = {
        **os.environ,
        "PYTHONPATH": str(CHILDREN.parents[2]),
        "SKIP_REPORT": str(skips),
        "HMAC_SECRET": "x",
        "https_proxy": "x",
        "CLAUDE_COMMAND": "x",
    }
    options = ["-q", "-rA", "--tb=line", "-p", "no:cacheprovider", "-p", "no:randomly"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    results = {
        line.split("::")[1].split()[0]: line.split()[0]
        for line in done.stdout.splitlines()
        if line.startswith(("ERROR ", "FAILED ")) and "::" in line
    }
    assert results == {
        "test_thread": "ERROR",
        "test_descriptor": "ERROR",
        "test_process": "ERROR",
        "test_grandchild": "ERROR",
        "test_outside": "FAILED",
    }, done.stdout
    assert skips.read_text("utf-8").splitlines() == [
        "before\tkept",
        "test_leaks.py::test_skipped\tnot here",
    ]
