"""The journal on a disk that is full, failing, damaged or not there, and in memory meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from journal.events import Totals
from journal.spool import Spool, SpoolError
from journal.store import MAX_MEMORY_CHARS
from redact import RedactedText
from testing.journal import crash_copy, drain, opened, text

ROOT = Path(__file__).resolve().parents[2]


_FILL = """
import json, os, resource, signal, sys
from pathlib import Path
from journal.spool import Spool
from journal.store import MAX_MEMORY_CHARS

folder, how = Path(sys.argv[1]), sys.argv[2]
ballast = folder / "ballast"
ballast.write_bytes(b"x" * 2_000_000)
if how == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, hard))
spool = Spool(folder / "spool.db", redact=str)
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
report["what is too much is counted"] = spool.lost_bytes == MAX_MEMORY_CHARS + 1
append(1)
texts = {"stdout": "", "stderr": "", "error": ""}
while True:
    event = spool.cut(1, "n")
    if event is None or len(texts["stdout"]) > 2_000_000:
        break
    texts[event.type] += json.loads(event.body)["data"]
    spool.accept()
expected = {
    "stdout": "".join(each for number, each in enumerate(appended) if number % 3),
    "stderr": "".join(appended[::3]),
    "error": f"{MAX_MEMORY_CHARS + 1} bytes of output are missing here: "
    "the disk takes nothing more",
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
        "import os, sys; from pathlib import Path; from journal.spool import Spool, SpoolError\n"
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
        assert spool.lost_bytes == 0


def test_a_gap_is_told_in_its_place_and_at_the_end(tmp_path: Path) -> None:
    """In front of the next output that fits, and where none comes, before `finished`; redacted."""
    too_much = text("x" * (MAX_MEMORY_CHARS + 1))

    def redact(sentence: str) -> RedactedText:
        return text(sentence.replace(": the disk takes nothing more", " [REDACTED]"))

    with closing(Spool(tmp_path / "spool.db", redact=redact)) as spool:
        assert spool.go_on_in_memory("the disk is full")
        spool.append("stdout", too_much)
        spool.append("stderr", too_much)
        spool.append("marker", text("{}"))
        spool.append("stdout", text("after\n"))
        spool.append("stdout", text("and on\n"))
        spool.append("stdout", too_much)
        spool.record_end({}, [])

        assert spool.lost_bytes == 3 * len(too_much)
        assert drain(spool) == [
            ("marker", "{}"),
            ("error", f"{2 * len(too_much)} bytes of output are missing here [REDACTED]"),
            ("stdout", "after\nand on\n"),
            ("error", f"{len(too_much)} bytes of output are missing here [REDACTED]"),
        ]


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
