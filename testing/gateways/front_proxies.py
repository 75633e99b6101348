"""nginx, HAProxy and Caddy in front of gateways, each with the configuration of docs/proxies.

    with running("nginx", folder, port, [gw.port]) as front: ...

Of the file only what has to differ is changed: ports, the host's name and where certificates are.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from testing.gateways.embedded_gateway import ROOT, EmbeddedGateway
from testing.waiting import eventually

FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}
BASE = "/runs"
# Another address than the proxy's own, where the machine has it.
CLIENT = "127.0.0.2" if sys.platform.startswith("linux") else "127.0.0.1"
_STARTS_S = 30
_ENDS_S = 30

# What Debian's nginx.conf has around a file of conf.d.
_NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/log; {user}
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {file};
}}
"""
_CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


@dataclass(frozen=True)
class Front:
    """A running proxy. `authority` is the file that a client verifies its certificate with."""

    name: str
    port: int
    authority: Path

    @property
    def url(self) -> str:
        """What people open, and runners are given."""
        return f"https://localhost:{self.port}{BASE}"

    def connect(self, source: str = CLIENT, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """Return a new connection; its requests are below the base path."""
        context = ssl.create_default_context(cafile=str(self.authority))
        return _Below("localhost", self.port, context, timeout_s, source)

    def spoken(self) -> str | None:
        """Return what it speaks with a client that knows HTTP/2."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 20))
            wrapped = stack.enter_context(context.wrap_socket(raw, server_hostname="localhost"))
            return wrapped.selected_alpn_protocol()


class _Below(http.client.HTTPSConnection):
    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, timeout_s: float, source: str
    ) -> None:
        super().__init__(host, port, context=context, timeout=timeout_s)
        self._wraps, self._source = context, source

    def connect(self) -> None:
        # The certificate is for the name, and the source has to be of the same family.
        raw = socket.create_connection(("127.0.0.1", self.port), self.timeout, (self._source, 0))
        self.sock = self._wraps.wrap_socket(raw, server_hostname=self.host)

    def putrequest(self, method: str, url: str, *args: Any, **more: Any) -> None:
        super().putrequest(method, f"{BASE}{url}", *args, **more)


class ProxiedGateway(EmbeddedGateway):
    """A gateway whose clients all come through a proxy, which is told once it is there."""

    front: Front | None = None

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """Return a connection to the proxy, or to the gateway while there is none."""
        if self.front is None:
            return super().connect(timeout_s)
        return self.front.connect(timeout_s=timeout_s)


def configuration(name: str) -> str:
    """Return the file of docs/proxies."""
    return (ROOT / "docs" / "proxies" / FILES[name]).read_text("utf-8")


def find_program(name: str) -> str:
    """Return where the proxy's program is; skip the test without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def running(name: str, folder: Path, port: int, upstreams: Sequence[int]) -> Iterator[Front]:
    """Start a proxy in front of gateways, of which there are one or two."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    argv = _prepare(name, folder, port, upstreams)
    log = folder / "log.txt"
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    front = Front(name, port, folder / "authority.pem")

    def listens() -> None:
        assert process.poll() is None, log.read_text()
        try:
            front.spoken()
        except OSError as error:
            raise AssertionError(f"{error}: {log.read_text()}") from error

    try:
        eventually(listens, _STARTS_S)
        yield front
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _prepare(name: str, folder: Path, port: int, upstreams: Sequence[int]) -> list[str]:
    """Write the configuration as it stands, with what is different here; return how to start it."""
    program = find_program(name)
    text = configuration(name)
    first, *others = (f"127.0.0.1:{each}" for each in upstreams)
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "bind :443": f"bind 127.0.0.1:{port}",
        "\ntools.example.org {": f"\nhttps://localhost:{port} {{\n\tbind 127.0.0.1",
        "server_name tools.example.org": "server_name localhost",
        "127.0.0.1:3100": first,
        "127.0.0.1:3101": others[0] if others else first,
        "/etc/ssl/tools.example.org.pem": f"{folder}/both.pem",
        "/etc/ssl/tools.example.org.key": f"{folder}/both.pem",
        "/etc/haproxy/tools.example.org.pem": f"{folder}/both.pem",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    file = folder / FILES[name]
    if name == "nginx":
        file = folder / "included.conf"
        user = "user root;" if os.getuid() == 0 else ""
        main = folder / "nginx.conf"
        main.write_text(_NGINX.format(folder=folder, file=file, user=user))
        argv = [program, "-p", str(folder), "-c", str(main), "-e", str(folder / "log")]
    elif name == "haproxy":
        argv = [program, "-db", "-f", str(file)]
    else:
        text = _CADDY + text
        argv = [program, "run", "--adapter", "caddyfile", "--config", str(file)]
    file.write_text(text)
    return argv
