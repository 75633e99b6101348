"""How Claude Code is started, and what is read out of what it prints."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Final

from claude_state import StateWatcher
from claude_stream import ClaudeStream
from run_plan import MAX_ARGUMENT_BYTES, Invocation, Profile
from runner_config import ConfigError, Setting, parse_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from runner_config import Config


def _parse_flavor(value: str, variable: str) -> str:
    if value not in ("auto", "claude", "plain"):
        raise ConfigError(f"{variable} is {value!r}; write auto, claude or plain")
    return value


class ClaudeProfile(Profile):
    """Claude Code, or any other program that takes a prompt as its last argument."""

    name = "claude"
    title = "Claude Code"
    program = "claude-runner"
    command_variable = "CLAUDE_COMMAND"
    example_arguments = "--model opus"
    settings = (
        Setting(
            "command",
            command_variable,
            "claude",
            parse_command,
            "the program to run, with arguments that come first; never seen by a shell",
        ),
        Setting(
            "flavor",
            "CLAUDE_RUNNER_FLAVOR",
            "auto",
            _parse_flavor,
            "whether CLAUDE_COMMAND is Claude Code: auto (by its name), claude, or plain",
        ),
    )

    def add_start_options(self, add_option: Callable[..., None]) -> None:
        """Let the user choose between the messages as text and Claude Code's own output."""
        add_option(
            "--output",
            metavar="FORM",
            choices=("auto", "text"),
            help="auto (default): print mode shows what Claude Code does while it does it; "
            "text: Claude Code's own output, at its end",
        )

    def answers_version(self, config: Config) -> bool:
        """Whether the program is Claude Code itself."""
        return self._is_claude_code(config)

    def _is_claude_code(self, config: Config) -> bool:
        """Whether it is, by its name or by the user's word."""
        flavor = config.own["flavor"]
        return flavor == "claude" or (flavor == "auto" and is_claude_code(self.command(config)))

    def program_folders(self, home: Path, env: Mapping[str, str]) -> Mapping[str, Sequence[Path]]:
        """Return where its own installer, and npm by its usual settings, put it."""
        prefixes = [env.get("npm_config_prefix"), env.get("NPM_CONFIG_PREFIX")]
        folders = [Path(prefix, "bin") for prefix in prefixes if prefix]
        usual = [home / ".npm-global" / "bin", Path("/usr/local/bin"), Path("/usr/bin")]
        return {
            "~/.claude/local": [home / ".claude" / "local"],
            "~/.local/bin": [home / ".local" / "bin"],
            "npm's global folders": [*folders, *usual],
        }

    def invocation(
        self, config: Config, prompt: str | None, mode: str, options: argparse.Namespace
    ) -> Invocation:
        """Return how to start it with this prompt.

        Source: how Claude Code reads its arguments. `--` goes before a prompt that begins with a
        dash; a single word that is the name of a subcommand is a prompt only with a blank after it.
        """
        command = self.command(config)
        arguments = options.arguments
        states = StateWatcher() if mode == "interactive" else None
        if not self._is_claude_code(config):
            argv = (*command, *arguments, *(() if prompt is None else (prompt,)))
            return Invocation(argv, states=states)
        if mode == "print":
            return _print_mode(command, prompt or "", arguments, options.output or "auto")
        argv = (*command, *arguments)
        if prompt is None:
            return Invocation(argv, states=states)
        if len(prompt.split()) == 1 and not prompt.endswith(" "):
            prompt += " "
        return Invocation((*argv, "--", prompt), states=states)


def _print_mode(
    command: Sequence[str], prompt: str, arguments: Sequence[str], output: str
) -> Invocation:
    added: list[str] = []
    session: dict[str, Any] = {}
    if not _names_any(arguments, ("-p", "--print")):
        added.append("-p")
    if not _names_any(arguments, _SESSION_ARGUMENTS):
        session_id = str(uuid.uuid4())
        added += ["--session-id", session_id]
        session = {"session_id": session_id, "resume_argv": (*command, "--resume", session_id)}
    messages = None
    if output == "auto" and not _names_any(arguments, _FORMAT_ARGUMENTS):
        added += ["--output-format", "stream-json"]
        added += [] if _names_any(arguments, ("--verbose",)) else ["--verbose"]
        messages = ClaudeStream()
    argv = (*command, *added, *arguments)
    if len(os.fsencode(prompt)) > MAX_ARGUMENT_BYTES:
        return Invocation(argv, os.fsencode(prompt), messages=messages, **session)
    return Invocation((*argv, "--", prompt), messages=messages, **session)


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
