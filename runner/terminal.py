"""The user's own descriptors: written without ever waiting, and a terminal left as it was found.

Nothing here sets O_NONBLOCK on a descriptor that the user's shell shares; that flag belongs to the
open file, so it would outlive this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import sys
import termios
import time
import tty
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runner.sequences import ModeTracker

if TYPE_CHECKING:
    from runner.keeper import Keeper

_IS_LINUX: Final = sys.platform.startswith("linux")
# More than a screen can lag behind; a reader that has stopped for good costs no more than this.
MAX_PENDING_BYTES: Final = 4 * 1_048_576
# Of the output that comes during a question, the latest part is shown after it.
_MAX_HELD_BYTES: Final = 1_048_576
_BLOCK_BYTES: Final = 65_536
# POSIX: a pipe that select() calls writable takes this much without blocking.
_PIPE_WRITE_BYTES: Final = select.PIPE_BUF


class Size(NamedTuple):
    """The size of a terminal in characters."""

    columns: int
    lines: int


def window_size(fd: int) -> Size | None:
    """Return the size of the terminal behind `fd`, or None when it has none."""
    try:
        lines, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return None
    return Size(columns, lines) if columns and lines else None


def is_foreground(fd: int) -> bool:
    """Whether this process may read from the terminal behind `fd`: it is not in the background."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def set_window_size(fd: int, size: Size) -> None:
    """Set the size of the terminal behind `fd`; its foreground gets SIGWINCH if it changed."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.lines, size.columns, 0, 0))


class LocalOutput:
    """One of the user's descriptors, written to without blocking. Thread: one at a time.

    What the reader does not take is kept up to `MAX_PENDING_BYTES`; past that it is dropped, and a
    notice says so when there is room again. A reader that is gone is not an error.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # What waits, in blocks: one long one would be copied for each piece that comes or goes.
        self._pending: deque[bytearray] = deque()
        self._pending_bytes = 0
        # What waits while something else is shown in its place.
        self._held: bytearray | None = None
        self._unheld_bytes = 0
        self._dropped_bytes = 0
        self._gone = False
        mode = os.fstat(fd).st_mode
        self.is_terminal = os.isatty(fd)
        self._own_fd = _reopen(fd) if self.is_terminal or stat.S_ISFIFO(mode) else None
        self._socket = socket.socket(fileno=os.dup(fd)) if stat.S_ISSOCK(mode) else None
        # A shared descriptor stays blocking, so each write is preceded by a look.
        is_own = self._own_fd is not None or self._socket is not None
        self._never_blocks = is_own or stat.S_ISREG(mode)

    def close(self) -> None:
        """Close what this class has opened; the user's descriptor stays."""
        self._gone = True
        if self._own_fd is not None:
            os.close(self._own_fd)
            self._own_fd = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """Return the descriptor to wait on for writing."""
        return self._fd if self._own_fd is None else self._own_fd

    @property
    def is_waiting(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending) and not self._gone

    @property
    def unshown_bytes(self) -> int:
        """How much a reader that has stopped, and is not gone, has not taken."""
        return self._pending_bytes + self._dropped_bytes

    def hold(self) -> None:
        """Hold all output until `release`; only output written `over` it is shown."""
        self._held = bytearray()

    def release(self) -> None:
        """Write the held output."""
        held, self._held = bytes(self._held or b""), None
        if self._unheld_bytes:
            self.write(f"\r\n[{self._unheld_bytes} bytes were not shown here]\r\n".encode())
            self._unheld_bytes = 0
        self.write(held)

    def write(self, data: bytes, *, over: bool = False) -> None:
        """Write what the reader takes now, and keep the rest for `write_pending`."""
        if self._gone or not data:
            return
        if self._held is not None and not over:
            self._held += data
            excess = max(0, len(self._held) - _MAX_HELD_BYTES)
            del self._held[:excess]
            self._unheld_bytes += excess
            return
        if self._dropped_bytes or self._pending_bytes + len(data) > MAX_PENDING_BYTES:
            # Nothing more until the notice: a gap must be where the notice says that it is.
            self._dropped_bytes += len(data)
        else:
            self._keep(data)
        self.write_pending()

    def _keep(self, data: bytes) -> None:
        if not self._pending or len(self._pending[-1]) + len(data) > _BLOCK_BYTES:
            self._pending.append(bytearray())
        self._pending[-1] += data
        self._pending_bytes += len(data)

    def write_pending(self) -> None:
        """Write what the reader takes now."""
        while self._pending and not self._gone:
            if not (self._never_blocks or self._is_writable(0)):
                return
            try:
                written = self._write_some(self._pending[0])
            except BlockingIOError:
                return
            except OSError:
                self._gone = True
                self._pending.clear()
                self._pending_bytes = self._dropped_bytes = 0
                return
            self._pending_bytes -= written
            del self._pending[0][:written]
            if not self._pending[0]:
                self._pending.popleft()
            elif self._never_blocks:
                return
            if not self._pending and self._dropped_bytes:
                self._keep(
                    f"\r\n[{self._dropped_bytes} bytes were not shown here, because they were not "
                    "read]\r\n".encode()
                )
                self._dropped_bytes = 0

    def wait_written(self, deadline: float) -> None:
        """Wait for a slow reader, at most until the monotonic `deadline`."""
        self.write_pending()
        while self.is_waiting and self._is_writable(deadline - time.monotonic()):
            self.write_pending()

    def wait_read(self, patience_s: float) -> None:
        """Wait for a slow reader, as long as it goes on reading."""
        self.write_pending()
        while self.is_waiting and self._is_writable(patience_s):
            self.write_pending()

    def _is_writable(self, timeout_s: float) -> bool:
        return bool(select.select([], [self.fileno()], [], max(0.0, timeout_s))[1])

    def _write_some(self, block: bytearray) -> int:
        if self._socket is not None:
            return self._socket.send(block, socket.MSG_DONTWAIT)
        if self._never_blocks:
            return os.write(self.fileno(), block)
        return os.write(self._fd, memoryview(block)[:_PIPE_WRITE_BYTES].tobytes())


def _reopen(fd: int) -> int | None:
    """Open a terminal or pipe once more, with an O_NONBLOCK that the user's shell does not share.

    None where that cannot be: a pipe on macOS, or one of another user. Then short writes, each
    after a look whether there is room, are the best that can be done.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        # On Linux not by its name, which a terminal that was handed into a container lacks.
        return os.open(f"/proc/self/fd/{fd}" if _IS_LINUX else os.ttyname(fd), flags)
    return None


class LineKeyboard:
    """The keyboard of a run that is no session: the terminal hands over whole lines.

    It belongs to whatever is in the foreground. In the background this reads nothing, since a read
    would stop the whole job.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def is_ours(self) -> bool:
        """Whether the keys are for this program."""
        return is_foreground(self.fd)

    def discard(self) -> None:
        """Throw away keys that were typed and not read."""
        with contextlib.suppress(termios.error, OSError):
            if self.is_ours():
                termios.tcflush(self.fd, termios.TCIFLUSH)

    def read_line(self) -> str:
        """Return the next line, if this program may read it; else an empty text."""
        try:
            return os.read(self.fd, 65_536).decode("utf-8", "replace") if self.is_ours() else ""
        except OSError:
            return ""


class RawTerminal:
    """The user's terminal while a session has it: raw, and restored whatever happens.

    Attributes change at once: waiting until all output is shown (TCSADRAIN) could block for ever on
    a stopped screen.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: list[Any] = termios.tcgetattr(fd)

    @property
    def attributes(self) -> list[Any]:
        """The terminal's attributes as the user had them, for the child's terminal."""
        return self._saved

    def enter(self) -> list[Any]:
        """Pass every key on, and print bytes as they are. Returns the attributes that do so."""
        tty.setraw(self.fd, termios.TCSANOW)
        return termios.tcgetattr(self.fd)

    def restore(self) -> None:
        """Put the attributes back. A terminal that is gone is not an error."""
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)


# The size of the child's terminal when the runner has none.
_UNATTENDED_SIZE: Final = Size(120, 40)
# A stopped screen delays the restoring of the terminal by this at most.
_UNDO_TIMEOUT_S: Final = 1.0


class SessionTerminal:
    """Standard input and output, as far as they are a terminal.

    `modes` is what the child has switched on, fed by the thread that shows its output; `size` the
    size that the child's terminals get. `attributes` are those that the user had, or None if it
    was not taken.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._raw: RawTerminal | None = None
        self.modes = ModeTracker()
        self.size = _UNATTENDED_SIZE

    @property
    def is_taken(self) -> bool:
        """Whether a session has it, with every key."""
        return self._raw is not None

    @property
    def attributes(self) -> list[Any] | None:
        """The terminal's attributes as the user had them, for the child's terminal."""
        return None if self._raw is None else self._raw.attributes

    def take(self) -> None:
        """Take it for a session; 0 and 1 must be a terminal."""
        self._raw = RawTerminal(0)
        self.size = window_size(0) or _UNATTENDED_SIZE
        self._enter_raw(self._raw)

    def guard(self) -> None:
        """Leave it as it is; but what is printed there may switch on modes, to be undone."""
        self._let_keeper_guard(None, None)

    def measure(self) -> bool:
        """Look how large it is. Returns whether that has changed."""
        size = window_size(0) if self.is_taken else None
        if size is None or size == self.size:
            return False
        self.size = size
        return True

    def suspend(self) -> None:
        """Stop the whole job, as Ctrl-Z does without the runner. Returns when it is continued."""
        if self._raw is None:
            return
        self._keeper.release_terminal()  # from here on it is the shell's
        self._raw.restore()
        os.kill(0, signal.SIGTSTP)
        # Continued. In the background this stops again, until the job is in the foreground.
        self._enter_raw(self._raw)

    def give_back(self) -> None:
        """Undo what the child did to it and did not undo, and what this class did. Idempotent."""
        undo = self.modes.undo()
        self.modes = ModeTracker()
        fd = _users_terminal()
        if undo and fd is not None:
            output = LocalOutput(fd)
            output.write(undo)
            output.wait_written(time.monotonic() + _UNDO_TIMEOUT_S)
            output.close()
        if self._raw is not None:
            self._raw.restore()
            self._raw = None
        self._keeper.release_terminal()

    def _enter_raw(self, terminal: RawTerminal) -> None:
        self._let_keeper_guard(terminal.attributes, terminal.enter())

    def _let_keeper_guard(self, attributes: list[Any] | None, raw: list[Any] | None) -> None:
        fd = _users_terminal()
        own_fd = None if fd is None else _reopen(fd)
        if own_fd is not None:
            self._keeper.guard_terminal(own_fd, attributes, raw)
            os.close(own_fd)


def _users_terminal() -> int | None:
    """Return the descriptor behind which what the child prints is shown on a terminal."""
    return next((fd for fd in (1, 2) if os.isatty(fd)), None)
