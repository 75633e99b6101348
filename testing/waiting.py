"""Waiting for something that another thread or process will make true."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

T = TypeVar("T")

# Long enough that a loop costs nothing, short enough that nobody notices it. One that asks a
# gateway, a browser or the process table takes no more than a sixth of a core.
RETRY_EVERY_S = 0.01
_TIMES_AS_LONG = 5
_AT_MOST_S = 0.25


def eventually(assertion: Callable[[], T], within_s: float = 30.0) -> T:
    """Call `assertion` until it no longer raises AssertionError, and return what it returned.

    Raises: the last real AssertionError once `within_s` is over; any other exception at once.
    The assertion is always tried one last time after the deadline, so that a machine that stood
    still does not fail a test whose condition has come true.
    """
    deadline = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        is_last = began >= deadline
        try:
            return assertion()
        except AssertionError:
            if is_last:
                raise
        took_s = time.monotonic() - began
        time.sleep(min(max(RETRY_EVERY_S, _TIMES_AS_LONG * took_s), _AT_MOST_S))
