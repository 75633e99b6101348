"""How fast the embedded gateway is, and how much memory it takes.

Usage: bench_gateway.py [--seconds 10] [--runners 50] [--part NAME]

The load comes from a process of its own on the same machine, over keep-alive connections, each
event signed as a runner signs it; the gateway is the real one, with SQLite on a disk. With every
figure stands the load average, and beside the first what a bare cheroot callable does in the same
run.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import http.client
import json
import multiprocessing
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

READY_TIMEOUT_S = 30.0
EVENT_BYTES = 200
BIG_RUN_EVENTS = 1_000_000
VIEWERS = 200

BARE_SERVER = """
import sys
from cheroot.wsgi import Server
def application(environ, start_response):
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    body = b'{"ok":true,"eventId":1}'
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
server = Server(("127.0.0.1", 0), application, numthreads=64, request_queue_size=512)
server.keep_alive_conn_limit = None
server.prepare()
print(server.bind_addr[1], flush=True)
server.serve()
"""


@dataclass(frozen=True)
class Running:
    """A gateway that has been started for this."""

    port: int
    pid: int
    secret: str
    admin_token: str
    folder: Path

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Use the API as an operator's script does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        content = json.loads(response.read())
        connection.close()
        if response.status >= 400:
            raise SystemExit(f"{method} {path}: {response.status} {content}")
        return content

    def memory_mb(self) -> float:
        """Return the resident memory, now and at its highest."""
        return _status_mb(self.pid, "VmHWM")


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def gateway(folder: Path) -> Iterator[Running]:
    """Start a gateway with its data in `folder`."""
    ready = folder / "ready"
    arguments = ["--http", "--port", "0", "--no-open", "--data-dir", str(folder / "data")]
    arguments += ["--env-file", str(folder / "env"), "--ready-file", str(ready)]
    environ = {**os.environ, "CLAUDE_RUNNER_GATEWAY_RATE_LIMIT": "0"}
    with (folder / "gateway.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "gateway"), *arguments], env=environ, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "gateway.log").read_text())
            time.sleep(0.02)
        told = json.loads(ready.read_text())
        secret = (folder / "env").read_text().partition("HMAC_SECRET=")[2].split()[0]
        token = Path(told["admin_token_file"]).read_text().strip()
        yield Running(int(told["url"].rpartition(":")[2]), process.pid, secret, token, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        ready.unlink(missing_ok=True)


@contextmanager
def bare_server() -> Iterator[int]:
    """Start a cheroot that reads the body and answers; yield its port."""
    process = subprocess.Popen([sys.executable, "-c", BARE_SERVER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# --- the load ------------------------------------------------------------------------------------


class Runner:
    """One connection that sends an event, waits for the answer, and sends the next one."""

    def __init__(self, port: int, secret: str, run_id: str, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(60)
        self._key = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self._run_id = run_id
        self._token = token
        self.sequence = 0
        self.sent_at = 0.0
        self._nonce = int.from_bytes(os.urandom(16), "big")
        self._received = b""

    def send(self, data: str) -> None:
        """Send the next event."""
        self.sequence += 1
        self._nonce = (self._nonce + 1) % 2**128
        body = json.dumps({"type": "stdout", "data": data, "sequence": self.sequence}).encode()
        timestamp, nonce = str(int(time.time())), f"{self._nonce:032x}"
        path = "/api/ingest/event"
        message = "\n".join(
            [
                "POST",
                path,
                hashlib.sha256(body).hexdigest(),
                timestamp,
                nonce,
                self._run_id,
                self._token,
            ]
        )
        signature = self._key.copy()
        signature.update(message.encode())
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Timestamp: {timestamp}\r\nX-Nonce: {nonce}\r\n"
            f"X-Run-Id: {self._run_id}\r\nX-Capability-Token: {self._token}\r\n"
            f"X-Signature: {signature.hexdigest()}\r\n\r\n"
        )
        self.sent_at = time.perf_counter()
        self.socket.sendall(head.encode() + body)

    def receive(self) -> bool:
        """Read what is there; return whether the answer is complete. It must be a 200."""
        self._received += self.socket.recv(65_536)
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return False
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        if len(body) < size:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(self._received.decode())
        self._received = b""
        return True


def _load(
    port: int, secret: str, runs: list[tuple[str, str]], seconds: float, results: Any
) -> None:
    """Send for all runs until the time is over; the process that makes the load."""
    runners = [Runner(port, secret, *run) for run in runs]
    data = ("x" * 60 + " ") * 10
    data = data[: EVENT_BYTES - 1] + "\n"
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds
    for runner in runners:
        selector.register(runner.socket, selectors.EVENT_READ, runner)
        runner.send(data)
    waiting = len(runners)
    while waiting:
        for key, _ in selector.select():
            runner = key.data
            if not runner.receive():
                continue
            now = time.perf_counter()
            latencies.append(now - runner.sent_at)
            if now < deadline:
                runner.send(data)
            else:
                waiting -= 1
    results.put((latencies, [runner.sequence for runner in runners]))


@dataclass(frozen=True)
class Load:
    """What came of it."""

    sent: dict[str, int]
    rate: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


def make_load(
    port: int, secret: str, runs: Sequence[tuple[str, str]], seconds: float, processes: int = 1
) -> Load:
    """Let all runs send at once, from processes of their own."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    shares = [list(runs[number::processes]) for number in range(processes)]
    workers = [
        context.Process(target=_load, args=(port, secret, share, seconds, results))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    latencies: list[float] = []
    sent: dict[str, int] = {}
    for share in shares:
        some, counts = results.get(timeout=seconds + 60)
        latencies += some
        sent.update({run[0]: count for run, count in zip(share, counts)})
    for worker in workers:
        worker.join()
    latencies.sort()
    return Load(
        sent,
        len(latencies) / seconds,
        _percentile(latencies, 0.50),
        _percentile(latencies, 0.99),
        latencies[-1] * 1_000,
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1_000


def make_runs(running: Running, count: int) -> list[tuple[str, str]]:
    """Make runs; return their ids and tokens."""
    made = [running.call("POST", "/api/runs", {}) for _ in range(count)]
    return [(each["id"], each["capabilityToken"]) for each in made]


def report(name: str, text: str) -> None:
    """Print one line of the result, with how busy the machine was."""
    print(f"{name:<28} {text}   [load average {os.getloadavg()[0]:.1f}]", flush=True)


# --- the parts -----------------------------------------------------------------------------------


def measure_ingest(running: Running, options: argparse.Namespace) -> None:
    """Signed events from many runners at once, none lost; and the bare server under the same."""
    with bare_server() as port:
        dummy = [(f"run_{number}", "t" * 64) for number in range(options.runners)]
        load = make_load(port, "k" * 32, dummy, options.seconds)
    report("a bare cheroot callable", _load_text(load))
    runs = make_runs(running, options.runners)
    load = make_load(running.port, running.secret, runs, options.seconds)
    report(f"{options.runners} runners, 200-byte events", _load_text(load))
    lost = sum(
        count - running.call("GET", f"/api/runs/{run_id}")["event_count"]
        for run_id, count in load.sent.items()
    )
    report("events lost or doubled", str(lost))


def _load_text(load: Load) -> str:
    return (
        f"{load.rate:7.0f}/s   p50 {load.p50_ms:5.1f} ms   p99 {load.p99_ms:5.1f} ms   "
        f"worst {load.worst_ms:5.1f} ms"
    )


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runners", type=int, default=50)
    parser.add_argument("--part", choices=sorted(PARTS), action="append")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        running = stack.enter_context(gateway(folder))
        for name in options.part or PARTS:
            PARTS[name](running, options)
            report("highest memory so far", f"{running.memory_mb():.0f} MB")


PARTS = {"ingest": measure_ingest}

if __name__ == "__main__":
    main()
