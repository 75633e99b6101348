"""Whether the repository that git finds here is this folder's own, and where a run works in it.

git obeys a file `.git` that says `gitdir: /another/repository`, a link, or a file `commondir` in
the repository, and then shows what is in that other one: its history, and its files as removed.
The author of an archive can write those. What they cannot write is the other repository, so that
one must know this folder: git notes it there for every worktree and every submodule.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinds.profile import Worktree

_GITDIR: Final = "gitdir: "
_WORKTREE_SETTING: Final = re.compile(r'(?m)^\s*worktree\s*=\s*"?([^"\n]+?)"?\s*$')
_BRANCH: Final = re.compile(r"ref: refs/heads/([^\x00-\x20\x7f]{1,200})")
_MAX_POINTER_BYTES: Final = 65_536
# What of a repository a command that only shows does not read; tools make links of these.
_NOT_READ: Final = frozenset({"hooks", "lfs", "annex", "description"})
# Clocks of file systems are coarse.
_COARSE_S: Final = 2.0


def find_work_tree(cwd: str) -> str | None:
    """Return the folder that has the repository which git finds from here; None if none has."""
    folder = os.path.realpath(cwd)
    while not os.path.lexists(os.path.join(folder, ".git")):
        if folder == os.path.dirname(folder):
            return None
        folder = os.path.dirname(folder)
    return folder


def leads_to(work_tree: str) -> str | None:
    """Return where the repository of a folder really is, if that is not its own; None if it is.

    Its own lies in the folder, or knows it as one of its worktrees or submodules.
    """
    top = Path(work_tree)
    git_dir = _git_dir(top / ".git")
    if git_dir is None:
        return None  # git itself reports the error
    common = _common_dir(git_dir)
    if not all(_is_in(each, top) for each in (git_dir, common)):
        is_worktree = git_dir.parent == common / "worktrees" and _names(
            _read(git_dir / "gitdir"), git_dir, top / ".git"
        )
        setting = _WORKTREE_SETTING.search(_read(git_dir / "config"))
        is_submodule = (
            common == git_dir and setting is not None and _names(setting[1], git_dir, top)
        )
        if not (is_worktree or is_submodule):
            return str(common if _is_in(git_dir, top) else git_dir)
    for link in (*_links(git_dir), *_links(common)):
        target = _real(link)
        if not (_is_in(target, git_dir) or _is_in(target, common)):
            return str(target)
    return None


def find_branch(cwd: str) -> str | None:
    """Return the branch that is checked out where a run works, if there is one to tell."""
    top = find_work_tree(cwd)
    git_dir = None if top is None else _git_dir(Path(top, ".git"))
    if git_dir is None or os.path.islink(git_dir / "HEAD"):
        return None
    if not _is_in(git_dir, Path(str(top))) and leads_to(str(top)) is not None:
        return None
    found = _BRANCH.fullmatch(_read(git_dir / "HEAD").strip())
    return None if found is None else found[1]


def find_worktree(cwd: str, worktree: Worktree, since: float) -> str | None:
    """Return the worktree that a run works in, if it is there and the repository's own.

    The one that has the name; without a name, the only one that was made `since` then (Unix time).
    """
    top = find_work_tree(cwd)
    if top is None:
        return None
    folder = Path(top, worktree.folder)
    if worktree.names:
        places = [folder / name for name in worktree.names]
    else:
        places = [each.parent for each in folder.glob("*/.git") if _made_at(each) >= since]
    own = [str(place) for place in places if _is_worktree_of(place, Path(top))]
    return own[0] if len(own) == 1 else None


def _is_worktree_of(place: Path, top: Path) -> bool:
    """Whether this folder is a worktree of the repository of another one."""
    git_dir, main = _git_dir(place / ".git"), _git_dir(top / ".git")
    if git_dir is None or main is None:
        return False
    return (
        git_dir != main
        and _real(place) == place
        and leads_to(str(place)) is None
        and _common_dir(git_dir) == _common_dir(main)
    )


def _made_at(file: Path) -> float:
    try:
        return file.stat().st_mtime + _COARSE_S
    except OSError:
        return 0.0


def _git_dir(entry: Path) -> Path | None:
    """Return the repository that an entry `.git` is or names; None if it names none."""
    if os.path.isdir(entry):  # unlike Path.is_dir it raises nothing
        return _real(entry)
    text = _read(entry)
    return _real(entry.parent / text[len(_GITDIR) :].strip()) if text.startswith(_GITDIR) else None


def _common_dir(git_dir: Path) -> Path:
    """Return what a repository shares with its worktrees."""
    pointer = _read(git_dir / "commondir").strip()
    return _real(git_dir / pointer) if pointer else git_dir


def _links(git_dir: Path) -> Iterator[Path]:
    """Yield the links in a repository that decide what git shows."""
    for folder, folders, files in os.walk(git_dir):
        place = Path(folder)
        is_top = place == git_dir
        yield from (
            place / name
            for name in (*folders, *files)
            if os.path.islink(place / name) and not (is_top and name in _NOT_READ)
        )
        if is_top:
            folders[:] = [name for name in folders if name in ("objects", "refs", "logs", "info")]
        elif place.parent == git_dir and place.name == "objects":
            folders[:] = [name for name in folders if name in ("info", "pack")]


def _names(text: str, base: Path, path: Path) -> bool:
    return bool(text.strip()) and _real(base / text.strip()) == _real(path)


def _is_in(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _read(path: Path) -> str:
    """Return what a small file says; nothing if it cannot be read, or not without waiting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        # For git a name ends with the first NUL.
        return os.fsdecode(os.read(fd, _MAX_POINTER_BYTES).partition(b"\0")[0])
    finally:
        os.close(fd)
