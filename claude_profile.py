"""How Claude Code is started: its arguments, and by what name it is recognised."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from run_plan import MAX_ARGUMENT_BYTES, Invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner_config import Config


class ClaudeProfile:
    """Claude Code, or any other program that takes a prompt as its last argument."""

    name = "claude"
    program = "claude-runner"
    log_name = "claude.log"

    def command(self, config: Config) -> tuple[str, ...]:
        """Return the program to run, with its first arguments."""
        return config.claude_command

    def extra_allowed_commands(self, config: Config) -> tuple[str, ...]:
        """Return what the operator may run besides the documented commands."""
        return config.extra_allowed_commands

    def invocation(
        self,
        config: Config,
        prompt: str | None,
        mode: str,
        arguments: Sequence[str],
        output: str = "auto",
    ) -> Invocation:
        """Return how to start it with this prompt.

        Source: how Claude Code reads its arguments. `--` goes before a prompt that begins with a
        dash; a single word that is the name of a subcommand is a prompt only with a blank after it.
        """
        command = self.command(config)
        is_claude = config.flavor == "claude" or (
            config.flavor == "auto" and is_claude_code(command)
        )
        if not is_claude:
            return Invocation((*command, *arguments, *(() if prompt is None else (prompt,))))
        added: list[str] = []
        session_id = None
        if mode == "print" and not _names_any(arguments, ("-p", "--print")):
            added.append("-p")
        if mode == "print" and not _names_any(arguments, _SESSION_ARGUMENTS):
            session_id = str(uuid.uuid4())
            added += ["--session-id", session_id]
        is_stream = (
            mode == "print" and output == "auto" and not _names_any(arguments, _FORMAT_ARGUMENTS)
        )
        if is_stream:
            added += ["--output-format", "stream-json"]
            added += [] if _names_any(arguments, ("--verbose",)) else ["--verbose"]
        argv = (*command, *added, *arguments)
        if prompt is None:
            return Invocation(argv, None, session_id, is_stream)
        if mode == "print" and len(os.fsencode(prompt)) > MAX_ARGUMENT_BYTES:
            return Invocation(argv, os.fsencode(prompt), session_id, is_stream)
        if mode == "interactive" and len(prompt.split()) == 1 and not prompt.endswith(" "):
            prompt += " "
        return Invocation((*argv, "--", prompt), None, session_id, is_stream)


# Arguments of Claude Code that choose the session themselves.
_SESSION_ARGUMENTS: Final = ("--session-id", "--resume", "-r", "--continue", "-c", "--from-pr")
# Arguments that choose what it prints, or that go with one format only.
_FORMAT_ARGUMENTS: Final = ("--output-format", "--input-format", "--json-schema")
_CLAUDE_NAMES: Final = frozenset({"claude", "claude-code"})
_CLAUDE_PACKAGE: Final = "@anthropic-ai/claude-code"
_LAUNCHERS: Final = frozenset({"npx", "node", "bunx", "env"})


def is_claude_code(command: Sequence[str]) -> bool:
    """Whether a command starts Claude Code, itself or through npx, node, bunx or env."""
    program = command[0]
    if Path(program).name in _LAUNCHERS:
        started = (item for item in command[1:] if not item.startswith("-") and "=" not in item)
        program = next(started, "")
    if program == _CLAUDE_PACKAGE or program.startswith(f"{_CLAUDE_PACKAGE}@"):
        return True
    return Path(program).name in _CLAUDE_NAMES or program.endswith(f"{_CLAUDE_PACKAGE}/cli.js")


def _names_any(arguments: Sequence[str], options: Sequence[str]) -> bool:
    return any(item.split("=", 1)[0] in options for item in arguments)
