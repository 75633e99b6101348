"""The stage of one check: a model, a gateway, Claude Code's home, and the runner between them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from testing.gateways.gateway_records import Run
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.claude_code import EVERYTHING, ClaudeHome, make_home
from testing.programs.model_api import ModelApi
from testing.programs.runner import Launch, RunnerProcess, plan
from testing.programs.terminal import Terminal
from testing.waiting import eventually

# From the stop's arrival at the gateway, or the runner's death, until no process is left.
GONE_WITHIN_S: Final = 3.0
STOPPED: Final = 130


def wait_for_file(name: str) -> str:
    """Return a command that writes its pid into the file `pid`, then waits for a file."""
    source = (
        "import os, pathlib, time; pathlib.Path('pid.new').write_text(str(os.getpid())); "
        "os.rename('pid.new', 'pid'); "
        f"[time.sleep(0.02) for _ in range(6000) if not os.path.exists('{name}')]"
    )
    return f'python3 -c "{source}"'


@dataclass
class Scene:
    """See the module. `plan` makes Claude Code's home once; later runs share it."""

    claude: Path
    api: ModelApi
    gateway: StrictGateway
    folder: Path
    _home: ClaudeHome | None = None
    _runs: list[Path] = field(default_factory=list)

    @property
    def home(self) -> ClaudeHome:
        """Claude Code's home; made, with everything accepted, when it is first asked for."""
        return self.make_home(EVERYTHING)

    def make_home(self, accepted: Collection[str]) -> ClaudeHome:
        """Make the home with these dialogs accepted, if there is none yet."""
        if self._home is None:
            self._home = make_home(self.folder / "claude", accepted)
        return self._home

    def plan(
        self,
        prompt: str | None,
        *arguments: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> Launch:
        """Prepare a run of the runner with Claude Code. `arguments` are for Claude Code."""
        folder = self.folder / f"run{len(self._runs)}"
        folder.mkdir()
        self._runs.append(folder)
        return plan(
            self.gateway,
            command or [str(self.claude)],
            folder,
            prompt=prompt,
            options=options,
            arguments=arguments,
            env={**self.home.environment(self.api), "TERM": "xterm-256color", **(env or {})},
            cwd=self.home.work,
        )

    def run(self, prompt: str, *arguments: str, **kwargs: Any) -> tuple[int, Launch]:
        """Run in print mode to the end; return the exit code."""
        launch = self.plan(prompt, *arguments, **kwargs)
        with RunnerProcess(launch) as runner:
            code = runner.wait(30.0)
        assert self.gateway.verify_finished(launch.run.id) == []
        return code, launch

    def finished(self, run: Run) -> dict[str, Any]:
        """Return the run's `finished` marker."""
        (marker,) = self.gateway.markers(run.id, "finished")
        return marker

    # --- states ---

    def tool_pid(self) -> int:
        """Wait until a tool has written its pid, and return it."""

        def read() -> int:
            path = self.home.work / "pid"
            assert path.exists(), f"no tool runs; requests: {self.api.requests}"
            return int(path.read_text())

        return eventually(read, 20.0)

    def claude_pids(self, runner_pid: int) -> list[int]:
        """Return everything that runs below the runner's keeper."""
        return [
            pid
            for keeper in processes.children(runner_pid)
            for pid in processes.descendants(keeper.pid)
        ]

    def wait_for_claude(self, runner_pid: int) -> None:
        """Wait until Claude Code itself has been executed."""

        def is_there() -> None:
            lines = [processes.command_line(pid) for pid in self.claude_pids(runner_pid)]
            assert any(str(self.claude) in line for line in lines), lines

        eventually(is_there, 10.0)

    # --- stopping ---

    def stop_and_check(self, launch: Launch, runner_pid: int, wait: Callable[[], int]) -> float:
        """Stop the run as the operator does; see that all is gone in time, and told as it was.

        Returns the seconds until all was gone.
        """
        pids = self.claude_pids(runner_pid)
        assert pids, "nothing ran that could be stopped"

        begun_at = time.monotonic()
        self.gateway.stop(launch.run.id)
        processes.assert_gone(pids, GONE_WITHIN_S)
        took_s = time.monotonic() - begun_at
        code = wait()

        marker = self.finished(launch.run)
        assert (marker["reason"], code, marker["exitCode"]) == ("stopped", STOPPED, STOPPED)
        assert self.gateway.verify_finished(launch.run.id) == []
        self.assert_nothing_left()
        return took_s

    def assert_nothing_left(self) -> None:
        """See that no process is left that was given this home; the keeper is the last to go."""

        def is_empty() -> None:
            left = [
                processes.describe(pid) for pid in processes.find_by_marker(str(self.home.home))
            ]
            assert left == []

        eventually(is_empty, GONE_WITHIN_S)

    def terminal(self, launch: Launch) -> Terminal:
        """Return a terminal with the runner in it, for a session."""
        return Terminal(launch.argv, env=launch.env, columns=100, lines=40)


def write_launcher(path: Path, text: str) -> Path:
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    os.chmod(path, 0o755)
    return path
