"""A strict gateway: an oracle for the wire protocol, over real HTTP, with a fault script.

Written from docs/protocol.md alone, with the standard library alone, and independent of every other
implementation here, so that a mistake that client and gateway share is still found. It checks all
that the protocol promises, records all that it is sent, and refuses in the documented shapes. What
a correct client would never do is noted as a violation besides, and leaving the `with` block raises
if there are any that the test did not `allow`.

    with StrictGateway() as gw:
        run = gw.create_run()
        gw.faults.add(Fault("event", DropAfter()))
        ...                                           # a client works against gw.url
        gw.wait_for(lambda: gw.status(run.id) == "done")
        assert gw.text(run.id) == "hello\\n"
        assert gw.verify_finished(run.id) == []

Thread: every public method may be called from any thread. All state is behind one condition.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import ssl
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

from testing.gateways.faults import FaultScript, error_reply, rate_limited_reply
from testing.gateways.gateway_records import (
    Ack,
    AnyGateway,
    Artifact,
    Command,
    Event,
    Request,
    RequestRecord,
    Run,
    RunState,
)
from testing.gateways.gateway_rules import GatewayRules
from testing.gateways.http_server import (
    HOST,
    BadRequestError,
    BodyTooLargeError,
    Connection,
    Head,
    LoopbackServer,
    PeerGoneError,
    Reply,
    http_date,
)
from testing.gateways.wire import (
    MAX_ARTIFACT_BYTES,
    MAX_BODY_BYTES,
    expected_signature,
    find_route,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    # Only tests with TLS pay for the import of a cryptography library.
    from testing.gateways.certificates import Authority, Certificate

__all__ = [
    "Ack",
    "Artifact",
    "Event",
    "RequestRecord",
    "Run",
    "StrictGateway",
    "expected_signature",
]

T = TypeVar("T")

# What the headers announce when the test sets no limit: more than any test sends.
NO_LIMIT = (1_000_000, 60.0)

# An early 413 leaves the connection open and its body unread, but not for ever.
_HOLD_S = 60.0


class _Exchange:
    """One request and its answer, as fault actions see it."""

    def __init__(self, gateway: StrictGateway, request: Request) -> None:
        self.request = request
        self._gateway = gateway
        self._connection = request.connection

    def handle(self) -> Reply:
        return self._gateway._handle(self.request)

    def authenticate(self) -> Reply | None:
        reply = self._gateway._handle(self.request, only_authenticate=True)
        return reply if reply.status >= 400 else None

    def answer(self, reply: Reply) -> None:
        self._gateway._answer(self.request, reply)

    def send(self, reply: Reply) -> None:
        self.send_raw(reply.status, reply.encode())

    def send_raw(self, status: int | None, data: bytes) -> None:
        self._gateway._note_status(self.request.record, status)
        self._connection.send(data)

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self._connection.reset()
        self._connection.close()

    def wait(self, timeout_s: float | None, until: Callable[[], bool]) -> None:
        self._gateway._wait_unless_shut(self._connection, timeout_s, until)


class _RateWindow:
    """A fixed window that begins with its first request. Thread: under the gateway's condition."""

    def __init__(self) -> None:
        self.limit: tuple[int, float] | None = None
        self._ends_at = 0.0
        self._used = 0

    def reset(self) -> None:
        self._ends_at = 0.0

    def take(self) -> bool:
        """Count one request; say whether it is within the limit."""
        requests, window_s = self.limit or NO_LIMIT
        now = time.monotonic()
        if now >= self._ends_at:
            self._ends_at = now + window_s
            self._used = 0
        self._used += 1
        return self._used <= requests

    def seconds_left(self) -> int:
        return max(1, math.ceil(self._ends_at - time.monotonic()))

    def headers(self) -> dict[str, str]:
        requests = (self.limit or NO_LIMIT)[0]
        return {
            "x-ratelimit-limit": str(requests),
            "x-ratelimit-remaining": str(max(0, requests - self._used)),
            "x-ratelimit-reset": str(self.seconds_left()),
        }


class StrictGateway(GatewayRules, AnyGateway):
    """The gateway; see the module. A context manager that listens inside its `with` block.

    These may be set at any time: `clock_offset_s` (its clock runs ahead by that much), `rate_limit`
    (requests, seconds) or None, `rate_headers` (whether replies tell about it), `long_poll`,
    `idempotent`, `extensions` (what its health lists), `enforce_data_limit` (refuse event data over
    the limit; it is a violation anyway).
    """

    def __init__(
        self,
        *,
        rate_limit: tuple[int, float] | None = (100, 60.0),
        rate_headers: bool = True,
        idempotent: bool = False,
        long_poll: bool = False,
        extensions: Sequence[str] = (),
        enforce_data_limit: bool = True,
        secret: str | None = None,
        tls: bool | ssl.SSLContext | Certificate = False,
    ) -> None:
        super().__init__(secret)
        self._server = LoopbackServer("gateway", self._serve, self._keep_error, self._changed)
        self._window = _RateWindow()
        self._window.limit = rate_limit
        self._requests: list[RequestRecord] = []
        self._allowed: list[str] = []
        self._errors: list[str] = []
        self._ca_folder: tempfile.TemporaryDirectory[str] | None = None
        self._authority: Authority | None = None
        self._tls = tls
        self.faults = FaultScript(self._changed)
        self.rate_headers = rate_headers
        self.idempotent = idempotent
        self.long_poll = long_poll
        self.extensions = extensions
        self.enforce_data_limit = enforce_data_limit

    # --- life ---

    def __enter__(self) -> StrictGateway:
        if self._tls is True:
            self.use_certificate(self.authority.issue())
        elif self._tls is not False:
            self.use_certificate(self._tls)
        self._server.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_rest: object) -> None:
        try:
            self._server.stop()
        finally:
            if self._ca_folder is not None:
                self._ca_folder.cleanup()
        problems = self._errors + self.unexpected_violations
        if not problems:
            return
        report = "the strict gateway objects:\n  " + "\n  ".join(problems)
        if exc_type is None:
            raise AssertionError(report)
        print(report, file=sys.stderr)  # the test's own failure comes first

    def pause(self) -> None:
        """Go away: connections end at once, new ones are refused. All state is kept."""
        self._server.stop(reserve=True)

    def resume(self) -> None:
        """Come back on the same port."""
        self._server.start()

    def drop_connections(self) -> None:
        """End every open connection, and go on listening."""
        self._server.drop_connections()

    @property
    def port(self) -> int:
        """The port; the same from the first start to the end."""
        return self._server.port

    @property
    def url(self) -> str:
        """What a client's GATEWAY_URL is set to."""
        return self.url_for(HOST)

    def url_for(self, host: str) -> str:
        """Return the URL under another name of this machine, or one that only a proxy knows."""
        scheme = "http" if self._server.tls_context is None else "https"
        return f"{scheme}://{host}:{self.port}"

    # --- TLS ---

    @property
    def authority(self) -> Authority:
        """The certificate authority of this gateway; made when it is first asked for."""
        if self._authority is None:
            from testing.gateways.certificates import Authority

            self._authority = Authority()
        return self._authority

    @property
    def ca_file(self) -> Path:
        """A file with the authority's certificate; it goes when the gateway goes."""
        if self._ca_folder is None:
            self._ca_folder = tempfile.TemporaryDirectory(prefix="strict-gateway-")
        path = Path(self._ca_folder.name) / "ca.pem"
        path.write_bytes(self.authority.ca_pem)
        return path

    def use_certificate(self, certificate: Certificate | ssl.SSLContext) -> None:
        """Show this certificate from now on; connections that saw another one are ended."""
        if isinstance(certificate, ssl.SSLContext):
            self._server.tls_context = certificate
        else:
            self._server.tls_context = certificate.context
        self._server.drop_connections()

    # --- the operator's side ---

    def create_run(
        self,
        command: str | None = None,
        *,
        run_id: str | None = None,
        token: str | None = None,
    ) -> Run:
        """Create a run; id and token are made up unless given."""
        run = Run(run_id or f"run_{secrets.token_urlsafe(9)}", token or secrets.token_hex(32))
        with self._changed:
            self._runs[run.id] = RunState(run, command or "")
        return run

    def queue_command(self, run_id: str, text: str, command_id: str | None = None) -> str:
        """Queue a command for the run, and return its id. Nothing about it is checked."""
        with self._changed:
            self._counter += 1
            new_id = command_id or f"cmd_{self._counter}_{secrets.token_urlsafe(6)}"
            self._runs[run_id].commands[new_id] = Command(new_id, text, int(self._now()))
            self._changed.notify_all()
        return new_id

    # --- the record ---

    def events(self, run_id: str, type: str | None = None) -> list[Event]:
        """Return the stored events in the order of their arrival."""
        with self._changed:
            return [each for each in self._runs[run_id].events if type in (None, each.type)]

    def acks(self, run_id: str) -> dict[str, list[Ack]]:
        """Return the acknowledgements by command id; commands without one are left out."""
        with self._changed:
            commands = self._runs[run_id].commands.values()
            return {each.id: list(each.acks) for each in commands if each.acks}

    def artifacts(self, run_id: str) -> list[Artifact]:
        """Return the stored files in the order of their arrival."""
        with self._changed:
            return list(self._runs[run_id].artifacts)

    def status(self, run_id: str) -> str:
        """Return `pending`, `running`, `done` or `failed`."""
        with self._changed:
            return self._runs[run_id].status

    def exit_code(self, run_id: str) -> int | None:
        """Return the exit code that the last `finished` marker told."""
        with self._changed:
            return self._runs[run_id].exit_code

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that arrived, in the order of arrival."""
        with self._changed:
            return list(self._requests)

    def wait_for(self, predicate: Callable[[], T], within_s: float = 30.0) -> T:
        """Wait until `predicate` is true, and return its value.

        It is asked again whenever anything here changes, so it should look at nothing else.
        Raises: AssertionError with what has arrived so far.
        """
        with self._changed:
            value = self._changed.wait_for(predicate, within_s)
            if value:
                return value
            seen = [f"{r.endpoint} {r.status} {r.fault or ''}".strip() for r in self._requests]
            runs = {
                state.run.id: (state.status, [(e.type, e.data[:60]) for e in state.events[-5:]])
                for state in self._runs.values()
            }
        raise AssertionError(
            f"not within {within_s} s; {len(seen)} requests, the last: {seen[-10:]}; runs: {runs}"
        )

    # --- violations ---

    @property
    def violations(self) -> list[str]:
        """All that a correct client would not have done, the allowed ones included."""
        with self._changed:
            return list(self._violations)

    @property
    def unexpected_violations(self) -> list[str]:
        """The violations that the test has not allowed."""
        with self._changed:
            allowed = tuple(self._allowed)
            return [each for each in self._violations if not any(a in each for a in allowed)]

    def allow(self, *substrings: str) -> None:
        """Expect violations that contain one of these texts, now or later."""
        with self._changed:
            self._allowed.extend(substrings)

    def clear_violations(self) -> None:
        """Forget the violations of until now."""
        with self._changed:
            self._violations.clear()

    def _keep_error(self, error: Exception) -> None:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        with self._changed:
            self._errors.append("a handler failed: " + "".join(lines))
            self._changed.notify_all()

    # --- its clock, its limits, its memory ---

    @property
    def rate_limit(self) -> tuple[int, float] | None:
        """How many requests in how many seconds; None for no limit. Setting it begins a window."""
        return self._window.limit

    @rate_limit.setter
    def rate_limit(self, limit: tuple[int, float] | None) -> None:
        with self._changed:
            self._window.limit = limit
            self._window.reset()

    def use_up(self, requests: int) -> None:
        """Count so many requests of somebody else behind the same address."""
        with self._changed:
            for _ in range(requests):
                self._window.take()

    def forget_nonces(self) -> None:
        """Lose the nonce store, as a gateway does that keeps it in memory and is restarted."""
        with self._changed:
            self._nonces.clear()

    # --- one connection ---

    def _serve(self, connection: Connection) -> None:
        """Answer the requests of one connection until it ends."""
        while not connection.is_closed:
            try:
                head = connection.read_head()
                if head is None:
                    return
                self._exchange(connection, head)
            except BadRequestError as error:
                with self._changed:
                    self._violations.append(f"not HTTP: {error}")
                connection.send(error_reply(400, "Bad Request", str(error)).encode())
                return
            if head.wants_close:
                return

    def _exchange(self, connection: Connection, head: Head) -> None:
        """Read one request and answer it, or play the fault that is due."""
        endpoint, ids = find_route(head.method, head.path)
        record = RequestRecord(
            endpoint,
            head.method,
            head.path,
            head.query,
            {name.lower(): value for name, value in head.headers.items()},
            time.monotonic(),
        )
        with self._changed:
            self._requests.append(record)
            is_within_limit = self._window.take()
            self._changed.notify_all()
        content_type = head.headers.get_content_type() if "Content-Type" in head.headers else ""
        request = Request(endpoint, ids, head, b"", content_type, record, connection)
        if not is_within_limit:
            self._reject_early(request, rate_limited_reply(self._window.seconds_left()))
            connection.drain(head)
            return
        is_multipart = content_type == "multipart/form-data"
        limit_bytes = MAX_ARTIFACT_BYTES if is_multipart else MAX_BODY_BYTES
        try:
            # Of a chunked artifact that is too large, the end is cut off without a word.
            body = connection.read_body(head, limit_bytes, cut_off=is_multipart)
        except BodyTooLargeError:
            self._reject_large(request, is_multipart)
            return
        request = Request(endpoint, ids, head, body, content_type, record, connection)
        exchange = _Exchange(self, request)
        fault = self.faults.due(request)
        with self._changed:
            record.body_bytes = len(body)
            record.body_sha256 = hashlib.sha256(body).hexdigest()
            record.fault = None if fault is None else type(fault.do).__name__
            self._changed.notify_all()
        if fault is None:
            exchange.answer(exchange.handle())
        else:
            fault.do.apply(exchange)

    def _reject_large(self, request: Request, is_artifact: bool) -> None:
        """Answer 413 before the body was read."""
        connection = request.connection
        with self._changed:
            self._violate(request.record, "a body over the limit")
        if is_artifact:
            self._reject_early(request, error_reply(413, "File too large"))
            # A client that writes first and reads after must find out: nobody reads what it writes.
            self._wait_unless_shut(connection, _HOLD_S, lambda: False)
        else:
            refusal = error_reply(413, "Payload Too Large", "Request body is too large")
            reply = Reply(413, refusal.body, headers={"Connection": "close"})
            self._reject_early(request, reply)
            connection.drain(request.head)
        connection.close()

    def _reject_early(self, request: Request, reply: Reply) -> None:
        request.record.handled = reply.status
        self._answer(request, reply)

    def _answer(self, request: Request, reply: Reply) -> None:
        """Send the gateway's own words, and remember that they were sent."""
        headers = {"Date": http_date(self._now()), **reply.headers}
        with self._changed:
            if self.rate_headers:
                headers.update(self._window.headers())
            use = self._nonces.get(request.record.nonce)
            is_of_this = use is not None and use.signature == request.header("X-Signature")
            if use is not None and is_of_this:
                # Before it is sent: the client may act on it before this thread runs again.
                use.answered = reply.status
        try:
            self._note_status(request.record, reply.status)
            request.connection.send(
                Reply(reply.status, reply.body, reply.content_type, headers).encode()
            )
        except PeerGoneError:
            self._note_status(request.record, None)
            if use is not None and is_of_this:
                use.answered = None
            raise

    def _note_status(self, record: RequestRecord, status: int | None) -> None:
        with self._changed:
            record.status = status
            self._changed.notify_all()
