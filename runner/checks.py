"""Whether the gateway is there, accepts the signature and knows the run; and if not, what to do.

Asked before anything is started, so that a mistake costs nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Final, TypeVar
from urllib.parse import urlsplit

from config import RunnerError
from gateway_client import Credentials, GatewayClient, Outcome, is_confidential
from gateway_transport import GatewayError, PinStore
from journal.events import encode_event
from places import state_path
from runner.plan import require_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config import Config
    from gateway_client import GatewayClient, Reply
    from runner.console import Console

# How long to try a gateway that does not answer before the child is started.
_CHECK_PATIENCE_S: Final = 10.0
_RETRY_INTERVAL_S: Final = 0.5


def open_client(
    config: Config,
    console: Console,
    run_id: str = "",
    token: str = "",
    gateway_url: str = "",
    *,
    is_traced: bool = True,
) -> GatewayClient:
    """Return a client for the configured gateway, or another one. One for each thread.

    `is_traced`: -vv tells what it does, in the gateway's words too.
    """
    state = state_path(os.environ)
    verified = None if state is None else Path(state, "verified.json")
    pins = PinStore(config.data_dir / "pins.json", console.warn, verified)
    return GatewayClient(
        gateway_url or config.gateway_url,
        Credentials(config.hmac_secret, run_id, token),
        pins=pins if config.allow_self_signed else None,
        allow_http=config.allow_http,
        watch=console.trace if is_traced and console.verbosity >= 2 else None,
    )


def check_health(client: GatewayClient, config: Config) -> Reply:
    """Ask the gateway, unsigned, whether it is there. Raises RunnerError with what to do."""
    reply = client.ask_health()
    if reply.outcome is not Outcome.ACCEPTED:
        raise RunnerError(_explain(reply, config))
    return reply


def check_secret(client: GatewayClient, config: Config) -> None:
    """Ask the gateway, without a run, whether it accepts our signature. Raises RunnerError."""
    # A signed event without a run is refused for the missing run only if the signature is right.
    reply = client.send(client.event(encode_event("info", "", 0)))
    if not (reply.outcome is Outcome.REFUSED and reply.status == 400):
        raise RunnerError(_explain(reply, config))


def check_run(client: GatewayClient, run_id: str, config: Config, console: Console) -> None:
    """Ask the gateway whether it knows the run. Raises RunnerError with what to do.

    A rate limit is waited out; a gateway that does not answer is tried for `_CHECK_PATIENCE_S`.
    """
    deadline = time.monotonic() + _CHECK_PATIENCE_S
    try:
        while True:
            console.progress(f"asking {client.base_url} for the run …")
            reply = client.send(client.commands())
            if reply.outcome is Outcome.ACCEPTED and isinstance(reply.body, list):
                return
            if reply.outcome is Outcome.LIMITED:
                wait_s = min(max(reply.retry_after_s or 1.0, 1.0), 60.0)
                console.note(f"too many requests: the gateway asks to wait {wait_s:.0f} s")
                _wait(wait_s, "waiting for the gateway", console)
            elif reply.outcome in (Outcome.UNKNOWN, Outcome.FAILED) and time.monotonic() < deadline:
                console.detail(f"the gateway does not answer yet: {reply.message}")
                _wait(_RETRY_INTERVAL_S, "the gateway does not answer yet", console)
            else:
                raise RunnerError(_explain(reply, config, run_id))
    finally:
        console.progress("")


def _wait(seconds: float, why: str, console: Console) -> None:
    """Sleep, and count down at a terminal."""
    deadline = time.monotonic() + seconds
    left_s = seconds
    while left_s > 0:
        console.progress(f"{why} ({math.ceil(left_s)} s)")
        time.sleep(min(left_s, 1.0))
        left_s = deadline - time.monotonic()


def _explain(reply: Reply, config: Config, run_id: str = "") -> str:
    """Turn a gateway's refusal into a sentence that says what to do."""
    if reply.outcome is Outcome.WRONG_SECRET:
        return (
            "the gateway does not accept the signature; HMAC_SECRET "
            f"({config.sources['HMAC_SECRET']}) must be the gateway's own"
        )
    if reply.outcome is Outcome.WRONG_TOKEN:
        return (
            f"the gateway does not know run {run_id} with this token; copy both from the "
            "gateway's page, or create a new run"
        )
    if reply.outcome is Outcome.SKEWED:
        ahead_s = reply.clock_ahead_s or 0.0
        side = "ahead of" if ahead_s > 0 else "behind"
        return (
            f"clock skew is {abs(ahead_s):.0f} s (limit 300 s): this machine's clock is {side} the "
            "gateway's; set it"
        )
    if reply.outcome is Outcome.UNKNOWN and reply.status:
        return (
            f"{config.gateway_url} did not answer like a gateway: {reply.message}; check "
            f"GATEWAY_URL ({config.sources['GATEWAY_URL']}), and any proxy in between"
        )
    if reply.outcome is Outcome.UNKNOWN:
        return (
            f"the gateway at {config.gateway_url} cannot be reached: {reply.message}; check "
            f"GATEWAY_URL ({config.sources['GATEWAY_URL']}) and that the gateway runs"
            + ("" if "certificate" not in reply.message else ", or set ALLOW_SELF_SIGNED=true")
        )
    return f"the gateway at {config.gateway_url} rejects the request: {reply.message}"
