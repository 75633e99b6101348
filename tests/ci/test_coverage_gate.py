"""The judge that `make coverage` ends with, on a small project of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.programs.runner_files import ROOT

BRANCHES = """
def sign(number):
    if number < 0:
        return "-"
    if number:
        number += 1
    return "+"
"""
LINES = "\n".join(f"value_{number} = {number}" for number in range(7))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project whose tests take everything of the three modules that they import."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").touch()
    (tmp_path / "redaction").mkdir()
    for name in ("allowlist", "redaction/words", "others"):
        (tmp_path / f"{name}.py").write_text(f"{BRANCHES}{LINES}\n")
    run_tests(tmp_path, allowlist=(-1, 0, 1), words=(-1, 0, 1), others=(-1, 0, 1))
    return tmp_path


def run_tests(project: Path, **taken: tuple[int, ...]) -> None:
    """Write tests that call each module's function with these numbers."""
    lines = [
        f"import {name}\nfor number in {numbers}: {name}.sign(number)\n"
        for name, numbers in taken.items()
    ]
    (project / "tests").mkdir(exist_ok=True)
    path = "import sys; sys.path[:1] = ['.', 'redaction']\n"
    (project / "tests" / "run.py").write_text(path + "".join(lines))


def judge(project: Path) -> tuple[int, list[str]]:
    """Measure the project's tests and judge them; return the exit code and what was printed."""
    # This very test may be measured: what it measures is another project.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    coverage = [sys.executable, "-m", "coverage"]
    for step in (["run", "--branch", "tests/run.py"], ["json", "-q", "-o", "report.json"]):
        subprocess.run([*coverage, *step], cwd=project, env=env, check=True)
    judged = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "coverage_gate.py"), "report.json"],
        cwd=project,
        env={**env, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert judged.stderr == ""
    return judged.returncode, judged.stdout.splitlines()


def test_modules_at_their_mark_pass(project: Path) -> None:
    """Where everything is taken there is nothing to name, and an empty module needs no test."""
    assert judge(project) == (0, ["coverage: all 3 modules are at their mark"])


def test_a_branch_is_missed_where_all_of_it_is_asked_for(project: Path) -> None:
    """One branch is enough to fail a module that needs 100 %, but not one that needs 90 %."""
    run_tests(project, allowlist=(-1, 0, 1), words=(-1, 1), others=(-1, 1))

    assert judge(project) == (
        1,
        [
            "redaction/words.py: 94.1 % of 100 %; missing: 5->7",
            "coverage: 1 of 3 modules are below their mark",
        ],
    )


def test_lines_are_named(project: Path) -> None:
    """A module below 90 % fails, and lines of it that follow each other are named as one range."""
    run_tests(project, allowlist=(-1, 0, 1), words=(-1, 0, 1), others=())

    code, lines = judge(project)

    assert code == 1
    assert lines == [
        "others.py: 47.0 % of 90 %; missing: 3-7",
        "coverage: 1 of 3 modules are below their mark",
    ]


def test_a_module_that_no_test_imports_is_named(project: Path) -> None:
    """It is in no report, and would pass unseen."""
    (project / "gateway" / "extra.py").write_text("print('here')\n")

    assert judge(project) == (
        1,
        [
            "gateway/extra.py: 0.0 % of 90 %; missing: all of it: no test imports it",
            "coverage: 1 of 4 modules are below their mark",
        ],
    )
