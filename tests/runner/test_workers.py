"""A worker of a run that dies of a bug comes back: the run is delivered, and the page stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import ROOT, RunnerProcess, child, plan
from testing.programs.verdict import ASKED_TWICE

# The runner as it is, but for one method that fails the first two times that it is called.
_FAILING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import claude_runner
from runner import executor, poller, poster, syncer
left = 2
owner = %(owner)s
method = owner.%(method)s
def fail_first(*args):
    global left
    if left:
        left -= 1
        raise ValueError("a bug")
    return method(*args)
owner.%(method)s = fail_first
sys.exit(claude_runner.main())
"""


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway without a rate limit, which may be told once more what it has answered."""
    with StrictGateway(rate_limit=None) as strict:
        strict.allow(ASKED_TWICE)
        yield strict


@pytest.mark.parametrize(
    ("owner", "method", "told"),
    [
        ("poster.Poster", "_send_next", "delivery failed: ValueError: a bug"),
        # The gateway has it by then, and must not get it twice.
        ("poster.Poster", "_handle_acceptance", "delivery failed: ValueError: a bug"),
        ("poster.Poster", "_append_finished", "delivery failed: ValueError: a bug"),
        ("poller.Poller", "_poll", "remote control failed: ValueError: a bug"),
        ("poller.Poller", "_receive", "remote control failed: ValueError: a bug"),
        ("executor.Executor", "_finish", "executing commands failed: ValueError: a bug"),
        ("syncer.Syncer", "_work", "a power cut may lose output: ValueError: a bug"),
    ],
)
def test_a_worker_that_fails_comes_back(
    owner: str, method: str, told: str, gateway: StrictGateway, tmp_path: Path
) -> None:
    """All is delivered once, commands are executed, a stop gets through, and it is told once."""
    launch = plan(gateway, child("lines.py", "1000000", "50"), tmp_path)
    launch.argv[1:2] = ["-c", _FAILING % {"owner": owner, "method": method}]
    with RunnerProcess(launch) as runner:
        for _ in range(3 if method in ("_receive", "_finish") else 1):
            command_id = gateway.queue_command(launch.run.id, "pwd")
        launch.expect(r"(?m)^5 ")
        gateway.wait_for(lambda: command_id in gateway.acks(launch.run.id), 20.0)
        stop_id = gateway.queue_command(launch.run.id, "__STOP__")
        code = runner.wait(30)
        said = runner.stderr

    assert code == 130
    assert said.count(f"{told}") == said.count("it is started again") == 1
    assert gateway.acks(launch.run.id)[stop_id][0].error is None
    assert gateway.markers(launch.run.id, "finished")[0]["reason"] == "stopped"
    assert gateway.verify_finished(launch.run.id) == []
    assert gateway.text(launch.run.id).encode() == launch.log
