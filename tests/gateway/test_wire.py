"""The signed protocol, over real HTTP against a real gateway."""

from __future__ import annotations

import json
import socket
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.store import MAX_RUN_FILE_BYTES, MAX_RUN_FILES
from testing.gateways.embedded_gateway import EmbeddedGateway, finished, multipart, open_socket
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.gateway_records import Run
from testing.programs.runner import RunnerProcess, child, plan
from testing.waiting import eventually

EVENT = "/api/ingest/event"
ARTIFACT = "/api/ingest/artifact"


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def data_of(gw: EmbeddedGateway, run: Run) -> list[str]:
    """Return the data of a run's events."""
    return [event["data"] for event in gw.events(run)]


# --- events --------------------------------------------------------------------------------------


def test_an_event_is_stored_and_shown(gw: EmbeddedGateway) -> None:
    """What was answered 200 is what the API shows, with type, data and sequence."""
    run = gw.create_run()

    answer = gw.send_event(run, "stderr", "héllo\n\x1b[31m😀", 1)

    assert answer.status == 200
    (event,) = gw.events(run)
    assert answer.json() == {"ok": True, "eventId": event["id"]}
    assert (event["type"], event["data"], event["sequence"]) == ("stderr", "héllo\n\x1b[31m😀", 1)


def test_the_same_event_is_stored_once(gw: EmbeddedGateway) -> None:
    """Same run, same sequence, same body, signed anew: 200 with the id of the first one."""
    run = gw.create_run()
    first = gw.send_event(run, "stdout", "a", 1)
    gw.send_event(run, "stdout", "b", 2)

    again = gw.send_event(run, "stdout", "a", 1)

    assert again.json() == first.json()
    assert data_of(gw, run) == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "prompt", "data": "x", "sequence": 1},
        {"type": ["stdout"], "data": "x", "sequence": 1},
        {"type": "stdout", "data": None, "sequence": 1},
        {"type": "stdout", "data": "x", "sequence": -1},
        {"type": "stdout", "data": "x", "sequence": 1.0},
        {"type": "stdout", "data": "x", "sequence": True},
        {"type": "stdout", "data": "x", "sequence": "1"},
        {"type": "stdout", "data": "x", "sequence": 2**60},
        {"type": "stdout", "data": "x" * 1_048_577, "sequence": 1},
        {"type": "marker", "data": "no JSON", "sequence": 1},
        {"type": "marker", "data": "null", "sequence": 1},
        ["stdout"],
        7,
    ],
    ids=lambda content: str(content)[:60],
)
def test_invalid_content_is_500_and_not_stored(gw: EmbeddedGateway, content: Any) -> None:
    """The protocol answers invalid content with 500, in the words that a runner knows."""
    run = gw.create_run()

    answer = gw.send("POST", EVENT, content, run)

    assert (answer.status, answer.error) == (500, "Internal Server Error")
    assert gw.events(run) == []


@pytest.mark.parametrize("body", [b"{", b"", b'{"type":NaN}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_is_400(gw: EmbeddedGateway, body: bytes) -> None:
    """It is refused before anybody looks at the signature."""
    run = gw.create_run()

    answer = gw.request("POST", EVENT, body, gw.sign("POST", EVENT, body, run))

    assert answer.status == 400


def test_another_content_type_is_refused(gw: EmbeddedGateway) -> None:
    """415 for events and acknowledgements, 406 for uploads."""
    run = gw.create_run()
    headers = {**gw.sign("POST", EVENT, b"{}", run), "Content-Type": "text/plain"}

    assert gw.request("POST", EVENT, b"{}", headers).status == 415
    assert gw.send("POST", ARTIFACT, {}, run).status == 406


def test_half_a_character_is_replaced(gw: EmbeddedGateway) -> None:
    """A lone surrogate, which JSON can carry, is stored as U+FFFD."""
    run = gw.create_run()
    body = b'{"type":"stdout","data":"a\\ud83d!","sequence":1}'

    assert gw.request("POST", EVENT, body, gw.sign("POST", EVENT, body, run)).status == 200

    assert data_of(gw, run) == ["a�!"]


def test_a_large_event_arrives_whole(gw: EmbeddedGateway) -> None:
    """The largest data that the protocol allows, escaped to several megabytes of body."""
    run = gw.create_run()
    data = "\x01" * 1_048_576

    assert gw.send_event(run, "stdout", data, 1).status == 200

    assert data_of(gw, run) == [data]


# --- who is let in -------------------------------------------------------------------------------


def request_of(gw: EmbeddedGateway, run: Run, sequence: int) -> bytes:
    """Return a small event as it goes over the line."""
    body = json.dumps({"type": "stdout", "data": f"{sequence}\n", "sequence": sequence}).encode()
    headers = gw.sign("POST", EVENT, body, run)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = [f"POST {EVENT} HTTP/1.1", "Host: localhost", *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def test_events_in_one_piece_are_answered_one_by_one(gw: EmbeddedGateway) -> None:
    """Two at once, and a third in two pieces, on one connection."""
    run = gw.create_run()
    first, second, third = (request_of(gw, run, number) for number in (1, 2, 3))
    with open_socket(gw.port) as sock, sock.makefile("rb") as answers:
        sock.sendall(first + second + third[:-5])
        statuses = [answers.readline()]
        while len(statuses) < 2:
            line = answers.readline()
            statuses += [line[line.find(b"HTTP/") :]] if b"HTTP/" in line else []
        sock.sendall(third[-5:] + b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        rest = answers.read()

    assert statuses == [b"HTTP/1.1 200 OK\r\n"] * 2
    assert rest.count(b"HTTP/1.") == rest.count(b" 200 OK\r\n") == 2
    assert data_of(gw, run) == ["1\n", "2\n", "3\n"]


def test_who_leaves_before_the_answer_stops_nobody(gw: EmbeddedGateway) -> None:
    """What was sent is stored, and the next one is answered."""
    run = gw.create_run()
    for number in range(1, 20):
        with open_socket(gw.port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(request_of(gw, run, number))
            if number % 2:
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    with open_socket(gw.port) as sock:
        sock.sendall(request_of(gw, run, 20))
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")

    stored = {int(text) for text in data_of(gw, run)}
    assert stored >= {*range(1, 20, 2), 20}


def test_a_replay_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    """Byte for byte the same request, in the same second or after a restart: stored once."""
    with EmbeddedGateway(tmp_path) as gw:
        run = gw.create_run()
        body = b'{"type":"info","data":"x","sequence":0}'
        headers = gw.sign("POST", EVENT, body, run)
        assert gw.request("POST", EVENT, body, headers).status == 200
        assert gw.request("POST", EVENT, body, headers).status == 401
        gw.stop()
        gw.start()

        answer = gw.request("POST", EVENT, body, headers)

        assert (answer.status, answer.error) == (401, "Nonce already used (replay attack detected)")
        assert data_of(gw, run) == ["x"]


def test_the_signature_covers_the_path_as_sent(gw: EmbeddedGateway) -> None:
    """The query is not signed, an escaped path is signed as it is."""
    run = gw.create_run()
    escaped = f"/api/runs/{run.id.replace('_', '%5F')}/commands"

    assert gw.send("GET", escaped, run=run).json() == []


# --- the rate limit ------------------------------------------------------------------------------


def test_the_rate_limit_comes_first(tmp_path: Path) -> None:
    """Its headers count down; over it nothing is looked at, and the nonce stays good."""
    with EmbeddedGateway(tmp_path, rate_limit=5) as gw:
        run = gw.create_run()
        left = [
            gw.send_event(run, "info", "x", n).headers["x-ratelimit-remaining"] for n in range(1, 5)
        ]
        health = gw.request("GET", "/api/health")
        refused = gw.send_event(run, "info", "x", 9)

        assert left == ["4", "3", "2", "1"]
        assert health.headers["x-ratelimit-remaining"] == "0"
        assert refused.status == 429
        assert refused.json()["error"] == "Too Many Requests"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-limit"] == "5"
        assert len(gw.events(run)) == 4  # the page is not limited


# --- commands ------------------------------------------------------------------------------------


def test_a_command_is_listed_until_it_is_acknowledged(gw: EmbeddedGateway) -> None:
    """Oldest first, with whole seconds; the last acknowledgement counts."""
    run = gw.create_run()
    path = f"/api/runs/{run.id}/commands"
    ids = [
        gw.api("POST", f"/api/runs/{run.id}/{name}", {}).json()["id"] for name in ("stop", "halt")
    ]

    listed = gw.send("GET", path, run=run).json()
    assert [each["id"] for each in listed] == ids
    assert [each["command"] for each in listed] == ["__STOP__", "__HALT__"]
    assert all(type(each["created_at"]) is int for each in listed)
    assert gw.send("POST", f"{path}/{ids[0]}/ack", {"result": "first"}, run).json() == {"ok": True}
    assert gw.send("POST", f"{path}/{ids[0]}/ack", {"error": "last"}, run).status == 200

    assert [each["id"] for each in gw.send("GET", path, run=run).json()] == [ids[1]]
    first = gw.api("GET", f"/api/runs/{run.id}/history").json()["commands"][0]
    assert (first["status"], first["result"], first["error"]) == ("failed", None, "last")
    assert gw.send("POST", f"{path}/nobody/ack", {"result": "x"}, run).status == 200
    assert gw.send("POST", f"{path}/{ids[1]}/ack", {"result": None}, run).status == 500
    assert gw.send("POST", f"{path}/{'c' * 51}/ack", {"result": "x"}, run).status == 400


# --- markers and the end-to-end check ------------------------------------------------------------


def test_markers_move_the_run(gw: EmbeddedGateway) -> None:
    """`started` tells what the page shows, `finished` ends the run."""
    run = gw.create_run()
    started = {
        "event": "started",
        "command": "claude 'x'",
        "workingDir": "/w",
        "runner": "claude",
        "mode": "interactive",
        "columns": 80,
        "lines": 24,
        "sessionId": "s1",
        "commands": ["pwd"],
        "remoteInput": True,
        "version": "1",
    }
    assert gw.run(run)["status"] == "pending"
    gw.send_marker(run, started, 1)
    gw.send_marker(run, {"event": "resized", "columns": 100, "lines": 30}, 2)
    gw.send_marker(run, {"event": "state", "state": "waiting"}, 3)
    gw.send_event(run, "assist", json.dumps({"type": "tmate", "url": "https://tmate.io/t/x"}), 4)
    running = gw.run(run)
    gw.send_marker(run, {"event": "finished", "exitCode": 3, "reason": "exited"}, 5)
    ended = gw.run(run)

    assert running["status"] == "running"
    assert (running["command_line"], running["working_dir"], running["mode"]) == (
        "claude 'x'",
        "/w",
        "interactive",
    )
    assert (running["columns"], running["lines"], running["state"]) == (100, 30, "waiting")
    assert (running["commands"], running["remote_input"]) == (["pwd"], True)
    assert running["assist_url"] == "https://tmate.io/t/x"
    assert (ended["status"], ended["exit_code"], ended["reason"]) == ("failed", 3, "exited")
    assert (ended["state"], ended["event_count"]) == (None, 5)


def test_a_marker_of_nonsense_breaks_nothing(gw: EmbeddedGateway) -> None:
    """A run controls its markers: wrong types are left out, and the run can still be shown."""
    run = gw.create_run()
    nonsense: dict[str, Any] = {
        "event": "started",
        "command": 7,
        "columns": True,
        "lines": 10**30,
        "commands": [1, "pwd", None],
        "remoteInput": "yes",
        "mode": {"a": []},
    }
    others: list[dict[str, Any]] = [
        {"event": "state", "state": 5},
        {"event": []},
        {"event": "finished"},
    ]
    for marker in (nonsense, *others):
        assert gw.send_marker(run, marker).status == 200
    assert gw.send_event(run, "marker", "5").status == 200
    assert gw.send_event(run, "assist", "no JSON").status == 200

    shown = gw.run(run)
    assert (shown["commands"], shown["columns"], shown["remote_input"]) == (["pwd"], None, False)
    assert (shown["status"], shown["exit_code"]) == ("failed", None)


def strict(text: bytes) -> Any:
    """Parse JSON as a browser does, which knows neither NaN nor Infinity."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("marker", "name", "shown"),
    [
        ('{"event":"started","columns":2147483648,"lines":2147483648}', "columns", 1000),
        ('{"event":"started","columns":80,"lines":2147483648}', "lines", 300),
        ('{"event":"started","columns":-5,"lines":0}', "columns", None),
        ('{"event":"started","columns":1e999,"lines":24}', "columns", None),
        ('{"event":"resized","columns":99999999999999999999,"lines":24}', "columns", 1000),
        ('{"event":"started","workingDir":{"toString":0}}', "working_dir", None),
        ('{"event":"started","version":[[[1]]],"mode":7}', "version", None),
        ('{"event":"finished","exitCode":1e999,"reason":{"a":1}}', "reason", None),
        ('{"event":"finished","exitCode":99999999999999999999}', "exit_code", None),
        ('{"event":"finished","exitCode":true}', "exit_code", None),
        (
            '{"event":"finished","result":{"cost":1e999,"turns":-1e999,"a":NUMBER,"b":1.5}}',
            "result",
            {"b": 1.5},
        ),
        (
            '{"event":"finished","result":{"a":{"b":1},"c":[1,"x",[2],{"d":3},null],"e":null}}',
            "result",
            {"c": [1, "x"], "e": None},
        ),
        ('{"event":"finished","result":"text"}', "result", None),
        (
            '{"event":"finished","result":{"deep":' + "[" * 300 + "]" * 300 + "}}",
            "result",
            {"deep": []},
        ),
    ],
)
def test_a_value_of_any_type_can_be_shown(
    gw: EmbeddedGateway, marker: str, name: str, shown: object
) -> None:
    """Sizes and numbers are clamped, and what is of another type is left out."""
    run = gw.create_run()

    assert gw.send_event(run, "marker", marker.replace("NUMBER", "9" * 400)).status == 200

    body = gw.api("GET", f"/api/runs/{run.id}").body
    assert strict(body)[name] == shown
    assert strict(gw.api("GET", "/api/runs").body)["runs"][0]["id"] == run.id


def test_long_texts_of_markers_are_cut(gw: EmbeddedGateway) -> None:
    """The list of runs has them all in it, and stays small."""
    run = gw.create_run()
    names = ("command", "workingDir", "runner", "mode", "sessionId", "version")
    long = "x" * 10_000
    offered = ["", "c" * 1_001, *(f"command {number}" for number in range(30_000))]

    gw.send_marker(run, {"event": "started", **dict.fromkeys(names, long), "commands": offered})
    gw.send_event(run, "assist", json.dumps({"url": f"https://tmate.example/{long}"}))
    result = {f"{number} {long}": long for number in range(30)}
    gw.send_marker(run, {"event": "finished", "reason": long, "result": result, "events": long})

    answer = gw.api("GET", f"/api/runs/{run.id}")
    assert len(answer.body) < 150_000
    shown = answer.json()
    assert shown["commands"] == offered[2:202]
    assert shown["working_dir"] == "x" * 4_095 + "…"
    assert shown["reason"] == "x" * 999 + "…"
    assert shown["assist_url"] is None
    assert max(map(len, shown["verdict"]["differences"])) < 200


def test_a_number_of_many_digits_is_refused(gw: EmbeddedGateway) -> None:
    """Old Pythons would need minutes for it."""
    run = gw.create_run()

    assert gw.send_event(run, "marker", f'{{"event":{"9" * 1_000_000}}}').status == 500
    body = f'{{"type":"info","data":"x","sequence":{"1" * 60_000}}}'.encode()
    headers = gw.sign("POST", EVENT, body, run)
    assert gw.request("POST", EVENT, body, headers).status == 400
    assert gw.run(run)["event_count"] == 0


def test_a_huge_result_is_cut_where_it_is_shown(gw: EmbeddedGateway) -> None:
    """The wire takes ten megabytes; the history, of which a browser shows all, gives less."""
    run = gw.create_run()
    queued = gw.api("POST", f"/api/runs/{run.id}/stop", {}).json()["id"]

    path = f"/api/runs/{run.id}/commands/{queued}/ack"
    assert gw.send("POST", path, {"result": "r" * 1_000_000}, run).status == 200

    (entry,) = gw.api("GET", f"/api/runs/{run.id}/history").json()["commands"]
    assert entry["result"] == "r" * 200_000 + "\n… (800000 more characters)\n"


def test_the_verdict_compares_what_was_sent(gw: EmbeddedGateway) -> None:
    """The check covers the numbered events as sent, also those that are redacted here."""
    secret = "ghp_" + "aB3" * 12
    events = ["one\n", f"token {secret}\n", "drei ✓\n"]
    good, bad = gw.create_run(), gw.create_run()
    for run, sent in ((good, events), (bad, events[:2])):
        for number, data in enumerate(sent, 1):
            gw.send_event(run, "stdout", data, number)
        gw.send_event(run, "info", "not numbered", 0)
        gw.send_marker(run, finished(events), 9)

    assert gw.run(good)["verdict"]["ok"] is True
    verdict = gw.run(bad)["verdict"]
    assert verdict["ok"] is False
    assert [each.partition(":")[0] for each in verdict["differences"]] == [
        "events",
        "bytes",
        "sha256",
    ]


@pytest.mark.parametrize(
    ("lost_bytes", "sentence"),
    [
        (4_096, "4096 bytes of output are missing: the runner's disk was full. All 2 events were"),
        (None, "Output may be missing: the runner's disk was full. All 2 events were received as"),
        (["<b>"], "Output may be missing: the runner's disk was full. All 2 events"),
    ],
)
def test_the_verdict_on_a_run_that_lacks_output(
    lost_bytes: Any, sentence: str, gw: EmbeddedGateway
) -> None:
    """What was never sent cannot differ, and is incomplete all the same."""
    run = gw.create_run()
    events = ["one\n", "two\n"]
    for number, data in enumerate(events, 1):
        gw.send_event(run, "stdout", data, number)
    gw.send_marker(run, {**finished(events), "whole": False, "lostBytes": lost_bytes}, 3)

    verdict = gw.run(run)["verdict"]

    assert (verdict["ok"], verdict["differences"]) == (False, [])
    assert verdict["sentence"].startswith(sentence)


def test_the_verdict_on_a_digest_that_nobody_knows(gw: EmbeddedGateway) -> None:
    """The number and the size are compared all the same, and the sentence says what was not."""
    good, bad = gw.create_run(), gw.create_run()
    for run, sent in ((good, ["one\n", "two\n"]), (bad, ["one\n", "two"])):
        for number, data in enumerate(sent, 1):
            gw.send_event(run, "stdout", data, number)
        gw.send_marker(run, {**finished(["one\n", "two\n"]), "sha256": None}, 3)

    verdict = gw.run(good)["verdict"]
    assert (verdict["ok"], verdict["differences"]) == (None, [])
    assert "the runner had no disk for a while" in verdict["sentence"]
    verdict = gw.run(bad)["verdict"]
    assert (verdict["ok"], len(verdict["differences"])) == (False, 1)


@pytest.mark.parametrize("is_redacted", [False, True])
def test_the_verdict_after_a_restart(tmp_path: Path, is_redacted: bool) -> None:
    """The digest is made anew from what is stored, unless that is not what was sent."""
    events = ["one\n", "ghp_" + "aB3" * 12 if is_redacted else "two"]
    with EmbeddedGateway(tmp_path) as gw:
        run = gw.create_run()
        for number, data in enumerate(events, 1):
            gw.send_event(run, "stdout", data, number)
        gw.stop()
        gw.start()
        gw.send_event(run, "stdout", "three", 3)
        gw.send_marker(run, finished([*events, "three"]), 4)

        verdict = gw.run(run)["verdict"]

    assert verdict["ok"] is (None if is_redacted else True)
    assert verdict["differences"] == []


# --- redaction -----------------------------------------------------------------------------------


def test_everything_that_comes_in_is_redacted_again(gw: EmbeddedGateway) -> None:
    """Events, markers, results and files; JSON stays JSON."""
    secret = "ghp_" + "aB3" * 12
    run = gw.create_run()
    gw.send_event(run, "stdout", f"a {secret} b", 1)
    marker = {"event": "started", "command": f"use token={secret}", "workingDir": "/w"}
    gw.send_marker(run, marker, 2)
    gw.send_event(run, "assist", json.dumps({"url": f"https://x/?token={secret}"}), 3)
    command = gw.api("POST", f"/api/runs/{run.id}/stop", {}).json()["id"]
    gw.send("POST", f"/api/runs/{run.id}/commands/{command}/ack", {"result": secret}, run)
    uploaded = gw.send_artifact(run, "log.txt", b"x\n" * 35_000 + secret.encode() + b"\n")

    texts = data_of(gw, run)
    assert json.loads(texts[1])["workingDir"] == "/w"
    everything = [*texts, json.dumps(gw.run(run))]
    everything.append(gw.api("GET", f"/api/runs/{run.id}/history").body.decode())
    everything.append(
        gw.api("GET", f"/api/artifacts/{uploaded.json()['artifactId']}").body.decode()
    )
    assert secret not in "".join(everything)
    stored = b"".join(p.read_bytes() for p in gw.data_dir.rglob("*") if p.is_file())
    assert secret.encode() not in stored


def test_the_gateways_own_secrets_are_redacted(gw: EmbeddedGateway) -> None:
    """The admin token and the HMAC secret never show up on the page."""
    run = gw.create_run()

    gw.send_event(run, "stdout", f"{gw.admin_token} {gw.secret}", 1)

    assert data_of(gw, run) == ["[REDACTED] [REDACTED]"]


# --- artifacts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept", "kind"),
    [
        ("claude.log", "claude.log", "text"),
        ("latest.diff", "latest.diff", "diff"),
        ("a.patch", "a.patch", "diff"),
        ("r.json", "r.json", "json"),
        ("n.MD", "n.MD", "markdown"),
        ("../../../etc/passwd", "passwd", "file"),
        ("..\\\\..\\\\x.txt", "x.txt", "text"),
        ("<img src=x>.html", "_img_src_x_.html", "file"),
        ("..", "..", "file"),
        ("a b;ü.txt", "a_b__.txt", "text"),
    ],
)
def test_an_artifact_is_kept_under_a_harmless_name(
    gw: EmbeddedGateway, name: str, kept: str, kind: str
) -> None:
    """Its name never becomes a path, and it comes back byte for byte, never as HTML."""
    run = gw.create_run()
    data = bytes(range(256)) * 400

    uploaded = gw.send_artifact(run, name, data)

    assert uploaded.status == 200, uploaded
    assert (uploaded.json()["name"], uploaded.json()["size"]) == (kept, len(data))
    (listed,) = gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
    assert (listed["id"], listed["type"]) == (uploaded.json()["artifactId"], kind)
    download = gw.api("GET", f"/api/artifacts/{listed['id']}")
    assert download.body == data
    assert download.headers["content-disposition"].startswith("attachment")
    assert download.headers["x-content-type-options"] == "nosniff"
    assert download.headers["content-type"].partition(";")[0] in (
        "text/plain",
        "application/octet-stream",
    )
    inside = gw.data_dir / "gateway" / "artifacts" / run.id
    assert [path.name for path in inside.iterdir()] == [listed["id"]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\n",
        b"--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--',
    ],
)
def test_an_upload_without_a_file_is_refused(gw: EmbeddedGateway, body: bytes) -> None:
    """400, and nothing is left behind."""
    run = gw.create_run()
    kind = "multipart/form-data; boundary=x"

    answer = gw.request(
        "POST", ARTIFACT, body, gw.sign("POST", ARTIFACT, run=run, content_type=kind)
    )

    assert answer.status == 400
    assert gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"] == []
    assert_no_files(gw, run)


def fill_with_files(gw: EmbeddedGateway, run: Run, count: int, size_bytes: int) -> None:
    """Note files in the database that were never sent."""
    with closing(sqlite3.connect(gw.database_file, timeout=30)) as database:
        database.executemany(
            "INSERT INTO artifacts (id, run_id, name, type, size, created_at)"
            " VALUES (?, ?, 'x', 'file', ?, 0)",
            [(f"art_{run.id}_{number}", run.id, size_bytes) for number in range(count)],
        )
        database.commit()


@pytest.mark.parametrize(
    ("count", "size_bytes", "reason"),
    [
        (MAX_RUN_FILES - 1, 0, f"This run has {MAX_RUN_FILES} files already"),
        (1, MAX_RUN_FILE_BYTES - 100, f"more than {MAX_RUN_FILE_BYTES} bytes of files"),
    ],
    ids=["too many", "too large together"],
)
def test_what_one_run_may_upload_is_bounded(
    gw: EmbeddedGateway, count: int, size_bytes: int, reason: str
) -> None:
    """The file that still fits is taken, the next one refused with 400 and not kept; other runs
    have room, and the run goes on.
    """
    run, other = gw.create_run(), gw.create_run()
    fill_with_files(gw, run, count, size_bytes)

    taken = gw.send_artifact(run, "a.txt", b"x" * 100)
    refused = gw.send_artifact(run, "b.txt", b"x" * 100)

    assert taken.status == 200
    assert refused.status == 400
    assert reason in refused.error
    folder = gw.data_dir / "gateway" / "artifacts" / run.id
    assert [path.name for path in folder.iterdir()] == [taken.json()["artifactId"]]
    assert gw.send_artifact(other, "c.txt", b"x" * 100).status == 200
    assert gw.send_marker(run, {"event": "finished", "exitCode": 0}).status == 200
    assert gw.run(run)["status"] == "done"


def test_changes_replace_those_before(gw: EmbeddedGateway) -> None:
    """A new `changes.diff` removes the one before, parts and files included; of this run alone."""
    run, other = gw.create_run(), gw.create_run()
    for name in ("changes.diff", "changes.2.diff", "latest.diff", "changes.md"):
        gw.send_artifact(run, name, name.encode())
    gw.send_artifact(other, "changes.diff", b"another run's")
    fill_with_files(gw, run, MAX_RUN_FILES - 4, 1)

    assert gw.send_artifact(run, "changes.diff", b"newer").status == 200

    listed = gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
    names = [each["name"] for each in listed if each["size"] != 1]
    assert names == ["latest.diff", "changes.md", "changes.diff"]
    folder = gw.data_dir / "gateway" / "artifacts" / run.id
    assert sorted(path.read_bytes() for path in folder.iterdir()) == [
        b"changes.md", b"latest.diff", b"newer"
    ]  # fmt: skip
    assert len(gw.api("GET", f"/api/runs/{other.id}/artifacts").json()["artifacts"]) == 1


def test_a_runner_ends_well_where_its_log_is_refused(tmp_path: Path) -> None:
    """It says which file is not there and why, and nothing else of the run is lost."""
    with EmbeddedGateway(tmp_path) as own:
        record = EmbeddedRecord(own)
        launch = plan(record, child("lines.py", "3", "0"), tmp_path)
        fill_with_files(own, launch.run, MAX_RUN_FILES, 0)
        with RunnerProcess(launch) as runner:
            assert runner.wait(60) == 0
            told = runner.stderr

        assert "claude.log is not uploaded: the gateway refused it (This run has" in told
        assert record.verify_finished(launch.run.id) == []
        assert record.text(launch.run.id).splitlines()[-1] == "LAST"
        assert own.run(launch.run)["verdict"]["ok"] is True


def test_a_file_that_announces_too_much_is_refused_early(gw: EmbeddedGateway) -> None:
    """413 before anything of it is sent."""
    run = gw.create_run()
    headers = gw.sign("POST", ARTIFACT, run=run, content_type="multipart/form-data; boundary=x")
    with open_socket(gw.port) as sock:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = [f"POST {ARTIFACT} HTTP/1.1", "Host: localhost", "Content-Length: 52428801", *lines]
        sock.sendall("\r\n".join([*head, "", ""]).encode())

        assert sock.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("path", "content_type", "size", "status"),
    [
        (EVENT, "application/json", 10 * 1024 * 1024 + 1, 413),
        (ARTIFACT, "multipart/form-data; boundary=x", 52_428_801, 413),
        (ARTIFACT, "multipart/form-data; boundary=x", 40_000_000, 401),
        (EVENT, "text/plain", 9_000_000, 415),
        (EVENT, "text/plain", 900_000, 415),
    ],
)
def test_who_writes_first_and_reads_later_gets_the_answer(
    gw: EmbeddedGateway, path: str, content_type: str, size: int, status: int
) -> None:
    """A refusal before the body was read reaches a client that sends all of it, and nothing of the
    body is kept in memory.
    """
    with open_socket(gw.port) as sock:
        head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}"]
        sock.sendall("\r\n".join([*head, f"Content-Length: {size}", "", ""]).encode())
        try:
            for _ in range(size // 65_536):
                sock.sendall(bytes(65_536))
            sock.sendall(bytes(size % 65_536))
        except OSError:
            pass  # after the gateway has waited for a while

        assert sock.recv(4096).startswith(f"HTTP/1.1 {status}".encode())


def send_chunked(gw: EmbeddedGateway, path: str, headers: dict[str, str], chunks: Any) -> bytes:
    """Send a chunked body until it is taken or refused; return the reply."""
    with open_socket(gw.port) as sock:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = [f"POST {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", *lines]
        sock.sendall("\r\n".join([*head, "", ""]).encode())
        try:
            for chunk in chunks:
                sock.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            sock.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # refused before its end
        return sock.recv(4096)


def test_a_chunked_body_is_taken(gw: EmbeddedGateway) -> None:
    """However it is cut."""
    run = gw.create_run()
    body = json.dumps({"type": "stdout", "data": "chunks " * 10_000, "sequence": 1}).encode()
    chunks = [body[:1], body[1:30_000], body[30_000:]]

    assert send_chunked(gw, EVENT, gw.sign("POST", EVENT, body, run), chunks).startswith(
        b"HTTP/1.1 200"
    )
    content_type, upload = multipart("c.txt", b"some text" * 1000)
    headers = gw.sign("POST", ARTIFACT, run=run, content_type=content_type)
    assert send_chunked(gw, ARTIFACT, headers, [upload[:99], upload[99:]]).startswith(
        b"HTTP/1.1 200"
    )
    assert data_of(gw, run) == ["chunks " * 10_000]


def test_a_chunked_body_over_the_limit_is_refused_and_never_cut(gw: EmbeddedGateway) -> None:
    """413 for an event over 10 MiB and for a file over 50 MiB; nothing is kept of either."""
    run = gw.create_run()
    megabyte = b"x" * 1_048_576

    event = send_chunked(gw, EVENT, gw.sign("POST", EVENT, b"", run), [megabyte] * 12)
    content_type, upload = multipart("c.txt", b"")
    headers = gw.sign("POST", ARTIFACT, run=run, content_type=content_type)
    cut = upload.index(b"\r\n\r\n") + 4
    pieces = [upload[:cut], *([megabyte] * 51), upload[cut:]]
    artifact = send_chunked(gw, ARTIFACT, headers, pieces)

    assert event.startswith(b"HTTP/1.1 413")
    assert artifact.startswith(b"HTTP/1.1 413")
    assert gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"] == []
    eventually(lambda: assert_no_files(gw, run))


def assert_no_files(gw: EmbeddedGateway, run: Run) -> None:
    """Nothing of an upload is left in the run's folder."""
    folder = gw.data_dir / "gateway" / "artifacts" / run.id
    assert not folder.exists() or not list(folder.iterdir())


def test_an_upload_that_breaks_off_leaves_nothing(gw: EmbeddedGateway) -> None:
    """The connection ends in the middle: no artifact, no file."""
    run = gw.create_run()
    content_type, upload = multipart("c.txt", b"x" * 200_000)
    headers = gw.sign("POST", ARTIFACT, run=run, content_type=content_type)
    with open_socket(gw.port) as sock:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = [f"POST {ARTIFACT} HTTP/1.1", "Host: localhost", f"Content-Length: {len(upload)}"]
        sock.sendall("\r\n".join([*head, *lines, "", ""]).encode() + upload[:100_000])

    eventually(lambda: assert_no_files(gw, run))
    assert gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"] == []
