"""Page and API: who is let in, what they may do, and what is noted about it."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import jsonschema
import pytest

from gateway.front import STREAMS
from gateway.page.parts import Parts
from gateway.page.site import build_site
from gateway.wire import ROUTES
from gateway_client import Credentials, GatewayClient, Outcome
from journal.events import encode_event
from testing.gateways.embedded_gateway import Answer, EmbeddedGateway, leads_to, session_of
from testing.gateways.embedded_record import free_port
from testing.gateways.gateway_records import Run

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def log_in(gw: EmbeddedGateway, token: str, **headers: str) -> Answer:
    """Post the login form."""
    body = urlencode({"token": token}).encode()
    return gw.request("POST", "/login", body, {"Content-Type": FORM, **headers})


def start(gw: EmbeddedGateway, run: Run, **fields: Any) -> None:
    """Let a run begin."""
    gw.send_marker(run, {"event": "started", "commands": ["pwd"], **fields}, 1)


# --- logging in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/runs/run_1"])
def test_a_stranger_is_sent_to_the_login(gw: EmbeddedGateway, path: str) -> None:
    """Pages lead to the login page."""
    answer = gw.request("GET", path)

    assert (answer.status, answer.headers["location"]) == (303, f"/login?next={path}")
    assert gw.request("GET", "/login").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs",
        "/api/runs/x",
        "/api/stream",
        "/api/runs/x/stream",
        "/api/openapi.json",
        "/api/x",
    ],
)
def test_the_api_wants_a_session_or_the_token(gw: EmbeddedGateway, path: str) -> None:
    """Without one, or with a wrong one, it is 401 with a sentence."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"gateway-{gw.port}=x"}):
        answer = gw.request("GET", path, headers=headers)
        assert answer.status == 401
        assert answer.error


def test_a_login_code_works_once(tmp_path: Path) -> None:
    """The printed address lets one browser in, and nobody after it."""
    with EmbeddedGateway(tmp_path) as own:
        path = own.told["login_url"][len(own.url) :]

        first, second = own.request("GET", path), own.request("GET", path)

        assert leads_to(first) == "/"
        assert second.status == 401
        assert "used already" in second.body.decode()
        headers = session_of(first)
        assert own.request("GET", "/api/runs", headers=headers).status == 200
        port = own.port
        own.stop()
        own.start()
        again = {**headers, "Cookie": headers["Cookie"].replace(f"-{port}=", f"-{own.port}=")}
        assert own.request("GET", "/api/runs", headers=again).status == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_metadata_is_json(gw: EmbeddedGateway, number: str) -> None:
    """What no browser could read would keep the list of runs from being shown, for ever."""
    headers = {"Authorization": f"Bearer {gw.admin_token}", "Content-Type": "application/json"}
    body = f'{{"metadata":{{"a":{number}}}}}'.encode()

    assert gw.request("POST", "/api/runs", body, headers).status == 400
    assert gw.api("POST", "/api/runs", {"metadata": {"a": 1}}).status == 201


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("/runs/run_1", "/runs/run_1"),
        ("/%3Fstate=needs%26q=a%2520b", "/?state=needs&amp;q=a%20b"),
        ("/runs/run_1%3Ftab=changes%23e12.3", "/runs/run_1?tab=changes#e12.3"),
        ("/%3F//evil.example", "/"),
        ("/%23//evil.example", "/"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a%0d%0aX:%20y", "/"),
    ],
)
def test_the_login_leads_back(gw: EmbeddedGateway, wanted: str, given: str) -> None:
    """To where somebody wanted to go, and never to another site."""
    body = urlencode({"token": gw.admin_token}).encode()

    answer = gw.request("POST", f"/login?next={wanted}", body, {"Content-Type": FORM})

    assert (answer.status, leads_to(answer)) == (200, given)


def test_the_cookie_is_for_this_site_alone(tmp_path: Path) -> None:
    """HttpOnly, SameSite=Strict, and with TLS Secure and bound to the host."""
    with EmbeddedGateway(tmp_path, tls=True) as own:
        cookie = log_in(own, own.admin_token).headers["set-cookie"]

        assert cookie.startswith(f"__Host-gateway-{own.port}=")
        for attribute in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
            assert attribute in cookie


def test_a_session_ends_with_the_logout(gw: EmbeddedGateway) -> None:
    """Cookie and page key are worth nothing afterwards."""
    headers = session_of(log_in(gw, gw.admin_token))
    assert gw.request("GET", "/api/runs", headers=headers).status == 200
    ours = {"Origin": f"http://127.0.0.1:{gw.port}", "Cookie": headers["Cookie"]}

    out = gw.request("POST", "/logout", b"", ours)

    assert out.headers["location"] == "/login"
    assert gw.request("GET", "/api/runs", headers=headers).status == 401


def test_guessing_is_stopped(tmp_path: Path) -> None:
    """After ten wrong guesses nobody is told any more whether one is wrong, however it is made."""
    with EmbeddedGateway(tmp_path) as own:
        answers = [log_in(own, f"guess {number}").status for number in range(11)]
        wrong = log_in(own, "one more")
        bearer = own.request("GET", "/api/runs", headers={"Authorization": "Bearer guess"})
        code = own.request("GET", "/login?code=x")

        assert answers == [401] * 10 + [429]
        assert "try again" in wrong.body.decode().lower()
        for answer in (wrong, bearer, code):
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) > 0


def test_nobody_can_lock_the_operator_out(tmp_path: Path) -> None:
    """Ten images in a stranger's page must not: who has the right token or code is let in."""
    with EmbeddedGateway(tmp_path) as own:
        code = own.api("POST", "/api/login-codes", {}).json()["code"]
        for _ in range(12):
            own.request("GET", "/login?code=x", headers={"Sec-Fetch-Site": "cross-site"})

        assert own.api("GET", "/api/runs").status == 200
        assert log_in(own, own.admin_token).status == 200
        assert own.request("GET", f"/login?code={code}").status == 200


def test_looking_at_a_link_does_not_use_it_up(gw: EmbeddedGateway) -> None:
    """A preview asks for the head of a page; the code in it is still the person's."""
    code = gw.api("POST", "/api/login-codes", {}).json()["code"]

    assert gw.request("HEAD", f"/login?code={code}").status == 200
    assert session_of(gw.request("GET", f"/login?code={code}"))


# --- the two halves of a session -----------------------------------------------------------------


def link_of(gw: EmbeddedGateway, session: Mapping[str, str], artifact_id: str) -> Answer:
    """Ask for an address of a file, as the page does."""
    ours = {"Origin": f"http://127.0.0.1:{gw.port}", "Content-Type": "application/json"}
    return gw.request("POST", f"/api/artifacts/{artifact_id}/link", b"{}", {**session, **ours})


def test_half_a_session_opens_nothing(gw: EmbeddedGateway, document: dict[str, Any]) -> None:
    """Cookie or page key alone, or of two sessions: no address of the API answers, none changes
    anything, and the page's own address has nothing in it that would help.
    """
    mine, other = gw.log_in(), gw.log_in()
    run = gw.create_run()
    start(gw, run, remoteInput=True)
    uploaded = gw.send_artifact(run, "a.txt", b"kept from strangers").json()["artifactId"]
    ours = {"Origin": f"http://127.0.0.1:{gw.port}", "Content-Type": "application/json"}
    halves = [
        {"Cookie": mine["Cookie"]},
        {"X-Page-Key": mine["X-Page-Key"]},
        {"Cookie": mine["Cookie"], "X-Page-Key": ""},
        {"Cookie": mine["Cookie"], "X-Page-Key": other["X-Page-Key"]},
        {"Cookie": mine["Cookie"], "X-Page-Key": mine["Cookie"].partition("=")[2]},
    ]
    ids = {
        "run_id": run.id,
        "artifact_id": uploaded,
        "command_id": "x",
        "waiter_id": "x",
        "name": "x",
    }
    tried = [
        (method.upper(), path.format(**ids))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters" and operation.get("security") != []
    ]
    tried.append(("GET", f"/api/runs/{run.id}/commands"))
    assert len(tried) > 15
    for half in halves:
        for method, path in tried:
            body = b'{"command":"pwd","text":"x"}' if method == "POST" else None
            answer = gw.request(method, path, body, {**half, **ours})
            assert answer.status == 401, (half, method, path, answer)
        page = gw.request("GET", f"/runs/{run.id}", headers=half).body
        assert mine["X-Page-Key"].encode() not in page

    assert gw.api("GET", f"/api/runs/{run.id}/history").json()["commands"] == []
    assert gw.request("GET", f"/api/runs/{run.id}", headers=mine).status == 200


def test_a_session_of_an_older_version_is_over(tmp_path: Path) -> None:
    """It was a cookie alone; its browser logs in again."""
    with EmbeddedGateway(tmp_path) as own:
        old = secrets.token_urlsafe(32)
        digest = hashlib.sha256(old.encode()).digest()
        with closing(sqlite3.connect(own.database_file)) as database:
            values = (digest, time.time(), time.time() + 1_000)
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, NULL)", values)
            database.commit()
        headers = {"Cookie": f"gateway-{own.port}={old}"}

        for key in ({}, {"X-Page-Key": "x"}):
            assert own.request("GET", "/api/runs", headers={**headers, **key}).status == 401


def test_a_new_admin_token_ends_every_session(tmp_path: Path) -> None:
    """That is what to do about a stranger who is in."""
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as own:
        session = own.log_in()
        own.stop()
        Path(own.told["admin_token_file"]).unlink()
        own.start()

        assert own.request("GET", "/api/runs", headers=session).status == 401


def test_a_link_that_somebody_else_used_is_told(tmp_path: Path) -> None:
    """Once, in the terminal, with what to do. Who has used it may look at it again, or others try
    codes that never were: that is no news.
    """
    with EmbeddedGateway(tmp_path) as own:
        path = own.told["login_url"][len(own.url) :]
        session = session_of(own.request("GET", path))
        assert own.request("GET", path, headers=session).headers["location"] == "/"
        assert own.request("GET", "/login?code=x").status == 401
        assert "login link" not in own.log

        for _ in range(2):
            assert own.request("GET", path).status == 401

        (line,) = [each for each in own.log.splitlines() if "had used it before" in each]
        assert "127.0.0.1" in line
        assert f"remove {own.told['admin_token_file']}" in line


def test_a_file_is_downloaded_by_a_link(gw: EmbeddedGateway) -> None:
    """It goes with the cookie of its session, for one file and for a minute; a logout ends it."""
    run = gw.create_run()
    first, second = (
        gw.send_artifact(run, name, name.encode()).json()["artifactId"] for name in ("a", "b")
    )
    mine, other = gw.log_in(), gw.log_in()
    cookie, stranger = {"Cookie": mine["Cookie"]}, {"Cookie": other["Cookie"]}
    made = link_of(gw, mine, first)
    address = made.json()["address"]
    later = re.sub(r"until=(\d+)", lambda found: f"until={int(found[1]) + 60}", address)
    old = re.sub(r"until=\d+", f"until={int(time.time()) - 1}", address)

    answer = gw.request("GET", address, headers=cookie)

    assert (answer.status, answer.body) == (200, b"a")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert 0 < int(address.partition("until=")[2].partition("&")[0]) - time.time() <= 60
    for wrong, headers in (
        (address, {}),
        (address, stranger),
        (address, {"X-Page-Key": mine["X-Page-Key"]}),
        (address.replace(first, second), cookie),
        (address.partition("&signature")[0], cookie),
        (f"/api/runs/{run.id}?{address.partition('?')[2]}", cookie),
        (later, cookie),
        (old, cookie),
    ):
        assert gw.request("GET", wrong, headers=headers).status == 401, (wrong, headers)
    assert link_of(gw, mine, "art_0").status == 404
    assert gw.api("POST", f"/api/artifacts/{first}/link", {}).status == 400
    gw.request("POST", "/logout", b"", cookie)
    assert gw.request("GET", address, headers=cookie).status == 401


# --- what a stranger's page could try ------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "ours", "Content-Type": "text/plain"}, 403),
        ({"Origin": "ours", "Content-Type": FORM}, 403),
        ({"Origin": "ours"}, 201),
    ],
    ids=str,
)
def test_only_our_page_may_use_a_session(
    gw: EmbeddedGateway, headers: Mapping[str, str], status: int
) -> None:
    """A change needs our Origin and JSON, which no form of another page can send."""
    session = session_of(log_in(gw, gw.admin_token))
    sent = {**session, "Content-Type": "application/json", **headers}
    if sent.get("Origin") == "ours":
        sent["Origin"] = f"http://127.0.0.1:{gw.port}"

    assert gw.request("POST", "/api/runs", b"{}", sent).status == status


def test_another_page_cannot_log_anybody_in(gw: EmbeddedGateway) -> None:
    """The login form of a stranger's page is refused."""
    assert log_in(gw, gw.admin_token, Origin="https://evil.example").status == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:3100", 200),
        ("[::1]:3100", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:3100", 421),
        ("evil.example@localhost", 421),
        ("localhost:x", 421),
    ],
)
def test_another_name_is_refused(gw: EmbeddedGateway, host: str, status: int) -> None:
    """A name that a stranger points to this machine is none of ours (DNS rebinding)."""
    for path in ("/api/health", "/login"):
        assert gw.request("GET", path, headers={"Host": host}).status == status


def test_the_public_address_is_ours(tmp_path: Path) -> None:
    """`--public-url` adds one name, and its Origin; nothing else."""
    with EmbeddedGateway(tmp_path, "--public-url", "https://runs.example:8443") as own:
        headers = {"Host": "runs.example:8443", "Origin": "https://runs.example:8443"}
        body = urlencode({"token": own.admin_token}).encode()

        answer = own.request("POST", "/login", body, {"Content-Type": FORM, **headers})

        assert answer.status == 200
        assert own.told["url"] == "https://runs.example:8443"
        assert own.request("GET", "/login", headers={"Host": "runs.example"}).status == 421


@pytest.mark.parametrize("base", ["/tools/gw-1", "/runs"])
def test_a_gateway_below_a_path(tmp_path: Path, base: str) -> None:
    """Its pages and runners use the public path, whether a proxy takes that off or leaves it.

    `/runs` is also what the addresses of its own pages begin with.
    """
    with EmbeddedGateway(tmp_path, "--public-url", f"https://Runs.example{base}/") as own:
        headers = {"Host": "runs.example", "Origin": "https://runs.example"}
        form = urlencode({"token": own.admin_token}).encode()
        run = own.create_run()
        for taken in (base, ""):
            page = own.request("GET", f"{taken}/login", headers=headers)
            addresses = re.findall(r'(?:href|src)="([^"]*)"', page.body.decode())
            assert {each[: len(base) + 8] for each in addresses} == {f"{base}/static/"}
            for address in addresses:
                assert own.request("GET", taken + address[len(base) :]).status == 200
            welcome = own.request(
                "POST", f"{taken}/login?next=/runs/r", form, {"Content-Type": FORM, **headers}
            )
            assert f'data-following="{base}/runs/r"' in welcome.body.decode()
            sent = own.request("GET", f"{taken}/runs/r")
            assert sent.headers["location"] == f"{base}/login?next=/runs/r"
            assert own.request("GET", f"{taken}/api/stream").status == 401
            client = GatewayClient(
                f"http://127.0.0.1:{own.told['port']}{taken}",
                Credentials(own.secret, run.id, run.token),
            )
            reply = client.send(client.event(encode_event("stdout", "t" * 300_000, len(taken) + 1)))
            client.close()
            assert reply.outcome is Outcome.ACCEPTED
        assert own.told["url"] == f"https://runs.example{base}"
        assert own.request("GET", f"{base}2/api/health").status != 200


def test_what_has_its_version_in_its_address_is_kept(gw: EmbeddedGateway) -> None:
    """A page of an earlier start gets today's files, and keeps none of them for theirs."""
    mine = {"Authorization": f"Bearer {gw.admin_token}"}
    page = gw.request("GET", "/", headers=mine).body.decode()
    named = re.findall(r'"(/static/v-[^"]*)"', page)
    assert named
    kept = gw.request("GET", named[0])
    of_today = gw.request("GET", re.sub("v-[^/]*", "v-" + "0" * 16, named[0]))

    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (of_today.status, of_today.body) == (200, kept.body)
    assert of_today.headers["cache-control"] == "no-cache, max-age=0"
    assert gw.request("GET", re.sub("v-[^/]*/", "v-x/", named[0])).status == 404


def test_every_answer_is_hardened(gw: EmbeddedGateway) -> None:
    """A strict policy, nothing sniffed, framed, referred to or kept."""
    for path in ("/login", "/", "/api/runs", "/nowhere", "/static/nothing.js"):
        headers = gw.request("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../command_line.py",
        "/static/%2e%2e/command_line.py",
        "/static/..%2fcommand_line.py",
        "/static//etc/passwd",
        "/static/vendor/xterm/../../admin-token",
        "/static/vendor/xterm/%2e%2e/%2e%2e/admin-token",
        "/api/artifacts/..%2f..%2fadmin-token",
        "/api/artifacts/%2e%2e",
    ],
)
def test_no_path_leads_out(gw: EmbeddedGateway, path: str) -> None:
    """Static files and artifacts come from their folders alone."""
    answer = gw.api("GET", path)

    assert answer.status == 404
    assert gw.admin_token not in answer.body.decode()


# --- commands ------------------------------------------------------------------------------------


def test_only_offered_commands_are_taken(gw: EmbeddedGateway) -> None:
    """A run's `started` marker says which; and once it has ended, none."""
    run = gw.create_run()
    path = f"/api/runs/{run.id}"
    assert gw.api("POST", f"{path}/command", {"command": "pwd"}).status == 400  # not yet started
    start(gw, run)

    assert gw.api("POST", f"{path}/command", {"command": "pwd"}).status == 202
    for text in ("pwd; id", " pwd", "ls", "", 7, None):
        assert gw.api("POST", f"{path}/command", {"command": text}).status == 400
    assert gw.api("POST", f"{path}/input", {"text": "y"}).status == 409
    assert gw.api("POST", f"{path}/escape", {}).status == 202
    gw.send_marker(run, {"event": "finished", "exitCode": 0}, 2)
    for name, body in (("command", {"command": "pwd"}), ("stop", {}), ("input", {"text": "y"})):
        assert gw.api("POST", f"{path}/{name}", body).status == 409
    history = gw.api("GET", f"{path}/history").json()["commands"]
    assert [each["command"] for each in history] == ["pwd", "__ESCAPE__"]


def test_input_is_passed_on_as_it_is(gw: EmbeddedGateway) -> None:
    """To a run that takes it."""
    run = gw.create_run()
    start(gw, run, remoteInput=True)

    gw.api("POST", f"/api/runs/{run.id}/input", {"text": "yes\r\n"})

    (command,) = gw.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
    assert command["command"] == "__INPUT__:yes\r\n"


@pytest.mark.parametrize("end", ["ack", "finished"])
def test_typed_text_is_forgotten_when_it_was_delivered(tmp_path: Path, end: str) -> None:
    """It may be a password. Once it was acknowledged, or the run has ended, it is in no answer, no
    stream and no file; that something was typed still is, and what other commands were.
    """
    typed = "correct horse " * 1_000
    with EmbeddedGateway(tmp_path) as own:
        run, other = own.create_run(), own.create_run()
        for each in (run, other):
            start(own, each, remoteInput=True)
        base = f"/api/runs/{run.id}"
        own.api("POST", f"/api/runs/{other.id}/input", {"text": "kept, as it waits"})
        own.api("POST", f"{base}/command", {"command": "pwd"})
        typed_id = own.api("POST", f"{base}/input", {"text": typed}).json()["id"]
        waiting = own.send("GET", f"{base}/commands", run=run).json()
        assert [each["command"] for each in waiting] == ["pwd", f"__INPUT__:{typed}"]

        with own.follow(f"{base}/stream") as stream:
            if end == "ack":
                ack = f"{base}/commands/{typed_id}/ack"
                assert own.send("POST", ack, {"result": "Input sent"}, run).status == 200
                assert stream.take(1, "command")[0].data["command"] == "__INPUT__:"
            else:
                own.send_marker(run, {"event": "finished", "exitCode": 0}, 2)
        history = own.api("GET", f"{base}/history").json()["commands"]
        (others,) = own.api("GET", f"/api/runs/{other.id}/history").json()["commands"]
        own.stop()

    assert [each["command"] for each in history] == ["pwd", "__INPUT__:"]
    assert others["command"] == "__INPUT__:kept, as it waits"
    for file in own.data_dir.rglob("*"):
        assert not file.is_file() or b"correct horse" not in file.read_bytes(), file


def test_what_cannot_be_stored_is_in_no_log(tmp_path: Path) -> None:
    """A database that fails is told of, and not what it was to keep: output, typed text."""
    secret = "correct horse"
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run()
        start(own, run, remoteInput=True)
        command = own.api("POST", f"/api/runs/{run.id}/stop", {}).json()["id"]
        with closing(sqlite3.connect(own.database_file)) as database:
            for table in ("commands", "events", "artifacts"):
                database.execute(f"ALTER TABLE {table} RENAME TO {table}_that_was")
            database.execute("CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT * FROM x; END")
            database.commit()
        base = f"/api/runs/{run.id}"
        answers = [
            own.api("POST", f"{base}/input", {"text": secret}),
            own.api("POST", f"{base}/command", {"command": "pwd"}),
            own.api("POST", "/api/runs", {"command": secret, "metadata": {"a": secret}}),
            own.send_event(run, "stdout", secret, 2),
            own.send_marker(run, {"event": "state", "state": secret}, 3),
            own.send_artifact(run, f"{secret}.txt", secret.encode()),
            own.send("POST", f"{base}/commands/{command}/ack", {"result": secret}, run),
        ]
        own.stop()

    assert [answer.status for answer in answers] == [500] * len(answers)
    assert "no such table: commands" in own.log
    assert "no such table: events" in own.log
    assert "correct" not in own.log


def test_the_start_command_can_be_pasted(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """Into each shell that is there, whatever the prompt is; the token is no argument of it."""
    prompt = "fix 'it'; rm -rf $HOME"
    answer = gw.api("POST", "/api/runs", {"command": prompt}).json()
    line, run_id, token = (answer[each] for each in ("start_command", "id", "capabilityToken"))
    shim = tmp_path / "wrapper" / "claude-runner"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\nprintf "%s\\n" "$CLAUDE_RUNNER_TOKEN" "$@"\n')
    shim.chmod(0o755)

    shells = [each for each in ("sh", "bash", "zsh", "fish") if shutil.which(each)]
    for shell in shells:
        done = subprocess.run(
            [shell], input=f"{line}\n", cwd=tmp_path, capture_output=True, text=True, timeout=30
        )
        got = [token, "start", "--run-id", run_id, "--cmd", prompt]
        assert (done.stdout.splitlines(), done.returncode) == (got, 0), (shell, done.stderr)
    assert line.startswith(" ")
    assert token not in str(gw.api("GET", f"/api/runs/{run_id}").json())


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"command":5}', b'{"metadata":[]}'])
def test_a_wrong_body_is_400(gw: EmbeddedGateway, body: bytes) -> None:
    """One sentence says what is wrong."""
    headers = {"Authorization": f"Bearer {gw.admin_token}", "Content-Type": "application/json"}

    answer = gw.request("POST", "/api/runs", body, headers)

    assert answer.status == 400
    assert answer.error.endswith(".")


def test_what_operators_do_is_noted(tmp_path: Path) -> None:
    """Logins, failed ones too, and every action, with address and run."""
    with EmbeddedGateway(tmp_path) as own:
        log_in(own, "wrong")
        own.request("GET", "/api/runs", headers={"Authorization": "Bearer wrong"})
        own.request("GET", "/api/stream", headers={"Authorization": "Bearer wrong"})
        log_in(own, own.admin_token)
        run = own.create_run()
        own.api("POST", f"/api/runs/{run.id}/halt", {})
        own.stop()
        with closing(sqlite3.connect(own.database_file)) as database:
            rows = database.execute(
                "SELECT address, actor, action, run_id, succeeded FROM audit ORDER BY number"
            ).fetchall()

    assert rows == [
        ("127.0.0.1", "token", "login", None, 0),
        ("127.0.0.1", "token", "request", None, 0),
        ("127.0.0.1", "token", "request", None, 0),
        ("127.0.0.1", "token", "login", None, 1),
        ("127.0.0.1", "token", "create", run.id, 1),
        ("127.0.0.1", "token", "halt", run.id, 1),
    ]


def test_no_token_is_stored(tmp_path: Path) -> None:
    """Of tokens and sessions only hashes are in the database."""
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run()
        session = session_of(log_in(own, own.admin_token))
        cookie, page_key = session["Cookie"].partition("=")[2], session["X-Page-Key"]
        own.send_event(run, "stdout", "x", 1)
        own.stop()

    stored = b"".join(path.read_bytes() for path in own.data_dir.rglob("gateway.db*"))
    for secret in (run.token, cookie, page_key, own.secret, own.admin_token):
        assert secret.encode() not in stored


# --- reading -------------------------------------------------------------------------------------


def test_runs_are_paged_newest_first(tmp_path: Path) -> None:
    """Each run is on one page."""
    with EmbeddedGateway(tmp_path) as own:
        made = [own.create_run().id for _ in range(5)]
        seen: list[str] = []
        query = "limit=2"
        while query:
            page = own.api("GET", f"/api/runs?{query}").json()
            seen += [run["id"] for run in page["runs"]]
            query = f"limit=2&before={page['next']}" if page["next"] else ""

    assert seen == made[::-1]


def test_runs_of_one_moment_are_all_listed(tmp_path: Path) -> None:
    """However the clock stands, or is set back: no page leaves one out, and none has one twice."""
    with EmbeddedGateway(tmp_path) as own:
        made = [own.create_run().id for _ in range(5)]
        with closing(sqlite3.connect(own.database_file)) as database:
            database.execute("UPDATE runs SET created_at = 1700000000 - 10 * (number % 2)")
            database.commit()
        seen: list[str] = []
        before = ""
        for _ in made:
            page = own.api("GET", f"/api/runs?limit=1{before}").json()
            seen += [run["id"] for run in page["runs"]]
            before = f"&before={page['next']}"

    assert seen == made[::-1]


def test_events_are_paged_both_ways(gw: EmbeddedGateway) -> None:
    """From the end backwards, or forwards after one; the flags say whether there is more."""
    run = gw.create_run()
    for number in range(1, 8):
        gw.send_event(run, "stdout", str(number), number)

    def page(query: str) -> tuple[str, bool, bool]:
        found = gw.api("GET", f"/api/runs/{run.id}/events?{query}").json()
        data = "".join(event["data"] for event in found["events"])
        return data, found["has_before"], found["has_after"]

    ids = [event["id"] for event in gw.events(run)]
    assert page("limit=3") == ("567", True, False)
    assert page(f"limit=3&before={ids[4]}") == ("234", True, True)
    assert page(f"limit=3&before={ids[1]}") == ("1", False, True)
    assert page(f"limit=3&before={ids[0]}") == ("", False, True)
    assert page(f"limit=3&after={ids[0]}") == ("234", True, True)
    assert page(f"limit=9&after={ids[6]}") == ("", True, False)
    assert gw.api("GET", f"/api/runs/{run.id}/events?limit=1001").status == 400
    assert gw.api("GET", f"/api/runs/{run.id}/events?after=-1").status == 400
    assert gw.api("GET", "/api/runs/nobody/events").status == 404


def test_a_page_of_large_events_is_cut(gw: EmbeddedGateway) -> None:
    """A page has a few megabytes, and at least one event."""
    run = gw.create_run()
    for number in range(1, 8):
        gw.send_event(run, "stdout", "x" * 1_000_000, number)

    page = gw.api("GET", f"/api/runs/{run.id}/events?limit=100").json()

    assert 1 <= len(page["events"]) < 7
    assert page["has_before"]


# --- the OpenAPI document ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(gw: EmbeddedGateway) -> dict[str, Any]:
    """The document as it is served."""
    served: dict[str, Any] = gw.api("GET", "/api/openapi.json").json()
    return served


def test_the_document_names_every_address(document: dict[str, Any]) -> None:
    """What the gateway's routes answer under /api is in it, and nothing else."""
    site = build_site(cast(Parts, None))  # only its addresses are looked at
    served = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in site.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/")
    }
    documented = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }

    assert documented == {*served, *ROUTES, *(("GET", path) for path in STREAMS)}


def test_answers_have_the_documented_shape(gw: EmbeddedGateway, document: dict[str, Any]) -> None:
    """Each kind of answer of a run's whole life is valid by its schema."""
    run = gw.create_run("x")

    def check(method: str, path: str, answer: Answer) -> None:
        operation = document["paths"][path][method.lower()]
        schema = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})

    base = f"/api/runs/{run.id}"
    check("POST", "/api/runs", gw.api("POST", "/api/runs", {}))
    check("GET", "/api/runs/{run_id}", gw.api("GET", base))
    start(gw, run, command="c", runner="claude", mode="print", columns=1, lines=2, workingDir="/")
    gw.send_marker(run, {"event": "state", "state": "working"}, 2)
    queued = gw.api("POST", f"{base}/stop", {})
    check("POST", "/api/runs/{run_id}/stop", queued)
    commands = f"{base}/commands"
    poll = "/api/runs/{run_id}/commands"
    check("GET", poll, gw.send("GET", commands, run=run))
    check("GET", poll, gw.api("GET", commands))
    ack = gw.send("POST", f"{commands}/{queued.json()['id']}/ack", {"error": "no"}, run)
    check("POST", "/api/runs/{run_id}/commands/{command_id}/ack", ack)
    check("POST", "/api/ingest/event", gw.send_event(run, "stdout", "x", 3))
    check("POST", "/api/ingest/artifact", gw.send_artifact(run, "a.md", b"# x"))
    gw.send_marker(
        run, {"event": "finished", "exitCode": 0, "result": {"turns": 1}, "events": 1}, 4
    )
    for name in ("events", "history", "artifacts"):
        check("GET", f"/api/runs/{{run_id}}/{name}", gw.api("GET", f"{base}/{name}"))
    check("GET", "/api/runs/{run_id}", gw.api("GET", base))
    check("GET", "/api/runs", gw.api("GET", "/api/runs"))
    check("GET", "/api/runs/{run_id}", gw.api("GET", "/api/runs/nobody"))
    check("POST", "/api/runs/{run_id}/stop", gw.api("POST", f"{base}/stop", {}))
    check("GET", "/api/health", gw.request("GET", "/api/health"))
    (artifact,) = gw.api("GET", f"{base}/artifacts").json()["artifacts"]
    link = link_of(gw, gw.log_in(), artifact["id"])
    check("POST", "/api/artifacts/{artifact_id}/link", link)
