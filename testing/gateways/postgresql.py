"""A PostgreSQL of the tests' own, on a port of loopback, with its data in a folder that goes."""

from __future__ import annotations

import getpass
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.waiting import eventually

# Debian has the programs in folders of their own.
_FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin")
# The user of Debian's package: the server refuses to run as root.
_USER = "postgres"
_STARTS_S = 60


def find_programs() -> Path | None:
    """Return the folder of the server's programs."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres") is not None:
        return Path(found).parent
    folders = (each for pattern in _FOLDERS for each in sorted(Path("/").glob(pattern[1:])))
    return next((each for each in folders if (each / "initdb").exists()), None)


class Cluster:
    """A running server. Each test has a database of its own in it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._log = folder / "log"
        self._numbers = itertools.count(1)
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        made = subprocess.run(
            [
                *(*_as_user(), str(programs / "initdb"), "--pgdata", str(self._data)),
                *("--username=gateway", "--auth=trust", "--encoding=UTF8", "--locale=C"),
                "--no-sync",
            ],
            capture_output=True,
            cwd=folder,
        )
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *(*_as_user(), str(self._programs / "postgres"), "-D", str(self._data)),
                    *("-p", str(self.port), "-c", "listen_addresses=127.0.0.1"),
                    *("-c", "unix_socket_directories=", "-c", "max_connections=200"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
            )

        def answers() -> None:
            assert self._server is not None
            assert self._server.poll() is None, self._log.read_text()
            try:
                self.execute("SELECT 1", "postgres")
            except psycopg.OperationalError as error:
                raise AssertionError(str(error)) from error

        eventually(answers, _STARTS_S)

    def stop(self) -> None:
        """End it without waiting for anybody; what was committed stays."""
        self._end(signal.SIGINT)  # its fast shutdown

    def crash(self) -> None:
        """End it as if the power had gone."""
        self._end(signal.SIGQUIT)  # its immediate shutdown

    def _end(self, number: int) -> None:
        if self._server is None:
            return
        self._server.send_signal(number)
        self._server.wait(_STARTS_S)
        self._server = None

    def make_database(self) -> str:
        """Make an empty database; return its address."""
        name = f"gateway_{os.getpid()}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}", "postgres")
        return f"postgresql://gateway@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, database: str) -> list[Any]:
        """Run a statement as an administrator; return its first row."""
        address = f"postgresql://gateway@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(address, autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return list(found.fetchone() or ()) if found.description else []

    def read(self, query: str, gateway: EmbeddedGateway) -> Any:
        """Return the first value that a query finds in a gateway's database."""
        return self.execute(query, name_of_database(gateway))[0]

    @property
    def pid(self) -> int:
        """The first of its processes, whose children are the others."""
        assert self._server is not None
        return self._server.pid

    def end_connections(self, gateway: EmbeddedGateway, which: str) -> None:
        """End connections to a gateway's database, by a condition on `pg_stat_activity`."""
        count = self.read(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND ({which})",
            gateway,
        )
        assert count, f"no connection with {which}"


def name_of_database(gateway: EmbeddedGateway) -> str:
    """Return the name of the database that a gateway of `gateways_on` has."""
    return gateway.environ["CLAUDE_RUNNER_GATEWAY_DATABASE_URL"].rpartition("/")[2]


def _as_user() -> tuple[str, ...]:
    if os.getuid() != 0:
        return ()
    user = pwd.getpwnam(_USER)
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield a running server, which ends with the block."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # Not in pytest's folder, which is for this user alone.
    folder = Path(tempfile.mkdtemp(prefix=f"postgresql-{getpass.getuser()}-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, _USER, _USER)
        running = Cluster(programs, folder)
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder)


def gateways_on(
    url: str, folder: Path, count: int, *arguments: str, **env: str
) -> list[EmbeddedGateway]:
    """Return gateways that have one database and one secret, and are not started."""
    folder.mkdir(exist_ok=True)
    secret = secrets.token_hex(32)
    made = []
    for number in range(count):
        gateway = EmbeddedGateway(
            folder / f"gateway-{number}",
            *("--port", str(free_port()), *arguments),
            env={"CLAUDE_RUNNER_GATEWAY_DATABASE_URL": url, **env},
        )
        gateway.env_file.write_text(f"HMAC_SECRET={secret}\nALLOW_SELF_SIGNED=true\n")
        made.append(gateway)
    return made
