"""What somebody with bad intentions sends to the gateway: a run, a stranger, a page elsewhere."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.embedded_gateway import (
    EmbeddedGateway,
    leads_to,
    multipart,
    open_socket,
    session_of,
)
from testing.gateways.gateway_records import Run
from testing.waiting import eventually

EVENT = "/api/ingest/event"
ARTIFACT = "/api/ingest/artifact"
FORM = "application/x-www-form-urlencoded"
MAX_BODY_BYTES = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def answer_to(gw: EmbeddedGateway, sent: bytes) -> bytes:
    """Send bytes on a connection of their own; return all that comes until its end."""
    with closing(open_socket(gw.port)) as raw:
        received = b""
        try:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            while piece := raw.recv(65_536):
                received += piece
        except OSError:
            pass  # how it refuses is its own business; what it said counts
        return received


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer in what was received."""
    return [
        int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")
    ]


# --- one request in another ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: {size}\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length: {size}\r\n",
        "Content-Length: {size}, 0\r\n",
        "Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding : chunked\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: {size}\r\n",
        "Content-Length: +{size}\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x20\r\n",
        "Content-Length: {size}\r\n Transfer-Encoding: chunked\r\n",
    ],
    ids=lambda framing: framing.replace("\r\n", " "),
)
def test_no_request_hides_in_another(gw: EmbeddedGateway, framing: str) -> None:
    """Where a body ends is clear, or the connection ends: what is inside is never executed."""
    run = gw.create_run()
    hidden = b'{"command":"smuggled"}'
    inside = (
        f"POST /api/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gw.admin_token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(hidden)}\r\n\r\n"
    ).encode() + hidden
    body = b"0\r\n\r\n" + inside
    before = {each["id"] for each in gw.api("GET", "/api/runs").json()["runs"]}
    headers = gw.sign("POST", EVENT, body, run)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sent = f"POST {EVENT} HTTP/1.1\r\nHost: localhost\r\n{head}{framing.format(size=len(body))}\r\n"

    received = answer_to(gw, sent.encode() + body)

    after = {each["id"] for each in gw.api("GET", "/api/runs").json()["runs"]}
    assert after == before, received
    assert len(statuses(received)) <= 1, received
    assert 200 not in statuses(received), received
    assert gw.events(run) == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 1_000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_what_is_no_request_is_refused(gw: EmbeddedGateway, sent: bytes) -> None:
    """Nothing that is not a plain request for this gateway gets a page; the next one does."""
    received = answer_to(gw, sent)

    assert all(400 <= status < 600 or status == 303 for status in statuses(received)), received
    assert not statuses(received) or statuses(received)[0] != 500
    assert gw.request("GET", "/api/health").status == 200


# --- too large -----------------------------------------------------------------------------------


def test_a_chunked_body_over_the_limit_is_refused(gw: EmbeddedGateway) -> None:
    """Whatever a body does not announce of its size, no more than 10 MiB of it are taken."""
    run = gw.create_run()
    headers = {**gw.sign("POST", EVENT, b"", run), "Transfer-Encoding": "chunked"}
    piece = b"%x\r\n%s\r\n" % (65_536, b" " * 65_536)
    with closing(gw.connect()) as connection:
        connection.putrequest("POST", EVENT)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            for _ in range(4 * MAX_BODY_BYTES // 65_536):
                connection.send(piece)
        except OSError:
            pass  # it has heard enough, and its answer may be lost
        else:
            assert connection.getresponse().status == 413

    assert gw.events(run) == []
    assert gw.request("GET", "/api/health").status == 200


def test_nesting_without_end_is_a_refusal(gw: EmbeddedGateway) -> None:
    """JSON nested deeper than any stack is refused as what is no JSON, on the wire and the API."""
    run = gw.create_run()
    deep = b"[" * 500_000 + b"]" * 500_000
    wire = gw.request("POST", EVENT, deep, gw.sign("POST", EVENT, deep, run))
    marker = gw.send_event(run, "marker", deep.decode(), 1)
    headers = {"Authorization": f"Bearer {gw.admin_token}", "Content-Type": "application/json"}
    api = gw.request("POST", "/api/runs", deep, headers)

    assert (wire.status, marker.status, api.status) == (400, 500, 400)
    assert gw.events(run) == []


# --- names and texts that a run chooses ----------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../../../admin-token",
        "..\\..\\admin-token",
        "/etc/passwd",
        "C:\\CON",
        "CON",
        "x" * 300,
        "x" * 300 + ".md",
        "a\0b.txt",
        "\u202egpj.exe",
        "a\u2028b\u0085.txt",
        ".",
        "...",
        ".htaccess",
        "%2e%2e%2fa",
        "a\tb;c=d.txt",
        "😀" * 80,
        "\ud83d",
    ],
    ids=ascii,
)
def test_an_odd_file_name_is_only_a_name(gw: EmbeddedGateway, name: str) -> None:
    """It becomes no path here, no header line, and no odd name on the machine that downloads it."""
    run = gw.create_run()
    raw = name.encode("utf-8", "surrogatepass")
    kind, body = multipart("NAME", b"data")
    body = body.replace(b"NAME", raw.replace(b"\\", b"\\\\"))

    answer = gw.request(
        "POST", ARTIFACT, body, gw.sign("POST", ARTIFACT, run=run, content_type=kind)
    )

    assert answer.status in (200, 400), answer
    listed = gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
    assert len(listed) == (answer.status == 200)
    folder = gw.data_dir / "gateway" / "artifacts"
    for artifact in listed:
        assert set(artifact["name"]) <= set(SAFE)
        assert 0 < len(artifact["name"]) <= 255
        download = gw.api("GET", f"/api/artifacts/{artifact['id']}")
        assert download.body == b"data"
        assert "/" not in download.headers["content-disposition"]
        assert (folder / run.id / artifact["id"]).read_bytes() == b"data"
    assert {path.parent for path in folder.rglob("*") if path.is_file()} <= {
        each for each in folder.iterdir() if each.is_dir()
    }


SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"


def test_an_upload_that_never_comes_to_a_file_is_refused(gw: EmbeddedGateway) -> None:
    """What stands before the first file is not gathered in memory until the body ends."""
    run = gw.create_run()
    kind, body = multipart("a.txt", b"x")

    answer = gw.request(
        "POST",
        ARTIFACT,
        b"x" * 1_000_000 + b"\r\n" + body,
        gw.sign("POST", ARTIFACT, run=run, content_type=kind),
    )

    assert answer.status == 400
    assert gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"] == []


def test_a_line_break_in_a_name_makes_no_header(gw: EmbeddedGateway) -> None:
    """Neither in the answer of the upload, nor in that of the download."""
    run = gw.create_run()
    kind, body = multipart("a%0d%0aSet-Cookie: x=y.txt", b"data")
    gw.request("POST", ARTIFACT, body, gw.sign("POST", ARTIFACT, run=run, content_type=kind))

    (artifact,) = gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
    download = gw.api("GET", f"/api/artifacts/{artifact['id']}")

    assert "set-cookie" not in download.headers


SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`${1}{{1}}\x1b]8;;x:1\x07"


def test_a_script_in_every_text_is_never_a_page(gw: EmbeddedGateway) -> None:
    """Whatever a run sends comes back as JSON or plain text, not sniffed, and runs nowhere."""
    run = gw.create_run(SCRIPT)
    for kind in ("stdout", "stderr", "info", "error"):
        assert gw.send_event(run, kind, SCRIPT).status == 200
    started = {"event": "started", "command": SCRIPT, "workingDir": SCRIPT, "version": SCRIPT}
    gw.send_marker(run, {**started, "commands": [SCRIPT], "sessionId": SCRIPT, "mode": SCRIPT})
    gw.send_event(run, "assist", json.dumps({"url": "javascript:alert(1)", "ssh": SCRIPT}))
    for name in ("x.html", "x.svg", "x.md", "x.xml", "x.txt"):
        assert gw.send_artifact(run, name, SCRIPT.encode()).status == 200
    queued = gw.api("POST", f"/api/runs/{run.id}/stop", {}).json()["id"]
    gw.send("POST", f"/api/runs/{run.id}/commands/{queued}/ack", {"error": SCRIPT}, run)
    gw.send_marker(run, {"event": "finished", "exitCode": 1, "reason": SCRIPT})

    base = f"/api/runs/{run.id}"
    paths = ["/api/runs", base, f"{base}/events", f"{base}/history", f"{base}/artifacts"]
    for path in paths:
        answer = gw.api("GET", path)
        assert answer.headers["content-type"].startswith("application/json"), path
        assert answer.headers["x-content-type-options"] == "nosniff"
    for artifact in gw.api("GET", f"{base}/artifacts").json()["artifacts"]:
        for view in ("", "?view=1"):
            answer = gw.api("GET", f"/api/artifacts/{artifact['id']}{view}")
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in ("text/plain", "application/octet-stream")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]
            assert view or answer.headers["content-disposition"].startswith("attachment")
    # The page itself holds nothing of any run: its script puts texts in as text.
    page = gw.request("GET", f"/runs/{run.id}", headers=gw.log_in())
    assert page.status == 200
    assert b"alert(1)" not in page.body
    assert run.token.encode() not in page.body


def test_an_assist_address_is_no_script(gw: EmbeddedGateway) -> None:
    """The link that the page makes of it leads to the web, or is none."""
    run = gw.create_run()
    for address in ("javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "//x"):
        gw.send_event(run, "assist", json.dumps({"url": address}))

        shown = gw.run(run)["assist_url"]

        assert shown is None or not shown.strip().startswith("http"), shown
    gw.send_event(run, "assist", json.dumps({"url": "https://tmate.example/t/1"}))
    assert gw.run(run)["assist_url"] == "https://tmate.example/t/1"


# --- one run and another -------------------------------------------------------------------------


def test_a_runs_token_opens_nothing_of_the_page(gw: EmbeddedGateway) -> None:
    """A runner's credentials neither list runs, nor read events, nor fetch a file, nor queue."""
    run = gw.create_run()
    uploaded = gw.send_artifact(run, "a.txt", b"secret").json()["artifactId"]
    for method, path, content in (
        ("GET", "/api/runs", None),
        ("GET", f"/api/runs/{run.id}", None),
        ("GET", f"/api/runs/{run.id}/events", None),
        ("GET", f"/api/runs/{run.id}/artifacts", None),
        ("GET", f"/api/runs/{run.id}/stream", None),
        ("GET", f"/api/artifacts/{uploaded}", None),
        ("POST", "/api/runs", {}),
        ("POST", "/api/login-codes", {}),
        ("POST", f"/api/runs/{run.id}/halt", {}),
    ):
        answer = gw.send(method, path, content, run)

        assert answer.status == 401, (path, answer)
        assert b"secret" not in answer.body


def test_a_file_goes_to_the_run_that_signed(gw: EmbeddedGateway) -> None:
    """No field of the form, and no header beside the signed ones, puts it elsewhere."""
    mine, other = gw.create_run(), gw.create_run()
    kind, body = multipart("a.txt", b"x")
    headers = gw.sign("POST", ARTIFACT, run=mine, content_type=kind)
    crossed = gw.request("POST", ARTIFACT, body, {**headers, "X-Run-Id": other.id})
    boundary = kind.partition("boundary=")[2]
    field = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="run_id"\r\n\r\n{other.id}\r\n'
    ).encode()
    allowed = gw.request(
        "POST", ARTIFACT, field + body, gw.sign("POST", ARTIFACT, run=mine, content_type=kind)
    )

    assert crossed.status == 401
    assert allowed.status == 200
    assert gw.api("GET", f"/api/runs/{other.id}/artifacts").json()["artifacts"] == []
    assert len(gw.api("GET", f"/api/runs/{mine.id}/artifacts").json()["artifacts"]) == 1


@pytest.mark.parametrize(
    "name",
    ["X-Run-Id", "X-Capability-Token", "X-Nonce", "X-Signature", "X-Timestamp"],
)
def test_a_doubled_header_is_not_believed(gw: EmbeddedGateway, name: str) -> None:
    """Of two values for one header neither signs for the other."""
    run, other = gw.create_run(), gw.create_run()
    body = b'{"type":"info","data":"x","sequence":0}'
    mine, theirs = gw.sign("POST", EVENT, body, run), gw.sign("POST", EVENT, body, other)
    head = "".join(f"{key}: {value}\r\n" for key, value in mine.items())
    sent = (
        f"POST {EVENT} HTTP/1.1\r\nHost: localhost\r\n{head}{name}: {theirs[name]}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    received = answer_to(gw, sent.encode() + body)

    if name == "X-Timestamp" and theirs[name] == mine[name]:
        assert statuses(received)[0] in (200, 401)
    else:
        assert 400 <= statuses(received)[0] < 500, received
        assert gw.events(run) == []
    assert gw.events(other) == []


# --- logging in ----------------------------------------------------------------------------------


def test_a_session_cannot_be_given_to_somebody(gw: EmbeddedGateway) -> None:
    """A cookie that was there before the login is not the session afterwards."""
    name = gw.log_in()["Cookie"].partition("=")[0]
    planted = f"{name}={secrets.token_urlsafe(32)}"
    code = gw.api("POST", "/api/login-codes", {}).json()["code"]

    answer = gw.request("GET", f"/login?code={code}", headers={"Cookie": planted})

    given = session_of(answer)
    assert given["Cookie"] != planted
    assert gw.request("GET", "/api/runs", headers={**given, "Cookie": planted}).status == 401
    assert gw.request("GET", "/api/runs", headers=given).status == 200


@pytest.mark.parametrize(
    ("following", "location"),
    [
        ("/runs/run_a1", "/runs/run_a1"),
        ("/", "/"),
        ("", "/"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/%5Cevil.example", "/"),
        ("/\\evil.example", "/"),
        ("/%09/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/runs/../../x", "/"),
        ("/%0d%0aSet-Cookie:x=y", "/"),
        ("@evil.example", "/"),
        ("/logout?x", "/"),
    ],
)
def test_a_login_leads_to_no_other_site(gw: EmbeddedGateway, following: str, location: str) -> None:
    """`next` is a path of this gateway, or the list of runs."""
    code = gw.api("POST", "/api/login-codes", {}).json()["code"]

    answer = gw.request("GET", f"/login?code={code}&next={following}".replace("\\", "%5C"))

    assert (answer.status, leads_to(answer)) == (200, location)


def test_a_long_way_to_nowhere_takes_no_time(gw: EmbeddedGateway) -> None:
    """The time for `next` grows with its length, and not with the powers of two."""
    code = gw.api("POST", "/api/login-codes", {}).json()["code"]

    answer = gw.request("GET", f"/login?code={code}&next=/{'a' * 5_000}!")

    assert leads_to(answer) == "/"


@pytest.mark.parametrize("number", ["0" * 18 + "9" * 25, "0" * 18 + "9" * 5_000])
def test_a_number_behind_zeros_is_too_large(gw: EmbeddedGateway, number: str) -> None:
    """Neither the database nor the reader of numbers gets to see it."""
    run = gw.create_run()

    answer = gw.api("GET", f"/api/runs/{run.id}/events?after={number}")

    assert answer.status == 400


def test_a_file_with_a_name_that_no_disk_takes(gw: EmbeddedGateway) -> None:
    """Is not there; who has not logged in writes no trace into the log."""
    assert gw.request("GET", f"/static/{'a' * 300}").status == 404


def test_a_code_is_good_for_one_of_many(tmp_path: Path) -> None:
    """Of five who come at once with the same code, one gets in."""
    with EmbeddedGateway(tmp_path) as own:
        code = own.api("POST", "/api/login-codes", {}).json()["code"]

        def enter(_: int) -> int:
            return own.request("GET", f"/login?code={code}").status

        with ThreadPoolExecutor(5) as pool:
            found = sorted(pool.map(enter, range(5)))

    assert found == [200, 401, 401, 401, 401]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example", "Content-Type": "application/json"},
        {"Origin": "null", "Content-Type": "application/json"},
        {"Origin": "ours", "Content-Type": "text/plain"},
        {"Origin": "ours", "Content-Type": FORM},
        {"Origin": "ours", "Content-Type": "multipart/form-data; boundary=x"},
    ],
    ids=str,
)
def test_no_other_page_presses_a_button(gw: EmbeddedGateway, headers: dict[str, str]) -> None:
    """Stop, halt, commands, input and codes want our Origin and JSON; nothing is queued."""
    run = gw.create_run()
    gw.send_marker(run, {"event": "started", "commands": ["pwd"], "remoteInput": True})
    sent: dict[str, Any] = {**gw.log_in(), **headers}
    if sent.get("Origin") == "ours":
        sent["Origin"] = f"http://127.0.0.1:{gw.port}"
    for action, body in (
        (f"runs/{run.id}/stop", b"{}"),
        (f"runs/{run.id}/halt", b"{}"),
        (f"runs/{run.id}/escape", b"{}"),
        (f"runs/{run.id}/command", b'{"command":"pwd"}'),
        (f"runs/{run.id}/input", b'{"text":"x"}'),
        ("login-codes", b"{}"),
    ):
        assert gw.request("POST", f"/api/{action}", body, sent).status == 403, action

    assert gw.api("GET", f"/api/runs/{run.id}/history").json()["commands"] == []


# --- exhaustion ----------------------------------------------------------------------------------


def test_no_other_page_uses_up_the_rate_limit(tmp_path: Path) -> None:
    """A page of a stranger in the operator's browser has the address of the runners there."""
    with EmbeddedGateway(tmp_path, rate_limit=3) as gw:
        run = gw.create_run()
        for site in ("cross-site", "same-site"):
            for _ in range(3):
                asked = gw.request("GET", "/api/health", headers={"Sec-Fetch-Site": site})
                assert (asked.status, "x-ratelimit-limit" in asked.headers) == (403, False)

        ours = gw.request("GET", "/api/health", headers={"Sec-Fetch-Site": "same-origin"})
        assert (ours.status, ours.headers["x-ratelimit-remaining"]) == (200, "2")
        assert gw.send_event(run, "info", "x", 1).status == 200


def test_a_crowd_of_viewers_leaves_room_for_runners(tmp_path: Path) -> None:
    """Hundreds of streams at once, opened by somebody who reads none: events still get in."""
    with EmbeddedGateway(tmp_path) as own, ExitStack() as stack:
        run = own.create_run()
        head = (
            f"GET /api/runs/{run.id}/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {own.admin_token}\r\n\r\n"
        ).encode()
        for _ in range(600):
            raw = stack.enter_context(closing(open_socket(own.port)))
            raw.sendall(head)
        for number in range(1, 20):
            assert own.send_event(run, "stdout", "x" * 100_000, number).status == 200

        def last_is_served() -> None:
            assert b"200 OK" in raw.recv(100)

        eventually(last_is_served, 30)
        assert own.request("GET", "/api/health").status == 200


def test_a_flood_of_forgeries_costs_no_memory_of_nonces(gw: EmbeddedGateway) -> None:
    """What is not signed leaves nothing behind: neither nonces, nor runs, nor limits for others."""
    run = gw.create_run()
    nonce = secrets.token_hex(16)
    for _ in range(50):
        forged = gw.send_event(run, "stdout", "x", 1, nonce=nonce, secret="wrong")
        assert forged.status == 401
    stranger = Run(f"run_{'x' * 40}", "0" * 64)
    assert gw.send_event(stranger, "stdout", "x", 1).status == 403

    assert gw.send_event(run, "stdout", "x", 1, nonce=nonce).status == 200


def test_a_timestamp_of_nonsense_is_out_of_range(gw: EmbeddedGateway) -> None:
    """Whatever is in its place: it is refused before anything is computed."""
    run = gw.create_run()
    body = b'{"type":"info","data":"x","sequence":0}'
    now = int(time.time())
    for text in ("", "0", "-1", f"{now}.5", f"+{now}", "9" * 400, "NaN", "\u0661\u0667"):
        headers = gw.sign("POST", EVENT, body, run)
        sent = {**headers, "X-Timestamp": text.encode().decode("latin-1")}

        assert gw.request("POST", EVENT, body, sent).status == 401, text
    assert gw.events(run) == []
