"""Several gateways on one PostgreSQL: whichever of them a request comes to, it is the same."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text

from gateway.storage import schema
from testing.gateways.embedded_gateway import EmbeddedGateway, Frame, session_of
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.gateway_records import Run
from testing.gateways.member import Member, ends, follow
from testing.gateways.postgresql import Cluster, cluster, gateways_on, name_of_database
from testing.gateways.signing_client import Client
from testing.gateways.waiting_folder import WaitingFolder
from testing.waiting import eventually
from tests.gateway.test_crash import Sender, sending, wait_for_progress

RUNNERS = 20


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    """A PostgreSQL for the tests of this module."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def pair(
    database: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EmbeddedGateway, EmbeddedGateway]]:
    """Two gateways on one database, for tests that end neither."""
    folder = tmp_path_factory.mktemp("pair")
    one, other = gateways_on(database.make_database(), folder, 2)
    with one, other:
        yield one, other


def clients_of(pair: tuple[EmbeddedGateway, EmbeddedGateway], stack: ExitStack) -> list[Client]:
    """Return two clients of one run, each at one of the gateways."""
    run = pair[0].create_run()
    clients = [Client(EmbeddedRecord(each), run) for each in pair]
    for client in clients:
        stack.enter_context(closing(client))
    return clients


class Browser:
    """Follows a run, and comes back when its stream ends, with the last event that it had."""

    def __init__(self, gateway: EmbeddedGateway, run: Run) -> None:
        self._gateway = gateway
        self._path = f"/api/runs/{run.id}/stream"
        self._ids: list[int] = []
        self._stream = gateway.follow(self._path)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read_until(self, last_id: int) -> list[int]:
        """Return the ids of all events that were seen, when one of them is this."""
        while not self._ids or self._ids[-1] < last_id:
            frame = self._stream.next()
            if frame is None:
                self._stream.close()
                headers = {"Last-Event-ID": str(self._ids[-1])} if self._ids else {}
                self._stream = self._gateway.follow(self._path, headers)
            elif frame.id is not None:
                self._ids.append(frame.id)
        return self._ids


def test_no_replay_is_taken_by_the_other(pair: tuple[EmbeddedGateway, EmbeddedGateway]) -> None:
    """Whatever it is: an event, a poll, an acknowledgement, a file."""
    with ExitStack() as stack:
        here, there = clients_of(pair, stack)
        command = EmbeddedRecord(pair[0]).stop(here.run.id)
        ack = f"/api/runs/{here.run.id}/commands/{command}/ack"
        attempts = {
            "event": here.event_attempt("stdout", "hello\n", 1),
            "unnumbered": here.event_attempt("stdout", "hello\n", 0),
            "poll": here.sign("GET", f"/api/runs/{here.run.id}/commands"),
            "ack": here.sign("POST", ack, b'{"result": "/"}'),
            "file": here.upload_attempt("notes.md", b"# notes\n"),
        }

        first = {name: here.send(attempt).status for name, attempt in attempts.items()}
        copies = [there.send(attempt) for attempt in attempts.values()]

        assert first == dict.fromkeys(attempts, 200)
        for copy in copies:
            assert (copy.status, copy.json) == (
                401,
                {"error": "Nonce already used (replay attack detected)"},
            )
        assert [each["data"] for each in pair[1].events(here.run)] == ["hello\n"] * 2
        assert len(EmbeddedRecord(pair[1]).artifacts(here.run.id)) == 1


def test_a_repeated_event_is_known_to_the_other(
    pair: tuple[EmbeddedGateway, EmbeddedGateway],
) -> None:
    """Signed anew, as a runner does whose answer was lost: it gets the number that it has."""
    with ExitStack() as stack:
        here, there = clients_of(pair, stack)

        answers = [
            each.event("stdout", f"{number}\0\U0010fffd\n", number)
            for number in (1, 2, 3)
            for each in (here, there, here)
        ]

        numbers = [answer.json["eventId"] for answer in answers]
        assert numbers == [1, 1, 1, 2, 2, 2, 3, 3, 3]
        stored = [(each["id"], each["data"]) for each in pair[1].events(here.run)]
        assert stored == [(number, f"{number}\0\U0010fffd\n") for number in (1, 2, 3)]


def test_a_run_s_numbers_have_no_gaps(pair: tuple[EmbeddedGateway, EmbeddedGateway]) -> None:
    """However many send for it at once, and wherever: each event has the next number."""
    run = pair[0].create_run()
    each_sends = 40

    def send(number: int) -> list[int]:
        with closing(Client(EmbeddedRecord(pair[number % 2]), run)) as client:
            first = 1_000 * number
            answers = [
                client.event("stdout", f"{first + count}\n", first + count)
                for count in range(1, each_sends + 1)
            ]
            return [answer.json["eventId"] for answer in answers]

    with ThreadPoolExecutor(6) as threads:
        told = list(threads.map(send, range(6)))

    assert all(numbers == sorted(numbers) for numbers in told)
    everything = sorted(number for numbers in told for number in numbers)
    assert everything == list(range(1, 6 * each_sends + 1))
    stored = pair[1].events(run, "after=0&limit=500")
    assert [each["id"] for each in stored] == everything
    assert pair[1].run(run)["event_count"] == len(everything)


def test_a_viewer_sees_what_comes_to_the_other(
    pair: tuple[EmbeddedGateway, EmbeddedGateway],
) -> None:
    """Events in order, wherever they come to, and what became of the run and its commands."""
    with ExitStack() as stack:
        here, there = clients_of(pair, stack)
        record = EmbeddedRecord(pair[0])
        path = f"/api/runs/{here.run.id}/stream"
        stream = stack.enter_context(pair[1].follow(path))
        listed = stack.enter_context(pair[1].follow("/api/stream"))
        assert here.event("marker", '{"event": "started"}', 1).status == 200
        assert listed.take(1, "run")[0].data["id"] == here.run.id
        texts = [f"{number}\n" for number in range(2, 42)]
        for number, text_ in enumerate(texts, 2):
            client = (here, there)[number % 3 == 0]
            assert client.event("stdout", text_, number).status == 200
        seen: list[Frame] = []
        while not seen or seen[-1].id != len(texts) + 1:
            frame = stream.next()
            assert frame is not None
            seen.append(frame)

        assert {frame.data["status"] for frame in seen if frame.name == "run"} == {"running"}
        frames = [frame for frame in seen if frame.name == "event"]
        assert [frame.id for frame in frames] == list(range(1, len(texts) + 2))
        assert [frame.data["data"] for frame in frames[1:]] == texts
        command = record.stop(here.run.id)
        assert stream.take(1, "command")[0].data["id"] == command
        assert here.ack(command, {"result": "stopped"}).status == 200
        assert stream.take(1, "command")[0].data["result"] == "stopped"
        # A browser that comes back to the other gateway goes on where it was.
        headers = {"Last-Event-ID": str(frames[20].id)}
        with pair[0].follow(path, headers) as again:
            assert again.take(1)[0].id == frames[21].id


def test_what_was_told_to_nobody_is_seen(
    database: Cluster, pair: tuple[EmbeddedGateway, EmbeddedGateway]
) -> None:
    """The connections by which the gateways hear of each other end while somebody waits for news:
    a poll gets its stop, and a viewer all events.
    """
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        here, there = clients_of(pair, stack)
        began = time.monotonic()
        waiting = threads.submit(there.poll, "?wait=50")
        browser = stack.enter_context(Browser(pair[1], here.run))
        assert here.event("stdout", "1\n", 1).status == 200
        browser.read_until(1)
        database.end_connections(pair[0], "query LIKE '%pg_locks%' OR query LIKE '%pg_try_adv%'")
        for number in range(2, 6):
            assert here.event("stdout", f"{number}\n", number).status == 200
        command = EmbeddedRecord(pair[0]).stop(here.run.id)

        assert [each["id"] for each in waiting.result().json] == [command]
        assert time.monotonic() - began < 25
        assert browser.read_until(5) == [1, 2, 3, 4, 5]


def test_what_one_removes_is_gone_at_the_other(
    pair: tuple[EmbeddedGateway, EmbeddedGateway],
) -> None:
    """A run with its token, and a session with its streams."""
    one, other = pair
    with ExitStack() as stack:
        _, there = clients_of(pair, stack)
        assert there.event("marker", '{"event": "started"}', 1).status == 200
        assert there.event("marker", '{"event": "finished", "exitCode": 0}', 2).status == 200
        listed = stack.enter_context(other.follow("/api/stream"))
        assert one.api("POST", "/api/runs/delete", {"ids": [there.run.id]}).status == 200

        assert listed.take(1, "removed")[0].data == {"ids": [there.run.id]}
        assert other.api("GET", f"/api/runs/{there.run.id}").status == 404

        def is_refused() -> None:
            assert there.event("stdout", "x", 0).status == 403

        eventually(is_refused)

        session = one.log_in()
        alone = {**session, "Authorization": ""}
        stream = stack.enter_context(other.follow("/api/stream", alone))
        assert other.request("GET", "/api/runs", headers=session).status == 200  # and is believed
        began = time.monotonic()
        origin = {"Origin": f"http://127.0.0.1:{one.port}"}
        assert one.request("POST", "/logout", b"", {**session, **origin}).status == 303
        while stream.next() is not None:
            pass
        assert time.monotonic() - began < 12  # of the 15 s after which each viewer is looked at
        assert other.request("GET", "/api/runs", headers=session).status == 401


def test_a_run_has_no_more_files_than_it_may_have(
    database: Cluster, pair: tuple[EmbeddedGateway, EmbeddedGateway]
) -> None:
    """Of two that come at once, each to another gateway, there is room for one."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        clients = clients_of(pair, stack)
        run = clients[0].run
        database.execute(
            "INSERT INTO artifacts (id, run_id, name, type, size, created_at)"
            f" SELECT 'art_{run.id[4:16]}' || n, '{run.id}', n || '.txt', 'text', 1, 1700000000"
            " FROM generate_series(1, 999) n",
            name_of_database(pair[0]),
        )
        attempts = [each.upload_attempt(f"{n}.md", b"# x\n") for n, each in enumerate(clients)]
        answers = list(threads.map(Client.send, clients, attempts))

        assert sorted(each.status for each in answers) == [200, 400]
        assert len(pair[0].api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]) == 1_000


def test_a_stop_comes_to_the_poll_that_waits_at_the_other(
    pair: tuple[EmbeddedGateway, EmbeddedGateway],
) -> None:
    """Long before the poll would have ended."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        here, _ = clients_of(pair, stack)
        began = time.monotonic()
        waiting = threads.submit(here.poll, "?wait=50")
        command = EmbeddedRecord(pair[1]).stop(here.run.id)

        assert [each["id"] for each in waiting.result().json] == [command]
        assert time.monotonic() - began < 25


def test_what_runs_print_is_found_at_both(
    pair: tuple[EmbeddedGateway, EmbeddedGateway],
) -> None:
    """By words and their beginnings, as on SQLite; one behind the other where they are joined."""
    run = pair[0].create_run()
    pair[0].send_events(run, ["it prints \x1b[1mElder\x1b[31mberry\x1b[0m\x1b[5;1Hjam 京都\n"], 1)

    def found(query: str) -> bool:
        groups = pair[1].api("GET", f"/api/list?q={quote(query)}").json()["groups"]
        return [line["id"] for group in groups for line in group["runs"]] == [run.id]

    eventually(lambda: holds(found("elderb jam")))
    assert all(map(found, ("-elderberry *", "ELDERBERRY-jam", "京都", "it prin")))
    assert not any(map(found, ("berry", "el", "jam-elderberry", "elderberry x")))


def holds(condition: bool) -> None:
    """For `eventually`."""
    assert condition


def test_a_folder_waits_at_both(pair: tuple[EmbeddedGateway, EmbeddedGateway]) -> None:
    """It asks the one, and is let in, gets its run and is seen at the other."""
    folder = WaitingFolder(pair[0])
    elsewhere = WaitingFolder(pair[1], folder.name, folder.key)
    elsewhere.session = folder.session
    code = folder.ask(begins=True)["code"]
    assert elsewhere.ask()["code"] == code
    assert pair[1].api("POST", "/api/offers/pair", {"code": code}).status == 200
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(folder.ask, 20)
        sent = elsewhere.order().json()["id"]
        run = waiting.result()["run"]

    assert run["id"] == sent
    assert folder.take(run)["taken"]
    assert not elsewhere.take(run, "cd" * 32)["taken"]
    assert folder.order_of(sent)["state"] == elsewhere.order_of(sent)["state"] == "starting"
    (shown,) = pair[1].api("GET", "/api/offers").json()["offers"]
    assert (shown["id"], shown["running"]) == (folder.id, sent)


def test_people_are_the_same_at_the_other(pair: tuple[EmbeddedGateway, EmbeddedGateway]) -> None:
    """Tokens, sessions, codes and what each sees; who is removed at one has lost all at the other,
    an open stream too, within two of its polls.
    """
    one, other = pair
    ann = Member.add(one, "ann", "operator", own=True)
    there = replace(ann, gateway=other)
    run = there.create_run()
    for each in pair:
        hidden = each.create_run()
        assert [found["id"] for found in ann.api("GET", "/api/runs").json()["runs"]] == [run.id]
        answers = [there.api("GET", f"/api/runs/{one_of}") for one_of in (hidden.id, "run_0")]
        assert [answer.status for answer in answers] == [404, 404]
        assert answers[0].body == answers[1].body
    assert one.run(run)["owner"] == "ann"
    session = there.log_in()
    assert one.request("GET", "/api/me", headers=session).json()["name"] == "ann"
    ada = Member.add(one, "ada", "admin")
    code = ada.api("POST", "/api/login-codes", {}).json()["code"]
    hers = session_of(other.request("GET", f"/login?code={code}"))
    assert one.request("GET", "/api/me", headers=hers).json()["name"] == "ada"
    with (
        follow(other, "/api/stream", session) as by_session,
        there.follow("/api/stream") as by_token,
    ):
        assert other.request("GET", "/api/me", headers=session).status == 200
        assert one.api("POST", "/api/people/ann/remove", {}).status == 200
        removed_at = time.monotonic()
        assert ends(by_session)
        assert ends(by_token)
        assert time.monotonic() - removed_at < 10  # and not at the next look, after fifteen
    assert other.request("GET", "/api/me", headers=session).status == 401
    again = Member.add(other, "ann", "viewer", folders=["/srv/sh?p"])
    for each, folder in ((one, "/srv/shop"), (other, "/srv/SHOP"), (one, "/srv/other")):
        each.send_marker(each.create_run(), {"event": "started", "workingDir": folder}, 1)
    seen = [found["working_dir"] for found in again.api("GET", "/api/runs").json()["runs"]]
    assert seen == ["/srv/shop", None]  # the last one is her own, of the same name
    assert again.api("GET", "/api/list?q=srv").json()["counts"]["working"] == 1


def test_a_login_holds_at_the_other(pair: tuple[EmbeddedGateway, EmbeddedGateway]) -> None:
    """The admin token, a code, a session, a signed link, and the count of wrong tokens."""
    one, other = pair
    assert one.admin_token == other.admin_token
    code = one.api("POST", "/api/login-codes", {}).json()["code"]
    session = session_of(other.request("GET", f"/login?code={code}"))
    assert one.request("GET", "/api/runs", headers=session).status == 200
    # Used up for everybody, and known as this browser's own.
    assert one.request("GET", f"/login?code={code}").status == 401
    assert one.request("GET", f"/login?code={code}", headers=session).status == 303

    run = one.create_run()
    one.send_event(run, "stdout", "hello\n", 1)
    headers = {
        **session,
        "Content-Type": "application/json",
        "Origin": f"http://127.0.0.1:{one.port}",
    }
    link = one.request("POST", f"/api/runs/{run.id}/text/link", b"{}", headers).json()["address"]
    cookie = {"Cookie": session["Cookie"]}
    assert other.request("GET", link, headers=cookie).body == b"hello\n"

    wrong = {"Authorization": "Bearer wrong"}
    told = [pair[number % 2].request("GET", "/api/runs", headers=wrong) for number in range(11)]
    assert [answer.status for answer in told] == [401] * 9 + [429] * 2
    assert other.api("GET", "/api/runs").status == 200


def test_another_secret_is_refused_while_one_runs(database: Cluster, tmp_path: Path) -> None:
    """In a sentence; when nobody is there any more, it is the new one."""
    url = database.make_database()
    (one,), (other,) = (gateways_on(url, tmp_path / name, 1) for name in ("one", "other"))
    with one:
        done = subprocess.run(
            other.command(), env=other.environ, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == (
            "claude-runner: another gateway runs on this database with another HMAC_SECRET; give "
            "all gateways the same one, or end the others first\n"
        )
    with other:
        assert other.api("GET", "/api/runs").status == 200


def test_all_may_start_at_once(database: Cluster, tmp_path: Path) -> None:
    """On an empty database, whose tables one of them makes."""
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        gateways = gateways_on(database.make_database(), tmp_path, 3)
        for gateway in gateways:
            stack.callback(gateway.kill)
        list(threads.map(EmbeddedGateway.start, gateways))
        run = gateways[0].create_run()

        assert [gateway.send_event(run, "stdout", "x").json() for gateway in gateways] == [
            {"ok": True, "eventId": number} for number in (1, 2, 3)
        ]


def test_another_one_goes_on(database: Cluster, tmp_path: Path) -> None:
    """One is killed that has told nobody yet what it has done, and that had the chores: viewers of
    the other one read anew, and deleted runs go.
    """
    url = database.make_database()
    one, other = gateways_on(url, tmp_path, 2)
    with ExitStack() as stack:
        stack.enter_context(one)
        eventually(lambda: has_chores(database, one))
        stack.enter_context(other)
        gone, run = one.create_run(), one.create_run()
        browser = stack.enter_context(Browser(other, run))
        listed = stack.enter_context(other.follow("/api/stream"))
        assert one.send_event(run, "stdout", "1\n", 1).status == 200
        browser.read_until(1)
        # It would be told again half a second later.
        database.end_connections(one, "query LIKE '%pg_notify%'")
        new = one.create_run()
        assert one.send_event(run, "stdout", "2\n", 2).status == 200
        assert one.api("POST", "/api/runs/delete", {"ids": [gone.id]}).status == 200
        one.kill()

        while listed.next() is not None:
            pass  # a browser whose stream ends comes back, and asks for the list
        assert [each["id"] for each in other.api("GET", "/api/runs").json()["runs"]] == [
            *(new.id, run.id),
        ]
        assert browser.read_until(2) == [1, 2]

        def is_gone() -> None:
            assert database.read("SELECT count(*) FROM runs", other) == 2

        eventually(is_gone)
        # One that ends by itself has told everything: nobody has to read anew.
        one.start()
        last = stack.enter_context(other.follow("/api/stream"))
        assert one.send_event(run, "marker", '{"event": "started"}').status == 200
        assert last.take(1, "run")[0].data["id"] == run.id
        one.stop()
        assert other.send_marker(run, {"event": "finished", "exitCode": 0}).status == 200
        while last.take(1, "run")[0].data["status"] != "done":
            pass


def has_chores(database: Cluster, gateway: EmbeddedGateway) -> None:
    """Assert that some gateway has the lock of the chores."""
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert database.read(query, gateway) == 1


def test_one_is_killed_while_runners_send(database: Cluster, tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost or doubled, and the runners of the other go on.

    Half of the runners talk to each; those of the killed one wait until it is back.
    """
    stop = threading.Event()
    one, other = gateways_on(database.make_database(), tmp_path, 2)
    with one, other:
        records = [EmbeddedRecord(one), EmbeddedRecord(other)]
        senders = [
            Sender(records[number % 2], records[0].create_run(), stop) for number in range(RUNNERS)
        ]
        with sending(senders, stop):
            wait_for_progress(senders)
            records[1].pause()
            wait_for_progress(senders[::2])
            records[1].resume()
            wait_for_progress(senders)

        for sender in senders:
            assert sender.wrong == []
            assert records[0].text(sender.run_of.id) == "".join(sender.acknowledged)
            numbers = [each["id"] for each in one.events(sender.run_of)]
            assert numbers == list(range(1, len(numbers) + 1))


def test_the_database_is_restarted_while_runners_send(tmp_path: Path) -> None:
    """Nothing is lost or doubled, everybody goes on, and a stop comes at once afterwards."""
    stop = threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        database = stack.enter_context(cluster())
        one, other = gateways_on(database.make_database(), tmp_path, 2)
        stack.enter_context(one)
        stack.enter_context(other)
        records = [EmbeddedRecord(one), EmbeddedRecord(other)]
        runs = [records[0].create_run() for _ in range(8)]
        senders = [Sender(records[number % 2], run, stop) for number, run in enumerate(runs)]
        with sending(senders, stop):
            wait_for_progress(senders)
            session = one.log_in()
            database.stop()
            try:
                assert_away(one, session)
                told = one.request("GET", "/api/health")
                assert (told.status, told.json()["away"]) == (503, ["database"])
            finally:
                database.start()
            wait_for_progress(senders)
            eventually(lambda: _is_well(one))
            database.crash()
            database.start()
            wait_for_progress(senders)

        for sender in senders:
            assert sender.wrong == []
            assert records[0].text(sender.run_of.id) == "".join(sender.acknowledged)
        run = runs[0]
        with closing(Client(records[0], run)) as client:
            waiting = threads.submit(client.poll, "?wait=50")
            command = records[1].stop(run.id)
            assert [each["id"] for each in waiting.result().json] == [command]


def assert_away(gateway: EmbeddedGateway, session: dict[str, str]) -> None:
    """Whatever is asked, the answer says that the database is away, and that one may come again."""
    sentence = "The database does not answer; try again in a moment."
    document = gateway.api("GET", "/api/openapi.json").json()
    told: dict[str, int] = {}
    del document["paths"]["/api/stream"]  # goes on, and comes back with the database
    del document["paths"]["/api/health"]  # tells it in its own way
    for path, methods in document["paths"].items():
        for method in methods.keys() & {"get", "post"}:
            address = path.replace("{", "").replace("}", "")
            answer = gateway.api(method.upper(), address, {} if method == "post" else None)
            told[f"{method} {path}"] = answer.status
            if answer.status == 503:
                assert (answer.error, answer.headers["retry-after"]) == (sentence, "2")
    # The others need no database, or are refused before it is asked.
    assert set(told.values()) <= {200, 400, 401, 406, 409, 503}, told
    assert list(told.values()).count(503) > len(told) / 2, told
    page = gateway.request("GET", "/", headers=session)
    assert (page.status, page.headers["retry-after"]) == (503, "2")
    assert sentence in page.body.decode()


def _is_well(gateway: EmbeddedGateway) -> None:
    assert gateway.request("GET", "/api/health").status == 200


def test_a_database_that_only_reads_is_away(
    database: Cluster, pair: tuple[EmbeddedGateway, EmbeddedGateway]
) -> None:
    """As a copy does, until it has taken over: whoever sends keeps it, and the balancer knows."""
    one, other = pair
    run, name = one.create_run(), name_of_database(one)
    change = f"ALTER DATABASE {name} {{}} default_transaction_read_only"

    def asked() -> tuple[int, int, int]:
        event = other.send_event(run, "stdout", "kept\n", 1)
        created = one.api("POST", "/api/runs", {})
        return one.request("GET", "/api/health").status, event.status, created.status

    database.execute(change.format("SET") + " = on", "postgres")
    try:
        database.end_connections(one, "backend_type = 'client backend'")
        eventually(lambda: assert_equal(asked(), (503, 503, 503)))
    finally:
        database.execute(change.format("RESET"), "postgres")
    eventually(lambda: assert_equal(asked(), (200, 200, 201)))
    assert [each["data"] for each in one.events(run)] == ["kept\n"]


def assert_equal(found: object, expected: object) -> None:
    """They are the same."""
    assert found == expected


def test_tables_of_version_2_become_those_of_today(database: Cluster) -> None:
    """What the steps make of them is what a new database has, and copies are gone."""
    new, old = (create_engine(address_of(database)) for _ in range(2))
    with closing_engines(new, old):
        with old.begin() as connection:
            connection.exec_driver_sql(VERSION_2.read_text("utf-8"))
            connection.exec_driver_sql(WRITTEN_BY_VERSION_2)
        for engine in (new, old):
            schema.open_database(engine.url.render_as_string(hide_password=False)).dispose()

        assert tables_of(old) == tables_of(new)
        assert read(old, "SELECT id, sequence FROM events ORDER BY id") == [(4, 0), (5, 0), (6, 1)]
        assert read(old, "SELECT digest FROM nonces") == [(7,)]
        # The search goes on behind what it had taken: of the second run all, of the first a part.
        taken = read(old, "SELECT run_id, event_id FROM indexed ORDER BY run_id")
        assert taken == [("run_1", 6), ("run_2", 5)]
        assert read(old, "SELECT max(version) FROM schema_versions") == [(schema.VERSION,)]


VERSION_2 = Path(__file__).with_name("version_2_on_postgresql.sql")
RUN = (
    "INSERT INTO runs (id, token_hash, status, created_at, details, last_event_id, event_count,"
    " numbered_count, numbered_bytes, highest_sequence, altered_count)"
    " VALUES ('{}', '', 'running', 1700000000, '{{}}', {}, 0, 0, 0, 0, 0);"
)
EVENT = "INSERT INTO events VALUES ({}, '{}', 'stdout', 'x', {}, 1700000000, 'same');"
WRITTEN_BY_VERSION_2 = "".join(
    (
        "INSERT INTO schema_versions VALUES (2, 1700000000);",
        *(RUN.format("run_1", 8), RUN.format("run_2", 5)),
        *(EVENT.format(4, "run_1", 0), EVENT.format(5, "run_2", 0)),
        # The second process did not see that these are the same.
        *(EVENT.format(6, "run_1", 1), EVENT.format(8, "run_1", 1)),
        "INSERT INTO nonces (digest, used_at) VALUES (7, 1700000000), (7, 1700000001);",
        "INSERT INTO progress VALUES ('texts', 6);",
    )
)


@contextmanager
def closing_engines(*engines: Engine) -> Iterator[None]:
    """Let go of all connections in the end."""
    try:
        yield
    finally:
        for engine in engines:
            engine.dispose()


def address_of(database: Cluster) -> URL:
    """Return the address of a new database, with a driver."""
    return make_url(database.make_database()).set(drivername="postgresql+psycopg")


def read(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def tables_of(engine: Engine) -> dict[str, Any]:
    """Return the columns, keys and indexes of all tables but Alembic's own."""
    found = inspect(engine)
    return {
        name: (
            sorted((each["name"], str(each["type"])) for each in found.get_columns(name)),
            found.get_pk_constraint(name)["constrained_columns"],
            sorted((each["name"] or "", each["column_names"]) for each in found.get_indexes(name)),
        )
        for name in found.get_table_names()
        if name != "alembic_version"
    }
