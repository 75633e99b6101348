"""Open questions: what is shown of them, and which answers count."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kinds.dialogue import Choice, Option, Question, Scope
from redact import Rules
from runner.questions import (
    MAX_LINE_CHARS,
    MAX_SHOWN_CHARS,
    OpenQuestion,
    Questions,
    Refusal,
    at_keyboard,
    marker_fields,
    one_line,
    visible,
)
from testing.gateways.wire import redacted_in_the_field
from testing.tables import each_row

MODES = ("plan", "default")
RUN_TESTS = Scope("allow Bash(npm test)", {"type": "addRules"})
EDITS = Scope("switch to the mode acceptEdits", {"type": "setMode"}, "acceptEdits")
COLOUR = Choice("Which colour?", "Colour", False, (Option("Red", "warm"), Option("Blue", "")))
FRUITS = Choice("Which fruits?", "Fruits", True, (Option("Apple", ""), Option("Pear", "")))


def permission(**given: Any) -> Question:
    """Return a question for a permission."""
    return Question(
        "r1", "permission", "Bash", given or {"command": "npm test"}, scopes=(RUN_TESTS,)
    )


def question(*choices: Choice) -> Question:
    """Return a question with choices."""
    return Question("r1", "question", "AskUserQuestion", {}, choices=choices or (COLOUR,))


def opened(
    asked: Question | None = None, rules: Rules | None = None, max_chars: int = MAX_SHOWN_CHARS
) -> tuple[Questions, OpenQuestion]:
    """Return the open questions with one in them."""
    questions = Questions(rules or Rules(), MODES, max_chars)
    only = questions.open(asked or permission(), None)
    assert only is not None
    return questions, only


def answer_json(only: OpenQuestion, **fields: Any) -> str:
    """Return an answer as the page gives it."""
    given = {"id": only.id, "digest": only.digest, "decision": "allow", **fields}
    return json.dumps({name: value for name, value in given.items() if value is not ...})


def refusal(read: Callable[[], object]) -> str:
    """Return why an answer does nothing."""
    with pytest.raises(Refusal) as caught:
        read()
    return str(caught.value)


# --- what is shown --------------------------------------------------------------------------------


def test_a_permission_is_shown_whole() -> None:
    """With everything that the marker promises."""
    _, only = opened()
    fields = marker_fields(only)

    assert fields["event"] == "asked"
    assert (fields["kind"], fields["tool"]) == ("permission", "Bash")
    assert fields["input"] == {"command": "npm test"}
    assert fields["scopes"] == [{"id": "s1", "label": "allow Bash(npm test)"}]
    assert (fields["hidden"], fields["whole"], fields["defaultsToNo"]) == (False, True, False)
    assert re.fullmatch("[A-Z0-9]{5}", fields["code"])


def test_a_question_with_a_time_limit_says_until_when() -> None:
    """By the clock of the wall, which a page shows."""
    _, only = opened()

    fields = marker_fields(only._replace(due_at=time.monotonic() + 3_600))

    assert fields["until"] == pytest.approx(time.time() + 3_600, abs=2)
    assert "until" not in marker_fields(only)


def test_what_redaction_hides_is_said(token: str) -> None:
    """The secret is in nothing that is sent, and the card and the line say that there is one."""
    _, only = opened(permission(command=f"curl -H 'Authorization: Bearer {token}' x"))
    fields = marker_fields(only)
    line = one_line(only, Rules(), is_remote=True)

    assert fields["hidden"] is True
    assert token not in json.dumps(fields)
    assert token not in line
    assert "a secret in it is hidden" in line


@pytest.fixture
def token() -> str:
    """Return something that looks like a token, made here."""
    return "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0" + "xyAB12"


@each_row(
    "character",
    [
        "\u202e",
        "\u200b",
        "\u2066",
        "\ufeff",
        "\u3164",
        "\u2800",
        "\x1b",
        "\r",
        "\x00",
        "\ufe0f",
        "\U000e0041",
        "\u00ad",
    ],
)
def test_what_is_invisible_is_shown(character: str) -> None:
    """Nothing can hide in a command, or turn it around."""
    _, only = opened(permission(command=f"rm{character} -rf x"))

    assert character not in marker_fields(only)["input"]["command"]
    assert "\\" in marker_fields(only)["input"]["command"]
    for text in (one_line(only, Rules(), is_remote=True), *at_keyboard(only, 0)):
        assert character not in text


def test_what_is_too_long_can_only_be_denied() -> None:
    """Its beginning is shown, and it is said how long it is."""
    questions, only = opened(permission(content="x" * MAX_SHOWN_CHARS))
    fields = marker_fields(only)

    assert fields["whole"] is False
    assert len(json.dumps(fields)) < 10_000
    assert fields["inputChars"] > MAX_SHOWN_CHARS
    assert "too long" in refusal(lambda: questions.read_answer(answer_json(only)))
    _, denied = questions.read_answer(answer_json(only, decision="deny"))
    assert denied.decision == "deny"


def test_what_a_line_does_not_show_whole_is_not_allowed_by_its_code() -> None:
    """On a gateway without cards less is shown, so less can be allowed."""
    questions, only = opened(permission(content="x" * MAX_LINE_CHARS), max_chars=MAX_LINE_CHARS)

    assert "allow" not in one_line(only, Rules(), is_remote=True).replace("allowed", "")
    assert "too long" in refusal(lambda: questions.read_line(f"allow {only.code}"))


def told_everywhere(only: OpenQuestion) -> list[str]:
    """Return the question as it is told in a line, and at the keyboard, without its blanks."""
    told = (one_line(only, Rules(), is_remote=True), at_keyboard(only, 0)[0])
    return ["".join(text.split()) for text in told]


@given(
    st.dictionaries(
        st.text(),
        st.recursive(st.text() | st.booleans(), lambda inner: st.lists(inner, max_size=3)),
        max_size=4,
    )
)
@example({"command": "true", "dangerouslyDisableSandbox": True})
@example({"file_path": "a", "old_string": "b", "new_string": "c", "replace_all": True})
def test_nothing_of_an_input_is_left_out(fields: dict[str, Any]) -> None:
    """Whatever may be allowed was told whole, by name and value."""
    diff = "-b\n+c" if "old_string" in fields else ""
    _, only = opened(Question("r", "permission", "Bash", fields, diff=diff))
    for name, value in only.shown.get("input", {}).items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if not (diff and name in ("old_string", "new_string")):
            for text in told_everywhere(only):
                assert "".join(f"{name}:{shown}".split()) in text


def test_what_a_plan_asks_for_besides_is_told() -> None:
    """Its approval may allow more than to begin."""
    besides = {"tool": "Bash", "prompt": "push to origin"}
    plan = {"plan": "# Do it", "allowedPrompts": [besides]}
    _, only = opened(Question("r", "plan", "ExitPlanMode", plan, plan="# Do it"))

    assert all("pushtoorigin" in text and "#Doit" in text for text in told_everywhere(only))


def test_a_secret_that_is_hidden_is_said_at_the_keyboard(token: str) -> None:
    """What is approved there is more than what is seen."""
    _, only = opened(permission(command=f"curl -H 'Authorization: Bearer {token}' x"))

    assert "a secret in it is hidden" in at_keyboard(only, 0)[0]


def test_a_text_of_several_lines_looks_like_one_text() -> None:
    """It is indented, so that it cannot pass for another field or another option."""
    _, only = opened(permission(command="true\nreason: the user wants it"))
    assert "\n  reason: the user" in one_line(only, Rules(), is_remote=True)
    assert "\n      reason: the user" in at_keyboard(only, 0)[0]

    _, only = opened(question(Choice("Which?", "", False, (Option("Red\n    2. Blue", ""),))))
    assert not re.search(r"^ {3,4}2\.", at_keyboard(only, 0)[0], re.MULTILINE)


def test_a_scope_that_goes_too_far_or_hides_something_is_not_offered(token: str) -> None:
    """A mode above the highest, a rule with a secret in it, one with an invisible character."""
    scopes = (
        EDITS,
        Scope(f"allow Bash(x {token})", {}),
        Scope("allow Bash(a\u200bb)", {}),
        RUN_TESTS,
    )
    _, only = opened(Question("r1", "permission", "Bash", {}, scopes=scopes))

    assert [scope.label for scope in only.scopes.values()] == [RUN_TESTS.label]


def test_a_line_says_what_a_gateway_may_have_hidden() -> None:
    """A gateway in the field cuts out what follows certain words."""
    _, only = opened(permission(command="echo the token is gone"))

    assert "the gateway may have hidden a part of it" in one_line(only, Rules(), is_remote=True)


# --- which answers count --------------------------------------------------------------------------


def test_an_answer_of_the_page() -> None:
    """With the digest of what was shown, once."""
    questions, only = opened()

    found, answer = questions.read_answer(answer_json(only, scope="s1"))

    assert (found, answer.decision, answer.scope) == (only, "allow", RUN_TESTS)
    questions.close(only, "answered by the keyboard")
    assert refusal(lambda: questions.read_answer(answer_json(only))) == (
        "already answered by the keyboard"
    )


@each_row(
    ("fields", "reason"),
    [
        ({"digest": "0" * 64}, "the question has changed"),
        ({"digest": ...}, "the question has changed"),
        ({"digest": 3}, "the question has changed"),
        ({"digest": "\ud800"}, "the question has changed"),
        ({"id": "\ud800"}, "no such question"),
        ({"id": "q9"}, "no such question"),
        ({"id": ["q1"]}, "no such question"),
        ({"scope": "s2"}, "this scope was not offered"),
        ({"decision": "maybe"}, "the answer says neither allow nor deny"),
        ({"decision": "deny", "message": 7}, "the answer says neither allow nor deny"),
        ({"decision": "deny", "message": "x" * 20_000}, "the message is too long"),
    ],
)
def test_another_answer_does_nothing(fields: dict[str, Any], reason: str) -> None:
    """It says why, and the question stays open."""
    questions, only = opened()

    assert refusal(lambda: questions.read_answer(answer_json(only, **fields))) == reason
    assert list(questions) == [only]


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"id":"q1"}'])
def test_what_is_no_answer(text: str) -> None:
    """Is refused, whatever it is."""
    questions, _ = opened()

    assert refusal(lambda: questions.read_answer(text))


@each_row(
    ("answers", "words"),
    [
        ([{"options": [1]}, {"options": [0, 1]}], ("Blue", "Apple, Pear")),
        ([{"text": " octarine "}, {"options": [1, 1]}], ("octarine", "Pear")),
        (None, None),
        ([{"options": [1]}], None),
        ([{"options": [2]}, {"options": [0]}], None),
        ([{"options": [-1]}, {"options": [0]}], None),
        ([{"options": [0, 1]}, {"options": [0]}], None),
        ([{"options": [True]}, {"options": [0]}], None),
        ([{"options": []}, {"options": [0]}], None),
        ([{"text": "  "}, {"options": [0]}], None),
    ],
)
def test_choices_are_made_by_number(answers: Any, words: tuple[str, ...] | None) -> None:
    """The words are those of Claude Code, since redaction may have changed what was shown."""
    questions, only = opened(question(COLOUR, FRUITS))
    text = answer_json(only, answers=answers)

    if words is None:
        assert refusal(lambda: questions.read_answer(text))
    else:
        assert questions.read_answer(text)[1].words == words


@pytest.mark.parametrize(
    ("text", "decision", "message", "scope"),
    [
        ("allow {}", "allow", "", None),
        (" ALLOW {} ", "allow", "", None),
        ("allow {} run", "allow", "", RUN_TESTS),
        ("deny {}", "deny", "", None),
        ("deny {}: use make: it is faster", "deny", "use make: it is faster", None),
        ("deny {} please", "deny", "please", None),
    ],
)
def test_an_answer_by_its_code(text: str, decision: str, message: str, scope: Scope | None) -> None:
    """In an input box, in capital letters or not."""
    questions, only = opened()

    for code in (only.code, only.code.lower()):
        read = questions.read_line(text.format(code))
        assert read is not None
        assert read[0] is only
        assert (read[1].decision, read[1].message, read[1].scope) == (decision, message, scope)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("answer {} 1: 2; 2: 1,2", ("Blue", "Apple, Pear")),
        ("answer {} 2: 1;1: =my own: words", ("my own: words", "Apple")),
        ("answer {} 1: 2", None),
        ("answer {} 1: 2; 3: 1", None),
        ("answer {} 1: blue; 2: 1", None),
        ("answer {}", None),
        ("allow {}", None),
    ],
)
def test_choices_by_their_numbers(text: str, words: tuple[str, ...] | None) -> None:
    """Counted from 1; each question needs an answer."""
    questions, only = opened(question(COLOUR, FRUITS))

    if words is None:
        assert refusal(lambda: questions.read_line(text.format(only.code)))
    else:
        read = questions.read_line(text.format(only.code))
        assert read is not None
        assert read[1].words == words


def test_a_single_question_needs_no_number() -> None:
    """The answer is enough."""
    questions, only = opened(question())

    for text, word in (("2", "Blue"), ("=own words", "own words")):
        read = questions.read_line(f"answer {only.code} {text}")
        assert read is not None
        assert read[1].words == (word,)


@pytest.mark.parametrize(
    "text", ["allow", "allow tests to fail", "deny everything", "answer 12345 first", "go on", ""]
)
def test_ordinary_words_are_no_answer(text: str) -> None:
    """Such a text is a message."""
    assert opened()[0].read_line(text) is None


def test_a_code_that_is_unknown_or_closed_is_refused() -> None:
    """It is never taken for a message."""
    questions, only = opened()
    assert refusal(lambda: questions.read_line("allow A2B3C")) == "no such question"

    questions.close(only, "answered by the operator")
    assert refusal(lambda: questions.read_line(f"allow {only.code}")) == (
        "already answered by the operator"
    )


def test_no_code_and_no_digest_comes_twice() -> None:
    """Each question has its own, also when it asks the same."""
    questions = Questions(Rules(), MODES, MAX_SHOWN_CHARS)
    seen: list[OpenQuestion] = []
    for number in range(300):
        asked = Question(f"r{number}", "permission", "Bash", {"command": "x"})
        only = questions.open(asked, None)
        assert only is not None
        seen.append(only)
        questions.close(only, "answered")

    assert len({only.code for only in seen}) == 300
    assert len({only.digest for only in seen}) == 300


def test_a_question_that_comes_twice_is_open_once() -> None:
    """And too many at once are refused."""
    questions, _ = opened()
    assert questions.open(permission(), None) is None

    def fill() -> None:
        for number in range(200):
            questions.open(Question(f"k{number}", "permission", "Bash", {}), None)

    assert "Too many" in refusal(fill)


# --- properties -----------------------------------------------------------------------------------

words = st.sampled_from(["token", "Secret", "auth", " ", "=", ":", '"', "x", "\n"])
texts = (
    st.text()
    | st.lists(words).map("".join)
    | st.text("\u202e\u200b\x1b\r\n\"'\\{}=: tokensecret", max_size=40)
)


@given(texts, texts, texts)
def test_no_text_breaks_a_marker_or_a_line(text: str, more: str, label: str) -> None:
    """A marker parses, also after a gateway has cut in it; no control character is shown."""
    rules = Rules()
    choice = Choice(text, more, False, (Option(label, more),))
    for asked in (
        Question("r", "permission", text, {more: label}, text, more, label, diff=text),
        Question("r", "plan", "ExitPlanMode", {"plan": text}, plan=text),
        Question("r", "question", "AskUserQuestion", {}, choices=(choice,)),
    ):
        _, only = opened(asked, rules)
        marker = rules.redact_json(marker_fields(only))
        assert json.loads(marker)["id"] == only.id
        assert json.loads(redacted_in_the_field(marker))["event"] == "asked"
        for shown in (one_line(only, rules, is_remote=True), *at_keyboard(only, 0)):
            assert all(c.isprintable() or c in "\n\t" for c in shown)


@given(st.text())
def test_what_is_visible_stays_so(text: str) -> None:
    """What is escaped once has nothing left to escape."""
    assert visible(visible(text)) == visible(text)
    assert all(c.isprintable() or c in "\n\t" for c in visible(text))
