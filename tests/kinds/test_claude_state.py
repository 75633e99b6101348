"""What Claude Code's window title and bell tell about who is waiting."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.claude import StateWatcher
from kinds.claude_sessions import SessionNotes
from kinds.profile import WAITING, WORKING
from testing.tables import each_row


def state_of(*pieces: bytes) -> str | None:
    """Return the state after these pieces of output."""
    watcher = StateWatcher()
    for piece in pieces:
        watcher.feed(piece)
    return watcher.state


def title(text: str, number: int = 0, end: str = "\x07") -> bytes:
    """Return the sequence that sets a window's title."""
    return f"\x1b]{number};{text}{end}".encode()


WORKS = title("\u25d0 Claude Code")
WAITS = title("\u2733 Claude Code")

CASES = [
    pytest.param(b"", None, id="nothing"),
    pytest.param(b"plain \x1b[1mtext\x1b[0m\r\n", None, id="no title"),
    pytest.param(WAITS, None, id="a star alone: in tmux it stays whatever is done"),
    pytest.param(WAITS + b"\x07", None, id="a bell before any work"),
    pytest.param(WORKS + WAITS, WAITING, id="star"),
    *(
        pytest.param(title(f"{sign} x"), WORKING, id=f"circle {sign}")
        for sign in "\u25d0\u25d1\u25d2\u25d3"
    ),
    *(
        pytest.param(title(f"{sign} x"), WORKING, id=f"dots {sign}")
        for sign in "\u2800\u2802\u2810\u28ff"
    ),
    pytest.param(title("\u25d0 x", 2, "\x1b\\"), WORKING, id="the other spelling"),
    pytest.param(WAITS + WORKS, WORKING, id="the last one counts"),
    pytest.param(WORKS + title(""), WORKING, id="an empty title says nothing"),
    pytest.param(WORKS + title("vim \u2733"), WORKING, id="a sign inside of a title"),
    pytest.param(title("user@host: ~"), None, id="a shell's title"),
    pytest.param(title("\u2733 x", 1), None, id="the icon's name"),
    pytest.param(WORKS + b"\x07", WAITING, id="bell"),
    pytest.param(WORKS + b"\x1b]8;;http://x\x07link\x1b]8;;\x07", WORKING, id="a link's end"),
    pytest.param(WORKS + b"\x1b]9;4;1;50\x07", WORKING, id="a progress bar's end"),
    pytest.param(WORKS + b"\x1b]52;c;" + b"QUJD" * 500 + b"\x07", WORKING, id="a long one's end"),
    pytest.param(WORKS + b"\x1bP+q\x07\x1b\\", WORKING, id="a bell inside of a string"),
    pytest.param(WORKS + b"\x1bP+q\x07\x07\x1b\\", WORKING, id="two bells inside of a string"),
    pytest.param(WORKS + b"\x1bc\x07", WAITING, id="a bell behind an escape"),
    pytest.param(WORKS + WORKS[1:], WAITING, id="a title without its beginning"),
    pytest.param(WORKS + b"\x1b]0;\xe2\x9c\x18\x07", WAITING, id="cancelled, then a bell"),
    pytest.param(WORKS + b"\x1b]0;lost\x1b[m" + WAITS, WAITING, id="a title without an end"),
    pytest.param(b"\x1b]0;lost" + WORKS, WORKING, id="a title inside of a title"),
    pytest.param(WORKS + b"\x1b\x1b" + WAITS, WAITING, id="escapes before it"),
    pytest.param(b"\x1b]0;\xff\xfe\x07", None, id="no text"),
]


@each_row(("output", "state"), CASES)
def test_signs_are_read(output: bytes, state: str | None) -> None:
    """Each sign means what it means, whole and a byte at a time."""
    assert state_of(output) == state
    assert state_of(*(output[at : at + 1] for at in range(len(output)))) == state


PIECES = st.one_of(
    st.sampled_from(
        [WORKS, WAITS, b"\x1b", b"\x07", b"\x1b\\", b"\x1b]0;", b"\x1b]8;;", b"\x1bP", b"\x18",
         "\u2733".encode(), "\u25d0".encode(), b"\x1b[?25h", b"x" * 600]
    ),
    st.binary(max_size=4),
)  # fmt: skip


@given(pieces=st.lists(PIECES, max_size=12), cuts=st.lists(st.integers(0, 4_000), max_size=8))
def test_how_it_is_cut_makes_no_difference(pieces: list[bytes], cuts: list[int]) -> None:
    """Any split of any output gives the state that the whole of it gives."""
    output = b"".join(pieces)
    places = sorted({0, len(output), *(min(cut, len(output)) for cut in cuts)})

    parts = [output[begin:end] for begin, end in zip(places, places[1:])]

    assert state_of(*parts) == state_of(output)


def test_what_never_ends_costs_nothing() -> None:
    """A string without an end is not kept."""
    watcher = StateWatcher()
    watcher.feed(b"\x1b]0;")

    for _ in range(100):
        watcher.feed(b"x" * 10_000)

    assert max(len(each) for each in vars(watcher).values() if isinstance(each, bytes)) < 100


# --- its own notes, where titles say nothing ---------------------------------------------------


def watch(folder: Path) -> StateWatcher:
    """Return a watcher of this process's own session."""
    watcher = StateWatcher(SessionNotes(folder))
    watcher.begin(os.getsid(0))
    return watcher


def note(folder: Path, status: Any, pid: int = 0, kind: Any = "interactive") -> None:
    """Write a note about a process, this one if none is named."""
    text = json.dumps({"status": status, "kind": kind})
    (folder / f"{pid or os.getpid()}.json").write_text(text)


def looked(watcher: StateWatcher) -> str | None:
    """Return the state after a look."""
    watcher.look()
    return watcher.state


def test_notes_say_what_a_title_does_not(tmp_path: Path) -> None:
    """Each status is told as it is noted, and a star that stays changes nothing."""
    watcher = watch(tmp_path)
    assert looked(watcher) is None  # no note yet
    watcher.feed(WAITS)
    said = []

    for status in ("idle", "busy", "waiting", "busy", "shell"):
        note(tmp_path, status)
        watcher.feed(WAITS)
        said.append(looked(watcher))

    assert said == [WAITING, WORKING, WAITING, WORKING, WAITING]
    assert watcher.look_every_s is not None


def test_titles_that_are_kept_up_are_enough(tmp_path: Path) -> None:
    """From the first title that shows work on, notes are not looked at."""
    watcher = watch(tmp_path)
    note(tmp_path, "idle")

    watcher.feed(WORKS)

    assert (looked(watcher), watcher.look_every_s) == (WORKING, None)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "7", '{"status": 1, "kind": "interactive"}', "[" * 30_000,
             '{"status": "busy"}', '{"status": "busy", "kind": "bg"}',
             '{"status": "news", "kind": "interactive"}']
)  # fmt: skip
def test_an_odd_note_says_nothing(tmp_path: Path, text: str) -> None:
    """A note that is half written, of another kind or unknown tells no state."""
    (tmp_path / f"{os.getpid()}.json").write_text(text)

    assert looked(watch(tmp_path)) is None


def test_a_note_of_another_session_says_nothing(tmp_path: Path) -> None:
    """Another terminal's Claude Code, one that has ended, and files that are no notes."""
    with Popen([sys.executable, "-c", "input()"], stdin=PIPE, start_new_session=True) as other:
        note(tmp_path, "busy", other.pid)
        note(tmp_path, "busy", 2**22 + 1)
        note(tmp_path, "busy", 10**40)
        os.mkfifo(tmp_path / "x.json")

        assert looked(watch(tmp_path)) is None
        assert looked(watch(tmp_path / "missing")) is None
        assert looked(StateWatcher(SessionNotes(tmp_path))) is None  # not begun
        other.communicate(b"\n")
