"""The stand-in for Claude Code does what was measured with Claude Code itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Callable

import pytest

from testing.programs import claude_standin as script
from testing.programs.claude_standin import NEWEST, RELEASES, StandIn

ASKING = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
ASKING += ["--permission-prompt-tool", "stdio", "--replay-user-messages"]


class _Talk:
    """A stand-in that runs, and the lines to and from it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin: IO[bytes] = process.stdin
        self._stdout: IO[bytes] = process.stdout
        self.seen: list[dict[str, Any]] = []

    def send(self, value: dict[str, Any]) -> None:
        self._stdin.write(json.dumps(value).encode() + b"\n")
        self._stdin.flush()

    def say(self, text: str, uuid: str) -> None:
        self.send({"type": "user", "uuid": uuid, "message": {"role": "user", "content": text}})

    def demand(self, subtype: str, **fields: str) -> None:
        request = {"subtype": subtype, **fields}
        self.send({"type": "control_request", "request_id": subtype, "request": request})

    def answer(self, asked: dict[str, Any], **response: Any) -> None:
        answer = {"subtype": "success", "request_id": asked["request_id"], "response": response}
        self.send({"type": "control_response", "response": answer})

    def until(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read lines until one is it."""
        for line in self._stdout:
            value: dict[str, Any] = json.loads(line)
            self.seen.append(value)
            if is_it(value):
                return value
        raise AssertionError(f"it ended; it had said {self.seen}")

    def until_asked(self) -> dict[str, Any]:
        return self.until(lambda each: each["type"] == "control_request")

    def until_result(self) -> dict[str, Any]:
        return self.until(lambda each: each["type"] == "result")

    def close(self) -> int:
        """Close its stdin, read the rest, and return its exit code."""
        self._stdin.close()
        self.seen += [json.loads(each) for each in self._stdout]
        return self._process.wait(20.0)


@contextmanager
def _talk(standin: StandIn, arguments: Sequence[str] = ASKING) -> Iterator[_Talk]:
    process = subprocess.Popen(
        [*standin.command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        try:
            yield _Talk(process)
        finally:
            process.kill()


@pytest.mark.parametrize("version", RELEASES)
def test_a_tool_runs_when_it_was_allowed(tmp_path: Path, version: str) -> None:
    """The answer decides, a second one is ignored, and the record says what runs."""
    standin = StandIn(tmp_path, [[script.bash("make"), script.say("Made.")]], version=version)

    with _talk(standin) as claude:
        claude.say("go", "u1")
        asked = claude.until_asked()
        claude.answer(asked, behavior="allow", updatedInput={"command": "make -n"})
        claude.answer(asked, behavior="deny", message="no")
        result = claude.until_result()
        code = claude.close()

    assert (code, result["permission_denials"]) == (0, [])
    decision = standin.wait_for_decision()
    assert (decision["behavior"], decision["input"]) == ("allow", {"command": "make -n"})
    assert ("tool_use_id" in asked["request"]) == (version != "2.0.0")
    assert next(each["uuid"] for each in claude.seen if each["type"] == "user") == "u1"


@pytest.mark.parametrize(("version", "code"), [(NEWEST, 1), ("2.1.197", 1), ("2.0.77", 0)])
def test_an_interrupt_withdraws_the_question(tmp_path: Path, version: str, code: int) -> None:
    """It is cancelled before the interrupt is confirmed; a late answer does nothing."""
    standin = StandIn(tmp_path, [[script.bash("make")]], version=version)

    with _talk(standin) as claude:
        claude.say("go", "u1")
        asked = claude.until_asked()
        claude.demand("interrupt")
        result = claude.until_result()
        claude.answer(asked, behavior="allow", updatedInput={})
        ended = claude.close()

    kinds = [each["type"] for each in claude.seen]
    assert kinds.index("control_cancel_request") < kinds.index("control_response")
    assert result["subtype"] == "error_during_execution"
    assert len(result["permission_denials"]) == 1
    assert ended == code
    assert [each["behavior"] for each in standin.decisions] == ["withdrawn"]


@pytest.mark.parametrize(
    ("version", "turns"),
    [(NEWEST, [["go"], ["a", "b"]]), ("2.0.77", [["go"], ["a"], ["b"]])],
)
def test_messages_wait_behind_a_text(tmp_path: Path, version: str, turns: list[list[str]]) -> None:
    """Two that wait are one turn, in 2.0 two; each comes back under its own name."""
    standin = StandIn(tmp_path, [[script.write("a text", "end")]], version=version)

    with _talk(standin) as claude:
        claude.say("go", "u1")
        standin.wait_for("turn")
        claude.say("a", "u2")
        claude.say("b", "u3")
        standin.wait_for("read", 3)
        standin.open("end")
        assert claude.close() == 0

    assert standin.turns == turns
    names = [each["uuid"] for each in claude.seen if each["type"] == "user"]
    assert names == ["u1", "u2", "u3"]


def test_a_message_joins_where_a_tool_runs(tmp_path: Path) -> None:
    """It has no result of its own."""
    standin = StandIn(tmp_path, [[script.bash("make", is_free=True, until="end")]])

    with _talk(standin) as claude:
        claude.say("go", "u1")
        standin.wait_for_decision()
        claude.say("too", "u2")
        standin.wait_for("read", 2)
        standin.open("end")
        assert claude.close() == 0

    assert (standin.turns, standin.all("joined")) == ([["go"]], ["too"])


@pytest.mark.parametrize("version", RELEASES)
def test_the_end_of_stdin_refuses_what_is_asked(tmp_path: Path, version: str) -> None:
    """The turn goes on to its result, and the exit code is 0."""
    standin = StandIn(tmp_path, [[script.bash("make"), script.say("Not made.")]], version=version)

    with _talk(standin) as claude:
        claude.say("go", "u1")
        claude.until_asked()
        code = claude.close()

    assert (code, claude.seen[-1].get("result", "Not made.")) == (0, "Not made.")
    assert "stream closed" in standin.wait_for_decision()["message"]


@pytest.mark.parametrize("version", [NEWEST, "2.1.197"])
def test_a_task_is_followed_by_a_turn(tmp_path: Path, version: str) -> None:
    """Its end is told, and a turn follows that nobody asked for, also after the end of stdin."""
    standin = StandIn(tmp_path, [[script.background("end"), script.say("On it.")]], version=version)

    with _talk(standin) as claude:
        claude.say("go", "u1")
        claude.until_result()
        standin.open("end")
        assert claude.close() == 0

    told = [each.get("subtype") for each in claude.seen if each["type"] in ("system", "result")]
    assert told[-3:] == ["task_notification", "init", "success"] or told[-4:] == [
        "task_notification",
        "background_tasks_changed",
        "init",
        "success",
    ]
    assert standin.turns == [["go"], []]


def test_subagents_ask_at_the_same_time(tmp_path: Path) -> None:
    """Both questions are open while the turn goes on; each end is followed by a turn."""
    tools = [script.use("Bash", {"command": each}) for each in ("one", "two")]
    standin = StandIn(tmp_path, [[script.subagents(*tools), script.say("Meanwhile.")]])

    with _talk(standin) as claude:
        claude.say("go", "u1")
        questions = [claude.until_asked() for _ in tools]
        assert claude.until_result()["result"] == "Meanwhile."
        for each in reversed(questions):
            claude.answer(each, behavior="allow", updatedInput={})
        claude.until_result()
        claude.until_result()
        assert claude.close() == 0

    assert len({each["request"]["agent_id"] for each in questions}) == 2
    assert [each["input"]["command"] for each in standin.decisions] == ["two", "one"]


def test_a_line_that_is_no_json_ends_it(tmp_path: Path) -> None:
    """As it ends Claude Code: a host that writes one loses the session."""
    standin = StandIn(tmp_path, [])
    line = b'{"type": "user", "message": {"role": "user", "content": "half\n'

    done = subprocess.run(
        [*standin.command, *ASKING], input=line, capture_output=True, timeout=20, check=False
    )

    assert done.returncode == 1
    assert b"Error parsing streaming input line" in done.stderr


def test_a_request_gets_its_answer_on_record(tmp_path: Path) -> None:
    """What is no question to a person is recorded with what the host answered."""
    standin = StandIn(tmp_path, [[script.request("hook_callback"), script.say("On.")]])

    with _talk(standin) as claude:
        claude.say("go", "u1")
        asked = claude.until_asked()
        answer = {"subtype": "error", "request_id": asked["request_id"], "error": "unknown"}
        claude.send({"type": "control_response", "response": answer})
        assert claude.until_result()["result"] == "On."

    assert standin.all("answered") == [answer]


def test_without_the_flag_nobody_is_asked(tmp_path: Path) -> None:
    """A print-mode run of today: the prompt in its arguments, the tool refused, exit code 0."""
    standin = StandIn(tmp_path, [[script.bash("make"), script.say("Not made.")]])

    with _talk(
        standin, ["-p", "--output-format", "stream-json", "--verbose", "--", "go"]
    ) as claude:
        result = claude.until_result()
        assert claude.close() == 0

    assert [each["tool_name"] for each in result["permission_denials"]] == ["Bash"]
    assert standin.asked == []


@pytest.mark.parametrize("steps", [[script.die(3)], [script.be_killed()]], ids=["exit", "signal"])
def test_it_dies_in_mid_question(tmp_path: Path, steps: list[script.Step]) -> None:
    """Its question is open and it is gone."""
    standin = StandIn(tmp_path, [[script.bash("make", while_open=steps)]])

    with _talk(standin) as claude:
        claude.say("go", "u1")
        claude.until_asked()
        assert claude.close() in (3, -9)

    assert standin.decisions == []
