"""The signed protocol: events, polls, acknowledgements and uploads of runners, as WSGI.

The fast path: no framework, and for an event no query. The order of the checks is the protocol's;
see `admission`. Thread: any.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from tempfile import TemporaryFile
from typing import IO, Any, Callable, NoReturn
from urllib.parse import parse_qs, unquote

from config import VERSION
from gateway.admission import Admission, Admitted, Claim, RateLimit, RefusedError
from gateway.observing.health import Health
from gateway.observing.metrics import OTHER, RATE_LIMIT, Metrics, reason_of
from gateway.offers.folders import MAX_WAIT_S, Offers, read_said, read_take
from gateway.presence import Heard
from gateway.serving.live import Live, Poll
from gateway.serving.server import Connection, Parked
from gateway.storage.artifacts import ArtifactFiles, UploadError
from gateway.storage.file_store import FilesAwayError
from gateway.storage.records import NewEvent
from gateway.storage.store import AWAY_RETRY_S, RunFullError, Store
from gateway.storage.writer import StoreClosedError
from redact import Rules

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_ARTIFACT_BYTES = 52_428_800
MAX_EVENT_DATA_UNITS = 1_048_576
MAX_ACK_RESULT_UNITS = 10_485_760
MAX_ACK_ERROR_UNITS = 100_000
MAX_ID_CHARACTERS = 50
MAX_LONG_POLL_S = 60.0
# A larger body waits in a file until it is complete; then so many at once are read and worked on,
# so that fifty runners with a backlog do not fill the memory.
_SMALL_BODY_BYTES = 128 * 1024
_LARGE_BODIES_AT_ONCE = 4
# A larger body is parsed after its signature was checked: what JSON becomes in memory may have
# twenty times its size.
_PARSED_UNSEEN_BYTES = 64 * 1024
_MAX_DIGITS = 1_000
# What is offered beyond the protocol; a runner looks here for those that change what it sends.
EXTENSIONS = ("long-poll", "idempotent", "answers", "offers", "partial", "progress")
EVENT_TYPES = frozenset(("stdout", "stderr", "marker", "info", "error", "assist"))

_EMPTY_HASH = hashlib.sha256().hexdigest()

_ADMITTED = "gateway.admitted"

StartResponse = Any  # a callable of WSGI; its type differs from server to server
Environ = dict[str, Any]

HEALTH = "/api/health"
COMMANDS = "/api/runs/{run_id}/commands"
ACK = "/api/runs/{run_id}/commands/{command_id}/ack"
ROUTES = {
    ("GET", HEALTH): "_tell_health",
    ("POST", "/api/ingest/event"): "_take_event",
    ("POST", "/api/ingest/artifact"): "_take_artifact",
    ("GET", COMMANDS): "_list_commands",
    ("POST", ACK): "_take_ack",
    ("POST", "/api/offers"): "_hear_offer",
    ("POST", "/api/offers/take"): "_hand_out",
}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "([^/]+)", template))


_SIZE = re.compile(r"[0-9]{1,15}")
_COMMANDS, _ACK = _pattern(COMMANDS), _pattern(ACK)


# Gets the environ and the path as it was sent; returns what becomes the JSON of a 200.
Endpoint = Callable[[Environ, str], Any]


class InvalidError(RefusedError):
    """Content that the protocol does not allow; it says so with 500."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "Internal Server Error")
        self.message = message


class UnwellError(RefusedError):
    """The gateway is not to be sent requests."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(503, content["status"])
        self.content = content


def _refuse(status: int, error: str) -> NoReturn:
    raise RefusedError(status, error)


class Wire:
    """The endpoints that runners use."""

    def __init__(
        self,
        store: Store,
        live: Live,
        admission: Admission,
        rate_limit: RateLimit,
        rules: Rules,
        files: ArtifactFiles,
        offers: Offers,
        heard: Heard,
        health: Health,
        metrics: Metrics | None,
    ) -> None:
        self._store = store
        self._live = live
        self._offers = offers
        self._admission = admission
        self._rate_limit = rate_limit
        self._rules = rules
        self._files = files
        self._heard = heard
        self._health = health
        self._metrics = metrics
        self._large_bodies = threading.BoundedSemaphore(_LARGE_BODIES_AT_ONCE)
        endpoints: dict[tuple[str, str], Endpoint] = {
            route: getattr(self, name) for route, name in ROUTES.items()
        }
        self._fixed = {
            route: (" ".join(route), each)
            for route, each in endpoints.items()
            if "{" not in route[1]
        }
        self._patterns = [
            (method, _pattern(template), f"{method} {template}", endpoints[method, template])
            for method, template in endpoints
            if "{" in template
        ]

    def find(self, method: str, path: str) -> tuple[str, Endpoint | None]:
        """Return the name of its route, and what answers this request; None: not of the wire."""
        found = self._fixed.get((method, path))
        if found is not None:
            return found
        for key, pattern, route, endpoint in self._patterns:
            if method == key and pattern.fullmatch(path):
                return route, endpoint
        return "", None

    def answer(
        self,
        endpoint: Endpoint,
        environ: Environ,
        path: str,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Answer one request of the wire."""
        is_within, headers = self._rate_limit.take(environ["REMOTE_ADDR"])
        if not is_within:
            self._note_refused(RATE_LIMIT)
            return _send(start_response, 429, _too_many(headers["retry-after"]), headers)
        try:
            content = endpoint(environ, path)
        except RefusedError as refusal:
            if not isinstance(refusal, UnwellError):
                self._spend_nonce(environ)
                self._note_refused(reason_of(refusal.error))
            return _send(start_response, refusal.status, _refusal_json(refusal), headers)
        except StoreClosedError:
            return _send(start_response, 503, _ENDING, headers)
        except OSError:
            raise  # of the connection: nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - the client must learn that nothing is stored
            if self._store.why_away(error) is None:  # the writer and the relay tell of that
                logger.error("%s: %s", path, error)  # noqa: TRY400 - no news in the trace
            self._note_failed(environ, error)
            return _send(start_response, *_failure(self._store, error, headers))
        if isinstance(content, (_Wait, _Storing)):
            return content.park(headers)
        return _send(start_response, 200, content, headers)

    def _note_refused(self, reason: str) -> None:
        if self._metrics is not None:
            self._metrics.refused(reason)

    def _note_failed(self, environ: Environ, error: Exception) -> None:
        """Nothing of a request is stored, so that it may come again as it is, nonce and all."""
        if _ADMITTED in environ and _why_away(self._store, error) is not None:
            self._admission.give_back(environ[_ADMITTED])
        if self._metrics is not None:
            kind = "files" if isinstance(error, FilesAwayError) else OTHER
            self._metrics.failed("database" if self._store.has_raised(error) else kind)

    # --- endpoints ---

    def _tell_health(self, _environ: Environ, _path: str) -> Any:
        now = int(time.time() * 1_000)
        away = [] if self._health.is_draining else self._health.away()
        # Looked at again, because it may have begun meanwhile.
        is_away = self._health.is_needed(away)
        status = "draining" if self._health.is_draining else "away" if is_away else "ok"
        told = {"status": status, "timestamp": now, "version": VERSION, "extensions": EXTENSIONS}
        told.update({"away": away} if away else {})
        if status != "ok":
            error = ", ".join(away) + " away" if away else status
            raise UnwellError({"error": error, **told, "away": away})
        return told

    def _take_event(self, environ: Environ, path: str) -> Any:
        with self._json_body(environ, path) as (body, content):
            digest = hashlib.sha256(body)
            admitted = self._admit(environ, path, digest.hexdigest())
            if not admitted.run_id:
                _refuse(400, "Run ID required")
            if content is None:
                content = _parse_json(body)
            event = self._check_event(content, admitted, digest.digest())
            if len(body) <= _SMALL_BODY_BYTES:
                return _Storing(self._store, event, partial(self._note_failed, environ))
            # In here, so that no more large bodies are in memory than may be at once.
            return _stored(self._store.add_event(event))

    @contextmanager
    def _json_body(self, environ: Environ, path: str) -> Iterator[tuple[bytes, Any]]:
        """Yield the body, and its JSON unless it is too large to be parsed for just anybody.

        A body that is not here yet is waited for if a run sends it, and for no stranger.
        """
        content_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            _refuse(415, "Unsupported Media Type")
        if _content_length(environ) > MAX_BODY_BYTES:
            _refuse(413, "Request body is too large")
        if not is_here(environ):
            self._admission.judge(_claim(environ, path, ""))
        received = _receive(environ)
        if isinstance(received, bytes):
            is_small = len(received) <= _PARSED_UNSEEN_BYTES
            yield received, _parse_json(received) if is_small else None
            return
        with received, self._large_bodies:
            yield received.read(), None

    def _check_event(self, content: Any, admitted: Admitted, body_hash: bytes) -> NewEvent:
        if not isinstance(content, dict):
            raise InvalidError("an event is an object")
        kind, data, sequence = content.get("type"), content.get("data"), content.get("sequence", 0)
        if not isinstance(kind, str) or kind not in EVENT_TYPES:
            raise InvalidError("the type is none of the protocol's")
        if not isinstance(data, str):
            raise InvalidError("data is not text")
        if type(sequence) is not int or not 0 <= sequence < 2**53:
            raise InvalidError("sequence is not a whole number, zero or more")
        if _utf16_units(data) > MAX_EVENT_DATA_UNITS:
            raise InvalidError(f"data is longer than {MAX_EVENT_DATA_UNITS} UTF-16 code units")
        sent = _whole_characters(data)
        kept, marker = self._redact(kind, sent)
        return NewEvent(
            admitted.run_id,
            kind,
            kept,
            sent,
            sequence,
            admitted.at,
            body_hash,
            admitted.nonce_digest,
            marker,
        )

    def _redact(self, kind: str, sent: str) -> tuple[str, Any]:
        """Return the data to be kept, and what a marker says. JSON stays JSON."""
        if kind not in ("marker", "assist"):
            return self._rules.redact(sent), None
        try:
            parsed = _loads(sent)
        except ValueError:
            if kind == "marker":
                raise InvalidError("the data of a marker is not JSON") from None
            return self._rules.redact(sent), None
        if parsed is None and kind == "marker":
            raise InvalidError("the data of a marker is null")
        redacted = self._rules.redact_json(parsed)
        known = json.loads(redacted)
        return (sent if known == parsed else redacted), known

    def _list_commands(self, environ: Environ, path: str) -> Any:
        if environ.get("CONTENT_LENGTH", "0") not in ("", "0"):
            _refuse(400, "A GET has no body")
        admitted = self._admit(environ, path, _EMPTY_HASH)
        run_id = _same_run(admitted, _COMMANDS, path)[0]
        self._store.keep_nonce(admitted)
        pending = self._store.pending_commands(run_id)
        wait_s = _asked_wait_s(environ.get("QUERY_STRING", ""))
        if pending or not wait_s or self._live.is_full:
            return pending

        def look(is_over: bool) -> Any:  # noqa: FBT001 - its only argument
            return self._store.pending_commands(run_id) or ([] if is_over else None)

        return _Wait(self._live, run_id, wait_s, look)

    def _hear_offer(self, environ: Environ, path: str) -> Any:
        with self._json_body(environ, path) as (body, content):
            body_hash = hashlib.sha256(body).hexdigest()
            admitted = self._admit_waiter(environ, path, body_hash)
            said = read_said(_parse_json(body) if content is None else content, self._rules)
        self._store.keep_nonce(admitted)
        waiter_id = admitted.run_id
        if self._offers.hear(waiter_id, said):
            return {"ok": True, "replaced": True, "code": None, "run": None}
        first = self._offers.answer(waiter_id, said.session)
        wait_s = min(_asked_wait_s(environ.get("QUERY_STRING", "")), MAX_WAIT_S)
        is_news = first["run"] or first["code"] != said.code
        if said.begins or said.leaves or is_news or not wait_s or self._live.is_full:
            return first

        def look(is_over: bool) -> Any:  # noqa: FBT001 - its only argument
            found = self._offers.answer(waiter_id, said.session)
            return found if is_over or found != first else None

        return _Wait(self._live, waiter_id, wait_s, look)

    def _hand_out(self, environ: Environ, path: str) -> Any:
        with self._json_body(environ, path) as (body, content):
            body_hash = hashlib.sha256(body).hexdigest()
            admitted = self._admit_waiter(environ, path, body_hash)
            asked = read_take(_parse_json(body) if content is None else content)
        return self._offers.take(admitted, *asked)

    def _take_ack(self, environ: Environ, path: str) -> Any:
        with self._json_body(environ, path) as (body, content):
            admitted = self._admit(environ, path, hashlib.sha256(body).hexdigest())
            run_id, command_id = _same_run(admitted, _ACK, path)
            if len(command_id) > MAX_ID_CHARACTERS:
                _refuse(400, "Invalid command id")
            if content is None:
                content = _parse_json(body)
            if not isinstance(content, dict):
                raise InvalidError("an acknowledgement is an object")
            result = self._checked_text(content, "result", MAX_ACK_RESULT_UNITS)
            error = self._checked_text(content, "error", MAX_ACK_ERROR_UNITS)
            entry = self._store.acknowledge(admitted, command_id, result, error)
        if entry is not None:
            self._live.tell(run_id, "command", entry)
        return {"ok": True}

    def _checked_text(self, content: dict[str, Any], name: str, limit_units: int) -> str | None:
        if name not in content:
            return None
        text = content[name]
        if not isinstance(text, str):
            raise InvalidError(f"{name} is not text")
        if _utf16_units(text) > limit_units:
            raise InvalidError(f"{name} is longer than {limit_units} UTF-16 code units")
        return self._rules.redact(_whole_characters(text))

    def _take_artifact(self, environ: Environ, path: str) -> Any:
        content_type = environ.get("CONTENT_TYPE", "")
        if not content_type.lower().startswith("multipart/form-data"):
            _refuse(406, "the request is not multipart")
        if _content_length(environ) > MAX_ARTIFACT_BYTES:
            _refuse(413, "File too large")
        admitted = self._admit(environ, path, _EMPTY_HASH)
        if not admitted.run_id:
            _refuse(400, "Run ID required")
        try:
            row = self._receive_file(environ, admitted, content_type)
        except (UploadError, RunFullError) as error:
            self._store.keep_nonce(admitted)
            # A full run is not 413: a runner would cut the file, and send its pieces.
            _refuse(error.status if isinstance(error, UploadError) else 400, str(error))
        self._live.tell(admitted.run_id, "artifact", row)
        return {"ok": True, "artifactId": row["id"], "name": row["name"], "size": row["size"]}

    def _receive_file(
        self, environ: Environ, admitted: Admitted, content_type: str
    ) -> dict[str, Any]:
        """Write an upload to its place and note it; return its row.

        What the run has no room for is read to its end all the same: a runner on a slow line would
        not see an answer that came before. Raises: UploadError and RunFullError, with nothing left
        behind.
        """
        connection: Connection = environ["gateway.connection"]
        connection.begin_reading()
        try:
            row = self._files.receive(
                admitted.run_id, content_type, environ["wsgi.input"], MAX_ARTIFACT_BYTES
            )
        except OSError as error:
            is_ours = not isinstance(error, (ConnectionError, socket.timeout))
            if self._metrics is not None and is_ours:
                self._metrics.failed("files")
            raise
        finally:
            connection.end_reading()
        try:
            replaced = self._store.add_artifact(admitted, row)
        except BaseException:
            self._remove_file(admitted.run_id, row["id"])
            raise
        for artifact_id in replaced:
            self._remove_file(admitted.run_id, artifact_id)
        return row

    def _remove_file(self, run_id: str, artifact_id: str) -> None:
        """Remove a file that counts for nothing; if its place is away, the housekeeping will."""
        with suppress(FilesAwayError):
            self._files.store.remove(run_id, artifact_id)

    def _admit(self, environ: Environ, path: str, body_hash: str) -> Admitted:
        admitted = self._admission.admit(_claim(environ, path, body_hash))
        environ[_ADMITTED] = admitted
        self._heard.note(admitted.run_id)
        return admitted

    def _admit_waiter(self, environ: Environ, path: str, body_hash: str) -> Admitted:
        admitted = self._admission.admit_waiter(_claim(environ, path, body_hash))
        environ[_ADMITTED] = admitted
        return admitted

    def _spend_nonce(self, environ: Environ) -> None:
        """Spend the nonce of what was admitted, and refused for what it brought. Alone, a gateway
        has it in its memory.
        """
        admitted = environ.get(_ADMITTED)
        if admitted is not None and self._store.is_shared:
            with suppress(Exception):
                self._store.keep_nonce(admitted)


class _Storing:
    """An event that is to be stored. Its answer waits until it is on disk, and holds no thread."""

    def __init__(self, store: Store, event: NewEvent, failed: Callable[[Exception], None]) -> None:
        self._store = store
        self._failed = failed
        self._event = event

    def park(self, headers: dict[str, str]) -> Parked:
        """Leave the connection to the writer's thread."""

        def take(connection: Connection) -> None:
            def tell(event_id: int | None, error: Exception | None) -> None:
                answer = 200, _stored(event_id), headers
                if error is not None:
                    answer = _failure(self._store, error, headers)
                    self._failed(error)
                connection.answer(_whole_reply(*answer))

            try:
                self._store.add_event_later(self._event, tell)
            except StoreClosedError:
                connection.answer(_whole_reply(503, _ENDING, headers))

        return Parked(take)


class _Wait:
    """A poll that waits. `look` is told whether its time is over; it returns what to answer, or
    None to go on waiting. A request is woken by its `topic`.
    """

    def __init__(self, live: Live, topic: str, wait_s: float, look: Callable[[bool], Any]) -> None:
        self._live = live
        self._topic = topic
        self._deadline = time.monotonic() + wait_s
        self._look = look

    def park(self, headers: dict[str, str]) -> Parked:
        """Leave the connection to the live thread."""

        def answer(is_over: bool) -> bytes:  # noqa: FBT001 - its only argument
            found = self._look(is_over)
            return b"" if found is None else _whole_reply(200, found, headers)

        def take(connection: Connection) -> None:
            poll = Poll(self._topic, self._deadline, answer, connection.server.release)
            self._live.add_poll(connection, poll)

        return Parked(take)


# --- reading --------------------------------------------------------------------------------------


def _header(environ: Environ, name: str) -> str:
    """Return a header with its bytes kept, or an empty text."""
    value: str = environ.get(name, "")
    return value if value.isascii() else value.encode("latin-1").decode("utf-8", "surrogateescape")


def _claim(environ: Environ, path: str, body_hash: str) -> Claim:
    return Claim(
        environ["REQUEST_METHOD"],
        path,
        body_hash,
        _header(environ, "HTTP_X_TIMESTAMP"),
        _header(environ, "HTTP_X_NONCE"),
        _header(environ, "HTTP_X_SIGNATURE"),
        _header(environ, "HTTP_X_RUN_ID"),
        _header(environ, "HTTP_X_CAPABILITY_TOKEN"),
    )


def is_here(environ: Environ) -> bool:
    """Whether all of a body can be read without waiting for its sender: it is a small one."""
    connection: Connection = environ["gateway.connection"]
    size = environ.get("CONTENT_LENGTH") or "0"
    if environ["wsgi.input_terminated"] or not _SIZE.fullmatch(size):
        return False
    return connection.has(int(size))


def _content_length(environ: Environ) -> int:
    text = environ.get("CONTENT_LENGTH") or "0"
    if not _SIZE.fullmatch(text):
        _refuse(400, "Content-Length is not a number")
    return int(text)


def _receive(environ: Environ) -> bytes | IO[bytes]:
    """Return the body when all of it is here; a large one as a file, which the caller closes."""
    connection: Connection = environ["gateway.connection"]
    stream = environ["wsgi.input"]
    size = _content_length(environ)
    is_small = size <= _SMALL_BODY_BYTES and not environ["wsgi.input_terminated"]
    connection.begin_reading()
    try:
        if not is_small:
            return _receive_large(stream, size)
        body: bytes = stream.read(size)
    except ValueError:
        _refuse(400, "The chunks of the body are malformed")
    finally:
        connection.end_reading()
    if len(body) < size:
        _cut_off()
    return body


def _cut_off() -> NoReturn:
    raise ConnectionResetError("the body was cut off")


def _receive_large(stream: Any, size: int) -> IO[bytes]:
    """Write a body to a file, piece by piece. `size` is what it has at least."""
    total = 0
    file: IO[bytes] = TemporaryFile()  # noqa: SIM115 - it is the caller's
    try:
        while piece := stream.read(65_536):
            total += len(piece)
            if total > MAX_BODY_BYTES:
                _refuse(413, "Request body is too large")
            file.write(piece)
        if total < size:
            _cut_off()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _loads(text: str) -> Any:
    """Parse JSON as other languages know it. Raises: ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _whole_number(text: str) -> int:
    # As newer Pythons do by themselves: the time that it takes grows with the square of the length.
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number of too many digits")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_json(body: bytes) -> Any:
    try:
        parsed = _loads(body.decode("utf-8"))
    except ValueError:
        _refuse(400, "Body is not valid JSON")
    return () if parsed is None else parsed


def _utf16_units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _whole_characters(text: str) -> str:
    """Return text that can be stored: half a character becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _same_run(admitted: Admitted, pattern: re.Pattern[str], path: str) -> tuple[str, ...]:
    match = pattern.fullmatch(path)
    ids = tuple(unquote(part) for part in match.groups()) if match else ("",)
    if not admitted.run_id or ids[0] != admitted.run_id:
        _refuse(403, "Capability token mismatch")
    return ids


def _asked_wait_s(query: str) -> float:
    if not query:
        return 0.0
    text = parse_qs(query).get("wait", ["0"])[0]
    return min(float(text), MAX_LONG_POLL_S) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0


# --- answering ------------------------------------------------------------------------------------


def _too_many(retry_after: str) -> dict[str, Any]:
    return {
        "statusCode": 429,
        "error": "Too Many Requests",
        "message": f"Rate limit exceeded, retry in {retry_after} seconds",
    }


def _refusal_json(refusal: RefusedError) -> dict[str, Any]:
    if isinstance(refusal, UnwellError):
        return refusal.content
    if isinstance(refusal, InvalidError):
        return {"statusCode": 500, "error": refusal.error, "message": refusal.message}
    return {"error": refusal.error}


def _encode(content: Any) -> bytes:
    # Not as ASCII: a character would have twelve bytes, and a runner reads no more than 1 MiB.
    return json.dumps(content, ensure_ascii=False).encode()


def _send(
    start_response: StartResponse, status: int, content: Any, headers: dict[str, str]
) -> list[bytes]:
    body = _encode(content)
    start_response(
        f"{status} {HTTPStatus(status).phrase}",
        [
            ("Content-Type", "application/json; charset=utf-8"),
            ("Content-Length", str(len(body))),
            *headers.items(),
        ],
    )
    return [body]


def _whole_reply(status: int, content: Any, headers: dict[str, str]) -> bytes:
    """Return a whole reply, for a thread that has no WSGI."""
    body = _encode(content)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _failure(
    store: Store, error: Exception, headers: dict[str, str]
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return the answer that tells that nothing was stored: status, content and headers."""
    if isinstance(error, RefusedError):  # by the database
        return error.status, _refusal_json(error), headers
    why_away = _why_away(store, error)
    if why_away is not None:
        return 503, {"error": why_away}, {**headers, "retry-after": str(AWAY_RETRY_S)}
    return 500, _NOT_STORED, headers


def _why_away(store: Store, error: Exception) -> str | None:
    """Return a sentence if what is needed does not answer now."""
    return _FILES_AWAY if isinstance(error, FilesAwayError) else store.why_away(error)


def _stored(event_id: int | None) -> dict[str, Any]:
    return {"ok": True, "eventId": event_id}


# Of a request that has passed, in its environ.
_ADMITTED = "gateway.admitted"
_FILES_AWAY = "The place of the files does not answer; try again in a moment."
_NOT_STORED = _refusal_json(InvalidError("not stored"))
_ENDING = {"error": "The gateway is ending"}
