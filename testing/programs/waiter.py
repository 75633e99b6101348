"""`claude-runner wait` in a folder, as a process, and what the page sends to it.

waiting = Waiting(gateway, folder)
with waiting.start() as process:
    run_id = waiting.send(waiting.pair(process), "fix it")
    waiting.wait_for(run_id, "done")
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.gateway_records import Run
from testing.programs.runner import ROOT, Launch, RunnerProcess, program
from testing.programs.terminal import Terminal
from testing.waiting import eventually

WITHIN_S = 30.0
# Writes down its prompt, which is its last argument, and waits for a file if the prompt says so.
CHILD = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
folder, prompt = pathlib.Path(sys.argv[1]), sys.argv[-1].strip()
with open(folder / "started", "a") as file:
    file.write(prompt + "\\n")
print("READY", os.getpid(), flush=True)
while prompt.startswith("wait") and not (folder / "go on").exists():
    time.sleep(0.02)
sys.exit(3 if prompt.startswith("fail") else 0)
"""
_NOBODY = Run("run_of_nobody", "")


class Waiting:
    """`wait` in a folder, with a program of ours in the place of Claude Code."""

    def __init__(self, gw: EmbeddedGateway, folder: Path, *options: str, url: str = "") -> None:
        self.gw = gw
        self.folder = folder
        self.project = folder / "shop"
        self.project.mkdir(exist_ok=True)
        self.data_dir = folder / "data"
        env_file = folder / "settings.env"
        env_file.touch()
        files = ["--env-file", str(env_file), "--data-dir", str(self.data_dir)]
        script = str(ROOT / "claude_runner.py")
        argv = [sys.executable, script, "wait", *files, "--cwd", str(self.project), *options]
        settings = {
            "GATEWAY_URL": url or gw.url,
            "HMAC_SECRET": gw.secret,
            "CLAUDE_RUNNER_POLL_INTERVAL": "0.1",
        }
        env = {**os.environ, **settings}
        self.launch = Launch(EmbeddedRecord(gw), _NOBODY, argv, env, self.data_dir)
        self.run_program([*program(CHILD), str(folder)])

    def run_program(self, command: Sequence[str]) -> None:
        """Let each run start this."""
        self.launch.env["CLAUDE_COMMAND"] = shlex.join(command)

    def start(self) -> RunnerProcess:
        """Return the process, to be entered."""
        return RunnerProcess(self.launch)

    def code(self, process: RunnerProcess | Terminal) -> str:
        """Return the code that it shows."""

        def shown() -> str:
            found = re.search(r"enter the code (\w{3}-\w{3})", told(process))
            assert found is not None, told(process)
            return found[1]

        return eventually(shown, WITHIN_S)

    def pair(self, process: RunnerProcess | Terminal) -> str:
        """Let the folder in by the code that it shows; return its id."""
        offer = self.gw.api("POST", "/api/offers/pair", {"code": self.code(process)})
        assert offer.status == 200, offer
        return str(offer.json()["id"])

    def send(self, waiter_id: str, prompt: str, **fields: Any) -> str:
        """Send a run as the page does; return its id. Waits until the folder is there."""

        def sent() -> str:
            body = {"key": os.urandom(16).hex(), "prompt": prompt, **fields}
            answer = self.gw.api("POST", f"/api/offers/{waiter_id}/runs", body)
            assert answer.status == 202, answer
            return str(answer.json()["id"])

        return eventually(sent, WITHIN_S)

    def offer(self, waiter_id: str) -> Any:
        """Return the folder as the page shows it, None if it has gone."""
        offers = self.gw.api("GET", "/api/offers").json()["offers"]
        return next((each for each in offers if each["id"] == waiter_id), None)

    def order(self, run_id: str) -> Any:
        """Return what became of it."""
        return self.gw.api("GET", f"/api/runs/{run_id}/order").json()["order"]

    def wait_for(self, run_id: str, *wanted: str) -> None:
        """Wait until the run has one of these states."""

        def has_it() -> None:
            assert self.gw.api("GET", f"/api/runs/{run_id}").json()["status"] in wanted

        eventually(has_it, WITHIN_S)

    def wait_for_order(self, run_id: str, **wanted: Any) -> None:
        """Wait until its order is like this."""

        def is_so() -> None:
            order = self.order(run_id)
            assert {name: order[name] for name in wanted} == wanted, order

        eventually(is_so, WITHIN_S)

    def wait_for_end(self, run_id: str) -> None:
        """Wait until nothing of the run is there any more; its last word comes before."""

        def is_over() -> None:
            with (self.data_dir / "runs" / run_id / "lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise AssertionError(f"{run_id} still goes on") from None

        eventually(is_over, WITHIN_S)

    @property
    def started(self) -> list[str]:
        """The prompts that were started, each as often as it was."""
        file = self.folder / "started"
        return file.read_text().splitlines() if file.exists() else []

    def go_on(self) -> None:
        """Let the runs that wait end."""
        (self.folder / "go on").touch()


def told(process: RunnerProcess | Terminal) -> str:
    """Return what it has said so far."""
    if isinstance(process, RunnerProcess):
        return process.stderr
    return process.output.decode("utf-8", "replace")
