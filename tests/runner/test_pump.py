"""The pump between terminals and everybody else, and the user's own descriptors."""

from __future__ import annotations

import io
import os
import re
import socket
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redact import RedactedText, Rules
from runner import terminal
from runner.keeper import _SharedNote
from runner.mailbox import FilesTouched, KeysTyped, WakePipe, WorkerEnded, WorkerFailed
from runner.pump import Channel, Journal, PtyPump
from runner.sequences import ModeTracker
from runner.terminal import (
    LocalOutput,
    RawTerminal,
    Size,
    set_window_size,
    window_size,
)
from testing.tables import each_row
from testing.waiting import eventually

JOIN_S = 10.0
ESC = "\x1b"


def open_raw_terminal() -> tuple[int, int]:
    """Return a terminal's master and its other end, which changes nothing on the way."""
    master, slave = os.openpty()
    tty.setraw(slave)
    return master, slave


class Desk:
    """A pump with terminals in which the test plays the child, and all that the pump says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.published: list[tuple[str, str]] = []
        self.ended: list[KeysTyped | FilesTouched | WorkerFailed | WorkerEnded] = []
        self.slaves: list[int] = []
        self._fds: list[int] = []
        self._pump: PtyPump | None = None

    @property
    def pump(self) -> PtyPump:
        """The pump, which must have been started."""
        assert self._pump is not None
        return self._pump

    def start(
        self,
        *locals_: int | None,
        keyboard: int | None = None,
        journal: Journal | None = None,
        modes: ModeTracker | None = None,
        open_pair: Callable[[], tuple[int, int]] = open_raw_terminal,
    ) -> PtyPump:
        """Start a pump with a stream for each local descriptor; None shows it nowhere."""
        channels = []
        for stream, local in zip(("stdout", "stderr"), locals_ or (None,)):
            master, slave = open_pair()
            self.slaves.append(slave)
            output = None if local is None else LocalOutput(local)
            channels.append(Channel(stream, master, Rules(), output))
        self._pump = PtyPump(
            channels,
            (self._folder / "log").open("ab", buffering=0),
            modes=modes or ModeTracker(),
            keyboard_fd=keyboard,
            states=None,
            speaker=None,
            pipe=WakePipe(),
            note_undo=lambda _undo: None,
            journal=journal or self,
            tell_owner=self.ended.append,
        )
        self._pump.start()
        return self._pump

    def start_on_sockets(self) -> PtyPump:
        """Start a pump whose master ends with an end of file, where Linux's terminals have EIO."""

        def open_pair() -> tuple[int, int]:
            ours, theirs = socket.socketpair()
            return ours.detach(), theirs.detach()

        return self.start(open_pair=open_pair)

    def append(
        self, stream: str, text: RedactedText, *, slot: str = "", is_urgent: bool = False
    ) -> bool:
        """Note what the pump has for the journal."""
        del slot, is_urgent
        self.published.append((stream, text))
        return True

    def text(self, stream: str = "stdout") -> str:
        """Return what was published of a stream."""
        return "".join(text for each, text in self.published if each == stream)

    def wait_for(self, text: str, stream: str = "stdout") -> None:
        """Wait until a stream has this text."""

        def has_it() -> None:
            assert text in self.text(stream)

        eventually(has_it)

    @property
    def log(self) -> bytes:
        """What the log holds."""
        return (self._folder / "log").read_bytes()

    def pipe(self) -> tuple[int, int]:
        """Return a pipe that is closed at the end."""
        ends = os.pipe()
        self._fds += ends
        return ends

    def hang_up(self) -> None:
        """Close the child's side of every terminal."""
        while self.slaves:
            os.close(self.slaves.pop())

    def close(self) -> None:
        """End the pump and close everything."""
        self.hang_up()
        if self._pump is not None:
            self._pump.finish(0)
            self._pump.join(JOIN_S)
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk that is cleared at the end."""
    desk = Desk(tmp_path)
    yield desk
    desk.close()


# --- the pump --------------------------------------------------------------------------------


def test_streams_are_kept_apart(desk: Desk) -> None:
    """Each terminal's output is published under its own name, and both are in the log."""
    desk.start(None, None)

    os.write(desk.slaves[0], b"one\n")
    os.write(desk.slaves[1], b"two\n")

    desk.wait_for("one\n")
    desk.wait_for("two\n", "stderr")
    assert sorted(desk.log.splitlines()) == [b"one", b"two"]


def test_raw_output_does_not_get_past_the_pump(desk: Desk) -> None:
    """A secret is gone from what is published, from the log and from a local pipe alike."""
    reader, writer = desk.pipe()
    desk.start(writer)
    secret = "ghp_" + "Qw3r" * 9

    os.write(desk.slaves[0], f"a {secret} z\n".encode())
    desk.wait_for("z\n")

    assert desk.text() == "a [REDACTED] z\n"
    assert desk.log == os.read(reader, 1000) == b"a [REDACTED] z\n"


def test_a_terminal_shows_what_the_child_wrote(desk: Desk) -> None:
    """On a terminal nothing is held back or replaced, not even bytes that are no text."""
    screen, writer = os.openpty()
    desk._fds += (screen, writer)
    tty.setraw(writer)
    desk.start(writer)
    raw = b"\xff ghp_" + b"Qw3r" * 9 + b" \x1b[1"

    os.write(desk.slaves[0], raw)

    shown = b""
    while len(shown) < len(raw):
        shown += os.read(screen, 1000)
    assert shown == raw


@pytest.mark.parametrize("piece", ["é", "😀", f"{ESC}[38;5;1m", f"{ESC}]0;title\x07"])
def test_what_belongs_together_is_published_together(desk: Desk, piece: str) -> None:
    """Whatever the child's writes are, a character or escape sequence is published as a whole."""
    desk.start()
    raw = piece.encode()

    for cut in range(1, len(raw)):
        before = len(desk.published)
        os.write(desk.slaves[0], b"<")
        os.write(desk.slaves[0], raw[:cut])
        os.write(desk.slaves[0], raw[cut:] + b">\n")
        desk.wait_for(f"<{piece}>\n" * cut)
        assert any(piece in text for _, text in desk.published[before:])


@pytest.mark.parametrize("is_eof", [False, True], ids=["as here", "end of file, as on macOS"])
def test_the_end_of_output_is_seen(desk: Desk, is_eof: bool) -> None:
    """All that was written before the last writer left is published, the held part included."""
    pump = desk.start_on_sockets() if is_eof else desk.start()
    os.write(desk.slaves[0], b"x" * 3000 + b"\xe2\x82")

    desk.hang_up()
    pump.finish(3600)

    pump.join(JOIN_S)
    assert desk.text() == "x" * 3000 + "\ufffd"
    assert desk.ended == [WorkerEnded("pty-pump")]


def test_a_held_terminal_does_not_keep_the_end(desk: Desk) -> None:
    """With a writer that never leaves, the pump ends at the deadline with all there was."""
    pump = desk.start()
    os.write(desk.slaves[0], b"said")
    desk.wait_for("said")

    pump.finish(0.05)

    pump.join(JOIN_S)
    assert desk.ended == [WorkerEnded("pty-pump")]


class _FullJournal:
    """A journal that takes nothing."""

    def append(
        self, stream: str, text: RedactedText, *, slot: str = "", is_urgent: bool = False
    ) -> bool:
        raise OSError(28, f"No space left for {stream}: {text} {slot} {is_urgent}")


def test_a_crash_is_handed_to_the_owner(desk: Desk) -> None:
    """An error in the thread is told to who owns it, and the thread has ended."""
    pump = desk.start(journal=_FullJournal())
    os.write(desk.slaves[0], b"x\n")
    pump.join(JOIN_S)

    (end,) = desk.ended
    assert isinstance(end, WorkerEnded)
    assert isinstance(end.error, OSError)


def test_keys_and_typed_text_reach_the_child(desk: Desk) -> None:
    """Keys of the user and text of the operator are typed into the first terminal, as bytes."""
    keys_r, keys_w = desk.pipe()
    pump = desk.start(keyboard=keys_r)

    os.write(keys_w, bytes(range(256)))
    assert _read_exactly(desk.slaves[0], 256) == bytes(range(256))
    pump.type(b"\x03typed")
    assert _read_exactly(desk.slaves[0], 6) == b"\x03typed"
    assert desk.text() == ""


def test_a_child_that_does_not_read_keeps_nobody(desk: Desk) -> None:
    """With more typed than a terminal takes, output flows on, and every key arrives in the end."""
    pump = desk.start()
    typed = bytes(range(256)) * 1000

    pump.type(typed)
    os.write(desk.slaves[0], b"still here\n")
    desk.wait_for("still here\n")

    assert _read_exactly(desk.slaves[0], len(typed)) == typed


def test_keys_wait_while_the_keyboard_is_paused(desk: Desk) -> None:
    """A paused keyboard's keys are left for somebody else, and are read once it goes on."""
    keys_r, keys_w = desk.pipe()
    pump = desk.start(keyboard=keys_r)
    os.write(keys_w, b"1")
    assert _read_exactly(desk.slaves[0], 1) == b"1"

    pump.pause_keyboard(paused=True)
    pump.type(b"t")  # once this has come the thread knows of the pause
    assert _read_exactly(desk.slaves[0], 1) == b"t"
    os.write(keys_w, b"23")
    assert os.read(keys_r, 1) == b"2"
    pump.pause_keyboard(paused=False)

    assert _read_exactly(desk.slaves[0], 1) == b"3"


def test_a_keyboard_that_hung_up_is_let_go(desk: Desk) -> None:
    """The end of the keyboard is no error, and the operator can type on."""
    keys_r, keys_w = os.pipe()
    desk._fds.append(keys_r)
    pump = desk.start(keyboard=keys_r)

    os.close(keys_w)
    pump.type(b"x")

    assert _read_exactly(desk.slaves[0], 1) == b"x"


def test_a_stopped_reader_costs_nobody_else(desk: Desk) -> None:
    """A local pipe that nobody reads delays nothing; what it was not shown is counted."""
    reader, writer = desk.pipe()
    pump = desk.start(writer)
    text = "0123456789" * 20_000

    os.write(desk.slaves[0], text.encode())
    desk.wait_for(text)
    desk.hang_up()
    pump.finish(JOIN_S)

    pump.join(JOIN_S)
    os.set_blocking(reader, False)
    assert len(os.read(reader, 1 << 20)) + pump.unshown_bytes == len(text)
    assert pump.unshown_bytes > 0


def test_a_slow_reader_is_waited_for(desk: Desk) -> None:
    """A local reader that begins late is shown everything before the pump ends."""
    reader, writer = desk.pipe()
    pump = desk.start(writer)
    text = "0123456789" * 20_000
    os.write(desk.slaves[0], text.encode())
    desk.wait_for(text)

    desk.hang_up()
    pump.finish(JOIN_S)

    assert _read_exactly(reader, len(text)) == text.encode()
    pump.join(JOIN_S)
    assert pump.unshown_bytes == 0


def test_terminals_follow_the_window(desk: Desk) -> None:
    """A new size is given to every terminal of the child."""
    pump = desk.start(None, None)

    pump.resize(Size(101, 33))

    assert [window_size(slave) for slave in desk.slaves] == [Size(101, 33)] * 2


def test_endless_numbers_do_not_end_the_run(desk: Desk) -> None:
    """An escape sequence with a number of any length is output like any other."""
    desk.start()

    os.write(desk.slaves[0], b"\x1b[?" + b"9" * 6000 + b"h after\n")

    desk.wait_for("after\n")
    assert desk.ended == []


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


# --- the user's own descriptors --------------------------------------------------------------


def test_a_pipe_gets_everything_in_order(desk: Desk) -> None:
    """What a reader does not take at once follows in order when it reads."""
    reader, writer = desk.pipe()
    output = LocalOutput(writer)
    text = b"".join(b"%07d\n" % number for number in range(50_000))

    for at in range(0, len(text), 10_000):
        output.write(text[at : at + 10_000])
    assert output.is_waiting
    received = b""
    while len(received) < len(text):
        received += os.read(reader, 65_536)
        output.write_pending()
    output.close()

    assert received == text
    assert os.get_blocking(writer)


def test_a_gap_is_where_the_notice_says(desk: Desk) -> None:
    """Beyond what is kept output is dropped as a block, with a notice in the place of it."""
    reader, writer = desk.pipe()
    output = LocalOutput(writer)
    kept = b"k" * (terminal.MAX_PENDING_BYTES - 10)

    output.write(kept)
    output.write(b"p" * 100_000)  # most of it finds no room
    output.write(b"small")  # there would be room for this one
    received = bytearray()
    while output.is_waiting:
        received += os.read(reader, 1 << 20)
        output.write_pending()
    output.write(b"after")
    output.close()
    os.set_blocking(reader, False)
    received += os.read(reader, 1 << 20)

    shown, notice, after = re.split(rb"\r\n(\[.*\])\r\n", bytes(received))
    assert shown == kept
    assert notice.startswith(b"[100005 bytes were not shown here")
    assert after == b"after"


def test_a_reader_that_is_gone_is_no_error(desk: Desk) -> None:
    """Output for a reader that has gone is thrown away, and is not counted as unshown."""
    reader, writer = os.pipe()
    output = LocalOutput(writer)
    os.close(reader)

    output.write(b"x")
    output.write(b"y")

    assert not output.is_waiting
    assert output.unshown_bytes == 0
    output.close()
    os.close(writer)


def test_two_writers_of_a_full_pipe_do_not_block(desk: Desk) -> None:
    """Writers that share a pipe, as with `2>&1`, never wait for room that the other one took."""
    reader, writer = desk.pipe()
    outputs = [LocalOutput(writer), LocalOutput(writer)]
    has_stopped = threading.Event()

    def flood(output: LocalOutput) -> None:
        while not has_stopped.is_set():
            output.write(b"x" * 5000)

    threads = [threading.Thread(target=flood, args=(output,)) for output in outputs]
    for thread in threads:
        thread.start()
    for _ in range(300):
        os.read(reader, 4096)  # room for one of them
    has_stopped.set()

    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive()
    for output in outputs:
        output.close()


def test_a_socket_is_written_without_waiting(desk: Desk) -> None:
    """A socket as stdout, as some supervisors give it, is as good as a pipe and keeps its flags."""
    ours, theirs = socket.socketpair()
    output = LocalOutput(theirs.fileno())

    output.write(b"x" * 2_000_000)

    assert output.is_waiting
    assert theirs.getblocking()
    output.close()
    ours.close()
    theirs.close()


def test_a_file_gets_everything_at_once(tmp_path: Path) -> None:
    """A file is appended to where the shell's own position is."""
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"before ")
        output = LocalOutput(file.fileno())
        output.write(b"x" * 100_000)
        assert not output.is_waiting
        output.close()

    assert (tmp_path / "file").read_bytes() == b"before " + b"x" * 100_000


def test_a_stopped_terminal_is_written_later(desk: Desk) -> None:
    """A terminal that stands still (Ctrl-S) blocks nobody, and goes on where it was."""
    master, slave = os.openpty()
    desk._fds += (master, slave)
    tty.setraw(slave)
    output = LocalOutput(slave)
    termios.tcflow(slave, termios.TCOOFF)

    output.write(b"later")
    assert output.is_waiting
    termios.tcflow(slave, termios.TCOON)
    output.write_pending()

    assert os.read(master, 100) == b"later"
    assert os.get_blocking(slave)
    output.close()


def test_a_raw_terminal_is_restored(desk: Desk) -> None:
    """The attributes are exactly those from before, and a terminal that has gone is no error."""
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    terminal = RawTerminal(slave)

    terminal.enter()
    assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    terminal.restore()
    assert termios.tcgetattr(slave) == before == terminal.attributes
    os.close(master)
    terminal.restore()
    os.close(slave)


def test_sizes() -> None:
    """A size is what was set; no terminal, or one without a size, has none."""
    master, slave = os.openpty()
    assert window_size(slave) is None
    set_window_size(master, Size(81, 25))
    assert window_size(slave) == Size(81, 25)
    os.close(master)
    os.close(slave)
    with io.FileIO(os.devnull) as null:
        assert window_size(null.fileno()) is None


# --- what a terminal has to be freed from ----------------------------------------------------

MODE_ROWS: list[Any] = [
    pytest.param("text \x1b[1;31mred\x1b[0m", "", id="nothing"),
    pytest.param("\x1b[?25l|", "\x1b[?25h", id="cursor"),
    pytest.param("\x1b[?25l\x1b[?25h", "", id="cursor, undone"),
    pytest.param("\x1b[?1000;1006h", "\x1b[?1000l\x1b[?1006l", id="two in one"),
    pytest.param("\x1b[?1000;1006h\x1b[?1000l", "\x1b[?1006l", id="one of two undone"),
    pytest.param("\x1b[?1049h\x1b[?2004h", "\x1b[?2004l\x1b[?1049l", id="screen and paste"),
    pytest.param("\x1b[?7l", "\x1b[?7h", id="wrap"),
    pytest.param("\x1b[>1u\x1b[>5u", "\x1b[<2u", id="keyboard protocol, twice"),
    pytest.param("\x1b[>1u\x1b[>1u\x1b[>1u\x1b[<2u", "\x1b[<1u", id="two of three popped"),
    pytest.param("\x1b[>1u\x1b[<u", "", id="popped"),
    pytest.param("\x1b[<u\x1b[>1u", "\x1b[<1u", id="popped too often"),
    pytest.param("\x1b[>4;2m", "\x1b[>4m", id="other keys"),
    pytest.param("\x1b[>4;2m\x1b[>4m", "", id="other keys, undone"),
    pytest.param("\x1b=", "\x1b>", id="keypad"),
    pytest.param("\x1b[?25l\x1b[?1000h\x1bc", "", id="full reset"),
    pytest.param("\x1b[?" + "9" * 5000 + "h", "", id="an endless number"),
    pytest.param("\x1b[?2048h\x1b[?9001h", "\x1b[?2048l\x1b[?9001l", id="resize, keys"),
    pytest.param("\x1b[?5h\x1b[?69h\x1b[?123456h", "\x1b[?5l\x1b[?69l\x1b[?123456l", id="any mode"),
    pytest.param("\x1b[?1048h\x1b[?1048l\x1b[?4321l", "", id="no mode, and one that is off"),
    pytest.param("\x1b[?6h", "\x1b[?6l\x1b[999H", id="origin"),
    pytest.param("\x1b[?8l", "\x1b[?8h", id="keys that do not repeat"),
    pytest.param("\x1b[?2l", "\x1b<", id="VT52"),
    pytest.param("\x1b[4h\x1b[20h\x1b[2h", "\x1b[2l\x1b[4l\x1b[20l", id="insert, keyboard"),
    pytest.param("\x1b[12l", "\x1b[12h", id="echo by the terminal"),
    pytest.param("\x1b[4h\x1b[?1h\x1b[2;5r\x1b=\x1b[!p", "", id="soft reset"),
    pytest.param("\x1b[3 q", "\x1b[0 q", id="the cursor's shape"),
    pytest.param("\x1b[3 q\x1b[ q\x1b[1 q\x1b[0 q", "", id="the cursor's shape, undone"),
    pytest.param("\x1b[?17;0;64c", "\x1b[?0c", id="Linux's cursor"),
    pytest.param("\x1b[2;20r", "\x1b7\x1b[r\x1b8", id="scrolling region"),
    pytest.param("\x1b[?1049h\x1b[2;20r", "\x1b[r\x1b[?1049l", id="scrolling region there"),
    pytest.param("\x1b(0lqk", "\x1b(B", id="line drawing"),
    pytest.param("a\x0elqk", "\x0f", id="shifted out"),
    pytest.param("\x1b(0\x0elqk\x0f\x1b(B", "", id="line drawing, undone"),
    pytest.param("\x1bc\x0elqk", "\x0f", id="shifted out behind a reset"),
    pytest.param("\x0elqk\x1b[!p", "", id="shifted out before a reset"),
    pytest.param("\x1b%@\x1b G", "\x1b F\x1b%G", id="8 bits"),
    pytest.param("\x1b[=5u", "\x1b[=0u", id="keyboard flags set"),
    pytest.param("\x1b[>1u\x1b[=5u\x1b[<u\x1b[=5u\x1b[=0u", "", id="keyboard flags unset"),
    pytest.param("\x1b[>1u\x1b[?1049h\x1b[>3u", "\x1b[<1u\x1b[?1049l\x1b[<1u", id="two stacks"),
    pytest.param("\x1b[>1u\x1b[?1049h\x1b[>3u\x1b[<u\x1b[?1049l", "\x1b[<1u", id="one of two"),
    pytest.param("\x1b[>4;2m\x1b[>4;m\x1b[>1;3m\x1b[>m", "", id="all keys, undone"),
    pytest.param("\x1b[>4n\x1b[>0;1f\x1b[>1s", "\x1b[>0f\x1b[>4m\x1b[>0s", id="keys, otherwise"),
    pytest.param("\x1b[<0;3;4m", "", id="a click, echoed"),
    pytest.param("\x1b[22;0;0t\x1b[22;2t", "\x1b[23;2t\x1b[23;0t", id="titles"),
    pytest.param("\x1b[22;2t\x1b[22;1t\x1b[23;2t\x1b[23;1t", "", id="titles, undone"),
    pytest.param("\x1b]8;;https://a.test\x07link", "\x1b]8;;\x1b\\", id="link"),
    pytest.param("\x1b]8;i=1;https://a.test\x07link\x1b]8;;\x1b\\", "", id="link, undone"),
    pytest.param("\x1b]9;4;1;50\x07", "\x1b]9;4;0\x1b\\", id="progress"),
    pytest.param("\x1b]9;4;3\x07\x1b]9;4;0;\x07", "", id="progress, undone"),
    pytest.param("\x1b]11;#300\x07\x1b]4;1;red\x07", "\x1b]104\x1b\\\x1b]111\x1b\\", id="colours"),
    pytest.param("\x1b]11;?\x07\x1b]10;red\x07\x1b]110\x07", "", id="colours asked, and undone"),
    pytest.param("\x1b]22;wait\x07", "\x1b]22;\x1b\\", id="pointer"),
    pytest.param("a \x1b]52;c;YWJj", "\x1b\\", id="killed inside a string"),
    pytest.param("a \x1b]0;title\x07 \x1bP+q\x1b\\ b", "", id="strings with an end"),
    pytest.param("\x1b]0;" + "t" * 300 + "\x07", "", id="a long string with an end"),
    pytest.param("\x1b[1;31mred", "", id="red"),
    pytest.param("\x1b[38;5;0mblack\x1b[2K", "", id="black"),
    pytest.param("\x1b[?1;1000;2004;25l", "\x1b[?25h", id="all off"),
]
# Here nothing but the colours is undone.
COLORED = {"\x1b[1;31mred", "\x1b[38;5;0mblack\x1b[2K"}


@each_row(("output", "undo"), MODE_ROWS)
def test_modes_are_undone(output: str, undo: str) -> None:
    """What was switched on and not off again is undone, wherever the output is split."""
    raw = output.encode()
    expected = undo.encode() + (b"\x1b[0m" if undo or output in COLORED else b"")

    for cut in range(min(len(raw), 60) + 1):
        tracker = ModeTracker()
        tracker.feed(raw[:cut])
        tracker.feed(raw[cut:])
        assert tracker.undo() == expected, cut
    bytewise = ModeTracker()
    for at in range(len(raw)):
        bytewise.feed(raw[at : at + 1])
    assert bytewise.undo() == expected


def test_what_undoes_hostile_output_fits_into_the_keepers_memory() -> None:
    """A program that switches on whatever there is does not switch off the undoing."""
    tracker = ModeTracker()
    tracker.feed(
        b"".join(b"\x1b[?%dh\x1b[>%d;1m\x1b[22;0t" % (n, n) for n in range(100_000, 100_500))
    )
    note = _SharedNote()

    note.write(tracker.undo())

    assert note.read() == tracker.undo() != b""
