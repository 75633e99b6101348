"""A person with a token of their own at the embedded gateway, as scripts and browsers use it."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from testing.gateways.embedded_gateway import (
    JSON_TYPE,
    Answer,
    EmbeddedGateway,
    Stream,
    session_of,
)
from testing.gateways.gateway_records import Run

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Member:
    """A person. The holder of the admin token has no name."""

    gateway: EmbeddedGateway
    name: str | None
    role: str
    token: str
    own: bool = False
    folders: tuple[str, ...] = ()

    @classmethod
    def add(cls, gateway: EmbeddedGateway, name: str, role: str, **fields: Any) -> Member:
        """Take somebody in, as an admin does."""
        answer = gateway.api("POST", "/api/people", {"name": name, "role": role, **fields})
        assert answer.status == 201, answer
        token = answer.json()["token"]
        return cls(
            gateway, name, role, token, fields.get("own", False), tuple(fields.get("folders", ()))
        )

    @classmethod
    def admin(cls, gateway: EmbeddedGateway) -> Member:
        """Return the holder of the admin token."""
        return cls(gateway, None, "admin", gateway.admin_token)

    @property
    def headers(self) -> dict[str, str]:
        """What says who it is."""
        return {"Authorization": f"Bearer {self.token}"}

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request."""
        content = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": JSON_TYPE}
        return self.gateway.request(method, path, content, {**self.headers, **kind, **headers})

    def create_run(self, **fields: Any) -> Run:
        """Create a run."""
        answer = self.api("POST", "/api/runs", fields)
        assert answer.status == 201, answer
        return Run(answer.json()["id"], answer.json()["capabilityToken"])

    def log_in(self) -> dict[str, str]:
        """Log in with the token, as a browser does; return the headers of a session."""
        body = urlencode({"token": self.token}).encode()
        return session_of(self.gateway.request("POST", "/login", body, {"Content-Type": FORM}))

    def follow(self, path: str) -> Stream:
        """Open a stream; the caller closes it."""
        return follow(self.gateway, path, self.headers)

    def sees(self, owner: str | None, folder: str | None) -> bool:
        """Whether a run is seen, as docs/gateway-team.md says."""
        if self.role == "admin" or not (self.own or self.folders) or owner == self.name:
            return True
        return not self.own and any(_has(folder or "", each) for each in self.folders)


def _has(folder: str, pattern: str) -> bool:
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(text if pattern[0] in "/*" else f".*/{text}", folder, re.S) is not None


def follow(gateway: EmbeddedGateway, path: str, headers: dict[str, str]) -> Stream:
    """Open a stream with these headers; the caller closes it."""
    connection = gateway.connect(timeout_s=30)
    connection.request("GET", path, headers=headers)
    return Stream(connection)


def ends(stream: Stream) -> bool:
    """Read a stream to its end, whatever it says until then."""
    with contextlib.closing(stream):
        while stream.next() is not None:
            pass
    return True
