"""A project with the runner in it, laid out by hand as `install` lays it out."""

from __future__ import annotations

import shutil
from pathlib import Path

from places import program_files

ROOT = Path(__file__).resolve().parent.parent
SHIMS = ("claude-runner", "rev-runner")


def lay_out(project: Path, *, with_program: bool = True) -> Path:
    """Make `wrapper/` in a project, with the program or an empty folder for it; return it."""
    folder = project / "wrapper"
    (folder / "program").mkdir(parents=True)
    for name in (*SHIMS, "requirements.txt"):
        shutil.copy2(ROOT / "wrapper" / name, folder / name)
    for name in program_files(ROOT) if with_program else ():
        target = folder / "program" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder
