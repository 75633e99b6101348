"""What Claude Code does is shown while it does it, as text that a person reads."""

from __future__ import annotations

import json
import re
import secrets

from testing.programs.runner import Launch, RunnerProcess
from tests.claude.scene import Scene, wait_for_file


def jsonl(scene: Scene, launch: Launch) -> bytes:
    """Return the uploaded claude.jsonl."""
    (found,) = [
        each for each in scene.gateway.artifacts(launch.run.id) if each.name == "claude.jsonl"
    ]
    return found.data


def test_it_is_shown_as_it_happens(scene: Scene) -> None:
    """What it says and the tool it uses are at the gateway while the tool runs."""
    prompt = f"model: say I will look.\nmodel: run {wait_for_file('go')}\nmodel: say Seen."
    launch = scene.plan(prompt, "--allowedTools=Bash")

    with RunnerProcess(launch) as runner:
        scene.tool_pid()
        launch.expect(r"I will look\.\n\n● Bash: python3 -c ")
        assert "Seen." not in scene.gateway.text(launch.run.id)
        (scene.home.work / "go").touch()
        assert runner.wait(30.0) == 0

    text = scene.gateway.text(launch.run.id)
    assert text.startswith("◆ Claude Code 2.")
    assert re.search(r"\n⎿ \(no output\)\n\nSeen\.\n\n■ Done in [\d.]+ s, 2 turns, \$\d", text)
    assert launch.log.decode().startswith("◆ Claude Code 2.")


def test_words_are_shown_while_they_are_written(scene: Scene) -> None:
    """A gateway that lists `partial` has them before the answer is complete, and once."""
    scene.gateway.extensions = ("partial",)
    launch = scene.plan("model: slow 1.5\nmodel: run echo hi", "--allowedTools=Bash")

    with RunnerProcess(launch) as runner:
        launch.expect(r"\n\nword0 word1")
        assert "word9" not in scene.gateway.text(launch.run.id)
        assert runner.wait(30.0) == 0

    text = scene.gateway.text(launch.run.id)
    assert text.count("word0") == 1
    assert re.search(r"word9\nword10 .* word14\n\n● Bash: echo hi\n⎿ hi\n", text)
    assert b"stream_event" not in jsonl(scene, launch)


def test_the_raw_lines_are_kept_without_secrets(scene: Scene) -> None:
    """claude.jsonl holds every message as JSON; what this machine knows as secret is in nothing."""
    secret = secrets.token_hex(24)
    code, launch = scene.run(
        "model: run printf 'first\\nvalue %s\\nlast' \"$SCENE_API_TOKEN\"",
        "--allowedTools=Bash",
        env={"SCENE_API_TOKEN": secret},
    )

    assert code == 0
    raw = jsonl(scene, launch)
    messages = [json.loads(line) for line in raw.splitlines()]
    assert [each["type"] for each in messages][:2] == ["system", "assistant"]
    assert messages[-1]["type"] == "result"
    text = scene.gateway.text(launch.run.id)
    assert "⎿ value [REDACTED]\n" in text
    for output in (raw, launch.log, text.encode()):
        assert secret.encode() not in output


def test_a_refused_tool_names_what_would_allow_it(scene: Scene) -> None:
    """The arguments in the output allow the tool when they are given."""
    prompt = "model: run touch made.txt\nmodel: say Well."

    code, launch = scene.run(prompt)

    assert code == 0
    text = scene.gateway.text(launch.run.id)
    assert "▲ refused: " in text
    assert scene.finished(launch.run)["result"]["permissionDenials"] == ["Bash"]
    assert not (scene.home.work / "made.txt").exists()
    (argument,) = re.findall(r"^◆ to allow: (.*)$", text, re.MULTILINE)

    code, launch = scene.run(prompt, argument)

    assert code == 0
    assert (scene.home.work / "made.txt").exists()
    assert "permissionDenials" not in scene.finished(launch.run)["result"]


def test_a_hook_is_told(scene: Scene) -> None:
    """One that fails is shown; one that refuses a tool brings no advice on --allowedTools."""
    settings = {
        "hooks": {
            name: [{"hooks": [{"type": "command", "command": command}]}]
            for name, command in (
                ("SessionStart", "echo broken >&2; exit 1"),
                ("PreToolUse", "echo not here >&2; exit 2"),
                ("Stop", "exit 1"),
            )
        }
    }

    code, launch = scene.run(
        "model: run touch made.txt\nmodel: say Well.", "--settings", json.dumps(settings)
    )

    text = scene.gateway.text(launch.run.id)
    assert code == 0
    assert "▲ hook SessionStart:startup failed (exit code 1): broken\n" in text
    assert re.search("(?i)^▲ stop hook [a-z ]+$", text, re.MULTILINE)
    assert "▲ 1 tool refused:\n" in text
    assert "--allowedTools" not in text


def test_a_slow_command_is_one_command(scene: Scene) -> None:
    """Nothing says that a command of more than two seconds has gone to the background."""
    command = 'python3 -c "import time; time.sleep(3); print(7 * 6)"'

    code, launch = scene.run(f"model: run {command}", "--allowedTools=Bash")

    text = scene.gateway.text(launch.run.id)
    assert code == 0
    assert f"● Bash: {command}\n⎿ 42\n" in text


def test_a_retry_is_shown_while_it_waits(scene: Scene) -> None:
    """The silence of a retry has a line at the gateway, and then it goes on."""
    launch = scene.plan("model: fail 529 1\nmodel: say At last.")

    with RunnerProcess(launch) as runner:
        launch.expect(r"▲ API: overloaded \(529\); retry 1 of \d+ in ")
        assert runner.wait(30.0) == 0

    assert "At last." in scene.gateway.text(launch.run.id)


def test_what_the_result_says_is_in_the_marker(scene: Scene) -> None:
    """An API error is an error in `finished`, though Claude Code calls it a success."""
    code, launch = scene.run("model: fail 400")

    marker = scene.finished(launch.run)
    result = marker["result"]
    assert (code, marker["reason"], marker["childExitCode"]) == (1, "exited", 1)
    assert "API Error: 400" in scene.gateway.text(launch.run.id)
    assert (result["isError"], result["terminalReason"]) == (True, "api_error")
    assert "■ Failed (api error) after " in scene.gateway.text(launch.run.id)


def test_text_is_claude_codes_own(scene: Scene) -> None:
    """With --output text nothing is added."""
    code, launch = scene.run("hello", options=["--output", "text"])

    assert code == 0
    assert scene.gateway.text(launch.run.id).startswith("Answer: hello\n")
