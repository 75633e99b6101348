"""Markdown as a terminal shows it: headings, emphasis, code, lists, links, tables.

    prose = Prose(lambda: 80)
    shown = prose.begin("● ", "  ") + prose.feed("Some **bo") + prose.feed("ld** words")
    shown += prose.end_line() + prose.end()

Words appear as they come: only what may become a mark is held back, until it is decided, and a
table until it is complete. How the text is cut makes no difference. What is no Markdown stays as it
is. Pure: no I/O, no clock.

It is a reading of what models write, not all of CommonMark: a mark is closed in the line in which
it is opened.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Callable, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

BOLD: Final = "1"
DIM: Final = "2"
ITALIC: Final = "3"
UNDERLINED: Final = "4"
CODE: Final = "36"
_STRUCK: Final = "9"

# A mark that is not closed within this many characters is none, however the line goes on; and none
# that so many like it follow which do not close it.
_MAX_SPAN_CHARS: Final = 1_000
_MAX_CLOSING: Final = 20
# Every row of a table gets as many cells as the longest one has.
_MAX_COLUMNS: Final = 200
# None of these can match a text in two ways: the time would grow with its square or cube, and
# nothing else goes on while a pattern is matched.
# Of a line that may still become something else than a paragraph.
_UNDECIDED: Final = re.compile(
    r"[ \t]*(?:[-*_+][-*_+ \t]*|(?:#{1,6}|[0-9]{1,9}[.)]?|[.)]|>)[ \t]*)?"
)
_WHOLE_LINES: Final = re.compile(r"[ \t]*(?:`{1,2}\Z|`{3}|~{1,2}\Z|~{3}|\|)")
_FENCE: Final = re.compile(r"[ \t]*(`{3,}|~{3,}(?!~))([^`]*)")
_HEADING: Final = re.compile(r" {0,3}#{1,6}[ \t]+")
_RULE: Final = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})")
_ITEM: Final = re.compile(r"([ \t]*)([-*+]|[0-9]{1,9}[.)])[ \t]+")
_QUOTE: Final = re.compile(r"[ \t]*>[ \t]?")
_TABLE_RULE: Final = re.compile(r"[ \t:|]*-[ \t:|-]*")
_CELL_END: Final = re.compile(r"(?<!\\)\|")
_PLAIN: Final = re.compile(r"[^\\`*_~\[]+")
_LINK_TEXT: Final = re.compile(r"\[([^\[\]]+)\]")
_ADDRESS: Final = re.compile(r"\(([^()\s]*)\)")
_NO_LINK: Final = re.compile(r"\[(?:[^\[\]]*(?:\[|\][^(])|\]|[^\[\]]*\]\([^()\s]*[(\s])")
_CLOSING_FENCE: Final = re.compile(r"[ \t]*(?:(?:`+|~+)[ \t]*)?")
_ESCAPABLE: Final = frozenset("\\`*_{}[]()#+-.!|~>")

# A style and a text that has it.
Span = tuple[str, str]


class Prose:
    """One text at a time. `columns` is asked whenever a line may have to be broken.

    `begin` comes first, with what goes in front of its first line and of all others.
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._first = self._margin = ""
        self._fence = ""  # what closes the code that is open
        self._table: list[str] = []
        self._line = ""
        self._at = 0  # how much of the line is shown
        self._flow: _Flow | None = None  # of the line, once it is decided what it is
        self._style = ""

    def begin(self, first: str, margin: str) -> None:
        """Begin a text."""
        self._first, self._margin = first, margin

    def feed(self, text: str) -> str:
        """Return what can be shown of the line by now."""
        self._line += text
        return self._go_on(is_whole=False)

    def end_line(self) -> str:
        """Return the rest of the line, and its end."""
        if not self._line.strip() and not self._fence:
            self._line = ""
            return self._end_table() + "\n"
        shown = self._go_on(is_whole=True)
        if self._flow is not None:
            shown += self._flow.end()
        self._line, self._at, self._flow, self._style = "", 0, None, ""
        return shown

    def end(self) -> str:
        """Return what is left at the end of the text."""
        shown = self.end_line() if self._line else ""
        self._fence = ""
        return shown + self._end_table()

    def _go_on(self, *, is_whole: bool) -> str:
        if self._flow is not None:
            return self._show_rest(self._flow, is_whole=is_whole)
        if not is_whole and not self._is_decided():
            return ""
        return self._begin_line(is_whole=is_whole)

    def _is_decided(self) -> bool:
        if self._fence:
            return not _may_close(self._line)
        return not (_UNDECIDED.fullmatch(self._line) or _WHOLE_LINES.match(self._line))

    def _begin_line(self, *, is_whole: bool) -> str:
        """Show the beginning of a line, by what kind of block it belongs to."""
        line = self._line
        fence = _FENCE.fullmatch(line)
        if self._fence:
            if fence and fence[1].startswith(self._fence) and not fence[2].strip():
                self._fence = ""
                return ""
            return self._begin_code()
        if line.lstrip().startswith("|"):
            self._table.append(line)
            return ""
        shown = self._end_table()
        if fence:
            self._fence = fence[1]
            return shown
        return shown + self._begin_words(is_whole=is_whole)

    def _begin_code(self) -> str:
        self._flow = _Flow(self._take_first() + "  ", "", 0)
        self._style = CODE
        return self._show_rest(self._flow, is_whole=False)

    def _begin_words(self, *, is_whole: bool) -> str:
        line, margin, before = self._line, self._margin, ""
        if is_whole and _RULE.fullmatch(line):
            self._flow = _Flow(self._take_first(), margin, 0)
            self._at = len(line)
            return self._flow.put([(DIM, "─" * max(3, min(40, self._columns() - 4)))])
        heading, item, quote = _HEADING.match(line), _ITEM.match(line), _QUOTE.match(line)
        if heading:
            self._at, self._style = heading.end(), BOLD
        elif item:
            sign = item[2] if item[2][0].isdigit() else "-"
            before = f"{item[1]}{sign} ".replace("\t", "    ")
            self._at = item.end()
        elif quote:
            self._at, self._style = quote.end(), ITALIC
            before = "│ "
        first = self._take_first()
        margin += before if quote else " " * len(before)
        self._flow = _Flow(first + before, margin, self._columns())
        return self._show_rest(self._flow, is_whole=is_whole)

    def _show_rest(self, flow: _Flow, *, is_whole: bool) -> str:
        if self._style == CODE:
            rest, self._at = self._line[self._at :], len(self._line)
            return flow.put([(CODE, rest)])
        spans, self._at = _read_spans(self._line, self._at, self._style, is_whole=is_whole)
        return flow.put(spans)

    def _take_first(self) -> str:
        first, self._first = self._first or self._margin, ""
        return first

    # --- tables ---

    def _end_table(self) -> str:
        rows, self._table = self._table, []
        is_table = len(rows) > 1 and _TABLE_RULE.fullmatch(rows[1])
        if not is_table or max(row.count("|") for row in rows) > _MAX_COLUMNS:
            return "".join(self._paragraph([("", row)]) for row in rows)
        cells = [_split_row(row) for row in [rows[0], *rows[2:]]]
        count = max(len(row) for row in cells)
        table = [row + [[]] * (count - len(row)) for row in cells]
        widths = [max(_width_of(row[at]) for row in table) for at in range(count)]
        room = self._columns() or 10_000
        if len(self._margin) + sum(widths) + 3 * (count - 1) <= room:
            return "".join(self._aligned(table, widths))
        return "".join(self._records(table))

    def _aligned(self, table: list[list[list[Span]]], widths: list[int]) -> Iterator[str]:
        for number, row in enumerate(table):
            spans: list[Span] = []
            for at, cell in enumerate(row):
                spans += [] if at == 0 else [(DIM, " │ ")]
                spans += [(_add(BOLD if number == 0 else "", style), text) for style, text in cell]
                is_last = at == len(row) - 1
                spans.append(("", "" if is_last else " " * (widths[at] - _width_of(cell))))
            yield f"{self._take_first()}{_styled(spans)}\n"
            if number == 0:
                rule = "─┼─".join("─" * width for width in widths)
                yield f"{self._margin}{_styled([(DIM, rule)])}\n"

    def _records(self, table: list[list[list[Span]]]) -> Iterator[str]:
        """Show each row as a list, where the rows are wider than the terminal."""
        head, *rows = table
        for number, row in enumerate(rows):
            if number:
                yield "\n"
            for name, cell in zip(head, row):
                label = [(_add(BOLD, style), text) for style, text in name]
                yield self._paragraph([*label, ("", ": "), *cell])

    def _paragraph(self, spans: list[Span]) -> str:
        flow = _Flow(self._take_first(), f"{self._margin}  ", self._columns())
        return flow.put(spans) + flow.end()


def _may_close(line: str) -> bool:
    """Whether a line in code may yet be what closes it."""
    return _CLOSING_FENCE.fullmatch(line) is not None


# --- within a line --------------------------------------------------------------------------------


def _read_spans(line: str, at: int, style: str, *, is_whole: bool) -> tuple[list[Span], int]:
    """Return what can be shown of a line from `at` on, and where that ends."""
    spans: list[Span] = []
    while at < len(line):
        plain = _PLAIN.match(line, at)
        if plain:
            spans.append((style, plain[0]))
            at = plain.end()
            continue
        read = _read_mark(line, at, style, is_whole=is_whole)
        if read is None:
            break
        spans += read[0]
        at = read[1]
    return spans, at


def _read_mark(line: str, at: int, style: str, *, is_whole: bool) -> tuple[list[Span], int] | None:
    """Return what a mark makes of what follows, and where that ends; None if it is undecided."""
    mark = line[at]
    # Whatever comes later is too far away.
    is_whole = is_whole or len(line) - at > _MAX_SPAN_CHARS
    if mark == "\\":
        following = line[at + 1 : at + 2]
        if not following and not is_whole:
            return None
        return ([(style, following)], at + 2) if following in _ESCAPABLE and following else (
            [(style, mark)], at + 1)  # fmt: skip
    read = _read_link(line, at, style) if mark == "[" else _read_pair(line, at, style)
    if read is not None:
        return read if is_whole or read[1] < len(line) else None
    if not (is_whole or _is_hopeless(line, at)):
        return None
    length = len(_run(line, at)) if mark != "[" else 1
    return [(style, line[at : at + length])], at + length


def _is_hopeless(line: str, at: int) -> bool:
    """Whether a mark is none, whatever comes."""
    run = _run(line, at)
    if run[0] == "[":
        return _NO_LINK.match(line, at) is not None
    return run[0] != "`" and at + len(run) < len(line) and not _may_open(line, at, run)


def _may_open(line: str, at: int, run: str) -> bool:
    is_inside = run[0] == "_" and _is_letter(line, at - 1)
    return run in _EMPHASES and _is_text(line, at + len(run)) and not is_inside


def _run(line: str, at: int) -> str:
    mark = line[at]
    end = at
    while end < len(line) and line[end] == mark:
        end += 1
    return line[at:end]


def _read_pair(line: str, at: int, style: str) -> tuple[list[Span], int] | None:
    """Read what stands between two equal marks; None if there is no such thing here."""
    run = _run(line, at)
    begin = at + len(run)
    if run[0] == "`":
        close = re.compile(rf"(?<!`){run}(?!`)").search(line, begin, begin + _MAX_SPAN_CHARS)
        if close is None:
            return None
        return [(_add(style, CODE), line[begin : close.start()].strip(" ") or " ")], close.end()
    if not _may_open(line, at, run):
        return None
    added, end = _EMPHASES[run], begin
    for _ in range(_MAX_CLOSING):
        end = line.find(run, end + 1, begin + _MAX_SPAN_CHARS)
        if end < 0:
            return None
        closing = _run(line, end)
        after = end + len(closing)
        inner = line[begin:end]
        is_open_code = inner.count("`") % 2 == 1
        is_inside = run[0] == "_" and _is_letter(line, after)
        if len(closing) == len(run) and _is_text(line, end - 1) and not (is_open_code or is_inside):
            return _read_spans(inner, 0, _add(style, added), is_whole=True)[0], after
        end = after - 1
    return None


_EMPHASES: Final = {
    "*": ITALIC,
    "_": ITALIC,
    "**": BOLD,
    "__": BOLD,
    "***": f"{BOLD};{ITALIC}",
    "~~": _STRUCK,
}


def _read_link(line: str, at: int, style: str) -> tuple[list[Span], int] | None:
    text = _LINK_TEXT.match(line, at, at + _MAX_SPAN_CHARS)
    address = _ADDRESS.match(line, text.end(), at + 2 * _MAX_SPAN_CHARS) if text else None
    if text is None or address is None:
        return None
    inner = _read_spans(text[1], 0, _add(style, UNDERLINED), is_whole=True)[0]
    shown = [] if address[1] == text[1] or not address[1] else [(DIM, f" ({address[1]})")]
    return inner + shown, address.end()


def _is_text(line: str, at: int) -> bool:
    return 0 <= at < len(line) and not line[at].isspace()


def _is_letter(line: str, at: int) -> bool:
    return 0 <= at < len(line) and line[at].isalnum()


def _split_row(row: str) -> list[list[Span]]:
    inner = row.strip().strip("|") if row.strip().endswith("|") else row.strip().lstrip("|")
    cells = (cell.strip().replace("\\|", "|") for cell in _CELL_END.split(inner))
    return [_read_spans(cell, 0, "", is_whole=True)[0] for cell in cells]


# --- on the terminal ------------------------------------------------------------------------------


class _Flow:
    """One line of text as lines of a terminal, broken at blanks if there are columns."""

    def __init__(self, first: str, margin: str, columns: int) -> None:
        self._first: str | None = first
        self._margin = margin
        self._columns = columns
        self._column = _width(_ESCAPE.sub("", first))
        self._start = self._column
        self._blanks: list[Span] = []
        self._word: list[Span] = []

    def put(self, spans: list[Span]) -> str:
        """Return what can be shown: a word when it ends, as the terminal's line may end before."""
        shown, self._first = self._first or "", None
        for style, text in spans:
            for part in re.split("([ \t]+)", text) if self._columns else [text]:
                if not self._columns:
                    shown += _styled([(style, part)])
                elif part and part[0] in " \t":
                    shown += self._end_word()
                    self._blanks.append((style, part.replace("\t", " ")))
                elif part:
                    self._word.append((style, part))
        return shown

    def end(self) -> str:
        """Return the rest, and the line's end."""
        return self.put([]) + self._end_word() + "\n"

    def _end_word(self) -> str:
        word, self._word = self._word, []
        if not word:
            return ""
        blanks, self._blanks = self._blanks, []
        width, gap = _width_of(word), _width_of(blanks)
        if self._column + gap + width > self._columns and self._column > self._start:
            self._column = self._start = _width(_ESCAPE.sub("", self._margin))
            self._column += width
            return f"\n{self._margin}{_styled(word)}"
        self._column += gap + width
        return _styled([*blanks, *word])


_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


def _styled(spans: list[Span]) -> str:
    return "".join(
        f"\x1b[{style}m{text}\x1b[0m" if style and text else text for style, text in spans
    )


def _add(style: str, more: str) -> str:
    return ";".join(dict.fromkeys(each for each in (*style.split(";"), *more.split(";")) if each))


def _width_of(spans: list[Span]) -> int:
    return sum(_width(text) for _style, text in spans)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )  # fmt: skip
