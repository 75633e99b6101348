"""How a run is ended by others: stopped, halted, killed; and that nothing of it is left alive."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner.conduct import ONE_PRESS_S
from testing.gateways.faults import Delay, Fault
from testing.gateways.gateway_records import AnyGateway
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.runner import Kind, Launch, RunnerProcess, child, plan, program
from testing.waiting import eventually

# Tidies up and exits with 0 when it is asked to end, as Claude Code does.
TIDY = program("""
import os, signal, sys
def end(*_):
    os.write(1, b"tidied\\n")
    sys.exit(0)
signal.signal(signal.SIGINT, end)
print("READY", os.getpid(), flush=True)
while True:
    signal.pause()
""")

WAITS_FOR_IT = "import os, signal; print('READY', os.getpid(), flush=True); "

# Every kind of descendant that could get away: in a session of its own and deaf to signals, with
# the terminal open; double-forked, without it; and one that starts another one for ever.
FAMILY = program("""
import os, signal, sys, time
def deaf(close):
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if close:
        os.closerange(0, 3)
reader, writer = os.pipe()
def tell():
    os.write(writer, b"%d " % os.getpid())
if os.fork() == 0:
    deaf(close=False)
    tell()
    while True:
        signal.pause()
if os.fork() == 0:
    if os.fork() == 0:
        deaf(close=True)
        tell()
        while True:
            signal.pause()
    os._exit(0)
if os.fork() == 0:
    deaf(close=True)
    tell()
    while True:
        if os.fork() == 0:
            time.sleep(0.05)
            os._exit(0)
        os.wait()
pids = b""
while pids.count(b" ") < 3:
    pids += os.read(reader, 100)
os.wait()
print("FAMILY", pids.decode(), flush=True)
signal.signal(signal.SIGINT, lambda *_: (os.write(1, b"last\\n"), os._exit(0)))
print("READY", os.getpid(), flush=True)
while True:
    signal.pause()
""")


pytestmark = pytest.mark.gateway_pairs


def finished(launch: Launch) -> dict[str, Any]:
    """Return the `finished` marker, after the gateway's own check of it."""
    assert launch.gateway.verify_finished(launch.run.id) == []
    (marker,) = launch.gateway.markers(launch.run.id, "finished")
    return marker


def family(launch: Launch) -> list[int]:
    """Wait until all of FAMILY is there; return the pids."""
    found = launch.expect(r"FAMILY ([\d ]+)\n(?s:.*)READY (\d+)\n")
    return [int(pid) for pid in (*found.group(1).split(), found.group(2))]


# --- gracefully ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        pytest.param("__STOP__", "stopped", id="the operator"),
        pytest.param(signal.SIGINT, "stopped", id="SIGINT"),
        pytest.param((signal.SIGTERM, signal.SIGINT), "stopped", id="SIGTERM and SIGINT at once"),
        pytest.param(signal.SIGHUP, "hangup", id="SIGHUP"),
    ],
)
def test_a_stop_lets_the_child_tidy_up(
    gw: AnyGateway,
    tmp_path: Path,
    kind: Kind,
    stop: str | signal.Signals | tuple[signal.Signals, ...],
    reason: str,
) -> None:
    """Asked to end by anybody, the child gets SIGINT; its last words, log and marker arrive.

    Two signals in one moment, as from the terminal and from a launcher, are one.
    """
    launch = plan(gw, TIDY, tmp_path, kind=kind)

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        if isinstance(stop, str):
            gw.stop(launch.run.id)
        elif isinstance(stop, tuple):
            for number in (signal.SIGSTOP, *stop, signal.SIGCONT):
                runner.signal(number)
        else:
            runner.signal(stop)
        assert runner.wait() == 130
        assert runner.stdout.endswith(b"tidied\n")

    assert gw.text(launch.run.id).endswith("tidied\n")
    assert gw.artifacts(launch.run.id)[0].data.endswith(b"tidied\n")
    end = finished(launch)
    assert (end["reason"], end["exitCode"], end["childExitCode"]) == (reason, 130, 0)
    if isinstance(stop, str):
        assert "Stop requested by the operator" in gw.text(launch.run.id, "info")


def test_a_run_that_was_stopped_before_it_began_does_not_begin(
    gw: AnyGateway, tmp_path: Path
) -> None:
    """It says so in one sentence, and leaves nothing behind that another try would meet."""
    launch = plan(gw, program("open('began', 'w')"), tmp_path, cwd=tmp_path)
    gw.stop(launch.run.id)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 130
        assert "was stopped in the gateway's page before it began" in runner.stderr

    assert not (tmp_path / "began").exists()
    assert not gw.events(launch.run.id)
    assert not list(tmp_path.rglob("spool.db"))


@pytest.mark.parametrize(
    ("command", "code", "result"),
    [("__STOP__", 130, "Stop initiated"), ("__HALT__", 137, "Halt initiated")],
)
def test_the_end_does_not_cut_off_its_ack(
    gw: StrictGateway, tmp_path: Path, command: str, code: int, result: str
) -> None:
    """A child that ends at once does not keep the acknowledgement from arriving."""
    gw.faults.add(Fault("ack", Delay(0.7)))
    launch = plan(gw, TIDY, tmp_path)

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        command_id = gw.queue_command(launch.run.id, command)
        assert runner.wait() == code

    assert {ack.result for ack in gw.acks(launch.run.id)[command_id]} == {result}


def test_everything_of_the_run_is_gone(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """Descendants that left group and session, deaf, forking, on the terminal: none survives."""
    launch = plan(gw, FAMILY, tmp_path, kind=kind)

    with RunnerProcess(launch) as runner:
        pids = family(launch)
        gw.stop(launch.run.id)
        assert runner.wait() == 130
        assert not [pid for pid in pids if processes.is_alive(pid)]

    assert gw.text(launch.run.id).endswith("last\n")
    assert finished(launch)["reason"] == "stopped"


def test_a_launcher_script_changes_nothing(gw: AnyGateway, tmp_path: Path) -> None:
    """With a shell script between runner and child the child is stopped and tidies up as well."""
    launcher = child("launcher.sh")[-1]
    launch = plan(gw, ["sh", launcher, *TIDY], tmp_path)

    with RunnerProcess(launch) as runner:
        pid = launch.expect_pid()
        gw.stop(launch.run.id)
        assert runner.wait() == 130
        assert not processes.is_alive(pid)

    assert gw.text(launch.run.id).endswith("tidied\n")
    assert finished(launch)["reason"] == "stopped"


def launched(source: str) -> list[str]:
    """Return a launcher that dies of SIGINT at once, and a child behind it that runs `source`."""
    return program(f"""
import os, signal, sys, time
launcher = os.getpid()
if os.fork() == 0:
    {source}
    print("READY", os.getpid(), "LAUNCHER", launcher, flush=True)
    while True:
        signal.pause()
signal.signal(signal.SIGINT, signal.SIG_DFL)
while True:
    signal.pause()
""")


def test_what_outlives_its_launcher_may_tidy_up(gw: AnyGateway, tmp_path: Path) -> None:
    """Behind a launcher that dies at once, two seconds of tidying up are granted and shown."""
    slowly = "(time.sleep(2.2), os.write(1, b'tidied'), os._exit(0))"
    launch = plan(gw, launched(f"signal.signal(2, lambda *_: {slowly})"), tmp_path)

    with RunnerProcess(launch) as runner:
        launch.expect("READY")
        runner.signal(signal.SIGINT)
        assert runner.wait() == 130

    assert gw.text(launch.run.id).endswith("tidied")
    end = finished(launch)
    assert (end["reason"], end["signal"], end["childExitCode"]) == ("stopped", "SIGINT", None)


# --- by force --------------------------------------------------------------------------------


def test_who_does_not_obey_is_killed(gw: AnyGateway, tmp_path: Path) -> None:
    """A child that ignores SIGINT is killed after ten seconds, and so is a keeper that hangs."""
    for name in ("deaf", "hangs"):
        (tmp_path / name).mkdir()
    deaf = plan(gw, child("ignores_int.py"), tmp_path / "deaf", prompt="SIGINT")
    hangs = plan(gw, TIDY, tmp_path / "hangs")

    with RunnerProcess(deaf) as first, RunnerProcess(hangs) as second:
        deaf.expect_pid()
        pid = hangs.expect_pid()
        os.kill(second.keeper_pid(), signal.SIGSTOP)
        gw.queue_command(hangs.run.id, "__HALT__")
        first.signal(signal.SIGTERM)
        deaf.expect("IGNORED SIGINT")
        assert first.wait() == 137
        assert second.wait() == 1
        assert not processes.is_alive(pid)

    end = finished(deaf)
    assert (end["reason"], end["signal"], end["childExitCode"]) == ("stopped", "SIGKILL", None)
    assert finished(hangs)["reason"] == "error"


def press_again(runner: RunnerProcess) -> None:
    """Send a second SIGINT when the first was obeyed: one that comes sooner is the same press."""
    time.sleep(2 * ONE_PRESS_S)
    runner.signal(signal.SIGINT)


def test_a_second_interrupt_kills_at_once(gw: AnyGateway, tmp_path: Path) -> None:
    """A child that ignores the first SIGINT does not survive the second."""
    launch = plan(gw, child("ignores_int.py"), tmp_path, prompt="SIGINT")

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        runner.signal(signal.SIGINT)
        launch.expect("IGNORED SIGINT")
        press_again(runner)
        assert runner.wait() == 137

    assert gw.text(launch.run.id).count("IGNORED") == 1
    assert finished(launch)["reason"] == "halted"


def test_a_second_interrupt_kills_what_lingers(gw: AnyGateway, tmp_path: Path) -> None:
    """When only a descendant is left, a second SIGINT kills that one, and all is delivered."""
    launch = plan(gw, launched("signal.signal(2, signal.SIG_IGN)"), tmp_path, options=["-v"])

    with RunnerProcess(launch) as runner:

        def knows_of_the_end() -> None:
            assert "the child has ended" in runner.stderr

        found = launch.expect(r"READY (\d+) LAUNCHER (\d+)")
        runner.signal(signal.SIGINT)
        processes.assert_gone([int(found.group(2))])
        eventually(knows_of_the_end)
        press_again(runner)
        assert runner.wait() == 130
        assert not processes.is_alive(int(found.group(1)))

    assert finished(launch)["reason"] == "stopped"


def test_a_halt_asks_nobody(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """`__HALT__` kills the child and its descendants without a signal that they could ignore."""
    launch = plan(gw, FAMILY, tmp_path, kind=kind)

    with RunnerProcess(launch) as runner:
        pids = family(launch)
        gw.queue_command(launch.run.id, "__HALT__")
        assert runner.wait() == 137
        assert not [pid for pid in pids if processes.is_alive(pid)]

    assert "last" not in gw.text(launch.run.id)
    end = finished(launch)
    assert (end["reason"], end["signal"], end["exitCode"]) == ("halted", "SIGKILL", 137)


def test_a_stop_ends_the_operators_command(gw: AnyGateway, tmp_path: Path) -> None:
    """A command that runs when the run is stopped is gone, and is acknowledged with an error."""
    slow = tmp_path / "slow.sh"
    slow.write_text("#!/bin/sh\necho $$ > pid.new\nmv pid.new pid\nwhile :; do sleep 5; done\n")
    slow.chmod(0o755)
    launch = plan(gw, TIDY, tmp_path, env={"EXTRA_ALLOWED_COMMANDS": "./slow.sh"})

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        command_id = gw.queue_command(launch.run.id, "./slow.sh")
        pid = read_pid(tmp_path / "pid")
        gw.stop(launch.run.id)
        assert runner.wait() == 130
        assert not processes.is_alive(pid)

    acks = gw.acks(launch.run.id)[command_id]
    assert all(ack.result is None and "killed by SIGINT" in str(ack.error) for ack in acks)
    assert finished(launch)["reason"] == "stopped"


def read_pid(path: Path) -> int:
    """Wait for a file with a pid in it."""

    def read() -> int:
        assert path.exists()
        return int(path.read_text())

    return eventually(read)


# --- the end of the runner itself ------------------------------------------------------------


def test_an_interrupt_during_delivery_leaves_the_rest(gw: AnyGateway, tmp_path: Path) -> None:
    """With the gateway away, SIGINT after the child's end keeps what is left, and says where."""
    launch = plan(gw, TIDY, tmp_path)

    with RunnerProcess(launch) as runner:
        pid = launch.expect_pid()
        gw.pause()
        os.kill(pid, signal.SIGINT)
        eventually(lambda: expect_recorded_end(launch))
        runner.signal(signal.SIGINT)
        assert runner.wait() == 0
        assert re.search(r"\d+ bytes of output are not delivered, but kept in", runner.stderr)
        assert str(launch.run_dir) in runner.stderr
    gw.resume()

    with contextlib.closing(sqlite3.connect(launch.run_dir / "spool.db")) as journal:
        text = "".join(row[0] for row in journal.execute("SELECT text FROM chunks ORDER BY id"))
    assert text.endswith("tidied\n")
    assert gw.markers(launch.run.id, "finished") == []


def expect_recorded_end(launch: Launch) -> None:
    """Assert that the journal knows how the child ended: the runner is delivering by now."""
    with contextlib.closing(sqlite3.connect(launch.run_dir / "spool.db")) as journal:
        assert journal.execute("SELECT value FROM facts WHERE name = 'end'").fetchall()


COMMAND = f"""#!{sys.executable} -S
import os, signal
def tell(name):
    with open(name + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(name + ".new", name)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell("deaf.pid")
else:
    tell("command.pid")
while True:
    signal.pause()
"""


def test_a_killed_runner_leaves_nothing(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """After `kill -9` of the runner the child, the operator's command and their own are gone."""
    (tmp_path / "command").write_text(COMMAND)
    (tmp_path / "command").chmod(0o755)
    launch = plan(gw, FAMILY, tmp_path, env={"EXTRA_ALLOWED_COMMANDS": "./command"}, kind=kind)

    with RunnerProcess(launch) as runner:
        pids = [runner.keeper_pid(), *family(launch)]
        gw.queue_command(launch.run.id, "./command")
        pids += [read_pid(tmp_path / "command.pid"), read_pid(tmp_path / "deaf.pid")]
        runner.signal(signal.SIGKILL)
        assert runner.wait() == -signal.SIGKILL
        processes.assert_gone(pids)

    assert gw.markers(launch.run.id, "finished") == []


def test_a_runner_killed_near_its_end_leaves_nothing(gw: AnyGateway, tmp_path: Path) -> None:
    """`kill -9` of the runner when only a descendant is left to be swept does not save that one."""
    launch = plan(gw, child("leaves_grandchild.py", "--close"), tmp_path)

    with RunnerProcess(launch) as runner:
        pids = [runner.keeper_pid(), launch.expect_pid("GRANDCHILD")]
        runner.signal(signal.SIGKILL)
        assert runner.wait() == -signal.SIGKILL
        processes.assert_gone(pids)


def test_a_killed_keeper_ends_the_run(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """`kill -9` of the keeper ends the run as an error; nothing is left, and all is delivered."""
    launch = plan(gw, FAMILY, tmp_path, kind=kind)

    with RunnerProcess(launch) as runner:
        pids = family(launch)
        os.kill(runner.keeper_pid(), signal.SIGKILL)
        assert runner.wait() == 1
        assert not [pid for pid in pids if processes.is_alive(pid)]
        assert "Traceback" not in runner.stderr

    end = finished(launch)
    assert (end["reason"], end["exitCode"], end["childExitCode"]) == ("error", 1, None)
    assert gw.artifacts(launch.run.id)[0].data == launch.log


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux has prlimit")
def test_nohup_protects_from_a_hangup(gw: AnyGateway, tmp_path: Path) -> None:
    """Under nohup, which ignores SIGHUP, a hangup does not end the run."""
    launch = plan(gw, TIDY, tmp_path)
    launch.argv.insert(0, "nohup")

    with RunnerProcess(launch) as runner:
        pid = launch.expect_pid()
        runner.signal(signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)
        assert runner.wait() == 128 + signal.SIGTERM

    assert finished(launch)["reason"] == "killed"


# --- what print mode refuses -----------------------------------------------------------------


@pytest.mark.strict_only("its API offers no input to a run that takes none")
def test_nobody_types_in_print_mode(gw: StrictGateway, tmp_path: Path, kind: Kind) -> None:
    """`__ESCAPE__` and `__INPUT__` are refused with the reason when nobody reads the terminal."""
    launch = plan(gw, TIDY, tmp_path, env={"CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "true"}, kind=kind)

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        ids = [gw.queue_command(launch.run.id, text) for text in ("__ESCAPE__", "__INPUT__:hi\r")]
        gw.wait_for(lambda: len(gw.acks(launch.run.id)) == 2)
        acks = gw.acks(launch.run.id)
        gw.stop(launch.run.id)
        assert runner.wait() == 130

    for command_id in ids:
        assert acks[command_id][0].error == "refused: print mode does not read from the terminal"
