"""The journal on a disk that is full, failing, damaged or not there."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from journal.events import FrozenEvent, Totals
from journal.reserve import RESERVE_BYTES
from journal.spool import FilePart, Spool, SpoolError
from testing.journal import crash_copy, data_of, drain, opened, text
from testing.programs.disk import Disk, mount_disk, nothing_is_written

ROOT = Path(__file__).resolve().parents[2]
END = {"event": "finished", "exitCode": 0}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 8 MiB; skips where nobody may mount one."""
    with mount_disk(tmp_path / "disk", megabytes=8) as disk:
        yield disk


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder on another disk, for what a kill leaves."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@contextmanager
def run_on(disk: Disk) -> Iterator[Spool]:
    """Open a run's journal on that disk, with some output in it."""
    with opened(disk.folder / "spool.db", keeps_reserve=True) as spool:
        spool.append("stdout", text("before\n"))
        yield spool


def make_tight(disk: Disk, spool: Spool) -> int:
    """Let the disk be full; return how many bytes of output it did not take."""
    disk.fill()
    size = 0
    while not size:
        size = 0 if spool.append("stdout", text("." * 4_999 + "\n")) else 5_000
    return size


def use_up(disk: Disk, spool: Spool) -> None:
    """Let somebody else take each slice of the reserve as soon as it is free."""
    make_tight(disk, spool)
    disk.fill()
    while spool.append("info", text("x" * 99_999)):
        disk.fill()


def sent(spool: Spool) -> FrozenEvent:
    """Freeze what waits."""
    event = spool.cut(1, "first")
    assert event is not None
    return event


# --- tight ----------------------------------------------------------------------------------------


def test_output_is_counted_and_the_rest_recorded(disk: Disk) -> None:
    """On a full disk messages, answers and the end are recorded, and the gap is told at its place.

    A thousand times: nothing of that needs more room each time.
    """
    with run_on(disk) as spool:
        lost_bytes = make_tight(disk, spool)
        assert "the disk is full" in str(spool.disk_failure)
        before = drain(spool)
        for number in range(1_000):
            lost_bytes += 0 if spool.append("stderr", text("é\n")) else 3
            assert spool.append("info", text(f"message {number}"))
            assert drain(spool) == [("info", f"message {number}")]
        assert spool.record_command("c1", text("ls")) is None
        spool.end_command("c1", result=text("x" * 80_000))
        spool.record_end(END, [FilePart("claude.log", "claude.log", 0, 1)])

        lines = 1 + (lost_bytes - 5_000) // 3
        notice = f"{lost_bytes} bytes of output ({lines} lines) are missing here: the disk was full"
        assert drain(spool) == [("error", notice)]
        assert (spool.is_whole, spool.lost_bytes) == (False, lost_bytes)
        assert spool.append_last(lambda _: text("finished"))
        assert drain(spool) == [("marker", "finished")]
        assert spool.next_upload() is not None
    assert before[0][1].startswith("before\n")
    assert not (disk.folder / "reserve").exists(), "the run has ended"


@pytest.mark.parametrize("is_greedy", [False, True], ids=["alone", "beside a greedy one"])
@pytest.mark.parametrize("lines", [0, 150], ids=["small log", "large log"])
def test_the_reserve_lasts(lines: int, is_greedy: bool, disk: Disk) -> None:
    """However much the log holds when the disk gets full, and if another program fills the rest."""
    with run_on(disk) as spool:
        for _ in range(lines):
            assert spool.append("stdout", text("." * 15_999 + "\n"))
        make_tight(disk, spool)
        drain(spool)
        for number in range(30 if is_greedy else 300):
            if is_greedy:
                disk.fill()
            assert spool.append("info", text(f"message {number}"))
            assert drain(spool) == [("info", f"message {number}")]


def test_a_backlog_goes_out_in_large_events(disk: Disk) -> None:
    """What is sent was written when it came; to cut it needs no more room than a row."""
    with run_on(disk) as spool:
        for _ in range(100):
            spool.append("stdout", text("." * 9_999 + "\n"))
        make_tight(disk, spool)
        sizes = []
        while event := spool.cut(1, "n", max_body_bytes=1_000_000):
            sizes.append(len(event.body))
            spool.accept()

    assert max(sizes) > 900_000
    assert (disk.folder / "reserve").stat().st_size > RESERVE_BYTES // 2


def test_room_that_comes_back_is_used(disk: Disk, elsewhere: Path) -> None:
    """Output is recorded again, behind a notice of what is missing; and so it is after a kill."""

    def reserve_bytes() -> int:
        return (disk.folder / "reserve").stat().st_size

    with run_on(disk) as spool:
        for turn in ("first", "second"):
            assert make_tight(disk, spool) == 5_000
            disk.leave(3 * RESERVE_BYTES // 2)
            spool.use_room()
            assert reserve_bytes() < RESERVE_BYTES, "that is too little"
            disk.make_room()
            spool.use_room()
            assert reserve_bytes() == RESERVE_BYTES
            assert spool.append("stdout", text(f"after the {turn}\n"))
        killed = crash_copy(disk.folder / "spool.db", elsewhere)
        assert spool.lost_bytes == 10_000
    with opened(killed) as spool:
        assert (spool.is_whole, spool.lost_bytes) == (False, 10_000)
        told = drain(spool)
    notice = "5000 bytes of output (1 lines) are missing here: the disk was full"
    assert told[1::2] == [("error", notice)] * 2
    assert [data.split("\n")[0] for _, data in told[::2]] == [
        "before",
        "after the first",
        "after the second",
    ]


def test_a_full_disk_that_costs_nothing_is_no_gap(disk: Disk) -> None:
    """If room comes back before any output was left out, the run is whole."""
    with run_on(disk) as spool:
        disk.fill()
        while not spool.is_tight:
            assert spool.append("info", text("x" * 50_000))
        disk.make_room()
        spool.use_room()
        spool.record_end(END, [])

        assert spool.is_whole
        assert {kind for kind, _ in drain(spool)} == {"stdout", "info"}


def test_killed_on_a_full_disk(disk: Disk, elsewhere: Path) -> None:
    """Nobody knows how much is missing: the next process says that, and says it once."""
    with run_on(disk) as spool:
        make_tight(disk, spool)
        killed = crash_copy(disk.folder / "spool.db", elsewhere)

    with opened(killed) as spool:
        assert not spool.has_end
        spool.record_end({"exitCode": 137}, [])
        assert (spool.is_whole, spool.lost_bytes) == (False, None)
    with opened(killed) as spool:
        assert (spool.is_whole, spool.lost_bytes) == (False, None)
        backlog, (kind, notice) = drain(spool)
    assert backlog[1].startswith("before\n")
    assert kind == "error"
    assert notice == "output may be missing here: the disk was full when the runner died"


def test_threads_that_meet_the_full_disk_together(disk: Disk) -> None:
    """Who takes the output and who sends it go on, each with as much of the reserve as it needs."""
    with run_on(disk) as spool:
        sent(spool)
        disk.fill()
        together = threading.Barrier(2)

        def append() -> None:
            together.wait(10)
            while spool.append("stdout", text("." * 9_999 + "\n")):
                pass

        def accept() -> None:
            together.wait(10)
            for _ in range(20):
                spool.accept()
                spool.append("info", text("x" * 10_000))
                sent(spool)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(append), pool.submit(accept)]:
                done.result(30)

        assert spool.is_tight
        assert spool.totals().events >= 20


def test_what_was_wiped_is_gone_from_a_full_disk(disk: Disk) -> None:
    """The run's token does not stay because there is no room to remove it."""
    with run_on(disk) as spool:
        spool.put_fact("token", "tok" + "en" * 20)
        make_tight(disk, spool)
        spool.wipe("token")

        contents = b"".join(each.read_bytes() for each in disk.folder.glob("spool.db*"))
    assert b"tok" + b"en" * 20 not in contents


# --- lost -----------------------------------------------------------------------------------------


def test_the_end_needs_no_room(disk: Disk, elsewhere: Path) -> None:
    """Where others took the whole reserve, the end is kept all the same, with its files."""
    part = FilePart("claude.log", "claude.log", 0, 7)
    with run_on(disk) as spool:
        use_up(disk, spool)
        spool.record_end(END, [part])
        assert spool.has_end
        assert not spool.is_off_disk
        lost_bytes = spool.lost_bytes
        killed = crash_copy(disk.folder / "spool.db", elsewhere)

    for path in (killed, disk.folder / "spool.db"):
        if path != killed:
            disk.make_room()
        with opened(path) as spool:
            assert (spool.fact("end"), spool.lost_bytes) == (END, lost_bytes)
            assert spool.waiting_parts() == [part]
            assert drain(spool)[-1][1].startswith(f"{lost_bytes} bytes of output (")


def test_room_that_comes_back_takes_the_end(disk: Disk) -> None:
    """The runner itself goes on with it, if there is room before it gives up."""
    with run_on(disk) as spool:
        use_up(disk, spool)
        spool.record_end(END, [])
        with pytest.raises(SpoolError, match="the disk is full"):
            spool.append_last(lambda _: text("finished"))
        disk.make_room()
        spool.use_room()
        drain(spool)

        assert spool.fact("end") == END
        assert spool.append_last(lambda _: text("finished"))
        assert not spool.is_tight


@pytest.mark.parametrize("moment", ["at once", "after a kill"])
def test_what_the_gateway_has_is_not_sent_again(
    moment: str, tmp_path: Path, elsewhere: Path
) -> None:
    """An answer that the disk does not take is known to this process, and to the next."""
    path = tmp_path / "spool.db"
    with opened(path, keeps_reserve=True) as spool:
        spool.append("stdout", text("one"))
        sent(spool)
        spool.append("stdout", text("two"))
        with nothing_is_written():
            for _ in range(3):
                with pytest.raises(SpoolError, match="the disk does not take it"):
                    spool.accept()
            with pytest.raises(SpoolError, match="the disk does not take it"):
                spool.cut(2, "second")
        killed = crash_copy(path, elsewhere)
        if moment == "at once":
            assert drain(spool) == [("stdout", "two")]
            assert spool.totals().events == 2
    if moment == "after a kill":
        with opened(killed) as spool:
            assert drain(spool) == [("stdout", "two")]
            assert spool.totals().events == 2
        assert not (elsewhere / "taken").exists()


@pytest.mark.parametrize("mark", ["taken", "spent"])
def test_an_answer_that_was_noted_counts_once(mark: str, tmp_path: Path) -> None:
    """A kill may come after the database took it, and before its file is gone."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("stdout", text("one"))
        sent(spool)
        spool.accept()
        (tmp_path / mark).touch()

    with opened(path) as spool:
        spool.append("stdout", text("two"))
        sent(spool)
        assert drain(spool) == [("stdout", "two")]


@pytest.mark.parametrize("moment", ["at once", "after a kill"])
@pytest.mark.parametrize("change", ["refreeze", "cut_smaller", "set_aside", "restore"])
def test_an_attempt_that_was_refused_is_not_repeated(
    change: str, moment: str, tmp_path: Path, elsewhere: Path
) -> None:
    """Its nonce is spent: repeated as it was, it would pass for one that was taken."""
    path = tmp_path / "spool.db"
    with opened(path, keeps_reserve=True) as spool:
        spool.append("stdout", text("one"))
        event = sent(spool)
        if change == "restore":
            event = spool.set_aside(text("refused"), 1, "first")
        act = getattr(spool, change)
        arguments = ([text("refused")] if change == "set_aside" else []) + [2, "second"]
        with nothing_is_written(), pytest.raises(SpoolError, match="the disk does not take it"):
            act(*arguments)
        killed = crash_copy(path, elsewhere)
        again = spool.cut(3, "third")
    if moment == "after a kill":
        with opened(killed) as spool:
            again = spool.cut(3, "third")
    assert again is not None
    assert (again.nonce, again.sequence, again.body) == ("third", event.sequence, event.body)


def test_off_the_disk(tmp_path: Path) -> None:
    """Where not even the end can be noted, it goes out from memory, and nothing stays behind."""
    path = tmp_path / "spool.db"
    with opened(path, keeps_reserve=True) as spool:
        spool.append("stdout", text("accepted\n"))
        drain(spool)
        spool.append("stdout", text("in flight\n"))
        event = sent(spool)
        spool.append("stdout", text("waiting\n"))
        spool.append("info", text("that too"))
        spool.append("marker", text("{}"))
        with nothing_is_written():
            assert not spool.append("stdout", text("printed meanwhile\n"))
            spool.record_end(END, [FilePart("claude.log", "claude.log", 0, 1)])

        assert spool.is_off_disk
        assert not list(tmp_path.glob("spool.db*"))
        missing = len("waiting\nprinted meanwhile\n")  # not the message that waited
        assert (spool.is_whole, spool.lost_bytes) == (False, missing)
        assert spool.cut(2, "n") == event, "its sequence may have been used"
        notice = (
            f"{missing} bytes of output (2 lines) and 1 messages of the runner are missing here: "
            "the disk was full"
        )
        spool.cut_smaller(3, "n")
        assert drain(spool) == [("stdout", "in flight\n"), ("error", notice)]
        assert spool.append_last(lambda totals: text(f"{totals.events} {totals.bytes}"))
        size = len(f"accepted\nin flight\n{notice}")
        assert drain(spool) == [("marker", f"3 {size}")]
        assert spool.next_upload() is not None
        spool.use_room()
        spool.wipe("token")
    assert not [each for each in tmp_path.iterdir() if each.is_file()]


def test_what_cannot_be_wiped_is_deleted(tmp_path: Path) -> None:
    """A disk that takes no change of the journal can still be rid of it."""
    path = tmp_path / "spool.db"
    with opened(path, keeps_reserve=True) as spool:
        spool.put_fact("token", "secret")
        with nothing_is_written():
            spool.wipe("token")

        assert not list(tmp_path.glob("spool.db*"))
    with opened(tmp_path / "other.db") as spool:
        spool.put_fact("token", "secret")
        with nothing_is_written(), pytest.raises(SpoolError):
            spool.wipe("token")
        assert spool.fact("token") == "secret", "without a run it stays, and is tried again"


def test_an_end_that_is_too_long_for_its_file(disk: Disk) -> None:
    """It is not cut: it goes out from memory."""
    with run_on(disk) as spool:
        use_up(disk, spool)
        spool.record_end({**END, "result": "x" * 70_000}, [])

        assert spool.is_off_disk
        assert spool.fact("end")["exitCode"] == 0


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"{", b"5\0", b'{"end":{},"parts":[[1]],"gap":[0,0]}', None]
)
def test_an_end_that_is_none_is_passed_over(content: bytes | None, tmp_path: Path) -> None:
    """What a torn write left, or nobody wrote, or lies elsewhere."""
    if content is None:
        (tmp_path / "elsewhere").write_text('{"end":{},"parts":[],"gap":[0,0]}')
        (tmp_path / "end").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "end").write_bytes(content)

    with opened(tmp_path / "spool.db") as spool:
        assert not spool.has_end


def test_a_full_disk_at_the_start_is_told(disk: Disk) -> None:
    """A run does not begin without its reserve, and takes no room then."""
    disk.fill()
    disk.leave(RESERVE_BYTES)

    with pytest.raises(SpoolError, match="No space left on device") as caught:
        Spool(disk.folder / "spool.db", redact=text, keeps_reserve=True)

    assert caught.value.is_disk_failure


def test_without_fallocate_the_reserve_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: real room, which no compression makes smaller."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with opened(tmp_path / "spool.db", keeps_reserve=True):
        status = (tmp_path / "reserve").stat()

        assert status.st_size == RESERVE_BYTES
        assert status.st_blocks * 512 >= RESERVE_BYTES
        assert len(set((tmp_path / "reserve").read_bytes()[:4_096])) > 100


# --- at random ------------------------------------------------------------------------------------


@dataclass
class _Gateway:
    """Takes events as the real one does, and knows what must not be."""

    nonces: set[str] = field(default_factory=set)
    events: list[tuple[str, str]] = field(default_factory=list)

    def send(self, event: FrozenEvent, dice: random.Random) -> str | None:
        """Return `taken`, `failed` (the nonce is spent), or None if the answer was lost."""
        if event.nonce in self.nonces:
            return "taken"
        answer = dice.choice(["taken"] * 6 + ["lost", "failed", "away"])
        if answer == "away":
            return None
        self.nonces.add(event.nonce)
        if answer == "failed":
            return answer
        assert event.sequence == len(self.events) + 1, "a sequence is used twice, or left out"
        self.events.append((event.type, data_of(event)))
        return None if answer == "lost" else "taken"


class _Run:
    """A run on a small disk: what it printed, and what its journal says of it."""

    def __init__(self, disk: Disk, elsewhere: Path, dice: random.Random) -> None:
        self.disk, self.elsewhere, self.dice = disk, elsewhere, dice
        self.path = disk.folder / "spool.db"
        self.gateway = _Gateway()
        self.printed: list[str] = []
        self.nonce_count = 0
        self.is_full = False
        # Whether somebody else takes whatever is free of a full disk.
        self.is_greedy = dice.random() < 0.5

    def nonce(self) -> str:
        self.nonce_count += 1
        return f"nonce-{self.nonce_count}"

    def act(self, spool: Spool) -> None:
        """Do one thing that a run does, or that happens to its disk."""
        if self.is_full and self.is_greedy:
            self.disk.fill()
        if self.dice.random() < 0.1:
            with nothing_is_written():
                self.act_once(spool)
        else:
            self.act_once(spool)

    def act_once(self, spool: Spool) -> None:
        act = self.dice.choice(["print"] * 4 + ["tell", "send", "send", "disk", "look", "command"])
        if act == "print":
            line = f"line {len(self.printed)} " + "." * self.dice.choice((10, 1_000, 30_000)) + "\n"
            self.printed.append(line)
            spool.append("stdout", text(line))
        elif act == "tell":
            spool.append("info", text("m" * self.dice.choice((10, 200_000))))
        elif act == "send":
            self.send(spool)
        elif act == "look":
            spool.use_room()
        elif act == "command":
            name = self.nonce()
            spool.record_command(name, text("ls"))
            spool.end_command(name, result=text("y" * 9_000))
        elif self.is_full and self.dice.random() < 0.3:
            self.disk.make_room()
            self.is_full = False
        else:
            self.disk.fill()
            self.is_full = True

    def send(self, spool: Spool) -> bool:
        event = spool.cut(1, self.nonce())
        if event is None:
            return False
        answer = self.gateway.send(event, self.dice)
        if answer == "taken":
            spool.accept()
        elif answer == "failed":
            spool.refreeze(1, self.nonce())
        return True

    def record_end(self, spool: Spool) -> None:
        """Record it, on a disk that may take nothing at all."""
        with nothing_is_written() if self.dice.random() < 0.2 else nullcontext():
            spool.record_end(END, [])

    def deliver(self, spool: Spool) -> None:
        """Deliver everything on a disk that has room again, and judge."""
        spool.use_room()
        self.drain(spool)
        assert spool.append_last(lambda totals: text(f"finished {totals.events}"))
        self.drain(spool)
        events = self.gateway.events
        assert events[-1] == ("marker", f"finished {len(events) - 1}")
        received = "".join(data for kind, data in events if kind == "stdout")
        numbers = [int(line.split()[1]) for line in received.splitlines()]
        assert numbers == sorted(set(numbers)), "doubled, or out of order"
        missing = len("".join(self.printed)) - len(received)
        told = [data for kind, data in events if kind == "error"]
        if spool.lost_bytes is None:
            assert told[-1].startswith("output may be missing here")
        else:
            assert spool.lost_bytes == missing
            in_place = sum(int(each.split()[0]) for each in told if "bytes of output" in each)
            assert in_place == missing or spool.is_off_disk
        assert spool.is_whole == (not told and not spool.is_off_disk)

    def drain(self, spool: Spool) -> None:
        while self.send(spool) or spool.has_pending:
            pass


@pytest.mark.parametrize("seed", range(20))
def test_at_random(seed: int, disk: Disk, elsewhere: Path) -> None:
    """Nothing twice, no sequence twice, order kept, and the right exit code.

    What is missing is told, exactly or as unknown. So it is whatever happens to the disk, and
    whenever the runner dies.
    """
    dice = random.Random(seed)
    run = _Run(disk, elsewhere, dice)
    with opened(run.path, keeps_reserve=True) as spool:
        for _ in range(dice.randrange(20, 150)):
            with suppress(SpoolError):
                run.act(spool)
        is_ended = dice.random() < 0.6
        if is_ended:
            run.record_end(spool)
        is_killed = not spool.is_off_disk and dice.random() < 0.5
        if is_killed:
            crash_copy(run.path, elsewhere)
        else:
            if run.is_full:
                disk.make_room()
            if not is_ended:
                run.record_end(spool)
            run.deliver(spool)
    if is_killed:
        with opened(elsewhere / "spool.db") as spool:
            if not is_ended:
                assert not spool.has_end
                spool.record_end({"exitCode": 137}, [])
            assert spool.fact("end")["exitCode"] == (0 if is_ended else 137)
            run.deliver(spool)


# --- version 0.1 ----------------------------------------------------------------------------------


def test_a_journal_of_version_0_1(tmp_path: Path) -> None:
    """It may have delivered text from memory, and kept of it nothing but the sizes."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("stdout", text("on the disk\n"))
        drain(spool)
        spool.put_fact("accepted", [3, 40, 1])

    with opened(path) as spool:
        assert spool.totals() == Totals(3, 40, None, 1)
        spool.append("stdout", text("é\n"))
        assert drain(spool) == [("stdout", "é\n")]
        assert spool.totals() == Totals(4, 43, None, 1)
        spool.record_end(END, [])
        assert spool.is_whole is None


def test_a_journal_that_stored_bodies(tmp_path: Path) -> None:
    """What its event in flight is sent as again are the bytes that it was sent as before."""
    path = tmp_path / "spool.db"
    with opened(path) as spool:
        spool.append("stdout", text('é "\\/ \x1b[1m\x7f\u2028\n'))
        frozen = spool.cut(1, "first")
    body = '{"type":"stdout","data":"é \\"\\\\/ \\u001b[1m\x7f\u2028\\n","sequence":1}'.encode()
    database = sqlite3.connect(path)
    database.execute("UPDATE events SET body = ?", (body,))
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()

    with opened(path) as spool:
        event = spool.cut(2, "second")

    assert event == frozen
    assert event is not None
    assert event.body == body


# --- not there, damaged ---------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The sentence names the journal and the reason, not an error number."""
    with pytest.raises(SpoolError, match=r"cannot be used: No such file or directory$"):
        Spool(tmp_path / "missing" / "spool.db", redact=text)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Without permission there is a sentence, for a user as for root."""
    script = (
        "import os, sys; from pathlib import Path; from journal.spool import Spool, SpoolError\n"
        "folder = Path(sys.argv[1]); folder.chmod(0o555)\n"
        "if os.geteuid() == 0:\n"
        "    folder.parent.chmod(0o755); os.setuid(65534)\n"
        "try:\n    Spool(folder / 'spool.db', redact=str)\n"
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
        Spool(path, redact=text)

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
        Spool(path, redact=text)


def test_a_journal_without_its_tables_is_told(tmp_path: Path) -> None:
    """One that opens and cannot be read is let go of again."""
    path = tmp_path / "spool.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 1")
    database.close()

    with pytest.raises(SpoolError, match="no such table"):
        Spool(path, redact=text)


def test_a_place_without_a_write_ahead_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite cannot keep its log, nothing is begun that a kill would lose."""
    monkeypatch.chdir(tmp_path)

    # The one place without such a log that there is on every machine.
    with pytest.raises(SpoolError, match="write-ahead log cannot use; set CLAUDE_RUNNER_DATA_DIR"):
        Spool(Path(":memory:"), redact=text)


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
