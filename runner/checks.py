"""Whether the gateway is there, accepts the signature and knows the run; and if not, what to do.

Asked before anything is started, so that a mistake costs nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Final, TypeVar
from urllib.parse import urlsplit

from config import RunnerError
from gateway_client import Credentials, GatewayClient, Outcome, is_confidential
from gateway_transport import VERIFIED, GatewayError, PinStore
from journal.events import encode_event
from places import state_path
from runner.plan import require_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config import Config
    from gateway_client import Count, GatewayClient, Reply
    from runner.console import Console

# How long to try a gateway that does not answer before the child is started.
_CHECK_PATIENCE_S: Final = 10.0
# The commands that end a run.
STOP: Final = "__STOP__"
HALT: Final = "__HALT__"
_RETRY_INTERVAL_S: Final = 0.5


def open_client(
    config: Config,
    console: Console,
    run_id: str = "",
    token: str = "",
    gateway_url: str = "",
    *,
    is_traced: bool = True,
    count: Count | None = None,
) -> GatewayClient:
    """Return a client for the configured gateway, or another one. One for each thread.

    `is_traced`: -vv tells what it does, in the gateway's words too. `count` counts that.
    """
    pins = PinStore(config.data_dir / "pins.json", console.warn, _verified_file())
    return GatewayClient(
        gateway_url or config.gateway_url,
        Credentials(config.hmac_secret, run_id, token),
        pins=pins if config.allow_self_signed else None,
        allow_http=config.allow_http,
        watch=console.trace if is_traced and console.verbosity >= 2 else None,
        count=count,
    )


def _verified_file() -> Path | None:
    """Return where it is kept whose certificate verified; None without a home folder."""
    state = state_path(os.environ)
    return None if state is None else Path(state, "verified.json")


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
        raise RunnerError(_explain(reply, config, speaks_other=_speaks_other(reply, client)))


def check_run(client: GatewayClient, run_id: str, config: Config, console: Console) -> list[Any]:
    """Ask the gateway whether it knows the run; return the commands that wait for it. Raises
    RunnerError with what to do.

    A rate limit is waited out; a gateway that does not answer is tried for `_CHECK_PATIENCE_S`.
    """
    deadline = time.monotonic() + _CHECK_PATIENCE_S
    try:
        console.progress(f"asking {client.base_url} for the run …")
        seen = client.glance(client.commands())
        if seen is not None:
            return list(seen.body)
        while True:
            console.progress(f"asking {client.base_url} for the run …")
            reply = client.send(client.commands())
            if reply.outcome is Outcome.ACCEPTED and isinstance(reply.body, list):
                return list(reply.body)
            if reply.outcome is Outcome.LIMITED:
                wait_s = min(max(reply.retry_after_s or 1.0, 1.0), 60.0)
                console.note(f"too many requests: the gateway asks to wait {wait_s:.0f} s")
                _wait(wait_s, "waiting for the gateway", console)
            elif _speaks_other(reply, client):
                raise RunnerError(_explain(reply, config, speaks_other=True))
            elif reply.outcome in (Outcome.UNKNOWN, Outcome.FAILED) and time.monotonic() < deadline:
                console.detail(f"the gateway does not answer yet: {reply.message}")
                _wait(_RETRY_INTERVAL_S, "the gateway does not answer yet", console)
            else:
                raise RunnerError(_explain(reply, config, run_id))
    finally:
        console.progress("")


def was_stopped(listed: list[Any]) -> bool:
    """Whether one of the commands that wait ends the run."""
    return any(isinstance(each, dict) and each.get("command") in (STOP, HALT) for each in listed)


def _speaks_other(reply: Reply, client: GatewayClient) -> bool:
    """Whether it is a gateway whose release has dropped this protocol: it is well, but unknowing.

    It has no such address, says so in JSON, and answers the health check as before.
    """
    error = reply.body.get("error") if isinstance(reply.body, dict) else None
    is_unknown = reply.status == 404 and str(error).lower() == "not found"
    return is_unknown and client.ask_health().outcome is Outcome.ACCEPTED


def _wait(seconds: float, why: str, console: Console) -> None:
    """Sleep, and count down at a terminal."""
    deadline = time.monotonic() + seconds
    left_s = seconds
    while left_s > 0:
        console.progress(f"{why} ({math.ceil(left_s)} s)")
        time.sleep(min(left_s, 1.0))
        left_s = deadline - time.monotonic()


def _explain(reply: Reply, config: Config, run_id: str = "", *, speaks_other: bool = False) -> str:
    """Turn a gateway's refusal into a sentence that says what to do."""
    if speaks_other:
        return (
            f"the gateway at {config.gateway_url} speaks another protocol: it answers, but has no "
            "/api/ingest and no commands for a run; use AiRemoteCoder up to commit 86f83c1 "
            "(2026-03-24), whose next commit removed them, or the gateway that comes with the "
            "runner (`claude-runner gateway`, in a clone of its repository)"
        )
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
            + ("" if "certificate" not in reply.message else _CERTIFICATE)
        )
    return f"the gateway at {config.gateway_url} rejects the request: {reply.message}"


_CERTIFICATE: Final = (
    "; if an authority of your own has signed it, name its file with REQUESTS_CA_BUNDLE, or set "
    "ALLOW_SELF_SIGNED=true to trust this certificate alone"
)


# === What `doctor` asks the gateway ===============================================================
#
# The part of `doctor` that asks the gateway what `test-connection` asks.

Finding = TypeVar("Finding")

# The gateway accepts 300 s. A clock that is this far off is not kept by anything, and drifts on.
_CLOCK_TOLERANCE_S: Final = 60.0


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

    if config.allow_self_signed and config.gateway_url.startswith("https:"):
        yield look_at("verified before", lambda: _check_verified(config))
    replies: list[Reply] = []
    try:
        client = open_client(config, console)
    except GatewayError as error:
        reason = str(error)
        yield look_at("gateway", lambda: ("fail", reason))
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
                "signature", lambda: ("fail", "HMAC_SECRET is not set, so nothing can be signed")
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


def _check_verified(config: Config) -> tuple[str, str]:
    """Say whether a self-signed certificate of the gateway would be refused, and by which file."""
    path = _verified_file()
    if path is None:
        return "note", (
            "without a home folder it is forgotten after each run whether the gateway's "
            "certificate verified; set HOME or XDG_STATE_HOME"
        )
    for each in (path.parent, path):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(each)
            if status.st_uid != os.geteuid():
                return "fail", (
                    f"{each} belongs to another user, who decides which gateway may show another "
                    "certificate; remove it, or set XDG_STATE_HOME to a folder of yours"
                )
            if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
                return "fail", f"other users can change {each}; `chmod go-w` it"
    host = _host(config)
    if PinStore(path, lambda _: None, content=VERIFIED).pinned(host) is None:
        return "ok", f"nothing is remembered of {host} in {path}"
    return "ok", (
        f"{host} is remembered in {path}, so a certificate that does not verify is refused; if the "
        "gateway really has one now, remove that line"
    )


def _host(config: Config) -> str:
    parts = urlsplit(config.gateway_url)
    return f"{parts.hostname}:{parts.port or 443}"


def _pinned(config: Config) -> str | None:
    """Return the fingerprint that is trusted for the configured gateway, if there is one."""
    pins = PinStore(config.data_dir / "pins.json", lambda _: None)
    try:
        return pins.pinned(_host(config))
    except GatewayError:
        return None  # the connection itself tells it


def _describe_trust(config: Config, before: str | None) -> tuple[str, str]:
    """Say why the connection that just succeeded was trusted."""
    if not config.gateway_url.startswith("https:"):
        if is_confidential(config.gateway_url):
            return "ok", "not needed: the gateway is on this machine"
        return "note", "none; anyone on the network in between can read the traffic"
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
        return "note", "the gateway reported no time"
    size = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the gateway's"
    if abs(ahead_s) > _CLOCK_TOLERANCE_S:
        return "fail", f"{size} (limit 300 s): set this machine's clock"
    # The gateway's `Date` is in whole seconds.
    return "ok", size if abs(ahead_s) >= 2 else "the same as the gateway's"
