"""What is kept how long, what is kept for ever, and that what is removed is nowhere."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, select

from gateway.settings import AUDIT_DAYS, FILES_DAYS, OUTPUT_DAYS
from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.gateway_records import Run
from testing.gateways.postgresql import Cluster, cluster, gateways_on
from testing.waiting import eventually
from tests.gateway.test_conversation import STARTED, question

DAY_S = 86_400
REMOVED = "The output of this run was removed, because it was kept long enough.\n"


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    """A PostgreSQL for the tests of this module."""
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def gw(
    request: pytest.FixtureRequest, database: Cluster, tmp_path: Path
) -> Iterator[EmbeddedGateway]:
    """A gateway on each database."""
    if request.param == "sqlite":
        with EmbeddedGateway(tmp_path / "gateway") as own:
            yield own
        return
    (shared,) = gateways_on(database.make_database(), tmp_path / "gateways", 1)
    with shared:
        yield shared


def say_everywhere(gw: EmbeddedGateway, word: str) -> Run:
    """Make a run that has a word wherever a run can have one."""
    run = gw.create_run(f"plan {word}")
    base = f"/api/runs/{run.id}"
    named = {"workingDir": f"/srv/{word}", "branch": word, "prompt": word, "model": word}
    gw.send_marker(run, {**STARTED, **named, "commands": [f"echo {word}"]}, 1)
    gw.send_event(run, "stdout", f"about {word}\n" * 200, 2)
    gw.send_event(run, "stderr", f"failed: {word}\n", 3)
    gw.send_event(run, "info", word, 4)
    told = {"title": word, "reason": word, "input": {"command": word}}
    for number, each in enumerate(("q1", "q2"), 5):
        gw.send_marker(run, question(each, **told), number)
    (card, _) = gw.api("GET", f"{base}/conversation").json()["open"]
    said = {"id": "q1", "digest": card["digest"], "decision": "deny", "message": word}
    posts: list[tuple[str, dict[str, object]]] = [
        ("answer", said),
        ("title", {"title": word}),
        ("command", {"command": f"echo {word}"}),
        ("input", {"text": word}),
    ]
    for action, body in posts:
        answer = gw.api("POST", f"{base}/{action}", body)
        assert answer.status in (200, 202), (action, answer)
    for command in gw.send("GET", f"{base}/commands", run=run).json():
        path = f"{base}/commands/{command['id']}/ack"
        assert gw.send("POST", path, {"result": word}, run).status == 200
    for name in (f"{word}.txt", "changes.diff"):
        assert gw.send_artifact(run, name, f"+{word}\n".encode()).status == 200
    assert word in str(gw.api("GET", f"{base}/screen").json())
    gw.send_marker(run, {**finished([]), "exitCode": 1, "reason": word}, 7)
    return run


def read_everything(gw: EmbeddedGateway) -> str:
    """Return all rows of all tables."""
    own = f"sqlite:///{gw.database_file}"
    url = gw.environ.get("CLAUDE_RUNNER_GATEWAY_DATABASE_URL", own)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        tables = MetaData()
        tables.reflect(engine)
        with engine.connect() as connection:
            return "\n".join(
                f"{table.name}: {tuple(row)}"
                for table in tables.tables.values()
                for row in connection.execute(select(table))
            )
    finally:
        engine.dispose()


def test_a_deleted_run_is_nowhere(gw: EmbeddedGateway) -> None:
    """A word that stood in all that a run can have is in no table, file, index, log or answer.

    SQLite's file and its log are searched byte by byte while the gateway runs: removed rows are
    overwritten there.
    """
    letters = random.Random().choices("bcdfghjkmnpqrstvwxz", k=14)
    word, kept_word = "".join(letters), "".join(reversed(letters))
    runs = [say_everywhere(gw, each) for each in (word, kept_word)]

    def is_found(each: str) -> None:
        groups = gw.api("GET", f"/api/list?q={each}").json()["groups"]
        assert any(run["found"] for group in groups for run in group["runs"])

    def everywhere() -> dict[str, int]:
        found: dict[str, int] = {}
        for path in gw.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # it is being removed
                found[str(path)] = path.read_bytes().count(word.encode())
        found["tables"] = read_everything(gw).count(word)
        return {name: count for name, count in found.items() if count}

    for each in (word, kept_word):
        eventually(lambda each=each: is_found(each))  # type: ignore[misc]
    before = everywhere()
    assert before["tables"] > 15
    with gw.follow("/api/stream?noticed=0") as stream:
        notices = {frame.data["run_id"]: str(frame.data) for frame in stream.take(2, "notice")}
    assert word in notices[runs[0].id]

    answer = gw.api("POST", "/api/runs/delete", {"ids": [runs[0].id]})
    assert answer.json()["removed"] == [runs[0].id]

    def it_is_nowhere() -> None:
        assert everywhere() == {}

    eventually(it_is_nowhere)
    for part in ("", "/events", "/history", "/artifacts", "/changes", "/screen", "/conversation"):
        assert gw.api("GET", f"/api/runs/{runs[0].id}{part}").status == 404
    for path in ("/api/runs", "/api/list", f"/api/list?q={word}"):
        shown = gw.api("GET", path).body.replace(f"q={word}".encode(), b"")
        assert word.encode() not in shown
    with gw.follow("/api/stream?noticed=0") as stream:
        assert stream.take(1, "notice")[0].data["run_id"] == runs[1].id
    # Who deleted it is still known, and the other run has all of its own.
    assert f"'delete', '{runs[0].id}', None, True" in read_everything(gw)
    is_found(kept_word)
    assert len(gw.api("GET", f"/api/runs/{runs[1].id}/artifacts").json()["artifacts"]) == 2


@pytest.mark.parametrize("longer", ["output", "files"])
def test_output_files_and_notes_are_kept_as_long_as_each_is(tmp_path: Path, longer: str) -> None:
    """The run goes with the longer one of its own; one that somebody keeps loses nothing."""
    days = {"output": "10", "files": "10", longer: "20"}
    environ = {OUTPUT_DAYS: days["output"], FILES_DAYS: days["files"], AUDIT_DAYS: "5"}
    ages = {"young": 8, "middle": 15, "old": 25, "kept": 99}
    with EmbeddedGateway(tmp_path / "gateway", env=environ) as gw:
        runs = {name: gw.create_run(f"plan {name}") for name in ages}
        for run in runs.values():
            gw.send_marker(run, {**STARTED, "commands": ["pwd"]}, 1)
            gw.send_event(run, "stdout", "hello\n", 2)
            gw.send_marker(run, question(), 3)
            gw.api("POST", f"/api/runs/{run.id}/command", {"command": "pwd"})
            gw.send_marker(run, finished(["x"]), 4)
            gw.send_artifact(run, "a.txt", b"a")
        kept = gw.api("POST", f"/api/runs/{runs['kept'].id}/keep", {"keep": True})
        assert (kept.status, kept.json()["kept"]) == (200, True)
        assert gw.api("POST", f"/api/runs/{runs['kept'].id}/keep", {"keep": 1}).status == 400

        def become_old() -> None:
            gw.stop()
            with contextlib.closing(sqlite3.connect(gw.database_file)) as own, own:
                for name, age in ages.items():
                    own.execute(
                        "UPDATE runs SET last_event_at = ? + (strftime('%s') + 0) WHERE id = ?",
                        (-age * DAY_S, runs[name].id),
                    )
                own.execute("UPDATE audit SET at = at - 6 * 86400 WHERE action = 'keep'")
            gw.start()

        def state_of(name: str) -> tuple[bool, bool] | None:
            base = f"/api/runs/{runs[name].id}"
            if gw.api("GET", base).status == 404:
                return None
            output = [each["data"] for each in gw.events(runs[name])]
            answer = gw.api("GET", f"{base}/artifacts")
            assert answer.status == 200, "it is being removed"
            files = answer.json()["artifacts"]
            assert (output == [REMOVED]) == (len(output) == 1)
            return output != [REMOVED], bool(files)

        become_old()

        def all_is_as_it_should_be() -> None:
            assert {name: state_of(name) for name in ages} == {
                "young": (True, True),
                "middle": (longer == "output", longer == "files"),
                "old": None,
                "kept": (True, True),
            }

        eventually(all_is_as_it_should_be)
        middle, base = runs["middle"], f"/api/runs/{runs['middle'].id}"
        shown = gw.run(middle)
        assert (shown["command"], shown["status"], shown["kept"]) == ("plan middle", "done", False)
        page = gw.api("GET", f"{base}/events?after=0&limit=10").json()
        assert (page["has_before"], page["has_after"]) == (False, False)
        is_cleared = longer == "files"
        assert bool(gw.api("GET", f"{base}/history").json()["commands"]) != is_cleared
        assert gw.api("GET", f"{base}/conversation").status == 200
        assert (gw.api("GET", f"{base}/text").body == b"") == is_cleared
        # Who comes late is heard.
        assert gw.send_event(middle, "stdout", "late\n", 9).status == 200
        assert gw.events(middle)[-1]["data"] == "late\n"
        with contextlib.closing(sqlite3.connect(gw.database_file)) as own:
            noted = own.execute("SELECT action FROM audit GROUP BY action").fetchall()
        assert noted == [("command",), ("create",)]

        # Nobody keeps it any longer.
        listed = gw.api("GET", "/api/list").json()["groups"]
        marks = {run["id"]: run["kept"] for group in listed for run in group["runs"]}
        assert marks[runs["kept"].id] is True
        gw.api("POST", f"/api/runs/{runs['kept'].id}/keep", {"keep": False})
        become_old()
        eventually(lambda: assert_gone(state_of("kept")))


def assert_gone(state: tuple[bool, bool] | None) -> None:
    """Nothing is left of a run."""
    assert state is None
