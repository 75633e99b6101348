"""Prints lines whose every byte follows from their number, until it is told to end.

Usage: numbers.py FOLDER PER_SECOND CODE

The line with number n is `line(n)` of this module. When `stop` is in FOLDER it leaves there, in
`printed`, how many bytes it has printed, and exits with CODE.
"""

import os
import signal
import sys
import time


def line(number: int) -> bytes:
    """Return the line with this number, counted from 1: of 10 to 1,500 bytes, as a log has them."""
    return b"%d %s\n" % (number, b"." * (number * 7919 % (1_500 if number % 5 == 0 else 100)))


def main() -> None:
    """Print them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder, per_second, code = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    begin, number, size = time.monotonic(), 0, 0
    while not os.path.exists(os.path.join(folder, "stop")):
        due = int((time.monotonic() - begin) * per_second)
        block = b"".join(line(each) for each in range(number + 1, due + 1))
        number = max(number, due)
        size += len(block)
        while block:
            block = block[os.write(1, block) :]
        time.sleep(0.005)
    with open(os.path.join(folder, "printed"), "w") as file:
        file.write(str(size))
    sys.exit(code)


if __name__ == "__main__":
    main()
