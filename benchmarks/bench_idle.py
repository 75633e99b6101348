"""What does a run cost while its program says nothing?

Usage: bench_idle.py [--seconds 60]

The program sleeps. Processor time, wake-ups and requests are counted over so many seconds, from ten
seconds after its start on: those of the runner's processes, not of the program. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from beside import GatewayProcess, runner_launch

from testing.programs import processes
from testing.programs.runner import RunnerProcess, program

_SETTLE_S = 10.0
_PROGRAM = "import time; time.sleep(3600)  # idle"


class _Used(NamedTuple):
    cpu_s: float
    wakeups: int
    requests: int


def measure(seconds: float) -> list[str]:
    """Return the lines of the table."""
    rows = []
    for long_poll in (True, False):
        share, wakeups, requests = _measure(seconds, long_poll=long_poll)
        how = "with long poll" if long_poll else "without"
        rows.append(
            f"| an idle run, {how} | {share:.3f} % of a core, {wakeups:.1f} wake-ups a second, "
            f"{requests:.1f} requests a minute |"
        )
    return rows


def _measure(seconds: float, *, long_poll: bool) -> tuple[float, float, float]:
    with (
        GatewayProcess(long_poll=long_poll) as gateway,
        tempfile.TemporaryDirectory(prefix="idle-") as name,
        RunnerProcess(runner_launch(gateway, program(_PROGRAM), Path(name))) as runner,
    ):
        time.sleep(_SETTLE_S)
        before = _used(runner.pid, gateway)
        time.sleep(seconds)
        after = _used(runner.pid, gateway)
    return (
        (after.cpu_s - before.cpu_s) / seconds * 100,
        (after.wakeups - before.wakeups) / seconds,
        (after.requests - before.requests) / seconds * 60,
    )


def _used(pid: int, gateway: GatewayProcess) -> _Used:
    """Return what the runner and its keeper have used until now."""
    cpu_s, wakeups = 0.0, 0
    for each in (pid, *processes.descendants(pid)):
        folder = Path(f"/proc/{each}")
        with contextlib.suppress(OSError):
            if _PROGRAM.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                continue
            for task in (folder / "task").iterdir():
                status = (task / "status").read_text()
                wakeups += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return _Used(cpu_s, wakeups, gateway.count_requests())


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    print("\n".join(measure(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
