"""Writes much output as fast as it can: lines of 100 bytes, each with its number; exits 0.

Usage: floods.py MEGABYTES [--stderr]

A megabyte is 10,000 lines. Line n is `line(n)` of this module, so that a test knows every byte.
"""

import os
import signal
import sys

LINES_IN_A_MEGABYTE = 10_000


def line(number: int) -> bytes:
    """Return the line with this number, counted from 0. Shape: 100 bytes, `\\n` at the end."""
    digits = b"%09d " % number
    start = number % 26
    return digits + _LETTERS[start : start + 89] + b"\n"


_LETTERS = bytes(range(97, 123)) * 5


def main() -> None:
    """Write it all."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    target = 2 if "--stderr" in sys.argv else 1
    for first in range(0, int(sys.argv[1]) * LINES_IN_A_MEGABYTE, 500):
        block = memoryview(b"".join(line(number) for number in range(first, first + 500)))
        while block:
            block = block[os.write(target, block) :]


if __name__ == "__main__":
    main()
