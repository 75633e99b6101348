"""The stage for a run with an operator: its child waits, and what the operator sends counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from testing.gateways.strict_gateway import Ack, RequestRecord, StrictGateway
from testing.programs.runner import RunnerProcess, plan
from testing.waiting import eventually

# Ends at the first SIGINT; its own words are the sign that the run is under way.
WAITING_CHILD = ("sh", "-c", "echo READY; exec sleep 600")


class Runner:
    """A run whose child waits, and the operator's side of it. Ends the run when it is left."""

    def __init__(
        self,
        gateway: StrictGateway,
        folder: Path,
        command: Sequence[str] = WAITING_CHILD,
        **environment: str,
    ) -> None:
        self._gateway = gateway
        self.cwd = folder / "project"
        self.cwd.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        launch = plan(gateway, command, folder, cwd=self.cwd, env={"PATH": path, **environment})
        self.run = launch.run
        self._launch = launch
        self._process = RunnerProcess(launch)
        self._last_words: str | None = None

    def __enter__(self) -> Runner:
        self._process.__enter__()
        try:
            self._launch.expect("READY", within_s=20)
        except BaseException:
            self._process.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        try:
            self._process.signal(signal.SIGTERM)
            self.wait()
        finally:
            self._last_words = self._process.stderr
            self._process.__exit__(exc_type, *rest)

    @property
    def pid(self) -> int:
        """The runner's pid."""
        return self._process.pid

    @property
    def journal(self) -> Path:
        """The run's journal."""
        return self._launch.run_dir / "spool.db"

    @property
    def stderr(self) -> str:
        """What the runner has told its user so far."""
        return self._process.stderr if self._last_words is None else self._last_words

    def wait(self, within_s: float = 30) -> int:
        """Wait for the runner's end, and return its exit code."""
        return self._process.wait(within_s)

    def queue(self, *texts: str) -> list[str]:
        """Queue commands, and return their ids."""
        return [self._gateway.queue_command(self.run.id, text) for text in texts]

    def acks(self, *ids: str, within_s: float = 20) -> list[Ack]:
        """Wait until all of these are acknowledged, and return the last ack of each."""
        self._gateway.wait_for(lambda: set(ids) <= set(self._gateway.acks(self.run.id)), within_s)
        return [self._gateway.acks(self.run.id)[each][-1] for each in ids]

    def execute(self, *texts: str) -> list[Ack]:
        """Queue commands, and wait until they are acknowledged."""
        return self.acks(*self.queue(*texts))

    def events(self, type: str, count: int = 0) -> list[str]:
        """Wait for so many events of one type, and return their data."""
        self._gateway.wait_for(lambda: len(self._gateway.events(self.run.id, type)) >= count)
        return [event.data for event in self._gateway.events(self.run.id, type)]

    def wait_for_event(self, type: str, text: str) -> None:
        """Wait for an event with exactly this text."""
        self._gateway.wait_for(lambda: text in self.events(type))

    def script(self, name: str, code: str) -> str:
        """Write an executable Python script into the working directory; return its command."""
        write_script(self.cwd / name, f"#!{sys.executable} -S\n{textwrap.dedent(code)}")
        return f"./{name}"

    def program(self, name: str, code: str) -> None:
        """Put a program of this name first in the runner's PATH."""
        write_script(self.bin / name, f"#!{sys.executable} -S\n{textwrap.dedent(code)}")


def write_script(path: Path, text: str) -> None:
    """Write a file that can be executed."""
    path.write_text(text)
    path.chmod(0o755)


def assert_in(part: str, text: str) -> None:
    """Fail unless `text` has this part; for `eventually`."""
    assert part in text


def git(folder: Path, *arguments: str) -> str:
    """Run git as its user would, and return its output."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=m")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def make_repository(folder: Path) -> None:
    """Make a repository with a commit, a staged change and another one that is not staged."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    for text, step in (("one\n", "commit"), ("one\ntwo\n", "add"), ("one\ntwo\nthree\n", "")):
        (folder / "file.txt").write_text(text)
        if step:
            git(folder, "add", "file.txt")
        if step == "commit":
            git(folder, "commit", "-q", "-m", "the first commit")


WAITS_FOR_FILE = """
    import os, signal
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(1, b"begun\\n")
    print(open(os.environ["FIFO"]).read(), end="")
"""


def wait_for_reader(fifo: Path) -> int:
    """Wait until a command reads the FIFO: by then it has begun. Returns what keeps it waiting."""

    def open_it() -> int:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:  # nobody reads: fifo(7)
            raise AssertionError(error) from None

    return eventually(open_it, 20)


def polls(gateway: StrictGateway) -> list[RequestRecord]:
    """Return the questions for commands."""
    return [request for request in gateway.requests if request.endpoint == "commands"]
