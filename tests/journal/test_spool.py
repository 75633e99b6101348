"""The journal: what an event may hold, what goes out in which order, and what is kept."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.events import (
    MAX_CHUNK_CHARS,
    MAX_EVENT_UNITS,
    STREAMS,
    Totals,
    encode_event,
    utf16_units,
)
from journal.spool import Command, Spool, SpoolError
from redact import RedactedText
from testing.journal import crash_copy, data_of, drain, opened, text

WITHIN_S = 20.0


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


@given(
    st.sampled_from(STREAMS),
    st.text(st.sampled_from('ab\\"/un') | st.characters(exclude_categories=["Cs"])),
    st.none() | st.integers(0),
)
def test_a_body_has_the_bytes_of_json_dumps(stream: str, data: str, number: int | None) -> None:
    """A journal of any version sends the same again; every control character is among them."""
    data += "".join(map(chr, range(0x80)))
    fields = {"type": stream, "data": data, **({} if number is None else {"sequence": number})}

    written = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    assert encode_event(stream, data, number) == written.encode("utf-8")


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
        ended = spool.end_command("c1", error=text(f"{half} is not a command"))

        assert drain(spool) == [("info", "a\ufffdb😀")]
        assert (ended.command, ended.error) == ("\ufffd", "\ufffd is not a command")


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


def test_of_one_name_the_newest_takes_the_place_of_what_waits(tmp_path: Path) -> None:
    """How a run stands is told once, however long it waits; what was sent is not changed."""
    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text("a"))
        for number in range(3):
            spool.append("marker", text(f'{{"turns":{number}}}'), slot="progress")
            spool.append("stdout", text(f"{number}"))
        assert spool.cut(1, "n") is not None
        spool.accept()
        flying = spool.cut(1, "n")
        spool.append("marker", text('{"turns":3}'), slot="progress")
        spool.append("marker", text('{"other":0}'))

        assert flying is not None
        assert data_of(flying) == '{"turns":2}'
        assert drain(spool) == [
            ("marker", '{"turns":2}'),
            ("stdout", "012"),
            ("marker", '{"turns":3}'),
            ("marker", '{"other":0}'),
        ]


def test_it_knows_whether_a_person_waits(tmp_path: Path) -> None:
    """From the moment that a question is written until the gateway has it, after a refusal too."""
    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text("before"))
        assert not spool.is_urgent
        spool.append("marker", text('{"event":"asked"}'), is_urgent=True)
        spool.append("stdout", text("behind"))
        seen = []
        while (event := spool.cut(1, "n")) is not None:
            seen.append((event.type, spool.is_urgent))
            if event.type == "marker":
                spool.set_aside(text("refused"), 1, "n")
                assert spool.is_urgent
            spool.accept()

        assert seen == [("stdout", True), ("marker", True), ("stdout", False)]


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
    spool = Spool(tmp_path / "spool.db", redact=text)
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
        spool = Spool(tmp_path / f"{number}.db", redact=text)
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


def test_an_idle_journal_asks_for_nothing(tmp_path: Path) -> None:
    """An idle run does not wake up four times a second for a journal in which nothing is new."""
    with opened(tmp_path / "spool.db") as spool:
        spool.append("stdout", text("x"))
        assert spool.has_work.is_set()

        spool.sync_to_disk()

        assert not spool.has_work.is_set()
        spool.append("stdout", text("y"))
        assert spool.has_work.is_set()


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
