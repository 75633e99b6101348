"""Print mode with the real Claude Code: prompts arrive, answers arrive, the end is told."""

from __future__ import annotations

import json
import uuid

import pytest

from testing.programs.runner import RunnerProcess
from tests.claude.scene import Scene


def test_an_answer_arrives(scene: Scene) -> None:
    """The answer is at the gateway and on stdout, the exit code is 0; the session has an id, which
    the end prints in the command that goes on with it.
    """
    launch = scene.plan("hello there")

    with RunnerProcess(launch) as runner:
        code = runner.wait(30.0)
        shown, told = runner.stdout.decode(), runner.stderr

    assert code == 0
    assert "Answer: hello there" in scene.gateway.text(launch.run.id)
    assert "Answer: hello there" in shown
    assert scene.api.prompts == ["hello there"]
    (started,) = scene.gateway.markers(launch.run.id, "started")
    assert started["mode"] == "print"
    session = str(uuid.UUID(started["sessionId"]))
    assert f"--resume {session}" in told
    assert [path.stem for path in scene.home.transcripts] == [session]
    assert scene.finished(launch.run)["reason"] == "exited"
    assert scene.gateway.verify_finished(launch.run.id) == []
    # Nothing but the model was asked: what is meant for other machines goes to the proxy.
    assert not any("api.anthropic.com" in each.path for each in scene.api.requests)


def test_a_tool_runs(scene: Scene) -> None:
    """A tool that is allowed is executed in the working directory.

    An answer that does not come is asked for again, by Claude Code itself. Several lines come
    without carriage returns.
    """
    code, launch = scene.run(
        "model: run echo made > made.txt\nmodel: drop 1\nmodel: say one\\ntwo\\nthree",
        "--allowedTools=Bash",
    )

    assert code == 0
    assert (scene.home.work / "made.txt").read_text() == "made\n"
    text = scene.gateway.text(launch.run.id)
    assert "one\ntwo\nthree\n" in text
    assert "\r" not in text


def test_a_background_task_is_waited_for(scene: Scene) -> None:
    """The run ends with the process, not with the first result."""
    code, launch = scene.run(
        'model: background python3 -c "import time; time.sleep(1.5)"; touch late\n'
        "model: say Started.",
        "--allowedTools=Bash",
    )

    assert code == 0
    assert (scene.home.work / "late").exists()
    assert "Done." in scene.gateway.text(launch.run.id)


def test_an_api_error_is_told(scene: Scene) -> None:
    """An error of the API is in the output, and the exit code is Claude Code's."""
    code, launch = scene.run("model: fail 529", env={"CLAUDE_CODE_MAX_RETRIES": "1"})

    assert code == 1
    assert "API Error: 529" in scene.gateway.text(launch.run.id)
    marker = scene.finished(launch.run)
    assert (marker["reason"], marker["childExitCode"]) == ("exited", 1)


def test_what_is_refused_at_once_has_no_session(scene: Scene) -> None:
    """Without a session there is no word on how to resume it, and no empty file."""
    launch = scene.plan("hello", "--no-such-option")

    with RunnerProcess(launch) as runner:
        assert runner.wait(30.0) == 1
        told = runner.stderr

    assert "--resume" not in told
    assert [each.name for each in scene.gateway.artifacts(launch.run.id)] == ["claude.log"]


PROMPTS = [
    pytest.param("--help", id="an option"),
    pytest.param("doctor", id="the name of a subcommand"),
    pytest.param("-one\n\n  'two' \"three\"\t$HOME `x` $(y) %d \\n \u00e9\U0001f980", id="lines"),
    pytest.param("a" * 131_071, id="131,071 bytes"),
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_arrives_as_it_is(scene: Scene, prompt: str) -> None:
    """Whatever the prompt looks like, it is a prompt, and the model gets it whole."""
    code, _ = scene.run(prompt)

    assert code == 0
    assert scene.api.prompts[-1] == prompt


def test_a_longer_prompt_goes_through_stdin(scene: Scene) -> None:
    """What no argument can hold arrives as well."""
    prompt = "line of a long prompt\n" * 20_000
    (scene.folder / "prompt.txt").write_text(prompt)
    launch = scene.plan("-")

    with (
        (scene.folder / "prompt.txt").open("rb") as file,
        RunnerProcess(launch, stdin=file) as runner,
    ):
        code = runner.wait(30.0)

    assert code == 0
    assert scene.api.prompts[-1] == prompt.strip()


def test_the_users_own_format_is_left_alone(scene: Scene) -> None:
    """With --output-format of the user's the output is Claude Code's own, for a program to read."""
    launch = scene.plan("hello", "--output-format", "json")

    with RunnerProcess(launch) as runner:
        assert runner.wait(30.0) == 0
        shown = runner.stdout.decode()

    for text in (shown, scene.gateway.text(launch.run.id), launch.log.decode()):
        assert json.loads(text)["result"] == "Answer: hello"
    assert scene.gateway.text(launch.run.id, "stderr") == ""
