"""Long waits: at a terminal a line says what is waited for, in a pipe nothing is added."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testing.gateways.faults import Delay, Fault, Hang, RateLimited
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import ROOT, Launch, RunnerProcess, child, plan
from testing.programs.terminal import Terminal

GONE = b"\r\x1b[K"


def quick(gateway: StrictGateway, folder: Path) -> Launch:
    """Return a run whose child ends at once."""
    return plan(gateway, child("exits.py", "0"), folder)


def test_a_gateway_that_thinks_is_named(tmp_path: Path) -> None:
    """The line goes as soon as it has answered."""
    with StrictGateway() as gateway:
        fault = gateway.faults.add(Fault("commands", Delay(60.0)))
        launch = quick(gateway, tmp_path)
        with Terminal(launch.argv, env=launch.env, columns=200) as terminal:
            terminal.expect(GONE + f"asking {gateway.url} for the run …".encode())
            gateway.faults.release(fault)
            terminal.expect(GONE)
            assert terminal.wait(20.0) == 0


def test_a_rate_limit_is_counted_down(tmp_path: Path) -> None:
    """The wait that the gateway asks for can be long."""
    with StrictGateway() as gateway:
        # The first one is asked again at once, with `requests`.
        gateway.faults.add(Fault("commands", RateLimited(2), times=2))
        launch = quick(gateway, tmp_path)
        with Terminal(launch.argv, env=launch.env, columns=200) as terminal:
            terminal.expect(b"too many requests: the gateway asks to wait 2 s")
            terminal.expect(b"waiting for the gateway (2 s)")
            terminal.expect(b"waiting for the gateway (1 s)")
            assert terminal.wait(20.0) == 0


@pytest.mark.parametrize("command", ["start", "sync"])
def test_an_upload_is_named(command: str, tmp_path: Path) -> None:
    """The output is there, and the log is on its way."""
    with StrictGateway() as gateway:
        fault = gateway.faults.add(Fault("artifact", Delay(60.0), every=1))
        launch = quick(gateway, tmp_path)
        argv, prefix = launch.argv, ""
        if command == "sync":
            gateway.faults.clear()
            gateway.faults.add(Fault("artifact", Hang(), every=1))
            with RunnerProcess(launch) as runner:
                gateway.wait_for(lambda: any(r.endpoint == "artifact" for r in gateway.requests))
                assert runner.pid  # it is killed in its upload, on leaving
            gateway.faults.clear()
            fault = gateway.faults.add(Fault("artifact", Delay(60.0), every=1))
            argv = [sys.executable, str(ROOT / "claude_runner.py"), "sync"]
            argv += ["--env-file", str(tmp_path / "settings.env")]
            argv += ["--data-dir", str(launch.data_dir)]
            prefix = f"{launch.run.id}: "
        with Terminal(argv, env=launch.env, columns=200) as terminal:
            terminal.expect(f"{prefix}delivering claude.log …".encode(), 20.0)
            gateway.faults.release(fault)
            terminal.expect(GONE)
            assert terminal.wait(20.0) == 0


def test_a_pipe_stays_quiet(tmp_path: Path) -> None:
    """Whatever takes its time, only sentences come."""
    with StrictGateway() as gateway:
        gateway.faults.add(Fault("commands", RateLimited(1), times=2))
        gateway.faults.add(Fault("artifact", Delay(2.5), times=1))
        launch = quick(gateway, tmp_path)
        with RunnerProcess(launch) as runner:
            assert runner.wait() == 0
            told = runner.stderr

    assert told == ("claude-runner: too many requests: the gateway asks to wait 1 s\n")


def test_a_message_has_a_line_of_its_own() -> None:
    """Words that Claude is writing may stand in the middle of one."""
    source = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from runner.console import Console
console = Console("us")
print("wor", end="", flush=True)
console.is_mid_line = lambda: True
console.warn("one")
console.is_mid_line = lambda: False
console.warn("two")
"""
    with Terminal([sys.executable, "-c", source], env={"NO_COLOR": "1"}) as terminal:
        assert terminal.wait(20.0) == 0

    assert terminal.output == b"wor\r\nus: one\r\nus: two\r\n"


def test_a_terminal_that_erases_nothing_shows_no_progress() -> None:
    """Words that come and go would stay there, each with what is to erase it."""
    source = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from runner.console import Console
console = Console("us")
console.progress("waiting")
console.progress("")
console.warn("here")
"""
    with Terminal([sys.executable, "-c", source], env={"TERM": "dumb"}) as terminal:
        assert terminal.wait(20.0) == 0

    assert terminal.output == b"us: here\r\n"
