"""The protocol's server side without sockets: what is checked, refused, stored and noted.

Written from docs/protocol.md alone. `StrictGateway` adds connections, faults and what tests ask
for. Thread: all of it runs under the one condition.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, NoReturn
from urllib.parse import parse_qs

from testing.gateways.faults import error_reply
from testing.gateways.gateway_records import (
    Ack,
    Artifact,
    Event,
    NonceUse,
    Request,
    RequestRecord,
    RunState,
    is_finished,
)
from testing.gateways.http_server import Connection, PeerGoneError, Reply
from testing.gateways.wire import (
    CARD_EVENTS,
    EVENT_TYPES,
    FINISH_REASONS,
    MARKER_EVENTS,
    MAX_ACK_ERROR_UNITS,
    MAX_ACK_RESULT_UNITS,
    MAX_ARTIFACT_BYTES,
    MAX_EVENT_DATA_UNITS,
    MAX_ID_CHARACTERS,
    MAX_LONG_POLL_S,
    MAX_SKEW_S,
    NONCE_MEMORY_S,
    Part,
    expected_signature,
    parse_json,
    parse_multipart,
    redacted_in_the_field,
    utf16_units,
    without_lone_surrogates,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class _RefusalError(Exception):
    """The answer to a request that is not accepted, and what it says about the client."""

    def __init__(self, reply: Reply, violation: str = "") -> None:
        super().__init__(violation)
        self.reply = reply
        self.violation = violation


def _refuse(status: int, error: str, violation: str = "") -> NoReturn:
    raise _RefusalError(error_reply(status, error), violation)


def _invalid(violation: str) -> NoReturn:
    """Refuse what fails the gateway's validation, which answers 500 and not 400."""
    raise _RefusalError(error_reply(500, "Internal Server Error", violation), violation)


class GatewayRules:
    """The gateway's state, and what it does with one request after another."""

    def __init__(self, secret: str | None) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._runs: dict[str, RunState] = {}
        self._nonces: dict[str, NonceUse] = {}
        self._violations: list[str] = []
        self._counter = 0
        self.secret = secret or secrets.token_hex(32)
        self.clock_offset_s = 0.0
        self.idempotent = False
        self.long_poll = False
        self.extensions: Sequence[str] = ()
        self.enforce_data_limit = True

    def _now(self) -> float:
        return time.time() + self.clock_offset_s

    def _violate(self, record: RequestRecord, text: str) -> None:
        self._violations.append(f"{text} [{record.method} {record.path}]")

    def _wait_unless_shut(
        self, connection: Connection, timeout_s: float | None, until: Callable[[], bool]
    ) -> None:
        with self._changed:
            self._changed.wait_for(lambda: connection.is_shut or until(), timeout_s)
        if connection.is_shut:
            raise PeerGoneError

    def pending(self, run_id: str) -> list[str]:
        """Return the ids of the commands that are not acknowledged, oldest first."""
        with self._changed:
            commands = self._runs[run_id].commands.values()
            return [each.id for each in commands if not each.acks]

    # --- one request ---

    def _handle(self, request: Request, *, only_authenticate: bool = False) -> Reply:
        """Let the gateway do its work; return the answer that it would give."""
        with self._changed:
            try:
                reply = self._handle_checked(request, only_authenticate)
            except _RefusalError as refusal:
                if refusal.violation:
                    self._violate(request.record, refusal.violation)
                reply = refusal.reply
            if not only_authenticate or reply.status >= 400:
                request.record.handled = reply.status
            self._changed.notify_all()
        return reply

    def _handle_checked(self, request: Request, only_authenticate: bool) -> Reply:
        if request.endpoint == "unknown":
            _refuse(404, "Not Found", "an unknown path or method")
        self._check_for_credentials(request)
        if request.endpoint == "health":
            content = {"status": "ok", "timestamp": int(self._now() * 1000)}
            content.update({"extensions": list(self.extensions)} if self.extensions else {})
            return _json_reply(content)
        self._check_for_secrets(request)
        content = _parse_body(request)
        state = self._authenticate(request)
        if only_authenticate:
            return _json_reply({})
        if request.endpoint in ("event", "artifact"):
            if state is None:
                _refuse(400, "Run ID required")
            if request.endpoint == "event":
                return self._take_event(request, state, content)
            return self._take_artifact(request, state)
        if state is None or state.run.id != request.ids[0]:
            _refuse(403, "Capability token mismatch", "a path and a header of different runs")
        if request.endpoint == "commands":
            return self._list_commands(request, state)
        return self._take_ack(request, state, content)

    def _check_for_credentials(self, request: Request) -> None:
        for name in ("Authorization", "Cookie"):
            if name in request.head.headers:
                self._violate(request.record, f"a header {name}, which nobody asked for")

    def _check_for_secrets(self, request: Request) -> None:
        secrets_by_name = {"HMAC secret": self.secret}
        for state in self._runs.values():
            secrets_by_name[f"token of {state.run.id}"] = state.run.token
        for name, value in secrets_by_name.items():
            if value.encode() in request.body or value in request.head.target:
                self._violate(request.record, f"the {name} is in a request's body or path")

    # --- authentication, in the documented order ---

    def _authenticate(self, request: Request) -> RunState | None:
        """Check headers, time, nonce, signature and token; spend the nonce."""
        signature = request.header("X-Signature")
        nonce = request.header("X-Nonce")
        if not (request.header("X-Timestamp") and nonce and signature):
            _refuse(401, "Missing authentication headers", "missing authentication headers")
        self._check_timestamp(request.header("X-Timestamp"))
        self._check_nonce(nonce, signature)
        self._check_signature(request, signature)
        state = self._find_run(request)
        if not re.fullmatch(r"[0-9a-f]{32}", nonce):
            self._violate(request.record, "a nonce that is not 16 bytes in hex")
        self._nonces[nonce] = NonceUse(self._now(), signature)
        return state

    def _check_timestamp(self, text: str) -> None:
        # The clocks of a test agree unless the test has set this one wrong.
        violation = "" if self.clock_offset_s else f"a timestamp out of range: {text[:20]}"
        is_number = re.fullmatch(r"[0-9]{1,12}", text) is not None
        if not is_number or abs(int(self._now()) - int(text)) > MAX_SKEW_S:
            _refuse(401, "Request timestamp out of allowed range", violation)

    def _check_nonce(self, nonce: str, signature: str) -> None:
        use = self._nonces.get(nonce)
        if use is None or abs(self._now() - use.at) > NONCE_MEMORY_S:
            return
        violation = ""
        if use.signature != signature:
            violation = "a nonce used for two different requests"
        elif use.answered is not None:
            violation = f"a nonce reused after it was answered {use.answered}"
        _refuse(401, "Nonce already used (replay attack detected)", violation)

    def _check_signature(self, request: Request, signature: str) -> None:
        is_hashed_empty = request.method == "GET" or request.content_type == "multipart/form-data"
        expected = expected_signature(
            self.secret,
            request.method,
            request.path,
            b"" if is_hashed_empty else request.body,
            request.header("X-Timestamp"),
            request.header("X-Nonce"),
            request.header("X-Run-Id"),
            request.header("X-Capability-Token"),
        )
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            _refuse(401, "Invalid signature", "a bad signature")

    def _find_run(self, request: Request) -> RunState | None:
        run_id = request.header("X-Run-Id")
        token = request.header("X-Capability-Token")
        if not (run_id and token):
            return None
        state = self._runs.get(run_id)
        if state is None or state.run.token != token:
            _refuse(
                403, "Invalid capability token for run", "an unknown run or a token not the run's"
            )
        return state

    # --- events ---

    def _take_event(self, request: Request, state: RunState, content: Any) -> Reply:
        kind, data, sequence = self._check_event(request.record, content)
        known = state.bodies.setdefault(sequence, set())
        if self.idempotent and sequence >= 1 and request.body in known:
            return _json_reply({"ok": True, "eventId": self._next_id()})
        if sequence >= 1:
            if sequence <= state.highest_sequence:
                self._violate(
                    request.record,
                    f"wrong sequence: {sequence} after {state.highest_sequence} in {state.run.id}",
                )
            state.highest_sequence = max(state.highest_sequence, sequence)
        event = Event(kind, data, sequence, time.monotonic())
        if state.finished and not is_finished(event):
            self._violate(request.record, f"a {kind} event after finished in {state.run.id}")
        if self.idempotent:
            known.add(request.body)
        state.events.append(event)
        if kind == "marker":
            self._take_marker(request.record, state, data)
        elif kind == "assist":
            self._check_assist(request.record, data)
        return _json_reply({"ok": True, "eventId": self._next_id()})

    def _check_event(self, record: RequestRecord, content: Any) -> tuple[str, str, int]:
        if not isinstance(content, dict):
            _invalid("an event that is no object")
        kind, data = content.get("type"), content.get("data")
        sequence = content.get("sequence", 0)
        if kind not in EVENT_TYPES:
            _invalid(f"an unknown event type: {kind!r:.40}")
        if not isinstance(data, str):
            _invalid("event data that is no text")
        if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 0:
            _invalid(f"a sequence that is no non-negative whole number: {sequence!r:.40}")
        if ("sequence" in content) == (kind == "assist"):
            self._violate(record, "an assist event, and no other, goes without a sequence")
        unknown = sorted(set(content) - {"type", "data", "sequence"})
        if unknown:
            self._violate(record, f"unknown fields in an event: {unknown}")
        if utf16_units(data) > MAX_EVENT_DATA_UNITS:
            self._violate(record, f"event data over the limit: {utf16_units(data)} UTF-16 units")
            if self.enforce_data_limit:
                _invalid("")
        stored = without_lone_surrogates(data)
        if stored != data:
            self._violate(record, "event data with half a character")
        return str(kind), stored, sequence

    def _take_marker(self, record: RequestRecord, state: RunState, data: str) -> None:
        try:
            marker = parse_json(data)
        except ValueError:
            marker = None
        if marker is None:
            _invalid("a marker that is not JSON")  # and yet it is stored
        try:
            parse_json(redacted_in_the_field(data))
        except ValueError:
            self._violate(record, "a marker that a gateway in the field breaks when it redacts it")
        event = marker.get("event") if isinstance(marker, dict) else None
        wanted = (
            *MARKER_EVENTS,
            *(CARD_EVENTS if "answers" in self.extensions else ()),
            *(("progress",) if "progress" in self.extensions else ()),
        )
        if event not in wanted:
            self._violate(record, f"an unknown marker: {event!r:.40}")
        elif event == "started":
            self._start(record, state)
        elif event == "finished":
            self._finish(record, state, marker)

    def _start(self, record: RequestRecord, state: RunState) -> None:
        state.started += 1
        if state.started > 1:
            self._violate(record, f"{state.run.id} started twice")
        state.status = "running"

    def _finish(self, record: RequestRecord, state: RunState, marker: dict[str, Any]) -> None:
        state.finished += 1
        if state.finished > 1:
            self._violate(record, f"{state.run.id} finished twice")
        code = marker.get("exitCode")
        if not isinstance(code, int) or isinstance(code, bool):
            self._violate(record, "a finished marker whose exitCode is no whole number")
            code = None
        if marker.get("reason", FINISH_REASONS[0]) not in FINISH_REASONS:
            self._violate(record, f"an unknown reason: {marker['reason']!r:.40}")
        state.exit_code = code
        state.status = "done" if code == 0 else "failed"

    def _check_assist(self, record: RequestRecord, data: str) -> None:
        try:
            fields = parse_json(data)
        except ValueError:
            self._violate(record, "assist data that is not JSON")
            return
        is_exact = isinstance(fields, dict) and set(fields) == {"type", "url"}
        if not is_exact or not all(isinstance(value, str) for value in fields.values()):
            self._violate(record, "assist data with other fields than type and url")

    def _next_id(self) -> int:
        self._counter += 1
        return self._counter

    # --- commands ---

    def _list_commands(self, request: Request, state: RunState) -> Reply:
        wait_s = _asked_wait_s(request.head.query) if self.long_poll else 0.0
        if wait_s > 0:
            has_work = lambda: bool(self.pending(state.run.id))  # noqa: E731 - read once, below
            self._wait_unless_shut(request.connection, wait_s, has_work)
        waiting = [each for each in state.commands.values() if not each.acks]
        return _json_reply(
            [
                {"id": each.id, "command": each.text, "created_at": each.created_at}
                for each in waiting
            ]
        )

    def _take_ack(self, request: Request, state: RunState, content: Any) -> Reply:
        command_id = request.ids[1]
        if len(command_id) > MAX_ID_CHARACTERS:
            _refuse(400, "Invalid command id", "a command id over the limit")
        if not isinstance(content, dict):
            _invalid("an ack that is no object")
        result = _checked_text(content, "result", MAX_ACK_RESULT_UNITS)
        error = _checked_text(content, "error", MAX_ACK_ERROR_UNITS)
        if (result is None) == (error is None) or set(content) - {"result", "error"}:
            self._violate(request.record, f"an ack with the fields {sorted(content)}")
        command = state.commands.get(command_id)
        if command is None:
            self._violate(request.record, "an ack of a command that was never queued")
        else:
            command.acks.append(Ack(result, error))
        return _json_reply({"ok": True})

    # --- artifacts ---

    def _take_artifact(self, request: Request, state: RunState) -> Reply:
        is_cut_off = request.head.is_chunked and len(request.body) >= MAX_ARTIFACT_BYTES
        if is_cut_off:
            self._violate(request.record, "an artifact over the limit, which was cut off")
        try:
            parts = parse_multipart(
                request.head.headers["Content-Type"], request.body, is_cut_off=is_cut_off
            )
        except ValueError as error:
            _refuse(400, str(error), f"a malformed multipart body: {error}")
        part = self._find_file(request.record, parts)
        state.artifacts.append(Artifact(part.file_name, part.data, part.content_type))
        return _json_reply(
            {
                "ok": True,
                "artifactId": f"art_{self._next_id()}",
                "name": part.file_name,
                "size": len(part.data),
            }
        )

    def _find_file(self, record: RequestRecord, parts: list[Part]) -> Part:
        files = [part for part in parts if part.name == "file" and part.file_name]
        if not files:
            _refuse(400, "No file uploaded", "an upload without a part `file` with a file name")
        if len(parts) != 1:
            self._violate(record, f"an upload of {len(parts)} parts")
        if re.search(r"[/\\\x00-\x1f]", files[0].file_name):
            self._violate(record, f"a file name that is a path: {files[0].file_name!r:.60}")
        return files[0]


def _json_reply(content: Any) -> Reply:
    return Reply(200, json.dumps(content).encode())


def _parse_body(request: Request) -> Any:
    """Return the JSON of an event or ack, None for the others; refuse another content type."""
    if request.endpoint == "artifact":
        if request.content_type != "multipart/form-data":
            _refuse(406, "the request is not multipart", "a wrong content type")
        return None
    if request.method == "GET":
        if request.body:
            _refuse(400, "Bad Request", "a GET with a body")
        return None
    if request.content_type != "application/json":
        _refuse(415, "Unsupported Media Type", "a wrong content type")
    try:
        return parse_json(request.body)
    except ValueError:
        _refuse(400, "Body is not valid JSON", "a body that is not JSON in UTF-8")


def _checked_text(content: dict[str, Any], name: str, limit_units: int) -> str | None:
    if name not in content:
        return None
    text = content[name]
    if not isinstance(text, str):
        _invalid(f"an ack whose {name} is no text: {text!r:.40}")
    if utf16_units(text) > limit_units:
        _invalid(f"an ack whose {name} is over the limit")
    return without_lone_surrogates(text)


def _asked_wait_s(query: str) -> float:
    texts = parse_qs(query).get("wait", ["0"])
    is_number = re.fullmatch(r"[0-9]{1,6}", texts[0]) is not None
    return min(float(texts[0]), MAX_LONG_POLL_S) if is_number else 0.0
