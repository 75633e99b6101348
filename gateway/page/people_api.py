"""Who is signed in, who has a token, and who did what: what the page and scripts ask of people."""

from __future__ import annotations

import math
import secrets
import time
from typing import Any

from flask import Blueprint, Response, jsonify, request

from gateway.admission import hash_token
from gateway.page.parts import Parts
from gateway.page.request import json_body, note, number, person, place_in_order, refuse, text
from gateway.roles import MAX_FOLDERS, MAX_PATTERN, NAME, ROLES, Person, Role

_MAX_PAGE = 1_000


def add_people(api: Blueprint, parts: Parts) -> None:
    """Add the addresses."""
    _add_own(api, parts)
    _add_others(api, parts)

    @api.get("/audit")
    def list_notes() -> Response:
        limit = number("limit", 200, 1, _MAX_PAGE)
        entries, following = parts.store.notes(
            place_in_order("before"), limit, request.args.get("run"), request.args.get("person")
        )
        return jsonify({"entries": entries, "next": following})


def _add_own(api: Blueprint, parts: Parts) -> None:
    @api.get("/me")
    def show_me() -> Response:
        me = person()
        return jsonify(
            {
                "name": me.name,
                "role": me.role.word,
                "signed_in": me.how,
                "own": me.own,
                "folders": list(me.folders),
            }
        )

    @api.post("/me/sign-out")
    def sign_me_out() -> Response:
        json_body()
        me = person()
        if me.how == "proxy":
            refuse(409, "The proxy in front signs you in; sign out there.")
        ended = parts.login.close_all(me)
        note(parts, "sign out everywhere")
        return jsonify({"ended": ended})


def _add_others(api: Blueprint, parts: Parts) -> None:
    @api.get("/people")
    def list_people() -> Response:
        return jsonify({"people": parts.store.people.listed()})

    @api.post("/people")
    def add() -> tuple[Response, int]:
        body = json_body()
        new = _read_person(body)
        token = secrets.token_urlsafe(32)
        if not parts.store.people.add(new, hash_token(token)):
            refuse(409, f"{new.name} is there already; remove them first.")
        note(parts, "add a person", detail=f"{new.name}, {new.role.word}{_bounds(new)}")
        return jsonify({"name": new.name, "role": new.role.word, "token": token}), 201

    @api.post("/people/<name>/remove")
    def remove(name: str) -> Response:
        json_body()
        if not parts.login.remove(name):
            refuse(404, "There is no person of that name.")
        note(parts, "remove a person", detail=name)
        return jsonify({"ok": True})

    @api.post("/people/<name>/sign-out")
    def sign_out(name: str) -> Response:
        json_body()
        found = parts.store.people.by_name(name)
        if found is None:
            refuse(404, "There is no person of that name.")
        ended = parts.login.close_all(found)
        note(parts, "sign a person out", detail=name)
        return jsonify({"ended": ended})


def _read_person(body: dict[str, Any]) -> Person:
    name, role = text(body, "name", 100), ROLES.get(text(body, "role", 20))
    if not NAME.fullmatch(name):
        refuse(400, "name has letters, digits and . _ @ + -, and no blanks.")
    if role is None:
        refuse(400, f"role is one of {', '.join(ROLES)}.")
    own, folders, until = body.get("own", False), body.get("folders") or [], body.get("until")
    if not isinstance(own, bool):
        refuse(400, "own is true or false.")
    if not isinstance(folders, list) or len(folders) > MAX_FOLDERS:
        refuse(400, f"folders is a list of at most {MAX_FOLDERS} patterns.")
    for each in folders:
        if not isinstance(each, str) or not each.isprintable() or not 0 < len(each) <= MAX_PATTERN:
            refuse(400, "A pattern of a folder is one line of text.")
    if role is Role.ADMIN and (own or folders):
        refuse(400, "An admin sees all runs.")
    return Person(name, role, own=own, folders=tuple(folders), until=_read_end(until))


def _read_end(until: Any) -> float:
    if until is None:
        return math.inf
    if type(until) not in (int, float) or not time.time() < until < 2**40:
        refuse(400, "until is a time to come, in Unix seconds.")
    return float(until)


def _bounds(new: Person) -> str:
    bounds = [*(["own runs"] if new.own else []), *new.folders]
    return f" ({', '.join(bounds)})" if bounds else ""
