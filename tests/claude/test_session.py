"""A session at the keyboard with the real Claude Code."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from testing.programs.runner import Launch
from testing.programs.screen import Screen
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tests.claude.scene import Scene, wait_for_file
from tests.claude.states import PROMPT_SIGN

MANUAL = ("--permission-mode", "manual")


def test_a_person_asks_and_leaves(scene: Scene) -> None:
    """Typed words reach the model, the answer is on the screen, /exit ends it with code 0.

    The gateway is told the session, and another run goes on with it.
    """
    launch = scene.plan(None, *MANUAL)

    with scene.terminal(launch) as terminal:
        terminal.expect("\u276f".encode(), 20.0)
        terminal.send(b"model: say Wonderful.")
        terminal.expect(b"Wonderful.", 20.0)
        terminal.send(b"\r")
        scene.api.wait_for(lambda: scene.api.prompts == ["model: say Wonderful."])
        terminal.expect(b"Wonderful.", 20.0)
        terminal.send(b"/exit")
        terminal.expect(b"exit", 20.0)
        terminal.send(b"\r")

        assert terminal.wait(20.0) == 0

    marker = scene.finished(launch.run)
    assert (marker["reason"], marker["childExitCode"]) == ("exited", 0)
    assert "Wonderful." in scene.gateway.text(launch.run.id)
    assert scene.gateway.verify_finished(launch.run.id) == []
    code, on = scene.run("model: say More.", options=["--resume", marker["sessionId"]])
    assert code == 0
    assert "Wonderful." in str(scene.api.requests[-1].body)
    assert scene.finished(on.run)["sessionId"] == marker["sessionId"]


def test_a_dialog_is_answered(scene: Scene) -> None:
    """The permission dialog takes its answer from the keyboard, and the tool runs."""
    launch = scene.plan("model: run touch made", *MANUAL, options=["--mode", "interactive"])

    with scene.terminal(launch) as terminal:
        terminal.expect(b"proceed", 20.0)
        assert not (scene.home.work / "made").exists()
        terminal.send(b"1")
        scene.api.wait_for(lambda: len(scene.api.prompts) == 2)
        assert (scene.home.work / "made").exists()
        scene.stop_and_check(launch, terminal.pid, terminal.wait)


def test_the_name_of_a_subcommand_is_a_prompt(scene: Scene) -> None:
    """In a session too, a prompt of one word is given to the model."""
    launch = scene.plan("doctor", *MANUAL, options=["--mode", "interactive"])

    with scene.terminal(launch) as terminal:
        scene.api.wait_for(lambda: scene.api.prompts == ["doctor"])
        scene.stop_and_check(launch, terminal.pid, terminal.wait)


def test_its_screen_is_the_same(scene: Scene) -> None:
    """Claude Code's own screen after an answer looks as it does without the runner."""
    launch = scene.plan(None, *MANUAL)
    alone = [str(scene.claude), *MANUAL]
    # What the runner sets as well: without its agents Claude Code does not offer them.
    env = {**launch.env, "CLAUDE_CODE_DISABLE_AGENT_VIEW": "1"}
    pictures = []

    for argv, after in ((alone, b""), (launch.argv, b"with --cmd\r\n")):
        with Terminal(argv, env=env, cwd=scene.home.work, columns=100, lines=40) as terminal:
            screen = Screen(terminal, 100, 40, after)
            screen.wait_for("\u276f")
            terminal.send(b"model: say Wonderful.")
            screen.wait_for(r"say Wonderful\.")
            terminal.send(b"\r")
            screen.wait_for(r"(?s)say Wonderful\.\s.*\s\S? ?Wonderful\.")
            scene.gateway.wait_for(lambda: scene.api.prompts)
            screen.wait_until_still()
            # Its logo moves its eyes, and it says at random how it has worked, and until when.
            text = re.sub("[ \u2580-\u259f]+", " ", screen.text())
            pictures.append(re.sub(r"\w+ for \d+s .*", "", text))
            # One that is killed tells so at its next start.
            terminal.send(b"/exit")
            screen.wait_for(r"/exit")
            terminal.send(b"\r")
            assert terminal.wait(20.0) == 0

    assert pictures[0] == pictures[1]


def test_the_viewer_knows_who_is_waiting(scene: Scene) -> None:
    """Markers tell when it works and when it waits for the person."""
    launch = scene.plan(None, *MANUAL)

    def states() -> list[str]:
        return [each["state"] for each in scene.gateway.markers(launch.run.id, "state")]

    def is_waiting_again() -> None:
        assert states()[-2:] == ["working", "waiting"], states()

    with scene.terminal(launch) as terminal:
        terminal.expect("\u276f".encode(), 20.0)
        terminal.send(b"model: slow 3")
        terminal.expect(b"slow", 20.0)
        terminal.send(b"\r")
        scene.api.wait_for(lambda: scene.api.delta_count > 3)
        eventually(is_waiting_again, 20.0)
        scene.stop_and_check(launch, terminal.pid, terminal.wait)


# --- in tmux -----------------------------------------------------------------------------------


@contextmanager
def tmux(scene: Scene, launch: Launch) -> Iterator[Callable[..., str]]:
    """Run it in a tmux of its own; give a function that runs a tmux command."""
    program = shutil.which("tmux")
    assert program is not None, "install tmux"

    def run(*command: str) -> str:
        argv = [program, "-f", "/dev/null", "-S", str(scene.folder / "tmux"), *command]
        env = {**launch.env, "LC_ALL": "C.UTF-8"}
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False).stdout

    run("new-session", "-d", "-x", "100", "-y", "40", shlex.join(launch.argv))
    try:
        yield run
    finally:
        run("kill-server")


def test_the_state_is_true_in_tmux(scene: Scene) -> None:
    """There the title says nothing: work, questions, permissions and Esc are told all the same."""
    launch = scene.plan(None, *MANUAL)

    def is_told(state: str) -> None:
        told = [each["state"] for each in scene.gateway.markers(launch.run.id, "state")]
        assert told[-1:] == [state], told

    with tmux(scene, launch) as run:

        def shows(sign: str) -> None:
            screen = run("capture-pane", "-p")
            assert sign in screen, screen

        def ask(prompt: str) -> None:
            run("send-keys", "-l", prompt)
            eventually(lambda: shows(prompt[-8:]), 30.0)  # a longer one is on several lines
            run("send-keys", "Enter")

        eventually(lambda: shows(PROMPT_SIGN), 30.0)
        eventually(lambda: is_told("waiting"), 30.0)
        ask("model: slow 60")
        eventually(lambda: is_told("working"), 30.0)
        scene.api.wait_for(lambda: scene.api.delta_count > 20)  # a while later it still is
        is_told("working")
        run("send-keys", "Escape")
        eventually(lambda: is_told("waiting"), 30.0)
        eventually(lambda: shows("Interrupted"), 30.0)
        run("send-keys", "C-u")
        ask(f"model: run {wait_for_file('go')}")
        eventually(lambda: shows("proceed"), 30.0)
        eventually(lambda: is_told("waiting"), 30.0)
        # A dialog takes no key in its first moment.
        deadline = time.monotonic() + 30.0
        while "proceed" in run("capture-pane", "-p") and time.monotonic() < deadline:
            run("send-keys", "1")
            time.sleep(1.0)
        scene.tool_pid()
        eventually(lambda: is_told("working"), 30.0)
        (scene.home.work / "go").touch()
        eventually(lambda: is_told("waiting"), 30.0)
        run("send-keys", "C-u")
        ask("/background")
        eventually(lambda: shows("Unknown command"), 30.0)
        scene.gateway.stop(launch.run.id)
        scene.gateway.wait_for(lambda: scene.gateway.markers(launch.run.id, "finished"))

    scene.assert_nothing_left()
