"""The runner of a run that asks is killed with signal 9 at named points; then `sync` is run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.gateways.faults import Fault
from testing.gateways.operator import WITHIN_S, answer_text
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import claude_standin as script
from testing.programs import processes
from testing.programs.runner import RunnerProcess
from testing.programs.verdict import ASKED_TWICE, Kill, Moment, sync
from tests.runner.asking import PLAIN, REMOTE, Scene

MOMENTS: tuple[Moment, ...] = ("before", "stored", "answered")
TURNS = [[script.bash("make"), script.bash("make install"), script.say("Made.")]]


@pytest.fixture
def cards() -> Iterator[StrictGateway]:
    """A gateway with cards, whose clients may be killed before they note an answer."""
    with StrictGateway(rate_limit=None, extensions=("answers",)) as gateway:
        gateway.allow(ASKED_TWICE)
        yield gateway


def wait_for_death(runner: RunnerProcess, fault: Kill) -> None:
    """Let a fault kill the runner; see that nothing of the run outlives it."""
    keeper = runner.keeper_pid()
    pids = [keeper, *processes.descendants(keeper)]
    fault.pid = runner.pid
    assert runner.wait(WITHIN_S) == -signal.SIGKILL
    processes.assert_gone(pids, WITHIN_S)


def assert_synced(scene: Scene) -> None:
    """`sync` completes the run: each card that was shown is closed, once, before `finished`."""
    first = sync(scene.launch)
    second = sync(scene.launch)

    assert (first.code, second.code) == (0, 0), first
    assert second.stdout == "nothing is left to deliver\n"
    assert scene.finished()["reason"] == "runner died"
    events = [(each["event"], each.get("id")) for each in scene.gateway.markers(scene.run_id)]
    asked = [name for event, name in events if event == "asked"]
    closed = [name for event, name in events if event in ("answered", "withdrawn")]
    assert sorted(closed, key=str) == sorted(asked, key=str)
    assert events[-1][0] == "finished"


def test_killed_with_a_question_open(cards: StrictGateway, tmp_path: Path) -> None:
    """The card is taken back by `sync`, and Claude Code is not left behind."""
    scene = Scene(cards, tmp_path, TURNS)

    with scene.running() as runner:
        asked = scene.asked()
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait(WITHIN_S)
    processes.assert_gone(pids, WITHIN_S)
    assert scene.open_cards == [asked["id"]]

    assert_synced(scene)

    assert [each["reason"] for each in scene.markers("withdrawn")] == ["ended"]
    assert {each["behavior"] for each in scene.standin.decisions} <= {"refused"}


def test_killed_where_there_are_no_cards(plain: StrictGateway, tmp_path: Path) -> None:
    """A gateway in the field is told in words."""
    plain.allow(ASKED_TWICE)
    scene = Scene(plain, tmp_path, TURNS, PLAIN)

    with scene.running() as runner:
        scene.info("asks to use Bash")
        runner.signal(signal.SIGKILL)
        runner.wait(WITHIN_S)

    assert sync(scene.launch).code == 0
    assert scene.finished()["reason"] == "runner died"
    assert "not answered" in plain.text(scene.run_id, "info")
    assert scene.markers("withdrawn") == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("event", ["asked", "answered"])
def test_killed_by_an_event(
    cards: StrictGateway, tmp_path: Path, event: str, moment: Moment
) -> None:
    """While a question, or its answer, is on its way."""
    scene = Scene(cards, tmp_path, TURNS)
    fault = Kill(moment)
    name = f'\\"event\\":\\"{event}\\"'.encode()
    cards.faults.add(Fault(lambda request: name in request.body.replace(b" ", b""), fault))

    with scene.running() as runner:
        if event == "answered":
            asked = scene.asked()
            cards.queue_command(scene.run_id, answer_text(asked))
        wait_for_death(runner, fault)

    assert_synced(scene)

    given = [each["response"]["behavior"] for each in scene.standin.answers]
    assert given in ([], ["allow"]) if event == "answered" else given == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_by_an_acknowledgement(cards: StrictGateway, tmp_path: Path, moment: Moment) -> None:
    """The answer is in the ledger: it is acknowledged by `sync`, and is not given again."""
    scene = Scene(cards, tmp_path, TURNS)
    fault = Kill(moment)
    cards.faults.add(Fault("ack", fault))

    with scene.running() as runner:
        command = cards.queue_command(scene.run_id, answer_text(scene.asked()))
        wait_for_death(runner, fault)

    assert_synced(scene)

    # Where the kill hid that it had arrived, it is sent again.
    results = {each.result for each in cards.acks(scene.run_id)[command]}
    assert results == {"Answered: allow"}
    assert [each["decision"] for each in scene.markers("answered")] == ["allow"]
    assert len(scene.standin.answers) <= 1


def test_an_answer_to_a_dead_run(cards: StrictGateway, tmp_path: Path) -> None:
    """It was queued after the death: `sync` says that the run has ended."""
    scene = Scene(cards, tmp_path, TURNS, REMOTE)

    with scene.running() as runner:
        asked = scene.asked()
        runner.signal(signal.SIGKILL)
        runner.wait(WITHIN_S)
    cards.queue_command(scene.run_id, answer_text(asked))

    assert_synced(scene)

    assert scene.standin.answers == []
