"""Writes bytes that are not UTF-8, whole characters among them; exits 0.

Usage: not_utf8.py

`OUTPUT` is what it writes: a byte that starts nothing, a character cut short, an overlong form,
half a pair, and good text before, between and after.
"""

import os

OUTPUT = (
    "good é ".encode()
    + b"\xff lone "
    + "€".encode()[:2]
    + b" cut "
    + b"\xc0\xaf overlong "
    + b"\xed\xa0\xbd half "
    + "end 😀\n".encode()
)

if __name__ == "__main__":
    os.write(1, OUTPUT)
