"""Print what CHANGELOG.md says of one version: ``python .ci/changes.py VERSION``."""

from __future__ import annotations

import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def changes_of(version: str, text: str) -> str:
    """Return the lines below a version's heading, without its links. Raises ValueError."""
    _, heading, rest = text.partition(f"\n## [{version}]")
    if not heading:
        raise ValueError(f"CHANGELOG.md has no section {version}")
    section = rest.partition("\n")[2].partition("\n## ")[0].partition("\n[Unreleased]: ")[0]
    return f"{section.strip()}\n"


if __name__ == "__main__":
    sys.stdout.write(changes_of(sys.argv[1], CHANGELOG.read_text("utf-8")))
