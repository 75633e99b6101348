"""Start Claude Code on this machine and connect the session to a gateway.

`main` reads the command line and calls one of the subcommands (`tools.command_line`). `start`
checks what the user asked for (`runner.plan`), asks the gateway (`runner.checks`), and hands a
`Job` to `Run` (`runner.session`), which starts the child. From there on `runner.conduct` has the
main thread, and starts, stops and joins the others.
Every other thread has a module of its own.

    thread     owns                                    waits in                if it crashes
    main       the keeper's channel, the terminal's    select on the keeper,   exit code 1, and the
               state, the exit code                    signals and workers     keeper ends the child
    pty-pump   PTY masters, keyboard, redactors, logs  select                  the child is killed
    poster     its client                              the journal, HTTP       comes back
    poller     its client                              HTTP, an event          comes back
    executor   its client, the command under way       a queue, select, HTTP   comes back
    assist     its client, the session's files         a queue, HTTP, tmate    a new session
    syncer     nothing                                 an event, the disk      comes back

The keeper (`runner/keeper.py`) is a process of its own, forked while this one has a single thread:
the parent of all that the run starts. The journal (`journal/spool.py`) is shared, behind one lock.

Shutdown, producers before consumers. The keeper ends the child, if it does not end by itself. No
more commands are taken, the queued ones are refused, the assist session is ended. The keeper kills
what the child has left. The pump reads what the terminals still hold and flushes the redactors. The
end is recorded in the journal, and the user's terminal given back. The poster delivers, sends
`finished`, and uploads. The syncer ends, the journal is closed, and the keeper gets its goodbye.
What could not be delivered stays in the journal, and the user is told.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before `main`, nor behind it
    gc.disable()  # until a subcommand runs: to look for garbage among imports takes long
if __name__ == "__main__" and sys.flags.isolated:
    # Isolated, Python puts no folder of ours here. What is compiled goes to the cache folder, and
    # what came with a project is not read. What `places` imports of Python is, before that.
    import pathlib  # noqa: F401
    import typing  # noqa: F401

    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    sys.dont_write_bytecode = True
    sys.pycache_prefix = os.devnull
    import places

    places.keep_compiled_files()

from typing import TYPE_CHECKING, Final

from kinds.claude import ClaudeProfile
from tools import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinds.profile import Profile

CLAUDE: Final = ClaudeProfile()


def main(argv: Sequence[str] | None = None, profile: Profile = CLAUDE) -> int:
    """Run the command line. Returns the exit code; every error of the runner is 1."""
    return command_line.main(argv, profile)


if __name__ == "__main__":
    command_line.leave(main())
