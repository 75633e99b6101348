"""Texts with secrets that are made at run time, of every kind that docs/redaction.md lists.

The texts are in `redaction_corpus.txt`; every value in them comes from a seed, so that no line of
these files looks like a secret.
"""

from __future__ import annotations

import base64
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from redact import MARK, Redactor, Rules

LETTERS, DIGITS = string.ascii_letters, string.digits
# An escape that a terminal shows nothing of, in the middle of a secret.
HIDDEN = (
    *("\x1b[31m", "\x1b[m\x0f", "\x1b[K", "\x00", "\x01", "\x05", "\x11", "\x1c", "\x7f"),
    *("\xc2\x9b31m", "\x1b]0;a\x1b]0;b\x07", "\xc2\x9d0;a\xc2\x9c", "\x1b[3\x1b[31m", "\x1b[3\x18"),
    *("\x1b[1\x0f;3m", "\x1b~", "\x1b[!3p", "\x1b]0;a\x18", "\x1bPx\x1b[m", "\xc2\x90x\x1b\\"),
)


def _pick(rng: random.Random, alphabet: str, low: int, high: int = 0) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high or low)))


def _mixed(rng: random.Random, low: int = 8, high: int = 32) -> str:
    """Return letters and digits, with at least two digits and two letters."""
    while True:
        value = _pick(rng, LETTERS + DIGITS, low, high)
        if sum(c.isdigit() for c in value) in range(2, len(value) - 1):
            return value


VALUES: dict[str, Callable[[random.Random], str]] = {
    "D": lambda rng: _pick(rng, DIGITS, 4, 12),  # digits alone
    "R": _mixed,
    "T": lambda rng: _mixed(rng, 20, 40),  # long enough for a token
    "L": lambda rng: _pick(rng, LETTERS, 12, 32),  # letters alone
    "l": lambda rng: _pick(rng, string.ascii_lowercase, 16, 32),
    "P": lambda rng: f"{_mixed(rng, 4, 7)}{rng.choice('!@#%&*+?')}{_mixed(rng, 4, 8)}",
    "S": lambda rng: rng.choice("$({[<!/") + _mixed(rng, 10, 24),  # a sign in front
    "E": lambda rng: rng.choice("$([<!/") + _mixed(rng, 14, 24),  # the same, in a shell's file
    "q": lambda rng: f"{_mixed(rng, 4, 8)}'{_mixed(rng, 4, 8)}",  # a quote inside
    "b": lambda rng: f"{_mixed(rng, 4, 8)}`{_mixed(rng, 4, 8)}",
    "d": lambda rng: f"{_mixed(rng, 4, 8)}''{_mixed(rng, 4, 8)}",
    "j": lambda rng: f"{_mixed(rng, 4, 8)}'\\''{_mixed(rng, 4, 8)}",
    "s": lambda rng: f"{_mixed(rng, 3, 6)}*{_mixed(rng, 4, 8)}",  # a star inside
    "H": lambda rng: _pick(rng, "0123456789abcdef", 32),
    "h": lambda rng: _pick(rng, "0123456789abcdef", 40),
    "U": lambda rng: _pick(rng, string.ascii_uppercase + DIGITS, 32),
    "A": lambda rng: base64.b64encode(rng.getrandbits(512).to_bytes(64, "big")).decode(),
    "W": lambda rng: _pick(rng, LETTERS + DIGITS + "!@#%^&*()-_[]{}<>~+=,.;:/?| ", 64),
    "Z": lambda rng: base64.b64encode(rng.getrandbits(2400).to_bytes(300, "big")).decode(),
    "a": lambda rng: base64.b64encode(rng.getrandbits(240).to_bytes(30, "big")).decode(),
    "B": lambda rng: base64.b64encode(f"user:{_mixed(rng)}".encode()).decode(),
}
WORDS = ("alpha", "deploy", "server", "build", "staging", "harbor", "metrics", "billing")

_FIELD = re.compile(r"(?<!\$)\{([A-Za-z])(?:([0-9]+)|(:url))?\}|\{:([^{}]+)\}|\{(uuid)\}|<([NX])>")
_RUNS = {
    "m": LETTERS + DIGITS,
    "r": string.ascii_lowercase + DIGITS,
    "x": "0123456789abcdef",
    "X": "0123456789ABCDEF",
    "U": string.ascii_uppercase + DIGITS,
}


class Text(NamedTuple):
    """A text, the secrets in it, and what stands before the first and behind the last."""

    raw: bytes
    secrets: tuple[bytes, ...]
    before: bytes
    after: bytes


def _make_run(rng: random.Random, part: str) -> str:
    """Return a part of a token: `m36` for 36 letters and digits, a kind, or the text itself."""
    if part[0] in _RUNS and part[1:].isdigit():
        return _pick(rng, _RUNS[part[0]], int(part[1:]))
    return VALUES[part](rng) if part in VALUES else part


def fill(template: str, rng: random.Random) -> Text:
    """Return the template with fresh values in its fields."""
    secrets: list[str] = []

    def make(field: re.Match[str]) -> str:
        kind, size, url, token, uuid, filler = field.groups()
        if filler:
            return str(rng.randint(10, 9999)) if filler == "N" else rng.choice(WORDS)
        if uuid:
            digits = f"{rng.getrandbits(128):032x}"
            return re.sub(r"(.{8})(.{4})(.{4})(.{4})(.{12})", r"\1-\2-\3-\4-\5", digits)
        if kind and size and int(size) > 1:
            return _pick(rng, _RUNS[kind], int(size))
        value = (
            "".join(_make_run(rng, part) for part in token.split(":"))
            if token
            else VALUES[kind](rng)
        )
        value = re.sub(r"[#/?@]", "%40", value) if url else value
        secrets.append(value)
        return value

    raw = _FIELD.sub(make, template.replace("~", "\r\n").replace("\\\\", "\\"))
    secret = tuple(map(str.encode, secrets))
    before = raw.encode().partition(secret[0])[0] if secret else b""
    after = raw.encode().rpartition(secret[-1])[2] if secret else b""
    return Text(raw.encode(), secret, before, after)


def read_templates() -> dict[str, list[str]]:
    """Return the templates in the text file, by the heading above them."""
    text = Path(__file__).with_suffix(".txt").read_text("utf-8")
    text = text.replace("\u241b", "\x1b").replace("\u2407", "\a")
    parts = re.split(r"^\[([a-z]+)\]\n", text, flags=re.MULTILINE)
    return {
        kind: [line for line in lines.split("\n") if line]
        for kind, lines in zip(parts[1::2], parts[2::2])
    }


def redact(raw: bytes, rules: Rules) -> bytes:
    """Return what a stream of this text is published as."""
    redactor = Redactor(rules=rules)
    return redactor.feed(raw) + redactor.flush()


def is_right(text: Text, out: bytes, *, harmless: bool) -> bool:
    """Say whether a text came out as it should."""
    if harmless:
        return out == text.raw
    seen = re.sub(rb"[\x00-\x08\x0e-\x1f]|\x1b\[[0-9;]*m", b"", out)
    for secret in text.secrets:
        pieces = [secret[at : at + 5] for at in range(max(1, len(secret) - 4))]
        if any(piece in each for piece in pieces[-1:] + pieces[::4] for each in (out, seen)):
            return False
    return MARK in out and out.startswith(text.before[:-3]) and out.endswith(text.after[2:])


def hide(text: Text, rng: random.Random) -> Text:
    """Return the text with an escape in the middle of its last secret that a terminal hides."""
    secret = text.secrets[-1]
    at = text.raw.rfind(secret) + rng.randint(2, len(secret) - 2)
    return text._replace(raw=text.raw[:at] + rng.choice(HIDDEN).encode("latin-1") + text.raw[at:])
