"""How fast requests go to the gateway: pauses after failures, and a budget that is shared.

Thread: any. It waits for nothing itself: it says how long its callers should.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Final

from gateway_client import Outcome

if TYPE_CHECKING:
    from gateway_client import RateLimit, Reply

# The gateway may ask for more patience than a run's operator has.
_MAX_RETRY_AFTER_S: Final = 60.0
# A gateway that refuses by its rate limit without a word about when: 1 s, doubled up to this.
_MAX_GUESSED_WAIT_S: Final = 30.0
# How far the budget may fall behind its window before output is held back at all.
_BURST_SHARE: Final = 0.3
# With so much of a window left, nobody has to be spared yet.
_FRESH_SHARE: Final = 0.8
# From here on what is left is spread evenly: any faster now, and it would be used up later.
_STEADY_INTERVAL_S: Final = 2.5
# Slower than this, a person who watches takes the run for dead.
_LONGEST_SILENCE_S: Final = 4.0
# How fast what others took is forgotten: some hundred requests of this run later. Any faster, and
# one burst of this run passes for everybody's silence.
_SHARE_MEMORY: Final = 0.99
# However many runs there are, each asks, and sends what it has, within this time.
_SLOWEST_PACE_S: Final = 30.0
# Replies of the same window may differ by a second of rounding.
_WINDOW_SLACK_S: Final = 1.5
# Requests kept back for acknowledgements and a stop, whatever else is going on.
_RESERVED_REQUESTS: Final = 3
# How soon a wait for the budget, or for an attempt to die, is thought over again.
RECONSIDER_S: Final = 1.0


@dataclass(frozen=True)
class Pauses:
    """How long delivery waits between attempts.

    Copies of an attempt: `first_s`, doubled up to `last_s`, each times 0.5 to 1 at random.
    `rejected_s`: a wrong secret or token in mid-run is mended by a person, if at all.
    """

    first_s: float = 0.25
    last_s: float = 30.0
    rejected_s: float = 30.0

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        longest_s = min(self.last_s, self.first_s * float(2 ** min(failures, 10)))
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def backoff_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row, by the usual pauses."""
    return Pauses().backoff_s(failures)


class Pacer:
    """Spreads one run's requests over what the gateway's rate headers leave. Thread: any.

    Every reply is noted, whoever got it. Output asks how long to hold back; polls and
    acknowledgements only wait while the gateway refuses everything.

    As long as the budget lasts about as long as its window, output flows at once. The further it
    falls behind, the longer the interval between two events grows, up to an even spread of what is
    left. Several runners behind one address see the same headers: what goes beyond a run's own
    requests is taken by others, and so each learns its share, of output and of questions.
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
        # Requests of late, of this run and of everybody.
        self._own = 1.0
        self._all = 1.0

    def note(self, reply: Reply) -> None:
        """Learn from a reply."""
        now = self._clock()
        with self._lock:
            if reply.rate_limit is not None:
                self._learn_share(reply.rate_limit, now)
                self._limit = reply.rate_limit.limit
                self._remaining = reply.rate_limit.remaining
                self._reset_at = now + reply.rate_limit.reset_s
                self._window_s = max(self._window_s, reply.rate_limit.reset_s)
            if reply.outcome is Outcome.LIMITED:
                self._refusals += 1
                wait_s = min(max(self._asked_wait_s(reply), 0.1), _MAX_RETRY_AFTER_S)
                self._blocked_until = max(self._blocked_until, now + wait_s)
            elif reply.status:
                self._refusals = 0

    def _learn_share(self, told: RateLimit, now: float) -> None:
        """Count who took what since the last reply of the same window."""
        is_same_window = now + told.reset_s < self._reset_at + _WINDOW_SLACK_S
        if self._limit and is_same_window and told.remaining > 0:
            self._own = self._own * _SHARE_MEMORY + 1.0
            self._all = self._all * _SHARE_MEMORY + self._remaining - told.remaining
            self._all = max(self._all, self._own)

    @property
    def _share(self) -> float:
        """The part of what is left that is this run's."""
        return self._own / self._all

    def poll_pause_s(self, interval_s: float) -> float:
        """Return how long to wait between two questions, `interval_s` if nobody else is there."""
        with self._lock:
            return self._poll_pause_s(interval_s)

    def _poll_pause_s(self, interval_s: float) -> float:
        return max(interval_s, self._half_share_s)

    @property
    def _half_share_s(self) -> float:
        """The interval at which half of this run's share of a whole window is used."""
        if not self._limit:
            return 0.0
        return min(2.0 * self._window_s / (self._limit * self._share), _SLOWEST_PACE_S)

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
        """Note that nobody asks for commands any more: output may have the polls' share."""
        with self._lock:
            self._poll_interval_s = None

    def blocked_s(self) -> float:
        """Return how long the gateway will refuse everything."""
        with self._lock:
            return max(0.0, self._blocked_until - self._clock())

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
        """Return the interval between two events that the budget allows."""
        if self._remaining >= self._limit * _FRESH_SHARE:
            return 0.0  # the window has hardly begun, whoever takes how much of it
        share = self._share
        free = self._remaining * share - self._reserved(left_s)
        longest_s = max(_LONGEST_SILENCE_S, self._half_share_s)
        if free < 1:
            return longest_s
        granted = max(1.0, self._limit * share - self._reserved(self._window_s))
        sustainable = granted / self._window_s
        spread_s = left_s / free
        if spread_s >= _STEADY_INTERVAL_S:
            return min(spread_s, longest_s)
        behind = 1.0 - free / left_s / sustainable
        pressure = max(0.0, behind - _BURST_SHARE) / (1.0 - _BURST_SHARE)
        return spread_s * pressure**2

    def _reserved(self, for_s: float) -> float:
        """Return how many requests the other threads will need in that time."""
        interval_s = self._poll_interval_s
        polls = for_s / self._poll_pause_s(interval_s) if interval_s else 0.0
        return _RESERVED_REQUESTS + polls
