"""What Prometheus reads: what was asked, stored and refused, and what waits.

What is told while requests are answered is put aside, and added up when somebody reads it: an event
must not cost more for it. `prometheus_client` is imported only where it is switched on.

It has an address of its own, because then there is nothing to log in to, and the proxy that
everybody comes through does not lead there.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable

PREFIX = "claude_runner_gateway"
OTHER = "other"
# The words of the protocol, and those that a graph is labelled with.
_REASONS = {
    "Missing authentication headers": "unsigned",
    "Request timestamp out of allowed range": "clock",
    "Nonce already used (replay attack detected)": "replay",
    "Invalid signature": "signature",
    "Invalid capability token for run": "token",
    "Capability token mismatch": "token",
    "Run ID required": "no run",
    "Body is not valid JSON": "malformed",
    "Internal Server Error": "malformed",
    "Request body is too large": "too large",
    "File too large": "too large",
}
RATE_LIMIT = "rate limit"
REASONS = (*dict.fromkeys(_REASONS.values()), RATE_LIMIT, OTHER)
_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# So much is put aside before the next request adds it up.
_MAX_ASIDE = 20_000
# Counted in the database, and so not at each reading.
_STATES_KEPT_S = 10.0


def reason_of(error: str) -> str:
    """Return the label of a refusal."""
    return _REASONS.get(error, OTHER)


class _Durations:
    """A histogram's numbers."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_REQUEST_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_REQUEST_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        found, total = [], 0
        for bound, count in zip((*map(str, _REQUEST_S), "+Inf"), self.counts):
            total += count
            found.append((bound, float(total)))
        return found


class Metrics:
    """What was noted. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: deque[tuple[str, int, float | None]] = deque()
        self._written: deque[float] = deque()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, _Durations] = {}
        self._commits = _Durations()
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._events = self._output_bytes = 0  # of the writer's thread

    def answered(self, route: str, status: int, seconds: float | None) -> None:
        """Note an answer; without `seconds` it is of a kind that waits."""
        self._answered.append((route, status, seconds))
        if len(self._answered) > _MAX_ASIDE:
            self.add_up()

    def written(self, seconds: float) -> None:
        """Note what the writer has put on disk at once."""
        self._written.append(seconds)

    def stored(self, texts: Iterator[str]) -> None:
        """Note events. Thread: the writer's."""
        for text in texts:
            self._events += 1
            self._output_bytes += len(text) if text.isascii() else len(text.encode())

    def refused(self, reason: str) -> None:
        """Note a refusal, by one of REASONS."""
        with self._lock:
            self._refused[reason] += 1

    def failed(self, part: str) -> None:
        """Note an error of the database or the files."""
        with self._lock:
            self._errors[part] += 1

    def add_up(self) -> None:
        """Add up what was put aside."""
        with self._lock:
            while self._answered:
                route, status, seconds = self._answered.popleft()
                self._requests[route, status] += 1
                if seconds is not None:
                    self._durations.setdefault(route, _Durations()).add(seconds)
            while self._written:
                self._commits.add(self._written.popleft())

    def collect(self) -> Iterator[Any]:
        """Yield what was noted, as prometheus_client's families."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        self.add_up()
        with self._lock:
            requests = CounterMetricFamily(
                f"{PREFIX}_requests", "Answers, by route and status.", labels=("route", "status")
            )
            for (route, status), count in self._requests.items():
                requests.add_metric((route, str(status)), count)
            took = HistogramMetricFamily(
                f"{PREFIX}_request_seconds", "From a request to its answer.", labels=("route",)
            )
            for route, each in self._durations.items():
                took.add_metric((route,), each.buckets(), each.sum_s)
            commits = HistogramMetricFamily(
                f"{PREFIX}_commit_seconds",
                "Of what is written at once.",
                buckets=self._commits.buckets(),
                sum_value=self._commits.sum_s,
            )
            refusals = CounterMetricFamily(
                f"{PREFIX}_refusals", "Requests of runners that were refused.", labels=("reason",)
            )
            for reason in REASONS:
                refusals.add_metric((reason,), self._refused[reason])
            errors = CounterMetricFamily(
                f"{PREFIX}_errors", "Requests that could not be answered.", labels=("part",)
            )
            for part in ("database", "files", OTHER):
                errors.add_metric((part,), self._errors[part])
        yield from (requests, took, commits, refusals, errors)
        for name, what, number in (
            ("events", "Events that were stored.", self._events),
            ("event_bytes", "Bytes of their data.", self._output_bytes),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", what, value=number)


class _States:
    """The runs by their state, counted now and then."""

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count
        self._at = float("-inf")
        self._known: Mapping[str, int] = {}

    def __call__(self) -> Mapping[str, int]:
        if time.monotonic() - self._at >= _STATES_KEPT_S:
            self._known, self._at = self._count(), time.monotonic()
        return self._known


class _Collector:
    """Reads the numbers of this moment, when it is asked."""

    def __init__(
        self,
        metrics: Metrics,
        gauges: Mapping[str, tuple[str, Callable[[], float]]],
        away: Callable[[], list[str]],
        runs: Callable[[], Mapping[str, int]],
    ) -> None:
        self._metrics = metrics
        self._gauges = gauges
        self._away = away
        self._runs = _States(runs)

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        yield from self._metrics.collect()
        for name, (what, read) in self._gauges.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", what, value=read())
        away = self._away()
        up = GaugeMetricFamily(f"{PREFIX}_up", "Whether a part is there.", labels=("part",))
        for part in ("database", "files"):
            up.add_metric((part,), float(part not in away))
        yield up
        if "database" in away:
            return
        runs = GaugeMetricFamily(f"{PREFIX}_runs", "Runs, by state.", labels=("state",))
        for state, count in self._runs().items():
            if state != "unseen":  # which is of those that are done
                runs.add_metric((state,), count)
        yield runs


@contextmanager
def serving(
    address: tuple[str, int],
    metrics: Metrics,
    gauges: Mapping[str, tuple[str, Callable[[], float]]],
    away: Callable[[], list[str]],
    runs: Callable[[], Mapping[str, int]],
) -> Iterator[None]:
    """Let Prometheus read the numbers at an address. Raises: OSError."""
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(metrics, gauges, away, runs))
    host, port = address
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
