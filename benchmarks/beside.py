"""The same command four ways: alone in a terminal, under `script`, `asciinema rec`, and the runner.

What the benchmarks share: how each way starts a command, and what one such run costs, measured from
outside on a terminal that is read as fast as it fills. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pty
import select
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "wrapper" / "claude-runner"
sys.path.insert(0, str(ROOT))

from testing.gateways.strict_gateway import StrictGateway  # noqa: E402
from testing.programs import processes  # noqa: E402 - it is beside this folder
from testing.programs.runner import Launch, plan  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from testing.gateways.gateway_records import Event

GIVE_UP_S = 600.0
_LOOK_EVERY_S = 0.05


class GatewayProcess:
    """A strict gateway without a rate limit in a process of its own. A context manager."""

    def __init__(self, *, long_poll: bool = False) -> None:
        self._long_poll = long_poll

    def __enter__(self) -> GatewayProcess:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._long_poll))
        self._process.start()
        self.url, self.secret = self._pipe.recv()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.send(None)
        self._process.join(GIVE_UP_S)

    def create_run(self) -> Any:
        """Return a new run, as the gateway's page would make it."""
        self._pipe.send("create")
        return self._pipe.recv()

    def count_requests(self) -> int:
        """Return how many requests have come until now."""
        self._pipe.send("count")
        return int(self._pipe.recv())

    def events(self, run_id: str) -> list[Event]:
        """Return the output that came; raises unless every byte of it is accounted for."""
        self._pipe.send(run_id)
        events, differences = self._pipe.recv()
        assert not differences, differences
        found: list[Event] = events
        return found


def _serve(pipe: Connection, long_poll: bool) -> None:
    with StrictGateway(rate_limit=None, long_poll=long_poll) as gateway:
        pipe.send((gateway.url, gateway.secret))
        while (asked := pipe.recv()) is not None:
            if asked == "create":
                pipe.send(gateway.create_run())
            elif asked == "count":
                pipe.send(len(gateway.requests))
            else:
                pipe.send((gateway.events(asked, "stdout"), gateway.verify_finished(asked)))


@dataclass
class Cost:
    """What one run of a command cost, its own share included."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    # The same with each page that processes share counted once.
    peak_shared_once_bytes: int
    # When each piece of output was seen on the terminal, by the monotonic clock.
    seen: list[tuple[float, bytes]] = field(repr=False)
    run_id: str = ""


Way = Callable[[Sequence[str]], Cost]


@contextlib.contextmanager
def ways() -> Iterator[tuple[dict[str, Way], GatewayProcess]]:
    """Yield each way that this machine has, by name, and the gateway behind the runner."""
    with GatewayProcess() as gateway, tempfile.TemporaryDirectory(prefix="beside-") as name:
        folder = Path(name)

        def alone(command: Sequence[str]) -> Cost:
            return run_in_terminal(["sh", "-c", 'exec "$@"', "sh", *command], os.environ)

        def script(command: Sequence[str]) -> Cost:
            typescript = str(folder / "typescript")
            return run_in_terminal(
                ["script", "-q", "-e", "-f", "-c", shlex.join(command), typescript], os.environ
            )

        def asciinema(command: Sequence[str]) -> Cost:
            recording = str(folder / "recording.cast")
            return run_in_terminal(
                ["asciinema", "rec", "-q", "--overwrite", "-c", shlex.join(command), recording],
                {**os.environ, "ASCIINEMA_CONFIG_HOME": name, "LC_ALL": "C.UTF-8"},
            )

        def runner(command: Sequence[str]) -> Cost:
            own = Path(tempfile.mkdtemp(dir=folder))
            launch = runner_launch(gateway, command, own)
            cost = run_in_terminal([str(SHIM), *launch.argv[2:]], launch.env)
            cost.run_id = launch.run.id
            return cost

        found: dict[str, Way] = {"sh -c": alone}
        if shutil.which("script"):
            found["script"] = script
        if shutil.which("asciinema"):
            found["asciinema rec"] = asciinema
        found["claude-runner"] = runner
        yield found, gateway


def as_a_user(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for the shim: this Python, and compiled files, as users have them."""
    kept = {name: text for name, text in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "CLAUDE_RUNNER_PYTHON": sys.executable}


def runner_launch(gateway: GatewayProcess, command: Sequence[str], folder: Path) -> Launch:
    """Return how the runner is started, with the settings that a user has who sets none."""
    known: Any = gateway
    launch = plan(known, command, folder, run=gateway.create_run())
    env = as_a_user(launch.env)
    del env["CLAUDE_RUNNER_POLL_INTERVAL"]
    return replace(launch, env=env)


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep so many processors busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


def run_in_terminal(argv: Sequence[str], env: Mapping[str, str]) -> Cost:
    """Run a command in a terminal that is read at once, to its end. Raises if it fails."""
    begin = time.monotonic()
    pid, master_fd = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], list(argv), dict(env))
    seen: list[tuple[float, bytes]] = []
    peak_bytes = peak_shared_once_bytes = 0
    next_look = begin
    while True:
        if time.monotonic() >= next_look:
            resident, shared_once = _memory_bytes(pid)
            peak_bytes = max(peak_bytes, resident)
            peak_shared_once_bytes = max(peak_shared_once_bytes, shared_once)
            next_look = time.monotonic() + _LOOK_EVERY_S
        if not select.select([master_fd], [], [], _LOOK_EVERY_S)[0]:
            continue
        try:
            piece = os.read(master_fd, 65_536)
        except OSError:
            break  # the terminal has no user any more
        if not piece:
            break
        seen.append((time.monotonic(), piece))
    _, status, usage = os.wait4(pid, 0)
    os.close(master_fd)
    assert status == 0, f"{argv[0]} failed: {b''.join(piece for _, piece in seen[-3:])!r}"
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - begin, cpu_s, peak_bytes, peak_shared_once_bytes, seen)


def _memory_bytes(pid: int) -> tuple[int, int]:
    """Return the resident memory of a process and everything below it: the sum of what each has,
    and with each page that they share counted once.
    """
    resident = shared_once = 0
    for each in (pid, *processes.descendants(pid)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                name, _, size = line.partition(":")
                if name in ("Rss", "Pss"):
                    size_bytes = int(size.split()[0]) * 1_024
                    resident += size_bytes * (name == "Rss")
                    shared_once += size_bytes * (name == "Pss")
    return resident, shared_once


def rounds(count: int, measure: Callable[[str, Way], float], found: Mapping[str, Way]) -> Rows:
    """Measure each way `count` times, in turns, so that a busy machine is unfair to none."""
    figures: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(count):
        for name, way in found.items():
            figures[name].append(measure(name, way))
    return figures


Rows = dict[str, list[float]]
COLUMNS = ("sh -c", "script", "asciinema rec", "claude-runner")
HEAD = (
    f"| what | unit | {' | '.join(f'`{name}`' for name in COLUMNS)} | runner to asciinema |",
    "|---|---|" + "---|" * (len(COLUMNS) + 1),
)


def row(what: str, unit: str, figures: Rows, digits: int = 1) -> str:
    """Return a line of the table: the median of each way and its ratio to doing without, and that
    of the runner to asciinema, which is taken round by round.
    """
    base = statistics.median(figures["sh -c"])
    cells = []
    for name in COLUMNS:
        if name not in figures:
            cells.append("-")
            continue
        median = statistics.median(figures[name])
        ratio = "" if name == "sh -c" or not base else f" ({median / base:.1f} x)"
        cells.append(f"{median:.{digits}f}{ratio}")
    pairs = zip(figures["claude-runner"], figures.get("asciinema rec", []))
    ratios = [ours / theirs for ours, theirs in pairs]
    cells.append(f"{statistics.median(ratios):.2f} x" if ratios else "-")
    return f"| {what} | {unit} | {' | '.join(cells)} |"
