"""Starts runners and gateways by forking a process that has imported their modules already.

A start from nothing takes 0.3 s of processor time, a gateway's 0.8 s, nearly all of it for imports,
and the tests start hundreds. A fork is the same program: the process that forks has one thread and
has done nothing but import; the child gets its own arguments, environment, working folder, umask
and standard descriptors, its signals are as Python sets them at its start, and it calls `main` as
the package's console script does. What differs is the parent, the memory, and the command line and
environment that other processes see: `RunnerProcess(..., fresh=True)` is for who looks at those.
A launch that is not plainly `python X_runner.py ...`, or that sets what Python reads at its start,
gets a process of its own without being asked: `fork` returns None. So does `python -c SOURCE ...`,
but for a source that changes something in the runner and then calls its `main`.

The tests' side is `Starter`; the program is this file, run by itself.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
_GATEWAY = str(ROOT / "gateway")
_REV = str(ROOT / "rev_runner.py")
_PROGRAMS = (str(ROOT / "claude_runner.py"), _REV, _GATEWAY)
# What a fork can do as well: `_open_again`, and it writes no bytecode.
_WITHOUT_EFFECT = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
_LENGTH = struct.Struct("!I")
# What runners import, some of it late. By its name: what is tested stands above what tests it.
_SHARED = (
    *("claude_runner", "rev_runner", "dotenv", "requests", "urllib3.contrib.socks"),
    "encodings.idna",
    *(
        f"{room}.{path.stem}"
        for room in ("gateway_transport", "journal", "kinds", "runner", "tools")
        for path in sorted((ROOT / room).glob("*.py"))
        if path.stem != "__init__"
    ),
)
# And what each gateway does; importing the last is left to SQLAlchemy, and takes long.
_OF_GATEWAYS = ("gateway.command_line", "sqlalchemy.dialects.sqlite")
_STATUS = struct.Struct("!i")
_CALLS_MAIN = "sys.exit(claude_runner.main())"
_FDS = 4  # where to send the pid and the status to, and 0, 1 and 2
# A busy machine may take long to import the gateway, which the first that is asked for waits for.
_STARTS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 30.0


def read_by_python(env: Mapping[str, str]) -> dict[str, str]:
    """Return what Python reads at its start: a fork has what the first process had."""
    return {
        name: value
        for name, value in env.items()
        if name not in _WITHOUT_EFFECT and name.startswith(("LANG", "PYTHON", "LC_"))
    }


# --- the tests' side ------------------------------------------------------------------------------


class Forked:
    """A program that was forked: what the tests need of a `subprocess.Popen`."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self._code: int | None = None
        self.pid = self._receive(_STARTS_WITHIN_S)

    def _receive(self, within_s: float) -> int:
        self._status.settimeout(within_s)
        data = self._status.recv(_STATUS.size)
        assert data, "the process that forks has ended"
        return int(_STATUS.unpack(data)[0])

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not been waited for."""
        if self._code is None:
            # It may have ended by itself meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return the exit code, as `wait` does, or None while it runs."""
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            self.wait(_ENDS_WITHIN_S)
        return self._code

    def wait(self, timeout: float) -> int:
        """Return the exit code, or -N for signal N. Raises: subprocess.TimeoutExpired."""
        if self._code is None:
            try:
                self._code = self._receive(timeout)
            except socket.timeout:
                raise subprocess.TimeoutExpired("a fork", timeout) from None
            self._status.close()
        return self._code

    def close(self) -> None:
        """Stop waiting."""
        self._status.close()


class Starter:
    """The process that forks. `mark` stands in the environment of all that it forks."""

    def __init__(self, mark: Mapping[str, str]) -> None:
        self._env = {**os.environ, **mark}
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=self._env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        """Its own pid."""
        return self._process.pid

    def can_start(self, argv: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether a fork is the same as a process of its own."""
        return (
            len(argv) > 1
            and argv[0] == sys.executable
            and (argv[1] in _PROGRAMS or (argv[1] == "-c" and _CALLS_MAIN in argv[2]))
            and read_by_python(env) == read_by_python(self._env)
        )

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdio: Sequence[int],
        cwd: str | os.PathLike[str] | None = None,
        *,
        takes_terminal: bool = False,
    ) -> Forked:
        """Fork one with these three descriptors, with this process's umask and folder.

        It may lead a session, and take its stdin for its controlling terminal.
        """
        umask = os.umask(0o077)
        os.umask(umask)
        request: dict[str, Any] = {
            "argv": argv[1:],
            "env": dict(env),
            "cwd": str(cwd or os.getcwd()),
            "umask": umask,
            "takes_terminal": takes_terminal,
        }
        data = json.dumps(request).encode()
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            socket.send_fds(self._control, [_LENGTH.pack(len(data))], [theirs.fileno(), *stdio])
            self._control.sendall(data)
        return Forked(ours)

    def close(self) -> None:
        """Let it end."""
        self._control.close()
        self._process.wait(_ENDS_WITHIN_S)


# The one of this test process; without one each program is a process of its own from the start.
starters: list[Starter] = []


def fork(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdio: Sequence[int | IO[bytes]],
    cwd: str | os.PathLike[str] | None = None,
    *,
    takes_terminal: bool = False,
) -> Forked | None:
    """Fork what a `Popen` with these arguments would start; None where that is not the same."""
    if not starters or not starters[-1].can_start(argv, env) or subprocess.PIPE in stdio:
        return None
    with open(os.devnull, "r+b") as nothing:
        opened = [nothing if each == subprocess.DEVNULL else each for each in stdio]
        numbers = [each if isinstance(each, int) else each.fileno() for each in opened]
        return starters[-1].start(argv, env, numbers, cwd, takes_terminal=takes_terminal)


# --- the process that forks -----------------------------------------------------------------------


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return a request and its descriptors; None at the end."""
    data, ancillary, _flags, _address = control.recvmsg(
        _LENGTH.size, socket.CMSG_LEN(_FDS * array.array("i").itemsize)
    )
    if not data:
        return None
    fds = array.array("i")
    for _level, _type, content in ancillary:
        fds.frombytes(content)
    left = _LENGTH.unpack(data)[0]
    text = bytearray()
    while len(text) < left:
        text += control.recv(left - len(text))
    return json.loads(text), list(fds)


def _reap(waiting: dict[int, int]) -> None:
    """Send the status of each runner that has ended to whoever waits for it."""
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        told = waiting.pop(pid)
        with socket.socket(fileno=told) as sender:
            try:
                sender.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
            except OSError:
                pass  # nobody waits any more


def _open_again(name: str, number: int) -> None:
    """Give `sys` this stream for its new descriptor, as Python would have opened it."""
    old = getattr(sys, name)
    is_unbuffered = number > 0 and bool(os.environ.get("PYTHONUNBUFFERED"))
    binary = open(  # noqa: SIM115 - open as long as the process is
        number, "wb" if number else "rb", 0 if is_unbuffered else -1, closefd=False
    )
    new = io.TextIOWrapper(
        binary,
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=number == 2 or os.isatty(number),
        write_through=is_unbuffered,
    )
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


def _become(request: dict[str, Any], stdio: Sequence[int]) -> int:
    """In the child: be as a process that was started for this, and run."""
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
        os.close(fd)
    if request["takes_terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[:] = request["argv"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _open_again(name, number)
    if sys.argv[0] == "-c":
        source = sys.argv.pop(1)
        exec(source, {"__name__": "__main__"})
        return 0
    if sys.argv[0] == _GATEWAY:
        return int(import_module("gateway.command_line").main())
    module = import_module(Path(sys.argv[0]).stem)
    profiles = [module.RevProfile()] if sys.argv[0] == _REV else []
    return int(module.main(None, *profiles))


def serve(control: socket.socket) -> int:
    """Fork for each request, until the tests' side closes. In the fork: its exit code."""
    waker, woken = socket.socketpair()
    for each in (waker, woken):
        each.setblocking(False)
    waiting: dict[int, int] = {}
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever presses Ctrl-C ends the tests, and so it
    while True:
        ready = select.select([control, waker], [], [])[0]
        if waker in ready:
            waker.recv(4096)
        _reap(waiting)
        received = _receive(control) if control in ready else ({}, [])
        if received is None:
            for pid in waiting:  # none, unless its test was broken off
                os.kill(pid, signal.SIGKILL)
            return 0
        request, fds = received
        if request and not _fork(request, fds, waiting):
            for each in (control, waker, woken):
                each.close()
            return _become(request, fds[1:])


def _fork(request: dict[str, Any], fds: Sequence[int], waiting: dict[int, int]) -> int:
    """Fork, and say so to whoever asked. Returns the pid; in the fork 0."""
    told, *stdio = fds
    if request["argv"][0] == _GATEWAY:
        _load(_OF_GATEWAYS)  # once, for all that come after
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in (told, *waiting.values()):
            os.close(fd)
        return 0
    for fd in stdio:
        os.close(fd)
    waiting[pid] = told
    os.write(told, _STATUS.pack(pid))
    return pid


def _load(names: Sequence[str]) -> None:
    if not sys.modules.keys() >= set(names):
        for name in names:
            import_module(name)
        gc.freeze()  # a collection in a fork copies no page of these


def _compile_patterns() -> None:
    """Compile what each fork would compile at its first use."""
    later = import_module("redaction.regex").Later
    gc.unfreeze()  # what is frozen is not listed
    for each in gc.get_objects():
        if isinstance(each, later):
            for method in ("search", "match", "fullmatch", "finditer", "sub"):
                getattr(each, method)
    gc.freeze()


def _main() -> int:
    # Not this folder, whose modules have names that the runner's packages have as well.
    sys.path[0] = str(ROOT)
    _load(_SHARED)
    import_module("redact").Rules().redact("a")  # makes its built-in shapes, once
    _compile_patterns()
    return serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    try:
        code = _main()
    except SystemExit as end:  # of a source
        code = int(end.code or 0)
    import_module("tools.command_line").leave(code)
