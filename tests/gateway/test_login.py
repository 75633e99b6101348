"""Who guesses at the gateway's tokens: what is counted, what is noted, and what is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.access.codes import CODE_LIFETIME_S, Codes
from gateway.access.login import (
    LAST_NOTED,
    MAX_FAILURES,
    MAX_NOTED_FAILURES,
    Credentials,
    Login,
    TooManyFailuresError,
    find_cookie,
)
from gateway.roles import Person, Role
from gateway.storage import schema
from gateway.windows import MAX_ADDRESSES, Windows
from testing.gateways.embedded_store import OpenStore


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenStore]:
    """A store with a database of its own."""
    with OpenStore(tmp_path) as opened:
        yield opened


def audit(opened: OpenStore) -> list[tuple[str, str, str, bool, str | None]]:
    """Return what is noted: address, actor, action, success and detail."""
    columns = schema.audit.c
    query = select(
        columns.address, columns.actor, columns.action, columns.succeeded, columns.detail
    ).order_by(columns.number)
    with opened.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


# --- counting ------------------------------------------------------------------------------------


def test_each_address_has_a_window_of_its_own() -> None:
    """It begins with the first count, and the count anew when it is over."""
    clock = Clock()
    windows = Windows(60, clock)

    assert windows.add("a") == (1, 60)
    clock.now += 20
    assert windows.add("a") == (2, 40)
    assert windows.add("b") == (1, 60)
    clock.now += 40
    assert windows.add("a") == (1, 60)
    assert windows.add("b") == (2, 20)


def test_a_crowd_of_addresses_does_not_grow_the_table() -> None:
    """The oldest one is forgotten for the newest; the others keep their counts."""
    windows = Windows(60, Clock())
    for number in range(MAX_ADDRESSES):
        windows.add(str(number))
    windows.add("one more")

    assert windows.add("1")[0] == 2
    assert windows.add("0")[0] == 1


def test_counts_of_many_threads_add_up() -> None:
    """None is lost."""
    windows = Windows(60)
    threads = [
        threading.Thread(target=lambda: [windows.add("a") for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert windows.add("a")[0] == 4_001


# --- codes ---------------------------------------------------------------------------------------


def test_a_code_is_good_once_and_for_ten_minutes() -> None:
    """Used or too old it is worth nothing, and nothing of it is kept."""
    clock = Clock()
    codes = Codes(clock)
    used, left, late = codes.make(), codes.make(), codes.make()

    assert codes.use(used)
    assert not codes.use(used)
    assert not codes.use("never made")
    clock.now += CODE_LIFETIME_S - 1
    assert codes.use(left)
    assert len(codes) == 1
    clock.now += 1
    assert not codes.use(late)
    assert len(codes) == 0


# --- cookies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        ("a=1", "1"),
        ("b=2; a=1", "1"),
        ("b=2;a=1;c=3", "1"),
        ("a", ""),
        ("", ""),
        ("aa=2; =a; a =1", "1"),
        ("A=1", ""),
        ("a=1=2", "1=2"),
        ('b="; a=2"; a=1', '2"'),
    ],
)
def test_a_cookie_is_found(cookies: str, value: str) -> None:
    """By its name among others, whatever they are."""
    assert find_cookie(cookies, "a") == value


# --- noting --------------------------------------------------------------------------------------


def test_every_wrong_guess_is_noted(opened: OpenStore) -> None:
    """At the page by token and code, and by a script; who gets in is noted too."""
    login = Login(opened.store, "right", Path("admin-token"), "cookie")

    assert login.use_token("wrong", "10.0.0.1") is None
    assert login.use_code("wrong", "10.0.0.2") is None
    for authorization in ("Bearer wrong", "Basic right", "nonsense"):
        assert login.find_person(Credentials(authorization, "", ""), "10.0.0.3") is None
    person = login.find_person(Credentials("Bearer right", "", ""), "10.0.0.3")
    assert person == Person(None, Role.ADMIN, "token")
    assert login.use_code(login.make_code(), "10.0.0.4") is not None

    assert audit(opened) == [
        ("10.0.0.1", "token", "login", False, None),
        ("10.0.0.2", "code", "login", False, None),
        *[("10.0.0.3", "token", "request", False, None)] * 3,
        ("10.0.0.4", "code", "login", True, None),
    ]


def test_guesses_do_not_fill_the_disk(opened: OpenStore) -> None:
    """One address is noted until it is refused unseen; of many together, so many an hour."""
    login = Login(opened.store, "right", Path("admin-token"), "cookie")
    for _ in range(MAX_FAILURES):
        login.find_person(Credentials("Bearer wrong", "", ""), "10.0.0.1")
    with pytest.raises(TooManyFailuresError):
        login.find_person(Credentials("Bearer wrong", "", ""), "10.0.0.1")
    assert len(audit(opened)) == MAX_FAILURES

    for number in range(2 * MAX_NOTED_FAILURES):
        login.find_person(Credentials("Bearer wrong", "", ""), f"10.0.1.{number}")
    login.use_token("right", "10.0.0.2")

    *noted, last, success = audit(opened)
    assert len(noted) == MAX_NOTED_FAILURES - 1
    assert {detail for *_, detail in noted} == {None}
    assert last[-1] == LAST_NOTED
    assert success == ("10.0.0.2", "token", "login", True, None)
