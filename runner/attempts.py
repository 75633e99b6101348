"""The rule that brings each request to the gateway exactly once: repeat it until it is answered.

The gateway stores every request that it accepts, and does not look for duplicates. When an answer
is lost, the runner cannot know whether the request was stored. So a request is signed once, as a
frozen `Attempt`, and the same bytes are sent again and again: the gateway remembers the nonce of
what it has authenticated, and answers a second copy with "Nonce already used". That counts as
accepted.

It is signed anew, with a new nonce, only where no copy sent before can have been stored:

- The gateway failed on it (a 500). It has remembered the nonce but stored nothing, so another copy
  would be answered as if it had been accepted, and the request would be lost.
- The connection broke before the whole file of an upload was sent. The gateway looks at the nonce
  before it has read the file.
- The timestamp is out of range, or the attempt is so old that no gateway accepts it any more.

Every other answer leaves the nonce unused, or says nothing about it, and the attempt stays as it
is. See docs/decisions/0004-retry-above-signing.md.

Below it, `Pacer` says when the gateway's rate limit lets a request go.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Final, Union

from gateway_client import ATTEMPT_DEAD_S, ATTEMPT_RESEND_LIMIT_S, MultipartFile, Outcome, Reply
from gateway_transport import GatewayError

if TYPE_CHECKING:
    from gateway_client import Attempt, GatewayClient, RateLimit
    from journal.spool import Command, Spool

# What stands in the way: the gateway's answer, or a certificate that is not the expected one.
Obstacle = Union[Reply, GatewayError]

# Waits are cut into pieces of this length, because other threads may learn more about the budget.
_RECONSIDER_S: Final = 1.0


@dataclass(frozen=True)
class Pauses:
    """How long to wait between two copies.

    `first_s`, doubled after each failure up to `last_s`, each times 0.5 to 1 at random, so that
    many runners do not come back at the same moment. `rejected_s`: a wrong secret, token or clock
    is corrected by a person, if at all. `certificate_s`: a person may just have agreed to another.
    """

    first_s: float = 0.25
    last_s: float = 30.0
    rejected_s: float = 30.0
    certificate_s: float = 5.0

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        longest_s = min(self.last_s, self.first_s * float(2 ** min(failures, 10)))
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True)
class Policy:
    """When to give up on a request. By default never.

    `max_copies`: after so many copies, whatever became of them. `max_failures`: when the gateway
    has failed on more copies than this. `patience_s`: when the first copy is older.
    `ends_on_rejection`: when secret, token, clock or certificate is wrong; otherwise the
    user has time to correct it. `is_output`: it waits for the budget that is meant for output.
    """

    max_copies: int | None = None
    max_failures: int | None = None
    patience_s: float | None = None
    ends_on_rejection: bool = False
    is_output: bool = False


# Output and the files of a run are worth every outage.
EVENTS: Final = Policy(is_output=True)
FILES: Final = Policy()
# The diff of a command is sent beside the run, and the thread has other commands to execute.
DIFFS: Final = Policy(max_failures=3, ends_on_rejection=True)
# The poller has other commands to look at, and sees this one again at the next poll.
ACK_ONCE: Final = Policy(max_copies=1, ends_on_rejection=True)
# The executor has time, and at the end of the run the last word.
ACK: Final = Policy(max_copies=3, ends_on_rejection=True)
# `sync` does not poll, so nothing else acknowledges the command.
ACK_IN_SYNC: Final = Policy(max_copies=6, ends_on_rejection=True)


def sleep(seconds: float) -> bool:
    """Wait, and never stop: for a sender that is never stopped."""
    time.sleep(seconds)
    return False


def refuse_to_wait(seconds: float) -> bool:
    """Stop where others would wait: for a sender whose thread has something better to do."""
    return seconds > 0


class Sender:
    """Sends requests by one policy, one after the other. Thread: that of its client.

    `wait` waits so many seconds, and returns whether to stop. `explain` is told before each pause
    what stands in the way, except for a single lost answer, which is too common.
    """

    def __init__(
        self,
        client: GatewayClient,
        pacer: Pacer,
        wait: Callable[[float], bool],
        policy: Policy,
        *,
        pauses: Pauses | None = None,
        explain: Callable[[Obstacle], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._pacer = pacer
        self._wait = wait
        self._policy = policy
        self._pauses = pauses or Pauses()
        self._explain = explain
        # Copies in a row that were not taken, also of earlier requests.
        self._failures = 0

    def send(
        self,
        sign: Callable[[], Attempt],
        frozen: Attempt | None = None,
        *,
        judge_failure: Callable[[], bool] = lambda: False,
    ) -> Reply | None:
        """Send copies until the gateway takes the request or refuses it, or the policy gives up.

        `sign` makes a new attempt; if it must survive a crash, `sign` records it. `frozen` is the
        attempt that was recorded last. `judge_failure` is called after each failure of the gateway,
        and says whether to give up, besides the policy. Returns the last answer, or None when told
        to stop. Raises GatewayError for a certificate, if the policy ends on that.
        """
        attempt = first = frozen or sign()
        copies = failures = 0
        while not self.wait_for_turn():
            age_s = attempt.age_s(self._client.clock)
            if age_s >= ATTEMPT_DEAD_S:
                attempt = sign()
            elif age_s >= ATTEMPT_RESEND_LIMIT_S:
                # A copy sent now might arrive too late, or beside one that is still on its way.
                self._wait(min(ATTEMPT_DEAD_S - age_s, _RECONSIDER_S))
            else:
                reply = self._send_copy(attempt)
                if reply is None:
                    continue
                copies += 1
                if reply.outcome.is_taken:
                    self._failures = 0
                    return reply
                is_failure = reply.outcome is Outcome.FAILED
                failures += is_failure
                if self._gives_up(reply, first, copies, failures):
                    return reply
                if is_failure and judge_failure():
                    return reply
                if _needs_signing(reply, attempt):
                    # Before the pause: if the runner is killed in it, no copy of the old attempt
                    # is sent later.
                    attempt = sign()
                if self._pause_after(reply):
                    return None
        return None

    def wait_for_turn(self) -> bool:
        """Wait until the gateway's limit allows a request. Returns whether to stop."""
        while True:
            is_output = self._policy.is_output
            delay_s = self._pacer.output_delay_s() if is_output else self._pacer.blocked_s()
            if self._wait(min(delay_s, _RECONSIDER_S)):
                return True
            if delay_s <= 0:
                return False

    def pause(self) -> bool:
        """Wait, longer after each failure in a row. Returns whether to stop."""
        pause_s = self._pauses.backoff_s(self._failures)
        self._failures += 1
        return self._wait(pause_s)

    def _send_copy(self, attempt: Attempt) -> Reply | None:
        """Return the answer; None if nothing was sent because of the certificate."""
        if self._policy.is_output:
            self._pacer.note_output()
        try:
            reply = self._client.send(attempt)
        except GatewayError as error:
            if self._policy.ends_on_rejection:
                raise
            self._explain(error)
            self._wait(self._pauses.certificate_s)
            return None
        self._pacer.note(reply)
        return reply

    def _gives_up(self, reply: Reply, first: Attempt, copies: int, failures: int) -> bool:
        policy = self._policy
        return (
            reply.outcome is Outcome.REFUSED
            or (policy.ends_on_rejection and reply.outcome.is_rejection)
            or (policy.max_failures is not None and failures > policy.max_failures)
            or (policy.max_copies is not None and copies >= policy.max_copies)
            or (
                policy.patience_s is not None
                and first.age_s(self._client.clock) > policy.patience_s
            )
        )

    def _pause_after(self, reply: Reply) -> bool:
        """Wait as the answer demands. Returns whether to stop."""
        if reply.outcome is Outcome.LIMITED:
            return False  # the pacer knows how long the gateway wants to be left alone
        if reply.outcome is Outcome.UNKNOWN and self._wait(0.0):
            return True  # the exchange was aborted with the stop
        if reply.outcome is not Outcome.UNKNOWN or self._failures:
            self._explain(reply)
        if reply.outcome.is_rejection:
            return self._wait(self._pauses.rejected_s)
        return self.pause()


def _needs_signing(reply: Reply, attempt: Attempt) -> bool:
    """Whether the next copy needs a new nonce; the module's docstring says why."""
    if reply.outcome is Outcome.UNKNOWN and isinstance(attempt.body, MultipartFile):
        return not attempt.body.was_read_whole
    return reply.outcome in (Outcome.FAILED, Outcome.SKEWED)


def acknowledge(
    command: Command,
    spool: Spool,
    client: GatewayClient,
    pacer: Pacer,
    wait: Callable[[float], bool],
    policy: Policy,
) -> bool:
    """Tell the gateway how a command ended. Returns whether it knows now."""
    sender = Sender(client, pacer, wait, policy)
    try:
        reply = sender.send(lambda: client.acknowledge(command.id, command.result, command.error))
    except GatewayError:
        return False
    if reply is None or not reply.outcome.is_taken:
        return False
    spool.acknowledge(command.id)
    return True


class TellOnce:
    """Passes each sentence on once, as long as its cause lasts. `cause` is a word for it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()

    def __call__(self, cause: str, sentence: str) -> None:
        """Tell the user, unless that was done before."""
        if cause not in self._told:
            self._told.add(cause)
            self._tell(sentence)

    def forget(self, cause: str) -> None:
        """Let the sentence be told again when the cause comes back."""
        self._told.discard(cause)

    def forget_all(self) -> bool:
        """Forget every cause. Returns whether there was any."""
        had_any = bool(self._told)
        self._told.clear()
        return had_any


# === The gateway's rate limit =====================================================================
#
# How long a request should wait for its turn.
#
# The gateway says in its headers how many requests are left until its window ends. That budget is
# for everything behind one IP address: output, polls, acknowledgements and uploads of this run,
# other runs, and the operator's browser.
#
# Nothing waits in here; callers are told how long they should.

# A gateway may ask for more patience than the operator of a run has: what is longer than any window
# is not obeyed but asked again after a moment, as a stop must get through.
_MAX_RETRY_AFTER_S: Final = 60.0
_INSTEAD_OF_LONGER_S: Final = 10.0
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

    Every reply of every thread is noted. Output waits for `output_delay_s`, which also keeps back
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
                wait_s = max(self._asked_wait_s(reply), 0.1)
                wait_s = wait_s if wait_s <= _MAX_RETRY_AFTER_S else _INSTEAD_OF_LONGER_S
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
