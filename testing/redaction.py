"""Samples for the tests of the redactor, and its output for them.

Secrets are put together at run time: no line of this file has the shape of a live token.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from redact import Redactor, Rules

MARK = b"[REDACTED]"
RULES = Rules()
# Looks generated: both cases and digits, no words.
FILLER = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ2cF4hJ6kM8nP0rS"
HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
GITHUB = "gh" + "p_" + FILLER[:36]
OPENAI = "sk" + "-" + FILLER
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256"}', b'{"sub":"1234567890"}', b"0123456789abcdef0123")
)
TAIL = "QUJD="
BODY = "\r\n".join([*((FILLER + FILLER)[at : at + 64] for at in (0, 3, 7)), TAIL])
KIND = "RSA PRIV" + "ATE KEY"
HEADER = f"-----BEGIN {KIND}-----"
FOOTER = f"-----END {KIND}-----"
KEY = f"{HEADER}\r\n{BODY}\r\n{FOOTER}"
# What a program prints line by line, the last of it no part of the key.
LINES = [*KEY.splitlines(), "next line, 2 words"]


def run(chunks: Iterable[bytes], rules: Rules = RULES) -> bytes:
    """Return what these reads are published as."""
    redactor = Redactor(rules=rules)
    out = b"".join([*map(redactor.feed, chunks), redactor.flush()])
    assert redactor.failures == 0
    return out


def split_bytes(raw: bytes) -> list[bytes]:
    """Return reads of one byte each."""
    return [raw[at : at + 1] for at in range(len(raw))]


def redact_both_ways(raw: bytes, rules: Rules = RULES) -> bytes:
    """Return the output for one whole read, having checked that single bytes give the same."""
    whole = run([raw], rules)
    assert run(split_bytes(raw), rules) == whole
    return whole
