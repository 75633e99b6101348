"""The thread that brings the journal to the gateway: events, the end of a run, then the files.

Theory of operation. The poster takes one event at a time from the journal, where it was frozen
before its first attempt, and repeats that attempt byte for byte until the gateway's own answer says
what became of it (see `gateway_client.Outcome`). While an attempt is under way more output gathers
in the journal, and the next event takes all of it: nothing waits for a timer, and a slow gateway
gets few, large events. When everything is delivered and the run has ended, `finished` is composed
from what was accepted, sent as the last event, and the artifacts follow.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Final, NamedTuple

from gateway_client import ATTEMPT_DEAD_S, ATTEMPT_RESEND_LIMIT_S, Outcome, new_nonce
from gateway_transport import GatewayError
from runner.console import shown_size
from runner.mailbox import Worker, WorkerEnded
from runner.pacing import RECONSIDER_S, Pauses
from runner.upload import (
    MAX_PART_BYTES,
    SMALLEST_BODY_BYTES,
    file_parts,
    open_part,
    send_file,
    size_after,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_client import Attempt, GatewayClient, Reply
    from journal.events import FrozenEvent, Totals
    from journal.spool import FilePart, Spool
    from redact import RedactedText, Rules
    from runner.pacing import Pacer

# One failure may be a hiccup; the same event failing this often is looked at more closely.
_FAILURES_BEFORE_SPLIT: Final = 3
_IDLE_WAIT_S: Final = 30.0
# How long a run that gives up waits for the answer to what it has sent.
_LAST_ANSWER_S: Final = 0.5


class Rest(NamedTuple):
    """What the gateway does not have yet, for a sentence: `2.1 MB of output` and `are`."""

    text: str
    verb: str


class Delivery(Worker):
    """The poster thread: owns its client. Lifecycle: start, finish or give up, join.

    `tell` gets plain sentences for the user, each at most once while its cause lasts. It ends when
    all is delivered, or when delivery was given up or has crashed. `progress_at` is the monotonic
    time at which the gateway last took something.
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
        ended: Callable[[WorkerEnded], object],
        pauses: Pauses | None = None,
    ) -> None:
        super().__init__("poster", ended)
        self._client = client
        self._spool = spool
        self._folder = folder
        self._pacer = pacer
        self._rules = rules
        self._tell = tell
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
        self._finishing = False
        self.progress_at = time.monotonic()
        self.is_done = False

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
        self.stop()
        if self._thread.is_alive():
            self._thread.join(_LAST_ANSWER_S)
        self._client.abort()

    def _wake(self) -> None:
        self._spool.wake()

    def _close(self) -> None:
        self._client.close()

    # --- the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        while not (self._stopping.is_set() or self.is_done):
            is_finishing = self._finishing
            if self._spool.wait_pending(0.0 if is_finishing else _IDLE_WAIT_S):
                self._send_next()
            elif is_finishing and not self._spool.is_ended:
                self._append_finished()
            elif is_finishing and not self._upload_next():
                self._tell_refused()
                self.is_done = True

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
            self._wait(min(ATTEMPT_DEAD_S - age_s, RECONSIDER_S))
        else:
            self._send(event, attempt)

    def _is_held_back(self) -> bool:
        """Wait for the budget, so that what comes meanwhile is merged. Returns whether stopped."""
        while True:
            delay_s = self._pacer.output_delay_s()
            if self._wait(min(delay_s, RECONSIDER_S)):
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
                self._max_body_bytes = max(SMALLEST_BODY_BYTES, len(event.body) // 2)
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
