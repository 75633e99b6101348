"""The small process between the runner and what it starts: owns the session and the process tree.

Why a process of its own. It outlives a `kill -9` of the runner and ends the run then. It leads the
child's session, so that the child's process group is not orphaned and Ctrl-Z works. And it is the
parent of everything in the run: on Linux as sub-reaper also of whatever left its group and session
(Claude Code's tools do), so that "all of the run" is simply "all descendants of the keeper".

The runner forks it while it has one thread and talks to it over a socket: frames of JSON, file
descriptors passed beside them. The keeper has one thread, waits in `select`, and never blocks on
anything else.

    runner -> keeper   spawn, stop, halt, terminate, kill, resume, guard, release, bye
    keeper -> runner   spawned, failed, suspended, exited, swept (the last one, and never earlier)

How a run ends, for any reason: all descendants are noted, SIGINT to the child's process group,
a grace period, SIGKILL to every descendant, and to what was noted, until none is left. A closed
socket without a goodbye counts as being asked; the user's terminal, if it was given to the keeper
to guard, is then put back at once.

Sources: setsid(2), tcsetpgrp(3), POSIX.1-2017 11.1.4 (an orphaned process group cannot be stopped
from the terminal).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple, NoReturn

from places import program_to_start
from runner.mailbox import WakePipe, let_pipe_tell
from runner.processes import (
    POLL_S,
    SWEEP_LIMIT_S,
    become_subreaper,
    command_line,
    kill_descendants,
    living_descendants,
    send_signal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.mailbox import Mailbox
    from runner.processes import Process

# Keys for programs that are not operator commands, whose keys are `command-1` and so on.
CHILD: Final = "child"
ASSIST: Final = "assist session"
# The key of a report that is about whatever is being executed: the keeper itself is gone.
EVERY_PROGRAM: Final = "*"
# Claude Code is gone within 2 s of its terminal's hangup; the rest of the run gets no extra time.
_ORPHANED_GRACE_S: Final = 3.0
# After the child's exit: time for what it started to finish by itself, before the sweep.
_LINGER_S: Final = 1.0
# The same when the run was asked to stop: behind a launcher script that dies of the signal at once,
# Claude Code takes up to 2 s to tidy up.
_STOPPING_LINGER_S: Final = 2.5
# A goodbye may find the keeper at the beginning of a sweep; one that takes longer hangs.
_GOODBYE_LIMIT_S: Final = 2 * SWEEP_LIMIT_S

_MAX_FDS: Final = 3
# Of one command line that is shown to a person.
_MAX_SHOWN_CHARS: Final = 300
# What puts a terminal's modes back is at most some 80 short sequences.
_UNDO_BYTES: Final = 2_046
# Ends whatever the killed runner had written half, and is nothing to a terminal that waits for
# the next character.
_STRING_TERMINATOR: Final = b"\x1b\\"
_IGNORED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Report(NamedTuple):
    """What the keeper tells the runner.

    `event` is one of spawned, failed, suspended, exited, swept; `gone` is what its end tells. `key`
    names the process: `CHILD`, or the command's. `number` is a pid, an errno, a signal, a wait
    status, or for `swept` how many processes could not be killed; its text is JSON: the command
    lines of what the child left running when it ended by itself.
    """

    event: str
    key: str
    number: int
    text: str = ""


class Keeper:
    """The runner's end. Thread: any may send; `receive` belongs to the thread that owns the run.

    Only `spawn` raises when the keeper is gone; the other methods do nothing then, and `receive`
    reports it. `has_swept`: nothing of the run is left, and no report will come.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._undo = _SharedNote()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _run_keeper(theirs, self._undo)
        theirs.close()
        become_subreaper()  # what a killed keeper leaves behind then comes to the runner
        self.pid = pid
        self._channel = _Channel(ours)
        self.has_swept = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when `receive` has something."""
        return self._channel.fileno()

    def spawn(
        self,
        key: str,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        fds: tuple[int, int, int],
        on_terminal: bool,
    ) -> None:
        """Start a program with `fds` as its 0, 1 and 2.

        `on_terminal`: descriptor 1 is a PTY's slave and becomes the controlling terminal, with the
        program in its foreground. Otherwise it gets a session of its own, without a terminal.
        Raises OSError when the keeper is gone.
        """
        self._channel.send(
            {
                "op": "spawn",
                "key": key,
                "argv": list(argv),
                "cwd": cwd,
                "env": dict(env),
                "on_terminal": on_terminal,
            },
            fds,
        )

    def stop_run(self, grace_s: float) -> None:
        """End the run gracefully: SIGINT, `grace_s`, SIGKILL."""
        self._ask({"op": "stop", "grace_s": grace_s})

    def halt_run(self) -> None:
        """Kill everything of the run now."""
        self._ask({"op": "halt"})

    def terminate(self, key: str) -> None:
        """Ask one program and its process group to end: SIGTERM."""
        self._ask({"op": "terminate", "key": key})

    def kill(self, key: str) -> None:
        """Kill one program and its process group."""
        self._ask({"op": "kill", "key": key})

    def resume(self) -> None:
        """Continue a suspended child in the foreground."""
        self._ask({"op": "resume"})

    def guard_terminal(
        self, fd: int, attributes: Sequence[Any] | None, raw: Sequence[Any] | None
    ) -> None:
        """Let the keeper put the user's terminal back if the runner is killed.

        `fd` is a descriptor of the terminal that never blocks. `attributes` are what the terminal
        gets back, if it still has `raw` then: a shell that is quicker has set its own.
        """
        frame = {"op": "guard", "attributes": _plain(attributes), "raw": _plain(raw)}
        with contextlib.suppress(OSError):
            self._channel.send(frame, [fd])

    def note_undo(self, undo: bytes) -> None:
        """Note what would undo the terminal's modes now. Never waits; one thread at a time."""
        self._undo.write(undo)

    def release_terminal(self) -> None:
        """The terminal is as it was, or has another owner."""
        self._ask({"op": "release"})

    def receive(self) -> list[Report] | None:
        """Return what was reported; None when the keeper is gone. Blocks if nothing is there."""
        frames = self._channel.receive()
        if frames is None:
            return None
        return [Report(**frame) for frame, _ in frames]

    def wait(self, mailbox: Mailbox, deadline: float | None) -> Iterator[object]:
        """Wait once, at most until then; yield what is reported, and what is in the mailbox.

        A keeper that is gone has left its work to this process. It is done here as well as can be:
        what came here is killed, and `gone` is reported, and `swept`. Thread: the owner's.
        """
        watched: list[Any] = [mailbox, *([] if self.has_swept else [self])]
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if self in readable:
            reports = self.receive()
            if reports is None:
                kill_descendants(time.sleep)
                reports = [Report("gone", EVERY_PROGRAM, 0), Report("swept", EVERY_PROGRAM, 0)]
            for report in reports:
                self.has_swept = self.has_swept or report.event == "swept"
                yield report
        if mailbox in readable:
            yield from mailbox.receive()

    def kill_keeper(self) -> None:
        """Kill the keeper, which hangs; what it watched over comes to this process (Linux)."""
        send_signal(self.pid, signal.SIGKILL)

    def close(self, timeout_s: float = _GOODBYE_LIMIT_S) -> None:
        """Say goodbye and reap the keeper; it has nothing left to do after `swept`."""
        deadline = time.monotonic() + timeout_s
        self._ask({"op": "bye"})
        while self._channel.receive_before(deadline) is not None:
            pass  # the runner is gone
        self._channel.close()
        if time.monotonic() >= deadline:
            self.kill_keeper()
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored nobody has to
            os.waitpid(self.pid, 0)

    def _ask(self, frame: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(frame)


def _plain(attributes: Sequence[Any] | None) -> list[Any] | None:
    """Return a terminal's attributes in a form that JSON can hold and `tcsetattr` takes."""
    if attributes is None:
        return None
    characters = [each if isinstance(each, int) else each[0] for each in attributes[6]]
    return [*attributes[:6], characters]


class _SharedNote:
    """A short text in memory that the keeper shares, so that it outlives a killed runner.

    Not sent over the socket: it changes with the output, and the thread that reads the output must
    not wait. Two slots, of which one is valid, so that half a text is never read.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + 2 * (2 + _UNDO_BYTES))

    def write(self, text: bytes) -> None:
        if len(text) <= _UNDO_BYTES:
            place = 1 - self._memory[0]
            begin = 1 + place * (2 + _UNDO_BYTES)
            self._memory[begin : begin + 2 + len(text)] = struct.pack("!H", len(text)) + text
            self._memory[0] = place

    def read(self) -> bytes:
        begin = 1 + self._memory[0] * (2 + _UNDO_BYTES)
        (size,) = struct.unpack_from("!H", self._memory, begin)
        return self._memory[begin + 2 : begin + 2 + size]


# --- the channel ----------------------------------------------------------------------------------


class _Channel:
    """Frames of JSON over a stream socket: four bytes of length, then the text.

    Thread: any may send, a frame at a time; one receives.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._received = bytearray()
        self._fds: list[int] = []

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, frame: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        text = json.dumps({**frame, **({"fds": len(fds)} if fds else {})}).encode("utf-8")
        head = struct.pack("!I", len(text))
        with self._sending:
            if fds:
                socket.send_fds(self._sock, [head], list(fds))
                head = b""
            self._sock.sendall(head + text)

    def receive_before(self, deadline: float) -> list[Any] | None:
        """Receive, or return None at the monotonic `deadline`."""
        timeout_s = max(0.0, deadline - time.monotonic())
        return self.receive() if select.select([self._sock], [], [], timeout_s)[0] else None

    def receive(self) -> list[tuple[dict[str, Any], tuple[int, ...]]] | None:
        """Read once; return the frames that are complete now. None: the other end is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 262_144, _MAX_FDS * 8)
        except ConnectionResetError:
            return None
        self._fds += fds
        if not data:
            return None
        self._received += data
        frames = []
        while len(self._received) >= 4:
            (size,) = struct.unpack_from("!I", self._received)
            if len(self._received) < 4 + size:
                break
            frame = json.loads(bytes(self._received[4 : 4 + size]))
            del self._received[: 4 + size]
            count = frame.pop("fds", 0)
            frames.append((frame, tuple(self._fds[:count])))
            del self._fds[:count]
        return frames


# --- the keeper's own process ---------------------------------------------------------------------


def _run_keeper(sock: socket.socket, undo: _SharedNote) -> NoReturn:
    """Be the keeper until the run is over; never returns."""
    code = 1
    try:
        os.setsid()
        become_subreaper()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(sock.fileno())
        _KeeperLoop(_Channel(sock), undo).run()
        code = 0
    finally:
        # Not sys.exit: the runner's own clean-up handlers are in this copy of it as well.
        os._exit(code)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _close_all_but(kept_fd: int) -> None:
    null_fd = os.open(os.devnull, os.O_RDWR)
    for standard_fd in (0, 1, 2):
        os.dup2(null_fd, standard_fd)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) != kept_fd:
            with contextlib.suppress(OSError):  # the one that the listing itself used
                os.close(int(name))


class _KeeperLoop:
    def __init__(self, channel: _Channel, undo: _SharedNote) -> None:
        self._channel = channel
        self._undo = undo
        self._connected = True
        self._users_fd = -1  # the user's terminal, while it is to be guarded
        self._users_attributes: list[Any] | None = None
        self._raw_attributes: list[Any] | None = None
        self._keys: dict[int, str] = {}  # pid -> key, of the processes started here and not reaped
        self._child_pid = 0
        self._terminal_fd = -1  # a slave of the child's terminal, kept open until the child is gone
        self._kill_at: float | None = None
        self._swept = False
        self._was_asked_to_end = False
        # The processes of the run when it was asked to end. Without a sub-reaper, a process whose
        # parent has ended is no longer found below the keeper.
        self._noted: list[Process] = []
        self._pipe = WakePipe()
        self._pipe.wake_by_signals()
        signal.signal(signal.SIGCHLD, let_pipe_tell)

    def run(self) -> None:
        while self._connected or not self._swept:
            timeout_s = None
            if self._kill_at is not None and not self._swept:
                timeout_s = min(POLL_S, max(0.0, self._kill_at - time.monotonic()))
            watched: list[Any] = [self._pipe, *([self._channel] if self._connected else [])]
            readable, _, _ = select.select(watched, [], [], timeout_s)
            self._pipe.take()
            self._reap()
            if self._connected and self._channel in readable:
                self._obey()
            self._reap()
            self._end_if_due()

    # --- being told --------------------------------------------------------------------------

    def _obey(self) -> None:
        frames = self._channel.receive()
        if frames is None:
            self._outlive_runner()
            return
        orders: dict[str, Callable[..., None]] = {
            "stop": self._stop_run,
            "halt": self._halt_run,
            "terminate": self._terminate,
            "kill": self._kill_program,
            "resume": self._resume,
            "release": self._release,
            "bye": self._take_leave,
        }
        for frame, fds in frames:
            op = frame.pop("op")
            if op == "spawn" and not self._ending:
                self._spawn(fds=fds, **frame)
            elif op == "spawn":
                self._tell("failed", frame["key"], errno.ECANCELED, "the run is ending")
                _close_all(fds)
            elif op == "guard":
                self._guard(fds[0], **frame)
            else:
                orders[op](**frame)

    def _halt_run(self) -> None:
        self._was_asked_to_end = True
        self._end_by(0)

    def _take_leave(self) -> None:
        self._release()
        self._end_by(0)
        self._connected = False

    def _outlive_runner(self) -> None:
        """End the run: the runner is gone without a goodbye."""
        self._connected = False
        self._give_terminal_back()
        self._stop_run(_ORPHANED_GRACE_S)

    def _guard(self, fd: int, attributes: list[Any] | None, raw: list[Any] | None) -> None:
        self._release()
        self._users_fd = fd
        self._users_attributes, self._raw_attributes = attributes, raw

    def _release(self) -> None:
        if self._users_fd >= 0:
            os.close(self._users_fd)
            self._users_fd = -1

    def _give_terminal_back(self) -> None:
        """Do for the user's terminal what the runner cannot do any more.

        At once and not after the sweep: nothing of the run but the runner could write there, and
        the user's shell is about to. What is undone is what was switched on, no more: leaving an
        alternate screen that was never entered would move the cursor to where some other program
        has saved it. Neither call can stop this process: the terminal is not that of its session.
        """
        if self._users_fd < 0:
            return
        with contextlib.suppress(termios.error, OSError):  # the window may be closed
            if self._users_attributes is not None and (
                _plain(termios.tcgetattr(self._users_fd)) == self._raw_attributes
            ):
                termios.tcsetattr(self._users_fd, termios.TCSANOW, self._users_attributes)
        undo = self._undo.read()
        with contextlib.suppress(OSError):
            if undo:
                os.write(self._users_fd, _STRING_TERMINATOR + undo)
        self._release()

    def _tell(self, event: str, key: str, number: int, text: str = "") -> None:
        if self._connected:
            try:
                self._channel.send({"event": event, "key": key, "number": number, "text": text})
            except OSError:
                self._outlive_runner()

    # --- starting ----------------------------------------------------------------------------

    def _spawn(
        self,
        key: str,
        argv: list[str],
        cwd: str,
        env: dict[str, str],
        fds: tuple[int, ...],
        *,
        on_terminal: bool,
    ) -> None:
        def before_exec() -> None:
            if on_terminal:
                os.setpgid(0, 0)
                # SIGTTOU is ignored here, else this would stop the process: it is in no foreground.
                os.tcsetpgrp(1, os.getpid())
            else:
                os.setsid()
            for number in signal.valid_signals():
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    with contextlib.suppress(OSError):  # the C library keeps two for itself
                        signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])

        try:
            if on_terminal:
                fcntl.ioctl(fds[1], termios.TIOCSCTTY, 0)
                self._terminal_fd = os.dup(fds[1])
            process = subprocess.Popen(
                argv,
                executable=program_to_start(argv[0], env.get("PATH")),
                cwd=cwd,
                env=env,
                stdin=fds[0],
                stdout=fds[1],
                stderr=fds[2],
                preexec_fn=before_exec,  # one thread here, so this is safe
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._close_terminal()
            self._tell("failed", key, getattr(error, "errno", 0) or 0, str(error))
            return
        finally:
            _close_all(fds)
        process.returncode = 0  # reaped here by pid; Popen must neither wait nor warn
        self._keys[process.pid] = key
        if on_terminal:
            self._child_pid = process.pid
        self._tell("spawned", key, process.pid)

    def _close_terminal(self) -> None:
        if self._terminal_fd >= 0:
            os.close(self._terminal_fd)
            self._terminal_fd = -1

    # --- reaping -----------------------------------------------------------------------------

    def _reap(self) -> None:
        """Reap by pid, never by -1: a pid must not be free for reuse before this class knows."""
        for pid in list(self._keys):
            done, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if done == 0:
                continue
            if not os.WIFSTOPPED(status):
                self._handle_exit(pid, status)
            elif pid == self._child_pid:
                self._tell("suspended", CHILD, os.WSTOPSIG(status))
        while True:
            orphan = _dead_child()
            if orphan is None or orphan in self._keys:
                return
            os.waitpid(orphan, 0)

    def _handle_exit(self, pid: int, status: int) -> None:
        key = self._keys.pop(pid)
        if pid == self._child_pid:
            self._child_pid = 0
            # With the last slave closed the runner sees the end of the output, and not before.
            self._close_terminal()
            self._end_by(_STOPPING_LINGER_S if self._ending else _LINGER_S)
        self._tell("exited", key, status)

    # --- stopping ----------------------------------------------------------------------------

    def _stop_run(self, grace_s: float) -> None:
        self._was_asked_to_end = True
        self._end_by(grace_s)
        self._noted += living_descendants(os.getpid())
        groups = set()
        for pid in self._keys:
            with contextlib.suppress(OSError):
                groups.add(os.getpgid(pid))
        if self._terminal_fd >= 0:
            # A shell gives the foreground to the job it runs.
            with contextlib.suppress(OSError):
                groups.add(os.tcgetpgrp(self._terminal_fd))
        for group in groups - {os.getpgrp()}:
            _signal_group(group, signal.SIGINT)
            _signal_group(group, signal.SIGCONT)  # a suspended process could not obey

    def _end_by(self, within_s: float) -> None:
        """Begin the end of the run, or bring it forward."""
        deadline = time.monotonic() + within_s
        self._kill_at = deadline if self._kill_at is None else min(self._kill_at, deadline)

    @property
    def _ending(self) -> bool:
        return self._kill_at is not None

    def _terminate(self, key: str) -> None:
        for pid, known in self._keys.items():
            if known == key:
                _signal_group(pid, signal.SIGTERM)

    def _kill_program(self, key: str) -> None:
        for pid, known in self._keys.items():
            if known == key:
                below = [process.pid for process in living_descendants(pid)]
                for each in (pid, *below):
                    send_signal(each, signal.SIGKILL)
                _signal_group(pid, signal.SIGKILL)

    def _resume(self) -> None:
        if self._child_pid and self._terminal_fd >= 0:
            with contextlib.suppress(OSError):
                group = os.getpgid(self._child_pid)
                os.tcsetpgrp(self._terminal_fd, group)
                _signal_group(group, signal.SIGCONT)

    def _end_if_due(self) -> None:
        """Sweep once the grace period is over, or as soon as nothing is left to wait for."""
        if self._kill_at is None or self._swept:
            return
        if time.monotonic() < self._kill_at and (
            self._keys or living_descendants(os.getpid(), self._noted)
        ):
            return
        left_behind = self._describe_left_behind()
        survivors = kill_descendants(self._wait_for_deaths, self._noted)
        # `exited` comes before `swept`; and a dead process is not to be reaped as long as one of
        # its threads has yet to go.
        deadline = time.monotonic() + SWEEP_LIMIT_S
        while self._keys and not survivors and time.monotonic() < deadline:
            self._wait_for_deaths(POLL_S)
        self._reap()
        self._swept = True
        self._tell("swept", "", len(survivors), left_behind)

    def _describe_left_behind(self) -> str:
        """Return the command lines of what the child has left running, as JSON; not of commands.

        Nothing if the run was asked to end: then it had no time to end them itself.
        """
        if self._was_asked_to_end:
            return "[]"
        below = {process.pid for pid in self._keys for process in living_descendants(pid)}
        left = [
            " ".join(command_line(process.pid))[:_MAX_SHOWN_CHARS]
            for process in living_descendants(os.getpid())
            if process.pid not in below and process.pid not in self._keys
        ]
        return json.dumps([line for line in left if line])

    def _wait_for_deaths(self, timeout_s: float) -> None:
        select.select([self._pipe], [], [], timeout_s)
        self._pipe.take()
        self._reap()


def _dead_child() -> int | None:
    """Return a child that can be reaped, without reaping it: it may be an orphan that came here."""
    if not hasattr(os, "waitid"):
        return None  # macOS before Python 3.13, which has no sub-reaper to bring orphans either
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except OSError as error:
        # macOS answers EPERM for a group that has only zombies left.
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise
