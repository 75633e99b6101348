"""The log for machines: one object a line, who asked for what, and nothing of what was said."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from gateway.settings import LOG, TRUSTED_PROXIES
from testing.gateways.embedded_gateway import EmbeddedGateway, session_of
from testing.waiting import eventually


def lines_of(own: EmbeddedGateway) -> list[dict[str, Any]]:
    """Return the log; each line is an object."""
    return [json.loads(line) for line in own.log.splitlines()]


def test_a_whole_loop_leaves_no_secret_in_the_log(tmp_path: Path) -> None:
    """Login, output, files, commands, search, links, refusals: routes and ids alone are told."""
    planted = {name: f"planted-{name}-{secrets.token_hex(8)}" for name in PLANTED}
    with EmbeddedGateway(tmp_path, env={LOG: "json"}) as own:
        run = own.create_run(planted["prompt"])
        code = own.api("POST", "/api/login-codes", {}).json()["code"]
        session = session_of(own.request("GET", f"/login?code={code}&next=/{planted['next']}"))
        wrong = {"Authorization": f"Bearer {planted['wrong token']}"}
        assert own.request("GET", "/api/runs", headers=wrong).status == 401
        form = f"token={planted['typed token']}".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert own.request("POST", "/login", form, headers).status == 401
        marker = {"event": "started", "remoteInput": True, "command": planted["prompt"]}
        assert own.send_marker(run, marker, 1).status == 200
        assert own.send_event(run, "stdout", planted["output"], 2).status == 200
        assert own.send_event(run, "stdout", planted["output"], secret="wrong").status == 401
        assert own.send_event(run, planted["kind"], "x", 3).status == 500
        uploaded = own.send_artifact(run, f"{planted['file']}.txt", planted["content"].encode())
        base = f"/api/runs/{run.id}"
        assert own.api("POST", f"{base}/input", {"text": planted["input"]}).status == 202
        assert own.request("GET", f"{base}/search?q={planted['search']}", headers=session).status
        assert own.send("GET", f"{base}/commands", run=run).status == 200
        browser = {
            **session,
            "Content-Type": "application/json",
            "Origin": f"http://127.0.0.1:{own.port}",
        }
        path = f"/api/artifacts/{uploaded.json()['artifactId']}/link"
        link = own.request("POST", path, b"{}", browser).json()["address"]
        cookie = {"Cookie": session["Cookie"]}
        assert own.request("GET", link, headers=cookie).status == 200
        with own.follow(f"{base}/stream") as stream:
            stream.take(2)
        assert own.request("GET", f"/{planted['path']}").status == 303
        # A request is told of when it has been answered.
        eventually(lambda: _has(lines_of(own), 303))
        lines = lines_of(own)
        text = own.log

        secret = {
            **planted,
            "code": code,
            "admin token": own.admin_token,
            "HMAC_SECRET": own.secret,
            "token of the run": run.token,
            "cookie": session["Cookie"].partition("=")[2],
            "page key": session["X-Page-Key"],
            "signature of a link": link.partition("signature=")[2],
        }
        for name, value in secret.items():
            assert value, name
            assert value not in text, name
    told = [line for line in lines if line["message"] == "request"]
    asked = [(line["route"], line["status"], line["person"]) for line in told]
    for each in (
        ("POST /api/runs", 201, "token"),
        ("GET /login", 200, None),
        ("GET /api/runs", 401, None),
        ("POST /login", 401, None),
        ("POST /api/ingest/event", 401, None),
        ("POST /api/ingest/event", 500, None),
        ("POST /api/runs/<run_id>/input", 202, "token"),
        ("GET /api/runs/<run_id>/search", 200, "session"),
        ("GET /api/artifacts/<artifact_id>", 200, "session"),
        ("GET /api/runs/{run_id}/stream", 200, "token"),
        ("other", 303, None),
    ):
        assert each in asked
    # What runners send all the time is not told.
    assert ("POST /api/ingest/event", 200, None) not in asked
    assert {"at", "level", "request", "ms", "address"} <= told[0].keys()
    assert len({line["request"] for line in told}) == len(told)


def _has(lines: list[dict[str, Any]], status: int) -> None:
    assert status in [line.get("status") for line in lines]


PLANTED = (
    *("prompt", "next", "wrong token", "typed token", "output", "kind", "file", "content"),
    *("input", "search", "path"),
)


def test_a_request_has_one_name(tmp_path: Path) -> None:
    """Its id is answered in the header and logged; a trusted proxy's is kept, if it is one."""
    with EmbeddedGateway(tmp_path, env={LOG: "json", TRUSTED_PROXIES: "127.0.0.1"}) as own:
        run = own.create_run()
        given = {"X-Request-Id": "abc-1.2:3_4", "X-Forwarded-For": "203.0.113.9"}
        assert own.api("GET", "/api/runs", headers=given).headers["x-request-id"] == "abc-1.2:3_4"
        eventually(lambda: _has(lines_of(own), 200))
        (line,) = [each for each in lines_of(own) if each.get("request") == "abc-1.2:3_4"]
        assert (line["address"], line["route"]) == ("203.0.113.9", "GET /api/runs")
        for wrong in ("", "x" * 101, 'a"b', "a b", "ä"):
            answer = own.api("GET", "/api/runs", headers={"X-Request-Id": wrong})
            made = answer.headers["x-request-id"]
            assert len(made) == 16
            assert made != wrong
        # Also what is answered by another thread: an event, a poll, a stream.
        event = own.send_event(run, "stdout", "x", 1)
        poll = own.send("GET", f"/api/runs/{run.id}/commands?wait=1", run=run)
        ids = [each.headers["x-request-id"] for each in (event, poll)]
        with own.follow("/api/stream", {"X-Request-Id": "stream"}) as stream:
            assert stream.response.getheader("X-Request-Id") == "stream"
        assert len({*ids, ""}) == 3
        own.stop()
        assert all(isinstance(each["message"], str) for each in lines_of(own))
