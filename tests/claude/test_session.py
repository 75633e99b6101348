"""A session at the keyboard with the real Claude Code."""

from __future__ import annotations

import re

import pytest

from testing.programs.screen import Screen
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tests.claude.scene import Scene

MANUAL = ("--permission-mode", "manual")


def test_a_person_asks_and_leaves(scene: Scene) -> None:
    """Typed words reach the model, the answer is on the screen, /exit ends it with code 0."""
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


@pytest.mark.parametrize("prompt", ["doctor", "mcp"])
def test_the_name_of_a_subcommand_is_a_prompt(scene: Scene, prompt: str) -> None:
    """In a session too, a prompt of one word is given to the model."""
    launch = scene.plan(prompt, *MANUAL, options=["--mode", "interactive"])

    with scene.terminal(launch) as terminal:
        scene.api.wait_for(lambda: scene.api.prompts == [prompt])
        scene.stop_and_check(launch, terminal.pid, terminal.wait)


def test_its_screen_is_the_same(scene: Scene) -> None:
    """Claude Code's own screen after an answer looks as it does without the runner."""
    launch = scene.plan(None, *MANUAL)
    alone = [str(scene.claude), *MANUAL]
    pictures = []

    for argv, after in ((alone, b""), (launch.argv, b"with --cmd\r\n")):
        with Terminal(argv, env=launch.env, cwd=scene.home.work, columns=100, lines=40) as terminal:
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
