"""Prints `SIGNAL <name>` for each signal that comes, and what it was born with.

Usage: reports_signals.py [--exit-on NAME CODE]

First lines: `IGNORED <names>`, the signals that were ignored when it started, `BLOCKED <names>`,
those that were blocked, and `READY <pid>`. After NAME it exits with CODE; else SIGKILL ends it, or
the end of stdin does, after which it prints `EOF` and exits 0.
"""

import os
import select
import signal
import sys

REPORTED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")

last_name, last_code = "", 0
if sys.argv[1:2] == ["--exit-on"]:
    last_name, last_code = sys.argv[2], int(sys.argv[3])


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


# Python itself ignores SIGPIPE and SIGXFSZ, so nothing can be said about those two.
unsaid = (signal.SIGPIPE, signal.SIGXFSZ)
known = [s for s in signal.Signals if s not in unsaid]
ignored = [s.name for s in known if signal.getsignal(s) == signal.SIG_IGN]
blocked = [signal.Signals(s).name for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
for name in REPORTED:
    signal.signal(getattr(signal, name), lambda *_: None)
_say(f"IGNORED {' '.join(ignored)}")
_say(f"BLOCKED {' '.join(sorted(blocked))}")
_say(f"READY {os.getpid()}")
while True:
    ready = select.select([reader, 0], [], [])[0]
    if reader in ready:
        for number in os.read(reader, 100):
            name = signal.Signals(number).name
            _say(f"SIGNAL {name}")
            if name == last_name:
                sys.exit(last_code)
    elif not os.read(0, 1000):
        _say("EOF")
        sys.exit(0)
