"""What the operator may do: commands are asked for, checked, and obeyed or passed on.

The poller asks the gateway, decides, and carries out at once what cannot wait: stop, halt, keys for
the session. Commands of the allowlist go to the executor (`runner.executor`), which runs one at a
time, so that a slow one delays neither the output nor a stop.

Every command is written to the journal before anything is done about it. The gateway lists it until
it is acknowledged, so it is seen again and again; what the journal knows is never executed twice.

At the end of the run the poller's exchange is broken off, and the executor has the last word.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from typing import TYPE_CHECKING, Any, Callable, Final, Protocol

from allowlist import MAX_COMMAND_CHARS, Allowlist, Refused
from gateway_client import Outcome
from gateway_transport import CertificateChangedError, GatewayError
from journal.spool import Command, SpoolError
from redact import printable
from runner.attempts import ACK_ONCE, Pauses, TellOnce, acknowledge, refuse_to_wait
from runner.checks import HALT, STOP
from runner.executor import RUN_HAS_ENDED
from runner.mailbox import CertificateRefused, Worker, WorkerEnded, WorkerFailed
from runner.questions import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_client import GatewayClient, Reply
    from journal.spool import Spool
    from redact import RedactedText, Rules
    from runner.attempts import Pacer
    from runner.executor import Executor

_COMMAND_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
# What the gateway sends besides commands to execute.
_ESCAPE: Final = "__ESCAPE__"
_INPUT: Final = "__INPUT__:"
_ANSWER: Final = "__ANSWER__:"
_TAKE_BACK: Final = "__TAKE_BACK__:"
_MODE: Final = "__MODE__:"
# What cannot wait, as an answer names it.
_URGENT: Final = {STOP: "Stop", HALT: "Halt"}
# So much of a refused command is enough to recognise it.
_MAX_SHOWN_CHARS: Final = 200
# Twice as long as any command that is executed.
_MAX_KEPT_CHARS: Final = 2 * MAX_COMMAND_CHARS
# How long a gateway that knows long polls may keep a question open.
_LONG_POLL_S: Final = 20
_POLL_REPLY_S: Final = _LONG_POLL_S + 10.0
# A stop must get through soon after an outage.
_MAX_POLL_PAUSE_S: Final = 10.0
_REJECTED_PAUSE_S: Final = 30.0
# A gateway that lists more than this at once is broken; the rest stays listed. A stop is found
# wherever it stands.
_MAX_COMMANDS_A_POLL: Final = 100
# So many refused commands are recorded and told; more are still refused, but leave nothing behind.
_MAX_RECORDED_REFUSALS: Final = 200
# Malformed commands are told apart by their digests, so that each is counted once.
_MAX_DROPPED: Final = 10_000


class Session(Protocol):
    """What a command may do to the running session. Every method returns at once. Thread: any."""

    @property
    def why_deaf(self) -> str | None:
        """Why it takes nothing that the operator says to it; None if it may."""

    def stop_run(self) -> None:
        """End it gracefully."""

    def halt_run(self) -> None:
        """Kill it."""

    def escape(self) -> str:
        """Interrupt what it does. Returns what was done; raises Refusal."""

    def enter(self, text: str) -> str:
        """Hand it what was typed into an input box. Returns what was done; raises Refusal."""

    def answer(self, text: str) -> str:
        """Give it the JSON of an answer. Returns what was done; raises Refusal."""

    def take_back(self, message_id: str) -> str:
        """Take back a message that it has not read. Returns what was done; raises Refusal."""

    def switch_mode(self, mode: str) -> str:
        """Switch to another permission mode. Returns what was done; raises Refusal."""


class Poller(Worker):
    """The thread that asks for commands. Lifecycle: start, stop, join.

    `tell` gets plain sentences for the user.
    """

    def __init__(
        self,
        client: GatewayClient,
        spool: Spool,
        pacer: Pacer,
        rules: Rules,
        allowlist: Allowlist,
        session: Session,
        executor: Executor,
        *,
        poll_interval_s: float,
        tell: Callable[[str], None],
        tell_owner: Callable[[CertificateRefused | WorkerFailed | WorkerEnded], object],
    ) -> None:
        super().__init__("poller", tell_owner)
        self._tell_of_certificate = tell_owner
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._allowlist = allowlist
        self._session = session
        self._executor = executor
        self._poll_interval_s = poll_interval_s
        self._tell_once = TellOnce(tell)
        self._failures = 0
        self._dropped: set[bytes] = set()
        self._refused_count = 0
        self._can_acknowledge = True

    @property
    def dropped_count(self) -> int:
        """How many malformed commands were ignored."""
        return len(self._dropped)

    def _wake(self) -> None:
        self._client.abort()  # the question that is under way

    def _close(self) -> None:
        self._client.close()

    # --- the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._stopping.wait(self._pacer.blocked_s()):
                self._stopping.wait(self._poll())
        except BaseException:
            if not self._stopping.is_set():
                raise
        finally:
            if self._stopping.is_set():
                self._executor.expect_no_more()

    def _poll(self) -> float:
        """Ask once and obey. Returns how long to pause."""
        asked_at = time.monotonic()
        try:
            reply = self._client.send(self._client.commands(_LONG_POLL_S), _POLL_REPLY_S)
        except GatewayError as error:  # nothing was sent: another certificate
            self._tell_once(
                "rejected", f"remote control waits, a stop by the gateway's page too: {error}"
            )
            if isinstance(error, CertificateChangedError):
                self._tell_of_certificate(CertificateRefused(error))
            return Pauses().certificate_s
        waited_s = time.monotonic() - asked_at
        self._pacer.note(reply, waited_s)
        if reply.outcome is Outcome.ACCEPTED and isinstance(reply.body, list):
            self._failures = 0
            self._tell_once.forget("rejected")
            has_news = self._receive_all(reply.body)
            # An early empty answer means that this gateway has no long poll, and a command that is
            # still being executed stays listed: both times an immediate question would be a flood.
            if waited_s >= _LONG_POLL_S * 0.9:
                return 0.0
            if has_news:  # who has just said something may say more
                return self._poll_interval_s
            return self._pacer.poll_pause_s(self._poll_interval_s)
        return self._pause_after(reply)

    def _pause_after(self, reply: Reply) -> float:
        """Return how long to pause after an answer that is no list of commands."""
        if reply.outcome.is_rejection:
            self._tell_once("rejected", f"the gateway refuses remote control ({reply.message})")
            return _REJECTED_PAUSE_S
        if reply.status == 200:
            self._tell_once(
                "unusable",
                "the gateway's answer to a poll is not a list of commands; asking again",
            )
        self._failures += 1
        pause_s = Pauses(last_s=_MAX_POLL_PAUSE_S).backoff_s(self._failures)
        return max(self._poll_interval_s, pause_s)

    def _receive_all(self, items: Iterable[Any]) -> bool:
        """Obey what is new. Returns whether anything was."""
        items = list(items)
        has_news = False
        commands = [command for command in map(_parse, items) if command is not None]
        for _, text in commands:
            if text == STOP:
                self._session.stop_run()  # before anything that could fail or wait
            elif text == HALT:
                self._session.halt_run()
        self._count_malformed(items)
        commands.sort(key=lambda command: command[1] not in _URGENT)
        self._can_acknowledge = True
        for command_id, text in commands[:_MAX_COMMANDS_A_POLL]:
            try:
                has_news = self._receive(command_id, text) or has_news
            except SpoolError as error:
                # What cannot be recorded is not executed; a stop was carried out before that.
                self._tell_once("journal", f"commands are no longer executed: {error}")
        return has_news

    def _count_malformed(self, items: Iterable[Any]) -> None:
        """Count what is no command; it stays listed, and would be counted again at every poll."""
        for item in items:
            if _parse(item) is None and len(self._dropped) < _MAX_DROPPED:
                self._dropped.add(hashlib.sha256(json.dumps(item).encode()).digest())

    def _receive(self, command_id: str, text: str) -> bool:
        """Obey a command if it is new. Returns whether it was."""
        # What somebody typed, a password perhaps, is handed on and not kept.
        kept = text if self._wish(text) is None else text.partition(":")[0]
        shown = self._shorten(kept, MAX_COMMAND_CHARS)
        if self._refused_count >= _MAX_RECORDED_REFUSALS and text not in _URGENT:
            self._tell_once(
                "refusals", "so many commands were refused that the next ones are not told any more"
            )
            reason = self._why_refused(text)
            if reason is not None:
                error = self._rules.redact(f"refused: {reason}")
                self._acknowledge(Command(command_id, shown, None, error, acknowledged=False))
                return False
            if self._executor.is_full:
                return False  # it stays listed
        known = self._spool.record_command(command_id, shown)
        if known is None:
            self._decide(command_id, text)
        elif known.has_ended:
            self._acknowledge(known)
        return known is None

    def _acknowledge(self, command: Command) -> None:
        """Tell how a command ended. After a failure the rest has to wait for the next poll."""
        if self._can_acknowledge:
            self._can_acknowledge = acknowledge(
                command, self._spool, self._client, self._pacer, refuse_to_wait, ACK_ONCE
            )

    def _decide(self, command_id: str, text: str) -> None:
        if text in _URGENT:
            what = _URGENT[text]
            self._spool.append("info", self._rules.redact(f"{what} requested by the operator"))
            self._answer(command_id, f"{what} initiated")
        elif (wish := self._wish(text)) is not None:
            self._grant(command_id, text.partition(":")[0].strip("_").lower(), wish)
        else:
            decision = self._allowlist.check(text)
            if isinstance(decision, Refused):
                self._refuse(command_id, text, decision.reason)
            elif not self._executor.submit(command_id, decision):
                has_ended = self._stopping.is_set()
                reason = RUN_HAS_ENDED if has_ended else "too many commands are waiting"
                self._refuse(command_id, text, reason)

    def _wish(self, text: str) -> Callable[[], str] | None:
        """Return what a text wants of the session; None if it is a command to be executed."""
        if text == _ESCAPE:
            return self._session.escape
        for prefix, grant in (
            (_INPUT, self._session.enter),
            (_ANSWER, self._session.answer),
            (_TAKE_BACK, self._session.take_back),
            (_MODE, self._session.switch_mode),
        ):
            if text.startswith(prefix):
                return functools.partial(grant, text[len(prefix) :])
        return None

    def _grant(self, command_id: str, what: str, wish: Callable[[], str]) -> None:
        try:
            done = wish()
        except Refusal as refusal:
            self._refuse(command_id, what, str(refusal))
        else:
            self._answer(command_id, done)

    def _why_refused(self, text: str) -> str | None:
        """Return why a command could not be executed at any time; None if it could."""
        if text == _ESCAPE:
            return None
        if self._wish(text) is not None:
            return self._session.why_deaf
        decision = self._allowlist.check(text)
        return decision.reason if isinstance(decision, Refused) else None

    def _refuse(self, command_id: str, text: str, reason: str) -> None:
        self._refused_count += 1
        shown = self._shorten(text, _MAX_SHOWN_CHARS)
        notice = self._rules.redact(f"Refused command: {shown}: {reason}")
        error = self._rules.redact(f"refused: {reason}")
        self._acknowledge(self._spool.end_command(command_id, error=error, notice=notice))

    def _shorten(self, text: str, max_chars: int) -> RedactedText:
        """Return what of a command is kept. Redacted whole: half a secret is not recognised.

        Of what is longer than any command its size alone: some texts take the redaction a second
        for 16 KB, in which no stop is heard.
        """
        if len(text) > _MAX_KEPT_CHARS:
            text = f"[{len(text)} characters]"
        return printable(self._rules.redact(text), max_chars)

    def _answer(self, command_id: str, result: str) -> None:
        self._acknowledge(self._spool.end_command(command_id, result=self._rules.redact(result)))


def _parse(item: Any) -> tuple[str, str] | None:
    """Return the id and the text of a command that has both."""
    if (
        isinstance(item, dict)
        and isinstance(item.get("id"), str)
        and _COMMAND_ID.fullmatch(item["id"])
        and isinstance(item.get("command"), str)
    ):
        return item["id"], item["command"]
    return None
