"""The second kind of runner: what differs, and that it says its own name wherever it speaks.

rev itself is not needed: programs of `testing/programs/children` stand in for it. What both kinds
share is tested over both, wherever a test takes the fixture `kind`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import REV, Launch, RunnerProcess, child, plan
from testing.programs.runner_files import copy_runner
from testing.programs.shared_terminal import FakeTmate
from testing.programs.terminal import Terminal


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit; what it objects to fails the test."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def ask(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run rev-runner with these arguments to its end."""
    return subprocess.run(
        [sys.executable, str(REV.script), *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def refusal(launch: Launch) -> str:
    """Run it; it must end with 1. Returns what it said."""
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1
        return runner.stderr.strip()


def test_a_task_ends_by_itself(gw: StrictGateway, tmp_path: Path) -> None:
    """The user's own arguments come first, and the task cannot be taken for one of them."""
    launch = plan(
        gw,
        child("echo_args.py"),
        tmp_path,
        prompt="--fix it",
        arguments=["--trust-workspace", "--resume"],
        kind=REV,
    )
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        told = json.loads(runner.stdout)

    assert told["argv"] == ["--trust-workspace", "--resume", "--", "--fix it"]
    assert [each.name for each in gw.artifacts(launch.run.id)] == ["rev.log"]
    assert gw.markers(launch.run.id, "started")[0]["runner"] == "rev"


def test_a_terminal_without_a_task_is_a_session(gw: StrictGateway, tmp_path: Path) -> None:
    """At a keyboard it is `rev --repl`; a bell or a title says nothing about its state."""
    launch = plan(
        gw,
        child("echo_args.py", "\x07", "\x1b]0;\N{EIGHT SPOKED ASTERISK} x\x07"),
        tmp_path,
        prompt=None,
        arguments=["--model", "m"],
        kind=REV,
    )
    with Terminal(launch.argv, env=launch.env) as terminal:
        assert terminal.wait() == 0

    told = json.loads(gw.text(launch.run.id))
    assert told["argv"][-3:] == ["--model", "m", "--repl"]
    assert gw.markers(launch.run.id, "state") == []
    assert gw.verify_finished(launch.run.id) == []


def test_neither_a_task_nor_a_terminal_is_told(gw: StrictGateway, tmp_path: Path) -> None:
    """There would be nothing to do, and nobody to ask."""
    launch = plan(gw, child("exits.py", "0"), tmp_path, prompt=None, kind=REV)

    assert "rev-runner: there is neither a prompt nor a terminal; give a prompt with" in refusal(
        launch
    )


def test_a_session_with_a_task_is_told(gw: StrictGateway, tmp_path: Path) -> None:
    """rev would drop the task without a word."""
    options = ["--mode", "interactive", "--max-time", "5s"]
    launch = plan(gw, child("exits.py", "0"), tmp_path, options=options, kind=REV)

    assert refusal(launch) == (
        "rev-runner: a session of rev takes no prompt; leave out --cmd, or --mode interactive"
    )


def test_its_own_commands_are_allowed_to_it_alone(gw: StrictGateway, tmp_path: Path) -> None:
    """CLAUDE_RUNNER_REV_ALLOWED_COMMANDS adds to what every runner of the project allows.

    What a gateway in the field would cut out of the marker arrives whole, and the sums agree.
    """
    env = {
        "EXTRA_ALLOWED_COMMANDS": "gh auth status",
        "CLAUDE_RUNNER_REV_ALLOWED_COMMANDS": "rev --version",
    }
    launch = plan(gw, child("exits.py", "0"), tmp_path, env=env, kind=REV)
    folder = tmp_path / "my secret project, api-key: none"
    folder.mkdir()
    other = plan(gw, child("exits.py", "0"), folder, env=env)
    for each in (launch, other):
        with RunnerProcess(each) as runner:
            assert runner.wait() == 0
        assert gw.verify_finished(each.run.id) == []

    (mine,) = gw.markers(launch.run.id, "started")
    (others,) = gw.markers(other.run.id, "started")
    assert mine["commands"] == [*others["commands"], "rev --version"]
    assert others["commands"][-1] == "gh auth status"
    assert others["workingDir"] == str(folder)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("no-such-rev", "rev-runner: 'no-such-rev' (REV_COMMAND, environment) was not found in"),
        ("no-such-rev", "in PATH and ~/.local/bin; install it, or set REV_COMMAND to its path"),
        ("./missing", "/missing does not exist; correct REV_COMMAND"),
        ("./plain", "/plain is not executable; chmod +x it, or correct REV_COMMAND"),
    ],
)
def test_a_program_that_is_not_there_is_told_by_its_own_variable(
    command: str, sentence: str, gw: StrictGateway, tmp_path: Path
) -> None:
    """Nobody who uses rev is sent to Claude Code's settings."""
    (tmp_path / "plain").touch(0o644)
    launch = plan(gw, [command], tmp_path, kind=REV)

    told = refusal(launch)

    assert sentence in told
    assert "CLAUDE_COMMAND" not in told


def test_one_that_is_elsewhere_is_named(gw: StrictGateway, tmp_path: Path) -> None:
    """pip and pipx put it into ~/.local/bin, which is not in every PATH."""
    place = tmp_path / ".local" / "bin" / "rev-here"
    place.parent.mkdir(parents=True)
    place.touch(0o755)
    launch = plan(gw, ["rev-here"], tmp_path, env={"HOME": str(tmp_path)}, kind=REV)

    assert f"was not found in PATH, but it is there as {place}; install" in refusal(launch)


def test_assist_and_sync_are_there_too(gw: StrictGateway, tmp_path: Path) -> None:
    """The rest of the commands is the same for every kind."""
    with FakeTmate(tmp_path) as fake:
        planned = plan(gw, child("exits.py", "0"), tmp_path, env=fake.env, kind=REV)
        argv = [sys.executable, str(REV.script), "assist", "--run-id", planned.run.id]
        with RunnerProcess(replace(planned, argv=argv)) as runner:
            gw.wait_for(lambda: gw.events(planned.run.id, "assist"), 20.0)
            fake.type("exit\n")
            assert runner.wait() == 0
    done = ask("sync", "--data-dir", str(tmp_path / "data"), env={"HMAC_SECRET": gw.secret})

    assert (done.returncode, done.stdout) == (0, "nothing is left to deliver\n")


def test_help_and_info_speak_of_rev() -> None:
    """Usage, examples, errors and the version name the program that was called."""
    helped, info, version = ask("start", "--help"), ask("info"), ask("--version")
    mistake = ask("start", "--nonsense")

    assert helped.stdout.startswith("usage: ./wrapper/rev-runner start ")
    assert "./wrapper/rev-runner start --run-id ID" in helped.stdout
    assert "claude" not in helped.stdout.lower()
    assert "--output" not in helped.stdout
    assert info.stdout.startswith("rev-runner ")
    assert "(REV_COMMAND, default)" in info.stdout
    assert "CLAUDE_COMMAND" not in info.stdout
    assert version.stdout.startswith("rev-runner ")
    assert mistake.stderr.startswith(
        "rev-runner: unrecognized argument: --nonsense; see ./wrapper/rev-runner"
    )


def test_the_demo_is_offered_as_what_it_is() -> None:
    """It shows the bundled session; a program of the user's own it would run as Claude Code."""
    helped, tried = ask("demo", "--help"), ask("demo", "--cmd", "fix it")

    assert helped.returncode == 0
    assert "CLAUDE_COMMAND" not in helped.stdout
    assert "--cmd PROMPT" not in helped.stdout
    assert (tried.returncode, tried.stdout) == (1, "")
    assert "unrecognized argument: --cmd" in tried.stderr


def test_a_crash_names_the_right_program(gw: StrictGateway, tmp_path: Path) -> None:
    """The report says which runner it was."""
    data = tmp_path / "data"
    source = (
        f"import sys; sys.path.insert(0, {str(REV.script.parent)!r}); import allowlist, "
        "rev_runner\n"
        "def fail(*_): raise ValueError('a bug')\n"
        "allowlist.Allowlist = fail\n"
        "sys.exit(rev_runner.main(profile=rev_runner.RevProfile()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, "info", "--data-dir", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("rev-runner: an error in rev-runner itself: ValueError: a bug")


def test_the_shim_runs_it(tmp_path: Path) -> None:
    """wrapper/rev-runner, copied with the runner's other files, is the same shim by its name."""
    first, again = tmp_path / "first", tmp_path / "again"
    copy_runner(first)
    subprocess.run(["cp", "-R", str(first), str(again)], check=True)
    for project in (first, again):
        done = subprocess.run(
            [str(project / "wrapper" / "rev-runner"), "--version"],
            env={**os.environ, "CLAUDE_RUNNER_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.fullmatch(r"rev-runner \d+\.\d+\.\d+\n", done.stdout), done.stderr
