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
from typing import TYPE_CHECKING, Callable, Final, NamedTuple

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
from local_terminal import shown_size
from spool import FilePart, Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway_client import RateLimit
    from redact import RedactedText, Rules
    from spool_events import FrozenEvent, Totals

# The gateway may ask for more patience than a run's operator has.
_MAX_RETRY_AFTER_S: Final = 60.0
# A gateway that refuses by its rate limit without a word about when: 1 s, doubled up to this.
_MAX_GUESSED_WAIT_S: Final = 30.0
# One failure may be a hiccup; the same event failing this often is looked at more closely.
_FAILURES_BEFORE_SPLIT: Final = 3
# What is refused as too large is cut down to this size, of an event's body or of a file's part.
_SMALLEST_BODY_LIMIT: Final = 16_384
# How far the budget may fall behind its window before output is held back at all.
_BURST_SHARE: Final = 0.3
# With so much of a window left, nobody has to be spared yet.
_FRESH_SHARE: Final = 0.8
# From here on what is left is spread evenly: any faster now, and it would be used up later.
_STEADY_INTERVAL_S: Final = 2.5
# Slower than this, a person who watches takes the run for dead.
_LONGEST_SILENCE_S: Final = 4.0
# How fast what others took is forgotten: some hundred requests of this run later. Any faster, and
# one burst of this run passes for everybody's silence.
_SHARE_MEMORY: Final = 0.99
# However many runs there are, each asks, and sends what it has, within this time.
_SLOWEST_PACE_S: Final = 30.0
# Replies of the same window may differ by a second of rounding.
_WINDOW_SLACK_S: Final = 1.5
# Requests kept back for acknowledgements and a stop, whatever else is going on.
_RESERVED_REQUESTS: Final = 3
# How soon a wait for the budget, or for an attempt to die, is thought over again.
_RECONSIDER_S: Final = 1.0
_IDLE_WAIT_S: Final = 30.0
# How long a run that gives up waits for the answer to what it has sent.
_LAST_ANSWER_S: Final = 0.5
# One uploaded file: the gateway's limit, with room for the frame of a multipart body.
MAX_PART_BYTES: Final = MAX_ARTIFACT_BYTES - 4_096
# How far back from there a part may end, to end with a line.
_LINE_SEARCH_BYTES: Final = 1_048_576


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
    acknowledgements only wait while the gateway refuses everything.

    As long as the budget lasts about as long as its window, output flows at once. The further it
    falls behind, the longer the interval between two events grows, up to an even spread of what is
    left. Several runners behind one address see the same headers: what goes beyond a run's own
    requests is taken by others, and so each learns its share, of output and of questions.
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
        # Requests of late, of this run and of everybody.
        self._own = 1.0
        self._all = 1.0

    def note(self, reply: Reply) -> None:
        """Learn from a reply."""
        now = self._clock()
        with self._lock:
            if reply.rate_limit is not None:
                self._learn_share(reply.rate_limit, now)
                self._limit = reply.rate_limit.limit
                self._remaining = reply.rate_limit.remaining
                self._reset_at = now + reply.rate_limit.reset_s
                self._window_s = max(self._window_s, reply.rate_limit.reset_s)
            if reply.outcome is Outcome.LIMITED:
                self._refusals += 1
                wait_s = min(max(self._asked_wait_s(reply), 0.1), _MAX_RETRY_AFTER_S)
                self._blocked_until = max(self._blocked_until, now + wait_s)
            elif reply.status:
                self._refusals = 0

    def _learn_share(self, told: RateLimit, now: float) -> None:
        """Count who took what since the last reply of the same window."""
        is_same_window = now + told.reset_s < self._reset_at + _WINDOW_SLACK_S
        if self._limit and is_same_window and told.remaining > 0:
            self._own = self._own * _SHARE_MEMORY + 1.0
            self._all = self._all * _SHARE_MEMORY + self._remaining - told.remaining
            self._all = max(self._all, self._own)

    @property
    def _share(self) -> float:
        """The part of what is left that is this run's."""
        return self._own / self._all

    def poll_pause_s(self, interval_s: float) -> float:
        """Return how long to wait between two questions, `interval_s` if nobody else is there."""
        with self._lock:
            return self._poll_pause_s(interval_s)

    def _poll_pause_s(self, interval_s: float) -> float:
        return max(interval_s, self._half_share_s)

    @property
    def _half_share_s(self) -> float:
        """The interval at which half of this run's share of a whole window is used."""
        if not self._limit:
            return 0.0
        return min(2.0 * self._window_s / (self._limit * self._share), _SLOWEST_PACE_S)

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
        """Note that nobody asks for commands any more: output may have the polls' share."""
        with self._lock:
            self._poll_interval_s = None

    def blocked_s(self) -> float:
        """Return how long the gateway will refuse everything."""
        with self._lock:
            return max(0.0, self._blocked_until - self._clock())

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
        """Return the interval between two events that the budget allows."""
        if self._remaining >= self._limit * _FRESH_SHARE:
            return 0.0  # the window has hardly begun, whoever takes how much of it
        share = self._share
        free = self._remaining * share - self._reserved(left_s)
        longest_s = max(_LONGEST_SILENCE_S, self._half_share_s)
        if free < 1:
            return longest_s
        granted = max(1.0, self._limit * share - self._reserved(self._window_s))
        sustainable = granted / self._window_s
        spread_s = left_s / free
        if spread_s >= _STEADY_INTERVAL_S:
            return min(spread_s, longest_s)
        behind = 1.0 - free / left_s / sustainable
        pressure = max(0.0, behind - _BURST_SHARE) / (1.0 - _BURST_SHARE)
        return spread_s * pressure**2

    def _reserved(self, for_s: float) -> float:
        """Return how many requests the other threads will need in that time."""
        interval_s = self._poll_interval_s
        polls = for_s / self._poll_pause_s(interval_s) if interval_s else 0.0
        return _RESERVED_REQUESTS + polls


class Rest(NamedTuple):
    """What the gateway does not have yet, for a sentence: `2.1 MB of output` and `are`."""

    text: str
    verb: str


class Delivery:
    """The poster thread: owns its client. Lifecycle: start, finish or give up, join.

    `tell` gets plain sentences for the user, each at most once while its cause lasts. `done` is
    called when all is delivered, or when delivery was given up or has crashed. `progress_at` is the
    monotonic time at which the gateway last took something.
    """

    def __init__(
        self,
        client: GatewayClient,
        spool: Spool,
        folder: Path,
        pacer: Pacer,
        rules: Rules,
        *,
        tell: Callable[[str], None],
        done: Callable[[BaseException | None], None],
        pauses: Pauses | None = None,
    ) -> None:
        self._client = client
        self._spool = spool
        self._folder = folder
        self._pacer = pacer
        self._rules = rules
        self._tell = tell
        self._done = done
        self._pauses = pauses or Pauses()
        self._told: set[str] = set()
        # Attempts in a row that did not succeed, and those of them that the gateway failed on.
        self._failures = 0
        self._gateway_failures = 0
        # The gateway did something else for this run since the event began to fail.
        self._is_gateway_well = False
        # After a refusal: among so many chunks is one that the gateway does not take.
        self._suspects = 0
        # After a 413: what is known to be too large for whatever stands before the gateway.
        self._max_body_bytes: int | None = None
        self._max_part_bytes = MAX_PART_BYTES
        self._attempt: Attempt | None = None
        self._stopping = threading.Event()
        self._finishing = False
        self.progress_at = time.monotonic()
        self.is_done = False
        self._thread = threading.Thread(target=self._run, name="runner-poster", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def finish(self) -> None:
        """Send the rest, then `finished` with the recorded end, then the files; then be done."""
        self._note_progress()
        self._finishing = True
        self._spool.wake()

    def has_stalled(self, patience_s: float) -> bool:
        """Whether the gateway has taken nothing for so long, without having asked to wait."""
        waited_s = time.monotonic() - self.progress_at
        return waited_s > patience_s + self._pacer.output_delay_s()

    def describe_rest(self) -> Rest:
        """Return what is left: output first, then the files one by one. Thread: any."""
        waiting_bytes = self._spool.pending_bytes()
        upload = self._spool.next_upload()
        if waiting_bytes or upload is None:
            return Rest(f"{shown_size(waiting_bytes)} of output", "are")
        return Rest(upload.part.name, "is")

    def give_up(self) -> None:
        """Leave what is left in the journal. Thread: any but its own; blocks a moment.

        An answer that is just coming is still noted: that a 500 spent the nonce of an attempt
        cannot be found out later.
        """
        self._stopping.set()
        self._spool.wake()
        if self._thread.is_alive():
            self._thread.join(_LAST_ANSWER_S)
        self._client.abort()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, and close its connection."""
        self._thread.join(timeout_s)
        self._client.close()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while not (self._stopping.is_set() or self.is_done):
                is_finishing = self._finishing
                if self._spool.wait_pending(0.0 if is_finishing else _IDLE_WAIT_S):
                    self._send_next()
                elif is_finishing and not self._spool.is_ended:
                    self._append_finished()
                elif is_finishing and not self._upload_next():
                    self._tell_refused()
                    self.is_done = True
        except BaseException as crash:  # noqa: BLE001 - told by its owner; the session goes on
            error = crash
        self._done(error)

    def _append_finished(self) -> None:
        end = self._spool.fact("end")

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
        if outcome.is_taken:
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
        elif outcome.is_rejection:
            self._tell_once(
                "rejected",
                f"the gateway does not accept this run any more ({reply.message}); "
                "output is kept, and tried again every half minute",
            )
            # A nonce is looked at before secret and token: it is not spent, and the attempt as good
            # as before.
            if outcome is Outcome.SKEWED:
                self._sign_afresh()
            self._wait(self._pauses.rejected_s)
        elif outcome is Outcome.REFUSED or self._is_failing_for_good(event):
            self._refused(event, reply)
        else:
            # Before the wait: after a crash in it, a copy with the spent nonce would be taken for
            # one that was accepted.
            self._sign_afresh()
            self._gateway_failures += 1
            self._wait_backoff()

    def _is_failing_for_good(self, event: FrozenEvent) -> bool:
        """Whether the gateway's failures look like the event's fault.

        A part of one that did is cut on at once. But before a single chunk is set aside, the
        gateway must have been well and failed on it again: one that is ill may recover just when
        the notice is sent.
        """
        if event.is_notice or (self._suspects > 0 and event.chunk_count > 1):
            return True
        if self._gateway_failures < _FAILURES_BEFORE_SPLIT:
            return False
        if event.chunk_count > 1 or self._is_gateway_well:
            return True
        reply = self._client.send(self._client.commands())
        self._pacer.note(reply)
        self._is_gateway_well = reply.outcome is Outcome.ACCEPTED
        return False

    def _accepted(self, event: FrozenEvent) -> None:
        self._spool.accept()
        self._suspects = 0 if event.is_notice else max(0, self._suspects - event.chunk_count)
        self._failures = self._gateway_failures = 0
        self._is_gateway_well = False
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
            self._is_gateway_well = False
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
            events = "1 event was" if refused == 1 else f"{refused} events were"
            self._tell(f"{events} refused by the gateway and left out; the log has what it was")

    def _upload_next(self) -> bool:
        """Send the next file or part. False when there is none."""
        upload = self._spool.next_upload()
        if upload is None:
            return False
        if upload.part.size > self._max_part_bytes:
            self._cut_file_smaller(upload.part)
            return True
        file = open_part(self._folder, upload.part, self._note_progress)
        attempt = None
        if upload.nonce is not None and upload.timestamp is not None:
            attempt = self._client.artifact(file, upload.timestamp, upload.nonce)
        problem = send_file(
            self._client,
            file,
            self._pacer,
            self._stopping,
            attempt=attempt,
            freeze=lambda a: self._spool.freeze_upload(upload.id, a.timestamp, a.nonce),
            pauses=self._pauses,
            waits=lambda reason: self._tell_once("upload", f"{upload.part.name} waits: {reason}"),
        )
        smaller_bytes = size_after(problem, upload.part)
        if smaller_bytes is not None:
            self._max_part_bytes = smaller_bytes
            return True
        # What the gateway has is noted even when the run was told to stop meanwhile.
        if problem is None or not self._stopping.is_set():
            self._spool.end_upload(upload.id)
            self._note_progress()
            if problem is not None:
                self._tell(f"{upload.part.name} is not uploaded: {problem.reason}")
        return True

    def _cut_file_smaller(self, part: FilePart) -> None:
        """Cut anew what the gateway does not have of a part's file."""
        done = self._spool.done_parts(part.path)
        parts = file_parts(
            self._folder,
            part.path,
            done[0].name if done else part.name,
            start=part.start,
            number=len(done) + 1,
            max_bytes=self._max_part_bytes,
        )
        self._spool.recut_uploads(part.path, parts)
        self._note_progress()


# --- files ----------------------------------------------------------------------------------------


def file_parts(
    folder: Path,
    path: str,
    name: str,
    *,
    start: int = 0,
    number: int = 1,
    max_bytes: int | None = None,
) -> Iterator[FilePart]:
    """Yield the parts in which a file of the run's folder goes to the gateway.

    One part if it fits; else `name.log`, `name.2.log` and so on, cut at line ends where there are
    any. `start` and `number` are where to go on with a file of which parts were sent. Raises
    OSError.
    """
    size = (folder / path).stat().st_size
    stem, dot, suffix = name.rpartition(".")
    while start < size or number == 1:
        end = _part_end(folder / path, start, size, max_bytes or MAX_PART_BYTES)
        part_name = name if number == 1 else f"{stem}.{number}{dot}{suffix}"
        yield FilePart(path, part_name, start, end - start)
        start, number = end, number + 1


def _part_end(path: Path, start: int, size: int, max_bytes: int) -> int:
    if size - start <= max_bytes:
        return size
    end = start + max_bytes
    search_from = max(start, end - _LINE_SEARCH_BYTES)
    with path.open("rb") as file:
        file.seek(search_from)
        newline = file.read(end - search_from).rfind(b"\n")
    return search_from + newline + 1 if newline >= 0 else end


def open_part(
    folder: Path, part: FilePart, on_progress: Callable[[], None] = lambda: None
) -> MultipartFile:
    """Return the body of a part's upload."""
    return MultipartFile(folder / part.path, part.name, part.start, part.size, on_progress)


class NotTaken(NamedTuple):
    """Why a file is not at the gateway. `is_too_large`: smaller parts of it may be taken."""

    reason: str
    is_too_large: bool = False


def size_after(problem: NotTaken | None, part: FilePart) -> int | None:
    """Return how large the parts of its file may be from now on, if that would help."""
    if problem is None or not problem.is_too_large or part.size <= _SMALLEST_BODY_LIMIT:
        return None
    return max(_SMALLEST_BODY_LIMIT, part.size // 2)


def send_file(
    client: GatewayClient,
    file: MultipartFile,
    pacer: Pacer,
    stopping: threading.Event,
    *,
    attempt: Attempt | None = None,
    freeze: Callable[[Attempt], None] | None = None,
    pauses: Pauses | None = None,
    waits: Callable[[str], None] = lambda _: None,
) -> NotTaken | None:
    """Upload one part, repeating the frozen attempt until it is answered or `stopping` is set.

    `attempt` is one that was frozen before; `freeze` records a new one before it is made, and lets
    a gateway that fails, rejects the run or shows another certificate be tried again and again;
    `waits` is told why. Returns None, or why the file was not taken. Raises nothing.
    """
    sending = _FileSending(client, file, pacer, stopping, freeze, pauses or Pauses(), waits)
    try:
        return sending.send(attempt)
    except GatewayError as error:
        return NotTaken(str(error))
    except OSError as error:
        return NotTaken(f"it cannot be read ({error.strerror})")


class _FileSending:
    """One upload and its repetitions."""

    def __init__(
        self,
        client: GatewayClient,
        file: MultipartFile,
        pacer: Pacer,
        stopping: threading.Event,
        freeze: Callable[[Attempt], None] | None,
        pauses: Pauses,
        waits: Callable[[str], None],
    ) -> None:
        self._client = client
        self._file = file
        self._waits = waits
        self._pacer = pacer
        self._stopping = stopping
        self._freeze = freeze
        self._pauses = pauses
        self._failures = 0

    def send(self, attempt: Attempt | None) -> NotTaken | None:
        """Return None, or why the file was not taken."""
        while not self._stopping.wait(self._pacer.blocked_s()):
            if not self._file.is_there:
                return NotTaken("it is not there any more")
            attempt = attempt or self._sign()
            age_s = attempt.age_s(self._client.clock)
            if age_s >= ATTEMPT_DEAD_S:
                attempt = self._sign()
            elif age_s >= ATTEMPT_RESEND_LIMIT_S:
                self._stopping.wait(min(ATTEMPT_DEAD_S - age_s, _RECONSIDER_S))
                continue
            reply = self._send(attempt)
            self._pacer.note(reply)
            if reply.outcome.is_taken:
                return None
            if self._is_over(reply.outcome):
                reason = f"the gateway refused it ({reply.message})"
                return NotTaken(reason, is_too_large=reply.status == 413)
            # The nonce is spent, or may be, and the file is not there: a gateway looks at the nonce
            # before it has read the file to its end. Before the wait, for a crash may come in it.
            is_cut_off = reply.outcome is Outcome.UNKNOWN and not self._file.was_read_whole
            if is_cut_off or reply.outcome in (Outcome.FAILED, Outcome.SKEWED):
                attempt = self._sign()
            self._pause(reply.outcome)
        return NotTaken("it was broken off")

    def _send(self, attempt: Attempt) -> Reply:
        try:
            reply = self._client.send(attempt)
        except GatewayError as error:  # nothing was sent: another certificate
            if self._freeze is None:
                raise
            self._waits(str(error))
            return Reply(Outcome.UNKNOWN, message=str(error))
        if reply.outcome.is_rejection:
            self._waits(f"the gateway does not accept this run any more ({reply.message})")
        return reply

    def _sign(self) -> Attempt:
        attempt = self._client.artifact(self._file)
        if self._freeze is not None:
            self._freeze(attempt)
        return attempt

    def _is_over(self, outcome: Outcome) -> bool:
        """Whether this gateway will never take it, or nobody would wait for it any longer."""
        if outcome is Outcome.REFUSED:
            return True
        if self._freeze is not None:
            return False
        is_failing = outcome is Outcome.FAILED and self._failures >= _FAILURES_BEFORE_SPLIT
        return is_failing or outcome.is_rejection

    def _pause(self, outcome: Outcome) -> None:
        pauses = self._pauses
        pause_s = pauses.rejected_s if outcome.is_rejection else pauses.backoff_s(self._failures)
        self._stopping.wait(pause_s)
        self._failures += 1
