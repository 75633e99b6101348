"""The judge of skipped tests that .ci/run ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.ci_scripts import load

main = load("skips.py").main


@pytest.mark.parametrize(
    ("report", "line", "code"),
    [
        ("", "skipped tests: none", 0),
        ("t.py::a[x]\tno tool\n" * 2, "skipped tests: t.py::a[x] (no tool)", 0),
        ("t.py::b\tno tool\n", "skipped tests: t.py::b (no tool; NOT ALLOWED)", 1),
        ("t.py::c\tno tool\n", "skipped tests: t.py::c (no tool; NOT ALLOWED)", 1),
    ],
    ids=["none", "allowed", "unknown", "allowed-without-a-reason"],
)
def test_every_skip_is_named_and_judged(
    report: str, line: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names each skipped test once; one that is not agreed to, with its why, fails."""
    (tmp_path / "report").write_text(report)
    (tmp_path / "allowed").write_text("# comment\n\nt.py::a[*]\tneeds a tool\nt.py::c\n")

    exit_code = main([str(tmp_path / "report"), str(tmp_path / "allowed")])

    assert capsys.readouterr().out == f"{line}\n"
    assert exit_code == code
