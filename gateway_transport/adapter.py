"""What is put under `requests`: connections of bounded sockets, and pinned certificates."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import importlib
import socket
import ssl
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Callable, Final

import certifi
import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import urllib3.util.ssl_
from urllib3.util.ssl_match_hostname import CertificateError as _CertificateError

from gateway_transport import (
    CONNECT_TIMEOUT_S,
    BodyError,
    EndlessReplyError,
    ExchangeLimits,
    GatewayError,
    PinStore,
)
from redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


def _acknowledge_at_once(sock: socket.socket) -> None:
    """Acknowledge what comes next without a delay, where the system can be told so.

    A gateway that writes head and body of an answer apart sends the body after the head was
    acknowledged (Nagle's algorithm), which takes 40 ms otherwise. Source: tcp(7), TCP_QUICKACK,
    which lasts for a moment.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        with contextlib.suppress(OSError):  # the call that follows tells what is wrong
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _BoundedSocket(socket.socket):
    limits: ExchangeLimits

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _acknowledge_at_once(self)
        with self.limits.waiting(self):
            return self.limits.count(super().recv_into(*args, **kwargs))

    def sendall(self, data: Any, _flags: int = 0) -> None:
        self.limits.send_all(self, data)


class _BoundedTlsSocket(ssl.SSLSocket):
    limits: ExchangeLimits

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as inherited
        self.limits.watch(self)
        with self.limits.waiting(self, CONNECT_TIMEOUT_S):
            super().do_handshake(block)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _acknowledge_at_once(self)
        with self.limits.waiting(self):
            return self.limits.count(super().recv_into(*args, **kwargs))

    def sendall(self, data: Any, _flags: int = 0) -> None:
        self.limits.send_all(self, data)


class _MayUseSocks:
    """A connection that a SOCKS proxy may make; urllib3 gives its pools what that one needs."""

    def __init__(self, *args: Any, _socks_options: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.socks_options = _socks_options


class _HttpConnection(_MayUseSocks, urllib3.connection.HTTPConnection):
    limits: ExchangeLimits

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.limits)

    def getresponse(self) -> Any:
        self.limits.begin_reply()
        return super().getresponse()


class _HttpsConnection(_MayUseSocks, urllib3.connection.HTTPSConnection):
    limits: ExchangeLimits
    pins: PinStore | None
    tls_socket: type[_BoundedTlsSocket]

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.limits)

    def getresponse(self) -> Any:
        self.limits.begin_reply()
        return super().getresponse()

    def connect(self) -> None:
        """Connect to a certificate that verifies, or to the one that is pinned for this host."""
        if self.pins is None:
            self._handshake(verify=True)
            return
        host = f"{self._tunnel_host or self.host}:{self._tunnel_port or self.port}"
        has_verified = self.pins.has_verified(host)
        pinned = None if has_verified else self.pins.pinned(host)
        if pinned is not None:
            # The usual case with a self-signed gateway, so it comes first.
            self._handshake(verify=False)
            if hmac.compare_digest(pinned, self._fingerprint()):
                return
            self._drop()
        try:
            self._handshake(verify=True)
        except (ssl.SSLCertVerificationError, _CertificateError):
            self._drop()
            if has_verified:
                raise self.pins.refuse(host) from None
            self._handshake(verify=False)
            self.pins.check(host, self._fingerprint())
        else:
            self.pins.note_verified(host)

    def _handshake(self, *, verify: bool) -> None:
        cert_reqs = self.cert_reqs
        self.ssl_context = urllib3.util.ssl_.create_urllib3_context(
            cert_reqs=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        )
        self.ssl_context.sslsocket_class = self.tls_socket
        if not verify:
            self.cert_reqs = "CERT_NONE"
            self.ssl_context.check_hostname = False
        try:
            super().connect()
        finally:
            self.cert_reqs = cert_reqs
        # A pinned certificate is as good as a verified one; urllib3 would warn at each request.
        self.is_verified = True

    def _fingerprint(self) -> str:
        if not isinstance(self.sock, ssl.SSLSocket):
            raise GatewayError(
                "a self-signed gateway cannot be reached through a proxy whose own address is "
                "https; use an http proxy, or a certificate that verifies"
            )
        certificate = self.sock.getpeercert(binary_form=True) or b""
        return hashlib.sha256(certificate).hexdigest()

    def _drop(self) -> None:
        # Not close(): that would also forget the proxy's tunnel.
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Session(requests.Session):
    """A session of `requests` whose connections are this module's."""

    def __init__(
        self, limits: ExchangeLimits, pins: PinStore | None, authorities: str | None
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = authorities or certifi.where()
        adapter = BoundedAdapter(limits, pins)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        # Nothing here needs one: a balancer's would bind all to one server, and each reply could
        # bring a hundred that are kept and sent.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def get_redirect_target(self, _resp: Any) -> None:
        """See no redirect: requests would read the whole body of one, followed or not."""


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """Puts this module's connections under requests, direct ones and those through a proxy."""

    def __init__(self, limits: ExchangeLimits, pins: PinStore | None) -> None:
        tls_socket = type("TlsSocket", (_BoundedTlsSocket,), {"limits": limits})
        members = {"limits": limits, "pins": pins, "tls_socket": tls_socket}
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

    def close(self) -> None:
        """Close the connection now; urllib3 leaves that to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated itself
                manager.pools[key].close()
        super().close()


def _connect(connection: Any, limits: ExchangeLimits) -> socket.socket:
    """Connect to the first address of a urllib3 connection's host that answers.

    Not urllib3's own function: `abort` has to reach the socket while it connects. A failure is
    raised as urllib3 raises it: it takes a bare reset for one of the request, of which a refusal
    could be read, and fails on the socket that is not there.
    """
    try:
        return _connect_socket(connection, limits)
    except OSError as error:
        if connection.socks_options:
            raise urllib3.exceptions.ProxyError(str(error), error) from error
        raise urllib3.exceptions.NewConnectionError(connection, str(error)) from error


def _connect_socket(connection: Any, limits: ExchangeLimits) -> socket.socket:
    """Return the connected socket. The look-up of the name is the one step that nothing bounds."""
    socks = connection.socks_options
    gateway = (connection._dns_host.strip("[]"), connection.port)
    host, port = (
        (socks["proxy_host"].strip("[]"), socks["proxy_port"] or 1080) if socks else gateway
    )
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not a host name") from error
    failure: OSError = socket.gaierror(socket.EAI_NONAME, f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        make = _socks_socket(socks, address) if socks else _BoundedSocket
        sock = make(family, kind, protocol)
        sock.limits = limits
        try:
            limits.watch(sock)
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            with limits.waiting(sock, CONNECT_TIMEOUT_S):
                sock.connect(gateway if socks else address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _socks_socket(options: Any, proxy: Any) -> Callable[..., _BoundedSocket]:
    """Return what makes sockets that connect through a SOCKS proxy. It needs PySocks."""
    made = type("SocksSocket", (_BoundedSocket, importlib.import_module("socks").socksocket), {})

    def make(*kind: Any) -> Any:
        sock = made(*kind)
        sock.set_proxy(
            options["socks_version"],
            proxy[0],
            proxy[1],
            options["rdns"],
            options["username"],
            options["password"],
        )
        return sock

    return make


def describe_error(error: BaseException) -> str:
    """Turn a network error into a few words, without the nested text of the libraries."""
    chain = list(_causes(error))
    if any(isinstance(each, urllib3.exceptions.ProxyError) for each in chain) and any(
        isinstance(each, (ConnectionRefusedError, socket.gaierror, socket.timeout, TimeoutError))
        for each in chain
    ):
        return "the proxy cannot be reached"
    for kind, words in _NETWORK_ERRORS:
        cause = next((c for c in chain if isinstance(c, kind)), None)
        if cause is not None:
            return words or printable(str(cause))
    return printable(type(error).__name__)


# The first kind that is found in the chain of causes names the error. None: its own words are good.
_NETWORK_ERRORS: Final[tuple[tuple[type[BaseException], str | None], ...]] = (
    (BodyError, None),
    (EndlessReplyError, "the answer has no end"),
    (ssl.SSLCertVerificationError, "its certificate does not verify"),
    (_CertificateError, "its certificate does not verify"),
    (ConnectionAbortedError, "the exchange was broken off"),
    (ssl.SSLError, "the TLS connection failed (is it an http:// address?)"),
    (urllib3.exceptions.ProxyError, "the proxy does not let the request through"),
    (socket.gaierror, "its host name is not known"),
    (ConnectionRefusedError, "the connection was refused"),
    (http.client.RemoteDisconnected, "the connection was closed without an answer"),
    (ConnectionResetError, "the connection was reset"),
    (TimeoutError, "it did not answer in time"),
    (socket.timeout, "it did not answer in time"),
    (urllib3.exceptions.ReadTimeoutError, "it did not answer in time"),
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
