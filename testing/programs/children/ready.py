"""Prints `READY <pid>`, and waits for a line on stdin, its end, or a signal.

Usage: ready.py [EXIT_CODE]

A line is answered with `GOT <line>`; then, or at the end of stdin, it exits with EXIT_CODE (0).
A signal does what it does to any program; of SIGINT this one dies without a traceback.
"""

import os
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)
print(f"READY {os.getpid()}", flush=True)
line = sys.stdin.readline()
if line:
    print(f"GOT {line.rstrip()}", flush=True)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
