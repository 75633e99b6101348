"""The screen of well-known programs is the same with the runner as without it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.needs import needs
from testing.programs import processes
from testing.programs.runner import plan, program
from testing.programs.screen import Screen
from testing.programs.terminal import Terminal
from testing.waiting import eventually

COLUMNS, LINES = 90, 30
# Resized to, in the middle.
SMALLER = (70, 20)
PASTED_BYTES = 1_000_000

SHELL = ["bash", "--norc", "--noprofile", "-i"]
VI = [shutil.which("vim") or "vi", "-u", "NONE", "-i", "NONE", "-n", "text"]


@dataclass(frozen=True)
class Script:
    """A program, and what is typed into it: keys, each with what they have to bring about.

    `redrawn` waits until it has drawn itself anew after a resize, where it does; `picture` is what
    is compared; `ending` are keys that end it well.
    """

    command: Sequence[str]
    steps: Sequence[tuple[bytes, str]]
    redrawn: Callable[[Screen], object] | None = None
    picture: Callable[[Screen], object] = Screen.picture
    ending: bytes = b""


def expect_small(screen: Screen) -> None:
    """Wait until it has taken the smaller size."""

    def is_small() -> None:
        assert 15 <= len(screen.text().split("\n")) <= SMALLER[1]

    eventually(is_small, 10.0)


SCRIPTS = {
    "bash": Script(
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
    "vim": Script(
        VI,
        [
            (b"", r"^line 1 of the text"),
            (b"10GoNew words\x1b", r"New words"),
            (b":set number\r", r" 1 line 1 of"),
            (b"/line 40\r", r"line 40 of"),
            (b"dd:%s/of the/OF THE/\r", r"OF THE text"),
        ],
        expect_small,
    ),
    "less": Script(
        ["less", "text"],
        [
            (b"", r"^line 1 of the text"),
            (b" ", r"line 30 of the text"),
            (b"/line 77\r", r"^line 77 of"),
            (b"-N\r", r" 77 line 77 of"),
            (b"g", r"^ +1 line 1 of"),
        ],
        expect_small,
    ),
}


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit; what it objects to fails the test."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def perform(
    script: Script, argv: list[str], env: dict[str, str], folder: Path, announcement: bytes = b""
) -> list[object]:
    """Type the script; return a picture after each step, one after a resize among them."""
    pictures: list[object] = []
    with Terminal(argv, env=env, cwd=folder, columns=COLUMNS, lines=LINES) as terminal:
        screen = Screen(terminal, COLUMNS, LINES, announcement)
        for keys, pattern in script.steps:
            terminal.send(keys)
            screen.wait_for(pattern)
            screen.wait_until_still()
            pictures.append(script.picture(screen))
        if script.redrawn is not None:
            screen.resize(*SMALLER)
            script.redrawn(screen)
            screen.wait_until_still()
            pictures.append(script.picture(screen))
        if script.ending:
            terminal.send(script.ending)
            assert terminal.wait() == 0
            assert terminal.attributes() == terminal.first_attributes
    return pictures


def perform_twice(
    gateway: StrictGateway, script: Script, folder: Path
) -> tuple[list[object], list[object]]:
    """Return the pictures without the runner, and those with it."""
    env = environment(folder)
    launch = plan(gateway, script.command, folder, prompt=None, env=env)
    alone = perform(script, list(script.command), {**os.environ, **env}, folder)
    return alone, perform(script, launch.argv, launch.env, folder, b"with --cmd\r\n")


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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(SCRIPTS[name].command[0])) for name in SCRIPTS]
)
def test_the_screen_is_the_same(gw: StrictGateway, tmp_path: Path, name: str) -> None:
    """After the same keys each cell, its colour and the cursor are the same."""
    (tmp_path / "text").write_text("".join(f"line {n} of the text\n" for n in range(1, 101)))

    alone, with_runner = perform_twice(gw, SCRIPTS[name], tmp_path)

    assert with_runner == alone
    assert alone


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


# With one process that does nothing, and too slow to draw anything by itself. Its keys: the screen
# as it comes, colours, the sorted column, whole command lines, help, back.
TOP = Script(
    ["top", "-d", "600", "-p"],
    [
        (b"", r"^top - .*\nTasks: (?s:.*)PID USER"),
        (b"z", r"PID USER"),
        (b"x", r"PID USER"),
        (b"c", r"sleep 600"),
        (b"h", r"Help for Interactive Commands"),
        (b"\x1b", r"^top - .*\nTasks: (?s:.*)PID USER"),
    ],
    # The last column has no room any more, nor, with long process ids, the one before it.
    redrawn=lambda screen: screen.wait_for(r"(?m)^ *PID USER .*%MEM(?!.*COMMAND)"),
    picture=picture_of_top,
    ending=b"q",
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has this top")
@needs("top")
def test_the_screen_of_top_is_the_same(gw: StrictGateway, tmp_path: Path) -> None:
    """Layout, words, colours and cursor are the same; what a figure says is not compared."""
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            top = replace(TOP, command=[*TOP.command, str(sleeper.pid)])
            alone, with_runner = perform_twice(gw, top, tmp_path)
        finally:
            sleeper.kill()

    for with_it, without in zip(with_runner, alone):
        assert with_it == without
    assert len(alone) == len(TOP.steps) + 1 == len(with_runner)


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
