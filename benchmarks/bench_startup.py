"""How long does it take until the program runs, and until everything is over?

Usage: bench_startup.py [--rounds 7]

The program says the time and ends. The runner is started by its shim, as a user does. Before the
program may start, the runner asks the gateway for the run; after its end, it delivers what is left
and uploads the log.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from bench_latency import delays_ms
from beside import SHIM, Rows, Way, as_a_user, rounds, row, run_in_terminal, ways

PROGRAM = ["sh", "-c", "echo at $(cut -d' ' -f1 /proc/uptime)"]


def measure(count: int) -> list[str]:
    """Return the lines of the table."""
    whole: Rows = {}
    with ways() as (found, _):

        def start(name: str, way: Way) -> float:
            begin = time.monotonic()
            cost = way(PROGRAM)
            whole.setdefault(name, []).append(cost.seconds * 1_000)
            arrivals = ((at, piece.decode("utf-8", "replace")) for at, piece in cost.seen)
            assert delays_ms(arrivals), name
            first = next(at for at, piece in cost.seen if b"at " in piece)
            return (first - begin) * 1_000

        starts = rounds(count, start, found)
    return [
        *_measure_answers(count),
        row("the first line shows after", "ms", starts, 0),
        row("all is over after", "ms", whole, 0),
    ]


def _measure_answers(count: int) -> list[str]:
    """Return a line for each question that the runner answers without a run."""
    rows = []
    for option in ("--version", "--help"):
        costs = [run_in_terminal([str(SHIM), option], as_a_user(os.environ)) for _ in range(count)]
        took_ms = statistics.median(cost.seconds for cost in costs) * 1_000
        rows.append(f"| `{option}` has answered after | ms | - | - | - | {took_ms:.0f} | - |")
    return rows


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("\n".join(measure(options.rounds)))


if __name__ == "__main__":
    main()
