"""Runs for the page to show: a real runner's process, or events sent as a runner sends them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.gateway_records import Run
from testing.programs import processes
from testing.programs.runner_files import copy_runner
from testing.waiting import eventually

STARTED: Final[Mapping[str, Any]] = {
    "event": "started",
    "workingDir": "/home/ada/shop",
    "runner": "claude",
    "mode": "print",
    "columns": 80,
    "lines": 24,
    "commands": ["git status", "git diff", "pytest -v"],
    "remoteInput": False,
    "version": "0.1.0",
}
_KILLED_WITHIN_S: Final = 10.0


def make_project(folder: Path, gateway: EmbeddedGateway) -> Path:
    """Make another project: a git repository with a change in it, and the runner's files."""
    folder.mkdir()
    copy_runner(folder)
    (folder / ".env").write_text(f"GATEWAY_URL={gateway.url}\nHMAC_SECRET={gateway.secret}\n")
    (folder / "cart.py").write_text("total = 1\n")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for arguments in (["init", "-q"], ["add", "cart.py"], [*identity, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    (folder / "cart.py").write_text("total = 2\n")
    return folder


def environment(child: Sequence[str], **more: str) -> dict[str, str]:
    """Return an environment in which `child` runs in the place of Claude Code."""
    return {
        **os.environ,
        "CLAUDE_COMMAND": shlex.join(child),
        "CLAUDE_RUNNER_PYTHON": sys.executable,
        "CLAUDE_RUNNER_POLL_INTERVAL": "0.1",
        **more,
    }


@contextmanager
def pasted(line: str, project: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a line in a project's folder as a shell does, without a terminal; see `environment`."""
    process = subprocess.Popen(
        ["sh", "-c", line],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        for pid in (process.pid, *processes.descendants(process.pid)):
            if processes.is_alive(pid):
                os.kill(pid, 9)
        process.wait(_KILLED_WITHIN_S)


def start_line(gateway: EmbeddedGateway, command: str | None = None) -> tuple[str, str]:
    """Create a run over the API; return its id and the line that starts it."""
    body = {} if command is None else {"command": command}
    created = gateway.api("POST", "/api/runs", body).json()
    return created["id"], created["start_command"]


def begin(gateway: EmbeddedGateway, prompt: str = "fix it", **marker: Any) -> Run:
    """Create a run and send its `started` marker."""
    run = gateway.create_run(prompt)
    fields = {**STARTED, "command": prompt, **marker}
    assert gateway.send_marker(run, fields).status == 200
    return run


def wait_for_status(
    gateway: EmbeddedGateway, run_id: str, *wanted: str, within_s: float = 20
) -> None:
    """Wait until the gateway says that the run has one of these states."""

    def has_it() -> None:
        status = gateway.api("GET", f"/api/runs/{run_id}").json()["status"]
        assert status in wanted, f"the run is {status}"

    eventually(has_it, within_s)
