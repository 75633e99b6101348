"""What the operator may do: commands are asked for, checked, executed and acknowledged.

Two threads. The poller asks the gateway, decides, and carries out at once what cannot wait: stop,
halt, keys for the session. Commands of the allowlist go to the executor, which runs one at a time,
so that a slow one delays neither the output nor a stop.

Every command is written to the journal before anything is done about it. The gateway lists it until
it is acknowledged, so it is seen again and again; what the journal knows is never executed twice.

At the end of the run the poller's exchange is broken off. The executor waits for its last word,
records that what is still queued was refused, and then acknowledges whatever has not been.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import queue
import re
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Final, Protocol

from allowlist import (
    MAX_COMMAND_CHARS,
    SHOWING_ENVIRONMENT,
    Allowed,
    Allowlist,
    AllowlistError,
    Refused,
    override_git_config,
)
from delivery import backoff_s, file_parts, open_part, send_file, size_after
from gateway_client import Outcome
from gateway_transport import GatewayError, printable
from keeper import EVERY_PROGRAM, Report
from redact import Redactor
from spool import SpoolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from delivery import Pacer
    from gateway_client import Attempt, GatewayClient, Reply
    from keeper import Keeper
    from redact import Redacted, RedactedText, Rules
    from spool import Command, Spool

_COMMAND_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
_INPUT: Final = "__INPUT__:"
# So much of a refused command is enough to recognise it.
_MAX_SHOWN_CHARS: Final = 200
# How long a gateway that knows long polls may keep a question open.
LONG_POLL_S: Final = 20
_POLL_REPLY_S: Final = LONG_POLL_S + 10.0
# A stop must get through soon after an outage.
_MAX_POLL_PAUSE_S: Final = 10.0
_REJECTED_PAUSE_S: Final = 30.0
# A gateway that lists more than this at once is broken; the rest stays listed. A stop is found
# wherever it stands.
_MAX_COMMANDS_A_POLL: Final = 100
_URGENT: Final = ("__STOP__", "__HALT__")
# Malformed commands are told apart by their digests, so that each is counted once.
_MAX_DROPPED: Final = 10_000
_MAX_QUEUED: Final = 50
_ACK_TRIES: Final = 3
# The first and the last part of a command's output fit into an acknowledgement; a proxy in front of
# the gateway may allow no more than 1 MB, and an `error` no more than 100,000 characters.
_HEAD_BYTES: Final = 24_000
_TAIL_BYTES: Final = 64_000
# A descendant that keeps the pipe open does not keep the command's result back.
_AFTER_EXIT_S: Final = 1.0
# How long the executor waits, at the end, for what the poller still has to say.
_LAST_POLL_S: Final = 2.0
# git's list of its configuration. More than this is no configuration, and nothing is executed.
_MAX_LISTING_BYTES: Final = 4 * 1_048_576
_RUN_HAS_ENDED: Final = "the run has ended"
_DIFF_COMMANDS: Final = frozenset({"git diff", "git diff --cached"})


class Session(Protocol):
    """What a command may do to the running session. Every method returns at once. Thread: any."""

    def stop_run(self) -> None:
        """End it gracefully."""

    def halt_run(self) -> None:
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
        self._told: set[str] = set()
        self._dropped: set[bytes] = set()
        self._can_acknowledge = True
        self._thread = threading.Thread(target=self._run, name="runner-poller", daemon=True)

    @property
    def dropped_count(self) -> int:
        """How many malformed commands were ignored."""
        return len(self._dropped)

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
        finally:
            self._executor.expect_no_more()

    def _poll(self) -> float:
        """Ask once and obey. Returns how long to pause."""
        asked_at = time.monotonic()
        try:
            reply = self._client.send(self._client.commands(LONG_POLL_S), _POLL_REPLY_S)
        except GatewayError as error:  # nothing was sent: another certificate
            self._tell_once("rejected", str(error))
            return _REJECTED_PAUSE_S
        self._pacer.note(reply)
        if reply.outcome is Outcome.ACCEPTED and isinstance(reply.body, list):
            self._failures = 0
            self._told.discard("rejected")
            self._receive_all(reply.body)
            # An early empty answer means that this gateway has no long poll, and a command that is
            # still being executed stays listed: both times an immediate question would be a flood.
            waited_s = time.monotonic() - asked_at
            if waited_s >= LONG_POLL_S * 0.9:
                return 0.0
            return self._pacer.poll_pause_s(self._poll_interval_s)
        return self._pause_after(reply)

    def _pause_after(self, reply: Reply) -> float:
        """Return how long to pause after an answer that is no list of commands."""
        if reply.outcome in (Outcome.WRONG_SECRET, Outcome.WRONG_TOKEN, Outcome.SKEWED):
            self._tell_once("rejected", f"the gateway refuses remote control ({reply.message})")
            return _REJECTED_PAUSE_S
        if reply.status == 200:
            self._tell_once(
                "unusable",
                "the gateway answers the question for commands with something else; "
                "it is asked again",
            )
        self._failures += 1
        return max(self._poll_interval_s, min(_MAX_POLL_PAUSE_S, backoff_s(self._failures)))

    def _receive_all(self, items: Iterable[Any]) -> None:
        commands = [command for item in items for command in self._parse(item)]
        for _, text in commands:
            if text == "__STOP__":
                self._session.stop_run()  # before anything that could fail or wait
            elif text == "__HALT__":
                self._session.halt_run()
        commands.sort(key=lambda command: command[1] not in _URGENT)
        self._can_acknowledge = True
        for command_id, text in commands[:_MAX_COMMANDS_A_POLL]:
            try:
                self._receive(command_id, text)
            except SpoolError as error:
                # What cannot be recorded is not executed; a stop was carried out before that.
                self._tell_once("journal", f"commands are not executed any more: {error}")

    def _parse(self, item: Any) -> Iterator[tuple[str, str]]:
        """Yield the id and the text of a command that has both; count any other."""
        if (
            isinstance(item, dict)
            and isinstance(item.get("id"), str)
            and _COMMAND_ID.fullmatch(item["id"])
            and isinstance(item.get("command"), str)
        ):
            yield item["id"], item["command"]
        elif len(self._dropped) < _MAX_DROPPED:
            # It stays listed, and would be counted again at every poll.
            self._dropped.add(hashlib.sha256(json.dumps(item).encode()).digest())

    def _receive(self, command_id: str, text: str) -> None:
        shown = self._shorten(text, MAX_COMMAND_CHARS)
        known = self._spool.record_command(command_id, shown)
        if known is None:
            self._decide(command_id, text)
        elif known.has_ended:
            self._acknowledge(known)

    def _acknowledge(self, command: Command) -> None:
        """Tell how a command ended. After a failure the rest has to wait for the next poll."""
        if self._can_acknowledge:
            self._can_acknowledge = self._executor.acknowledge(command, self._client)

    def _tell_once(self, topic: str, sentence: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            self._tell(sentence)

    def _decide(self, command_id: str, text: str) -> None:
        if text in _URGENT:
            what = "Stop" if text == "__STOP__" else "Halt"
            self._spool.append("info", self._rules.redact(f"{what} requested by the operator"))
            self._answer(command_id, f"{what} initiated")
        elif text == "__ESCAPE__":
            self._type(command_id, b"\x03", "Escape sent")
        elif text.startswith(_INPUT):
            self._type(command_id, text[len(_INPUT) :].encode("utf-8", "replace"), "Input sent")
        else:
            decision = self._allowlist.check(text)
            if isinstance(decision, Refused):
                self._refuse(command_id, text, decision.reason)
            elif not self._executor.submit(command_id, decision):
                has_ended = self._stopping.is_set()
                reason = _RUN_HAS_ENDED if has_ended else "too many commands are waiting"
                self._refuse(command_id, text, reason)

    def _type(self, command_id: str, keys: bytes, done: str) -> None:
        problem: str | None = None
        if done == "Input sent" and not self._allow_remote_input:
            problem = "remote input is not allowed (CLAUDE_RUNNER_ALLOW_REMOTE_INPUT)"
        problem = problem or self._session.type(keys)
        if problem is None:
            self._answer(command_id, done)
        else:
            self._refuse(command_id, done.split()[0].lower(), problem)

    def _refuse(self, command_id: str, text: str, reason: str) -> None:
        shown = self._shorten(text, _MAX_SHOWN_CHARS)
        notice = self._rules.redact(f"Refused command: {shown}: {reason}")
        error = self._rules.redact(f"refused: {reason}")
        self._acknowledge(self._spool.end_command(command_id, error=error, notice=notice))

    def _shorten(self, text: str, max_chars: int) -> RedactedText:
        """Return what of a command is kept. Redacted whole: half a secret is not recognised."""
        return printable(self._rules.redact(text), max_chars)

    def _answer(self, command_id: str, result: str) -> None:
        self._acknowledge(self._spool.end_command(command_id, result=self._rules.redact(result)))


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
        self._env = env
        self._timeout_s = timeout_s
        self._folder = folder
        self._tell = tell
        self._queue: queue.Queue[tuple[str, Allowed] | None] = queue.Queue(_MAX_QUEUED + 1)
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._has_last = threading.Event()
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

    def expect_no_more(self) -> None:
        """Learn that the poller will neither submit nor acknowledge any more."""
        self._has_last.set()

    def stop(self) -> None:
        """Refuse what is queued; the command that runs ends with the run. Thread: any."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, and close what it owns.

        May be called again: what the gateway does not take in time is tried a little longer.
        """
        self._thread.join(timeout_s)
        if not self._thread.is_alive() and self._wake_r >= 0:
            self._client.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._wake_r = self._wake_w = -1

    def acknowledge(self, command: Command, client: GatewayClient) -> bool:
        """Tell the gateway once how a command ended. Returns whether it knows now."""
        return self._try_to_acknowledge(command, self._sign(command, client), client) is None

    def _sign(self, command: Command, client: GatewayClient) -> Attempt:
        result, error = command.result, command.error
        return client.acknowledge(command.id, result, error)

    def _try_to_acknowledge(
        self, command: Command, attempt: Attempt, client: GatewayClient
    ) -> Outcome | None:
        """Send one copy. Returns None once the gateway has it, else what it said."""
        try:
            reply = client.send(attempt)
        except GatewayError:
            return Outcome.UNKNOWN
        self._pacer.note(reply)
        if reply.outcome in (Outcome.ACCEPTED, Outcome.REPLAYED):
            self._spool.acknowledge(command.id)
            return None
        return reply.outcome

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            item = self._queue.get()
            if item is not None:
                self._finish(*item)
        # The run is over. Everything is recorded first, so that no event comes after its end.
        self._has_last.wait(_LAST_POLL_S)
        with contextlib.suppress(SpoolError):
            for item in self._take_queued():
                self._fail(*item, _RUN_HAS_ENDED)
            for command in self._spool.unacknowledged():
                if command.has_ended:
                    self._acknowledge_patiently(command)

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
                self._fail(command_id, command, _RUN_HAS_ENDED)
                return
            ended = self._execute(command_id, command)
            if not self._stopping.is_set():
                self._acknowledge_patiently(ended)
                if command.name in _DIFF_COMMANDS and ended.error is None:
                    self._upload(self._diff_path)
        except SpoolError as error:
            self._tell(f"the end of {command.name} was not recorded: {error}")

    def _acknowledge_patiently(self, command: Command) -> None:
        """Try it a few times. What does not arrive is listed, seen and acknowledged again."""
        attempt = self._sign(command, self._client)
        for failures in range(_ACK_TRIES):
            pause_s = backoff_s(failures - 1) if failures else 0.0
            self._pause(max(pause_s, self._pacer.blocked_s()))
            outcome = self._try_to_acknowledge(command, attempt, self._client)
            if outcome is None:
                return
            if outcome not in (Outcome.UNKNOWN, Outcome.LIMITED):
                attempt = self._sign(command, self._client)  # the nonce may be spent

    def _pause(self, seconds: float) -> None:
        """Wait. After the run's end nobody waits for this thread, so nothing has to wake it."""
        if self._stopping.is_set():
            time.sleep(seconds)
        else:
            self._stopping.wait(seconds)

    def _execute(self, command_id: str, command: Allowed) -> Command:
        self._spool.append("info", self._rules.redact(f"Executing command: {command.name}"))
        excerpt = _Excerpt()
        try:
            problem = self._run_command(command, excerpt)
        except (OSError, AllowlistError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - one command's failure is not the next one's
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            return self._spool.end_command(command_id, result=excerpt.text(self._rules))
        if self._stopping.is_set() and problem != _RUN_HAS_ENDED:
            problem = f"{_RUN_HAS_ENDED} ({problem})"
        return self._fail(command_id, command, problem, excerpt.text(self._rules))

    def _fail(self, command_id: str, command: Allowed, problem: str, output: str = "") -> Command:
        sentence = f"Command failed: {command.name}: {problem}"
        error = self._rules.redact(f"{problem}\n{output}" if output else problem)
        notice = self._rules.redact(sentence)
        return self._spool.end_command(command_id, error=error, notice=notice)

    def _upload(self, path: Path) -> None:
        try:
            self._send_parts(path)
        except (GatewayError, OSError) as error:
            self._tell(f"{path.name} is not uploaded: {error}")

    def _send_parts(self, path: Path) -> None:
        parts = list(file_parts(self._folder, path.name, path.name))
        number = 1
        while parts:
            part = parts.pop(0)
            file = open_part(self._folder, part)
            problem = send_file(self._client, file, self._pacer, self._stopping)
            smaller_bytes = size_after(problem, part)
            if smaller_bytes is not None:
                rest = {"start": part.start, "number": number, "max_bytes": smaller_bytes}
                parts = list(file_parts(self._folder, path.name, path.name, **rest))
                continue
            number += 1
            if problem is not None:
                self._tell(f"{part.name} is not uploaded: {problem.reason}")

    @property
    def _diff_path(self) -> Path:
        return self._folder / "latest.diff"

    def _run_command(self, command: Allowed, excerpt: _Excerpt) -> str:
        """Run it to its end. Returns why it failed, or an empty text."""
        argv, env = command.argv, self._env
        if command.git_query:
            env = {**env, **SHOWING_ENVIRONMENT}
            listing = _Listing()
            with _Stream(self._rules, excerpt.add) as errors:
                problem = self._run_program(command.git_query, env, listing.add, errors.feed)
            if problem:
                return problem
            argv = override_git_config(argv, bytes(listing.raw))
        with contextlib.ExitStack() as stack:
            if command.name not in _DIFF_COMMANDS:
                both = stack.enter_context(_Stream(self._rules, excerpt.add))
                return self._run_program(argv, env, both.feed)
            # What git says besides, about line ends and the like, is no part of the diff.
            file = stack.enter_context(self._diff_path.open("wb"))
            out = stack.enter_context(_Stream(self._rules, excerpt.add, file))
            errors = stack.enter_context(_Stream(self._rules, excerpt.add))
            return self._run_program(argv, env, out.feed, errors.feed)

    def _run_program(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        take: Callable[[bytes], None],
        take_errors: Callable[[bytes], None] | None = None,
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
                    cwd=self._cwd,
                    env=env,
                    fds=(null_fd, output_w, errors_w),
                    on_terminal=False,
                )
            try:
                return self._watch(key, argv[0], sinks)
            except BaseException:
                self._keeper.kill(key)  # a full disk, for one; nobody would read what it writes
                raise

    def _watch(self, key: str, program: str, sinks: dict[int, Callable[[bytes], None]]) -> str:
        """Read until the program has ended. Returns why it failed, or an empty text."""
        deadline = time.monotonic() + self._timeout_s
        problem = ""
        status: int | None = None
        while status is None or sinks:
            left_s = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self._wake_r, *sinks], [], [], left_s)
            for fd in readable:
                raw = os.read(fd, 65_536)
                if fd == self._wake_r:
                    continue
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
                problem = f"it ran longer than {self._timeout_s:g} s and was killed"
                self._keeper.kill(key)
                deadline = time.monotonic() + _AFTER_EXIT_S
        return problem or _failure(status)

    def _why_not_started(self, program: str, report: Report) -> str:
        if report.number in (0, errno.ECANCELED):
            return _RUN_HAS_ENDED  # or its keeper has
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

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"w")


def _open_pipe(reading: contextlib.ExitStack, writing: contextlib.ExitStack) -> tuple[int, int]:
    """Open a pipe, whose two ends are closed by these."""
    read_fd, write_fd = os.pipe()
    reading.callback(os.close, read_fd)
    writing.callback(os.close, write_fd)
    return read_fd, write_fd


def _failure(status: int | None) -> str:
    """Say what a wait status means; an empty text for success."""
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}" if code else ""
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"


class _Listing:
    """What a query of git prints, raw and whole: it is compared, never shown and never sent."""

    def __init__(self) -> None:
        self.raw = bytearray()

    def add(self, raw: bytes) -> None:
        """Take what was read. Raises AllowlistError when it does not end."""
        self.raw += raw
        if len(self.raw) > _MAX_LISTING_BYTES:
            raise AllowlistError("git's list of the configuration is too long")


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
        """Take what was read."""
        self._pass_on(self._redactor.feed(raw))

    def _pass_on(self, redacted: Redacted) -> None:
        if self._copy is not None:
            self._copy.write(redacted)
        self._publish(redacted)


class _Excerpt:
    """The beginning and the end of what a command printed."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def add(self, redacted: Redacted) -> None:
        """Take more of it."""
        self._size += len(redacted)
        room = _HEAD_BYTES - len(self._head)
        self._head += redacted[:room]
        self._tail += redacted[room:]
        del self._tail[:-_TAIL_BYTES]

    def text(self, rules: Rules) -> RedactedText:
        """Return what fits into an acknowledgement, with a notice where something was left out."""
        cut = self._size - len(self._head) - len(self._tail)
        notice = f"\n[… {cut} bytes are left out here …]\n".encode() if cut > 0 else b""
        text = (bytes(self._head) + notice + bytes(self._tail)).decode("utf-8", "replace")
        return rules.redact(text)
