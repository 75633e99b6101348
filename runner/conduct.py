"""A run from the moment its child was started: the main thread, and the order of the end.

`Session.conduct` has the main thread: from top to bottom it is the order of the shutdown, which is
explained on the first page of `claude_runner.py`. It waits in one place, `_wait`, for the keeper's
reports, for signals and for messages of the workers, and handles them there; no other module
starts, stops or joins a worker. All of it runs in the main thread unless a docstring says
otherwise.

Imported once the child runs, which does not have to wait for what is needed from here on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import signal
import time
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple

from journal.spool import Spool, SpoolError
from runner.attempts import Pacer
from runner.changes import Changes
from runner.console import shown_size
from runner.executor import Executor
from runner.keeper import ASSIST, CHILD, EVERY_PROGRAM, Keeper, Report
from runner.mailbox import (
    CertificateRefused,
    FilesTouched,
    KeysTyped,
    Mailbox,
    Signal,
    WorkerEnded,
    WorkerFailed,
)
from runner.poller import Poller
from runner.poster import Poster
from runner.processes import ChildEnd, command_line, living_descendants
from runner.pump import PtyPump
from runner.questions import Refusal
from runner.speaker import Speaker
from runner.syncer import Syncer
from runner.terminal import SessionTerminal
from runner.trust import TrustQuestion
from runner.upload import collect_files

if TYPE_CHECKING:
    from journal.spool import FilePart
    from runner.assist import Assist, AssistPlan
    from runner.conversation import Conversation
    from runner.parts import RunParts

_STOP_GRACE_S: Final = 10.0
# One Ctrl-C may come twice in a moment: from the terminal, and from what started the runner. A
# person does not press it twice as fast as this.
ONE_PRESS_S: Final = 0.005
# The keeper's linger, its sweep and some room: past this and the grace period, it hangs.
_KEEPER_TIMEOUT_S: Final = 10.0
# A descendant of the child that holds its terminal does not keep the run from ending.
_DRAIN_TERMINAL_S: Final = 2.0
_JOIN_TIMEOUT_S: Final = 5.0
# A local reader that still reads gets this long for what it has not read yet.
_LOCAL_TIMEOUT_S: Final = 10.0
# A stopped screen (Ctrl-S) delays the suspension of a session by this at most.
_SUSPEND_TIMEOUT_S: Final = 1.0
# How often a person at a terminal sees how much is still to be delivered.
_PROGRESS_INTERVAL_S: Final = 1.0
# A window's edge that is dragged changes the size at every step. Each marker is a request of its
# own that no output can be merged across, and the gateway takes 100 requests a minute.
_RESIZED_INTERVAL_S: Final = 1.0
_MAX_SHOWN_LEFT: Final = 5
# A job that is a session would wait for ever. Most jobs take longer to start than a few seconds.
_HINT_EVERY_S: Final = 60.0
_NO_REMOTE_INPUT: Final = "remote input is not allowed (CLAUDE_RUNNER_ALLOW_REMOTE_INPUT)"
_NOBODY_READS: Final = "print mode does not read from the terminal"
# What is missing while a worker pauses, and how it is told.
_FAILURES: Final = {
    "poster": "delivery failed: {}; output is kept on disk",
    "poller": "remote control failed: {}",
    "executor": "executing commands failed: {}",
    "syncer": "a power cut may lose output: {}",
    "assist": "the assist session failed: {}",
    "keyboard": "the keyboard could not be read: {}",
}


class _EndRequest(NamedTuple):
    """The operator wants the run to end. `reason` is what the `finished` marker will say."""

    reason: str


class Session:
    """A run whose child was started: its workers, its state, and its end.

    Its public methods but `conduct` are what the operator may do to it (`poller.Session`).
    """

    def __init__(
        self,
        run: RunParts,
        keeper: Keeper,
        spool: Spool,
        mailbox: Mailbox,
        terminal: SessionTerminal,
        pump: PtyPump,
        speaker: Speaker | None,
    ) -> None:
        job = run.job
        self._job = job
        self._folder = run.folder
        self._rules = run.rules
        self._console = run.console
        self._keeper = keeper
        self._spool = spool
        self._mailbox = mailbox
        self._terminal = terminal
        self._pump = pump
        self._conversation = None if speaker is None else speaker.conversation
        self._pacer = Pacer()
        self._syncer = Syncer(spool, tell_owner=mailbox.post)
        self._poster = Poster(
            run.open_client(),
            spool,
            run.folder.path,
            self._pacer,
            run.rules,
            tell=run.console.warn,
            tell_owner=mailbox.post,
        )
        self._changes = Changes(
            run.rules,
            run.folder.path,
            is_on=job.config.sends_changes,
            began_at=run.began_at,
            cwd=job.cwd,
            worktree=job.invocation.worktree,
            env=job.env,
            tell=run.console.detail,
        )
        self._executor = Executor(
            run.open_client(),
            spool,
            self._pacer,
            run.rules,
            keeper,
            began_at=run.began_at,
            cwd=job.cwd,
            worktree=job.invocation.worktree,
            env=job.env,
            timeout_s=job.config.command_timeout_s,
            folder=run.folder.path,
            changes=self._changes,
            tell=run.console.warn,
            tell_owner=mailbox.post,
        )
        self._poller = Poller(
            run.open_client(),
            spool,
            self._pacer,
            run.rules,
            run.allowlist,
            self,
            self._executor,
            poll_interval_s=job.config.poll_interval_s,
            tell=run.console.warn,
            tell_owner=mailbox.post,
        )
        self._assist = None if job.assist is None else self._plan_assist(job.assist)
        self._question = TrustQuestion(
            terminal,
            pump,
            run.console,
            mailbox.post,
            speaker.conversation if speaker is not None and speaker.has_keyboard else None,
        )
        self._started_at = run.started_at
        self._limit_at = None if job.max_time_s is None else run.started_at + job.max_time_s
        # When to look whether this job is a session; None if that is known.
        self._hint_due = None if job.invocation.hint is None else run.started_at + _HINT_EVERY_S
        # Why the runner ends the run, if it does: what the `finished` marker will say.
        self._ending: str | None = None
        # Why the run failed, whatever became of the child.
        self._failure: str | None = None
        self._child_end: ChildEnd | None = None
        self._pump_has_ended = False
        self._is_delivering = False
        self._poster_has_ended = False
        self._gave_up = False
        self._told_to_end_at = float("-inf")
        # After this the keeper counts as hung; None until it is asked to end the run.
        self._keeper_deadline: float | None = None
        self._size_told_at = 0.0
        # When the gateway is to be told of the size; None when it knows.
        self._size_due: float | None = None

    def _plan_assist(self, plan: AssistPlan) -> Assist:
        from runner.assist import Assist  # few runs have one

        return Assist(
            plan,
            self._keeper,
            self._pacer,
            # Not the address: what `start` prints is the child's, and often kept in a file.
            show=lambda _address: self._console.note(
                "an assist session is open; the gateway's page has its address"
            ),
            tell=self._console.warn,
            tell_owner=self._mailbox.post,
        )

    # --- the operator's hands; any thread ------------------------------------------------------

    def stop_run(self) -> None:
        """End it gracefully. Thread: any."""
        self._mailbox.post(_EndRequest("stopped"))

    def halt_run(self) -> None:
        """Kill it. Thread: any."""
        self._mailbox.post(_EndRequest("halted"))

    @property
    def why_deaf(self) -> str | None:
        """Why it takes nothing that the operator says to it; None if it may. Thread: any."""
        asking = self._job.asking
        if not (self._job.allows_remote_input or (asking is not None and asking.remote)):
            return _NO_REMOTE_INPUT
        return None if self._job.is_interactive or asking is not None else _NOBODY_READS

    def escape(self) -> str:
        """Interrupt what it does: what Ctrl-C types. Thread: any."""
        if self._conversation is not None:
            return self._conversation.interrupt()
        self._type(b"\x03")
        return "Escape sent"

    def enter(self, text: str) -> str:
        """Hand it what was typed into an input box. Thread: any."""
        if self._conversation is not None:
            return self._conversation.enter(text)
        if not self._job.allows_remote_input:
            raise Refusal(_NO_REMOTE_INPUT)
        self._type(text.encode("utf-8", "replace"))
        return "Input sent"

    def answer(self, text: str) -> str:
        """Give it the JSON of an answer. Thread: any."""
        return self._require_conversation().answer(text)

    def take_back(self, message_id: str) -> str:
        """Take back a message that it has not read. Thread: any."""
        return self._require_conversation().take_back(message_id)

    def switch_mode(self, mode: str) -> str:
        """Switch to another permission mode. Thread: any."""
        return self._require_conversation().switch_mode(mode)

    def _type(self, keys: bytes) -> None:
        if not self._job.is_interactive:
            raise Refusal(_NOBODY_READS)
        self._pump.type(keys)

    def _require_conversation(self) -> Conversation:
        if self._conversation is None:
            raise Refusal("this run does not ask (start it with --ask)")
        return self._conversation

    # --- from the first worker to the exit code ------------------------------------------------

    def conduct(self) -> int:
        """See the run through, and take it down, producers before consumers. Returns the exit code.

        How long each step may take stands beside it.
        """
        for worker in (self._poster, self._executor, self._poller, self._syncer, self._assist):
            if worker is not None:
                worker.start()

        # The child ends, by itself or because the keeper was asked to end it (`_end_run`): then
        # within STOP_GRACE_S and KEEPER_TIMEOUT_S.
        self._await_keeper(lambda: self._child_end is not None or self._keeper.has_swept)
        self._question.outlive_child()
        end = self._judge_end()

        # No more commands are taken, the queued ones are refused, the assist session is ended.
        self._poller.stop()
        self._executor.stop()
        if self._assist is not None:
            self._assist.stop()

        # The keeper kills what the child has left: within KEEPER_TIMEOUT_S.
        self._expect_sweep(0)
        self._await_keeper(lambda: self._keeper.has_swept)
        # What was handed over a moment too late is not started any more.
        self._executor.report(Report("failed", EVERY_PROGRAM, 0, "the run has ended"))
        self._report_to_assist(Report("failed", ASSIST, 0, "the run has ended"))

        # All that could still print is gone. The pump reads what the terminals hold, and flushes
        # the redactors: within DRAIN_TERMINAL_S, and JOIN_TIMEOUT_S for its own work.
        self._pump.finish(_DRAIN_TERMINAL_S)
        self._await_pump(_DRAIN_TERMINAL_S + _JOIN_TIMEOUT_S)
        self._note_interruption(end)

        # Nothing may come after the end, which is recorded in the journal.
        self._executor.join(_JOIN_TIMEOUT_S)
        self._poller.join(_JOIN_TIMEOUT_S)
        if self._assist is not None:
            self._assist.join()
        if self._conversation is not None:
            self._conversation.end()
        self._is_delivering = True  # from here on a signal breaks that off
        if self._size_due is not None:
            self._tell_size()
        self._spool.record_end(self._end_fields(end), self._collect_files())
        # From here on the poster delivers, sends `finished`, and uploads.
        self._pacer.expect_end()
        self._poster.finish()

        # The user's terminal is given back, after all was shown: within LOCAL_TIMEOUT_S.
        if os.isatty(1):
            self._pump.join(_LOCAL_TIMEOUT_S)
        self._terminal.give_back()
        self._console.release()
        self._tell_how_to_resume()
        self._tell_of_the_disk()

        # The poster is done: as long as the gateway takes something every `drain_timeout_s`.
        self._deliver()
        self._question.close()
        self._poster.join(_JOIN_TIMEOUT_S)
        self._executor.join(_JOIN_TIMEOUT_S)  # acknowledgements that were still on their way
        self._close_journal()

        # Local readers that lag behind get the rest: within LOCAL_TIMEOUT_S.
        self._pump.join(_LOCAL_TIMEOUT_S)
        self._tell_of_the_output()
        self._syncer.stop()
        self._syncer.join(_JOIN_TIMEOUT_S)
        self._tell_of_malformed_commands()
        return self._exit_code(end)

    # --- waiting ---------------------------------------------------------------------------------

    def _await_keeper(self, has_come: Callable[[], bool]) -> None:
        """Wait until the keeper has reported this. One that hangs is killed, which is reported."""
        while not has_come():
            if self._keeper_deadline is not None and time.monotonic() >= self._keeper_deadline:
                self._console.error(
                    "the keeper process stopped responding and was killed; the runner ends the "
                    "rest of the run itself"
                )
                self._keeper.kill_keeper()
                self._keeper_deadline = None
            self._wait(self._limit_at if self._keeper_deadline is None else self._keeper_deadline)
            self._obey_time_limit()

    def _await_pump(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._pump_has_ended:
            if time.monotonic() >= deadline:
                self._console.error(
                    "the child's terminal could not be read to its end; its last output is missing"
                )
                return
            self._wait(deadline)

    def _wait(self, deadline: float | None) -> None:
        """Wait once for the keeper, a signal or a message, and handle what has come."""
        dues = [due for due in (deadline, self._size_due, self._hint_due) if due is not None]
        for news in self._keeper.wait(self._mailbox, min(dues) if dues else None):
            self._handle(news)
        if self._size_due is not None and time.monotonic() >= self._size_due:
            self._tell_size()
        if self._hint_due is not None and time.monotonic() >= self._hint_due:
            self._look_for_a_session()

    def _look_for_a_session(self) -> None:
        """Tell the user if this job behaves like a session, which does not end by itself."""
        hint = self._job.invocation.hint
        self._hint_due = None
        if hint is None or self._child_end is not None:
            return
        if self._pump.is_typed_into or self._has_known_child():
            self._console.warn(hint)
            self._spool.append("info", self._rules.redact(hint))
        else:
            self._hint_due = time.monotonic() + _HINT_EVERY_S

    def _has_known_child(self) -> bool:
        """Whether what was started has started the program that this kind of runner is for."""
        found = living_descendants(self._keeper.pid)
        return any(self._job.profile.is_child(command_line(process.pid)) for process in found)

    def _handle(self, news: object) -> None:
        if isinstance(news, Report):
            self._handle_report(news)
        elif isinstance(news, Signal):
            self._handle_signal(news.number)
        elif isinstance(news, WorkerFailed):
            self._tell_of_failure(news)
        elif isinstance(news, WorkerEnded):
            self._handle_end_of_worker(news)
        elif isinstance(news, _EndRequest):
            self._end_run(news.reason)
        elif isinstance(news, FilesTouched):
            self._executor.note_work()
        elif isinstance(news, KeysTyped):
            self._question.type(news.keys)
        elif isinstance(news, CertificateRefused) and self._has_place_to_ask:
            self._question.ask(news.error)

    @property
    def _has_place_to_ask(self) -> bool:
        """Whether a question would be seen: not while a session's screen is being given back."""
        return self._child_end is None or not self._terminal.is_taken

    def _obey_time_limit(self) -> None:
        if self._limit_at is not None and time.monotonic() >= self._limit_at:
            self._limit_at = None
            if self._ending is None and self._child_end is None:
                self._console.note("the time limit was reached; stopping the run")
                self._end_run("time limit")

    def _handle_report(self, report: Report) -> None:
        if report.key == CHILD:
            self._handle_report_on_child(report)
        elif report.key == ASSIST:
            self._report_to_assist(report)
        elif report.event == "swept":
            self._tell_of_the_sweep(report)
        elif report.event == "gone" and self._child_end is None:
            self._child_end = ChildEnd.failed("the keeper process was killed")
        elif report.event != "gone":
            self._executor.report(report)

    def _tell_of_the_sweep(self, swept: Report) -> None:
        if swept.number:
            self._console.warn(
                f"{swept.number} processes of the run could not be killed, because they are "
                "another user's or wait for a device; look for them with ps"
            )
        left: list[str] = json.loads(swept.text or "[]")
        if left:
            noun = "process" if len(left) == 1 else "processes"
            more = f" and {len(left) - _MAX_SHOWN_LEFT} more" if left[_MAX_SHOWN_LEFT:] else ""
            shown = "; ".join(" ".join(each.split()) for each in left[:_MAX_SHOWN_LEFT])
            sentence = (
                f"{self._job.profile.title} left {len(left)} {noun} running, which ended with the "
                f"run: {shown}{more}"
            )
            redacted = self._rules.redact(sentence)
            self._console.warn(redacted)
            self._spool.append("info", redacted)

    def _handle_report_on_child(self, report: Report) -> None:
        if report.event == "exited":
            self._child_end = ChildEnd.of_status(report.number)
        elif report.event == "failed":
            self._child_end = ChildEnd.not_started(report.number, report.text)
            self._keeper.halt_run()
        elif report.event == "suspended" and self._terminal.is_taken:
            self._suspend()
        elif report.event == "suspended" and self._job.is_interactive:
            self._keeper.resume()  # by the operator; there is no shell that could continue it

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._resize()
            return
        if time.monotonic() < self._told_to_end_at + ONE_PRESS_S:
            return
        if self._is_delivering:
            self._gave_up = True
            self._poster.give_up()
        elif number == signal.SIGINT and (self._ending or self._child_end):
            self._end_run("halted")
        elif (
            number == signal.SIGINT
            and self._conversation is not None
            and self._conversation.interrupt_by_key()
        ):
            pass
        else:
            self._end_run("hangup" if number == signal.SIGHUP else "stopped")
            self._told_to_end_at = time.monotonic()

    def _handle_end_of_worker(self, ended: WorkerEnded) -> None:
        if ended.worker == "pty-pump":
            self._pump_has_ended = True
            if ended.error is not None:
                self._failure = f"its output could not be taken: {_shown(ended.error)}"
                self._keeper.halt_run()
                self._expect_sweep(0)
        elif ended.worker == "poster":
            self._poster_has_ended = True
            if ended.error is not None:
                self._console.warn(
                    f"delivery failed: {_shown(ended.error)}; output is kept in "
                    f"{self._folder.path}, and `{self._job.program} sync` sends it later"
                )
        elif ended.worker == "assist":
            if self._ending is None and self._child_end is None:  # else it ends with the run
                self._tell_of_assist(ended.error)
        elif ended.error is not None:
            self._console.warn(_FAILURES[ended.worker].format(_shown(ended.error)))

    def _tell_of_failure(self, failed: WorkerFailed) -> None:
        is_disk = isinstance(failed.error, SpoolError) and failed.error.is_disk_failure
        cause = str(failed.error) if is_disk else _shown(failed.error)
        what_next = "it is tried again" if is_disk else "it is started again, please report it"
        self._console.warn(f"{_FAILURES[failed.worker].format(cause)}; {what_next}")

    # --- what ends it ----------------------------------------------------------------------------

    def _end_run(self, reason: str) -> None:
        """Let the keeper end the run. The first reason is the one that is reported, or a halt.

        After the child has ended, a stop only kills leftovers and does not change the reason.
        """
        is_halt = reason == "halted"
        if self._child_end is None and (is_halt or self._ending is None):
            self._ending = reason
            if self._conversation is not None:
                self._conversation.expect_end()
            if not is_halt:
                self._keeper.stop_run(_STOP_GRACE_S)
                self._expect_sweep(_STOP_GRACE_S)
        if is_halt:
            self._keeper.halt_run()
            self._expect_sweep(0)

    def _expect_sweep(self, grace_s: float) -> None:
        """Note when the keeper should have ended all of the run, if it has that long for it."""
        deadline = time.monotonic() + grace_s + _KEEPER_TIMEOUT_S
        earlier = self._keeper_deadline
        self._keeper_deadline = deadline if earlier is None else min(earlier, deadline)

    def _judge_end(self) -> ChildEnd:
        """Return how the child ended, and tell what was wrong with it."""
        end = self._child_end or ChildEnd.failed("it could not be killed")
        if self._failure is not None:
            end = ChildEnd.failed(self._failure)
        self._child_end = end
        if end.error is not None:
            sentence = f"{self._job.invocation.argv[0]}: {end.error}"
            self._console.error(sentence)
            self._spool.append("error", self._rules.redact(sentence))
        self._console.detail(f"the child has ended: {end.description}")
        return end

    def _report_to_assist(self, report: Report) -> None:
        if self._assist is not None:
            self._assist.report(report)

    def _tell_of_assist(self, error: BaseException | None) -> None:
        if error is None:
            self._console.note("the assist session has ended")
        else:
            self._console.warn(f"assist: {error}; the run continues without it")

    # --- the user's terminal ---------------------------------------------------------------------

    def _suspend(self) -> None:
        self._pump.pause_keyboard(paused=True)
        # An editor has left its screen just before; the shell's prompt must come behind that.
        self._pump.catch_up(_SUSPEND_TIMEOUT_S)
        self._terminal.suspend()
        self._resize()
        self._pump.pause_keyboard(paused=False)
        self._keeper.resume()

    def _resize(self) -> None:
        if self._terminal.measure():
            self._pump.resize(self._terminal.size)
            self._size_due = self._size_told_at + _RESIZED_INTERVAL_S

    def _tell_size(self) -> None:
        size, self._size_due = self._terminal.size, None
        self._size_told_at = time.monotonic()
        fields = {"event": "resized", "columns": size.columns, "lines": size.lines}
        self._spool.append("marker", self._rules.redact_json(fields))

    # --- what is recorded, delivered and told ----------------------------------------------------

    def _end_fields(self, end: ChildEnd) -> dict[str, Any]:
        return {
            "event": "finished",
            "exitCode": self._exit_code(end),
            "signal": end.signal_name,
            "reason": end.reason(self._ending),
            "childExitCode": end.code,
            "durationMs": round((time.monotonic() - self._started_at) * 1_000),
            **self._session_fields(),
            **self._result_fields(),
        }

    def _note_interruption(self, end: ChildEnd) -> None:
        """Note that it ended by itself after its last turn was broken off. The pump has ended."""
        ended_alone = self._ending is None and end.error is None and end.signal_number is None
        if self._conversation is not None and ended_alone and self._conversation.was_interrupted:
            self._ending = "interrupted"

    def _exit_code(self, end: ChildEnd) -> int:
        """Return the runner's exit code. The pump has ended."""
        if self._ending == "interrupted":
            return 130  # Claude Code says 1, as for any error
        code = end.exit_code(self._ending)
        denied_code = self._job.denial_exit_code
        is_failed = denied_code is not None and code == 0 and self._result.get("denials")
        return denied_code if is_failed and denied_code is not None else code

    @property
    def _result(self) -> dict[str, Any]:
        """What the child's own result said, if there was one. The pump has ended."""
        messages = self._job.invocation.messages
        return messages.result() if messages is not None else {}

    def _result_fields(self) -> dict[str, Any]:
        """Return the child's own result, redacted for the journal: `sync` may know other values."""
        result = self._result
        return {"result": json.loads(self._rules.redact_json(result))} if result else {}

    def _collect_files(self) -> list[FilePart]:
        def on_block() -> None:
            self._wait(time.monotonic())  # a large file must not keep a signal waiting
            if self._gave_up:
                raise OSError(errno.ECANCELED, "it was broken off")

        files = collect_files(
            self._job, self._folder.path, self._rules, self._console.warn, on_block
        )
        return [*files, *self._changes.finish(on_block)]

    def _tell_of_the_disk(self) -> None:
        if self._spool.disk_failure is not None:
            self._console.warn(
                f"{self._spool.disk_failure}; the run went on, and "
                f"{shown_size(self._spool.lost_bytes or 0)} of output were not recorded"
            )
        if self._pump.unlogged_bytes:
            self._console.warn(
                f"{self._job.log_name} lacks the last {shown_size(self._pump.unlogged_bytes)}: "
                "the disk could not be written"
            )
        if self._pump.lacks_messages:
            self._console.warn(
                f"{self._job.messages_name} lacks the last messages: the disk could not be written"
            )

    def _session_fields(self) -> dict[str, Any]:
        session_id = self._session_id
        return {} if session_id is None else {"sessionId": session_id}

    @property
    def _session_id(self) -> str | None:
        """The session that another run can go on with, if there is one. The pump has ended."""
        session_id: str | None = self._result.get("sessionId") or self._job.invocation.session_id
        return session_id if session_id and self._has_session(session_id) else None

    def _tell_how_to_resume(self) -> None:
        job, session_id = self._job, self._session_id
        argv = session_id and job.profile.resume_argv(job.config, session_id)
        if session_id and argv:
            shown_argv = self._rules.redact(shlex.join(argv))
            self._console.note(
                f"to continue this session: {shown_argv}, or `{job.program} start --resume "
                f"{session_id}` with a new run"
            )

    def _has_session(self, session_id: str) -> bool:
        """Whether there is a session to go on with: not if the child refused its arguments."""
        job = self._job
        if not job.invocation.keeps_session:
            return False
        if job.invocation.messages is not None:
            return job.invocation.messages.has_begun
        return job.profile.is_session_kept(job.env, session_id)

    def _deliver(self) -> None:
        while not self._poster_has_ended:
            if self._poster.has_stalled(self._job.config.drain_timeout_s):
                self._poster.give_up()
            self._wait(time.monotonic() + _PROGRESS_INTERVAL_S)
            if not self._poster_has_ended:
                self._console.progress(f"delivering {self._poster.describe_remaining().text} …")
        self._console.progress("")

    def _close_journal(self) -> None:
        """Note that all is delivered, or tell what is not."""
        if not self._poster.is_done:
            self._tell_what_is_left()
        elif self._spool.unacknowledged():
            self._console.warn(
                "the gateway did not acknowledge every command's result; "
                f"`{self._job.program} sync` tries again"
            )
        else:
            self._mark_delivered()

    def _mark_delivered(self) -> None:
        try:
            self._spool.wipe("token")
            self._folder.mark_delivered()
        except (SpoolError, OSError) as error:
            self._console.warn(
                f"everything is delivered, but {self._folder.path} still holds the run's token, "
                f"because the disk cannot be written ({error}); delete that folder"
            )

    def _tell_what_is_left(self) -> None:
        left = " ".join(self._poster.describe_remaining())
        if self._folder.spool_path.exists() and not self._spool.is_off_disk:
            self._console.warn(
                f"{left} not delivered, but kept in {self._folder.path}; "
                f"`{self._job.program} sync` sends what is left"
            )
        else:
            with contextlib.suppress(OSError):
                self._folder.mark_delivered()
            self._console.error(f"{left} lost: neither the gateway nor the disk took it")

    def _tell_of_the_output(self) -> None:
        if self._pump.redaction_failures:
            self._console.warn(
                f"redaction failed {self._pump.redaction_failures} times, and the rest of each "
                "such line was removed; please report it"
            )
        if self._pump.unshown_bytes:
            self._console.warn(
                f"{self._pump.unshown_bytes} bytes of output were not shown: they were not read"
            )

    def _tell_of_malformed_commands(self) -> None:
        if self._poller.dropped_count:
            self._console.warn(
                f"{self._poller.dropped_count} commands of the gateway were malformed and ignored"
            )


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
