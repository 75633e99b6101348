"""The rule for every request: each arrives exactly once, whatever happens to its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway_client import Attempt, Clock, Credentials, GatewayClient, Outcome
from journal.events import encode_event
from runner.attempts import Obstacle, Pacer, Policy, Sender, TellOnce, refuse_to_wait
from testing.gateways.faults import DropAfter, Fault, Html, JsonError, RateLimited
from testing.gateways.strict_gateway import Run, StrictGateway

FOR_EVER = Policy()


class _Bench:
    """A sender whose waits take no time: they put the clocks of client and gateway forward."""

    def __init__(self, gateway: StrictGateway, run: Run) -> None:
        self.gateway = gateway
        self.run = run
        self.ahead_s = 0.0
        begun_at = time.time()
        self.explained: list[Obstacle] = []
        self.signed: list[Attempt] = []
        self.client = GatewayClient(
            gateway.url,
            Credentials(gateway.secret, run.id, run.token),
            clock=Clock(lambda: begun_at + self.ahead_s, lambda: self.ahead_s),
        )

    def sender(
        self, policy: Policy = FOR_EVER, wait: Callable[[float], bool] | None = None
    ) -> Sender:
        pacer = Pacer(self.client.clock.monotonic)
        return Sender(self.client, pacer, wait or self.wait, policy, explain=self.explained.append)

    def wait(self, seconds: float) -> bool:
        self.ahead_s += seconds
        self.gateway.clock_offset_s = self.ahead_s
        return False

    def sign(self) -> Attempt:
        body = encode_event("info", "once", 1)
        self.signed.append(self.client.event(body))
        return self.signed[-1]

    @property
    def nonces(self) -> list[str]:
        """The nonces of all copies, in order."""
        return [each.nonce for each in self.gateway.requests]

    @property
    def stored(self) -> int:
        return len(self.gateway.events(self.run.id))


@pytest.fixture
def bench() -> Iterator[_Bench]:
    """A sender to a new strict gateway."""
    with StrictGateway(rate_limit=None) as gateway, _opened(gateway) as bench:
        yield bench


@contextmanager
def _opened(gateway: StrictGateway) -> Iterator[_Bench]:
    bench = _Bench(gateway, gateway.create_run())
    try:
        yield bench
    finally:
        bench.client.close()


def test_a_lost_answer_is_asked_for_with_the_same_bytes(bench: _Bench) -> None:
    """The gateway has stored it, and says so at the second copy. One lost answer is not told."""
    bench.gateway.faults.add(Fault("event", DropAfter()))

    reply = bench.sender().send(bench.sign)

    assert reply is not None
    assert reply.outcome is Outcome.REPLAYED
    assert len(bench.nonces) == 2
    assert len(bench.signed) == len(set(bench.nonces)) == 1
    assert bench.stored == 1
    assert bench.explained == []


def test_an_attempt_is_not_sent_when_it_may_arrive_too_late(bench: _Bench) -> None:
    """From 280 s no copy is sent, and from 310 s the request is signed anew."""
    ages_s: list[float] = []

    def note_age() -> None:
        ages_s.append(bench.ahead_s - signed_at[-1])

    signed_at: list[float] = []

    def sign() -> Attempt:
        signed_at.append(bench.ahead_s)
        return bench.sign()

    def wait(seconds: float) -> bool:
        if len(bench.gateway.requests) > len(ages_s):
            note_age()
        if len(bench.signed) == 2:
            bench.gateway.faults.clear()
        return bench.wait(seconds)

    bench.gateway.faults.add(Fault("event", Html(502), every=1))
    reply = bench.sender(wait=wait).send(sign)

    assert reply is not None
    assert reply.outcome is Outcome.ACCEPTED
    assert len(bench.signed) == 2
    assert len(ages_s) > 5
    assert all(age_s < 281 for age_s in ages_s)
    assert signed_at[1] - signed_at[0] >= 309  # a timestamp is in whole seconds
    assert bench.stored == 1


def test_after_a_failure_the_request_is_signed_anew(bench: _Bench) -> None:
    """The gateway has remembered the nonce, and stored nothing: a copy would be lost."""
    bench.gateway.faults.add(Fault("event", JsonError(500, after="nonce"), times=2))

    reply = bench.sender().send(bench.sign)

    assert reply is not None
    assert reply.outcome is Outcome.ACCEPTED
    assert len(set(bench.nonces)) == len(bench.signed) == 3
    assert bench.stored == 1


def test_it_is_signed_anew_before_the_pause(bench: _Bench) -> None:
    """A runner that is killed or stopped in the pause leaves no attempt with a spent nonce."""
    bench.gateway.faults.add(Fault("event", JsonError(500, after="nonce"), every=1))

    reply = bench.sender(wait=refuse_to_wait).send(bench.sign)

    assert reply is None
    assert len(bench.nonces) == 1
    assert len(bench.signed) == 2


def test_a_rate_limit_leaves_the_attempt_as_it_is(bench: _Bench) -> None:
    """It was not looked at, so it is sent again, and not before the gateway's time is over."""
    bench.gateway.faults.add(Fault("event", RateLimited(7), times=3))

    reply = bench.sender().send(bench.sign)

    assert reply is not None
    assert reply.outcome is Outcome.ACCEPTED
    assert len(bench.signed) == 1
    assert bench.ahead_s == pytest.approx(21)
    assert bench.explained == []


@pytest.mark.parametrize(
    ("policy", "copies"),
    [(Policy(max_copies=3), 3), (Policy(max_failures=3), 4), (Policy(patience_s=20), None)],
    ids=["copies", "failures", "patience"],
)
def test_a_policy_gives_up(bench: _Bench, policy: Policy, copies: int | None) -> None:
    """What is not worth every outage is tried for a while, and the last answer is returned."""
    bench.gateway.faults.add(Fault("event", JsonError(500), every=1))

    reply = bench.sender(policy).send(bench.sign)

    assert reply is not None
    assert reply.outcome is Outcome.FAILED
    assert copies in (None, len(bench.nonces))
    # A timestamp is in whole seconds, so the first copy may look older than it is.
    assert copies is not None or 19 < bench.ahead_s < 60


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "waits"])
def test_a_rejection_ends_it_or_is_waited_for(bench: _Bench, *, ends: bool) -> None:
    """With the run's own output somebody may correct the token; a lesser request is given up."""
    bench.gateway.faults.add(
        Fault("event", JsonError(403, "Invalid capability token for run"), times=2)
    )

    reply = bench.sender(Policy(ends_on_rejection=ends)).send(bench.sign)

    assert reply is not None
    assert reply.outcome is (Outcome.WRONG_TOKEN if ends else Outcome.ACCEPTED)
    assert len(bench.nonces) == (1 if ends else 3)
    assert len(bench.signed) == 1
    assert bench.ahead_s == pytest.approx(0 if ends else 60)


def test_a_frozen_attempt_goes_on_after_a_crash(bench: _Bench) -> None:
    """The recorded attempt is repeated, so what an earlier process had delivered stays single."""
    raw = encode_event("info", "once", 1)
    before = bench.client.event(raw)
    bench.gateway.faults.add(Fault("event", DropAfter()))
    assert bench.client.send(before).outcome is Outcome.UNKNOWN

    again = bench.client.event(raw, before.timestamp, before.nonce)
    reply = bench.sender().send(bench.sign, again)

    assert reply is not None
    assert reply.outcome is Outcome.REPLAYED
    assert bench.signed == []
    assert bench.stored == 1


def test_a_sentence_is_told_once_while_its_cause_lasts() -> None:
    """And again when the cause comes back."""
    told: list[str] = []
    tell_once = TellOnce(told.append)

    tell_once("a", "A")
    tell_once("a", "A again")
    tell_once("b", "B")
    tell_once.forget("a")
    tell_once("a", "A is back")

    assert told == ["A", "B", "A is back"]
    assert tell_once.forget_all()
    assert not tell_once.forget_all()
