"""A run that asks, with the real Claude Code: the newest, and two older releases."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.gateways.operator import WITHIN_S, Operator
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import claude_code, processes
from testing.programs.model_api import ModelApi
from testing.programs.runner import Launch, RunnerProcess
from testing.programs.terminal import Terminal
from testing.programs.verdict import ASKED_TWICE, sync
from tests.claude.scene import Scene, wait_for_file

INPUT = {"CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "true"}
REMOTE = ("--ask", "remote")
# The real program is slow to start on a busy machine, the old one above all.
ENDS_WITHIN_S = 60.0


@dataclass
class Stage:
    """A stage, and the release that plays on it."""

    scene: Scene
    release: str

    def plan(self, prompt: str, *options: str, arguments: tuple[str, ...] = ()) -> Launch:
        """Prepare a run that asks."""
        given = options or REMOTE
        return self.scene.plan(prompt, *arguments, options=given, env=INPUT)

    def operator(self, launch: Launch) -> Operator:
        """Return the operator of a run."""
        return Operator(self.scene.gateway, launch.run.id)

    @property
    def is_old(self) -> bool:
        """Whether this is 2.0."""
        return self.release.startswith("2.0")

    def made(self, name: str) -> bool:
        """Whether there is such a file in the working folder."""
        return (self.scene.home.work / name).exists()


@pytest.fixture(scope="session", params=["newest", *claude_code.OLDER_RELEASES])
def program(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """Return the program and its release."""
    release = "" if request.param == "newest" else request.param
    path = claude_code.install(release)
    return path, claude_code.version(path)


@pytest.fixture
def stage(program: tuple[Path, str], clean_environment: None, tmp_path: Path) -> Iterator[Stage]:
    """Give each check a model, a gateway with cards, and a home."""
    with ModelApi() as api, StrictGateway(rate_limit=None, extensions=("answers",)) as gateway:
        gateway.allow(ASKED_TWICE)
        yield Stage(Scene(program[0], api, gateway, tmp_path), program[1])


def changes(stage: Stage, launch: Launch) -> str:
    """Return what the run has sent last of its changes."""
    sent = stage.scene.gateway.artifacts(launch.run.id)
    return next((e.data.decode() for e in sent[::-1] if e.name == "changes.diff"), "")


def test_permissions(stage: Stage) -> None:
    """Allowed, denied and allowed for the run, an edit with its diff, and a question.

    One after another: what was allowed is done, and the model reads the answer. 2.0.0 does not have
    the tool that asks a question.
    """
    path = stage.scene.home.work / "a.txt"
    path.write_text("one\n")
    for words in ("init -q", "add a.txt", "-c user.name=t -c user.email=t@x commit -q -m first"):
        subprocess.run(["git", *words.split()], cwd=path.parent, check=True)
    launch = stage.plan(
        "model: run touch one\nmodel: run touch two\nmodel: run touch three\nmodel: run touch three"
        f'\nmodel: use Read {{"file_path":"{path}"}}\n'
        f'model: use Edit {{"file_path":"{path}","old_string":"one","new_string":"two"}}\n'
        "model: ask\nmodel: say The end."
    )
    operator = stage.operator(launch)

    with RunnerProcess(launch) as runner:
        first = operator.asked()
        assert not stage.made("one")
        assert operator.answer(first).result == "Answered: allow"
        second = operator.asked(2)
        assert operator.answer(second, "deny", message="not two").result == "Answered: deny"
        third = operator.asked(3)
        operator.answer(third, scope=third["scopes"][0]["id"])
        edit = operator.asked(4)
        assert path.read_text() == "one\n"
        operator.answer(edit)
        if not stage.is_old:
            question = operator.asked(5)
            # What the tools did is sent while the run goes on.
            stage.scene.gateway.wait_for(lambda: changes(stage, launch), WITHIN_S)
            assert operator.answer(question, answers=[{"options": [1]}]).error is None
        assert runner.wait(ENDS_WITHIN_S) == 0

    assert (first["tool"], first["input"]["command"]) == ("Bash", "touch one")
    assert [stage.made(name) for name in ("one", "two", "three")] == [True, False, True]
    assert ("-one" in edit["diff"], "+two" in edit["diff"]) == (True, True)
    assert path.read_text() == "two\n"
    assert len(operator.markers("asked")) == 4 + (not stage.is_old)
    assert not stage.made(".claude")
    assert "-one\n+two\n" in changes(stage, launch)
    assert "\ndiff --git a/three b/three\nnew file" in changes(stage, launch)
    text = stage.scene.gateway.text(launch.run.id)
    assert "not two" in text
    assert "The end." in text
    result = operator.finished()["result"]
    assert result["permissionDenials"] == ["Bash"]
    told = [str(each.body.get("messages", [""])[-1]) for each in stage.scene.api.requests]
    assert any("Blue" in each for each in told) != stage.is_old


def test_a_plan(stage: Stage) -> None:
    """Sent back with what is missing, then approved; Claude Code leaves the plan mode."""
    use = 'model: use ExitPlanMode {"plan":"# Plan"}\n'
    arguments = ("--permission-mode", "plan")
    launch = stage.plan(f"{use}{use}model: run touch built\nmodel: say Built.", arguments=arguments)
    operator = stage.operator(launch)

    with RunnerProcess(launch) as runner:
        operator.answer(operator.asked(), "deny", message="where are the tests?")
        operator.answer(operator.asked(2))
        operator.answer(operator.asked(3))
        assert runner.wait(ENDS_WITHIN_S) == 0

    assert [each["kind"] for each in operator.markers("asked")] == ["plan", "plan", "permission"]
    assert stage.made("built")
    told = [str(each.body.get("messages")) for each in stage.scene.api.requests]
    assert any("where are the tests?" in each for each in told)


def test_the_keyboard(stage: Stage) -> None:
    """Answers as well."""
    launch = stage.plan("model: run touch one\nmodel: say The end.", "--ask", "local")

    with Terminal(launch.argv, env=launch.env, columns=100, lines=40) as terminal:
        terminal.expect(b"n = deny", WITHIN_S)
        terminal.send(b"y\n")
        assert terminal.wait(ENDS_WITHIN_S) == 0

    assert stage.made("one")
    (answered,) = stage.operator(launch).markers("answered")
    assert answered["by"] == "keyboard"


def test_a_limit(stage: Stage) -> None:
    """Nobody answers: it is denied, and the model reads why."""
    launch = stage.plan("model: run touch one\nmodel: say Well.", *REMOTE, "--ask-timeout", "1s")

    with RunnerProcess(launch) as runner:
        assert runner.wait(ENDS_WITHIN_S) == 0

    assert not stage.made("one")
    assert any("--ask-timeout" in str(each.body) for each in stage.scene.api.requests)


def test_messages(stage: Stage) -> None:
    """In a tool, and after a turn; each is read, and the run ends when it is stopped."""
    gate = stage.scene.home.work / "gate"
    launch = stage.plan(
        f"model: run {wait_for_file('gate')}\nmodel: say One.", *REMOTE, "--stay", "1h"
    )
    operator, api = stage.operator(launch), stage.scene.api

    with RunnerProcess(launch) as runner:
        operator.answer(operator.asked())
        operator.enter("in the tool")
        gate.touch()
        operator.wait_for_markers("taken")
        api.wait_for(
            lambda: any("in the tool" in str(each.body) for each in api.requests), WITHIN_S
        )
        operator.gateway.wait_for(
            lambda: [each["state"] for each in operator.markers("state")][-1:] == ["waiting"],
            WITHIN_S,
        )
        assert operator.enter("after the turn").error is None
        launch.expect("Answer: .*after the turn", within_s=WITHIN_S)
        stage.scene.gateway.stop(launch.run.id)
        assert runner.wait(ENDS_WITHIN_S) == 130


def test_a_message_in_a_text(stage: Stage) -> None:
    """It waits, and is the next turn; then the run ends. The text comes as it is written."""
    stage.scene.gateway.extensions = ("answers", "partial")
    launch = stage.plan("model: slow 4\nmodel: say One.")
    operator, api = stage.operator(launch), stage.scene.api

    with RunnerProcess(launch) as runner:
        api.wait_for(lambda: api.count("slow") and api.delta_count > 3, WITHIN_S)
        assert "waits" in (operator.enter("and this").result or "")
        assert runner.wait(ENDS_WITHIN_S) == 0

    assert api.prompts[-1] == "and this"
    assert len(operator.markers("taken")) == 1
    text = stage.scene.gateway.text(launch.run.id)
    assert "Answer: and this" in text
    assert text.count("word0 ") == 1
    written = [each for each in stage.scene.gateway.events(launch.run.id) if "word" in each.data]
    assert len(written) > 2


def test_an_interrupt(stage: Stage) -> None:
    """It withdraws the question, and what waits goes on; then one that ends the run."""
    launch = stage.plan("model: run touch one\nmodel: say One.")
    operator, api = stage.operator(launch), stage.scene.api

    with RunnerProcess(launch) as runner:
        operator.asked()
        operator.enter("model: slow 20\nmodel: say Two.")
        operator.order("__ESCAPE__")
        (withdrawn,) = operator.wait_for_markers("withdrawn")
        api.wait_for(lambda: api.count("slow") and api.delta_count > 3, WITHIN_S)
        operator.order("__ESCAPE__")
        assert runner.wait(ENDS_WITHIN_S) == 130

    assert withdrawn["reason"] == "interrupted"
    assert operator.finished()["reason"] == "interrupted"
    assert not stage.made("one")


def test_a_background_task(stage: Stage) -> None:
    """The run is there for the turn after it; 2.0 has no such turn, and is not waited for."""
    gate = stage.scene.home.work / "gate"
    launch = stage.plan(f"model: background {wait_for_file('gate')}\nmodel: say On it.")
    operator = stage.operator(launch)

    with RunnerProcess(launch) as runner:
        operator.answer(operator.asked())
        launch.expect("On it", within_s=WITHIN_S)
        if not stage.is_old:
            gate.touch()
        assert runner.wait(ENDS_WITHIN_S) == 0

    assert ("Done." in stage.scene.gateway.text(launch.run.id)) != stage.is_old


def test_killed_with_a_question_open(stage: Stage) -> None:
    """`sync` takes the card back; nothing is left of Claude Code."""
    launch = stage.plan("model: run touch one\nmodel: say One.")
    operator = stage.operator(launch)

    with RunnerProcess(launch) as runner:
        operator.asked()
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait(WITHIN_S)
    processes.assert_gone(pids, WITHIN_S)
    assert sync(launch).code == 0

    assert [each["reason"] for each in operator.markers("withdrawn")] == ["ended"]
    assert not stage.made("one")


def test_a_session_goes_on(stage: Stage) -> None:
    """What the end of a run says is what resumes its session, in a new run."""
    launch = stage.plan("remember the word octarine")
    with RunnerProcess(launch) as runner:
        assert runner.wait(ENDS_WITHIN_S) == 0
        told = runner.stderr
    session = re.search(r"--resume ([0-9a-f-]{36})", told)
    assert session is not None, told

    again = stage.plan("which word?", *REMOTE, "--resume", session[1])
    with RunnerProcess(again) as runner:
        assert runner.wait(ENDS_WITHIN_S) == 0

    asked = [str(each.body) for each in stage.scene.api.requests if "which word?" in each.prompt]
    assert asked
    assert all("octarine" in each for each in asked)


def test_a_prompt_of_ten_megabytes(stage: Stage) -> None:
    """It is one message: the model gets it whole, or Claude Code says that it is too long."""
    folder = stage.scene.folder
    prompt = "model: say Read.\n" + "x" * 10_000_000
    (folder / "prompt.txt").write_text(prompt)
    launch = stage.plan("-")

    with (folder / "prompt.txt").open("rb") as file, RunnerProcess(launch, stdin=file) as runner:
        code = runner.wait(2 * ENDS_WITHIN_S)

    text = stage.scene.gateway.text(launch.run.id)
    assert (code, "Read." in text) == (0, True) or (code, "too long" in text) == (1, True)
