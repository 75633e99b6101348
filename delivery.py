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
from spool import FrozenEvent, Spool

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from redact import RedactedText, Rules
    from spool import Totals

# The gateway may ask for more patience than a run's operator has.
_MAX_RETRY_AFTER_S: Final = 60.0
# A gateway that refuses by its rate limit without a word about when: 1 s, doubled up to this.
_MAX_GUESSED_WAIT_S: Final = 30.0
# One failure may be a hiccup; the same event failing this often is looked at more closely.
_FAILURES_BEFORE_SPLIT: Final = 3
_SMALLEST_BODY_LIMIT: Final = 16_384
# Output flows freely as long as what is left of the budget would allow an event this often until
# the window ends. Longer, and a person who watches takes the silence for the end.
_STEADY_INTERVAL_S: Final = 2.0
# Requests kept back for acknowledgements and a stop, whatever else is going on.
_RESERVED_REQUESTS: Final = 3
# How soon a wait for the budget, or for an attempt to die, is thought over again.
_RECONSIDER_S: Final = 1.0
_IDLE_WAIT_S: Final = 30.0
# Room for the frame of a multipart body inside the gateway's limit.
_MULTIPART_BYTES: Final = 1_024


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
    acknowledgements only wait while the gateway refuses everything. Pure but for the clock.
    """

    def __init__(self, poll_interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._remaining = 0.0
        self._reset_at = 0.0
        self._blocked_until = 0.0
        self._last_output_at = 0.0
        self._refusals = 0

    def note(self, reply: Reply) -> None:
        """Learn from a reply."""
        now = self._clock()
        with self._lock:
            if reply.rate_limit is not None:
                self._remaining = reply.rate_limit.remaining
                self._reset_at = now + reply.rate_limit.reset_s
            if reply.outcome is Outcome.LIMITED:
                self._refusals += 1
                wait_s = min(max(self._asked_wait_s(reply), 0.1), _MAX_RETRY_AFTER_S)
                self._blocked_until = max(self._blocked_until, now + wait_s)
                # When it lets requests through again, a new window begins.
                self._remaining, self._reset_at = 0, self._blocked_until
            elif reply.status:
                self._refusals = 0

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
            self._remaining -= 1

    def blocked_s(self) -> float:
        """Return how long the gateway will refuse everything."""
        with self._lock:
            return max(0.0, self._blocked_until - self._clock())

    def output_delay_s(self) -> float:
        """Return how long the next output event should wait."""
        with self._lock:
            now = self._clock()
            blocked_s = max(0.0, self._blocked_until - now)
            left_s = self._reset_at - now
            if left_s <= 0:
                return blocked_s
            polls = left_s / self._poll_interval_s
            free = self._remaining - polls - _RESERVED_REQUESTS
            if free * _STEADY_INTERVAL_S > left_s:
                return blocked_s
            interval_s = left_s / free if free >= 1 else left_s
            return max(blocked_s, self._last_output_at + interval_s - now)


@dataclass(frozen=True)
class Upload:
    """A file that holds redacted text alone, and the name that it gets at the gateway."""

    path: Path
    name: str


class Delivery:
    """The poster thread: owns its client and the delivery cursor. Lifecycle: start, finish, join.

    `tell` gets plain sentences for the user, each at most once while its cause lasts. `done` is
    called when all is delivered, or when delivery was stopped or has crashed. `progress_at` is the
    monotonic time at which the gateway last took something.
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
        pauses: Pauses | None = None,
    ) -> None:
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._tell = tell
        self._done = done
        self._pauses = pauses or Pauses()
        self._told: set[str] = set()
        # Attempts in a row that did not succeed, and those of them that the gateway failed on.
        self._failures = 0
        self._gateway_failures = 0
        # After a refusal: among so many chunks is one that the gateway does not take.
        self._suspects = 0
        # After a 413: what is known to be too large for whatever stands before the gateway.
        self._max_body_bytes: int | None = None
        self._attempt: Attempt | None = None
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
        self._note_progress()
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
            while not (self._stopping.is_set() or self.is_done):
                end = self._end
                if self._spool.wait_pending(_IDLE_WAIT_S if end is None else 0.0):
                    self._send_next()
                elif end is not None and self._spool.is_ended:
                    self._tell_refused()
                    self._upload_all()
                    self.is_done = not self._stopping.is_set()
                elif end is not None:
                    self._append_finished(end)
        except BaseException as crash:  # noqa: BLE001 - told by its owner; the session goes on
            error = crash
        self._done(error)

    def _append_finished(self, end: dict[str, Any]) -> None:
        def compose(totals: Totals) -> RedactedText:
            counted = {
                "events": totals.events,
                "bytes": totals.bytes,
                "sha256": totals.sha256,
                "refused": totals.refused,
            }
            return self._rules.redact_json({**end, **counted})

        self._spool.append_last(compose)

    def _send_next(self) -> None:
        """Send one copy of the event in flight, or of the next one, and act on the answer."""
        if self._is_held_back():
            return
        event = self._spool.cut(
            self._now(),
            new_nonce(),
            max_body_bytes=self._max_body_bytes,
            max_chunks=self._suspects or None,
        )
        if event is None:
            return
        attempt = self._attempt_for(event)
        age_s = attempt.age_s(self._client.clock)
        if age_s >= ATTEMPT_DEAD_S:
            self._sign_afresh()
        elif age_s >= ATTEMPT_RESEND_LIMIT_S:
            # A copy sent now might arrive too late, or beside one that is still on its way.
            self._wait(min(ATTEMPT_DEAD_S - age_s, _RECONSIDER_S))
        else:
            self._send(event, attempt)

    def _is_held_back(self) -> bool:
        """Wait for the budget, so that what comes meanwhile is merged. Returns whether stopped."""
        while True:
            delay_s = self._pacer.output_delay_s()
            if self._wait(min(delay_s, _RECONSIDER_S)):
                return True
            if delay_s <= 0:
                return False

    def _attempt_for(self, event: FrozenEvent) -> Attempt:
        if self._attempt is None or self._attempt.nonce != event.nonce:
            self._attempt = self._client.event(event.body, event.timestamp, event.nonce)
        return self._attempt

    def _send(self, event: FrozenEvent, attempt: Attempt) -> None:
        self._pacer.note_output()
        try:
            reply = self._client.send(attempt)
        except GatewayError as error:  # nothing was sent: another certificate
            self._tell_once("certificate", str(error))
            self._wait(self._pauses.rejected_s)
            return
        self._pacer.note(reply)
        if not self._stopping.is_set() or reply.outcome is not Outcome.UNKNOWN:
            self._act_on(event, reply)

    def _act_on(self, event: FrozenEvent, reply: Reply) -> None:
        outcome = reply.outcome
        if outcome in (Outcome.ACCEPTED, Outcome.REPLAYED):
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
            self._wait(self._pauses.rejected_s)
            self._sign_afresh()
        elif outcome is Outcome.REFUSED or self._is_failing_for_good(event):
            self._refused(event, reply)
        else:
            self._gateway_failures += 1
            self._wait_backoff()
            self._sign_afresh()

    def _is_failing_for_good(self, event: FrozenEvent) -> bool:
        """Whether the gateway's failures look like the event's fault.

        A part of one that did is cut on at once; but nothing is set aside after a single failure.
        """
        is_hunted = event.is_notice or (self._suspects > 0 and event.chunk_count > 1)
        return is_hunted or self._gateway_failures >= _FAILURES_BEFORE_SPLIT

    def _accepted(self, event: FrozenEvent) -> None:
        self._spool.accept()
        self._suspects = 0 if event.is_notice else max(0, self._suspects - event.chunk_count)
        self._failures = self._gateway_failures = 0
        self._note_progress()
        if self._told:
            self._told.clear()
            self._tell("the gateway is back; sending what was kept")

    def _refused(self, event: FrozenEvent, reply: Reply) -> None:
        """Cut the event smaller, else let a notice take its place, else call the gateway ill."""
        now, nonce = self._now(), new_nonce()
        if event.is_notice:
            self._spool.restore(now, nonce)
            self._gateway_failures = 0
            self._tell_once(
                "ill",
                f"the gateway refuses everything ({reply.message}); "
                "output is kept until it is well",
            )
            self._wait_backoff()
        elif event.chunk_count > 1:
            if reply.status == 413:
                self._max_body_bytes = max(_SMALLEST_BODY_LIMIT, len(event.body) // 2)
            else:
                self._suspects = event.chunk_count
            self._gateway_failures = 0
            self._spool.cut_smaller(now, nonce, max_body_bytes=self._max_body_bytes)
        else:
            notice = f"1 event of {event.data_bytes} bytes was refused by the gateway"
            self._spool.set_aside(self._rules.redact(notice), now, nonce)

    def _sign_afresh(self) -> None:
        self._spool.refreeze(self._now(), new_nonce())

    def _now(self) -> int:
        return int(self._client.clock.wall())

    def _note_progress(self) -> None:
        self.progress_at = time.monotonic()

    def _wait_backoff(self) -> None:
        self._wait(self._pauses.backoff_s(self._failures))
        self._failures += 1

    def _wait(self, seconds: float) -> bool:
        """Wait, unless stopped. Returns whether it was stopped."""
        return self._stopping.wait(seconds) if seconds > 0 else self._stopping.is_set()

    def _tell_once(self, topic: str, sentence: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            self._tell(sentence)

    def _tell_refused(self) -> None:
        refused = self._spool.totals().refused
        if refused:
            events = "1 event" if refused == 1 else f"{refused} events"
            self._tell(f"the gateway refused {events}; what was in them is in the log alone")

    def _upload_all(self) -> None:
        for upload in self._uploads:
            problem = send_file(
                self._client,
                upload,
                self._pacer,
                self._stopping,
                on_progress=self._note_progress,
                pauses=self._pauses,
            )
            self._note_progress()
            if problem:
                self._tell(problem)


def send_file(
    client: GatewayClient,
    upload: Upload,
    pacer: Pacer,
    stopping: threading.Event,
    *,
    on_progress: Callable[[], None] = lambda: None,
    pauses: Pauses | None = None,
) -> str | None:
    """Upload one file, repeating the frozen attempt until it is answered or `stopping` is set.

    Returns None, or a sentence that says what became of the file instead. Raises nothing.
    """
    try:
        problem = _send_file(client, upload, pacer, stopping, on_progress, pauses or Pauses())
    except GatewayError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{upload.path} cannot be read ({error.strerror})"
    return None if problem is None else f"{upload.name} is not uploaded: {problem}"


def _send_file(
    client: GatewayClient,
    upload: Upload,
    pacer: Pacer,
    stopping: threading.Event,
    on_progress: Callable[[], None],
    pauses: Pauses,
) -> str | None:
    def sign() -> Attempt:
        return client.artifact(MultipartFile(upload.path, upload.name, on_progress=on_progress))

    size = upload.path.stat().st_size
    if size > MAX_ARTIFACT_BYTES - _MULTIPART_BYTES:
        return f"{size} bytes are over the gateway's limit of 50 MiB"
    attempt = sign()
    failures = 0
    while not stopping.wait(pacer.blocked_s()):
        age_s = attempt.age_s(client.clock)
        if age_s >= ATTEMPT_DEAD_S:
            attempt = sign()
        elif age_s >= ATTEMPT_RESEND_LIMIT_S:
            stopping.wait(min(ATTEMPT_DEAD_S - age_s, _RECONSIDER_S))
            continue
        reply = client.send(attempt)
        pacer.note(reply)
        if reply.outcome in (Outcome.ACCEPTED, Outcome.REPLAYED):
            return None
        if reply.outcome is Outcome.FAILED and failures < _FAILURES_BEFORE_SPLIT:
            attempt = sign()
        elif reply.outcome not in (Outcome.UNKNOWN, Outcome.LIMITED):
            return f"the gateway refused it ({reply.message})"
        stopping.wait(pauses.backoff_s(failures))
        failures += 1
    return f"it is kept at {upload.path}"
