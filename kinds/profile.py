"""The contract of a kind of runner: a `Profile`, and what it reads out of its child's output.

A profile says how to start its program. It may bring a `MessageStream`, for a program that prints
messages, one a line, which a person would not like to read; and a `StateReader`, for one that tells
its terminal whether it works or waits. What these return is unredacted, and whole: the order is
parse, render whole, redact, shorten, since a secret that was cut in two is no longer recognised. So
a `Piece` holds the whole text and its limits, and its owner redacts `piece.text` and gives what is
left of it to `piece.finish`. Pure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Final, Protocol, TypeVar, Union, cast

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from config import Config, Setting

# Linux: MAX_ARG_STRLEN, the longest single argument.
MAX_ARGUMENT_BYTES: Final = 131_071

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
    """Whether the child is working or waiting for the user. Thread: one caller."""

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


@dataclass(frozen=True)
class Invocation:
    """How the child is started: its argv, and its stdin where the prompt is too long for that."""

    argv: tuple[str, ...]
    stdin_text: bytes | None = None
    session_id: str | None = None
    # What goes on with the session later, where that can be done.
    resume_argv: tuple[str, ...] | None = None
    # What reads the messages that it prints, if it does; they are kept in a file of their own.
    messages: MessageStream | None = None
    # What reads out of an interactive session whether it works or waits.
    states: StateReader | None = None


class Profile(ABC):
    """What differs between two runner types; `rev_runner.py` shows that it is all that differs.

    `name` is what the gateway is told, and what the files of a run are called after; `title` what a
    person calls the child; `program` what the user called. `program_variable` is the variable that
    names the child's program, whose setting is called `program`. `example_arguments` are some of
    the child's own, for the help.
    """

    name: str
    title: str
    program: str
    program_variable: str
    example_arguments: str
    settings: tuple[Setting, ...]

    @abstractmethod
    def invocation(
        self, config: Config, prompt: str | None, mode: str, options: argparse.Namespace
    ) -> Invocation:
        """Return how to start it: `mode` is print or interactive, `options` are those of `start`.

        `options.arguments` are for the child as they are. Raises RunnerError.
        """

    def argv(self, config: Config) -> tuple[str, ...]:
        """Return the program to run, with its first arguments."""
        argv: tuple[str, ...] = config.own["program"]
        return argv

    # --- what most kinds leave as it is ------------------------------------------------------

    def add_start_options(self, add_option: Callable[..., None]) -> None:  # noqa: B027 - most have none
        """Add the options of `start` that only this kind of runner has."""

    def answers_version(self, config: Config) -> bool:
        """Whether the program is known to answer `--version`, and to do nothing else then."""
        del config
        return False

    def program_folders(self, home: Path, env: Mapping[str, str]) -> Mapping[str, Sequence[Path]]:
        """Return where the program may be if it is not in PATH, by what a person calls it.

        At least one: here, where pip, pipx and others put programs of one user.
        """
        del env
        return {"~/.local/bin": [home / ".local" / "bin"]}

    def extra_allowed_commands(self, config: Config) -> tuple[str, ...]:
        """Return what the operator may run besides the documented commands."""
        return config.extra_allowed_commands
