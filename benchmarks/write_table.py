"""Run the benchmarks, and write their tables into docs/benchmarks.md.

Usage: write_table.py [--quick] [--print]

With --quick the figures are rough; with --print the page is left alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

import bench_gateway
import bench_idle
import bench_latency
import bench_redact
import bench_startup
import bench_throughput
from beside import HEAD, ROOT, busy_loops

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN = "<!-- bench: written by benchmarks/write_table.py, do not edit -->"
END = "<!-- bench: end -->"


def machine() -> list[str]:
    """Return the rows that say where and when this was measured."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    processor = model.group(1) if model else platform.machine()
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    versions = [
        subprocess.run([name, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
        for name in ("script", "asciinema")
    ]
    return [
        "| measured | |",
        "|---|---|",
        f"| date, commit | {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {commit} |",
        f"| machine | {os.cpu_count()} processors, {processor}, {platform.system()} |",
        f"| load average before (1, 5, 15 min) | {load} |",
        f"| Python | {platform.python_version()} |",
        f"| beside | {', '.join(versions)} |",
    ]


def beside_others(*, quick: bool, loops: int = 0) -> list[str]:
    """Return the table of all ways, measured while so many processes do nothing but compute."""
    with busy_loops(loops):
        return [
            *HEAD,
            *bench_throughput.measure(5 if quick else 20, 1 if quick else 5),
            *bench_latency.measure(40 if quick else 100, 1 if quick else 3),
            *bench_startup.measure(2 if quick else 9),
        ]


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--print", action="store_true", dest="only_print")
    options = parser.parse_args()
    quick = options.quick
    lines = [
        *machine(),
        "",
        "### Beside other ways to run a program",
        "",
        *beside_others(quick=quick),
        "",
        "### The same beside two busy loops",
        "",
        *beside_others(quick=quick, loops=2),
        "",
        "### A run that says nothing",
        "",
        "| what | |",
        "|---|---|",
        *bench_idle.measure(10 if quick else 60),
        "",
        "### The redactor, in MB/s on one core",
        "",
        *bench_redact.measure_all(1 if quick else 8),
        "",
        "### The gateway",
        "",
        *bench_gateway.measure(bench_gateway.parse(["--seconds", "2" if quick else "10"])),
    ]
    print("\n".join(lines))
    if options.only_print:
        return
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + "\n".join([BEGIN, *lines, END]) + after, "utf-8")


if __name__ == "__main__":
    main()
