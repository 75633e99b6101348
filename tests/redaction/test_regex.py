"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

import redaction
from places import PROGRAM
from redaction.regex import Later, regex


def test_it_is_what_compile_returns() -> None:
    """Every method, the flags, and an error, which shows at the first use."""
    pattern = regex(rb"(?P<letter>A)", re.IGNORECASE)

    assert [match["letter"] for match in pattern.finditer(b"aA")] == [b"a", b"A"]
    assert pattern.fullmatch(b"a") is not None
    assert pattern.sub(b"-", b"banana") == b"b-n-n-"
    assert pattern.flags & re.IGNORECASE
    assert pattern.pattern == rb"(?P<letter>A)"
    broken = regex("(")
    with pytest.raises(re.error):
        broken.match("")


def test_every_pattern_is_valid() -> None:
    """An error in one must not wait for the text that needs it."""
    modules = [import_module(f"redaction.{each.name}") for each in iter_modules(redaction.__path__)]
    patterns = [each for module in modules for each in vars(module).values()]

    valid = [
        re.compile(each.pattern, each.given_flags) for each in patterns if isinstance(each, Later)
    ]

    assert len(valid) > 100


def test_none_is_compiled_before_it_is_used() -> None:
    """To import the redactor takes little time, which each start of the runner pays."""
    source = """
import re, sys
compiled = []
compile = re.compile
re.compile = lambda *given: compiled.append(given) or compile(*given)
import redact
print(len([each for each in compiled if isinstance(each[0], bytes)]) < 10)  # Python's own
"""

    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PROGRAM, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("True\n", "")
