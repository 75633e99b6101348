"""What kind of project a run works in, by the files in its folder; none of them is read."""

from __future__ import annotations

import os
from typing import Final

from runner.repository import find_work_tree

# The first one that is there says which of the tools for JavaScript is used.
_LOCKS: Final = (("pnpm", "pnpm-lock.yaml"), ("yarn", "yarn.lock"))
_FILES: Final = {
    "python": ("pyproject.toml", "setup.py", "setup.cfg", "pytest.ini", "tox.ini"),
    "cargo": ("Cargo.toml",),
    "go": ("go.mod",),
}


def kinds_of_project(folder: str) -> list[str]:
    """Return what is there: git, npm, pnpm, yarn, python, cargo, go."""

    def has(*names: str) -> bool:
        return any(os.path.exists(os.path.join(folder, name)) for name in names)

    kinds = ["git"] if find_work_tree(folder) is not None else []
    if has("package.json"):
        kinds.append(next((kind for kind, lock in _LOCKS if has(lock)), "npm"))
    return kinds + [kind for kind, names in _FILES.items() if has(*names)]
