"""Two gateways on one PostgreSQL behind a real HAProxy: each request goes to the next gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from testing.gateways.embedded_gateway import EmbeddedGateway, open_socket
from testing.gateways.embedded_record import free_port
from testing.gateways.front_proxies import find_program
from testing.gateways.postgresql import Cluster, gateways_on
from testing.waiting import eventually

# A gateway on a busy machine is slow, and not away: it may take its time, and say ten times that
# its database did. What is sent to one that has ended goes to the other one at once.
_CONFIGURATION = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout check 30s
    timeout client 75s
    timeout server 75s
    retries 3
    option redispatch 1
frontend all
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance roundrobin
    option httpchk GET /api/health
    http-check send hdr Host localhost
    default-server check inter 200ms fall 10 rise 1
"""
_ENDS_WITHIN_S = 10


class Team(EmbeddedGateway):
    """The gateways as their clients see them: one address, and one folder for what is uploaded."""

    def __init__(self, url: str, folder: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.members = gateways_on(url, folder, 2, **(env or {}))
        folders = [each.data_dir / "gateway" for each in self.members]
        for each in folders:
            each.mkdir(parents=True)
        (folders[0] / "artifacts").mkdir()
        (folders[1] / "artifacts").symlink_to(folders[0] / "artifacts")
        self._port = free_port()
        self._stack = ExitStack()

    def start(self) -> None:
        """Start the gateways and what is in front of them."""
        with ExitStack() as stack:
            for each in self.members:
                stack.enter_context(each)
            stack.callback(self._end, self._balance())
            self.env_file.write_text(self.members[0].env_file.read_text())
            address = {"url": f"http://localhost:{self._port}", "port": self._port}
            self.told = {**self.members[0].told, **address}
            self._stack = stack.pop_all()

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def _balance(self) -> subprocess.Popen[bytes]:
        program = find_program("haproxy")
        servers = "".join(
            f"    server gateway{number} 127.0.0.1:{each.port}\n"
            for number, each in enumerate(self.members)
        )
        file = self.folder / "haproxy.cfg"
        file.write_text(_CONFIGURATION.format(port=self._port) + servers)
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [program, "-db", "-f", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

        def listens() -> None:
            assert process.poll() is None, self.log
            try:
                open_socket(self._port).close()
            except OSError as error:
                raise AssertionError(str(error)) from error

        eventually(listens)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(_ENDS_WITHIN_S)


@contextmanager
def team_on(
    database: Cluster, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[Team]:
    """Yield running gateways on a database of their own."""
    team = Team(database.make_database(), folder, env)
    with team:
        yield team
