"""The threads of the runner: started, stopped and joined in one way; and what wakes a select."""

from __future__ import annotations

import queue
import select
import threading

from runner.mailbox import WakePipe, Worker, WorkerEnded, WorkerFailed

WITHIN_S = 10.0


class Waiter(Worker):
    """A worker that waits in a select until it is told to stop, and then may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ends: queue.SimpleQueue[WorkerFailed | WorkerEnded] = queue.SimpleQueue()
        super().__init__("waiter", self.ends.put)
        self.names: list[str] = []
        self.closed_count = 0
        self._error = error
        self._pipe = WakePipe()

    def _wake(self) -> None:
        self._pipe.wake()

    def _close(self) -> None:
        self.closed_count += 1
        self._pipe.close()

    def _work(self) -> None:
        self.names.append(threading.current_thread().name)
        while not self._stopping.is_set():
            select.select([self._pipe], [], [], WITHIN_S)
            self._pipe.take()
        if self._error is not None:
            raise self._error


def test_a_worker_ends_when_it_is_stopped() -> None:
    """It is woken wherever it waits, its end is reported once, and what it owns is closed once."""
    worker = Waiter()
    worker.start()

    worker.join(0.0)
    closed_too_early = worker.closed_count
    worker.stop()
    end = worker.ends.get(timeout=WITHIN_S)
    worker.join(WITHIN_S)
    worker.join(WITHIN_S)

    assert closed_too_early == 0
    assert end == WorkerEnded("waiter", None)
    assert worker.ends.empty()
    assert worker.closed_count == 1
    assert worker.names == ["runner-waiter"]


def test_a_crash_is_the_end_that_is_reported() -> None:
    """Whatever a worker raises goes to its owner, and to nobody else."""
    error = ValueError("a bug")
    worker = Waiter(error)
    worker.start()

    worker.stop()

    assert worker.ends.get(timeout=WITHIN_S) == WorkerEnded("waiter", error)
    worker.join(WITHIN_S)
    assert worker.closed_count == 1


class Stumbler(Worker):
    """A worker that fails some times before its task is done."""

    def __init__(self, failures: int) -> None:
        self.news: queue.SimpleQueue[WorkerFailed | WorkerEnded] = queue.SimpleQueue()
        super().__init__("stumbler", self.news.put)
        self.failures = failures
        self.is_well = threading.Event()

    def _work(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ERROR
        self.is_well.set()
        self._stopping.wait()


ERROR = ValueError("a bug")


def test_a_worker_that_fails_comes_back_and_tells_it_once() -> None:
    """Its task is started again after each failure, and the owner hears of the first."""
    worker = Stumbler(2)
    worker.start()

    first = worker.news.get(timeout=WITHIN_S)
    assert worker.is_well.wait(WITHIN_S)
    worker.stop()
    last = worker.news.get(timeout=WITHIN_S)
    worker.join(WITHIN_S)

    assert (first, last) == (WorkerFailed("stumbler", ERROR), WorkerEnded("stumbler"))
    assert worker.news.empty()


def test_a_stop_ends_the_pause_after_a_failure() -> None:
    """Who fails at each start is not in the way of the end."""
    worker = Stumbler(1_000)
    worker.start()
    worker.news.get(timeout=WITHIN_S)
    worker.stop()

    assert worker.news.get(timeout=WITHIN_S) == WorkerEnded("stumbler", ERROR)
    worker.join(WITHIN_S)


def test_a_pipe_is_readable_from_a_wake_to_a_take() -> None:
    """Many wakes are one, and one too late is none."""
    pipe = WakePipe()

    quiet = pipe.take()
    for _ in range(100_000):  # more than a pipe holds
        pipe.wake()
    woken = select.select([pipe], [], [], WITHIN_S)[0]
    while pipe.take():
        pass
    woken_again = select.select([pipe], [], [], 0)[0]
    pipe.close()
    pipe.wake()

    assert quiet == b""
    assert woken == [pipe]
    assert woken_again == []
