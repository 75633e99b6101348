"""A model of runs behind one address: a clock, a gateway's fixed window, and the pacer of each run.

    told = simulate(seed=1, runs=3, for_s=600.0)
    assert max(told.silences_s) <= 30

Every run always has output, polls, and ends at any time, by itself or by a stop; another one takes
its place. With `asks`, a person waits for something of each of them several times a minute.
Nothing is sent and nobody waits: an hour takes a second.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Callable

from gateway_client import Outcome, RateLimit, Reply
from runner.attempts import Pacer

POLL_S = 2.0
# What a run still has to send when its child has ended: the last of both streams, a notice, the
# end of the run.
_TAIL_EVENTS = 4
_UPLOADS = 2
# A question, and again its answer: how the run stands, and a marker, behind the output before them.
_ASKED_EVENTS = 2
_ASKED_EVERY_S = (5.0, 40.0)
# How often a thread that waits looks again.
_LOOK_S = 0.25


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Bucket:
    """A gateway's fixed window, which begins with a request, by a clock that a test sets."""

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


@dataclass
class Told:
    """What became of the runs, in seconds: one entry for each wait that somebody noticed."""

    # Between two events of a run while its child lives.
    silences_s: list[float] = field(default_factory=list)
    # From the operator's stop until the runner knows it.
    stops_s: list[float] = field(default_factory=list)
    # From the child's end until the gateway has `finished`.
    ends_s: list[float] = field(default_factory=list)
    # From a question, or its answer, until the gateway has it.
    questions_s: list[float] = field(default_factory=list)
    refused: int = 0
    events: int = 0


class _Run:
    """One run: its threads are generators that yield how long they wait."""

    def __init__(self, model: _Model, lives_s: float, *, is_stopped: bool) -> None:
        self._model = model
        self._clock = model.clock
        self._pacer = Pacer(self._clock)
        self._ends_at = self._clock.now + lives_s
        self._stop_at = self._ends_at if is_stopped else math.inf
        self._ends_at = math.inf if is_stopped else self._ends_at
        self._has_ended = False
        self._asks_at = math.inf
        self._ask_later()

    def start(self) -> Iterator[float]:
        """Ask for the run, then let both threads work."""
        while (reply := self._model.bucket.take()).outcome is not Outcome.ACCEPTED:
            yield reply.retry_after_s or 1.0
        self._model.add(self._poll())
        yield from self._post()

    def _rtt_s(self) -> float:
        return self._model.dice.uniform(0.02, 0.08)

    def _is_over(self) -> bool:
        if self._clock.now >= self._ends_at and not self._has_ended:
            self._has_ended = True
            self._pacer.expect_end()
        return self._has_ended

    def _send(self, delay_s: Callable[[], float]) -> Iterator[float]:
        """Send one request, and again until it is accepted."""
        while True:
            self._is_over()
            if delay_s() > 0:
                yield min(delay_s(), _LOOK_S)
                continue
            reply = self._model.bucket.take()
            yield self._rtt_s()
            self._pacer.note(reply)
            if reply.outcome is Outcome.ACCEPTED:
                return

    def _ask_later(self) -> None:
        if self._model.asks:
            self._asks_at = self._clock.now + self._model.dice.uniform(*_ASKED_EVERY_S)

    def _output_delay_s(self) -> float:
        return self._pacer.output_delay_s(is_urgent=self._clock.now >= self._asks_at)

    def _send_event(self) -> Iterator[float]:
        while self._output_delay_s() > 0:
            self._is_over()
            yield min(self._output_delay_s(), _LOOK_S) + 1e-9
        self._pacer.note_output()
        yield from self._send(self._output_delay_s)
        self._model.told.events += 1

    def _post(self) -> Iterator[float]:
        last_at = self._clock.now
        while not self._is_over():
            yield from self._send_event()
            if self._clock.now >= self._asks_at:
                for _ in range(_ASKED_EVENTS):
                    yield from self._send_event()
                self._model.told.questions_s.append(self._clock.now - self._asks_at)
                self._ask_later()
            if not self._is_over():
                self._model.told.silences_s.append(self._clock.now - last_at)
                last_at = self._clock.now
        for _ in range(_TAIL_EVENTS):
            yield from self._send_event()
        self._model.told.ends_s.append(self._clock.now - self._ends_at)
        for _ in range(_UPLOADS):
            yield from self._send(self._pacer.blocked_s)
        self._model.replace_run()

    def _poll(self) -> Iterator[float]:
        while not self._is_over():
            yield from self._send(self._pacer.blocked_s)
            if self._clock.now >= self._stop_at:
                self._model.told.stops_s.append(self._clock.now - self._stop_at)
                self._stop_at = math.inf
                self._model.add(self._obey())
            pause_s = self._pacer.poll_pause_s(POLL_S)
            until = self._clock.now + pause_s
            while self._clock.now < until and not self._is_over():
                yield min(until - self._clock.now, _LOOK_S) + 1e-9

    def _obey(self) -> Iterator[float]:
        """Acknowledge the stop; the child ends meanwhile."""
        self._ends_at = self._clock.now + self._model.dice.uniform(0.1, 2.0)
        yield from self._send(self._pacer.blocked_s)


class _Model:
    def __init__(
        self,
        seed: int,
        runs: int,
        limit: int,
        window_s: float,
        lives_s: tuple[float, float],
        *,
        asks: bool,
    ) -> None:
        self.asks = asks
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.bucket = Bucket(self.clock, limit, window_s)
        self.told = Told()
        self._lives_s = lives_s
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Iterator[float]]] = []
        for _ in range(runs):
            self.replace_run()

    def add(self, thread: Iterator[float], in_s: float = 0.0) -> None:
        """Let a thread go on after so many seconds."""
        heapq.heappush(self._due, (self.clock.now + in_s, next(self._numbers), thread))

    def replace_run(self) -> None:
        """Let another run begin within ten seconds."""
        run = _Run(self, self.dice.uniform(*self._lives_s), is_stopped=self.dice.random() < 0.5)
        self.add(run.start(), self.dice.uniform(0.0, 10.0))

    def work(self, for_s: float) -> None:
        """Let all threads work for so long."""
        end = self.clock.now + for_s
        while self._due and self.clock.now < end:
            self.clock.now, _, thread = heapq.heappop(self._due)
            for delay_s in thread:
                self.add(thread, delay_s)
                break
        self.told.refused = self.bucket.refused


def simulate(
    *,
    seed: int,
    runs: int,
    limit: int = 100,
    window_s: float = 60.0,
    for_s: float = 600.0,
    lives_s: tuple[float, float] = (20.0, 400.0),
    asks: bool = False,
) -> Told:
    """Let so many runs share a budget for so long, and return what became of them.

    Each of them lives as long as `lives_s` says, from the one to the other.
    """
    model = _Model(seed, runs, limit, window_s, lives_s, asks=asks)
    model.work(for_s)
    return model.told
