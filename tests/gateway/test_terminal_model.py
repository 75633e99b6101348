"""The gateway's screen of a session: what it shows of any output, and what a look costs."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.screens.screens import Screens
from gateway.screens.terminal_model import MAX_COLUMNS, MAX_LINES, TerminalModel
from gateway.storage.records import Event

RUN = {"id": "run", "columns": 20, "lines": 4}


def shown(model: TerminalModel) -> list[str]:
    """Return the texts of the lines."""
    return ["".join(text for text, _ in row) for row in model.rows()]


def screen(text: str, columns: int = 20, lines: int = 4) -> TerminalModel:
    """Return a terminal that has shown this."""
    model = TerminalModel(columns, lines)
    for _ in model.take(text):
        pass
    return model


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\r\ntwo\tx\b\by", ["one", "two    yx"]),
        ("a\x1b[3;5Hb\x1b[Ac", ["a", "     c", "    b"]),
        ("x" * 25, ["x" * 20, "x" * 5]),
        ("\x1b[?7l" + "x" * 25 + "y", ["x" * 19 + "y"]),
        ("1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"]),
        ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n5", ["1", "3", "5", "4"]),
        ("1\r\n2\x1b[S", ["2"]),
        ("1\r\n2\x1b[2T", ["", "", "1", "2"]),
        ("one\x1b[?1049h\x1b[Htwo", ["two"]),
        ("one\x1b[?1049h\x1b[Htwo\x1b[?1049l!", ["one!"]),
        ("ab\x1b[3bc", ["abbbbc"]),
        ("\x1b7here\x1b8t", ["tere"]),
        ("\x1b[sat\x1b[ui", ["it"]),
        ("日本\b\bx", ["日x"]),
        ("e\u0301\u0301\u0301\u0301\u0301\u0301\u0301!", ["e" + "\u0301" * 4 + "!"]),
        ("a\u200bb\ufe0fc\u2028d", ["abcd"]),
        ("\x1b(0qx\x1b(B!", ["─│!"]),
        # What a terminal is asked, and what it is told beside the text, shows nothing.
        (
            "\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1bP1$r\x1b\\c\x1b[>4;2md\x1b[<ue\x1b[!pf",
            ["abcdef"],
        ),
        (
            "\x1b[6n\x1b[c\x1b[?2026h\x1b[?2004h\x1b[38:2::1:2:3mx\x1b[999;999Hy",
            ["x", "", "", " " * 19 + "y"],
        ),
    ],
)
def test_what_is_shown(text: str, lines: list[str]) -> None:
    """Moves, wrapping, regions, the second screen, wide characters, marks and unknown sequences."""
    assert "\n".join(shown(screen(text))).rstrip("\n") == "\n".join(lines)


def test_styles() -> None:
    """Colours as the page names them, and each flag by itself."""
    text = (
        "\x1b[1;31mb\x1b[0;2;38;5;200md\x1b[22;38;2;1;2;3mr\x1b[39;48;5;4mg\x1b[0;97;107mw\x1b[m."
    )

    (row, *_) = screen(text).rows()

    assert row == [
        ["b", {"fg": 1, "bold": True}],
        ["d", {"fg": 200, "dim": True}],
        ["r", {"fg": "rgb(1 2 3)"}],
        ["g", {"bg": 4}],
        ["w", {"fg": 15, "bg": 15}],
        [".", {}],
    ]


PIECES = st.lists(
    st.one_of(
        st.text(alphabet="ab é日\u0301\u200b\r\n\t\b\x0e\x0f", max_size=30),
        st.from_regex(r"\x1b\[[?>]?[0-9;:]{0,12}[@A-Za-z`]", fullmatch=True),
        st.from_regex(r"\x1b[\[\]PX78DEMHc()0B]{0,3}", fullmatch=True),
        st.sampled_from(
            ["\x1b[?1049h", "\x1b[?1049l", "\x1b[2J", "\x1b[4h", "\x1b[?6h", "\x1b[2;3r"]
        ),
    ),
    max_size=20,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(PIECES, st.integers(0, 200), st.integers(1, 30), st.integers(1, 8))
def test_anything_may_be_printed(text: str, cut: int, columns: int, lines: int) -> None:
    """Nothing fails, nothing is larger than the screen, and where the output is cut is the same."""
    whole = screen(text, columns, lines)
    parts = screen(text[:cut], columns, lines)
    for _ in parts.take(text[cut:]):
        pass

    assert parts.rows() == whole.rows()
    assert parts.place_of_cursor() == whole.place_of_cursor()
    whole.set_size(lines + 3, columns)
    assert len(whole.rows()) == columns
    json.dumps(whole.rows())


def test_a_size_is_cut() -> None:
    """A run says how large its terminal is; it is drawn as far as there is a page for it."""
    model = screen("x", 100_000, 100_000)
    model.set_size(50_000, 60_000)

    assert (model.columns, model.lines) == (MAX_COLUMNS, MAX_LINES)


class Stored:
    """Events as the store has them."""

    def __init__(self, *data: str) -> None:
        self.events: list[Event] = []
        self.asked = 0
        for text in data:
            self.add(text)

    def add(self, text: str, type: str = "stdout") -> None:
        """Store one more."""
        self.events.append(Event(len(self.events) + 1, type, text, 0, 0.0))

    def events_after(self, run_id: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """Return the events after one."""
        assert run_id == "run"
        return self._page([each for each in self.events if each.id > after], limit, max_bytes)

    def events_before(
        self, run_id: str, before: int | None, limit: int, max_bytes: int
    ) -> list[Event]:
        """Return the events before one."""
        assert run_id == "run"
        found = [each for each in self.events if before is None or each.id < before]
        return self._page(found[::-1], limit, max_bytes)[::-1]

    def _page(self, events: list[Event], limit: int, max_bytes: int) -> list[Event]:
        self.asked += 1
        page: list[Event] = []
        for event in events[:limit]:
            max_bytes -= len(event.data)
            if page and max_bytes < 0:
                break
            page.append(event)
        return page


def texts(look: dict[str, object]) -> list[str]:
    """Return the texts of the lines of a look."""
    rows = look["rows"]
    assert isinstance(rows, list)
    return ["".join(text for text, _ in row) for row in rows]


def test_a_late_viewer_sees_the_screen() -> None:
    """From the last place where the program has drawn it anew, and then with what is added."""
    stored = Stored("\x1b[?1049h\x1b[2J\x1b[Hold", *["\x1b[1;1Hframe\x1b[K"] * 30_000)
    stored.add('{"event":"resized","columns":30,"lines":2}', "marker")
    stored.add("\x1b[2J\x1b[Hnew \x1b[31m")
    stored.add("red\r\n" + "x" * 25)
    screens = Screens(stored)

    first = screens.look(RUN)

    assert texts(first) == ["new red", "x" * 25]
    assert (first["columns"], first["lines"], first["cursor"]) == (30, 2, [25, 1])
    assert (first["whole"], first["done"]) == (True, True)
    stored.add("\x1b[1;1Hlater\x1b[K\x1b[?25l")
    again = screens.look(RUN)
    assert texts(again) == ["later", "x" * 25]
    assert (again["after"], again["cursor"]) == (len(stored.events), None)
    assert texts(Screens(stored).look(RUN)) == texts(again)


def test_what_was_before_is_said_to_be_unknown() -> None:
    """A program that never clears its screen, and has printed more than a look may cost."""
    look = Screens(Stored(*["line of text\r\n" * 100] * 500)).look(RUN)

    assert look["whole"] is False
    assert texts(look) == ["line of text"] * 3 + [""] or not look["done"]
    assert Screens(Stored("a", "b")).look(RUN)["whole"] is True
    assert Screens(Stored()).look({**RUN, "columns": None, "lines": None})["columns"] == 80


@pytest.mark.parametrize(
    "piece",
    [
        *("\x1b[41m\x1b[2J", "\x1b[9999S\x1b[9999T", "a\x1b[9999b", "\x1b[9999L\x1b[9999@", "é日"),
        "\x1b[4h" + "inserted" * 48_000,
    ],
)
def test_a_look_is_short_whatever_is_printed(piece: str) -> None:
    """It ends when its time is over, and the next one goes on until it is done."""
    stored = Stored(piece * (390_000 // len(piece)))
    screens = Screens(stored)
    run = {"id": "run", "columns": 300, "lines": 120}
    used_s = []
    for _ in range(3):
        began_s = time.thread_time()
        look = screens.look(run)
        used_s.append(time.thread_time() - began_s)

    assert max(used_s) < 3  # 0.3 s, the rest of a step, and the rows
    stored.add("\x1bc\x1b[2J\x1b[Hdone")
    for _ in range(6):
        stored.add("more" * 100_000)
    stored.add("\x1bc\x1b[2J\x1b[Hdone")
    look = screens.look(run)  # which is far behind, and begins anew
    assert (texts(look)[0], look["done"]) == ("done", True)


def test_a_look_is_short_however_often_the_size_changes() -> None:
    """Each change costs as much as the screen has cells, and prints nothing."""
    stored = Stored("\x1b[41m\x1b[2J")
    for number in range(1_900):
        columns = 300 if number % 2 else 1
        stored.add(f'{{"event":"resized","columns":{columns},"lines":120}}', "marker")
    began_s = time.thread_time()
    look = Screens(stored).look({"id": "run", "columns": 300, "lines": 120})

    assert look["after"] > 1
    assert time.thread_time() - began_s < 1.5
