"""The journal against a model, a few lists, through crashes and torn writes.

What a full disk does to it is in `test_full_disk.py`.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from journal.events import OUTPUT_STREAMS, STREAMS, FrozenEvent, Totals
from journal.spool import Command, Spool, SpoolError
from testing.journal import crash_copy, data_of, drain, opened, text


@dataclass
class _Model:
    """The journal as lists. A chunk is its number, its stream and its text."""

    waiting: list[tuple[int, str, str]] = field(default_factory=list)
    in_flight: list[tuple[int, str, str]] = field(default_factory=list)
    count: int = 0
    notice: str | None = None
    timestamp: int = 0
    nonce: str = ""
    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    ended: bool = False
    commands: dict[str, Command] = field(default_factory=dict)

    def append(self, stream: str, data: str) -> None:
        self.count += 1
        self.waiting.append((self.count, stream, data))

    def cut(self, max_chunks: int | None) -> None:
        """Take what the next event holds from the waiting chunks."""
        stream = self.waiting[0][1]
        limit = max_chunks if stream in OUTPUT_STREAMS else 1
        self.in_flight = []
        for chunk in self.waiting:
            if chunk[1] == stream and len(self.in_flight) != limit:
                self.in_flight.append(chunk)
            elif chunk[1] not in OUTPUT_STREAMS:
                break
        self.waiting = [each for each in self.waiting if each not in self.in_flight]

    def freeze(self, timestamp: int, nonce: str) -> None:
        self.timestamp, self.nonce = timestamp, nonce

    def expected(self) -> tuple[str, str]:
        """Return the type and the text of the event in flight."""
        if self.notice is not None:
            return "error", self.notice
        return self.in_flight[0][1], joined(self.in_flight)

    def accept(self) -> None:
        self.accepted.append(self.expected()[1])
        self.refused += self.notice is not None
        self.in_flight, self.notice = [], None

    def rest(self) -> list[tuple[str, str]]:
        """Return what draining would still deliver."""
        after = copy.deepcopy(self)
        events = []
        while after.in_flight or after.waiting:
            if not after.in_flight:
                after.cut(None)
            events.append(after.expected())
            after.accept()
        return events

    def view(self) -> tuple[object, ...]:
        """Return all that can be seen of it from outside."""
        ledger = {name: self.commands.get(name) for name in COMMAND_IDS}
        return self.totals(), self.ended, ledger, self.notice is not None, self.rest()

    def totals(self) -> Totals:
        data = "".join(self.accepted).encode()
        digest = hashlib.sha256(data).hexdigest()
        return Totals(len(self.accepted), len(data), digest, self.refused)


COMMAND_IDS = ("c1", "c2", "c3")
TEXTS = st.text(
    st.sampled_from(["a", "é", "€", "😀", "\0", "\n", "\x1b", '"', "\\", "\x7f"]),
    min_size=1,
    max_size=8,
)


class _SpoolMachine(RuleBasedStateMachine):
    """Does to a journal and to lists what a run does, crashes included, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.count = 0
        self.model = _Model()
        # What the journal may fall back to when the end of its log is lost.
        self.history = [copy.deepcopy(self.model)]
        self.open(self.new_folder() / "spool.db")

    def open(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path, redact=text)

    def new_folder(self) -> Path:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        return folder

    def stamp(self) -> tuple[int, str]:
        self.count += 1
        return self.count, f"nonce-{self.count}"

    def done(self) -> None:
        """Note what a kill leaves from now on."""
        self.history.append(copy.deepcopy(self.model))

    def check_event(self, event: FrozenEvent | None) -> None:
        assert event is not None
        assert (event.type, data_of(event)) == self.model.expected()
        assert (event.timestamp, event.nonce) == (self.model.timestamp, self.model.nonce)
        assert event.sequence == len(self.model.accepted) + 1
        assert event.chunk_count == len(self.model.in_flight)
        assert event.is_notice == (self.model.notice is not None)
        assert event.data_bytes == len(joined(self.model.in_flight).encode())

    @rule(stream=st.sampled_from(STREAMS), data=TEXTS)
    def append(self, stream: str, data: str) -> None:
        if self.model.ended:
            with pytest.raises(SpoolError, match="the run has ended"):
                self.spool.append(stream, text(data))
            return
        self.spool.append(stream, text(data))
        self.model.append(stream, data)
        self.done()

    @rule(max_chunks=st.none() | st.integers(1, 3))
    def cut(self, max_chunks: int | None) -> None:
        timestamp, nonce = self.stamp()
        event = self.spool.cut(timestamp, nonce, max_chunks=max_chunks)
        if not self.model.in_flight:
            if not self.model.waiting:
                assert event is None
                return
            self.model.cut(max_chunks)
            self.model.freeze(timestamp, nonce)
            self.done()
        self.check_event(event)

    @precondition(lambda self: self.model.in_flight and self.model.notice is None)
    @rule()
    def cut_smaller(self) -> None:
        timestamp, nonce = self.stamp()
        event = self.spool.cut_smaller(timestamp, nonce)
        chunks = self.model.in_flight
        half = max(1, len(chunks) // 2)
        self.model.in_flight = chunks[:half]
        self.model.waiting = sorted(chunks[half:] + self.model.waiting)  # each where it was
        self.model.freeze(timestamp, nonce)
        self.done()
        self.check_event(event)

    @precondition(lambda self: self.model.in_flight)
    @rule()
    def refreeze(self) -> None:
        timestamp, nonce = self.stamp()
        event = self.spool.refreeze(timestamp, nonce)
        self.model.freeze(timestamp, nonce)
        self.done()
        self.check_event(event)

    @precondition(lambda self: self.model.in_flight)
    @rule(notice=TEXTS)
    def set_aside(self, notice: str) -> None:
        timestamp, nonce = self.stamp()
        event = self.spool.set_aside(text(notice), timestamp, nonce)
        self.model.notice = notice
        self.model.freeze(timestamp, nonce)
        self.done()
        self.check_event(event)

    @precondition(lambda self: self.model.notice is not None)
    @rule()
    def restore(self) -> None:
        timestamp, nonce = self.stamp()
        event = self.spool.restore(timestamp, nonce)
        self.model.notice = None
        self.model.freeze(timestamp, nonce)
        self.done()
        self.check_event(event)

    @precondition(lambda self: self.model.in_flight)
    @rule()
    def accept(self) -> None:
        self.spool.accept()
        self.model.accept()
        self.done()

    @precondition(lambda self: not self.model.in_flight)
    @rule()
    def nothing_in_flight(self) -> None:
        for act in (
            self.spool.accept,
            lambda: self.spool.refreeze(1, "n"),
            lambda: self.spool.cut_smaller(1, "n"),
            lambda: self.spool.set_aside(text("x"), 1, "n"),
            lambda: self.spool.restore(1, "n"),
        ):
            with pytest.raises(SpoolError, match="no event is in flight"):
                act()

    @rule()
    def end(self) -> None:
        is_in = self.spool.append_last(lambda totals: text(f"finished {totals.events}"))
        was_idle = not (self.model.waiting or self.model.in_flight)
        assert is_in == (was_idle or self.model.ended)
        if was_idle and not self.model.ended:
            self.model.append("marker", f"finished {len(self.model.accepted)}")
            self.model.ended = True
            self.done()

    @rule(command_id=st.sampled_from(COMMAND_IDS), how=st.integers(0, 3), output=TEXTS)
    def command(self, command_id: str, how: int, output: str) -> None:
        known = self.model.commands.get(command_id)
        if how == 0 or known is None:
            assert self.spool.record_command(command_id, text(output)) == known
            command = known or Command(command_id, output, None, None, False)
        elif how == 1:
            command = self.spool.end_command(command_id, result=text(output))
            assert command == Command(
                command_id, known.command, text(output), None, known.acknowledged
            )
        elif how == 2:
            command = self.spool.end_command(command_id, error=text(output))
            assert command == Command(
                command_id, known.command, None, text(output), known.acknowledged
            )
        else:
            self.spool.acknowledge(command_id)
            command = Command(command_id, known.command, known.result, known.error, True)
        self.model.commands[command_id] = command
        self.done()

    @rule()
    def kill(self) -> None:
        """Go on with the files as they are now: everything that returned is in them."""
        path = crash_copy(self.path, self.new_folder())
        self.model = copy.deepcopy(self.history[-1])
        self.reopen(path)

    @rule()
    def close_and_reopen(self) -> None:
        self.model = copy.deepcopy(self.history[-1])
        self.reopen(self.path)
        self.history = [copy.deepcopy(self.model)]

    @rule(lost_bytes=st.integers(1, 20_000), garbage=st.binary(max_size=100))
    def tear(self, lost_bytes: int, garbage: bytes) -> None:
        """Lose the end of the log: the journal is what it was at some moment, never in between."""
        path = crash_copy(self.path, self.new_folder())
        wal = Path(f"{path}-wal")
        if wal.exists():
            os.truncate(wal, max(0, wal.stat().st_size - lost_bytes))
            with wal.open("ab") as tail:
                tail.write(garbage)
        with opened(crash_copy(path, self.new_folder())) as dying:
            ledger = {name: dying.record_command(name, text("probe")) for name in COMMAND_IDS}
            event = dying.cut(0, "other")
            is_notice = event is not None and event.is_notice
            seen = (dying.totals(), dying.is_ended, ledger, is_notice, drain(dying))
        while self.history and self.history[-1].view() != seen:
            self.history.pop()
        assert self.history, "the journal fell back to a state that never was"
        self.model = copy.deepcopy(self.history[-1])
        self.reopen(path)
        if self.model.in_flight:
            # The frozen attempt is the same or an earlier one; both were sent with its body.
            event = self.spool.cut(0, "other")
            assert event is not None
            self.model.freeze(event.timestamp, event.nonce)
            self.check_event(event)
            self.done()

    def reopen(self, path: Path) -> None:
        self.spool.close()
        self.open(path)

    @invariant()
    def totals_are_those_of_the_list(self) -> None:
        assert self.spool.totals() == self.model.totals()
        chunks = self.model.in_flight + self.model.waiting
        assert self.spool.has_pending == bool(chunks)
        assert self.spool.pending_bytes() == len(joined(chunks).encode())
        assert self.spool.is_ended == self.model.ended
        assert listed(self.spool) == unacknowledged(self.model)

    def teardown(self) -> None:
        """Deliver the rest, and look at the order once more from outside."""
        with closing(self.spool):
            assert drain(self.spool) == self.model.rest()
        shutil.rmtree(self.folder)


def joined(chunks: list[tuple[int, str, str]]) -> str:
    """Return the text of chunks."""
    return "".join(data for _, _, data in chunks)


def listed(spool: Spool) -> dict[str, Command]:
    """Return the commands of the journal that the gateway may still list."""
    return {each.id: each for each in spool.unacknowledged()}


def unacknowledged(model: _Model) -> dict[str, Command]:
    """Return the commands of the model that the gateway may still list."""
    return {name: each for name, each in model.commands.items() if not each.acknowledged}


# Without shrinking, which takes minutes here: the steps of a failure are short enough to read.
_SpoolMachine.TestCase.settings = settings(
    stateful_step_count=30, deadline=None, phases=[Phase.generate]
)


def test_the_journal_behaves_as_a_list() -> None:
    """Whatever a run does and wherever it is killed, the journal is the list it stands for."""
    machine = _SpoolMachine.TestCase()
    machine.runTest()
