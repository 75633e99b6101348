"""What kind of project a folder is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.project import kinds_of_project


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ([], []),
        ([".git"], ["git"]),
        (["package.json"], ["npm"]),
        (["package.json", "pnpm-lock.yaml", "yarn.lock"], ["pnpm"]),
        (["package.json", "yarn.lock", "go.mod"], ["yarn", "go"]),
        (["yarn.lock"], []),
        ([".git", "pyproject.toml", "Cargo.toml"], ["git", "python", "cargo"]),
        (["tox.ini"], ["python"]),
    ],
)
def test_files_say_what_it_is(tmp_path: Path, names: list[str], kinds: list[str]) -> None:
    """Whatever they hold, also a pipe; a folder below a repository is in it."""
    for name in names:
        os.mkfifo(tmp_path / name)

    assert kinds_of_project(str(tmp_path)) == kinds
    (tmp_path / "below").mkdir()
    assert kinds_of_project(str(tmp_path / "below")) == [each for each in kinds if each == "git"]


def test_a_folder_that_is_gone_is_nothing(tmp_path: Path) -> None:
    """It may be removed at any moment."""
    assert kinds_of_project(str(tmp_path / "gone")) == []
