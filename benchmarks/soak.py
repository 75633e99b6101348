"""Random faults over many runs, each judged from the gateway's record alone.

Usage: soak.py [--minutes N] [--seed N] [--workers N] [--stops N] [--claude-stops N]

Each run has a seed of its own, from which all that happens to it follows: the faults, pauses of the
gateway, a stop, kills of the runner and of `sync`; how the processes are scheduled does not follow.
In the end there is one `sync` that nobody disturbs, and then the gateway must have
every line once and in order, one `finished`, and no process of the run may be left. Every third run
is an episode on a small disk that gets full, see `testing/programs/episode.py`. The outcome is
written into docs/reliability.md, between its two marker comments. Exit 1 if anything was wrong.

Before that come `--claude-stops` ends of the real Claude Code in a row, in one state after the
other, some by the operator and some by a kill of the runner: nothing may be left 3 s later. And
`--stops` stops, by the operator, of children with grandchildren that have left their session and
are deaf to signals. `--minutes 0` leaves it at these, and at the docs as they are. A machine on
which Claude Code cannot be installed or no tmpfs mounted fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from testing.gateways.faults import (  # noqa: E402
    Action,
    DropAfter,
    DropBefore,
    Fault,
    HalfAnswer,
    Hang,
    Html,
    JsonError,
    RateLimited,
)
from testing.gateways.strict_gateway import StrictGateway  # noqa: E402
from testing.programs import claude_code, processes  # noqa: E402 - it is beside this folder
from testing.programs.disk import mounted  # noqa: E402
from testing.programs.episode import DISK_MEGABYTES, Episode, count_resets  # noqa: E402
from testing.programs.model_api import ModelApi  # noqa: E402
from testing.programs.runner import Launch, RunnerProcess, child, plan, program  # noqa: E402
from testing.programs.verdict import ASKED_TWICE, committed, files_with, judge, sync  # noqa: E402
from testing.waiting import eventually  # noqa: E402
from tests.claude.scene import GONE_WITHIN_S, Scene  # noqa: E402
from tests.claude.states import PRINT, SESSIONS, kill_runner, stop  # noqa: E402

REPORT = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- soak: written by benchmarks/soak.py, do not edit -->"
END = "<!-- soak: end -->"

MARKER = "SOAK_MARKER"
RATE_PER_S = 400
_GONE_WITHIN_S = 10.0
_FAULTS: tuple[Action, ...] = (
    DropBefore(),
    DropBefore(reset=True),
    DropAfter(),
    DropAfter(reset=True),
    HalfAnswer(),
    Html(502),
    Html(503, after="stored"),
    JsonError(500, after="nonce"),
    RateLimited(1),
    RateLimited(None, with_rate_headers=False),
    Hang(seconds=0.5),
    Hang(seconds=0.5, after="stored"),
)


@dataclass
class Totals:
    """What all runs together came to. Thread: any, behind `lock`."""

    counts: Counter[str] = field(default_factory=Counter)
    seeds: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seed: int, counts: Counter[str], problems: list[str]) -> None:
        """Add one run."""
        with self.lock:
            self.counts.update(counts)
            self.seeds.append(seed)
            self.failures += [f"seed {seed}: {problem}" for problem in problems]


class Ordeal:
    """One run and what happens to it, by its seed."""

    def __init__(self, seed: int, folder: Path, gateway: StrictGateway) -> None:
        self._dice = random.Random(seed)
        self._gateway = gateway
        self._marker = uuid.uuid4().hex
        self.counts: Counter[str] = Counter(runs=1)
        self.problems: list[str] = []
        self._files: list[str] = []
        self._told = ""
        self._faults: list[Fault] = []
        self._lines = self._dice.choice((50, 300, 1_000, 2_000))
        self._alternate = self._dice.random() < 0.5
        arguments = [str(self._lines), str(RATE_PER_S), "--pad", str(self._dice.choice((0, 200)))]
        arguments += ["--alternate"] if self._alternate else []
        self._launch: Launch = plan(
            gateway,
            child("lines.py", *arguments),
            folder,
            env={MARKER: self._marker, "CLAUDE_RUNNER_DRAIN_TIMEOUT": "20"},
        )

    def undergo(self) -> None:
        """Let everything happen to it, and judge."""
        for action in self._dice.sample(_FAULTS, self._dice.randint(0, 4)):
            every = self._dice.randint(3, 15)
            where = self._dice.choice(("event", "event", "*"))
            self._faults.append(self._gateway.faults.add(Fault(where, action, every=every)))
        is_whole = self._run()
        if not committed(self._launch, "marker"):
            # Killed before the child was started, or refused by a gateway that was made to fail:
            # there is nothing that could be lost. A runner that fails by itself is another matter.
            self.counts["not begun"] += 1
            if "claude-runner itself" in self._told or "Traceback" in self._told:
                self.problems.append(f"it failed before it began: {self._told[-200:]!r}")
            return
        # Between the first marker and the child's start there is no log yet.
        self._files = ["claude.log"] if (self._launch.run_dir / "claude.log").exists() else []
        kept = {stream: committed(self._launch, stream) for stream in ("stdout", "stderr")}
        while self._dice.random() < 0.4:
            self.counts["kills"] += 1
            sync(self._launch, kill_after_s=self._dice.uniform(0.15, 1.0))
        self._gateway.faults.clear()
        self.counts["syncs"] += 1
        done = sync(self._launch, within_s=120)
        if done.code != 0:
            self.problems.append(f"sync ended with {done.code}: {done.stderr.splitlines()[:1]}")
        self._judge(kept, is_whole=is_whole)

    def _run(self) -> bool:
        """Start it and disturb it; return whether the child came to its own end."""
        is_killed = self._dice.random() < 0.6
        is_stopped = not is_killed and self._dice.random() < 0.3
        within_s = self._lines / RATE_PER_S + 0.5
        with RunnerProcess(self._launch) as runner:
            if self._dice.random() < 0.3:
                self._disturb(runner, within_s * self._dice.random())
                self._gateway.pause()
                self._disturb(runner, self._dice.uniform(0.1, 2.0))
                self._gateway.resume()
            if is_stopped:
                self._disturb(runner, within_s * self._dice.random())
                self._gateway.stop(self._launch.run.id)
                self.counts["stops"] += 1
            if is_killed:
                self._disturb(runner, self._dice.uniform(0.05, within_s))
                self.counts["kills"] += 1
                try:
                    runner.signal(signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it had ended by itself
            code = runner.wait(120)
            self._told = runner.stderr
        return code == 0

    def _disturb(self, runner: RunnerProcess, seconds: float) -> None:
        """Let it run for a while, unless it ends."""
        try:
            runner.wait(seconds)
        except AssertionError:
            pass  # it is still running, as it should

    def _judge(self, kept: dict[str, str], *, is_whole: bool) -> None:
        gateway, run = self._gateway, self._launch.run
        if any("answered 500" in each for each in gateway.violations):
            # It died when a failure had been answered and not yet noted: nobody can tell these two
            # apart from an answer that was lost.
            self.counts["exceptions"] += 1
            return
        self.counts["faults"] += sum(each.fault is not None for each in gateway.requests)
        self.counts["resets"] += count_resets(self._faults)
        violations = [each for each in gateway.violations if ASKED_TWICE not in each]
        self.problems += violations
        gateway.clear_violations()
        last = self._lines if is_whole else None
        verdict = judge(gateway, run.id, last=last, alternate=self._alternate, files=self._files)
        for name in ("lines", "lost", "doubled", "reordered"):
            self.counts[name] += getattr(verdict, name)
        self.problems += verdict.problems
        if {stream: gateway.text(run.id, stream) for stream in kept} != kept:
            self.problems.append("the gateway does not have what was committed")
        if files_with(self._launch.data_dir, run.token):
            self.problems.append("the token is still in a file")
        survivors = self._survivors()
        self.counts["survivors"] += len(survivors)
        self.problems += [f"process {processes.describe(each)} is left" for each in survivors]

    def _survivors(self) -> list[int]:
        def nobody() -> None:
            assert not processes.find_by_marker(self._marker)

        try:
            eventually(nobody, _GONE_WITHIN_S)
        except AssertionError:
            pass  # counted below
        return processes.find_by_marker(self._marker)


def work(dice: random.Random, deadline: float, totals: Totals) -> None:
    """Let one run after the other undergo its ordeal."""
    while time.monotonic() < deadline:
        seed = dice.randrange(1 << 32)
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            problems: list[str] = []
            counts: Counter[str] = Counter()
            try:
                with ExitStack() as stack:
                    gateway = stack.enter_context(StrictGateway(rate_limit=None))
                    run: Ordeal | Episode
                    if seed % 3:
                        run = Ordeal(seed, Path(folder), gateway)
                    else:
                        disk = stack.enter_context(mounted(Path(folder, "disk"), DISK_MEGABYTES))
                        run = Episode(seed, Path(folder), disk, gateway)
                    counts, problems = run.counts, run.problems
                    run.undergo()
                    gateway.clear_violations()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                problems.append(f"{type(error).__name__}: {error}"[:400])
        totals.add(seed, counts, problems)
        with totals.lock:
            print(f"{len(totals.seeds)} runs, {len(totals.failures)} problems", end="\r")
            for problem in problems:
                print(f"seed {seed}: {problem}")


# A child that is interrupted with success, and leaves behind what a tool of Claude Code's may be: a
# process in a session of its own that is deaf to signals and holds the terminal, and its child.
DEAF_FAMILY = program("""
import os, signal, sys
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.fork()
    os.write(writer, b".")
    while True:
        signal.pause()
told = b""
while len(told) < 2:
    told += os.read(reader, 2)
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
print("READY", os.getpid(), flush=True)
while True:
    signal.pause()
""")


def stop_once(gateway: StrictGateway) -> list[str]:
    """Start a run and stop it; return what was wrong."""
    marker = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        launch = plan(gateway, DEAF_FAMILY, Path(folder), env={MARKER: marker})
        with RunnerProcess(launch) as runner:
            launch.expect_pid()
            gateway.stop(launch.run.id)
            code = runner.wait()
            # As soon as the runner has ended, and before this test kills anything.
            left = processes.find_by_marker(marker)
        (end,) = gateway.markers(launch.run.id, "finished")
    problems = [f"{processes.describe(each)} is left after a stop" for each in left]
    if (code, end["reason"], end["childExitCode"]) != (130, "stopped", 0):
        problems.append(f"a stop ended with {code}, {end}")
    return problems


def stop_often(count: int, workers: int) -> list[str]:
    """Start and stop this many runs, `workers` of them at a time; return what was wrong."""
    problems: list[str] = []
    with (
        StrictGateway(rate_limit=None, long_poll=True) as gateway,
        ThreadPoolExecutor(workers) as pool,
    ):
        for number, found in enumerate(pool.map(stop_once, [gateway] * count), start=1):
            problems += found
            print(f"{number} stops of stand-ins, {len(problems)} problems", end="\r")
    print()
    return problems


# --- the real Claude Code -------------------------------------------------------------------------

STATES = (*PRINT, *SESSIONS)
# Every so many ends are a kill of the runner. It shares no factor with the number of states, so
# that each state meets both.
KILL_EVERY = 5
# How long it stays in its state, at random: a start-up has many moments.
_LONGEST_PAUSE_S = 1.0


@dataclass
class ClaudeStops:
    """What the stops of the real Claude Code came to."""

    version: str = ""
    count: int = 0
    kills: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    problems: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the table."""
        yield f"ends of Claude Code {self.version} in a row", f"{self.count:,}"
        yield "of these by `kill -9` of the runner", f"{self.kills:,}"
        yield "states that it was in", str(min(len(STATES), self.count))
        yield "longest time until nothing was left", f"{self.slowest_s:.2f} s ({self.slowest})"


def end_claude_once(program: Path, number: int, pause_s: float) -> tuple[str, float, str]:
    """End one run of it; return how it was ended, the seconds until it was gone, what was wrong."""
    state = STATES[number % len(STATES)]
    is_killed = number % KILL_EVERY == KILL_EVERY - 1
    what = f"{state}, {'runner killed' if is_killed else 'stopped'}"
    took_s, problem = 0.0, ""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            with ModelApi() as api, StrictGateway(rate_limit=None, long_poll=True) as gateway:
                scene = Scene(program, api, gateway, Path(folder))
                took_s = (kill_runner if is_killed else stop)(scene, state, pause_s)
                if took_s > GONE_WITHIN_S:
                    problem = f"{what}: gone only after {took_s:.2f} s"
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            problem = f"{what}, {pause_s:.2f} s later: {type(error).__name__}: {error}"[:400]
    return what, took_s, problem


def end_claude_often(count: int, workers: int, dice: random.Random) -> ClaudeStops:
    """End it so many times, `workers` at a time. Raises: InstallError."""
    program = claude_code.install()
    stops = ClaudeStops(claude_code.version(program))
    pauses = [dice.uniform(0.0, _LONGEST_PAUSE_S) for _ in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        ends = pool.map(end_claude_once, [program] * count, range(count), pauses)
        for what, took_s, problem in ends:
            stops.count += 1
            stops.kills += "killed" in what
            if took_s > stops.slowest_s:
                stops.slowest_s, stops.slowest = took_s, what
            stops.problems += [problem] if problem else []
            print(f"{stops.count} ends of Claude Code, {len(stops.problems)} problems", end="\r")
    print()
    return stops


# --- the report -----------------------------------------------------------------------------------


def describe_commit() -> str:
    """Return the commit that was tested, and whether there were changes on top of it."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    ).stdout.strip()
    ours = [*git, "status", "--porcelain", "--untracked-files=no", "--", "*.py", ":!redact*.py"]
    changed = subprocess.run(ours, check=False, capture_output=True, text=True).stdout.strip()
    return f"{commit or 'unknown'}{' and changes' if changed else ''}"


@dataclass(frozen=True)
class Findings:
    """All that a soak found."""

    seed: int
    duration_s: float
    claude: ClaudeStops
    stand_ins: int
    totals: Totals

    @property
    def failures(self) -> list[str]:
        """What was wrong, in a sentence each."""
        return self.claude.problems + self.totals.failures

    def render(self) -> str:
        """Return the table."""
        counts = self.totals.counts
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
        rows = [
            ("commit", describe_commit()),
            ("date", time.strftime("%Y-%m-%d", time.gmtime())),
            ("machine", f"{machine}, Python {platform.python_version()}"),
            *self.claude.rows(),
            ("stops of stand-ins with deaf descendants in a row", f"{self.stand_ins:,}"),
            ("duration of what follows", f"{self.duration_s / 60:.1f} minutes"),
            ("seed of all seeds", str(self.seed)),
            *((name, f"{counts[name]:,}") for name in ("runs", "kills", "stops", "syncs")),
            *((name, f"{counts[name]:,}") for name in ("faults", "lines", "lost", "doubled")),
            ("reordered", f"{counts['reordered']:,}"),
            ("resets of connections among the faults", f"{counts['resets']:,}"),
            ("runs on a small disk", f"{counts['episodes']:,}"),
            ("full disks", f"{counts['full disks']:,}"),
            ("runs that were not whole, and said so", f"{counts['runs that were not whole']:,}"),
            ("bytes that were told as missing", f"{counts['bytes told as missing']:,}"),
            ("runs that were killed before they began", str(counts["not begun"])),
            ("runs that met a stated exception, not judged", str(counts["exceptions"])),
            ("surviving processes", str(counts["survivors"])),
            ("problems, the ends above included", str(len(self.failures))),
        ]
        lines = ["| what | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows]
        lines += ["", *(f"- {each}" for each in self.failures[:20])] if self.failures else []
        return "\n".join(lines)


def write_report(table: str) -> None:
    """Put the table between the markers."""
    text = REPORT.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    REPORT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")


def undergo_for(minutes: float, workers: int, dice: random.Random, totals: Totals) -> float:
    """Let runs undergo their ordeals for so long; return the seconds that it took."""
    begun_at = time.monotonic()
    deadline = begun_at + minutes * 60
    threads = [
        threading.Thread(target=work, args=(random.Random(dice.random()), deadline, totals))
        for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - begun_at


def main() -> int:
    """Run for the given time, write the table, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--claude-stops", type=int, default=200)
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("CLAUDE", "GATEWAY", "HMAC"))]:
        del os.environ[name]
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.workers} workers")
    dice = random.Random(options.seed)
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as name, mounted(Path(name, "disk"), 1):
            pass
    except OSError as error:
        print(f"no soak without small disks: {error}")
        return 1
    try:
        claude = end_claude_often(options.claude_stops, options.workers, dice)
    except claude_code.InstallError as error:
        print(f"no soak without the real Claude Code: {error}")
        return 1
    totals = Totals()
    totals.failures += stop_often(options.stops, options.workers)
    duration_s = undergo_for(options.minutes, options.workers, dice, totals)
    findings = Findings(options.seed, duration_s, claude, options.stops, totals)
    print(findings.render())
    if options.minutes:
        write_report(findings.render())
    has_begun = bool(totals.seeds) or not options.minutes
    return 0 if has_begun and not findings.failures else 1


if __name__ == "__main__":
    sys.exit(main())
