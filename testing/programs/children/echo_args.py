"""Prints one line of JSON: {"argv": […], "env": {…}, "cwd": …}.

Usage: echo_args.py [ARGUMENT]...

`argv` holds the arguments; bytes that are not UTF-8 come as lone surrogates. `env` holds those
variables that ECHO_ENV names, separated by commas; a name that is not set is left out.
"""

import os
import sys

# json is slow to import; ascii() of text differs from JSON in quotes and escapes, so by hand:
_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def _quoted(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    pairs = [chr(units[i] << 8 | units[i + 1]) for i in range(0, len(units), 2)]
    plain = [_ESCAPES.get(c) or (c if " " <= c <= "~" else f"\\u{ord(c):04x}") for c in pairs]
    return f'"{"".join(plain)}"'


argv = ", ".join(_quoted(argument) for argument in sys.argv[1:])
names = [name for name in os.environ.get("ECHO_ENV", "").split(",") if name in os.environ]
env = ", ".join(f"{_quoted(name)}: {_quoted(os.environ[name])}" for name in names)
print(f'{{"argv": [{argv}], "env": {{{env}}}, "cwd": {_quoted(os.getcwd())}}}', flush=True)
