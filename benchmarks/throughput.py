"""How fast a child can print while the gateway is slow, and what that costs the runner.

Usage: throughput.py [--megabytes N] [--delay SECONDS] [--unredacted]

The child is `testing/programs/children/floods.py`. Its speed is measured from its first byte to its
exit, once alone under `sh -c` with its output in a terminal that is read and thrown away, once
under the runner with a gateway, in a process of its own, that takes DELAY for every answer to an
event. What is printed besides is the runner's largest memory and processor time, the number of
events, and whether every byte arrived. With --unredacted the runner's redactor is replaced by one
that passes everything on: what remains is the speed of the pump and the journal. Exit 1 if a byte
is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import pty
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from testing.gateways.faults import Delay, Fault  # noqa: E402
from testing.gateways.strict_gateway import StrictGateway  # noqa: E402
from testing.programs.children import floods  # noqa: E402 - it is beside this folder
from testing.programs.runner import child, plan  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_GIVE_UP_S = 600.0
# Times the child from inside the run, so that neither start nor delivery counts.
_TIMED = """
import subprocess, sys, time
begin = time.monotonic()
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(time.monotonic() - begin))
sys.exit(code)
"""
_UNREDACTED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import redact
redact.Redactor.feed = lambda self, raw: raw
import claude_runner
sys.exit(claude_runner.main())
"""


def serve(pipe: Connection, delay_s: float, count: int) -> None:
    """Be the gateway: say where it is, wait for a word, and report what came."""
    with StrictGateway(rate_limit=None) as gateway:
        gateway.faults.add(Fault("event", Delay(delay_s, after="stored"), every=1))
        pipe.send((gateway.url, gateway.secret, gateway.create_run()))
        run_id = pipe.recv()
        output = gateway.events(run_id, "stdout")
        digest = hashlib.sha256("".join(each.data for each in output).encode()).hexdigest()
        is_whole = digest == expected_digest(count) and gateway.verify_finished(run_id) == []
        pipe.send((len(output), is_whole))


def expected_digest(megabytes: int) -> str:
    """Return the SHA-256 of all that the child prints."""
    whole = hashlib.sha256()
    for first in range(0, megabytes * floods.LINES_IN_A_MEGABYTE, 10_000):
        whole.update(b"".join(floods.line(number) for number in range(first, first + 10_000)))
    return whole.hexdigest()


def timed(seconds_file: Path, megabytes: int) -> list[str]:
    """Return the command that runs the child and leaves its duration in a file."""
    flood = child("floods.py", str(megabytes))
    return [sys.executable, "-I", "-S", "-c", _TIMED, str(seconds_file), *flood]


def measure_alone(folder: Path, megabytes: int) -> float:
    """Return the child's seconds with a terminal that is only read."""
    seconds_file = folder / "alone"
    pid, master_fd = pty.fork()
    if pid == 0:
        argv = ["sh", "-c", 'exec "$@"', "sh", *timed(seconds_file, megabytes)]
        os.execvp(argv[0], argv)
    try:
        while os.read(master_fd, 65_536):
            pass
    except OSError:
        pass  # the terminal has no user any more
    os.waitpid(pid, 0)
    os.close(master_fd)
    return float(seconds_file.read_text())


class _GatewayProcess:
    """What `plan` wants to know of a gateway that runs elsewhere."""

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret


def measure_runner(folder: Path, options: argparse.Namespace) -> bool:
    """Run the child under the runner, print what was seen, and return whether all arrived."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    gateway = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, options.delay, options.megabytes)
    )
    gateway.start()
    url, secret, run = ours.recv()
    seconds_file = folder / "under-the-runner"
    known: Any = _GatewayProcess(url, secret)
    launch = plan(known, timed(seconds_file, options.megabytes), folder, run=run)
    argv = launch.argv
    if options.unredacted:
        argv = [argv[0], "-c", _UNREDACTED, str(ROOT), *argv[2:]]
    begin = time.monotonic()
    with subprocess.Popen(argv, env=launch.env, stdout=subprocess.DEVNULL) as runner:
        peak_kb = cpu_s = 0.0
        while runner.poll() is None and time.monotonic() < begin + _GIVE_UP_S:
            peak_kb = max(peak_kb, _peak_kb(runner.pid))
            time.sleep(0.1)
        runner.kill()
    total_s = time.monotonic() - begin
    ours.send(run.id)
    events, is_whole = ours.recv()
    gateway.join(_GIVE_UP_S)
    child_s = float(seconds_file.read_text())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"under the runner:  {options.megabytes / child_s:6.1f} MB/s of the child")
    print(f"  runner's memory: {peak_kb / 1024:6.1f} MB at most")
    print(f"  events:          {events:6d}, {options.megabytes / max(1, events):.2f} MB each")
    print(f"  whole run:       {total_s:6.1f} s; processor, with child and gateway {cpu_s:.1f} s")
    print(f"  every byte:      {'arrived' if is_whole and runner.returncode == 0 else 'NO'}")
    return bool(is_whole) and runner.returncode == 0


def _peak_kb(pid: int) -> float:
    """Return the largest resident memory of a process until now; Linux only."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return float(found.group(1)) if found else 0.0


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.3)
    parser.add_argument("--unredacted", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        alone_s = measure_alone(Path(folder), options.megabytes)
        print(f"alone in a terminal: {options.megabytes / alone_s:4.1f} MB/s of the child")
        return 0 if measure_runner(Path(folder), options) else 1


if __name__ == "__main__":
    sys.exit(main())
