"""What Claude Code itself notes about a session that is open: whether it works or waits.

It keeps one small file for each, `sessions/PID.json`, for its own list of sessions, and changes it
within a second. That is the one thing that says so in tmux and screen: there the title stays as it
is, and hooks tell neither of an interruption nor that a tool was allowed. Not documented: what
cannot be read says nothing.

Source: measured with 2.1.332; docs/claude-code.md.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kinds.profile import WAITING, WORKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Its turn is over in `shell` too: something it started goes on in the background.
_STATES: Final = {"busy": WORKING, "idle": WAITING, "shell": WAITING, "waiting": WAITING}
# They have about 700 bytes.
_MAX_BYTES: Final = 65_536


class SessionNotes:
    """The notes of Claude Code about the session below `session_id`, a POSIX session's id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self.session_id: int | None = None

    def state(self) -> str | None:
        """Return what the session does; None where that is not noted. Raises nothing."""
        if self.session_id is None:
            return None
        if self._path is None or not _is_of(self._path, self.session_id):
            self._path = next(self._find(self.session_id), None)
        noted = {} if self._path is None else _read(self._path)
        status = noted.get("status")
        is_told = noted.get("kind") == "interactive" and isinstance(status, str)
        return _STATES.get(str(status)) if is_told else None

    def _find(self, session_id: int) -> Iterator[Path]:
        try:
            paths = sorted(self._folder.glob("*.json"))
        except OSError:
            return
        for path in paths:
            if _is_of(path, session_id) and _read(path).get("kind") == "interactive":
                yield path


def _is_of(path: Path, session_id: int) -> bool:
    """Whether the process that a note is about lives, in this session."""
    try:
        return os.getsid(int(path.stem)) == session_id
    except (ValueError, OverflowError, OSError):
        return False


def _read(path: Path) -> dict[str, Any]:
    """Return a note; empty if it is none, or is being written."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return {}
            value = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
