"""Writes given bytes one at a time, each with a write of its own; exits 0.

Usage: prints_bytewise.py HEX [PAUSE_MS] [--stderr]

HEX is the bytes in hexadecimal digits. With PAUSE_MS it waits that long after each byte, so that a
reader sees each by itself.
"""

import os
import signal
import sys
import time

signal.signal(signal.SIGINT, signal.SIG_DFL)
pause_s = int(sys.argv[2]) / 1000 if len(sys.argv) > 2 and sys.argv[2].isdigit() else 0.0
target = 2 if "--stderr" in sys.argv else 1
for byte in bytes.fromhex(sys.argv[1]):
    os.write(target, bytes([byte]))
    if pause_s:
        time.sleep(pause_s)
