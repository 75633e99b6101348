"""Signing, one HTTP attempt, and what its outcome means.

This module never retries and never decides what to do next: the caller holds on to a frozen
`Attempt` and repeats it byte for byte, because the gateway tells an accepted attempt from a new one
by its nonce alone. Redirects are not followed, netrc is not read, proxies come from the environment
but never serve loopback, and a reply is bounded in size and total time: the gateway may be broken.

One `GatewayClient` belongs to one thread; only `abort` may be called from another.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import hmac
import ipaddress
import json
import os
import re
import shlex
import string
import sys
import time
import zlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from gateway_transport import BodyError, ExchangeLimits, GatewayError, PinStore
from gateway_transport.glance import glance
from redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import requests

    from redact import RedactedText

# The gateway accepts a timestamp for 300 s. Until 280 s a repeated attempt surely arrives in time;
# from 310 s on no copy of it can be accepted any more, even with clocks that disagree a little.
ATTEMPT_RESEND_LIMIT_S: Final = 280.0
ATTEMPT_DEAD_S: Final = 310.0

_MAX_REPLY_BYTES: Final = 1_048_576
_REPLY_TIMEOUT_S: Final = 30.0
MAX_ARTIFACT_BYTES: Final = 52_428_800

_HEALTH: Final = "/api/health"
_USER_AGENT: Final = "claude-runner"
# What a reply is to be.
_ASKED: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}
_FILE_NAME_CHARS: Final = frozenset(string.ascii_letters + string.digits + "._-")


class Outcome(enum.Enum):
    """What one attempt tells about the request."""

    ACCEPTED = "accepted"
    REPLAYED = "an earlier copy was accepted"
    UNKNOWN = "no answer from the gateway: it may or may not have accepted the request"
    LIMITED = "not processed: too many requests"
    REFUSED = "the request is wrong and will not be accepted"
    FAILED = "the gateway failed to process it"
    WRONG_SECRET = "the signature is not accepted"  # noqa: S105 - a sentence
    WRONG_TOKEN = "the run id or token is not accepted"  # noqa: S105 - a sentence
    SKEWED = "the timestamp is out of range"

    @property
    def is_taken(self) -> bool:
        """Whether the gateway has the request, by this attempt or an earlier copy of it."""
        return self in (Outcome.ACCEPTED, Outcome.REPLAYED)

    @property
    def is_rejection(self) -> bool:
        """Whether it accepts nothing from this run until secret, token or clock is corrected."""
        return self in (Outcome.WRONG_SECRET, Outcome.WRONG_TOKEN, Outcome.SKEWED)


class RateLimit(NamedTuple):
    """Where the gateway says that the budget stands, for everything behind this IP address."""

    limit: int
    remaining: int
    reset_s: float


class Reply(NamedTuple):
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


class Clock(NamedTuple):
    """The two clocks that an attempt's age is told by: Unix time, and one that never jumps."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


# What the gateway's 200 must say before it counts: a proxy's page, or a load balancer's own
# `{"status":"ok"}`, says nothing about an event.
def says_ok(body: Any) -> bool:
    """Whether this is the gateway's answer to an event, an acknowledgement or an upload."""
    return isinstance(body, dict) and body.get("ok") is True


def says_healthy(body: Any) -> bool:
    """Whether this is the gateway's answer to the health check."""
    return isinstance(body, dict) and body.get("status") == "ok"


def lists_commands(body: Any) -> bool:
    """Whether this is the gateway's list of commands; what its items are is for the caller."""
    return isinstance(body, list)


class Attempt(NamedTuple):
    """One signed request, frozen: every repetition sends the same bytes.

    `timestamp` is Unix time in whole seconds; `signed_at` the monotonic time of signing, for an
    attempt from an earlier process the time of loading. `is_answer` knows the gateway's own 200.
    """

    method: str
    path: str
    body: bytes | MultipartFile
    content_type: str
    timestamp: int
    nonce: str
    signed_at: float
    query: str = ""
    is_answer: Callable[[Any], bool] = says_ok

    @property
    def target(self) -> str:
        """The path with its query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def age_s(self, clock: Clock) -> float:
        """Return the seconds since signing, by the larger of the wall and the monotonic clock."""
        return max(clock.wall() - self.timestamp, clock.monotonic() - self.signed_at)


class Credentials(NamedTuple):
    """What a request is signed with. `run_id` and `token` may be empty."""

    secret: str
    run_id: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return object.__repr__(self)  # without its values, which may be secrets


class MultipartFile:
    """A `multipart/form-data` body with one part named `file`, read from disk as it is sent.

    Its length is fixed at construction: the gateway cuts off silently what has none. `on_progress`
    is called for each block that the network has taken, but not when it takes it once more. Raises
    OSError for a file of no use.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        start: int = 0,
        size: int | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._start = start
        self._size = path.stat().st_size - start if size is None else size
        self._on_progress = on_progress
        boundary = new_nonce()
        self._head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{_safe_name(name)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("ascii")
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.content_type = f"multipart/form-data; boundary={boundary}"
        # Whether the network took all of it the last time; else no gateway can have stored it.
        self.was_read_whole = False
        # A gateway that fails on each copy at its end would pass for one that makes progress.
        self._least_left = self._size

    @property
    def is_there(self) -> bool:
        """Whether the file still has the bytes that it had when its upload was planned."""
        return self._path.is_file() and self._path.stat().st_size >= self._start + self._size

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        self.was_read_whole = False
        yield self._head
        left = self._size
        with self._path.open("rb") as source:
            source.seek(self._start)
            while left > 0:
                block = source.read(min(left, 65_536))
                if not block:
                    raise BodyError(f"{self._path} became shorter while it was uploaded")
                left -= len(block)
                yield block
                if left < self._least_left:
                    self._least_left = left
                    self._on_progress()
        yield self._tail
        self.was_read_whole = True


def _safe_name(name: str) -> str:
    """Return a file name that no header, shell or file system takes for anything else."""
    safe = "".join(c if c in _FILE_NAME_CHARS else "_" for c in name)
    return safe if safe.strip(".") else "file"


def new_nonce() -> str:
    """Return 16 random bytes as hex."""
    return os.urandom(16).hex()


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
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, whatever it begins with


def is_confidential(url: str) -> bool:
    """Whether the traffic to the gateway cannot be read on the way."""
    return urlsplit(url).scheme == "https" or is_loopback(url)


class Count(Protocol):
    """What counts exchanges."""

    def __call__(self, nonce: str, body_bytes: int, took_s: float, *, waits: bool) -> None:
        """Count one."""


class GatewayClient:
    """Sends attempts to one gateway, one at a time. Thread: its own; `abort` from any.

    `pins` accepts certificates that do not verify; without it they are refused. Raises
    GatewayError for an address that must not be used. Every attempt is dated by `clock`, and
    `watch` gets a line about every exchange; `count` its nonce, the size of its body, how long it
    took, and whether it waits for a command.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        pins: PinStore | None = None,
        allow_http: bool = False,
        clock: Clock | None = None,
        watch: Callable[[str], None] | None = None,
        count: Count | None = None,
    ) -> None:
        if not (allow_http or is_confidential(base_url)):
            raise GatewayError(
                f"GATEWAY_URL {base_url} is not encrypted; use https, or set "
                "CLAUDE_RUNNER_ALLOW_HTTP=true if you trust every network in between"
            )
        self.base_url = base_url.rstrip("/")
        self.clock = clock or Clock()
        self._watch = watch
        self._count = count
        self._credentials = credentials
        self._pins = pins
        self._limits = ExchangeLimits()
        is_plain = self.base_url.startswith("http:") and is_loopback(self.base_url)
        self._authorities = None if is_plain else _own_authorities()
        self._proxies = _find_proxy(self.base_url)
        self._opened: requests.Session | None = None

    def open(self) -> requests.Session:
        """Return the session; `requests` is imported for it, at the latest by an exchange."""
        if self._opened is None:
            from gateway_transport.adapter import Session

            self._opened = Session(self._limits, self._pins, self._authorities)
            self._opened.headers["User-Agent"] = _USER_AGENT
            self._opened.proxies.update(self._proxies)
        return self._opened

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.close()

    def abort(self) -> None:
        """End the exchange that is under way and every later one at once. Thread: any."""
        self._limits.abort()

    # --- requests ----------------------------------------------------------------------------

    def event(self, body: bytes, timestamp: int | None = None, nonce: str = "") -> Attempt:
        """Build the attempt that posts one event; `body` as `encode_event` makes it."""
        return self._build("POST", "/api/ingest/event", body, timestamp=timestamp, nonce=nonce)

    def commands(self, wait_s: int = 0) -> Attempt:
        """Build the attempt that asks for commands, waiting up to `wait_s` for one."""
        query = f"wait={wait_s}" if wait_s else ""
        return self._build(
            "GET", f"{self._run_path}/commands", query=query, is_answer=lists_commands
        )

    def acknowledge(
        self,
        command_id: str,
        result: RedactedText | None = None,
        error: RedactedText | None = None,
    ) -> Attempt:
        """Build the attempt that acknowledges a command. Its path holds a checked command id."""
        fields = {"result": result} if error is None else {"error": error}
        body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
        return self._build("POST", f"{self._run_path}/commands/{command_id}/ack", body)

    def artifact(
        self, file: MultipartFile, timestamp: int | None = None, nonce: str = ""
    ) -> Attempt:
        """Build the attempt that uploads one file, which holds redacted text alone."""
        return self._build(
            "POST",
            "/api/ingest/artifact",
            file,
            content_type=file.content_type,
            timestamp=timestamp,
            nonce=nonce,
        )

    def post(self, path: str, content: Mapping[str, Any], query: str = "") -> Attempt:
        """Build the attempt that posts JSON to an address of an extension."""
        body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        return self._build("POST", path, body, query=query)

    @property
    def _run_path(self) -> str:
        return f"/api/runs/{self._credentials.run_id}"

    def _build(
        self,
        method: str,
        path: str,
        body: bytes | MultipartFile = b"",
        *,
        query: str = "",
        content_type: str = "application/json",
        timestamp: int | None = None,
        nonce: str = "",
        is_answer: Callable[[Any], bool] = says_ok,
    ) -> Attempt:
        return Attempt(
            method,
            path,
            body,
            content_type if body else "",
            int(self.clock.wall()) if timestamp is None else timestamp,
            nonce or new_nonce(),
            self.clock.monotonic(),
            query,
            is_answer,
        )

    # --- exchange ----------------------------------------------------------------------------

    def health(self) -> Attempt:
        """Build the attempt that asks for the health check, which looks at no signature."""
        return self._build("GET", _HEALTH, is_answer=says_healthy)

    def ask_health(self) -> Reply:
        """Ask the gateway's health check, which is not signed."""
        return self._exchange("GET", _HEALTH, b"", {}, _REPLY_TIMEOUT_S, says_healthy)

    def send(self, attempt: Attempt, timeout_s: float = _REPLY_TIMEOUT_S) -> Reply:
        """Send one copy of the attempt. Raises nothing but GatewayError (certificate changed).

        Blocks for connecting, for the body at the slowest speed that makes sense, and up to
        `timeout_s` for the whole reply.
        """
        headers = self._sign(attempt)
        if attempt.content_type:
            headers["Content-Type"] = attempt.content_type
        return self._exchange(
            attempt.method, attempt.target, attempt.body, headers, timeout_s, attempt.is_answer
        )

    def glance(self, attempt: Attempt) -> Reply | None:
        """Send an attempt that asks, without `requests`; None if there was no plain answer.

        The attempt may have arrived: its nonce is used. Blocks for 10 s at most.
        """
        if not is_loopback(self.base_url):
            return None
        headers = {**self._sign(attempt), **_ASKED, "User-Agent": _USER_AGENT}
        begun_at = self.clock.monotonic()
        body = glance(self.base_url + attempt.target, headers, self._pins)
        reply = None if body is None else parse_reply(200, {}, body, is_answer=attempt.is_answer)
        if reply is None or not reply.outcome.is_taken:
            return None
        self._tell(attempt.method, attempt.target, 0, reply, begun_at, attempt.nonce)
        return reply

    def _sign(self, attempt: Attempt) -> dict[str, str]:
        """Return the headers that sign an attempt."""
        # A multipart body is hashed as empty, and so is that of a GET, which has none.
        signed_body = attempt.body if isinstance(attempt.body, bytes) else b""
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
        return headers

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | MultipartFile,
        headers: Mapping[str, str],
        timeout_s: float,
        is_answer: Callable[[Any], bool],
    ) -> Reply:
        headers = {**headers, **_ASKED}
        session = self.open()
        begun_at = self.clock.monotonic()
        try:
            self._limits.begin(len(body), timeout_s)
            with session.request(
                method,
                self.base_url + target,
                data=body or None,
                headers=headers,
                allow_redirects=False,
                stream=True,
            ) as response:
                reply = self._read(response, is_answer)
        except GatewayError:
            raise
        except Exception as error:  # noqa: BLE001 - what the libraries raise is theirs to change
            from gateway_transport.adapter import describe_error

            reply = Reply(Outcome.UNKNOWN, message=describe_error(error))
        finally:
            if self._limits.has_stalled:
                # The rest of the request is still owed on this connection.
                session.close()
        self._tell(method, target, len(body), reply, begun_at, headers.get("X-Nonce", ""))
        return reply

    def _tell(
        self,
        method: str,
        target: str,
        body_bytes: int,
        reply: Reply,
        begun_at: float,
        nonce: str,
    ) -> None:
        took_s = self.clock.monotonic() - begun_at
        if self._count is not None:
            self._count(nonce, body_bytes, took_s, waits="?wait=" in target)
        if self._watch is not None:
            said = reply.message or reply.outcome.name.lower()
            took = f"after {took_s * 1_000:.0f} ms"
            self._watch(f"{method} {target} ({body_bytes} bytes): {said}, {took}")

    def _read(self, response: requests.Response, is_answer: Callable[[Any], bool]) -> Reply:
        status = response.status_code
        encoding = response.headers.get("content-encoding", "")
        received = bytearray()
        # Decoded below, where what becomes of a small answer is bounded.
        for block in response.raw.stream(65_536, decode_content=False):
            received += block
            if len(received) > _MAX_REPLY_BYTES:
                break
        try:
            raw = _decode(bytes(received), encoding.strip().lower())
        except (ValueError, zlib.error):
            problem = f"the reply cannot be decoded ({printable(encoding, 40)})"
            return Reply(Outcome.UNKNOWN, status, message=problem)
        if max(len(received), len(raw)) > _MAX_REPLY_BYTES:
            return Reply(Outcome.UNKNOWN, status, message="the reply is longer than 1 MiB")
        return parse_reply(
            status,
            response.headers,
            raw,
            is_answer=is_answer,
            now=self.clock.wall(),
        )


def _decode(raw: bytes, encoding: str) -> bytes:
    """Return a body as it was before a proxy encoded it, though it was asked not to.

    Of one that is too long, only so much that this shows. Raises ValueError or zlib.error.
    """
    if encoding in ("", "identity") or not raw:
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(encoding)
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # its head tells gzip from deflate
    decoded = decoder.decompress(raw, _MAX_REPLY_BYTES + 1)
    if len(decoded) <= _MAX_REPLY_BYTES and (not decoder.eof or decoder.unused_data):
        raise ValueError(encoding)
    return decoded


def _own_authorities() -> str | None:
    """Return the user's file or folder of authorities; None for those that requests brings."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(variable)
        if path:
            reason = _find_fault(path)
            if reason:
                raise GatewayError(f"{variable} names {path}, which {reason}; correct it")
            return path
    return None


@functools.lru_cache(maxsize=4)
def _find_fault(path: str) -> str:
    """Say why a file or folder is no use as authorities; nothing if it is."""
    if not os.path.exists(path):
        return "does not exist"
    if os.path.isdir(path):
        is_hashed = any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in os.listdir(path))
        return "" if is_hashed else "is a folder without hashed certificates (`openssl rehash`)"
    if not os.path.isfile(path):
        return "is not a file"
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "holds no certificate in PEM format"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


_SOCKS: Final = ("socks5", "socks5h", "socks4", "socks4a")


def _find_proxy(url: str) -> dict[str, str]:
    """Return the proxy for an address, as requests takes it. Raises GatewayError."""
    if is_loopback(url) or _is_in_no_proxy(url):
        return {}
    import requests

    given = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    if not given.strip():
        return {}
    scheme, separator, rest = given.partition("://")
    # Desktops write socks:// for whatever speaks SOCKS.
    scheme = {"socks": "socks5h"}.get(scheme.lower(), scheme.lower()) if separator else "http"
    proxy = f"{scheme}://{rest if separator else given}"
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    spelled = [each for name in names for each in (name, name.upper())]
    variable = next((each for each in spelled if os.environ.get(each) == given), "the system")
    if scheme not in ("http", "https", *_SOCKS) or not _has_host(proxy):
        raise GatewayError(
            f"{variable} names a proxy that cannot be used; write http://HOST:PORT or "
            "socks5h://HOST:PORT, or except the gateway with NO_PROXY"
        )
    if scheme in _SOCKS and find_spec("socks") is None:
        # Beside requests: an isolated Python does not see the user's own packages.
        folder = os.path.dirname(os.path.dirname(requests.__file__))
        install = f"{shlex.quote(sys.executable)} -m pip install --target {shlex.quote(folder)}"
        raise GatewayError(
            f"{variable} names a SOCKS proxy, which needs the package PySocks; install it "
            f"(`{install} PySocks`), or except the gateway with NO_PROXY"
        )
    return {"all": proxy}


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_in_no_proxy(url: str) -> bool:
    """Whether an address, not a name, is in NO_PROXY: requests knows no IPv6 in it."""
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address((parts.hostname or "").partition("%")[0])
    except ValueError:
        return False
    addresses = {address, getattr(address, "ipv4_mapped", None) or address}
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for entry in re.split(r"[,\s]+", named):
        match = re.fullmatch(r"\[([^\]/]*)(/\d+)?\](/\d+)?(?::(\d+))?", entry)
        text = entry
        if match:  # as in an address, perhaps with a port
            if match[4] and int(match[4]) != (parts.port or _PORTS[parts.scheme]):
                continue
            text = match[1] + (match[2] or match[3] or "")
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if any(each in network for each in addresses):
            return True
    return False


_PORTS: Final = {"http": 80, "https": 443}


def parse_reply(
    status: int,
    headers: Mapping[str, str],
    raw: bytes,
    *,
    is_answer: Callable[[Any], bool] = says_ok,
    now: float | None = None,
) -> Reply:
    """Say what an HTTP answer means. Raises nothing.

    Only the gateway's own JSON counts: an answer of any other shape comes from something in
    between and says nothing about what the gateway has, except 413 and 429, which mean that
    the request was not processed. `now` is Unix time.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    outcome = _outcome(status, body, is_answer)
    return Reply(
        outcome,
        status,
        body,
        _message(status, body, outcome),
        _seconds(headers.get("retry-after")),
        _rate_limit(headers),
        _clock_ahead(headers.get("date"), time.time() if now is None else now),
    )


def _outcome(status: int, body: Any, is_answer: Callable[[Any], bool]) -> Outcome:
    if status == 429:
        return Outcome.LIMITED
    if status == 413:
        return Outcome.REFUSED
    if status == 200:
        return Outcome.ACCEPTED if is_answer(body) else Outcome.UNKNOWN
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        for refusal_status, beginning, outcome in _REFUSALS:
            if status == refusal_status and error.startswith(beginning):
                return outcome
    return Outcome.UNKNOWN


# The gateway's refusals by status and how `error` begins. A 401 or 403 of another
# server, such as a login page in front of it, is not the gateway's refusal.
_REFUSALS: Final = (
    (400, "", Outcome.REFUSED),
    (401, "Nonce already used", Outcome.REPLAYED),
    (401, "Request timestamp", Outcome.SKEWED),
    (401, "Invalid signature", Outcome.WRONG_SECRET),
    (401, "Missing authentication headers", Outcome.WRONG_SECRET),
    (403, "Invalid capability token", Outcome.WRONG_TOKEN),
    (403, "Capability token mismatch", Outcome.WRONG_TOKEN),
    (406, "", Outcome.REFUSED),
    (415, "", Outcome.REFUSED),
    (500, "", Outcome.FAILED),
)


def _message(status: int, body: Any, outcome: Outcome) -> str:
    """Return the gateway's reason, or what kind of answer came instead of one."""
    texts = [body.get(name) for name in ("error", "message")] if isinstance(body, dict) else []
    reason = ": ".join(text for text in texts if isinstance(text, str) and text)
    if outcome is Outcome.UNKNOWN:
        reason = (
            f"HTTP status {status}{f' ({reason})' if reason else ''}, not the gateway's own answer"
        )
    return printable(reason) if reason else f"HTTP status {status}"


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


def _clock_ahead(date: str | None, now: float) -> float | None:
    if not date:
        return None
    import email.utils

    try:
        return now - email.utils.parsedate_to_datetime(date).timestamp()
    except Exception:  # noqa: BLE001 - email.utils raises half a dozen kinds for malformed dates
        return None
