"""Judge how much of each module the tests took: what `make coverage` ends with.

Usage: ``python .ci/coverage_gate.py REPORT`` in the project's folder. REPORT is what
``coverage json`` wrote, with branches. Prints what is missing of each module that is below its
mark; exit 1 if there is one. A module that no test imports is in no report, and counts as 0.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What nothing must get past: secrets, the operator's commands, the journal, the gateway's answers.
_WHOLE = re.compile(r"(redaction|journal)/\w+\.py|(redact|allowlist|gateway_client)\.py")
_WHOLE_PERCENT = 100.0
_MODULE_PERCENT = 90.0

_MEASURED = (
    "*.py",
    *(f"{room}/*.py" for room in ("gateway", "journal", "kinds", "redaction", "runner", "tools")),
)
_NOT_MEASURED = {"setup.py"}  # setuptools calls it, in an environment of its own


@dataclass(frozen=True)
class Module:
    """What the tests took of one module. `missing` reads ``12, 15-18, 20->25, 31->exit``."""

    name: str
    percent: float
    missing: str

    @property
    def mark(self) -> float:
        """How many percent of its lines and branches have to be taken."""
        return _WHOLE_PERCENT if _WHOLE.fullmatch(self.name) else _MODULE_PERCENT


def read_modules(report: dict[str, Any], root: Path) -> Iterator[Module]:
    """Yield every module of the project below `root`, in the order of its name."""
    for path in sorted(found for glob in _MEASURED for found in root.glob(glob)):
        name = path.relative_to(root).as_posix()
        if name in _NOT_MEASURED:
            continue
        found = report["files"].get(name)
        if found is not None:
            yield Module(name, found["summary"]["percent_covered"], _missing(found))
        elif path.read_text(encoding="utf-8").strip():
            yield Module(name, 0.0, "all of it: no test imports it")


def _missing(found: dict[str, Any]) -> str:
    lines: list[int] = found["missing_lines"]
    # A branch out of a missing line, or into one, is missing for no reason of its own.
    branches = [
        f"{start}->{'exit' if end < 0 else end}"
        for start, end in found["missing_branches"]
        if not {start, end} & set(lines)
    ]
    return ", ".join([*_ranges(lines, found["executed_lines"]), *branches])


def _ranges(lines: list[int], executed: list[int]) -> Iterator[str]:
    """Yield the lines, those as one range that have no executed one between them."""
    start = 0
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else None
        if following is None or any(line < each < following for each in executed):
            yield f"{lines[start]}-{line}" if lines[start] < line else f"{line}"
            start = index + 1


def main(argv: list[str]) -> int:
    """Judge the report that argv names; return the exit code."""
    report = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    modules = list(read_modules(report, Path.cwd()))
    low = [module for module in modules if module.percent < module.mark]
    for module in low:
        # Rounded down: what lacks one line of many does not have its 100 %.
        percent = int(module.percent * 10) / 10
        print(f"{module.name}: {percent} % of {module.mark:g} %; missing: {module.missing}")
    if low:
        print(f"coverage: {len(low)} of {len(modules)} modules are below their mark")
        return 1
    print(f"coverage: all {len(modules)} modules are at their mark")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
