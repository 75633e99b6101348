"""The terminals that a child is started in: what it gets as 0, 1 and 2, and what is read from it.

A session has one PTY for all three; in print mode stdout and stderr have one each, so that the
child still sees a terminal and its two streams are told apart.
"""

from __future__ import annotations

import os
import termios
from typing import TYPE_CHECKING, Any

from local_terminal import LocalOutput, set_window_size
from pty_pump import Channel, Transcript

if TYPE_CHECKING:
    from pathlib import Path

    from local_terminal import Size
    from redact import Rules
    from run_plan import Job


class ChildTerminals:
    """The two sides of the terminals, until each has its owner.

    `channels` is the runner's side, which is the pump's from then on; `fds` are 0, 1 and 2 of the
    child, and closed by `close_fds` once it has them. `attributes` are those that a session's
    terminal begins with. Raises OSError.
    """

    def __init__(
        self, job: Job, folder: Path, rules: Rules, size: Size, attributes: list[Any] | None
    ) -> None:
        streams = ("stdout",) if job.is_interactive else ("stdout", "stderr")
        self.channels: list[Channel] = []
        slaves = []
        for number, stream in enumerate(streams, start=1):
            master_fd, slave_fd = os.openpty()
            set_window_size(slave_fd, size)
            if attributes is not None:
                termios.tcsetattr(slave_fd, termios.TCSANOW, attributes)
            elif not job.is_interactive:
                _make_transparent(slave_fd)
            self.channels.append(Channel(stream, master_fd, rules, LocalOutput(number)))
            slaves.append(slave_fd)
        if job.messages is not None:
            lines = open(folder / job.messages_name, "ab", buffering=0)  # noqa: SIM115 - the pump closes it
            self.channels[0].transcript = Transcript(job.messages, lines)
        stdin_fd = slaves[0] if job.is_interactive else _open_stdin(job, folder)
        self.fds = (stdin_fd, slaves[0], slaves[-1])

    def close_fds(self) -> None:
        """Close the child's side here: the end of the output is when nobody has it open."""
        for fd in set(self.fds):
            os.close(fd)


def _make_transparent(slave_fd: int) -> None:
    """Let a line end in a single newline, and show nothing that is typed: nobody types here."""
    attributes = termios.tcgetattr(slave_fd)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(slave_fd, termios.TCSANOW, attributes)


def _open_stdin(job: Job, folder: Path) -> int:
    """Return a descriptor with the prompt that was too long for an argument, or nothing."""
    if job.stdin_text is None:
        return os.open(os.devnull, os.O_RDONLY)
    path = folder / "prompt"
    path.write_bytes(job.stdin_text)
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    return fd
