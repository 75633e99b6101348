"""Requests that the protocol forbids, and how a gateway refuses each of them.

Each has a function that builds it, the status, the text of `error` if the protocol has one, and a
part of what the strict gateway notes about its client.
"""

from __future__ import annotations

import json
import time
from typing import Any, Callable

from testing.gateways.signing_client import ARTIFACT_PATH, EVENT_PATH, Attempt, Client


def _without(name: str) -> Callable[[Client], Attempt]:
    def build(client: Client) -> Attempt:
        attempt = client.event_attempt("stdout", "x")
        del attempt.headers[name]
        return attempt

    return build


def _forged(client: Client) -> Attempt:
    attempt = client.event_attempt("stdout", "a")
    attempt.body = attempt.body.replace(b'"a"', b'"b"')
    return attempt


def _event(*arguments: Any, **changes: Any) -> Callable[[Client], Attempt]:
    return lambda client: client.event_attempt(*arguments, **changes)


def _post(path: str, body: bytes, **changes: Any) -> Callable[[Client], Attempt]:
    return lambda client: client.sign("POST", path.format(run=client.run.id), body, **changes)


ACK_PATH = "/api/runs/{run}/commands/c1/ack"
REFUSALS: dict[str, tuple[Callable[[Client], Attempt], int, str | None, str]] = {
    "a bad signature": (
        _forged,
        401,
        "Invalid signature",
        "bad signature",
    ),
    "no signature": (_without("X-Signature"), 401, "Missing authentication headers", "missing"),
    "no timestamp": (_without("X-Timestamp"), 401, "Missing authentication headers", "missing"),
    "no nonce": (_without("X-Nonce"), 401, "Missing authentication headers", "missing"),
    "an old timestamp": (
        _event("stdout", "x", timestamp="1000"),
        401,
        "Request timestamp out of allowed range",
        "timestamp out of range",
    ),
    "milliseconds": (
        _event("stdout", "x", timestamp=str(int(time.time() * 1000))),
        401,
        "Request timestamp out of allowed range",
        "timestamp out of range",
    ),
    "a wrong token": (
        _event("stdout", "x", token="0" * 64),
        403,
        "Invalid capability token for run",
        "token",
    ),
    "an unknown run": (
        _event("stdout", "x", run_id="run_other"),
        403,
        "Invalid capability token for run",
        "unknown run",
    ),
    "another run's path": (
        lambda client: client.sign("GET", "/api/runs/run_other/commands"),
        403,
        "Capability token mismatch",
        "different runs",
    ),
    "no JSON": (_post(EVENT_PATH, b"{"), 400, None, "not JSON"),
    "no UTF-8": (_post(EVENT_PATH, b'{"type":"\xff"}'), 400, None, "not JSON"),
    "NaN": (_post(EVENT_PATH, b'{"sequence":NaN}'), 400, None, "not JSON"),
    "an unknown type": (_event("output", "x"), 500, None, "unknown event type"),
    "data that is no text": (_event("stdout", 5), 500, None, "data that is no text"),
    "a negative sequence": (_event("stdout", "x", -1), 500, None, "sequence"),
    "a sequence in quotes": (_event("stdout", "x", "1"), 500, None, "sequence"),
    "a broken sequence": (_event("stdout", "x", 1.5), 500, None, "sequence"),
    "a truth as sequence": (_event("stdout", "x", True), 500, None, "sequence"),
    "a null in an ack": (_post(ACK_PATH, b'{"result":null}'), 500, None, "no text: None"),
    "an ack error too long": (
        _post(ACK_PATH, json.dumps({"error": "x" * 100_001}).encode()),
        500,
        None,
        "over the limit",
    ),
    "another content type": (
        _post(EVENT_PATH, b"x", content_type="text/plain"),
        415,
        None,
        "content type",
    ),
    "an artifact as JSON": (_post(ARTIFACT_PATH, b"{}"), 406, None, "content type"),
    "a torn multipart": (
        _post(
            ARTIFACT_PATH,
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx',
            content_type="multipart/form-data; boundary=b",
        ),
        400,
        None,
        "multipart",
    ),
}
