"""The poster against a strict gateway that does everything wrong: nothing lost, nothing doubled."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from gateway_client import Clock, Credentials, GatewayClient
from gateway_transport import PinStore
from journal.spool import FilePart, Spool
from redact import Rules
from runner.attempts import Pacer, Pauses
from runner.mailbox import CertificateRefused, WorkerEnded, WorkerFailed
from runner.poster import Poster
from runner.upload import file_parts
from testing.gateways.certificates import self_signed
from testing.gateways.faults import (
    Action,
    Delay,
    DropAfter,
    DropBefore,
    Exchange,
    Fault,
    HalfAnswer,
    Hang,
    Html,
    JsonError,
    RateLimited,
    Request,
    Status,
)
from testing.gateways.gateway_records import AnyGateway
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.strict_gateway import Run, StrictGateway
from testing.programs.disk import nothing_is_written
from testing.waiting import eventually

pytestmark = pytest.mark.gateway_pairs

FAULTS = pytest.mark.strict_only("it needs the fault script")
TLS = pytest.mark.strict_only("it changes the certificate")

WITHIN_S = 20.0
# The same order of pauses as in life, in hundredths.
SHORT = Pauses(first_s=0.002, last_s=0.02, rejected_s=0.02)
RULES = Rules()
G = TypeVar("G", bound=AnyGateway)
END = {"event": "finished", "exitCode": 0, "reason": "exited"}


@dataclass
class _Time:
    """A clock that a test can put forward."""

    ahead_s: float = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: time.time() + self.ahead_s, lambda: time.monotonic() + self.ahead_s)


@dataclass
class _Bench(Generic[G]):
    """A gateway, a journal and a poster between them."""

    gateway: G
    run: Run
    spool: Spool
    poster: Poster
    client: GatewayClient
    told: list[str]
    ends: list[CertificateRefused | WorkerFailed | WorkerEnded]
    time: _Time
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def append(self, text: str, stream: str = "stdout") -> None:
        self.spool.append(stream, RULES.redact(text))

    def print_lines(self, count: int) -> str:
        """Append so many numbered lines; return them."""
        lines = [f"line {next(self.numbers)}\n" for _ in range(count)]
        for line in lines:
            self.append(line)
        return "".join(lines)

    def expect_text(self, text: str, within_s: float = WITHIN_S) -> None:
        """Wait until the gateway has exactly this, and no notice of anything."""
        self.gateway.wait_for(lambda: len(self.gateway.text(self.run.id)) >= len(text), within_s)
        assert self.gateway.text(self.run.id) == text

    def finish(self, *parts: FilePart) -> None:
        """End the run, and judge what the gateway has by its own record."""
        self.spool.record_end(END, parts)
        self.poster.finish()
        eventually(self.assert_done, WITHIN_S)
        assert [end for end in self.ends if isinstance(end, WorkerEnded)] == [WorkerEnded("poster")]
        assert self.poster.is_done
        assert self.gateway.verify_finished(self.run.id) == []
        assert len(self.gateway.markers(self.run.id, "finished")) == 1

    def assert_done(self) -> None:
        assert WorkerEnded("poster") in self.ends

    def assert_failed(self) -> None:
        assert [type(each) for each in self.ends] == [WorkerFailed]

    def expect_told(self, part: str) -> None:
        """Wait until the user was told something."""

        def is_told() -> None:
            assert any(part in each for each in self.told), self.told

        eventually(is_told, WITHIN_S)

    def expect_told_times(self, count: int) -> None:
        """Wait until the user was told so many things."""

        def are_told() -> None:
            assert len(self.told) == count, self.told

        eventually(are_told, WITHIN_S)


@contextmanager
def bench(
    tmp_path: Path, pins: Path | None = None, **options: Any
) -> Iterator[_Bench[StrictGateway]]:
    """Start a poster for a run of a new strict gateway; it is stopped at the end of the block."""
    options.setdefault("rate_limit", None)
    with ExitStack() as stack:
        gateway = stack.enter_context(StrictGateway(**options))
        yield stack.enter_context(poster(tmp_path, gateway, gateway.create_run(), pins=pins))


@contextmanager
def poster(
    tmp_path: Path, gateway: G, run: Run, url: str = "", pins: Path | None = None
) -> Iterator[_Bench[G]]:
    """Start a poster on the journal in the folder; it is stopped at the end of the block."""
    times = _Time()
    told: list[str] = []
    ends: list[CertificateRefused | WorkerFailed | WorkerEnded] = []
    client = GatewayClient(
        url or gateway.url,
        Credentials(gateway.secret, run.id, run.token),
        pins=None if pins is None else PinStore(pins, told.append),
        clock=times.clock(),
    )
    spool = Spool(tmp_path / "spool.db", redact=RULES.redact)
    poster = Poster(
        client,
        spool,
        tmp_path,
        Pacer(),
        RULES,
        tell=told.append,
        tell_owner=ends.append,
        pauses=SHORT,
    )
    poster.start()
    try:
        yield _Bench(gateway, run, spool, poster, client, told, ends, times)
    finally:
        poster.give_up()
        poster.join(WITHIN_S)
        spool.close()


# --- once, whatever is lost ------------------------------------------------------------------


@pytest.mark.both_gateways
def test_a_quiet_run_is_delivered_in_order(gw: AnyGateway, tmp_path: Path) -> None:
    """Markers, both streams and messages arrive, and `finished` after all of them."""
    with poster(tmp_path, gw, gw.create_run()) as b:
        b.append('{"event":"started"}', "marker")
        text = b.print_lines(3)
        b.append("careful\n", "stderr")
        b.append("Executing command: pwd", "info")
        b.finish()

        types = [each.type for each in b.gateway.events(b.run.id)]
        assert types[0] == types[-1] == "marker"
        assert b.gateway.text(b.run.id) == text
        assert b.gateway.text(b.run.id, "stderr") == "careful\n"
        assert b.gateway.status(b.run.id) == "done"
        assert b.told == []


def test_output_gathers_behind_a_large_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a small event nothing waits; behind a large one all that comes goes together."""
    monkeypatch.setattr("runner.poster._GATHERING_S", 4 * WITHIN_S)
    with bench(tmp_path) as b:
        text = b.print_lines(1)
        b.expect_text(text)
        text += b.print_lines(1)
        b.expect_text(text)
        large = "." * 50_000 + "\n"
        b.append(large)
        b.expect_text(text + large)
        behind = b.print_lines(1) + b.print_lines(1)
        b.finish()

        sizes = [len(each.data) for each in b.gateway.events(b.run.id, "stdout")]
        assert sizes == [7, 7, len(large), len(behind)]
        assert b.gateway.text(b.run.id) == text + large + behind


@FAULTS
def test_lost_requests_and_lost_answers_neither_lose_nor_double(tmp_path: Path) -> None:
    """Every fourth answer and every seventh request is lost, and each line is there once."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", DropBefore(), every=7))
        b.gateway.faults.add(Fault("event", DropAfter(), every=4))
        text = ""
        for _ in range(25):
            text += b.print_lines(4)
            b.expect_text(text)
        b.finish()

        assert b.gateway.text(b.run.id) == text


@pytest.mark.parametrize(
    "make_action",
    [
        DropBefore,
        lambda: DropBefore(reset=True),
        DropAfter,
        lambda: DropAfter(reset=True),
        HalfAnswer,
        lambda: Html(502),
        lambda: Html(502, after="stored"),
        lambda: Html(503),
        lambda: Html(200, after="stored"),
        lambda: Html(403),
        lambda: Status(200, b"[]", "application/json"),
        lambda: Status(200, b'{"status":"ok"}', "application/json"),
        lambda: Status(401, b'{"error":"log in first"}', "application/json", after="stored"),
        lambda: Hang(seconds=0.01, after="stored"),
        lambda: RateLimited(retry_after_s=None, with_rate_headers=False),
    ],
    ids=[
        "drop-before",
        "reset-before",
        "drop-after",
        "reset-after",
        "half-answer",
        "502",
        "502-stored",
        "503",
        "200-html-stored",
        "403-html",
        "200-list",
        "200-load-balancer",
        "401-of-a-login-page-stored",
        "hang-stored",
        "429-html",
    ],
)
@FAULTS
def test_an_outage_of_any_kind_is_survived(make_action: Any, tmp_path: Path) -> None:
    """Whatever comes in the place of an answer, the event arrives once and nothing is set aside."""
    with bench(tmp_path) as b:
        times = 1 if isinstance(make_action(), RateLimited) else 3
        b.gateway.faults.add(Fault("event", make_action(), times=times))

        text = b.print_lines(2)
        b.expect_text(text)
        text += b.print_lines(2)
        b.finish()

        assert b.gateway.text(b.run.id) == text
        assert b.gateway.events(b.run.id, "error") == []


@pytest.mark.own_gateway
def test_an_outage_is_told_once_and_its_end_too(gw: AnyGateway, tmp_path: Path) -> None:
    """A gateway that goes away and comes back twice is told four times, in plain words."""
    with poster(tmp_path, gw, gw.create_run()) as b:
        text = ""
        for number in (1, 2):
            b.gateway.pause()
            text += b.print_lines(3)
            b.expect_told_times(2 * number - 1)
            b.gateway.resume()
            b.expect_text(text)
            b.expect_told_times(2 * number)
        b.finish()

        away = (
            "the gateway cannot be reached (the connection was refused); output is kept, and sent "
            "when it answers again"
        )
        back = "the gateway is back; sending what was kept"
        assert b.told == [away, back] * 2


@pytest.mark.own_gateway
def test_output_during_an_outage_is_merged(gw: AnyGateway, tmp_path: Path) -> None:
    """What gathered while nothing could be sent goes out in few, large events."""
    with poster(tmp_path, gw, gw.create_run()) as b:
        b.gateway.pause()
        text = b.print_lines(500)
        b.gateway.resume()
        b.finish()

        assert b.gateway.text(b.run.id) == text
        assert len(b.gateway.events(b.run.id, "stdout")) <= 3


@FAULTS
def test_another_process_repeats_the_same_attempt(tmp_path: Path) -> None:
    """An event whose answer was lost with the runner is not sent again under another nonce."""
    with StrictGateway(rate_limit=None) as gw:
        run = gw.create_run()
        gw.faults.add(Fault("event", DropAfter(), every=1))
        with poster(tmp_path, gw, run) as b:
            text = b.print_lines(1)
            gw.wait_for(lambda: len(gw.requests) >= 2)
        gw.faults.clear()
        with poster(tmp_path, gw, run) as b:
            b.finish()

        assert gw.text(run.id) == text
        assert len({each.nonce for each in gw.requests}) == 2, "the event, and `finished`"


@FAULTS
def test_an_attempt_too_old_is_signed_afresh_and_not_before(tmp_path: Path) -> None:
    """From 280 s nothing is sent, and from 310 s on the same text goes out under a new nonce."""
    with bench(tmp_path) as b:
        fault = b.gateway.faults.add(Fault("event", DropBefore(), every=1))
        text = b.print_lines(1)
        b.gateway.wait_for(lambda: len(b.gateway.requests) >= 2)
        b.time.ahead_s = b.gateway.clock_offset_s = 285.0
        # Let what is under way end; after that nothing comes.
        b.expect_told("cannot be reached")
        b.gateway.wait_for(lambda: fault.applied == len(b.gateway.requests))
        quiet = b.spool.cut(0, "unused")
        b.time.ahead_s = b.gateway.clock_offset_s = 315.0
        b.gateway.faults.clear()
        b.finish()

        assert quiet is not None
        assert b.gateway.text(b.run.id) == text
        first, last = b.gateway.requests[0], b.gateway.requests[-1]
        assert first.nonce == quiet.nonce
        assert int(last.headers["x-timestamp"]) - int(first.headers["x-timestamp"]) >= 310


@FAULTS
def test_a_gateway_that_lost_its_nonces_doubles_nothing_that_was_answered(tmp_path: Path) -> None:
    """A restart with an empty nonce store is harmless for events whose answer came."""
    with bench(tmp_path) as b:
        text = b.print_lines(2)
        b.expect_text(text)
        b.gateway.forget_nonces()
        text += b.print_lines(2)
        b.finish()

        assert b.gateway.text(b.run.id) == text


# --- refusals --------------------------------------------------------------------------------


@FAULTS
def test_a_poisoned_event_is_found_and_told(tmp_path: Path) -> None:
    """Of many lines the one that the gateway refuses is replaced by a notice, and no other."""
    with bench(tmp_path) as b:
        b.gateway.pause()
        before = b.print_lines(40)
        b.append("poison\n")
        after = b.print_lines(40)
        b.gateway.faults.add(Fault(_holds(b"poison"), JsonError(400, "no thanks"), every=1))
        b.gateway.resume()
        b.finish()

        assert b.gateway.text(b.run.id) == before + after
        (notice,) = b.gateway.events(b.run.id, "error")
        assert notice.data == "1 event of 7 bytes was refused by the gateway"
        assert b.gateway.markers(b.run.id, "finished")[0]["refused"] == 1
        assert (
            b.told[-1] == "1 event was rejected by the gateway and left out; the log has the output"
        )
        refusals = [each for each in b.gateway.requests if each.status == 400]
        assert len(refusals) <= 8, "81 chunks are halved, not tried one by one"


@FAULTS
def test_an_event_that_the_gateway_fails_on_is_tried_again_first(tmp_path: Path) -> None:
    """A few 500s are a hiccup: each attempt is signed afresh, and nothing is set aside."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", JsonError(500, after="nonce"), times=3))
        text = b.print_lines(1)
        b.finish()

        assert b.gateway.text(b.run.id) == text
        assert b.gateway.events(b.run.id, "error") == []


@FAULTS
def test_a_500_after_an_outage_is_a_first_failure(tmp_path: Path) -> None:
    """Attempts that nobody answered do not count against the event."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", Html(502), times=6))
        b.gateway.faults.add(Fault("event", JsonError(500), times=2))
        text = b.print_lines(1)
        b.finish()

        assert b.gateway.text(b.run.id) == text
        assert b.gateway.events(b.run.id, "error") == []


@FAULTS
def test_an_event_that_keeps_failing_with_500_is_set_aside(tmp_path: Path) -> None:
    """One bad event does not block the rest for ever."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault(_holds(b"poison"), JsonError(500), every=1))
        text = b.print_lines(2)
        b.append("poison\n")
        text += b.print_lines(2)
        b.finish()

        assert b.gateway.text(b.run.id) == text
        assert [each.data for each in b.gateway.events(b.run.id, "error")] == [
            "1 event of 7 bytes was refused by the gateway"
        ]


@pytest.mark.parametrize("code", [400, 500])
@FAULTS
def test_an_ill_gateway_sets_nothing_aside(code: int, tmp_path: Path) -> None:
    """A gateway that refuses everything, the notice too, is waited for; then all of it arrives."""
    with bench(tmp_path) as b:
        # Ill until a notice was refused as well: after a 400 that is the second event, after a
        # 500 the sixth, for before the notice the gateway is asked whether it is well otherwise.
        b.gateway.faults.add(Fault("event", JsonError(code), times=2 if code == 400 else 6))
        text = b.print_lines(1)
        b.expect_told("the gateway rejects every event (")
        b.expect_told("the gateway is back")
        text += b.print_lines(5)
        b.finish()

        assert b.gateway.text(b.run.id) == text
        assert b.gateway.events(b.run.id, "error") == []
        assert len(b.told) == 2


@pytest.mark.own_gateway
def test_a_body_limit_is_found_and_remembered(gw: AnyGateway, tmp_path: Path) -> None:
    """After a 413 the events are halved until they pass, and no later one is over the size."""
    run = gw.create_run()
    with ExitStack() as stack:
        proxy = stack.enter_context(LoopbackProxy(gw.url, body_limit_bytes=60_000))
        through = stack.enter_context(poster(tmp_path, gw, run, proxy.url))
        gw.pause()
        lines = 40 * ("x" * 9_999 + "\n")
        for start in range(0, len(lines), 10_000):
            through.append(lines[start : start + 10_000])
        gw.resume()
        through.expect_text(lines)
        refused = [each for each in proxy.requests if each.status == 413]
        for start in range(0, len(lines), 10_000):
            through.append(lines[start : start + 10_000])
        through.finish()

        assert gw.text(through.run.id) == lines * 2
        assert len([each for each in proxy.requests if each.status == 413]) == len(refused)
        assert 1 <= len(refused) <= 4


@FAULTS
def test_a_large_event_with_escapes_stays_within_the_limit_after_a_413(tmp_path: Path) -> None:
    """The limit is one of bytes as they are sent, which are six for an escape character."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", JsonError(413), times=1))
        b.gateway.pause()
        text = ("\x1b" * 999 + "\n") * 1_500
        for start in range(0, len(text), 50_000):
            b.append(text[start : start + 50_000])
        b.gateway.resume()
        b.finish()

        assert b.gateway.text(b.run.id) == text


@pytest.mark.parametrize(
    "error",
    [
        (401, "Invalid signature"),
        (401, "Request timestamp out of allowed range"),
        (403, "Invalid capability token for run"),
    ],
)
@FAULTS
def test_a_rejection_in_mid_run_is_told_once_and_survived(
    error: tuple[int, str], tmp_path: Path
) -> None:
    """Output is kept while the gateway does not accept the run, and sent when it does again."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", JsonError(*error), times=4))
        text = b.print_lines(3)
        b.expect_text(text)
        b.finish()

        rejected = (
            f"the gateway no longer accepts this run ({error[1]}); output is kept, "
            "retrying every 30 s"
        )
        assert b.told == [rejected, "the gateway is back; sending what was kept"]


@TLS
def test_a_changed_certificate_is_told_and_gets_nothing(tmp_path: Path) -> None:
    """Somebody who listens in the middle of a run gets no output; the right gateway does again."""
    first = self_signed()
    with bench(tmp_path, pins=tmp_path / "pins.json", tls=first) as b:
        text = b.print_lines(1)
        b.expect_text(text)
        requests = len(b.gateway.requests)
        b.gateway.use_certificate(self_signed())
        text += b.print_lines(1)
        b.expect_told("is not the one that was trusted before")
        assert len(b.gateway.requests) == requests
        b.gateway.use_certificate(first)
        b.finish()

        assert b.gateway.text(b.run.id) == text


# --- the end ---------------------------------------------------------------------------------


@FAULTS
def test_stopping_leaves_the_rest_in_the_journal(tmp_path: Path) -> None:
    """A stop in an outage ends the thread at once, and what was not sent is still there."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", Hang(), every=1))
        text = b.print_lines(3)
        b.gateway.wait_for(lambda: b.gateway.requests and b.gateway.requests[-1].fault)

        b.spool.record_end(END, [])
        b.poster.finish()
        b.poster.give_up()
        eventually(b.assert_done, WITHIN_S)

        assert not b.poster.is_done
        assert b.spool.pending_bytes() == len(text)
        assert not b.spool.is_ended


@FAULTS
def test_stopping_notes_an_answer_that_is_coming(tmp_path: Path) -> None:
    """A stop does not throw away what the gateway is just about to say."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", Delay(0.2, after="stored")))
        text = b.print_lines(1)
        b.gateway.wait_for(lambda: b.gateway.text(b.run.id) == text)

        b.poster.give_up()

        assert not b.spool.has_pending


def test_finish_is_heard_by_a_poster_that_is_just_going_to_wait(
    gw: AnyGateway, tmp_path: Path
) -> None:
    """The end is never slept through, whatever the poster is doing when it comes."""
    for number in range(30):
        (tmp_path / str(number)).mkdir()
        with poster(tmp_path / str(number), gw, gw.create_run()) as b:
            b.print_lines(1)
            b.finish()


@FAULTS
def test_files_follow_and_are_repeated_until_they_are_there(tmp_path: Path) -> None:
    """An upload whose answer is lost, limited or failed comes once; a refused one is told."""
    for name in ("claude.log", "b.txt", "c.md"):
        (tmp_path / name).write_text(f"the content of {name}")
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("artifact", DropAfter()))
        b.gateway.faults.add(Fault("artifact", DropBefore()))
        b.gateway.faults.add(Fault("artifact", JsonError(500, after="nonce")))
        b.gateway.faults.add(Fault(_holds(b"of c.md"), JsonError(400, "No file"), every=1))
        names = ("claude.log", "b.txt", "c.md")
        parts = [part for name in names for part in file_parts(tmp_path, name, name)]
        b.finish(*parts, FilePart("missing.log", "missing.log", 0, 9))

        assert [each.name for each in b.gateway.artifacts(b.run.id)] == ["claude.log", "b.txt"]
        assert b.told == [
            "c.md is not uploaded: the gateway refused it (No file)",
            "missing.log is not uploaded: it no longer exists",
        ]


class _ChangeCertificate(Action):
    """The gateway comes back with another certificate."""

    def __init__(self, gateway: StrictGateway) -> None:
        self._gateway = gateway

    def apply(self, exchange: Exchange) -> None:
        """Play the fault."""
        self._gateway.use_certificate(self_signed())
        exchange.close()


@TLS
def test_a_file_waits_for_the_certificate_that_was_trusted(tmp_path: Path) -> None:
    """A changed certificate costs no upload: it is told, and the file comes with the right one."""
    (tmp_path / "claude.log").write_text("the log")
    first = self_signed()
    with bench(tmp_path, pins=tmp_path / "pins.json", tls=first) as b:
        b.expect_text(b.print_lines(1))
        b.gateway.faults.add(Fault("artifact", _ChangeCertificate(b.gateway)))
        b.spool.record_end(END, list(file_parts(tmp_path, "claude.log", "claude.log")))
        b.poster.finish()
        b.expect_told("claude.log waits: the certificate of 127.0.0.1")
        b.gateway.use_certificate(first)
        eventually(b.assert_done, WITHIN_S)

        assert [each.data for each in b.gateway.artifacts(b.run.id)] == [b"the log"]


@FAULTS
def test_a_large_upload_is_progress_all_the_while(tmp_path: Path) -> None:
    """A slow line that takes longer than the patience of the end is not given up on."""
    with (tmp_path / "claude.log").open("wb") as sparse:
        sparse.truncate(5 << 20)
    with bench(tmp_path) as b:
        hang = Fault("artifact", Hang(after="stored"))
        b.gateway.faults.add(hang)
        b.spool.record_end(END, list(file_parts(tmp_path, "claude.log", "claude.log")))
        b.poster.finish()
        b.gateway.wait_for(lambda: b.gateway.status(b.run.id) == "done")
        finished_at = b.gateway.events(b.run.id, "marker")[-1].received_at
        b.gateway.wait_for(lambda: hang.applied)

        assert b.poster.progress_at > finished_at


@FAULTS
@pytest.mark.parametrize("where", ["event", "artifact"])
def test_what_was_taken_and_could_not_be_noted_is_not_sent_again(
    where: str, tmp_path: Path
) -> None:
    """A disk that takes nothing for a while delays the next request, and repeats none."""
    (tmp_path / "claude.log").write_text("the log")
    with bench(tmp_path) as b:
        fault = Fault(where, Delay(WITHIN_S, after="stored"))
        b.gateway.faults.add(fault)
        b.print_lines(1)
        b.spool.record_end(END, list(file_parts(tmp_path, "claude.log", "claude.log")))
        b.poster.finish()
        b.gateway.wait_for(lambda: fault.applied, WITHIN_S)
        with nothing_is_written():
            b.gateway.faults.release(fault)
            eventually(b.assert_failed, WITHIN_S)
        eventually(b.assert_done, WITHIN_S)

        assert b.gateway.verify_finished(b.run.id) == []
        endpoints = [each.endpoint for each in b.gateway.requests]
        assert endpoints == ["event", "event", "artifact"]


# --- the pace --------------------------------------------------------------------------------


WAITING = '{"event":"state","state":"waiting"}'


def test_what_a_person_waits_for_goes_at_once_with_all_before_it(tmp_path: Path) -> None:
    """When others have used most of a minute, output waits for the rest, and a question does not.

    What is before the question goes with it, in one event, in order.
    """
    with bench(tmp_path, rate_limit=(100, 60.0)) as b:
        b.gateway.use_up(80)
        text = b.print_lines(1)
        b.expect_text(text)  # with its answer the runner knows
        text += b.print_lines(20)
        before = time.monotonic()
        b.spool.append("marker", RULES.redact(WAITING), is_urgent=True)
        b.gateway.wait_for(lambda: b.gateway.markers(b.run.id, "state"), WITHIN_S)

        assert time.monotonic() - before < 6
        b.expect_text(text)
        kinds = [each.type for each in b.gateway.events(b.run.id)]
        assert kinds == ["stdout", "stdout", "marker"]


@FAULTS
def test_a_429_is_waited_out_and_the_same_attempt_goes_again(tmp_path: Path) -> None:
    """The nonce is not spent by a refusal that came before anybody looked."""
    with bench(tmp_path) as b:
        b.gateway.faults.add(Fault("event", RateLimited(0)))
        text = b.print_lines(1)
        b.expect_text(text)

        assert [each.status for each in b.gateway.requests] == [429, 200]
        assert len({each.nonce for each in b.gateway.requests}) == 1


def _holds(word: bytes) -> Any:
    def is_in(request: Request) -> bool:
        return word in request.body and request.endpoint in ("event", "artifact")

    return is_in
