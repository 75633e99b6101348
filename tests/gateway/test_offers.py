"""Folders that wait for runs: who may offer, who may send, and that each run is handed out once."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.admission import Admitted, hash_token
from gateway.offers.orders import Orders, Wish
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.gateways.embedded_store import OpenStore
from testing.gateways.gateway_records import Run
from testing.gateways.waiting_folder import WaitingFolder
from testing.waiting import eventually


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """One gateway for all: each test has folders of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def folder(gw: EmbeddedGateway) -> WaitingFolder:
    """A folder that the operator has let in."""
    return WaitingFolder(gw).begin()


def shown(gw: EmbeddedGateway) -> dict[str, Any]:
    """Return the folders that the page shows, by their ids."""
    offers = gw.api("GET", "/api/offers").json()["offers"]
    return {each["id"]: each for each in offers}


# --- who may offer -------------------------------------------------------------------------------


def test_a_folder_is_let_in_by_the_code_of_its_terminal(gw: EmbeddedGateway) -> None:
    """Until then the page shows that one waits, and nothing about it; and nothing can be sent."""
    folder = WaitingFolder(gw, "shop")
    before = gw.api("GET", "/api/offers").json()["unpaired"]
    code = folder.ask(begins=True, machine="laptop")["code"]
    assert gw.api("GET", "/api/offers").json()["unpaired"] == before + 1
    assert folder.id not in shown(gw)
    assert folder.order().status == 409

    assert gw.api("POST", "/api/offers/pair", {"code": "WRONG1"}).status == 404
    typed = f" {code[:3].lower()}-{code[3:].lower()} "
    offer = gw.api("POST", "/api/offers/pair", {"code": typed}).json()

    assert (offer["name"], offer["machine"]) == ("shop", "laptop")
    assert shown(gw)[folder.id]["name"] == "shop"
    assert folder.ask()["code"] is None
    # It is known by its key, so the next process of it needs no code.
    assert WaitingFolder(gw, "shop", folder.key).ask(begins=True)["code"] is None
    folder.ask(begins=True, leaves=True)


def test_a_folder_that_is_shut_out_needs_a_code_again(folder: WaitingFolder) -> None:
    """And what was queued for it is withdrawn."""
    gw = folder.gateway
    run_id = folder.order().json()["id"]

    assert gw.api("POST", f"/api/offers/{folder.id}/forget", {}).status == 200

    assert folder.order_of(run_id)["state"] == "withdrawn"
    answer = folder.ask()
    assert (answer["run"], len(answer["code"])) == (None, 6)
    assert folder.order().status == 409


def test_a_session_goes_on_in_a_folder_that_can(gw: EmbeddedGateway) -> None:
    """One of an older release would begin a new session in silence, so it gets no such run."""
    old = gw.create_run()
    started = {"event": "started", "runner": "claude", "workingDir": "/srv/shop", "sessionId": "5e"}
    assert gw.send_marker(old, started, 1).status == 200
    folder = WaitingFolder(gw).begin(resumes=True)
    assert shown(gw)[folder.id]["resumes"]
    run_id = folder.order("and now?", resume=old.id).json()["id"]
    plain = folder.order("fix it").json()["id"]

    older = WaitingFolder(gw, key=folder.key)
    offered = older.ask(begins=True)["run"]

    assert (offered["id"], "resume" in offered) == (plain, False)
    order = folder.order_of(run_id)
    assert (order["state"], "update it" in order["reason"]) == ("refused", True)
    answer = folder.order("and now?", resume=old.id)
    assert (answer.status, "update it" in str(answer.error)) == (409, True)
    newer = WaitingFolder(gw, key=folder.key)
    newer.ask(begins=True, resumes=True)
    assert gw.api("POST", f"/api/runs/{plain}/withdraw", {}).status == 200
    assert gw.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 200
    offered = newer.ask(resumes=True)["run"]
    assert (offered["id"], offered["resume"], offered["folder"]) == (run_id, "5e", "/srv/shop")
    assert gw.api("GET", f"/api/runs/{run_id}").json()["working_dir"] == "/srv/shop"


def test_who_cannot_offer(gw: EmbeddedGateway, folder: WaitingFolder) -> None:
    """Without the secret; with a key that is not the id's; with a run's token; with a copy."""
    body = {"session": "s" * 16, "name": "shop"}
    run = gw.create_run()
    own_headers = gw.sign("POST", "/api/offers", b"{}", Run(folder.id, folder.key))

    def status(who: Run | None, **how: Any) -> int:
        return gw.send("POST", "/api/offers", body, who, **how).status

    assert status(Run(folder.id, folder.key), secret="another secret of the same length") == 401
    assert status(Run(folder.id, secrets.token_hex(32))) == 403
    assert status(run) == 403
    assert status(None) == 400
    assert gw.request("POST", "/api/offers", b"{}", own_headers).status == 400  # it says nothing
    assert gw.request("POST", "/api/offers", b"{}", own_headers).status == 401  # a copy
    # A folder's key opens no run, and no page.
    assert gw.send_event(Run(run.id, folder.key), "stdout", "x", 1).status == 403
    assert gw.send_event(Run(folder.id, folder.key), "stdout", "x", 1).status == 403
    bearer = {"Authorization": f"Bearer {folder.key}"}
    assert gw.request("GET", "/api/offers", headers=bearer).status == 401


@pytest.mark.parametrize(
    "said",
    [
        {"session": ""},
        {"session": "a b"},
        {"session": "s" * 65},
        {"name": ""},
        {"name": "two\nlines"},
        {"name": "n" * 61},
        {"modes": "plan"},
        {"modes": ["m"] * 11},
        {"modes": [1]},
        {"running": "../x"},
        {"ended": "yes"},
    ],
)
def test_what_a_folder_may_not_say(folder: WaitingFolder, said: dict[str, Any]) -> None:
    """It is refused, and the folder is shown as it was."""
    body = {"session": folder.session, "name": "shop", **said}

    assert folder.send("/api/offers", body).status == 400
    assert shown(folder.gateway)[folder.id]["name"] == "shop"


def test_many_strangers_leave_those_that_are_let_in_alone(tmp_path: Path) -> None:
    """Codes are given to the last fifty that asked; they take no place from a known folder."""
    with EmbeddedGateway(tmp_path) as own:
        known = WaitingFolder(own, "known").begin()
        for number in range(60):
            WaitingFolder(own, f"stranger {number}").ask(begins=True)

        assert list(shown(own)) == [known.id]
        assert own.api("GET", "/api/offers").json()["unpaired"] <= 50


# --- who may send --------------------------------------------------------------------------------


def test_only_the_operator_sends(folder: WaitingFolder) -> None:
    """A wrong session, half of one, or another page's request sends nothing."""
    gw = folder.gateway
    path, body = f"/api/offers/{folder.id}/runs", b'{"key":"0123456789abcdef","prompt":"x"}'
    kind = {"Content-Type": "application/json"}
    session = gw.log_in()
    foreign = {**session, **kind, "Origin": "https://evil.example"}

    for headers in (
        {**kind, "Authorization": "Bearer wrong"},
        {**kind, "Cookie": session["Cookie"]},
        {**kind, "X-Page-Key": session["X-Page-Key"]},
    ):
        assert gw.request("POST", path, body, headers).status == 401
    assert gw.request("POST", path, body, foreign).status == 403
    assert folder.ask()["run"] is None

    ours = {**session, **kind, "Origin": f"http://127.0.0.1:{gw.port}"}
    assert gw.request("POST", path, body, ours).status == 202


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": "  "}, 400),
        ({"prompt": "-"}, 400),
        ({"prompt": "a\0b"}, 400),
        ({"prompt": "x" * 20_001}, 400),
        ({"key": "short"}, 400),
        ({"ask": "yes"}, 400),
        ({"mode": "bypassPermissions"}, 409),
        ({"mode": "plan", "ask": False}, 409),
        ({"mode": "plan", "ask": True}, 202),
        ({"ask": False}, 202),
        ({"arguments": ["--dangerously-skip-permissions"], "cwd": "/"}, 202),
    ],
)
def test_what_the_page_may_send(gw: EmbeddedGateway, fields: dict[str, Any], status: int) -> None:
    """A prompt, and what the owner allowed; what else it sends reaches nobody."""
    folder = WaitingFolder(gw).begin(modes=["plan", "default"], asks=True)

    assert folder.order(**fields).status == status

    run = folder.ask()["run"]
    assert (run is not None) == (status == 202)
    if run is not None:
        assert run.keys() == {"id", "handout", "prompt", "mode", "ask"}


def test_questions_need_the_owner(folder: WaitingFolder) -> None:
    """A folder whose owner has not allowed them is sent no run that asks, and none with a mode."""
    assert folder.order(ask=True).status == 409
    assert folder.order(mode="plan").status == 409
    assert folder.order().status == 202


def test_a_queue_has_an_end(folder: WaitingFolder) -> None:
    """Twenty runs wait for a folder at most; they are handed out in the order of their sending."""
    sent = [folder.order(f"number {number}").json()["id"] for number in range(20)]

    assert folder.order("one more").status == 409
    assert folder.order_of(sent[7])["ahead"] == 7
    assert shown(folder.gateway)[folder.id]["queued"] == 20
    taken = []
    while run := folder.ask()["run"]:
        assert folder.take(run)["taken"]
        taken.append(run["id"])
    assert taken == sent


def test_what_the_operator_does_is_noted(folder: WaitingFolder) -> None:
    """In the audit: letting in, sending, withdrawing; without the prompt."""
    gw = folder.gateway
    run_id = folder.order("the secret plan").json()["id"]
    gw.api("POST", f"/api/runs/{run_id}/withdraw", {})

    with closing(sqlite3.connect(gw.database_file)) as database:
        notes = database.execute("SELECT action, run_id, detail FROM audit").fetchall()
    assert ("let a folder in", None, "shop") in notes
    assert ("send to a folder", run_id, "shop") in notes
    assert ("withdraw from a folder", run_id, None) in notes
    assert not any("secret plan" in str(note) for note in notes)


# --- each run is handed out once -----------------------------------------------------------------


def test_a_waiting_folder_hears_of_a_run_at_once(folder: WaitingFolder) -> None:
    """The long poll is answered when something is sent; the run's token is the folder's own."""
    gw, heard = folder.gateway, []
    waiting = threading.Thread(target=lambda: heard.append(folder.ask(wait_s=20)["run"]))
    waiting.start()
    try:
        run_id = folder.order("fix the tests").json()["id"]
    finally:
        waiting.join(30)

    (run,) = heard
    assert (run["id"], run["prompt"], run["mode"], run["ask"]) == (
        *(run_id, "fix the tests"),
        *(None, None),
    )
    token = secrets.token_hex(32)
    assert gw.send_event(Run(run_id, token), "stdout", "x", 1).status == 403
    assert folder.take(run, token) == {"ok": True, "taken": True, "reason": ""}
    assert folder.order_of(run_id)["state"] == "starting"
    assert gw.send_marker(Run(run_id, token), {"event": "started"}, 1).status == 200
    assert folder.ask(running=run_id)["run"] is None
    assert folder.order_of(run_id)["state"] == "started"


def test_taking_again_is_the_same_and_nobody_else_can(folder: WaitingFolder) -> None:
    """A lost answer is asked for again; another token, process, folder or hand-out gets nothing."""
    gw = folder.gateway
    folder.order()
    run, token = folder.ask()["run"], secrets.token_hex(32)
    stranger = WaitingFolder(gw, "shop").begin()

    assert not stranger.take(run, token)["taken"]
    assert not folder.take({**run, "handout": 2}, token)["taken"]
    assert folder.take(run, token)["taken"]
    assert folder.take(run, token)["taken"]
    assert not folder.take(run, secrets.token_hex(32))["taken"]
    assert not WaitingFolder(gw, "shop", folder.key).take(run, token)["taken"]
    assert not stranger.take(run, token)["taken"]
    assert gw.send_event(Run(run["id"], token), "stdout", "x", 1).status == 200


def test_what_was_withdrawn_or_started_elsewhere_is_not_handed_out(folder: WaitingFolder) -> None:
    """Also if the folder has heard of it before."""
    gw = folder.gateway
    first = folder.order("first").json()["id"]
    run = folder.ask()["run"]
    assert gw.api("POST", f"/api/runs/{first}/withdraw", {}).json()["order"]["state"] == "withdrawn"
    refused = {"ok": True, "taken": False, "reason": "it is withdrawn already"}
    assert folder.take(run) == refused
    assert gw.api("POST", f"/api/runs/{first}/withdraw", {}).status == 409
    assert folder.ask()["run"] is None


def test_a_queued_run_that_is_stopped_does_not_begin(folder: WaitingFolder) -> None:
    """Stop means that nothing is to run, also before it runs."""
    run_id = folder.order().json()["id"]
    offered = folder.ask()["run"]
    assert folder.gateway.api("POST", f"/api/runs/{run_id}/stop", {}).status == 202
    assert folder.order_of(run_id)["state"] == "withdrawn"

    answer = folder.take(offered)

    assert (answer["taken"], answer["reason"]) == (False, "it was stopped before it began")
    assert folder.order_of(run_id)["state"] == "withdrawn"
    assert folder.ask()["run"] is None
    assert folder.gateway.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 200
    assert folder.take(folder.ask()["run"])["taken"]


def test_a_queued_run_that_is_deleted_is_not_handed_out(folder: WaitingFolder) -> None:
    """Neither to a folder that has heard of it, nor to one that asks."""
    run_id = folder.order("first", title="Its name").json()["id"]
    assert folder.gateway.api("GET", f"/api/runs/{run_id}").json()["title"] == "Its name"
    run = folder.ask()["run"]

    deleted = folder.gateway.api("POST", "/api/runs/delete", {"ids": [run_id]})

    assert deleted.json()["removed"] == [run_id]
    assert not folder.take(run)["taken"]
    assert folder.ask()["run"] is None
    assert folder.order_of(run_id) is None


def test_a_queued_run_whose_line_somebody_takes_is_not_handed_out(folder: WaitingFolder) -> None:
    """Or it would be started twice: here, and by whoever pastes the line."""
    gw = folder.gateway
    run_id = folder.order("first").json()["id"]
    run = folder.ask()["run"]

    made = gw.api("POST", f"/api/runs/{run_id}/start-line", {}).json()

    assert not folder.take(run)["taken"]
    assert folder.ask()["run"] is None
    pasted = Run(run_id, made["capabilityToken"])
    assert gw.send_event(pasted, "stdout", "x", 1).status == 200


def test_a_run_that_its_folder_starts_is_neither_deleted_nor_started_elsewhere(
    folder: WaitingFolder,
) -> None:
    """Until its first event comes, the gateway knows that from the folder alone."""
    gw = folder.gateway
    run_id = folder.order().json()["id"]
    token = secrets.token_hex(32)
    assert folder.take(folder.ask()["run"], token)["taken"]
    folder.ask(running=run_id)

    line = gw.api("POST", f"/api/runs/{run_id}/start-line", {})
    deleted = gw.api("POST", "/api/runs/delete", {"ids": [run_id]}).json()

    assert (line.status, line.error) == (409, "Its folder is starting this run now.")
    assert (deleted["removed"], deleted["refused"][0]["error"]) == ([], line.error)
    assert gw.send_event(Run(run_id, token), "stdout", "x", 1).status == 200
    # A folder that only says so is forgotten, and then the run can go.
    other = folder.order("other").json()["id"]
    assert folder.take(folder.ask()["run"])["taken"]
    assert gw.api("POST", f"/api/offers/{folder.id}/forget", {}).status == 200
    assert gw.api("POST", "/api/runs/delete", {"ids": [other]}).json()["removed"] == [other]


def test_a_folder_that_is_not_let_in_takes_nothing(folder: WaitingFolder) -> None:
    """Also what was queued for it at the moment in which the operator has shut it out."""
    folder.order()
    run = folder.ask()["run"]
    with closing(sqlite3.connect(folder.gateway.database_file, timeout=30)) as database, database:
        database.execute("DELETE FROM waiters WHERE id = ?", (folder.id,))

    answer = folder.take(run)

    assert (answer["taken"], answer["reason"]) == (False, "this folder is not let in any more")
    assert folder.order_of(run["id"])["state"] == "queued"


def test_what_was_taken_meanwhile_keeps_its_token(tmp_path: Path) -> None:
    """Somebody sends a run again that its folder takes in the same moment."""
    with OpenStore(tmp_path) as own:
        orders = Orders(own.engine, own.writer)
        orders.let_in("wait_1", "shop", "")
        adding = orders.adding("wait_1", "k" * 16, Wish("fix it", None, None))
        run_id, _ = own.store.create_run("fix it", None, also=adding)
        before = orders.find(run_id)
        assert before is not None
        assert orders.take(Admitted("wait_1", 1, 0.0), "s", run_id, 1, "t" * 32) is None

        assert not orders.queue_again(before)

        after = orders.find(run_id)
        assert after is not None
        assert (after.state, after.token_hash) == ("taken", hash_token("t" * 32))


def test_the_page_sends_once_however_often_it_asks(folder: WaitingFolder) -> None:
    """What it repeats, because the answer was lost, has the same key and is the same run."""
    key = secrets.token_hex(16)
    answers: list[str] = []
    sending = [
        threading.Thread(target=lambda: answers.append(folder.order(key=key).json()["id"]))
        for _ in range(4)
    ]
    for each in sending:
        each.start()
    for each in sending:
        each.join(30)

    assert len(answers) == 4
    assert len(set(answers)) == 1
    assert folder.take(folder.ask()["run"])["taken"]
    assert folder.ask()["run"] is None


def test_the_last_process_of_a_folder_counts(folder: WaitingFolder) -> None:
    """An earlier one is told that it was replaced, and gets no run any more."""
    second = WaitingFolder(folder.gateway, "shop", folder.key)
    heard: list[Any] = []
    waiting = threading.Thread(target=lambda: heard.append(folder.ask(wait_s=20)))
    waiting.start()
    try:
        # Until the first one waits, a word of the second is nothing new to it.
        eventually(lambda: _is_told(folder, second, heard))
    finally:
        waiting.join(30)

    assert heard[0]["replaced"]
    folder.order()
    assert folder.ask()["replaced"]
    assert second.ask()["run"] is not None
    assert not second.ask()["replaced"]


def _is_told(first: WaitingFolder, second: WaitingFolder, heard: list[Any]) -> None:
    second.ask(begins=True)
    assert heard, first.id


def test_what_did_not_begin_is_shown_and_sent_again_by_a_person(folder: WaitingFolder) -> None:
    """The old hand-out is dead then. What is known to have begun is not sent again."""
    gw = folder.gateway
    run_id = folder.order().json()["id"]
    run, token = folder.ask()["run"], secrets.token_hex(32)
    folder.take(run, token)
    assert gw.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 409  # it is starting
    # Killed, and started again: it says what it knows of what it took last.
    after = WaitingFolder(gw, "shop", folder.key)
    ended = {"run": run_id, "handout": 1, "exitCode": None, "began": False}
    assert after.ask(begins=True, ended=ended)["run"] is None
    order = after.order_of(run_id)
    assert (order["state"], order["may_send"], order["is_here"]) == ("failed", True, True)

    assert gw.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 200

    assert gw.send_event(Run(run_id, token), "stdout", "x", 1).status == 403
    assert not after.take(run, token)["taken"]
    again = after.ask()["run"]
    assert (again["id"], again["handout"]) == (run_id, 2)
    assert after.take(again, token)["taken"]
    after.ask(ended={"run": run_id, "handout": 2, "exitCode": 1, "began": True})
    order = after.order_of(run_id)
    assert (order["state"], order["exit_code"], order["may_send"]) == ("failed", 1, False)
    assert gw.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 409


def test_a_folder_may_refuse(folder: WaitingFolder) -> None:
    """The page is told why."""
    run_id = folder.order().json()["id"]
    ended = {"run": run_id, "handout": 1, "refused": "it was started here before"}

    assert folder.ask(ended=ended)["run"] is None

    order = folder.order_of(run_id)
    assert (order["state"], order["reason"]) == ("refused", "it was started here before")


def test_a_folder_that_leaves_is_gone_at_once(folder: WaitingFolder) -> None:
    """What is queued for it stays, is said to wait for one that has gone, and can be withdrawn."""
    gw = folder.gateway
    run_id = folder.order().json()["id"]

    assert folder.ask(leaves=True)["run"] is None

    assert folder.id not in shown(gw)
    order = folder.order_of(run_id)
    assert (order["state"], order["is_here"], order["folder"]) == ("queued", False, "shop")
    assert folder.order().status == 409
    back = WaitingFolder(gw, "shop", folder.key)
    assert back.ask(begins=True)["run"]["id"] == run_id
    assert gw.api("POST", f"/api/runs/{run_id}/withdraw", {}).status == 200
    assert back.ask()["run"] is None


def test_the_gateways_death_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """`kill -9` after each step: queued stays queued, taken stays taken, with the same token."""
    with EmbeddedGateway(tmp_path, "--port", str(free_port())) as own:

        def die() -> None:
            own.kill()
            own.start()

        folder = WaitingFolder(own).begin()
        key = secrets.token_hex(16)
        run_id = folder.order(key=key).json()["id"]
        die()
        run = folder.ask()["run"]  # let in as before, and no word that it begins anew
        assert run["id"] == run_id
        assert folder.order(key=key).json()["id"] == run_id
        token = secrets.token_hex(32)
        assert folder.take(run, token)["taken"]
        die()
        assert folder.order_of(run_id)["state"] == "taken"
        assert folder.ask()["run"] is None
        assert folder.take(run, token)["taken"]
        assert own.send_event(Run(run_id, token), "stdout", "x", 1).status == 200

        # The run and its order are stored in one transaction.
        def on_disk(statement: str) -> list[Any]:
            with closing(sqlite3.connect(own.database_file, timeout=30)) as database, database:
                return database.execute(statement).fetchall()

        on_disk("CREATE TRIGGER broken BEFORE INSERT ON orders BEGIN SELECT RAISE(ABORT, ''); END")
        other = secrets.token_hex(16)
        assert folder.order(key=other).status == 500
        die()
        assert on_disk("SELECT id FROM runs") == [(run_id,)]
        on_disk("DROP TRIGGER broken")
        assert folder.ask()["run"] is None
        new_id = folder.order(key=other).json()["id"]
        assert folder.ask()["run"]["id"] == new_id
