"""The wire protocol as pure functions and numbers, written from docs/protocol.md alone."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote

MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_ARTIFACT_BYTES = 52_428_800
MAX_EVENT_DATA_UNITS = 1_048_576
MAX_ACK_RESULT_UNITS = 10_485_760
MAX_ACK_ERROR_UNITS = 100_000
MAX_ID_CHARACTERS = 50
MAX_SKEW_S = 300
NONCE_MEMORY_S = 600.0
MAX_LONG_POLL_S = 60.0

EVENT_TYPES = ("stdout", "stderr", "marker", "info", "error", "assist")
MARKER_EVENTS = ("started", "resized", "state", "finished")
# Only for a gateway that lists the extension `answers`.
CARD_EVENTS = ("asked", "answered", "withdrawn", "queued", "taken", "taken back")
# How gateways in the field redact the text of a marker once more: the two releases, the pattern of
# docs/protocol.md, which is wider in other places, and what all of them look for besides.
_CUT_WORDS = "secret|password|token|auth|bearer|credential"
_CUT_VALUE = r"""["']?[\w.-]+["']?"""
_FIELD_REDACTION = (
    re.compile(rf"(api[_-]?key|{_CUT_WORDS})[=:\s]{_CUT_VALUE}", re.ASCII | re.IGNORECASE),
    re.compile(
        rf"(api[_-]?key|apiKey|{_CUT_WORDS}|API_?KEY|PASSWORD|TOKEN|AUTH|[Bb]earer|BEARER)"
        rf"[=:\s]\s*{_CUT_VALUE}",
        re.ASCII,
    ),
    re.compile(rf"(api_key|{_CUT_WORDS})[=:\s]+{_CUT_VALUE}", re.IGNORECASE),
    re.compile(r"sk-[a-zA-Z0-9]{20,}|gh[ps]_[a-zA-Z0-9]{36}|npm_[a-zA-Z0-9]{36}"),
    re.compile(r"-----BEGIN[\s\S]*?-----END[^-]*-----"),
)
FINISH_REASONS = (
    "exited",
    "killed",
    "stopped",
    "halted",
    "interrupted",
    "time limit",
    "hangup",
    "runner died",
    "error",
)
STOP_COMMAND = "__STOP__"

_ROUTES = (
    ("health", "GET", re.compile(r"/api/health")),
    ("event", "POST", re.compile(r"/api/ingest/event")),
    ("artifact", "POST", re.compile(r"/api/ingest/artifact")),
    ("commands", "GET", re.compile(r"/api/runs/([^/]+)/commands")),
    ("ack", "POST", re.compile(r"/api/runs/([^/]+)/commands/([^/]+)/ack")),
)


def redacted_in_the_field(text: str) -> str:
    """Return what such a gateway stores and shows of a text; of a marker it has to be JSON."""
    for pattern in _FIELD_REDACTION:
        text = pattern.sub("[REDACTED]", text)
    return text


def find_route(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """Return the endpoint's name and the ids in its path; `unknown` if there is none."""
    for endpoint, expected, pattern in _ROUTES:
        match = pattern.fullmatch(path)
        if match and method == expected:
            return endpoint, tuple(unquote(part) for part in match.groups())
    return "unknown", ()


def expected_signature(
    secret: str,
    method: str,
    path: str,
    body: bytes,
    timestamp: str,
    nonce: str,
    run_id: str,
    token: str,
) -> str:
    """Return the signature that the protocol asks for. Shape: 64 lowercase hex digits.

    `body` is empty for a GET and for a multipart request; bytes of headers that are not UTF-8 come
    as surrogate escapes.
    """
    body_hash = hashlib.sha256(body).hexdigest()
    fields = [method.upper(), path, body_hash, timestamp, nonce, run_id, token]
    message = "\n".join(fields).encode("utf-8", "surrogateescape")
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def utf16_units(text: str) -> int:
    """Return the length of `text` as JavaScript counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def without_lone_surrogates(text: str) -> str:
    """Return `text` as it can be stored: half characters become U+FFFD."""
    paired = text.encode("utf-16-le", "surrogatepass")
    return paired.decode("utf-16-le", "replace")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON as other languages know it, without NaN, in UTF-8. Raises: ValueError."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True)
class Part:
    """One part of a multipart body."""

    name: str
    file_name: str
    content_type: str
    data: bytes


def parse_multipart(content_type: str, body: bytes, *, is_cut_off: bool) -> list[Part]:
    """Return the parts of a `multipart/form-data` body.

    Raises: ValueError. With `is_cut_off` the body may end in the middle of its last part.
    """
    header = _parse_part_head(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n")
    boundary = header.get_boundary()
    if not boundary:
        raise ValueError("no boundary")
    delimiter = b"\r\n--" + boundary.encode("latin-1")
    pieces = (b"\r\n" + body).split(delimiter)
    if pieces[0] or len(pieces) < 2:
        raise ValueError("the body does not begin with its boundary")
    if not is_cut_off and pieces[-1].strip() != b"--":
        raise ValueError("the body does not end with its boundary")
    contents = pieces[1:] if is_cut_off else pieces[1:-1]
    return [_parse_part(piece) for piece in contents if piece.strip() != b"--"]


def _parse_part(piece: bytes) -> Part:
    head, separator, data = piece.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"\r\n"):
        raise ValueError("a part without headers")
    headers = _parse_part_head(head[2:] + b"\r\n\r\n")
    if headers.get_content_disposition() != "form-data":
        raise ValueError("a part that is no form-data")
    name = headers.get_param("name", "", "content-disposition")
    return Part(str(name), headers.get_filename("") or "", headers.get_content_type(), data)


def _parse_part_head(head: bytes) -> Any:
    return email.parser.BytesHeaderParser(policy=email.policy.HTTP).parsebytes(head)


# What takes the place of events that the gateway refused, for good, to accept.
_NOTICE = re.compile(r"(\d+) events? of \d+ bytes .*refused by the gateway")


def count_refused(notice: str) -> int:
    """Return how many events an `error` event says were set aside."""
    match = _NOTICE.search(notice)
    return int(match.group(1)) if match else 0
