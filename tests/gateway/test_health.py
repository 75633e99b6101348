"""What a balancer's probe is told: whether requests can be answered here, now."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.observing.health import FRESH_S, LIMIT_S, Health
from testing.gateways.embedded_gateway import Answer, EmbeddedGateway
from testing.waiting import eventually


@pytest.fixture
def gw(tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway with a base path."""
    with EmbeddedGateway(tmp_path, "--public-url", "https://tools.example/base") as gateway:
        yield gateway


def probe(gw: EmbeddedGateway, host: str = "10.9.8.7:3100") -> Answer:
    """Ask as a balancer does, by an address and without a login."""
    return gw.request("GET", "/api/health", headers={"Host": host})


def test_a_gateway_that_works(gw: EmbeddedGateway) -> None:
    """Also asked by any address, or below its base; by no strange name, and nothing else is."""
    for host in ("10.9.8.7:3100", "[fd00::9]:3100", "", "tools.example"):
        assert probe(gw, host).json()["status"] == "ok", host
    below = gw.request("GET", "/base/api/health", headers={"Host": "10.9.8.7"})
    assert below.status == 200
    assert probe(gw, "evil.example").status == 421
    assert gw.request("GET", "/login", headers={"Host": "10.9.8.7"}).status == 421


def test_what_is_away_is_told(gw: EmbeddedGateway) -> None:
    """The files, and then they are back; a writer that is busy with the database is no reason."""
    artifacts = gw.data_dir / "gateway" / "artifacts"
    with contextlib.closing(sqlite3.connect(gw.database_file)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert eventually(lambda: probe(gw)).status == 200
        for path in artifacts.rglob("*"):
            path.rmdir()
        artifacts.rmdir()
        artifacts.write_text("")

        def files_are_away() -> None:
            answer = probe(gw)
            told = answer.json()
            assert (answer.status, told["status"]) == (503, "away")
            assert told["away"] == ["files"]
            assert told["error"] == "files away"

        eventually(files_are_away)
        artifacts.unlink()
        artifacts.mkdir()
        eventually(lambda: _is_well(gw))
    assert "health: files away (FilesAwayError)" in gw.log
    assert str(artifacts) not in gw.log.partition("health: ")[2]


def _is_well(gw: EmbeddedGateway) -> None:
    assert probe(gw).status == 200


def test_a_check_that_hangs_holds_up_nobody() -> None:
    """Who comes first waits for the limit, who comes later does not wait; the other part is seen,
    and when the check comes back so does the answer.
    """
    hangs, called = threading.Event(), []

    def check() -> None:
        called.append(time.monotonic())
        assert hangs.wait(30)

    health = Health({"database": check, "files": lambda: None})
    health.start()
    try:
        with ThreadPoolExecutor(20) as threads:
            began = time.monotonic()
            told = list(threads.map(lambda _: health.away(), range(20)))
            assert told == [["database"]] * 20
            assert time.monotonic() - began >= LIMIT_S
        began = time.monotonic()
        assert [health.away() for _ in range(200)] == [["database"]] * 200
        assert time.monotonic() - began < 200 * LIMIT_S / 2
        assert len(called) == 1
        hangs.set()
        eventually(lambda: _nothing_is_away(health))
    finally:
        hangs.set()
        health.close()


def _nothing_is_away(health: Health) -> None:
    assert health.away() == []


def test_probes_share_a_check_and_no_answer_is_old() -> None:
    """However many ask, a part is looked at twice a second at most, and what it says counts for
    less than a second.
    """
    called: list[float] = []
    is_away = False

    def check() -> None:
        called.append(time.monotonic())
        if is_away:
            raise OSError("postgresql://user:password@host")

    health = Health({"files": check})
    health.start()
    try:
        began = time.monotonic()
        while len(called) < 4:
            assert health.away() == []
        assert time.monotonic() - began >= 3 * FRESH_S
        is_away = True
        asked = since = time.monotonic()
        is_told = False
        while asked < since + 2 * FRESH_S:
            asked = time.monotonic()
            is_told = health.away() == ["files"]
            assert is_told or asked < since + FRESH_S
        assert is_told
    finally:
        health.close()
