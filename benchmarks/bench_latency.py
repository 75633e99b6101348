"""How long after it was written does a line show, on the screen and at the gateway?

Usage: bench_latency.py [--lines 100] [--rounds 3]

The program writes a line with the time on the monotonic clock every 20 ms, which is how fast a
person sees things happen; the same clock is read where the line arrives.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterable

from beside import Rows, Way, rounds, row, ways

from testing.programs.runner import program

PROGRAM = """
import sys, time
time.sleep(0.5)
for _ in range({lines}):
    sys.stdout.write("at %.6f\\n" % time.monotonic())
    sys.stdout.flush()
    time.sleep(0.02)
"""


def delays_ms(arrivals: Iterable[tuple[float, str]]) -> list[float]:
    """Return how old each line was when its end arrived, in milliseconds."""
    delays = []
    pending = ""
    for arrived_at, text in arrivals:
        lines = (pending + text).split("\n")
        pending = lines.pop()
        found = (re.search(r"at (\d+\.\d+)", line) for line in lines)
        delays += [(arrived_at - float(match.group(1))) * 1_000 for match in found if match]
    return delays


def measure(lines: int, count: int) -> list[str]:
    """Return the lines of the table."""
    at_gateway: list[float] = []
    slowest: Rows = {}
    with ways() as (found, gateway):

        def delay(name: str, way: Way) -> float:
            cost = way(program(PROGRAM.format(lines=lines)))
            delays = delays_ms((at, piece.decode("utf-8", "replace")) for at, piece in cost.seen)
            assert len(delays) == lines, len(delays)
            slowest.setdefault(name, []).append(statistics.quantiles(delays, n=20)[-1])
            if cost.run_id:
                events = gateway.events(cost.run_id)
                at_gateway.extend(delays_ms((event.received_at, event.data) for event in events))
            return statistics.median(delays)

        medians = rounds(count, delay, found)
    p95 = statistics.quantiles(at_gateway, n=20)[-1]
    middle = statistics.median(at_gateway)
    return [
        row("a line shows on the screen after, median", "ms", medians, 2),
        row("the same, 95 of 100 lines", "ms", slowest, 2),
        f"| a line is stored at the gateway after, median | ms | - | - | - | {middle:.1f} | - |",
        f"| the same, 95 of 100 lines | ms | - | - | - | {p95:.1f} | - |",
    ]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("\n".join(measure(options.lines, options.rounds)))


if __name__ == "__main__":
    main()
