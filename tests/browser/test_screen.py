"""The text view's idea of a terminal, compared with a whole one: xterm.js."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.browser.visitor import Visitor

# What programs draw with, on a screen that is small enough to wrap and scroll.
SIZE = {"columns": 12, "rows": 6, "newlineReturns": False}
TEXT = st.lists(st.sampled_from(["a", "b", " ", "é", "日", "e\u0301"]), max_size=8).map("".join)
MOVES = st.sampled_from(
    [
        "\r\n",
        "\n",
        "\r",
        "\x08",
        "\t",
        "\x1b[A",
        "\x1b[2B",
        "\x1b[3C",
        "\x1b[2D",
        "\x1b[5G",
        "\x1b[H",
        "\x1b[3;4H",
        "\x1b[2d",
        "\x1b[E",
        "\x1b[F",
        "\x1b7",
        "\x1b8",
        "\x1b[s",
        "\x1b[u",
        "\x1bE",
    ]
)
ERASURES = st.sampled_from(
    [
        "\x1b[K",
        "\x1b[1K",
        "\x1b[2K",
        "\x1b[J",
        "\x1b[1J",
        "\x1b[2X",
        "\x1b[2P",
        "\x1b[2@",
        "\x1b[L",
        "\x1b[M",
    ]
)
STYLES = st.sampled_from(["\x1b[31m", "\x1b[1;4m", "\x1b[m", "\x1b[38;5;200m", "\x1b[38;2;1;2;3m"])
IGNORED = st.sampled_from(
    [
        "\x1b]0;title\x07",
        "\x1b]8;;http://a\x1b\\",
        "\x1b[?25l",
        "\x1b[>4m",
        "\x1b=",
        "\x1b(B",
        "\x07",
    ]
)
OUTPUT = st.lists(TEXT | MOVES | ERASURES | STYLES | IGNORED, max_size=14).map("".join)

_SHOW_BOTH = """async ([pieces, size]) => {
  const { Screen } = await import("/static/screen.js");
  await import("/static/vendor/xterm/xterm.js");
  const screen = new Screen(size);
  const terminal = new Terminal({ cols: size.columns, rows: size.rows, allowProposedApi: true });
  for (const piece of pieces) {
    screen.write(piece);
    await new Promise((resolve) => terminal.write(piece, resolve));
  }
  const buffer = terminal.buffer.active;
  const row = (_, index) => buffer.getLine(index).translateToString(true);
  const rows = Array.from({ length: buffer.length }, row);
  terminal.dispose();
  const text = (lines) => lines.map((line) => line.trimEnd()).join("\\n").trimEnd();
  return [text(screen.lines.map((cells) => cells.map(([each]) => each).join(""))), text(rows)];
}"""


def test_the_screen_shows_what_a_terminal_shows(desk: Visitor) -> None:
    """Whatever is printed, and wherever it is cut, the lines are those of xterm.js."""
    page = desk.open_list()

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(OUTPUT, st.integers(0, 60))
    def check(output: str, cut: int) -> None:
        ours, theirs = page.evaluate(_SHOW_BOTH, [[output[:cut], output[cut:]], SIZE])

        assert ours == theirs, json.dumps(output)

    check()


@pytest.mark.parametrize("end", ["\r\n", "…"])
def test_the_alternate_screen_gives_the_other_one_back(desk: Visitor, end: str) -> None:
    """What was there before a full-screen program is there when it ends; the text, which is read
    afterwards, keeps what the program drew last.
    """
    drawn = "\x1b[?1049h\x1b[Hgone\x1b[2J\x1b[Hfull\x1b[3;1Hscreen\x1b[6;1H"
    pieces = [f"before{end}{drawn}", "\x1b[?1049l", "after\r\nall"]

    ours, theirs = desk.open_list().evaluate(_SHOW_BOTH, [pieces, SIZE])

    assert theirs == f"before{end}after\nall".replace("\r\n", "\n")
    assert ours == f"before{end}\nfull\n\nscreen\nafter\nall".replace("\r\n\n", "\n")
