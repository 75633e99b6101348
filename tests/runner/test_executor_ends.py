"""Commands at the end of a run, and after answers that were lost: acknowledged, and run once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testing.gateways.faults import (
    Action,
    DropAfter,
    DropBefore,
    Fault,
    Hang,
    Html,
    JsonError,
    RateLimited,
)
from testing.gateways.strict_gateway import Ack, StrictGateway
from testing.programs import processes
from testing.waiting import eventually
from tests.runner.operated import WAITS_FOR_FILE, Runner, polls, wait_for_reader


@pytest.mark.parametrize("how", ["__STOP__", "__HALT__", "the child"])
def test_the_end_kills_what_runs_and_refuses_what_waits(
    plain: StrictGateway, tmp_path: Path, how: str
) -> None:
    """At the end of the run every command is acknowledged, and nothing of them is alive."""
    fifo, more, proof = tmp_path / "fifo", tmp_path / "more", tmp_path / "proof"
    os.mkfifo(fifo)
    os.mkfifo(more)
    runner = Runner(
        plain,
        tmp_path,
        EXTRA_ALLOWED_COMMANDS="./slow,./never",
        FIFO=str(fifo),
        command=("sh", "-c", f"echo READY; exec cat {more}"),
    )
    slow_script = runner.script("slow", WAITS_FOR_FILE)
    never = runner.script("never", f"open({str(proof)!r}, 'w')")

    with runner:
        (slow,) = runner.queue(slow_script)
        writer = wait_for_reader(fifo)
        waiting = runner.queue(*[never] * 70)
        plain.wait_for(
            lambda: len(plain.acks(runner.run.id)) >= 20
        )  # the queue holds no more than 50
        last = []
        if how == "the child":
            more.write_text("")
        else:
            last = runner.queue(how)
        code = runner.wait()
        acks = runner.acks(slow, *waiting, *last)
        os.close(writer)

    assert not proof.exists()
    assert "begun" in (acks[0].error or "").splitlines()
    reasons = [ack.error for ack in acks[1:71]]
    assert sorted(set(reasons), key=str) == [
        "refused: too many commands are waiting",
        "the run has ended",
    ]
    assert reasons[:50] == ["the run has ended"] * 50
    assert code == {"__STOP__": 130, "__HALT__": 137, "the child": 0}[how]
    assert plain.pending(runner.run.id) == []
    assert plain.verify_finished(runner.run.id) == []
    assert "Command failed: ./slow" in "".join(runner.events("error"))


def test_a_stop_does_not_wait_for_what_was_queued_before_it(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """A stop at the end of a long list is carried out though nothing before it can be answered."""

    def sleeping() -> int:
        for pid in processes.descendants(runner.pid):
            if processes.command_line(pid).startswith("sleep"):
                return pid
        raise AssertionError("it does not sleep yet")

    with Runner(plain, tmp_path) as runner:
        child = eventually(sleeping)  # before the stop may end it
        held = plain.faults.add(Fault("ack", Hang(), every=1))
        paused = plain.faults.add(Fault("commands", Html(502), every=1))
        commands = runner.queue(*["no entry"] * 150, "pwd", "__STOP__")
        plain.faults.remove(paused)
        # The child is gone while the first ack still hangs.
        processes.assert_gone([child])
        assert plain.acks(runner.run.id) == {}
        plain.faults.remove(held)
        assert runner.wait() == 130

    stop = runner.acks(commands[-1])[0]
    assert stop == Ack("Stop initiated", None)
    assert runner.events("info") == ["Stop requested by the operator"]


def test_the_ack_of_a_stop_arrives_though_the_run_ends_at_once(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """The end of the run breaks off the poller's exchange; its acknowledgement is sent again."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    tidies_up = f"trap 'cat {fifo}; exit 0' INT; echo READY; sleep 600 & wait"
    with Runner(plain, tmp_path, command=("sh", "-c", tidies_up)) as runner:
        hang = plain.faults.add(Fault("ack", Hang(), times=1))
        (stop,) = runner.queue("__STOP__")
        plain.wait_for(lambda: hang.applied == 1)
        fifo.write_text("")
        assert runner.wait() == 130

    assert plain.acks(runner.run.id) == {stop: [Ack("Stop initiated", None)]}


def test_an_ack_that_is_refused_for_a_while_at_the_end_still_arrives(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """A rate limit at the very end costs the operator patience, and no acknowledgement."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", FIFO=str(fifo))
    runner.script("slow", WAITS_FOR_FILE)

    with runner:
        slow, later = runner.queue("./slow", "pwd")
        writer = wait_for_reader(fifo)
        plain.faults.add(Fault("ack", RateLimited(1), times=2))
        stop = plain.stop(runner.run.id)
        runner.wait()
        os.close(writer)

    acks = runner.acks(slow, later, stop)
    assert (acks[0].error or "").endswith("\nbegun\n")
    assert acks[1:] == [Ack(None, "the run has ended"), Ack("Stop initiated", None)]


@pytest.mark.parametrize(
    "action",
    [
        DropBefore(),
        DropAfter(reset=True),
        JsonError(500, after="nonce"),
        Html(502, after="stored"),
        RateLimited(1),
    ],
    ids=repr,
)
def test_a_command_is_executed_once_though_its_ack_is_lost(
    plain: StrictGateway, tmp_path: Path, action: Action
) -> None:
    """The command stays listed and is not run again; its result is acknowledged again."""
    log = tmp_path / "log"
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS="./counts")
    runner.script("counts", f"open({str(log)!r}, 'a').write('once\\n'); print('done')")
    is_stored = getattr(action, "after", "") == "stored" or isinstance(action, DropAfter)
    # More than one round of attempts; but what the gateway has stored it no longer lists.
    times = 1 if is_stored or isinstance(action, RateLimited) else 5

    with runner:
        fault = plain.faults.add(Fault("ack", action, times=times))
        counted, refused = runner.queue("./counts", "no entry")
        plain.wait_for(lambda: fault.applied == times and not plain.pending(runner.run.id), 20)
        before = len(polls(plain))
        plain.wait_for(lambda: len(polls(plain)) >= before + 2)

    assert log.read_text() == "once\n"
    assert set(plain.acks(runner.run.id)[counted]) == {Ack("done\n", None)}
    assert {ack.result for ack in plain.acks(runner.run.id)[refused]} == {None}
    assert runner.events("info") == ["Executing command: ./counts"]
    assert len(runner.events("error")) == 1
