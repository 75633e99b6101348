"""How a kind of runner talks with its child: questions, and what answers them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Option(NamedTuple):
    """One of the answers that a question offers."""

    label: str
    description: str


class Choice(NamedTuple):
    """One thing to choose. The answer may be any of the options, or the person's own words."""

    text: str
    header: str
    is_multiple: bool
    options: tuple[Option, ...]


class Scope(NamedTuple):
    """What may be allowed for the rest of the run. `mode` is the permission mode it switches to."""

    label: str
    grant: Mapping[str, Any]
    mode: str | None = None


class Question(NamedTuple):
    """What the child asks a person, unredacted. Nothing goes on there until it is answered.

    `kind` is permission, question (with `choices`) or plan. `key` is the child's own id for it.
    `given` is the tool's whole input. `defaults_to_no`: not to be allowed without a second thought.
    """

    key: str
    kind: str
    tool: str
    given: Mapping[str, Any]
    title: str = ""
    reason: str = ""
    agent: str = ""
    diff: str = ""
    plan: str = ""
    choices: tuple[Choice, ...] = ()
    scopes: tuple[Scope, ...] = ()
    defaults_to_no: bool = False


class Asked(NamedTuple):
    """The child asks."""

    question: Question


class Withdrawn(NamedTuple):
    """The child does not wait for this answer any more."""

    key: str


class Taken(NamedTuple):
    """The child has read a message of a person, or has given it back unread."""

    message_id: str
    is_read: bool = True


class Owed(NamedTuple):
    """A line that the child has to be sent at once: the answer to what only a program asks."""

    line: bytes


class Noted(NamedTuple):
    """Something that the viewer should know, in one sentence; it may hold what the child said."""

    text: str


News = Union[Asked, Withdrawn, Taken, Owed, Noted]


class Dialogue(Protocol):
    """How to talk with the child in lines on its stdin. Pure. Thread: one at a time.

    What it returns as bytes is one whole line each, whatever the texts hold.
    """

    @property
    def is_turn_running(self) -> bool:
        """Whether the child is working on a message."""

    @property
    def is_done(self) -> bool:
        """Whether the child would do nothing more by itself: no turn, no message, no task."""

    @property
    def awaits_turn(self) -> bool:
        """Whether a turn should begin soon, since something in the background has ended."""

    @property
    def ended_turns(self) -> int:
        """How many turns have ended."""

    @property
    def was_interrupted(self) -> bool:
        """Whether the last turn that has ended was interrupted."""

    def read(self, message: Mapping[str, Any]) -> list[News]:
        """Return what a message of the child's means for those who talk with it."""

    def read_foreign(self, raw: bytes) -> list[News]:
        """The same for the beginning of a line that was too long or too deep to be a message."""

    def say(self, message_id: str, text: str) -> bytes:
        """Return a person's message."""

    def take_back(self, message_id: str) -> bytes:
        """Return what asks for a message that was not read yet."""

    def allow(self, question: Question, answers: Sequence[str], scope: Scope | None) -> bytes:
        """Return the answer that allows the request. `answers` are to the choices, in order."""

    def deny(self, question: Question, message: str) -> bytes:
        """Return what forbids it, and tells the child why."""

    def interrupt(self) -> bytes:
        """Return what breaks off the running turn."""

    def set_mode(self, mode: str) -> bytes:
        """Return what switches to another permission mode."""
