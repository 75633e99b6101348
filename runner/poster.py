"""The thread that brings the journal to the gateway: events, the end of a run, then the files.

Theory of operation. The poster takes one event at a time from the journal, where it was frozen
before its first attempt, and `runner.attempts` repeats that attempt until the gateway's own answer
says what became of it. While an attempt is under way more output gathers in the journal, and the
next event takes all of it, so a slow gateway gets few, large events. With a fast one a program that
prints without end would make many of a middle size, so behind a large event the next one waits a
moment for more. Behind a small one nothing waits.
When everything is delivered and the run has ended, `finished` is composed from what was accepted,
sent as the last event, and the artifacts follow.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple

from gateway_client import Outcome, Reply, new_nonce
from gateway_transport import CertificateChangedError
from journal.events import MAX_EVENT_UNITS
from runner.attempts import EVENTS, FILES, Obstacle, Sender, TellOnce
from runner.console import shown_size
from runner.mailbox import CertificateRefused, Worker, WorkerEnded, WorkerFailed
from runner.upload import SMALLEST_BODY_BYTES, Uploader

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_client import Attempt, GatewayClient
    from journal.events import FrozenEvent, Totals
    from journal.spool import Spool
    from redact import RedactedText, Rules
    from runner.attempts import Pacer, Pauses

# One failure may be a hiccup; the same event failing this often is looked at more closely.
_FAILURES_BEFORE_SPLIT: Final = 3
_IDLE_WAIT_S: Final = 30.0
# How long a run that gives up waits for the answer to what it has sent.
_LAST_ANSWER_S: Final = 0.5
# From the cut of an event of this size to that of the next one; but nothing waits behind an event
# that is half full, as there is enough for another one.
_LARGE_BYTES: Final = 32_768
_GATHERING_S: Final = 0.1


class Remaining(NamedTuple):
    """What the gateway does not have yet, for a sentence: `2.1 MB of output` and `are`."""

    text: str
    verb: str


class Poster(Worker):
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
        tell_owner: Callable[[CertificateRefused | WorkerFailed | WorkerEnded], object],
        pauses: Pauses | None = None,
    ) -> None:
        super().__init__("poster", tell_owner)
        self._tell_of_certificate = tell_owner
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._tell = tell
        self._tell_once = TellOnce(tell)
        self._finishing = False
        # Until then nothing can have been sent, and that is not the gateway's fault.
        self._is_ready = False
        self._sender = Sender(
            client,
            pacer,
            self._stopping.wait,
            EVENTS,
            pauses=pauses,
            explain=self._explain,
            is_urgent=lambda: spool.is_urgent,
        )
        self._uploader = Uploader(
            client,
            spool,
            folder,
            pacer,
            self._stopping,
            FILES,
            tell=tell,
            on_progress=self._note_progress,
            pauses=pauses,
        )
        # How often the gateway failed on the event in flight.
        self._gateway_failures = 0
        # The gateway did something else for this run since the event began to fail.
        self._is_gateway_well = False
        # After a refusal: among so many chunks is one that the gateway does not take.
        self._suspects = 0
        # After a 413: what is known to be too large for whatever stands before the gateway.
        self._max_body_bytes: int | None = None
        # Until then more output may come for the next event, unless the run ends.
        self._gathers_until = 0.0
        self._is_hurried = threading.Event()
        self.progress_at = time.monotonic()
        self.is_done = False

    def finish(self) -> None:
        """Send the rest, then `finished` with the recorded end, then the files; then be done."""
        self._note_progress()
        self._finishing = True
        self._wake()

    def has_stalled(self, patience_s: float) -> bool:
        """Whether the gateway has taken nothing for so long, without having asked to wait."""
        waited_s = time.monotonic() - self.progress_at
        return self._is_ready and waited_s > patience_s + self._pacer.output_delay_s()

    def describe_remaining(self) -> Remaining:
        """Return what is left: output first, then the files one by one. Thread: any."""
        waiting_bytes = self._spool.pending_bytes()
        upload = self._spool.next_upload()
        if waiting_bytes or upload is None:
            return Remaining(f"{shown_size(waiting_bytes)} of output", "are")
        return Remaining(upload.part.name, "is")

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
        self._is_hurried.set()
        self._spool.wake()

    def _close(self) -> None:
        self._client.close()

    # --- the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        self._open()
        while not (self._stopping.is_set() or self.is_done):
            is_finishing = self._finishing
            if self._spool.wait_pending(0.0 if is_finishing else _IDLE_WAIT_S):
                self._send_next()
            elif is_finishing and not self._spool.is_ended:
                self._append_finished()
            elif is_finishing and not self._uploader.send_next():
                self._tell_refused()
                self.is_done = True

    def _open(self) -> None:
        """Open the client, which takes long the first time, whatever comes of it."""
        try:
            self._client.open()
        finally:
            if not self._is_ready:
                self._note_progress()
                self._is_ready = True

    def _append_finished(self) -> None:
        def compose(totals: Totals) -> RedactedText:
            counted: dict[str, Any] = {
                "events": totals.events,
                "bytes": totals.bytes,
                "sha256": totals.sha256,
                "refused": totals.refused,
            }
            if self._spool.is_whole is not None:
                counted["whole"] = self._spool.is_whole
                counted["lostBytes"] = self._spool.lost_bytes
            return self._rules.redact_json({**self._spool.fact("end"), **counted})

        self._spool.append_last(compose)

    def _send_next(self) -> None:
        """Send the event in flight, or the next one, and act on the answer."""
        self._is_hurried.wait(max(0.0, self._gathers_until - time.monotonic()))
        if self._sender.wait_for_turn():  # before the cut, which takes all that has come meanwhile
            return
        event = self._spool.cut(
            self._now(),
            new_nonce(),
            max_body_bytes=self._max_body_bytes,
            max_chunks=self._suspects or None,
        )
        if event is None:
            return
        is_large = _LARGE_BYTES < event.data_bytes < MAX_EVENT_UNITS // 2
        self._gathers_until = time.monotonic() + _GATHERING_S if is_large else 0.0
        reply = self._sender.send(
            lambda: self._attempt(self._spool.refreeze(self._now(), new_nonce())),
            self._attempt(event),
            judge_failure=lambda: self._judge_failure(event),
        )
        if reply is None:
            return
        if reply.outcome.is_taken:
            self._handle_acceptance(event)
        else:
            self._handle_refusal(event, reply)

    def _attempt(self, event: FrozenEvent) -> Attempt:
        return self._client.event(event.body, event.timestamp, event.nonce)

    def _explain(self, obstacle: Obstacle) -> None:
        if not isinstance(obstacle, Reply):
            self._tell_once(
                "certificate",
                f"{obstacle}. The run goes on; its output is kept, and tried again every few "
                "seconds; what is left at its end is sent by `sync`",
            )
            if isinstance(obstacle, CertificateChangedError):
                self._tell_of_certificate(CertificateRefused(obstacle))
        elif obstacle.outcome is Outcome.UNKNOWN:
            self._tell_once(
                "unreachable",
                f"the gateway cannot be reached ({obstacle.message}); output is kept, and sent "
                "when it answers again",
            )
        elif obstacle.outcome.is_rejection:
            self._tell_once(
                "rejected",
                f"the gateway no longer accepts this run ({obstacle.message}); output is kept, "
                "retrying every 30 s",
            )

    def _judge_failure(self, event: FrozenEvent) -> bool:
        """Say whether to give up, because the gateway's failures look like the event's fault.

        A part of an event that did is cut again at once. But before a single chunk is set aside,
        the gateway must have accepted something and failed on the chunk again: a broken gateway may
        recover just when the notice is sent. So it may send a request, to see how the gateway is.
        """
        if event.is_notice or (self._suspects > 0 and event.chunk_count > 1):
            return True
        self._gateway_failures += 1
        if self._gateway_failures <= _FAILURES_BEFORE_SPLIT:
            return False
        if event.chunk_count > 1 or self._is_gateway_well:
            return True
        reply = self._client.send(self._client.commands())
        self._pacer.note(reply)
        self._is_gateway_well = reply.outcome is Outcome.ACCEPTED
        return False

    def _handle_acceptance(self, event: FrozenEvent) -> None:
        self._spool.accept()
        self._suspects = 0 if event.is_notice else max(0, self._suspects - event.chunk_count)
        self._gateway_failures = 0
        self._is_gateway_well = False
        self._note_progress()
        if self._tell_once.forget_all():
            self._tell("the gateway is back; sending what was kept")

    def _handle_refusal(self, event: FrozenEvent, reply: Reply) -> None:
        """Cut the event smaller, else replace it by a notice, else call the gateway broken."""
        now, nonce = self._now(), new_nonce()
        if event.is_notice:
            self._spool.restore(now, nonce)
            self._gateway_failures = 0
            self._is_gateway_well = False
            self._tell_once(
                "broken",
                f"the gateway rejects every event ({reply.message}); output is kept, retrying",
            )
            self._sender.pause()
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

    def _now(self) -> int:
        return int(self._client.clock.wall())

    def _note_progress(self) -> None:
        self.progress_at = time.monotonic()

    def _tell_refused(self) -> None:
        refused = self._spool.totals().refused
        if refused:
            events = "1 event was" if refused == 1 else f"{refused} events were"
            self._tell(f"{events} rejected by the gateway and left out; the log has the output")
