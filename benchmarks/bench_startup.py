"""How long does it take until the program runs, and until everything is over?

Usage: bench_startup.py [--rounds 7]

The program says the time and ends. Before it may start, the runner asks the gateway for the run;
after its end, it delivers what is left and uploads the log.
"""

from __future__ import annotations

import argparse
import time

from bench_latency import delays_ms
from beside import Rows, Way, rounds, row, ways

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
        row("the first line shows after", "ms", starts, 0),
        row("all is over after", "ms", whole, 0),
    ]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("\n".join(measure(options.rounds)))


if __name__ == "__main__":
    main()
