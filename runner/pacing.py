"""The gateway's rate limit: how long a request should wait for its turn.

The gateway says in its headers how many requests are left until its window ends. That budget is for
everything behind one IP address: output, polls, acknowledgements and uploads of this run, other
runs, and the operator's browser.

Nothing waits in here; callers are told how long they should.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Callable, Final

from gateway_client import Outcome

if TYPE_CHECKING:
    from gateway_client import RateLimit, Reply

# A gateway may ask for more patience than the operator of a run has.
_MAX_RETRY_AFTER_S: Final = 60.0
# After a 429 without a time: 1 s, doubled up to this.
_MAX_GUESSED_WAIT_S: Final = 30.0
# Requests kept back for acknowledgements and a stop.
_RESERVED_REQUESTS: Final = 3
# Above this share of the window's budget, output is not held back at all.
_FRESH_SHARE: Final = 0.8
# Below that, output is sent at once as long as this share is left of what would be left at an even
# pace. The rest is lent to bursts, and paid back with pauses later in the window.
_UNTOUCHED_SHARE: Final = 0.6
# The longest pause of a run that has the budget to itself: after more, it looks dead to a viewer.
_LONGEST_SILENCE_S: Final = 4.0
# With any number of runs, each polls and sends its output at least this often.
_SLOWEST_PACE_S: Final = 30.0
# Decay, per request, of the estimate of what others use. 0.99 averages over about 100 requests; a
# shorter memory would mistake our own burst for the others being idle.
_USAGE_MEMORY: Final = 0.99
# `reset` is in whole seconds, so two replies of one window may disagree by a second.
_RESET_ROUNDING_S: Final = 1.5


class Pacer:
    """Spreads one run's requests over the window. Thread: any.

    Every reply is noted, whoever got it. Output waits for `output_delay_s`, which also keeps back
    what polls and acknowledgements need; those only wait for `blocked_s`, after a 429.

    Several runs behind one address see the same headers. When the budget shrinks by more than this
    run's own requests, others share it, and each run keeps to its share.
    """

    def __init__(
        self, poll_interval_s: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._limit = 0
        self._remaining = 0
        self._window_s = 0.0
        self._reset_at = 0.0
        self._blocked_until = 0.0
        self._last_output_at = 0.0
        self._refusals = 0
        # Recent requests of this run and of everybody, by `_USAGE_MEMORY`.
        self._own = 1.0
        self._all = 1.0

    def note(self, reply: Reply) -> None:
        """Learn from a reply."""
        now = self._clock()
        with self._lock:
            if reply.rate_limit is not None:
                self._note_budget(reply.rate_limit, now)
            if reply.outcome is Outcome.LIMITED:
                self._refusals += 1
                wait_s = min(max(self._asked_wait_s(reply), 0.1), _MAX_RETRY_AFTER_S)
                self._blocked_until = max(self._blocked_until, now + wait_s)
            elif reply.status:
                self._refusals = 0

    def _note_budget(self, budget: RateLimit, now: float) -> None:
        reset_at = now + budget.reset_s
        is_same_window = reset_at < self._reset_at + _RESET_ROUNDING_S
        if self._limit and is_same_window and budget.remaining > 0:
            self._own = self._own * _USAGE_MEMORY + 1.0
            self._all = self._all * _USAGE_MEMORY + self._remaining - budget.remaining
            self._all = max(self._all, self._own)  # replies may arrive in another order
        self._limit, self._remaining, self._reset_at = budget.limit, budget.remaining, reset_at
        self._window_s = max(self._window_s, budget.reset_s)

    def _asked_wait_s(self, reply: Reply) -> float:
        if reply.retry_after_s is not None:
            return reply.retry_after_s
        if reply.rate_limit is not None:
            return reply.rate_limit.reset_s
        return min(float(2 ** min(self._refusals - 1, 10)), _MAX_GUESSED_WAIT_S)

    def note_output(self) -> None:
        """Note that an output event is being sent now."""
        with self._lock:
            self._last_output_at = self._clock()

    def stop_polling(self) -> None:
        """Note that the poller has ended: output may use its part of the budget."""
        with self._lock:
            self._poll_interval_s = None

    def blocked_s(self) -> float:
        """Return how long the gateway will refuse everything."""
        with self._lock:
            return max(0.0, self._blocked_until - self._clock())

    def poll_pause_s(self, interval_s: float) -> float:
        """Return how long to wait between two polls: `interval_s`, or longer beside other runs."""
        with self._lock:
            return max(interval_s, self._half_share_s)

    def output_delay_s(self) -> float:
        """Return how long the next output event should wait."""
        now = self._clock()
        with self._lock:
            blocked_s = max(0.0, self._blocked_until - now)
            left_s = self._reset_at - now
            if left_s <= 0:
                return blocked_s
            if self._remaining <= _RESERVED_REQUESTS:
                return max(blocked_s, left_s)
            return max(blocked_s, self._last_output_at + self._interval_s(left_s) - now)

    def _interval_s(self, left_s: float) -> float:
        """Return the interval between two output events that the budget allows."""
        if self._remaining >= self._limit * _FRESH_SHARE:
            return 0.0
        whole = self._for_output(self._limit, self._window_s)
        free = self._for_output(self._remaining, left_s)
        if free >= whole * left_s / self._window_s * _UNTOUCHED_SHARE:
            return 0.0
        longest_s = max(_LONGEST_SILENCE_S, self._half_share_s)
        return min(left_s / free, longest_s) if free >= 1 else longest_s

    def _for_output(self, requests: int, for_s: float) -> float:
        """Return how many of so many requests this run can use for output in that time."""
        polls = 0.0
        if self._poll_interval_s:
            polls = for_s / max(self._poll_interval_s, self._half_share_s)
        return requests * self._own / self._all - polls - _RESERVED_REQUESTS

    @property
    def _half_share_s(self) -> float:
        """The interval at which half of this run's share of a whole window is used."""
        if not self._limit:
            return 0.0
        return min(2.0 * self._window_s * self._all / (self._limit * self._own), _SLOWEST_PACE_S)
