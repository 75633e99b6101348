"""A token that neither the process list nor a shell's history shows: `--token -`."""

from __future__ import annotations

import getpass
import os
import select
import termios
from typing import Final

from config import RunnerError

_MAX_BYTES: Final = 4_096
# The writer may have to ask the user first, as a password manager does.
_PATIENCE_S: Final = 120.0


def read_token() -> str:
    """Return the first line of stdin; at a terminal it is asked for, and not shown.

    Not a byte more is taken: the rest is for others. Raises RunnerError.
    """
    if os.isatty(0):
        try:
            token = getpass.getpass("the run's token (it is not shown): ")
        except (EOFError, termios.error):
            token = ""
    else:
        token = _read_line()
    if not token.strip():
        raise RunnerError("there is no token on stdin; write it there, in one line")
    return token.strip()


def _read_line() -> str:
    line = bytearray()
    while len(line) <= _MAX_BYTES:
        if not select.select([0], [], [], _PATIENCE_S)[0]:
            raise RunnerError("no token came on stdin; write it there, in one line")
        try:
            byte = os.read(0, 1)
        except OSError as error:
            raise RunnerError(f"the token cannot be read from stdin: {error.strerror}") from error
        if byte in (b"", b"\n"):
            return line.decode("utf-8", "replace")
        line += byte
    raise RunnerError("the first line on stdin is too long for a token")
