"""The outermost WSGI callable: it decides who answers a request.

In this order: a request for another host is refused; a base path is taken off; the signed protocol
goes to `wire`; open streams are handed to `live`; all the rest is the site.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from urllib.parse import parse_qs, unquote

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from gateway.access.gate import NO_RUN, Gate, GateError
from gateway.access.login import Login, TooManyFailuresError
from gateway.access.proxy_login import ProxyLoginError
from gateway.observing.metrics import OTHER
from gateway.serving.forwarded import TrustedProxies
from gateway.serving.hosts import OWN_PATHS, Hosts, is_address
from gateway.serving.live import ALL_RUNS, Live, Viewer
from gateway.serving.server import Connection, Parked
from gateway.storage.store import AWAY_RETRY_S, Store
from gateway.storage.writer import StoreClosedError
from gateway.wire import HEALTH, Environ, StartResponse, Wire

STREAMS = ("/api/stream", "/api/runs/{run_id}/stream")
# Not even counted: a page of a stranger, in a browser beside a runner, would use up the rate limit
# of both, and so hold back a stop. Browsers say this of every request, and no page can change it.
_OTHER_SITES = ("cross-site", "same-site")
_STATUS = {403: "403 Forbidden", 404: "404 Not Found"}
_STREAM = re.compile(r"/api/(?:runs/([^/]+)/)?stream")


class Front:
    """The callable that the server calls."""

    def __init__(
        self,
        hosts: Hosts,
        proxies: TrustedProxies,
        wire: Wire,
        site: Flask,
        login: Login,
        gate: Gate,
        store: Store,
        live: Live,
    ) -> None:
        self._hosts = hosts
        self._proxies = proxies
        self._wire = wire
        self._site = site
        self._login = login
        self._gate = gate
        self._store = store
        self._live = live

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        self._proxies.apply(environ)
        environ["gateway.route"] = OTHER
        self._take_base_off(environ)
        method = environ["REQUEST_METHOD"]
        path = environ["REQUEST_URI"].partition("?")[0]
        host = environ.get("HTTP_HOST", "")
        # A balancer's probe names an address, or nothing; no page has such a name of its own.
        is_probe = path == HEALTH and is_address(host)
        if not (self._hosts.is_ours(host) or is_probe):
            return _tell(
                start_response,
                "421 Misdirected Request",
                "This gateway does not go by that name; start it with --public-url to add one.",
            )
        route, endpoint = self._wire.find(method, path)
        if endpoint is not None and not _is_of_the_page(environ, path):
            environ["gateway.route"] = route
            if environ.get("HTTP_SEC_FETCH_SITE") in _OTHER_SITES:
                return _tell(start_response, "403 Forbidden", "This is not for other sites' pages.")
            return self._wire.answer(endpoint, environ, path, start_response)
        stream = _STREAM.fullmatch(path) if method == "GET" else None
        if stream:
            return self._answer_stream(stream.group(1), environ, start_response)
        response: Iterable[bytes] = self._site(environ, start_response)
        return response

    def _take_base_off(self, environ: Environ) -> None:
        """Leave the path that is ours. Some proxies have taken the base off already, others not."""
        base = self._hosts.base_path
        environ["SCRIPT_NAME"] = base  # what the page's own addresses begin with
        for name in ("REQUEST_URI", "PATH_INFO") if base else ():
            path, _, rest = environ[name].partition(base)
            if not path and rest[:1] in ("", "/", "?"):
                rest = rest if rest[:1] == "/" else f"/{rest}"
                # Else it is the page of a run, and the base was /runs.
                if re.split("[/?]", rest, maxsplit=2)[1] in OWN_PATHS:
                    environ[name] = rest

    def _answer_stream(
        self, quoted_id: str | None, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            topic = unquote(quoted_id or ALL_RUNS)
            environ["gateway.route"] = f"GET {STREAMS[bool(topic)]}"
            return self._open_stream(topic, environ, start_response)
        except TooManyFailuresError as error:
            return _tell(start_response, "429 Too Many Requests", str(error))
        except StoreClosedError:
            return _tell(start_response, "503 Service Unavailable", "The gateway is ending.")
        except ProxyLoginError as error:
            return _tell(start_response, "403 Forbidden", str(error))
        except GateError as error:
            return _tell(start_response, _STATUS[error.status], str(error))
        except SQLAlchemyError as error:
            why_away = self._store.why_away(error)
            if why_away is None:
                raise
            retry = ("Retry-After", str(AWAY_RETRY_S))
            return _tell(start_response, "503 Service Unavailable", why_away, retry)

    def _open_stream(
        self, topic: str, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        credentials = self._login.credentials(environ)
        person = self._login.find_person(credentials, environ["REMOTE_ADDR"])
        if person is None:
            return _tell(start_response, "401 Unauthorized", "Log in first.")
        named = {} if topic == ALL_RUNS else {"run_id": topic}
        route = STREAMS[bool(named)]
        self._gate.check(person, "GET", route, named)
        if named and self._store.run(topic) is None:
            return _tell(start_response, "404 Not Found", NO_RUN)
        if self._live.is_full:
            return _tell(start_response, "503 Service Unavailable", "Too many streams are open.")

        def is_allowed() -> bool:
            try:
                # Who has another role now, or sees other runs, comes back as that.
                if self._login.known_person(credentials) != person:
                    return False
                self._gate.check(person, "GET", route, named)
            except GateError:
                return False
            return time.time() < person.until

        viewer = Viewer(
            topic,
            _asked_cursor(environ),
            is_allowed,
            time.monotonic() + (person.until - time.time()),
            person.sees if person.is_bounded else None,
            noticed=_noticed(environ),
        )
        environ["gateway.person"] = person.name or person.how

        def take(connection: Connection) -> None:
            connection.note(200, has_waited=True)
            self._live.add_viewer(connection, viewer)

        return Parked(take)


def _is_of_the_page(environ: Environ, path: str) -> bool:
    """Whether a request for a run's commands is a browser's or a script's, not a runner's."""
    return (
        path.endswith("/commands")
        and "HTTP_X_SIGNATURE" not in environ
        and ("HTTP_AUTHORIZATION" in environ or "HTTP_COOKIE" in environ)
    )


def _asked_cursor(environ: Environ) -> int:
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("after", [""])[0]
    for text in (environ.get("HTTP_LAST_EVENT_ID", ""), asked):
        if text.isascii() and text.isdigit():
            return int(text[:18])
    return 0


def _noticed(environ: Environ) -> int | None:
    text = parse_qs(environ.get("QUERY_STRING", "")).get("noticed", [""])[0]
    return int(text[:18]) if text.isascii() and text.isdigit() else None


def _tell(
    start_response: StartResponse, status: str, sentence: str, *headers: tuple[str, str]
) -> list[bytes]:
    body = json.dumps({"error": sentence}).encode()
    start_response(
        status,
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers],
    )
    return [body]
