"""What a request of the page asks for: its JSON, checked, and refusals. Works inside a request."""

from __future__ import annotations

from typing import Any, NoReturn

from flask import abort, request


def refuse(status: int, sentence: str) -> NoReturn:
    """End the request with this answer."""
    abort(status, sentence)


def address() -> str:
    """Return where the request came from, for the audit."""
    return request.remote_addr or ""


def json_body() -> dict[str, Any]:
    """Return the body, which is an object."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None  # nested deeper than any body of ours
    if not isinstance(body, dict):
        refuse(400, "The body is a JSON object.")
    return body


def text(body: dict[str, Any], name: str, limit: int) -> str:
    """Return a text of the body that has to be there."""
    found = body.get(name)
    if not isinstance(found, str) or not found:
        refuse(400, f"{name} is a text.")
    if len(found) > limit:
        refuse(400, f"{name} has at most {limit} characters.")
    try:
        found.encode()
    except UnicodeEncodeError:
        refuse(400, f"{name} has half a character in it.")
    return found


def optional_text(body: dict[str, Any], name: str, limit: int) -> str | None:
    """Return a text of the body, None if there is none."""
    return text(body, name, limit) if body.get(name) not in (None, "") else None
