"""An object store for tests: moto's server as a process of its own, and a line to it that breaks.

The store keeps everything in memory: killed, and started again, it is empty.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from testing.gateways.embedded_record import free_port
from testing.gateways.http_server import HOST
from testing.waiting import eventually

BUCKET = "runs"
_STARTS_S = 60
_PIECE_BYTES = 65_536


class Moto:
    """The server. It takes every key."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._log = folder / "moto.log"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with an empty bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )

        def answers() -> None:
            assert self._server is not None
            assert self._server.poll() is None, self._log.read_text()
            try:
                status, _ = self._ask("PUT", f"/{BUCKET}")
            except OSError as error:
                raise AssertionError(str(error)) from error
            assert status == 200

        eventually(answers, _STARTS_S)

    def kill(self) -> None:
        """End it without a word."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(_STARTS_S)
            self._server = None

    def objects(self) -> dict[str, int]:
        """Return everything that is in the bucket, with its sizes."""
        _, listing = self._ask("GET", f"/{BUCKET}?list-type=2")
        found = re.findall(r"<Key>([^<]*)</Key>.*?<Size>(\d+)</Size>", listing.decode(), re.DOTALL)
        return {key: int(size) for key, size in found}

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def moto(folder: Path) -> Iterator[Moto]:
    """Yield a running store, which ends with the block."""
    if importlib.util.find_spec("moto") is None:
        # On 3.9 it brings a urllib3 of before 2.0, which the runner's tests would have as well.
        pytest.skip("moto needs Python 3.10")
    store = Moto(folder)
    try:
        store.start()
        yield store
    finally:
        store.kill()


class Line:
    """A port that leads to another one, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        # So much goes up on each connection, and then nothing more.
        self.holds_after: int | None = None
        self.held = threading.Event()
        self._listener = self._bind()

    def __enter__(self) -> Line:
        self.mend()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.cut()
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        return listener

    def mend(self) -> None:
        """Take connections."""
        self._listener.listen(64)
        self._begin(self._accept, self._listener)

    def cut(self) -> None:
        """Refuse connections, and end those that there are; the port stays ours."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ending = list(self._sockets)
        for each in ending:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener = self._bind()

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self._target), timeout=30)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            self._begin(self._pass_on, client, server, True)
            self._begin(self._pass_on, server, client, False)

    def _pass_on(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        passed = 0
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                passed += len(piece)
                if is_up and self.holds_after is not None and passed > self.holds_after:
                    self.held.set()
                    continue
                target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(source)
        source.close()


def environ_of(port: int, prefix: str) -> dict[str, str]:
    """Return what a gateway is told of a store on this port; the keys are made up."""
    return {
        "CLAUDE_RUNNER_GATEWAY_FILES_URL": f"s3://{BUCKET}/{prefix}",
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
    }
