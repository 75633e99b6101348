"""The contract of a kind of runner: a `Profile`, and what it reads out of its child's output.

A profile says how to start its program. It may bring a `MessageStream`, for a program that prints
messages, one a line, which a person would not like to read; a `StateReader`, for one that tells
its terminal whether it works or waits; and a `Dialogue`, for one that asks and is answered in
messages. What these return is unredacted, and whole: the order is parse, render whole, redact,
shorten and lay out, since a secret that was cut in two is no longer recognised. So a `Piece` holds
the whole text and its limits, and its owner redacts `piece.text` and gives what is left of it to
`piece.finish`. Pure.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple, Protocol, TypeVar, Union, cast

from kinds.text_layout import LEFT_OUT, WORDS, Line, write_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from config import Config, Setting
    from kinds.dialogue import Dialogue

# Linux: MAX_ARG_STRLEN, the longest single argument.
MAX_ARGUMENT_BYTES: Final = 131_071

# What a run with `--fail-on-denial` ends with. Source: EX_NOPERM of sysexits(3).
DENIAL_EXIT_CODE: Final = 77

WORKING: Final = "working"
WAITING: Final = "waiting"

Text = TypeVar("Text", bound=str)


class Limit(NamedTuple):
    """How much of a text is shown; None is no limit. `keeps_end`: what is left out is the middle.

    A command's beginning and a test's last line say most.
    """

    lines: int | None = None
    line_chars: int | None = None
    chars: int | None = None
    keeps_end: bool = True


class Piece(NamedTuple):
    """Some text to show, whole and unredacted, whose lines are of one kind of `text_layout`.

    `further` is the kind of all but the first line, if it is another. `brief` is the limit for a
    person at the terminal, who cannot fold it. `is_apart`: an empty line goes before it.
    """

    text: str
    kind: str = WORDS
    further: str = ""
    limit: Limit = Limit()
    brief: Limit | None = None
    is_subagent: bool = False
    is_apart: bool = False

    def finish(self, text: Text, *, is_brief: bool = False) -> Text:
        """Return the text of this piece, redacted by now, as it is shown, with its line end."""
        limit = self.brief if is_brief and self.brief is not None else self.limit
        kinds = [self.kind] + [self.further or self.kind] * text.count("\n")
        lines = [Line(*each, self.is_subagent) for each in zip(kinds, text.split("\n"))]
        shown = [f"{write_line(line)}\n" for line in shorten(lines, limit)]
        return cast("Text", ("\n" if self.is_apart else "") + "".join(shown))


class Passed(NamedTuple):
    """Bytes that belong to no message, as they came."""

    raw: bytes


class Message(NamedTuple):
    """One message of the child's: what it says (unredacted), and the text to show for it.

    `touches_files`: it tells of something that may have changed files.
    """

    value: dict[str, Any]
    pieces: tuple[Piece, ...]
    touches_files: bool = False


class Part(NamedTuple):
    """Some more of the child's words while it writes them, unredacted.

    Together they are one text, to be redacted as one stream, without the line end behind it, and
    `is_last` says that it ends, `is_cut` that it ends anywhere: the whole has not come, or is
    shorter. `is_apart` is of the first: an empty line goes before the text.
    `pieces` are to be shown behind it. What comes meanwhile waits for its end.
    """

    text: str
    is_apart: bool = False
    is_last: bool = False
    is_cut: bool = False
    pieces: tuple[Piece, ...] = ()


Item = Union[Passed, Message, Part]


class MessageStream(Protocol):
    """The messages of one run. Thread: one caller. Any split of the same input is the same.

    `is_live`: words are shown while they are written. `tells_progress`: the gateway is told how the
    run stands. Both are set before the first `feed`.
    """

    is_live: bool
    tells_progress: bool

    def feed(self, raw: bytes) -> list[Item]:
        """Return the pieces that are complete now. Raises nothing."""

    def flush(self) -> list[Item]:
        """Return the held remainder at the end of the stream."""

    @property
    def has_begun(self) -> bool:
        """Whether the child has begun to work on the message."""

    def progress(self) -> dict[str, Any]:
        """Return how the run stands, for the `progress` marker."""

    def result(self) -> dict[str, Any]:
        """Return what the child's own result said, for the `finished` marker; empty for none."""


class StateReader(Protocol):
    """Whether the child is working or waiting for the user. Thread: one caller."""

    state: str | None

    @property
    def look_every_s(self) -> float | None:
        """How often `look` is to be called; None if it would find nothing."""

    def begin(self, session_id: int) -> None:
        """Take the POSIX session in which the child runs; once, before all else. Thread: any."""

    def look(self) -> None:
        """Look for facts that the output does not show."""

    def feed(self, raw: bytes) -> None:
        """Look at a piece of the child's output; `state` is what it says by now."""


def shorten(lines: list[Line], limit: Limit) -> list[Line]:
    """Return the lines that are shown, and in the place of the others how many they are."""
    clipped = [line._replace(text=_clip(line.text, limit.line_chars)) for line in lines]
    if limit.lines == 1 and len(lines) > 1:
        missing = len(lines) - 1
        noun = "line" if missing == 1 else "lines"
        return [clipped[0]._replace(text=f"{clipped[0].text} (+{missing} {noun})")]
    head, tail = _fitting(clipped, limit)
    missing = len(lines) - head - tail
    if missing <= 1:
        return clipped  # a note would be as long as what it replaces
    note = Line(LEFT_OUT, f"{missing} more lines", lines[0].is_subagent)
    return [*clipped[:head], note, *clipped[len(lines) - tail :]]


def _fitting(lines: list[Line], limit: Limit) -> tuple[int, int]:
    """Return how many lines are shown of the beginning and of the end."""
    most = len(lines) if limit.lines is None else limit.lines
    chars = math.inf if limit.chars is None else limit.chars
    if len(lines) <= most and sum(len(line.text) for line in lines) <= chars:
        return len(lines), 0
    most = min(most, len(lines))
    if not limit.keeps_end:
        return _count_fitting(lines[:most], chars), 0
    head = _count_fitting(lines[: (most + 1) // 2], chars / 2)
    return head, _count_fitting(lines[::-1][: min(most // 2, len(lines) - head)], chars / 2)


def _count_fitting(lines: list[Line], chars: float) -> int:
    sizes = accumulate(len(line.text) for line in lines)
    return max(1, sum(size <= chars for size in sizes)) if lines else 0


def _clip(line: str, max_chars: int | None) -> str:
    if max_chars is None or len(line) <= max_chars + 20:
        return line
    return f"{line[:max_chars]}... (+{len(line) - max_chars} characters)"


class Worktree(NamedTuple):
    """A worktree that the child makes for its work: below `folder` of the repository.

    `names` are the spellings of its name; none if the child thinks one up.
    """

    folder: str
    names: tuple[str, ...] = ()


class Invocation(NamedTuple):
    """How the child is started: its argv, and its stdin where the prompt is too long for that."""

    argv: tuple[str, ...]
    stdin_text: bytes | None = None
    session_id: str | None = None
    # What reads the messages that it prints, if it does; they are kept in a file of their own.
    messages: MessageStream | None = None
    # What reads out of an interactive session whether it works or waits.
    states: StateReader | None = None
    # The argv with which it prints its words while it writes them, if it can.
    live_argv: tuple[str, ...] = ()
    # How to talk with it on its stdin, where it is started so that it listens, and the prompt,
    # which is then its first message.
    dialogue: Dialogue | None = None
    first_message: str = ""
    # Why it does not listen or does not ask, although the user wants it to.
    cannot_ask: str | None = None
    # The permission modes that the operator may switch to.
    modes: tuple[str, ...] = ()
    # Variables that it must not inherit.
    withheld_variables: tuple[str, ...] = ()
    # Where it works, if that is not the working directory.
    worktree: Worktree | None = None
    # Variables that its environment gets.
    added_variables: tuple[tuple[str, str], ...] = ()
    # Whether its conversation is saved, so that another run can resume it.
    keeps_session: bool = True
    # Whether only its text counts: what its terminal is told about its own state is not passed on.
    is_text_only: bool = False
    # What to tell the user if this job turns out to be a session.
    hint: str | None = None


class Profile(ABC):
    """What differs between two runner types; `rev_runner.py` shows that it is all that differs.

    `name` is what the gateway is told, and what the files of a run are called after; `title` what a
    person calls the child; `program` what the user called. `program_variable` is the variable that
    names the child's program, whose setting is called `program`. `example_arguments` are some of
    the child's own, for the help. `runs_in_demo`: the demo can run it, in place of its own session.
    """

    name: str
    title: str
    program: str
    program_variable: str
    example_arguments: str
    settings: tuple[Setting, ...]
    runs_in_demo = False

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

    # --- what most kinds leave as it is ----------------------------------------------------------

    def add_start_options(self, add_option: Callable[..., None]) -> None:  # noqa: B027 - most have none
        """Add the options of `start` that only this kind of runner has."""

    def can_ask(self, config: Config) -> bool:
        """Whether this program can ask a person in print mode, and read more than one message."""
        del config
        return False

    def listening_invocation(
        self, config: Config, prompt: str, options: argparse.Namespace, *, asks: bool
    ) -> Invocation:
        """Return how to start one that can ask, in print mode, so that it listens, and `asks`."""
        raise NotImplementedError

    def in_mode(self, arguments: Sequence[str], mode: str) -> tuple[str, ...]:
        """Return the user's arguments so that it begins in one of the modes of an invocation."""
        raise NotImplementedError

    def repeatable_arguments(self, arguments: Sequence[str]) -> Mapping[str, str]:
        """Return what of the user's arguments a run that is started again is to have, by name."""
        del arguments
        return {}

    def resume_argv(self, config: Config, session_id: str) -> tuple[str, ...] | None:
        """Return what goes on with a session of the child's, where that can be done."""
        del config, session_id
        return None

    def is_session_kept(self, env: Mapping[str, str], session_id: str) -> bool:
        """Whether the child has kept this session, as far as that can be told without messages."""
        del env, session_id
        return False

    def is_child(self, argv: Sequence[str]) -> bool:
        """Whether a process with this command line is the program that this kind is for."""
        del argv
        return False

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
