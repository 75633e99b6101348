"""What Claude Code's tools for files change, as hunks of a unified diff. Pure.

`proposed_diff` is of what a tool is called with, `made_diff` of what came of it: only that knows
the lines around a change, and their numbers. The names of the files are not in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from kinds.claude_fields import raw_of

EDITING: Final = frozenset({"Edit", "MultiEdit"})
CHANGING: Final = EDITING | {"Write"}
# difflib's time grows faster than the texts do.
_MAX_DIFF_LINES: Final = 2_000
_MAX_HUNKS: Final = 1_000


def proposed_diff(tool: str, given: Mapping[str, Any]) -> str:
    """Return what an edit would change, without the file's lines around it."""
    if tool not in EDITING:
        return ""
    parts = []
    edits = given.get("edits")
    for edit in edits if isinstance(edits, list) and edits else [given]:
        before, after = raw_of(edit, "old_string"), raw_of(edit, "new_string")
        if before.endswith("\n") and after.endswith("\n"):
            before, after = before[:-1], after[:-1]
        # Not `splitlines`, for which a character in a line may be the end of it.
        old, new = before.split("\n"), after.split("\n")
        if len(old) + len(new) > _MAX_DIFF_LINES:
            return ""
        lines = difflib.unified_diff(old, new, lineterm="", n=2)
        parts += [line for line in lines if not line.startswith(("---", "+++"))]
    return "\n".join(parts)


def made_diff(tool: str, given: Mapping[str, Any], details: Any) -> str:
    """Return the change as a diff. `details` is the result's part for programs.

    Without details the requested change is shown, and a bare `@@` begins each hunk:
    its place in the file is not known.
    """
    patch = details.get("structuredPatch") if isinstance(details, Mapping) else None
    if isinstance(patch, list) and patch:
        return "\n".join(line for hunk in patch[:_MAX_HUNKS] for line in _hunk(hunk))
    is_told = isinstance(details, Mapping)
    if tool == "Write" and not (is_told and details.get("type") != "create"):
        lines = _lines(raw_of(given, "content"))
        head = f"@@ -0,0 +1,{len(lines)} @@" if is_told else "@@"
        return "\n".join([head, *(f"+{line}" for line in lines)])
    proposed = proposed_diff(tool, given).split("\n")
    return "\n".join("@@" if line.startswith("@@") else line for line in proposed)


def count_changes(diff: str) -> str:
    """Return how much a diff adds and removes, in words."""
    added = sum(line.startswith("+") for line in diff.split("\n"))
    removed = sum(line.startswith("-") for line in diff.split("\n"))
    noun = "line" if (added or removed) == 1 else "lines"
    if not (added and removed):
        return f"{added or removed} {noun} {'added' if added else 'removed'}"
    return f"{added} {noun} added, {removed} removed"


def _hunk(hunk: Any) -> list[str]:
    if not isinstance(hunk, Mapping):
        return []
    names = ("oldStart", "oldLines", "newStart", "newLines")
    numbers = [hunk.get(name) for name in names]
    lines = hunk.get("lines")
    head = "@@"
    if all(isinstance(each, int) and 0 <= each < 10**9 for each in numbers):
        head = "@@ -{},{} +{},{} @@".format(*numbers)
    shown = [each for each in lines if isinstance(each, str)] if isinstance(lines, list) else []
    # A hunk's line has one of these before it; its own line end is not shown.
    kept = [each.rstrip("\r\n") for each in shown if each[:1] in ("+", "-", " ")]
    return [head, *kept] if kept else []


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" and len(lines) > 1 else lines
