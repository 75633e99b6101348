"""What the operator may do: commands are asked for, checked, executed and acknowledged.

Two threads. The poller asks the gateway, decides, and carries out at once what cannot wait: stop,
halt, keys for the session. Commands of the allowlist go to the executor, which runs one at a time,
so that a slow one delays neither the output nor a stop.

Every command is written to the journal before anything is done about it. The gateway lists it until
it is acknowledged, so it is seen again and again; what the journal knows is never executed twice.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Final, Protocol

from allowlist import Allowed, Allowlist, Refused
from delivery import Upload, backoff_s, send_file
from gateway_client import Outcome
from gateway_transport import GatewayError, printable
from keeper import EVERY_PROGRAM, Report
from redact import Redactor
from spool import SpoolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from delivery import Pacer
    from gateway_client import GatewayClient
    from keeper import Keeper
    from redact import RedactedText, Rules
    from spool import Command, Spool

_COMMAND_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
_INPUT: Final = "__INPUT__:"
# How long a gateway that knows long polls may keep a question open.
LONG_POLL_S: Final = 20
_POLL_REPLY_S: Final = LONG_POLL_S + 10.0
# A stop must get through soon after an outage.
_MAX_POLL_PAUSE_S: Final = 10.0
_REJECTED_PAUSE_S: Final = 30.0
# A gateway that lists more than this at once is broken; the rest stays listed.
_MAX_COMMANDS_A_POLL: Final = 100
_MAX_QUEUED: Final = 50
_ACK_TRIES: Final = 3
# The first and the last part of a command's output fit into an acknowledgement; a proxy in front of
# the gateway may allow no more than 1 MB, and an `error` no more than 100,000 characters.
_HEAD_BYTES: Final = 24_000
_TAIL_BYTES: Final = 64_000
# A descendant that keeps the pipe open does not keep the command's result back.
_AFTER_EXIT_S: Final = 1.0
_DIFF_COMMANDS: Final = frozenset({"git diff", "git diff --cached"})
_NO_FILTERS: Final = ("clean=", "smudge=", "process=", "required=false")


class Session(Protocol):
    """What a command may do to the running session. Every method returns at once. Thread: any."""

    def stop(self) -> None:
        """End it gracefully."""

    def halt(self) -> None:
        """Kill it."""

    def type(self, text: bytes) -> str | None:
        """Type into it; returns the reason when that is not possible."""


class Poller:
    """The thread that asks for commands. Lifecycle: start, stop, join.

    `tell` gets plain sentences for the user. `crashed` is called when the thread cannot go on: the
    session continues without remote control.
    """

    def __init__(
        self,
        client: GatewayClient,
        spool: Spool,
        pacer: Pacer,
        rules: Rules,
        allowlist: Allowlist,
        session: Session,
        executor: Executor,
        *,
        poll_interval_s: float,
        allow_remote_input: bool,
        tell: Callable[[str], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._allowlist = allowlist
        self._session = session
        self._executor = executor
        self._poll_interval_s = poll_interval_s
        self._allow_remote_input = allow_remote_input
        self._tell = tell
        self._crashed = crashed
        self._stopping = threading.Event()
        self._failures = 0
        self._was_rejected = False
        self._journal_failed = False
        self.dropped_count = 0
        self._thread = threading.Thread(target=self._run, name="runner-poller", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more commands; breaks off a question that is under way. Thread: any."""
        self._stopping.set()
        self._client.abort()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, and close its connection."""
        self._thread.join(timeout_s)
        self._client.close()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._pacer.blocked_s()):
                self._stopping.wait(self._poll())
        except BaseException as crash:  # noqa: BLE001 - its owner tells; the session goes on
            if not self._stopping.is_set():
                self._crashed(crash)

    def _poll(self) -> float:
        """Ask once and obey. Returns how long to pause."""
        asked_at = time.monotonic()
        reply = self._client.send(self._client.commands(LONG_POLL_S), _POLL_REPLY_S)
        self._pacer.note(reply)
        if reply.outcome is Outcome.ACCEPTED and isinstance(reply.body, list):
            self._failures = 0
            self._was_rejected = False
            for item in reply.body[:_MAX_COMMANDS_A_POLL]:
                if not self._stopping.is_set():
                    self._receive_safely(item)
            # An early empty answer means that this gateway has no long poll, and a command that is
            # still being executed stays listed: both times an immediate question would be a flood.
            waited_s = time.monotonic() - asked_at
            return 0.0 if waited_s >= LONG_POLL_S * 0.9 else self._poll_interval_s
        if reply.outcome in (Outcome.WRONG_SECRET, Outcome.WRONG_TOKEN, Outcome.SKEWED):
            if not self._was_rejected:
                self._was_rejected = True
                self._tell(f"the gateway refuses remote control ({reply.message})")
            return _REJECTED_PAUSE_S
        self._failures += 1
        return max(self._poll_interval_s, min(_MAX_POLL_PAUSE_S, backoff_s(self._failures)))

    def _receive_safely(self, item: Any) -> None:
        try:
            self._receive(item)
        except SpoolError as error:
            # What cannot be recorded is not executed; a stop was carried out before that.
            if not self._journal_failed:
                self._journal_failed = True
                self._tell(f"commands are not executed any more: {error}")

    def _receive(self, item: Any) -> None:
        if not (
            isinstance(item, dict)
            and isinstance(item.get("id"), str)
            and _COMMAND_ID.fullmatch(item["id"])
            and isinstance(item.get("command"), str)
        ):
            self.dropped_count += 1
            return
        command_id, text = item["id"], item["command"]
        if text == "__STOP__":
            self._session.stop()  # before anything that could fail
        elif text == "__HALT__":
            self._session.halt()
        known = self._spool.record_command(command_id, self._rules.redact(text))
        if known is not None:
            self._seen_again(known)
        else:
            self._decide(command_id, text)

    def _seen_again(self, command: Command) -> None:
        if command.has_ended:
            self._executor.acknowledge(command, self._client, tries=1)

    def _decide(self, command_id: str, text: str) -> None:
        if text in ("__STOP__", "__HALT__"):
            what = "Stop" if text == "__STOP__" else "Halt"
            self._spool.append("info", self._rules.redact(f"{what} requested by the operator"))
            self._answer(command_id, result=f"{what} initiated")
        elif text == "__ESCAPE__":
            self._type(command_id, b"\x03", "Escape sent")
        elif text.startswith(_INPUT):
            self._type(command_id, text[len(_INPUT) :].encode("utf-8", "replace"), "Input sent")
        else:
            decision = self._allowlist.check(text)
            if isinstance(decision, Refused):
                self._refuse(command_id, text, decision.reason)
            elif not self._executor.submit(command_id, decision):
                self._refuse(command_id, text, "too many commands are waiting")

    def _type(self, command_id: str, keys: bytes, done: str) -> None:
        problem: str | None = None
        if done == "Input sent" and not self._allow_remote_input:
            problem = "remote input is not allowed (CLAUDE_RUNNER_ALLOW_REMOTE_INPUT)"
        problem = problem or self._session.type(keys)
        if problem is None:
            self._answer(command_id, result=done)
        else:
            self._refuse(command_id, done.split()[0].lower(), problem)

    def _refuse(self, command_id: str, text: str, reason: str) -> None:
        shown = printable(text, 200)
        self._spool.append("error", self._rules.redact(f"Refused command: {shown}: {reason}"))
        self._answer(command_id, error=f"refused: {reason}")

    def _answer(
        self, command_id: str, *, result: str | None = None, error: str | None = None
    ) -> None:
        ended = self._spool.end_command(
            command_id,
            result=None if result is None else self._rules.redact(result),
            error=None if error is None else self._rules.redact(error),
        )
        self._executor.acknowledge(ended, self._client, tries=1)


@dataclass(frozen=True)
class _Finished:
    """How a program ended: an exit code, or the reason why there is none."""

    code: int | None
    problem: str
    output: RedactedText


class Executor:
    """The thread that runs allowed commands, one at a time. Lifecycle: start, stop, join."""

    def __init__(
        self,
        client: GatewayClient,
        spool: Spool,
        pacer: Pacer,
        rules: Rules,
        keeper: Keeper,
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout_s: float,
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._client = client
        self._spool = spool
        self._pacer = pacer
        self._rules = rules
        self._keeper = keeper
        self._cwd = cwd
        # git must not ask for a password, nor fetch what a partial clone lacks.
        self._env = {**env, "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
        self._timeout_s = timeout_s
        self._folder = folder
        self._tell = tell
        self._queue: queue.Queue[tuple[str, Allowed] | None] = queue.Queue(_MAX_QUEUED + 1)
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._started_count = 0
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        self._thread = threading.Thread(target=self._run, name="runner-executor", daemon=True)

    def start(self) -> None:
        """Begin to execute."""
        self._thread.start()

    def submit(self, command_id: str, command: Allowed) -> bool:
        """Queue a command; False when too many wait. Thread: the poller."""
        if self._queue.qsize() >= _MAX_QUEUED or self._stopping.is_set():
            return False
        self._queue.put((command_id, command))
        return True

    def report(self, report: Report) -> None:
        """Take the keeper's report on a command. Thread: the one that owns the keeper."""
        self._reports.put(report)
        self._wake()

    def stop(self) -> None:
        """Refuse what is queued; the command that runs ends with the run. Thread: any."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, and close what it owns."""
        self._thread.join(timeout_s)
        self._client.close()
        if not self._thread.is_alive():
            os.close(self._wake_r)
            os.close(self._wake_w)

    def acknowledge(self, command: Command, client: GatewayClient, *, tries: int) -> None:
        """Tell the gateway how a command ended. What does not arrive is asked for again."""
        attempt = client.acknowledge(command.id, command.result, command.error)  # type: ignore[arg-type]
        for failures in range(tries):
            try:
                reply = client.send(attempt)
            except GatewayError:
                return
            self._pacer.note(reply)
            if reply.outcome in (Outcome.ACCEPTED, Outcome.REPLAYED):
                self._spool.acknowledge(command.id)
                return
            self._stopping.wait(max(backoff_s(failures), self._pacer.blocked_s()))

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            command_id, command = item
            try:
                self._execute(command_id, command)
            except Exception as error:  # noqa: BLE001 - one command's failure is not the next one's
                with contextlib.suppress(Exception):
                    self._end(command_id, command, problem=f"{type(error).__name__}: {error}")

    def _execute(self, command_id: str, command: Allowed) -> None:
        if self._stopping.is_set():
            self._end(command_id, command, problem="the run has ended")
            return
        self._spool.append("info", self._rules.redact(f"Executing command: {command.name}"))
        argv = self._without_repository_filters(command.argv)
        diff = self._folder / "latest.diff" if command.name in _DIFF_COMMANDS else None
        finished = self._run_program(argv, self._timeout_s, copy_to=diff)
        if finished.code == 0:
            ended = self._spool.end_command(command_id, result=finished.output)
            self.acknowledge(ended, self._client, tries=_ACK_TRIES)
            if diff is not None:
                self._upload(diff)
        else:
            self._end(command_id, command, problem=finished.problem, output=finished.output)

    def _end(self, command_id: str, command: Allowed, *, problem: str, output: str = "") -> None:
        sentence = f"Command failed: {command.name}: {problem}"
        self._spool.append("error", self._rules.redact(sentence))
        error = self._rules.redact(f"{problem}\n{output}" if output else problem)
        self.acknowledge(
            self._spool.end_command(command_id, error=error), self._client, tries=_ACK_TRIES
        )

    def _upload(self, path: Path) -> None:
        problem = send_file(self._client, Upload(path, path.name), self._pacer, self._stopping)
        if problem:
            self._tell(problem)

    def _without_repository_filters(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """Switch off the filter programs that the repository's own configuration names.

        `git status` and `git diff` would start them; those of the user's own configuration stay.
        """
        if argv[0] != "git":
            return argv
        listing = self._run_program(
            ("git", "config", "-z", "--show-scope", "--name-only", "--get-regexp", r"^filter\."),
            self._timeout_s,
        )
        fields = listing.output.split("\0")
        drivers = {
            name.rpartition(".")[0]
            for scope, name in zip(fields[::2], fields[1::2])
            if scope in ("local", "worktree")
        }
        settings = [
            item
            for name in sorted(drivers)
            for off in _NO_FILTERS
            for item in ("-c", f"{name}.{off}")
        ]
        return (argv[0], *settings, *argv[1:])

    def _run_program(
        self, argv: tuple[str, ...], timeout_s: float, copy_to: Path | None = None
    ) -> _Finished:
        """Run a program to its end, its output redacted as it comes."""
        self._started_count += 1
        key = f"command-{self._started_count}"
        output_r, output_w = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, output_r)
            null_fd = os.open(os.devnull, os.O_RDONLY)
            self._keeper.spawn(
                key,
                argv,
                cwd=self._cwd,
                env=self._env,
                fds=(null_fd, output_w, output_w),
                on_terminal=False,
            )
            os.close(null_fd)
            os.close(output_w)
            capture = _Capture(
                self._rules, stack.enter_context(copy_to.open("wb")) if copy_to else None
            )
            problem, status = self._watch(key, argv[0], output_r, timeout_s, capture)
        if status is None:
            return _Finished(None, problem, capture.text())
        code = os.waitstatus_to_exitcode(status)
        problem = problem or (f"exit code {code}" if code >= 0 else f"killed by signal {-code}")
        return _Finished(
            code if not problem.startswith("it ran") else None, problem, capture.text()
        )

    def _watch(
        self, key: str, program: str, output_r: int, timeout_s: float, capture: _Capture
    ) -> tuple[str, int | None]:
        """Read until the program has ended. Returns a problem, if any, and the wait status."""
        deadline = time.monotonic() + timeout_s
        problem = ""
        status: int | None = None
        is_open = True
        while status is None or is_open:
            readable, _, _ = select.select(
                [self._wake_r, *([output_r] if is_open else [])],
                [],
                [],
                max(0.0, deadline - time.monotonic()),
            )
            if output_r in readable:
                raw = os.read(output_r, 65_536)
                capture.feed(raw)
                is_open = bool(raw)
            if self._wake_r in readable:
                os.read(self._wake_r, 4096)
            report = self._next_report(key)
            if report is not None and report.event == "failed":
                return f"{program} cannot be started ({report.text})", None
            if report is not None:
                status = report.number
                deadline = min(deadline, time.monotonic() + _AFTER_EXIT_S)
            if time.monotonic() >= deadline:
                if status is not None:
                    break
                problem = f"it ran longer than {timeout_s:g} s and was killed"
                self._keeper.kill(key)
                deadline = time.monotonic() + _AFTER_EXIT_S
        return problem, status

    def _next_report(self, key: str) -> Report | None:
        """Return the report that ends the program, if it has come."""
        while True:
            try:
                report = self._reports.get_nowait()
            except queue.Empty:
                return None
            if report.key in (key, EVERY_PROGRAM) and report.event in ("failed", "exited"):
                return report

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"w")


class _Capture:
    """The redacted output of one command: its beginning, its end, and all of it in a file."""

    def __init__(self, rules: Rules, file: Any) -> None:
        self._redactor = Redactor(rules=rules)
        self._rules = rules
        self._file = file
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def feed(self, raw: bytes) -> None:
        """Take what was read; an empty read is the end."""
        redacted = self._redactor.feed(raw) if raw else self._redactor.flush()
        if self._file is not None:
            self._file.write(redacted)
        self._size += len(redacted)
        room = _HEAD_BYTES - len(self._head)
        self._head += redacted[:room]
        self._tail += redacted[room:] if room >= 0 else redacted
        del self._tail[:-_TAIL_BYTES]

    def text(self) -> RedactedText:
        """Return what fits into an acknowledgement, with a notice where something was left out."""
        self.feed(b"")
        cut = self._size - len(self._head) - len(self._tail)
        notice = f"\n[… {cut} bytes are left out here …]\n".encode() if cut > 0 else b""
        text = (bytes(self._head) + notice + bytes(self._tail)).decode("utf-8", "replace")
        return self._rules.redact(text)
