"""Evidence: the table of harmless values, each row with a value that no other row knows."""

from __future__ import annotations

import re
import time
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest

import redaction
from redaction import evidence
from redaction.evidence import HARMLESS_VALUE, HARMLESS_VALUES, is_path_or_code, looks_random
from redaction.regex import Later
from testing.redaction import RULES, redact_both_ways
from testing.tables import each_row

# One for each row of HARMLESS_VALUES, in its order.
EXAMPLES = {
    "placeholders": (
        *("password=****----", "password=\u00bb", "password=<your key 1>"),
        *("password=&lt;key-1&gt;", 'password="[hidden-1]"', "password=(hidden-1)"),
        *("password=your-key-123", "password=sk-...a1b2"),
    ),
    "variables": (
        *("password=$DB_PASS1", "password=%DB_PASS%", "password=#{x1}", "password=%s:%s"),
        *("password=%(pw1)s", "password=?1", "password=:password2", "password=$!"),
    ),
    "code": (
        *("password=getpass1(x)", "password=env.PASS1", "password=account.value"),
        *("password=x1.db_password", "password=uid:gid", "password=/^[a-z]1/"),
        'password="?token="',
    ),
    "types": (
        *('password="&\'a str"', "password=!Ref", "password=required|min:8"),
        *("password=uint8array", "password=X25519Key", "password=oauth2Bearer"),
        "password=ssh-ed25519",
    ),
    "numbers": (
        *("password=^9.0.2", "password=8+", "password=1*alpha", "password=.*$x1"),
        *("password=10.0.12", "password=30ms", "password=0x1f2e3d", "password=0x7ffd3c2b1a00"),
        "password=#ff00aa",
    ),
    "places": (
        *("password=arn:aws:x-1:y", "password=projects/p1/secrets/s1"),
        *("password=/run/secrets/db1", "password=C:\\x1", "password=https://h1/x"),
    ),
}


def test_every_row_has_an_example() -> None:
    """None is added without one, and none disappears unnoticed."""
    rows = {subject: len(rows) for subject, rows in HARMLESS_VALUES.items()}

    assert {subject: len(texts) for subject, texts in EXAMPLES.items()} == rows


@each_row(
    ("row", "text"),
    [
        pytest.param(row, text, id=text)
        for subject, texts in EXAMPLES.items()
        for row, text in zip(HARMLESS_VALUES[subject], texts)
    ],
)
def test_a_harmless_value_stays_because_of_one_row(
    row: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value in the place of a password is left alone; without its row it would be removed."""
    raw = f"{text}\n".encode()
    others = [each for rows in HARMLESS_VALUES.values() for each in rows if each != row]

    assert redact_both_ways(raw) == raw
    with monkeypatch.context() as without:
        pattern = re.compile(b"|".join(others), HARMLESS_VALUE.flags)
        without.setattr(evidence, "HARMLESS_VALUE", pattern)
        assert RULES.redact_bytes(raw) != raw


def patterns() -> set[Any]:
    """Return every pattern that a module of the redactor has as a name of its own."""
    modules = [import_module(f"redaction.{each.name}") for each in iter_modules(redaction.__path__)]
    found = [value for module in modules for value in vars(module).values()]
    return {each for each in found if isinstance(each, Later) and each.flags & re.UNICODE == 0}


@each_row(
    "unit",
    [b"x", b"ab", b"aB1", b"A", b"1", b"a1", b"/ab", b"a.", b"a-", b"_a", b"{", b"$a", b" a"],
)
def test_no_pattern_judges_a_long_value_slowly(unit: bytes) -> None:
    """A value may be a file of a megabyte. A linear pattern needs a few milliseconds here."""
    for pattern in patterns():
        for end in (b"", b" -p", b"\n"):
            value = unit * (12_000 // len(unit)) + end
            before = time.process_time()
            pattern.fullmatch(value)
            assert time.process_time() - before < 0.5, pattern.pattern


def test_a_long_value_of_letters_is_searched_once() -> None:
    """As is left of a path without slashes: seconds, if each letter looks for a digit."""
    for value in (b"a" * 60_000, b"a" * 60_000 + b"-1"):
        before = time.process_time()
        assert not looks_random(value)
        assert time.process_time() - before < 0.5


def test_a_long_path_with_an_argument_is_judged_at_once() -> None:
    """A pattern that reads each name of a path in several ways tries them all: for years."""
    assert is_path_or_code(b"/some-folder" * 40, quoted=True)
    assert not is_path_or_code(b"/some-folder" * 40 + b" -p", quoted=True)
    assert not is_path_or_code(b"/some-folder" * 40 + b"/1234", quoted=True)
