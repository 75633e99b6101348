"""`kill -9` of the gateway while runners send: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.embedded_record import EmbeddedRecord, free_port
from testing.gateways.gateway_records import Run
from testing.gateways.signing_client import ENDED, Client
from testing.programs.runner import RunnerProcess, child, plan
from testing.programs.verdict import judge
from testing.waiting import eventually

CLIENTS = 8
KILLS = 3
# So many must have been accepted before each kill, so that it meets gateways at work.
EVENTS_BETWEEN = 40


@dataclass
class Sender(threading.Thread):
    """A client that sends numbered events one after the other, and repeats what is not answered."""

    record: EmbeddedRecord
    run_of: Run
    stop: threading.Event
    acknowledged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(name=f"sender {self.run_of.id}", daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        """Send until it is told to stop; the last event is answered too."""
        with closing(Client(self.record, self.run_of)) as client:
            number = 0
            while not self.stop.is_set():
                number += 1
                self._deliver(client, number)

    def _deliver(self, client: Client, number: int) -> None:
        data = f"{self.run_of.id} {number}\n"
        attempt = client.event_attempt("stdout", data, number)
        copies = 0
        while True:
            try:
                answer = client.send(attempt)
            except (*ENDED, OSError):
                time.sleep(0.05)  # it is away; there is nothing to wait on
                copies += 1
                continue
            if answer.status == 200:
                break
            if copies and answer.status == 401 and "Nonce already used" in answer.json["error"]:
                break  # an earlier copy was accepted
            if answer.status == 503:
                time.sleep(0.05)  # and again, byte for byte, as a runner does
                copies += 1
                continue
            self.wrong.append(f"{answer.status} {answer.body[:200]!r}")
            return
        self.acknowledged.append(data)


def test_kills_in_the_middle_of_ingest(tmp_path: Path) -> None:
    """What was acknowledged is there after each restart, once and in order, copies included."""
    stop = threading.Event()
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as gateway:
        record = EmbeddedRecord(gateway)
        senders = [Sender(record, record.create_run(), stop) for _ in range(CLIENTS)]
        with sending(senders, stop):
            for _ in range(KILLS):
                wait_for_progress(senders)
                record.pause()
                record.resume()
            wait_for_progress(senders)

        for sender in senders:
            assert sender.wrong == []
            assert record.text(sender.run_of.id) == "".join(sender.acknowledged)


@contextmanager
def sending(senders: Sequence[Sender], stop: threading.Event) -> Iterator[None]:
    """Let all of them send during the block, and wait for their ends."""
    for sender in senders:
        sender.start()
    try:
        yield
    finally:
        stop.set()
        for sender in senders:
            sender.join(30)


def wait_for_progress(senders: Sequence[Sender]) -> None:
    """Wait until each sender has come further."""
    before = [len(each.acknowledged) for each in senders]

    def have_all_come_further() -> None:
        for sender, count in zip(senders, before):
            assert sender.wrong == []
            assert len(sender.acknowledged) >= count + EVENTS_BETWEEN // CLIENTS

    eventually(have_all_come_further, 60)


def test_the_same_event_after_a_restart_is_stored_once(tmp_path: Path) -> None:
    """A fresh signature over the same body and sequence is the same event, kills or not."""
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as gateway:
        record = EmbeddedRecord(gateway)
        with closing(Client(record, record.create_run())) as client:
            first = client.event("stdout", "once", 1)
            record.pause()
            record.resume()
            client.close()
            second = client.event("stdout", "once", 1)

            assert (first.status, second.status) == (200, 200)
            assert first.json["eventId"] == second.json["eventId"]
            assert record.text(client.run.id) == "once"


def test_a_large_run_is_compared_after_its_end(tmp_path: Path) -> None:
    """Its digest was lost with the process that had stored it, and another kill loses nothing."""
    texts = [f"{number}" * 900_000 for number in range(1, 7)]
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as gateway:
        record = EmbeddedRecord(gateway)
        whole, lacking = record.create_run(), record.create_run()
        for run in (whole, lacking):
            gateway.send_events(run, texts)
        record.pause()
        record.resume()
        assert gateway.send_marker(whole, finished(texts), 7).status == 200
        assert gateway.send_marker(lacking, finished([*texts, "more"]), 7).status == 200
        record.pause()
        record.resume()

        def is_judged() -> None:
            shown = gateway.run(whole), gateway.run(lacking)
            assert [(each["verdict"] or {}).get("ok") for each in shown] == [True, False]
            assert [each["incomplete"] for each in shown] == [False, True]

        eventually(is_judged)


def test_an_upload_that_was_cut_off_is_taken_again(tmp_path: Path) -> None:
    """The nonce of a file that is not there is not spent: who repeats the upload is heard."""
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as gateway:
        record = EmbeddedRecord(gateway)
        with closing(Client(record, record.create_run())) as client:
            attempt = client.upload_attempt("claude.log", b"a line\n" * 100_000)
            with closing(client.connect()) as half:
                half.putrequest(attempt.method, attempt.path)
                for name, value in attempt.headers.items():
                    half.putheader(name, value)
                half.putheader("Content-Length", str(len(attempt.body)))
                half.endheaders(attempt.body[:400_000])

                def is_arriving() -> None:
                    assert list(gateway.data_dir.glob(f"gateway/artifacts/{client.run.id}/*"))

                eventually(is_arriving)
                # The writer takes one thing after the other, so what came before is on disk.
                assert client.event("stdout", "hello\n", 1).status == 200
                record.pause()
            record.resume()
            client.close()

            assert client.send(attempt).status == 200
            assert client.send(attempt).status == 401
        assert [each.name for each in record.artifacts(client.run.id)] == ["claude.log"]


def test_real_runners_survive_the_gateways_death(tmp_path: Path) -> None:
    """Three runners at work, a kill and a restart: every line once, every verdict right."""
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as gateway, ExitStack() as stack:
        record = EmbeddedRecord(gateway)
        launches = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            launches.append(plan(record, child("lines.py", "600", "200"), folder))
        runners = [stack.enter_context(RunnerProcess(launch)) for launch in launches]
        for launch in launches:
            launch.expect(r"(?m)^20 .*\n")
        record.pause()
        record.resume()

        assert [runner.wait(60) for runner in runners] == [0, 0, 0]
        for launch in launches:
            verdict = judge(record, launch.run.id, last=600)
            assert verdict.problems == []
            assert verdict.lines == 600
