"""Stopping the real Claude Code: in each state, behind launchers, the runner killed."""

from __future__ import annotations

import signal
import uuid

import pytest

from testing import processes
from testing.claude_code import EVERYTHING, KEY, TRUST
from testing.runner import RunnerProcess
from tests_claude.scene import (
    ORPHANS_GONE_WITHIN_S,
    Scene,
    wait_for_file,
    write_launcher,
)

TOOL = f"model: run {wait_for_file('never')}"
MANUAL = ("--permission-mode", "manual")


# --- print mode -------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["model: slow 60", "model: hang", TOOL, "model: fail 500"])
def test_print_mode_is_stopped(scene: Scene, prompt: str) -> None:
    """Streaming, waiting for the API, with a tool running, waiting to try again: it is gone."""
    launch = scene.plan(prompt, "--allowedTools=Bash")

    with RunnerProcess(launch) as runner:
        if prompt == TOOL:
            scene.tool_pid()
        elif "slow" in prompt:
            scene.api.wait_for(lambda: scene.api.delta_count > 3)
        else:
            scene.api.wait_for(lambda: scene.api.prompts)
        scene.stop_and_check(launch, runner.pid, runner.wait)


def test_it_is_stopped_while_it_starts(scene: Scene) -> None:
    """A stop that comes before Claude Code is ready for signals ends it too."""
    launch = scene.plan("model: slow 60")

    with RunnerProcess(launch) as runner:
        scene.wait_for_claude(runner.pid)
        scene.stop_and_check(launch, runner.pid, runner.wait)


# --- through launchers ------------------------------------------------------------------------


def test_a_shell_launcher_is_stopped(scene: Scene) -> None:
    """A script that waits for Claude Code: both are gone, and so is the tool."""
    script = write_launcher(scene.folder / "claude-code", f'"{scene.claude}" "$@"\nexit $?')
    launch = scene.plan(TOOL, "--allowedTools=Bash", command=[str(script)])

    with RunnerProcess(launch) as runner:
        scene.tool_pid()
        scene.stop_and_check(launch, runner.pid, runner.wait)


def test_npx_is_stopped(scene: Scene) -> None:
    """Claude Code behind npx, which itself survives nothing and passes nothing on."""
    modules = scene.claude.parent.parent
    (scene.home.work / "node_modules").symlink_to(modules)
    command = ["npx", "--offline", "@anthropic-ai/claude-code"]
    launch = scene.plan(TOOL, "--allowedTools=Bash", command=command)

    with RunnerProcess(launch) as runner:
        scene.tool_pid()
        scene.stop_and_check(launch, runner.pid, runner.wait)

    (started,) = scene.gateway.markers(launch.run.id, "started")
    uuid.UUID(started["sessionId"])  # what is behind npx is known to be Claude Code


# --- the runner is killed ---------------------------------------------------------------------


def test_nothing_survives_a_killed_runner(scene: Scene) -> None:
    """After kill -9 of the runner, Claude Code and its tool, in a session of its own, are gone."""
    launch = scene.plan(TOOL, "--allowedTools=Bash")

    with RunnerProcess(launch) as runner:
        tool_pid = scene.tool_pid()
        pids = scene.claude_pids(runner.pid)
        assert tool_pid in pids

        runner.signal(signal.SIGKILL)
        runner.wait()

        processes.assert_gone(pids, ORPHANS_GONE_WITHIN_S)
        scene.assert_nothing_left()


# --- and afterwards ---------------------------------------------------------------------------


def test_a_stopped_session_is_resumed(scene: Scene) -> None:
    """The session id that was told brings back what was said."""
    launch = scene.plan("remember the walrus\nmodel: slow 60")
    with RunnerProcess(launch) as runner:
        scene.api.wait_for(lambda: scene.api.delta_count > 3)
        scene.stop_and_check(launch, runner.pid, runner.wait)
    (started,) = scene.gateway.markers(launch.run.id, "started")

    code, second = scene.run("and now?", "--resume", started["sessionId"])

    assert code == 0
    assert "Answer: and now?" in scene.gateway.text(second.run.id)
    asked = str([each for each in scene.api.requests if each.steps][-1].body["messages"])
    assert "remember the walrus" in asked
    assert "word0 word1" in asked


# --- interactive ------------------------------------------------------------------------------

# What stands before the person's own words.
PROMPT_SIGN = "\u276f"
# What has been accepted, the prompt, and how the state is recognised: a word on the screen, or
# what the model was asked.
STATES = [
    pytest.param(EVERYTHING, None, PROMPT_SIGN, id="idle"),
    pytest.param(EVERYTHING, "model: slow 60", "slow", id="streaming"),
    pytest.param(EVERYTHING, "model: hang", "hang", id="waiting for the API"),
    pytest.param(EVERYTHING, TOOL, "tool", id="tool running"),
    pytest.param(EVERYTHING, None, "start-up", id="start-up"),
    pytest.param(frozenset(), None, "connectivity", id="onboarding"),
    pytest.param(EVERYTHING - {TRUST}, None, "trust", id="trust dialog"),
    pytest.param(EVERYTHING - {KEY}, None, "recommended", id="API key dialog"),
    pytest.param(EVERYTHING, "model: run touch made", "proceed", id="permission dialog"),
    pytest.param(EVERYTHING, "model: ask", "colour?", id="question dialog"),
]


@pytest.mark.parametrize(("accepted", "prompt", "sign"), STATES)
def test_a_session_is_stopped(
    scene: Scene, accepted: frozenset[str], prompt: str | None, sign: str
) -> None:
    """Whatever it is doing or asking, it is gone; nothing was approved by stopping it."""
    scene.make_home(accepted)
    allowed = ("--allowedTools=Bash",) if prompt == TOOL else ()
    options = ["--mode", "interactive"]
    launch = scene.plan(prompt, *MANUAL, *allowed, options=options)

    with scene.terminal(launch) as terminal:
        before = terminal.attributes()
        if sign == "slow":
            scene.api.wait_for(lambda: scene.api.delta_count > 3)
        elif sign == "hang":
            scene.api.wait_for(lambda: scene.api.count("hang"))
        elif sign == "tool":
            scene.tool_pid()
        elif sign == "start-up":
            scene.wait_for_claude(terminal.pid)
        else:
            terminal.expect(sign.encode(), 20.0)
        scene.stop_and_check(launch, terminal.pid, terminal.wait)

        assert terminal.attributes() == before
    assert not (scene.home.work / "made").exists()


def test_a_shell_launcher_in_a_session_is_stopped(scene: Scene) -> None:
    """A launcher in the terminal's foreground does not keep the session."""
    script = write_launcher(scene.folder / "claude-code", f'"{scene.claude}" "$@"\nexit $?')
    launch = scene.plan(None, *MANUAL, command=[str(script)])

    with scene.terminal(launch) as terminal:
        terminal.expect(PROMPT_SIGN.encode(), 20.0)
        scene.stop_and_check(launch, terminal.pid, terminal.wait)


def test_the_bypass_dialog_is_stopped(scene: Scene) -> None:
    """The warning before a session without permissions: it is gone, and nothing was accepted."""
    launch = scene.plan(
        "model: run touch made",
        "--dangerously-skip-permissions",
        options=["--mode", "interactive"],
        env={"IS_SANDBOX": "1"},  # without it Claude Code refuses root
    )

    with scene.terminal(launch) as terminal:
        before = terminal.attributes()
        terminal.expect(b"Bypass", 20.0)
        terminal.expect(b"exit", 20.0)
        scene.stop_and_check(launch, terminal.pid, terminal.wait)

        assert terminal.attributes() == before
    assert scene.api.prompts == []
    assert not (scene.home.work / "made").exists()


@pytest.mark.parametrize("status", [500, 529])
def test_a_session_that_waits_to_retry_is_stopped(scene: Scene, status: int) -> None:
    """Between two attempts at an API that is broken or overloaded, it is gone like the others."""
    launch = scene.plan(f"model: fail {status}", *MANUAL, options=["--mode", "interactive"])

    with scene.terminal(launch) as terminal:
        before = terminal.attributes()
        terminal.expect(b"attempt", 20.0)  # how it counts them while it waits
        scene.stop_and_check(launch, terminal.pid, terminal.wait)

        assert terminal.attributes() == before
