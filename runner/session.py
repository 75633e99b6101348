"""One run up to the moment its child is started, and what is taken down behind its end.

`Run.execute` opens what a run needs, starts the child, and closes everything backwards at the end.
What comes in between is in `runner.conduct`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from config import VERSION, RunnerError
from journal.spool import Spool, SpoolError
from kinds.text_layout import LAYOUT
from runner.keeper import CHILD, Keeper
from runner.mailbox import Mailbox, WakePipe
from runner.parts import RunParts
from runner.project import kinds_of_project
from runner.pump import ChildTerminals, PtyPump
from runner.repository import find_branch
from runner.terminal import LineKeyboard, SessionTerminal

if TYPE_CHECKING:
    from runner.conversation import Asking
    from runner.speaker import Speaker

_MAX_SHOWN_CHARS: Final = 4_000
_MAX_PROMPT_CHARS: Final = 1_000
_MAKE_ROOM: Final = "make room, or set CLAUDE_RUNNER_DATA_DIR to another folder"


class Run(RunParts):
    """One run. `execute` is called once."""

    # Whether the child may have run; it never runs twice for one run.
    was_started = False

    def execute(self) -> int:
        """Run the child to its end, deliver, and return the exit code."""
        with contextlib.ExitStack() as stack:
            if threading.active_count() != 1:
                raise RunnerError("a thread was started before the keeper was forked")
            keeper = Keeper()
            stack.callback(keeper.close)
            # Set after the fork, so that the child and commands keep the user's umask.
            stack.callback(os.umask, os.umask(0o077))
            spool = self._open_spool()
            stack.callback(spool.close)
            mailbox = stack.enter_context(Mailbox())
            stack.callback(self.console.release)
            terminal = SessionTerminal(keeper)
            stack.callback(terminal.give_back)
            self._take_terminal(terminal)
            pump, speaker = self._start_child(keeper, spool, mailbox, terminal)
            from runner.conduct import Session

            return Session(self, keeper, spool, mailbox, terminal, pump, speaker).conduct()

    def _open_spool(self) -> Spool:
        """Open the journal, with what another process needs to deliver it."""
        try:
            spool = Spool(self.folder.spool_path, redact=self.rules.redact, keeps_reserve=True)
        except SpoolError as error:
            if not error.is_disk_failure:
                raise  # it says itself what to do
            raise RunnerError(f"{error}; {_MAKE_ROOM}") from error
        spool.put_fact("gateway_url", self.job.config.gateway_url)
        spool.put_fact("token", self.job.config.token)
        spool.put_fact("log_name", self.job.log_name)
        if spool.disk_failure is not None:
            spool.close()
            raise RunnerError(f"{spool.disk_failure}; {_MAKE_ROOM}")
        return spool

    def _take_terminal(self, terminal: SessionTerminal) -> None:
        if not (self.job.is_interactive and os.isatty(0) and os.isatty(1)):
            terminal.guard()
            return
        self.console.note(
            f"this session ends when you leave {self.job.profile.title}; for a run that ends by "
            "itself, give a prompt with --cmd"
        )
        self.console.hold()
        terminal.take()

    def _started_fields(self, terminal: SessionTerminal) -> dict[str, Any]:
        job = self.job
        session_id = job.invocation.session_id
        shown_argv = self.rules.redact(shlex.join(job.shown_argv))
        prompt = self.rules.redact(job.prompt or "")
        branch = find_branch(job.cwd)
        asking = job.asking
        return {
            "event": "started",
            # A marker cannot be cut, and a prompt may have any length.
            "command": shown_argv[:_MAX_SHOWN_CHARS],
            **({"prompt": prompt[:_MAX_PROMPT_CHARS]} if prompt else {}),
            "workingDir": job.cwd,
            **({"branch": branch} if branch else {}),
            "runner": job.profile.name,
            "mode": job.mode,
            "columns": terminal.size.columns,
            "lines": terminal.size.lines,
            # Of a session at the keyboard it is told at the end, if it was kept.
            **({"sessionId": session_id} if session_id and not job.is_interactive else {}),
            **({"options": dict(job.options)} if job.options else {}),
            **({"layout": LAYOUT} if job.invocation.messages is not None else {}),
            "commands": list(self.allowlist.commands),
            "project": kinds_of_project(job.cwd),
            "remoteInput": job.allows_remote_input and (job.is_interactive or asking is not None),
            **({} if asking is None else _talking_fields(asking)),
            "version": VERSION,
        }

    def _start_child(
        self, keeper: Keeper, spool: Spool, mailbox: Mailbox, terminal: SessionTerminal
    ) -> tuple[PtyPump, Speaker | None]:
        """Open the child's terminals, let the keeper start it in them, and read."""
        job = self.job
        terminals = ChildTerminals(
            job, self.folder.path, self.rules, terminal.size, terminal.attributes
        )
        pipe = WakePipe()
        speaker = self._open_conversation(spool, pipe, terminals.speaking_fd)
        pump = PtyPump(
            terminals.channels,
            open(self.folder.path / job.log_name, "ab", buffering=0),  # noqa: SIM115 - the pump closes it
            modes=terminal.modes,
            keyboard_fd=0 if terminal.is_taken else None,
            journal=spool,
            states=job.invocation.states,
            speaker=speaker,
            pipe=pipe,
            note_undo=keeper.note_undo,
            tell_owner=mailbox.post,
        )
        spool.put_fact("was_started", True)  # noqa: FBT003 - a fact's value
        self.was_started = True
        if job.invocation.states is not None:
            job.invocation.states.begin(keeper.pid)  # it leads the child's session
        keeper.spawn(
            CHILD,
            job.invocation.argv,
            cwd=job.cwd,
            env=job.env,
            fds=terminals.fds,
            on_terminal=True,
        )
        terminals.close_fds()
        # To redact the first text takes long: meanwhile the child starts, and what it prints is
        # shown. In the journal that comes behind the marker.
        with spool.held():
            pump.start()
            spool.append("marker", self.rules.redact_json(self._started_fields(terminal)))
        self.console.is_mid_line = lambda: pump.is_mid_line
        return pump, speaker

    def _open_conversation(
        self, spool: Spool, pipe: WakePipe, stdin_fd: int | None
    ) -> Speaker | None:
        """Say the prompt, in a run that listens on its stdin; None for any other run."""
        dialogue, asking = self.job.invocation.dialogue, self.job.asking
        if dialogue is None or asking is None or stdin_fd is None:
            return None
        from runner.conversation import Conversation
        from runner.speaker import Speaker

        conversation = Conversation(
            dialogue, asking, self.rules, spool, show=self.console.show, wake=pipe.wake
        )
        conversation.begin(self.job.invocation.first_message)
        if not (os.isatty(0) and (asking.local or asking.stay_s is not None)):
            return Speaker(conversation, stdin_fd, None)
        # Reading in the background would stop the job; like this it fails.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        return Speaker(conversation, stdin_fd, LineKeyboard(0))


def _talking_fields(asking: Asking) -> dict[str, Any]:
    """Return what a page needs to know of who may answer and talk."""
    return {
        "listens": True,
        "remoteAnswers": asking.remote,
        "modes": list(asking.modes) if asking.remote else [],
        "stays": asking.stay_s is not None,
    }
