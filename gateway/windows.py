"""Counting by address, each in a window of time that begins with its first count."""

from __future__ import annotations

import threading
import time
from typing import Callable

# Counts in memory at most. A stranger with more addresses has more guesses.
MAX_ADDRESSES = 10_000


class Windows:
    """The counts of all addresses. Thread: any."""

    def __init__(self, length_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._length_s = length_s
        self._clock = clock
        self._lock = threading.Lock()
        # When each began, and its count; the oldest comes first.
        self._windows: dict[str, tuple[float, int]] = {}

    def add(self, address: str) -> tuple[int, float]:
        """Count one more; return the count, and in how many seconds it begins anew."""
        with self._lock:
            now = self._clock()
            self._drop_over(now)
            began, count = self._windows.get(address, (now, 0))
            self._windows[address] = began, count + 1
            if len(self._windows) > MAX_ADDRESSES:
                del self._windows[next(iter(self._windows))]
        return count + 1, began + self._length_s - now

    def _drop_over(self, now: float) -> None:
        while self._windows:
            oldest, (began, _) = next(iter(self._windows.items()))
            if now - began < self._length_s:
                return
            del self._windows[oldest]
