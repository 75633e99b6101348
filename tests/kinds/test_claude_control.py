"""Claude Code's control protocol: questions out of its lines, and lines that it can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.claude_control import ClaudeDialogue, listening_arguments
from kinds.dialogue import Asked, Noted, Owed, Question, Taken, Withdrawn

BASH: dict[str, Any] = {
    "tool_name": "Bash",
    "input": {"command": "npm test"},
    "tool_use_id": "toolu_1",
    "decision_reason": "This command requires approval",
    "permission_suggestions": [
        {
            "type": "addRules",
            "rules": [{"toolName": "Bash", "ruleContent": "npm test"}],
            "behavior": "allow",
            "destination": "localSettings",
        },
        {"type": "addDirectories", "directories": ["/work"], "destination": "session"},
        {"type": "setMode", "mode": "acceptEdits", "destination": "session"},
        {"type": "setMode", "mode": "bypassPermissions", "destination": "session"},
        {"type": "addRules", "rules": [{"toolName": "Bash"}], "behavior": "deny"},
    ],
}
COLOUR = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": "Red", "description": "warm"}, {"label": "Blue"}],
}
INIT = {"type": "system", "subtype": "init"}


def request(key: str = "r1", **fields: Any) -> dict[str, Any]:
    """Return a question of Claude Code's."""
    asked = {"subtype": "can_use_tool", **fields}
    return {"type": "control_request", "request_id": key, "request": asked}


def ask(dialogue: ClaudeDialogue | None = None, **fields: Any) -> Question:
    """Return the question that is read out of a request."""
    (news,) = (dialogue or ClaudeDialogue(asks=True)).read(request(**fields))
    assert isinstance(news, Asked)
    return news.question


def sent(line: bytes) -> Any:
    """Return what a line says; it is one line."""
    assert line.endswith(b"\n")
    assert len(line.splitlines()) == 1
    return json.loads(line)


def response(line: bytes) -> Any:
    """Return the answer to a question."""
    return sent(line)["response"]["response"]


def result(**fields: Any) -> dict[str, Any]:
    """Return the end of a turn."""
    return {"type": "result", "subtype": "success", "terminal_reason": "completed", **fields}


def is_done(dialogue: ClaudeDialogue) -> bool:
    """Return whether it is, which each message may change."""
    return dialogue.is_done


def test_a_permission() -> None:
    """It has the whole input, the reason, and what could be allowed for the session alone."""
    question = ask(**BASH)

    assert (question.kind, question.tool, question.given) == ("permission", "Bash", BASH["input"])
    assert question.reason == "This command requires approval"
    assert [scope.label for scope in question.scopes] == [
        "allow Bash(npm test)",
        "allow work in /work",
        "switch to the mode acceptEdits",
    ]
    assert {scope.grant["destination"] for scope in question.scopes} == {"session"}


@pytest.mark.parametrize(
    "fields",
    [
        {"suppress_always_allow_rule": True},
        {"decision_reason_type": "rule"},
        {"matched_ask_rule": {"rule": "Bash"}},
    ],
)
def test_what_a_rule_asks_for_is_asked_each_time(fields: dict[str, Any]) -> None:
    """The user's own ask rules, and Claude Code's word, are not widened by an answer."""
    assert ask(**BASH, **fields).scopes == ()


def test_an_edit_has_a_diff() -> None:
    """Of what is taken out and put in."""
    question = ask(tool_name="Edit", input={"old_string": "a\nb\n", "new_string": "a\nc\n"})

    assert question.diff.splitlines()[1:] == [" a", "-b", "+c"]


def test_a_diff_has_one_line_for_each_of_the_file() -> None:
    """A character that only looks like the end of a line is shown where it stands."""
    question = ask(tool_name="Edit", input={"old_string": "a\r", "new_string": "a\u2028b\r\n"})

    assert question.diff.split("\n")[1:] == ["-a\r", "+a\u2028b\r", "+"]


def test_a_question_is_answered_by_its_text() -> None:
    """The whole input comes back, and the answers stand under the texts of the questions."""
    dialogue = ClaudeDialogue(asks=True)
    question = ask(dialogue, tool_name="AskUserQuestion", input={"questions": [COLOUR]})

    assert question.kind == "question"
    assert [option.label for option in question.choices[0].options] == ["Red", "Blue"]
    assert response(dialogue.allow(question, ["Blue"], None)) == {
        "behavior": "allow",
        "updatedInput": {"questions": [COLOUR], "answers": {"Which colour?": "Blue"}},
    }


@pytest.mark.parametrize(
    "questions", [[COLOUR, COLOUR], [{}], "none", [{"question": 3}], [None], []]
)
def test_questions_of_another_shape_are_a_permission(questions: Any) -> None:
    """What cannot be answered by its text is shown as it is."""
    assert ask(tool_name="AskUserQuestion", input={"questions": questions}).kind == "permission"


def test_a_plan() -> None:
    """It has its text, and nothing to allow besides."""
    suggested = BASH["permission_suggestions"]
    plan = {"plan": "# Do it"}
    question = ask(tool_name="ExitPlanMode", input=plan, permission_suggestions=suggested)

    assert (question.kind, question.plan, question.scopes) == ("plan", "# Do it", ())


def test_answers_are_those_that_every_release_takes() -> None:
    """Allow comes with the input, deny with a message, and a scope with its grant."""
    dialogue = ClaudeDialogue(asks=True)
    question = ask(dialogue, **BASH)

    assert response(dialogue.allow(question, (), question.scopes[0])) == {
        "behavior": "allow",
        "updatedInput": {"command": "npm test"},
        "updatedPermissions": [dict(question.scopes[0].grant)],
    }
    assert response(dialogue.deny(question, "not today"))["message"] == "not today"
    assert response(dialogue.deny(question, ""))["message"]
    assert sent(dialogue.deny(question, ""))["response"]["request_id"] == "r1"


@pytest.mark.parametrize(
    "message",
    [
        request(subtype="hook_callback"),
        request(subtype=None),
        request(tool_name="Bash"),
        request(tool_name="Bash", input="rm"),
    ],
)
def test_what_is_not_known_gets_an_error(message: dict[str, Any]) -> None:
    """Claude Code waits for ever for what is not answered."""
    (news,) = ClaudeDialogue(asks=True).read(message)

    assert isinstance(news, Owed)
    answer = sent(news.line)["response"]
    assert (answer["subtype"], answer["request_id"]) == ("error", "r1")


def test_a_question_that_cannot_be_read_gets_an_error() -> None:
    """Of a line that is too long or too deep, the beginning is enough for that."""
    begins = b'{"type":"control_request","request_id":"r-7","request":{"subtype":"can_use'

    (news,) = ClaudeDialogue(asks=True).read_foreign(begins)

    assert isinstance(news, Owed)
    assert sent(news.line)["response"]["request_id"] == "r-7"
    assert ClaudeDialogue(asks=True).read_foreign(b'{"type":"other"}') == []


def test_a_question_is_withdrawn() -> None:
    """By its id."""
    message = {"type": "control_cancel_request", "request_id": "r1"}

    assert ClaudeDialogue(asks=True).read(message) == [Withdrawn("r1")]


REPLAY_AND_RESULT = [
    pytest.param(
        [{"type": "command_lifecycle", "command_uuid": "m1", "state": "started"}, INIT],
        id="newest",
    ),
    pytest.param([INIT, {"type": "user", "uuid": "m1", "isReplay": True}], id="2.1.197"),
    pytest.param([INIT, {"type": "user", "uuid": "m1"}], id="2.0.0"),
]


@pytest.mark.parametrize("begins", REPLAY_AND_RESULT)
def test_a_turn(begins: list[dict[str, Any]]) -> None:
    """It runs from the message to the result, however a release says that it was read."""
    dialogue = ClaudeDialogue(asks=True)
    dialogue.say("m1", "hello")
    assert not is_done(dialogue)
    assert dialogue.is_turn_running

    news = [each for message in begins for each in dialogue.read(message)]

    assert news == [Taken("m1")]
    assert dialogue.is_turn_running
    assert not is_done(dialogue)
    dialogue.read(result())
    assert is_done(dialogue)
    assert not dialogue.was_interrupted


def test_a_message_that_waits_keeps_the_run_open() -> None:
    """The result of the running turn is not the end."""
    dialogue = ClaudeDialogue(asks=True)
    dialogue.say("m1", "one")
    for message in (INIT, {"type": "user", "uuid": "m1", "isReplay": True}):
        dialogue.read(message)
    dialogue.say("m2", "two")

    assert dialogue.read(result()) == []
    assert not is_done(dialogue)

    dialogue.read({"type": "user", "uuid": "m2", "isReplay": True})
    dialogue.read(INIT)
    dialogue.read(result())
    assert is_done(dialogue)


def test_a_release_that_says_nothing_of_messages_ends_too() -> None:
    """All count as read with the result, or the run would wait for ever."""
    dialogue = ClaudeDialogue(asks=True)
    dialogue.say("m1", "one")
    dialogue.read(INIT)

    assert dialogue.read(result()) == [Taken("m1")]
    assert is_done(dialogue)


def test_a_message_is_taken_back() -> None:
    """By its id; the answer says so, or the lifecycle of the message does."""
    dialogue = ClaudeDialogue(asks=True)
    dialogue.say("m1", "one")
    line = sent(dialogue.take_back("m1"))
    assert line["request"] == {"subtype": "cancel_async_message", "message_uuid": "m1"}
    answer = {
        "subtype": "success",
        "request_id": line["request_id"],
        "response": {"cancelled": True},
    }

    assert dialogue.read({"type": "control_response", "response": answer}) == [Taken("m1", False)]
    assert dialogue.read({"type": "control_response", "response": answer}) == []


@pytest.mark.parametrize(
    ("ends", "was_interrupted"),
    [
        (result(terminal_reason="aborted_tools"), True),
        ({"type": "result", "subtype": "error_during_execution", "is_error": False}, True),
        (result(), False),
        (result(subtype="error_max_turns", terminal_reason="max_turns"), False),
    ],
)
def test_an_interruption(ends: dict[str, Any], *, was_interrupted: bool) -> None:
    """Each release says it in its own way."""
    dialogue = ClaudeDialogue(asks=True)
    dialogue.interrupt()

    dialogue.read(ends)

    assert dialogue.was_interrupted is was_interrupted


def test_a_turn_that_nobody_interrupted_was_not() -> None:
    """2.0.77 ends one like that when a task in the background ends."""
    dialogue = ClaudeDialogue(asks=True)

    dialogue.read({"type": "result", "subtype": "error_during_execution", "is_error": True})

    assert not dialogue.was_interrupted


def test_a_background_task_keeps_the_run_open() -> None:
    """And what it leaves is looked at in a further turn."""
    dialogue = ClaudeDialogue(asks=True)
    for message in (INIT, {"type": "system", "subtype": "task_started", "task_id": "t"}, result()):
        dialogue.read(message)
    assert not is_done(dialogue)

    ended = {"type": "system", "subtype": "task_notification", "task_id": "t", "output_file": "f"}
    dialogue.read(ended)
    assert is_done(dialogue)
    awaited = [dialogue.awaits_turn]

    dialogue.read(INIT)
    awaited.append(dialogue.awaits_turn)
    assert awaited == [True, False]
    assert not is_done(dialogue)


@pytest.mark.parametrize("left", [{"status": "stopped", "output_file": "f"}, {"output_file": ""}])
def test_a_task_that_leaves_nothing_is_not_waited_for(left: dict[str, Any]) -> None:
    """One that was stopped, or that the turn itself has waited for."""
    dialogue = ClaudeDialogue(asks=True)
    dialogue.read({"type": "system", "subtype": "task_started", "task_id": "t"})

    dialogue.read({"type": "system", "subtype": "task_notification", "task_id": "t", **left})

    assert is_done(dialogue)
    assert not dialogue.awaits_turn


def test_a_refusal_without_a_question_is_told() -> None:
    """Some releases do not ask although they should."""
    dialogue = ClaudeDialogue(asks=True)
    ask(dialogue, **BASH)
    asked = {"tool_name": "Bash", "tool_use_id": "toolu_1", "tool_input": {"command": "npm test"}}
    unasked = {"tool_name": "Write", "tool_use_id": "toolu_2", "tool_input": {}}

    assert dialogue.read(result(permission_denials=[asked])) == []
    (news,) = dialogue.read(result(permission_denials=[asked, unasked]))

    assert isinstance(news, Noted)
    assert "Write" in news.text
    assert "Bash" not in news.text


def test_a_prompt_that_could_not_be_read_back_is_not_asked_back() -> None:
    """Such a line would be longer than what is read of one."""
    assert "--replay-user-messages" in listening_arguments("hello")
    assert "--replay-user-messages" not in listening_arguments("x" * 10_000_000)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("request", "response", "request_id", "tasks", "task_id", "subtype", "uuid", "state",
          "permission_denials", "terminal_reason", "command_uuid", "input", "questions",
          "permission_suggestions", "tool_name")  # fmt: skip
KINDS = ("control_request", "control_cancel_request", "control_response", "system", "user",
         "result", "command_lifecycle")  # fmt: skip


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), anything), anything)
def test_any_message_is_read(kind: str, fields: dict[str, Any], inner: Any) -> None:
    """Whatever a release or a hostile program prints, nothing raises, and every line is JSON."""
    dialogue = ClaudeDialogue(asks=True)
    messages: list[dict[str, Any]] = [{**fields, "type": kind}]
    if kind == "control_request":
        messages.append(request(**{**fields, "subtype": "can_use_tool", "input": {"x": inner}}))
        messages.append(request(input={"questions": inner}, tool_name="AskUserQuestion"))

    for message in messages:
        for news in dialogue.read(message):
            if isinstance(news, Owed):
                sent(news.line)
            elif isinstance(news, Asked):
                answers = ["a"] * len(news.question.choices)
                sent(dialogue.allow(news.question, answers, None))


@given(st.text(), st.text())
def test_no_text_makes_a_second_line(text: str, more: str) -> None:
    """Messages, reasons, ids and inputs are inside JSON, whatever they hold."""
    dialogue = ClaudeDialogue(asks=True)
    question = Question(more, "permission", "Bash", {text: more})

    said = sent(dialogue.say("m1", text))
    assert said["message"]["content"] == [{"type": "text", "text": text}]
    assert response(dialogue.allow(question, (), None))["updatedInput"] == {text: more}
    sent(dialogue.deny(question, text))
    sent(dialogue.set_mode(text))
    sent(dialogue.take_back(text))
    sent(dialogue.interrupt())
