"""What wakes the main thread: signals, and messages of the workers, through one descriptor."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Signal:
    """A signal has come."""

    number: int


@dataclass(frozen=True)
class WorkerEnded:
    """A worker's thread is about to end, and why if it should not."""

    worker: str
    error: BaseException | None = None


class Mailbox:
    """What the main thread waits for besides the keeper: signals, and messages of the workers."""

    HANDLED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Mailbox:
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in self.HANDLED:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            self._handlers[number] = signal.signal(number, _let_wakeup_fd_tell)
        return self

    def __exit__(self, *_exc: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wake_r)
        os.close(self._wake_w)

    def fileno(self) -> int:
        """Return the descriptor that is readable when `receive` has something."""
        return self._wake_r

    def post(self, message: object) -> None:
        """Leave a message. Thread: any."""
        self._messages.put(message)
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"\0")

    def receive(self) -> Iterator[object]:
        """Yield the signals and messages that have come."""
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake_r, 4096):
                if number:
                    yield Signal(number)
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return


def _let_wakeup_fd_tell(_number: int, _frame: object) -> None:
    """Do nothing: the byte in the wake-up descriptor is what the main thread reads."""
