"""The page and its API: who is let in, and what each address answers. A Flask application.

What reaches the database or a runner is in `store` and `live`; this is HTTP.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Union, cast
from urllib.parse import quote, urlencode

from flask import (
    Blueprint,
    Flask,
    Response,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    send_file,
)
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule
from werkzeug.security import safe_join

from gateway.access.codes import CODE_LIFETIME_S
from gateway.access.gate import NO_ARTIFACT, GateError
from gateway.access.login import (
    LINK_LIFETIME_S,
    SESSION_LIFETIME_S,
    Credentials,
    Session,
    TooManyFailuresError,
)
from gateway.access.proxy_login import ProxyLoginError
from gateway.access.routes import needed
from gateway.offers.folders import OfferError
from gateway.page.changes_api import add_changes
from gateway.page.listing_api import add_listing, created, read_model
from gateway.page.markdown import parse_markdown
from gateway.page.offers_api import add_offers
from gateway.page.openapi import DOCUMENT
from gateway.page.parts import Parts
from gateway.page.people_api import add_people
from gateway.page.request import address as _address
from gateway.page.request import find_run as _find_run
from gateway.page.request import json_body as _json_body
from gateway.page.request import note as _note
from gateway.page.request import number as _number
from gateway.page.request import optional_text as _optional_text
from gateway.page.request import person as _person
from gateway.page.request import place_in_order as _place_in_order
from gateway.page.request import refuse as _refuse
from gateway.page.request import text as _text
from gateway.page.search import (
    BEGINNING,
    MAX_WANTED_CHARACTERS,
    Cursor,
    Promising,
    Step,
    certain_part,
    every,
    find_problems,
    find_text,
    look_through,
)
from gateway.roles import Person, Role
from gateway.serving.live import ALL_RUNS
from gateway.storage.file_store import FilesAwayError
from gateway.storage.questions import MODE, TAKE_BACK, AnswerError, read_answer, typed_answer
from gateway.storage.records import (
    DONE,
    ESCAPE,
    FAILED,
    HALT,
    INPUT,
    MAX_COMMAND_CHARACTERS,
    PENDING,
    RUNNING,
    STOP,
    Event,
)
from gateway.storage.store import AWAY_RETRY_S
from gateway.storage.writer import StoreClosedError, UnknownOutcomeError
from gateway.wire import is_here

MAX_PAGE_EVENTS = 1_000
_MAX_PAGE_BYTES = 1024 * 1024
# A hundred thousand characters, each escaped as JSON may.
_MAX_REQUEST_BYTES = 2 * 1024 * 1024
_MAX_INPUT_CHARACTERS = 100_000
# Of Markdown in one request; a page asks for what is in sight.
_MAX_TEXTS = 50
_MAX_TEXTS_CHARACTERS = 100_000
# For one request of a search; the page asks again from there.
_SEARCH_TIME_S = 0.4
_VENDOR = "vendor/xterm/"
_KEPT_S = 365 * 86_400
# Told here, because what the system knows of endings differs, and nothing is sniffed.
_STATIC_TYPES = {
    ".css": "text/css",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
# The addresses of pages, which a login may lead to.
_OURS = re.compile(
    r"/(?!log(?:in|out)\b)(?:[A-Za-z0-9_-][A-Za-z0-9_/-]*)?"
    r"(?:\?[A-Za-z0-9_.~%=&+-]{1,2000})?(?:#e[0-9.]{1,30})?"
)
_WRONG = "That is not the admin token, nor a person's."
_EXPIRED = "This link has been used already, or is too old. Enter the admin token instead."
_STALE_LINK = "This address is too old, or is not for this browser; press Download again."
# What the page asks the login page to say, by a word in its address.
_WHY = {
    "over": "The session is over. Log in again.",
    "out": "All sessions have ended.",
    "storage": "This browser has lost its login key: log in again, and if that keeps happening, "
    "allow this site to store data.",
}
# Shown in a browser as what they are: text. Everything else is only downloaded.
_TEXT_TYPES = frozenset({"text", "json", "diff", "markdown"})

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; manifest-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# To register a service worker is to name a script. The page of the notifications may, and shows
# nothing of any run.
_NOTIFICATIONS_POLICY = _CONTENT_SECURITY_POLICY.replace(
    "trusted-types 'none'", "trusted-types service-worker; worker-src 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, browsers send a form with `Origin: null`, and nobody could log in.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Answer = Union[Response, "tuple[Response, int]"]


class _Route(Rule):
    """A route that is matched and of which no address is made: `url_for` is not used here.

    To compile what makes addresses took half of the gateway's start.
    """

    def _compile_builder(self, *_options: bool, **_named: bool) -> Callable[..., tuple[str, str]]:
        return _make_no_address


def _make_no_address(route: Rule, **values: object) -> tuple[str, str]:
    raise NotImplementedError(f"no address is made of {route.rule}")


def build_site(parts: Parts) -> Flask:
    """Return the application."""
    # Static files are a route of ours: not all of them lie in one folder.
    app = Flask("gateway.page", static_folder=None)
    app.url_rule_class = _Route
    app.config["MAX_CONTENT_LENGTH"] = _MAX_REQUEST_BYTES
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_error_handler(HTTPException, _tell_error)
    app.register_error_handler(TooManyFailuresError, _tell_too_many)
    app.register_error_handler(StoreClosedError, _tell_ending)
    app.register_error_handler(GateError, _tell_refusal)
    app.register_error_handler(ProxyLoginError, _tell_refusal)
    for each in (SQLAlchemyError, UnknownOutcomeError):
        app.register_error_handler(each, lambda error: _tell_away(parts, error))
    app.register_error_handler(FilesAwayError, _tell_files_away)
    app.before_request(lambda: _guard(parts))
    app.after_request(_harden)
    app.register_blueprint(_build_pages(parts))
    app.register_blueprint(_build_api(parts))
    _require_roles(app)
    return app


_PLACEHOLDER = re.compile(r"<(?:\w+:)?(\w+)>")


def _route(rule: Any) -> str:
    """Return a route as the table has it."""
    return _PLACEHOLDER.sub(r"{\1}", str(rule))


def _require_roles(app: Flask) -> None:
    """Raise RuntimeError for a route without a role."""
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if needed(method, _route(rule)) is None:
                raise RuntimeError(
                    f"{method} {_route(rule)} has no role in gateway/access/routes.py"
                )


# --- around every request -------------------------------------------------------------------------


def _tell_error(error: HTTPException) -> Answer:
    response = jsonify({"error": error.description or error.name})
    response.status_code = error.code or 500
    return response


def _tell_too_many(error: TooManyFailuresError) -> Answer:
    sentence = f"{str(error).capitalize()}."
    if request.path == "/login":
        response = _show("login.html", 429, sentence)
    else:
        response = jsonify({"error": sentence})
        response.status_code = 429
    response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _tell_refusal(error: GateError | ProxyLoginError) -> Answer:
    response = jsonify({"error": str(error)})
    response.status_code = getattr(error, "status", 403)
    return response


def _tell_ending(_error: StoreClosedError) -> Answer:
    return jsonify({"error": "The gateway is ending."}), 503


def _tell_away(parts: Parts, error: Exception) -> Answer:
    """Say that the database does not answer, if it is that."""
    why_away = parts.store.why_away(error)
    if why_away is None:
        raise error
    if request.path.startswith("/api/"):
        response = jsonify({"error": why_away})
        response.status_code = 503
    else:
        response = _show("away.html", 503, why_away)
    response.headers["Retry-After"] = str(AWAY_RETRY_S)
    return response


def _tell_files_away(_error: FilesAwayError) -> Answer:
    response = jsonify({"error": "The gateway cannot reach its files now; try again in a minute."})
    response.status_code = 503
    response.headers["Retry-After"] = "60"
    return response


def _harden(response: Response) -> Response:
    if request.url_rule is not None:
        request.environ["gateway.route"] = f"{request.method} {request.url_rule.rule}"
    who: Person | None = g.get("person")
    request.environ["gateway.person"] = who and (who.name or who.how)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _guard(parts: Parts) -> Answer | None:
    """Let nobody in who has not logged in, give nobody what the table of routes does not say, and
    let no page but ours change anything.
    """
    g.person = None
    role = None if request.url_rule is None else needed(request.method, _route(request.url_rule))
    if role is Role.ANYONE and request.method in ("GET", "HEAD"):
        return None
    if request.path != "/login":
        g.person = _find_person(parts)
        if g.person is None:
            away = _send_away(parts, role)
            if away is not None:
                return away
        elif request.url_rule is not None and request.method != "OPTIONS":
            route, named = _route(request.url_rule), request.view_args or {}
            parts.gate.check(g.person, request.method, route, named)
    elif not is_here(request.environ):
        _refuse(413, "That is too long for a login.")
    if request.method not in ("GET", "HEAD", "OPTIONS") and not _has_token():
        _check_origin(parts)
    return None


def _send_away(parts: Parts, role: Role | None) -> Answer | None:
    """Answer a stranger; None if there is nothing to see in what is asked for."""
    if request.path.startswith("/api/") or (role is not None and role > Role.VIEWER):
        _refuse(401, "Log in first, or send the admin token as Authorization: Bearer.")
    # An address that is typed comes with the cookie alone: it opens the page, in which nothing is,
    # and its form for logging out.
    if not parts.login.has_cookie(_credentials(parts)):
        return redirect(_here(f"/login?next={quote(_asked_path())}"), 303)  # type: ignore[return-value]
    return None


def _has_token() -> bool:
    return g.person is not None and g.person.how == "token"


def _find_person(parts: Parts) -> Person | None:
    credentials = _credentials(parts)
    if request.endpoint in ("api.get_artifact", "api.get_text") and "signature" in request.args:
        values = request.view_args or {}
        what = values.get("artifact_id") or f"text of {values.get('run_id')}"
        person = parts.login.follow_link(credentials, what, request.args)
        if person is None:
            _refuse(401, _STALE_LINK)
        return person
    return parts.login.find_person(credentials, _address())


def _credentials(parts: Parts) -> Credentials:
    return parts.login.credentials(request.environ)


def _check_origin(parts: Parts) -> None:
    """Only our own page may use a browser's session to change something."""
    origin = request.headers.get("Origin", "")
    is_form = request.path in ("/login", "/logout")
    is_ours = parts.hosts.is_our_origin(origin, request.host, request.scheme)
    if not is_ours and not (is_form and not origin):
        _refuse(403, "This request does not come from the gateway's own page.")
    if not is_form and request.mimetype != "application/json":
        _refuse(403, "Send Content-Type: application/json.")


# --- pages ----------------------------------------------------------------------------------------


def _build_pages(parts: Parts) -> Blueprint:
    pages = Blueprint("pages", __name__)

    def show_page(which: str) -> Response:
        version, needed = parts.scripts.version, parts.scripts.needed[which]
        text = render_template("index.html", version=version, scripts=needed)
        return Response(text, mimetype="text/html")

    @pages.get("/")
    def show_list() -> Response:
        return show_page("list")

    @pages.get("/runs/<run_id>")
    def show_run(run_id: str) -> Response:  # noqa: ARG001 - the page's script reads the address
        return show_page("run")

    @pages.get("/notifications")
    def notifications() -> Response:
        response = show_page("notifications")
        response.headers["Content-Security-Policy"] = _NOTIFICATIONS_POLICY
        return response

    @pages.get("/static/icon-<int:count>.svg")
    def counting_icon(count: int) -> Response:
        shown = str(count) if count < 10 else "9+"
        return Response(render_template("icon.svg", count=shown), mimetype="image/svg+xml")

    @pages.get("/static/<path:name>")
    def static(name: str) -> Response:
        return _send_static(parts, name)

    _add_login(pages, parts)
    return pages


def _send_static(parts: Parts, name: str) -> Response:
    name, is_kept = parts.scripts.split(name)
    folder, rest = parts.scripts.folder, name
    if name.startswith(_VENDOR):
        folder, rest = parts.vendor_dir, name[len(_VENDOR) :]
    path = safe_join(str(folder), rest)
    if path is None or not os.path.isfile(path):  # Path.is_file raises if it is too long
        _refuse(404, "There is no such file.")
    kind = _STATIC_TYPES.get(Path(path).suffix, "application/octet-stream")
    max_age = _KEPT_S if is_kept else 0
    response = send_file(path, mimetype=kind, conditional=True, max_age=max_age)
    if is_kept:
        response.cache_control.immutable = True
    if name == "service-worker.js":
        response.headers["Service-Worker-Allowed"] = _here("/")
    return response


def _add_login(pages: Blueprint, parts: Parts) -> None:
    def enter(session: Session | None, why_not: str) -> Response:
        if session is None:
            return _show("login.html", 401, why_not)
        return _let_in(parts, session)

    @pages.get("/login")
    def login_page() -> Response:
        code = request.args.get("code")
        # What looks at a link before a person does must not use it up.
        if code is None or request.method == "HEAD":
            return _show("login.html", message=_WHY.get(request.args.get("why", ""), ""))
        if parts.login.is_own_code(code, _credentials(parts)):
            return redirect(_here(_next_path()), 303)  # type: ignore[return-value]
        return enter(parts.login.use_code(code, _address()), _EXPIRED)

    @pages.post("/login")
    def log_in() -> Response:
        token = request.form.get("token", "").strip()
        return enter(parts.login.use_token(token, _address()), _WRONG)

    @pages.post("/logout")
    def log_out() -> Response:
        person = parts.login.close(_credentials(parts))
        name = None if person is None else person.name
        parts.store.note(_address(), "session", "logout", person=name)
        response: Response = redirect(_here("/login"), 303)  # type: ignore[assignment]
        is_secure = _is_https(parts)
        response.delete_cookie(parts.login.cookie_name, path="/", secure=is_secure)
        return response


def _show(template: str, status: int = 200, message: str = "", **values: str) -> Response:
    text = render_template(template, message=message, **values)
    return Response(text, status, mimetype="text/html")


def _let_in(parts: Parts, session: Session) -> Response:
    """Give the browser its cookie, and a page whose script keeps the other half and goes on.

    A redirect could not hand that over but in an address, which browsers remember; and the cookie
    would not go with a request from another page, such as the file that is opened first.
    """
    response = _show("welcome.html", key=session.page_key, following=_here(_next_path()))
    response.set_cookie(
        parts.login.cookie_name,
        session.cookie,
        max_age=int(SESSION_LIFETIME_S),
        httponly=True,
        samesite="Strict",
        secure=_is_https(parts),
        path="/",
    )
    return response


def _is_https(parts: Parts) -> bool:
    return request.is_secure or parts.hosts.is_https(request.host)


def _here(path: str) -> str:
    """Return the path as a browser asks for it: below the base path, if there is one."""
    return f"{request.script_root}{path}"


def _asked_path() -> str:
    """Return the path that was asked for, with what the list is filtered by."""
    query = request.query_string.decode("latin-1")
    return f"{request.path}?{query}" if query else request.path


def _next_path() -> str:
    """Return where somebody wanted to go; nowhere but here."""
    path = request.args.get("next", "/")
    return path if _OURS.fullmatch(path) else "/"


# --- the API --------------------------------------------------------------------------------------


def _build_api(parts: Parts) -> Blueprint:
    api = Blueprint("api", __name__, url_prefix="/api")
    _add_runs(api, parts)
    _add_reading(api, parts)
    _add_artifacts(api, parts)
    add_changes(api, parts)
    _add_commands(api, parts)
    _add_talk(api, parts)
    add_listing(api, parts)
    add_offers(api, parts)
    add_people(api, parts)
    _add_notifications(api, parts)

    @api.post("/login-codes")
    def make_login_code() -> Answer:
        if _person().how == "proxy":
            _refuse(400, "The proxy in front signs you in; a code would go on without it.")
        code = parts.login.make_code(person=_person())
        _note(parts, "login code")
        return jsonify({"code": code, "lifetime_s": CODE_LIFETIME_S}), 201

    @api.get("/openapi.json")
    def openapi() -> Answer:
        return jsonify(DOCUMENT)

    _add_reading_aids(api, parts)
    return api


def _add_reading_aids(api: Blueprint, parts: Parts) -> None:
    @api.post("/markdown")
    def render_markdown() -> Answer:
        texts = _json_body().get("texts")
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            _refuse(400, "texts is a list of texts.")
        if len(texts) > _MAX_TEXTS or sum(map(len, texts)) > _MAX_TEXTS_CHARACTERS:
            _refuse(413, "That is too much Markdown for one request.")
        return jsonify({"trees": [parse_markdown(each) for each in texts]})

    @api.get("/runs/<run_id>/search")
    def search_run(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        wanted = request.args.get("q", "")
        if len(wanted) > MAX_WANTED_CHARACTERS:
            _refuse(400, f"q has at most {MAX_WANTED_CHARACTERS} characters.")
        try:
            begin = Cursor.read(request.args.get("from", str(BEGINNING)))
        except ValueError:
            _refuse(400, "from is a line, as event.line, or `next` of the answer before.")
        deadline = time.monotonic() + _SEARCH_TIME_S
        hits, following = look_through(
            _search_steps(parts, run, certain_part(wanted)),
            find_text(wanted) if wanted else find_problems(begin.type),
            begin,
            _number("limit", 50, 1, 200),
            lambda: time.monotonic() > deadline,
        )
        return jsonify({"hits": hits, "next": following and str(following)})

    @api.post("/runs/<run_id>/text/link")
    def link_text(run_id: str) -> Answer:
        _json_body()
        if _has_token():
            _refuse(400, "Links are for the page; the token itself opens the text.")
        _find_run(parts, run_id)
        query = urlencode(parts.login.make_link(_credentials(parts), f"text of {run_id}"))
        address = _here(f"/api/runs/{quote(run_id)}/text?{query}")
        return jsonify({"address": address, "lifetime_s": LINK_LIFETIME_S}), 201

    @api.get("/runs/<run_id>/text")
    def get_text(run_id: str) -> Response:
        run = _find_run(parts, run_id)
        response = Response(_text_of(parts, run_id), mimetype="text/plain; charset=utf-8")
        response.headers["Content-Disposition"] = f'attachment; filename="{run["id"]}.txt"'
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return response


def _search_steps(parts: Parts, run: dict[str, Any], certain: str) -> Step:
    store, run_id = parts.store, run["id"]
    size = (MAX_PAGE_EVENTS, _MAX_PAGE_BYTES)

    def page_after(after: int) -> list[Event]:
        return store.events_after(run_id, after, *size)

    if not certain:
        return every(page_after)
    return Promising(
        lambda after, until: store.events_with(run_id, certain, after, until, *size),
        lambda after, kind: store.next_event(run_id, after, kind),
        page_after,
        run["last_event_id"],
    )


def _text_of(parts: Parts, run_id: str) -> Iterator[str]:
    """Yield all that the run has printed by now, page by page."""
    cursor = 0
    while events := parts.store.events_after(run_id, cursor, MAX_PAGE_EVENTS, _MAX_PAGE_BYTES):
        cursor = events[-1].id
        yield "".join(event.data for event in events if event.type in ("stdout", "stderr"))


def _add_runs(api: Blueprint, parts: Parts) -> None:
    @api.post("/runs")
    def create_run() -> Answer:
        body = _json_body()
        command = _optional_text(body, "command", 1_000_000)
        metadata = body.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            _refuse(400, "metadata is an object.")
        if metadata is not None and not _is_json(metadata):
            _refuse(400, "metadata has a number that is not JSON.")
        model = read_model(parts, body)
        if "command" not in body:
            command = model.command
        run_id, token = parts.store.create_run(
            command, metadata, model.details, model.title, owner=_person().name
        )
        _note(parts, "create", run_id, model.noted)
        run = _find_run(parts, run_id)
        parts.live.tell(ALL_RUNS, "run", run)
        return jsonify(created(parts, run, token)), 201

    @api.get("/runs")
    def list_runs() -> Answer:
        if request.args.get("state") == "waiting":
            return jsonify({"runs": parts.store.waiting_runs(_person()), "next": None})
        limit = _number("limit", 50, 1, 200)
        runs, following = parts.store.runs(_place_in_order("before"), limit, _person())
        return jsonify({"runs": runs, "next": following})

    @api.get("/runs/<run_id>")
    def show_run(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        is_silent = run["status"] == RUNNING and parts.heard.is_silent(run_id)
        return jsonify({**run, "silent": is_silent})


def _add_reading(api: Blueprint, parts: Parts) -> None:
    @api.get("/runs/<run_id>/events")
    def list_events(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        limit = _number("limit", 200, 1, MAX_PAGE_EVENTS)
        after, before = _place_in_order("after"), _place_in_order("before")
        if after is not None:
            events = parts.store.events_after(run_id, after, limit, _MAX_PAGE_BYTES)
        else:
            events = parts.store.events_before(run_id, before, limit, _MAX_PAGE_BYTES)
        first, last = (events[0].id, events[-1].id) if events else _ends_of_nothing(after, before)
        return jsonify(
            {
                "events": [event.to_json() for event in events],
                "has_before": bool(parts.store.events_before(run_id, first, 1, 0)),
                "has_after": last < run["last_event_id"],
            }
        )

    @api.get("/runs/<run_id>/screen")
    def show_screen(run_id: str) -> Answer:
        return jsonify(parts.screens.look(_find_run(parts, run_id)))

    @api.get("/runs/<run_id>/history")
    @api.get("/runs/<run_id>/commands")
    def list_history(run_id: str) -> Answer:
        _find_run(parts, run_id)
        return jsonify({"commands": parts.store.history(run_id)})


def _add_artifacts(api: Blueprint, parts: Parts) -> None:
    @api.get("/runs/<run_id>/artifacts")
    def list_artifacts(run_id: str) -> Answer:
        _find_run(parts, run_id)
        return jsonify({"artifacts": parts.store.artifacts(run_id)})

    @api.post("/artifacts/<artifact_id>/link")
    def link_artifact(artifact_id: str) -> Answer:
        _json_body()
        if _has_token():
            _refuse(400, "Links are for the page; the token itself opens the file.")
        if parts.store.artifact(artifact_id) is None:
            _refuse(404, NO_ARTIFACT)
        query = urlencode(parts.login.make_link(_credentials(parts), artifact_id))
        address = _here(f"/api/artifacts/{quote(artifact_id)}?{query}")
        return jsonify({"address": address, "lifetime_s": LINK_LIFETIME_S}), 201

    @api.get("/artifacts/<artifact_id>")
    def get_artifact(artifact_id: str) -> Any:
        artifact = parts.store.artifact(artifact_id)
        if artifact is None:
            _refuse(404, NO_ARTIFACT)
        try:
            content = parts.files.store.open(artifact["run_id"], artifact["id"])
        except FileNotFoundError:
            _refuse(404, "The file of this artifact is gone.")
        is_text = artifact["type"] in _TEXT_TYPES
        is_viewed = request.args.get("view") == "1"
        response = send_file(
            cast("IO[bytes]", content),
            mimetype="text/plain" if is_text or is_viewed else "application/octet-stream",
            as_attachment=not is_viewed,
            download_name=artifact["name"],
            conditional=False,
            max_age=0,
        )
        response.content_length = content.size
        response.set_etag(artifact["id"])  # its content never changes
        response.make_conditional(request, accept_ranges=True, complete_length=content.size)
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return response


def _add_commands(api: Blueprint, parts: Parts) -> None:
    @api.post("/runs/<run_id>/command")
    def send_command(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        text = _text(_json_body(), "command", MAX_COMMAND_CHARACTERS)
        if run["status"] not in (DONE, FAILED) and text not in run["commands"]:
            _refuse(400, "The run does not offer this command.")
        return _queue(parts, run, "command", text, text)

    @api.post("/runs/<run_id>/stop")
    def stop(run_id: str) -> Answer:
        _json_body()
        return _queue_stop(parts, _find_run(parts, run_id), "stop", STOP, "stopped")

    @api.post("/runs/<run_id>/halt")
    def halt(run_id: str) -> Answer:
        _json_body()
        return _queue_stop(parts, _find_run(parts, run_id), "halt", HALT, "halted")

    @api.post("/runs/<run_id>/escape")
    def escape(run_id: str) -> Answer:
        _json_body()
        return _queue(parts, _find_run(parts, run_id), "escape", ESCAPE)

    @api.post("/runs/<run_id>/input")
    def send_input(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        text = _text(_json_body(), "text", _MAX_INPUT_CHARACTERS)
        if run["status"] not in (DONE, FAILED) and not run["remote_input"]:
            _refuse(409, "The run takes no remote input.")
        noted = typed_answer(text, parts.store.conversation(run_id)["open"])
        action = "input" if noted is None else "answer"
        return _queue(parts, run, action, f"{INPUT}{text}", noted)


def _add_talk(api: Blueprint, parts: Parts) -> None:
    @api.get("/runs/<run_id>/conversation")
    def show_conversation(run_id: str) -> Answer:
        _find_run(parts, run_id)
        return jsonify(parts.store.conversation(run_id))

    @api.post("/runs/<run_id>/answer")
    def answer(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        body = _json_body()
        question_id = _text(body, "id", 50)
        _refuse_ended(run)
        if not run["remote_answers"]:
            _refuse(409, "The run takes no answers from here.")
        try:
            card = parts.store.find_card(run_id, question_id)
            if card is None:
                _refuse(409, "This question cannot be shown, and so cannot be answered here.")
            command, noted = read_answer(body, card)
        except AnswerError as error:
            _refuse(error.status, str(error))
        return _queue(parts, run, "answer", command, noted, question_id)

    @api.post("/runs/<run_id>/mode")
    def set_mode(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        mode = _text(_json_body(), "mode", 50)
        _refuse_ended(run)
        if not run["remote_answers"] or mode not in run["modes"]:
            _refuse(409, "The run does not offer this mode.")
        return _queue(parts, run, "mode", f"{MODE}{mode}", mode)

    @api.post("/runs/<run_id>/take-back")
    def take_back(run_id: str) -> Answer:
        run = _find_run(parts, run_id)
        message_id = _text(_json_body(), "id", 50)
        _refuse_ended(run)
        waiting = parts.store.conversation(run_id)["waiting"]
        if message_id not in [each["id"] for each in waiting]:
            _refuse(409, "This message does not wait any more.")
        return _queue(parts, run, "take back", f"{TAKE_BACK}{message_id}")


def _add_notifications(api: Blueprint, parts: Parts) -> None:
    @api.get("/notifications")
    def show_notifications() -> Answer:
        return jsonify(parts.notifier.state)

    @api.post("/notifications/test")
    def test_notifications() -> Answer:
        _json_body()
        if not parts.notifier.state["services"]:
            _refuse(409, "No service is set.")
        parts.notifier.test()
        _note(parts, "test notifications")
        return jsonify(parts.notifier.state), 202

    @api.post("/runs/<run_id>/looks")
    def look(run_id: str) -> Answer:
        _find_run(parts, run_id)
        body = _json_body()
        page, is_visible = _text(body, "page", 50), body.get("visible")
        if not isinstance(is_visible, bool):
            _refuse(400, "visible is true or false.")
        if _person().role >= Role.OPERATOR:  # a viewer cannot do what others would be told of
            parts.looks.note(run_id, page, is_visible=is_visible)
        return jsonify({"ok": True}), 200


def _queue(
    parts: Parts,
    run: dict[str, Any],
    action: str,
    text: str,
    noted: str | None = None,
    about: str | None = None,
) -> Answer:
    """Hand a command to the runner; `noted` is what the audit says of it besides its name, and
    `about` the question that it answers.
    """
    _refuse_ended(run)
    entry = parts.store.add_command(run["id"], text, _person().name, about)
    _note(parts, action, run["id"], noted)
    parts.live.command_queued(run["id"])
    parts.live.tell(run["id"], "command", entry)
    return jsonify({"id": entry["id"], "status": entry["status"]}), 202


def _queue_stop(parts: Parts, run: dict[str, Any], action: str, text: str, reason: str) -> Answer:
    """End a run; one that has not begun is not begun any more, here or in a folder that waits."""
    answer = _queue(parts, run, action, text)
    if run["status"] == PENDING and parts.store.note_stop(run["id"], reason):
        with contextlib.suppress(OfferError):
            parts.offers.withdraw(run["id"])
        told = _find_run(parts, run["id"])
        parts.live.tell(run["id"], "run", told)
        parts.live.tell(ALL_RUNS, "run", told)
    return answer


def _refuse_ended(run: dict[str, Any]) -> None:
    if run["status"] in (DONE, FAILED):
        _refuse(409, "The run has ended.")


def _is_json(value: dict[str, Any]) -> bool:
    """Whether browsers can read it: NaN and Infinity are not JSON, and 1e999 becomes the latter."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _ends_of_nothing(after: int | None, before: int | None) -> tuple[int, int]:
    """Return where the first and the last event of an empty page would be."""
    if after is not None:
        return after + 1, after
    return (0, 0) if before is None else (before, before - 1)
