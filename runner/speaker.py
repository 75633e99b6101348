"""The pump's part in a conversation: it writes the child's stdin, and reads the keyboard.

Passive; all of it runs in the pump's thread.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from runner.conversation import Conversation
    from runner.terminal import LineKeyboard

# In the background nothing is read; how often to look whether this is the foreground again.
_FOREGROUND_INTERVAL_S: Final = 0.5


class Speaker:
    """Owns the pipe to the child's stdin, and reads the keyboard's lines if there is one."""

    def __init__(
        self, conversation: Conversation, stdin_fd: int, keyboard: LineKeyboard | None
    ) -> None:
        self.conversation = conversation
        self._stdin_fd: int | None = stdin_fd
        self._keyboard = keyboard
        self._waits_for_foreground = False
        os.set_blocking(stdin_fd, False)
        if keyboard is not None:
            keyboard.discard()  # it was typed before the run, and for something else

    @property
    def has_keyboard(self) -> bool:
        """Whether the keyboard is read here."""
        return self._keyboard is not None

    def reading(self) -> list[int]:
        """Return what is to be readable for `handle`."""
        keyboard = self._keyboard
        if keyboard is None:
            return []
        if self.conversation.ask_keyboard(time.monotonic()):
            keyboard.discard()
            self.conversation.invite()
        is_wanted = self.conversation.wants_keyboard
        is_ours = is_wanted and keyboard.is_ours()
        self._waits_for_foreground = is_wanted and not is_ours
        return [keyboard.fd] if is_ours else []

    def writing(self) -> list[int]:
        """Return what is to be writable for `handle`."""
        has_more = self._stdin_fd is not None and bool(self.conversation.outgoing)
        return [self._stdin_fd] if has_more and self._stdin_fd is not None else []

    def due_at(self) -> float | None:
        """Return when there is something to do, whatever is readable or writable."""
        dues = [self.conversation.due_at()]
        dues += [time.monotonic() + _FOREGROUND_INTERVAL_S] if self._waits_for_foreground else []
        return min((due for due in dues if due is not None), default=None)

    def handle(self, ready: Collection[int]) -> None:
        """Write and read what is possible, and do what is due."""
        if self._stdin_fd is not None and self._stdin_fd in ready:
            self._write(self._stdin_fd)
        if self._keyboard is not None and self._keyboard.fd in ready:
            line = self._keyboard.read_line()
            if line:
                self.conversation.type_line(line)
        self.conversation.tick(time.monotonic())
        if self.conversation.is_over:
            self.close()

    def close(self) -> None:
        """Close the child's stdin, which ends it. Idempotent."""
        if self._stdin_fd is not None:
            os.close(self._stdin_fd)
            self._stdin_fd = None

    def _write(self, fd: int) -> None:
        try:
            self.conversation.written(os.write(fd, self.conversation.outgoing))
        except BlockingIOError:
            pass
        except OSError:  # the child has closed it, or is gone
            self.close()
