"""What schemathesis is told about the gateway's API: signatures, and ids that exist.

Loaded by schemathesis in a process of its own (`SCHEMATHESIS_HOOKS`); what it needs to know is in
`API_FACTS`, as JSON: `secret`, `admin_token`, `run_id`, `token`, `artifact_id`, `waiter_id`,
`waiter_key`, and `answers`, the file that gets a line with method, status and path of each answer.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from typing import Any

import requests
import schemathesis

from testing.gateways.wire import expected_signature

FACTS: dict[str, str] = json.loads(os.environ["API_FACTS"])
_SIGNED = re.compile(r"/api/(ingest/\w+|runs/[^/]+/commands(/[^/]+/ack)?)")
_OF_FOLDERS = re.compile(r"/api/offers(/take)?")


class Credentials(requests.auth.AuthBase):
    """Signs what runners send, with the exact bytes that go out; all else has the admin token."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add what lets this request in."""
        path = request.path_url.partition("?")[0]
        who, its_key = FACTS["run_id"], FACTS["token"]
        if request.method == "POST" and _OF_FOLDERS.fullmatch(path):
            who, its_key = FACTS["waiter_id"], FACTS["waiter_key"]
        elif not _SIGNED.fullmatch(path):
            request.headers["Authorization"] = f"Bearer {FACTS['admin_token']}"
            return request
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        kind = str(request.headers.get("Content-Type", ""))
        is_hashed_empty = request.method == "GET" or kind.startswith("multipart/form-data")
        timestamp, nonce = str(int(time.time())), secrets.token_hex(16)
        request.headers["X-Timestamp"], request.headers["X-Nonce"] = timestamp, nonce
        request.headers["X-Run-Id"] = who
        request.headers["X-Capability-Token"] = its_key
        request.headers["X-Signature"] = expected_signature(
            FACTS["secret"],
            str(request.method),
            path,
            b"" if is_hashed_empty else body,
            timestamp,
            nonce,
            who,
            its_key,
        )
        return request


def map_path_parameters(
    _context: schemathesis.HookContext, parameters: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Let most requests meet a run and an artifact that are there."""
    for name in ("run_id", "artifact_id", "waiter_id"):
        if parameters and name in parameters and len(str(parameters[name])) % 4:
            parameters[name] = FACTS[name]
    return parameters


def map_query(
    _context: schemathesis.HookContext, query: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Let no poll wait: what a long poll does has tests of its own."""
    if query and "wait" in query:
        query["wait"] = 0
    return query


def after_call(
    _context: schemathesis.HookContext,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> None:
    """Note what was answered."""
    with open(FACTS["answers"], "a") as file:
        file.write(f"{case.method} {response.status_code} {case.operation.path}\n")


schemathesis.auth.set_from_requests(Credentials())
for _each in (map_path_parameters, map_query, after_call):
    schemathesis.hook(_each)
