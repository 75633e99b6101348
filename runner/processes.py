"""The processes below this one: who they are, that they come here as orphans, and their end.

From `/proc` on Linux, elsewhere from `ps`. Sources: proc_pid_stat(5), prctl(2)
PR_SET_CHILD_SUBREAPER.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# A sweep is repeated until no descendant is left; what cannot be killed (another user's process
# after a setuid exec) is reported after this long.
SWEEP_LIMIT_S: Final = 5.0
POLL_S: Final = 0.02
# Where there is no /proc.
PS: Final = ("/bin/ps", "-A", "-o", "pid=,ppid=,stat=,lstart=")
_IS_LINUX: Final = sys.platform.startswith("linux")
_PR_SET_CHILD_SUBREAPER: Final = 36


class Process(NamedTuple):
    """One line of the process table. `started` tells it from a later one with the same pid."""

    pid: int
    parent: int
    state: str
    started: str


def living_descendants(root_pid: int, noted: Collection[Process] = ()) -> list[Process]:
    """Return what is below `root_pid` and no zombie, parents before their children.

    So is what was `noted` earlier and has lost its parent meanwhile, and what is below that.
    """
    if root_pid == os.getpid() and not noted and not _has_children():
        return []  # without a look at each process of the machine
    marks = {(each.pid, each.started) for each in noted}
    children: dict[int, list[Process]] = {}
    queue: list[Process] = []
    for process in _process_table():
        children.setdefault(process.parent, []).append(process)
        if (process.pid, process.started) in marks:
            queue.append(process)
    queue += children.get(root_pid, [])
    found: dict[int, Process] = {}
    while queue:
        process = queue.pop()
        if process.pid not in found:
            found[process.pid] = process
            queue += children.get(process.pid, [])
    return [process for process in found.values() if process.state not in "ZX"]


def _has_children() -> bool:
    """Whether this process has any child, which may be a zombie; unless it is sure, it has."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except AttributeError:  # macOS before Python 3.13
        return True
    return True


def command_line(pid: int) -> list[str]:
    """Return the argv of a process, as far as it can be seen; empty for one that is gone."""
    if _IS_LINUX:
        try:
            raw = Path("/proc", str(pid), "cmdline").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.rstrip(b"\0").split(b"\0")] if raw else []
    ps = (*PS[:1], "-ww", "-o", "args=", "-p", str(pid))
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.split()


def kill_descendants(
    wait: Callable[[float], object], noted: Collection[Process] = ()
) -> list[Process]:
    """Kill every descendant of this process, and what was noted, until two looks find none.

    `wait` waits for their deaths, this many seconds at most. Returns what would not die.
    """
    deadline = time.monotonic() + SWEEP_LIMIT_S
    empty_looks = 0
    survivors: list[Process] = []
    while empty_looks < 2 and time.monotonic() < deadline:
        survivors = living_descendants(os.getpid(), noted)
        for process in survivors:
            send_signal(process.pid, signal.SIGKILL)
        empty_looks = 0 if survivors else empty_looks + 1
        if survivors:
            wait(POLL_S)
    return survivors


def become_subreaper() -> None:
    """Let orphaned descendants become children of this process (Linux; elsewhere a no-op)."""
    if _IS_LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _process_table() -> Iterator[Process]:
    """Yield every process."""
    if _IS_LINUX:
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path("/proc", entry, "stat").read_bytes()
                except OSError:
                    continue  # it ended meanwhile
                # The name in parentheses may hold blanks and parentheses itself.
                fields = stat[stat.rindex(b")") + 2 :].decode().split()
                yield Process(int(entry), int(fields[1]), fields[0], fields[19])
        return
    listing = subprocess.run(PS, capture_output=True, text=True, check=False).stdout
    yield from read_ps(listing)


def read_ps(listing: str) -> Iterator[Process]:
    """Read what `ps` prints on macOS; a state is one letter and some signs, a start a date."""
    for line in listing.splitlines():
        pid, parent, state, started = line.split(None, 3)
        yield Process(int(pid), int(parent), state[0], started.strip())


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone, or another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


# What the child's exit code 0 becomes when the runner asked for the end: it is no success.
_EXIT_CODES_OF_ENDINGS: Final = {"stopped": 130, "hangup": 130, "halted": 137, "time limit": 124}


class ChildEnd(NamedTuple):
    """How the child ended: by itself, by a signal, or (both None) as `error` says."""

    code: int | None
    signal_number: int | None
    error: str | None = None

    @classmethod
    def of_status(cls, status: int) -> ChildEnd:
        """Read a wait status."""
        code = os.waitstatus_to_exitcode(status)
        return cls(code, None) if code >= 0 else cls(None, -code)

    @classmethod
    def failed(cls, error: str) -> ChildEnd:
        """It never ran, or its end was not observed."""
        return cls(None, None, error)

    @classmethod
    def not_started(cls, number: int, text: str) -> ChildEnd:
        """Say why it could not be started: an errno, or 0 and a text."""
        reason = _START_ERRORS.get(number) or (os.strerror(number) if number else text)
        return cls.failed(f"it could not be started: {reason}")

    @property
    def signal_name(self) -> str | None:
        """The name of the signal that killed it, if one did."""
        return None if self.signal_number is None else _name_signal(self.signal_number)

    @property
    def description(self) -> str:
        """How it ended, in words."""
        return self.error or self.signal_name or f"exit code {self.code}"

    def exit_code(self, ending: str | None) -> int:
        """Return the runner's own exit code. `ending` is the reason if the runner ended it."""
        if self.signal_number is not None:
            return 128 + self.signal_number
        if self.code is None:
            return 1
        return self.code or _EXIT_CODES_OF_ENDINGS.get(ending or "", 0)

    def reason(self, ending: str | None) -> str:
        """Return the `reason` of the `finished` marker."""
        if self.error is not None:
            return "error"
        return ending or ("exited" if self.signal_number is None else "killed")


def describe_status(status: int) -> str:
    """Say how a program ended, from its wait status: `exit code 3` or `killed by SIGKILL`."""
    end = ChildEnd.of_status(status)
    return f"killed by {end.signal_name}" if end.signal_name else end.description


def _name_signal(number: int) -> str:
    """Return a signal's name; real-time signals have none, and get one of their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


_START_ERRORS: Final = {
    # The file itself was there a moment ago.
    errno.ENOENT: "the interpreter named in its first line does not exist; correct that line",
    errno.ENOEXEC: (
        "not executable on this machine (wrong architecture, or a script without a first line like "
        "#!/bin/sh)"
    ),
    errno.E2BIG: "its arguments and the environment are too large; shorten the prompt",
}
