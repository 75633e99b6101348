"""What the program says: messages on stderr, what was asked for on stdout."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Callable, Final

from config import RunnerError
from runner.terminal import LocalOutput

# A message names paths, and a path may hold anything.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Console:
    """Messages of the runner itself, on stderr, one line each. Thread: any.

    Held back while a session has the terminal. Never blocks longer than a moment: a reader that
    has stopped must not keep the run from ending.
    """

    _PATIENCE_S: Final = 1.0

    def __init__(self, program: str) -> None:
        self.verbosity = 0
        self._program = program
        self._lock = threading.Lock()
        self._output = LocalOutput(2)
        self._held: list[str] | None = None
        self._progress = ""
        # Whether the child's words stand in the middle of a line; a message begins the next.
        self.is_mid_line: Callable[[], bool] = lambda: False
        is_dumb = os.environ.get("TERM") == "dumb"
        self._colored = self._output.is_terminal and not (is_dumb or os.environ.get("NO_COLOR"))
        self._has_progress = self._output.is_terminal and not is_dumb  # a line can be taken away

    def note(self, sentence: str) -> None:
        """Tell something that is good to know; -q leaves it out."""
        if self.verbosity >= 0:
            self._write(sentence, "")

    def show(self, text: str) -> None:
        """Show lines to the person at the terminal, as they are but for control characters."""
        lines = text.translate({c: shown for c, shown in _CONTROLS.items() if chr(c) not in "\n\t"})
        with self._lock:
            if self._held is not None:
                self._held.append(lines + "\n")
            else:
                self._print(lines + "\n")

    def detail(self, sentence: str) -> None:
        """Tell something that -v asks for."""
        if self.verbosity >= 1:
            self._write(sentence, "2")

    def trace(self, sentence: str) -> None:
        """Tell something that -vv asks for."""
        if self.verbosity >= 2:
            self._write(sentence, "2")

    def warn(self, sentence: str) -> None:
        """Tell something that the user should know."""
        self._write(sentence, "33")

    def error(self, sentence: str) -> None:
        """Tell why the command fails."""
        self._write(sentence, "31")

    def progress(self, state: str) -> None:
        """Show, on a terminal alone, what is going on; empty text takes it away again."""
        with self._lock:
            is_shown = self._has_progress and self._held is None and self.verbosity >= 0
            if is_shown and state != self._progress:
                self._print(f"\r\x1b[K{state}")
                self._progress = state

    def hold(self) -> None:
        """Keep messages until `release`."""
        with self._lock:
            self._held = []

    def release(self) -> None:
        """Print what was kept."""
        with self._lock:
            held, self._held = self._held or [], None
            self._print("".join(held))

    def _write(self, sentence: str, color: str) -> None:
        line = f"{self._program}: {sentence.translate(_CONTROLS)}"
        if self._colored and color:
            line = f"\x1b[{color}m{line}\x1b[0m"
        with self._lock:
            if self._held is not None:
                self._held.append(line + "\n")
            else:
                # Over the line that shows progress, and that below it again.
                self._print(f"\r\x1b[K{line}\n{self._progress}" if self._progress else line + "\n")

    def _print(self, text: str) -> None:
        if not text:
            return  # and no reason to wait once more for a reader that has stopped
        if self.is_mid_line() and self._output.is_terminal:
            text = f"\n{text}"
        encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
        self._output.write(text.encode(encoding or "utf-8", "replace"))
        self._output.wait_written(time.monotonic() + self._PATIENCE_S)


def print_out(text: str) -> None:
    """Print what was asked for, at once. Raises BrokenPipeError and RunnerError."""
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        # Or Python would try once more when it exits, and complain in words of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            raise
        raise RunnerError(f"stdout cannot be written: {error.strerror}") from error


def painted(text: str, color: str) -> str:
    """Return text for stdout in a colour (a number of SGR), if that is a terminal that has some."""
    if not os.isatty(1) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{color}m{text}\x1b[0m"


def shown_time(seconds: float) -> str:
    """Return a time as a person says it."""
    for unit_s, unit in ((3_600, "h"), (60, "min")):
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:g} s"


def shown_size(size_bytes: int) -> str:
    """Return a size as a person says it."""
    if size_bytes < 1_000:
        return f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} KB"
    if size_bytes < 1_000_000_000:
        return f"{size_bytes / 1e6:.1f} MB"
    return f"{size_bytes / 1e9:.1f} GB"
