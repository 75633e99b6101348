"""People with tokens of their own: who is let in, what each may do and see, and who did what."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from config import RunnerError
from gateway import roles
from gateway.access import routes
from gateway.page.openapi import DOCUMENT
from gateway.page.parts import Parts
from gateway.page.site import build_site
from gateway.roles import Person, Role
from gateway.storage import schema
from gateway.storage.people import narrowed
from testing.gateways.embedded_gateway import EmbeddedGateway, Frame, session_of
from testing.gateways.embedded_store import OpenStore
from testing.gateways.member import Member, ends, follow
from testing.gateways.operator import asked_marker
from testing.gateways.waiting_folder import WaitingFolder
from testing.programs.runner import ROOT
from tools.people import people as people_command

CONTENT = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """One gateway for all tests that need none of their own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("people")) as gateway:
        yield gateway


def ours(gw: EmbeddedGateway) -> dict[str, str]:
    """Return what a browser sends of the gateway's own page."""
    return {"Origin": f"http://127.0.0.1:{gw.port}", **CONTENT}


def begin(member: Member, folder: str, **started: Any) -> str:
    """Let somebody's run begin in a folder; return its id."""
    run = member.create_run(command="fix it")
    marker = {"event": "started", "commands": ["pwd"], "workingDir": folder, **started}
    assert member.gateway.send_marker(run, marker, 1).status == 200
    return run.id


# --- the table of routes -------------------------------------------------------------------------


def test_a_route_without_a_role_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not start; and the table has no row for which there is no route."""
    site = build_site(cast(Parts, None))
    served = {
        f"{method} {routes_of(rule)}"
        for rule in site.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    streams = {"GET /api/stream", "GET /api/runs/{run_id}/stream", "GET /api/health"}
    assert set(routes.NEEDED) == served | streams

    monkeypatch.delitem(routes.NEEDED, "POST /api/runs/{run_id}/halt")
    with pytest.raises(RuntimeError, match=r"POST /api/runs/\{run_id\}/halt has no role"):
        build_site(cast(Parts, None))


def routes_of(rule: Any) -> str:
    """Return a route of Flask as the table has it."""
    return (
        str(rule).replace("<int:", "{").replace("<path:", "{").replace("<", "{").replace(">", "}")
    )


def test_the_description_says_the_role() -> None:
    """Of each operation that is not signed, and not for everybody."""
    for path, item in DOCUMENT["paths"].items():
        for method in item.keys() - {"parameters"}:
            role = routes.needed(method.upper(), path)
            is_for_people = role not in (None, Role.ANYONE)
            said = item[method].get("x-role")
            assert said == (role.word if role and is_for_people else None), (method, path)
            assert is_for_people or item[method].get("security") == []


# --- tokens --------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_says_who_it_is(gw: EmbeddedGateway) -> None:
    """In the list and in the database there is none; a name has one person."""
    ann = Member.add(gw, "ann@example.org", "operator", folders=["shop"])

    assert ann.api("GET", "/api/me").json() == {
        "name": "ann@example.org",
        "role": "operator",
        "signed_in": "token",
        "own": False,
        "folders": ["shop"],
    }
    (listed,) = [each for each in people(gw) if each["name"] == ann.name]
    assert (listed["role"], listed["until"], listed["sessions"]) == ("operator", None, 0)
    assert ann.token.encode() not in gw.database_file.read_bytes()
    assert ann.token not in json.dumps(people(gw))
    again = {"name": ann.name, "role": "viewer"}
    assert gw.api("POST", "/api/people", again).status == 409
    me = gw.api("GET", "/api/me").json()
    assert (me["name"], me["role"]) == (None, "admin")


def people(gw: EmbeddedGateway) -> list[dict[str, Any]]:
    """Return who has a token."""
    found: list[dict[str, Any]] = gw.api("GET", "/api/people").json()["people"]
    return found


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a b"},
        {"name": "a,b"},
        {"name": "../a"},
        {"name": ""},
        {"role": "owner"},
        {"role": "admin", "own": True},
        {"role": "admin", "folders": ["/srv"]},
        {"folders": [""]},
        {"folders": ["a\nb"]},
        {"folders": "shop"},
        {"own": "yes"},
        {"until": 1},
        {"until": True},
        {"until": "tomorrow"},
    ],
)
def test_who_cannot_be_taken_in(gw: EmbeddedGateway, wrong: dict[str, Any]) -> None:
    """A name that would be another one elsewhere, or bounds that mean nothing."""
    answer = gw.api("POST", "/api/people", {"name": "zoe", "role": "viewer", **wrong})

    assert (answer.status, "zoe" in [each["name"] for each in people(gw)]) == (400, False)


def test_roles_are_kept(gw: EmbeddedGateway) -> None:
    """A viewer sees, an operator acts, an admin decides; all by token and by session alike."""
    viewer, operator = Member.add(gw, "vic", "viewer"), Member.add(gw, "olga", "operator")
    admin = Member.add(gw, "ada", "admin")
    run_id = begin(operator, "/srv/shop")
    tried = [
        ("GET", f"/api/runs/{run_id}", None),
        ("POST", f"/api/runs/{run_id}/stop", {}),
        ("POST", "/api/runs/delete", {"ids": ["run_0"]}),
    ]

    assert [
        [each.api(*request).status for request in tried] for each in (viewer, operator, admin)
    ] == [[200, 403, 403], [200, 202, 403], [200, 202, 200]]
    refused = viewer.api(*tried[1])
    assert refused.error == "This needs the role operator; yours is viewer."
    session = {**viewer.log_in(), **ours(gw)}
    assert gw.request("GET", f"/api/runs/{run_id}", headers=session).status == 200
    assert gw.request("POST", f"/api/runs/{run_id}/stop", b"{}", session).status == 403
    assert gw.request("HEAD", "/api/people", headers=session).status == 403
    assert gw.request("OPTIONS", f"/api/runs/{run_id}/stop", headers=session).body == b""


def test_a_token_ends(gw: EmbeddedGateway) -> None:
    """At its time the token, its sessions and an open stream end, and no code helps."""
    member = Member.add(gw, "tom", "admin", until=time.time() + 3)
    session = member.log_in()
    code = member.api("POST", "/api/login-codes", {}).json()["code"]
    with follow(gw, "/api/stream", session) as stream:
        assert stream.response.status == 200
        assert ends(stream)

    assert member.api("GET", "/api/me").status == 401
    assert gw.request("GET", "/api/me", headers=session).status == 401
    assert gw.request("GET", f"/login?code={code}").status == 401


def test_who_is_removed_has_lost_everything(gw: EmbeddedGateway) -> None:
    """Token, sessions, codes, links and streams; also when the same name comes back."""
    member = Member.add(gw, "rob", "admin")
    session, code = member.log_in(), member.api("POST", "/api/login-codes", {}).json()["code"]
    run_id = begin(member, "/srv/shop")
    by_token, by_session = member.follow("/api/stream"), follow(gw, "/api/stream", session)
    other = Member.add(gw, "rod", "operator")
    link = gw.request("POST", f"/api/runs/{run_id}/text/link", b"{}", {**session, **ours(gw)})
    address = link.json()["address"]
    cookie = {"Cookie": session["Cookie"]}
    assert gw.request("GET", address, headers=cookie).status == 200

    assert gw.api("POST", "/api/people/rob/remove", {}).status == 200

    assert ends(by_token)
    assert ends(by_session)
    back = Member.add(gw, "rob", "viewer")
    for headers in (member.headers, session):
        assert gw.request("GET", "/api/me", headers=headers).status == 401
    assert gw.request("GET", f"/login?code={code}").status == 401
    assert gw.request("GET", address, headers=cookie).status == 401
    assert back.api("GET", "/api/me").json()["role"] == "viewer"
    assert other.api("GET", "/api/me").status == 200
    assert gw.api("POST", "/api/people/nobody/remove", {}).status == 404


def test_sign_out_everywhere(gw: EmbeddedGateway) -> None:
    """All own sessions, also that of a code, and no others; an admin may do it to somebody."""
    ann, ben = Member.add(gw, "ann", "admin"), Member.add(gw, "ben", "viewer")
    code = ann.api("POST", "/api/login-codes", {}).json()["code"]
    sessions = [ann.log_in(), session_of(gw.request("GET", f"/login?code={code}"))]
    others = [ben.log_in(), gw.log_in()]
    named = [gw.request("GET", "/api/me", headers=each).json()["name"] for each in sessions]
    assert named == ["ann", "ann"]
    stream = follow(gw, "/api/stream", sessions[1])

    answer = gw.request("POST", "/api/me/sign-out", b"{}", {**sessions[0], **ours(gw)})

    assert answer.json() == {"ended": 2}
    assert ends(stream)
    assert [gw.request("GET", "/api/me", headers=each).status for each in sessions] == [401, 401]
    assert [gw.request("GET", "/api/me", headers=each).status for each in others] == [200, 200]
    assert ann.api("GET", "/api/me").status == 200  # the token stays good
    assert ben.api("POST", "/api/people/ann/sign-out", {}).status == 403
    assert ben.api("POST", "/api/login-codes", {}).status == 403
    assert gw.api("POST", "/api/people/ben/sign-out", {}).json() == {"ended": 1}
    assert gw.request("GET", "/api/me", headers=others[0]).status == 401


def test_a_session_is_never_the_one_that_was_shown(gw: EmbeddedGateway) -> None:
    """A login gives a new cookie, whatever cookie came with it, which stays worth nothing."""
    member = Member.add(gw, "fay", "viewer")
    planted = f"gateway-{gw.port}=planted-by-somebody"
    body = f"token={member.token}".encode()
    headers = {"Cookie": planted, "Content-Type": "application/x-www-form-urlencoded"}

    session = session_of(gw.request("POST", "/login", body, headers))

    assert session["Cookie"] != planted
    taken = {"Cookie": planted, "X-Page-Key": session["X-Page-Key"]}
    assert gw.request("GET", "/api/me", headers=taken).status == 401


# --- what is seen --------------------------------------------------------------------------------


def test_runs_of_others_are_not_there(gw: EmbeddedGateway) -> None:
    """Not by their ids, in lists, counts, filters, the search, streams, or as another's model."""
    ann = Member.add(gw, "ann.b", "operator", own=True)
    ben = Member.add(gw, "ben.b", "operator", own=True)
    hers, his = begin(ann, "/home/ann/shop"), begin(ben, "/home/ben/shop")
    missing = "run_0123456789abcdef"
    for path in ("/api/runs/{}", "/api/runs/{}/stream", "/api/runs/{}/order"):
        hidden, none = (ann.api("GET", path.format(each)) for each in (his, missing))
        assert (hidden.status, hidden.body) == (404, none.body)
    again = [ann.api("POST", "/api/runs", {"again": each}) for each in (his, missing)]
    assert [each.status for each in again] == [404, 404]
    shown = ann.api("GET", "/api/list").json()
    assert [line["id"] for group in shown["groups"] for line in group["runs"]] == [hers]
    assert (shown["counts"]["working"], shown["folders"]) == (1, ["/home/ann/shop"])
    assert [run["id"] for run in ann.api("GET", "/api/runs").json()["runs"]] == [hers]
    found = ann.api("GET", f"/api/list?q={his}").json()["groups"]
    assert [group["count"] for group in found] == [0, 0, 0, 0]
    assert ann.api("GET", "/api/runs?state=waiting").json()["runs"] == []
    everything = gw.api("GET", "/api/list").json()["counts"]["working"]
    assert everything >= 2


def test_a_stream_of_the_list_tells_of_own_runs(gw: EmbeddedGateway) -> None:
    """Of changes, notices and removals of others it says nothing."""
    ann = Member.add(gw, "ann.s", "operator", own=True)
    with ann.follow("/api/stream") as stream, gw.follow("/api/stream") as all_of_them:
        other = gw.create_run()
        gw.send_marker(other, {"event": "started"}, 1)
        gw.send_marker(other, {"event": "finished", "exitCode": 3}, 2)
        assert gw.api("POST", "/api/runs/delete", {"ids": [other.id]}).json()["removed"]
        hers = ann.create_run()
        gw.send_marker(hers, {"event": "started"}, 1)
        gw.send_marker(hers, {"event": "finished", "exitCode": 3}, 2)
        assert gw.api("POST", "/api/runs/delete", {"ids": [hers.id]}).json()["removed"]

        told: list[Frame] = []
        while not told or told[-1].name != "removed":
            frame = stream.next()
            assert frame is not None
            told.append(frame)
        assert other.id not in json.dumps([frame.data for frame in told])
        assert told[-1].data == {"ids": [hers.id]}
        assert all_of_them.take(1, "removed")[0].data == {"ids": [other.id]}


def test_folders_bound_what_is_seen(gw: EmbeddedGateway) -> None:
    """Runs in matching folders, whoever made them, own ones everywhere, and waiting folders."""
    member = Member.add(gw, "fred", "operator", folders=["/srv/mall*", "tools"])
    shop, tools, home = (
        begin(Member.admin(gw), each) for each in ("/srv/mall/a", "/x/tools", "/h")
    )
    own = begin(member, "/elsewhere")
    for name in ("tools", "secret"):
        WaitingFolder(gw, name).begin()

    listed = [run["id"] for run in member.api("GET", "/api/runs").json()["runs"]]
    assert (set(listed), home in listed) == ({shop, tools, own}, False)
    offers = member.api("GET", "/api/offers").json()["offers"]
    assert [each["name"] for each in offers] == ["tools"]
    hidden = next(e for e in gw.api("GET", "/api/offers").json()["offers"] if e["name"] == "secret")
    body = {"key": "k" * 20, "prompt": "x"}
    refused = [
        member.api("POST", f"/api/offers/{each}/runs", body) for each in (hidden["id"], "wait_0")
    ]
    assert [each.status for each in refused] == [404, 404]
    assert refused[0].body == refused[1].body
    sent = member.api("POST", f"/api/offers/{offers[0]['id']}/runs", body).json()["id"]
    assert member.api("GET", f"/api/runs/{sent}").json()["owner"] == "fred"
    taken = Member.add(gw, "greg", "operator", own=True)
    stolen = taken.api("POST", f"/api/offers/{offers[0]['id']}/runs", body)
    assert (stolen.status, sent in stolen.body.decode()) == (409, False)
    # With the folder, the run that waits for it would go.
    shut = taken.api("POST", f"/api/offers/{offers[0]['id']}/forget", {})
    assert (shut.status, shut.error) == (409, "Runs of others are queued for this folder.")
    assert member.api("GET", f"/api/runs/{sent}/order").json()["order"]["state"] == "queued"
    assert member.api("POST", f"/api/offers/{offers[0]['id']}/forget", {}).status == 200


PATTERNS = st.text(alphabet="ab/*?%_[]\\A", min_size=1, max_size=6)
PLACES = st.text(alphabet="ab/%_[]\\A\n", max_size=8)


def place_runs(opened: OpenStore, places: list[str]) -> None:
    """Have one run in each of these folders."""
    with opened.engine.begin() as connection:
        for table in (schema.runs, schema.summaries):
            connection.execute(table.delete())
        for number, place in enumerate(places, 1):
            run = {"number": number, "id": f"run_{number}", "token_hash": b"x" * 32}
            run.update(status="done", created_at=0.0, details="{}")
            connection.execute(insert(schema.runs), run)
            line = {"number": number, "stage": "done", "stage_at": 0.0, "incomplete": False}
            connection.execute(insert(schema.summaries), {**line, "working_dir": place})


def seen_in(opened: OpenStore, person: Person) -> list[str]:
    """Return the folders of the runs that the database shows to somebody."""
    query = select(schema.summaries.c.working_dir).join_from(
        schema.summaries, schema.runs, schema.summaries.c.number == schema.runs.c.number
    )
    with opened.engine.connect() as connection:
        rows = connection.execute(narrowed(query, person).order_by(schema.runs.c.number))
        return list(rows.scalars())


def test_the_database_sees_what_a_person_sees(tmp_path: Path) -> None:
    """Whatever a pattern has in it: the list and the streams show the same runs."""
    with OpenStore(tmp_path) as opened:

        @given(st.lists(PLACES, max_size=5), st.lists(PATTERNS, min_size=1, max_size=3))
        def check(places: list[str], patterns: list[str]) -> None:
            place_runs(opened, places)
            person = Person("x", Role.VIEWER, folders=tuple(patterns))
            assert seen_in(opened, person) == [each for each in places if person.sees(None, each)]

        check()


def test_patterns() -> None:
    """From the beginning of a path, or of any part of it."""
    found = {
        (pattern, path): roles.matches(pattern, path)
        for pattern in ("/srv/shop", "/srv/shop*", "shop", "*")
        for path in ("/srv/shop", "/srv/shop/a", "/srv/my-shop", "/home/shop", "")
    }

    assert [key for key, is_match in found.items() if is_match] == [
        ("/srv/shop", "/srv/shop"),
        ("/srv/shop*", "/srv/shop"),
        ("/srv/shop*", "/srv/shop/a"),
        ("shop", "/srv/shop"),
        ("shop", "/home/shop"),
        *[("*", path) for path in ("/srv/shop", "/srv/shop/a", "/srv/my-shop", "/home/shop", "")],
    ]


def test_what_a_viewer_looks_at_is_still_news(gw: EmbeddedGateway) -> None:
    """It is no operator's look: the end stays new, until somebody has seen it who can act."""
    viewer, operator = Member.add(gw, "lou", "viewer"), Member.add(gw, "lea", "operator")
    run = gw.create_run()
    gw.send_marker(run, {"event": "started"}, 1)
    gw.send_marker(run, {"event": "finished", "exitCode": 0}, 2)

    seen = [each.api("POST", f"/api/runs/{run.id}/seen", {}) for each in (viewer, operator)]

    assert [each.status for each in seen] == [200, 200]
    assert [each.json()["seen_at"] is None for each in seen] == [True, False]
    look = {"page": "p", "visible": True}
    assert viewer.api("POST", f"/api/runs/{run.id}/looks", look).status == 200


# --- who did it ----------------------------------------------------------------------------------


def test_the_audit_says_who(gw: EmbeddedGateway) -> None:
    """By name, and how they were signed in; for admins alone, a page at a time."""
    member = Member.add(gw, "aud", "operator")
    session = {**member.log_in(), **ours(gw)}
    run_id = begin(member, "/srv/shop")
    member.api("POST", f"/api/runs/{run_id}/stop", {})
    gw.request("POST", f"/api/runs/{run_id}/halt", b"{}", session)
    gw.api("POST", "/api/runs/delete", {"ids": [member.create_run().id]})
    gw.api("POST", "/api/people/aud/remove", {})

    entries = gw.api("GET", "/api/audit?person=aud").json()["entries"]
    told = [(each["action"], each["actor"]) for each in entries]
    assert told == [
        ("create", "token"),
        ("halt", "session"),
        ("stop", "token"),
        ("create", "token"),
        ("login", "token"),
    ]
    of_run = gw.api("GET", f"/api/audit?run={run_id}&limit=1").json()
    assert (of_run["entries"][0]["action"], of_run["next"] is not None) == ("halt", True)
    newest = gw.api("GET", "/api/audit?limit=2").json()["entries"]
    assert [(each["action"], each["person"], each["actor"]) for each in newest] == [
        ("remove a person", None, "token"),
        ("delete", None, "token"),
    ]
    assert Member.add(gw, "aud2", "operator").api("GET", "/api/audit").status == 403
    assert [each["person"] for each in gw.api("GET", f"/api/runs/{run_id}/history").json()[
        "commands"]] == ["aud", "aud"]  # fmt: skip


def test_an_answer_has_a_name(gw: EmbeddedGateway) -> None:
    """Of two who answered, the one whose answer was taken; with the admin token it has none."""
    ann, ben = Member.add(gw, "ann.q", "operator"), Member.add(gw, "ben.q", "operator")
    said = {}
    for who, late in ((ann, ben), (Member.admin(gw), ben)):
        run = who.create_run()
        started = {"event": "started", "remoteAnswers": True}
        gw.send_marker(run, started, 1)
        gw.send_marker(run, asked_marker("q1"), 2)
        path = f"/api/runs/{run.id}"
        card = who.api("GET", f"{path}/conversation").json()["open"][0]
        body = {"id": "q1", "digest": card["digest"], "decision": "allow"}
        commands = [each.api("POST", f"{path}/answer", body).json()["id"] for each in (who, late)]
        answered = {"event": "answered", "id": "q1", "decision": "allow", "by": "operator"}
        gw.send_marker(run, answered, 3)
        for command, outcome in zip(commands, ({"result": "Answered"}, {"error": "too late"})):
            gw.send("POST", f"{path}/commands/{command}/ack", outcome, run)
        (closed,) = gw.api("GET", f"{path}/conversation").json()["closed"]
        said[who.name] = closed["person"]

    assert said == {"ann.q": "ann.q", None: None}


def type_people(gw: EmbeddedGateway, *words: str, code: int = 0) -> str:
    """Type a command at the gateway's machine; return what it prints."""
    done = subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "claude_runner.py"), "gateway", "people", *words),
            *("--data-dir", str(gw.data_dir), "--env-file", str(gw.env_file)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_people_at_the_command_line(gw: EmbeddedGateway) -> None:
    """Somebody is taken in, listed and removed; what is wrong is said in a sentence."""
    bounds = ("--until", "2099-12-31", "--own", "--folders", "/srv/*", "--folders", "shop")

    # The name behind the options, where people write it too.
    *said, token = type_people(gw, "add", "--role", "viewer", *bounds, "clio").split("\n")[:-1]

    assert said == ["token for clio, who is viewer; it is shown this once:"]
    (line,) = [each for each in type_people(gw, "list").splitlines() if each.startswith("clio")]
    assert " viewer  , sees own runs, /srv/*, shop, until 2100-01-01 00:00" in line
    headers = {"Authorization": f"Bearer {token}"}
    assert gw.request("GET", "/api/me", headers=headers).json()["folders"] == ["/srv/*", "shop"]
    assert "clio has no token any more" in type_people(gw, "remove", "clio")
    assert gw.request("GET", "/api/me", headers=headers).status == 401
    assert "There is no person of that name." in type_people(gw, "remove", "clio", code=1)
    argv = [sys.executable, "-I", str(ROOT / "claude_runner.py"), "gateway", "--role", "viewer"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, "go with `gateway people add`" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["people", "add", "x"], "--role is missing: viewer, operator, admin"),
        (["people", "add"], "takes one name"),
        (["people", "list", "x"], "takes no name"),
        (["folks"], "there is no `gateway folks`; write `people add NAME"),
        (["people", "rename", "x"], "there is no `gateway people rename x`"),
    ],
)
def test_what_is_wrong_at_the_command_line(
    gw: EmbeddedGateway, words: list[str], sentence: str
) -> None:
    """It is said before anything is done."""
    options = Namespace(role=None, until=None, own=False, folders=[])
    with pytest.raises(RunnerError, match=re.escape(sentence)):
        people_command(words, options, gw.data_dir)
    options = Namespace(role="viewer", until="soon", own=False, folders=[])
    with pytest.raises(RunnerError, match="write a day"):
        people_command(["people", "add", "x"], options, gw.data_dir)


def test_one_person_is_asked_nothing(tmp_path: Path) -> None:
    """With the admin token alone all is as it was: no names, and every run is seen."""
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run("x")
        session = own.log_in()

        assert own.run(run)["owner"] is None
        assert own.request("GET", f"/api/runs/{run.id}", headers=session).status == 200
        assert people(own) == []
