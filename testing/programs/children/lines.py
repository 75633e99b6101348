"""Prints numbered and time-stamped lines at a rate, then `LAST` and exits 0.

Usage: lines.py COUNT [PER_SECOND] [--alternate] [--pad BYTES] [--start NUMBER]

Each line is `<number> <seconds>`, the seconds of `time.monotonic()`, which processes of one machine
share. PER_SECOND 0, the default, is as fast as it can. With --alternate the odd lines go to stdout
and the even ones to stderr; with --pad each line has that many dots at its end. Numbers begin with
1 or NUMBER, and rise by 1 over both streams.
"""

import os
import signal
import sys
import time

signal.signal(signal.SIGINT, signal.SIG_DFL)


def _option(name: str, default: int) -> int:
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


count = int(sys.argv[1])
rate = float(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2][0] != "-" else 0.0
alternate = "--alternate" in sys.argv
pad = "." * _option("--pad", 0)
start = _option("--start", 1)
begin = time.monotonic()
for index in range(count):
    if rate:
        # Kept to the clock, so that a slow machine catches up and does not drift.
        time.sleep(max(0.0, begin + index / rate - time.monotonic()))
    number = start + index
    text = f"{number} {time.monotonic():.6f}{' ' + pad if pad else ''}\n".encode()
    target = 2 if alternate and number % 2 == 0 else 1
    while text:
        text = text[os.write(target, text) :]
print("LAST", flush=True)
