"""Several gateways on one PostgreSQL: whichever of them a request comes to, it is the same."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text

from gateway.storage import schema
from testing.gateways.embedded_gateway import EmbeddedGateway, Frame, session_of
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.postgresql import Cluster, cluster, gateways_on
from testing.gateways.signing_client import Client
from testing.gateways.waiting_folder import WaitingFolder
from testing.waiting import eventually
from tests.gateway.test_crash import Sender, wait_for_progress

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
        for sender in senders:
            sender.start()
        try:
            wait_for_progress(senders)
            records[1].pause()
            wait_for_progress(senders[::2])
            records[1].resume()
            wait_for_progress(senders)
        finally:
            stop.set()
            for sender in senders:
                sender.join(30)

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
        for sender in senders:
            sender.start()
        try:
            wait_for_progress(senders)
            database.stop()
            told = one.request("GET", "/api/health")
            assert (told.status, told.json()["away"]) == (503, ["database"])
            database.start()
            wait_for_progress(senders)
            eventually(lambda: _is_well(one))
            database.crash()
            database.start()
            wait_for_progress(senders)
        finally:
            stop.set()
            for sender in senders:
                sender.join(30)

        for sender in senders:
            assert sender.wrong == []
            assert records[0].text(sender.run_of.id) == "".join(sender.acknowledged)
        run = runs[0]
        with closing(Client(records[0], run)) as client:
            waiting = threads.submit(client.poll, "?wait=50")
            command = records[1].stop(run.id)
            assert [each["id"] for each in waiting.result().json] == [command]


def _is_well(gateway: EmbeddedGateway) -> None:
    assert gateway.request("GET", "/api/health").status == 200


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
