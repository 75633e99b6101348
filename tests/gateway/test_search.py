"""A run is searched line by line, wherever its events were cut and the search was interrupted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.page.search import (
    BEGINNING,
    PROBLEM,
    Cursor,
    Finder,
    Promising,
    certain_part,
    every,
    find_problems,
    find_text,
    look_through,
)
from gateway.storage.records import Event
from kinds.text_layout import FAILURE, SIGNS

KINDS = st.sampled_from(["stdout", "stderr", "info"])
EVENTS = st.lists(st.tuples(KINDS, st.text("ab\n", max_size=6)), max_size=12)


def events_of(data: list[tuple[str, str]]) -> list[Event]:
    """Return events with every third number, as if another run wrote between them."""
    return [Event(3 * index, kind, text, index, 0.0) for index, (kind, text) in enumerate(data, 1)]


def behind(events: list[Event], after: int) -> list[Event]:
    """Return the events after one."""
    return [event for event in events if event.id > after]


def promising(events: list[Event], page: int) -> Promising:
    """Return what takes the events that may have "ab", as the database knows them."""

    def with_text(after: int, until: int) -> list[Event] | None:
        found = [
            event
            for event in behind(events, after)
            if event.id <= until and ("ab" in event.data or not event.data.endswith("\n"))
        ]
        return found if len(found) <= page else None

    def next_of(after: int, kind: str) -> Event | None:
        return next((event for event in behind(events, after) if event.type == kind), None)

    last = events[-1].id if events else 0
    return Promising(
        with_text, next_of, lambda after: behind(events, after)[:page], last, window=4 * page
    )


def search(
    events: list[Event],
    find: Finder,
    *,
    page: int = 100,
    limit: int = 50,
    rushed: bool = False,
    is_quick: bool = False,
) -> list[dict[str, Any]]:
    """Search to the end, going on wherever it stops."""
    found: list[dict[str, Any]] = []
    cursor: Cursor | None = BEGINNING
    while cursor is not None:
        hits, cursor = look_through(
            promising(events, page)
            if is_quick
            else every(lambda after: behind(events, after)[:page]),
            find,
            Cursor.read(str(cursor)),
            limit,
            lambda: rushed,
        )
        found += hits
    return found


@given(EVENTS, st.integers(1, 4), st.integers(1, 3), st.booleans(), st.booleans())
def test_a_search_in_steps_finds_the_same(
    data: list[tuple[str, str]], page: int, limit: int, rushed: bool, is_quick: bool
) -> None:
    """However small the pages, the hits and the time: the same lines by the same names; also
    if the database passes over what has nothing.
    """
    events = events_of(data)
    key = lambda hit: (hit["event"], hit["line"])  # noqa: E731

    whole = search(events, find_text("ab"))

    in_steps = search(
        events, find_text("ab"), page=page, limit=limit, rushed=rushed, is_quick=is_quick
    )
    assert sorted(in_steps, key=key) == sorted(whole, key=key)


def test_a_line_has_the_name_of_the_event_in_which_it_begins() -> None:
    """Also if it was cut, and if the other stream has written meanwhile; letters of any case."""
    events = events_of([("stdout", "one\ntwo th"), ("stderr", "Three"), ("stdout", "REE\nthree\n")])

    hits = search(events, find_text("three"))

    names = [(hit["event"], hit["line"], hit["type"], hit["text"]) for hit in hits]
    assert names == [(3, 1, "stdout", "two thREE"), (9, 1, "stdout", "three"),
                     (6, 0, "stderr", "Three")]  # fmt: skip
    assert [hit["text"][hit["start"] : hit["end"]].lower() for hit in hits] == ["three"] * 3


def test_problems_are_failures_and_errors() -> None:
    """Of error output the first line; of Claude Code's text what has the sign of a failure."""
    assert SIGNS[FAILURE] == PROBLEM
    sign = SIGNS[FAILURE]
    text = f"fine\n{sign} it failed\n\\{sign} words\n┊ {sign} a subagent's\n{sign}x\n"
    events = events_of([("stdout", text), ("stderr", "a\nb\n"), ("error", "c"), ("info", "d")])

    hits = search(events, find_problems())

    assert [hit["text"] for hit in hits] == [
        f"{sign} it failed",
        f"┊ {sign} a subagent's",
        "a",
        "c",
    ]


def test_a_long_line_shows_the_part_that_was_found() -> None:
    """With what stands around it."""
    events = events_of([("stdout", "x" * 70_000 + "needle" + "y" * 500)])

    (hit,) = search(events, find_text("needle"))

    assert hit["text"][hit["start"] : hit["end"]] == "needle"
    assert len(hit["text"]) <= 240


def test_colours_within_a_word_hide_nothing() -> None:
    """Nobody sees them, wherever the events were cut; what was found is shown without them."""
    colour, link = "\x1b[38;5;208m", "\x1b]8;;https://example.org/needle\x07"
    events = events_of(
        [("stdout", f"{link}a nee{colour[:4]}"), ("stdout", f"{colour[4:]}dle\x1b[0m is here\n")]
    )

    (hit,) = search(events, find_text("a needle is"))

    assert (hit["event"], hit["line"], hit["text"]) == (3, 0, "a needle is here")


def test_what_the_database_looks_for() -> None:
    """It knows the case of ASCII letters alone."""
    assert certain_part("NOT here") == "NOT here"
    assert certain_part("größe: 3") == "e: 3"
    assert certain_part("ÄÖ") == ""
    assert certain_part("失敗 3") == "失敗 3"
    assert certain_part("50%_\\") == "50%_\\"
