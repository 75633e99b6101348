"""A small HTTP proxy on loopback, which records what goes through it.

It works in four ways, told apart by the request: `CONNECT` and SOCKS 5 open a tunnel, an absolute
target is forwarded, and a plain path goes to `upstream`, as with a web server that stands before
the gateway; that one is a load balancer, and sets a cookie.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Callable, TypeVar
from urllib.parse import urlsplit

from testing.gateways.http_server import (
    HOST,
    BadRequestError,
    BodyTooLargeError,
    Connection,
    Head,
    LoopbackServer,
    PeerGoneError,
    Reply,
)

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 10.0
_UNLIMITED_BYTES = 1 << 30
_PIECE_BYTES = 1 << 16

# What belongs to one connection and is not passed on: RFC 9110, section 7.6.1.
_OWN_HEADERS = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "te"}


@dataclass(eq=False)
class ProxyRecord:
    """One request to the proxy. For a tunnel `body_bytes` counts what the client sent through."""

    method: str
    target: str
    at: float
    body_bytes: int = 0
    status: int | None = None


class LoopbackProxy:
    """The proxy; see the module. A context manager that listens inside its `with` block.

    `upstream` is a URL like `http://127.0.0.1:8000`. `hosts` maps names that exist nowhere, such as
    `gateway.test`, to a port on 127.0.0.1; other hosts than this machine are refused with 403.
    `body_limit_bytes` may be changed at any time; a larger body is answered 413 in HTML. `below` is
    the base path of the upstream server, which is taken off; other paths are refused with 403.
    """

    def __init__(
        self,
        upstream: str | None = None,
        *,
        hosts: dict[str, int] | None = None,
        body_limit_bytes: int | None = None,
        below: str = "",
    ) -> None:
        self.upstream = upstream
        self._below = below
        self.hosts = hosts or {}
        self.body_limit_bytes = body_limit_bytes
        self._changed = threading.Condition()
        self._server = LoopbackServer("proxy", self._serve, self._keep_error, self._changed)
        self._requests: list[ProxyRecord] = []
        self._errors: list[str] = []

    def __enter__(self) -> LoopbackProxy:
        self._server.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_rest: object) -> None:
        self._server.stop()
        if self._errors and exc_type is None:
            raise AssertionError("the proxy failed:\n" + "\n".join(self._errors))
        for each in self._errors:
            print(each, file=sys.stderr)  # the test's own failure comes first

    @property
    def url(self) -> str:
        """The proxy's address: HTTPS_PROXY for a client, or its GATEWAY_URL with an upstream."""
        return f"http://{HOST}:{self._server.port}"

    @property
    def requests(self) -> list[ProxyRecord]:
        """All requests, in the order of arrival."""
        with self._changed:
            return list(self._requests)

    def wait_for(self, predicate: Callable[[], T], within_s: float = 30.0) -> T:
        """Wait until `predicate`, asked whenever a request changes, is true; return its value."""
        with self._changed:
            value = self._changed.wait_for(predicate, within_s)
            assert value, f"not within {within_s} s; requests: {self._requests}"
            return value

    def _keep_error(self, error: Exception) -> None:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        with self._changed:
            self._errors.append("".join(lines))

    def _serve(self, connection: Connection) -> None:
        if connection.socket.recv(1, socket.MSG_PEEK) == b"\5":
            self._tunnel_socks(connection)
            return
        while not connection.is_closed:
            try:
                head = connection.read_head()
                if head is None:
                    return
                record = ProxyRecord(head.method, head.target, time.monotonic())
                with self._changed:
                    self._requests.append(record)
                    self._changed.notify_all()
                if head.method == "CONNECT":
                    self._tunnel(connection, head, record)
                    return
                self._forward(connection, head, record)
            except BadRequestError as error:
                connection.send(Reply(400, str(error).encode(), "text/plain").encode())
                return
            if head.wants_close:
                return

    def _note(self, record: ProxyRecord, *, status: int | None = None, more_bytes: int = 0) -> None:
        with self._changed:
            record.status = status or record.status
            record.body_bytes += more_bytes
            self._changed.notify_all()

    def _refuse(self, connection: Connection, record: ProxyRecord, status: int) -> None:
        self._note(record, status=status)
        page = f"<html><head><title>{status}</title></head><body>proxy</body></html>\n"
        reply = Reply(status, page.encode(), "text/html", {"Connection": "close"})
        connection.send(reply.encode())

    # --- one request that is understood ---

    def _forward(self, connection: Connection, head: Head, record: ProxyRecord) -> None:
        address, target = self._find_upstream(head)
        limit_bytes = self.body_limit_bytes
        try:
            body = connection.read_body(
                head, _UNLIMITED_BYTES if limit_bytes is None else limit_bytes
            )
        except BodyTooLargeError:
            self._refuse(connection, record, 413)
            connection.drain(head)
            connection.close()
            return
        self._note(record, more_bytes=len(body))
        if address is None:
            self._refuse(connection, record, 403)
            connection.close()
            return
        lines = [f"{head.method} {target} HTTP/1.1"]
        lines += [f"{n}: {v}" for n, v in head.headers.items() if _is_passed_on(n)]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        try:
            with socket.create_connection(address, _CONNECT_TIMEOUT_S) as upstream:
                upstream.sendall("\r\n".join(lines).encode("latin-1") + body)
                self._pass_answer(upstream, connection, record)
        except OSError:
            if record.status is None:
                self._refuse(connection, record, 502)
        connection.close()

    def _pass_answer(
        self, upstream: socket.socket, connection: Connection, record: ProxyRecord
    ) -> None:
        """Pass the answer back as it comes; tell the client that the connection ends with it."""
        first = upstream.recv(_PIECE_BYTES)
        if not first:
            raise ConnectionError("no answer")
        self._note(record, status=int(first[9:12]))
        status_line, _, rest = first.partition(b"\r\n")
        own = b"\r\nConnection: close\r\nSet-Cookie: balanced=1; Path=/\r\n"
        connection.send(status_line + own + rest)
        while True:
            piece = upstream.recv(_PIECE_BYTES)
            if not piece:
                return
            connection.send(piece)

    def _find_upstream(self, head: Head) -> tuple[tuple[str, int] | None, str]:
        is_path = head.target.startswith("/")
        parts = urlsplit(self.upstream or "" if is_path else head.target)
        target = head.target
        if not is_path:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        elif not target.startswith(f"{self._below}/"):
            return None, target
        else:
            target = target[len(self._below) :]
        return self._resolve(parts.hostname or "", parts.port or 80), target

    def _resolve(self, host: str, port: int) -> tuple[str, int] | None:
        if host in self.hosts:
            return HOST, self.hosts[host]
        return (HOST, port) if host in (HOST, "localhost") else None

    # --- a tunnel ---

    def _tunnel(self, connection: Connection, head: Head, record: ProxyRecord) -> None:
        host, _, port = head.target.rpartition(":")
        address = self._resolve(host, int(port))
        if address is None:
            self._refuse(connection, record, 403)
            return
        try:
            upstream = socket.create_connection(address, _CONNECT_TIMEOUT_S)
        except OSError:
            self._refuse(connection, record, 502)
            return
        with upstream:
            self._note(record, status=200)
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._pump(connection, upstream, record)

    def _tunnel_socks(self, connection: Connection) -> None:
        """Open a tunnel to a host that is given by its name. RFC 1928."""
        reader = connection.socket.makefile("rb", buffering=0)
        reader.read(reader.read(2)[1])
        connection.send(b"\5\0")
        _, _, _, kind, size = reader.read(5)
        assert kind == 3, "the name is to be looked up by the proxy"
        name, port = reader.read(size).decode(), int.from_bytes(reader.read(2), "big")
        record = ProxyRecord("SOCKS", f"{name}:{port}", time.monotonic())
        with self._changed:
            self._requests.append(record)
            self._changed.notify_all()
        address = self._resolve(name, port)
        refusal = b"\5\2\0\1" + bytes(6)  # not allowed
        if address is None:
            connection.send(refusal)
            return
        with socket.create_connection(address, _CONNECT_TIMEOUT_S) as upstream:
            connection.send(b"\5\0\0\1" + bytes(6))
            self._pump(connection, upstream, record)

    def _pump(self, connection: Connection, upstream: socket.socket, record: ProxyRecord) -> None:
        """Carry bytes both ways until one side ends."""
        client = connection.socket  # nothing was read ahead: the client waits for the 200
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    try:
                        piece = source.recv(_PIECE_BYTES)
                        sink.sendall(piece)
                    except OSError as error:
                        raise PeerGoneError from error
                    if not piece:
                        return
                    if source is client:
                        self._note(record, more_bytes=len(piece))


def _is_passed_on(name: str) -> bool:
    return name.lower() not in _OWN_HEADERS and name.lower() != "content-length"
