"""A database of version 1 is taken over: its runs are in the list like those made today."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.admission import hash_token
from gateway.storage import schema
from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.embedded_store import OpenStore
from testing.gateways.gateway_records import Run

# As version 1 wrote them, word for word.
VERSION_1 = """
CREATE TABLE schema_versions (
    version INTEGER NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY (version));
CREATE TABLE runs (
    number INTEGER NOT NULL, id VARCHAR(50) NOT NULL, token_hash BLOB NOT NULL,
    status VARCHAR(10) NOT NULL, command TEXT, metadata TEXT, created_at FLOAT NOT NULL,
    started_at FLOAT, finished_at FLOAT, exit_code BIGINT, details TEXT NOT NULL, verdict TEXT,
    last_event_id BIGINT NOT NULL, last_event_at FLOAT, event_count BIGINT NOT NULL,
    numbered_count BIGINT NOT NULL, numbered_bytes BIGINT NOT NULL,
    highest_sequence BIGINT NOT NULL, altered_count BIGINT NOT NULL,
    PRIMARY KEY (number), UNIQUE (id));
CREATE TABLE events (
    id INTEGER NOT NULL, run_id VARCHAR(50) NOT NULL, type VARCHAR(10) NOT NULL, data TEXT NOT NULL,
    sequence BIGINT NOT NULL, created_at FLOAT NOT NULL, body_hash BLOB NOT NULL, PRIMARY KEY (id));
CREATE INDEX events_by_run ON events (run_id, id);
CREATE INDEX events_by_sequence ON events (run_id, sequence);
CREATE TABLE nonces (
    number INTEGER NOT NULL, digest BIGINT NOT NULL, used_at FLOAT NOT NULL, PRIMARY KEY (number));
CREATE INDEX nonces_by_age ON nonces (used_at);
CREATE TABLE commands (
    number INTEGER NOT NULL, id VARCHAR(50) NOT NULL, run_id VARCHAR(50) NOT NULL,
    command TEXT NOT NULL, status VARCHAR(10) NOT NULL, result TEXT, error TEXT,
    created_at FLOAT NOT NULL, acknowledged_at FLOAT, PRIMARY KEY (number), UNIQUE (id));
CREATE INDEX commands_by_run ON commands (run_id, number);
CREATE TABLE artifacts (
    number INTEGER NOT NULL, id VARCHAR(50) NOT NULL, run_id VARCHAR(50) NOT NULL,
    name TEXT NOT NULL, type VARCHAR(10) NOT NULL, size BIGINT NOT NULL, created_at FLOAT NOT NULL,
    PRIMARY KEY (number), UNIQUE (id));
CREATE INDEX artifacts_by_run ON artifacts (run_id, number);
CREATE TABLE sessions (
    token_hash BLOB NOT NULL, created_at FLOAT NOT NULL, expires_at FLOAT NOT NULL,
    PRIMARY KEY (token_hash));
CREATE TABLE audit (
    number INTEGER NOT NULL, at FLOAT NOT NULL, address VARCHAR(50) NOT NULL,
    actor VARCHAR(20) NOT NULL, action VARCHAR(30) NOT NULL, run_id VARCHAR(50), detail TEXT,
    succeeded BOOLEAN NOT NULL, PRIMARY KEY (number));
INSERT INTO schema_versions VALUES (1, 1700000000);
"""
DETAILS = {
    "command_line": "claude -p 'fix it'",
    "runner": "claude",
    "mode": "print",
    "working_dir": "/srv/shop",
    "state": None,
    "reason": None,
    "result": None,
    "talk": None,
}
TOKEN = "ab" * 32
# Not so long ago that the runs would be removed.
BEGAN = float(int(time.time()) - 1_000)


def write_version_1(file: Path) -> None:
    """Write a database of version 1 with a run of each kind."""
    over = {"reason": "exited", "result": {"totalCostUsd": 0.5, "permissionDenials": ["Bash"]}}
    asks = {"talk": [[["q1", 3]], [], [], 3]}
    runs: list[tuple[Any, ...]] = [
        ("pending", None, None, {}, None),
        ("running", BEGAN + 20, None, {}, None),
        ("running", BEGAN + 30, None, {"state": "waiting"}, None),
        ("running", BEGAN + 40, None, asks, None),
        ("done", BEGAN + 50, BEGAN + 55, over, {"ok": False, "sentence": "…", "differences": []}),
    ]
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(VERSION_1)
        for number, (status, started, ended, details, verdict) in enumerate(runs, 1):
            database.execute(
                "INSERT INTO runs VALUES"
                " (?, ?, ?, ?, ?, NULL, ?, ?, ?, NULL, ?, ?, 0, NULL, 0, 0, 0, 0, 0)",
                (
                    *(number, f"run_{number}", hash_token(TOKEN), status, "fix it\n" * 1000),
                    BEGAN,
                    *(started, ended, json.dumps({**DETAILS, **details})),
                    None if verdict is None else json.dumps(verdict),
                ),
            )


@pytest.mark.parametrize("is_half_done", [False, True])
def test_runs_of_version_1_are_taken_over(tmp_path: Path, is_half_done: bool) -> None:
    """Also if the first attempt ended in the middle. What was over before counts as seen."""
    file = tmp_path / "gateway.db"
    write_version_1(file)
    if is_half_done:
        with OpenStore(tmp_path), closing(sqlite3.connect(file)) as database, database:
            database.execute("DELETE FROM schema_versions WHERE version > 1")
            database.execute("DELETE FROM summaries WHERE number > 2")
            database.execute("DROP TABLE texts")

    with OpenStore(tmp_path) as own:
        found = {run["id"]: run for run in own.store.runs(None, 10)[0]}
    with closing(sqlite3.connect(file)) as database:
        versions = database.execute("SELECT version FROM schema_versions ORDER BY 1").fetchall()
        asked = {each[0] for each in database.execute("SELECT length(asked) FROM summaries")}

    assert versions == [(1,), (schema.VERSION,)]
    assert asked == {1_000}
    assert [(run["stage"], run["stage_at"]) for _, run in sorted(found.items())] == [
        ("pending", BEGAN),
        ("working", BEGAN + 20),
        ("needs", BEGAN + 30),
        ("needs", BEGAN + 40),
        ("done", BEGAN + 55),
    ]
    last = found["run_5"]
    assert (last["seen_at"], last["cost"], last["refused"]) == (BEGAN + 55, 0.5, 1)
    assert last["incomplete"] is True
    assert found["run_1"]["seen_at"] is None


def test_a_run_of_version_1_goes_on(tmp_path: Path) -> None:
    """Its runner sends what follows, and the list learns of it."""
    (tmp_path / "data" / "gateway").mkdir(parents=True)
    write_version_1(tmp_path / "data" / "gateway" / "gateway.db")
    run = Run("run_2", TOKEN)

    with EmbeddedGateway(tmp_path) as gateway:
        assert gateway.send_marker(run, finished([]), 1).status == 200
        shown = gateway.run(run)

    assert (shown["stage"], shown["seen_at"], shown["working_dir"]) == ("done", None, "/srv/shop")


def test_a_gateway_of_version_1_that_still_ran_has_written_on(tmp_path: Path) -> None:
    """The new one had changed the tables, and found its port in use: the next start mends it."""
    file = tmp_path / "gateway.db"
    write_version_1(file)
    with OpenStore(tmp_path) as own:
        own.store.create_run("fix it", None, None, "Shop")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "UPDATE runs SET status = 'done', finished_at = ? WHERE number = 4", (BEGAN + 60,)
        )
        database.execute(
            "UPDATE runs SET status = 'running', started_at = ? WHERE number = 1", (BEGAN + 70,)
        )
        database.execute("UPDATE runs SET id = 'run_7', number = 7 WHERE number = 6")

    with OpenStore(tmp_path) as own:
        found = {run["id"]: run for run in own.store.runs(None, 10)[0]}

    assert [(run["id"], run["stage"], run["stage_at"]) for run in found.values()][1:] == [
        ("run_5", "done", BEGAN + 55),
        ("run_4", "done", BEGAN + 60),
        ("run_3", "needs", BEGAN + 30),
        ("run_2", "working", BEGAN + 20),
        ("run_1", "working", BEGAN + 70),
    ]
    assert found["run_7"]["stage"] == "pending"


def test_the_search_goes_on_where_version_2_was(tmp_path: Path) -> None:
    """In each run: how far it had come was one number for all."""
    file = tmp_path / "gateway.db"
    write_version_1(file)
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(
            """
            CREATE TABLE progress (
                name VARCHAR(20) NOT NULL, event_id BIGINT NOT NULL, PRIMARY KEY (name));
            INSERT INTO progress VALUES ('texts', 6);
            INSERT INTO schema_versions VALUES (2, 1700000000);
            UPDATE runs SET last_event_id = 5 WHERE number = 2;
            UPDATE runs SET last_event_id = 8 WHERE number = 3;
            """
        )

    for _ in range(2):
        with OpenStore(tmp_path):
            pass

    with closing(sqlite3.connect(file)) as database:
        taken = database.execute("SELECT run_id, event_id FROM indexed ORDER BY 1").fetchall()
        versions = database.execute("SELECT version FROM schema_versions ORDER BY 1").fetchall()
        left = database.execute("SELECT name FROM sqlite_master WHERE name = 'progress'").fetchall()
    assert taken == [("run_2", 5), ("run_3", 6)]
    assert versions == [(1,), (2,), (schema.VERSION,)]
    assert left == []
