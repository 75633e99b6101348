"""The user's own descriptors: written without ever waiting, and a terminal left as it was found.

Nothing here sets O_NONBLOCK on a descriptor that the user's shell shares; that flag belongs to the
open file, so it would outlive this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import stat
import struct
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.keeper import Keeper

_IS_LINUX: Final = sys.platform.startswith("linux")
# More than a screen can lag behind; a reader that has stopped for good costs no more than this.
MAX_PENDING_BYTES: Final = 4 * 1_048_576
# Of what is printed behind a question, the latest is shown after it.
_MAX_HELD_BYTES: Final = 1_048_576
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
    notice says so when there is room again. A reader that is gone is no error.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = bytearray()
        # What waits while something else is shown in its place.
        self._held: bytearray | None = None
        self._unheld_bytes = 0
        self._dropped_bytes = 0
        self._gone = False
        mode = os.fstat(fd).st_mode
        self.is_terminal = os.isatty(fd)
        self._own_fd = _reopen(fd) if self.is_terminal or stat.S_ISFIFO(mode) else None
        self._socket = socket.socket(fileno=os.dup(fd)) if stat.S_ISSOCK(mode) else None
        self._never_blocks = stat.S_ISREG(mode)

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
        return len(self._pending) + self._dropped_bytes

    def hold(self) -> None:
        """Keep what is written until `release`; only what is written `over` it is shown."""
        self._held = bytearray()

    def release(self) -> None:
        """Write what was kept."""
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
        if self._dropped_bytes or len(self._pending) + len(data) > MAX_PENDING_BYTES:
            # Nothing more until the notice: a gap must be where the notice says that it is.
            self._dropped_bytes += len(data)
        else:
            self._pending += data
        self.write_pending()

    def write_pending(self) -> None:
        """Write what the reader takes now."""
        while self._pending and not self._gone:
            if not (self._never_blocks or self._is_writable(0)):
                return
            try:
                written = self._write_some()
            except BlockingIOError:
                return
            except OSError:
                self._gone = True
                self._pending.clear()
                self._dropped_bytes = 0
                return
            del self._pending[:written]
            if not self._pending and self._dropped_bytes:
                self._pending += (
                    f"\r\n[{self._dropped_bytes} bytes were not shown here, because they were not "
                    "read]\r\n"
                ).encode()
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

    def _write_some(self) -> int:
        if self._socket is not None:
            return self._socket.send(self._pending, socket.MSG_DONTWAIT)
        if self._own_fd is not None or self._never_blocks:
            return os.write(self.fileno(), self._pending)
        return os.write(self._fd, memoryview(self._pending)[:_PIPE_WRITE_BYTES].tobytes())


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
        """Whether what is typed is for this program."""
        return is_foreground(self.fd)

    def discard(self) -> None:
        """Throw away what was typed and not read."""
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
        """Put the attributes back. A terminal that is gone is no error."""
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)


class ModeTracker:
    """Which of a terminal's modes a program has switched on and not off again.

    A program that is killed cannot undo its modes; `undo` is what it would have sent. Pure.
    Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
    """

    # Modes whose normal state is off; 25 (cursor) and 7 (wrap) are normally on.
    _OFF: Final = frozenset({1, 9, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1049,
                             2004, 2026, 2031})  # fmt: skip
    _ON: Final = frozenset({7, 25})
    # Left last, so that nothing of the other screen shows on the normal one.
    _SCREENS: Final = frozenset({47, 1047, 1049})
    # A number has an end here: output is not to be trusted, and int() refuses one of 5,000 digits.
    _SEQUENCE: Final = re.compile(
        rb"\x1b(?:\[(?:\?([\d;]{1,60})([hl])|([<>])([\d;]{0,60})([um]))|([=>c]))"
    )
    _LONGEST: Final = 64

    def __init__(self) -> None:
        self._tail = b""
        self._reset()

    def _reset(self) -> None:
        self._changed: set[int] = set()
        self._kitty_depth = 0
        self._other_keys = False
        self._keypad = False

    @property
    def has_other_screen(self) -> bool:
        """Whether a full-screen program has the terminal's other screen."""
        return bool(self._changed & self._SCREENS)

    @property
    def is_of_session(self) -> bool:
        """Whether a program has it that wants to be typed into: no other sets more than these."""
        return bool(self._changed - {7, 25} or self._kitty_depth or self._other_keys)

    @property
    def hides_cursor(self) -> bool:
        """Whether the cursor is not shown."""
        return 25 in self._changed

    def feed(self, raw: bytes) -> bool:
        """Look at a piece of the program's output. Returns whether a mode was named in it."""
        seen = self._tail + raw
        if b"\x1b" not in seen:
            return False
        has_any = False
        for match in self._SEQUENCE.finditer(seen):
            has_any = True
            self._note(match)
        at = seen.rfind(b"\x1b")
        # A complete sequence seen again would change the depth again, so it must not be kept.
        complete = self._SEQUENCE.match(seen, at)
        self._tail = b"" if complete or len(seen) - at > self._LONGEST else seen[at:]
        return has_any

    def undo(self) -> bytes:
        """Return what puts the terminal back."""
        parts = [
            f"\x1b[?{mode}{'h' if mode in self._ON else 'l'}".encode()
            for mode in sorted(self._changed, key=lambda mode: (mode in self._SCREENS, mode))
        ]
        if self._kitty_depth > 0:
            parts.insert(0, b"\x1b[<%du" % self._kitty_depth)
        if self._other_keys:
            parts.append(b"\x1b[>4m")
        if self._keypad:
            parts.append(b"\x1b>")
        return b"".join(parts) + (b"\x1b[0m" if parts else b"")

    def _note(self, match: re.Match[bytes]) -> None:
        modes, switch, kind, numbers, final, other = match.groups()
        if modes is not None:
            self._note_modes(modes.split(b";"), switched_on=switch == b"h")
        elif other == b"c":
            self._reset()
        elif other is not None:
            self._keypad = other == b"="
        elif final == b"u" and kind == b">":
            self._kitty_depth += 1
        elif final == b"u":
            popped = int(numbers.split(b";")[0] or b"1")
            self._kitty_depth = max(0, self._kitty_depth - popped)
        elif kind == b">":
            self._other_keys = numbers.startswith(b"4;")

    def _note_modes(self, modes: Sequence[bytes], *, switched_on: bool) -> None:
        for text in modes:
            mode = int(text or b"0")
            if mode in (self._OFF if switched_on else self._ON):
                self._changed.add(mode)
            elif mode in (self._ON if switched_on else self._OFF):
                self._changed.discard(mode)


class TextFilter:
    """Output without what only sets a terminal's state: its modes, title, cursor and character set.

    What has a look stays: colours, links, and what moves the cursor. Pure. Thread: one caller. How
    the output is cut makes no difference.
    """

    # An operating system command other than a link (8), and a private or a soft-reset sequence.
    _STATE: Final = re.compile(
        rb"\x1b(?:\[(?:[<=>?][0-?]*[ -/]*[@-~]|[0-9;]*r|[0-9;]* q|!p)"
        rb"|\](?!8;)[^\x07\x1b]*(?:\x07|\x1b\\)|[()*+][ -/]?[0-~]|[78=>c])|[\x0e\x0f]"
    )
    _COLOR: Final = re.compile(rb"\x1b\[([0-9;:]*)m")
    _BEGINNING: Final = re.compile(
        rb"\x1b(?:\[[0-?]*[ -/]*|\](?:[^\x07\x1b]*\x1b?)|[()*+][ -/]?)?\Z"
    )
    _LONGEST: Final = 1_024

    def __init__(self) -> None:
        self._held = b""
        self._is_colored = False

    def feed(self, raw: bytes) -> bytes:
        """Return what is text by now."""
        seen = self._held + raw
        if b"\x1b" not in seen and b"\x0e" not in seen and b"\x0f" not in seen:
            self._held = b""
            return seen
        begin = self._BEGINNING.search(seen, max(0, len(seen) - self._LONGEST))
        end = len(seen) if begin is None else begin.start()
        self._held = seen[end:]
        return self._COLOR.sub(self._color, self._STATE.sub(b"", seen[:end]))

    def flush(self) -> bytes:
        """Return what was held back, at the end."""
        held, self._held = self._held, b""
        return held

    def _color(self, match: re.Match[bytes]) -> bytes:
        """Leave out what ends a colour that has not begun."""
        is_reset = not match[1].strip(b"0;")
        is_kept = self._is_colored or not is_reset
        self._is_colored = not is_reset
        return match[0] if is_kept else b""


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
        if undo and os.isatty(1):
            output = LocalOutput(1)
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
        own_fd = _reopen(1) if os.isatty(1) else None
        if own_fd is not None:
            self._keeper.guard_terminal(own_fd, attributes, raw)
            os.close(own_fd)
