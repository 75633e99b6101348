"""The plugin that runs tests against both gateways: what it counts, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.programs.runner import ROOT

TESTS = """
import pytest

pytestmark = pytest.mark.both_gateways


def test_both(gw):
    run = gw.create_run()
    assert gw.status(run.id) == "pending"


@pytest.mark.strict_only("it needs the moon")
def test_one(gw):
    assert gw.violations == []


@pytest.mark.strict_only("it needs the moon")
def test_with_its_own():
    pass
"""

PAIRS = """
import pytest

pytestmark = pytest.mark.gateway_pairs


def test_pair(gw, kind):
    run = gw.create_run()
    assert gw.status(run.id) == "pending"


def test_one(gw):
    assert gw.violations == []


def test_kinds(kind):
    assert kind.title
"""


def run_pytest(folder: Path, *sources: str) -> tuple[int, str]:
    """Run pytest on files with these texts; return its exit code and what it said."""
    (folder / "conftest.py").write_text('pytest_plugins = ["testing.gateways.both_gateways"]\n')
    for number, source in enumerate(sources):
        (folder / f"test_{number}.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_ran_and_what_was_left_out_is_told(tmp_path: Path) -> None:
    """Each test counts once for each gateway, and each reason has its number.

    Of pairs, what takes both runs twice, what takes a gateway once, what takes a kind twice.
    """
    code, said = run_pytest(tmp_path, TESTS, PAIRS)

    assert code == 0, said
    assert "9 passed" in said
    assert (
        "5 tests against the strict gateway, 2 against the embedded one, 2 left out there"
    ) in said
    assert "  2 because it needs the moon" in said


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (TESTS.replace('"it needs the moon"', '" "'), "say why"),
        (TESTS.replace("test_both(gw)", "test_both()"), "test_both takes no `gw`"),
    ],
    ids=["an empty reason", "no gateway"],
)
def test_nothing_is_left_out_without_a_word(tmp_path: Path, source: str, words: str) -> None:
    """A test that silently runs against one gateway alone ends the run."""
    code, said = run_pytest(tmp_path, source)

    assert code != 0
    assert words in said
    assert "passed" not in said
