"""The files that make up the runner, as they lie in a clone: the program, and what is beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from places import COMPANIONS, companion, program_files

ROOT = Path(__file__).resolve().parents[2]

RUNNER_FILES: tuple[str, ...] = (
    *program_files(ROOT),
    *(str(companion(name, ROOT).relative_to(ROOT)) for name in COMPANIONS),
)


def copy_runner(project: Path, names: tuple[str, ...] = RUNNER_FILES) -> None:
    """Copy the runner's files, or those of them that are named, to where they lie in a clone."""
    for name in names:
        target = project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
