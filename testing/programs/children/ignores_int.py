"""Prints `READY <pid>`, and says `IGNORED <signal name>` instead of ending.

Usage: ignores_int.py [SIGNAL_NAME]...

Without names it ignores SIGINT, SIGTERM and SIGHUP. Only SIGKILL ends it, or a line `quit` on
stdin.
"""

import os
import signal
import sys


def _say(number: int, _: object) -> None:
    os.write(1, f"IGNORED {signal.Signals(number).name}\n".encode())


for name in sys.argv[1:] or ["SIGINT", "SIGTERM", "SIGHUP"]:
    signal.signal(getattr(signal, name), _say)
os.write(1, f"READY {os.getpid()}\n".encode())
while True:
    try:
        line = os.read(0, 1000)
    except OSError:
        line = b""
    if line.strip() == b"quit":
        sys.exit(0)
    if not line:
        signal.pause()  # stdin is closed or gone; only a signal can come now
