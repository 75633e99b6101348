"""A peer that misbehaves at every step, and a client that makes an outcome of all of it."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from gateway_client import Credentials, GatewayClient, Outcome, Reply
from gateway_transport import PinStore, adapter
from testing.gateways.certificates import Certificate, self_signed

WITHIN_S = 20.0
# How long the client waits for a reply that never comes.
PATIENCE_S = 0.1
OK = b'{"ok": true}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + OK

RESET, CLOSE, HALF_CLOSE, SILENCE = "reset", "close", "half close", "silence"
ACCEPTED, GREETED, SECURED, ASKED = "accepted", "greeted", "secured", "asked"


@dataclass(frozen=True)
class Misdeed:
    """What a peer does to one connection: up to a step all is well, then bytes, then an end.

    `step`: at once; after the first bytes of the client; after the TLS handshake, which is at once
    over plain http; or when so many bytes of the request were read.
    """

    step: str
    asked_bytes: int
    sends: bytes
    end: str


LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 302 Found",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 99999 x",
        b"HTTP/9.9 200",
        b"",
        b"Location: http://[::1",
        b"Location: \xff\xfe//\x00",
        b"Location: //:99999999/",
        b"Content-Length: -5",
        b"Content-Length: 5, 6",
        b"Content-Length: 99999999999999999999999",
        b"Content-Length: twelve",
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"Connection: upgrade",
        b"Set-Cookie: =;;;expires=\xff",
        b"Content-Type: ;;;charset==\xff",
        b"Retry-After: \xff",
        b"Date: \xff",
        b" folded",
        b": nameless",
        b"zz",
        b"ffffffffffff",
        b"x" * 70_000,
        OK,
    ]
)
GARBAGE = st.one_of(
    st.just(b""),
    st.integers(0, len(ANSWER)).map(lambda size: ANSWER[:size]),
    st.lists(LINES, max_size=8).map(lambda lines: b"\r\n".join(lines) + b"\r\n\r\n"),
    st.tuples(st.just(b"HTTP/1.1 302 Found"), LINES, LINES).map(b"\r\n".join),
    st.binary(max_size=40),
)
MISDEEDS = st.builds(
    Misdeed,
    st.sampled_from([ACCEPTED, GREETED, SECURED, ASKED]),
    st.integers(1, 400),
    GARBAGE,
    st.sampled_from([RESET, CLOSE, HALF_CLOSE, SILENCE]),
)


class Peer:
    """A server that does what it is told to one connection after the other, and then is well."""

    def __init__(self, certificate: Certificate | None) -> None:
        self._context = certificate.context if certificate else None
        self.misdeeds: queue.SimpleQueue[Misdeed] = queue.SimpleQueue()
        self.ends = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.ends.set()
        with socket.create_connection(("127.0.0.1", self.port)):
            self._thread.join(WITHIN_S)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            accepted = self._listener.accept()[0]
            if self.ends.is_set():
                accepted.close()
                return
            accepted.settimeout(WITHIN_S)
            with contextlib.suppress(OSError):  # the client has left
                self._meet(accepted)
            accepted.close()

    def _meet(self, accepted: socket.socket) -> None:
        try:
            misdeed = self.misdeeds.get_nowait()
        except queue.Empty:
            with self._secured(accepted) as sock:
                _read(sock, 1 << 20)
                sock.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            return
        if misdeed.step == GREETED:
            accepted.recv(1, socket.MSG_PEEK)
        if misdeed.step in (ACCEPTED, GREETED):
            accepted.sendall(misdeed.sends)
            self._end(accepted, misdeed.end)
            return
        with self._secured(accepted) as sock:
            if misdeed.step == ASKED:
                _read(sock, misdeed.asked_bytes)
            sock.sendall(misdeed.sends)
            self._end(sock, misdeed.end)

    def _secured(self, accepted: socket.socket) -> socket.socket:
        if self._context is None:
            return accepted
        return self._context.wrap_socket(
            accepted, server_side=True, suppress_ragged_eofs=True, do_handshake_on_connect=True
        )

    def _end(self, sock: socket.socket, end: str) -> None:
        if end == RESET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end in (HALF_CLOSE, SILENCE):
            if end == HALF_CLOSE:
                # Below TLS, so without its farewell.
                socket.socket.shutdown(sock, socket.SHUT_WR)
            sock.settimeout(1.0)
            while sock.recv(65_536):
                pass


def _read(sock: socket.socket, at_most: int) -> None:
    """Read to the end of a request's head and its body of known size, but no further."""
    received = b""
    while len(received) < at_most and not received.endswith((b"\r\n\r\n{}", b"--\r\n")):
        received += sock.recv(min(at_most, 65_536)) or _left()


def _left() -> bytes:
    raise ConnectionResetError


@dataclass
class Bench:
    """A peer, and how to reach it."""

    peer: Peer
    scheme: str
    pins: Path | None
    bundle: Path | None

    def client(self) -> GatewayClient:
        """Return a new client. It is the caller's to close."""
        with pytest.MonkeyPatch.context() as patch:
            if self.bundle is not None:
                patch.setenv("REQUESTS_CA_BUNDLE", str(self.bundle))
            return GatewayClient(
                f"{self.scheme}://127.0.0.1:{self.peer.port}",
                Credentials("s" * 32, "run", "t"),
                pins=None if self.pins is None else PinStore(self.pins, lambda _: None),
            )


@pytest.fixture(scope="module", params=["http", "https", "https, pinned"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A peer of each kind, for all examples."""
    folder = tmp_path_factory.mktemp("peer")
    certificate = None if request.param == "http" else self_signed()
    pins = bundle = None
    if request.param == "https, pinned":
        pins = folder / "pins.json"
    elif certificate is not None:
        bundle = folder / "bundle.pem"
        bundle.write_bytes(certificate.pem)
    with pytest.MonkeyPatch.context() as patch, Peer(certificate) as peer:
        # How long it waits for a silent peer's handshake.
        patch.setattr(adapter, "CONNECT_TIMEOUT_S", 1.0)
        yield Bench(peer, request.param.partition(",")[0], pins, bundle)


def assert_promised(reply: Reply) -> None:
    """The reply explains itself: what nobody expected would show as an exception's name alone."""
    assert reply.outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED)
    assert " " in reply.message, reply


def send_until_well(client: GatewayClient, peer: Peer, misdeeds: int) -> None:
    """Send copies until the peer has done all of its misdeeds, and then one is accepted."""
    for _ in range(2 * misdeeds + 2):  # a connection may be kept, and fail a second request
        is_well = peer.misdeeds.empty()
        reply = client.send(client.event(b"{}"), WITHIN_S if is_well else PATIENCE_S)
        assert_promised(reply)
        if is_well and reply.outcome is Outcome.ACCEPTED:
            return
    raise AssertionError("no answer of a peer that is well")


# Not shrunk: that would repeat the waits for hours.
@settings(
    max_examples=settings().max_examples // 4,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@example([Misdeed(ACCEPTED, 1, b"", RESET)] * 50)
@example([Misdeed(ASKED, 1, b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n", CLOSE)])
@given(st.lists(MISDEEDS, min_size=1, max_size=4))
def test_whatever_the_peer_does_is_an_outcome(bench: Bench, misdeeds: list[Misdeed]) -> None:
    """Nothing but an outcome comes of it, and one client after all of it works as before."""
    client = bench.client()
    try:
        for misdeed in misdeeds:
            bench.peer.misdeeds.put(misdeed)
        send_until_well(client, bench.peer, len(misdeeds))
    finally:
        client.close()
