"""Prints what it sees of its terminal, and again whenever the window changes.

Usage: tty_report.py

Lines: `TTY <0 or 1 for each of stdin, stdout, stderr>`; `SIZE <columns> <lines>` of the first of
the three that is a terminal, else `SIZE none`; `FOREGROUND <yes, no or none>`, whether its own
process group has the keyboard; `TERM <value>`; `READY <pid>`. Each SIGWINCH prints `SIZE …` again.
Ctrl-C and other signals end it; so does the end of stdin (Ctrl-D), after `EOF`.
"""

import os
import select
import signal
import sys

TERMINALS = [number for number in (0, 1, 2) if os.isatty(number)]


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _say_size() -> None:
    if TERMINALS:
        size = os.get_terminal_size(TERMINALS[0])
        _say(f"SIZE {size.columns} {size.lines}")
    else:
        _say("SIZE none")


def _foreground() -> str:
    try:
        return "yes" if os.tcgetpgrp(TERMINALS[0]) == os.getpgrp() else "no"
    except (IndexError, OSError):
        return "none"


signal.signal(signal.SIGINT, signal.SIG_DFL)
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGWINCH, lambda *_: None)
_say("TTY " + " ".join(str(int(number in TERMINALS)) for number in (0, 1, 2)))
_say_size()
_say(f"FOREGROUND {_foreground()}")
_say(f"TERM {os.environ.get('TERM', '')}")
_say(f"READY {os.getpid()}")
while True:
    ready = select.select([reader, 0], [], [])[0]
    if reader in ready:
        os.read(reader, 100)
        _say_size()
    elif not os.read(0, 1000):
        _say("EOF")
        sys.exit(0)
