"""How a child ended, and what becomes of that: the runner's exit code, the reason in its marker."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from keeper import Report

# What the child's exit code 0 becomes when the runner asked for the end: it is no success.
_EXIT_CODES_OF_ENDINGS: Final = {"stopped": 130, "hangup": 130, "halted": 137, "time limit": 124}


class ChildEnd(NamedTuple):
    """How the child ended: by itself, by a signal, or (both None) as `error` says."""

    code: int | None
    signal_number: int | None
    error: str | None = None

    @classmethod
    def of_status(cls, status: int) -> ChildEnd:
        """Read a wait status."""
        code = os.waitstatus_to_exitcode(status)
        return cls(code, None) if code >= 0 else cls(None, -code)

    @classmethod
    def failed(cls, error: str) -> ChildEnd:
        """It never ran, or nobody saw how it ended."""
        return cls(None, None, error)

    @classmethod
    def not_started(cls, report: Report) -> ChildEnd:
        """Read the keeper's report that it could not be started."""
        reason = _START_ERRORS.get(report.number) or (
            os.strerror(report.number) if report.number else report.text
        )
        return cls.failed(f"it could not be started: {reason}")

    @property
    def signal_name(self) -> str | None:
        """The name of the signal that killed it, if one did."""
        return None if self.signal_number is None else name_signal(self.signal_number)

    @property
    def description(self) -> str:
        """How it ended, in words."""
        return self.error or self.signal_name or f"exit code {self.code}"

    def exit_code(self, ending: str | None) -> int:
        """Return the runner's own exit code. `ending` is the reason if the runner ended it."""
        if self.signal_number is not None:
            return 128 + self.signal_number
        if self.code is None:
            return 1
        return self.code or _EXIT_CODES_OF_ENDINGS.get(ending or "", 0)

    def reason(self, ending: str | None) -> str:
        """Return the `reason` of the `finished` marker."""
        if self.error is not None:
            return "error"
        return ending or ("exited" if self.signal_number is None else "killed")


def name_signal(number: int) -> str:
    """Return a signal's name; real-time signals have none, and get one of their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


_START_ERRORS: Final = {
    # The file itself was there a moment ago.
    errno.ENOENT: "the interpreter that its first line names is not there; correct that line",
    errno.ENOEXEC: "it is no program for this machine; a script begins with a line like #!/bin/sh",
    errno.E2BIG: "its arguments and the environment are too large; shorten the prompt",
}
