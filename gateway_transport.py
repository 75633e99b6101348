"""The sockets under a gateway client: bounded in time, abortable, and pinned where not verified.

`requests` leaves three things open that this project needs. A reply must end by a deadline however
slowly its bytes drip; another thread must be able to end an exchange; and a self-signed certificate
is trusted on first use and from then on only if it is the same one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import ssl
import time
import weakref
from typing import TYPE_CHECKING, Any, Callable, Final

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import urllib3.util.ssl_
import urllib3.util.ssl_match_hostname

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_MESSAGE_CHARS: Final = 300


class GatewayError(Exception):
    """The gateway cannot be used as configured; the message is a plain sentence for the user."""


class PinStore:
    """Fingerprints of certificates that do not verify, trusted on first use.

    A small JSON file, `{"host:port": "sha256 hex"}`, shared by all runs. `announce` is told once of
    each certificate that is pinned.
    """

    def __init__(self, path: Path, announce: Callable[[str], None]) -> None:
        self._path = path
        self._announce = announce

    def pinned(self, host: str) -> str | None:
        """Return the fingerprint that was pinned for `host:port`."""
        try:
            value = json.loads(self._path.read_text("utf-8")).get(host)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            raise GatewayError(
                f"{self._path} cannot be read ({error}); it holds the certificates trusted so far: "
                "mend it, or remove it to trust the gateway's certificate anew"
            ) from error
        return value if isinstance(value, str) else None

    def check(self, host: str, fingerprint: str) -> None:
        """Pin on first use. Raises GatewayError when another certificate was pinned."""
        known = self.pinned(host)
        if known is None:
            self._pin(host, fingerprint)
        elif not hmac.compare_digest(known, fingerprint):
            raise GatewayError(
                f"the certificate of {host} is not the one that was trusted before "
                f"(SHA-256 {_short(known)} then, {_short(fingerprint)} now); if you renewed it, "
                f"remove the line of {host} from {self._path}, otherwise somebody may be listening"
            )

    def _pin(self, host: str, fingerprint: str) -> None:
        try:
            pins = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            pins = {}
        pins[host] = fingerprint
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(pins, indent=2) + "\n", "utf-8")
        draft.chmod(0o600)
        draft.replace(self._path)
        self._announce(
            f"trusting the self-signed certificate of {host} from now on "
            f"(SHA-256 {_short(fingerprint)})"
        )


class ExchangeLimits:
    """The deadline of the exchange under way, which every socket of one client obeys.

    A socket's own time-out starts anew with every byte, so a gateway that drips would hold the
    thread for ever.
    """

    def __init__(self) -> None:
        self.deadline = float("inf")
        self._aborted = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def remaining_s(self) -> float:
        """Return how long a socket may still block; raises when it may not."""
        if self._aborted:
            raise ConnectionAbortedError
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise socket.timeout  # what urllib3 expects; on Python 3.9 it is no TimeoutError
        return remaining_s

    def watch(self, sock: socket.socket) -> None:
        """Let `abort` reach this socket too."""
        self._sockets.add(sock)
        if self._aborted:
            self.abort()

    def abort(self) -> None:
        """End the exchange under way, and refuse every later one. Thread: any."""
        self._aborted = True
        for sock in list(self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # not connected any more, which is what was wanted


class _BoundedSocket(socket.socket):
    limits: ExchangeLimits

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self.limits.remaining_s())
        return super().recv_into(*args, **kwargs)


class _BoundedTlsSocket(ssl.SSLSocket):
    limits: ExchangeLimits

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self.limits.remaining_s())
        return super().recv_into(*args, **kwargs)


class _HttpConnection(urllib3.connection.HTTPConnection):
    limits: ExchangeLimits

    def _new_conn(self) -> socket.socket:
        return _open_bounded(super()._new_conn(), self.limits)


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    limits: ExchangeLimits
    pins: PinStore | None

    def _new_conn(self) -> socket.socket:
        return _open_bounded(super()._new_conn(), self.limits)

    def connect(self) -> None:
        """Connect to a certificate that verifies, or to the one that is pinned for this host."""
        if self.pins is None:
            self._handshake(verify=True)
            return
        host = f"{self._tunnel_host or self.host}:{self._tunnel_port or self.port}"
        if self.pins.pinned(host) is not None:
            # The usual case with a self-signed gateway, so it comes first.
            self._handshake(verify=False)
            if self._fingerprint() == self.pins.pinned(host):
                return
            self._drop()
        try:
            self._handshake(verify=True)
        except (ssl.SSLCertVerificationError, urllib3.util.ssl_match_hostname.CertificateError):
            self._drop()
            self._handshake(verify=False)
            self.pins.check(host, self._fingerprint())

    def _handshake(self, *, verify: bool) -> None:
        cert_reqs = self.cert_reqs
        self.ssl_context = urllib3.util.ssl_.create_urllib3_context(
            cert_reqs=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        )
        self.ssl_context.sslsocket_class = _BoundedTlsSocket
        if not verify:
            self.cert_reqs = "CERT_NONE"
            self.ssl_context.check_hostname = False
        try:
            super().connect()
        finally:
            self.cert_reqs = cert_reqs
        if isinstance(self.sock, _BoundedTlsSocket):
            self.sock.limits = self.limits
            self.limits.watch(self.sock)
        # A pinned certificate is as good as a verified one; urllib3 would warn at each request.
        self.is_verified = True

    def _fingerprint(self) -> str:
        if not isinstance(self.sock, ssl.SSLSocket):
            raise GatewayError("a TLS connection inside another one cannot be pinned")
        certificate = self.sock.getpeercert(binary_form=True) or b""
        return hashlib.sha256(certificate).hexdigest()

    def _drop(self) -> None:
        # Not close(): that would also forget the proxy's tunnel.
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """Puts this module's connections under requests, direct ones and those through a proxy."""

    def __init__(self, limits: ExchangeLimits, pins: PinStore | None) -> None:
        members = {"limits": limits, "pins": pins}
        http = type("HttpConnection", (_HttpConnection,), members)
        https = type("HttpsConnection", (_HttpsConnection,), members)
        self._pools = {
            "http": type("HttpPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": http}),
            "https": type("HttpsPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": https}),
        }
        # One connection; and never a retry down here: it would repeat what must be decided above.
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Build the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Build the pools for connections through a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _open_bounded(plain: socket.socket, limits: ExchangeLimits) -> socket.socket:
    timeout = plain.gettimeout()
    bounded = _BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    bounded.settimeout(timeout)
    bounded.limits = limits
    limits.watch(bounded)
    return bounded


def printable(text: str, max_chars: int = _MAX_MESSAGE_CHARS) -> str:
    """Return a foreign text with control characters shown instead of obeyed, and bounded."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"


def describe_error(error: BaseException) -> str:
    """Turn a network error into a few words, without the nested text of the libraries."""
    chain = list(_causes(error))
    for kind, words in _NETWORK_ERRORS:
        cause = next((c for c in chain if isinstance(c, kind)), None)
        if cause is not None:
            return words or printable(str(cause))
    return printable(type(error).__name__)


# The first kind that is found in the chain of causes names the error. None: its own words are good.
_NETWORK_ERRORS: Final[tuple[tuple[type[BaseException], str | None], ...]] = (
    (ssl.SSLCertVerificationError, "its certificate does not verify"),
    (ssl.SSLError, "the TLS handshake failed (is it an http:// address?)"),
    (urllib3.exceptions.ProxyError, "the proxy does not let the request through"),
    (socket.gaierror, "its host name is not known"),
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionResetError, "the connection was reset"),
    (ConnectionAbortedError, "the exchange was broken off"),
    (TimeoutError, "it did not answer in time"),
    (socket.timeout, "it did not answer in time"),
    (urllib3.exceptions.TimeoutError, "it did not answer in time"),
    (urllib3.exceptions.IncompleteRead, "the answer was cut off"),
    (urllib3.exceptions.ProtocolError, "the connection was closed without an answer"),
    (OSError, None),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and everything that it wraps, outermost first."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        reason = getattr(current, "reason", None)
        queue += [*current.args, reason, current.__cause__, current.__context__]


def _short(fingerprint: str) -> str:
    return f"{fingerprint[:16]}…"
