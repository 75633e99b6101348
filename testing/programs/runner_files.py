"""The files that make up the runner, wherever they are copied: the one list, wrapper/FILES.

`install` copies by the same file: what is tested is what users have.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RUNNER_FILES: tuple[str, ...] = tuple(
    (ROOT / "wrapper" / "FILES").read_text(encoding="ascii").split()
)


def copy_runner(project: Path, names: tuple[str, ...] = RUNNER_FILES) -> None:
    """Copy the runner's files, or those of them that are named, into another project."""
    for name in names:
        target = project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
