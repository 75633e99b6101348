"""What a proxy in front says of a request: who sent it, under which name, and how.

Anybody can send these headers, so they count only from an address that the operator has named. Of
`X-Forwarded-For` the right end was written by the proxy that is connected, and what stands left of
it counts only if that one is trusted too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Union

from cheroot import server

_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# Proxies in a row that are believed; and so much is looked at, from the right.
_MAX_HOPS = 10
_MAX_CHARACTERS = 1_000
_MAX_KNOWN = 1_000
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")

# HAProxy adds a line of its own below one that the client has sent; cheroot would keep the last.
_JOINED: list[bytes] = vars(server)["comma_separated_headers"]
if b"X-Forwarded-For" not in _JOINED:
    _JOINED.append(b"X-Forwarded-For")


class TrustedProxies:
    """The networks whose word counts. Thread: any."""

    def __init__(self, networks: Sequence[_Network] = ()) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}

    @classmethod
    def parse(cls, text: str) -> TrustedProxies:
        """Read networks, such as `10.0.0.0/8 ::1`. Raises: ValueError."""
        words = text.replace(",", " ").split()
        return cls([ipaddress.ip_network(each, strict=False) for each in words])

    def __bool__(self) -> bool:
        return bool(self._networks)

    def has(self, address: str) -> bool:
        """Whether a connection from there is a trusted proxy's."""
        if not self._networks:
            return False
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            parsed = _parse(address)
            found = self._known[address] = parsed is not None and self._holds(parsed)
        return found

    def _holds(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)

    def apply(self, environ: dict[str, Any]) -> None:
        """Put into a WSGI environ what a trusted proxy says; leave any other request as it is.

        `gateway.is_proxied` is whether a trusted proxy has sent it.
        """
        peer = environ.get("REMOTE_ADDR", "")
        is_proxied = environ["gateway.is_proxied"] = self.has(peer)
        if not is_proxied:
            return
        environ["REMOTE_ADDR"] = self._client(peer, environ.get("HTTP_X_FORWARDED_FOR", ""))
        scheme = _last(environ.get("HTTP_X_FORWARDED_PROTO", "")).lower()
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
        host = _last(environ.get("HTTP_X_FORWARDED_HOST", ""))
        if host:
            environ["HTTP_HOST"] = host

    def _client(self, peer: str, forwarded: str) -> str:
        """Return the address next to the trusted proxies; of a header that ends in the middle, or
        is not to be read, the last proxy that it names.
        """
        client = peer
        for entry in reversed(forwarded[-_MAX_CHARACTERS:].split(",")[-_MAX_HOPS:]):
            address = _parse(entry.strip())
            if address is None:
                break
            client = str(address)
            if not self._holds(address):
                break
        return client


def _parse(text: str) -> _Address | None:
    """Return an address that may have brackets and a port; None for anything else."""
    found = _WITH_PORT.fullmatch(text)
    try:
        # Not with a zone, which may be any text.
        if "%" in text:
            return None
        address = ipaddress.ip_address(found[1] or found[2] if found else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _last(text: str) -> str:
    return text.rpartition(",")[2].strip()
