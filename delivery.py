"""Bringing the journal to the gateway: the pace, the retries, the end of a run, the uploads.

Theory of operation. The poster takes one event at a time from the journal, where it was frozen
before its first attempt, and repeats that attempt byte for byte until the gateway's own answer says
what became of it (see `gateway_client.Outcome`). While an attempt is under way more output gathers
in the journal, and the next event takes all of it: nothing waits for a timer, and a slow gateway
gets few, large events. When everything is delivered and the run has ended, `finished` is composed
from what was accepted, sent as the last event, and the artifacts follow.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Final

from gateway_client import (
    ATTEMPT_DEAD_S,
    ATTEMPT_RESEND_LIMIT_S,
    MAX_ARTIFACT_BYTES,
    Attempt,
    GatewayClient,
    MultipartFile,
    Outcome,
    Reply,
    new_nonce,
)
from gateway_transport import GatewayError
from spool import MAX_EVENT_UNITS, FrozenEvent, Spool

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from redact import Rules

# Backoff between copies of an attempt: 0.25 s doubled to 30 s, each times 0.5 to 1 at random.
_BACKOFF_FIRST_S: Final = 0.25
_BACKOFF_LAST_S: Final = 30.0
# The gateway may ask for more patience than a run's operator has.
_MAX_RETRY_AFTER_S: Final = 60.0
# A wrong secret or token in mid-run is mended by a person, if at all.
_REJECTED_PAUSE_S: Final = 30.0
# One failure may be a hiccup; the same event failing this often is looked at more closely.
_FAILURES_BEFORE_SPLIT: Final = 3
_SMALLEST_SIZE_LIMIT: Final = 16_384
# Output flows freely until this share of the rate limit is left, and is spread after that.
_FREE_SHARE: Final = 0.5
# Requests kept back for acknowledgements and a stop, whatever else is going on.
_RESERVED_REQUESTS: Final = 3
# Room for the frame of a multipart body inside the gateway's limit.
_MULTIPART_BYTES: Final = 1_024


def backoff_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    longest_s = min(_BACKOFF_LAST_S, _BACKOFF_FIRST_S * float(2 ** min(failures, 10)))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


class Pacer:
    """Spreads one run's requests over what the gateway's rate headers leave. Thread: any.

    Every reply is noted, whoever got it. Output asks how long to hold back; polls and
    acknowledgements only wait while the gateway refuses everything.
    """

    def __init__(self, poll_interval_s: float) -> None:
        self._lock = threading.Lock()
        self._poll_interval_s = poll_interval_s
        self._limit = 0
        self._remaining = 0.0
        self._reset_at = 0.0
        self._blocked_until = 0.0
        self._last_output_at = 0.0

    def note(self, reply: Reply) -> None:
        """Learn from a reply."""
        now = time.monotonic()
        with self._lock:
            if reply.rate_limit is not None:
                self._limit = reply.rate_limit.limit
                self._remaining = reply.rate_limit.remaining
                self._reset_at = now + reply.rate_limit.reset_s
            if reply.outcome is Outcome.LIMITED:
                wait_s = reply.retry_after_s
                if wait_s is None:
                    wait_s = reply.rate_limit.reset_s if reply.rate_limit else 1.0
                self._blocked_until = now + min(max(wait_s, 0.1), _MAX_RETRY_AFTER_S)
                self._remaining = 0

    def note_output(self) -> None:
        """Note that an output event is being sent now."""
        with self._lock:
            self._last_output_at = time.monotonic()
            self._remaining -= 1

    def blocked_s(self) -> float:
        """Return how long the gateway will refuse everything."""
        with self._lock:
            return max(0.0, self._blocked_until - time.monotonic())

    def output_delay_s(self) -> float:
        """Return how long the next output event should wait."""
        now = time.monotonic()
        with self._lock:
            blocked_s = max(0.0, self._blocked_until - now)
            left_s = self._reset_at - now
            if left_s <= 0 or self._remaining > self._limit * _FREE_SHARE:
                return blocked_s
            free = self._remaining - left_s / self._poll_interval_s - _RESERVED_REQUESTS
            spread_s = left_s / free if free >= 1 else left_s
            return max(blocked_s, self._last_output_at + spread_s - now)


@dataclass(frozen=True)
class Upload:
    """A file that holds redacted text alone, and the name that it gets at the gateway."""

    path: Path
    name: str


class Delivery:
    """The poster thread: owns its client and the delivery cursor. Lifecycle: start, close, join.

    `tell` gets plain sentences for the user, each at most once. `done` is called when all is
    delivered, or when delivery has crashed.
    """

    def __init__(
        self,
        client: GatewayClient,
        spool: Spool,
        pacer: Pacer,
        rules: Rules,
        *,
        tell: Callable[[str], None],
        done: Callable[[BaseException | None], None],
    ) -> None:
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._tell = tell
        self._done = done
        self._told: set[str] = set()
        self._failures = 0
        self._max_units = MAX_EVENT_UNITS
        self._size_limited = False
        self._attempt: Attempt | None = None
        self._setting_aside = False
        self._stopping = threading.Event()
        self._end: dict[str, Any] | None = None
        self._uploads: Iterable[Upload] = ()
        self.progress_at = time.monotonic()
        self.is_done = False
        self._thread = threading.Thread(target=self._run, name="runner-poster", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def finish(self, end: dict[str, Any], uploads: Iterable[Upload]) -> None:
        """Send the rest, then `finished` with these fields, then the files; then be done."""
        self.progress_at = time.monotonic()
        self._uploads = uploads
        self._end = end
        self._spool.wake()

    def stop(self) -> None:
        """Give up at once; what is left stays in the journal. Thread: any."""
        self._stopping.set()
        self._client.abort()
        self._spool.wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, and close its connection."""
        self._thread.join(timeout_s)
        self._client.close()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while not self._stopping.is_set():
                if self._spool.wait_pending(None if self._end is None else 0.0):
                    self._send_next()
                elif self._end is not None and not self._spool.fact("finished"):
                    self._spool.append_last(self._compose_finished(self._end))
                elif self._end is not None:
                    self._upload_all()
                    self.is_done = not self._stopping.is_set()
                    break
        except BaseException as crash:  # noqa: BLE001 - told by its owner; the session goes on
            error = crash
        self._done(error)

    def _compose_finished(self, end: dict[str, Any]) -> Any:
        totals = self._spool.totals()
        return self._rules.redact_json(
            {
                **end,
                "events": totals.events,
                "bytes": totals.bytes,
                "sha256": totals.sha256,
                "refused": totals.refused,
            }
        )

    def _send_next(self) -> None:
        """Send one copy of the event in flight, or of the next one, and act on the answer."""
        if self._wait(self._pacer.output_delay_s()):
            return
        event = self._spool.cut(int(time.time()), new_nonce(), self._max_units)
        if event is None:
            return
        attempt = self._attempt_for(event)
        if attempt.age_s >= ATTEMPT_RESEND_LIMIT_S:
            # A copy sent now might arrive too late, or beside one that is still on its way.
            if attempt.age_s >= ATTEMPT_DEAD_S:
                self._sign_afresh()
            else:
                self._wait(ATTEMPT_DEAD_S - attempt.age_s)
            return
        self._pacer.note_output()
        try:
            reply = self._client.send(attempt)
        except GatewayError as error:  # nothing was sent: another certificate
            self._tell_once("certificate", str(error))
            self._wait(_REJECTED_PAUSE_S)
            return
        self._pacer.note(reply)
        self._act_on(event, reply)

    def _attempt_for(self, event: FrozenEvent) -> Attempt:
        if self._attempt is None or self._attempt.nonce != event.nonce:
            self._attempt = self._client.event(event.body, event.timestamp, event.nonce)
        return self._attempt

    def _act_on(self, event: FrozenEvent, reply: Reply) -> None:
        outcome = reply.outcome
        if outcome in (Outcome.ACCEPTED, Outcome.REPLAYED):
            self._spool.accept()
            self._accepted(event)
        elif outcome is Outcome.LIMITED:
            pass  # it was not looked at, so the frozen attempt is as good as before
        elif outcome is Outcome.UNKNOWN:
            if self._failures:  # one lost answer is nobody's business
                self._tell_once(
                    "unreachable",
                    f"the gateway cannot be reached ({reply.message}); "
                    "output is kept, and sent as soon as it is back",
                )
            self._wait_backoff()
        elif outcome in (Outcome.WRONG_SECRET, Outcome.WRONG_TOKEN, Outcome.SKEWED):
            self._tell_once(
                "rejected",
                f"the gateway does not accept this run any more ({reply.message}); "
                "output is kept, and tried again every half minute",
            )
            self._wait(_REJECTED_PAUSE_S)
            self._sign_afresh()
        elif outcome is Outcome.REFUSED or self._failures >= _FAILURES_BEFORE_SPLIT:
            self._refused(event, reply)
        else:
            self._wait_backoff()
            self._sign_afresh()

    def _accepted(self, event: FrozenEvent) -> None:
        if "unreachable" in self._told or "rejected" in self._told:
            self._told -= {"unreachable", "rejected"}
            self._tell("the gateway is back; sending what was kept")
        if self._setting_aside:
            self._setting_aside = False
        elif not self._size_limited and event.chunk_count > 1:
            # The event that was split has passed in part; what follows may be whole again.
            self._max_units = MAX_EVENT_UNITS
        self._failures = 0
        self.progress_at = time.monotonic()

    def _refused(self, event: FrozenEvent, reply: Reply) -> None:
        """Cut the event smaller, else let a notice take its place, else call the gateway ill."""
        now, nonce = int(time.time()), new_nonce()
        if self._setting_aside:
            self._setting_aside = False
            self._spool.restore(now, nonce)
            self._tell_once(
                "ill",
                f"the gateway refuses everything ({reply.message}); "
                "output is kept until it is well",
            )
            self._wait_backoff()
        elif event.chunk_count > 1:
            if reply.status == 413:
                self._size_limited = True
                self._max_units = max(_SMALLEST_SIZE_LIMIT, len(event.body) // 2)
            self._spool.cut_smaller(now, nonce)
        else:
            self._setting_aside = True
            notice = f"1 event of {event.data_bytes} bytes was refused by the gateway"
            self._spool.set_aside(self._rules.redact(notice), now, nonce)

    def _sign_afresh(self) -> None:
        self._spool.refreeze(int(time.time()), new_nonce())

    def _wait_backoff(self) -> None:
        self._wait(backoff_s(self._failures))
        self._failures += 1

    def _wait(self, seconds: float) -> bool:
        """Wait, unless stopped. Returns whether it was stopped."""
        return self._stopping.wait(seconds) if seconds > 0 else self._stopping.is_set()

    def _tell_once(self, topic: str, sentence: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            self._tell(sentence)

    def _upload_all(self) -> None:
        for upload in self._uploads:
            problem = send_file(self._client, upload, self._pacer, self._stopping)
            self.progress_at = time.monotonic()
            if problem:
                self._tell(problem)


def send_file(
    client: GatewayClient, upload: Upload, pacer: Pacer, stopping: threading.Event
) -> str | None:
    """Upload one file, repeating the frozen attempt until it is answered or `stopping` is set.

    Returns None, or a sentence that says what became of the file instead. Raises GatewayError.
    """
    size = upload.path.stat().st_size
    if size > MAX_ARTIFACT_BYTES - _MULTIPART_BYTES:
        return f"{upload.name} is not uploaded: {size} bytes are over the gateway's limit of 50 MiB"
    attempt = client.artifact(MultipartFile(upload.path, upload.name))
    failures = 0
    while not stopping.wait(pacer.blocked_s()):
        if attempt.age_s >= ATTEMPT_RESEND_LIMIT_S:
            attempt = client.artifact(MultipartFile(upload.path, upload.name))
        reply = client.send(attempt)
        pacer.note(reply)
        if reply.outcome in (Outcome.ACCEPTED, Outcome.REPLAYED):
            return None
        if reply.outcome in (Outcome.UNKNOWN, Outcome.LIMITED):
            stopping.wait(backoff_s(failures))
        elif reply.outcome is Outcome.FAILED and failures < _FAILURES_BEFORE_SPLIT:
            stopping.wait(backoff_s(failures))
            attempt = client.artifact(MultipartFile(upload.path, upload.name))
        else:
            return f"{upload.name} is not uploaded: the gateway refused it ({reply.message})"
        failures += 1
    return f"{upload.name} is not uploaded: it is kept at {upload.path}"
