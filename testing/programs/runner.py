"""The runner as a process of its own: started as its user starts it, against a gateway.

    launch = plan(gw, child("exits.py", "3"), folder)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 3

A `Launch` can be started anywhere else as well: `Terminal(launch.argv, env=launch.env)`.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Union

from testing.gateways.gateway_records import AnyGateway, Run
from testing.programs import processes
from testing.programs.starter import Forked, fork
from testing.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
_CHILDREN = Path(__file__).resolve().parent / "children"
_KILLED_WITHIN_S = 10.0

# What Popen takes for a descriptor.
Target = Union[int, IO[bytes]]


def child(name: str, *arguments: str) -> list[str]:
    """Return the argv of one of `testing/programs/children` with these arguments."""
    return [sys.executable, "-I", "-S", str(_CHILDREN / name), *arguments]


def program(source: str) -> list[str]:
    """Return the command that runs Python source text."""
    return [sys.executable, "-I", "-S", "-c", source]


@dataclass(frozen=True)
class Kind:
    """A kind of runner. `before_prompt` is what its child is given before a prompt."""

    name: str
    title: str
    before_prompt: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """What its user calls."""
        return f"{self.name}-runner"

    @property
    def script(self) -> Path:
        """The file that is run."""
        return ROOT / f"{self.name}_runner.py"

    @property
    def log_name(self) -> str:
        """The run's log."""
        return f"{self.name}.log"

    @property
    def program_variable(self) -> str:
        """The variable that names the child's program."""
        return f"{self.name.upper()}_COMMAND"


CLAUDE = Kind("claude", "Claude Code")
REV = Kind("rev", "rev", ("--",))


@dataclass(frozen=True)
class Launch:
    """How one run is started: command line and environment, and where it leaves its files."""

    gateway: AnyGateway
    run: Run
    argv: list[str]
    env: dict[str, str]
    data_dir: Path
    kind: Kind = CLAUDE

    @property
    def run_dir(self) -> Path:
        """The run's own folder."""
        return self.data_dir / "runs" / self.run.id

    @property
    def log(self) -> bytes:
        """What the run's log holds now; empty as long as there is none."""
        try:
            return (self.run_dir / self.kind.log_name).read_bytes()
        except FileNotFoundError:
            return b""

    def expect(self, pattern: str, type: str = "stdout", within_s: float = 30.0) -> re.Match[str]:
        """Wait until the gateway has text of this type that the pattern matches."""
        found = self.gateway.wait_for(
            lambda: re.search(pattern, self.gateway.text(self.run.id, type)), within_s
        )
        assert found is not None
        return found

    def expect_pid(self, word: str = "READY") -> int:
        """Wait for a line `<word> <pid>` of the child, and return the pid."""
        return int(self.expect(rf"{word} (\d+)\r?\n").group(1))


def plan(
    gateway: AnyGateway,
    command: Sequence[str],
    folder: Path,
    *,
    prompt: str | bytes | None = "go",
    options: Sequence[str | bytes] = (),
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    run: Run | None = None,
    cwd: Path | None = None,
    kind: Kind = CLAUDE,
) -> Launch:
    """Prepare a run of `command` as the child's program. Without a prompt it will be interactive.

    `folder` is an empty one for everything of the run; the data folder is made by the runner.
    """
    run = run or gateway.create_run()
    env_file = folder / "settings.env"
    env_file.touch()
    argv: list[str | bytes] = [sys.executable, str(kind.script), "start"]
    argv += ["--run-id", run.id, "--env-file", str(env_file), "--data-dir", str(folder / "data")]
    argv += ["--cwd", str(cwd or folder)]
    argv += [] if prompt is None else ["--cmd", prompt]
    argv += [*options, *(("--", *arguments) if arguments else ())]
    settings = {
        "GATEWAY_URL": gateway.url,
        "HMAC_SECRET": gateway.secret,
        "CLAUDE_RUNNER_TOKEN": run.token,
        kind.program_variable: shlex.join(command),
        "CLAUDE_RUNNER_POLL_INTERVAL": "0.1",
    }
    return Launch(
        gateway,
        run,
        [os.fsdecode(item) for item in argv],
        {**os.environ, **settings, **(env or {})},
        folder / "data",
        kind,
    )


def run_to_end(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    cwd: Path | None = None,
    stdin: bytes = b"",
    within_s: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run` with captured output; the runner is forked where that is the same.

    Raises: subprocess.TimeoutExpired when it did not end, and was killed.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        forked = fork(argv, env, files, cwd)
        if forked is None:
            return subprocess.run(
                argv, env=env, cwd=cwd, input=stdin, capture_output=True, timeout=within_s
            )
        stack.callback(forked.close)
        try:
            code = forked.wait(within_s)
        except subprocess.TimeoutExpired:
            forked.send_signal(signal.SIGKILL)
            forked.wait(_KILLED_WITHIN_S)
            raise
        stdout, stderr = (os.pread(each.fileno(), 1 << 26, 0) for each in files[1:])
    return subprocess.CompletedProcess(list(argv), code, stdout, stderr)


class RunnerProcess:
    """The runner's process. Its output goes to files unless a test gives it another place.

    It is forked where that is the same, see `starter`; `fresh` asks for a process of its own.
    Leaving the block kills what is left of it and everything that it started, by pid.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        stdin: Target = subprocess.DEVNULL,
        stdout: Target | None = None,
        stderr: Target | None = None,
        fresh: bool = False,
    ) -> None:
        self.launch = launch
        self._is_fresh = fresh
        self._stdin = stdin
        self._targets = (stdout, stderr)
        self._captured = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 - closed on leaving
        self._process: subprocess.Popen[bytes] | Forked | None = None

    def __enter__(self) -> RunnerProcess:
        stdout, stderr = (
            captured if target is None else target
            for captured, target in zip(self._captured, self._targets)
        )
        if not self._is_fresh:
            stdio = (self._stdin, stdout, stderr)
            self._process = fork(self.launch.argv, self.launch.env, stdio)
        if self._process is None:
            self._process = subprocess.Popen(
                self.launch.argv,
                env=self.launch.env,
                stdin=self._stdin,
                stdout=stdout,
                stderr=stderr,
            )
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_rest: object) -> None:
        process = self._started
        if process.poll() is None:  # what has ended has no children
            for pid in (process.pid, *processes.descendants(process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass  # it went by itself
        process.wait(_KILLED_WITHIN_S)
        if isinstance(process, Forked):
            process.close()
        if exc_type is not None:
            print(f"the runner said: {self.stderr}\nand showed: {self.stdout!r}", file=sys.stderr)
        for file in self._captured:
            file.close()

    @property
    def _started(self) -> subprocess.Popen[bytes] | Forked:
        assert self._process is not None, "the runner was not started"
        return self._process

    @property
    def pid(self) -> int:
        """The runner's pid."""
        return self._started.pid

    @property
    def stdout(self) -> bytes:
        """What it has printed so far."""
        return self._read(0)

    @property
    def stderr(self) -> str:
        """What it has told so far."""
        return self._read(1).decode("utf-8", "replace")

    def _read(self, index: int) -> bytes:
        # The runner shares the file's position, so it must not be moved.
        fd = self._captured[index].fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def signal(self, number: int) -> None:
        """Send a signal to the runner alone."""
        self._started.send_signal(number)

    def keeper_pid(self) -> int:
        """Wait for the runner's one child, and return its pid."""

        def find() -> int:
            found = processes.children(self.pid)
            assert len(found) == 1, f"the runner has {len(found)} children"
            return found[0].pid

        return eventually(find)

    def wait(self, within_s: float = 60.0) -> int:
        """Wait for its end; return its exit code, or -N for signal N."""
        try:
            return self._started.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the runner did not end within {within_s} s; it said {self.stderr}"
            ) from None
