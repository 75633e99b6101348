"""How fast the poster may send: within the gateway's budget, and without silence."""

from __future__ import annotations

import pytest

from gateway_client import Outcome, RateLimit, Reply
from runner.attempts import Pacer, Pauses


class _FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _reply(limit: int, remaining: int, reset_s: float) -> Reply:
    return Reply(Outcome.ACCEPTED, 200, rate_limit=RateLimit(limit, remaining, reset_s))


def test_output_is_not_held_back_while_there_is_budget() -> None:
    """Without headers, and with much left of the window, nothing waits."""
    clock = _FakeClock()
    pacer = Pacer(2.0, clock)
    delays = [pacer.output_delay_s()]
    for remaining in (100, 80):
        pacer.note(_reply(100, remaining, 60.0))
        pacer.note_output()
        delays.append(pacer.output_delay_s())

    assert delays == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (Reply(Outcome.LIMITED, 429, retry_after_s=7.0), 7.0),
        (Reply(Outcome.LIMITED, 429, retry_after_s=0.0), 0.1),
        (Reply(Outcome.LIMITED, 429, retry_after_s=31_536_000.0), 10.0),
        (Reply(Outcome.LIMITED, 429, rate_limit=RateLimit(100, 0, 12.0)), 12.0),
        (Reply(Outcome.LIMITED, 429), 1.0),
    ],
    ids=["retry-after", "at-once", "absurd", "window", "no-word"],
)
def test_a_refusal_by_the_rate_limit_blocks_everything(reply: Reply, wait_s: float) -> None:
    """The gateway's own word is honoured and bounded; without one a second is tried."""
    clock = _FakeClock()
    pacer = Pacer(2.0, clock)
    pacer.note(reply)

    assert pacer.blocked_s() == pytest.approx(wait_s)
    assert pacer.output_delay_s() >= pacer.blocked_s()
    clock.now += wait_s + 0.001
    assert pacer.blocked_s() == 0.0


def test_refusals_without_a_word_are_asked_about_less_and_less() -> None:
    """A gateway that says 429 and nothing else is not asked every second."""
    clock = _FakeClock()
    pacer = Pacer(2.0, clock)
    waits = []
    for _ in range(7):
        pacer.note(Reply(Outcome.LIMITED, 429))
        waits.append(pacer.blocked_s())
        clock.now += waits[-1]
    pacer.note(Reply(Outcome.ACCEPTED, 200))
    pacer.note(Reply(Outcome.LIMITED, 429))

    assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    assert pacer.blocked_s() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("limit", "window_s", "poll_s"), [(100, 60.0, 2.0), (25, 15.0, 2.0), (40, 60.0, 4.0)]
)
def test_the_budget_is_never_overdrawn_and_never_silent(
    limit: int, window_s: float, poll_s: float
) -> None:
    """An endless stream of output keeps flowing, with polls, and meets no refusal."""
    clock = _FakeClock()
    pacer = Pacer(poll_s, clock)
    used, window_ends, next_poll = 0, clock.now + window_s, clock.now
    sent: list[float] = []
    refusals = 0
    end = clock.now + 300.0

    def request() -> None:
        nonlocal used, window_ends, refusals
        if clock.now >= window_ends:
            used, window_ends = 0, clock.now + window_s
        used += 1
        rate = RateLimit(limit, max(0, limit - used), max(1, window_ends - clock.now))
        refusals += used > limit
        outcome = Outcome.ACCEPTED if used <= limit else Outcome.LIMITED
        pacer.note(Reply(outcome, 200 if used <= limit else 429, rate_limit=rate))

    while clock.now < end:
        if clock.now >= next_poll and pacer.blocked_s() == 0:
            request()
            next_poll = clock.now + poll_s
        elif pacer.output_delay_s() <= 0:
            pacer.note_output()
            request()
            sent.append(clock.now)
            clock.now += 0.004
        else:
            clock.now += min(max(pacer.output_delay_s(), 0.001), max(next_poll - clock.now, 0.001))

    assert refusals == 0
    assert max(b - a for a, b in zip(sent, sent[1:])) < 5.0


def test_backoff_grows_to_half_a_minute_and_is_jittered() -> None:
    """Many runners that lost the same gateway do not come back in the same moment."""
    waits = [Pauses().backoff_s(failures) for failures in range(40)]

    assert all(0.125 <= wait <= 30.0 for wait in waits)
    assert all(15.0 <= wait <= 30.0 for wait in waits[8:])
    assert len(set(waits)) == len(waits)
