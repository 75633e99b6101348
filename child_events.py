"""What a kind of runner reads out of its child's output besides text: messages, and its state.

A profile brings a `MessageStream` for a child that prints messages, one a line, which a person
would not like to read; and a `StateReader` for one that tells its terminal whether it works or
waits. Both are optional. What they return is unredacted, and whole: the order is parse, render
whole, redact, shorten, since a secret that was cut in two is no longer recognised. So a `Piece`
holds the whole text and its limits, and its owner redacts `piece.text` and gives what is left of it
to `piece.finish`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, Union, cast

WORKING: Final = "working"
WAITING: Final = "waiting"

Text = TypeVar("Text", bound=str)


@dataclass(frozen=True)
class Piece:
    """Some text to show, whole and unredacted.

    `max_lines` and `max_chars` (of one line) are what `finish` shortens it to; None is no limit.
    `before` goes in front of it, `indent` in front of each line; neither holds anything of the
    child's.
    """

    text: str
    max_lines: int | None = None
    max_chars: int | None = None
    indent: str = ""
    before: str = ""

    def finish(self, text: Text) -> Text:
        """Return the text of this piece, redacted by now, as it is shown, with its line end."""
        short = shorten(text, self.max_lines, self.max_chars)
        lines = [f"{self.indent}{line}".rstrip() for line in short.split("\n")]
        return cast("Text", self.before + "\n".join(lines) + "\n")


@dataclass(frozen=True)
class Passed:
    """Bytes that belong to no message, as they came."""

    raw: bytes


@dataclass(frozen=True)
class Message:
    """One message of the child's: what it says (unredacted), and the text to show for it."""

    value: dict[str, Any]
    pieces: tuple[Piece, ...]


Item = Union[Passed, Message]


class MessageStream(Protocol):
    """The messages of one run. Thread: one caller. Any split of the same input is the same."""

    def feed(self, raw: bytes) -> list[Item]:
        """Return what is complete now. Raises nothing."""

    def flush(self) -> list[Item]:
        """Return what was held back, at the end of the stream."""

    def result(self) -> dict[str, Any]:
        """Return what the child's own result said, for the `finished` marker; empty for none."""


class StateReader(Protocol):
    """Whether the child works or waits for somebody. Thread: one caller."""

    state: str | None

    def feed(self, raw: bytes) -> None:
        """Look at a piece of the child's output; `state` is what it says by now."""


def shorten(text: Text, max_lines: int | None, max_chars: int | None) -> Text:
    """Return `text` with at most so many lines, and so many characters in each.

    What is left out is the middle: a command's beginning and a test's last line say most. A note
    says how much is missing; it is no longer than what it stands for.
    """
    lines = text.split("\n")
    missing = 0 if max_lines is None else len(lines) - max_lines
    if max_lines == 1 and missing > 0:
        noun = "line" if missing == 1 else "lines"
        return cast("Text", f"{_clip(lines[0], max_chars)} (+{missing} {noun})")
    if max_lines is not None and missing > 1:
        head = (max_lines + 1) // 2
        tail = max_lines - head
        note = f"... {missing} lines left out ..."
        lines = [*lines[:head], note, *lines[len(lines) - tail :]]
    return cast("Text", "\n".join(_clip(line, max_chars) for line in lines))


def _clip(line: str, max_chars: int | None) -> str:
    if max_chars is None or len(line) <= max_chars + 20:
        return line
    return f"{line[:max_chars]}... (+{len(line) - max_chars} characters)"
