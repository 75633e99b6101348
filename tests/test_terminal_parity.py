"""The screen of well-known programs is the same with the runner as without it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from testing import processes
from testing.runner import plan, program
from testing.screen import Screen
from testing.strict_gateway import StrictGateway
from testing.terminal import Terminal
from testing.waiting import eventually

COLUMNS, LINES = 90, 30
# Resized to, in the middle.
SMALLER = (70, 20)
PASTED_BYTES = 1_000_000

SHELL = ["bash", "--norc", "--noprofile", "-i"]
VI = [shutil.which("vim") or "vi", "-u", "NONE", "-i", "NONE", "-n", "text"]
# Keys, each with what is on the screen when they have done their work.
SCRIPTS: dict[str, tuple[Sequence[str], list[tuple[bytes, str]]]] = {
    "bash": (
        SHELL,
        [
            (b"", r"SHELL>$"),
            (b"printf '\\e[31mred\\e[0m %s\\n' word\r", r"\nred word\n+SHELL>$"),
            (b"echo thr\x1b[D\x1b[Dx", r"echo txhr$"),
            (b"\x03", r"\nSHELL>$"),
            (b"sh -c 'echo up; exec sleep 60'\r", r"\nup$"),
            (b"\x1a", r"Stopped +sh -c .*\n+SHELL>$"),
            (b"fg\r", r"SHELL> fg\nsh -c .*$"),
            (b"\x03", r"\^C\n+SHELL>$"),
            (b"clear\r", r"^SHELL>$"),
            (b"test -t 0 && test -t 1 && test -t 2 && tty_is=ok; echo $tty_is\r", r"\nok\n"),
        ],
    ),
    "vim": (
        VI,
        [
            (b"", r"^line 1 of the text"),
            (b"10GoNew words\x1b", r"New words"),
            (b":set number\r", r" 1 line 1 of"),
            (b"/line 40\r", r"line 40 of"),
            (b"dd:%s/of the/OF THE/\r", r"OF THE text"),
        ],
    ),
    "less": (
        ["less", "text"],
        [
            (b"", r"^line 1 of the text"),
            (b" ", r"line 30 of the text"),
            (b"/line 77\r", r"^line 77 of"),
            (b"-N\r", r" 77 line 77 of"),
            (b"g", r"^ +1 line 1 of"),
        ],
    ),
}


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit; what it objects to fails the test."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def perform(
    argv: list[str], env: dict[str, str], folder: Path, name: str, announcement: bytes = b""
) -> list[object]:
    """Type the script; return a picture after each step, one after a resize among them."""
    _, steps = SCRIPTS[name]
    pictures: list[object] = []
    with Terminal(argv, env=env, cwd=folder, columns=COLUMNS, lines=LINES) as terminal:
        screen = Screen(terminal, COLUMNS, LINES, announcement)
        for keys, pattern in steps:
            terminal.send(keys)
            screen.wait_for(pattern)
            screen.wait_until_still()
            pictures.append(screen.picture())
        if name != "bash":  # which draws nothing anew
            screen.resize(*SMALLER)
            eventually(lambda: _expect_small(screen), 10.0)
            screen.wait_until_still()
            pictures.append(screen.picture())
    return pictures


def _expect_small(screen: Screen) -> None:
    last = screen.text().split("\n")
    assert 15 <= len(last) <= SMALLER[1]


def environment(folder: Path) -> dict[str, str]:
    """Return settings under which the programs look the same everywhere."""
    return {
        "PS1": "SHELL> ",
        "HISTFILE": "",
        "INPUTRC": os.devnull,
        "LESSHISTFILE": "-",
        "LESS": "",
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        "HOME": str(folder),
        "VIMINIT": "",
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_screen_is_the_same(gw: StrictGateway, tmp_path: Path, name: str) -> None:
    """After the same keys each cell, its colour and the cursor are the same."""
    command, _ = SCRIPTS[name]
    (tmp_path / "text").write_text("".join(f"line {n} of the text\n" for n in range(1, 101)))
    launch = plan(gw, command, tmp_path, prompt=None, env=environment(tmp_path))

    alone = perform(list(command), {**os.environ, **environment(tmp_path)}, tmp_path, name)
    with_runner = perform(launch.argv, launch.env, tmp_path, name, b"with --cmd\r\n")

    assert with_runner == alone
    assert alone


# `top` with one process that does nothing, and too slow to draw anything by itself. Its keys: the
# screen as it comes, colours, the sorted column, whole command lines, help, back.
TOP = ["top", "-d", "600", "-p"]
TOP_KEYS = [
    (b"", r"^top - .*\nTasks: (?s:.*)PID USER"),
    (b"z", r"PID USER"),
    (b"x", r"PID USER"),
    (b"c", r"sleep 600"),
    (b"h", r"Help for Interactive Commands"),
    (b"\x1b", r"^top - .*\nTasks: (?s:.*)PID USER"),
]
# A figure with the blanks before it, which are its room: load and memory are others each time.
FIGURE = re.compile(r" *\d[\d.:]*")
# In the first line figures are as wide as they are, and "59 min" becomes "1:00".
UPTIME = re.compile(r"up .*?, +\d+ users?")
PLAIN = ("default", "default", False, False)


def picture_of_top(screen: Screen) -> object:
    """Return each cell with its colours, figures masked in place, and the cursor."""
    lines, cursor, is_hidden, colours = screen.picture()
    assert isinstance(colours, dict)
    head = FIGURE.sub("#", UPTIME.sub("up #", lines[0])).rstrip()
    cells = [
        [(sign, colours.get((y, x), PLAIN)) for x, sign in enumerate(masked)]
        for y, line in enumerate(lines[1:], start=1)
        for masked in [FIGURE.sub(lambda figure: "#" * len(figure[0]), line)]
    ]
    return head, cells, cursor, is_hidden


def watch_with_top(
    argv: list[str], env: dict[str, str], folder: Path, announcement: bytes = b""
) -> list[object]:
    """Press the keys; return a picture after each, and one after a resize."""
    pictures = []
    with Terminal(argv, env=env, cwd=folder, columns=COLUMNS, lines=LINES) as terminal:
        screen = Screen(terminal, COLUMNS, LINES, announcement)
        for keys, pattern in TOP_KEYS:
            terminal.send(keys)
            screen.wait_for(pattern)
            screen.wait_until_still()
            pictures.append(picture_of_top(screen))
        screen.resize(*SMALLER)
        screen.wait_for(r"(?m)^ *PID USER .*TIME\+$")  # the last column has no room any more
        screen.wait_until_still()
        pictures.append(picture_of_top(screen))
        terminal.send(b"q")
        assert terminal.wait() == 0
        assert terminal.attributes() == terminal.first_attributes
    return pictures


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has this top")
def test_the_screen_of_top_is_the_same(gw: StrictGateway, tmp_path: Path) -> None:
    """Layout, words, colours and cursor are the same; what a figure says is not compared."""
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        command = [*TOP, str(sleeper.pid)]
        launch = plan(gw, command, tmp_path, prompt=None, env=environment(tmp_path))
        try:
            alone = watch_with_top(command, {**os.environ, **environment(tmp_path)}, tmp_path)
            with_runner = watch_with_top(launch.argv, launch.env, tmp_path, b"with --cmd\r\n")
        finally:
            sleeper.kill()

    for with_it, without in zip(with_runner, alone):
        assert with_it == without
    assert len(alone) == len(TOP_KEYS) + 1 == len(with_runner)


# --- paste --------------------------------------------------------------------------------------

# Reads a paste in raw mode, slowly enough to be behind, and tells its checksum.
READS = program(f"""
import hashlib, os, tty
tty.setraw(0)
os.write(1, b"READY\\r\\n")
left, digest = {PASTED_BYTES}, hashlib.sha256()
while left:
    keys = os.read(0, 1_000)
    left -= len(keys)
    digest.update(keys)
os.write(1, b"GOT " + digest.hexdigest().encode() + b"\\r\\n")
os.read(0, 1)
""")
# Reads nothing, but has its terminal in the usual mode, where Ctrl-C is a signal.
READS_NOT = program("""
import os, signal, sys, time
def end(*_):
    os.write(1, b"INTERRUPTED\\n")
    sys.exit(5)
signal.signal(signal.SIGINT, end)
os.write(1, b"READY %d\\n" % os.getpid())
while True:
    signal.pause()
""")


def test_a_pasted_megabyte_arrives(gw: StrictGateway, tmp_path: Path) -> None:
    """A child that reads gets every byte of a paste, in order."""
    import hashlib

    pasted = b"".join(b"%07d\r" % number for number in range(PASTED_BYTES // 8))
    launch = plan(gw, READS, tmp_path, prompt=None)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        terminal.send(pasted)
        terminal.expect(b"GOT " + hashlib.sha256(pasted).hexdigest().encode(), 30.0)
        terminal.send(b"q")
        assert terminal.wait() == 0


def test_a_paste_that_nobody_reads(gw: StrictGateway, tmp_path: Path) -> None:
    """Lines that a child does not read wait and block nobody: a stop ends it as always."""
    launch = plan(gw, READS_NOT, tmp_path, prompt=None)

    with Terminal(launch.argv, env=launch.env) as terminal:
        before = terminal.attributes()
        terminal.expect(b"READY")
        pid = launch.expect_pid()
        terminal.send(b"a line\r" * 5_000)
        gw.stop(launch.run.id)
        terminal.expect(b"INTERRUPTED")
        assert terminal.wait() == 5
        assert terminal.attributes() == before
        processes.assert_gone([pid])


def test_ctrl_c_behind_a_paste_that_nobody_reads(gw: StrictGateway, tmp_path: Path) -> None:
    """Ctrl-C still interrupts a child that reads nothing, when a paste stands before it."""
    launch = plan(gw, READS_NOT, tmp_path, prompt=None)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        terminal.send(b"x" * PASTED_BYTES)
        terminal.send(b"\x03")
        terminal.expect(b"INTERRUPTED")
        assert terminal.wait() == 5
