"""Files on their way to the gateway."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import pytest

import gateway_transport
from gateway_client import Credentials, GatewayClient, MultipartFile, Outcome
from testing.gateways.client_bench import WITHIN_S, bench
from testing.gateways.http_server import Connection, LoopbackServer, PeerGoneError


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
def test_an_upload_arrives_byte_for_byte(size: int, tmp_path: Path) -> None:
    """Every byte of the file is there, boundary look-alikes included, with a length before it."""
    content = (b"\r\n--boundary--\r\n\x00\xff" * (size // 17 + 1))[:size]
    file = tmp_path / "x.log"
    file.write_bytes(content)

    with bench() as b:
        client = b.client()
        body = MultipartFile(file, "x.log")
        reply = client.send(client.artifact(body))

        assert reply.outcome is Outcome.ACCEPTED
        assert [each.data for each in b.gateway.artifacts(b.run.id)] == [content]
        headers = b.gateway.requests[0].headers
        assert headers["content-length"] == str(len(body))
        assert "transfer-encoding" not in headers


def test_a_part_of_a_file_can_be_uploaded(tmp_path: Path) -> None:
    """A numbered part holds its own bytes and no others."""
    file = tmp_path / "x.log"
    file.write_bytes(b"0123456789")

    with bench() as b:
        client = b.client()
        client.send(client.artifact(MultipartFile(file, "x.log", 2, 5)))
        client.send(client.artifact(MultipartFile(file, "x.2.log", 7)))

        assert [each.data for each in b.gateway.artifacts(b.run.id)] == [b"23456", b"789"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("claude.log", "claude.log"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ('a"b\r\nX-Evil: 1', "a_b__X-Evil__1"),
        ("größe 1.txt", "gr__e_1.txt"),
        ("😀.md", "_.md"),
        ("..", "file"),
        ("", "file"),
    ],
)
def test_a_file_name_is_made_safe(name: str, sent: str, tmp_path: Path) -> None:
    """No name breaks out of its header or names another place."""
    file = tmp_path / "x"
    file.write_bytes(b"x")

    with bench() as b:
        client = b.client()
        client.send(client.artifact(MultipartFile(file, name)))

        assert [each.name for each in b.gateway.artifacts(b.run.id)] == [sent]


def test_an_upload_needs_no_memory_for_the_file(tmp_path: Path) -> None:
    """What is read is sent and forgotten, block by block, and each block is reported."""
    file = tmp_path / "x.log"
    with file.open("wb") as sparse:
        sparse.truncate(30 << 20)
    blocks: list[None] = []
    body = MultipartFile(file, "x.log", on_progress=lambda: blocks.append(None))

    def swallow(connection: Connection) -> None:
        head = connection.read_head()
        assert head is not None
        connection.drain(head)
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}')

    server = LoopbackServer("drain", swallow, lambda _: None, threading.Condition())
    server.start()
    client = GatewayClient(f"http://127.0.0.1:{server.port}", Credentials("s" * 32))
    try:
        tracemalloc.start()
        reply = client.send(client.artifact(body))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        client.close()
        server.stop()

    assert reply.outcome is Outcome.ACCEPTED
    assert peak_bytes < 4 << 20
    assert len(blocks) == 30 * 16


def test_progress_is_told_once_for_each_block(tmp_path: Path) -> None:
    """A copy of an upload is no progress as far as an earlier one had come."""
    file = tmp_path / "x.log"
    file.write_bytes(b"x" * 200_000)
    progress = []
    body = MultipartFile(file, "x.log", on_progress=lambda: progress.append(1))

    first, second = (b"".join(body) for _ in range(2))

    assert first == second
    assert len(first) == len(body)
    assert len(progress) == 4  # blocks of 64 KiB


def test_a_file_that_became_shorter_is_an_outcome(tmp_path: Path) -> None:
    """A body that cannot be sent as announced ends the exchange, and the next one works."""
    file = tmp_path / "x.log"
    file.write_bytes(b"x" * 100_000)

    with bench() as b:
        client = b.client()
        body = MultipartFile(file, "x.log")
        file.write_bytes(b"x")
        reply = client.send(client.artifact(body))

        assert reply.outcome is Outcome.UNKNOWN
        assert "became shorter while it was uploaded" in reply.message
        assert b.post(client).outcome is Outcome.ACCEPTED


def test_a_server_that_refuses_a_large_body_by_its_head_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 413 that comes before the body is read is taken, though the rest is never taken."""
    monkeypatch.setattr(gateway_transport, "STALL_TIMEOUT_S", 0.2)

    def refuse(connection: Connection) -> None:
        if connection.read_head() is None:
            return
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        done.wait(WITHIN_S)
        raise PeerGoneError

    done = threading.Event()
    server = LoopbackServer("small", refuse, lambda _: None, threading.Condition())
    server.start()
    file = tmp_path / "large.txt"
    with file.open("wb") as sparse:
        sparse.truncate(40 << 20)
    client = GatewayClient(f"http://127.0.0.1:{server.port}", Credentials("s" * 32))
    try:
        reply = client.send(client.artifact(MultipartFile(file, "large.txt")))
        again = client.send(client.commands())
    finally:
        client.close()
        done.set()
        server.stop()

    assert (reply.outcome, reply.status) == (Outcome.REFUSED, 413)
    assert again.status == 413, "the second request went over a connection of its own"
