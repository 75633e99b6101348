"""The text of an operator's command -> the argv that may run, or the reason why nothing runs.

Pure: looks at nothing but its arguments and starts nothing. A command is allowed when its parsed
argv equals that of an entry, whole and exact; there is no prefix, no pattern and no shell, so that
`git status && x`, `git diff --output=x` and `A=b npm test` are simply other commands, and refused.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCUMENTED_COMMANDS: Final = (
    "npm test",
    "npm run test",
    "pnpm test",
    "yarn test",
    "pytest",
    "pytest -v",
    "go test ./...",
    "cargo test",
    "git diff",
    "git diff --cached",
    "git status",
    "git log --oneline -10",
    "ls -la",
    "pwd",
)

# The gateway's own limit for a command is 1,000 characters; what is longer is no button of ours.
MAX_COMMAND_CHARS: Final = 1_000

# A repository's own configuration can name programs that git would start. These switch off the
# places that the commands above can reach: the file system monitor, hooks (`git status` may write
# the index, which runs one), a signature checker, and the fetch of objects that are missing from a
# partial clone. Sources: git-config(1), githooks(5).
_GIT_CONFIG: Final = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "log.showSignature=false",
    "protocol.allow=never",
)
_GIT_DIFF_FLAGS: Final = ("--no-ext-diff", "--no-textconv")
_GIT_SHOWS_DIFFS: Final = frozenset({"diff", "log", "show"})


class AllowlistError(ValueError):
    """An entry of the user's own allowlist that cannot run as written; the message says why."""


@dataclass(frozen=True)
class Allowed:
    """A command that may run.

    `name` is the entry as the user or the documentation wrote it, `argv` what is executed.
    """

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """A command that must not run.

    `reason` is a clause that fits after a colon; it does not repeat the command.
    """

    reason: str


class Allowlist:
    """The documented commands and the user's own, compared as parsed argv."""

    def __init__(self, extra_commands: Iterable[str] = ()) -> None:
        self._entries: dict[tuple[str, ...], str] = {}
        for command in DOCUMENTED_COMMANDS:
            self._entries[tuple(shlex.split(command))] = command
        for command in extra_commands:
            self._entries[_parse_entry(command)] = command

    @property
    def commands(self) -> tuple[str, ...]:
        """Every entry as written, the documented ones first."""
        return tuple(self._entries.values())

    def check(self, text: str) -> Allowed | Refused:
        """Say whether `text`, as the gateway sent it, may run. Raises nothing."""
        if len(text) > MAX_COMMAND_CHARS:
            return Refused(f"it is longer than {MAX_COMMAND_CHARS} characters")
        if not text.isprintable():
            # shlex takes a newline for a blank, so it has to be caught before parsing.
            return Refused("it contains a line break or another control character")
        try:
            argv = tuple(shlex.split(text))
        except ValueError:
            return Refused("its quotes do not match")
        if not argv:
            return Refused("it is empty")
        name = self._entries.get(argv)
        if name is None:
            return Refused("it is not in the allowlist of this run")
        return Allowed(name, harden_git(argv))


def parse_extra_commands(value: str) -> tuple[str, ...]:
    """Split the value of `EXTRA_ALLOWED_COMMANDS` at its commas.

    Raises AllowlistError for an entry that cannot run; the user must mend it.
    """
    commands = tuple(entry.strip() for entry in value.split(",") if entry.strip())
    for command in commands:
        _parse_entry(command)
    return commands


def harden_git(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return `argv` so that a repository's configuration cannot make git start another program."""
    if argv[0] != "git" or len(argv) == 1:
        return argv
    settings = [item for setting in _GIT_CONFIG for item in ("-c", setting)]
    flags = _GIT_DIFF_FLAGS if argv[1] in _GIT_SHOWS_DIFFS else ()
    return ("git", "--no-pager", "--no-optional-locks", *settings, argv[1], *flags, *argv[2:])


def _parse_entry(command: str) -> tuple[str, ...]:
    if not command.isprintable():
        raise AllowlistError(f"{command!r} contains a control character")
    try:
        argv = tuple(shlex.split(command))
        operators = _shell_operators(command)
    except ValueError:
        raise AllowlistError(f"the quotes of {command!r} do not match") from None
    if operators:
        raise AllowlistError(
            f"{command!r} uses {operators[0]!r}, which needs a shell, and commands run without "
            "one; put it into a script and allow the script"
        )
    if not argv or argv[0].startswith("__"):
        raise AllowlistError(f"{command!r} is no command")
    if "=" in argv[0]:
        raise AllowlistError(
            f"{command!r} sets a variable, which needs a shell, and commands run without one; "
            f"write env {command}"
        )
    return argv


def _shell_operators(command: str) -> list[str]:
    """Return the unquoted `;`, `&&`, `|`, `>` and the like of `command`."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";<>|&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return [token for token in lexer if set(token) <= set(";<>|&") and token]
