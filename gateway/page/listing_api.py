"""What the page does with the list of runs: read it, name a run, start it again, remove it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from flask import Blueprint, Response, jsonify, request

from gateway.listing.runs import (
    MAX_SEARCH_CHARACTERS,
    MAX_TITLE_CHARACTERS,
    STAGES,
    STATES,
    Filter,
    Place,
)
from gateway.page.parts import Parts
from gateway.page.request import find_run, json_body, note, optional_text, person, refuse
from gateway.roles import Role
from gateway.serving.live import ALL_RUNS
from gateway.storage.records import PENDING, RUNNING
from gateway.storage.start_options import start_arguments

MAX_REMOVED = 200
_MAX_PAGE = 200
_MAX_FOLDER = 4_096
# It would go on where nobody sees it, or be started a second time.
_STARTING = "Its folder is starting this run now."
# When they are pasted, a terminal takes these for keys: Ctrl-C ends the line in spite of all
# quotes, and what follows is a line of its own. Folder and prompt are what a run told.
_KEYS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What can stand in a command line as it is, and is no option.
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}", re.ASCII)


def add_listing(api: Blueprint, parts: Parts) -> None:
    """Add the addresses."""
    _add_list(api, parts)
    _add_changes(api, parts)
    _add_removal(api, parts)


def _add_list(api: Blueprint, parts: Parts) -> None:
    @api.get("/list")
    def show_list() -> Response:
        wanted = Filter.of(
            _choice("state", STATES),
            _limited("folder", _MAX_FOLDER),
            _limited("runner", 100),
            _limited("q", MAX_SEARCH_CHARACTERS),
        )
        only = _choice("stage", STAGES)
        stages = [only] if only else STAGES
        listing = parts.listing.of(person())
        groups = listing.groups(stages, wanted, _after() if only else None, _page_size())
        for line in (line for group in groups for line in group["runs"]):
            line["silent"] = line["status"] == RUNNING and parts.heard.is_silent(line["id"])
        return jsonify({"groups": groups, "counts": listing.counts(), **listing.offered()})


def _add_changes(api: Blueprint, parts: Parts) -> None:
    @api.post("/runs/<run_id>/title")
    def set_title(run_id: str) -> Response:
        find_run(parts, run_id)
        title = optional_text(json_body(), "title", MAX_TITLE_CHARACTERS)
        title = " ".join((title or "").split())
        parts.listing.set_title(run_id, title or None)
        note(parts, "title", run_id)
        return _tell(parts, run_id)

    @api.post("/runs/<run_id>/seen")
    def mark_seen(run_id: str) -> Response:
        json_body()
        run = find_run(parts, run_id)
        # What a viewer has seen is still news for who acts.
        is_news = person().role >= Role.OPERATOR and parts.listing.mark_seen(run_id)
        return _tell(parts, run_id) if is_news else jsonify(run)

    @api.post("/runs/<run_id>/keep")
    def keep(run_id: str) -> Response:
        find_run(parts, run_id)
        keeps = json_body().get("keep")
        if not isinstance(keeps, bool):
            refuse(400, "keep is true or false.")
        parts.retention.keep(run_id, keeps=keeps)
        note(parts, "keep" if keeps else "no longer keep", run_id)
        return _tell(parts, run_id)

    @api.post("/runs/<run_id>/start-line")
    def renew_start_line(run_id: str) -> tuple[Response, int]:
        json_body()
        run = find_run(parts, run_id)
        if parts.offers.is_starting(run_id):
            refuse(409, _STARTING)
        token = parts.listing.renew_token(run_id)
        parts.store.forget_token(run_id)
        if token is None:
            refuse(409, "The run was started already.")
        note(parts, "new token", run_id)
        _tell(parts, run_id)
        return jsonify(created(parts, run, token)), 201


def _add_removal(api: Blueprint, parts: Parts) -> None:
    @api.post("/runs/delete")
    def remove_runs() -> Response:
        ids = json_body().get("ids")
        if not isinstance(ids, list) or not all(map(_is_id, ids)):
            refuse(400, "ids is a list of ids of runs.")
        if not 0 < len(ids) <= MAX_REMOVED:
            refuse(400, f"ids has 1 to {MAX_REMOVED} members.")
        removed: list[str] = []
        refused: list[dict[str, str]] = []
        for run_id in dict.fromkeys(ids):
            is_silent = parts.heard.is_silent(run_id)
            run = parts.store.run(run_id)
            if parts.offers.is_starting(run_id):
                refused.append({"id": run_id, "error": _STARTING})
            elif parts.listing.remove(run_id, also_running=is_silent):
                removed.append(run_id)
                parts.store.forget_token(run_id)
                note(parts, "delete", run_id)
                about = (run["owner"], run["working_dir"]) if run else None
                for topic in (run_id, ALL_RUNS):
                    parts.live.tell(topic, "removed", {"ids": [run_id]}, about)
            else:
                refused.append({"id": run_id, "error": _why_kept(parts, run_id)})
        parts.tidy_up()
        return jsonify({"removed": removed, "refused": refused})


def _is_id(each: Any) -> bool:
    return isinstance(each, str) and each.isascii()


def _why_kept(parts: Parts, run_id: str) -> str:
    if parts.store.run(run_id) is None:
        return "There is no such run."
    return "The run is going on. Stop it first."


class Model(NamedTuple):
    """What a new run has of an older one: its prompt, details that are known before it begins, and
    its title. `noted` is what the audit says.
    """

    command: str | None = None
    details: Mapping[str, Any] = MappingProxyType({})
    title: str | None = None
    noted: str | None = None


def read_model(parts: Parts, body: dict[str, Any]) -> Model:
    """Return what a new run has of another: `again` names one that is repeated, `resume` one whose
    session goes on.
    """
    again, resumed = optional_text(body, "again", 50), optional_text(body, "resume", 50)
    if again and resumed:
        refuse(400, "A run is again another one, or goes on with it, not both.")
    if not again and not resumed:
        return Model()
    old = find_run(parts, str(again or resumed))
    known = {"working_dir": old["working_dir"], "options": old["options"]}
    if again:
        command = old["command"] or old["prompt"]
        return Model(command, known, old["title"], f"again: {again}")
    session = old["session_id"] or ""
    if not _SESSION.fullmatch(session):
        refuse(409, "It is not known how to go on with this run.")
    return Model(None, {**known, "session_id": session}, old["title"], f"go on: {resumed}")


def created(parts: Parts, run: dict[str, Any], token: str) -> dict[str, Any]:
    """Return a run that is to be started, with its token and the line that starts it.

    The token is in no process's arguments. Shells that leave a line with a leading blank out of
    their history leave this one out.
    """
    line = [parts.start_program, "start", "--run-id", run["id"]]
    if run["command"]:
        line += ["--cmd", run["command"]]
    if run["session_id"]:
        line += ["--resume", run["session_id"]]
    line += start_arguments(run["options"], is_job=bool(run["command"]))
    folder = f"cd {shlex.quote(run['working_dir'])} && " if run["working_dir"] else ""
    return {
        "id": run["id"],
        "capabilityToken": token,
        "status": PENDING,
        "start_command": _KEYS.sub(
            " ", f" {folder}CLAUDE_RUNNER_TOKEN={shlex.quote(token)} {shlex.join(line)}"
        ),
    }


def _tell(parts: Parts, run_id: str) -> Response:
    """Tell all who look at a run that it has changed, and answer with it."""
    run = find_run(parts, run_id)
    parts.live.tell(run_id, "run", run)
    parts.live.tell(ALL_RUNS, "run", run)
    return jsonify(run)


def _limited(name: str, limit: int) -> str:
    value = request.args.get(name, "")
    if len(value) > limit:
        refuse(400, f"{name} has at most {limit} characters.")
    return value


def _choice(name: str, choices: tuple[str, ...]) -> str:
    value = request.args.get(name, "")
    if value and value not in choices:
        refuse(400, f"{name} is one of {', '.join(choices)}.")
    return value


def _after() -> Place | None:
    value = request.args.get("after", "")
    try:
        return Place.read(value) if value else None
    except ValueError:
        refuse(400, "after is `next` of the page before.")


def _page_size() -> int:
    value = request.args.get("limit", "50")
    if not re.fullmatch(r"[0-9]{1,3}", value, re.ASCII) or not 1 <= int(value) <= _MAX_PAGE:
        refuse(400, f"limit is a whole number from 1 to {_MAX_PAGE}.")
    return int(value)
