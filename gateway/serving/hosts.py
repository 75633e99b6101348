"""Under which names the gateway is reached, and which names a request may use for it.

A page of a stranger can make its own name point to this machine (DNS rebinding), and would then be
of the same origin as the gateway. So a request whose `Host` is none of ours is refused.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

# The first part of every path that the gateway answers.
OWN_PATHS = frozenset({"", "api", "login", "logout", "notifications", "runs", "static"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Hosts:
    """The names that are ours. `names` go with any port: a forwarded one is as good; the public
    address is taken as it is.
    """

    scheme: str
    names: frozenset[str]
    public_url: str | None

    @property
    def base_path(self) -> str:
        """The path of the public address, without a slash at its end; mostly empty."""
        return urlsplit(self.public_url or "").path

    def is_ours(self, host: str) -> bool:
        """Whether a `Host` header names this gateway."""
        if self.public_url and host.lower() == urlsplit(self.public_url).netloc:
            return True
        return _host_name(f"//{host}") in self.names

    def is_https(self, host: str) -> bool:
        """Whether a browser that asked for this `Host` sees https: from us, or from the proxy."""
        if self.scheme == "https":
            return True
        public = urlsplit(self.public_url or "")
        return public.scheme == "https" and public.netloc == host.lower()

    def is_our_origin(self, origin: str, host: str, scheme: str) -> bool:
        """Whether an `Origin` is the page that was served under this `Host`.

        A proxy that speaks https outside and http to us is known by `public_url`, or by what it
        says, which is in `scheme`.
        """
        allowed = {f"{scheme}://{host}".lower()}
        if self.public_url:
            allowed.add(self.public_url[: len(self.public_url) - len(self.base_path)])
        return origin.lower() in allowed


def is_address(host: str) -> bool:
    """Whether a `Host` header is absent, or is a number and no name."""
    try:
        return not host or bool(ipaddress.ip_address(_host_name(f"//{host}")))
    except ValueError:
        return False


def _host_name(address: str) -> str:
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for what is no number
    except ValueError:
        return ""
    is_plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    return parts.hostname or "" if is_plain else ""


def find_hosts(host: str, scheme: str, public_url: str | None) -> Hosts:
    """Return the names under which a gateway that listens on `host` may be asked for."""
    names = set(LOOPBACK_NAMES)
    if is_any(host):
        names |= set(lan_addresses())
    else:
        names.add(host.lower())
    return Hosts(scheme, frozenset(names), public_url)


def is_any(host: str) -> bool:
    """Whether it means every address of this machine."""
    return host in ("0.0.0.0", "::")  # noqa: S104 - it is what the user asked for


def local_name(host: str) -> str:
    """Return the name under which a gateway that listens on `host` is reached from its machine."""
    return "localhost" if is_any(host) or host in ("127.0.0.1", "::1") else host


def lan_addresses() -> list[str]:
    """Return the addresses that another device in the same network can use, the likeliest first."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Nothing is sent: it only asks which of our addresses such a packet would have.
            sock.connect(("192.0.2.1", 9))
            found.append(sock.getsockname()[0])
        except OSError:
            pass  # there is no network
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    except OSError:
        infos = []
    found += [str(info[4][0]) for info in infos]
    unique = list(dict.fromkeys(found))
    return [each for each in unique if not ipaddress.ip_address(each).is_loopback]


def page_url(hosts: Hosts, host: str, port: int) -> str:
    """Return the address of the page for a link that is opened elsewhere, such as on a phone."""
    if hosts.public_url:
        return hosts.public_url
    addresses = lan_addresses() if is_any(host) else []
    if is_any(host) or host in ("127.0.0.1", "::1"):
        host = addresses[0] if addresses else "localhost"
    return base_url(hosts.scheme, host, port)


def base_url(scheme: str, host: str, port: int) -> str:
    """Return an address for people; the usual port is left out."""
    name = f"[{host}]" if ":" in host else host
    is_usual = port == (443 if scheme == "https" else 80)
    return f"{scheme}://{name}" if is_usual else f"{scheme}://{name}:{port}"
