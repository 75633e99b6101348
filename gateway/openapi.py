"""What the gateway offers, as an OpenAPI document. A test compares it with what is answered."""

from __future__ import annotations

from typing import Any

from gateway import __version__

Schema = dict[str, Any]


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    shape: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": required} if required else shape


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
TIME: Schema = {"type": "number", "description": "Unix time in seconds"}
ANY_OBJECT: Schema = {"type": "object"}
RUN_STATUS: Schema = {"type": "string", "enum": ["pending", "running", "done", "failed"]}
COMMAND_STATUS: Schema = {"type": "string", "enum": ["pending", "done", "failed"]}

SCHEMAS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {"error": TEXT, "statusCode": INTEGER, "message": TEXT},
        "required": ["error"],
    },
    "Run": _object(
        {
            "id": TEXT,
            "status": RUN_STATUS,
            "command": _or_null(TEXT),
            "metadata": _or_null(ANY_OBJECT),
            "created_at": TIME,
            "started_at": _or_null(TIME),
            "finished_at": _or_null(TIME),
            "last_event_at": _or_null(TIME),
            "last_event_id": INTEGER,
            "event_count": INTEGER,
            "exit_code": _or_null(INTEGER),
            "reason": _or_null(TEXT),
            "command_line": _or_null(TEXT),
            "runner": _or_null(TEXT),
            "version": _or_null(TEXT),
            "mode": _or_null(TEXT),
            "working_dir": _or_null(TEXT),
            "columns": _or_null(INTEGER),
            "lines": _or_null(INTEGER),
            "session_id": _or_null(TEXT),
            "commands": _array(TEXT),
            "remote_input": BOOLEAN,
            "state": _or_null({"type": "string", "enum": ["working", "waiting"]}),
            "assist_url": _or_null(TEXT),
            "verdict": _or_null(_ref("Verdict")),
            "result": _or_null(ANY_OBJECT),
        }
    ),
    "Verdict": _object(
        {"ok": _or_null(BOOLEAN), "sentence": TEXT, "differences": _array(TEXT)},
    ),
    "Event": _object(
        {
            "id": INTEGER,
            "type": {
                "type": "string",
                "enum": ["stdout", "stderr", "marker", "info", "error", "assist"],
            },
            "data": TEXT,
            "sequence": INTEGER,
            "created_at": TIME,
        }
    ),
    "Command": _object(
        {
            "id": TEXT,
            "command": TEXT,
            "status": COMMAND_STATUS,
            "result": _or_null(TEXT),
            "error": _or_null(TEXT),
            "created_at": TIME,
            "acknowledged_at": _or_null(TIME),
        }
    ),
    "Artifact": _object(
        {
            "id": TEXT,
            "run_id": TEXT,
            "name": TEXT,
            "type": {"type": "string", "enum": ["text", "json", "diff", "markdown", "file"]},
            "size": INTEGER,
            "created_at": TIME,
        }
    ),
    "Queued": _object({"id": TEXT, "status": COMMAND_STATUS}),
}

_ERRORS = {
    400: "The request is wrong",
    401: "Not logged in; on the wire: signature, clock or nonce",
    403: "Not from the gateway's own page; on the wire: the token",
    404: "There is no such thing",
    406: "Not multipart",
    409: "The run has ended, or does not take this",
    413: "Too large",
    415: "Not JSON",
    421: "This gateway does not go by that name",
    429: "Too many requests, or wrong tokens",
    500: "The gateway failed; on the wire: the content is invalid",
    503: "The gateway is ending, or has too many streams",
}
_OF_THE_SITE = (400, 401, 421, 429)
_OF_THE_WIRE = (400, 401, 403, 421, 429, 500, 503)

_RUN_ID: Schema = {"name": "run_id", "in": "path", "required": True, "schema": TEXT}


def _query(name: str, schema: Schema, meaning: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": meaning}


def _header(name: str, *, required: bool = True) -> Schema:
    return {"name": name, "in": "header", "required": required, "schema": TEXT}


_SIGNATURE = [
    _header("X-Timestamp"),
    _header("X-Nonce"),
    _header("X-Signature"),
    _header("X-Run-Id", required=False),
    _header("X-Capability-Token", required=False),
]


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _operation(
    summary: str,
    answer: Schema,
    *,
    status: int = 200,
    errors: tuple[int, ...] = (),
    body: Schema | None = None,
    parameters: tuple[Schema, ...] = (),
    is_signed: bool = False,
) -> Schema:
    """Return one operation; `answer` and `body` are the content by media type."""
    responses: dict[str, Schema] = {str(status): {"description": "Done", "content": answer}}
    common = _OF_THE_WIRE if is_signed else _OF_THE_SITE
    for code in sorted({*common, *errors}):
        responses[str(code)] = {"description": _ERRORS[code], "content": _json(_ref("Error"))}
    operation: Schema = {"summary": summary, "responses": responses}
    found = [*parameters, *(_SIGNATURE if is_signed else [])]
    if found:
        operation["parameters"] = found
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    if is_signed:
        operation["security"] = []
    return operation


def _queue(summary: str, body: Schema, *more: int) -> Schema:
    return {
        "parameters": [_RUN_ID],
        "post": _operation(
            summary,
            _json(_ref("Queued")),
            status=202,
            errors=(403, 404, 409, *more),
            body=_json(body),
        ),
    }


_STREAM: Schema = {"text/event-stream": {"schema": TEXT}}
_PLACE = {"type": "integer", "minimum": 0, "maximum": 2**53}
_OK = _json(_object({"ok": BOOLEAN}))

PATHS: dict[str, Schema] = {
    "/api/health": {
        "get": {
            **_operation(
                "Whether the gateway works",
                _json(_object({"status": TEXT, "timestamp": INTEGER, "version": TEXT})),
                errors=(421, 429),
            ),
            "security": [],
        }
    },
    "/api/login-codes": {
        "post": _operation(
            "Make a code that lets one browser in, once: /login?code=…",
            _json(_object({"code": TEXT, "lifetime_s": NUMBER})),
            status=201,
            errors=(403,),
        )
    },
    "/api/openapi.json": {"get": _operation("This document", _json(ANY_OBJECT))},
    "/api/runs": {
        "get": _operation(
            "The runs, newest first",
            _json(_object({"runs": _array(_ref("Run")), "next": _or_null(INTEGER)})),
            parameters=(
                _query("before", _PLACE, "`next` of the page before"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "50 if absent"),
            ),
        ),
        "post": _operation(
            "Create a run; its token is shown this once",
            _json(
                _object(
                    {
                        "id": TEXT,
                        "capabilityToken": TEXT,
                        "status": RUN_STATUS,
                        "start_command": TEXT,
                    }
                )
            ),
            status=201,
            errors=(403, 413),
            body=_json(
                _object(
                    {"command": _or_null(TEXT), "metadata": _or_null(ANY_OBJECT)},
                    optional=("command", "metadata"),
                )
            ),
        ),
    },
    "/api/runs/{run_id}": {
        "parameters": [_RUN_ID],
        "get": _operation("A run", _json(_ref("Run")), errors=(404,)),
    },
    "/api/runs/{run_id}/events": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "A page of a run's events, ascending: after one, before one, or the last ones",
            _json(
                _object(
                    {
                        "events": _array(_ref("Event")),
                        "has_before": BOOLEAN,
                        "has_after": BOOLEAN,
                    }
                )
            ),
            errors=(404,),
            parameters=(
                _query("after", _PLACE, "an event's id"),
                _query("before", _PLACE, "an event's id"),
                _query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1_000},
                    "200 if absent; a page of large events has fewer",
                ),
            ),
        ),
    },
    "/api/runs/{run_id}/history": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "The commands that were sent to a run, oldest first",
            _json(_object({"commands": _array(_ref("Command"))})),
            errors=(404,),
        ),
    },
    "/api/runs/{run_id}/artifacts": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "The files of a run, oldest first",
            _json(_object({"artifacts": _array(_ref("Artifact"))})),
            errors=(404,),
        ),
    },
    "/api/runs/{run_id}/stream": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "Follow a run, as server-sent events: `event`, `run`, `command`, `artifact`",
            _STREAM,
            errors=(404, 503),
            parameters=(
                _query("after", _PLACE, "an event's id; 0 for all"),
                _header("Last-Event-ID", required=False),
            ),
        ),
    },
    "/api/stream": {
        "get": _operation(
            "Follow the list of runs, as server-sent events: `run`", _STREAM, errors=(503,)
        )
    },
    "/api/artifacts/{artifact_id}": {
        "parameters": [{**_RUN_ID, "name": "artifact_id"}],
        "get": _operation(
            "A file, as it is",
            {"text/plain": {"schema": TEXT}, "application/octet-stream": {"schema": TEXT}},
            errors=(404,),
            parameters=(
                _query("view", TEXT, "1: to be shown, not saved"),
                *(
                    _query(name, TEXT, "of an address that /link has made")
                    for name in ("until", "signature")
                ),
            ),
        ),
    },
    "/api/artifacts/{artifact_id}/link": {
        "parameters": [{**_RUN_ID, "name": "artifact_id"}],
        "post": _operation(
            "Make an address of a file that this session's browser may open for a minute",
            _json(_object({"address": TEXT, "lifetime_s": NUMBER})),
            status=201,
            errors=(403, 404, 413),
            body=_json(ANY_OBJECT),
        ),
    },
    "/api/runs/{run_id}/command": _queue(
        "Send a command that the run offers", _object({"command": TEXT}), 413
    ),
    "/api/runs/{run_id}/stop": _queue("End the run gracefully", ANY_OBJECT),
    "/api/runs/{run_id}/halt": _queue("Kill the run", ANY_OBJECT),
    "/api/runs/{run_id}/escape": _queue("Type Ctrl-C into the run's terminal", ANY_OBJECT),
    "/api/runs/{run_id}/input": _queue(
        "Type a text into the run's terminal", _object({"text": TEXT}), 413
    ),
    "/api/ingest/event": {
        "post": _operation(
            "Store an event (signed)",
            _json(_object({"ok": BOOLEAN, "eventId": INTEGER})),
            errors=(413, 415),
            body=_json(
                {
                    "type": "object",
                    "properties": {
                        "type": SCHEMAS["Event"]["properties"]["type"],
                        "data": TEXT,
                        "sequence": {"type": "integer", "minimum": 0},
                    },
                    "required": ["type", "data"],
                }
            ),
            is_signed=True,
        )
    },
    "/api/ingest/artifact": {
        "post": _operation(
            "Store a file (signed)",
            _json(_object({"ok": BOOLEAN, "artifactId": TEXT, "name": TEXT, "size": INTEGER})),
            errors=(406, 413),
            body={
                "multipart/form-data": {
                    "schema": _object({"file": {"type": "string", "format": "binary"}})
                }
            },
            is_signed=True,
        )
    },
    "/api/runs/{run_id}/commands": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "The commands that wait for the runner (signed); with a session the history",
            _json(
                {
                    "anyOf": [
                        _array(_object({"id": TEXT, "command": TEXT, "created_at": INTEGER})),
                        _object({"commands": _array(_ref("Command"))}),
                    ]
                }
            ),
            errors=(404,),
            parameters=(
                _query("wait", {"type": "integer", "minimum": 0}, "seconds to wait for a command"),
            ),
            is_signed=True,
        ),
    },
    "/api/runs/{run_id}/commands/{command_id}/ack": {
        "parameters": [_RUN_ID, {**_RUN_ID, "name": "command_id"}],
        "post": _operation(
            "Say what became of a command (signed)",
            _OK,
            errors=(413, 415),
            body=_json(_object({"result": TEXT, "error": TEXT}, optional=("result", "error"))),
            is_signed=True,
        ),
    },
}

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "claude-runner gateway",
        "version": __version__,
        "description": "Times are Unix seconds. An error is an object with `error`, a sentence.",
    },
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS,
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer", "description": "the admin token"},
            "cookie": {
                "type": "apiKey",
                "in": "cookie",
                "name": "gateway-3100",
                "description": "of the page, with the gateway's port; with TLS behind __Host-",
            },
            "pageKey": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Page-Key",
                "description": "what the page keeps; goes with the cookie, neither is good alone",
            },
        },
    },
    "security": [{"token": []}, {"cookie": [], "pageKey": []}],
}
