"""A gateway whose pinned certificate is renewed in mid-run: who is asked, and what the run does."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.certificates import self_signed
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import Launch, RunnerProcess, plan, program
from testing.programs.terminal import Terminal
from testing.programs.verdict import judge
from testing.waiting import eventually

QUESTION = b"type yes or no, and Enter"
WITHIN_S = 30.0


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway with a certificate that does not verify."""
    with StrictGateway(rate_limit=None, long_poll=True, tls=self_signed()) as gateway:
        yield gateway


def prepare(gateway: StrictGateway, folder: Path, **more: Any) -> tuple[Launch, Path]:
    """Prepare a run that prints a line, and two more when the file that is returned is there."""
    go = folder / "go"
    source = (
        "import os, sys, time\nprint('1 1.000000', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "print('2 1.000000\\n3 1.000000\\nLAST', flush=True)\n"
    )
    env = {"ALLOW_SELF_SIGNED": "true", "CLAUDE_RUNNER_DRAIN_TIMEOUT": "20"}
    return plan(gateway, program(source), folder, env=env, **more), go


def renew(gateway: StrictGateway, launch: Launch) -> tuple[str, str]:
    """Give the gateway another certificate; return the fingerprints, as they are shown."""
    (before,) = pins(launch)
    after = self_signed()
    gateway.use_certificate(after)
    return before, shown(after.sha256)


def shown(fingerprint: str) -> str:
    """Return a fingerprint as browsers show it."""
    return ":".join(re.findall("..", fingerprint.upper()))


def pins(launch: Launch) -> list[str]:
    """Return the fingerprints that are pinned."""
    return [
        shown(each) for each in json.loads((launch.data_dir / "pins.json").read_text()).values()
    ]


def test_the_person_is_asked_once_and_agrees(gateway: StrictGateway, tmp_path: Path) -> None:
    """Both fingerprints are shown; after `yes` all is delivered, and the new one is pinned."""
    launch, go = prepare(gateway, tmp_path)
    with Terminal(launch.argv, env=launch.env, columns=200) as terminal:
        launch.expect("1 1.0", within_s=WITHIN_S)
        before, after = renew(gateway, launch)

        asked = terminal.expect(QUESTION, WITHIN_S)
        assert before.encode() in asked
        assert after.encode() in asked
        terminal.send(b"perhaps\n")
        terminal.expect(b"please type yes or no", WITHIN_S)
        assert pins(launch) == [before]
        terminal.send(b"yes\n")
        terminal.expect(b"trusting the new certificate", WITHIN_S)
        go.touch()
        assert terminal.wait(WITHIN_S) == 0
        assert terminal.output.count(b"shows another certificate") == 1

    assert pins(launch) == [after]
    assert judge(gateway, launch.run.id, last=3).problems == []


def test_a_no_keeps_the_output(gateway: StrictGateway, tmp_path: Path) -> None:
    """Nothing is sent, nobody is asked again, and what resolves it later is said."""
    launch, go = prepare(gateway, tmp_path)
    with Terminal(launch.argv, env=launch.env, columns=200) as terminal:
        launch.expect("1 1.0", within_s=WITHIN_S)
        before, _after = renew(gateway, launch)
        terminal.expect(QUESTION, WITHIN_S)
        requests = len(gateway.requests)
        terminal.send(b"no\n")
        terminal.expect(b"is not trusted", WITHIN_S)
        terminal.expect(b"remove the line of", WITHIN_S)
        gateway.use_certificate(self_signed())  # who stands in between shows one after the other
        terminal.send(b"yes\n")  # for nobody
        go.touch()
        assert terminal.wait(60) == 0
        assert terminal.output.count(b"shows another certificate") == 1
        assert len(gateway.requests) == requests
    assert pins(launch) == [before]


def test_without_a_person_the_run_goes_on(gateway: StrictGateway, tmp_path: Path) -> None:
    """It says how to resolve that, and delivers when it is resolved; a stop waits until then."""
    launch, go = prepare(gateway, tmp_path)
    with RunnerProcess(launch) as runner:
        launch.expect("1 1.0", within_s=WITHIN_S)
        renew(gateway, launch)

        def is_told() -> None:
            assert "remove the line of" in runner.stderr
            assert "a stop by the gateway's page too" in runner.stderr

        eventually(is_told, WITHIN_S)
        assert "type yes or no" not in runner.stderr
        gateway.stop(launch.run.id)
        (launch.data_dir / "pins.json").unlink()
        assert runner.wait(60) == 130
    assert not go.exists()
    assert gateway.markers(launch.run.id, "finished")[0]["reason"] == "stopped"


def test_a_run_in_the_background_asks_nobody(gateway: StrictGateway, tmp_path: Path) -> None:
    """Reading from the terminal would stop it; and nobody has it before him."""
    launch, go = prepare(gateway, tmp_path)
    source = (
        "import os, signal, subprocess, sys\n"
        "process = subprocess.Popen(sys.argv[1:], preexec_fn=os.setpgrp)\n"
        "print('CODE', process.wait(), flush=True)\n"
    )
    argv = [sys.executable, "-c", source, *launch.argv]
    with Terminal(argv, env=launch.env, columns=200) as terminal:
        launch.expect("1 1.0", within_s=WITHIN_S)
        renew(gateway, launch)
        terminal.expect(b"a stop by the gateway's page too", WITHIN_S)
        (launch.data_dir / "pins.json").unlink()
        go.touch()
        terminal.expect(b"CODE 0", 60)
        assert QUESTION not in terminal.output
    assert judge(gateway, launch.run.id, last=3).problems == []


# Draws where it is told, and prints every key that it gets.
SESSION = """
import os, signal, sys, tty
tty.setraw(0)
signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b"DRAWN ANEW\\r\\n"))
os.write(1, {enter!r} + b"READY\\r\\n")
while True:
    try:
        keys = os.read(0, 1000)
    except InterruptedError:
        continue
    if keys == b"q":
        break
    os.write(1, b"KEYS " + keys.hex().encode() + b"\\r\\n")
"""


@pytest.mark.parametrize("enter", [b"", b"\x1b[?1049h\x1b[?25l"], ids=["lines", "full screen"])
def test_a_session_is_asked_on_a_screen_of_its_own(
    gateway: StrictGateway, tmp_path: Path, enter: bytes
) -> None:
    """Keys go to the question and not to the child, whose screen comes back as it was."""
    env = {"ALLOW_SELF_SIGNED": "true"}
    launch = plan(gateway, program(SESSION.format(enter=enter)), tmp_path, env=env, prompt=None)
    with Terminal(launch.argv, env=launch.env, columns=200) as terminal:
        terminal.expect(b"READY", WITHIN_S)
        launch.expect("READY", within_s=WITHIN_S)
        _, after = renew(gateway, launch)
        covered = terminal.expect(QUESTION, WITHIN_S)
        assert (b"\x1b[?1049h" in covered) is not bool(enter)
        # A paste, an arrow and a slip of the finger are no letters of the answer.
        terminal.send(b"\x1b[200~ye\x1b[201~\x1b[Axx\x7f\x7f")
        terminal.send(b"s\r")
        terminal.expect(b"\x1b[?25l" if enter else b"\x1b[?1049l", WITHIN_S)
        if enter:
            terminal.expect(b"DRAWN ANEW", WITHIN_S)

        def is_pinned() -> None:
            assert pins(launch) == [after]

        eventually(is_pinned, WITHIN_S)
        terminal.send(b"a")
        assert terminal.expect(b"KEYS 61", WITHIN_S).count(b"KEYS") == 1
        launch.expect("KEYS 61", within_s=WITHIN_S)
        terminal.send(b"q")
        assert terminal.wait(WITHIN_S) == 0


def test_a_question_that_is_open_ends_with_the_session(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """The terminal is given back whole, and asked again there while the rest is delivered."""
    env = {"ALLOW_SELF_SIGNED": "true", "CLAUDE_RUNNER_DRAIN_TIMEOUT": "20"}
    source = "import os, signal\nprint('READY', os.getpid(), flush=True)\nsignal.pause()\n"
    launch = plan(gateway, program(source), tmp_path, env=env, prompt=None)
    with Terminal(launch.argv, env=launch.env, columns=200) as terminal:
        before = terminal.first_attributes
        pid = launch.expect_pid()
        renew(gateway, launch)
        terminal.expect(QUESTION, WITHIN_S)
        os.kill(pid, signal.SIGTERM)
        terminal.expect(b"\x1b[?1049l", WITHIN_S)
        terminal.expect(QUESTION, WITHIN_S)
        assert terminal.attributes() == before
        terminal.send(b"yes\n")
        terminal.expect(b"trusting the new certificate", WITHIN_S)
        assert terminal.wait(WITHIN_S) == 143
    assert gateway.verify_finished(launch.run.id) == []
