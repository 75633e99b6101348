"""Throw random streams at the redactor and check what must always hold (`make fuzz`).

    python benchmarks/fuzz_redact.py --seconds 600 --seed 1

Each round builds a stream from pieces that redaction is about (names, operators, prefixes, escapes,
half secrets, noise), cuts it at random places and checks: any split gives the same output; no known
value comes out; nothing was raised inside; at most 4 KB were held.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redact import Redactor, Rules
from redaction.view import View

MAX_HELD_BYTES = 4096
KNOWN = (b"abab-abac-abad", b"tok-tok-x9/z+", b"line one 1\nline two 2", b"p@ss w0rd&<x>")
PIECES = (
    *(b"token", b"password", b"api_key", b"secret", b"Authorization", b"Bearer ", b"Basic "),
    *(b"Cookie: ", b"key", b"auth", b"=", b": ", b":", b" = ", b'"', b"'", b"\\", b",", b";", b"&"),
    *(b" ", b"  ", b"\t", b"\r\n", b"\n", b"\r", b" \r", b"<", b">", b"://", b"user:", b"@host"),
    *(b"gh" + b"p_", b"sk" + b"-", b"npm" + b"_", b"ey" + b"J", b"xox" + b"b-", b"A" + b"KIA"),
    *(b"pat", b"re_", b"M", b"12:A", b"hooks.slack.com/services/", b"-----", b"-----BEGIN "),
    *(b"RSA PRIV" + b"ATE KEY-----", b"BEGIN", b"-----END RSA PRIV" + b"ATE KEY-----"),
    *(b"\x1b[31m", b"\x1b[0m", b"\x1b[", b"\x1b]0;", b"\x07", b"\x1b\\", b"\x1b", b"\x1b[5C"),
    *(b"\x1b[2;1H", b"\b", b"\b \b", b"\x00", b"\xe2\x94\x82", b"\xff", b"abab-", b"abac", b"tok-"),
    *(b"x9/z+", b"line one 1", b"line two 2", b"aB3dE5gH7jK9mN1pQ3sT5vW7yZ", b"hunter2", b"None"),
    *(b"0123456789abcdef" * 2, b"getpass()", b"x" * 60, b"-us12", b"A1b2" * 16),
    *(b" curl ", b" -u ", b" -p", b"mysql", b" login", b'name="', b'" value="', b" type='x'"),
    *(b"| ", b" \xe2\x94\x82 ", b"Some(", b"set -x ", b" is:", b"**", b"value: ", b"', '"),
    *(b"\r\n\r\n", b"content="),
    *(b"+" * 300, b"x y z " * 60, b"Proc-Type: 4\n", b"Private-MAC: 12"),
)


def make_stream(rng: random.Random) -> bytes:
    """Return a stream of pieces, known values and noise."""
    parts = []
    for _ in range(rng.randint(1, 40)):
        roll = rng.random()
        if roll < 0.8:
            parts.append(rng.choice(PIECES))
        elif roll < 0.9:
            parts.append(rng.choice(KNOWN)[: rng.randint(1, 30)])
        else:
            parts.append(
                bytes(rng.choice(b"abkst_-=:\x1b\x08 \r\n") for _ in range(rng.randint(1, 6)))
            )
    return b"".join(parts)


def redact(rules: Rules, chunks: list[bytes]) -> bytes:
    """Return the output for these reads, having checked what can be checked on the way."""
    redactor = Redactor(rules=rules)
    out = []
    for chunk in chunks:
        out.append(redactor.feed(chunk))
        assert redactor.held <= MAX_HELD_BYTES, f"held {redactor.held}"
    out.append(redactor.flush())
    assert redactor.failures == 0, "the redactor raised inside"
    return b"".join(out)


def check(rules: Rules, stream: bytes, rng: random.Random) -> None:
    """Raise AssertionError if anything does not hold for this stream."""
    whole = redact(rules, [stream])
    assert redact(rules, [stream[at : at + 1] for at in range(len(stream))]) == whole, (
        "byte by byte differs"
    )
    edges = sorted(rng.randint(0, len(stream)) for _ in range(4))
    chunks = [stream[a:b] for a, b in zip([0, *edges], [*edges, len(stream)])]
    assert redact(rules, chunks) == whole, f"cut at {edges} differs"
    # What a person would see: a sequence may eat the first byte of a value, typing over the last.
    seen = View(whole, after_space=False, final=True, silent=False).text
    for value in KNOWN:
        assert value not in seen, f"{value!r} came out"


def main() -> int:
    """Run until the time is up; print the first stream that breaks a promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rules = Rules(KNOWN)
    deadline = time.monotonic() + options.seconds
    rounds = 0
    while time.monotonic() < deadline:
        rng = random.Random(f"{options.seed}/{rounds}")
        stream = make_stream(rng)
        try:
            check(rules, stream, rng)
        except AssertionError as broken:
            print(f"seed {options.seed} round {rounds}: {broken}\n{stream!r}")
            return 1
        rounds += 1
    print(f"seed {options.seed}: {rounds} streams in {options.seconds:.0f} s, every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
