"""One run on a small disk and what happens to both at random, judged from the gateway's record.

All that happens follows from a seed: the disk gets full, in part or to the last byte, has room
again, or takes nothing that is written; somebody else takes whatever becomes free; the gateway goes
away, comes back, resets connections and loses answers; the operator sends commands; the run ends by
itself, by a stop or by a kill, and `sync` is killed as well. How the processes are scheduled does
not follow from it. In the end there is room, the gateway is there, and one `sync` is left alone.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from testing.gateways.faults import Action, DropAfter, DropBefore, Fault, HalfAnswer, Hang, Html
from testing.gateways.strict_gateway import StrictGateway
from testing.journal import crash_copy, opened
from testing.programs import processes
from testing.programs.children.numbers import line
from testing.programs.disk import Disk, forbid_writing
from testing.programs.runner import Launch, RunnerProcess, child, plan
from testing.programs.verdict import ASKED_TWICE, files_with, sync
from testing.waiting import eventually

MARKER = "EPISODE_MARKER"
DISK_MEGABYTES = 8
# Made anew each time: a Hang that was let go of does not hang again.
_FAULTS: tuple[Callable[[], Action], ...] = (
    DropBefore,
    partial(DropBefore, reset=True),
    DropAfter,
    partial(DropAfter, reset=True),
    HalfAnswer,
    partial(Html, 502),
    partial(Hang, seconds=0.3, after="stored"),
)
_NOTICE = re.compile(r"(\d+) bytes of output \(\d+ lines\).* missing here: the disk was full")


class Episode:
    """One run and what happens to it, by its seed. `problems` is empty if all promises were kept.

    `folder` is not on the disk.
    """

    def __init__(self, seed: int, folder: Path, disk: Disk, gateway: StrictGateway) -> None:
        self._dice = random.Random(seed)
        self._folder = folder
        self._disk = disk
        self._gateway = gateway
        self._marker = uuid.uuid4().hex
        self._code = self._dice.choice((0, 0, 3))
        self._is_full = False
        self._is_greedy = False
        self._faults: list[Fault] = []
        self.counts: Counter[str] = Counter(runs=1, episodes=1)
        self.problems: list[str] = []
        per_second = self._dice.choice((100, 1_000, 8_000))
        command = child("numbers.py", str(folder), str(per_second), str(self._code))
        env = {MARKER: self._marker, "CLAUDE_RUNNER_DRAIN_TIMEOUT": "1"}
        launch = plan(gateway, command, folder, env=env)
        data_dir = disk.folder / "data"
        argv = [str(data_dir) if item == str(launch.data_dir) else item for item in launch.argv]
        self._launch: Launch = replace(launch, argv=argv, data_dir=data_dir)

    def undergo(self) -> None:
        """Let everything happen to it, and judge."""
        gateway, run_id = self._gateway, self._launch.run.id
        gateway.allow(ASKED_TWICE)
        how, told = self._run()
        has_end = how != "killed" or self._has_end()
        is_lost = " lost: neither " in told or not (self._launch.run_dir / "spool.db").exists()
        before = len(gateway.events(run_id))
        while self._dice.random() < 0.4:
            self.counts["kills"] += 1
            self._happen_to_disk()
            sync(self._launch, kill_after_s=self._dice.uniform(0.15, 0.8))
        self._recover()
        patience = {"CLAUDE_RUNNER_DRAIN_TIMEOUT": "60"}
        done = sync(self._launch, env=patience, within_s=180)
        if done.code != 0:
            self.problems.append(f"sync ended with {done.code}: {done.stderr.splitlines()[:1]}")
        if is_lost and len(gateway.events(run_id)) != before:
            self.problems.append("what was told as lost was sent later")
        if is_lost and not gateway.markers(run_id, "finished"):
            self.counts["lost with their end"] += 1
        else:
            self._judge(how, has_end=has_end)
        self._judge_leftovers()

    # --- what happens -------------------------------------------------------------------------

    def _run(self) -> tuple[str, str]:
        """Start it and let things happen; return how it ended, and what the runner told."""
        how = self._dice.choice(("by itself", "by itself", "killed", "killed", "stopped"))
        with ExitStack() as stack:
            runner = stack.enter_context(RunnerProcess(self._launch))
            self._launch.expect(r"(?m)^1 ", within_s=60)
            ends_at = time.monotonic() + self._dice.uniform(0.5, 4.0)
            while time.monotonic() < ends_at and self._is_running(runner):
                self._happen(runner)
            if how == "killed" and self._dice.random() < 0.5:
                return self._kill(runner)
            if how == "stopped":
                # A gateway that is away does not tell of a stop.
                self._gateway.resume()
                self._gateway.stop(self._launch.run.id)
                self.counts["stops"] += 1
            else:
                (self._folder / "stop").touch()
            if how == "killed":
                until = time.monotonic() + self._dice.uniform(0.0, 2.0)
                while time.monotonic() < until and self._is_running(runner):
                    self._happen(runner)
                return self._kill(runner)
            with self._greed():
                code = runner.wait(90)
            expected = 130 if how == "stopped" else self._code
            if code != expected:
                self.problems.append(f"the exit code is {code}: {runner.stderr[-300:]!r}")
            return how, runner.stderr

    def _kill(self, runner: RunnerProcess) -> tuple[str, str]:
        self.counts["kills"] += 1
        with suppress(ProcessLookupError):
            runner.signal(signal.SIGKILL)
        runner.wait(30)
        (self._folder / "stop").touch()
        return "killed", runner.stderr

    def _is_running(self, runner: RunnerProcess) -> bool:
        try:
            runner.wait(self._dice.uniform(0.02, 0.3))
        except AssertionError:
            return True
        return False

    def _happen(self, runner: RunnerProcess) -> None:
        what = self._dice.choice(("disk", "disk", "disk", "gateway", "faults", "command", "limit"))
        if what == "disk":
            self._happen_to_disk()
        elif what == "gateway" and self._dice.random() < 0.5:
            self.counts["outages"] += 1
            self._gateway.pause()
        elif what == "gateway":
            self._gateway.resume()
        elif what == "faults":
            self._gateway.faults.clear()
            for make in self._dice.sample(_FAULTS, self._dice.randint(0, 3)):
                fault = Fault("event", make(), every=self._dice.randint(3, 9))
                self._faults.append(self._gateway.faults.add(fault))
        elif what == "command":
            self._gateway.queue_command(self._launch.run.id, "pwd")
        elif self._dice.random() < 0.3:
            self._forbid_writing(runner)

    def _forbid_writing(self, runner: RunnerProcess) -> None:
        """Let the runner write to no file for a while."""
        with suppress(ProcessLookupError):
            undo = forbid_writing(runner.pid)
            if undo is not None:
                self.counts["times that nothing could be written"] += 1
                self._is_running(runner)
                if self._dice.random() < 0.8:
                    undo()

    def _happen_to_disk(self) -> None:
        self._is_greedy = self._dice.random() < 0.3
        if self._is_full and self._dice.random() < 0.5:
            self._disk.make_room()
            self._is_full = False
            return
        self.counts["full disks"] += not self._is_full
        self._disk.fill()
        self._is_full = True
        if self._dice.random() < 0.3:
            self._disk.leave(self._dice.choice((4_096, 100_000, 1_000_000, 5_000_000)))

    @contextmanager
    def _greed(self) -> Iterator[None]:
        """While it ends, take what becomes free of a full disk, if that is how it is."""
        if not (self._is_full and self._is_greedy):
            yield
            return
        pid = os.fork()
        if pid == 0:
            while True:
                self._disk.fill()
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _recover(self) -> None:
        if self._is_full:
            self._disk.make_room()
        self._is_full = False
        self._disk.grow()
        self._gateway.faults.clear()
        self._gateway.resume()

    # --- what became of it --------------------------------------------------------------------

    def _has_end(self) -> bool:
        """Whether the end is kept somewhere, or delivered."""
        if self._gateway.markers(self._launch.run.id, "finished"):
            return True
        if not (self._launch.run_dir / "spool.db").exists():
            return False
        # SQLite reads no journal on a full disk.
        copy = self._folder / "copy"
        copy.mkdir()
        path = crash_copy(self._launch.run_dir / "spool.db", copy)
        with opened(path) as spool:
            return spool.has_end

    def _judge(self, how: str, *, has_end: bool) -> None:
        gateway, run_id = self._gateway, self._launch.run.id
        self.counts["faults"] += sum(each.applied for each in self._faults)
        self.counts["resets"] += count_resets(self._faults)
        violations = [each for each in gateway.violations if ASKED_TWICE not in each]
        self.problems += [*violations, *gateway.verify_finished(run_id)]
        gateway.clear_violations()
        events = gateway.events(run_id)
        if [event.sequence for event in events] != list(range(1, len(events) + 1)):
            self.problems.append(f"the sequences are {[e.sequence for e in events][-9:]}")
        names = [marker.get("event") for marker in gateway.markers(run_id)]
        ends = [names.count("started"), names.count("finished"), names[-1]]
        if ends != [1, 1, "finished"]:
            self.problems.append(f"the markers are {names}")
            return
        finished = gateway.markers(run_id, "finished")[0]
        self._judge_end(finished, how, has_end=has_end)
        self._judge_output(finished, [event.data for event in gateway.events(run_id, "stdout")])

    def _judge_end(self, finished: dict[str, Any], how: str, *, has_end: bool) -> None:
        end = (finished["reason"], finished["exitCode"])
        possible = {("exited", self._code)}
        if how == "stopped":
            possible = {("stopped", 130)}
        if not has_end:
            possible = {("runner died", 137)}
        if end not in possible:
            self.problems.append(f"it ended {how}, and `finished` says {end}, not {possible}")
        self.counts["runner died"] += end[0] == "runner died"

    def _judge_output(self, finished: dict[str, Any], pieces: list[str]) -> None:
        """Each piece must be what was printed, behind the one before; what is missing is told."""
        numbers = [int(each) for each in re.findall(r"(?m)^(\d+) ", "".join(pieces))]
        whole = b"".join(map(line, range(1, max(numbers, default=0) + 2_000))).decode()
        position = 0
        for piece in pieces:
            found = whole.find(piece, position)
            if found < 0:
                self.problems.append(f"doubled, reordered or never printed: {piece[:60]!r}")
                return
            position = found + len(piece)
        size = sum(map(len, pieces))
        self.counts["bytes"] += size
        told = [event.data for event in self._gateway.events(self._launch.run.id, "error")]
        in_place = sum(int(match.group(1)) for match in map(_NOTICE.match, told) if match)
        lost = finished["lostBytes"]
        self.counts["bytes told as missing"] += lost or 0
        self.counts["runs that were not whole"] += not finished["whole"]
        if finished["whole"] and (lost or in_place):
            self.problems.append(f"it calls itself whole, and lacks {lost} bytes")
        is_off_disk = not finished["whole"] and lost is not None and lost > in_place
        if lost is not None and lost != in_place and not is_off_disk:
            self.problems.append(f"{in_place} bytes are told, and {lost} in the end")
        if finished["reason"] == "exited":
            printed = int((self._folder / "printed").read_text())
            if lost != printed - size:
                self.problems.append(f"{printed - size} of {printed} bytes are missing, not {lost}")

    def _judge_leftovers(self) -> None:
        if files_with(self._launch.data_dir, self._launch.run.token):
            self.problems.append("the token is still in a file")

        def nobody() -> None:
            assert not processes.find_by_marker(self._marker)

        try:
            eventually(nobody, 15.0)
        except AssertionError:
            left = processes.find_by_marker(self._marker)
            self.counts["survivors"] += len(left)
            self.problems += [f"process {processes.describe(each)} is left" for each in left]


def count_resets(faults: Iterable[Fault]) -> int:
    """Return how often these have reset a connection."""
    return sum(each.applied for each in faults if getattr(each.do, "reset", False))


def describe(counts: Counter[str]) -> str:
    """Return the counts on one line."""
    return json.dumps(dict(sorted(counts.items())))
