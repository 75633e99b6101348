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
import itertools
import json
import multiprocessing
import os
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

READY_TIMEOUT_S = 30.0
EVENT_BYTES = 200
BACKLOG_EVENT_BYTES = 900_000
BIG_RUN_EVENTS = 1_000_000
BEHIND_EVENTS = 400_000
VIEWERS = 200
EVENTS_A_SECOND = 20

# What events say: nothing, prose, source, a log with words that may name a secret.
LINES = (
    "x" * 60 + " ",
    "The quick brown fox jumps over the lazy dog, and nobody knows why it did. ",
    "        return [item.name for item in self.items if item.is_open and item.size > 0]\n",
    "\x1b[33mWARN\x1b[0m cache: the token of worker 12 was refreshed, no password is needed\r\n",
)

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

    def processor_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the resident memory, now and at its highest."""
        return _status_mb(self.pid, "VmHWM")


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def gateway(folder: Path, secret: str = "", url: str = "") -> Iterator[Running]:
    """Start a gateway with its data in `folder`, or in the database at `url`."""
    ready, env_file = folder / "ready", folder / "env"
    env_file.write_text(f"HMAC_SECRET={secret}\n" if secret else "")
    arguments = ["--http", "--port", "0", "--no-open", "--data-dir", str(folder / "data")]
    arguments += ["--env-file", str(env_file), "--ready-file", str(ready)]
    environ = {**os.environ, "CLAUDE_RUNNER_GATEWAY_RATE_LIMIT": "0"}
    if url:
        environ["CLAUDE_RUNNER_GATEWAY_DATABASE_URL"] = url
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
    port: int,
    secret: str,
    runs: list[tuple[str, str]],
    seconds: float,
    event_bytes: int,
    results: Any,
) -> None:
    """Send for all runs until the time is over; the process that makes the load."""
    runners = [Runner(port, secret, *run) for run in runs]
    words = itertools.cycle(
        (line * (event_bytes // len(line) + 1))[: event_bytes - 1] + "\n" for line in LINES
    )
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds
    for runner in runners:
        selector.register(runner.socket, selectors.EVENT_READ, runner)
        runner.send(next(words))
    waiting = len(runners)
    while waiting:
        for key, _ in selector.select():
            runner = key.data
            if not runner.receive():
                continue
            now = time.perf_counter()
            latencies.append(now - runner.sent_at)
            if now < deadline:
                runner.send(next(words))
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
    port: int,
    secret: str,
    runs: Sequence[tuple[str, str]],
    seconds: float,
    event_bytes: int = EVENT_BYTES,
) -> Load:
    """Let all runs send at once, from a process of their own."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    worker = context.Process(
        target=_load, args=(port, secret, list(runs), seconds, event_bytes, results)
    )
    worker.start()
    latencies, counts = results.get(timeout=seconds + 120)
    worker.join()
    latencies.sort()
    return Load(
        {run[0]: count for run, count in zip(runs, counts)},
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


@dataclass
class Report:
    """What was measured, one row of a table each, printed as it comes."""

    rows: list[str] = field(default_factory=list)

    def add(self, name: str, text: str) -> None:
        """Add a row, with how busy the machine was."""
        self.rows.append(f"| {name} | {text} | {os.getloadavg()[0]:.1f} |")
        print(self.rows[-1], flush=True)


HEAD = ["| what | | load average |", "|---|---|---|"]


# --- the parts -----------------------------------------------------------------------------------


def measure_ingest(running: Running, options: argparse.Namespace, report: Report) -> None:
    """Signed events from many runners at once, none lost; and the bare server under the same."""
    with bare_server() as port:
        dummy = [(f"run_{number}", "t" * 64) for number in range(options.runners)]
        load = make_load(port, "k" * 32, dummy, options.seconds)
    report.add("a bare cheroot callable", _load_text(load))
    runs = make_runs(running, options.runners)
    used_s = running.processor_s()
    load = make_load(running.port, running.secret, runs, options.seconds)
    report.add(
        f"{options.runners} runners at once, signed events of {EVENT_BYTES} bytes", _load_text(load)
    )
    per_event_us = (running.processor_s() - used_s) / sum(load.sent.values()) * 1e6
    report.add("processor time for an event", f"{per_event_us:.0f} us")
    lost = sum(
        count - running.call("GET", f"/api/runs/{run_id}")["event_count"]
        for run_id, count in load.sent.items()
    )
    report.add("events lost or doubled", str(lost))


def measure_team(_running: Running, options: argparse.Namespace, report: Report) -> None:
    """The same load for one gateway on SQLite, one on PostgreSQL, and two; then what waits costs.

    In turns, so that what else the machine does is the same for all.
    """
    from testing.gateways.postgresql import cluster

    with ExitStack() as stack:
        database = stack.enter_context(cluster())

        def start(count: int, url: str) -> list[Running]:
            secret = os.urandom(32).hex()
            folders = [
                Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(count)
            ]
            return [stack.enter_context(gateway(each, secret, url)) for each in folders]

        teams = {
            "one on SQLite": start(1, ""),
            "one on PostgreSQL": start(1, database.make_database()),
            "two on PostgreSQL": start(2, database.make_database()),
        }
        totals = {name: _Team() for name in teams}
        for name in [*teams] * _TURNS:
            team = teams[name]
            # Of its own, because the sequences begin anew.
            runs = make_runs(team[0], options.runners)
            before = database_s(database.pid)
            used = [each.processor_s() for each in team]
            loads = load_team(team, runs, options.seconds / _TURNS)
            totals[name].add(
                loads,
                [each.processor_s() - then for each, then in zip(team, used)],
                database_s(database.pid) - before,
            )
        for name, total in totals.items():
            report.add(f"{name}, {options.runners} runners", total.text())
        for name in teams:
            report.add(f"{name}, a viewer", viewer_text(teams[name]))


_TURNS = 5
_WATCHED_S = 10.0
_WATCHERS = 100


class _Team:
    """What all turns of some gateways came to."""

    def __init__(self) -> None:
        self._events = 0
        self._rates: list[float] = []
        self._gateways_s = self._database_s = 0.0
        self._latencies: list[tuple[float, float, float]] = []

    def add(self, loads: Sequence[Load], gateways_s: Sequence[float], database_s: float) -> None:
        """Add a turn."""
        self._events += sum(sum(each.sent.values()) for each in loads)
        self._rates.append(sum(each.rate for each in loads))
        self._gateways_s += sum(gateways_s)
        self._database_s += database_s
        self._latencies += [(each.p50_ms, each.p99_ms, each.worst_ms) for each in loads]

    def text(self) -> str:
        """Return it for a table."""
        p50, p99, worst = (max(each) for each in zip(*self._latencies))
        return (
            f"{sum(self._rates) / len(self._rates):,.0f}/s, answered in {p50:.0f} ms (p50), "
            f"{p99:.0f} ms (p99), {worst:.0f} ms (worst); processor time for an event "
            f"{self._gateways_s / self._events * 1e6:.0f} us, and "
            f"{self._database_s / self._events * 1e6:.0f} us of PostgreSQL"
        )


def load_team(
    team: Sequence[Running], runs: Sequence[tuple[str, str]], seconds: float
) -> list[Load]:
    """Let the runs send at once, each to one of the gateways."""

    def load(number: int) -> Load:
        each = team[number]
        return make_load(each.port, each.secret, runs[number :: len(team)], seconds)

    with ThreadPoolExecutor(len(team)) as threads:
        return list(threads.map(load, range(len(team))))


def database_s(pid: int) -> float:
    """Return the processor time of PostgreSQL, with that of its processes that have ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = sum(_ticks(pid)[:4])
    for each in children:
        with suppress(OSError):  # it has ended meanwhile
            ticks += sum(_ticks(int(each))[:2])
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(each) for each in fields[11:15]]


def viewer_text(team: Sequence[Running]) -> str:
    """Return what a viewer costs who follows a run with twenty events a second: the difference
    between many of them and none.
    """
    run_id, token = make_runs(team[0], 1)[0]
    sender = Runner(team[0].port, team[0].secret, run_id, token)

    def used_s() -> float:
        before = sum(each.processor_s() for each in team)
        began = time.monotonic()
        for number in range(int(_WATCHED_S * EVENTS_A_SECOND)):
            sender.send("x" * (EVENT_BYTES - 1) + "\n")
            while not sender.receive():
                pass
            time.sleep(max(0.0, began + (number + 1) / EVENTS_A_SECOND - time.monotonic()))
        return sum(each.processor_s() for each in team) - before

    alone = used_s()
    with ExitStack() as stack:
        for number in range(_WATCHERS):
            each = team[number % len(team)]
            sock = _open_stream(each.port, each.admin_token, run_id)
            stack.enter_context(closing(sock))
            threading.Thread(target=_drain, args=(sock,), daemon=True).start()
        watched = used_s()
    cost_us = (watched - alone) / _WATCHERS / (_WATCHED_S * EVENTS_A_SECOND) * 1e6
    return f"{cost_us:.0f} us of processor time for each event that it gets"


def _drain(sock: socket.socket) -> None:
    with suppress(OSError):
        while sock.recv(65_536):
            pass


def measure_backlog(running: Running, options: argparse.Namespace, report: Report) -> None:
    """All runners at once send what has waited in them: events of almost a megabyte."""
    runs = make_runs(running, options.runners)
    load = make_load(
        running.port, running.secret, runs, options.seconds, event_bytes=BACKLOG_EVENT_BYTES
    )
    megabytes = load.rate * BACKLOG_EVENT_BYTES / 1e6
    report.add(
        f"{options.runners} runners at once, events of {BACKLOG_EVENT_BYTES // 1000} KB",
        f"{megabytes:.1f} MB/s",
    )


def measure_browser(running: Running, options: argparse.Namespace, report: Report) -> None:
    """From the moment that a runner sends an event to the one that a browser has it."""
    _measure_viewers(running, options, report, viewers=1)


def measure_viewers(running: Running, options: argparse.Namespace, report: Report) -> None:
    """The same with many browsers that follow one run."""
    _measure_viewers(running, options, report, viewers=VIEWERS)


def _measure_viewers(
    running: Running, options: argparse.Namespace, report: Report, viewers: int
) -> None:
    ((run_id, token),) = make_runs(running, 1)
    count = int(options.seconds * EVENTS_A_SECOND)
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    watcher = context.Process(
        target=_watch,
        args=(running.port, running.admin_token, run_id, viewers, count, results),
    )
    watcher.start()
    results.get(timeout=60)  # all are connected
    runner = Runner(running.port, running.secret, run_id, token)
    began = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, began + number / EVENTS_A_SECOND - time.perf_counter()))
        runner.send(f"{time.monotonic():.6f} {'x' * (EVENT_BYTES - 20)}\n")
        while not runner.receive():
            pass
    latencies, missed = results.get(timeout=120)
    watcher.join()
    latencies.sort()
    report.add(
        f"an event to {viewers} browser{'s' * (viewers > 1)}, {EVENTS_A_SECOND} events/s",
        f"{_percentile(latencies, 0.50):.1f} ms (p50), "
        f"{_percentile(latencies, 0.99):.1f} ms (p99), {missed} missed",
    )


def _watch(port: int, token: str, run_id: str, viewers: int, count: int, results: Any) -> None:
    """Be the browsers: note for each event how long it took; the process that reads."""
    selector = selectors.DefaultSelector()
    for _ in range(viewers):
        selector.register(_open_stream(port, token, run_id), selectors.EVENT_READ, bytearray())
    results.put("connected")
    latencies: list[float] = []
    deadline = time.monotonic() + 60 + count / EVENTS_A_SECOND
    while len(latencies) < count * viewers and time.monotonic() < deadline:
        for key, _ in selector.select(1.0):
            buffer: bytearray = key.data
            buffer += key.fileobj.recv(262_144)  # type: ignore[union-attr]
            *frames, rest = bytes(buffer).split(b"\n\n")
            now = time.monotonic()
            latencies += [
                now - float(frame.split(b'"data": "')[1].split()[0])
                for frame in frames
                if frame.startswith(b"id: ")
            ]
            buffer[:] = rest
    results.put((latencies, count * viewers - len(latencies)))


def _open_stream(port: int, token: str, run_id: str, after: int = 0) -> socket.socket:
    """Follow a run; return the connection behind the head of the answer, which comes alone."""
    sock = socket.create_connection(("127.0.0.1", port))
    request = (
        f"GET /api/runs/{run_id}/stream?after={after} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    sock.sendall(request.encode())
    head = b""
    while b"retry: 1000\n\n" not in head:
        head += sock.recv(4096)
    return sock


def measure_big_run(_running: Running, _options: argparse.Namespace, report: Report) -> None:
    """A run with a million events: opened at its end, and scrolled back by pages."""
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as name:
        folder = Path(name)
        with gateway(folder) as running:
            (run_id, _token), (other_id, other_token) = make_runs(running, 2)
        _fill(folder / "data" / "gateway" / "gateway.db", run_id)
        with gateway(folder) as running:
            path = f"/api/runs/{run_id}"
            began = time.perf_counter()
            running.call("GET", path)
            page = running.call("GET", f"{path}/events?limit=1000")
            opened_s = time.perf_counter() - began
            assert page["events"][-1]["sequence"] == BIG_RUN_EVENTS
            began = time.perf_counter()
            for _ in range(20):
                before = page["events"][0]["id"]
                page = running.call("GET", f"{path}/events?limit=1000&before={before}")
            back_s = (time.perf_counter() - began) / 20
            report.add(
                f"a run of {BIG_RUN_EVENTS:,} events",
                f"opens in {opened_s:.3f} s, a page back in {back_s:.3f} s, "
                f"memory {running.memory_mb():.0f} MB",
            )
            _measure_catching_up(running, run_id, (other_id, other_token), report)


def _measure_catching_up(
    running: Running, run_id: str, other: tuple[str, str], report: Report
) -> None:
    """A viewer that is far behind reads all of it, while another run sends."""
    runner = Runner(running.port, running.secret, *other)
    latencies: list[float] = []
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            runner.send("x" * EVENT_BYTES)
            while not runner.receive():
                pass
            latencies.append(time.perf_counter() - runner.sent_at)

    sender = threading.Thread(target=send)
    sender.start()
    sock = _open_stream(
        running.port, running.admin_token, run_id, after=BIG_RUN_EVENTS - BEHIND_EVENTS
    )
    began = time.perf_counter()
    last, tail = f"id: {BIG_RUN_EVENTS}\n".encode(), b""
    while last not in tail:
        tail = tail[-len(last) :] + sock.recv(1_048_576)
    took_s = time.perf_counter() - began
    is_over.set()
    sender.join()
    latencies.sort()
    report.add(
        f"a viewer {BEHIND_EVENTS:,} events behind",
        f"has them in {took_s:.1f} s; meanwhile {len(latencies) / took_s:.0f} events/s from a "
        f"runner, {_percentile(latencies, 0.50):.1f} ms (p50), "
        f"{_percentile(latencies, 0.99):.1f} ms (p99)",
    )


def _fill(database: Path, run_id: str) -> None:
    """Put the events where the gateway would have: to send them would take ten minutes."""
    data = "x" * (EVENT_BYTES - 1) + "\n"
    rows = (
        (number, run_id, "stdout", data, number, 1.0, bytes(32))
        for number in range(1, BIG_RUN_EVENTS + 1)
    )
    with closing(sqlite3.connect(database)) as connection:
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute(
            "UPDATE runs SET event_count = ?, last_event_id = ? WHERE id = ?",
            (BIG_RUN_EVENTS, BIG_RUN_EVENTS, run_id),
        )
        connection.commit()


def _load_text(load: Load) -> str:
    return (
        f"{load.rate:,.0f}/s, answered in {load.p50_ms:.1f} ms (p50), {load.p99_ms:.1f} ms (p99), "
        f"{load.worst_ms:.0f} ms (worst)"
    )


def measure(options: argparse.Namespace) -> list[str]:
    """Measure the parts that were asked for; return the table."""
    report = Report()
    print("\n".join(HEAD))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        running = stack.enter_context(gateway(folder))
        for name in options.part or USUAL:
            PARTS[name](running, options, report)
        report.add("memory, at its highest", f"{running.memory_mb():.0f} MB")
    return [*HEAD, *report.rows]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return how much is measured; the defaults without arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runners", type=int, default=50)
    parser.add_argument("--part", choices=sorted(PARTS), action="append")
    return parser.parse_args(arguments)


PARTS = {
    "ingest": measure_ingest,
    "backlog": measure_backlog,
    "browser": measure_browser,
    "viewers": measure_viewers,
    "big-run": measure_big_run,
    "team": measure_team,
}
# What takes more than Python is measured when it is asked for.
USUAL = tuple(name for name in PARTS if name != "team")

if __name__ == "__main__":
    measure(parse())
