"""What the numbers for Prometheus cost: processor time of the gateway per event, in turns.

    python benchmarks/bench_observing.py [--events 20000] [--turns 5]

One gateway without and one with them run side by side, each pinned to nothing; they take the same
events in turns, so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port


def processor_s(pid: int) -> float:
    """Return what a process has used."""
    # The scheduler counts in nanoseconds, the usual fields in hundredths of a second.
    folder = Path(f"/proc/{pid}/task")
    spent = [(each / "schedstat").read_text().split()[0] for each in folder.iterdir()]
    return sum(map(int, spent)) / 1e9


def main() -> None:
    """Measure, and print a line for each turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variants: dict[str, dict[str, str]] = {"plain": {}, "metrics": {}, "metrics+log": {}}
        for name in list(variants)[1:]:
            variants[name]["CLAUDE_RUNNER_GATEWAY_METRICS"] = f"127.0.0.1:{free_port()}"
        variants["metrics+log"]["CLAUDE_RUNNER_GATEWAY_LOG"] = "json"
        gateways = {
            name: stack.enter_context(EmbeddedGateway(folder / name, env=env))
            for name, env in variants.items()
        }
        runs = {name: gateway.create_run() for name, gateway in gateways.items()}
        costs: dict[str, list[float]] = {name: [] for name in gateways}
        for turn in range(options.turns):
            names = list(gateways)[:: 1 if turn % 2 else -1]
            for name in names:
                gateway = gateways[name]
                began = processor_s(gateway.pid)
                first = turn * options.events + 1
                gateway.send_events(runs[name], ["x" * 100] * options.events, first)
                time.sleep(0.1)
                costs[name].append((processor_s(gateway.pid) - began) / options.events * 1e6)
            print(json.dumps({name: round(each[-1], 1) for name, each in costs.items()}))
        plain = costs["plain"]
        for name, each in costs.items():
            ratios = [one / other for one, other in zip(each, plain)]
            print(
                f"{name}: {statistics.median(each):.1f} us an event, "
                f"{100 * (statistics.median(ratios) - 1):+.1f} %"
            )


if __name__ == "__main__":
    main()
