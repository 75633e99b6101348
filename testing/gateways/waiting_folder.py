"""A folder that waits for runs at a gateway, as the wire shows it; signed by the protocol."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from testing.gateways.embedded_gateway import Answer, EmbeddedGateway
from testing.gateways.gateway_records import Run


class WaitingFolder:
    """One process that waits. `key` is that of an earlier one, if it is the same folder."""

    def __init__(self, gateway: EmbeddedGateway, name: str = "shop", key: str = "") -> None:
        self.gateway = gateway
        self.name = name
        self.key = key or secrets.token_hex(32)
        self.id = f"wait_{hashlib.sha256(self.key.encode()).hexdigest()[:32]}"
        self.session = secrets.token_hex(16)

    def send(self, path: str, content: Any, **how: Any) -> Answer:
        """Send a signed request; `how` is what `EmbeddedGateway.sign` takes."""
        return self.gateway.send("POST", path, content, Run(self.id, self.key), **how)

    def ask(self, wait_s: int = 0, **said: Any) -> Any:
        """Ask for a run once; return the answer."""
        path = f"/api/offers?wait={wait_s}" if wait_s else "/api/offers"
        answer = self.send(path, {"session": self.session, "name": self.name, **said})
        assert answer.status == 200, answer
        return answer.json()

    def begin(self, **said: Any) -> WaitingFolder:
        """Begin to wait, and let the operator let it in."""
        code = self.ask(begins=True, **said)["code"]
        if code is not None:
            assert self.gateway.api("POST", "/api/offers/pair", {"code": code}).status == 200
        return self

    def take(self, run: Any, token: str = "", **said: Any) -> Any:
        """Take a run that was offered; return the answer."""
        body = {"session": self.session, "run": run["id"], "handout": run["handout"]}
        answer = self.send("/api/offers/take", {**body, "token": token or self.key, **said})
        assert answer.status == 200, answer
        return answer.json()

    def order(self, prompt: str = "fix it", **fields: Any) -> Answer:
        """Send a run to it, as the page does."""
        body = {"key": secrets.token_hex(16), "prompt": prompt, **fields}
        return self.gateway.api("POST", f"/api/offers/{self.id}/runs", body)

    def order_of(self, run_id: str) -> Any:
        """Return what became of an order."""
        return self.gateway.api("GET", f"/api/runs/{run_id}/order").json()["order"]
