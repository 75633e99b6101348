"""A terminal with a program in it: the test plays the person who sits in front of it."""

from __future__ import annotations

import fcntl
import os
import pty
import selectors
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from testing.programs import processes
from testing.programs.starter import Forked, fork

# A session leader has no controlling terminal until it asks for one, and subprocess offers no way
# to ask but code between fork and exec, which must not run while there are threads. So a program of
# one line asks and then becomes the wanted one.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)

# How long output may still come after the program has ended, if something it left behind holds the
# terminal open so that its end is never seen.
_LAST_OUTPUT_S = 1.0

_KILLED_WITHIN_S = 10.0


class Terminal:
    """A PTY that is the controlling terminal of a program, which leads its session.

        with Terminal([sys.executable, "prog.py"]) as terminal:
            terminal.expect(b"READY")
            terminal.send(b"\\x03")
            assert terminal.wait() == -signal.SIGINT

    Leaving the block kills and reaps what is left of the program, its session and its descendants.
    Thread: one reads all output as it comes, so that the program never waits for the test.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self._argv = [os.fspath(each) for each in argv]
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._size = (columns, lines)
        self._changed = threading.Condition()
        self._output = bytearray()
        self._matched = 0
        self._at_end = False
        self._master = -1
        self._wake = -1
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._reader: threading.Thread | None = None
        # What `attributes` said before the program was started, which may change them at once.
        self.first_attributes: list[Any] = []

    def __enter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        try:
            self.resize(*self._size)
            self.first_attributes = self.attributes()
            env = os.environ if self._env is None else self._env
            self._process = fork(
                self._argv, env, (slave, slave, slave), self._cwd, takes_terminal=True
            ) or subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, *self._argv],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        wake_reader, self._wake = os.pipe()
        self._reader = threading.Thread(
            target=self._read, args=(wake_reader,), name="terminal-reader", daemon=True
        )
        self._reader.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_rest: object) -> None:
        try:
            self._kill_all()
        finally:
            self.hang_up()
            if exc_type is not None:
                print(f"the terminal showed: {self.output!r}", file=sys.stderr)

    @property
    def pid(self) -> int:
        """The pid of the program, and of its session and first process group."""
        return self._started.pid

    @property
    def _started(self) -> subprocess.Popen[bytes] | Forked:
        assert self._process is not None, "the terminal is not in use"
        return self._process

    # --- output ---

    def _read(self, wake: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._master, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._master not in ready:
                    break  # woken, and nothing more to read
                if not self._read_once():
                    break
        os.close(wake)
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    def _read_once(self) -> bool:
        """Read what there is; False at the end."""
        try:
            piece = os.read(self._master, 1 << 16)
        except OSError:
            piece = b""  # Linux says EIO when nobody has the other end open any more: pty(7)
        with self._changed:
            self._output += piece
            self._changed.notify_all()
        return bool(piece)

    @property
    def output(self) -> bytes:
        """All that the terminal has shown so far."""
        with self._changed:
            return bytes(self._output)

    def expect(self, wanted: bytes, within_s: float = 30.0) -> bytes:
        """Wait for `wanted` behind what was expected before.

        Returns: what came since then, `wanted` included. Raises: AssertionError with the output.
        """
        deadline = time.monotonic() + within_s
        with self._changed:
            while True:
                at = self._output.find(wanted, self._matched)
                if at >= 0:
                    start, self._matched = self._matched, at + len(wanted)
                    return bytes(self._output[start : self._matched])
                left_s = deadline - time.monotonic()
                if self._at_end or left_s <= 0:
                    unread = bytes(self._output[self._matched :])
                    ending = "the output ended" if self._at_end else f"{within_s} s passed"
                    raise AssertionError(f"{ending} without {wanted!r}; there was {unread!r}")
                self._changed.wait(left_s)

    # --- the person's side ---

    def send(self, data: bytes) -> None:
        """Type `data`; blocks while the program does not take it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._master, view) :]

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window; the kernel tells the foreground group by SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def attributes(self) -> list[Any]:
        """Return the terminal's settings as `termios.tcgetattr` does."""
        return termios.tcgetattr(self._master)

    def foreground_group(self) -> int:
        """Return the process group that the keyboard's signals go to; 0 if there is none."""
        return os.tcgetpgrp(self._master)

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does: the session gets SIGHUP. Idempotent."""
        if self._reader is None:
            return
        os.close(self._wake)
        self._reader.join(_KILLED_WITHIN_S)
        assert not self._reader.is_alive(), "the terminal's reader does not end"
        self._reader = None
        os.close(self._master)

    def wait(self, within_s: float = 30.0) -> int:
        """Wait for the program's end and its last output; return its exit code, or -N for signal N.

        Raises: AssertionError with the output.
        """
        try:
            code = self._started.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self._argv} did not end within {within_s} s; output: {self.output!r}"
            ) from None
        with self._changed:
            self._changed.wait_for(lambda: self._at_end, _LAST_OUTPUT_S)
        return code

    def _kill_all(self) -> None:
        process = self._started
        if process.poll() is None:
            # Frozen first, so that nobody starts another one between the look and the kill.
            _signal_all([process.pid], signal.SIGSTOP)
        pids = {*processes.descendants(process.pid), *processes.session_members(process.pid)}
        _signal_all(pids - {process.pid}, signal.SIGKILL)
        process.kill()
        process.wait(_KILLED_WITHIN_S)
        if isinstance(process, Forked):
            process.close()
        processes.assert_gone(pids, _KILLED_WITHIN_S)


def _signal_all(pids: Sequence[int] | set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass  # it went by itself
