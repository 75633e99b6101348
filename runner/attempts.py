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
from typing import TYPE_CHECKING, Callable, Final, NamedTuple, Union

from gateway_client import ATTEMPT_DEAD_S, ATTEMPT_RESEND_LIMIT_S, MultipartFile, Outcome, Reply
from gateway_transport import GatewayError

if TYPE_CHECKING:
    from gateway_client import Attempt, GatewayClient
    from journal.spool import Command, Spool

# What stands in the way: the gateway's answer, or a certificate that is not the expected one.
Obstacle = Union[Reply, GatewayError]

# Waits are cut into pieces of this length, because other threads may learn more about the budget.
_RECONSIDER_S: Final = 0.25


class Pauses(NamedTuple):
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


class Policy(NamedTuple):
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
    what stands in the way, except for a single lost answer, which is too common. `is_urgent` says
    whether a person waits for what is sent.
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
        is_urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._pacer = pacer
        self._wait = wait
        self._policy = policy
        self._pauses = pauses or Pauses()
        self._explain = explain
        self._is_urgent = is_urgent
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
            delay_s = self._pacer.blocked_s()
            if self._policy.is_output:
                delay_s = self._pacer.output_delay_s(is_urgent=self._is_urgent())
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
# How long a request should wait for its turn. Nothing waits in here; callers are told how long they
# should. See docs/decisions/0022-one-pace-for-every-run.md, also for where the figures come from.

# Requests of each window that neither output nor polls use: acknowledgements do, and the end of the
# run, which is the rest of both streams, a notice or two, and `finished`. Of a small budget, less.
_RESERVED_REQUESTS: Final = 8
_RESERVED_SHARE: Final = 0.2
# Polls use so much of it, so that a stop does not wait for the next window.
_POLLED_SHARE: Final = 3 / 8
# What a person waits for uses so much of it too; the rest is for ends and acknowledgements.
_URGENT_SHARE: Final = 3 / 8
# On a budget that is almost used up, each thread goes as slowly as if it were one of so many: ten
# runs, which send output and ask for commands.
_SHARERS: Final = 20
# Longer than any window. A gateway may ask for more patience than the operator of a run has: then
# it is asked again, as a stop must get through.
_LONGEST_WAIT_S: Final = 60.0
# A question that waits for a command may be answered 20 s later.
_FRESH_S: Final = 1.0
# After a 429 without a time: 1 s, doubled up to this.
_LONGEST_GUESS_S: Final = 30.0


class Pacer:
    """Spreads one run's requests over the window that the gateway's headers tell of. Thread: any.

    Every reply of every thread is noted. Output waits for `output_delay_s`, and polls pause for
    `poll_pause_s`; other requests only wait for `blocked_s`, after a 429.

    The budget is for everything behind one IP address. Every sender uses it; all runs see the same
    headers and slow down alike, so that none needs to know how many there are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._limit = 0
        self._remaining = 0
        self._reset_at = 0.0
        self._blocked_until = 0.0
        self._last_output_at = 0.0
        self._refusals = 0
        self._is_ending = False

    def note(self, reply: Reply, took_s: float = 0.0) -> None:
        """Learn from a reply. One that came late may tell of the window when it was asked for."""
        now = self._clock()
        budget = reply.rate_limit if took_s < _FRESH_S else None
        with self._lock:
            if budget is not None:
                self._limit, self._remaining = budget.limit, budget.remaining
                self._reset_at = now + min(budget.reset_s, _LONGEST_WAIT_S)
            if reply.outcome is Outcome.LIMITED:
                self._refusals += 1
                self._blocked_until = max(self._blocked_until, now + self._asked_wait_s(reply))
            elif reply.status:
                self._refusals = 0

    def _asked_wait_s(self, reply: Reply) -> float:
        asked_s = reply.retry_after_s
        if asked_s is None and reply.rate_limit is not None:
            asked_s = reply.rate_limit.reset_s
        if asked_s is None or asked_s > _LONGEST_WAIT_S:
            return min(float(2 ** min(self._refusals - 1, 10)), _LONGEST_GUESS_S)
        return max(asked_s, 0.1)

    def note_output(self) -> None:
        """Note that an output event is being sent now."""
        with self._lock:
            self._last_output_at = self._clock()

    def expect_end(self) -> None:
        """Note that nothing is to come but what waits: it goes at once, and uses the reserve."""
        with self._lock:
            self._is_ending = True

    def blocked_s(self) -> float:
        """Return how long the gateway will refuse everything."""
        with self._lock:
            return max(0.0, self._blocked_until - self._clock())

    def poll_pause_s(self, interval_s: float) -> float:
        """Return how long to wait between two polls: `interval_s`, or longer on a low budget."""
        with self._lock:
            left_s, spare = self._budget()
            pace_s = self._pace_s(left_s, spare)
            if -_POLLED_SHARE * self._kept < spare <= 0:
                pace_s = left_s / 3
            return max(interval_s, pace_s)

    def output_delay_s(self, *, is_urgent: bool = False) -> float:
        """Return how long the next output event should wait: not at all where a person waits."""
        with self._lock:
            now = self._clock()
            left_s, spare = self._budget()
            if is_urgent:
                delay_s = 0.0 if spare > -_URGENT_SHARE * self._kept else left_s
            elif spare > 0:
                delay_s = self._pace_s(left_s, spare) - (now - self._last_output_at)
            else:
                delay_s = left_s
            return max(0.0, delay_s, self._blocked_until - now)

    def _budget(self) -> tuple[float, float]:
        """Return how long the window lasts, and how many of its requests may be used."""
        left_s = max(0.0, self._reset_at - self._clock())
        return left_s, self._remaining - self._kept

    @property
    def _kept(self) -> float:
        if self._is_ending:
            return 0.0
        return min(_RESERVED_REQUESTS, self._limit * _RESERVED_SHARE)

    def _pace_s(self, left_s: float, spare: float) -> float:
        """Return the time between two requests: an even pace for all who may share the budget, and
        much less while little of it is used in all.
        """
        if spare <= 0:
            return left_s
        if self._is_ending:
            return 0.0
        used = max(0.0, 1.0 - spare / (self._limit - self._kept))
        return left_s * min(1.0, _SHARERS * used**2 / spare)
