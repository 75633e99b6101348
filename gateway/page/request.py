"""What a request of the page asks for: its JSON, checked, runs, and refusals; and the note of what
it did. Works inside a request.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from flask import abort, g, request

from gateway.access.gate import NO_RUN
from gateway.page.parts import Parts
from gateway.roles import Person


def refuse(status: int, sentence: str) -> NoReturn:
    """End the request with this answer."""
    abort(status, sentence)


def address() -> str:
    """Return where the request came from, for the audit."""
    return request.remote_addr or ""


def person() -> Person:
    """Return who has sent the request."""
    found: Person = g.person
    return found


def find_run(parts: Parts, run_id: str) -> dict[str, Any]:
    """Return a run; if there is none that this person sees, the request ends."""
    run = parts.store.run(run_id)
    if run is None or not person().sees_run(run):
        refuse(404, NO_RUN)
    return run


def note(parts: Parts, action: str, run_id: str | None = None, detail: str | None = None) -> None:
    """Note in the audit what this person did."""
    who = person()
    parts.store.note(address(), who.how, action, run_id, detail, person=who.name)


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


def number(name: str, default: int, least: int, most: int) -> int:
    """Return a number of the query."""
    found = request.args.get(name)
    if found is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", found) or not least <= int(found) <= most:
        refuse(400, f"{name} is a whole number from {least} to {most}.")
    return int(found)


def place_in_order(name: str) -> int | None:
    """Return where a page of the query begins or ends, None if it does not say so."""
    return number(name, 0, 0, 2**53) if name in request.args else None
