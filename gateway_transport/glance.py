"""One question to a gateway on this machine, with Python alone: an answer at once, or nothing.

`requests` takes as long to import as all else of a start. It is asked whenever this has no answer,
so all that is unusual (a refusal, another certificate, a proxy) is told in one place.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway_transport import GatewayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_transport import PinStore

_PATIENCE_S: Final = 10.0
_MAX_BYTES: Final = 65_536


def glance(url: str, headers: Mapping[str, str], pins: PinStore | None) -> bytes | None:
    """Return the body of a plain answer with status 200; None for whatever else. Raises nothing.

    Over TLS only to the certificate that is pinned.
    """
    parts = urlsplit(url)
    host, is_secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    try:
        pinned = _find_pin(f"{host}:{port}", pins) if is_secure else None
        if is_secure and pinned is None:
            return None
        # As bytes: for a text Python imports what internationalised names need.
        address: Any = (host.encode("ascii"), port)
        with socket.create_connection(address, _PATIENCE_S) as sock:
            if pinned is None:
                return _ask(sock, lines)
            return _ask_securely(sock, lines, pinned)
    except (OSError, ValueError, GatewayError):
        return None


def _find_pin(host: str, pins: PinStore | None) -> str | None:
    return None if pins is None or pins.has_verified(host) else pins.pinned(host)


def _ask_securely(sock: socket.socket, lines: list[str], pinned: str) -> bytes | None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(sock) as secure:
        shown = hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
        return _ask(secure, lines) if hmac.compare_digest(pinned, shown) else None


def _ask(sock: socket.socket, lines: list[str]) -> bytes | None:
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    give_up_at = time.monotonic() + _PATIENCE_S
    received = b""
    while block := sock.recv(_MAX_BYTES):
        received += block
        if len(received) > _MAX_BYTES or time.monotonic() > give_up_at:
            return None
    head, _, body = received.partition(b"\r\n\r\n")
    status, _, fields = head.lower().partition(b"\r\n")
    is_plain = b"\r\ntransfer-encoding:" not in b"\r\n" + fields
    return body if is_plain and status.startswith((b"http/1.1 200", b"http/1.0 200")) else None
