"""Signing, one HTTP attempt, and what its outcome means.

This module never retries and never decides what to do next: the caller holds on to a frozen
`Attempt` and repeats it byte for byte, because the gateway tells an accepted attempt from a new one
by its nonce alone. Redirects are not followed, netrc is not read, proxies come from the environment
but never serve loopback, and a reply is bounded in size and total time: the gateway may be broken.

One `GatewayClient` belongs to one thread; only `abort` may be called from another.
"""

from __future__ import annotations

import email.utils
import enum
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from gateway_transport import (
    BoundedAdapter,
    ExchangeLimits,
    GatewayError,
    PinStore,
    describe_error,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from redact import RedactedText

# The gateway accepts a timestamp for 300 s. Until 280 s a repeated attempt surely arrives in time;
# from 310 s on no copy of it can be accepted any more, even with clocks that disagree a little.
ATTEMPT_RESEND_LIMIT_S: Final = 280.0
ATTEMPT_DEAD_S: Final = 310.0

MAX_REPLY_BYTES: Final = 1_048_576
CONNECT_TIMEOUT_S: Final = 10.0
REPLY_TIMEOUT_S: Final = 30.0
MAX_ARTIFACT_BYTES: Final = 52_428_800
# The gateway's limits of an acknowledgement, in UTF-16 code units.
MAX_ACK_ERROR_UNITS: Final = 100_000

_LOOPBACK_NAMES: Final = frozenset({"localhost", "::1"})


class Outcome(enum.Enum):
    """What one attempt tells about the request."""

    ACCEPTED = "accepted"
    REPLAYED = "an earlier copy was accepted"
    UNKNOWN = "no answer of the gateway's own: it may have it or not"
    LIMITED = "not looked at: too many requests"
    REFUSED = "the request is wrong and will not be accepted"
    FAILED = "the gateway failed on it"
    WRONG_SECRET = "the signature is not accepted"  # noqa: S105 - a sentence
    WRONG_TOKEN = "the run id or token is not accepted"  # noqa: S105 - a sentence
    SKEWED = "the timestamp is out of range"


@dataclass(frozen=True)
class RateLimit:
    """Where the gateway says that the budget stands, for everything behind this IP address."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True)
class Reply:
    """The outcome of one attempt.

    `body` is the gateway's JSON, or None. `message` is its reason, printable and bounded, safe to
    show. `status` is 0 when there was no HTTP answer. `clock_ahead_s` is how far this machine's
    clock is ahead of the gateway's `Date`.
    """

    outcome: Outcome
    status: int = 0
    body: Any = None
    message: str = ""
    retry_after_s: float | None = None
    rate_limit: RateLimit | None = None
    clock_ahead_s: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One signed request, frozen: every repetition sends the same bytes.

    `timestamp` is Unix time in whole seconds; `signed_at` the monotonic time of signing, for an
    attempt from an earlier process the time of loading.
    """

    method: str
    path: str
    body: bytes | MultipartFile
    content_type: str
    timestamp: int
    nonce: str
    query: str = ""
    signed_at: float = field(default_factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """Seconds since signing, by the larger of the wall and the monotonic clock."""
        return max(time.time() - self.timestamp, time.monotonic() - self.signed_at)


@dataclass(frozen=True)
class Credentials:
    """What a request is signed with. `run_id` and `token` may be empty."""

    secret: str = field(repr=False)
    run_id: str = ""
    token: str = field(default="", repr=False)


class MultipartFile:
    """A `multipart/form-data` body with one part named `file`, read from disk as it is sent.

    Its length is fixed at construction: the gateway cuts off silently what has none.
    """

    def __init__(self, path: Path, name: str, start: int = 0, size: int | None = None) -> None:
        self._path = path
        self._start = start
        self._size = path.stat().st_size - start if size is None else size
        boundary = secrets.token_hex(16)
        safe_name = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        self._head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{safe_name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("ascii", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.content_type = f"multipart/form-data; boundary={boundary}"

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        left = self._size
        with self._path.open("rb") as source:
            source.seek(self._start)
            while left > 0:
                block = source.read(min(left, 65_536))
                if not block:
                    raise OSError(f"{self._path} became shorter while it was uploaded")
                left -= len(block)
                yield block
        yield self._tail


def new_nonce() -> str:
    """Return 16 random bytes as hex."""
    return secrets.token_hex(16)


def sign(
    credentials: Credentials, method: str, path: str, body: bytes, timestamp: int, nonce: str
) -> str:
    """Return the request's signature.

    Shape: lowercase hex of HMAC-SHA256. `path` is without the query; `body` is empty for a GET and
    for a multipart upload, else the exact bytes that are sent. Source: docs/protocol.md, "Signing".
    """
    message = "\n".join(
        (
            method.upper(),
            path,
            hashlib.sha256(body).hexdigest(),
            str(timestamp),
            nonce,
            credentials.run_id,
            credentials.token,
        )
    )
    return hmac.new(
        credentials.secret.encode("utf-8"), message.encode("utf-8"), hashlib.sha256
    ).hexdigest()


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by its name alone."""
    host = urlsplit(url).hostname or ""
    return host in _LOOPBACK_NAMES or host.endswith(".localhost") or host.startswith("127.")


def is_confidential(url: str) -> bool:
    """Whether nobody on the way to the gateway can read along."""
    return urlsplit(url).scheme == "https" or is_loopback(url)


class GatewayClient:
    """Sends attempts to one gateway, one at a time. Thread: its own; `abort` from any.

    `pins` accepts certificates that do not verify; without it they are refused. Raises
    GatewayError for an address that must not be used.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        pins: PinStore | None = None,
        allow_http: bool = False,
    ) -> None:
        if not (allow_http or is_confidential(base_url)):
            raise GatewayError(
                f"GATEWAY_URL {base_url} is not encrypted; use https, or set "
                "CLAUDE_RUNNER_ALLOW_HTTP=true if you trust every network in between"
            )
        self.base_url = base_url.rstrip("/")
        self._credentials = credentials
        self._limits = ExchangeLimits()
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = BoundedAdapter(self._limits, pins)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._session.headers["User-Agent"] = "claude-runner"
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._session.verify = bundle or True
        if not is_loopback(self.base_url):
            self._session.proxies.update(requests.utils.get_environ_proxies(self.base_url))

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def abort(self) -> None:
        """End the exchange that is under way and every later one at once. Thread: any."""
        self._limits.abort()

    # --- requests ----------------------------------------------------------------------------

    def event(self, body: bytes, timestamp: int | None = None, nonce: str = "") -> Attempt:
        """Build the attempt that posts one event; `body` as `spool.encode_event` makes it."""
        return Attempt(
            "POST",
            "/api/ingest/event",
            body,
            "application/json",
            int(time.time()) if timestamp is None else timestamp,
            nonce or new_nonce(),
        )

    def commands(self, wait_s: int = 0) -> Attempt:
        """Build the attempt that asks for commands, waiting up to `wait_s` for one."""
        return self._build(
            "GET", f"{self._run_path}/commands", query=f"wait={wait_s}" if wait_s else ""
        )

    def acknowledge(
        self,
        command_id: str,
        result: RedactedText | None = None,
        error: RedactedText | None = None,
    ) -> Attempt:
        """Build the attempt that acknowledges a command. Its path holds a checked command id."""
        fields = {"result": result} if error is None else {"error": error}
        body = json.dumps(fields, ensure_ascii=False).encode("utf-8")
        return self._build("POST", f"{self._run_path}/commands/{command_id}/ack", body)

    def artifact(self, file: MultipartFile) -> Attempt:
        """Build the attempt that uploads one file, which holds redacted text alone."""
        return Attempt(
            "POST",
            "/api/ingest/artifact",
            file,
            file.content_type,
            int(time.time()),
            new_nonce(),
        )

    @property
    def _run_path(self) -> str:
        return f"/api/runs/{self._credentials.run_id}"

    def _build(self, method: str, path: str, body: bytes = b"", query: str = "") -> Attempt:
        content_type = "application/json" if body else ""
        return Attempt(method, path, body, content_type, int(time.time()), new_nonce(), query=query)

    # --- exchange ----------------------------------------------------------------------------

    def is_healthy(self) -> Reply:
        """Ask the gateway's health check, which is not signed."""
        return self._exchange("GET", "/api/health", b"", {}, REPLY_TIMEOUT_S)

    def send(self, attempt: Attempt, timeout_s: float = REPLY_TIMEOUT_S) -> Reply:
        """Send one copy of the attempt. Raises nothing but GatewayError (certificate changed).

        Blocks up to `timeout_s` after connecting.
        """
        signed_body = attempt.body if isinstance(attempt.body, bytes) else b""
        if attempt.method == "GET":
            signed_body = b""
        headers = {
            "X-Timestamp": str(attempt.timestamp),
            "X-Nonce": attempt.nonce,
            "X-Signature": sign(
                self._credentials,
                attempt.method,
                attempt.path,
                signed_body,
                attempt.timestamp,
                attempt.nonce,
            ),
        }
        if self._credentials.run_id:
            headers["X-Run-Id"] = self._credentials.run_id
            headers["X-Capability-Token"] = self._credentials.token
        if attempt.content_type:
            headers["Content-Type"] = attempt.content_type
        target = f"{attempt.path}?{attempt.query}" if attempt.query else attempt.path
        return self._exchange(attempt.method, target, attempt.body, headers, timeout_s)

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | MultipartFile,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Reply:
        self._limits.deadline = time.monotonic() + CONNECT_TIMEOUT_S + timeout_s
        headers = {**headers, "Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            with self._session.request(
                method,
                self.base_url + target,
                data=body or None,
                headers=headers,
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return Reply(Outcome.UNKNOWN, message=describe_error(error))

    def _read(self, response: requests.Response) -> Reply:
        received = bytearray()
        for block in response.iter_content(65_536):
            received += block
            if len(received) > MAX_REPLY_BYTES:
                return Reply(
                    Outcome.UNKNOWN, response.status_code, message="the reply is longer than 1 MiB"
                )
        return parse_reply(response.status_code, response.headers, bytes(received))


def parse_reply(status: int, headers: Mapping[str, str], raw: bytes) -> Reply:
    """Say what an HTTP answer means. Pure but for the clock; raises nothing.

    Only the gateway's own JSON counts: an answer of any other shape comes from something in
    between and says nothing about what the gateway has, but for 413 and 429, which say that
    whoever answered did not look at the request.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    reply = {
        "status": status,
        "body": body,
        "message": _message_of(body, status),
        "retry_after_s": _seconds(headers.get("retry-after")),
        "rate_limit": _rate_limit(headers),
        "clock_ahead_s": _clock_ahead(headers.get("date")),
    }
    return Reply(_outcome(status, body, str(reply["message"])), **reply)


def _outcome(status: int, body: Any, message: str) -> Outcome:
    if status == 429:
        return Outcome.LIMITED
    if status == 413:
        return Outcome.REFUSED
    if status == 200:
        is_answer = isinstance(body, list) or (
            isinstance(body, dict) and (body.get("ok") is True or body.get("status") == "ok")
        )
        return Outcome.ACCEPTED if is_answer else Outcome.UNKNOWN
    if not (isinstance(body, dict) and isinstance(body.get("error"), str)):
        return Outcome.UNKNOWN
    if status == 401:
        return _outcome_401(message)
    return {
        400: Outcome.REFUSED,
        403: Outcome.WRONG_TOKEN,
        406: Outcome.REFUSED,
        415: Outcome.REFUSED,
        500: Outcome.FAILED,
    }.get(status, Outcome.UNKNOWN)


def _outcome_401(message: str) -> Outcome:
    if message.startswith("Nonce already used"):
        return Outcome.REPLAYED
    if message.startswith("Request timestamp"):
        return Outcome.SKEWED
    return Outcome.WRONG_SECRET


def _message_of(body: Any, status: int) -> str:
    text = ""
    if isinstance(body, dict):
        text = next((body[k] for k in ("error", "message") if isinstance(body.get(k), str)), "")
    return printable(text) if text else f"HTTP status {status}"


def _rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    limit, remaining, reset_s = (
        _seconds(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining", "reset")
    )
    if limit is None or remaining is None or reset_s is None or limit < 1:
        return None
    return RateLimit(int(limit), int(remaining), min(reset_s, 3_600.0))


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e9 else None


def _clock_ahead(date: str | None) -> float | None:
    try:
        return time.time() - email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except (TypeError, ValueError, OverflowError):
        return None
