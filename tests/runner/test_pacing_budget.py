"""The request budget: output is spread over what the gateway's headers leave, and stop comes first.

Seconds are the promise here, so they are judged, from recorded times: the child stamps its lines
with the clock that the gateway's record uses.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import random
from pathlib import Path

import pytest

from gateway_client import Outcome, RateLimit, Reply
from runner.attempts import Pacer
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import RunnerProcess, child, plan
from testing.programs.verdict import judge

LINES = 5_000
PER_SECOND = 250
LONGEST_SILENCE_S = 5.0
STOPPED_WITHIN_S = 6.0
POLL_INTERVAL = {"CLAUDE_RUNNER_POLL_INTERVAL": "2"}


def test_a_tight_budget(tmp_path: Path) -> None:
    """At 25 requests in 15 s, 250 lines a second on two streams arrive without a silence."""
    with StrictGateway(rate_limit=(25, 15.0)) as gateway:
        options = (str(LINES), str(PER_SECOND), "--alternate")
        launch = plan(gateway, child("lines.py", *options), tmp_path, env=POLL_INTERVAL)
        with RunnerProcess(launch) as runner:
            assert runner.wait(60) == 0

        run_id = launch.run.id
        assert judge(gateway, run_id, last=LINES, alternate=True).problems == []
        requests = gateway.requests
        refused = [each.at for each in requests if each.status == 429]
        assert len(refused) <= 5, f"refused after {[at - requests[0].at for at in refused]}"
        arrivals = [each.received_at for each in gateway.events(run_id)]
        silence_s = max(b - a for a, b in zip(arrivals, arrivals[1:]))
        assert silence_s <= LONGEST_SILENCE_S


def test_stop_on_a_tight_budget(tmp_path: Path) -> None:
    """On a budget that output uses up, a stop is served within 6 s."""
    with StrictGateway(rate_limit=(25, 15.0)) as gateway:
        options = ("100000", str(PER_SECOND), "--alternate")
        launch = plan(gateway, child("lines.py", *options), tmp_path, env=POLL_INTERVAL)
        with RunnerProcess(launch) as runner:
            # In the second window, when the runner knows the budget and has no head start.
            gateway.wait_for(lambda: len(gateway.requests) >= 40, 40)
            command_id = gateway.stop(launch.run.id)
            queued_at = max(each.at for each in gateway.requests)
            assert runner.wait(60) == 130

        acks = [r.at for r in gateway.requests if r.endpoint == "ack" and r.status == 200]
        assert list(gateway.acks(launch.run.id)) == [command_id]
        assert acks[0] - queued_at <= STOPPED_WITHIN_S
        last_line = gateway.text(launch.run.id).splitlines()[-1]
        assert float(last_line.split()[1]) - queued_at <= STOPPED_WITHIN_S
        assert judge(gateway, launch.run.id, alternate=True).problems == []


def test_runners_share_a_budget(tmp_path: Path) -> None:
    """Three runners behind one address come through on one budget, and none of them starves."""
    with StrictGateway(rate_limit=(100, 60.0)) as gateway:
        launches = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            command = child("lines.py", "2000", "100")
            launches.append(plan(gateway, command, folder, env=POLL_INTERVAL))
        with contextlib.ExitStack() as stack:
            runners = [stack.enter_context(RunnerProcess(launch)) for launch in launches]
            assert [runner.wait(80) for runner in runners] == [0, 0, 0]

        refused = sum(each.status == 429 for each in gateway.requests)
        assert refused <= 6
        for launch in launches:
            assert judge(gateway, launch.run.id, last=2000).problems == []
            arrivals = [each.received_at for each in gateway.events(launch.run.id)]
            assert max(b - a for a, b in zip(arrivals, arrivals[1:])) <= 10


# --- the pacer alone ------------------------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def pacer(clock: Clock) -> Pacer:
    """A pacer of a run that polls every 2 s."""
    return Pacer(2.0, clock)


def accepted(limit: int, remaining: int, reset_s: float) -> Reply:
    """Return a reply with the gateway's headers."""
    return Reply(Outcome.ACCEPTED, 200, rate_limit=RateLimit(limit, remaining, reset_s))


def test_no_headers_no_delay(pacer: Pacer) -> None:
    """Without headers output is never held back."""
    pacer.note(Reply(Outcome.ACCEPTED, 200))
    pacer.note_output()

    assert pacer.output_delay_s() == 0
    assert pacer.blocked_s() == 0


def test_a_full_budget_flows(pacer: Pacer) -> None:
    """As long as the budget is ahead of the time, output goes out at once."""
    pacer.note(accepted(100, 99, 60))
    pacer.note_output()

    assert pacer.output_delay_s() < 0.01


def test_a_low_budget_is_spread(clock: Clock) -> None:
    """The further the budget falls behind, the longer the interval, but nobody waits for ever."""
    delays = []
    pacer = Pacer(2.0, clock)
    for remaining in (90, 60, 45, 36, 34):
        pacer = Pacer(2.0, clock)  # a new one: to one that is at work, a fall tells of others
        pacer.note(accepted(100, remaining, 60))
        pacer.note_output()
        delays.append(pacer.output_delay_s())

    assert delays == sorted(delays)
    assert 0 < delays[-1] <= 5
    clock.now += delays[-1]
    assert pacer.output_delay_s() == 0


def test_what_others_take_slows_down(clock: Clock) -> None:
    """A run that sees the budget fall faster than by its own requests asks and sends less often."""
    alone, shared = Pacer(2.0, clock), Pacer(2.0, clock)
    for number in range(1, 21):
        alone.note(accepted(100, 60 - number, 40))
        shared.note(accepted(100, 80 - 2 * number, 40))
    for each in (alone, shared):
        each.note_output()

    assert alone.poll_pause_s(1.0) == 1.0
    assert 1.0 < shared.poll_pause_s(1.0) < 2.0
    assert shared.output_delay_s() > alone.output_delay_s()


def test_the_last_requests_are_not_for_output(pacer: Pacer, clock: Clock) -> None:
    """The last few requests of a window are kept for acknowledgements and a stop."""
    pacer.note(accepted(100, 2, 12))

    assert pacer.output_delay_s() == pytest.approx(12)
    assert pacer.blocked_s() == 0
    clock.now += 12
    assert pacer.output_delay_s() == 0


@pytest.mark.parametrize(
    ("reply", "waits_s"),
    [
        (Reply(Outcome.LIMITED, 429, retry_after_s=7), 7),
        (Reply(Outcome.LIMITED, 429, retry_after_s=0), 0.1),
        (Reply(Outcome.LIMITED, 429, retry_after_s=86_400), 10),
        (Reply(Outcome.LIMITED, 429, rate_limit=RateLimit(100, 0, 9)), 9),
        (Reply(Outcome.LIMITED, 429), 1),
    ],
    ids=["retry-after", "no time", "a day", "reset alone", "nothing said"],
)
def test_refusal_blocks_everything(
    pacer: Pacer, clock: Clock, reply: Reply, waits_s: float
) -> None:
    """After a 429 everything waits as long as asked, within reason, and no longer."""
    pacer.note(reply)

    assert pacer.blocked_s() == pytest.approx(waits_s)
    assert pacer.output_delay_s() == pytest.approx(waits_s)
    clock.now += waits_s
    assert pacer.blocked_s() == pytest.approx(0, abs=1e-6)


def test_guesses_grow(pacer: Pacer) -> None:
    """Refused again and again without a word about when, the pacer waits longer each time."""
    waits_s = []
    for _ in range(7):
        pacer.note(Reply(Outcome.LIMITED, 429))
        waits_s.append(round(pacer.blocked_s()))

    assert waits_s == [1, 2, 4, 8, 16, 30, 30]


def test_a_foreign_refusal_leaves_the_budget(pacer: Pacer, clock: Clock) -> None:
    """A 429 without headers, from a proxy, does not use up what the gateway has granted."""
    pacer.note(accepted(100, 99, 60))
    pacer.note(Reply(Outcome.LIMITED, 429, retry_after_s=1))
    clock.now += 1

    assert pacer.output_delay_s() < 0.1


# --- several pacers, one budget -------------------------------------------------------------------


class Bucket:
    """A gateway's fixed window, by a clock that a test sets."""

    def __init__(self, clock: Clock, limit: int, window_s: float) -> None:
        self._clock = clock
        self._limit, self._window_s = limit, window_s
        self._ends_at = 0.0
        self._used = 0
        self.refused = 0

    def take(self) -> Reply:
        """Answer one request."""
        if self._clock.now >= self._ends_at:
            self._ends_at = self._clock.now + self._window_s
            self._used = 0
        self._used += 1
        left_s = max(1, math.ceil(self._ends_at - self._clock.now))
        told = RateLimit(self._limit, max(0, self._limit - self._used), left_s)
        if self._used <= self._limit:
            return Reply(Outcome.ACCEPTED, 200, rate_limit=told)
        self.refused += 1
        return Reply(Outcome.LIMITED, 429, retry_after_s=left_s, rate_limit=told)


@pytest.mark.parametrize(
    ("runs", "limit", "window_s", "silence_s"),
    [
        (1, 100, 60.0, 5),
        (2, 100, 60.0, 16),
        (3, 100, 60.0, 22),
        (5, 100, 60.0, 30),
        (2, 25, 15.0, 9),
    ],
)
def test_pacers_share_a_budget(
    clock: Clock, runs: int, limit: int, window_s: float, silence_s: float
) -> None:
    """Runs that always have output and ask every 2 s spread one budget among them, all the time."""
    dice = random.Random(1)
    bucket = Bucket(clock, limit, window_s)
    pacers = [Pacer(2.0, clock) for _ in range(runs)]
    arrivals: list[list[float]] = [[clock.now] for _ in pacers]
    begin = clock.now
    steps = [(begin + dice.random(), run, what) for run in range(runs) for what in ("send", "poll")]
    heapq.heapify(steps)
    while clock.now < begin + 600:
        clock.now, run, what = heapq.heappop(steps)
        pacer = pacers[run]
        delay_s = pacer.blocked_s() if what == "poll" else min(1.0, pacer.output_delay_s())
        if delay_s <= 0:
            if what == "send":
                pacer.note_output()
            reply = bucket.take()
            pacer.note(reply)
            if what == "send" and reply.outcome is Outcome.ACCEPTED:
                arrivals[run].append(clock.now)
            delay_s = dice.uniform(0.02, 0.08) if what == "send" else pacer.poll_pause_s(2.0)
        heapq.heappush(steps, (clock.now + delay_s, run, what))

    silences_s = [max(b - a for a, b in zip(each, each[1:])) for each in arrivals]
    assert max(silences_s) <= silence_s
    assert bucket.refused <= runs * 600 / window_s
