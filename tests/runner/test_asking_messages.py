"""A run that listens: messages of people, interrupts, tasks, and how it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from testing.gateways.operator import WITHIN_S
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import claude_standin as script
from testing.programs.claude_standin import NEWEST, OLDEST
from tests.runner.asking import PLAIN, REMOTE, Scene

INPUT = {"CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "true"}
# Long enough that no test sees its end.
STAYS = (*REMOTE, "--stay", "1h")
SHORT_STAY = (*REMOTE, "--stay", "1s")


# --- the prompt -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [
        "-x is no option",
        "one\n\n  'two' \"three\"\t$HOME `x` \\n \u00e9\U0001f980",
        '"}\n{"type":"user"}',
        "\u2028 line separators \u2029 and \x85 more",
        "x" * 1_000_000,
    ],
    ids=["dash", "lines", "json", "separators", "a megabyte"],
)
def test_the_prompt_is_one_message(cards: StrictGateway, tmp_path: Path, prompt: str) -> None:
    """Byte for byte, whatever it holds, on one line of the pipe; nothing follows it."""
    scene = Scene(cards, tmp_path, [[script.say("Read.")]])
    (tmp_path / "prompt.txt").write_bytes(prompt.encode())
    scene.launch.argv[scene.launch.argv.index("go")] = "-"

    with (tmp_path / "prompt.txt").open("rb") as file, scene.running(stdin=file) as runner:
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.turns == [[prompt]]
    (line,) = scene.standin.lines
    assert line["message"]["content"] == [{"type": "text", "text": prompt}]
    assert scene.standin.all("closed") == [True]


def test_a_slow_reader_blocks_nothing(cards: StrictGateway, tmp_path: Path) -> None:
    """While Claude Code does not read, its output goes on, and a stop works at once."""
    turns = [[script.be_deaf("never"), script.write("Deaf.", "speak"), script.wait("never")]]
    scene = Scene(cards, tmp_path, turns, STAYS, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        for _ in range(3):
            assert scene.enter("x" * 99_000).error is None
        scene.standin.open("speak")
        scene.launch.expect("Deaf", within_s=WITHIN_S)
        cards.stop(scene.run_id)
        assert runner.wait(WITHIN_S) == 130


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_a_message_behind_a_running_turn(
    cards: StrictGateway, tmp_path: Path, version: str
) -> None:
    """It is told that it waits, then that it was read; the run ends after its turn, not before."""
    turns = [[script.write("Working.", "end")], [script.say("And the other thing.")]]
    scene = Scene(cards, tmp_path, turns, version=version, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        assert "waits" in (scene.enter("and the other thing").result or "")
        (queued,) = scene.wait_for_markers("queued")
        assert scene.markers("taken") == []
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0

    (taken,) = scene.markers("taken")
    assert (queued["text"], taken["id"]) == ("and the other thing", queued["id"])
    assert scene.standin.turns == [["go"], ["and the other thing"]]
    assert "» operator: and the other thing" in cards.text(scene.run_id)
    assert scene.finished()["reason"] == "exited"


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_a_question_behind_a_running_turn(
    cards: StrictGateway, tmp_path: Path, version: str
) -> None:
    """The turn of a message that waited can ask as well: its stdin is open for the answer."""
    turns = [[script.write("Working.", "end")], [script.bash("make"), script.say("Made.")]]
    scene = Scene(cards, tmp_path, turns, version=version, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.enter("make it")
        scene.standin.wait_for("read", 2)
        scene.standin.open("end")
        assert scene.answer(scene.asked()).error is None
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.wait_for_decision()["behavior"] == "allow"


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_a_message_joins_a_running_tool(cards: StrictGateway, tmp_path: Path, version: str) -> None:
    """It has no result of its own, and the run ends with the turn that it joined."""
    turns = [[script.bash("make", is_free=True, until="end"), script.say("Both.")]]
    scene = Scene(cards, tmp_path, turns, version=version, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for_decision()
        scene.enter("this too")
        scene.standin.wait_for("read", 2)
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0

    assert (scene.standin.turns, scene.standin.all("joined")) == ([["go"]], ["this too"])
    assert len(scene.markers("taken")) == 1
    assert scene.finished()["result"]["numTurns"] == 2


def test_several_messages_are_all_read(cards: StrictGateway, tmp_path: Path) -> None:
    """Claude Code makes one turn of them, and each is told as read once."""
    texts = ["one", "two", "three"]
    scene = Scene(cards, tmp_path, [[script.write("Working.", "end")]], env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        for text in texts:
            scene.enter(text)
        scene.standin.wait_for("read", 4)
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.turns == [["go"], texts]
    queued, taken = ([each["id"] for each in scene.markers(n)] for n in ("queued", "taken"))
    assert queued == taken
    assert len(set(queued)) == 3


@pytest.mark.parametrize("version", [NEWEST, "2.1.197"])
def test_a_message_is_taken_back(cards: StrictGateway, tmp_path: Path, version: str) -> None:
    """As long as it waits; once it was read, it is too late."""
    scene = Scene(cards, tmp_path, [[script.write("Working.", "end")]], version=version, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.enter("by mistake")
        (queued,) = scene.wait_for_markers("queued")
        assert scene.order(f"__TAKE_BACK__:{queued['id']}").error is None
        scene.wait_for_markers("taken back")
        assert scene.order(f"__TAKE_BACK__:{queued['id']}").error
        assert scene.order("__TAKE_BACK__:nonsense").error
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.turns == [["go"]]
    assert scene.markers("taken") == []


def test_an_old_release_keeps_the_message(cards: StrictGateway, tmp_path: Path) -> None:
    """2.0 never answers such a wish: the message runs, and the run ends all the same."""
    scene = Scene(cards, tmp_path, [[script.write("Working.", "end")]], version="2.0.77", env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.enter("by mistake")
        (queued,) = scene.wait_for_markers("queued")
        scene.order(f"__TAKE_BACK__:{queued['id']}")
        scene.standin.wait_for("read", 3)
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.turns == [["go"], ["by mistake"]]
    assert len(scene.markers("taken")) == 1


@pytest.mark.parametrize(
    ("env", "text", "reason"),
    [
        ({}, "hello", "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT"),
        (INPUT, "", "empty"),
        (INPUT, " \n ", "empty"),
        (INPUT, "x" * 200_000, "longer"),
    ],
    ids=["not allowed", "empty", "blank", "long"],
)
def test_a_message_that_is_refused(
    cards: StrictGateway, tmp_path: Path, env: dict[str, str], text: str, reason: str
) -> None:
    """Claude Code hears nothing of it."""
    scene = Scene(cards, tmp_path, [[script.write("Working.", "end")]], env=env)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        assert reason in (scene.enter(text).error or "")
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0

    assert len(scene.standin.lines) == 1


@pytest.mark.parametrize(
    "text",
    [
        '"}\n{"type":"user"}',
        "a\rb\x00c\u2028d\x85e",
        "\x1b[2J\x1b]0;x\x07",
        "secret = x\npassword y",
    ],
    ids=["json", "line ends", "escapes", "words"],
)
def test_hostile_text_of_a_message(cards: StrictGateway, tmp_path: Path, text: str) -> None:
    """It arrives as it is, on one line; what is shown of it holds no control characters."""
    scene = Scene(cards, tmp_path, [[script.write("Working.", "end")]], env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.enter(text)
        scene.standin.wait_for("read", 2)
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0
        shown = runner.stdout.decode()

    assert scene.standin.turns[1] == [text]
    seen = shown + cards.text(scene.run_id) + scene.markers("queued")[0]["text"]
    assert not [c for c in seen if not c.isprintable() and c not in "\n\t"]


# --- staying ----------------------------------------------------------------------------------


def test_it_stays_for_a_message(cards: StrictGateway, tmp_path: Path) -> None:
    """After a turn the run waits; a message then is the next turn of the same session."""
    turns = [[script.say("First.")], [script.say("Second.")]]
    more = ("--ask-timeout", "2h", "--fail-on-denial")
    arguments = ("--model=opus", "--permission-mode", "plan", "--add-dir", "/srv")
    scene = Scene(cards, tmp_path, turns, (*STAYS, *more), env=INPUT, arguments=arguments)

    with scene.running() as runner:
        scene.launch.expect("First", within_s=WITHIN_S)
        cards.wait_for(lambda: scene.markers("state")[-1:], WITHIN_S)
        assert scene.enter("go on").error is None
        scene.launch.expect("Second", within_s=WITHIN_S)
        cards.stop(scene.run_id)
        assert runner.wait(WITHIN_S) == 130

    assert scene.standin.turns == [["go"], ["go on"]]
    finished, (started,) = scene.finished(), scene.markers("started")
    assert finished["result"]["numTurns"] == 2
    assert finished["sessionId"] == started["sessionId"]
    # What another run may be started with as well.
    assert started["options"] == {
        "ask": "remote",
        "askTimeout": "2h",
        "stay": STAYS[-1],
        "failOnDenial": True,
        "model": "opus",
        "permissionMode": "plan",
    }


def test_it_ends_when_nothing_comes(cards: StrictGateway, tmp_path: Path) -> None:
    """By itself, with the exit code of its last turn."""
    scene = Scene(cards, tmp_path, [[script.say("Done.")]], SHORT_STAY)

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 0

    assert scene.finished()["reason"] == "exited"


def test_it_ends_at_once_without_staying(cards: StrictGateway, tmp_path: Path) -> None:
    """As today: the end of the turn closes its stdin, and its exit code is the run's."""
    scene = Scene(cards, tmp_path, [[script.fail()]])

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 1

    marker = scene.finished()
    assert (marker["reason"], marker["childExitCode"]) == ("exited", 1)


def test_a_program_that_never_ends_is_stopped(cards: StrictGateway, tmp_path: Path) -> None:
    """Its stdin is closed and it stays: the operator's stop works."""
    scene = Scene(cards, tmp_path, [[script.say("Done.")]], ignores=["close"])

    with scene.running() as runner:
        scene.standin.wait_for("closed")
        assert scene.enter("hello").error
        cards.stop(scene.run_id)
        assert runner.wait(WITHIN_S) == 130


# --- tasks in the background --------------------------------------------------------------------


@pytest.mark.parametrize("version", [NEWEST, "2.1.197"])
def test_a_task_is_waited_for(cards: StrictGateway, tmp_path: Path, version: str) -> None:
    """So is the turn after it, in which a question can still be answered."""
    then = [script.bash("make install"), script.say("Installed.")]
    turns = [[script.background("end", then=then), script.say("On it.")]]
    scene = Scene(cards, tmp_path, turns, version=version)

    with scene.running() as runner:
        scene.launch.expect("On it", within_s=WITHIN_S)
        assert scene.standin.all("closed") == []
        scene.standin.open("end")
        scene.answer(scene.asked())
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.wait_for_decision()["behavior"] == "allow"
    assert "Installed." in cards.text(scene.run_id)


@pytest.mark.parametrize("version", [NEWEST, "2.1.197"])
def test_a_task_that_ends_in_mid_turn(cards: StrictGateway, tmp_path: Path, version: str) -> None:
    """One more turn follows the running one, and the run is open for its question."""
    then = [script.bash("make install"), script.say("Installed.")]
    steps = [script.background("task", then=then), script.write("On it.", "turn")]
    scene = Scene(cards, tmp_path, [steps], version=version)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.standin.open("task")
        scene.standin.open("turn")
        scene.answer(scene.asked())
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.wait_for_decision()["behavior"] == "allow"


@pytest.mark.parametrize("version", [NEWEST, "2.1.197"])
def test_two_tasks_that_end_together(cards: StrictGateway, tmp_path: Path, version: str) -> None:
    """The first of the turns that follow is empty in one release; the run sees both."""
    asks = [script.bash("make install"), script.say("Installed.")]
    tasks = [script.background("end"), script.background("end", then=asks)]
    scene = Scene(cards, tmp_path, [[*tasks, script.say("On it.")]], version=version)

    with scene.running() as runner:
        scene.launch.expect("On it", within_s=WITHIN_S)
        scene.standin.open("end")
        scene.answer(scene.asked())
        assert runner.wait(WITHIN_S) == 0

    assert scene.standin.wait_for_decision()["behavior"] == "allow"


def test_an_old_release_says_nothing_of_tasks(cards: StrictGateway, tmp_path: Path) -> None:
    """2.0 does not wait for them, and so the run does not."""
    turns = [[script.background("never"), script.say("On it.")]]
    scene = Scene(cards, tmp_path, turns, version="2.0.77")

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 0


# --- interrupts -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_an_interrupt_ends_a_run(cards: StrictGateway, tmp_path: Path, version: str) -> None:
    """Which then ends by itself: its reason is the interrupt, its exit code 130."""
    scene = Scene(cards, tmp_path, [[script.write("Half a", "never")]], version=version)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        assert scene.order("__ESCAPE__").error is None
        assert runner.wait(WITHIN_S) == 130

    marker = scene.finished()
    assert (marker["reason"], marker["exitCode"]) == ("interrupted", 130)
    assert scene.standin.all("signal") == []


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_an_interrupt_withdraws_a_question(
    cards: StrictGateway, tmp_path: Path, version: str
) -> None:
    """Its card goes, and nobody has denied anything; what waits goes on."""
    turns = [[script.bash("make")], [script.say("Instead.")]]
    options = (*REMOTE, "--fail-on-denial")
    scene = Scene(cards, tmp_path, turns, options, version=version, env=INPUT)

    with scene.running() as runner:
        scene.asked()
        scene.enter("do something else")
        scene.standin.wait_for("read", 2)
        scene.order("__ESCAPE__")
        (withdrawn,) = scene.wait_for_markers("withdrawn")
        assert runner.wait(WITHIN_S) == 0

    assert withdrawn["reason"] == "interrupted"
    assert scene.standin.turns == [["go"], ["do something else"]]
    assert [each["behavior"] for each in scene.standin.decisions] == ["withdrawn"]
    marker = scene.finished()
    assert (marker["reason"], marker["exitCode"]) == ("exited", 0)


def test_an_interrupt_keeps_a_run_that_stays(cards: StrictGateway, tmp_path: Path) -> None:
    """It waits for the next message, and its end is that of its last turn."""
    turns = [[script.write("Half a", "never")], [script.say("Instead.")]]
    scene = Scene(cards, tmp_path, turns, STAYS, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.order("__ESCAPE__")
        scene.launch.expect("nterrupted", within_s=WITHIN_S)
        assert scene.enter("do this").error is None
        scene.launch.expect("Done in", within_s=WITHIN_S)
        assert scene.order("__ESCAPE__").error
        cards.stop(scene.run_id)
        assert runner.wait(WITHIN_S) == 130

    assert scene.finished()["reason"] == "stopped"


def test_an_interrupt_stops_subagents(cards: StrictGateway, tmp_path: Path) -> None:
    """Also when the main conversation is idle, and one of them asks."""
    tools = [script.use("Bash", {"command": "make"})]
    scene = Scene(cards, tmp_path, [[script.subagents(*tools), script.say("Meanwhile.")]])

    with scene.running() as runner:
        scene.asked()
        scene.launch.expect("Meanwhile", within_s=WITHIN_S)
        assert scene.order("__ESCAPE__").error is None
        (withdrawn,) = scene.wait_for_markers("withdrawn")
        runner.wait(WITHIN_S)

    assert withdrawn["reason"] == "interrupted"
    assert [each["behavior"] for each in scene.standin.decisions] == ["withdrawn"]


def test_an_interrupt_that_is_ignored(cards: StrictGateway, tmp_path: Path) -> None:
    """The run goes on, and stop works at once."""
    turns = [[script.write("Half a", "never")]]
    scene = Scene(cards, tmp_path, turns, ignores=["interrupt"])

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.order("__ESCAPE__")
        scene.standin.wait_for("read", 2)
        cards.stop(scene.run_id)
        assert runner.wait(WITHIN_S) == 130

    assert scene.finished()["reason"] == "stopped"


def test_a_false_error_is_no_interrupt(cards: StrictGateway, tmp_path: Path) -> None:
    """2.0 says `error_during_execution` of its own when a task ends in mid-turn."""
    false = '{"type":"result","subtype":"error_during_execution","is_error":true,"num_turns":0}\n'
    turns = [[script.say("Done."), script.line(false), script.say("Really.")]]
    scene = Scene(cards, tmp_path, turns, version="2.0.77")

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 0

    assert scene.finished()["reason"] == "exited"


def test_cost_and_turns_are_of_the_whole_run(cards: StrictGateway, tmp_path: Path) -> None:
    """Claude Code adds up the cost itself, and nothing else."""
    turns = [[script.write("One.", "end")], [script.bash("make"), script.say("Two.")]]
    scene = Scene(cards, tmp_path, turns, env=INPUT)

    with scene.running() as runner:
        scene.standin.wait_for("turn")
        scene.enter("two")
        scene.standin.open("end")
        scene.answer(scene.asked(), "deny")
        assert runner.wait(WITHIN_S) == 0

    result = scene.finished()["result"]
    assert (result["totalCostUsd"], result["numTurns"]) == (0.02, 3)
    assert (result["durationMs"], result["permissionDenials"]) == (200, ["Bash"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_question(
    cards: StrictGateway, tmp_path: Path, number: int
) -> None:
    """As any other: the card is taken back, and nothing is left."""
    scene = Scene(cards, tmp_path, [[script.bash("make")]])

    with scene.running() as runner:
        scene.asked()
        runner.signal(number)
        assert runner.wait(WITHIN_S) == 130

    assert [each["reason"] for each in scene.markers("withdrawn")] == ["ended"]


def test_a_time_limit_ends_a_run_with_a_question(cards: StrictGateway, tmp_path: Path) -> None:
    """`--max-time` does not wait for an answer."""
    scene = Scene(cards, tmp_path, [[script.bash("make")]], (*REMOTE, "--max-time", "4s"))

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 124

    # A busy machine may not have come as far as the question.
    assert len(scene.markers("withdrawn")) == len(scene.markers("asked"))


def test_an_open_question_is_no_state_of_its_own(cards: StrictGateway, tmp_path: Path) -> None:
    """Its card says that the run waits, and its answer that it works on: nothing comes later."""
    turns = [[script.bash("make"), script.write("Making.", "end")]]
    scene = Scene(cards, tmp_path, turns, (*REMOTE, *STAYS))

    with scene.running() as runner:
        scene.answer(scene.asked())
        scene.standin.open("end")
        cards.wait_for(
            lambda: [each["state"] for each in scene.markers("state")] == ["working", "waiting"],
            WITHIN_S,
        )
        cards.stop(scene.run_id)
        assert runner.wait(WITHIN_S) == 130

    told = [json.loads(each.data)["event"] for each in cards.events(scene.run_id, "marker")]
    assert [each for each in told if each in ("asked", "answered", "state")] == [
        "state",
        "asked",
        "answered",
        "state",
    ]


def test_without_cards_an_open_question_is_a_state(plain: StrictGateway, tmp_path: Path) -> None:
    """Such a gateway knows only the state, and its list shows which run needs a person."""
    turns = [[script.bash("make"), script.write("Making.", "end")]]
    scene = Scene(plain, tmp_path, turns, PLAIN)

    with scene.running() as runner:
        code = scene.info(r"([0-9A-Z]{5}): Claude Code asks")[1]

        def state() -> str:
            states = scene.markers("state")
            return str(states[-1]["state"]) if states else ""

        plain.wait_for(lambda: state() == "waiting", WITHIN_S)
        scene.enter(f"allow {code}")
        plain.wait_for(lambda: state() == "working", WITHIN_S)
        scene.standin.open("end")
        assert runner.wait(WITHIN_S) == 0
