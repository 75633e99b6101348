"""What delivery has cost, told at the end of a run to who asked for everything."""

from __future__ import annotations

import re
from pathlib import Path

from runner.delivery_cost import DeliveryCost
from testing.gateways.faults import DropAfter, Fault
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import child, plan, run_to_end


def test_a_repeat_is_known_and_a_wait_is_no_delay() -> None:
    """By its nonce; a poll takes as long as it was asked to wait."""
    cost = DeliveryCost()
    cost.note("", 0, 0.1, waits=False)
    for nonce in ("a", "b", "a", "a"):
        cost.note(nonce, 100, 0.25, waits=False)
    cost.note("c", 0, 25.0, waits=True)

    expected = "6 requests with 400 bytes, 2 of them repeated; the longest took 0.2 s"
    assert str(cost) == expected


def test_the_last_line_of_a_traced_run(tmp_path: Path) -> None:
    """It has all requests of the run, and the event whose answer was lost is repeated."""
    with StrictGateway() as gw:
        gw.faults.add(Fault("event", DropAfter()))
        launch = plan(gw, child("lines.py", "3", "1000"), tmp_path, options=["-vv"])

        done = run_to_end(launch.argv, launch.env)

        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.decode().splitlines() if "delivery: " in line]
        (told,) = (re.search(r"(\d+) requests with (\d+) bytes, (\d+) of", each) for each in lines)
        assert told is not None
        requests, sent, repeats = map(int, told.groups())
        # The poll that the end breaks off may not have arrived.
        assert requests - len(gw.requests) in (0, 1)
        assert sent > 100
        assert repeats == 1
