"""Pacing by the gateway's rate limit, by a clock that the test sets: one pacer, and many at once.

The figures that it was decided by are in docs/decisions/0022-one-pace-for-every-run.md.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway_client import Outcome, RateLimit, Reply
from runner.attempts import Pacer, Pauses
from testing.pacing_model import POLL_S, Clock, simulate

WINDOW_S = 60.0


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def pacer(clock: Clock) -> Pacer:
    """A pacer that knows nothing yet."""
    return Pacer(clock)


def accepted(limit: int, remaining: int, reset_s: float = WINDOW_S) -> Reply:
    """Return a reply with the gateway's headers."""
    return Reply(Outcome.ACCEPTED, 200, rate_limit=RateLimit(limit, remaining, reset_s))


def waits_s(clock: Clock, reply: Reply, *, is_ending: bool = False) -> tuple[float, float]:
    """Return how long output and polls of a run wait, just after output, when it got this reply."""
    pacer = Pacer(clock)
    pacer.note(reply)
    pacer.note_output()
    if is_ending:
        pacer.expect_end()
    return pacer.output_delay_s(), pacer.poll_pause_s(0.0)


# --- one pacer ------------------------------------------------------------------------------------


def test_without_headers_nothing_waits(pacer: Pacer) -> None:
    """A gateway that tells no budget has none."""
    pacer.note(Reply(Outcome.ACCEPTED, 200))
    pacer.note_output()

    assert pacer.output_delay_s() == pacer.blocked_s() == 0
    assert pacer.poll_pause_s(POLL_S) == POLL_S


def test_a_fresh_budget_flows(clock: Clock) -> None:
    """The first tenth of a window's requests goes out as fast as a person notices anything."""
    assert waits_s(clock, accepted(100, 100)) == (0, 0)
    assert all(max(waits_s(clock, accepted(100, left))) < 0.2 for left in range(90, 100))


budgets = st.integers(1, 1_000).flatmap(
    lambda limit: st.tuples(st.just(limit), st.integers(0, limit))
)
lefts_s = st.floats(0.0, 59.0)


@given(budgets, st.integers(0, 1_000), lefts_s)
def test_less_budget_is_more_patience(budget: tuple[int, int], less: int, left_s: float) -> None:
    """The less is left, the longer both wait, and never beyond the end of the window.

    Polls have some of the reserve for themselves.
    """
    clock = Clock()
    limit, remaining = budget
    output_s, poll_s = waits_s(clock, accepted(limit, remaining, left_s))
    longer_s, longer_poll_s = waits_s(clock, accepted(limit, max(0, remaining - less), left_s))

    assert 0 <= output_s <= longer_s <= left_s + 1e-6
    assert 0 <= poll_s <= left_s + 1e-6
    assert poll_s <= longer_poll_s or longer_poll_s == left_s / 3


@given(budgets, lefts_s)
def test_the_reserve_is_for_the_end(budget: tuple[int, int], left_s: float) -> None:
    """Output leaves some requests of every window, polls a few; the end uses them, and at once."""
    clock = Clock()
    limit, remaining = budget
    reply = accepted(limit, remaining, left_s)

    reserve = min(8, limit / 5)
    if remaining <= reserve:
        polls = 3 if remaining > reserve * 5 / 8 else 1
        assert waits_s(clock, reply) == pytest.approx((left_s, left_s / polls))
    if remaining > 0:
        assert waits_s(clock, reply, is_ending=True) == (0, 0)
    else:
        assert waits_s(clock, reply, is_ending=True) == pytest.approx((left_s, left_s))


@given(budgets, lefts_s)
def test_what_a_person_waits_for_goes_at_once(budget: tuple[int, int], left_s: float) -> None:
    """It uses what the window has left, and some of the reserve, but nothing of an end's."""
    limit, remaining = budget
    pacer = Pacer(Clock())
    pacer.note(accepted(limit, remaining, left_s))
    pacer.note_output()

    is_there = remaining > min(8, limit / 5) * 5 / 8
    wait_s = 0.0 if is_there else pytest.approx(left_s)
    assert pacer.output_delay_s(is_urgent=True) == wait_s
    assert pacer.output_delay_s() >= pacer.output_delay_s(is_urgent=True)


@given(budgets, st.floats(0.1, 59.0), st.floats(0.0, 100.0))
def test_who_has_waited_may_go(budget: tuple[int, int], left_s: float, later_s: float) -> None:
    """What is told to wait may go when it has, or when the window is over: nobody starves."""
    clock = Clock()
    pacer = Pacer(clock)
    pacer.note(accepted(*budget, left_s))
    pacer.note_output()
    clock.now += later_s
    clock.now += pacer.output_delay_s() + 1e-6

    assert pacer.output_delay_s() == 0
    assert pacer.blocked_s() == 0
    assume(later_s > left_s)
    assert pacer.poll_pause_s(POLL_S) == POLL_S


def test_a_window_without_end_is_asked_about_within_a_minute(clock: Clock) -> None:
    """A stop must get through, whatever a gateway says of its window."""
    assert waits_s(clock, accepted(100, 0, 86_400)) == (60, 60)


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (Reply(Outcome.LIMITED, 429, retry_after_s=7), 7),
        (Reply(Outcome.LIMITED, 429, retry_after_s=0), 0.1),
        (Reply(Outcome.LIMITED, 429, retry_after_s=86_400), 1),
        (Reply(Outcome.LIMITED, 429, rate_limit=RateLimit(100, 0, 9)), 9),
        (Reply(Outcome.LIMITED, 429), 1),
    ],
    ids=["retry-after", "at once", "a day", "reset alone", "nothing said"],
)
def test_a_refusal_blocks_everything(
    pacer: Pacer, clock: Clock, reply: Reply, wait_s: float
) -> None:
    """After a 429 everything waits as long as asked, within reason, the end too, and no longer."""
    pacer.note(reply)
    pacer.expect_end()

    assert pacer.blocked_s() == pytest.approx(wait_s)
    assert pacer.output_delay_s() == pytest.approx(wait_s)
    clock.now += wait_s
    assert pacer.blocked_s() == pytest.approx(0, abs=1e-6)


def test_refusals_without_a_word_are_asked_about_less_and_less(pacer: Pacer, clock: Clock) -> None:
    """A gateway that says 429 and nothing else is not asked every second."""
    waits = []
    for _ in range(7):
        pacer.note(Reply(Outcome.LIMITED, 429))
        waits.append(pacer.blocked_s())
        clock.now += waits[-1]
    pacer.note(Reply(Outcome.ACCEPTED, 200))
    pacer.note(Reply(Outcome.LIMITED, 429))

    assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    assert pacer.blocked_s() == pytest.approx(1.0)


def test_a_late_answer_does_not_tell_of_an_earlier_window(pacer: Pacer, clock: Clock) -> None:
    """A poll that was kept open has the headers of the moment at which it came in."""
    pacer.note(accepted(100, 10, 5))
    pacer.note_output()
    pacer.note(accepted(100, 10, 25), 20.0)

    assert pacer.output_delay_s() <= 5


def test_a_foreign_refusal_leaves_the_budget(pacer: Pacer, clock: Clock) -> None:
    """A 429 without headers, from a proxy, does not use up what the gateway has granted."""
    pacer.note(accepted(100, 99))
    pacer.note(Reply(Outcome.LIMITED, 429, retry_after_s=1))
    clock.now += 1

    assert pacer.output_delay_s() < 0.1


def test_backoff_grows_to_half_a_minute_and_is_jittered() -> None:
    """Many runners that lost the same gateway do not come back in the same moment."""
    waits = [Pauses().backoff_s(failures) for failures in range(40)]

    assert all(0.125 <= wait <= 30.0 for wait in waits)
    assert all(15.0 <= wait <= 30.0 for wait in waits[8:])
    assert len(set(waits)) == len(waits)


# --- runs behind one address ----------------------------------------------------------------------

EVER_S = (1e6, 1e6)


@pytest.mark.parametrize(("limit", "window_s"), [(100, 60.0), (25, 15.0), (600, 60.0)])
def test_a_run_alone(limit: int, window_s: float) -> None:
    """It is never refused, a stop is seen soon, and its end is known within 3 s of the child's.

    Its output never pauses for long; for up to 12 s where the run before has used the window.
    """
    for seed in range(3):
        told = simulate(seed=seed, runs=1, limit=limit, window_s=window_s)

        assert told.refused == 0
        assert max(told.ends_s) <= 3
        assert max(told.stops_s, default=0) <= 6
        assert max(told.silences_s) <= 12
    ever = simulate(seed=1, runs=1, limit=limit, window_s=window_s, lives_s=EVER_S)
    assert max(ever.silences_s) <= 5


@pytest.mark.parametrize(("runs", "silence_s"), [(2, 8), (3, 12), (5, 20), (8, 30)])
def test_runs_share_a_budget(runs: int, silence_s: float) -> None:
    """None of them starves, and a refusal is rare: at most once in a window for each."""
    for seed in range(4):
        told = simulate(seed=seed, runs=runs, lives_s=EVER_S)

        assert max(told.silences_s) <= silence_s
        assert told.refused <= runs * 600 / WINDOW_S / 4


@pytest.mark.parametrize(("limit", "runs"), [(100, 1), (100, 3), (300, 5)])
def test_questions_of_runs_that_print_without_end(limit: int, runs: int) -> None:
    """What a person waits for is there within 3 s, and none of the runs is ever refused."""
    for seed in range(2):
        told = simulate(seed=seed, runs=runs, limit=limit, lives_s=EVER_S, asks=True)

        assert len(told.questions_s) > 15 * runs
        assert max(told.questions_s) <= 3
        assert told.refused == 0


def test_ends_of_runs_that_share_a_budget() -> None:
    """Where five runs come and go, nine of ten ends are known within 3 s."""
    ends_s = [each for seed in range(4) for each in simulate(seed=seed, runs=5).ends_s]

    assert sum(each <= 3 for each in ends_s) >= 0.9 * len(ends_s)
