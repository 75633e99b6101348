"""Looking at processes from outside: who descends from whom, who is alive, who carries a mark.

On Linux from /proc, elsewhere from `ps`. A zombie counts as gone for `is_alive`: it holds nothing
but its exit status. Pids are looked at and not held, so every answer is about a moment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from testing.waiting import eventually

_HAS_PROC = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Process:
    """One line of the process table. `state` is the kernel's letter, Z for a zombie."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    name: str


def all_pids() -> set[int]:
    """Return the pids of all processes, which costs little."""
    if not _HAS_PROC:
        return {process.pid for process in _table_from_ps()}
    return {int(each) for each in os.listdir("/proc") if each.isdigit()}


def process_table(but: Collection[int] = ()) -> list[Process]:
    """Return every process that can be seen at this moment; `but` are pids not to look at."""
    if not _HAS_PROC:
        return [process for process in _table_from_ps() if process.pid not in but]
    found = (_from_proc(each) for each in all_pids().difference(but))
    return [process for process in found if process is not None]


def _from_proc(pid: int) -> Process | None:
    text = _read(pid, "stat").decode("utf-8", "replace")
    if not text:
        return None  # it ended meanwhile
    # The name stands in brackets and may itself hold brackets and blanks: proc(5).
    name, _, rest = text.partition("(")[2].rpartition(")")
    state, parent, group, session = rest.split()[:4]
    return Process(pid, int(parent), int(group), int(session), state, name)


def _table_from_ps() -> list[Process]:
    # `sess` is no number on macOS, so the session is asked from the kernel.
    listing = _ps("-axo", "pid=,ppid=,pgid=,stat=,comm=")
    found = []
    for line in listing.splitlines():
        pid, parent, group, state, name = line.split(None, 4)
        if name.strip() != "ps":
            found.append(
                Process(int(pid), int(parent), int(group), _session(int(pid)), state[0], name)
            )
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _ps(*arguments: str) -> str:
    return subprocess.run(
        ["/bin/ps", *arguments], check=True, capture_output=True, text=True, errors="replace"
    ).stdout


def descendants(pid: int) -> list[int]:
    """Return the pids of its children, their children and so on, parents first, zombies too.

    One whose parent has ended belongs to somebody else; look for those by a mark.
    """
    children: dict[int, list[int]] = {}
    for process in process_table():
        children.setdefault(process.parent, []).append(process.pid)
    found: list[int] = []
    waiting = list(children.get(pid, []))
    while waiting:
        each = waiting.pop(0)
        found.append(each)
        waiting += children.get(each, [])
    return found


def children(pid: int, but: Collection[int] = ()) -> list[Process]:
    """Return the direct children, zombies too; `but` are pids not to look at."""
    return [process for process in process_table(but) if process.parent == pid]


def session_members(session: int) -> list[int]:
    """Return the pids of the processes in this session, zombies left out."""
    return [each.pid for each in process_table() if each.session == session and each.state != "Z"]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    if _HAS_PROC:
        process = _from_proc(pid)
        return process is not None and process.state not in "ZX"
    return any(each.pid == pid and each.state != "Z" for each in process_table())


def assert_gone(pids: Iterable[int], within_s: float = 30.0) -> None:
    """Wait until none of the processes is alive. Raises: AssertionError naming those that are."""
    wanted = list(pids)

    def all_gone() -> None:
        alive = [describe(pid) for pid in wanted if is_alive(pid)]
        assert not alive, f"still alive after {within_s} s: {alive}"

    eventually(all_gone, within_s)


def describe(pid: int) -> str:
    """Return pid and command line for a message."""
    return f"{pid} {command_line(pid)!r}"


def command_line(pid: int) -> str:
    """Return the command line with blanks between its items; empty if it cannot be seen."""
    if _HAS_PROC:
        return _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()
    try:
        return _ps("-o", "command=", "-p", str(pid)).strip()
    except subprocess.CalledProcessError:
        return ""


def find_by_marker(*texts: str, but: Collection[int] = ()) -> list[int]:
    """Return the pids whose environment or command line contains a text; never this process.

    `but` are pids not to look at. Shape: the environment is the one that the process was started
    with. Processes of other users cannot be searched and are left out.
    """
    skipped = {os.getpid(), *but}
    if not _HAS_PROC:
        return _find_with_ps(texts, skipped)
    wanted = [text.encode() for text in texts]
    found = []
    for pid in all_pids() - skipped:
        seen = _read(pid, "environ") + _read(pid, "cmdline")
        if any(each in seen for each in wanted):
            found.append(pid)
    return sorted(found)


def _find_with_ps(texts: Sequence[str], skipped: Collection[int]) -> list[int]:
    found = []
    for line in _ps("-axwwE", "-o", "pid=,command=").splitlines():
        pid, _, command = line.strip().partition(" ")
        is_wanted = any(each in command for each in texts)
        if is_wanted and int(pid) not in skipped and is_alive(int(pid)):
            found.append(int(pid))
    return found


def _read(pid: int, name: str) -> bytes:
    # Without a Path: the tests read tens of thousands of these.
    try:
        with open(f"/proc/{pid}/{name}", "rb", 0) as file:
            return file.read()
    except OSError:
        return b""  # it ended meanwhile, or belongs to somebody else
