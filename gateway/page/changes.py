"""The files in a diff, found without taking it apart into lines, and some lines of it. Pure.

A run may change thousands of files, in megabytes: the page gets the list of them, and the lines of
a file when the reader opens it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

MAX_LINES: Final = 1_000
MAX_LINE_CHARACTERS: Final = 2_000
# More do not fit into what a runner sends; any run may upload something like a diff.
MAX_FILES: Final = 50_000
# Files that are so small come with the list, until there are so many lines.
_SMALL_LINES: Final = 120
_SMALL_LINES_OF_ALL: Final = 400
# A head longer than this has names that no system allows.
_MAX_HEAD_BYTES: Final = 65_536
_MAX_FRONT_BYTES: Final = 1_048_576

_FILE: Final = b"diff --git "
# In front of the files: one that was changed before the run began as well.
_BEFORE: Final = "changed before the run too: "
_NAME: Final = re.compile(r"(?:rename to|copy to|\+\+\+|---) (.*)")
_NUL: Final = "/dev/null"
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPED: Final = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS: Final = dict(zip(b"abtnvfr", b"\a\b\t\n\v\f\r"))


def files_of(diff: bytes) -> list[dict[str, Any]]:
    """Return the files of a diff.

    `from` is a file's name before, if it had another; `begin` and `end` are of its hunks; `key`
    changes with them. Small files have their lines with them, as `text`. `was_changed` says whether
    a file had been changed before the run began as well.
    """
    begins = list(islice(_begins(diff), MAX_FILES))
    files = [_file(diff, begin, end) for begin, end in zip(begins, [*begins[1:], len(diff)])]
    front = diff[: min([*begins[:1], _MAX_FRONT_BYTES])].decode(errors="replace").split("\n")
    before = {_unquoted(line[len(_BEFORE) :]) for line in front if line.startswith(_BEFORE)}
    room = _SMALL_LINES_OF_ALL
    for file in files:
        file["was_changed"] = file["path"] in before
        room -= file["lines"]
        if file["lines"] <= _SMALL_LINES and room >= 0:
            file["text"] = lines_of(diff, file["begin"], file["end"])[0]
    return files


def lines_of(diff: bytes, begin: int, end: int) -> tuple[str, int | None]:
    """Return lines of a diff, and where to go on; None at the end. Long lines are shortened."""
    lines: list[str] = []
    while begin < end and len(lines) < MAX_LINES:
        newline = diff.find(b"\n", begin, end)
        line_end = end if newline < 0 else newline
        lines.append(_shortened(diff[begin:line_end].decode(errors="replace")))
        begin = line_end + 1
    return "\n".join(lines), begin if begin < end else None


def _begins(diff: bytes) -> Iterator[int]:
    """Yield where the files begin."""
    if diff.startswith(_FILE):
        yield 0
    at = diff.find(b"\n" + _FILE)
    while at >= 0:
        yield at + 1
        at = diff.find(b"\n" + _FILE, at + 1)


def _shortened(line: str) -> str:
    left = len(line) - MAX_LINE_CHARACTERS
    return f"{line[:MAX_LINE_CHARACTERS]}… ({left} more characters)" if left > 0 else line


def _file(diff: bytes, begin: int, end: int) -> dict[str, Any]:
    hunks = diff.find(b"\n@@", begin, end) + 1 or end
    head = diff[begin : min(hunks, begin + _MAX_HEAD_BYTES)].decode(errors="replace")
    # Before a line that the whole file begins with there is a line end of the head.
    added, removed = (diff.count(b"\n" + sign, max(0, hunks - 1), end) for sign in (b"+", b"-"))
    lines = diff.count(b"\n", hunks, end) + (hunks < end and not diff.endswith(b"\n", hunks, end))
    content = hashlib.blake2b(memoryview(diff)[hunks:end], digest_size=12)
    return {
        **_said(head.split("\n")),
        "added": added,
        "removed": removed,
        "lines": lines,
        "begin": hunks,
        "end": end,
        "key": content.hexdigest(),
    }


def _said(head: list[str]) -> dict[str, Any]:
    """Return what the lines before the hunks say of a file."""
    path, before = _named_twice(head[0][len(_FILE) :]), None
    status, is_binary = "changed", False
    for line in head[1:]:
        named = _NAME.fullmatch(line)
        name = _unquoted(named[1]) if named else ""
        if name and not name.startswith(_NUL):
            path = name[2:] if line.startswith(("+++", "---")) else name
        if line.startswith("new file"):
            status = "added"
        elif line.startswith("deleted file"):
            status = "removed"
        elif line.startswith("rename from "):
            status, before = "renamed", _unquoted(line[len("rename from ") :])
        elif line.startswith(("Binary files", "GIT binary")):
            is_binary = True
    return {"path": path, "from": before, "status": status, "is_binary": is_binary}


def _named_twice(names: str) -> str:
    """Return the one name in `a/name b/name`, of a file whose head says no more."""
    if names.startswith('"'):
        quoted = _QUOTED.match(names)
        return _unquoted(quoted[0] if quoted else names)[2:]
    return names[2 : (len(names) - 1) // 2]


def _unquoted(name: str) -> str:
    """Return a name as it is: git quotes some, with the bytes of UTF-8 as octal numbers."""
    if not name.startswith('"'):
        return name[:-1] if name.endswith("\t") else name
    inside = name[1 : name.rfind('"')] if name.rfind('"') > 0 else name[1:]

    def meant(found: re.Match[bytes]) -> bytes:
        what = found[1]
        code = int(what, 8) & 255 if len(what) == 3 else _LETTERS.get(what[0], what[0])
        return bytes([code])

    return _ESCAPED.sub(meant, inside.encode()).decode(errors="replace")
