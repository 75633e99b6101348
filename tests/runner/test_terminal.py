"""A session at the keyboard: it looks and feels as if the runner were not there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.sequences import TextFilter
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.runner import Kind, Launch, RunnerProcess, child, plan, program
from testing.programs.terminal import Terminal
from testing.waiting import eventually

# What it switches on: alternate screen, mouse, no cursor, kitty's keyboard, bracketed paste,
# reports of a new size, inserting, another cursor; and a progress bar.
MODES = "\x1b[?1049h\x1b[?1000;1006h\x1b[?25l\x1b[>1u\x1b[?2004;2048h\x1b[4h\x1b[3 q\x1b]9;4;3\x07"
UNDO = (
    b"\x1b[<1u\x1b[4l\x1b]9;4;0\x1b\\\x1b[?25h\x1b[?1000l\x1b[?1006l\x1b[?2004l\x1b[?2048l\x1b[0 q"
    b"\x1b[?1049l\x1b[0m"
)

# A full-screen program: raw keys, modes switched on and never off. A key `x` is a crash.
SCREEN = program(f"""
import os, sys, termios, tty
tty.setraw(0)
os.write(1, {MODES!r}.encode() + b"READY %d\\r\\n" % os.getpid())
while True:
    keys = os.read(0, 1000)
    if keys == b"x":
        os.abort()
    os.write(1, b"KEYS " + keys.hex().encode() + b"\\r\\n")
""")

# Switches a mode on, and suspends itself as an editor does at Ctrl-Z.
SUSPENDS = program(f"""
import os, signal
os.write(1, {MODES!r}.encode() + b"READY %d\\r\\n" % os.getpid())
os.kill(os.getpid(), signal.SIGTSTP)
signal.pause()
""")


# Asks the terminal what it is and where its cursor is. At each `.` it tells what came before it.
ASKS = program("""
import os, signal, tty
signal.signal(signal.SIGINT, signal.SIG_DFL)
tty.setraw(0)
os.write(1, b"\\x1b[c\\x1b[6nASKED\\r\\n")
got = b""
while True:
    got += os.read(0, 1000)
    while b"." in got:
        came, _, got = got.partition(b".")
        os.write(1, b"CAME <" + came.hex().encode() + b">\\r\\n")
""")
QUERIES = b"\x1b[c\x1b[6nASKED\r\n"

# Runs a command, and looks all the time whether a descriptor of its own has got O_NONBLOCK: a flag
# of the open terminal, which both share. Each look is a byte in the file `looks`.
WATCHES = program("""
import os, subprocess, sys
seen = set()
process = subprocess.Popen(sys.argv[1:])
with open("looks", "ab", buffering=0) as looks:
    while True:
        is_over = process.poll() is not None
        seen.update(number for number in (0, 1, 2) if not os.get_blocking(number))
        looks.write(b".")
        if is_over:
            break
        try:
            process.wait(0.005)
        except subprocess.TimeoutExpired:
            pass
print("CODE", process.returncode, "NONBLOCKING", sorted(seen), flush=True)
""")

# The promise, and what a loaded machine may add to it: both processes, journal and gateway.
GONE_WITHIN_S = 2.0
LOADED_S = 3.0


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit; what it objects to fails the test."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def session(gw: StrictGateway, command: list[str], folder: Path, **more: Any) -> Launch:
    """Prepare a run without a prompt."""
    return plan(gw, command, folder, prompt=None, **more)


def finished(launch: Launch) -> dict[str, Any]:
    """Return the `finished` marker, after the gateway's own check of it."""
    assert launch.gateway.verify_finished(launch.run.id) == []
    (marker,) = launch.gateway.markers(launch.run.id, "finished")
    return marker


def test_the_child_sees_the_users_terminal(gw: StrictGateway, tmp_path: Path, kind: Kind) -> None:
    """The child has one terminal of the user's size on 0, 1 and 2, follows it, and is announced."""
    launch = session(gw, child("tty_report.py"), tmp_path, env={"TERM": "xterm-test"}, kind=kind)

    with Terminal(launch.argv, env=launch.env, columns=97, lines=31) as terminal:
        start = terminal.expect(b"READY").decode()
        terminal.resize(61, 17)
        terminal.expect(b"SIZE 61 17")
        gw.wait_for(lambda: gw.markers(launch.run.id, "resized"))
        terminal.send(b"\x04")
        terminal.expect(b"EOF")
        assert terminal.wait() == 0

    announcement, *report = start.rpartition("\x1b[K")[2].split("\r\n")
    leaving = f"{kind.program}: this session ends when you leave {kind.title}; "
    assert announcement.startswith(leaving)
    assert "--cmd" in announcement
    assert report[:4] == ["TTY 1 1 1", "SIZE 97 31", "FOREGROUND yes", "TERM xterm-test"]
    (started,) = gw.markers(launch.run.id, "started")
    assert (started["mode"], started["columns"], started["lines"]) == ("interactive", 97, 31)
    assert gw.markers(launch.run.id, "resized") == [
        {"event": "resized", "columns": 61, "lines": 17}
    ]
    assert finished(launch)["reason"] == "exited"
    assert gw.text(launch.run.id, "stderr") == ""


def test_a_dragged_window_does_not_flood_the_gateway(gw: StrictGateway, tmp_path: Path) -> None:
    """The child sees every size at once; the gateway is told about once a second, and the last."""
    launch = session(gw, child("tty_report.py"), tmp_path)

    with Terminal(launch.argv, env=launch.env, columns=97, lines=31) as terminal:
        terminal.expect(b"READY")
        begun_at = time.monotonic()
        for columns in range(60, 90):
            terminal.resize(columns, 20)
            terminal.expect(b"SIZE %d 20" % columns)
        passed_s = time.monotonic() - begun_at
        gw.wait_for(lambda: _told_columns(launch)[-1:] == [89])
        terminal.send(b"\x04")
        assert terminal.wait() == 0

    assert len(_told_columns(launch)) <= passed_s + 2
    assert finished(launch)["reason"] == "exited"


def test_the_last_size_is_told_before_the_end(gw: StrictGateway, tmp_path: Path) -> None:
    """A session that ends right after its window has changed has told the size it ended with."""
    launch = session(gw, child("tty_report.py"), tmp_path)

    with Terminal(launch.argv, env=launch.env, columns=97, lines=31) as terminal:
        terminal.expect(b"READY")
        for columns in (61, 62):
            terminal.resize(columns, 17)
            terminal.expect(b"SIZE %d 17" % columns)
        terminal.send(b"\x04")
        assert terminal.wait() == 0

    assert _told_columns(launch)[-1] == 62
    assert finished(launch)["reason"] == "exited"


def _told_columns(launch: Launch) -> list[int]:
    return [each["columns"] for each in launch.gateway.markers(launch.run.id, "resized")]


def test_keys_arrive_byte_for_byte(gw: StrictGateway, tmp_path: Path) -> None:
    """Every byte that the keyboard can send reaches a child in raw mode as it is, and only that."""
    launch = session(gw, SCREEN, tmp_path)
    keys = bytes(range(256)).replace(b"x", b"")

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        for key in (keys[:128], keys[128:]):
            terminal.send(key)
            typed = b""
            while len(typed) < len(key):
                found = re.search(rb"KEYS (\w+)", terminal.expect(b"\r\n"))
                typed += bytes.fromhex(found.group(1).decode()) if found else b""
            assert typed == key
        terminal.send(b"x")
        assert terminal.wait() == 128 + signal.SIGABRT


@pytest.mark.parametrize(
    ("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)], ids=["c", "backslash"]
)
def test_a_key_that_kills_is_the_childs(
    gw: StrictGateway, tmp_path: Path, key: bytes, number: signal.Signals
) -> None:
    """Ctrl-C and Ctrl-\\ are signals for the child; how it ended is told as a shell does."""
    launch = session(gw, child("tty_report.py"), tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        terminal.send(key)
        assert terminal.wait() == 128 + number

    end = finished(launch)
    assert (end["reason"], end["signal"]) == ("killed", number.name)


def test_ctrl_backslash_is_the_childs(gw: StrictGateway, tmp_path: Path) -> None:
    """Ctrl-\\ is SIGQUIT for the child alone: the runner goes on as long as the child does."""
    launch = session(gw, child("reports_signals.py"), tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        for _ in range(2):
            terminal.send(b"\x1c")
            terminal.expect(b"SIGNAL SIGQUIT")
        terminal.send(b"\x04")
        terminal.expect(b"EOF")
        assert terminal.wait() == 0
        assert terminal.output.count(b"SIGNAL") == 2

    assert finished(launch)["reason"] == "exited"


def test_ctrl_z_suspends_the_whole_job(gw: StrictGateway, tmp_path: Path) -> None:
    """Ctrl-Z gives the shell its terminal back; `fg` continues child and runner as they were."""
    launch = session(gw, child("tty_report.py"), tmp_path)
    shell = ["bash", "--norc", "--noprofile", "-i"]
    env = {**launch.env, "PS1": "SHELL> ", "HISTFILE": "", "INPUTRC": os.devnull}

    with Terminal(shell, env=env) as terminal:
        terminal.expect(b"SHELL> ")
        terminal.send(shlex.join(launch.argv).encode() + b"\n")
        terminal.expect(b"READY ")
        for columns in (70, 90):
            terminal.send(b"\x1a")
            terminal.expect(b"Stopped")
            terminal.expect(b"SHELL> ")
            terminal.send(b"echo i-am-$((1+1))-shell\n")
            terminal.expect(b"i-am-2-shell")
            terminal.expect(b"SHELL> ")
            terminal.resize(columns, 20)
            terminal.send(b"fg\n")
            terminal.expect(b"SIZE %d 20" % columns)  # so it is running again
            _expect_raw(terminal)
        terminal.send(b"\x04")
        terminal.expect(b"SHELL> ")
        terminal.send(b"echo code=$?; exit\n")
        terminal.expect(b"code=0")
        terminal.wait()

    assert "i-am" not in gw.text(launch.run.id)
    assert finished(launch)["reason"] == "exited"


def _expect_raw(terminal: Terminal) -> None:
    assert not terminal.attributes()[3] & termios.ICANON


# What a terminal says to the two queries, a VT220 with its cursor in line 5.
ANSWER = b"\x1b[?62;22c\x1b[5;7R"


@pytest.mark.parametrize("answer", [ANSWER, b""], ids=["answered", "not answered"])
def test_a_query_has_one_responder(gw: StrictGateway, tmp_path: Path, answer: bytes) -> None:
    """The user's terminal is asked, and what it answers, and nothing else, reaches the child."""
    launch = session(gw, ASKS, tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        assert terminal.expect(b"ASKED\r\n").endswith(QUERIES)
        terminal.send(answer + b".")
        terminal.expect(b"CAME <" + answer.hex().encode() + b">\r\n")
        for _ in range(3):  # nor does another answer come later
            terminal.send(b".")
            terminal.expect(b"CAME <>\r\n")
        assert terminal.output.count(b"\x1b[6n") == 1
        gw.stop(launch.run.id)
        assert terminal.wait() == 130

    assert finished(launch)["reason"] == "stopped"


def test_a_query_without_a_terminal_is_not_answered(gw: StrictGateway, tmp_path: Path) -> None:
    """Where nobody sits the runner does not play the terminal: its child reads nothing at all."""
    source = """
import os, select, signal, sys, tty
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
tty.setraw(0)
os.write(1, b"\\x1b[c\\x1b[6nASKED\\r\\n")
select.select([0], [], [])
os.write(1, b"SOMETHING CAME\\r\\n")
"""
    options = ["--mode", "interactive", "--max-time", "2s"]
    launch = session(gw, program(source), tmp_path, options=options)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 124

    assert gw.text(launch.run.id) == QUERIES.decode()
    assert finished(launch)["reason"] == "time limit"


def test_the_terminal_stays_a_blocking_one(gw: StrictGateway, tmp_path: Path) -> None:
    """Neither during a session nor after it do the user's descriptors have O_NONBLOCK."""
    source = "print('.' * 200_000 + 'READY', flush=True); print('LINE', len(input()), flush=True)"
    launch = session(gw, program(source), tmp_path)
    looks = tmp_path / "looks"

    with Terminal([*WATCHES, *launch.argv], env=launch.env, cwd=tmp_path) as terminal:
        terminal.expect(b"READY")
        size = looks.stat().st_size
        eventually(lambda: _expect_larger(looks, size + 1))  # so one began after READY
        terminal.send(b"typed\r")
        terminal.expect(b"LINE 5")
        terminal.expect(b"CODE 0 NONBLOCKING []\r\n", 20.0)
        assert terminal.wait() == 0

    assert finished(launch)["reason"] == "exited"


def _expect_larger(path: Path, size: int) -> None:
    assert path.stat().st_size > size


LEAVES = f"import os, subprocess; subprocess.run({child('leaves_grandchild.py')!r}, check=True)"
CLOSES_OUTPUT = "import os; print('GRANDCHILD 0', flush=True); os.close(1)"
CLOSES_ALL = "import os; print('GRANDCHILD 0', flush=True); os.closerange(0, 3)"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(LEAVES, id="a grandchild holds the terminal"),
        pytest.param(CLOSES_OUTPUT, id="it closes its stdout"),
        pytest.param(CLOSES_ALL, id="it closes everything"),
    ],
)
def test_a_session_ends_soon_after_its_child(
    gw: StrictGateway, tmp_path: Path, source: str
) -> None:
    """2 s after the child's exit the end is told, complete; a loaded machine is given 3 s more."""
    source += "\nimport pathlib, time; pathlib.Path('ended').write_text(repr(time.monotonic()))"
    launch = session(gw, program(source + "\nos._exit(4)"), tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        assert terminal.wait(20.0) == 4
        shown = terminal.output.decode()

    end = finished(launch)
    (event,) = [each for each in gw.events(launch.run.id) if '"finished"' in each.data]
    passed_s = event.received_at - float((tmp_path / "ended").read_text())
    assert 0 <= passed_s < GONE_WITHIN_S + LOADED_S
    assert (end["reason"], end["childExitCode"]) == ("exited", 4)
    found = re.search(r"GRANDCHILD (\d+)\r\n", shown)
    assert found is not None
    assert found.group() in gw.text(launch.run.id)
    if found.group(1) != "0":
        processes.assert_gone([int(found.group(1))])


@pytest.mark.parametrize(
    ("end", "code"),
    [pytest.param("x", 128 + signal.SIGABRT, id="crash"), pytest.param("", 137, id="SIGKILL")],
)
def test_the_terminal_is_given_back(gw: StrictGateway, tmp_path: Path, end: str, code: int) -> None:
    """After a child that died with the screen in its hands, attributes and modes are undone."""
    launch = session(gw, SCREEN, tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        before = terminal.attributes()
        pid = int(re.findall(rb"\d+", terminal.expect(b"READY ") + terminal.expect(b"\r\n"))[-1])
        _expect_raw(terminal)
        if end:
            terminal.send(end.encode())
        else:
            os.kill(pid, signal.SIGKILL)
        assert terminal.wait() == code
        assert terminal.attributes() == before
        after = terminal.output.partition(UNDO)[2]
        assert UNDO in terminal.output
        assert not re.sub(rb"\r\x1b\[K(?:delivering [^\r\n]*)?", b"", after)

    assert "1049l" not in gw.text(launch.run.id)  # what the runner wrote is not the child's


def kill_runner(shell_pid: int) -> None:
    """Kill the runner, the one child of this shell, as the kernel does when memory is short."""
    (runner,) = processes.children(shell_pid)
    os.kill(runner.pid, signal.SIGKILL)


def test_a_killed_runner_gives_the_terminal_back(gw: StrictGateway, tmp_path: Path) -> None:
    """After `kill -9` of the runner the keeper restores attributes and undoes the modes."""
    launch = session(gw, SCREEN, tmp_path)
    script = f"{shlex.join(launch.argv)}; echo code=$?; read -r line; echo [$line]"

    with Terminal(["sh", "-c", script], env=launch.env) as terminal:
        before = terminal.attributes()
        pid = int(re.findall(rb"\d+", terminal.expect(b"READY ") + terminal.expect(b"\r\n"))[-1])
        _expect_raw(terminal)
        kill_runner(terminal.pid)

        eventually(lambda: _expect_in(b"\x1b\\" + UNDO, terminal))
        eventually(lambda: _expect_same(before, terminal))
        terminal.expect(b"code=137")
        terminal.send(b"typed\n")
        terminal.expect(b"[typed]")
        assert terminal.output.count(b"1049l") == 1
        processes.assert_gone([pid])


def test_a_killed_runner_leaves_the_shells_own_settings(gw: StrictGateway, tmp_path: Path) -> None:
    """A shell that edits its line again keeps its attributes; nothing is undone that was not on."""
    launch = session(gw, child("tty_report.py"), tmp_path)
    shell = ["bash", "--norc", "--noprofile", "-i"]
    env = {**launch.env, "PS1": "SHELL> ", "HISTFILE": "", "INPUTRC": os.devnull}

    with Terminal(shell, env=env) as terminal:
        terminal.expect(b"SHELL> ")
        own = terminal.attributes()
        terminal.send(shlex.join(launch.argv).encode() + b"\n")
        terminal.expect(b"READY ")
        keeper = processes.descendants(terminal.pid)
        kill_runner(terminal.pid)
        terminal.expect(b"SHELL> ")
        processes.assert_gone(keeper)

        assert terminal.attributes() == own
        assert b"?1049" not in terminal.output
        terminal.send(b"exit\n")
        terminal.wait()


def test_a_runner_killed_while_suspended(gw: StrictGateway, tmp_path: Path) -> None:
    """A suspended session has no say about the terminal, which is the shell's."""
    launch = session(gw, SUSPENDS, tmp_path)
    shell = ["bash", "--norc", "--noprofile", "-i"]
    env = {**launch.env, "PS1": "SHELL> ", "HISTFILE": "", "INPUTRC": os.devnull}

    with Terminal(shell, env=env) as terminal:
        terminal.expect(b"SHELL> ")
        own = terminal.attributes()
        terminal.send(shlex.join(launch.argv).encode() + b"\n")
        terminal.expect(b"READY ")
        terminal.expect(b"Stopped")
        terminal.expect(b"SHELL> ")
        keeper = processes.descendants(terminal.pid)
        kill_runner(terminal.pid)
        processes.assert_gone(keeper)

        assert terminal.attributes() == own
        assert UNDO not in terminal.output
        terminal.send(b"exit\n")
        terminal.send(b"exit\n")
        terminal.wait()


def _expect_in(wanted: bytes, terminal: Terminal) -> None:
    assert wanted in terminal.output


def _expect_same(attributes: list[Any], terminal: Terminal) -> None:
    assert terminal.attributes() == attributes


@pytest.mark.parametrize(("fd", "redirection"), [(1, ""), (2, " >out")])
def test_modes_are_undone_in_print_mode_too(
    gw: StrictGateway, tmp_path: Path, fd: int, redirection: str
) -> None:
    """A job that hides the cursor of the user's terminal and is killed leaves it visible.

    Whichever of its outputs is shown there; what goes into a file is not undone.
    """
    source = r"import os; os.write(1, b'\x1b[4hout'); os.write({fd}, b'\x1b[?25lbye'); "
    source = source.format(fd=fd).replace(r"\x1b[4h", "" if fd == 1 else r"\x1b[4h")
    launch = plan(gw, program(source + "os.kill(os.getpid(), 9)"), tmp_path)
    shell = ["sh", "-c", f"{shlex.join(launch.argv)}{redirection}"]

    with Terminal(shell, env=launch.env, cwd=tmp_path) as terminal:
        assert terminal.wait() == 137
        # On a slow machine the delivery takes long enough to be shown.
        shown = re.sub(rb"\r\x1b\[K(delivering [^\r]*)?", b"", terminal.output)
        assert shown.endswith(b"\x1b[?25lbye\x1b[?25h\x1b[0m")


def test_a_screen_that_stands_still(gw: StrictGateway, tmp_path: Path) -> None:
    """Ctrl-S on the terminal of a job stops what is shown, not the run; Ctrl-Q need not come."""
    os.mkfifo(tmp_path / "go")
    source = "print('READY', flush=True); open('go').read(); print('.' * 200_000)"
    launch = plan(gw, program(source), tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        terminal.send(b"\x13")
        (tmp_path / "go").write_text("go")
        assert terminal.wait(20) == 0
        assert terminal.output.count(b".") < 200_000

    assert gw.text(launch.run.id).count(".") == 200_000
    assert finished(launch)["reason"] == "exited"


def test_a_closed_window_ends_the_session(gw: StrictGateway, tmp_path: Path) -> None:
    """When the terminal hangs up, the child is ended, and the end is still delivered."""
    launch = session(gw, SCREEN, tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        pid = launch.expect_pid()
        terminal.hang_up()
        gw.wait_for(lambda: gw.artifacts(launch.run.id))
        processes.assert_gone([pid, terminal.pid])

    assert finished(launch)["reason"] == "hangup"


def test_a_stopped_session_gives_the_terminal_back(gw: StrictGateway, tmp_path: Path) -> None:
    """The operator's stop ends a session too; messages come when the terminal is normal again."""
    launch = session(gw, SCREEN, tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        before = terminal.attributes()
        terminal.expect(b"READY")
        gw.stop(launch.run.id)
        assert terminal.wait() == 130
        assert terminal.attributes() == before

    assert finished(launch)["reason"] == "stopped"


# --- the operator at the keyboard ------------------------------------------------------------


def ack_of(gw: StrictGateway, launch: Launch, text: str) -> tuple[str | None, str | None]:
    """Queue a command, and return result and error of its acknowledgement."""
    command_id = gw.queue_command(launch.run.id, text)
    gw.wait_for(lambda: command_id in gw.acks(launch.run.id))
    ack = gw.acks(launch.run.id)[command_id][0]
    return ack.result, ack.error


def test_the_operator_types_only_where_allowed(gw: StrictGateway, tmp_path: Path) -> None:
    """`__ESCAPE__` types Ctrl-C; `__INPUT__` types nothing unless it is allowed, and is refused."""
    launch = session(gw, SCREEN, tmp_path)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        result, error = ack_of(gw, launch, "__INPUT__:rm -rf\r")
        assert result is None
        assert "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT" in str(error)
        assert ack_of(gw, launch, "__ESCAPE__") == ("Escape sent", None)
        terminal.expect(b"KEYS 03\r\n")
        assert b"KEYS" not in terminal.output.split(b"KEYS 03")[0]
        terminal.send(b"x")
        terminal.wait()

    assert gw.markers(launch.run.id, "started")[0]["remoteInput"] is False


def test_the_operator_alone_at_the_keyboard(gw: StrictGateway, tmp_path: Path) -> None:
    """Without a terminal the operator can type into the session, Ctrl-Z cannot freeze it."""
    source = """
import os, signal
print("READY", os.getpid(), flush=True)
while True:
    try:
        print("LINE", ascii(input()), flush=True)
    except EOFError:
        break
"""
    launch = session(
        gw,
        program(source),
        tmp_path,
        options=["--mode", "interactive"],
        env={"CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "true"},
    )

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        assert ack_of(gw, launch, "__INPUT__:grüße\r") == ("Input sent", None)
        launch.expect(r"LINE 'gr\\xfc\\xdfe'")
        ack_of(gw, launch, "__INPUT__:\x1a")
        ack_of(gw, launch, "__INPUT__:again\r")
        launch.expect("LINE 'again'")
        gw.queue_command(launch.run.id, "__INPUT__:\x04")
        assert runner.wait() == 0

    assert gw.markers(launch.run.id, "started")[0]["remoteInput"] is True
    assert finished(launch)["reason"] == "exited"


# --- output without a terminal's state --------------------------------------------------------

# What 2.1.197 writes behind its last line.
RESETS = (
    b"\x1b[?1006l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b(B\x0f\x1b[>4m\x1b[<u\x1b[?1004l\x1b[?2031l"
    b"\x1b[?2004l\x1b[?25h\x1b7\x1b[r\x1b8\x1b]0;\x07"
)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b'{"a": 1}\n' + RESETS, b'{"a": 1}\n'),
        (b"\x1b[?25h", b""),
        (b"\x1b[?25h\x1b[0m\x1b[m\x1b[ q\x1b[!p\x1b=\x1b>", b""),
        (b"\x1b]2;title\x1b\\text", b"text"),
        (b"\x1b[31mred\x1b[0m \x1b[0mplain", b"\x1b[31mred\x1b[0m plain"),
        (b"\x1b]8;;http://x\x07link\x1b]8;;\x07", b"\x1b]8;;http://x\x07link\x1b]8;;\x07"),
        (b"10 %\r20 %\x1b[K\x1b[2A", b"10 %\r20 %\x1b[K\x1b[2A"),
        (b"an escape \x1b", b"an escape \x1b"),
        ("\u00e9\U0001f980".encode(), "\u00e9\U0001f980".encode()),
        # Too long for a title: what a read holds of it must not be lost, whatever its size.
        (b"\x1b]" + b"text\n" * 300 + b"\x07", b"\x1b]" + b"text\n" * 300 + b"\x07"),
        # What is left of two sequences is not read as a third.
        (b"\x1b[\x0f0m", b"\x1b[0m"),
    ],
)
def test_a_terminals_state_is_no_text(output: bytes, text: bytes) -> None:
    """Modes, titles and the like are left out, whole or byte by byte; what has a look stays."""
    for size in (1, 2, 7, len(output)):
        text_filter = TextFilter()
        pieces = [output[at : at + size] for at in range(0, len(output), size)]
        assert b"".join(map(text_filter.feed, pieces)) + text_filter.flush() == text


def test_a_title_without_an_end_is_not_kept() -> None:
    """A string that never ends passes in the end, and costs no memory."""
    text_filter = TextFilter()

    out = text_filter.feed(b"\x1b]0;" + b"x" * 5_000) + text_filter.feed(b"y" * 5_000)

    assert len(out) + len(text_filter.flush()) == 10_004
