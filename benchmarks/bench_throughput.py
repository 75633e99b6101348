"""How fast may a program print, and what does each megabyte cost? Beside doing without.

Usage: bench_throughput.py [--megabytes 20] [--rounds 5]

The program is `testing/programs/children/floods.py`; its speed is its own, from its first byte
to its exit. Processor time and memory are those of the whole process tree, the program's own share
included.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from beside import Rows, Way, rounds, row, ways
from throughput import timed


def measure(megabytes: int, count: int) -> list[str]:
    """Return the lines of the table."""
    cpu: Rows = {}
    memory: Rows = {}
    shared_once: Rows = {}
    with ways() as (found, gateway), tempfile.TemporaryDirectory() as folder:
        seconds_file = Path(folder, "seconds")

        def speed(name: str, way: Way) -> float:
            cost = way(timed(seconds_file, megabytes))
            if cost.run_id:
                sent = sum(len(event.data) for event in gateway.events(cost.run_id))
                assert sent == megabytes * 1_000_000, sent
            cpu.setdefault(name, []).append(cost.cpu_s * 1_000 / megabytes)
            memory.setdefault(name, []).append(cost.peak_bytes / 1e6)
            shared_once.setdefault(name, []).append(cost.peak_shared_once_bytes / 1e6)
            return megabytes / float(seconds_file.read_text())

        speeds = rounds(count, speed, found)
    return [
        row("the program prints", "MB/s", speeds),
        row("processor time, all processes", "ms/MB", cpu),
        row("peak memory, all processes", "MB", memory),
        row("the same, shared pages once", "MB", shared_once),
    ]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("\n".join(measure(options.megabytes, options.rounds)))


if __name__ == "__main__":
    main()
