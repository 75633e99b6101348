"""The journal against a model, a few lists, through crashes, torn writes and a disk that fills."""

from __future__ import annotations

import copy
import hashlib
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    # The chunk after which the disk was full, and whether any later one was accepted meanwhile.
    full_after: int | None = None
    has_forgotten: bool = False
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
        if self.full_after is not None and self.in_flight[-1][0] > self.full_after:
            self.has_forgotten = True
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
        totals = self.totals(knows_all=not self.has_forgotten)
        return totals, self.ended, ledger, self.notice is not None, self.rest()

    def totals(self, *, knows_all: bool) -> Totals:
        data = "".join(self.accepted).encode()
        digest = hashlib.sha256(data).hexdigest() if knows_all else None
        return Totals(len(self.accepted), len(data), digest, self.refused)


COMMAND_IDS = ("c1", "c2", "c3")
TEXTS = st.text(
    st.sampled_from(["a", "é", "€", "😀", "\0", "\n", "\x1b", '"', "\\", "\x7f"]),
    min_size=1,
    max_size=8,
)


class _DiskSpool(Spool):
    """A journal whose disk can be full: no file of this process grows beyond `limit_bytes` then.

    What other threads do between a failure and what follows from it, `meanwhile` does: it is called
    before the journal leaves the disk, and again before the call that failed is repeated.
    """

    def __init__(self, path: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(path, redact=text)
        self.limit_bytes: int | None = None
        self._meanwhile = meanwhile

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._disk(), super()._transaction() as state:
            yield state

    def return_to_disk(self, *, when_there_is_room: bool = False) -> bool:
        with self._disk():
            return super().return_to_disk(when_there_is_room=when_there_is_room)

    def go_on_in_memory(self, reason: str) -> bool:
        self._meanwhile()
        goes_on = super().go_on_in_memory(reason)
        self._meanwhile()
        return goes_on

    @contextmanager
    def _disk(self) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if self.limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, hard))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class _SpoolMachine(RuleBasedStateMachine):
    """Does to a journal and to lists what a run does, crashes included, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.count = 0
        self.model = _Model()
        # What the journal may fall back to when the end of its log is lost.
        self.history = [copy.deepcopy(self.model)]
        # What other threads do when the disk fails under one.
        self.others: list[Callable[[], None]] = []
        self.open(self.new_folder() / "spool.db")

    def open(self, path: Path) -> None:
        self.path = path
        self.spool = _DiskSpool(path, self.meanwhile)
        self.knows_all = not self.model.has_forgotten

    def new_folder(self) -> Path:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        return folder

    def stamp(self) -> tuple[int, str]:
        self.count += 1
        return self.count, f"nonce-{self.count}"

    def done(self) -> None:
        """Note what a kill leaves from now on: of what is in memory, nothing."""
        if not self.spool._store.is_in_memory:
            self.model.full_after = None
            self.history.append(copy.deepcopy(self.model))

    def meanwhile(self) -> None:
        """Let another thread have its turn."""
        if self.spool._store.is_in_memory and self.model.full_after is None:
            self.model.full_after = self.model.count
        if self.others:
            self.others.pop(0)()

    @rule(free_bytes=st.integers(0, 9_000))
    def disk_gets_full(self, free_bytes: int) -> None:
        """From now on the journal's files grow by so much and no more."""
        self.spool.limit_bytes = Path(f"{self.path}-wal").stat().st_size + free_bytes

    @rule()
    def disk_has_room(self) -> None:
        """Somebody made room, and the journal was told to look."""
        self.spool.limit_bytes = None
        assert self.spool.return_to_disk()
        self.done()

    @rule(
        acts=st.lists(st.sampled_from([*STREAMS, "deliver one", "deliver all"]), max_size=9),
        others=st.lists(
            st.sampled_from(["nothing", "append", "room", "room and full"]), max_size=4
        ),
        ends=st.sampled_from(["room", "kill", "room and kill"]),
    )
    def disk_is_full_for_a_while(self, acts: list[str], others: list[str], ends: str) -> None:
        """The run goes on, and what the disk did not get goes back to it, or dies with the run.

        Between the failures of the disk and their consequences others have their turns.
        """
        self.disk_gets_full(0)
        turns = {
            "nothing": lambda: None,
            "append": lambda: self.append("stderr", "other"),
            "room": self.disk_has_room,
            "room and full": self.room_and_full,
        }
        self.others = [turns[each] for each in others]
        for act in acts:
            if act in STREAMS:
                self.append(act, f"without a disk {self.model.count}")
                continue
            while self.model.in_flight or self.model.waiting:
                self.cut(None)
                self.accept()
                if act == "deliver one":
                    break
        if "room" in ends:
            self.disk_has_room()
        if "kill" in ends:
            self.kill()

    @rule()
    def disk_is_looked_at(self) -> None:
        """The journal goes back if the disk takes what is in memory, and loses nothing if not."""
        if self.spool.return_to_disk(when_there_is_room=True):
            self.done()

    def room_and_full(self) -> None:
        self.disk_has_room()
        self.disk_gets_full(0)

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
        """Go on with the files as they are now: everything that returned is in them.

        But for what came when the disk was full.
        """
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
        self.others = []
        self.open(path)

    @invariant()
    def totals_are_those_of_the_list(self) -> None:
        assert self.spool.totals() == self.model.totals(knows_all=self.knows_all)
        chunks = self.model.in_flight + self.model.waiting
        assert self.spool.has_pending == bool(chunks)
        assert self.spool.pending_bytes() == len(joined(chunks).encode())
        assert self.spool.is_ended == self.model.ended
        assert listed(self.spool) == unacknowledged(self.model)

    def teardown(self) -> None:
        """Deliver the rest, and look at the order once more from outside."""
        self.others = []
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
    max_examples=75, stateful_step_count=30, deadline=None, phases=[Phase.generate]
)


def test_the_journal_behaves_as_a_list() -> None:
    """Whatever a run does and wherever it is killed, the journal is the list it stands for."""
    machine = _SpoolMachine.TestCase()
    machine.runTest()
