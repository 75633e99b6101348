"""Judging what became of a run from the gateway's record alone; and `sync` as a process.

    verdict = judge(gw, run.id, last=400)
    assert verdict.problems == []

The child is `lines.py`, so every line has its number. Nothing here knows how the runner works, but
for the two functions that look into its journal: what was committed, and whether a token is left.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from testing.gateways.faults import Action, Exchange
from testing.gateways.gateway_records import AnyGateway
from testing.programs.runner import ROOT, Launch, RunnerProcess, run_to_end

_LINE = re.compile(r"([0-9]+) [0-9]+\.[0-9]{6}( \.*)?")
# After a kill the gateway may be asked again what it had answered: the journal could not know.
ASKED_TWICE = "a nonce reused after it was answered"

_PID_WITHIN_S = 10.0


@dataclass
class Verdict:
    """What was found. `problems` is empty if all is well; the counts are for a table."""

    lines: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    problems: list[str] = field(default_factory=list)


def judge(
    gateway: AnyGateway,
    run_id: str,
    *,
    last: int | None = None,
    alternate: bool = False,
    files: Sequence[str] = ("claude.log",),
) -> Verdict:
    """Compare what the gateway has of a run of `lines.py` with what it should have.

    Without `last` the child was killed: the lines that came must be a beginning without a gap, and
    the last one may be cut. With `alternate` odd lines are on stdout, even ones on stderr.
    """
    verdict = Verdict()
    step = 2 if alternate else 1
    _judge_stream(verdict, gateway.text(run_id, "stdout"), range(1, (last or 0) + 1, step), last)
    if alternate:
        expected = range(2, (last or 0) + 1, step)
        _judge_stream(verdict, gateway.text(run_id, "stderr"), expected, last)
    _judge_frame(verdict, gateway, run_id)
    names = sorted(each.name for each in gateway.artifacts(run_id))
    if names != sorted(files):
        verdict.problems.append(f"the files are {names}, not {sorted(files)}")
    verdict.problems += gateway.verify_finished(run_id)
    return verdict


# Python 3.13 has them in its tracebacks.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_INTERRUPTED_START = re.compile(
    r"\ATraceback \(most recent call last\):\n(?:  .*\n)*KeyboardInterrupt\n"
)


def _judge_stream(verdict: Verdict, text: str, expected: range, last: int | None) -> None:
    # A stop may hit the child while its Python is still starting.
    lines = _INTERRUPTED_START.sub("", _COLOUR.sub("", text)).splitlines(keepends=True)
    if last is None and lines and not lines[-1].endswith("\n"):
        lines.pop()
    numbers = []
    for line in lines:
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match:
            numbers.append(int(match.group(1)))
        elif line != "LAST\n":
            verdict.problems.append(f"a line that was never printed: {line[:60]!r}")
    if last is None:
        expected = range(expected.start, max(numbers, default=0) + 1, expected.step)
    lost = len(set(expected) - set(numbers))
    doubled = len(numbers) - len(set(numbers))
    reordered = sum(a > b for a, b in zip(numbers, numbers[1:]))
    verdict.lines += len(numbers)
    verdict.lost += lost
    verdict.doubled += doubled
    verdict.reordered += reordered
    if lost or doubled or reordered:
        verdict.problems.append(
            f"of {len(expected)} lines {lost} are lost, {doubled} doubled, {reordered} reordered"
        )


def _judge_frame(verdict: Verdict, gateway: AnyGateway, run_id: str) -> None:
    events = gateway.events(run_id)
    kinds = [marker.get("event") for marker in gateway.markers(run_id)]
    if kinds.count("started") != 1 or kinds.count("finished") != 1 or kinds[-1] != "finished":
        verdict.problems.append(f"the markers are {kinds}")
    if not events or events[-1].type != "marker":
        verdict.problems.append("something came after `finished`")
    sequences = [event.sequence for event in events]
    if sequences != list(range(1, len(events) + 1)):
        verdict.problems.append(f"the sequences are {sequences[:5]}..{sequences[-5:]}")


# --- the journal, from outside --------------------------------------------------------------------


@contextmanager
def _journal(launch: Launch) -> Iterator[sqlite3.Connection]:
    path = launch.run_dir / "spool.db"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        yield database


def committed(launch: Launch, stream: str = "stdout") -> str:
    """Return what the run's journal holds of a stream; empty as long as there is no journal."""
    try:
        with _journal(launch) as database:
            rows = database.execute(
                "SELECT text FROM chunks WHERE stream = ? ORDER BY id", (stream,)
            ).fetchall()
    except sqlite3.OperationalError:
        return ""
    return "".join(text for (text,) in rows)


def has_recorded_end(launch: Launch) -> bool:
    """Whether the run's journal says how it ended."""
    try:
        with _journal(launch) as database:
            return bool(database.execute("SELECT 1 FROM facts WHERE name = 'end'").fetchall())
    except sqlite3.OperationalError:
        return False  # there is no journal yet


def frozen_nonce(launch: Launch) -> str:
    """Return the nonce of the event that is in flight, or an empty text."""
    with _journal(launch) as database:
        rows = database.execute("SELECT nonce FROM events WHERE state = 'frozen'").fetchall()
    return str(rows[0][0]) if rows else ""


def files_with(folder: Path, text: str) -> list[str]:
    """Return the files below a folder that contain a text."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(path) for path in found if text.encode() in path.read_bytes()]


# --- sync -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Synced:
    """How a `sync` ended: exit code (-N for signal N), what it printed, what it told."""

    code: int
    stdout: str
    stderr: str


def start_sync(launch: Launch) -> RunnerProcess:
    """Prepare `sync` on the launch's data folder. The run's token comes from the journal alone."""
    argv, environment = _how_to_sync(launch)
    return RunnerProcess(replace(launch, argv=argv, env=environment))


def _how_to_sync(launch: Launch) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment."""
    env_file = launch.argv[launch.argv.index("--env-file") + 1]
    argv = [launch.argv[0], str(ROOT / "claude_runner.py"), "sync", "--env-file", env_file]
    argv += ["--data-dir", str(launch.data_dir)]
    env = {name: value for name, value in launch.env.items() if name != "CLAUDE_RUNNER_TOKEN"}
    return argv, env


def sync(
    launch: Launch,
    *options: str,
    env: Mapping[str, str] | None = None,
    within_s: float = 40.0,
    kill_after_s: float | None = None,
) -> Synced:
    """Run `sync` to its end, or kill it after so many seconds."""
    argv, environment = _how_to_sync(launch)
    environment.update(env or {})
    try:
        done = run_to_end([*argv, *options], environment, within_s=kill_after_s or within_s)
    except subprocess.TimeoutExpired:
        assert kill_after_s is not None, "sync did not end"
        return Synced(-signal.SIGKILL, "", "")
    return Synced(done.returncode, done.stdout.decode(), done.stderr.decode())


# --- faults that end a process --------------------------------------------------------------------

# When the process ends: before the gateway saw the request, after it was stored and before it was
# answered, or when the answer is on its way and the process has not looked at it.
Moment = Literal["before", "stored", "answered"]


@dataclass(eq=False)
class Kill(Action):
    """The client is killed with signal 9 at a named moment of one request.

    `pid` is set when the process has been started. Shape: the fault waits for it.
    """

    moment: Moment
    pid: int = 0

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        # Stopped first: it cannot act on an answer that it only finds in its socket's buffer.
        exchange.wait(_PID_WITHIN_S, lambda: self.pid > 0)
        os.kill(self.pid, signal.SIGSTOP)
        if self.moment != "before":
            reply = exchange.handle()
            if self.moment == "answered":
                exchange.answer(reply)
        os.kill(self.pid, signal.SIGKILL)
        exchange.close()
