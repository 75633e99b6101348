"""Start rev, a command-line agent, on this machine and connect the session to a gateway.

All that differs from Claude Code is here; everything else is `claude_runner.main`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before `main`, nor behind it
    gc.disable()  # until a subcommand runs: to look for garbage among imports takes long
if __name__ == "__main__" and sys.flags.isolated:
    # Isolated, Python puts no folder of ours here. What is compiled goes to the cache folder, and
    # what came with a project is not read. What `places` imports of Python is, before that.
    import pathlib  # noqa: F401
    import typing  # noqa: F401

    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    sys.dont_write_bytecode = True
    sys.pycache_prefix = os.devnull
    import places

    places.keep_compiled_files()

from typing import TYPE_CHECKING

from claude_runner import main
from config import RunnerError, Setting, parse_argv, parse_extra
from kinds.profile import Invocation, Profile
from tools.command_line import leave

if TYPE_CHECKING:
    import argparse

    from config import Config


class RevProfile(Profile):
    """rev: one task and then the end, or a session with `--repl`.

    It prints plain text and says nothing about its state, so there are neither messages to read nor
    states to tell.
    """

    name = "rev"
    title = "rev"
    program = "rev-runner"
    program_variable = "REV_COMMAND"
    example_arguments = "--trust-workspace --model MODEL"
    settings = (
        Setting(
            "program",
            program_variable,
            "rev",
            parse_argv,
            "rev-runner: the program to run, with arguments that come first",
            grants=True,
        ),
        Setting(
            "allowed_commands",
            "CLAUDE_RUNNER_REV_ALLOWED_COMMANDS",
            "",
            parse_extra,
            "rev-runner: commands that the operator may run besides those of every runner",
            grants=True,
        ),
    )

    def extra_allowed_commands(self, config: Config) -> tuple[str, ...]:
        """Return what the operator may run besides the documented commands."""
        return (*config.extra_allowed_commands, *config.own["allowed_commands"])

    def invocation(
        self, config: Config, prompt: str | None, mode: str, options: argparse.Namespace
    ) -> Invocation:
        """Return how to start it: `rev -- TASK`, or `rev --repl`.

        Source: rev reads its arguments with argparse, where `--` ends the options; without it a
        task could be taken for an option, or for the value of the one before it. A session takes no
        task.
        """
        argv = (*self.argv(config), *options.arguments)
        if mode == "print" and prompt is not None:
            return Invocation((*argv, "--", prompt))
        if prompt is not None:
            raise RunnerError(
                "a session of rev takes no prompt; leave out --cmd, or --mode interactive"
            )
        return Invocation((*argv, "--repl"))


if __name__ == "__main__":
    leave(main(profile=RevProfile()))
