"""The threads of the runner, and what wakes them: one kind of thread, one kind of wake-up.

A `Worker` is a thread, started, stopped and joined by its owner, to whom it reports its end once.
A `WakePipe` wakes a thread that waits in `select`. The `Mailbox` is what the main thread waits for:
signals, and messages of the workers.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_transport import CertificateChangedError


# How long a worker that failed pauses before it starts again, doubled each time up to the second.
# A stop by the page waits for that; the third is after how long the failures are forgotten.
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0
_WELL_AFTER_S: Final = 60.0


class WakePipe:
    """Makes a `select` return. Thread: any may `wake`; one waits, and takes. Never blocks."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)

    def fileno(self) -> int:
        """Return the descriptor that is readable after `wake`."""
        return self._read_fd

    def wake(self) -> None:
        """Make it readable. Nothing happens once it is closed."""
        with contextlib.suppress(OSError):
            os.write(self._write_fd, b"\0")

    def wake_by_signals(self) -> None:
        """Let every signal that has a handler wake it, by its number. Thread: main.

        Source: `signal.set_wakeup_fd`.
        """
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def take(self) -> bytes:
        """Make it unreadable again. Returns what woke it: zeros, and numbers of signals."""
        try:
            return os.read(self._read_fd, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close both ends. Idempotent."""
        for fd in {self._read_fd, self._write_fd} - {-1}:
            os.close(fd)
        self._read_fd = self._write_fd = -1


class Signal(NamedTuple):
    """A signal has come."""

    number: int


class KeysTyped(NamedTuple):
    """Somebody has typed while a question was open."""

    keys: bytes


class FilesTouched:
    """The child may have changed files."""


class CertificateRefused(NamedTuple):
    """Nothing is sent to the gateway, which shows another certificate; a person may agree to it."""

    error: CertificateChangedError


class WorkerEnded(NamedTuple):
    """A worker's thread is about to end, and why if it should not."""

    worker: str
    error: BaseException | None = None


class WorkerFailed(NamedTuple):
    """A worker's task failed for the first time, and is started again whenever it fails."""

    worker: str
    error: BaseException


class Worker(ABC):
    """A thread with one task. Lifecycle: start, stop, join; all three are the owner's to call.

    A subclass does its task in `_work`, which returns soon after `stop`. Whatever it raises, it is
    called again after a pause, unless `_is_final` says otherwise. `tell_owner` is called in the
    thread itself: with a `WorkerFailed` for the first failure, and once with a `WorkerEnded`.
    """

    def __init__(
        self, name: str, tell_owner: Callable[[WorkerFailed | WorkerEnded], object]
    ) -> None:
        self._name = name
        self._tell_owner = tell_owner
        self._stopping = threading.Event()
        self._is_closed = False
        # A daemon: what hangs in it does not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name=f"runner-{name}", daemon=True)

    def start(self) -> None:
        """Begin with the task."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end soon. Thread: any."""
        self._stopping.set()
        self._wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, and close what the worker owns. May be called again."""
        self._thread.join(timeout_s)
        if not (self._thread.is_alive() or self._is_closed):
            self._is_closed = True
            self._close()

    @abstractmethod
    def _work(self) -> None:
        """Do the task. Thread: the worker's."""

    def _wake(self) -> None:  # noqa: B027 - many wait for `_stopping` itself
        """Let the thread look at `_stopping`, wherever it waits. Thread: any."""

    def _close(self) -> None:  # noqa: B027 - many own nothing
        """Close what the worker owns. Its thread has ended."""

    def _is_final(self, _error: BaseException) -> bool:
        """Whether the task is not started again after this. Thread: the worker's."""
        return self._stopping.is_set()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        was_told = False
        while True:
            started_at = time.monotonic()
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 - its owner is told
                if self._is_final(error):
                    self._tell_owner(WorkerEnded(self._name, error))
                    return
                if not was_told:
                    was_told = True
                    self._tell_owner(WorkerFailed(self._name, error))
            else:
                self._tell_owner(WorkerEnded(self._name))
                return
            if time.monotonic() - started_at > _WELL_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class Mailbox:
    """What the main thread waits for besides the keeper: signals, and messages of the workers."""

    _ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _HANDLED: Final = (*_ENDING, signal.SIGWINCH)

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pipe = WakePipe()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Mailbox:
        self._pipe.wake_by_signals()
        for number in self._HANDLED:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            self._handlers[number] = signal.signal(number, let_pipe_tell)
        return self

    def __exit__(self, *_exc: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._pipe.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when `receive` has something."""
        return self._pipe.fileno()

    def post(self, message: object) -> None:
        """Leave a message. Thread: any."""
        self._messages.put(message)
        self._pipe.wake()

    def receive(self) -> Iterator[object]:
        """Yield the signals and messages that have come.

        Of several signals that ask for the end only the first: they came in one moment.
        """
        numbers = self._pipe.take()
        if signal.SIGWINCH in numbers:
            yield Signal(signal.SIGWINCH)
        ending = next((each for each in numbers if each in self._ENDING), None)
        if ending is not None:
            yield Signal(ending)
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return


def let_pipe_tell(_number: int, _frame: object) -> None:
    """Do nothing, as a signal's handler: the byte in the pipe is what its reader acts on."""
