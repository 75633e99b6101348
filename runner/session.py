"""One run, from the first marker to the exit code: the main thread and what it owns.

Everything here runs in the main thread unless its docstring says otherwise. It waits in one
`select` for the keeper's reports, for signals and for messages of the workers; nobody else starts,
stops or joins a worker. The threads and the order of the shutdown are on the first page of
`claude_runner.py`; in the code that order is `_end`, `_child_ended`, `_is_swept` and `_wind_up`,
each from top to bottom, and at last `execute`'s stack, backwards.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Final

from config import RunnerError
from journal.spool import Spool, SpoolError
from runner.assist import Assist
from runner.console import shown_size
from runner.keeper import ASSIST, CHILD, EVERY_PROGRAM, Keeper, Report
from runner.mailbox import Mailbox, Signal, WorkerEnded
from runner.pacing import Pacer
from runner.poster import Delivery
from runner.processes import ChildEnd, kill_descendants
from runner.pump import ChildTerminals, PtyPump
from runner.syncer import Syncer
from runner.terminal import SessionTerminal
from runner.upload import collect_files

if TYPE_CHECKING:
    from allowlist import Allowlist
    from gateway_client import GatewayClient
    from journal.spool import FilePart
    from redact import RedactedText, Rules
    from runner.assist import AssistPlan
    from runner.console import Console
    from runner.executor import Executor
    from runner.folder import RunFolder
    from runner.plan import Job
    from runner.poller import Poller

STOP_GRACE_S: Final = 10.0
# A descendant of the child that holds its terminal does not keep the run from ending.
DRAIN_TERMINAL_S: Final = 2.0
# A screen that takes nothing (Ctrl-S) keeps nobody from suspending the session.
SUSPEND_TIMEOUT_S: Final = 1.0
# How often a person at a terminal sees how much is still to be delivered.
PROGRESS_INTERVAL_S: Final = 1.0
# A window's edge that is dragged changes the size at every step. Each marker is a request of its
# own that no output can be merged across, and the gateway takes 100 requests a minute.
RESIZED_INTERVAL_S: Final = 1.0
JOIN_TIMEOUT_S: Final = 5.0
# A local reader that still reads gets this long for what it has not read yet.
LOCAL_TIMEOUT_S: Final = 10.0
# The keeper's linger, its sweep and some room: past this and the grace period, it hangs.
KEEPER_TIMEOUT_S: Final = 10.0
MAX_SHOWN_COMMAND_CHARS: Final = 4_000
_MAKE_ROOM: Final = "make room, or set CLAUDE_RUNNER_DATA_DIR to another folder"

# What a run loses with a worker that it goes on without.
_LOSSES: Final = {
    "poller": "remote control failed: {}; the run goes on, but the gateway's page cannot stop it "
    "any more: Ctrl-C here does",
    "executor": "commands are not executed any more: {}",
    "syncer": "a power cut may lose output: {}",
}


@dataclass(frozen=True)
class _EndRequest:
    """The operator wants the run to end. `reason` is what the `finished` marker will say."""

    reason: str


class Run:
    """One run. Its public methods but `execute` are what the operator may do to it."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        rules: Rules,
        allowlist: Allowlist,
        console: Console,
        open_client: Callable[[], GatewayClient],
    ) -> None:
        self._job = job
        self._folder = folder
        self._rules = rules
        self._allowlist = allowlist
        self._console = console
        self._open_client = open_client
        self._started_at = time.monotonic()
        # Whether the child may have run; it never runs twice for one run.
        self.was_started = False
        self._ending: str | None = None
        self._failure: str | None = None
        self._child_end: ChildEnd | None = None
        self._deadline: float | None = None
        self._is_delivering = False
        self._gave_up = False
        self._swept = False
        self._pump_ended = False
        self._delivery_ended = False
        self._size_told_at = 0.0
        # When the gateway is to be told of the size; None when it knows.
        self._size_due: float | None = None
        self._assist: Assist | None = None
        self._limit_at = None if job.max_time_s is None else self._started_at + job.max_time_s

    # --- the operator's hands; any thread ------------------------------------------------------

    def stop_run(self) -> None:
        """End it gracefully. Thread: any."""
        self._mailbox.post(_EndRequest("stopped"))

    def halt_run(self) -> None:
        """Kill it. Thread: any."""
        self._mailbox.post(_EndRequest("halted"))

    def type(self, text: bytes) -> str | None:
        """Type into it; returns the reason when that is not possible. Thread: any."""
        if not self._job.is_interactive:
            return "nobody reads the terminal in print mode"
        self._pump.type(text)
        return None

    # --- from the first marker to the exit code ------------------------------------------------

    def execute(self) -> int:
        """Run the child to its end, deliver, and return the exit code."""
        with contextlib.ExitStack() as stack:
            if threading.active_count() != 1:
                raise RunnerError("a thread was started before the keeper was forked")
            self._keeper = Keeper()
            stack.callback(self._keeper.close)
            # After the fork: it is not for us to hide what the child and commands write.
            stack.callback(os.umask, os.umask(0o077))
            self._spool = self._open_spool()
            stack.callback(self._spool.close)
            self._mailbox = stack.enter_context(Mailbox())
            stack.callback(self._console.release)
            self._terminal = SessionTerminal(self._keeper)
            stack.callback(self._terminal.give_back)
            self._take_terminal()
            self._append_marker(self._started_fields())
            self._pump = self._start_child()
            self._start_workers()
            self._watch()
            return self._wind_up()

    def _open_spool(self) -> Spool:
        """Open the journal, with what another process needs to deliver it."""
        try:
            spool = Spool(self._folder.spool_path)
        except SpoolError as error:
            if not error.is_disk_failure:
                raise  # it says itself what to do
            raise RunnerError(f"{error}; {_MAKE_ROOM}") from error
        spool.put_fact("gateway_url", self._job.gateway_url)
        spool.put_fact("token", self._job.token)
        spool.put_fact("log_name", self._job.log_name)
        if spool.disk_failure is not None:
            spool.close()
            raise RunnerError(f"{spool.disk_failure}; {_MAKE_ROOM}")
        return spool

    def _take_terminal(self) -> None:
        if not (self._job.is_interactive and os.isatty(0) and os.isatty(1)):
            self._terminal.guard()
            return
        self._console.note(
            f"this session ends when you leave {self._job.title}; for a run that ends by itself, "
            "give a prompt with --cmd"
        )
        self._console.hold()
        self._terminal.take()

    def _started_fields(self) -> dict[str, Any]:
        return {
            "event": "started",
            # A marker cannot be cut, and a prompt may have any length.
            "command": self._rules.redact(self._job.shown_command)[:MAX_SHOWN_COMMAND_CHARS],
            "workingDir": self._job.cwd,
            "runner": self._job.runner,
            "mode": self._job.mode,
            "columns": self._terminal.size.columns,
            "lines": self._terminal.size.lines,
            **({"sessionId": self._job.session_id} if self._job.session_id else {}),
            "commands": list(self._allowlist.commands),
            "remoteInput": self._job.allow_remote_input,
            "version": self._job.version,
        }

    def _start_child(self) -> PtyPump:
        """Open the terminals, let the keeper start the child in them, and read."""
        terminals = ChildTerminals(
            self._job,
            self._folder.path,
            self._rules,
            self._terminal.size,
            self._terminal.attributes,
        )
        pump = PtyPump(
            terminals.channels,
            open(self._folder.path / self._job.log_name, "ab", buffering=0),  # noqa: SIM115 - the pump closes it
            modes=self._terminal.modes,
            keyboard_fd=0 if self._terminal.is_taken else None,
            publish=self._publish,
            publish_state=self._publish_state,
            states=self._job.states,
            note_undo=self._keeper.note_undo,
            ended=self._mailbox.post,
        )
        self.was_started = True
        self._keeper.spawn(
            CHILD,
            self._job.argv,
            cwd=self._job.cwd,
            env=self._job.env,
            fds=terminals.fds,
            on_terminal=True,
        )
        terminals.close_fds()
        pump.start()
        return pump

    def _publish(self, stream: str, text: RedactedText) -> None:
        """Put output into the journal, and a notice where some of it is missing. Thread: pump."""
        self._publish_gap(len(text))
        self._spool.append(stream, text)

    def _publish_state(self, state: str) -> None:
        """Tell whether the child works or waits for somebody. Thread: pump."""
        self._append_marker({"event": "state", "state": state})

    def _publish_gap(self, room_chars: int) -> None:
        gap_bytes = self._spool.take_gap(room_chars)
        if gap_bytes:
            notice = f"{gap_bytes} bytes of output are missing here: the disk takes nothing more"
            self._spool.append("error", self._rules.redact(notice))

    def _append_marker(self, fields: dict[str, Any]) -> None:
        self._spool.append("marker", self._rules.redact_json(fields))

    def _start_workers(self) -> None:
        # Imported here because the child, which is running by now, does not have to wait for it.
        from runner.executor import Executor
        from runner.poller import Poller

        self._pacer = Pacer(self._job.poll_interval_s)
        self._syncer = Syncer(self._spool, ended=self._mailbox.post)
        self._delivery = Delivery(
            self._open_client(),
            self._spool,
            self._folder.path,
            self._pacer,
            self._rules,
            tell=self._console.warn,
            ended=self._mailbox.post,
        )
        self._executor: Executor = Executor(
            self._open_client(),
            self._spool,
            self._pacer,
            self._rules,
            self._keeper,
            cwd=self._job.cwd,
            env=self._job.env,
            timeout_s=self._job.command_timeout_s,
            folder=self._folder.path,
            tell=self._console.warn,
            ended=self._mailbox.post,
        )
        self._poller: Poller = Poller(
            self._open_client(),
            self._spool,
            self._pacer,
            self._rules,
            self._allowlist,
            self,
            self._executor,
            poll_interval_s=self._job.poll_interval_s,
            allow_remote_input=self._job.allow_remote_input,
            tell=self._console.warn,
            ended=self._mailbox.post,
        )
        for worker in (self._delivery, self._executor, self._poller, self._syncer):
            worker.start()
        if self._job.assist is not None:
            self._start_assist(self._job.assist)

    def _start_assist(self, plan: AssistPlan) -> None:
        self._assist = Assist(
            plan,
            self._keeper,
            self._pacer,
            # Not the address: what `start` prints is the child's, and often kept in a file.
            show=lambda _address: self._console.note(
                "an assist session is open; the gateway's page has its address"
            ),
            tell=self._console.warn,
            ended=self._mailbox.post,
        )
        self._assist.start()

    # --- while it runs -------------------------------------------------------------------------

    def _watch(self) -> None:
        """Obey signals, the operator and the keeper until nothing of the child is left."""
        while not (self._child_end is not None and self._swept and self._pump_ended):
            if self._deadline is None or time.monotonic() < self._deadline:
                self._wait(self._deadline if self._deadline is not None else self._limit_at)
                self._obey_time_limit()
            elif not self._swept:
                self._console.error(
                    "the process that watches over the run hangs, and is killed; the runner ends "
                    "what is left of the run itself"
                )
                self._keeper.kill_keeper()
                self._deadline = None  # its end is reported at once
            else:
                self._console.error(
                    "the child's terminal could not be read to its end; its last output is missing"
                )
                return

    def _obey_time_limit(self) -> None:
        if self._limit_at is not None and time.monotonic() >= self._limit_at:
            self._limit_at = None
            if self._ending is None and self._child_end is None:
                self._console.note("the time limit is reached; the run is stopped")
                self._end("time limit")

    def _wait(self, deadline: float | None) -> None:
        """Wait once for the keeper, a signal or a message, and act on it."""
        watched: list[Any] = [self._mailbox]
        if not self._swept:
            watched.append(self._keeper)
        dues = [due for due in (deadline, self._size_due) if due is not None]
        timeout_s = max(0.0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if self._keeper in readable:
            reports = self._keeper.receive()
            if reports is None:
                self._keeper_died()
            for report in reports or ():
                self._on_report(report)
        if self._mailbox in readable:
            for message in self._mailbox.receive():
                self._on_message(message)
        if self._size_due is not None and time.monotonic() >= self._size_due:
            self._tell_size()

    def _on_report(self, report: Report) -> None:
        if report.event == "swept":
            if report.number:
                self._console.warn(
                    f"{report.number} processes of the run could not be killed, because they are "
                    "another user's or wait for a device; look for them with ps"
                )
            self._is_swept()
        elif report.key == ASSIST:
            self._report_to_assist(report)
        elif report.key != CHILD:
            self._executor.report(report)
        elif report.event == "exited":
            self._child_ended(ChildEnd.of_status(report.number))
        elif report.event == "failed":
            self._child_ended(ChildEnd.not_started(report.number, report.text))
            self._keeper.halt_run()
        elif report.event == "suspended" and self._terminal.is_taken:
            self._suspend()
        elif report.event == "suspended" and self._job.is_interactive:
            self._keeper.resume()  # by the operator; there is no shell that could continue it

    def _on_message(self, message: object) -> None:
        if isinstance(message, _EndRequest):
            self._end(message.reason)
        elif isinstance(message, Signal):
            self._on_signal(message.number)
        elif isinstance(message, WorkerEnded):
            self._on_worker_ended(message)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._resize()
        elif self._is_delivering:
            self._gave_up = True
            self._delivery.give_up()
        elif number == signal.SIGINT and (self._ending or self._child_end):
            self._end("halted")
        else:
            self._end("hangup" if number == signal.SIGHUP else "stopped")

    def _on_worker_ended(self, ended: WorkerEnded) -> None:
        if ended.worker == "pty-pump":
            self._pump_ended = True
            if ended.error is not None:
                self._failure = f"its output could not be taken: {_shown(ended.error)}"
                self._keeper.halt_run()
                self._expect_end(0)
        elif ended.worker == "poster":
            self._delivery_ended = True
            if ended.error is not None:
                self._console.warn(
                    f"delivery failed: {_shown(ended.error)}; output is kept in "
                    f"{self._folder.path}, and `{self._job.program} sync` sends it later"
                )
        elif ended.worker == "assist":
            if self._ending is None and self._child_end is None:  # else it ends with the run
                self._tell_of_assist(ended.error)
        elif ended.error is not None:
            self._console.warn(_LOSSES[ended.worker].format(_shown(ended.error)))

    def _end(self, reason: str) -> None:
        """Let the keeper end the run. The first reason is the one that is reported, or a halt.

        Once the child has ended only its descendants are left to be killed, which is no reason.
        """
        is_halt = reason == "halted"
        if self._child_end is None and (is_halt or self._ending is None):
            self._ending = reason
            if not is_halt:
                self._keeper.stop_run(STOP_GRACE_S)
                self._expect_end(STOP_GRACE_S)
        if is_halt:
            self._keeper.halt_run()
            self._expect_end(0)

    def _expect_end(self, within_s: float) -> None:
        """Note that the run should be over by then."""
        deadline = time.monotonic() + within_s + KEEPER_TIMEOUT_S
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def _child_ended(self, end: ChildEnd) -> None:
        if self._failure is not None:
            end = ChildEnd.failed(self._failure)
        self._child_end = end
        if end.error is not None:
            sentence = f"{self._job.argv[0]}: {end.error}"
            self._console.error(sentence)
            self._spool.append("error", self._rules.redact(sentence))
        self._console.detail(f"the child has ended: {end.description}")
        self._poller.stop()
        self._executor.stop()
        if self._assist is not None:
            self._assist.stop()
        self._expect_end(0)

    def _is_swept(self) -> None:
        """Everything that could still print is gone, so the end of the output is near."""
        self._swept = True
        # A command that was handed over a moment too late; nobody listens to the keeper any more.
        self._executor.report(Report("failed", EVERY_PROGRAM, 0, "the run has ended"))
        self._report_to_assist(Report("failed", ASSIST, 0, "the run has ended"))
        if self._child_end is None:
            self._child_ended(ChildEnd.failed("it could not be killed"))
        self._pump.finish(DRAIN_TERMINAL_S)
        self._deadline = time.monotonic() + DRAIN_TERMINAL_S + JOIN_TIMEOUT_S

    def _keeper_died(self) -> None:
        """Do its work as well as can be: what it left behind has come to this process."""
        kill_descendants(time.sleep)
        if self._child_end is None:
            self._child_ended(ChildEnd.failed("the process that watched over it was killed"))
        self._is_swept()

    def _tell_of_assist(self, error: BaseException | None) -> None:
        if error is None:
            self._console.note("the assist session has ended")
        else:
            self._console.warn(f"assist: {error}; the run goes on without it")

    def _report_to_assist(self, report: Report) -> None:
        if self._assist is not None:
            self._assist.report(report)

    def _suspend(self) -> None:
        self._pump.pause_keyboard(paused=True)
        # An editor has left its screen just before; the shell's prompt must come behind that.
        self._pump.catch_up(SUSPEND_TIMEOUT_S)
        self._terminal.suspend()
        self._resize()
        self._pump.pause_keyboard(paused=False)
        self._keeper.resume()

    def _resize(self) -> None:
        if self._terminal.measure():
            self._pump.resize(self._terminal.size)
            self._size_due = self._size_told_at + RESIZED_INTERVAL_S

    def _tell_size(self) -> None:
        size, self._size_due = self._terminal.size, None
        self._size_told_at = time.monotonic()
        self._append_marker({"event": "resized", "columns": size.columns, "lines": size.lines})

    # --- its end ---------------------------------------------------------------------------------

    def _wind_up(self) -> int:
        """Deliver what there is, producers before consumers. Returns the exit code."""
        end = self._child_end or ChildEnd.failed("it never ran")
        self._executor.join(JOIN_TIMEOUT_S)
        self._poller.join(JOIN_TIMEOUT_S)
        if self._assist is not None:
            self._assist.join()  # nothing may come after `finished`
        self._is_delivering = True
        self._publish_gap(0)
        if self._size_due is not None:
            self._tell_size()
        self._spool.record_end(self._end_fields(end), self._collect_files())
        if os.isatty(1):
            self._pump.join(LOCAL_TIMEOUT_S)  # all is shown before the terminal's modes change
        self._terminal.give_back()
        self._console.release()
        if self._job.resume_command is not None:
            command = self._rules.redact(self._job.resume_command)
            self._console.note(f"to go on with this session: {command}")
        self._tell_of_the_disk()
        self._deliver()
        self._pump.join(LOCAL_TIMEOUT_S)
        if self._pump.redaction_failures:
            self._console.warn(
                f"redaction failed {self._pump.redaction_failures} times; what it could not judge "
                "was removed up to the end of the line; please report it"
            )
        if self._pump.unshown_bytes:
            self._console.warn(
                f"{self._pump.unshown_bytes} bytes of output were not shown: nobody read them"
            )
        self._syncer.stop()
        self._syncer.join(JOIN_TIMEOUT_S)
        if self._poller.dropped_count:
            self._console.warn(
                f"{self._poller.dropped_count} commands of the gateway were malformed and ignored"
            )
        return end.exit_code(self._ending)

    def _end_fields(self, end: ChildEnd) -> dict[str, Any]:
        return {
            "event": "finished",
            "exitCode": end.exit_code(self._ending),
            "signal": end.signal_name,
            "reason": end.reason(self._ending),
            "childExitCode": end.code,
            "durationMs": round((time.monotonic() - self._started_at) * 1_000),
            **self._result_fields(),
        }

    def _result_fields(self) -> dict[str, Any]:
        """Return what the child's own result said, if there was one. The pump has ended.

        Redacted here, for the journal: `sync` may know other values than this run did.
        """
        result = self._job.messages.result() if self._job.messages is not None else {}
        return {"result": json.loads(self._rules.redact_json(result))} if result else {}

    def _collect_files(self) -> list[FilePart]:
        def breathe() -> None:
            self._wait(time.monotonic())  # a large file must not keep a signal waiting
            if self._gave_up:
                raise OSError(errno.ECANCELED, "it was broken off")

        return collect_files(self._job, self._folder.path, self._rules, self._console.warn, breathe)

    def _tell_of_the_disk(self) -> None:
        if self._spool.disk_failure is not None:
            self._console.warn(
                f"{self._spool.disk_failure}; the run went on in memory, and "
                f"{shown_size(self._spool.lost_bytes)} of output were lost"
            )
        if self._pump.unlogged_bytes:
            self._console.warn(
                f"{self._job.log_name} lacks the last {shown_size(self._pump.unlogged_bytes)}: "
                "the disk takes nothing more"
            )
        if self._pump.lacks_messages:
            self._console.warn(
                f"{self._job.messages_name} lacks the last messages: the disk takes nothing more"
            )

    def _deliver(self) -> None:
        self._pacer.stop_polling()
        self._delivery.finish()
        while not self._delivery_ended:
            if self._delivery.has_stalled(self._job.drain_timeout_s):
                self._delivery.give_up()
            self._wait(time.monotonic() + PROGRESS_INTERVAL_S)
            if not self._delivery_ended:
                self._console.progress(f"delivering {self._delivery.describe_rest().text} …")
        self._console.progress("")
        self._delivery.join(JOIN_TIMEOUT_S)
        self._executor.join(JOIN_TIMEOUT_S)  # acknowledgements that were still on their way
        if not self._delivery.is_done:
            self._tell_what_is_left()
        elif self._spool.unacknowledged():
            self._console.warn(
                "the gateway did not take the end of every command; "
                f"`{self._job.program} sync` tries it once more"
            )
        else:
            self._close_journal()

    def _close_journal(self) -> None:
        try:
            self._spool.wipe("token")
            self._folder.mark_delivered()
        except (SpoolError, OSError) as error:
            self._console.warn(
                f"everything is delivered, but {self._folder.path} still holds the run's token, "
                f"because the disk cannot be written ({error}); delete that folder"
            )

    def _tell_what_is_left(self) -> None:
        left = " ".join(self._delivery.describe_rest())
        if self._folder.spool_path.exists() and self._spool.return_to_disk():
            self._console.warn(
                f"{left} not delivered, but kept in {self._folder.path}; "
                f"`{self._job.program} sync` sends what is left"
            )
        else:
            self._console.error(f"{left} lost: neither the gateway nor the disk took it")


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
