"""What the numbers for Prometheus, and the log of JSON, cost: processor time of an event.

    python benchmarks/bench_observing.py [--batches 60] [--events 200]

One gateway runs in this process, and its client in another one. It takes batches of events with
nothing, with the numbers, and with both, in turns: what else the machine does falls on all alike.
On a busy machine the turns differ by more than what is looked for; so what an event has to do more
is measured alone, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

from beside import ROOT

from gateway import assembly
from gateway.observing import request_log
from gateway.observing.metrics import Metrics
from gateway.serving.hosts import find_hosts
from gateway.serving.server import Connection, _Gateway
from gateway.settings import load_settings
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.gateways.gateway_records import Run

# Sends a batch for each line that it reads: its first number.
CLIENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.gateway_records import Run
gateway = EmbeddedGateway(Path(sys.argv[2]))
gateway.told = {"port": int(sys.argv[3])}
run = Run(sys.argv[4], sys.argv[5])
for line in sys.stdin:
    gateway.send_events(run, ["x" * 100] * int(sys.argv[6]), int(line))
    print("sent", flush=True)
"""
WAYS = ("nothing", "numbers", "numbers and log")


def main() -> None:
    """Measure, and print what each way costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--events", type=int, default=200)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shown = EmbeddedGateway(folder)
        address = f"127.0.0.1:{free_port()}"
        environ = {
            **os.environ,
            "CLAUDE_RUNNER_GATEWAY_METRICS": address,
            "CLAUDE_RUNNER_GATEWAY_RATE_LIMIT": "0",
        }
        settings = load_settings(environ, str(shown.data_dir), str(shown.env_file))
        gateway = assembly.Gateway(
            settings, find_hosts("127.0.0.1", "http", None), ("127.0.0.1", 0), None
        )
        stack.enter_context(gateway)
        run = Run(*gateway._store.create_run("go", None))
        client = subprocess.Popen(
            [
                *(sys.executable, "-c", CLIENT, str(ROOT), str(folder), str(gateway.port)),
                *(run.id, run.token, str(options.events)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(client.kill)
        costs = measure(gateway, client, options.batches, options.events)
    event_us = statistics.median(costs["nothing"])
    for way in WAYS[1:]:
        alone_us = measure_alone(logs=way.endswith("log"))
        print(f"{way}, alone: {alone_us:.2f} us, {100 * alone_us / event_us:.2f} % of an event")
    for way in WAYS:
        ratios = [one / other for one, other in zip(costs[way], costs["nothing"])]
        print(
            f"{way}: {statistics.median(costs[way]):.1f} us an event, "
            f"{100 * (statistics.median(ratios) - 1):+.2f} % (median of {len(ratios)} turns)"
        )


def measure_alone(*, logs: bool, count: int = 100_000) -> float:
    """Return the microseconds of what is done more for an event, with its share of a reading."""
    metrics = Metrics()
    server = SimpleNamespace(witness=assembly._make_witness(metrics, logs=logs), proxies=Nobody())
    connection = SimpleNamespace(server=server, _asked=None, give_id=lambda _: None)
    environ = {"gateway.route": "POST /api/ingest/event", "REMOTE_ADDR": "127.0.0.1"}
    request = SimpleNamespace(server=server, conn=connection, outheaders=[])
    gateway = SimpleNamespace(env=environ, req=request)
    event = ("x" * 100,)
    began = time.process_time()
    for _ in range(count):
        Connection.begin_noting(connection, environ)  # type: ignore[arg-type]
        if logs:
            request.outheaders.clear()
            _Gateway._name(gateway)  # type: ignore[arg-type]
        metrics.stored(iter(event))
        Connection.note(connection, int(b"HTTP/1.1 200 OK"[9:12]))  # type: ignore[arg-type]
    metrics.add_up()
    return (time.process_time() - began) / count * 1e6


class Nobody:
    """No proxies."""

    def has(self, _address: str) -> bool:
        """Whether one is trusted."""
        return False


def measure(
    gateway: assembly.Gateway, client: subprocess.Popen[str], batches: int, events: int
) -> dict[str, list[float]]:
    """Return the microseconds of each batch, by what was switched on."""
    server, notices, writer = gateway._server, gateway._notices, gateway._writer
    metrics, written = notices._metrics, writer.when_written
    assert metrics is not None
    assert client.stdin is not None
    assert client.stdout is not None
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    request_log.use_json()
    first = 1
    for number in range(batches + 1):
        for way in WAYS if number % 2 else WAYS[::-1]:
            is_on = way != "nothing"
            logs = way.endswith("log")
            server.witness = assembly._make_witness(metrics if is_on else None, logs=logs)
            server.names_requests = logs
            notices._metrics = metrics if is_on else None
            writer.when_written = written if is_on else None
            began = time.process_time()
            client.stdin.write(f"{first}\n")
            client.stdin.flush()
            assert client.stdout.readline() == "sent\n"
            time.sleep(0.02)  # the last event is noted when it has been answered
            metrics.add_up()
            if number:  # the first turn warms up
                costs[way].append((time.process_time() - began) / events * 1e6)
            first += events
    return costs


if __name__ == "__main__":
    main()
