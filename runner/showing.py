"""A git command that shows something, made so that it starts no program of its repository's.

What a repository's configuration can name is in `allowlist`; here git is asked for it, and the
command is given what switches it off. Who starts the programs, and waits for them, is the caller's.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Callable, Final

from allowlist import (
    SHOWING_ENVIRONMENT,
    Allowed,
    Allowlist,
    AllowlistError,
    elsewhere,
    override_git_config,
    trusted_folders,
)
from runner.repository import find_work_tree, leads_to

if TYPE_CHECKING:
    from collections.abc import Mapping

    Take = Callable[[bytes], None]
    # Runs a program to its end: argv, folder, environment, and what takes its two streams.
    # Returns why it failed, or an empty text.
    RunProgram = Callable[[tuple[str, ...], str, Mapping[str, str], Take, Take], str]

# git's list of its configuration. More than this is no configuration, and nothing is executed.
_MAX_LISTING_BYTES: Final = 4 * 1_048_576


class ProgramFailedError(Exception):
    """A program that had to run first has failed; the message says why."""


def showing_command(*argv: str) -> Allowed:
    """Return a git command of the runner's own, hardened like the operator's."""
    text = shlex.join(argv)
    decision = Allowlist([text]).check(text)
    if not (isinstance(decision, Allowed) and decision.only_shows):
        raise AllowlistError(f"{text!r} does more than show")
    return decision


def disarm(
    command: Allowed, cwd: str, env: Mapping[str, str], run: RunProgram, take_errors: Take
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return argv and environment with which a git command starts no program of its repository's.

    Raises ProgramFailedError, and AllowlistError where it must not run.
    """
    showing = {**env, **SHOWING_ENVIRONMENT}
    listing = _Listing()
    problem = run(command.git_query, cwd, showing, listing.add, take_errors)
    if problem:
        raise ProgramFailedError(problem)
    work_tree = find_work_tree(os.path.join(cwd, *elsewhere(command.git_query)))
    if command.only_shows and work_tree is not None:
        _check_repository(work_tree, bytes(listing.raw))
    argv = override_git_config(command.argv, bytes(listing.raw), work_tree)
    return argv, showing if command.only_shows else dict(env)


def _check_repository(work_tree: str, listing: bytes) -> None:
    """Raise AllowlistError where git would show another repository than that of this folder."""
    place = leads_to(work_tree)
    if place is not None and work_tree not in trusted_folders(listing):
        raise AllowlistError(
            f"the repository of {work_tree} leads to {place}, which does not know it; if that is "
            "meant, `git worktree add` makes a worktree that is known, and `git config --global "
            f"--add safe.directory {shlex.quote(work_tree)}` allows this one"
        )


class _Listing:
    """What a query of git prints, raw and whole: it is compared, never shown and never sent."""

    def __init__(self) -> None:
        self.raw = bytearray()

    def add(self, raw: bytes) -> None:
        """Take what was read. Raises AllowlistError when it does not end."""
        self.raw += raw
        if len(self.raw) > _MAX_LISTING_BYTES:
            raise AllowlistError("git's list of the configuration is too long")
