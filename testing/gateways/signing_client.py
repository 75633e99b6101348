"""A client of the wire protocol that signs by itself, for tests of gateways.

Written from docs/protocol.md alone, and independent of the runner's own and of the gateways'.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import itertools
import json
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from testing.gateways.gateway_records import AnyGateway, Run

JSON = "application/json"
EVENT_PATH = "/api/ingest/event"
ARTIFACT_PATH = "/api/ingest/artifact"
# In the place of a sequence: the event has none.
WITHOUT = "without"
# How a connection ends that gives no answer.
ENDED = (http.client.HTTPException, ConnectionError)


@dataclass
class Answer:
    """A reply that was read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Attempt:
    """One signed request, which may be sent more than once."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


@dataclass
class Client:
    """Signs as PROTOCOL says, and sends over one connection that is kept alive."""

    gateway: AnyGateway
    run: Run
    secret: str = ""
    context: ssl.SSLContext | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.secret = self.secret or self.gateway.secret
        self.connection = self.connect()

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection of its own."""
        if self.context is not None:
            return http.client.HTTPSConnection(
                "localhost", self.gateway.port, timeout=20, context=self.context
            )
        return http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=20)

    def sign(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        content_type: str = JSON,
        timestamp: str = "",
        nonce: str = "",
        run_id: str | None = None,
        token: str | None = None,
    ) -> Attempt:
        """Return a request with the five headers of the protocol."""
        timestamp = timestamp or str(int(time.time()))
        nonce = nonce or os.urandom(16).hex()
        run_id = self.run.id if run_id is None else run_id
        token = self.run.token if token is None else token
        is_multipart = content_type.startswith("multipart/")
        digest = hashlib.sha256(b"" if method == "GET" or is_multipart else body).hexdigest()
        message = "\n".join([method, path.split("?")[0], digest, timestamp, nonce, run_id, token])
        headers = {
            "X-Timestamp": timestamp,
            "X-Nonce": nonce,
            "X-Signature": hmac.new(
                self.secret.encode(), message.encode(), hashlib.sha256
            ).hexdigest(),
        }
        if method == "POST":
            headers["Content-Type"] = content_type
        if run_id:
            headers["X-Run-Id"] = run_id
        if token:
            headers["X-Capability-Token"] = token
        return Attempt(method, path, body, headers)

    def event_attempt(self, kind: str, data: Any, sequence: Any = None, **changes: Any) -> Attempt:
        """Return an event that is signed and not sent."""
        fields = {"type": kind, "data": data, "sequence": sequence}
        if sequence is None:
            fields["sequence"] = next(self.numbers)
        if sequence == WITHOUT:
            del fields["sequence"]
        body = json.dumps(fields).encode()
        return self.sign("POST", "/api/ingest/event", body, **changes)

    def event(self, kind: str, data: Any, sequence: Any = None, **changes: Any) -> Answer:
        """Send an event."""
        return self.send(self.event_attempt(kind, data, sequence, **changes))

    def poll(self, query: str = "") -> Answer:
        """Ask for commands."""
        return self.send(self.sign("GET", f"/api/runs/{self.run.id}/commands{query}"))

    def ack(self, command_id: str, content: Any) -> Answer:
        """Acknowledge a command."""
        path = f"/api/runs/{self.run.id}/commands/{command_id}/ack"
        return self.send(self.sign("POST", path, json.dumps(content).encode()))

    def upload_attempt(self, file_name: str, data: bytes, part_name: str = "file") -> Attempt:
        """Return an upload that is signed and not sent."""
        boundary = os.urandom(8).hex()
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{part_name}"; filename="{file_name}"\r\n'
            "Content-Type: text/plain\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        content_type = f"multipart/form-data; boundary={boundary}"
        return self.sign("POST", "/api/ingest/artifact", body, content_type=content_type)

    def upload(self, file_name: str, data: bytes, part_name: str = "file") -> Answer:
        """Upload an artifact."""
        return self.send(self.upload_attempt(file_name, data, part_name))

    def send(self, attempt: Attempt) -> Answer:
        """Send a request as it is; after a failure the next one has a new connection."""
        try:
            self.connection.request(attempt.method, attempt.path, attempt.body, attempt.headers)
            response = self.connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except (*ENDED, OSError):
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def own_client(gateway: AnyGateway) -> Client:
    """Return a client with a run of its own."""
    return Client(gateway, gateway.create_run())
