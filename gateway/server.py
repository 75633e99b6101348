"""The HTTP server: cheroot, with connections that can wait without holding a thread.

cheroot gives a connection to one of its threads for the length of a request. An open stream, or a
poll that waits for a command, would hold that thread for minutes. So a WSGI callable may return a
`Parked` instead of a response: the connection then goes to whoever takes it from there, and may be
given back when it has been answered.

Three things are done otherwise than in cheroot, because one slow client must not stop the others:
the TLS handshake happens in a request's thread instead of in the one that accepts; the head and
the body of a request have a deadline as a whole, not only between two reads; and the buffers around
the socket are written for speed.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable

from cheroot import errors, server, wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter

logger = logging.getLogger(__name__)

# Requests that are being read, computed or written at the same time; all others wait their turn.
THREADS = 64
# How long one read or write may take, and how long an idle connection is kept.
SOCKET_TIMEOUT_S = 30
# A request has to arrive at this rate, after a grace that is short when few threads are left.
MIN_RATE_BYTES_S = 16_384
GRACE_S = 10.0
GRACE_BUSY_S = 2.0
MAX_HEAD_BYTES = 32_768
SHUTDOWN_TIMEOUT_S = 2
BACKLOG = 512
# Nothing that is read is longer than this at once.
_READ_BYTES = 65_536
_MAX_TRAILERS = 20
# Of a body that nobody wanted to read: so much is thrown away, so that the connection can go on.
# With more it is closed, but not before the client has had time to read the answer.
_MAX_SKIPPED_BYTES = 1024 * 1024
LINGER_S = 2.0


class Parked:
    """What a WSGI callable returns when the connection is to wait.

    `take` gets the connection, in the request's thread and after the request has ended; from then
    on it owns it.
    """

    def __init__(self, take: Callable[[Connection], None]) -> None:
        self.take = take

    def __iter__(self) -> Any:
        return iter(())


class _Reader:
    """The reading end of a socket, as cheroot uses it: lines and bytes, buffered."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""
        self.bytes_read = 0
        self.closed = False

    def has_data(self) -> bool:
        """Whether something has been read that nobody has asked for."""
        return bool(self._buffer)

    def readline(self, size: int | None = -1) -> bytes:
        """Return a line with its end, or `size` bytes of it; b"" at the end."""
        limit = _READ_BYTES if size is None or size < 0 else size
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched) + 1
            if end or len(self._buffer) >= limit:
                return self._cut(min(end or limit, limit))
            searched = len(self._buffer)
            more = self._socket.recv(_READ_BYTES)
            if not more:
                return self._cut(searched)
            self.bytes_read += len(more)
            self._buffer += more

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        wanted = -1 if size is None else size
        parts = [self._cut(len(self._buffer) if wanted < 0 else min(wanted, len(self._buffer)))]
        have = len(parts[0])
        while wanted < 0 or have < wanted:
            more = self._socket.recv(_READ_BYTES if wanted < 0 else min(wanted - have, _READ_BYTES))
            if not more:
                break
            self.bytes_read += len(more)
            parts.append(more)
            have += len(more)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _cut(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def close(self) -> None:
        """Forget what was read; the socket is closed by its owner."""
        self._buffer, self.closed = b"", True


class _Chunks:
    """A chunked body, piece by piece: cheroot's own reads a chunk of any size into memory."""

    def __init__(self, stream: _Reader) -> None:
        self._stream = stream
        self._left = 0  # of the chunk that is being read
        self._is_first = True
        self.is_complete = False

    def read(self, size: int | None = None) -> bytes:
        """Return up to `size` bytes, fewer only at the end. Raises: ValueError."""
        parts: list[bytes] = []
        have = 0
        while size is None or have < size:
            if not self._left and not self._begin_chunk():
                break
            wanted = self._left if size is None else min(self._left, size - have)
            part = self._stream.read(min(wanted, _READ_BYTES))
            if not part:
                raise ValueError("the body has no end")
            self._left -= len(part)
            have += len(part)
            parts.append(part)
        return b"".join(parts)

    def _begin_chunk(self) -> bool:
        if self.is_complete:
            return False
        if not self._is_first and self._stream.readline(3) != b"\r\n":
            raise ValueError("a chunk has not the size that it announced")
        self._is_first = False
        size = self._stream.readline(256).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,12}", size):
            raise ValueError("a chunk without a size")
        self._left = int(size, 16)
        if not self._left:
            self.is_complete = True
            for _ in range(_MAX_TRAILERS):
                if self._stream.readline(_READ_BYTES) in (b"\r\n", b""):
                    return False
            raise ValueError("too many trailers")
        return True


class _Writer:
    """The writing end of a socket: nothing is kept back."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        """Send all of it."""
        self._socket.sendall(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""


def _make_file(sock: socket.socket, mode: str = "r", _size: int = 0) -> _Reader | _Writer:
    return _Reader(sock) if "r" in mode else _Writer(sock)


class Connection(server.HTTPConnection):
    """A connection that can be parked, and that shakes hands in a request's thread."""

    def __init__(self, owner: Server, sock: socket.socket, _makefile: Any = None) -> None:
        super().__init__(owner, sock, _make_file)
        self.parked: Parked | None = None
        self.keeps_alive = True
        self.lingers = False
        self._reading_since: float | None = None
        self._read_before = 0
        self._is_shaken = not isinstance(sock, ssl.SSLSocket)

    def communicate(self) -> bool:
        """Answer one request; return whether the connection stays."""
        self.begin_reading()
        self.server.watch(self)
        try:
            if not self._is_shaken and not self._shake_hands():
                return False
            keeps: bool = super().communicate()  # type: ignore[no-untyped-call]
            return keeps
        finally:
            self.server.unwatch(self)

    def begin_reading(self) -> None:
        """From here on the peer has to send, and not too slowly."""
        self._read_before = self.rfile.bytes_read
        self._reading_since = time.monotonic()

    def end_reading(self) -> None:
        """What was to be read is here."""
        self._reading_since = None

    def is_too_slow(self, now: float, grace_s: float) -> bool:
        """Whether the peer should have sent more by now."""
        since = self._reading_since
        if since is None:
            return False
        received: int = self.rfile.bytes_read - self._read_before
        return now - since > grace_s + received / MIN_RATE_BYTES_S

    def _shake_hands(self) -> bool:
        try:
            self.socket.do_handshake()
        except ssl.SSLError as error:
            if "HTTP_REQUEST" in str(error):
                self._tell_of_https()
            return False
        except OSError:
            return False
        self._is_shaken = True
        return True

    def _tell_of_https(self) -> None:
        text = b"This address is https; write https:// in front of it.\n"
        head = (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(text)
        )
        raw = socket.socket(fileno=self.socket.detach())
        self.socket = raw
        try:
            raw.sendall(head + text)
            raw.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is only a courtesy

    def close(self) -> None:
        """Close it, unless somebody else owns it now."""
        if self.parked is not None:
            return
        if self.lingers:
            self._linger()
        super().close()

    def _linger(self) -> None:
        """Let the client finish: closed with unread bytes, it might never see the answer."""
        deadline = time.monotonic() + LINGER_S
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while (left_s := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left_s)
                if not self.socket.recv(_READ_BYTES):
                    return
        except (OSError, ValueError):
            pass  # it has seen it, or never will

    def drop(self) -> None:
        """Make every read and write fail, from another thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already


class _Gateway(wsgi.Gateway_10):
    """Calls the WSGI callable, and lets it park the connection."""

    def __init__(self, req: Any) -> None:
        if req.chunked_read:
            req.rfile = _Chunks(req.conn.rfile)
        super().__init__(req)

    def get_environ(self) -> Any:  # its stub says None
        environ = super().get_environ()  # type: ignore[no-untyped-call]
        self.req.conn.end_reading()
        environ["gateway.connection"] = self.req.conn
        return environ

    def respond(self) -> None:
        response: Iterable[bytes] = self.req.server.wsgi_app(self.env, self.start_response)
        if isinstance(response, Parked):
            self.req.conn.parked = response
            self.req.conn.keeps_alive = not self.req.close_connection
            self.req.close_connection = False
            self.req.sent_headers = True  # whoever has taken it sends them
            return
        self._mind_the_rest()
        try:
            body = b"".join(response) if isinstance(response, list) else None
            if body is not None:
                self.write(body)
                return
            for chunk in filter(None, response):
                self.write(chunk)
        finally:
            self.req.ensure_headers_sent()
            if hasattr(response, "close"):
                response.close()

    def _mind_the_rest(self) -> None:
        """Decide what becomes of a body that was not read to its end."""
        stream, connection = self.req.rfile, self.req.conn
        if isinstance(stream, _Chunks):
            is_left = not stream.is_complete
        else:
            is_left = stream.remaining > _MAX_SKIPPED_BYTES
        if is_left:
            self.req.close_connection = connection.lingers = True
        elif not isinstance(stream, _Chunks) and stream.remaining:
            connection.begin_reading()
            stream.read(stream.remaining)
            connection.end_reading()


class _Adapter(BuiltinSSLAdapter):
    """TLS whose handshake is left to the connection's first thread."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        try:
            wrapped = self.context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        except OSError as error:
            raise errors.FatalSSLAlert(*error.args) from error
        return wrapped, {"wsgi.url_scheme": "https"}


class Server(wsgi.Server):
    """The listening socket, the threads, and a watchman who ends what takes too long."""

    ConnectionClass = Connection
    keep_alive_conn_limit: Any = None
    max_request_header_size = MAX_HEAD_BYTES

    def __init__(
        self,
        address: tuple[str, int],
        application: Any,
        certificate: tuple[str, str] | None,
        threads: int = THREADS,
    ) -> None:
        super().__init__(
            address,
            application,
            numthreads=threads,
            server_name="claude-runner-gateway",
            request_queue_size=BACKLOG,
            timeout=SOCKET_TIMEOUT_S,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        )
        self.gateway = _Gateway
        if certificate is not None:
            self.ssl_adapter = _Adapter(*certificate)
            self.ssl_adapter.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.bind_error: OSError | None = None
        self._watched: set[Connection] = set()
        self._ended = threading.Event()
        self._watchman = threading.Thread(target=self._watch, name="gateway-watchman", daemon=True)

    def prepare(self) -> None:
        """Listen. Raises: OSError."""
        super().prepare()
        self._watchman.start()

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """Bind the listening socket, and remember why it could not be: cheroot does not say."""
        try:
            bound: socket.socket = super().bind(family, type, proto)
        except OSError as error:
            self.bind_error = error
            raise
        return bound

    def put_conn(self, connection: Connection) -> None:
        """Take back a connection whose request has been answered, or hand on a parked one."""
        if connection.parked is not None:
            connection.parked.take(connection)
        else:
            super().put_conn(connection)

    def release(self, connection: Connection) -> None:
        """Take back a connection that was parked, for its next request. Thread: any."""
        connection.parked = None
        try:
            if connection.keeps_alive and self.ready:
                connection.socket.settimeout(SOCKET_TIMEOUT_S)
                super().put_conn(connection)
                return
        except (OSError, ValueError, KeyError):
            pass  # it has ended meanwhile
        connection.close()

    def watch(self, connection: Connection) -> None:
        """Look after a connection that holds a thread."""
        self._watched.add(connection)

    def unwatch(self, connection: Connection) -> None:
        """No longer look after it."""
        self._watched.discard(connection)

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            watched = list(self._watched)
            is_busy = len(watched) > self.requests.min * 3 // 4
            grace_s = GRACE_BUSY_S if is_busy else GRACE_S
            now = time.monotonic()
            for connection in watched:
                if connection.is_too_slow(now, grace_s):
                    connection.drop()

    def stop(self) -> None:
        """End: no new connections, a moment for the requests that are being answered."""
        self._ended.set()
        for connection in list(self._watched):
            if connection.is_too_slow(time.monotonic(), 0.0):
                connection.drop()
        super().stop()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - cheroot's own signature
        """Log what cheroot has to say; what clients do wrong is no error of ours."""
        logger.log(level, msg, exc_info=traceback)
