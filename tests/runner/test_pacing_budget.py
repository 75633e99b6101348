"""The request budget in whole runs: output is spread over it, a stop comes first, and an end fits.

Seconds are the promise here, so they are judged, from recorded times: the child stamps its lines
with the clock that the gateway's record uses. `test_pacing.py` has the figures for many runs.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import RunnerProcess, child, plan
from testing.programs.verdict import judge
from testing.waiting import eventually

PER_SECOND = 250
POLL_INTERVAL = {"CLAUDE_RUNNER_POLL_INTERVAL": "2"}
# A promise of 3 s, on a machine that is busy with other tests; without a reserve it is a minute.
KNOWN_WITHIN_S = 15.0


def test_a_stop_on_a_tight_budget(tmp_path: Path) -> None:
    """At 25 requests in 4 s, 250 lines a second on two streams are spread; a stop is served."""
    with StrictGateway(rate_limit=(25, 4.0)) as gateway:
        options = ("100000", str(PER_SECOND), "--alternate")
        launch = plan(gateway, child("lines.py", *options), tmp_path, env=POLL_INTERVAL)
        with RunnerProcess(launch) as runner:
            # In the second window, when the runner knows the budget and has no head start.
            gateway.wait_for(lambda: len(gateway.requests) >= 25, 60)
            command_id = gateway.stop(launch.run.id)
            queued_at = max(each.at for each in gateway.requests)
            assert runner.wait(60) == 130

        run_id = launch.run.id
        assert list(gateway.acks(run_id)) == [command_id]
        last_line = gateway.text(run_id).splitlines()[-1]
        assert float(last_line.split()[1]) - queued_at <= KNOWN_WITHIN_S
        assert judge(gateway, run_id, alternate=True).problems == []
        assert len([each for each in gateway.requests if each.status == 429]) <= 2
        arrivals = [each.received_at for each in gateway.events(run_id)]
        assert max(b - a for a, b in zip(arrivals, arrivals[1:])) <= KNOWN_WITHIN_S


def test_an_end_when_the_minute_is_used_up(tmp_path: Path) -> None:
    """The budget keeps what an end needs: the gateway knows of it long before the next window."""
    with StrictGateway(rate_limit=(40, 60.0)) as gateway:
        options = ("100000", str(PER_SECOND), "--alternate")
        launch = plan(gateway, child("lines.py", *options), tmp_path, env=POLL_INTERVAL)
        gateway.use_up(32)

        def has_printed() -> None:
            assert launch.log.count(b"\n") > PER_SECOND

        with RunnerProcess(launch) as runner:
            eventually(has_printed, 60)
            runner.signal(signal.SIGTERM)
            assert runner.wait(90) == 130

        run_id = launch.run.id
        assert judge(gateway, run_id, alternate=True).problems == []
        child_ended_at = float(gateway.text(run_id).splitlines()[-1].split()[1])
        (finished,) = [each for each in gateway.events(run_id) if '"finished"' in each.data]
        assert finished.received_at - child_ended_at <= KNOWN_WITHIN_S


def test_runners_share_a_budget(tmp_path: Path) -> None:
    """Two runners behind one address come through on one budget, and none of them starves."""
    with StrictGateway(rate_limit=(40, 4.0)) as gateway:
        launches = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            command = child("lines.py", "1500", str(PER_SECOND))
            launches.append(plan(gateway, command, folder, env=POLL_INTERVAL))
        with contextlib.ExitStack() as stack:
            runners = [stack.enter_context(RunnerProcess(launch)) for launch in launches]
            assert [runner.wait(80) for runner in runners] == [0, 0]

        assert sum(each.status == 429 for each in gateway.requests) <= 6
        for launch in launches:
            assert judge(gateway, launch.run.id, last=1500).problems == []
            arrivals = [each.received_at for each in gateway.events(launch.run.id)]
            assert max(b - a for a, b in zip(arrivals, arrivals[1:])) <= KNOWN_WITHIN_S
