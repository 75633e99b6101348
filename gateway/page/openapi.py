"""What the gateway offers, as an OpenAPI document. A test compares it with what is answered."""

from __future__ import annotations

from typing import Any

from config import VERSION
from gateway.access.routes import needed
from gateway.page.markdown import TAGS as MARKDOWN_TAGS
from gateway.roles import ROLES, Role

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


_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_BOOLEAN: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "number", "description": "Unix time in seconds"}
_ANY_OBJECT: Schema = {"type": "object"}
_RUN_STATUS: Schema = {"type": "string", "enum": ["pending", "running", "done", "failed"]}
_COMMAND_STATUS: Schema = {"type": "string", "enum": ["pending", "done", "failed"]}

_ROLE: Schema = {"type": "string", "enum": list(ROLES)}

_STAGES = ["needs", "working", "pending", "done"]
_STATES = [*_STAGES, "unseen", "failed", "refused", "incomplete"]
# What both a run and its line in the list have.
_SUMMARY: dict[str, Schema] = {
    "title": _or_null(_TEXT),
    "stage": {"type": "string", "enum": _STAGES},
    "stage_at": _TIME,
    "seen_at": _or_null(_TIME),
    "refused": _INTEGER,
    "cost": _or_null(_NUMBER),
    "incomplete": _BOOLEAN,
    "kept": _BOOLEAN,
}

_SCHEMAS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {"error": _TEXT, "statusCode": _INTEGER, "message": _TEXT},
        "required": ["error"],
    },
    "Run": _object(
        {
            "id": _TEXT,
            "status": _RUN_STATUS,
            "owner": {**_or_null(_TEXT), "description": "who made it; null: with the admin token"},
            "command": _or_null(_TEXT),
            "metadata": _or_null(_ANY_OBJECT),
            "created_at": _TIME,
            "started_at": _or_null(_TIME),
            "finished_at": _or_null(_TIME),
            "last_event_at": _or_null(_TIME),
            "last_event_id": _INTEGER,
            "event_count": _INTEGER,
            "exit_code": _or_null(_INTEGER),
            "reason": _or_null(_TEXT),
            "command_line": _or_null(_TEXT),
            "runner": _or_null(_TEXT),
            "version": _or_null(_TEXT),
            "mode": _or_null(_TEXT),
            "working_dir": _or_null(_TEXT),
            "columns": _or_null(_INTEGER),
            "lines": _or_null(_INTEGER),
            "session_id": _or_null(_TEXT),
            # What it was started with, of what another run may be started with as well.
            "options": _ANY_OBJECT,
            "layout": _or_null(_INTEGER),
            "progress": _or_null(_ANY_OBJECT),
            "commands": _array(_TEXT),
            "project": _or_null(_array(_TEXT)),
            "remote_input": _BOOLEAN,
            "state": _or_null({"type": "string", "enum": ["working", "waiting"]}),
            "state_event_id": _or_null(_INTEGER),
            "assist_url": _or_null(_TEXT),
            "verdict": _or_null(_ref("Verdict")),
            "result": _or_null(_ANY_OBJECT),
            "listens": _BOOLEAN,
            "remote_answers": _BOOLEAN,
            "stays": _BOOLEAN,
            "modes": _array(_TEXT),
            "open_questions": _INTEGER,
            "waiting_messages": _INTEGER,
            "talk_event_id": _INTEGER,
            "prompt": _or_null(_TEXT),
            "branch": _or_null(_TEXT),
            # What it is called everywhere.
            "name": _TEXT,
            # The folder that waits for runs, and is to start it.
            "sent_to": _or_null(_TEXT),
            # Asked for alone: whether it goes on, and its runner is not heard of.
            "silent": _BOOLEAN,
            **_SUMMARY,
        },
        optional=("silent",),
    ),
    "Line": _object(
        {
            "id": _TEXT,
            "status": _RUN_STATUS,
            "owner": _or_null(_TEXT),
            "prompt": _or_null(_TEXT),
            "created_at": _TIME,
            "started_at": _or_null(_TIME),
            "finished_at": _or_null(_TIME),
            "last_event_at": _or_null(_TIME),
            "last_event_id": _INTEGER,
            "exit_code": _or_null(_INTEGER),
            "reason": _or_null(_TEXT),
            "runner": _or_null(_TEXT),
            "mode": _or_null(_TEXT),
            "working_dir": _or_null(_TEXT),
            "branch": _or_null(_TEXT),
            "open_questions": _INTEGER,
            "found": _or_null(_TEXT),
            "name": _TEXT,
            "sent_to": _or_null(_TEXT),
            # Whether it goes on, and its runner has not been heard of for five minutes.
            "silent": _BOOLEAN,
            **_SUMMARY,
        }
    ),
    "Created": _object(
        {"id": _TEXT, "capabilityToken": _TEXT, "status": _RUN_STATUS, "start_command": _TEXT}
    ),
    "Card": _object(
        {
            "id": _TEXT,
            "event_id": _INTEGER,
            "asked_at": _TIME,
            "code": _TEXT,
            "digest": _TEXT,
            "kind": {"type": "string", "enum": ["permission", "question", "plan"]},
            "tool": _TEXT,
            "title": _TEXT,
            "agent": _TEXT,
            "reason": _TEXT,
            "plan": _TEXT,
            "diff": _TEXT,
            "fields": _array(_object({"name": _TEXT, "text": _TEXT})),
            "questions": _array(
                _object(
                    {
                        "question": _TEXT,
                        "header": _TEXT,
                        "multiple": _BOOLEAN,
                        "options": _array(_object({"label": _TEXT, "description": _TEXT})),
                    }
                )
            ),
            "input_characters": _or_null(_INTEGER),
            "hidden": _BOOLEAN,
            "whole": _BOOLEAN,
            "defaults_to_no": _BOOLEAN,
            # When it is denied for want of an answer.
            "until": _or_null(_TIME),
            "scopes": _array(_object({"id": _TEXT, "label": _TEXT})),
        }
    ),
    "Closed": _object(
        {
            "id": _TEXT,
            "event_id": _INTEGER,
            "closed_at": _TIME,
            "code": _TEXT,
            "kind": _TEXT,
            "tool": _TEXT,
            "summary": _TEXT,
            "decision": _or_null(_TEXT),
            "by": _TEXT,
            "person": {**_or_null(_TEXT), "description": "who answered on the page, by name"},
            "scope": _TEXT,
            "message": _TEXT,
            "reason": _TEXT,
        }
    ),
    "Notifications": _object(
        {
            "services": _array(
                _object(
                    {
                        "name": _TEXT,
                        "problem": _or_null(_TEXT),
                        "sent_at": _or_null(_TIME),
                        "waiting": _INTEGER,
                        "test": _or_null(
                            _object(
                                {
                                    "state": {
                                        "type": "string",
                                        "enum": ["sending", "sent", "failed"],
                                    },
                                    "problem": _or_null(_TEXT),
                                    "at": _TIME,
                                }
                            )
                        ),
                    }
                )
            ),
            "quiet_hours": _or_null(_TEXT),
            "last_notice": _INTEGER,
        }
    ),
    "Verdict": _object(
        {"ok": _or_null(_BOOLEAN), "sentence": _TEXT, "differences": _array(_TEXT)},
    ),
    "Event": _object(
        {
            "id": _INTEGER,
            "type": {
                "type": "string",
                "enum": ["stdout", "stderr", "marker", "info", "error", "assist"],
            },
            "data": _TEXT,
            "sequence": _INTEGER,
            "created_at": _TIME,
        }
    ),
    "Command": _object(
        {
            "id": _TEXT,
            "command": _TEXT,
            "status": _COMMAND_STATUS,
            "result": _or_null(_TEXT),
            "error": _or_null(_TEXT),
            "created_at": _TIME,
            "acknowledged_at": _or_null(_TIME),
            "person": {**_or_null(_TEXT), "description": "who sent it, by name"},
        }
    ),
    "Person": _object(
        {
            "name": _TEXT,
            "role": _ROLE,
            "own": {"type": "boolean", "description": "sees own runs alone"},
            "folders": {**_array(_TEXT), "description": "sees runs there; empty: everywhere"},
            "created_at": _TIME,
            "until": _or_null(_TIME),
            "sessions": _INTEGER,
        }
    ),
    "Note": _object(
        {
            "at": _TIME,
            "address": _TEXT,
            "person": _or_null(_TEXT),
            "actor": {"type": "string", "description": "how they were signed in"},
            "action": _TEXT,
            "run_id": _or_null(_TEXT),
            "detail": _or_null(_TEXT),
            "succeeded": _BOOLEAN,
        }
    ),
    "Artifact": _object(
        {
            "id": _TEXT,
            "run_id": _TEXT,
            "name": _TEXT,
            "type": {"type": "string", "enum": ["text", "json", "diff", "markdown", "file"]},
            "size": _INTEGER,
            "created_at": _TIME,
        }
    ),
    "ChangedFile": _object(
        {
            "path": _TEXT,
            "from": {**_or_null(_TEXT), "description": "its name before, if it had another"},
            "status": {"type": "string", "enum": ["added", "removed", "renamed", "changed"]},
            "is_binary": _BOOLEAN,
            "was_changed": {"type": "boolean", "description": "before the run began as well"},
            "added": {"type": "integer", "description": "lines"},
            "removed": {"type": "integer", "description": "lines"},
            "lines": {"type": "integer", "description": "of its diff"},
            "begin": _INTEGER,
            "end": _INTEGER,
            "key": {"type": "string", "description": "changes with its lines"},
            "text": {"type": "string", "description": "its lines, if it is small"},
        },
        optional=("text",),
    ),
    "Hit": _object(
        {
            "event": {"type": "integer", "description": "in which the line begins"},
            "line": {"type": "integer", "description": "how many line ends are before it there"},
            "type": _TEXT,
            "text": _TEXT,
            "start": _INTEGER,
            "end": _INTEGER,
        }
    ),
    "MarkdownNode": {
        "anyOf": [
            _TEXT,
            _object(
                {
                    "tag": {"type": "string", "enum": sorted(MARKDOWN_TAGS)},
                    "line": _INTEGER,
                    "href": _TEXT,
                    "title": _TEXT,
                    "start": _INTEGER,
                    "align": {"type": "string", "enum": ["left", "right", "center"]},
                    "language": _TEXT,
                    "children": {"type": "array", "items": _ref("MarkdownNode")},
                },
                optional=("line", "href", "title", "start", "align", "language", "children"),
            ),
        ]
    },
    "Queued": _object({"id": _TEXT, "status": _COMMAND_STATUS}),
    "Offer": _object(
        {
            "id": _TEXT,
            "name": _TEXT,
            "machine": _TEXT,
            "since": _TIME,
            "running": _or_null(_TEXT),
            "queued": _INTEGER,
            "asks": _BOOLEAN,
            "modes": _array(_TEXT),
            # Whether it can go on with a session.
            "resumes": _BOOLEAN,
        }
    ),
    "Order": _object(
        {
            "state": {
                "type": "string",
                "enum": [
                    *("queued", "taken", "starting", "started"),
                    *("failed", "refused", "withdrawn", "expired"),
                ],
            },
            "folder": _TEXT,
            "machine": _TEXT,
            "offer": _or_null(_TEXT),
            "is_here": _BOOLEAN,
            "ahead": _INTEGER,
            "queued_at": _TIME,
            "taken_at": _or_null(_TIME),
            "exit_code": _or_null(_INTEGER),
            "reason": _TEXT,
            "began": _BOOLEAN,
            "may_send": _BOOLEAN,
        }
    ),
}

_ERRORS = {
    400: "The request is wrong",
    401: "Not logged in; on the wire: signature, clock or nonce",
    403: "Not this person's role, or not from the gateway's own page; on the wire: the token",
    404: "There is no such thing, or this person may not see it",
    406: "Not multipart",
    409: "The run has ended, or does not take this",
    413: "Too large",
    415: "Not JSON",
    421: "This gateway does not go by that name",
    429: "Too many requests, or wrong tokens",
    500: "The gateway failed; on the wire: the content is invalid",
    503: "The gateway is ending, has too many streams, or its database does not answer",
}
_OF_THE_SITE = (400, 401, 403, 421, 429, 503)
_OF_THE_WIRE = (400, 401, 403, 421, 429, 500, 503)

_RUN_ID: Schema = {"name": "run_id", "in": "path", "required": True, "schema": _TEXT}


def _query(name: str, schema: Schema, meaning: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": meaning}


def _header(name: str, *, required: bool = True) -> Schema:
    return {"name": name, "in": "header", "required": required, "schema": _TEXT}


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


def _change(
    summary: str, body: Schema, answer: Schema, *, status: int = 200, errors: tuple[int, ...] = ()
) -> Schema:
    return {
        "parameters": [_RUN_ID],
        "post": _operation(
            summary,
            _json(answer),
            status=status,
            errors=(403, 404, 413, *errors),
            body=_json(body),
        ),
    }


_STREAM: Schema = {"text/event-stream": {"schema": _TEXT}}
_PLACE = {"type": "integer", "minimum": 0, "maximum": 2**53}
_OK = _json(_object({"ok": _BOOLEAN}))

_ORDER = _json(_object({"order": _or_null(_ref("Order"))}))
# What a folder that waits says of the last run that it took.
_ENDED = {
    "run": _TEXT,
    "handout": _INTEGER,
    "exitCode": _or_null(_INTEGER),
    "began": _BOOLEAN,
    "refused": _TEXT,
}


def _sign_out(summary: str, *errors: int) -> Schema:
    answer = _json(_object({"ended": _INTEGER}))
    return _operation(summary, answer, errors=(413, *errors), body=_json(_ANY_OBJECT))


def _change_order(summary: str) -> Schema:
    errors = (403, 404, 409, 413)
    operation = _operation(summary, _ORDER, errors=errors, body=_json(_ANY_OBJECT))
    return {"parameters": [_RUN_ID], "post": operation}


_PATHS: dict[str, Schema] = {
    "/api/health": {
        "get": {
            **_operation(
                "Whether the gateway works",
                _json(
                    _object(
                        {
                            "status": _TEXT,
                            "timestamp": _INTEGER,
                            "version": _TEXT,
                            "extensions": _array(_TEXT),
                        }
                    )
                ),
                errors=(421, 429, 503),
            ),
            "security": [],
        }
    },
    "/api/login-codes": {
        "post": _operation(
            "Make a code that lets one browser in, once: /login?code=…",
            _json(_object({"code": _TEXT, "lifetime_s": _NUMBER})),
            status=201,
            errors=(403,),
        )
    },
    "/api/me": {
        "get": _operation(
            "Who is signed in; the holder of the admin token has no name",
            _json(
                _object(
                    {
                        "name": _or_null(_TEXT),
                        "role": _ROLE,
                        "signed_in": {"type": "string", "enum": ["token", "session", "proxy"]},
                        "own": _BOOLEAN,
                        "folders": _array(_TEXT),
                    }
                )
            ),
        )
    },
    "/api/me/sign-out": {"post": _sign_out("End all own sessions, in every browser", 409)},
    "/api/people": {
        "get": _operation(
            "The people who have a token of their own",
            _json(_object({"people": _array(_ref("Person"))})),
        ),
        "post": _operation(
            "Give a person a token, which is shown this once",
            _json(_object({"name": _TEXT, "role": _ROLE, "token": _TEXT})),
            status=201,
            errors=(409, 413),
            body=_json(
                _object(
                    {
                        "name": _TEXT,
                        "role": _ROLE,
                        "own": _BOOLEAN,
                        "folders": _array(_TEXT),
                        "until": _or_null(_TIME),
                    },
                    optional=("own", "folders", "until"),
                )
            ),
        ),
    },
    "/api/people/{name}/remove": {
        "parameters": [{**_RUN_ID, "name": "name"}],
        "post": _operation(
            "Take a person's token and sessions away",
            _OK,
            errors=(404, 413),
            body=_json(_ANY_OBJECT),
        ),
    },
    "/api/people/{name}/sign-out": {
        "parameters": [{**_RUN_ID, "name": "name"}],
        "post": _sign_out("End all sessions of a person, whose token stays good", 404),
    },
    "/api/audit": {
        "get": _operation(
            "Who did what, newest first",
            _json(_object({"entries": _array(_ref("Note")), "next": _or_null(_INTEGER)})),
            parameters=(
                _query("before", _PLACE, "`next` of the page before"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1_000}, "200 if none"),
                _query("run", _TEXT, "those alone about this run"),
                _query("person", _TEXT, "those alone of this person"),
            ),
        )
    },
    "/api/openapi.json": {"get": _operation("This document", _json(_ANY_OBJECT))},
    "/api/runs": {
        "get": _operation(
            "The runs, newest first",
            _json(_object({"runs": _array(_ref("Run")), "next": _or_null(_INTEGER)})),
            parameters=(
                _query("before", _PLACE, "`next` of the page before"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "50 if absent"),
                _query("state", _TEXT, "waiting: those alone that wait for a person, all at once"),
            ),
        ),
        "post": _operation(
            "Create a run; its token is shown this once",
            _json(_ref("Created")),
            status=201,
            errors=(403, 404, 409, 413),
            body=_json(
                _object(
                    {
                        "command": _or_null(_TEXT),
                        "metadata": _or_null(_ANY_OBJECT),
                        # A run whose prompt and folder it gets; one whose session it goes on with.
                        "again": _or_null(_TEXT),
                        "resume": _or_null(_TEXT),
                    },
                    optional=("command", "metadata", "again", "resume"),
                )
            ),
        ),
    },
    "/api/list": {
        "get": _operation(
            "The runs in groups, each newest first: who has to do something next",
            _json(
                _object(
                    {
                        "groups": _array(
                            _object(
                                {
                                    "stage": _SUMMARY["stage"],
                                    "count": _INTEGER,
                                    "runs": _array(_ref("Line")),
                                    "next": _or_null(_TEXT),
                                }
                            )
                        ),
                        # Of all runs, whatever the filter.
                        "counts": _object(dict.fromkeys((*_STAGES, "unseen"), _INTEGER)),
                        "folders": _array(_TEXT),
                        "runners": _array(_TEXT),
                    }
                )
            ),
            parameters=(
                _query("state", {"type": "string", "enum": _STATES}, "those alone"),
                _query("folder", _TEXT, "those alone that work there"),
                _query("runner", _TEXT, "those alone of this type"),
                _query("q", _TEXT, "those with these words in the title, the prompt or the output"),
                _query("stage", {"type": "string", "enum": _STAGES}, "this group alone"),
                _query("after", _TEXT, "`next` of a group's page before; only with `stage`"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "50 if absent"),
            ),
        )
    },
    "/api/runs/delete": {
        "post": _operation(
            "Delete runs with all that they have; one that goes on is refused, unless it is silent",
            _json(
                _object(
                    {
                        "removed": _array(_TEXT),
                        "refused": _array(_object({"id": _TEXT, "error": _TEXT})),
                    }
                )
            ),
            errors=(403, 413),
            body=_json(_object({"ids": {**_array(_TEXT), "minItems": 1, "maxItems": 200}})),
        )
    },
    "/api/runs/{run_id}/title": _change(
        "Name a run; an empty name takes it away", _object({"title": _or_null(_TEXT)}), _ref("Run")
    ),
    "/api/runs/{run_id}/seen": _change(
        "Note that somebody has looked at the end of a run", _ANY_OBJECT, _ref("Run")
    ),
    "/api/runs/{run_id}/keep": _change(
        "Keep a run for ever, or no longer than others",
        _object({"keep": _BOOLEAN}),
        _ref("Run"),
    ),
    "/api/runs/{run_id}/start-line": _change(
        "Make another token for a run that was not started; the old one is dead",
        _ANY_OBJECT,
        _ref("Created"),
        status=201,
        errors=(409,),
    ),
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
                        "has_before": _BOOLEAN,
                        "has_after": _BOOLEAN,
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
    "/api/runs/{run_id}/screen": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "The screen of a session as it stands: lines of texts, each with its style",
            _json(
                _object(
                    {
                        "after": _PLACE,
                        "columns": {"type": "integer"},
                        "lines": {"type": "integer"},
                        "cursor": {"type": ["array", "null"], "items": {"type": "integer"}},
                        "alternate": _BOOLEAN,
                        "rows": _array(_array(_array({}))),
                        "whole": _BOOLEAN,
                        "done": _BOOLEAN,
                    }
                )
            ),
            errors=(404,),
        ),
    },
    "/api/runs/{run_id}/conversation": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "What a run asks, what the last answers were, and which messages wait to be read",
            _json(
                _object(
                    {
                        "event_id": _INTEGER,
                        "open": _array(_ref("Card")),
                        "more": _INTEGER,
                        "closed": _array(_ref("Closed")),
                        "waiting": _array(
                            _object(
                                {
                                    "id": _TEXT,
                                    "event_id": _INTEGER,
                                    "queued_at": _TIME,
                                    "text": _TEXT,
                                }
                            )
                        ),
                    }
                )
            ),
            errors=(404,),
        ),
    },
    "/api/runs/{run_id}/search": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "Search a run's output; without q the lines that tell of a failure",
            _json(_object({"hits": _array(_ref("Hit")), "next": _or_null(_TEXT)})),
            errors=(404,),
            parameters=(
                _query("q", _TEXT, "what to find, whatever the case of its letters"),
                _query("from", _TEXT, "where to begin: `next`, or a line as event.line"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "50 if absent"),
            ),
        ),
    },
    "/api/runs/{run_id}/text": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "All that a run has printed by now",
            {"text/plain": {"schema": _TEXT}},
            errors=(404,),
            parameters=tuple(
                _query(name, _TEXT, "of an address that /link has made")
                for name in ("until", "signature")
            ),
        ),
    },
    "/api/runs/{run_id}/text/link": {
        "parameters": [_RUN_ID],
        "post": _operation(
            "Make an address of a run's text that this session's browser may open for a minute",
            _json(_object({"address": _TEXT, "lifetime_s": _NUMBER})),
            status=201,
            errors=(403, 404, 413),
            body=_json(_ANY_OBJECT),
        ),
    },
    "/api/markdown": {
        "post": _operation(
            "Markdown as trees that a page builds its elements from; null for what is shown as it "
            "is",
            _json(_object({"trees": _array(_or_null(_array(_ref("MarkdownNode"))))})),
            errors=(403, 413),
            body=_json(_object({"texts": _array(_TEXT)})),
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
    "/api/runs/{run_id}/changes": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "The files that a run has changed, from the parts of its newest `changes.diff`",
            _json(
                _object({"parts": _array(_ref("Artifact")), "files": _array(_ref("ChangedFile"))})
            ),
            errors=(404, 503),
        ),
    },
    "/api/runs/{run_id}/changes/lines": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "At most 1,000 lines of a changed file, and where to go on",
            _json(_object({"text": _TEXT, "next": _or_null(_INTEGER)})),
            errors=(404, 503),
            parameters=(
                _query("of", _TEXT, "the id of the first part"),
                _query("begin", _PLACE, "the file's `begin`, or `next`"),
                _query("end", _PLACE, "the file's `end`"),
            ),
        ),
    },
    "/api/runs/{run_id}/stream": {
        "parameters": [_RUN_ID],
        "get": _operation(
            "Follow a run, as server-sent events: `event`, `run`, `command`, `artifact`, "
            "`removed`, `notice`, `notifications`",
            _STREAM,
            errors=(404,),
            parameters=(
                _query("after", _PLACE, "an event's id; 0 for all"),
                _query("noticed", _PLACE, "the number of the last notice"),
                _header("Last-Event-ID", required=False),
            ),
        ),
    },
    "/api/stream": {
        "get": _operation(
            "Follow the list of runs, as server-sent events: `run`, `removed`, `notice`, "
            "`notifications`",
            _STREAM,
            parameters=(_query("noticed", _PLACE, "the number of the last notice"),),
        )
    },
    "/api/artifacts/{artifact_id}": {
        "parameters": [{**_RUN_ID, "name": "artifact_id"}],
        "get": _operation(
            "A file, as it is",
            {"text/plain": {"schema": _TEXT}, "application/octet-stream": {"schema": _TEXT}},
            errors=(404, 503),
            parameters=(
                _query("view", _TEXT, "1: to be shown, not saved"),
                *(
                    _query(name, _TEXT, "of an address that /link has made")
                    for name in ("until", "signature")
                ),
            ),
        ),
    },
    "/api/artifacts/{artifact_id}/link": {
        "parameters": [{**_RUN_ID, "name": "artifact_id"}],
        "post": _operation(
            "Make an address of a file that this session's browser may open for a minute",
            _json(_object({"address": _TEXT, "lifetime_s": _NUMBER})),
            status=201,
            errors=(403, 404, 413),
            body=_json(_ANY_OBJECT),
        ),
    },
    "/api/runs/{run_id}/command": _queue(
        "Send a command that the run offers", _object({"command": _TEXT}), 413
    ),
    "/api/runs/{run_id}/stop": _queue("End the run gracefully", _ANY_OBJECT),
    "/api/runs/{run_id}/halt": _queue("Kill the run", _ANY_OBJECT),
    "/api/runs/{run_id}/escape": _queue("Type Ctrl-C into the run's terminal", _ANY_OBJECT),
    "/api/runs/{run_id}/input": _queue(
        "Type a text into the run's terminal", _object({"text": _TEXT}), 413
    ),
    "/api/runs/{run_id}/answer": _queue(
        "Answer an open question of the run",
        _object(
            {
                "id": _TEXT,
                "digest": _TEXT,
                "decision": {"type": "string", "enum": ["allow", "deny"]},
                "message": _TEXT,
                "answers": _array(
                    _object(
                        {"options": _array(_INTEGER), "text": _TEXT}, optional=("options", "text")
                    )
                ),
                "scope": _TEXT,
            },
            optional=("message", "answers", "scope"),
        ),
        413,
    ),
    "/api/runs/{run_id}/mode": _queue(
        "Switch the run to another permission mode", _object({"mode": _TEXT})
    ),
    "/api/runs/{run_id}/take-back": _queue(
        "Take back a message that waits to be read", _object({"id": _TEXT})
    ),
    "/api/offers": {
        "get": _operation(
            "The folders that wait for runs, and how many wait to be let in",
            _json(_object({"offers": _array(_ref("Offer")), "unpaired": _INTEGER})),
        ),
        "post": _operation(
            "Wait for a run (signed, by a folder); `run` is one that it may take",
            _json(
                _object(
                    {
                        "ok": _BOOLEAN,
                        "replaced": _BOOLEAN,
                        "code": _or_null(_TEXT),
                        "run": _or_null(
                            _object(
                                {
                                    "id": _TEXT,
                                    "handout": _INTEGER,
                                    "prompt": _TEXT,
                                    "mode": _or_null(_TEXT),
                                    "ask": _or_null(_BOOLEAN),
                                }
                            )
                        ),
                    }
                )
            ),
            errors=(413, 415),
            body=_json(
                _object(
                    {
                        "session": _TEXT,
                        "name": _TEXT,
                        "machine": _TEXT,
                        "modes": _array(_TEXT),
                        "asks": _BOOLEAN,
                        "resumes": _BOOLEAN,
                        "begins": _BOOLEAN,
                        "leaves": _BOOLEAN,
                        "running": _TEXT,
                        "code": _or_null(_TEXT),
                        "ended": _or_null(_object(_ENDED, optional=tuple(_ENDED))),
                    },
                    optional=(
                        *("machine", "modes", "asks", "resumes", "begins", "leaves"),
                        *("running", "code", "ended"),
                    ),
                )
            ),
            parameters=(_query("wait", {"type": "integer", "minimum": 0}, "seconds, 20 at most"),),
            is_signed=True,
        ),
    },
    "/api/offers/take": {
        "post": _operation(
            "Take a run (signed, by a folder), which has this token from then on",
            _json(_object({"ok": _BOOLEAN, "taken": _BOOLEAN, "reason": _TEXT})),
            errors=(413, 415),
            body=_json(
                _object({"session": _TEXT, "run": _TEXT, "handout": _INTEGER, "token": _TEXT})
            ),
            is_signed=True,
        )
    },
    "/api/offers/pair": {
        "post": _operation(
            "Let the folder in whose terminal shows this code",
            _json(_ref("Offer")),
            errors=(403, 404, 413),
            body=_json(_object({"code": _TEXT})),
        )
    },
    "/api/offers/{waiter_id}/forget": {
        "parameters": [{**_RUN_ID, "name": "waiter_id"}],
        "post": _operation(
            "Let a folder in no longer; what is queued for it is withdrawn",
            _OK,
            errors=(403, 404, 409, 413),
            body=_json(_ANY_OBJECT),
        ),
    },
    "/api/offers/{waiter_id}/runs": {
        "parameters": [{**_RUN_ID, "name": "waiter_id"}],
        "post": _operation(
            "Make a run and queue it for a folder; the same key again is the same run",
            _json(_object({"id": _TEXT, "order": _or_null(_ref("Order"))})),
            status=202,
            errors=(403, 404, 409, 413),
            body=_json(
                _object(
                    {
                        "key": {"type": "string", "pattern": "^[A-Za-z0-9_-]{16,64}$"},
                        "prompt": _TEXT,
                        "mode": _or_null(_TEXT),
                        "ask": _or_null(_BOOLEAN),
                        "title": _or_null(_TEXT),
                        # A run that is repeated, or whose session goes on.
                        "again": _or_null(_TEXT),
                        "resume": _or_null(_TEXT),
                    },
                    optional=("mode", "ask", "title", "again", "resume"),
                )
            ),
        ),
    },
    "/api/runs/{run_id}/order": {
        "parameters": [_RUN_ID],
        "get": _operation("What became of a run that was sent to a folder", _ORDER, errors=(404,)),
    },
    "/api/runs/{run_id}/withdraw": _change_order("Take back a run that its folder has not taken"),
    "/api/runs/{run_id}/send-again": _change_order("Queue a run again that has not begun"),
    "/api/runs/{run_id}/looks": {
        "parameters": [_RUN_ID],
        "post": _operation(
            "Say every few seconds that a page shows the run, so that nobody is notified of it",
            _OK,
            errors=(403, 404, 413),
            body=_json(_object({"page": _TEXT, "visible": _BOOLEAN})),
        ),
    },
    "/api/notifications": {
        "get": _operation("The services that are told of runs", _json(_ref("Notifications")))
    },
    "/api/notifications/test": {
        "post": _operation(
            "Send a message to each service now; GET tells what became of it",
            _json(_ref("Notifications")),
            status=202,
            errors=(403, 409, 413),
            body=_json(_ANY_OBJECT),
        ),
    },
    "/api/ingest/event": {
        "post": _operation(
            "Store an event (signed)",
            _json(_object({"ok": _BOOLEAN, "eventId": _INTEGER})),
            errors=(413, 415),
            body=_json(
                {
                    "type": "object",
                    "properties": {
                        "type": _SCHEMAS["Event"]["properties"]["type"],
                        "data": _TEXT,
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
            _json(_object({"ok": _BOOLEAN, "artifactId": _TEXT, "name": _TEXT, "size": _INTEGER})),
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
                        _array(_object({"id": _TEXT, "command": _TEXT, "created_at": _INTEGER})),
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
            body=_json(_object({"result": _TEXT, "error": _TEXT}, optional=("result", "error"))),
            is_signed=True,
        ),
    },
}


def _add_roles() -> None:
    """Say of each operation of a person which role it needs."""
    for path, item in _PATHS.items():
        for method, operation in item.items():
            role = needed(method.upper(), path)
            if role is not None and role is not Role.ANYONE:
                operation["x-role"] = role.word


_add_roles()

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "claude-runner gateway",
        "version": VERSION,
        "description": "Times are Unix seconds. An error is an object with `error`, a sentence. "
        "`x-role` is the role that an operation needs: viewer, operator or admin, each of which "
        "may do what those before it may.",
    },
    "paths": _PATHS,
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "the admin token, or a person's",
            },
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
