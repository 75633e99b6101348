"""Tell which tests were skipped, and refuse a skip that nobody has agreed to.

Usage: ``python .ci/skips.py REPORT ALLOWED``. REPORT has a line ``nodeid<TAB>reason`` for each
skipped test, as tests/conftest.py writes it. ALLOWED has lines ``nodeid<TAB>why it may be so``;
``*`` in the node id stands for anything (``[`` does not: parametrised tests are named with it).
Prints one line, always; exit 1 if one of the skips is not allowed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def parse_lines(text: str) -> list[tuple[str, str]]:
    """Return the (node id, reason) pairs of either file, without comments and empty lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.partition("\t") for line in lines]
    return [(nodeid.strip(), reason.strip()) for nodeid, _, reason in pairs]


def is_allowed(nodeid: str, allowed: list[tuple[str, str]]) -> bool:
    """Tell whether a pattern with a reason covers this test."""
    return any(
        reason and re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), nodeid)
        for pattern, reason in allowed
    )


def summarise(skipped: list[tuple[str, str]], allowed: list[tuple[str, str]]) -> tuple[str, bool]:
    """Return the one line, and whether every skip in it is allowed."""
    if not skipped:
        return "skipped tests: none", True
    told, fine = [], True
    for nodeid, reason in sorted(set(skipped)):
        known = is_allowed(nodeid, allowed)
        fine = fine and known
        told.append(f"{nodeid} ({reason}{'' if known else '; NOT ALLOWED'})")
    return "skipped tests: " + ", ".join(told), fine


def main(argv: list[str]) -> int:
    """Print the line for the files that argv names; return the exit code."""
    report, allowed = (parse_lines(Path(name).read_text(encoding="utf-8")) for name in argv)
    line, fine = summarise(report, allowed)
    print(line)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
