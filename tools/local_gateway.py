"""The gateway of this machine: find it, start it so that it goes on, ask it something, end it.

It says itself where it is: in the file whose lock it has, in the folder of its data. That lock, and
nothing else, says that it runs; so one that was started by hand is found too, and one that was
killed is not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import json
import os
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from config import RunnerError, load_config
from places import PROGRAM, pointer_to_gateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.console import Console

# On a machine with other work; its packages are there by then.
_START_TIMEOUT_S: Final = 60.0
# What a gateway does between its lock and its first answer.
_TELLS_WITHIN_S: Final = 15.0
# It finishes requests that are under way, which may take 20 s.
_STOP_TIMEOUT_S: Final = 30.0
_INTERVAL_S: Final = 0.05
_API_TIMEOUT_S: Final = 10.0
_LOG: Final = "output.log"
# The shell is its parent until it listens, and ends when it does.
_IN_BACKGROUND: Final = '"$@" & wait "$!"'


@dataclass(frozen=True)
class LocalGateway:
    """A gateway that runs. `url` is for people, `runner_url` for this machine.

    `certificate` is None without TLS, `env_file` is None if its secret is in no file.
    """

    pid: int
    folder: Path
    url: str
    runner_url: str
    certificate: Path | None
    env_file: Path | None

    def settings(self) -> dict[str, str]:
        """Return what a runner on this machine needs in its `.env`. Raises RunnerError."""
        if self.env_file is None:
            raise RunnerError(
                f"the gateway that runs here (process {self.pid}, {self.url}) has its secret in no "
                "file, as that of `demo`; end it, with Enter in its terminal or with "
                "`gateway --stop`, and repeat"
            )
        config = load_config(PROGRAM, {}, env_file=self.env_file)
        config.require_secret()
        needed = {"GATEWAY_URL": self.runner_url, "HMAC_SECRET": config.hmac_secret}
        return needed if self.certificate is None else {**needed, "ALLOW_SELF_SIGNED": "true"}


def gateway_folder(data_dir: Path) -> Path:
    """Return the gateway's own folder inside a data folder."""
    return data_dir / "gateway"


# --- where it is ---------------------------------------------------------------------------------


def find_gateway(folder: Path) -> LocalGateway | None:
    """Return the gateway that has this folder, None if none runs. Raises RunnerError.

    Waits for one that is just starting.
    """
    deadline = time.monotonic() + _TELLS_WITHIN_S
    while is_taken(folder / "lock"):
        pid, found = _read(folder)
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise RunnerError(
                f"the gateway that runs here (process {pid}) does not say where; end it "
                f"(`kill {pid}`), and repeat"
            )
        time.sleep(_INTERVAL_S)
    return None


def find_pointed(environ: Mapping[str, str]) -> LocalGateway | None:
    """Return the gateway that this user started last, if it runs. Raises RunnerError."""
    pointer = pointer_to_gateway(environ)
    if pointer is None or not (_is_own(pointer.parent) and _is_own(pointer)):
        return None
    try:
        folder = Path(pointer.read_text("utf-8").strip())
    except (OSError, ValueError):
        return None
    return find_gateway(folder) if folder.is_absolute() and _is_own(folder) else None


def _is_own(path: Path) -> bool:
    """Whether this user, and no other one, can write there."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_taken(lock: Path) -> bool:
    """Whether a process has the lock of this file."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(fd)
    return False


def _read(folder: Path) -> tuple[str, LocalGateway | None]:
    """Return the process that the lock's file names, and the gateway if it has said where it is."""
    pid = ""
    try:
        pid, _, told = (folder / "lock").read_text("utf-8", "replace").partition("\n")
        facts: dict[str, Any] = json.loads(told)
        files = [facts["certificate"], facts["envFile"]]
        paths = [None if each is None else Path(each) for each in files]
        urls = (str(facts["url"]), str(facts["runnerUrl"]))
        number = int(pid)
        return pid, LocalGateway(number, folder, *urls, *paths) if number > 1 else None
    except (OSError, ValueError, TypeError, KeyError):
        return pid, None


# --- its life ------------------------------------------------------------------------------------


def start_gateway(folder: Path, arguments: Sequence[str], console: Console) -> LocalGateway:
    """Start a gateway that outlives this process and its terminal. Raises RunnerError.

    `arguments` are those of `gateway`. What it prints is in a file of its folder.
    """
    argv = [sys.executable, "-I", str(PROGRAM / "claude_runner.py"), "gateway", "--no-open"]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_fd = os.open(
            folder / _LOG,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        with open(log_fd, "wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _IN_BACKGROUND, "sh", *argv, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,  # neither Ctrl-C here nor the end of the terminal ends it
            )
    except OSError as error:
        raise RunnerError(f"the gateway cannot be started: {error.strerror}") from error
    console.progress("starting the gateway …")
    try:
        found = _wait_until_it_listens(folder, process)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    finally:
        console.progress("")
    process.kill()  # the shell alone: the gateway needs no parent any more
    process.wait()
    return found


def _wait_until_it_listens(folder: Path, process: subprocess.Popen[bytes]) -> LocalGateway:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        found = _read(folder)[1] if is_taken(folder / "lock") else None
        if found is not None:
            return found  # another one's, if two were started at once
        if has_ended:
            break
        time.sleep(_INTERVAL_S)
    printed = (folder / _LOG).read_text("utf-8", "replace").strip().splitlines()
    reason = printed[-1].replace("claude-runner: ", "", 1) if printed else "it printed nothing"
    raise RunnerError(f"the gateway did not start: {reason}")


def stop(data_dir: Path) -> str:
    """End the gateway that runs with this data, and say so. Raises RunnerError."""
    folder = gateway_folder(data_dir)
    found = find_gateway(folder)
    if found is None:
        return f"no gateway runs here{_other()}"
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise RunnerError(f"process {found.pid} cannot be ended: {error.strerror}") from error
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while is_taken(folder / "lock"):
        if time.monotonic() >= deadline:
            raise RunnerError(
                f"the gateway (process {found.pid}) does not end; `kill -9 {found.pid}` ends it, "
                "and loses nothing that it has acknowledged"
            )
        time.sleep(_INTERVAL_S)
    return f"the gateway at {found.url} has ended"


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine itself."""
    try:
        return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False


def is_port_free(port: int) -> bool:
    """Whether a gateway could listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# --- what its operator asks ----------------------------------------------------------------------


def post(gateway: LocalGateway, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Send something to the API, with the admin token. Raises RunnerError."""
    return ask(gateway, "POST", path, content)


def ask(
    gateway: LocalGateway, method: str, path: str, content: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Ask the API for something, with the admin token. Raises RunnerError.

    The token goes to the holder of the certificate that lies in the gateway's folder, or to this
    machine, and to no other server.
    """
    try:
        token = (gateway.folder / "admin-token").read_text("ascii").strip()
        with contextlib.closing(_connect(gateway)) as connection:
            connection.request(
                method,
                path,
                None if content is None else json.dumps(content).encode(),
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            body = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RunnerError(
            f"the gateway that runs here (process {gateway.pid}) does not answer as it should: "
            f"{error}; end it, and repeat"
        ) from error
    if response.status // 100 != 2 or not isinstance(body, dict):
        reason = body.get("error", body) if isinstance(body, dict) else body
        raise RunnerError(f"the gateway refuses {path}: {reason}")
    return body


def login_address(gateway: LocalGateway, page: str = "/") -> str:
    """Return an address that opens a page once, without a password. Raises RunnerError."""
    code = post(gateway, "/api/login-codes", {})["code"]
    return f"{gateway.url}/login?code={code}&next={page}"


def log_in(data_dir: Path) -> str:
    """Return a login for the gateway that runs with this data. Raises RunnerError."""
    return login_address(require_gateway(data_dir, ", which prints a login too"))


def require_gateway(data_dir: Path, more: str = "") -> LocalGateway:
    """Return the gateway that runs with this data. Raises RunnerError."""
    found = find_gateway(gateway_folder(data_dir))
    if found is None:
        raise RunnerError(f"no gateway runs here{_other() or f'; start it{more}'}")
    return found


def _other() -> str:
    """Return what names this user's gateway with other data, if one runs; else nothing."""
    try:
        found = find_pointed(os.environ)
    except RunnerError:
        return ""
    return "" if found is None else f"; for the one at {found.url}, add {data_option(found)}"


def data_option(gateway: LocalGateway) -> str:
    """Return the option by which `gateway --stop` and `--login` mean this one from anywhere."""
    return f"--data-dir {shlex.quote(str(gateway.folder.parent))}"


def _connect(gateway: LocalGateway) -> http.client.HTTPConnection:
    parts = urlsplit(gateway.runner_url)
    host = parts.hostname or "localhost"
    if gateway.certificate is None:
        if not is_loopback(gateway.runner_url):
            raise OSError(errno.EPERM, "its connection is not encrypted")
        return http.client.HTTPConnection(host, parts.port, timeout=_API_TIMEOUT_S)
    context = ssl.create_default_context()
    # Not by its names or issuer: it has to be the one in the file, word for word.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    expected = ssl.PEM_cert_to_DER_cert(_first_certificate(gateway.certificate))
    connection = http.client.HTTPSConnection(
        host, parts.port, timeout=_API_TIMEOUT_S, context=context
    )
    connection.connect()
    shown = connection.sock.getpeercert(binary_form=True)
    if shown != expected:
        connection.close()
        raise OSError(errno.EPERM, "its certificate is not the one in its folder")
    return connection


def _first_certificate(file: Path) -> str:
    text = file.read_text("ascii")
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
