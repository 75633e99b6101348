"""What `sync` does and says, and what `start` says about what is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testing import processes
from testing.faults import Fault, Html
from testing.gateway_records import Run
from testing.runner import Launch, RunnerProcess, child, plan
from testing.strict_gateway import StrictGateway
from testing.verdict import ASKED_TWICE, files_with, judge, sync

DAY_S = 86_400


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway without a rate limit, whose clients may be killed before they note an answer."""
    with StrictGateway(rate_limit=None) as gw:
        gw.allow(ASKED_TWICE)
        yield gw


def leave_behind(gateway: StrictGateway, folder: Path, run: Run | None = None) -> Launch:
    """Let a runner be killed in mid-run; `folder` may hold other runs already."""
    launch = plan(gateway, child("lines.py", "4000", "400"), folder, run=run)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)
    return launch


def deliver(gateway: StrictGateway, folder: Path) -> Launch:
    """Let a short run be delivered whole."""
    launch = plan(gateway, child("lines.py", "3", "0"), folder)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
    return launch


# --- what it says ---------------------------------------------------------------------------------


def test_nothing_is_left(gateway: StrictGateway, tmp_path: Path) -> None:
    """Without leftovers sync says so, asks the gateway nothing, and succeeds."""
    launch = deliver(gateway, tmp_path)
    requests = len(gateway.requests)

    done = sync(launch)

    assert (done.code, done.stdout, done.stderr) == (0, "nothing is left to deliver\n", "")
    assert len(gateway.requests) == requests


def test_says_what_it_did(gateway: StrictGateway, tmp_path: Path) -> None:
    """Each run is told by its id, with what was delivered and where to."""
    launch = leave_behind(gateway, tmp_path)

    done = sync(launch)

    assert done.code == 0
    assert done.stdout.startswith(f"{launch.run.id}: delivered ")
    assert gateway.url in done.stdout


def test_live_run_is_skipped(gateway: StrictGateway, tmp_path: Path) -> None:
    """A run that is alive is not touched, and is no failure."""
    launch = plan(gateway, child("lines.py", "800", "400"), tmp_path)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        done = sync(launch)
        assert runner.wait() == 0

    assert (done.code, done.stdout) == (0, f"{launch.run.id}: it is still running\n")
    assert judge(gateway, launch.run.id, last=800).problems == []


def test_refused_run_is_reported_and_skipped(gateway: StrictGateway, tmp_path: Path) -> None:
    """A run that the gateway does not know is reported with exit code 1, and others are sent."""
    gone = leave_behind(gateway, tmp_path, gateway.create_run(run_id="run_a"))
    kept = leave_behind(gateway, tmp_path, gateway.create_run(run_id="run_b"))
    gateway.allow("an unknown run or a token not the run's")
    gateway.create_run(run_id="run_a")  # the same id with another token

    done = sync(kept)

    assert done.code == 1
    assert "run_a: not delivered: the gateway does not know run run_a" in done.stderr
    assert "--discard" in done.stderr
    assert done.stdout.startswith("run_b: delivered ")
    assert judge(gateway, kept.run.id).problems == []
    assert gateway.events(gone.run.id) == []


def test_wrong_secret(gateway: StrictGateway, tmp_path: Path) -> None:
    """With a wrong HMAC_SECRET sync delivers nothing, says why, and keeps everything."""
    launch = leave_behind(gateway, tmp_path)
    gateway.allow("a bad signature")

    done = sync(launch, env={"HMAC_SECRET": "x" * 40})

    assert done.code == 1
    assert "HMAC_SECRET" in done.stderr
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id).problems == []


# --- where to, and what ---------------------------------------------------------------------------


def test_the_gateway_of_the_journal(gateway: StrictGateway, tmp_path: Path) -> None:
    """Leftovers go to the gateway that their run knew, whatever is configured now."""
    launch = leave_behind(gateway, tmp_path)
    with StrictGateway(secret=gateway.secret) as other:
        done = sync(launch, env={"GATEWAY_URL": other.url})

        assert done.code == 0
        assert other.requests == []
    assert judge(gateway, launch.run.id).problems == []


def test_one_run_alone(gateway: StrictGateway, tmp_path: Path) -> None:
    """With --run-id only that run is sent."""
    first = leave_behind(gateway, tmp_path)
    second = leave_behind(gateway, tmp_path)

    done = sync(first, "--run-id", second.run.id, "--token", second.run.token)

    assert done.code == 0
    assert judge(gateway, second.run.id).problems == []
    assert gateway.markers(first.run.id, "finished") == []
    assert sync(first).code == 0
    assert judge(gateway, first.run.id).problems == []


def test_a_new_token(gateway: StrictGateway, tmp_path: Path) -> None:
    """A token that is given replaces the one in the journal; without a run id it is refused."""
    launch = leave_behind(gateway, tmp_path)
    gateway.allow("an unknown run or a token not the run's")
    renewed = gateway.create_run(run_id=launch.run.id)
    gateway.allow("a nonce used for two different requests")  # by the signature, not the body

    without_id = sync(launch, "--token", renewed.token)
    with_old = sync(launch)
    done = sync(launch, "--run-id", renewed.id, "--token", renewed.token)

    assert without_id.code == 1
    assert "--run-id" in without_id.stderr
    assert with_old.code == 1
    assert done.code == 0
    assert len(gateway.markers(renewed.id, "finished")) == 1
    assert files_with(launch.data_dir, launch.run.token) == []


def test_discard(gateway: StrictGateway, tmp_path: Path) -> None:
    """--discard deletes one run for good and asks the gateway nothing."""
    first = leave_behind(gateway, tmp_path)
    second = leave_behind(gateway, tmp_path)
    requests = len(gateway.requests)

    done = sync(first, "--discard", first.run.id)

    assert done.code == 0
    assert first.run.id in done.stdout
    assert not first.run_dir.exists()
    assert second.run_dir.exists()
    assert len(gateway.requests) == requests
    assert sync(first, "--discard", first.run.id).code == 1
    assert sync(first, "--discard", "../..").code == 1


def test_discard_spares_a_live_run(gateway: StrictGateway, tmp_path: Path) -> None:
    """--discard does not delete a run that is alive."""
    launch = plan(gateway, child("lines.py", "800", "400"), tmp_path)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        done = sync(launch, "--discard", launch.run.id)
        assert runner.wait() == 0

    assert done.code == 1
    assert "still running" in done.stderr
    assert judge(gateway, launch.run.id, last=800).problems == []


def test_interrupted_command(gateway: StrictGateway, tmp_path: Path) -> None:
    """A command that was being executed is reported as interrupted, and is not run again."""
    launch = plan(
        gateway,
        child("lines.py", "4000", "400"),
        tmp_path,
        env={"EXTRA_ALLOWED_COMMANDS": "sleep 77"},
    )
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        command_id = gateway.queue_command(launch.run.id, "sleep 77")
        launch.expect("Executing command: sleep 77", "info")
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)

    assert sync(launch).code == 0

    acks = gateway.acks(launch.run.id)[command_id]
    assert len(acks) == 1
    assert "interrupted" in str(acks[0].error)
    assert gateway.text(launch.run.id, "error").count("sleep 77: interrupted") == 1
    assert gateway.text(launch.run.id, "info").count("Executing command") == 1
    assert judge(gateway, launch.run.id).problems == []


def test_acknowledgement_through_faults(gateway: StrictGateway, tmp_path: Path) -> None:
    """An acknowledgement that meets a bad proxy is repeated until the gateway has it."""
    launch = plan(
        gateway,
        child("lines.py", "4000", "400"),
        tmp_path,
        env={"EXTRA_ALLOWED_COMMANDS": "sleep 77"},
    )
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        command_id = gateway.queue_command(launch.run.id, "sleep 77")
        launch.expect("Executing command: sleep 77", "info")
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)
    gateway.faults.add(Fault("ack", Html(502), times=2))

    assert sync(launch).code == 0

    assert list(gateway.acks(launch.run.id)) == [command_id]


# --- start, and old runs --------------------------------------------------------------------------


def test_start_mentions_leftovers(gateway: StrictGateway, tmp_path: Path) -> None:
    """`start` tells how many earlier runs are left, and by which command they are sent."""
    leave_behind(gateway, tmp_path)
    leave_behind(gateway, tmp_path)
    launch = plan(gateway, child("lines.py", "3", "0"), tmp_path)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0

        assert "2 earlier runs are not delivered whole; `claude-runner sync`" in runner.stderr
    assert sync(launch).code == 0


def test_a_run_id_is_used_once(gateway: StrictGateway, tmp_path: Path) -> None:
    """A run that was started is not started again, delivered or not."""
    launch = deliver(gateway, tmp_path)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1

        assert "is started only once" in runner.stderr
    assert judge(gateway, launch.run.id, last=3).problems == []


def test_retention(gateway: StrictGateway, tmp_path: Path) -> None:
    """Only folders of runs that were delivered long enough ago are removed."""
    old = deliver(gateway, tmp_path)
    young = deliver(gateway, tmp_path)
    left = leave_behind(gateway, tmp_path)
    live = plan(gateway, child("lines.py", "1600", "400"), tmp_path)
    age(old.run_dir, 31)
    age(young.run_dir, 29)
    age(left.run_dir, 400)
    with RunnerProcess(live) as runner:
        live.expect(r"(?m)^20 .*\n")
        age(live.run_dir, 400)
        new = deliver(gateway, tmp_path)

        folders = {path.name for path in (live.data_dir / "runs").iterdir()}
        assert folders == {each.run.id for each in (young, left, live, new)}
        assert runner.wait(30) == 0
    assert judge(gateway, live.run.id, last=1600).problems == []
    assert sync(left).code == 0
    assert judge(gateway, left.run.id).problems == []


def test_retention_is_configurable(gateway: StrictGateway, tmp_path: Path) -> None:
    """CLAUDE_RUNNER_RETENTION_DAYS says how long delivered runs are kept."""
    old = deliver(gateway, tmp_path)
    age(old.run_dir, 3)
    launch = plan(gateway, child("lines.py", "3", "0"), tmp_path)
    launch = replace(launch, env={**launch.env, "CLAUDE_RUNNER_RETENTION_DAYS": "2"})
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0

    assert not old.run_dir.exists()


def age(folder: Path, days: float) -> None:
    """Make everything in a folder look so many days old."""
    at = time.time() - days * DAY_S
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (at, at))
