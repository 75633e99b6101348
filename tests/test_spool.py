"""The journal: a stateful test against a list, and what the list cannot show."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from redact import RedactedText
from spool import Command, Spool, SpoolError
from spool_events import (
    MAX_CHUNK_CHARS,
    MAX_EVENT_UNITS,
    OUTPUT_STREAMS,
    STREAMS,
    FrozenEvent,
    Totals,
    encode_event,
    utf16_units,
)
from spool_store import MAX_MEMORY_CHARS

ROOT = Path(__file__).resolve().parent.parent
WITHIN_S = 20.0


def text(value: str) -> RedactedText:
    """Say that there is nothing secret in a test's text."""
    return RedactedText(value)


@contextmanager
def opened(path: Path) -> Iterator[Spool]:
    """Open a journal and close it with the block."""
    spool = Spool(path)
    try:
        yield spool
    finally:
        spool.close()


def crash_copy(path: Path, folder: Path) -> Path:
    """Return a copy of the files as a kill would leave them, the journal still being open."""
    target = folder / "spool.db"
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copy(f"{path}{suffix}", f"{target}{suffix}")
    return target


def data_of(event: FrozenEvent) -> str:
    """Return the text of an event, whose body must be what the wire protocol says."""
    content = json.loads(event.body)
    assert content["type"] == event.type
    assert content["sequence"] == event.sequence
    assert event.body == encode_event(event.type, content["data"], event.sequence)
    return str(content["data"])


def drain(spool: Spool) -> list[tuple[str, str]]:
    """Accept everything that waits; return types and texts."""
    events: list[tuple[str, str]] = []
    while True:
        event = spool.cut(1, "n")
        if event is None:
            return events
        events.append((event.type, data_of(event)))
        spool.accept()


# --- the stateful test -----------------------------------------------------------------------


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
        super().__init__(path)
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
    max_examples=150, stateful_step_count=30, deadline=None, phases=[Phase.generate]
)


def test_the_journal_behaves_as_a_list() -> None:
    """Whatever a run does and wherever it is killed, the journal is the list it stands for."""
    machine = _SpoolMachine.TestCase()
    machine.runTest()


# --- sizes and characters --------------------------------------------------------------------


@pytest.mark.parametrize("character", ["x", "é", "€", "😀", "\x1b", "\0"])
@pytest.mark.parametrize("stream", ["stdout", "stderr", "info", "error"])
def test_no_event_is_over_the_limit(character: str, stream: str, tmp_path: Path) -> None:
    """In UTF-16 units as the gateway counts, however large the text and whatever is in it."""
    whole = character * (MAX_EVENT_UNITS + 70_001)

    with opened(tmp_path / "spool.db") as spool:
        spool.append(stream, text(whole))
        events = drain(spool)

    assert "".join(data for _, data in events) == whole
    assert max(utf16_units(data) for _, data in events) <= MAX_EVENT_UNITS
    assert len(events) <= 4, "few, large events"


def test_a_marker_stays_whole(tmp_path: Path) -> None:
    """JSON that is cut in two would be no JSON."""
    whole = json.dumps({"event": "started", "command": "x" * 3 * MAX_CHUNK_CHARS})

    with opened(tmp_path / "spool.db") as spool:
        spool.append("marker", text(whole))

        assert drain(spool) == [("marker", whole)]


def test_a_body_limit_is_kept_but_for_a_single_chunk(tmp_path: Path) -> None:
    """What stands before the gateway may take less, counted in bytes as they are sent."""
    line = "\x1b" * 99 + "\n"  # six bytes each in JSON

    with opened(tmp_path / "spool.db") as spool:
        for _ in range(100):
            spool.append("stdout", text(line))
        small = spool.cut(1, "n", max_body_bytes=10_000)
        assert small is not None
        spool.accept()
        single = spool.cut(1, "n", max_body_bytes=10)
        assert single is not None
        spool.accept()
        smaller = spool.cut(1, "n")
        assert smaller is not None
        smaller = spool.cut_smaller(1, "n", max_body_bytes=3_000)

    assert 8_000 < len(small.body) <= 10_000
    assert single.chunk_count == 1
    assert 2_000 < len(smaller.body) <= 3_000


@pytest.mark.parametrize("line_end", ["", "\n"], ids=["no-lines", "lines"])
def test_no_event_ends_inside_an_escape_sequence(line_end: str, tmp_path: Path) -> None:
    """A long text is cut between its escape sequences, so that no viewer shows half of one."""
    whole = "".join(f"\x1b[38;5;{n % 256}mcolour{line_end}" for n in range(10_000))

    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text(whole))
        pieces = []
        while event := spool.cut(1, "n", max_chunks=1):
            pieces.append(data_of(event))
            spool.accept()

    assert "".join(pieces) == whole
    assert len(pieces) > len(whole) // MAX_CHUNK_CHARS
    assert not [piece for piece in pieces if re.search(r"\x1b[\[0-9;]*$", piece)]


def test_half_a_character_is_stored_as_the_gateway_would(tmp_path: Path) -> None:
    """A lone surrogate, which no UTF-8 can hold, neither raises nor reaches the wire."""
    half, pair = "\ud83d", "\ud83d\ude00"

    with opened(tmp_path / "spool.db") as spool:
        spool.append("info", text(f"a{half}b{pair}"))
        spool.record_command("c1", text(half))
        ended = spool.end_command("c1", error=text(f"{half} is no command"))

        assert drain(spool) == [("info", "a\ufffdb😀")]
        assert (ended.command, ended.error) == ("\ufffd", "\ufffd is no command")


def test_nothing_is_appended_by_an_empty_text(tmp_path: Path) -> None:
    """An event without data would say nothing."""
    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text(""))

        assert spool.cut(1, "n") is None


# --- order -----------------------------------------------------------------------------------


def test_output_passes_no_marker_and_may_pass_the_other_stream(tmp_path: Path) -> None:
    """Within a stream, and around a marker or message, events keep the order of the output."""
    with opened(tmp_path / "spool.db") as spool:
        for stream, value in (
            ("stdout", "o1"),
            ("stderr", "e1"),
            ("stdout", "o2"),
            ("marker", "{}"),
            ("stdout", "o3"),
            ("info", "i1"),
            ("info", "i2"),
            ("stderr", "e2"),
            ("stdout", "o4"),
        ):
            spool.append(stream, text(value))

        assert drain(spool) == [
            ("stdout", "o1o2"),
            ("stderr", "e1"),
            ("marker", "{}"),
            ("stdout", "o3"),
            ("info", "i1"),
            ("info", "i2"),
            ("stderr", "e2"),
            ("stdout", "o4"),
        ]


def test_a_frozen_event_takes_nothing_that_came_later(tmp_path: Path) -> None:
    """From its first attempt on an event is repeated byte for byte, by another process too."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("stdout", text("first"))
        frozen = spool.cut(5, "nonce-5")
        spool.append("stdout", text("second"))
        again = spool.cut(6, "nonce-6")
    with opened(path) as spool:
        after = spool.cut(7, "nonce-7")

    assert frozen is not None
    assert frozen == again == after
    assert frozen.nonce == "nonce-5"


# --- threads ---------------------------------------------------------------------------------


def test_a_writer_and_a_sender_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two threads on one journal: every chunk goes out once and in order."""
    lines = [f"{number}\n" for number in range(600)]
    received: list[str] = []

    with opened(tmp_path / "spool.db") as spool:

        def send() -> None:
            while "599\n" not in "".join(received[-1:]):
                if spool.wait_pending(WITHIN_S):
                    event = spool.cut(1, "n")
                    assert event is not None
                    received.append(data_of(event))
                    spool.accept()

        sender = threading.Thread(target=send, name="sender", daemon=True)
        sender.start()
        for line in lines:
            spool.append("stdout", text(line))
        sender.join(WITHIN_S)

        assert not sender.is_alive()
        assert "".join(received) == "".join(lines)
        assert spool.totals().bytes == len("".join(lines))


def test_a_wake_is_not_lost(tmp_path: Path) -> None:
    """A wake that comes just before the wait ends it all the same."""
    with opened(tmp_path / "spool.db") as spool:
        spool.wake()

        assert spool.wait_pending(timeout_s=3600.0) is False
        assert spool.wait_pending(timeout_s=0.0) is False


def test_a_closed_journal_ends_a_wait_and_refuses_the_rest(tmp_path: Path) -> None:
    """A thread that is late learns that there is no journal any more, in plain words."""
    spool = Spool(tmp_path / "spool.db")
    waiting = threading.Event()
    ended: list[bool] = []

    def wait() -> None:
        waiting.set()
        try:
            ended.append(spool.wait_pending(WITHIN_S))
        except SpoolError:
            ended.append(False)

    waiter = threading.Thread(target=wait, name="waiter", daemon=True)
    waiter.start()
    assert waiting.wait(WITHIN_S)
    spool.close()
    waiter.join(WITHIN_S)
    spool.close()

    assert ended == [False]
    for act in (
        lambda: spool.append("stdout", text("x")),
        lambda: spool.cut(1, "n"),
        lambda: spool.fact("x"),
        lambda: spool.wait_pending(0.0),
    ):
        with pytest.raises(SpoolError, match="the journal is closed"):
            act()
    spool.sync_to_disk()


def test_syncing_and_closing_at_once_is_safe(tmp_path: Path) -> None:
    """The syncer's descriptor is never closed under its feet."""
    for number in range(20):
        spool = Spool(tmp_path / f"{number}.db")
        spool.append("stdout", text("x"))
        syncer = threading.Thread(target=spool.sync_to_disk, name="syncer", daemon=True)
        syncer.start()
        spool.close()
        syncer.join(WITHIN_S)
        assert not syncer.is_alive()


def test_much_output_asks_for_a_sync(tmp_path: Path) -> None:
    """A megabyte does not wait for the next tick."""
    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text("x" * 1_000_000))
        assert not spool.sync_due.is_set()
        spool.append("stdout", text("x" * 50_000))
        assert spool.sync_due.is_set()

        spool.sync_to_disk()

        assert not spool.sync_due.is_set()


# --- the end, facts, commands ----------------------------------------------------------------


def test_finished_is_the_last_and_counts_what_came_before(tmp_path: Path) -> None:
    """It is composed once, when nothing waits, from totals that nothing can change any more."""
    path = tmp_path / "spool.db"

    def compose(totals: Totals) -> RedactedText:
        return text(json.dumps({"events": totals.events, "bytes": totals.bytes}))

    with opened(path) as spool:
        spool.append("stdout", text("é"))
        assert spool.append_last(compose) is False
        drain(spool)
        assert spool.append_last(compose) is True
    with opened(path) as spool:
        assert spool.is_ended
        assert spool.append_last(compose) is True
        with pytest.raises(SpoolError, match="nothing can follow its `finished` marker"):
            spool.append("info", text("late"))

        assert drain(spool) == [("marker", '{"events": 1, "bytes": 2}')]
        assert spool.append_last(compose) is True
        assert spool.cut(1, "n") is None


def test_facts_survive(tmp_path: Path) -> None:
    """What is recorded of a run is read as it was written, the last value of each."""
    with opened(tmp_path / "spool.db") as spool:
        spool.put_fact("end", {"exitCode": 3, "signal": None})
        spool.put_fact("end", {"exitCode": 4, "signal": "SIGINT", "x": "é\ud83d"})
    with opened(tmp_path / "spool.db") as spool:
        assert spool.fact("end") == {"exitCode": 4, "signal": "SIGINT", "x": "é\ud83d"}
        assert spool.fact("other") is None


def test_a_command_is_recorded_once(tmp_path: Path) -> None:
    """The ledger knows a command across a crash: it is new only the first time."""
    path = tmp_path / "spool.db"
    (tmp_path / "after").mkdir()
    with opened(path) as spool:
        assert spool.record_command("c1", text("pwd")) is None
        interrupted = crash_copy(path, tmp_path / "after")
        assert spool.end_command("c1", result=text("")).has_ended
    with opened(interrupted) as spool:
        known = spool.record_command("c1", text("pwd"))
        assert known == Command("c1", "pwd", None, None, acknowledged=False)
        assert not known.has_ended
        with pytest.raises(SpoolError, match="command c2 was never recorded"):
            spool.end_command("c2", result=text("x"))


def test_an_end_and_its_notice_are_one(tmp_path: Path) -> None:
    """What the stream says of a command's end is in the journal if and only if the end is."""
    with opened(tmp_path / "spool.db") as spool:
        with pytest.raises(SpoolError, match="never recorded"):
            spool.end_command("c1", error=text("no"), notice=text("Command failed"))
        assert not spool.has_pending
        spool.record_command("c1", text("pwd"))
        spool.end_command("c1", error=text("no"), notice=text("Command failed"))
        assert spool.pending_bytes() == len("Command failed")


# --- a disk that does not take it ------------------------------------------------------------

_FILL = """
import json, os, resource, signal, sys
from pathlib import Path
from spool import Spool
from spool_store import MAX_MEMORY_CHARS

folder, how = Path(sys.argv[1]), sys.argv[2]
ballast = folder / "ballast"
ballast.write_bytes(b"x" * 2_000_000)
if how == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, hard))
spool = Spool(folder / "spool.db")
appended, report = [], {}

def append(count):
    for _ in range(count):
        line = f"{len(appended)} " + "x" * 5_000 + "\\n"
        spool.append("stdout" if len(appended) % 3 else "stderr", line)
        appended.append(line)

append(1000)
report["appended"] = len(appended)
report["reason"] = str(spool.disk_failure)
report["all is waiting"] = spool.pending_bytes() == len("".join(appended).encode())
before = spool.pending_bytes()
spool.append("stdout", "y" * (MAX_MEMORY_CHARS + 1))
report["what is too much changes nothing"] = before == spool.pending_bytes()
report["what is too much is counted"] = spool.take_gap() == MAX_MEMORY_CHARS + 1
texts = {"stdout": "", "stderr": ""}
while True:
    event = spool.cut(1, "n")
    if event is None or len(texts["stdout"]) > 2_000_000:
        break
    texts[event.type] += json.loads(event.body)["data"]
    spool.accept()
expected = {
    "stdout": "".join(each for number, each in enumerate(appended) if number % 3),
    "stderr": "".join(appended[::3]),
}
report["both places are read, in order"] = all(expected[n].startswith(texts[n]) for n in texts)
report["nobody else can go on yet"] = not spool.return_to_disk()
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
else:
    ballast.unlink()
report["with room it comes back"] = spool.return_to_disk()
totals = spool.totals()
spool.close()
again = Spool(folder / "spool.db")
while True:
    event = again.cut(1, "n")
    if event is None:
        break
    texts[event.type] += json.loads(event.body)["data"]
    again.accept()
report["another process sends the rest"] = texts == expected
report["and counts on"] = again.totals().events > totals.events
again.close()
print(json.dumps(report))
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a file system of 3 MB into the folder."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this user may put up a small file system; a container's root often may not."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@pytest.mark.parametrize("how", ["limit", *(["tmpfs"] if can_mount() else [])])
def test_a_full_disk_loses_nothing_that_memory_can_hold(how: str, tmp_path: Path) -> None:
    """The journal goes on in memory, in order, counts what is too much, and comes back."""

    def fill() -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-c", _FILL, str(tmp_path), how],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=60,
        )
        return dict(json.loads(done.stdout))

    if how == "tmpfs":
        with small_disk(tmp_path):
            report = fill()
    else:
        report = fill()

    reason = "the disk is full" if how == "tmpfs" else "the disk does not take it"
    sentence = str(report["reason"])
    assert sentence.startswith(f"the journal {tmp_path / 'spool.db'} cannot be used: {reason}")
    facts = {name: value for name, value in report.items() if isinstance(value, bool)}
    assert facts == dict.fromkeys(facts, True)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The sentence names the journal and the reason, not an error number."""
    with pytest.raises(SpoolError, match=r"cannot be used: No such file or directory$"):
        Spool(tmp_path / "missing" / "spool.db")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Without permission there is a sentence, for a user as for root."""
    script = (
        "import os, sys; from pathlib import Path; from spool import Spool, SpoolError\n"
        "folder = Path(sys.argv[1]); folder.chmod(0o555)\n"
        "if os.geteuid() == 0:\n"
        "    folder.parent.chmod(0o755); os.setuid(65534)\n"
        "try:\n    Spool(folder / 'spool.db')\n"
        "except SpoolError as error:\n    print(error)\n"
    )
    # Not below tmp_path, whose parents only their owner may enter.
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "locked"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert done.stdout == f"the journal {folder}/spool.db cannot be used: Permission denied\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"not a database, but long enough to look at" * 100, "it is damaged")],
)
def test_a_damaged_journal_is_told(content: bytes, reason: str, tmp_path: Path) -> None:
    """A file that is no journal is left as it is."""
    path = tmp_path / "spool.db"
    path.write_bytes(content)

    with pytest.raises(SpoolError, match=reason):
        Spool(path)

    assert path.read_bytes() == content


def test_a_journal_of_another_version_is_told(tmp_path: Path) -> None:
    """A newer runner's journal is not guessed at."""
    path = tmp_path / "spool.db"
    with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(SpoolError, match="written by another version of claude-runner"):
        Spool(path)


def test_a_journal_without_its_tables_is_told(tmp_path: Path) -> None:
    """One that opens and cannot be read is let go of again."""
    path = tmp_path / "spool.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 1")
    database.close()

    with pytest.raises(SpoolError, match="no such table"):
        Spool(path)


def test_a_place_without_a_write_ahead_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite cannot keep its log, nothing is begun that a kill would lose."""
    monkeypatch.chdir(tmp_path)

    # The one place without such a log that there is on every machine.
    with pytest.raises(SpoolError, match="write-ahead log cannot use; set CLAUDE_RUNNER_DATA_DIR"):
        Spool(Path(":memory:"))


def test_what_a_failing_disk_left_open_is_no_obstacle(tmp_path: Path) -> None:
    """A transaction whose rollback failed too does not keep the journal from coming back."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("stdout", text("on the disk\n"))
        assert spool.go_on_in_memory("the disk failed")
        spool.append("stdout", text("in memory\n"))
        on_disk = spool._store._disk_db
        assert on_disk is not None
        on_disk.execute("BEGIN IMMEDIATE")

        assert spool.return_to_disk()

    with opened(path) as spool:
        event = spool.cut(1, "n")
        assert event is not None
        assert json.loads(event.body)["data"] == "on the disk\nin memory\n"


def test_a_folder_that_has_gone_has_no_room(tmp_path: Path) -> None:
    """The journal stays in memory, and delivers from there."""
    folder = tmp_path / "run"
    folder.mkdir()
    with opened(folder / "spool.db") as spool:
        assert spool.go_on_in_memory("the disk is full")
        spool.append("stdout", text("in memory\n"))
        shutil.rmtree(folder)

        assert not spool.return_to_disk(when_there_is_room=True)
        assert drain(spool) == [("stdout", "in memory\n")]


def test_what_memory_delivered_is_counted_by_the_next_process(tmp_path: Path) -> None:
    """The text is gone, so the digest is not known any more; the sizes are, and what follows."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("marker", text("{}"))
        drain(spool)
        assert spool.go_on_in_memory("the disk is full")
        spool.append("marker", text('{"event":"state"}'))
        drain(spool)
        spool.append("stdout", text("é\n"))
        drain(spool)
        known = spool.totals()
        assert spool.return_to_disk()
        assert spool.totals() == known

    with opened(path) as spool:
        assert spool.totals() == replace(known, sha256=None)
        spool.append("marker", text("{}"))
        assert drain(spool) == [("marker", "{}")]
        assert spool.totals() == Totals(known.events + 1, known.bytes + 2, None, 0)


def test_the_disk_is_gone_back_to(tmp_path: Path) -> None:
    """With room again what memory held is on the disk, and what follows goes there."""
    path = tmp_path / "spool.db"
    (tmp_path / "after").mkdir()
    with opened(path) as spool:
        assert spool.return_to_disk(when_there_is_room=True)
        for number in range(3):
            assert spool.go_on_in_memory("the disk is full")
            spool.append("stdout", text(f"in memory {number}\n"))
            assert spool.return_to_disk(when_there_is_room=True)
            spool.append("stdout", text(f"on the disk {number}\n"))
        assert spool.disk_failure == "the disk is full"
        killed = crash_copy(path, tmp_path / "after")
        everything = drain(spool)

    lines = [f"{place} {number}\n" for number in range(3) for place in ("in memory", "on the disk")]
    assert everything == [("stdout", "".join(lines))]
    with opened(killed) as spool:
        assert drain(spool) == everything


def test_what_was_delivered_leaves_memory_whatever_is_in_it(tmp_path: Path) -> None:
    """A NUL, at which SQLite would stop counting, takes no room for ever."""
    with opened(tmp_path / "spool.db") as spool:
        assert spool.go_on_in_memory("the disk is full")
        for _ in range(3):
            spool.append("stdout", text("\0" * (MAX_MEMORY_CHARS // 2 + 1)))
            drain(spool)
        assert spool.take_gap() == 0


def test_a_sync_that_failed_is_tried_again(tmp_path: Path) -> None:
    """What a disk did not make durable is asked of it once more."""
    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text("x"))
        good_fd = spool._store._wal_fd
        read_fd, write_fd = os.pipe()  # which nobody can make durable
        try:
            spool._store._wal_fd = write_fd
            with pytest.raises(OSError, match="Invalid argument"):
                spool.sync_to_disk()
            with pytest.raises(OSError, match="Invalid argument"):
                spool.sync_to_disk()
        finally:
            spool._store._wal_fd = good_fd
            os.close(read_fd)
            os.close(write_fd)
        spool.sync_to_disk()


def test_the_journals_files_are_private(tmp_path: Path) -> None:
    """Nobody else on the machine reads a session, whatever the umask is."""
    path = tmp_path / "spool.db"
    before = os.umask(0)
    try:
        with opened(path) as spool:
            spool.append("stdout", text("x"))
            modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert modes == dict.fromkeys(("spool.db", "spool.db-wal", "spool.db-shm"), 0o600)


def test_a_closed_journal_does_not_go_on_in_memory(tmp_path: Path) -> None:
    """A thread whose write failed while another closed the journal changes nothing any more."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("stdout", text("x"))

    assert spool.go_on_in_memory("the disk is full") is False
    assert spool.disk_failure is None
    with opened(path) as again:
        assert drain(again) == [("stdout", "x")]
