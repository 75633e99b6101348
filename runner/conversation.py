"""What a run and the people around it say to each other: questions, answers, and further messages.

A run that asks, or stays, has a `Conversation`. Three threads meet in it, under one lock. The pump
brings the child's messages, writes the child's stdin, and reads the keyboard; the poller brings
what the operator wants; the main thread interrupts, and ends it. The lines for the child wait in
`_outgoing` until the pump has written them, and when the child would do nothing more by itself, its
stdin is closed, which is how such a run ends.

What is told goes to the journal: as markers for a gateway with cards; for any other as `info`,
in at most one event every `_INFO_INTERVAL_S`, since requests are scarce there. Which questions are
open is a fact of the journal, so that `sync` can take their cards back after a crash.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple, Protocol

from kinds.dialogue import Asked, Noted, Owed, Taken, Withdrawn
from kinds.profile import WAITING, WORKING, Piece
from kinds.text_layout import FAILURE, PERSON, SIGNS
from redact import join
from runner.console import shown_time
from runner.questions import (
    MAX_LINE_CHARS,
    MAX_SHOWN_CHARS,
    Answer,
    Questions,
    Refusal,
    at_keyboard,
    describe,
    marker_fields,
    one_line,
    pick,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kinds.dialogue import Dialogue, News
    from redact import RedactedText, Rules
    from runner.questions import OpenQuestion

# Where no card is shown, what is told waits this long, and goes together with what follows.
_INFO_INTERVAL_S: Final = 3.0
# After the end of a task in the background, Claude Code begins a turn within this, or never.
_TURN_PATIENCE_S: Final = 2.0
# A person takes longer to read a question: what is typed sooner was meant for something else.
_READING_S: Final = 0.3
_SAID_OF: Final = {"allow": "allowed", "deny": "denied", "answers": "answered"}
# A second Ctrl-C within this ends the run, whatever became of the turn meanwhile.
_SECOND_INTERRUPT_S: Final = 3.0
_MAX_MESSAGE_CHARS: Final = 100_000
_MAX_WAITING_MESSAGES: Final = 100
# So much of a message is enough to recognise it.
_SHOWN_CHARS: Final = 500

OPERATOR: Final = "operator"
KEYBOARD: Final = "keyboard"
TIME_LIMIT: Final = "time limit"


class Asking(NamedTuple):
    """Who may answer and talk, and for how long. Units: `_s` is seconds; None is no limit.

    `modes` are the permission modes that the operator may switch to. `has_cards`: the gateway
    shows questions as cards.
    """

    remote: bool = False
    local: bool = False
    remote_input: bool = False
    timeout_s: float | None = None
    stay_s: float | None = None
    modes: tuple[str, ...] = ()
    has_cards: bool = False


class Journal(Protocol):
    """The journal of the run, as far as a conversation writes to it."""

    def append(
        self,
        stream: str,
        text: RedactedText,
        fact: tuple[str, Any] | None = None,
        *,
        is_urgent: bool = False,
    ) -> object:
        """Keep text of one stream, in order, and with it a fact of the run."""

    def put_fact(self, name: str, value: Any) -> None:
        """Keep a fact of the run."""


class _Message(NamedTuple):
    """A message of a person that the child has not read yet."""

    text: str
    by: str
    # If it waits for a turn: how many had ended before.
    waits_since: int | None


def withdrawal(question_id: str, *, has_cards: bool, rules: Rules) -> tuple[str, RedactedText]:
    """Return the event that withdraws a question of a run that is over."""
    if has_cards:
        fields = {"event": "withdrawn", "id": question_id, "reason": "ended"}
        return "marker", rules.redact_json(fields)
    return "info", rules.redact("a question was not answered, because the run has ended")


class Conversation:
    """The talk of one run. Thread: any; each call holds the lock and returns at once.

    `show` prints lines for the person at the terminal; `wake` lets the pump look again.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        asking: Asking,
        rules: Rules,
        journal: Journal,
        *,
        show: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self.asking = asking
        self._dialogue = dialogue
        self._rules = rules
        self._journal = journal
        self._show = show
        self._wake = wake
        self._lock = threading.RLock()
        max_chars = MAX_SHOWN_CHARS if asking.has_cards else MAX_LINE_CHARS
        self._questions = Questions(rules, asking.modes, max_chars)
        self._messages: dict[str, _Message] = {}
        self._outgoing = bytearray()
        self._is_closed = False
        self._is_ending = False
        self._idle_since: float | None = None
        self._interrupted_at = float("-inf")
        self._is_interrupting = False
        self._infos: list[RedactedText] = []
        self._info_due: float | None = None
        # The question at the keyboard, and the parts of it that are answered.
        self._at_keyboard: OpenQuestion | None = None
        self._picked: list[str] = []
        # The runner's own question, which comes first: how to answer it, and what takes a line.
        self._other_question: tuple[str, Callable[[str], object]] | None = None
        self._is_invited = False
        self._invite_at = 0.0

    # --- the pump's side -------------------------------------------------------------------------

    def begin(self, prompt: str) -> None:
        """Say the prompt."""
        with self._lock:
            self._send(self._dialogue.say(str(uuid.uuid4()), prompt))

    def read(self, message: Mapping[str, Any]) -> list[Piece]:
        """Take a message of the child's. Returns lines to show beside its own text."""
        with self._lock:
            return [piece for news in self._dialogue.read(message) for piece in self._note(news)]

    def read_foreign(self, raw: bytes) -> None:
        """Take the beginning of a line that is not a message."""
        with self._lock:
            for news in self._dialogue.read_foreign(raw):
                list(self._note(news))

    @property
    def is_waiting(self) -> bool:
        """Whether the child waits for a person."""
        with self._lock:
            return len(self._questions) > 0 or self._idle_since is not None

    @property
    def state(self) -> str:
        """Whether the child works or waits, as the gateway is told. A card tells for itself that
        it waits, and with its answer that it does not.
        """
        with self._lock:
            is_told = self.asking.has_cards and self._idle_since is None
            return WAITING if self.is_waiting and not is_told else WORKING

    @property
    def outgoing(self) -> bytes:
        """What is to be written to the child's stdin next."""
        with self._lock:
            return bytes(self._outgoing[:65_536])

    def written(self, count: int) -> None:
        """Note that so many bytes of `outgoing` were written."""
        with self._lock:
            del self._outgoing[:count]

    @property
    def is_over(self) -> bool:
        """Whether the child's stdin is to be closed, since all was written and nothing follows."""
        with self._lock:
            return self._is_closed and not self._outgoing

    def due_at(self) -> float | None:
        """Return when `tick` has something to do, by the monotonic clock."""
        with self._lock:
            dues = [] if self._info_due is None else [self._info_due]
            if not self._is_closed:
                dues += [each.due_at for each in self._questions if each.due_at is not None]
                if self._is_asked and not self._is_invited:
                    dues.append(self._invite_at)
                if self._idle_since is not None:
                    dues.append(self._idle_since + self._patience_s())
            return min(dues, default=None)

    def tick(self, now: float) -> None:
        """Do what is due: deny unanswered questions, send the news, end finished turns."""
        with self._lock:
            if self._info_due is not None and now >= self._info_due:
                self._tell_infos(now)
            if self._is_closed:
                return
            for opened in self._questions:
                if opened.due_at is not None and now >= opened.due_at:
                    limit = shown_time(self.asking.timeout_s or 0.0)
                    message = f"No answer within {limit} (--ask-timeout)."
                    self._answer(opened, Answer("deny", message), TIME_LIMIT)
            self._is_interrupting = self._is_interrupting and not self._dialogue.is_done
            self._look_for_end(now)

    def _look_for_end(self, now: float) -> None:
        """Close the child's stdin when it would do nothing more, and no person is waited for."""
        if len(self._questions) or not self._dialogue.is_done:
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
            if self.asking.stay_s is not None:
                limit = shown_time(self.asking.stay_s)
                self._show(f"waiting {limit} for a message; Ctrl-C ends the run")
        if now >= self._idle_since + self._patience_s():
            self._is_closed = True
            self._idle_since = None

    def _patience_s(self) -> float:
        """Return how long an idle run is kept open."""
        patience_s = _TURN_PATIENCE_S if self._dialogue.awaits_turn else 0.0
        return max(patience_s, self.asking.stay_s or 0.0)

    # --- the keyboard, by the pump ---------------------------------------------------------------

    @property
    def wants_keyboard(self) -> bool:
        """Whether a line of the keyboard means something now."""
        with self._lock:
            if self._at_keyboard is not None or self._other_question is not None:
                return self._is_invited
            return self.asking.stay_s is not None and not self._is_closed

    def ask_keyboard(self, now: float) -> bool:
        """Show the question that the keyboard is to answer. Whether it may be answered from now on.

        What was typed until then was typed before it could be read, and is to be thrown away; then
        `invite` says what can be typed.
        """
        with self._lock:
            if self._other_question is None and self._at_keyboard is None and self.asking.local:
                opened = next(iter(self._questions), None)
                if opened is not None:
                    self._picked = []
                    self._show_at_keyboard(opened, now)
            return self._is_asked and not self._is_invited and now >= self._invite_at

    @property
    def _is_asked(self) -> bool:
        return self._at_keyboard is not None or self._other_question is not None

    def lend_keyboard(self, invitation: str, take: Callable[[str], object]) -> None:
        """Let the keyboard answer a question of the runner's own first; it was shown already.

        `invitation` says what can be typed. Each line goes to `take`, until `get_keyboard_back`.
        """
        with self._lock:
            self._other_question = invitation, take
            self._at_keyboard, self._is_invited = None, False
            self._invite_at = time.monotonic() + _READING_S
            self._wake()

    def get_keyboard_back(self) -> None:
        """Repeat the last question."""
        with self._lock:
            self._other_question = None
            self._wake()

    def _show_at_keyboard(self, opened: OpenQuestion, now: float) -> None:
        self._at_keyboard, self._is_invited = opened, False
        self._invite_at = now + _READING_S
        self._show(at_keyboard(opened, len(self._picked))[0])

    def invite(self) -> None:
        """Say what can be typed; from now on it counts."""
        with self._lock:
            self._is_invited = True
            if self._other_question is not None:
                self._show(self._other_question[0])
            elif self._at_keyboard is not None:
                self._show(at_keyboard(self._at_keyboard, len(self._picked))[1])

    def type_line(self, line: str) -> None:
        """Take a line of the keyboard."""
        with self._lock:
            opened = self._at_keyboard
            try:
                if not line.strip():
                    pass
                elif self._other_question is not None:
                    self._other_question[1](line)
                elif opened is not None:
                    self._answer_typed(opened, line.strip())
                else:
                    self._show(self._enter(line.rstrip("\n"), KEYBOARD))
            except Refusal as refusal:
                self._show(f"  {refusal}")

    def _answer_typed(self, opened: OpenQuestion, line: str) -> None:
        choices = opened.question.choices
        if choices:
            self._picked.append(pick(choices[len(self._picked)], line))
            if len(self._picked) < len(choices):
                self._show_at_keyboard(opened, time.monotonic())
                return
            answer = Answer("allow", words=tuple(self._picked))
        elif line.lower() in ("y", "yes", "a"):
            if not opened.is_whole:
                raise Refusal("it is too long to be shown whole, so it can only be denied")
            scope = next(iter(opened.scopes.values()), None)
            if line.lower() == "a" and scope is None:
                raise Refusal("it can be allowed once only: y")
            answer = Answer("allow", scope=scope if line.lower() == "a" else None)
        else:
            answer = Answer("deny", "" if line.lower() in ("n", "no") else line)
        self._answer(opened, answer, KEYBOARD)

    # --- the operator; each returns what was done, or raises Refusal -----------------------------

    def answer(self, text: str) -> str:
        """Take the JSON of an answer."""
        with self._lock:
            self._require_remote()
            return self._answer(*self._questions.read_answer(text), OPERATOR)

    def enter(self, text: str) -> str:
        """Take what was typed into an input box: an answer with its code, or a message."""
        with self._lock:
            text = text.rstrip("\r\n")  # what some pages end a line with
            given = self._questions.read_line(text)
            if given is not None:
                self._require_remote()
                return self._answer(*given, OPERATOR)
            if not self.asking.remote_input:
                raise Refusal("remote input is not allowed (CLAUDE_RUNNER_ALLOW_REMOTE_INPUT)")
            return self._enter(text, OPERATOR)

    def take_back(self, message_id: str) -> str:
        """Ask for a message that the child has not read."""
        with self._lock:
            if message_id not in self._messages or not self.asking.remote_input:
                raise Refusal("no such message is waiting")
            self._send(self._dialogue.take_back(message_id))
            return "asked for the message back; older releases of Claude Code keep it"

    def switch_mode(self, mode: str) -> str:
        """Switch to another permission mode."""
        with self._lock:
            self._require_remote()
            if mode not in self.asking.modes:
                allowed = ", ".join(self.asking.modes) or "none"
                raise Refusal(f"this mode is not allowed from afar; allowed: {allowed}")
            self._require_open()
            self._send(self._dialogue.set_mode(mode))
            return f"Mode: {mode}"

    def interrupt(self) -> str:
        """Break off the running turn."""
        with self._lock:
            self._require_open()
            if self._dialogue.is_done:
                raise Refusal("nothing is running that could be interrupted")
            self._interrupted_at, self._is_interrupting = time.monotonic(), True
            self._send(self._dialogue.interrupt())
            return "Interrupt sent"

    def _require_remote(self) -> None:
        if not self.asking.remote:
            raise Refusal("remote answers are not allowed (CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS)")

    def _require_open(self) -> None:
        if self._is_closed:
            raise Refusal("the run is ending")

    # --- the main thread -------------------------------------------------------------------------

    def interrupt_by_key(self) -> bool:
        """Break off the turn of a run that stays; False if Ctrl-C is to end the run."""
        with self._lock:
            is_second = time.monotonic() < self._interrupted_at + _SECOND_INTERRUPT_S
            if self.asking.stay_s is None or is_second:
                return False
            try:
                self.interrupt()
            except Refusal:
                return False
            self._show("interrupting the turn; press Ctrl-C again to end the run")
            return True

    @property
    def was_interrupted(self) -> bool:
        """Whether the last turn that has ended was broken off."""
        with self._lock:
            return self._dialogue.was_interrupted

    def expect_end(self) -> None:
        """Note that the run is being ended, so that what Claude Code withdraws ends with it."""
        with self._lock:
            self._is_ending = True

    def end(self) -> None:
        """Withdraw every question, since the run is over. Idempotent."""
        with self._lock:
            self._is_closed = True
            for opened in self._questions:
                self._withdraw(opened, "ended")
            self._tell_infos(time.monotonic())

    # --- what happens ----------------------------------------------------------------------------

    def _note(self, news: News) -> Iterator[Piece]:
        if isinstance(news, Owed):
            self._send(news.line)
        elif isinstance(news, Asked):
            self._open(news)
        elif isinstance(news, Withdrawn):
            opened = self._questions.find(news.key)
            if opened is not None:
                was_interrupted = self._is_interrupting
                reason = "interrupted" if was_interrupted else "answered elsewhere"
                self._withdraw(opened, "ended" if self._is_ending else reason)
        elif isinstance(news, Taken):
            yield from self._take(news)
        elif isinstance(news, Noted):
            yield Piece(visible(news.text), FAILURE, is_apart=True)

    def _open(self, news: Asked) -> None:
        asking = self.asking
        due_at = None if asking.timeout_s is None else time.monotonic() + asking.timeout_s
        try:
            opened = self._questions.open(news.question, due_at)
        except Refusal as refusal:
            self._send(self._dialogue.deny(news.question, str(refusal)))
            return
        if opened is None:
            return
        self._tell(marker_fields(opened), one_line(opened, self._rules, is_remote=asking.remote))
        if not asking.local:
            self._show(f"? {describe(opened)}: answer it on the gateway's page ({opened.code})")
        self._wake()

    def _answer(self, opened: OpenQuestion, answer: Answer, by: str) -> str:
        self._require_open()
        question = opened.question
        if answer.decision == "allow":
            line = self._dialogue.allow(question, answer.words, answer.scope)
        else:
            line = self._dialogue.deny(question, answer.message)
        decision = answer.shown_decision
        fields = {"event": "answered", "id": opened.id, "decision": decision, "by": by}
        fields.update({"scope": visible(answer.scope.label)} if answer.scope else {})
        fields.update({"message": visible(answer.message)} if answer.message else {})
        told = f"{opened.code}: {_SAID_OF[decision]} by the {by}"
        told_line = self._rules.redact(f"{told}: {answer.message}".rstrip(": "))
        self._tell(fields, told_line, closed=opened)
        self._send(line)  # after it was told, which can fail
        self._questions.close(opened, f"answered by the {by}")
        self._forget_at_keyboard(opened, None if by == KEYBOARD else told)
        return f"Answered: {decision}"

    def _withdraw(self, opened: OpenQuestion, reason: str) -> None:
        self._questions.close(opened, f"withdrawn ({reason})")
        fields = {"event": "withdrawn", "id": opened.id, "reason": reason}
        told = f"{opened.code}: withdrawn ({reason})"
        self._tell(fields, self._rules.redact(told))
        self._forget_at_keyboard(opened, told)

    def _forget_at_keyboard(self, opened: OpenQuestion, told: str | None) -> None:
        if self._at_keyboard is opened:
            self._at_keyboard = None
        if told is not None and (self.asking.local or not self.asking.has_cards):
            self._show(f"{SIGNS[PERSON]} {told}")
        self._wake()

    def _enter(self, text: str, by: str) -> str:
        """Hand on a person's message."""
        self._require_open()
        if not text.strip():
            raise Refusal("the message is empty")
        if len(text) > _MAX_MESSAGE_CHARS:
            raise Refusal(f"the message is longer than {_MAX_MESSAGE_CHARS} characters")
        if len(self._messages) >= _MAX_WAITING_MESSAGES:
            raise Refusal("too many messages are waiting")
        waits = self._dialogue.is_turn_running
        message_id = str(uuid.uuid4())
        waits_since = self._dialogue.ended_turns if waits else None
        self._messages[message_id] = _Message(text, by, waits_since)
        self._send(self._dialogue.say(message_id, text))
        self._idle_since = None
        if waits:
            self._tell_message("queued", message_id, text, "a message waits")
        return "Message sent; it waits for Claude Code" if waits else "Message sent"

    def _take(self, news: Taken) -> Iterator[Piece]:
        message = self._messages.pop(news.message_id, None)
        if message is None:
            return  # the prompt
        if news.is_read:
            # In the turn that was running, or in one of its own.
            joined = message.waits_since == self._dialogue.ended_turns
            told = "joined the running turn" if joined else "read by Claude Code"
            self._tell_message("taken", news.message_id, message.text, told, joined=joined)
            yield Piece(f"{message.by}: {visible(message.text)}", PERSON, is_apart=True)
        else:
            self._tell_message("taken back", news.message_id, message.text, "taken back")

    def _tell_message(
        self, event: str, message_id: str, text: str, told: str, **more: bool
    ) -> None:
        shown = visible(self._rules.redact(text))[:_SHOWN_CHARS]
        fields = {"event": event, "id": message_id, "text": shown, **more}
        self._tell(fields, self._rules.redact(f"{told}: {shown}"))

    def _send(self, line: bytes) -> None:
        self._outgoing += line
        self._wake()

    def _tell(
        self, fields: Mapping[str, Any], line: RedactedText, *, closed: OpenQuestion | None = None
    ) -> None:
        """Tell it, and keep which questions are open after it: `closed` is not any more."""
        has_cards = self.asking.has_cards
        open_ids = [each.id for each in self._questions if each is not closed]
        fact = ("questions", {"cards": has_cards, "open": open_ids})
        if has_cards:
            # In one step: a crash in between would take back the card of an answered question.
            self._journal.append("marker", self._rules.redact_json(fields), fact, is_urgent=True)
            return
        self._journal.put_fact(*fact)
        self._infos.append(line)
        if self._info_due is None:
            self._tell_infos(time.monotonic())

    def _tell_infos(self, now: float) -> None:
        """Send the collected news in one piece; later news is collected again."""
        infos, self._infos = self._infos, []
        self._info_due = now + _INFO_INTERVAL_S if infos else None
        if infos:
            self._journal.append("info", join("\n\n", *infos), is_urgent=True)
