"""The stage for a run that asks: the stand-in for Claude Code, a gateway, and its operator."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testing.gateways.operator import Operator
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.claude_standin import NEWEST, StandIn, Step
from testing.programs.runner import Launch, RunnerProcess, Target, plan
from testing.programs.terminal import Terminal

REMOTE: Final = ("--ask", "remote")
LOCAL: Final = ("--ask", "local")
# For a gateway without cards, where a question may not wait for ever.
PLAIN: Final = ("--ask", "remote", "--ask-timeout", "1h")


class Scene(Operator):
    """One run, and its operator. `standin` says what Claude Code was told."""

    def __init__(
        self,
        gateway: StrictGateway,
        folder: Path,
        turns: Sequence[Sequence[Step]],
        options: Sequence[str] = REMOTE,
        *,
        prompt: str = "go",
        version: str = NEWEST,
        ignores: Sequence[str] = (),
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.standin = StandIn(folder, turns, version=version, ignores=ignores)
        self.work = folder / "work"
        self.work.mkdir()
        self.launch: Launch = plan(
            gateway,
            self.standin.command,
            folder,
            prompt=prompt,
            options=options,
            arguments=arguments,
            env=env,
            cwd=self.work,
        )
        super().__init__(gateway, self.launch.run.id)

    @contextmanager
    def running(self, stdin: Target = subprocess.DEVNULL) -> Iterator[RunnerProcess]:
        """Let it run without a terminal."""
        with RunnerProcess(self.launch, stdin=stdin) as runner:
            yield runner

    def terminal(self) -> Terminal:
        """Return a terminal with the runner in it."""
        return Terminal(self.launch.argv, env=self.launch.env, columns=120, lines=40)
