"""A run that asks the person at its terminal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.operator import WITHIN_S
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import claude_standin as script
from testing.programs.terminal import Terminal
from tests.runner.asking import LOCAL, Scene

BOTH = ("--ask", "both")
COLOUR = script.question("Which colour?", "Red", "Blue")
FRUIT = script.question("Which fruits?", "Apple", "Pear", "Plum", several=True)
# What is shown once an answer counts.
INVITED = b"n = deny"
TWO_STEPS = [[script.bash("make all"), script.write("Going on.", "end")]]


def invited(terminal: Terminal, text: bytes = INVITED) -> bytes:
    """Wait until the keyboard is asked; return what was shown before."""
    return terminal.expect(text, WITHIN_S)


@pytest.mark.parametrize(
    ("typed", "behavior", "told"),
    [
        ("y", "allow", None),
        ("YES", "allow", None),
        ("a", "allow", "session"),
        ("n", "deny", None),
        ("not before lunch", "deny", "not before lunch"),
        ("yes, but quietly", "deny", "yes, but quietly"),
    ],
)
def test_a_permission(
    cards: StrictGateway, tmp_path: Path, typed: str, behavior: str, told: str | None
) -> None:
    """One line answers it; the gateway sees by whom."""
    scene = Scene(cards, tmp_path, [[script.bash("make all"), script.say("Going on.")]], LOCAL)

    with scene.terminal() as terminal:
        shown = invited(terminal)
        terminal.send(f"{typed}\n".encode())
        assert terminal.wait(WITHIN_S) == 0

    assert b"make all" in shown
    decision = scene.standin.wait_for_decision()
    assert decision["behavior"] == behavior
    if behavior == "deny":
        assert decision["message"] == told or (told is None and decision["message"])
    else:
        scopes = [each["destination"] for each in decision["permissions"] or ()]
        assert scopes == ([told] if told else [])
    (answered,) = scene.markers("answered")
    assert (answered["decision"], answered["by"]) == (behavior, "keyboard")


def test_questions_one_after_another(cards: StrictGateway, tmp_path: Path) -> None:
    """By number, by several, in own words; a number that is none is asked again."""
    scene = Scene(cards, tmp_path, [[script.ask(COLOUR, FRUIT), script.say("Thanks.")]], LOCAL)

    with scene.terminal() as terminal:
        shown = invited(terminal, b"own words")
        terminal.send(b"7\n")
        terminal.expect(b"no option 7", WITHIN_S)
        terminal.send(b"sea green\n")
        invited(terminal, b"several as 1,2")
        terminal.send(b"1, 3\n")
        assert terminal.wait(WITHIN_S) == 0

    assert b"Which colour?" in shown
    assert b"2. Blue" in shown
    answers = scene.standin.wait_for_decision()["input"]["answers"]
    assert answers == {"Which colour?": "sea green", "Which fruits?": "Apple, Plum"}


def test_what_is_typed_ahead_answers_nothing(cards: StrictGateway, tmp_path: Path) -> None:
    """It was typed before the question could be read."""
    turns = [[script.wait("ask"), *TWO_STEPS[0]]]
    scene = Scene(cards, tmp_path, turns, LOCAL)

    with scene.terminal() as terminal:
        scene.standin.wait_for("turn")
        terminal.send(b"y\ny\n")
        terminal.expect(b"y\r\ny\r\n", WITHIN_S)  # echoed, so it is in the terminal's queue
        scene.standin.open("ask")
        invited(terminal)
        terminal.send(b"n\n")
        scene.standin.open("end")
        assert terminal.wait(WITHIN_S) == 0

    assert [each["behavior"] for each in scene.standin.decisions] == ["deny"]


def test_each_question_is_asked_in_turn(cards: StrictGateway, tmp_path: Path) -> None:
    """Several are open; the first answer does not reach the second."""
    tools = [script.use("Bash", {"command": each}) for each in ("make one", "make two")]
    scene = Scene(cards, tmp_path, [[script.subagents(*tools)]], LOCAL)

    with scene.terminal() as terminal:
        shown = invited(terminal)
        scene.wait_for_markers("asked", 2)
        terminal.send(b"y\ny\ny\n")
        shown += invited(terminal)
        terminal.send(b"n\n")
        assert terminal.wait(WITHIN_S) == 0

    assert shown.index(b"make one") < shown.index(b"make two")
    assert [each["behavior"] for each in scene.standin.decisions] == ["allow", "deny"]


def test_the_operator_is_faster(cards: StrictGateway, tmp_path: Path) -> None:
    """The terminal shows who answered, and what is typed then is no answer."""
    scene = Scene(cards, tmp_path, TWO_STEPS, BOTH)

    with scene.terminal() as terminal:
        invited(terminal)
        assert scene.answer(scene.asked()).result == "Answered: allow"
        terminal.expect(b"by the operator", WITHIN_S)
        terminal.send(b"n\n")
        scene.standin.open("end")
        assert terminal.wait(WITHIN_S) == 0

    assert [each["behavior"] for each in scene.standin.decisions] == ["allow"]
    assert len(scene.standin.answers) == 1


def test_the_keyboard_is_faster(cards: StrictGateway, tmp_path: Path) -> None:
    """The operator's answer is refused, and says why."""
    scene = Scene(cards, tmp_path, TWO_STEPS, BOTH)

    with scene.terminal() as terminal:
        invited(terminal)
        asked = scene.asked()
        terminal.send(b"y\n")
        scene.wait_for_markers("answered")
        assert "already answered by the keyboard" in (scene.answer(asked, "deny").error or "")
        scene.standin.open("end")
        assert terminal.wait(WITHIN_S) == 0

    assert [each["behavior"] for each in scene.standin.decisions] == ["allow"]


def test_local_asks_the_keyboard_alone(cards: StrictGateway, tmp_path: Path) -> None:
    """The operator sees the question and cannot answer it."""
    env = {"CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS": "true"}
    scene = Scene(cards, tmp_path, TWO_STEPS, LOCAL, env=env)

    with scene.terminal() as terminal:
        invited(terminal)
        ack = scene.answer(scene.asked())
        assert "not allowed" in (ack.error or "")
        terminal.send(b"n\n")
        scene.standin.open("end")
        assert terminal.wait(WITHIN_S) == 0

    assert [each["behavior"] for each in scene.standin.decisions] == ["deny"]


def test_a_question_goes_from_the_terminal(cards: StrictGateway, tmp_path: Path) -> None:
    """Claude Code takes it back: the terminal says so, and a line is no answer any more."""
    steps = [script.wait("cancel"), script.cancel()]
    turns = [[script.bash("make", while_open=steps), script.write("On.", "end")]]
    scene = Scene(cards, tmp_path, turns, LOCAL)

    with scene.terminal() as terminal:
        invited(terminal)
        scene.standin.open("cancel")
        terminal.expect(b"withdrawn", WITHIN_S)
        terminal.send(b"y\n")
        scene.standin.open("end")
        assert terminal.wait(WITHIN_S) == 0

    assert scene.standin.answers == []


@pytest.mark.parametrize("options", [LOCAL, BOTH], ids=["local", "both"])
def test_control_c_ends_it(cards: StrictGateway, tmp_path: Path, options: tuple[str, ...]) -> None:
    """At a question too, as always."""
    scene = Scene(cards, tmp_path, [[script.bash("make")]], options)

    with scene.terminal() as terminal:
        invited(terminal)
        terminal.send(b"\x03")
        assert terminal.wait(WITHIN_S) == 130

    assert scene.open_cards == []
    assert scene.finished()["reason"] == "stopped"
    assert scene.standin.answers == []


def test_a_line_is_a_message_in_a_run_that_stays(cards: StrictGateway, tmp_path: Path) -> None:
    """While Claude Code works, and while it waits; at a question a line is its answer."""
    turns = [
        [script.bash("make"), script.write("First.", "one")],
        [script.say("Second.")],
        [script.say("Third.")],
    ]
    scene = Scene(cards, tmp_path, turns, (*LOCAL, "--stay", "1h"))

    with scene.terminal() as terminal:
        invited(terminal)
        terminal.send(b"not now\n")
        scene.standin.wait_for_decision()
        terminal.send("später auch das\n".encode())
        scene.standin.wait_for("read", 3)
        scene.standin.open("one")
        terminal.expect(b"Second.", WITHIN_S)
        terminal.send(b"and this\n")
        terminal.expect(b"Third.", WITHIN_S)
        terminal.expect(b"waiting 1 h", WITHIN_S)  # before that, the key interrupts the turn
        terminal.send(b"\x03")
        assert terminal.wait(WITHIN_S) == 130

    assert scene.standin.wait_for_decision()["message"] == "not now"
    assert scene.standin.turns == [["go"], ["später auch das"], ["and this"]]
    assert "» keyboard: and this" in cards.text(scene.run_id)


def test_control_c_interrupts_a_run_that_stays(cards: StrictGateway, tmp_path: Path) -> None:
    """Once: the turn is broken off and the run goes on. Idle, or twice: the run ends."""
    turns = [[script.write("Half a", "never")], [script.say("Instead.")]]
    scene = Scene(cards, tmp_path, turns, (*LOCAL, "--stay", "1h"))

    with scene.terminal() as terminal:
        scene.standin.wait_for("turn")
        terminal.send(b"\x03")
        terminal.expect(b"interrupted", WITHIN_S)
        terminal.send(b"do this\n")
        terminal.expect(b"Instead.", WITHIN_S)
        terminal.expect(b"waiting", WITHIN_S)
        terminal.send(b"\x03")
        code = terminal.wait(WITHIN_S)

    assert code == 130
    assert scene.standin.turns == [["go"], ["do this"]]
    assert "SIGINT" in scene.standin.all("signal") or scene.standin.all("closed")


def test_a_second_control_c_ends_a_run_that_stays(cards: StrictGateway, tmp_path: Path) -> None:
    """Also where Claude Code does not react to the first."""
    scene = Scene(
        cards,
        tmp_path,
        [[script.write("Half a", "never")]],
        (*LOCAL, "--stay", "1h"),
        ignores=["interrupt"],
    )

    with scene.terminal() as terminal:
        scene.standin.wait_for("turn")
        terminal.send(b"\x03")
        terminal.expect(b"again", WITHIN_S)
        terminal.send(b"\x03")
        assert terminal.wait(WITHIN_S) == 130

    assert scene.finished()["reason"] == "stopped"


def test_in_the_background_it_is_not_stopped(cards: StrictGateway, tmp_path: Path) -> None:
    """`start --ask both … &`: it neither reads nor changes the terminal, and goes on."""
    bash = shutil.which("bash")
    assert bash is not None
    scene = Scene(cards, tmp_path, [[script.bash("make"), script.say("Made.")]], BOTH)
    argv = [bash, "-c", 'set -m; "$@" & wait $!; echo "ENDED $?"', "bash", *scene.launch.argv]

    with Terminal(argv, env=scene.launch.env, columns=120) as terminal:
        asked = scene.asked()
        terminal.send(b"n\n")
        scene.answer(asked)
        shown = terminal.expect(b"ENDED 0", WITHIN_S)

    assert b"Stopped" not in shown
    assert [each["behavior"] for each in scene.standin.decisions] == ["allow"]


def test_without_a_terminal_nobody_is_there(cards: StrictGateway, tmp_path: Path) -> None:
    """`--ask local` is refused at the start."""
    scene = Scene(cards, tmp_path, [[script.bash("make")]], LOCAL)

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 1
        assert "terminal" in runner.stderr

    assert scene.standin.record == []


@pytest.mark.parametrize(
    "text",
    ["\x1b]0;title\x07\x1b[2J", "safe\u202e txt.exe", "a\r\x1b[Ay = allow", "\x9b2J\x08\x08"],
    ids=["escapes", "right to left", "overwrites", "C1"],
)
@pytest.mark.parametrize("kind", ["permission", "question"])
def test_hostile_text(cards: StrictGateway, tmp_path: Path, text: str, kind: str) -> None:
    """No text of a question reaches the terminal as more than text."""
    fields: dict[str, Any] = {"title": text, "decision_reason": text, "description": text}
    step = script.bash(text, **fields)
    if kind == "question":
        step = script.ask({**script.question(f"What of {text}?", text, "Red"), "header": text})
    scene = Scene(cards, tmp_path, [[step, script.say("On.")]], LOCAL)

    with scene.terminal() as terminal:
        shown = invited(terminal, INVITED if kind == "permission" else b"own words")
        terminal.send(b"no, 2\n")
        assert terminal.wait(WITHIN_S) == 0

    asked = shown[shown.index(b"? Claude Code asks") :]
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]", asked)
    assert "\u202e".encode() not in asked


def test_the_terminal_is_as_it_was(cards: StrictGateway, tmp_path: Path) -> None:
    """After a question and a kill of the runner alike."""
    scene = Scene(cards, tmp_path, TWO_STEPS, LOCAL)

    with scene.terminal() as terminal:
        invited(terminal)
        assert terminal.attributes() == terminal.first_attributes
        terminal.send(b"y\n")
        scene.standin.open("end")
        assert terminal.wait(WITHIN_S) == 0
        assert terminal.attributes() == terminal.first_attributes


def test_hanging_up_ends_it(cards: StrictGateway, tmp_path: Path) -> None:
    """The window is closed in mid-question: nobody is asked any more."""
    scene = Scene(cards, tmp_path, [[script.bash("make")]], LOCAL)

    with scene.terminal() as terminal:
        invited(terminal)
        terminal.hang_up()
        cards.wait_for(lambda: scene.markers("finished"), WITHIN_S)

    assert scene.finished()["reason"] == "hangup"
    assert scene.open_cards == []
