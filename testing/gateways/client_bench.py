"""Clients of the runner's for a strict gateway, and what both of them say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from gateway_client import Credentials, GatewayClient, Reply
from gateway_transport import PinStore
from journal.events import encode_event
from testing.gateways.strict_gateway import Run, StrictGateway

FAR_NAME = "gateway.test"
WITHIN_S = 20.0
OWN = {"ok": True, "eventId": 7}


def as_json(content: Any) -> bytes:
    """Return what the gateway would send."""
    return json.dumps(content).encode()


@dataclass
class Bench:
    """A gateway with one run, and clients for it that are closed at the end."""

    gateway: StrictGateway
    stack: ExitStack
    announced: list[str] = field(default_factory=list)
    sequences: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.run: Run = self.gateway.create_run()

    def client(self, url: str = "", pins: Path | None = None, **options: Any) -> GatewayClient:
        """Return a client for the run; with a file for pins one that allows self-signed."""
        client = GatewayClient(
            url or self.gateway.url,
            Credentials(self.gateway.secret, self.run.id, self.run.token),
            pins=None if pins is None else PinStore(pins, self.announced.append),
            **options,
        )
        self.stack.callback(client.close)
        return client

    def post(self, client: GatewayClient, timeout_s: float = 10.0) -> Reply:
        """Send one event."""
        body = encode_event("stdout", "text\n", next(self.sequences))
        return client.send(client.event(body), timeout_s)


@contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    """Give a gateway and clients; all of it ends with the block."""
    with ExitStack() as stack:
        gateway = stack.enter_context(StrictGateway(rate_limit=None, **options))
        yield Bench(gateway, stack)


def in_thread(work: Callable[[], Reply], stack: ExitStack) -> Future[Reply]:
    """Do `work` in a thread that the stack joins."""
    pool = stack.enter_context(ThreadPoolExecutor(1))
    return pool.submit(work)
