"""Leaves a process behind that holds the terminal, ignores signals and left the session.

Usage: leaves_grandchild.py [--stay] [--same-session] [--close]

Prints `GRANDCHILD <pid>` once that process is ready, and exits 0; with --stay it prints
`READY <pid>` after it and waits for a signal. The grandchild has a session of its own unless
--same-session, and ignores SIGHUP, SIGINT, SIGQUIT and SIGTERM, as after `setsid nohup`. It keeps
stdin, stdout and stderr open unless --close, and ends by SIGKILL alone.
"""

import os
import signal
import sys

ready_reader, ready_writer = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(ready_reader)
    if "--same-session" not in sys.argv:
        os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if "--close" in sys.argv:
        os.closerange(0, 3)
    os.close(ready_writer)
    while True:
        signal.pause()
os.close(ready_writer)
os.read(ready_reader, 1)  # ends when the grandchild has closed its end
signal.signal(signal.SIGINT, signal.SIG_DFL)
print(f"GRANDCHILD {pid}", flush=True)
if "--stay" in sys.argv:
    print(f"READY {os.getpid()}", flush=True)
    while True:
        signal.pause()
