"""The user's terminal during a run: taken for a session, left alone otherwise, and given back.

Whatever becomes of this process, the terminal is put back: the keeper is given what it needs to do
so. Thread: main.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from local_terminal import LocalOutput, ModeTracker, RawTerminal, Size, reopen, window_size

if TYPE_CHECKING:
    from keeper import Keeper

# A size for recordings that nobody has a terminal for.
UNATTENDED_SIZE: Final = Size(120, 40)
# A screen that takes nothing keeps nobody from having the terminal back.
_UNDO_TIMEOUT_S: Final = 1.0


class SessionTerminal:
    """Standard input and output, as far as they are a terminal.

    `modes` is what the child has switched on, fed by whoever shows its output; `size` the size that
    the child's terminals get. `attributes` are those that the user had, None unless it was taken.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._raw: RawTerminal | None = None
        self.modes = ModeTracker()
        self.size = UNATTENDED_SIZE

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
        self.size = window_size(0) or UNATTENDED_SIZE
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
        own_fd = reopen(1) if os.isatty(1) else None
        if own_fd is not None:
            self._keeper.guard_terminal(own_fd, attributes, raw)
            os.close(own_fd)
