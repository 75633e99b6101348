"""What does a run cost that waits: processor time, wake-ups, requests?

Usage: bench_idle.py [--seconds 30]

The runner, its keeper and a child that sleeps; the child is not counted. Linux only: wake-ups are
the voluntary switches of the kernel's scheduler, of every thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from beside import SHIM, as_a_user

from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.runner import plan

_SETTLED_AFTER_S = 3.0


def measure(seconds: float) -> list[str]:
    """Return the lines of a table."""
    lines = [
        "| an idle run | of a core | wake-ups a second | requests a minute |",
        "|---|---|---|---|",
    ]
    for title, has_long_poll in (("with long poll", True), ("without", False)):
        cpu, wake_ups, requests = _watch(seconds, has_long_poll=has_long_poll)
        lines.append(f"| {title} | {cpu:.3%} | {wake_ups:.2f} | {requests:.1f} |")
    return lines


def _watch(seconds: float, *, has_long_poll: bool) -> tuple[float, float, float]:
    """Return the share of a core, the wake-ups a second and the requests a minute."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(StrictGateway(rate_limit=None, long_poll=has_long_poll))
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="idle-"))
        launch = plan(gateway, ["sleep"], Path(name), prompt="1000")
        env = as_a_user(launch.env)
        del env["CLAUDE_RUNNER_POLL_INTERVAL"]
        argv = [str(SHIM), *launch.argv[2:]]
        runner = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
        try:
            gateway.wait_for(lambda: gateway.markers(launch.run.id, "started"), 60)
            time.sleep(_SETTLED_AFTER_S)
            pids = [runner.pid, *(each.pid for each in processes.children(runner.pid))]
            asked, before = len(gateway.requests), _cost(pids)
            time.sleep(seconds)
            cpu_s, wake_ups = (now - then for now, then in zip(_cost(pids), before))
            asked = len(gateway.requests) - asked
        finally:
            runner.send_signal(signal.SIGINT)
            runner.wait()
    return cpu_s / seconds, wake_ups / seconds, asked * 60 / seconds


def _cost(pids: list[int]) -> tuple[float, float]:
    """Return the seconds of processor time that these processes have had, and their wake-ups."""
    ticks = wake_ups = 0
    for task in (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(OSError):  # a thread that has ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            found = re.search(
                r"(?m)^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text()
            )
            wake_ups += int(found[1]) if found else 0
    return ticks / os.sysconf("SC_CLK_TCK"), wake_ups


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30.0)
    print("\n".join(measure(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
