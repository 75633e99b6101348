"""Keep `.env` and `.data/` out of what leaves a project: its ignore files, and what git tracks.

`install` adds a heading and the lines below it to an ignore file. The heading says how the file was
before, so that `uninstall` can restore it byte for byte.
"""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from typing import TYPE_CHECKING, Final

from config import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# What holds secrets and output.
IGNORED: Final = (".env", ".data/")
_FILES: Final = (".gitignore", ".npmignore", ".dockerignore", ".hgignore")
_MADE_IF_MISSING: Final = ".gitignore"  # it counts as soon as the project becomes a repository

_HEADING: Final = "# claude-runner keeps its secrets and output out:"
_HEADING_OF_NEW_FILE: Final = "# claude-runner made this file to keep its secrets and output out:"
_HEADING_AFTER_UNENDED_LINE: Final = (
    "# claude-runner keeps its secrets and output out (and ended the line above):"
)
_HEADINGS: Final = (_HEADING, _HEADING_OF_NEW_FILE, _HEADING_AFTER_UNENDED_LINE)
_GIT_TIMEOUT_S: Final = 30.0


def add_ignores(project: Path) -> list[str]:
    """Add what is missing to the ignore files, and return what the user should know."""
    told: list[str] = []
    for path in (project / name for name in _FILES):
        is_there = os.path.lexists(path)
        if path.is_symlink():
            # What it leads to may belong to other projects as well.
            told.append(f"{path.name} is a link and was not changed; add {_join(IGNORED)} yourself")
        elif is_there or path.name == _MADE_IF_MISSING:
            before = path.read_bytes() if is_there else None
            missing = [entry for entry in IGNORED if not _ignores(before or b"", entry, path.name)]
            if missing:
                _replace(path, _add_lines(before, missing, path.name))
                told.append(f"{path.name}: {_join(missing)} added")
    return told


def remove_ignores(project: Path) -> list[str]:
    """Remove what `add_ignores` added, and return what the user should know."""
    told: list[str] = []
    for path in (project / name for name in _FILES):
        if path.is_symlink() or not path.is_file():
            continue
        before = path.read_bytes()
        after = _remove_lines(before, path.name)
        if after is None:
            path.unlink()
            told.append(f"{path.name} removed")
        elif after != before:
            _replace(path, after)
            told.append(f"{path.name}: the lines that `install` added are removed")
    return told


def _join(entries: Iterable[str]) -> str:
    return " and ".join(entries)


def _replace(path: Path, content: bytes) -> None:
    write_whole(path, content, path.stat().st_mode & 0o777 if path.exists() else 0o644)


def _spell(entry: str, file: str) -> str:
    """Return the line for an entry. Mercurial's files may be in another syntax at their end."""
    return f"glob:{entry.rstrip('/')}" if file == ".hgignore" else entry


def _add_lines(before: bytes | None, entries: Sequence[str], file: str) -> bytes:
    content = before or b""
    end = b"\r\n" if b"\r\n" in content else b"\n"
    is_unended = content != b"" and not content.endswith(b"\n")
    heading = _HEADING_OF_NEW_FILE if before is None else _HEADING
    lines = [_HEADING_AFTER_UNENDED_LINE if is_unended else heading]
    lines += [_spell(entry, file) for entry in entries]
    return content + end * is_unended + b"".join(line.encode() + end for line in lines)


def _remove_lines(content: bytes, file: str) -> bytes | None:
    """Return the content without our lines; None if the file was made for them alone."""
    lines = content.splitlines(keepends=True)
    texts = [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]
    begin = next((number for number, text in enumerate(texts) if text in _HEADINGS), None)
    if begin is None:
        return content
    end = begin + 1
    while end < len(texts) and texts[end] in [_spell(entry, file) for entry in IGNORED]:
        end += 1
    left = b"".join(lines[:begin])
    if texts[begin] == _HEADING_AFTER_UNENDED_LINE and end == len(lines):
        left = re.sub(rb"\r?\n\Z", b"", left)
    left += b"".join(lines[end:])
    return None if texts[begin] == _HEADING_OF_NEW_FILE and not left else left


def _ignores(content: bytes, entry: str, file: str) -> bool:
    """Whether these lines ignore the entry by its name; the last line that says so counts.

    In doubt they do not: a line more does no harm. `.env/` is about folders alone.
    """
    name = entry.rstrip("/")
    is_ignored = False
    is_glob = file != ".hgignore"
    for line in content.decode("utf-8", "replace").splitlines():
        pattern = line.rstrip()
        bare = pattern.lstrip("!").lstrip("/")
        if file == ".hgignore" and pattern.startswith("syntax:"):
            is_glob = pattern.endswith("glob")
        elif file == ".hgignore":
            is_ignored |= pattern == f"glob:{name}" or (is_glob and pattern == name)
        elif pattern.startswith("!"):
            is_ignored = is_ignored and not fnmatch.fnmatchcase(name, bare.rstrip("/"))
        elif bare in (name, entry):
            is_ignored = True
    return is_ignored


# --- what git makes of it -------------------------------------------------------------------------


def ask_git(project: Path, folder: str, written: Sequence[str]) -> list[str]:
    """Return what the user should change: git tracks a secret, or ignores a file of ours."""
    tracked = _git(project, "ls-files", "--", ".env", ".data")
    told = [
        f"git tracks {name}: `git rm -r --cached {name}` takes it out of the next commit; what was "
        "committed stays readable, so change its secrets"
        for name in sorted({line.partition("/")[0] for line in tracked})
    ]
    for line in _git(project, "check-ignore", "--verbose", "--no-index", "--", *written):
        where, _, name = line.partition("\t")
        source, number, pattern = where.split(":", 2)
        if not pattern.startswith("!"):
            told.append(
                f"git ignores {name}, so a commit leaves it out: change line {number} of {source}, "
                f"which is {pattern}, or choose another folder than {folder} with --folder"
            )
            break
    return told


def _git(project: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints; none without git, or where it has nothing to say."""
    # A relative entry of PATH is a place in the project.
    folders = [folder for folder in os.get_exec_path() if os.path.isabs(folder)]
    programs = [os.path.join(folder, "git") for folder in folders]
    program = next(
        (each for each in programs if os.access(each, os.X_OK) and os.path.isfile(each)), None
    )
    if program is None:
        return []
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # The project's own settings must not start a program.
    safe = [
        "-c",
        "core.fsmonitor=false",
        "-c",
        "safe.bareRepository=explicit",
        "-c",
        "core.quotePath=false",
    ]
    try:
        done = subprocess.run(
            [program, *safe, *arguments],
            cwd=project,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines()
