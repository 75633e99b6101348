"""How the runner asks for commands: how often, and what becomes of an answer that is none."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from testing.gateways.faults import Fault, Huge, JsonError, RateLimited, Status
from testing.gateways.strict_gateway import RequestRecord, StrictGateway
from testing.waiting import eventually
from tests.runner.operated import WAITS_FOR_FILE, Runner, assert_in, polls

# That of testing/programs/runner.py.
POLL_INTERVAL_S = 0.1

# --- a gateway that is broken ------------------------------------------------------------------


def answer_polls(gateway: StrictGateway, content: object, times: int = 2) -> Fault:
    """Let the next polls be answered by this in the place of the gateway's list."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return gateway.faults.add(Fault("commands", Status(200, body, "application/json"), times=times))


def test_malformed_commands_are_dropped_counted_and_told(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """Ids that must not meet a path, and objects that are none, do nothing but count."""
    proof = tmp_path / "proof"
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS="./proof")
    runner.script("proof", f"open({str(proof)!r}, 'w')")
    ids: list[object] = [
        *("../x", "a/b", "a" * 51, "", " ", "a b", "é", "a\n", "\0", "%2e", "a?b", "..", "a.b"),
        *(7, 1.5, None, True, [], {}, ["a"]),
    ]
    items: list[object] = [{"id": each, "command": "./proof"} for each in ids]
    items += [{"command": "./proof"}, {"id": "no_command"}, {"id": "number", "command": 7}]
    items += [{"id": "list", "command": ["./proof"]}, {"id": "none", "command": None}]
    items += ["./proof", 7, None, [], [{"id": "nested", "command": "./proof"}]]

    with runner:
        fault = answer_polls(plain, items, times=3)
        plain.wait_for(lambda: fault.applied == 3)
        assert runner.execute("pwd")[0].result
        assert runner.events("error") == []

    assert not proof.exists()
    assert f"{len(items)} commands of the gateway were malformed and ignored" in runner.stderr
    assert [request for request in plain.requests if request.endpoint == "unknown"] == []


def test_answers_that_are_no_list_are_survived(plain: StrictGateway, tmp_path: Path) -> None:
    """Whatever the gateway answers, the runner lives on, tells once, and asks again."""
    contents: list[object] = [
        *({"commands": []}, "text", None, b"", b"\xff\xfe"),
        *(b"[" * 100_000, b"[" * 500 + b"]" * 500, b"[" + b" " * 2_000_000 + b"]"),
    ]
    with Runner(plain, tmp_path) as runner:
        for content in contents:
            fault = answer_polls(plain, content, times=1)
            plain.wait_for(lambda fault=fault: fault.applied == 1)  # type: ignore[misc]
            plain.faults.clear()
            # One answer that can be used, so that the pauses do not grow.
            before = len(polls(plain))
            plain.wait_for(lambda before=before: len(polls(plain)) > before)  # type: ignore[misc]
        assert runner.execute("pwd")[0].result

    told = "the gateway's answer to a poll is not a list of commands"
    assert runner.stderr.count(told) == 1


def test_a_gateway_that_asks_for_a_years_patience_does_not_delay_a_stop(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """What is no end of a window is asked again soon."""
    with Runner(plain, tmp_path) as runner:
        plain.faults.add(Fault("commands", RateLimited(retry_after_s=31_536_000), times=1))
        plain.wait_for(lambda: any(each.status == 429 for each in plain.requests), 30)
        plain.queue_command(runner.run.id, "__STOP__")
        runner.wait()


def test_an_endless_answer_and_one_command_too_many_are_survived(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """An answer without an end is broken off, and half a character does not end remote control.

    Nor does a command hold up the next one that the redaction would take minutes for.
    """
    slow = f"-----BEGIN {'RSA'} PRIVATE KEY-----\n" * 20_000
    with Runner(plain, tmp_path) as runner:
        fault = plain.faults.add(Fault("commands", Huge(), times=2))
        plain.wait_for(lambda: fault.applied == 2)
        broken = runner.execute("\ud83d", "./\udc00", slow)
        assert runner.execute("pwd")[0].result

        told = runner.events("error", len(broken))

    assert all("refused" in str(ack.error) for ack in broken)
    assert told[-1].startswith(f"Refused command: [{len(slow)} characters]: ")
    assert "remote control failed" not in runner.stderr


def test_escapes_of_the_gateway_are_shown_and_not_obeyed(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """No control character of the gateway's reaches the user's terminal, or comes back raw."""
    evil = "\x1b]0;owned\x07\x1b[2J\r\u202e\x9b31m"
    with Runner(plain, tmp_path) as runner:
        ack = runner.execute(f"pwd {evil}")[0]
        errors = runner.events("error", 1)
        refusal = f"Capability token mismatch {evil}"
        plain.faults.add(Fault("commands", JsonError(403, refusal), every=1))
        eventually(lambda: assert_in("refuses remote control", runner.stderr))

    assert "".join(errors) == (
        "Refused command: pwd \\x1b]0;owned\\x07\\x1b[2J\\r\\u202e\\x9b31m: "
        "it contains a line break or another control character"
    )
    assert (ack.error or "").isprintable()
    assert "\\x1b]0;owned" in runner.stderr
    assert all(line.isprintable() for line in runner.stderr.split("\n"))


def test_a_certificate_that_changes_does_not_end_remote_control(tmp_path: Path) -> None:
    """Commands of somebody else are not taken, and the thread that asks for them lives on."""
    with StrictGateway(rate_limit=None, tls=True) as gateway:
        first = gateway.authority.issue()
        gateway.use_certificate(first)
        with Runner(gateway, tmp_path, ALLOW_SELF_SIGNED="true") as runner:
            gateway.use_certificate(gateway.authority.issue())
            eventually(lambda: assert_in("is not the one that was trusted", runner.stderr))
            gateway.use_certificate(first)
            os.kill(runner.pid, signal.SIGTERM)
            # An event that was on its way just then is tried again after half a minute.
            runner.wait(60)

        assert "remote control failed" not in runner.stderr


# --- how often it asks -------------------------------------------------------------------------


def spacing_of(requests: list[RequestRecord]) -> list[float]:
    """Return the seconds between the arrivals of requests."""
    return [later.at - earlier.at for earlier, later in zip(requests, requests[1:])]


def test_plain_polls_keep_their_interval(plain: StrictGateway, tmp_path: Path) -> None:
    """With a gateway without long polls, one question an interval; also while a command runs."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", FIFO=str(fifo))
    runner.script("slow", WAITS_FOR_FILE)

    with runner:
        first = len(polls(plain))  # the one before is the check at the start
        plain.wait_for(lambda: len(polls(plain)) >= first + 5)
        (slow,) = runner.queue("./slow")
        runner.wait_for_event("info", "Executing command: ./slow")
        during = len(polls(plain))
        plain.wait_for(lambda: len(polls(plain)) >= during + 5)
        fifo.write_text("")
        runner.acks(slow)
        asked = polls(plain)[first:]

    assert min(spacing_of(asked)) >= POLL_INTERVAL_S * 0.9


def test_who_has_said_something_is_heard_again(tmp_path: Path) -> None:
    """On a budget that is nearly used up too, the next answer does not wait for the next window."""
    with (
        StrictGateway(rate_limit=(100, 60.0), long_poll=True) as gateway,
        Runner(gateway, tmp_path) as runner,
    ):
        gateway.use_up(75)
        for name in ("one", "two", "three"):
            assert "refused" in str(runner.execute(name)[0].error)


def test_a_long_poll_gets_a_command_at_once_and_is_no_flood(tmp_path: Path) -> None:
    """With long polls one question stays open, answered by a command; then there is a pause."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        runner = Runner(gateway, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", FIFO=str(fifo))
        runner.script("slow", WAITS_FOR_FILE)
        with runner:
            gateway.wait_for(lambda: polls(gateway)[-1].query == "wait=20")
            idle = len(polls(gateway))
            assert runner.execute("pwd")[0].result
            gateway.wait_for(lambda: len(polls(gateway)) > idle)
            assert len(polls(gateway)) <= idle + 2
            (slow,) = runner.queue("./slow")
            runner.wait_for_event("info", "Executing command: ./slow")
            during = len(polls(gateway))
            gateway.wait_for(lambda: len(polls(gateway)) >= during + 4)
            fifo.write_text("")
            runner.acks(slow)
            gateway.stop(runner.run.id)
            assert runner.wait() == 130

        assert min(spacing_of(polls(gateway)[during:])) >= POLL_INTERVAL_S * 0.9
