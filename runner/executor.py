"""The operator's commands, executed one at a time: run, redacted, recorded, acknowledged.

A command that the allowlist let through runs without a shell, without a terminal and without the
runner's secrets, under the keeper and a time limit. Its end is in the journal before the gateway is
told of it.

At the end of the run the executor waits for the poller's last word, records that what is still
queued was refused, and then acknowledges whatever has not been.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Final

from allowlist import PLACES_OF_GIT, Allowed, AllowlistError, elsewhere
from journal.spool import SpoolError
from redact import RedactedExcerpt, Redactor, join
from runner.attempts import ACK, DIFFS, acknowledge, sleep
from runner.changes import LIMIT_S
from runner.keeper import EVERY_PROGRAM, Report
from runner.mailbox import WakePipe, Worker, WorkerEnded, WorkerFailed
from runner.processes import describe_status
from runner.repository import find_worktree
from runner.showing import ProgramFailedError, disarm
from runner.upload import PartList, Uploader, file_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gateway_client import GatewayClient
    from journal.spool import Command, Spool
    from kinds.profile import Worktree
    from redact import Redacted, RedactedText, Rules
    from runner.attempts import Pacer
    from runner.changes import Changes
    from runner.keeper import Keeper
    from runner.showing import Take

_MAX_QUEUED: Final = 50
# The first and the last part of a command's output fit into an acknowledgement; a proxy in front of
# the gateway may allow no more than 1 MB, and an `error` no more than 100,000 characters.
_HEAD_BYTES: Final = 24_000
_TAIL_BYTES: Final = 64_000
# A descendant that keeps the pipe open does not keep the command's result back.
_AFTER_EXIT_S: Final = 1.0
# How long the executor waits, at the end, for what the poller still has to say.
_LAST_POLL_S: Final = 2.0
RUN_HAS_ENDED: Final = "the run has ended"
_DIFF_COMMANDS: Final = frozenset({"git diff", "git diff --cached"})


class Executor(Worker):
    """The thread that runs allowed commands, one at a time.

    After `stop` queued commands are refused; the command that runs ends with the run. `join` may be
    called again: what the gateway does not take in time is tried a little longer.
    """

    def __init__(
        self,
        client: GatewayClient,
        spool: Spool,
        pacer: Pacer,
        rules: Rules,
        keeper: Keeper,
        *,
        began_at: float,
        cwd: str,
        worktree: Worktree | None = None,
        env: Mapping[str, str],
        timeout_s: float,
        folder: Path,
        changes: Changes,
        tell: Callable[[str], None],
        tell_owner: Callable[[WorkerFailed | WorkerEnded], object],
    ) -> None:
        super().__init__("executor", tell_owner)
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._keeper = keeper
        self._cwd = cwd
        self._worktree = worktree
        self._began_at = began_at
        # A runner that a hook of git starts has variables that name that hook's repository.
        self._env = {name: value for name, value in env.items() if name not in PLACES_OF_GIT}
        self._timeout_s = timeout_s
        self._folder = folder
        self._changes = changes
        self._tell = tell
        self._queue: queue.Queue[tuple[str, Allowed] | None] = queue.Queue(_MAX_QUEUED + 1)
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._has_last = threading.Event()
        self._started_count = 0
        self._pipe = WakePipe()

    def submit(self, command_id: str, command: Allowed) -> bool:
        """Queue a command; False when too many wait. Thread: the poller."""
        if self.is_full or self._stopping.is_set():
            return False
        self._queue.put((command_id, command))
        return True

    @property
    def is_full(self) -> bool:
        """Whether so many commands wait that no more are taken."""
        return self._queue.qsize() >= _MAX_QUEUED

    def report(self, report: Report) -> None:
        """Take the keeper's report on a command. Thread: the one that owns the keeper."""
        self._reports.put(report)
        self._pipe.wake()

    def note_work(self) -> None:
        """Learn that the child may have changed files. Thread: any."""
        # Once for many edits: what waits in the queue counts as commands.
        if self._changes.pace.note_work():
            self._wake()

    def expect_no_more(self) -> None:
        """Learn that the poller will neither submit nor acknowledge any more."""
        self._has_last.set()

    def _wake(self) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def _close(self) -> None:
        self._client.close()
        self._pipe.close()

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        self._changes.begin(self._run_briefly)
        while not self._stopping.is_set():
            item = None
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=self._changes.pace.due_in_s())
            if item is not None:
                self._finish(*item)
            elif self._changes.pace.due_in_s() == 0.0 and not self._stopping.is_set():
                self._send_changes()
        # The run is over. Everything is recorded first, so that no event comes after its end.
        self._has_last.wait(_LAST_POLL_S)
        with contextlib.suppress(SpoolError):
            for item in self._take_queued():
                self._fail(*item, RUN_HAS_ENDED)
            for command in self._spool.unacknowledged():
                if command.has_ended:
                    self._acknowledge(command)

    def _take_queued(self) -> Iterator[tuple[str, Allowed]]:
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                yield item

    def _finish(self, command_id: str, command: Allowed) -> None:
        """Execute one command and tell how it ended; its failure is not the next one's."""
        try:
            if self._stopping.is_set():
                self._fail(command_id, command, RUN_HAS_ENDED)
                return
            ended = self._execute(command_id, command)
            if not self._stopping.is_set():
                self._acknowledge(ended)
                if command.name in _DIFF_COMMANDS and ended.error is None:
                    self._upload(self._diff_path)
        except SpoolError as error:
            self._tell(f"the end of {command.name} was not recorded: {error}")

    def _send_changes(self) -> None:
        self._changes.pace.begin()
        if self._changes.update(self._run_briefly) and self._upload(self._changes.path):
            self._changes.note_sent()
        self._changes.pace.end()

    def _acknowledge(self, command: Command) -> None:
        """Try it a few times. What does not arrive is listed, seen and acknowledged again."""
        acknowledge(command, self._spool, self._client, self._pacer, self._pause, ACK)

    def _pause(self, seconds: float) -> bool:
        """Wait, but not for long when the run ends meanwhile; after its end, for as long as asked.

        Never stops: the acknowledgement is what the executor still has to do.
        """
        if self._stopping.is_set():
            return sleep(seconds)
        self._stopping.wait(seconds)
        return False

    def _execute(self, command_id: str, command: Allowed) -> Command:
        cwd = self._place_of(command)
        where = "" if cwd == self._cwd else f" (in {os.path.relpath(cwd, self._cwd)})"
        self._spool.append("info", self._rules.redact(f"Executing command: {command.name}{where}"))
        excerpt = RedactedExcerpt(_HEAD_BYTES, _TAIL_BYTES)
        try:
            problem = self._run_command(command, cwd, excerpt)
        except (OSError, AllowlistError, ProgramFailedError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - one command's failure is not the next one's
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            return self._spool.end_command(command_id, result=excerpt.text())
        if self._stopping.is_set() and problem != RUN_HAS_ENDED:
            problem = f"{RUN_HAS_ENDED} ({problem})"
        return self._fail(command_id, command, problem, excerpt.text())

    def _fail(
        self, command_id: str, command: Allowed, problem: str, output: RedactedText | None = None
    ) -> Command:
        error = self._rules.redact(problem)
        if output:
            error = join("\n", error, output)
        notice = self._rules.redact(f"Command failed: {command.name}: {problem}")
        return self._spool.end_command(command_id, error=error, notice=notice)

    def _upload(self, path: Path) -> bool:
        """Send a file. Returns whether the gateway has it."""
        problems: list[str] = []
        try:
            queue = PartList(file_parts(self._folder, path.name, path.name))
            uploader = Uploader(
                self._client,
                queue,
                self._folder,
                self._pacer,
                self._stopping,
                DIFFS,
                tell=problems.append,
            )
            while not self._stopping.is_set() and uploader.send_next():
                pass
            left = queue.next_upload()
            if left is not None:
                problems.append(f"{left.part.name} is not uploaded: it was broken off")
        except OSError as error:
            problems.append(f"{path.name} is not uploaded: {error}")
        for problem in problems:
            self._tell(problem)
        return not problems

    @property
    def _diff_path(self) -> Path:
        return self._folder / "latest.diff"

    def _place_of(self, command: Allowed) -> str:
        """Return where a command runs: what shows the work, in the worktree that has it."""
        if self._worktree is None or not command.only_shows or elsewhere(command.git_query):
            return self._cwd
        return find_worktree(self._cwd, self._worktree, self._began_at) or self._cwd

    def _run_command(self, command: Allowed, cwd: str, excerpt: RedactedExcerpt) -> str:
        """Run it to its end. Returns why it failed, or an empty text."""
        argv, env = command.argv, self._env
        if cwd != self._cwd:
            env = {**env, "PWD": cwd}
        if command.git_query:
            with _Stream(self._rules, excerpt.add) as errors:
                argv, env = disarm(command, cwd, env, self._run_program, errors.feed)
        with contextlib.ExitStack() as stack:
            if command.name not in _DIFF_COMMANDS:
                both = stack.enter_context(_Stream(self._rules, excerpt.add))
                return self._run_program(argv, cwd, env, both.feed)
            # git's warnings, about line ends and the like, are not part of the diff.
            file = stack.enter_context(self._diff_path.open("wb"))
            out = stack.enter_context(_Stream(self._rules, excerpt.add, file))
            errors = stack.enter_context(_Stream(self._rules, excerpt.add))
            return self._run_program(argv, cwd, env, out.feed, errors.feed)

    def _run_briefly(
        self, argv: tuple[str, ...], cwd: str, env: Mapping[str, str], *takes: Take
    ) -> str:
        return self._run_program(argv, cwd, env, *takes, timeout_s=LIMIT_S)

    def _run_program(
        self,
        argv: tuple[str, ...],
        cwd: str,
        env: Mapping[str, str],
        take: Take,
        take_errors: Take | None = None,
        *,
        timeout_s: float | None = None,
    ) -> str:
        """Run a program to its end. Returns why it failed, or an empty text.

        What it writes is taken as it comes; both streams in one unless `take_errors` is given.
        """
        self._started_count += 1
        key = f"command-{self._started_count}"
        with contextlib.ExitStack() as reading:
            with contextlib.ExitStack() as until_spawned:
                null_fd = os.open(os.devnull, os.O_RDONLY)
                until_spawned.callback(os.close, null_fd)
                output_r, output_w = _open_pipe(reading, until_spawned)
                sinks = {output_r: take}
                errors_w = output_w
                if take_errors is not None:
                    errors_r, errors_w = _open_pipe(reading, until_spawned)
                    sinks[errors_r] = take_errors
                self._keeper.spawn(
                    key,
                    argv,
                    cwd=cwd,
                    env=env,
                    fds=(null_fd, output_w, errors_w),
                    on_terminal=False,
                )
            try:
                return self._watch(key, argv[0], sinks, timeout_s or self._timeout_s)
            except BaseException:
                self._keeper.kill(key)  # a full disk, for one; its output would not be read
                raise

    def _watch(self, key: str, program: str, sinks: dict[int, Take], timeout_s: float) -> str:
        """Read until the program has ended. Returns why it failed, or an empty text."""
        deadline = time.monotonic() + timeout_s
        problem = ""
        status: int | None = None
        while status is None or sinks:
            left_s = max(0.0, deadline - time.monotonic())
            watched: list[Any] = [self._pipe, *sinks]
            readable, _, _ = select.select(watched, [], [], left_s)
            self._pipe.take()
            for fd in [each for each in readable if each in sinks]:
                raw = os.read(fd, 65_536)
                if raw:
                    sinks[fd](raw)
                else:
                    del sinks[fd]
            report = self._next_report(key)
            if report is not None and report.event == "failed":
                return self._why_not_started(program, report)
            if report is not None:
                status = report.number
                deadline = min(deadline, time.monotonic() + _AFTER_EXIT_S)
            if time.monotonic() >= deadline:
                if status is not None:
                    break
                problem = f"it ran longer than {timeout_s:g} s and was killed"
                self._keeper.kill(key)
                deadline = time.monotonic() + _AFTER_EXIT_S
        return problem or (describe_status(status) if status else "")

    def _why_not_started(self, program: str, report: Report) -> str:
        if report.number in (0, errno.ECANCELED):
            return RUN_HAS_ENDED  # or its keeper has
        if not os.path.isdir(self._cwd):
            return f"the run's folder {self._cwd} is gone"
        if report.number != errno.ENOENT:
            return f"{program} cannot be executed ({os.strerror(report.number)})"
        if "/" not in program:
            return f"{program} was not found; is it installed, and in the PATH of the runner?"
        if os.path.exists(os.path.join(self._cwd, program)):
            return f"{program} names an interpreter that was not found"
        return f"{program} was not found"

    def _next_report(self, key: str) -> Report | None:
        """Return the report that ends the program, if it has come."""
        while True:
            try:
                report = self._reports.get_nowait()
            except queue.Empty:
                return None
            if report.key in (key, EVERY_PROGRAM) and report.event in ("failed", "exited"):
                return report


def _open_pipe(reading: contextlib.ExitStack, writing: contextlib.ExitStack) -> tuple[int, int]:
    """Open a pipe, whose two ends are closed by these."""
    read_fd, write_fd = os.pipe()
    reading.callback(os.close, read_fd)
    writing.callback(os.close, write_fd)
    return read_fd, write_fd


class _Stream:
    """Redacts one stream as it comes. Leaving the `with` block ends it."""

    def __init__(
        self, rules: Rules, publish: Callable[[Redacted], None], copy: BinaryIO | None = None
    ) -> None:
        self._redactor = Redactor(rules=rules)
        self._publish = publish
        self._copy = copy

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pass_on(self._redactor.flush())

    def feed(self, raw: bytes) -> None:
        """Take output that was read."""
        self._pass_on(self._redactor.feed(raw))

    def _pass_on(self, redacted: Redacted) -> None:
        if self._copy is not None:
            self._copy.write(redacted)
        self._publish(redacted)
