"""The signature, against vectors computed outside this project, and against the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_client import (
    Credentials,
    GatewayClient,
    MultipartFile,
    Outcome,
    sign,
)
from journal.events import encode_event
from redact import RedactedText
from testing.gateways.strict_gateway import StrictGateway

RUN = "run_A1"
TOKEN = "0123456789abcdef" * 4
SECRET = "k" * 32


@pytest.mark.parametrize(
    ("method", "path", "body", "timestamp", "nonce", "signature"),
    [
        (
            "GET",
            "/api/runs/run_A1/commands",
            b"",
            1700000000,
            "00112233445566778899aabbccddeeff",
            "1d5b7b03d3ac496c8788c5dc3e7fc323f1159ea4865c8dc4c2d6758433ab1de8",
        ),
        (
            "POST",
            "/api/ingest/event",
            '{"type":"stdout","data":"héllo\\n","sequence":1}'.encode(),
            1700000001,
            "ffeeddccbbaa99887766554433221100",
            "d697c73173fa6a8965cf1692e9ed2e25a1f07cd6cff90618e8ecd2952b0068dd",
        ),
        (
            "POST",
            "/api/ingest/artifact",
            b"",
            1700000002,
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "898afd3712d0ec34ce19e471f144c4290505920e5a96a7d9a16c2b8ed7dae91d",
        ),
        (
            "POST",
            "/api/runs/run_A1/commands/c9/ack",
            b'{"result":"ok"}',
            1700000003,
            "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
            "3fd31ca3191103e4b4c8b7b8ac001c5315a8854a6f12d84ae9b5f3d31c8f1579",
        ),
    ],
    ids=["get", "event", "multipart", "ack"],
)
def test_a_signature_equals_the_vector_of_the_protocol(
    method: str, path: str, body: bytes, timestamp: int, nonce: str, signature: str
) -> None:
    """Each kind of request is signed as the protocol's own examples are."""
    credentials = Credentials(SECRET, RUN, TOKEN)

    assert sign(credentials, method, path, body, timestamp, nonce) == signature


def test_an_event_is_encoded_as_in_the_vector() -> None:
    """The body of an event is compact JSON in plain UTF-8, which is what is hashed."""
    body = encode_event("stdout", "héllo\n", 1)

    assert body == '{"type":"stdout","data":"héllo\\n","sequence":1}'.encode()


@pytest.mark.parametrize("secret", ["k" * 32, "schlüssel" * 4], ids=["ascii", "utf-8"])
def test_the_gateway_accepts_what_is_signed_for_every_endpoint(secret: str, tmp_path: Path) -> None:
    """A request of each kind passes the strict gateway's own check of its signature."""
    file = tmp_path / "notes.txt"
    file.write_text("any text\n")

    with StrictGateway(secret=secret) as gw:
        run = gw.create_run()
        command = gw.queue_command(run.id, "pwd")
        client = GatewayClient(gw.url, Credentials(secret, run.id, run.token))
        attempts = [
            client.event(encode_event("stdout", "é😀\n", 1)),
            client.commands(),
            client.commands(wait_s=1),
            client.acknowledge(command, result=RedactedText("done")),
            client.acknowledge(command, error=RedactedText("failed")),
            client.artifact(MultipartFile(file, "notes.txt")),
        ]
        outcomes = [client.send(attempt).outcome for attempt in attempts]
        health = client.ask_health()
        client.close()

        assert outcomes == [Outcome.ACCEPTED] * len(attempts)
        assert health.outcome is Outcome.ACCEPTED
        assert gw.text(run.id) == "é😀\n"
        assert [artifact.data for artifact in gw.artifacts(run.id)] == [b"any text\n"]


def test_a_right_secret_can_be_told_without_a_run() -> None:
    """An event that names no run is refused for the run alone if the secret is right."""
    with StrictGateway() as gw:
        gw.allow("bad signature")
        replies = []
        for secret in (gw.secret, "w" * 32):
            client = GatewayClient(gw.url, Credentials(secret))
            replies.append(client.send(client.event(encode_event("info", "", 0))))
            client.close()

    assert [reply.outcome for reply in replies] == [Outcome.REFUSED, Outcome.WRONG_SECRET]
    assert replies[0].message == "Run ID required"
