"""The part of `doctor` that asks the gateway what `test-connection` asks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, Final, TypeVar
from urllib.parse import urlsplit

from config import RunnerError
from gateway_client import is_confidential
from gateway_transport import GatewayError, PinStore
from runner.checks import check_health, check_run, check_secret, open_client
from runner.plan import require_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config import Config
    from gateway_client import GatewayClient, Reply
    from runner.console import Console


Finding = TypeVar("Finding")

# The gateway accepts 300 s. A clock that is this far off is not kept by anything, and drifts on.
CLOCK_TOLERANCE_S: Final = 60.0


def ask_gateway(
    config: Config,
    run_id: str | None,
    console: Console,
    check: Callable[[str, Callable[[], tuple[str, str]]], Finding],
) -> Iterator[Finding]:
    """Yield each finding as soon as it is there; `check` looks at one thing."""

    def look_at(name: str, look: Callable[[], tuple[str, str]]) -> Finding:
        def in_one_sentence() -> tuple[str, str]:
            try:
                return look()
            except GatewayError as error:
                raise RunnerError(str(error)) from error

        return check(name, in_one_sentence)

    replies: list[Reply] = []
    try:
        client = open_client(config, console)
    except GatewayError as error:
        reason = str(error)
        yield look_at("gateway", lambda: ("mend", reason))
        return
    with contextlib.closing(client):
        before = _pinned(config)

        def reach() -> tuple[str, str]:
            replies.append(check_health(client, config))
            return "ok", f"{config.gateway_url} answers"

        yield look_at("gateway", reach)
        if not replies:
            return
        yield look_at("TLS", lambda: _describe_trust(config, before))
        yield look_at("clock", lambda: _check_clock(replies[0]))
        if config.hmac_secret:
            yield look_at("signature", lambda: _check_signature(client, config))
        else:
            yield look_at(
                "signature", lambda: ("mend", "without HMAC_SECRET nothing can be signed")
            )
    if run_id is not None and config.hmac_secret:
        yield look_at("run", lambda: _check_run(config, run_id, console))


def _check_run(config: Config, run_id: str, console: Console) -> tuple[str, str]:
    require_run(run_id, config)
    client = open_client(config, console, run_id, config.token)
    with contextlib.closing(client):
        check_run(client, run_id, config, console)
    return "ok", f"{run_id} is there, and the token is right"


def _check_signature(client: GatewayClient, config: Config) -> tuple[str, str]:
    check_secret(client, config)
    return "ok", "the gateway accepts it"


def _pinned(config: Config) -> str | None:
    """Return the fingerprint that is trusted for the configured gateway, if there is one."""
    parts = urlsplit(config.gateway_url)
    host = f"{parts.hostname}:{parts.port or 443}"
    pins = PinStore(config.data_dir / "pins.json", lambda _: None)
    try:
        return pins.pinned(host)
    except GatewayError:
        return None  # the connection itself tells it


def _describe_trust(config: Config, before: str | None) -> tuple[str, str]:
    """Say why the connection that just succeeded was trusted."""
    if not config.gateway_url.startswith("https:"):
        if is_confidential(config.gateway_url):
            return "ok", "none, and none is needed: the gateway is on this machine"
        return "note", "none; everybody between here and the gateway can read along"
    now = _pinned(config) if config.allow_self_signed else None
    if now is None:
        return "ok", "the certificate verifies"
    shown = f"SHA-256 {now[:16]}…"
    if before is None:
        return "ok", f"the certificate is self-signed and trusted from now on ({shown})"
    return "ok", f"the certificate is the one that was trusted before ({shown})"


def _check_clock(reply: Reply) -> tuple[str, str]:
    ahead_s = reply.clock_ahead_s
    if ahead_s is None:
        return "note", "the gateway does not say what time it has"
    size = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the gateway's"
    if abs(ahead_s) > CLOCK_TOLERANCE_S:
        return "mend", f"{size}, and 300 s are accepted; set the clock"
    # The gateway's `Date` is in whole seconds.
    return "ok", size if abs(ahead_s) >= 2 else "the same as the gateway's"
