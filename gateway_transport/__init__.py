"""The sockets under a gateway client: bounded in time, abortable, and pinned where not verified.

`requests` leaves three things open that this project needs. An exchange must end by a deadline
however slowly its bytes drip; another thread must be able to end it in whatever call it blocks; and
a self-signed certificate is trusted on first use and from then on only if it is the same one.

To import `requests` takes as long as all else of a start. So what is needed before a run's program
is started is in this module and in `glance`, and what is under `requests` in `adapter`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hmac
import json
import os
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Callable, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONNECT_TIMEOUT_S: Final = 10.0
# A peer that takes nothing for this long has answered already, or never will.
STALL_TIMEOUT_S: Final = 15.0
# Slower than any line that a run's output fits through; a body may take its size divided by this.
_SLOWEST_BYTES_PER_S: Final = 16_384
_SEND_BYTES: Final = 65_536
# A reply with its head is far below. Older releases of urllib3 read a line of any length.
_MAX_RECEIVED_BYTES: Final = 4_194_304
# What such a file holds, and what comes of removing it.
_PINNED: Final = ("the certificates trusted so far", "trust the gateway's certificate again")
VERIFIED: Final = ("the gateways whose certificate verified", "forget that of all of them")


class GatewayError(Exception):
    """The gateway cannot be used as configured; the message is a plain sentence for the user."""


class CertificateChangedError(GatewayError):
    """A gateway shows another certificate than the one that is pinned for it.

    `trusted` and `offered` are their fingerprints; `remedy` says how to trust the other one.
    `accept` pins that in the place of the first; it raises GatewayError.
    """

    def __init__(
        self,
        host: str,
        trusted: str,
        offered: str,
        remedy: str,
        accept: Callable[[], None],
    ) -> None:
        super().__init__(
            f"the certificate of {host} is not the one that was trusted before "
            f"(SHA-256 {_short(trusted)} then, {_short(offered)} now); if you renewed it, "
            f"{remedy}, otherwise the connection may be intercepted"
        )
        self.host = host
        self.trusted = trusted
        self.offered = offered
        self.remedy = remedy
        self.accept = accept


class BodyError(OSError):
    """The body of a request cannot be read as it was announced; the message says why."""


class EndlessReplyError(OSError):
    """A reply is longer than any could be."""


class PinStore:
    """Fingerprints of certificates that do not verify, trusted on first use.

    A small JSON file, `{"host:port": "sha256 hex"}`, shared by all runs. `announce` is told once of
    each certificate that is pinned. `verified`, a file of the same kind that no project can bring
    along, names the hosts whose certificate verified: none is pinned for those. Thread: any.
    Raises GatewayError when a file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        announce: Callable[[str], None],
        verified: Path | None = None,
        content: tuple[str, str] = _PINNED,
    ) -> None:
        self._path = path
        self._content = content
        self._announce = announce
        self._verified = (
            None if verified is None else PinStore(verified, announce, content=VERIFIED)
        )
        # Also where the file cannot be written.
        self._seen: set[str] = set()

    def note_verified(self, host: str) -> None:
        """Remember that a certificate of `host:port` verified."""
        if self._verified is None or self.has_verified(host):
            return
        self._seen.add(host)
        try:
            self._verified.add(host, "verified")
        except GatewayError as error:
            self._announce(str(error))

    def has_verified(self, host: str) -> bool:
        """Whether a certificate of `host:port` has ever verified."""
        if self._verified is None:
            return False
        return host in self._seen or self._verified.pinned(host) is not None

    def refuse(self, host: str) -> GatewayError:
        """Return the error for a certificate of a host whose earlier one verified."""
        path = None if self._verified is None else self._verified._path
        return GatewayError(
            f"the certificate of {host} does not verify, and an earlier one did, so somebody may "
            "be listening; if it verified by REQUESTS_CA_BUNDLE, set that again; if the gateway "
            f"really has another kind of certificate now, remove the line of {host} from {path}"
        )

    def pinned(self, host: str) -> str | None:
        """Return the fingerprint that was pinned for `host:port`."""
        return self._read().get(host)

    def add(self, host: str, value: str) -> str | None:
        """Add a line for `host:port`, unless there is one. Returns what was there."""
        with self._locked():
            lines = self._read()
            known = lines.get(host)
            if known is None:
                self._write({**lines, host: value})
        return known

    def check(self, host: str, fingerprint: str) -> None:
        """Pin on first use. Raises GatewayError when another certificate was pinned."""
        known = self.add(host, fingerprint)
        if known is None:
            self._announce(
                f"trusting the self-signed certificate of {host} from now on "
                f"(SHA-256 {_short(fingerprint)})"
            )
            return
        pinned = known
        if not hmac.compare_digest(pinned, fingerprint):
            raise CertificateChangedError(
                host,
                pinned,
                fingerprint,
                f"remove the line of {host} from {self._path}",
                lambda: self._replace(host, pinned, fingerprint),
            )

    def _replace(self, host: str, known: str, fingerprint: str) -> None:
        """Pin another certificate, if `known` is still the one that is pinned."""
        with self._locked():
            lines = self._read()
            if lines.get(host) == known:
                self._write({**lines, host: fingerprint})

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two runs from losing each other's pin: a lost one would be trusted anew."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(
                self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)
        except OSError as error:
            raise GatewayError(
                f"the gateway's certificate cannot be remembered in {self._path} "
                f"({error.strerror}); make that folder writable, or name "
                "another (CLAUDE_RUNNER_DATA_DIR, XDG_STATE_HOME)"
            ) from error

    def _read(self) -> dict[str, str]:
        try:
            pins = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            pins = None
        if not isinstance(pins, dict) or not all(isinstance(pin, str) for pin in pins.values()):
            raise GatewayError(
                f"{self._path} cannot be read; it holds {self._content[0]}: "
                f"correct it, or remove it to {self._content[1]}"
            )
        return pins

    def _write(self, pins: dict[str, str]) -> None:
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(pins, indent=2) + "\n", "utf-8")
        draft.chmod(0o600)
        draft.replace(self._path)


class ExchangeLimits:
    """The time limits of the exchange under way, which every socket of one client obeys.

    A socket's own time-out starts anew with every byte, so a gateway that drips would hold the
    thread for ever. An exchange has two deadlines: one for the request, which depends on its size,
    and one for the reply, which begins when the request is out. And what is received is counted,
    because a head, a chunk's size and what follows the last chunk may have no end.
    """

    def __init__(self) -> None:
        self._deadline = float("inf")
        self._reply_timeout_s = 0.0
        self._received_bytes = 0
        self._lock = threading.Lock()
        self._is_aborted = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        # Whether the peer stopped taking the request, so that the connection is of no more use.
        self.has_stalled = False

    def begin(self, body_bytes: int, reply_timeout_s: float) -> None:
        """Start the clock of a new exchange."""
        request_s = 2 * CONNECT_TIMEOUT_S + STALL_TIMEOUT_S + body_bytes / _SLOWEST_BYTES_PER_S
        self._deadline = time.monotonic() + request_s
        self._reply_timeout_s = reply_timeout_s
        self._received_bytes = 0
        self.has_stalled = False

    def begin_reply(self) -> None:
        """Note that the request is out, or as much of it as the peer takes."""
        self._deadline = time.monotonic() + self._reply_timeout_s

    def count(self, received_bytes: int) -> int:
        """Count what was received, and return it. Raises EndlessReplyError."""
        self._received_bytes += received_bytes
        if self._received_bytes > _MAX_RECEIVED_BYTES:
            # With a number, as in `_aborted`.
            raise EndlessReplyError(errno.EMSGSIZE, "the answer has no end")
        return received_bytes

    def remaining_s(self, at_most_s: float = float("inf")) -> float:
        """Return how long a socket may still block; raises when it may not."""
        if self._is_aborted:
            raise _aborted()
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise socket.timeout  # what urllib3 expects; on Python 3.9 it is no TimeoutError
        return min(remaining_s, at_most_s)

    def watch(self, sock: socket.socket) -> None:
        """Let `abort` reach this socket too."""
        with self._lock:
            self._sockets.add(sock)
            if self._is_aborted:
                raise _aborted()

    def abort(self) -> None:
        """End the exchange under way, and refuse every later one. Thread: any."""
        with self._lock:
            self._is_aborted = True
            for sock in self._sockets:
                try:
                    # SSLSocket.shutdown would take the TLS state from under the owner's feet, who
                    # may be inside a read; the plain one only ends the stream below it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except (OSError, ValueError):
                    pass  # not connected any more, which is what was wanted

    @contextlib.contextmanager
    def waiting(self, sock: socket.socket, at_most_s: float = float("inf")) -> Iterator[None]:
        """Let one call block on the socket, and name it when the call ends because of `abort`."""
        sock.settimeout(self.remaining_s(at_most_s))
        try:
            yield
        except OSError:
            if self._is_aborted:
                raise _aborted() from None
            raise
        if self._is_aborted:
            raise _aborted()

    def send_all(self, sock: socket.socket, data: Any) -> None:
        """Send all of `data`, as long as the peer takes some of it from time to time."""
        left = memoryview(data).cast("B")
        while left:
            try:
                with self.waiting(sock, STALL_TIMEOUT_S):
                    left = left[sock.send(left[:_SEND_BYTES]) :]
            except socket.timeout:
                # A server may refuse a large body by its head and read no further. urllib3 takes
                # this error for that case, and reads the answer.
                self.has_stalled = True
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None


def _aborted() -> ConnectionAbortedError:
    # With a number: Python 3.9 looks for one in every error that passes its socket files.
    return ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))


def _short(fingerprint: str) -> str:
    return f"{fingerprint[:16]}…"
