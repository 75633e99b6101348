"""The text of a run in colour: how it looks, and that nothing in it is lost or gets through."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.text_layout import SIGNS, WORDS, Line, write_line
from runner.painter import Painter

COLORED = re.compile(r"\x1b\[([0-9;]*)m")
NAMES = {"1": "b", "2": "dim", "3": "i", "4": "u", "9": "s", "31": "red", "32": "green",
         "36": "code", "1;3": "b i", "2;3": "dim i", "1;36": "b code"}  # fmt: skip


def paint(chunks: Iterable[str], columns: int = 40) -> str:
    """Return what a terminal gets."""
    painter = Painter(lambda: columns)
    return "".join(painter.feed(chunk) for chunk in chunks) + painter.flush()


def cells(painted: str) -> list[tuple[str, str]]:
    """Return each character with its style; that there is no other escape is checked here."""
    found, style = [], ""
    for at, part in enumerate(COLORED.split(painted)):
        if at % 2:
            style = "" if part == "0" else part
        else:
            assert "\x1b" not in part
            found += [(style, c) for c in part]
    assert style == ""
    return found


def tagged(painted: str) -> str:
    """Return it with names in the place of the colours, for people."""
    shown, last = "", ""
    for style, c in [*cells(painted), ("", "")]:
        if style != last:
            shown += f"</{NAMES[last]}>" if last else ""
            shown += f"<{NAMES[style]}>" if style else ""
            last = style
        shown += c
    return shown


SHOWN = [
    ("Hello.\n", "● Hello.\n"),
    ("One.\n\nTwo.\n", "● One.\n\n  Two.\n"),
    ("\\● no tool\n", "● ● no tool\n"),
    ("some words that are too long for one line of it\n",
     "● some words that are too long for one\n  line of it\n"),
    ("## A **b** `c`\n", "● <b>A b </b><b code>c</b code>\n"),
    ("**a b** *c* _d_ ***e*** ~~f~~ ``g`h`` a_b_c 2 * 3 * 4\n",
     "● <b>a b</b> <i>c</i> <i>d</i> <b i>e</b i> <s>f</s> <code>g`h</code> a_b_c 2 * 3 * 4\n"),
    ("\\*a\\* **open *x [y [z](u v)\n", "● *a* **open *x [y [z](u v)\n"),
    ("[a](http://h/) and [http://h/](http://h/)\n",
     "● <u>a</u><dim> (http://h/)</dim> and <u>http://h/</u>\n"),
    ("* a\n  1. b\n+ [ ] a long item that goes on and on\n",
     "● - a\n    1. b\n  - [ ] a long item that goes on and on\n"),
    ("> a *b*\n---\n", "● │ <i>a b</i>\n  <dim>" + "─" * 36 + "</dim>\n"),
    ("```py\nif **x**:\n\n    y\n```\nz\n",
     "●   <code>if **x**:</code>\n    \n    <code>    y</code>\n  z\n"),
    ("| a | `b\\|c` |\n|---|--:|\n| 宽 | d |\ne\n",
     ("● <b>a</b> <dim> │ </dim><b code>b|c</b code>\n  <dim>───┼────</dim>\n"
      "  宽<dim> │ </dim>d\n  e\n")),
    ("| name | " + "x" * 40 + " |\n|--|--|\n| v | w |\n",
     "● <b>name</b>: v\n  <b>" + "x" * 40 + "</b>:\n    w\n"),
    ("| no table\n", "● | no table\n"),
    ("◆ a\n◆ b\n\n▲ c\n\n» me: d\n» e\n\n■ f\n",
     ("<dim>✻ a</dim>\n<dim>✻ b</dim>\n\n<red>▲ c</red>\n\n<code>> me: d</code>\n"
      "<code>  e</code>\n\n<dim>✻ f</dim>\n")),
    ("∴ a\n∴ b\n", "<dim i>∴ a</dim i>\n<dim i>  b</dim i>\n"),
    ("● Bash: a\n◦ b\n⎿ c\n⋯ 3 more lines\n⎿ d\n",
     ("● <b>Bash</b>(a\n      b)\n<dim>  ⎿  c</dim>\n     <dim>… +3 more lines</dim>\n"
      "     <dim>d</dim>\n")),
    ("● Shot\n▲ failed: a\n⎿ b\n\n▲ c\n",
     "● <b>Shot</b>\n<red>  ⎿  failed: a</red>\n     <dim>b</dim>\n\n<red>▲ c</red>\n"),
    ("● Edit: a\n⎿ b\n▏ @@ -9,2 +9,2 @@\n▏  c\n▏ -d\n▏ +e\n▏  f\n▏ @@\n▏ -g\n",
     ("● <b>Edit</b>(a)\n<dim>  ⎿  b</dim>\n     <dim>   9 </dim>  c\n"
      "     <dim>  10 </dim><red>- d</red>\n     <dim>  10 </dim><green>+ e</green>\n"
      "     <dim>  11 </dim>  f\n<dim>     ⋯</dim>\n          <red>- g</red>\n")),
    ("● A: b\n● C: d\n⎿ e\n\n○ A: b\n⎿ f\n",
     "● <b>A</b>(b)\n● <b>C</b>(d)\n<dim>  ⎿  e</dim>\n\n<dim>● A(b)</dim>\n<dim>  ⎿  f</dim>\n"),
    ("┊ a *b*\n\n┊ ● C: d\n┊ ⎿ e\n\nf\n",
     "<dim>┊ </dim>● a <i>b</i>\n\n<dim>┊ </dim>● <b>C</b>(d)\n<dim>┊   ⎿  e</dim>\n\n● f\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_how_it_looks(text: str, shown: str) -> None:
    """As Claude Code at the keyboard, in the terminal's own colours."""
    assert tagged(paint([text])) == shown


def test_words_are_shown_as_they_come() -> None:
    """Only what may become a mark waits, and a word that may have to go to the next line."""
    painter = Painter(lambda: 40)

    assert painter.feed("Some wor") == "● Some"
    assert painter.feed("ds and **bo") == " words and"
    assert painter.feed("ld** or") == " \x1b[1mbold\x1b[0m"
    assert painter.feed(" 2 * 3 _") == " or 2 * 3"
    assert painter.feed("\n") == " _\n"
    assert painter.feed("    wi") == "  "
    assert painter.flush() == "    wi\n"


PART = st.sampled_from(
    ["\\", " ", "  ", "a", "bc", "`", "```", "*", "**", "_", "~~", "[", "](", ")", "|", "|-|", "#",
     "- ", "1. ", "> ", "\n", "\n\n", "\t", "é", "宽", "\x1b[31m", "\x9b1m", "\x07", "\r", "┊ "]
    + [f"{sign} " for sign in SIGNS.values()]
)  # fmt: skip
TEXT = st.lists(PART, max_size=20).map("".join)


@given(TEXT, st.integers(0, 30), st.data())
def test_how_it_is_cut_makes_no_difference(text: str, columns: int, data: st.DataObject) -> None:
    """Any split looks the same, and no escape sequence of the text's own gets through."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))

    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]

    whole = cells(paint([text], columns))

    assert cells(paint(parts, columns)) == whole
    assert cells(paint(text, columns)) == whole


@given(TEXT, st.integers(0, 30))
def test_no_word_is_lost(text: str, columns: int) -> None:
    """What Claude says is there, whatever marks stand around it, and in its order."""
    laid_out = "\n".join(write_line(Line(WORDS, line)) for line in text.split("\n"))

    shown = "".join(c for _style, c in cells(paint([laid_out], columns)))

    # A table that is too wide repeats its head; the language of code is not shown.
    if "|-" not in text and "```" not in text and "~~~" not in text:
        letters = re.sub(r"[^a-zé宽]", "", re.sub(r"\x1b\[31m|\x9b1m", "", text))
        assert re.sub(r"[^a-zé宽]", "", re.sub(r"\[31m|1m", "", shown)) == letters


@pytest.mark.parametrize(
    "text",
    [" " * 5_000 + "x", "|a|\n" + " " * 2_000 + "|" + " -" * 2_000 + "x", "a *b" * 30_000,
     "```\n" + " " * 100_000 + "x", "~" * 40_000 + "`", " _b*c~~d**e" * 20_000, "|" * 100_000,
     "|a" * 20_000 + "|\n|-|\n" + "|a\n" * 3_000],
    ids=["blanks", "table", "marks", "code", "fence", "all marks", "cells", "columns"],
)  # fmt: skip
def test_no_line_takes_long(text: str) -> None:
    """A line that means no good is painted as quickly as any other."""
    began = time.process_time()
    paint([text, "\n"])
    assert time.process_time() - began < 15
