"""The HTTP server: cheroot, with connections that can wait without holding a thread.

cheroot gives a connection to one of its threads for the length of a request. An open stream, or a
poll that waits for a command, would hold that thread for minutes. So a WSGI callable may return a
`Parked` instead of a response: another thread takes the connection, and may give it back when it
has answered.

Strangers must not stop the others by being slow, so no request's thread waits for them. cheroot's
one thread that watches all sockets shakes hands for TLS, reads a request until its head and a small
body are here (`Connection.advance`), sends what a client has not taken of an answer, and lets a
refused client finish. It takes small events too, whose answers the store's writer sends. All other
requests get a thread when they can be answered at once; it reads a large body itself, after the
head has shown who sends it. What is read has a deadline as a whole, and the
connections that wait are counted, by address too: beyond a number the oldest one goes.
"""

from __future__ import annotations

import errno
import logging
import re
import resource
import secrets
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable

from cheroot import errors, server, wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter

from gateway.serving.forwarded import TrustedProxies

logger = logging.getLogger(__name__)

# Requests that are being read, computed or written at the same time; all others wait their turn.
_THREADS = 64
# How long one read or write may take, and how long an idle connection is kept.
_SOCKET_TIMEOUT_S = 30
# A request has to arrive at this rate, after a grace. When few threads are left it is short for the
# bodies that they read.
_MIN_RATE_BYTES_S = 16_384
_GRACE_S = 10.0
_GRACE_BUSY_S = 2.0
_MAX_HEAD_BYTES = 32_768
# A request with a body of this size or less is answered when all of it is here. More is taken of
# those alone whose head shows who they are.
_SMALL_REQUEST_BYTES = 65_536
# Connections that no thread works on: those that have not sent a whole request, or not taken an
# answer, and those that are idle. Of one address, and of all; where few files may be open, fewer.
_MAX_WAITING_OF_ONE = 256
_MAX_WAITING = 512
_WANTED_FILES = 4_096
_SHUTDOWN_TIMEOUT_S = 2
_BACKLOG = 512
# Nothing that is read is longer than this at once.
_READ_BYTES = 65_536
_READS_AT_ONCE = 8
_MAX_TRAILERS = 20
# An event of a runner, when all of it is here and small, is taken by the thread that watches the
# sockets: to wake another one would cost as much as the event.
_EVENT = b"POST /api/ingest/event "
_QUICK_BYTES = 4_096
# Of an answer that a client does not take: more is waited for by the request's thread.
_MAX_REST_BYTES = 1024 * 1024
# Of a body that nobody wanted to read: so much is thrown away before the connection is closed, so
# that a client that sends first sees the answer.
_MAX_SKIPPED_BYTES = 10 * 1024 * 1024

# Told of each answer: the request's environ, the status, and how long it took, if it did not wait
# for news. Thread: any.
Witness = Callable[[dict[str, Any], int, "float | None"], None]

# What a proxy may call a request.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r?\n", re.IGNORECASE)
# With one of these a thread has to see to the body.
_OTHER_BODY = re.compile(rb"\n(?:transfer-encoding|expect)[ \t]*:", re.IGNORECASE)


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
        self._buffer = bytearray()
        self._searched = 0
        self._wanted = 0  # bytes of the next request, once its head is here
        self._is_quick = False
        self.bytes_read = 0
        self.closed = False

    def has_data(self) -> bool:
        """Whether something has been read that nobody has asked for."""
        return bool(self._buffer)

    def has(self, size: int) -> bool:
        """Whether so many bytes can be read without waiting."""
        return len(self._buffer) >= size

    def fill(self) -> bool:
        """Read what has come; False at the end. Raises: OSError, also if nothing has."""
        more = self._socket.recv(_READ_BYTES)
        self.bytes_read += len(more)
        self._buffer += more
        return bool(more)

    def is_quick(self) -> bool:
        """Whether a small event is here, whole: it is answered without a wait."""
        return self._is_quick and len(self._buffer) == self._wanted

    def begin_request(self) -> None:
        """What comes next is a request's head."""
        self._searched = self._wanted = 0
        self._is_quick = False

    def has_request(self) -> bool:
        """Whether there is a head and a small body, or enough to refuse it."""
        if not self._wanted:
            found = _HEAD_END.search(self._buffer, max(0, self._searched - 2))
            if found is None:
                self._searched = len(self._buffer)
                return self._searched > _MAX_HEAD_BYTES
            head = bytes(self._buffer[: found.end()])
            sizes = [] if _OTHER_BODY.search(head) else _LENGTH.findall(head)
            size = int(sizes[0]) if len(sizes) == 1 else 0
            self._wanted = len(head) + (size if size <= _SMALL_REQUEST_BYTES else 0)
            is_small = size > 0 and len(head) + size <= _QUICK_BYTES
            self._is_quick = is_small and head.startswith(_EVENT)
        return self.has(self._wanted)

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
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def close(self) -> None:
        """Forget what was read; the socket is closed by its owner."""
        self._buffer, self.closed = bytearray(), True


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
    """The writing end of a socket. `rest` is what the client has not taken yet."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.rest = bytearray()
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        """Send what the client takes; wait for it only if that leaves too much."""
        self.rest += data
        timeout_s = self._socket.gettimeout()
        _set_timeout(self._socket, 0)
        try:
            self.send_rest()
        finally:
            _set_timeout(self._socket, timeout_s)
        while len(self.rest) > _MAX_REST_BYTES:
            self._send_some()
        return len(data)

    def send_rest(self) -> int:
        """Go on without waiting; return which event to wait for, 0 if nothing is left."""
        while self.rest:
            try:
                self._send_some()
            except (BlockingIOError, ssl.SSLWantWriteError):
                return selectors.EVENT_WRITE
            except ssl.SSLWantReadError:
                return selectors.EVENT_READ
        return 0

    def _send_some(self) -> None:
        sent = self._socket.send(bytes(self.rest[:_READ_BYTES]))
        del self.rest[:sent]
        self.bytes_written += sent

    def flush(self) -> None:
        """What is left goes out when the client takes it."""


def _set_timeout(sock: socket.socket, timeout_s: float | None) -> None:
    """Set it, unless it is that already: to set it takes a call to the kernel."""
    if sock.gettimeout() != timeout_s:
        sock.settimeout(timeout_s)


def _make_file(sock: socket.socket, mode: str = "r", _size: int = 0) -> _Reader | _Writer:
    return _Reader(sock) if "r" in mode else _Writer(sock)


class _Headers(server.HeaderReader):
    """Headers with one spelling: to WSGI, `X_Forwarded_For` would have the name of another one.

    cheroot's own reader for that compares bytes with text. Of a header that stands twice, or goes
    on in another line, it would keep the last line: those of `once` are refused.
    """

    def __init__(self, once: frozenset[bytes] = frozenset()) -> None:
        self._once = once
        self._seen: set[bytes] = set()

    def _transform_key(self, key_name: bytes) -> bytes:
        # A proxy in front may have taken `X-Forwarded-User :` for another header, and let it pass.
        if key_name != key_name.strip():
            raise ValueError("A header's name has a blank at its end.")
        return key_name.title()

    def _allow_header(self, key_name: bytes) -> bool:
        if key_name in self._once:
            if key_name in self._seen:
                raise ValueError("A header is there twice.")
            self._seen.add(key_name)
        return b"_" not in key_name


class _Request(server.HTTPRequest):
    header_reader = _Headers()

    def __init__(self, owner: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(owner, *arguments, **named)
        if owner.once:
            self.header_reader = _Headers(owner.once)


class Connection(server.HTTPConnection):
    """A connection that can be parked, and that waits for its client without a thread."""

    RequestHandlerClass = _Request

    def __init__(self, owner: Server, sock: socket.socket, _makefile: Any = None) -> None:
        super().__init__(owner, sock, _make_file)
        self.parked: Parked | None = None
        self.keeps_alive = True
        self.lingers = False  # closed when the client has finished
        # The request that is being answered, since when, and what its answer is to say of it.
        self._asked: tuple[float, dict[str, Any]] | None = None
        self._more_headers = b""
        self._is_over = False
        self._is_shaken = not isinstance(sock, ssl.SSLSocket)
        self._reading_since: float | None = None
        self._read_before = 0
        self.begin_reading()

    def advance(self) -> int:
        """Do what needs no waiting. Return which event to wait for, 0 if a request is here.

        Raises: OSError, ValueError when the connection has come to its end.
        """
        _set_timeout(self.socket, 0)
        try:
            if not self._is_shaken:
                self._shake_hands()
            event = self.wfile.send_rest()
            if event:
                return int(event)
            if self._is_over:
                return self._linger()
            while not self.rfile.has_request():
                is_more = self.rfile.fill()
                if self._reading_since is None:
                    self.begin_reading()
                if not is_more:
                    if not self.rfile.has_data():
                        raise ConnectionResetError("the client has left")
                    break  # half a request, which will never be more
        except (BlockingIOError, ssl.SSLWantReadError):
            return selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        return 0

    def communicate(self) -> bool:
        """Answer one request; return whether the connection stays."""
        if not self.rfile.is_quick():
            _set_timeout(self.socket, _SOCKET_TIMEOUT_S)
        self.rfile.begin_request()
        self.server.watch(self)
        try:
            keeps: bool = super().communicate()  # type: ignore[no-untyped-call]
            return keeps
        finally:
            self.end_reading()
            self.server.unwatch(self)

    def begin_reading(self) -> None:
        """From here on the peer has to send, and not too slowly."""
        self._read_before = self.rfile.bytes_read
        self._reading_since = time.monotonic()

    def end_reading(self) -> None:
        """What was to be read is here."""
        self._reading_since = None

    def has(self, size: int) -> bool:
        """Whether so many bytes of a body can be read without waiting."""
        has: bool = self.rfile.has(size)
        return has

    def is_too_slow(self, now: float, grace_s: float) -> bool:
        """Whether the peer should have sent more by now."""
        since = self._reading_since
        if since is None:
            return False
        received: int = self.rfile.bytes_read - self._read_before
        return now - since > grace_s + received / _MIN_RATE_BYTES_S

    def _shake_hands(self) -> None:
        try:
            self.socket.do_handshake()
        except ssl.SSLError as error:
            if "HTTP_REQUEST" in str(error):
                self._tell_of_https()
            raise
        self._is_shaken = True

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

    def answer(self, reply: bytes) -> None:
        """Send the whole answer to a request that was parked, and go on with the next one."""
        try:
            self.wfile.write(self.dressed(reply))
        except (OSError, ValueError):
            self.keeps_alive = False
        self.note(int(reply[9:12]))
        self.server.release(self)

    def dressed(self, reply: bytes) -> bytes:
        """Return a whole reply with what each has in its head."""
        more = self._more_headers
        if self.server.is_draining:
            more += b"Connection: close\r\n"
        return reply.replace(b"\r\n", b"\r\n" + more, 1) if more else reply

    def begin_noting(self, environ: dict[str, Any]) -> None:
        """Note that a request has come."""
        self._asked = time.perf_counter(), environ

    def give_id(self, request_id: str) -> None:
        """Let the answer have the request's id."""
        self._more_headers = f"X-Request-Id: {request_id}\r\n".encode()

    def note(self, status: int, *, has_waited: bool = False) -> None:
        """Tell how the request was answered; what `has_waited` for news has no duration."""
        asked, self._asked = self._asked, None
        if asked is not None:
            began, environ = asked
            self.server.witness(
                environ, status, None if has_waited else time.perf_counter() - began
            )

    def close(self) -> None:
        """Close it, unless somebody else owns it now, or an answer is still on its way."""
        if self.parked is not None:
            return
        if self.server.ready and not self._is_over and (self.lingers or self.wfile.rest):
            self._is_over = True
            self.server.attend(self)
            return
        self.server.forget(self)
        super().close()

    def give_up(self) -> None:
        """Close it, whatever the client has not got."""
        self._is_over = True
        self.close()

    def _linger(self) -> int:
        """Let the client finish: closed with unread bytes, it might never see the answer.

        Raises: OSError when it has.
        """
        if not self.lingers:
            raise ConnectionAbortedError("it has been answered")
        if self._reading_since is None:
            self.begin_reading()
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        for _ in range(_READS_AT_ONCE):
            self.rfile.close()
            is_more = self.rfile.fill()
            if not is_more or self.rfile.bytes_read - self._read_before > _MAX_SKIPPED_BYTES:
                raise ConnectionAbortedError("it has finished, or never will")
        return selectors.EVENT_READ

    def drop(self) -> None:
        """Make every read and write fail, from another thread."""
        try:
            # Not the method of a TLS socket, which takes its state away under the other's feet.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
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
        if self.req.server.is_draining:
            self.req.close_connection = True
        if self.req.server.witness is None:
            self._respond()
            return
        connection = self.req.conn
        connection.begin_noting(self.env)
        if self.req.server.names_requests:
            self._name()
        try:
            self._respond()
        except BaseException:
            connection.note(500)
            raise
        if connection.parked is None:
            connection.note(int(self.req.status[:3]))

    def _name(self) -> None:
        """Give the request an id, or take the one that a proxy has given it."""
        given = self.env.get("HTTP_X_REQUEST_ID", "")
        is_trusted = self.req.server.proxies.has(self.env.get("REMOTE_ADDR", ""))
        if not (is_trusted and _REQUEST_ID.fullmatch(given)):
            given = secrets.token_hex(8)
        self.env["gateway.request_id"] = given
        self.req.conn.give_id(given)
        self.req.outheaders.append((b"X-Request-Id", given.encode()))

    def _respond(self) -> None:
        response: Iterable[bytes] = self.req.server.wsgi_app(self.env, self.start_response)
        if isinstance(response, Parked):
            self.req.conn.parked = response
            self.req.conn.keeps_alive = not self.req.close_connection
            self.req.close_connection = False
            self.req.sent_headers = True  # the thread that has taken it sends them
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
        """Decide what becomes of a body that was not read to its end: nobody waits for it here."""
        stream, connection = self.req.rfile, self.req.conn
        if isinstance(stream, _Chunks):
            is_left = not stream.is_complete
        else:
            is_left = not connection.has(stream.remaining)
            if not is_left:
                stream.read(stream.remaining)
        if is_left:
            self.req.close_connection = connection.lingers = True


class _Waiting:
    """The connections that no thread works on, the oldest first. Thread: any."""

    def __init__(self, limit: int, proxies: TrustedProxies) -> None:
        self._limit = limit
        self._proxies = proxies  # everybody's connections come from them
        self._lock = threading.Lock()
        self._connections: dict[Connection, str] = {}

    def add(self, connection: Connection) -> None:
        """Count one, from its first time on; if it is one too many the oldest goes."""
        address = connection.remote_addr or ""
        with self._lock:
            if connection in self._connections:
                return
            self._connections[connection] = address
            if len(self._connections) <= _MAX_WAITING_OF_ONE:
                return
            of_one = []
            if not self._proxies.has(address):
                of_one = [each for each, other in self._connections.items() if other == address]
            oldest = None
            if len(of_one) > _MAX_WAITING_OF_ONE:
                oldest = of_one[0]
            elif len(self._connections) > self._limit:
                oldest = next(iter(self._connections))
            if oldest is not None:
                del self._connections[oldest]
        if oldest is not None:
            oldest.drop()

    def discard(self, connection: Connection) -> None:
        """No longer count it."""
        with self._lock:
            self._connections.pop(connection, None)

    def drop_oldest(self) -> None:
        """Make room for another one."""
        for connection in self.all()[:1]:
            self.discard(connection)
            connection.drop()

    def all(self) -> list[Connection]:
        """Return them."""
        with self._lock:
            return list(self._connections)


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
    _connections: Any  # made by `prepare`
    max_request_header_size = _MAX_HEAD_BYTES

    def __init__(
        self,
        address: tuple[str, int],
        application: Any,
        certificate: tuple[str, str] | None,
        proxies: TrustedProxies | None = None,
        threads: int = _THREADS,
    ) -> None:
        super().__init__(
            address,
            application,
            numthreads=threads,
            server_name="claude-runner-gateway",
            request_queue_size=_BACKLOG,
            timeout=_SOCKET_TIMEOUT_S,
            shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
        )
        self.gateway = _Gateway
        if certificate is not None:
            self.ssl_adapter = _Adapter(*certificate)
            self.ssl_adapter.context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Headers that no request may have twice.
        self.once: frozenset[bytes] = frozenset()
        self.bind_error: OSError | None = None
        self._working: set[Connection] = set()
        limit = min(_MAX_WAITING, _open_files_limit() // 3)
        self._waiting = _Waiting(limit, proxies or TrustedProxies())
        self._ended = threading.Event()
        self.is_draining = False
        self.proxies = proxies or TrustedProxies()
        self.witness: Witness | None = None
        self.names_requests = False
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
        elif self.ready:
            self.attend(connection)
        else:
            connection.give_up()

    def process_conn(self, connection: Connection) -> None:
        """Take a connection that is new, or for which something has come. Thread: cheroot's."""
        self.attend(connection, is_watching=True)

    def attend(self, connection: Connection, *, is_watching: bool = False) -> None:
        """Do what can be done for a connection without waiting; then it is a thread's turn, or the
        client's. Thread: any, one at a time; `is_watching` is the one that watches the sockets.
        """
        try:
            event = connection.advance()
            if event:
                self._waiting.add(connection)
                connection.last_used = time.time()
                # Not `put`, which knows one event only.
                selector = self._connections._selector
                selector.register(connection.socket.fileno(), event, connection)
                return
        except (OSError, ValueError, KeyError):
            connection.give_up()
            return
        self._waiting.discard(connection)
        if is_watching and connection.rfile.is_quick():
            self._take_event(connection)
        else:
            super().process_conn(connection)

    def _take_event(self, connection: Connection) -> None:
        keeps = False
        try:
            keeps = connection.communicate()
        except Exception:  # noqa: BLE001 - as one of cheroot's threads does
            self.error_log("an event could not be answered", logging.ERROR, traceback=True)
        if keeps or connection.parked is not None:
            self.put_conn(connection)
        else:
            connection.close()

    def release(self, connection: Connection) -> None:
        """Take back a connection that was parked, for its next request. Thread: any."""
        connection.note(200, has_waited=True)  # if nobody has
        connection.parked = None
        if connection.keeps_alive and self.ready and not self.is_draining:
            self.attend(connection)
        else:
            connection.close()

    def forget(self, connection: Connection) -> None:
        """No longer count a connection: it is being closed."""
        self._waiting.discard(connection)

    def watch(self, connection: Connection) -> None:
        """Look after a connection that holds a thread."""
        self._working.add(connection)

    def unwatch(self, connection: Connection) -> None:
        """No longer look after it."""
        self._working.discard(connection)

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            working = list(self._working)
            is_busy = len(working) > self.requests.min * 3 // 4
            grace_s = _GRACE_BUSY_S if is_busy or self.is_draining else _GRACE_S
            waiting_grace_s = _GRACE_BUSY_S if self.is_draining else _GRACE_S
            now = time.monotonic()
            for connection in working:
                if connection.is_too_slow(now, grace_s):
                    connection.drop()
            for connection in self._waiting.all():
                if connection.is_too_slow(now, waiting_grace_s):
                    connection.drop()

    def drain(self) -> None:
        """Answer what comes, and let each client connect anew afterwards: to another gateway."""
        self.is_draining = True

    def working(self) -> int:
        """Return how many requests are being read, computed or written by threads."""
        return len(self._working)

    def is_at_work(self) -> bool:
        """Whether a request is under way: being read, answered, or taken by its client."""
        if self._working or self.requests.qsize:
            return True
        return any(each.rfile.has_data() or each.wfile.rest for each in self._waiting.all())

    def stop(self) -> None:
        """End: no new connections, a moment for the requests that are being answered."""
        self._ended.set()
        for connection in list(self._working):
            if connection.is_too_slow(time.monotonic(), 0.0):
                connection.drop()
        super().stop()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - cheroot's own signature
        """Log what cheroot has to say; what clients do wrong is no error of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, socket.timeout, ssl.SSLError)):
            level, traceback = logging.DEBUG, False  # the client has left, or does not go on
        elif isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._waiting.drop_oldest()
            time.sleep(0.05)  # until it is closed; to accept is tried again at once
            level, traceback = logging.INFO, False
        logger.log(level, msg, exc_info=traceback)


def _open_files_limit() -> int:
    """Return how many files may be open, after asking for enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _WANTED_FILES:
        wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(_WANTED_FILES, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return _WANTED_FILES
