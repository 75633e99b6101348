"""The keeper by itself: what it starts, what it tells, and how it ends a run."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

from runner import keeper
from runner.keeper import CHILD, Keeper, Report
from runner.processes import PS, living_descendants, read_ps
from testing.programs import processes
from testing.programs.runner import child, program
from testing.waiting import eventually

DEADLINE_S = 10.0
WAITS = program("import os, signal; print('READY', os.getpid(), flush=True); signal.pause()")


class Run:
    """A keeper, one terminal for its child, and all that the keeper has reported."""

    def __init__(self) -> None:
        self.keeper = Keeper()
        self.reports: list[Report] = []
        self.master, self._slave = os.openpty()
        self._output = b""
        self._has_left = False

    def leave(self, timeout_s: float = DEADLINE_S) -> None:
        """Say goodbye, once."""
        if not self._has_left:
            self._has_left = True
            self.keeper.close(timeout_s)

    def close(self) -> None:
        """Say goodbye, and undo what making a keeper did to this process."""
        self.leave()
        os.close(self.master)
        os.close(self._slave)
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

    def start(
        self, argv: Sequence[str], key: str = CHILD, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a program, on the terminal if it is the child."""
        fds = (self._slave, self._slave, self._slave)
        self.keeper.spawn(
            key, argv, cwd="/", env=env or os.environ, fds=fds, on_terminal=key == CHILD
        )

    def expect(self, event: str, key: str = CHILD) -> Report:
        """Wait for a report, and take it off the list."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            for report in self.reports:
                if (report.event, report.key) == (event, key):
                    self.reports.remove(report)
                    return report
            left_s = max(0.0, deadline - time.monotonic())
            assert select.select([self.keeper], [], [], left_s)[0], f"no {event}: {self.reports}"
            received = self.keeper.receive()
            assert received is not None, f"the keeper is gone without {event}"
            self.reports += received

    def expect_output(self, pattern: str) -> re.Match[str]:
        """Wait until the terminal has shown this."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = re.search(pattern, self._output.decode())
            if found:
                return found
            left_s = max(0.0, deadline - time.monotonic())
            assert select.select([self.master], [], [], left_s)[0], f"there was {self._output!r}"
            self._output += os.read(self.master, 65_536)

    def status(self, key: str = CHILD) -> int:
        """Wait for a program's end; return its exit code, or -N for signal N."""
        return os.waitstatus_to_exitcode(self.expect("exited", key).number)


@pytest.fixture
def run() -> Iterator[Run]:
    """A keeper that is told goodbye at the end."""
    run = Run()
    yield run
    run.close()


def test_a_child_leads_the_foreground(run: Run) -> None:
    """The child leads a group in the foreground of a session that the keeper leads."""
    run.start(WAITS)

    pid = run.expect("spawned").number
    assert int(run.expect_output(r"READY (\d+)").group(1)) == pid
    assert os.getpgid(pid) == pid == os.tcgetpgrp(run.master)
    assert os.getsid(pid) == run.keeper.pid == os.getsid(run.keeper.pid)
    os.kill(pid, signal.SIGTERM)
    assert run.status() == -signal.SIGTERM
    assert run.expect("swept", "").number == 0


def test_what_cannot_be_started_is_told(run: Run) -> None:
    """A program that is not there is reported with its errno, and the keeper goes on."""
    run.start(["/no/such/program"], "first")
    run.start(child("exits.py", "7"), "second")

    failed = run.expect("failed", "first")
    assert failed.number == errno.ENOENT
    assert "/no/such/program" in failed.text
    assert run.status("second") == 7


def test_frames_of_several_threads_do_not_mix(run: Run) -> None:
    """Threads that start programs at the same time, with large environments, all get theirs."""
    env = {"FILLER": "x" * 100_000}
    true = program("")

    def start_some(number: int) -> None:
        for index in range(5):
            run.start(true, f"{number}-{index}", env)

    threads = [threading.Thread(target=start_some, args=(number,)) for number in range(4)]

    for thread in threads:
        thread.start()

    for number in range(4):
        for index in range(5):
            assert run.status(f"{number}-{index}") == 0
    for thread in threads:
        thread.join(DEADLINE_S)


def test_a_stop_that_is_obeyed(run: Run) -> None:
    """A child that ends by SIGINT is not waited for any longer."""
    run.start(child("ready.py", "0"))
    run.expect_output("READY")

    run.keeper.stop_run(grace_s=3600)

    assert run.status() == -signal.SIGINT
    run.expect("swept", "")


def test_a_stop_that_is_not_obeyed(run: Run) -> None:
    """A child that ignores SIGINT is killed after the grace period, and not before it was asked."""
    run.start(child("ignores_int.py"))
    run.expect_output("READY")

    run.keeper.stop_run(grace_s=0.2)

    run.expect_output("IGNORED SIGINT")
    assert run.status() == -signal.SIGKILL
    assert run.expect("swept", "").number == 0


def test_a_stop_reaches_the_job_of_a_shell(run: Run) -> None:
    """A program that the child has put into the foreground is asked as well as the child."""
    job = """
import os, signal
def end(*_):
    os.write(1, b"JOB ENDS\\n")
    os._exit(0)
signal.signal(signal.SIGINT, signal.SIG_IGN)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGINT, end)
    os.tcsetpgrp(0, os.getpgrp())
    os.write(1, b"READY\\n")
    while True:
        signal.pause()
os.waitpid(pid, 0)
"""
    run.start(program(job))
    run.expect_output("READY")

    run.keeper.stop_run(grace_s=3600)

    run.expect_output("JOB ENDS")
    assert run.status() == 0


def test_a_suspended_child_can_go_on(run: Run) -> None:
    """A stopped child is reported, and continues in the foreground when it is told to."""
    run.start(child("reports_signals.py"))
    pid = run.expect("spawned").number
    run.expect_output("READY")

    for _ in range(2):
        os.kill(pid, signal.SIGTSTP)
        assert run.expect("suspended").number == signal.SIGTSTP
        run.keeper.resume()
        run.expect_output("SIGNAL SIGCONT")

    assert os.tcgetpgrp(run.master) == pid


def test_a_suspended_child_can_be_stopped(run: Run) -> None:
    """A stop wakes a suspended child, which could not obey otherwise."""
    run.start(child("ready.py", "0"))
    pid = run.expect("spawned").number
    run.expect_output("READY")
    os.kill(pid, signal.SIGSTOP)
    run.expect("suspended")

    run.keeper.stop_run(grace_s=3600)

    assert run.status() == -signal.SIGINT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has sub-reapers")
def test_a_command_is_killed_with_its_descendants(run: Run) -> None:
    """Killing one command takes what it started in other sessions, and leaves the child alone."""
    run.start(WAITS)
    child_pid = run.expect("spawned").number
    run.expect_output("READY")
    run.start(child("leaves_grandchild.py", "--stay"), "command")
    grandchild = int(run.expect_output(r"GRANDCHILD (\d+)").group(1))
    run.expect_output(r"GRANDCHILD (?s:.*)READY")

    run.keeper.kill("command")

    assert run.status("command") == -signal.SIGKILL
    processes.assert_gone([grandchild])
    assert processes.is_alive(child_pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has sub-reapers")
def test_orphans_are_reaped(run: Run) -> None:
    """What was double-forked and has ended does not stay behind as a zombie."""
    source = """
import os, signal
for _ in range(5):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
for _ in range(5):
    os.wait()
print("READY", flush=True)
signal.pause()
"""
    run.start(program(source))
    pid = run.expect("spawned").number
    run.expect_output("READY")

    def only_the_child_is_left() -> None:
        assert [each.pid for each in processes.children(run.keeper.pid)] == [pid]

    eventually(only_the_child_is_left)


def test_nothing_is_started_any_more_once_a_run_ends(run: Run) -> None:
    """A command that comes during the grace period is refused, and the stop goes on."""
    run.start(child("ignores_int.py"))
    run.expect_output("READY")

    run.keeper.stop_run(grace_s=3600)
    run.start(WAITS, "late")

    assert run.expect("failed", "late").text == "the run is ending"
    run.keeper.halt_run()
    assert run.status() == -signal.SIGKILL


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_the_keeper_ends_the_run_when_it_is_left_alone(run: Run, says_goodbye: bool) -> None:
    """A goodbye, or a connection that ends without one, ends child and keeper."""
    run.start(WAITS)
    pid = run.expect("spawned").number
    run.expect_output("READY")

    if says_goodbye:
        run.leave()
    else:
        with socket.socket(fileno=os.dup(run.keeper.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    processes.assert_gone([pid, run.keeper.pid])


def test_a_keeper_that_hangs_is_not_waited_for(run: Run) -> None:
    """A goodbye that is not heard in time ends with the keeper's death."""
    os.kill(run.keeper.pid, signal.SIGSTOP)

    run.leave(timeout_s=0.1)

    assert not processes.is_alive(run.keeper.pid)


def test_asking_a_dead_keeper_is_no_error(run: Run) -> None:
    """Who asks a keeper that was killed is not told; who receives is."""
    os.kill(run.keeper.pid, signal.SIGKILL)
    processes.assert_gone([run.keeper.pid])

    run.keeper.stop_run(1.0)
    run.keeper.halt_run()
    run.keeper.kill("command")
    run.keeper.resume()

    assert run.keeper.receive() is None
    with pytest.raises(OSError, match="pipe"):
        run.start(WAITS, "late")


def test_the_listing_of_ps_is_read() -> None:
    """Where there is no /proc, pid, parent and state come from `ps` as macOS prints it."""
    date = "Wed Nov 25 14:24:0"
    listing = (
        f"    1     0 Ss   {date}0 2026    \n  501     1 S+   {date}1 2026\n"
        f"99998   501 Z    {date}2 2026\n12345 12344 R<s+ {date}3 2026\n"
    )

    assert list(read_ps(listing)) == [
        (1, 0, "S", f"{date}0 2026"),
        (501, 1, "S", f"{date}1 2026"),
        (99998, 501, "Z", f"{date}2 2026"),
        (12345, 12344, "R", f"{date}3 2026"),
    ]


@pytest.mark.skipif(not os.access("/bin/ps", os.X_OK), reason="there is no /bin/ps here")
def test_the_options_of_ps_are_those_of_posix() -> None:
    """The command line that macOS gets is understood, and lists this process."""
    listing = subprocess.run(PS, capture_output=True, text=True, check=True).stdout

    assert (os.getpid(), os.getppid()) in {entry[:2] for entry in read_ps(listing)}


def test_living_descendants_leaves_zombies_out(run: Run) -> None:
    """Descendants are found at any depth; one that has ended and is not reaped does not count."""
    source = """
import os, signal
if os.fork() == 0:
    if os.fork() == 0:
        signal.pause()
    signal.pause()
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
print("READY", zombie, flush=True)
signal.pause()
"""
    run.start(program(source))
    zombie = int(run.expect_output(r"READY (\d+)").group(1))

    def three_are_found() -> None:
        assert len(living_descendants(run.keeper.pid)) == 3

    eventually(three_are_found)
    assert zombie not in [each.pid for each in living_descendants(run.keeper.pid)]


@pytest.fixture
def run_without_subreaper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A keeper to which no orphan comes, as on macOS."""
    monkeypatch.setattr(keeper, "become_subreaper", lambda: None)
    run = Run()
    yield run
    run.close()


@pytest.mark.parametrize("is_orphaned", [False, True], ids=["stop", "runner killed"])
def test_what_a_stop_orphans_is_swept_without_a_subreaper(
    run_without_subreaper: Run, is_orphaned: bool
) -> None:
    """What is deaf to signals does not escape by losing its parent to the stop itself."""
    run = run_without_subreaper
    run.start(child("leaves_grandchild.py", "--stay", "--close"))
    grandchild = int(run.expect_output(r"GRANDCHILD (\d+)").group(1))
    run.expect_output(r"GRANDCHILD (?s:.*)READY")

    if is_orphaned:
        with socket.socket(fileno=os.dup(run.keeper.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)
    else:
        run.keeper.stop_run(grace_s=3600)
        assert run.status() == -signal.SIGINT
        assert run.expect("swept", "").number == 0

    processes.assert_gone([grandchild])


def test_a_pid_that_was_used_again_is_spared(run: Run) -> None:
    """What was noted is known by its start as well as by its pid."""
    run.start(WAITS)
    run.expect_output("READY")
    (process,) = living_descendants(run.keeper.pid)
    an_earlier_one = process._replace(started="0")

    assert [each.pid for each in living_descendants(0x7FFFFFFF, [process])] == [process.pid]
    assert living_descendants(0x7FFFFFFF, [an_earlier_one]) == []
