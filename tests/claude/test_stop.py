"""Stopping the real Claude Code: in each state, behind launchers, the runner killed."""

from __future__ import annotations

import uuid

import pytest

from testing.programs.runner import RunnerProcess
from tests.claude.scene import Scene, write_launcher
from tests.claude.states import MANUAL, PRINT, PROMPT_SIGN, SESSIONS, TOOL, State, kill_runner, stop


@pytest.mark.parametrize("state", [*PRINT, *SESSIONS], ids=str)
def test_it_is_stopped(scene: Scene, state: State) -> None:
    """Whatever it is doing or asking, it is gone; nothing was approved by stopping it."""
    stop(scene, state)


# The keeper asks nobody: what differs is which processes there are.
@pytest.mark.parametrize(
    "state",
    [
        each
        for each in (*PRINT, *SESSIONS)
        if each.name in ("start-up", "tool running", "permission dialog")
    ],
    ids=str,
)
def test_nothing_survives_a_killed_runner(scene: Scene, state: State) -> None:
    """After kill -9 of the runner, Claude Code and its tool, in a session of its own, are gone."""
    kill_runner(scene, state)


# --- through launchers ------------------------------------------------------------------------


def test_a_shell_launcher_is_stopped(scene: Scene) -> None:
    """A script that waits for Claude Code: both are gone, and so is the tool."""
    script = write_launcher(scene.folder / "claude-code", f'"{scene.claude}" "$@"\nexit $?')
    launch = scene.plan(TOOL, "--allowedTools=Bash", command=[str(script)])

    with RunnerProcess(launch) as runner:
        scene.tool_pid()
        scene.stop_and_check(launch, runner.pid, runner.wait)


def test_a_shell_launcher_in_a_session_is_stopped(scene: Scene) -> None:
    """A launcher in the terminal's foreground does not keep the session."""
    script = write_launcher(scene.folder / "claude-code", f'"{scene.claude}" "$@"\nexit $?')
    launch = scene.plan(None, *MANUAL, command=[str(script)])

    with scene.terminal(launch) as terminal:
        terminal.expect(PROMPT_SIGN.encode(), 20.0)
        scene.stop_and_check(launch, terminal.pid, terminal.wait)


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


# --- and afterwards ---------------------------------------------------------------------------


def test_a_stopped_session_is_resumed(scene: Scene) -> None:
    """The stop is shown, and the session id that was told brings back what was said until then."""
    launch = scene.plan("remember the walrus\nmodel: slow 60")
    with RunnerProcess(launch) as runner:
        scene.api.wait_for(lambda: scene.api.delta_count > 3)
        scene.stop_and_check(launch, runner.pid, runner.wait)
    (started,) = scene.gateway.markers(launch.run.id, "started")
    text = scene.gateway.text(launch.run.id)
    assert "word0 word1" in text
    assert "▲ Request interrupted by user\n" in text or "■ Interrupted after " in text

    code, second = scene.run("and now?", "--resume", started["sessionId"])

    assert code == 0
    assert "Answer: and now?" in scene.gateway.text(second.run.id)
    asked = str([each for each in scene.api.requests if each.steps][-1].body["messages"])
    assert "remember the walrus" in asked
    assert "word0 word1" in asked
