"""The sockets, threads and HTTP/1.1 framing under the test servers, on loopback only.

It knows nothing about gateways. Written by hand because the tests need what `http.server` hides:
to answer before a body has been read, to cut an answer in half, to go away and come back on the
same port, to change the certificate, and to be sure at the end that every thread is joined and
every socket closed.

Invariants: one thread accepts, one thread owns each connection, and only the owner closes it.
Others may `shut` it, which wakes the owner. Every wait is either on a socket, which `shut` ends, or
on the server's condition, which is notified after `shut`.
"""

from __future__ import annotations

import email.utils
import http.client
import re
import selectors
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import BinaryIO, Callable, cast

HOST = "127.0.0.1"

# A connection on which nothing moves for this long is closed. Longer than any idle keep-alive
# connection of a test, and only a safety net: `shut` wakes a blocked read at once.
IO_TIMEOUT_S = 120.0

# How long closing may take before it is reported as a failure of the equipment.
JOIN_WITHIN_S = 20.0

_PIECE_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 16


class BadRequestError(Exception):
    """The peer did not speak HTTP/1.1 as it is written."""


class BodyTooLargeError(Exception):
    """The body is over the limit; it has not been read, or not to its end."""


class PeerGoneError(Exception):
    """The peer closed, or the server was told to stop, in the middle of a request."""


@dataclass(frozen=True)
class Head:
    """A request line and its headers."""

    method: str
    target: str
    headers: http.client.HTTPMessage

    @property
    def path(self) -> str:
        """The target without its query string, as it came over the wire."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first question mark."""
        return self.target.partition("?")[2]

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks, so that its size is not known before it ends."""
        return self.headers.get("Transfer-Encoding", "").strip().lower() == "chunked"

    @property
    def content_length(self) -> int:
        """The announced size of the body in bytes; 0 if there is none or it is chunked."""
        text = self.headers.get("Content-Length", "0").strip()
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise BadRequestError(f"Content-Length {text!r} is no number")
        if self.is_chunked and "Content-Length" in self.headers:
            raise BadRequestError("both Content-Length and Transfer-Encoding")
        return int(text)

    @property
    def wants_close(self) -> bool:
        """Whether the peer will not use the connection again."""
        return self.headers.get("Connection", "").strip().lower() == "close"


@dataclass(frozen=True)
class Reply:
    """An answer before it is bytes."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    def head(self, content_length: int | None) -> bytes:
        """Return status line and headers; without a length the end of the connection ends it."""
        reason = http.client.responses.get(self.status, "Unknown")
        lines = [f"HTTP/1.1 {self.status} {reason}", f"Content-Type: {self.content_type}"]
        if content_length is not None:
            lines.append(f"Content-Length: {content_length}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def encode(self) -> bytes:
        """Return the whole answer as it goes over the wire."""
        return self.head(len(self.body)) + self.body


def http_date(at: float) -> str:
    """Return the Date header's text for the Unix time `at`."""
    return email.utils.formatdate(at, usegmt=True)


class Connection:
    """One accepted connection. Thread: its owner, except for `shut`."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._swap = threading.Lock()
        self._file: BinaryIO | None = None
        self.is_shut = False
        self.is_closed = False

    def secure(self, context: ssl.SSLContext) -> None:
        """Do the server's side of a TLS handshake. Raises: OSError (ssl.SSLError is one)."""
        with self._swap:
            wrapped = context.wrap_socket(
                self._socket, server_side=True, do_handshake_on_connect=False
            )
            self._socket = wrapped
        wrapped.do_handshake()

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for those who pass on bytes they do not understand."""
        return self._socket

    def _reader(self) -> BinaryIO:
        if self._file is None:
            self._file = cast(BinaryIO, self._socket.makefile("rb"))
        return self._file

    def read_head(self) -> Head | None:
        """Return the next request's head, or None if the peer has no more to say."""
        try:
            line = self._reader().readline(_MAX_LINE_BYTES + 1)
            if not line.strip():
                return None
            headers = http.client.parse_headers(self._reader())
        except OSError:
            return None
        except http.client.HTTPException as error:
            raise BadRequestError(f"unreadable headers: {error!r}") from error
        if not line.endswith(b"\n"):
            return None
        words = line.decode("latin-1").split()
        # Python's own client asks a proxy for a tunnel in HTTP/1.0.
        is_tunnel = words[:1] == ["CONNECT"] and words[2:] == ["HTTP/1.0"]
        if len(words) != 3 or not (words[2] == "HTTP/1.1" or is_tunnel):
            raise BadRequestError(f"request line {line[:80]!r}")
        return Head(words[0], words[1], headers)

    def read_body(self, head: Head, limit_bytes: int, *, cut_off: bool = False) -> bytes:
        """Return the body. Shape: at most `limit_bytes`.

        Raises: BodyTooLargeError, before reading if the announced size is over the limit;
        PeerGoneError. With `cut_off` a chunked body that is too large is read to its end and cut.
        """
        if head.content_length > limit_bytes:
            raise BodyTooLargeError
        if head.headers.get("Expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if head.is_chunked:
                return self._read_chunks(limit_bytes, cut_off)
            return self._read_exactly(head.content_length)
        except OSError as error:
            raise PeerGoneError from error

    def drain(self, head: Head) -> None:
        """Read the body and forget it, so that the answer already sent is not reset away."""
        try:
            if head.is_chunked:
                self._read_chunks(0, cut_off=True)
                return
            left = head.content_length
            while left > 0:
                piece = self._reader().read(min(left, _PIECE_BYTES))
                if not piece:
                    return
                left -= len(piece)
        except (OSError, PeerGoneError, BadRequestError):
            return

    def _read_exactly(self, size: int) -> bytes:
        pieces = []
        left = size
        while left > 0:
            piece = self._reader().read(min(left, _PIECE_BYTES))
            if not piece:
                raise PeerGoneError
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _read_chunks(self, limit_bytes: int, cut_off: bool) -> bytes:
        body = bytearray()
        while True:
            size = self._read_chunk_size()
            if size == 0:
                break
            if len(body) + size > limit_bytes and not cut_off:
                raise BodyTooLargeError
            body += self._read_exactly(size)[: max(0, limit_bytes - len(body))]
            if self._reader().readline(3) != b"\r\n":
                raise BadRequestError("a chunk without its end")
        while self._reader().readline(_MAX_LINE_BYTES).strip():
            pass
        return bytes(body)

    def _read_chunk_size(self) -> int:
        line = self._reader().readline(100)
        if not line:
            raise PeerGoneError
        digits = line.split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits):
            raise BadRequestError(f"chunk size {line!r}")
        return int(digits, 16)

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises: PeerGoneError."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise PeerGoneError from error

    def shut(self) -> None:
        """Wake the owner for good. Thread: any."""
        self.is_shut = True
        with self._swap:
            try:
                # SSLSocket.shutdown would also take the TLS state from under the owner's feet, who
                # may be inside a read; the plain one only ends the stream below it.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                pass  # the peer, or the owner, was faster

    def reset(self) -> None:
        """Make `close` send a reset instead of an orderly end."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        """Close for good; the owner alone may do so."""
        self.is_closed = True
        if self._file is not None:
            self._file.close()
        with self._swap:
            self._socket.close()


class LoopbackServer:
    """Accepts connections on 127.0.0.1 and gives each a thread, until it is told to stop.

    `serve` is called with each connection in that connection's thread; an exception that leaves it
    is handed to `on_error`. `changed` is notified when connections are shut, so that whoever waits
    on it can look at `Connection.is_shut`.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Connection], None],
        on_error: Callable[[Exception], None],
        changed: threading.Condition,
    ) -> None:
        self.name = name
        self.port = 0
        self.tls_context: ssl.SSLContext | None = None
        self._serve = serve
        self._on_error = on_error
        self._changed = changed
        self._guard = threading.Lock()
        self._connections: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._reserved: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def start(self) -> None:
        """Listen; on the port of before if there was one."""
        if self._acceptor is not None:
            return
        listener = self._reserved or self._bind()
        self._reserved = None
        self.port = listener.getsockname()[1]
        listener.listen(128)
        listener.setblocking(False)
        wake_reader, self._wake = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept,
            args=(listener, wake_reader),
            name=f"{self.name}-acceptor",
            daemon=True,
        )
        self._acceptor.start()

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, self.port))
        return bound

    def stop(self, *, reserve: bool = False) -> None:
        """Stop listening, end every connection, join every thread.

        With `reserve` the port stays bound without being listened on: connections to it are
        refused, and no other program, nor a client's own end of one, can take it meanwhile.
        Raises: AssertionError if a thread does not end in time.
        """
        if self._acceptor is not None and self._wake is not None:
            self._wake.close()
            self._acceptor.join(JOIN_WITHIN_S)
            self._acceptor = self._wake = None
        if reserve and self._reserved is None:
            self._reserved = self._bind()
        elif not reserve and self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        self.drop_connections()

    def drop_connections(self) -> None:
        """End every connection of this moment, and join its thread."""
        with self._guard:
            current = list(self._connections)
            threads = [each for each in self._threads if each is not threading.current_thread()]
            for connection in current:
                connection.shut()
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + JOIN_WITHIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [thread.name for thread in threads if thread.is_alive()]
        assert not stuck, f"{self.name}: connections that did not end: {stuck}"

    def _accept(self, listener: socket.socket, wake: socket.socket) -> None:
        with listener, wake, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake in ready:
                    return
                try:
                    accepted = listener.accept()[0]
                except OSError:
                    continue  # the client gave up between the two calls
                self._adopt(accepted)

    def _adopt(self, accepted: socket.socket) -> None:
        accepted.settimeout(IO_TIMEOUT_S)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(accepted)
        thread = threading.Thread(
            target=self._own, args=(connection,), name=f"{self.name}-connection", daemon=True
        )
        with self._guard:
            self._connections.add(connection)
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _has_handshaken(self, connection: Connection) -> bool:
        try:
            if self.tls_context is not None:
                connection.secure(self.tls_context)
        except OSError:
            return False  # the client does not like the certificate, or does not speak TLS
        return True

    def _own(self, connection: Connection) -> None:
        try:
            if self._has_handshaken(connection):
                self._serve(connection)
        except PeerGoneError:
            pass  # how clients leave: nothing that the server did wrong
        except Exception as error:  # noqa: BLE001 - kept for the test's thread, which raises it
            self._on_error(error)
        finally:
            connection.close()
            with self._guard:
                self._connections.discard(connection)
