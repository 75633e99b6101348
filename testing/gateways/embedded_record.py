"""The embedded gateway behind the interface that the strict one has: what a runner's tests ask for.

    with EmbeddedGateway(folder) as embedded:
        gw = EmbeddedRecord(embedded)
        run = gw.create_run()
        ...                                           # a runner works against gw.url
        assert gw.text(run.id) == "hello\\n"

Everything is asked over the gateway's own API, as its page asks it.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Callable, TypeVar

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.gateway_records import Ack, AnyGateway, Artifact, Event, Run
from testing.gateways.http_server import HOST
from testing.waiting import eventually

T = TypeVar("T")

_PAGE_EVENTS = 1_000
# What has a button of its own; everything else is a command that the run has offered.
_ACTIONS = {"__STOP__": "stop", "__HALT__": "halt", "__ESCAPE__": "escape"}
# What stands behind the colon, by the name that it has in the body of the request.
_TALK = {
    "__INPUT__": ("input", "text"),
    "__MODE__": ("mode", "mode"),
    "__TAKE_BACK__": ("take-back", "id"),
}


class EmbeddedRecord(AnyGateway):
    """One running embedded gateway. Thread: any, but `pause` and `resume`."""

    def __init__(self, gateway: EmbeddedGateway, secret: str | None = None) -> None:
        self._gateway = gateway
        self.secret = gateway.secret if secret is None else secret
        self._port = gateway.port
        self._known: dict[str, list[Event]] = {}
        self._last_ids: dict[str, int] = {}
        self._reserved: socket.socket | None = None

    @property
    def url(self) -> str:
        """What a client's GATEWAY_URL is set to."""
        return f"http://{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port; the same from the first start to the end."""
        return self._port

    def pause(self) -> None:
        """Be killed. Until `resume` the port is taken, and nobody listens on it."""
        self._gateway.kill()
        reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((HOST, self._port))
        self._reserved = reserved

    def resume(self) -> None:
        """Start again on the same data; the gateway was made with a port of its own."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        self._gateway.start()
        assert self._gateway.port == self._port, "a gateway that comes back needs --port"

    # --- the operator's side ---

    def create_run(self, command: str | None = None) -> Run:
        """Create a run as the page does."""
        return self._gateway.create_run(command)

    def queue_command(self, run_id: str, text: str) -> str:
        """Press the button of the page that queues this, and return the command's id."""
        action, content = _ACTIONS.get(text, "command"), {"command": text}
        name, _, rest = text.partition(":")
        if name in _TALK:
            action, field = _TALK[name]
            content = {field: rest}
        elif name == "__ANSWER__":
            action, content = "answer", json.loads(rest)
        answer = self._gateway.api("POST", f"/api/runs/{run_id}/{action}", content)
        assert answer.status == 202, answer
        return str(answer.json()["id"])

    # --- the record ---

    def events(self, run_id: str, type: str | None = None) -> list[Event]:
        """Return the stored events; only the new ones are fetched."""
        known = self._known.setdefault(run_id, [])
        has_more = True
        while has_more:
            after = self._last_ids.get(run_id, 0)
            page = self._get(f"/api/runs/{run_id}/events?after={after}&limit={_PAGE_EVENTS}")
            for each in page["events"]:
                known.append(_event(each))
                self._last_ids[run_id] = each["id"]
            has_more = page["has_after"]
        return [each for each in known if type in (None, each.type)]

    def acks(self, run_id: str) -> dict[str, list[Ack]]:
        """Return the last acknowledgement of each command."""
        history = self._get(f"/api/runs/{run_id}/history")["commands"]
        return {
            each["id"]: [Ack(each["result"], each["error"])]
            for each in history
            if each["acknowledged_at"] is not None
        }

    def artifacts(self, run_id: str) -> list[Artifact]:
        """Return the stored files, downloaded."""
        listed = self._get(f"/api/runs/{run_id}/artifacts")["artifacts"]
        return [
            Artifact(each["name"], self._gateway.api("GET", f"/api/artifacts/{each['id']}").body)
            for each in listed
        ]

    def status(self, run_id: str) -> str:
        """Return the run's status."""
        return str(self._get(f"/api/runs/{run_id}")["status"])

    def exit_code(self, run_id: str) -> int | None:
        """Return the run's exit code."""
        code: int | None = self._get(f"/api/runs/{run_id}")["exit_code"]
        return code

    def wait_for(self, predicate: Callable[[], T], within_s: float = 30.0) -> T:
        """Ask until `predicate` is true, and return its value."""

        def is_true() -> T:
            value = predicate()
            assert value, f"not within {within_s} s; the gateway said: {self._gateway.log[-2_000:]}"
            return value

        return eventually(is_true, within_s)

    def verify_finished(self, run_id: str) -> list[str]:
        """Compare the marker with the record, and ask for the gateway's own verdict."""
        told = super().verify_finished(run_id)
        verdict = self._get(f"/api/runs/{run_id}")["verdict"] or {}
        is_whole = self.markers(run_id, "finished")[-1].get("whole", True)
        if verdict.get("ok") is not is_whole:
            told.append(f"the gateway's verdict: {verdict}")
        return told

    def _get(self, path: str) -> Any:
        answer = self._gateway.api("GET", path)
        assert answer.status == 200, answer
        return answer.json()


def free_port() -> int:
    """Return a port of loopback that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def _event(found: dict[str, Any]) -> Event:
    received_at = found["created_at"] - time.time() + time.monotonic()
    return Event(found["type"], found["data"], found["sequence"], received_at)
