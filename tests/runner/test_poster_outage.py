"""The gateway goes away, lies, stutters, refuses or fails; nothing is lost or doubled by it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable

import pytest

from testing.gateways.faults import (
    Action,
    Delay,
    Drip,
    DropAfter,
    DropBefore,
    Fault,
    HalfAnswer,
    Hang,
    Html,
    Huge,
    JsonError,
    RateLimited,
    Request,
    Status,
)
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import CLAUDE, ROOT, Kind, Launch, RunnerProcess, child, plan, program
from testing.programs.terminal import Terminal
from testing.programs.verdict import committed, judge, sync
from testing.waiting import eventually

# Prints numbered lines at 100 a second, and after half of them waits for the file that argv names.
WAITS = """
import os, sys, time
for number in range(1, 201):
    print(f"{number} {time.monotonic():.6f}", flush=True)
    time.sleep(0.005)
    while number == 100 and not os.path.exists(sys.argv[-1]):
        time.sleep(0.01)
print("LAST", flush=True)
"""

# The runner with all its pauses shorter in the same proportion, and not otherwise: half a minute
# after a rejection is 2 s here. That the real ones are what they are is for test_poster.py.
HURRIED = """
import functools, sys
sys.path.insert(0, sys.argv.pop(1))
from runner import attempts
attempts.Pauses = functools.partial(attempts.Pauses, first_s=0.02, last_s=2.0, rejected_s=2.0)
import claude_runner
sys.exit(claude_runner.main())
"""


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway without a rate limit."""
    with StrictGateway(rate_limit=None) as gw:
        yield gw


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """A file that is not there; making it lets the child of `plan_waiting` go on."""
    return tmp_path / "go"


def plan_waiting(
    gateway: StrictGateway, folder: Path, env: dict[str, str] | None = None, kind: Kind = CLAUDE
) -> Launch:
    """Plan a run whose child prints 100 lines, waits for the file `go`, and prints 100 more."""
    return plan(gateway, program(WAITS), folder, prompt=str(folder / "go"), env=env, kind=kind)


def hurried(launch: Launch) -> Launch:
    """Let the runner pause less between two attempts."""
    return replace(launch, argv=[launch.argv[0], "-c", HURRIED, str(ROOT), *launch.argv[2:]])


def has_line(launch: Launch, number: int) -> Callable[[], None]:
    """Return an assertion that the run's journal has a line."""

    def check() -> None:
        assert re.search(rf"(?m)^{number} .*\n", committed(launch))

    return check


def carries(text: bytes) -> Callable[[Request], bool]:
    """Return a predicate for the events that carry a text."""
    return lambda request: request.endpoint == "event" and text in request.body


ANSWERS: dict[str, Action] = {
    "hangs": Hang(),
    "hangs after it stored": Hang(after="stored"),
    "503": Status(503, b"Service Unavailable"),
    "503 after it stored": Status(503, b"Service Unavailable", after="stored"),
    "html": Html(502),
    "html 200": Html(200),
    "half an answer": HalfAnswer(),
    "reset": DropBefore(reset=True),
    "reset after it stored": DropAfter(reset=True),
    "drips": Drip(after="stored"),
    "drips its head": Drip("head"),
    "does not end": Huge(after="stored"),
}


# --- outages --------------------------------------------------------------------------------------


def test_gateway_is_away_during_the_run(
    gateway: StrictGateway, tmp_path: Path, go: Path, kind: Kind
) -> None:
    """While the gateway is gone the child goes on, and what it printed is delivered after it."""
    launch = plan_waiting(gateway, tmp_path, kind=kind)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        gateway.pause()
        eventually(has_line(launch, 100))
        go.touch()
        eventually(has_line(launch, 150))
        gateway.resume()
        assert runner.wait() == 0

        assert judge(gateway, launch.run.id, last=200, files=[kind.log_name]).problems == []
        assert runner.stderr.count("cannot be reached") == 1
        assert runner.stderr.count("the gateway is back") == 1


def test_gateway_is_away_at_the_end(gateway: StrictGateway, tmp_path: Path, kind: Kind) -> None:
    """An outage across the run's end only delays the end; the exit code is the child's own."""
    source = "import sys\nprint('1 1.000000', flush=True)\ninput()\nsys.exit(3)"
    launch = plan(gateway, program(source.replace("input()", "")), tmp_path, kind=kind)
    fault = gateway.faults.add(Fault("event", Html(503), every=1))
    with RunnerProcess(launch) as runner:
        gateway.wait_for(lambda: fault.applied >= 1)
        gateway.pause()
        gateway.faults.clear()

        def says_so() -> None:
            assert "cannot be reached" in runner.stderr

        eventually(says_so)
        gateway.resume()
        assert runner.wait() == 3

    assert judge(gateway, launch.run.id, last=1, files=[kind.log_name]).problems == []
    assert gateway.exit_code(launch.run.id) == 3


def test_what_is_left_at_the_end_is_told(
    gateway: StrictGateway, tmp_path: Path, kind: Kind
) -> None:
    """When the drain gives up, the user is told how much is left, where, and how to send it."""
    launch = plan(
        gateway,
        child("lines.py", "50", "0"),
        tmp_path,
        env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": "0.5"},
        kind=kind,
    )
    gateway.faults.add(Fault("event", Html(503), every=1))
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0

        assert re.search(r"\d+ \w+ of output are not delivered", runner.stderr), runner.stderr
        assert f"{kind.program} sync" in runner.stderr
        assert str(launch.run_dir) in runner.stderr
    assert gateway.events(launch.run.id) == []
    gateway.faults.clear()
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id, last=50, files=[kind.log_name]).problems == []


def test_what_is_left_is_shown_on_a_terminal(gateway: StrictGateway, tmp_path: Path) -> None:
    """A person who waits for the end of the delivery sees that, and how much is left."""
    launch = hurried(plan_waiting(gateway, tmp_path))
    with Terminal(launch.argv, env=launch.env) as terminal:
        launch.expect(r"(?m)^100 .*\n")
        gateway.pause()
        (tmp_path / "go").touch()
        terminal.expect(b"LAST")
        shown = terminal.expect(b" of output ", 20.0)
        assert re.search(rb"\r\x1b\[Kdelivering \d[\d.]* K?B of output $", shown), shown
        gateway.resume()
        assert terminal.wait(30.0) == 0
        assert terminal.output.endswith(b"\r\x1b[K"), terminal.output[-200:]
    assert judge(gateway, launch.run.id, last=200).problems == []


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_say_nothing(gateway: StrictGateway, tmp_path: Path, name: str) -> None:
    """An answer that is not the gateway's own is followed by the same attempt, again and again."""
    action = ANSWERS[name]
    launch = plan(gateway, child("lines.py", "60", "200"), tmp_path)
    faults = [
        gateway.faults.add(Fault(carries(b"20 "), action)),
        gateway.faults.add(Fault(carries(b"finished"), action)),
        gateway.faults.add(Fault("artifact", action)),
    ]
    with RunnerProcess(launch) as runner:
        for fault in faults:
            gateway.wait_for(partial(getattr, fault, "applied"), 30)
            if isinstance(action, (Hang, Drip)):
                # The connection ends, as with a gateway that is restarted; not after 30 s.
                gateway.faults.remove(fault)
                gateway.drop_connections()
        assert runner.wait(30) == 0

    assert judge(gateway, launch.run.id, last=60).problems == []


def test_lost_answers_and_lost_requests(gateway: StrictGateway, tmp_path: Path, kind: Kind) -> None:
    """With every fourth answer and every seventh request lost nothing is doubled or missing."""
    launch = plan(gateway, child("lines.py", "600", "200", "--alternate"), tmp_path, kind=kind)
    gateway.faults.add(Fault("*", DropAfter(), every=4))
    gateway.faults.add(Fault("*", DropBefore(), every=7))
    with RunnerProcess(launch) as runner:
        assert runner.wait(60) == 0

    files = [kind.log_name]
    assert judge(gateway, launch.run.id, last=600, alternate=True, files=files).problems == []
    lost = [each for each in gateway.requests if each.fault]
    assert len(lost) >= 5


# --- limits and clocks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after_s", "with_rate_headers"),
    [(1, True), (1, False), (None, False)],
    ids=["with headers", "retry-after alone", "without a word"],
)
def test_rate_limited(tmp_path: Path, retry_after_s: int | None, with_rate_headers: bool) -> None:
    """After a 429 the frozen attempt is repeated when the gateway said, or a little later."""
    with StrictGateway(rate_limit=(1000, 2.0), rate_headers=with_rate_headers) as gateway:
        launch = plan(gateway, child("lines.py", "180", "60"), tmp_path)
        fault = Fault("event", RateLimited(retry_after_s, with_rate_headers), every=3, times=2)
        gateway.faults.add(fault)
        with RunnerProcess(launch) as runner:
            assert runner.wait(30) == 0

        assert fault.applied == 2
        assert judge(gateway, launch.run.id, last=180).problems == []
        refused = [each for each in gateway.requests if each.status == 429]
        for each in refused:
            copies = [r for r in gateway.requests if r.nonce == each.nonce]
            assert len(copies) == 2
            assert {r.body_sha256 for r in copies} == {each.body_sha256}


def test_limited_by_somebody_else(gateway: StrictGateway, tmp_path: Path) -> None:
    """A 429 without headers says nothing about the gateway's own budget, which is not used up."""
    gateway.rate_limit = (1000, 60.0)
    launch = plan(gateway, child("lines.py", "100", "100"), tmp_path)
    gateway.faults.add(Fault(carries(b"20 "), RateLimited(None, with_rate_headers=False)))
    with RunnerProcess(launch) as runner:
        assert runner.wait(20) == 0

    assert judge(gateway, launch.run.id, last=100).problems == []


def test_clock_jump(tmp_path: Path) -> None:
    """When the gateway's clock jumps out of range and back, output waits, and comes."""
    with StrictGateway(rate_limit=None) as gateway:
        launch = hurried(plan_waiting(gateway, tmp_path))
        with RunnerProcess(launch) as runner:
            launch.expect(r"(?m)^100 .*\n")
            gateway.clock_offset_s = 400.0
            (tmp_path / "go").touch()
            gateway.wait_for(lambda: any(r.status == 401 for r in gateway.requests))

            def is_told() -> None:
                assert "no longer accepts this run" in runner.stderr

            eventually(is_told)
            gateway.clock_offset_s = 0.0
            assert runner.wait(60) == 0

            assert runner.stderr.count("no longer accepts this run") == 1
        assert judge(gateway, launch.run.id, last=200).problems == []


def test_new_nonce_store(gateway: StrictGateway, tmp_path: Path) -> None:
    """A gateway that forgets its nonces while all is answered costs nothing."""
    launch = plan_waiting(gateway, tmp_path)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        gateway.forget_nonces()
        (tmp_path / "go").touch()
        assert runner.wait() == 0

    assert judge(gateway, launch.run.id, last=200).problems == []


@pytest.mark.parametrize("idempotent", [False, True])
def test_new_nonce_store_and_a_lost_answer(tmp_path: Path, idempotent: bool) -> None:
    """The stated exception: lost nonces and a lost answer double an event, unless idempotent."""
    with StrictGateway(rate_limit=None, idempotent=idempotent) as gateway:
        gateway.allow("wrong sequence")
        launch = plan(gateway, child("lines.py", "1", "0"), tmp_path)
        fault = gateway.faults.add(Fault(carries(b"LAST"), Hang(after="stored")))
        with RunnerProcess(launch) as runner:
            gateway.wait_for(lambda: "LAST" in gateway.text(launch.run.id))
            gateway.forget_nonces()
            gateway.faults.remove(fault)
            assert runner.wait() == 0

        assert gateway.text(launch.run.id).count("LAST") == (1 if idempotent else 2)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 8))
def test_ill_gateway(gateway: StrictGateway, tmp_path: Path, count: int) -> None:
    """A gateway that fails on everything, and recovers at any moment, has nothing set aside."""
    launch = plan(gateway, child("lines.py", "5", "0"), tmp_path)
    launch = launch if count == 4 else hurried(launch)
    with RunnerProcess(launch) as runner:
        gateway.wait_for(lambda: gateway.requests)
        failing = Fault("event", JsonError(500, after="nonce"), every=1)
        gateway.faults.add(failing)
        gateway.wait_for(lambda: failing.applied >= 1)
        gateway.faults.add(Fault("commands", JsonError(500, after="nonce"), every=1))
        gateway.wait_for(lambda: sum(r.status == 500 for r in gateway.requests) >= count, 40)
        gateway.faults.clear()
        assert runner.wait(60) == 0

    assert judge(gateway, launch.run.id, last=5).problems == []
    assert gateway.events(launch.run.id, "error") == []


def test_one_failure_after_an_outage(gateway: StrictGateway, tmp_path: Path) -> None:
    """One 500 after a long outage is no reason to set an event aside."""
    launch = hurried(plan(gateway, child("lines.py", "1", "0"), tmp_path))
    gateway.faults.add(Fault(carries(b"LAST"), Html(502), times=4))
    gateway.faults.add(Fault(carries(b"LAST"), JsonError(500, after="nonce")))
    with RunnerProcess(launch) as runner:
        assert runner.wait(30) == 0

    assert judge(gateway, launch.run.id, last=1).problems == []
    assert gateway.events(launch.run.id, "error") == []


@pytest.mark.parametrize("status", [400, 413, 500])
def test_poisoned_event(gateway: StrictGateway, tmp_path: Path, status: int) -> None:
    """What the gateway never takes is cut out, told in its place, counted and told at the end."""
    launch = hurried(plan(gateway, child("lines.py", "3", "0"), tmp_path))
    gateway.faults.add(
        Fault(lambda r: carries(b"LAST")(r), JsonError(status, "no", after="nonce"), every=1)
    )
    with RunnerProcess(launch) as runner:
        assert runner.wait(60) == 0

        assert "1 event was rejected by the gateway" in runner.stderr
    notices = [each.data for each in gateway.events(launch.run.id, "error")]
    assert len(notices) == 1
    assert re.fullmatch(r"1 event of [0-9]+ bytes was refused by the gateway", notices[0])
    assert gateway.markers(launch.run.id, "finished")[0]["refused"] == 1
    assert gateway.verify_finished(launch.run.id) == []


def test_poison_in_a_large_event(gateway: StrictGateway, tmp_path: Path) -> None:
    """Of a merged event only the chunk with the poison is set aside; all the rest arrives."""
    launch = plan(gateway, child("lines.py", "20000", "0", "--pad", "20"), tmp_path)
    poison = "10000 "
    gateway.faults.add(
        Fault(carries(f"\\n{poison}".encode()), JsonError(400, "no", after="nonce"), every=1)
    )
    with RunnerProcess(launch) as runner:
        assert runner.wait(60) == 0

    run_id = launch.run.id
    notices = [each.data for each in gateway.events(run_id, "error")]
    refused = sum(int(re.findall(r"of ([0-9]+) bytes", each)[0]) for each in notices)
    assert len(notices) == 1
    assert refused <= 16_384
    whole = launch.log.decode()
    assert len(gateway.text(run_id)) + refused == len(whole)
    assert poison not in gateway.text(run_id).splitlines()
    assert gateway.verify_finished(run_id) == []


def test_body_limit_of_a_proxy(gateway: StrictGateway, tmp_path: Path) -> None:
    """A proxy's limit is learned from its 413 and remembered: it is met a few times."""
    with LoopbackProxy(gateway.url, body_limit_bytes=200_000) as proxy:
        launch = plan(
            gateway,
            child("floods.py", "4"),
            tmp_path,
            env={"GATEWAY_URL": proxy.url},
        )

        def all_is_kept() -> None:
            assert len(committed(launch)) == 4_000_000

        held = gateway.faults.add(Fault("event", Delay(60)))
        with RunnerProcess(launch) as runner:
            eventually(all_is_kept, within_s=30)
            gateway.faults.remove(held)  # what gathered meanwhile goes out in the largest events
            assert runner.wait(60) == 0

        refused = [r for r in proxy.requests if r.status == 413 and "event" in r.target]
    assert 1 <= len(refused) <= 6
    assert gateway.text(launch.run.id) == launch.log.decode()
    assert gateway.events(launch.run.id, "error") == []
    assert gateway.verify_finished(launch.run.id) == []


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_in_the_run(gateway: StrictGateway, tmp_path: Path, status: int) -> None:
    """A wrong secret or token in mid-run is told once, tried slowly, and costs nothing."""
    launch = plan_waiting(gateway, tmp_path, env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": "1"})
    error = "Invalid signature" if status == 401 else "Capability token mismatch"
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        fault = gateway.faults.add(Fault("event", JsonError(status, error), every=1))
        (tmp_path / "go").touch()
        assert runner.wait(30) == 0

        assert runner.stderr.count("no longer accepts this run") == 1
        assert "claude-runner sync" in runner.stderr
    assert fault.applied == 1
    gateway.faults.clear()
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id, last=200).problems == []


def test_rejected_files_are_kept(gateway: StrictGateway, tmp_path: Path) -> None:
    """A file that the gateway fails on is left to sync and not given up."""
    launch = plan(
        gateway, child("lines.py", "3", "0"), tmp_path, env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": "2"}
    )
    launch = hurried(launch)
    gateway.faults.add(Fault("artifact", JsonError(500, after="nonce"), every=1))
    with RunnerProcess(launch) as runner:
        assert runner.wait(30) == 0

        assert "claude.log is not delivered" in runner.stderr
    gateway.faults.clear()
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id, last=3).problems == []
