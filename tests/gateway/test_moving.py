"""`gateway migrate`: a gateway on SQLite goes on with PostgreSQL and an object store."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.storage import schema
from testing.gateways.embedded_gateway import ROOT, EmbeddedGateway
from testing.gateways.embedded_record import EmbeddedRecord, free_port
from testing.gateways.object_store import Moto, environ_of, moto
from testing.gateways.postgresql import Cluster, cluster
from testing.gateways.signing_client import Client
from testing.programs.runner import RunnerProcess, child, plan
from testing.programs.verdict import judge
from testing.waiting import eventually
from tests.gateway.test_conversation import STARTED, question

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    """A PostgreSQL for the tests of this module."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An object store for the tests of this module."""
    with moto(tmp_path_factory.mktemp("store")) as running:
        yield running


def command(gw: EmbeddedGateway, url: str, *more: str) -> list[str]:
    """Return the command line that takes a gateway over."""
    return [
        *(sys.executable, str(ROOT / "gateway"), "migrate", "--from", str(gw.data_dir)),
        *("--to", url, "--env-file", str(gw.env_file), *more),
    ]


def migrate(gw: EmbeddedGateway, url: str, *more: str) -> tuple[int, str, str]:
    """Take a gateway over; return the exit code, and what it said."""
    done = subprocess.run(
        command(gw, url, *more), env=gw.environ, capture_output=True, text=True, timeout=100
    )
    return done.returncode, done.stdout, done.stderr


def files_of(gw: EmbeddedGateway) -> dict[str, bytes]:
    """Return all that is in a gateway's folder, but what SQLite makes of its log for readers."""
    paths = [path for path in gw.data_dir.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths if path.suffix != ".db-shm"}


def count(url: str, query: str) -> Any:
    """Return a number of a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row and row[0]


def test_a_gateway_goes_on_elsewhere(database: Cluster, store: Moto, tmp_path: Path) -> None:
    """With its runs, files, questions, stops and what viewers know, after a move that was killed.

    A runner that lost its gateway goes on at the new one, without a loss or a double.
    """
    url, environ = database.make_database(), environ_of(store.port, "moved")
    files_url = environ["CLAUDE_RUNNER_GATEWAY_FILES_URL"]
    port = ("--port", str(free_port()))
    old = EmbeddedGateway(tmp_path / "old", *port)
    new_environ = {**environ, "CLAUDE_RUNNER_GATEWAY_DATABASE_URL": url}
    new = EmbeddedGateway(tmp_path / "new", *port, env=new_environ)
    folder = tmp_path / "run"
    folder.mkdir()
    with ExitStack() as stack:
        stack.enter_context(old)
        run, other = old.create_run("plan it\0"), old.create_run()
        client = stack.enter_context(closing(Client(EmbeddedRecord(old), run)))
        client.event("marker", STARTED_TEXT, 1)
        attempt = client.event_attempt("stdout", "hello\0\U0010fffd\n", 2)
        assert client.send(attempt).status == 200
        old.send_event(other, "stdout", "between\n", 1)
        for number in range(3, 6):
            client.event("stdout", f"{number}\n", number)
        assert old.send_marker(run, question(), 6).status == 200
        uploads = {f"{number}.txt": bytes([65 + number]) * 100_000 for number in range(3)}
        for name, data in uploads.items():
            assert old.send_artifact(run, name, data).status == 200
        stop = EmbeddedRecord(old).stop(run.id)
        before = old.run(run), old.events(run)
        code, _, said = migrate(old, url, "--files", files_url)
        assert (code, said.count("another gateway uses the database")) == (1, 1)
        # However long the moves take.
        patient = {"CLAUDE_RUNNER_DRAIN_TIMEOUT": "600"}
        lines = child("lines.py", "600", "200")
        launch = plan(EmbeddedRecord(old), lines, folder, env=patient)
        runner = stack.enter_context(RunnerProcess(launch))
        launch.expect(r"(?m)^20 .*\n")
        old.kill()
        kept = files_of(old)

        # The tables are there; one of the last is locked, so that the move stops in its middle.
        schema.open_database(url).dispose()
        old.environ.update({name: environ[name] for name in environ if name.startswith("AWS_")})
        with psycopg.connect(url) as locker:
            locker.execute("LOCK TABLE texts IN ACCESS EXCLUSIVE MODE")
            with subprocess.Popen(
                command(old, url, "--files", files_url),
                env=old.environ,
                stdout=subprocess.DEVNULL,
                stderr=stack.enter_context((tmp_path / "said").open("wb")),
            ) as moving:
                try:
                    eventually(lambda: assert_waits(url, tmp_path / "said"), 60)
                finally:
                    moving.send_signal(signal.SIGKILL)
        assert count(url, "SELECT count(*) FROM runs") == 0
        assert len(store.objects()) == 3

        code, said, problem = migrate(old, url, "--files", files_url)
        assert (code, problem) == (0, "")
        assert "runs: 3 rows, the sum is right\n" in said
        assert said.endswith(f"CLAUDE_RUNNER_GATEWAY_FILES_URL={files_url}\n")
        there = "files: 0 copied, 3 there already, all sums are right\n"
        assert there in said
        again = f"{there}the rows were moved before\n{said_last(old)}"
        assert migrate(old, url)[:2] == (0, again)
        assert files_of(old) == kept

        new.env_file.write_text(old.env_file.read_text())
        stack.enter_context(new)
        record = EmbeddedRecord(new)
        assert (new.run(run), new.events(run)) == before
        assert {each.name: each.data for each in record.artifacts(run.id)} == uploads
        assert new.api("GET", f"/api/runs/{run.id}/conversation").json()["open"][0]["id"] == "q1"
        client.close()
        # It was stored before the move: a copy of it is refused.
        assert client.send(attempt).status == 401
        assert [each["id"] for each in client.poll().json] == [stop]
        assert client.ack(stop, {"result": "stopped"}).status == 200
        headers = {"Last-Event-ID": str(before[1][3]["id"])}
        with new.follow(f"/api/runs/{run.id}/stream", headers) as stream:
            assert [frame.id for frame in stream.take(2)] == [each["id"] for each in before[1][4:]]
            answer = client.event("stdout", "later\n", 7)
            assert answer.json["eventId"] > before[1][-1]["id"]
            assert stream.take(1)[0].data["data"] == "later\n"
        assert runner.wait(120) == 0
        verdict = judge(record, launch.run.id, last=600)
        assert (verdict.problems, verdict.lines) == ([], 600)
        made = new.create_run()
        assert new.send_artifact(made, "a.txt", b"a").status == 200

        code, _, said = migrate(old, url)
        assert (code, said) == (
            1,
            "claude-runner: a gateway runs on the new database; end it first\n",
        )


STARTED_TEXT = str(STARTED).replace("'", '"').replace("True", "true").replace("False", "false")


def said_last(gw: EmbeddedGateway) -> str:
    """Return the sentence about what to do next, with the files where they were."""
    files = (gw.data_dir / "gateway" / "artifacts").as_uri()
    return (
        "everything is there; start the new gateways with the same HMAC_SECRET, "
        "CLAUDE_RUNNER_GATEWAY_DATABASE_URL and CLAUDE_RUNNER_GATEWAY_FILES_URL="
        f"{files}\n"
    )


def assert_waits(url: str, said: Path) -> None:
    """Somebody waits for a table of the database."""
    assert count(url, WAITING) == 1, said.read_text()


def test_files_come_along(database: Cluster, tmp_path: Path) -> None:
    """Over what a killed attempt left, in an attempt after the rows were moved, and never as if
    they were there when they are not.
    """
    url, place = database.make_database(), tmp_path / "files"
    with EmbeddedGateway(tmp_path / "one") as one:
        run = one.create_run()
        sent = one.send_artifact(run, "a.txt", b"content").json()["artifactId"]
    (place / run.id).mkdir(parents=True)

    # Of the new place, in the settings of the gateway that was there.
    one.environ["CLAUDE_RUNNER_GATEWAY_FILES_URL"] = place.as_uri()
    code, _, said = migrate(one, url)
    assert code == 1
    assert said.startswith(f"claude-runner: none of the 1 files is in {place.as_uri()};")
    del one.environ["CLAUDE_RUNNER_GATEWAY_FILES_URL"]

    assert migrate(one, url)[1].endswith(said_last(one))
    (place / run.id / f"{sent}.partial").write_bytes(b"cont")
    code, told, _ = migrate(one, url, "--files", place.as_uri())
    assert (code, told.splitlines()[:2]) == (
        0,
        ["files: 1 copied, 0 there already, all sums are right", "the rows were moved before"],
    )
    assert [each.name for each in (place / run.id).iterdir()] == [sent]
    assert (place / run.id / sent).read_bytes() == b"content"


def test_what_is_not_moved(database: Cluster, tmp_path: Path) -> None:
    """Nothing into a database of others, nothing of another version, nothing from nowhere."""
    url = database.make_database()
    with EmbeddedGateway(tmp_path / "one") as one, EmbeddedGateway(tmp_path / "two") as two:
        for each in (one, two):
            each.create_run()
            each.stop()
    # By the shim's program, which has the packages installed that it needs.
    program = [sys.executable, str(ROOT / "claude_runner.py"), "gateway", *command(one, url)[2:]]
    done = subprocess.run(program, env=one.environ, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, said_last(one).rstrip())
    program.remove("migrate")
    done = subprocess.run(program, env=one.environ, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (
        1,
        "claude-runner: --from, --to and --files go with `gateway migrate`\n",
    )

    told = migrate(two, url)
    assert told[2] == (
        "claude-runner: the new database has runs of other gateways; use an empty one\n"
    )
    with closing(sqlite3.connect(two.database_file)) as own, own:
        own.execute("UPDATE schema_versions SET version = 3")
    assert "start this version of the gateway once on it" in migrate(two, url)[2]
    two.data_dir.rename(tmp_path / "gone")
    assert "there is no gateway's database in" in migrate(two, url)[2]
    assert not two.data_dir.exists()
    wrong = {
        "sqlite:///x": "--to is the address of a PostgreSQL",
        "postgresql://nobody@127.0.0.1:1/x": "the gateway's database cannot be used",
    }
    for address, sentence in wrong.items():
        code, _, said = migrate(one, address)
        assert code == 1
        assert said.startswith(f"claude-runner: {sentence}")
        assert "Traceback" not in said
