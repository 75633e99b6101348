"""Files over the gateway's 50 MiB go in numbered parts, cut at line ends, each once."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway_client import Credentials, GatewayClient, MultipartFile
from runner import upload
from runner.attempts import DIFFS, FILES, Pacer, Pauses
from runner.upload import MAX_PART_BYTES, NotTaken, file_parts, send_file
from testing.gateways.faults import (
    Action,
    DropAfter,
    DropBefore,
    Fault,
    HalfAnswer,
    Html,
    JsonError,
    RateLimited,
    Request,
    Status,
)
from testing.gateways.http_server import Connection, LoopbackServer, Reply
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.strict_gateway import StrictGateway
from testing.gateways.wire import MAX_ARTIFACT_BYTES
from testing.programs.children.floods import line
from testing.programs.runner import ROOT, Launch, RunnerProcess, child, plan
from testing.programs.verdict import ASKED_TWICE, Kill, sync

MEGABYTES = 3
FAULTS: dict[str, Action] = {
    "lost before": DropBefore(),
    "lost after it stored": DropAfter(),
    "half an answer": HalfAnswer(),
    "a bad proxy": Html(502),
    "a failure": JsonError(500, after="nonce"),
    "a rate limit": RateLimited(None, with_rate_headers=False),
}
# Uploads its artifact through a runner whose parts are small, so that there are many of them.
SMALL_PARTS = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from runner import upload; "
    "upload.MAX_PART_BYTES = int(sys.argv.pop(1)); import claude_runner; "
    "sys.exit(claude_runner.main())"
)


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway without a rate limit."""
    with StrictGateway(rate_limit=None) as gw:
        yield gw


def test_a_log_over_the_limit(gateway: StrictGateway, tmp_path: Path) -> None:
    """It comes in two parts at a line end, and a lost answer doubles none.

    The limit is a twentieth of the real one, of which is known that a part and its frame are below.
    """
    assert MAX_PART_BYTES + 1024 <= MAX_ARTIFACT_BYTES
    part_bytes = MAX_PART_BYTES // 20
    launch = plan(gateway, child("floods.py", str(MEGABYTES)), tmp_path)
    launch = with_small_parts(launch, part_bytes)
    gateway.faults.add(Fault("artifact", DropAfter()))
    with RunnerProcess(launch) as runner:
        assert runner.wait(100) == 0

    parts = gateway.artifacts(launch.run.id)
    assert [each.name for each in parts] == ["claude.log", "claude.2.log"]
    assert parts[0].data.endswith(b"\n")
    assert all(len(each.data) <= part_bytes for each in parts)
    whole = b"".join(line(number) for number in range(MEGABYTES * 10_000))
    assert b"".join(each.data for each in parts) == whole
    assert gateway.text(launch.run.id).encode() == whole
    assert gateway.verify_finished(launch.run.id) == []


@pytest.mark.parametrize("name", FAULTS)
def test_each_part_is_retried_alone(gateway: StrictGateway, tmp_path: Path, name: str) -> None:
    """A fault in the middle part repeats that part and no other, and every part arrives once."""
    launch = plan(gateway, child("lines.py", "2000", "0", "--pad", "20"), tmp_path)
    launch = with_small_parts(launch)
    fault = gateway.faults.add(
        Fault(lambda r: r.endpoint == "artifact" and b"claude.2.log" in r.body, FAULTS[name])
    )
    with RunnerProcess(launch) as runner:
        assert runner.wait(40) == 0

    assert fault.applied == 1
    parts = gateway.artifacts(launch.run.id)
    names = ["claude.log", *(f"claude.{number}.log" for number in range(2, len(parts) + 1))]
    assert len(parts) >= 4
    assert [each.name for each in parts] == names
    assert b"".join(each.data for each in parts) == launch.log
    uploads = [each for each in gateway.requests if each.endpoint == "artifact"]
    assert len(uploads) == len(parts) + 1


def test_the_middle_part_is_left_to_sync(gateway: StrictGateway, tmp_path: Path) -> None:
    """Parts that arrived before an outage are not sent again by sync."""
    launch = plan(
        gateway,
        child("lines.py", "2000", "0", "--pad", "20"),
        tmp_path,
        env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": "0.5"},
    )
    launch = with_small_parts(launch)
    gateway.faults.add(
        Fault(lambda r: r.endpoint == "artifact" and b"claude.2.log" in r.body, Html(502), every=1)
    )
    with RunnerProcess(launch) as runner:
        assert runner.wait(40) == 0

        assert "claude.2.log is not delivered" in runner.stderr
    gateway.faults.clear()

    assert sync(launch).code == 0
    parts = gateway.artifacts(launch.run.id)
    assert len({each.name for each in parts}) == len(parts) >= 4
    assert b"".join(each.data for each in parts) == launch.log


PROXY_LIMIT_BYTES = 1 << 20


def test_a_proxy_that_takes_less(tmp_path: Path, gateway: StrictGateway) -> None:
    """After a 413 a file is cut smaller until its parts pass, and the size is remembered."""
    with LoopbackProxy(gateway.url, body_limit_bytes=PROXY_LIMIT_BYTES) as proxy:
        launch = plan(gateway, child("floods.py", "5"), tmp_path, env={"GATEWAY_URL": proxy.url})
        with RunnerProcess(launch) as runner:
            assert runner.wait(60) == 0

            assert "not uploaded" not in runner.stderr
        refused = [r for r in proxy.requests if r.status == 413 and "artifact" in r.target]

    parts = gateway.artifacts(launch.run.id)
    names = ["claude.log", *(f"claude.{number}.log" for number in range(2, len(parts) + 1))]
    assert [each.name for each in parts] == names
    assert all(each.data.endswith(b"\n") for each in parts)
    assert b"".join(each.data for each in parts) == launch.log
    assert launch.log == b"".join(line(number) for number in range(50_000))
    assert 1 <= len(refused) <= 3
    assert gateway.verify_finished(launch.run.id) == []


def test_smaller_parts_survive_a_kill(gateway: StrictGateway, tmp_path: Path) -> None:
    """What was cut smaller and has arrived is not sent again by sync, and the rest follows it."""
    gateway.allow(ASKED_TWICE)
    launch = plan(gateway, child("lines.py", "2000", "0", "--pad", "30"), tmp_path)
    gateway.faults.add(Fault(lambda r: is_upload(r) and len(r.body) > 30_000, Status(413), every=1))
    killed = Kill("answered")
    gateway.faults.add(Fault(lambda r: is_upload(r) and b"claude.3.log" in r.body, killed))
    with RunnerProcess(launch) as runner:
        killed.pid = runner.pid
        assert runner.wait(40) == -signal.SIGKILL

    done = sync(launch)

    assert (done.code, done.stderr) == (0, "")
    parts = gateway.artifacts(launch.run.id)
    names = ["claude.log", *(f"claude.{number}.log" for number in range(2, len(parts) + 1))]
    assert [each.name for each in parts] == names
    assert len(parts) > 4
    assert b"".join(each.data for each in parts) == launch.log
    assert gateway.verify_finished(launch.run.id) == []


def test_what_no_size_helps_is_told(gateway: StrictGateway, tmp_path: Path) -> None:
    """A gateway that takes no file at all is asked a few times, and the user is told of each."""
    launch = plan(gateway, child("lines.py", "2000", "0"), tmp_path)
    gateway.faults.add(Fault("artifact", Status(413), every=1))
    with RunnerProcess(launch) as runner:
        assert runner.wait(40) == 0

        assert "claude.log is not uploaded: the gateway refused it" in runner.stderr
    assert gateway.artifacts(launch.run.id) == []
    smallest = [r.body_bytes for r in gateway.requests if r.endpoint == "artifact"][-1]
    assert smallest <= 16_384 + 1_024


def is_upload(request: Request) -> bool:
    """Whether this is an artifact."""
    return request.endpoint == "artifact"


def with_small_parts(launch: Launch, part_bytes: int = 20_000) -> Launch:
    """Let the runner cut files into smaller parts than the gateway's limit allows."""
    argv = [launch.argv[0], "-c", SMALL_PARTS, str(ROOT), str(part_bytes), *launch.argv[2:]]
    return replace(launch, argv=argv)


def test_a_body_that_is_cut_off_is_signed_afresh(tmp_path: Path) -> None:
    """An upload that broke off in its body gets a new nonce: the gateway may have spent the old."""
    (tmp_path / "claude.log").write_bytes(b"x" * 8_000_000)
    nonces = []

    def cut_off_once(connection: Connection) -> None:
        head = connection.read_head()
        assert head is not None
        nonces.append(head.headers["X-Nonce"])
        if len(nonces) == 1:
            connection.reset()
            return
        connection.drain(head)
        connection.send(Reply(200, b'{"ok":true}').encode())

    changed = threading.Condition()
    errors: list[Exception] = []
    server = LoopbackServer("cutting", cut_off_once, errors.append, changed)
    server.start()
    client = GatewayClient(f"http://127.0.0.1:{server.port}", Credentials("k" * 32, "r", "t"))
    file = MultipartFile(tmp_path / "claude.log", "claude.log")
    try:
        problem = send_file(client, file, Pacer(), threading.Event(), FILES)
    finally:
        client.close()
        server.stop()
        gc.collect()  # the error of the first attempt still holds its socket, in a cycle

    assert (problem, errors) == (None, [])
    assert len(set(nonces)) == len(nonces) == 2


def test_a_file_that_has_gone_is_told(gateway: StrictGateway, tmp_path: Path) -> None:
    """Nothing is sent of it."""
    path = tmp_path / "notes.md"
    path.write_text("a note")
    file = MultipartFile(path, "notes.md")
    path.unlink()

    with opened(gateway) as client:
        problem = send_file(client, file, Pacer(), threading.Event(), DIFFS)

    assert problem == NotTaken("it no longer exists")
    assert gateway.requests == []


def test_a_run_that_is_rejected_is_told_and_waited_for(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """The file of a run is tried again until it is taken or somebody breaks it off."""
    gateway.faults.add(Fault("artifact", JsonError(403, "Capability token mismatch"), every=1))
    path = tmp_path / "notes.md"
    path.write_text("a note")
    stopping, told = threading.Event(), []

    def wait(why: str) -> None:
        told.append(why)
        if len(told) == 2:
            stopping.set()

    with opened(gateway) as client:
        problem = send_file(
            client,
            MultipartFile(path, "notes.md"),
            Pacer(),
            stopping,
            FILES,
            pauses=Pauses(rejected_s=0.01),
            waits=wait,
        )

    assert problem == NotTaken("it was broken off")
    assert all(why.startswith("the gateway no longer accepts this run (") for why in told)


def test_a_file_that_nobody_waits_for_is_given_up(gateway: StrictGateway, tmp_path: Path) -> None:
    """One of a command, not of the run: it is refused with the run."""
    gateway.faults.add(Fault("artifact", JsonError(403, "Capability token mismatch"), every=1))
    (tmp_path / "latest.diff").write_text("a change")

    with opened(gateway) as client:
        file = MultipartFile(tmp_path / "latest.diff", "latest.diff")
        problem = send_file(client, file, Pacer(), threading.Event(), DIFFS)

    assert problem is not None
    assert problem.reason.startswith("the gateway refused it (")


@contextlib.contextmanager
def opened(gateway: StrictGateway) -> Iterator[GatewayClient]:
    """A client of a new run."""
    run = gateway.create_run()
    client = GatewayClient(gateway.url, Credentials(gateway.secret, run.id, run.token))
    try:
        yield client
    finally:
        client.close()


# --- where parts are cut --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_parts_cover_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Parts follow each other without gap or overlap, and only the first is named like the file."""
    monkeypatch.setattr(upload, "MAX_PART_BYTES", 100)
    monkeypatch.setattr(upload, "_LINE_SEARCH_BYTES", 30)
    dice = random.Random(size)
    data = bytes(dice.choice(b"ab\n") for _ in range(size))
    (tmp_path / "a.b.log").write_bytes(data)

    parts = list(file_parts(tmp_path, "a.b.log", "a.b.log"))

    names = ["a.b.log", *(f"a.b.{number}.log" for number in range(2, len(parts) + 1))]
    assert [part.name for part in parts] == names
    assert parts[0].start == 0
    assert all(a.start + a.size == b.start for a, b in zip(parts, parts[1:]))
    assert parts[-1].start + parts[-1].size == size
    assert all(part.size <= 100 for part in parts)
    for part in parts[:-1]:
        end = part.start + part.size
        assert data[end - 1 : end] == b"\n" or b"\n" not in data[end - 30 : end]


def test_a_file_without_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without line ends is cut at the limit."""
    monkeypatch.setattr(upload, "MAX_PART_BYTES", 100)
    monkeypatch.setattr(upload, "_LINE_SEARCH_BYTES", 30)
    (tmp_path / "x.log").write_bytes(b"x" * 250)

    sizes = [part.size for part in file_parts(tmp_path, "x.log", "x.log")]

    assert sizes == [100, 100, 50]


def test_a_part_fits_into_the_limit() -> None:
    """The largest part and the frame of its multipart body stay within the gateway's limit."""
    assert MAX_PART_BYTES + 1024 <= MAX_ARTIFACT_BYTES
