"""The embedded gateway as a process of its own, and what its clients say to it.

    with EmbeddedGateway(folder) as gw:
        run = gw.create_run()
        gw.send_event(run, "stdout", "hello\n", 1)

Nothing of the gateway's code is used: requests are signed by the protocol (`wire`), and answers are
bytes from a socket.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testing.gateways.gateway_records import Run
from testing.gateways.wire import expected_signature
from testing.programs.disk import Disk
from testing.programs.starter import Forked, fork, read_by_python
from testing.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
JSON_TYPE = "application/json"
_INHERITED = (
    *("PATH", "HOME", "TMPDIR"),
    *("TEST_GUARD_MARKER", "COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG"),
)


@dataclass(frozen=True)
class Answer:
    """A whole reply. Header names are in lower case; of a repeated one the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What the body says went wrong."""
        return str(self.json()["error"])


@dataclass(frozen=True)
class Frame:
    """One server-sent event. `id` is None if it has none; `data` is parsed."""

    name: str
    id: int | None
    data: Any


class EmbeddedGateway:
    """A gateway that runs from `start` (or `with`) to `stop`; its data stays in `folder`."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        tls: bool = False,
        rate_limit: int = 0,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.data_dir = folder / "data"
        self.env_file = folder / "env"
        self.env_file.touch()
        self._ready_file = folder / "ready"
        self._arguments = [*arguments, *([] if tls else ["--http"])]
        if "--port" not in arguments:
            self._arguments += ["--port", "0"]
        # No setting of whoever runs the tests; a gateway may be older than a test's own guards.
        self.environ = {
            **{name: os.environ[name] for name in os.environ if name in _INHERITED},
            **read_by_python(os.environ),  # without these, no gateway could be a fork
            "CLAUDE_RUNNER_GATEWAY_RATE_LIMIT": str(rate_limit),
            **(env or {}),
        }
        self._tls = tls
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self.told: dict[str, Any] = {}
        # The disk that its data is on, if that is one of its own.
        self.disk: Disk | None = None

    # --- its life ---

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        return [
            *(sys.executable, str(ROOT / "gateway"), "--no-open", *self._arguments),
            *("--data-dir", str(self.data_dir), "--env-file", str(self.env_file)),
            *("--ready-file", str(self._ready_file)),
        ]

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            stdio = (subprocess.DEVNULL, log, log)
            self._process = fork(self.command(), self.environ, stdio) or subprocess.Popen(
                self.command(), env=self.environ, stdin=stdio[0], stdout=log, stderr=log
            )

        def is_ready() -> None:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            assert self._ready_file.exists(), self.log

        eventually(is_ready, START_TIMEOUT_S)
        self.read_ready_file()

    def read_ready_file(self) -> None:
        """Learn where it listens; for one that the test has started by its `command`."""
        assert self._ready_file.exists(), "it has not told yet where it listens"
        self.told = json.loads(self._ready_file.read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; return its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        assert self._process is not None
        code = self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        return code

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def __enter__(self) -> EmbeddedGateway:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            if self._process is not None:
                self.stop()
        finally:
            self.kill()

    @property
    def log_file(self) -> Path:
        """What it printed."""
        return self.folder / "gateway.log"

    @property
    def log(self) -> str:
        """What it printed."""
        return self.log_file.read_text(errors="replace")

    @property
    def database_file(self) -> Path:
        """Where its database is."""
        return self.data_dir / "gateway" / "gateway.db"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """The address that it told."""
        return str(self.told["url"])

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.told["port"])

    @property
    def secret(self) -> str:
        """The HMAC secret in its `.env`."""
        return self.env_file.read_text().partition("HMAC_SECRET=")[2].split()[0]

    @property
    def admin_token(self) -> str:
        """The admin token."""
        return Path(self.told["admin_token_file"]).read_text().strip()

    # --- talking to it ---

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """Return a new connection; the caller closes it."""
        if self._tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout_s, context=context
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lowered, response.read())
        finally:
            connection.close()

    def api(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request with the admin token."""
        mine = {"Authorization": f"Bearer {self.admin_token}"}
        content = None
        if body is not None:
            mine["Content-Type"] = JSON_TYPE
            content = json.dumps(body).encode()
        return self.request(method, path, content, {**mine, **(headers or {})})

    def log_in(self) -> dict[str, str]:
        """Log in with a code, as a browser does; return the headers of a session."""
        code = self.api("POST", "/api/login-codes", {}).json()["code"]
        return session_of(self.request("GET", f"/login?code={code}"))

    def create_run(self, command: str | None = None) -> Run:
        """Create a run as the page does."""
        answer = self.api("POST", "/api/runs", {} if command is None else {"command": command})
        assert answer.status == 201, answer
        return Run(answer.json()["id"], answer.json()["capabilityToken"])

    def run(self, run: Run) -> dict[str, Any]:
        """Return a run as the API shows it."""
        found: dict[str, Any] = self.api("GET", f"/api/runs/{run.id}").json()
        return found

    def events(self, run: Run, query: str = "after=0&limit=1000") -> list[dict[str, Any]]:
        """Return a page of a run's events."""
        answer = self.api("GET", f"/api/runs/{run.id}/events?{query}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    def sign(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        run: Run | None = None,
        *,
        content_type: str = JSON_TYPE,
        at: float | None = None,
        nonce: str | None = None,
        secret: str | None = None,
    ) -> dict[str, str]:
        """Return the headers of a signed request. The query is not part of `path`."""
        is_hashed_empty = method == "GET" or content_type.startswith("multipart/form-data")
        timestamp = str(int(time.time() if at is None else at))
        nonce = secrets.token_hex(16) if nonce is None else nonce
        signature = expected_signature(
            self.secret if secret is None else secret,
            method,
            path,
            b"" if is_hashed_empty else body,
            timestamp,
            nonce,
            run.id if run else "",
            run.token if run else "",
        )
        headers = {"X-Timestamp": timestamp, "X-Nonce": nonce, "X-Signature": signature}
        if run is not None:
            headers.update({"X-Run-Id": run.id, "X-Capability-Token": run.token})
        if method != "GET":
            headers["Content-Type"] = content_type
        return headers

    def send(
        self, method: str, path: str, content: Any = None, run: Run | None = None, **how: Any
    ) -> Answer:
        """Send a signed request with a JSON body; `how` is what `sign` takes."""
        body = None if content is None else json.dumps(content).encode()
        headers = self.sign(method, path.partition("?")[0], body or b"", run, **how)
        return self.request(method, path, body, headers)

    def send_event(
        self, run: Run | None, type: str, data: str, sequence: int = 0, **how: Any
    ) -> Answer:
        """Send one event."""
        content = {"type": type, "data": data, "sequence": sequence}
        return self.send("POST", "/api/ingest/event", content, run, **how)

    def send_events(self, run: Run, texts: Iterable[str], first: int = 1) -> None:
        """Send output in many events, on one connection; each must be taken.

        `first` is the sequence of the first one.
        """
        path = "/api/ingest/event"
        with contextlib.closing(self.connect()) as connection:
            for sequence, text in enumerate(texts, first):
                content = {"type": "stdout", "data": text, "sequence": sequence}
                body = json.dumps(content).encode()
                connection.request("POST", path, body, self.sign("POST", path, body, run))
                response = connection.getresponse()
                assert (response.read(), response.status)[1] == 200

    def send_marker(self, run: Run, marker: Mapping[str, Any], sequence: int = 0) -> Answer:
        """Send one marker."""
        return self.send_event(run, "marker", json.dumps(marker), sequence)

    def send_artifact(self, run: Run, name: str, data: bytes) -> Answer:
        """Upload a file."""
        content_type, body = multipart(name, data)
        headers = self.sign("POST", "/api/ingest/artifact", run=run, content_type=content_type)
        return self.request("POST", "/api/ingest/artifact", body, headers)

    def follow(self, path: str, headers: Mapping[str, str] | None = None) -> Stream:
        """Open a stream of server-sent events with the admin token; the caller closes it."""
        connection = self.connect(timeout_s=20)
        mine = {"Authorization": f"Bearer {self.admin_token}", **(headers or {})}
        connection.request("GET", path, headers=mine)
        return Stream(connection)


class Stream:
    """A stream of server-sent events that is being read."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self.response = connection.getresponse()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self.response.close()
        self._connection.close()

    def next(self) -> Frame | None:
        """Return the next frame, None at the end. Raises: TimeoutError."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline()
            if not line:
                return None
            text = line.decode().rstrip("\n")
            if not text and "data" in fields:
                event_id = int(fields["id"]) if "id" in fields else None
                return Frame(fields.get("event", ""), event_id, json.loads(fields["data"]))
            name, _, value = text.partition(": ")
            fields[name] = value

    def take(self, count: int, name: str = "event") -> list[Frame]:
        """Return the next frames of one kind; the others between them are left out."""
        found: list[Frame] = []
        while len(found) < count:
            frame = self.next()
            assert frame is not None, f"the stream ended after {len(found)} frames"
            if frame.name == name:
                found.append(frame)
        return found


def session_of(answer: Answer) -> dict[str, str]:
    """Return both halves of a session, as the answer to a login hands them over."""
    assert answer.status == 200, answer
    key = re.search(r'data-key="([\w-]+)"', answer.body.decode())
    assert key is not None, answer
    cookie = answer.headers["set-cookie"].partition(";")[0]
    return {"Cookie": cookie, "X-Page-Key": key[1]}


def leads_to(answer: Answer) -> str:
    """Return where a login leads."""
    found = re.search(r'data-following="([^"]*)"', answer.body.decode())
    assert found is not None, answer
    return found[1]


def multipart(name: str, data: bytes, field: str = "file") -> tuple[str, bytes]:
    """Return content type and body of an upload; the file's name is taken as it is."""
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body


def finished(events: Sequence[str], code: int = 0) -> dict[str, Any]:
    """Return the marker that ends a run whose numbered events had this data."""
    data = "".join(events).encode()
    return {
        "event": "finished",
        "exitCode": code,
        "reason": "exited",
        "events": len(events),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "refused": 0,
    }


def open_socket(port: int) -> socket.socket:
    """Return a plain connection, for what no HTTP library would send."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)
